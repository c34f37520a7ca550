#include "tests/support/nat_lan.hpp"

// RFC 5382, RFC 7857 section 2, RFC 6146 section 3.5.2.

namespace sallyport::test {
namespace {

using namespace flag;

class TcpTest : public NatLan {
 protected:
  static constexpr const char* out_line = "wan: tcp 203.0.113.2:5000 > 198.51.100.7:80 ";
  static constexpr const char* in_line = "lan: tcp 198.51.100.7:80 > 192.168.1.10:5000 ";

  std::string out(PacketBuilder& packet) { return from_lan(packet); }
  PacketBuilder host(unsigned flags) { return tcp(alice, 5000, server, 80, flags); }
  PacketBuilder peer(unsigned flags) { return tcp(server, 80, external_address, 5000, flags); }
  std::string sent(const char* flags) { return std::string{out_line} + flags + " ttl=63"; }
  std::string got(const char* flags) { return std::string{in_line} + flags + " ttl=63"; }

  /// Opened from inside: the host's next number is 1001, the peer's 5001; both offer 8192.
  void connect() {
    EXPECT_EQ(from_lan(host(syn).seq(1000)), sent("S"));
    EXPECT_EQ(from_wan(peer(syn).seq(5000).ack(1001)), got("SA"));
    EXPECT_EQ(from_lan(host(0).seq(1001).ack(5001)), sent("A"));
  }
  std::string data_in() { return from_wan(peer(0).seq(5001).ack(1001).payload("x")); }
  std::string data_out() { return from_lan(host(0).seq(1001).ack(5001).payload("x")); }
};

TEST_F(TcpTest, OneExternalEndpointForEveryRemote) {  // N5382-01, -16
  EXPECT_EQ(source_port(leaves(tcp(alice, 5000, server, 80, syn))), 5000);
  EXPECT_EQ(source_port(leaves(tcp(alice, 5000, other_server, 81, syn))), 5000);
  EXPECT_NE(source_port(leaves(tcp(bob, 5000, server, 80, syn))), 5000);
}

TEST_F(TcpTest, AConnectionFromInsideRunsBothWays) {  // N5382-02
  connect();
  EXPECT_EQ(data_in(), got("A"));
  EXPECT_EQ(data_out(), sent("A"));
}

TEST_F(TcpTest, SimultaneousOpenWorks) {  // N5382-03
  EXPECT_EQ(from_lan(host(syn).seq(1000)), sent("S"));
  EXPECT_EQ(from_wan(peer(syn).seq(5000)), got("S"));
  EXPECT_EQ(from_lan(host(syn).seq(1000).ack(5001)), sent("SA"));
  EXPECT_EQ(from_wan(peer(syn).seq(5000).ack(1001)), got("SA"));
  wait(7000s);
  EXPECT_EQ(data_in(), got("A"));
}

TEST_F(TcpTest, AnUnaskedSynMeetsSilence) {  // N5382-06, -09, NAT-X-05
  EXPECT_EQ(from_wan(peer(syn)), "dropped: no_mapping");
  EXPECT_EQ(from_lan(host(syn)), sent("S"));  // N5382-07: nothing is held that could disturb
}

TEST_F(TcpTest, FilteringIsByAddressAndApartFromUdp) {  // N5382-04, -05
  connect();
  EXPECT_EQ(from_wan(tcp(server, 81, external_address, 5000, syn)),
            "lan: tcp 198.51.100.7:81 > 192.168.1.10:5000 S ttl=63");
  EXPECT_EQ(from_wan(tcp(other_server, 80, external_address, 5000, syn)), "dropped: filtered");
  leaves(udp(alice, 5000, other_server, 80));
  EXPECT_EQ(from_wan(tcp(other_server, 80, external_address, 5000, syn)), "dropped: filtered");
}

TEST_F(TcpTest, AnIdleConnectionLivesTwoHoursAndFourMinutes) {  // N5382-10, -21
  connect();
  live(7440s);
  EXPECT_EQ(data_in(), got("A"));
  live(7442s);
  EXPECT_EQ(data_in(), "dropped: no_mapping");
}

TEST_F(TcpTest, AHalfOpenOneLivesFourMinutes) {  // N5382-11, -21
  EXPECT_EQ(from_lan(host(syn).seq(1000)), sent("S"));
  live(240s);
  EXPECT_EQ(from_wan(peer(syn).seq(5000).ack(1001)), got("SA"));
}

TEST_F(TcpTest, AHalfOpenOneIsGoneSoonAfter) {  // N5382-21
  EXPECT_EQ(from_lan(host(syn).seq(1000)), sent("S"));
  live(242s);
  EXPECT_EQ(from_wan(peer(syn).seq(5000).ack(1001)), "dropped: no_mapping");
}

TEST_F(TcpTest, AHalfOpenOneHasATimerOfItsOwn) {  // N5382-13
  policy.tcp_half_open = 20s;
  set_policy();
  EXPECT_EQ(from_lan(host(syn).seq(1000)), sent("S"));
  live(22s);
  EXPECT_EQ(from_wan(peer(syn).seq(5000).ack(1001)), "dropped: no_mapping");
  connect();
  EXPECT_EQ(from_lan(host(fin).seq(1001).ack(5001)), sent("AF"));
  EXPECT_EQ(from_wan(peer(fin).seq(5001).ack(1002)), got("AF"));
  live(230s);  // one that closes is not half open
  EXPECT_EQ(from_lan(host(0).seq(1002).ack(5002)), sent("A"));
}

TEST_F(TcpTest, TimersAreConfigured) {  // N5382-12
  policy.tcp_established = 8000s;
  set_policy();
  connect();
  live(8000s);
  EXPECT_EQ(data_in(), got("A"));
}

TEST_F(TcpTest, AClosedConnectionLivesFourMinutesMore) {  // N5382-11, -20
  connect();
  EXPECT_EQ(from_lan(host(fin).seq(1001).ack(5001)), sent("AF"));
  EXPECT_EQ(from_wan(peer(fin).seq(5001).ack(1002)), got("AF"));
  live(240s);
  EXPECT_EQ(from_lan(host(0).seq(1002).ack(5002)), sent("A"));
  live(242s);
  EXPECT_EQ(from_lan(host(0).seq(1002).ack(5002)), "dropped: no_session");
}

TEST_F(TcpTest, AHalfClosedConnectionStaysEstablished) {  // N5382-21
  connect();
  EXPECT_EQ(from_lan(host(fin).seq(1001).ack(5001)), sent("AF"));
  live(7000s);
  EXPECT_EQ(from_wan(peer(0).seq(5001).ack(1002).payload("x")), got("A"));
}

TEST_F(TcpTest, ARstInTheWindowPassesAndTheSessionStaysFourMinutes) {  // N5382-14, POL-NET-07
  connect();
  EXPECT_EQ(from_wan(peer(rst).seq(5001)), got("R"));
  live(240s);
  EXPECT_EQ(data_out(), sent("A"));  // and data revives it
  live(7000s);
  EXPECT_EQ(data_in(), got("A"));
}

TEST_F(TcpTest, AfterARstAndSilenceItIsGone) {  // N5382-14
  connect();
  EXPECT_EQ(from_wan(peer(rst).seq(5001)), got("R"));
  live(242s);
  EXPECT_EQ(data_out(), "dropped: no_session");
}

TEST_F(TcpTest, ARstOutsideTheWindowIsDroppedAndChangesNothing) {  // N5382-26, POL-NET-06
  connect();
  EXPECT_EQ(from_wan(peer(rst).seq(5000)), "dropped: out_of_window");
  EXPECT_EQ(from_wan(peer(rst).seq(5001 + 8193)), "dropped: out_of_window");
  EXPECT_EQ(from_wan(peer(rst).seq(0x90000000)), "dropped: out_of_window");
  live(7000s);
  EXPECT_EQ(data_in(), got("A"));
}

TEST_F(TcpTest, TheWindowScaleCounts) {
  const Octets scale7{std::byte{1}, std::byte{3}, std::byte{3}, std::byte{7}};
  EXPECT_EQ(from_lan(host(syn).seq(1000).tcp_options(scale7)), sent("S"));
  EXPECT_EQ(from_wan(peer(syn).seq(5000).ack(1001).tcp_options(scale7)), got("SA"));
  EXPECT_EQ(from_lan(host(0).seq(1001).ack(5001).window(1000)), sent("A"));
  EXPECT_EQ(from_wan(peer(rst).seq(5001 + 128001)), "dropped: out_of_window");
  EXPECT_EQ(from_wan(peer(rst).seq(5001 + 128000)), got("R"));
}

TEST_F(TcpTest, SynSynAckAndFinOutsideTheWindowChangeNothing) {  // POL-NET-06
  connect();
  from_wan(peer(syn).seq(0x80000000));
  from_wan(peer(syn).seq(0x80000000).ack(77));
  from_wan(peer(fin).seq(0x80000000).ack(1001));
  from_lan(host(fin).seq(0x80000000).ack(5001));
  from_wan(peer(fin).seq(0x80000000).ack(1001));
  live(7000s);
  EXPECT_EQ(data_in(), got("A"));
}

TEST_F(TcpTest, ARefusalOfTheServerPasses) {
  EXPECT_EQ(from_lan(host(syn).seq(1000)), sent("S"));
  EXPECT_EQ(from_wan(peer(rst).seq(0).ack(555)), "dropped: out_of_window");
  EXPECT_EQ(from_wan(peer(rst).seq(0).ack(1001)), got("AR"));
  EXPECT_EQ(from_lan(host(syn).seq(9000)), sent("S"));
  EXPECT_EQ(from_wan(peer(syn).seq(5000).ack(9001)), got("SA"));
}

TEST_F(TcpTest, ASynAckThatAnswersNothingOpensNothing) {  // POL-NET-06
  EXPECT_EQ(from_lan(host(syn).seq(1000)), sent("S"));
  from_wan(peer(syn).seq(5000).ack(77777));
  live(242s);
  EXPECT_EQ(data_in(), "dropped: no_mapping");
}

TEST_F(TcpTest, OnlyAPlainSynMakesASession) {  // N5382-22, POL-NET-06
  EXPECT_EQ(from_lan(host(0).ack(1)), "dropped: no_session");
  EXPECT_EQ(from_lan(host(syn).ack(1)), "dropped: no_session");
  EXPECT_EQ(from_lan(host(rst)), "dropped: no_session");
  EXPECT_EQ(from_lan(host(fin).ack(1)), "dropped: no_session");
}

TEST_F(TcpTest, NonsenseFlagsAreDropped) {  // POL-NET-06
  connect();
  for (const unsigned flags :
       {0U, fin, syn | fin, syn | rst, syn | fin | ack, fin | psh | urg, rst | fin, 63U}) {
    EXPECT_EQ(from_lan(host(flags)), "dropped: bad_tcp_flags") << flags;
    EXPECT_EQ(from_wan(peer(flags)), "dropped: bad_tcp_flags") << flags;
  }
}

TEST_F(TcpTest, ASynReusesAClosedFourTuple) {  // N5382-24
  connect();
  from_lan(host(fin).seq(1001).ack(5001));
  from_wan(peer(fin).seq(5001).ack(1002));
  EXPECT_EQ(from_lan(host(syn).seq(90000)), sent("S"));
  EXPECT_EQ(from_wan(peer(syn).seq(70000).ack(90001)), got("SA"));
  EXPECT_EQ(from_lan(host(0).seq(90001).ack(70001)), sent("A"));
  live(7000s);
  EXPECT_EQ(from_wan(peer(0).seq(70001).ack(90001).payload("x")), got("A"));
}

TEST_F(TcpTest, OptionsPassUnchanged) {  // N5382-25
  const auto out = leaves(host(syn).mss(1460));
  EXPECT_EQ(get16(out, 42), 1460);
}

TEST_F(TcpTest, TheMssIsClampedWhereTheWanIsNarrower) {  // N5382-25
  network.wan[0].mtu = 1492;
  set_network();
  EXPECT_EQ(get16(leaves(host(syn).mss(1460)), 42), 1452);
  EXPECT_EQ(get16(arrives(peer(syn).seq(5000).ack(1001).mss(1460)), 42), 1452);
  EXPECT_EQ(get16(leaves(tcp(bob, 5001, server, 80, syn).mss(1200)), 42), 1200);
  policy.mss_clamp = 0;
  set_policy();
  EXPECT_EQ(get16(leaves(tcp(bob, 5002, server, 80, syn).mss(1460)), 42), 1460);
}

TEST_F(TcpTest, TheMssIsClampedAtAnOddOffsetToo) {  // N5382-25
  policy.mss_clamp = 1000;
  set_policy();
  const auto out =
      leaves(host(syn).tcp_options({std::byte{1}, std::byte{2}, std::byte{4}, std::byte{5}, std::byte{180}}));
  EXPECT_EQ(std::to_integer<int>(out[43]) * 256 + std::to_integer<int>(out[44]), 1000);
}

TEST_F(TcpTest, HairpinReachesAMappingWithTheExternalSource) {  // N5382-17, NMAP-13
  open(Transport::tcp, bob, 80, 8080);
  EXPECT_EQ(from_lan(tcp(alice, 5000, external_address, 8080, syn).seq(1)),
            "lan: tcp 203.0.113.2:5000 > 192.168.1.11:80 S ttl=63");
  EXPECT_EQ(from_lan(tcp(bob, 80, external_address, 5000, syn).seq(9).ack(2)),
            "lan: tcp 203.0.113.2:8080 > 192.168.1.10:5000 SA ttl=63");
  EXPECT_EQ(from_lan(tcp(alice, 5000, external_address, 8080, 0).seq(2).ack(10)),
            "lan: tcp 203.0.113.2:5000 > 192.168.1.11:80 A ttl=63");
}

TEST_F(TcpTest, PartialChecksumsGetAddressesButNeverPorts) {  // NPKT-09
  if (stack_forwards())
    GTEST_SKIP() << "no partial sum can be had here: the lab's `sums_left_to_the_card` shows it";
  open(Transport::tcp, alice, 80, 8080);
  Octets packet = tcp(server, 999, external_address, 8080, syn);
  // as a sender whose card sums leaves it: the pseudo-header's sum, not inverted
  const auto pseudo = [](const Octets& of) {
    std::uint32_t sum = get16(of, 12) + get16(of, 14) + get16(of, 16) + get16(of, 18) + 6 +
                        static_cast<std::uint32_t>(of.size() - 20);
    sum = (sum & 0xffff) + (sum >> 16);
    return (sum & 0xffff) + (sum >> 16);
  };
  put16(packet, 36, pseudo(packet));
  nat::Packet one{.data = packet.data(),
                  .size = static_cast<std::uint32_t>(packet.size()),
                  .from = nat::Side::wan,
                  .partial_checksum = true};
  struct Nothing : nat::PacketSink {
    void emit(std::span<const std::byte>, nat::Action) override {}
  } sink;
  plane.engine()->translate(std::span{&one, 1}, now, sink);
  ASSERT_EQ(one.action, nat::Action::forward_lan);
  EXPECT_EQ(describe(packet), "tcp 198.51.100.7:999 > 192.168.1.10:80 S ttl=63");
  EXPECT_EQ(get16(packet, 36), pseudo(packet));
}

}  // namespace
}  // namespace sallyport::test
