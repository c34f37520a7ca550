#pragma once

#include <functional>
#include <string>
#include <vector>

#include "nat/plane/data_plane.hpp"
#include "tests/support/packet_builder.hpp"

/// One table of packets for every plane: what goes in, and what must come out, TTL and IPv4 ID aside (the
/// stack may forward once more). Rows build on the ones before them: each starts with what those left behind.
///
/// The gateway: LAN 192.168.1.0/24 with 192.168.1.1, external address 203.0.113.2, answers pings, and has two
/// leases: tcp and udp 8080 to 192.168.1.10 port 80.
namespace sallyport::test {

enum class From { lan, wan };

struct NatRow {
  const char* says;
  From from;
  Octets in;
  const char*
      out;  ///< as summary() writes it, with where it goes; "" when nothing may come out on LAN or WAN
};

/// describe() without what planes may differ in.
inline std::string summary(const Octets& packet) {
  std::string text = describe(packet);
  return text.substr(0, text.find(" ttl="));
}

inline std::vector<nat::MappingSpec> nat_table_mappings() {
  std::vector<nat::MappingSpec> specs;
  for (const Transport transport : {Transport::tcp, Transport::udp})
    specs.push_back({.transport = transport,
                     .internal = {Address::v4(ip("192.168.1.10")), *Port::from(80)},
                     .suggested = Port::from(8080),
                     .insist = true});
  return specs;
}

inline const std::vector<NatRow>& nat_table() {
  using namespace flag;
  constexpr const char* host = "192.168.1.10";
  constexpr const char* other = "192.168.1.11";
  constexpr const char* external = "203.0.113.2";
  constexpr const char* far = "198.51.100.7";
  constexpr const char* elsewhere = "198.51.100.8";
  static const std::vector<NatRow> rows{
      {"UDP leaves with the external address and keeps its port", From::lan, udp(host, 5000, far, 53),
       "wan: udp 203.0.113.2:5000 > 198.51.100.7:53"},
      {"to another remote with the same one", From::lan, udp(host, 5000, elsewhere, 53),
       "wan: udp 203.0.113.2:5000 > 198.51.100.8:53"},
      {"its answer comes back", From::wan, udp(far, 53, external, 5000),
       "lan: udp 198.51.100.7:53 > 192.168.1.10:5000"},
      {"another port of that address too", From::wan, udp(far, 99, external, 5000),
       "lan: udp 198.51.100.7:99 > 192.168.1.10:5000"},
      {"a stranger does not", From::wan, udp("198.51.100.9", 53, external, 5000), ""},
      {"nor anybody to a free port", From::wan, udp(far, 53, external, 5999), ""},
      {"TCP begins with a SYN", From::lan, tcp(host, 5000, far, 80, syn).seq(1000),
       "wan: tcp 203.0.113.2:5000 > 198.51.100.7:80 S"},
      {"goes on with its answer", From::wan, tcp(far, 80, external, 5000, syn).seq(5000).ack(1001),
       "lan: tcp 198.51.100.7:80 > 192.168.1.10:5000 SA"},
      {"and is established", From::lan, tcp(host, 5000, far, 80, 0).seq(1001).ack(5001).payload("GET"),
       "wan: tcp 203.0.113.2:5000 > 198.51.100.7:80 A"},
      {"a RST outside the window is dropped", From::wan, tcp(far, 80, external, 5000, rst).seq(77), ""},
      {"data without a session goes nowhere", From::lan, tcp(other, 5001, far, 80, 0).ack(1), ""},
      {"a lease lets strangers in by TCP", From::wan, tcp(elsewhere, 999, external, 8080, syn).seq(5000),
       "lan: tcp 198.51.100.8:999 > 192.168.1.10:80 S"},
      {"and its answer wears the leased port", From::lan, tcp(host, 80, elsewhere, 999, syn).seq(1).ack(5001),
       "wan: tcp 203.0.113.2:8080 > 198.51.100.8:999 SA"},
      {"without a SYN nothing begins", From::wan, tcp(far, 999, external, 8080, 0).ack(1), ""},
      {"it lets strangers in by UDP", From::wan, udp(elsewhere, 53, external, 8080),
       "lan: udp 198.51.100.8:53 > 192.168.1.10:80"},
      {"outbound from its endpoint wears its port", From::lan, udp(host, 80, far, 9),
       "wan: udp 203.0.113.2:8080 > 198.51.100.7:9"},
      {"hairpin reaches it with the external source", From::lan, udp(other, 6000, external, 8080),
       "lan: udp 203.0.113.2:6000 > 192.168.1.10:80"},
      {"and so does the way back", From::lan, udp(host, 80, external, 6000),
       "lan: udp 203.0.113.2:8080 > 192.168.1.11:6000"},
      {"hairpin reaches mappings only", From::lan, udp(other, 6000, external, 5351), ""},
      {"an echo leaves", From::lan, echo(host, far, 77), "wan: icmp 8/0 id=77 203.0.113.2 > 198.51.100.7"},
      {"and its reply returns", From::wan, echo_reply(far, external, 77),
       "lan: icmp 0/0 id=77 198.51.100.7 > 192.168.1.10"},
      {"an error about a flow reaches its host", From::wan,
       icmp_error(elsewhere, external, 3, 1, udp(external, 5000, far, 53)),
       "lan: icmp 3/1 id=0 198.51.100.8 > 192.168.1.10"},
      {"one about nothing does not", From::wan,
       icmp_error(elsewhere, external, 3, 1, udp(external, 5000, far, 54)), ""},
      {"a redirect never does", From::wan,
       icmp_error(elsewhere, external, 5, 1, udp(external, 5000, far, 53)), ""},
      {"a host's error leaves with the external address", From::lan,
       icmp_error(host, far, 3, 3, udp(far, 53, host, 5000)),
       "wan: icmp 3/3 id=0 203.0.113.2 > 198.51.100.7"},
      {"source routes are dropped", From::lan,
       udp(host, 5000, far, 53)
           .options({std::byte{131}, std::byte{7}, std::byte{4}, {}, {}, {}, {}, std::byte{0}}),
       ""},
      {"nobody writes to internal addresses from outside", From::wan, udp(far, 53, host, 5000), ""},
      {"nor as if from inside", From::wan, udp(other, 53, external, 8080), ""},
      {"nor as the gateway itself", From::wan, udp(external, 53, external, 8080), ""},
      {"nor from the LAN as somebody else", From::lan, udp("10.9.9.9", 5000, far, 53), ""},
      {"nonsense flags are dropped", From::wan, tcp(far, 80, external, 8080, syn | fin), ""},
  };
  return rows;
}

}  // namespace sallyport::test
