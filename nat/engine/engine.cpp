#include "nat/engine/engine.hpp"

#include "nat/engine/engine_impl.hpp"

// What the control thread asks for: mappings, network, policy, sweeping.

namespace sallyport::nat {
namespace {

using std::chrono::duration_cast;
using std::chrono::seconds;

constexpr std::uint32_t never_s = 0xffffffff;
constexpr std::uint32_t sweep_parts = 16;
constexpr std::uint32_t lease_bits = 24;
/// How long static mappings of an earlier run stay in force when nobody asks for them again.
constexpr seconds orphan_time{60};

std::uint32_t floor_seconds(TimePoint time) {
  const auto count = duration_cast<seconds>(time.time_since_epoch()).count();
  return count <= 0 ? 0 : count >= never_s ? never_s : static_cast<std::uint32_t>(count);
}

std::optional<Net> net_of(const Prefix& prefix) {
  if (!prefix.address.is_v4() || prefix.length < 96) return std::nullopt;
  const unsigned bits = prefix.v4_bits();
  const std::uint32_t mask = bits == 0 ? 0 : ~std::uint32_t{0} << (32 - bits);
  return Net{prefix.address.v4_number() & mask, mask};
}

}  // namespace

Engine::Impl::Impl(const EngineOptions& options, const OwnPorts& own_ports)
    : hash_{options.secret},
      draws_{options.seed},
      id_secret_{SipHash{options.secret}(0x69702d6964)},
      ttl_{options.ttl},
      own_ports_{own_ports},
      shared_{options.shared},
      mappings_{hash_, options.shared},
      flows_{hash_},
      fragments_{hash_},
      firewall6_{hash_, options.ttl},
      hosts_{16, HostHasher{hash_}} {
  for (const Part part : {Part::tcp, Part::udp, Part::icmp}) mappings_.ports(part).set_all();
}

void Engine::Impl::set_now(TimePoint now) noexcept {
  now_ = now;
  now_s_ = floor_seconds(now);
  firewall6_.set_now(now, now_s_);
}

Lease* Engine::Impl::find_lease(MappingId id, std::uint32_t* found) noexcept {
  const auto number = static_cast<std::uint64_t>(id);
  const auto at = static_cast<std::uint32_t>(number & ((1U << lease_bits) - 1));
  if (at >= mappings_.lease_high_water()) return nullptr;
  Lease& lease = mappings_.lease(at);
  if (!(lease.flags & Lease::used) || lease.serial != number >> lease_bits) return nullptr;
  if (found) *found = at;
  return &lease;
}

bool Engine::Impl::filters_allow(std::uint32_t lease, std::uint32_t peer, std::uint16_t port) const {
  const auto filters = filters_.find(lease);
  if (filters == filters_.end()) return true;
  const Address address = Address::v4(peer);
  return std::any_of(filters->second.begin(), filters->second.end(),
                     [&](const RemoteFilter& filter) { return filter.allows(address, port); });
}

Result<Installed> Engine::Impl::install(const MappingSpec& spec, TimePoint now) {
  set_now(now);
  if (!spec.internal.address.is_v4()) return firewall6_.install(spec);
  if (!has_external_ && !spec.restore && !spec.is_static) return PlaneErrc::no_external_address;
  const Part part = part_of(spec.transport);
  const std::uint32_t host = spec.internal.address.v4_number();
  const std::uint16_t port = spec.internal.port.number();
  const bool insist = spec.insist || spec.restore || spec.is_static;
  const bool linked = spec.enabled && !spec.second_port;
  // The administrator's word, and a lease that was promised before a restart, stand above a flow that happens
  // to use the port: after a start packets may come before the leases are back (POL-STO-02).
  const bool first_come = spec.is_static || spec.restore;

  // The endpoint's own implicit mapping becomes this one and keeps its port (POL-OWN-04).
  std::uint16_t present = 0;
  if (shared_ && first_come && spec.suggested) give_up_orphan(part, spec.suggested->number(), host, port);
  if (linked) {
    present = mapping_of(part, host, port);
    // Not the plane's answer to a renewal; and between deadline and withdrawal the old one still stands.
    if (present == 0 && mappings_.find(part, host, port) != 0) return PlaneErrc::port_taken;
    if (present != 0 && mappings_.slot(part, present).is_lease()) return PlaneErrc::port_taken;
    if (present != 0 && spec.suggested && insist && spec.suggested->number() != present) {
      if (!first_come) return PlaneErrc::port_taken;
      free_slot(part, present);
      present = 0;
    }
    // A draining mapping is no owner; nor does an implicit one outlast the ports its lease may have.
    if (present != 0 && (mappings_.slot(part, present).kind == SlotKind::draining && spec.suggested &&
                         spec.suggested->number() != present)) {
      free_slot(part, present);
      present = 0;
    }
  }

  std::uint16_t external = present;
  if (external == 0 && spec.suggested && (insist || spec.allowed.contains(*spec.suggested))) {
    const std::uint16_t wanted = spec.suggested->number();
    Slot& slot = mappings_.slot(part, wanted);
    if (first_come && (slot.kind == SlotKind::implicit || slot.kind == SlotKind::draining))
      free_slot(part, wanted);
    const Claim claim = spec.restore || spec.is_static ? Claim::restored
                        : spec.insist                  ? Claim::insisted
                                                       : Claim::suggested;
    switch (may_claim(part, wanted, host, claim)) {
      case Verdict::free:
        external = wanted;
        break;
      case Verdict::reserved:
        if (insist) return PlaneErrc::port_reserved;
        break;
      case Verdict::taken:
      case Verdict::resting:
        if (insist) return PlaneErrc::port_taken;
        break;
    }
  } else if (external == 0 && insist && spec.suggested) {
    return PlaneErrc::port_reserved;
  }
  if (external == 0 && !insist && !spec.suggested && !spec.at_random &&
      spec.allowed.contains(spec.internal.port) &&
      may_claim(part, port, host, Claim::suggested) == Verdict::free)
    external = port;
  if (external == 0) {
    // Outside the pool stand the router's own ports: only when nothing else is left.
    const PortRange first{std::max(spec.allowed.first, policy_.pool.first),
                          std::min(spec.allowed.last, policy_.pool.last)};
    external = choose_port(part, first, host);
    if (external == 0) external = choose_port(part, spec.allowed, host);
    if (external == 0) {
      shortage_ports_ = true;
      return PlaneErrc::no_ports_left;
    }
  }

  const std::uint32_t at = mappings_.add_lease();
  if (at == Flow::none || at >= 1U << lease_bits) return PlaneErrc::no_memory;
  const std::uint32_t deadline_s = spec.deadline == TimePoint::max() ? never_s : floor_seconds(spec.deadline);
  const SlotKind kind = spec.is_static ? SlotKind::static_ : SlotKind::explicit_;
  std::uint32_t chain = Flow::none;
  if (present != 0) {
    Slot& slot = mappings_.slot(part, present);
    if (!shared_) {
      chain = slot.aux;
      auto& counted = hosts_[host];
      --counted.mappings;
      --implicit_count_;
      release_host(host);
    }
    for (std::uint32_t record = chain; record != Flow::none; record = flows_[record].slot_next)
      flows_[record].flags |= Flow::of_explicit;
  } else {
    free_slot(part, external);  // a quarantine that gives way
  }
  Lease& lease = mappings_.lease(at);
  lease.serial = next_serial_++;
  lease.deadline = spec.deadline;
  lease.flows = chain;
  lease.external = external;
  lease.part = part;
  if (!spec.enabled) lease.flags |= Lease::disabled;
  if (spec.second_port) lease.flags |= Lease::second_port;
  if (spec.outbound) lease.flags |= Lease::outbound;
  if (!claim_slot(part, external, host, port, kind, deadline_s, at, present != 0)) {
    mappings_.free_lease(at);
    return PlaneErrc::port_taken;
  }
  if (linked && present == 0 && !mappings_.link(part, external)) {
    mappings_.slot(part, external).kind = SlotKind::free;
    update_choice(part, external);
    mappings_.free_lease(at);
    return PlaneErrc::no_memory;
  }
  if (!spec.remotes.empty()) {
    filters_[at] = spec.remotes;
    lease.flags |= Lease::filtered;
  }
  if (shared_) {
    shared_->set_filters(at, spec.remotes);
    shared_->look_again();
  }
  ++explicit_count_;
  return Installed{MappingId{lease.serial << lease_bits | at},
                   {Address::v4(external_), *Port::from(external)}};
}

std::optional<FoundRange> Engine::Impl::find_range(const RangeSpec& spec, TimePoint now) {
  set_now(now);
  const Part part = part_of(spec.transport);
  const std::uint16_t port = spec.first.port.number();
  const std::optional<bool> odd = spec.parity ? std::optional{port % 2 != 0} : std::nullopt;
  PortRun best{0, 0};
  const auto try_at = [&](std::uint32_t external, Claim claim) {
    if (external == 0 || (odd && (external % 2 != 0) != *odd)) return false;
    const std::uint16_t size = fits_at(spec, external, claim);
    if (size > best.size) best = {static_cast<std::uint16_t>(external), size};
    return best.size == spec.size;
  };
  const auto found = [&]() -> std::optional<FoundRange> {
    if (best.size == 0) return std::nullopt;
    return FoundRange{*Port::from(best.first), best.size};
  };
  if (spec.insist && spec.suggested) {
    try_at(spec.suggested->number(), Claim::insisted);
    return found();
  }
  if (try_at(mapping_of(part, spec.first.address.v4_number(), port), Claim::suggested) ||
      try_at(spec.suggested ? spec.suggested->number() : port, Claim::suggested))
    return found();
  const PortRange pool{std::max(spec.allowed.first, policy_.pool.first),
                       std::min(spec.allowed.last, policy_.pool.last)};
  for (const PortRange range : {pool, spec.allowed}) {
    const PortRun run = choose_run(part, range, spec.size, odd, spec.first.address.v4_number());
    if (run.size > best.size) best = run;
    if (best.size == spec.size) break;
  }
  return found();
}

Result<void> Engine::Impl::renew(MappingId id, TimePoint deadline) {
  if (Firewall6::owns(id)) return firewall6_.renew(id, deadline);
  Lease* lease = find_lease(id);
  if (!lease || (lease->flags & Lease::gone)) return PlaneErrc::not_found;
  lease->deadline = deadline;
  mappings_.slot(lease->part, lease->external).deadline_s =
      deadline == TimePoint::max() ? never_s : floor_seconds(deadline);
  return {};
}

Result<void> Engine::Impl::set_remotes(MappingId id, std::span<const RemoteFilter> remotes, bool outbound,
                                       TimePoint now) {
  set_now(now);
  if (Firewall6::owns(id)) return firewall6_.set_remotes(id, remotes, outbound);
  std::uint32_t at = 0;
  Lease* lease = find_lease(id, &at);
  if (!lease || (lease->flags & Lease::gone)) return PlaneErrc::not_found;
  if (remotes.empty()) {
    filters_.erase(at);
    lease->flags &= static_cast<std::uint8_t>(~Lease::filtered);
  } else {
    filters_[at].assign(remotes.begin(), remotes.end());
    lease->flags |= Lease::filtered;
  }
  if (shared_) shared_->set_filters(at, remotes);
  lease->flags =
      static_cast<std::uint8_t>(outbound ? lease->flags | Lease::outbound : lease->flags & ~Lease::outbound);
  return {};
}

void Engine::Impl::withdraw(MappingId id, Ending how, TimePoint now) {
  set_now(now);
  if (Firewall6::owns(id)) return firewall6_.withdraw(id, how);
  std::uint32_t at = 0;
  Lease* lease = find_lease(id, &at);
  if (!lease) return;
  end_lease(at, how, now_s_);
  mappings_.free_lease(at);
  if (shared_) shared_->look_again();
}

void Engine::Impl::end_flows(const Address& device, TimePoint now) {
  set_now(now);
  if (!device.is_v4()) return firewall6_.end_flows(device);
  const std::uint32_t host = device.v4_number();
  for (const Part part : {Part::tcp, Part::udp, Part::icmp})
    for (std::uint32_t external = 1; external < 65536; ++external) {
      Slot& slot = mappings_.slot(part, static_cast<std::uint16_t>(external));
      if (slot.host != host || slot.kind == SlotKind::free || slot.kind == SlotKind::quarantine) continue;
      if (part == Part::tcp)
        for (std::uint32_t record = chain_of(slot); record != Flow::none; record = flows_[record].slot_next)
          reset_both_ends(flows_[record]);
      if (slot.kind == SlotKind::implicit || slot.kind == SlotKind::draining) {
        free_slot(part, static_cast<std::uint16_t>(external));
      } else if (slot.is_lease()) {
        for (std::uint32_t record = chain_of(slot); record != Flow::none;) {
          const std::uint32_t next = flows_[record].slot_next;
          drop_flow(record);
          record = next;
        }
        if (shared_) {
          // A new generation of the same owner: its flows are over, the mapping stays.
          const Slot seen = slot;
          shared_->ended(part, slot.host, slot.port, static_cast<std::uint16_t>(external));
          Slot next = seen;
          next.generation = static_cast<std::uint8_t>(next.generation + 16);
          mappings_.replace(slot, seen, next);
        }
      }
    }
  if (shared_) shared_->look_again();
}

Result<Counters> Engine::Impl::counters(MappingId id) const {
  if (Firewall6::owns(id)) return firewall6_.counters(id);
  const Lease* lease = find_lease(id);
  if (!lease) return PlaneErrc::not_found;
  Counters counters{.packets_in = lease->packets_in,
                    .packets_out = lease->packets_out,
                    .bytes_in = lease->bytes_in,
                    .bytes_out = lease->bytes_out,
                    .last_packet = std::nullopt};
  if (lease->packets_in || lease->packets_out) counters.last_packet = lease->last_packet;
  return counters;
}

std::optional<TimePoint> Engine::Impl::held_until(Transport transport, Port external, TimePoint now) const {
  const Part part = part_of(transport);
  if (is_reserved(part, external.number()) || is_own(part, external.number())) return TimePoint::max();
  const Slot& slot = mappings_.slot(part, external.number());
  const auto at = [](std::uint32_t deadline_s) { return TimePoint{seconds{deadline_s}}; };
  switch (slot.kind) {
    case SlotKind::free:
      return std::nullopt;
    case SlotKind::static_:
      return TimePoint::max();
    case SlotKind::explicit_: {
      const TimePoint deadline = mappings_.lease(slot.aux).deadline;
      return deadline > now ? std::optional{deadline} : std::nullopt;
    }
    case SlotKind::quarantine:
      if (!policy_.reuse_strict) return std::nullopt;
      [[fallthrough]];
    case SlotKind::implicit:
    case SlotKind::draining:
      return at(slot.deadline_s) > now ? std::optional{at(slot.deadline_s)} : std::nullopt;
  }
  return std::nullopt;
}

void Engine::Impl::set_network(const NetworkView& network, TimePoint now) {
  set_now(now);
  firewall6_.set_network(network);
  std::vector<Net> lan;
  std::vector<Net> untranslated;
  std::vector<std::uint32_t> gateway, lan_gateway;
  lan_addresses_.clear();
  lan_mtu_ = wan_mtu_ = 0;
  for (const PlaneInterface& interface : network.lan) {
    if (interface.mtu) lan_mtu_ = std::max(lan_mtu_, interface.mtu);
    for (const Prefix& prefix : interface.prefixes)
      if (const auto net = net_of(prefix)) lan.push_back(*net);
    for (const Address& address : interface.addresses) {
      if (!address.is_v4()) continue;
      gateway.push_back(address.v4_number());
      lan_gateway.push_back(address.v4_number());
      for (const Prefix& prefix : interface.prefixes)
        if (const auto net = net_of(prefix)) lan_addresses_.emplace_back(*net, address.v4_number());
    }
  }
  for (const PlaneInterface& interface : network.wan) {
    if (interface.mtu) wan_mtu_ = wan_mtu_ ? std::min(wan_mtu_, interface.mtu) : interface.mtu;
    for (const Address& address : interface.addresses)
      if (address.is_v4()) gateway.push_back(address.v4_number());
  }
  if (!lan_mtu_) lan_mtu_ = 1500;
  if (!wan_mtu_) wan_mtu_ = 1500;
  for (const Prefix& prefix : network.untranslated)
    if (const auto net = net_of(prefix)) untranslated.push_back(*net);
  bool has_external = false;
  std::uint32_t external = 0;
  for (const Address& address : network.external) {
    if (!address.is_v4()) continue;
    if (!has_external) external = address.v4_number();
    has_external = true;
    gateway.push_back(address.v4_number());
  }

  const auto same = [](const std::vector<Net>& a, const std::vector<Net>& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                      [](const Net& x, const Net& y) { return x.address == y.address && x.mask == y.mask; });
  };
  const bool address_changed = has_external != has_external_ || external != external_;
  // A flow stands for the checks its first packet passed; other networks, other checks.
  const bool rules_changed = !same(lan, lan_) || !same(untranslated, untranslated_) || gateway != gateway_;
  lan_ = std::move(lan);
  untranslated_ = std::move(untranslated);
  gateway_ = std::move(gateway);
  lan_gateway_ = std::move(lan_gateway);
  has_external_ = has_external;
  external_ = external;
  if (shared_) shared_->look_again();
  if (address_changed) {
    forget_everything_implicit();
  } else if (rules_changed) {
    for (std::uint32_t record = 0; record < flows_.high_water() && flows_.count() != 0; ++record) {
      const Flow& flow = flows_[record];
      if (flow.protocol == 0) continue;
      const bool host_stands = is_lan_host(flow.host) || flow.host == external_;
      const bool peer_stands =
          flow.peer == external_ || !(is_martian_source(flow.peer) || in_any(untranslated_, flow.peer));
      if (!host_stands || !peer_stands) remove_flow(record);
    }
  }
  set_policy(policy_, now);
}

