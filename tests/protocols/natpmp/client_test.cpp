#include "protocols/natpmp/client.hpp"

#include <gtest/gtest.h>

#include <random>
#include <set>

#include "protocols/natpmp/server.hpp"
#include "tests/support/fake_mapping_service.hpp"
#include "tests/support/hex.hpp"
#include "tests/support/vectors.hpp"

namespace sallyport::natpmp {
namespace {

using namespace std::chrono_literals;
using wire::MappingEvent;
using wire::MappingFailure;
using Kind = MappingEvent::Kind;
using State = AddressClient::Result::State;
using Bytes = std::vector<std::byte>;

constexpr auto alice = Address::v4(0xc0a8010a);
constexpr auto gateway = Address::v4(0xc0a80101);
constexpr auto outside = Address::v4(0xcb007107);
constexpr auto elsewhere = Address::v4(0xcb007163);

Port port(std::uint32_t number) { return Port::from(number).value(); }

/// When the nine attempts go out, and when the last of them was in vain.
constexpr std::chrono::milliseconds attempts[] = {0ms,    250ms,   750ms,   1750ms,  3750ms,
                                                  7750ms, 15750ms, 31750ms, 63750ms, 127750ms};

class NatpmpAddressClient : public testing::Test {
 protected:
  TimePoint now{1h};
  AddressClient client{now};

  std::vector<Bytes> sent() {
    std::vector<Bytes> all;
    while (auto bytes = client.poll_transmit()) all.push_back(std::move(*bytes));
    return all;
  }
  bool handle(const char* datagram) { return client.handle_datagram(test::hex(datagram), now); }
  void fails(const char* datagram, MappingFailure failure, unsigned code) {
    client.refresh(now);
    EXPECT_TRUE(handle(datagram));
    EXPECT_EQ(client.result(), (AddressClient::Result{State::failure, {}, failure, code})) << datagram;
    EXPECT_FALSE(client.next_deadline());
  }
};

// NPM-3.1-02, NPM-3.1-03, NPM-3.8-03
TEST_F(NatpmpAddressClient, AsksNineTimesAndTakesSilenceForNoNatpmp) {
  const auto begin = now;
  for (int i = 0; i < 9; ++i) {
    EXPECT_EQ(now, begin + attempts[i]);
    EXPECT_EQ(sent(), std::vector<Bytes>{test::hex("00 00")});
    EXPECT_EQ(client.result().state, State::pending);
    const auto due = *client.next_deadline();
    client.handle_timeout(due - 1ns);
    EXPECT_TRUE(sent().empty());
    now = due;
    client.handle_timeout(now);
  }
  EXPECT_EQ(now, begin + attempts[9]);
  EXPECT_TRUE(sent().empty());
  EXPECT_EQ(client.result(), (AddressClient::Result{State::failure, {}, MappingFailure::unsupported, 0}));
  EXPECT_FALSE(client.next_deadline());
}

TEST_F(NatpmpAddressClient, TellsTheAddressAndAsksAgainWhenTold) {
  sent();
  EXPECT_TRUE(handle("00 80 00 00 00 00 00 64 cb 00 71 07"));
  EXPECT_EQ(client.result(), (AddressClient::Result{State::address, outside}));
  EXPECT_FALSE(client.next_deadline());
  EXPECT_FALSE(handle("00 80 00 00 00 00 00 64 cb 00 71 63"));  // nobody asked
  client.refresh(now);
  EXPECT_EQ(sent().size(), 1u);
  client.refresh(now);
  EXPECT_TRUE(sent().empty());
  EXPECT_EQ(client.result(), (AddressClient::Result{State::pending, outside}));
  EXPECT_TRUE(handle("00 80 00 00 00 00 00 64 cb 00 71 63"));
  EXPECT_EQ(client.result(), (AddressClient::Result{State::address, elsewhere}));
}

// NPM-3.2-03, NPM-3.5-06
TEST_F(NatpmpAddressClient, TellsWhyThereIsNoAddress) {
  fails("00 80 00 03 00 00 00 64 cb 00 71 07", MappingFailure::no_external_address, 3);
  fails("00 80 00 00 00 00 00 64 00 00 00 00", MappingFailure::no_external_address, 0);
  fails("00 80 00 02 00 00 00 64 00 00 00 00", MappingFailure::not_authorized, 2);
  fails("00 80 00 04 00 00 00 64 00 00 00 00", MappingFailure::no_resources, 4);
  fails("00 80 00 05 00 00 00 00", MappingFailure::unsupported, 5);
  fails("00 80 00 01 00 00 00 64 00 00 00 00", MappingFailure::unsupported, 1);
  fails("00 80 01 02 00 00 00 64 00 00 00 00", MappingFailure::nonsense, 258);
  // a PCP server that speaks nothing else
  fails("02 80 00 01 00 00 07 08 00 00 00 64 00 00 00 00 00 00 00 00 00 00 00 00",
        MappingFailure::unsupported, 1);
}

// NPM-3.1-04
TEST_F(NatpmpAddressClient, TakesAnUnreachablePortForNoNatpmp) {
  client.handle_unreachable(now);
  EXPECT_EQ(client.result(), (AddressClient::Result{State::failure, {}, MappingFailure::unsupported, 0}));
  EXPECT_TRUE(sent().empty());
  client.refresh(now);
  EXPECT_EQ(sent().size(), 1u);
}

TEST_F(NatpmpAddressClient, TakesNothingElseForAnAnswer) {
  for (const auto* datagram : {"", "00", "00 80 00 00 00 00 00 64 cb 00 71", "00 00",
                               "00 81 00 00 00 00 00 64 1f 90 1f 90 00 00 1c 20", "00 00 00 01 00 00 00 64",
                               "02 80 00 00 00 00 00 00 00 00 00 64 00 00 00 00 00 00 00 00 00 00 00 00"})
    EXPECT_FALSE(handle(datagram)) << datagram;
  EXPECT_EQ(client.result().state, State::pending);
}

class NatpmpClientTest : public testing::Test {
 protected:
  wire::MappingWish wish{.transport = Transport::tcp, .internal_port = port(8080)};
  std::uint64_t seed = 6886;
  TimePoint now{1h};
  std::optional<MappingClient> client;

