#include "protocols/upnp/gena/codec.hpp"

#include <algorithm>

#include "protocols/upnp/http/message.hpp"
#include "protocols/upnp/xml/escape.hpp"
#include "sallyport/values/endpoint.hpp"

namespace sallyport::upnp::gena {
namespace {

constexpr std::string_view scheme = "http://";

bool is_blank(char c) noexcept { return c == ' ' || c == '\t'; }
bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }

/// 1..65535 in one to five digits.
std::optional<std::uint16_t> decode_port(std::string_view text) noexcept {
  if (text.empty() || text.size() > 5 || !std::ranges::all_of(text, is_digit)) return std::nullopt;
  std::uint32_t number = 0;
  for (const char c : text) number = number * 10 + static_cast<std::uint32_t>(c - '0');
  const auto port = Port::from(number);
  return port ? std::optional{port->number()} : std::nullopt;
}

std::optional<Callback> decode_url(std::string_view url) {
  if (url.size() > max_callback_octets || url.size() < scheme.size()) return std::nullopt;
  if (!http::same_name(url.substr(0, scheme.size()), scheme)) return std::nullopt;
  // '<' inside a URL would make two readings of where it begins
  if (!std::ranges::all_of(url, [](char c) { return c > ' ' && c < '\x7f' && c != '<'; }))
    return std::nullopt;
  url.remove_prefix(scheme.size());

  Callback callback;
  const auto slash = url.find('/');
  auto authority = url.substr(0, slash);
  std::optional<Address> address;
  if (authority.starts_with('[')) {
    const auto end = authority.find(']');
    if (end == std::string_view::npos) return std::nullopt;
    address = Address::parse(authority.substr(1, end - 1));
    // an IPv4 address has one spelling here
    if (!address || address->is_v4()) return std::nullopt;
    authority.remove_prefix(end + 1);
  } else {
    const auto end = std::min(authority.find(':'), authority.size());
    address = Address::parse(authority.substr(0, end));
    if (!address || !address->is_v4()) return std::nullopt;
    authority.remove_prefix(end);
  }
  callback.address = *address;
  if (!authority.empty()) {
    if (authority.front() != ':') return std::nullopt;
    const auto port = decode_port(authority.substr(1));
    if (!port) return std::nullopt;
    callback.port = *port;
  }
  // a fragment is for the one who wrote the URL and is never sent (RFC 9110, section 4.2.5)
  if (slash != std::string_view::npos) callback.path = url.substr(slash, url.find('#', slash) - slash);
  return callback;
}

}  // namespace

std::optional<std::vector<Callback>> decode_callback(std::string_view field, const Address& subscriber) {
  std::vector<Callback> callbacks;
  for (;;) {
    while (!field.empty() && is_blank(field.front())) field.remove_prefix(1);
    if (field.empty()) break;
    const auto end = field.find('>');
    if (field.front() != '<' || end == std::string_view::npos || callbacks.size() == max_callbacks)
      return std::nullopt;
    auto callback = decode_url(field.substr(1, end - 1));
    if (!callback || callback->address != subscriber) return std::nullopt;
    callbacks.push_back(std::move(*callback));
    field.remove_prefix(end + 1);
  }
  if (callbacks.empty()) return std::nullopt;
  return callbacks;
}

std::uint32_t decode_timeout(std::optional<std::string_view> field, const TimeLimits& limits) noexcept {
  constexpr std::string_view unit = "Second-";
  const auto usual = std::min(limits.usual_s, limits.longest_s);
  if (!field || field->size() <= unit.size() || !http::same_name(field->substr(0, unit.size()), unit))
    return usual;
  const auto digits = field->substr(unit.size());
  if (!std::ranges::all_of(digits, is_digit)) return usual;
  std::uint64_t asked = 0;
  for (const char c : digits)  // stops growing above the limit, so any number of digits is read rightly
    asked = std::min<std::uint64_t>(asked * 10 + static_cast<std::uint64_t>(c - '0'), 0xffffffffU);
  if (asked < limits.shortest_s) return usual;
  return static_cast<std::uint32_t>(std::min<std::uint64_t>(asked, limits.longest_s));
}

std::string encode_sid(const std::array<std::byte, 16>& random) {
  constexpr std::string_view digits = "0123456789abcdef";
  auto bits = random;
  bits[6] = (bits[6] & std::byte{0x0f}) | std::byte{0x40};
  bits[8] = (bits[8] & std::byte{0x3f}) | std::byte{0x80};
  std::string sid = "uuid:";
  for (std::size_t i = 0; i < bits.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) sid += '-';
    const auto octet = std::to_integer<unsigned>(bits[i]);
    sid += digits[octet >> 4];
    sid += digits[octet & 15];
  }
  return sid;
}

std::string encode_propertyset(std::span<const Property> properties) {
  std::string body = "<?xml version=\"1.0\"?>\n<e:propertyset xmlns:e=\"urn:schemas-upnp-org:event-1-0\">\n";
  for (const auto& [name, value] : properties) {
    body.append("<e:property><").append(name) += '>';
    xml::append_escaped(body, value);
    body.append("</").append(name).append("></e:property>\n");
  }
  body += "</e:propertyset>\n";
  return body;
}

std::string encode_notify(const Callback& to, std::string_view sid, std::uint32_t sequence,
                          std::string_view body) {
  const auto host = to.address.is_v4() ? to.address.to_string() : "[" + to.address.to_string() + "]";
  std::string out;
  out.reserve(256 + to.path.size() + body.size());
  out.append("NOTIFY ").append(to.path).append(" HTTP/1.1\r\nHOST: ").append(host);
  out.append(":").append(std::to_string(to.port));
  out.append("\r\nCONTENT-TYPE: text/xml; charset=\"utf-8\"\r\nCONTENT-LENGTH: ");
  out.append(std::to_string(body.size()));
  out.append("\r\nNT: upnp:event\r\nNTS: upnp:propchange\r\nSID: ").append(sid);
  out.append("\r\nSEQ: ").append(std::to_string(sequence));
  out.append("\r\nCONNECTION: close\r\n\r\n").append(body);
  return out;
}

}  // namespace sallyport::upnp::gena