/// What the outside knew under the old address is over; explicit mappings stay and forward on the new one.
void Engine::Impl::forget_everything_implicit() {
  fragments_.clear();
  if (shared_)
    shared_->forget_flows();
  else if (flows_.count() == 0 && implicit_count_ == 0)
    return;
  flows_.clear();
  unanswered_ = half_open_ = {};
  for (const Part part : {Part::tcp, Part::udp, Part::icmp})
    for (std::uint32_t port = 1; port < 65536; ++port) {
      const auto external = static_cast<std::uint16_t>(port);
      Slot& slot = mappings_.slot(part, external);
      if (slot.kind == SlotKind::free) continue;
      if (!shared_) chain_of(slot) = Flow::none;
      if (slot.kind == SlotKind::implicit || slot.kind == SlotKind::draining) free_slot(part, external);
    }
  hosts_.clear();
}

void Engine::Impl::set_policy(const PlanePolicy& policy, TimePoint now) {
  set_now(now);
  firewall6_.set_policy(policy);
  const auto touched = [](const PlanePolicy& of) {
    std::vector<std::pair<Part, std::uint16_t>> ports;
    for (const auto& [transport, port] : of.reserved) ports.emplace_back(part_of(transport), port.number());
    return ports;
  };
  auto ports = touched(policy_);
  const auto added = touched(policy);
  ports.insert(ports.end(), added.begin(), added.end());
  for (auto& bits : reserved_) bits.fill(0);
  for (const auto& [part, port] : added)
    reserved_[static_cast<std::size_t>(part)][port / 64] |= std::uint64_t{1} << port % 64;
  policy_ = policy;
  for (const auto& [part, port] : ports) update_choice(part, port);
  fragments_.set_limits(
      {policy_.fragments_per_source, policy_.fragments_total,
       static_cast<std::uint32_t>(std::max<std::int64_t>(policy_.fragment_timeout.count(), 2))});
  constexpr std::uint32_t headers = 40;
  if (policy_.mss_clamp == 0)
    mss_ = 0;
  else if (policy_.mss_clamp == 1)
    mss_ = wan_mtu_ < lan_mtu_ && wan_mtu_ > headers ? static_cast<std::uint16_t>(wan_mtu_ - headers)
                                                     : std::uint16_t{0};
  else
    mss_ = static_cast<std::uint16_t>(std::min<std::uint32_t>(policy_.mss_clamp, 65535));
}

