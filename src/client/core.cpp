#include "src/client/core.hpp"

#include <algorithm>
#include <cstring>

#include <boost/uuid/name_generator_sha1.hpp>
#include <boost/uuid/uuid.hpp>

#include "protocols/natpmp/client.hpp"
#include "protocols/natpmp/codec.hpp"
#include "protocols/pcp/client.hpp"
#include "protocols/pcp/codec.hpp"
#include "protocols/upnp/igd/control_point.hpp"
#include "protocols/upnp/igd/pinhole_client.hpp"
#include "protocols/upnp/igd/port_mapping_client.hpp"
#include "protocols/upnp/ssdp/search.hpp"
#include "sallyport/values/printable.hpp"
#include "src/client/words.hpp"

namespace sallyport::client {
namespace {

using namespace std::chrono_literals;
using std::chrono::nanoseconds;
using wire::MappingEvent;
using wire::MappingFailure;

// How long a better protocol may be silent before a lesser one asks for the mapping too.
constexpr nanoseconds unknown_grace = 15ms;  // nobody knows whether it is spoken at all
constexpr nanoseconds known_grace = 300ms;   // it was spoken before
constexpr nanoseconds device_grace = 30ms;   // from when the description was there
constexpr nanoseconds slot_time = 300ms;     // an unanswered first question keeps others waiting no longer

// Questions in flight at one gateway while ports are being opened: a small gateway drops what comes in a
// heap.
constexpr unsigned pcp_slots = 16;
constexpr unsigned natpmp_slots = 1;  // NPM-3.1-01
constexpr unsigned upnp_slots = 4;
constexpr std::size_t most_woken = 32;  // in vain, of those that wait, when a slot is free

constexpr nanoseconds refusal_after = 250ms;  // all that answered have refused, and nobody else has answered
constexpr nanoseconds silence_after = 2800ms;
constexpr nanoseconds slow_after = 8s;  // somebody has answered a search, and takes his time over the rest
constexpr nanoseconds busy_for =
    1s;  // a gateway that has just answered others has not been silent to who waits

constexpr nanoseconds search_gaps[] = {200ms, 500ms, 1s};
constexpr nanoseconds search_again = 60s;
constexpr unsigned search_mx_s = 1;
constexpr nanoseconds first_rediscovery = 2s, longest_rediscovery = 10min;
constexpr nanoseconds announcement_spread = 5s;  // PCP-14.1-07, NPM-3.7-03
constexpr nanoseconds restart_spread = 500ms;
constexpr nanoseconds upgrade_every = 1h;
constexpr nanoseconds ignore_location = 30s;
constexpr nanoseconds late_time = 5s;  // for the answer of somebody who had been silent
constexpr std::size_t most_late = 64;
// The external address is read again: no gateway of UPnP announces another one, and an announcement may be
// missed.
constexpr nanoseconds address_age = 1min;    // when it has just answered something else
constexpr nanoseconds address_again = 2min;  // in any case, while it holds something

constexpr std::size_t max_servers = 16;
constexpr std::size_t max_devices = 16;
constexpr std::size_t max_description = 255;

Errc to_errc(MappingFailure failure) noexcept {
  switch (failure) {
    case MappingFailure::unsupported:
      return Errc::not_possible;
    case MappingFailure::no_answer:
      return Errc::no_answer;
    case MappingFailure::not_authorized:
      return Errc::not_authorized;
    case MappingFailure::no_resources:
      return Errc::no_resources;
    case MappingFailure::port_taken:
      return Errc::port_taken;
    case MappingFailure::no_external_address:
      return Errc::no_external_address;
    case MappingFailure::address_mismatch:
      return Errc::behind_other_nat;
    case MappingFailure::not_possible:
      return Errc::not_possible;
    case MappingFailure::nonsense:
      return Errc::nonsense;
  }
  return Errc::nonsense;
}

/// What says most about why there is no mapping, when several say different things.
unsigned weight(MappingFailure failure) noexcept {
  switch (failure) {
    case MappingFailure::not_authorized:
      return 8;
    case MappingFailure::port_taken:
      return 7;
    case MappingFailure::no_resources:
      return 6;
    case MappingFailure::no_external_address:
      return 5;
    case MappingFailure::address_mismatch:
      return 4;
    case MappingFailure::not_possible:
      return 3;
    case MappingFailure::nonsense:
      return 2;
    case MappingFailure::unsupported:
      return 1;
    case MappingFailure::no_answer:
      return 0;
  }
  return 0;
}

std::string key_of(std::uint64_t server, char kind, std::span<const std::byte> rest) {
  std::string key(sizeof server + 1 + rest.size(), kind);
  std::memcpy(key.data(), &server, sizeof server);
  std::memcpy(key.data() + sizeof server + 1, rest.data(), rest.size());
  return key;
}

/// Of a MAP message with its header, request or response; empty when it is too short for one.
std::span<const std::byte> nonce_in(std::span<const std::byte> datagram) {
  constexpr std::size_t end = pcp::header_size + std::tuple_size_v<Nonce>;
  return datagram.size() < end ? std::span<const std::byte>{}
                               : datagram.subspan(pcp::header_size, std::tuple_size_v<Nonce>);
}

std::array<std::byte, 3> natpmp_name(Transport transport, std::uint16_t internal_port) {
  return {static_cast<std::byte>(transport), static_cast<std::byte>(internal_port >> 8),
          static_cast<std::byte>(internal_port & 0xff)};
}

bool is_on_link(const std::vector<Prefix>& own, const Address& address) {
  return std::any_of(own.begin(), own.end(),
                     [&](const Prefix& each) { return each.length < 128 && each.contains(address); });
}

bool is_root(const upnp::ssdp::Sighting& sighting) noexcept {
  return sighting.type.starts_with("urn:schemas-upnp-org:device:InternetGatewayDevice:");
}

using upnp::ssdp::is_link_local;

}  // namespace

/// Port 5351 of one gateway, as this host reaches it from one of its addresses.
struct Core::Server {
  enum class Speaks : std::uint8_t { unknown, yes, no };

  std::uint64_t id = 0;
  std::uint32_t interface = 0;
  std::string interface_name;
  Address address, local;
  Family family = Family::ipv4;

  Speaks pcp = Speaks::unknown, natpmp = Speaks::unknown;
  pcp::EpochWatch pcp_epoch;
  natpmp::EpochWatch natpmp_epoch;
  std::optional<std::uint32_t> epoch_s;
  std::optional<natpmp::AddressClient> asks_address;
  std::optional<Address> external;
  TimePoint natpmp_since{}, address_read{};
  std::optional<TimePoint> upgraded_at;  ///< when PCP was last tried again beside a lesser grant
  unsigned pcp_in_flight = 0, natpmp_in_flight = 0;

  Speaks speaks(Protocol protocol) const { return protocol == Protocol::pcp ? pcp : natpmp; }
  unsigned& in_flight(Protocol protocol) {
    return protocol == Protocol::pcp ? pcp_in_flight : natpmp_in_flight;
  }
};

/// A root device of UPnP.
struct Core::Device {
  std::uint64_t id = 0;
  std::uint32_t interface = 0;
  std::string interface_name;
  std::string location;
  Address host;
  std::string uuid;       ///< of whatever was seen first
  std::string root_uuid;  ///< empty until the root device itself was seen
  std::optional<std::uint32_t> boot_id;
  std::optional<TimePoint> address_at;  ///< ask for the external address again
  std::unique_ptr<upnp::igd::ControlPoint> point;
  std::optional<TimePoint> ready_since;
  TimePoint address_read{};  ///< when the external address was last asked for
  unsigned in_flight = 0;
  bool restarted = false;

  bool is_learning() const { return point->state() == upnp::igd::ControlPoint::State::learning; }
  bool is_ready() const { return point->state() == upnp::igd::ControlPoint::State::ready; }
  /// True when both are one box, found by two of its addresses.
  bool is_same(const Device& other) const {
    const auto& udn = point->description().udn;
    return !udn.empty() && udn == other.point->description().udn;
  }
};

/// One door at one gateway by one protocol.
struct Core::Attempt {
  enum class State : std::uint8_t { asking, granted, refused, leaving };

  std::uint64_t id = 0;
  std::uint64_t place = 0;  ///< server or device
  Protocol protocol = Protocol::pcp;
  std::unique_ptr<wire::MappingClient> client;
  wire::DatagramMappingClient* datagrams = nullptr;  ///< the client, if it is one of these
  upnp::igd::ServiceClient* service = nullptr;       ///< or of these
  std::string key;
  Address local, gateway;
  std::string interface_name;

