#include "protocols/upnp/igd/tables.hpp"

#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

namespace sallyport::upnp::igd {
namespace {

using description::Action;
using description::Argument;
using description::DataType;
using description::Direction;
using description::ServiceTable;
using description::StateVariable;

constexpr Argument in(std::string_view name, std::string_view related) {
  return {name, Direction::in, related};
}
constexpr Argument out(std::string_view name, std::string_view related) {
  return {name, Direction::out, related};
}

constexpr StateVariable plain(std::string_view name, DataType type) { return {name, type}; }
constexpr StateVariable evented(std::string_view name, DataType type) { return {name, type, true}; }
constexpr StateVariable one_of(std::string_view name, std::span<const std::string_view> values,
                               bool is_evented = false) {
  return {name, DataType::string, is_evented, values};
}
constexpr StateVariable within(std::string_view name, DataType type, std::uint32_t least, std::uint32_t most,
                               std::string_view default_value = {}) {
  return {name, type, false, {}, std::pair{least, most}, default_value};
}

// ---- WANIPConnection

constexpr std::string_view connection_types[] = {"Unconfigured", "IP_Routed", "IP_Bridged"};
constexpr std::string_view connection_states[] = {"Unconfigured",      "Connecting",    "Connected",
                                                  "PendingDisconnect", "Disconnecting", "Disconnected"};
constexpr std::string_view connection_errors[] = {"ERROR_NONE",
                                                  "ERROR_COMMAND_ABORTED",
                                                  "ERROR_NOT_ENABLED_FOR_INTERNET",
                                                  "ERROR_USER_DISCONNECT",
                                                  "ERROR_ISP_DISCONNECT",
                                                  "ERROR_IDLE_DISCONNECT",
                                                  "ERROR_FORCED_DISCONNECT",
                                                  "ERROR_NO_CARRIER",
                                                  "ERROR_IP_CONFIGURATION",
                                                  "ERROR_UNKNOWN"};
constexpr std::string_view transports[] = {"TCP", "UDP"};

constexpr StateVariable connection_type = one_of("ConnectionType", connection_types);
// A comma list of connection types: a list of allowed values could not hold its combinations.
constexpr StateVariable possible_connection_types = evented("PossibleConnectionTypes", DataType::string);
constexpr StateVariable connection_status = one_of("ConnectionStatus", connection_states, true);
constexpr StateVariable uptime = plain("Uptime", DataType::ui4);
constexpr StateVariable last_connection_error = one_of("LastConnectionError", connection_errors);
constexpr StateVariable rsip_available = plain("RSIPAvailable", DataType::boolean);
constexpr StateVariable nat_enabled = plain("NATEnabled", DataType::boolean);
constexpr StateVariable external_ip_address = evented("ExternalIPAddress", DataType::string);
constexpr StateVariable number_of_entries = evented("PortMappingNumberOfEntries", DataType::ui2);
constexpr StateVariable mapping_enabled = plain("PortMappingEnabled", DataType::boolean);
constexpr StateVariable remote_host = plain("RemoteHost", DataType::string);
constexpr StateVariable external_port = within("ExternalPort", DataType::ui2, 0, 65535);
constexpr StateVariable internal_port = within("InternalPort", DataType::ui2, 1, 65535);
constexpr StateVariable mapping_protocol = one_of("PortMappingProtocol", transports);
constexpr StateVariable internal_client = plain("InternalClient", DataType::string);
constexpr StateVariable mapping_description = plain("PortMappingDescription", DataType::string);

constexpr StateVariable wan_ip_1_variables[] = {connection_type,
                                                possible_connection_types,
                                                connection_status,
                                                uptime,
                                                last_connection_error,
                                                rsip_available,
                                                nat_enabled,
                                                external_ip_address,
                                                number_of_entries,
                                                mapping_enabled,
                                                plain("PortMappingLeaseDuration", DataType::ui4),
                                                remote_host,
                                                external_port,
                                                internal_port,
                                                mapping_protocol,
                                                internal_client,
                                                mapping_description};

constexpr StateVariable wan_ip_2_variables[] = {
    connection_type,
    possible_connection_types,
    connection_status,
    uptime,
    last_connection_error,
    rsip_available,
    nat_enabled,
    external_ip_address,
    number_of_entries,
    mapping_enabled,
    within("PortMappingLeaseDuration", DataType::ui4, 0, 604800, "3600"),
    remote_host,
    external_port,
    internal_port,
    mapping_protocol,
    internal_client,
    mapping_description,
    evented("SystemUpdateID", DataType::ui4),
    plain("A_ARG_TYPE_Manage", DataType::boolean),
    plain("A_ARG_TYPE_PortListing", DataType::string)};

constexpr Argument set_connection_type[] = {in("NewConnectionType", "ConnectionType")};
constexpr Argument get_connection_type_info[] = {
    out("NewConnectionType", "ConnectionType"), out("NewPossibleConnectionTypes", "PossibleConnectionTypes")};
constexpr Argument get_status_info[] = {out("NewConnectionStatus", "ConnectionStatus"),
                                        out("NewLastConnectionError", "LastConnectionError"),
                                        out("NewUptime", "Uptime")};
constexpr Argument get_nat_rsip_status[] = {out("NewRSIPAvailable", "RSIPAvailable"),
                                            out("NewNATEnabled", "NATEnabled")};
constexpr Argument get_generic_entry[] = {in("NewPortMappingIndex", "PortMappingNumberOfEntries"),
                                          out("NewRemoteHost", "RemoteHost"),
                                          out("NewExternalPort", "ExternalPort"),
                                          out("NewProtocol", "PortMappingProtocol"),
                                          out("NewInternalPort", "InternalPort"),
                                          out("NewInternalClient", "InternalClient"),
                                          out("NewEnabled", "PortMappingEnabled"),
                                          out("NewPortMappingDescription", "PortMappingDescription"),
                                          out("NewLeaseDuration", "PortMappingLeaseDuration")};
constexpr Argument get_specific_entry[] = {in("NewRemoteHost", "RemoteHost"),
                                           in("NewExternalPort", "ExternalPort"),
                                           in("NewProtocol", "PortMappingProtocol"),
                                           out("NewInternalPort", "InternalPort"),
                                           out("NewInternalClient", "InternalClient"),
                                           out("NewEnabled", "PortMappingEnabled"),
                                           out("NewPortMappingDescription", "PortMappingDescription"),
                                           out("NewLeaseDuration", "PortMappingLeaseDuration")};
// AddPortMapping has all of them but the last
constexpr Argument add_any_mapping[] = {in("NewRemoteHost", "RemoteHost"),
                                        in("NewExternalPort", "ExternalPort"),
                                        in("NewProtocol", "PortMappingProtocol"),
                                        in("NewInternalPort", "InternalPort"),
                                        in("NewInternalClient", "InternalClient"),
                                        in("NewEnabled", "PortMappingEnabled"),
                                        in("NewPortMappingDescription", "PortMappingDescription"),
                                        in("NewLeaseDuration", "PortMappingLeaseDuration"),
                                        out("NewReservedPort", "ExternalPort")};
constexpr auto add_mapping = std::span{add_any_mapping}.first<8>();
constexpr Argument delete_mapping[] = {in("NewRemoteHost", "RemoteHost"),
                                       in("NewExternalPort", "ExternalPort"),
                                       in("NewProtocol", "PortMappingProtocol")};
constexpr Argument delete_range[] = {in("NewStartPort", "ExternalPort"), in("NewEndPort", "ExternalPort"),
                                     in("NewProtocol", "PortMappingProtocol"),
                                     in("NewManage", "A_ARG_TYPE_Manage")};
constexpr Argument get_external_address[] = {out("NewExternalIPAddress", "ExternalIPAddress")};
constexpr Argument get_list[] = {in("NewStartPort", "ExternalPort"),
                                 in("NewEndPort", "ExternalPort"),
                                 in("NewProtocol", "PortMappingProtocol"),
                                 in("NewManage", "A_ARG_TYPE_Manage"),
                                 in("NewNumberOfPorts", "PortMappingNumberOfEntries"),
                                 out("NewPortListing", "A_ARG_TYPE_PortListing")};

constexpr Action wan_ip_2_actions[] = {{"SetConnectionType", set_connection_type},
                                       {"GetConnectionTypeInfo", get_connection_type_info},
                                       {"RequestConnection"},
                                       {"RequestTermination"},
                                       {"ForceTermination"},
                                       {"GetStatusInfo", get_status_info},
                                       {"GetNATRSIPStatus", get_nat_rsip_status},
                                       {"GetGenericPortMappingEntry", get_generic_entry},
                                       {"GetSpecificPortMappingEntry", get_specific_entry},
                                       {"AddPortMapping", add_mapping},
                                       {"DeletePortMapping", delete_mapping},
                                       {"GetExternalIPAddress", get_external_address},
                                       // from here on version 2 alone
                                       {"AddAnyPortMapping", add_any_mapping, 2},
                                       {"DeletePortMappingRange", delete_range, 2},
                                       {"GetListOfPortMappings", get_list, 2}};
constexpr auto wan_ip_1_actions = std::span{wan_ip_2_actions}.first<12>();

// ---- WANCommonInterfaceConfig

constexpr std::string_view access_types[] = {"DSL", "POTS", "Cable", "Ethernet", "Other"};
constexpr std::string_view link_states[] = {"Up", "Down", "Initializing", "Unavailable"};

constexpr StateVariable wan_common_variables[] = {one_of("WANAccessType", access_types),
                                                  plain("Layer1UpstreamMaxBitRate", DataType::ui4),
                                                  plain("Layer1DownstreamMaxBitRate", DataType::ui4),
                                                  one_of("PhysicalLinkStatus", link_states, true),
                                                  plain("TotalBytesSent", DataType::ui4),
                                                  plain("TotalBytesReceived", DataType::ui4),
                                                  plain("TotalPacketsSent", DataType::ui4),
                                                  plain("TotalPacketsReceived", DataType::ui4)};

constexpr Argument get_link[] = {out("NewWANAccessType", "WANAccessType"),
                                 out("NewLayer1UpstreamMaxBitRate", "Layer1UpstreamMaxBitRate"),
                                 out("NewLayer1DownstreamMaxBitRate", "Layer1DownstreamMaxBitRate"),
                                 out("NewPhysicalLinkStatus", "PhysicalLinkStatus")};
constexpr Argument get_bytes_sent[] = {out("NewTotalBytesSent", "TotalBytesSent")};
constexpr Argument get_bytes_received[] = {out("NewTotalBytesReceived", "TotalBytesReceived")};
constexpr Argument get_packets_sent[] = {out("NewTotalPacketsSent", "TotalPacketsSent")};
constexpr Argument get_packets_received[] = {out("NewTotalPacketsReceived", "TotalPacketsReceived")};

constexpr Action wan_common_actions[] = {{"GetCommonLinkProperties", get_link},
                                         {"GetTotalBytesSent", get_bytes_sent},
                                         {"GetTotalBytesReceived", get_bytes_received},
                                         {"GetTotalPacketsSent", get_packets_sent},
                                         {"GetTotalPacketsReceived", get_packets_received}};

// ---- Layer3Forwarding

constexpr StateVariable layer3_variables[] = {evented("DefaultConnectionService", DataType::string)};
constexpr Argument set_default[] = {in("NewDefaultConnectionService", "DefaultConnectionService")};
constexpr Argument get_default[] = {out("NewDefaultConnectionService", "DefaultConnectionService")};
constexpr Action layer3_actions[] = {{"SetDefaultConnectionService", set_default},
                                     {"GetDefaultConnectionService", get_default}};

// ---- WANIPv6FirewallControl

constexpr StateVariable firewall_variables[] = {
    evented("FirewallEnabled", DataType::boolean), evented("InboundPinholeAllowed", DataType::boolean),
    // Published SCPDs show 100..200 here, a maker's example; the range would make our true timeouts unlawful
    // values.
    plain("A_ARG_TYPE_OutboundPinholeTimeout", DataType::ui4),
    plain("A_ARG_TYPE_IPv6Address", DataType::string), plain("A_ARG_TYPE_Port", DataType::ui2),
    plain("A_ARG_TYPE_Protocol", DataType::ui2), within("A_ARG_TYPE_LeaseTime", DataType::ui4, 1, 86400),
    plain("A_ARG_TYPE_UniqueID", DataType::ui2), plain("A_ARG_TYPE_PinholePackets", DataType::ui4),
    plain("A_ARG_TYPE_Boolean", DataType::boolean)};

constexpr Argument get_firewall_status[] = {out("FirewallEnabled", "FirewallEnabled"),
                                            out("InboundPinholeAllowed", "InboundPinholeAllowed")};
constexpr Argument get_outbound_timeout[] = {
    in("RemoteHost", "A_ARG_TYPE_IPv6Address"),
    in("RemotePort", "A_ARG_TYPE_Port"),
    in("InternalClient", "A_ARG_TYPE_IPv6Address"),
    in("InternalPort", "A_ARG_TYPE_Port"),
    in("Protocol", "A_ARG_TYPE_Protocol"),
    out("OutboundPinholeTimeout", "A_ARG_TYPE_OutboundPinholeTimeout")};
constexpr Argument add_pinhole[] = {
    in("RemoteHost", "A_ARG_TYPE_IPv6Address"),     in("RemotePort", "A_ARG_TYPE_Port"),
    in("InternalClient", "A_ARG_TYPE_IPv6Address"), in("InternalPort", "A_ARG_TYPE_Port"),
    in("Protocol", "A_ARG_TYPE_Protocol"),          in("LeaseTime", "A_ARG_TYPE_LeaseTime"),
    out("UniqueID", "A_ARG_TYPE_UniqueID")};
constexpr Argument update_pinhole[] = {in("UniqueID", "A_ARG_TYPE_UniqueID"),
                                       in("NewLeaseTime", "A_ARG_TYPE_LeaseTime")};
constexpr Argument delete_pinhole[] = {in("UniqueID", "A_ARG_TYPE_UniqueID")};
constexpr Argument get_pinhole_packets[] = {in("UniqueID", "A_ARG_TYPE_UniqueID"),
                                            out("PinholePackets", "A_ARG_TYPE_PinholePackets")};
constexpr Argument check_pinhole[] = {in("UniqueID", "A_ARG_TYPE_UniqueID"),
                                      out("IsWorking", "A_ARG_TYPE_Boolean")};

constexpr Action firewall_actions[] = {{"GetFirewallStatus", get_firewall_status},
                                       {"GetOutboundPinholeTimeout", get_outbound_timeout},
                                       {"AddPinhole", add_pinhole},
                                       {"UpdatePinhole", update_pinhole},
                                       {"DeletePinhole", delete_pinhole},
                                       {"GetPinholePackets", get_pinhole_packets},
                                       {"CheckPinholeWorking", check_pinhole}};

/// Every argument names a variable of the table, and none goes in behind one that comes out (UDA 1.1, 2.5).
constexpr bool is_sound(const ServiceTable& table) {
  for (const auto& action : table.actions) {
    bool out_seen = false;
    for (const auto& argument : action.arguments) {
      if (table.find_variable(argument.related) == nullptr) return false;
      if (argument.direction == Direction::out)
        out_seen = true;
      else if (out_seen)
        return false;
    }
  }
  return true;
}

}  // namespace

constexpr ServiceTable wan_ip_connection_2{"urn:schemas-upnp-org:service:WANIPConnection", 2,
                                           "urn:upnp-org:serviceId:WANIPConn1", wan_ip_2_actions,
                                           wan_ip_2_variables};
constexpr ServiceTable wan_ip_connection_1{"urn:schemas-upnp-org:service:WANIPConnection", 1,
                                           "urn:upnp-org:serviceId:WANIPConn1", wan_ip_1_actions,
                                           wan_ip_1_variables};
constexpr ServiceTable wan_common_interface_config_1{"urn:schemas-upnp-org:service:WANCommonInterfaceConfig",
                                                     1, "urn:upnp-org:serviceId:WANCommonIFC1",
                                                     wan_common_actions, wan_common_variables};
constexpr ServiceTable layer3_forwarding_1{"urn:schemas-upnp-org:service:Layer3Forwarding", 1,
                                           "urn:upnp-org:serviceId:L3Forwarding1", layer3_actions,
                                           layer3_variables};
constexpr ServiceTable wan_ipv6_firewall_control_1{"urn:schemas-upnp-org:service:WANIPv6FirewallControl", 1,
                                                   "urn:upnp-org:serviceId:WANIPv6Firewall1",
                                                   firewall_actions, firewall_variables};

static_assert(is_sound(wan_ip_connection_2) && is_sound(wan_ip_connection_1) &&
              is_sound(wan_common_interface_config_1) && is_sound(layer3_forwarding_1) &&
              is_sound(wan_ipv6_firewall_control_1));

}  // namespace sallyport::upnp::igd