std::vector<PlaneEvent> Engine::Impl::sweep(TimePoint now) {
  set_now(now);
  fragments_.sweep(now_s_);
  shortage_flows_ |= firewall6_.sweep();
  sweep_flows(flows_.high_water() / sweep_parts + 64);
  std::vector<PlaneEvent> events;
  if (shared_ || explicit_count_ || implicit_count_ || slot_cursor_ != 0) {
    const std::uint32_t end = slot_cursor_ + (parts << 16) / sweep_parts;
    for (; slot_cursor_ < end; ++slot_cursor_) {
      const auto part = static_cast<Part>(slot_cursor_ >> 16);
      const auto external = static_cast<std::uint16_t>(slot_cursor_);
      if (external == 0) continue;
      const Slot& slot = mappings_.slot(part, external);
      if (slot.kind == SlotKind::free) continue;
      if (!retire(part, external) && slot.is_lease() && is_own(part, external))
        events.push_back({PlaneEvent::Kind::own_port_conflict,
                          std::string{"the gateway itself now uses "} +
                              (part == Part::tcp ? "tcp/" : "udp/") + std::to_string(external) +
                              ", which is mapped to a device: inbound packets go to the device"});
    }
    if (slot_cursor_ >= parts << 16) slot_cursor_ = 0;
  }
  if ((shortage_ports_ || shortage_flows_) && now_s_ - shortage_told_s_ >= 60) {
    if (shortage_ports_)
      events.push_back(
          {PlaneEvent::Kind::shortage, "no free external port in the pool: new flows were refused"});
    if (shortage_flows_)
      events.push_back({PlaneEvent::Kind::shortage, "the flow table is full: new flows were refused"});
    shortage_ports_ = shortage_flows_ = false;
    shortage_told_s_ = now_s_;
  }
  return events;
}