  State state = State::asking;
  bool sent = false;
  bool silent = false;  ///< asking, and told so far only that nobody answers
  bool slot = false;
  bool to_release = false;  ///< leaving, and still waiting for a slot to say so
  TimePoint begun{};
  std::optional<wire::Granted> granted;
  MappingFailure failure{};
  unsigned code = 0;
  std::optional<TimePoint> retry_at, refresh_at;
  std::optional<Port> asked_port;  ///< of UPnP: the external one that is asked for first
  bool gateway_restarted = false;  ///< what ends now is lost, not revoked
  bool shadows_current = false;    ///< its end may take the mapping of the current one along
};

/// What a door has in one family.
struct Core::Side {
  Family family = Family::ipv4;
  bool wanted = false;
  std::vector<std::unique_ptr<Attempt>> attempts;
  Attempt* current = nullptr;
  std::optional<Grant> grant;  ///< as told
  TimePoint begun{};           ///< when it was first without a grant
  bool settled = false;        ///< told whether it can be had
  Errc told_reason{};
  std::optional<TimePoint> look_at;  ///< plan and settle again

  void look_again(TimePoint at) {
    if (!look_at || at < *look_at) look_at = at;
  }
};

struct Core::Door {
  Door(DoorId given, PortRequest wanted) : id{given}, request{std::move(wanted)} {}

