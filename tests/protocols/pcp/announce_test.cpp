#include "tests/protocols/pcp/server_fixture.hpp"

namespace sallyport::pcp {
namespace {

using test::hex;

const auto group = *Address::parse("224.0.0.1");
const auto other_gateway = *Address::parse("10.0.0.1");

/// Time passes from deadline to deadline; what was sent is kept with its time since `start`.
class TimedServerTest : public ServerTest {
 protected:
  struct Sent {
    std::chrono::milliseconds at;
    wire::Outgoing out;
  };
  std::vector<Sent> run_for(std::chrono::milliseconds time) {
    const auto start = now;
    const auto end = now + time;
    std::vector<Sent> sent;
    for (;;) {
      const auto due = server.next_deadline();
      if (!due || *due > end) break;
      now = std::max(now, *due);
      server.handle_timeout(now);
      while (auto out = server.poll_transmit())
        sent.push_back({std::chrono::duration_cast<std::chrono::milliseconds>(now - start), std::move(*out)});
    }
    now = end;
    return sent;
  }
};

class PcpAnnounce : public TimedServerTest {};

// PCP-14.1-04, PCP-14.1-05
TEST_F(PcpAnnounce, GoesOutTenTimesFromEachServedAddressAfterTheStart) {
  EXPECT_FALSE(server.next_deadline());
  const wire::ServedAddress served[] = {{3, gateway}, {4, other_gateway}};
  server.set_served_addresses(served, now);
  const auto sent = run_for(10min);
  ASSERT_EQ(sent.size(), 20U);
  const std::chrono::milliseconds times[] = {0ms,    250ms,   750ms,   1750ms,  3750ms,
                                             7750ms, 15750ms, 31750ms, 63750ms, 127750ms};
  for (std::size_t i = 0; i < sent.size(); ++i) {
    const auto& [at, out] = sent[i];
    EXPECT_EQ(at, times[i / 2]);
    EXPECT_EQ(out.to, group);
    EXPECT_EQ(out.to_port, 5350);
    EXPECT_EQ(out.from_port, 5351);
    EXPECT_EQ(out.from, served[i % 2].address);
    EXPECT_EQ(out.interface, served[i % 2].interface);
    const auto epoch = epoch_s + std::chrono::duration_cast<std::chrono::seconds>(at).count();
    EXPECT_EQ(out.bytes, encode_announce_response(static_cast<std::uint32_t>(epoch)));
  }
  EXPECT_EQ(sent[0].out.bytes, hex("02800000 00000000 000003e8 000000000000000000000000"));
}

// PCP-14.1-04, NPM-3.2.1-08 (bursts never overlap)
TEST_F(PcpAnnounce, StartsOverWhenTheEpochIsResetMeanwhile) {
  const wire::ServedAddress served[] = {{3, gateway}};
  server.set_served_addresses(served, now);
  EXPECT_EQ(run_for(1s).size(), 3U);
  service.reset_epoch(now);
  service.reset_epoch(now);  // two events at once are one
  const auto sent = run_for(10min);
  ASSERT_EQ(sent.size(), 10U);
  EXPECT_EQ(sent[0].at, 0ms);
  EXPECT_EQ(sent[1].at, 250ms);
  EXPECT_EQ(decode_response_header(sent[0].out.bytes)->epoch_s, 0U);
  EXPECT_EQ(decode_response_header(sent[9].out.bytes)->epoch_s, 127U);
}

TEST_F(PcpAnnounce, BeginsForANewServedAddressAndNotForOneThatGoes) {
  const wire::ServedAddress both[] = {{3, gateway}, {4, other_gateway}};
  server.set_served_addresses(std::span{both}.first(1), now);
  run_for(10min);
  server.set_served_addresses(std::span{both}.first(1), now);
  EXPECT_TRUE(run_for(10min).empty());
  server.set_served_addresses(both, now);
  EXPECT_EQ(run_for(10min).size(), 20U);
  server.set_served_addresses(std::span{both}.last(1), now);
  EXPECT_TRUE(run_for(10min).empty());
  service.reset_epoch(now);
  server.set_served_addresses({}, now);
  EXPECT_FALSE(server.next_deadline());
  service.reset_epoch(now);  // nobody to tell
  EXPECT_FALSE(server.next_deadline());
}

class PcpUpdate : public TimedServerTest {
 protected:
  PcpUpdate() {
    const wire::ServedAddress served[] = {{3, gateway}};
    server.set_served_addresses(served, now);
    run_for(10min);
    service.epoch_start = now - std::chrono::seconds{epoch_s};
  }
  LeaseView lease(std::uint16_t internal_port = 8080) const {
    return {.number = internal_port,
            .id = "k7f2",
            .state = LeaseState::active,
            .kind = LeaseKind::explicit_,
            .via = Via::pcp,
            .transport = Transport::tcp,
            .internal = {alice, *Port::from(internal_port)},
            .external = {*Address::parse("203.0.113.99"), *Port::from(2048)},
            .remotes = {},
            .description = "",
            .lifetime_s = 3600,
            .deadline = now + 1000s,
            .created = {},
            .renewals = 0,
            .counters = {},
            .nonce = Nonce{std::byte{0xaa}, std::byte{0xbb}},
            .contact = {3, alice, 40000, gateway}};
  }
  void tell(LeaseEventKind kind, LeaseEventReason reason, const LeaseView& view) {
    service.tell({kind, reason, view}, now);
  }
};

// PCP-14.2-01, -02, PCP-11.5-01
TEST_F(PcpUpdate, TellsTheClientThreeTimesThatItsMappingMoved) {
  tell(LeaseEventKind::changed, LeaseEventReason::address_changed, lease());
  const auto sent = run_for(1h);
  ASSERT_EQ(sent.size(), 3U);
  EXPECT_EQ(sent[0].at, 0ms);
  EXPECT_EQ(sent[1].at, 250ms);
  EXPECT_EQ(sent[2].at, 750ms);
  EXPECT_EQ(sent[0].out.to, alice);
  EXPECT_EQ(sent[0].out.to_port, 40000);
  EXPECT_EQ(sent[0].out.from, gateway);
  EXPECT_EQ(sent[0].out.from_port, 5351);
  EXPECT_EQ(sent[0].out.interface, 3U);
  EXPECT_EQ(sent[0].out.bytes, hex("02 81 00 00 000003e8 000003e8 000000000000000000000000"
                                   "aabb00000000000000000000 06 000000 1f90 0800"
                                   "00000000000000000000ffffcb007163"));
  EXPECT_EQ(decode_response_header(sent[2].out.bytes)->lifetime_s, 999U);
}

// PCP-14.2-03
TEST_F(PcpUpdate, TellsWithLifetime0AndSuccessThatAMappingIsGone) {
  for (const auto reason : {LeaseEventReason::revoked, LeaseEventReason::replaced, LeaseEventReason::lost,
                            LeaseEventReason::policy}) {
    tell(LeaseEventKind::ended, reason, lease());
    const auto sent = run_for(1h);
    ASSERT_EQ(sent.size(), 3U) << to_string(reason);
    const auto response = decode_map_response(sent[0].out.bytes).value();
    EXPECT_EQ(response.header.result, ResultCode::success);
    EXPECT_EQ(response.header.lifetime_s, 0U);
    EXPECT_EQ(response.map.internal_port, Port::from(8080));
  }
}

TEST_F(PcpUpdate, TellsNothingThatTheClientKnowsOrThatIsNotItsOwn) {
  tell(LeaseEventKind::granted, LeaseEventReason::requested, lease());
  tell(LeaseEventKind::renewed, LeaseEventReason::requested, lease());
  tell(LeaseEventKind::changed, LeaseEventReason::requested, lease());
  tell(LeaseEventKind::ended, LeaseEventReason::requested, lease());
  tell(LeaseEventKind::ended, LeaseEventReason::expired, lease());
  auto other = lease();
  other.via = Via::natpmp;  // PCP-9-11, NPM-1.1-02
  tell(LeaseEventKind::ended, LeaseEventReason::revoked, other);
  other = lease();
  other.contact = {};
  tell(LeaseEventKind::ended, LeaseEventReason::revoked, other);
  other = lease();
  other.contact.gateway = other_gateway;  // an address that is not served any more
  tell(LeaseEventKind::ended, LeaseEventReason::revoked, other);
  EXPECT_TRUE(run_for(1h).empty());
}

// PCP-14.2-02
TEST_F(PcpUpdate, StopsWhenTheClientAsksAgain) {
  tell(LeaseEventKind::ended, LeaseEventReason::revoked, lease());
  EXPECT_EQ(run_for(100ms).size(), 1U);
  auto again = lease();
  again.number = 77;  // a new lease for the same internal endpoint
  tell(LeaseEventKind::granted, LeaseEventReason::requested, again);
  EXPECT_TRUE(run_for(1h).empty());
}

TEST_F(PcpUpdate, SaysTheNewestWhenSomethingChangesAgain) {
  tell(LeaseEventKind::changed, LeaseEventReason::address_changed, lease());
  EXPECT_EQ(run_for(100ms).size(), 1U);
  tell(LeaseEventKind::ended, LeaseEventReason::revoked, lease());
  const auto sent = run_for(1h);
  ASSERT_EQ(sent.size(), 3U);
  for (const auto& [at, out] : sent) EXPECT_EQ(decode_response_header(out.bytes)->lifetime_s, 0U);
}

TEST_F(PcpUpdate, NamesTheHostOfAThirdPartyMapping) {  // PCP-13.1-09: the client matches on it
  auto view = lease();
  view.internal.address = bob;
  tell(LeaseEventKind::ended, LeaseEventReason::revoked, view);
  const auto sent = run_for(1h);
  ASSERT_EQ(sent.size(), 3U);
  EXPECT_EQ(sent[0].out.to, alice);
  EXPECT_EQ(decode_map_response(sent[0].out.bytes)->options.third_party, bob);
}

// PCP-14.2-06
TEST_F(PcpUpdate, AreAtMost64ASecondAndFirstCopiesComeFirst) {
  constexpr std::uint16_t count = 200;
  for (std::uint16_t port = 1; port <= count; ++port) {
    auto view = lease(port);
    view.deadline = now + 1h;
    tell(LeaseEventKind::changed, LeaseEventReason::address_changed, view);
  }
  const auto sent = run_for(1h);
  ASSERT_EQ(sent.size(), 3U * count);
  for (std::size_t i = 64; i < sent.size(); ++i) EXPECT_GE(sent[i].at - sent[i - 64].at, 1s) << i;
  EXPECT_EQ(sent[63].at, 0ms);
  std::set<std::uint16_t> early;
  for (const auto& [at, out] : sent)
    if (at < 4s) early.insert(decode_map_response(out.bytes)->map.internal_port->number());
  EXPECT_GE(early.size(), 190U);
}

TEST_F(PcpUpdate, AreForgottenWhenTheMappingEndsBeforeTheyGoOut) {
  auto view = lease();
  view.deadline = now + 500ms;
  tell(LeaseEventKind::changed, LeaseEventReason::address_changed, view);
  EXPECT_EQ(run_for(1h).size(), 2U);  // at 0 and 250 ms, not at 750 ms
}

TEST_F(PcpUpdate, ThatWaitAreBounded) {
  for (std::uint32_t i = 0; i < 2 * UpdateQueue::max_waiting; ++i) {
    auto view = lease();
    view.internal = {Address::v4(0xc0a80000 + i), *Port::from(80)};
    tell(LeaseEventKind::ended, LeaseEventReason::revoked, view);
  }
  std::size_t sent = 0;
  while (const auto due = server.next_deadline()) {
    now = std::max(now, *due);
    server.handle_timeout(now);
    while (server.poll_transmit()) ++sent;
  }
  EXPECT_EQ(sent, 3 * UpdateQueue::max_waiting);
}

// PSET-4-06
TEST_F(PcpUpdate, TellsOfASetOnceWithItsSize) {
  auto view = lease();
  view.set_size = 3;
  for (std::uint16_t place = 0; place < 3; ++place) {
    auto port = view;
    port.set_place = place;
    port.internal.port = *Port::from(8080u + place);
    port.external.port = *Port::from(2048u + place);
    tell(LeaseEventKind::changed, LeaseEventReason::address_changed, port);
  }
  const auto sent = run_for(10s);
  ASSERT_EQ(sent.size(), 3U) << "three copies of one";
  for (const auto& [at, out] : sent) {
    const auto response = decode_map_response(out.bytes).value();
    EXPECT_EQ(response.map.internal_port, Port::from(8080));
    EXPECT_EQ(response.map.external_port, Port::from(2048));
    EXPECT_EQ(response.options.port_set, (PortSet{3, 8080, true}));
  }
}

}  // namespace
}  // namespace sallyport::pcp