std::vector<ImplicitView> Engine::Impl::implicit_mappings(TimePoint now) const {
  std::vector<ImplicitView> views;
  if (implicit_count_ == 0 && !shared_) return views;
  for (const Part part : {Part::tcp, Part::udp})
    for (std::uint32_t port = 1; port < 65536; ++port) {
      const auto external = static_cast<std::uint16_t>(port);
      const Slot& slot = mappings_.slot(part, external);
      if (slot.kind != SlotKind::implicit && slot.kind != SlotKind::draining) continue;
      const TimePoint deadline{seconds{slot.deadline_s}};
      if (deadline <= now) continue;
      views.push_back({part == Part::tcp ? Transport::tcp : Transport::udp,
                       {Address::v4(slot.host), *Port::from(slot.port)},
                       {Address::v4(external_), *Port::from(external)},
                       deadline});
    }
  return views;
}

bool Engine::Impl::has_implicit(Transport transport, const InternalEndpoint& internal, TimePoint now) const {
  if (!internal.address.is_v4()) return firewall6_.has_implicit(transport, internal, now);
  const Part part = part_of(transport);
  const std::uint16_t external = mappings_.find(part, internal.address.v4_number(), internal.port.number());
  if (external == 0) return false;
  const Slot& slot = mappings_.slot(part, external);
  return slot.kind == SlotKind::implicit && TimePoint{seconds{slot.deadline_s}} > now;
}

