#pragma once

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <pugixml.hpp>

/// Our own schema of the documents of UDA 1.1, sections 2.3 and 2.5, as tables, and a judge that reads them.
/// It shares nothing with the renderer: what one gets wrong the other does not repeat.
namespace sallyport::test::schema {

/// What the text of an element must be; `container` has child elements instead.
enum class Text : std::uint8_t {
  container,
  any,
  text,
  url,
  udn,
  device_type,
  service_type,
  service_id,
  mime,
  number,
  one,
  minor,
  name,
  direction,
  data_type,
  value
};

inline constexpr std::size_t no_limit = std::numeric_limits<std::size_t>::max();
inline constexpr unsigned many = std::numeric_limits<unsigned>::max();

struct Element {
  std::string_view parent;
  std::string_view name;
  unsigned least;
  unsigned most;
  Text text;
  std::size_t less_than = no_limit;  ///< characters
};

/// Rows of one parent stand in the order the standard gives its children; `device` fixes none, all others do.
inline constexpr Element device_elements[] = {
    {"root", "specVersion", 1, 1, Text::container},
    {"root", "device", 1, 1, Text::container},  // no URLBase: UDA-2-05
    {"specVersion", "major", 1, 1, Text::one},
    {"specVersion", "minor", 1, 1, Text::minor},
    {"device", "deviceType", 1, 1, Text::device_type},
    {"device", "friendlyName", 1, 1, Text::text, 64},
    {"device", "manufacturer", 1, 1, Text::text, 64},
    {"device", "manufacturerURL", 0, 1, Text::url},
    {"device", "modelDescription", 0, 1, Text::text, 128},
    {"device", "modelName", 1, 1, Text::text, 32},
    {"device", "modelNumber", 0, 1, Text::text, 32},
    {"device", "modelURL", 0, 1, Text::url},
    {"device", "serialNumber", 0, 1, Text::text, 64},
    {"device", "UDN", 1, 1, Text::udn},
    {"device", "UPC", 0, 1, Text::number, 13},
    {"device", "iconList", 0, 1, Text::container},
    {"device", "serviceList", 0, 1, Text::container},
    {"device", "deviceList", 0, 1, Text::container},
    {"device", "presentationURL", 0, 1, Text::url},
    {"iconList", "icon", 1, many, Text::container},
    {"icon", "mimetype", 1, 1, Text::mime},
    {"icon", "width", 1, 1, Text::number},
    {"icon", "height", 1, 1, Text::number},
    {"icon", "depth", 1, 1, Text::number},
    {"icon", "url", 1, 1, Text::url},
    {"serviceList", "service", 1, many, Text::container},
    {"service", "serviceType", 1, 1, Text::service_type},
    {"service", "serviceId", 1, 1, Text::service_id},
    {"service", "SCPDURL", 1, 1, Text::url},
    {"service", "controlURL", 1, 1, Text::url},
    {"service", "eventSubURL", 1, 1, Text::url},
    {"deviceList", "device", 1, many, Text::container},
};

inline constexpr Element scpd_elements[] = {
    {"scpd", "specVersion", 1, 1, Text::container},
    {"scpd", "actionList", 0, 1, Text::container},
    {"scpd", "serviceStateTable", 1, 1, Text::container},
    {"specVersion", "major", 1, 1, Text::one},
    {"specVersion", "minor", 1, 1, Text::minor},
    {"actionList", "action", 1, many, Text::container},
    {"action", "name", 1, 1, Text::name},
    {"action", "argumentList", 0, 1, Text::container},
    {"argumentList", "argument", 1, many, Text::container},
    {"argument", "name", 1, 1, Text::name},
    {"argument", "direction", 1, 1, Text::direction},
    {"argument", "retval", 0, 1, Text::any},
    {"argument", "relatedStateVariable", 1, 1, Text::name},
    {"serviceStateTable", "stateVariable", 1, many, Text::container},
    {"stateVariable", "name", 1, 1, Text::name},
    {"stateVariable", "dataType", 1, 1, Text::data_type},
    {"stateVariable", "defaultValue", 0, 1, Text::value},
    {"stateVariable", "allowedValueList", 0, 1, Text::container},
    {"stateVariable", "allowedValueRange", 0, 1, Text::container},
    {"allowedValueList", "allowedValue", 1, many, Text::value, 32},
    {"allowedValueRange", "minimum", 1, 1, Text::number},
    {"allowedValueRange", "maximum", 1, 1, Text::number},
    {"allowedValueRange", "step", 0, 1, Text::number},
};

inline bool is_digits(std::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789") == text.npos;
}

inline std::optional<std::uint64_t> number(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (!is_digits(text) || error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// "urn:schemas-upnp-org:<kind>:Name:V"
inline bool is_type(std::string_view text, std::string_view kind) {
  const std::string begin = "urn:schemas-upnp-org:" + std::string{kind} + ":";
  if (!text.starts_with(begin)) return false;
  text.remove_prefix(begin.size());
  const auto colon = text.find(':');
  return colon != text.npos && colon > 0 && colon <= 64 && is_digits(text.substr(colon + 1)) &&
         text[colon + 1] != '0';
}

/// "uuid:" and a UUID of the variant of RFC 9562, in lower case.
inline bool is_udn(std::string_view text) {
  if (!text.starts_with("uuid:") || text.size() != 41) return false;
  text.remove_prefix(5);
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    if (dash ? text[i] != '-' : std::string_view{"0123456789abcdef"}.find(text[i]) == std::string_view::npos)
      return false;
  }
  return text[14] >= '1' && text[14] <= '8' &&
         std::string_view{"89ab"}.find(text[19]) != std::string_view::npos;
}

inline bool is_url(std::string_view text) {
  return (text.starts_with("/") || text.starts_with("http://") || text.starts_with("https://")) &&
         text.find_first_of(" \t\r\n<>\"\\") == text.npos;
}

inline bool is_name(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
  });
}

