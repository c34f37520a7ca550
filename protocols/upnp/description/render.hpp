#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "protocols/upnp/description/device.hpp"
#include "protocols/upnp/description/service_table.hpp"

/// The documents of UDA 1.1, section 2. They use one default namespace and no prefixes, absolute paths and no
/// URLBase: what control points that only search for "<controlURL>" understand too.
namespace sallyport::upnp::description {

/// The device description (UDA 1.1, section 2.3). `config_id` is 0..16777215; a UDA 1.0 tree shows none.
std::string render_device(const Tree& tree, std::uint32_t config_id);

/// The service description (UDA 1.1, section 2.5) of one table.
std::string render_scpd(const ServiceTable& table, std::uint32_t config_id, unsigned uda_minor = 1);

/// CONFIGID.UPNP.ORG of the tree, 0..16777215: a hash over every description, so that it is another one when
/// any of them changes and the same over restarts (UDA 1.1, section 1.2; two configurations share one by
/// chance once in 2^24).
std::uint32_t config_id(const Tree& tree);

struct Document {
  std::string path;
  std::string_view content_type;
  std::string body;
};

/// Everything a control point can GET by the tree: the device description, then each service's, then the
/// icons; each path once. All carry config_id(tree).
std::vector<Document> render_all(const Tree& tree);

}  // namespace sallyport::upnp::description
