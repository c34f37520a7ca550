#include "protocols/upnp/igd/device_tree.hpp"

#include <algorithm>
#include <string_view>
#include <utility>

#include <boost/system/errc.hpp>

#include "protocols/upnp/description/text.hpp"
#include "protocols/upnp/igd/icon.hpp"
#include "protocols/upnp/igd/tables.hpp"

namespace sallyport::upnp::igd {
namespace {

using description::Device;
using description::Service;
using description::ServiceTable;
using description::Tree;

using Uuid = std::array<std::byte, 16>;

constexpr std::string_view device_prefix = "urn:schemas-upnp-org:device:";

/// The n-th device's UUID: `random` with the bits RFC 9562 fixes (sections 4.1 and 5.4). The exclusive or
/// keeps devices of one tree apart whatever the octet is.
Uuid lawful(Uuid random, unsigned n) noexcept {
  random[6] = (random[6] & std::byte{0x0f}) | std::byte{0x40};
  random[8] = (random[8] & std::byte{0x3f}) | std::byte{0x80};
  random[15] ^= static_cast<std::byte>(n);
  return random;
}

std::string to_text(const Uuid& uuid) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string text;
  for (std::size_t i = 0; i < uuid.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += digits[std::to_integer<unsigned>(uuid[i]) >> 4];
    text += digits[std::to_integer<unsigned>(uuid[i]) & 0x0f];
  }
  return text;
}

bool is_path_secret(std::string_view text) noexcept {
  // Not std::isalnum: it asks the locale. The upper bound keeps a whole URL in the 128 octets of miniupnpc.
  return text.size() >= 22 && text.size() <= 64 && std::ranges::all_of(text, [](char c) {
           return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' ||
                  c == '_';
         });
}

Service make_service(const ServiceTable& table, const std::string& secret) {
  const std::string name{table.id.substr(table.id.rfind(':') + 1)};
  return {&table, "/scpd/" + name + ".xml", "/ctl/" + secret + "/" + name, "/evt/" + secret + "/" + name};
}

/// A device with everything the three have in common.
Device make_device(const TreeOptions& options, std::string_view type, unsigned n) {
  using namespace description;
  const auto required = [](std::string_view text, std::size_t most) {
    auto fitted = fit_text(text, most);
    return fitted.empty() ? std::string{"Sallyport"} : fitted;
  };
  const auto uuid = to_text(lawful(options.uuid, n));
  Device device;
  device.type = std::string{device_prefix}.append(type);
  device.version = options.igd_version;
  // The devices below the root are seen by programs only, and their names tell people nothing: the types' do.
  device.friendly_name = n == 0 ? required(options.friendly_name, max_friendly_name) : std::string{type};
  device.manufacturer = required(options.manufacturer, max_manufacturer);
  device.manufacturer_url = options.manufacturer_url;
  device.model_description = fit_text(options.model_description, max_model_description);
  device.model_name = required(options.model_name, max_model_name);
  device.model_number = fit_text(options.model_number, max_model_number);
  device.model_url = options.model_url;
  device.serial_number = fit_text(options.serial_number, max_serial_number);
  if (device.serial_number.empty()) device.serial_number = to_text(lawful(options.uuid, 0)).substr(24);
  device.udn = "uuid:" + uuid;
  return device;
}

}  // namespace

Result<Tree> make_tree(const TreeOptions& options) {
  if (options.igd_version < 1 || options.igd_version > 2 || options.uda_minor > 1 || options.uuid == Uuid{} ||
      !is_path_secret(options.path_secret))
    return make_error_code(boost::system::errc::invalid_argument);
  const bool first = options.igd_version == 1;

  auto connection = make_device(options, "WANConnectionDevice", 2);
  connection.services.push_back(
      make_service(first ? wan_ip_connection_1 : wan_ip_connection_2, options.path_secret));
  if (!first && options.ipv6_firewall)
    connection.services.push_back(make_service(wan_ipv6_firewall_control_1, options.path_secret));

  auto wan = make_device(options, "WANDevice", 1);
  wan.services.push_back(make_service(wan_common_interface_config_1, options.path_secret));
  wan.devices.push_back(std::move(connection));

  Tree tree;
  tree.description_path = "/rootDesc.xml";
  tree.uda_minor = options.uda_minor;
  tree.root = make_device(options, "InternetGatewayDevice", 0);
  tree.root.services.push_back(make_service(layer3_forwarding_1, options.path_secret));
  tree.root.devices.push_back(std::move(wan));
  static const std::string small = draw_icon(48);  // once a process: drawing costs more than all the rest
  static const std::string large = draw_icon(120);
  tree.root.icons = {{"/icon48.png", 48, 8, small}, {"/icon120.png", 120, 8, large}};
  tree.root.presentation_url = options.presentation_url;
  return tree;
}

std::string default_connection_service(const Tree& tree) {
  const auto& connection = tree.root.devices.front().devices.front();
  const auto type = std::string_view{connection.type}.substr(device_prefix.size());
  return connection.udn + ":" + std::string{type} + ":" + std::to_string(connection.version) + "," +
         std::string{connection.services.front().table->id};
}

}  // namespace sallyport::upnp::igd
