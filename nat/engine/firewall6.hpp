#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "nat/engine/drop_reason.hpp"
#include "nat/engine/engine.hpp"
#include "nat/engine/fragments.hpp"
#include "nat/engine/siphash.hpp"
#include "nat/engine/tag_index.hpp"
#include "nat/engine/tcp_session.hpp"
#include "nat/packet/ipv6.hpp"

namespace sallyport::nat {

/// An IPv6 prefix, ready to compare.
struct Net6 {
  packet::Address6 address, mask;
  bool contains(const packet::Address6& other) const noexcept {
    return (other.high & mask.high) == address.high && (other.low & mask.low) == address.low;
  }
  friend bool operator==(const Net6&, const Net6&) = default;
};

/// The two ends of a flow; echoes have the identifier as the host's port, ESP and AH no ports.
struct FlowKey6 {
  std::uint8_t protocol = 0;
  packet::Address6 host;
  std::uint16_t host_port = 0;
  packet::Address6 peer;
  std::uint16_t peer_port = 0;
};

struct Flow6 {
  static constexpr std::uint32_t none = TagIndex::none;
  enum Flag : std::uint8_t {
    inbound = 1,      ///< the first packet came from outside
    answered = 2,     ///< the host has sent something on it
    confirmed = 4,    ///< TCP from outside: the peer took the host's answer
    ended = 8,        ///< its pinhole ended with a reset: packets of either side are dropped
    of_pinhole = 16,  ///< must not outlive the pinhole, which counts its packets
    queued_new = 32,  ///< waits in the queue of the unanswered
    queued_half_open = 64,
    draining = 128,  ///< outlives its pinhole, and vouches for nobody else
  };
  packet::Address6 host, peer;
  std::uint16_t host_port, peer_port;
  std::uint8_t protocol;  ///< 0: a free record
  std::uint8_t flags;
  std::uint32_t deadline_s;
  std::uint32_t told_s;  ///< the deadline it told its endpoint last
  std::uint32_t endpoint;
  TcpSession tcp;
  std::uint32_t next, previous;              ///< of its endpoint
  std::uint32_t group_next, group_previous;  ///< with the same endpoint and peer address
  std::uint32_t queue_next, queue_previous;

  bool is(const FlowKey6& key) const noexcept {
    return host == key.host && peer == key.peer && host_port == key.host_port && peer_port == key.peer_port &&
           protocol == key.protocol;
  }
};

/// A host's port (or echo identifier) that has flows, or a pinhole.
struct Endpoint6 {
  packet::Address6 host;
  std::uint16_t port;
  std::uint8_t protocol;     ///< 0: a free record
  bool counted;              ///< for its host's limit: outbound traffic made it
  bool resting;              ///< its pinhole ended with a reset
  std::uint32_t deadline_s;  ///< the latest of its outbound flows
  std::uint32_t flows;       ///< the first
  std::uint32_t pinhole;
  std::uint32_t next, previous;  ///< of its host
};

/// The stateful firewall before IPv6 (RFC 6092): what hosts begin may be answered, what outsiders begin needs
/// a pinhole. Nothing is rewritten but the hop limit and the MSS. A part of the engine: no clock, no lock.
class Firewall6 {
 public:
  Firewall6(const SipHash& hash, TtlMode ttl);

  void set_now(TimePoint now, std::uint32_t now_s) noexcept {
    now_ = now;
    now_s_ = now_s;
  }
  /// Judges one packet of version 6. Counts nothing but what it forwards: whoever calls counts drops.
  void pass(Packet& packet, PacketSink& sink);
  void take_made(PacketSink& sink);

