// Both sides of UPnP in one test: the clients ask our own gateway, as values.
#include <deque>

#include "protocols/upnp/igd/control_point.hpp"
#include "protocols/upnp/igd/pinhole_client.hpp"
#include "protocols/upnp/igd/port_mapping_client.hpp"
#include "tests/protocols/upnp/igd/igd_fixture.hpp"

namespace sallyport::test {
namespace {

using Kind = wire::MappingEvent::Kind;

const auto console6 = address("2001:db8:1::10");

class OwnGatewayTest : public IgdTest {
 protected:
  void SetUp() override {
    network.lan[0].addresses.push_back(address("2001:db8:1::1"));
    network.lan[0].prefixes.push_back(*Prefix::parse("2001:db8:1::/64"));
    boot_igd();
    learn();
  }
  void learn() {
    point = std::make_unique<igd::ControlPoint>(http::Url{gateway, 5000, "/rootDesc.xml"}, 2, 1, now());
    carry(*point);
    ASSERT_EQ(point->state(), igd::ControlPoint::State::ready) << point->words();
  }

  /// What it asks goes to the gateway until it asks no more.
  void carry(http::Asker& asker, const Address& from = console) {
    for (int i = 0; i < 50; ++i) {
      auto asked = asker.poll_ask();
      if (!asked) return;
      ASSERT_EQ(asked->ask.host, gateway);
      http::Request request{.method = asked->ask.method, .target = asked->ask.target};
      request.fields = asked->ask.fields;
      request.fields.add("HOST", http::host_field(asked->ask.host, asked->ask.port));
      request.body = asked->ask.body;
      request.peer = from;
      request.peer_port = 40000;
      request.local = from.is_v4() ? gateway : address("2001:db8:1::1");
      request.interface = 2;
      if (lose > 0) {
        --lose;
        asker.handle_reply(asked->id, boost::system::errc::make_error_code(boost::system::errc::timed_out),
                           now());
        continue;
      }
      const auto reply = send(std::move(request));
      for (int turn = 0; turn < 3 && !reply->given; ++turn) {
        commit();
        run_slices();
      }
      ASSERT_TRUE(reply->given) << asked->ask.body;
      server->settle(now());
      http::Reply heard{.status = reply->status, .fields = reply->fields, .body = reply->body, .local = from};
      asker.handle_reply(asked->id, heard, now());
    }
    FAIL() << "it asks without end";
  }
  template <class Client>
  void live(Client& client, std::chrono::nanoseconds time, const Address& from = console) {
    const auto end = now() + time;
    while (now() < end) {
      const auto next = std::min(client.next_deadline().value_or(end), end);
      pass(next > now() ? next - now() : std::chrono::nanoseconds{});
      run_slices();
      client.handle_timeout(now());
      carry(client, from);
      for (auto event = client.poll_event(); event; event = client.poll_event()) events.push_back(*event);
    }
  }
  std::string story() {
    static constexpr std::string_view names[] = {"granted", "renewed", "changed", "ended", "refused"};
    std::string text;
    for (const auto& event : events) text += std::string{names[static_cast<std::size_t>(event.kind)]} + ' ';
    events.clear();
    return text;
  }
  std::unique_ptr<igd::PortMappingClient> keep(wire::MappingWish wish, unsigned version = 2,
                                               const Address& from = console) {
    auto connection = *point->connection();
    if (version == 1) {
      connection.version = 1;
      connection.service_type.back() = '1';
    }
    auto client = std::make_unique<igd::PortMappingClient>(connection, std::move(wish), from, 7, now());
    client->set_external_address(point->external_address().value_or(Address{}));
    carry(*client, from);
    for (auto event = client->poll_event(); event; event = client->poll_event()) events.push_back(*event);
    return client;
  }
  static wire::MappingWish wish(std::uint32_t number = 6000) {
    wire::MappingWish wished{.internal_port = port(number)};
    wished.lifetime_s = 3600;
    wished.description = "a <game> & more";
    return wished;
  }

  int lose = 0;  ///< asks that get no answer
  std::unique_ptr<igd::ControlPoint> point;
  std::vector<wire::MappingEvent> events;
};

TEST_F(OwnGatewayTest, IsLearned) {
  EXPECT_EQ(point->description().igd_version, 2u);
  EXPECT_EQ(point->description().friendly_name, "Sallyport");
  ASSERT_TRUE(point->connection());
  EXPECT_EQ(point->connection()->version, 2u);
  EXPECT_TRUE(point->description().firewall6);
  EXPECT_TRUE(point->description().forwarding);
  EXPECT_EQ(point->external_address(), external);
}

TEST_F(OwnGatewayTest, KeepsAMappingForADayAndGivesItBack) {
  for (const unsigned version : {2u, 1u}) {
    const auto client = keep(wish(), version);
    ASSERT_EQ(story(), "granted ") << version;
    EXPECT_TRUE(is_open(6000));
    const auto leases = service->list({}, now());
    ASSERT_EQ(leases.size(), 1u);
    EXPECT_EQ(leases[0].description, "a <game> & more");
    live(*client, 24h);
    EXPECT_TRUE(is_open(6000));
    const auto told = story();
    EXPECT_EQ(told.find("ended"), told.npos) << told;
    EXPECT_GE(events.size() + static_cast<std::size_t>(std::ranges::count(told, ' ')), 40u);
    client->release(now());
    carry(*client);
    EXPECT_TRUE(client->finished());
    EXPECT_FALSE(is_open(6000));
  }
}

TEST_F(OwnGatewayTest, GetsAnotherPortWhenItsOwnIsTaken) {
  const auto other = keep(wish(), 2, camera);
  for (const unsigned version : {2u, 1u}) {
    events.clear();
    const auto client = keep(wish(), version);
    ASSERT_FALSE(events.empty());
    ASSERT_EQ(events[0].kind, Kind::granted);
    EXPECT_NE(events[0].granted.external.port, port(6000));
    EXPECT_TRUE(is_open(events[0].granted.external.port.number()));
    client->release(now());
    carry(*client);
  }
  auto exact = wish();
  exact.exact = true;
  events.clear();
  const auto client = keep(exact);
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].failure, wire::MappingFailure::port_taken);
}

