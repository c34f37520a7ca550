#include "nat/plane/tun/tun_plane.hpp"

#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <tuple>

#include "nat/plane/host/former_lans.hpp"
#include "nat/plane/host/own_ports.hpp"
#include "nat/plane/host/router_ports.hpp"
#include "nat/plane/host/rtnl.hpp"
#include "nat/plane/host/sysctls.hpp"
#include "nat/plane/host/tun_device.hpp"
#include "nat/plane/tun/batch_writer.hpp"
#include "nat/plane/tun/steering.hpp"

namespace sallyport::nat {
namespace {

using namespace host;
using namespace tun;

constexpr std::size_t batch_size = 32;
constexpr std::size_t batch_octets = 128
                                     << 10;  // of super packets: what is read is written while in the cache
constexpr std::size_t largest_packet = 40 + 65535;  // of IPv6; IPv4 stays below
constexpr unsigned most_automatic_queues = 8;
constexpr std::uint32_t device_queue = 2048;  // packets: bursts of new flows overran the default of 500

/// A packet as read() and write() take it: the virtio header, then the IP packet, on a multiple of 16.
struct alignas(64) Buffer {
  static constexpr std::size_t packet_at = 16;
  static constexpr std::size_t frame_at = packet_at - sizeof(VirtioHeader);
  std::array<std::byte, packet_at + largest_packet + 1> bytes;

  std::byte* frame() noexcept { return bytes.data() + frame_at; }
  std::byte* packet() noexcept { return bytes.data() + packet_at; }
  VirtioHeader& header() noexcept { return *reinterpret_cast<VirtioHeader*>(frame()); }
};

/// Keeps what the engine makes until the batch is written.
class Emitted final : public PacketSink {
 public:
  void emit(std::span<const std::byte> packet, Action where) override {
    if (where != Action::forward_wan && where != Action::forward_lan && where != Action::local) return;
    const VirtioHeader header{};
    const auto* bytes = reinterpret_cast<const std::byte*>(&header);
    bytes_.insert(bytes_.end(), bytes, bytes + sizeof header);
    bytes_.insert(bytes_.end(), packet.begin(), packet.end());
    sizes_.push_back(sizeof header + packet.size());
  }
  void add_to(BatchWriter& writer) const {
    std::size_t at = 0;
    for (const std::size_t size : sizes_) {
      writer.add(bytes_.data() + at, size);
      at += size;
    }
  }
  /// To be called when they are written.
  void clear() {
    bytes_.clear();
    sizes_.clear();
  }

 private:
  std::vector<std::byte> bytes_;
  std::vector<std::size_t> sizes_;
};

std::string conf(const std::string& interface, std::string_view what) {
  return "ipv4/conf/" + interface + '/' + std::string{what};
}
std::string conf6(const std::string& interface, std::string_view what) {
  return "ipv6/conf/" + interface + '/' + std::string{what};
}

std::string describe(const boost::system::error_code& error) { return error.message(); }

/// Below it an interface has no IPv6 (RFC 8200 5).
constexpr std::uint32_t least_ipv6_mtu = 1280;

bool has_ipv6(const NetworkView& network) {
  return std::any_of(network.lan.begin(), network.lan.end(), [](const PlaneInterface& lan) {
    return std::any_of(lan.prefixes.begin(), lan.prefixes.end(),
                       [](const Prefix& prefix) { return !prefix.address.is_v4(); });
  });
}

/// As many as there are processors to read and write at a time.
unsigned queues_of(const TunOptions& options) {
  if (options.queues != 0) return options.queues;
  return std::clamp(std::thread::hardware_concurrency(), 1U, most_automatic_queues);
}

}  // namespace

class TunPlane::Impl {
 public:
  Impl(const TunOptions& options, const Clock& clock, TunDevice device, Rtnl rtnl)
      : options_{options},
        clock_{clock},
        device_{std::move(device)},
        rtnl_{std::move(rtnl)},
        sysctls_{options.undo_file},
        engine_{with_ttl(options.engine), own_ports_} {
    for (std::size_t i = 0; i < device_.queues(); ++i)
      queues_.push_back(std::make_unique<Queue>(device_.fd(i)));
    router_ports_ = router_ports_beside(policy_.pool);
  }
  ~Impl() { stop(); }

