// The reader of searches and the server. The input is one datagram; it is heard twice by multicast and once by
// unicast, over IPv4 and IPv6.
#include <array>
#include <cstdlib>

#include "tests/protocols/upnp/ssdp/support.hpp"

using namespace sallyport;
using namespace sallyport::upnp;

namespace {

void must(bool promise) {
  if (!promise) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span datagram{reinterpret_cast<const std::byte*>(data), size};
  static const std::array served{ssdp::LanAddress{3, *Prefix::parse("192.168.1.1/24")},
                                 ssdp::LanAddress{3, *Prefix::parse("fe80::1/64")}};
  static const auto alice = *Address::parse("192.168.1.10");
  static const auto alice_link = *Address::parse("fe80::10");
  const auto sound = ssdp::decode_search(datagram);
  TimePoint now{std::chrono::hours{1}};
  if (!sound) {
    static ssdp::Server idle = [&] {
      ssdp::Server server{ssdp::test::igd(), {}, 1, [] { return WallTime{}; }, 1};
      server.set_served(served, now);
      while (server.poll_transmit()) {
      }
      return server;
    }();
    const auto due = idle.next_deadline();
    idle.handle_datagram(datagram, {alice, 40000, ssdp::group_v4, 3}, now);
    must(idle.waiting() == 0 && !idle.poll_transmit() && idle.next_deadline() == due);
    return 0;
  }
  must(size <= ssdp::max_search && !sound->target.empty() && sound->target.size() <= ssdp::max_target);
  ssdp::Server server{ssdp::test::igd(), {}, 1, [] { return WallTime{}; }, size};
  server.set_served(served, now);
  now += std::chrono::seconds{1};
  while (const auto due = server.next_deadline()) {
    if (*due > now) break;
    server.handle_timeout(now);
  }
  while (server.poll_transmit()) {
  }
  const std::array arrivals{
      wire::Arrival{alice, 40000, ssdp::group_v4, 3}, wire::Arrival{alice, 40000, ssdp::group_v4, 3},
      wire::Arrival{alice, 40000, *Address::parse("192.168.1.1"), 3},
      wire::Arrival{alice_link, 40000, ssdp::group_link(), 3}};
  for (const auto& arrival : arrivals) {
    server.handle_datagram(datagram, arrival, now);
    std::size_t answers = 0;
    const auto end = now + std::chrono::seconds{5};
    while (const auto due = server.next_deadline()) {
      if (*due > end) break;
      now = std::max(now, *due);
      server.handle_timeout(now);
    }
    now = end;
    while (const auto out = server.poll_transmit()) {
      const auto text = ssdp::test::text(out->bytes);
      if (text.starts_with("NOTIFY ")) continue;
      ++answers;
      must(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\n"));
      must(text.size() <= ssdp::max_message);
      must(out->to == arrival.source && out->to_port == arrival.source_port && out->interface == 3);
    }
    must(answers <= ssdp::test::whole_set);
    must(server.waiting() == 0);
  }
  return 0;
}
