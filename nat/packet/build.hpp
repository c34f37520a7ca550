#pragma once

#include <cstdint>
#include <vector>

#include "nat/packet/ipv4.hpp"

/// Packets that the translator itself makes.
namespace sallyport::nat::packet {

/// An ICMP error about `about`, of which it quotes as much as fits in 576 octets (RFC 1812, 4.3.2.3). `rest`
/// is the second word of the ICMP header: the MTU in 3/4.
std::vector<std::byte> make_icmp_error(std::uint8_t type, std::uint8_t code, std::uint32_t rest,
                                       std::uint32_t from, const Ipv4& about);

/// The RST that answers a segment whose connection is no more (RFC 9293, 3.5.2), with the addresses as given.
/// Not to be made for a segment that has RST itself.
std::vector<std::byte> make_rst(const Ipv4& about);

/// One end of a TCP connection that is told of its end.
struct RstTo {
  std::uint32_t source = 0, destination = 0;
  std::uint16_t sport = 0, dport = 0;
  std::uint32_t seq = 0;  ///< what the receiver expects next (RFC 5961, 3.2 asks for exactly that)
  std::uint32_t ack = 0;  ///< counts before the connection is established
};
std::vector<std::byte> make_rst(const RstTo& to);

}  // namespace sallyport::nat::packet