TEST_F(OwnGatewayTest, ARevokedMappingIsToldAndABlockedOneIsRefused) {
  const auto client = keep(wish());
  ASSERT_EQ(story(), "granted ");
  revoke({service->list({}, now()).at(0).number}, lease::LeaseService::BlockFor{24h});
  commit();
  live(*client, 1h);
  ASSERT_GE(events.size(), 2u);
  EXPECT_EQ(events[0].kind, Kind::ended);
  EXPECT_TRUE(events[0].told);
  EXPECT_EQ(events[1].kind, Kind::refused);
  EXPECT_EQ(events[1].failure, wire::MappingFailure::not_authorized);
}

TEST_F(OwnGatewayTest, ALossOfAnswersIsRiddenOut) {
  lose = 3;
  const auto client = keep(wish());
  live(*client, 1min);
  EXPECT_EQ(story(), "refused granted ");
  for (int i = 0; i < 6; ++i) {
    lose = 3;
    live(*client, 1h);
  }
  const auto told = story();
  EXPECT_EQ(told.find("ended"), told.npos) << told;
  EXPECT_TRUE(is_open(6000));
  lose = 2;
  client->release(now());
  carry(*client);
  while (!client->finished()) {
    pass(*client->next_deadline() - now());
    client->handle_timeout(now());
    carry(*client);
  }
  EXPECT_FALSE(is_open(6000));
}

TEST_F(OwnGatewayTest, AGatewayThatForgotGetsTheSameAgain) {
  auto client = keep(wish());
  ASSERT_EQ(story(), "granted ");
  server.reset();
  disk = {};
  restart();
  make_server();
  EXPECT_FALSE(is_open(6000));
  client->refresh(now());
  carry(*client);
  const auto event = client->poll_event();
  ASSERT_TRUE(event);
  EXPECT_EQ(event->kind, Kind::renewed);
  EXPECT_TRUE(is_open(6000));
}

TEST_F(OwnGatewayTest, ARemoteHostIsAllThatMayComeIn) {
  auto wished = wish();
  wished.remotes = {{*Prefix::parse("198.51.100.9"), std::nullopt}};
  const auto client = keep(wished);
  ASSERT_EQ(story(), "granted ");
  const auto leases = service->list({}, now());
  ASSERT_EQ(leases.size(), 1u);
  ASSERT_EQ(leases[0].remotes.size(), 1u);
  EXPECT_EQ(leases[0].remotes[0].prefix, *Prefix::parse("198.51.100.9"));
  live(*client, 6h);
  EXPECT_EQ(story().find("ended"), std::string::npos);
  client->release(now());
  carry(*client);
  EXPECT_EQ(listed(), 0u);
}

TEST_F(OwnGatewayTest, APinholeIsKeptRenewedAndGivenBack) {  // 6FC-03, 6FC-08, 6FC-09
  igd::PinholeClient client{*point->description().firewall6, wish(), console6, 7, now()};
  carry(client, console6);
  for (auto event = client.poll_event(); event; event = client.poll_event()) events.push_back(*event);
  ASSERT_EQ(story(), "granted ");
  EXPECT_EQ(service->list({}, now()).size(), 1u);
  live(client, 12h, console6);
  const auto told = story();
  EXPECT_GE(std::ranges::count(told, ' '), 20);
  EXPECT_EQ(told.find("ended"), told.npos) << told;
  const auto leases = service->list({}, now());
  ASSERT_EQ(leases.size(), 1u);
  // what its administrator takes back is told, and asked for once more
  revoke({leases[0].number});
  commit();
  live(client, 1h, console6);
  EXPECT_TRUE(story().starts_with("ended granted "));
  EXPECT_EQ(listed(), 1u);
  client.release(now());
  carry(client, console6);
  EXPECT_TRUE(client.finished());
  EXPECT_EQ(listed(), 0u);
}

TEST_F(OwnGatewayTest, PinholesMayBeForbidden) {
  const auto refusal = [&] {
    igd::PinholeClient client{*point->description().firewall6, wish(), console6, 7, now()};
    carry(client, console6);
    const auto event = client.poll_event();
    EXPECT_TRUE(event && event->kind == Kind::refused);
    return event ? event->code : 0;
  };
  policy.ipv6 = false;
  service->set_policy(policy, now());
  EXPECT_EQ(refusal(), 702u);
  policy.ipv6 = true;
  policy.rules = {{.device = {}, .external = {}, .transport = {}, .allow = false, .where = {}}};
  service->set_policy(policy, now());
  EXPECT_EQ(refusal(), 703u);
}

}  // namespace
}  // namespace sallyport::test
