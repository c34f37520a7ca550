#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "nat/plane/memory/memory_plane.hpp"
#include "protocols/pcp/codec.hpp"
#include "protocols/upnp/http/url.hpp"
#include "protocols/upnp/igd/server.hpp"
#include "protocols/upnp/ssdp/server.hpp"
#include "src/client/core.hpp"
#include "src/daemon/port_5351.hpp"
#include "src/lease/lease_service.hpp"
#include "tests/src/lease/memory_store.hpp"
#include "tests/support/manual_clock.hpp"

namespace sallyport::test {

using namespace std::chrono_literals;
using client::Core;
using client::DoorId;
using client::EventKind;
using client::Family;
using client::PortRequest;
using std::chrono::nanoseconds;

inline Address address(std::string_view text) { return *Address::parse(text); }
inline Port port(std::uint32_t number) { return *Port::from(number); }

/// What went wrong in a world; `what()` says it.
struct Broken : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// SplitMix64: the same everywhere, unlike the distributions of the standard library.
class Dice {
 public:
  explicit Dice(std::uint64_t seed) : state_{seed} {}
  std::uint64_t next() {
    auto value = state_ += 0x9e3779b97f4a7c15;
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9;
    value = (value ^ value >> 27) * 0x94d049bb133111eb;
    return value ^ value >> 31;
  }
  std::uint64_t below(std::uint64_t limit) { return limit == 0 ? 0 : next() % limit; }
  bool percent(unsigned chance) { return below(100) < chance; }
  nanoseconds between(nanoseconds least, nanoseconds most) {
    return least + nanoseconds{static_cast<std::int64_t>(
                       below(static_cast<std::uint64_t>((most - least).count()) + 1))};
  }

 private:
  std::uint64_t state_;
};

/// A host with the client's core and a gateway with the cores of all servers over the real lease service, and
/// a network between them that may lose, double, delay and reorder. In simulated time, without sockets.
class World {
 public:
  struct Kind {
    bool pcp = true, natpmp = true, upnp = true;
    unsigned igd = 2;
    bool ipv6 = false;
    bool tells_unreachable = true;  ///< ICMP for a port that nobody listens on; else silence
  };
  struct Link {
    unsigned loss_up = 0, loss_down = 0, doubled = 0;  ///< percent
    unsigned lost_multicast = 0;                       ///< percent
    unsigned failed_asks = 0;                          ///< percent, half of them after the gateway has heard
    nanoseconds least = 1ms, most = 1ms;               ///< delay of each way
  };
  struct Wanted {
    PortRequest request;
    bool closing = false, closed = false;
    std::array<std::optional<client::Grant>, 2> grants;  ///< as the program was told
    std::array<TimePoint, 2> fresh{};                    ///< when it was last told that it is open
    std::vector<client::Event> events;
  };

  World(const Kind& given, Core::Options options, std::uint64_t seed)
      : kind{given}, dice{seed}, core{std::make_unique<Core>(std::move(options))} {
    view_.lan = {{.name = "lan0",
                  .index = 2,
                  .up = true,
                  .addresses = {gateway},
                  .prefixes = {*Prefix::parse("192.168.1.0/24")}}};
    if (kind.ipv6) {
      view_.lan[0].addresses.push_back(gateway6);
      view_.lan[0].addresses.push_back(gateway_link);
      view_.lan[0].prefixes.push_back(*Prefix::parse("2001:db8:1::/64"));
    }
    view_.wan = {{.name = "wan0", .index = 3, .up = true, .addresses = {external()}, .prefixes = {}}};
    view_.external = {external()};
    policy.ipv6 = kind.ipv6;
  }
  ~World() { stop_processes(); }
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  static inline const Address gateway = *Address::parse("192.168.1.1"),
                              gateway6 = *Address::parse("2001:db8:1::1"),
                              gateway_link = *Address::parse("fe80::1"),
                              host_link = *Address::parse("fe80::10"),
                              neighbour = *Address::parse("192.168.1.99");
  static constexpr std::uint64_t host_mac = 0x020000000010;

