#include "protocols/upnp/gena/publisher.hpp"

#include <limits>

#include "tests/protocols/upnp/gena/message_text.hpp"

namespace sallyport::upnp::gena {
namespace {

using namespace std::chrono_literals;
using http::Delivery;
using Kind = http::DeliveryResult::Kind;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

const Address gateway = *Address::parse("192.168.1.1");
const Address alice = *Address::parse("192.168.1.10");
const Address bob = *Address::parse("192.168.1.11");

constexpr http::DeliveryResult taken{Kind::answered, 200};
constexpr http::DeliveryResult nobody{Kind::connect_failed, 0};
constexpr http::DeliveryResult silent{Kind::timed_out, 0};

std::string field(const Delivery& delivery, const std::string& name) {
  const auto begin = delivery.bytes.find("\r\n" + name + ": ");
  if (begin == std::string::npos) return "(none)";
  const auto value = begin + name.size() + 4;
  return delivery.bytes.substr(value, delivery.bytes.find("\r\n", value) - value);
}

class GenaPublisherTest : public testing::Test {
 protected:
  GenaPublisherTest() { wan = publisher.add_service(variables()); }

  static std::vector<Variable> variables() {
    return {{"PossibleConnectionTypes", "IP_Routed"},
            {"ConnectionStatus", "Connected"},
            {"ExternalIPAddress", "203.0.113.7"},
            {"PortMappingNumberOfEntries", "3", 200ms},
            {"SystemUpdateID", "42", 200ms}};
  }
  static std::array<std::byte, 16> count_up(unsigned& counter) {
    std::array<std::byte, 16> bits{};
    ++counter;
    bits[15] = static_cast<std::byte>(counter);
    bits[14] = static_cast<std::byte>(counter >> 8);
    return bits;
  }
  static http::Request request(const std::string& method, http::Fields fields, const Address& peer = alice) {
    http::Request request;
    request.method = method;
    request.target = "/evt";
    request.fields = std::move(fields);
    request.peer = peer;
    request.peer_port = 40000;
    request.local = gateway;
    request.interface = 3;
    return request;
  }
  static http::Fields fields(std::initializer_list<std::pair<const char*, std::string>> list) {
    http::Fields fields;
    for (const auto& [name, value] : list) fields.add(name, value);
    return fields;
  }
  static std::string url(const Address& peer, const std::string& rest = ":5000/cb") {
    return "<http://" + peer.to_string() + rest + ">";
  }
  http::Response ask(const std::string& method, http::Fields fields_, const Address& peer = alice) {
    return publisher.handle(request(method, std::move(fields_), peer), wan, now);
  }
  http::Response subscribe(const Address& peer = alice, const std::string& callback = {},
                           const std::string& timeout = "Second-1800") {
    return ask("SUBSCRIBE",
               fields({{"CALLBACK", callback.empty() ? url(peer) : callback},
                       {"NT", "upnp:event"},
                       {"TIMEOUT", timeout}}),
               peer);
  }
  /// A subscription that has got its initial event; its SID.
  std::string subscribed(const Address& peer = alice, const std::string& callback = {},
                         const std::string& timeout = "Second-1800") {
    const auto response = subscribe(peer, callback, timeout);
    EXPECT_EQ(response.status, 200u);
    response.sent();
    pass(50ms);
    const auto initial = publisher.poll_send(now);
    EXPECT_TRUE(initial);
    if (initial) publisher.handle_result(initial->handle, taken, now);
    return sid_of(response);
  }
  static std::string sid_of(const http::Response& response) {
    return std::string{response.fields.find("SID").value_or("")};
  }
  static std::string timeout_of(const http::Response& response) {
    return std::string{response.fields.find("TIMEOUT").value_or("")};
  }
  void pass(std::chrono::nanoseconds time) {
    publisher.handle_timeout(now);
    const auto end = now + time;
    for (auto next = publisher.next_deadline(); next && *next <= end; next = publisher.next_deadline()) {
      now = std::max(now, *next);
      publisher.handle_timeout(now);
    }
    now = end;
  }
  void set_address(const std::string& text) { publisher.set(wan, "ExternalIPAddress", text, now); }
  /// What every subscriber is sent until nothing is left, each taken at once.
  std::vector<Delivery> drain() {
    std::vector<Delivery> all;
    while (auto delivery = publisher.poll_send(now)) {
      publisher.handle_result(delivery->handle, taken, now);
      all.push_back(std::move(*delivery));
    }
    return all;
  }

