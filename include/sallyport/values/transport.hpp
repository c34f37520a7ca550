#pragma once

#include <cstdint>
#include <string_view>

namespace sallyport {

/// The transport protocols that are mapped; the numbers are IANA's protocol numbers.
enum class Transport : std::uint8_t { tcp = 6, udp = 17 };

constexpr std::string_view to_string(Transport transport) noexcept {
  return transport == Transport::tcp ? "tcp" : "udp";
}
constexpr Transport companion_of(Transport transport) noexcept {
  return transport == Transport::tcp ? Transport::udp : Transport::tcp;
}

}  // namespace sallyport