  TimePoint now() const { return clock.now(); }
  Address external() const {
    return Address::v4(0xcb007100u + 7 + static_cast<std::uint32_t>(external_number_));  // 203.0.113.7
  }
  Address host4() const { return Address::v4(0xc0a8010au + static_cast<std::uint32_t>(host_number_)); }
  Address host6() const {
    auto bytes = gateway6.bytes();
    bytes[15] = static_cast<std::byte>(0x10 + host_number_);
    return Address{bytes};
  }
  bool is_host(const Address& one) const {
    return one == host4() || (kind.ipv6 && one == host6()) || one == host_link;
  }

  // --- the gateway

  void boot() {
    say("gateway starts");
    plane_ = std::make_unique<nat::MemoryPlane>();
    plane_->set_network(view_, now());
    store_ = std::make_unique<MemoryStore>(disk_);
    service = std::make_unique<lease::LeaseService>(lease::LeaseService::Dependencies{
        *plane_, *store_, clock, 42, [this](const Address& one) {
          return one == neighbour ? std::optional<std::uint64_t>{0x99} : std::optional{host_mac};
        }});
    service->start(policy, view_, now());
    commit();
    if (kind.pcp || kind.natpmp) port5351_ = std::make_unique<daemon::Port5351>(*service);
    speak();
    pump();
  }
  /// The program ends; with `orderly` it says so where its protocol has a word for it.
  void stop(bool orderly, bool wipe) {
    say(std::string{"gateway stops"} + (orderly ? " orderly" : "") + (wipe ? ", what it held is lost" : ""));
    if (orderly && ssdp_) {
      ssdp_->stop();
      drain_ssdp();
    }
    if (orderly) commit();
    stop_processes();
    if (wipe) {
      disk_ = {};
      wiped = now();
    }
  }
  bool is_running() const { return service != nullptr; }
  /// PCP, NAT-PMP and UPnP go on or off as the configuration's keys do.
  void set_spoken(bool pcp, bool natpmp, bool upnp) {
    say(std::string{"gateway speaks"} + (pcp ? " pcp" : "") + (natpmp ? " natpmp" : "") +
        (upnp ? " upnp" : ""));
    kind.pcp = pcp;
    kind.natpmp = natpmp;
    kind.upnp = upnp;
    if (!service) return;
    if (!port5351_ && (kind.pcp || kind.natpmp)) port5351_ = std::make_unique<daemon::Port5351>(*service);
    if (port5351_ && !kind.pcp && !kind.natpmp) port5351_.reset();
    if (ssdp_ && !upnp) {
      ssdp_->stop();
      drain_ssdp();
      ssdp_.reset();
      igd_.reset();
    }
    speak();
    pump();
  }
  void set_external(int number) {  ///< -1: none
    if (number >= 0) external_number_ = number;
    view_.external.clear();
    if (number >= 0) view_.external.push_back(external());
    view_.wan[0].addresses = view_.external;
    say("external address " + (number < 0 ? "none" : external().to_string()));
    if (!service) return;
    plane_->set_network(view_, now());
    service->set_network(view_, now());
    pump();
  }
  bool has_external() const { return !view_.external.empty(); }
  std::vector<LeaseView> leases() const {
    return service ? service->list({}, now()) : std::vector<LeaseView>{};
  }
  void revoke(const LeaseView& lease, std::optional<std::chrono::seconds> block = {}) {
    say("admin revokes " + std::to_string(lease.internal.port.number()) + " of " +
        lease.internal.address.to_string());
    ++revoked[{lease.transport, lease.internal.port,
               lease.internal.address.is_v4() ? Family::ipv4 : Family::ipv6}];
    const std::uint64_t numbers[] = {lease.number};
    std::optional<lease::LeaseService::BlockFor> how;
    if (block) how = lease::LeaseService::BlockFor{*block};
    service->revoke(numbers, how, now(), [](const lease::RevokeResult&, TimePoint) {});
    pump();
  }
  void unblock() {
    if (!service) return;
    std::vector<std::uint64_t> numbers;
    for (const auto& block : service->blocks(now())) numbers.push_back(block.lease);
    if (!numbers.empty()) say("admin lifts blocks");
    service->unblock(numbers, now(), [](std::size_t, TimePoint) {});
    pump();
  }
  /// A neighbour's lease of this external port, for a day.
  void take_port(Transport transport, Port external_port) {
    GrantRequest request{.internal = {neighbour, external_port}};
    request.via = Via::pcp;
    request.transport = transport;
    request.requester = neighbour;
    request.nonce = Nonce{};
    request.suggested_port = external_port;
    request.lifetime_s = 86400;
    request.contact = {2, neighbour, 40000, gateway};
    service->grant(request, now(), [](const Outcome<Granted>&, TimePoint) {});
    pump();
  }

