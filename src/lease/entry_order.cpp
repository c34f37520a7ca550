#include "src/lease/entry_order.hpp"

#include <algorithm>
#include <bit>

namespace sallyport::lease {

// sums_ is 0-based: sums_[i] is the number of elements in the slots (i & (i + 1))..i.

std::uint64_t EntryOrder::append(Index value) {
  if (places_.size() >= 64 && places_.size() >= 2 * size_) rebuild();
  const std::size_t slot = places_.size();
  places_.push_back({next_, value});
  // with what the earlier slots of its range hold
  sums_.push_back(1 + static_cast<std::uint32_t>(count_before(slot) - count_before(slot & (slot + 1))));
  ++size_;
  return next_++;
}

void EntryOrder::replace(std::uint64_t position, Index value) {
  const auto slot = slot_of(position);
  if (slot < places_.size()) places_[slot].value = value;
}

void EntryOrder::remove(std::uint64_t position) {
  const auto slot = slot_of(position);
  if (slot >= places_.size() || places_[slot].value == nothing) return;
  places_[slot].value = nothing;
  for (std::size_t i = slot; i < sums_.size(); i |= i + 1) --sums_[i];
  --size_;
}

Index EntryOrder::at(std::size_t index) const noexcept {
  return index < size_ ? places_[nth(index)].value : nothing;
}

Index EntryOrder::after(std::uint64_t position) const noexcept {
  const std::size_t slot = first_behind(position);
  return at(count_before(slot));
}

std::size_t EntryOrder::first_behind(std::uint64_t position) const noexcept {
  return static_cast<std::size_t>(
      std::ranges::upper_bound(places_, position, {}, &Place::position) - places_.begin());
}

std::size_t EntryOrder::slot_of(std::uint64_t position) const noexcept {
  const auto found = std::ranges::lower_bound(places_, position, {}, &Place::position);
  return found != places_.end() && found->position == position
             ? static_cast<std::size_t>(found - places_.begin())
             : places_.size();
}

std::size_t EntryOrder::count_before(std::size_t slot) const noexcept {
  std::size_t count = 0;
  for (std::size_t i = slot; i > 0; i &= i - 1) count += sums_[i - 1];
  return count;
}

/// The slot of the index-th element; the index is less than size_.
std::size_t EntryOrder::nth(std::size_t index) const noexcept {
  std::size_t slot = 0;
  for (std::size_t step = std::bit_floor(sums_.size()); step > 0; step /= 2)
    if (slot + step <= sums_.size() && sums_[slot + step - 1] <= index) {
      slot += step;
      index -= sums_[slot - 1];
    }
  return slot;
}

void EntryOrder::rebuild() {
  std::erase_if(places_, [](const Place& place) { return place.value == nothing; });
  sums_.assign(places_.size(), 1);
  for (std::size_t i = 0; i < sums_.size(); ++i)
    if (const std::size_t up = i | (i + 1); up < sums_.size()) sums_[up] += sums_[i];
}

}  // namespace sallyport::lease