  Result<void> prepare(std::string& why) {
    if (!set("ipv4/ip_early_demux", "0") || !take_router_ports()) {
      why = last_problem_;
      return make_error_code(PlaneErrc::system_failure);
    }
    const std::string& name = options_.device;
    // Our own device: it vanishes with all of these. An older kernel or one without IPv6 lacks some keys.
    system_has_ipv6_ = read_sysctl(conf6(name, "disable_ipv6")).has_value();
    write_sysctl(conf6(name, "disable_ipv6"), "1");   // until there are rules for it
    write_sysctl(conf6(name, "addr_gen_mode"), "1");  // no address of its own, so nothing is said from one
    write_sysctl(conf6(name, "accept_ra"), "0");
    write_sysctl(conf6(name, "force_forwarding"), "1");
    write_sysctl(conf(name, "accept_local"), "1");
    write_sysctl(conf(name, "rp_filter"), "0");
    write_sysctl(conf(name, "send_redirects"), "0");
    write_sysctl(conf(name, "forwarding"), "1");
    if (const auto up = rtnl_.set_link(device_.index(), 0, device_queue, true); !up) {
      why = "cannot bring " + name + " up: " + describe(up.error());
      return make_error_code(PlaneErrc::system_failure);
    }
    if (const auto left = rtnl_.rules<Net>())
      for (const Net& net : inside_networks(left->ours))
        former_lans_.remember(Prefix::v4(net.address, net.length));
    if (const auto left = rtnl_.rules<Net6>())
      for (const Net6& net : inside_networks(left->ours)) former_lans_.remember({net.address, net.length});
    return {};
  }

  bool start_threads() {
    stop_event_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (stop_event_ < 0) return false;
    // Signals are the control thread's.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (const auto& queue : queues_) {
      queue->thread = std::thread{[this, &queue = *queue] { run(queue); }};
      pthread_setname_np(queue->thread.native_handle(), "packets");
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return true;
  }

  void stop() {
    stopping_.store(true, std::memory_order_relaxed);
    if (stop_event_ >= 0) eventfd_write(stop_event_, 1);  // read by nobody: it stops them all
    for (const auto& queue : queues_)
      if (queue->thread.joinable()) queue->thread.join();
    if (stop_event_ >= 0) close(stop_event_);
    stop_event_ = -1;
  }

  // --- the control thread ---

  template <class Call>
  decltype(auto) locked(Call&& call) const {
    const std::lock_guard lock{mutex_};
    return call();
  }
  Engine& engine() noexcept { return engine_; }

  Result<Installed> install(const MappingSpec& spec, TimePoint now) {
    if (!spec.internal.address.is_v4()) return locked([&] { return engine_.install(spec, now); });
    refresh_own_ports(now);
    const auto wish = without_router_ports(spec, router_ports_);
    Result<Installed> installed = claim(wish, now);
    if (!installed && wish.allowed != spec.allowed && installed.error() == PlaneErrc::no_ports_left)
      installed = claim(spec, now);
    if (!installed || !router_ports_.contains(installed->external.port)) return installed;

    const std::pair key{spec.transport, installed->external.port.number()};
    leased_[key] = std::nullopt;
    leased_by_[installed->id] = key;
    if (!take_leased_ports()) {
      locked([&] { engine_.withdraw(installed->id, Ending::vacate, now); });
      leased_by_.erase(installed->id);
      leased_.erase(key);
      return make_error_code(PlaneErrc::system_failure);
    }
    return installed;
  }

  std::optional<FoundRange> find_range(const RangeSpec& spec, TimePoint now) {
    refresh_own_ports(now);
    return find_range_beside(spec, router_ports_, [&](const RangeSpec& wish) {
      return locked([&] { return engine_.find_range(wish, now); });
    });
  }

  Result<Installed> claim(const MappingSpec& spec, TimePoint now) {
    const std::lock_guard lock{mutex_};
    return claim_unbound(
        spec, own_ports_, [&] { return engine_.install(spec, now); },
        [&](MappingId id) { engine_.withdraw(id, Ending::vacate, now); });
  }

  void withdraw(MappingId id, Ending how, TimePoint now) {
    locked([&] {
      engine_.withdraw(id, how, now);
      engine_.take_made(made_);
    });
    send_made();
    const auto lease = leased_by_.find(id);
    if (lease == leased_by_.end()) return;
    const auto key = lease->second;
    leased_by_.erase(lease);
    // On another address another device may have it.
    if (std::any_of(leased_by_.begin(), leased_by_.end(),
                    [&](const auto& each) { return each.second == key; }))
      return;
    // While the engine still answers for the ended mapping its port keeps its way into the TUN.
    leased_[key] = how == Ending::vacate ? now : now + std::max(policy_.reuse_delay, policy_.tcp_transitory);
    if (how == Ending::vacate) free_leased_ports(now);
  }

