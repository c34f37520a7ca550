#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "protocols/upnp/http/exchange.hpp"
#include "protocols/wire/jitter.hpp"
#include "protocols/wire/mapping_client.hpp"
#include "sallyport/client/port.hpp"
#include "sallyport/values/mapping_service.hpp"
#include "sallyport/values/result.hpp"
#include "src/client/network.hpp"

namespace sallyport::wire {
class DatagramMappingClient;
}

namespace sallyport::client {

/// Identifies one wish of the program, for as long as the core lives.
using DoorId = std::uint64_t;

/// The race and the keeping: which gateway is asked for which port, by which protocol and when; whose grant
/// counts; what the program is told. Holds no socket and reads no clock or random device: feed it, drain
/// poll_transmit(), poll_ask() and poll_event(), wake it at next_deadline(). Equal inputs and an equal seed
/// give equal outputs. One thread at a time.
///
/// All protocols are asked at the same moment, but only PCP's question is a request for the mapping itself.
/// NAT-PMP is asked for the external address and UPnP for its description, which leave nothing behind; their
/// requests follow when PCP has refused or is silent for longer than the others needed to answer. So of three
/// protocols that a gateway speaks one makes a mapping, not three.
class Core {
 public:
  struct Options {
    bool pcp = true, natpmp = true, upnp = true;
    std::vector<Address> gateways;  ///< empty: default routers, and who answers to a search
    /// What nonces are made of, so that the next run of a program knows its own mappings; none: random ones.
    std::optional<std::array<std::byte, 16>> secret;
    std::uint64_t seed = 0;
  };
  explicit Core(Options options);
  ~Core();

  /// What is not in `network` any more is given up: its mappings are lost.
  void set_network(Network network, TimePoint now);
  /// `last`: the external endpoint that the port had in the last run, if any; it is suggested first.
  void open(DoorId door, PortRequest request, std::optional<ExternalEndpoint> last, TimePoint now);
  /// Gives back what the door holds, or leaves it to expire; `closed` is its last event.
  void close(DoorId door, bool leave_lease, TimePoint now);
  /// True while the gateway is not yet told, because it is busy with others.
  bool waits_to_close(DoorId door) const;
  /// What is closed from now on is given back at once, however much that is: nobody will be here to go on.
  void hurry(TimePoint now);
  /// Asks who is there, without making a mapping.
  void discover(TimePoint now);
  /// True when all that answered to discover() has said what it has to say.
  bool discovered(TimePoint now) const;

  /// From the socket of a server (Datagram::server).
  void handle_server_datagram(std::uint64_t server, std::span<const std::byte> datagram, TimePoint now);
  void handle_server_unreachable(std::uint64_t server, TimePoint now);
  /// An answer to a search, or a NOTIFY.
  void handle_sighting(std::span<const std::byte> datagram, const Address& from, std::uint32_t interface,
                       TimePoint now);
  /// What came to port 5350 by multicast.
  void handle_announcement(std::span<const std::byte> datagram, const Address& from, std::uint32_t interface,
                           TimePoint now);
  void handle_reply(std::uint64_t ask, const Result<upnp::http::Reply>& reply, TimePoint now);
  void handle_timeout(TimePoint now);

  struct Datagram {
    std::uint64_t server = 0;  ///< by the socket of this server; 0: a search, by the interface's own socket
    std::uint32_t interface = 0;
    Address local;  ///< unspecified: whatever leads there
    Address to;
    std::uint16_t to_port = 0;
    std::vector<std::byte> bytes;
  };
  struct Ask {
    std::uint64_t id = 0;
    upnp::http::Ask what;
  };
  std::optional<Datagram> poll_transmit();
  std::optional<Ask> poll_ask();
  std::optional<std::pair<DoorId, Event>> poll_event();
  std::optional<TimePoint> next_deadline() const;

  /// True while the server may still send or be sent something: its socket is kept so long.
  bool is_served(std::uint64_t server) const { return servers_.contains(server); }
  std::vector<Gateway> gateways() const;
  std::size_t doors() const noexcept { return doors_.size(); }
  /// False from the door's `closed` event on.
  bool has_door(DoorId door) const { return doors_.contains(door); }
  struct Refusal {
    Protocol protocol{};
    wire::MappingFailure failure{};
    unsigned code = 0;  ///< the protocol's own; 0: none
  };
  /// Who has said why the door is not open, as it stands now.
  std::vector<Refusal> refusals(DoorId door, Family family) const;
  /// True when this host has an address of the family that gateways can be asked from.
  bool has_network(Family family) const;

 private:
  struct Server;
  struct Device;
  struct Attempt;
  struct Side;
  struct Door;
  using Deadlines = std::multimap<TimePoint, DoorId>;

