#include "protocols/upnp/description/text.hpp"

#include "protocols/upnp/xml/utf8.hpp"

namespace sallyport::upnp::description {
namespace {

bool is_control(char32_t code) noexcept {
  return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x2028 || code == 0x2029 ||
         (code >= 0x202a && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069);
}

}  // namespace

std::string fit_text(std::string_view text, std::size_t max_octets) {
  std::string fitted;
  while (!text.empty()) {
    const auto [code, octets, valid] = xml::utf8_at(text);
    const auto piece = valid && is_control(code)               ? std::string_view{" "}
                       : valid && xml::is_xml_character(code) ? text.substr(0, octets)
                                                              : xml::replacement_character;
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
