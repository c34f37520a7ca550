#include "protocols/upnp/description/text.hpp"

#include <cstdint>

namespace sallyport::upnp::description {
namespace {

constexpr std::string_view replacement = "\xEF\xBF\xBD";  // U+FFFD

struct Character {
  std::uint32_t code = 0xfffd;
  std::size_t octets = 1;  // of the input
  bool valid = false;
};

/// The character at the front of a text that is not empty. Overlong forms, surrogates and numbers above
/// U+10FFFF are not UTF-8 (RFC 3629, section 3).
Character front(std::string_view text) noexcept {
  const auto octet = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned first = octet(0);
  if (first < 0x80) return {first, 1, true};
  const std::size_t length = first >= 0xc2 && first < 0xe0   ? 2
                             : first >= 0xe0 && first < 0xf0 ? 3
                             : first >= 0xf0 && first < 0xf5 ? 4
                                                             : 0;
  if (length == 0 || text.size() < length) return {};
  std::uint32_t code = first & (0x7fu >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if ((octet(i) & 0xc0) != 0x80) return {};
    code = code << 6 | (octet(i) & 0x3f);
  }
  constexpr std::uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  if (code < least[length] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return {};
  return {code, length, true};
}

bool is_control(std::uint32_t code) noexcept {
  return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x2028 || code == 0x2029 ||
         (code >= 0x202a && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069);
}

}  // namespace

void append_escaped(std::string& xml, std::string_view text) {
  while (!text.empty()) {
    const auto [code, octets, valid] = front(text);
    const bool forbidden = !valid || (code < 0x20 && code != '\t' && code != '\n' && code != '\r') ||
                           code == 0xfffe || code == 0xffff;
    if (forbidden)
      xml += replacement;
    else if (code == '&')
      xml += "&amp;";
    else if (code == '<')
      xml += "&lt;";
    else if (code == '>')
      xml += "&gt;";
    else if (code == '"')
      xml += "&quot;";
    else if (code == '\'')
      xml += "&apos;";
    else
      xml += text.substr(0, octets);
    text.remove_prefix(octets);
  }
}

std::string fit_text(std::string_view text, std::size_t max_octets) {
  std::string fitted;
  while (!text.empty()) {
    const auto [code, octets, valid] = front(text);
    const auto piece = !valid || code == 0xfffe || code == 0xffff ? replacement
                       : is_control(code)                         ? std::string_view{" "}
                                                                  : text.substr(0, octets);
    if (fitted.empty() && piece == " ") {
      text.remove_prefix(octets);
      continue;
    }
    if (fitted.size() + piece.size() > max_octets) break;
    fitted += piece;
    text.remove_prefix(octets);
  }
  while (!fitted.empty() && fitted.back() == ' ') fitted.pop_back();
  return fitted;
}

}  // namespace sallyport::upnp::description
