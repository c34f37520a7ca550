// PCP over IPv6 on the real lease service: what a client of the IPv6 firewall is told.
#include "protocols/pcp/server.hpp"
#include "tests/src/lease/service_fixture.hpp"
#include "tests/support/hex.hpp"

namespace sallyport::pcp {
namespace {

using namespace std::chrono_literals;
using test::address;
using test::console;
using test::external;
using test::nonce;
using test::port;
using Bytes = std::vector<std::byte>;

const Address nas = address("2001:db8:1::10"), phone = address("2001:db8:1::20");
const Address router = address("2001:db8:1::1"), router_link = address("fe80::1");
const Address peer_out_there = address("2001:db8:ffff::9");

class PcpOverIpv6 : public test::ServiceTest {
 protected:
  PcpOverIpv6() {
    network.lan[0].addresses.push_back(router);
    network.lan[0].addresses.push_back(router_link);
    network.lan[0].prefixes.push_back(*Prefix::parse("2001:db8:1::/64"));
    policy.third_party = {{phone, 128}, {console, 128}};
  }
  void start() {
    boot();
    server.emplace(*service, ServerOptions{.third_party_clients = policy.third_party});
    const wire::ServedAddress served[] = {{2, test::gateway}, {2, router}, {2, router_link}};
    server->set_served_addresses(served, now());
    run_for(10min);
    recorder.events.clear();
  }
  void TearDown() override { server.reset(); }

  std::vector<wire::Outgoing> run_for(std::chrono::milliseconds time) {
    std::vector<wire::Outgoing> sent;
    const auto end = now() + time;
    while (const auto due = server->next_deadline()) {
      if (*due > end) break;
      clock.advance(std::max(*due - now(), std::chrono::nanoseconds{0}));
      server->handle_timeout(now());
      while (auto out = server->poll_transmit()) sent.push_back(std::move(*out));
    }
    clock.advance(end - now());
    service->handle_timeout(now());
    commit();
    return sent;
  }

  static MapRequest map(const Address& client, std::uint16_t internal, std::uint16_t suggested = 0,
                        std::uint32_t lifetime_s = 3600, std::uint8_t nonce_octet = 1) {
    MapRequest request{.lifetime_s = lifetime_s, .client = client, .map = {}, .options = {}};
    request.map = {nonce(nonce_octet), 6, Port::from(internal), Port::from(suggested), Address{}};
    return request;
  }
  static MapRequest for_host(MapRequest request, const Address& host) {
    request.options.third_party = host;
    return request;
  }
  static MapRequest insisting(MapRequest request, const Address& on = {}) {
    request.options.prefer_failure = true;
    request.map.external_address = on;
    return request;
  }
  wire::Outgoing ask(const Bytes& datagram, const Address& client) {
    server->handle_datagram(datagram, {client, 40000, client.is_v4() ? test::gateway : router, 2}, now());
    commit();
    auto out = server->poll_transmit();
    EXPECT_FALSE(server->poll_transmit());
    return out ? std::move(*out) : wire::Outgoing{};
  }
  MapResponse ask(const MapRequest& request) {
    const auto out = ask(encode_map_request(request), request.client);
    EXPECT_EQ(out.to, request.client);
    return decode_map_response(out.bytes).value();
  }
  ErrorAnswer result(const MapRequest& request) {
    const auto response = ask(request);
    return {response.header.result, response.header.lifetime_s};
  }
  std::pair<ErrorAnswer, PeerBody> ask_peer(const Address& client, PeerBody body, const Bytes& options = {}) {
    Bytes datagram;
    append_request_header(datagram, {static_cast<std::uint8_t>(Opcode::peer), 3600, client});
    append_peer_body(datagram, body);
    datagram.insert(datagram.end(), options.begin(), options.end());
    const auto out = ask(datagram, client);
    const auto header = decode_response_header(out.bytes).value();
    return {{header.result, header.lifetime_s},
            decode_peer_body(std::span{out.bytes}.subspan(header_size)).value()};
  }
  std::vector<RemoteFilter> filters(const Address& host, std::uint16_t number) {
    const auto held = plane.pinhole(Transport::tcp, {host, port(number)}, now());
    return held ? held->spec.remotes : std::vector<RemoteFilter>{};
  }

