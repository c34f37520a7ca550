#include "protocols/upnp/xml/escape.hpp"

#include <array>
#include <cstddef>

#include "protocols/upnp/xml/utf8.hpp"

namespace sallyport::upnp::xml {
namespace {

constexpr auto stays = [] {
  std::array<bool, 256> table{};
  for (std::size_t c = 0x20; c < 0x80; ++c) table[c] = true;
  for (const char c : {'&', '<', '>', '"', '\''}) table[static_cast<unsigned char>(c)] = false;
  table['\t'] = table['\n'] = true;
  return table;
}();

std::string_view reference(char c) noexcept {
  switch (c) {
    case '&':
      return "&amp;";
    case '<':
      return "&lt;";
    case '>':
      return "&gt;";
    case '"':
      return "&quot;";
    case '\'':
      return "&apos;";
    case '\r':
      return "&#13;";
  }
  return replacement_character;
}

}  // namespace

void append_escaped(std::string& out, std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    const auto begin = at;
    while (at < text.size()) {
      if (stays[static_cast<unsigned char>(text[at])]) {
        ++at;
        continue;
      }
      if (static_cast<unsigned char>(text[at]) < 0x80) break;
      const auto character = utf8_at(text.substr(at));
      if (!character.valid || !is_xml_character(character.code)) break;
      at += character.size;
    }
    out += text.substr(begin, at - begin);
    if (at == text.size()) return;
    out += reference(text[at]);
    at += utf8_at(text.substr(at)).size;
  }
}

std::string escape(std::string_view text) {
  std::string out;
  out.reserve(text.size() + text.size() / 8);
  append_escaped(out, text);
  return out;
}

}  // namespace sallyport::upnp::xml
