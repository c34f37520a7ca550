#include "nat/plane/ebpf/ebpf_plane.hpp"

#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <thread>

#include "nat/plane/ebpf/core.hpp"
#include "nat/plane/ebpf/hooks.hpp"
#include "nat/plane/host/own_ports.hpp"
#include "nat/plane/host/router_ports.hpp"
#include "nat/plane/host/rtnl.hpp"
#include "nat/plane/host/sysctls.hpp"
#include "nat/plane/host/tun_device.hpp"

namespace sallyport::nat {
namespace {

using namespace ebpf;
using host::claim_unbound;
using host::find_range_beside;
using host::KernelOwnPorts;
using host::read_sysctl;
using host::router_ports_beside;
using host::Rtnl;
using host::SysctlKeeper;
using host::TunDevice;
using host::without_router_ports;
using host::write_sysctl;

constexpr std::size_t link_header = 14;
constexpr std::size_t largest_frame = 65535 + link_header;
constexpr std::uint32_t device_queue = 2048;

using Mac = std::array<std::byte, 6>;

std::string conf(const std::string& interface, std::string_view what) {
  return "ipv4/conf/" + interface + '/' + std::string{what};
}

std::string conf6(const std::string& interface, std::string_view what) {
  return "ipv6/conf/" + interface + '/' + std::string{what};
}

bool has_ipv6(const NetworkView& network) {
  return std::any_of(network.lan.begin(), network.lan.end(), [](const PlaneInterface& lan) {
    return std::any_of(lan.prefixes.begin(), lan.prefixes.end(),
                       [](const Prefix& prefix) { return !prefix.address.is_v4(); });
  });
}

struct Link {
  bool ethernet = true;
  Mac mac{};
};
Link link_of(const std::string& name) {
  Link link;
  ifreq request{};
  if (name.size() >= sizeof request.ifr_name) return link;
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return link;
  name.copy(request.ifr_name, sizeof request.ifr_name - 1);
  if (ioctl(fd, SIOCGIFHWADDR, &request) == 0) {
    link.ethernet =
        request.ifr_hwaddr.sa_family == ARPHRD_ETHER || request.ifr_hwaddr.sa_family == ARPHRD_LOOPBACK;
    std::memcpy(link.mac.data(), request.ifr_hwaddr.sa_data, link.mac.size());
  }
  close(fd);
  return link;
}

/// A frame as the TAP gives and takes it: the virtio header, the link layer's, the packet on a multiple
/// of 16.
struct alignas(64) Buffer {
  static constexpr std::size_t packet_at = 32;
  static constexpr std::size_t link_at = packet_at - link_header;
  static constexpr std::size_t frame_at = link_at - sizeof(host::VirtioHeader);
  std::array<std::byte, packet_at + 65536> bytes;

  std::byte* frame() noexcept { return bytes.data() + frame_at; }
  std::byte* link() noexcept { return bytes.data() + link_at; }
  std::byte* packet() noexcept { return bytes.data() + packet_at; }
  host::VirtioHeader& header() noexcept { return *reinterpret_cast<host::VirtioHeader*>(frame()); }
};

}  // namespace

class EbpfPlane::Impl {
 public:
  Impl(const EbpfOptions& options, const Clock& clock, TunDevice device, Rtnl rtnl, Hooks hooks,
       std::unique_ptr<Tables> tables)
      : options_{options},
        clock_{clock},
        device_{std::move(device)},
        rtnl_{std::move(rtnl)},
        sysctls_{options.undo_file},
        hooks_{std::move(hooks)},
        core_{std::move(tables), options.engine, own_ports_, clock.now()},
        buffer_{std::make_unique<Buffer>()} {
    router_ports_ = router_ports_beside(policy_.pool);
    // The programs of an earlier run stand there until ours take their places: nothing is shut meanwhile.
    const sp_config& config = core_.tables().config();
    if (core_.tables().reused() && config.wan_count == 1) guarded_.push_back(config.wan);
  }
  ~Impl() { stop(); }

  Result<void> prepare(std::string& why) {
    // Looking for a socket of the router's costs every forwarded packet more than it saves the router's own.
    (void)sysctls_.set("ipv4/ip_early_demux", "0");
    const std::string& name = options_.device;
    write_sysctl("ipv6/conf/" + name + "/disable_ipv6", "1");
    write_sysctl(conf(name, "rp_filter"), "0");
    write_sysctl(conf(name, "forwarding"), "0");
    if (const auto up = rtnl_.set_link(device_.index(), 0, device_queue, true); !up) {
      why = "cannot bring " + name + " up: " + up.error().message();
      return make_error_code(PlaneErrc::system_failure);
    }
    const auto hooked =
        hooks_.attach(device_.index(), Direction::ingress, core_.tables().program(Hook::tap_ingress));
    if (!hooked) {
      why = "cannot put a program on " + name + ": " + hooked.error().message() +
            "; the kernel needs NET_CLS_BPF and NET_SCH_INGRESS";
      return make_error_code(PlaneErrc::system_failure);
    }
    tap_mac_ = link_of(name).mac;
    // From here on it runs, and others give way.
    // Nothing passes untranslated before the programs stand; those of an earlier run stand already.
    const auto shut = [this](std::string& problem) {
      if (core_.tables().reused()) return true;
      bool closed = true;
      for (const std::string& interface : options_.interfaces) {
        if (if_nametoindex(interface.c_str())) closed = set(conf(interface, "forwarding"), "0") && closed;
        sysctls_.restore(conf6(interface, "force_forwarding"));
      }
      if (!closed) problem = problem_;
      return closed;
    };
    if (options_.take_over && !options_.take_over(shut, why))
      return make_error_code(PlaneErrc::system_failure);
    if (!shut(why)) return make_error_code(PlaneErrc::system_failure);
    if (!take_router_ports()) {
      why = problem_;
      return make_error_code(PlaneErrc::system_failure);
    }
    tell_time();
    core_.tables().config().tap = device_.index();
    return {};
  }

