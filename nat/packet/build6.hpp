#pragma once

#include <cstdint>
#include <vector>

#include "nat/packet/ipv6.hpp"

/// IPv6 packets that the firewall itself makes.
namespace sallyport::nat::packet {

/// The sum over the pseudo-header of IPv6 (RFC 8200 8.1); not folded.
std::uint64_t pseudo_header_sum(const Address6& source, const Address6& destination, std::uint8_t protocol,
                                std::uint32_t length) noexcept;

/// An ICMPv6 error about `about`, of which it quotes as much as fits in 1280 octets (RFC 4443 2.4 c). `rest`
/// is the second word of the header: the MTU, or the pointer.
std::vector<std::byte> make_icmp6_error(std::uint8_t type, std::uint8_t code, std::uint32_t rest,
                                        const Address6& from, const Ipv6& about);

/// As their IPv4 namesakes in build.hpp.
std::vector<std::byte> make_rst(const Ipv6& about);
struct RstTo6 {
  Address6 source, destination;
  std::uint16_t sport = 0, dport = 0;
  std::uint32_t seq = 0;
  std::uint32_t ack = 0;
};
std::vector<std::byte> make_rst(const RstTo6& to);

}  // namespace sallyport::nat::packet
