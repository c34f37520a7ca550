#include "protocols/upnp/soap/argument.hpp"

#include <limits>

#include "protocols/upnp/http/message.hpp"

namespace sallyport::upnp::soap {
namespace {

template <class Number>
Result<Number> parse_number(std::string_view text, UpnpErrc beyond) noexcept {
  text = trimmed(text);
  if (text.empty()) return UpnpErrc::invalid_args;
  std::uint64_t number = 0;
  bool fits = true;
  for (const char c : text) {  // to the end in any case: what is no number is never merely too large
    if (c < '0' || c > '9') return UpnpErrc::invalid_args;
    number = number * 10 + static_cast<unsigned>(c - '0');
    if (number > std::numeric_limits<Number>::max()) {
      fits = false;
      number = 0;
    }
  }
  if (!fits) return beyond;
  return static_cast<Number>(number);
}

}  // namespace

std::string_view trimmed(std::string_view text) noexcept {
  constexpr std::string_view blanks = " \t\r\n";
  const auto first = text.find_first_not_of(blanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(blanks) - first + 1);
}

Result<std::uint16_t> parse_ui2(std::string_view text, UpnpErrc beyond) noexcept {
  return parse_number<std::uint16_t>(text, beyond);
}

Result<std::uint32_t> parse_ui4(std::string_view text, UpnpErrc beyond) noexcept {
  return parse_number<std::uint32_t>(text, beyond);
}

Result<bool> parse_boolean(std::string_view text) noexcept {
  text = trimmed(text);
  for (const std::string_view word : {"1", "true", "yes"})
    if (http::same_name(text, word)) return true;
  for (const std::string_view word : {"0", "false", "no"})
    if (http::same_name(text, word)) return false;
  return UpnpErrc::invalid_args;
}

Result<Transport> parse_transport(std::string_view text) noexcept {
  text = trimmed(text);
  if (text.empty()) return UpnpErrc::invalid_args;
  if (http::same_name(text, "TCP")) return Transport::tcp;
  if (http::same_name(text, "UDP")) return Transport::udp;
  return UpnpErrc::value_invalid;
}

}  // namespace sallyport::upnp::soap
