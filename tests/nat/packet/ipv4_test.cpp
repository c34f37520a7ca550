#include "nat/packet/ipv4.hpp"

#include "nat/packet/build.hpp"
#include "tests/support/packet_builder.hpp"

namespace sallyport::nat::packet {
namespace {

using test::Octets;
using namespace test::flag;

Malformed judge(Octets octets, bool super = false) {
  octets.shrink_to_fit();  // so that a sanitizer sees any octet beyond
  Ipv4 packet;
  return parse(octets, super, packet);
}

TEST(Ipv4Parse, ReadsEveryField) {
  Octets octets =
      test::tcp("192.168.1.10", 5000, "198.51.100.7", 80, syn | ack).seq(7).ack(9).window(512).id(3).ttl(5);
  Ipv4 packet;
  ASSERT_EQ(parse(octets, false, packet), Malformed::no);
  EXPECT_EQ(packet.source, test::ip("192.168.1.10"));
  EXPECT_EQ(packet.destination, test::ip("198.51.100.7"));
  EXPECT_EQ(packet.sport, 5000);
  EXPECT_EQ(packet.dport, 80);
  EXPECT_EQ(packet.seq, 7U);
  EXPECT_EQ(packet.ack, 9U);
  EXPECT_EQ(packet.window, 512);
  EXPECT_EQ(packet.id, 3);
  EXPECT_EQ(packet.ttl, 5);
  EXPECT_EQ(packet.tcp_flags, syn | ack);
  EXPECT_TRUE(packet.dont_fragment);
  EXPECT_FALSE(packet.is_fragment());
}

TEST(Ipv4Parse, EveryTruncationIsSeen) {  // NPKT-08
  for (const Octets& whole :
       {Octets(test::udp("10.0.0.1", 1, "10.0.0.2", 2)),
        Octets(test::tcp("10.0.0.1", 1, "10.0.0.2", 2, syn).mss(1460)),
        Octets(test::echo("10.0.0.1", "10.0.0.2", 2)),
        Octets(test::udp("10.0.0.1", 1, "10.0.0.2", 2).options(Octets(8, std::byte{1})))})
    for (std::size_t size = 0; size < whole.size(); ++size)
      EXPECT_NE(judge({whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size)}), Malformed::no)
          << size;
}

TEST(Ipv4Parse, SuperPacketsMayHaveAnyUdpLength) {  // NPKT-09
  Octets octets = test::udp("10.0.0.1", 1, "10.0.0.2", 2).payload(std::string(5000, 'x'));
  test::put16(octets, 24, 1480);
  EXPECT_EQ(judge(octets, true), Malformed::no);
  test::put16(octets, 24, 6000);
  EXPECT_EQ(judge(octets, false), Malformed::transport_length);
}

TEST(Ipv4Parse, MutationsAreNeverReadBeyondTheirEnd) {
  std::mt19937 random{3};
  for (int round = 0; round < 100000; ++round) {
    Octets octets = test::tcp("10.0.0.1", 1, "10.0.0.2", 2, syn).mss(1460).payload("data");
    for (unsigned i = 0; i <= random() % 3; ++i)
      octets[random() % octets.size()] = static_cast<std::byte>(random());
    octets.resize(random() % (octets.size() + 1));
    octets.shrink_to_fit();
    if (octets.size() >= 20 && test::header_length(octets) >= 20 &&
        test::header_length(octets) <= octets.size())
      test::set_ip_checksum(octets);
    Ipv4 packet;
    if (parse(octets, false, packet) == Malformed::no) {
      Quoted quoted;
      parse_quoted(packet, quoted);
      if (packet.protocol == protocol::tcp && !packet.fragment_offset) find_tcp_option(packet, 2, 4);
    }
  }
}

TEST(BuildRst, AnswersASegmentAsItsConnectionWould) {  // RFC 9293 3.5.2
  Octets segment = test::tcp("192.168.1.10", 5000, "198.51.100.7", 80, psh).seq(100).ack(200).payload("data");
  Ipv4 packet;
  ASSERT_EQ(parse(segment, false, packet), Malformed::no);
  auto rst = make_rst(packet);
  EXPECT_EQ(test::describe(rst), "tcp 198.51.100.7:80 > 192.168.1.10:5000 R ttl=64");
  EXPECT_TRUE(test::checksums_are_right(rst));
  EXPECT_EQ(test::get32(rst, 24), 200U);
  segment = test::tcp("192.168.1.10", 5000, "198.51.100.7", 80, syn).seq(100);
  ASSERT_EQ(parse(segment, false, packet), Malformed::no);
  rst = make_rst(packet);
  EXPECT_EQ(test::describe(rst), "tcp 198.51.100.7:80 > 192.168.1.10:5000 AR ttl=64");
  EXPECT_EQ(test::get32(rst, 28), 101U);
}

TEST(BuildIcmpError, QuotesUpTo576Octets) {  // RFC 1812 4.3.2.3
  Octets large = test::udp("192.168.1.10", 5000, "198.51.100.7", 80).payload(std::string(1400, 'x'));
  Ipv4 packet;
  ASSERT_EQ(parse(large, false, packet), Malformed::no);
  const auto error = make_icmp_error(3, 4, 1400, test::ip("192.168.1.1"), packet);
  EXPECT_EQ(error.size(), 576U);
  EXPECT_TRUE(test::checksums_are_right(error));
  EXPECT_EQ(test::get16(error, 26), 1400);
}

}  // namespace
}  // namespace sallyport::nat::packet
