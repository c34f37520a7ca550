#include "protocols/upnp/description/render.hpp"

#include <string>

#include "protocols/upnp/xml/escape.hpp"

namespace sallyport::upnp::description {
namespace {

constexpr std::string_view xml_type = "text/xml; charset=\"utf-8\"";

void open(std::string& xml, std::string_view name) { xml.append("<").append(name).append(">"); }
void close(std::string& xml, std::string_view name) { xml.append("</").append(name).append(">"); }

void element(std::string& xml, std::string_view name, std::string_view text) {
  open(xml, name);
  upnp::xml::append_escaped(xml, text);
  close(xml, name);
}

void element(std::string& xml, std::string_view name, std::uint32_t number) {
  element(xml, name, std::to_string(number));
}

void optional_element(std::string& xml, std::string_view name, std::string_view text) {
  if (!text.empty()) element(xml, name, text);
}

/// The declaration is what UDA's own examples have; UTF-8 is XML's default encoding.
std::string open_document(std::string_view root, std::string_view name_space, std::uint32_t config_id,
                          unsigned uda_minor) {
  std::string xml = "<?xml version=\"1.0\"?>\n<";
  xml.append(root).append(" xmlns=\"").append(name_space).append("\"");
  if (uda_minor >= 1) xml.append(" configId=\"").append(std::to_string(config_id)).append("\"");
  xml += "><specVersion><major>1</major>";
  element(xml, "minor", uda_minor);
  xml += "</specVersion>";
  return xml;
}

std::string versioned(std::string_view type, unsigned version) {
  return std::string{type} + ":" + std::to_string(version);
}

void append_service(std::string& xml, const Service& service) {
  open(xml, "service");
  element(xml, "serviceType", versioned(service.table->type, service.table->version));
  element(xml, "serviceId", service.table->id);
  element(xml, "SCPDURL", service.scpd_path);
  element(xml, "controlURL", service.control_path);
  element(xml, "eventSubURL", service.event_path);
  close(xml, "service");
}

void append_icon(std::string& xml, const Icon& icon) {
  open(xml, "icon");
  element(xml, "mimetype", "image/png");
  element(xml, "width", icon.width);
  element(xml, "height", icon.width);
  element(xml, "depth", icon.depth);
  element(xml, "url", icon.path);
  close(xml, "icon");
}

// NOLINTNEXTLINE(misc-no-recursion): a tree has the depth its maker gave it
void append_device(std::string& xml, const Device& device) {
  open(xml, "device");
  element(xml, "deviceType", versioned(device.type, device.version));
  element(xml, "friendlyName", device.friendly_name);
  element(xml, "manufacturer", device.manufacturer);
  optional_element(xml, "manufacturerURL", device.manufacturer_url);
  optional_element(xml, "modelDescription", device.model_description);
  element(xml, "modelName", device.model_name);
  optional_element(xml, "modelNumber", device.model_number);
  optional_element(xml, "modelURL", device.model_url);
  optional_element(xml, "serialNumber", device.serial_number);
  element(xml, "UDN", device.udn);
  if (!device.icons.empty()) {
    open(xml, "iconList");
    for (const auto& icon : device.icons) append_icon(xml, icon);
    close(xml, "iconList");
  }
  if (!device.services.empty()) {
    open(xml, "serviceList");
    for (const auto& service : device.services) append_service(xml, service);
    close(xml, "serviceList");
  }
  if (!device.devices.empty()) {
    open(xml, "deviceList");
    for (const auto& each : device.devices) append_device(xml, each);
    close(xml, "deviceList");
  }
  optional_element(xml, "presentationURL", device.presentation_url);
  close(xml, "device");
}

std::string_view name_of(DataType type) noexcept {
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
  return "string";
}

void append_action(std::string& xml, const Action& action) {
  open(xml, "action");
  element(xml, "name", action.name);
  if (!action.arguments.empty()) {  // an action without arguments has no argumentList at all (UDA 1.1, 2.5)
    open(xml, "argumentList");
    for (const auto& argument : action.arguments) {
      open(xml, "argument");
      element(xml, "name", argument.name);
      element(xml, "direction", argument.direction == Direction::in ? "in" : "out");
      element(xml, "relatedStateVariable", argument.related);
      close(xml, "argument");
    }
    close(xml, "argumentList");
  }
  close(xml, "action");
}

void append_variable(std::string& xml, const StateVariable& variable) {
  xml.append("<stateVariable sendEvents=\"").append(variable.evented ? "yes" : "no").append("\">");
  element(xml, "name", variable.name);
  element(xml, "dataType", name_of(variable.type));
  optional_element(xml, "defaultValue", variable.default_value);
  if (!variable.allowed.empty()) {
    open(xml, "allowedValueList");
    for (const auto value : variable.allowed) element(xml, "allowedValue", value);
    close(xml, "allowedValueList");
  }
  if (variable.range) {
    open(xml, "allowedValueRange");
    element(xml, "minimum", variable.range->first);
    element(xml, "maximum", variable.range->second);
    element(xml, "step", 1);
    close(xml, "allowedValueRange");
  }
  close(xml, "stateVariable");
}

// NOLINTNEXTLINE(misc-no-recursion)
void collect(const Device& device, std::vector<const Device*>& all) {
  all.push_back(&device);
  for (const auto& each : device.devices) collect(each, all);
}

class Fnv1a {
 public:
  void add(std::string_view text) noexcept {
    for (const unsigned char octet : text) state_ = (state_ ^ octet) * 0x100000001b3;
  }
  std::uint32_t folded_24() const noexcept {
    return static_cast<std::uint32_t>((state_ ^ state_ >> 24 ^ state_ >> 48) & 0xffffff);
  }

 private:
  std::uint64_t state_ = 0xcbf29ce484222325;
};

}  // namespace

std::vector<const Device*> all_devices(const Tree& tree) {
  std::vector<const Device*> all;
  collect(tree.root, all);
  return all;
}

std::string render_device(const Tree& tree, std::uint32_t config_id) {
  auto xml = open_document("root", "urn:schemas-upnp-org:device-1-0", config_id, tree.uda_minor);
  append_device(xml, tree.root);
  close(xml, "root");
  xml += "\n";
  return xml;
}

std::string render_scpd(const ServiceTable& table, std::uint32_t config_id, unsigned uda_minor) {
  auto xml = open_document("scpd", "urn:schemas-upnp-org:service-1-0", config_id, uda_minor);
  open(xml, "actionList");
  for (const auto& action : table.actions) append_action(xml, action);
  close(xml, "actionList");
  open(xml, "serviceStateTable");
  for (const auto& variable : table.variables) append_variable(xml, variable);
  close(xml, "serviceStateTable");
  close(xml, "scpd");
  xml += "\n";
  return xml;
}

std::uint32_t config_id(const Tree& tree) {
  Fnv1a hash;
  hash.add(render_device(tree, 0));
  for (const auto* device : all_devices(tree))
    for (const auto& service : device->services) hash.add(render_scpd(*service.table, 0, tree.uda_minor));
  return hash.folded_24();
}

std::vector<Document> render_all(const Tree& tree) {
  const auto id = config_id(tree);
  std::vector<Document> documents{{tree.description_path, xml_type, render_device(tree, id)}};
  const auto devices = all_devices(tree);
  for (const auto* device : devices)
    for (const auto& service : device->services)
      documents.push_back({service.scpd_path, xml_type, render_scpd(*service.table, id, tree.uda_minor)});
  for (const auto* device : devices)
    for (const auto& icon : device->icons) documents.push_back({icon.path, "image/png", icon.png});
  return documents;
}

}  // namespace sallyport::upnp::description
