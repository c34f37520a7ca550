#include "tests/src/lease/service_fixture.hpp"

namespace sallyport::test {
namespace {

const Address nas = address("2001:db8:1::10"), nas_tomorrow = address("2001:db8:1::11"),
              phone = address("2001:db8:1::20");
const Address nas_v4 = address("192.168.1.30");
const Address peer = address("2001:db8:ffff::5");
constexpr std::uint64_t nas_mac = 0x020000000010, phone_mac = 0x020000000020;

RemoteFilter only(std::string_view prefix, std::uint32_t number = 0) {
  return {*Prefix::parse(prefix), Port::from(number)};
}

/// The gateway of ServiceTest, with 2001:db8:1::/64 on its LAN.
class PinholeTest : public ServiceTest {
 protected:
  PinholeTest() {
    network.lan[0].addresses.push_back(address("2001:db8:1::1"));
    network.lan[0].addresses.push_back(address("fe80::1"));
    network.lan[0].prefixes.push_back(*Prefix::parse("2001:db8:1::/64"));
    macs = {{nas, nas_mac},
            {nas_tomorrow, nas_mac},
            {nas_v4, nas_mac},
            {phone, phone_mac},
            {console, 0x02000000000a}};
  }
  bool is_pinhole(const Address& host, std::uint16_t number, Transport transport = Transport::tcp) {
    return plane.pinhole(transport, {host, port(number)}, now()).has_value();
  }
  std::vector<RemoteFilter> remotes(const Address& host, std::uint16_t number) {
    return plane.pinhole(Transport::tcp, {host, port(number)}, now())->spec.remotes;
  }
  PinholeRequest wish(const Address& host, std::uint16_t number, std::uint32_t lifetime = 3600) {
    return {.requester = host,
            .internal = {host, port(number)},
            .remote = {},
            .lifetime_s = lifetime,
            .contact = {2, host, 0, address("2001:db8:1::1")}};
  }
  std::shared_ptr<Answer<Pinhole>> opened(PinholeRequest request) {
    auto answer = std::make_shared<Answer<Pinhole>>();
    service->grant_pinhole(std::move(request), now(), [answer](const Outcome<Pinhole>& outcome, TimePoint) {
      answer->outcome = outcome;
      ++answer->times;
    });
    commit();
    return answer;
  }
  std::shared_ptr<Answer<Pinhole>> renewed(std::uint16_t id, const Address& by, std::uint32_t lifetime) {
    auto answer = std::make_shared<Answer<Pinhole>>();
    service->renew_pinhole(id, by, lifetime, now(), [answer](const Outcome<Pinhole>& outcome, TimePoint) {
      answer->outcome = outcome;
    });
    commit();
    return answer;
  }
  std::shared_ptr<Answer<void>> closed(std::uint16_t id, const Address& by) {
    auto answer = std::make_shared<Answer<void>>();
    service->release_pinhole(
        id, by, now(), [answer](const Outcome<void>& outcome, TimePoint) { answer->outcome = outcome; });
    commit();
    return answer;
  }
  static std::uint16_t id_of(const std::shared_ptr<Answer<Pinhole>>& answer) {
    return answer->ok() ? (**answer->outcome).id : std::uint16_t{0};
  }
  LeaseView only_lease() { return service->list({}, now()).at(0); }
};

// --- by PCP

TEST_F(PinholeTest, TheExternalEndpointIsTheInternalOne) {  // PCP-11.3-22
  boot();
  const auto answer = granted(suggesting(pcp(nas, 443), 9000));
  ASSERT_TRUE(answer->ok());
  EXPECT_EQ((**answer->outcome).external, (ExternalEndpoint{nas, port(443)}))
      << "whatever is suggested, below 1024 too";
  EXPECT_TRUE(is_pinhole(nas, 443));
  EXPECT_FALSE(is_pinhole(nas, 443, Transport::udp)) << "PCP-11.3-14";
  const auto shown = only_lease();
  EXPECT_EQ(shown.external.address, nas);
  EXPECT_EQ(shown.external.port, port(443));
  EXPECT_EQ(shown.kind, LeaseKind::explicit_);
}

TEST_F(PinholeTest, OneWhoInsistsOnAnotherEndpointGetsNone) {  // PCP-13.2-02, PCP-5-05
  boot();
  EXPECT_EQ(granted(suggesting(pcp(nas, 8443), 9000, true))->error(), MappingErrc::insisted_port_forbidden);
  for (const auto* elsewhere : {"2001:db8:1::20", "203.0.113.7", "0.0.0.0"}) {
    auto request = suggesting(pcp(nas, 8443), 8443, true);
    request.suggested_address = address(elsewhere);
    EXPECT_EQ(granted(request)->error(), MappingErrc::insisted_port_forbidden) << elsewhere;
  }
  for (const auto* same : {"2001:db8:1::10", "::"}) {
    auto request = suggesting(pcp(nas, 8443), 8443, true);
    request.suggested_address = address(same);
    EXPECT_TRUE(granted(request)->ok()) << same;
  }
  EXPECT_EQ(plane.installs, 1u);
}

/// Sets are of IPv4: of several ports the first is opened, unless all or nothing is wanted.
TEST_F(PinholeTest, OfSeveralPortsTheFirstIsOpenedAlone) {
  boot();
  auto request = suggesting(pcp(nas, 6001), 7000);
  request.ports = 4;
  request.parity = true;
  for (const auto* time : {"first", "again"}) {
    const auto answer = granted(request);
    ASSERT_TRUE(answer->ok()) << time;
    EXPECT_EQ((**answer->outcome).ports, 1) << time;
    EXPECT_EQ((**answer->outcome).external, (ExternalEndpoint{nas, port(6001)})) << time;
  }
  EXPECT_EQ(listed(), 1u);
  EXPECT_EQ(plane.finds, 0u);
  EXPECT_TRUE(is_pinhole(nas, 6001));
  EXPECT_FALSE(is_pinhole(nas, 6002));
  EXPECT_EQ(only_lease().set_size, 1);

  ASSERT_TRUE(granted(pcp(nas, 6003, 3600, 2))->ok()) << "no overlap, whatever its nonce";
  EXPECT_TRUE(granted(request)->ok());
  request.insist = true;
  request.suggested_port = port(6001);
  EXPECT_EQ(granted(request)->error(), MappingErrc::insisted_port_taken);
  auto all = suggesting(pcp(nas, 8001), 8001, true);
  all.ports = 2;
  EXPECT_EQ(granted(all)->error(), MappingErrc::insisted_port_forbidden);
  EXPECT_FALSE(is_pinhole(nas, 8001));

  auto answer = std::make_shared<Answer<void>>();
  ReleaseRequest end{.internal = {nas, port(6001)}};
  end.via = Via::pcp;
  end.transport = Transport::tcp;
  end.requester = nas;
  end.nonce = nonce(1);
  end.ports = 4;
  service->release(
      end, now(), [answer](const Outcome<void>& outcome, TimePoint) { answer->outcome = outcome; });
  commit();
  EXPECT_TRUE(answer->ok());
  EXPECT_FALSE(is_pinhole(nas, 6001));
  EXPECT_TRUE(is_pinhole(nas, 6003)) << "nor is a range of them ended";
}

TEST_F(PinholeTest, NeedsNoExternalAddressAndIsNotTouchedWhenThatChanges) {
  network.external.clear();
  boot();
  ASSERT_TRUE(granted(pcp(nas, 8443))->ok());
  ASSERT_EQ(granted(pcp(console, 8443))->error(), MappingErrc::no_external_address);
  pass(100s);
  const auto epoch = service->ipv6_epoch_s(now());
  for (const auto* next : {"203.0.113.7", "203.0.113.8"}) {
    network.external = {address(next)};
    plane.set_network(network, now());
    service->set_network(network, now());
    run_slices();
  }
  EXPECT_EQ(recorder.story(), "granted/requested ") << "its client hears nothing";
  EXPECT_EQ(recorder.epoch_resets, 2);
  EXPECT_EQ(recorder.ipv6_epoch_resets, 1) << "the start alone";
  EXPECT_EQ(service->epoch_s(now()), 0u);
  EXPECT_EQ(service->ipv6_epoch_s(now()), epoch);
  EXPECT_EQ(only_lease().external.address, nas);
  EXPECT_EQ(plane.installs, 1u);
}

TEST_F(PinholeTest, TheEpochOfIpv6GoesOnOverARestart) {  // PCP-8.5-04
  boot();
  ASSERT_TRUE(granted(pcp(nas, 8443))->ok());
  pass(50s);
  network.external = {address("203.0.113.8")};
  service->set_network(network, now());
  commit();
  pass(10s);
  restart();
  EXPECT_EQ(service->epoch_s(now()), 10u);
  EXPECT_EQ(service->ipv6_epoch_s(now()), 60u);
  clock.set_boot(TimePoint{60s});  // and over a reboot
  clock.step_wall(100s);
  disk.boot += 1;
  restart();
  EXPECT_EQ(service->epoch_s(now()), 110u);
  EXPECT_EQ(service->ipv6_epoch_s(now()), 160u);
}

TEST_F(PinholeTest, OnlyHostsOfTheLanAreTargets) {  // POL-TGT-02
  boot();
  for (const auto* bad :
       {"fe80::10", "ff02::1", "::1", "::", "2001:db8:1::1", "2001:db8:1::", "2001:db8:2::10", "fd00::1"})
    EXPECT_EQ(granted(pcp(address(bad), 8443))->error(), MappingErrc::not_authorized) << bad;
  EXPECT_EQ(plane.installs, 0u);
  network.lan[0].prefixes.push_back(*Prefix::parse("fd00::/64"));
  service->set_network(network, now());
  EXPECT_TRUE(granted(pcp(address("fd00::10"), 8443))->ok()) << "what the LAN has is the LAN's";
}

TEST_F(PinholeTest, OnlyTheHostItselfRenewsAndEndsIt) {  // POL-OWN-01, PCP-11.3-06
  boot();
  ASSERT_TRUE(granted(pcp(nas, 8443))->ok());
  auto foreign = pcp(nas, 8443);
  foreign.requester = phone;
  EXPECT_EQ(granted(foreign)->error(), MappingErrc::not_authorized);
  EXPECT_EQ(granted(pcp(nas, 8443, 3600, 2))->error(), MappingErrc::foreign_nonce);
  const auto deletion = drop(foreign);
  commit();
  EXPECT_EQ(deletion->error(), MappingErrc::not_authorized);
  const auto own = drop(pcp(nas, 8443));
  commit();
  EXPECT_TRUE(own->ok());
  EXPECT_FALSE(is_pinhole(nas, 8443));
  EXPECT_EQ(plane.withdrawn.back().second, nat::Ending::reset);
  EXPECT_EQ(listed(), 0u);
}

TEST_F(PinholeTest, EndsWithItsLifetime) {  // PCP-15-02
  boot();
  ASSERT_TRUE(granted(pcp(nas, 8443, 600))->ok());
  pass(600s - 1ms);
  EXPECT_TRUE(is_pinhole(nas, 8443));
  pass(1ms);
  EXPECT_FALSE(is_pinhole(nas, 8443));
  EXPECT_EQ(listed(), 0u);
  EXPECT_EQ(service->status().mappings, 0u);
}

TEST_F(PinholeTest, HoldsNoPortOfTheExternalAddress) {
  boot();
  ASSERT_TRUE(granted(pcp(nas, 8080))->ok());
  ASSERT_TRUE(granted(pcp(phone, 8080))->ok()) << "each host has all its ports";
  EXPECT_EQ(port_of(granted(suggesting(pcp(console, 8080), 8080, true))), 8080);
  EXPECT_EQ(service->entry_count(), 1u) << "WANIPConnection lists what IPv4 has";
  EXPECT_EQ(service->entries_on(Transport::tcp, port(8080), now()).size(), 1u);
  EXPECT_EQ(service->status().mappings, 3u);
}

TEST_F(PinholeTest, AThirdPartyMayOpenOneForAnotherHostOfEitherFamily) {  // PCP-13.1-06
  policy.third_party = {*Prefix::parse("192.168.1.10/32"), {phone, 128}};
  boot();
  auto six_by_four = pcp(nas, 8443);
  six_by_four.requester = console;
  six_by_four.third_party = true;
  EXPECT_EQ((**granted(six_by_four)->outcome).external.address, nas);
  auto four_by_six = pcp(camera, 554);
  four_by_six.requester = phone;
  four_by_six.third_party = true;
  EXPECT_EQ((**granted(four_by_six)->outcome).external.address, external);
}

TEST_F(PinholeTest, FiltersAreTheUnionOfThose) {  // PCP-13.3-06
  boot();
  auto request = pcp(nas, 8443);
  request.filters = {only("2001:db8:ffff::/48")};
  ASSERT_TRUE(granted(request)->ok());
  request.filters = {only("2001:db8:eeee::/48", 443)};
  ASSERT_TRUE(granted(request)->ok());
  EXPECT_EQ(remotes(nas, 8443).size(), 2u);
}

TEST_F(PinholeTest, PeerKeepsTheFlowOfAnEndpoint) {  // PCP-12.3-02
  boot();
  auto request = pcp(nas, 5000);
  request.outbound = true;
  request.filters = {{{peer, 128}, port(443)}};
  const auto answer = granted(request);
  ASSERT_TRUE(answer->ok());
  EXPECT_EQ((**answer->outcome).external, (ExternalEndpoint{nas, port(5000)}));
  const auto held = plane.pinhole(Transport::tcp, {nas, port(5000)}, now());
  ASSERT_TRUE(held);
  EXPECT_TRUE(held->spec.outbound);
}

// --- policy

TEST_F(PinholeTest, RulesDecideAboutTheHostsPort) {
  policy.rules = {{.device = *Prefix::parse("2001:db8:1::20"),
                   .external = {},
                   .transport = {},
                   .allow = false,
                   .where = {}},
                  {.device = {}, .external = {{1, 442}}, .transport = {}, .allow = false, .where = {}}};
  boot();
  EXPECT_EQ(granted(pcp(phone, 8443))->error(), MappingErrc::not_authorized);
  EXPECT_EQ(granted(pcp(nas, 22))->error(), MappingErrc::not_authorized);
  EXPECT_TRUE(granted(pcp(nas, 443))->ok()) << "external_ports are those of the one IPv4 address";
  EXPECT_TRUE(service->pinhole_status().allowed);
  policy.rules = {{.device = {}, .external = {}, .transport = {}, .allow = false, .where = {}}};
  service->set_policy(policy, now());
  EXPECT_FALSE(service->pinhole_status().allowed);
  EXPECT_EQ(granted(pcp(nas, 443))->error(), MappingErrc::not_authorized) << "POL-RUN-04: nor renewed";
}

TEST_F(PinholeTest, WithoutAFirewallThereIsNothingToOpen) {
  policy.ipv6 = false;
  boot();
  EXPECT_EQ(granted(pcp(nas, 8443))->error(), MappingErrc::no_pinholes);
  EXPECT_EQ(opened(wish(nas, 8443))->error(), MappingErrc::no_pinholes);
  EXPECT_EQ(renewed(1, nas, 60)->error(), MappingErrc::no_pinholes);
  EXPECT_FALSE(service->pinhole_status().firewall);
  EXPECT_EQ(plane.installs, 0u);
  EXPECT_TRUE(granted(pcp(console, 8443))->ok());
}

TEST_F(PinholeTest, TheQuotaCountsTheAddressesOfOneMacTogether) {  // POL-QTA-01
  policy.leases_per_device = 2;
  boot();
  ASSERT_TRUE(granted(pcp(nas, 1))->ok());
  ASSERT_TRUE(granted(pcp(nas_tomorrow, 2))->ok());
  EXPECT_EQ(granted(pcp(nas, 3))->error(), MappingErrc::quota_exceeded);
  EXPECT_EQ(granted(pcp(nas_tomorrow, 3))->error(), MappingErrc::quota_exceeded);
  EXPECT_TRUE(granted(pcp(nas, 1))->ok()) << "a renewal";
  EXPECT_TRUE(granted(pcp(phone, 3))->ok());
  EXPECT_TRUE(granted(pcp(nas_v4, 3))->ok()) << "an IPv4 address is a device of its own";
  drop(pcp(nas_tomorrow, 2));
  commit();
  EXPECT_TRUE(granted(pcp(nas, 3))->ok());
}

TEST_F(PinholeTest, PortsOfASetAndPinholesCountForTheDeviceThatTheyAreOf) {  // POL-QTA-01, PSET-4-11
  policy.leases_per_device = 3;
  boot();
  auto set = pcp(nas_v4, 6000);
  set.ports = 4;
  EXPECT_EQ((**granted(set)->outcome).ports, 3);
  EXPECT_EQ(granted(pcp(nas_v4, 7000))->error(), MappingErrc::quota_exceeded);
  for (const std::uint16_t number : {1, 2, 3})
    EXPECT_TRUE(granted(pcp(number == 2 ? nas_tomorrow : nas, number))->ok());
  EXPECT_EQ(granted(pcp(nas, 4))->error(), MappingErrc::quota_exceeded);
  EXPECT_EQ(listed(), 6u);
  restart();
  EXPECT_EQ(listed(), 6u);
  EXPECT_EQ(granted(pcp(nas_v4, 7000))->error(), MappingErrc::quota_exceeded);
  EXPECT_EQ(granted(pcp(nas_tomorrow, 4))->error(), MappingErrc::quota_exceeded);
  EXPECT_TRUE(granted(pcp(phone, 4))->ok());
}

TEST_F(PinholeTest, AnAddressIsItsOwnDeviceUntilItsMacIsKnown) {
  policy.leases_per_device = 2;
  macs.clear();
  boot();
  for (const std::uint16_t number : {1, 2}) {
    ASSERT_TRUE(granted(pcp(nas, number))->ok());
    ASSERT_TRUE(granted(pcp(nas_tomorrow, number))->ok());
  }
  EXPECT_EQ(granted(pcp(nas, 3))->error(), MappingErrc::quota_exceeded);
  macs = {{nas, nas_mac}, {nas_tomorrow, nas_mac}};
  EXPECT_EQ(granted(pcp(nas, 3))->error(), MappingErrc::quota_exceeded);
  EXPECT_EQ(granted(pcp(nas_tomorrow, 3))->error(), MappingErrc::quota_exceeded);
  for (const auto& [host, number] :
       std::vector<std::pair<Address, std::uint16_t>>{{nas, 1}, {nas_tomorrow, 2}, {nas, 2}}) {
    drop(pcp(host, number));
    commit();
  }
  EXPECT_TRUE(granted(pcp(nas, 3))->ok()) << "one of the four is left";
  EXPECT_EQ(granted(pcp(nas, 4))->error(), MappingErrc::quota_exceeded);
  pass(2h);
  EXPECT_EQ(listed(), 0u);
}

// --- static

TEST_F(PinholeTest, AStaticOneIsInForceAndNotInTheListsOfIpv4) {  // PCP-11.3-09
  policy.statics = {{Transport::tcp, port(443), {nas, port(443)}, "web six", "t:1"},
                    {Transport::tcp, port(443), {phone, port(443)}, "web of the phone", "t:2"},
                    {Transport::tcp, port(443), {console, port(8443)}, "web four", "t:3"}};
  boot();
  commit();
  EXPECT_TRUE(is_pinhole(nas, 443));
  EXPECT_TRUE(is_pinhole(phone, 443));
  EXPECT_TRUE(is_open(443));
  EXPECT_EQ(service->entry_count(), 1u);
  EXPECT_EQ(service->entry_at(0, now())->internal.address, console);
  EXPECT_EQ(service->find_entry({Transport::tcp, port(443), {}}, console, now())->internal.address, console);
  EXPECT_EQ(listed(), 3u);
  const auto answer = granted(pcp(nas, 443));
  ASSERT_TRUE(answer->ok());
  EXPECT_EQ((**answer->outcome).external.address, nas);
  EXPECT_EQ(listed(), 3u) << "an answer, no lease";
  const auto ids = service->list({}, now());
  restart();
  const auto again = service->list({}, now());
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(again[i].id, ids[i].id);
  policy.statics.erase(policy.statics.begin());
  service->set_policy(policy, now());
  EXPECT_FALSE(is_pinhole(nas, 443));
  EXPECT_TRUE(is_pinhole(phone, 443));
}

TEST_F(PinholeTest, AStaticOneEndsTheLeaseOnItsEndpoint) {
  boot();
  ASSERT_TRUE(granted(pcp(nas, 443))->ok());
  policy.statics = {{Transport::tcp, port(443), {nas, port(443)}, "web", "t:1"}};
  service->set_policy(policy, now());
  commit();
  EXPECT_EQ(recorder.story(), "granted/requested ended/replaced granted/configured ");
  EXPECT_EQ(only_lease().kind, LeaseKind::static_);
  EXPECT_TRUE(plane.pinhole(Transport::tcp, {nas, port(443)}, now())->spec.is_static);
}

// --- restart, network

TEST_F(PinholeTest, ComesBackAfterAKill) {  // POL-STO-02
  boot();
  auto request = pcp(nas, 8443);
  request.filters = {only("2001:db8:ffff::/48", 443)};
  request.description = "backup";
  ASSERT_TRUE(granted(request)->ok());
  closed(id_of(opened(wish(nas, 9442))), nas);
  const auto id = id_of(opened(wish(nas, 9443)));
  ASSERT_GT(id, 1);
  const auto before = service->list({}, now());
  pass(10s);
  restart();
  const auto after = service->list({}, now());
  ASSERT_EQ(after.size(), 2u);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(after[i].id, before[i].id);
    EXPECT_EQ(after[i].external, before[i].external);
    EXPECT_EQ(after[i].remotes, before[i].remotes);
    EXPECT_EQ(after[i].deadline, before[i].deadline);
    EXPECT_EQ(after[i].nonce, before[i].nonce);
  }
  EXPECT_EQ(remotes(nas, 8443).size(), 1u);
  EXPECT_TRUE(is_pinhole(nas, 9443));
  EXPECT_TRUE(service->find_pinhole(id, nas, now()));
  EXPECT_EQ(id_of(renewed(id, nas, 60)), id);
  EXPECT_NE(id_of(opened(wish(phone, 9443))), id) << "a name that is in use is given to nobody else";
  EXPECT_GT(service->ipv6_epoch_s(now()), 0u) << "nothing was lost";
}

TEST_F(PinholeTest, OutlivesThePrefixOfItsHostButIsNotRenewed) {
  boot();
  ASSERT_TRUE(granted(pcp(nas, 8443))->ok());
  const auto id = id_of(opened(wish(nas, 9443)));
  network.lan[0].prefixes.back() = *Prefix::parse("2001:db8:2::/64");
  service->set_network(network, now());
  EXPECT_EQ(listed(), 2u);
  EXPECT_FALSE(service->find_pinhole(id, nas, now())->forwards);
  EXPECT_EQ(granted(pcp(nas, 8443))->error(), MappingErrc::not_authorized);
  EXPECT_EQ(renewed(id, nas, 60)->error(), MappingErrc::not_authorized);
  restart();
  EXPECT_EQ(listed(), 2u) << "the prefix may be late after a start";
  pass(3600s);
  EXPECT_EQ(listed(), 0u);
}

// --- the administrator

TEST_F(PinholeTest, RevokeTellsAndCloses) {
  boot();
  const auto number = number_of(granted(pcp(nas, 8443)));
  const auto result = revoke({number});
  commit();
  ASSERT_TRUE(*result);
  EXPECT_EQ((*result)->revoked.size(), 1u);
  EXPECT_FALSE(is_pinhole(nas, 8443));
  EXPECT_EQ(recorder.events.back().reason, LeaseEventReason::revoked);
  EXPECT_EQ(recorder.events.back().lease.external.address, nas);
}

TEST_F(PinholeTest, ABlockHoldsForEveryAddressOfTheDeviceAlsoAfterARestart) {
  boot();
  const auto number = number_of(granted(pcp(nas, 8443)));
  ASSERT_TRUE(granted(pcp(nas_tomorrow, 8443))->ok());
  ASSERT_TRUE(granted(pcp(nas_tomorrow, 8444))->ok());
  revoke({number}, lease::LeaseService::BlockFor{});
  run_slices();
  commit();
  EXPECT_EQ(listed(), 1u) << "the other address's too, but not its other port";
  EXPECT_EQ(plane.flows_ended.size(), 2u);
  EXPECT_EQ(granted(pcp(nas, 8443))->error(), MappingErrc::device_blocked);
  EXPECT_EQ(granted(pcp(nas_tomorrow, 8443))->error(), MappingErrc::device_blocked);
  EXPECT_EQ(opened(wish(nas_tomorrow, 8443))->error(), MappingErrc::device_blocked);
  EXPECT_TRUE(granted(pcp(phone, 8443))->ok());
  restart();
  macs.erase(nas);  // long gone from the neighbour table
  EXPECT_EQ(granted(pcp(nas_tomorrow, 8443))->error(), MappingErrc::device_blocked);
  ASSERT_EQ(service->blocks(now()).size(), 1u);
  EXPECT_EQ(service->blocks(now())[0].device, nas);
  service->unblock(std::vector{number}, now(), [](std::size_t, TimePoint) {});
  commit();
  EXPECT_TRUE(granted(pcp(nas_tomorrow, 8443))->ok());
}

TEST_F(PinholeTest, ABlockMeetsAnAddressWhoseMacIsKnownOnlyLater) {
  boot();
  revoke({number_of(granted(pcp(nas, 8443)))}, lease::LeaseService::BlockFor{});
  run_slices();
  commit();
  macs.erase(nas_tomorrow);
  ASSERT_TRUE(granted(pcp(nas_tomorrow, 8443))->ok()) << "nobody can tell";
  ASSERT_TRUE(granted(pcp(nas_tomorrow, 8444))->ok());
  pass(1s);
  EXPECT_TRUE(is_pinhole(nas_tomorrow, 8443));
  macs[nas_tomorrow] = nas_mac;
  ASSERT_LE(*service->next_deadline(), now() + 1s);
  pass(1s);
  EXPECT_FALSE(is_pinhole(nas_tomorrow, 8443));
  EXPECT_TRUE(is_pinhole(nas_tomorrow, 8444));
  EXPECT_EQ(recorder.events.back().reason, LeaseEventReason::revoked) << "and its client is told";
  pass(1h);
  EXPECT_EQ(listed(), 0u);
}

TEST_F(PinholeTest, FiltersOfTheListKnowTheFamily) {
  boot();
  granted(pcp(nas, 8443));
  granted(pcp(console, 8443));
  lease::LeaseFilter filter;
  filter.ipv6 = true;
  EXPECT_EQ(service->list(filter, now()).size(), 1u);
  EXPECT_EQ(service->list(filter, now())[0].internal.address, nas);
  EXPECT_EQ(service->list_numbers(filter, now()).size(), 1u);
  filter.ipv6 = false;
  EXPECT_EQ(service->list(filter, now())[0].internal.address, console);
}

// --- by UPnP

TEST_F(PinholeTest, IsOneTableWithThoseOfPcp) {  // 6FC-16, POL-OWN-04, POL-OWN-05
  boot();
  auto by_pcp = pcp(nas, 8443);
  by_pcp.filters = {only("2001:db8:ffff::/48")};
  ASSERT_TRUE(granted(by_pcp)->ok());
  const auto id = id_of(opened(wish(nas, 8443)));
  ASSERT_NE(id, 0);
  EXPECT_EQ(plane.mappings.size(), 1u);
  EXPECT_EQ(service->status().mappings, 1u);
  EXPECT_TRUE(remotes(nas, 8443).empty()) << "everybody, while one of the two says so";
  EXPECT_TRUE(closed(id, nas)->ok());
  EXPECT_EQ(remotes(nas, 8443).size(), 1u);
  EXPECT_EQ(listed(), 1u) << "what PCP made is PCP's to end";
}

TEST_F(PinholeTest, AskedAgainIsTheSamePinhole) {  // 6FC-05
  boot();
  auto request = wish(nas, 8443, 60);
  request.remote = only("2001:db8:ffff::5", 443);
  const auto id = id_of(opened(request));
  request.lifetime_s = 7200;
  const auto again = opened(request);
  EXPECT_EQ(id_of(again), id);
  EXPECT_EQ((**again->outcome).remaining_s, 7200u);
  EXPECT_EQ(listed(), 1u);
  request.remote = only("2001:db8:ffff::6", 443);
  EXPECT_NE(id_of(opened(request)), id);
  EXPECT_EQ(remotes(nas, 8443).size(), 2u);
  request.remote.reset();
  EXPECT_NE(id_of(opened(request)), id);
  EXPECT_EQ(listed(), 3u);
}

TEST_F(PinholeTest, OnlyTheDeviceItselfOpensChangesAndCloses) {  // 6FC-04, 6FC-08, 6FC-09
  boot();
  auto foreign = wish(nas, 8443);
  foreign.requester = phone;
  EXPECT_EQ(opened(foreign)->error(), MappingErrc::not_authorized);
  foreign.requester = nas_tomorrow;
  EXPECT_EQ(opened(foreign)->error(), MappingErrc::not_authorized) << "over IPv6 it is the address that asks";
  foreign.requester = console;
  EXPECT_EQ(opened(foreign)->error(), MappingErrc::not_authorized) << "over IPv4 from another MAC";
  foreign.requester = camera;
  EXPECT_EQ(opened(foreign)->error(), MappingErrc::not_authorized) << "over IPv4 from one that nobody knows";
  auto own = wish(nas, 8443);
  own.requester = nas_v4;
  const auto id = id_of(opened(own));
  ASSERT_NE(id, 0) << "over IPv4 from the same MAC";
  for (const auto& other : {phone, console, camera}) {
    EXPECT_EQ(renewed(id, other, 60)->error(), MappingErrc::not_authorized);
    EXPECT_EQ(closed(id, other)->error(), MappingErrc::not_authorized);
    EXPECT_EQ(service->find_pinhole(id, other, now()).error().reason, MappingErrc::not_authorized);
  }
  EXPECT_EQ((**renewed(id, nas_tomorrow, 60)->outcome).remaining_s, 60u) << "its address of tomorrow may";
  EXPECT_TRUE(service->find_pinhole(id, nas_v4, now()));
  EXPECT_TRUE(closed(id, nas_v4)->ok());
  EXPECT_EQ(closed(id, nas)->error(), MappingErrc::not_found);
  EXPECT_EQ(renewed(id, nas, 60)->error(), MappingErrc::not_found);
  EXPECT_FALSE(is_pinhole(nas, 8443));
}

TEST_F(PinholeTest, UpnpOpensNoPrivilegedPortOfAHost) {  // ACL-01, POL-TGT-04
  boot();
  EXPECT_EQ(opened(wish(nas, 443))->error(), MappingErrc::not_authorized);
}

TEST_F(PinholeTest, ANumberIsNotSoonGivenAgain) {
  boot();
  const auto first = id_of(opened(wish(nas, 2000)));
  closed(first, nas);
  for (std::uint16_t i = 1; i <= 20; ++i)
    EXPECT_NE(id_of(opened(wish(nas, static_cast<std::uint16_t>(2000 + i)))), first);
}

TEST_F(PinholeTest, AStaticOneHasANumberButIsNobodysToChange) {
  policy.statics = {{Transport::tcp, port(8443), {nas, port(8443)}, "web", "t:1"}};
  boot();
  const auto answer = opened(wish(nas, 8443));
  ASSERT_NE(id_of(answer), 0);
  EXPECT_EQ(id_of(opened(wish(nas, 8443))), id_of(answer));
  EXPECT_EQ((**answer->outcome).remaining_s, 0u);
  EXPECT_EQ(closed(id_of(answer), nas)->error(), MappingErrc::not_owned_here);
  EXPECT_EQ(renewed(id_of(answer), nas, 60)->error(), MappingErrc::not_owned_here);
  EXPECT_TRUE(service->find_pinhole(id_of(answer), nas, now()));
}

TEST_F(PinholeTest, AFailedCommitTakesItBack) {  // POL-STO-01
  boot();
  auto answer = std::make_shared<Answer<Pinhole>>();
  service->grant_pinhole(wish(nas, 8443), now(),
                         [answer](const Outcome<Pinhole>& outcome, TimePoint) { answer->outcome = outcome; });
  EXPECT_TRUE(answer->waits());
  store->fail("disk full");
  service->commit_results(now());
  EXPECT_EQ(answer->error(), MappingErrc::store_unavailable);
  EXPECT_FALSE(is_pinhole(nas, 8443));
  EXPECT_EQ(service->find_pinhole(1, nas, now()).error().reason, MappingErrc::not_found);
}

TEST_F(PinholeTest, RequestsBehindADeletionRunInTheirOrder) {
  boot();
  const auto id = id_of(opened(wish(nas, 8443)));
  std::string story;
  service->release_pinhole(
      id, nas, now(), [&](const Outcome<void>& o, TimePoint) { story += o ? "closed " : "not closed "; });
  service->renew_pinhole(id, nas, 60, now(), [&](const Outcome<Pinhole>& o, TimePoint) {
    story += o ? "renewed " : o.error().reason == MappingErrc::not_found ? "unknown " : "failed ";
  });
  service->grant_pinhole(wish(nas, 8443), now(), [&](const Outcome<Pinhole>& o, TimePoint) {
    story += o ? "opened " : "not opened ";
  });
  commit();
  commit();
  EXPECT_EQ(story, "closed unknown opened ");
}

}  // namespace
}  // namespace sallyport::test
