#include "src/daemon/upnp.hpp"

#include <sys/random.h>
#include <sys/utsname.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <string_view>

#include "src/daemon/log.hpp"

namespace sallyport::daemon {
namespace {

using namespace upnp;

constexpr std::string_view kept_uuid = "upnp.uuid", kept_secret = "upnp.path_secret", kept_boot = "upnp.boot_id";

std::array<std::byte, 16> random_octets() {
  std::array<std::byte, 16> octets;
  if (::getrandom(octets.data(), octets.size(), 0) != static_cast<ssize_t>(octets.size())) std::abort();
  return octets;
}

std::string hex(std::span<const std::byte> octets) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string text;
  for (const auto octet : octets) {
    text += digits[std::to_integer<unsigned>(octet) >> 4];
    text += digits[std::to_integer<unsigned>(octet) & 15];
  }
  return text;
}

std::optional<std::array<std::byte, 16>> from_hex(std::string_view text) {
  std::array<std::byte, 16> octets{};
  if (text.size() != 32) return std::nullopt;
  for (std::size_t i = 0; i < 16; ++i) {
    unsigned value = 0;
    const auto [end, error] = std::from_chars(text.data() + 2 * i, text.data() + 2 * i + 2, value, 16);
    if (error != std::errc{} || end != text.data() + 2 * i + 2) return std::nullopt;
    octets[i] = static_cast<std::byte>(value);
  }
  return octets;
}

/// 128 bits made at the first start and the same ever after.
std::array<std::byte, 16> kept_octets(lease::LeaseService& service, std::string_view name) {
  if (const auto text = service.kept(name))
    if (const auto octets = from_hex(*text)) return *octets;
  const auto octets = random_octets();
  service.keep(name, hex(octets));
  return octets;
}

/// "Linux/6.1": the version as far as a control point may need it.
std::string system_token() {
  utsname name{};
  if (::uname(&name) != 0) return "Linux";
  std::string_view release = name.release;
  std::size_t end = 0;
  for (int dots = 0; end < release.size(); ++end) {
    if (release[end] == '.' && ++dots == 2) break;
    if (release[end] != '.' && (release[end] < '0' || release[end] > '9')) break;
  }
  return "Linux/" + std::string{release.substr(0, end)};
}

/// Limits as configured, where 0 stands for none.
std::size_t most(std::uint32_t limit, std::size_t none) { return limit == 0 ? none : limit; }
std::chrono::seconds time_limit(std::uint32_t seconds) {
  return seconds == 0 ? std::chrono::hours{24 * 365} : std::chrono::seconds{seconds};
}
constexpr std::size_t no_octet_limit = std::size_t{1} << 30;
constexpr std::size_t no_count_limit = 65536;

ssdp::SearchLimit::Options search_limit(const Config& config) {
  ssdp::SearchLimit::Options limit;
  limit.per_second = config.limits.searches_per_second;
  limit.burst = 3 * config.limits.searches_per_second;
  limit.total_per_second = static_cast<std::uint32_t>(most(config.limits.searches_total, 1'000'000'000));
  return limit;
}

transport::MulticastService::Options multicast_options(const Config& config) {
  transport::MulticastService::Options options;
  options.hops = static_cast<int>(config.listen.multicast_ttl);
  // Before decoding there is a limit too, for what is not even a search: several times that of searches.
  const auto searches = config.limits.searches_per_second;
  options.limit.per_second = searches == 0 ? 0 : std::max(options.limit.per_second, 4 * searches);
  options.limit.burst = 3 * options.limit.per_second;
  return options;
}

ssdp::Version ssdp_version(const Config& config) {
  return config.listen.uda_minor == 0 ? ssdp::Version::uda_1_0 : ssdp::Version::uda_1_1;
}

std::string product_token() { return std::string{"Sallyport/"} + SALLYPORT_VERSION; }

ssdp::Tree ssdp_tree(const igd::Server& server) {
  ssdp::Tree tree;
  const auto devices = description::all_devices(server.tree());
  for (std::size_t i = 0; i < devices.size(); ++i) {
    tree.devices.push_back({devices[i]->udn, devices[i]->type, devices[i]->version});
    for (const auto& service : devices[i]->services)
      tree.services.push_back({std::string{service.table->type}, service.table->version, i});
  }
  tree.config_id = server.config_id();
  return tree;
}

std::uint64_t read_number(const std::string& path) {
  std::ifstream file{path};
  std::int64_t value = 0;
  file >> value;
  return file && value > 0 ? static_cast<std::uint64_t>(value) : 0;
}

/// What a reload may change; the tree is made once.
igd::ServerOptions igd_options(const Config& config) {
  igd::ServerOptions options;
  options.list_own = config.policy.list_own;
  options.v1_permanent = config.lifetimes.upnp_v1_permanent;
  options.udp_idle_s = config.engine.udp_idle;
  options.tcp_established_s = config.engine.tcp_established;
  return options;
}

}  // namespace

transport::HttpService::Options Upnp::http_options(const Config& config) const {
  transport::HttpService::Options options;
  options.port = config.listen.http_port;
  options.server = ssdp::server_text(system_token(), ssdp_version(config), product_token());
  options.reader.head_octets = most(config.limits.http_head, no_octet_limit);
  options.reader.body_octets = most(config.limits.http_body, no_octet_limit);
  options.limit.per_second = config.limits.requests_per_second;
  options.limit.burst = 2 * config.limits.requests_per_second;
  options.connections_per_device = config.limits.connections_per_device;
  options.connections = most(config.limits.connections_total, no_count_limit);
  options.head_time = time_limit(config.limits.http_head_timeout);
  options.request_time = time_limit(config.limits.http_request_timeout);
  options.idle_time = time_limit(config.limits.http_idle_timeout);
  return options;
}

Upnp::Upnp(boost::asio::io_context& io, lease::LeaseService& service, const Clock& clock, const Config& config,
           std::function<void()> after_work)
    : service_{service}, clock_{clock}, after_work_{std::move(after_work)} {
  const auto now = clock_.now();
  auto device = igd_options(config);
  device.tree.igd_version = config.listen.igd_version;
  device.tree.uda_minor = config.listen.uda_minor;
  device.tree.uuid = kept_octets(service_, kept_uuid);
  device.tree.path_secret = hex(kept_octets(service_, kept_secret));
  device.tree.model_number = SALLYPORT_VERSION;
  auto made = igd::Server::make({service_, service_, service_, [this] { return wan_link(); }, random_octets},
                                device, now);
  if (!made) std::abort();  // the options are ours, and kept values that do not fit are made anew
  igd_ = std::move(*made);

  std::uint32_t boot_id = 0;
  if (const auto text = service_.kept(kept_boot)) std::from_chars(text->data(), text->data() + text->size(), boot_id);
  ssdp::Server::Options options;
  options.system = system_token();
  options.product = product_token();
  options.http_port = config.listen.http_port;
  options.description_path = igd_->tree().description_path;
  options.version = ssdp_version(config);
  options.limit = search_limit(config);
  std::uint64_t seed = 0;
  const auto octets = random_octets();
  for (std::size_t i = 0; i < 8; ++i) seed = seed << 8 | std::to_integer<std::uint64_t>(octets[i]);
  ssdp_ = std::make_unique<ssdp::Server>(ssdp_tree(*igd_), options, (boot_id + 1) & ssdp::max_boot_id,
                                         [this] { return clock_.wall(); }, seed);
  keep_boot_id();
  multicast_ = std::make_unique<transport::MulticastService>(io, *ssdp_, clock_, multicast_options(config), after_work_);
  http_ = std::make_unique<transport::HttpService>(
      io,
      [this](http::Request&& request, http::Done done) {
        igd_->handle(std::move(request), clock_.now(), std::move(done));
        after_work_();
      },
      clock_, http_options(config));
  events_ = std::make_unique<transport::EventSender>(io, igd_->events(), clock_, transport::EventSender::Options{},
                                                     after_work_);
  igd_->events().set_wake(after_work_);
  configure(config);
}

Upnp::~Upnp() {
  ssdp_->stop();
  multicast_->drain();
  http_.reset();  // its connections may hold answers of the gateway device
  events_.reset();
}

void Upnp::configure(const Config& config) {
  warning_ = transport::syn_cookie_warning();
  igd_->set_options(igd_options(config));
  http_->set_rate(config.limits.requests_per_second, 2 * config.limits.requests_per_second);
  http_->set_connections(config.limits.connections_per_device, most(config.limits.connections_total, no_count_limit));
  ssdp_->set_limit(search_limit(config));
  gena::Publisher::Limits limits;
  limits.per_device = most(config.limits.subscriptions_per_device, no_count_limit);
  limits.total = most(config.limits.subscriptions_total, no_count_limit);
  limits.time.usual_s = config.lifetimes.subscription;
  limits.time.longest_s = config.lifetimes.subscription_max;
  igd_->events().set_limits(limits);
}

bool Upnp::serve(std::span<const nat::PlaneInterface> lan, const nat::NetworkView& view,
                 const transport::NetworkState& state, TimePoint now, std::string& why) {
  wan_ = view.wan.empty() ? nat::PlaneInterface{} : view.wan.front();
  igd_->link_changed(now);

  auto own = transport::own_addresses(state);
  for (const auto& each : state.ipv6) own.push_back(each.address.address);
  std::vector<transport::Ipv6Addresses> ipv6;
  std::vector<ssdp::LanAddress> announced;
  std::vector<nat::PlaneInterface> both{lan.begin(), lan.end()};
  std::vector<Address> lan_addresses;
  for (auto& interface : both) {
    if (interface.index == 0 || !interface.up) continue;
    for (const auto& each : state.addresses)
      if (each.interface == interface.index && std::ranges::find(interface.addresses, each.address) != interface.addresses.end())
        announced.push_back({interface.index, {each.address, static_cast<std::uint8_t>(96 + each.bits)}});
    transport::Ipv6Addresses six{interface.index, {}};
    for (const auto& each : state.ipv6)
      if (each.interface == interface.index) six.addresses.push_back(each.address);
    for (const auto& prefix : six.addresses) {
      announced.push_back({interface.index, prefix});
      interface.addresses.push_back(prefix.address);
      interface.prefixes.push_back(prefix);
    }
    lan_addresses.insert(lan_addresses.end(), interface.addresses.begin(), interface.addresses.end());
    if (!six.addresses.empty()) ipv6.push_back(std::move(six));
  }
  igd_->set_own_addresses(lan_addresses);
  igd_->events().forget_if([&](const gena::Publisher::Subscriber& subscriber) {
    return std::ranges::find(lan_addresses, subscriber.local) == lan_addresses.end();
  });
  std::string http_problem, ssdp_problem;
  const bool web = http_->serve(both, own, http_problem);
  const bool search = multicast_->serve(lan, own, ipv6, ssdp_problem);
  ssdp_->set_served(announced, now);
  keep_boot_id();
  why = !web ? http_problem : ssdp_problem;
  return web && search;
}

/// BOOTID must never go back (UDA 1.1, section 1.2).
void Upnp::keep_boot_id() {
  if (kept_boot_id_ == ssdp_->boot_id()) return;
  kept_boot_id_ = ssdp_->boot_id();
  service_.keep(kept_boot, std::to_string(kept_boot_id_));
}

void Upnp::drain(TimePoint now) {
  igd_->settle(now);
  events_->drain();
  multicast_->drain();
}

void Upnp::handle_timeout(TimePoint now) {
  igd_->events().handle_timeout(now);
  ssdp_->handle_timeout(now);
}

std::optional<TimePoint> Upnp::next_deadline() const {
  const auto events = igd_->events().next_deadline(), search = ssdp_->next_deadline();
  if (events && search) return std::min(*events, *search);
  return events ? events : search;
}

igd::WanLink Upnp::wan_link() const {
  igd::WanLink link;
  link.exists = wan_.index != 0;
  link.up = wan_.up;
  if (!link.exists) return link;
  const std::string directory = "/sys/class/net/" + wan_.name + "/";
  link.bits_per_second = read_number(directory + "speed") * 1'000'000;
  link.bytes_sent = read_number(directory + "statistics/tx_bytes");
  link.bytes_received = read_number(directory + "statistics/rx_bytes");
  link.packets_sent = read_number(directory + "statistics/tx_packets");
  link.packets_received = read_number(directory + "statistics/rx_packets");
  return link;
}

}  // namespace sallyport::daemon
