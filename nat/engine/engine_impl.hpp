#pragma once

#include <algorithm>
#include <array>
#include <unordered_map>

#include "nat/engine/drop_reason.hpp"
#include "nat/engine/engine.hpp"
#include "nat/engine/firewall6.hpp"
#include "nat/engine/flow_table.hpp"
#include "nat/engine/fragments.hpp"
#include "nat/engine/mapping_table.hpp"
#include "nat/engine/pairing.hpp"
#include "nat/engine/rules.h"
#include "nat/engine/shared_tables.hpp"
#include "nat/packet/checksum.hpp"
#include "nat/packet/ipv4.hpp"

namespace sallyport::nat {

constexpr std::uint8_t protocol_of(Part part) noexcept {
  return part == Part::tcp   ? packet::protocol::tcp
         : part == Part::udp ? packet::protocol::udp
                             : packet::protocol::icmp;
}
constexpr Part part_of_protocol(std::uint8_t protocol) noexcept {
  return protocol == packet::protocol::tcp   ? Part::tcp
         : protocol == packet::protocol::udp ? Part::udp
                                             : Part::icmp;
}
constexpr Part part_of(Transport transport) noexcept {
  return transport == Transport::tcp ? Part::tcp : Part::udp;
}

/// An IPv4 prefix, ready to compare.
struct Net {
  std::uint32_t address = 0, mask = 0;
  bool contains(std::uint32_t other) const noexcept { return (other & mask) == address; }
  /// The network's own or its broadcast address; /31 and /32 have neither (RFC 3021).
  bool is_end(std::uint32_t other) const noexcept {
    return ~mask > 1 && (other == address || other == (address | ~mask));
  }
};

class Engine::Impl {
 public:
  Impl(const EngineOptions& options, const OwnPorts& own_ports);

  void translate(std::span<Packet> batch, TimePoint now, PacketSink& sink);
  void take_made(PacketSink& sink);

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

  void answer_ended(std::span<std::byte> packet, Side from, TimePoint now, PacketSink& sink);
  void refuse(std::span<std::byte> packet, std::uint8_t code, TimePoint now, PacketSink& sink);
  bool make_mapping(std::span<std::byte> packet, TimePoint now, PacketSink& sink);
  void reset(const FlowKey& key, const rules::sp_tcp& tcp, std::uint16_t external, TimePoint now);
  void adopt(std::span<const std::uint32_t> external, bool has_external, TimePoint now);
  const Pairing& pairing() const noexcept { return pairing_; }
  Pairing pairing_for(const NetworkView& network) const;

 private:
  /// One packet on its way through a batch.
  struct Work {
    packet::Ipv4 ip;
    packet::Malformed malformed = packet::Malformed::no;
    bool hashed = false;  ///< `hash` and `candidate` are of the key looked ahead
    std::uint64_t hash = 0;
    FlowKey key;
    std::uint32_t candidate = Flow::none;
  };
  struct Host {
    std::uint32_t mappings = 0, flows = 0, icmp_ids = 0;
    std::uint32_t resting = 0;           ///< ports of its ended leases that wait for the reuse delay
    std::uint32_t made_s = 0, made = 0;  ///< mappings of outbound traffic made within that second
  };
  struct HostHasher {
    SipHash hash;
    std::size_t operator()(std::uint32_t host) const noexcept { return hash(host); }
  };
  struct Queue {
    std::uint32_t first = Flow::none, last = Flow::none;
  };

