#include "protocols/pcp/client.hpp"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "protocols/pcp/server.hpp"
#include "tests/support/fake_mapping_service.hpp"
#include "tests/support/hex.hpp"
#include "tests/support/vectors.hpp"

namespace sallyport::pcp {
namespace {

using namespace std::chrono_literals;
using wire::MappingEvent;
using wire::MappingFailure;
using Kind = MappingEvent::Kind;
using Bytes = std::vector<std::byte>;
using Seconds = std::chrono::duration<double>;

constexpr auto alice = Address::v4(0xc0a8010a);
constexpr auto gateway = Address::v4(0xc0a80101);
constexpr auto outside = Address::v4(0xcb007107);
constexpr auto elsewhere = Address::v4(0xcb007163);
const auto alice_v6 = *Address::parse("2001:db8::a");
constexpr Nonce nonce{std::byte{1}, std::byte{2}, std::byte{3}};

Port port(std::uint32_t number) { return Port::from(number).value(); }

struct Sent {
  Bytes bytes;
  RequestHeader header;
  MapBody map;
  std::map<int, std::vector<Bytes>> options;

  explicit Sent(Bytes datagram) : bytes{std::move(datagram)} {
    header = decode_request_header(bytes).value();
    map = decode_map_body(std::span{bytes}.subspan(header_size)).value();
    OptionReader in{std::span{bytes}.subspan(header_size + map_body_size)};
    while (const auto option = in.next())
      options[option->code].emplace_back(option->data.begin(), option->data.end());
    EXPECT_TRUE(in.ok());
  }
};

class PcpClientTest : public testing::Test {
 protected:
  wire::MappingWish wish{.transport = Transport::tcp, .internal_port = port(8080)};
  Address address = alice;
  std::uint64_t seed = 6887;
  TimePoint now{1h};
  std::optional<MappingClient> client;

