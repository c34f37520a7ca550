#include "nat/engine/pairing.hpp"
#include "tests/support/nat_lan.hpp"

// Several external addresses: each host has one of them, for all it does (RFC 4787 REQ-2, RFC 6888 REQ-2).

namespace sallyport::test {
namespace {

using namespace nat;
using namespace flag;

constexpr std::array pool{"203.0.113.2", "203.0.113.3", "203.0.113.4"};

Pairing pairing_of(std::initializer_list<const char*> addresses) {
  std::vector<std::uint32_t> numbers;
  for (const char* address : addresses) numbers.push_back(ip(address));
  Pairing pairing;
  pairing.set(numbers);
  return pairing;
}

class AddressesTest : public NatLan {
 protected:
  AddressesTest()
      : NatLan(nat::EngineOptions{
            .secret = {0x0123456789abcdef, 0xfedcba9876543210}, .seed = 7, .addresses = 3}) {
    network.external_pool = true;
    use({pool[0], pool[1], pool[2]});
    set_network();
    const auto pairing = pairing_of({pool[0], pool[1], pool[2]});
    for (std::uint32_t i = 10; i < 250; ++i) {
      auto& host = hosts[ip(pool[0]) == pairing.address(pairing.of(host_number(i)))   ? 0
                         : ip(pool[1]) == pairing.address(pairing.of(host_number(i))) ? 1
                                                                                      : 2];
      host.push_back("192.168.1." + std::to_string(i));
    }
  }
  static std::uint32_t host_number(std::uint32_t last) { return ip("192.168.1.0") + last; }
  /// The n-th host of an address of the pool.
  const char* of(std::size_t address, std::size_t n = 0) const { return hosts[address][n].c_str(); }
  void use(std::vector<const char*> addresses) {
    network.external.clear();
    for (const char* address : addresses) network.external.push_back(Address::v4(ip(address)));
    network.wan.front().addresses = network.external;
  }
  static std::string source(const Octets& octets) { return Address::v4(get32(octets, 12)).to_string(); }

