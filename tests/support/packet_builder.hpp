#pragma once

#include <arpa/inet.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

/// Packets for tests, built octet by octet and summed by the definition (RFC 1071), beside the code they
/// test.
namespace sallyport::test {

using Octets = std::vector<std::byte>;

inline std::uint32_t ip(const std::string& text) {
  in_addr address{};
  if (inet_pton(AF_INET, text.c_str(), &address) != 1)
    throw std::invalid_argument{"no IPv4 address: " + text};
  return ntohl(address.s_addr);
}

inline std::uint16_t get16(const Octets& octets, std::size_t at) {
  return static_cast<std::uint16_t>(std::to_integer<unsigned>(octets.at(at)) << 8 |
                                    std::to_integer<unsigned>(octets.at(at + 1)));
}
inline std::uint32_t get32(const Octets& octets, std::size_t at) {
  return std::uint32_t{get16(octets, at)} << 16 | get16(octets, at + 2);
}
inline void put8(Octets& octets, std::size_t at, unsigned value) {
  octets.at(at) = static_cast<std::byte>(value);
}
inline void put16(Octets& octets, std::size_t at, unsigned value) {
  put8(octets, at, value >> 8);
  put8(octets, at + 1, value & 255);
}
inline void put32(Octets& octets, std::size_t at, std::uint32_t value) {
  put16(octets, at, value >> 16);
  put16(octets, at + 2, value & 65535);
}

/// The ones' complement of the ones' complement sum, carry by carry.
inline std::uint16_t full_checksum(const Octets& octets, std::size_t from, std::size_t to,
                                   std::uint32_t start = 0) {
  std::uint32_t sum = start;
  for (std::size_t i = from; i < to; i += 2) {
    sum += std::to_integer<unsigned>(octets.at(i)) << 8;
    if (i + 1 < to) sum += std::to_integer<unsigned>(octets.at(i + 1));
    sum = (sum & 0xffff) + (sum >> 16);
  }
  return static_cast<std::uint16_t>(~sum);
}

inline std::size_t header_length(const Octets& packet) {
  return (std::to_integer<unsigned>(packet.at(0)) & 15) * 4;
}

inline std::uint16_t full_transport_checksum(const Octets& packet) {
  const std::size_t at = header_length(packet);
  const auto protocol = std::to_integer<std::uint32_t>(packet.at(9));
  std::uint32_t pseudo = 0;
  if (protocol != 1) {
    pseudo = (get32(packet, 12) >> 16) + (get32(packet, 12) & 65535) + (get32(packet, 16) >> 16) +
             (get32(packet, 16) & 65535) + protocol + static_cast<std::uint32_t>(packet.size() - at);
    pseudo = (pseudo & 0xffff) + (pseudo >> 16);
  }
  return full_checksum(packet, at, packet.size(), pseudo);
}

inline std::size_t checksum_field(const Octets& packet) {
  switch (std::to_integer<unsigned>(packet.at(9))) {
    case 1:
      return header_length(packet) + 2;
    case 6:
      return header_length(packet) + 16;
    default:
      return header_length(packet) + 6;
  }
}
inline bool ip_checksum_is_right(const Octets& packet) {
  return full_checksum(packet, 0, header_length(packet)) == 0;
}
inline bool transport_checksum_is_right(const Octets& packet) { return full_transport_checksum(packet) == 0; }
/// Both; a UDP checksum of zero counts as right.
inline bool checksums_are_right(const Octets& packet) {
  if (!ip_checksum_is_right(packet)) return false;
  if (packet.at(9) == std::byte{17} && get16(packet, checksum_field(packet)) == 0) return true;
  return transport_checksum_is_right(packet);
}

inline void set_ip_checksum(Octets& packet) {
  put16(packet, 10, 0);
  put16(packet, 10, full_checksum(packet, 0, header_length(packet)));
}
inline void set_checksums(Octets& packet) {
  const std::size_t field = checksum_field(packet);
  put16(packet, field, 0);
  const std::uint16_t sum = full_transport_checksum(packet);
  put16(packet, field, packet.at(9) == std::byte{17} && sum == 0 ? 0xffff : sum);
  set_ip_checksum(packet);
}

namespace flag {
inline constexpr unsigned fin = 1, syn = 2, rst = 4, psh = 8, ack = 16, urg = 32;
}

/// A chain of words ends in the octets: `udp("192.168.1.2", 5000, "198.51.100.7", 53).ttl(9)`.
class PacketBuilder {
 public:
  operator Octets() const { return build(); }  // NOLINT: meant to be used where octets are

