#include "nat/engine/flow_table.hpp"

#include "nat/packet/ipv4.hpp"

namespace sallyport::nat {
namespace {

constexpr std::uint32_t first_entries = 512;
constexpr std::uint32_t first_flows = 64;

/// Address-dependent filtering means nothing for ICMP queries: their flows have no peer port anyway.
bool grouped(const FlowKey& key) noexcept { return key.protocol != packet::protocol::icmp; }

}  // namespace

FlowTable::FlowTable(const SipHash& hash) : hash_{hash}, index_{first_entries}, mask_{first_entries - 1} {}

std::uint32_t FlowTable::candidate(std::uint64_t hash) const noexcept {
  const std::uint32_t tag = tag_of(hash);
  for (std::uint32_t at = tag & mask_;; at = (at + 1) & mask_) {
    const Entry entry = index_[at];
    if (entry == 0) return Flow::none;
    if (tag_of_entry(entry) == tag && !(value_of(entry) & group_bit)) return value_of(entry) - 1;
  }
}

std::uint32_t FlowTable::find(std::uint64_t hash, const FlowKey& key) const noexcept {
  const std::uint32_t tag = tag_of(hash);
  for (std::uint32_t at = tag & mask_;; at = (at + 1) & mask_) {
    const Entry entry = index_[at];
    if (entry == 0) return Flow::none;
    if (tag_of_entry(entry) == tag && !(value_of(entry) & group_bit)) {
      const std::uint32_t record = value_of(entry) - 1;
      if (flows_[record].is(key)) return record;
    }
  }
}

std::uint32_t FlowTable::find_group(std::uint64_t hash, const FlowKey& key,
                                    std::uint32_t* position) const noexcept {
  const std::uint32_t tag = tag_of(hash);
  for (std::uint32_t at = tag & mask_;; at = (at + 1) & mask_) {
    const Entry entry = index_[at];
    if (entry == 0) return Flow::none;
    if (tag_of_entry(entry) == tag && (value_of(entry) & group_bit)) {
      const std::uint32_t record = (value_of(entry) & ~group_bit) - 1;
      const Flow& flow = flows_[record];
      if (flow.host == key.host && flow.host_port == key.host_port && flow.peer == key.peer &&
          flow.protocol == key.protocol) {
        if (position) *position = at;
        return record;
      }
    }
  }
}

std::uint32_t FlowTable::find_group(const FlowKey& key) const noexcept {
  return find_group(group_hash(key), key, nullptr);
}

std::uint32_t FlowTable::insert(std::uint64_t hash, const FlowKey& key) {
  // Room for the flow and its group first, so that nothing has to be undone.
  if ((entries_ + 2) > (mask_ + 1ULL) * 4 / 5 && !grow_index()) return Flow::none;
  std::uint32_t record = free_;
  if (record != Flow::none) {
    free_ = flows_[record].slot_next;
  } else {
    if (high_water_ == flows_.size() &&
        (high_water_ >= group_bit / 2 ||
         !flows_.grow(high_water_ ? std::size_t{high_water_} * 2 : first_flows)))
      return Flow::none;
    record = high_water_++;
  }
  Flow& flow = flows_[record];
  flow = {};
  flow.host = key.host;
  flow.peer = key.peer;
  flow.host_port = key.host_port;
  flow.peer_port = key.peer_port;
  flow.protocol = key.protocol;
  flow.slot_next = flow.slot_previous = flow.group_next = flow.group_previous = Flow::none;
  flow.queue_next = flow.queue_previous = Flow::none;
  add_entry(hash, record + 1);
  if (grouped(key)) {
    const std::uint64_t group = group_hash(key);
    const std::uint32_t head = find_group(group, key, nullptr);
    if (head == Flow::none) {
      add_entry(group, (record + 1) | group_bit);
    } else {
      flow.group_previous = head;
      flow.group_next = flows_[head].group_next;
      if (flow.group_next != Flow::none) flows_[flow.group_next].group_previous = record;
      flows_[head].group_next = record;
    }
  }
  ++count_;
  return record;
}

void FlowTable::erase(std::uint32_t record) noexcept {
  Flow& flow = flows_[record];
  const FlowKey key = flow.key();
  if (grouped(key)) {
    if (flow.group_previous != Flow::none) {
      flows_[flow.group_previous].group_next = flow.group_next;
      if (flow.group_next != Flow::none) flows_[flow.group_next].group_previous = flow.group_previous;
    } else {
      const std::uint32_t at = position_of(group_hash(key), (record + 1) | group_bit);
      if (flow.group_next == Flow::none) {
        remove_entry(at);
      } else {
        index_[at] = (index_[at] & ~Entry{0xffffffff}) | (flow.group_next + 1) | group_bit;
        flows_[flow.group_next].group_previous = Flow::none;
      }
    }
  }
  remove_entry(position_of(hash_of(key), record + 1));
  flow.protocol = 0;
  flow.slot_next = free_;
  free_ = record;
  // After a flood its memory goes back; a few pages are not worth a call to the kernel.
  if (--count_ == 0 && flows_.size() > 4096) clear();
}

void FlowTable::clear() noexcept {
  if (flows_.size() > 4096) {
    flows_ = Pages<Flow>{};
    index_ = Pages<Entry>{first_entries};
    mask_ = first_entries - 1;
  } else {
    for (std::uint32_t at = 0; at <= mask_; ++at) index_[at] = 0;
    for (std::uint32_t record = 0; record < high_water_; ++record) flows_[record].protocol = 0;
  }
  entries_ = 0;
  high_water_ = 0;
  free_ = Flow::none;
  count_ = 0;
}

bool FlowTable::add_entry(std::uint64_t hash, std::uint32_t value) {
  const std::uint32_t tag = tag_of(hash);
  std::uint32_t at = tag & mask_;
  while (index_[at] != 0) at = (at + 1) & mask_;
  index_[at] = Entry{tag} << 32 | value;
  ++entries_;
  return true;
}

std::uint32_t FlowTable::position_of(std::uint64_t hash, std::uint32_t value) const noexcept {
  const Entry wanted = Entry{tag_of(hash)} << 32 | value;
  std::uint32_t at = tag_of(hash) & mask_;
  while (index_[at] != wanted) at = (at + 1) & mask_;
  return at;
}

void FlowTable::remove_entry(std::uint32_t position) noexcept {
  std::uint32_t hole = position;
  for (std::uint32_t at = (hole + 1) & mask_; index_[at] != 0; at = (at + 1) & mask_) {
    const std::uint32_t home = tag_of_entry(index_[at]) & mask_;
    // An entry may move back into the hole unless its home lies behind the hole.
    if (((at - home) & mask_) >= ((at - hole) & mask_)) {
      index_[hole] = index_[at];
      hole = at;
    }
  }
  index_[hole] = 0;
  --entries_;
}

bool FlowTable::grow_index() {
  const std::uint64_t capacity = (mask_ + 1ULL) * 2;
  if (capacity > std::uint64_t{1} << 32) return false;
  Pages<Entry> larger;
  if (!larger.grow(capacity)) return false;
  const auto mask = static_cast<std::uint32_t>(capacity - 1);
  for (std::uint64_t from = 0; from <= mask_; ++from) {
    const Entry entry = index_[from];
    if (entry == 0) continue;
    std::uint32_t at = tag_of_entry(entry) & mask;
    while (larger[at] != 0) at = (at + 1) & mask;
    larger[at] = entry;
  }
  index_ = std::move(larger);
  mask_ = mask;
  return true;
}

}  // namespace sallyport::nat
