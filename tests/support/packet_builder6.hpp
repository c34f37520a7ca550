#pragma once

#include "tests/support/packet_builder.hpp"

/// IPv6 packets for tests, beside packet_builder.hpp.
namespace sallyport::test {

inline Octets ip6(const std::string& text) {
  Octets address(16);
  if (inet_pton(AF_INET6, text.c_str(), address.data()) != 1)
    throw std::invalid_argument{"no IPv6 address: " + text};
  return address;
}

/// Where the upper layer of a packet begins, and what it is; the fragment header on the way, 0 for none.
struct Upper6 {
  std::size_t at = 40;
  unsigned protocol = 59;
  std::size_t fragment = 0;
  bool later = false;
};
inline Upper6 upper_of(const Octets& packet) {
  Upper6 upper;
  upper.protocol = std::to_integer<unsigned>(packet.at(6));
  while (upper.protocol == 0 || upper.protocol == 43 || upper.protocol == 44 || upper.protocol == 60) {
    const std::size_t at = upper.at;
    if (upper.protocol == 44) {
      upper.fragment = at;
      upper.later = get16(packet, at + 2) & 0xfff8;
      upper.at += 8;
    } else {
      upper.at += (std::to_integer<unsigned>(packet.at(at + 1)) + 1) * 8;
    }
    upper.protocol = std::to_integer<unsigned>(packet.at(at));
    if (upper.later) break;
  }
  return upper;
}

inline std::uint16_t full_checksum6(const Octets& packet) {
  const Upper6 upper = upper_of(packet);
  Octets pseudo(packet.begin() + 8, packet.begin() + 40);
  pseudo.resize(40);
  put32(pseudo, 32, static_cast<std::uint32_t>(packet.size() - upper.at));
  put32(pseudo, 36, upper.protocol);
  return full_checksum(packet, upper.at, packet.size(),
                       static_cast<std::uint16_t>(~full_checksum(pseudo, 0, pseudo.size())));
}
inline std::size_t checksum_field6(const Octets& packet) {
  const Upper6 upper = upper_of(packet);
  return upper.at + (upper.protocol == 6 ? 16 : upper.protocol == 58 ? 2 : 6);
}
/// True also where there is none: later fragments, ESP.
inline bool checksum_is_right6(const Octets& packet) {
  const Upper6 upper = upper_of(packet);
  if (upper.fragment && (get16(packet, upper.fragment + 2) & 0xfff9)) return true;
  if (upper.protocol != 6 && upper.protocol != 17 && upper.protocol != 58) return true;
  return full_checksum6(packet) == 0;
}
inline void set_checksum6(Octets& packet) {
  const std::size_t field = checksum_field6(packet);
  put16(packet, field, 0);
  const std::uint16_t sum = full_checksum6(packet);
  put16(packet, field, sum == 0 && upper_of(packet).protocol == 17 ? 0xffff : sum);
}

class PacketBuilder6 {
 public:
  operator Octets() const { return build(); }  // NOLINT: meant to be used where octets are

  PacketBuilder6& hops(unsigned value) { return hops_ = value, *this; }
  PacketBuilder6& payload(std::string_view text) {
    const auto* data = reinterpret_cast<const std::byte*>(text.data());
    return payload_.assign(data, data + text.size()), *this;
  }
  PacketBuilder6& payload(Octets octets) { return payload_ = std::move(octets), *this; }
  PacketBuilder6& seq(std::uint32_t value) { return seq_ = value, *this; }
  PacketBuilder6& ack(std::uint32_t value) { return ack_ = value, flags_ |= flag::ack, *this; }
  PacketBuilder6& window(unsigned value) { return window_ = value, *this; }
  PacketBuilder6& tcp_options(Octets value) { return tcp_options_ = std::move(value), *this; }
  PacketBuilder6& mss(unsigned value) {
    return tcp_options_ = {std::byte{2}, std::byte{4}, static_cast<std::byte>(value >> 8),
                           static_cast<std::byte>(value)},
           *this;
  }
  PacketBuilder6& rest(std::uint32_t value) { return rest_ = value, *this; }
  PacketBuilder6& bad_checksum() { return bad_checksum_ = true, *this; }
  /// A further extension header: its octets without the first, which names the next one.
  PacketBuilder6& extension(unsigned kind, Octets behind_next) {
    return extensions_.emplace_back(kind, std::move(behind_next)), *this;
  }
  PacketBuilder6& padded(unsigned kind, unsigned octets = 8) {  // options of nothing but padding
    Octets body(octets - 1);
    put8(body, 0, octets / 8 - 1);
    put8(body, 1, 1);
    put8(body, 2, octets - 4);
    return extension(kind, body);
  }
  PacketBuilder6& routing(unsigned type, unsigned left = 1) {
    Octets body(7);
    put8(body, 1, type);
    put8(body, 2, left);
    return extension(43, body);
  }
  PacketBuilder6& atomic_fragment(std::uint32_t id = 7) {
    Octets body(7);
    put32(body, 3, id);
    return extension(44, body);
  }

