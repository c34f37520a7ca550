#include "src/transport/arrival_check.hpp"

#include <algorithm>

#include "src/transport/socket_tools.hpp"

namespace sallyport::transport {

bool is_host_address(const Address& address) noexcept {
  if (!address.is_v4()) {
    const auto& bytes = address.bytes();
    const bool reserved =
        std::all_of(bytes.begin(), bytes.begin() + 12, [](std::byte b) { return b == std::byte{0}; });
    return bytes[0] != std::byte{0xff} && !reserved;
  }
  const auto number = address.v4_number();
  return number >> 24 != 0 && number >> 24 != 127 && number >> 16 != 0xa9fe && number < 0xe0000000;
}

namespace {

/// The first and last address of a subnet that has such: networks of /31 and /32 have none (RFC 3021).
bool is_network_or_broadcast(const Prefix& prefix, std::uint32_t number) noexcept {
  const unsigned bits = prefix.v4_bits();
  if (bits >= 31) return false;
  const std::uint32_t hosts = 0xffffffffU >> bits;
  return (number & hosts) == 0 || (number & hosts) == hosts;
}

}  // namespace

Ignored check_arrival(const wire::Arrival& arrival, const nat::PlaneInterface& interface,
                      std::span<const Address> own) noexcept {
  if (interface.index == 0 || arrival.interface != interface.index) return Ignored::wrong_interface;
  if (std::ranges::find(interface.addresses, arrival.destination) == interface.addresses.end())
    return Ignored::wrong_destination;
  if (arrival.source_port == 0 || !is_host_address(arrival.source)) return Ignored::wrong_source;
  if (std::ranges::find(own, arrival.source) != own.end() ||
      std::ranges::find(interface.addresses, arrival.source) != interface.addresses.end())
    return Ignored::wrong_source;
  if (arrival.source.is_v4() != arrival.destination.is_v4()) return Ignored::wrong_source;
  if (!arrival.source.is_v4()) {
    // of this link, so behind this interface, and talks to its own kind
    if (is_link_local(arrival.source))
      return is_link_local(arrival.destination) ? Ignored::no : Ignored::wrong_source;
    const auto holds = [&](const Prefix& prefix) { return prefix.contains(arrival.source); };
    return std::ranges::any_of(interface.prefixes, holds) ? Ignored::no : Ignored::wrong_source;
  }
  bool behind = false;
  for (const auto& prefix : interface.prefixes) {
    if (!prefix.contains(arrival.source)) continue;
    behind = true;
    if (is_network_or_broadcast(prefix, arrival.source.v4_number())) return Ignored::wrong_source;
  }
  return behind ? Ignored::no : Ignored::wrong_source;
}

}  // namespace sallyport::transport