// --- with programs in the kernel ---

void Engine::Impl::answer_ended(std::span<std::byte> octets, Side from, TimePoint now, PacketSink& sink) {
  set_now(now);
  packet::Ipv4 ip;
  if (packet::parse(octets, true, ip) != packet::Malformed::no || ip.fragment_offset) return;
  sink_ = &sink;
  answer_ended(ip, from == Side::wan ? Action::forward_wan : Action::forward_lan);
  sink_ = nullptr;
}

void Engine::Impl::refuse(std::span<std::byte> octets, std::uint8_t code, TimePoint now, PacketSink& sink) {
  set_now(now);
  packet::Ipv4 ip;
  if (packet::parse(octets, true, ip) != packet::Malformed::no) return;
  sink_ = &sink;
  send_icmp_error(ip, packet::icmp_type::unreachable, code, Action::forward_lan);
  sink_ = nullptr;
}

bool Engine::Impl::make_mapping(std::span<std::byte> octets, TimePoint now, PacketSink& sink) {
  set_now(now);
  packet::Ipv4 ip;
  if (packet::parse(octets, true, ip) != packet::Malformed::no || ip.fragment_offset) return false;
  const Part part = part_of_protocol(ip.protocol);
  if (mapping_of(part, ip.source, ip.sport) != 0) return true;
  DropReason why{};
  if (make_implicit(part, ip.source, ip.sport, why) != 0) return true;
  ++drops_[static_cast<std::size_t>(why)];
  sink_ = &sink;
  send_icmp_error(ip, packet::icmp_type::unreachable, 1, Action::forward_lan);
  sink_ = nullptr;
  return false;
}

