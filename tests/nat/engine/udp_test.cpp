#include "tests/support/nat_lan.hpp"

// RFC 4787, as updated by RFC 7857.

namespace sallyport::test {
namespace {

class UdpTest : public NatLan {};

TEST_F(UdpTest, EveryRemoteSeesTheSameExternalEndpoint) {  // N4787-01
  EXPECT_EQ(from_lan(udp(alice, 5000, server, 53)), "wan: udp 203.0.113.2:5000 > 198.51.100.7:53 ttl=63");
  EXPECT_EQ(from_lan(udp(alice, 5000, other_server, 53)),
            "wan: udp 203.0.113.2:5000 > 198.51.100.8:53 ttl=63");
  EXPECT_EQ(from_lan(udp(alice, 5000, server, 54)), "wan: udp 203.0.113.2:5000 > 198.51.100.7:54 ttl=63");
}

TEST_F(UdpTest, TwoHostsWithOneSourcePortGetTwoPorts) {  // N4787-03, -29
  EXPECT_EQ(source_port(leaves(udp(alice, 5000, server, 53))), 5000);
  const auto second = source_port(leaves(udp(bob, 5000, server, 53)));
  EXPECT_NE(second, 5000);
  EXPECT_EQ(source_port(leaves(udp(bob, 5000, other_server, 53))), second);
  EXPECT_EQ(from_wan(udp(server, 53, external_address, second)),
            "lan: udp 198.51.100.7:53 > 192.168.1.11:5000 ttl=63");
}

TEST_F(UdpTest, AnotherPortIsOfThePoolAndNotTheNextOne) {  // N4787-28, N6056-01, -02, -04
  leaves(udp(alice, 5000, server, 53));
  std::set<std::uint16_t> ports;
  for (unsigned host = 20; host < 40; ++host) {
    const auto external = source_port(leaves(udp("192.168.1." + std::to_string(host), 5000, server, 53)));
    EXPECT_GE(external, 1024);
    EXPECT_LE(external, 60999);
    ports.insert(external);
  }
  EXPECT_EQ(ports.size(), 20U);
  EXPECT_GT(*ports.rbegin() - *ports.begin(), 10000);
}

TEST_F(UdpTest, APortIsNeverKeptWhereThatIsConfigured) {  // NAT-X-02
  policy.random_ports = true;
  set_policy();
  unsigned kept = 0;
  for (unsigned i = 0; i < 20; ++i) kept += source_port(leaves(udp(alice, 5000 + i, server, 53))) == 5000 + i;
  EXPECT_LE(kept, 1U) << "each by a chance of one in 60,000";
}

TEST_F(UdpTest, ALowSourcePortMapsIntoThePool) {  // N4787-04: a stated deviation
  EXPECT_GE(source_port(leaves(udp(alice, 123, server, 123))), 1024);
}

TEST_F(UdpTest, TheMappingLivesForItsIdleTimeAndNotFarBeyond) {  // N4787-06, -08
  leaves(udp(alice, 5000, server, 53));
  wait(300s);
  EXPECT_EQ(from_wan(udp(server, 53, external_address, 5000)),
            "lan: udp 198.51.100.7:53 > 192.168.1.10:5000 ttl=63");
  wait(303s);
  EXPECT_EQ(from_wan(udp(server, 53, external_address, 5000)), "dropped: no_mapping");
}

TEST_F(UdpTest, OutboundRefreshesAndSoDoesInboundOfASessionFromInside) {  // N4787-09, -10
  leaves(udp(alice, 5000, server, 53));
  for (int i = 0; i < 5; ++i) {
    wait(200s);
    leaves(udp(alice, 5000, server, 53));
  }
  for (int i = 0; i < 5; ++i) {
    wait(200s);
    arrives(udp(server, 53, external_address, 5000));
  }
  EXPECT_EQ(source_port(leaves(udp(alice, 5000, server, 53))), 5000);
}

TEST_F(UdpTest, AnOutsiderCannotHoldAMappingOpen) {  // N4787-10, NAT-X-08
  leaves(udp(alice, 5000, server, 53));
  for (int i = 0; i < 3; ++i) {
    wait(100s);
    from_wan(udp(server, 999, external_address, 5000));  // the address is known, this port is not
  }
  wait(3s);
  EXPECT_EQ(from_wan(udp(server, 53, external_address, 5000)), "dropped: no_mapping");
}

TEST_F(UdpTest, ImplicitMappingsFilterByAddress) {  // N4787-13, POL-NET-16
  leaves(udp(alice, 5000, server, 53));
  EXPECT_EQ(from_wan(udp(server, 999, external_address, 5000)),
            "lan: udp 198.51.100.7:999 > 192.168.1.10:5000 ttl=63");
  EXPECT_EQ(from_wan(udp(other_server, 53, external_address, 5000)), "dropped: filtered");
}

TEST_F(UdpTest, FilteringIsAChoice) {  // N4787-14
  leaves(udp(alice, 5000, server, 53));
  policy.implicit = nat::Filtering::endpoint;
  set_policy();
  EXPECT_EQ(from_wan(udp(other_server, 53, external_address, 5000)),
            "lan: udp 198.51.100.8:53 > 192.168.1.10:5000 ttl=63");
  policy.implicit = nat::Filtering::address_and_port;
  set_policy();
  EXPECT_EQ(from_wan(udp(server, 999, external_address, 5000)), "dropped: filtered");
  EXPECT_EQ(from_wan(udp(server, 53, external_address, 5000)),
            "lan: udp 198.51.100.7:53 > 192.168.1.10:5000 ttl=63");
}

TEST_F(UdpTest, AChecksumOfZeroStaysZero) {  // N4787-30, NPKT-02
  const auto out = leaves(udp(alice, 5000, server, 53).no_checksum());
  EXPECT_EQ(get16(out, 26), 0);
}

TEST_F(UdpTest, AComputedChecksumOfZeroIsSentAsAllOnes) {  // N4787-30, NPKT-02
  // Two octets of payload run through all values: one of them brings the sum to zero.
  int seen = 0;
  for (unsigned value = 0; value < 65536; ++value) {
    const Octets payload{static_cast<std::byte>(value >> 8), static_cast<std::byte>(value & 255)};
    const auto out = leaves(udp(alice, 5000, server, 53).payload(payload));
    ASSERT_NE(get16(out, 26), 0);
    seen += get16(out, 26) == 0xffff;
  }
  EXPECT_EQ(seen, 1);
}

TEST_F(UdpTest, WithoutMappingThereIsSilence) {  // N4787-31
  EXPECT_EQ(from_wan(udp(server, 53, external_address, 5000)), "dropped: no_mapping");
}

TEST_F(UdpTest, UdpDecidesNothingAboutTcp) {  // N4787-26, -27, NMAP-07
  leaves(udp(alice, 5000, server, 53));
  EXPECT_EQ(from_wan(tcp(server, 53, external_address, 5000, flag::syn)), "dropped: no_mapping");
  EXPECT_EQ(from_lan(tcp(bob, 5000, server, 53, flag::syn)),
            "wan: tcp 203.0.113.2:5000 > 198.51.100.7:53 S ttl=63");
}

TEST_F(UdpTest, TheTtlFallsAndItsEndIsToldToTheSender) {  // N4787-32
  EXPECT_EQ(from_lan(udp(alice, 5000, server, 53).ttl(1)),
            "lan: icmp 11/0 id=0 192.168.1.1 > 192.168.1.10 ttl=64");
  leaves(udp(alice, 5000, server, 53));
  const auto out = pass(udp(server, 53, external_address, 5000).ttl(1), nat::Side::wan);
  ASSERT_EQ(tell(out), "wan: icmp 11/0 id=0 203.0.113.2 > 198.51.100.7 ttl=64");
  // untranslated, as its sender knows it
  EXPECT_EQ(get32(out[0].octets, 28 + 16), ip(external_address));
}

TEST_F(UdpTest, TheHeaderChecksumIsRightWithOptionsToo) {  // N4787-33
  const Octets record_route{std::byte{7}, std::byte{7}, std::byte{4}, {}, {}, {}, {}, std::byte{0}};
  EXPECT_EQ(from_lan(udp(alice, 5000, server, 53).options(record_route)),
            "wan: udp 203.0.113.2:5000 > 198.51.100.7:53 ttl=63");
}

// Exactly what a full computation gives: RFC 1141's form has 0xffff where that has 0.
TEST_F(UdpTest, TheHeaderChecksumIsExactAtItsCorners) {  // NPKT-01, NPKT-03
  const auto without_id = [](Octets packet) {
    put16(packet, 4, 0);
    set_ip_checksum(packet);
    return get16(packet, 10);  // with just that for an ID the checksum is 0
  };
  const auto look = [&](auto&& builder, auto&& pass) {
    const Octets before = builder(), after = pass(before);
    Octets hop_later = before;
    --reinterpret_cast<std::uint8_t&>(hop_later[8]);
    for (const unsigned corner : {without_id(before), without_id(hop_later), without_id(after)})
      for (const unsigned id : {corner - 1, corner, corner + 1, corner ^ 0xffff}) {
        const Octets out = pass(builder().id(id & 0xffff));
        Octets right = out;
        set_ip_checksum(right);
        EXPECT_EQ(get16(out, 10), get16(right, 10)) << "ID " << (id & 0xffff);
        if (corner == without_id(after) && id == corner) {
          EXPECT_EQ(get16(out, 10), 0);
        }
      }
  };
  const auto outwards = [&](const Octets& packet) { return leaves(packet); };
  const auto inwards = [&](const Octets& packet) { return arrives(packet); };
  look([] { return udp(alice, 5000, server, 53); }, outwards);
  look([] { return udp(server, 53, external_address, 5000); }, inwards);
}

TEST_F(UdpTest, DscpAndEcnPass) {  // N4787-34
  EXPECT_EQ(leaves(udp(alice, 5000, server, 53).tos(0xbb))[1], std::byte{0xbb});
}

TEST_F(UdpTest, UdpLiteIsRefusedToItsSender) {  // N4787-35
  EXPECT_EQ(from_lan(make_ip(136, alice, server).payload("x")),
            "lan: icmp 3/2 id=0 192.168.1.1 > 192.168.1.10 ttl=64");
}

TEST_F(UdpTest, AWrongChecksumStaysWrong) {  // NPKT-03
  check_transport = false;
  const auto out = leaves(udp(alice, 5000, server, 53).bad_checksum());
  EXPECT_FALSE(transport_checksum_is_right(out));
}

TEST_F(UdpTest, HairpinWearsTheExternalSource) {  // N4787-15, -16
  leaves(udp(alice, 5000, server, 53));
  open(Transport::udp, bob, 6000, 7000);
  EXPECT_EQ(from_lan(udp(alice, 5000, external_address, 7000)),
            "lan: udp 203.0.113.2:5000 > 192.168.1.11:6000 ttl=63");
  EXPECT_EQ(from_lan(udp(bob, 6000, external_address, 5000)),
            "lan: udp 203.0.113.2:7000 > 192.168.1.10:5000 ttl=63");
}

}  // namespace
}  // namespace sallyport::test