  void end_flows(const Address& device, TimePoint now) {
    locked([&] {
      engine_.end_flows(device, now);
      engine_.take_made(made_);
    });
    send_made();
  }

  Result<void> set_network(const NetworkView& network, TimePoint now) {
    network_ = network;
    former_lans_.follow(network);
    std::vector<Net> lan;
    std::vector<Net6> lan6;
    std::vector<std::uint32_t> own;
    std::vector<std::uint32_t> lan_indexes, wan_indexes;
    for (const PlaneInterface& interface : network.lan) {
      for (const Prefix& prefix : interface.prefixes)
        if (!prefix.address.is_v4())
          lan6.push_back(Net6::of(prefix));
        else if (prefix.length >= 96)
          lan.push_back(Net::of(prefix));
      if (interface.index) lan_indexes.push_back(interface.index);
    }
    for (const PlaneInterface& interface : network.wan)
      if (interface.index) wan_indexes.push_back(interface.index);
    for (const auto* side : {&network.lan, &network.wan})
      for (const PlaneInterface& interface : *side)
        for (const Address& address : interface.addresses)
          if (address.is_v4()) own.push_back(address.v4_number());
    for (const Address& address : network.external)
      if (address.is_v4()) own.push_back(address.v4_number());
    locked([&] {
      engine_.set_network(network, now);
      lan_nets_ = std::move(lan);
      lan_nets6_ = std::move(lan6);
      own_addresses_ = std::move(own);
    });
    own_ports_.watch(network.external, std::move(lan_indexes), std::move(wan_indexes));
    refresh_own_ports(now);

    std::uint32_t mtu = 0;
    for (const PlaneInterface& wan : network.wan)
      if (wan.index && wan.mtu) mtu = mtu ? std::min(mtu, wan.mtu) : wan.mtu;
    if (mtu == 0) mtu = 1500;
    if (mtu != mtu_) {
      // Equal to the WAN's, the stack tells hosts what fits (3/4); with a larger one they never heard.
      if (const auto result = rtnl_.set_link(device_.index(), mtu, 0, false); !result)
        return failed("cannot set the MTU of " + options_.device, result.error());
      mtu_ = mtu;
    }
    give_back_interfaces();
    return steer_packets();
  }

  Result<void> set_policy(const PlanePolicy& policy, TimePoint now) {
    const bool other_ipv6 = policy.ipv6 != policy_.ipv6;
    policy_ = policy;
    locked([&] { engine_.set_policy(policy, now); });
    const PortRange ports = router_ports_beside(policy.pool);
    if (ports == router_ports_) return other_ipv6 && steering_ ? steer_packets() : Result<void>{};
    router_ports_ = ports;
    if (!take_router_ports()) return make_error_code(PlaneErrc::system_failure);
    return steering_ ? steer_packets() : Result<void>{};
  }

  std::vector<PlaneEvent> sweep(TimePoint now) {
    refresh_own_ports(now);
    auto events = locked([&] {
      auto found = engine_.sweep(now);
      engine_.take_made(made_);
      return found;
    });
    send_made();
    free_leased_ports(now);
    // Programs that manage networks may flush rules they do not know (systemd-networkd does when it starts),
    // and a route to a `no_translate` destination may have come or gone.
    if (steering_) {
      const auto standing = stands(rtnl_, *steering_);
      const auto standing6 = steering6_ ? stands(rtnl_, *steering6_) : Result<bool>{true};
      steer_ports();  // sockets bound to the WAN came or went
      const auto by_wan = untranslated_by_wan();
      if (by_wan.first != by_wan_ || by_wan.second != by_wan6_ || !standing || !*standing || !standing6 ||
          !*standing6) {
        const bool tampered = (standing && !*standing) || (standing6 && !*standing6);
        if (steer_packets() && tampered) ++repaired_;
      }
    }
    return events;
  }

