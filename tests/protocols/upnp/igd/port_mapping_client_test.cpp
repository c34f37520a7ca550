#include "tests/protocols/upnp/igd/client_fixture.hpp"

namespace sallyport::test {
namespace {

const auto here = Address::v4(0xc0a8010a);     // 192.168.1.10
const auto outside = Address::v4(0xcb007107);  // 203.0.113.7

class PortMappingClientTest : public ClientTest<igd::PortMappingClient> {
 protected:
  static Port port(std::uint32_t number) { return *Port::from(number); }
  static igd::Connection connection(unsigned version) {
    return {.service_type = "urn:schemas-upnp-org:service:WANIPConnection:" + std::to_string(version),
            .version = version,
            .host = Address::v4(0xc0a80101),
            .port = 5000,
            .interface = 2,
            .target = "/ctl/IPConn"};
  }
  static wire::MappingWish wish(std::uint16_t internal = 6000) {
    wire::MappingWish wished{.internal_port = port(internal)};
    wished.lifetime_s = 3600;
    wished.description = "a game";
    return wished;
  }
  void start(unsigned version, wire::MappingWish wished = wish()) {
    client =
        std::make_unique<igd::PortMappingClient>(connection(version), std::move(wished), here, 42, now());
    client->set_external_address(outside);
  }
  static OutArguments entry(const std::string& host = "192.168.1.10", const std::string& internal = "6000",
                            const std::string& lease = "3600") {
    return {{"NewInternalPort", internal},
            {"NewInternalClient", host},
            {"NewEnabled", "1"},
            {"NewPortMappingDescription", "a game"},
            {"NewLeaseDuration", lease}};
  }
  /// Held, with everything around the first grant done.
  void hold(unsigned version = 1, wire::MappingWish wished = wish()) {
    start(version, std::move(wished));
    if (version == 2)
      expect_success("AddAnyPortMapping", {{"NewReservedPort", "6000"}});
    else
      expect_success("AddPortMapping");
    expect_event(Kind::granted);
    expect_success("GetSpecificPortMappingEntry", entry());
    expect_no_event();
    expect_quiet();
  }
};

TEST_F(PortMappingClientTest, AsksVersion1ForItsPort) {
  start(1);
  const auto what = expect_success("AddPortMapping");
  EXPECT_EQ(what.target, "/ctl/IPConn");
  EXPECT_EQ(what["NewRemoteHost"], "");
  EXPECT_EQ(what["NewExternalPort"], "6000");
  EXPECT_EQ(what["NewProtocol"], "TCP");
  EXPECT_EQ(what["NewInternalPort"], "6000");
  EXPECT_EQ(what["NewInternalClient"], "192.168.1.10");
  EXPECT_EQ(what["NewEnabled"], "1");
  EXPECT_EQ(what["NewPortMappingDescription"], "a game");
  EXPECT_EQ(what["NewLeaseDuration"], "3600");
  expect_event(Kind::granted);
  EXPECT_EQ(last->granted.external, (ExternalEndpoint{outside, port(6000)}));
  EXPECT_EQ(last->granted.lifetime_s, 3600u);
  EXPECT_EQ(last->granted.at, now());
}

TEST_F(PortMappingClientTest, TakesWhatVersion2Reserves) {
  auto wished = wish();
  wished.external_port = port(7000);
  wished.transport = Transport::udp;
  start(2, wished);
  const auto what = expect_success("AddAnyPortMapping", {{"NewReservedPort", "41000"}});
  EXPECT_EQ(what["NewExternalPort"], "7000");
  EXPECT_EQ(what["NewProtocol"], "UDP");
  expect_event(Kind::granted);
  EXPECT_EQ(last->granted.external.port, port(41000));
  const auto looked = expect_success("GetSpecificPortMappingEntry", entry());
  EXPECT_EQ(looked["NewExternalPort"], "41000");
}

TEST_F(PortMappingClientTest, OnlyTheExactPortIsAskedForByName) {
  auto wished = wish();
  wished.exact = true;
  start(2, wished);
  expect_error("AddPortMapping", 718);
  expect_refused(Failure::port_taken, 718);
  expect_quiet();
  wait();
  EXPECT_EQ(expect_success("AddPortMapping")["NewExternalPort"], "6000");
  expect_event(Kind::granted);
}

TEST_F(PortMappingClientTest, APortThatIsTakenGivesWayToOthers) {
  start(1);
  expect_error("AddPortMapping", 718);
  std::set<std::string> ports{"6000"};
  for (int i = 0; i < 6; ++i) {
    const auto what = expect_error("AddPortMapping", 729);
    EXPECT_TRUE(ports.insert(what["NewExternalPort"]).second);
    EXPECT_GE(std::stoi(what["NewExternalPort"]), 1024);
  }
  const auto what = expect_success("AddPortMapping");
  expect_event(Kind::granted);
  EXPECT_EQ(std::to_string(last->granted.external.port.number()), what["NewExternalPort"]);
}

TEST_F(PortMappingClientTest, GivesUpWhenEveryPortIsTakenAndBeginsAnewLater) {
  start(1);
  for (int i = 0; i < 8; ++i) expect_error("AddPortMapping", 718);
  expect_quiet();
  expect_refused(Failure::port_taken, 718);
  wait();
  EXPECT_EQ(asked()["NewExternalPort"], "6000");
}

TEST_F(PortMappingClientTest, AnyIsLeftOutWhereItIsNotKnown) {
  for (const unsigned code : {401u, 402u, 501u, 602u}) {
    start(2);
    expect_error("AddAnyPortMapping", code);
    expect_success("AddPortMapping");
    expect_event(Kind::granted);
  }
  start(2);
  expect("AddAnyPortMapping", http::Reply{.status = 500, .body = "<html>"});
  expect_success("AddPortMapping");
}

TEST_F(PortMappingClientTest, PermanentWhereNothingElseIsGiven) {
  start(1);
  expect_error("AddPortMapping", 725);
  EXPECT_EQ(expect_success("AddPortMapping")["NewLeaseDuration"], "0");
  expect_event(Kind::granted);
  EXPECT_EQ(last->granted.lifetime_s, 0u);
  // looked at every 10 to 20 minutes, and nothing is told while it stands
  for (int i = 0; i < 5; ++i) {
    const auto before = now();
    wait();
    EXPECT_GE(now() - before, 10min);
    EXPECT_LE(now() - before, 20min);
    expect_success("GetSpecificPortMappingEntry", entry("192.168.1.10", "6000", "0"));
    expect_no_event();
  }
  wait();
  expect_error("GetSpecificPortMappingEntry", 714);
  expect_event(Kind::ended);
  EXPECT_TRUE(last->told);
  EXPECT_EQ(last->code, 714u);
  expect_quiet();
  wait();
  EXPECT_EQ(expect_success("AddPortMapping")["NewLeaseDuration"], "0");
  expect_event(Kind::granted);
}

TEST_F(PortMappingClientTest, EverLessIsAskedForWhenTheGatewayChokes) {
  auto wished = wish();
  wished.description = "Büro & <Spiele>";
  start(1, wished);
  EXPECT_EQ(expect_error("AddPortMapping", 402)["NewPortMappingDescription"], "Büro & <Spiele>");
  const auto second = expect_error("AddPortMapping", 402);
  EXPECT_EQ(second["NewPortMappingDescription"], "Sallyport");
  EXPECT_EQ(second["NewLeaseDuration"], "3600");
  EXPECT_EQ(expect_error("AddPortMapping", 501)["NewLeaseDuration"], "0");
  expect_refused(Failure::no_resources, 501);
  wait();
  EXPECT_EQ(asked()["NewPortMappingDescription"], "Büro & <Spiele>");
}

struct Told {
  unsigned code;
  Failure failure;
  bool again;
};
class PortMappingRefusals : public PortMappingClientTest, public ::testing::WithParamInterface<Told> {};

TEST_P(PortMappingRefusals, AreToldAsWhatTheyMean) {
  auto wished = wish();
  wished.remotes = {{*Prefix::parse("198.51.100.9"), std::nullopt}};
  start(1, wished);
  EXPECT_EQ(expect_error("AddPortMapping", GetParam().code)["NewRemoteHost"], "198.51.100.9");
  expect_quiet();
  expect_refused(GetParam().failure, GetParam().code, GetParam().again);
  expect_no_event();
}
INSTANTIATE_TEST_SUITE_P(
    Codes, PortMappingRefusals,
    ::testing::Values(Told{606, Failure::not_authorized, true}, Told{728, Failure::no_resources, true},
                      Told{401, Failure::unsupported, true}, Told{715, Failure::not_possible, false},
                      Told{716, Failure::not_possible, false}, Told{724, Failure::not_possible, false},
                      Told{726, Failure::not_possible, false}, Told{727, Failure::not_possible, false},
                      Told{706, Failure::no_external_address, true}),
    [](const auto& row) { return "Code" + std::to_string(row.param.code); });

TEST_F(PortMappingClientTest, ARemoteThatCannotBeSaidIsNotAskedFor) {
  const std::vector<std::vector<RemoteFilter>> impossible = {
      {{*Prefix::parse("198.51.100.0/24"), std::nullopt}},
      {{*Prefix::parse("198.51.100.9"), port(5000)}},
      {{*Prefix::parse("2001:db8::1"), std::nullopt}},
      {{*Prefix::parse("198.51.100.9"), std::nullopt}, {*Prefix::parse("198.51.100.10"), std::nullopt}}};
  for (const auto& remotes : impossible) {
    auto wished = wish();
    wished.remotes = remotes;
    start(2, wished);
    expect_quiet();
    expect_refused(Failure::not_possible, 0, false);
    EXPECT_FALSE(client->next_deadline());
    client->refresh(now());
    expect_quiet();
    client->release(now());
    EXPECT_TRUE(client->finished());
  }
}

TEST_F(PortMappingClientTest, SamePortsWhereTheyAreDemanded) {
  auto wished = wish();
  wished.external_port = port(7000);
  start(1, wished);
  expect_error("AddPortMapping", 724);
  EXPECT_EQ(expect_error("AddPortMapping", 718)["NewExternalPort"], "6000");
  expect_refused(Failure::port_taken, 718);
}

TEST_F(PortMappingClientTest, ALowPortThatIsForbiddenGivesWayOnce) {
  start(1, wish(80));
  EXPECT_EQ(expect_error("AddPortMapping", 606)["NewExternalPort"], "80");
  EXPECT_GE(std::stoi(expect_error("AddPortMapping", 606)["NewExternalPort"]), 1024);
  expect_refused(Failure::not_authorized, 606);
}

TEST_F(PortMappingClientTest, IsRenewedAroundHalfItsLease) {
  hold();
  const auto begin = now();
  for (int i = 0; i < 3; ++i) {
    const auto before = now();
    wait();
    EXPECT_GE(now() - before, 1575s);
    EXPECT_LE(now() - before, 2025s);
    expect_success("GetSpecificPortMappingEntry", entry("192.168.1.10", "6000", "1800"));
    EXPECT_EQ(expect_success("AddPortMapping")["NewExternalPort"], "6000");
    expect_event(Kind::renewed);
    EXPECT_EQ(last->granted.at, now());
  }
  EXPECT_GT(now(), begin + 3600s);
}

TEST_F(PortMappingClientTest, AShorterLeaseIsFoundOut) {
  start(2);
  expect_success("AddAnyPortMapping", {{"NewReservedPort", "6000"}});
  expect_event(Kind::granted);
  expect_success("GetSpecificPortMappingEntry", entry("192.168.1.10", "6000", "600"));
  expect_event(Kind::renewed);
  EXPECT_EQ(last->granted.lifetime_s, 600u);
  const auto before = now();
  wait();
  EXPECT_LE(now() - before, 338s);
  expect_success("GetSpecificPortMappingEntry", entry("192.168.1.10", "6000", "300"));
  EXPECT_EQ(expect_success("AddPortMapping")["NewLeaseDuration"], "600");
  expect_event(Kind::renewed);
  EXPECT_EQ(last->granted.lifetime_s, 600u) << "no more than the last time";
}

TEST_F(PortMappingClientTest, WhereLookingIsBrokenItIsLeftOut) {
  for (const unsigned code : {714u, 401u, 501u}) {
    start(1);
    expect_success("AddPortMapping");
    expect_event(Kind::granted);
    expect_error("GetSpecificPortMappingEntry", code);
    expect_no_event();
    wait();
    expect_success("AddPortMapping");
    expect_event(Kind::renewed);
  }
}

TEST_F(PortMappingClientTest, WhoIsTakenBackIsToldAndAsksOnceMore) {
  hold();
  wait();
  expect_error("GetSpecificPortMappingEntry", 714);
  expect_event(Kind::ended);
  EXPECT_TRUE(last->told);
  expect_quiet();
  wait();
  expect_error("AddPortMapping", 606);
  expect_refused(Failure::not_authorized, 606);
  expect_quiet();
}

TEST_F(PortMappingClientTest, AnEntryOfAnotherHostIsNotOurs) {
  hold();
  wait();
  expect_success("GetSpecificPortMappingEntry", entry("192.168.1.20"));
  expect_event(Kind::ended);
  EXPECT_EQ(last->failure, Failure::port_taken);
  wait();
  expect_error("AddPortMapping", 718);
  const auto what = expect_success("AddPortMapping");
  EXPECT_NE(what["NewExternalPort"], "6000");
  expect_event(Kind::granted);
}

TEST_F(PortMappingClientTest, ADisabledEntryIsNoMapping) {
  hold();
  wait();
  auto off = entry();
  off[2].second = "0";
  expect_success("GetSpecificPortMappingEntry", off);
  expect_event(Kind::ended);
  EXPECT_TRUE(last->told);
}

TEST_F(PortMappingClientTest, SilenceIsToldOnceAndAskingGoesOnEverMoreSeldom) {
  start(1);
  expect("AddPortMapping", silence);
  expect_no_event();
  wait();
  expect("AddPortMapping", silence);
  expect_refused(Failure::no_answer, 0);
  std::chrono::nanoseconds last_pause{};
  for (int i = 0; i < 12; ++i) {
    const auto before = now();
    wait();
    last_pause = now() - before;
    expect("AddPortMapping", silence);
    expect_no_event();
  }
  EXPECT_GE(last_pause, 260s);
  EXPECT_LE(last_pause, 340s);
  wait();
  expect_success("AddPortMapping");
  expect_event(Kind::granted);
}

TEST_F(PortMappingClientTest, WhatIsHeldEndsWithItsLeaseWhenTheGatewayIsSilent) {
  hold();
  const auto end = now() + 3600s;
  while (now() < end) {
    expect_no_event();
    wait();
    if (now() < end) expect("GetSpecificPortMappingEntry", silence);
  }
  expect_event(Kind::ended);
  EXPECT_EQ(now(), end);
  EXPECT_EQ(last->failure, Failure::no_answer);
  EXPECT_FALSE(last->told);
  expect_success("AddPortMapping");
  expect_event(Kind::granted);
}

TEST_F(PortMappingClientTest, WhatIsRefusedMoreTimeIsHeldToItsEnd) {
  hold();
  const auto end = now() + 3600s;
  for (int i = 0; now() < end && i < 100; ++i) {
    wait();
    if (now() >= end) break;
    expect_no_event();
    expect_success("GetSpecificPortMappingEntry", entry());
    expect_error("AddPortMapping", 606);
  }
  expect_event(Kind::ended);
  EXPECT_EQ(now(), end);
  EXPECT_EQ(last->failure, Failure::not_authorized);
  EXPECT_EQ(last->code, 606u);
}

TEST_F(PortMappingClientTest, AfterALossOfStateTheSamePortIsAskedForAtOnce) {
  hold(2);
  client->refresh(now());
  EXPECT_EQ(expect_success("AddPortMapping")["NewExternalPort"], "6000");
  expect_event(Kind::renewed);
  client->refresh(now());
  const auto what = asked();
  client->refresh(now());
  expect_quiet();
  give(what, answer_of("AddPortMapping"));
  expect_event(Kind::renewed);
}

TEST_F(PortMappingClientTest, AnotherExternalAddressIsTold) {
  hold();
  client->set_external_address(outside);
  expect_no_event();
  client->set_external_address(Address::v4(0xcb007108));
  expect_event(Kind::changed);
  EXPECT_EQ(last->granted.external, (ExternalEndpoint{Address::v4(0xcb007108), port(6000)}));
}

TEST_F(PortMappingClientTest, IsGivenBack) {
  hold();
  client->release(now());
  EXPECT_FALSE(client->finished());
  const auto what = expect_success("DeletePortMapping");
  EXPECT_EQ(what["NewExternalPort"], "6000");
  EXPECT_EQ(what["NewProtocol"], "TCP");
  EXPECT_EQ(what["NewRemoteHost"], "");
  EXPECT_TRUE(client->finished());
  expect_no_event();
  EXPECT_FALSE(client->next_deadline());
}

TEST_F(PortMappingClientTest, GivingBackEndsAfterThreeTries) {
  hold();
  client->release(now());
  expect("DeletePortMapping", silence);
  EXPECT_FALSE(client->finished());
  wait();
  expect("DeletePortMapping", http::Reply{.status = 500});
  wait();
  expect("DeletePortMapping", silence);
  EXPECT_TRUE(client->finished());
  hold();
  client->release(now());
  expect_error("DeletePortMapping", 714);
  EXPECT_TRUE(client->finished());
}

TEST_F(PortMappingClientTest, WhatWasNotYetAnsweredIsGivenBackTooAndNothingOfOthers) {
  start(2);
  auto what = asked();
  client->release(now());
  expect_quiet();
  give(what, answer_of("AddAnyPortMapping", {{"NewReservedPort", "41000"}}));
  EXPECT_EQ(expect_success("DeletePortMapping")["NewExternalPort"], "41000");
  EXPECT_TRUE(client->finished());

  start(1);
  what = asked();
  client->release(now());
  give(what, error_of(718));
  EXPECT_TRUE(client->finished());

  // heard or not, nobody knows: what stands there is ours, or is left alone
  for (const bool ours : {true, false}) {
    start(1);
    expect("AddPortMapping", silence);
    client->release(now());
    expect_success("GetSpecificPortMappingEntry", entry(ours ? "192.168.1.10" : "192.168.1.20"));
    if (ours) expect_success("DeletePortMapping");
    EXPECT_TRUE(client->finished());
    expect_quiet();
  }
  start(1);
  client->release(now());
  EXPECT_TRUE(client->finished()) << "nothing was asked yet";
  expect_quiet();
}

TEST_F(PortMappingClientTest, AnAnswerToNothingChangesNothing) {
  start(1);
  const auto what = asked();
  client->handle_reply(what.id + 1, answer_of("AddPortMapping"), now());
  expect_no_event();
  give(what, answer_of("AddPortMapping"));
  give(what, answer_of("AddPortMapping"));
  expect_event(Kind::granted);
  expect_no_event();
}

TEST_F(PortMappingClientTest, NonsenseIsToldAndTriedAgain) {
  const std::pair<http::Reply, Failure> rows[] = {
      {{.status = 500, .body = "<html>oops"}, Failure::nonsense},
      {{.status = 200, .body = "\x01\x02"}, Failure::nonsense},
      {answer_of("GetExternalIPAddress"), Failure::nonsense},
      {{.status = 404}, Failure::unsupported},
      {{.status = 401}, Failure::not_authorized},
      {{.status = 503}, Failure::no_resources},
  };
  for (const auto& [reply, failure] : rows) {
    start(1);
    expect("AddPortMapping", reply);
    expect_refused(failure, reply.status);
    wait();
    expect_success("AddPortMapping");
    expect_event(Kind::granted);
  }
}

TEST_F(PortMappingClientTest, EqualSeedsAskEqually) {
  std::vector<std::string> first;
  for (int round = 0; round < 2; ++round) {
    start(1);
    for (int i = 0; i < 7; ++i) {
      const auto port = expect_error("AddPortMapping", 718)["NewExternalPort"];
      if (round == 0)
        first.push_back(port);
      else
        EXPECT_EQ(port, first[static_cast<std::size_t>(i)]);
    }
  }
}

}  // namespace
}  // namespace sallyport::test