  unsigned counter = 0;
  TimePoint now{1h};
  Publisher publisher{[this] { return count_up(counter); }};
  std::size_t wan = 0;
};

// UDA-4-01, UDA-4-02
TEST_F(GenaPublisherTest, GrantsASubscription) {
  const auto first = subscribe();
  const auto second = subscribe();
  EXPECT_EQ(first.status, 200u);
  EXPECT_EQ(sid_of(first), "uuid:00000000-0000-4000-8000-000000000001");
  EXPECT_EQ(timeout_of(first), "Second-1800");
  EXPECT_EQ(first.fields.all().size(), 2u);
  EXPECT_TRUE(first.body.empty());
  EXPECT_NE(sid_of(first), sid_of(second));
  EXPECT_EQ(publisher.size(), 2u);
}

TEST_F(GenaPublisherTest, TakesAnotherSidWhenTheRandomSourceRepeatsItselfAndGivesUpWhenItIsStuck) {
  EXPECT_EQ(subscribe().status, 200u);
  counter = 0;
  const auto second = subscribe();
  EXPECT_EQ(sid_of(second), "uuid:00000000-0000-4000-8000-000000000002");
  Publisher stuck{[] { return std::array<std::byte, 16>{}; }};
  stuck.add_service(variables());
  const auto good = request("SUBSCRIBE", fields({{"CALLBACK", url(alice)}, {"NT", "upnp:event"}}));
  EXPECT_EQ(stuck.handle(good, 0, now).status, 200u);
  EXPECT_EQ(stuck.handle(good, 0, now).status, 500u);
}

// UDA-4-05, UDA-4-06, UDA-4-07, UDA-4-10, UDA-4-12, UDA-4-19, UDA-4-20
TEST_F(GenaPublisherTest, RefusesWhatTheStandardRefuses) {
  const auto sid = sid_of(subscribe());
  const std::string nt = "upnp:event";
  struct Row {
    const char* method;
    http::Fields fields;
    unsigned status;
  };
  const Row rows[] = {
      {"SUBSCRIBE", {}, 412},
      {"SUBSCRIBE", fields({{"NT", nt}}), 412},
      {"SUBSCRIBE", fields({{"NT", nt}, {"CALLBACK", ""}}), 412},
      {"SUBSCRIBE", fields({{"NT", nt}, {"CALLBACK", url(bob)}}), 412},
      {"SUBSCRIBE", fields({{"NT", nt}, {"CALLBACK", url(alice) + url(bob)}}), 412},
      {"SUBSCRIBE", fields({{"NT", nt}, {"CALLBACK", url(alice)}, {"CALLBACK", url(alice)}}), 412},
      {"SUBSCRIBE", fields({{"CALLBACK", url(alice)}}), 412},
      {"SUBSCRIBE", fields({{"NT", ""}, {"CALLBACK", url(alice)}}), 412},
      {"SUBSCRIBE", fields({{"NT", "upnp:events"}, {"CALLBACK", url(alice)}}), 412},
      {"SUBSCRIBE", fields({{"NT", nt}, {"NT", nt}, {"CALLBACK", url(alice)}}), 412},
      {"SUBSCRIBE", fields({{"SID", sid}, {"NT", nt}}), 400},
      {"SUBSCRIBE", fields({{"SID", sid}, {"CALLBACK", url(alice)}}), 400},
      {"SUBSCRIBE", fields({{"SID", sid}, {"NT", nt}, {"CALLBACK", url(alice)}}), 400},
      {"SUBSCRIBE", fields({{"SID", ""}, {"NT", nt}, {"CALLBACK", url(alice)}}), 400},
      {"SUBSCRIBE", fields({{"SID", ""}}), 412},
      {"SUBSCRIBE", fields({{"SID", "uuid:00000000-0000-4000-8000-0000000000ff"}}), 412},
      {"SUBSCRIBE", fields({{"SID", sid}, {"SID", sid}}), 412},
      {"UNSUBSCRIBE", {}, 412},
      {"UNSUBSCRIBE", fields({{"SID", ""}}), 412},
      {"UNSUBSCRIBE", fields({{"SID", "uuid:00000000-0000-4000-8000-0000000000ff"}}), 412},
      {"UNSUBSCRIBE", fields({{"SID", sid}, {"NT", nt}}), 400},
      {"UNSUBSCRIBE", fields({{"SID", sid}, {"CALLBACK", url(alice)}}), 400},
      {"UNSUBSCRIBE", fields({{"NT", nt}}), 400},
      {"GET", {}, 405},
      {"POST", {}, 405},
      {"subscribe", {}, 405},
  };
  for (std::size_t i = 0; i < std::size(rows); ++i) {
    const auto response = ask(rows[i].method, rows[i].fields);
    EXPECT_EQ(response.status, rows[i].status) << "row " << i;
    EXPECT_FALSE(response.sent) << "row " << i;
  }
  EXPECT_EQ(publisher.size(), 1u) << "a refusal changes nothing";
  EXPECT_EQ(publisher.handle(request("SUBSCRIBE", {}), 99, now).status, 404u);
}

// UDA-4-20
TEST_F(GenaPublisherTest, HasNoEventsForAddressesThatAreNoOtherHost) {
  for (const auto* text :
       {"127.0.0.1", "0.0.0.0", "0.1.2.3", "224.0.0.1", "239.255.255.250", "255.255.255.255", "192.168.1.1"})
    EXPECT_EQ(subscribe(*Address::parse(text)).status, 412u) << text;
  for (const auto* text : {"::1", "::", "ff02::1"}) {
    const auto peer = *Address::parse(text);
    EXPECT_EQ(subscribe(peer, "<http://[" + std::string{text} + "]/>").status, 412u) << text;
  }
  EXPECT_EQ(subscribe(*Address::parse("fe80::2"), "<http://[fe80::2]/>").status, 200u);
}

// POL-EVT-02
TEST_F(GenaPublisherTest, ASidServesOnlyItsOwnerAtItsService) {
  const auto other = publisher.add_service({{"PhysicalLinkStatus", "Up"}});
  const auto sid = sid_of(subscribe());
  for (const auto* method : {"SUBSCRIBE", "UNSUBSCRIBE"}) {
    EXPECT_EQ(ask(method, fields({{"SID", sid}}), bob).status, 412u);
    EXPECT_EQ(publisher.handle(request(method, fields({{"SID", sid}})), other, now).status, 412u);
    for (std::size_t n = 0; n < sid.size(); ++n)
      EXPECT_EQ(ask(method, fields({{"SID", sid.substr(0, n)}})).status, 412u) << n;
    EXPECT_EQ(ask(method, fields({{"SID", sid + "0"}})).status, 412u);
  }
  EXPECT_EQ(publisher.size(), 1u);
  EXPECT_EQ(ask("UNSUBSCRIBE", fields({{"SID", sid}})).status, 200u);
  EXPECT_EQ(publisher.size(), 0u);
}

// UDA-4-08, UDA-4-21, POL-QTA-09
TEST_F(GenaPublisherTest, HoldsEightOfADeviceAnd256InAll) {
  for (int i = 0; i < 8; ++i) EXPECT_EQ(subscribe().status, 200u);
  EXPECT_EQ(subscribe().status, 503u);
  for (std::uint32_t device = 0; device < 31; ++device)
    for (int i = 0; i < 8; ++i) EXPECT_EQ(subscribe(Address::v4(0xc0a80120 + device)).status, 200u);
  EXPECT_EQ(publisher.size(), 256u);
  EXPECT_EQ(subscribe(bob).status, 503u);
  const auto gone = std::string{"uuid:00000000-0000-4000-8000-000000000003"};
  EXPECT_EQ(ask("UNSUBSCRIBE", fields({{"SID", gone}})).status, 200u);
  EXPECT_EQ(subscribe(bob).status, 200u);
  EXPECT_EQ(subscribe().status, 503u) << "bob has the place";
}

TEST_F(GenaPublisherTest, AnExpiredSubscriptionTakesNoPlace) {
  for (int i = 0; i < 8; ++i) EXPECT_EQ(subscribe(alice, {}, "Second-60").status, 200u);
  now += 60s;
  EXPECT_EQ(subscribe().status, 200u);
  EXPECT_EQ(publisher.size(), 1u);
}

// UDA-4-09, UDA-4-10
TEST_F(GenaPublisherTest, ARenewalKeepsTheSidAndBringsNoInitialEvent) {
  const auto sid = subscribed(alice, {}, "Second-60");
  now += 59s;
  const auto renewed = ask("SUBSCRIBE", fields({{"SID", sid}, {"TIMEOUT", "Second-300"}}));
  EXPECT_EQ(renewed.status, 200u);
  EXPECT_EQ(sid_of(renewed), sid);
  EXPECT_EQ(timeout_of(renewed), "Second-300");
  EXPECT_FALSE(renewed.sent);
  pass(299s);
  EXPECT_FALSE(publisher.poll_send(now));
  EXPECT_EQ(publisher.size(), 1u);
  pass(1s);
  EXPECT_EQ(publisher.size(), 0u);
  EXPECT_EQ(ask("SUBSCRIBE", fields({{"SID", sid}})).status, 412u);
}

// UDA-4-10, UDA-4-23
TEST_F(GenaPublisherTest, AnExpiredSubscriptionGetsNothingEvenBeforeItIsCleanedUp) {
  const auto sid = subscribed(alice, {}, "Second-60");
  set_address("203.0.113.8");
  now += 60s;
  EXPECT_FALSE(publisher.poll_send(now)) << "what waited";
  set_address("203.0.113.9");
  EXPECT_FALSE(publisher.poll_send(now)) << "what came later";
  EXPECT_EQ(ask("SUBSCRIBE", fields({{"SID", sid}})).status, 412u);
  EXPECT_EQ(ask("UNSUBSCRIBE", fields({{"SID", sid}})).status, 412u);
  publisher.handle_timeout(now);
  EXPECT_EQ(publisher.size(), 0u);
  EXPECT_FALSE(publisher.next_deadline());
}

// UDA-4-13, UPNP-X-09
TEST_F(GenaPublisherTest, TheInitialEventLeaves50MsAfterTheAnswer) {
  int woken = 0;
  publisher.set_wake([&] { ++woken; });
  const auto response = subscribe();
  pass(10s);
  EXPECT_FALSE(publisher.poll_send(now)) << "the answer is not sent";
  ASSERT_TRUE(response.sent);
  response.sent();
  EXPECT_EQ(woken, 1);
  ASSERT_TRUE(publisher.next_deadline());
  EXPECT_LE(*publisher.next_deadline(), now);
  publisher.handle_timeout(now);
  EXPECT_EQ(*publisher.next_deadline(), now + 50ms);
  EXPECT_FALSE(publisher.poll_send(now));
  pass(49ms);
  EXPECT_FALSE(publisher.poll_send(now));
  set_address("203.0.113.8");
  pass(1ms);
  const auto initial = publisher.poll_send(now);
  ASSERT_TRUE(initial);
  EXPECT_EQ(field(*initial, "SEQ"), "0");
  EXPECT_EQ(field(*initial, "SID"), sid_of(response));
  EXPECT_THAT(initial->bytes, HasSubstr("203.0.113.8"));
  publisher.handle_result(initial->handle, taken, now);
  EXPECT_FALSE(publisher.poll_send(now)) << "the initial event has told that change";
  response.sent();
  pass(1s);
  EXPECT_FALSE(publisher.poll_send(now)) << "it comes once";
}

TEST_F(GenaPublisherTest, AnAnswerThatIsSentWhenNobodyCaresAnyMoreDoesNothing) {
  const auto response = subscribe();
  EXPECT_EQ(ask("UNSUBSCRIBE", fields({{"SID", sid_of(response)}})).status, 200u);
  response.sent();
  EXPECT_FALSE(publisher.next_deadline());
  std::function<void()> sent;
  {
    Publisher short_lived{[this] { return count_up(counter); }};
    short_lived.add_service(variables());
    sent = short_lived
               .handle(request("SUBSCRIBE", fields({{"CALLBACK", url(alice)}, {"NT", "upnp:event"}})), 0, now)
               .sent;
  }
  sent();
}

// UDA-4-13, UDA-4-14, UDA-4-16
TEST_F(GenaPublisherTest, WritesTheGoldenNotifies) {
  const auto golden = [](const std::string& name) {
    const auto text = test::read_text_file(SALLYPORT_VECTORS "/" + name + ".notify.txt");
    const auto body = text.find("\n\n") + 2;
    std::string bytes;
    for (const char c : text.substr(0, body)) bytes += c == '\n' ? "\r\n" : std::string{c};
    return bytes + text.substr(body);
  };
  subscribe(alice, url(alice, ":2869/upnp/eventing/dkcokagfpu")).sent();
  pass(50ms);
  const auto initial = publisher.poll_send(now);
  ASSERT_TRUE(initial);
  EXPECT_EQ(initial->bytes, golden("initial"));
  EXPECT_EQ(initial->address, alice);
  EXPECT_EQ(initial->port, 2869);
  EXPECT_EQ(initial->path, "/upnp/eventing/dkcokagfpu");
  EXPECT_EQ(initial->interface, 3u);
  EXPECT_EQ(initial->local, gateway);
  publisher.handle_result(initial->handle, taken, now);
  set_address("");
  const auto change = publisher.poll_send(now);
  ASSERT_TRUE(change);
  EXPECT_EQ(change->bytes, golden("change"));
}

TEST_F(GenaPublisherTest, AnswersWhatRealSubscribersSend) {
  struct Row {
    const char* name;
    unsigned status;
    const char* timeout;
    std::uint16_t port;
    const char* path;
  };
  const Row rows[] = {
      {"libupnp", 200, "Second-1801", 49152, "/"},
      {"gupnp", 200, "Second-1800", 43567, "/e1f0c8a2-5a1c-4f64-9df5-5b2e3a2d7c11"},
      {"windows", 200, "Second-1800", 2869, "/upnp/eventing/dkcokagfpu"},
      {"xbox", 200, "Second-86400", 1029, "/evt?sub=7&svc=WANIPConn1"},
      {"infinite", 200, "Second-1800", 80, "/a"},
      {"renewal", 412, "", 0, ""},
      {"callstranger", 412, "", 0, ""},
  };
  for (const auto& row : rows) {
    auto sent = test::read_request(
        test::read_text_file(SALLYPORT_VECTORS "/" + std::string{row.name} + ".subscribe.txt"));
    sent.peer = alice;
    sent.local = gateway;
    sent.interface = 3;
    const auto response = publisher.handle(sent, wan, now);
    EXPECT_EQ(response.status, row.status) << row.name;
    EXPECT_EQ(timeout_of(response), row.timeout) << row.name;
    if (response.sent) response.sent();
    pass(50ms);
    const auto initial = publisher.poll_send(now);
    ASSERT_EQ(initial.has_value(), row.status == 200) << row.name;
    if (!initial) continue;
    EXPECT_EQ(initial->port, row.port) << row.name;
    EXPECT_EQ(initial->path, row.path) << row.name;
  }
}

// UDA-4-16
TEST_F(GenaPublisherTest, AChangeIsToldToEverySubscriberOfTheServiceAndNoOther) {
  const auto other = publisher.add_service({{"PhysicalLinkStatus", "Up"}});
  const std::set<std::string> here{subscribed(alice), subscribed(bob)};
  const auto there = publisher.handle(
      request("SUBSCRIBE", fields({{"CALLBACK", url(alice)}, {"NT", "upnp:event"}})), other, now);
  there.sent();
  pass(50ms);
  EXPECT_EQ(drain().size(), 1u);
  set_address("203.0.113.8");
  std::set<std::string> told;
  for (const auto& delivery : drain()) {
    told.insert(field(delivery, "SID"));
    EXPECT_EQ(field(delivery, "SEQ"), "1");
    EXPECT_THAT(delivery.bytes, HasSubstr("<ExternalIPAddress>203.0.113.8</ExternalIPAddress>"));
    EXPECT_THAT(delivery.bytes, Not(HasSubstr("ConnectionStatus"))) << "only what changed";
  }
  EXPECT_EQ(told, here);
  set_address("203.0.113.8");
  publisher.set(wan, "NoSuchVariable", "1", now);
  publisher.set(77, "ExternalIPAddress", "1", now);
  EXPECT_TRUE(drain().empty()) << "nothing changed";
}

TEST_F(GenaPublisherTest, ChangesSetTogetherAreOneEvent) {
  subscribed();
  const Publisher::Change changes[] = {{"SystemUpdateID", "43"}, {"PortMappingNumberOfEntries", "4"}};
  publisher.set(wan, changes, now);
  const auto events = drain();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_THAT(events[0].bytes, HasSubstr("<PortMappingNumberOfEntries>4<"));
  EXPECT_THAT(events[0].bytes, HasSubstr("<SystemUpdateID>43<"));
}

// WIC-V-02, WIC-V-04
TEST_F(GenaPublisherTest, AModeratedVariableIsToldAtMostFiveTimesASecondAndLastOfAllWithItsLastValue) {
  subscribed();
  std::vector<Delivery> events;
  for (int i = 0; i < 1000; ++i) {  // one change each millisecond
    const auto text = std::to_string(100 + i);
    const Publisher::Change changes[] = {{"PortMappingNumberOfEntries", text}, {"SystemUpdateID", text}};
    publisher.set(wan, changes, now);
    std::ranges::move(drain(), std::back_inserter(events));
    pass(1ms);
    std::ranges::move(drain(), std::back_inserter(events));
  }
  EXPECT_EQ(events.size(), 6u) << "at 0, 200, ... 1000 ms";
  EXPECT_THAT(events.front().bytes, HasSubstr("<SystemUpdateID>100<"));
  pass(1s);
  std::ranges::move(drain(), std::back_inserter(events));
  EXPECT_THAT(events.back().bytes, HasSubstr("<PortMappingNumberOfEntries>1099</"));
  EXPECT_THAT(events.back().bytes, HasSubstr("<SystemUpdateID>1099</"));
  set_address("203.0.113.8");
  set_address("203.0.113.9");
  EXPECT_EQ(drain().size(), 2u) << "the external address does not wait";
}

TEST_F(GenaPublisherTest, ANewSubscriberIsNotToldAgainWhatItsInitialEventSaid) {
  subscribed(alice);
  publisher.set(wan, "SystemUpdateID", "43", now);
  drain();
  publisher.set(wan, "SystemUpdateID", "44", now);  // moderated: waits
  EXPECT_TRUE(drain().empty());
  const auto response = subscribe(bob);
  response.sent();
  pass(50ms);
  const auto initial = publisher.poll_send(now);
  ASSERT_TRUE(initial);
  EXPECT_THAT(initial->bytes, HasSubstr("<SystemUpdateID>44<"));
  publisher.handle_result(initial->handle, taken, now);
  pass(1s);
  const auto events = drain();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].address, alice);
}

