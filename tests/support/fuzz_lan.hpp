#pragma once

#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "nat/packet/checksum.hpp"
#include "nat/packet/ipv6.hpp"
#include "nat/plane/memory/memory_plane.hpp"

namespace sallyport::test {

/// A translator with TCP and UDP mappings, and pinholes in its firewall, for inputs nobody chose. Aborts where a promise
/// breaks.
class FuzzLan {
 public:
  FuzzLan() : plane_{{.secret = {1, 2}, .seed = 3}} {
    nat::NetworkView network;
    nat::PlaneInterface lan{
        .name = "lan0", .index = 2, .mtu = 1500, .up = true, .addresses = {}, .prefixes = {}};
    lan.addresses = {Address::v4(0xc0a80101)};
    lan.prefixes = {Prefix::v4(0xc0a80100, 24), *Prefix::parse("2001:db8:1::/64")};
    lan.addresses.push_back(*Address::parse("2001:db8:1::1"));
    nat::PlaneInterface wan{
        .name = "wan0", .index = 3, .mtu = 1400, .up = true, .addresses = {}, .prefixes = {}};
    wan.addresses = {Address::v4(external), *Address::parse("2001:db8:2::2")};
    network.lan = {lan};
    network.wan = {wan};
    network.external = {Address::v4(external)};
    plane_.set_network(network, now_).value();
    for (const auto transport : {Transport::tcp, Transport::udp})
      plane_
          .install({.transport = transport,
                    .internal = {Address::v4(0xc0a8010a), *Port::from(80)},
                    .suggested = Port::from(8080),
                    .insist = true},
                   now_)
          .value();
    for (const auto transport : {Transport::tcp, Transport::udp})
      plane_
          .install({.transport = transport, .internal = {*Address::parse("2001:db8:1::10"), *Port::from(80)}}, now_)
          .value();
  }

  void advance(unsigned seconds) {
    now_ += std::chrono::seconds{seconds};
    if (seconds) plane_.sweep(now_);
  }

  void pass(nat::Side side, const std::uint8_t* data, std::size_t size) {
    const auto* octets = reinterpret_cast<const std::byte*>(data);
    std::vector<std::byte> packet(octets, octets + size);
    // A right header checksum comes by chance too seldom to get anywhere.
    const bool six = size != 0 && data[0] >> 4 == 6;
    if (size >= 20 && !six) {
      auto* header = reinterpret_cast<std::uint8_t*>(packet.data());
      const std::size_t length = (header[0] & 15U) * 4;
      if (length >= 20 && length <= size) {
        nat::packet::store16(header + 10, 0);
        nat::packet::store16(header + 10, nat::packet::checksum_of(header, length));
      }
    }
    for (const auto& out : plane_.pass(std::move(packet), side, now_)) {
      const auto* header = reinterpret_cast<const std::uint8_t*>(out.octets.data());
      if (out.octets.size() < 20) std::abort();
      if (header[0] >> 4 == 6) {
        check_ipv6(out, side);
        continue;
      }
      if (nat::packet::checksum_of(header, (header[0] & 15U) * 4) != 0) std::abort();
      if (out.where == nat::Action::forward_wan && side != nat::Side::router &&
          nat::packet::load32(header + 12) != external)
        std::abort();
    }
  }

 private:
  /// Nothing unreadable is forwarded; from the LAN nothing leaves with another's source, and nothing comes in that
  /// claims to be from there.
  static void check_ipv6(const nat::MemoryPlane::Emitted& out, nat::Side side) {
    if (out.where == nat::Action::local || side == nat::Side::router) return;
    std::vector<std::byte> octets = out.octets;
    nat::packet::Ipv6 ip;
    if (nat::packet::parse(octets, false, ip) != nat::packet::Malformed::no || ip.size != octets.size()) std::abort();
    const auto inside = [](const nat::packet::Address6& address) { return address.high == 0x20010db800010000; };
    const bool own = ip.source.high == 0x20010db800020000;  // errors we made
    if (out.where == nat::Action::forward_wan && !inside(ip.source) && !own) std::abort();
    if (out.where == nat::Action::forward_lan && (!inside(ip.destination) || (side == nat::Side::wan && inside(ip.source))))
      std::abort();
  }

  static constexpr std::uint32_t external = 0xcb007102;
  TimePoint now_{std::chrono::hours{1}};
  nat::MemoryPlane plane_;
};

}  // namespace sallyport::test