  void make() { client.emplace(wish, address, nonce, seed, now); }
  std::vector<Sent> sent() {
    std::vector<Sent> all;
    while (auto bytes = client->poll_transmit()) all.emplace_back(std::move(*bytes));
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
  void pass(std::chrono::nanoseconds time) {
    now += time;
    client->handle_timeout(now);
  }
  MapResponse response(std::uint32_t lifetime_s = 7200, std::uint16_t external = 8080,
                       Address at = outside) const {
    return {{1, ResultCode::success, lifetime_s, 100},
            {nonce, static_cast<std::uint8_t>(wish.transport), wish.internal_port, Port::from(external), at},
            {.prefer_failure = wish.exact}};
  }
  bool handle(const MapResponse& answer) { return client->handle_datagram(encode_map_response(answer), now); }
  bool grant(std::uint32_t lifetime_s = 7200, std::uint16_t external = 8080, Address at = outside) {
    return handle(response(lifetime_s, external, at));
  }
  bool refuse(ResultCode code, std::uint32_t lifetime_s = 1800) {
    auto answer = response(lifetime_s);
    answer.header.result = code;
    return handle(answer);
  }
  /// Asked, granted and told of.
  void hold(std::uint32_t lifetime_s = 7200) {
    make();
    ASSERT_EQ(sent().size(), 1u);
    ASSERT_TRUE(grant(lifetime_s));
    ASSERT_EQ(event().kind, Kind::granted);
  }
  /// To the first renewal, which is sent.
  void renew() {
    wake();
    ASSERT_EQ(sent().size(), 1u);
  }
};

// PCP-9-06, PCP-7-08, PCP-8.1-02, PCP-11.1-02, PCP-11.2-01, PCP-11.2-02
TEST_F(PcpClientTest, AsksAtOnceForWhatIsWished) {
  make();
  const auto all = sent();
  ASSERT_EQ(all.size(), 1u);
  EXPECT_EQ(all[0].bytes, test::hex(R"(
      02 01 00 00               # version 2, MAP, reserved
      00 00 1c 20               # 7200 s
      00 00 00 00 00 00 00 00 00 00 ff ff c0 a8 01 0a   # 192.168.1.10 asks
      01 02 03 00 00 00 00 00 00 00 00 00               # nonce
      06 00 00 00               # TCP, reserved
      1f 90 1f 90               # 8080 inside, the same suggested outside
      00 00 00 00 00 00 00 00 00 00 ff ff 00 00 00 00)"));  // any IPv4 address
  EXPECT_TRUE(quiet());
}

// PCP-11.1-05, PCP-11.2-03, PCP-5-02
TEST_F(PcpClientTest, SuggestsWhatItLastHadAndElseAnyAddressOfItsFamily) {
  wish.external_port = port(443);
  wish.external_address = elsewhere;
  make();
  EXPECT_EQ(sent().at(0).map.external_port, port(443));
  client->release(now);
  make();
  EXPECT_EQ(sent().at(0).map.external_address, elsewhere);
  address = alice_v6;
  make();
  const auto pinhole = sent();
  EXPECT_EQ(pinhole.at(0).header.client, alice_v6);
  EXPECT_EQ(pinhole.at(0).map.external_address, Address{});
}

// PCP-8.1-03, PCP-8.1-04, PCP-8.1-05, PCP-8.1-06
TEST_F(PcpClientTest, RetransmitsTheSameForEverAtTheStandardsMoments) {
  std::set<TimePoint::duration> firsts;
  for (seed = 1; seed <= 20; ++seed) {
    make();
    const auto first = sent().at(0).bytes;
    auto last = now;
    std::chrono::nanoseconds timeout{};
    for (int i = 0; i < 20; ++i) {
      Bytes again;
      while (again.empty()) {
        wake();
        if (const auto all = sent(); !all.empty()) again = all.at(0).bytes;
        events();
      }
      EXPECT_EQ(again, first);
      const auto base = timeout == 0ns ? 3s : std::min<std::chrono::nanoseconds>(2 * timeout, 1024s);
      timeout = now - last;
      EXPECT_GE(Seconds{timeout} / Seconds{base}, 0.9 - 1e-6);
      EXPECT_LE(Seconds{timeout} / Seconds{base}, 1.1 + 1e-6);
      if (i == 0) firsts.insert(timeout);
      last = now;
    }
    EXPECT_GT(timeout, 900s);
  }
  EXPECT_EQ(firsts.size(), 20u);
}

TEST_F(PcpClientTest, TellsOfSilenceOnceAndTakesALateGrant) {
  make();
  sent();
  wake();
  EXPECT_EQ(sent().size(), 1u);
  EXPECT_TRUE(events().empty());
  wake();
  const auto silence = event();
  EXPECT_EQ(silence.kind, Kind::refused);
  EXPECT_EQ(silence.failure, MappingFailure::no_answer);
  EXPECT_EQ(silence.retry_at, client->next_deadline());
  for (int i = 0; i < 5; ++i) {
    wake();
    EXPECT_EQ(sent().size(), 1u);
    EXPECT_TRUE(events().empty());
  }
  ASSERT_TRUE(grant());
  EXPECT_EQ(event().kind, Kind::granted);
}

TEST_F(PcpClientTest, TellsWhatWasGranted) {
  make();
  sent();
  now += 10ms;
  ASSERT_TRUE(grant(600, 40000, elsewhere));
  const auto granted = event();
  EXPECT_EQ(granted.kind, Kind::granted);
  EXPECT_EQ(granted.granted, (wire::Granted{{elsewhere, port(40000)}, 600, now}));
  EXPECT_TRUE(quiet());
}

// PCP-8.1-07, PCP-11.2-05, PCP-11.2-06, PCP-11.2-08, PCP-11.4-03
TEST_F(PcpClientTest, RenewsAtTheStandardsMomentsUntilTheLifetimeRunsOut) {
  for (seed = 1; seed <= 20; ++seed) {
    make();
    sent();
    ASSERT_TRUE(grant(1200, 40000));
    events();
    const auto begin = now;
    auto last = begin;
    int renewals = 0;
    std::vector<MappingEvent> ended;
    for (double left = 0.5;; left /= 2) {
      wake();
      ended = events();
      const auto all = sent();
      if (!ended.empty()) break;
      ASSERT_EQ(all.size(), 1u);
      EXPECT_EQ(all[0].map.nonce, nonce);
      EXPECT_EQ(all[0].map.external_port, port(40000));
      EXPECT_EQ(all[0].map.external_address, outside);
      EXPECT_GE(now - last, 4s);
      const auto gone = Seconds{now - begin} / Seconds{1200s};
      EXPECT_GE(gone, 1 - left - 1e-6);
      if (now - last > 4s) {
        EXPECT_LE(gone, 1 - left + left / 4 + 1e-6);
      }
      last = now;
      ++renewals;
    }
    EXPECT_EQ(now, begin + 1200s);
    EXPECT_GE(renewals, 6);
    EXPECT_EQ(ended.at(0).kind, Kind::ended);
    EXPECT_EQ(ended.at(0).failure, MappingFailure::no_answer);
    EXPECT_FALSE(ended.at(0).told);
    // and creation starts anew, with what it had suggested
    pass(4s);
    const auto anew = sent();
    ASSERT_EQ(anew.size(), 1u);
    EXPECT_EQ(anew[0].map.external_port, port(40000));
    EXPECT_EQ(anew[0].map.nonce, nonce);
  }
}

TEST_F(PcpClientTest, SpreadsTheFirstRenewalOverAnEighthOfTheLifetime) {
  TimePoint earliest{24h * 365}, latest{};
  for (seed = 1; seed <= 200; ++seed) {
    hold(8000);
    earliest = std::min(earliest, *client->next_deadline());
    latest = std::max(latest, *client->next_deadline());
  }
  EXPECT_GE(earliest, now + 4000s);
  EXPECT_LE(earliest, now + 4100s);
  EXPECT_LE(latest, now + 5000s);
  EXPECT_GE(latest, now + 4900s);
}

// PCP-15-04, PCP-8.3-07
TEST_F(PcpClientTest, ReliesOnNoLifetimeForMoreThanADay) {
  hold(0xffffffff);
  EXPECT_GE(*client->next_deadline(), now + 12h);
  EXPECT_LE(*client->next_deadline(), now + 15h);
}

TEST_F(PcpClientTest, LivesWithLifetimesOfASecond) {
  make();
  int asked = 0;
  const auto end = now + 100s;
  for (; now < end; now = *client->next_deadline(), client->handle_timeout(now)) {
    for (const auto& each : sent()) {
      ++asked;
      (void)each;
      ASSERT_TRUE(grant(1));
    }
    events();
  }
  EXPECT_GE(asked, 10);
  EXPECT_LE(asked, 26);
}

// PCP-11.2-07
TEST_F(PcpClientTest, TellsWhetherARenewalKeptOrChangedTheExternalEndpoint) {
  hold();
  renew();
  ASSERT_TRUE(grant(3600));
  const auto renewed = event();
  EXPECT_EQ(renewed.kind, Kind::renewed);
  EXPECT_EQ(renewed.granted, (wire::Granted{{outside, port(8080)}, 3600, now}));
  renew();
  ASSERT_TRUE(grant(3600, 40001, elsewhere));
  const auto changed = event();
  EXPECT_EQ(changed.kind, Kind::changed);
  EXPECT_EQ(changed.granted.external, (ExternalEndpoint{elsewhere, port(40001)}));
  wake();
  EXPECT_EQ(sent().at(0).map.external_port, port(40001));
}

// PCP-8.3-05, PCP-8.3-06, PCP-8.3-07, PCP-7.4-05, PCP-11.4-02
TEST_F(PcpClientTest, WaitsOutTheLifetimeOfEveryError) {
  const std::pair<int, MappingFailure> rows[] = {
      {1, MappingFailure::unsupported},         {2, MappingFailure::not_authorized},
      {3, MappingFailure::not_possible},        {4, MappingFailure::unsupported},
      {5, MappingFailure::not_possible},        {6, MappingFailure::not_possible},
      {7, MappingFailure::no_external_address}, {8, MappingFailure::no_resources},
      {9, MappingFailure::not_possible},        {10, MappingFailure::no_resources},
      {11, MappingFailure::port_taken},         {13, MappingFailure::not_possible},
      {15, MappingFailure::not_authorized},     {99, MappingFailure::nonsense},
      {255, MappingFailure::nonsense},
  };
  for (const auto& [code, failure] : rows) {
    for (const auto& [lifetime_s, wait] :
         {std::pair{77U, 77s}, {1800U, 1800s}, {0xffffffffU, 1800s}, {1U, 4s}}) {
      make();
      sent();
      ASSERT_TRUE(refuse(static_cast<ResultCode>(code), lifetime_s));
      const auto refused = event();
      EXPECT_EQ(refused.kind, Kind::refused) << code;
      EXPECT_EQ(refused.failure, failure) << code;
      EXPECT_EQ(refused.code, static_cast<unsigned>(code));
      EXPECT_EQ(refused.retry_at, now + wait) << code;
      wake();
      EXPECT_EQ(now, *refused.retry_at);
      EXPECT_EQ(sent().size(), 1u);
      ASSERT_TRUE(grant());
      EXPECT_EQ(event().kind, Kind::granted);
    }
  }
}

TEST_F(PcpClientTest, WaitsAsLongAsTheKindOfErrorUsuallyHoldsWhenToldNothing) {
  make();
  sent();
  ASSERT_TRUE(refuse(ResultCode::no_resources, 0));
  EXPECT_EQ(event().retry_at, now + 30s);
  wake();
  ASSERT_TRUE(refuse(ResultCode::not_authorized, 0));
  EXPECT_EQ(event().retry_at, now + 30min);
}

// PCP-8.3-08, PCP-16.4-01
TEST_F(PcpClientTest, TakesAddressMismatchAsFinal) {
  make();
  sent();
  ASSERT_TRUE(refuse(ResultCode::address_mismatch));
  const auto refused = event();
  EXPECT_EQ(refused.failure, MappingFailure::address_mismatch);
  EXPECT_FALSE(refused.retry_at);
  EXPECT_FALSE(client->next_deadline());
  client->refresh(now);
  EXPECT_TRUE(quiet());
  client->release(now);
  EXPECT_TRUE(client->finished());
}

// PCP-9-07, PCP-9-08, PCP-9-09, PCP-9-10
TEST_F(PcpClientTest, IsUnsupportedByAServerOfAnotherVersionHoweverItSaysSo) {
  const std::pair<const char*, std::chrono::seconds> answers[] = {
      {"00 00 00 01 00 00 00 64", 30min},  // NAT-PMP
      {"00 81 00 01 00 00 00 64", 30min},  // the same, the opcode returned
      {"01 81 00 01 00 00 00 1e 00 00 00 64 00 00 00 00 00 00 00 00 00 00 00 00", 30s},  // versions of PCP
      {"03 81 00 01 00 00 ff ff 00 00 00 64 00 00 00 00 00 00 00 00 00 00 00 00", 30min},
  };
  for (const auto& [answer, wait] : answers) {
    make();
    EXPECT_TRUE(client->handle_datagram(test::hex(answer), now)) << answer;
    const auto refused = event();
    EXPECT_EQ(refused.kind, Kind::refused);
    EXPECT_EQ(refused.failure, MappingFailure::unsupported);
    EXPECT_EQ(refused.code, 1u);
    EXPECT_EQ(refused.retry_at, now + wait) << answer;
    EXPECT_FALSE(client->handle_datagram(test::hex(answer), now));  // nothing was asked since
    EXPECT_TRUE(quiet());
  }
  make();
  sent();
  // what a PCP server says to a NAT-PMP request that shares the socket
  EXPECT_FALSE(client->handle_datagram(
      test::hex("02 81 00 01 00 00 07 08 00 00 00 64 00 00 00 00 00 00 00 00 00 00 00 00"), now));
  EXPECT_TRUE(quiet());
}

// PCP-8.3-02, PCP-8.3-03, PCP-11.4-01, PCP-18-04
TEST_F(PcpClientTest, TakesNoDatagramThatIsNotAboutItsMapping) {
  make();
  sent();
  auto other = response();
  other.map.nonce[11] = std::byte{1};
  EXPECT_FALSE(handle(other));
  other = response();
  other.map.protocol = 17;
  EXPECT_FALSE(handle(other));
  other = response();
  other.map.internal_port = port(8081);
  EXPECT_FALSE(handle(other));
  other = response();
  other.map.external_port.reset();
  EXPECT_FALSE(handle(other));
  other = response();
  other.header.opcode = 2;
  EXPECT_FALSE(handle(other));
  const auto good = encode_map_response(response());
  for (std::size_t n = 0; n < good.size(); ++n)
    EXPECT_FALSE(client->handle_datagram(std::span{good}.first(n), now)) << n;
  auto wrong = good;
  wrong.resize(good.size() + 2);
  EXPECT_FALSE(client->handle_datagram(wrong, now));
  wrong.resize(1104);
  EXPECT_FALSE(client->handle_datagram(wrong, now));
  wrong = good;
  wrong[1] = std::byte{1};  // a request
  EXPECT_FALSE(client->handle_datagram(wrong, now));
  EXPECT_TRUE(quiet());
  EXPECT_TRUE(client->handle_datagram(good, now));
}

// PCP-7-15, PCP-7.3-13
TEST_F(PcpClientTest, LooksAtNoReservedOctetAndAtNoOptionThatItDoesNotNeed) {
  make();
  sent();
  auto answer = encode_map_response(response());
  answer[2] = std::byte{0xff};
  for (std::size_t at = 12; at < 24; ++at) answer[at] = std::byte{0xff};
  for (const auto octet : {0xee, 0xff, 0xff, 0xff}) answer.push_back(std::byte(octet));
  EXPECT_TRUE(client->handle_datagram(answer, now));
  EXPECT_EQ(event().kind, Kind::granted);
}

TEST_F(PcpClientTest, KeepsTheMappingWhenTheGatewayCannotRenewItNow) {
  for (const auto code : {ResultCode::no_resources, ResultCode::user_ex_quota, ResultCode::network_failure}) {
    hold();
    renew();
    ASSERT_TRUE(refuse(code, 30));
    EXPECT_TRUE(quiet());
    renew();
    ASSERT_TRUE(grant());
    EXPECT_EQ(event().kind, Kind::renewed);
  }
}

TEST_F(PcpClientTest, TellsWhyTheMappingRanOutWhenTheGatewayNeverCould) {
  hold(600);
  const auto end = now + 600s;
  renew();
  ASSERT_TRUE(refuse(ResultCode::no_resources, 1000));
  const auto retry = now + 1000s;
  wake();
  EXPECT_EQ(now, end);
  const auto all = events();
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].kind, Kind::ended);
  EXPECT_EQ(all[0].failure, MappingFailure::no_resources);
  EXPECT_EQ(all[1].kind, Kind::refused);
  EXPECT_EQ(all[1].retry_at, retry);
  EXPECT_TRUE(sent().empty());
}

TEST_F(PcpClientTest, EndsWhatTheGatewayTookBackAndAsksAgainWhenItMay) {
  hold();
  renew();
  ASSERT_TRUE(refuse(ResultCode::not_authorized, 300));
  const auto ended = event();
  EXPECT_EQ(ended.kind, Kind::ended);
  EXPECT_EQ(ended.failure, MappingFailure::not_authorized);
  EXPECT_TRUE(ended.told);
  const auto retry = now + 300s;
  renew();
  EXPECT_EQ(now, retry);
  ASSERT_TRUE(refuse(ResultCode::not_authorized, 300));
  const auto refused = event();
  EXPECT_EQ(refused.kind, Kind::refused);
  EXPECT_EQ(refused.retry_at, now + 300s);
}

TEST_F(PcpClientTest, EndsWhatTheGatewayNoLongerSpeaksOf) {
  hold();
  renew();
  ASSERT_TRUE(client->handle_datagram(test::hex("00 00 00 01 00 00 00 64"), now));
  const auto all = events();
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].kind, Kind::ended);
  EXPECT_EQ(all[0].failure, MappingFailure::unsupported);
  EXPECT_EQ(all[1].kind, Kind::refused);
  EXPECT_EQ(all[1].retry_at, now + 30min);
}