  void make() { client.emplace(wish, seed, now); }
  std::vector<MapRequest> sent() {
    std::vector<MapRequest> all;
    while (const auto bytes = client->poll_transmit())
      all.push_back(std::get<MapRequest>(decode_request(*bytes).value()));
    return all;
  }
  std::vector<MappingEvent> events() {
    std::vector<MappingEvent> all;
    while (const auto event = client->poll_event()) all.push_back(*event);
    return all;
  }
  MappingEvent event() {
    const auto all = events();
    EXPECT_EQ(all.size(), 1u);
    return all.empty() ? MappingEvent{.granted = {.external = {{}, port(1)}}} : all.front();
  }
  bool quiet() { return events().empty() && sent().empty(); }
  /// To the next deadline, exactly; nothing may happen before it.
  void wake() {
    const auto due = client->next_deadline();
    ASSERT_TRUE(due);
    client->handle_timeout(*due - 1ns);
    ASSERT_TRUE(quiet());
    ASSERT_EQ(client->next_deadline(), due);
    now = *due;
    client->handle_timeout(now);
  }
  MapResponse response(std::uint32_t lifetime_s = 7200, std::uint16_t external = 8080) const {
    return {.transport = wish.transport,
            .epoch_s = 100,
            .internal_port = wish.internal_port.number(),
            .external_port = external,
            .lifetime_s = lifetime_s};
  }
  bool handle(const MapResponse& answer) { return client->handle_datagram(encode(answer), now); }
  bool grant(std::uint32_t lifetime_s = 7200, std::uint16_t external = 8080) {
    return handle(response(lifetime_s, external));
  }
  bool refuse(int code) {
    auto answer = response(0, 0);
    answer.result = static_cast<ResultCode>(code);
    return handle(answer);
  }
  void hold(std::uint32_t lifetime_s = 7200) {
    make();
    ASSERT_EQ(sent().size(), 1u);
    ASSERT_TRUE(grant(lifetime_s));
    ASSERT_EQ(event().kind, Kind::granted);
  }
  void renew() {
    wake();
    ASSERT_EQ(sent().size(), 1u);
  }
};

// NPM-3.3-21, NPM-3.3-02
TEST_F(NatpmpClientTest, AsksAtOnceForWhatIsWished) {
  make();
  EXPECT_EQ(client->poll_transmit(), test::hex("00 02 00 00 1f 90 1f 90 00 00 1c 20"));
  EXPECT_TRUE(quiet());
  wish.transport = Transport::udp;
  wish.external_port = port(443);
  wish.lifetime_s = 60;
  make();
  EXPECT_EQ(client->poll_transmit(), test::hex("00 01 00 00 1f 90 01 bb 00 00 00 3c"));
}

// NPM-3.1-02, NPM-3.1-03
TEST_F(NatpmpClientTest, AsksNineTimesAndBeginsAgainEverMoreSeldom) {
  make();
  for (const auto wait : {64s, 128s, 256s, 512s, 900s, 900s}) {
    const auto begin = now;
    for (int i = 0; i < 9; ++i) {
      EXPECT_EQ(now, begin + attempts[i]);
      EXPECT_EQ(sent(), (std::vector<MapRequest>{{Transport::tcp, 8080, 8080, 7200}}));
      EXPECT_TRUE(events().empty());
      wake();
    }
    EXPECT_EQ(now, begin + attempts[9]);
    const auto refused = event();
    EXPECT_EQ(refused.kind, Kind::refused);
    EXPECT_EQ(refused.failure, MappingFailure::no_answer);
    EXPECT_EQ(refused.retry_at, now + wait);
    EXPECT_TRUE(sent().empty());
    wake();
  }
  ASSERT_TRUE(grant());
  EXPECT_EQ(event().kind, Kind::granted);
}

TEST_F(NatpmpClientTest, TellsWhatWasGrantedWithTheAddressThatItsOwnerKnows) {
  make();
  sent();
  client->set_external_address(outside);
  EXPECT_TRUE(quiet());
  ASSERT_TRUE(grant(600, 40000));
  auto told = event();
  EXPECT_EQ(told.kind, Kind::granted);
  EXPECT_EQ(told.granted, (wire::Granted{{outside, port(40000)}, 600, now}));
  client->set_external_address(outside);
  EXPECT_TRUE(quiet());
  client->set_external_address(elsewhere);
  told = event();
  EXPECT_EQ(told.kind, Kind::changed);
  EXPECT_EQ(told.granted, (wire::Granted{{elsewhere, port(40000)}, 600, now}));

  hold();  // nobody knows one
  client->set_external_address(outside);
  EXPECT_EQ(event().kind, Kind::changed);
}

// NPM-3.3-19, NPM-3.3-20
TEST_F(NatpmpClientTest, RenewsFromHalfOfTheLifetimeOn) {
  std::set<TimePoint> firsts;
  for (seed = 1; seed <= 50; ++seed) {
    make();
    sent();
    ASSERT_TRUE(grant(7200, 40000));
    events();
    const auto begin = now;
    wake();
    EXPECT_GE(now, begin + 3600s);
    EXPECT_LE(now, begin + 4500s);
    firsts.insert(now);
    EXPECT_EQ(sent(), (std::vector<MapRequest>{{Transport::tcp, 8080, 40000, 7200}}));
    wake();
    EXPECT_EQ(sent().size(), 1u);  // repeated after 250 ms
    ASSERT_TRUE(grant(7200, 40000));
    EXPECT_EQ(event().kind, Kind::renewed);
    renew();
    ASSERT_TRUE(grant(7200, 40001));
    EXPECT_EQ(event().kind, Kind::changed);
    now = begin;
  }
  EXPECT_EQ(firsts.size(), 50u);
}

TEST_F(NatpmpClientTest, RunsOutWhenNoRenewalIsAnsweredAndAsksOn) {
  hold();
  const auto end = now + 7200s;
  std::size_t asked = 0;
  while (now < end) {
    ASSERT_TRUE(events().empty());
    wake();
    asked += sent().size();
  }
  EXPECT_EQ(now, end);
  EXPECT_GE(asked, 27u);
  const auto ended = event();
  EXPECT_EQ(ended.kind, Kind::ended);
  EXPECT_EQ(ended.failure, MappingFailure::no_answer);
  EXPECT_FALSE(ended.told);
  renew();
  ASSERT_TRUE(grant());
  EXPECT_EQ(event().kind, Kind::granted);
}

TEST_F(NatpmpClientTest, ReliesOnNoLifetimeForMoreThanADay) {
  hold(0xffffffff);
  EXPECT_GE(*client->next_deadline(), now + 12h);
  EXPECT_LE(*client->next_deadline(), now + 15h);
}

TEST_F(NatpmpClientTest, LivesWithLifetimesOfASecond) {
  make();
  int asked = 0;
  const auto end = now + 100s;
  for (; now < end; now = *client->next_deadline(), client->handle_timeout(now)) {
    if (!sent().empty()) {
      ++asked;
      ASSERT_TRUE(grant(1));
    }
    events();
  }
  EXPECT_GE(asked, 10);
  EXPECT_LE(asked, 26);
}

// NPM-3.5-06
TEST_F(NatpmpClientTest, TellsWhyItIsRefusedAndAsksAgainLater) {
  const std::tuple<int, MappingFailure, std::chrono::seconds> rows[] = {
      {1, MappingFailure::unsupported, 900s},        {2, MappingFailure::not_authorized, 900s},
      {3, MappingFailure::no_external_address, 32s}, {4, MappingFailure::no_resources, 32s},
      {5, MappingFailure::unsupported, 900s},        {6, MappingFailure::nonsense, 900s},
      {258, MappingFailure::nonsense, 900s},
  };
  for (const auto& [code, failure, wait] : rows) {
    make();
    sent();
    ASSERT_TRUE(refuse(code));
    const auto refused = event();
    EXPECT_EQ(refused.kind, Kind::refused) << code;
    EXPECT_EQ(refused.failure, failure) << code;
    EXPECT_EQ(refused.code, static_cast<unsigned>(code));
    EXPECT_EQ(refused.retry_at, now + wait) << code;
    ASSERT_TRUE(code == 1 || code == 5 || refuse(code));  // twice
    renew();
    EXPECT_EQ(now, *refused.retry_at);
    ASSERT_TRUE(grant());
    EXPECT_EQ(event().kind, Kind::granted);
  }
  make();
  for (const auto wait : {32s, 64s, 128s, 256s, 512s, 900s, 900s}) {
    sent();
    ASSERT_TRUE(refuse(4));
    EXPECT_EQ(event().retry_at, now + wait);
    wake();
  }
}

TEST_F(NatpmpClientTest, ReadsARefusalInEveryFormThatServersGiveIt) {
  for (const auto* answer :
       {"00 82 00 05 1f 90 1f 90 00 00 1c 20",              // the request returned
        "00 82 00 05 00 00 00 64 1f 90 00 00 00 00 00 00",  // in the layout of its answer
        "00 82 00 01 00 00 00 64 1f 90 00 00 00 00 00 00",
        "02 82 00 01 00 00 07 08 00 00 00 64 00 00 00 00 00 00 00 00 00 00 00 00"}) {
    make();
    sent();
    EXPECT_TRUE(client->handle_datagram(test::hex(answer), now)) << answer;
    EXPECT_EQ(event().failure, MappingFailure::unsupported);
    EXPECT_FALSE(client->handle_datagram(test::hex(answer), now));
  }
}

// NPM-3.3-22
TEST_F(NatpmpClientTest, TakesNoDatagramThatIsNotAboutItsMapping) {
  make();
  sent();
  auto other = response();
  other.transport = Transport::udp;
  EXPECT_FALSE(handle(other));
  other = response();
  other.internal_port = 8081;
  EXPECT_FALSE(handle(other));
  other = response();
  other.external_port = 0;
  EXPECT_FALSE(handle(other));
  const auto good = encode(response());
  for (std::size_t n = 0; n < good.size(); ++n)
    EXPECT_FALSE(client->handle_datagram(std::span{good}.first(n), now)) << n;
  for (const auto* datagram : {"00 80 00 00 00 00 00 64 cb 00 71 07", "00 82 00 05 1f 91 1f 91 00 00 1c 20",
                               "00 81 00 05 1f 90 1f 90 00 00 1c 20", "00 02 00 00 1f 90 1f 90 00 00 1c 20",
                               "00 00 00 01 00 00 00 64", "00 82 00 01 00 00 00 64"})  // which answer PCP
    EXPECT_FALSE(client->handle_datagram(test::hex(datagram), now)) << datagram;
  EXPECT_TRUE(quiet());
  EXPECT_TRUE(client->handle_datagram(good, now));
  EXPECT_TRUE(client->handle_datagram(good, now));
  EXPECT_EQ(event().kind, Kind::granted);
}

// NPM-3.1-04
TEST_F(NatpmpClientTest, TakesAnUnreachablePortForNoNatpmp) {
  make();
  sent();
  client->handle_unreachable(now);
  const auto refused = event();
  EXPECT_EQ(refused.failure, MappingFailure::unsupported);
  EXPECT_EQ(refused.retry_at, now + 64s);
  renew();
  ASSERT_TRUE(grant());
  events();
  renew();
  client->handle_unreachable(now);
  EXPECT_TRUE(quiet());
}

TEST_F(NatpmpClientTest, DoesNotAskForWhatTheProtocolCannotSay) {
  wish.remotes = {{Prefix::v4(0xc6336400, 24), {}}};
  const auto not_possible = [&] {
    make();
    const auto refused = event();
    EXPECT_EQ(refused.kind, Kind::refused);
    EXPECT_EQ(refused.failure, MappingFailure::not_possible);
    EXPECT_FALSE(refused.retry_at);
    client->refresh(now);
    client->set_external_address(outside);
    EXPECT_TRUE(quiet());
    EXPECT_FALSE(client->next_deadline());
    client->release(now);
    EXPECT_TRUE(client->finished());
  };
  not_possible();
  wish.remotes.clear();
  wish.external_address = *Address::parse("2001:db8::a");
  not_possible();
}

TEST_F(NatpmpClientTest, GivesBackAPortThatIsNotTheOneInsistedOn) {
  wish.exact = true;
  make();
  sent();
  ASSERT_TRUE(grant(7200, 8081));
  const auto refused = event();
  EXPECT_EQ(refused.failure, MappingFailure::port_taken);
  EXPECT_EQ(sent(), (std::vector<MapRequest>{{Transport::tcp, 8080, 0, 0}}));
  wake();
  EXPECT_EQ(sent().size(), 1u);
  ASSERT_TRUE(grant(0, 0));
  EXPECT_TRUE(quiet());
  EXPECT_EQ(client->next_deadline(), refused.retry_at);

  hold();
  renew();
  ASSERT_TRUE(grant(7200, 8081));
  const auto all = events();
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].kind, Kind::ended);
  EXPECT_EQ(all[1].kind, Kind::refused);
}