  Octets build() const {
    Octets upper;
    if (protocol_ == 6) {
      upper.resize(20 + (tcp_options_.size() + 3) / 4 * 4);
      put16(upper, 0, sport_);
      put16(upper, 2, dport_);
      put32(upper, 4, seq_);
      put32(upper, 8, ack_);
      put8(upper, 12, static_cast<unsigned>(upper.size() / 4) << 4);
      put8(upper, 13, flags_);
      put16(upper, 14, window_);
      std::copy(tcp_options_.begin(), tcp_options_.end(), upper.begin() + 20);
    } else if (protocol_ == 17 || protocol_ == 136) {
      upper.resize(8);
      put16(upper, 0, sport_);
      put16(upper, 2, dport_);
      put16(upper, 4, static_cast<unsigned>(8 + payload_.size()));
    } else if (protocol_ == 58) {
      upper.resize(8);
      put8(upper, 0, sport_);
      put8(upper, 1, dport_);
      put32(upper, 4, rest_);
    }
    upper.insert(upper.end(), payload_.begin(), payload_.end());
    Octets packet(40);
    put8(packet, 0, 0x60);
    put8(packet, 7, hops_);
    std::copy(source_.begin(), source_.end(), packet.begin() + 8);
    std::copy(destination_.begin(), destination_.end(), packet.begin() + 24);
    std::size_t next = 6;
    for (const auto& [kind, octets] : extensions_) {
      put8(packet, next, kind);
      next = packet.size();
      packet.emplace_back();
      packet.insert(packet.end(), octets.begin(), octets.end());
    }
    put8(packet, next, protocol_);
    packet.insert(packet.end(), upper.begin(), upper.end());
    put16(packet, 4, static_cast<unsigned>(packet.size() - 40));
    if (protocol_ == 6 || protocol_ == 17 || protocol_ == 58 || protocol_ == 136) {
      set_checksum6(packet);
      if (bad_checksum_)
        put16(packet, checksum_field6(packet), get16(packet, checksum_field6(packet)) ^ 0x5a5a);
    }
    return packet;
  }

