#include "nat/packet/build6.hpp"

#include <algorithm>

#include "nat/packet/checksum.hpp"

namespace sallyport::nat::packet {
namespace {

constexpr std::uint32_t fixed_header = 40;
constexpr std::uint8_t own_hop_limit = 64;

std::uint8_t* start_ipv6(std::vector<std::byte>& octets, std::uint8_t next, const Address6& source,
                         const Address6& destination) {
  auto* data = reinterpret_cast<std::uint8_t*>(octets.data());
  data[0] = 0x60;
  store16(data + 4, static_cast<std::uint16_t>(octets.size() - fixed_header));
  data[6] = next;
  data[7] = own_hop_limit;
  store_address(data + 8, source);
  store_address(data + 24, destination);
  return data;
}

void finish(std::uint8_t* data, std::uint32_t size, std::uint8_t next, std::uint32_t checksum_at) {
  std::uint8_t* upper = data + fixed_header;
  const std::uint32_t length = size - fixed_header;
  const auto sum = pseudo_header_sum(load_address(data + 8), load_address(data + 24), next, length) +
                   sum_of(upper, length);
  store16(upper + checksum_at, static_cast<std::uint16_t>(~fold(sum)));
}

}  // namespace

std::uint64_t pseudo_header_sum(const Address6& source, const Address6& destination, std::uint8_t protocol,
                                std::uint32_t length) noexcept {
  std::uint64_t sum = std::uint64_t{protocol} + length;
  for (const std::uint64_t word : {source.high, source.low, destination.high, destination.low})
    sum += (word >> 32) + (word & 0xffffffff);
  return sum;
}

std::vector<std::byte> make_icmp6_error(std::uint8_t type, std::uint8_t code, std::uint32_t rest,
                                        const Address6& from, const Ipv6& about) {
  constexpr std::uint32_t largest = 1280;
  const std::uint32_t quote = std::min(about.size, largest - fixed_header - 8);
  std::vector<std::byte> octets(fixed_header + 8 + quote);
  auto* data = start_ipv6(octets, protocol::icmp6, from, about.source);
  data[fixed_header] = type;
  data[fixed_header + 1] = code;
  store32(data + fixed_header + 4, rest);
  std::copy_n(about.data, quote, data + fixed_header + 8);
  finish(data, static_cast<std::uint32_t>(octets.size()), protocol::icmp6, 2);
  return octets;
}

std::vector<std::byte> make_rst(const RstTo6& to) {
  std::vector<std::byte> octets(fixed_header + 20);
  auto* data = start_ipv6(octets, protocol::tcp, to.source, to.destination);
  std::uint8_t* tcp = data + fixed_header;
  store16(tcp, to.sport);
  store16(tcp + 2, to.dport);
  store32(tcp + 4, to.seq);
  store32(tcp + 8, to.ack);
  tcp[12] = 5 << 4;
  tcp[13] = tcp_flag::rst | tcp_flag::ack;
  finish(data, static_cast<std::uint32_t>(octets.size()), protocol::tcp, 16);
  return octets;
}

std::vector<std::byte> make_rst(const Ipv6& about) {
  std::vector<std::byte> octets(fixed_header + 20);
  auto* data = start_ipv6(octets, protocol::tcp, about.destination, about.source);
  std::uint8_t* tcp = data + fixed_header;
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
  finish(data, static_cast<std::uint32_t>(octets.size()), protocol::tcp, 16);
  return octets;
}

}  // namespace sallyport::nat::packet
