#include "packet_table.hpp"
#include "tests/support/nat_lan.hpp"

namespace sallyport::test {
namespace {

class MemoryPlaneTest : public NatLan {};

TEST_F(MemoryPlaneTest, GivesTheSameAnswerToTheSamePacket) {
  for (const auto& spec : nat_table_mappings()) ASSERT_TRUE(install(spec));
  for (const auto& row : nat_table()) {
    std::string out;
    for (const auto& emitted : pass(row.in, row.from == From::lan ? nat::Side::lan : nat::Side::wan)) {
      if (emitted.where == nat::Action::forward_wan) out += "wan: " + summary(emitted.octets);
      if (emitted.where == nat::Action::forward_lan) out += "lan: " + summary(emitted.octets);
    }
    EXPECT_EQ(out, row.out) << row.says;
  }
}

TEST_F(MemoryPlaneTest, ADayOfOneHousehold) {  // hours pass; nothing leaks, nothing is left
  policy.flows_total = 5000;
  set_policy();
  open(Transport::tcp, alice, 80, 8080);
  std::mt19937 random{11};
  std::uint64_t flows_most = 0;
  for (int minute = 0; minute < 24 * 60; ++minute) {
    for (int i = 0; i < 50; ++i) {
      const std::string host = "192.168.1." + std::to_string(10 + random() % 20);
      const std::string peer = "198.51.100." + std::to_string(1 + random() % 200);
      const unsigned sport = 20000 + static_cast<unsigned>(random() % 2000);
      switch (random() % 4) {
        case 0:
          pass(udp(host, sport, peer, 53), nat::Side::lan);
          break;
        case 1:
          pass(tcp(host, sport, peer, 443, flag::syn).seq(1), nat::Side::lan);
          break;
        case 2:
          pass(tcp(peer, sport, external_address, 8080, flag::syn).seq(1), nat::Side::wan);
          break;
        default:
          pass(echo(host, peer, sport), nat::Side::lan);
          break;
      }
    }
    live(60s);
    flows_most = std::max(flows_most, plane.status().flows);
  }
  EXPECT_GT(flows_most, 100U);
  EXPECT_LT(flows_most, 500U);
  live(10min);
  EXPECT_EQ(plane.status().flows, 0U);
  EXPECT_EQ(plane.status().implicit_mappings, 0U);
  EXPECT_EQ(plane.status().explicit_mappings, 1U);
  EXPECT_EQ(from_wan(tcp(server, 999, external_address, 8080, flag::syn)),
            "lan: tcp 198.51.100.7:999 > 192.168.1.10:80 S ttl=63");
}

}  // namespace
}  // namespace sallyport::test
