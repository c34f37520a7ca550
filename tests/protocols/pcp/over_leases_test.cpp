// PCP and NAT-PMP on the real lease service, with simulated time: what a client on the wire is told.
#include "protocols/natpmp/server.hpp"
#include "protocols/pcp/server.hpp"
#include "tests/src/lease/service_fixture.hpp"

namespace sallyport::pcp {
namespace {

using namespace std::chrono_literals;
using test::camera;
using test::console;
using test::external;
using test::gateway;
using test::nonce;
using test::port;
using Bytes = std::vector<std::byte>;

class PortMappingOverLeases : public test::ServiceTest {
 protected:
  PortMappingOverLeases() { policy.third_party = {{console, 128}}; }
  void start() {
    boot();
    pcp_server.emplace(*service, ServerOptions{.third_party_clients = policy.third_party});
    natpmp_server.emplace(*service);
    const wire::ServedAddress served[] = {{2, gateway}};
    pcp_server->set_served_addresses(served, now());
    natpmp_server->set_served_addresses(served, now());
    run_for(10min);
  }
  void TearDown() override {  // before the service that they listen to
    pcp_server.reset();
    natpmp_server.reset();
  }

  static MapRequest map(const Address& client, std::uint16_t internal, std::uint16_t suggested = 0,
                        std::uint32_t lifetime_s = 3600, std::uint8_t nonce_octet = 1) {
    MapRequest request{.lifetime_s = lifetime_s, .client = client, .map = {}, .options = {}};
    request.map = {nonce(nonce_octet), 6, Port::from(internal), Port::from(suggested), Address::v4(0)};
    return request;
  }
  static MapRequest insisting(MapRequest request) {
    request.options.prefer_failure = true;
    return request;
  }
  MapResponse ask(const MapRequest& request) {
    pcp_server->handle_datagram(encode_map_request(request), {request.client, 40000, gateway, 2}, now());
    commit();
    const auto out = pcp_server->poll_transmit();
    EXPECT_FALSE(pcp_server->poll_transmit());
    return decode_map_response(out ? out->bytes : Bytes{}).value();
  }
  static ErrorAnswer result(const MapResponse& response) {
    return {response.header.result, response.header.lifetime_s};
  }
  ErrorAnswer result(const MapRequest& request) { return result(ask(request)); }

  struct PeerRequest {
    Address client;
    std::uint32_t lifetime_s = 3600;
    PeerBody body;
    Bytes options;
  };
  /// UDP from `internal` to 198.51.100.9:443.
  static PeerRequest peer(const Address& client, std::uint16_t internal, std::uint32_t lifetime_s = 3600,
                          std::uint8_t nonce_octet = 1) {
    return {client, lifetime_s,
            {{nonce(nonce_octet), 17, Port::from(internal), {}, Address::v4(0)}, port(443), server_out_there}, {}};
  }
  /// The answer, of which header and body are read.
  std::pair<ErrorAnswer, PeerBody> ask(const PeerRequest& request) {
    Bytes out;
    append_request_header(out, {static_cast<std::uint8_t>(Opcode::peer), request.lifetime_s, request.client});
    append_peer_body(out, request.body);
    out.insert(out.end(), request.options.begin(), request.options.end());
    pcp_server->handle_datagram(out, {request.client, 40000, gateway, 2}, now());
    commit();
    const auto answer = pcp_server->poll_transmit();
    EXPECT_FALSE(pcp_server->poll_transmit());
    if (!answer) return {};
    const auto header = decode_response_header(answer->bytes).value();
    EXPECT_EQ(header.opcode, 2);
    return {{header.result, header.lifetime_s},
            decode_peer_body(std::span{answer->bytes}.subspan(header_size)).value()};
  }
  ErrorAnswer result(const PeerRequest& request) { return ask(request).first; }
  /// Who may come in at the mapping of the console's port; empty: everybody.
  std::vector<RemoteFilter> admitted(std::uint16_t internal) const {
    for (const auto& [id, held] : plane.mappings)
      if (held.spec.internal == InternalEndpoint{console, port(internal)}) return held.spec.remotes;
    ADD_FAILURE() << "no mapping";
    return {};
  }
  static inline const Address server_out_there = *Address::parse("198.51.100.9");

  natpmp::MapResponse ask_natpmp(const Address& client, const natpmp::MapRequest& request) {
    natpmp_server->handle_datagram(natpmp::encode(request), {client, 40001, gateway, 2}, now());
    commit();
    const auto out = natpmp_server->poll_transmit();
    return std::get<natpmp::MapResponse>(natpmp::decode_response(out ? out->bytes : Bytes{}).value());
  }

