#include "src/daemon/daemon.hpp"

#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <memory>
#include <set>
#include <system_error>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>

#include "protocols/pcp/codec.hpp"
#include "src/admin/server.hpp"
#include "src/daemon/lease_log.hpp"
#include "src/daemon/log.hpp"
#include "src/daemon/mapping_log.hpp"
#include "src/daemon/planes.hpp"
#include "src/daemon/port_5351.hpp"
#include "src/daemon/privileges.hpp"
#include "src/daemon/service_manager.hpp"
#include "src/daemon/upnp.hpp"
#include "src/lease/lease_service.hpp"
#include "src/lease/store/sqlite_store.hpp"
#include "src/transport/anycast.hpp"
#include "src/transport/device_names.hpp"
#include "src/transport/netlink.hpp"
#include "src/transport/network_state.hpp"
#include "src/transport/udp_service.hpp"

namespace sallyport::daemon {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

constexpr std::chrono::seconds sweep_interval{1};
constexpr std::string_view run_directory = "/run/sallyport";
constexpr std::string_view admin_group = "sallyport";

/// RFC 1918, and the shared space that carriers number their customers from (RFC 6598).
bool is_private(const Address& address) {
  static constexpr Prefix ranges[] = {Prefix::v4(0x0a000000, 8), Prefix::v4(0xac100000, 12),
                                      Prefix::v4(0xc0a80000, 16), Prefix::v4(0x64400000, 10)};
  return std::ranges::any_of(ranges, [&](const Prefix& range) { return range.contains(address); });
}

void make_run_directory() {
  std::error_code error;
  std::filesystem::create_directories(run_directory, error);
  if (error) log::warn("cannot make the directory " + std::string{run_directory} + ": " + error.message());
}

/// Octets of the system's random source; it does not fail for as few.
template <class Value>
void fill_random(Value& value) {
  if (::getrandom(&value, sizeof value, 0) != static_cast<ssize_t>(sizeof value)) std::abort();
}

/// With the LAN's addresses and on-link prefixes of IPv6, where they are not in it already.
nat::NetworkView with_ipv6(nat::NetworkView view, const transport::NetworkState& state) {
  static const Prefix of_a_link = *Prefix::parse("fe80::/10");
  const auto once = [](auto& list, const auto& value) {
    if (std::ranges::find(list, value) == list.end()) list.push_back(value);
  };
  for (auto* side : {&view.lan, &view.wan})
    for (auto& interface : *side)
      for (const auto& each : state.ipv6) {
        if (interface.index == 0 || each.interface != interface.index) continue;
        once(interface.addresses, each.address.address);
        if (side != &view.lan || of_a_link.contains(each.address.address)) continue;
        auto bytes = each.address.address.bytes();
        for (std::size_t bit = each.address.length; bit < 128; ++bit)
          bytes[bit / 8] &= ~(std::byte{0x80} >> static_cast<int>(bit % 8));
        once(interface.prefixes, Prefix{Address{bytes}, each.address.length});
      }
  return view;
}

/// "02:00:00:00:00:01" as a number.
std::uint64_t mac_number(const std::string& text) {
  std::uint64_t number = 0;
  for (const char c : text)
    if (c != ':') number = number << 4 | static_cast<std::uint64_t>(c <= '9' ? c - '0' : c - 'a' + 10);
  return number;
}

class Daemon {
 public:
  Daemon(const Config& config, const Flags& flags) : config_{config}, flags_{flags} {}
  ~Daemon() {
    if (service_ && lease_log_) service_->remove_listener(*lease_log_);
  }

  int run();

 private:
  bool start();
  bool load_plane();
  bool start_plane();
  bool take(StartedPlane started);
  bool start_store();
  void reload();
  void stop();

  /// Follows the network and the configuration: plane, service, sockets, announcements. Idempotent.
  void apply_network(TimePoint now);
  bool serve_ports(const nat::NetworkView& view, TimePoint now);
  void claim_anycast(bool claimed, bool ipv6);

  void on_store_news();
  void on_timer();
  void after_work();
  void after_input();
  void arm(TimePoint now);
  void sweep(TimePoint now);
  void watch_signals();

  void tell_changed_warnings();
  std::vector<std::string> own_warnings() const;
  admin::DaemonStatus status() const;
  admin::DeviceIdentity identify(const Address& address);