  // --- the host

  client::Network network() const {
    client::Network::Interface here{.index = 2,
                                    .name = "eth0",
                                    .ipv4 = {{host4(), 120}},
                                    .ipv6 = {},
                                    .routers4 = {gateway},
                                    .routers6 = {}};
    if (kind.ipv6) {
      here.ipv6 = {{host6(), 64}};
      here.routers6 = {gateway_link};
    }
    client::Network all;
    all.interfaces.push_back(std::move(here));
    return all;
  }
  void join() {
    core->set_network(network(), now());
    pump();
  }
  void leave() {
    wake();
    say("host has no network");
    core->set_network({}, now());
    pump();
  }
  void move_host() {
    wake();
    ++host_number_;
    say("host moves to " + host4().to_string());
    join();
  }
  DoorId open(PortRequest request) {
    wake();
    const auto id = ++last_door_;
    say("open " + name(request) + " as " + std::to_string(id));
    doors.emplace(id, Wanted{.request = request});
    core->open(id, std::move(request), std::nullopt, now());
    ++stimuli;
    pump();
    return id;
  }
  void close(DoorId id, bool leave_lease = false) {
    wake();
    say("close " + std::to_string(id));
    doors.at(id).closing = true;
    core->close(id, leave_lease, now());
    ++stimuli;
    pump();
  }
  bool is_asleep() const { return now() < asleep_until_; }
  void wake() {
    asleep_until_ = std::min(asleep_until_, now());
    // what was under way when it fell asleep has failed
    for (const auto id : std::exchange(failed_asleep_, {}))
      core->handle_reply(id, boost::system::errc::make_error_code(boost::system::errc::timed_out), now());
    pump();
  }
  void sleep(nanoseconds time) {
    wake();
    say("host sleeps for " + seconds(time));
    asleep_until_ = now() + time;
  }

  // --- time

  void run(nanoseconds time) { run_until(now() + time); }
  void run_until(TimePoint end) {
    unsigned at_once = 0;
    for (;;) {
      auto next = end;
      const auto due = [&](std::optional<TimePoint> at) {
        if (at && *at < next) next = *at;
      };
      if (!pending_.empty()) due(pending_.begin()->first);
      if (const auto at = core->next_deadline()) due(std::max(*at, asleep_until_));
      if (!failed_asleep_.empty()) due(asleep_until_);
      if (service) due(service->next_deadline());
      if (port5351_) due(port5351_->next_deadline());
      if (ssdp_) due(ssdp_->next_deadline());
      if (next > now()) {
        clock.advance(next - now());
        at_once = 0;
      } else if (++at_once > 5000) {
        throw Broken{"time stands still"};
      }
      while (!pending_.empty() && pending_.begin()->first <= now()) {
        const auto run = std::move(pending_.begin()->second);
        pending_.erase(pending_.begin());
        run();
        pump();
      }
      if (!is_asleep() && !failed_asleep_.empty()) wake();
      if (!is_asleep())
        if (const auto at = core->next_deadline(); at && *at <= now()) {
          ++wakes;
          core->handle_timeout(now());
        }
      if (service)
        if (const auto at = service->next_deadline(); at && *at <= now()) service->handle_timeout(now());
      if (port5351_) port5351_->handle_timeout(now());
      if (ssdp_) ssdp_->handle_timeout(now());
      pump();
      const auto again = core->next_deadline();
      if (next >= end && (!again || *again > now() || is_asleep()) &&
          (pending_.empty() || pending_.begin()->first > now()))
        return;
    }
  }

