#include "nat/engine/engine_impl.hpp"

#include <utility>

// Slots and flows: who may claim a port, what ends when, what gives way in a full table.

namespace sallyport::nat {
namespace {

using std::chrono::duration_cast;
using std::chrono::seconds;

constexpr std::uint32_t never_s = 0xffffffff;
/// The control thread withdraws what expired; only when it has not done so for this long does the engine
/// itself.
constexpr seconds grace{2};
constexpr std::uint32_t most_group_steps = 64;
/// Ports of one device's ended leases that wait for the reuse delay at once; above it they are free again
/// sooner.
constexpr std::uint32_t most_resting = 4096;

std::uint32_t to_seconds(TimePoint time) {
  const auto count = duration_cast<seconds>(time.time_since_epoch()).count();
  return count <= 0 ? 0 : count >= never_s ? never_s : static_cast<std::uint32_t>(count);
}

std::uint32_t to_delay(seconds time) {
  return static_cast<std::uint32_t>(std::max<std::int64_t>(time.count(), 0));
}

}  // namespace

bool Engine::Impl::is_in_force(const Slot& slot) const noexcept {
  switch (slot.kind) {
    case SlotKind::implicit:
    case SlotKind::draining:
      return !rules::sp_is_over(slot.deadline_s, now_s_);
    case SlotKind::explicit_:
    case SlotKind::static_:
      return slot.deadline_s > now_s_ || mappings_.lease(slot.aux).deadline > now_;
    case SlotKind::free:
    case SlotKind::quarantine:
      return false;
  }
  return false;
}

bool Engine::Impl::is_in_grace(const Slot& slot) const noexcept {
  return slot.is_lease() && mappings_.lease(slot.aux).deadline <= now_ &&
         now_ - mappings_.lease(slot.aux).deadline < grace;
}

ExternalPort Engine::Impl::mapping_of(Part part, std::uint32_t host, std::uint16_t port) {
  const ExternalPort external = find_mapping(part, host, port);
  if (!external) return {};
  if (is_in_force(mappings_.slot(part, external))) return external;
  retire(part, external);
  return {};
}

bool Engine::Impl::is_reserved(Part part, std::uint16_t port) const noexcept {
  return part != Part::icmp && (reserved_[static_cast<std::size_t>(part)][port / 64] >> port % 64 & 1);
}

bool Engine::Impl::is_own(Part part, std::uint16_t port) const {
  return part != Part::icmp && own_ports_.in_use(part == Part::tcp ? Transport::tcp : Transport::udp, port);
}

/// Keeps the allocator's bit of a port, and of its companion, true to the slots.
void Engine::Impl::update_choice(Part part, ExternalPort external) {
  const auto choosable = [&](Part of, const Slot& slot, const Slot* companion) {
    return slot.kind == SlotKind::free && external && !is_reserved(of, external.number) &&
           !(companion && companion->is_lease());
  };
  const Slot& slot = mappings_.slot(part, external);
  if (part == Part::icmp) {
    mappings_.ports(external.address, part).set(external.number, choosable(part, slot, nullptr));
    return;
  }
  const Part other = part == Part::tcp ? Part::udp : Part::tcp;
  const Slot& companion = mappings_.slot(other, external);
  mappings_.ports(external.address, part).set(external.number, choosable(part, slot, &companion));
  mappings_.ports(external.address, other).set(external.number, choosable(other, companion, &slot));
}

Engine::Impl::Verdict Engine::Impl::may_claim(Part part, ExternalPort external, std::uint32_t host,
                                              Claim claim) {
  if (!external) return Verdict::taken;
  if (is_reserved(part, external.number) || is_own(part, external.number)) return Verdict::reserved;
  Slot& slot = mappings_.slot(part, external);
  const bool chosen_for = claim == Claim::implicit || claim == Claim::suggested;
  switch (slot.kind) {
    case SlotKind::free:
      break;
    case SlotKind::static_:
      return Verdict::reserved;
    case SlotKind::implicit:
    case SlotKind::draining:
    case SlotKind::explicit_:
      if (is_in_force(slot) || is_in_grace(slot)) return Verdict::taken;
      retire(part, external);
      if (slot.kind != SlotKind::quarantine) break;
      [[fallthrough]];
    case SlotKind::quarantine:
      if (rules::sp_is_over(slot.deadline_s, now_s_)) {
        free_slot(part, external);
        break;
      }
      // Ended sessions stay ended: an outbound packet of the former owner's does not open its old door again.
      if (claim == Claim::implicit) return Verdict::resting;
      if (slot.host == host || claim == Claim::restored) break;
      if (policy_.reuse_strict) return Verdict::taken;
      if (claim == Claim::suggested) return Verdict::resting;
      break;
  }
  if (chosen_for && part != Part::icmp) {
    if (rests(part, external, host)) return Verdict::resting;
    const Slot& companion = mappings_.slot(part == Part::tcp ? Part::udp : Part::tcp, external);
    if (companion.is_lease() && companion.host != host && is_in_force(companion)) return Verdict::resting;
  }
  return Verdict::free;
}

bool Engine::Impl::rests(Part part, ExternalPort external, std::uint32_t host) const noexcept {
  const Slot& slot = mappings_.slot(part, external);
  return slot.kind == SlotKind::free && rules::sp_rests(slot.host, slot.deadline_s, host, now_s_);
}

ExternalPort Engine::Impl::choose_port(std::uint8_t address, Part part, PortRange range, std::uint32_t host) {
  constexpr int most_passed_over = rules::SP_RESTING_PASSED_OVER;
  int pass_over = most_passed_over;
  const auto usable = [&](std::uint16_t port) {
    const ExternalPort external{address, port};
    // The programs in the kernel claim ports without telling the allocator.
    if (is_own(part, port) || (shared_ && !retire(part, external))) return false;
    return pass_over == 0 || !rests(part, external, host) || pass_over-- == 0;
  };
  const auto draw = [&] { return static_cast<std::uint32_t>(random() >> 32); };
  auto port = mappings_.ports(address, part).choose(range, draw, usable);
  if (!port) {
    reclaim(address, part);
    port = mappings_.ports(address, part).choose(range, draw, usable);
  }
  if (!port && std::exchange(pass_over, 0) != most_passed_over)
    port = mappings_.ports(address, part).choose(range, draw, usable);
  return {address, port.value_or(0)};
}

std::uint16_t Engine::Impl::fits_at(const RangeSpec& spec, std::uint32_t external, Claim claim) {
  const Part part = part_of(spec.transport);
  const std::uint32_t host = spec.first.address.v4_number();
  std::uint16_t size = 0;
  for (; size < spec.size && external <= spec.allowed.last && external >= spec.allowed.first;
       ++size, ++external) {
    const ExternalPort at{address_of(host), static_cast<std::uint16_t>(external)};
    if (may_claim(part, at, host, claim) == Verdict::free) continue;
    // where the outbound packets of just this port leave from
    const auto port = static_cast<std::uint16_t>(spec.first.port.number() + size);
    if (mapping_of(part, host, port) != at || mappings_.slot(part, at).is_lease()) break;
  }
  return size;
}

PortRun Engine::Impl::choose_run(std::uint8_t address, Part part, PortRange range, std::uint16_t size,
                                 std::optional<bool> odd, std::uint32_t host) {
  constexpr int most_tries = 64;
  for (const bool reclaimed : {false, true}) {
    if (reclaimed) reclaim(address, part);
    RunFinder finder{mappings_.ports(address, part).free_in(range)};
    for (int tries = 0; tries < most_tries; ++tries) {
      const auto run = finder.find(size, odd, static_cast<std::uint32_t>(random() >> 32));
      if (!run) break;
      bool good =
          true;  // the router's own ports are not in the bitmap, nor what programs in the kernel claimed
      for (std::uint32_t port = run->first; port < run->first + std::uint32_t{run->size}; ++port) {
        const ExternalPort at{address, static_cast<std::uint16_t>(port)};
        if (is_own(part, at.number) || (shared_ && !retire(part, at)) ||
            (!reclaimed && rests(part, at, host))) {
          finder.exclude(at.number);
          good = false;
        }
      }
      if (!good) continue;
      if (run->size == size || reclaimed) return *run;
      break;
    }
  }
  return {0, 0};
}

/// Frees at once what is over, instead of with the sweep: at most once a second.
void Engine::Impl::reclaim(std::uint8_t address, Part part) {
  auto& done_s = reclaimed_s_[address][static_cast<std::size_t>(part)];
  if (done_s == now_s_) return;
  done_s = now_s_;
  for (std::uint32_t external = 1; external < 65536; ++external)
    retire(part, {address, static_cast<std::uint16_t>(external)});
}

bool Engine::Impl::retire(Part part, ExternalPort external) {
  Slot& slot = mappings_.slot(part, external);
  switch (slot.kind) {
    case SlotKind::free:
      return true;
    case SlotKind::implicit:
    case SlotKind::draining:
    case SlotKind::quarantine:
      if (!rules::sp_is_over(slot.deadline_s, now_s_)) return false;
      free_slot(part, external);
      return true;
    case SlotKind::explicit_:
    case SlotKind::static_:
      if (is_in_force(slot) || is_in_grace(slot)) return false;
      end_lease(slot.aux, Ending::reset, to_seconds(mappings_.lease(slot.aux).deadline));
      return slot.kind == SlotKind::free;
  }
  return false;
}

bool Engine::Impl::claim_slot(Part part, ExternalPort external, std::uint32_t host, std::uint16_t port,
                              SlotKind kind, std::uint32_t deadline_s, std::uint32_t aux, bool goes_on) {
  Slot& slot = mappings_.slot(part, external);
  const Slot seen = slot;
  const bool anothers = (seen.kind == SlotKind::implicit || seen.kind == SlotKind::draining) &&
                        (seen.host != host || seen.port != port) && is_in_force(seen);
  if (shared_ && anothers) return false;
  // With shared tables flows are ended by it: by one when their lease was reset, by sixteen when it is anew.
  const int step = !shared_ || kind == SlotKind::quarantine ? 1 : goes_on ? 0 : 16;
  const auto generation = static_cast<std::uint8_t>(seen.generation + step);
  if (!mappings_.replace(slot, seen, {host, port, kind, generation, deadline_s, aux})) return false;
  update_choice(part, external);
  return true;
}

void Engine::Impl::give_up_orphan(Part part, ExternalPort external, std::uint32_t host, std::uint16_t port) {
  Slot& slot = mappings_.slot(part, external);
  if (!slot.is_lease() || !(mappings_.lease(slot.aux).flags & Lease::orphan)) return;
  const std::uint32_t lease = slot.aux;
  if (slot.host != host || slot.port != port) {
    end_lease(lease, Ending::vacate, now_s_);
  } else {
    --explicit_count_;
    const Slot seen = slot;
    mappings_.replace(
        slot, seen,
        {host, port, SlotKind::implicit, seen.generation, rules::sp_deadline(now_s_, 10), Flow::none});
  }
  mappings_.free_lease(lease);
}

void Engine::Impl::free_slot(Part part, ExternalPort external) {
  Slot& slot = mappings_.slot(part, external);
  if (slot.kind == SlotKind::free) return;
  for (std::uint32_t record = chain_of(slot); record != Flow::none;) {
    const std::uint32_t next = flows_[record].slot_next;
    drop_flow(record);
    record = next;
  }
  mappings_.unlink(part, external);
  if (shared_ && (slot.kind == SlotKind::implicit || slot.kind == SlotKind::draining)) {
    // The programs count these.
  } else if (slot.kind == SlotKind::implicit || slot.kind == SlotKind::draining) {
    auto& host = hosts_[slot.host];
    --(part == Part::icmp ? host.icmp_ids : host.mappings);
    --implicit_count_;
    release_host(slot.host);
  } else if (slot.kind == SlotKind::quarantine) {
    const auto host = hosts_.find(slot.host);
    if (host != hosts_.end() && host->second.resting != 0) {
      --host->second.resting;
      release_host(slot.host);
    }
  }
  const Slot seen = slot;
  Slot freed{0, 0, SlotKind::free, seen.generation, 0, Flow::none};
  if (part != Part::icmp && (seen.kind == SlotKind::implicit || seen.kind == SlotKind::draining)) {
    freed.host = seen.host;
    freed.deadline_s = std::min(seen.deadline_s, now_s_) + to_delay(policy_.reuse_delay);
  }
  mappings_.replace(slot, seen, freed);
  update_choice(part, external);
}

void Engine::Impl::release_host(std::uint32_t address) {
  const auto host = hosts_.find(address);
  if (host == hosts_.end()) return;
  const Host& counted = host->second;
  if (counted.mappings == 0 && counted.flows == 0 && counted.icmp_ids == 0 && counted.resting == 0)
    hosts_.erase(host);
}

ExternalPort Engine::Impl::make_implicit(Part part, std::uint32_t address, std::uint16_t port,
                                         DropReason& why) {
  const auto known = hosts_.find(address);
  const Host host = known == hosts_.end() ? Host{} : known->second;
  if (part == Part::icmp) {
    if (policy_.icmp_ids_per_device && host.icmp_ids >= policy_.icmp_ids_per_device) {
      why = DropReason::icmp_id_limit;
      return {};
    }
  } else if (policy_.mappings_per_device && host.mappings >= policy_.mappings_per_device) {
    why = DropReason::mapping_limit;
    return {};
  }
  if (policy_.new_mappings_per_second && host.made_s == now_s_ &&
      host.made >= policy_.new_mappings_per_second) {
    why = DropReason::mapping_rate;
    return {};
  }
  const PortRange pool = part == Part::icmp ? PortRange{1, 65535} : policy_.pool;
  const ExternalPort same{address_of(address), port};
  const auto just_bound = [&](ExternalPort wanted) {
    return part != Part::icmp && own_ports_.just_bound(part == Part::tcp ? Transport::tcp : Transport::udp,
                                                       external_of(address), wanted.number);
  };
  ExternalPort external;
  if (!policy_.random_ports && port >= pool.first && port <= pool.last &&
      may_claim(part, same, address, Claim::implicit) == Verdict::free && !just_bound(same)) {
    external = same;
  } else {
    constexpr int most_tries = 8;
    for (int tries = 0; tries < most_tries; ++tries) {
      external = choose_port(same.address, part, pool, address);
      if (!external || !just_bound(external)) break;
    }
  }
  if (!external) {
    why = DropReason::no_ports;
    shortage_ports_ = true;
    return {};
  }
  if (!claim_slot(part, external, address, port, SlotKind::implicit, rules::sp_deadline(now_s_, 1),
                  Flow::none)) {
    why = DropReason::no_ports;
    return {};
  }
  if (!mappings_.link(part, external)) {
    mappings_.slot(part, external).kind = SlotKind::free;
    update_choice(part, external);
    why = DropReason::table_full;
    return {};
  }
  if (shared_) return external;
  auto& counted = hosts_[address];
  ++(part == Part::icmp ? counted.icmp_ids : counted.mappings);
  if (std::exchange(counted.made_s, now_s_) != now_s_) counted.made = 0;
  ++counted.made;
  ++implicit_count_;
  return external;
}

void Engine::Impl::end_lease(std::uint32_t at, Ending how, std::uint32_t since_s) {
  Lease& lease = mappings_.lease(at);
  if (lease.flags & Lease::gone) return;
  lease.flags |= Lease::gone;
  const Part part = lease.part;
  const ExternalPort external = external_of(lease);
  Slot& slot = mappings_.slot(part, external);
  --explicit_count_;
  filters_.erase(at);
  if (shared_) {
    shared_->set_filters(at, {});
    if (how == Ending::reset) shared_->ended(part, slot.host, slot.port, external.number);
  }
  const std::uint32_t first = lease.flows;
  const std::uint32_t delay = to_delay(policy_.reuse_delay);
  if (how == Ending::reset) {
    for (std::uint32_t record = first; record != Flow::none; record = flows_[record].slot_next)
      reset_both_ends(flows_[record]);
    // One device that makes and ends leases all the time must not use the ports of all up (POL-FAIR-01).
    const auto host = hosts_.find(slot.host);
    const bool crowded =
        host != hosts_.end() && host->second.resting >= most_resting && !policy_.reuse_strict;
    if (delay == 0 || crowded) how = Ending::vacate;
  }
  switch (how) {
    case Ending::vacate:
      free_slot(part, external);
      return;
    case Ending::reset: {
      mappings_.unlink(part, external);
      const std::uint32_t deadline_s = rules::sp_deadline(since_s, delay);
      for (std::uint32_t record = first; record != Flow::none; record = flows_[record].slot_next) {
        dequeue(record);
        Flow& flow = flows_[record];
        flow.flags = static_cast<std::uint8_t>((flow.flags | Flow::ended) & ~Flow::of_explicit);
        flow.deadline_s = deadline_s;
      }
      ++hosts_[slot.host].resting;
      claim_slot(part, external, slot.host, slot.port, SlotKind::quarantine, deadline_s, first);
      return;
    }
    case Ending::drain: {
      const auto rest = static_cast<std::uint32_t>(policy_.tcp_transitory.count());
      std::uint32_t deadline_s = rules::sp_deadline(now_s_, rest);
      for (std::uint32_t record = first; record != Flow::none; record = flows_[record].slot_next) {
        flows_[record].flags &= static_cast<std::uint8_t>(~Flow::of_explicit);
        deadline_s = std::max(deadline_s, flows_[record].deadline_s);
      }
      claim_slot(part, external, slot.host, slot.port, SlotKind::draining, deadline_s, first, true);
      if (shared_) return;
      ++hosts_[slot.host].mappings;
      ++implicit_count_;
      return;
    }
  }
}

// --- flows ---

std::uint32_t Engine::Impl::new_flow(std::uint64_t hash, const FlowKey& key, ExternalPort external,
                                     bool inbound, DropReason& why) {
  if (!inbound && policy_.flows_per_device) {
    const auto host = hosts_.find(key.host);
    if (host != hosts_.end() && host->second.flows >= policy_.flows_per_device) {
      why = DropReason::flow_limit;
      return Flow::none;
    }
  }
  const Part part = part_of_protocol(key.protocol);
  Slot& slot = mappings_.slot(part, external);
  if (table_is_full()) {
    kept_slot_ = &slot;  // what gives way may be the last flow of the very mapping this one is for
    const bool room = make_room();
    kept_slot_ = nullptr;
    if (!room) {
      why = DropReason::table_full;
      shortage_flows_ = true;
      return Flow::none;
    }
  }
  const std::uint32_t record = flows_.insert(hash, key);
  if (record == Flow::none) {
    why = DropReason::table_full;
    shortage_flows_ = true;
    return Flow::none;
  }
  Flow& flow = flows_[record];
  flow.external_port = external.number;
  std::uint32_t& first = chain_of(slot);
  flow.slot_next = first;
  if (first != Flow::none) flows_[first].slot_previous = record;
  first = record;
  if (slot.is_lease()) flow.flags |= Flow::of_explicit;
  if (inbound) {
    flow.flags |= Flow::inbound;
    enqueue(record, Flow::queued_new);
  } else {
    flow.flags |= Flow::answered;
    ++hosts_[key.host].flows;
  }
  return record;
}

void Engine::Impl::mark_answered(std::uint32_t record) {
  dequeue(record);
  Flow& flow = flows_[record];
  flow.flags |= Flow::answered;
  if (counts(flow))
    ++hosts_[flow.host].flows;
  else
    enqueue(record, Flow::queued_half_open);
}

void Engine::Impl::mark_confirmed(std::uint32_t record) {
  dequeue(record);
  ++hosts_[flows_[record].host].flows;
}

void Engine::Impl::unchain(std::uint32_t record) {
  const Flow& flow = flows_[record];
  const Part part = part_of_protocol(flow.protocol);
  if (flow.slot_previous != Flow::none)
    flows_[flow.slot_previous].slot_next = flow.slot_next;
  else
    chain_of(mappings_.slot(part, external_of(flow))) = flow.slot_next;
  if (flow.slot_next != Flow::none) flows_[flow.slot_next].slot_previous = flow.slot_previous;
}

void Engine::Impl::drop_flow(std::uint32_t record) {
  unchain(record);
  dequeue(record);
  const Flow& flow = flows_[record];
  if (counts(flow)) {
    const std::uint32_t host = flow.host;
    --hosts_[host].flows;
    release_host(host);
  }
  flows_.erase(record);
}

void Engine::Impl::remove_flow(std::uint32_t record) {
  const Flow& flow = flows_[record];
  const Part part = part_of_protocol(flow.protocol);
  const ExternalPort external = external_of(flow);
  drop_flow(record);
  const Slot& slot = mappings_.slot(part, external);
  if ((slot.kind == SlotKind::implicit || slot.kind == SlotKind::draining) && slot.aux == Flow::none &&
      &slot != kept_slot_)
    free_slot(part, external);
}

void Engine::Impl::move_flow(std::uint32_t record, ExternalPort external) {
  unchain(record);
  Flow& flow = flows_[record];
  Slot& slot = mappings_.slot(flow.protocol == packet::protocol::tcp ? Part::tcp : Part::udp, external);
  flow.external_port = external.number;
  std::uint32_t& first = chain_of(slot);
  flow.slot_previous = Flow::none;
  flow.slot_next = first;
  if (first != Flow::none) flows_[first].slot_previous = record;
  first = record;
}

void Engine::Impl::enqueue(std::uint32_t record, Flow::Flag flag) {
  Queue& queue = flag == Flow::queued_new ? unanswered_ : half_open_;
  Flow& flow = flows_[record];
  flow.flags |= flag;
  flow.queue_next = Flow::none;
  flow.queue_previous = queue.last;
  (queue.last != Flow::none ? flows_[queue.last].queue_next : queue.first) = record;
  queue.last = record;
}

void Engine::Impl::dequeue(std::uint32_t record) {
  Flow& flow = flows_[record];
  if (!(flow.flags & (Flow::queued_new | Flow::queued_half_open))) return;
  Queue& queue = flow.flags & Flow::queued_new ? unanswered_ : half_open_;
  (flow.queue_previous != Flow::none ? flows_[flow.queue_previous].queue_next : queue.first) =
      flow.queue_next;
  (flow.queue_next != Flow::none ? flows_[flow.queue_next].queue_previous : queue.last) = flow.queue_previous;
  flow.flags &= static_cast<std::uint8_t>(~(Flow::queued_new | Flow::queued_half_open));
}

/// Only what nobody inside ever answered gives way, then handshakes that the peer never finished: both are
/// what a flood leaves (POL-NET-14).
bool Engine::Impl::make_room() {
  if (swept_full_s_ != now_s_) {
    swept_full_s_ = now_s_;
    sweep_flows(8192);
    if (!table_is_full()) return true;
  }
  for (const Queue* queue : {&unanswered_, &half_open_})
    if (queue->first != Flow::none) {
      remove_flow(queue->first);
      return true;
    }
  return false;
}

std::uint16_t Engine::Impl::running(Part part, const FlowKey& key) const {
  if (shared_) {
    const auto flow = shared_->flow(key);
    if (!flow || rules::sp_is_over(flow->deadline_s, now_s_)) return 0;
    const Slot& slot = mappings_.slot(part, {address_of(key.host), flow->external});
    const bool own =
        slot.host == key.host && slot.port == key.host_port && slot.generation == flow->generation;
    return own && is_in_force(slot) ? flow->external : std::uint16_t{0};
  }
  const std::uint32_t record = flows_.find(flows_.hash_of(key), key);
  if (record == Flow::none || rules::sp_is_over(flows_[record].deadline_s, now_s_) ||
      (flows_[record].flags & Flow::ended))
    return 0;
  return flows_[record].external_port;
}

/// Whether the endpoint sent to that address and may hear from it (ADF).
bool Engine::Impl::sent_before(const FlowKey& key) {
  std::uint32_t record = flows_.find_group(key);
  for (std::uint32_t step = 0; record != Flow::none && step < most_group_steps; ++step) {
    const Flow& flow = flows_[record];
    if ((flow.flags & Flow::answered) && !(flow.flags & Flow::ended) &&
        !rules::sp_is_over(flow.deadline_s, now_s_))
      return true;
    record = flow.group_next;
  }
  return false;
}

void Engine::Impl::sweep_flows(std::uint32_t records) {
  for (std::uint32_t i = 0; i < records && flows_.count() != 0; ++i) {
    if (flow_cursor_ >= flows_.high_water()) flow_cursor_ = 0;
    const std::uint32_t record = flow_cursor_++;
    const Flow& flow = flows_[record];
    if (flow.protocol != 0 && rules::sp_is_over(flow.deadline_s, now_s_)) remove_flow(record);
  }
}

}  // namespace sallyport::nat
