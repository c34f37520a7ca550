#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sallyport/values/address.hpp"

namespace sallyport::client {

/// Where this host stands: the interfaces by which gateways may be asked, the best one first.
struct Network {
  struct Interface {
    std::uint32_t index = 0;
    std::string name;
    std::vector<Prefix> ipv4;       ///< own addresses, each with its on-link prefix; the one to use first
    std::vector<Prefix> ipv6;       ///< the same, global ones only
    std::vector<Address> routers4;  ///< next hops of default routes
    std::vector<Address> routers6;
    bool direct4 = false, direct6 = false;  ///< a default route without a next hop: point-to-point
    friend bool operator==(const Interface&, const Interface&) = default;
  };
  std::vector<Interface> interfaces;
  friend bool operator==(const Network&, const Network&) = default;
};

}  // namespace sallyport::client