  // As Engine; set_now() comes first.
  static bool owns(MappingId id) noexcept { return (static_cast<std::uint64_t>(id) & id_bit) != 0; }
  Result<Installed> install(const MappingSpec& spec);
  Result<void> renew(MappingId id, TimePoint deadline);
  Result<void> set_remotes(MappingId id, std::span<const RemoteFilter> remotes, bool outbound);
  void withdraw(MappingId id, Ending how);
  void end_flows(const Address& device);
  Result<Counters> counters(MappingId id) const;
  void set_network(const NetworkView& network);
  void set_policy(const PlanePolicy& policy);
  /// True once after new flows were refused for want of room.
  bool sweep();
  bool has_implicit(Transport transport, const InternalEndpoint& internal, TimePoint now) const;

  std::uint32_t pinholes() const noexcept { return pinhole_count_; }
  std::uint32_t flows() const noexcept { return flows_.count(); }
  std::uint64_t packets() const noexcept { return packets_; }

 private:
  using Address6 = packet::Address6;
  using Ipv6 = packet::Ipv6;
  static constexpr std::uint64_t id_bit = std::uint64_t{1} << 63;

  struct Pinhole {
    std::uint64_t serial = 0;  ///< 0: a free one
    TimePoint deadline{};
    TimePoint last_packet{};
    std::uint64_t packets_in = 0, packets_out = 0, bytes_in = 0, bytes_out = 0;
    std::vector<RemoteFilter> remotes;
    std::uint32_t endpoint = Flow6::none;
    std::uint32_t untracked_until_s = 0;  ///< TCP without a free entry goes on until then (POL-NET-14)
    bool enabled = true;
    bool outbound = false;
    bool gone = false;  ///< past its deadline; waits to be withdrawn
  };
  struct Host {
    std::uint32_t endpoints = 0, flows = 0, echo_ids = 0, resting = 0;
    std::uint32_t made_s = 0, made = 0;
    std::uint32_t first = Flow6::none;  ///< of its endpoints
  };
  struct HostHasher {
    SipHash hash;
    std::size_t operator()(const Address6& host) const noexcept { return hash(host.high, host.low); }
  };
  struct Queue {
    std::uint32_t first = Flow6::none, last = Flow6::none;
  };

  // firewall6.cpp: the way of a packet
  void from_its_side(Packet& packet, Ipv6& ip);
  void from_lan(Packet& packet, Ipv6& ip);
  void from_wan(Packet& packet, Ipv6& ip);
  void to_gateway(Packet& packet, const Ipv6& ip);
  void outbound(Packet& packet, Ipv6& ip);
  void inbound(Packet& packet, Ipv6& ip);
  void pass_fragment(Packet& packet, Ipv6& ip);
  void release_held(std::span<std::byte> octets, Action where);
  void drop(Packet& packet, DropReason reason) noexcept;
  void forward(Packet& packet, Ipv6& ip, Action where) noexcept;
  bool cannot_go_on(Packet& packet, const Ipv6& ip, Action where);
  void clamp_mss(const Packet& packet, const Ipv6& ip) const noexcept;
  bool carry(Flow6& flow, const Ipv6& ip, bool from_inside, DropReason& why);
  void begin(Flow6& flow, const Ipv6& ip, bool from_inside) const;
  void answer_ended(const Ipv6& ip, Action where);
  void reset_both_ends(const Flow6& flow);
  std::uint32_t idle_time(std::uint8_t protocol) const noexcept;

  // firewall6_icmp.cpp
  void error(Packet& packet, Ipv6& ip, bool from_inside);
  bool is_of_session(const FlowKey6& key) const;
  void send_error(const Ipv6& about, std::uint8_t type, std::uint8_t code, std::uint32_t rest, Action where);
  std::optional<Address6> own_address_for(const Address6& host, Action where) const noexcept;

