#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "protocols/upnp/description/service_table.hpp"

/// A device as UDA 1.1, section 2.3, describes it: values from which the documents are rendered, the searches
/// are answered and the paths of requests are looked up.
namespace sallyport::upnp::description {

/// Paths are absolute ("/scpd/WANIPConn1.xml") and mean what they say octet by octet: no escapes in them.
struct Icon {
  std::string path;
  unsigned width = 0;  ///< pixels, also the height
  unsigned depth = 8;  ///< bits of a pixel
  std::string png;     ///< the image itself
};

struct Service {
  const ServiceTable* table = nullptr;  ///< never null in a finished tree
  std::string scpd_path;
  std::string control_path;
  std::string event_path;
};

/// Texts that are empty are left out of the document; type, friendly_name, manufacturer, model_name and udn
/// may not be empty. The limits are those of UDA 1.1, section 2.3; whoever fills a device in keeps them
/// (fit_text).
struct Device {
  std::string type;  ///< without the version: "urn:schemas-upnp-org:device:WANDevice"
  unsigned version = 1;
  std::string friendly_name;  ///< less than 64 characters
  std::string manufacturer;   ///< less than 64
  std::string manufacturer_url;
  std::string model_description;  ///< less than 128
  std::string model_name;         ///< less than 32
  std::string model_number;       ///< less than 32
  std::string model_url;
  std::string serial_number;  ///< less than 64
  std::string udn;            ///< "uuid:" and a UUID in lower case
  std::vector<Icon> icons;
  std::vector<Service> services;
  std::vector<Device> devices;
  std::string presentation_url;  ///< an absolute path or URL
};

struct Tree {
  Device root;
  std::string description_path;  ///< where the root's description is
  unsigned uda_minor = 1;        ///< specVersion 1.uda_minor: 1, or 0 for control points that know no other
};

/// Lengths to give to fit_text(): the standard says "less than".
inline constexpr std::size_t max_friendly_name = 63;
inline constexpr std::size_t max_manufacturer = 63;
inline constexpr std::size_t max_model_description = 127;
inline constexpr std::size_t max_model_name = 31;
inline constexpr std::size_t max_model_number = 31;
inline constexpr std::size_t max_serial_number = 63;

/// The root and every device below it, in the order of the document; valid as long as the tree is.
std::vector<const Device*> all_devices(const Tree& tree);

}  // namespace sallyport::upnp::description
