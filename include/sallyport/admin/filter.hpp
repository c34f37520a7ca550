#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <boost/system/result.hpp>

#include "sallyport/values/mapping_service.hpp"
#include "sallyport/values/port.hpp"
#include "sallyport/values/transport.hpp"

namespace sallyport::admin {

/// The words that choose leases, in the CLI ("protocol=udp") and in the API's query. All must hold; a key
/// that comes twice narrows further.
struct Filter {
  std::optional<std::string> device;  ///< an address or a device's name
  std::optional<Transport> transport;
  std::optional<Via> via;
  std::optional<LeaseKind> kind;
  std::optional<LeaseState> state;
  std::optional<bool> ipv6;  ///< "family": true for ipv6, false for ipv4
  std::optional<PortRange> external;
  std::optional<PortRange> internal;
  bool impossible = false;                                 ///< its words contradict each other: nothing fits
  std::vector<std::pair<std::string, std::string>> words;  ///< as they were given

  bool empty() const { return words.empty(); }
};

/// Narrows `filter` by one word. The error is a sentence with the keys or values there are.
boost::system::result<void, std::string> narrow(Filter& filter, std::string_view key, std::string_view value);
/// The same for "key=value".
boost::system::result<void, std::string> narrow(Filter& filter, std::string_view word);

/// "device=xbox&protocol=udp", percent-encoded.
std::string to_query(const Filter& filter);

/// Octets outside the unreserved set of RFC 3986 as %XX.
std::string percent_encode(std::string_view text);

/// Two names of one device, as people type them: upper and lower case do not count.
bool same_name(std::string_view one, std::string_view other);

/// "90s", "15m", "24h", "7d" (whole numbers, more than 0, at most ten years); empty when it is none of these.
std::optional<std::chrono::seconds> parse_duration(std::string_view text);

std::string_view to_string(LeaseKind kind) noexcept;
std::string_view to_string(LeaseState state) noexcept;

}  // namespace sallyport::admin