  Config config_;
  Flags flags_;
  asio::io_context io_{1};
  SystemClock clock_;
  TimePoint started_ = clock_.now();

  std::unique_ptr<transport::NetworkWatcher> network_;
  transport::DeviceNames names_;
  nat::NetworkView view_;
  std::vector<transport::NetworkState::Ipv6Address> ipv6_;
  std::unique_ptr<nat::DataPlane> plane_;
  std::string plane_reason_;
  StartedPlane not_loaded_;
  std::atomic<bool> store_news_{false};
  std::unique_ptr<lease::Store> store_;
  std::unique_ptr<lease::LeaseService> service_;
  std::unique_ptr<LeaseLog> lease_log_;
  MappingLog mapping_log_{[](const std::string& line) { log::info(line); }};
  std::unique_ptr<Port5351> port_5351_;
  std::unique_ptr<transport::UdpService> udp_;
  std::unique_ptr<Upnp> upnp_;
  std::unique_ptr<admin::Server> admin_;

  asio::steady_timer timer_{io_};
  std::optional<TimePoint> armed_;
  TimePoint next_sweep_ = started_ + sweep_interval;
  asio::signal_set signals_{io_, SIGTERM, SIGINT, SIGHUP};
  std::optional<std::chrono::microseconds> watchdog_ = watchdog_interval();