  PlaneStatus status() const {
    PlaneStatus status;
    locked([&] { engine_.fill_status(status); });
    status.name = "tun";
    status.running = stop_event_ >= 0 && !dead_.load(std::memory_order_relaxed) && steering_.has_value();
    const auto warn = [&](std::string text) { status.warnings.push_back(std::move(text)); };
    status.ipv6 = !system_has_ipv6_ ? "this system has no IPv6"
                  : !policy_.ipv6   ? "IPv6 is left to the system (engine.ipv6)"
                                    : "IPv6 is filtered";
    for (const std::string& problem : ipv6_problems()) warn(problem);
    if (const int error = dead_.load(std::memory_order_relaxed))
      warn("the interface " + options_.device + " is gone (" +
           describe({error, boost::system::generic_category()}) + "): restart sallyportd");
    if (!last_problem_.empty()) warn(last_problem_);
    if (router_ports_.first == 0)
      warn(
          "[engine] pool leaves no ports for the router's own connections: make it smaller, 1024-60999 is "
          "usual");
    if (!own_ports_problem_.empty()) warn(own_ports_problem_);
    if (repaired_)
      warn("another program removed our routing rules " + std::to_string(repaired_) +
           " times; they were put back. Under systemd-networkd set ManageForeignRoutingPolicyRules=no");
    for (const std::string& interface : loosened_)
      warn("rp_filter of " + interface +
           " is 2 (loose) instead of 1 while sallyport runs: strict filtering would drop its ICMP; spoofed "
           "sources are "
           "dropped by routing rules instead");
    return status;
  }

 private:
  static EngineOptions with_ttl(EngineOptions options) {
    options.ttl = TtlMode::compensate;
    return options;
  }

  boost::system::error_code failed(const std::string& what, const boost::system::error_code& error) {
    last_problem_ = what + ": " + describe(error);
    return make_error_code(PlaneErrc::system_failure);
  }

  bool set(const std::string& key, std::string_view value) {
    const auto result = sysctls_.set(key, value);
    if (result) return true;
    last_problem_ = "cannot set /proc/sys/net/" + key + " to \"" + std::string{value} +
                    "\": " + describe(result.error()) + " (the old value goes to " + options_.undo_file + ")";
    return false;
  }

  bool take_router_ports() {
    if (router_ports_.first == 0) return true;
    return set("ipv4/ip_local_port_range",
               std::to_string(router_ports_.first) + '\t' + std::to_string(router_ports_.last));
  }

  void refresh_own_ports(TimePoint now) {
    const auto result = own_ports_.refresh(now);
    own_ports_problem_ =
        result ? ""
               : "cannot ask the kernel for the router's own sockets (" + describe(result.error()) +
                     "): its services on the WAN address are not reached; load tcp_diag and udp_diag";
  }

  std::map<Transport, std::vector<std::uint16_t>> leased_router_ports() const {
    std::map<Transport, std::vector<std::uint16_t>> ports;
    for (const auto& [key, until] : leased_) ports[key.first].push_back(key.second);
    return ports;
  }

  /// Gives leased ports of the router's range their way into the TUN, and keeps the kernel from choosing
  /// them.
  bool take_leased_ports() {
    static const std::string key = "ipv4/ip_local_reserved_ports";
    std::set<std::uint16_t> all;
    for (const auto& [lease, until] : leased_) all.insert(lease.second);
    std::string list = sysctls_.original(key).value_or("");
    for (const std::uint16_t port : all) list += (list.empty() ? "" : ",") + std::to_string(port);
    return set(key, list) && steer_ports();
  }

  /// Brings rules about single ports up to date.
  bool steer_ports() {
    if (!steering_) return true;
    Steering wanted = steer(input());
    const auto result = apply_rules(rtnl_, steering_->rules, wanted.rules);
    if (!result) {
      last_problem_ = "cannot change the routing rules of single ports: " + describe(result.error());
      return false;
    }
    steering_ = std::move(wanted);
    return true;
  }

  void free_leased_ports(TimePoint now) {
    const auto freed =
        std::erase_if(leased_, [&](const auto& lease) { return lease.second && *lease.second <= now; });
    if (freed) take_leased_ports();
  }

  std::pair<std::vector<Net>, std::vector<Net6>> untranslated_by_wan() {
    std::pair<std::vector<Net>, std::vector<Net6>> by_wan;
    devices_untranslated_.clear();
    for (const Prefix& prefix : network_.untranslated) {
      const bool v4 = prefix.address.is_v4();
      if (prefix.length <= (v4 ? 96 : 0) || (!v4 && !ipv6_is_ours())) continue;
      const auto device = rtnl_.way_into(prefix);
      if (!device) continue;
      if (std::none_of(network_.wan.begin(), network_.wan.end(),
                       [&](const PlaneInterface& wan) { return wan.index == *device; }))
        devices_untranslated_.insert(*device);
      else if (v4)
        by_wan.first.push_back(Net::of(prefix));
      else
        by_wan.second.push_back(Net6::of(prefix));
    }
    return by_wan;
  }

  bool ipv6_is_ours() const { return system_has_ipv6_ && policy_.ipv6; }

  SteeringInput input() const {
    return {options_.device,
            device_.index(),
            network_,
            by_wan_,
            router_ports_,
            leased_router_ports(),
            own_ports_.bound_to_wan(),
            former_lans_.networks()};
  }