  PacketBuilder& ttl(unsigned value) { return ttl_ = value, *this; }
  PacketBuilder& id(unsigned value) { return id_ = value, *this; }
  PacketBuilder& tos(unsigned value) { return tos_ = value, *this; }
  PacketBuilder& dont_fragment(bool value = true) { return dont_fragment_ = value, *this; }
  PacketBuilder& options(Octets value) { return options_ = std::move(value), *this; }
  PacketBuilder& payload(std::string_view text) {
    const auto* data = reinterpret_cast<const std::byte*>(text.data());
    return payload_.assign(data, data + text.size()), *this;
  }
  PacketBuilder& payload(Octets octets) { return payload_ = std::move(octets), *this; }
  PacketBuilder& seq(std::uint32_t value) { return seq_ = value, *this; }
  PacketBuilder& ack(std::uint32_t value) { return ack_ = value, flags_ |= flag::ack, *this; }
  PacketBuilder& window(unsigned value) { return window_ = value, *this; }
  PacketBuilder& tcp_options(Octets value) { return tcp_options_ = std::move(value), *this; }
  PacketBuilder& mss(unsigned value) {
    return tcp_options_ = {std::byte{2}, std::byte{4}, static_cast<std::byte>(value >> 8),
                           static_cast<std::byte>(value)},
           *this;
  }
  PacketBuilder& no_checksum() { return no_checksum_ = true, *this; }
  PacketBuilder& bad_checksum() { return bad_checksum_ = true, *this; }
  PacketBuilder& rest(std::uint32_t value) { return rest_ = value, *this; }

  Octets build() const {
    const std::size_t head = 20 + (options_.size() + 3) / 4 * 4;
    std::size_t transport = 0;
    if (protocol_ == 6) transport = 20 + (tcp_options_.size() + 3) / 4 * 4;
    if (protocol_ == 17 || protocol_ == 1) transport = 8;
    Octets packet(head + transport + payload_.size());
    put8(packet, 0, 0x40 | head / 4);
    put8(packet, 1, tos_);
    put16(packet, 2, static_cast<unsigned>(packet.size()));
    put16(packet, 4, id_);
    put16(packet, 6, dont_fragment_ ? 0x4000 : 0);
    put8(packet, 8, ttl_);
    put8(packet, 9, protocol_);
    put32(packet, 12, source_);
    put32(packet, 16, destination_);
    std::copy(options_.begin(), options_.end(), packet.begin() + 20);
    std::copy(payload_.begin(), payload_.end(),
              packet.begin() + static_cast<std::ptrdiff_t>(head + transport));
    if (protocol_ == 6) {
      put16(packet, head, sport_);
      put16(packet, head + 2, dport_);
      put32(packet, head + 4, seq_);
      put32(packet, head + 8, ack_);
      put8(packet, head + 12, static_cast<unsigned>(transport / 4) << 4);
      put8(packet, head + 13, flags_);
      put16(packet, head + 14, window_);
      std::copy(tcp_options_.begin(), tcp_options_.end(),
                packet.begin() + static_cast<std::ptrdiff_t>(head + 20));
    } else if (protocol_ == 17) {
      put16(packet, head, sport_);
      put16(packet, head + 2, dport_);
      put16(packet, head + 4, static_cast<unsigned>(8 + payload_.size()));
    } else if (protocol_ == 1) {
      put8(packet, head, sport_);
      put8(packet, head + 1, dport_);
      put32(packet, head + 4, rest_);
    }
    if (transport == 0 || (no_checksum_ && protocol_ == 17)) {
      set_ip_checksum(packet);
    } else {
      set_checksums(packet);
      if (bad_checksum_)
        put16(packet, checksum_field(packet), get16(packet, checksum_field(packet)) ^ 0x5a5a);
    }
    return packet;
  }

