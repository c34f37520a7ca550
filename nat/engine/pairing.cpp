#include "nat/engine/pairing.hpp"

#include <algorithm>

namespace sallyport::nat {
namespace {

/// What an address is worth to a bucket (the finalizer of splitmix64).
constexpr std::uint64_t worth(std::uint32_t address, std::size_t bucket) noexcept {
  std::uint64_t value = (std::uint64_t{address} << 8 | bucket) + 0x9e3779b97f4a7c15u;
  value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9u;
  value = (value ^ value >> 27) * 0x94d049bb133111ebu;
  return value ^ value >> 31;
}

}  // namespace

Pairing::Pairing(std::span<const std::uint32_t> by_index) noexcept {
  std::copy_n(by_index.begin(), std::min(by_index.size(), most), addresses_.begin());
  pair();
}

void Pairing::set(std::span<const std::uint32_t> addresses, std::size_t room) noexcept {
  room = std::min(room, most);
  std::array<std::uint32_t, most> wanted{};
  std::size_t count = 0;
  for (const std::uint32_t address : addresses)
    if (address != 0 && count < room && std::find(wanted.begin(), wanted.end(), address) == wanted.end())
      wanted[count++] = address;
  for (std::uint32_t& there : addresses_)
    if (std::find(wanted.begin(), wanted.begin() + count, there) == wanted.begin() + count) there = 0;
  for (std::size_t i = 0; i < count; ++i)
    if (std::find(addresses_.begin(), addresses_.end(), wanted[i]) == addresses_.end())
      *std::find(addresses_.begin(), addresses_.end(), 0U) = wanted[i];
  pair();
}

void Pairing::pair() noexcept {
  count_ = 0;
  only_ = 0;
  for (std::size_t index = most; index-- > 0;) {
    if (addresses_[index] == 0) continue;
    ++count_;
    only_ = static_cast<std::uint8_t>(index);
  }
  for (std::size_t bucket = 0; bucket < buckets; ++bucket) {
    pairs_[bucket] = only_;
    for (std::size_t index = 0; index < most; ++index)
      if (addresses_[index] != 0 &&
          worth(addresses_[index], bucket) > worth(addresses_[pairs_[bucket]], bucket))
        pairs_[bucket] = static_cast<std::uint8_t>(index);
  }
}

}  // namespace sallyport::nat
