#include <fstream>
#include <iterator>

#include "tests/protocols/upnp/igd/client_fixture.hpp"

namespace sallyport::test {
namespace {

using igd::ControlPoint;
using State = ControlPoint::State;

const auto box = Address::v4(0xc0a80101);  // 192.168.1.1
const http::Url location{box, 5431, "/dyndev/root.xml"};

std::string vector_of(const std::string& name) {
  std::ifstream file{std::string{SALLYPORT_VECTORS} + "/" + name + ".xml", std::ios::binary};
  EXPECT_TRUE(file) << name;
  return {std::istreambuf_iterator<char>{file}, {}};
}

TEST(IgdDescription, OfMiniupnpd) {
  const auto read = igd::read_description(vector_of("miniupnpd"), {box, 5000, "/rootDesc.xml"}, 2);
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ(read->friendly_name, "OpenWrt router");
  EXPECT_EQ(read->manufacturer, "OpenWrt");
  EXPECT_EQ(read->model_name, "OpenWrt router");
  EXPECT_EQ(read->model_number, "1");
  EXPECT_EQ(read->udn, "uuid:00bb5bc6-0000-0000-0000-000000000001");
  EXPECT_EQ(read->igd_version, 2u);
  ASSERT_EQ(read->connections.size(), 1u);
  const igd::Connection expected{.service_type = "urn:schemas-upnp-org:service:WANIPConnection:2",
                                 .version = 2,
                                 .host = box,
                                 .port = 5000,
                                 .interface = 2,
                                 .target = "/ctl/IPConn",
                                 .service_id = "urn:upnp-org:serviceId:WANIPConn1",
                                 .udn = "uuid:00bb5bc6-0000-0000-0000-000000000003"};
  EXPECT_EQ(read->connections[0], expected);
  ASSERT_TRUE(read->firewall6);
  EXPECT_EQ(read->firewall6->target, "/ctl/IP6FCtl");
  ASSERT_TRUE(read->forwarding);
  EXPECT_EQ(read->forwarding->target, "/ctl/L3F");
}

TEST(IgdDescription, OfAFritzbox) {
  const auto read = igd::read_description(vector_of("fritzbox"), {box, 49000, "/igddesc.xml"}, 2);
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ(read->friendly_name, "FRITZ!Box 7590 & Fon");
  EXPECT_EQ(read->igd_version, 1u);
  ASSERT_EQ(read->connections.size(), 1u);
  EXPECT_EQ(read->connections[0].target, "/igdupnp/control/WANIPConn1");
  EXPECT_EQ(read->connections[0].version, 1u);
  EXPECT_EQ(read->connections[0].port, 49000u);
  ASSERT_TRUE(read->firewall6);
  EXPECT_EQ(read->firewall6->target, "/igd2upnp/control/WANIPv6Firewall1");
  EXPECT_FALSE(read->forwarding);
}

TEST(IgdDescription, OfAnOldRouterWhoseBaseIsWrong) {  // UDA-1.3-19: no control URL on another host
  const auto read = igd::read_description(vector_of("old_adsl"), location, 2);
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ(read->friendly_name, "Modem & Router");
  ASSERT_EQ(read->connections.size(), 2u);
  EXPECT_EQ(read->connections[0].target, "/dyndev/control/ip?n=1");
  EXPECT_EQ(read->connections[0].host, box);
  EXPECT_EQ(read->connections[0].port, 5431u);
  EXPECT_FALSE(read->connections[0].ppp);
  EXPECT_EQ(read->connections[1].target, "/control/ppp");
  EXPECT_TRUE(read->connections[1].ppp);
  ASSERT_TRUE(read->forwarding);
  EXPECT_EQ(read->forwarding->target, "/control/L3");
}

TEST(IgdDescription, WhatIsUnknownIsIgnored) {  // UDA-2-15
  const auto read = igd::read_description(vector_of("odd"), location, 2);
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ(read->friendly_name, "A <box>");
  EXPECT_EQ(read->igd_version, 2u);
  ASSERT_EQ(read->connections.size(), 1u);
  EXPECT_EQ(read->connections[0].target, "/c?a=b&c=d");
  EXPECT_EQ(read->connections[0].version, 3u);
}

TEST(IgdDescription, WhatIsNone) {
  const auto error = [](std::string body) {
    return igd::read_description(std::move(body), location, 2).error();
  };
  EXPECT_EQ(error(""), igd::DescriptionErrc::no_xml);
  EXPECT_EQ(error("<html><body>please log in</body></html>"), igd::DescriptionErrc::no_xml);
  EXPECT_EQ(error("<root><device><friendlyName>A printer</friendlyName></device></root>"),
            igd::DescriptionErrc::no_gateway);
  EXPECT_EQ(error("<!DOCTYPE root><root><device/></root>"), igd::DescriptionErrc::no_xml);
  EXPECT_EQ(error(std::string(igd::max_description + 1, ' ') + "<root/>"), igd::DescriptionErrc::no_xml);
  const auto whole = vector_of("miniupnpd");
  for (std::size_t size = 0; size + 10 < whole.size(); size += 37)
    EXPECT_EQ(error(whole.substr(0, size)), igd::DescriptionErrc::no_xml) << size;
}

TEST(IgdDescription, KeepsItsLimits) {
  std::string body = "<root><device><friendlyName>";
  for (int i = 0; i < 200; ++i) body += "ü";
  body += "</friendlyName><serviceList>";
  for (int i = 0; i < 40; ++i)
    body +=
        "<service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:1</serviceType><controlURL>/" +
        std::to_string(i) + "</controlURL></service>";
  body += "</serviceList></device></root>";
  body.push_back('\0');  // some count one into the length
  const auto read = igd::read_description(body, location, 2);
  ASSERT_TRUE(read) << read.error().message();
  EXPECT_EQ(read->friendly_name.size(), 256u);
  EXPECT_EQ(read->connections.size(), igd::max_connections);
}

class ControlPointTest : public ClientTest<ControlPoint> {
 protected:
  void start() { client = std::make_unique<ControlPoint>(location, 2, 42, now()); }
  void describe(const std::string& name) {
    const auto what = asked();
    EXPECT_EQ(what.method, "GET");
    EXPECT_EQ(what.target, "/dyndev/root.xml");
    http::Reply reply{.status = 200, .body = vector_of(name), .local = Address::v4(0xc0a8010a)};
    give(what, reply);
  }
  Asked expect_get(const Result<http::Reply>& reply) {
    auto what = asked();
    EXPECT_EQ(what.method, "GET");
    give(what, reply);
    return what;
  }
};

TEST_F(ControlPointTest, LearnsAGatewayWithOneConnection) {
  start();
  EXPECT_EQ(client->state(), State::learning);
  EXPECT_FALSE(client->connection());
  describe("miniupnpd");
  EXPECT_EQ(client->state(), State::learning);
  EXPECT_FALSE(client->connection());
  expect_success("GetExternalIPAddress", {{"NewExternalIPAddress", "203.0.113.7"}});
  EXPECT_EQ(client->state(), State::ready);
  ASSERT_TRUE(client->connection());
  EXPECT_EQ(client->connection()->target, "/ctl/IPConn");
  EXPECT_EQ(client->external_address(), Address::v4(0xcb007107));
  EXPECT_EQ(client->local_address(), Address::v4(0xc0a8010a));
  expect_quiet();
  EXPECT_FALSE(client->next_deadline());
}

TEST_F(ControlPointTest, OfSeveralConnectionsTheDefaultOneIsLookedAtFirst) {  // L3F-04
  start();
  describe("old_adsl");
  expect_success("GetDefaultConnectionService",
                 {{"NewDefaultConnectionService",
                   "uuid:0014-bf09-0003:WANConnectionDevice:1,urn:upnp-org:serviceId:WANPPPConn1"}});
  const auto status = expect_success("GetStatusInfo", {{"NewConnectionStatus", "Connected"}});
  EXPECT_EQ(status.target, "/control/ppp");
  expect_success("GetExternalIPAddress", {{"NewExternalIPAddress", "203.0.113.7"}});
  ASSERT_TRUE(client->connection());
  EXPECT_TRUE(client->connection()->ppp);
}

TEST_F(ControlPointTest, TheConnectedOneIsTakenWhateverIsTheDefault) {
  start();
  describe("old_adsl");
  expect_error("GetDefaultConnectionService", 401);
  EXPECT_EQ(expect_success("GetStatusInfo", {{"NewConnectionStatus", "Disconnected"}}).target,
            "/dyndev/control/ip?n=1");
  expect_success("GetStatusInfo", {{"NewConnectionStatus", "Connected"}});
  EXPECT_EQ(expect_error("GetExternalIPAddress", 501).target, "/control/ppp");
  EXPECT_EQ(client->state(), State::ready);
  EXPECT_FALSE(client->external_address());
  EXPECT_TRUE(client->address_asked());
}

TEST_F(ControlPointTest, WithNoneConnectedTheDefaultOneIsTaken) {
  start();
  describe("old_adsl");
  expect_success("GetDefaultConnectionService",
                 {{"NewDefaultConnectionService",
                   "uuid:0014-bf09-0003:WANConnectionDevice:1,urn:upnp-org:serviceId:WANPPPConn1"}});
  expect_success("GetStatusInfo", {{"NewConnectionStatus", "Connecting"}});
  expect_error("GetStatusInfo", 501);
  EXPECT_EQ(expect_success("GetExternalIPAddress", {{"NewExternalIPAddress", ""}}).target, "/control/ppp");
  EXPECT_EQ(client->state(), State::ready);
  EXPECT_FALSE(client->external_address());
}

TEST_F(ControlPointTest, TheAddressIsAskedAgainOnDemand) {
  start();
  client->refresh_address(now());
  describe("fritzbox");
  for (const auto* const none : {"0.0.0.0", "", "unknown", "::1"}) {
    expect_success("GetExternalIPAddress", {{"NewExternalIPAddress", none}});
    EXPECT_FALSE(client->external_address()) << none;
    client->refresh_address(now());
  }
  const auto what = asked();
  client->refresh_address(now());
  expect_quiet();
  give(what, answer_of("GetExternalIPAddress", {{"NewExternalIPAddress", " 198.51.100.4 "}}));
  EXPECT_EQ(client->external_address(), Address::v4(0xc6336404));
  client->refresh_address(now());
  expect("GetExternalIPAddress", silence);
  EXPECT_EQ(client->state(), State::ready);
  EXPECT_EQ(client->external_address(), Address::v4(0xc6336404)) << "silence is no other address";
  wait();
  expect_success("GetExternalIPAddress", {{"NewExternalIPAddress", "198.51.100.5"}});
  EXPECT_EQ(client->external_address(), Address::v4(0xc6336405));
}

TEST_F(ControlPointTest, SilenceIsAFailureAfterThreeTriesAndNotForEver) {
  start();
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(client->state(), State::learning);
    expect_get(silence);
    if (i < 2) wait();
  }
  EXPECT_EQ(client->state(), State::failed);
  EXPECT_EQ(client->failure(), Failure::no_answer);
  EXPECT_NE(client->words(), "");
  std::chrono::nanoseconds pause{};
  for (int i = 0; i < 10; ++i) {
    const auto before = now();
    wait();
    pause = now() - before;
    expect_get(silence);
  }
  EXPECT_GE(pause, 300s);
  EXPECT_LE(pause, 375s);
  wait();
  describe("miniupnpd");
  expect_success("GetExternalIPAddress");
  EXPECT_EQ(client->state(), State::ready);
}

TEST_F(ControlPointTest, WhatIsNoGatewayIsToldAtOnce) {
  const std::pair<http::Reply, Failure> rows[] = {
      {{.status = 404}, Failure::unsupported},
      {{.status = 401}, Failure::not_authorized},
      {{.status = 302}, Failure::nonsense},
      {{.status = 200, .body = "nothing"}, Failure::nonsense},
      {{.status = 200, .body = "<root><device/></root>"}, Failure::unsupported}};
  for (const auto& [reply, failure] : rows) {
    start();
    expect_get(reply);
    EXPECT_EQ(client->state(), State::failed);
    EXPECT_EQ(client->failure(), failure);
    expect_quiet();
    const auto before = now();
    wait();
    EXPECT_GE(now() - before, 30s);
    describe("miniupnpd");
    EXPECT_EQ(asked().action, "GetExternalIPAddress");
  }
}

}  // namespace
}  // namespace sallyport::test
