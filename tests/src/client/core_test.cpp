// What a program can rely upon, whichever gateway it meets.
#include "tests/src/client/gateway_world.hpp"

namespace sallyport::test {
namespace {

using client::Errc;
using client::Protocol;

constexpr World::Kind all{}, pcp_only{.natpmp = false, .upnp = false},
    natpmp_only{.pcp = false, .upnp = false}, upnp_only{.pcp = false, .natpmp = false},
    igd1_only{.pcp = false, .natpmp = false, .igd = 1};

World::Kind with_ipv6(World::Kind kind) {
  kind.ipv6 = true;
  return kind;
}

class CoreTest : public ::testing::Test {
 protected:
  /// A gateway that has been there for a while, and a host that just came.
  void start(const World::Kind& kind, bool gateway_is_up = true) {
    world = std::make_unique<World>(kind, Core::Options{.seed = 1}, 1);
    world->keep_events = true;
    world->telling = true;
    world->story_lines = 1000;
    if (gateway_is_up) {
      world->boot();
      world->run(10min);
    }
    world->join();
  }
  void TearDown() override {
    if (!HasFailure() || !world) return;
    for (const auto& line : world->story) std::fprintf(stderr, "%s\n", line.c_str());
  }
  static PortRequest request(std::uint32_t number, Transport transport = Transport::tcp) {
    PortRequest wanted{.transport = transport, .internal_port = port(number)};
    wanted.description = "a test";
    return wanted;
  }
  DoorId open(std::uint32_t number = 22000) { return world->open(request(number)); }
  std::string story(DoorId door) const {
    std::string text;
    for (const auto& event : world->doors.at(door).events) {
      text += std::string{to_string(event.kind)};
      if (event.grant) text += "/" + std::string{to_string(event.grant->protocol)};
      text += ' ';
    }
    return text;
  }
  std::size_t granted() const {
    return static_cast<std::size_t>(
        std::count_if(world->doors.begin(), world->doors.end(),
                      [&](const auto& each) { return each.second.grants[0].has_value(); }));
  }

