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

/// Those that hosts may have.
std::vector<std::uint32_t> external_addresses(const NetworkView& network) {
  std::vector<std::uint32_t> external;
  for (const Address& address : network.pool())
    if (address.is_v4()) external.push_back(address.v4_number());
  return external;
}

}  // namespace

Engine::Impl::Impl(const EngineOptions& options, const OwnPorts& own_ports)
    : hash_{options.secret},
      draws_{options.seed},
      id_secret_{SipHash{options.secret}(0x69702d6964)},
      ttl_{options.ttl},
      own_ports_{own_ports},
      shared_{options.shared},
      mappings_{hash_, std::clamp<std::size_t>(options.addresses, 1, Pairing::most), options.shared},
      flows_{hash_},
      fragments_{hash_},
      firewall6_{hash_, options.ttl},
      hosts_{16, HostHasher{hash_}} {}

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
  ExternalPort present;
  const std::uint8_t address = address_of(host);
  if (shared_ && first_come && spec.suggested)
    give_up_orphan(part, {address, spec.suggested->number()}, host, port);
  if (linked) {
    present = mapping_of(part, host, port);
    if (shared_ && present) give_up_orphan(part, present, host, port);  // asked for anew: the store was lost
    // Not the plane's answer to a renewal; and between deadline and withdrawal the old one still stands.
    if (!present && find_mapping(part, host, port)) return PlaneErrc::port_taken;
    if (present && mappings_.slot(part, present).is_lease()) return PlaneErrc::port_taken;
    if (present && spec.suggested && insist && spec.suggested->number() != present.number) {
      if (!first_come) return PlaneErrc::port_taken;
      free_slot(part, present);
      present = {};
    }
    // A draining mapping is no owner; nor does an implicit one outlast the ports its lease may have.
    if (present && mappings_.slot(part, present).kind == SlotKind::draining && spec.suggested &&
        spec.suggested->number() != present.number) {
      free_slot(part, present);
      present = {};
    }
  }

  ExternalPort external = present;
  if (!external && spec.suggested && (insist || spec.allowed.contains(*spec.suggested))) {
    const ExternalPort wanted{address, spec.suggested->number()};
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
  } else if (!external && insist && spec.suggested) {
    return PlaneErrc::port_reserved;
  }
  if (!external && !insist && !spec.suggested && !spec.at_random &&
      spec.allowed.contains(spec.internal.port) &&
      may_claim(part, {address, port}, host, Claim::suggested) == Verdict::free)
    external = {address, port};
  if (!external) {
    // Outside the pool stand the router's own ports: only when nothing else is left.
    const PortRange first{std::max(spec.allowed.first, policy_.pool.first),
                          std::min(spec.allowed.last, policy_.pool.last)};
    external = choose_port(address, part, first, host);
    if (!external) external = choose_port(address, part, spec.allowed, host);
    if (!external) {
      shortage_ports_ = true;
      return PlaneErrc::no_ports_left;
    }
  }

  const std::uint32_t at = mappings_.add_lease();
  if (at == Flow::none || at >= 1U << lease_bits) return PlaneErrc::no_memory;
  const std::uint32_t deadline_s = spec.deadline == TimePoint::max() ? never_s : floor_seconds(spec.deadline);
  const SlotKind kind = spec.is_static ? SlotKind::static_ : SlotKind::explicit_;
  std::uint32_t chain = Flow::none;
  if (present) {
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
  lease.external = external.number;
  lease.address = external.address;
  lease.part = part;
  if (!spec.enabled) lease.flags |= Lease::disabled;
  if (spec.second_port) lease.flags |= Lease::second_port;
  if (spec.outbound) lease.flags |= Lease::outbound;
  if (!claim_slot(part, external, host, port, kind, deadline_s, at, static_cast<bool>(present))) {
    mappings_.free_lease(at);
    return PlaneErrc::port_taken;
  }
  if (linked && !present && !mappings_.link(part, external)) {
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
                   {Address::v4(external_of(host)), *Port::from(external.number)}};
}

