#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace sallyport {

struct Character {
  std::uint32_t code = 0;  ///< its number in Unicode
  std::size_t octets = 0;  ///< of its UTF-8; 0: no UTF-8 here
};

/// The character that `text`, which is not empty, begins with.
Character first_character(std::string_view text) noexcept;

/// The beginning of UTF-8 text: at most so many octets, cut between characters.
constexpr std::string_view cut(std::string_view text, std::size_t most) noexcept {
  if (text.size() <= most) return text;
  while (most > 0 && (static_cast<unsigned char>(text[most]) & 0xc0) == 0x80) --most;
  return text.substr(0, most);
}

/// Text from the network as people may be shown it: octets that are not printable (controls, broken UTF-8, marks
/// that turn or break lines) as \xNN (policy.md, POL-TXT-04). In a log, where what looks escaped and is not must be
/// told apart, the backslash too.
std::string printable(std::string_view text, bool backslash_too = false);

}  // namespace sallyport
