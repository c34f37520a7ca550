#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "sallyport/values/address.hpp"

/// The texts of GENA: fields of SUBSCRIBE, and the NOTIFY request (UDA 1.1, section 4).
namespace sallyport::upnp::gena {

inline constexpr std::size_t max_callbacks = 4;
inline constexpr std::size_t max_callback_octets = 1024;  ///< of one URL

/// A callback URL, taken apart.
struct Callback {
  Address address;
  std::uint16_t port = 80;
  std::string path = "/";  ///< begins with '/', printable ASCII without blanks, no fragment
  friend bool operator==(const Callback&, const Callback&) = default;
};

/// The URLs of a CALLBACK field, in order. Empty when any of them is not `http://` with exactly the
/// subscriber's address written as four decimal numbers or as a bracketed IPv6 literal, a port of 1..65535 or
/// none, and a path; when there is none or more than max_callbacks; when one is too long (POL-EVT-01). No
/// name is ever looked up. Linear time.
std::optional<std::vector<Callback>> decode_callback(std::string_view field, const Address& subscriber);

/// What a subscriber may ask for, in seconds.
struct TimeLimits {
  std::uint32_t usual_s = 1800;
  std::uint32_t shortest_s = 5;
  std::uint32_t longest_s = 86400;  ///< also cuts usual_s
};

/// The seconds granted for a TIMEOUT field: "Second-n" within the limits as asked, more is cut to the
/// longest; missing, infinite, too short and unreadable ones get the usual time (POL-EVT-03, UPNP-X-10).
std::uint32_t decode_timeout(std::optional<std::string_view> field, const TimeLimits& limits) noexcept;

/// "uuid:" and a version 4 UUID (RFC 4122, section 4.4) of these random bits; 6 of them are overwritten.
std::string encode_sid(const std::array<std::byte, 16>& random);

/// A name and a value of an evented variable; the value is raw text.
using Property = std::pair<std::string_view, std::string_view>;

/// The body of an event. Values are escaped; names are the caller's and must be XML names.
std::string encode_propertyset(std::span<const Property> properties);

/// The whole NOTIFY request (UDA 1.1, section 4.3.2).
std::string encode_notify(const Callback& to, std::string_view sid, std::uint32_t sequence,
                          std::string_view body);

/// The event key that follows: it wraps to 1, as 0 is the initial event's alone (UDA 1.1, section 4.3.1).
constexpr std::uint32_t next_sequence(std::uint32_t sequence) noexcept {
  return sequence == 0xffffffffU ? 1U : sequence + 1U;
}

}  // namespace sallyport::upnp::gena