  bool start_thread() {
    stop_event_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (stop_event_ < 0) return false;
    listen_for_news();
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    thread_ = std::thread{[this] { run(); }};
    pthread_setname_np(thread_.native_handle(), "slow path");
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return true;
  }

  void stop() {
    if (thread_.joinable()) {
      stopping_.store(true, std::memory_order_relaxed);
      eventfd_write(stop_event_, 1);
      thread_.join();
    }
    for (int* const fd : {&stop_event_, &news_}) {
      if (*fd >= 0) close(*fd);
      *fd = -1;
    }
  }

  // --- the control thread ---

  template <class Call>
  decltype(auto) locked(Call&& call) const {
    const std::lock_guard lock{mutex_};
    return call();
  }
  Core& core() noexcept { return core_; }
  const Core& core() const noexcept { return core_; }

  Result<Installed> install(const MappingSpec& spec, TimePoint now) {
    if (!spec.internal.address.is_v4()) return locked([&] { return core_.install(spec, now); });
    refresh_own_ports(now);
    const auto wish = without_router_ports(spec, router_ports_);
    Result<Installed> installed = claim(wish, now);
    if (!installed && wish.allowed != spec.allowed && installed.error() == PlaneErrc::no_ports_left)
      installed = claim(spec, now);
    if (!installed || !router_ports_.contains(installed->external.port)) return installed;
    leased_[installed->id] = installed->external.port.number();
    keep_leased_ports();
    return installed;
  }

  std::optional<FoundRange> find_range(const RangeSpec& spec, TimePoint now) {
    refresh_own_ports(now);
    return find_range_beside(spec, router_ports_, [&](const RangeSpec& wish) {
      return locked([&] { return core_.engine().find_range(wish, now); });
    });
  }

  Result<Installed> claim(const MappingSpec& spec, TimePoint now) {
    const std::lock_guard lock{mutex_};
    return claim_unbound(
        spec, own_ports_, [&] { return core_.install(spec, now); },
        [&](MappingId id) { core_.engine().withdraw(id, Ending::vacate, now); });
  }

  void withdraw(MappingId id, Ending how, TimePoint now) {
    locked([&] { core_.engine().withdraw(id, how, now); });
    if (leased_.erase(id)) keep_leased_ports();
    wake();
  }

  void end_flows(const Address& device, TimePoint now) {
    locked([&] { core_.engine().end_flows(device, now); });
    wake();
  }

  Result<void> set_network(const NetworkView& network, TimePoint now) {
    std::vector<std::uint32_t> lan_indexes, wan_indexes;
    for (const PlaneInterface& interface : network.lan)
      if (interface.index) lan_indexes.push_back(interface.index);
    for (const PlaneInterface& interface : network.wan)
      if (interface.index) wan_indexes.push_back(interface.index);
    {
      const std::lock_guard lock{standing_mutex_};
      ours_ = names_of(network);
    }
    close_interfaces(network);
    {
      const std::lock_guard lock{standing_mutex_};
      wanted_.clear();
      if (wan_indexes != guarded_) guard({});
    }
    if (&network != &network_) network_ = network;
    const std::string wan = network.wan.empty() ? "" : network.wan.front().name;
    const Link link = link_of(wan);
    locked([&] {
      stack_mac_ = link.ethernet ? link.mac : tap_mac_;
      // Where the programs put hairpins in again: at the first LAN that is there.
      const auto first = std::find_if(network.lan.begin(), network.lan.end(),
                                      [](const PlaneInterface& lan) { return lan.index != 0; });
      turn_mac_ = first == network.lan.end() ? tap_mac_ : link_of(first->name).mac;
      by_wan_ = untranslated_by_wan();
      core_.set_network(network, by_wan_, devices_untranslated_, link.ethernet ? link_header : 0, now);
    });
    own_ports_.watch(network.external, std::move(lan_indexes), std::move(wan_indexes));
    refresh_own_ports(now);
    // Not before: whoever starts us may give rights up first, and a thread has its own.
    if (!thread_.joinable() && !start_thread())
      return failed("cannot start the slow path", {errno, boost::system::generic_category()});
    return stand();
  }