  unsigned protocol_ = 17;
  std::uint32_t source_ = 0, destination_ = 0;
  unsigned sport_ = 0, dport_ = 0;  // ICMP: type, code
  unsigned flags_ = 0;
  unsigned ttl_ = 64, id_ = 0x1234, tos_ = 0;
  bool dont_fragment_ = true, no_checksum_ = false, bad_checksum_ = false;
  std::uint32_t seq_ = 1000, ack_ = 0, rest_ = 0;
  unsigned window_ = 8192;
  Octets options_, tcp_options_, payload_;
};

inline PacketBuilder make_ip(unsigned protocol, const std::string& from, const std::string& to) {
  PacketBuilder builder;
  builder.protocol_ = protocol;
  builder.source_ = ip(from);
  builder.destination_ = ip(to);
  return builder;
}
inline PacketBuilder udp(const std::string& from, unsigned sport, const std::string& to, unsigned dport) {
  PacketBuilder builder = make_ip(17, from, to);
  builder.sport_ = sport;
  builder.dport_ = dport;
  return builder.payload("hello");
}
inline PacketBuilder tcp(const std::string& from, unsigned sport, const std::string& to, unsigned dport,
                         unsigned flags) {
  PacketBuilder builder = make_ip(6, from, to);
  builder.sport_ = sport;
  builder.dport_ = dport;
  builder.flags_ = flags;
  return builder;
}
inline PacketBuilder icmp(const std::string& from, const std::string& to, unsigned type, unsigned code,
                          std::uint32_t rest = 0) {
  PacketBuilder builder = make_ip(1, from, to);
  builder.sport_ = type;
  builder.dport_ = code;
  builder.rest_ = rest;
  return builder;
}
inline PacketBuilder echo(const std::string& from, const std::string& to, unsigned id,
                          unsigned sequence = 1) {
  return icmp(from, to, 8, 0, id << 16 | sequence).payload("ping");
}
inline PacketBuilder echo_reply(const std::string& from, const std::string& to, unsigned id,
                                unsigned sequence = 1) {
  return icmp(from, to, 0, 0, id << 16 | sequence).payload("ping");
}
/// An ICMP error that quotes all of `about` up to `most` octets.
inline PacketBuilder icmp_error(const std::string& from, const std::string& to, unsigned type, unsigned code,
                                const Octets& about, std::size_t most = 28, std::uint32_t rest = 0) {
  return icmp(from, to, type, code, rest)
      .payload(
          Octets(about.begin(), about.begin() + static_cast<std::ptrdiff_t>(std::min(most, about.size()))));
}

/// Cuts a packet as a router would; `sizes` are the payload octets of each fragment but the last, multiples
/// of 8.
inline std::vector<Octets> fragments_of(const Octets& packet, const std::vector<std::size_t>& sizes) {
  std::vector<Octets> fragments;
  const std::size_t head = header_length(packet);
  std::size_t at = head;
  for (std::size_t i = 0; i <= sizes.size(); ++i) {
    const bool last = i == sizes.size();
    const std::size_t size = last ? packet.size() - at : sizes[i];
    Octets fragment(packet.begin(), packet.begin() + static_cast<std::ptrdiff_t>(head));
    fragment.insert(fragment.end(), packet.begin() + static_cast<std::ptrdiff_t>(at),
                    packet.begin() + static_cast<std::ptrdiff_t>(at + size));
    put16(fragment, 2, static_cast<unsigned>(fragment.size()));
    put16(fragment, 6, (last ? 0U : 0x2000U) | static_cast<unsigned>((at - head) / 8));
    set_ip_checksum(fragment);
    fragments.push_back(std::move(fragment));
    at += size;
  }
  return fragments;
}

/// A packet in one line, for messages and for packet tables: "udp 192.168.1.2:5000 > 198.51.100.7:53 ttl=63".
inline std::string describe(const Octets& packet) {
  const auto dotted = [](std::uint32_t address) {
    return std::to_string(address >> 24) + '.' + std::to_string(address >> 16 & 255) + '.' +
           std::to_string(address >> 8 & 255) + '.' + std::to_string(address & 255);
  };
  if (packet.size() < 20) return "short";
  const std::size_t head = header_length(packet);
  const auto protocol = std::to_integer<unsigned>(packet[9]);
  const std::string from = dotted(get32(packet, 12)), to = dotted(get32(packet, 16));
  const unsigned fragment = get16(packet, 6);
  std::string text;
  if (fragment & 0x1fff)
    text = "fragment " + std::to_string((fragment & 0x1fff) * 8) + ' ' + from + " > " + to;
  else if ((protocol == 6 || protocol == 17) && packet.size() >= head + 8)
    text = std::string{protocol == 6 ? "tcp " : "udp "} + from + ':' + std::to_string(get16(packet, head)) +
           " > " + to + ':' + std::to_string(get16(packet, head + 2));
  else if (protocol == 1 && packet.size() >= head + 8)
    text = "icmp " + std::to_string(std::to_integer<unsigned>(packet[head])) + '/' +
           std::to_string(std::to_integer<unsigned>(packet[head + 1])) +
           " id=" + std::to_string(get16(packet, head + 4)) + ' ' + from + " > " + to;
  else
    text = "protocol " + std::to_string(protocol) + ' ' + from + " > " + to;
  if (protocol == 6 && !(fragment & 0x1fff) && packet.size() >= head + 20) {
    const auto flags = std::to_integer<unsigned>(packet[head + 13]);
    text += ' ';
    for (const auto& [bit, letter] :
         {std::pair{2U, 'S'}, {16U, 'A'}, {1U, 'F'}, {4U, 'R'}, {8U, 'P'}, {32U, 'U'}})
      if (flags & bit) text += letter;
  }
  return text + " ttl=" + std::to_string(std::to_integer<unsigned>(packet[8]));
}

}  // namespace sallyport::test
