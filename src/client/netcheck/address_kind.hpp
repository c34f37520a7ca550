#pragma once

#include <cstdint>
#include <string_view>

#include "sallyport/values/address.hpp"

namespace sallyport::client {

/// What the registries of special addresses (RFC 6890 and what it names) make of an address, as far as it
/// matters to who wants to be reached there.
enum class AddressKind : std::uint8_t {
  global,
  documentation,  ///< no host of the internet has one; networks for tests do, so they count as public
  private_use,    ///< RFC 1918, RFC 4193
  shared,         ///< RFC 6598: between a provider's NAT and its customers
  ds_lite,        ///< RFC 7335: the end of a tunnel to the provider's NAT
  link_local,
  loopback,
  unspecified,
  reserved,  ///< everything else that the internet does not route to one host
};

AddressKind kind_of(const Address& address) noexcept;
constexpr bool is_public(AddressKind kind) noexcept {
  return kind == AddressKind::global || kind == AddressKind::documentation;
}
/// Behind the provider's NAT.
constexpr bool is_carrier(AddressKind kind) noexcept {
  return kind == AddressKind::shared || kind == AddressKind::ds_lite;
}
/// To end "100.64.0.7 is ...".
std::string_view describe(AddressKind kind) noexcept;

}  // namespace sallyport::client
