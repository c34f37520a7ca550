#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "nat/engine/flow_table.hpp"
#include "nat/engine/pairing.hpp"
#include "nat/plane/data_plane.hpp"

namespace sallyport::nat {

/// Which side a packet came from, as the plane knows it.
enum class Side : std::uint8_t { lan, wan, router };

/// What is to happen with a packet; it was rewritten in place when `forward_*`.
enum class Action : std::uint8_t {
  drop,         ///< silently; `reason` is counted
  forward_wan,  ///< send it out by the WAN
  forward_lan,  ///< send it to the LAN (inbound and hairpin)
  local,        ///< the router's own: hand it to its stack unchanged
  held,         ///< a fragment ahead of its first one: copied, comes out of the sink later or never
};

enum class DropReason : std::uint8_t;  // in engine/drop_reason.hpp, with names
std::string_view to_string(DropReason reason) noexcept;

/// A packet in a buffer of the caller: an IPv4 or IPv6 header at `data`.
struct Packet {
  std::byte* data = nullptr;
  std::uint32_t size = 0;
  Side from = Side::lan;
  /// The transport checksum is a pseudo-header sum still to be completed (virtio NEEDS_CSUM,
  /// CHECKSUM_PARTIAL): fold address changes in uninverted, never ports.
  bool partial_checksum = false;
  /// A segmentation super packet: its total length may be above the MTU; each part gets the same rewriting.
  bool gso = false;
  // results; `size` shrinks to the total length of the header where the frame was padded
  Action action = Action::drop;
  DropReason reason{};
};

/// Takes packets that the engine makes or lets go: ICMP errors, RSTs for ended sessions, held fragments.
class PacketSink {
 public:
  virtual ~PacketSink() = default;
  virtual void emit(std::span<const std::byte> packet, Action where) = 0;
};

/// Told whether the router itself has a socket on a port of an external (or the wildcard) address
/// (POL-TGT-05).
class OwnPorts {
 public:
  virtual ~OwnPorts() = default;
  virtual bool in_use(Transport transport, std::uint16_t port) const = 0;

  /// Whether the router has a socket there that in_use() does not know of yet. Asked before a flow takes a
  /// port; `address` is the external one, in host order.
  virtual bool just_bound(Transport, std::uint32_t /*address*/, std::uint16_t /*port*/) const {
    return false;
  }

  /// A packet that no mapping claims, addresses in host order.
  struct Unclaimed {
    Transport transport{};
    std::uint32_t source = 0, destination = 0;
    std::uint16_t source_port = 0, destination_port = 0;
  };
  /// Whether a socket of the router waits for just this packet. A resolver binds a port anew for each
  /// question: its answer is back before in_use() was ever refreshed.
  virtual bool expects(const Unclaimed& packet) const {
    return in_use(packet.transport, packet.destination_port);
  }
};

/// What TTL handling the plane leaves to the engine.
enum class TtlMode : std::uint8_t {
  decrement,   ///< the engine forwards: minus one, ICMP time exceeded at 1 (memory)
  compensate,  ///< the stack forwards twice around the TUN: plus one (tun)
  keep,        ///< the stack forwards (ebpf)
};

class SharedTables;

struct EngineOptions {
  TtlMode ttl = TtlMode::decrement;
  std::array<std::uint64_t, 2> secret{};  ///< 128 bits: hashes and port choice (POL-NET-13, N6056-03)
  std::uint64_t seed = 0;                 ///< of the random port choice
  SharedTables* shared =
      nullptr;  ///< programs in the kernel make implicit mappings and flows; outlives the engine
  std::size_t addresses =
      1;  ///< there is room for so many external ones, at most Pairing::most; not with `shared`
};

/// The translator: no socket, no clock, no lock. Whoever owns it makes calls one at a time; `nat/README.md`
/// says how the planes share it between threads.
class Engine {
 public:
  Engine(const EngineOptions& options, const OwnPorts& own_ports);
  ~Engine();

  /// Judges and rewrites a batch in order. Cheapest with 32 packets at once: table lines are fetched ahead.
  void translate(std::span<Packet> batch, TimePoint now, PacketSink& sink);

  /// Hands out what calls without a packet have made: RSTs to both ends of sessions that ended (NMAP-09). To
  /// be called after withdraw(), end_flows() and sweep().
  void take_made(PacketSink& sink);

  // With shared tables: what the programs leave to the engine. `packet` is one that they judged already.

  /// Answers a packet of an ended session with RST.
  void answer_ended(std::span<std::byte> packet, Side from, TimePoint now, PacketSink& sink);
  /// Tells a LAN host that its packet was refused: ICMP unreachable with `code`.
  void refuse(std::span<std::byte> packet, std::uint8_t code, TimePoint now, PacketSink& sink);
  /// Makes an implicit mapping of the source, searching the whole pool; the packet can then be tried again.
  /// False: there is none, and the host was told so.
  bool make_mapping(std::span<std::byte> packet, TimePoint now, PacketSink& sink);
  /// Makes RSTs to both ends of a TCP session of an ended lease, for take_made().
  void reset(const FlowKey& key, const rules::sp_tcp& tcp, std::uint16_t external, TimePoint now);
  /// Takes up the leases that an earlier run left in the tables: in force until their deadline, or until
  /// install() claims them with `restore` or `is_static`. `external`: the addresses by index that flows and
  /// mappings were made for (0: none has it); with others set_network() ends them. `has_external`: they were
  /// in use.
  void adopt(std::span<const std::uint32_t> external, bool has_external, TimePoint now);
  /// Which address each host has now, or had when there was one.
  const Pairing& pairing() const noexcept;
  /// What set_network() makes of it.
  Pairing pairing_for(const NetworkView& network) const;

  // As DataPlane
  Result<Installed> install(const MappingSpec& spec, TimePoint now);
  std::optional<FoundRange> find_range(const RangeSpec& spec, TimePoint now);
  Result<void> renew(MappingId id, TimePoint deadline);
  Result<void> set_remotes(MappingId id, std::span<const RemoteFilter> remotes, bool outbound, TimePoint now);
  void withdraw(MappingId id, Ending how, TimePoint now);
  void end_flows(const Address& device, TimePoint now);
  Result<Counters> counters(MappingId id) const;
  std::optional<TimePoint> held_until(Transport transport, const Address& device, Port external,
                                      TimePoint now) const;
  std::optional<Address> external_for(const Address& device) const;
  void set_network(const NetworkView& network, TimePoint now);
  void set_policy(const PlanePolicy& policy, TimePoint now);
  std::vector<PlaneEvent> sweep(TimePoint now);
  std::vector<ImplicitView> implicit_mappings(TimePoint now) const;
  bool has_implicit(Transport transport, const InternalEndpoint& internal, TimePoint now) const;
  void fill_status(PlaneStatus& status) const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sallyport::nat
