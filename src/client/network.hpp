#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "sallyport/client/port.hpp"
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
    const std::vector<Prefix>& own(Family family) const noexcept {
      return family == Family::ipv4 ? ipv4 : ipv6;
    }
    const std::vector<Address>& routers(Family family) const noexcept {
      return family == Family::ipv4 ? routers4 : routers6;
    }
    bool has(Family family, const Address& address) const noexcept {
      const auto& all = own(family);
      return std::any_of(all.begin(), all.end(), [&](const Prefix& one) { return one.address == address; });
    }
    friend bool operator==(const Interface&, const Interface&) = default;
  };
  std::vector<Interface> interfaces;

  /// Null: there is none of this index.
  const Interface* find(std::uint32_t index) const noexcept {
    const auto found = std::find_if(interfaces.begin(), interfaces.end(),
                                    [&](const Interface& each) { return each.index == index; });
    return found == interfaces.end() ? nullptr : &*found;
  }
  friend bool operator==(const Network&, const Network&) = default;
};

constexpr Family family_of(const Address& address) noexcept {
  return address.is_v4() ? Family::ipv4 : Family::ipv6;
}

/// The own address, of those that are not empty, to speak from with somebody there.
inline Address nearest(const std::vector<Prefix>& own, const Address& to) {
  const auto near = std::find_if(own.begin(), own.end(), [&](const Prefix& one) { return one.contains(to); });
  return (near == own.end() ? own.front() : *near).address;
}

}  // namespace sallyport::client