TEST_F(NatpmpClientTest, KeepsTheMappingWhenTheGatewayCannotRenewItNow) {
  for (const int code : {3, 4}) {
    hold();
    renew();
    ASSERT_TRUE(refuse(code));
    EXPECT_TRUE(quiet());
    renew();
    ASSERT_TRUE(grant());
    EXPECT_EQ(event().kind, Kind::renewed);
  }
  hold(120);
  const auto end = now + 120s;
  while (now < end) {
    wake();
    if (now < end && !sent().empty()) refuse(4);
  }
  EXPECT_TRUE(sent().empty());
  const auto all = events();
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].kind, Kind::ended);
  EXPECT_EQ(all[0].failure, MappingFailure::no_resources);
  EXPECT_EQ(all[1].kind, Kind::refused);
}

TEST_F(NatpmpClientTest, EndsWhatTheGatewayTookBack) {
  hold();
  renew();
  ASSERT_TRUE(refuse(2));
  auto ended = event();
  EXPECT_EQ(ended.kind, Kind::ended);
  EXPECT_TRUE(ended.told);
  EXPECT_EQ(ended.code, 2u);
  renew();
  ASSERT_TRUE(refuse(2));
  EXPECT_EQ(event().kind, Kind::refused);

  hold();
  renew();
  ASSERT_TRUE(grant(0, 0));
  ended = event();
  EXPECT_EQ(ended.kind, Kind::ended);
  EXPECT_TRUE(ended.told);
  // and of what is not held yet it is no answer: a deletion before this request may have had it
  renew();
  EXPECT_FALSE(grant(0, 0));
  EXPECT_FALSE(client->poll_event());
}