void Engine::Impl::reset(const FlowKey& key, const rules::sp_tcp& tcp, std::uint16_t external,
                         TimePoint now) {
  set_now(now);
  Flow flow{};
  flow.host = key.host;
  flow.peer = key.peer;
  flow.host_port = key.host_port;
  flow.peer_port = key.peer_port;
  flow.protocol = key.protocol;
  flow.external_port = external;
  flow.deadline_s = never_s;
  flow.tcp = tcp;
  reset_both_ends(flow);
}

void Engine::Impl::adopt(const std::optional<Address>& external_then, TimePoint now) {
  set_now(now);
  has_external_ = external_then.has_value();
  external_ = external_then ? external_then->v4_number() : 0;

  for (const Part part : {Part::tcp, Part::udp, Part::icmp})
    for (std::uint32_t port = 1; port < 65536; ++port) {
      const auto external = static_cast<std::uint16_t>(port);
      Slot& slot = mappings_.slot(part, external);
      if (slot.kind == SlotKind::free) continue;
      if (slot.is_lease()) {
        const std::uint32_t at = mappings_.add_lease();
        if (at == Flow::none) continue;
        Lease& lease = mappings_.lease(at);
        lease.serial = next_serial_++;
        lease.deadline = TimePoint{seconds{slot.deadline_s}};
        if (slot.deadline_s == never_s) {
          // What the configuration gave: until it gives it again, or is taken not to.
          lease.deadline = now + orphan_time;
          slot.deadline_s = floor_seconds(lease.deadline);
        }
        lease.external = external;
        lease.part = part;
        lease.flags |= Lease::orphan;
        slot.aux = at;
        ++explicit_count_;
      }
      update_choice(part, external);
    }
}

