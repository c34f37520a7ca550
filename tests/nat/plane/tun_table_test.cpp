#include "nat/plane/tun/tun_plane.hpp"
#include "packet_table.hpp"
#include "tun_lab.hpp"

#include <gtest/gtest.h>

// The packet table of all planes, through a real kernel.

namespace sallyport::test {
namespace {

namespace lab = nat::testing;

lab::Bytes raw(const Octets& octets) {
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(octets.data());
  return {bytes, bytes + octets.size()};
}

TEST(TunTable, GivesTheSameAnswerToTheSamePacket) {
  if (const std::string why = lab::TunLab::obstacle(); !why.empty()) GTEST_SKIP() << why;
  lab::TunLab gateway;
  SystemClock clock;
  nat::TunOptions options;
  options.undo_file = gateway.undo_file();
  options.queues = 1;  // the witness comes behind its row
  std::string why;
  const auto plane = nat::TunPlane::start(options, clock, why);
  ASSERT_TRUE(plane) << why;
  ASSERT_TRUE((*plane)->set_policy({}, clock.now()));
  ASSERT_TRUE((*plane)->set_network(gateway.network(), clock.now()));
  for (const auto& spec : nat_table_mappings()) ASSERT_TRUE((*plane)->install(spec, clock.now()));

  // Behind each row the same side sends a packet that passes: when it is through, so is the row.
  constexpr const char* witness = "192.168.1.12";
  constexpr const char* far_witness = "198.51.100.250";
  ASSERT_TRUE((*plane)->install({.transport = Transport::udp,
                                 .internal = {Address::v4(ip(witness)), *Port::from(9999)},
                                 .suggested = Port::from(9999),
                                 .insist = true,
                                 .remotes = {}},
                                clock.now()));
  std::uint16_t number = 20000;
  for (const auto& row : nat_table()) {
    const bool from_lan = row.from == From::lan;
    auto& near = from_lan ? gateway.lan() : gateway.wan();
    auto& far = from_lan ? gateway.wan() : gateway.lan();
    near.send(raw(row.in));
    ++number;
    if (from_lan)
      near.send(lab::udp(witness, 9999, far_witness, number));
    else
      near.send(lab::udp(far_witness, number, "203.0.113.2", 9999));
    std::vector<lab::Wire> out_far;
    ASSERT_TRUE(far.await(
        [&](const lab::Wire& wire) { return (from_lan ? wire.dport : wire.sport) == number; }, &out_far))
        << row.says;
    std::string out;
    const auto add = [&](const lab::FarEnd& end, const std::vector<lab::Wire>& wires) {
      for (const auto& wire : wires) {
        out += (&end == &gateway.lan() ? "lan: " : "wan: ") + summary(wire.octets);
        EXPECT_TRUE(checksums_are_right(wire.octets)) << row.says;
      }
    };
    add(far, out_far);
    add(near, near.drain());
    EXPECT_EQ(out, row.out) << row.says;
  }
}

}  // namespace
}  // namespace sallyport::test