// UDA-4-15, UDA-4-22, POL-EVT-04
TEST_F(GenaPublisherTest, EventsOfASubscriptionComeInOrderOneAtATime) {
  subscribed();
  for (int i = 1; i <= 5; ++i) set_address("203.0.113." + std::to_string(i));
  for (int i = 1; i <= 5; ++i) {
    const auto delivery = publisher.poll_send(now);
    ASSERT_TRUE(delivery);
    EXPECT_EQ(field(*delivery, "SEQ"), std::to_string(i));
    EXPECT_THAT(delivery->bytes, HasSubstr("203.0.113." + std::to_string(i) + "<"));
    EXPECT_FALSE(publisher.poll_send(now)) << "one in flight";
    publisher.handle_result(delivery->handle, taken, now);
  }
  EXPECT_FALSE(publisher.poll_send(now));
}

// UDA-4-22
TEST_F(GenaPublisherTest, ASlowSubscriberDoesNotDelayOthers) {
  subscribed(alice);
  subscribed(bob);
  set_address("203.0.113.1");
  const auto slow = publisher.poll_send(now);
  ASSERT_TRUE(slow);
  EXPECT_EQ(slow->address, alice);
  EXPECT_EQ(drain().size(), 1u);
  for (int i = 2; i <= 40; ++i) {
    set_address("203.0.113." + std::to_string(i));
    const auto events = drain();
    ASSERT_EQ(events.size(), 1u);
    EXPECT_EQ(events[0].address, bob);
    EXPECT_EQ(field(events[0], "SEQ"), std::to_string(i));
  }
}

