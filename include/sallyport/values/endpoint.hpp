#pragma once

#include <compare>
#include <string>

#include "sallyport/values/address.hpp"
#include "sallyport/values/port.hpp"

namespace sallyport {

/// An address and a port. Side tells the two sides of the translator apart, so that swapped arguments
/// do not compile.
template <class Side>
struct Endpoint {
  Address address;
  Port port;
  friend auto operator<=>(const Endpoint&, const Endpoint&) = default;
};

using InternalEndpoint = Endpoint<struct InternalSide>;
using ExternalEndpoint = Endpoint<struct ExternalSide>;

/// "192.0.2.1:8080", "[2001:db8::1]:8080".
std::string to_string(const Address& address, Port port);
template <class Side>
std::string to_string(const Endpoint<Side>& endpoint) {
  return to_string(endpoint.address, endpoint.port);
}

}  // namespace sallyport
