#include "tests/support/nat_lan.hpp"

// RFC 5508: queries, errors both ways, and the errors we make.

namespace sallyport::test {
namespace {

using namespace flag;

class IcmpTest : public NatLan {
 protected:
  /// The packet an error quotes, inside `octets`.
  static Octets quoted(const Octets& octets) { return {octets.begin() + 28, octets.end()}; }
};

TEST_F(IcmpTest, ItsOwnErrorsCanBeSwitchedOffForEachSide) {  // N5508-32
  if (stack_forwards()) GTEST_SKIP() << "these errors are the stack's, by its own limits";
  EXPECT_EQ(from_lan(udp(alice, 5000, server, 53).ttl(1)).substr(0, 15), "lan: icmp 11/0 ");
  open(Transport::udp, alice, 80, 8080);
  EXPECT_EQ(from_wan(udp(server, 53, external_address, 8080).ttl(1)).substr(0, 15), "wan: icmp 11/0 ");
  policy.icmp_to_lan = false;
  set_policy();
  EXPECT_EQ(from_lan(udp(alice, 5000, server, 53).ttl(1)), "dropped: ttl_expired");
  EXPECT_EQ(from_wan(udp(server, 53, external_address, 8080).ttl(1)).substr(0, 15), "wan: icmp 11/0 ");
  policy.icmp_to_wan = false;
  set_policy();
  EXPECT_EQ(from_wan(udp(server, 53, external_address, 8080).ttl(1)), "dropped: ttl_expired");
}

TEST_F(IcmpTest, AQueryAndItsAnswerPass) {  // N5508-01, -05
  EXPECT_EQ(from_lan(echo(alice, server, 77)), "wan: icmp 8/0 id=77 203.0.113.2 > 198.51.100.7 ttl=63");
  EXPECT_EQ(from_wan(echo_reply(server, external_address, 77)),
            "lan: icmp 0/0 id=77 198.51.100.7 > 192.168.1.10 ttl=63");
}

TEST_F(IcmpTest, TheIdentifierIsTheSameForEveryRemote) {  // N5508-02
  leaves(echo(bob, server, 77));
  const auto id = get16(leaves(echo(alice, server, 77)), 24);
  EXPECT_EQ(get16(leaves(echo(alice, other_server, 77)), 24), id);
}

TEST_F(IcmpTest, TwoHostsWithOneIdentifierGetTwo) {  // N5508-08
  EXPECT_EQ(get16(leaves(echo(alice, server, 77)), 24), 77);
  const auto second = get16(leaves(echo(bob, server, 77)), 24);
  EXPECT_NE(second, 77);
  EXPECT_EQ(get16(arrives(echo_reply(server, external_address, second)), 24), 77);
}

TEST_F(IcmpTest, AQueryLivesAMinute) {  // N5508-03, -04
  leaves(echo(alice, server, 77));
  wait(60s);
  EXPECT_EQ(from_wan(echo_reply(server, external_address, 77)).substr(0, 4), "lan:");
  wait(63s);
  EXPECT_EQ(from_wan(echo_reply(server, external_address, 77)).substr(0, 8), "dropped:");
}

TEST_F(IcmpTest, AnAnswerFromElsewhereIsDropped) {
  leaves(echo(alice, server, 77));
  EXPECT_EQ(from_wan(echo_reply(other_server, external_address, 77)), "dropped: no_session");
}

TEST_F(IcmpTest, PingingTheExternalAddressReachesTheGateway) {  // N5508-09
  EXPECT_EQ(from_wan(echo(server, external_address, 9)),
            "local: icmp 8/0 id=9 198.51.100.7 > 203.0.113.2 ttl=64");
  policy.answer_ping = false;
  set_policy();
  EXPECT_EQ(from_wan(echo(server, external_address, 9)), "dropped: ping_refused");
}

TEST_F(IcmpTest, TheRoutersOwnPingsShareTheIdentifiers) {
  leaves(echo(alice, server, 77));
  const auto out = pass(echo(external_address, server, 77), nat::Side::router);
  ASSERT_EQ(out.size(), 1U);
  const auto id = get16(out[0].octets, 24);
  EXPECT_NE(id, 77);
  EXPECT_EQ(from_wan(echo_reply(server, external_address, id)),
            "local: icmp 0/0 id=77 198.51.100.7 > 203.0.113.2 ttl=64");
  EXPECT_EQ(from_wan(echo_reply(server, external_address, 77)),
            "lan: icmp 0/0 id=77 198.51.100.7 > 192.168.1.10 ttl=63");
}

TEST_F(IcmpTest, AnInboundErrorReachesTheHostWithWhatItSent) {  // N5508-25, -26, -27, N4787-21, N5382-18
  for (const bool over_tcp : {false, true}) {
    const Octets sent =
        over_tcp ? tcp(alice, 5000, server, 80, syn).ttl(40) : udp(alice, 5000, server, 53).ttl(40);
    leaves(tcp(bob, 5000, server, 80, syn));
    leaves(udp(bob, 5000, server, 53));
    const Octets left = leaves(sent);
    const auto got = arrives(icmp_error(other_server, external_address, 3, 1, left, 1500));
    EXPECT_EQ(describe(got), "icmp 3/1 id=0 198.51.100.8 > 192.168.1.10 ttl=63");
    Octets expected = sent;
    put8(expected, 8, 39);
    set_ip_checksum(expected);
    EXPECT_EQ(quoted(got), expected);
  }
}

TEST_F(IcmpTest, AnInboundErrorAboutAPingReachesTheHost) {  // N5508-25
  leaves(echo(bob, server, 77));
  const Octets left = leaves(echo(alice, server, 77));
  const auto got = arrives(icmp_error(other_server, external_address, 11, 0, left));
  EXPECT_EQ(describe(quoted(got)), "icmp 8/0 id=77 192.168.1.10 > 198.51.100.7 ttl=63");
}

TEST_F(IcmpTest, FragmentationNeededKeepsItsMtu) {  // N5508-35
  const Octets left = leaves(udp(alice, 5000, server, 53));
  const auto got = arrives(icmp_error(other_server, external_address, 3, 4, left, 28, 1400));
  EXPECT_EQ(get16(got, 26), 1400);
}

TEST_F(IcmpTest, OptionsOfTheQuotedPacketAreSkipped) {  // N5508-22
  const Octets record_route{std::byte{7}, std::byte{7}, std::byte{4}, {}, {}, {}, {}, std::byte{0}};
  const Octets left = leaves(udp(alice, 5000, server, 53).options(record_route));
  const auto got = arrives(icmp_error(other_server, external_address, 3, 1, left, 36));
  EXPECT_EQ(describe(quoted(got)), "udp 192.168.1.10:5000 > 198.51.100.7:53 ttl=63");
}

TEST_F(IcmpTest, TheQuotedTransportChecksumIsNotJudged) {  // N5508-23
  check_transport = false;
  const Octets left = leaves(udp(alice, 5000, server, 53).bad_checksum());
  EXPECT_EQ(from_wan(icmp_error(other_server, external_address, 3, 1, left)).substr(0, 4), "lan:");
}

TEST_F(IcmpTest, ABadChecksumIsDropped) {  // N5508-20
  const Octets left = leaves(udp(alice, 5000, server, 53));
  EXPECT_EQ(from_wan(icmp_error(other_server, external_address, 3, 1, left).bad_checksum()),
            "dropped: bad_icmp_checksum");
  EXPECT_EQ(from_lan(icmp_error(alice, server, 3, 3, left).bad_checksum()), "dropped: bad_icmp_checksum");
}

TEST_F(IcmpTest, ABadQuotedHeaderChecksumIsDropped) {  // N5508-21
  Octets left = leaves(udp(alice, 5000, server, 53));
  put8(left, 10, std::to_integer<unsigned>(left[10]) ^ 1);
  EXPECT_EQ(from_wan(icmp_error(other_server, external_address, 3, 1, left)), "dropped: icmp_fits_nothing");
}

TEST_F(IcmpTest, AnErrorThatFitsNoSessionIsDropped) {  // N5508-24, POL-NET-08
  const Octets left = leaves(udp(alice, 5000, server, 53));
  open(Transport::udp, bob, 6000, 7000);
  const auto error = [&](const Octets& about, std::size_t most = 28) {
    return from_wan(icmp_error(other_server, external_address, 3, 1, about, most));
  };
  EXPECT_EQ(error(udp(external_address, 5001, server, 53)), "dropped: icmp_fits_nothing");
  EXPECT_EQ(error(udp(external_address, 5000, server, 54)), "dropped: icmp_fits_nothing");
  EXPECT_EQ(error(udp(external_address, 5000, other_server, 53)), "dropped: icmp_fits_nothing");
  EXPECT_EQ(error(udp(external_address, 7000, server, 53)),
            "dropped: icmp_fits_nothing");  // a mapping is no session
  EXPECT_EQ(error(udp(server, 5000, server, 53)), "dropped: icmp_fits_nothing");
  EXPECT_EQ(error(left, 24), "dropped: icmp_fits_nothing");  // cut ports
  EXPECT_EQ(error(left, 19), "dropped: icmp_fits_nothing");
  EXPECT_EQ(error(icmp_error(external_address, server, 3, 1, left), 56), "dropped: icmp_fits_nothing");
  Octets later = left;
  put16(later, 6, 5);
  set_ip_checksum(later);
  EXPECT_EQ(error(later), "dropped: icmp_fits_nothing");
  EXPECT_EQ(error(left).substr(0, 4), "lan:");
}

TEST_F(IcmpTest, RedirectSourceQuenchAndRouterDiscoveryNeverPass) {  // N5508-06, POL-NET-08
  const Octets left = leaves(udp(alice, 5000, server, 53));
  for (const unsigned type : {4U, 5U}) {
    EXPECT_EQ(from_wan(icmp_error(other_server, external_address, type, 0, left)), "dropped: unknown_icmp");
    EXPECT_EQ(from_lan(icmp_error(alice, server, type, 0, left)), "dropped: unknown_icmp");
  }
  for (const unsigned type : {9U, 10U, 15U, 17U, 30U, 42U}) {
    EXPECT_EQ(from_wan(icmp(server, external_address, type, 0)), "dropped: unknown_icmp");
    EXPECT_EQ(from_lan(icmp(alice, server, type, 0)), "dropped: unknown_icmp");
  }
  EXPECT_EQ(from_wan(icmp_error(other_server, external_address, 12, 0, left)).substr(0, 4), "lan:");
}

TEST_F(IcmpTest, AnOutboundErrorQuotesTheExternalEndpoint) {  // N5508-28
  open(Transport::udp, alice, 6000, 7000);
  const Octets in = udp(server, 53, external_address, 7000);
  const Octets got = arrives(in);
  const auto out = leaves(icmp_error(alice, server, 3, 3, got, 1500));
  EXPECT_EQ(describe(out), "icmp 3/3 id=0 203.0.113.2 > 198.51.100.7 ttl=63");
  Octets expected = in;
  put8(expected, 8, 63);
  set_ip_checksum(expected);
  EXPECT_EQ(quoted(out), expected);
}

TEST_F(IcmpTest, TheRoutersOwnErrorTellsNothingOfTheInside) {  // N5508-28, dataplane.md 2
  open(Transport::udp, alice, 6000, 7000);
  const Octets got = arrives(udp(server, 53, external_address, 7000));
  const auto told = from_router(icmp_error(external_address, server, 3, 1, got));
  EXPECT_EQ(told.substr(0, 50),
            std::string{"wan: icmp 3/1 id=0 203.0.113.2 > 198.51.100.7 ttl=63"}.substr(0, 50));
  const auto out = pass(icmp_error(external_address, server, 3, 1, got), nat::Side::router);
  EXPECT_EQ(describe(quoted(out.at(0).octets)), "udp 198.51.100.7:53 > 203.0.113.2:7000 ttl=63");
  EXPECT_EQ(from_router(icmp_error(external_address, server, 3, 1, udp(server, 53, bob, 9))),
            "dropped: icmp_fits_nothing");
}

TEST_F(IcmpTest, AnOutboundErrorWithoutMappingIsDropped) {  // N5508-29
  EXPECT_EQ(from_lan(icmp_error(alice, server, 3, 3, udp(server, 53, alice, 6000))),
            "dropped: icmp_fits_nothing");
}

TEST_F(IcmpTest, AnErrorNeitherRefreshesNorEndsASession) {  // N5508-30, N4787-11, -19, N5382-19
  const Octets left = leaves(udp(alice, 5000, server, 53));
  wait(200s);
  arrives(icmp_error(other_server, external_address, 3, 3, left));
  leaves(icmp_error(alice, server, 3, 3, Octets(udp(server, 53, alice, 5000))));
  EXPECT_EQ(from_wan(udp(server, 53, external_address, 5000)).substr(0, 4), "lan:");  // refreshes
  wait(299s);
  arrives(icmp_error(other_server, external_address, 3, 3, left));
  wait(3s);
  EXPECT_EQ(from_wan(udp(server, 53, external_address, 5000)), "dropped: no_mapping");
}

TEST_F(IcmpTest, ErrorsAreNotFilteredByTheirSource) {  // N4787-20
  const Octets left = leaves(udp(alice, 5000, server, 53));
  EXPECT_EQ(from_wan(icmp_error("10.99.1.1", external_address, 11, 0, left)).substr(0, 4), "lan:");
}

TEST_F(IcmpTest, AHairpinnedErrorReachesTheOtherHost) {  // N5508-07
  open(Transport::udp, bob, 6000, 7000);
  const auto there = pass(udp(alice, 5000, external_address, 7000), nat::Side::lan);
  ASSERT_EQ(there.size(), 1U);
  const auto out = pass(icmp_error(bob, external_address, 3, 3, there[0].octets, 1500), nat::Side::lan);
  ASSERT_EQ(tell(out), "lan: icmp 3/3 id=0 203.0.113.2 > 192.168.1.10 ttl=63");
  EXPECT_EQ(describe(quoted(out[0].octets)), "udp 192.168.1.10:5000 > 203.0.113.2:7000 ttl=63");
}

TEST_F(IcmpTest, ExtensionsBehindTheQuotedPacketPass) {  // N5508-33
  const Octets left = leaves(udp(alice, 5000, server, 53).payload(std::string(200, 'a')));
  Octets about(left.begin(), left.begin() + 128);
  for (const int octet : {0x20, 0, 0, 0, 0, 8, 1, 1, 0xde, 0xad, 0xbe, 0xef})
    about.push_back(static_cast<std::byte>(octet));
  const auto got = arrives(icmp_error(other_server, external_address, 11, 0, about, 1500, 32 << 16));
  EXPECT_EQ(Octets(got.end() - 12, got.end()), Octets(about.end() - 12, about.end()));
  EXPECT_EQ(get16(got, 24), 32);
}

TEST_F(IcmpTest, PolicyAndShortageAreToldApart) {  // N5508-31, N6888-11, NAT-X-03
  policy.mappings_per_device = 2;
  set_policy();
  leaves(udp(alice, 5000, server, 53));
  leaves(udp(alice, 5001, server, 53));
  EXPECT_EQ(from_lan(udp(alice, 5002, server, 53)), "lan: icmp 3/13 id=0 192.168.1.1 > 192.168.1.10 ttl=64");
  policy.mappings_per_device = 0;
  policy.pool = {5000, 5001};
  set_policy();
  EXPECT_EQ(from_lan(udp(alice, 5002, server, 53)), "lan: icmp 3/1 id=0 192.168.1.1 > 192.168.1.10 ttl=64");
  EXPECT_EQ(from_lan(udp(alice, 5000, server, 53)).substr(0, 4), "wan:");
}

TEST_F(IcmpTest, OurErrorsAreFewAndNeverAboutErrorsFragmentsOrGroups) {  // N5508-34, POL-QTA-11
  if (stack_forwards()) GTEST_SKIP() << "these errors are the stack's, by its own limits";
  const Octets left = leaves(udp(alice, 5000, server, 53));
  EXPECT_EQ(from_lan(icmp_error(alice, server, 3, 3, udp(server, 53, alice, 5000)).ttl(1)),
            "dropped: ttl_expired");
  EXPECT_EQ(from_lan(udp(alice, 5000, "224.0.0.251", 5353).ttl(1)), "dropped: martian_destination");
  const auto parts = fragments_of(udp(alice, 5000, server, 53).ttl(1).payload(std::string(100, 'x')), {24});
  EXPECT_EQ(from_lan(parts[0]).substr(0, 15), "lan: icmp 11/0 ");
  EXPECT_EQ(from_lan(parts[1]).substr(0, 8), "dropped:");
  int errors = 0;
  for (int i = 0; i < 500; ++i) errors += !pass(udp(alice, 5000, server, 53).ttl(1), nat::Side::lan).empty();
  EXPECT_LE(errors, 100);
  wait(1s);
  EXPECT_FALSE(pass(udp(alice, 5000, server, 53).ttl(1), nat::Side::lan).empty());
}

}  // namespace
}  // namespace sallyport::test
