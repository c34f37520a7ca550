#include "protocols/upnp/xml/scan.hpp"

#include <array>
#include <cstdint>
#include <string>

#include "protocols/upnp/xml/utf8.hpp"

namespace sallyport::upnp::xml {
namespace {

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wnon-virtual-dtor"  // Boost's, and nobody deletes a category
struct XmlCategory final : boost::system::error_category {
  const char* name() const noexcept override { return "sallyport.upnp.xml"; }
  std::string message(int value) const override {
    switch (static_cast<XmlErrc>(value)) {
      case XmlErrc::too_long:
        return "the document is too long";
      case XmlErrc::not_well_formed:
        return "the document is not well-formed XML";
      case XmlErrc::doctype:
        return "the document has a DOCTYPE";
      case XmlErrc::too_deep:
        return "the elements are nested too deeply";
      case XmlErrc::too_many_attributes:
        return "an element has too many attributes";
      case XmlErrc::name_too_long:
        return "a name is too long";
      case XmlErrc::other_encoding:
        return "the document is not in UTF-8";
      case XmlErrc::forbidden_character:
        return "the document has a character that XML forbids";
    }
    return "unknown reason";
  }
};
#pragma GCC diagnostic pop

enum Class : std::uint8_t {
  content = 1,     // goes on in element content
  value = 2,       // goes on in an attribute value
  other = 4,       // goes on in a comment, a processing instruction, a CDATA section
  name_start = 8,  // begins a name
  name_rest = 16,  // goes on in a name
  blank = 32,
};

constexpr auto classes = [] {
  std::array<std::uint8_t, 256> table{};
  const auto remove = [&](char c, std::uint8_t bits) {
    auto& entry = table[static_cast<unsigned char>(c)];
    entry = static_cast<std::uint8_t>(entry & ~bits);
  };
  for (std::size_t c = 0x20; c < 0x80; ++c) table[c] = content | value | other;
  for (const char c : {'\t', '\n', '\r'}) table[static_cast<unsigned char>(c)] = content | value | other;
  for (const char c : {' ', '\t', '\n', '\r'}) table[static_cast<unsigned char>(c)] |= blank;
  for (const char c : {'<', '&'}) remove(c, content | value);
  for (const char c : {'"', '\''}) remove(c, value);
  remove(']', content | other);
  for (const char c : {'-', '?'}) remove(c, other);
  for (char c = 'a'; c <= 'z'; ++c) table[static_cast<unsigned char>(c)] |= name_start | name_rest;
  for (char c = 'A'; c <= 'Z'; ++c) table[static_cast<unsigned char>(c)] |= name_start | name_rest;
  for (char c = '0'; c <= '9'; ++c) table[static_cast<unsigned char>(c)] |= name_rest;
  table['_'] |= name_start | name_rest;
  table['-'] |= name_rest;
  table['.'] |= name_rest;
  return table;
}();

bool is(char c, std::uint8_t bits) noexcept { return (classes[static_cast<unsigned char>(c)] & bits) != 0; }

/// Of the characters beyond ASCII (XML 1.0, section 2.3).
bool starts_name(char32_t c) noexcept {
  if (c == 0xd7 || c == 0xf7 || c == 0x37e) return false;
  return (c >= 0xc0 && c <= 0x2ff) || (c >= 0x370 && c <= 0x1fff) || c == 0x200c || c == 0x200d ||
         (c >= 0x2070 && c <= 0x218f) || (c >= 0x2c00 && c <= 0x2fef) || (c >= 0x3001 && c <= 0xd7ff) ||
         (c >= 0xf900 && c <= 0xfdcf) || (c >= 0xfdf0 && c <= 0xfffd) || (c >= 0x10000 && c <= 0xeffff);
}
bool continues_name(char32_t c) noexcept {
  return starts_name(c) || c == 0xb7 || (c >= 0x300 && c <= 0x36f) || c == 0x203f || c == 0x2040;
}

char lower(char c) noexcept { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool same_but_for_case(std::string_view a, std::string_view lower_case) noexcept {
  if (a.size() != lower_case.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i)
    if (lower(a[i]) != lower_case[i]) return false;
  return true;
}

enum class Colon : std::uint8_t { none, one };

class Scanner {
 public:
  explicit Scanner(std::string_view document) noexcept
      : begin_{document.data()}, at_{begin_}, end_{begin_ + document.size()} {}

  Result<Outline> run() noexcept {
    if (static_cast<std::size_t>(end_ - begin_) > max_document) return XmlErrc::too_long;
    Outline outline;
    if (!prolog()) return error_;
    outline.root = static_cast<std::size_t>(at_ - begin_);
    if (!root()) return error_;
    outline.root_size = static_cast<std::size_t>(at_ - begin_) - outline.root;
    if (!miscellany()) return error_;
    if (at_ != end_) return fail(), error_;
    outline.broken_utf8 = broken_utf8_;
    return outline;
  }

 private:
  bool fail(XmlErrc why = XmlErrc::not_well_formed) noexcept {
    error_ = why;
    return false;
  }

  bool looking_at(std::string_view text) const noexcept {
    return std::string_view{at_, static_cast<std::size_t>(end_ - at_)}.starts_with(text);
  }
  bool take(std::string_view text) noexcept {
    if (!looking_at(text)) return false;
    at_ += text.size();
    return true;
  }
  bool take(char c) noexcept {
    if (at_ == end_ || *at_ != c) return false;
    ++at_;
    return true;
  }
  bool blanks() noexcept {
    const auto* const from = at_;
    while (at_ != end_ && is(*at_, blank)) ++at_;
    return at_ != from;
  }

  /// Something that no class lets through: octets beyond ASCII, or what XML forbids.
  bool odd_character() noexcept {
    const auto character = utf8_at({at_, static_cast<std::size_t>(end_ - at_)});
    if (!character.valid)
      broken_utf8_ = true;
    else if (!is_xml_character(character.code))
      return fail(XmlErrc::forbidden_character);
    at_ += character.size;
    return true;
  }

  /// One name; with Colon::one it may be prefix:local.
  bool name(std::string_view& into, Colon colons) noexcept {
    const auto* const from = at_;
    bool starting = true;
    bool had_colon = false;
    for (; at_ != end_; starting = false) {
      if (is(*at_, starting ? name_start : name_rest)) {
        ++at_;
      } else if (*at_ == ':') {
        if (colons == Colon::none || had_colon || starting) return fail();
        had_colon = true;
        ++at_;
        // the local part begins like a name, too
        if (at_ == end_ || !(is(*at_, name_start) || static_cast<unsigned char>(*at_) >= 0x80)) return fail();
        if (static_cast<unsigned char>(*at_) >= 0x80 &&
            !starts_name(utf8_at({at_, static_cast<std::size_t>(end_ - at_)}).code))
          return fail();
      } else if (static_cast<unsigned char>(*at_) >= 0x80) {
        const auto character = utf8_at({at_, static_cast<std::size_t>(end_ - at_)});
        if (!character.valid) return fail();
        if (starting ? !starts_name(character.code) : !continues_name(character.code)) return fail();
        at_ += character.size;
      } else {
        break;
      }
      if (static_cast<std::size_t>(at_ - from) > max_name) return fail(XmlErrc::name_too_long);
    }
    if (starting) return fail();
    into = {from, static_cast<std::size_t>(at_ - from)};
    return true;
  }

  bool prolog() noexcept {
    take("\xef\xbb\xbf");
    blanks();
    if (looking_at("<?xml") && end_ - at_ > 5 && is(at_[5], blank) && !declaration()) return false;
    if (!miscellany()) return false;
    return at_ != end_ || fail();
  }

  /// ` name = "value"` of the XML declaration.
  bool declared(std::string_view what, std::string_view& into) noexcept {
    if (!take(what)) return false;
    blanks();
    if (!take('=')) return false;
    blanks();
    if (at_ == end_ || (*at_ != '"' && *at_ != '\'')) return false;
    const char quote = *at_++;
    const auto* const from = at_;
    while (at_ != end_ && *at_ != quote && (is(*at_, name_rest) || *at_ == ':')) ++at_;
    into = {from, static_cast<std::size_t>(at_ - from)};
    return take(quote);
  }

  bool declaration() noexcept {
    std::string_view said;
    at_ += 5;
    blanks();
    if (!declared("version", said)) return fail();
    if (!said.starts_with("1.") || said.size() == 2 ||
        said.find_first_not_of("0123456789", 2) != std::string_view::npos)
      return fail();
    bool more = blanks();
    if (more && looking_at("encoding")) {
      if (!declared("encoding", said) || said.empty() || !is(said[0], name_start) || said[0] == '_' ||
          said.find(':') != std::string_view::npos)
        return fail();
      if (!same_but_for_case(said, "utf-8")) return fail(XmlErrc::other_encoding);
      more = blanks();
    }
    if (more && looking_at("standalone")) {
      if (!declared("standalone", said) || (said != "yes" && said != "no")) return fail();
      blanks();
    }
    return take("?>") || fail();
  }

  /// White space, comments and processing instructions, up to something else or the end.
  bool miscellany() noexcept {
    for (;;) {
      blanks();
      if (take("<!--")) {
        if (!comment()) return false;
      } else if (take("<?")) {
        if (!instruction()) return false;
      } else {
        return true;
      }
    }
  }

  /// Goes behind the next `delimiter`, whose first character has not the class `other`.
  bool behind(std::string_view delimiter) noexcept {
    for (;;) {
      while (at_ != end_ && is(*at_, other)) ++at_;
      if (at_ == end_) return fail();
      if (take(delimiter)) return true;
      if (*at_ == '-' || *at_ == '?' || *at_ == ']')
        ++at_;
      else if (!odd_character())
        return false;
    }
  }

  bool comment() noexcept { return behind("--") && (take('>') || fail()); }

  bool instruction() noexcept {
    std::string_view target;
    if (!name(target, Colon::none)) return false;
    if (same_but_for_case(target, "xml")) return fail();
    return take("?>") || (blanks() ? behind("?>") : fail());
  }

  /// Behind the '&' of a reference: a predefined entity (no others can be declared) or a character.
  bool reference() noexcept {
    if (!take('#')) {
      for (const std::string_view entity : {"amp;", "lt;", "gt;", "quot;", "apos;"})
        if (take(entity)) return true;
      return fail();
    }
    const unsigned base = take('x') ? 16 : 10;
    const auto* const from = at_;
    char32_t code = 0;
    for (; at_ != end_ && *at_ != ';'; ++at_) {
      unsigned digit = 16;
      if (*at_ >= '0' && *at_ <= '9')
        digit = static_cast<unsigned>(*at_ - '0');
      else if (lower(*at_) >= 'a' && lower(*at_) <= 'f')
        digit = static_cast<unsigned>(lower(*at_) - 'a') + 10;
      if (digit >= base) return fail();
      code = code * base + digit;
      if (code > 0x10ffff) code = 0x110000;  // stays out of range, and does not overflow
    }
    if (at_ == from || !take(';')) return fail();
    return is_xml_character(code) || fail(XmlErrc::forbidden_character);
  }

  bool attribute_value() noexcept {
    if (at_ == end_ || (*at_ != '"' && *at_ != '\'')) return fail();
    const char quote = *at_++;
    for (;;) {
      while (at_ != end_ && is(*at_, value)) ++at_;
      if (at_ == end_) return fail();
      if (*at_ == quote) return ++at_, true;
      if (*at_ == '"' || *at_ == '\'') {
        ++at_;
      } else if (*at_ == '&') {
        ++at_;
        if (!reference()) return false;
      } else if (*at_ == '<') {
        return fail();
      } else if (!odd_character()) {
        return false;
      }
    }
  }

  /// Behind its '<', up to and with its '>'. Says in `empty` whether there is content to come.
  bool start_tag(std::string_view& element, bool& empty) noexcept {
    if (!name(element, Colon::one)) return false;
    std::array<std::string_view, max_attributes> seen;
    std::size_t count = 0;
    for (;;) {
      const bool apart = blanks();
      if (take('>')) return empty = false, true;
      if (take("/>")) return empty = true, true;
      if (!apart) return fail();
      std::string_view attribute;
      if (!name(attribute, Colon::one)) return false;
      if (count == max_attributes) return fail(XmlErrc::too_many_attributes);
      // At most 64 comparisons for an attribute of at least 5 octets: still linear.
      for (std::size_t i = 0; i < count; ++i)
        if (seen[i] == attribute) return fail();
      seen[count++] = attribute;
      blanks();
      if (!take('=')) return fail();
      blanks();
      if (!attribute_value()) return false;
    }
  }

  bool root() noexcept {
    std::array<std::string_view, max_depth> open;
    std::size_t depth = 0;
    for (;;) {
      // Here at_ is at a '<', or the document is no XML.
      if (take("</")) {
        std::string_view element;
        if (!name(element, Colon::one)) return false;
        if (depth == 0 || element != open[depth - 1]) return fail();
        blanks();
        if (!take('>')) return fail();
        --depth;
      } else if (take("<!")) {
        if (take("DOCTYPE")) return fail(XmlErrc::doctype);
        if (depth == 0) return fail();
        if (take("--")) {
          if (!comment()) return false;
        } else if (take("[CDATA[")) {
          if (!behind("]]>")) return false;
        } else {
          return fail();
        }
      } else if (take("<?")) {
        if (!instruction()) return false;
      } else if (take('<')) {
        if (depth == max_depth) return fail(XmlErrc::too_deep);
        bool empty = false;
        if (!start_tag(open[depth], empty)) return false;
        if (!empty) ++depth;
      } else {
        return fail();
      }
      if (depth == 0) return true;
      if (!text()) return false;
    }
  }

  /// Character data up to the next '<'.
  bool text() noexcept {
    for (;;) {
      while (at_ != end_ && is(*at_, content)) ++at_;
      if (at_ == end_) return fail();
      if (*at_ == '<') return true;
      if (*at_ == '&') {
        ++at_;
        if (!reference()) return false;
      } else if (*at_ == ']') {
        if (looking_at("]]>")) return fail();
        ++at_;
      } else if (!odd_character()) {
        return false;
      }
    }
  }

  const char* begin_;
  const char* at_;
  const char* end_;
  XmlErrc error_ = XmlErrc::not_well_formed;
  bool broken_utf8_ = false;
};

}  // namespace

const boost::system::error_category& xml_category() noexcept {
  static const XmlCategory category;
  return category;
}

Result<Outline> scan(std::string_view document) noexcept { return Scanner{document}.run(); }

}  // namespace sallyport::upnp::xml