void Engine::Impl::fill_status(PlaneStatus& status) const {
  status.explicit_mappings = explicit_count_ + firewall6_.pinholes();
  status.implicit_mappings = implicit_count_;
  status.flows = flows_.count() + firewall6_.flows();
  status.packets = packets_ + firewall6_.packets();
  status.drops.clear();
  for (std::size_t i = 1; i < drop_reasons; ++i)
    if (drops_[i]) status.drops.emplace_back(to_string(static_cast<DropReason>(i)), drops_[i]);
}

// --- the face ---

Engine::Engine(const EngineOptions& options, const OwnPorts& own_ports)
    : impl_{std::make_unique<Impl>(options, own_ports)} {}
Engine::~Engine() = default;

void Engine::answer_ended(std::span<std::byte> packet, Side from, TimePoint now, PacketSink& sink) {
  impl_->answer_ended(packet, from, now, sink);
}
void Engine::refuse(std::span<std::byte> packet, std::uint8_t code, TimePoint now, PacketSink& sink) {
  impl_->refuse(packet, code, now, sink);
}
bool Engine::make_mapping(std::span<std::byte> packet, TimePoint now, PacketSink& sink) {
  return impl_->make_mapping(packet, now, sink);
}
void Engine::reset(const FlowKey& key, const rules::sp_tcp& tcp, std::uint16_t external, TimePoint now) {
  impl_->reset(key, tcp, external, now);
}
void Engine::adopt(const std::optional<Address>& external, TimePoint now) { impl_->adopt(external, now); }

void Engine::translate(std::span<Packet> batch, TimePoint now, PacketSink& sink) {
  impl_->translate(batch, now, sink);
}
Result<Installed> Engine::install(const MappingSpec& spec, TimePoint now) {
  return impl_->install(spec, now);
}
std::optional<FoundRange> Engine::find_range(const RangeSpec& spec, TimePoint now) {
  return impl_->find_range(spec, now);
}
Result<void> Engine::renew(MappingId id, TimePoint deadline) { return impl_->renew(id, deadline); }
Result<void> Engine::set_remotes(MappingId id, std::span<const RemoteFilter> remotes, bool outbound,
                                 TimePoint now) {
  return impl_->set_remotes(id, remotes, outbound, now);
}
void Engine::take_made(PacketSink& sink) { impl_->take_made(sink); }
void Engine::withdraw(MappingId id, Ending how, TimePoint now) { impl_->withdraw(id, how, now); }
void Engine::end_flows(const Address& device, TimePoint now) { impl_->end_flows(device, now); }
Result<Counters> Engine::counters(MappingId id) const { return impl_->counters(id); }
std::optional<TimePoint> Engine::held_until(Transport transport, Port external, TimePoint now) const {
  return impl_->held_until(transport, external, now);
}
void Engine::set_network(const NetworkView& network, TimePoint now) { impl_->set_network(network, now); }
void Engine::set_policy(const PlanePolicy& policy, TimePoint now) { impl_->set_policy(policy, now); }
std::vector<PlaneEvent> Engine::sweep(TimePoint now) { return impl_->sweep(now); }
std::vector<ImplicitView> Engine::implicit_mappings(TimePoint now) const {
  return impl_->implicit_mappings(now);
}
bool Engine::has_implicit(Transport transport, const InternalEndpoint& internal, TimePoint now) const {
  return impl_->has_implicit(transport, internal, now);
}
void Engine::fill_status(PlaneStatus& status) const { impl_->fill_status(status); }

}  // namespace sallyport::nat
