#include "protocols/upnp/xml/utf8.hpp"

namespace sallyport::upnp::xml {

Utf8 utf8_at(std::string_view octets) noexcept {
  const auto octet = [&](std::size_t i) { return static_cast<unsigned char>(octets[i]); };
  const unsigned first = octet(0);
  if (first < 0x80) return {first, 1, true};
  std::uint8_t size = 0;
  // The second octet alone decides about overlong forms, surrogates and the end of Unicode.
  unsigned low = 0x80;
  unsigned high = 0xbf;
  char32_t code = 0;
  if (first >= 0xc2 && first <= 0xdf) {
    size = 2;
    code = first & 0x1f;
  } else if (first >= 0xe0 && first <= 0xef) {
    size = 3;
    code = first & 0x0f;
    if (first == 0xe0) low = 0xa0;
    if (first == 0xed) high = 0x9f;
  } else if (first >= 0xf0 && first <= 0xf4) {
    size = 4;
    code = first & 0x07;
    if (first == 0xf0) low = 0x90;
    if (first == 0xf4) high = 0x8f;
  } else {
    return {};
  }
  for (std::uint8_t i = 1; i < size; ++i) {
    if (i >= octets.size() || octet(i) < low || octet(i) > high) return {0, i, false};
    code = code << 6 | (octet(i) & 0x3f);
    low = 0x80;
    high = 0xbf;
  }
  return {code, size, true};
}

std::string repaired_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size() + 64);
  while (!text.empty()) {
    const auto character = utf8_at(text);
    out += character.valid ? text.substr(0, character.size) : replacement_character;
    text.remove_prefix(character.size);
  }
  return out;
}

}  // namespace sallyport::upnp::xml