// PCP-14.2-04, PCP-14.2-05
TEST_F(PcpClientTest, TellsOfAnUpdateOnceAndConfirmsItWithinFiveSeconds) {
  hold();
  pass(10min);
  ASSERT_TRUE(quiet());
  for (int copy = 0; copy < 3; ++copy) ASSERT_TRUE(grant(6000, 8080, elsewhere));
  const auto changed = event();
  EXPECT_EQ(changed.kind, Kind::changed);
  EXPECT_EQ(changed.granted.external, (ExternalEndpoint{elsewhere, port(8080)}));
  EXPECT_LE(*client->next_deadline(), now + 5s);
  ASSERT_TRUE(grant(6000, 9999));  // not until the first is confirmed
  EXPECT_TRUE(quiet());
  wake();
  const auto confirm = sent();
  ASSERT_EQ(confirm.size(), 1u);
  EXPECT_EQ(confirm[0].map.external_address, elsewhere);
  ASSERT_TRUE(grant(7200, 8080, elsewhere));
  EXPECT_EQ(event().kind, Kind::renewed);
  EXPECT_GE(*client->next_deadline(), now + 3600s);
}

TEST_F(PcpClientTest, TakesTheLifetimeOfAnUpdateWithoutNews) {
  hold();
  pass(10min);
  ASSERT_TRUE(grant(600));
  EXPECT_TRUE(quiet());
  EXPECT_GE(*client->next_deadline(), now + 300s);
  EXPECT_LE(*client->next_deadline(), now + 375s);
}

