#include "tests/support/nat_lan.hpp"

// What an attacker may try: nat.md section 11, policy.md section 12.

namespace sallyport::test {
namespace {

using namespace flag;

class SecurityTest : public NatLan {};

TEST_F(SecurityTest, NothingReachesInternalAddressesStraightFromTheWan) {  // NSEC-01
  EXPECT_EQ(from_wan(udp(server, 53, alice, 5000)), "dropped: internal_destination");
  leaves(udp(alice, 5000, server, 53));
  EXPECT_EQ(from_wan(udp(server, 53, alice, 5000)), "dropped: internal_destination");
  EXPECT_EQ(from_wan(udp(server, 53, gateway_address, 5351)), "dropped: internal_destination");
}

TEST_F(SecurityTest, ForeignSourcesFromTheLanAreDropped) {  // NSEC-02, POL-NET-02
  for (const char* source : {"10.0.0.1", "198.51.100.9", gateway_address, external_address, "192.168.1.255",
                             "192.168.1.0", "127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255"}) {
    EXPECT_EQ(from_lan(udp(source, 5000, server, 53)), "dropped: spoofed_source") << source;
    EXPECT_EQ(from_lan(udp(source, 5000, external_address, 53)), "dropped: spoofed_source") << source;
  }
}

TEST_F(SecurityTest, MartiansFromTheWanAreDropped) {  // NSEC-03, POL-NET-03
  open(Transport::udp, alice, 6000, 7000);
  for (const char* source : {alice, gateway_address, external_address, "0.1.2.3", "127.0.0.1", "169.254.1.1",
                             "224.0.0.1", "240.0.0.1", "255.255.255.255"}) {
    EXPECT_EQ(from_wan(udp(source, 5000, external_address, 7000)), "dropped: martian_source") << source;
    EXPECT_EQ(from_wan(udp(source, 5000, external_address, 7001)), "dropped: martian_source") << source;
    EXPECT_EQ(from_wan(echo(source, external_address, 1)), "dropped: martian_source") << source;
  }
  EXPECT_EQ(from_wan(udp("10.0.0.1", 5000, external_address, 7000)).substr(0, 4), "lan:");
  policy.drop_private_wan_sources = true;
  set_policy();
  EXPECT_EQ(from_wan(udp("10.0.0.1", 5000, external_address, 7000)), "dropped: martian_source");
}

/// Group and broadcast packets are the gateway's own services' to hear, so the source is looked at first.
TEST_F(SecurityTest, MartiansFromTheWanReachNoGroupEither) {  // NSEC-03, POL-NET-03
  const auto fate = [&](const char* source, const char* destination) {
    return from_wan(udp(source, 5000, destination, 1900));
  };
  for (const char* destination : {"255.255.255.255", "224.0.0.1", "239.255.255.250"}) {
    for (const char* source : {alice, "192.168.1.99", gateway_address, external_address, "0.1.2.3",
                               "127.0.0.1", "169.254.1.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"})
      EXPECT_EQ(fate(source, destination), "dropped: martian_source") << source << ' ' << destination;
    // Who asks for an address has none; providers answer from their link or from private addresses. Nothing
    // is forwarded.
    for (const char* source : {"0.0.0.0", "203.0.113.1", "10.0.0.1", server})
      EXPECT_EQ(fate(source, destination), "dropped: martian_destination") << source << ' ' << destination;
  }
  EXPECT_EQ(fate(server, "203.0.113.255"), "dropped: not_ours") << "the WAN's directed broadcast";
  EXPECT_EQ(fate(alice, "203.0.113.255"), "dropped: martian_source");
  network.external.clear();
  set_network();
  EXPECT_EQ(fate(alice, "255.255.255.255"), "dropped: martian_source") << "without an external address";
  EXPECT_EQ(fate("0.0.0.0", "255.255.255.255"), "dropped: martian_destination");
}

TEST_F(SecurityTest, AHairpinVouchesForNoSpoofedPacketFromTheWan) {  // NSEC-03, LAND
  open(Transport::udp, bob, 6000, 7000);
  EXPECT_EQ(from_lan(udp(alice, 5000, external_address, 7000)).substr(0, 4), "lan:");
  EXPECT_EQ(from_wan(udp(external_address, 7000, external_address, 5000)), "dropped: martian_source");
  EXPECT_EQ(from_wan(udp(external_address, 5000, external_address, 7000)), "dropped: martian_source");
}

TEST_F(SecurityTest, TheRouterTellsTheWanOfNoClosedPortOrProtocol) {  // POL-NET-04
  EXPECT_EQ(from_router(icmp_error(external_address, server, 3, 3, udp(server, 53, external_address, 68))),
            "dropped: no_mapping");
  EXPECT_EQ(from_router(icmp_error(external_address, server, 3, 2,
                                   make_ip(47, server, external_address).payload("12345678"))),
            "dropped: no_mapping");
  const auto last_hop = icmp_error(external_address, server, 11, 0, udp(server, 53, external_address, 7000));
  EXPECT_EQ(from_router(last_hop), "dropped: no_mapping");
  open(Transport::udp, alice, 6000, 7000);
  EXPECT_EQ(from_router(last_hop).substr(0, 4), "wan:");  // N4787-32
}

TEST_F(SecurityTest, GroupsAndBroadcastsGoNowhere) {  // POL-NET-03
  for (const char* destination :
       {"224.0.0.1", "239.255.255.250", "255.255.255.255", "127.0.0.1", "0.0.0.0", "169.254.0.9"}) {
    EXPECT_EQ(from_lan(udp(alice, 5000, destination, 1900)), "dropped: martian_destination") << destination;
    EXPECT_EQ(from_wan(udp(server, 5000, destination, 1900)), "dropped: martian_destination") << destination;
  }
  EXPECT_EQ(from_wan(udp(server, 5000, "198.51.100.99", 1900)), "dropped: not_ours");
}

TEST_F(SecurityTest, OwnServicesAreReachedControlPortsAreNot) {  // POL-NET-04, NSEC-05
  plane.listen(Transport::tcp, 22);
  plane.listen(Transport::udp, 5351);
  plane.listen(Transport::udp, 1900);
  EXPECT_EQ(from_wan(tcp(server, 999, external_address, 22, syn)),
            "local: tcp 198.51.100.7:999 > 203.0.113.2:22 S ttl=64");
  EXPECT_EQ(from_wan(udp(server, 999, external_address, 5351)), "dropped: no_mapping");
  EXPECT_EQ(from_wan(udp(server, 999, external_address, 1900)), "dropped: no_mapping");
}

TEST_F(SecurityTest, HairpinReachesMappingsOnly) {  // NSEC-08, POL-NET-15
  plane.listen(Transport::tcp, 22);
  EXPECT_EQ(from_lan(tcp(alice, 5000, external_address, 22, syn)), "dropped: no_mapping");
  EXPECT_EQ(from_lan(udp(alice, 5000, external_address, 9)), "dropped: no_mapping");
  EXPECT_EQ(plane.status().implicit_mappings, 0U);
}

TEST_F(SecurityTest, HairpinObeysTheSameFilters) {  // POL-NET-15
  leaves(udp(bob, 6000, server, 53));
  EXPECT_EQ(from_lan(udp(alice, 5000, external_address, 6000)), "dropped: filtered");
  auto spec = wish(Transport::udp, bob, 7000, 7000);
  spec.remotes = {{Prefix::v4(ip(server), 32), std::nullopt}};
  ASSERT_TRUE(install(spec));
  EXPECT_EQ(from_lan(udp(alice, 5000, external_address, 7000)), "dropped: filtered");
}

TEST_F(SecurityTest, APacketToItsOwnSenderNeverCircles) {  // POL-NET-15
  open(Transport::udp, alice, 6000, 7000);
  EXPECT_EQ(from_lan(udp(alice, 6000, external_address, 7000)), "dropped: hairpin_to_itself");
}

TEST_F(SecurityTest, MalformedPacketsAreCountedByReason) {  // NSEC-07, NPKT-08, POL-NET-05
  const Octets good = udp(alice, 5000, server, 53);
  const auto broken = [&](std::size_t at, unsigned value, bool sum = true) {
    Octets packet = good;
    put8(packet, at, value);
    if (sum) set_ip_checksum(packet);
    return from_lan(packet);
  };
  EXPECT_EQ(broken(0, 0x55, false), "dropped: bad_version");
  EXPECT_EQ(broken(0, 0x44, false), "dropped: bad_header_length");
  EXPECT_EQ(broken(3, 200), "dropped: bad_total_length");
  EXPECT_EQ(broken(3, 12), "dropped: bad_total_length");
  EXPECT_EQ(broken(10, 0xff, false), "dropped: bad_header_checksum");
  EXPECT_EQ(broken(8, 0), "dropped: ttl_zero");
  EXPECT_EQ(broken(25, 200), "dropped: bad_transport_length");
  EXPECT_EQ(from_lan(udp(alice, 0, server, 53)), "dropped: port_zero");
  EXPECT_EQ(from_lan(udp(alice, 5000, server, 0)), "dropped: port_zero");
  const Octets source_route{std::byte{131}, std::byte{7}, std::byte{4}, {}, {}, {}, {}, std::byte{0}};
  EXPECT_EQ(from_lan(udp(alice, 5000, server, 53).options(source_route)),
            "dropped: source_route");  // NPKT-10
  const Octets nonsense{std::byte{7}, std::byte{77}, {}, {}};
  EXPECT_EQ(from_lan(udp(alice, 5000, server, 53).options(nonsense)), "dropped: bad_option");
  std::uint64_t counted = 0;
  for (const auto& [reason, count] : plane.status().drops) counted += count;
  EXPECT_EQ(counted, 11U);
}

TEST_F(SecurityTest, EveryTruncationIsDropped) {  // NPKT-08
  const Octets packet = tcp(alice, 5000, server, 80, syn).mss(1460).payload("data");
  for (std::size_t size = 0; size < packet.size(); ++size) {
    Octets cut(packet.begin(), packet.begin() + static_cast<std::ptrdiff_t>(size));
    cut.shrink_to_fit();
    EXPECT_EQ(from_lan(cut).substr(0, 8), "dropped:") << size;
    if (size < 20 || size >= 44) continue;  // what is cut now says so itself
    put16(cut, 2, static_cast<unsigned>(size));
    set_ip_checksum(cut);
    EXPECT_EQ(from_lan(cut).substr(0, 8), "dropped:") << size;
  }
}

TEST_F(SecurityTest, PaddingIsCutOff) {
  Octets packet = udp(alice, 5000, server, 53);
  const auto size = packet.size();
  packet.resize(60);
  EXPECT_EQ(leaves(packet).size(), size);
}

TEST_F(SecurityTest, MutatedPacketsDoNoHarm) {
  open(Transport::tcp, alice, 80, 8080);
  open(Transport::udp, alice, 6000, 7000);
  check_transport = false;
  const Octets left = leaves(udp(alice, 5000, server, 53));
  const std::vector<std::pair<Octets, nat::Side>> seeds{
      {udp(alice, 5000, server, 53), nat::Side::lan},
      {udp(server, 53, external_address, 7000), nat::Side::wan},
      {tcp(alice, 5000, server, 80, syn).mss(1460), nat::Side::lan},
      {tcp(server, 999, external_address, 8080, syn).mss(1460), nat::Side::wan},
      {icmp_error(other_server, external_address, 3, 1, left, 1500), nat::Side::wan},
      {icmp_error(alice, server, 3, 3, udp(server, 53, alice, 6000), 1500), nat::Side::lan},
      {echo(alice, server, 77), nat::Side::lan},
      {fragments_of(udp(alice, 5000, server, 53).dont_fragment(false).payload(std::string(100, 'x')),
                    {48})[0],
       nat::Side::lan},
      {fragments_of(udp(alice, 5000, server, 53).dont_fragment(false).payload(std::string(100, 'x')),
                    {48})[1],
       nat::Side::lan},
      {udp(alice, 5000, external_address, 7000), nat::Side::lan}};
  std::mt19937 random{4711};
  for (int round = 0; round < 100000; ++round) {
    auto [packet, side] = seeds[random() % seeds.size()];
    for (unsigned change = 0; change <= random() % 4; ++change)
      put8(packet, random() % packet.size(), static_cast<unsigned>(random() & 255));
    if (random() % 4) {
      if (header_length(packet) >= 20 && header_length(packet) <= packet.size()) set_ip_checksum(packet);
    }
    if (random() % 8 == 0) now += std::chrono::seconds{random() % 60};
    packet.shrink_to_fit();
    for (const auto& out : plane.pass(packet, side, now)) {
      if (out.where == nat::Action::local) continue;
      ASSERT_TRUE(ip_checksum_is_right(out.octets));
      // Nothing with an internal source leaves by the WAN (POL-NET-01).
      if (out.where == nat::Action::forward_wan) {
        ASSERT_EQ(get32(out.octets, 12), ip(external_address));
      }
    }
    if (round % 1000 == 0) plane.sweep(now);
  }
}

TEST_F(SecurityTest, AFullTableRefusesNewFlowsAndKeepsTheOld) {  // NSEC-04, POL-QTA-05, N6888-11
  policy.flows_total = 100;
  set_policy();
  for (unsigned i = 0; i < 100; ++i) leaves(udp(alice, 5000 + i, server, 53));
  EXPECT_EQ(from_lan(udp(bob, 5000, server, 53)), "lan: icmp 3/1 id=0 192.168.1.1 > 192.168.1.11 ttl=64");
  EXPECT_EQ(plane.status().implicit_mappings, 100U);
  for (unsigned i = 0; i < 100; ++i)
    EXPECT_EQ(source_port(leaves(udp(alice, 5000 + i, server, 53))), 5000 + i);
}

TEST_F(SecurityTest, EveryFlowOfAFullTableIsFoundAndWhatEndedMakesRoom) {  // NSEC-04, NMAP-12
  check_transport = false;
  policy.flows_per_device = 0;
  policy.flows_total = 0;
  set_policy();
  constexpr unsigned remotes = 40, ports = 300;
  const auto remote = [](unsigned i) { return "198.51.100." + std::to_string(1 + i); };
  for (unsigned round = 0; round < 2; ++round) {
    for (unsigned i = 0; i < remotes * ports; ++i)
      plane.pass(udp(alice, 5000, remote(i % remotes).c_str(), 1024 + i / remotes), nat::Side::lan, now);
    EXPECT_GE(plane.status().flows, remotes * ports);
    // Only a flow lets an answer in when filtering is by address and port.
    policy.implicit = nat::Filtering::address_and_port;
    set_policy();
    unsigned found = 0;
    for (unsigned i = 0; i < remotes * ports; ++i)
      found += plane
                   .pass(udp(remote(i % remotes).c_str(), 1024 + i / remotes, external_address, 5000),
                         nat::Side::wan, now)
                   .size();
    EXPECT_EQ(found, remotes * ports);
    policy.implicit = nat::Filtering::address;
    set_policy();
    live(400s);
    EXPECT_EQ(plane.status().flows, 0U);
  }
}

TEST_F(SecurityTest, ADevicesLimitIsItsOwn) {  // NSEC-04, N6888-04, -05, POL-QTA-04, -06
  policy.flows_per_device = 10;
  policy.icmp_ids_per_device = 5;
  set_policy();
  for (unsigned i = 0; i < 10; ++i) leaves(udp(alice, 5000, server, 53 + i));
  EXPECT_EQ(from_lan(udp(alice, 5000, server, 99)), "lan: icmp 3/13 id=0 192.168.1.1 > 192.168.1.10 ttl=64");
  EXPECT_EQ(source_port(leaves(udp(bob, 5001, server, 53))), 5001);
  for (unsigned i = 0; i < 5; ++i) leaves(echo(bob, server, i + 1));
  EXPECT_EQ(from_lan(echo(bob, server, 99)), "lan: icmp 3/13 id=0 192.168.1.1 > 192.168.1.11 ttl=64");
  live(400s);
  leaves(udp(alice, 5000, server, 99));
}

TEST_F(SecurityTest, ADeviceMakesSoManyMappingsASecond) {  // N6888-04
  policy.new_mappings_per_second = 5;
  set_policy();
  for (unsigned i = 0; i < 5; ++i) leaves(udp(alice, 5000 + i, server, 53));
  EXPECT_EQ(from_lan(udp(alice, 5005, server, 53)), "lan: icmp 3/13 id=0 192.168.1.1 > 192.168.1.10 ttl=64");
  leaves(udp(alice, 5000, other_server, 53));  // what it has goes on
  leaves(udp(bob, 5000, server, 53));          // and so do others
  live(1s);
  leaves(udp(alice, 5005, server, 53));
}

TEST_F(SecurityTest, ASynFloodOnALeaseLeavesRealPeersAndOthersWorking) {  // POL-NET-14
  policy.flows_total = 1000;
  set_policy();
  open(Transport::tcp, alice, 80, 8080);
  const auto real = [&](unsigned flags, std::uint32_t seq) {
    return tcp(server, 999, external_address, 8080, flags).seq(seq);
  };
  from_wan(real(syn, 5000));
  EXPECT_EQ(from_lan(tcp(alice, 80, server, 999, syn).seq(1000).ack(5001)).substr(0, 4), "wan:");
  from_wan(real(0, 5001).ack(1001));
  for (unsigned i = 0; i < 20000; ++i)
    plane.pass(tcp("100." + std::to_string(i >> 8) + '.' + std::to_string(i & 255) + ".1", 1000 + i % 50000,
                   external_address, 8080, syn),
               nat::Side::wan, now);
  EXPECT_LE(plane.status().flows, 1000U);
  EXPECT_EQ(from_wan(real(0, 5001).ack(1001)), "lan: tcp 198.51.100.7:999 > 192.168.1.10:80 A ttl=63");
  EXPECT_EQ(from_lan(udp(bob, 5000, server, 53)).substr(0, 4), "wan:");
  EXPECT_EQ(from_wan(tcp(other_server, 999, external_address, 8080, syn).seq(1)).substr(0, 4), "lan:");
  EXPECT_EQ(from_lan(tcp(alice, 80, other_server, 999, syn).seq(1).ack(2)).substr(0, 4), "wan:");
}

TEST_F(SecurityTest, AFloodThatTheHostAnswersGivesWayToo) {  // POL-NET-14
  policy.flows_total = 1000;
  set_policy();
  open(Transport::tcp, alice, 80, 8080);
  for (unsigned i = 0; i < 3000; ++i) {
    const std::string spoofed = "100.1." + std::to_string(i >> 8) + '.' + std::to_string(i & 255);
    plane.pass(tcp(spoofed, 999, external_address, 8080, syn).seq(5000), nat::Side::wan, now);
    plane.pass(tcp(alice, 80, spoofed, 999, syn).seq(1000).ack(5001), nat::Side::lan, now);
  }
  EXPECT_EQ(from_lan(udp(bob, 5000, server, 53)).substr(0, 4), "wan:");
}

TEST_F(SecurityTest, AUdpFloodThatTheHostAnswersLeavesItsRealPeers) {  // POL-NET-14
  policy.flows_per_device = 100;
  set_policy();
  open(Transport::udp, alice, 6000, 7000);
  for (unsigned i = 0; i < 300; ++i) {
    const std::string spoofed = "100.1." + std::to_string(i >> 8) + '.' + std::to_string(i & 255);
    plane.pass(udp(spoofed, 999, external_address, 7000), nat::Side::wan, now);
    plane.pass(udp(alice, 6000, spoofed, 999), nat::Side::lan, now);
  }
  EXPECT_EQ(plane.status().flows, 100U);
  EXPECT_EQ(from_wan(udp(server, 53, external_address, 7000)).substr(0, 4), "lan:");
  EXPECT_EQ(source_port(leaves(udp(alice, 6000, server, 53))), 7000);
}

// What gives way in a full table may be the last flow of the mapping that the new one is for.
TEST_F(SecurityTest, AMappingOutlivesTheFlowThatGivesWayToItsNext) {  // POL-NET-14, N4787-03
  if (stack_forwards())
    GTEST_SKIP() << "what outsiders begin has a table of its own there, and fills no other";
  policy.flows_total = 10;
  policy.implicit = nat::Filtering::endpoint;
  set_policy();
  leaves(tcp(alice, 5000, server, 80, syn).seq(1000));
  wait(200s);
  EXPECT_EQ(from_wan(tcp(other_server, 999, external_address, 5000, syn)).substr(0, 4), "lan:");
  wait(50s);
  plane.sweep(now);  // alice's own flow is over
  for (unsigned i = 0; plane.status().flows < 10; ++i) leaves(udp(bob, 7000 + i, server, 53));
  EXPECT_EQ(source_port(leaves(tcp(alice, 5000, server, 443, syn).seq(1000))), 5000);
  EXPECT_EQ(plane.status().flows, 10U);
  EXPECT_EQ(plane.implicit_mappings(now).size(), 10U);
  // The port is hers still: nobody else gets it, and answers find her.
  wait(1s);
  EXPECT_EQ(from_wan(tcp(server, 443, external_address, 5000, syn).seq(1).ack(1001)),
            "lan: tcp 198.51.100.7:443 > 192.168.1.10:5000 SA ttl=63");
}

TEST_F(SecurityTest, ALeaseWithoutFilterDeliversWithoutAFreeEntry) {  // POL-NET-14
  policy.flows_total = 10;
  set_policy();
  open(Transport::tcp, alice, 80, 8080);
  for (unsigned i = 0; i < 10; ++i) leaves(udp(bob, 5000 + i, server, 53));
  EXPECT_EQ(from_wan(tcp(server, 999, external_address, 8080, syn).seq(5000)).substr(0, 4), "lan:");
  EXPECT_EQ(from_lan(tcp(alice, 80, server, 999, syn).seq(1000).ack(5001)),
            "wan: tcp 203.0.113.2:8080 > 198.51.100.7:999 SA ttl=63");
  EXPECT_EQ(from_wan(tcp(server, 999, external_address, 8080, 0).seq(5001).ack(1001)).substr(0, 4), "lan:");
}

TEST_F(SecurityTest, NoPayloadOpensAPort) {  // POL-NET-11, NSEC-06, N4787-17, N5382-15
  leaves(tcp(alice, 5000, server, 21, syn));
  const auto out =
      leaves(tcp(alice, 5000, server, 21, psh).seq(1001).ack(1).payload("PORT 192,168,1,10,31,144\r\n"));
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(out.data()) + 40, 24), "PORT 192,168,1,10,31,144");
  EXPECT_EQ(from_wan(tcp(server, 20, external_address, 8080, syn)), "dropped: no_mapping");
}

