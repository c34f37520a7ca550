#include "nat/engine/firewall6.hpp"

#include "tests/support/nat_lan.hpp"
#include "tests/support/packet_builder6.hpp"

// The firewall before IPv6: RFC 6092, RFC 4890, policy.md 9 and 12, each with the packet that comes out.

namespace sallyport::test {
namespace {

using namespace flag;

constexpr const char* gateway6 = "2001:db8:1::1";
constexpr const char* gateway_link = "fe80::1";
constexpr const char* wan6 = "2001:db8:2::2";
constexpr const char* alice6 = "2001:db8:1::10";
constexpr const char* bob6 = "2001:db8:1::11";
constexpr const char* server6 = "2001:db8:f::7";
constexpr const char* other6 = "2001:db8:f::8";

Address address6(const char* text) { return *Address::parse(text); }

class Firewall6Test : public NatLan {
 protected:
  Firewall6Test() : Firewall6Test(nat::TtlMode::decrement) {}
  explicit Firewall6Test(nat::TtlMode ttl)
      : NatLan(
            nat::EngineOptions{.ttl = ttl, .secret = {0x0123456789abcdef, 0xfedcba9876543210}, .seed = 7}) {
    auto& lan = network.lan[0];
    lan.addresses.push_back(address6(gateway6));
    lan.addresses.push_back(address6(gateway_link));
    lan.addresses.push_back(address6("fd00:1::1"));
    lan.prefixes.push_back({address6("2001:db8:1::"), 64});
    lan.prefixes.push_back({address6("fd00:1::"), 64});
    network.wan[0].addresses.push_back(address6(wan6));
    network.wan[0].addresses.push_back(address6("fe80::2"));
    network.untranslated = {{address6("2001:db8:99::"), 48}};
    set_network();
  }

  std::string say(const Octets& octets, nat::Side from) {
    const auto out = plane.pass(octets, from, now);
    if (out.empty())
      return plane.last_action() == nat::Action::held
                 ? "held"
                 : "dropped: " + std::string{to_string(plane.last_reason())};
    return lines(out);
  }
  static std::string lines(const std::vector<nat::MemoryPlane::Emitted>& out) {
    std::string text;
    for (const auto& emitted : out) {
      if (!text.empty()) text += '\n';
      text += emitted.where == nat::Action::forward_wan   ? "wan: "
              : emitted.where == nat::Action::forward_lan ? "lan: "
                                                          : "local: ";
      text += describe6(emitted.octets);
      if (emitted.where != nat::Action::local) {
        EXPECT_TRUE(checksum_is_right6(emitted.octets)) << describe6(emitted.octets);
      }
    }
    return text;
  }
  std::string out(const Octets& octets) { return say(octets, nat::Side::lan); }
  std::string in(const Octets& octets) { return say(octets, nat::Side::wan); }

  nat::MappingSpec pinhole(Transport transport, const char* host, unsigned of) {
    return {.transport = transport, .internal = {address6(host), port(of)}};
  }
  nat::Installed open6(Transport transport, const char* host, unsigned of) {
    const auto installed = install(pinhole(transport, host, of));
    EXPECT_TRUE(installed) << installed.error().message();
    return installed ? *installed : nat::Installed{{}, {{}, port(1)}};
  }
  std::string made() { return lines(plane.take_made()); }

