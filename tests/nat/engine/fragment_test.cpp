#include "nat/engine/fragments.hpp"

#include "tests/support/nat_lan.hpp"

// Fragments in any order, and what is done with bad ones: RFC 4787 REQ-14, RFC 1858, RFC 3128, policy.md 12.

namespace sallyport::test {
namespace {

class FragmentTest : public NatLan {
 protected:
  static Octets big(unsigned id = 99, const char* from = alice, std::size_t size = 400) {
    std::string text(size, 'x');
    for (std::size_t i = 0; i < size; ++i) text[i] = static_cast<char>('a' + i % 26);
    return udp(from, 5000, server, 53).id(id).dont_fragment(false).payload(text);
  }
  /// Puts fragments together; empty when they do not make a datagram.
  static Octets join(const std::vector<TestPlane::Emitted>& parts) {
    if (parts.empty()) return {};
    std::map<unsigned, const Octets*> by_offset;
    for (const auto& part : parts) by_offset[get16(part.octets, 6) & 0x1fff] = &part.octets;
    Octets whole(by_offset.begin()->second->begin(), by_offset.begin()->second->begin() + 20);
    for (const auto& [offset, octets] : by_offset) {
      if (whole.size() != 20 + offset * 8) return {};
      whole.insert(whole.end(), octets->begin() + 20, octets->end());
    }
    put16(whole, 2, static_cast<unsigned>(whole.size()));
    put16(whole, 6, 0);
    set_ip_checksum(whole);
    return whole;
  }
};

TEST_F(FragmentTest, PassInEveryOrder) {  // N4787-24, NPKT-06
  const auto parts = fragments_of(big(), {96, 96, 96});
  std::vector<std::size_t> order{0, 1, 2, 3};
  unsigned id = 100;
  do {
    auto out = Out{};
    for (const std::size_t i : order) {
      Octets part = parts[i];
      put16(part, 4, id);
      set_ip_checksum(part);
      for (auto& emitted : pass(part, nat::Side::lan)) out.push_back(emitted);
    }
    ++id;
    ASSERT_EQ(out.size(), 4U) << order[0] << order[1] << order[2] << order[3];
    const Octets whole = join(out);
    ASSERT_FALSE(whole.empty());
    EXPECT_EQ(describe(whole), "udp 203.0.113.2:5000 > 198.51.100.7:53 ttl=63");
    EXPECT_TRUE(checksums_are_right(whole));
    for (const auto& emitted : out) EXPECT_EQ(get16(emitted.octets, 4), get16(out[0].octets, 4));
  } while (std::next_permutation(order.begin(), order.end()));
}

TEST_F(FragmentTest, InboundFollowsItsFirst) {  // NPKT-06
  leaves(udp(alice, 5000, server, 53));
  Octets datagram =
      udp(server, 53, external_address, 5000).id(5).dont_fragment(false).payload(std::string(200, 'y'));
  const auto parts = fragments_of(datagram, {104});
  EXPECT_EQ(from_wan(parts[1]), "held");
  const auto out = pass(parts[0], nat::Side::wan);
  ASSERT_EQ(out.size(), 2U);
  EXPECT_EQ(describe(join(out)), "udp 198.51.100.7:53 > 192.168.1.10:5000 ttl=63");
  EXPECT_TRUE(checksums_are_right(join(out)));
}

TEST_F(FragmentTest, HairpinsToo) {  // N4787-15
  open(Transport::udp, bob, 6000, 7000);
  Octets datagram =
      udp(alice, 5000, external_address, 7000).id(5).dont_fragment(false).payload(std::string(200, 'y'));
  const auto parts = fragments_of(datagram, {104});
  EXPECT_EQ(from_lan(parts[1]), "held");
  EXPECT_EQ(describe(join(pass(parts[0], nat::Side::lan))),
            "udp 203.0.113.2:5000 > 192.168.1.11:6000 ttl=63");
}

TEST_F(FragmentTest, LaterOnesAloneGoNowhere) {  // POL-NET-01
  const auto parts = fragments_of(big(), {96});
  EXPECT_EQ(from_lan(parts[1]), "held");
  live(16s);
  auto out = pass(parts[0], nat::Side::lan);
  EXPECT_EQ(out.size(), 1U);
}

TEST_F(FragmentTest, OfADroppedFirstAreDropped) {
  Octets datagram = udp(server, 53, external_address, 5000).id(5).payload(std::string(200, 'y'));
  const auto parts = fragments_of(datagram, {104});
  EXPECT_EQ(from_wan(parts[0]), "dropped: no_mapping");
  EXPECT_EQ(from_wan(parts[1]), "dropped: fragment_of_dropped");
}

TEST_F(FragmentTest, OverlapsAreDropped) {  // NPKT-07, POL-NET-09
  auto parts = fragments_of(big(), {96, 96});
  EXPECT_EQ(from_lan(parts[0]).substr(0, 4), "wan:");
  Octets overlapping = parts[1];
  put16(overlapping, 6, 0x2000 | 11);  // 8 octets into the first
  set_ip_checksum(overlapping);
  EXPECT_EQ(from_lan(overlapping), "dropped: fragment_overlap");
  EXPECT_EQ(from_lan(parts[1]), "dropped: fragment_overlap");  // and nothing more of this datagram
}

TEST_F(FragmentTest, TinyEmptyAndEndlessOnesAreDropped) {  // NPKT-07, POL-NET-09
  Octets syn = tcp(alice, 5000, server, 80, flag::syn).dont_fragment(false).payload(std::string(40, 'x'));
  EXPECT_EQ(from_lan(fragments_of(syn, {8})[0]), "dropped: bad_fragment");
  EXPECT_EQ(from_lan(fragments_of(syn, {16})[0]), "dropped: bad_fragment");
  auto parts = fragments_of(big(), {96});
  Octets empty(parts[1].begin(), parts[1].begin() + 20);
  put16(empty, 2, 20);
  set_ip_checksum(empty);
  EXPECT_EQ(from_lan(empty), "dropped: bad_fragment");
  Octets endless = parts[1];
  put16(endless, 6, 0x1fff);
  set_ip_checksum(endless);
  EXPECT_EQ(from_lan(endless), "dropped: bad_fragment");
  Octets crooked = parts[0];
  crooked.pop_back();
  put16(crooked, 2, static_cast<unsigned>(crooked.size()));
  set_ip_checksum(crooked);
  EXPECT_EQ(from_lan(crooked), "dropped: bad_fragment");
}

TEST_F(FragmentTest, ASourceAtItsLimitHarmsNobodyElse) {  // POL-NET-10, POL-QTA-07, N4787-25
  for (unsigned id = 0; id < 256; ++id) EXPECT_EQ(from_lan(fragments_of(big(id), {96})[1]), "held");
  EXPECT_EQ(from_lan(fragments_of(big(256), {96})[1]), "dropped: fragment_limit");
  EXPECT_EQ(from_lan(fragments_of(big(256), {96})[0]), "dropped: fragment_limit");
  EXPECT_EQ(from_lan(fragments_of(big(7, bob), {96})[1]), "held");
  EXPECT_EQ(from_lan(udp(alice, 5000, server, 53)).substr(0, 4), "wan:");
  live(16s);
  EXPECT_EQ(from_lan(fragments_of(big(256), {96})[1]), "held");
}

TEST_F(FragmentTest, AtTheTotalTheOldestGivesWay) {  // POL-NET-10
  policy.fragments_total = 10;
  set_policy();
  for (unsigned id = 0; id < 11; ++id) EXPECT_EQ(from_lan(fragments_of(big(id), {96})[1]), "held");
  EXPECT_EQ(pass(fragments_of(big(0), {96})[0], nat::Side::lan).size(), 1U);  // its rest is gone
  EXPECT_EQ(pass(fragments_of(big(10), {96})[0], nat::Side::lan).size(), 2U);
}

TEST(Fragments, StayBelowFourMebibytes) {  // POL-FAIR-05
  nat::Fragments fragments{nat::SipHash{{1, 2}}};
  fragments.set_limits({0, 0, 15});
  nat::FragmentFate fate;
  for (unsigned i = 0; i < 10000; ++i) {
    Octets part = fragments_of(
        udp("10.0.0." + std::to_string(i % 250), 1, server, 53).id(i).payload(std::string(1400, 'z')),
        {8})[1];
    nat::packet::Ipv4 ip;
    ASSERT_EQ(nat::packet::parse(part, false, ip), nat::packet::Malformed::no);
    fragments.take(ip, nat::Side::lan, 1, fate);
    ASSERT_LE(fragments.octets(), nat::Fragments::most_octets);
  }
  EXPECT_GT(fragments.count(), 1000U);
  fragments.clear();
  EXPECT_EQ(fragments.octets(), 0U);
}

TEST_F(FragmentTest, IdsOfTwoHostsDoNotRunTogether) {  // NPKT-05
  int same = 0;
  for (unsigned id = 1; id <= 200; ++id)
    same += get16(leaves(big(id, alice, 10)), 4) == get16(leaves(big(id, bob, 10)), 4);
  EXPECT_LE(same, 2);
  EXPECT_EQ(get16(leaves(udp(alice, 5000, server, 53).id(4711)), 4), 4711);  // atomic: it means nothing
  // A host's own stay apart, and an error brings its own back.
  std::set<unsigned> ids;
  for (unsigned id = 0; id < 65536; id += 13) ids.insert(get16(leaves(big(id, alice, 10)), 4));
  EXPECT_EQ(ids.size(), 5042U);
  const auto left = leaves(big(4711, alice, 10));
  EXPECT_EQ(get16(arrives(icmp_error(other_server, external_address, 11, 0, left)), 28 + 4), 4711);
}

TEST_F(FragmentTest, PingsInPieces) {
  Octets ping = echo(alice, server, 77).dont_fragment(false).payload(std::string(300, 'p'));
  const auto parts = fragments_of(ping, {104});
  EXPECT_EQ(from_lan(parts[1]), "held");
  const auto out = pass(parts[0], nat::Side::lan);
  EXPECT_EQ(describe(join(out)), "icmp 8/0 id=77 203.0.113.2 > 198.51.100.7 ttl=63");
}

}  // namespace
}  // namespace sallyport::test
