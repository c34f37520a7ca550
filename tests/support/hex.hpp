#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace sallyport::test {

/// Octets from hex text; blanks and line ends are skipped, '#' starts a comment that runs to the end of its line.
inline std::vector<std::byte> hex(std::string_view text) {
  std::vector<std::byte> bytes;
  int high = -1;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == '#') {
      while (i < text.size() && text[i] != '\n') ++i;
      continue;
    }
    int digit = -1;
    if (c >= '0' && c <= '9') digit = c - '0';
    else if (c >= 'a' && c <= 'f') digit = c - 'a' + 10;
    else if (c == ' ' || c == '\n' || c == '\t' || c == '|') continue;
    if (digit < 0) throw std::invalid_argument{"not a hex digit in a vector"};
    if (high < 0) {
      high = digit;
    } else {
      bytes.push_back(static_cast<std::byte>(high * 16 + digit));
      high = -1;
    }
  }
  if (high >= 0) throw std::invalid_argument{"half an octet in a vector"};
  return bytes;
}

}  // namespace sallyport::test