// NPM-3.7-05
TEST_F(NatpmpClientTest, AsksAtOnceForWhatTheGatewayLost) {
  make();
  sent();
  ASSERT_TRUE(grant(7200, 40000));
  events();
  now += 10min;
  client->refresh(now);
  EXPECT_EQ(sent(), (std::vector<MapRequest>{{Transport::tcp, 8080, 40000, 7200}}));
  client->refresh(now);
  EXPECT_TRUE(quiet());
  wake();
  EXPECT_EQ(sent().size(), 1u);
  ASSERT_TRUE(refuse(3));
  const auto all = events();
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].kind, Kind::ended);
  EXPECT_FALSE(all[0].told);
  EXPECT_EQ(all[1].kind, Kind::refused);
  now += 10s;
  client->refresh(now);
  EXPECT_EQ(sent().size(), 1u);
  ASSERT_TRUE(grant());
  EXPECT_EQ(event().kind, Kind::granted);
}

// NPM-3.4-04, NPM-3.1-06
TEST_F(NatpmpClientTest, DeletesWhatIsNoLongerWantedInUpToThreeTransmissions) {
  hold();
  client->release(now);
  const auto begin = now;
  for (const auto after : {0ms, 250ms, 750ms}) {
    EXPECT_FALSE(client->finished());
    EXPECT_EQ(now, begin + after);
    EXPECT_EQ(client->poll_transmit(), test::hex("00 02 00 00 1f 90 00 00 00 00 00 00"));
    if (after != 750ms) wake();
  }
  EXPECT_TRUE(client->finished());
  EXPECT_FALSE(client->next_deadline());

  for (const auto* answer :
       {"00 82 00 00 00 00 00 64 1f 90 00 00 00 00 00 00", "00 82 00 02 00 00 00 64 1f 90 00 00 00 00 00 00",
        "00 82 00 02 00 00 00 64 1f 90 1f 90 00 00 1c 20"}) {
    hold();
    client->release(now);
    sent();
    ASSERT_TRUE(grant());  // the answer to a renewal
    EXPECT_FALSE(client->finished());
    EXPECT_TRUE(client->handle_datagram(test::hex(answer), now));
    EXPECT_TRUE(client->finished());
    EXPECT_TRUE(quiet());
  }
  hold();
  client->release(now);
  sent();
  client->handle_unreachable(now);
  EXPECT_TRUE(client->finished());
}