  Result<void> steer_packets() {
    std::tie(by_wan_, by_wan6_) = untranslated_by_wan();
    Steering wanted = steer(input());
    if (const auto result = apply(rtnl_, wanted); !result) {
      steering_.reset();
      return failed("cannot set up routing rules", result.error());
    }
    steering_ = std::move(wanted);
    last_problem_.clear();
    if (const auto result = steer_ipv6(); !result) return result;
    relax_reverse_path_filter();
    return open_interfaces();
  }

  Result<void> steer_ipv6() {
    if (!system_has_ipv6_) return {};
    const std::string off = conf6(options_.device, "disable_ipv6");
    if (!policy_.ipv6) {
      steering6_.reset();
      write_sysctl(off, "1");
      give_back_ipv6_forwarding();
      if (const auto result = remove_all<Net6>(rtnl_); !result)
        return failed("cannot remove the routing rules of IPv6", result.error());
      return {};
    }
    // Routes into a device are taken only while it has IPv6. That it was off, or its MTU too small, took them
    // away.
    if (mtu_ >= least_ipv6_mtu) write_sysctl(off, "0");
    Steering6 wanted = steer(SteeringInput6{options_.device, mtu_ >= least_ipv6_mtu ? device_.index() : 0,
                                            network_, by_wan6_, former_lans_.networks()});
    ipv6_obstacle_.clear();
    if (const auto result = apply(rtnl_, wanted); !result) {
      steering6_.reset();
      const auto error = result.error();
      if (error.value() != EAFNOSUPPORT && error.value() != EOPNOTSUPP)
        return failed("cannot set up routing rules of IPv6", error);
      // That is no reason for IPv4 to stand still.
      ipv6_obstacle_ =
          "IPv6 is not filtered: this kernel has no routing rules for it (CONFIG_IPV6_MULTIPLE_TABLES)";
      return {};
    }
    steering6_ = std::move(wanted);
    return {};
  }

  /// Per interface, where the kernel can (Linux 6.17): `all` would make every interface a router's, and a
  /// router takes no router advertisements.
  void give_back_ipv6_forwarding() {
    std::vector<std::string> keys;
    for (const auto& [key, value] : sysctls_.changed())
      if (key.starts_with("ipv6/conf/") && key.ends_with("/force_forwarding")) keys.push_back(key);
    for (const std::string& key : keys) sysctls_.restore(key);
  }

  std::vector<std::string> ipv6_problems() const {
    std::vector<std::string> problems;
    if (!ipv6_is_ours() || !has_ipv6(network_)) return problems;
    if (!ipv6_obstacle_.empty()) return {ipv6_obstacle_};
    if (mtu_ < least_ipv6_mtu)
      problems.push_back("the WAN's MTU of " + std::to_string(mtu_) +
                         " is below 1280: IPv6 of the LAN is dropped until it is larger");
    for (std::string& problem : host::ipv6_forwarding_problems(network_.wan))
      problems.push_back(std::move(problem));
    return problems;
  }

  /// Answers to ICMP come in by the WAN while the reverse lookup leads to the TUN, and everything comes out
  /// of the TUN that entered by another interface. `all` counts for every interface: its value moves to each
  /// of the others.
  void relax_reverse_path_filter() {
    if (const auto all = read_sysctl(conf("all", "rp_filter")); all && *all != "0") {
      std::vector<std::string> interfaces = sysctl_interfaces();
      interfaces.emplace_back("default");
      for (const std::string& name : interfaces) {
        if (name == options_.device) continue;
        const std::string key = conf(name, "rp_filter");
        if (const auto own = read_sysctl(key); own && *own < *all) set(key, *all);
      }
      set(conf("all", "rp_filter"), "0");
    }
    write_sysctl(conf(options_.device, "rp_filter"), "0");
    loosened_.clear();
    for (const PlaneInterface& wan : network_.wan) {
      const std::string key = conf(wan.name, "rp_filter");
      if (wan.index == 0) continue;
      if (read_sysctl(key) == "1") set(key, "2");
      if (sysctls_.original(key) == "1") loosened_.push_back(wan.name);
    }
  }