// POL-EVT-04
TEST_F(GenaPublisherTest, OfMoreThan16WaitingEventsTheOldestMergeAndTheNewestValueStands) {
  subscribed();
  set_address("203.0.113.1");
  const auto first = publisher.poll_send(now);
  ASSERT_TRUE(first);
  publisher.set(wan, "ConnectionStatus", "Disconnected", now);
  for (int i = 2; i <= 40; ++i) set_address("203.0.113." + std::to_string(i));
  publisher.handle_result(first->handle, taken, now);
  const auto events = drain();
  ASSERT_EQ(events.size(), Publisher::max_waiting);
  EXPECT_THAT(events[0].bytes, HasSubstr("<ConnectionStatus>Disconnected<"));
  EXPECT_THAT(events[0].bytes, HasSubstr(">203.0.113.25<"));
  EXPECT_LT(events[0].bytes.find("ConnectionStatus"), events[0].bytes.find("ExternalIPAddress"));
  for (std::size_t i = 0; i < events.size(); ++i) {
    EXPECT_EQ(field(events[i], "SEQ"), std::to_string(2 + i)) << "merging leaves no gap";
    EXPECT_THAT(events[i].bytes, HasSubstr(">203.0.113." + std::to_string(25 + i) + "<"));
  }
}

// UDA-4-18
TEST_F(GenaPublisherTest, CallbackUrlsAreTriedInOrderUntilOneWorks) {
  subscribe(alice, url(alice, ":1001/a") + url(alice, ":1002/b") + url(alice, ":1003/c")).sent();
  pass(50ms);
  const http::DeliveryResult results[] = {nobody, {Kind::answered, 503}, taken};
  std::string body;
  for (int i = 0; i < 3; ++i) {
    const auto delivery = publisher.poll_send(now);
    ASSERT_TRUE(delivery);
    EXPECT_EQ(delivery->port, 1001 + i);
    EXPECT_EQ(field(*delivery, "SEQ"), "0");
    EXPECT_EQ(field(*delivery, "HOST"), "192.168.1.10:" + std::to_string(1001 + i));
    if (i == 0) set_address("203.0.113.8");  // does not overtake
    publisher.handle_result(delivery->handle, results[i], now);
  }
  const auto next = publisher.poll_send(now);
  ASSERT_TRUE(next);
  EXPECT_EQ(next->port, 1001);
  EXPECT_EQ(field(*next, "SEQ"), "1");
}