  std::optional<Server> server;
};

constexpr ErrorAnswer long_error(ResultCode code) { return {code, 1800}; }

TEST_F(PcpOverIpv6, MapOpensAPinholeWhoseOutsideIsItsInside) {  // PCP-11.3-22, PCP-7-03
  start();
  const auto out = ask(encode_map_request(map(nas, 443, 9000)), nas);
  EXPECT_EQ(out.from, router);
  EXPECT_EQ(out.from_port, 5351);
  EXPECT_EQ(out.to_port, 40000);
  const auto response = decode_map_response(out.bytes).value();
  EXPECT_EQ(response.header.result, ResultCode::success);
  EXPECT_EQ(response.header.lifetime_s, 3600u);
  EXPECT_EQ(response.map.internal_port, port(443));
  EXPECT_EQ(response.map.external_port, port(443));
  EXPECT_EQ(response.map.external_address, nas);
  EXPECT_TRUE(plane.pinhole(Transport::tcp, {nas, port(443)}, now()));
  EXPECT_EQ(result(map(nas, 443, 0, 0)), (ErrorAnswer{ResultCode::success, 0}));
  EXPECT_FALSE(plane.pinhole(Transport::tcp, {nas, port(443)}, now()));
}

TEST_F(PcpOverIpv6, ClientAddressIsTheSource) {  // PCP-8.2-09
  start();
  auto request = map(nas, 443);
  const auto out = ask(encode_map_request(request), phone);
  EXPECT_EQ(decode_response_header(out.bytes)->result, ResultCode::address_mismatch);
  EXPECT_EQ(plane.installs, 0u);
}

TEST_F(PcpOverIpv6, AnyAddressIsTheUnspecifiedOneOfItsFamily) {  // PCP-5-02, PCP-5-03, PCP-5-05
  start();
  for (const auto* any : {"::", "0.0.0.0", "203.0.113.7", "2001:db8:7::1"}) {
    auto request = map(nas, 443);
    request.map.external_address = address(any);
    EXPECT_EQ(ask(request).map.external_address, nas) << "a suggestion: " << any;
  }
  EXPECT_EQ(result(insisting(map(nas, 8443, 8443))).code, ResultCode::success);
  EXPECT_EQ(result(insisting(map(nas, 8443, 8443), nas)).code, ResultCode::success);
  for (const auto* other : {"0.0.0.0", "203.0.113.7", "2001:db8:7::1"})
    EXPECT_EQ(result(insisting(map(nas, 9443, 9443), address(other))),
              long_error(ResultCode::cannot_provide_external))
        << other;
  EXPECT_EQ(result(insisting(map(nas, 9443, 9444))), long_error(ResultCode::cannot_provide_external));
  EXPECT_EQ(result(insisting(map(nas, 9443))), long_error(ResultCode::malformed_option)) << "PCP-13.2-06";
}

TEST_F(PcpOverIpv6, OfAPortSetOnePortIsOpenedAndTheOptionLeftOut) {  // PSET-4-07
  start();
  const auto set = [](MapRequest request, std::uint16_t size) {
    request.options.port_set = PortSet{size, request.map.internal_port->number(), true};
    return request;
  };
  const auto answer = ask(set(map(nas, 6001), 4));
  EXPECT_EQ(answer.header.result, ResultCode::success);
  EXPECT_EQ(answer.map.external_port, port(6001));
  EXPECT_FALSE(answer.options.port_set);
  EXPECT_EQ(plane.mappings.size(), 1u);
  EXPECT_EQ(result(insisting(set(map(nas, 7001, 7001), 2))), long_error(ResultCode::cannot_provide_external));
  EXPECT_EQ(ask(map(nas, 6002)).header.result, ResultCode::success);
  const auto ended = ask(set(map(nas, 6001, 0, 0), 4));
  EXPECT_EQ(ended.header.result, ResultCode::success);
  EXPECT_FALSE(ended.options.port_set) << "the next port is still open";
  EXPECT_EQ(plane.mappings.size(), 1u);
}

TEST_F(PcpOverIpv6, FromAnAddressOfTheLinkNothingIsOpened) {  // POL-TGT-02
  start();
  EXPECT_EQ(result(map(address("fe80::10"), 443)), long_error(ResultCode::not_authorized));
  const auto out = ask(Bytes{encode_announce_request(address("fe80::10"))}, address("fe80::10"));
  EXPECT_EQ(decode_response_header(out.bytes)->result, ResultCode::success) << "but ANNOUNCE is answered";
}

TEST_F(PcpOverIpv6, WithoutAFirewallTheOpcodesAreNotServed) {
  policy.ipv6 = false;
  start();
  EXPECT_EQ(result(map(nas, 443)), long_error(ResultCode::unsupp_opcode));
  EXPECT_EQ(result(map(console, 8080)).code, ResultCode::success);
}

TEST_F(PcpOverIpv6, ThirdPartyCrossesTheFamilies) {  // PCP-13.1-06
  start();
  auto four_by_six = ask(for_host(map(phone, 8080, 8080), console));
  EXPECT_EQ(four_by_six.header.result, ResultCode::success);
  EXPECT_EQ(four_by_six.map.external_address, external);
  EXPECT_EQ(four_by_six.options.third_party, console);
  auto six_by_four = ask(for_host(map(console, 8080), nas));
  EXPECT_EQ(six_by_four.map.external_address, nas);
  EXPECT_EQ(result(for_host(map(phone, 9090, 9090), address("2001:db8:7::1"))),
            long_error(ResultCode::not_authorized))
      << "PCP-13.1-08";
  EXPECT_EQ(result(for_host(map(nas, 9090), phone)), long_error(ResultCode::unsupp_option)) << "PCP-13.1-03";
  EXPECT_EQ(result(for_host(map(phone, 9090), phone)), long_error(ResultCode::malformed_request))
      << "PCP-13.1-04";
}

TEST_F(PcpOverIpv6, FiltersAreOfTheFamilyOfTheHost) {  // PCP-13.3-02, -09
  start();
  auto request = map(nas, 443);
  request.options.filters = {{48, port(1234), peer_out_there}, {128, {}, peer_out_there}};
  EXPECT_EQ(result(request).code, ResultCode::success);
  EXPECT_EQ(filters(nas, 443),
            (std::vector<RemoteFilter>{{{peer_out_there, 48}, port(1234)}, {{peer_out_there, 128}, {}}}));
  request = map(nas, 444);
  request.options.filters = {{128, {}, address("198.51.100.9")}};
  EXPECT_EQ(result(request), long_error(ResultCode::malformed_option));
  // for another host, before and behind the option that names it
  const Filter four{120, {}, address("198.51.100.0")}, six{64, {}, peer_out_there};
  for (const bool behind : {false, true})
    for (const bool fits : {true, false}) {
      Bytes datagram = encode_map_request(map(phone, 8080));
      if (behind) append_filter(datagram, fits ? four : six);
      append_third_party(datagram, console);
      if (!behind) append_filter(datagram, fits ? four : six);
      EXPECT_EQ(decode_response_header(ask(datagram, phone).bytes)->result,
                fits ? ResultCode::success : ResultCode::malformed_option);
    }
}

TEST_F(PcpOverIpv6, PeerIsOfTheFamilyOfTheHost) {  // PCP-12.3-02, PCP-12.3-08, PCP-12.1-07
  start();
  const PeerBody body{{nonce(1), 6, port(5000), {}, Address{}}, port(443), peer_out_there};
  const auto [answer, peer] = ask_peer(nas, body);
  EXPECT_EQ(answer.code, ResultCode::success);
  EXPECT_EQ(peer.map.external_address, nas);
  EXPECT_EQ(peer.map.external_port, port(5000));
  EXPECT_EQ(peer.remote_address, peer_out_there);
  EXPECT_TRUE(plane.pinhole(Transport::tcp, {nas, port(5000)}, now())->spec.outbound);
  for (const auto* bad : {"198.51.100.9", "ff02::1", "::1", "::"}) {
    auto other = body;
    other.map.internal_port = port(5001);
    other.remote_address = address(bad);
    EXPECT_EQ(ask_peer(nas, other).first, long_error(ResultCode::malformed_request)) << bad;
  }
  auto suggesting = body;
  suggesting.map.internal_port = port(5001);
  suggesting.map.external_port = port(5002);
  EXPECT_EQ(ask_peer(nas, suggesting).first, long_error(ResultCode::cannot_provide_external));
  Bytes third;
  append_third_party(third, console);
  auto four = body;
  four.remote_address = address("198.51.100.9");
  EXPECT_EQ(ask_peer(phone, four, third).second.map.external_address, external);
  EXPECT_EQ(ask_peer(phone, body, third).first, long_error(ResultCode::malformed_request));
}

TEST_F(PcpOverIpv6, AnnouncesFromEachAddressToAllNodes) {  // PCP-14.1-04
  boot();
  server.emplace(*service);
  const wire::ServedAddress served[] = {{2, test::gateway}, {2, router}, {2, router_link}};
  server->set_served_addresses(served, now());
  const auto sent = run_for(10min);
  ASSERT_EQ(sent.size(), 30u);
  for (const auto& out : sent) {
    EXPECT_EQ(out.to, out.from.is_v4() ? address("224.0.0.1") : address("ff02::1"));
    EXPECT_EQ(out.to_port, 5350);
    EXPECT_EQ(out.from_port, 5351);
    EXPECT_EQ(out.interface, 2u);
  }
}

TEST_F(PcpOverIpv6, AnotherExternalAddressIsNoNewsToIt) {  // PCP-8.5-03, PCP-8.5-12
  start();
  ask(map(nas, 443));
  ask(map(console, 8080));
  clock.advance(100s);
  const auto before = ask(map(nas, 443)).header.epoch_s;
  EXPECT_GT(before, 100u);
  network.external = {address("203.0.113.8")};
  plane.set_network(network, now());
  service->set_network(network, now());
  run_slices();
  for (const auto& out : run_for(1min)) EXPECT_TRUE(out.to.is_v4());
  EXPECT_EQ(ask(map(nas, 443)).header.epoch_s, before + 60);
  EXPECT_LE(ask(map(console, 8080)).header.epoch_s, 60u);
}

TEST_F(PcpOverIpv6, LostLeasesAreAnnouncedOverIpv6Too) {  // PCP-8.5-02
  start();
  server->on_ipv6_epoch_reset(now());
  const auto sent = run_for(10min);
  ASSERT_EQ(sent.size(), 20u);
  for (const auto& out : sent) EXPECT_EQ(out.to, address("ff02::1"));
}

TEST_F(PcpOverIpv6, ARevokedPinholeIsToldToItsClient) {  // PCP-14.2-01, PCP-14.2-03
  start();
  ask(map(nas, 443));
  service->revoke(std::vector{service->list({}, now()).at(0).number}, {}, now(),
                  [](const auto&, TimePoint) {});
  commit();
  const auto sent = run_for(1min);
  ASSERT_EQ(sent.size(), 3u);
  EXPECT_EQ(sent[0].to, nas);
  EXPECT_EQ(sent[0].to_port, 40000);
  EXPECT_EQ(sent[0].from, router);
  const auto told = decode_map_response(sent[0].bytes).value();
  EXPECT_EQ(told.header.lifetime_s, 0u);
  EXPECT_EQ(told.header.epoch_s, service->ipv6_epoch_s(now()) - 60);
  EXPECT_EQ(told.map.internal_port, port(443));
}

TEST_F(PcpOverIpv6, WhoAskedTheAnycastAddressIsToldFromIt) {  // ANY-3-02
  start();
  server->handle_datagram(encode_map_request(map(nas, 443)), {nas, 40000, anycast_v6, 2}, now());
  commit();
  EXPECT_EQ(server->poll_transmit()->from, anycast_v6);
  service->revoke(std::vector{service->list({}, now()).at(0).number}, {}, now(),
                  [](const auto&, TimePoint) {});
  commit();
  const auto sent = run_for(1min);
  ASSERT_EQ(sent.size(), 3u);
  EXPECT_EQ(sent[0].from, anycast_v6);
}

}  // namespace
}  // namespace sallyport::pcp
