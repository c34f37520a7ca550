#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "protocols/upnp/xml/scan.hpp"
#include "sallyport/values/result.hpp"

namespace pugi {
struct xml_node_struct;
}

/// Reading XML that came from the network.
namespace sallyport::upnp::xml {

/// One element of a Document, which must outlive it; or none. Comments and processing instructions do not
/// exist here, references and CDATA sections are what they stand for (POL-XML-05).
class Element {
 public:
  Element() noexcept = default;

  explicit operator bool() const noexcept { return node_ != nullptr; }

  /// Without the prefix; empty for none.
  std::string_view name() const noexcept;
  /// The URI that its prefix, or the default namespace, is bound to here. Empty: in no namespace. None: the
  /// prefix is bound to nothing. Walks up at most max_depth elements.
  std::optional<std::string_view> name_space() const noexcept;
  bool is(std::string_view uri, std::string_view local) const noexcept {
    return name() == local && name_space() == uri;
  }
  /// By its name as written, prefix and all.
  std::optional<std::string_view> attribute(std::string_view written) const noexcept;

  /// The first element in it, and the next one beside it; none at the end.
  Element first() const noexcept;
  Element next() const noexcept;

  /// The character data directly in it, line ends as XML demands, blanks kept; valid UTF-8 without NUL.
  std::string text() const;

 private:
  friend class Document;
  explicit Element(pugi::xml_node_struct* node) noexcept : node_{node} {}
  pugi::xml_node_struct* node_ = nullptr;
};

/// A well-formed document within the limits of scan.hpp. Moving it keeps its elements.
class Document {
 public:
  /// Parses in place. Octets of text that are not UTF-8 become U+FFFD (POL-XML-06). Prefixes are resolved
  /// when asked for: an unbound one in a part nobody looks at is no error. Errors: XmlErrc.
  static Result<Document> parse(std::string text);

  Document(Document&&) noexcept;
  Document& operator=(Document&&) noexcept;
  ~Document();

  Element root() const noexcept;

 private:
  struct Tree;
  explicit Document(std::unique_ptr<Tree> tree) noexcept;
  std::unique_ptr<Tree> tree_;
};

}  // namespace sallyport::upnp::xml
