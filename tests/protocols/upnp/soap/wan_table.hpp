#pragma once

#include <string>
#include <string_view>

#include "protocols/upnp/description/service_table.hpp"
#include "protocols/upnp/http/message.hpp"

/// Enough of WANIPConnection:2 for the tests of this room, and requests from text.
namespace sallyport::upnp::soap::test {

using description::Action;
using description::Argument;
using description::DataType;
using description::Direction;
using description::ServiceTable;
using description::StateVariable;

inline constexpr StateVariable variables[] = {{.name = "ExternalPort", .type = DataType::ui2}};
inline constexpr Argument add_arguments[] = {
    {"NewRemoteHost", Direction::in, "RemoteHost"},
    {"NewExternalPort", Direction::in, "ExternalPort"},
    {"NewProtocol", Direction::in, "PortMappingProtocol"},
    {"NewInternalPort", Direction::in, "InternalPort"},
    {"NewInternalClient", Direction::in, "InternalClient"},
    {"NewEnabled", Direction::in, "PortMappingEnabled"},
    {"NewPortMappingDescription", Direction::in, "PortMappingDescription"},
    {"NewLeaseDuration", Direction::in, "PortMappingLeaseDuration"},
    {"NewReservedPort", Direction::out, "ExternalPort"},
};
inline constexpr Argument specific_arguments[] = {
    {"NewRemoteHost", Direction::in, "RemoteHost"},
    {"NewExternalPort", Direction::in, "ExternalPort"},
    {"NewProtocol", Direction::in, "PortMappingProtocol"},
    {"NewInternalPort", Direction::out, "InternalPort"},
    {"NewInternalClient", Direction::out, "InternalClient"},
    {"NewEnabled", Direction::out, "PortMappingEnabled"},
    {"NewPortMappingDescription", Direction::out, "PortMappingDescription"},
    {"NewLeaseDuration", Direction::out, "PortMappingLeaseDuration"},
};
inline constexpr Argument address_arguments[] = {
    {"NewExternalIPAddress", Direction::out, "ExternalIPAddress"}};
inline constexpr Argument list_arguments[] = {
    {"NewStartPort", Direction::in, "ExternalPort"},
    {"NewPortListing", Direction::out, "A_ARG_TYPE_PortListing"},
};
inline constexpr Action actions[] = {
    {"AddPortMapping", std::span{add_arguments}.first(8)},
    {"AddAnyPortMapping", add_arguments},
    {"DeletePortMapping", std::span{add_arguments}.first(3)},
    {"GetSpecificPortMappingEntry", specific_arguments},
    {"GetExternalIPAddress", address_arguments},
    {"GetListOfPortMappings", list_arguments},
    {"ForceTermination", {}},
};
inline constexpr ServiceTable wan_table{
    .type = "urn:schemas-upnp-org:service:WANIPConnection",
    .version = 2,
    .id = "urn:upnp-org:serviceId:WANIPConn1",
    .actions = actions,
    .variables = variables,
};
inline constexpr std::string_view may_be_empty[] = {"NewRemoteHost", "NewPortMappingDescription"};

/// A request as it stands on the wire, lines ended by CR LF; no more of HTTP than the vectors have.
inline http::Request request_of(std::string_view octets) {
  http::Request request;
  const auto line = [&]() -> std::string_view {
    const auto end = octets.find("\r\n");
    const auto found = octets.substr(0, end);
    octets.remove_prefix(end == std::string_view::npos ? octets.size() : end + 2);
    return found;
  };
  const auto start = line();
  request.method = start.substr(0, start.find(' '));
  for (auto field = line(); !field.empty(); field = line()) {
    const auto colon = field.find(':');
    if (colon == std::string_view::npos) continue;
    auto value = field.substr(colon + 1);
    while (value.starts_with(' ')) value.remove_prefix(1);
    while (value.ends_with(' ')) value.remove_suffix(1);
    request.fields.add(std::string{field.substr(0, colon)}, std::string{value});
  }
  request.body = octets;
  return request;
}

}  // namespace sallyport::upnp::soap::test
