#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <memory>
#include <optional>

#include "nat/engine/siphash.hpp"
#include "sallyport/values/port.hpp"

namespace sallyport::nat {

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
  std::array<std::uint64_t, 1024> words_{};
  std::array<std::uint64_t, 16> summary_{};
  std::uint16_t top_ = 0;
};

}  // namespace sallyport::nat