TEST_F(PcpClientTest, EndsWhatAnUpdateTookBack) {
  hold();
  pass(10min);
  for (int copy = 0; copy < 3; ++copy) ASSERT_TRUE(grant(0));
  const auto ended = event();
  EXPECT_EQ(ended.kind, Kind::ended);
  EXPECT_TRUE(ended.told);
  const auto at = now;
  wake();
  EXPECT_EQ(now, at + 30s);
  const auto again = sent();
  ASSERT_EQ(again.size(), 1u);
  EXPECT_EQ(again[0].map.nonce, nonce);
  ASSERT_TRUE(refuse(ResultCode::not_authorized, 1800));
  EXPECT_EQ(event().kind, Kind::refused);

  hold();
  ASSERT_TRUE(refuse(ResultCode::not_authorized, 60));  // the same, said as an error
  EXPECT_TRUE(event().told);
  EXPECT_EQ(client->next_deadline(), now + 60s);
}

TEST_F(PcpClientTest, IgnoresAnswersThatComeTwice) {
  make();
  sent();
  ASSERT_TRUE(refuse(ResultCode::no_resources, 30));
  EXPECT_EQ(event().kind, Kind::refused);
  ASSERT_TRUE(refuse(ResultCode::no_resources, 30));
  ASSERT_TRUE(grant());
  EXPECT_TRUE(quiet());
  hold();
  ASSERT_TRUE(grant());
  ASSERT_TRUE(refuse(ResultCode::no_resources, 30));
  EXPECT_TRUE(quiet());
}

