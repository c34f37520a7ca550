#include "tests/protocols/upnp/igd/client_fixture.hpp"

namespace sallyport::test {
namespace {

const auto here6 = *Address::parse("2001:db8:1::10");

class PinholeClientTest : public ClientTest<igd::PinholeClient> {
 protected:
  static wire::MappingWish wish() {
    wire::MappingWish wished{.internal_port = *Port::from(6000)};
    wished.lifetime_s = 7200;
    return wished;
  }
  void start(wire::MappingWish wished = wish(), const Address& from = here6) {
    client = std::make_unique<igd::PinholeClient>(
        igd::Connection{.service_type = "urn:schemas-upnp-org:service:WANIPv6FirewallControl:1",
                        .host = Address::v4(0xc0a80101),
                        .port = 5000,
                        .target = "/ctl/IP6FCtl"},
        std::move(wished), from, 42, now());
  }
  static OutArguments status(const char* enabled = "1", const char* allowed = "1") {
    return {{"FirewallEnabled", enabled}, {"InboundPinholeAllowed", allowed}};
  }
  void hold() {
    start();
    expect_success("GetFirewallStatus", status());
    expect_success("AddPinhole", {{"UniqueID", "17"}});
    expect_event(Kind::granted);
    expect_quiet();
  }
};

TEST_F(PinholeClientTest, IsOpenedForWhoAsks) {
  auto wished = wish();
  wished.transport = Transport::udp;
  wished.remotes = {{*Prefix::parse("2001:db8:9::1"), *Port::from(53)}};
  start(wished);
  expect_success("GetFirewallStatus", status());
  const auto what = expect_success("AddPinhole", {{"UniqueID", "17"}});
  EXPECT_EQ(what["RemoteHost"], "2001:db8:9::1");
  EXPECT_EQ(what["RemotePort"], "53");
  EXPECT_EQ(what["InternalClient"], "2001:db8:1::10");
  EXPECT_EQ(what["InternalPort"], "6000");
  EXPECT_EQ(what["Protocol"], "17");
  EXPECT_EQ(what["LeaseTime"], "7200");
  expect_event(Kind::granted);
  EXPECT_EQ(last->granted.external, (ExternalEndpoint{here6, *Port::from(6000)}));
  EXPECT_EQ(last->granted.lifetime_s, 7200u);
}

TEST_F(PinholeClientTest, EverybodyIsAnEmptyHost) {
  start();
  expect_success("GetFirewallStatus", status());
  const auto what = asked();
  EXPECT_EQ(what["RemoteHost"], "");
  EXPECT_EQ(what["RemotePort"], "0");
  EXPECT_EQ(what["Protocol"], "6");
}

TEST_F(PinholeClientTest, IsRenewedByItsNumberAroundHalfItsLease) {
  hold();
  const auto before = now();
  wait();
  EXPECT_GE(now() - before, 3150s);
  EXPECT_LE(now() - before, 4050s);
  const auto what = expect_success("UpdatePinhole");
  EXPECT_EQ(what["UniqueID"], "17");
  EXPECT_EQ(what["NewLeaseTime"], "7200");
  expect_event(Kind::renewed);
}

TEST_F(PinholeClientTest, OneThatIsGoneIsToldAndAskedForAnew) {
  hold();
  wait();
  expect_error("UpdatePinhole", 704);
  expect_event(Kind::ended);
  EXPECT_TRUE(last->told);
  wait();
  expect_success("GetFirewallStatus", status());
  expect_success("AddPinhole", {{"UniqueID", "18"}});
  expect_event(Kind::granted);
  client->release(now());
  EXPECT_EQ(expect_success("DeletePinhole")["UniqueID"], "18");
  EXPECT_TRUE(client->finished());
}

TEST_F(PinholeClientTest, TheFirewallsOwnWordIsHeard) {
  start();
  expect_success("GetFirewallStatus", status("1", "0"));
  expect_refused(Failure::not_authorized, 703);
  wait();
  expect_success("GetFirewallStatus", status("0", "0"));
  expect_refused(Failure::unsupported, 702);
  start();
  expect_error("GetFirewallStatus", 401);
  expect_success("AddPinhole", {{"UniqueID", "17"}});
  expect_event(Kind::granted);
}

TEST_F(PinholeClientTest, RefusalsAreToldAsWhatTheyMean) {
  const std::tuple<unsigned, Failure, bool> rows[] = {
      {606, Failure::not_authorized, true}, {701, Failure::no_resources, true},
      {702, Failure::unsupported, true},    {703, Failure::not_authorized, true},
      {705, Failure::not_possible, false},  {708, Failure::not_possible, false},
      {401, Failure::unsupported, true}};
  for (const auto& [code, failure, again] : rows) {
    start();
    expect_success("GetFirewallStatus", status());
    expect_error("AddPinhole", code);
    expect_refused(failure, code, again);
    expect_quiet();
  }
}

TEST_F(PinholeClientTest, AShorterLeaseIsTriedBeforeItIsNotPossible) {
  start();
  expect_success("GetFirewallStatus", status());
  expect_error("AddPinhole", 601);
  EXPECT_EQ(expect_error("AddPinhole", 601)["LeaseTime"], "3600");
  expect_refused(Failure::not_possible, 601);
}

TEST_F(PinholeClientTest, WhatCannotBeSaidIsNotAskedFor) {
  start(wish(), Address::v4(0xc0a8010a));
  expect_refused(Failure::not_possible, 0, false);
  start(wish(), *Address::parse("fe80::1"));
  expect_refused(Failure::not_possible, 0, false);
  auto wished = wish();
  wished.remotes = {{*Prefix::parse("2001:db8::/32"), std::nullopt}};
  start(wished);
  expect_refused(Failure::not_possible, 0, false);
  wished = wish();
  wished.exact = true;
  wished.external_port = *Port::from(7000);
  start(wished);
  expect_refused(Failure::not_possible, 0, false);
  expect_quiet();
}

TEST_F(PinholeClientTest, ANumberThatIsMissingIsNoGrant) {
  start();
  expect_success("GetFirewallStatus", status());
  expect_success("AddPinhole");
  expect_refused(Failure::nonsense, 0);
}

TEST_F(PinholeClientTest, AfterALossOfStateItIsAskedForAtOnce) {
  hold();
  client->refresh(now());
  expect_success("AddPinhole", {{"UniqueID", "19"}});
  expect_event(Kind::renewed);
  client->release(now());
  EXPECT_EQ(asked()["UniqueID"], "19");
}

TEST_F(PinholeClientTest, SilenceEndsWithTheLease) {
  hold();
  const auto end = now() + 7200s;
  for (int i = 0; i < 100 && now() < end; ++i) {
    wait();
    if (now() < end) expect("UpdatePinhole", silence);
  }
  expect_event(Kind::ended);
  EXPECT_EQ(last->failure, Failure::no_answer);
  expect("GetFirewallStatus", silence);
  wait();
  expect("GetFirewallStatus", silence);
  expect_refused(Failure::no_answer, 0);
}

}  // namespace
}  // namespace sallyport::test
