#include "nat/packet/ipv4.hpp"

#include "nat/packet/checksum.hpp"

namespace sallyport::nat::packet {
namespace {

constexpr std::uint8_t option_end = 0, option_nop = 1, option_lsrr = 131, option_ssrr = 137;

Malformed judge_options(const Ipv4& packet) noexcept {
  for (std::uint32_t at = 20; at < packet.header_length;) {
    const std::uint8_t kind = packet.data[at];
    if (kind == option_end) break;
    if (kind == option_nop) {
      ++at;
      continue;
    }
    if (at + 1 >= packet.header_length) return Malformed::option;
    const std::uint8_t length = packet.data[at + 1];
    if (length < 2 || at + length > packet.header_length) return Malformed::option;
    if (kind == option_lsrr || kind == option_ssrr) return Malformed::source_route;
    at += length;
  }
  return Malformed::no;
}

/// Combinations that no TCP sends: they map a network, or slip past a filter.
bool nonsense(std::uint8_t flags) noexcept {
  using namespace tcp_flag;
  if (flags & syn) return (flags & (fin | rst)) != 0;
  if (flags & rst) return (flags & fin) != 0;
  return !(flags & ack);
}

Malformed parse_tcp(Ipv4& packet) noexcept {
  const std::uint8_t* tcp = packet.transport();
  if (packet.transport_size() < 20)
    return packet.is_fragment() ? Malformed::fragment : Malformed::transport_header;
  packet.transport_header_length = static_cast<std::uint8_t>((tcp[12] >> 4) * 4);
  if (packet.transport_header_length < 20) return Malformed::transport_header;
  if (packet.transport_header_length > packet.transport_size())
    return packet.is_fragment() ? Malformed::fragment : Malformed::transport_header;
  packet.sport = load16(tcp);
  packet.dport = load16(tcp + 2);
  packet.seq = load32(tcp + 4);
  packet.ack = load32(tcp + 8);
  packet.tcp_flags = tcp[13] & 0x3f;
  packet.window = load16(tcp + 14);
  if (nonsense(packet.tcp_flags)) return Malformed::tcp_flags;
  return packet.sport && packet.dport ? Malformed::no : Malformed::port;
}

Malformed parse_udp(Ipv4& packet, bool super) noexcept {
  const std::uint8_t* udp = packet.transport();
  if (packet.transport_size() < 8)
    return packet.is_fragment() ? Malformed::fragment : Malformed::transport_header;
  packet.transport_header_length = 8;
  packet.sport = load16(udp);
  packet.dport = load16(udp + 2);
  const std::uint16_t length = load16(udp + 4);
  if (!super && !packet.is_fragment() && (length < 8 || length > packet.transport_size()))
    return Malformed::transport_length;
  return packet.sport && packet.dport ? Malformed::no : Malformed::port;
}

Malformed parse_icmp(Ipv4& packet) noexcept {
  const std::uint8_t* icmp = packet.transport();
  if (packet.transport_size() < 8)
    return packet.is_fragment() ? Malformed::fragment : Malformed::transport_header;
  packet.transport_header_length = 8;
  packet.icmp_type = icmp[0];
  packet.icmp_code = icmp[1];
  if (packet.is_icmp_query()) packet.sport = packet.dport = load16(icmp + 4);
  return Malformed::no;
}

}  // namespace

Malformed parse(std::span<std::byte> octets, bool super, Ipv4& packet) noexcept {
  packet = {};
  if (octets.size() < 20) return Malformed::truncated;
  auto* data = reinterpret_cast<std::uint8_t*>(octets.data());
  packet.data = data;
  if (data[0] >> 4 != 4) return Malformed::version;
  packet.header_length = static_cast<std::uint8_t>((data[0] & 15) * 4);
  if (packet.header_length < 20 || packet.header_length > octets.size()) return Malformed::header_length;
  const std::uint16_t total = load16(data + 2);
  if (total < packet.header_length || total > octets.size()) return Malformed::total_length;
  if (fold(sum_of(data, packet.header_length)) != 0xffff) return Malformed::header_checksum;
  packet.size = total;
  packet.id = load16(data + 4);
  const std::uint16_t fragment = load16(data + 6);
  packet.dont_fragment = fragment & 0x4000;
  packet.more_fragments = fragment & 0x2000;
  packet.fragment_offset = static_cast<std::uint16_t>((fragment & 0x1fff) * 8);
  packet.ttl = data[8];
  packet.protocol = data[9];
  packet.source = load32(data + 12);
  packet.destination = load32(data + 16);
  if (packet.ttl == 0) return Malformed::ttl;
  if (packet.header_length > 20)
    if (const auto verdict = judge_options(packet); verdict != Malformed::no) return verdict;
  if (packet.is_fragment()) {
    const std::uint32_t payload = packet.transport_size();
    if (payload == 0 || (packet.more_fragments && payload % 8) ||
        packet.fragment_offset + payload + packet.header_length > 65535)
      return Malformed::fragment;
    if (packet.fragment_offset) return Malformed::no;
  }
  switch (packet.protocol) {
    case protocol::tcp:
      return parse_tcp(packet);
    case protocol::udp:
      return parse_udp(packet, super);
    case protocol::icmp:
      return parse_icmp(packet);
    default:
      return Malformed::no;
  }
}

bool parse_quoted(const Ipv4& packet, Quoted& quoted) noexcept {
  quoted = {};
  if (packet.transport_size() < 8 + 20) return false;
  quoted.data = packet.transport() + 8;
  quoted.size = packet.transport_size() - 8;
  const std::uint8_t* data = quoted.data;
  if (data[0] >> 4 != 4) return false;
  quoted.header_length = static_cast<std::uint8_t>((data[0] & 15) * 4);
  if (quoted.header_length < 20 || quoted.header_length > quoted.size) return false;
  if (load16(data + 2) < quoted.header_length) return false;
  if (fold(sum_of(data, quoted.header_length)) != 0xffff) return false;
  quoted.id = load16(data + 4);
  const std::uint16_t fragment = load16(data + 6);
  if (fragment & 0x1fff) return false;
  quoted.dont_fragment = fragment & 0x4000;
  quoted.more_fragments = fragment & 0x2000;
  quoted.protocol = data[9];
  quoted.source = load32(data + 12);
  quoted.destination = load32(data + 16);
  const std::uint8_t* transport = quoted.transport();
  switch (quoted.protocol) {
    case protocol::tcp:
    case protocol::udp:
      if (quoted.transport_size() < 8) return false;
      quoted.sport = load16(transport);
      quoted.dport = load16(transport + 2);
      quoted.has_ports = true;
      return true;
    case protocol::icmp:
      if (quoted.transport_size() < 8) return false;
      switch (transport[0]) {
        case icmp_type::echo:
        case icmp_type::echo_reply:
        case icmp_type::timestamp:
        case icmp_type::timestamp_reply:
          quoted.sport = quoted.dport = load16(transport + 4);
          quoted.has_ports = true;
          return true;
        default:
          return false;
      }
    default:
      return true;
  }
}

std::uint32_t find_tcp_option(const Ipv4& packet, std::uint8_t kind, std::uint8_t length) noexcept {
  const std::uint8_t* tcp = packet.transport();
  for (std::uint32_t at = 20; at + 1 < packet.transport_header_length;) {
    if (tcp[at] == option_end) break;
    if (tcp[at] == option_nop) {
      ++at;
      continue;
    }
    const std::uint8_t size = tcp[at + 1];
    if (size < 2 || at + size > packet.transport_header_length) break;
    if (tcp[at] == kind && size == length) return at + 2;
    at += size;
  }
  return 0;
}

}  // namespace sallyport::nat::packet