  // translate.cpp: the way of a packet
  void set_now(TimePoint now) noexcept;
  void look_ahead(std::span<Packet> batch, std::span<Work> work) const;
  void pass(Packet& packet, Work& work);
  void pass_fragment(Packet& packet, Work& work);
  void release_held(std::span<std::byte> octets, const FragmentFate& fate);
  void from_its_side(Packet& packet, Work& work);
  void from_lan(Packet& packet, Work& work);
  void from_router(Packet& packet, Work& work);
  void from_wan(Packet& packet, Work& work);
  /// Translates the source. Then, for a hairpin, goes on with inbound().
  void outbound(Packet& packet, Work& work, bool hairpin);
  void inbound(Packet& packet, Work& work, bool hairpin);
  void inbound_unmapped(Packet& packet, const packet::Ipv4& ip);
  /// A ping of an external address: the stack answers, or the engine where that address is nobody's.
  void pinged(Packet& packet, packet::Ipv4& ip, Action back);
  void refuse_protocol(Packet& packet, const packet::Ipv4& ip);
  /// False: the packet goes no further, for `packet.reason`.
  bool carry(Flow& flow, const packet::Ipv4& ip, bool from_inside, Packet& packet);
  bool carry_tcp(Flow& flow, const packet::Ipv4& ip, bool from_inside, Packet& packet);
  void start_tcp(Flow& flow, const packet::Ipv4& ip, bool from_inside) const;
  void touch_slot(Flow& flow);
  void answer_ended(const packet::Ipv4& ip, Action where);
  /// Tells both ends that a session is over; they may be silent, and would hold it for hours.
  void reset_both_ends(const Flow& flow);
  std::uint32_t lookup(const Work& work) const noexcept;

  void drop(Packet& packet, DropReason reason) noexcept;
  void forward(Packet& packet, packet::Ipv4& ip, Action where) noexcept;
  bool ttl_is_over(Packet& packet, const packet::Ipv4& ip, Action back);
  void rewrite_source(const Packet& packet, packet::Ipv4& ip, std::uint32_t source,
                      std::uint16_t port) noexcept;
  void rewrite_destination(const Packet& packet, packet::Ipv4& ip, std::uint32_t destination,
                           std::uint16_t port) noexcept;
  void rewrite_transport(const Packet& packet, packet::Ipv4& ip, const packet::ChecksumChange& address,
                         std::uint32_t port_at, std::uint16_t port) noexcept;
  void rewrite_id(packet::Ipv4& ip, std::uint32_t host) noexcept;
  void clamp_mss(const Packet& packet, const packet::Ipv4& ip) noexcept;
  std::uint16_t hide_id(std::uint32_t host, std::uint16_t id) const noexcept;
  std::uint16_t show_id(std::uint32_t host, std::uint16_t id) const noexcept;

  // icmp.cpp
  void outbound_query(Packet& packet, Work& work);
  void outbound_error(Packet& packet, packet::Ipv4& ip, bool hairpin);
  void inbound_icmp(Packet& packet, Work& work);
  void inbound_error(Packet& packet, packet::Ipv4& ip, bool hairpin);
  bool icmp_checksum_is_right(const Packet& packet, const packet::Ipv4& ip) const noexcept;
  void rewrite_quoted(packet::Ipv4& ip, packet::Quoted& quoted, bool source, std::uint32_t address,
                      std::uint16_t port, std::uint16_t id) noexcept;
  void send_icmp_error(const packet::Ipv4& about, std::uint8_t type, std::uint8_t code, Action where);
  std::uint32_t lan_address_for(std::uint32_t host) const noexcept;

