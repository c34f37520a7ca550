#include "protocols/upnp/igd/tables.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <pugixml.hpp>

#include "protocols/upnp/description/render.hpp"
#include "tests/protocols/upnp/description/schema.hpp"

namespace sallyport::upnp::igd {
namespace {

using description::DataType;
using description::Direction;
using description::ServiceTable;
using testing::ElementsAreArray;

const ServiceTable* const all_tables[] = {&wan_ip_connection_2, &wan_ip_connection_1,
                                          &wan_common_interface_config_1, &layer3_forwarding_1,
                                          &wan_ipv6_firewall_control_1};

std::string_view name_of(DataType type) {
  switch (type) {
    case DataType::string:
      return "string";
    case DataType::boolean:
      return "boolean";
    case DataType::ui2:
      return "ui2";
    case DataType::ui4:
      return "ui4";
  }
  return "?";
}

/// "Action: In>Variable, In>Variable | Out<Variable"
std::vector<std::string> actions_of(const ServiceTable& table) {
  std::vector<std::string> lines;
  for (const auto& action : table.actions) {
    std::string line{action.name};
    for (const auto& argument : action.arguments)
      line.append(" ")
          .append(argument.name)
          .append(argument.direction == Direction::in ? ">" : "<")
          .append(argument.related);
    lines.push_back(line);
  }
  return lines;
}

/// "Variable type evented {Allowed|Value} [least..most] =default"
std::vector<std::string> variables_of(const ServiceTable& table) {
  std::vector<std::string> lines;
  for (const auto& variable : table.variables) {
    std::string line = std::string{variable.name} + " " + std::string{name_of(variable.type)};
    if (variable.evented) line += " evented";
    if (!variable.allowed.empty()) {
      line += " {";
      for (const auto value : variable.allowed) line.append(line.back() == '{' ? "" : "|").append(value);
      line += "}";
    }
    if (variable.range)
      line +=
          " [" + std::to_string(variable.range->first) + ".." + std::to_string(variable.range->second) + "]";
    if (!variable.default_value.empty()) line.append(" =").append(variable.default_value);
    lines.push_back(line);
  }
  return lines;
}

/// The same lines, from the document a control point reads.
std::pair<std::vector<std::string>, std::vector<std::string>> read_back(const std::string& scpd) {
  std::pair<std::vector<std::string>, std::vector<std::string>> lines;
  pugi::xml_document document;
  EXPECT_TRUE(document.load_string(scpd.c_str()));
  const auto root = document.child("scpd");
  for (const auto action : root.child("actionList").children("action")) {
    std::string line = action.child_value("name");
    for (const auto argument : action.child("argumentList").children("argument"))
      line.append(" ")
          .append(argument.child_value("name"))
          .append(std::string_view{argument.child_value("direction")} == "in" ? ">" : "<")
          .append(argument.child_value("relatedStateVariable"));
    lines.first.push_back(line);
  }
  for (const auto variable : root.child("serviceStateTable").children("stateVariable")) {
    std::string line = std::string{variable.child_value("name")} + " " + variable.child_value("dataType");
    if (std::string_view{variable.attribute("sendEvents").value()} == "yes") line += " evented";
    if (const auto list = variable.child("allowedValueList")) {
      line += " {";
      for (const auto value : list.children("allowedValue"))
        line.append(line.back() == '{' ? "" : "|").append(value.child_value());
      line += "}";
    }
    if (const auto range = variable.child("allowedValueRange"))
      line.append(" [")
          .append(range.child_value("minimum"))
          .append("..")
          .append(range.child_value("maximum"))
          .append("]");
    if (const auto value = variable.child("defaultValue")) line.append(" =").append(value.child_value());
    lines.second.push_back(line);
  }
  return lines;
}

const std::vector<std::string> wan_ip_1_actions = {
    "SetConnectionType NewConnectionType>ConnectionType",
    "GetConnectionTypeInfo NewConnectionType<ConnectionType "
    "NewPossibleConnectionTypes<PossibleConnectionTypes",
    "RequestConnection",
    "RequestTermination",
    "ForceTermination",
    "GetStatusInfo NewConnectionStatus<ConnectionStatus NewLastConnectionError<LastConnectionError "
    "NewUptime<Uptime",
    "GetNATRSIPStatus NewRSIPAvailable<RSIPAvailable NewNATEnabled<NATEnabled",
    "GetGenericPortMappingEntry NewPortMappingIndex>PortMappingNumberOfEntries NewRemoteHost<RemoteHost "
    "NewExternalPort<ExternalPort NewProtocol<PortMappingProtocol NewInternalPort<InternalPort "
    "NewInternalClient<InternalClient NewEnabled<PortMappingEnabled "
    "NewPortMappingDescription<PortMappingDescription NewLeaseDuration<PortMappingLeaseDuration",
    "GetSpecificPortMappingEntry NewRemoteHost>RemoteHost NewExternalPort>ExternalPort "
    "NewProtocol>PortMappingProtocol NewInternalPort<InternalPort NewInternalClient<InternalClient "
    "NewEnabled<PortMappingEnabled NewPortMappingDescription<PortMappingDescription "
    "NewLeaseDuration<PortMappingLeaseDuration",
    "AddPortMapping NewRemoteHost>RemoteHost NewExternalPort>ExternalPort NewProtocol>PortMappingProtocol "
    "NewInternalPort>InternalPort NewInternalClient>InternalClient NewEnabled>PortMappingEnabled "
    "NewPortMappingDescription>PortMappingDescription NewLeaseDuration>PortMappingLeaseDuration",
    "DeletePortMapping NewRemoteHost>RemoteHost NewExternalPort>ExternalPort NewProtocol>PortMappingProtocol",
    "GetExternalIPAddress NewExternalIPAddress<ExternalIPAddress",
};

const std::vector<std::string> wan_ip_2_more_actions = {
    "AddAnyPortMapping NewRemoteHost>RemoteHost NewExternalPort>ExternalPort NewProtocol>PortMappingProtocol "
    "NewInternalPort>InternalPort NewInternalClient>InternalClient NewEnabled>PortMappingEnabled "
    "NewPortMappingDescription>PortMappingDescription NewLeaseDuration>PortMappingLeaseDuration "
    "NewReservedPort<ExternalPort",
    "DeletePortMappingRange NewStartPort>ExternalPort NewEndPort>ExternalPort "
    "NewProtocol>PortMappingProtocol "
    "NewManage>A_ARG_TYPE_Manage",
    "GetListOfPortMappings NewStartPort>ExternalPort NewEndPort>ExternalPort NewProtocol>PortMappingProtocol "
    "NewManage>A_ARG_TYPE_Manage NewNumberOfPorts>PortMappingNumberOfEntries "
    "NewPortListing<A_ARG_TYPE_PortListing",
};

std::vector<std::string> wan_ip_variables(const std::string& lease, const std::vector<std::string>& more) {
  std::vector<std::string> lines = {
      "ConnectionType string {Unconfigured|IP_Routed|IP_Bridged}",
      "PossibleConnectionTypes string evented",
      "ConnectionStatus string evented "
      "{Unconfigured|Connecting|Connected|PendingDisconnect|Disconnecting|Disconnected}",
      "Uptime ui4",
      "LastConnectionError string {ERROR_NONE|ERROR_COMMAND_ABORTED|ERROR_NOT_ENABLED_FOR_INTERNET|"
      "ERROR_USER_DISCONNECT|ERROR_ISP_DISCONNECT|ERROR_IDLE_DISCONNECT|ERROR_FORCED_DISCONNECT|"
      "ERROR_NO_CARRIER|ERROR_IP_CONFIGURATION|ERROR_UNKNOWN}",
      "RSIPAvailable boolean",
      "NATEnabled boolean",
      "ExternalIPAddress string evented",
      "PortMappingNumberOfEntries ui2 evented",
      "PortMappingEnabled boolean",
      lease,
      "RemoteHost string",
      "ExternalPort ui2 [0..65535]",
      "InternalPort ui2 [1..65535]",
      "PortMappingProtocol string {TCP|UDP}",
      "InternalClient string",
      "PortMappingDescription string",
  };
  lines.insert(lines.end(), more.begin(), more.end());
  return lines;
}

// WIC-01
TEST(WanIpConnectionTable, HasTheActionsOfBothVersionsWithTheirArgumentsInOrder) {
  EXPECT_THAT(actions_of(wan_ip_connection_1), ElementsAreArray(wan_ip_1_actions));
  auto both = wan_ip_1_actions;
  both.insert(both.end(), wan_ip_2_more_actions.begin(), wan_ip_2_more_actions.end());
  EXPECT_THAT(actions_of(wan_ip_connection_2), ElementsAreArray(both));
}

// WIC-V-01, WIC-V-05
TEST(WanIpConnectionTable, HasTheVariablesOfBothVersions) {
  EXPECT_THAT(variables_of(wan_ip_connection_1),
              ElementsAreArray(wan_ip_variables("PortMappingLeaseDuration ui4", {})));
  EXPECT_THAT(variables_of(wan_ip_connection_2),
              ElementsAreArray(wan_ip_variables("PortMappingLeaseDuration ui4 [0..604800] =3600",
                                                {"SystemUpdateID ui4 evented", "A_ARG_TYPE_Manage boolean",
                                                 "A_ARG_TYPE_PortListing string"})));
}

// WIC-09, POL-OWN-09: what 401 stands for
TEST(WanIpConnectionTable, LeavesOutWhatAnAlwaysOnLinkHasNoAnswerFor) {
  for (const auto* name : {"SetAutoDisconnectTime", "GetAutoDisconnectTime", "SetIdleDisconnectTime",
                           "GetIdleDisconnectTime", "SetWarnDisconnectDelay", "GetWarnDisconnectDelay"}) {
    EXPECT_EQ(wan_ip_connection_2.find_action(name), nullptr) << name;
    EXPECT_EQ(wan_ip_connection_1.find_action(name), nullptr) << name;
  }
  for (const auto* name : {"AddAnyPortMapping", "DeletePortMappingRange", "GetListOfPortMappings"})
    EXPECT_EQ(wan_ip_connection_1.find_action(name), nullptr) << name;
  EXPECT_EQ(wan_ip_connection_2.find_action("addportmapping"), nullptr) << "names have one spelling";
}

// WCIC-01, WCIC-02, WCIC-03
TEST(WanCommonInterfaceConfigTable, HasTheLinkAndTheCounters) {
  EXPECT_THAT(actions_of(wan_common_interface_config_1),
              testing::ElementsAre("GetCommonLinkProperties NewWANAccessType<WANAccessType "
                                   "NewLayer1UpstreamMaxBitRate<Layer1UpstreamMaxBitRate "
                                   "NewLayer1DownstreamMaxBitRate<Layer1DownstreamMaxBitRate "
                                   "NewPhysicalLinkStatus<PhysicalLinkStatus",
                                   "GetTotalBytesSent NewTotalBytesSent<TotalBytesSent",
                                   "GetTotalBytesReceived NewTotalBytesReceived<TotalBytesReceived",
                                   "GetTotalPacketsSent NewTotalPacketsSent<TotalPacketsSent",
                                   "GetTotalPacketsReceived NewTotalPacketsReceived<TotalPacketsReceived"));
  EXPECT_THAT(variables_of(wan_common_interface_config_1),
              testing::ElementsAre("WANAccessType string {DSL|POTS|Cable|Ethernet|Other}",
                                   "Layer1UpstreamMaxBitRate ui4", "Layer1DownstreamMaxBitRate ui4",
                                   "PhysicalLinkStatus string evented {Up|Down|Initializing|Unavailable}",
                                   "TotalBytesSent ui4", "TotalBytesReceived ui4", "TotalPacketsSent ui4",
                                   "TotalPacketsReceived ui4"));
}

// L3F-01, L3F-02, L3F-03
TEST(Layer3ForwardingTable, HasTheDefaultConnectionService) {
  EXPECT_THAT(actions_of(layer3_forwarding_1),
              testing::ElementsAre(
                  "SetDefaultConnectionService NewDefaultConnectionService>DefaultConnectionService",
                  "GetDefaultConnectionService NewDefaultConnectionService<DefaultConnectionService"));
  EXPECT_THAT(variables_of(layer3_forwarding_1),
              testing::ElementsAre("DefaultConnectionService string evented"));
}

// 6FC-01..03, 6FC-08..11
TEST(WanIpv6FirewallControlTable, HasThePinholes) {
  EXPECT_THAT(
      actions_of(wan_ipv6_firewall_control_1),
      testing::ElementsAre(
          "GetFirewallStatus FirewallEnabled<FirewallEnabled InboundPinholeAllowed<InboundPinholeAllowed",
          "GetOutboundPinholeTimeout RemoteHost>A_ARG_TYPE_IPv6Address RemotePort>A_ARG_TYPE_Port "
          "InternalClient>A_ARG_TYPE_IPv6Address InternalPort>A_ARG_TYPE_Port Protocol>A_ARG_TYPE_Protocol "
          "OutboundPinholeTimeout<A_ARG_TYPE_OutboundPinholeTimeout",
          "AddPinhole RemoteHost>A_ARG_TYPE_IPv6Address RemotePort>A_ARG_TYPE_Port "
          "InternalClient>A_ARG_TYPE_IPv6Address InternalPort>A_ARG_TYPE_Port Protocol>A_ARG_TYPE_Protocol "
          "LeaseTime>A_ARG_TYPE_LeaseTime UniqueID<A_ARG_TYPE_UniqueID",
          "UpdatePinhole UniqueID>A_ARG_TYPE_UniqueID NewLeaseTime>A_ARG_TYPE_LeaseTime",
          "DeletePinhole UniqueID>A_ARG_TYPE_UniqueID",
          "GetPinholePackets UniqueID>A_ARG_TYPE_UniqueID PinholePackets<A_ARG_TYPE_PinholePackets",
          "CheckPinholeWorking UniqueID>A_ARG_TYPE_UniqueID IsWorking<A_ARG_TYPE_Boolean"));
  EXPECT_THAT(variables_of(wan_ipv6_firewall_control_1),
              testing::ElementsAre("FirewallEnabled boolean evented", "InboundPinholeAllowed boolean evented",
                                   "A_ARG_TYPE_OutboundPinholeTimeout ui4", "A_ARG_TYPE_IPv6Address string",
                                   "A_ARG_TYPE_Port ui2", "A_ARG_TYPE_Protocol ui2",
                                   "A_ARG_TYPE_LeaseTime ui4 [1..86400]", "A_ARG_TYPE_UniqueID ui2",
                                   "A_ARG_TYPE_PinholePackets ui4", "A_ARG_TYPE_Boolean boolean"));
}

// IGD-02, IGD-06, UPNP-X-13
TEST(ServiceTables, HaveTheTypesVersionsAndIdsOfTheirSpecifications) {
  const auto line = [](const ServiceTable& table) {
    return std::string{table.type} + ":" + std::to_string(table.version) + " " + std::string{table.id};
  };
  const std::string type = "urn:schemas-upnp-org:service:";
  const std::string id = " urn:upnp-org:serviceId:";
  EXPECT_EQ(line(wan_ip_connection_2), type + "WANIPConnection:2" + id + "WANIPConn1");
  EXPECT_EQ(line(wan_ip_connection_1), type + "WANIPConnection:1" + id + "WANIPConn1");
  EXPECT_EQ(line(wan_common_interface_config_1), type + "WANCommonInterfaceConfig:1" + id + "WANCommonIFC1");
  EXPECT_EQ(line(layer3_forwarding_1), type + "Layer3Forwarding:1" + id + "L3Forwarding1");
  EXPECT_EQ(line(wan_ipv6_firewall_control_1), type + "WANIPv6FirewallControl:1" + id + "WANIPv6Firewall1");
}

// UDA-2-08..10
TEST(ServiceTables, AreWhatAControlPointReadsInTheDescription) {
  for (const auto* table : all_tables) {
    for (const unsigned minor : {0u, 1u}) {
      const auto scpd = description::render_scpd(*table, 16777215, minor);
      EXPECT_THAT(test::schema::scpd_problems(scpd), testing::IsEmpty()) << table->type;
      const auto [actions, variables] = read_back(scpd);
      EXPECT_THAT(actions, ElementsAreArray(actions_of(*table)));
      EXPECT_THAT(variables, ElementsAreArray(variables_of(*table)));
    }
  }
}

TEST(ServiceTables, HaveNoVariableThatNothingUses) {
  for (const auto* table : all_tables)
    for (const auto& variable : table->variables) {
      bool used = variable.evented;
      for (const auto& action : table->actions)
        for (const auto& argument : action.arguments) used = used || argument.related == variable.name;
      EXPECT_TRUE(used) << table->type << " " << variable.name;
    }
}

}  // namespace
}  // namespace sallyport::upnp::igd
