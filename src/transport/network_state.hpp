#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "nat/plane/data_plane.hpp"

namespace sallyport::transport {

/// What the kernel says about the network around, as far as we look at it.
struct NetworkState {
  struct Link {
    std::uint32_t index = 0;
    std::string name;
    std::uint32_t mtu = 1500;
    bool up = false;  ///< administratively up, and with a carrier
    friend bool operator==(const Link&, const Link&) = default;
  };
  struct LinkAddress {
    std::uint32_t interface = 0;
    Address address;         ///< IFA_LOCAL
    std::uint8_t bits = 32;  ///< of the subnet's prefix
    Address subnet;          ///< IFA_ADDRESS: the far end on a point-to-point link
    bool secondary = false;
    bool deprecated = false;
    bool link_scope = false;  ///< scope link or host: not for others
    friend bool operator==(const LinkAddress&, const LinkAddress&) = default;
  };
  struct Route {  ///< a unicast route of the main table
    Prefix destination;
    std::vector<std::uint32_t> interfaces;  ///< several for a multipath route
    std::uint32_t metric = 0;
    std::vector<Address> gateways{};  ///< next hops, beside `interfaces`; unspecified: on-link
    friend bool operator==(const Route&, const Route&) = default;
  };
  std::vector<Link> links;
  std::vector<LinkAddress> addresses;
  std::vector<Route> routes;   ///< IPv4
  std::vector<Route> routes6;  ///< IPv6, without those of fe80::/10 and ::1
  struct Ipv6Address {
    std::uint32_t interface = 0;
    Prefix address;  ///< with the length of the on-link prefix
    friend bool operator==(const Ipv6Address&, const Ipv6Address&) = default;
  };
  std::vector<Ipv6Address> ipv6;  ///< usable ones: neither tentative nor failed
  friend bool operator==(const NetworkState&, const NetworkState&) = default;
};

/// Keys of the configuration that decide what the network means to us.
struct NetworkWishes {
  std::vector<std::string> lan;
  std::vector<std::string> wan;
  std::vector<Prefix>
      lan_prefixes;  ///< of each family, where none is listed: the LAN interfaces' subnets and the routes that lead
                     ///< out of them
  std::vector<Address>
      external_addresses;  ///< pinned, all of them in use; empty: the WAN's own, of which the first is
  std::vector<Prefix> no_translate;
  friend bool operator==(const NetworkWishes&, const NetworkWishes&) = default;
};

/// Pure. An interface that does not exist is in the result with index 0.
///
/// `untranslated` holds main-table routes that leave by neither LAN nor WAN, without the parts of them that a
/// more specific route sends out on the WAN: a prefix in it never covers a packet that leaves by the WAN. A
/// default route out of a third interface is not in it; while no default route leaves by the WAN (it is
/// missing, or down), nor is anything else that leaves by such an interface.
nat::NetworkView build_view(const NetworkState& state, const NetworkWishes& wishes);

/// Networks of the WAN (its subnets and routes) that LAN prefixes cover wholly or in part: to the gateway such
/// addresses are LAN hosts', and the WAN's are not reached (RFC 4787, REQ-7).
std::vector<Prefix> conflicting_networks(const NetworkState& state, const nat::NetworkView& view);

/// Every IPv4 address of this machine.
std::vector<Address> own_addresses(const NetworkState& state);

/// `whole` without `hole`, as disjoint prefixes; `whole` itself when they do not overlap.
std::vector<Prefix> subtract(const Prefix& whole, const Prefix& hole);

/// The prefix with its host bits cleared.
Prefix canonical(const Prefix& prefix) noexcept;

}  // namespace sallyport::transport
