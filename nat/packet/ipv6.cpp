#include "nat/packet/ipv6.hpp"

#include "nat/packet/build6.hpp"
#include "nat/packet/checksum.hpp"

namespace sallyport::nat::packet {
namespace {

constexpr std::uint32_t fixed_header = 40;
constexpr std::uint8_t option_pad1 = 0, option_jumbo = 0xc2;

/// Where a walk along the headers ended.
struct Chain {
  std::uint8_t protocol = 0;
  std::uint32_t at = fixed_header;
  std::uint32_t fragment_header = 0;
  std::uint32_t id = 0;
  std::uint16_t fragment_offset = 0;
  bool more_fragments = false;
};

/// The options of a hop-by-hop or destination header: none may reach beyond it.
Malformed judge_options(const std::uint8_t* header, std::uint32_t length) noexcept {
  for (std::uint32_t at = 2; at < length;) {
    const std::uint8_t kind = header[at];
    if (kind == option_pad1) {
      ++at;
      continue;
    }
    if (at + 1 >= length || at + 2 + header[at + 1] > length) return Malformed::option;
    if (kind == option_jumbo) return Malformed::total_length;
    at += 2U + header[at + 1];
  }
  return Malformed::no;
}

/// Walks from the fixed header to the upper layer, or to a later fragment's data. `cut` is the verdict where
/// the octets end first.
Malformed walk(const std::uint8_t* data, std::uint32_t size, Chain& chain, Malformed cut) noexcept {
  chain.protocol = data[6];
  for (unsigned headers = 0;; ++headers) {
    const std::uint8_t kind = chain.protocol;
    if (kind != protocol::hop_by_hop && kind != protocol::routing && kind != protocol::fragment &&
        kind != protocol::destination_options)
      return Malformed::no;
    if (kind == protocol::hop_by_hop && headers != 0) return Malformed::extension;
    if (headers == most_extension_headers) return Malformed::extension;
    const std::uint8_t* header = data + chain.at;
    const std::uint32_t left = size - chain.at;
    if (left < 8) return cut;
    const std::uint32_t length = kind == protocol::fragment ? 8 : (header[1] + 1U) * 8;
    if (chain.at + length - fixed_header > most_extension_octets) return Malformed::extension;
    if (length > left) return cut;
    chain.protocol = header[0];
    if (kind == protocol::fragment) {
      if (chain.fragment_header) return Malformed::extension;
      chain.fragment_header = chain.at;
      const std::uint16_t field = load16(header + 2);
      chain.fragment_offset = field & 0xfff8;
      chain.more_fragments = field & 1;
      chain.id = load32(header + 4);
      chain.at += 8;
      if (chain.fragment_offset) return Malformed::no;
      if (chain.more_fragments) cut = Malformed::fragment;  // RFC 7112
      continue;
    }
    if (kind == protocol::routing) {
      if (header[2] == 0) return Malformed::source_route;
    } else if (const auto verdict = judge_options(header, length); verdict != Malformed::no) {
      return verdict;
    }
    chain.at += length;
  }
}

/// As ipv4.cpp has it: combinations that no TCP sends.
bool nonsense(std::uint8_t flags) noexcept {
  using namespace tcp_flag;
  if (flags & syn) return (flags & (fin | rst)) != 0;
  if (flags & rst) return (flags & fin) != 0;
  return !(flags & ack);
}

Malformed parse_upper(Ipv6& packet, bool super) noexcept {
  const std::uint8_t* upper = packet.transport();
  const std::uint32_t size = packet.transport_size();
  const Malformed cut = packet.is_fragment() ? Malformed::fragment : Malformed::transport_header;
  switch (packet.protocol) {
    case protocol::tcp:
      if (size < 20) return cut;
      packet.transport_header_length = static_cast<std::uint8_t>((upper[12] >> 4) * 4);
      if (packet.transport_header_length < 20) return Malformed::transport_header;
      if (packet.transport_header_length > size) return cut;
      packet.sport = load16(upper);
      packet.dport = load16(upper + 2);
      packet.seq = load32(upper + 4);
      packet.ack = load32(upper + 8);
      packet.tcp_flags = upper[13] & 0x3f;
      packet.window = load16(upper + 14);
      if (nonsense(packet.tcp_flags)) return Malformed::tcp_flags;
      return packet.sport && packet.dport ? Malformed::no : Malformed::port;
    case protocol::udp:
    case protocol::udp_lite: {
      if (size < 8) return cut;
      packet.transport_header_length = 8;
      packet.sport = load16(upper);
      packet.dport = load16(upper + 2);
      const std::uint16_t length = load16(upper + 4);  // of UDP-Lite: what the checksum covers
      if (packet.protocol == protocol::udp && !super && !packet.is_fragment() &&
          (length < 8 || length > size))
        return Malformed::transport_length;
      return packet.sport && packet.dport ? Malformed::no : Malformed::port;
    }
    case protocol::icmp6:
      if (size < 8) return cut;
      packet.transport_header_length = 8;
      packet.icmp_type = upper[0];
      packet.icmp_code = upper[1];
      if (packet.is_echo()) packet.sport = packet.dport = load16(upper + 4);
      return Malformed::no;
    default:
      return Malformed::no;
  }
}

}  // namespace

Malformed parse(std::span<std::byte> octets, bool super, Ipv6& packet) noexcept {
  packet = {};
  if (octets.size() < fixed_header) return Malformed::truncated;
  auto* data = reinterpret_cast<std::uint8_t*>(octets.data());
  packet.data = data;
  if (data[0] >> 4 != 6) return Malformed::version;
  const std::uint32_t total = fixed_header + load16(data + 4);
  // No payload at all is what a jumbogram says (RFC 2675), or nothing worth forwarding.
  if (total > octets.size() || total == fixed_header) return Malformed::total_length;
  packet.hop_limit = data[7];
  packet.source = load_address(data + 8);
  packet.destination = load_address(data + 24);
  if (packet.hop_limit == 0) return Malformed::ttl;
  packet.size = total;
  Chain chain;
  if (const auto verdict = walk(data, total, chain, Malformed::header_length); verdict != Malformed::no)
    return verdict;
  packet.protocol = chain.protocol;
  packet.header_length = chain.at;
  packet.fragment_header = chain.fragment_header;
  packet.fragment_offset = chain.fragment_offset;
  packet.more_fragments = chain.more_fragments;
  packet.id = chain.id;
  if (packet.is_fragment()) {
    const std::uint32_t payload = packet.fragment_size();
    // What stands before the fragment header counts for the whole datagram too (RFC 8200 4.5).
    if (payload == 0 || (packet.more_fragments && payload % 8) ||
        packet.fragment_offset + payload + packet.fragment_header - fixed_header > 65535)
      return Malformed::fragment;
    if (packet.fragment_offset) return Malformed::no;
  }
  return parse_upper(packet, super);
}

bool parse_quoted(const Ipv6& packet, Quoted6& quoted) noexcept {
  quoted = {};
  if (packet.transport_size() < 8 + fixed_header) return false;
  const std::uint8_t* data = packet.transport() + 8;
  const std::uint32_t size = packet.transport_size() - 8;
  if (data[0] >> 4 != 6) return false;
  Chain chain;
  if (walk(data, size, chain, Malformed::truncated) != Malformed::no || chain.fragment_offset) return false;
  quoted.source = load_address(data + 8);
  quoted.destination = load_address(data + 24);
  quoted.protocol = chain.protocol;
  const std::uint8_t* upper = data + chain.at;
  const std::uint32_t left = size - chain.at;
  switch (quoted.protocol) {
    case protocol::tcp:
    case protocol::udp:
    case protocol::udp_lite:
      if (left < 8) return false;
      quoted.sport = load16(upper);
      quoted.dport = load16(upper + 2);
      return true;
    case protocol::icmp6:
      if (left < 8 || (upper[0] != icmp6_type::echo && upper[0] != icmp6_type::echo_reply)) return false;
      quoted.icmp_type = upper[0];
      quoted.sport = quoted.dport = load16(upper + 4);
      return true;
    case protocol::esp:
    case protocol::ah:
      return true;
    default:
      return false;
  }
}

std::uint32_t find_tcp_option(const Ipv6& packet, std::uint8_t kind, std::uint8_t length) noexcept {
  const std::uint8_t* tcp = packet.transport();
  for (std::uint32_t at = 20; at + 1 < packet.transport_header_length;) {
    if (tcp[at] == 0) break;
    if (tcp[at] == 1) {
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

bool icmp6_checksum_is_right(const Ipv6& packet) noexcept {
  return fold(pseudo_header_sum(packet.source, packet.destination, protocol::icmp6, packet.transport_size()) +
              sum_of(packet.transport(), packet.transport_size())) == 0xffff;
}

}  // namespace sallyport::nat::packet
