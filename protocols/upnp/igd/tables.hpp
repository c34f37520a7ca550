#pragma once

#include "protocols/upnp/description/service_table.hpp"

/// The services of the gateway as their specifications table them. Constant-initialised: usable from any
/// static initialiser, on any thread.
///
/// Beside what is required, each table has the optional actions that control points use: RequestTermination
/// (the counterpart of RequestConnection in Windows; answered 606, WIC-08), the traffic counters of
/// WANCommonInterfaceConfig, GetOutboundPinholeTimeout and CheckPinholeWorking. The disconnect times of
/// WANIPConnection and the access provider, connection list and internet switch of WANCommonInterfaceConfig
/// are left out, with their variables: an always-on link has nothing to say there, and 401 says so (WIC-09).
namespace sallyport::upnp::igd {

extern const description::ServiceTable wan_ip_connection_2;            ///< WANIPConnection:2
extern const description::ServiceTable wan_ip_connection_1;            ///< WANIPConnection:1
extern const description::ServiceTable wan_common_interface_config_1;  ///< WANCommonInterfaceConfig:1
extern const description::ServiceTable layer3_forwarding_1;            ///< Layer3Forwarding:1
extern const description::ServiceTable wan_ipv6_firewall_control_1;    ///< WANIPv6FirewallControl:1

}  // namespace sallyport::upnp::igd