std::optional<FoundRange> Engine::Impl::find_range(const RangeSpec& spec, TimePoint now) {
  set_now(now);
  const Part part = part_of(spec.transport);
  const std::uint32_t host = spec.first.address.v4_number();
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
  if (try_at(mapping_of(part, host, port).number, Claim::suggested) ||
      try_at(spec.suggested ? spec.suggested->number() : port, Claim::suggested))
    return found();
  const PortRange pool{std::max(spec.allowed.first, policy_.pool.first),
                       std::min(spec.allowed.last, policy_.pool.last)};
  for (const PortRange range : {pool, spec.allowed}) {
    const PortRun run = choose_run(address_of(host), part, range, spec.size, odd, host);
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
  mappings_.slot(lease->part, external_of(*lease)).deadline_s =
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
    for (std::uint32_t number = 1; number < 65536; ++number) {
      const ExternalPort external{address_of(host), static_cast<std::uint16_t>(number)};
      Slot& slot = mappings_.slot(part, external);
      if (slot.host != host || slot.kind == SlotKind::free || slot.kind == SlotKind::quarantine) continue;
      if (part == Part::tcp)
        for (std::uint32_t record = chain_of(slot); record != Flow::none; record = flows_[record].slot_next)
          reset_both_ends(flows_[record]);
      if (slot.kind == SlotKind::implicit || slot.kind == SlotKind::draining) {
        free_slot(part, external);
      } else if (slot.is_lease()) {
        for (std::uint32_t record = chain_of(slot); record != Flow::none;) {
          const std::uint32_t next = flows_[record].slot_next;
          drop_flow(record);
          record = next;
        }
        if (shared_) {
          // A new generation of the same owner: its flows are over, the mapping stays.
          const Slot seen = slot;
          shared_->ended(part, slot.host, slot.port, external.number);
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

std::optional<Address> Engine::Impl::external_for(const Address& device) const {
  if (!has_external_) return std::nullopt;
  return Address::v4(device.is_v4() ? external_of(device.v4_number()) : first_external_);
}

std::optional<TimePoint> Engine::Impl::held_until(Transport transport, const Address& device, Port external,
                                                  TimePoint now) const {
  const Part part = part_of(transport);
  if (is_reserved(part, external.number()) || is_own(part, external.number())) return TimePoint::max();
  const Slot& slot = mappings_.slot(part, {address_of(device.v4_number()), external.number()});
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

Pairing Engine::Impl::pairing_for(const NetworkView& network) const {
  // Without any address the hosts keep those they had: most likely the same ones come back.
  Pairing pairing = pairing_;
  if (const auto external = external_addresses(network); !external.empty())
    pairing.set(external, mappings_.addresses());
  return pairing;
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
  const std::vector<std::uint32_t> on_interfaces = gateway;
  for (const Address& address : network.external)
    if (address.is_v4()) gateway.push_back(address.v4_number());
  const auto external = external_addresses(network);
  const Pairing pairing = pairing_for(network);
  unused_addresses_ = external.empty() ? 0 : external.size() - pairing.count();

  const auto same = [](const std::vector<Net>& a, const std::vector<Net>& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                      [](const Net& x, const Net& y) { return x.address == y.address && x.mask == y.mask; });
  };
  // A flow stands for the checks its first packet passed; other networks, other checks.
  const bool rules_changed = !same(lan, lan_) || !same(untranslated, untranslated_) || gateway != gateway_;
  lan_ = std::move(lan);
  untranslated_ = std::move(untranslated);
  gateway_ = std::move(gateway);
  lan_gateway_ = std::move(lan_gateway);
  const bool addresses_changed = external.empty() == has_external_ || pairing != pairing_;
  if (addresses_changed) change_addresses(pairing, !external.empty());
  first_external_ = external.empty() ? 0 : external.front();
  elsewhere_ = 0;
  for (std::uint8_t index = 0; index < Pairing::most; ++index)
    if (const std::uint32_t address = pairing_.address(index);
        address != 0 && std::find(on_interfaces.begin(), on_interfaces.end(), address) == on_interfaces.end())
      elsewhere_ |= 1U << index;
  if (shared_) shared_->look_again();
  if (addresses_changed || rules_changed) {
    const auto falls = [&](std::uint32_t host, std::uint32_t peer) {
      const bool host_stands = is_lan_host(host) || is_external(host);
      const bool peer_stands = is_external(peer) || !(is_martian_source(peer) || in_any(untranslated_, peer));
      return !host_stands || !peer_stands;
    };
    if (shared_) shared_->forget_flows(falls);
    for (std::uint32_t record = 0; record < flows_.high_water() && flows_.count() != 0; ++record) {
      const Flow& flow = flows_[record];
      if (flow.protocol != 0 && falls(flow.host, flow.peer)) remove_flow(record);
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
  for_each_slot([&](Part part, ExternalPort external) {
    Slot& slot = mappings_.slot(part, external);
    if (slot.kind == SlotKind::free) return;
    if (!shared_) chain_of(slot) = Flow::none;
    if (slot.kind == SlotKind::implicit || slot.kind == SlotKind::draining) free_slot(part, external);
  });
  hosts_.clear();
}

/// Other external addresses. Hosts whose address is another one now lose what the outside knew; their leases
/// move.
void Engine::Impl::change_addresses(const Pairing& next, bool has_external) {
  std::array<bool, Pairing::buckets> moved;
  for (std::size_t bucket = 0; bucket < moved.size(); ++bucket)
    moved[bucket] = !has_external || !has_external_ ||
                    pairing_.address(pairing_.pairs()[bucket]) != next.address(next.pairs()[bucket]);
  const auto has_moved = [&](std::uint32_t host) {
    if (has_external && has_external_ && pairing_.find(host)) return !next.find(host);  // the gateway itself
    return moved[rules::sp_bucket(host)];
  };
  if (std::all_of(moved.begin(), moved.end(), [](bool each) { return each; })) {
    forget_everything_implicit();
  } else {
    fragments_.clear();
    const auto ends = [&](std::uint32_t host, std::uint32_t peer) {
      // One address or the other was, or is, that of a host in here.
      return pairing_.find(peer).has_value() != next.find(peer).has_value() || has_moved(host);
    };
    if (shared_) shared_->forget_flows(ends);
    for (std::uint32_t record = 0; record < flows_.high_water() && flows_.count() != 0; ++record) {
      const Flow& flow = flows_[record];
      if (flow.protocol != 0 && ends(flow.host, flow.peer)) remove_flow(record);
    }
    for_each_slot([&](Part part, ExternalPort external) {
      const Slot& slot = mappings_.slot(part, external);
      const bool implicit = slot.kind == SlotKind::implicit || slot.kind == SlotKind::draining;
      const bool rests_on_nothing = slot.kind == SlotKind::quarantine && next.address(external.address) == 0;
      if ((implicit && has_moved(slot.host)) || rests_on_nothing) free_slot(part, external);
    });
  }

  struct Moving {
    Slot slot;
    bool linked;
  };
  std::vector<Moving> moving;
  for_each_slot([&](Part part, ExternalPort external) {
    Slot& slot = mappings_.slot(part, external);
    if (!slot.is_lease() || next.of(slot.host) == external.address) return;
    const bool linked = find_mapping(part, slot.host, slot.port) == external;
    moving.push_back({slot, linked});
    if (linked) mappings_.unlink(part, external);
    const Slot seen = slot;
    mappings_.replace(slot, seen, {0, 0, SlotKind::free, seen.generation, 0, Flow::none});
    update_choice(part, external);
  });
  pairing_ = next;
  has_external_ = has_external;
  // Where several hold one port the administrator's word comes first, then who was there first.
  std::sort(moving.begin(), moving.end(), [&](const Moving& a, const Moving& b) {
    if (a.slot.kind != b.slot.kind) return a.slot.kind == SlotKind::static_;
    return mappings_.lease(a.slot.aux).serial < mappings_.lease(b.slot.aux).serial;
  });
  for (const Moving& each : moving) {
    Lease& lease = mappings_.lease(each.slot.aux);
    lease.address = next.of(each.slot.host);
    const Part part = lease.part;
    const ExternalPort to = external_of(lease);
    Slot& slot = mappings_.slot(part, to);
    if (!slot.is_lease()) free_slot(part, to);
    if (slot.is_lease() || !claim_slot(part, to, each.slot.host, each.slot.port, each.slot.kind,
                                       each.slot.deadline_s, each.slot.aux)) {
      lease.flags |= Lease::gone;
      filters_.erase(each.slot.aux);
      if (shared_) shared_->set_filters(each.slot.aux, {});
      --explicit_count_;
    } else if (each.linked) {
      mappings_.link(part, to);
    }
  }
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
  for (const auto& [part, port] : ports)
    for (std::size_t address = 0; address < mappings_.addresses(); ++address)
      update_choice(part, {static_cast<std::uint8_t>(address), port});
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
  const auto all = static_cast<std::uint32_t>(mappings_.addresses() * (parts << 16));
  if (shared_ || explicit_count_ || implicit_count_ || slot_cursor_ != 0) {
    const std::uint32_t end = slot_cursor_ + all / sweep_parts;
    for (; slot_cursor_ < end; ++slot_cursor_) {
      const std::uint32_t row = slot_cursor_ >> 16;
      const auto part = static_cast<Part>(row % parts);
      const ExternalPort external{static_cast<std::uint8_t>(row / parts),
                                  static_cast<std::uint16_t>(slot_cursor_)};
      if (!external || (external.address != 0 && pairing_.address(external.address) == 0)) continue;
      const Slot& slot = mappings_.slot(part, external);
      if (slot.kind == SlotKind::free) continue;
      if (!retire(part, external) && slot.is_lease() && is_own(part, external.number))
        events.push_back({PlaneEvent::Kind::own_port_conflict,
                          std::string{"the gateway itself now uses "} +
                              (part == Part::tcp ? "tcp/" : "udp/") + std::to_string(external.number) +
                              ", which is mapped to a device: inbound packets go to the device"});
    }
    if (slot_cursor_ >= all) slot_cursor_ = 0;
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
  for_each_slot([&](Part part, ExternalPort external) {
    const Slot& slot = mappings_.slot(part, external);
    if (part == Part::icmp || (slot.kind != SlotKind::implicit && slot.kind != SlotKind::draining)) return;
    const TimePoint deadline{seconds{slot.deadline_s}};
    if (deadline <= now) return;
    views.push_back({part == Part::tcp ? Transport::tcp : Transport::udp,
                     {Address::v4(slot.host), *Port::from(slot.port)},
                     {Address::v4(external_of(slot.host)), *Port::from(external.number)},
                     deadline});
  });
  return views;
}

bool Engine::Impl::has_implicit(Transport transport, const InternalEndpoint& internal, TimePoint now) const {
  if (!internal.address.is_v4()) return firewall6_.has_implicit(transport, internal, now);
  const Part part = part_of(transport);
  const ExternalPort external = find_mapping(part, internal.address.v4_number(), internal.port.number());
  if (!external) return false;
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
  if (mapping_of(part, ip.source, ip.sport)) return true;
  DropReason why{};
  if (make_implicit(part, ip.source, ip.sport, why)) return true;
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

void Engine::Impl::adopt(std::span<const std::uint32_t> external, bool has_external, TimePoint now) {
  set_now(now);
  pairing_ = Pairing{external};
  has_external_ = has_external;

  for_each_slot([&](Part part, ExternalPort at_port) {
    Slot& slot = mappings_.slot(part, at_port);
    if (slot.kind == SlotKind::free) return;
    if (slot.is_lease()) {
      const std::uint32_t at = mappings_.add_lease();
      if (at == Flow::none) return;
      Lease& lease = mappings_.lease(at);
      lease.serial = next_serial_++;
      lease.deadline = TimePoint{seconds{slot.deadline_s}};
      if (slot.deadline_s == never_s) {
        // What the configuration gave: until it gives it again, or is taken not to.
        lease.deadline = now + orphan_time;
        slot.deadline_s = floor_seconds(lease.deadline);
      }
      lease.external = at_port.number;
      lease.address = at_port.address;
      lease.part = part;
      lease.flags |= Lease::orphan;
      slot.aux = at;
      ++explicit_count_;
    }
    update_choice(part, at_port);
  });
}

void Engine::Impl::fill_status(PlaneStatus& status) const {
  status.explicit_mappings = explicit_count_ + firewall6_.pinholes();
  status.implicit_mappings = implicit_count_;
  status.flows = flows_.count() + firewall6_.flows();
  status.packets = packets_ + firewall6_.packets();
  if (unused_addresses_ != 0)
    status.warnings.push_back(std::to_string(unused_addresses_) + " of the external addresses " +
                              (unused_addresses_ == 1 ? "is" : "are") + " not in use: there is room for " +
                              std::to_string(mappings_.addresses()) + " until sallyportd is restarted");
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
void Engine::adopt(std::span<const std::uint32_t> external, bool has_external, TimePoint now) {
  impl_->adopt(external, has_external, now);
}
const Pairing& Engine::pairing() const noexcept { return impl_->pairing(); }
Pairing Engine::pairing_for(const NetworkView& network) const { return impl_->pairing_for(network); }

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
std::optional<TimePoint> Engine::held_until(Transport transport, const Address& device, Port external,
                                            TimePoint now) const {
  return impl_->held_until(transport, device, external, now);
}
std::optional<Address> Engine::external_for(const Address& device) const {
  return impl_->external_for(device);
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
