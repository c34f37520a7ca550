#include "nat/packet/build.hpp"

#include <algorithm>

#include "nat/packet/checksum.hpp"

namespace sallyport::nat::packet {
namespace {

constexpr std::uint8_t own_ttl = 64;

std::uint8_t* start_ipv4(std::vector<std::byte>& octets, std::uint8_t protocol, std::uint32_t source,
                         std::uint32_t destination) {
  auto* data = reinterpret_cast<std::uint8_t*>(octets.data());
  data[0] = 0x45;
  store16(data + 2, static_cast<std::uint16_t>(octets.size()));
  store16(data + 6, 0x4000);  // atomic: its ID means nothing (RFC 6864)
  data[8] = own_ttl;
  data[9] = protocol;
  store32(data + 12, source);
  store32(data + 16, destination);
  store16(data + 10, checksum_of(data, 20));
  return data;
}

}  // namespace

std::vector<std::byte> make_icmp_error(std::uint8_t type, std::uint8_t code, std::uint32_t rest,
                                       std::uint32_t from, const Ipv4& about) {
  constexpr std::uint32_t largest = 576;
  const std::uint32_t quote = std::min(about.size, largest - 28);
  std::vector<std::byte> octets(28 + quote);
  auto* data = start_ipv4(octets, protocol::icmp, from, about.source);
  data[20] = type;
  data[21] = code;
  store32(data + 24, rest);
  std::copy_n(about.data, quote, data + 28);
  store16(data + 22, checksum_of(data + 20, 8 + quote));
  return octets;
}

std::vector<std::byte> make_rst(const RstTo& to) {
  std::vector<std::byte> octets(40);
  auto* data = start_ipv4(octets, protocol::tcp, to.source, to.destination);
  std::uint8_t* tcp = data + 20;
  store16(tcp, to.sport);
  store16(tcp + 2, to.dport);
  store32(tcp + 4, to.seq);
  store32(tcp + 8, to.ack);
  tcp[12] = 5 << 4;
  tcp[13] = tcp_flag::rst | tcp_flag::ack;
  const auto sum = pseudo_header_sum(to.source, to.destination, protocol::tcp, 20) + sum_of(tcp, 20);
  store16(tcp + 16, static_cast<std::uint16_t>(~fold(sum)));
  return octets;
}

std::vector<std::byte> make_rst(const Ipv4& about) {
  std::vector<std::byte> octets(40);
  auto* data = start_ipv4(octets, protocol::tcp, about.destination, about.source);
  std::uint8_t* tcp = data + 20;
  store16(tcp, about.dport);
  store16(tcp + 2, about.sport);
  tcp[12] = 5 << 4;
  if (about.tcp_flags & tcp_flag::ack) {
    store32(tcp + 4, about.ack);
    tcp[13] = tcp_flag::rst;
  } else {
    const std::uint32_t length = about.transport_size() - about.transport_header_length +
                                 ((about.tcp_flags & tcp_flag::syn) ? 1 : 0) +
                                 ((about.tcp_flags & tcp_flag::fin) ? 1 : 0);
    store32(tcp + 8, about.seq + length);
    tcp[13] = tcp_flag::rst | tcp_flag::ack;
  }
  const auto sum = pseudo_header_sum(about.destination, about.source, protocol::tcp, 20) + sum_of(tcp, 20);
  store16(tcp + 16, static_cast<std::uint16_t>(~fold(sum)));
  return octets;
}

}  // namespace sallyport::nat::packet
