#include "tests/support/nat_lan.hpp"

#include <deque>
#include <set>

// Explicit mappings and the data path: nat.md section 6, policy.md sections 2, 3 and 12.

namespace sallyport::test {
namespace {

using namespace flag;
using nat::Ending;
using nat::PlaneErrc;

class MappingTest : public NatLan {
 protected:
  void connect_inbound(unsigned external = 8080, unsigned internal = 80) {
    EXPECT_EQ(
        plane.pass(tcp(server, 999, external_address, external, syn).seq(5000), nat::Side::wan, now).size(),
        1U);
    EXPECT_EQ(
        plane.pass(tcp(alice, internal, server, 999, syn).seq(1000).ack(5001), nat::Side::lan, now).size(),
        1U);
    EXPECT_EQ(
        plane.pass(tcp(server, 999, external_address, external, 0).seq(5001).ack(1001), nat::Side::wan, now)
            .size(),
        1U);
  }
};

TEST_F(MappingTest, InboundReachesTheHostAndKeepsItsSource) {  // NMAP-01, -03
  open(Transport::udp, alice, 6000, 7000);
  EXPECT_EQ(from_wan(udp(server, 53, external_address, 7000)),
            "lan: udp 198.51.100.7:53 > 192.168.1.10:6000 ttl=63");
  EXPECT_EQ(from_wan(udp(other_server, 99, external_address, 7000)),
            "lan: udp 198.51.100.8:99 > 192.168.1.10:6000 ttl=63");
}

TEST_F(MappingTest, OutboundWearsItsPortFromTheFirstPacketOn) {  // NMAP-02
  open(Transport::udp, alice, 6000, 7000);
  EXPECT_EQ(from_lan(udp(alice, 6000, server, 53)), "wan: udp 203.0.113.2:7000 > 198.51.100.7:53 ttl=63");
  open(Transport::tcp, alice, 6000, 7000);
  EXPECT_EQ(from_lan(tcp(alice, 6000, server, 53, syn)),
            "wan: tcp 203.0.113.2:7000 > 198.51.100.7:53 S ttl=63");
}

TEST_F(MappingTest, OneTransportOpensNoOther) {  // NMAP-07
  open(Transport::udp, alice, 6000, 7000);
  EXPECT_EQ(from_wan(tcp(server, 53, external_address, 7000, syn)), "dropped: no_mapping");
}

TEST_F(MappingTest, ExpiryIsExactAndNeverEarly) {  // NMAP-04, -05
  auto spec = wish(Transport::udp, alice, 6000, 7000);
  spec.deadline = now + 100500ms;
  ASSERT_TRUE(install(spec));
  wait(100499ms);
  EXPECT_NE(from_wan(udp(server, 53, external_address, 7000)), "dropped: no_mapping");
  wait(1ms);
  EXPECT_EQ(from_wan(udp(server, 53, external_address, 7000)), "dropped: no_mapping");
}

TEST_F(MappingTest, ExpiryEndsLiveFlowsToo) {  // NMAP-04
  auto spec = wish(Transport::tcp, alice, 80, 8080);
  spec.deadline = now + 100s;
  ASSERT_TRUE(install(spec));
  connect_inbound();
  live(102s);
  EXPECT_NE(from_wan(tcp(server, 999, external_address, 8080, 0).seq(5001).ack(1001)).find("R"),
            std::string::npos);
  EXPECT_EQ(from_lan(udp(alice, 80, server, 999)).substr(0, 4), "wan:");
}

TEST_F(MappingTest, RenewalMovesTheDeadline) {
  auto spec = wish(Transport::udp, alice, 6000, 7000);
  spec.deadline = now + 100s;
  const auto installed = install(spec);
  ASSERT_TRUE(installed);
  wait(50s);
  ASSERT_TRUE(plane.renew(installed->id, now + 100s));
  wait(99s);
  EXPECT_NE(from_wan(udp(server, 53, external_address, 7000)), "dropped: no_mapping");
}

TEST_F(MappingTest, ItOutlivesIdleTimersForItsLease) {  // NMAP-08
  open(Transport::tcp, alice, 80, 8080);
  open(Transport::udp, alice, 80, 8080);
  live(3h);
  connect_inbound();
  EXPECT_EQ(from_wan(udp(server, 53, external_address, 8080)),
            "lan: udp 198.51.100.7:53 > 192.168.1.10:80 ttl=63");
}

TEST_F(MappingTest, OnlyASynOpensASessionOfIt) {  // N5382-23
  open(Transport::tcp, alice, 80, 8080);
  EXPECT_EQ(from_wan(tcp(server, 999, external_address, 8080, 0).ack(1)), "dropped: no_session");
  EXPECT_EQ(from_wan(tcp(server, 999, external_address, 8080, rst)), "dropped: no_session");
  EXPECT_EQ(from_wan(tcp(server, 999, external_address, 8080, syn)),
            "lan: tcp 198.51.100.7:999 > 192.168.1.10:80 S ttl=63");
}

TEST_F(MappingTest, AnInboundConnectionLivesAsLongAsOneFromInside) {  // N5382-02, -10
  open(Transport::tcp, alice, 80, 8080);
  connect_inbound();
  live(7440s);
  EXPECT_EQ(from_wan(tcp(server, 999, external_address, 8080, 0).seq(5001).ack(1001)),
            "lan: tcp 198.51.100.7:999 > 192.168.1.10:80 A ttl=63");
}

TEST_F(MappingTest, AResetTellsBothEndsAtOnce) {  // NMAP-09: an end that is silent would never hear of it
  const auto installed = open(Transport::tcp, alice, 80, 8080);
  connect_inbound();
  plane.withdraw(installed.id, Ending::reset, now);
  const auto made = plane.take_made();
  ASSERT_EQ(made.size(), 2U);
  EXPECT_EQ(tell(made),
            "lan: tcp 198.51.100.7:999 > 192.168.1.10:80 AR ttl=64\n"
            "wan: tcp 203.0.113.2:8080 > 198.51.100.7:999 AR ttl=64");
  const auto seq = [&](std::size_t i) {
    const auto* tcp = reinterpret_cast<const std::uint8_t*>(made[i].octets.data()) + 20;
    return std::uint32_t{tcp[4]} << 24 | tcp[5] << 16 | tcp[6] << 8 | tcp[7];
  };
  EXPECT_EQ(seq(0), 5001U);  // exactly what each end waits for (RFC 5961, 3.2)
  EXPECT_EQ(seq(1), 1001U);
  EXPECT_TRUE(plane.take_made().empty());
}

TEST_F(MappingTest, AHairpinConnectionIsResetAtBothHosts) {  // NMAP-09, -13
  const auto installed = open(Transport::tcp, alice, 80, 8080);
  EXPECT_EQ(pass(tcp(bob, 9990, external_address, 8080, syn).seq(5000), nat::Side::lan).size(), 1U);
  const auto made = [&] {
    plane.withdraw(installed.id, Ending::reset, now);
    return plane.take_made();
  }();
  ASSERT_EQ(made.size(), 2U);
  EXPECT_EQ(tell(made),
            "lan: tcp 203.0.113.2:9990 > 192.168.1.10:80 AR ttl=64\n"
            "lan: tcp 203.0.113.2:8080 > 192.168.1.11:9990 AR ttl=64");
}

TEST_F(MappingTest, AResetEndsItsFlowsWithRstToEitherSide) {  // NMAP-04, -09
  const auto installed = open(Transport::tcp, alice, 80, 8080);
  connect_inbound();
  plane.withdraw(installed.id, Ending::reset, now);
  plane.take_made();
  EXPECT_EQ(from_wan(tcp(server, 999, external_address, 8080, 0).seq(5001).ack(1001)),
            "wan: tcp 203.0.113.2:8080 > 198.51.100.7:999 R ttl=64");
  EXPECT_EQ(from_lan(tcp(alice, 80, server, 999, 0).seq(1001).ack(5001)),
            "lan: tcp 198.51.100.7:999 > 192.168.1.10:80 R ttl=64");
  EXPECT_EQ(from_wan(tcp(other_server, 999, external_address, 8080, syn)), "dropped: no_mapping");
  EXPECT_EQ(from_wan(tcp(server, 999, external_address, 8080, rst).seq(5001)), "dropped: ended");
}

TEST_F(MappingTest, AfterAResetUdpOfItsFlowsStopsBothWays) {  // NMAP-04
  const auto installed = open(Transport::udp, alice, 6000, 7000);
  leaves(udp(alice, 6000, server, 53));
  plane.withdraw(installed.id, Ending::reset, now);
  EXPECT_EQ(from_lan(udp(alice, 6000, server, 53)), "dropped: ended");
  EXPECT_EQ(from_wan(udp(server, 53, external_address, 7000)), "dropped: no_mapping");
  // What it begins anew is its own affair, by another port.
  EXPECT_NE(source_port(leaves(udp(alice, 6000, other_server, 53))), 7000);
}

TEST_F(MappingTest, ADrainLetsLiveSessionsGoOnAndNobodyNewIn) {
  const auto installed = open(Transport::tcp, alice, 80, 8080);
  connect_inbound();
  plane.withdraw(installed.id, Ending::drain, now);
  EXPECT_EQ(from_wan(tcp(other_server, 999, external_address, 8080, syn)), "dropped: filtered");
  EXPECT_EQ(from_wan(tcp(server, 998, external_address, 8080, syn)), "dropped: filtered");
  EXPECT_EQ(from_lan(tcp(alice, 80, server, 999, 0).seq(1001).ack(5001)),
            "wan: tcp 203.0.113.2:8080 > 198.51.100.7:999 A ttl=63");
  live(1000s);
  EXPECT_EQ(from_wan(tcp(server, 999, external_address, 8080, 0).seq(5001).ack(1001)),
            "lan: tcp 198.51.100.7:999 > 192.168.1.10:80 A ttl=63");
}

TEST_F(MappingTest, FiltersHoldForEveryPacket) {  // NMAP-06, POL-TGT-07, PCP-13.3-11
  auto spec = wish(Transport::udp, alice, 6000, 7000);
  spec.remotes = {{Prefix::v4(ip(server), 32), std::nullopt},
                  {Prefix::v4(ip("198.51.100.64"), 26), port(99)}};
  const auto installed = install(spec);
  ASSERT_TRUE(installed);
  EXPECT_NE(from_wan(udp(server, 53, external_address, 7000)), "dropped: filtered");
  EXPECT_NE(from_wan(udp("198.51.100.70", 99, external_address, 7000)), "dropped: filtered");
  EXPECT_EQ(from_wan(udp("198.51.100.70", 98, external_address, 7000)), "dropped: filtered");
  EXPECT_EQ(from_wan(udp(other_server, 53, external_address, 7000)), "dropped: filtered");
  leaves(udp(alice, 6000, other_server, 53));
  EXPECT_NE(from_wan(udp(other_server, 53, external_address, 7000)), "dropped: filtered");
  EXPECT_EQ(from_wan(udp(other_server, 54, external_address, 7000)), "dropped: filtered");
  ASSERT_TRUE(plane.set_remotes(installed->id, {}, false, now));
  EXPECT_NE(from_wan(udp(other_server, 54, external_address, 7000)), "dropped: filtered");
}

TEST_F(MappingTest, FiltersHoldForTcpToo) {  // NMAP-06
  auto spec = wish(Transport::tcp, alice, 80, 8080);
  spec.remotes = {{Prefix::v4(ip(server), 32), std::nullopt}};
  ASSERT_TRUE(install(spec));
  EXPECT_EQ(from_wan(tcp(other_server, 999, external_address, 8080, syn)), "dropped: filtered");
  connect_inbound();
}

TEST_F(MappingTest, ADisabledOneHoldsItsPortAndForwardsNothing) {  // POL-TGT-09
  auto spec = wish(Transport::udp, alice, 6000, 7000);
  spec.enabled = false;
  ASSERT_TRUE(install(spec));
  EXPECT_EQ(from_wan(udp(server, 53, external_address, 7000)), "dropped: disabled");
  EXPECT_EQ(install(wish(Transport::udp, bob, 1, 7000)).error(), PlaneErrc::port_taken);
  EXPECT_NE(source_port(leaves(udp(alice, 6000, server, 53))), 7000);
}

TEST_F(MappingTest, NoFlowTakesALeasedPort) {  // NMAP-10, POL-NET-12
  open(Transport::udp, alice, 6000, 7000);
  EXPECT_NE(source_port(leaves(udp(bob, 7000, server, 53))), 7000);
}

TEST_F(MappingTest, NoLeaseTakesAPortOfAnotherDevicesFlow) {  // NMAP-10, POL-TGT-08
  leaves(udp(bob, 7000, server, 53));
  EXPECT_EQ(install(wish(Transport::udp, alice, 6000, 7000)).error(), PlaneErrc::port_taken);
  auto spec = wish(Transport::udp, alice, 6000, 7000);
  spec.insist = false;
  const auto installed = install(spec);
  ASSERT_TRUE(installed);
  EXPECT_NE(installed->external.port, port(7000));
  EXPECT_EQ(source_port(leaves(udp(bob, 7000, server, 53))), 7000);
}

TEST_F(MappingTest, TheOwnImplicitMappingBecomesTheLease) {  // POL-OWN-04
  leaves(udp(bob, 6000, server, 53));
  const auto external = source_port(leaves(udp(alice, 6000, server, 53)));
  auto spec = wish(Transport::udp, alice, 6000, 7000);
  EXPECT_EQ(install(spec).error(), PlaneErrc::port_taken);
  spec.insist = false;
  const auto installed = install(spec);
  ASSERT_TRUE(installed);
  EXPECT_EQ(installed->external.port.number(), external);
  EXPECT_EQ(plane.status().implicit_mappings, 1U);
  EXPECT_NE(from_wan(udp(other_server, 1, external_address, external)), "dropped: filtered");
  live(400s);
  EXPECT_EQ(source_port(leaves(udp(alice, 6000, server, 53))), external);
}

TEST_F(MappingTest, TellsWhetherAnEndpointHasAnImplicitMapping) {  // PCP-15.1-09
  const auto has = [&](Transport transport, const char* host, std::uint16_t number) {
    return plane.has_implicit(transport, {Address::v4(ip(host)), port(number)}, now);
  };
  leaves(udp(alice, 6000, server, 53));
  EXPECT_TRUE(has(Transport::udp, alice, 6000));
  EXPECT_FALSE(has(Transport::tcp, alice, 6000));
  EXPECT_FALSE(has(Transport::udp, alice, 6001));
  EXPECT_FALSE(has(Transport::udp, bob, 6000));
  now += 299s;
  EXPECT_TRUE(has(Transport::udp, alice, 6000));
  now += 2s;
  EXPECT_FALSE(has(Transport::udp, alice, 6000)) << "over, though no sweep came by";

  auto spec = wish(Transport::udp, bob, 7000, 7000);
  const auto lease = install(spec);
  ASSERT_TRUE(lease);
  leaves(udp(bob, 7000, server, 53));
  EXPECT_FALSE(has(Transport::udp, bob, 7000)) << "a lease";
  plane.withdraw(lease->id, nat::Ending::drain, now);
  EXPECT_FALSE(has(Transport::udp, bob, 7000)) << "what is left of a lease";
}

TEST_F(MappingTest, TheRoutersOwnPortsGoToNobody) {  // POL-TGT-05, POL-NET-12, N6056-05
  plane.listen(Transport::tcp, 8080);
  EXPECT_EQ(install(wish(Transport::tcp, alice, 80, 8080)).error(), PlaneErrc::port_reserved);
  EXPECT_NE(source_port(leaves(tcp(alice, 8080, server, 80, syn))), 8080);
  policy.reserved = {{Transport::tcp, port(2222)}};
  set_policy();
  EXPECT_EQ(install(wish(Transport::tcp, alice, 80, 2222)).error(), PlaneErrc::port_reserved);
  EXPECT_NE(source_port(leaves(tcp(alice, 2222, server, 80, syn))), 2222);
  EXPECT_EQ(source_port(leaves(udp(alice, 2222, server, 80))), 2222);
}

TEST_F(MappingTest, AFreedPortIsChosenForNoOtherDeviceButGivenToWhoInsists) {  // POL-TGT-10, N6888-08
  auto first = open(Transport::udp, alice, 3074, 3074);
  plane.withdraw(first.id, Ending::reset, now);
  EXPECT_NE(source_port(leaves(udp(bob, 3074, server, 53))), 3074);
  auto second = open(Transport::udp, alice, 3074, 3074);  // its former owner, at once
  plane.withdraw(second.id, Ending::reset, now);
  auto suggestion = wish(Transport::udp, "192.168.1.12", 3074, 3074);
  suggestion.insist = false;
  EXPECT_NE(install(suggestion)->external.port, port(3074));
  EXPECT_EQ(open(Transport::udp, "192.168.1.13", 3074, 3074).external.port, port(3074));
}

TEST_F(MappingTest, AfterTheReuseDelayThePortIsFree) {  // N6888-08
  auto first = open(Transport::udp, alice, 3074, 3074);
  plane.withdraw(first.id, Ending::reset, now);
  live(122s);
  EXPECT_EQ(source_port(leaves(udp(bob, 3074, server, 53))), 3074);
}

TEST_F(MappingTest, APortThatOutboundTrafficGaveUpIsChosenForNoOtherDevice) {  // N6888-08
  for (const bool swept : {true, false}) {
    SCOPED_TRACE(swept ? "swept" : "over, but not swept");
    for (const unsigned port : {5000, 5001, 5002, 5003})
      EXPECT_EQ(source_port(leaves(udp(alice, port, server, 53))), port);
    if (swept)
      live(390s);
    else
      wait(390s);
    EXPECT_EQ(source_port(leaves(udp(alice, 5000, server, 53))), 5000) << "its last owner";
    EXPECT_NE(source_port(leaves(udp(bob, 5001, server, 53))), 5001);
    auto suggestion = wish(Transport::udp, "192.168.1.12", 3074, 5002);
    suggestion.insist = false;
    const auto elsewhere = install(suggestion);
    ASSERT_TRUE(elsewhere);
    EXPECT_NE(elsewhere->external.port, port(5002));
    const auto insisted = open(Transport::udp, "192.168.1.13", 3074, 5003);
    EXPECT_EQ(insisted.external.port, port(5003));
    for (const auto id : {elsewhere->id, insisted.id}) plane.withdraw(id, Ending::vacate, now);
    live(600s);
  }
}

TEST_F(MappingTest, AfterItsReuseDelayAPortOfOutboundTrafficIsAnybodys) {  // N6888-08
  leaves(udp(alice, 5000, server, 53));
  live(500s);
  EXPECT_EQ(source_port(leaves(udp(bob, 5000, server, 53))), 5000);
}

TEST_F(MappingTest, AFullPoolRefusesNobodyForRestingPorts) {  // N6888-08, POL-FAIR-03
  policy.pool = {2000, 2063};
  set_policy();
  for (unsigned port = 2000; port < 2008; ++port) leaves(udp(alice, port, server, 53));
  live(200s);
  for (unsigned port = 2008; port < 2064; ++port) leaves(udp("192.168.1.12", port, server, 53));
  live(190s);
  std::set<unsigned> taken;
  for (unsigned port = 2000; port < 2008; ++port)
    taken.insert(source_port(leaves(udp(bob, port, server, 53))));
  EXPECT_EQ(taken.size(), 8U);
  EXPECT_EQ(*taken.rbegin(), 2007U);
}

TEST_F(MappingTest, WhatIsFreeIsChosenBeforeWhatRests) {  // N6888-08
  policy.pool = {2000, 2007};
  set_policy();
  for (const unsigned port : {2000, 2001, 2002, 2003}) leaves(udp(alice, port, server, 53));
  live(390s);
  std::set<unsigned> taken;
  for (const unsigned port : {2000, 2001}) taken.insert(source_port(leaves(udp(bob, port, server, 53))));
  EXPECT_EQ(taken.size(), 2U);
  EXPECT_GE(*taken.begin(), 2004U);
}

TEST_F(MappingTest, ReuseStrictKeepsItFromAllOthers) {  // POL-TGT-10
  policy.reuse_strict = true;
  set_policy();
  auto first = open(Transport::udp, alice, 3074, 3074);
  plane.withdraw(first.id, Ending::reset, now);
  EXPECT_EQ(install(wish(Transport::udp, bob, 3074, 3074)).error(), PlaneErrc::port_taken);
  const auto until = plane.held_until(Transport::udp, Address::v4(ip(alice)), port(3074), now);
  ASSERT_TRUE(until);
  EXPECT_GE(*until - now, 120s);
  EXPECT_LE(*until - now, 122s);
  EXPECT_TRUE(install(wish(Transport::udp, alice, 3074, 3074)));
}

TEST_F(MappingTest, ALeaseThatIsPutBackStandsAboveAFlowThatWasQuicker) {  // POL-STO-02
  const auto restored = [&] {
    auto spec = wish(Transport::udp, alice, 6000, 7000);
    spec.restore = true;
    const auto installed = install(spec);
    EXPECT_TRUE(installed) << installed.error().message();
    if (!installed) return;
    EXPECT_EQ(source_port(leaves(udp(alice, 6000, server, 53))), 7000);
    plane.withdraw(installed->id, Ending::vacate, now);
  };
  EXPECT_EQ(source_port(leaves(udp(alice, 6000, server, 53))), 6000);
  restored();
  EXPECT_EQ(source_port(leaves(udp(bob, 7000, server, 53))), 7000);
  restored();
}

TEST_F(MappingTest, OneDevicesEndedLeasesLeavePortsForTheOthers) {  // POL-FAIR-01, POL-TGT-10
  for (unsigned external = 1024; external < 65536; ++external)
    plane.withdraw(open(Transport::udp, alice, 6000, external).id, Ending::reset, now);
  EXPECT_TRUE(install(wish(Transport::udp, bob, 1)));
  EXPECT_NE(source_port(leaves(udp(bob, 1024, server, 53))), 1024) << "the first ones rest all the same";
  live(140s);
  auto again = open(Transport::udp, alice, 6000, 7000);
  plane.withdraw(again.id, Ending::reset, now);
  EXPECT_NE(source_port(leaves(udp(bob, 7000, server, 53))), 7000)
      << "and are counted until the delay is over";
}

TEST_F(MappingTest, VacateFreesThePortAtOnce) {
  auto first = open(Transport::udp, alice, 3074, 3074);
  plane.withdraw(first.id, Ending::vacate, now);
  EXPECT_EQ(source_port(leaves(udp(bob, 3074, server, 53))), 3074);
}

TEST_F(MappingTest, ACompanionPortIsForItsDeviceOrWhoInsists) {  // POL-OWN-10
  open(Transport::tcp, alice, 80, 8080);
  auto spec = wish(Transport::udp, bob, 80, 8080);
  spec.insist = false;
  EXPECT_NE(install(spec)->external.port, port(8080));
  EXPECT_NE(source_port(leaves(udp(bob, 8080, server, 53))), 8080);
  EXPECT_EQ(source_port(leaves(udp(alice, 8080, server, 53))), 8080);
  open(Transport::tcp, alice, 81, 8081);
  EXPECT_TRUE(install(wish(Transport::udp, bob, 81, 8081)));
}

TEST_F(MappingTest, TwoExternalPortsOfOneEndpointAnswerEachAsItself) {
  open(Transport::udp, alice, 6000, 7000);
  auto spec = wish(Transport::udp, alice, 6000, 7001);
  spec.second_port = true;
  ASSERT_TRUE(install(spec));
  from_wan(udp(server, 53, external_address, 7001));
  EXPECT_EQ(source_port(leaves(udp(alice, 6000, server, 53))), 7001);
  from_wan(udp(other_server, 53, external_address, 7000));
  EXPECT_EQ(source_port(leaves(udp(alice, 6000, other_server, 53))), 7000);
}

TEST_F(MappingTest, AStaticMappingDisplacesAFlow) {
  leaves(udp(bob, 7000, server, 53));
  auto spec = wish(Transport::udp, alice, 6000, 7000);
  spec.is_static = true;
  ASSERT_TRUE(install(spec));
  EXPECT_EQ(from_wan(udp(server, 53, external_address, 7000)),
            "lan: udp 198.51.100.7:53 > 192.168.1.10:6000 ttl=63");
  EXPECT_EQ(install(wish(Transport::udp, bob, 1, 7000)).error(), PlaneErrc::port_reserved);
  EXPECT_EQ(plane.held_until(Transport::udp, Address::v4(ip(alice)), port(7000), now), TimePoint::max());
}

TEST_F(MappingTest, APortOutsideTheAllowedOnesIsNotTakenUnlessInsisted) {
  auto spec = wish(Transport::udp, alice, 80, 80);
  spec.insist = false;
  const auto installed = install(spec);
  ASSERT_TRUE(installed);
  EXPECT_GE(installed->external.port.number(), 1024);
}

TEST_F(MappingTest, WithoutASuggestionThePortIsTheInternalOneOrARandomOne) {  // NPM-3.3-04, NPM-X-04
  EXPECT_EQ(install(wish(Transport::udp, alice, 6000))->external.port, port(6000));
  unsigned kept = 0;
  for (unsigned internal = 7000; internal < 7020; ++internal) {
    auto spec = wish(Transport::udp, alice, internal);
    spec.at_random = true;
    const auto installed = install(spec);
    ASSERT_TRUE(installed);
    EXPECT_GE(installed->external.port.number(), 1024);
    if (installed->external.port == port(internal)) ++kept;
  }
  EXPECT_LE(kept, 1U);
}

TEST_F(MappingTest, WithoutAPortLeftItSaysSo) {
  for (unsigned external = 2000; external < 2010; ++external) open(Transport::udp, alice, external, external);
  auto spec = wish(Transport::udp, bob, 1);
  spec.allowed = {2000, 2009};
  EXPECT_EQ(install(spec).error(), PlaneErrc::no_ports_left);
}

TEST_F(MappingTest, CountersCountBothWays) {
  const auto installed = open(Transport::tcp, alice, 80, 8080);
  EXPECT_FALSE(plane.counters(installed.id)->last_packet);
  connect_inbound();
  const auto counters = plane.counters(installed.id);
  ASSERT_TRUE(counters);
  EXPECT_EQ(counters->packets_in, 2U);
  EXPECT_EQ(counters->packets_out, 1U);
  EXPECT_EQ(counters->bytes_in, 80U);
  EXPECT_EQ(counters->bytes_out, 40U);
  EXPECT_EQ(counters->last_packet, now);
}

TEST_F(MappingTest, AnIdIsNeverTakenForALaterOne) {
  const auto first = open(Transport::udp, alice, 6000, 7000);
  plane.withdraw(first.id, Ending::vacate, now);
  const auto second = open(Transport::udp, alice, 6000, 7000);
  EXPECT_NE(first.id, second.id);
  plane.withdraw(first.id, Ending::reset, now);
  EXPECT_FALSE(plane.renew(first.id, now + 1h));
  EXPECT_NE(from_wan(udp(server, 53, external_address, 7000)), "dropped: no_mapping");
}

TEST_F(MappingTest, AnAddressChangeMovesLeasesAndEndsTheRest) {  // NMAP-11, POL-RUN-01
  open(Transport::udp, alice, 6000, 7000);
  open(Transport::tcp, alice, 80, 8080);
  connect_inbound();
  leaves(udp(bob, 5000, server, 53));
  network.external = {Address::v4(ip("203.0.113.9"))};
  network.wan[0].addresses = network.external;
  set_network();
  EXPECT_EQ(from_wan(udp(server, 53, "203.0.113.9", 7000)),
            "lan: udp 198.51.100.7:53 > 192.168.1.10:6000 ttl=63");
  EXPECT_EQ(from_wan(udp(server, 53, external_address, 7000)), "dropped: not_ours");
  EXPECT_EQ(from_wan(udp(server, 53, "203.0.113.9", 5000)), "dropped: no_mapping");
  EXPECT_EQ(plane.status().flows, 0U);
  EXPECT_EQ(plane.status().implicit_mappings, 0U);
  EXPECT_EQ(from_lan(udp(bob, 5000, server, 53)), "wan: udp 203.0.113.9:5000 > 198.51.100.7:53 ttl=63");
}

TEST_F(MappingTest, WithoutAnExternalAddressNothingLeaves) {  // fail closed
  network.external.clear();
  set_network();
  EXPECT_EQ(from_lan(udp(alice, 5000, server, 53)), "dropped: no_external_address");
  EXPECT_EQ(install(wish(Transport::udp, alice, 6000, 7000)).error(), PlaneErrc::no_external_address);
  auto restored = wish(Transport::udp, alice, 6000, 7000);
  restored.restore = true;
  ASSERT_TRUE(install(restored));
  network = home_network();
  set_network();
  EXPECT_EQ(from_wan(udp(server, 53, external_address, 7000)),
            "lan: udp 198.51.100.7:53 > 192.168.1.10:6000 ttl=63");
}

TEST_F(MappingTest, EndFlowsEndsADevicesFlowsAndImplicitMappings) {
  leaves(udp(alice, 5000, server, 53));
  leaves(udp(bob, 5001, server, 53));
  plane.end_flows(Address::v4(ip(alice)), now);
  EXPECT_EQ(from_wan(udp(server, 53, external_address, 5000)), "dropped: no_mapping");
  EXPECT_NE(from_wan(udp(server, 53, external_address, 5001)), "dropped: no_mapping");
}

TEST_F(MappingTest, HairpinOfAHostToItselfOnAnotherPort) {  // NMAP-13
  open(Transport::tcp, alice, 80, 8080);
  EXPECT_EQ(from_lan(tcp(alice, 5000, external_address, 8080, syn)),
            "lan: tcp 203.0.113.2:5000 > 192.168.1.10:80 S ttl=63");
}

TEST_F(MappingTest, ManyMappingsAndFlows) {  // NMAP-12
  for (unsigned i = 0; i < 50000; ++i) open(Transport::tcp, alice, 1024 + i, 1024 + i);
  EXPECT_EQ(plane.status().explicit_mappings, 50000U);
  policy.flows_per_device = 0;
  policy.mappings_per_device = 0;
  set_policy();
  unsigned out = 0;
  for (unsigned i = 0; i < 59000; ++i)
    out += plane.pass(udp("192.168.1." + std::to_string(20 + i % 100), 1100 + i / 100, server, 53),
                      nat::Side::lan, now)
                   .size() == 1 &&
           plane.last_action() == nat::Action::forward_wan;
  // companions of another device's leases are not chosen while there is anything else
  EXPECT_EQ(out, plane.status().implicit_mappings);
  EXPECT_GE(out, 60999U - 51023U);
}

// --- ranges, for sets of ports

class RangeTest : public MappingTest {
 protected:
  static nat::RangeSpec range(const char* host, unsigned first, std::uint16_t size) {
    return {.transport = Transport::udp, .first = {Address::v4(ip(host)), port(first)}, .size = size};
  }
  /// "FIRST+SIZE", or "none".
  std::string find(const nat::RangeSpec& spec) {
    const auto found = plane.find_range(spec, now);
    return found ? std::to_string(found->first.number()) + "+" + std::to_string(found->size) : "none";
  }
  /// Each port of what was found can be had by insisting on it.
  void take(const nat::RangeSpec& spec) {
    const auto found = plane.find_range(spec, now);
    ASSERT_TRUE(found);
    for (unsigned i = 0; i < found->size; ++i) {
      auto one = wish(spec.transport, alice, spec.first.port.number() + i, found->first.number() + i);
      one.internal.address = spec.first.address;
      ASSERT_TRUE(install(one)) << i;
    }
  }
};

TEST_F(RangeTest, IsWhereItIsSuggestedOrAtItsOwnNumbersWhileAllFitThere) {
  EXPECT_EQ(find(range(alice, 6000, 8)), "6000+8");
  auto spec = range(alice, 6000, 8);
  spec.suggested = port(9000);
  EXPECT_EQ(find(spec), "9000+8");
  open(Transport::udp, bob, 1, 9007);
  const auto elsewhere = find(spec);
  EXPECT_TRUE(elsewhere.ends_with("+8")) << elsewhere;
  EXPECT_NE(elsewhere, "9000+8");
  spec.insist = true;
  EXPECT_EQ(find(spec), "9000+7");
  open(Transport::udp, bob, 2, 9000);
  EXPECT_EQ(find(spec), "none");
}

TEST_F(RangeTest, IsTheLongestThatIsFreeWhereAllIsNot) {
  auto spec = range(alice, 100, 8);
  spec.allowed = {2000, 2019};
  for (const unsigned taken : {2003U, 2006U, 2012U, 2016U}) open(Transport::udp, bob, taken, taken);
  EXPECT_EQ(find(spec), "2007+5");
  spec.parity = true;
  EXPECT_EQ(find(spec), "2008+4");
  spec.first.port = port(101);
  EXPECT_EQ(find(spec), "2007+5");
  spec.allowed = {2003, 2003};
  EXPECT_EQ(find(spec), "none");
  spec.allowed = {2004, 2004};
  EXPECT_EQ(find(spec), "none");
}

TEST_F(RangeTest, LeavesOutWhatIsReservedOrTheGatewaysOwnAndRests) {
  policy.reserved = {{Transport::udp, port(2004)}};
  set_policy();
  plane.listen(Transport::udp, 2009);
  auto spec = range(alice, 2000, 16);
  spec.allowed = {2000, 2020};
  EXPECT_EQ(find(spec), "2010+11");
  const auto mapping = install(wish(Transport::udp, bob, 1, 2015));
  plane.withdraw(mapping->id, Ending::reset, now);  // bob's until the reuse delay is over
  EXPECT_EQ(find(spec), "2010+5");
  wait(200s);
  EXPECT_EQ(find(spec), "2010+11");
}

TEST_F(RangeTest, TakesInTheOutboundMappingsOfItsOwnPorts) {
  from_lan(udp(alice, 6002, server, 53));
  EXPECT_EQ(find(range(alice, 6000, 4)), "6000+4");
  from_lan(udp(bob, 6003, server, 53));  // another's
  const auto elsewhere = find(range(alice, 6000, 4));
  EXPECT_TRUE(elsewhere.ends_with("+4") && elsewhere != "6000+4") << elsewhere;
  // the first port leaves from elsewhere: the set goes there
  from_lan(udp(bob, 7000, server, 53));
  const auto present = source_port(leaves(udp(alice, 7000, server, 53)));
  EXPECT_NE(present, 7000);
  EXPECT_EQ(find(range(alice, 7000, 3)), std::to_string(present) + "+3");
}

TEST_F(RangeTest, NeverPassesTheLastPort) {
  auto spec = range(alice, 65530, 6);
  EXPECT_EQ(find(spec), "65530+6");
  spec.first.port = port(100);
  spec.suggested = port(65533);
  spec.insist = true;
  EXPECT_EQ(find(spec), "65533+3");
}

TEST_F(RangeTest, IsFoundInAFragmentedTableWithoutAWalk) {  // POL-FAIR-03
  for (unsigned external = 1024; external < 65535; external += 2)
    open(Transport::udp, bob, external, external);
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < 100; ++i) EXPECT_TRUE(find(range(alice, 6000, 256)).ends_with("+1"));
  EXPECT_LT((std::chrono::steady_clock::now() - begin) / 100, 5ms);
  take(range(alice, 5999, 1));
}

// the small form of tests/bench/engine/bench_scale
TEST_F(MappingTest, ADayOfChangeLeavesNothingBehind) {
  check_transport = false;
  std::deque<nat::MappingId> leases;
  unsigned made = 0;
  for (unsigned minute = 0; minute < 24 * 60; ++minute) {
    for (unsigned flow = 0; flow < 40; ++flow)  // each has another peer after an hour
      plane.pass(udp(alice, 5000 + flow, "198.51.100." + std::to_string((minute + flow) / 60 % 250 + 1), 53),
                 nat::Side::lan, now);
    for (unsigned i = 0; i < 3; ++i, ++made) {
      const auto installed = install(wish(made % 2 ? Transport::tcp : Transport::udp, bob, 2000 + made % 3000, 20000 + made % 30000));
      ASSERT_TRUE(installed) << minute;
      leases.push_back(installed->id);
    }
    if (leases.size() > 200) {
      for (unsigned i = 0; i < 3; ++i) {
        plane.withdraw(leases.front(), static_cast<nat::Ending>(made % 3), now);
        leases.pop_front();
      }
    }
    live(60s);
  }
  EXPECT_EQ(plane.status().explicit_mappings, leases.size());
  EXPECT_LE(plane.status().flows, 240U);
  for (const auto id : leases) plane.withdraw(id, nat::Ending::reset, now);
  live(1200s);
  EXPECT_EQ(plane.status().flows, 0U);
  EXPECT_EQ(plane.status().explicit_mappings, 0U);
  EXPECT_EQ(plane.status().implicit_mappings, 0U);
}

}  // namespace
}  // namespace sallyport::test