  // --- what is seen

  /// The lease of the door as the program was told; null: there is none.
  const client::Grant* grant(DoorId id, Family family = Family::ipv4) const {
    const auto& told = doors.at(id).grants[static_cast<std::size_t>(family)];
    return told ? &*told : nullptr;
  }
  static bool is_of(const LeaseView& lease, const Wanted& door, const Address& host) {
    return lease.transport == door.request.transport && lease.internal.port == door.request.internal_port &&
           lease.internal.address == host;
  }
  static Via via_of(client::Protocol protocol) {
    return protocol == client::Protocol::pcp      ? Via::pcp
           : protocol == client::Protocol::natpmp ? Via::natpmp
                                                  : Via::upnp;
  }
  std::string list() const {
    std::string text;
    for (const auto& lease : leases())
      text += std::string{to_string(lease.via)} + " " + std::string{to_string(lease.transport)} + " " +
              lease.external.address.to_string() + ":" + std::to_string(lease.external.port.number()) +
              " -> " + lease.internal.address.to_string() + ":" +
              std::to_string(lease.internal.port.number()) + "; ";
    return text.empty() ? "nothing" : text;
  }
  /// Each wanted door is open as told, once, and nothing else is of this host.
  void expect_settled() const {
    const auto all = leases();
    std::size_t wanted_leases = 0;
    for (const auto& [id, door] : doors) {
      if (door.closing && !door.closed)
        throw Broken{"door " + std::to_string(id) + " does not come to its end"};
      if (door.closing) continue;
      for (const auto family : {Family::ipv4, Family::ipv6}) {
        const bool six = family == Family::ipv6;
        if (six ? !door.request.ipv6 || !can_ipv6() : !door.request.ipv4) continue;
        ++wanted_leases;
        const auto* told = grant(id, family);
        if (!told)
          throw Broken{"door " + std::to_string(id) + " of " + std::string{to_string(family)} +
                       " is not open; the gateway has " + list()};
        const auto host = six ? host6() : host4();
        const auto held = std::count_if(all.begin(), all.end(), [&](const auto& each) {
          return is_of(each, door, host) && each.external == told->external &&
                 each.via == via_of(told->protocol);
        });
        if (held != 1)
          throw Broken{"door " + std::to_string(id) + " was told open at " +
                       told->external.address.to_string() + ":" +
                       std::to_string(told->external.port.number()) + " by " +
                       std::string{to_string(told->protocol)} + "; the gateway has " + list()};
        if (told->internal.address != host)
          throw Broken{"door " + std::to_string(id) + " is of another address"};
      }
    }
    std::size_t ours = 0;
    for (const auto& each : all) {
      const bool told = std::any_of(doors.begin(), doors.end(), [&](const auto& door) {
        return !door.second.closing && is_of(each, door.second, host4()) && door.second.grants[0] &&
               via_of(door.second.grants[0]->protocol) == each.via;
      });
      // what UPnP made permanent does not end by itself when its deletion is lost or the host has moved
      ours += each.internal.address != neighbour && (each.deadline || told);
    }
    if (ours != wanted_leases)
      throw Broken{std::to_string(wanted_leases) + " leases are wanted; the gateway has " + list()};
  }
  bool can_ipv6() const { return kind.ipv6 && (kind.pcp || (kind.upnp && kind.igd >= 2)); }

  void say(std::string what) {
    if (!telling) return;
    story.push_back(seconds(now().time_since_epoch()) + "  " + std::move(what));
    if (story.size() > story_lines) story.pop_front();
  }
  static std::string seconds(nanoseconds time) {
    char text[32];
    std::snprintf(text, sizeof text, "%.3f s", static_cast<double>(time.count()) / 1e9);
    return text;
  }
  static std::string name(const PortRequest& request) {
    return std::string{to_string(request.transport)} + " " + std::to_string(request.internal_port.number()) +
           (request.exact ? " exact" : "");
  }