  // mappings.cpp: slots, flows and their limits
  bool is_in_force(const Slot& slot) const noexcept;
  bool is_in_grace(const Slot& slot) const noexcept;
  std::uint32_t& chain_of(Slot& slot) noexcept {
    return slot.is_lease() ? mappings_.lease(slot.aux).flows : slot.aux;
  }
  std::uint8_t address_of(std::uint32_t host) const noexcept { return pairing_.of(host); }
  /// What the outside sees of a host; 0: nothing now.
  std::uint32_t external_of(std::uint32_t host) const noexcept {
    return has_external_ ? pairing_.address(pairing_.of(host)) : 0;
  }
  /// An external address that no interface of the gateway has: its stack does not take it for its own.
  bool is_elsewhere(std::uint32_t address) const noexcept {
    if (elsewhere_ == 0) return false;
    const auto index = pairing_.find(address);
    return index && (elsewhere_ >> *index & 1);
  }
  bool is_external(std::uint32_t address) const noexcept { return has_external_ && pairing_.find(address); }
  /// Of a packet to an external address.
  ExternalPort destination_of(const packet::Ipv4& ip) const noexcept {
    return {pairing_.find(ip.destination).value_or(0), ip.dport};
  }
  ExternalPort external_of(const Flow& flow) const noexcept {
    return {address_of(flow.host), flow.external_port};
  }
  static ExternalPort external_of(const Lease& lease) noexcept { return {lease.address, lease.external}; }
  ExternalPort find_mapping(Part part, std::uint32_t host, std::uint16_t port) const noexcept {
    return mappings_.find(address_of(host), part, host, port);
  }
  /// Calls `each(part, external port)` for every slot there is.
  template <class Each>
  void for_each_slot(Each&& each) const {
    for (std::size_t address = 0; address < mappings_.addresses(); ++address) {
      if (pairing_.address(static_cast<std::uint8_t>(address)) == 0 && address != 0)
        continue;  // never touched
      for (const Part part : {Part::tcp, Part::udp, Part::icmp})
        for (std::uint32_t port = 1; port < 65536; ++port)
          each(part, ExternalPort{static_cast<std::uint8_t>(address), static_cast<std::uint16_t>(port)});
    }
  }
  /// The port of an endpoint's mapping in force, or none.
  ExternalPort mapping_of(Part part, std::uint32_t host, std::uint16_t port);
  ExternalPort make_implicit(Part part, std::uint32_t host, std::uint16_t port, DropReason& why);
  enum class Claim : std::uint8_t { implicit, suggested, insisted, restored };
  enum class Verdict : std::uint8_t { free, taken, reserved, resting };
  Verdict may_claim(Part part, ExternalPort external, std::uint32_t host, Claim claim);
  bool rests(Part part, ExternalPort external, std::uint32_t host) const noexcept;
  ExternalPort choose_port(std::uint8_t address, Part part, PortRange range, std::uint32_t host);
  /// How many ports of the range can be had from this external one on.
  std::uint16_t fits_at(const RangeSpec& spec, std::uint32_t external, Claim claim);
  PortRun choose_run(std::uint8_t address, Part part, PortRange range, std::uint16_t size,
                     std::optional<bool> odd, std::uint32_t host);
  /// `goes_on`: the slot's flows stay its own. False: a program in the kernel claimed the port meanwhile.
  bool claim_slot(Part part, ExternalPort external, std::uint32_t host, std::uint16_t port, SlotKind kind,
                  std::uint32_t deadline_s, std::uint32_t aux, bool goes_on = false);
  void free_slot(Part part, ExternalPort external);
  void end_lease(std::uint32_t lease, Ending how, std::uint32_t since_s);
  /// Turns what an earlier run left at that port into an implicit mapping, for install() to take over: its
  /// flows go on.
  void give_up_orphan(Part part, ExternalPort external, std::uint32_t host, std::uint16_t port);
  /// Ends what is past its deadline; true when the slot is free now.
  bool retire(Part part, ExternalPort external);
  void reclaim(std::uint8_t address, Part part);
  void update_choice(Part part, ExternalPort external);
  bool is_reserved(Part part, std::uint16_t port) const noexcept;
  bool is_own(Part part, std::uint16_t port) const;
  Lease* find_lease(MappingId id, std::uint32_t* at = nullptr) noexcept;
  const Lease* find_lease(MappingId id) const noexcept { return const_cast<Impl*>(this)->find_lease(id); }
  bool filters_allow(std::uint32_t lease, std::uint32_t peer, std::uint16_t port) const;

