#include "nat/engine/engine_impl.hpp"
#include "nat/packet/build.hpp"

// ICMP: queries as flows of identifiers, errors by the packet they quote, and the errors we send (RFC 5508).

namespace sallyport::nat {
namespace {

using packet::ChecksumChange;
using packet::Ipv4;
using packet::Quoted;
namespace type = packet::icmp_type;

constexpr std::uint32_t errors_per_second = 100;  // POL-QTA-11

/// Redirects and source quench never pass (POL-NET-08); everything else that is an error may.
constexpr bool passes(std::uint8_t icmp_type) noexcept {
  return icmp_type == type::unreachable || icmp_type == type::time_exceeded ||
         icmp_type == type::parameter_problem;
}

constexpr Part part_of_quoted(const Quoted& quoted) noexcept { return part_of_protocol(quoted.protocol); }

}  // namespace

void Engine::Impl::outbound_query(Packet& packet, Work& work) {
  Ipv4& ip = work.ip;
  if (ip.icmp_type != type::echo && ip.icmp_type != type::timestamp)
    return drop(packet, DropReason::unknown_icmp);
  if (packet.from != Side::router && ttl_is_over(packet, ip, Action::forward_lan)) return;
  const FlowKey key{ip.protocol, ip.sport, ip.source, ip.destination, 0};
  const std::uint64_t hash = flows_.hash_of(key);
  std::uint32_t record = flows_.find(hash, key);
  if (record != Flow::none && rules::sp_is_over(flows_[record].deadline_s, now_s_)) {
    remove_flow(record);
    record = Flow::none;
  }
  if (record == Flow::none) {
    ExternalPort external = mapping_of(Part::icmp, ip.source, ip.sport);
    DropReason why{};
    if (!external) external = make_implicit(Part::icmp, ip.source, ip.sport, why);
    if (external) {
      record = new_flow(hash, key, external, false, why);
      if (record == Flow::none && mappings_.slot(Part::icmp, external).aux == Flow::none)
        free_slot(Part::icmp, external);
    }
    if (record == Flow::none) {
      const bool shortage = why == DropReason::no_ports || why == DropReason::table_full;
      if (packet.from == Side::lan)
        send_icmp_error(ip, type::unreachable, shortage ? 1 : 13, Action::forward_lan);
      return drop(packet, why);
    }
  }
  Flow& flow = flows_[record];
  flow.deadline_s = rules::sp_deadline(now_s_, static_cast<std::uint32_t>(policy_.icmp_query.count()));
  touch_slot(flow);
  const ExternalPort external = external_of(flow);
  if (packet.from == Side::lan) rewrite_id(ip, ip.source);
  rewrite_source(packet, ip, pairing_.address(external.address), external.number);
  forward(packet, ip, Action::forward_wan);
}

void Engine::Impl::inbound_icmp(Packet& packet, Work& work) {
  Ipv4& ip = work.ip;
  if (ip.is_icmp_error()) return inbound_error(packet, ip, false);
  if (ip.icmp_type == type::echo) {
    if (!policy_.answer_ping) return drop(packet, DropReason::ping_refused);
    return pinged(packet, ip, Action::forward_wan);
  }
  if (ip.icmp_type != type::echo_reply && ip.icmp_type != type::timestamp_reply)
    return drop(packet, DropReason::unknown_icmp);
  Slot& slot = mappings_.slot(Part::icmp, destination_of(ip));
  if (!is_in_force(slot)) return drop(packet, DropReason::no_mapping);
  const FlowKey key{ip.protocol, slot.port, slot.host, ip.source, 0};
  const std::uint32_t record = flows_.find(flows_.hash_of(key), key);
  if (record == Flow::none || rules::sp_is_over(flows_[record].deadline_s, now_s_))
    return drop(packet, DropReason::no_session);
  if (is_external(slot.host)) {
    // The router's own ping: only its identifier may have changed.
    rewrite_destination(packet, ip, slot.host, slot.port);
    packet.action = Action::local;
    return;
  }
  if (ttl_is_over(packet, ip, Action::forward_wan)) return;
  Flow& flow = flows_[record];
  flow.deadline_s = rules::sp_deadline(now_s_, static_cast<std::uint32_t>(policy_.icmp_query.count()));
  touch_slot(flow);
  rewrite_destination(packet, ip, slot.host, slot.port);
  forward(packet, ip, Action::forward_lan);
}

bool Engine::Impl::icmp_checksum_is_right(const Packet& packet, const Ipv4& ip) const noexcept {
  return packet.partial_checksum ||
         packet::fold(packet::sum_of(ip.transport(), ip.transport_size())) == 0xffff;
}

/// Changes one end of the quoted packet, and every checksum above and inside it as far as it is there.
void Engine::Impl::rewrite_quoted(Ipv4& ip, Quoted& quoted, bool source, std::uint32_t address,
                                  std::uint16_t port, std::uint16_t id) noexcept {
  ChecksumChange outer;
  const auto put = [&](std::uint8_t* at, std::uint16_t value) {
    outer.word(packet::load16(at), value);
    packet::store16(at, value);
  };
  std::uint8_t* header = quoted.data;
  ChecksumChange addresses, header_change;
  addresses.address(source ? quoted.source : quoted.destination, address);
  header_change.add(addresses);
  header_change.word(quoted.id, id);
  put(header + 4, id);
  put(header + (source ? 12 : 16), static_cast<std::uint16_t>(address >> 16));
  put(header + (source ? 14 : 18), static_cast<std::uint16_t>(address));
  put(header + 10, header_change.apply(packet::load16(header + 10)));

  std::uint8_t* transport = quoted.transport();
  const std::uint32_t size = quoted.transport_size();
  ChecksumChange transport_change;
  const std::uint16_t port_before = source ? quoted.sport : quoted.dport;
  transport_change.word(port_before, port);
  switch (quoted.protocol) {
    case packet::protocol::icmp:
      put(transport + 4, port);
      put(transport + 2, transport_change.apply(packet::load16(transport + 2)));
      break;
    case packet::protocol::tcp:
      put(transport + (source ? 0 : 2), port);
      transport_change.add(addresses);
      if (size >= 18) put(transport + 16, transport_change.apply(packet::load16(transport + 16)));
      break;
    case packet::protocol::udp:
      put(transport + (source ? 0 : 2), port);
      if (const std::uint16_t before = packet::load16(transport + 6); before != 0) {
        transport_change.add(addresses);
        const std::uint16_t after = transport_change.apply(before);
        put(transport + 6, after == 0 ? std::uint16_t{0xffff} : after);
      }
      break;
    default:
      break;
  }
  outer.apply_at(ip.transport() + 2);
  (source ? quoted.source : quoted.destination) = address;
  (source ? quoted.sport : quoted.dport) = port;
  quoted.id = id;
}

/// An error of an internal host (or of the router) about a packet that came in: the quoted destination is
/// internal.
void Engine::Impl::outbound_error(Packet& packet, Ipv4& ip, bool hairpin) {
  if (!passes(ip.icmp_type)) return drop(packet, DropReason::unknown_icmp);
  if (!icmp_checksum_is_right(packet, ip)) return drop(packet, DropReason::bad_icmp_checksum);
  if (packet.from == Side::lan && ttl_is_over(packet, ip, Action::forward_lan)) return;
  Quoted quoted;
  if (!packet::parse_quoted(ip, quoted) || !quoted.has_ports || quoted.source != ip.destination)
    return drop(packet, DropReason::icmp_fits_nothing);
  const Part part = part_of_quoted(quoted);
  const FlowKey key{quoted.protocol, quoted.dport, quoted.destination, quoted.source,
                    part == Part::icmp ? std::uint16_t{0} : quoted.sport};
  ExternalPort external{address_of(key.host), running(part, key)};
  if (!external) {
    // A UDP lease lets packets in without a flow.
    external = find_mapping(part, quoted.destination, quoted.dport);
    if (external && !mappings_.slot(part, external).is_lease()) external = {};
  }
  if (!external || !is_in_force(mappings_.slot(part, external)))
    return drop(packet, DropReason::icmp_fits_nothing);
  if (packet.from == Side::lan) rewrite_id(ip, ip.source);
  const std::uint32_t outside = pairing_.address(external.address);
  rewrite_quoted(ip, quoted, false, outside, external.number, quoted.id);
  ChecksumChange change;
  change.address(ip.source, outside);
  packet::store32(ip.data + 12, outside);
  change.apply_at(ip.data + 10);
  ip.source = outside;
  if (hairpin) return inbound_error(packet, ip, true);
  forward(packet, ip, Action::forward_wan);
}

/// An error about a packet that we sent: the quoted source is ours.
void Engine::Impl::inbound_error(Packet& packet, Ipv4& ip, bool hairpin) {
  if (!passes(ip.icmp_type)) return drop(packet, DropReason::unknown_icmp);
  if (!icmp_checksum_is_right(packet, ip)) return drop(packet, DropReason::bad_icmp_checksum);
  Quoted quoted;
  if (!packet::parse_quoted(ip, quoted) || quoted.source != ip.destination)
    return drop(packet, DropReason::icmp_fits_nothing);
  if (!quoted.has_ports) {
    // Only the router itself sends other protocols from this address.
    if (hairpin) return drop(packet, DropReason::icmp_fits_nothing);
    packet.action = Action::local;
    return;
  }
  const Part part = part_of_quoted(quoted);
  const Slot& slot = mappings_.slot(part, {address_of(quoted.source), quoted.sport});
  if (!is_in_force(slot)) {
    if (!hairpin && is_own(part, quoted.sport)) {
      packet.action = Action::local;
      return;
    }
    return drop(packet, DropReason::icmp_fits_nothing);
  }
  const FlowKey key{quoted.protocol, slot.port, slot.host, quoted.destination,
                    part == Part::icmp ? std::uint16_t{0} : quoted.dport};
  if (running(part, key) != quoted.sport) return drop(packet, DropReason::icmp_fits_nothing);
  const bool of_router = is_external(slot.host);
  if (!of_router && !hairpin && ttl_is_over(packet, ip, Action::forward_wan)) return;
  const bool hidden = !of_router && (!quoted.dont_fragment || quoted.more_fragments);
  rewrite_quoted(ip, quoted, true, slot.host, slot.port, hidden ? show_id(slot.host, quoted.id) : quoted.id);
  if (of_router) {
    packet.action = Action::local;
    return;
  }
  ChecksumChange change;
  change.address(ip.destination, slot.host);
  packet::store32(ip.data + 16, slot.host);
  change.apply_at(ip.data + 10);
  ip.destination = slot.host;
  forward(packet, ip, Action::forward_lan);
}

std::uint32_t Engine::Impl::lan_address_for(std::uint32_t host) const noexcept {
  for (const auto& [net, address] : lan_addresses_)
    if (net.contains(host)) return address;
  return lan_gateway_.empty() ? 0 : lan_gateway_.front();
}

/// Never about ICMP errors, later fragments, or what was sent to or from many (N5508-34).
void Engine::Impl::send_icmp_error(const Ipv4& about, std::uint8_t icmp_type, std::uint8_t code,
                                   Action where) {
  if (where == Action::forward_lan ? !policy_.icmp_to_lan : !policy_.icmp_to_wan) return;
  if (about.fragment_offset) return;
  if (about.protocol == packet::protocol::icmp && !about.is_icmp_query()) return;
  if (about.destination >> 28 >= 14 || about.source >> 28 >= 14 || about.source >> 24 == 0) return;
  const std::uint32_t from = where == Action::forward_lan     ? lan_address_for(about.source)
                             : is_external(about.destination) ? about.destination
                                                              : first_external_;
  if (from == 0) return;
  if (icmp_second_ != now_s_) {
    icmp_second_ = now_s_;
    icmp_sent_ = 0;
  }
  if (++icmp_sent_ > errors_per_second) return;
  const auto octets = packet::make_icmp_error(icmp_type, code, 0, from, about);
  sink_->emit(octets, where);
}

}  // namespace sallyport::nat