  /// Time passes; what the servers send unasked.
  std::pair<std::vector<wire::Outgoing>, std::vector<wire::Outgoing>> run_for(std::chrono::nanoseconds time) {
    std::pair<std::vector<wire::Outgoing>, std::vector<wire::Outgoing>> sent;
    const auto end = now() + time;
    for (;;) {
      auto due = end;
      for (const auto deadline :
           {pcp_server->next_deadline(), natpmp_server->next_deadline(), service->next_deadline()})
        if (deadline) due = std::min(due, *deadline);
      if (due > now()) clock.advance(due - now());
      service->handle_timeout(now());
      commit();
      pcp_server->handle_timeout(now());
      natpmp_server->handle_timeout(now());
      while (auto out = pcp_server->poll_transmit()) sent.first.push_back(std::move(*out));
      while (auto out = natpmp_server->poll_transmit()) sent.second.push_back(std::move(*out));
      if (due >= end) return sent;
    }
  }

  std::optional<Server> pcp_server;
  std::optional<natpmp::Server> natpmp_server;
};

constexpr ErrorAnswer hour{ResultCode::success, 3600};
constexpr ErrorAnswer not_authorized{ResultCode::not_authorized, 1800};

// PCP-11.3-08, -11, -12, PCP-15-03, POL-OWN-02
TEST_F(PortMappingOverLeases, TwoConsolesWantTheSamePortAndTheSecondGetsAnother) {
  start();
  const auto first = ask(map(console, 3074, 3074));
  EXPECT_EQ(result(first), hour);
  EXPECT_EQ(first.map.external_port, Port::from(3074));
  EXPECT_EQ(first.map.external_address, external);
  EXPECT_EQ(ask(map(console, 3074, 3074)).map, first.map);  // a retransmission
  const auto second = ask(map(camera, 3074, 3074));
  EXPECT_EQ(result(second), hour);
  ASSERT_TRUE(second.map.external_port);
  EXPECT_NE(second.map.external_port, Port::from(3074));
  EXPECT_GE(second.map.external_port->number(), 1024);
  EXPECT_EQ(listed(), 2U);
  EXPECT_EQ(result(map(camera, 9, 0, 1)), (ErrorAnswer{ResultCode::success, 120}));
  EXPECT_EQ(result(map(camera, 10, 0, UINT32_MAX)), (ErrorAnswer{ResultCode::success, 86400}));
}

// PCP-11.3-06, -07, PCP-15.1-10, PCP-15-07, PCP-18-01, PCP-X-04, PCP-X-07
TEST_F(PortMappingOverLeases, AForeignNonceMeetsTheRemainingLifetimeAndChangesNothing) {
  start();
  EXPECT_EQ(result(map(console, 8080, 8080)), hour);
  run_for(600s);
  for (const std::uint32_t lifetime_s : {7200, 0}) {
    const auto answer = ask(map(console, 8080, 9090, lifetime_s, 2));
    EXPECT_EQ(result(answer), (ErrorAnswer{ResultCode::not_authorized, 3000}));
    EXPECT_EQ(answer.map.external_port, Port::from(9090));  // as suggested
  }
  const auto renewed = ask(map(console, 8080, 9090, 240));
  EXPECT_EQ(result(renewed), (ErrorAnswer{ResultCode::success, 240}));
  EXPECT_EQ(renewed.map.external_port, Port::from(8080));
  run_for(241s);
  EXPECT_FALSE(is_open(8080));
  EXPECT_EQ(result(map(console, 8080, 8080, 3600, 2)), hour);
}

// PCP-13.2-02, -03, -04, -07, PCP-11.3-20
TEST_F(PortMappingOverLeases, WhoInsistsGetsJustThatPortOrHearsForHowLongNot) {
  start();
  EXPECT_EQ(result(map(camera, 554, 5540)), hour);
  run_for(100s);
  EXPECT_EQ(result(insisting(map(console, 80, 5540))),
            (ErrorAnswer{ResultCode::cannot_provide_external, 3500}));
  EXPECT_EQ(result(insisting(map(console, 80, 80))),
            (ErrorAnswer{ResultCode::cannot_provide_external, 1800}));
  EXPECT_EQ(result(insisting(map(console, 80, 8080))), hour);
  const auto moved = ask(insisting(map(console, 80, 8081)));
  EXPECT_EQ(moved.header.result, ResultCode::cannot_provide_external);
  EXPECT_TRUE(is_open(8080));
  EXPECT_FALSE(is_open(8081));
  auto elsewhere = insisting(map(console, 81, 8082));
  elsewhere.map.external_address = *Address::parse("198.51.100.1");
  EXPECT_EQ(result(elsewhere), (ErrorAnswer{ResultCode::cannot_provide_external, 1800}));
}

// PCP-15-02, PCP-15.1-01, -07, -08
TEST_F(PortMappingOverLeases, ADeletionClosesAndDeletingAgainSucceeds) {
  start();
  EXPECT_EQ(result(map(console, 8080, 8080)), hour);
  ASSERT_TRUE(is_open(8080));
  EXPECT_EQ(result(map(console, 8080, 0, 0)), (ErrorAnswer{ResultCode::success, 0}));
  EXPECT_FALSE(is_open(8080));
  EXPECT_EQ(result(map(console, 8080, 0, 0)), (ErrorAnswer{ResultCode::success, 0}));
  EXPECT_EQ(result(map(console, 8080, 8080, 120)), (ErrorAnswer{ResultCode::success, 120}));
  run_for(119s);
  EXPECT_TRUE(is_open(8080));
  run_for(2s);
  EXPECT_FALSE(is_open(8080));
}

// PCP-15.1-09, PCP-11.3-09, NPM-3.3-12, NPM-3.4-08
TEST_F(PortMappingOverLeases, AStaticMappingIsToldAndNotDeleted) {
  policy.statics = {{Transport::tcp, port(443), {camera, port(8443)}, "web", "sallyport.toml:1"}};
  start();
  const auto answer = ask(map(camera, 8443, 9999));
  EXPECT_EQ(result(answer), hour);
  EXPECT_EQ(answer.map.external_port, Port::from(443));
  EXPECT_EQ(result(map(camera, 8443, 0, 0)), not_authorized);
  const auto mapped = ask_natpmp(camera, {Transport::tcp, 8443, 9999, 3600});
  EXPECT_EQ(mapped.result, natpmp::ResultCode::success);
  EXPECT_EQ(mapped.external_port, 443);
  EXPECT_EQ(ask_natpmp(camera, {Transport::tcp, 8443, 0, 0}).result, natpmp::ResultCode::not_authorized);
  EXPECT_EQ(ask_natpmp(camera, {Transport::tcp, 0, 0, 0}).result, natpmp::ResultCode::not_authorized);
  EXPECT_TRUE(is_open(443));
}

// PCP-15.1-09
TEST_F(PortMappingOverLeases, AnImplicitMappingIsNotDeleted) {
  start();
  plane.implicit[{Transport::tcp, console, 8080}] = 50000;
  EXPECT_EQ(result(map(console, 8080, 0, 0)), not_authorized);
  EXPECT_EQ(result(map(camera, 8080, 0, 0)), (ErrorAnswer{ResultCode::success, 0}));
  EXPECT_EQ(ask_natpmp(console, {Transport::tcp, 8080, 0, 0}).result, natpmp::ResultCode::success);
  EXPECT_TRUE(plane.implicit.contains({Transport::tcp, console, 8080}));
}

// NPM-3.3-25, NPM-3.4-12, -13, -15, NPM-1.1-06, PCP-15.1-09, POL-OWN-04, -05
TEST_F(PortMappingOverLeases, ThePortOfOneHostIsSharedByItsProtocolsAndEndedByEachForItself) {
  start();
  EXPECT_EQ(result(map(console, 8080, 8080)), hour);
  const auto shared = ask_natpmp(console, {Transport::tcp, 8080, 7000, 60});
  EXPECT_EQ(shared.result, natpmp::ResultCode::success);
  EXPECT_EQ(shared.external_port, 8080);
  EXPECT_EQ(shared.lifetime_s, 60U);
  run_for(61s);
  EXPECT_TRUE(is_open(8080));  // PCP's lifetime was not shortened
  EXPECT_EQ(ask_natpmp(console, {Transport::tcp, 8080, 0, 0}).result, natpmp::ResultCode::not_authorized);
  EXPECT_EQ(ask_natpmp(console, {Transport::tcp, 9000, 9000, 3600}).external_port, 9000);
  EXPECT_EQ(ask_natpmp(camera, {Transport::tcp, 9000, 0, 3600}).result, natpmp::ResultCode::success);
  EXPECT_EQ(result(map(console, 9000, 0, 0)), not_authorized);
  EXPECT_EQ(ask_natpmp(console, {Transport::tcp, 0, 0, 0}).result, natpmp::ResultCode::success);
  EXPECT_TRUE(is_open(8080));
  EXPECT_FALSE(is_open(9000));
  EXPECT_EQ(listed(), 2U);  // PCP's, and the camera's
}

// PCP-11.3-16, NPM-5-03, POL-QTA-01
TEST_F(PortMappingOverLeases, OverTheQuotaNothingNewButRenewals) {
  policy.leases_per_device = 2;
  start();
  EXPECT_EQ(result(map(console, 1000)), hour);
  EXPECT_EQ(result(map(console, 1001)), hour);
  EXPECT_EQ(result(map(console, 1002)), (ErrorAnswer{ResultCode::user_ex_quota, 30}));
  EXPECT_EQ(ask_natpmp(console, {Transport::tcp, 1003, 0, 60}).result, natpmp::ResultCode::out_of_resources);
  EXPECT_EQ(result(map(console, 1001)), hour);
  EXPECT_EQ(result(map(camera, 1000)), hour);
}

// PCP-11.3-18, NPM-3.3-06
TEST_F(PortMappingOverLeases, WithoutAFreePortNobodyIsEvicted) {
  policy.external_ports = {2000, 2001};
  start();
  EXPECT_EQ(result(map(console, 1000)), hour);
  EXPECT_EQ(result(map(console, 1001)), hour);
  EXPECT_EQ(result(map(camera, 1000)), (ErrorAnswer{ResultCode::no_resources, 30}));
  EXPECT_EQ(ask_natpmp(camera, {Transport::tcp, 1000, 0, 60}).result, natpmp::ResultCode::out_of_resources);
  EXPECT_EQ(listed(), 2U);
}

// PCP-11.3-17, NPM-3.2-06
TEST_F(PortMappingOverLeases, WithoutAnExternalAddressNothingIsMapped) {
  network.external = {};
  start();
  EXPECT_EQ(result(map(console, 1000)), (ErrorAnswer{ResultCode::network_failure, 30}));
  EXPECT_EQ(ask_natpmp(console, {Transport::tcp, 1000, 0, 60}).result, natpmp::ResultCode::network_failure);
}

// PCP-13.1-06, -08, PCP-15.1-11, POL-TGT-02
TEST_F(PortMappingOverLeases, AThirdPartyIsMappedForWhenItIsOnTheLan) {
  start();
  auto request = map(console, 22, 2222);
  request.options.third_party = camera;
  EXPECT_EQ(result(request), hour);
  request.lifetime_s = 0;
  EXPECT_EQ(result(request), (ErrorAnswer{ResultCode::success, 0}));
  EXPECT_FALSE(is_open(2222));
  for (const auto* target :
       {"198.51.100.9", "192.168.1.1", "192.168.1.255", "127.0.0.1", "224.0.0.1", "0.0.0.0", "2001:db8::1"}) {
    request.lifetime_s = 3600;
    request.options.third_party = *Address::parse(target);
    EXPECT_EQ(result(request), not_authorized) << target;
  }
}

// PCP-13.3-05, -06, -08, -10
TEST_F(PortMappingOverLeases, FiltersAddUpUntilCleared) {
  start();
  const auto filter = [](int host) {
    return Filter{128, std::nullopt, Address::v4(0xc6336400U + static_cast<unsigned>(host))};
  };
  const auto in_force = [&] { return service->list({}, now()).at(0).remotes.size(); };
  auto request = map(console, 5000, 5000);
  for (int host = 1; host <= 8; ++host) request.options.filters.push_back(filter(host));
  EXPECT_EQ(result(request), hour);
  EXPECT_EQ(in_force(), 8U);
  request.options.filters = {filter(9)};
  EXPECT_EQ(result(request), hour);
  EXPECT_EQ(in_force(), 9U);
  request.options.filters.clear();
  for (int host = 10; host < 50; ++host) request.options.filters.push_back(filter(host));
  EXPECT_EQ(result(request), (ErrorAnswer{ResultCode::excessive_remote_peers, 1800}));
  EXPECT_EQ(in_force(), 9U);
  request.options.filters = {Filter{0, std::nullopt, Address{}}, filter(1)};
  EXPECT_EQ(result(request), hour);
  EXPECT_EQ(in_force(), 1U);
  request.options.filters = {Filter{0, std::nullopt, Address{}}};
  EXPECT_EQ(result(request), hour);
  EXPECT_EQ(in_force(), 0U);
}

// DESC-3-02, -04, -05, -07, POL-TXT-01, -02
TEST_F(PortMappingOverLeases, ADescriptionIsStoredCutCleanedAndReturned) {
  start();
  auto request = map(console, 5000, 5000);
  request.options.description = "caf\xc3\xa9\nbar\x1b";
  EXPECT_EQ(ask(request).options.description, "caf\xc3\xa9 bar ");
  request.options.description.reset();
  EXPECT_EQ(ask(request).options.description, std::nullopt);
  EXPECT_EQ(service->list({}, now()).at(0).description, "caf\xc3\xa9 bar ");
  request.options.description = std::string(254, 'x');
  *request.options.description += "\xc3\xa9";
  EXPECT_EQ(ask(request).options.description, std::string(254, 'x'));
}

// PCP-8.5-01, -03, -05, PCP-11.5-01, PCP-14.1-04, PCP-14.2-01, NPM-3.2.1-01, NPM-3.6-02, -05
TEST_F(PortMappingOverLeases, AnotherExternalAddressIsAnnouncedAndToldToEachPcpClient) {
  start();
  const auto before = ask(map(console, 8080, 8080)).header.epoch_s;
  ask_natpmp(camera, {Transport::tcp, 9000, 9000, 3600});
  run_for(100s);
  EXPECT_EQ(ask(map(console, 8081)).header.epoch_s, before + 100);
  network.external = {*Address::parse("203.0.113.99")};
  network.wan[0].addresses = network.external;
  plane.set_network(network, now());
  service->set_network(network, now());
  const auto [pcp_sent, natpmp_sent] = run_for(10min);
  std::size_t announcements = 0;
  std::map<std::uint16_t, std::size_t> updates;
  for (const auto& out : pcp_sent) {
    if (out.to == *Address::parse("224.0.0.1")) {
      if (announcements++ == 0) {
        EXPECT_EQ(decode_response_header(out.bytes)->epoch_s, 0U);
      }
      continue;
    }
    const auto update = decode_map_response(out.bytes).value();
    EXPECT_EQ(out.to, console);
    EXPECT_EQ(update.map.nonce, nonce(1));
    EXPECT_EQ(update.map.external_address, *Address::parse("203.0.113.99"));
    EXPECT_GT(update.header.lifetime_s, 3000U);
    ++updates[update.map.internal_port->number()];
  }
  EXPECT_EQ(announcements, 10U);
  EXPECT_EQ(updates, (std::map<std::uint16_t, std::size_t>{{8080, 3}, {8081, 3}}));
  ASSERT_EQ(natpmp_sent.size(), 10U);
  EXPECT_EQ(std::get<natpmp::AddressResponse>(natpmp::decode_response(natpmp_sent[0].bytes).value()),
            (natpmp::AddressResponse{natpmp::ResultCode::success, 0, *Address::parse("203.0.113.99")}));
}

// PCP-14.2-03
TEST_F(PortMappingOverLeases, ARevokedMappingIsToldWithLifetime0) {
  start();
  ask(map(console, 8080, 8080));
  const auto id = service->list({}, now()).at(0).number;
  revoke({id});
  commit();
  const auto [sent, none] = run_for(1min);
  ASSERT_EQ(sent.size(), 3U);
  for (const auto& out : sent)
    EXPECT_EQ(result(decode_map_response(out.bytes).value()), (ErrorAnswer{ResultCode::success, 0}));
  EXPECT_TRUE(none.empty());
}

// ---- PEER (RFC 6887, section 12)

// PCP-12.1-06, PCP-12.3-02, -04, -06, PCP-12.1-01
TEST_F(PortMappingOverLeases, APeerKeepsAMappingForThatPeer) {
  start();
  const auto [result, body] = ask(peer(console, 5000, 60));
  EXPECT_EQ(result, (ErrorAnswer{ResultCode::success, 300})) << "no less than an idle UDP mapping has";
  auto expected = peer(console, 5000).body;
  ASSERT_TRUE(body.map.external_port);
  expected.map.external_port = body.map.external_port;
  expected.map.external_address = external;
  EXPECT_EQ(body, expected);
  const auto lease = service->list({}, now()).at(0);
  EXPECT_TRUE(lease.outbound);
  EXPECT_EQ(admitted(5000), (std::vector<RemoteFilter>{{{server_out_there, 128}, {}}}))
      << "address-dependent, as outbound traffic is filtered";
  auto tcp = peer(console, 5001, 60);
  tcp.body.map.protocol = 6;
  EXPECT_EQ(this->result(tcp), (ErrorAnswer{ResultCode::success, 7440}));
  run_for(301s);
  EXPECT_EQ(listed(), 1U);
  EXPECT_EQ(plane.withdrawn.back().second, nat::Ending::drain) << "what flows goes on";
}

// PCP-12.3-06: the filtering in force
TEST_F(PortMappingOverLeases, APeersFilteringIsThatOfOutboundTraffic) {
  policy.outbound_filtering = nat::Filtering::address_and_port;
  start();
  ask(peer(console, 5000));
  EXPECT_EQ(admitted(5000), (std::vector<RemoteFilter>{{{server_out_there, 128}, port(443)}}));
  policy.outbound_filtering = nat::Filtering::endpoint;
  service->set_policy(policy, now());
  ask(peer(console, 5001));
  EXPECT_TRUE(admitted(5001).empty());
}

// PCP-12.1-05, PCP-12.3-05
TEST_F(PortMappingOverLeases, APeerNeverShortens) {
  start();
  ask(peer(console, 5000, 3600));
  run_for(100s);
  EXPECT_EQ(result(peer(console, 5000, 0)), (ErrorAnswer{ResultCode::success, 3500}));
  EXPECT_EQ(result(peer(console, 5000, 400)), (ErrorAnswer{ResultCode::success, 3500}));
  EXPECT_EQ(result(peer(console, 5000, 7200)), (ErrorAnswer{ResultCode::success, 7200}));
  EXPECT_EQ(result(peer(console, 5001, 0)), (ErrorAnswer{ResultCode::success, 300}));
}

// each remote peer is a lease of its own, with its own nonce (PCP-12.3-03: the same 5-tuple)
TEST_F(PortMappingOverLeases, OnePortHasSeveralPeers) {
  start();
  const auto first = ask(peer(console, 5000)).second.map.external_port;
  auto other = peer(console, 5000, 600, 2);
  other.body.remote_address = *Address::parse("198.51.100.77");
  const auto [result, body] = ask(other);
  EXPECT_EQ(result, (ErrorAnswer{ResultCode::success, 600}));
  EXPECT_EQ(body.map.external_port, first);
  EXPECT_EQ(admitted(5000).size(), 2U);
  EXPECT_EQ(listed(), 2U);
  run_for(601s);
  EXPECT_EQ(listed(), 1U);
  EXPECT_EQ(admitted(5000), (std::vector<RemoteFilter>{{{server_out_there, 128}, {}}}));
}

// PCP-12.3-03
TEST_F(PortMappingOverLeases, APeerOfAnotherNonceIsNotAuthorized) {
  start();
  ask(peer(console, 5000, 3600));
  run_for(600s);
  EXPECT_EQ(result(peer(console, 5000, 3600, 2)), (ErrorAnswer{ResultCode::not_authorized, 3000}));
  EXPECT_EQ(result(peer(console, 5000, 3600)), hour);
}

// PCP-12.3-01, PCP-12.3-04: whoever made the mapping, the peer has its port and its time
TEST_F(PortMappingOverLeases, APeerJoinsTheMappingThatIsThere) {
  policy.statics = {{Transport::udp, port(4430), {console, port(443)}, "", ""}};
  start();
  auto explicit_map = map(console, 6000, 6001, 600, 9);
  explicit_map.map.protocol = 17;
  ask(explicit_map);
  auto asked = peer(console, 6000, 86400);
  asked.body.map.external_port = port(7777);  // means nothing where there is a mapping
  const auto [result, body] = ask(asked);
  EXPECT_EQ(result, (ErrorAnswer{ResultCode::success, 86400}));
  EXPECT_EQ(body.map.external_port, port(6001));
  EXPECT_TRUE(admitted(6000).empty()) << "open as it was";
  run_for(601s);
  EXPECT_EQ(admitted(6000), (std::vector<RemoteFilter>{{{server_out_there, 128}, {}}})) << "of the MAP nothing is left";
  EXPECT_EQ(ask(peer(console, 443)).second.map.external_port, port(4430));
  plane.implicit[{Transport::udp, console, 6100}] = 50000;
  asked.body.map.internal_port = port(6100);
  EXPECT_EQ(ask(asked).second.map.external_port, port(50000));
}

// PCP-15.1-09: a MAP does not delete it, whatever its nonce
TEST_F(PortMappingOverLeases, ADeletionByMapLeavesWhatAPeerKeeps) {
  start();
  ask(peer(console, 5000));
  auto deletion = map(console, 5000, 0, 0);
  deletion.map.protocol = 17;
  EXPECT_EQ(result(deletion), not_authorized);
  EXPECT_EQ(listed(), 1U);
}

// PCP-11.3-17 for PEER
TEST_F(PortMappingOverLeases, WithoutAnExternalAddressNoPeerIsKept) {
  start();
  ask(map(console, 5000));
  network.external.clear();
  network.wan[0].addresses.clear();
  plane.set_network(network, now());
  service->set_network(network, now());
  run_for(1min);
  EXPECT_EQ(result(peer(console, 5000)).code, ResultCode::network_failure);
}

// PCP-12.1-07, PCP-12.1-06 (the suggestion comes back)
TEST_F(PortMappingOverLeases, WhatAPeerSuggestsItGetsOrNothing) {
  start();
  ask(map(camera, 554, 5540));
  auto request = peer(console, 5000);
  request.body.map.protocol = 6;
  request.body.map.external_port = port(5540);
  const auto [result, body] = ask(request);
  EXPECT_EQ(result.code, ResultCode::cannot_provide_external);
  EXPECT_EQ(body, request.body);
  request.body.map.external_port.reset();
  request.body.map.external_address = *Address::parse("203.0.113.9");
  EXPECT_EQ(this->result(request).code, ResultCode::cannot_provide_external);
  request.body.map.external_address = external;
  request.body.map.external_port = port(5541);
  EXPECT_EQ(ask(request).second.map.external_port, port(5541));
}

// a MAP opens it for everybody, at the same port, and goes again; the peer's time is its own
TEST_F(PortMappingOverLeases, AMapOpensWhatAPeerKept) {
  start();
  auto both = map(console, 5000, 9999, 3600, 7);
  both.map.protocol = 17;
  const auto kept = ask(peer(console, 5000, 7200)).second.map.external_port;
  const auto answer = ask(both);
  EXPECT_EQ(result(answer), hour);
  EXPECT_EQ(answer.map.external_port, kept);
  EXPECT_TRUE(admitted(5000).empty());
  EXPECT_EQ(listed(), 2U);
  both.lifetime_s = 0;
  EXPECT_EQ(result(both), (ErrorAnswer{ResultCode::success, 0}));
  EXPECT_EQ(admitted(5000).size(), 1U);
  run_for(100s);
  EXPECT_EQ(result(peer(console, 5000, 0)), (ErrorAnswer{ResultCode::success, 7100}));
}

// PCP-14.2-01: told as a PEER; and it is one after kill -9 too
TEST_F(PortMappingOverLeases, APeerIsToldOfAnotherAddressAndOutlivesACrash) {
  start();
  ask(peer(console, 5000, 7200));
  network.external = {*Address::parse("203.0.113.99")};
  network.wan[0].addresses = network.external;
  plane.set_network(network, now());
  service->set_network(network, now());
  std::size_t told = 0;
  for (const auto& out : run_for(1min).first) {
    if (out.to != console) continue;
    const auto header = decode_response_header(out.bytes).value();
    EXPECT_EQ(header.opcode, 2);
    const auto body = decode_peer_body(std::span{out.bytes}.subspan(header_size)).value();
    EXPECT_EQ(body.map.external_address, *Address::parse("203.0.113.99"));
    EXPECT_EQ(body.remote_address, server_out_there);
    EXPECT_EQ(body.remote_port, port(443));
    ++told;
  }
  EXPECT_EQ(told, 3U);
  pcp_server.reset();
  natpmp_server.reset();
  restart();
  ASSERT_EQ(listed(), 1U);
  EXPECT_TRUE(service->list({}, now()).at(0).outbound);
  EXPECT_EQ(admitted(5000), (std::vector<RemoteFilter>{{{server_out_there, 128}, {}}}));
}

// PCP-12.1-02, -03, -04, -08, PCP-12.3-08, PCP-7.3-15
TEST_F(PortMappingOverLeases, WrongPeersAreRefused) {
  start();
  using enum ResultCode;
  const auto refused = [&](auto change) {
    auto request = peer(console, 5000);
    change(request);
    return result(request).code;
  };
  EXPECT_EQ(refused([](auto& r) { r.body.map.protocol = 0; }), malformed_request);
  EXPECT_EQ(refused([](auto& r) { r.body.map.protocol = 132; }), unsupp_protocol);
  EXPECT_EQ(refused([](auto& r) { r.body.map.internal_port.reset(); }), malformed_request);
  EXPECT_EQ(refused([](auto& r) { r.body.remote_port.reset(); }), malformed_request);
  for (const auto* text : {"0.0.0.0", "224.0.0.251", "255.255.255.255", "127.0.0.1", "2001:db8::1", "::"})
    EXPECT_EQ(refused([&](auto& r) { r.body.remote_address = *Address::parse(text); }), malformed_request) << text;
  EXPECT_EQ(refused([](auto& r) { append_prefer_failure(r.options); }), malformed_request);
  EXPECT_EQ(refused([](auto& r) { append_filter(r.options, {128, {}, server_out_there}); }), unsupp_option);
  EXPECT_EQ(listed(), 0U);
  // PEER for another device, where that is allowed; a description is kept
  auto request = peer(console, 5000);
  append_third_party(request.options, camera);
  append_description(request.options, "call");
  EXPECT_EQ(result(request), hour);
  EXPECT_EQ(service->list({}, now()).at(0).internal.address, camera);
  EXPECT_EQ(service->list({}, now()).at(0).description, "call");
}

// NPM-3.3-05, -13, -17, -24, NPM-3.4-01, NPM-X-06
TEST_F(PortMappingOverLeases, NatpmpLifetimesAreAsAskedUpToADay) {
  start();
  const auto one_second = ask_natpmp(console, {Transport::tcp, 9000, 9000, 1});
  EXPECT_EQ(one_second.lifetime_s, 1U);
  EXPECT_EQ(one_second.external_port, 9000);
  EXPECT_EQ(ask_natpmp(console, {Transport::tcp, 9000, 9000, 1}).external_port, 9000);
  run_for(2s);
  EXPECT_FALSE(is_open(9000));
  EXPECT_EQ(ask_natpmp(console, {Transport::tcp, 9000, 9000, UINT32_MAX}).lifetime_s, 86400U);
  run_for(24h - 1s);
  EXPECT_TRUE(is_open(9000));
  run_for(2s);
  EXPECT_FALSE(is_open(9000));
}

// NPM-3.3-04, NPM-X-04
TEST_F(PortMappingOverLeases, NatpmpWithoutASuggestionGetsAPortFrom1024Up) {
  start();
  std::set<std::uint16_t> ports;
  for (std::uint16_t internal = 1; internal <= 50; ++internal) {
    const auto answer = ask_natpmp(console, {Transport::tcp, internal, 0, 3600});
    EXPECT_GE(answer.external_port, 1024);
    ports.insert(answer.external_port);
  }
  EXPECT_EQ(ports.size(), 50U);
}

// --- sets of ports (RFC 7753)

MapRequest of_ports(MapRequest request, std::uint16_t size, bool parity = false) {
  request.options.port_set = PortSet{size, request.map.internal_port->number(), parity};
  return request;
}

// PSET-4-04, -05, -06, -09
TEST_F(PortMappingOverLeases, ASetIsOneMappingToItsClient) {
  start();
  const auto first = ask(of_ports(map(console, 6001, 7000), 4, true));
  EXPECT_EQ(result(first), hour);
  EXPECT_EQ(first.options.port_set, (PortSet{4, 6001, true}));
  ASSERT_TRUE(first.map.external_port);
  EXPECT_EQ(first.map.external_port->number() % 2, 1);
  EXPECT_EQ(plane.mappings.size(), 4U);
  const auto first_external = first.map.external_port->number();
  EXPECT_EQ(ask(of_ports(map(console, 6001, 9000), 4, true)).map, first.map);
  EXPECT_EQ(result(of_ports(map(console, 6001, 0, 3600, 2), 4)),
            (ErrorAnswer{ResultCode::not_authorized, 3600}));
  EXPECT_EQ(result(of_ports(map(console, 6001, 0, 0, 2), 4)),
            (ErrorAnswer{ResultCode::not_authorized, 3600}));
  EXPECT_EQ(result(insisting(of_ports(map(camera, 80, first_external), 4))),
            (ErrorAnswer{ResultCode::cannot_provide_external, 3600}));
  // what overlaps is answered with what is there, or refused (PSET-4-08)
  const auto inside = ask(of_ports(map(console, 6003, 0, 600), 8));
  EXPECT_EQ(inside.header.lifetime_s, 600U);
  EXPECT_EQ(inside.options.port_set, (PortSet{2, 6003, false}));
  EXPECT_EQ(inside.map.external_port, Port::from(first_external + 2U));
  EXPECT_EQ(result(of_ports(map(console, 6000), 8)), (ErrorAnswer{ResultCode::no_resources, 30}));
  EXPECT_EQ(ask_natpmp(console, {Transport::tcp, 6002, 5555, 3600}).external_port, first_external + 1);
  EXPECT_EQ(plane.mappings.size(), 4U);
  EXPECT_EQ(result(of_ports(map(console, 6001, 0, 0), 4)), (ErrorAnswer{ResultCode::success, 0}));
  EXPECT_EQ(plane.mappings.size(), 1U) << "NAT-PMP's";
}

// PSET-4-11
TEST_F(PortMappingOverLeases, EachPortOfASetCountsForTheQuota) {
  policy.leases_per_device = 3;
  start();
  EXPECT_EQ(ask(of_ports(map(console, 6000), 2)).options.port_set, (PortSet{2, 6000, false}));
  EXPECT_EQ(result(insisting(of_ports(map(console, 6100, 6100), 2))),
            (ErrorAnswer{ResultCode::user_ex_quota, 30}));
  const auto one = ask(of_ports(map(console, 6100), 2));
  EXPECT_EQ(result(one), hour);
  EXPECT_FALSE(one.options.port_set);
  EXPECT_EQ(result(of_ports(map(console, 6200), 2)), (ErrorAnswer{ResultCode::user_ex_quota, 30}));
}

// PCP-14.2: a set that moved or was revoked is told once, as one
TEST_F(PortMappingOverLeases, TheClientOfARevokedSetIsToldOnce) {
  start();
  ask(of_ports(map(console, 6000, 7000), 50));
  revoke({service->list_numbers({}, now()).at(20)});
  commit();
  const auto sent = run_for(10s).first;
  ASSERT_EQ(sent.size(), 3U);
  const auto update = decode_map_response(sent[0].bytes).value();
  EXPECT_EQ(update.header.lifetime_s, 0U);
  EXPECT_EQ(update.options.port_set, (PortSet{50, 6000, true}));
}

}  // namespace
}  // namespace sallyport::pcp