  std::uint32_t new_flow(std::uint64_t hash, const FlowKey& key, ExternalPort external, bool inbound,
                         DropReason& why);
  void remove_flow(std::uint32_t record);  ///< an implicit mapping ends with its last flow
  void drop_flow(std::uint32_t record);    ///< the slot stays
  void unchain(std::uint32_t record);
  void enqueue(std::uint32_t record, Flow::Flag queue);
  void dequeue(std::uint32_t record);
  void mark_answered(std::uint32_t record);
  void mark_confirmed(std::uint32_t record);
  /// Whether a flow counts for its host's limit: what outsiders begin does only once it runs both ways.
  static bool counts(const Flow& flow) noexcept {
    return (flow.flags & Flow::answered) &&
           (!(flow.flags & Flow::inbound) || (flow.flags & Flow::confirmed) ||
            flow.protocol != packet::protocol::tcp);
  }
  bool make_room();
  /// The external port of a session that runs; 0: there is none.
  std::uint16_t running(Part part, const FlowKey& key) const;
  bool sent_before(const FlowKey& key);
  /// Who may come in without a flow where outbound traffic alone decides ([filtering] implicit).
  bool outbound_allows(const FlowKey& key) {
    return policy_.implicit == Filtering::endpoint ||
           (policy_.implicit == Filtering::address && sent_before(key));
  }
  void move_flow(std::uint32_t record, ExternalPort external);
  bool table_is_full() const noexcept {
    return policy_.flows_total != 0 && flows_.count() >= policy_.flows_total;
  }
  void sweep_flows(std::uint32_t records);
  void release_host(std::uint32_t host);
  void change_addresses(const Pairing& next, bool has_external);
  void forget_everything_implicit();

  bool is_gateway(std::uint32_t address) const noexcept {
    return std::find(gateway_.begin(), gateway_.end(), address) != gateway_.end();
  }
  static bool in_any(const std::vector<Net>& nets, std::uint32_t address) noexcept {
    for (const Net& net : nets)
      if (net.contains(address)) return true;
    return false;
  }
  bool is_lan_host(std::uint32_t address) const noexcept;
  bool is_impossible_source(std::uint32_t address) const noexcept;
  bool is_martian_source(std::uint32_t address) const noexcept;
  std::uint64_t random() noexcept { return hash_(std::uint64_t{3} << 62, ++draws_); }

  SipHash hash_;
  std::uint64_t draws_;
  std::uint64_t id_secret_;
  TtlMode ttl_;
  const OwnPorts& own_ports_;
  SharedTables* shared_;

  MappingTable mappings_;
  FlowTable flows_;
  Fragments fragments_;
  Firewall6 firewall6_;
  std::unordered_map<std::uint32_t, Host, HostHasher> hosts_;
  std::unordered_map<std::uint32_t, std::vector<RemoteFilter>> filters_;  // by lease
  Queue unanswered_, half_open_;
  std::uint64_t next_serial_ = 1;
  std::uint32_t explicit_count_ = 0, implicit_count_ = 0;

  PlanePolicy policy_;
  std::uint16_t mss_ = 0;  // 0: no clamping
  std::array<std::array<std::uint64_t, 1024>, 2> reserved_{};
  bool has_external_ = false;
  Pairing pairing_;
  std::size_t unused_addresses_ = 0;  // there is no room for them
  std::uint32_t first_external_ = 0;  // the preferred one; 0: there is none
  std::uint32_t elsewhere_ = 0;       // a bit for each external address that no interface of the gateway has
  std::vector<Net> lan_, untranslated_;
  std::vector<std::uint32_t> gateway_, lan_gateway_;
  std::vector<std::pair<Net, std::uint32_t>> lan_addresses_;
  std::uint32_t lan_mtu_ = 1500, wan_mtu_ = 1500;

  TimePoint now_{};
  std::uint32_t now_s_ = 0;
  PacketSink* sink_ = nullptr;
  std::vector<std::pair<std::vector<std::byte>, Action>> made_;  // waits for take_made()
  std::uint32_t icmp_second_ = 0, icmp_sent_ = 0;

  std::uint32_t slot_cursor_ = 0, flow_cursor_ = 0;
  std::array<std::array<std::uint32_t, parts>, Pairing::most> reclaimed_s_{};
  std::uint32_t swept_full_s_ = 0;
  const Slot* kept_slot_ = nullptr;  // stays though its last flow goes: a new one is about to come
  bool shortage_ports_ = false, shortage_flows_ = false;
  std::uint32_t shortage_told_s_ = 0;

  std::uint64_t packets_ = 0;
  std::array<std::uint64_t, drop_reasons> drops_{};
};

}  // namespace sallyport::nat