TEST_F(SecurityTest, UntranslatedPrefixesPassAsTheyAre) {  // N6888-06, POL-NET-01
  network.untranslated = {Prefix::v4(ip("10.8.0.0"), 16)};
  set_network();
  EXPECT_EQ(from_lan(udp(alice, 5000, "10.8.1.1", 53)), "wan: udp 192.168.1.10:5000 > 10.8.1.1:53 ttl=63");
  EXPECT_EQ(from_wan(udp("10.8.1.1", 53, alice, 5000)), "lan: udp 10.8.1.1:53 > 192.168.1.10:5000 ttl=63");
  EXPECT_EQ(from_wan(udp("10.9.1.1", 53, alice, 5000)), "dropped: internal_destination");
}

TEST_F(SecurityTest, APrefixThatIsNoLongerTranslatedEndsItsFlows) {  // N6888-06
  EXPECT_EQ(from_lan(udp(alice, 5000, "10.8.1.1", 53)).substr(0, 23), "wan: udp 203.0.113.2:50");
  network.untranslated = {Prefix::v4(ip("10.8.0.0"), 16)};
  set_network();
  EXPECT_EQ(from_lan(udp(alice, 5000, "10.8.1.1", 53)), "wan: udp 192.168.1.10:5000 > 10.8.1.1:53 ttl=63");
}