// UDA-4-17
TEST_F(GenaPublisherTest, AMessageNobodyTakesWithin30SecondsIsDroppedAndTheSubscriptionStays) {
  const auto sid = subscribed(alice, url(alice, ":1001/a") + url(alice, ":1002/b"));
  set_address("203.0.113.8");
  const auto lost = publisher.poll_send(now);
  ASSERT_TRUE(lost);
  pass(30s);
  publisher.handle_result(lost->handle, silent, now);
  EXPECT_FALSE(publisher.poll_send(now)) << "the 30 s are over: not by the next URL either";
  pass(10s);
  EXPECT_FALSE(publisher.poll_send(now));
  EXPECT_EQ(publisher.size(), 1u);
  set_address("203.0.113.9");
  const auto next = publisher.poll_send(now);
  ASSERT_TRUE(next);
  EXPECT_EQ(field(*next, "SEQ"), "2") << "the gap tells what was lost";
  EXPECT_EQ(next->port, 1001);
  EXPECT_EQ(ask("SUBSCRIBE", fields({{"SID", sid}})).status, 200u);
}

// POL-EVT-05
TEST_F(GenaPublisherTest, EachStatusButA2xxDropsTheMessageAndTheNextOneFollows) {
  subscribed();
  std::uint32_t sequence = 1;
  for (const unsigned status : {100U, 199U, 301U, 302U, 307U, 404U, 412U, 500U, 999U}) {
    set_address("203.0.113." + std::to_string(status % 250));
    const auto delivery = publisher.poll_send(now);
    ASSERT_TRUE(delivery) << status;
    EXPECT_EQ(field(*delivery, "SEQ"), std::to_string(sequence++));
    EXPECT_EQ(delivery->address, alice);
    publisher.handle_result(delivery->handle, {Kind::answered, status}, now);
    EXPECT_FALSE(publisher.poll_send(now)) << status;
  }
  set_address("203.0.113.1");
  const auto delivery = publisher.poll_send(now);
  ASSERT_TRUE(delivery);
  publisher.handle_result(delivery->handle, {Kind::broken, 0}, now);
  set_address("203.0.113.2");
  EXPECT_TRUE(publisher.poll_send(now));
}

