#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "nat/plane/data_plane.hpp"
#include "nat/plane/host/rtnl.hpp"

/// Which packets go into the TUN device and which do not, as rules and routes. `README.md` beside this file
/// tells why each one stands where it does.
namespace sallyport::nat::tun {

using namespace host;

constexpr std::uint32_t table_outbound = 7100;     ///< what the LAN sends to the world
constexpr std::uint32_t table_inbound = 7101;      ///< TCP and UDP to an external address
constexpr std::uint32_t table_icmp = 7102;         ///< ICMP to an external address
constexpr std::uint32_t table_router_icmp = 7103;  ///< ICMP of the router itself
constexpr std::uint32_t table_inside = 7104;       ///< where internal addresses may go that come by no LAN
constexpr std::uint32_t blackhole_metric = 4000000;

/// Everything the rules depend on.
struct SteeringInput {
  std::string device;              ///< the TUN device
  std::uint32_t device_index = 0;  ///< 0: there is none, only blackholes
  NetworkView network;
  /// Prefixes of `network.untranslated` that leave by a WAN interface (`no_translate`); the others never may.
  std::vector<Net> untranslated_by_wan;
  PortRange router_ports{0, 0};  ///< local ports of the router's own sockets; 0: no such range
  /// Leased ports within router_ports, ascending.
  std::map<Transport, std::vector<std::uint16_t>> leased_router_ports;
  /// Ports of the router's sockets that are bound to a WAN interface: they hear nothing that comes out of the
  /// TUN.
  std::map<Transport, std::vector<std::uint16_t>> bound_to_wan;
  std::vector<Prefix> former_lans;  ///< of either family; nothing of theirs leaves by a WAN
};

template <class Net>
struct BasicSteering {
  std::vector<BasicRule<Net>> rules;
  std::vector<BasicRoute<Net>> routes;
};
using Steering = BasicSteering<Net>;
using Steering6 = BasicSteering<Net6>;

/// A pure function; sorted results without duplicates.
Steering steer(const SteeringInput& input);

/// What the rules for IPv6 depend on.
struct SteeringInput6 {
  std::string device;
  std::uint32_t device_index = 0;  ///< 0: there is none, only blackholes
  NetworkView network;
  std::vector<Net6> untranslated_by_wan;
  std::vector<Prefix> former_lans;
};
/// The same for IPv6. Nothing is translated there, so what is for the router itself stays with it: all of
/// these stand behind the local table.
Steering6 steer(const SteeringInput6& input);

/// Brings the kernel's rules and routes to `wanted`, touching only ours and changing nothing that is right
/// already. Between any two steps the LAN is translated, dropped, or as it was before. The kernel's rule 0
/// goes last (IPv4 alone).
template <class Net>
Result<void> apply(Rtnl& rtnl, const BasicSteering<Net>& wanted);

/// The same for rules, from what stands by our own account: no dump. For leased ports, which come and go
/// often.
template <class Net>
Result<void> apply_rules(Rtnl& rtnl, const std::vector<BasicRule<Net>>& standing,
                         const std::vector<BasicRule<Net>>& wanted);

/// Networks that are or were a LAN's by the rules that stand, of one family.
template <class Net>
std::vector<Net> inside_networks(const std::vector<BasicRule<Net>>& rules);

/// Whether the kernel holds just `wanted` of ours and (IPv4) no rule 0: another program may have flushed
/// them.
template <class Net>
Result<bool> stands(Rtnl& rtnl, const BasicSteering<Net>& wanted);

/// Removes all of ours of one family; of IPv4, rule 0 is put back first.
template <class Net>
Result<void> remove_all(Rtnl& rtnl);

}  // namespace sallyport::nat::tun