  void add_server(const Network::Interface& interface, const Address& address, const Address& local,
                  TimePoint now);
  void add_servers(TimePoint now);
  void add_anycast(TimePoint now);
  bool may_speak_natpmp(const Server& server) const;
  void begin_search(TimePoint now);
  void send_search(TimePoint now);
  void rediscover(TimePoint now);
  void ask_address(Server& server, TimePoint now);
  void read_address_again(Server& server, TimePoint now);
  void read_address(Device& device, TimePoint now);
  void drain(Server& server, TimePoint now);
  bool send(const Server& server, wire::DatagramMappingClient& client);
  void drain(Device& device, TimePoint now);
  bool holds(std::uint64_t place, std::optional<Protocol> by = std::nullopt) const;
  void no_pcp(Server& server);
  void restarted(std::uint64_t place, Protocol protocol, std::chrono::nanoseconds spread, TimePoint now);
  void forget_place(std::uint64_t place, Errc why, TimePoint now);

  void touch(Door& door, TimePoint now);
  void touch_all(TimePoint now);
  Port port_to_ask(const Door& door, const wire::MappingWish& wish, std::uint64_t device);
  void plan(Door& door, Side& side, TimePoint now);
  void settle(Door& door, Side& side, TimePoint now);
  bool advance(Door& door, Side& side, TimePoint now);
  void take_events(Door& door, Side& side, Attempt& attempt, TimePoint now);
  void take_grant(Door& door, Side& side, Attempt& attempt, TimePoint now);
  void take_end(Door& door, Side& side, Attempt& attempt, bool told, Errc reason, TimePoint now);
  bool is_same_box(const Attempt& one, const Attempt& other) const;
  void let_go(Side& side, Attempt& attempt, TimePoint now);
  bool take_slot(Attempt& attempt, TimePoint now);
  void forget(Attempt& attempt);
  void free_slot(Attempt& attempt);
  void handle_late(const Server& server, const std::string& key, std::span<const std::byte> datagram,
                   TimePoint now);
  void wait_for_slot(Door& door);
  void hand_out_slots(TimePoint now);
  Attempt* find_attempt(Side& side, std::uint64_t place, Protocol protocol);
  std::unique_ptr<Attempt> begin_attempt(Door& door, std::uint64_t place, Protocol protocol, TimePoint now);
  Attempt* add_attempt(Door& door, Side& side, std::unique_ptr<Attempt> attempt);
  Attempt* add_attempt(Door& door, Side& side, std::unique_ptr<Attempt> attempt, const Server& server,
                       std::unique_ptr<wire::DatagramMappingClient> client);
  Grant describe(const Door& door, const Side& side, const Attempt& attempt) const;
  void tell(const Door& door, Event event);
  Nonce nonce_of(const Door& door, const Side& side, const Server& server);

  Options options_;
  Network network_;
  std::map<std::uint64_t, std::unique_ptr<Server>> servers_;
  std::map<std::uint64_t, std::unique_ptr<Device>> devices_;
  std::map<DoorId, std::unique_ptr<Door>> doors_;
  Deadlines deadlines_;
  std::map<std::pair<Transport, Port>, unsigned>
      closing_;                 ///< a port is asked for again when it is given back
  std::deque<DoorId> waiting_;  ///< for a slot of a server
  bool slot_free_ = false, handing_out_ = false, hurried_ = false;
  TimePoint answered_at_{};  ///< when a slot was freed by an answer

  /// What was let go of before its gateway had ever spoken.
  struct Late {
    std::uint64_t server = 0;
    std::string key;
    std::unique_ptr<wire::MappingClient> client;
    wire::DatagramMappingClient* datagrams = nullptr;
    TimePoint until{};
  };
  std::vector<Late> late_;

  struct Asked {
    std::uint64_t place = 0, inner = 0;
    DoorId door = 0;
    std::uint64_t attempt = 0;  ///< 0: the device's control point
  };
  std::unordered_map<std::uint64_t, Asked> asked_;
  std::unordered_map<std::string, std::pair<DoorId, std::uint64_t>> by_key_;  ///< of datagram attempts

  std::deque<Datagram> out_;
  std::deque<Ask> asks_;
  std::deque<std::pair<DoorId, Event>> events_;
  std::unordered_map<std::string, TimePoint> ignored_;  ///< locations that led nowhere, until when

  wire::Jitter jitter_;
  std::uint64_t next_id_ = 1;
  unsigned searches_left_ = 0;
  std::optional<TimePoint> search_at_, rediscover_at_;
  std::chrono::nanoseconds rediscover_after_{};
  TimePoint search_begun_{}, discover_begun_{};
  bool searched_ = false, discovering_ = false;
};

}  // namespace sallyport::client
