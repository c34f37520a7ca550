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
};

struct Steering {
  std::vector<Rule> rules;
  std::vector<Route> routes;
};

/// A pure function; sorted results without duplicates.
Steering steer(const SteeringInput& input);

/// Brings the kernel's rules and routes to `wanted`, touching only ours and changing nothing that is right
/// already. Between any two steps the LAN is translated, dropped, or as it was before. The kernel's rule 0
/// goes last.
Result<void> apply(Rtnl& rtnl, const Steering& wanted);

/// The same for rules, from what stands by our own account: no dump. For leased ports, which come and go
/// often.
Result<void> apply_rules(Rtnl& rtnl, const std::vector<Rule>& standing, const std::vector<Rule>& wanted);

/// Whether the kernel holds just `wanted` of ours and no rule 0: another program may have flushed them.
Result<bool> stands(Rtnl& rtnl, const Steering& wanted);

/// Removes all of ours; rule 0 is put back first.
Result<void> remove_all(Rtnl& rtnl);

}  // namespace sallyport::nat::tun
