#include "src/client/netcheck/address_kind.hpp"

#include <array>
#include <cstddef>

namespace sallyport::client {
namespace {

struct Row {
  Prefix prefix;
  AddressKind kind;
};

constexpr Prefix v6(std::uint32_t first, std::uint8_t length, std::uint32_t last = 0) {
  Address::Bytes bytes{};
  for (std::size_t i = 0; i < 4; ++i) {
    bytes[i] = static_cast<std::byte>(first >> (24 - 8 * i));
    bytes[12 + i] = static_cast<std::byte>(last >> (24 - 8 * i));
  }
  return {Address{bytes}, length};
}

using enum AddressKind;
/// The first row that fits counts; the whole of IPv4 and of 2000::/3 come last of their family.
constexpr std::array rows{
    Row{Prefix::v4(0x00000000, 32), unspecified},
    Row{Prefix::v4(0x00000000, 8), reserved},
    Row{Prefix::v4(0x0a000000, 8), private_use},
    Row{Prefix::v4(0x64400000, 10), shared},
    Row{Prefix::v4(0x7f000000, 8), loopback},
    Row{Prefix::v4(0xa9fe0000, 16), link_local},
    Row{Prefix::v4(0xac100000, 12), private_use},
    Row{Prefix::v4(0xc0000000, 29), ds_lite},
    Row{Prefix::v4(0xc0000000, 24), reserved},
    Row{Prefix::v4(0xc0000200, 24), documentation},
    Row{Prefix::v4(0xc0586300, 24), reserved},
    Row{Prefix::v4(0xc0a80000, 16), private_use},
    Row{Prefix::v4(0xc6120000, 15), reserved},
    Row{Prefix::v4(0xc6336400, 24), documentation},
    Row{Prefix::v4(0xcb007100, 24), documentation},
    Row{Prefix::v4(0xe0000000, 3), reserved},
    Row{Prefix::v4(0x00000000, 0), global},

    Row{v6(0, 128), unspecified},
    Row{v6(0, 128, 1), loopback},
    Row{v6(0xfe800000, 10), link_local},
    Row{v6(0xfc000000, 7), private_use},
    Row{v6(0x20010db8, 32), documentation},
    Row{v6(0x3fff0000, 20), documentation},
    Row{v6(0x20010000, 23), reserved},
    Row{v6(0x20020000, 16), reserved},
    Row{v6(0x20000000, 3), global},
};

}  // namespace

AddressKind kind_of(const Address& address) noexcept {
  for (const auto& row : rows)
    if (row.prefix.contains(address)) return row.kind;
  return reserved;
}

std::string_view describe(AddressKind kind) noexcept {
  switch (kind) {
    case global:
      return "public";
    case documentation:
      return "an address for documentation (RFC 5737, RFC 3849), counted as public here";
    case private_use:
      return "private (RFC 1918)";
    case shared:
      return "shared by a provider's customers (RFC 6598)";
    case ds_lite:
      return "the end of a tunnel to the provider's NAT (DS-Lite, RFC 7335)";
    case link_local:
      return "link-local, what a device takes that was given no address";
    case loopback:
      return "a loopback address";
    case unspecified:
      return "no address";
    case reserved:
      return "reserved (RFC 6890), none of the public internet";
  }
  return "unknown";
}

}  // namespace sallyport::client
