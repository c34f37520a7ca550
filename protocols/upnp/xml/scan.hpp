#pragma once

#include <boost/system/error_code.hpp>
#include <cstddef>
#include <string_view>

#include "sallyport/values/result.hpp"

/// The guard before the parser. pugixml takes much that is no XML and has no limits of its own; what passes
/// here is well-formed XML 1.0 (5th edition) within our limits, so the two read the same document.
namespace sallyport::upnp::xml {

inline constexpr std::size_t max_document = 64 * 1024;  ///< octets
inline constexpr std::size_t max_depth = 32;            ///< levels of elements, the root being the first
inline constexpr std::size_t max_attributes = 64;       ///< of one element, namespace declarations among them
inline constexpr std::size_t max_name = 256;            ///< octets, prefix and colon among them

enum class XmlErrc {
  too_long = 1,         ///< above max_document
  not_well_formed,      ///< not what section 2 of XML 1.0 describes, or a name with colons where none may be
  doctype,              ///< a DOCTYPE, whatever it says
  too_deep,             ///< above max_depth
  too_many_attributes,  ///< above max_attributes
  name_too_long,        ///< above max_name
  other_encoding,       ///< declares another encoding than UTF-8
  forbidden_character,  ///< as such or by reference: NUL, a control character, a surrogate, U+FFFE, U+FFFF
};
const boost::system::error_category& xml_category() noexcept;
inline boost::system::error_code make_error_code(XmlErrc error) noexcept {
  return {static_cast<int>(error), xml_category()};
}

/// What the scan learned of a document it let through.
struct Outline {
  std::size_t root = 0;       ///< where the root element begins
  std::size_t root_size = 0;  ///< its octets, both tags among them
  bool broken_utf8 =
      false;  ///< text, an attribute value, a comment or the like has octets that are not UTF-8
};

/// One pass, linear time, no allocation. A byte order mark may come first, then white space (before the XML
/// declaration too, which XML forbids and clients do). Octets that are not UTF-8 are let through but in
/// names.
Result<Outline> scan(std::string_view document) noexcept;

}  // namespace sallyport::upnp::xml

template <>
struct boost::system::is_error_code_enum<sallyport::upnp::xml::XmlErrc> : std::true_type {};