  bool work_posted_ = false;   ///< after_work runs soon
  bool plane_behind_ = false;  ///< it did not take the last view
  std::string udp_problem_;    ///< why the port cannot be had somewhere; empty: it is
  std::string upnp_problem_;
  std::string anycast_problem_;
  std::string reload_problem_;
  std::set<std::string> told_warnings_;
  transport::SourceLimiter event_limit_{{10, 20, 1, 1000}};
  std::uint64_t events_left_out_ = 0;
};

/// The plane that must be loaded while all rights are there, if it is wanted and can be had.
bool Daemon::load_plane() {
  make_run_directory();
  auto loaded = daemon::load_plane(config_, std::string{run_directory}, clock_);
  if (loaded.plane || config_.engine.data_plane == PlaneChoice::ebpf) return take(std::move(loaded));
  not_loaded_ = std::move(loaded);
  return true;
}

bool Daemon::start_plane() {
  return take(daemon::start_plane(config_, std::string{run_directory}, clock_,
                                  std::exchange(not_loaded_, StartedPlane{})));
}

bool Daemon::take(StartedPlane started) {
  plane_reason_ = std::move(started.reason);
  if (!started.plane) {
    log::error(plane_reason_);
    return false;
  }
  plane_ = std::move(started.plane);
  if (!started.note.empty()) log::warn(started.note);
  log::info("data plane " + plane_->status().name + " (" + log::escaped(plane_reason_) + ")");
  if (const auto set = plane_->set_policy(config_.plane_policy(), clock_.now()); !set) {
    log::error("the data plane refused the configuration: " + set.error().message());
    return false;
  }
  return true;
}

bool Daemon::start_store() {
  lease::SqliteOptions options;
  options.dir = config_.store.dir;
  options.sync = config_.store.sync;
  options.notify = [this] {
    // Many commits while the control thread is busy are one call.
    if (!store_news_.exchange(true)) asio::post(io_, [this] { on_store_news(); });
  };
  auto store = lease::open_sqlite_store(std::move(options));
  if (!store) {
    log::error(store.error());
    return false;
  }
  store_ = std::move(*store);
  return true;
}

bool Daemon::start() {
  auto network = transport::NetworkWatcher::open(io_.get_executor());
  if (!network) {
    log::error("cannot ask the kernel about the network: " + network.error().message());
    return false;
  }
  network_ = std::move(*network);
  view_ = transport::build_view(network_->state(), config_.network_wishes());

  // The store first: its lock tells a second instance apart from other trouble.
  // Only loading programs into the kernel needs more rights than the rest, and no thread may be there yet.
  if (!load_plane()) return false;
  for (const auto& problem :
       drop_privileges(std::string{admin_group}, {config_.store.dir, config_.admin.socket}))
    log::warn(problem);
  if (!start_store() || (!plane_ && !start_plane())) return false;

  if (const auto set = plane_->set_network(view_, clock_.now()); !set) {
    log::error("the data plane cannot be set up: " + set.error().message());
    for (const auto& warning : plane_->status().warnings) log::error(warning);
    return false;
  }

  std::uint64_t seed = 0;
  fill_random(seed);
  service_ = std::make_unique<lease::LeaseService>(
      lease::LeaseService::Dependencies{*plane_, *store_, clock_, seed, [this](const Address& address) {
                                          const auto mac = network_->mac_now(address);
                                          return mac ? std::optional{mac_number(*mac)} : std::nullopt;
                                        }});
  lease_log_ = std::make_unique<LeaseLog>(
      [](const std::string& line, bool detail) { detail ? log::debug(line) : log::info(line); });
  service_->add_listener(*lease_log_);
  port_5351_ = std::make_unique<Port5351>(*service_);
  port_5351_->set_pcp_options({config_.policy.third_party});
  service_->start(config_.lease_policy(), with_ipv6(view_, network_->state()), clock_.now());

  transport::UdpService::Options udp;
  udp.limit.per_second = config_.limits.requests_per_second;
  udp.limit.burst = 2 * config_.limits.requests_per_second;
  udp_ =
      std::make_unique<transport::UdpService>(io_, *port_5351_, clock_, udp, [this] { arm(clock_.now()); });
  upnp_ = std::make_unique<Upnp>(io_, *service_, clock_, config_, [this] { after_input(); });
  if (!serve_ports(view_, clock_.now())) {
    log::error(udp_problem_.empty() ? upnp_problem_ : udp_problem_);
    return false;
  }

  admin::Sources sources;
  sources.status = [this] { return status(); };
  sources.device = [this](const Address& address) { return identify(address); };
  sources.after_change = [this] { after_work(); };
  admin::ServerOptions options;
  options.socket = config_.admin.socket;
  options.group = admin_group;
  admin_ = std::make_unique<admin::Server>(io_, *service_, clock_, std::move(sources), std::move(options));
  std::string why;
  if (!admin_->start(why)) {
    log::error(why);
    return false;
  }
  network_->watch([this] {
    apply_network(clock_.now());
    after_work();
  });
  return true;
}

int Daemon::run() {
  watch_signals();
  if (!start()) return 1;
  tell_changed_warnings();
  if (const auto ipv6 = plane_->status().ipv6; !ipv6.empty()) log::info(ipv6);
  // What changed while we started: its notices wait, and this is sooner.
  network_->refresh();
  after_work();

  static constexpr std::string_view line = "sallyportd ready\n";
  [[maybe_unused]] const auto written = ::write(STDOUT_FILENO, line.data(), line.size());
  notify_service_manager("READY=1");
  io_.run();
  return 0;
}

void Daemon::watch_signals() {
  signals_.async_wait([this](const error_code& error, int number) {
    if (error) return;
    if (number != SIGHUP) return stop();
    reload();
    watch_signals();
  });
}

void Daemon::stop() {
  notify_service_manager("STOPPING=1");
  log::info(
      "stopping; leases are kept, and nothing leaves the LAN untranslated until the next start or --detach");
  // A disk that hangs must not hold the stop up: what was acknowledged is synced long since.
  std::signal(SIGALRM, [](int) { ::_exit(0); });
  ::alarm(4);
  admin_.reset();
  upnp_.reset();
  udp_.reset();
  claim_anycast(false, false);
  io_.stop();
}

void Daemon::reload() {
  notify_reloading();
  auto loaded = load_config(flags_);
  if (!loaded.problems.empty()) {
    for (const auto& problem : loaded.problems) log::error(log::escaped(problem));
    reload_problem_ =
        "the configuration was not reloaded, the old one is kept: " + log::escaped(loaded.problems.front());
    log::error("the configuration has " + std::to_string(loaded.problems.size()) +
               (loaded.problems.size() == 1 ? " problem" : " problems") + "; the old one is kept");
    notify_service_manager("READY=1");
    return;
  }
  reload_problem_.clear();
  auto& config = loaded.config;
  const auto keep = [](auto& value, const auto& old, const char* key) {
    if (value == old) return;
    log::warn(std::string{key} + " is another now: that takes a restart");
    value = old;
  };
  keep(config.engine.data_plane, config_.engine.data_plane, "engine.data_plane");
  keep(config.engine.tun_queues, config_.engine.tun_queues, "engine.tun_queues");
  keep(config.store.dir, config_.store.dir, "store.dir");
  keep(config.store.sync, config_.store.sync, "store.sync");
  keep(config.admin.socket, config_.admin.socket, "admin.socket");
  keep(config.listen.http_port, config_.listen.http_port, "listen.http_port");
  keep(config.listen.igd_version, config_.listen.igd_version, "listen.igd_version");
  keep(config.listen.uda_minor, config_.listen.uda_minor, "listen.uda_version");
  keep(config.listen.multicast_ttl, config_.listen.multicast_ttl, "listen.multicast_ttl");
  keep(config.limits.http_head, config_.limits.http_head, "limits.http_head");
  keep(config.limits.http_body, config_.limits.http_body, "limits.http_body");
  keep(config.limits.http_head_timeout, config_.limits.http_head_timeout, "limits.http_head_timeout");
  keep(config.limits.http_request_timeout, config_.limits.http_request_timeout,
       "limits.http_request_timeout");
  keep(config.limits.http_idle_timeout, config_.limits.http_idle_timeout, "limits.http_idle_timeout");
  config_ = std::move(config);

  const auto now = clock_.now();
  log::set_level(config_.log.level);
  if (const auto set = plane_->set_policy(config_.plane_policy(), now); !set)
    log::warn("the data plane refused the new configuration: " + set.error().message());
  port_5351_->set_pcp_options({config_.policy.third_party});
  udp_->set_rate(config_.limits.requests_per_second, 2 * config_.limits.requests_per_second);
  upnp_->configure(config_);
  apply_network(now);
  serve_ports(view_, now);  // what is spoken where may differ though the network does not
  service_->set_policy(config_.lease_policy(), now);
  after_work();
  tell_changed_warnings();
  log::info("the configuration was reloaded");
  if (const auto ipv6 = plane_->status().ipv6; !ipv6.empty()) log::info(ipv6);
  notify_service_manager("READY=1");
}

void Daemon::apply_network(TimePoint now) {
  auto view = transport::build_view(network_->state(), config_.network_wishes());
  const bool ipv6_moved = network_->state().ipv6 != ipv6_;
  ipv6_ = network_->state().ipv6;
  if (view == view_ && !plane_behind_) {
    if (ipv6_moved) {
      service_->set_network(with_ipv6(view_, network_->state()), now);
      serve_ports(view_, now);
    }
    return;
  }
  view_ = std::move(view);
  const auto set = plane_->set_network(view_, now);
  if (!set && !plane_behind_)
    log::error("the data plane could not follow the network: " + set.error().message());
  plane_behind_ = !set;
  service_->set_network(with_ipv6(view_, network_->state()), now);
  serve_ports(view_, now);
  tell_changed_warnings();
}

bool Daemon::serve_ports(const nat::NetworkView& translated, TimePoint now) {
  const auto view = with_ipv6(translated, network_->state());
  std::vector<nat::PlaneInterface> interfaces;
  std::vector<nat::PlaneInterface> upnp_interfaces;
  std::vector<Port5351::Spoken> spoken;
  bool anycast_v6 = false;
  for (const auto& interface : view.lan) {
    if (config_.speaks(Protocol::upnp, interface.name)) {
      upnp_interfaces.push_back(interface);  // which is told the IPv6 of the state beside it
      std::erase_if(upnp_interfaces.back().addresses, [](const Address& a) { return !a.is_v4(); });
      std::erase_if(upnp_interfaces.back().prefixes, [](const Prefix& p) { return !p.address.is_v4(); });
    }
    const bool pcp = config_.speaks(Protocol::pcp, interface.name);
    const bool natpmp = config_.speaks(Protocol::natpmp, interface.name);
    if (!pcp && !natpmp) continue;
    interfaces.push_back(interface);
    if (interface.index == 0) continue;
    const bool has_ipv6 =
        std::ranges::any_of(interface.addresses, [](const Address& a) { return !a.is_v4(); });
    if (pcp && config_.listen.anycast) {
      interfaces.back().addresses.push_back(pcp::anycast_v4);
      if (has_ipv6) interfaces.back().addresses.push_back(pcp::anycast_v6);
      anycast_v6 |= has_ipv6;
    }
    if (!pcp) std::erase_if(interfaces.back().addresses, [](const Address& a) { return !a.is_v4(); });
    spoken.push_back(
        {interface.index, pcp, natpmp, interface.up ? interface.addresses : std::vector<Address>{}});
  }
  std::string why;
  claim_anycast(config_.listen.anycast && std::ranges::any_of(spoken, &Port5351::Spoken::pcp), anycast_v6);
  auto own = transport::own_addresses(network_->state());
  for (const auto& each : network_->state().ipv6) own.push_back(each.address.address);
  const bool good = udp_->serve(interfaces, own, why);
  udp_problem_ = good ? std::string{} : why;
  port_5351_->set_spoken(std::move(spoken), now);
  why.clear();
  const bool upnp_good = upnp_->serve(upnp_interfaces, translated, network_->state(), now, why);
  upnp_problem_ = upnp_good ? std::string{} : why;
  return good && upnp_good;
}

/// Each time anew: a process before this one may have left it, or somebody may have flushed the routes.
void Daemon::claim_anycast(bool claimed, bool ipv6) {
  anycast_problem_.clear();
  transport::claim_anycast(pcp::anycast_v4, claimed, anycast_problem_);
  std::string why;
  if (!transport::claim_anycast(pcp::anycast_v6, claimed && ipv6, why)) anycast_problem_ = why;
}

void Daemon::on_store_news() {
  store_news_ = false;  // first: news that come while we look make another call
  service_->commit_results(clock_.now());
  after_work();
}

/// After anything that may have driven the service: answers may wait, deadlines may be others.
void Daemon::after_work() {
  if (!udp_) return;
  udp_->drain();
  upnp_->drain(clock_.now());
  arm(clock_.now());
}

/// The same from inside a handler, where more input may follow at once: one look at the end serves all of it.
void Daemon::after_input() {
  if (std::exchange(work_posted_, true)) return;
  asio::post(io_, [this] {
    work_posted_ = false;
    after_work();
  });
}

void Daemon::arm(TimePoint now) {
  auto next = next_sweep_;
  if (const auto deadline = port_5351_->next_deadline()) next = std::min(next, *deadline);
  if (const auto deadline = upnp_->next_deadline()) next = std::min(next, *deadline);
  if (const auto deadline = service_->next_deadline()) next = std::min(next, *deadline);
  // one that fires too early finds nothing due: cheaper than setting it anew at each request
  if (armed_ && *armed_ <= next) return;
  armed_ = next;
  timer_.expires_after(std::max<std::chrono::nanoseconds>(next - now, std::chrono::milliseconds{1}));
  timer_.async_wait([this](const error_code& error) {
    if (!error) on_timer();
  });
}

void Daemon::on_timer() {
  armed_.reset();
  const auto now = clock_.now();
  if (now >= next_sweep_) {
    next_sweep_ = now + sweep_interval;
    sweep(now);
  }
  if (const auto deadline = service_->next_deadline(); deadline && *deadline <= now)
    service_->handle_timeout(now);
  port_5351_->handle_timeout(now);
  upnp_->handle_timeout(now);
  after_work();
}

void Daemon::sweep(TimePoint now) {
  for (const auto& event : plane_->sweep(now)) {
    if (event_limit_.admit({}, now) == transport::SourceLimiter::Verdict::pass)
      log::warn(log::escaped(event.text));
    else
      ++events_left_out_;
  }
  if (events_left_out_ != 0 && event_limit_.admit({}, now) == transport::SourceLimiter::Verdict::pass)
    log::warn(std::to_string(std::exchange(events_left_out_, 0)) +
              " more events of the data plane were not written");
  lease_log_->handle_timeout(now);
  if (config_.log.mappings)
    mapping_log_.take(plane_->implicit_mappings(now), now);
  else
    mapping_log_.forget();
  if (plane_behind_) apply_network(now);
  if (!udp_problem_.empty() || !upnp_problem_.empty()) serve_ports(view_, now);
  tell_changed_warnings();
  if (watchdog_) notify_service_manager("WATCHDOG=1");
}

std::vector<std::string> Daemon::own_warnings() const {
  std::vector<std::string> warnings;
  const auto describe = [&](const nat::PlaneInterface& interface, const std::string& side) {
    const auto name = side + " interface " + interface.name;
    if (interface.index == 0)
      warnings.push_back("the " + name + " does not exist; it is taken up when it comes");
    else if (!interface.up)
      warnings.push_back("the " + name + " is down or has no link");
    else if (std::ranges::none_of(interface.addresses, &Address::is_v4))
      warnings.push_back("the " + name + " has no IPv4 address");
  };
  for (const auto& interface : view_.lan) describe(interface, "LAN");
  for (const auto& interface : view_.wan) describe(interface, "WAN");
  for (const auto& network : transport::conflicting_networks(network_->state(), view_))
    warnings.push_back(
        "the network " + network.address.to_string() + "/" + std::to_string(network.v4_bits()) +
        " is on the LAN and on the WAN: its addresses are taken for the LAN's, and nothing of the WAN "
        "is reached there; give the LAN another network");
  if (view_.external.empty())
    warnings.push_back("there is no external address: new leases are refused until the WAN has one");
  else if (is_private(view_.external.front()))
    warnings.push_back(
        "the external address " + view_.external.front().to_string() +
        " is private: another NAT stands between this gateway and the internet, and ports opened "
        "here are reached only as far as it lets them be (bridge mode, or forward to this gateway)");
  if (!reload_problem_.empty()) warnings.push_back(reload_problem_);
  if (!udp_problem_.empty())
    warnings.push_back("PCP and NAT-PMP are not answered everywhere: " + udp_problem_);
  if (!anycast_problem_.empty()) warnings.push_back(anycast_problem_);
  if (!upnp_problem_.empty()) warnings.push_back("UPnP is not answered everywhere: " + upnp_problem_);
  if (upnp_)
    if (const auto warning = upnp_->warning()) warnings.push_back(*warning);
  return warnings;
}

/// Logs each warning when it comes and when it goes, not in between.
void Daemon::tell_changed_warnings() {
  std::set<std::string> current;
  for (auto list : {own_warnings(), plane_->status().warnings, service_->status().warnings})
    current.insert(list.begin(), list.end());
  for (const auto& warning : current)
    if (!told_warnings_.contains(warning)) log::warn(log::escaped(warning));
  for (const auto& warning : told_warnings_)
    if (!current.contains(warning)) log::info("no longer so: " + log::escaped(warning));
  told_warnings_ = std::move(current);
}

admin::DaemonStatus Daemon::status() const {
  admin::DaemonStatus status;
  status.version = SALLYPORT_VERSION;
  status.uptime_s = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::seconds>(clock_.now() - started_).count());
  status.plane = plane_->status();
  status.data_plane_reason = plane_reason_ + (status.plane.ipv6.empty() ? "" : "; " + status.plane.ipv6);
  const auto add = [&](const nat::PlaneInterface& interface, const char* role, bool served) {
    status.interfaces.push_back(
        {interface.name, role, interface.index != 0 && interface.up, interface.addresses, served});
  };
  const auto speaks = [&](Protocol protocol) {
    return std::ranges::any_of(config_.listen.lan,
                               [&](const std::string& name) { return config_.speaks(protocol, name); });
  };
  for (const auto& interface : view_.lan) add(interface, "lan", config_.serves(interface.name));
  for (const auto& interface : view_.wan) add(interface, "wan", false);
  status.external_addresses = view_.external;
  if (speaks(Protocol::pcp)) status.protocols.emplace_back("pcp");
  if (speaks(Protocol::natpmp)) status.protocols.emplace_back("natpmp");
  if (speaks(Protocol::upnp)) status.protocols.emplace_back("upnp");
  status.warnings = own_warnings();
  return status;
}

admin::DeviceIdentity Daemon::identify(const Address& address) {
  auto mac = network_->mac_of(address);
  auto name = names_.name_of(address, clock_.now());
  // files of this machine name the IPv4 addresses of devices, and IPv6 addresses are many and new
  if (!name && mac && !address.is_v4())
    if (const auto four = network_->ipv4_of(*mac)) name = names_.name_of(*four, clock_.now());
  return {std::move(mac), std::move(name)};
}

}  // namespace

int run(const Config& config, const Flags& flags) {
  std::signal(SIGPIPE, SIG_IGN);
  return Daemon{config, flags}.run();
}

int detach() {
  make_run_directory();
  std::string why;
  bool given_back = true;
  for (const auto& address : {pcp::anycast_v4, pcp::anycast_v6})
    if (!transport::claim_anycast(address, false, why)) {
      given_back = false;
      log::error(why);
    }
  if (detach_planes(std::string{run_directory}, why)) return given_back ? 0 : 1;
  log::error(why);
  return 1;
}

}  // namespace sallyport::daemon
