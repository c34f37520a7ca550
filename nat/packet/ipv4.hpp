#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "nat/packet/bytes.hpp"

namespace sallyport::nat::packet {

namespace protocol {
inline constexpr std::uint8_t icmp = 1, tcp = 6, udp = 17;
}
namespace tcp_flag {
inline constexpr std::uint8_t fin = 1, syn = 2, rst = 4, psh = 8, ack = 16, urg = 32;
}
namespace icmp_type {
inline constexpr std::uint8_t echo_reply = 0, unreachable = 3, source_quench = 4, redirect = 5, echo = 8,
                              time_exceeded = 11, parameter_problem = 12, timestamp = 13,
                              timestamp_reply = 14;
}

/// Why octets are no packet that may be forwarded.
enum class Malformed : std::uint8_t {
  no,
  truncated,      ///< fewer octets than an IPv4 header
  version,        ///< not version 4
  header_length,  ///< below 20, or beyond the total length
  total_length,   ///< beyond the octets there are, or below the header's length
  header_checksum,
  ttl,               ///< zero
  option,            ///< an option's length is impossible
  source_route,      ///< LSRR, SSRR (NPKT-10)
  transport_header,  ///< cut off, or of an impossible length
  transport_length,  ///< UDP length
  port,              ///< zero
  tcp_flags,         ///< a combination that no host sends
  fragment,          ///< empty, beyond 65535, not a multiple of 8, or a first one too short (RFC 1858, 3128)
  extension,         ///< IPv6: extension headers too many, too long, or where none may stand
};

/// An IPv4 header and the transport header behind it, read from octets that stay the caller's. `sport` and
/// `dport` are both the identifier where the packet is an ICMP query. A later fragment has no transport.
struct Ipv4 {
  std::uint8_t* data = nullptr;
  std::uint32_t size = 0;  ///< the total length
  std::uint32_t source = 0, destination = 0;
  std::uint32_t seq = 0, ack = 0;
  std::uint16_t id = 0;
  std::uint16_t fragment_offset = 0;  ///< in octets
  std::uint16_t sport = 0, dport = 0;
  std::uint16_t window = 0;
  std::uint8_t header_length = 0;
  std::uint8_t transport_header_length = 0;
  std::uint8_t protocol = 0;
  std::uint8_t ttl = 0;
  std::uint8_t tcp_flags = 0;
  std::uint8_t icmp_type = 0, icmp_code = 0;
  bool dont_fragment = false, more_fragments = false;

  bool is_fragment() const noexcept { return more_fragments || fragment_offset; }
  std::uint8_t* transport() const noexcept { return data + header_length; }
  std::uint32_t transport_size() const noexcept { return size - header_length; }
  bool is_icmp_query() const noexcept {
    return icmp_type == icmp_type::echo || icmp_type == icmp_type::echo_reply ||
           icmp_type == icmp_type::timestamp || icmp_type == icmp_type::timestamp_reply;
  }
  bool is_icmp_error() const noexcept {
    return icmp_type == icmp_type::unreachable || icmp_type == icmp_type::source_quench ||
           icmp_type == icmp_type::redirect || icmp_type == icmp_type::time_exceeded ||
           icmp_type == icmp_type::parameter_problem;
  }
};

/// Reads and judges a packet (POL-NET-05, POL-NET-06, POL-NET-09). Octets beyond the total length are
/// padding. `super` packets of segmentation offload have lengths above what one frame could hold. On a
/// verdict other than `no` the fields read so far are set, and `size` is 0 unless the IPv4 header as a whole
/// is sound.
Malformed parse(std::span<std::byte> octets, bool super, Ipv4& packet) noexcept;

/// The packet an ICMP error quotes, as far as it goes.
struct Quoted {
  std::uint8_t* data = nullptr;
  std::uint32_t size = 0;  ///< octets there are
  std::uint32_t source = 0, destination = 0;
  std::uint16_t sport = 0, dport = 0;
  std::uint8_t header_length = 0;
  std::uint8_t protocol = 0;
  bool dont_fragment = false, more_fragments = false;
  std::uint16_t id = 0;
  bool has_ports = false;  ///< false for other protocols too

  std::uint8_t* transport() const noexcept { return data + header_length; }
  std::uint32_t transport_size() const noexcept { return size - header_length; }
};

/// Reads what the ICMP error `packet` quotes. False when it fits nothing: cut ports, a later fragment, an
/// ICMP error, a header with a wrong checksum (N5508-21, POL-NET-08). Options are skipped (N5508-22), the
/// transport checksum is not looked at (N5508-23).
bool parse_quoted(const Ipv4& packet, Quoted& quoted) noexcept;

/// The offset of the value of a TCP option inside the transport header, or 0.
std::uint32_t find_tcp_option(const Ipv4& packet, std::uint8_t kind, std::uint8_t length) noexcept;

}  // namespace sallyport::nat::packet
