#include "protocols/upnp/soap/ampersand.hpp"

#include <algorithm>
#include <string_view>

#include "protocols/upnp/xml/scan.hpp"

namespace sallyport::upnp::soap {
namespace {

/// "&" and what makes it a reference: a number, or a name and ";".
bool begins_reference(std::string_view text) noexcept {
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  const auto is_letter = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  if (text.starts_with("&#")) return true;  // nobody means that as text
  constexpr std::size_t longest = 32;
  text = text.substr(0, longest);
  const auto end = text.find(';');
  if (end == text.npos || end < 2) return false;
  const auto inside = text.substr(1, end - 1);
  return is_letter(inside.front()) &&
         std::ranges::all_of(inside, [&](char c) { return is_letter(c) || is_digit(c); });
}

}  // namespace

void repair_ampersands(std::string& body) {
  auto at = body.find('&');
  if (at == body.npos || body.size() > xml::max_document || body.find("<!") != body.npos) return;
  std::string repaired;
  std::size_t taken = 0;
  for (; at != body.npos; at = body.find('&', at + 1)) {
    if (begins_reference(std::string_view{body}.substr(at))) continue;
    repaired.append(body, taken, at + 1 - taken).append("amp;");
    taken = at + 1;
  }
  if (taken == 0) return;
  repaired.append(body, taken);
  body = std::move(repaired);
}

}  // namespace sallyport::upnp::soap