// PCP-13.2-05: only who insists on a port
TEST_F(PcpClientTest, InsistsOnThePortOnlyWhenTold) {
  make();
  EXPECT_FALSE(sent().at(0).options.contains(2));
  wish.exact = true;
  wish.external_port = port(443);
  wish.external_address = elsewhere;
  make();
  const auto all = sent();
  EXPECT_EQ(all.at(0).options.at(2), std::vector<Bytes>{{}});
  EXPECT_EQ(all.at(0).map.external_port, port(443));
  EXPECT_EQ(all.at(0).map.external_address, Address::v4(0));
  ASSERT_TRUE(refuse(ResultCode::cannot_provide_external, 500));
  EXPECT_EQ(event().failure, MappingFailure::port_taken);
  EXPECT_EQ(client->next_deadline(), now + 500s);
}

TEST_F(PcpClientTest, GivesBackAPortThatIsNotTheOneInsistedOn) {
  wish.exact = true;
  make();
  sent();
  ASSERT_TRUE(grant(7200, 8081));
  const auto refused = event();
  EXPECT_EQ(refused.kind, Kind::refused);
  EXPECT_EQ(refused.failure, MappingFailure::port_taken);
  const auto deletion = sent();
  ASSERT_EQ(deletion.size(), 1u);
  EXPECT_EQ(deletion[0].header.lifetime_s, 0u);
  wake();
  EXPECT_EQ(sent().at(0).bytes, deletion[0].bytes);
  ASSERT_TRUE(grant(0, 8081));
  EXPECT_TRUE(quiet());
  EXPECT_EQ(client->next_deadline(), refused.retry_at);
}

TEST_F(PcpClientTest, InsistsOnThePortAndNotOnTheAddressThatItHad) {
  wish.exact = true;
  hold();
  renew();
  ASSERT_TRUE(refuse(ResultCode::cannot_provide_external));
  const auto again = sent();
  ASSERT_EQ(again.size(), 1u);
  EXPECT_EQ(again[0].map.external_address, Address::v4(0));
  ASSERT_TRUE(grant(7200, 8080, elsewhere));
  EXPECT_EQ(event().kind, Kind::changed);
}

// PCP-13.3-01, PCP-13.3-04
TEST_F(PcpClientTest, AsksWithEveryFilter) {
  wish.remotes = {{Prefix::v4(0xc6336400, 24), port(443)}, {Prefix::v4(0, 0), port(80)}};
  make();
  const auto all = sent();
  EXPECT_EQ(all.at(0).options.at(3),
            (std::vector<Bytes>{test::hex("00 78 01 bb 00 00 00 00 00 00 00 00 00 00 ff ff c6 33 64 00"),
                                test::hex("00 60 00 50 00 00 00 00 00 00 00 00 00 00 ff ff 00 00 00 00")}));
  auto answer = response();
  answer.options.filters.resize(2);
  ASSERT_TRUE(handle(answer));
  EXPECT_EQ(event().kind, Kind::granted);

  address = alice_v6;  // a filter of length 0 would remove the others
  wish.remotes = {{Prefix{Address{}, 0}, port(443)}};
  make();
  EXPECT_EQ(sent().at(0).options.at(3),
            (std::vector<Bytes>{test::hex("00 01 01 bb 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00"),
                                test::hex("00 01 01 bb 80 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00")}));
}

