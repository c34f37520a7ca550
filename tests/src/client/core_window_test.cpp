#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <map>
#include <optional>
#include <span>
#include <variant>
#include <vector>

#include "protocols/natpmp/codec.hpp"
#include "protocols/pcp/codec.hpp"
#include "src/client/core.hpp"

namespace sallyport::client {
namespace {

using namespace std::chrono_literals;

const auto here = Address::v4(0xc0a80102), router = Address::v4(0xc0a80101),
           outside = Address::v4(0xcb007107);

/// A client with many ports, and what it sends to a gateway of which the tests play the answers.
class CoreWindowTest : public ::testing::Test {
 protected:
  void begin(bool pcp, bool natpmp, bool upnp = false) {
    core.emplace(
        Core::Options{.pcp = pcp, .natpmp = natpmp, .upnp = upnp, .gateways = {}, .secret = {}, .seed = 1});
    core->set_network({{{.index = 2,
                         .name = "eth0",
                         .ipv4 = {{here, 120}},
                         .ipv6 = {},
                         .routers4 = {router},
                         .routers6 = {}}}},
                      now);
  }
  void open(DoorId door, std::uint16_t port) {
    core->open(door, {.internal_port = *Port::from(port), .ipv6 = false}, std::nullopt, now);
  }
  /// What the client has sent since the last time.
  std::vector<Core::Datagram> sent() {
    std::vector<Core::Datagram> all;
    while (auto next = core->poll_transmit()) all.push_back(std::move(*next));
    return all;
  }
  std::uint32_t epoch_s() const {
    return static_cast<std::uint32_t>(
        std::chrono::duration_cast<std::chrono::seconds>(now.time_since_epoch()).count());
  }
  /// The gateway agrees.
  void answer(const Core::Datagram& request) {
    const std::span<const std::byte> bytes{request.bytes};
    if (const auto header = pcp::decode_request_header(bytes)) {
      pcp::MapResponse response;
      response.header.opcode = header->opcode;
      response.header.lifetime_s = header->lifetime_s;
      response.header.epoch_s = epoch_s();
      response.map = pcp::decode_map_body(bytes.subspan(pcp::header_size)).value();
      response.map.external_port = response.map.internal_port;
      response.map.external_address = outside;
      return core->handle_server_datagram(request.server, pcp::encode_map_response(response), now);
    }
    const auto asked = natpmp::decode_request(bytes).value();
    if (const auto* map = std::get_if<natpmp::MapRequest>(&asked)) {
      core->handle_server_datagram(
          request.server,
          natpmp::encode(natpmp::MapResponse{.transport = map->transport,
                                             .epoch_s = epoch_s(),
                                             .internal_port = map->internal_port,
                                             .external_port = map->suggested_external_port,
                                             .lifetime_s = map->lifetime_s}),
          now);
    } else {
      core->handle_server_datagram(
          request.server, natpmp::encode(natpmp::AddressResponse{.epoch_s = epoch_s(), .external = outside}),
          now);
    }
  }
  /// Every event so far, by kind.
  std::map<EventKind, unsigned> events() {
    while (const auto next = core->poll_event()) ++seen[next->second.kind];
    return seen;
  }
  void run_for(std::chrono::nanoseconds time) {
    const auto until = now + time;
    while (const auto due = core->next_deadline()) {
      if (*due > until) break;
      now = std::max(now, *due);
      core->handle_timeout(now);
    }
    now = until;
  }

  /// Opens `count` ports, and answers until they are open; what the gateway was sent at once at most.
  std::size_t open_all(unsigned count) {
    for (unsigned i = 0; i < count; ++i) open(i + 1, static_cast<std::uint16_t>(20000 + i));
    return answer_all(1ms);
  }
  /// Answers all that comes, each answer after `pause`; how many questions stood open at once at most.
  std::size_t answer_all(std::chrono::nanoseconds pause) {
    std::size_t most = 0;
    std::deque<Core::Datagram> open_ones;
    for (;;) {
      for (auto& each : sent()) open_ones.push_back(std::move(each));
      most = std::max(most, open_ones.size());
      if (open_ones.empty()) return most;
      run_for(pause);
      answer(open_ones.front());
      open_ones.pop_front();
      events();
    }
  }

