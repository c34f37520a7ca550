#pragma once

#include <boost/system/error_code.hpp>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "protocols/upnp/http/url.hpp"
#include "protocols/upnp/ssdp/codec.hpp"

/// SSDP as a control point speaks it: searches out, answers and announcements in. Pure functions.
namespace sallyport::upnp::ssdp {

/// What a control point that wants ports searches for.
inline constexpr std::string_view gateway_targets[] = {
    "urn:schemas-upnp-org:device:InternetGatewayDevice:1",
    "urn:schemas-upnp-org:device:InternetGatewayDevice:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
    "urn:schemas-upnp-org:service:WANIPv6FirewallControl:1",
};

inline constexpr std::size_t max_sighting = 4096;       ///< octets; devices write long SERVER fields
inline constexpr std::size_t max_sighting_fields = 64;  ///< lines behind the first one
inline constexpr std::size_t max_sighting_text =
    512;  ///< octets of USN, ST, NT and SERVER; LOCATION has http::max_url

/// An M-SEARCH (UDA 1.3.2) to `to`: one of the groups, or a gateway itself, and then without MX. `mx_s`
/// is 1..5.
std::vector<std::byte> encode_search(std::string_view target, unsigned mx_s, const Address& to);

/// What a device says of itself: the answer to a search, or an announcement.
struct Sighting {
  enum class Kind : std::uint8_t { answer, alive, update, byebye };
  Kind kind{};
  std::string type;      ///< ST or NT
  std::string usn;       ///< may be empty
  std::string uuid;      ///< from USN, without "uuid:" and in lower case; empty where there is none
  std::string location;  ///< as it came, not trusted: see trusted_location(); empty of byebye
  std::string server;
  std::uint32_t max_age_s = 1800;
  std::optional<std::uint32_t> boot_id, next_boot_id, config_id;
  friend bool operator==(const Sighting&, const Sighting&) = default;
};

enum class SightingErrc {
  too_long = 1,  ///< above max_sighting
  other,         ///< neither "HTTP/1.x 200" nor NOTIFY: a search, another answer, no HTTP at all
  malformed,     ///< no head that can be read, or too many fields
  incomplete,    ///< ST, or NT and NTS, or the LOCATION of all but a byebye is missing, or they are none
};
const boost::system::error_category& sighting_category() noexcept;
inline boost::system::error_code make_error_code(SightingErrc error) noexcept {
  return {static_cast<int>(error), sighting_category()};
}

/// Reads a datagram as devices really write them: names in any case, lines that end with or without CR, no
/// blank behind the colon, no EXT, no empty line at the end, lines that are no fields. Linear in its length.
Result<Sighting> decode_sighting(std::span<const std::byte> datagram);

/// True for what a gateway says of itself: an answer that repeats one of gateway_targets (UDA-1.3-19), or an
/// announcement of these types in whatever version.
bool is_of_gateway(const Sighting& sighting) noexcept;

/// LOCATION, when it may be asked (UDA-1.3-19): its host is the source of the datagram, or of IPv6 link-local
/// as the source is too. Whoever can send a datagram could else make us ask anybody.
std::optional<http::Url> trusted_location(const Sighting& sighting, const Address& source);

}  // namespace sallyport::upnp::ssdp

template <>
struct boost::system::is_error_code_enum<sallyport::upnp::ssdp::SightingErrc> : std::true_type {};
