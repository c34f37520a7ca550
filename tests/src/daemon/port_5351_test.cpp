#include "src/daemon/port_5351.hpp"

#include "tests/support/hex.hpp"
#include "tests/support/manual_clock.hpp"

namespace sallyport::daemon {
namespace {

using testing::IsEmpty;

class Service final : public MappingService {
 public:
  void grant(GrantRequest, TimePoint, GrantDone) override {}
  void release(ReleaseRequest, TimePoint, ReleaseDone) override {}
  void release_all(ReleaseAllRequest, TimePoint, ReleaseDone) override {}
  Result<Address> external_address(const Address&) const override { return Address::v4(0xcb007107); }
  std::uint32_t epoch_s(TimePoint) const override { return 1; }
  void add_listener(ServiceListener&) override {}
  void remove_listener(ServiceListener&) override {}
};

class Port5351Test : public testing::Test {
 protected:
  void speak(bool with_pcp, bool with_natpmp) {
    port.set_spoken({{3, with_pcp, with_natpmp, {}}}, clock.now());
    while (port.poll_transmit()) {
    }
  }
  /// Version and result (NAT-PMP: 16 bits, PCP: 8) of the answer; empty when there is none.
  std::vector<int> ask(const std::string& hex) {
    const auto bytes = test::hex(hex);
    port.handle_datagram(bytes, {Address::v4(0x0a000002), 40000, Address::v4(0x0a000001), 3}, clock.now());
    const auto answer = port.poll_transmit();
    if (!answer) return {};
    return {std::to_integer<int>(answer->bytes[0]), std::to_integer<int>(answer->bytes[3])};
  }
  // NAT-PMP external address; PCP ANNOUNCE of 10.0.0.2; the same with versions 1 and 3
  const std::string natpmp = "0000";
  const std::string pcp = "02000000 00000000 00000000 00000000 0000ffff 0a000002";
  const std::string version_1 = "01000000 00000000 00000000 00000000 0000ffff 0a000002";
  const std::string version_3 = "03000000 00000000 00000000 00000000 0000ffff 0a000002";
  test::ManualClock clock;
  Service service;
  Port5351 port{service};
};

TEST_F(Port5351Test, BothOnEachAnswersItsOwnVersion) {
  speak(true, true);
  EXPECT_EQ(ask(natpmp), (std::vector{0, 0}));
  EXPECT_EQ(ask(pcp), (std::vector{2, 0}));
  EXPECT_EQ(ask(version_1), (std::vector{2, 1})) << "UNSUPP_VERSION by PCP";
  EXPECT_EQ(ask(version_3), (std::vector{2, 1}));
}

// PCP-9-05
TEST_F(Port5351Test, WithNatPmpOffPcpNegotiatesVersionZeroAway) {
  speak(true, false);
  EXPECT_EQ(ask(natpmp), (std::vector{2, 1}));
  EXPECT_EQ(ask(pcp), (std::vector{2, 0}));
}

// NPM-3.5-07
TEST_F(Port5351Test, WithPcpOffNatPmpNegotiatesVersionTwoAway) {
  speak(false, true);
  EXPECT_EQ(ask(pcp), (std::vector{0, 1}));
  EXPECT_EQ(ask(natpmp), (std::vector{0, 0}));
}

TEST_F(Port5351Test, OverIpv6ThereIsPcpAlone) {
  const auto ask6 = [&](const std::string& hex) -> std::vector<int> {
    const auto host = *Address::parse("2001:db8::2"), gateway = *Address::parse("2001:db8::1");
    port.handle_datagram(test::hex(hex), {host, 40000, gateway, 3}, clock.now());
    const auto answer = port.poll_transmit();
    if (!answer) return {};
    return {std::to_integer<int>(answer->bytes[0]), std::to_integer<int>(answer->bytes[3])};
  };
  const std::string pcp6 = "02000000 00000000 20010db8 00000000 00000000 00000002";
  speak(true, true);
  EXPECT_EQ(ask6(pcp6), (std::vector{2, 0}));
  EXPECT_EQ(ask6(natpmp), (std::vector{2, 1})) << "UNSUPP_VERSION";
  speak(false, true);
  EXPECT_THAT(ask6(natpmp), IsEmpty());
  EXPECT_THAT(ask6(pcp6), IsEmpty());
}

TEST_F(Port5351Test, AnInterfaceThatIsNotServedAndAnEmptyDatagramGetNothing) {
  speak(false, false);
  EXPECT_THAT(ask(pcp), IsEmpty());
  EXPECT_THAT(ask(natpmp), IsEmpty());
  speak(true, true);
  EXPECT_THAT(ask(""), IsEmpty());
  port.set_spoken({{4, true, true, {}}}, clock.now());
  EXPECT_THAT(ask(pcp), IsEmpty());
}

// PCP-14.1-04, NPM-3.2.1-01: each protocol announces where it is spoken
TEST_F(Port5351Test, AnnouncesOnTheAddressesWhereAProtocolIsSpoken) {
  port.set_spoken({{3, true, false, {Address::v4(0x0a000001)}}, {4, false, true, {Address::v4(0x0a000101)}}},
                  clock.now());
  port.handle_timeout(clock.now());
  std::map<std::uint32_t, int> versions;
  while (const auto next = port.poll_transmit())
    versions[next->interface] = std::to_integer<int>(next->bytes[0]);
  EXPECT_EQ(versions[3], 2);
  EXPECT_TRUE(!versions.contains(4) || versions[4] == 0);
}

}  // namespace
}  // namespace sallyport::daemon
