#include "src/daemon/lease_log.hpp"

#include "tests/support/manual_clock.hpp"

namespace sallyport::daemon {
namespace {

using testing::ElementsAre;
using testing::SizeIs;

class LeaseLogTest : public testing::Test {
 protected:
  static LeaseEvent event(std::uint32_t device, LeaseEventKind kind = LeaseEventKind::granted) {
    LeaseEvent result{
        .kind = kind,
        .reason = LeaseEventReason::requested,
        .lease = {.id = "k7f2",
                  .transport = Transport::tcp,
                  .internal = {Address::v4(0x0a000000 + device), *Port::from(8080)},
                  .external = {Address::v4(0xcb007107), *Port::from(18080)},
                  .lifetime_s = 3600},
    };
    return result;
  }
  test::ManualClock clock;
  std::vector<std::string> lines;
  LeaseLog log{[this](const std::string& line, bool) { lines.push_back(line); }};
};

TEST_F(LeaseLogTest, OneLineAnEvent) {
  auto granted = event(5);
  granted.lease.description = "web\nserver";
  log.on_lease(granted, clock.now());
  log.on_lease(event(5, LeaseEventKind::ended), clock.now());
  log.on_external_address(Address::v4(0xcb007107), clock.now());
  log.on_external_address(std::nullopt, clock.now());
  EXPECT_THAT(
      lines,
      ElementsAre("lease k7f2 granted (requested): tcp 10.0.0.5:8080 <-> 203.0.113.7:18080, via pcp, 3600 "
                  "s, \"web\\x0aserver\"",
                  "lease k7f2 ended (requested): tcp 10.0.0.5:8080 <-> 203.0.113.7:18080, via pcp",
                  "the external address is 203.0.113.7", "there is no external address now"));
}

TEST_F(LeaseLogTest, ASetOfPortsIsOneEvent) {
  for (std::uint16_t place = 0; place < 300; ++place) {
    auto port = event(5);
    port.lease.set_size = 300;
    port.lease.set_place = place;
    log.on_lease(port, clock.now());
  }
  log.handle_timeout(clock.now());
  EXPECT_THAT(
      lines,
      ElementsAre("lease k7f2 granted (requested): tcp 10.0.0.5:8080 <-> 203.0.113.7:18080 and the 299 "
                  "ports behind, via pcp, 3600 s"));
}

// POL-TXT-05
TEST_F(LeaseLogTest, NeverTellsANonce) {
  auto granted = event(5);
  granted.lease.nonce = Nonce{};
  granted.lease.nonce->fill(std::byte{0xab});
  log.on_lease(granted, clock.now());
  EXPECT_EQ(lines.front().find("ab"), std::string::npos);
}

// POL-QTA-11, NLOG-04
TEST_F(LeaseLogTest, AChattyDeviceIsCountedInsteadOfLogged) {
  for (int i = 0; i < 1000; ++i) log.on_lease(event(5), clock.now());
  EXPECT_THAT(lines, SizeIs(20)) << "its burst";
  log.on_lease(event(6), clock.now());
  EXPECT_THAT(lines, SizeIs(21)) << "another device's lines are written all the same";
  log.handle_timeout(clock.now());
  EXPECT_THAT(lines.back(), testing::StartsWith("980 more lease events"));
  lines.clear();
  log.handle_timeout(clock.now());
  EXPECT_THAT(lines, SizeIs(0)) << "told once";
  clock.advance(std::chrono::seconds{1});
  for (int i = 0; i < 1000; ++i) log.on_lease(event(5), clock.now());
  EXPECT_THAT(lines, SizeIs(10));
}

TEST_F(LeaseLogTest, ManyDevicesTogetherAreLimitedToo) {
  for (std::uint32_t device = 1; device <= 1000; ++device) log.on_lease(event(device), clock.now());
  EXPECT_THAT(lines, SizeIs(200));
}

}  // namespace
}  // namespace sallyport::daemon