TEST_F(GenaPublisherTest, ADeadSubscriberIsTriedMoreAndMoreRarelyAndOnlyWithTheLastValues) {
  subscribed(alice, {}, "Second-86400");
  std::vector<std::chrono::seconds> gaps;
  std::optional<TimePoint> last;
  std::string sequence;
  for (int second = 0; second < 3000; ++second) {  // a change each second
    set_address("203.0.113." + std::to_string(second % 250));
    publisher.set(wan, "ConnectionStatus", second == 100 ? "Disconnected" : "Connected", now);
    while (const auto delivery = publisher.poll_send(now)) {
      if (last && now != *last) gaps.push_back(std::chrono::duration_cast<std::chrono::seconds>(now - *last));
      last = now;
      sequence = field(*delivery, "SEQ");
      publisher.handle_result(delivery->handle, nobody, now);
    }
    pass(1s);
  }
  EXPECT_THAT(gaps, ElementsAre(1s, 2s, 4s, 8s, 16s, 32s, 64s, 128s, 256s, 300s, 300s, 300s, 300s, 300s, 300s,
                                300s, 300s));
  EXPECT_EQ(sequence, std::to_string(gaps.size() + 1)) << "a try each";
  pass(300s);
  const auto found = publisher.poll_send(now);
  ASSERT_TRUE(found);
  EXPECT_THAT(found->bytes, HasSubstr(">203.0.113.249<"));
  publisher.handle_result(found->handle, taken, now);
  EXPECT_FALSE(publisher.poll_send(now)) << "all became one";
  set_address("203.0.113.1");
  const auto again = publisher.poll_send(now);
  ASSERT_TRUE(again) << "it lives: nothing is held back";
}