TEST_F(NatpmpClientTest, DeletesOnlyWhatMayBeThere) {
  make();
  client->release(now);  // never sent
  EXPECT_TRUE(client->finished());
  EXPECT_TRUE(quiet());
  make();
  sent();
  client->release(now);  // perhaps granted
  EXPECT_EQ(sent().size(), 1u);
  make();
  sent();
  refuse(4);
  client->release(now);
  EXPECT_TRUE(client->finished());
  EXPECT_TRUE(quiet());
}

// What a gateway says costs no more datagrams and makes no more events than time allows.
TEST_F(NatpmpClientTest, KeepsCalmWhateverAGatewaySays) {
  std::mt19937 random{1};
  const auto begin = now;
  std::size_t datagrams = 0, told = 0;
  const auto drain = [&] {
    datagrams += sent().size();
    told += events().size();
  };
  for (int round = 0; round < 100; ++round) {
    wish.exact = round % 2 == 1;
    make();
    for (int i = 0; i < 1000; ++i) {
      const auto draw = random();
      auto answer = response(draw % 64 == 0     ? 0
                             : draw % 1021 == 0 ? random()
                                                : random() % 100,
                             static_cast<std::uint16_t>(draw % 7 == 0 ? random() : 8080));
      if (draw % 5 == 0) answer.result = static_cast<ResultCode>(random() % 50 == 0 ? 1 : 3 + random() % 2);
      auto bytes = encode(answer);
      if (draw % 11 == 0) test::mutate(bytes, random);
      client->handle_datagram(bytes, now);
      if (draw % 997 == 0) client->handle_unreachable(now);
      drain();
      now += std::chrono::milliseconds{random() % 400};
      if (const auto due = client->next_deadline(); due && *due <= now) client->handle_timeout(now);
      ASSERT_GT(client->next_deadline(), now);
      drain();
    }
    client->release(now);
    for (int i = 0; i < 3 && !client->finished(); ++i) {
      sent();
      now += 1s;
      client->handle_timeout(now);
    }
    sent();
    EXPECT_TRUE(client->finished());
  }
  const auto passed = std::chrono::duration_cast<std::chrono::seconds>(now - begin).count();
  EXPECT_GT(datagrams, 500u);
  EXPECT_LE(datagrams, static_cast<std::size_t>(passed / 4));
  EXPECT_GT(told, 500u);
  EXPECT_LE(told, static_cast<std::size_t>(passed / 4));
}

