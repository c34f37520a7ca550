#include "protocols/upnp/http/url.hpp"

#include <algorithm>
#include <vector>

#include "protocols/upnp/http/admission.hpp"
#include "protocols/upnp/http/message.hpp"

namespace sallyport::upnp::http {
namespace {

constexpr std::string_view scheme = "http://";

std::string_view trimmed(std::string_view text) noexcept {
  constexpr std::string_view blanks = " \t\r\n";
  const auto first = text.find_first_not_of(blanks);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(blanks) - first + 1);
}

bool is_sound(std::string_view text) noexcept {
  return text.size() <= max_url && std::ranges::all_of(text, [](char c) { return c > 0x20 && c < 0x7f; });
}

bool has_scheme(std::string_view text) noexcept {
  return text.size() >= scheme.size() && same_name(text.substr(0, scheme.size()), scheme);
}

/// "fe80::1%25eth0", "fe80::1%eth0" without what begins with the percent sign.
std::string without_zone(std::string_view authority) {
  std::string text{authority};
  const auto zone = text.find('%');
  const auto end = text.find(']');
  if (text.starts_with('[') && zone < end && end != text.npos) text.erase(zone, end - zone);
  return text;
}

/// RFC 3986, section 5.2.4.
std::string without_dots(std::string_view path) {
  std::vector<std::string_view> segments;
  bool ends_with_slash = false;
  while (!path.empty()) {
    path.remove_prefix(1);  // the slash
    const auto end = std::min(path.find('/'), path.size());
    const auto segment = path.substr(0, end);
    path.remove_prefix(end);
    ends_with_slash = path.empty() && (segment == "." || segment == "..");
    if (segment == "..") {
      if (!segments.empty()) segments.pop_back();
    } else if (segment != ".") {
      segments.push_back(segment);
    }
  }
  std::string text;
  for (const auto segment : segments) text.append("/").append(segment);
  if (ends_with_slash || text.empty()) text += '/';
  return text;
}

/// `rest` is what stands behind the authority: empty, or from '/', '?' or '#' on.
std::string target_of(std::string_view rest) {
  rest = rest.substr(0, rest.find('#'));
  const auto query = std::min(rest.find('?'), rest.size());
  return without_dots(rest.substr(0, query)).append(rest.substr(query));
}

std::optional<Url> parse_authority_and_rest(std::string_view text) {
  const auto end = std::min(text.find_first_of("/?#"), text.size());
  auto host = without_zone(text.substr(0, end));
  if (host.ends_with(':')) host.pop_back();  // no port behind the colon (RFC 3986, section 3.2.3)
  const auto authority = parse_authority(host);
  if (!authority || authority->port == 0) return std::nullopt;
  return Url{authority->address, authority->port.value_or(80), target_of(text.substr(end))};
}

/// True for "ftp://x", "urn:x": a reference that is relative has no colon before its first slash.
bool is_absolute(std::string_view reference) noexcept {
  const auto colon = reference.find(':');
  return colon != std::string_view::npos && colon < reference.find_first_of("/?#");
}

}  // namespace

std::optional<Url> parse_http_url(std::string_view text) {
  text = trimmed(text);
  if (!is_sound(text) || !has_scheme(text)) return std::nullopt;
  return parse_authority_and_rest(text.substr(scheme.size()));
}

std::optional<Url> resolve(const Url& base, std::string_view reference) {
  reference = trimmed(reference);
  if (!is_sound(reference)) return std::nullopt;
  if (has_scheme(reference)) return parse_authority_and_rest(reference.substr(scheme.size()));
  if (reference.starts_with("//")) return parse_authority_and_rest(reference.substr(2));
  if (is_absolute(reference)) return std::nullopt;
  auto url = base;
  if (reference.empty() || reference.front() == '#') return url;
  const auto path = std::string_view{base.target}.substr(0, base.target.find('?'));
  std::string whole;
  if (reference.front() == '?')
    whole = path;
  else if (reference.front() != '/')
    whole = path.substr(0, path.rfind('/') + 1);
  url.target = target_of(whole.append(reference));
  if (url.target.size() > max_url) return std::nullopt;
  return url;
}

std::string host_field(const Address& host, std::uint16_t port) {
  auto text = host.is_v4() ? host.to_string() : '[' + host.to_string() + ']';
  if (port != 80) text.append(":").append(std::to_string(port));
  return text;
}

}  // namespace sallyport::upnp::http