TEST_F(PcpClientTest, DoesNotAskWithoutAFilterThatCannotBeAskedFor) {
  const auto not_possible = [&] {
    make();
    const auto refused = event();
    EXPECT_EQ(refused.failure, MappingFailure::not_possible);
    EXPECT_FALSE(refused.retry_at);
    EXPECT_TRUE(sent().empty());
    EXPECT_FALSE(client->next_deadline());
  };
  wish.remotes = {{Prefix{alice_v6, 128}, {}}};
  not_possible();
  wish.remotes.assign(44, {Prefix{gateway, 128}, {}});
  not_possible();
  wish.remotes = {{Prefix{gateway, 24}, {}}};  // meant as an IPv4 length
  not_possible();
  wish.remotes.assign(43, {Prefix{gateway, 128}, {}});
  wish.exact = true;
  wish.description = "left out";
  make();
  EXPECT_EQ(sent().at(0).bytes.size(), 1096u);
}

// PCP-7.3-14: who was let in is in the answer
TEST_F(PcpClientTest, GivesBackWhatIsOpenToMoreThanWasWished) {
  wish.remotes = {{Prefix::v4(0xc6336400, 24), {}}};
  make();
  sent();
  ASSERT_TRUE(grant());  // without FILTER
  EXPECT_EQ(event().failure, MappingFailure::not_possible);
  EXPECT_EQ(sent().at(0).header.lifetime_s, 0u);

  make();
  sent();
  ASSERT_TRUE(refuse(ResultCode::unsupp_option));
  EXPECT_EQ(event().failure, MappingFailure::not_possible);
}

TEST_F(PcpClientTest, TakesAnUpdateWithoutFiltersForNoAnswer) {
  wish.remotes = {{Prefix::v4(0xc6336400, 24), {}}};
  make();
  sent();
  auto answer = response();
  answer.options.filters.resize(1);
  ASSERT_TRUE(handle(answer));
  EXPECT_EQ(event().kind, Kind::granted);
  client->refresh(now);
  EXPECT_EQ(sent().size(), 1u);
  ASSERT_TRUE(grant(7200, 8080, elsewhere));
  EXPECT_EQ(event().kind, Kind::changed);
  answer.map.external_address = elsewhere;
  ASSERT_TRUE(handle(answer));
  EXPECT_EQ(event().kind, Kind::renewed);
}

// DESC-3-01
TEST_F(PcpClientTest, DescribesTheMappingWhereThatHelps) {
  wish.description = "web";
  make();
  EXPECT_EQ(sent().at(0).options.at(128), std::vector<Bytes>{test::hex("77 65 62")});
  ASSERT_TRUE(refuse(ResultCode::unsupp_option));  // though it is no mandatory one
  EXPECT_TRUE(events().empty());
  EXPECT_FALSE(sent().at(0).options.contains(128));
  ASSERT_TRUE(refuse(ResultCode::unsupp_option));
  EXPECT_EQ(event().kind, Kind::refused);

  wish.description = "\xff";
  make();
  EXPECT_FALSE(sent().at(0).options.contains(128));
  wish.description = "x";
  for (int i = 0; i < 600; ++i) wish.description += "\xc3\xa9";
  make();
  EXPECT_EQ(sent().at(0).options.at(128).at(0).size(), 1015u);  // no half character
  wish.remotes.assign(10, {Prefix{gateway, 128}, {}});
  make();
  const auto cut = sent();
  EXPECT_LE(cut.at(0).bytes.size(), 1100u);
  EXPECT_TRUE(description_text(cut.at(0).options.at(128).at(0)));
}

// PCP-16.3-01, PCP-8.5-11
TEST_F(PcpClientTest, AsksAtOnceForWhatTheGatewayLost) {
  hold();
  pass(10min);
  client->refresh(now);
  const auto all = sent();
  ASSERT_EQ(all.size(), 1u);
  EXPECT_EQ(all[0].map.nonce, nonce);
  EXPECT_EQ(all[0].map.external_port, port(8080));
  EXPECT_EQ(all[0].map.external_address, outside);
  client->refresh(now);
  EXPECT_TRUE(quiet());
  wake();  // and retransmits
  EXPECT_EQ(sent().size(), 1u);
  ASSERT_TRUE(grant());
  EXPECT_EQ(event().kind, Kind::renewed);
  EXPECT_GE(*client->next_deadline(), now + 1h);
}

TEST_F(PcpClientTest, EndsWhatTheGatewayLostAndDoesNotGiveAgain) {
  for (const auto code : {ResultCode::not_authorized, ResultCode::network_failure}) {
    hold();
    client->refresh(now);
    sent();
    ASSERT_TRUE(refuse(code, 30));
    const auto all = events();
    ASSERT_EQ(all.size(), 2u);
    EXPECT_EQ(all[0].kind, Kind::ended);
    EXPECT_FALSE(all[0].told);
    EXPECT_EQ(all[1].kind, Kind::refused);
    EXPECT_EQ(all[1].retry_at, now + 30s);
  }
}

TEST_F(PcpClientTest, RefreshAsksAgainAfterSilenceAndRefusalToo) {
  make();
  sent();
  for (int i = 0; i < 10; ++i) {
    wake();
    sent();
    events();
  }
  const auto last = now;
  ASSERT_GT(*client->next_deadline(), now + 10min);
  now += 1s;
  client->refresh(now);  // an answer may still come
  EXPECT_TRUE(quiet());
  EXPECT_LE(*client->next_deadline(), last + 4s);
  wake();
  EXPECT_EQ(sent().size(), 1u);
  now += 5s;
  client->refresh(now);
  EXPECT_EQ(sent().size(), 1u);
  EXPECT_LE(*client->next_deadline(), now + 4s);
  ASSERT_TRUE(refuse(ResultCode::not_authorized));
  events();
  now += 1min;
  client->refresh(now);
  pass(0s);
  EXPECT_EQ(sent().size(), 1u);
}