/// The client and the server core over a network that loses and doubles datagrams.
TEST_F(NatpmpClientTest, KeepsAMappingAtTheServerOverALossyNetwork) {
  for (seed = 1; seed <= 20; ++seed) {
    std::mt19937 random{static_cast<std::uint32_t>(seed)};
    test::FakeMappingService service;
    service.epoch_start = now;
    Server server{service};
    EpochWatch epochs;
    make();
    AddressClient address{now};
    const auto copies = [&] { return random() % 10 < 3 ? 0 : random() % 10 < 2 ? 2 : 1; };
    int granted = 0, renewed = 0, ended = 0, lost = 0;
    const auto run_until = [&](TimePoint end, const auto& done) {
      while (now < end && !done()) {
        for (auto bytes = address.poll_transmit(); bytes; bytes = address.poll_transmit())
          for (int n = copies(); n > 0; --n) server.handle_datagram(*bytes, {alice, 40000, gateway, 2}, now);
        while (const auto bytes = client->poll_transmit())
          for (int n = copies(); n > 0; --n) server.handle_datagram(*bytes, {alice, 40000, gateway, 2}, now);
        while (const auto out = server.poll_transmit())
          for (int n = copies(); n > 0; --n) {
            if (const auto epoch_s = response_epoch(out->bytes)) lost += epochs.lost_state(*epoch_s, now);
            address.handle_datagram(out->bytes, now) || client->handle_datagram(out->bytes, now);
            if (address.result().state == State::address)
              client->set_external_address(address.result().address);
          }
        while (const auto event = client->poll_event()) {
          granted += event->kind == Kind::granted;
          renewed += event->kind == Kind::renewed;
          ended += event->kind == Kind::ended || event->kind == Kind::refused;
        }
        auto due = client->next_deadline();
        if (const auto also = address.next_deadline(); also && (!due || *also < *due)) due = also;
        now = due ? std::min(*due, end) : end;
        if (due && *due <= now) {
          client->handle_timeout(now);
          address.handle_timeout(now);
        }
      }
    };
    run_until(now + 24h, [] { return false; });
    EXPECT_EQ(granted, 1);
    EXPECT_GE(renewed, 4);
    EXPECT_EQ(ended, 0);
    EXPECT_EQ(lost, 0);
    EXPECT_EQ(address.result().address, outside);
    client->release(now);
    run_until(now + 1min, [&] { return client->finished(); });
    EXPECT_TRUE(client->finished());
  }
}