  /// Lets packets in, now that the rules say where they go.
  Result<void> open_interfaces() {
    std::set<std::string> names;
    for (const auto* side : {&network_.lan, &network_.wan})
      for (const PlaneInterface& interface : *side)
        if (interface.index) names.insert(interface.name);
    for (const std::uint32_t index : devices_untranslated_) {  // the answers come in there
      std::array<char, IF_NAMESIZE> name{};
      if (if_indextoname(index, name.data())) names.insert(name.data());
    }
    for (const std::string& name : names) {
      const auto result = sysctls_.set(conf(name, "forwarding"), "1");
      if (!result && result.error().value() != ENOENT)  // ENOENT: gone again; its return will be told
        return failed("cannot switch forwarding on for " + name, result.error());
      // An old kernel has no such key, and then forwarding is the administrator's (ipv6_problems).
      if (ipv6_is_ours() && has_ipv6(network_) && read_sysctl(conf6(name, "force_forwarding")) == "0" &&
          read_sysctl(conf6("all", "forwarding")) != "1")
        set(conf6(name, "force_forwarding"), "1");
    }
    return {};
  }

  /// Interfaces that are ours no more stop forwarding (if they did not before us) while their rules still
  /// stand.
  void give_back_interfaces() {
    std::set<std::string> keep{options_.device};
    for (const auto* side : {&network_.lan, &network_.wan})
      for (const PlaneInterface& interface : *side) keep.insert(interface.name);
    std::vector<std::string> keys;
    for (const auto& [key, value] : sysctls_.changed()) {
      const bool four = key.starts_with("ipv4/conf/") && key.ends_with("/forwarding");
      if (!four && !key.ends_with("/force_forwarding")) continue;
      const std::string name =
          key.substr(10, key.size() - 10 - std::strlen(four ? "/forwarding" : "/force_forwarding"));
      if (!keep.contains(name) && !devices_untranslated_.contains(if_nametoindex(name.c_str())))
        keys.push_back(key);
    }
    for (const std::string& key : keys) sysctls_.restore(key);
  }

  // --- the packet threads ---

  /// What a packet thread has of its own. The kernel keeps packets of a flow on one queue, and what is
  /// written there brings the flow's answers there too.
  struct Queue {
    explicit Queue(int of) : fd{of}, writer{of} {}
    int fd;
    std::unique_ptr<std::array<Buffer, batch_size>> buffers =
        std::make_unique_for_overwrite<std::array<Buffer, batch_size>>();  // unused pages cost nothing
    Emitted emitted;
    BatchWriter writer;
    std::thread thread;
  };

  void run(Queue& queue) {
    std::array<pollfd, 2> wait{pollfd{queue.fd, POLLIN, 0}, pollfd{stop_event_, POLLIN, 0}};
    while (!stopping_.load(std::memory_order_relaxed)) {
      if (poll(wait.data(), wait.size(), -1) < 0 && errno != EINTR) break;
      // Sleeps only after a look that found nothing: the next packet often came while the last ones were
      // written.
      while (!stopping_.load(std::memory_order_relaxed) && carry_batch(queue)) {
      }
      if (dead_.load(std::memory_order_relaxed)) return;
    }
  }

  /// False when there was nothing to carry.
  bool carry_batch(Queue& queue) {
    std::array<Packet, batch_size> packets;
    std::size_t count = 0;
    std::size_t octets = 0;
    bool drained = false;
    while (count < batch_size && octets < batch_octets) {
      Buffer& buffer = (*queue.buffers)[count];
      const ssize_t size = read(queue.fd, buffer.frame(), sizeof(VirtioHeader) + largest_packet);
      if (size < 0) {
        if (errno == EINTR) continue;
        if (errno != EAGAIN) dead_.store(errno, std::memory_order_relaxed);
        drained = true;
        break;
      }
      if (size < static_cast<ssize_t>(sizeof(VirtioHeader) + 20)) continue;
      Packet& packet = packets[count];
      packet = {};
      packet.data = buffer.packet();
      packet.size = static_cast<std::uint32_t>(size - sizeof(VirtioHeader));
      packet.partial_checksum = buffer.header().flags & VirtioHeader::needs_checksum;
      packet.gso = buffer.header().gso_type != VirtioHeader::gso_none;
      const unsigned version = std::to_integer<unsigned>(packet.data[0]) >> 4;
      if (version != 4 && (version != 6 || packet.size < 40)) continue;
      ++count;
      octets += packet.size;
    }
    if (count == 0) return !drained;

    {
      const TimePoint now = clock_.now();
      const std::lock_guard lock{mutex_};
      for (std::size_t i = 0; i < count; ++i) packets[i].from = side_of(packets[i].data);
      engine_.translate(std::span{packets}.first(count), now, queue.emitted);
    }
    for (std::size_t i = 0; i < count; ++i) {
      const Packet& packet = packets[i];
      if (packet.action == Action::drop || packet.action == Action::held) continue;
      Buffer& buffer = (*queue.buffers)[i];
      buffer.header().flags &= VirtioHeader::needs_checksum;  // "sum is valid" is nothing that a sender says
      queue.writer.add(buffer.frame(), sizeof(VirtioHeader) + packet.size);
    }
    queue.emitted.add_to(queue.writer);
    queue.writer.flush();
    queue.emitted.clear();
    return true;
  }