  // firewall6_state.cpp: endpoints, flows, pinholes
  std::uint64_t hash_of(const FlowKey6& key) const noexcept;
  std::uint64_t group_hash(const FlowKey6& key) const noexcept;
  std::uint64_t endpoint_hash(std::uint8_t protocol, const Address6& host, std::uint16_t port) const noexcept;
  std::uint32_t find_flow(const FlowKey6& key) const;
  std::uint32_t find_group(const FlowKey6& key) const;
  std::uint32_t find_endpoint(std::uint8_t protocol, const Address6& host, std::uint16_t port) const;
  std::uint32_t make_endpoint(std::uint8_t protocol, const Address6& host, std::uint16_t port);
  /// The endpoint an outbound flow starts from, made and counted where it must be.
  std::uint32_t claim_endpoint(std::uint8_t protocol, const Address6& host, std::uint16_t port,
                               DropReason& why);
  void release_endpoint(std::uint32_t endpoint);
  void release_host(const Address6& host);
  std::uint32_t new_flow(const FlowKey6& key, std::uint32_t endpoint, bool inbound, DropReason& why);
  void drop_flow(std::uint32_t record);    ///< its endpoint stays
  void remove_flow(std::uint32_t record);  ///< and its endpoint, if it was the last
  void enqueue(std::uint32_t record, Flow6::Flag queue);
  void dequeue(std::uint32_t record);
  void mark_answered(std::uint32_t record);
  void mark_confirmed(std::uint32_t record);
  static bool counts(const Flow6& flow) noexcept;
  bool make_room();
  bool sent_before(const FlowKey6& key) const;
  bool outbound_allows(const FlowKey6& key, const Endpoint6& endpoint) const;
  void touch_endpoint(Flow6& flow);
  void sweep_flows(std::uint32_t records);
  Pinhole* find_pinhole(MappingId id) noexcept;
  /// The endpoint's pinhole, enabled or not, or null when there is none in force.
  Pinhole* pinhole_of(const Endpoint6& endpoint) noexcept;
  const Pinhole* pinhole_of(const Endpoint6& endpoint) const noexcept;
  void end_pinhole(Pinhole& pinhole, Ending how, TimePoint since);
  void free_pinhole(Pinhole& pinhole);

  bool is_gateway(const Address6& address) const noexcept;
  bool is_lan_host(const Address6& address) const noexcept;
  bool is_martian_source(const Address6& address) const noexcept;
  bool is_foreign_site(const Address6& address) const noexcept;
  static bool in_any(const std::vector<Net6>& nets, const Address6& address) noexcept;
  bool table_is_full() const noexcept {
    return policy_.flows_total != 0 && flows_.count() >= policy_.flows_total;
  }

  SipHash hash_;
  TtlMode ttl_;

  Records<Flow6> flows_;
  Records<Endpoint6> endpoints_;
  TagIndex flow_index_, group_index_, endpoint_index_;
  std::unordered_map<Address6, Host, HostHasher> hosts_;
  std::vector<Pinhole> pinholes_;
  std::vector<std::uint32_t> free_pinholes_;
  std::uint64_t next_serial_ = 1;
  std::uint32_t pinhole_count_ = 0;
  Fragments6 fragments_;
  Queue unanswered_, half_open_;

  PlanePolicy policy_;
  std::vector<Net6> lan_, untranslated_;
  std::vector<Address6> gateway_;
  std::vector<std::pair<Net6, Address6>> lan_addresses_;  ///< the gateway's own in each LAN prefix
  std::optional<Address6> wan_address_;
  bool wan_is_local_ = false;  ///< the WAN itself is numbered from fc00::/7
  std::uint32_t lan_mtu_ = 1500, wan_mtu_ = 1500;
  std::uint16_t mss_ = 0;  // 0: no clamping

  TimePoint now_{};
  std::uint32_t now_s_ = 0;
  PacketSink* sink_ = nullptr;
  std::vector<std::pair<std::vector<std::byte>, Action>> made_;
  std::uint32_t errors_second_ = 0, errors_sent_ = 0;
  std::uint32_t flow_cursor_ = 0, pinhole_cursor_ = 0, swept_full_s_ = 0;
  std::uint32_t kept_endpoint_ = Flow6::none;  // stays though its last flow goes: a new one is about to come
  bool shortage_ = false;
  std::uint64_t packets_ = 0;
};

}  // namespace sallyport::nat