  Kind kind;
  Link link;
  Dice dice;
  bool deaf_to_pcp = false;  ///< a gateway that drops what it does not know
  bool deaf_router = false;  ///< what hears PCP is not the router: only the anycast address leads to it
  unsigned anycasts = 0;     ///< datagrams sent there
  bool connected = true;     ///< else neither host nor gateway hears of the other
  ManualClock clock;
  lease::LeasePolicy policy;
  std::unique_ptr<lease::LeaseService> service;
  std::unique_ptr<Core> core;
  std::map<DoorId, Wanted> doors;
  std::map<std::tuple<Transport, Port, Family>, unsigned> revoked;  ///< and not yet told
  TimePoint wiped{};

  std::map<Via, unsigned> requests;  ///< for mappings, as they leave the host
  std::size_t sent = 0, asked = 0, wakes = 0, stimuli = 0, events = 0;
  std::uint64_t hash = 0xcbf29ce484222325;
  bool telling = false;
  std::size_t story_lines = 50;
  std::deque<std::string> story;

 private:
  void stop_processes() {
    igd_.reset();
    ssdp_.reset();
    port5351_.reset();
    service.reset();
    store_.reset();
    plane_.reset();
  }
  void speak() {
    if (port5351_) {
      daemon::Port5351::Spoken spoken{2, kind.pcp, kind.natpmp, {gateway}};
      if (kind.ipv6) spoken.addresses.push_back(gateway_link);
      port5351_->set_spoken({spoken}, now());
    }
    if (!kind.upnp || ssdp_) return;
    // the tree is the same in every world
    static std::map<unsigned, std::pair<upnp::ssdp::Tree, std::string>> known;
    auto& [tree, path] = known[kind.igd];
    if (path.empty()) {
      make_igd();
      path = igd_->tree().description_path;
      const auto devices = upnp::description::all_devices(igd_->tree());
      for (std::size_t i = 0; i < devices.size(); ++i) {
        tree.devices.push_back({devices[i]->udn, devices[i]->type, devices[i]->version});
        for (const auto& each : devices[i]->services)
          tree.services.push_back({std::string{each.table->type}, each.table->version, i});
      }
      tree.config_id = igd_->config_id();
    }
    upnp::ssdp::Server::Options options;
    options.description_path = path;
    ssdp_ = std::make_unique<upnp::ssdp::Server>(
        tree, options, ++boot_id_, [this] { return clock.wall(); }, dice.next());
    std::vector<upnp::ssdp::LanAddress> served{{2, {gateway, 120}}};
    if (kind.ipv6) {
      served.push_back({2, {gateway6, 64}});
      served.push_back({2, {gateway_link, 64}});
    }
    ssdp_->set_served(served, now());
  }
  void make_igd() {
    upnp::igd::ServerOptions options;
    options.tree.igd_version = kind.igd;
    options.tree.path_secret = "0123456789abcdefghijkl";
    options.tree.uuid.fill(std::byte{7});
    auto made = upnp::igd::Server::make(
        {*service, *service, *service,
         [this] { return upnp::igd::WanLink{.exists = true, .up = has_external()}; },
         [this] { return std::array<std::byte, 16>{static_cast<std::byte>(++gena_)}; }},
        options, now());
    if (!made) throw Broken{"no gateway device: " + made.error().message()};
    igd_ = std::move(*made);
    igd_->set_own_addresses({gateway, gateway6, gateway_link});
  }
  void commit() {
    for (int i = 0; i < 100 && store_ && store_->queued() > 0; ++i) {
      store_->commit();
      service->commit_results(now());
    }
  }

