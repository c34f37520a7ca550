#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace sallyport::upnp::xml {

/// The character at the beginning of some octets.
struct Utf8 {
  char32_t code = 0;      ///< only when valid
  std::uint8_t size = 1;  ///< octets it takes; of an invalid one those that make one U+FFFD, at least 1
  bool valid = false;     ///< no surrogate, no overlong form, not beyond U+10FFFF, not cut short
};

/// `octets` is not empty.
Utf8 utf8_at(std::string_view octets) noexcept;

/// May stand in an XML 1.0 document (section 2.2).
constexpr bool is_xml_character(char32_t code) noexcept {
  if (code < 0x20) return code == '\t' || code == '\n' || code == '\r';
  return code <= 0xd7ff || (code >= 0xe000 && code <= 0xfffd) || (code >= 0x10000 && code <= 0x10ffff);
}

inline constexpr std::string_view replacement_character = "\xef\xbf\xbd";  ///< U+FFFD

/// The same text with U+FFFD for each piece that is not UTF-8. At most three times as long.
std::string repaired_utf8(std::string_view text);

}  // namespace sallyport::upnp::xml