TEST_F(GenaPublisherTest, ARenewalEndsThePauseOfADeadSubscriber) {
  const auto sid = subscribed();
  for (int i = 0; i < 5; ++i) {
    set_address("203.0.113." + std::to_string(i));
    const auto delivery = publisher.poll_send(now);
    ASSERT_TRUE(delivery);
    publisher.handle_result(delivery->handle, nobody, now);
    if (i < 4) pass(Publisher::longest_pause);
  }
  set_address("203.0.113.9");
  EXPECT_FALSE(publisher.poll_send(now));
  EXPECT_EQ(ask("SUBSCRIBE", fields({{"SID", sid}})).status, 200u);
  EXPECT_TRUE(publisher.poll_send(now));
}

// UDA-4-11
TEST_F(GenaPublisherTest, AfterUnsubscribeNothingLeavesAndAResultThatStillComesIsIgnored) {
  const auto sid = subscribed();
  set_address("203.0.113.8");
  const auto in_flight = publisher.poll_send(now);
  ASSERT_TRUE(in_flight);
  set_address("203.0.113.9");
  EXPECT_EQ(ask("UNSUBSCRIBE", fields({{"SID", sid}})).status, 200u);
  publisher.handle_result(in_flight->handle, nobody, now);
  EXPECT_FALSE(publisher.poll_send(now));
  EXPECT_FALSE(publisher.next_deadline());
  EXPECT_EQ(ask("UNSUBSCRIBE", fields({{"SID", sid}})).status, 412u);

  const auto second = subscribed();
  set_address("203.0.113.10");  // ready to leave, not polled
  EXPECT_EQ(ask("UNSUBSCRIBE", fields({{"SID", second}})).status, 200u);
  EXPECT_FALSE(publisher.poll_send(now));
}

TEST_F(GenaPublisherTest, WhatExpiresInFlightIsGoneWithItsResult) {
  subscribed(alice, {}, "Second-20");
  set_address("203.0.113.8");
  const auto delivery = publisher.poll_send(now);
  ASSERT_TRUE(delivery);
  now += 30s;
  publisher.handle_result(delivery->handle, silent, now);
  EXPECT_EQ(publisher.size(), 0u);
  publisher.handle_result(delivery->handle, taken, now);
  publisher.handle_result(9999, taken, now);
  EXPECT_FALSE(publisher.next_deadline());
}

TEST_F(GenaPublisherTest, SubscriptionsOfALeftInterfaceOrDeviceEnd) {
  subscribed(alice);
  subscribed(bob);
  set_address("203.0.113.8");
  publisher.forget_if([](const Publisher::Subscriber& who) { return who.address == alice; });
  EXPECT_EQ(publisher.size(), 1u);
  const auto events = drain();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].address, bob);
  publisher.forget_if([](const Publisher::Subscriber& who) { return who.interface == 4; });
  EXPECT_EQ(publisher.size(), 1u);
  publisher.forget_if([](const Publisher::Subscriber& who) { return who.interface == 3; });
  EXPECT_EQ(publisher.size(), 0u);
  for (int i = 0; i < 8; ++i) EXPECT_EQ(subscribe(alice).status, 200u) << "its places are free again";
}

