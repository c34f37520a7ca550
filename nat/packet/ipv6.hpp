#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <span>

#include "nat/packet/bytes.hpp"
#include "nat/packet/ipv4.hpp"

namespace sallyport::nat::packet {

namespace protocol {
inline constexpr std::uint8_t hop_by_hop = 0, routing = 43, fragment = 44, esp = 50, ah = 51, icmp6 = 58,
                              no_next_header = 59, destination_options = 60, udp_lite = 136;
}
namespace icmp6_type {
inline constexpr std::uint8_t unreachable = 1, too_big = 2, time_exceeded = 3, parameter_problem = 4,
                              echo = 128, echo_reply = 129;
}

/// An IPv6 address as two words in host order.
struct Address6 {
  std::uint64_t high = 0, low = 0;
  friend constexpr auto operator<=>(const Address6&, const Address6&) = default;
};

inline Address6 load_address(const std::uint8_t* at) noexcept {
  return {std::uint64_t{load32(at)} << 32 | load32(at + 4),
          std::uint64_t{load32(at + 8)} << 32 | load32(at + 12)};
}
inline void store_address(std::uint8_t* at, const Address6& address) noexcept {
  store32(at, static_cast<std::uint32_t>(address.high >> 32));
  store32(at + 4, static_cast<std::uint32_t>(address.high));
  store32(at + 8, static_cast<std::uint32_t>(address.low >> 32));
  store32(at + 12, static_cast<std::uint32_t>(address.low));
}

/// An IPv6 packet, its chain of extension headers walked to the upper layer, read from octets that stay the
/// caller's. `sport` and `dport` are both the identifier where the packet is an echo. A later fragment has no
/// upper layer, and `protocol` is what its fragment header names.
struct Ipv6 {
  std::uint8_t* data = nullptr;
  std::uint32_t size = 0;  ///< 40 and the payload length
  Address6 source, destination;
  std::uint32_t seq = 0, ack = 0;
  std::uint32_t id = 0;               ///< of the fragment header
  std::uint32_t header_length = 0;    ///< of all headers before the upper layer, in octets
  std::uint32_t fragment_header = 0;  ///< where the fragment header stands; 0: there is none
  std::uint16_t fragment_offset = 0;  ///< in octets
  std::uint16_t sport = 0, dport = 0;
  std::uint16_t window = 0;
  std::uint8_t transport_header_length = 0;
  std::uint8_t protocol = 0;
  std::uint8_t hop_limit = 0;
  std::uint8_t tcp_flags = 0;
  std::uint8_t icmp_type = 0, icmp_code = 0;
  bool more_fragments = false;

  /// False for an atomic fragment, which is a packet like any other (RFC 6946).
  bool is_fragment() const noexcept { return more_fragments || fragment_offset; }
  /// What a fragment carries of the datagram: everything behind its fragment header.
  std::uint32_t fragment_size() const noexcept { return size - fragment_header - 8; }
  std::uint8_t* transport() const noexcept { return data + header_length; }
  std::uint32_t transport_size() const noexcept { return size - header_length; }
  bool has_ports() const noexcept {
    return protocol == protocol::tcp || protocol == protocol::udp || protocol == protocol::udp_lite;
  }
  /// RFC 4443 2.1: below 128.
  bool is_icmp_error() const noexcept { return protocol == protocol::icmp6 && icmp_type < 128; }
  bool is_echo() const noexcept {
    return protocol == protocol::icmp6 &&
           (icmp_type == icmp6_type::echo || icmp_type == icmp6_type::echo_reply);
  }
};

/// Extension headers of a packet that may be forwarded: so many at most, and so many octets in all. No sender
/// of today comes near; a longer chain hides the upper layer (RFC 9098).
inline constexpr unsigned most_extension_headers = 8;
inline constexpr std::uint32_t most_extension_octets = 512;

/// Reads and judges a packet (POL-NET-05, POL-NET-06, POL-NET-09, RFC 8200). Octets beyond the payload length
/// are padding. Refused are routing headers of type 0 (RFC 5095; `source_route`), jumbograms, a hop-by-hop
/// header that is not the first, first fragments without the whole chain of headers (RFC 7112). `super`
/// packets of segmentation offload have UDP lengths above what one frame could hold.
Malformed parse(std::span<std::byte> octets, bool super, Ipv6& packet) noexcept;

/// The packet an ICMPv6 error quotes, as far as it goes.
struct Quoted6 {
  Address6 source, destination;
  std::uint16_t sport = 0, dport = 0;  ///< of an echo: the identifier, twice; of ESP and AH: 0
  std::uint8_t protocol = 0;
  std::uint8_t icmp_type = 0;  ///< of an echo
};

/// Reads what the ICMPv6 error `packet` quotes. False when it can belong to no session: cut ports, a later
/// fragment, an ICMPv6 error, another protocol.
bool parse_quoted(const Ipv6& packet, Quoted6& quoted) noexcept;

/// The offset of the value of a TCP option inside the transport header, or 0.
std::uint32_t find_tcp_option(const Ipv6& packet, std::uint8_t kind, std::uint8_t length) noexcept;

/// Whether the checksum over ICMPv6 and its pseudo-header is right (RFC 4443 2.3).
bool icmp6_checksum_is_right(const Ipv6& packet) noexcept;

}  // namespace sallyport::nat::packet
