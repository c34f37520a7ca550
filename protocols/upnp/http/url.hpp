#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "sallyport/values/address.hpp"

/// URLs as a gateway gives them to a control point. What they say is not trusted: no name is ever looked up.
namespace sallyport::upnp::http {

inline constexpr std::size_t max_url = 2048;  ///< octets

/// An http URL, taken apart.
struct Url {
  Address host;
  std::uint16_t port = 80;
  std::string target = "/";  ///< origin form: path and query, printable ASCII without blanks, no fragment
  friend bool operator==(const Url&, const Url&) = default;
};

/// "http://192.168.1.1:5000/root.xml", blanks around it allowed. The host is a literal address, IPv6 in
/// brackets; its zone is left out, for the interface says it. Empty for all else: names, a user part, port 0,
/// other schemes.
std::optional<Url> parse_http_url(std::string_view text);

/// What `reference` means in a document of this URL (RFC 3986, section 5), dots removed. Empty where
/// parse_http_url() would be.
std::optional<Url> resolve(const Url& base, std::string_view reference);

/// `192.168.1.1:5000`, `[fe80::1]:5000`: as HOST has it; the port only where it is not 80.
std::string host_field(const Address& host, std::uint16_t port);

}  // namespace sallyport::upnp::http
