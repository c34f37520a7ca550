#include "protocols/upnp/xml/document.hpp"

#include <pugixml.hpp>
#include <utility>

#include "protocols/upnp/xml/utf8.hpp"

namespace sallyport::upnp::xml {
namespace {

// White space counts as text: a description may be a blank, and <![CDATA[a]]> <![CDATA[b]]> has one.
constexpr unsigned parse_options = pugi::parse_cdata | pugi::parse_escapes | pugi::parse_eol |
                                   pugi::parse_wconv_attribute | pugi::parse_ws_pcdata;

constexpr std::string_view xml_namespace = "http://www.w3.org/XML/1998/namespace";

pugi::xml_node_struct* first_element(pugi::xml_node node) noexcept {
  while (node && node.type() != pugi::node_element) node = node.next_sibling();
  return node.internal_object();
}

/// The prefix that an attribute declares; none when it is no declaration. Empty: the default namespace.
std::optional<std::string_view> declared_prefix(std::string_view attribute) noexcept {
  if (!attribute.starts_with("xmlns")) return std::nullopt;
  attribute.remove_prefix(5);
  if (attribute.empty()) return attribute;
  if (attribute[0] != ':') return std::nullopt;
  return attribute.substr(1);
}

}  // namespace

std::string_view Element::name() const noexcept {
  const std::string_view written = pugi::xml_node{node_}.name();
  return written.substr(written.find(':') + 1);  // npos + 1 is 0
}

std::optional<std::string_view> Element::name_space() const noexcept {
  const std::string_view written = pugi::xml_node{node_}.name();
  const auto colon = written.find(':');
  const auto prefix = colon == std::string_view::npos ? std::string_view{} : written.substr(0, colon);
  if (prefix == "xml") return xml_namespace;
  for (pugi::xml_node node{node_}; node; node = node.parent())
    for (const auto attribute : node.attributes())
      if (declared_prefix(attribute.name()) == prefix) {
        const std::string_view uri = attribute.value();
        // Only the default namespace can be taken back (Namespaces in XML 1.0, section 2.2).
        if (uri.empty() && !prefix.empty()) return std::nullopt;
        return uri;
      }
  if (prefix.empty()) return std::string_view{};
  return std::nullopt;
}

std::optional<std::string_view> Element::attribute(std::string_view written) const noexcept {
  for (const auto attribute : pugi::xml_node{node_}.attributes())
    if (attribute.name() == written) return attribute.value();
  return std::nullopt;
}

Element Element::first() const noexcept {
  return Element{first_element(pugi::xml_node{node_}.first_child())};
}

Element Element::next() const noexcept {
  return Element{first_element(pugi::xml_node{node_}.next_sibling())};
}

std::string Element::text() const {
  std::string text;
  for (const auto node : pugi::xml_node{node_}.children())
    if (node.type() == pugi::node_pcdata || node.type() == pugi::node_cdata) text += node.value();
  return text;
}

struct Document::Tree {
  std::string text;  // the nodes' names and values lie in it
  pugi::xml_document nodes;
};

Document::Document(std::unique_ptr<Tree> tree) noexcept : tree_{std::move(tree)} {}
Document::Document(Document&&) noexcept = default;
Document& Document::operator=(Document&&) noexcept = default;
Document::~Document() = default;

Result<Document> Document::parse(std::string text) {
  const auto outline = scan(text);
  if (!outline) return outline.error();
  auto tree = std::make_unique<Tree>();
  // pugixml sees the root element only: what may stand around it has been judged.
  std::size_t root = outline->root;
  std::size_t size = outline->root_size;
  if (outline->broken_utf8) {
    tree->text = repaired_utf8(std::string_view{text}.substr(root, size));
    root = 0;
    size = tree->text.size();
  } else {
    tree->text = std::move(text);
  }
  const auto parsed =
      tree->nodes.load_buffer_inplace(tree->text.data() + root, size, parse_options, pugi::encoding_utf8);
  if (!parsed) return XmlErrc::not_well_formed;
  return Document{std::move(tree)};
}

Element Document::root() const noexcept { return Element{first_element(tree_->nodes.first_child())}; }

}  // namespace sallyport::upnp::xml
