#include "sallyport/values/printable.hpp"

namespace sallyport {
namespace {

bool is_printable(std::uint32_t code) {
  if (code < 0x20 || (code >= 0x7f && code <= 0x9f)) return false;
  if (code == 0x34f || code == 0x61c || code == 0x180e) return false;  // joins nothing, direction, a blank of no width
  if ((code >= 0xfff9 && code <= 0xfffb) || (code >= 0xe000 && code <= 0xf8ff) || code >= 0xf0000) return false;
  if ((code & 0xfffe) == 0xfffe || (code >= 0xfdd0 && code <= 0xfdef)) return false;  // no characters
  if (code >= 0x200b && code <= 0x200f) return false;  // zero width, direction
  if (code == 0x2028 || code == 0x2029 || (code >= 0x202a && code <= 0x202e))
    return false;  // lines, direction
  if (code >= 0x2060 && code <= 0x206f) return false;
  return code != 0xfeff && code != 0xad && !(code >= 0xe0000 && code <= 0xe007f);
}

void escape(char c, std::string& out) {
  constexpr std::string_view digits = "0123456789abcdef";
  const auto octet = static_cast<unsigned char>(c);
  out.append("\\x").push_back(digits[octet >> 4]);
  out.push_back(digits[octet & 15]);
}

}  // namespace

Character first_character(std::string_view text) noexcept {
  const auto octet = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const auto first = octet(0);
  if (first < 0x80) return {first, 1};
  const std::size_t size = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() < size) return {};
  std::uint32_t code = first & (0xffU >> (size + 1));
  for (std::size_t i = 1; i < size; ++i) {
    if ((octet(i) & 0xc0) != 0x80) return {};
    code = code << 6 | (octet(i) & 0x3fU);
  }
  constexpr std::uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  if (code < least[size] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) return {};
  return {code, size};
}

std::string printable(std::string_view text, bool backslash_too) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const auto [code, octets] = first_character(text);
    const auto character = text.substr(0, octets == 0 ? 1 : octets);
    if (octets != 0 && is_printable(code) && !(backslash_too && code == '\\'))
      out += character;
    else
      for (const char c : character) escape(c, out);
    text.remove_prefix(character.size());
  }
  return out;
}

}  // namespace sallyport
