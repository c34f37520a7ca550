#pragma once

#include <cstdint>
#include <utility>

#include "nat/engine/pages.hpp"

namespace sallyport::nat {

/// Finds records by hash: entries of 8 octets (32 bits of the keyed hash, 32 of the record) with linear
/// probing. Grows by doubling; never above four fifths full.
class TagIndex {
 public:
  static constexpr std::uint32_t none = 0xffffffff;

  /// The record of that hash for which `is` holds, or none.
  template <class Is>
  std::uint32_t find(std::uint64_t hash, Is&& is) const {
    const std::uint32_t tag = tag_of(hash);
    for (std::uint32_t at = tag & mask_;; at = (at + 1) & mask_) {
      const Entry entry = entries_[at];
      if (entry == 0) return none;
      if (tag_of_entry(entry) == tag && is(record_of(entry))) return record_of(entry);
    }
  }
  /// Room for one more; false without memory.
  bool reserve() { return count_ + 1 <= (mask_ + 1ULL) * 4 / 5 || grow(); }
  /// After reserve(); what is not there yet.
  void add(std::uint64_t hash, std::uint32_t record) noexcept {
    std::uint32_t at = tag_of(hash) & mask_;
    while (entries_[at] != 0) at = (at + 1) & mask_;
    entries_[at] = entry_of(hash, record);
    ++count_;
  }
  /// What is there.
  void replace(std::uint64_t hash, std::uint32_t before, std::uint32_t after) noexcept {
    entries_[position_of(hash, before)] = entry_of(hash, after);
  }
  void remove(std::uint64_t hash, std::uint32_t record) noexcept {
    std::uint32_t hole = position_of(hash, record);
    for (std::uint32_t at = (hole + 1) & mask_; entries_[at] != 0; at = (at + 1) & mask_) {
      const std::uint32_t home = tag_of_entry(entries_[at]) & mask_;
      // An entry may move back into the hole unless its home lies behind the hole.
      if (((at - home) & mask_) >= ((at - hole) & mask_)) {
        entries_[hole] = entries_[at];
        hole = at;
      }
    }
    entries_[hole] = 0;
    --count_;
  }
  void clear() noexcept {
    entries_ = Pages<Entry>{first_entries};
    mask_ = first_entries - 1;
    count_ = 0;
  }

 private:
  using Entry = std::uint64_t;  // tag << 32 | record + 1; 0 is empty
  static constexpr std::uint32_t first_entries = 512;

  static constexpr std::uint32_t tag_of(std::uint64_t hash) noexcept {
    return static_cast<std::uint32_t>(hash);
  }
  static constexpr std::uint32_t tag_of_entry(Entry entry) noexcept {
    return static_cast<std::uint32_t>(entry >> 32);
  }
  static constexpr std::uint32_t record_of(Entry entry) noexcept {
    return static_cast<std::uint32_t>(entry) - 1;
  }
  static constexpr Entry entry_of(std::uint64_t hash, std::uint32_t record) noexcept {
    return Entry{tag_of(hash)} << 32 | (record + 1);
  }
  std::uint32_t position_of(std::uint64_t hash, std::uint32_t record) const noexcept {
    std::uint32_t at = tag_of(hash) & mask_;
    while (entries_[at] != entry_of(hash, record)) at = (at + 1) & mask_;
    return at;
  }
  bool grow() {
    const std::uint64_t capacity = (mask_ + 1ULL) * 2;
    if (capacity > std::uint64_t{1} << 31) return false;
    Pages<Entry> larger;
    if (!larger.grow(capacity)) return false;
    const auto mask = static_cast<std::uint32_t>(capacity - 1);
    for (std::uint64_t from = 0; from <= mask_; ++from) {
      const Entry entry = entries_[from];
      if (entry == 0) continue;
      std::uint32_t at = tag_of_entry(entry) & mask;
      while (larger[at] != 0) at = (at + 1) & mask;
      larger[at] = entry;
    }
    entries_ = std::move(larger);
    mask_ = mask;
    return true;
  }

  Pages<Entry> entries_{first_entries};
  std::uint32_t mask_ = first_entries - 1;
  std::uint32_t count_ = 0;
};

/// Records of one kind in a dense array. A record has `protocol`, 0 while it is free, and `next`.
template <class T>
class Records {
 public:
  static constexpr std::uint32_t none = TagIndex::none;

  T& operator[](std::uint32_t record) noexcept { return records_[record]; }
  const T& operator[](std::uint32_t record) const noexcept { return records_[record]; }
  std::uint32_t count() const noexcept { return count_; }
  std::uint32_t high_water() const noexcept { return high_water_; }

  /// A record of zeros; `none` without memory. Invalidates references.
  std::uint32_t take() {
    std::uint32_t record = free_;
    if (record != none) {
      free_ = records_[record].next;
    } else {
      if (high_water_ == records_.size() &&
          (high_water_ >= most / 2 || !records_.grow(high_water_ ? std::size_t{high_water_} * 2 : 64)))
        return none;
      record = high_water_++;
    }
    records_[record] = {};
    ++count_;
    return record;
  }
  void give_back(std::uint32_t record) noexcept {
    records_[record].protocol = 0;
    records_[record].next = free_;
    free_ = record;
    // After a flood its memory goes back; a few pages are not worth a call to the kernel.
    if (--count_ == 0 && records_.size() > 4096) {
      records_ = Pages<T>{};
      high_water_ = 0;
      free_ = none;
    }
  }

 private:
  static constexpr std::uint32_t most = 1U << 31;
  Pages<T> records_;
  std::uint32_t high_water_ = 0, free_ = none, count_ = 0;
};

}  // namespace sallyport::nat