inline bool fits(Text kind, std::string_view text) {
  static const std::set<std::string_view> types = {
      "ui1",         "ui2",    "ui4",        "i1",      "i2",         "i4",      "int",  "r4",
      "r8",          "number", "fixed.14.4", "float",   "char",       "string",  "date", "dateTime",
      "dateTime.tz", "time",   "time.tz",    "boolean", "bin.base64", "bin.hex", "uri",  "uuid"};
  switch (kind) {
    case Text::container:
      return text.find_first_not_of(" \t\r\n") == text.npos;
    case Text::any:
      return true;
    case Text::text:
    case Text::value:
      return !text.empty();
    case Text::url:
      return is_url(text);
    case Text::udn:
      return is_udn(text);
    case Text::device_type:
      return is_type(text, "device");
    case Text::service_type:
      return is_type(text, "service");
    case Text::service_id:
      return text.starts_with("urn:upnp-org:serviceId:") && text.size() > 23;
    case Text::mime:
      return text.starts_with("image/") && text.size() > 6;
    case Text::number:
      return is_digits(text);
    case Text::one:
      return text == "1";
    case Text::minor:
      return text == "0" || text == "1";
    case Text::name:
      return is_name(text);
    case Text::direction:
      return text == "in" || text == "out";
    case Text::data_type:
      return types.contains(text);
  }
  return false;
}

