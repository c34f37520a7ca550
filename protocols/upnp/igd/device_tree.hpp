#pragma once

#include <array>
#include <cstddef>
#include <string>

#include "protocols/upnp/description/device.hpp"
#include "sallyport/values/result.hpp"

namespace sallyport::upnp::igd {

/// What makes one gateway's tree. Equal options give an equal tree, octet for octet.
struct TreeOptions {
  unsigned igd_version = 2;   ///< 1: every device, and WANIPConnection, is version 1 (IGD-08)
  unsigned uda_minor = 1;     ///< 0: documents of UDA 1.0 (UPNP-X-11)
  bool ipv6_firewall = true;  ///< the gateway does IPv6 pinholes (IGD-03); has no effect with igd_version 1
  /// 16 random octets, made at the first start and stored by the owner. Version and variant bits are set over
  /// them (RFC 9562, version 4), and the devices below the root differ from it in the last octet: pairs of
  /// gateways collide no sooner than random UUIDs do.
  std::array<std::byte, 16> uuid{};
  /// 22 to 64 of [A-Za-z0-9_-], 128 random bits or more, made at the first start and stored (POL-WEB-08).
  std::string path_secret;
  // Texts of any length and content: they are cut and cleaned (fit_text). Required ones that end up empty are
  // "Sallyport", an empty serial number becomes the last 12 digits of the root's UUID.
  std::string friendly_name = "Sallyport";
  std::string manufacturer = "Sallyport";
  std::string manufacturer_url;
  std::string model_description = "Port-mapping gateway";
  std::string model_name = "Sallyport";
  std::string model_number;
  std::string model_url;
  std::string serial_number;
  std::string presentation_url = "/";  ///< empty: none; some systems then hide the device (UDA-2-07)
};

/// InternetGatewayDevice > WANDevice > WANConnectionDevice with their services and icons. The paths:
///
///   /rootDesc.xml                           the device description
///   /scpd/NAME.xml                          a service description
///   /ctl/SECRET/NAME and /evt/SECRET/NAME   control and eventing
///   /icon48.png, /icon120.png
///
/// NAME is the end of the service ID (WANIPConn1, WANCommonIFC1, L3Forwarding1, WANIPv6Firewall1).
/// Error: invalid_argument for a version that there is not, a uuid of zeros, a path secret that is none.
Result<description::Tree> make_tree(const TreeOptions& options);

/// The value of Layer3Forwarding's DefaultConnectionService (L3F-01):
/// "uuid:<WANConnectionDevice>:WANConnectionDevice:V,urn:upnp-org:serviceId:WANIPConn1". `tree` is of
/// make_tree().
std::string default_connection_service(const description::Tree& tree);

}  // namespace sallyport::upnp::igd