TEST_F(PcpClientTest, RetransmitsARenewalThatARefreshOvertook) {
  hold();
  renew();
  client->refresh(now);
  EXPECT_TRUE(quiet());
  EXPECT_LE(*client->next_deadline(), now + 4s);
  wake();
  EXPECT_EQ(sent().size(), 1u);
}

// PCP-8.1-09
TEST_F(PcpClientTest, TakesAnUnreachablePortForAHint) {
  make();
  sent();
  client->handle_unreachable(now);
  const auto refused = event();
  EXPECT_EQ(refused.failure, MappingFailure::unsupported);
  EXPECT_EQ(refused.retry_at, now + 60s);
  wake();
  EXPECT_EQ(sent().size(), 1u);
  client->handle_unreachable(now);
  EXPECT_EQ(event().retry_at, now + 120s);
  wake();
  sent();
  ASSERT_TRUE(grant());
  events();
  renew();
  client->handle_unreachable(now);
  EXPECT_TRUE(quiet());
  renew();
}

// PCP-15.1-06, PCP-15.1-12, PCP-11.2-01
TEST_F(PcpClientTest, DeletesWhatIsNoLongerWantedInUpToThreeTransmissions) {
  wish.remotes = {{Prefix::v4(0xc6336400, 24), {}}};
  wish.description = "web";
  make();
  sent();
  auto answer = response();
  answer.options.filters.resize(1);
  ASSERT_TRUE(handle(answer));
  client->release(now);
  EXPECT_FALSE(client->finished());
  const auto first = sent();
  ASSERT_EQ(first.size(), 1u);
  EXPECT_EQ(first[0].header.lifetime_s, 0u);
  EXPECT_EQ(first[0].map, (MapBody{nonce, 6, port(8080), std::nullopt, Address::v4(0)}));
  EXPECT_TRUE(first[0].options.empty());
  for (int i = 0; i < 2; ++i) {
    EXPECT_FALSE(client->finished());
    wake();
    EXPECT_EQ(sent().at(0).bytes, first[0].bytes);
  }
  EXPECT_TRUE(client->finished());
  EXPECT_FALSE(client->next_deadline());
  EXPECT_TRUE(events().empty());
  EXPECT_FALSE(grant(0));
}

TEST_F(PcpClientTest, IsFinishedWhenTheDeletionIsAnswered) {
  hold();
  client->release(now);
  sent();
  ASSERT_TRUE(grant());  // the answer to a renewal
  EXPECT_FALSE(client->finished());
  ASSERT_TRUE(grant(0));
  EXPECT_TRUE(client->finished());
  hold();
  client->release(now);
  sent();
  client->handle_unreachable(now);
  EXPECT_TRUE(client->finished());
  hold();
  client->release(now);
  sent();
  ASSERT_TRUE(refuse(ResultCode::not_authorized));
  EXPECT_TRUE(client->finished());
}

// PCP-8.1-08
TEST_F(PcpClientTest, DeletesOnlyWhatMayBeThere) {
  make();
  client->release(now);  // never sent
  EXPECT_TRUE(client->finished());
  EXPECT_TRUE(quiet());
  make();
  sent();
  client->release(now);  // perhaps granted
  EXPECT_EQ(sent().at(0).header.lifetime_s, 0u);
  make();
  sent();
  refuse(ResultCode::no_resources);
  client->release(now);
  EXPECT_TRUE(client->finished());
  EXPECT_TRUE(quiet());
}

TEST_F(PcpClientTest, SaysTheSameWithTheSameSeed) {
  std::vector<TimePoint> moments[2];
  for (auto& each : moments) {
    now = TimePoint{1h};
    make();
    sent();
    for (int i = 0; i < 10; ++i) {
      wake();
      sent();
      events();
      each.push_back(now);
    }
  }
  EXPECT_EQ(moments[0], moments[1]);
}

// What a gateway says costs no more datagrams and makes no more events than time allows.
TEST_F(PcpClientTest, KeepsCalmWhateverAGatewaySays) {
  std::mt19937 random{1};
  for (const bool exact : {false, true}) {
    wish.exact = exact;
    wish.external_port = port(8080);
    wish.description = "web";
    make();
    const auto begin = now;
    std::size_t datagrams = 0, told = 0;
    for (int i = 0; i < 100'000; ++i) {
      const auto draw = random();
      auto answer = response(draw % 3 == 0   ? 0
                             : draw % 3 == 1 ? random() % 100
                                             : random(),
                             static_cast<std::uint16_t>(draw % 5 == 0 ? random() : 8080),
                             draw % 7 == 0 ? elsewhere : outside);
      if (draw % 2)
        answer.header = {1, random() % 500 == 0 ? ResultCode::unsupp_opcode : ResultCode::no_resources,
                         static_cast<std::uint32_t>(random() % 100)};
      auto bytes = encode_map_response(answer);
      if (draw % 11 == 0) test::mutate(bytes, random);
      if (draw % 1009 == 0) bytes = test::hex("00 00 00 01 00 00 00 64");
      client->handle_datagram(bytes, now);
      if (draw % 997 == 0) client->handle_unreachable(now);
      datagrams += sent().size();
      told += events().size();
      now += std::chrono::milliseconds{random() % 200};
      if (const auto due = client->next_deadline(); due && *due <= now) client->handle_timeout(now);
      ASSERT_GT(client->next_deadline(), now);
      datagrams += sent().size();
      told += events().size();
    }
    const auto passed = std::chrono::duration_cast<std::chrono::seconds>(now - begin).count();
    EXPECT_GT(datagrams, exact ? 10u : 50u);
    EXPECT_LE(datagrams, static_cast<std::size_t>(passed / 2));
    EXPECT_LE(told, static_cast<std::size_t>(passed));
    client->release(now);
    for (int i = 0; i < 3 && !client->finished(); ++i) {
      sent();
      pass(1min);
    }
    sent();
    EXPECT_TRUE(client->finished());
  }
}