  std::array<std::vector<std::string>, 3> hosts;
};

TEST_F(AddressesTest, AllThatAHostSendsLeavesFromItsAddress) {  // N4787-02, N6888-02
  for (std::size_t i = 0; i < pool.size(); ++i) {
    for (unsigned port_number = 5000; port_number < 5020; ++port_number)
      EXPECT_EQ(source(leaves(udp(of(i), port_number, server, 53))), pool[i]);
    EXPECT_EQ(source(leaves(tcp(of(i), 5000, server, 80, syn))), pool[i]);
    EXPECT_EQ(source(leaves(echo(of(i), server, 77))), pool[i]);
    EXPECT_EQ(plane.external_for(Address::v4(ip(of(i)))), Address::v4(ip(pool[i])));
  }
}

TEST_F(AddressesTest, EachAddressHasAllPorts) {
  for (std::size_t i = 0; i < pool.size(); ++i) {
    EXPECT_EQ(source_port(leaves(udp(of(i), 5000, server, 53))), 5000);
    EXPECT_EQ(from_wan(udp(server, 53, pool[i], 5000)),
              "lan: udp 198.51.100.7:53 > " + std::string{of(i)} + ":5000 ttl=63");
    EXPECT_EQ(from_wan(echo_reply(server, pool[i], 77)).substr(0, 8), "dropped:");
    leaves(echo(of(i), server, 77));
    EXPECT_EQ(from_wan(echo_reply(server, pool[i], 77)).substr(0, 4), "lan:");
  }
  EXPECT_NE(source_port(leaves(udp(of(0, 1), 5000, server, 53))), 5000);
  EXPECT_EQ(plane.implicit_mappings(now).size(), 4U);
}

TEST_F(AddressesTest, ALeaseIsOfItsDevicesAddress) {  // PCP-11.3-13
  for (std::size_t i = 0; i < pool.size(); ++i) {
    const auto installed = open(Transport::tcp, of(i), 80, 8080);
    EXPECT_EQ(installed.external.address, Address::v4(ip(pool[i])));
    EXPECT_EQ(from_wan(tcp(server, 999, pool[i], 8080, syn)),
              "lan: tcp 198.51.100.7:999 > " + std::string{of(i)} + ":80 S ttl=63");
  }
  EXPECT_EQ(install(wish(Transport::tcp, of(0, 1), 80, 8080)).error(), PlaneErrc::port_taken);
  EXPECT_TRUE(plane.held_until(Transport::tcp, Address::v4(ip(of(0, 1))), port(8080), now));
  EXPECT_EQ(from_wan(tcp(server, 999, "203.0.113.5", 8080, syn)), "dropped: not_ours");
}

TEST_F(AddressesTest, TheTwinPortOfTheOtherTransportIsKeptClearOnTheSameAddressOnly) {
  open(Transport::tcp, of(0), 80, 5000);
  EXPECT_NE(source_port(leaves(udp(of(0, 1), 5000, server, 53))), 5000);
  EXPECT_EQ(source_port(leaves(udp(of(1), 5000, server, 53))), 5000);
}

TEST_F(AddressesTest, HostsOfDifferentAddressesMeetByThem) {  // hairpin, N4787-30
  open(Transport::udp, of(1), 7000, 7000);
  const auto there = pass(udp(of(0), 5000, pool[1], 7000), Side::lan);
  ASSERT_EQ(there.size(), 1U) << tell(there);
  EXPECT_EQ(tell(there), "lan: udp 203.0.113.2:5000 > " + std::string{of(1)} + ":7000 ttl=63");
  EXPECT_EQ(from_lan(udp(of(1), 7000, pool[0], 5000)),
            "lan: udp 203.0.113.3:7000 > " + std::string{of(0)} + ":5000 ttl=63");
  EXPECT_EQ(from_lan(udp(of(2), 5000, pool[0], 7000)), "dropped: no_mapping");
  // the error of the one about a packet of the other
  const auto back = pass(icmp_error(of(1), pool[0], 3, 3, there[0].octets, 1500), Side::lan);
  ASSERT_EQ(back.size(), 1U);
  EXPECT_EQ(tell(back).substr(0, 4), "lan:");
  EXPECT_EQ(source(back[0].octets), pool[1]);
  EXPECT_EQ(Address::v4(get32(back[0].octets, 16)).to_string(), of(0));
}

TEST_F(AddressesTest, TcpIsCarriedAroundBothWays) {
  open(Transport::tcp, of(1), 80, 8080);
  EXPECT_EQ(from_lan(tcp(of(0), 5000, pool[1], 8080, syn).seq(1)),
            "lan: tcp 203.0.113.2:5000 > " + std::string{of(1)} + ":80 S ttl=63");
  EXPECT_EQ(from_lan(tcp(of(1), 80, pool[0], 5000, syn | ack).seq(9).ack(2)).substr(0, 27),
            "lan: tcp 203.0.113.3:8080 >");
}

TEST_F(AddressesTest, ErrorsFindTheHostByTheAddress) {
  const Octets left = leaves(udp(of(1), 5000, server, 53));
  const auto got = arrives(icmp_error(other_server, pool[1], 3, 1, left));
  EXPECT_EQ(Address::v4(get32(got, 16)).to_string(), of(1));
  EXPECT_EQ(from_wan(icmp_error(other_server, pool[0], 3, 1, left)), "dropped: icmp_fits_nothing");
  const Octets in = arrives(udp(server, 53, pool[1], 5000));
  const auto out = pass(icmp_error(of(1), server, 3, 3, in), Side::lan);
  ASSERT_EQ(out.size(), 1U) << tell(out);
  EXPECT_EQ(source(out[0].octets), pool[1]);
}

TEST_F(AddressesTest, FragmentsFollowTheFirst) {
  check_transport = false;
  const Octets whole = udp(of(2), 5000, server, 53).dont_fragment(false).payload(std::string(400, 'x'));
  for (const auto& part : fragments_of(whole, {96, 96, 96})) EXPECT_EQ(source(leaves(part)), pool[2]);
  const Octets answer = udp(server, 53, pool[2], 5000).dont_fragment(false).payload(std::string(400, 'x'));
  for (const auto& part : fragments_of(answer, {96, 96, 96}))
    EXPECT_EQ(Address::v4(get32(arrives(part), 16)).to_string(), of(2));
}

TEST_F(AddressesTest, NoneOfThemIsASourceOutside) {  // NSEC-03
  open(Transport::udp, of(1), 7000, 7000);
  ASSERT_EQ(from_lan(udp(of(0), 5000, pool[1], 7000)).substr(0, 4), "lan:");
  EXPECT_EQ(from_wan(udp(pool[1], 7000, pool[0], 5000)), "dropped: martian_source") << "there is such a flow";
  for (const char* address : pool)
    EXPECT_EQ(from_wan(udp(address, 53, pool[0], 7000)), "dropped: martian_source");
}

TEST_F(AddressesTest, ASessionThatIsResetIsToldFromItsAddress) {  // NMAP-09
  const auto installed = open(Transport::tcp, of(1), 80, 8080);
  ASSERT_NE(from_wan(tcp(server, 999, pool[1], 8080, syn).seq(5000)).substr(0, 7), "dropped");
  from_lan(tcp(of(1), 80, server, 999, syn | ack).seq(1000).ack(5001));
  from_wan(tcp(server, 999, pool[1], 8080, ack).seq(5001).ack(1001));
  plane.withdraw(installed.id, Ending::reset, now);
  const auto made = plane.take_made();
  ASSERT_EQ(made.size(), 2U);
  EXPECT_EQ(source(made[1].octets), pool[1]);
}

TEST_F(AddressesTest, TheGatewaysOwnPingsComeBackByEachAddress) {
  for (const char* address : pool) {
    EXPECT_EQ(source(pass(echo(address, server, 77), Side::router).at(0).octets), address);
    EXPECT_EQ(from_wan(echo_reply(server, address, 77)).substr(0, 6), "local:");
  }
}

TEST_F(AddressesTest, OnlyHostsWhoseAddressGoesLoseAnything) {  // N6888-02, NMAP-11
  for (std::size_t i = 0; i < pool.size(); ++i) leaves(udp(of(i), 5000, server, 53));
  const auto moved = open(Transport::udp, of(2), 7000, 7000), stays = open(Transport::udp, of(0), 7000, 7000);
  use({pool[0], pool[1]});
  set_network();
  EXPECT_EQ(from_wan(udp(server, 53, pool[0], 5000)),
            "lan: udp 198.51.100.7:53 > " + std::string{of(0)} + ":5000 ttl=63");
  EXPECT_EQ(from_wan(udp(server, 53, pool[1], 5000)),
            "lan: udp 198.51.100.7:53 > " + std::string{of(1)} + ":5000 ttl=63");
  EXPECT_TRUE(plane.renew(stays.id, now + 1h));

  const auto next = pairing_of({pool[0], pool[1]});
  // A port that two hosts would have on one address stays with who was there before.
  const bool meets = next.address(next.of(ip(of(2)))) == ip(pool[0]);
  EXPECT_EQ(plane.renew(moved.id, now + 1h).has_value(), !meets);
}

TEST_F(AddressesTest, WhoHasAnAddressThatWasOursIsAStranger) {  // NAT-X-07
  open(Transport::udp, of(2), 7000, 7000);
  EXPECT_EQ(from_lan(udp(of(0), 5000, pool[2], 7000)).substr(0, 4), "lan:");
  use({pool[0], pool[1]});
  set_network();
  EXPECT_EQ(from_wan(udp(pool[2], 7000, pool[0], 5000)).substr(0, 8), "dropped:");
}

TEST_F(AddressesTest, ALeaseMovesWithItsPort) {  // NMAP-11
  const auto moved = open(Transport::udp, of(2), 7000, 7001);
  leaves(udp(of(2), 7000, server, 53));
  use({pool[0], pool[1]});
  set_network();
  const auto now_at = plane.external_for(Address::v4(ip(of(2))));
  ASSERT_TRUE(now_at);
  EXPECT_TRUE(plane.renew(moved.id, now + 1h));
  EXPECT_EQ(from_wan(udp(server, 53, now_at->to_string().c_str(), 7001)),
            "lan: udp 198.51.100.7:53 > " + std::string{of(2)} + ":7000 ttl=63");
  EXPECT_EQ(from_wan(udp(server, 53, pool[2], 7001)), "dropped: not_ours");
  EXPECT_EQ(source_port(leaves(udp(of(2), 7000, server, 53))), 7001);
  EXPECT_EQ(source(leaves(udp(of(2), 7000, server, 53))), now_at->to_string());

  use({pool[0], pool[1], pool[2]});
  set_network();
  EXPECT_EQ(from_wan(udp(server, 53, pool[2], 7001)),
            "lan: udp 198.51.100.7:53 > " + std::string{of(2)} + ":7000 ttl=63");
  EXPECT_EQ(from_wan(udp(server, 53, now_at->to_string().c_str(), 7001)), "dropped: no_mapping");
}

TEST_F(AddressesTest, AnAddressThatTakesTheOthersPlaceHasNothingOfIt) {
  leaves(udp(of(2), 5000, server, 53));
  use({pool[0], pool[1], "203.0.113.9"});
  set_network();
  EXPECT_EQ(from_wan(udp(server, 53, "203.0.113.9", 5000)), "dropped: no_mapping");
  EXPECT_EQ(from_wan(udp(server, 53, pool[2], 5000)), "dropped: not_ours");
}

TEST_F(AddressesTest, WithoutAnyTheLeasesWaitForThemToComeBack) {
  open(Transport::udp, of(1), 7000, 7000);
  network.external.clear();
  set_network();
  EXPECT_FALSE(plane.external_for(Address::v4(ip(of(1)))));
  EXPECT_EQ(from_lan(udp(of(1), 5000, server, 53)), "dropped: no_external_address");
  use({pool[0], pool[1], pool[2]});
  set_network();
  EXPECT_EQ(from_wan(udp(server, 53, pool[1], 7000)),
            "lan: udp 198.51.100.7:53 > " + std::string{of(1)} + ":7000 ttl=63");
}

TEST_F(AddressesTest, WhatThereIsNoRoomForIsSaid) {
  use({pool[0], pool[1], pool[2], "203.0.113.5"});
  set_network();
  const auto warnings = plane.status().warnings;
  ASSERT_EQ(warnings.size(), 1U);
  EXPECT_NE(warnings[0].find("1 of the external addresses"), std::string::npos) << warnings[0];
  for (std::size_t i = 0; i < pool.size(); ++i)
    EXPECT_EQ(source(leaves(udp(of(i), 5000, server, 53))), pool[i]);
}

TEST_F(AddressesTest, WithoutAPoolTheFirstIsEverybodys) {
  network.external_pool = false;
  set_network();
  for (std::size_t i = 0; i < pool.size(); ++i)
    EXPECT_EQ(source(leaves(udp(of(i), 5000 + static_cast<unsigned>(i), server, 53))), pool[0]);
  EXPECT_EQ(from_wan(udp(server, 53, pool[1], 5000)), "local: udp 198.51.100.7:53 > 203.0.113.3:5000 ttl=64");
}

TEST_F(AddressesTest, AnAddressThatNoInterfaceHasAnswersPings) {
  network.wan.front().addresses = {Address::v4(ip(pool[0]))};
  set_network();
  EXPECT_EQ(from_wan(echo(server, pool[0], 9)).substr(0, 6), "local:");
  EXPECT_EQ(from_wan(echo(server, pool[1], 9)), "wan: icmp 0/0 id=9 203.0.113.3 > 198.51.100.7 ttl=64");
  EXPECT_EQ(from_lan(echo(of(0), pool[1], 9)).substr(0, 35), "lan: icmp 0/0 id=9 203.0.113.3 > 19");
  plane.listen(Transport::udp, 4000);
  EXPECT_EQ(from_wan(udp(server, 53, pool[0], 4000)).substr(0, 6), "local:");
  EXPECT_EQ(from_wan(udp(server, 53, pool[1], 4000)), "dropped: no_mapping");
  plane.close(Transport::udp, 4000);
  policy.answer_ping = false;
  set_policy();
  EXPECT_EQ(from_wan(echo(server, pool[1], 9)), "dropped: ping_refused");
}

}  // namespace
}  // namespace sallyport::test