  std::unique_ptr<World> world;
};

TEST_F(CoreTest, OfThreeProtocolsPcpAloneMakesAMapping) {
  start(all);
  const auto door = open();
  world->run(5s);
  EXPECT_EQ(story(door), "granted/pcp ");
  EXPECT_EQ(world->requests, (std::map<Via, unsigned>{{Via::pcp, 1}}));
  world->expect_settled();
}

TEST_F(CoreTest, NatPmpFollowsAtOnceWhenPcpIsRefused) {  // PCP-9-08, PCP-9-10
  start(natpmp_only);
  const auto door = open();
  world->run(9ms);  // less than would be waited for silence
  EXPECT_EQ(story(door), "granted/natpmp ");
  world->run(1h);
  EXPECT_EQ(world->requests[Via::pcp], 1u);
  world->expect_settled();
}

TEST_F(CoreTest, NatPmpFollowsWhenPcpIsSilent) {
  start(natpmp_only);
  world->deaf_to_pcp = true;
  const auto door = open();
  world->run(9ms);
  EXPECT_EQ(story(door), "");
  world->run(25ms);
  EXPECT_EQ(story(door), "granted/natpmp ");
  world->expect_settled();
}

TEST_F(CoreTest, WhereNoRouterSpeaksPcpTheAnycastAddressIsAsked) {  // ANY-3-01
  start(pcp_only);
  world->deaf_router = true;
  const auto door = open();
  world->run(10s);
  EXPECT_EQ(story(door), "granted/pcp ");
  ASSERT_TRUE(world->doors.at(door).grants[0]);
  EXPECT_EQ(world->doors.at(door).grants[0]->gateway, pcp::anycast_v4);
  // a router that speaks it after all is who is asked from then on
  world->deaf_router = false;
  const auto other = open(20001);
  world->run(1h);
  const auto so_far = world->anycasts;
  const auto third = open(20002);
  world->run(10s);
  EXPECT_EQ(world->anycasts, so_far);
  EXPECT_EQ(world->doors.at(third).grants[0]->gateway, world->doors.at(other).grants[0]->gateway);
}

TEST_F(CoreTest, AnAnycastServerThatIsNotAskedHoldsUpNoPinhole) {
  start({.natpmp = false, .upnp = false, .ipv6 = true});
  world->deaf_router = true;
  open(20000);
  world->run(10s);
  world->deaf_router = false;
  open(20001);
  world->run(10s);
  ASSERT_GT(world->anycasts, 0u);
  world->set_spoken(false, false, true);
  world->kind.tells_unreachable = false;
  const auto door = open(20002);
  world->run(1min);
  ASSERT_TRUE(world->doors.at(door).grants[1]);
  EXPECT_EQ(world->doors.at(door).grants[1]->protocol, Protocol::upnp);
}

TEST_F(CoreTest, UpnpOpensWhereNothingElseIsSpoken) {
  for (const auto& kind : {upnp_only, igd1_only})
    for (const bool unreachable : {true, false}) {
      start(kind);
      world->kind.tells_unreachable = unreachable;
      const auto door = open();
      world->run(1500ms);  // a device may take a second to answer a search
      EXPECT_EQ(story(door), "granted/upnp ");
      world->close(door);
      world->run(15s);
      world->expect_settled();
    }
}

TEST_F(CoreTest, ARefusalIsToldWithinAThirdOfASecond) {
  start(pcp_only);
  world->policy.rules = {{.device = {}, .external = {}, .transport = {}, .allow = false, .where = {}}};
  world->service->set_policy(world->policy, world->now());
  const auto door = open();
  world->run(300ms);
  ASSERT_EQ(story(door), "refused ");
  const auto& event = world->doors.at(door).events[0];
  EXPECT_EQ(event.reason, make_error_code(Errc::not_authorized));
  EXPECT_TRUE(event.retry_in);
}

TEST_F(CoreTest, ThatThereIsNoGatewayIsToldWithinThreeSeconds) {
  for (const bool unreachable : {true, false}) {
    auto nothing = all;
    nothing.tells_unreachable = unreachable;
    start(nothing, false);
    const auto door = open();
    world->run(3s);
    ASSERT_EQ(story(door), "refused ");
    EXPECT_EQ(world->doors.at(door).events[0].reason, make_error_code(Errc::no_gateway));
    world->boot();  // its announcements are heard
    world->run(10s);
    EXPECT_EQ(granted(), 1u);
  }
}

TEST_F(CoreTest, ABetterProtocolTakesOverWithoutClosing) {
  start(natpmp_only);
  const auto door = open();
  world->run(1min);
  ASSERT_EQ(story(door), "granted/natpmp ");
  world->set_spoken(true, true, false);
  world->run(2h);
  const auto told = story(door);
  EXPECT_EQ(told.find("lost"), told.npos) << told;
  EXPECT_NE(told.find("/pcp"), told.npos) << told;
  world->expect_settled();
}

TEST_F(CoreTest, AMoveOfTheHostLosesAndOpensAgain) {
  for (const auto& kind : {pcp_only, natpmp_only, upnp_only}) {
    start(kind);
    const auto door = open();
    world->run(5s);
    world->move_host();
    world->run(5s);
    EXPECT_THAT(story(door), ::testing::MatchesRegex("granted/[a-z]+ lost/[a-z]+ granted/[a-z]+ "));
    ASSERT_TRUE(world->grant(door));
    EXPECT_EQ(world->grant(door)->internal.address, world->host4());
  }
}

TEST_F(CoreTest, AfterAnAnnouncementOfLossItAsksSpreadOverFiveSeconds) {  // PCP-14.1-07, NPM-3.7-03
  for (const auto& kind : {pcp_only, natpmp_only}) {
    start(kind);
    for (std::uint32_t i = 0; i < 50; ++i) open(22000 + i);
    world->run(20s);
    ASSERT_EQ(granted(), 50u);
    world->requests.clear();
    world->stop(false, true);
    world->boot();
    const auto asked = [&] { return world->requests[kind.pcp ? Via::pcp : Via::natpmp]; };
    world->run(1s);
    EXPECT_GT(asked(), 2u);
    EXPECT_LT(asked(), 30u);
    world->run(5s);
    EXPECT_GE(asked(), 50u);
    world->expect_settled();
  }
}

TEST_F(CoreTest, AHundredDoorsAreOpenedAFewAtATime) {  // NPM-3.1-01
  for (const auto& kind : {pcp_only, natpmp_only, upnp_only}) {
    start(kind);
    for (std::uint32_t i = 0; i < 100; ++i) open(22000 + i);
    EXPECT_LE(world->requests[Via::pcp], 16u) << "before the first answer";
    world->run(10s);
    EXPECT_EQ(granted(), 100u) << world->list();
    world->expect_settled();
    for (auto& [id, door] : world->doors) world->close(id);
    world->run(10s);
    world->expect_settled();
    EXPECT_EQ(world->core->doors(), 0u);
  }
}

TEST_F(CoreTest, APinholeIsOpenedByPcpAndByUpnp) {
  for (const auto& kind : {pcp_only, upnp_only, all}) {
    start(with_ipv6(kind));
    const auto door = open();
    world->run(3s);
    const auto* const six = world->grant(door, Family::ipv6);
    ASSERT_TRUE(six);
    EXPECT_EQ(six->protocol, kind.pcp ? Protocol::pcp : Protocol::upnp);
    EXPECT_EQ(six->external.address, world->host6());
    world->expect_settled();
    world->close(door);
    world->run(15s);
    world->expect_settled();
  }
}

TEST_F(CoreTest, AnAnnouncementFromAnybodyElseIsIgnored) {  // PCP-14.1-08, NPM-3.2.1-04
  const std::vector<std::byte> pcp = [] {
    std::vector<std::byte> bytes(24);  // of epoch 0
    bytes[0] = std::byte{2};
    bytes[1] = std::byte{0x80};
    return bytes;
  }();
  const std::vector<std::byte> natpmp = [] {
    std::vector<std::byte> bytes(12);
    bytes[1] = std::byte{0x80};
    bytes[8] = std::byte{203};
    return bytes;
  }();
  for (const auto& kind : {pcp_only, natpmp_only}) {
    start(kind);
    const auto door = open();
    world->run(5s);
    world->requests.clear();
    const auto told = story(door);
    const auto announce = [&](const Address& from) {
      world->core->handle_announcement(kind.pcp ? pcp : natpmp, from, 2, world->now());
      world->run(10s);
    };
    announce(World::neighbour);
    EXPECT_TRUE(world->requests.empty());
    EXPECT_EQ(story(door), told);
    announce(World::gateway);
    EXPECT_FALSE(world->requests.empty());
  }
}

// --- what the simulation has taught

TEST_F(CoreTest, WhatWasClosedBeforeItsAnswerCameIsClosedAtTheGatewayToo) {
  for (const auto& kind : {pcp_only, natpmp_only, upnp_only})
    for (std::uint64_t seed = 0; seed < 30; ++seed) {
      start(kind);
      const auto first = open(21000);
      world->run(3s);
      world->dice = Dice{seed};
      world->link.most = 300ms;  // a request may arrive behind what was sent later
      const auto door = open();
      world->run(std::chrono::milliseconds{seed * 10});
      world->close(door);
      world->run(10s);
      world->expect_settled();
      EXPECT_TRUE(world->grant(first));
    }
}

TEST_F(CoreTest, AnotherExternalAddressIsNoticedThoughNobodyAnnouncesIt) {
  for (const auto& kind : {natpmp_only, upnp_only}) {
    start(kind);
    const auto door = open();
    world->run(1min);
    world->link.lost_multicast = 100;
    world->set_external(1);
    world->run(2h);
    EXPECT_EQ(world->grant(door)->external.address, world->external());
    EXPECT_NE(story(door).find("changed"), std::string::npos);
  }
}

TEST_F(CoreTest, AnAnnouncementTellsTheNewExternalAddress) {  // NPM-3.2.1-05
  start(natpmp_only);
  const auto door = open();
  world->run(1min);
  world->requests.clear();
  world->set_external(1);
  world->run(100ms);
  ASSERT_TRUE(world->grant(door));
  EXPECT_EQ(world->grant(door)->external.address, world->external());
}

TEST_F(CoreTest, OwnDoorsDoNotTakeEachOthersPort) {
  start(igd1_only);
  auto one = request(22000), other = request(22001);
  one.external_port = other.external_port = port(20002);
  world->open(one);
  world->open(other);
  world->run(5s);
  EXPECT_EQ(granted(), 2u);
  world->expect_settled();
}

TEST_F(CoreTest, AGatewayThatSpeaksPcpAloneIsNotMistakenByItsWordAboutNatPmp) {  // PCP-9-08
  start(pcp_only);
  const auto door = open();
  world->run(5s);
  EXPECT_EQ(story(door), "granted/pcp ");
  EXPECT_LE(world->sent - world->requests[Via::pcp], 1u + 14u) << "the question and the searches, once";
}

TEST_F(CoreTest, NatPmpTakesOverFromPcpAlsoWithAPinhole) {
  start(with_ipv6({.upnp = false}));
  const auto door = open();
  world->run(5s);
  ASSERT_TRUE(world->grant(door, Family::ipv6));
  world->set_spoken(false, true, false);
  world->run(3h);
  ASSERT_TRUE(world->grant(door));
  EXPECT_EQ(world->grant(door)->protocol, Protocol::natpmp);
}

}  // namespace
}  // namespace sallyport::test
