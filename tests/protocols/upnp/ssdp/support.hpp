#pragma once

#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "protocols/upnp/ssdp/server.hpp"

namespace sallyport::upnp::ssdp::test {

inline std::span<const std::byte> octets(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}
inline std::string text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// The value of a field; "(none)" when it is not there.
inline std::string field(const std::string& message, const std::string& name) {
  const auto at = message.find("\r\n" + name + ":");
  if (at == std::string::npos) return "(none)";
  auto begin = at + name.size() + 3;
  if (begin < message.size() && message[begin] == ' ') ++begin;
  return message.substr(begin, message.find("\r\n", begin) - begin);
}

inline const std::string root = "uuid:4d696e69-444c-164e-9d41-000000000001";
inline const std::string wan = "uuid:4d696e69-444c-164e-9d41-000000000002";
inline const std::string connection = "uuid:4d696e69-444c-164e-9d41-000000000003";
inline const std::string device = "urn:schemas-upnp-org:device:";
inline const std::string service = "urn:schemas-upnp-org:service:";

/// An IGD of version 2: two embedded devices, four service types.
inline Tree igd() {
  Tree tree;
  tree.devices = {{root, device + "InternetGatewayDevice", 2},
                  {wan, device + "WANDevice", 2},
                  {connection, device + "WANConnectionDevice", 2}};
  tree.services = {{service + "Layer3Forwarding", 1, 0},
                   {service + "WANCommonInterfaceConfig", 1, 1},
                   {service + "WANIPConnection", 2, 2},
                   {service + "WANIPv6FirewallControl", 1, 2}};
  tree.config_id = 4711;
  return tree;
}
inline constexpr std::size_t whole_set = 3 + 2 * 2 + 4;

}  // namespace sallyport::upnp::ssdp::test