  /// By its source: the rules let a LAN or router address in from nowhere else.
  Side side_of(const std::byte* packet) const {
    if (std::to_integer<unsigned>(packet[0]) >> 4 == 6) return side_of_ipv6(packet);
    std::uint32_t source = 0;
    for (std::size_t i = 12; i < 16; ++i) source = source << 8 | std::to_integer<std::uint32_t>(packet[i]);
    for (const std::uint32_t address : own_addresses_)
      if (address == source) return Side::router;
    for (const Net& net : lan_nets_)
      if (net.contains(source)) return Side::lan;
    return Side::wan;
  }

  /// Nothing of the router's own comes here: what wears its addresses is forged, and the engine drops that of
  /// either side.
  Side side_of_ipv6(const std::byte* packet) const {
    Address::Bytes bytes;
    std::copy_n(packet + 8, bytes.size(), bytes.begin());
    const Address source{bytes};
    return std::any_of(lan_nets6_.begin(), lan_nets6_.end(),
                       [&](const Net6& net) { return net.contains(source); })
               ? Side::lan
               : Side::wan;
  }

  void send_made() {
    made_.add_to(made_writer_);
    made_writer_.flush();
    made_.clear();
  }

  TunOptions options_;
  const Clock& clock_;
  TunDevice device_;
  Rtnl rtnl_;
  SysctlKeeper sysctls_;
  KernelOwnPorts own_ports_;

  mutable std::mutex mutex_;  // the engine, lan_nets_, lan_nets6_, own_addresses_
  Engine engine_;
  std::vector<Net> lan_nets_;
  std::vector<Net6> lan_nets6_;
  std::vector<std::uint32_t> own_addresses_;

  // the control thread's
  Emitted made_;
  BatchWriter made_writer_{device_.fd()};
  NetworkView network_;
  host::FormerLans former_lans_;
  PlanePolicy policy_;
  PortRange router_ports_{};
  std::vector<Net> by_wan_;
  std::vector<Net6> by_wan6_;
  std::set<std::uint32_t> devices_untranslated_;
  std::optional<Steering> steering_;  // what stands
  std::optional<Steering6> steering6_;
  bool system_has_ipv6_ = false;
  std::string ipv6_obstacle_;
  std::uint32_t mtu_ = 0;
  // leased ports of the router's range, with the time from which an ended one is the router's again
  std::map<std::pair<Transport, std::uint16_t>, std::optional<TimePoint>> leased_;
  std::map<MappingId, std::pair<Transport, std::uint16_t>> leased_by_;
  std::string last_problem_;
  std::string own_ports_problem_;
  std::vector<std::string> loosened_;
  std::uint64_t repaired_ = 0;

  // the packet threads'
  std::vector<std::unique_ptr<Queue>> queues_;
  std::atomic<bool> stopping_{false};
  std::atomic<int> dead_{0};  // errno of a device that is gone
  int stop_event_ = -1;

