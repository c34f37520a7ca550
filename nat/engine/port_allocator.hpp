#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <memory>
#include <optional>

#include "nat/engine/siphash.hpp"
#include "sallyport/values/port.hpp"

namespace sallyport::nat {

/// Ports, a bit for each.
using PortBits = std::array<std::uint64_t, 1024>;

/// Consecutive ports.
struct PortRun {
  std::uint16_t first;
  std::uint16_t size;
  friend bool operator==(const PortRun&, const PortRun&) = default;
};

/// Finds runs of consecutive ports by shifting the whole bitmap onto itself: 20 passes over 1024 words at
/// most, however the free ports lie (POL-FAIR-03).
class RunFinder {
 public:
  explicit RunFinder(const PortBits& free) noexcept : free_{free} {}
  /// Takes a port out of the search.
  void exclude(std::uint16_t port) noexcept { free_[port / 64] &= ~(std::uint64_t{1} << port % 64); }

  /// A run of `size` ports, the first that begins behind a random place; where there is none, one of the
  /// longest. `odd`: what the first port has to be; empty: either. Empty when no port is left.
  std::optional<PortRun> find(std::uint16_t size, std::optional<bool> odd,
                              std::uint32_t random) const noexcept {
    const std::uint64_t begins = !odd ? ~std::uint64_t{0} : *odd ? 0xaaaaaaaaaaaaaaaau : 0x5555555555555555u;
    PortBits starts = free_;  // of runs of `length`
    std::uint32_t length = 1;
    if (size == 0 || !any(starts, begins)) return std::nullopt;
    PortBits longer;
    for (; length * 2 <= size; length *= 2) {
      join(starts, length, longer);
      if (!any(longer, begins)) break;
      starts = longer;
    }
    // between `length` and twice that: any run of up to `length` more is two of `length` that overlap
    std::uint32_t more = std::min(length, size - length), known = 0;
    PortBits best = starts;
    for (std::uint32_t refused = more + 1; more > known; more = known + (refused - known) / 2) {
      join(starts, more, longer);
      if (any(longer, begins)) {
        known = more;
        best = longer;
      } else {
        refused = more;
      }
    }
    return PortRun{pick(best, begins, random), static_cast<std::uint16_t>(length + known)};
  }

 private:
  static bool any(const PortBits& bits, std::uint64_t mask) noexcept {
    return std::any_of(bits.begin(), bits.end(), [mask](std::uint64_t word) { return (word & mask) != 0; });
  }
  /// Where two runs begin, one `distance` behind the other.
  static void join(const PortBits& starts, std::uint32_t distance, PortBits& out) noexcept {
    const std::uint32_t words = distance / 64, bits = distance % 64;
    const auto word = [&](std::size_t i) { return i < starts.size() ? starts[i] : 0; };
    for (std::size_t i = 0; i < starts.size(); ++i) {
      auto shifted = word(i + words) >> bits;
      if (bits) shifted |= word(i + words + 1) << (64 - bits);
      out[i] = starts[i] & shifted;
    }
  }
  /// One of the bits; `bits` has at least one under the mask.
  static std::uint16_t pick(const PortBits& bits, std::uint64_t mask, std::uint32_t random) noexcept {
    const std::uint32_t from = random % 65536;
    std::uint32_t index = from / 64;
    auto word = bits[index] & mask & ~std::uint64_t{0} << from % 64;
    while (!word) {
      index = (index + 1) % 1024;
      word = bits[index] & mask;
    }
    return static_cast<std::uint16_t>(index * 64 + static_cast<std::uint32_t>(std::countr_zero(word)));
  }

  PortBits free_;
};

/// Which external ports of one transport may be chosen for somebody, as a bitmap with two summaries above it:
/// any choice reads at most a few words, however full the range is (POL-FAIR-03).
class PortAllocator {
 public:
  PortAllocator() = default;

  /// Every port but 0 is free.
  void set_all() noexcept {
    words_.fill(~std::uint64_t{0});
    words_[0] = ~std::uint64_t{1};
    summary_.fill(~std::uint64_t{0});
    top_ = 0xffff;
  }
  void set(std::uint16_t port, bool free) noexcept {
    const std::uint64_t bit = std::uint64_t{1} << port % 64;
    auto& word = words_[port / 64];
    word = free ? word | bit : word & ~bit;
    auto& summary = summary_[port / 4096];
    const std::uint64_t word_bit = std::uint64_t{1} << port / 64 % 64;
    summary = word ? summary | word_bit : summary & ~word_bit;
    const auto top_bit = static_cast<std::uint16_t>(1 << port / 4096);
    top_ = static_cast<std::uint16_t>(summary ? top_ | top_bit : top_ & ~top_bit);
  }
  bool is_free(std::uint16_t port) const noexcept { return words_[port / 64] >> port % 64 & 1; }

  /// The first free port from `from` on.
  std::optional<std::uint16_t> next(std::uint32_t from) const noexcept {
    if (from > 65535) return std::nullopt;
    if (const auto word = words_[from / 64] >> from % 64)
      return static_cast<std::uint16_t>(from + static_cast<std::uint32_t>(std::countr_zero(word)));
    std::uint32_t index = from / 64 + 1;
    if (index > 1023) return std::nullopt;
    auto summary = summary_[index / 64] >> index % 64;
    if (!summary) {
      const std::uint32_t top = index / 64 + 1;
      if (top > 15 || !(top_ >> top)) return std::nullopt;
      index = (top + static_cast<std::uint32_t>(std::countr_zero(static_cast<unsigned>(top_ >> top)))) * 64;
      summary = summary_[index / 64];
    }
    index += static_cast<std::uint32_t>(std::countr_zero(summary));
    return static_cast<std::uint16_t>(index * 64 +
                                      static_cast<std::uint32_t>(std::countr_zero(words_[index])));
  }

  /// The free ports of a range.
  PortBits free_in(PortRange range) const noexcept {
    PortBits bits{};
    if (range.first > range.last) return bits;
    const std::uint32_t first = range.first / 64, last = range.last / 64;
    std::copy(words_.begin() + first, words_.begin() + last + 1, bits.begin() + first);
    bits[first] &= ~std::uint64_t{0} << range.first % 64;
    bits[last] &= ~std::uint64_t{0} >> (63 - range.last % 64);
    return bits;
  }

  /// A free port of the range: uniform while at least some are free, else the next one after a random place.
  template <class Random, class Usable>
  std::optional<std::uint16_t> choose(PortRange range, Random&& random, Usable&& usable) const {
    if (range.first > range.last) return std::nullopt;
    const std::uint32_t size = range.last - range.first + 1U;
    for (int probe = 0; probe < 32; ++probe) {
      const auto port = static_cast<std::uint16_t>(range.first + random() % size);
      if (is_free(port) && usable(port)) return port;
    }
    const std::uint32_t start = range.first + random() % size;
    std::uint32_t at = start;
    bool wrapped = false;
    for (int tries = 0; tries < 4096; ++tries) {
      const auto port = next(at);
      if (!port || *port > range.last || (wrapped && *port >= start)) {
        if (wrapped) return std::nullopt;
        wrapped = true;
        at = range.first;
        continue;
      }
      if (usable(*port)) return port;
      at = *port + 1U;
    }
    return std::nullopt;
  }

 private:
  PortBits words_{};
  std::array<std::uint64_t, 16> summary_{};
  std::uint16_t top_ = 0;
};

}  // namespace sallyport::nat
