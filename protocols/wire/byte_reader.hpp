#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace sallyport::wire {

/// Reads big-endian fields one after another. After a read past the end it yields zeros (and empty spans) and
/// stays not ok(), so a decoder asks once, when it has read everything.
class ByteReader {
 public:
  explicit constexpr ByteReader(std::span<const std::byte> bytes) noexcept : rest_{bytes} {}

  constexpr std::uint8_t u8() noexcept { return static_cast<std::uint8_t>(number<1>()); }
  constexpr std::uint16_t u16() noexcept { return static_cast<std::uint16_t>(number<2>()); }
  constexpr std::uint32_t u32() noexcept { return number<4>(); }

  template <std::size_t N>
  constexpr std::array<std::byte, N> bytes() noexcept {
    std::array<std::byte, N> out{};
    const auto from = take(N);
    for (std::size_t i = 0; i < from.size(); ++i) out[i] = from[i];
    return out;
  }
  /// The next `count` octets as they lie; empty when fewer are left.
  constexpr std::span<const std::byte> take(std::size_t count) noexcept {
    if (count > rest_.size()) {
      ok_ = false;
      rest_ = {};
      return {};
    }
    const auto out = rest_.first(count);
    rest_ = rest_.subspan(count);
    return out;
  }
  constexpr void skip(std::size_t count) noexcept { take(count); }

  constexpr std::span<const std::byte> rest() const noexcept { return rest_; }
  constexpr bool ok() const noexcept { return ok_; }

 private:
  template <std::size_t N>
  constexpr std::uint32_t number() noexcept {
    std::uint32_t out = 0;
    for (const auto octet : take(N)) out = out << 8 | std::to_integer<std::uint32_t>(octet);
    return out;
  }

  std::span<const std::byte> rest_;
  bool ok_ = true;
};

}  // namespace sallyport::wire
