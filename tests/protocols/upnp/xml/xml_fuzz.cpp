// The guarded reader: whatever the scan lets through, pugixml reads, and what it reads can be written and
// read again.
#include <cstdlib>
#include <string>

#include "protocols/upnp/xml/document.hpp"
#include "protocols/upnp/xml/escape.hpp"
#include "protocols/upnp/xml/utf8.hpp"

using namespace sallyport::upnp;

namespace {

std::size_t walk(xml::Element element, std::size_t level) {
  std::size_t seen = 0;
  for (; element; element = element.next()) {
    if (level > xml::max_depth) std::abort();
    ++seen;
    if (element.name().empty() || element.name().size() > xml::max_name) std::abort();
    // resolving is bounded for one element, not for each of thousands
    if (seen < 8) (void)element.name_space();
    const auto text = element.text();
    if (xml::repaired_utf8(text) != text) std::abort();
    seen += walk(element.first(), level + 1);
  }
  return seen;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text{reinterpret_cast<const char*>(data), size};
  const auto outline = xml::scan(text);
  const auto document = xml::Document::parse(text);
  if (outline.has_value() != document.has_value()) std::abort();
  if (document && walk(document->root(), 1) == 0) std::abort();
  if (size > 8192) return 0;  // so that the escaped text stays a lawful document
  const auto escaped = xml::escape(text);
  const auto again = xml::Document::parse("<a>" + escaped + "</a>");
  if (!again || again->root().first() || xml::escape(again->root().text()) != escaped) std::abort();
  return 0;
}
