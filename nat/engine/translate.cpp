#include "nat/engine/engine_impl.hpp"
#include "nat/packet/build.hpp"

// The way of a packet: outbound, inbound, hairpin; TCP sessions; rewriting.

namespace sallyport::nat {
namespace {

using packet::ChecksumChange;
using packet::Ipv4;
using packet::Malformed;

constexpr std::size_t most_in_batch = 32;

/// 0/8, 127/8, 169.254/16, 224/4, 240/4: no host is reached there through a router (POL-NET-03).
constexpr bool is_special(std::uint32_t address) noexcept {
  const std::uint32_t top = address >> 24;
  return top == 0 || top == 127 || top >= 224 || address >> 16 == 0xa9fe;
}
constexpr bool is_private(std::uint32_t address) noexcept {
  return address >> 24 == 10 || address >> 20 == 0xac1 || address >> 16 == 0xc0a8;
}

constexpr bool has_ports(const Ipv4& ip) noexcept {
  return ip.protocol == packet::protocol::tcp || ip.protocol == packet::protocol::udp;
}

FlowKey outbound_key(const Ipv4& ip) noexcept {
  return {ip.protocol, ip.sport, ip.source, ip.destination,
          ip.protocol == packet::protocol::icmp ? std::uint16_t{0} : ip.dport};
}
FlowKey inbound_key(const Ipv4& ip, const Slot& slot) noexcept {
  return {ip.protocol, slot.port, slot.host, ip.source,
          ip.protocol == packet::protocol::icmp ? std::uint16_t{0} : ip.sport};
}

}  // namespace

bool Engine::Impl::is_lan_host(std::uint32_t address) const noexcept {
  for (const Net& net : lan_)
    if (net.contains(address)) return !net.is_end(address) && !is_gateway(address) && !is_special(address);
  return false;
}

/// What cannot come from a WAN, whoever its provider is.
bool Engine::Impl::is_impossible_source(std::uint32_t address) const noexcept {
  return is_special(address) || in_any(lan_, address) || is_gateway(address);
}

bool Engine::Impl::is_martian_source(std::uint32_t address) const noexcept {
  return is_impossible_source(address) || (policy_.drop_private_wan_sources && is_private(address));
}

void Engine::Impl::translate(std::span<Packet> batch, TimePoint now, PacketSink& sink) {
  set_now(now);
  sink_ = &sink;
  std::array<Work, most_in_batch> work;
  while (!batch.empty()) {
    const std::size_t count = std::min(batch.size(), most_in_batch);
    look_ahead(batch.first(count), std::span{work}.first(count));
    for (std::size_t i = 0; i < count; ++i) {
      pass(batch[i], work[i]);
      if (batch[i].action == Action::drop) ++drops_[static_cast<std::size_t>(batch[i].reason)];
    }
    batch = batch.subspan(count);
  }
  if (!made_.empty()) take_made(sink);
  sink_ = nullptr;
}

/// Fetches, for all packets of a batch at once, the lines of memory that pass() will need one after the
/// other. What it finds are guesses: an earlier packet of the batch may make or end state of a later one.
void Engine::Impl::look_ahead(std::span<Packet> batch, std::span<Work> work) const {
  for (std::size_t i = 0; i < batch.size(); ++i) {
    Work& next = work[i];
    next.malformed = packet::parse({batch[i].data, batch[i].size}, batch[i].gso, next.ip);
    next.hashed = false;
    next.candidate = Flow::none;
    const Ipv4& ip = next.ip;
    if (next.malformed != Malformed::no || ip.is_fragment() || !has_ports(ip)) continue;
    if (batch[i].from == Side::lan) {
      next.key = outbound_key(ip);
      next.hash = flows_.hash_of(next.key);
      next.hashed = true;
      flows_.prefetch_index(next.hash);
    } else if (batch[i].from == Side::wan) {
      mappings_.prefetch(part_of_protocol(ip.protocol), destination_of(ip));
    }
  }
  for (std::size_t i = 0; i < batch.size(); ++i) {
    Work& next = work[i];
    const Ipv4& ip = next.ip;
    if (next.hashed || batch[i].from != Side::wan || next.malformed != Malformed::no || ip.is_fragment() ||
        !has_ports(ip))
      continue;
    const Slot& slot = mappings_.slot(part_of_protocol(ip.protocol), destination_of(ip));
    if (slot.kind == SlotKind::free) continue;
    if (slot.is_lease()) __builtin_prefetch(&mappings_.lease(slot.aux), 1);
    next.key = inbound_key(ip, slot);
    next.hash = flows_.hash_of(next.key);
    next.hashed = true;
    flows_.prefetch_index(next.hash);
  }
  for (std::size_t i = 0; i < batch.size(); ++i)
    if (work[i].hashed) {
      work[i].candidate = flows_.candidate(work[i].hash);
      flows_.prefetch_record(work[i].candidate);
    }
}

/// The flow of `work.key` now.
std::uint32_t Engine::Impl::lookup(const Work& work) const noexcept {
  // A record is only trusted by its key: it may have been freed, and used again, since the look ahead.
  if (work.candidate != Flow::none && work.candidate < flows_.high_water() &&
      flows_[work.candidate].is(work.key))
    return work.candidate;
  return flows_.find(work.hash, work.key);
}

void Engine::Impl::drop(Packet& packet, DropReason reason) noexcept {
  packet.action = Action::drop;
  packet.reason = reason;
}

void Engine::Impl::pass(Packet& packet, Work& work) {
  if (packet.size != 0 && std::to_integer<unsigned>(*packet.data) >> 4 == 6)
    return firewall6_.pass(packet, *sink_);
  packet.action = Action::drop;
  packet.reason = DropReason::none;
  if (work.malformed != Malformed::no) {
    packet.reason = reason_of(work.malformed);
    return;
  }
  packet.size = work.ip.size;
  if (work.ip.is_fragment()) {
    pass_fragment(packet, work);
    return;
  }
  from_its_side(packet, work);
}

// --- from which side ---

void Engine::Impl::from_its_side(Packet& packet, Work& work) {
  switch (packet.from) {
    case Side::lan:
      from_lan(packet, work);
      break;
    case Side::wan:
      from_wan(packet, work);
      break;
    case Side::router:
      from_router(packet, work);
      break;
  }
}

void Engine::Impl::from_lan(Packet& packet, Work& work) {
  Ipv4& ip = work.ip;
  if (work.hashed) {
    const std::uint32_t record = lookup(work);
    // A flow stands for every check that its first packet passed.
    if (record != Flow::none && !rules::sp_is_over(flows_[record].deadline_s, now_s_)) {
      outbound(packet, work, is_external(ip.destination));
      return;
    }
  }
  if (!is_lan_host(ip.source)) return drop(packet, DropReason::spoofed_source);
  const std::uint32_t destination = ip.destination;
  if (is_special(destination)) return drop(packet, DropReason::martian_destination);
  const bool to_external = is_external(destination);
  if (!to_external && is_gateway(destination)) {
    packet.action = Action::local;
    return;
  }
  if (in_any(lan_, destination)) {
    for (const Net& net : lan_)
      if (net.is_end(destination) && net.contains(destination))
        return drop(packet, DropReason::martian_destination);
    if (ttl_is_over(packet, ip, Action::forward_lan)) return;
    return forward(packet, ip, Action::forward_lan);
  }
  if (in_any(untranslated_, destination)) {
    if (ttl_is_over(packet, ip, Action::forward_lan)) return;
    return forward(packet, ip, Action::forward_wan);
  }
  if (!has_external_) return drop(packet, DropReason::no_external_address);
  if (ip.protocol == packet::protocol::icmp) {
    if (ip.is_icmp_error()) return outbound_error(packet, ip, to_external);
    if (to_external) {
      // Pinging the external address from inside: the gateway answers, as on any address of its own.
      if (ip.icmp_type == packet::icmp_type::echo) return pinged(packet, ip, Action::forward_lan);
      return drop(packet, DropReason::unknown_icmp);
    }
    return outbound_query(packet, work);
  }
  if (!has_ports(ip)) return refuse_protocol(packet, ip);
  if (!work.hashed) {
    work.key = outbound_key(ip);
    work.hash = flows_.hash_of(work.key);
    work.hashed = true;
    work.candidate = Flow::none;
  }
  outbound(packet, work, to_external);
}

void Engine::Impl::from_router(Packet& packet, Work& work) {
  Ipv4& ip = work.ip;
  if (ip.protocol == packet::protocol::icmp && has_external_) {
    if (ip.is_icmp_error()) {
      packet::Quoted quoted;
      const bool fits = packet::parse_quoted(ip, quoted);
      // Its own errors tell the outside nothing of internal addresses (N5508-28).
      if (fits && in_any(lan_, quoted.destination) && !is_gateway(quoted.destination))
        return outbound_error(packet, ip, false);
      if (in_any(lan_, ip.source)) return drop(packet, DropReason::icmp_fits_nothing);
      // Nothing listens there, no such protocol, a last hop to where nobody is mapped: to the outside all
      // that is silence (POL-NET-04).
      const bool closed =
          ip.icmp_type == packet::icmp_type::unreachable && (ip.icmp_code == 2 || ip.icmp_code == 3);
      const bool last_hop = ip.icmp_type == packet::icmp_type::time_exceeded && fits && quoted.has_ports &&
                            is_external(quoted.destination) && quoted.protocol != packet::protocol::icmp &&
                            !is_in_force(mappings_.slot(part_of_protocol(quoted.protocol),
                                                        {address_of(quoted.destination), quoted.dport}));
      if (closed || last_hop) return drop(packet, DropReason::no_mapping);
      return forward(packet, ip, Action::forward_wan);
    }
    // Its own pings share the identifiers with the hosts'.
    if (is_external(ip.source) && ip.icmp_type == packet::icmp_type::echo)
      return outbound_query(packet, work);
  }
  forward(packet, ip, Action::forward_wan);
}

void Engine::Impl::from_wan(Packet& packet, Work& work) {
  Ipv4& ip = work.ip;
  if (is_external(ip.destination)) {
    // LAND: a hairpin's flow has such an address as its peer, and must not vouch for it here (NSEC-03).
    if (is_external(ip.source)) return drop(packet, DropReason::martian_source);
    if (has_ports(ip)) return inbound(packet, work, false);
    if (is_martian_source(ip.source)) return drop(packet, DropReason::martian_source);
    if (ip.protocol == packet::protocol::icmp) return inbound_icmp(packet, work);
    return drop(packet, DropReason::unknown_protocol);
  }
  if (is_special(ip.destination)) {
    const bool spoofed = ip.destination >> 24 >= 224 && ip.source != 0 && is_impossible_source(ip.source);
    return drop(packet, spoofed ? DropReason::martian_source : DropReason::martian_destination);
  }
  if (in_any(lan_, ip.destination)) {
    // Back from where packets pass untranslated; everybody else has no business with internal addresses.
    if (in_any(untranslated_, ip.source) && is_lan_host(ip.destination) && !in_any(lan_, ip.source) &&
        !is_gateway(ip.source)) {
      if (ttl_is_over(packet, ip, Action::forward_wan)) return;
      return forward(packet, ip, Action::forward_lan);
    }
    return drop(packet, DropReason::internal_destination);
  }
  if (is_martian_source(ip.source)) return drop(packet, DropReason::martian_source);
  if (is_gateway(ip.destination)) {
    packet.action = Action::local;
    return;
  }
  drop(packet, has_external_ ? DropReason::not_ours : DropReason::no_external_address);
}

void Engine::Impl::refuse_protocol(Packet& packet, const Ipv4& ip) {
  send_icmp_error(ip, packet::icmp_type::unreachable, 2, Action::forward_lan);
  drop(packet, DropReason::unknown_protocol);
}

// --- outbound ---

void Engine::Impl::outbound(Packet& packet, Work& work, bool hairpin) {
  Ipv4& ip = work.ip;
  const Part part = part_of_protocol(ip.protocol);
  std::uint32_t record = lookup(work);
  if (record != Flow::none && rules::sp_is_over(flows_[record].deadline_s, now_s_)) {
    remove_flow(record);
    record = Flow::none;
  }
  if (record != Flow::none && (flows_[record].flags & Flow::ended)) {
    if (!(part == Part::tcp && rules::sp_plain_syn(ip.tcp_flags))) {
      answer_ended(ip, Action::forward_lan);
      return drop(packet, DropReason::ended);
    }
    remove_flow(record);
    record = Flow::none;
  }
  if (ttl_is_over(packet, ip, Action::forward_lan)) return;
  if (hairpin) {
    const Slot& target = mappings_.slot(part, destination_of(ip));
    if (!is_in_force(target) || is_external(target.host)) return drop(packet, DropReason::no_mapping);
    if (target.host == ip.source && target.port == ip.sport)
      return drop(packet, DropReason::hairpin_to_itself);
  }

  const std::uint32_t host = ip.source;
  ExternalPort external;
  if (record != Flow::none) {
    Flow& flow = flows_[record];
    external = external_of(flow);
    // A flow of a lease must not outlive it; an implicit slot outlives its flows.
    if ((flow.flags & Flow::of_explicit) && !is_in_force(mappings_.slot(part, external)))
      return drop(packet, DropReason::ended);
    if (!carry(flow, ip, true, packet)) return;
    if (!(flow.flags & Flow::answered)) mark_answered(record);
    touch_slot(flow);
  } else {
    const bool syn = part == Part::tcp && rules::sp_plain_syn(ip.tcp_flags);
    external = mapping_of(part, ip.source, ip.sport);
    if (!external && find_mapping(part, ip.source, ip.sport)) return drop(packet, DropReason::ended);
    const bool leased = external && mappings_.slot(part, external).is_lease();
    bool untracked = false;
    if (part == Part::tcp && !syn) {
      untracked = leased && mappings_.lease(mappings_.slot(part, external).aux).untracked_until_s > now_s_;
      if (!untracked) return drop(packet, DropReason::no_session);
    }
    DropReason why{};
    if (!external) {
      external = make_implicit(part, ip.source, ip.sport, why);
      if (!external) {
        const bool policy = why == DropReason::mapping_limit || why == DropReason::mapping_rate;
        send_icmp_error(ip, packet::icmp_type::unreachable, policy ? 13 : 1, Action::forward_lan);
        return drop(packet, why);
      }
    }
    if (!untracked) {
      record = new_flow(work.hash, work.key, external, false, why);
      if (record == Flow::none) {
        Slot& slot = mappings_.slot(part, external);
        // A lease without filters works even without a free entry (POL-NET-14), and what its host answered
        // to a flood of UDP leaves it its real peers, though it is at its own limit.
        if (leased && (why == DropReason::table_full || part == Part::udp)) {
          if (part == Part::tcp)
            mappings_.lease(slot.aux).untracked_until_s =
                rules::sp_deadline(now_s_, static_cast<std::uint32_t>(policy_.tcp_established.count()));
        } else {
          if (slot.kind == SlotKind::implicit && slot.aux == Flow::none) free_slot(part, external);
          send_icmp_error(ip, packet::icmp_type::unreachable, why == DropReason::flow_limit ? 13 : 1,
                          Action::forward_lan);
          return drop(packet, why);
        }
      } else {
        Flow& flow = flows_[record];
        if (part == Part::tcp) {
          start_tcp(flow, ip, true);
          flow.deadline_s =
              rules::sp_deadline(now_s_, static_cast<std::uint32_t>(policy_.tcp_half_open.count()));
        } else {
          flow.deadline_s = rules::sp_deadline(now_s_, static_cast<std::uint32_t>(policy_.udp_idle.count()));
        }
        touch_slot(flow);
      }
    }
  }
  const Slot& slot = mappings_.slot(part, external);
  if ((record == Flow::none || (flows_[record].flags & Flow::of_explicit)) && slot.is_lease()) {
    Lease& lease = mappings_.lease(slot.aux);
    ++lease.packets_out;
    lease.bytes_out += ip.size;
    lease.last_packet = now_;
  }
  rewrite_id(ip, host);
  rewrite_source(packet, ip, pairing_.address(external.address), external.number);
  if (hairpin) return inbound(packet, work, true);
  forward(packet, ip, Action::forward_wan);
}

void Engine::Impl::touch_slot(Flow& flow) {
  // Coarse deadlines move once a second, so the slot's line of memory is fetched no more often.
  if (flow.deadline_s <= flow.slot_deadline_s) return;
  flow.slot_deadline_s = flow.deadline_s;
  Slot& slot = mappings_.slot(part_of_protocol(flow.protocol), external_of(flow));
  if (slot.kind != SlotKind::implicit && slot.kind != SlotKind::draining) return;
  if (slot.deadline_s < flow.deadline_s) slot.deadline_s = flow.deadline_s;
}

// --- inbound ---

void Engine::Impl::inbound(Packet& packet, Work& work, bool hairpin) {
  Ipv4& ip = work.ip;
  const Part part = part_of_protocol(ip.protocol);
  const ExternalPort external = destination_of(ip);
  Slot& slot = mappings_.slot(part, external);
  if (!is_in_force(slot)) {
    if (hairpin) return drop(packet, DropReason::no_mapping);
    retire(part, external);
    if (slot.kind == SlotKind::quarantine && !rules::sp_is_over(slot.deadline_s, now_s_) &&
        part == Part::tcp) {
      const FlowKey key = inbound_key(ip, slot);
      const std::uint32_t ended = flows_.find(flows_.hash_of(key), key);
      if (ended != Flow::none && (flows_[ended].flags & Flow::ended) && !rules::sp_plain_syn(ip.tcp_flags)) {
        answer_ended(ip, Action::forward_wan);
        return drop(packet, DropReason::ended);
      }
    }
    return inbound_unmapped(packet, ip);
  }

  // The slot may name another endpoint than when the batch was looked ahead, and a hairpin has a key of its
  // own.
  const FlowKey key = inbound_key(ip, slot);
  if (hairpin || !work.hashed || key.first() != work.key.first() || key.second() != work.key.second()) {
    work.key = key;
    work.hash = flows_.hash_of(key);
    work.hashed = true;
    work.candidate = Flow::none;
  }
  std::uint32_t record = lookup(work);
  if (record != Flow::none && rules::sp_is_over(flows_[record].deadline_s, now_s_)) {
    remove_flow(record);
    record = Flow::none;
    if (!is_in_force(slot)) {
      if (hairpin) return drop(packet, DropReason::no_mapping);
      return inbound_unmapped(packet, ip);
    }
  }
  if (record == Flow::none && !hairpin && is_martian_source(ip.source))
    return drop(packet, DropReason::martian_source);

  Lease* lease = slot.is_lease() ? &mappings_.lease(slot.aux) : nullptr;
  if (lease) {
    if (lease->flags & Lease::disabled) return drop(packet, DropReason::disabled);
    // Filters are for who comes from outside; what answers the host has been asked (PCP-13.3-11).
    const bool answers = record != Flow::none && !(flows_[record].flags & (Flow::inbound | Flow::ended));
    if ((lease->flags & Lease::filtered) && !answers && !filters_allow(slot.aux, ip.source, ip.sport) &&
        !((lease->flags & Lease::outbound) && outbound_allows(key)))
      return drop(packet, DropReason::filtered);
  }
  const bool syn = part == Part::tcp && rules::sp_plain_syn(ip.tcp_flags);
  if (record != Flow::none && (flows_[record].flags & Flow::ended)) {
    // The endpoint holds another port now: what comes for its ended flow by that one is new.
    if (part == Part::tcp && !syn) {
      answer_ended(ip, Action::forward_wan);
      return drop(packet, DropReason::ended);
    }
    remove_flow(record);
    record = Flow::none;
  }
  if (record != Flow::none && flows_[record].external_port != external.number) {
    // Two external ports of one endpoint: the answer wears the one that the peer sent to last.
    if (part == Part::tcp && !syn) return drop(packet, DropReason::no_session);
    if (part == Part::tcp) {
      const std::uint8_t state = flows_[record].tcp.state;
      if (state != rules::SP_TCP_BOTH_FIN && state != rules::SP_TCP_TRANS)
        return drop(packet, DropReason::no_session);
    }
    move_flow(record, external);
    if (lease) flows_[record].flags |= Flow::of_explicit;
  }

  if (record != Flow::none) {
    if (!hairpin && ttl_is_over(packet, ip, Action::forward_wan)) return;
    Flow& flow = flows_[record];
    const bool counted = counts(flow);
    if (!carry(flow, ip, false, packet)) return;
    if (!counted && counts(flow)) mark_confirmed(record);
    if (!(flow.flags & Flow::inbound) || part == Part::tcp) touch_slot(flow);
  } else {
    bool track = false;
    if (lease) {
      if (part == Part::tcp) {
        track = syn;
        if (!syn && lease->untracked_until_s <= now_s_) return drop(packet, DropReason::no_session);
      } else {
        track = lease->flags & Lease::second_port;
      }
    } else if (slot.kind == SlotKind::draining) {
      return drop(packet, DropReason::filtered);
    } else {
      if (!outbound_allows(key)) return drop(packet, DropReason::filtered);
      if (part == Part::tcp && !syn) return drop(packet, DropReason::no_session);
      track = part == Part::tcp;
    }
    if (!hairpin && ttl_is_over(packet, ip, Action::forward_wan)) return;
    if (track) {
      DropReason why{};
      record = new_flow(work.hash, key, external, true, why);
      if (record == Flow::none) {
        if (!lease || (lease->flags & Lease::filtered)) return drop(packet, why);
        if (part == Part::tcp)
          lease->untracked_until_s =
              rules::sp_deadline(now_s_, static_cast<std::uint32_t>(policy_.tcp_established.count()));
      } else {
        Flow& flow = flows_[record];
        if (part == Part::tcp) {
          start_tcp(flow, ip, false);
          flow.deadline_s =
              rules::sp_deadline(now_s_, static_cast<std::uint32_t>(policy_.tcp_half_open.count()));
        } else {
          flow.deadline_s = rules::sp_deadline(now_s_, static_cast<std::uint32_t>(policy_.udp_idle.count()));
        }
        touch_slot(flow);
      }
    }
  }
  if (lease) {
    ++lease->packets_in;
    lease->bytes_in += ip.size;
    lease->last_packet = now_;
  }
  rewrite_destination(packet, ip, slot.host, slot.port);
  forward(packet, ip, Action::forward_lan);
}

void Engine::Impl::pinged(Packet& packet, Ipv4& ip, Action back) {
  if (!is_elsewhere(ip.destination)) {
    packet.action = Action::local;
    return;
  }
  if (!policy_.answer_ping) return drop(packet, DropReason::ping_refused);
  if (ip.is_fragment()) return drop(packet, DropReason::ping_refused);
  if (!icmp_checksum_is_right(packet, ip)) return drop(packet, DropReason::bad_icmp_checksum);
  constexpr std::uint8_t ttl = 64;
  ChecksumChange lifetime, kind;
  lifetime.word(static_cast<std::uint16_t>(ip.ttl << 8 | ip.protocol),
                static_cast<std::uint16_t>(ttl << 8 | ip.protocol));
  std::swap(ip.source, ip.destination);
  packet::store32(ip.data + 12, ip.source);
  packet::store32(ip.data + 16, ip.destination);
  ip.data[8] = ip.ttl = ttl;
  lifetime.apply_at(ip.data + 10);
  kind.word(static_cast<std::uint16_t>(packet::icmp_type::echo << 8), 0);
  ip.transport()[0] = packet::icmp_type::echo_reply;
  if (!packet.partial_checksum) kind.apply_at(ip.transport() + 2);
  packet.action = back;
}

/// To the gateway's own services where they listen, never to its control ports; else silence (POL-NET-04).
void Engine::Impl::inbound_unmapped(Packet& packet, const Ipv4& ip) {
  if (is_martian_source(ip.source)) return drop(packet, DropReason::martian_source);
  if (is_elsewhere(ip.destination)) return drop(packet, DropReason::no_mapping);
  const Part part = part_of_protocol(ip.protocol);
  const bool control = part == Part::udp && (ip.dport == 1900 || ip.dport == 5350 || ip.dport == 5351);
  const Transport transport = part == Part::tcp ? Transport::tcp : Transport::udp;
  if (!control && part != Part::icmp &&
      own_ports_.expects({transport, ip.source, ip.destination, ip.sport, ip.dport})) {
    packet.action = Action::local;
    return;
  }
  drop(packet, DropReason::no_mapping);
}

void Engine::Impl::answer_ended(const Ipv4& ip, Action where) {
  if (ip.protocol != packet::protocol::tcp || (ip.tcp_flags & packet::tcp_flag::rst)) return;
  const auto rst = packet::make_rst(ip);
  sink_->emit(rst, where);
}

void Engine::Impl::take_made(PacketSink& sink) {
  for (const auto& [octets, where] : made_) sink.emit(octets, where);
  made_.clear();
  firewall6_.take_made(sink);
}

void Engine::Impl::reset_both_ends(const Flow& flow) {
  // Beyond this many at once the ends hear of it when they next send.
  constexpr std::size_t most_made = 4096;
  if (flow.protocol != packet::protocol::tcp || (flow.flags & Flow::ended) || !has_external_) return;
  if (flow.tcp.state == rules::SP_TCP_BOTH_FIN || flow.tcp.state == rules::SP_TCP_TRANS) return;
  if (rules::sp_is_over(flow.deadline_s, now_s_) || made_.size() >= most_made) return;
  made_.emplace_back(packet::make_rst(packet::RstTo{flow.peer, flow.host, flow.peer_port, flow.host_port,
                                                    flow.tcp.ack_host, flow.tcp.ack_peer}),
                     Action::forward_lan);
  packet::RstTo to_peer{external_of(flow.host), flow.peer,         flow.external_port,
                        flow.peer_port,         flow.tcp.ack_peer, flow.tcp.ack_host};
  Action where = Action::forward_wan;
  if (is_external(flow.peer)) {  // a hairpin: the peer is a host too
    const Slot& slot = mappings_.slot(Part::tcp, {address_of(flow.peer), flow.peer_port});
    if (!is_in_force(slot)) return;
    to_peer.destination = slot.host;
    to_peer.dport = slot.port;
    where = Action::forward_lan;
  }
  made_.emplace_back(packet::make_rst(to_peer), where);
}

// --- flows ---

bool Engine::Impl::carry(Flow& flow, const Ipv4& ip, bool from_inside, Packet& packet) {
  if (ip.protocol == packet::protocol::tcp) return carry_tcp(flow, ip, from_inside, packet);
  // Outbound always refreshes; inbound only what was opened from inside (NAT-X-08).
  if (from_inside || !(flow.flags & Flow::inbound))
    flow.deadline_s = rules::sp_deadline(now_s_, static_cast<std::uint32_t>(policy_.udp_idle.count()));
  return true;
}

namespace {

rules::sp_segment segment_of(const Ipv4& ip, bool from_inside) noexcept {
  std::uint8_t scale = rules::SP_NO_SCALE;
  if (ip.tcp_flags & rules::SP_SYN)
    if (const std::uint32_t at = packet::find_tcp_option(ip, 3, 3))
      scale = std::min<std::uint8_t>(ip.transport()[at], 14);
  return {ip.seq, ip.ack,     ip.transport_size() - ip.transport_header_length, ip.window, ip.tcp_flags,
          scale,  from_inside};
}

}  // namespace

void Engine::Impl::start_tcp(Flow& flow, const Ipv4& ip, bool from_inside) const {
  const auto segment = segment_of(ip, from_inside);
  rules::sp_tcp_start(&flow.tcp, &segment);
}

bool Engine::Impl::carry_tcp(Flow& flow, const Ipv4& ip, bool from_inside, Packet& packet) {
  using namespace rules;
  const auto segment = segment_of(ip, from_inside);
  const bool unconfirmed = (flow.flags & Flow::inbound) && !(flow.flags & Flow::confirmed);
  const sp_u32 result = sp_tcp_carry(&flow.tcp, &segment, unconfirmed);
  if (result == SP_CARRY_DROP) {
    packet.reason = DropReason::out_of_window;
    return false;
  }
  if (result & SP_CARRY_CONFIRMS) flow.flags |= Flow::confirmed;
  const auto transitory = static_cast<std::uint32_t>(policy_.tcp_transitory.count());
  if (result & SP_CARRY_HALF_OPEN)
    flow.deadline_s = sp_deadline(now_s_, static_cast<std::uint32_t>(policy_.tcp_half_open.count()));
  else if (result & SP_CARRY_TRANSITORY)
    flow.deadline_s = sp_deadline(now_s_, transitory);
  else if (result & SP_CARRY_BY_STATE)
    flow.deadline_s =
        sp_deadline(now_s_, unconfirmed && !(result & SP_CARRY_CONFIRMS)
                                ? transitory
                                : sp_tcp_timeout(flow.tcp.state,
                                                 static_cast<std::uint32_t>(policy_.tcp_established.count()),
                                                 transitory));
  return true;
}

// --- rewriting ---

void Engine::Impl::forward(Packet& packet, Ipv4& ip, Action where) noexcept {
  if (ip.protocol == packet::protocol::tcp && (ip.tcp_flags & packet::tcp_flag::syn) && mss_ != 0)
    clamp_mss(packet, ip);
  const std::uint8_t ttl = ttl_ == TtlMode::keep        ? ip.ttl
                           : ttl_ == TtlMode::decrement ? static_cast<std::uint8_t>(ip.ttl - 1)
                           : ip.ttl == 255              ? std::uint8_t{255}
                                                        : static_cast<std::uint8_t>(ip.ttl + 1);
  ChecksumChange change;
  change.word(static_cast<std::uint16_t>(ip.ttl << 8 | ip.protocol),
              static_cast<std::uint16_t>(ttl << 8 | ip.protocol));
  ip.data[8] = ttl;
  change.apply_at(ip.data + 10);
  packet.action = where;
  packet.reason = DropReason::none;
  ++packets_;
}

bool Engine::Impl::ttl_is_over(Packet& packet, const Ipv4& ip, Action back) {
  if (ttl_ != TtlMode::decrement || ip.ttl > 1) return false;
  send_icmp_error(ip, packet::icmp_type::time_exceeded, 0, back);
  drop(packet, DropReason::ttl_expired);
  return true;
}

void Engine::Impl::rewrite_source(const Packet& packet, Ipv4& ip, std::uint32_t source,
                                  std::uint16_t port) noexcept {
  ChecksumChange address;
  address.address(ip.source, source);
  packet::store32(ip.data + 12, source);
  address.apply_at(ip.data + 10);
  ip.source = source;
  rewrite_transport(packet, ip, address, 0, port);
  ip.sport = port;
}

void Engine::Impl::rewrite_destination(const Packet& packet, Ipv4& ip, std::uint32_t destination,
                                       std::uint16_t port) noexcept {
  ChecksumChange address;
  address.address(ip.destination, destination);
  packet::store32(ip.data + 16, destination);
  address.apply_at(ip.data + 10);
  ip.destination = destination;
  rewrite_transport(packet, ip, address, 2, port);
  ip.dport = port;
}

/// Puts a port (of an ICMP query: the identifier) and what it and the address do to the checksum.
void Engine::Impl::rewrite_transport(const Packet& packet, Ipv4& ip, const ChecksumChange& address,
                                     std::uint32_t port_at, std::uint16_t port) noexcept {
  std::uint8_t* transport = ip.transport();
  if (ip.protocol == packet::protocol::icmp) port_at = 4;
  ChecksumChange change;
  change.word(packet::load16(transport + port_at), port);
  packet::store16(transport + port_at, port);
  switch (ip.protocol) {
    case packet::protocol::icmp:
      change.apply_at(transport + 2);
      return;  // no pseudo-header
    case packet::protocol::tcp:
    case packet::protocol::udp: {
      const bool udp = ip.protocol == packet::protocol::udp;
      std::uint8_t* field = transport + (udp ? 6 : 16);
      const std::uint16_t before = packet::load16(field);
      if (packet.partial_checksum) {
        packet::store16(field, address.apply_to_partial(before));
        return;
      }
      if (udp && before == 0) return;  // no checksum stays none (NPKT-02)
      change.add(address);
      const std::uint16_t after = change.apply(before);
      packet::store16(field, udp && after == 0 ? std::uint16_t{0xffff} : after);
      return;
    }
    default:
      return;
  }
}

void Engine::Impl::clamp_mss(const Packet& packet, const Ipv4& ip) noexcept {
  if (ip.is_fragment()) return;
  const std::uint32_t at = packet::find_tcp_option(ip, 2, 4);
  if (at == 0) return;
  std::uint8_t* transport = ip.transport();
  const std::uint16_t before = packet::load16(transport + at);
  if (before <= mss_) return;
  packet::store16(transport + at, mss_);
  if (packet.partial_checksum) return;  // what the card will sum includes it
  ChecksumChange change;
  if (at % 2 == 0) {
    change.word(before, mss_);
  } else {
    // The option may stand at an odd offset: then its octets belong to two words.
    change.word(static_cast<std::uint16_t>(before << 8 | before >> 8),
                static_cast<std::uint16_t>(mss_ << 8 | mss_ >> 8));
  }
  change.apply_at(transport + 16);
}

std::uint16_t Engine::Impl::hide_id(std::uint32_t host, std::uint16_t id) const noexcept {
  return rules::sp_hide_id(id_secret_, host, id);
}

std::uint16_t Engine::Impl::show_id(std::uint32_t host, std::uint16_t id) const noexcept {
  return rules::sp_show_id(id_secret_, host, id);
}

void Engine::Impl::rewrite_id(Ipv4& ip, std::uint32_t host) noexcept {
  if (ip.dont_fragment && !ip.is_fragment()) return;
  const std::uint16_t id = hide_id(host, ip.id);
  ChecksumChange change;
  change.word(ip.id, id);
  packet::store16(ip.data + 4, id);
  change.apply_at(ip.data + 10);
  ip.id = id;
}

// --- fragments ---

void Engine::Impl::pass_fragment(Packet& packet, Work& work) {
  Ipv4& ip = work.ip;
  // Nothing is kept for packets that could not pass whole.
  if (packet.from == Side::lan && !is_lan_host(ip.source)) return drop(packet, DropReason::spoofed_source);
  if (packet.from == Side::wan && (is_martian_source(ip.source) || !is_external(ip.destination))) {
    if (is_external(ip.destination)) return drop(packet, DropReason::martian_source);
    return from_wan(packet, work);
  }
  if (packet.from == Side::router && !is_external(ip.source)) return from_router(packet, work);
  if (packet.from == Side::lan && !is_external(ip.destination) &&
      (is_special(ip.destination) || in_any(lan_, ip.destination) || is_gateway(ip.destination) ||
       in_any(untranslated_, ip.destination) || !has_external_))
    return from_lan(packet, work);
  if (!has_ports(ip) && ip.protocol != packet::protocol::icmp) {
    if (packet.from == Side::router) return forward(packet, ip, Action::forward_wan);
    if (packet.from == Side::lan && ip.fragment_offset == 0) return refuse_protocol(packet, ip);
    return drop(packet, DropReason::unknown_protocol);
  }
  if (ip.fragment_offset == 0 && ip.protocol == packet::protocol::icmp && ip.is_icmp_error())
    return drop(packet, DropReason::icmp_fits_nothing);  // its checksum cannot be judged

  FragmentFate fate;
  switch (fragments_.take(ip, packet.from, now_s_, fate)) {
    case Fragments::Next::hold:
      packet.action = Action::held;
      return;
    case Fragments::Next::overlap:
      return drop(packet, DropReason::fragment_overlap);
    case Fragments::Next::limit:
      return drop(packet, DropReason::fragment_limit);
    case Fragments::Next::dropped:
      return drop(packet, DropReason::fragment_of_dropped);
    case Fragments::Next::follow: {
      if (fate.action == Action::local) {
        packet.action = Action::local;
        return;
      }
      if (ttl_is_over(packet, ip, packet.from == Side::wan ? Action::forward_wan : Action::forward_lan))
        return;
      ChecksumChange change;
      change.address(ip.source, fate.source);
      change.address(ip.destination, fate.destination);
      packet::store32(ip.data + 12, fate.source);
      packet::store32(ip.data + 16, fate.destination);
      change.apply_at(ip.data + 10);
      if (fate.id_of) rewrite_id(ip, fate.id_of);
      return forward(packet, ip, fate.action);
    }
    case Fragments::Next::translate_first:
      break;
  }
  const Ipv4 before = ip;
  from_its_side(packet, work);
  fate.action = packet.action;
  fate.source = ip.source;
  fate.destination = ip.destination;
  fate.id_of = ip.id != before.id ? before.source : 0;
  for (auto& octets : fragments_.settle(before, before.source, before.destination, packet.from, fate))
    release_held(octets, fate);
}

void Engine::Impl::release_held(std::span<std::byte> octets, const FragmentFate& fate) {
  Packet packet{.data = octets.data(), .size = static_cast<std::uint32_t>(octets.size())};
  Ipv4 ip;
  if (packet::parse(octets, false, ip) != Malformed::no) return;
  if (fate.action != Action::local) {
    if (ttl_ == TtlMode::decrement && ip.ttl <= 1) return;
    ChecksumChange change;
    change.address(ip.source, fate.source);
    change.address(ip.destination, fate.destination);
    packet::store32(ip.data + 12, fate.source);
    packet::store32(ip.data + 16, fate.destination);
    change.apply_at(ip.data + 10);
    if (fate.id_of) rewrite_id(ip, fate.id_of);
    forward(packet, ip, fate.action);
  }
  sink_->emit(octets.first(ip.size), fate.action);
}

}  // namespace sallyport::nat