  Result<void> set_policy(const PlanePolicy& policy, TimePoint now) {
    const bool takes_ipv6_up = policy.ipv6 && !policy_.ipv6 && standing_;
    policy_ = policy;
    if (!policy.ipv6) give_back_ipv6_forwarding();  // first: what we switched on is not for the unfiltered
    locked([&] { core_.set_policy(policy, now); });
    tell_busy_ports();
    if (takes_ipv6_up)
      if (const auto result = stand(); !result) return result;
    const PortRange ports = router_ports_beside(policy.pool);
    if (ports == router_ports_) return {};
    router_ports_ = ports;
    return take_router_ports() ? Result<void>{} : make_error_code(PlaneErrc::system_failure);
  }

  void give_back_ipv6_forwarding() {
    std::vector<std::string> keys;
    for (const auto& [key, value] : sysctls_.changed())
      if (key.ends_with("/force_forwarding")) keys.push_back(key);
    for (const std::string& key : keys) sysctls_.restore(key);
  }

  /// The programs read a clock that stands still while the machine is suspended.
  void tell_time() {
    timespec monotonic{}, boot{};
    clock_gettime(CLOCK_MONOTONIC, &monotonic);
    clock_gettime(CLOCK_BOOTTIME, &boot);
    const auto ns = [](const timespec& of) { return std::int64_t{of.tv_sec} * 1'000'000'000 + of.tv_nsec; };
    const std::int64_t offset = ns(boot) - ns(monotonic);
    core_.tables().config().boot_offset_ns = offset > 1'000'000 ? static_cast<std::uint64_t>(offset) : 0;
  }

  std::vector<PlaneEvent> sweep(TimePoint now) {
    tell_time();
    refresh_own_ports(now);
    auto events = locked([&] { return core_.sweep(now); });
    wake();
    // A route to a `no_translate` destination may have come or gone.
    if (!network_.untranslated.empty() && untranslated_by_wan() != by_wan_) (void)set_network(network_, now);
    // Programs that manage networks may flush filters they do not know.
    if (standing_ && !all_stand()) {
      standing_ = false;
      if (stand()) ++repaired_;
    } else if (standing_) {
      const std::lock_guard lock{standing_mutex_};
      cover_others(rtnl_, true);
    }
    return events;
  }

  PlaneStatus status() const {
    PlaneStatus status;
    locked([&] { core_.fill_status(status); });
    status.name = "ebpf";
    status.ipv6 = !read_sysctl(conf6("all", "disable_ipv6")) ? "this system has no IPv6"
                  : !policy_.ipv6                            ? "IPv6 is left to the system (engine.ipv6)"
                                                             : "IPv6 is filtered";
    status.running = thread_.joinable() && !dead_.load(std::memory_order_relaxed) && standing_;
    const auto warn = [&](std::string text) { status.warnings.push_back(std::move(text)); };
    if (!problem_.empty()) warn(problem_);
    if (!own_ports_problem_.empty()) warn(own_ports_problem_);
    {
      const std::lock_guard lock{standing_mutex_};
      if (!uncovered_.empty()) warn(uncovered_);
    }
    if (policy_.ipv6 && has_ipv6(network_))
      for (std::string& problem : host::ipv6_forwarding_problems(network_.wan)) warn(std::move(problem));
    if (const int error = dead_.load(std::memory_order_relaxed))
      warn("the interface " + options_.device + " is gone (" + std::strerror(error) +
           "): fragments and ICMP errors do not pass; restart sallyportd");
    if (const auto times = repaired_.load(std::memory_order_relaxed))
      warn("another program removed the programs of sallyportd from an interface " + std::to_string(times) +
           " times; they were put back: let it leave those of tcx, and clsact filters with handle 0x5350, "
           "alone");
    if (policy_.flows_total > core_.tables().most_flows())
      warn("limits.flows_total is above the flow table's size of " +
           std::to_string(core_.tables().most_flows()) +
           ", which an earlier run chose: stop sallyportd, run sallyportd --detach, start it again");
    return status;
  }

  // --- interfaces ---

  static std::set<std::string> names_of(const NetworkView& network) {
    std::set<std::string> all;
    for (const auto* side : {&network.lan, &network.wan})
      for (const PlaneInterface& interface : *side) all.insert(interface.name);
    return all;
  }

  /// What is ours no more forwards no more, and has the program of others, while the rest still have theirs.
  void close_interfaces(const NetworkView& next) {
    const auto keep = names_of(next);
    for (const auto* side : {&network_.lan, &network_.wan})
      for (const PlaneInterface& interface : *side) {
        if (keep.contains(interface.name)) continue;
        sysctls_.restore(conf(interface.name, "forwarding"));
        sysctls_.restore(conf6(interface.name, "force_forwarding"));
        const std::uint32_t index = if_nametoindex(interface.name.c_str());
        if (!index) continue;
        const std::lock_guard lock{standing_mutex_};
        (void)hooks_.detach(index, Direction::ingress);
        // In the place of a WAN's, between two packets.
        (void)hooks_.attach(index, Direction::egress, core_.tables().program(Hook::other_egress));
      }
  }

  /// Every interface that is neither LAN nor WAN gets its program, whether or not it is up: its route comes
  /// later. Not those which are a part of one (a port of its bridge): no route leaves by them. `again`: looks
  /// whether those that have it still do. With standing_mutex_.
  void cover_others(Rtnl& rtnl, bool again) {
    uncovered_.clear();
    const auto links = rtnl.links();
    if (!links) {
      uncovered_ = "cannot list the interfaces: " + links.error().message();
      return;
    }
    std::map<std::uint32_t, const host::Link*> by_index;
    for (const host::Link& link : *links) by_index.emplace(link.index, &link);
    const auto is_part = [&](const host::Link& link) {
      constexpr int most_levels = 8;
      auto above = by_index.find(link.master);
      for (int level = 0; level < most_levels && above != by_index.end(); ++level) {
        if (ours_.contains(above->second->name)) return true;
        above = by_index.find(above->second->master);
      }
      return false;
    };
    std::erase_if(others_, [&](const auto& other) { return !by_index.contains(other.first); });
    const int program = core_.tables().program(Hook::other_egress);
    for (const host::Link& link : *links) {
      if (link.is_loopback || link.index == device_.index()) continue;
      if (ours_.contains(link.name)) {
        others_.erase(link.index);
        continue;
      }
      const bool wanted = !is_part(link);
      const auto known = others_.find(link.index);
      const bool was = known != others_.end() && known->second == wanted;
      if (was && !(again && wanted && !hooks_.attached(link.index, Direction::egress, program))) continue;
      const auto done = wanted ? hooks_.attach(link.index, Direction::egress, program)
                               : hooks_.detach(link.index, Direction::egress);
      if (done) {
        others_[link.index] = wanted;
        if (was) ++repaired_;
      } else if (done.error().value() != ENODEV && wanted) {
        uncovered_ = "cannot put a program on " + link.name + ": " + done.error().message() +
                     "; a default route by it would let the LAN's packets out as they are";
      }
    }
  }

  /// Destinations of `no_translate` that are reached through the WAN. Other routes beside it, to a VPN or a
  /// management net, never meet our programs; when such a route goes, nothing of it leaves by the WAN as it
  /// is.
  std::vector<Prefix> untranslated_by_wan() {
    std::vector<Prefix> by_wan;
    devices_untranslated_.clear();
    for (const Prefix& prefix : network_.untranslated) {
      if (prefix.length <= (prefix.address.is_v4() ? 96 : 0)) continue;
      const auto device = rtnl_.way_into(prefix);
      if (!device) continue;
      if (std::any_of(network_.wan.begin(), network_.wan.end(),
                      [&](const PlaneInterface& wan) { return wan.index == *device; }))
        by_wan.push_back(prefix);
      else
        devices_untranslated_.insert(*device);
    }
    return by_wan;
  }

  struct Wanted {
    std::uint32_t interface;
    Direction direction;
    int program;
  };

  bool all_stand() const {
    const std::lock_guard lock{standing_mutex_};
    return std::all_of(wanted_.begin(), wanted_.end(), [&](const Wanted& each) {
      return hooks_.attached(each.interface, each.direction, each.program);
    });
  }

  /// With standing_mutex_.
  void guard(std::vector<std::uint32_t> wans) {
    core_.tables().set_guarded(wans);
    guarded_ = std::move(wans);
  }

  // --- news: of interfaces, and of our filters where others can remove them ---

  void listen_for_news() {
    auto rtnl = Rtnl::open();
    if (!rtnl) return;
    news_rtnl_.emplace(std::move(*rtnl));
    news_ = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
    sockaddr_nl address{};
    address.nl_family = AF_NETLINK;
    address.nl_groups = RTMGRP_LINK | (Hooks::removable() ? RTMGRP_TC : 0);
    if (news_ >= 0 && bind(news_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return;
    if (news_ >= 0) close(news_);
    news_ = -1;  // each sweep looks
  }

  /// An interface that came has its program before it has a route. What was removed is put back at once, and
  /// what the LAN sends stays inside until it is.
  void take_news() {
    std::array<char, 32768> buffer{};
    bool removed = false, changed = false;
    std::vector<std::uint32_t> left_us;
    for (;;) {
      const ssize_t size = recv(news_, buffer.data(), buffer.size(), 0);
      if (size < 0 && errno == ENOBUFS) removed = true;  // some are lost
      if (size < 0 && (errno == ENOBUFS || errno == EINTR)) continue;
      if (size <= 0) break;
      auto left = static_cast<unsigned>(size);
      for (auto* message = reinterpret_cast<const nlmsghdr*>(buffer.data()); NLMSG_OK(message, left);
           message = NLMSG_NEXT(message, left)) {
        removed |= message->nlmsg_type == RTM_DELTFILTER || message->nlmsg_type == RTM_DELQDISC;
        changed |= message->nlmsg_type == RTM_NEWLINK;
        if (message->nlmsg_type == RTM_DELLINK && message->nlmsg_len >= NLMSG_LENGTH(sizeof(ifinfomsg)))
          left_us.push_back(
              static_cast<std::uint32_t>(static_cast<const ifinfomsg*>(NLMSG_DATA(message))->ifi_index));
      }
    }
    const std::lock_guard lock{standing_mutex_};
    for (const std::uint32_t index : left_us) others_.erase(index);  // another one may get the number
    if (removed || changed || !left_us.empty()) cover_others(*news_rtnl_, removed);
    if (!removed) return;
    const auto gone = [&](const Wanted& each) {
      return !hooks_.attached(each.interface, each.direction, each.program);
    };
    if (std::none_of(wanted_.begin(), wanted_.end(), gone)) return;
    const auto wans = guarded_;
    guard({});
    for (const Wanted& each : wanted_)
      if (gone(each) && !hooks_.attach(each.interface, each.direction, each.program)) return;  // a sweep's
    guard(wans);
    ++repaired_;
  }

  Result<void> failed(std::string what, const boost::system::error_code& error) {
    problem_ = std::move(what) + ": " + error.message();
    return make_error_code(PlaneErrc::system_failure);
  }

  /// Programs first, then forwarding: nothing passes an interface that has none.
  Result<void> stand() {
    problem_.clear();
    std::vector<std::string> names;
    std::vector<Wanted> wanted;
    std::vector<std::uint32_t> wans;
    const auto put = [&](const PlaneInterface& interface, Direction direction, Hook hook) {
      const Wanted each{interface.index, direction, core_.tables().program(hook)};
      const std::lock_guard lock{standing_mutex_};
      wanted.push_back(each);
      return hooks_.attach(each.interface, each.direction, each.program);
    };
    for (const PlaneInterface& wan : network_.wan) {
      if (!wan.index) continue;
      names.push_back(wan.name);
      wans.push_back(wan.index);
      // Egress first: nothing leaves untranslated while the other one is on its way.
      for (const auto& [direction, hook] :
           {std::pair{Direction::egress, Hook::wan_egress}, std::pair{Direction::ingress, Hook::wan_ingress}})
        if (const auto there = put(wan, direction, hook); !there) return lose(wan, there.error());
    }
    for (const PlaneInterface& lan : network_.lan) {
      if (!lan.index) continue;
      names.push_back(lan.name);
      if (const auto there = put(lan, Direction::ingress, Hook::lan_ingress); !there)
        return lose(lan, there.error());
      const std::lock_guard lock{standing_mutex_};
      (void)hooks_.detach(lan.index, Direction::egress);  // it may have been another one
    }
    {
      const std::lock_guard lock{standing_mutex_};
      cover_others(rtnl_, true);
      if (news_ >= 0) core_.tables().set_watched(device_.index());
      wanted_ = std::move(wanted);
      guard(std::move(wans));
    }
    standing_ = true;
    for (const std::uint32_t index : devices_untranslated_) {  // the answers come in there
      std::array<char, IF_NAMESIZE> name{};
      if (if_indextoname(index, name.data())) names.emplace_back(name.data());
    }
    for (const std::string& name : names) {
      const auto result = sysctls_.set(conf(name, "forwarding"), "1");
      if (!result && result.error().value() != ENOENT)  // ENOENT: gone again; its return will be told
        return failed("cannot switch forwarding on for " + name, result.error());
      // An old kernel has no such key, and then forwarding is the administrator's.
      if (policy_.ipv6 && has_ipv6(network_) && read_sysctl(conf6(name, "force_forwarding")) == "0" &&
          read_sysctl(conf6("all", "forwarding")) != "1")
        (void)set(conf6(name, "force_forwarding"), "1");
    }
    return {};
  }

  Result<void> lose(const PlaneInterface& interface, const boost::system::error_code& error) {
    {
      const std::lock_guard lock{standing_mutex_};
      guard({});
    }
    // It may be gone again; the next view tells.
    if (error.value() == ENODEV || if_nametoindex(interface.name.c_str()) != interface.index) return {};
    standing_ = false;
    for (const PlaneInterface& lan : network_.lan)
      if (lan.index) (void)sysctls_.set(conf(lan.name, "forwarding"), "0");
    return failed("cannot put a program on " + interface.name, error);
  }

  // --- ports ---

  bool set(const std::string& key, const std::string& value) {
    const auto result = sysctls_.set(key, value);
    if (result) return true;
    problem_ = "cannot set " + key + " to '" + value + "': " + result.error().message();
    return false;
  }
  bool take_router_ports() {
    if (router_ports_.first == 0) return true;
    return set("ipv4/ip_local_port_range",
               std::to_string(router_ports_.first) + '\t' + std::to_string(router_ports_.last));
  }
  /// Keeps the kernel from choosing leased ports of the router's own range.
  void keep_leased_ports() {
    static const std::string key = "ipv4/ip_local_reserved_ports";
    std::set<std::uint16_t> all;
    for (const auto& [id, port] : leased_) all.insert(port);
    std::string list = sysctls_.original(key).value_or("");
    for (const std::uint16_t port : all) list += (list.empty() ? "" : ",") + std::to_string(port);
    (void)set(key, list);
  }

  using Busy = std::array<std::array<std::uint64_t, 1024>, 2>;  // TCP, UDP

  static std::uint64_t word_of(std::uint64_t& word) {
    return std::atomic_ref{word}.load(std::memory_order_relaxed);
  }
  Busy busy_ports() {
    Busy busy{};
    for (const sp_part part : {SP_TCP, SP_UDP}) {
      auto words = core_.tables().busy(part);
      for (std::size_t i = 0; i < words.size(); ++i) busy[part][i] = word_of(words[i]);
    }
    return busy;
  }
  void refresh_own_ports(TimePoint now) {
    const Busy before = busy_ports();
    // What the programs saw the router send from, and we do not know of.
    for (std::size_t i = 0; i < before[SP_TCP].size(); ++i)
      if (before[SP_TCP][i] & ~told_[SP_TCP][i]) own_ports_.forget_connections();
    const auto result = own_ports_.refresh(now);
    own_ports_problem_ = result ? ""
                                : "cannot ask the kernel for the router's own sockets (" +
                                      result.error().message() + "): load tcp_diag and udp_diag";
    tell_busy_ports(own_ports_.refreshed() == now ? before : Busy{});
  }
  /// What the programs give to nobody: reserved ports, and those of the router's own sockets. `looked_into`:
  /// ports that the programs may have added themselves and whose sockets were asked for since.
  void tell_busy_ports(const Busy& looked_into = {}) {
    const auto tell = [&](sp_part part, Transport transport) {
      std::array<std::uint64_t, 1024> wanted{};
      for (std::uint32_t port = 0; port < 65536; ++port)
        if (own_ports_.in_use(transport, static_cast<std::uint16_t>(port)))
          wanted[port / 64] |= std::uint64_t{1} << port % 64;
      for (const auto& [of, port] : policy_.reserved)
        if (of == transport) wanted[port.number() / 64] |= std::uint64_t{1} << port.number() % 64;
      auto words = core_.tables().busy(part);
      for (std::size_t i = 0; i < wanted.size(); ++i) {
        const std::uint64_t over = (told_[part][i] | looked_into[part][i]) & ~wanted[i];
        const std::uint64_t now = word_of(words[i]);
        if (now & over) std::atomic_ref{words[i]}.fetch_and(~over);
        if (wanted[i] & ~now) std::atomic_ref{words[i]}.fetch_or(wanted[i]);
      }
      told_[part] = wanted;
    };
    tell(SP_TCP, Transport::tcp);
    tell(SP_UDP, Transport::udp);
  }

  // --- the slow path's thread ---

  void wake() { eventfd_write(stop_event_, 1); }

  void run() {
    std::array<pollfd, 3> wait{pollfd{device_.fd(), POLLIN, 0}, pollfd{stop_event_, POLLIN, 0},
                               pollfd{news_, POLLIN, 0}};
    while (!stopping_.load(std::memory_order_relaxed)) {
      if (poll(wait.data(), wait.size(), -1) < 0 && errno != EINTR) break;
      if (wait[2].revents) take_news();
      if (wait[1].revents) {
        eventfd_t told = 0;
        eventfd_read(stop_event_, &told);
        if (stopping_.load(std::memory_order_relaxed)) return;
        const std::lock_guard lock{mutex_};
        core_.take_made(clock_.now(),
                        [this](auto packet, sp_back how, sp_side side) { give(packet, how, side); });
      }
      // A flood does not keep news waiting.
      for (int carried = 0; carried < 64 && !stopping_.load(std::memory_order_relaxed) && carry_one();)
        ++carried;
      if (dead_.load(std::memory_order_relaxed)) return;
    }
  }

  bool carry_one() {
    Buffer& buffer = *buffer_;
    const ssize_t size = read(device_.fd(), buffer.frame(), sizeof(host::VirtioHeader) + largest_frame);
    if (size < 0) {
      if (errno == EINTR) return true;
      if (errno != EAGAIN) dead_.store(errno, std::memory_order_relaxed);
      return false;
    }
    if (size < static_cast<ssize_t>(sizeof(host::VirtioHeader) + link_header + 20)) return true;
    sp_tag tag{};
    std::memcpy(&tag, buffer.link() + 6, sizeof tag);
    if (tag.tag0 != SP_TAG_0 || tag.tag1 != SP_TAG_1) return true;  // what the stack itself sends there
    const std::span packet{buffer.packet(),
                           static_cast<std::size_t>(size) - sizeof(host::VirtioHeader) - link_header};
    const bool partial = buffer.header().flags & host::VirtioHeader::needs_checksum;
    const bool gso = buffer.header().gso_type != host::VirtioHeader::gso_none;
    const std::lock_guard lock{mutex_};
    const auto fate = core_.take(tag, packet, partial, gso, clock_.now(),
                                 [this](auto made, sp_back how, sp_side side) { give(made, how, side); });
    if (!fate.goes) return true;
    buffer.header().flags &= host::VirtioHeader::needs_checksum;
    address(buffer.link(), fate.how, static_cast<sp_side>(tag.side));
    send(buffer.frame(), sizeof(host::VirtioHeader) + link_header + fate.size);
    return true;
  }

  /// The link layer's header: whose it is for the interface that it comes in by next, and where the programs
  /// send it.
  void address(std::byte* link, sp_back how, sp_side side) const {
    const bool turns = how == SP_BACK_RETRY && side == SP_HAIRPIN;
    const Mac& to = turns ? turn_mac_ : stack_mac_;
    std::memcpy(link, to.data(), to.size());
    const sp_tag tag{SP_TAG_0, SP_TAG_1, static_cast<sp_u8>(side), static_cast<sp_u8>(how), 0, 0};
    std::memcpy(link + 6, &tag, sizeof tag);
    const bool ipv6 = std::to_integer<unsigned>(link[link_header]) >> 4 == 6;
    link[12] = ipv6 ? std::byte{0x86} : std::byte{0x08};
    link[13] = ipv6 ? std::byte{0xdd} : std::byte{0x00};
  }

  void give(std::span<const std::byte> packet, sp_back how, sp_side side) {
    std::vector<std::byte> frame(sizeof(host::VirtioHeader) + link_header + packet.size());
    std::copy(packet.begin(), packet.end(), frame.begin() + sizeof(host::VirtioHeader) + link_header);
    address(frame.data() + sizeof(host::VirtioHeader), how, side);
    send(frame.data(), frame.size());
  }

  void send(const void* data, std::size_t size) {
    // A packet the stack will not have (its memory, its link down) is lost as on any wire.
    while (write(device_.fd(), data, size) < 0 && errno == EINTR) {
    }
  }

  EbpfOptions options_;
  const Clock& clock_;
  TunDevice device_;
  Rtnl rtnl_;
  SysctlKeeper sysctls_;
  KernelOwnPorts own_ports_;

  mutable std::mutex standing_mutex_;  // hooks_ and all down to uncovered_
  Hooks hooks_;
  std::vector<Wanted> wanted_;
  std::vector<std::uint32_t> guarded_;
  std::set<std::string> ours_;            // names of LANs and WANs
  std::map<std::uint32_t, bool> others_;  // what was done for the rest: has its program, or none
  std::string uncovered_;

  mutable std::mutex mutex_;  // core_, stack_mac_, turn_mac_
  Core core_;
  Mac tap_mac_{}, stack_mac_{}, turn_mac_{};

  // the control thread's
  NetworkView network_;
  PlanePolicy policy_;
  PortRange router_ports_{};
  std::vector<Prefix> by_wan_;
  std::set<std::uint32_t> devices_untranslated_;
  std::map<MappingId, std::uint16_t> leased_;  // ports of the router's range
  bool standing_ = false;
  std::string problem_, own_ports_problem_;
  Busy told_{};  // by us, to the programs
  std::atomic<std::uint64_t> repaired_{0};

  // the slow path's
  std::unique_ptr<Buffer> buffer_;
  std::atomic<bool> stopping_{false};
  std::atomic<int> dead_{0};  // errno of a device that is gone
  int stop_event_ = -1, news_ = -1;
  std::optional<Rtnl> news_rtnl_;
  std::thread thread_;

  friend class EbpfPlane;
};

namespace {

/// True where an earlier run changed the system and programs stand whose tables cannot be looked at: they may
/// be its own, and would work on beside new ones.
bool hides_what_is_ours(const Hooks& hooks, const SysctlKeeper& sysctls, std::string& why) {
  if (hooks.hidden().empty() || sysctls.changed().empty()) return false;
  why = "there is a program at " + hooks.hidden() +
        "; to tell whether it is of an earlier run needs CAP_SYS_ADMIN: run sallyportd --detach as root";
  return true;
}

}  // namespace

Result<std::unique_ptr<EbpfPlane>> EbpfPlane::start(const EbpfOptions& options, const Clock& clock,
                                                    std::string& why) {
  // Ours alone, before anything of an earlier run is touched.
  auto device = TunDevice::open(options.device, TunDevice::Layer::ethernet);
  if (!device) {
    why = device.error().value() == EBUSY
              ? "the interface " + options.device +
                    " is in use: another sallyportd runs in this network namespace"
              : "cannot make the interface " + options.device + ": " + device.error().message();
    return make_error_code(PlaneErrc::system_failure);
  }
  auto rtnl = Rtnl::open();
  if (!rtnl) {
    why = "cannot open rtnetlink: " + rtnl.error().message();
    return make_error_code(PlaneErrc::system_failure);
  }
  Hooks hooks = Hooks::find();
  if (hides_what_is_ours(hooks, SysctlKeeper{options.undo_file}, why))
    return make_error_code(PlaneErrc::system_failure);
  auto found = hooks.maps();
  auto tables = Tables::load(
      {.flows = options.flows, .addresses = static_cast<std::uint32_t>(options.engine.addresses)},
      options.engine.secret, found, why);
  for (const auto& [name, fd] : found) close(fd);
  if (!tables) return make_error_code(PlaneErrc::system_failure);
  why = (*tables)->why_anew();
  auto impl = std::make_unique<Impl>(options, clock, std::move(*device), std::move(*rtnl), std::move(hooks),
                                     std::move(*tables));
  if (const auto prepared = impl->prepare(why); !prepared) return prepared.error();

  return std::unique_ptr<EbpfPlane>{new EbpfPlane{std::move(impl)}};
}

struct EbpfLeft {
  ebpf::Hooks hooks;
};

std::shared_ptr<EbpfLeft> EbpfPlane::look() { return std::make_shared<EbpfLeft>(Hooks::find()); }

Result<void> EbpfPlane::detach(const EbpfOptions& options, std::string& why) {
  if (if_nametoindex(options.device.c_str()) != 0) {
    why = "the interface " + options.device +
          " is in use: another sallyportd runs in this network namespace; stop it first";
    return make_error_code(PlaneErrc::system_failure);
  }
  SysctlKeeper sysctls{options.undo_file};
  Hooks found;
  if (!options.left) found = Hooks::find();
  Hooks& hooks = options.left ? options.left->hooks : found;
  if (hides_what_is_ours(hooks, sysctls, why)) return make_error_code(PlaneErrc::system_failure);
  const auto is_forwarding = [](const std::string& key) { return key.ends_with("/forwarding"); };
  sysctls.put_back(is_forwarding);  // where it was off, nothing leaks while the programs go
  const bool stood = hooks.any() || !sysctls.changed().empty();
  if (stood && options.shut && !options.shut(why)) return make_error_code(PlaneErrc::system_failure);
  struct if_nameindex* const interfaces = if_nameindex();
  for (auto* at = interfaces; at && at->if_index; ++at)
    for (const Direction direction : {Direction::ingress, Direction::egress})
      if (const auto gone = hooks.detach(at->if_index, direction); !gone) {
        why = std::string{"cannot take the program off "} + at->if_name + ": " + gone.error().message();
        if_freenameindex(interfaces);
        return make_error_code(PlaneErrc::system_failure);
      }
  if (interfaces) if_freenameindex(interfaces);
  sysctls.put_back([&](const std::string& key) { return !is_forwarding(key); });
  sysctls.forget();
  return {};
}

EbpfPlane::EbpfPlane(std::unique_ptr<Impl> impl) : impl_{std::move(impl)} {}
EbpfPlane::~EbpfPlane() = default;

Result<Installed> EbpfPlane::install(const MappingSpec& spec, TimePoint now) {
  return impl_->install(spec, now);
}
std::optional<FoundRange> EbpfPlane::find_range(const RangeSpec& spec, TimePoint now) {
  return impl_->find_range(spec, now);
}
Result<void> EbpfPlane::renew(MappingId id, TimePoint deadline) {
  return impl_->locked([&] { return impl_->core().engine().renew(id, deadline); });
}
Result<void> EbpfPlane::set_remotes(MappingId id, std::span<const RemoteFilter> remotes, bool outbound,
                                    TimePoint now) {
  return impl_->locked([&] { return impl_->core().engine().set_remotes(id, remotes, outbound, now); });
}
void EbpfPlane::withdraw(MappingId id, Ending how, TimePoint now) { impl_->withdraw(id, how, now); }
void EbpfPlane::end_flows(const Address& device, TimePoint now) { impl_->end_flows(device, now); }
Result<Counters> EbpfPlane::counters(MappingId id) const {
  return impl_->locked([&] { return impl_->core().engine().counters(id); });
}
std::optional<TimePoint> EbpfPlane::held_until(Transport transport, const Address& device, Port external,
                                               TimePoint now) const {
  return impl_->locked([&] { return impl_->core().engine().held_until(transport, device, external, now); });
}
std::optional<Address> EbpfPlane::external_for(const Address& device) const {
  return impl_->locked([&] { return impl_->core().engine().external_for(device); });
}
Result<void> EbpfPlane::set_network(const NetworkView& network, TimePoint now) {
  return impl_->set_network(network, now);
}
Result<void> EbpfPlane::set_policy(const PlanePolicy& policy, TimePoint now) {
  return impl_->set_policy(policy, now);
}
std::vector<PlaneEvent> EbpfPlane::sweep(TimePoint now) { return impl_->sweep(now); }
std::vector<ImplicitView> EbpfPlane::implicit_mappings(TimePoint now) const {
  return impl_->locked([&] { return impl_->core().engine().implicit_mappings(now); });
}
bool EbpfPlane::has_implicit(Transport transport, const InternalEndpoint& internal, TimePoint now) const {
  return impl_->locked([&] { return impl_->core().engine().has_implicit(transport, internal, now); });
}
PlaneStatus EbpfPlane::status() const { return impl_->status(); }

}  // namespace sallyport::nat