// NPM-3.6-03
TEST(NatpmpEpochWatch, SeesLostStateAsTheStandardSays) {
  const TimePoint begin{1h};
  const auto after = [&](std::uint32_t first, std::chrono::seconds passed, std::uint32_t then) {
    EpochWatch watch;
    EXPECT_FALSE(watch.lost_state(first, begin));
    return watch.lost_state(then, begin + passed);
  };
  EXPECT_FALSE(after(1000, 0s, 998));
  EXPECT_TRUE(after(1000, 0s, 997));
  EXPECT_FALSE(after(1000, 800s, 1698));
  EXPECT_TRUE(after(1000, 800s, 1697));
  EXPECT_FALSE(after(1000, 1s, 0xffffffff));
  EXPECT_TRUE(after(0xffffffff, 3600s, 0));
  EpochWatch watch;
  EXPECT_FALSE(watch.lost_state(1000, begin));
  EXPECT_TRUE(watch.lost_state(0, begin));
  EXPECT_FALSE(watch.lost_state(0, begin));  // compared with the last one
}

// NPM-3.2.1-09
TEST(NatpmpClient, ReadsAnnouncementsAndEpochs) {
  EXPECT_EQ(announcement(test::hex("00 80 00 00 00 00 00 4d cb 00 71 07")),
            (AddressResponse{ResultCode::success, 77, outside}));
  EXPECT_FALSE(announcement(test::hex("00 80 00 00 00 00 00 4d cb 00 71")));
  EXPECT_FALSE(
      announcement(test::hex("02 80 00 00 00 00 00 00 00 00 00 4d 00 00 00 00 00 00 00 00 00 00 00 00")));
  EXPECT_FALSE(announcement(test::hex("00 82 00 00 00 00 00 4d 1f 90 1f 90 00 00 1c 20")));
  EXPECT_EQ(response_epoch(test::hex("00 80 00 03 00 00 00 4d 00 00 00 00")), 77u);
  EXPECT_EQ(response_epoch(test::hex("00 82 00 00 00 00 00 4d 1f 90 1f 90 00 00 1c 20")), 77u);
  EXPECT_EQ(response_epoch(test::hex("00 00 00 01 00 00 00 4d")), 77u);
  EXPECT_FALSE(response_epoch(test::hex("00 82 00 05 1f 90 1f 90 00 00 1c 20")));  // NPM-3.5-09
  EXPECT_FALSE(response_epoch(test::hex("00 00")));
}

}  // namespace
}  // namespace sallyport::natpmp