/// The client and the server core over a network that loses and doubles datagrams.
TEST_F(PcpClientTest, KeepsAMappingAtTheServerOverALossyNetwork) {
  for (seed = 1; seed <= 20; ++seed) {
    std::mt19937 random{static_cast<std::uint32_t>(seed)};
    test::FakeMappingService service;
    service.epoch_start = now;
    Server server{service};
    EpochWatch epochs;
    make();
    const auto copies = [&] { return random() % 10 < 3 ? 0 : random() % 10 < 2 ? 2 : 1; };
    int granted = 0, renewed = 0, other = 0, lost = 0;
    const auto run_until = [&](TimePoint end, const auto& done) {
      while (now < end && !done()) {
        while (const auto bytes = client->poll_transmit())
          for (int n = copies(); n > 0; --n) server.handle_datagram(*bytes, {alice, 40000, gateway, 2}, now);
        while (const auto out = server.poll_transmit())
          for (int n = copies(); n > 0; --n) {
            if (const auto epoch_s = response_epoch(out->bytes)) lost += epochs.lost_state(*epoch_s, now);
            client->handle_datagram(out->bytes, now);
          }
        while (const auto event = client->poll_event())
          ++(event->kind == Kind::granted ? granted : event->kind == Kind::renewed ? renewed : other);
        const auto due = client->next_deadline();
        now = due ? std::min(*due, end) : end;
        if (due && *due <= now) client->handle_timeout(now);
      }
    };
    run_until(now + 24h, [] { return false; });
    EXPECT_GE(granted, 1);
    EXPECT_GE(renewed, 4);
    EXPECT_EQ(lost, 0);
    for (const auto& each : service.grants) EXPECT_EQ(each.nonce, nonce);
    client->release(now);
    run_until(now + 1min, [&] { return client->finished(); });
    EXPECT_TRUE(client->finished());
  }
}

// PCP-8.5-07, PCP-8.5-08, PCP-8.5-09, PCP-8.5-10
TEST(PcpEpochWatch, SeesLostStateAsTheStandardSays) {
  const TimePoint begin{1h};
  const auto after = [&](std::uint32_t first, std::chrono::seconds passed, std::uint32_t then) {
    EpochWatch watch;
    EXPECT_FALSE(watch.lost_state(first, begin));
    return watch.lost_state(then, begin + passed);
  };
  EXPECT_FALSE(after(1000, 0s, 1000));
  EXPECT_FALSE(after(1000, 0s, 999));  // reordered
  EXPECT_TRUE(after(1000, 0s, 998));
  EXPECT_TRUE(after(1000, 3600s, 0));
  EXPECT_FALSE(after(1000, 1600s, 2600));
  // a clock that runs a sixteenth slow or fast, and two seconds
  EXPECT_FALSE(after(1000, 1600s, 1000 + 1498));
  EXPECT_TRUE(after(1000, 1600s, 1000 + 1497));
  EXPECT_FALSE(after(1000, 1498s, 1000 + 1600));
  EXPECT_TRUE(after(1000, 1497s, 1000 + 1600));
  EXPECT_TRUE(after(0, 1s, 0xffffffff));
}

TEST(PcpEpochWatch, ComparesWithTheLastEpochValidOrNot) {
  const TimePoint begin{1h};
  EpochWatch watch;
  EXPECT_FALSE(watch.lost_state(1000, begin));
  EXPECT_TRUE(watch.lost_state(5, begin + 1s));
  EXPECT_FALSE(watch.lost_state(6, begin + 2s));
  EXPECT_TRUE(watch.lost_state(1003, begin + 3s));
}

// PCP-14.1-03, NPM-3.2.1-09
TEST(PcpClient, ReadsTheEpochOfAnnouncementsAndAnswers) {
  const auto announcement = encode_announce_response(77);
  EXPECT_EQ(announced_epoch(announcement), 77u);
  EXPECT_EQ(response_epoch(announcement), 77u);
  EXPECT_FALSE(announced_epoch(encode_announce_request(alice)));
  EXPECT_FALSE(announced_epoch(test::hex("00 80 00 00 00 00 00 4d cb 00 71 07")));  // NAT-PMP's
  auto other = announcement;
  other[1] = std::byte{0x81};
  EXPECT_FALSE(announced_epoch(other));
  other = announcement;
  other[3] = std::byte{3};
  EXPECT_FALSE(announced_epoch(other));
  EXPECT_EQ(response_epoch(other), 77u);
  for (std::size_t n = 0; n < announcement.size(); ++n)
    EXPECT_FALSE(response_epoch(std::span{announcement}.first(n)));
}

}  // namespace
}  // namespace sallyport::pcp
