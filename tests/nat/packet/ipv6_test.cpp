#include "nat/packet/ipv6.hpp"

#include <gtest/gtest.h>

#include "nat/packet/build6.hpp"
#include "tests/support/packet_builder6.hpp"

namespace sallyport::nat::packet {
namespace {

using test::Octets;
using namespace test::flag;

constexpr const char* alice = "2001:db8:1::10";
constexpr const char* server = "2001:db8:f::7";

Malformed judge(Octets octets, bool super = false) {
  octets.shrink_to_fit();  // so that a sanitizer sees any octet beyond
  Ipv6 packet;
  return parse(octets, super, packet);
}

// A DNS question, as a capture has it; its checksum from another program.
TEST(Ipv6Parse, AGoldenDatagram) {
  Octets octets;
  const auto add = [&](std::initializer_list<int> more) {
    for (const int octet : more) octets.push_back(static_cast<std::byte>(octet));
  };
  add({0x60, 0x0a, 0xbc, 0xde});  // version 6, traffic class 0, flow label abcde
  add({0x00, 0x0c, 17, 64});      // payload 12, UDP, 64 hops
  add({0x20, 0x01, 0x0d, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10});
  add({0x20, 0x01, 0x0d, 0xb8, 0, 0xf, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7});
  add({0x13, 0x88, 0x00, 0x35, 0x00, 0x0c});  // 5000 > 53, 12 octets
  add({0xcb, 0xb9, 'a', 'b', 'c', 'd'});
  Ipv6 packet;
  ASSERT_EQ(parse(octets, false, packet), Malformed::no);
  EXPECT_EQ(packet.source, (Address6{0x20010db800010000, 0x10}));
  EXPECT_EQ(packet.destination, (Address6{0x20010db8000f0000, 7}));
  EXPECT_EQ(packet.sport, 5000);
  EXPECT_EQ(packet.dport, 53);
  EXPECT_EQ(packet.hop_limit, 64);
  EXPECT_EQ(packet.header_length, 40U);
  EXPECT_EQ(packet.size, 52U);
  EXPECT_EQ(test::full_checksum6(octets), 0);
}

TEST(Ipv6Parse, ReadsEveryFieldOfTcp) {
  Octets octets = test::tcp6(alice, 5000, server, 80, syn | ack).seq(7).ack(9).window(512).hops(5).mss(1440);
  Ipv6 packet;
  ASSERT_EQ(parse(octets, false, packet), Malformed::no);
  EXPECT_EQ(packet.seq, 7U);
  EXPECT_EQ(packet.ack, 9U);
  EXPECT_EQ(packet.window, 512);
  EXPECT_EQ(packet.tcp_flags, syn | ack);
  EXPECT_EQ(packet.transport_header_length, 24);
  EXPECT_EQ(find_tcp_option(packet, 2, 4), 22U);
}

TEST(Ipv6Parse, WalksEveryExtensionHeader) {
  Octets octets =
      test::udp6(alice, 1, server, 2).padded(0, 16).padded(60).routing(4).atomic_fragment(5).padded(60, 24);
  Ipv6 packet;
  ASSERT_EQ(parse(octets, false, packet), Malformed::no);
  EXPECT_EQ(packet.protocol, protocol::udp);
  EXPECT_EQ(packet.sport, 1);
  EXPECT_EQ(packet.header_length, 40U + 16 + 8 + 8 + 8 + 24);
  EXPECT_EQ(packet.id, 5U);
  EXPECT_FALSE(packet.is_fragment());  // RFC 6946
}

TEST(Ipv6Parse, EveryTruncationIsSeen) {  // NPKT-08
  for (const Octets& whole :
       {Octets(test::udp6(alice, 1, server, 2)), Octets(test::tcp6(alice, 1, server, 2, syn).mss(1440)),
        Octets(test::echo6(alice, server, 2)),
        Octets(test::udp6(alice, 1, server, 2).padded(0, 16).routing(3).atomic_fragment().padded(60))})
    for (std::size_t size = 0; size < whole.size(); ++size) {
      EXPECT_NE(judge({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)}), Malformed::no)
          << size;
      if (size <= 40) continue;
      // The same with a payload length that says so: the headers are cut, not the frame.
      Octets shorter(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
      test::put16(shorter, 4, static_cast<unsigned>(size - 40));
      Ipv6 packet;
      if (parse(shorter, false, packet) == Malformed::no) {
        EXPECT_LE(packet.header_length + packet.transport_header_length, size);
        EXPECT_NE(packet.protocol, protocol::udp) << "the UDP length goes beyond";
      }
    }
}

TEST(Ipv6Parse, RoutingHeadersOfTypeZeroAreRefused) {  // RFC 5095
  EXPECT_EQ(judge(test::udp6(alice, 1, server, 2).routing(0)), Malformed::source_route);
  EXPECT_EQ(judge(test::udp6(alice, 1, server, 2).routing(0, 0)), Malformed::source_route);
  EXPECT_EQ(judge(test::udp6(alice, 1, server, 2).routing(2)), Malformed::no);
}

TEST(Ipv6Parse, ExtensionHeadersAreBoundedInNumberAndLength) {
  const auto many = [](unsigned count, unsigned octets) {
    auto packet = test::udp6(alice, 1, server, 2);
    for (unsigned i = 0; i < count; ++i) packet.padded(60, octets);
    return judge(packet);
  };
  EXPECT_EQ(many(most_extension_headers, 8), Malformed::no);
  EXPECT_EQ(many(most_extension_headers + 1, 8), Malformed::extension);
  EXPECT_EQ(many(2, most_extension_octets / 2), Malformed::no);
  EXPECT_EQ(many(3, most_extension_octets / 2), Malformed::extension);
}

TEST(Ipv6Parse, HopByHopOptionsStandFirstOrNotAtAll) {  // RFC 8200 4.1
  EXPECT_EQ(judge(test::udp6(alice, 1, server, 2).padded(60).padded(0)), Malformed::extension);
}

TEST(Ipv6Parse, OneFragmentHeaderAtMost) {
  EXPECT_EQ(judge(test::udp6(alice, 1, server, 2).atomic_fragment().atomic_fragment()), Malformed::extension);
}

TEST(Ipv6Parse, OptionsMustEndInsideTheirHeader) {
  Octets body(7);
  test::put8(body, 1, 5);  // an option of
  test::put8(body, 2, 9);  // nine octets, where four are left
  EXPECT_EQ(judge(test::udp6(alice, 1, server, 2).extension(0, body)), Malformed::option);
  test::put8(body, 2, 4);
  EXPECT_EQ(judge(test::udp6(alice, 1, server, 2).extension(0, body)), Malformed::no);
}

TEST(Ipv6Parse, JumbogramsAreRefused) {  // RFC 2675
  Octets body(7);
  test::put8(body, 1, 0xc2);
  test::put8(body, 2, 4);
  EXPECT_EQ(judge(test::udp6(alice, 1, server, 2).extension(0, body)), Malformed::total_length);
  Octets none = test::udp6(alice, 1, server, 2);
  test::put16(none, 4, 0);
  EXPECT_EQ(judge(none), Malformed::total_length);
}

TEST(Ipv6Parse, BadPacketsAreNamed) {
  const Octets good = test::tcp6(alice, 1, server, 2, syn);
  const auto with = [&](std::size_t at, unsigned value) {
    Octets octets = good;
    test::put8(octets, at, value);
    return judge(octets);
  };
  EXPECT_EQ(with(0, 0x40), Malformed::version);
  EXPECT_EQ(with(7, 0), Malformed::ttl);
  EXPECT_EQ(with(5, 200), Malformed::total_length);
  EXPECT_EQ(with(40 + 12, 0x40), Malformed::transport_header);
  EXPECT_EQ(with(40 + 12, 0x60), Malformed::transport_header);
  EXPECT_EQ(with(40 + 13, syn | fin), Malformed::tcp_flags);
  EXPECT_EQ(with(41, 0), Malformed::port);
  Octets udp = test::udp6(alice, 1, server, 2);
  test::put16(udp, 44, 7);
  EXPECT_EQ(judge(udp), Malformed::transport_length);
  test::put16(udp, 44, 14);
  EXPECT_EQ(judge(udp), Malformed::transport_length);
  EXPECT_EQ(judge(udp, true), Malformed::no);  // NPKT-09
}

TEST(Ipv6Parse, FragmentsMustBePossible) {  // NPKT-08, RFC 7112, RFC 8200 4.5
  const Octets whole = test::udp6(alice, 1, server, 2).payload(std::string(100, 'x'));
  auto parts = test::fragments_of6(whole, {56});
  for (const Octets& part : parts) EXPECT_EQ(judge(part), Malformed::no);
  Ipv6 packet;
  ASSERT_EQ(parse(parts[1], false, packet), Malformed::no);
  EXPECT_EQ(packet.fragment_offset, 56);
  EXPECT_EQ(packet.fragment_size(), 52U);
  EXPECT_EQ(packet.sport, 0);
  Octets odd = parts[0];
  odd.pop_back();
  test::put16(odd, 4, static_cast<unsigned>(odd.size() - 40));
  EXPECT_EQ(judge(odd), Malformed::fragment);
  Octets beyond = parts[1];
  test::put16(beyond, 42, 0xfff8);
  EXPECT_EQ(judge(beyond), Malformed::fragment);
  Octets empty = parts[1];
  empty.resize(48);
  test::put16(empty, 4, 8);
  EXPECT_EQ(judge(empty), Malformed::fragment);
  Octets short_first = parts[0];
  short_first.resize(52);  // half a UDP header
  test::put16(short_first, 4, 12);
  EXPECT_EQ(judge(short_first), Malformed::fragment);
  // A chain of headers that goes on in the next fragment hides the upper layer.
  Octets hidden = test::fragments_of6(
      test::udp6(alice, 1, server, 2).padded(60, 32).payload(std::string(40, 'x')), {24})[0];
  EXPECT_EQ(judge(hidden), Malformed::fragment);
}

TEST(Ipv6Parse, QuotedPacketsAreReadAsFarAsTheyGo) {
  const Octets sent = test::udp6(alice, 5000, server, 53).padded(0);
  Octets error = test::icmp6_error(server, alice, 1, 4, sent);
  Ipv6 packet;
  ASSERT_EQ(parse(error, false, packet), Malformed::no);
  EXPECT_TRUE(icmp6_checksum_is_right(packet));
  Quoted6 quoted;
  ASSERT_TRUE(parse_quoted(packet, quoted));
  EXPECT_EQ(quoted.source, (Address6{0x20010db800010000, 0x10}));
  EXPECT_EQ(quoted.sport, 5000);
  EXPECT_EQ(quoted.dport, 53);
  for (std::size_t size = 0; size < 40 + 8 + 8; ++size) {
    Octets cut = test::icmp6_error(server, alice, 1, 4, sent, 0, size);
    ASSERT_EQ(parse(cut, false, packet), Malformed::no);
    EXPECT_FALSE(parse_quoted(packet, quoted)) << size;
  }
}

TEST(Ipv6Build, ErrorsQuoteUpToTheLeastMtu) {  // RFC 4443 2.4 c
  Octets sent = test::udp6(alice, 5000, server, 53).payload(std::string(2000, 'x'));
  Ipv6 packet;
  ASSERT_EQ(parse(sent, false, packet), Malformed::no);
  const Octets error = make_icmp6_error(2, 0, 1400, {1, 2}, packet);
  EXPECT_EQ(error.size(), 1280U);
  EXPECT_TRUE(test::checksum_is_right6(error));
  EXPECT_EQ(test::get32(error, 44), 1400U);
  EXPECT_TRUE(std::equal(sent.begin(), sent.begin() + 1232, error.begin() + 48));
}

TEST(Ipv6Build, ARstAnswersWhatItIsAbout) {  // RFC 9293 3.5.2
  Octets segment = test::tcp6(alice, 5000, server, 80, psh).seq(100).ack(55).payload("abc");
  Ipv6 packet;
  ASSERT_EQ(parse(segment, false, packet), Malformed::no);
  const Octets rst = make_rst(packet);
  EXPECT_EQ(test::describe6(rst), "tcp [2001:db8:f::7]:80 > [2001:db8:1::10]:5000 R hops=64");
  EXPECT_EQ(test::get32(rst, 44), 55U);
  EXPECT_TRUE(test::checksum_is_right6(rst));
}

}  // namespace
}  // namespace sallyport::nat::packet