TEST_F(GenaPublisherTest, ARenewalByAnotherInterfaceMovesTheEventsThere) {
  const auto sid = subscribed();
  auto renewal = request("SUBSCRIBE", fields({{"SID", sid}}));
  renewal.interface = 7;
  renewal.local = *Address::parse("192.168.1.2");
  EXPECT_EQ(publisher.handle(renewal, wan, now).status, 200u);
  set_address("203.0.113.8");
  const auto delivery = publisher.poll_send(now);
  ASSERT_TRUE(delivery);
  EXPECT_EQ(delivery->interface, 7u);
  EXPECT_EQ(delivery->local, renewal.local);
}

// UDA-4-24
TEST_F(GenaPublisherTest, AServiceWithoutVariablesTakesSubscriptionsAndTellsNothing) {
  const auto empty = publisher.add_service({});
  const auto response = publisher.handle(
      request("SUBSCRIBE", fields({{"CALLBACK", url(alice)}, {"NT", "upnp:event"}})), empty, now);
  EXPECT_EQ(response.status, 200u);
  response.sent();
  pass(1s);
  EXPECT_FALSE(publisher.poll_send(now));
}

TEST_F(GenaPublisherTest, LimitsCanBeChangedWhileItRuns) {
  Publisher::Limits limits;
  limits.per_device = 1;
  limits.total = 2;
  limits.time = {600, 5, 1200};
  publisher.set_limits(limits);
  EXPECT_EQ(timeout_of(subscribe(alice, {}, "infinite")), "Second-600");
  EXPECT_EQ(subscribe(alice).status, 503u);
  EXPECT_EQ(timeout_of(subscribe(bob, {}, "Second-1201")), "Second-1200");
  EXPECT_EQ(subscribe(Address::v4(0xc0a80120)).status, 503u);
}

// POL-FAIR-05, POL-FAIR-07: whatever is asked and in whatever order, the bounds hold and the ends meet.
TEST_F(GenaPublisherTest, AnyOrderOfCallsKeepsItsPromises) {
  std::mt19937 random{20261127};
  const auto below = [&](unsigned n) { return static_cast<unsigned>(random() % n); };
  Publisher::Limits limits;
  limits.per_device = 3;
  limits.total = 12;
  publisher.set_limits(limits);
  std::vector<std::string> sids;
  std::vector<std::function<void()>> unsent;
  std::map<std::uint64_t, int> in_flight;
  std::map<std::string, std::uint64_t> sequences;
  for (int step = 0; step < 200'000; ++step) {
    const auto peer = Address::v4(0xc0a80120 + below(6));
    switch (below(9)) {
      case 0: {
        const auto response = subscribe(peer, url(peer) + (below(2) ? url(peer, "/2") : ""),
                                        "Second-" + std::to_string(below(90)));
        if (response.status != 200) break;
        sids.push_back(sid_of(response));
        unsent.push_back(response.sent);
        break;
      }
      case 1:
        if (sids.empty()) break;
        ask(below(3) ? "SUBSCRIBE" : "UNSUBSCRIBE", fields({{"SID", sids[below(sids.size())]}}), peer);
        break;
      case 2:
      case 3:
        if (unsent.empty()) break;
        unsent.back()();
        unsent.pop_back();
        break;
      case 4:
        set_address(std::to_string(random()));
        break;
      case 5:
        publisher.set(wan, "SystemUpdateID", std::to_string(random()), now);
        break;
      case 6:
        while (const auto delivery = publisher.poll_send(now)) {
          ASSERT_EQ(++in_flight[delivery->handle], 1) << "one at a time";
          const auto sequence = std::stoull(field(*delivery, "SEQ"));
          auto [known, added] = sequences.emplace(field(*delivery, "SID"), sequence);
          if (added) {
            ASSERT_EQ(sequence, 0u);
          }
          ASSERT_LE(sequence - known->second, 1u) << "the same message by another URL, or the next";
          known->second = sequence;
        }
        break;
      case 7:
        while (!in_flight.empty()) {
          const http::DeliveryResult results[] = {
              taken, nobody, silent, {Kind::broken, 0}, {Kind::answered, 404}};
          publisher.handle_result(in_flight.begin()->first, results[below(5)], now);
          in_flight.erase(in_flight.begin());
        }
        break;
      case 8:
        pass(std::chrono::milliseconds{below(2000)});
        break;
    }
    ASSERT_LE(publisher.size(), 12u);
    if (sids.size() > 100) sids.erase(sids.begin(), sids.begin() + 50);
  }
  EXPECT_GT(sequences.size(), 500u);
  pass(24h);
  EXPECT_EQ(publisher.size(), 0u);
  EXPECT_FALSE(publisher.poll_send(now));
}

}  // namespace
}  // namespace sallyport::upnp::gena