  void pump() {
    commit();
    if (igd_) igd_->settle(now());
    if (port5351_)
      while (auto out = port5351_->poll_transmit()) to_host(std::move(*out));
    drain_ssdp();
    while (auto out = core->poll_transmit()) to_gateway(std::move(*out));
    while (auto ask = core->poll_ask()) carry(std::move(*ask));
    while (auto event = core->poll_event()) take(event->first, std::move(event->second));
  }
  void drain_ssdp() {
    if (!ssdp_) return;
    while (auto out = ssdp_->poll_transmit()) to_host(std::move(*out));
  }
  void later(nanoseconds delay, std::function<void()> run) {
    pending_.emplace(now() + delay, std::move(run));
  }
  nanoseconds way() { return dice.between(link.least, link.most); }
  void mix(std::uint64_t value) { hash = (hash ^ value) * 0x100000001b3; }

  void to_gateway(Core::Datagram&& out) {
    ++sent;
    mix(static_cast<std::uint64_t>(now().time_since_epoch().count()));
    for (const auto octet : out.bytes) mix(std::to_integer<std::uint64_t>(octet));
    const bool natpmp = out.to_port == 5351 && out.bytes[0] == std::byte{0};
    if (out.to_port == 5351 && out.bytes[1] != std::byte{0}) ++requests[natpmp ? Via::natpmp : Via::pcp];
    if (pcp::is_anycast(out.to)) ++anycasts;
    const int copies = dice.percent(link.loss_up) ? 0 : dice.percent(link.doubled) ? 2 : 1;
    if (telling && out.to_port == 5351)
      say(std::string{"-> "} + (natpmp ? "NAT-PMP " : "PCP ") + describe(out.bytes, natpmp) +
          (out.to.is_v4() ? "" : " (ipv6)") +
          (copies == 0   ? " LOST"
           : copies == 2 ? " DOUBLED"
                         : ""));
    for (int i = 0; i < copies; ++i)
      later(way(), [this, out] {
        if (!connected) return;
        if (out.to_port == 5351 && deaf_to_pcp && out.bytes[0] == std::byte{2}) return;
        if (out.to_port == 5351 && deaf_router && !pcp::is_anycast(out.to)) return;
        if (out.to_port == 5351) return hear(out);
        if (!ssdp_) return;
        const auto from = out.local.is_unspecified() ? host_link : out.local;
        ssdp_->handle_datagram(out.bytes, {from, 50000, out.to, 2}, now());
      });
  }
  void hear(const Core::Datagram& out) {
    const bool server6 = !out.to.is_v4() && !kind.ipv6;
    const bool open = port5351_ && !server6 && (out.to.is_v4() || kind.pcp);
    if (!open) {
      if (!kind.tells_unreachable) return;
      later(way(), [this, id = out.server] {
        if (!is_asleep() && connected && core->is_served(id)) core->handle_server_unreachable(id, now());
      });
      return;
    }
    port5351_->handle_datagram(out.bytes,
                               {out.local, static_cast<std::uint16_t>(40000 + out.server), out.to, 2}, now());
  }
  void to_host(wire::Outgoing&& out) {
    const bool group = !is_host(out.to) && (out.to.is_v4() ? out.to.bytes()[12] >= std::byte{224}
                                                           : out.to.bytes()[0] == std::byte{0xff});
    const int copies = dice.percent(group ? std::max(link.lost_multicast, link.loss_down) : link.loss_down)
                           ? 0
                       : dice.percent(link.doubled) ? 2
                                                    : 1;
    if (telling && (out.from_port == 5351)) {
      const bool natpmp = out.bytes[0] == std::byte{0};
      say(std::string{"<- "} + (natpmp ? "NAT-PMP " : "PCP ") + describe(out.bytes, natpmp) +
          (group ? " to all" : "") +
          (copies == 0   ? " LOST"
           : copies == 2 ? " DOUBLED"
                         : ""));
    }
    for (int i = 0; i < copies; ++i)
      later(way(), [this, out, group] {
        if (!connected || is_asleep() || (!group && !is_host(out.to))) return;
        if (group && out.to_port == 5350) return core->handle_announcement(out.bytes, out.from, 2, now());
        if (out.to_port == 1900 || out.to_port == 50000)
          return core->handle_sighting(out.bytes, out.from, 2, now());
        if (out.to_port >= 40000 && core->is_served(out.to_port - 40000u))
          core->handle_server_datagram(out.to_port - 40000u, out.bytes, now());
      });
  }
  static std::string describe(std::span<const std::byte> bytes, bool natpmp) {
    const auto at = [&](std::size_t i, std::size_t n) {
      std::uint64_t value = 0;
      for (; n > 0 && i < bytes.size(); ++i, --n)
        value = value << 8 | std::to_integer<std::uint64_t>(bytes[i]);
      return std::to_string(value);
    };
    const bool answer = (bytes[1] & std::byte{0x80}) != std::byte{0};
    const auto opcode = std::to_integer<unsigned>(bytes[1]) & 127;
    if (natpmp) {
      if (opcode == 0) return answer ? "address, result " + at(2, 2) + ", epoch " + at(4, 4) : "address?";
      return answer ? "map " + at(8, 2) + " at " + at(10, 2) + " for " + at(12, 4) + " result " + at(2, 2) +
                          ", epoch " + at(4, 4)
                    : "map " + at(4, 2) + " at " + at(6, 2) + " for " + at(8, 4);
    }
    if (opcode != 1) return "opcode " + std::to_string(opcode) + (answer ? ", epoch " + at(8, 4) : "");
    return "map " + at(40, 2) + " at " + at(42, 2) + " for " + at(4, 4) +
           (answer ? " result " + at(3, 1) + ", epoch " + at(8, 4) : "");
  }