  unsigned protocol_ = 17;
  Octets source_, destination_;
  unsigned sport_ = 0, dport_ = 0;  // ICMP: type, code
  unsigned flags_ = 0, hops_ = 64, window_ = 8192;
  bool bad_checksum_ = false;
  std::uint32_t seq_ = 1000, ack_ = 0, rest_ = 0;
  Octets tcp_options_, payload_;
  std::vector<std::pair<unsigned, Octets>> extensions_;
};

inline PacketBuilder6 make_ip6(unsigned protocol, const std::string& from, const std::string& to) {
  PacketBuilder6 builder;
  builder.protocol_ = protocol;
  builder.source_ = ip6(from);
  builder.destination_ = ip6(to);
  return builder;
}
inline PacketBuilder6 udp6(const std::string& from, unsigned sport, const std::string& to, unsigned dport) {
  PacketBuilder6 builder = make_ip6(17, from, to);
  builder.sport_ = sport;
  builder.dport_ = dport;
  return builder.payload("hello");
}
inline PacketBuilder6 tcp6(const std::string& from, unsigned sport, const std::string& to, unsigned dport,
                           unsigned flags) {
  PacketBuilder6 builder = make_ip6(6, from, to);
  builder.sport_ = sport;
  builder.dport_ = dport;
  builder.flags_ = flags;
  return builder;
}
inline PacketBuilder6 icmp6(const std::string& from, const std::string& to, unsigned type, unsigned code,
                            std::uint32_t rest = 0) {
  PacketBuilder6 builder = make_ip6(58, from, to);
  builder.sport_ = type;
  builder.dport_ = code;
  builder.rest_ = rest;
  return builder;
}
inline PacketBuilder6 echo6(const std::string& from, const std::string& to, unsigned id) {
  return icmp6(from, to, 128, 0, id << 16 | 1).payload("ping");
}
inline PacketBuilder6 echo_reply6(const std::string& from, const std::string& to, unsigned id) {
  return icmp6(from, to, 129, 0, id << 16 | 1).payload("ping");
}
/// An ICMPv6 error that quotes all of `about` up to `most` octets.
inline PacketBuilder6 icmp6_error(const std::string& from, const std::string& to, unsigned type,
                                  unsigned code, const Octets& about, std::uint32_t rest = 0,
                                  std::size_t most = 1232) {
  return icmp6(from, to, type, code, rest)
      .payload(
          Octets(about.begin(), about.begin() + static_cast<std::ptrdiff_t>(std::min(most, about.size()))));
}

/// Cuts a packet without extension headers as its source would.
inline std::vector<Octets> fragments_of6(const Octets& packet, const std::vector<std::size_t>& sizes,
                                         std::uint32_t id = 99) {
  std::vector<Octets> fragments;
  std::size_t at = 40;
  for (std::size_t i = 0; i <= sizes.size(); ++i) {
    const bool last = i == sizes.size();
    const std::size_t size = last ? packet.size() - at : sizes[i];
    Octets fragment(packet.begin(), packet.begin() + 40);
    fragment.resize(48);
    fragment.at(40) = packet.at(6);
    put8(fragment, 6, 44);
    put16(fragment, 42, static_cast<unsigned>(at - 40) | (last ? 0U : 1U));
    put32(fragment, 44, id);
    fragment.insert(fragment.end(), packet.begin() + static_cast<std::ptrdiff_t>(at),
                    packet.begin() + static_cast<std::ptrdiff_t>(at + size));
    put16(fragment, 4, static_cast<unsigned>(fragment.size() - 40));
    fragments.push_back(std::move(fragment));
    at += size;
  }
  return fragments;
}

/// As describe() of packet_builder.hpp: "udp [2001:db8:1::10]:5000 > [2001:db8:f::7]:53 hops=63".
inline std::string describe6(const Octets& packet) {
  if (packet.size() < 40) return "short";
  const auto text_of = [&](std::size_t at) {
    char text[INET6_ADDRSTRLEN];
    return std::string{inet_ntop(AF_INET6, &packet.at(at), text, sizeof text)};
  };
  const std::string from = text_of(8), to = text_of(24);
  const Upper6 upper = upper_of(packet);
  std::string text;
  if (upper.later) {
    text = "fragment " + std::to_string(get16(packet, upper.fragment + 2) & 0xfff8) + ' ' + from + " > " + to;
  } else if (upper.protocol == 6 || upper.protocol == 17 || upper.protocol == 136) {
    text = (upper.protocol == 6    ? "tcp ["
            : upper.protocol == 17 ? "udp ["
                                   : "udplite [") +
           from + "]:" + std::to_string(get16(packet, upper.at)) + " > [" + to +
           "]:" + std::to_string(get16(packet, upper.at + 2));
  } else if (upper.protocol == 58) {
    text = "icmp " + std::to_string(std::to_integer<unsigned>(packet.at(upper.at))) + '/' +
           std::to_string(std::to_integer<unsigned>(packet.at(upper.at + 1))) + ' ' + from + " > " + to;
  } else {
    text = "protocol " + std::to_string(upper.protocol) + ' ' + from + " > " + to;
  }
  if (upper.protocol == 6 && !upper.later) {
    const auto flags = std::to_integer<unsigned>(packet.at(upper.at + 13));
    text += ' ';
    for (const auto& [bit, letter] :
         {std::pair{2U, 'S'}, {16U, 'A'}, {1U, 'F'}, {4U, 'R'}, {8U, 'P'}, {32U, 'U'}})
      if (flags & bit) text += letter;
  }
  return text + " hops=" + std::to_string(std::to_integer<unsigned>(packet.at(7)));
}

}  // namespace sallyport::test