TEST_F(SecurityTest, OtherProtocolsAreRefusedToTheirSender) {  // N5597-08, POL-NET-01
  for (const unsigned protocol : {33U, 47U, 50U, 132U, 41U})
    EXPECT_EQ(from_lan(make_ip(protocol, alice, server).payload("12345678")),
              "lan: icmp 3/2 id=0 192.168.1.1 > 192.168.1.10 ttl=64");
  EXPECT_EQ(from_wan(make_ip(47, server, external_address).payload("12345678")), "dropped: unknown_protocol");
}

TEST_F(SecurityTest, MappingsOfAnEvenFloodFindEveryPort) {  // N6888-14, POL-FAIR-03
  policy.pool = {2000, 2999};
  policy.mappings_per_device = 0;
  set_policy();
  std::set<std::uint16_t> ports;
  for (unsigned i = 0; i < 1000; ++i)
    ports.insert(source_port(leaves(udp(i % 2 ? alice : bob, 40000 + i, server, 53))));
  EXPECT_EQ(ports.size(), 1000U);
  EXPECT_EQ(from_lan(udp(alice, 39999, server, 53)), "lan: icmp 3/1 id=0 192.168.1.1 > 192.168.1.10 ttl=64");
  bool told = false;
  for (const auto& event : plane.sweep(now)) told |= event.kind == nat::PlaneEvent::Kind::shortage;
  EXPECT_TRUE(told);
  wait(302s);  // what is over is free at once, swept or not
  EXPECT_EQ(from_lan(udp(alice, 39999, server, 53)).substr(0, 4), "wan:");
}

}  // namespace
}  // namespace sallyport::test