  void fail_ask(std::uint64_t id, nanoseconds delay, boost::system::errc::errc_t why) {
    later(delay, [this, id, why] {
      if (is_asleep()) return failed_asleep_.push_back(id);
      say("HTTP " + std::to_string(id) + " fails");
      core->handle_reply(id, boost::system::errc::make_error_code(why), now());
    });
  }
  void carry(Core::Ask&& ask) {
    ++asked;
    mix(static_cast<std::uint64_t>(now().time_since_epoch().count()));
    for (const char c : ask.what.body) mix(static_cast<std::uint64_t>(c));
    const auto action = ask.what.fields.find("SOAPACTION").value_or("");
    if (action.find("#Add") != action.npos) ++requests[Via::upnp];
    if (telling)
      say("-> HTTP " + std::to_string(ask.id) + " " + ask.what.method + " " +
          std::string{action.substr(std::min(action.size(), action.rfind('#') + 1))});
    const auto dies = dice.below(200);
    const bool before = dies < link.failed_asks, after = !before && dies < 2 * link.failed_asks;
    if (before) return fail_ask(ask.id, 3s, boost::system::errc::timed_out);
    const auto local = ask.what.host.is_v4()                      ? host4()
                       : upnp::ssdp::is_link_local(ask.what.host) ? host_link
                                                                  : host6();
    // a handshake goes first
    later(way() + way() + way(), [this, ask = std::move(ask), local, after] {
      using namespace boost::system::errc;
      if (!connected || !is_host(local)) return fail_ask(ask.id, 3s, timed_out);
      if (!service || !kind.upnp) return fail_ask(ask.id, way(), connection_refused);
      if (!igd_) make_igd();
      upnp::http::Request request{.method = ask.what.method, .target = ask.what.target};
      request.fields = ask.what.fields;
      request.fields.add("HOST", upnp::http::host_field(ask.what.host, ask.what.port));
      request.body = ask.what.body;
      request.peer = local;
      request.peer_port = 40000;
      request.local = ask.what.host;
      request.interface = 2;
      const auto reply = std::make_shared<std::optional<upnp::http::Reply>>();
      igd_->handle(std::move(request), now(), [reply, local](upnp::http::Response response) {
        reply->emplace(upnp::http::Reply{.status = response.status,
                                         .fields = response.fields,
                                         .body = std::move(response.body),
                                         .local = local});
        for (std::string piece; response.source && !(piece = response.source->next()).empty();)
          (*reply)->body += piece;
        if (response.sent) response.sent();
      });
      commit();
      if (!*reply || after) return fail_ask(ask.id, 3s, timed_out);
      later(way(), [this, id = ask.id, reply, local] {
        if (is_asleep() || !connected || !is_host(local)) return fail_ask(id, 3s, timed_out);
        if (telling) {
          const auto code = (*reply)->body.find("<errorCode>");
          say("<- HTTP " + std::to_string(id) + " " + std::to_string((*reply)->status) +
              (code == std::string::npos ? "" : " " + (*reply)->body.substr(code + 11, 3)));
        }
        core->handle_reply(id, **reply, now());
      });
    });
  }

