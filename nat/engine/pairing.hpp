#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "nat/engine/rules.h"

namespace sallyport::nat {

/// Which external address a host has (paired pooling, N4787-02): a pure function of its address and of the
/// set, so it is the same after a restart. Hosts fall into buckets, and each bucket goes to the address that
/// it values most (rendezvous hashing): when an address comes or goes, only those hosts move that have to. An
/// address keeps its index as long as it is there, so what is kept by index stays where it is.
class Pairing {
 public:
  static constexpr std::size_t most = 32;  ///< addresses
  static constexpr std::size_t buckets = rules::SP_BUCKETS;

  Pairing() = default;
  /// With the indexes that they had: 0 where there is none.
  explicit Pairing(std::span<const std::uint32_t> by_index) noexcept;

  /// Another set, in host order; of more than `room` the first ones count, and of one that is there twice
  /// once. Indexes are less than `room`.
  void set(std::span<const std::uint32_t> addresses, std::size_t room = most) noexcept;

  std::size_t count() const noexcept { return count_; }
  /// Of one address its index, of several the lowest one.
  std::uint8_t only() const noexcept { return only_; }
  /// 0: nobody has this index.
  std::uint32_t address(std::uint8_t index) const noexcept { return addresses_[index % most]; }
  /// The index of a host's address. The gateway itself sends from each address as such.
  std::uint8_t of(std::uint32_t host) const noexcept {
    if (count_ <= 1) return only_;
    if (const auto own = find(host)) return *own;
    return pairs_[rules::sp_bucket(host)];
  }
  /// The index of an external address.
  std::optional<std::uint8_t> find(std::uint32_t address) const noexcept {
    if (count_ != 0 && address == addresses_[only_]) return only_;
    if (count_ <= 1) return std::nullopt;
    for (std::size_t index = 0; index < most; ++index)
      if (addresses_[index] == address && address != 0) return static_cast<std::uint8_t>(index);
    return std::nullopt;
  }
  const std::array<std::uint8_t, buckets>& pairs() const noexcept { return pairs_; }

  friend bool operator==(const Pairing&, const Pairing&) = default;

 private:
  void pair() noexcept;

  std::array<std::uint32_t, most> addresses_{};
  std::array<std::uint8_t, buckets> pairs_{};
  std::uint8_t only_ = 0;
  std::uint8_t count_ = 0;
};

}  // namespace sallyport::nat