  DoorId id;
  PortRequest request;
  std::optional<ExternalEndpoint> last;
  std::array<Side, 2> sides;
  bool closing = false;
  std::uint64_t nonce_seed = 0;
  std::optional<Deadlines::iterator> deadline;
  bool waits_for_slot = false;
  TimePoint turn_at{};  ///< when it last came to its turn, after others
};

Core::Core(Options options) : options_{std::move(options)}, jitter_{options_.seed} {}
Core::~Core() = default;

Nonce Core::nonce_of(const Door& door, const Side& side, const Server& server) {
  boost::uuids::uuid space{};
  std::string name;
  if (options_.secret) {
    std::memcpy(space.data, options_.secret->data(), options_.secret->size());
  } else {
    std::memcpy(space.data, &door.nonce_seed, sizeof door.nonce_seed);
    name = std::to_string(options_.seed) + ' ';
  }
  name += std::string{to_string(door.request.transport)} + ' ' +
          std::to_string(door.request.internal_port.number()) + ' ' + std::string{to_string(side.family)};
  // may be one of the routers, and must not end what that one granted
  if (pcp::is_anycast(server.address)) name += " anycast";
  const auto id = boost::uuids::name_generator_sha1{space}(name);
  Nonce nonce;  // without the octets that carry the version and the variant
  std::memcpy(nonce.data(), id.data, 6);
  std::memcpy(nonce.data() + 6, id.data + 10, 6);
  return nonce;
}

// --- where gateways are ---

void Core::set_network(Network network, TimePoint now) {
  if (network == network_) return;
  network_ = std::move(network);
  std::vector<std::uint64_t> gone;
  for (const auto& [id, server] : servers_) {
    const auto* here = network_.find(server->interface);
    const bool any_router = !options_.gateways.empty() || pcp::is_anycast(server->address);
    if (!here || !here->has(server->family, server->local) ||
        (!any_router && std::ranges::count(here->routers(server->family), server->address) == 0))
      gone.push_back(id);
  }
  for (const auto& [id, device] : devices_) {
    const auto* here = network_.find(device->interface);
    if (!here || (!is_link_local(device->host) && !is_on_link(here->ipv4, device->host) &&
                  !is_on_link(here->ipv6, device->host) && options_.gateways.empty()))
      gone.push_back(id);
  }
  for (const auto id : gone) forget_place(id, Errc::network_changed, now);
  // an address of ours that went makes mappings for it worthless, wherever they are
  for (auto& [id, door] : doors_)
    for (auto& side : door->sides)
      for (auto& attempt : side.attempts) {
        const bool there =
            std::any_of(network_.interfaces.begin(), network_.interfaces.end(),
                        [&](const auto& each) { return each.has(side.family, attempt->local); });
        if (there || attempt->local.is_unspecified()) continue;
        if (side.current == attempt.get()) take_end(*door, side, *attempt, false, Errc::network_changed, now);
        forget(*attempt);  // nothing can be given back from here
      }
  if (!doors_.empty() || discovering_) {
    add_servers(now);
    begin_search(now);
    for (auto& [id, door] : doors_)
      for (auto& side : door->sides)
        if (!side.grant) {
          side.settled = false;
          side.begun = now;
        } else if (side.current && side.current->client) {
          side.current->refresh_at =
              now + jitter_.between(0ns, 100ms);  // a link that was down may be another network
        }
  }
  rediscover_after_ = first_rediscovery;
  touch_all(now);
}

void Core::forget_place(std::uint64_t place, Errc why, TimePoint now) {
  for (auto& [id, door] : doors_)
    for (auto& side : door->sides)
      for (auto& attempt : side.attempts) {
        if (attempt->place != place) continue;
        if (side.current == attempt.get()) take_end(*door, side, *attempt, false, why, now);
        forget(*attempt);
      }
  servers_.erase(place);
  devices_.erase(place);
}

void Core::add_server(const Network::Interface& interface, const Address& address, const Address& local,
                      TimePoint now) {
  if (servers_.size() >= max_servers) return;
  for (const auto& [id, server] : servers_)
    if (server->address == address && server->interface == interface.index) return;
  auto server = std::make_unique<Server>();
  server->id = next_id_++;
  server->interface = interface.index;
  server->interface_name = interface.name;
  server->address = address;
  server->local = local;
  server->family = family_of(address);
  if (!options_.pcp) server->pcp = Server::Speaks::no;
  if (!may_speak_natpmp(*server)) server->natpmp = Server::Speaks::no;
  ask_address(*server, now);
  servers_.emplace(server->id, std::move(server));
}

bool Core::may_speak_natpmp(const Server& server) const {
  return options_.natpmp && server.family == Family::ipv4 && !pcp::is_anycast(server.address);
}

/// A provider's server that is none of the routers here (RFC 7723): asked once these have been (ANY-3-01).
void Core::add_anycast(TimePoint now) {
  if (!options_.pcp || !options_.gateways.empty() ||
      std::any_of(servers_.begin(), servers_.end(),
                  [](const auto& each) { return each.second->pcp == Server::Speaks::yes; }))
    return;
  for (const auto& each : network_.interfaces) {
    if (!each.ipv4.empty() && !each.routers4.empty())
      add_server(each, pcp::anycast_v4, each.ipv4.front().address, now);
    if (!each.ipv6.empty() && !each.routers6.empty())
      add_server(each, pcp::anycast_v6, each.ipv6.front().address, now);
  }
}

void Core::add_servers(TimePoint now) {
  if (!options_.pcp && !options_.natpmp) return;
  if (!options_.gateways.empty()) {
    for (const auto& gateway : options_.gateways) {
      const Network::Interface* best = nullptr;
      for (const auto& each : network_.interfaces) {
        const auto& own = each.own(family_of(gateway));
        if (own.empty()) continue;
        if (!best) best = &each;
        if (is_on_link(own, gateway)) {
          best = &each;
          break;
        }
      }
      if (best) add_server(*best, gateway, nearest(best->own(family_of(gateway)), gateway), now);
    }
    return;
  }
  for (const auto& each : network_.interfaces) {
    if (!each.ipv4.empty())
      for (const auto& router : each.routers4) add_server(each, router, nearest(each.ipv4, router), now);
    if (options_.pcp && !each.ipv6.empty())
      for (const auto& router : each.routers6) add_server(each, router, each.ipv6.front().address, now);
  }
}

void Core::ask_address(Server& server, TimePoint now) {
  if (server.natpmp == Server::Speaks::no || server.asks_address) return;
  server.asks_address.emplace(now);
  drain(server, now);
}

/// An announcement of another one may not have been heard.
void Core::read_address_again(Server& server, TimePoint now) {
  if (!server.asks_address || !server.external || now < server.address_read + address_age) return;
  server.asks_address->refresh(now);
  drain(server, now);
}

void Core::drain(Server& server, TimePoint now) {
  if (!server.asks_address) return;
  auto& asks = *server.asks_address;
  while (auto bytes = asks.poll_transmit())
    out_.push_back(
        {server.id, server.interface, server.local, server.address, natpmp::server_port, std::move(*bytes)});
  using State = natpmp::AddressClient::Result::State;
  const auto& result = asks.result();
  if (result.state == State::address ||
      (result.state == State::failure && result.failure != MappingFailure::unsupported)) {
    if (server.natpmp != Server::Speaks::yes) {
      server.natpmp = Server::Speaks::yes;
      server.natpmp_since = now;
    }
    server.address_read = now;
    const auto external = result.state == State::address ? result.address : Address::v4(0);
    if (server.external != external) {
      server.external = external;
      for (auto& [id, device] : devices_)
        if (device->host == server.address && holds(id)) device->address_at = now;
      for (auto& [id, door] : doors_)
        for (auto& attempt : door->sides[0].attempts)
          if (attempt->place == server.id && attempt->protocol == Protocol::natpmp && attempt->client)
            static_cast<natpmp::MappingClient&>(*attempt->client).set_external_address(external);
    }
  } else if (result.state == State::failure) {
    server.natpmp = Server::Speaks::no;
    server.asks_address.reset();
  }
}

void Core::begin_search(TimePoint now) {
  if (!options_.upnp) return;
  searched_ = true;
  search_begun_ = now;
  searches_left_ = std::size(search_gaps);
  send_search(now);
}

void Core::send_search(TimePoint now) {
  const bool first = searches_left_ == std::size(search_gaps);
  // devices answer each, and drop what comes too often: only the first round asks for everything
  const std::span<const std::string_view> everything{upnp::ssdp::gateway_targets};
  const auto few = everything.first(2);
  const auto ask = [&](const Network::Interface& interface, const Address& local, const Address& to,
                       std::span<const std::string_view> targets) {
    for (const auto target : targets)
      out_.push_back({0, interface.index, local, to, upnp::ssdp::port,
                      upnp::ssdp::encode_search(target, search_mx_s, to)});
  };
  for (const auto& each : network_.interfaces) {
    if (!each.ipv4.empty())
      ask(each, each.ipv4.front().address, upnp::ssdp::group_v4, first ? everything : few);
    if (!each.ipv6.empty()) ask(each, Address{}, upnp::ssdp::group_link(), first ? everything : few);
    // a device lets some of MX pass before it answers a group, and answers at once who asks it alone
    // (UDA-1.3-05)
    if (first && options_.gateways.empty() && !each.ipv4.empty())
      for (const auto& router : each.routers4) ask(each, each.ipv4.front().address, router, few);
    for (const auto& gateway : options_.gateways)
      if (const auto& own = each.own(family_of(gateway)); is_on_link(own, gateway))
        ask(each, own.front().address, gateway, first ? everything : few);
  }
  if (searches_left_ > 0) {
    search_at_ = now + search_gaps[std::size(search_gaps) - searches_left_];
    --searches_left_;
  } else {
    search_at_.reset();
  }
}

void Core::discover(TimePoint now) {
  discovering_ = true;
  discover_begun_ = now;
  add_servers(now);
  begin_search(now);
  for (auto& [id, server] : servers_) {
    if (options_.pcp)
      out_.push_back({server->id, server->interface, server->local, server->address, pcp::server_port,
                      pcp::encode_announce_request(server->local)});
    if (server->natpmp == Server::Speaks::no && may_speak_natpmp(*server)) {
      server->natpmp = Server::Speaks::unknown;
      ask_address(*server, now);
    }
  }
}

bool Core::has_network(Family family) const {
  return std::any_of(network_.interfaces.begin(), network_.interfaces.end(),
                     [&](const auto& each) { return !each.own(family).empty(); });
}

std::vector<Core::Refusal> Core::refusals(DoorId id, Family family) const {
  std::vector<Refusal> all;
  const auto door = doors_.find(id);
  if (door == doors_.end()) return all;
  for (const auto& attempt : door->second->sides[static_cast<std::size_t>(family)].attempts) {
    const auto server = servers_.find(attempt->place);
    const bool speaks =
        server == servers_.end() || server->second->speaks(attempt->protocol) == Server::Speaks::yes;
    if (attempt->state == Attempt::State::refused || (attempt->silent && speaks))
      all.push_back({attempt->protocol, attempt->failure, attempt->code});
  }
  for (const auto& [_, device] : devices_)  // a gateway by its name only: it has nothing that could be asked
    if (device->is_ready() &&
        (family == Family::ipv4 ? !device->point->connection() : !device->point->description().firewall6))
      all.push_back({Protocol::upnp, MappingFailure::unsupported, 0});
  return all;
}

bool Core::discovered(TimePoint now) const {
  if (now < discover_begun_ + 1200ms) return false;  // MX 1 gives a device as much time
  if (now >= discover_begun_ + 2s) return true;
  return std::none_of(devices_.begin(), devices_.end(), [](const auto& each) {
    return each.second->is_learning() || (each.second->is_ready() && each.second->point->connection() &&
                                          !each.second->point->address_asked());
  });
}

/// Whoever said no may say something else by now, as long as a door has nothing.
void Core::rediscover(TimePoint now) {
  for (auto& [id, server] : servers_) {
    if (server->pcp == Server::Speaks::no && options_.pcp) server->pcp = Server::Speaks::unknown;
    if (server->natpmp == Server::Speaks::no && may_speak_natpmp(*server)) {
      server->natpmp = Server::Speaks::unknown;
      server->asks_address.reset();
    }
    ask_address(*server, now);
  }
  add_servers(now);
  add_anycast(now);
  begin_search(now);
}

// --- what comes in ---

/// Whether something is granted there.
bool Core::holds(std::uint64_t place, std::optional<Protocol> by) const {
  return std::any_of(doors_.begin(), doors_.end(), [&](const auto& each) {
    return std::any_of(each.second->sides.begin(), each.second->sides.end(), [&](const Side& side) {
      return std::any_of(side.attempts.begin(), side.attempts.end(), [&](const auto& attempt) {
        return attempt->place == place && (!by || attempt->protocol == *by) &&
               attempt->state == Attempt::State::granted;
      });
    });
  });
}

void Core::no_pcp(Server& server) {
  // it spoke PCP a moment ago: what it holds is not given up for one answer
  if (server.pcp == Server::Speaks::yes && holds(server.id, Protocol::pcp)) return;
  server.pcp = Server::Speaks::no;
  for (auto& [id, door] : doors_)
    for (auto& side : door->sides)
      for (auto& attempt : side.attempts)
        if (attempt->place == server.id && attempt->protocol == Protocol::pcp &&
            (attempt->state == Attempt::State::asking || attempt->state == Attempt::State::leaving) &&
            side.current != attempt.get())
          forget(*attempt);
}

void Core::restarted(std::uint64_t place, Protocol protocol, nanoseconds spread, TimePoint now) {
  for (auto& [id, door] : doors_)
    for (auto& side : door->sides)
      for (auto& attempt : side.attempts) {
        if (attempt->place != place || attempt->protocol != protocol || !attempt->client) continue;
        if (attempt->state == Attempt::State::leaving) {
          // a new run of a gateway may have given the number of this pinhole to another
          if (protocol == Protocol::upnp && side.family == Family::ipv6) attempt->client = nullptr;
          continue;
        }
        attempt->gateway_restarted = true;
        const auto at = now + jitter_.between(0ns, spread);
        if (!attempt->refresh_at || *attempt->refresh_at > at) attempt->refresh_at = at;
      }
  rediscover_after_ = first_rediscovery;
  touch_all(now);
}

void Core::handle_server_datagram(std::uint64_t id, std::span<const std::byte> datagram, TimePoint now) {
  const auto found = servers_.find(id);
  if (found == servers_.end() || datagram.size() < 4) return;
  auto& server = *found->second;
  const auto version = std::to_integer<std::uint8_t>(datagram[0]);
  bool epoch_says_lost = false;
  auto protocol = Protocol::pcp;
  std::string key;

  if (version == pcp::version) {
    const auto header = pcp::decode_response_header(datagram);
    if (!header) return;
    if (header->result == pcp::ResultCode::unsupp_version) {
      // It speaks the version that it names: this is about a request of NAT-PMP (PCP-9-01), unless it repeats
      // what PCP asked.
      if (const auto nonce = nonce_in(datagram); !nonce.empty() && by_key_.contains(key_of(id, 'P', nonce)))
        no_pcp(server);
      else if (server.asks_address && server.asks_address->handle_datagram(datagram, now))
        drain(server, now);
      return touch_all(now);
    }
    server.pcp = Server::Speaks::yes;
    server.epoch_s = header->epoch_s;
    epoch_says_lost = server.pcp_epoch.lost_state(header->epoch_s, now);
    if (const auto nonce = nonce_in(datagram); !nonce.empty()) key = key_of(id, 'P', nonce);
  } else if (version == natpmp::version) {
    const auto response = natpmp::decode_response(datagram);
    const bool to_pcp =
        (std::to_integer<unsigned>(datagram[2]) << 8 | std::to_integer<unsigned>(datagram[3])) ==
        static_cast<unsigned>(natpmp::ResultCode::unsupported_version);
    if (to_pcp) {  // nothing that was sent with version 0 deserves this: it is about a PCP request (PCP-9-08,
                   // PCP-9-10)
      no_pcp(server);
      return touch_all(now);
    }
    if (!response) return;
    protocol = Protocol::natpmp;
    if (const auto* address = std::get_if<natpmp::AddressResponse>(&*response)) {
      server.epoch_s = address->epoch_s;
      epoch_says_lost = server.natpmp_epoch.lost_state(address->epoch_s, now);
      if (server.asks_address) {
        server.asks_address->handle_datagram(datagram, now);
        drain(server, now);
      }
      touch_all(now);
    } else if (const auto* map = std::get_if<natpmp::MapResponse>(&*response)) {
      if (map->result == natpmp::ResultCode::success) {
        server.epoch_s = map->epoch_s;
        epoch_says_lost = server.natpmp_epoch.lost_state(map->epoch_s, now);
      }
      key = key_of(id, 'N', natpmp_name(map->transport, map->internal_port));
    }
  } else {
    const bool refuses = datagram[3] == static_cast<std::byte>(pcp::ResultCode::unsupp_version) &&
                         (datagram[1] & std::byte{128}) != std::byte{0};
    if (!refuses) return;
    if (server.asks_address && server.asks_address->handle_datagram(datagram, now))
      drain(server, now);
    else
      no_pcp(server);
    return touch_all(now);
  }

  if (!key.empty() && !by_key_.contains(key)) handle_late(server, key, datagram, now);
  if (const auto about = by_key_.find(key); !key.empty() && about != by_key_.end()) {
    const auto door = doors_.find(about->second.first);
    if (door != doors_.end())
      for (auto& side : door->second->sides)
        for (auto& attempt : side.attempts)
          if (attempt->id == about->second.second && attempt->datagrams && attempt->client) {
            // the answer itself may be the news of the restart, and then it is fresh already
            attempt->datagrams->handle_datagram(datagram, now);
            touch(*door->second, now);
            if (epoch_says_lost) restarted(id, protocol, restart_spread, now);
            return;
          }
  }
  if (epoch_says_lost) restarted(id, protocol, restart_spread, now);
}

void Core::handle_server_unreachable(std::uint64_t id, TimePoint now) {
  const auto found = servers_.find(id);
  if (found == servers_.end()) return;
  auto& server = *found->second;
  no_pcp(server);
  if (server.asks_address && server.natpmp != Server::Speaks::yes) {
    server.asks_address->handle_unreachable(now);
    drain(server, now);
  }
  for (auto& [door_id, door] : doors_)
    for (auto& side : door->sides)
      for (auto& attempt : side.attempts)
        if (attempt->place == id && attempt->client && attempt->datagrams &&
            attempt->state == Attempt::State::leaving)
          attempt->client = nullptr;  // nobody is there to be told
  touch_all(now);
}

void Core::handle_sighting(std::span<const std::byte> datagram, const Address& from, std::uint32_t interface,
                           TimePoint now) {
  if (!options_.upnp || (doors_.empty() && !discovering_)) return;
  const auto sighting = upnp::ssdp::decode_sighting(datagram);
  if (!sighting || !upnp::ssdp::is_of_gateway(*sighting)) return;
  const auto* here = network_.find(interface);
  if (!here) return;
  if (!is_link_local(from) && !is_on_link(here->ipv4, from) && !is_on_link(here->ipv6, from)) return;
  if (!options_.gateways.empty() &&
      std::find(options_.gateways.begin(), options_.gateways.end(), from) == options_.gateways.end())
    return;

  using Kind = upnp::ssdp::Sighting::Kind;
  if (sighting->kind == Kind::byebye) {
    // it is going, or coming back: what it holds shows when it is asked
    for (auto& [id, device] : devices_)
      if (device->host == from && device->interface == interface) device->restarted = true;
    return;
  }
  const auto location = upnp::ssdp::trusted_location(*sighting, from);
  if (!location) return;
  for (auto& [id, device] : devices_) {
    if (device->interface != interface || device->point->location() != *location) continue;
    const auto boot =
        sighting->kind == Kind::update && sighting->next_boot_id ? sighting->next_boot_id : sighting->boot_id;
    bool another_boot = boot && device->boot_id && *boot != *device->boot_id;
    if (is_root(*sighting) && !sighting->uuid.empty() && sighting->uuid != device->root_uuid) {
      another_boot = another_boot || !device->root_uuid.empty();  // it has forgotten its name too
      device->root_uuid = sighting->uuid;
    }
    if (boot) device->boot_id = boot;
    if (sighting->kind == Kind::update) return;  // still the same run of the device (UDA 1.2.4)
    if (another_boot || (device->restarted && sighting->kind == Kind::alive)) {
      device->restarted = false;
      read_address(*device, now);
      restarted(id, Protocol::upnp, restart_spread, now);
    }
    return;
  }
  const auto name = std::to_string(interface) + ' ' + sighting->location;
  if (const auto bad = ignored_.find(name); bad != ignored_.end()) {
    if (now < bad->second) return;
    ignored_.erase(bad);
  }
  // the same device by another family or path: one way to it is enough
  for (const auto& [id, device] : devices_)
    if (!sighting->uuid.empty() && device->uuid == sighting->uuid && device->interface == interface &&
        device->host.is_v4() == from.is_v4() && !device->is_learning() && device->is_ready())
      return;
  if (devices_.size() >= max_devices) return;
  auto device = std::make_unique<Device>();
  device->id = next_id_++;
  device->interface = interface;
  device->interface_name = here->name;
  device->location = name;
  device->host = from;
  device->uuid = sighting->uuid;
  if (is_root(*sighting)) device->root_uuid = sighting->uuid;
  device->boot_id = sighting->boot_id;
  device->point = std::make_unique<upnp::igd::ControlPoint>(*location, interface, jitter_.next(), now);
  drain(*device, now);
  devices_.emplace(device->id, std::move(device));
}

void Core::read_address(Device& device, TimePoint now) {
  device.address_read = now;
  device.point->refresh_address(now);
  drain(device, now);
}

void Core::drain(Device& device, TimePoint now) {
  while (auto ask = device.point->poll_ask()) {
    const auto id = next_id_++;
    asked_.emplace(id, Asked{device.id, ask->id, 0, 0});
    asks_.push_back({id, std::move(ask->ask)});
  }
  if (!device.is_ready()) return;
  if (!device.ready_since) device.ready_since = device.address_read = now;
  if (!device.address_at) device.address_at = now + address_again;
  if (const auto external = device.point->external_address(); external && device.point->address_asked())
    for (auto& [id, door] : doors_)
      for (auto& attempt : door->sides[0].attempts)
        if (attempt->place == device.id && attempt->client)
          static_cast<upnp::igd::PortMappingClient&>(*attempt->client).set_external_address(*external);
}

void Core::handle_announcement(std::span<const std::byte> datagram, const Address& from,
                               std::uint32_t interface, TimePoint now) {
  if (datagram.size() < 4) return;
  for (auto& [id, server] : servers_) {
    if (server->address != from || server->interface != interface) continue;
    if (const auto epoch = pcp::announced_epoch(datagram); epoch && !options_.pcp) {
      // the gateway has news, and its answer by NAT-PMP has the epoch too
      if (server->asks_address) server->asks_address->refresh(now);
      return drain(*server, now);
    } else if (epoch) {
      server->epoch_s = *epoch;
      if (server->pcp_epoch.lost_state(*epoch, now)) restarted(id, Protocol::pcp, announcement_spread, now);
      if (server->pcp != Server::Speaks::yes) {
        server->pcp = Server::Speaks::yes;
        touch_all(now);
      }
      return;
    }
    if (const auto told = natpmp::announcement(datagram); told && options_.natpmp) {
      server->epoch_s = told->epoch_s;
      const bool lost = server->natpmp_epoch.lost_state(told->epoch_s, now);
      if (!server->asks_address) {
        server->natpmp = Server::Speaks::unknown;
        ask_address(*server, now);
      }
      server->asks_address->refresh(now);  // whose question this answers
      server->asks_address->handle_datagram(datagram, now);
      drain(*server, now);
      if (lost) restarted(id, Protocol::natpmp, announcement_spread, now);
      touch_all(now);
      return;
    }
  }
}

void Core::handle_reply(std::uint64_t ask, const Result<upnp::http::Reply>& reply, TimePoint now) {
  const auto found = asked_.find(ask);
  if (found == asked_.end()) return;
  const auto asked = found->second;
  asked_.erase(found);
  if (asked.attempt == 0) {
    const auto device = devices_.find(asked.place);
    if (device == devices_.end()) return;
    device->second->point->handle_reply(asked.inner, reply, now);
    drain(*device->second, now);
    if (device->second->point->state() == upnp::igd::ControlPoint::State::failed &&
        !device->second->ready_since) {
      if (ignored_.size() >= 64) ignored_.clear();
      ignored_[device->second->location] = now + ignore_location;
      forget_place(asked.place, Errc::no_answer, now);
    }
    return touch_all(now);
  }
  const auto door = doors_.find(asked.door);
  if (door == doors_.end()) return;
  if (reply && (reply->status == 404 || reply->status == 410) && holds(asked.place)) {
    // A restart gave its services other URLs: it is learned anew, as a gateway that holds nothing.
    forget_place(asked.place, Errc::no_answer, now);
    begin_search(now);
    return touch_all(now);
  }
  for (auto& side : door->second->sides)
    for (auto& attempt : side.attempts)
      if (attempt->id == asked.attempt && attempt->service && attempt->client) {
        attempt->service->handle_reply(asked.inner, reply, now);
        if (const auto device = devices_.find(asked.place);
            reply && device != devices_.end() &&
            now >= device->second->address_read +
                       (device->second->point->external_address() ? address_age : first_rediscovery))
          read_address(*device->second, now);
        return touch(*door->second, now);
      }
}

void Core::handle_timeout(TimePoint now) {
  if (search_at_ && *search_at_ <= now) send_search(now);
  bool look = false;
  for (auto& [id, server] : servers_)
    if (server->asks_address) {
      const auto due = server->asks_address->next_deadline();
      if (!due || *due > now) continue;
      server->asks_address->handle_timeout(now);
      const auto spoke = server->natpmp;
      drain(*server, now);
      look = look || spoke != server->natpmp;
    }
  for (auto& [id, device] : devices_) {
    if (device->address_at && *device->address_at <= now) {
      device->address_at = now + address_again;
      if (holds(id)) read_address(*device, now);
    }
    if (const auto due = device->point->next_deadline(); due && *due <= now) {
      device->point->handle_timeout(now);
      drain(*device, now);
    }
  }
  if (rediscover_at_ && *rediscover_at_ <= now) {
    rediscover_at_.reset();
    const bool wanting = std::any_of(doors_.begin(), doors_.end(), [this](const auto& each) {
      return !each.second->closing &&
             std::any_of(each.second->sides.begin(), each.second->sides.end(), [this](const Side& side) {
               return side.wanted && !side.grant && has_network(side.family);
             });
    });
    if (wanting) {
      rediscover_after_ = std::min(rediscover_after_ * 2, longest_rediscovery);
      rediscover(now);
      look = true;
    }
  }
  if (look) return touch_all(now);
  while (!deadlines_.empty() && deadlines_.begin()->first <= now) {
    const auto found = doors_.find(deadlines_.begin()->second);
    touch(*found->second, now);
  }
}

// --- doors ---

void Core::open(DoorId id, PortRequest request, std::optional<ExternalEndpoint> last, TimePoint now) {
  request.description.resize(cut(request.description, max_description).size());
  auto door = std::make_unique<Door>(id, std::move(request));
  door->last = last;
  door->nonce_seed = jitter_.next();
  door->sides[0].family = Family::ipv4;
  door->sides[0].wanted = door->request.ipv4;
  door->sides[1].family = Family::ipv6;
  door->sides[1].wanted = door->request.ipv6;
  for (auto& side : door->sides) side.begun = now;
  auto& added = *doors_.emplace(id, std::move(door)).first->second;

  add_servers(now);
  for (auto& [server_id, server] : servers_) read_address_again(*server, now);
  const bool someone =
      std::any_of(devices_.begin(), devices_.end(), [](const auto& each) { return each.second->is_ready(); });
  if (!searched_ || (!someone && now >= search_begun_ + 3s) || now >= search_begun_ + search_again)
    begin_search(now);
  if (!rediscover_at_) rediscover_after_ = first_rediscovery;
  touch(added, now);
}

void Core::close(DoorId id, bool leave_lease, TimePoint now) {
  const auto found = doors_.find(id);
  if (found == doors_.end() || found->second->closing) return;
  auto& door = *found->second;
  door.closing = true;
  ++closing_[{door.request.transport, door.request.internal_port}];
  for (auto& side : door.sides) {
    side.current = nullptr;
    for (auto& attempt : side.attempts) {
      if (leave_lease)
        forget(*attempt);
      else
        let_go(side, *attempt, now);
    }
  }
  touch(door, now);
}

void Core::hurry(TimePoint now) {
  hurried_ = true;
  touch_all(now);  // those that wait for their turn
}

bool Core::waits_to_close(DoorId id) const {
  const auto door = doors_.find(id);
  if (door == doors_.end()) return false;
  return std::any_of(door->second->sides.begin(), door->second->sides.end(), [](const Side& side) {
    return std::any_of(side.attempts.begin(), side.attempts.end(),
                       [](const auto& attempt) { return attempt->to_release; });
  });
}

void Core::touch_all(TimePoint now) {
  std::vector<DoorId> all;  // a touch may take doors away
  all.reserve(doors_.size());
  for (const auto& [id, door] : doors_) all.push_back(id);
  for (const auto id : all)
    if (const auto door = doors_.find(id); door != doors_.end()) touch(*door->second, now);
}

/// Brings a door up to date: what its attempts have to say and to send, who else is to be asked, what the
/// program is told, and when to look again.
void Core::touch(Door& door, TimePoint now) {
  for (auto& side : door.sides) {
    // each step may make work for the others
    for (int turn = 0; turn < 4; ++turn) {
      const bool moved = advance(door, side, now);
      plan(door, side, now);
      if (!moved) break;
    }
    advance(door, side, now);
    settle(door, side, now);
  }

  if (door.deadline) deadlines_.erase(*door.deadline);
  door.deadline.reset();
  if (door.closing && door.sides[0].attempts.empty() && door.sides[1].attempts.empty()) {
    const auto id = door.id;
    const auto transport = door.request.transport;
    const auto port = door.request.internal_port;
    Event event;
    event.kind = EventKind::closed;
    event.family = door.sides[0].wanted ? Family::ipv4 : Family::ipv6;
    event.grant = door.sides[0].grant ? door.sides[0].grant : door.sides[1].grant;
    tell(door, std::move(event));
    if (const auto count = closing_.find({transport, port}); --count->second == 0) closing_.erase(count);
    doors_.erase(id);
    for (auto& [other, next] : doors_)
      if (next->request.transport == transport && next->request.internal_port == port) {
        for (auto& side : next->sides) side.begun = now;  // it had to wait for this one
        touch(*next, now);
        break;
      }
    return hand_out_slots(now);
  }
  std::optional<TimePoint> earliest;
  const auto at = [&](std::optional<TimePoint> due) {
    if (due && (!earliest || *due < *earliest)) earliest = due;
  };
  for (const auto& side : door.sides) {
    at(side.look_at);
    for (const auto& attempt : side.attempts) {
      if (attempt->client && !attempt->to_release) at(attempt->client->next_deadline());
      at(attempt->refresh_at);
      if (attempt->slot) at(attempt->begun + slot_time);
    }
  }
  // nothing is due twice at one moment: what was not moved on by the touch is looked at a little later
  if (earliest) door.deadline = deadlines_.emplace(std::max(*earliest, now + 1ms), door.id);

  hand_out_slots(now);
}

/// Touches those who wait for a slot, in their order.
void Core::hand_out_slots(TimePoint now) {
  if (std::exchange(handing_out_, true)) return;  // of a touch from here: what it frees is seen below
  while (std::exchange(slot_free_, false)) {
    auto in_vain = most_woken;  // another gateway's slot is what they wait for
    for (auto left = waiting_.size(); left > 0 && in_vain > 0 && !waiting_.empty(); --left) {
      const auto id = waiting_.front();
      waiting_.pop_front();
      const auto next = doors_.find(id);
      if (next == doors_.end()) continue;
      next->second->waits_for_slot = false;
      if (now < answered_at_ + busy_for) next->second->turn_at = now;
      touch(*next->second, now);
      if (const auto still = doors_.find(id); still != doors_.end() && still->second->waits_for_slot)
        --in_vain;
    }
  }
  handing_out_ = false;
}

/// Takes what the client of a mapping has to send. True when that was something.
bool Core::send(const Server& server, wire::DatagramMappingClient& client) {
  bool any = false;
  while (auto bytes = client.poll_transmit()) {
    out_.push_back(
        {server.id, server.interface, server.local, server.address, pcp::server_port, std::move(*bytes)});
    any = true;
  }
  return any;
}

/// Feeds the time to the attempts of a side and takes what they give. True when something happened.
bool Core::advance(Door& door, Side& side, TimePoint now) {
  bool moved = false;
  for (std::size_t i = 0; i < side.attempts.size(); ++i) {
    auto& attempt = *side.attempts[i];
    if (!attempt.client) continue;
    if (attempt.slot && now >= attempt.begun + slot_time) free_slot(attempt);
    if (attempt.to_release) {
      if (!take_slot(attempt, now)) {
        wait_for_slot(door);
        continue;
      }
      attempt.to_release = false;
      attempt.client->release(now);
    }
    if (attempt.refresh_at && *attempt.refresh_at <= now) {
      attempt.refresh_at.reset();
      attempt.client->refresh(now);
    }
    if (const auto due = attempt.client->next_deadline(); due && *due <= now)
      attempt.client->handle_timeout(now);
    if (attempt.datagrams) {
      if (const auto server = servers_.find(attempt.place);
          server != servers_.end() && send(*server->second, *attempt.datagrams))
        attempt.sent = true;
    } else {
      while (auto ask = attempt.service->poll_ask()) {
        attempt.sent = true;
        const auto id = next_id_++;
        asked_.emplace(id, Asked{attempt.place, ask->id, door.id, attempt.id});
        asks_.push_back({id, std::move(ask->ask)});
      }
    }
    take_events(door, side, attempt, now);
  }
  for (std::size_t i = 0; i < side.attempts.size();) {
    auto& attempt = *side.attempts[i];
    if (attempt.client && !attempt.client->finished()) {
      ++i;
      continue;
    }
    if (side.current == &attempt) take_end(door, side, attempt, false, Errc::no_answer, now);
    if (attempt.shadows_current && side.current) side.current->refresh_at = now;
    forget(attempt);
    side.attempts.erase(side.attempts.begin() + static_cast<std::ptrdiff_t>(i));
    moved = true;
  }
  return moved;
}

void Core::take_events(Door& door, Side& side, Attempt& attempt, TimePoint now) {
  while (const auto event = attempt.client ? attempt.client->poll_event() : std::nullopt) {
    if (attempt.slot && event->failure != MappingFailure::no_answer) answered_at_ = now;
    free_slot(attempt);
    if (attempt.state == Attempt::State::leaving) continue;
    if (const auto device = devices_.find(attempt.place);
        device != devices_.end() && event->kind == MappingEvent::Kind::renewed)
      read_address(*device->second, now);
    const auto server = servers_.find(attempt.place);
    switch (event->kind) {
      case MappingEvent::Kind::granted:
      case MappingEvent::Kind::renewed:
      case MappingEvent::Kind::changed:
        // that the gateway's address is another says nothing about the mapping
        if (!attempt.granted || attempt.granted->at != event->granted.at) attempt.gateway_restarted = false;
        attempt.granted = event->granted;
        attempt.state = Attempt::State::granted;
        attempt.silent = false;
        attempt.retry_at.reset();
        take_grant(door, side, attempt, now);
        if (attempt.protocol == Protocol::natpmp && server != servers_.end())
          read_address_again(*server->second, now);
        break;
      case MappingEvent::Kind::ended:
        attempt.state = Attempt::State::asking;
        attempt.failure = event->failure;
        attempt.code = event->code;
        if (side.current == &attempt) {
          const bool told = event->told && !attempt.gateway_restarted;
          take_end(door, side, attempt, told, told ? Errc::revoked : to_errc(event->failure), now);
        }
        break;
      case MappingEvent::Kind::refused:
        attempt.failure = event->failure;
        attempt.code = event->code;
        attempt.retry_at = event->retry_at;
        if (event->failure == MappingFailure::no_answer) {
          attempt.silent = true;
        } else {
          attempt.state = Attempt::State::refused;
          attempt.silent = false;
        }
        if (side.current == &attempt) take_end(door, side, attempt, false, to_errc(event->failure), now);
        if (event->failure == MappingFailure::unsupported && server != servers_.end()) {
          if (attempt.protocol == Protocol::pcp) server->second->pcp = Server::Speaks::no;
          if (attempt.protocol == Protocol::natpmp) server->second->natpmp = Server::Speaks::no;
          forget(attempt);
        }
        break;
    }
  }
}

Grant Core::describe(const Door& door, const Side& side, const Attempt& attempt) const {
  return {.protocol = attempt.protocol,
          .family = side.family,
          .gateway = attempt.gateway,
          .interface = attempt.interface_name,
          .internal = {attempt.local, door.request.internal_port},
          .external = attempt.granted->external,
          .lifetime = std::chrono::seconds{attempt.granted->lifetime_s},
          .deadline = attempt.granted->at + std::chrono::seconds{attempt.granted->lifetime_s}};
}

void Core::take_grant(Door& door, Side& side, Attempt& attempt, TimePoint now) {
  auto* const before = side.current;
  if (before && before != &attempt) {
    if (attempt.protocol >= before->protocol) return let_go(side, attempt, now);
    side.current = &attempt;
    let_go(side, *before, now);
  } else {
    side.current = &attempt;
  }
  const auto grant = describe(door, side, attempt);
  Event event;
  event.family = side.family;
  event.kind = !side.grant                              ? EventKind::granted
               : side.grant->external != grant.external ? EventKind::changed
                                                        : EventKind::renewed;
  if (event.kind == EventKind::changed) event.former = side.grant;
  event.grant = side.grant = grant;
  side.settled = true;
  side.told_reason = {};
  if (side.family == Family::ipv4) door.last = grant.external;
  tell(door, std::move(event));
  // lesser ones that have asked, or would, are no longer needed; a better one may still answer
  for (auto& other : side.attempts)
    if (other.get() != side.current && other->protocol >= side.current->protocol &&
        (other->protocol != side.current->protocol || other->place != side.current->place))
      let_go(side, *other, now);
}

void Core::take_end(Door& door, Side& side, Attempt& attempt, bool told, Errc reason, TimePoint now) {
  side.current = nullptr;
  Event event;
  event.kind = told ? EventKind::revoked : EventKind::lost;
  event.family = side.family;
  event.grant = std::exchange(side.grant, std::nullopt);
  event.reason = reason;
  if (!door.closing) tell(door, std::move(event));
  attempt.gateway_restarted = false;
  side.begun = now;
  side.settled = false;
  side.told_reason = {};
  rediscover_after_ = first_rediscovery;
}

/// True when both ask one gateway, by whatever of its addresses: one request may then undo what the other
/// did.
bool Core::is_same_box(const Attempt& one, const Attempt& other) const {
  if (one.gateway == other.gateway) return true;
  const auto a = devices_.find(one.place), b = devices_.find(other.place);
  return a != devices_.end() && b != devices_.end() && a->second->is_same(*b->second);
}

void Core::let_go(Side& side, Attempt& attempt, TimePoint now) {
  if (!attempt.client || attempt.state == Attempt::State::leaving) return;
  free_slot(attempt);
  const bool may_be_held = attempt.sent;  // one that was refused may be asking again just now
  // Many gateways have one table for all protocols: what is given back by one may be what another holds. Of
  // one whose answer is still to come nobody knows the port.
  attempt.shadows_current = may_be_held && side.current && is_same_box(*side.current, attempt) &&
                            (attempt.state != Attempt::State::granted ||
                             side.current->granted->external.port == attempt.granted->external.port);
  attempt.state = Attempt::State::leaving;
  attempt.refresh_at.reset();
  const auto server = servers_.find(attempt.place);
  const bool never_spoke = attempt.datagrams && server != servers_.end() &&
                           server->second->speaks(attempt.protocol) != Server::Speaks::yes;
  if (may_be_held && !never_spoke) {
    attempt.to_release = true;  // advance() does
    return;
  }
  if (may_be_held) {  // told once, and not waited for: the port may be wanted again
    attempt.client->release(now);
    send(*server->second, *attempt.datagrams);
    std::erase_if(late_, [&](const Late& each) { return each.until <= now; });
    if (late_.size() < most_late)
      late_.push_back(
          {attempt.place, attempt.key, std::move(attempt.client), attempt.datagrams, now + late_time});
  }
  attempt.client = nullptr;
}

/// What answers after all is given back.
void Core::handle_late(const Server& server, const std::string& key, std::span<const std::byte> datagram,
                       TimePoint now) {
  for (auto& each : late_)
    if (each.server == server.id && each.key == key && now < each.until) {
      each.datagrams->handle_datagram(datagram, now);
      send(server, *each.datagrams);
    }
}

/// Room for one more question at the attempt's gateway; free_slot() gives it back.
bool Core::take_slot(Attempt& attempt, TimePoint now) {
  unsigned* in_flight = nullptr;
  auto most = upnp_slots;
  if (const auto server = servers_.find(attempt.place); server != servers_.end()) {
    in_flight = &server->second->in_flight(attempt.protocol);
    most = attempt.protocol == Protocol::pcp ? pcp_slots : natpmp_slots;
  } else if (const auto device = devices_.find(attempt.place); device != devices_.end()) {
    in_flight = &device->second->in_flight;
  }
  if (in_flight == nullptr || hurried_) return true;
  if (*in_flight >= most) return false;
  ++*in_flight;
  attempt.slot = true;
  attempt.begun = now;
  return true;
}

/// Ends it without a word to its gateway; advance() takes it away.
void Core::forget(Attempt& attempt) {
  free_slot(attempt);
  if (const auto key = by_key_.find(attempt.key); key != by_key_.end() && key->second.second == attempt.id)
    by_key_.erase(key);
  attempt.client = nullptr;
}

void Core::free_slot(Attempt& attempt) {
  if (!std::exchange(attempt.slot, false)) return;
  slot_free_ = true;
  if (const auto server = servers_.find(attempt.place); server != servers_.end())
    --server->second->in_flight(attempt.protocol);
  if (const auto device = devices_.find(attempt.place); device != devices_.end()) --device->second->in_flight;
}

void Core::wait_for_slot(Door& door) {
  if (!std::exchange(door.waits_for_slot, true)) waiting_.push_back(door.id);
}

Core::Attempt* Core::find_attempt(Side& side, std::uint64_t place, Protocol protocol) {
  for (auto& attempt : side.attempts)
    if (attempt->place == place && attempt->protocol == protocol) return attempt.get();
  return nullptr;
}

/// Null, and the door waits for its turn, where as many questions as may be are in flight.
std::unique_ptr<Core::Attempt> Core::begin_attempt(Door& door, std::uint64_t place, Protocol protocol,
                                                   TimePoint now) {
  auto attempt = std::make_unique<Attempt>();
  attempt->id = next_id_++;
  attempt->place = place;
  attempt->protocol = protocol;
  attempt->begun = now;
  if (take_slot(*attempt, now)) return attempt;
  wait_for_slot(door);
  return nullptr;
}

Core::Attempt* Core::add_attempt(Door& door, Side& side, std::unique_ptr<Attempt> attempt) {
  if (!attempt->key.empty()) {
    by_key_[attempt->key] = {door.id, attempt->id};
    std::erase_if(late_, [&](const Late& each) { return each.key == attempt->key; });
  }
  return side.attempts.emplace_back(std::move(attempt)).get();
}

Core::Attempt* Core::add_attempt(Door& door, Side& side, std::unique_ptr<Attempt> attempt,
                                 const Server& server, std::unique_ptr<wire::DatagramMappingClient> client) {
  attempt->datagrams = client.get();
  attempt->client = std::move(client);
  attempt->local = server.local;
  attempt->gateway = server.address;
  attempt->interface_name = server.interface_name;
  return add_attempt(door, side, std::move(attempt));
}

/// IGD:1 gives a port to the host that has it already, and the other mapping of that host is gone.
Port Core::port_to_ask(const Door& door, const wire::MappingWish& wish, std::uint64_t device) {
  const auto is_own = [&](Port port) {
    return std::any_of(doors_.begin(), doors_.end(), [&](const auto& each) {
      const auto& attempts = each.second->sides[0].attempts;
      return each.first != door.id && each.second->request.transport == wish.transport &&
             std::any_of(attempts.begin(), attempts.end(), [&](const auto& attempt) {
               return attempt->place == device && attempt->state != Attempt::State::refused &&
                      port == (attempt->granted ? std::optional{attempt->granted->external.port}
                                                : attempt->asked_port);
             });
    });
  };
  auto port = wish.external_port.value_or(wish.internal_port);
  if (wish.exact) return port;
  if (is_own(port)) port = wish.internal_port;
  while (is_own(port)) port = *Port::from(static_cast<std::uint32_t>(1024 + jitter_.next() % (65536 - 1024)));
  return port;
}

/// Decides who is to be asked now that is not asked yet, and when to think about it again.
void Core::plan(Door& door, Side& side, TimePoint now) {
  side.look_at.reset();
  if (door.closing || !side.wanted) return;
  if (closing_.contains({door.request.transport, door.request.internal_port}))
    return;  // touch() comes back when that one is gone
  wire::MappingWish wish{.transport = door.request.transport,
                         .internal_port = door.request.internal_port,
                         .external_port = door.request.external_port,
                         .exact = door.request.exact,
                         .lifetime_s = static_cast<std::uint32_t>(
                             std::clamp<std::int64_t>(door.request.lifetime.count(), 1, 0xffffffff)),
                         .remotes = door.request.remotes,
                         .description = door.request.description};
  if (door.last && side.family == Family::ipv4) {
    if (!wish.exact) wish.external_port = door.last->port;
    wish.external_address = door.last->address;
  }
  const bool have = side.current != nullptr;

  const bool router_speaks_pcp = std::any_of(servers_.begin(), servers_.end(), [&](const auto& each) {
    return each.second->family == side.family && each.second->pcp == Server::Speaks::yes &&
           !pcp::is_anycast(each.second->address);
  });
  for (auto& [id, server] : servers_) {
    if (server->family != side.family) continue;
    if (router_speaks_pcp && pcp::is_anycast(server->address)) continue;  // only where no router does
    const auto* pcp_attempt = find_attempt(side, id, Protocol::pcp);
    const bool wants_pcp =
        !have || (side.current->protocol != Protocol::pcp && side.current->gateway == server->address &&
                  server->pcp == Server::Speaks::yes &&
                  (!server->upgraded_at || now >= *server->upgraded_at + upgrade_every));
    if (server->pcp != Server::Speaks::no && !pcp_attempt && wants_pcp) {
      if (auto attempt = begin_attempt(door, id, Protocol::pcp, now)) {
        if (have) server->upgraded_at = now;
        const auto nonce = nonce_of(door, side, *server);
        attempt->key = key_of(id, 'P', nonce);
        pcp_attempt = add_attempt(
            door, side, std::move(attempt), *server,
            std::make_unique<pcp::MappingClient>(wish, server->local, nonce, jitter_.next(), now));
      }
    }
    if (have || server->natpmp != Server::Speaks::yes || find_attempt(side, id, Protocol::natpmp)) continue;
    const bool pcp_done =
        server->pcp == Server::Speaks::no || (pcp_attempt && pcp_attempt->state == Attempt::State::refused);
    if (!pcp_done) {
      if (!pcp_attempt) continue;  // it waits for its turn
      const auto grace = server->pcp == Server::Speaks::yes ? known_grace : unknown_grace;
      const auto over = std::max(pcp_attempt->begun, server->natpmp_since) + grace;
      if (now < over) {
        side.look_again(over);
        continue;
      }
    }
    auto attempt = begin_attempt(door, id, Protocol::natpmp, now);
    if (!attempt) continue;
    auto client = std::make_unique<natpmp::MappingClient>(wish, jitter_.next(), now);
    if (server->external) client->set_external_address(*server->external);
    attempt->key = key_of(id, 'N', natpmp_name(door.request.transport, door.request.internal_port.number()));
    add_attempt(door, side, std::move(attempt), *server, std::move(client));
  }

  for (auto& [id, device] : devices_) {
    if (have || !device->is_ready() || find_attempt(side, id, Protocol::upnp)) continue;
    const auto& point = *device->point;
    const bool six = side.family == Family::ipv6;
    // who asks over IPv6 is nobody to whom IPv4 ports are mapped
    if (six ? !point.description().firewall6 : point.connection() == nullptr || !device->host.is_v4())
      continue;
    const bool by_other_path =
        std::any_of(side.attempts.begin(), side.attempts.end(), [&, here = device.get()](const auto& each) {
          const auto other = devices_.find(each->place);
          return other != devices_.end() && other->second->is_same(*here) && !each->silent &&
                 each->state != Attempt::State::refused;
        });
    if (by_other_path) continue;
    // the same box may be asked by a better protocol just now
    auto free_at = TimePoint::min();
    for (const auto& [server_id, server] : servers_) {
      if (server->interface != device->interface || server->family != side.family ||
          pcp::is_anycast(server->address) || (!six && server->address != device->host))
        continue;
      for (const auto protocol : {Protocol::pcp, Protocol::natpmp}) {
        const auto speaks = server->speaks(protocol);
        if (speaks == Server::Speaks::no) continue;
        const auto* asked = find_attempt(side, server_id, protocol);
        if (asked && asked->state == Attempt::State::refused) continue;
        if (speaks == Server::Speaks::yes) {
          free_at = std::max(free_at, asked ? asked->begun + known_grace : now + known_grace);
        } else {
          free_at = std::max(free_at, std::max(side.begun, *device->ready_since) + device_grace);
        }
      }
    }
    if (now < free_at) {
      side.look_again(free_at);
      continue;
    }
    const auto* here = network_.find(device->interface);
    if (!here || here->own(side.family).empty()) continue;
    auto attempt = begin_attempt(door, id, Protocol::upnp, now);
    if (!attempt) continue;
    if (six) {
      attempt->local = here->ipv6.front().address;
      auto client = std::make_unique<upnp::igd::PinholeClient>(*point.description().firewall6, wish,
                                                               attempt->local, jitter_.next(), now);
      attempt->service = client.get();
      attempt->client = std::move(client);
    } else {
      // what the gateway saw of this host last, unless this host has moved since
      attempt->local = here->has(Family::ipv4, point.local_address()) ? point.local_address()
                                                                      : nearest(here->ipv4, device->host);
      auto own = wish;
      own.external_port = attempt->asked_port = port_to_ask(door, wish, id);
      auto client = std::make_unique<upnp::igd::PortMappingClient>(*point.connection(), own, attempt->local,
                                                                   jitter_.next(), now);
      if (point.address_asked())
        client->set_external_address(point.external_address().value_or(Address::v4(0)));
      attempt->service = client.get();
      attempt->client = std::move(client);
    }
    attempt->gateway = device->host;
    attempt->interface_name = device->interface_name;
    add_attempt(door, side, std::move(attempt));
  }
}

/// Tells the program when a port cannot be had, once for each reason.
void Core::settle(Door& door, Side& side, TimePoint now) {
  if (door.closing || !side.wanted || side.current) return;
  const Attempt* refused = nullptr;
  bool pending = false, slow = false, known = false;
  std::optional<TimePoint> retry_at;
  for (const auto& attempt : side.attempts) {
    if (attempt->state == Attempt::State::refused) {
      if (!refused || weight(attempt->failure) > weight(refused->failure)) refused = attempt.get();
      if (attempt->retry_at && (!retry_at || *attempt->retry_at < *retry_at)) retry_at = attempt->retry_at;
    } else if (attempt->state == Attempt::State::asking && !attempt->silent) {
      const auto server = servers_.find(attempt->place);
      slow = slow || attempt->service;
      if (attempt->service ||
          (server != servers_.end() && server->second->speaks(attempt->protocol) == Server::Speaks::yes))
        pending = known = true;
    }
  }
  for (const auto& [id, device] : devices_) slow = slow || device->is_learning();
  pending = pending || slow;
  pending = pending || door.waits_for_slot;
  if (!rediscover_at_) rediscover_at_ = now + std::max(rediscover_after_, first_rediscovery);

  // a family that this host does not have is not worth a word, unless it is all that is wanted
  const auto other = side.family == Family::ipv4 ? Family::ipv6 : Family::ipv4;
  const bool absent = !has_network(side.family);
  if (absent && door.sides[static_cast<std::size_t>(other)].wanted && has_network(other)) return;

  // it has to wait for its turn, where others get their answers
  if (!refused && door.waits_for_slot && now < answered_at_ + busy_for)
    return side.look_again(answered_at_ + busy_for);
  const auto begun = refused ? side.begun : std::max(side.begun, door.turn_at);
  const auto waited = absent ? nanoseconds{silence_after} : now - begun;
  const auto patience = refused && !pending ? refusal_after : slow && !refused ? slow_after : silence_after;
  if (waited < patience) return side.look_again(begun + patience);
  const auto reason = refused                     ? to_errc(refused->failure)
                      : !has_network(side.family) ? Errc::no_network
                      : known                     ? Errc::no_answer
                                                  : Errc::no_gateway;
  if (side.settled && side.told_reason == reason) return;
  side.settled = true;
  side.told_reason = reason;
  Event event;
  event.kind = EventKind::refused;
  event.family = side.family;
  event.reason = reason;
  if (!retry_at) retry_at = rediscover_at_;
  if (retry_at) event.retry_in = std::max(0s, std::chrono::ceil<std::chrono::seconds>(*retry_at - now));
  if (refused) {
    Grant by;
    by.protocol = refused->protocol;
    by.family = side.family;
    by.gateway = refused->gateway;
    event.text = refusal_text(event, door.request, by, refused->code);
  }
  tell(door, std::move(event));
}

void Core::tell(const Door& door, Event event) {
  if (event.text.empty()) event.text = event_text(event, door.request);
  events_.emplace_back(door.id, std::move(event));
}

// --- what goes out ---

std::optional<Core::Datagram> Core::poll_transmit() {
  if (out_.empty()) return std::nullopt;
  auto next = std::move(out_.front());
  out_.pop_front();
  return next;
}

std::optional<Core::Ask> Core::poll_ask() {
  if (asks_.empty()) return std::nullopt;
  auto next = std::move(asks_.front());
  asks_.pop_front();
  return next;
}

std::optional<std::pair<DoorId, Event>> Core::poll_event() {
  if (events_.empty()) return std::nullopt;
  auto next = std::move(events_.front());
  events_.pop_front();
  return next;
}

std::optional<TimePoint> Core::next_deadline() const {
  std::optional<TimePoint> earliest;
  const auto at = [&](std::optional<TimePoint> due) {
    if (due && (!earliest || *due < *earliest)) earliest = due;
  };
  if (!deadlines_.empty()) at(deadlines_.begin()->first);
  at(search_at_);
  if (!doors_.empty()) at(rediscover_at_);
  for (const auto& [id, server] : servers_)
    if (server->asks_address) at(server->asks_address->next_deadline());
  for (const auto& [id, device] : devices_) {
    at(device->point->next_deadline());
    if (!doors_.empty()) at(device->address_at);
  }
  return earliest;
}

std::vector<Gateway> Core::gateways() const {
  std::vector<Gateway> all;
  const auto find = [&](const Address& address, const std::string& interface) -> Gateway& {
    for (auto& each : all)
      if (each.address == address && each.interface == interface) return each;
    all.emplace_back();
    all.back().address = address;
    all.back().interface = interface;
    return all.back();
  };
  for (const auto& [id, server] : servers_) {
    const bool pcp = server->pcp == Server::Speaks::yes, natpmp = server->natpmp == Server::Speaks::yes;
    if (!pcp && !natpmp) continue;
    auto& gateway = find(server->address, server->interface_name);
    if (pcp) gateway.protocols.push_back(Protocol::pcp);
    if (natpmp) gateway.protocols.push_back(Protocol::natpmp);
    gateway.epoch_s = server->epoch_s;
    if (server->external && !server->external->is_unspecified()) gateway.external_address = server->external;
  }
  for (const auto& [id, device] : devices_) {
    if (!device->is_ready()) continue;
    auto& gateway = find(device->host, device->interface_name);
    if (std::find(gateway.protocols.begin(), gateway.protocols.end(), Protocol::upnp) ==
        gateway.protocols.end())
      gateway.protocols.push_back(Protocol::upnp);
    const auto& description = device->point->description();
    gateway.name = description.friendly_name;
    gateway.igd_version = description.igd_version;
    gateway.firewall6 = gateway.firewall6 || description.firewall6.has_value();
    if (const auto external = device->point->external_address(); external && !external->is_unspecified())
      gateway.external_address = external;
  }
  return all;
}

}  // namespace sallyport::client