  void take(DoorId id, client::Event event) {
    ++events;
    say("## " + std::to_string(id) + " " + std::string{to_string(event.kind)} + ": " + event.text);
    const auto found = doors.find(id);
    if (found == doors.end()) throw Broken{"an event of a door that never was"};
    auto& door = found->second;
    if (door.closed) throw Broken{"an event after closed"};
    auto& told = door.grants[static_cast<std::size_t>(event.family)];
    auto& fresh = door.fresh[static_cast<std::size_t>(event.family)];
    const auto need = [&](bool holds, const char* what) {
      if (!holds)
        throw Broken{"door " + std::to_string(id) + ", " + std::string{to_string(event.kind)} + ": " + what};
    };
    need(!event.text.empty(), "no words");
    switch (event.kind) {
      case EventKind::granted:
        need(!told, "it was open");
        need(event.grant.has_value(), "no grant");
        break;
      case EventKind::renewed:
        need(told && event.grant, "it was not open");
        need(told->external == event.grant->external, "another endpoint");
        break;
      case EventKind::changed:
        need(told && event.grant && event.former, "it was not open");
        need(told->external != event.grant->external, "the same endpoint");
        need(event.former->external == told->external, "another former endpoint");
        break;
      case EventKind::revoked: {
        need(told.has_value(), "it was not open");
        auto& owed = revoked[{door.request.transport, door.request.internal_port, event.family}];
        // UPnP has no epoch: when its announcements are lost, forgotten and revoked look the same
        // and pinholes, which have nothing but numbers, may have each other's for a lifetime
        const bool forgotten = told->protocol == client::Protocol::upnp && wiped != TimePoint{} &&
                               (wiped >= fresh || (event.family == Family::ipv6 && now() < wiped + 2h));
        need(owed > 0 || forgotten, "nobody revoked it");
        if (owed > 0) --owed;
        break;
      }
      case EventKind::lost:
        need(told.has_value(), "it was not open");
        break;
      case EventKind::refused:
        need(!told, "it is open");
        break;
      case EventKind::closed:
        need(door.closing, "nobody closed it");
        need(!core->has_door(id), "it is still there");
        door.closed = true;
        break;
    }
    if (door.closing && event.kind != EventKind::closed) throw Broken{"an event while closing"};
    if (event.kind == EventKind::granted || event.kind == EventKind::renewed ||
        event.kind == EventKind::changed) {
      if (!told || told->deadline != event.grant->deadline) fresh = now();
      told = event.grant;
    } else {
      told.reset();
    }
    if (keep_events) door.events.push_back(std::move(event));
  }

 public:
  bool keep_events = false;

 private:
  nat::NetworkView view_;
  Disk disk_;
  std::unique_ptr<nat::MemoryPlane> plane_;
  std::unique_ptr<MemoryStore> store_;
  std::unique_ptr<daemon::Port5351> port5351_;
  std::unique_ptr<upnp::ssdp::Server> ssdp_;
  std::unique_ptr<upnp::igd::Server> igd_;
  std::uint32_t boot_id_ = 0;
  unsigned gena_ = 0;
  int external_number_ = 0, host_number_ = 0;
  TimePoint asleep_until_{};
  std::vector<std::uint64_t> failed_asleep_;
  DoorId last_door_ = 0;
  std::multimap<TimePoint, std::function<void()>> pending_;
};

}  // namespace sallyport::test