  TimePoint now{1000s};
  std::optional<Core> core;
  std::map<EventKind, unsigned> seen;
};

// NPM-3.1-01: one request at a time, however many ports there are.
TEST_F(CoreWindowTest, PortsThatWaitForTheirTurnAreNotToldThatThereIsNoGateway) {
  begin(false, true);
  for (unsigned i = 0; i < 1000; ++i) open(i + 1, static_cast<std::uint16_t>(20000 + i));
  EXPECT_EQ(answer_all(5ms), 1u);  // 5 s, longer than silence would be borne
  EXPECT_EQ(events()[EventKind::granted], 1000u);
  EXPECT_EQ(events()[EventKind::refused], 0u);
}

TEST_F(CoreWindowTest, PortsThatWaitForTheirTurnAreToldWhenNobodyAnswersAnyMore) {
  begin(false, true);
  for (unsigned i = 0; i < 100; ++i) open(i + 1, static_cast<std::uint16_t>(20000 + i));
  for (const auto& each : sent()) answer(each);  // the external address, and then no more
  run_for(4s);
  EXPECT_GE(events()[EventKind::refused], 80u);
}

TEST_F(CoreWindowTest, ManyPortsAreOpenedAndClosedWithFewQuestionsInFlight) {
  begin(true, false);
  EXPECT_LE(open_all(200), 16u);
  EXPECT_EQ(events()[EventKind::granted], 200u);
  for (DoorId door = 1; door <= 200; ++door) core->close(door, false, now);
  EXPECT_TRUE(core->waits_to_close(200));
  EXPECT_LE(answer_all(1ms), 16u);
  EXPECT_EQ(events()[EventKind::closed], 200u);
  EXPECT_EQ(core->doors(), 0u);
}

// NPM-3.1-01
TEST_F(CoreWindowTest, NatPmpPortsAreClosedOneByOne) {
  begin(false, true);
  open_all(20);
  EXPECT_EQ(events()[EventKind::granted], 20u);
  for (DoorId door = 1; door <= 20; ++door) core->close(door, false, now);
  EXPECT_EQ(answer_all(1ms), 1u);
  EXPECT_EQ(events()[EventKind::closed], 20u);
}

TEST_F(CoreWindowTest, ClosingGoesOnPastAGatewayThatDoesNotAnswerAnyMore) {
  begin(true, false);
  open_all(64);
  for (DoorId door = 1; door <= 64; ++door) core->close(door, false, now);
  EXPECT_EQ(sent().size(), 16u);
  run_for(2s);
  EXPECT_EQ(sent().size(), 48u);
}

TEST_F(CoreWindowTest, AProgramThatEndsTellsTheGatewayEverythingAtOnce) {
  begin(true, false);
  open_all(64);
  for (DoorId door = 1; door <= 32; ++door) core->close(door, false, now);  // these wait for their turn
  core->hurry(now);
  for (DoorId door = 33; door <= 64; ++door) core->close(door, false, now);
  EXPECT_EQ(sent().size(), 64u);
}

// UDA-1.3-05: who is asked alone does not wait before it answers.
TEST_F(CoreWindowTest, TheRouterIsSearchedForByItsAddressToo) {
  begin(false, false, true);
  open(1, 20000);
  const auto all = sent();
  const auto to_router =
      std::count_if(all.begin(), all.end(), [](const auto& each) { return each.to == router; });
  EXPECT_EQ(to_router, 2);                                  // IGD:1 and IGD:2
  EXPECT_GE(static_cast<long>(all.size()) - to_router, 2);  // others are found as ever
  for (const auto& each : all) EXPECT_EQ(each.to_port, 1900);
  run_for(1900ms);
  for (const auto& each : sent()) EXPECT_NE(each.to, router);  // once is enough
}

TEST_F(CoreWindowTest, APortIsAskedForAgainAtOnceWhereTheGatewayHasNeverSpokenPcp) {
  begin(true, false);
  open(1, 20000);
  EXPECT_EQ(sent().size(), 1u);
  run_for(100ms);
  core->close(1, false, now);
  ASSERT_EQ(sent().size(), 1u);  // it is told all the same: the request may have arrived
  EXPECT_EQ(events()[EventKind::closed], 1u);
  open(2, 20000);
  EXPECT_EQ(sent().size(), 1u);
}

}  // namespace
}  // namespace sallyport::client
