#include "nat/engine/firewall6.hpp"

#include <algorithm>

#include "nat/engine/rules.h"
#include "nat/packet/build6.hpp"
#include "nat/packet/checksum.hpp"

// The way of an IPv6 packet: from the LAN, from the WAN, fragments; TCP sessions; hop limit and MSS.

namespace sallyport::nat {
namespace {

using packet::Address6;
using packet::Ipv6;
using packet::Malformed;
namespace type = packet::icmp6_type;

constexpr bool is_multicast(const Address6& address) noexcept { return address.high >> 56 == 0xff; }
constexpr bool is_link_local(const Address6& address) noexcept { return address.high >> 54 == 0x3fa; }
constexpr bool is_unique_local(const Address6& address) noexcept { return address.high >> 57 == 0x7e; }
constexpr bool is_unspecified(const Address6& address) noexcept { return address == Address6{}; }
/// ::/96 (with :: and ::1), ::ffff:0:0/96, fe80::/10, fec0::/10, ff00::/8: nobody is reached there through a
/// router (RFC 6890, RFC 3879).
constexpr bool is_special(const Address6& address) noexcept {
  if (address.high == 0) return address.low >> 32 == 0 || address.low >> 32 == 0xffff;
  return is_link_local(address) || address.high >> 54 == 0x3fb || is_multicast(address);
}

bool is_tracked(const Ipv6& ip) noexcept {
  return ip.has_ports() || ip.protocol == packet::protocol::esp || ip.protocol == packet::protocol::ah;
}

FlowKey6 outbound_key(const Ipv6& ip) noexcept {
  return {ip.protocol, ip.source, ip.sport, ip.destination, ip.has_ports() ? ip.dport : std::uint16_t{0}};
}
FlowKey6 inbound_key(const Ipv6& ip) noexcept {
  return {ip.protocol, ip.destination, ip.dport, ip.source, ip.has_ports() ? ip.sport : std::uint16_t{0}};
}

TcpSegment segment_of(const Ipv6& ip) noexcept {
  TcpSegment segment{.seq = ip.seq,
                     .ack = ip.ack,
                     .payload = ip.transport_size() - ip.transport_header_length,
                     .window = ip.window,
                     .flags = ip.tcp_flags};
  if (ip.tcp_flags & packet::tcp_flag::syn)
    if (const std::uint32_t at = packet::find_tcp_option(ip, 3, 3))
      segment.scale = std::min<std::uint8_t>(ip.transport()[at], 14);
  return segment;
}

std::uint32_t seconds_of(std::chrono::seconds time) noexcept {
  return static_cast<std::uint32_t>(time.count());
}

}  // namespace

Firewall6::Firewall6(const SipHash& hash, TtlMode ttl)
    : hash_{hash}, ttl_{ttl}, hosts_{16, HostHasher{hash}}, fragments_{hash} {}

bool Firewall6::in_any(const std::vector<Net6>& nets, const Address6& address) noexcept {
  return std::any_of(nets.begin(), nets.end(), [&](const Net6& net) { return net.contains(address); });
}

bool Firewall6::is_gateway(const Address6& address) const noexcept {
  if (std::find(gateway_.begin(), gateway_.end(), address) != gateway_.end()) return true;
  // The first address of a subnet is that of any router on it (RFC 4291 2.6.1); /127 and /128 have none (RFC
  // 6164).
  return std::any_of(lan_addresses_.begin(), lan_addresses_.end(), [&](const auto& own) {
    return own.first.address == address && (own.first.mask.low & 3) == 0;
  });
}

bool Firewall6::is_lan_host(const Address6& address) const noexcept {
  return in_any(lan_, address) && !is_special(address) && !is_gateway(address);
}

/// Unique local addresses stay on their site (RFC 6092 REC-7); behind a WAN that has them itself the site
/// goes on.
bool Firewall6::is_foreign_site(const Address6& address) const noexcept {
  return is_unique_local(address) && !wan_is_local_;
}

bool Firewall6::is_martian_source(const Address6& address) const noexcept {
  return is_special(address) || in_any(lan_, address) || is_gateway(address) || is_foreign_site(address);
}

void Firewall6::drop(Packet& packet, DropReason reason) noexcept {
  packet.action = Action::drop;
  packet.reason = reason;
}

void Firewall6::pass(Packet& packet, PacketSink& sink) {
  packet.action = Action::drop;
  packet.reason = DropReason::none;
  Ipv6 ip;
  const auto malformed = packet::parse({packet.data, packet.size}, packet.gso, ip);
  if (!policy_.ipv6) {  // not ours to judge
    packet.action = Action::local;
    return;
  }
  if (malformed != Malformed::no) return drop(packet, reason_of(malformed));
  packet.size = ip.size;
  sink_ = &sink;
  if (ip.is_fragment())
    pass_fragment(packet, ip);
  else
    from_its_side(packet, ip);
  sink_ = nullptr;
}

void Firewall6::from_its_side(Packet& packet, Ipv6& ip) {
  switch (packet.from) {
    case Side::lan:
      return from_lan(packet, ip);
    case Side::wan:
      return from_wan(packet, ip);
    case Side::router:
      // What the router says itself is its own affair; nothing of it is rewritten, not even the hop limit.
      packet.action = in_any(lan_, ip.destination) ? Action::forward_lan : Action::forward_wan;
      return;
  }
}

void Firewall6::from_lan(Packet& packet, Ipv6& ip) {
  const Address6& destination = ip.destination;
  // Neighbour discovery, MLD, DHCPv6, mDNS: for the router's own stack, and for nobody beyond it (RFC
  // 4890 4.3.3).
  const bool for_gateway = is_multicast(destination) || is_gateway(destination);
  if (for_gateway) {
    if (!is_lan_host(ip.source) && !is_link_local(ip.source) && !is_unspecified(ip.source))
      return drop(packet, DropReason::spoofed_source);
    packet.action = Action::local;
    return;
  }
  if (!is_lan_host(ip.source)) return drop(packet, DropReason::spoofed_source);
  if (is_special(destination)) return drop(packet, DropReason::martian_destination);
  if (in_any(lan_, destination)) {
    if (cannot_go_on(packet, ip, Action::forward_lan)) return;
    return forward(packet, ip, Action::forward_lan);
  }
  if (in_any(untranslated_, destination)) {
    if (cannot_go_on(packet, ip, Action::forward_wan)) return;
    return forward(packet, ip, Action::forward_wan);
  }
  if (is_foreign_site(ip.source) || is_foreign_site(destination)) {
    // 1/5: wrong source for this way out, another one may do; 1/0: no route.
    const bool source = is_foreign_site(ip.source);
    send_error(ip, type::unreachable, source ? 5 : 0, 0, Action::forward_lan);
    return drop(packet, source ? DropReason::spoofed_source : DropReason::martian_destination);
  }
  if (ip.protocol == packet::protocol::icmp6) {
    if (ip.is_icmp_error()) return error(packet, ip, true);
    if (ip.icmp_type != type::echo) return drop(packet, DropReason::unknown_icmp);
    return outbound(packet, ip);
  }
  if (!is_tracked(ip)) {
    send_error(ip, type::unreachable, 1, 0, Action::forward_lan);
    return drop(packet, DropReason::unknown_protocol);
  }
  outbound(packet, ip);
}

void Firewall6::from_wan(Packet& packet, Ipv6& ip) {
  const Address6& destination = ip.destination;
  if (is_multicast(destination) || is_gateway(destination)) {
    // Neighbours of the WAN speak from link-local addresses, and from none while they look for one.
    const bool neighbour = is_link_local(ip.source) || is_unspecified(ip.source);
    if (!neighbour && is_martian_source(ip.source) && !is_foreign_site(ip.source))
      return drop(packet, DropReason::martian_source);
    return to_gateway(packet, ip);
  }
  if (is_special(destination)) return drop(packet, DropReason::martian_destination);
  if (!in_any(lan_, destination)) return drop(packet, DropReason::not_ours);
  if (is_special(ip.source) || in_any(lan_, ip.source) || is_gateway(ip.source))
    return drop(packet, DropReason::martian_source);
  if (in_any(untranslated_, ip.source)) {
    if (cannot_go_on(packet, ip, Action::forward_lan)) return;
    return forward(packet, ip, Action::forward_lan);
  }
  if (is_foreign_site(ip.source)) return drop(packet, DropReason::martian_source);
  if (ip.protocol == packet::protocol::icmp6) {
    if (ip.is_icmp_error()) return error(packet, ip, false);
    if (ip.icmp_type == type::echo) return drop(packet, DropReason::ping_refused);
    if (ip.icmp_type != type::echo_reply) return drop(packet, DropReason::unknown_icmp);
    return inbound(packet, ip);
  }
  if (!is_tracked(ip)) return drop(packet, DropReason::unknown_protocol);
  inbound(packet, ip);
}

/// Its own stack judges what is for the router itself, but for its control ports (POL-NET-04).
void Firewall6::to_gateway(Packet& packet, const Ipv6& ip) {
  if (ip.protocol == packet::protocol::icmp6 && ip.icmp_type == type::echo && !policy_.answer_ping)
    return drop(packet, DropReason::ping_refused);
  const bool control = ip.protocol == packet::protocol::udp && !ip.fragment_offset &&
                       (ip.dport == 1900 || ip.dport == 5350 || ip.dport == 5351);
  if (control) return drop(packet, DropReason::no_mapping);
  packet.action = Action::local;
}

// --- outbound and inbound ---

void Firewall6::outbound(Packet& packet, Ipv6& ip) {
  const FlowKey6 key = outbound_key(ip);
  const bool tcp = ip.protocol == packet::protocol::tcp;
  const bool syn = tcp && rules::sp_plain_syn(ip.tcp_flags);
  std::uint32_t record = find_flow(key);
  if (record != Flow6::none && rules::sp_is_over(flows_[record].deadline_s, now_s_)) {
    remove_flow(record);
    record = Flow6::none;
  }
  if (record != Flow6::none && (flows_[record].flags & Flow6::ended)) {
    if (!syn) {
      answer_ended(ip, Action::forward_lan);
      return drop(packet, DropReason::ended);
    }
    remove_flow(record);
    record = Flow6::none;
  }
  if (cannot_go_on(packet, ip, Action::forward_wan)) return;

  std::uint32_t endpoint =
      record != Flow6::none ? flows_[record].endpoint : find_endpoint(key.protocol, key.host, key.host_port);
  Pinhole* pinhole = endpoint != Flow6::none ? pinhole_of(endpoints_[endpoint]) : nullptr;
  if (pinhole && !pinhole->enabled) pinhole = nullptr;
  DropReason why{};
  if (record != Flow6::none) {
    Flow6& flow = flows_[record];
    if ((flow.flags & Flow6::of_pinhole) && !pinhole) return drop(packet, DropReason::ended);
    if (!carry(flow, ip, true, why)) return drop(packet, why);
    if (!(flow.flags & Flow6::answered)) mark_answered(record);
    touch_endpoint(flow);
  } else {
    bool untracked = false;
    if (tcp && !syn) {
      untracked = pinhole && pinhole->untracked_until_s > now_s_;
      if (!untracked) return drop(packet, DropReason::no_session);
    }
    if (!untracked) {
      endpoint = claim_endpoint(key.protocol, key.host, key.host_port, why);
      if (endpoint != Flow6::none) record = new_flow(key, endpoint, false, why);
      if (record == Flow6::none) {
        // A pinhole without filters works even without a free entry (POL-NET-14), and what its host answered
        // to a flood of UDP leaves it its real peers, though it is at its own limit.
        if (pinhole && (why == DropReason::table_full || !tcp)) {
          if (tcp)
            pinhole->untracked_until_s = rules::sp_deadline(now_s_, seconds_of(policy_.tcp_established));
        } else {
          if (endpoint != Flow6::none) release_endpoint(endpoint);
          // 1/1: not allowed; 1/3: no way just now. Queries are only dropped (POL-QTA-06).
          if (why != DropReason::icmp_id_limit)
            send_error(ip, type::unreachable, why == DropReason::table_full ? 3 : 1, 0, Action::forward_lan);
          return drop(packet, why);
        }
      } else {
        begin(flows_[record], ip, true);
        touch_endpoint(flows_[record]);
      }
    }
  }
  if (pinhole && (record == Flow6::none || (flows_[record].flags & Flow6::of_pinhole))) {
    ++pinhole->packets_out;
    pinhole->bytes_out += ip.size;
    pinhole->last_packet = now_;
  }
  forward(packet, ip, Action::forward_wan);
}

void Firewall6::inbound(Packet& packet, Ipv6& ip) {
  const FlowKey6 key = inbound_key(ip);
  const bool tcp = ip.protocol == packet::protocol::tcp;
  const bool syn = tcp && rules::sp_plain_syn(ip.tcp_flags);
  std::uint32_t record = find_flow(key);
  if (record != Flow6::none && rules::sp_is_over(flows_[record].deadline_s, now_s_)) {
    remove_flow(record);
    record = Flow6::none;
  }
  const std::uint32_t endpoint =
      record != Flow6::none ? flows_[record].endpoint : find_endpoint(key.protocol, key.host, key.host_port);
  if (endpoint == Flow6::none) return drop(packet, DropReason::no_mapping);
  Pinhole* pinhole = pinhole_of(endpoints_[endpoint]);
  const bool disabled = pinhole && !pinhole->enabled;
  if (disabled) pinhole = nullptr;

  if (pinhole) {
    // Filters are for who comes from outside; what answers the host has been asked (PCP-13.3-11).
    const bool answers = record != Flow6::none && !(flows_[record].flags & (Flow6::inbound | Flow6::ended));
    const auto allows = [&] {
      const Address::Bytes bytes = [&] {
        Address::Bytes out{};
        packet::store_address(reinterpret_cast<std::uint8_t*>(out.data()), ip.source);
        return out;
      }();
      return std::any_of(pinhole->remotes.begin(), pinhole->remotes.end(),
                         [&](const RemoteFilter& filter) { return filter.allows(Address{bytes}, ip.sport); });
    };
    if (!pinhole->remotes.empty() && !answers && !allows() &&
        !(pinhole->outbound && outbound_allows(key, endpoints_[endpoint])))
      return drop(packet, DropReason::filtered);
  }
  if (record != Flow6::none && (flows_[record].flags & Flow6::ended)) {
    if (!pinhole || (tcp && !syn)) {
      if (tcp && !syn) answer_ended(ip, Action::forward_wan);
      return drop(packet, DropReason::ended);
    }
    kept_endpoint_ = endpoint;
    remove_flow(record);
    kept_endpoint_ = Flow6::none;
    record = Flow6::none;
  }
  DropReason why{};
  if (record != Flow6::none) {
    if ((flows_[record].flags & Flow6::of_pinhole) && !pinhole)
      return drop(packet, disabled ? DropReason::disabled : DropReason::ended);
    if (cannot_go_on(packet, ip, Action::forward_lan)) return;
    Flow6& flow = flows_[record];
    const bool counted = counts(flow);
    if (!carry(flow, ip, false, why)) return drop(packet, why);
    if (!counted && counts(flow)) mark_confirmed(record);
    touch_endpoint(flow);
  } else {
    bool track = false;
    if (pinhole) {
      if (tcp && !syn && pinhole->untracked_until_s <= now_s_) return drop(packet, DropReason::no_session);
      track = syn;  // inbound UDP makes no flow: outsiders can fill nothing
    } else {
      const bool implicit = !rules::sp_is_over(endpoints_[endpoint].deadline_s, now_s_);
      if (!implicit) return drop(packet, disabled ? DropReason::disabled : DropReason::no_mapping);
      if (!ip.has_ports()) return drop(packet, DropReason::no_session);
      if (!outbound_allows(key, endpoints_[endpoint])) return drop(packet, DropReason::filtered);
      if (tcp && !syn) return drop(packet, DropReason::no_session);
      track = tcp;
    }
    if (cannot_go_on(packet, ip, Action::forward_lan)) return;
    if (track) {
      record = new_flow(key, endpoint, true, why);
      if (record != Flow6::none) {
        begin(flows_[record], ip, false);
      } else {
        if (!pinhole || !pinhole->remotes.empty()) return drop(packet, why);
        pinhole->untracked_until_s = rules::sp_deadline(now_s_, seconds_of(policy_.tcp_established));
      }
    }
  }
  if (pinhole) {
    ++pinhole->packets_in;
    pinhole->bytes_in += ip.size;
    pinhole->last_packet = now_;
  }
  forward(packet, ip, Action::forward_lan);
}

std::uint32_t Firewall6::idle_time(std::uint8_t protocol) const noexcept {
  return seconds_of(protocol == packet::protocol::icmp6 ? policy_.icmp_query : policy_.udp_idle);
}

/// The first packet of a flow.
void Firewall6::begin(Flow6& flow, const Ipv6& ip, bool from_inside) const {
  if (flow.protocol == packet::protocol::tcp) {
    start_tcp(flow.tcp, segment_of(ip), from_inside);
    flow.deadline_s = rules::sp_deadline(now_s_, seconds_of(policy_.tcp_half_open));
  } else {
    flow.deadline_s = rules::sp_deadline(now_s_, idle_time(flow.protocol));
  }
}

/// A further one. False: it goes no further.
bool Firewall6::carry(Flow6& flow, const Ipv6& ip, bool from_inside, DropReason& why) {
  if (flow.protocol != packet::protocol::tcp) {
    // Outbound always refreshes; inbound only what was opened from inside (NAT-X-08).
    if (from_inside || !(flow.flags & Flow6::inbound))
      flow.deadline_s = rules::sp_deadline(now_s_, idle_time(flow.protocol));
    return true;
  }
  const bool unconfirmed = (flow.flags & Flow6::inbound) && !(flow.flags & Flow6::confirmed);
  const TcpVerdict verdict = carry_tcp(flow.tcp, segment_of(ip), from_inside, unconfirmed,
                                       {.established = seconds_of(policy_.tcp_established),
                                        .transitory = seconds_of(policy_.tcp_transitory),
                                        .half_open = seconds_of(policy_.tcp_half_open)});
  if (!verdict.passes) {
    why = DropReason::out_of_window;
    return false;
  }
  if (verdict.confirms) flow.flags |= Flow6::confirmed;
  if (verdict.lifetime_s) flow.deadline_s = rules::sp_deadline(now_s_, verdict.lifetime_s);
  return true;
}

void Firewall6::answer_ended(const Ipv6& ip, Action where) {
  if (ip.protocol != packet::protocol::tcp || (ip.tcp_flags & packet::tcp_flag::rst)) return;
  sink_->emit(packet::make_rst(ip), where);
}

void Firewall6::reset_both_ends(const Flow6& flow) {
  // Beyond this many at once the ends hear of it when they next send.
  constexpr std::size_t most_made = 4096;
  if (flow.protocol != packet::protocol::tcp || (flow.flags & Flow6::ended)) return;
  if (flow.tcp.state == rules::SP_TCP_BOTH_FIN || flow.tcp.state == rules::SP_TCP_TRANS) return;
  if (rules::sp_is_over(flow.deadline_s, now_s_) || made_.size() >= most_made) return;
  made_.emplace_back(packet::make_rst(packet::RstTo6{flow.peer, flow.host, flow.peer_port, flow.host_port,
                                                     flow.tcp.ack_host, flow.tcp.ack_peer}),
                     Action::forward_lan);
  made_.emplace_back(packet::make_rst(packet::RstTo6{flow.host, flow.peer, flow.host_port, flow.peer_port,
                                                     flow.tcp.ack_peer, flow.tcp.ack_host}),
                     Action::forward_wan);
}

void Firewall6::take_made(PacketSink& sink) {
  for (const auto& [octets, where] : made_) sink.emit(octets, where);
  made_.clear();
}

// --- forwarding ---

void Firewall6::forward(Packet& packet, Ipv6& ip, Action where) noexcept {
  if (mss_ != 0 && ip.protocol == packet::protocol::tcp && !ip.is_fragment() &&
      (ip.tcp_flags & packet::tcp_flag::syn))
    clamp_mss(packet, ip);
  if (ttl_ != TtlMode::keep)
    ip.data[7] = ttl_ == TtlMode::decrement ? static_cast<std::uint8_t>(ip.hop_limit - 1)
                 : ip.hop_limit == 255      ? std::uint8_t{255}
                                            : static_cast<std::uint8_t>(ip.hop_limit + 1);
  packet.action = where;
  packet.reason = DropReason::none;
  ++packets_;
}

/// Hop limit and size, where no stack behind the engine looks at them (RFC 4443 3.2, 3.3).
bool Firewall6::cannot_go_on(Packet& packet, const Ipv6& ip, Action where) {
  if (ttl_ != TtlMode::decrement) return false;
  const Action back = packet.from == Side::wan ? Action::forward_wan : Action::forward_lan;
  if (ip.hop_limit <= 1) {
    send_error(ip, type::time_exceeded, 0, 0, back);
    drop(packet, DropReason::ttl_expired);
    return true;
  }
  const std::uint32_t mtu = where == Action::forward_wan ? wan_mtu_ : lan_mtu_;
  if (!packet.gso && ip.size > mtu) {
    send_error(ip, type::too_big, 0, mtu, back);
    drop(packet, DropReason::too_big);
    return true;
  }
  return false;
}

void Firewall6::clamp_mss(const Packet& packet, const Ipv6& ip) const noexcept {
  const std::uint32_t at = packet::find_tcp_option(ip, 2, 4);
  if (at == 0) return;
  std::uint8_t* transport = ip.transport();
  const std::uint16_t before = packet::load16(transport + at);
  if (before <= mss_) return;
  packet::store16(transport + at, mss_);
  if (packet.partial_checksum) return;  // what the card will sum includes it
  packet::ChecksumChange change;
  if (at % 2 == 0)
    change.word(before, mss_);
  else  // its octets belong to two words
    change.word(static_cast<std::uint16_t>(before << 8 | before >> 8),
                static_cast<std::uint16_t>(mss_ << 8 | mss_ >> 8));
  change.apply_at(transport + 16);
}

// --- fragments ---

void Firewall6::pass_fragment(Packet& packet, Ipv6& ip) {
  // Nothing is kept for packets that could not pass whole, or that pass whatever they carry.
  const bool from_lan = packet.from == Side::lan;
  const Address6& inner = from_lan ? ip.source : ip.destination;
  const Address6& outer = from_lan ? ip.destination : ip.source;
  const bool judged = packet.from != Side::router && is_lan_host(inner) && !is_martian_source(outer) &&
                      !in_any(untranslated_, outer);
  if (!judged) return from_its_side(packet, ip);
  if (ip.fragment_offset == 0 && ip.is_icmp_error())
    return drop(packet, DropReason::icmp_fits_nothing);  // its checksum cannot be judged

  FragmentFate fate;
  switch (fragments_.take(ip, packet.from, now_s_, fate)) {
    case Fragments6::Next::hold:
      packet.action = Action::held;
      return;
    case Fragments6::Next::overlap:
      return drop(packet, DropReason::fragment_overlap);
    case Fragments6::Next::limit:
      return drop(packet, DropReason::fragment_limit);
    case Fragments6::Next::dropped:
      return drop(packet, DropReason::fragment_of_dropped);
    case Fragments6::Next::follow:
      if (cannot_go_on(packet, ip, fate.action)) return;
      return forward(packet, ip, fate.action);
    case Fragments6::Next::translate_first:
      break;
  }
  from_its_side(packet, ip);
  fate.action = packet.action;
  for (auto& octets : fragments_.settle(ip, ip.source, ip.destination, packet.from, fate))
    release_held(octets, fate.action);
}

void Firewall6::release_held(std::span<std::byte> octets, Action where) {
  Packet packet{.data = octets.data(), .size = static_cast<std::uint32_t>(octets.size())};
  packet.from = where == Action::forward_wan ? Side::lan : Side::wan;
  Ipv6 ip;
  if (packet::parse(octets, false, ip) != Malformed::no || cannot_go_on(packet, ip, where)) return;
  forward(packet, ip, where);
  sink_->emit(octets.first(ip.size), where);
}

}  // namespace sallyport::nat