  friend class TunPlane;
};

Result<std::unique_ptr<TunPlane>> TunPlane::start(const TunOptions& options, const Clock& clock,
                                                  std::string& why) {
  auto device = TunDevice::open(options.device, TunDevice::Layer::packets, queues_of(options));
  if (!device) {
    switch (device.error().value()) {
      case EBUSY:
        why = "the interface " + options.device +
              " is in use: another sallyportd runs in this network namespace";
        break;
      case ENOENT:
      case ENODEV:
        why = "there is no /dev/net/tun: load the kernel module tun (modprobe tun)";
        break;
      case EPERM:
      case EACCES:
        why = "no right to make the interface " + options.device + ": run as root or with CAP_NET_ADMIN";
        break;
      default:
        why = "cannot make the interface " + options.device + ": " + describe(device.error());
    }
    return make_error_code(PlaneErrc::system_failure);
  }
  auto rtnl = Rtnl::open();
  if (!rtnl) {
    why = "cannot open rtnetlink: " + describe(rtnl.error());
    return make_error_code(PlaneErrc::system_failure);
  }
  auto impl = std::make_unique<Impl>(options, clock, std::move(*device), std::move(*rtnl));
  if (const auto prepared = impl->prepare(why); !prepared) return prepared.error();
  if (!impl->start_threads()) {
    why = std::string{"cannot make an eventfd: "} + std::strerror(errno);
    return make_error_code(PlaneErrc::system_failure);
  }
  return std::unique_ptr<TunPlane>{new TunPlane{std::move(impl)}};
}

bool TunPlane::shut(const TunOptions& options, const std::vector<std::string>& interfaces, std::string& why) {
  SysctlKeeper sysctls{options.undo_file};
  for (const std::string& interface : interfaces) {
    const std::string key = conf(interface, "forwarding");
    const auto result = sysctls.set(key, "0");
    if (result || result.error().value() == ENOENT) continue;  // ENOENT: it is away
    why = "cannot set " + key + " to '0': " + describe(result.error());
    return false;
  }
  return true;
}

Result<void> TunPlane::detach(const TunOptions& options, std::string& why) {
  if (if_nametoindex(options.device.c_str()) != 0) {
    why = "the interface " + options.device +
          " is in use: another sallyportd runs in this network namespace; stop it first";
    return make_error_code(PlaneErrc::system_failure);
  }
  auto rtnl = Rtnl::open();
  if (!rtnl) {
    why = "cannot open rtnetlink: " + describe(rtnl.error());
    return make_error_code(PlaneErrc::system_failure);
  }
  SysctlKeeper sysctls{options.undo_file};
  const auto is_forwarding = [](const std::string& key) { return key.ends_with("forwarding"); };
  sysctls.put_back(is_forwarding);  // where it was off, nothing leaks while the rules go
  if (options.shut && !options.shut(why)) return make_error_code(PlaneErrc::system_failure);
  if (const auto removed = remove_all<Net>(*rtnl); !removed) {
    why = "cannot remove the routing rules: " + describe(removed.error());
    return make_error_code(PlaneErrc::system_failure);
  }
  if (read_sysctl(conf6("all", "disable_ipv6")))
    if (const auto removed = remove_all<Net6>(*rtnl); !removed) {
      why = "cannot remove the routing rules of IPv6: " + describe(removed.error());
      return make_error_code(PlaneErrc::system_failure);
    }
  sysctls.put_back([&](const std::string& key) { return !is_forwarding(key); });
  sysctls.forget();
  return {};
}

TunPlane::TunPlane(std::unique_ptr<Impl> impl) : impl_{std::move(impl)} {}
TunPlane::~TunPlane() = default;

std::optional<FoundRange> TunPlane::find_range(const RangeSpec& spec, TimePoint now) {
  return impl_->find_range(spec, now);
}
Result<Installed> TunPlane::install(const MappingSpec& spec, TimePoint now) {
  return impl_->install(spec, now);
}
Result<void> TunPlane::renew(MappingId id, TimePoint deadline) {
  return impl_->locked([&] { return impl_->engine().renew(id, deadline); });
}
Result<void> TunPlane::set_remotes(MappingId id, std::span<const RemoteFilter> remotes, bool outbound,
                                   TimePoint now) {
  return impl_->locked([&] { return impl_->engine().set_remotes(id, remotes, outbound, now); });
}
void TunPlane::withdraw(MappingId id, Ending how, TimePoint now) { impl_->withdraw(id, how, now); }
void TunPlane::end_flows(const Address& device, TimePoint now) { impl_->end_flows(device, now); }
Result<Counters> TunPlane::counters(MappingId id) const {
  return impl_->locked([&] { return impl_->engine().counters(id); });
}
std::optional<TimePoint> TunPlane::held_until(Transport transport, const Address& device, Port external,
                                              TimePoint now) const {
  return impl_->locked([&] { return impl_->engine().held_until(transport, device, external, now); });
}
std::optional<Address> TunPlane::external_for(const Address& device) const {
  return impl_->locked([&] { return impl_->engine().external_for(device); });
}
Result<void> TunPlane::set_network(const NetworkView& network, TimePoint now) {
  return impl_->set_network(network, now);
}
Result<void> TunPlane::set_policy(const PlanePolicy& policy, TimePoint now) {
  return impl_->set_policy(policy, now);
}
std::vector<PlaneEvent> TunPlane::sweep(TimePoint now) { return impl_->sweep(now); }
std::vector<ImplicitView> TunPlane::implicit_mappings(TimePoint now) const {
  return impl_->locked([&] { return impl_->engine().implicit_mappings(now); });
}
bool TunPlane::has_implicit(Transport transport, const InternalEndpoint& internal, TimePoint now) const {
  return impl_->locked([&] { return impl_->engine().has_implicit(transport, internal, now); });
}
PlaneStatus TunPlane::status() const { return impl_->status(); }

}  // namespace sallyport::nat
