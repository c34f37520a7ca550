#include "tests/src/lease/service_fixture.hpp"

namespace sallyport::test {
namespace {

using LeaseServiceTest = ServiceTest;

// --- granting
// -------------------------------------------------------------------------------------------------

TEST_F(LeaseServiceTest, AnswersOnlyWhenTheDoorIsOpenAndTheStoreIsSynced) {  // POL-STO-01, PCP-11.3-19
  boot();
  const auto answer = ask(suggesting(pcp(console, 8080), 8080));
  EXPECT_TRUE(is_open(8080));
  EXPECT_TRUE(answer->waits());
  service->commit_results(now());
  EXPECT_TRUE(answer->waits()) << "nothing was committed";
  commit();
  ASSERT_TRUE(answer->ok());
  EXPECT_EQ(port_of(answer), 8080);
  EXPECT_EQ((**answer->outcome).external.address, external);
  EXPECT_EQ((**answer->outcome).lifetime_s, 3600u);
  EXPECT_EQ(disk.leases.size(), 1u);
  EXPECT_EQ(answer->times, 1);
  EXPECT_EQ(recorder.story(), "granted/requested ");
}

TEST_F(LeaseServiceTest, CutsTheLifetimeToTheWindowOfTheProtocol) {  // PCP-15-03, NPM-3.3-17, NPM-3.3-24
  boot();
  EXPECT_EQ((**granted(pcp(console, 1, 1))->outcome).lifetime_s, 120u);
  EXPECT_EQ((**granted(pcp(console, 2, 0xffffffff))->outcome).lifetime_s, 86400u);
  EXPECT_EQ((**granted(natpmp(console, 3, 1))->outcome).lifetime_s, 1u);
  EXPECT_EQ((**granted(natpmp(console, 4, 0xffffffff))->outcome).lifetime_s, 86400u);
}

TEST_F(LeaseServiceTest, AnyLifetimeOf32BitsWorksNowAndAsLongAsItWasGranted) {  // POL-NUM-04
  policy.pcp_max = policy.natpmp_max = 0xffffffff;
  for (const std::uint32_t lifetime : {120u, 0x7fffffffu, 0x80000000u, 0xfffffffeu, 0xffffffffu}) {
    SCOPED_TRACE(lifetime);
    clock = ManualClock{};
    disk = Disk{};
    restart();
    const auto request = suggesting(pcp(console, 7000, lifetime), 7000);
    ASSERT_TRUE(granted(request)->ok());
    EXPECT_TRUE(is_open(7000));
    pass(std::chrono::seconds{lifetime} - 1s);
    EXPECT_TRUE(is_open(7000));
    EXPECT_EQ(listed(), 1u);
    pass(1s);
    EXPECT_FALSE(is_open(7000));
    EXPECT_EQ(listed(), 0u);
    commit();
  }
}

TEST_F(LeaseServiceTest, ASecondDeviceThatSuggestsTheSamePortGetsAnother) {  // PCP-11.3-11, NPM-3.3-06
  boot();
  EXPECT_EQ(port_of(granted(suggesting(natpmp(console, 3074), 3074))), 3074);
  const auto other = granted(suggesting(natpmp(camera, 3074), 3074));
  ASSERT_TRUE(other->ok());
  EXPECT_NE(port_of(other), 3074);
  EXPECT_GE(port_of(other), 1024);
}

TEST_F(LeaseServiceTest, ARepeatedRequestIsOneLease) {  // POL-OWN-07, PCP-11.3-08, NPM-3.3-13
  boot();
  const auto first = granted(suggesting(pcp(console, 8080), 9000));
  const auto again = granted(suggesting(pcp(console, 8080), 9001));
  EXPECT_EQ(port_of(again), port_of(first)) << "PCP-11.3-07: whatever is suggested";
  EXPECT_EQ(number_of(again), number_of(first));
  EXPECT_EQ(listed(), 1u);
}

TEST_F(LeaseServiceTest, CopiesOfARequestThatIsOnItsWayToTheDiskGetTheSameAnswer) {  // PCP-X-10
  boot();
  const auto first = ask(pcp(console, 8080));
  const auto queued = store->queued();
  const auto second = ask(pcp(console, 8080)), third = ask(pcp(console, 8080));
  EXPECT_EQ(store->queued(), queued) << "a copy costs no write";
  commit();
  ASSERT_TRUE(first->ok() && second->ok() && third->ok());
  EXPECT_EQ(number_of(first), number_of(third));
  EXPECT_EQ(port_of(first), port_of(second));
  EXPECT_EQ(service->list({}, now()).at(0).renewals, 0u);
  EXPECT_EQ(recorder.story(), "granted/requested ");
}

TEST_F(LeaseServiceTest, CopiesOfARequestThatFailsAllFail) {
  boot();
  const auto first = ask(suggesting(pcp(console, 8080), 8080)),
             second = ask(suggesting(pcp(console, 8080), 8080));
  store->fail("disk full");
  service->commit_results(now());
  EXPECT_EQ(first->error(), MappingErrc::store_unavailable);
  EXPECT_EQ(second->error(), MappingErrc::store_unavailable);
  EXPECT_FALSE(is_open(8080));
  EXPECT_EQ(service->status().leases, 0u);
}

TEST_F(LeaseServiceTest, WithoutAnExternalAddressNothingIsGranted) {  // PCP-11.3-17, NPM-3.2-06
  network.external.clear();
  boot();
  EXPECT_EQ(granted(pcp(console, 8080))->error(), MappingErrc::no_external_address);
  EXPECT_FALSE(service->external_address(console));
  network.external = {external};
  plane.set_network(network, now());
  service->set_network(network, now());
  EXPECT_TRUE(granted(pcp(console, 8080))->ok());
  EXPECT_EQ(*service->external_address(console), external);
}

TEST_F(LeaseServiceTest, TcpDoesNotOpenUdp) {  // PCP-11.3-14, NPM-3.3-08
  boot();
  granted(suggesting(pcp(console, 8080), 8080));
  EXPECT_TRUE(is_open(8080, Transport::tcp));
  EXPECT_FALSE(is_open(8080, Transport::udp));
}

// --- ownership
// ------------------------------------------------------------------------------------------------

TEST_F(LeaseServiceTest, AnotherNonceNeitherRenewsNorEnds) {  // PCP-11.3-06, PCP-15.1-10
  boot();
  granted(pcp(console, 8080, 3600, 1));
  pass(600s + 500ms);
  const auto renewal = granted(pcp(console, 8080, 7200, 2));
  EXPECT_EQ(renewal->error(), MappingErrc::foreign_nonce);
  EXPECT_EQ(renewal->retry(), 3000u) << "what remains, rounded up";
  const auto deletion = drop(pcp(console, 8080, 0, 2));
  EXPECT_EQ(deletion->error(), MappingErrc::foreign_nonce);
  EXPECT_EQ(deletion->retry(), 3000u);
  EXPECT_EQ(listed(), 1u);
}

TEST_F(LeaseServiceTest, TheRightNonceFromAnotherDeviceIsWorthNothing) {  // POL-OWN-01
  boot();
  granted(suggesting(pcp(console, 8080), 8080));
  auto foreign = pcp(console, 8080);
  foreign.requester = camera;
  EXPECT_EQ(granted(foreign)->error(), MappingErrc::not_authorized);
  EXPECT_EQ(drop(foreign)->error(), MappingErrc::not_authorized);
  foreign.third_party = true;  // nobody is on the list
  EXPECT_EQ(granted(foreign)->error(), MappingErrc::not_authorized);
  EXPECT_EQ(drop(foreign)->error(), MappingErrc::not_authorized);
  EXPECT_TRUE(is_open(8080));
}

TEST_F(LeaseServiceTest, AClientOnTheListActsForOthers) {  // PCP-13.1-06, PCP-15.1-11
  policy.third_party = {*Prefix::parse("192.168.1.20")};
  boot();
  auto request = suggesting(pcp(console, 8080), 8080);
  request.requester = camera;
  request.third_party = true;
  request.contact.client = camera;
  ASSERT_TRUE(granted(request)->ok());
  EXPECT_EQ(service->list({}, now()).at(0).internal.address, console);
  EXPECT_EQ(service->list({}, now()).at(0).contact.client, camera);
  const auto gone = drop(request);
  commit();
  EXPECT_TRUE(gone->ok());
  EXPECT_FALSE(is_open(8080));
}

TEST_F(LeaseServiceTest, NatPmpOnWhatPcpMappedSharesThePortAndShortensNothing) {  // NPM-3.3-25, POL-OWN-04
  boot();
  const auto by_pcp = granted(suggesting(pcp(console, 8080, 3600), 8080));
  const auto by_natpmp = granted(suggesting(natpmp(console, 8080, 60), 9999));
  EXPECT_EQ(port_of(by_natpmp), 8080);
  EXPECT_NE(number_of(by_natpmp), number_of(by_pcp));
  EXPECT_EQ((**by_natpmp->outcome).lifetime_s, 60u);
  EXPECT_EQ(listed(), 2u) << "two leases, one door";
  pass(60s);
  commit();
  EXPECT_EQ(listed(), 1u);
  EXPECT_TRUE(is_open(8080));
  pass(3540s);
  EXPECT_FALSE(is_open(8080));
}

TEST_F(LeaseServiceTest, TheMappingLivesUntilItsLastLeaseEnds) {  // POL-OWN-04
  boot();
  granted(suggesting(pcp(console, 8080, 120), 8080));
  granted(natpmp(console, 8080, 3600));
  const auto gone = drop(natpmp(console, 8080));
  commit();
  EXPECT_TRUE(gone->ok());
  EXPECT_TRUE(is_open(8080));
  pass(119s);
  EXPECT_TRUE(is_open(8080));
  pass(1s);
  EXPECT_FALSE(is_open(8080)) << "the hour of the deleted lease does not count";
}

TEST_F(LeaseServiceTest, AProtocolEndsOnlyLeasesItMade) {  // POL-OWN-05, NPM-3.4-15
  boot();
  granted(suggesting(pcp(console, 8080), 8080));
  EXPECT_EQ(drop(natpmp(console, 8080))->error(), MappingErrc::not_owned_here);
  granted(suggesting(natpmp(console, 8081), 8081));
  EXPECT_EQ(drop(pcp(console, 8081))->error(), MappingErrc::not_owned_here);
  EXPECT_TRUE(is_open(8080) && is_open(8081));
}

TEST_F(LeaseServiceTest, PcpIsToldThatAnImplicitMappingIsNotItsToEnd) {  // PCP-15.1-09, NPM-3.4-08
  boot();
  plane.implicit[{Transport::tcp, console, 8080}] = 50000;
  EXPECT_EQ(drop(pcp(console, 8080))->error(), MappingErrc::not_owned_here);
  EXPECT_TRUE(drop(natpmp(console, 8080))->ok());
  EXPECT_TRUE(drop(pcp(console, 8081))->ok()) << "another port has none";
  EXPECT_TRUE(drop(pcp(camera, 8080))->ok()) << "another device has none";
  granted(pcp(console, 8080));
  const auto gone = drop(pcp(console, 8080));
  commit();
  EXPECT_TRUE(gone->ok()) << "a lease of its own is, whatever else uses the port";
  EXPECT_EQ(listed(), 0u);
}

TEST_F(LeaseServiceTest, ARenewalMayShorten) {  // PCP-15-07
  boot();
  granted(suggesting(pcp(console, 8080, 3600), 8080));
  granted(pcp(console, 8080, 120));
  pass(120s);
  EXPECT_FALSE(is_open(8080));
}

// --- insisting
// ------------------------------------------------------------------------------------------------

TEST_F(LeaseServiceTest, InsistingGetsJustThatPortOrSaysHowLongItIsHeld) {  // PCP-13.2-02, PCP-13.2-03
  boot();
  granted(suggesting(pcp(console, 8080, 1000), 8080));
  pass(100s + 1ms);
  const auto refused = granted(suggesting(pcp(camera, 80), 8080, true));
  EXPECT_EQ(refused->error(), MappingErrc::insisted_port_taken);
  EXPECT_EQ(refused->retry(), 900u);
  EXPECT_EQ(port_of(granted(suggesting(pcp(camera, 80), 8081, true))), 8081);
}

TEST_F(LeaseServiceTest, InsistingOnWhatIsNeverGivenIsRefusedForLong) {  // PCP-13.2-04, POL-TGT-03
  plane.own_ports = {{Transport::tcp, 5000}};
  boot();
  for (const std::uint16_t forbidden : {80, 1023, 5000}) {
    const auto refused = granted(suggesting(pcp(console, 8080), forbidden, true));
    EXPECT_EQ(refused->error(), MappingErrc::insisted_port_forbidden) << forbidden;
    EXPECT_EQ(refused->retry(), 1800u);
  }
  const auto low = granted(suggesting(pcp(console, 8080), 80));
  EXPECT_GE(port_of(low), 1024) << "without insisting: one from 1024 up";
}

TEST_F(LeaseServiceTest, ARenewalThatInsistsOnAnotherPortChangesNothing) {  // PCP-13.2-07
  boot();
  granted(suggesting(pcp(console, 8080, 1000), 8080));
  const auto refused = granted(suggesting(pcp(console, 8080, 9000), 8081, true));
  EXPECT_EQ(refused->error(), MappingErrc::insisted_port_taken);
  EXPECT_EQ(refused->retry(), 1000u);
  EXPECT_TRUE(is_open(8080));
  EXPECT_EQ(service->list({}, now()).at(0).lifetime_s, 1000u);
  EXPECT_TRUE(granted(suggesting(pcp(console, 8080, 9000), 8080, true))->ok());
}

TEST_F(LeaseServiceTest, InsistingOnAnAddressThatIsNotOurs) {  // PCP-13.2-02
  boot();
  auto request = pcp(console, 8080);
  request.insist = true;
  request.suggested_address = address("203.0.113.99");
  EXPECT_EQ(granted(request)->error(), MappingErrc::insisted_port_forbidden);
  request.suggested_address = external;
  EXPECT_TRUE(granted(request)->ok());
}

// --- filters
// --------------------------------------------------------------------------------------------------

TEST_F(LeaseServiceTest, FiltersAddUpUntilTheyAreCleared) {  // PCP-13.3-05, PCP-13.3-06
  boot();
  const RemoteFilter one{*Prefix::parse("198.51.100.0/24"), std::nullopt},
      two{*Prefix::parse("192.0.2.1"), port(53)};
  auto request = suggesting(pcp(console, 8080), 8080);
  request.filters = {one};
  granted(request);
  EXPECT_EQ(plane.at(Transport::tcp, 8080, now())->spec.remotes, (std::vector{one}));
  request.filters = {two};
  granted(request);
  EXPECT_EQ(plane.at(Transport::tcp, 8080, now())->spec.remotes, (std::vector{one, two}));
  request.filters = {two};
  request.clear_filters = true;
  granted(request);
  EXPECT_EQ(plane.at(Transport::tcp, 8080, now())->spec.remotes, (std::vector{two}));
  request.filters.clear();
  granted(request);
  EXPECT_TRUE(plane.at(Transport::tcp, 8080, now())->spec.remotes.empty());
}

TEST_F(LeaseServiceTest, OneLeaseWithoutFiltersOpensTheMappingToAll) {
  boot();
  auto filtered = suggesting(pcp(console, 8080, 3600), 8080);
  filtered.filters = {{*Prefix::parse("198.51.100.0/24"), std::nullopt}};
  granted(filtered);
  granted(natpmp(console, 8080, 60));
  EXPECT_TRUE(plane.at(Transport::tcp, 8080, now())->spec.remotes.empty());
  pass(60s);
  EXPECT_EQ(plane.at(Transport::tcp, 8080, now())->spec.remotes, filtered.filters);
}

TEST_F(LeaseServiceTest, TooManyFiltersChangeNothing) {  // PCP-13.3-08, PCP-13.3-10
  boot();
  auto request = suggesting(pcp(console, 8080), 8080);
  for (std::uint32_t i = 0; i < 32; ++i)
    request.filters.push_back({Prefix::v4(0xc6336400 + i, 32), std::nullopt});
  ASSERT_TRUE(granted(request)->ok());
  request.filters = {{*Prefix::parse("192.0.2.1"), std::nullopt}};
  EXPECT_EQ(granted(request)->error(), MappingErrc::too_many_filters);
  EXPECT_EQ(plane.at(Transport::tcp, 8080, now())->spec.remotes.size(), 32u);
}

// --- releasing
// ------------------------------------------------------------------------------------------------

TEST_F(LeaseServiceTest, ADeletionClosesTheDoorOnceItIsOnDisk) {  // PCP-15.1-01, POL-STO-01
  boot();
  granted(suggesting(pcp(console, 8080), 8080));
  const auto gone = drop(pcp(console, 8080));
  EXPECT_TRUE(gone->waits());
  EXPECT_TRUE(is_open(8080));
  EXPECT_EQ(service->list({}, now()).at(0).state, LeaseState::ending);
  commit();
  EXPECT_TRUE(gone->ok());
  EXPECT_FALSE(is_open(8080));
  EXPECT_TRUE(disk.leases.empty());
  EXPECT_EQ(plane.withdrawn.back().second, nat::Ending::reset);
  EXPECT_EQ(recorder.story(), "granted/requested ended/requested ");
}

TEST_F(LeaseServiceTest, EndingWhatDoesNotExistSucceeds) {  // PCP-15.1-07, NPM-3.4-06
  boot();
  const auto queued = store->queued();
  EXPECT_TRUE(drop(pcp(console, 8080))->ok());
  EXPECT_TRUE(drop(natpmp(console, 8080))->ok());
  EXPECT_TRUE(drop_all(console)->ok());
  EXPECT_EQ(store->queued(), queued) << "and costs no write";
}

TEST_F(LeaseServiceTest, EndedLeasesDrainWhenSoConfigured) {  // NMAP-09
  policy.ended_leases = nat::Ending::drain;
  boot();
  granted(pcp(console, 8080, 120));
  pass(120s);
  EXPECT_EQ(plane.withdrawn.back().second, nat::Ending::drain);
}

TEST_F(LeaseServiceTest, RequestsBehindADeletionWaitForItInOrder) {  // PCP-8.2-14
  boot();
  granted(suggesting(pcp(console, 8080, 3600, 1), 8080));
  const auto deletion = drop(pcp(console, 8080, 0, 1));
  const auto creation =
      ask(suggesting(pcp(console, 8080, 600, 2), 8080));  // with a new nonce: lawful once it is gone
  const auto copy = drop(pcp(console, 8080, 0, 2));
  const auto last = ask(suggesting(pcp(console, 8080, 700, 3), 8080));
  for (int i = 0; i < 4; ++i) commit();
  EXPECT_TRUE(deletion->ok());
  ASSERT_TRUE(creation->ok());
  EXPECT_TRUE(copy->ok());
  ASSERT_TRUE(last->ok());
  EXPECT_NE(number_of(creation), number_of(last));
  EXPECT_EQ(service->list({}, now()).at(0).lifetime_s, 700u);
  EXPECT_EQ(disk.leases.size(), 1u);
}

TEST_F(LeaseServiceTest, RequestsForOtherPortsDoNotWait) {
  boot();
  granted(pcp(console, 8080));
  drop(pcp(console, 8080));
  store->commit();  // the deletion is on disk, its result not yet taken
  const auto other = ask(pcp(console, 8081));
  store->commit();
  service->commit_results(now());
  EXPECT_TRUE(other->ok());
}

TEST_F(LeaseServiceTest, DeleteAllTakesWhatItMayAndNoMore) {  // NPM-3.4-10..13, POL-OWN-06
  boot();
  for (std::uint16_t p = 1; p <= 5; ++p) granted(natpmp(console, p));
  auto udp = natpmp(console, 1);
  udp.transport = Transport::udp;
  granted(udp);
  granted(natpmp(camera, 1));
  granted(pcp(console, 6));
  const auto gone = drop_all(console);
  EXPECT_TRUE(gone->waits());
  commit();
  EXPECT_TRUE(gone->ok()) << "leases of other protocols are not meant";
  EXPECT_EQ(listed(), 3u);
}

TEST_F(LeaseServiceTest, DeleteAllOfThousandsRunsInSlicesAndKeepsItsPlaceInTheOrder) {  // POL-FAIR-04
  policy.leases_per_device = 0;
  boot();
  for (std::uint16_t p = 1; p <= 3000; ++p) ask(natpmp(console, p));
  commit();
  const auto gone = drop_all(console);
  EXPECT_LE(store->queued(), 300u) << "one slice";
  const auto after = ask(natpmp(console, 2999, 100));
  const auto early = ask(natpmp(console, 1, 100));
  run_slices();
  commit();
  EXPECT_TRUE(gone->ok());
  EXPECT_TRUE(after->ok() && early->ok());
  EXPECT_EQ(listed(), 2u);
}

TEST_F(LeaseServiceTest, DeleteAllMeetsAStaticMapping) {  // NPM-3.4-12
  policy.statics = {{Transport::tcp, port(443), {console, port(8443)}, "web", "sallyport.toml:3"}};
  boot();
  granted(natpmp(console, 1));
  const auto gone = drop_all(console);
  commit();
  EXPECT_EQ(gone->error(), MappingErrc::not_owned_here);
  EXPECT_EQ(listed(), 1u) << "all others still go";
  EXPECT_TRUE(drop_all(console, Transport::udp)->ok());
}

TEST_F(LeaseServiceTest, DeleteAllTwiceAtOnceAnswersBothAfterTheCommit) {
  boot();
  granted(natpmp(console, 1));
  const auto one = drop_all(console), two = drop_all(console);
  EXPECT_TRUE(one->waits() && two->waits());
  commit();
  EXPECT_TRUE(one->ok() && two->ok());
}

// --- targets, quotas, policy
// ----------------------------------------------------------------------------------

TEST_F(LeaseServiceTest, NoRuleCanAllowATargetThatIsNoHostOfTheLan) {  // POL-TGT-02
  policy.third_party = {*Prefix::parse("0.0.0.0/0")};
  policy.rules = {{.allow = true, .where = ""}};
  boot();
  for (const auto* target : {"192.168.1.1", "203.0.113.7", "0.0.0.0", "0.1.2.3", "127.0.0.1", "169.254.1.1",
                             "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.168.1.0", "192.168.1.255",
                             "192.168.2.5", "8.8.8.8", "::1", "2001:db8::1"}) {
    auto request = pcp(address(target), 8080);
    EXPECT_EQ(granted(request)->error(), MappingErrc::not_authorized) << target;
    request.requester = console;
    request.third_party = true;
    EXPECT_EQ(granted(request)->error(), MappingErrc::not_authorized) << target << " as a third party";
  }
  EXPECT_EQ(plane.installs, 0u);
}

TEST_F(LeaseServiceTest, TheQuotaOfADeviceStopsNewLeasesOnly) {  // POL-QTA-01, PCP-11.3-16
  policy.leases_per_device = 3;
  boot();
  for (std::uint16_t p = 1; p <= 3; ++p) ASSERT_TRUE(granted(pcp(console, p))->ok());
  EXPECT_EQ(granted(pcp(console, 4))->error(), MappingErrc::quota_exceeded);
  EXPECT_EQ(granted(natpmp(console, 1))->error(), MappingErrc::quota_exceeded)
      << "all protocols count together";
  EXPECT_TRUE(granted(pcp(console, 1))->ok()) << "renewals go on";
  EXPECT_TRUE(granted(pcp(camera, 1))->ok()) << "others are not touched";
  const auto gone = drop(pcp(console, 1));
  commit();
  EXPECT_TRUE(gone->ok());
  EXPECT_TRUE(granted(pcp(console, 4))->ok());
}

TEST_F(LeaseServiceTest, TheTotalStopsNewLeases) {  // POL-QTA-02
  policy.leases_total = 2;
  boot();
  granted(pcp(console, 1));
  granted(pcp(camera, 1));
  EXPECT_EQ(granted(pcp(address("192.168.1.30"), 1))->error(), MappingErrc::no_ports_left);
}

TEST_F(LeaseServiceTest, AnExhaustedRangeEvictsNobody) {  // PCP-11.3-18
  policy.external_ports = {2000, 2001};
  boot();
  granted(pcp(console, 1));
  granted(pcp(console, 2));
  EXPECT_EQ(granted(pcp(camera, 3))->error(), MappingErrc::no_ports_left);
  EXPECT_TRUE(is_open(2000) && is_open(2001));
}

TEST_F(LeaseServiceTest, TheFirstRuleThatMatchesDecides) {
  policy.rules = {
      {.device = Prefix::parse("192.168.1.10"),
       .external = {{80, 80}, {443, 443}},
       .transport = {},
       .allow = true,
       .where = ""},
      {.device = Prefix::parse("192.168.1.20"), .external = {}, .transport = {}, .allow = false, .where = ""},
      {.device = {}, .external = {{3000, 3999}}, .transport = Transport::tcp, .allow = false, .where = ""}};
  boot();
  EXPECT_EQ(port_of(granted(suggesting(pcp(console, 80), 80))), 80) << "named by its rule";
  EXPECT_GE(port_of(granted(pcp(console, 81))), 1024) << "but never chosen";
  EXPECT_EQ(granted(pcp(camera, 80))->error(), MappingErrc::not_authorized);
  const auto other = granted(suggesting(pcp(console, 82), 3500));
  EXPECT_TRUE(other->ok());
  EXPECT_TRUE(port_of(other) < 3000 || port_of(other) > 3999);
  EXPECT_EQ(granted(suggesting(pcp(console, 83), 3500, true))->error(), MappingErrc::insisted_port_forbidden);
  auto udp = suggesting(pcp(console, 84), 3500, true);
  udp.transport = Transport::udp;
  EXPECT_EQ(port_of(granted(udp)), 3500);
}

TEST_F(LeaseServiceTest, ALeaseTheNewPolicyForbidsIsNotRenewed) {  // POL-RUN-04
  boot();
  granted(suggesting(pcp(console, 8080, 600), 8080));
  policy.rules = {{.device = Prefix::parse("192.168.1.10"),
                   .external = {{8080, 8080}},
                   .transport = {},
                   .allow = false,
                   .where = ""}};
  service->set_policy(policy, now());
  EXPECT_TRUE(is_open(8080)) << "kept by the reload";
  EXPECT_EQ(granted(pcp(console, 8080, 600))->error(), MappingErrc::not_authorized);
  EXPECT_TRUE(is_open(8080));
  pass(600s);
  EXPECT_FALSE(is_open(8080));
}

TEST_F(LeaseServiceTest, DescriptionsAreCleanedAndCut) {  // POL-TXT-01, POL-TXT-02
  policy.description_octets = 8;
  boot();
  auto request = pcp(console, 8080);
  request.description = std::string{
      "a\n\x1b\xe2\x80\xae"
      "b\xff"};
  EXPECT_EQ((**granted(request)->outcome).description, "a   b\xef\xbf\xbd");
  request.description = std::string{"1234567\xc3\xa9"};
  EXPECT_EQ((**granted(request)->outcome).description, "1234567") << "cut between characters";
  request.description.reset();
  EXPECT_EQ((**granted(request)->outcome).description, "1234567") << "none leaves the old one";
}

// --- static mappings
// ------------------------------------------------------------------------------------------

TEST_F(LeaseServiceTest, ARequestForAStaticMappingIsToldItsPort) {  // PCP-11.3-09, NPM-3.3-12, NPM-3.4-08
  policy.statics = {{Transport::tcp, port(443), {console, port(8443)}, "web", "sallyport.toml:3"}};
  boot();
  commit();
  EXPECT_TRUE(is_open(443));
  const auto by_pcp = granted(suggesting(pcp(console, 8443), 9999));
  EXPECT_EQ(port_of(by_pcp), 443);
  EXPECT_EQ(port_of(granted(natpmp(console, 8443))), 443);
  EXPECT_EQ(listed(), 1u) << "no lease is made of it";
  EXPECT_EQ(service->list({}, now()).at(0).kind, LeaseKind::static_);
  const auto created = service->list({}, now()).at(0).created;
  EXPECT_NE(created, WallTime{}) << "not 1970";
  commit();
  pass(5s);
  restart();
  EXPECT_EQ(service->list({}, now()).at(0).created, created) << "nor the last start";
  EXPECT_EQ(drop(pcp(console, 8443))->error(), MappingErrc::not_owned_here);
  EXPECT_EQ(drop(natpmp(console, 8443))->error(), MappingErrc::not_owned_here);
  EXPECT_EQ(granted(suggesting(pcp(camera, 80), 443, true))->error(), MappingErrc::insisted_port_forbidden);
}

TEST_F(LeaseServiceTest, AStaticMappingAddedByAReloadEndsTheLeaseOnItsPort) {  // POL-RUN-04
  boot();
  granted(suggesting(pcp(console, 8080), 8080));
  granted(suggesting(pcp(console, 8081), 8081));
  policy.statics = {{Transport::tcp, port(8080), {camera, port(80)}, "", "sallyport.toml:3"}};
  service->set_policy(policy, now());
  commit();
  EXPECT_EQ(recorder.story(), "granted/requested granted/requested ended/replaced granted/configured ");
  ASSERT_TRUE(is_open(8080));
  EXPECT_EQ(plane.at(Transport::tcp, 8080, now())->spec.internal.address, camera);
  EXPECT_TRUE(is_open(8081));
  EXPECT_EQ(disk.leases.size(), 1u);
  policy.statics.clear();
  service->set_policy(policy, now());
  EXPECT_FALSE(is_open(8080));
}

TEST_F(LeaseServiceTest, ALeaseThatWasConfiguredJustAsItWasIsNotLost) {
  boot();
  granted(suggesting(pcp(console, 8080), 8080));
  pass(100s);
  const auto epoch = service->epoch_s(now());
  policy.statics = {{Transport::tcp, port(8080), {console, port(8080)}, "", "sallyport.toml:3"}};
  restart();
  EXPECT_EQ(service->epoch_s(now()), epoch);
  EXPECT_EQ(service->list({}, now()).at(0).kind, LeaseKind::static_);
  EXPECT_EQ(listed(), 1u);
}

TEST_F(LeaseServiceTest, AnImplicitPortThatPolicyForbidsIsNotOpened) {
  policy.external_ports = {2000, 3000};
  boot();
  plane.implicit[{Transport::tcp, console, 8080}] = 50000;
  EXPECT_EQ(granted(pcp(console, 8080))->error(), MappingErrc::not_authorized);
  EXPECT_EQ(plane.withdrawn.back().second, nat::Ending::drain);
  EXPECT_EQ(listed(), 0u);
  plane.implicit[{Transport::tcp, console, 8081}] = 2500;
  EXPECT_EQ(port_of(granted(pcp(console, 8081))), 2500) << "PCP-11.3-10";
}

TEST_F(LeaseServiceTest, TheIdOfAStaticMappingSurvivesARestart) {
  policy.statics = {{Transport::tcp, port(443), {console, port(8443)}, "web", "sallyport.toml:3"}};
  boot();
  commit();
  const auto id = service->list({}, now()).at(0).id;
  restart();
  EXPECT_EQ(service->list({}, now()).at(0).id, id);
}

// --- expiry
// ---------------------------------------------------------------------------------------------------

TEST_F(LeaseServiceTest, ALeaseEndsAtItsDeadlineAndItsPortIsFreeAgain) {  // PCP-15-02, NPM-3.4-01
  boot();
  granted(suggesting(natpmp(console, 8080, 10), 8080));
  EXPECT_EQ(*service->next_deadline(), now() + 10s);
  pass(10s - 1ns);
  EXPECT_TRUE(is_open(8080)) << "never early";
  pass(1ns);
  EXPECT_FALSE(is_open(8080));
  EXPECT_EQ(plane.mappings.size(), 0u) << "withdrawn, not only past its deadline";
  EXPECT_EQ(recorder.story(), "granted/requested ended/expired ");
  commit();
  EXPECT_TRUE(disk.leases.empty());
  EXPECT_EQ(port_of(granted(suggesting(pcp(camera, 1), 8080))), 8080);
}

TEST_F(LeaseServiceTest, ThousandsExpireInTheirOrder) {
  policy.leases_per_device = 0;
  boot();
  std::mt19937 random{7};
  for (std::uint16_t p = 1; p <= 5000; ++p) ask(natpmp(console, p, 1 + random() % 10000));
  commit();
  for (std::uint16_t p = 1; p <= 5000; p += 3) ask(natpmp(console, p, 1 + random() % 10000));
  for (std::uint16_t p = 2; p <= 5000; p += 7) drop(natpmp(console, p));
  commit();
  std::size_t left = listed();
  while (left > 0) {
    clock.advance(*service->next_deadline() - now());
    service->handle_timeout(now());
    store->commit();
    service->commit_results(now());
    for (const auto& view : service->list({}, now())) ASSERT_GT(*view.deadline, now());
    left = service->status().leases;
    if (left > 500) pass(500s);
  }
  TimePoint before{};
  for (const auto& event : recorder.events)
    if (event.kind == LeaseEventKind::ended && event.reason == LeaseEventReason::expired) {
      EXPECT_GE(*event.lease.deadline, before);
      before = *event.lease.deadline;
    }
  EXPECT_TRUE(disk.leases.empty());
}

TEST_F(LeaseServiceTest, ASlowDiskDoesNotShortenALease) {  // PCP-15-02: the client counts from the answer
  boot();
  const auto answer = ask(suggesting(natpmp(console, 8080, 2), 8080));
  clock.advance(5s);
  service->handle_timeout(now());
  commit();
  ASSERT_TRUE(answer->ok());
  pass(1999ms);
  EXPECT_TRUE(is_open(8080));
  pass(1ms);
  EXPECT_FALSE(is_open(8080));
}

// --- a store that cannot be written
// ---------------------------------------------------------------------------

TEST_F(LeaseServiceTest, WhatIsKeptIsKnownBeforeItCanBeWritten) {  // or who asks twice makes it up twice
  boot();
  store->fail("disk full");
  service->commit_results(now());
  EXPECT_EQ(service->kept("upnp.uuid"), std::nullopt);
  service->keep("upnp.uuid", "abc");
  EXPECT_EQ(service->kept("upnp.uuid"), "abc");
}

TEST_F(LeaseServiceTest, AFailedCommitTakesBackEverythingNewestFirst) {  // POL-STO-04
  boot();
  granted(suggesting(pcp(console, 1, 1000), 5001));
  granted(suggesting(pcp(console, 2, 1000), 5002));
  auto more = pcp(console, 1, 5000);
  more.description = "later";
  more.filters = {{*Prefix::parse("192.0.2.1"), std::nullopt}};
  const auto renewal = ask(more);
  const auto second_renewal = ask(pcp(console, 1, 6000));
  const auto creation = ask(suggesting(pcp(console, 3), 5003));
  const auto renewal_of_it = ask(suggesting(pcp(console, 3, 7000), 5003));
  const auto deletion = drop(pcp(console, 2));
  const auto waiting = ask(pcp(console, 2, 9000));
  store->fail("disk full");
  service->commit_results(now());
  for (const auto& answer : {renewal, second_renewal, creation, renewal_of_it, waiting})
    EXPECT_EQ(answer->error(), MappingErrc::store_unavailable);
  EXPECT_EQ(deletion->error(), MappingErrc::store_unavailable);
  EXPECT_FALSE(is_open(5003));
  EXPECT_EQ(plane.withdrawn.back().second, nat::Ending::vacate);
  const auto views = service->list({}, now());
  ASSERT_EQ(views.size(), 2u);
  EXPECT_EQ(views[0].lifetime_s, 1000u);
  EXPECT_EQ(views[0].description, "");
  EXPECT_TRUE(plane.at(Transport::tcp, 5001, now())->spec.remotes.empty());
  EXPECT_EQ(plane.at(Transport::tcp, 5001, now())->spec.deadline, now() + 1000s);
  EXPECT_EQ(views[1].state, LeaseState::active);
  EXPECT_EQ(service->status().store_state, "read-only: disk full");
}

TEST_F(LeaseServiceTest, MeanwhileWhatIsThereIsServedAndExpires) {  // POL-STO-04
  boot();
  granted(suggesting(natpmp(console, 1, 100), 5001));
  granted(suggesting(natpmp(console, 2, 1000), 5002));
  ask(pcp(camera, 1));
  store->fail("disk full");
  service->commit_results(now());
  EXPECT_EQ(ask(natpmp(console, 1))->error(), MappingErrc::store_unavailable);
  EXPECT_EQ(drop(natpmp(console, 2))->error(), MappingErrc::store_unavailable);
  EXPECT_TRUE(drop(natpmp(console, 9))->ok()) << "what does not exist is no promise";
  EXPECT_FALSE(revoke({1})->value().failed.empty());
  pass(100s);
  EXPECT_FALSE(is_open(5001));
  EXPECT_TRUE(is_open(5002));
}

TEST_F(LeaseServiceTest, HealsByItselfAndMakesTheStoreEqualToMemory) {  // POL-STO-04
  boot();
  granted(natpmp(console, 1, 100));
  granted(natpmp(console, 2, 1000));
  ask(pcp(camera, 1));
  store->fail("disk full");
  service->commit_results(now());
  pass(1s);  // the first retry, which fails too
  EXPECT_GT(store->queued(), 0u);
  store->fail("disk full");
  service->commit_results(now());
  pass(1s);
  EXPECT_EQ(store->queued(), 0u) << "the intervals grow";
  pass(100s);
  commit();
  EXPECT_EQ(service->status().store_state, "ok");
  ASSERT_EQ(disk.leases.size(), 1u) << "the one that expired meanwhile is gone, the refused one never came";
  EXPECT_EQ(disk.leases.begin()->second.internal_port, 2);
  EXPECT_TRUE(granted(pcp(camera, 1))->ok());
}

TEST_F(LeaseServiceTest, ADamagedStoreThatIsBegunAnewGetsEverything) {
  boot();
  granted(natpmp(console, 1));
  granted(natpmp(console, 2));
  ask(pcp(camera, 1));
  store->fail("malformed", true);
  service->commit_results(now());
  pass(1s);
  commit();
  EXPECT_EQ(disk.leases.size(), 2u);
  EXPECT_EQ(service->status().store_state, "ok");
  EXPECT_TRUE(disk.meta.contains("epoch.boot_ns"));
}

TEST_F(LeaseServiceTest, GrantsWithoutAStoreWhenSoConfigured) {  // [store] on_error = "memory"
  policy.grant_without_store = true;
  boot();
  ask(pcp(camera, 1));
  store->fail("disk full");
  service->commit_results(now());
  EXPECT_TRUE(ask(natpmp(console, 1))->ok()) << "at once";
  EXPECT_TRUE(disk.leases.empty());
  pass(1s);
  commit();
  EXPECT_EQ(disk.leases.size(), 1u) << "written once it can be";
}

TEST_F(LeaseServiceTest, WhatIsGrantedWhileTheStoreHealsIsWrittenToo) {  // [store] on_error = "memory"
  policy.grant_without_store = true;
  boot();
  granted(pcp(console, 8080));
  store->fail("disk full");
  service->commit_results(now());
  pass(2s);  // the writes that heal are on their way
  const auto late = ask(pcp(console, 8081));
  EXPECT_TRUE(late->ok());
  commit();
  EXPECT_EQ(service->status().store_state, "ok");
  commit();
  restart();
  EXPECT_EQ(listed(), 2u);
}

TEST_F(LeaseServiceTest, AHangingDiskDoesNotEatTheMemory) {  // POL-FAIR-05
  policy.leases_per_device = 0;
  boot();
  int refused = 0;
  for (int i = 0; i < 20000; ++i)
    refused += ask(pcp(console, static_cast<std::uint16_t>(1 + i)))->error() == MappingErrc::no_memory;
  EXPECT_EQ(refused, 20000 - 8192);
  commit();
  EXPECT_TRUE(granted(pcp(camera, 1))->ok());
}

// --- restart
// --------------------------------------------------------------------------------------------------

TEST_F(LeaseServiceTest, AfterKill9EveryAcknowledgedLeaseIsBack) {  // POL-STO-02, PCP-8.5-04
  boot();
  auto request = suggesting(pcp(console, 8080, 3600, 5), 8080);
  request.description = "web";
  request.filters = {{*Prefix::parse("198.51.100.0/24"), port(99)}};
  const auto answer = granted(request);
  granted(natpmp(console, 8080, 1800));
  granted(pcp(camera, 9));
  drop(pcp(camera, 9));
  commit();
  ask(pcp(camera, 10));  // never acknowledged
  const auto epoch = service->epoch_s(now());
  clock.advance(600s);
  const auto before = service->list({}, now());
  restart();
  EXPECT_EQ(service->epoch_s(now()), epoch + 600);
  EXPECT_EQ(recorder.epoch_resets, 0);
  const auto views = service->list({}, now());
  ASSERT_EQ(views.size(), 2u);
  for (std::size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(views[i].id, before[i].id);
    EXPECT_EQ(views[i].external, before[i].external);
    EXPECT_EQ(views[i].deadline, before[i].deadline);
    EXPECT_EQ(views[i].lifetime_s, before[i].lifetime_s);
    EXPECT_EQ(views[i].description, before[i].description);
    EXPECT_EQ(views[i].remotes, before[i].remotes);
    EXPECT_EQ(views[i].nonce, before[i].nonce);
    EXPECT_EQ(views[i].contact, before[i].contact);
    EXPECT_EQ(views[i].created, before[i].created);
  }
  EXPECT_TRUE(is_open(8080));
  EXPECT_TRUE(plane.at(Transport::tcp, 8080, now())->spec.remotes.empty()) << "NAT-PMP opens it to all";
  EXPECT_EQ(granted(pcp(console, 8080, 3600, 6))->error(), MappingErrc::foreign_nonce);
  EXPECT_TRUE(granted(pcp(console, 8080, 3600, 5))->ok());
  EXPECT_NE(number_of(granted(pcp(camera, 9))), number_of(answer));
}

TEST_F(LeaseServiceTest, WhatExpiredMeanwhileIsNotPutBack) {
  boot();
  granted(natpmp(console, 1, 100));
  granted(natpmp(console, 2, 200));
  clock.advance(150s);
  restart();
  EXPECT_EQ(listed(), 1u);
  EXPECT_EQ(plane.mappings.size(), 1u);
  EXPECT_EQ(recorder.epoch_resets, 0);
  commit();
  EXPECT_EQ(disk.leases.size(), 1u);
}

TEST_F(LeaseServiceTest, AStepOfTheWallClockShowsNowhere) {  // PCP-8.5-06
  boot();
  granted(suggesting(natpmp(console, 1, 100), 5001));
  const auto epoch = service->epoch_s(now());
  clock.step_wall(std::chrono::hours{24 * 365});
  pass(99s);
  EXPECT_TRUE(is_open(5001));
  EXPECT_EQ(service->epoch_s(now()), epoch + 99);
  restart();
  EXPECT_TRUE(is_open(5001));
  EXPECT_EQ(service->epoch_s(now()), epoch + 99);
  pass(1s);
  EXPECT_FALSE(is_open(5001));
}

TEST_F(LeaseServiceTest, AfterARebootTheWallClockCounts) {
  boot();
  granted(suggesting(natpmp(console, 1, 1000), 5001));
  granted(suggesting(natpmp(console, 2, 100), 5002));
  pass(30s);
  const auto epoch = service->epoch_s(now());
  kill();
  disk.boot = 2;
  clock.advance(300s);
  clock.set_boot(TimePoint{10s});
  boot();
  EXPECT_TRUE(is_open(5001));
  EXPECT_FALSE(is_open(5002));
  EXPECT_NEAR(service->epoch_s(now()), epoch + 300, 1);
  EXPECT_EQ(recorder.epoch_resets, 0);
  pass(668s);
  EXPECT_TRUE(is_open(5001));
  pass(3s);
  EXPECT_FALSE(is_open(5001));
}

TEST_F(LeaseServiceTest, AfterARebootWithoutAClockTheFullRemainderCountsUntilTheClockIsRight) {
  boot();
  granted(suggesting(natpmp(console, 1, 1000), 5001));
  granted(suggesting(natpmp(console, 2, 200), 5002));
  kill();
  disk.boot = 2;
  clock.advance(300s);  // of real time
  clock.set_boot(TimePoint{10s});
  clock.step_wall(-std::chrono::hours{24 * 365 * 50});  // no battery
  boot();
  commit();
  EXPECT_TRUE(is_open(5001));
  EXPECT_TRUE(is_open(5002)) << "nobody can know yet";
  pass(50s);
  clock.step_wall(std::chrono::hours{24 * 365 * 50});  // NTP
  pass(20s);
  EXPECT_FALSE(is_open(5002));
  EXPECT_TRUE(is_open(5001));
  pass(625s);
  EXPECT_TRUE(is_open(5001));
  pass(10s);
  EXPECT_FALSE(is_open(5001)) << "1000 s after it was granted, with the time it was off";
}

TEST_F(LeaseServiceTest, TheTimesStoredFollowAClockThatWasSetLate) {
  clock.step_wall(-std::chrono::hours{24 * 365 * 50});
  boot();
  granted(suggesting(natpmp(console, 1, 86400), 5001));
  clock.step_wall(std::chrono::hours{24 * 365 * 50});
  pass(20s);
  run_slices();
  commit();
  kill();
  disk.boot = 2;
  clock.advance(60s);
  clock.set_boot(TimePoint{10s});
  boot();
  EXPECT_TRUE(is_open(5001));
}

TEST_F(LeaseServiceTest, TheEpochStartsAnewWhenLeasesWereLost) {  // PCP-8.5-02, POL-STO-07, NPM-3.7-02
  boot();
  granted(natpmp(console, 1));
  pass(1000s);
  kill();
  disk.lost = true;
  boot();
  EXPECT_EQ(service->epoch_s(now()), 0u);
  EXPECT_EQ(recorder.epoch_resets, 1);
  commit();
  disk.lost = false;
  clock.advance(10s);
  restart();
  EXPECT_EQ(service->epoch_s(now()), 10u);
}

TEST_F(LeaseServiceTest, ALeaseWhosePortCannotBeHadAgainIsLostAndTheEpochRestarts) {  // POL-STO-07
  boot();
  granted(suggesting(natpmp(console, 1), 5001));
  granted(suggesting(natpmp(console, 2), 5002));
  kill();
  plane.own_ports = {{Transport::tcp, 5001}};
  boot();
  EXPECT_EQ(service->epoch_s(now()), 0u);
  EXPECT_EQ(listed(), 1u);
  EXPECT_EQ(recorder.story(), "ended/lost ");
  EXPECT_FALSE(service->status().warnings.empty());
}

TEST_F(LeaseServiceTest, WhatOthersKeepIsThereAfterARestart) {  // UDA-2-03, UDA-1.2-11, POL-WEB-08
  boot();
  EXPECT_FALSE(service->kept("upnp.uuid"));
  service->keep("upnp.uuid", "00ff");
  service->keep("upnp.boot_id", "6");
  service->keep("upnp.boot_id", "7");
  EXPECT_EQ(service->kept("upnp.boot_id"), "7") << "before it is on disk too";
  commit();
  restart();
  EXPECT_EQ(service->kept("upnp.uuid"), "00ff");
  EXPECT_EQ(service->kept("upnp.boot_id"), "7");
}

TEST_F(LeaseServiceTest, NumbersAreNeverGivenTwice) {
  boot();
  std::set<std::uint64_t> numbers;
  for (int round = 0; round < 5; ++round) {
    for (std::uint16_t p = 1; p <= 300; ++p) {
      const auto answer = granted(natpmp(console, p));
      ASSERT_TRUE(numbers.insert(number_of(answer)).second);
      drop(natpmp(console, p));
      commit();
    }
    restart();
  }
}

TEST_F(LeaseServiceTest, StartsWithAStoreThatCannotBeWrittenAndServesIt) {  // POL-STO-04
  boot();
  granted(suggesting(natpmp(console, 1), 5001));
  kill();
  disk.read_only = "read-only file system";
  boot();
  EXPECT_TRUE(is_open(5001));
  EXPECT_EQ(service->status().store_state, "read-only: read-only file system");
  EXPECT_EQ(ask(natpmp(console, 1))->error(), MappingErrc::store_unavailable);
  pass(2s);
  commit();
  EXPECT_EQ(service->status().store_state, "ok");
  EXPECT_TRUE(granted(natpmp(console, 1))->ok());
}

// --- the external address
// -------------------------------------------------------------------------------------

TEST_F(LeaseServiceTest,
       ANewExternalAddressMovesMappingsAndRestartsTheEpoch) {  // PCP-8.5-03, PCP-11.5-01, POL-RUN-01
  boot();
  granted(suggesting(pcp(console, 1), 5001));
  granted(suggesting(natpmp(camera, 2), 5002));
  pass(100s);
  recorder.epoch_resets = 0;  // the first start of all counts as one
  network.external = {address("198.51.100.9")};
  plane.set_network(network, now());
  service->set_network(network, now());
  EXPECT_EQ(service->epoch_s(now()), 0u);
  EXPECT_EQ(recorder.epoch_resets, 1);
  run_slices();
  EXPECT_EQ(recorder.story(),
            "granted/requested granted/requested changed/address_changed changed/address_changed ");
  EXPECT_EQ(recorder.events.back().lease.external.address, address("198.51.100.9"));
  EXPECT_EQ(recorder.addresses.back(), address("198.51.100.9"));
  EXPECT_EQ((**granted(pcp(console, 1))->outcome).external.address, address("198.51.100.9"));
}

TEST_F(LeaseServiceTest, AnAddressThatGoesAndComesBackCostsNoEpoch) {
  boot();
  granted(suggesting(pcp(console, 1), 5001));
  pass(100s);
  const auto epoch = service->epoch_s(now());
  recorder.epoch_resets = 0;
  network.external.clear();
  plane.set_network(network, now());
  service->set_network(network, now());
  EXPECT_EQ(recorder.addresses.back(), std::nullopt);
  EXPECT_EQ(ask(pcp(console, 1))->error(), MappingErrc::no_external_address);
  network.external = {external};
  plane.set_network(network, now());
  service->set_network(network, now());
  EXPECT_EQ(service->epoch_s(now()), epoch);
  EXPECT_EQ(recorder.epoch_resets, 0);
  EXPECT_TRUE(granted(pcp(console, 1))->ok());
}

TEST_F(LeaseServiceTest, AnAddressThatChangedWhileTheDaemonWasDownCounts) {  // PCP-8.5-03
  boot();
  granted(suggesting(pcp(console, 1), 5001));
  pass(100s);
  commit();
  network.external = {address("198.51.100.9")};
  restart();
  EXPECT_EQ(service->epoch_s(now()), 0u);
  EXPECT_EQ(recorder.epoch_resets, 1);
  run_slices();
  EXPECT_EQ(recorder.story(), "changed/address_changed ");
  EXPECT_TRUE(is_open(5001));
}

TEST_F(LeaseServiceTest, StartedWithoutAnAddressItPutsLeasesBackAllTheSame) {
  boot();
  granted(suggesting(pcp(console, 1), 5001));
  pass(100s);
  const auto epoch = service->epoch_s(now());
  network.external.clear();
  restart();
  EXPECT_EQ(listed(), 1u);
  EXPECT_EQ(service->list({}, now()).at(0).external.address, external) << "the last one known";
  network.external = {external};
  plane.set_network(network, now());
  service->set_network(network, now());
  EXPECT_TRUE(is_open(5001));
  EXPECT_EQ(service->epoch_s(now()), epoch);
}

// --- revoke and block
// -----------------------------------------------------------------------------------------

TEST_F(LeaseServiceTest, ARevokedLeaseEndsAndMayBeAskedForAgain) {
  boot();
  const auto answer = granted(suggesting(pcp(console, 8080), 8080));
  const auto result = revoke({number_of(answer), 99999});
  EXPECT_FALSE(result->has_value()) << "not before the commit";
  commit();
  ASSERT_TRUE(result->has_value());
  EXPECT_EQ((*result)->revoked.size(), 1u);
  ASSERT_EQ((*result)->failed.size(), 1u);
  EXPECT_EQ((*result)->failed[0].second, "no such lease");
  EXPECT_FALSE(is_open(8080));
  EXPECT_EQ(plane.withdrawn.back().second, nat::Ending::reset);
  EXPECT_TRUE(plane.flows_ended.empty()) << "the device's other flows only with a block";
  EXPECT_EQ(recorder.story(), "granted/requested ended/revoked ");
  EXPECT_TRUE(granted(pcp(console, 8080))->ok());
}

TEST_F(LeaseServiceTest, ABlockRefusesDeviceTransportAndPortByEveryProtocol) {
  boot();
  const auto answer = granted(suggesting(pcp(console, 8080), 8080));
  granted(natpmp(console, 8080));
  const auto result = revoke({number_of(answer)}, lease::LeaseService::BlockFor{3600s});
  commit();
  ASSERT_TRUE(result->has_value());
  EXPECT_EQ((*result)->revoked.size(), 2u) << "the door is shut only when every protocol's lease is gone";
  EXPECT_FALSE(is_open(8080));
  EXPECT_EQ(plane.flows_ended, (std::vector{console}));
  EXPECT_EQ(granted(pcp(console, 8080))->error(), MappingErrc::device_blocked);
  EXPECT_EQ(granted(natpmp(console, 8080))->error(), MappingErrc::device_blocked);
  EXPECT_TRUE(granted(pcp(console, 8081))->ok());
  EXPECT_TRUE(granted(pcp(camera, 8080))->ok());
  auto udp = pcp(console, 8080);
  udp.transport = Transport::udp;
  EXPECT_TRUE(granted(udp)->ok());
  restart();
  EXPECT_EQ(granted(pcp(console, 8080))->error(), MappingErrc::device_blocked) << "kept over restarts";
  ASSERT_EQ(service->blocks(now()).size(), 1u);
  EXPECT_EQ(service->blocks(now())[0].lease, number_of(answer));
  pass(3600s);
  EXPECT_TRUE(granted(pcp(console, 8080))->ok());
  EXPECT_TRUE(service->blocks(now()).empty());
}

TEST_F(LeaseServiceTest, BlockingManyLeasesEndsTheFlowsOfEachDeviceOnce) {  // POL-FAIR-04
  boot();
  const auto first = granted(pcp(console, 8080)), second = granted(pcp(console, 8081)),
             other = granted(pcp(camera, 8080));
  revoke({number_of(first), number_of(second), number_of(other)}, lease::LeaseService::BlockFor{3600s});
  commit();
  EXPECT_EQ(plane.flows_ended, (std::vector{console, camera}));
  EXPECT_EQ(service->blocks(now()).size(), 3u);
}

TEST_F(LeaseServiceTest, AnUnblockedDeviceMayAskAgain) {
  boot();
  const auto answer = granted(pcp(console, 8080));
  revoke({number_of(answer)}, lease::LeaseService::BlockFor{std::nullopt});
  commit();
  EXPECT_EQ(granted(pcp(console, 8080))->error(), MappingErrc::device_blocked);
  std::optional<std::size_t> lifted;
  const std::uint64_t numbers[] = {number_of(answer), 12345};
  service->unblock(numbers, now(), [&](std::size_t count, TimePoint) { lifted = count; });
  EXPECT_FALSE(lifted);
  commit();
  EXPECT_EQ(lifted, 1u);
  EXPECT_TRUE(granted(pcp(console, 8080))->ok());
  EXPECT_TRUE(disk.blocks.empty());
}

TEST_F(LeaseServiceTest, AFailedCommitTakesBackABlock) {
  boot();
  const auto answer = granted(suggesting(pcp(console, 8080), 8080));
  const auto result = revoke({number_of(answer)}, lease::LeaseService::BlockFor{std::nullopt});
  store->fail("disk full");
  service->commit_results(now());
  ASSERT_TRUE(result->has_value());
  EXPECT_TRUE((*result)->revoked.empty());
  EXPECT_EQ((*result)->failed.size(), 1u);
  EXPECT_TRUE(service->blocks(now()).empty());
  EXPECT_TRUE(is_open(8080));
  EXPECT_EQ(service->list({}, now()).at(0).state, LeaseState::active);
}

TEST_F(LeaseServiceTest, RevokingThousandsRunsInSlicesAndAnswersOnce) {  // POL-FAIR-04
  policy.leases_per_device = 0;
  boot();
  for (std::uint16_t p = 1; p <= 3000; ++p) ask(natpmp(console, p));
  commit();
  std::vector<std::uint64_t> all;
  for (const auto& view : service->list({}, now())) all.push_back(view.number);
  const auto result = revoke(all);
  EXPECT_LE(store->queued(), 300u);
  run_slices();
  commit();
  ASSERT_TRUE(result->has_value());
  EXPECT_EQ((*result)->revoked.size(), 3000u);
  EXPECT_EQ(listed(), 0u);
}

TEST_F(LeaseServiceTest, AStaticMappingCannotBeRevoked) {
  policy.statics = {{Transport::tcp, port(443), {console, port(8443)}, "web", "sallyport.toml:3"}};
  boot();
  const auto result = revoke({service->list({}, now()).at(0).number});
  ASSERT_TRUE(result->has_value());
  EXPECT_EQ((*result)->failed.at(0).second, "it comes from the configuration: sallyport.toml:3");
}

// --- lists
// ----------------------------------------------------------------------------------------------------

TEST_F(LeaseServiceTest, ListsByFilterAndFindsByPrefix) {
  boot();
  granted(suggesting(pcp(console, 1), 6001));
  granted(suggesting(natpmp(console, 2), 6002));
  auto udp = suggesting(natpmp(camera, 3), 6003);
  udp.transport = Transport::udp;
  granted(udp);
  EXPECT_EQ(service->list({.device = "192.168.1.10"}, now()).size(), 2u);
  EXPECT_EQ(service->list({.transport = Transport::udp}, now()).size(), 1u);
  EXPECT_EQ(service->list({.via = Via::natpmp}, now()).size(), 2u);
  EXPECT_EQ(service->list({.external = PortRange{6002, 6003}}, now()).size(), 2u);
  EXPECT_EQ(service->list({.internal = PortRange{3, 3}}, now()).size(), 1u);
  EXPECT_EQ(service->list({.kind = LeaseKind::static_}, now()).size(), 0u);
  const auto view = service->list({}, now()).at(1);
  EXPECT_EQ(view.counters.bytes_in, 100u);
  ASSERT_EQ(service->find(view.id, now()).size(), 1u);
  EXPECT_EQ(service->find(view.id, now())[0].number, view.number);
  EXPECT_FALSE(service->find(view.id.substr(0, 1), now()).empty());
  EXPECT_TRUE(service->find("", now()).empty());
  EXPECT_TRUE(service->find("0000", now()).empty());
}

}  // namespace
}  // namespace sallyport::test
