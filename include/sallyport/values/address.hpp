#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace sallyport {

/// An IPv4 or IPv6 address in 128 bits; IPv4 is held as ::ffff:a.b.c.d, as PCP writes it (RFC 6887, section 5).
/// The default is "::".
class Address {
 public:
  using Bytes = std::array<std::byte, 16>;

  constexpr Address() noexcept = default;
  explicit constexpr Address(const Bytes& bytes) noexcept : bytes_{bytes} {}

  /// From an IPv4 address as a number in host order: 192.0.2.1 is 0xc0000201.
  static constexpr Address v4(std::uint32_t number) noexcept {
    Address address;
    address.bytes_[10] = address.bytes_[11] = std::byte{0xff};
    for (std::size_t i = 0; i < 4; ++i)
      address.bytes_[12 + i] = static_cast<std::byte>(number >> (24 - 8 * i));
    return address;
  }
  /// Dotted decimal (exactly four numbers) or RFC 4291 text; empty when it is neither.
  static std::optional<Address> parse(std::string_view text);

  constexpr const Bytes& bytes() const noexcept { return bytes_; }
  constexpr bool is_v4() const noexcept {
    for (std::size_t i = 0; i < 10; ++i)
      if (bytes_[i] != std::byte{0}) return false;
    return bytes_[10] == std::byte{0xff} && bytes_[11] == std::byte{0xff};
  }
  /// The IPv4 address as a number in host order. Meaningful only when is_v4().
  constexpr std::uint32_t v4_number() const noexcept {
    std::uint32_t number = 0;
    for (std::size_t i = 12; i < 16; ++i) number = number << 8 | std::to_integer<std::uint32_t>(bytes_[i]);
    return number;
  }
  /// True for :: and 0.0.0.0, which PCP reads as "any address of that family".
  constexpr bool is_unspecified() const noexcept {
    return is_v4() ? v4_number() == 0 : bytes_ == Bytes{};
  }
  std::string to_string() const;

  friend constexpr auto operator<=>(const Address&, const Address&) = default;

 private:
  Bytes bytes_{};
};

/// An address prefix; the length counts bits of the 128-bit form, so an IPv4 /24 has length 120.
struct Prefix {
  Address address;
  std::uint8_t length = 128;

  static constexpr Prefix v4(std::uint32_t number, std::uint8_t bits) noexcept {
    return {Address::v4(number), static_cast<std::uint8_t>(96 + bits)};
  }
  /// "192.0.2.0/24", "2001:db8::/32", or a bare address (a prefix of that one host).
  static std::optional<Prefix> parse(std::string_view text);
  /// Bits of either address beyond the length play no part.
  bool contains(const Address& other) const noexcept;
  /// The bits of an IPv4 netmask: 24 for length 120. Meaningful only for IPv4 prefixes.
  constexpr std::uint8_t v4_bits() const noexcept { return static_cast<std::uint8_t>(length - 96); }
  /// Written as its family does ("192.0.2.0/24").
  std::string to_string() const;

  friend bool operator==(const Prefix&, const Prefix&) = default;
};

}  // namespace sallyport

template <>
struct std::hash<sallyport::Address> {
  std::size_t operator()(const sallyport::Address& address) const noexcept;
};