  /// A TCP connection of the host's, established.
  void connect(unsigned sport = 5000, const char* host = alice6) {
    EXPECT_NE(out(tcp6(host, sport, server6, 80, syn).seq(99)).substr(0, 4), "drop");
    EXPECT_NE(in(tcp6(server6, 80, host, sport, syn).seq(499).ack(100)).substr(0, 4), "drop");
    EXPECT_NE(out(tcp6(host, sport, server6, 80, 0).seq(100).ack(500)).substr(0, 4), "drop");
  }
  /// One of an outsider's to a pinhole, established.
  void be_called(unsigned dport = 80, unsigned sport = 40000, const char* peer = server6) {
    EXPECT_EQ(in(tcp6(peer, sport, alice6, dport, syn).seq(499)).substr(0, 4), "lan:");
    EXPECT_EQ(out(tcp6(alice6, dport, peer, sport, syn).seq(99).ack(500)).substr(0, 4), "wan:");
    EXPECT_EQ(in(tcp6(peer, sport, alice6, dport, 0).seq(500).ack(100)).substr(0, 4), "lan:");
  }
};

// --- who may speak first ---

TEST_F(Firewall6Test, OutboundPassesAsItIsAndIsAnswered) {  // N6092-REC-11, REC-14
  EXPECT_EQ(out(udp6(alice6, 5000, server6, 53)),
            "wan: udp [2001:db8:1::10]:5000 > [2001:db8:f::7]:53 hops=63");
  EXPECT_EQ(in(udp6(server6, 53, alice6, 5000)),
            "lan: udp [2001:db8:f::7]:53 > [2001:db8:1::10]:5000 hops=63");
}

TEST_F(Firewall6Test, OnlyTheHopLimitChanges) {
  Octets sent = tcp6(alice6, 5000, server6, 80, syn).mss(1440).padded(0);
  sent[1] = std::byte{0xb8};  // traffic class and flow label stay
  sent[2] = std::byte{0x77};
  const auto emitted = plane.pass(sent, nat::Side::lan, now);
  ASSERT_EQ(emitted.size(), 1U);
  put8(sent, 7, 63);
  EXPECT_EQ(emitted[0].octets, sent);
}

TEST_F(Firewall6Test, UnaskedPacketsMeetSilence) {  // N6092-REC-33; REC-34: a stated deviation
  EXPECT_EQ(in(udp6(server6, 53, alice6, 5000)), "dropped: no_mapping");
  EXPECT_EQ(in(tcp6(server6, 40000, alice6, 22, syn)), "dropped: no_mapping");
  EXPECT_EQ(in(echo6(server6, alice6, 5)), "dropped: ping_refused");
  EXPECT_EQ(in(make_ip6(50, server6, alice6).payload("esp")), "dropped: no_mapping");
  EXPECT_EQ(in(make_ip6(132, server6, alice6).payload("sctp")), "dropped: unknown_protocol");
}

TEST_F(Firewall6Test, FilteringIsByAddressByDefaultAndAChoice) {  // N6092-REC-11, REC-17
  out(udp6(alice6, 5000, server6, 53));
  EXPECT_EQ(in(udp6(server6, 99, alice6, 5000)).substr(0, 4), "lan:");
  EXPECT_EQ(in(udp6(other6, 53, alice6, 5000)), "dropped: filtered");
  policy.implicit = nat::Filtering::endpoint;
  set_policy();
  EXPECT_EQ(in(udp6(other6, 53, alice6, 5000)).substr(0, 4), "lan:");
  EXPECT_EQ(in(udp6(other6, 53, alice6, 5001)), "dropped: no_mapping");
  policy.implicit = nat::Filtering::address_and_port;
  set_policy();
  EXPECT_EQ(in(udp6(server6, 53, alice6, 5000)).substr(0, 4), "lan:");
  EXPECT_EQ(in(udp6(server6, 99, alice6, 5000)), "dropped: filtered");
}

TEST_F(Firewall6Test, UdpLivesForItsIdleTime) {  // N6092-REC-12, REC-14, REC-16
  out(udp6(alice6, 5000, server6, 53));
  live(299s);
  EXPECT_EQ(in(udp6(server6, 53, alice6, 5000)).substr(0, 4), "lan:");
  live(299s);
  EXPECT_EQ(in(udp6(server6, 53, alice6, 5000)).substr(0, 4), "lan:");
  live(302s);
  EXPECT_EQ(in(udp6(server6, 53, alice6, 5000)), "dropped: no_mapping");
}

TEST_F(Firewall6Test, AnOutsiderHoldsNothingOpen) {  // NAT-X-08
  out(udp6(alice6, 5000, server6, 53));
  for (int i = 0; i < 4; ++i) {
    live(100s);
    in(udp6(server6, 99, alice6, 5000));  // allowed by address, but no flow of its own
  }
  EXPECT_EQ(in(udp6(server6, 99, alice6, 5000)), "dropped: no_mapping");
}

TEST_F(Firewall6Test, UdpDecidesNothingAboutTcpNorUdpLite) {  // N6092-REC-20
  out(udp6(alice6, 5000, server6, 53));
  EXPECT_EQ(in(tcp6(server6, 53, alice6, 5000, syn)), "dropped: no_mapping");
  auto lite = udp6(server6, 53, alice6, 5000);
  lite.protocol_ = 136;
  EXPECT_EQ(in(lite), "dropped: no_mapping");
  auto mine = udp6(alice6, 5000, server6, 53);
  mine.protocol_ = 136;
  EXPECT_EQ(out(mine), "wan: udplite [2001:db8:1::10]:5000 > [2001:db8:f::7]:53 hops=63");
  EXPECT_EQ(in(lite), "lan: udplite [2001:db8:f::7]:53 > [2001:db8:1::10]:5000 hops=63");
}

// --- TCP ---

TEST_F(Firewall6Test, AConnectionFromInsideRunsBothWays) {  // N6092-REC-31
  connect();
  EXPECT_EQ(in(tcp6(server6, 80, alice6, 5000, psh).seq(500).ack(100).payload("hi")),
            "lan: tcp [2001:db8:f::7]:80 > [2001:db8:1::10]:5000 AP hops=63");
}

TEST_F(Firewall6Test, SimultaneousOpenWorks) {  // N6092-REC-31
  out(tcp6(alice6, 5000, server6, 6000, syn).seq(99));
  EXPECT_EQ(in(tcp6(server6, 6000, alice6, 5000, syn).seq(499)),
            "lan: tcp [2001:db8:f::7]:6000 > [2001:db8:1::10]:5000 S hops=63");
  EXPECT_EQ(out(tcp6(alice6, 5000, server6, 6000, syn).seq(99).ack(500)).substr(0, 4), "wan:");
}

TEST_F(Firewall6Test, OnlyASynBegins) {  // POL-NET-06
  EXPECT_EQ(out(tcp6(alice6, 5000, server6, 80, 0).ack(1)), "dropped: no_session");
  EXPECT_EQ(out(tcp6(alice6, 5000, server6, 80, syn).ack(1)), "dropped: no_session");
  EXPECT_EQ(out(tcp6(alice6, 5000, server6, 80, syn | fin)), "dropped: bad_tcp_flags");
}

TEST_F(Firewall6Test, ARstOutsideTheWindowIsDropped) {  // RFC 5961, POL-NET-06
  connect();
  EXPECT_EQ(in(tcp6(server6, 80, alice6, 5000, rst).seq(500 + 100000)), "dropped: out_of_window");
  EXPECT_EQ(out(tcp6(alice6, 5000, server6, 80, 0).seq(100).ack(500)).substr(0, 4), "wan:");
  live(1000s);  // still established
  EXPECT_EQ(in(tcp6(server6, 80, alice6, 5000, 0).seq(500).ack(100)).substr(0, 4), "lan:");
  EXPECT_EQ(in(tcp6(server6, 80, alice6, 5000, rst).seq(500)).substr(0, 4), "lan:");
  live(242s);
  EXPECT_EQ(in(tcp6(server6, 80, alice6, 5000, 0).seq(500).ack(100)), "dropped: no_mapping");
}

TEST_F(Firewall6Test, TheWindowScaleCounts) {  // N6092-REC-32
  const Octets scale{std::byte{3}, std::byte{3}, std::byte{7}, std::byte{0}};
  out(tcp6(alice6, 5000, server6, 80, syn).seq(99).tcp_options(scale));
  in(tcp6(server6, 80, alice6, 5000, syn).seq(499).ack(100).tcp_options(scale));
  out(tcp6(alice6, 5000, server6, 80, 0).seq(100).ack(500).window(8192));
  EXPECT_EQ(in(tcp6(server6, 80, alice6, 5000, rst).seq(500 + 8192 * 128)).substr(0, 4), "lan:");
}

TEST_F(Firewall6Test, TimersAreThoseOfIpv4) {  // N6092-REC-35
  out(tcp6(alice6, 5000, server6, 80, syn).seq(99));
  live(242s);
  EXPECT_EQ(in(tcp6(server6, 80, alice6, 5000, syn).seq(499).ack(100)), "dropped: no_mapping");
  connect(5001);
  live(7438s);
  EXPECT_EQ(in(tcp6(server6, 80, alice6, 5001, 0).seq(500).ack(100)).substr(0, 4), "lan:");
  live(7443s);
  EXPECT_EQ(in(tcp6(server6, 80, alice6, 5001, 0).seq(500).ack(100)), "dropped: no_mapping");
}

TEST_F(Firewall6Test, TheMssIsClampedWhereTheWanIsNarrower) {
  network.wan[0].mtu = 1480;
  set_network();
  const auto mss_of = [&](const Octets& octets, nat::Side side) {
    const auto emitted = plane.pass(octets, side, now);
    EXPECT_EQ(emitted.size(), 1U);
    EXPECT_TRUE(checksum_is_right6(emitted.at(0).octets));
    return get16(emitted.at(0).octets, 62);
  };
  EXPECT_EQ(mss_of(tcp6(alice6, 5000, server6, 80, syn).mss(1440), nat::Side::lan), 1420);
  EXPECT_EQ(mss_of(tcp6(server6, 80, alice6, 5000, syn).ack(1001).mss(8940), nat::Side::wan), 1420);
  EXPECT_EQ(mss_of(tcp6(alice6, 5001, server6, 80, syn).mss(1300), nat::Side::lan), 1300);
  policy.mss_clamp = 1400;  // of IPv4; the header here is 20 octets longer
  set_policy();
  EXPECT_EQ(mss_of(tcp6(alice6, 5002, server6, 80, syn).mss(1440), nat::Side::lan), 1380);
  policy.mss_clamp = 0;
  set_policy();
  EXPECT_EQ(mss_of(tcp6(alice6, 5003, server6, 80, syn).mss(1440), nat::Side::lan), 1440);
}

// --- addresses ---

TEST_F(Firewall6Test, SpoofedSourcesOfTheLanAreDropped) {  // N6092-REC-5, POL-NET-02
  EXPECT_EQ(out(udp6(server6, 1, other6, 2)), "dropped: spoofed_source");
  EXPECT_EQ(out(udp6(gateway6, 1, server6, 2)), "dropped: spoofed_source");
  EXPECT_EQ(out(udp6(wan6, 1, server6, 2)), "dropped: spoofed_source");
  EXPECT_EQ(out(udp6("fe80::10", 1, server6, 2)), "dropped: spoofed_source");
  EXPECT_EQ(out(udp6("::", 1, server6, 2)), "dropped: spoofed_source");
  EXPECT_EQ(out(udp6("2001:db8:1::", 1, server6, 2)), "dropped: spoofed_source");  // any router's
  EXPECT_EQ(out(udp6("ff02::1", 1, gateway6, 2)), "dropped: spoofed_source");
  EXPECT_EQ(out(udp6(server6, 1, gateway6, 2)), "dropped: spoofed_source");
}

TEST_F(Firewall6Test, MartiansOfTheWanAreDropped) {  // N6092-REC-1, REC-3, REC-6, REC-7, POL-NET-03
  open6(Transport::udp, alice6, 3074);
  for (const char* source : {"2001:db8:1::11", gateway6, wan6, "::", "::1", "fe80::7", "ff02::1", "ff0e::1",
                             "::ffff:192.0.2.1", "::192.0.2.1", "fec0::7", "fd00:2::7"})
    EXPECT_EQ(in(udp6(source, 1, alice6, 3074)), "dropped: martian_source") << source;
  EXPECT_EQ(in(udp6("2001:db8::1", 1, alice6, 3074)).substr(0, 4), "lan:") << "documentation";
}

TEST_F(Firewall6Test, NothingIsForwardedToWhereNobodyIs) {  // N6092-REC-2, REC-3
  for (const char* to : {"::", "::1", "fe80::9", "fec0::1", "::ffff:198.51.100.7", "::198.51.100.7"}) {
    EXPECT_EQ(out(udp6(alice6, 1, to, 2)), "dropped: martian_destination") << to;
    EXPECT_EQ(in(udp6(server6, 1, to, 2)), "dropped: martian_destination") << to;
  }
  EXPECT_EQ(in(udp6(server6, 1, "2001:db8:77::1", 2)), "dropped: not_ours");
}

TEST_F(Firewall6Test, UniqueLocalAddressesStayOnTheirSite) {  // N6092-REC-7
  EXPECT_EQ(out(udp6("fd00:1::10", 1, server6, 2)), "lan: icmp 1/5 fd00:1::1 > fd00:1::10 hops=64");
  EXPECT_EQ(plane.last_reason(), nat::DropReason::spoofed_source);
  EXPECT_EQ(out(udp6(alice6, 1, "fd00:9::1", 2)), "lan: icmp 1/0 2001:db8:1::1 > 2001:db8:1::10 hops=64");
  EXPECT_EQ(out(udp6(alice6, 1, "fd00:1::10", 2)).substr(0, 4), "lan:");
  // behind another router of the same site
  network.wan[0].addresses.push_back(address6("fd00:5::2"));
  set_network();
  EXPECT_EQ(out(udp6("fd00:1::10", 1, "fd00:9::1", 2)).substr(0, 4), "wan:");
}

TEST_F(Firewall6Test, MulticastAndLinkLocalAreForTheRouterAlone) {  // N6092-REC-2, RFC 4890 4.3.3
  EXPECT_EQ(out(udp6("fe80::10", 546, "ff02::1:2", 547)).substr(0, 6), "local:");
  EXPECT_EQ(out(udp6(alice6, 5353, "ff0e::fb", 5353)).substr(0, 6), "local:");
  EXPECT_EQ(out(icmp6("::", "ff02::1:ff00:10", 135, 0).hops(255)).substr(0, 6), "local:");
  EXPECT_EQ(out(icmp6("fe80::10", gateway_link, 136, 0).hops(255)).substr(0, 6), "local:");
  EXPECT_EQ(in(icmp6("fe80::9", "ff02::1", 134, 0).hops(255)).substr(0, 6), "local:");
  EXPECT_EQ(in(udp6("fe80::9", 547, "fe80::2", 546)).substr(0, 6), "local:");
  for (unsigned type : {130U, 133U, 134U, 135U, 136U, 137U, 143U}) {
    EXPECT_EQ(out(icmp6(alice6, server6, type, 0).hops(255)), "dropped: unknown_icmp") << type;
    EXPECT_EQ(in(icmp6(server6, alice6, type, 0).hops(255)), "dropped: unknown_icmp") << type;
  }
}

TEST_F(Firewall6Test, TheRoutersOwnTrafficIsItsStacks) {  // POL-NET-04, N6092-REC-8, REC-9
  EXPECT_EQ(out(tcp6(alice6, 5000, gateway6, 22, syn)).substr(0, 6), "local:");
  EXPECT_EQ(out(udp6(alice6, 5000, gateway6, 5351)).substr(0, 6), "local:");
  EXPECT_EQ(out(tcp6(alice6, 5000, wan6, 22, syn)).substr(0, 6), "local:");
  EXPECT_EQ(in(tcp6(server6, 5000, wan6, 22, syn)).substr(0, 6), "local:");
  EXPECT_EQ(in(echo6(server6, wan6, 5)).substr(0, 6), "local:");
  for (unsigned control : {1900U, 5350U, 5351U}) {
    EXPECT_EQ(in(udp6(server6, 5000, wan6, control)), "dropped: no_mapping");
    EXPECT_EQ(in(udp6("fe80::9", 5000, "ff02::1", control)), "dropped: no_mapping");
  }
  policy.answer_ping = false;
  set_policy();
  EXPECT_EQ(in(echo6(server6, wan6, 5)), "dropped: ping_refused");
  EXPECT_EQ(say(udp6(wan6, 1, server6, 2), nat::Side::router),
            "wan: udp [2001:db8:2::2]:1 > [2001:db8:f::7]:2 hops=64");
}

TEST_F(Firewall6Test, LansReachEachOtherAndVpnsPassUntracked) {
  EXPECT_EQ(out(udp6(alice6, 1, bob6, 2)), "lan: udp [2001:db8:1::10]:1 > [2001:db8:1::11]:2 hops=63");
  EXPECT_EQ(out(udp6(alice6, 1, "2001:db8:99::5", 2)).substr(0, 4), "wan:");
  EXPECT_EQ(in(tcp6("2001:db8:99::5", 1, alice6, 22, syn)).substr(0, 4), "lan:");
  EXPECT_EQ(plane.status().flows, 0U);
}

TEST_F(Firewall6Test, WithoutIpv6TheSystemForwards) {
  policy.ipv6 = false;
  set_policy();
  EXPECT_EQ(in(tcp6(server6, 1, alice6, 22, syn)).substr(0, 6), "local:");
  EXPECT_EQ(out(udp6(alice6, 1, server6, 2)).substr(0, 6), "local:");
}

// --- ICMPv6 ---

TEST_F(Firewall6Test, PingsFromInsideAreAnswered) {  // N4890-4.3.1
  EXPECT_EQ(out(echo6(alice6, server6, 5)), "wan: icmp 128/0 2001:db8:1::10 > 2001:db8:f::7 hops=63");
  EXPECT_EQ(in(echo_reply6(server6, alice6, 5)), "lan: icmp 129/0 2001:db8:f::7 > 2001:db8:1::10 hops=63");
  EXPECT_EQ(in(echo_reply6(server6, alice6, 6)), "dropped: no_mapping");
  EXPECT_EQ(in(echo_reply6(other6, alice6, 5)), "dropped: no_session");
  EXPECT_EQ(out(echo_reply6(alice6, server6, 9)), "dropped: unknown_icmp");
  live(62s);
  EXPECT_EQ(in(echo_reply6(server6, alice6, 5)), "dropped: no_mapping");
}

TEST_F(Firewall6Test, ErrorsPassWhenTheyQuoteASession) {  // N6092-REC-10, REC-18, REC-36, POL-NET-08
  const Octets sent = udp6(alice6, 5000, server6, 53);
  out(sent);
  for (unsigned type : {1U, 2U, 3U, 4U})
    EXPECT_EQ(in(icmp6_error(other6, alice6, type, 0, sent, 1400)),
              "lan: icmp " + std::to_string(type) + "/0 2001:db8:f::8 > 2001:db8:1::10 hops=63");
  const auto fits_nothing = [&](const Octets& quoted, const char* to = alice6) {
    EXPECT_EQ(in(icmp6_error(other6, to, 1, 0, quoted)), "dropped: icmp_fits_nothing");
  };
  fits_nothing(udp6(alice6, 5001, server6, 53));
  fits_nothing(udp6(alice6, 5000, other6, 53));
  fits_nothing(udp6(alice6, 5000, server6, 54));
  fits_nothing(tcp6(alice6, 5000, server6, 53, syn));
  fits_nothing(sent, bob6);
  fits_nothing(make_ip6(132, alice6, server6).payload("sctp"));
  EXPECT_EQ(in(icmp6_error(other6, alice6, 1, 0, sent).bad_checksum()), "dropped: bad_icmp_checksum");
  EXPECT_EQ(in(icmp6_error("fe80::9", alice6, 1, 0, sent)), "dropped: martian_source");
  for (unsigned type : {0U, 5U, 100U, 127U})  // N4890-4.3.5
    EXPECT_EQ(in(icmp6_error(other6, alice6, type, 0, sent)), "dropped: unknown_icmp") << type;
}

TEST_F(Firewall6Test, AnErrorNeitherRefreshesNorEndsASession) {  // N6092-REC-19, REC-37
  const Octets sent = udp6(alice6, 5000, server6, 53);
  out(sent);
  live(200s);
  in(icmp6_error(other6, alice6, 1, 4, sent));
  EXPECT_EQ(in(udp6(server6, 53, alice6, 5000)).substr(0, 4), "lan:");
  live(200s);
  in(icmp6_error(other6, alice6, 1, 4, sent));
  live(102s);
  EXPECT_EQ(in(udp6(server6, 53, alice6, 5000)), "dropped: no_mapping");
}

TEST_F(Firewall6Test, AHostsErrorsAboutWhatCameInPassToo) {  // N6092-REC-10
  open6(Transport::udp, alice6, 3074);
  const Octets came = udp6(server6, 4000, alice6, 3074);
  in(came);
  EXPECT_EQ(out(icmp6_error(alice6, server6, 1, 4, came)),
            "wan: icmp 1/4 2001:db8:1::10 > 2001:db8:f::7 hops=63");
  EXPECT_EQ(out(icmp6_error(alice6, server6, 1, 4, udp6(server6, 4000, alice6, 3075))),
            "dropped: icmp_fits_nothing");
  EXPECT_EQ(out(icmp6_error(alice6, other6, 1, 4, came)), "dropped: icmp_fits_nothing");
}

TEST_F(Firewall6Test, ErrorsAboutPingsGoToWhoPinged) {
  const Octets ping = echo6(alice6, server6, 5);
  out(ping);
  EXPECT_EQ(in(icmp6_error(other6, alice6, 3, 0, ping)).substr(0, 4), "lan:");
  EXPECT_EQ(in(icmp6_error(other6, alice6, 3, 0, echo_reply6(alice6, server6, 5))),
            "dropped: icmp_fits_nothing");
}

TEST_F(Firewall6Test, TheHopLimitEndsAndItsSenderHears) {
  EXPECT_EQ(out(udp6(alice6, 1, server6, 2).hops(1)), "lan: icmp 3/0 2001:db8:1::1 > 2001:db8:1::10 hops=64");
  EXPECT_EQ(plane.last_reason(), nat::DropReason::ttl_expired);
  EXPECT_EQ(plane.status().flows, 0U);
  open6(Transport::udp, alice6, 3074);
  EXPECT_EQ(in(udp6(server6, 1, alice6, 3074).hops(1)),
            "wan: icmp 3/0 2001:db8:2::2 > 2001:db8:f::7 hops=64");
}

TEST_F(Firewall6Test, WhatIsTooBigIsToldTheMtu) {
  network.wan[0].mtu = 1400;
  set_network();
  const Octets big = udp6(alice6, 1, server6, 2).payload(std::string(1400, 'x'));
  const auto emitted = plane.pass(big, nat::Side::lan, now);
  EXPECT_EQ(lines(emitted), "lan: icmp 2/0 2001:db8:1::1 > 2001:db8:1::10 hops=64");
  EXPECT_EQ(get32(emitted.at(0).octets, 44), 1400U);
  EXPECT_EQ(plane.last_reason(), nat::DropReason::too_big);
  // even where errors are not wanted
  policy.icmp_to_lan = false;
  set_policy();
  EXPECT_EQ(out(big), "lan: icmp 2/0 2001:db8:1::1 > 2001:db8:1::10 hops=64");
  EXPECT_EQ(out(udp6(alice6, 1, server6, 2).hops(1)), "dropped: ttl_expired");
}

TEST_F(Firewall6Test, OtherProtocolsAreRefusedToTheirSender) {
  EXPECT_EQ(out(make_ip6(132, alice6, server6).payload("sctp")),
            "lan: icmp 1/1 2001:db8:1::1 > 2001:db8:1::10 hops=64");
  EXPECT_EQ(plane.last_reason(), nat::DropReason::unknown_protocol);
}

TEST_F(Firewall6Test, ErrorsAreLimitedAndNeverAnswerErrors) {  // POL-QTA-11, RFC 4443 2.4
  int sent = 0;
  for (int i = 0; i < 300; ++i)
    sent += !plane.pass(udp6(alice6, 1, server6, 2).hops(1), nat::Side::lan, now).empty();
  EXPECT_EQ(sent, 100);
  wait(1s);
  const Octets out_bound = udp6(alice6, 5000, server6, 53);
  out(out_bound);
  EXPECT_EQ(in(icmp6_error(other6, alice6, 1, 0, out_bound).hops(1)), "dropped: ttl_expired");
}

TEST_F(Firewall6Test, EspPassesByItsAddresses) {  // N6092-REC-21..23: a stated deviation
  const Octets esp = make_ip6(50, alice6, server6).payload("abcdefgh");
  EXPECT_EQ(out(esp), "wan: protocol 50 2001:db8:1::10 > 2001:db8:f::7 hops=63");
  EXPECT_EQ(in(make_ip6(50, server6, alice6).payload("abcdefgh")),
            "lan: protocol 50 2001:db8:f::7 > 2001:db8:1::10 hops=63");
  EXPECT_EQ(in(make_ip6(50, other6, alice6).payload("abcdefgh")), "dropped: no_session");
  EXPECT_EQ(in(make_ip6(51, server6, alice6).payload("abcdefgh")), "dropped: no_mapping");
  EXPECT_EQ(in(icmp6_error(other6, alice6, 2, 0, esp, 1300)).substr(0, 4), "lan:");
}

TEST_F(Firewall6Test, RoutingHeadersOfTypeZeroAreDropped) {  // N6092-REC-4, RFC 5095
  EXPECT_EQ(out(udp6(alice6, 1, server6, 2).routing(0)), "dropped: source_route");
  EXPECT_EQ(out(udp6(alice6, 1, server6, 2).padded(60).routing(4)).substr(0, 4), "wan:");
}

// --- fragments ---

TEST_F(Firewall6Test, FragmentsPassInEveryOrder) {
  const Octets whole = udp6(alice6, 5000, server6, 53).payload(std::string(400, 'x'));
  std::vector<std::size_t> order{0, 1, 2, 3};
  std::uint32_t id = 100;
  do {
    const auto parts = fragments_of6(whole, {96, 96, 96}, id++);
    std::vector<Octets> passed;
    for (const std::size_t i : order)
      for (auto& emitted : plane.pass(parts[i], nat::Side::lan, now)) {
        EXPECT_EQ(emitted.where, nat::Action::forward_wan);
        passed.push_back(emitted.octets);
      }
    ASSERT_EQ(passed.size(), 4U) << order[0] << order[1] << order[2] << order[3];
    for (Octets part : parts) {
      put8(part, 7, 63);
      EXPECT_EQ(std::count(passed.begin(), passed.end(), part), 1);
    }
  } while (std::next_permutation(order.begin(), order.end()));
  EXPECT_EQ(plane.status().flows, 1U);
}

TEST_F(Firewall6Test, FragmentsShareTheFateOfTheFirst) {
  const auto parts = fragments_of6(udp6(server6, 53, alice6, 5000).payload(std::string(100, 'x')), {56, 24});
  EXPECT_EQ(in(parts[1]), "held");
  EXPECT_EQ(in(parts[0]), "dropped: no_mapping");
  EXPECT_EQ(in(parts[2]), "dropped: fragment_of_dropped");
  open6(Transport::udp, alice6, 5000);
  const auto again = fragments_of6(udp6(server6, 53, alice6, 5000).payload(std::string(100, 'x')), {56}, 55);
  EXPECT_EQ(in(again[1]), "held");
  EXPECT_EQ(in(again[0]),
            "lan: udp [2001:db8:f::7]:53 > [2001:db8:1::10]:5000 hops=63\n"
            "lan: fragment 56 2001:db8:f::7 > 2001:db8:1::10 hops=63");
}

TEST_F(Firewall6Test, OverlapsEndTheirDatagram) {  // RFC 5722
  const Octets whole = udp6(alice6, 5000, server6, 53).payload(std::string(200, 'x'));
  const auto parts = fragments_of6(whole, {96});
  auto overlap = fragments_of6(whole, {88});
  EXPECT_EQ(out(parts[0]).substr(0, 4), "wan:");
  EXPECT_EQ(out(overlap[1]), "dropped: fragment_overlap");
  EXPECT_EQ(out(parts[1]), "dropped: fragment_overlap");
}

TEST_F(Firewall6Test, AtomicFragmentsAreWholePackets) {  // RFC 6946
  const auto parts = fragments_of6(udp6(alice6, 5000, server6, 53).payload(std::string(200, 'x')), {96}, 7);
  EXPECT_EQ(out(parts[1]), "held");
  EXPECT_EQ(out(udp6(alice6, 5000, server6, 53).atomic_fragment(7)),
            "wan: udp [2001:db8:1::10]:5000 > [2001:db8:f::7]:53 hops=63");
  EXPECT_EQ(out(parts[0]).substr(0, 4), "wan:");
}

TEST_F(Firewall6Test, ASourceAtItsFragmentLimitHarmsNobodyElse) {  // POL-QTA-07, POL-NET-10
  for (std::uint32_t id = 0; id < 300; ++id) {
    const auto parts =
        fragments_of6(udp6(alice6, 5000, server6, 53).payload(std::string(100, 'x')), {56}, id);
    EXPECT_EQ(out(parts[1]), id < 256 ? "held" : "dropped: fragment_limit");
  }
  const auto parts = fragments_of6(udp6(bob6, 5000, server6, 53).payload(std::string(100, 'x')), {56});
  EXPECT_EQ(out(parts[1]), "held");
  EXPECT_EQ(out(udp6(alice6, 5000, server6, 53)).substr(0, 4), "wan:");
  live(17s);
  EXPECT_EQ(out(fragments_of6(udp6(alice6, 5000, server6, 53).payload(std::string(100, 'x')), {56}, 9)[1]),
            "held");
}

TEST_F(Firewall6Test, NothingIsKeptForFragmentsThatCannotPass) {
  const auto spoofed = fragments_of6(udp6(server6, 1, other6, 2).payload(std::string(100, 'x')), {56});
  EXPECT_EQ(out(spoofed[1]), "dropped: spoofed_source");
  const auto martian = fragments_of6(udp6("fd00:9::1", 1, alice6, 2).payload(std::string(100, 'x')), {56});
  EXPECT_EQ(in(martian[1]), "dropped: martian_source");
  const auto error = fragments_of6(icmp6_error(other6, alice6, 1, 0, udp6(alice6, 1, server6, 2)), {56});
  EXPECT_EQ(in(error[0]), "dropped: icmp_fits_nothing");
  const auto own = fragments_of6(udp6(alice6, 1, gateway6, 2).payload(std::string(100, 'x')), {56});
  EXPECT_EQ(out(own[1]).substr(0, 6), "local:");
}

// --- limits ---

TEST_F(Firewall6Test, AHostAtItsLimitKeepsWhatItHas) {  // POL-QTA-04, POL-QTA-05
  policy.mappings_per_device = 2;
  policy.flows_per_device = 3;
  set_policy();
  EXPECT_EQ(out(udp6(alice6, 5000, server6, 1)).substr(0, 4), "wan:");
  EXPECT_EQ(out(udp6(alice6, 5001, server6, 1)).substr(0, 4), "wan:");
  EXPECT_EQ(out(udp6(alice6, 5002, server6, 1)), "lan: icmp 1/1 2001:db8:1::1 > 2001:db8:1::10 hops=64");
  EXPECT_EQ(plane.last_reason(), nat::DropReason::mapping_limit);
  EXPECT_EQ(out(udp6(alice6, 5001, server6, 2)).substr(0, 4), "wan:");
  EXPECT_EQ(out(udp6(alice6, 5001, server6, 3)), "lan: icmp 1/1 2001:db8:1::1 > 2001:db8:1::10 hops=64");
  EXPECT_EQ(plane.last_reason(), nat::DropReason::flow_limit);
  EXPECT_EQ(out(udp6(alice6, 5000, server6, 1)).substr(0, 4), "wan:");
  EXPECT_EQ(out(udp6(bob6, 5000, server6, 1)).substr(0, 4), "wan:");
  live(302s);
  EXPECT_EQ(out(udp6(alice6, 5002, server6, 1)).substr(0, 4), "wan:");
}

TEST_F(Firewall6Test, EchoIdentifiersAndNewEndpointsAreLimited) {  // POL-QTA-06, N6888-04
  policy.icmp_ids_per_device = 2;
  policy.new_mappings_per_second = 4;
  set_policy();
  out(echo6(alice6, server6, 1));
  out(echo6(alice6, server6, 2));
  EXPECT_EQ(out(echo6(alice6, server6, 3)), "dropped: icmp_id_limit");
  out(udp6(alice6, 1, server6, 1));
  out(udp6(alice6, 2, server6, 1));
  out(udp6(alice6, 3, server6, 1));
  EXPECT_EQ(plane.last_reason(), nat::DropReason::mapping_rate);
  wait(1s);
  EXPECT_EQ(out(udp6(alice6, 3, server6, 1)).substr(0, 4), "wan:");
}

TEST_F(Firewall6Test, AFullTableRefusesNewFlowsAndKeepsTheOld) {  // POL-QTA-05, POL-NET-14
  policy.flows_total = 3;
  set_policy();
  open6(Transport::tcp, alice6, 80);
  open6(Transport::udp, bob6, 3074);
  be_called();
  EXPECT_EQ(in(tcp6(other6, 1, alice6, 80, syn)).substr(0, 4), "lan:");
  EXPECT_EQ(out(udp6(alice6, 5000, server6, 1)).substr(0, 4), "wan:");
  EXPECT_EQ(out(udp6(alice6, 5000, server6, 2)).substr(0, 4), "wan:") << "who was never answered gives way";
  EXPECT_EQ(out(udp6(alice6, 5000, server6, 3)), "lan: icmp 1/3 2001:db8:1::1 > 2001:db8:1::10 hops=64");
  EXPECT_EQ(plane.last_reason(), nat::DropReason::table_full);
  EXPECT_EQ(in(tcp6(server6, 40000, alice6, 80, 0).seq(500).ack(100)).substr(0, 4), "lan:");
  EXPECT_EQ(in(udp6(other6, 1, bob6, 3074)).substr(0, 4), "lan:");
  EXPECT_EQ(out(udp6(bob6, 3074, other6, 1)).substr(0, 4), "wan:") << "a pinhole works without a free entry";
  // a connection that found no entry goes on too
  EXPECT_EQ(in(tcp6(other6, 2, alice6, 80, syn)).substr(0, 4), "lan:");
  EXPECT_EQ(out(tcp6(alice6, 80, other6, 2, syn).ack(1001)).substr(0, 4), "wan:");
  EXPECT_EQ(in(tcp6(other6, 2, alice6, 80, 0).ack(1)).substr(0, 4), "lan:");
  wait(61s);
  bool told = false;
  for (const auto& event : plane.sweep(now)) told |= event.kind == nat::PlaneEvent::Kind::shortage;
  EXPECT_TRUE(told);
}

TEST_F(Firewall6Test, AFloodToAPinholeLeavesItsRealPeers) {  // POL-NET-14
  policy.flows_total = 100;
  set_policy();
  open6(Transport::tcp, alice6, 80);
  be_called();
  for (unsigned i = 1; i < 2000; ++i) in(tcp6(other6, i, alice6, 80, syn));
  EXPECT_EQ(in(tcp6(server6, 40000, alice6, 80, 0).seq(500).ack(100)).substr(0, 4), "lan:");
  be_called(80, 40001);
  EXPECT_LE(plane.status().flows, 100U);
}

TEST_F(Firewall6Test, EverythingGoesInTime) {  // POL-FAIR-05: memory comes back
  for (unsigned i = 1; i <= 6000; ++i) out(udp6(alice6, i, server6, 53));
  EXPECT_EQ(plane.status().flows, 6000U);
  live(330s);
  EXPECT_EQ(plane.status().flows, 0U);
  EXPECT_EQ(out(udp6(alice6, 1, server6, 53)).substr(0, 4), "wan:");
  EXPECT_EQ(in(udp6(server6, 53, alice6, 1)).substr(0, 4), "lan:");
}

TEST_F(Firewall6Test, NobodyWithoutTheSecretChoosesCollisions) {  // POL-NET-13
  const nat::SipHash one{{1, 2}}, two{{1, 3}};
  EXPECT_NE(one(1, 2, 3, 4, 5), two(1, 2, 3, 4, 5));
  EXPECT_NE(one(1, 2, 3, 4, 5), one(1, 2, 3, 5, 4));
  EXPECT_NE(one(1, 2, 3), one(1, 2, 3, 0));
}

// --- pinholes ---

TEST_F(Firewall6Test, APinholeLetsEverybodyInAsTheyCome) {  // NMAP-01
  const auto installed = open6(Transport::udp, alice6, 3074);
  EXPECT_EQ(installed.external.address, address6(alice6));
  EXPECT_EQ(installed.external.port.number(), 3074);
  EXPECT_EQ(in(udp6(server6, 1, alice6, 3074)), "lan: udp [2001:db8:f::7]:1 > [2001:db8:1::10]:3074 hops=63");
  EXPECT_EQ(in(udp6(other6, 2, alice6, 3074)).substr(0, 4), "lan:");
  EXPECT_EQ(plane.status().flows, 0U) << "inbound UDP fills nothing";
  EXPECT_EQ(in(udp6(server6, 1, alice6, 3075)), "dropped: no_mapping");
  EXPECT_EQ(in(udp6(server6, 1, bob6, 3074)), "dropped: no_mapping");
  EXPECT_EQ(in(tcp6(server6, 1, alice6, 3074, syn)), "dropped: no_mapping");
  const auto counters = plane.counters(installed.id);
  ASSERT_TRUE(counters);
  EXPECT_EQ(counters->packets_in, 2U);
  EXPECT_EQ(counters->bytes_in, 2 * 53U);
}

TEST_F(Firewall6Test, TcpThroughAPinholeIsTracked) {
  const auto installed = open6(Transport::tcp, alice6, 80);
  EXPECT_EQ(in(tcp6(server6, 40000, alice6, 80, 0).ack(1)), "dropped: no_session");
  be_called();
  EXPECT_EQ(in(tcp6(server6, 40000, alice6, 80, rst).seq(500000)), "dropped: out_of_window");
  EXPECT_EQ(plane.status().flows, 1U);
  EXPECT_EQ(plane.status().explicit_mappings, 1U);
  const auto counters = plane.counters(installed.id);
  ASSERT_TRUE(counters);
  EXPECT_EQ(counters->packets_in, 2U);
  EXPECT_EQ(counters->packets_out, 1U);
}

TEST_F(Firewall6Test, NoExternalAddressIsNeeded) {
  network.external.clear();
  set_network();
  EXPECT_TRUE(install(pinhole(Transport::udp, alice6, 3074)));
}

TEST_F(Firewall6Test, SuggestionsAndInsistence) {
  auto wish = pinhole(Transport::udp, alice6, 3074);
  wish.suggested = port(9999);
  const auto installed = install(wish);
  ASSERT_TRUE(installed);
  EXPECT_EQ(installed->external.port.number(), 3074);
  EXPECT_EQ(install(wish).error(), nat::PlaneErrc::port_taken);
  auto other = pinhole(Transport::udp, alice6, 3075);
  other.suggested = port(9999);
  other.insist = true;
  EXPECT_EQ(install(other).error(), nat::PlaneErrc::port_reserved);
  other.suggested = port(3075);
  EXPECT_TRUE(install(other));
  EXPECT_TRUE(install(pinhole(Transport::tcp, alice6, 3074)));
  EXPECT_TRUE(install(pinhole(Transport::udp, bob6, 3074)));
}

TEST_F(Firewall6Test, FiltersLimitWhoComesIn) {  // PCP-13.3
  auto wish = pinhole(Transport::udp, alice6, 3074);
  wish.remotes = {{{address6("2001:db8:f::"), 125}, std::nullopt}, {{address6(other6), 128}, port(7)}};
  const auto installed = install(wish);
  ASSERT_TRUE(installed);
  EXPECT_EQ(in(udp6(server6, 1, alice6, 3074)).substr(0, 4), "lan:");
  EXPECT_EQ(in(udp6(other6, 1, alice6, 3074)), "dropped: filtered");
  EXPECT_EQ(in(udp6(other6, 7, alice6, 3074)).substr(0, 4), "lan:");
  out(udp6(alice6, 3074, "2001:db8:e::1", 5));
  EXPECT_EQ(in(udp6("2001:db8:e::1", 5, alice6, 3074)).substr(0, 4), "lan:") << "the host asked";
  EXPECT_EQ(in(udp6("2001:db8:e::1", 6, alice6, 3074)), "dropped: filtered");
  ASSERT_TRUE(plane.set_remotes(installed->id, {}, false, now));
  EXPECT_EQ(in(udp6(other6, 1, alice6, 3074)).substr(0, 4), "lan:");
}

TEST_F(Firewall6Test, PeerLetsInWhomOutboundTrafficWouldLetIn) {  // PCP PEER
  auto wish = pinhole(Transport::udp, alice6, 3074);
  wish.remotes = {{{address6(server6), 128}, port(53)}};
  wish.outbound = true;
  ASSERT_TRUE(install(wish));
  EXPECT_EQ(in(udp6(other6, 1, alice6, 3074)), "dropped: filtered");
  out(udp6(alice6, 3074, other6, 5));
  EXPECT_EQ(in(udp6(other6, 1, alice6, 3074)).substr(0, 4), "lan:");
}

TEST_F(Firewall6Test, ADisabledPinholeHoldsItsPlaceAndLetsNobodyIn) {  // POL-TGT-09
  auto wish = pinhole(Transport::udp, alice6, 3074);
  wish.enabled = false;
  ASSERT_TRUE(install(wish));
  EXPECT_EQ(in(udp6(server6, 1, alice6, 3074)), "dropped: disabled");
  EXPECT_EQ(install(pinhole(Transport::udp, alice6, 3074)).error(), nat::PlaneErrc::port_taken);
  out(udp6(alice6, 3074, server6, 1));
  EXPECT_EQ(in(udp6(server6, 1, alice6, 3074)).substr(0, 4), "lan:") << "what the host asks is answered";
  EXPECT_EQ(in(udp6(other6, 1, alice6, 3074)), "dropped: filtered");
}

TEST_F(Firewall6Test, ADeadlineIsExact) {  // NMAP-05
  auto wish = pinhole(Transport::tcp, alice6, 80);
  wish.deadline = now + 10s + 500ms;
  const auto installed = install(wish);
  ASSERT_TRUE(installed);
  be_called();
  wait(10s + 499ms);
  EXPECT_EQ(in(tcp6(other6, 1, alice6, 80, syn)).substr(0, 4), "lan:");
  EXPECT_EQ(in(tcp6(server6, 40000, alice6, 80, 0).seq(500).ack(100)).substr(0, 4), "lan:");
  wait(1ms);
  EXPECT_EQ(in(tcp6(other6, 2, alice6, 80, syn)), "dropped: no_mapping");
  EXPECT_EQ(in(tcp6(server6, 40000, alice6, 80, 0).seq(500).ack(100)), "dropped: ended");
  EXPECT_EQ(out(tcp6(alice6, 80, server6, 40000, 0).seq(100).ack(500)), "dropped: ended");
  EXPECT_EQ(install(pinhole(Transport::tcp, alice6, 80)).error(), nat::PlaneErrc::port_taken)
      << "not withdrawn yet";
  // renewed in time, it goes on
  ASSERT_TRUE(plane.renew(installed->id, now + 60s));
  EXPECT_EQ(in(tcp6(server6, 40000, alice6, 80, 0).seq(500).ack(100)).substr(0, 4), "lan:");
  // nobody withdraws: the sweep ends it
  live(64s);
  EXPECT_EQ(plane.status().explicit_mappings, 0U);
  EXPECT_EQ(plane.renew(installed->id, now + 60s).error(), nat::PlaneErrc::not_found);
  EXPECT_TRUE(install(pinhole(Transport::tcp, alice6, 80)));
  plane.withdraw(installed->id, nat::Ending::reset, now);
  EXPECT_EQ(plane.status().explicit_mappings, 1U) << "another one's id";
}

TEST_F(Firewall6Test, ARevokeEndsLiveFlowsWithRsts) {  // NMAP-09
  const auto tcp_hole = open6(Transport::tcp, alice6, 80);
  be_called();
  plane.withdraw(tcp_hole.id, nat::Ending::reset, now);
  const auto rsts = plane.take_made();
  EXPECT_EQ(lines(rsts),
            "lan: tcp [2001:db8:f::7]:40000 > [2001:db8:1::10]:80 AR hops=64\n"
            "wan: tcp [2001:db8:1::10]:80 > [2001:db8:f::7]:40000 AR hops=64");
  ASSERT_EQ(rsts.size(), 2U);
  EXPECT_EQ(get32(rsts[0].octets, 44), 500U) << "exactly what the host expects next";
  EXPECT_EQ(get32(rsts[1].octets, 44), 100U);
  EXPECT_EQ(in(tcp6(server6, 40000, alice6, 80, 0).seq(500).ack(100)),
            "wan: tcp [2001:db8:1::10]:80 > [2001:db8:f::7]:40000 R hops=64");
  EXPECT_EQ(plane.last_reason(), nat::DropReason::ended);
  EXPECT_EQ(out(tcp6(alice6, 80, server6, 40000, psh).seq(100).ack(500)),
            "lan: tcp [2001:db8:f::7]:40000 > [2001:db8:1::10]:80 R hops=64");
  EXPECT_EQ(in(tcp6(server6, 40000, alice6, 80, syn)), "dropped: ended");
  live(122s);
  EXPECT_EQ(in(tcp6(server6, 40000, alice6, 80, 0).seq(500).ack(100)), "dropped: no_mapping");
  EXPECT_EQ(plane.status().flows, 0U);
}

TEST_F(Firewall6Test, ARevokedUdpConversationIsOverBothWays) {  // NMAP-09
  const auto hole = open6(Transport::udp, alice6, 3074);
  in(udp6(server6, 1, alice6, 3074));
  out(udp6(alice6, 3074, server6, 1));
  plane.withdraw(hole.id, nat::Ending::reset, now);
  EXPECT_EQ(made(), "");
  EXPECT_EQ(in(udp6(server6, 1, alice6, 3074)), "dropped: ended");
  EXPECT_EQ(out(udp6(alice6, 3074, server6, 1)), "dropped: ended");
  EXPECT_EQ(out(udp6(alice6, 3074, other6, 1)).substr(0, 4), "wan:")
      << "another peer is another conversation";
  EXPECT_EQ(in(udp6(server6, 2, alice6, 3074)), "dropped: filtered");
  // opened again, all may begin anew at once
  open6(Transport::udp, alice6, 3074);
  EXPECT_EQ(in(udp6(server6, 1, alice6, 3074)).substr(0, 4), "lan:");
  EXPECT_EQ(out(udp6(alice6, 3074, server6, 1)).substr(0, 4), "wan:");
}

TEST_F(Firewall6Test, ADrainedPinholeLetsLiveFlowsGoOn) {  // NMAP-09
  const auto hole = open6(Transport::tcp, alice6, 80);
  be_called();
  plane.withdraw(hole.id, nat::Ending::drain, now);
  EXPECT_EQ(made(), "");
  EXPECT_EQ(in(tcp6(server6, 40000, alice6, 80, 0).seq(500).ack(100)).substr(0, 4), "lan:");
  EXPECT_EQ(out(tcp6(alice6, 80, server6, 40000, 0).seq(100).ack(500)).substr(0, 4), "wan:");
  EXPECT_EQ(in(tcp6(server6, 40001, alice6, 80, syn)), "dropped: no_mapping");
  EXPECT_FALSE(plane.has_implicit(Transport::tcp, {address6(alice6), port(80)}, now));
}

TEST_F(Firewall6Test, AVacatedPinholeLeavesNothing) {
  const auto hole = open6(Transport::udp, alice6, 3074);
  out(udp6(alice6, 3074, server6, 1));
  plane.withdraw(hole.id, nat::Ending::vacate, now);
  EXPECT_EQ(plane.status().flows, 0U);
  EXPECT_EQ(out(udp6(alice6, 3074, server6, 1)).substr(0, 4), "wan:");
  EXPECT_FALSE(plane.counters(hole.id));
}

TEST_F(Firewall6Test, HasImplicitTellsOfOutboundFlows) {
  const InternalEndpoint endpoint{address6(alice6), port(5000)};
  EXPECT_FALSE(plane.has_implicit(Transport::udp, endpoint, now));
  out(udp6(alice6, 5000, server6, 53));
  EXPECT_TRUE(plane.has_implicit(Transport::udp, endpoint, now));
  EXPECT_FALSE(plane.has_implicit(Transport::tcp, endpoint, now));
  EXPECT_TRUE(plane.implicit_mappings(now).empty());
  wait(302s);
  EXPECT_FALSE(plane.has_implicit(Transport::udp, endpoint, now));
}

TEST_F(Firewall6Test, ABlockedDeviceLosesEveryFlow) {  // revoke --block
  const auto hole = open6(Transport::tcp, alice6, 80);
  be_called();
  connect(5000);
  connect(5000, bob6);
  out(udp6(alice6, 7, server6, 53));
  plane.end_flows(address6(alice6), now);
  EXPECT_EQ(plane.take_made().size(), 4U);
  EXPECT_EQ(plane.status().flows, 1U) << "bob's";
  EXPECT_EQ(in(udp6(server6, 53, alice6, 7)), "dropped: no_mapping");
  EXPECT_EQ(in(tcp6(other6, 9, alice6, 80, syn)).substr(0, 4), "lan:") << "leases end by withdraw";
  plane.withdraw(hole.id, nat::Ending::reset, now);
}

TEST_F(Firewall6Test, AFlowOfAnotherNetworkEnds) {
  out(udp6(alice6, 5000, server6, 53));
  const auto hole = open6(Transport::udp, alice6, 3074);
  network.lan[0].prefixes[1] = {address6("2001:db8:3::"), 64};
  set_network();
  EXPECT_EQ(plane.status().flows, 0U);
  EXPECT_EQ(in(udp6(server6, 53, alice6, 3074)), "dropped: not_ours")
      << "the pinhole stands, its prefix does not";
  EXPECT_EQ(out(udp6(alice6, 3074, server6, 53)), "dropped: spoofed_source");
  EXPECT_TRUE(plane.counters(hole.id));
}

TEST_F(Firewall6Test, Ipv4AndIpv6ShareAPlane) {
  const auto four = open(Transport::udp, alice, 3074, 3074);
  const auto six = open6(Transport::udp, alice6, 3074);
  EXPECT_NE(four.id, six.id);
  EXPECT_EQ(plane.status().explicit_mappings, 2U);
  plane.withdraw(six.id, nat::Ending::reset, now);
  EXPECT_EQ(plane.status().explicit_mappings, 1U);
  EXPECT_TRUE(plane.counters(four.id));
  EXPECT_EQ(from_wan(udp(server, 1, external_address, 3074)).substr(0, 4), "lan:");
}

class Firewall6BehindAStack : public Firewall6Test {
 protected:
  Firewall6BehindAStack() : Firewall6Test(nat::TtlMode::compensate) {}
};

TEST_F(Firewall6BehindAStack, TheHopLimitIsGivenBack) {
  EXPECT_EQ(out(udp6(alice6, 5000, server6, 53).hops(63)).substr(0, 3), "wan");
  EXPECT_EQ(out(udp6(alice6, 5000, server6, 53).hops(1)),
            "wan: udp [2001:db8:1::10]:5000 > [2001:db8:f::7]:53 hops=2");
  EXPECT_EQ(out(udp6(alice6, 5000, server6, 53).hops(255)),
            "wan: udp [2001:db8:1::10]:5000 > [2001:db8:f::7]:53 hops=255");
  EXPECT_EQ(out(udp6(alice6, 5000, server6, 53).payload(std::string(3000, 'x'))).substr(0, 3), "wan");
}

}  // namespace
}  // namespace sallyport::test