inline std::size_t characters(std::string_view utf8) {
  return static_cast<std::size_t>(
      std::ranges::count_if(utf8, [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

/// One document against one table. Every problem is a line of words; a sound document has none.
class Judge {
 public:
  Judge(std::span<const Element> elements, std::string_view any_order)
      : elements_{elements}, any_order_{any_order} {}

  void root(const pugi::xml_document& document, std::string_view name, std::string_view name_space) {
    const auto root = document.document_element();
    if (root.name() != name) return problem(std::string{"the root element is "} + root.name());
    if (root.attribute("xmlns").value() != name_space) problem("another namespace");
    const auto minor = std::string_view{root.child("specVersion").child("minor").text().get()};
    const auto config = root.attribute("configId");
    const auto id = number(config.value());
    if (minor != "0" && (!config || !id || *id > 16777215)) problem("no lawful configId");  // UDA-2-06
    if (minor == "0" && config) problem("a configId in a document of UDA 1.0");
    children(root);
  }

  void problem(std::string words) { problems_.push_back(std::move(words)); }
  std::vector<std::string> take() { return std::move(problems_); }

 private:
  void children(const pugi::xml_node& parent) {
    const std::string_view above = parent.name();
    std::map<std::string_view, unsigned> seen;
    std::ptrdiff_t last = -1;
    for (const auto child : parent.children()) {
      if (child.type() == pugi::node_pcdata || child.type() == pugi::node_cdata) continue;
      const std::string_view name = child.name();
      const auto rule = std::ranges::find_if(
          elements_, [&](const Element& each) { return each.parent == above && each.name == name; });
      if (rule == elements_.end()) {
        problem(std::string{name} + " in " + parent.name());
        continue;
      }
      ++seen[rule->name];
      const auto place = rule - elements_.begin();
      if (above != any_order_ && place < last)
        problem(std::string{name} + " out of order in " + parent.name());
      last = std::max(last, place);
      judge(*rule, child);
    }
    for (const auto& rule : elements_) {
      if (rule.parent != above) continue;
      const auto count = seen[rule.name];
      if (count < rule.least) problem("no " + std::string{rule.name} + " in " + parent.name());
      if (count > rule.most) problem("too many " + std::string{rule.name} + " in " + parent.name());
    }
  }

  void judge(const Element& rule, const pugi::xml_node& node) {
    std::string text;
    for (const auto child : node.children())
      if (child.type() == pugi::node_pcdata || child.type() == pugi::node_cdata) text += child.value();
    if (!fits(rule.text, text)) problem(std::string{rule.name} + " may not be '" + text + "'");
    if (characters(text) >= rule.less_than) problem(std::string{rule.name} + " is too long");
    if (rule.text == Text::container)
      children(node);
    else if (node.find_child([](const pugi::xml_node& c) { return c.type() == pugi::node_element; }))
      problem("elements inside " + std::string{rule.name});
  }

  std::span<const Element> elements_;
  std::string_view any_order_;
  std::vector<std::string> problems_;
};

inline std::vector<std::string> load(const std::string& text, pugi::xml_document& document) {
  const auto result = document.load_buffer(text.data(), text.size(), pugi::parse_full | pugi::parse_ws_pcdata,
                                           pugi::encoding_utf8);
  if (!result) return {std::string{"not well-formed: "} + result.description()};
  std::size_t roots = 0;
  for (const auto node : document.children()) roots += node.type() == pugi::node_element ? 1 : 0;
  if (roots != 1) return {"not one root element"};
  return {};
}

/// What is wrong with a device description (UDA 1.1, section 2.3).
inline std::vector<std::string> device_problems(const std::string& text) {
  pugi::xml_document document;
  if (auto broken = load(text, document); !broken.empty()) return broken;
  Judge judge{device_elements, "device"};
  judge.root(document, "root", "urn:schemas-upnp-org:device-1-0");
  std::set<std::string> udns;
  std::set<std::string> urls;
  for (const auto& found : document.select_nodes("//device")) {
    const auto device = found.node();
    if (!udns.insert(device.child_value("UDN")).second) judge.problem("a UDN twice");  // UDA-2-03
    std::set<std::string> ids;
    for (const auto service : device.child("serviceList").children("service")) {
      if (!ids.insert(service.child_value("serviceId")).second)
        judge.problem("a serviceId twice");  // UDA-2-04
      for (const auto* name : {"SCPDURL", "controlURL", "eventSubURL"})
        if (!urls.insert(service.child_value(name)).second) judge.problem("a URL twice");
    }
  }
  return judge.take();
}

/// What is wrong with a service description (UDA 1.1, section 2.5).
inline std::vector<std::string> scpd_problems(const std::string& text) {
  pugi::xml_document document;
  if (auto broken = load(text, document); !broken.empty()) return broken;
  Judge judge{scpd_elements, ""};
  judge.root(document, "scpd", "urn:schemas-upnp-org:service-1-0");
  const auto root = document.document_element();

  std::set<std::string> variables;
  for (const auto variable : root.child("serviceStateTable").children("stateVariable")) {
    const std::string name = variable.child_value("name");
    const std::string_view type = variable.child_value("dataType");
    if (!variables.insert(name).second) judge.problem("the variable " + name + " twice");
    const std::string_view events = variable.attribute("sendEvents").value();
    if (events != "yes" && events != "no") judge.problem("sendEvents of " + name);
    const bool is_number = type.starts_with("ui") || type.starts_with("i") || type.starts_with("r");
    const auto list = variable.child("allowedValueList");
    const auto range = variable.child("allowedValueRange");
    if (list && type != "string") judge.problem("a list of values that are no strings: " + name);
    if (range && !is_number) judge.problem("a range of what is no number: " + name);
    if (list && range) judge.problem("list and range: " + name);
    const std::string preset = variable.child_value("defaultValue");
    if (list) {
      std::set<std::string> values;
      for (const auto value : list.children("allowedValue"))
        if (!values.insert(value.child_value()).second) judge.problem("an allowed value twice: " + name);
      if (!preset.empty() && !values.contains(preset)) judge.problem("the default is not allowed: " + name);
    }
    if (range) {
      const auto least = number(range.child_value("minimum"));
      const auto most = number(range.child_value("maximum"));
      const std::uint64_t limit = type == "ui1" ? 255 : type == "ui2" ? 65535 : 4294967295;
      if (!least || !most || *least >= *most || *most > limit) judge.problem("the range of " + name);
      const auto value = number(preset);
      if (!preset.empty() && (!value || !least || !most || *value < *least || *value > *most))
        judge.problem("the default is out of range: " + name);
    }
  }
  std::set<std::string> actions;
  for (const auto action : root.child("actionList").children("action")) {
    const std::string name = action.child_value("name");
    if (!actions.insert(name).second) judge.problem("the action " + name + " twice");
    bool out = false;
    std::set<std::string> arguments;
    for (const auto argument : action.child("argumentList").children("argument")) {
      if (!arguments.insert(argument.child_value("name")).second)
        judge.problem("an argument twice in " + name);
      if (!variables.contains(argument.child_value("relatedStateVariable")))  // UDA-2-09
        judge.problem("an argument of " + name + " relates to no variable");
      const bool is_out = std::string_view{argument.child_value("direction")} == "out";
      if (out && !is_out) judge.problem("in behind out in " + name);
      out = is_out;
    }
  }
  return judge.take();
}

}  // namespace sallyport::test::schema
