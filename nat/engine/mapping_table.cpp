#include "nat/engine/mapping_table.hpp"

#include <atomic>
#include <bit>

#include "nat/engine/shared_tables.hpp"

namespace sallyport::nat {
namespace {

constexpr std::uint32_t none = 0xffffffff;
constexpr std::uint32_t first_endpoints = 512;
constexpr std::uint64_t used = 0x80000000;

constexpr std::uint64_t entry_of(std::uint32_t hash, Part part, ExternalPort external) noexcept {
  return std::uint64_t{hash} << 32 | used | std::uint64_t{external.address} << 18 |
         static_cast<std::uint64_t>(part) << 16 | external.number;
}

}  // namespace

MappingTable::MappingTable(const SipHash& hash, std::size_t addresses, SharedTables* shared)
    : hash_{hash},
      shared_{shared},
      slots_{shared ? Pages<Slot>::view(shared->slots()) : Pages<Slot>{addresses * (parts << 16)}},
      endpoints_{first_endpoints},
      mask_{first_endpoints - 1},
      free_lease_{none} {
  for (std::size_t address = 0; address < this->addresses(); ++address) {
    ports_.push_back(std::make_unique<std::array<PortAllocator, parts>>());
    for (PortAllocator& ports : *ports_.back()) ports.set_all();
  }
}

bool MappingTable::replace(Slot& slot, const Slot& seen, const Slot& with) noexcept {
  if (!shared_) {
    slot = with;
    return true;
  }
  struct Owner {
    std::uint32_t host;
    std::uint16_t port;
    SlotKind kind;
    std::uint8_t generation;
  };
  const auto word = [](const Slot& of) {
    return std::bit_cast<std::uint64_t>(Owner{of.host, of.port, of.kind, of.generation});
  };
  // Who sees the new owner sees its deadline and its lease too.
  std::atomic_ref{slot.aux}.store(with.aux, std::memory_order_relaxed);
  std::atomic_ref{slot.deadline_s}.store(with.deadline_s, std::memory_order_release);
  std::uint64_t expected = word(seen);
  return std::atomic_ref{*reinterpret_cast<std::uint64_t*>(&slot)}.compare_exchange_strong(expected,
                                                                                           word(with));
}

ExternalPort MappingTable::find(std::uint8_t address, Part part, std::uint32_t host,
                                std::uint16_t port) const noexcept {
  if (shared_) {
    const ExternalPort external{address, shared_->find(part, host, port)};
    if (!external) return {};
    const Slot& owner = slot(part, external);
    return owner.kind != SlotKind::free && owner.host == host && owner.port == port ? external
                                                                                    : ExternalPort{};
  }
  const std::uint32_t wanted = tag(part, host, port);
  for (std::uint32_t at = wanted & mask_; endpoints_[at] != 0; at = (at + 1) & mask_) {
    const Entry entry = endpoints_[at];
    if (entry >> 32 != wanted || (entry >> 16 & 3) != static_cast<std::uint64_t>(part)) continue;
    const ExternalPort external{address, static_cast<std::uint16_t>(entry)};
    if ((entry >> 18 & 31) != address) continue;
    const Slot& owner = slot(part, external);
    if (owner.host == host && owner.port == port) return external;
  }
  return {};
}

bool MappingTable::link(Part part, ExternalPort external) {
  if (shared_)
    return shared_->link(part, slot(part, external).host, slot(part, external).port, external.number);
  if (entries_ + 1 > (mask_ + 1) / 4 * 3 && !grow()) return false;
  const Slot& owner = slot(part, external);
  const std::uint32_t hash = tag(part, owner.host, owner.port);
  std::uint32_t at = hash & mask_;
  while (endpoints_[at] != 0) at = (at + 1) & mask_;
  endpoints_[at] = entry_of(hash, part, external);
  ++entries_;
  return true;
}

void MappingTable::unlink(Part part, ExternalPort external) noexcept {
  if (shared_) {
    const Slot& owner = slot(part, external);
    if (shared_->find(part, owner.host, owner.port) == external.number)
      shared_->unlink(part, owner.host, owner.port);
    return;
  }
  const Slot& owner = slot(part, external);
  const std::uint32_t hash = tag(part, owner.host, owner.port);
  const Entry wanted = entry_of(hash, part, external);
  std::uint32_t hole = hash & mask_;
  while (endpoints_[hole] != wanted) {
    if (endpoints_[hole] == 0) return;
    hole = (hole + 1) & mask_;
  }
  for (std::uint32_t at = (hole + 1) & mask_; endpoints_[at] != 0; at = (at + 1) & mask_) {
    const auto home = static_cast<std::uint32_t>(endpoints_[at] >> 32) & mask_;
    if (((at - home) & mask_) >= ((at - hole) & mask_)) {
      endpoints_[hole] = endpoints_[at];
      hole = at;
    }
  }
  endpoints_[hole] = 0;
  --entries_;
}

bool MappingTable::grow() {
  Pages<Entry> larger;
  const std::uint32_t capacity = (mask_ + 1) * 2;
  if (!larger.grow(capacity)) return false;
  for (std::uint32_t from = 0; from <= mask_; ++from) {
    if (endpoints_[from] == 0) continue;
    std::uint32_t at = static_cast<std::uint32_t>(endpoints_[from] >> 32) & (capacity - 1);
    while (larger[at] != 0) at = (at + 1) & (capacity - 1);
    larger[at] = endpoints_[from];
  }
  endpoints_ = std::move(larger);
  mask_ = capacity - 1;
  return true;
}

std::uint32_t MappingTable::add_lease() {
  std::uint32_t at = free_lease_;
  if (at != none) {
    free_lease_ = leases_[at].flows;
  } else {
    const std::size_t more = lease_high_water_ ? lease_high_water_ * 2UL : 64;
    if (lease_high_water_ == leases_.size()) {
      if (shared_)
        leases_ = Pages<Lease>::view(shared_->leases(more));
      else if (!leases_.grow(more))
        return none;
      if (lease_high_water_ >= leases_.size()) return none;
    }
    at = lease_high_water_++;
  }
  leases_[at] = Lease{};
  leases_[at].flags = Lease::used;
  leases_[at].flows = none;
  return at;
}

void MappingTable::free_lease(std::uint32_t at) noexcept {
  leases_[at] = Lease{};
  leases_[at].flows = free_lease_;
  free_lease_ = at;
}

}  // namespace sallyport::nat
