// Sets of ports (RFC 7753): one lease to the client, one for each port to everybody else.
#include <set>

#include "nat/plane/memory/memory_plane.hpp"
#include "tests/src/lease/service_fixture.hpp"

namespace sallyport::test {
namespace {

class SetTest : public ServiceTest {
 protected:
  GrantRequest set(const Address& device, std::uint16_t first, std::uint16_t ports,
                   std::uint32_t lifetime = 3600, std::uint8_t n = 1) {
    auto request = pcp(device, first, lifetime, n);
    request.ports = ports;
    return request;
  }
  static GrantRequest with_parity(GrantRequest request) {
    request.parity = true;
    return request;
  }
  /// "INTERNAL>EXTERNAL+PORTS for SECONDS", or why not.
  std::string tell(const GrantRequest& request, const std::shared_ptr<Answer<Granted>>& answer) {
    if (answer->waits()) return "waits";
    if (!answer->ok())
      return make_error_code(*answer->error()).message() + " for " + std::to_string(answer->retry());
    const auto& granted = **answer->outcome;
    return std::to_string(request.internal.port.number()) + ">" +
           std::to_string(granted.external.port.number()) + "+" + std::to_string(granted.ports) + " for " +
           std::to_string(granted.lifetime_s);
  }
  std::string told(const GrantRequest& request) { return tell(request, granted(request)); }
  std::shared_ptr<Answer<void>> end(const GrantRequest& of) {
    auto answer = std::make_shared<Answer<void>>();
    ReleaseRequest request{.internal = of.internal};
    request.via = of.via;
    request.transport = of.transport;
    request.requester = of.requester;
    request.nonce = of.nonce;
    request.ports = of.ports;
    service->release(request, now(), [answer](const Outcome<void>& outcome, TimePoint) {
      answer->outcome = outcome;
      ++answer->times;
    });
    return answer;
  }
  /// "VIA INTERNAL>EXTERNAL" of every lease, in the order of the list.
  std::string table() {
    std::string text;
    for (const auto& view : service->list({}, now()))
      text += std::string{to_string(view.via)} + " " + std::to_string(view.internal.port.number()) + ">" +
              std::to_string(view.external.port.number()) + " ";
    return text;
  }
  std::size_t open_ports() {
    std::size_t open = 0;
    for (const auto& [id, held] : plane.mappings) open += held.spec.deadline > now();
    return open;
  }
  std::vector<std::uint64_t> numbers() { return service->list_numbers({}, now()); }
};

const std::string taken = make_error_code(MappingErrc::insisted_port_taken).message();
const std::string forbidden = make_error_code(MappingErrc::insisted_port_forbidden).message();
const std::string other_nonce = make_error_code(MappingErrc::foreign_nonce).message();

TEST_F(SetTest, IsAnsweredWhenAllOfItIsInForceAndSynced) {  // PSET-4-04, PSET-4-06
  boot();
  const auto request = suggesting(set(console, 6000, 4), 7000);
  const auto answer = ask(request);
  EXPECT_TRUE(answer->waits());
  for (std::uint16_t port = 7000; port < 7004; ++port) EXPECT_TRUE(is_open(port)) << port;
  EXPECT_FALSE(is_open(7004));
  EXPECT_EQ(listed(), 0u);
  commit();
  EXPECT_EQ(tell(request, answer), "6000>7000+4 for 3600");
  EXPECT_EQ(answer->times, 1);
  EXPECT_EQ(table(), "pcp 6000>7000 pcp 6001>7001 pcp 6002>7002 pcp 6003>7003 ");
  EXPECT_EQ(disk.leases.size(), 1u) << "one row, so that it is there as a whole or not at all";
  EXPECT_EQ(recorder.story(), "granted/requested granted/requested granted/requested granted/requested ");
  EXPECT_EQ(service->status().granted, 4u);
  const auto views = service->list({}, now());
  for (std::uint16_t place = 0; place < 4; ++place) {
    EXPECT_EQ(views[place].number, views[0].number + place);
    EXPECT_EQ(views[place].set_size, 4);
    EXPECT_EQ(views[place].set_place, place);
  }
}

TEST_F(SetTest, IsTakenBackWholeWhenItCannotBeWritten) {
  boot();
  const auto request = suggesting(set(console, 6000, 4), 7000);
  const auto answer = ask(request), copy = ask(request);
  store->fail("disk full");
  service->commit_results(now());
  EXPECT_EQ(answer->error(), MappingErrc::store_unavailable);
  EXPECT_EQ(copy->error(), MappingErrc::store_unavailable);
  EXPECT_EQ(open_ports(), 0u);
  EXPECT_EQ(service->status().leases, 0u);
  pass(2s);
  commit();
  EXPECT_EQ(told(request), "6000>7000+4 for 3600");
}

TEST_F(SetTest, IsRenewedAndEndedAsAWhole) {  // PSET-4-06
  boot();
  const auto request = suggesting(set(console, 6000, 4), 7000);
  granted(request);
  pass(1000s);
  auto shorter = suggesting(set(console, 6000, 4, 600), 9000);
  shorter.description = "voice";
  EXPECT_EQ(told(shorter), "6000>7000+4 for 600");
  for (const auto& view : service->list({}, now())) {
    EXPECT_EQ(view.deadline, now() + 600s);
    EXPECT_EQ(view.lifetime_s, 600u);
    EXPECT_EQ(view.renewals, 1u);
    EXPECT_EQ(view.description, "voice");
  }
  pass(599s);
  EXPECT_EQ(open_ports(), 4u);
  pass(1s);
  commit();
  EXPECT_EQ(open_ports(), 0u);
  EXPECT_EQ(listed(), 0u);
  EXPECT_EQ(service->status().expired, 4u);
  EXPECT_TRUE(disk.leases.empty());

  granted(request);
  const auto ended = end(request);
  EXPECT_TRUE(ended->waits());
  EXPECT_EQ(open_ports(), 4u) << "in force until the deletion is synced";
  commit();
  EXPECT_TRUE(ended->ok());
  EXPECT_EQ(open_ports(), 0u);
  EXPECT_TRUE(disk.leases.empty());
  EXPECT_EQ(service->status().leases, 0u);
  EXPECT_EQ(service->status().mappings, 0u);
}

TEST_F(SetTest, ACopyGetsTheSameAnswerAndAFailedRenewalIsTakenBack) {
  boot();
  const auto request = suggesting(set(console, 6000, 3), 7000);
  const auto first = ask(request);
  const auto queued = store->queued();
  const auto second = ask(request);
  EXPECT_EQ(store->queued(), queued);
  commit();
  EXPECT_EQ(tell(request, second), tell(request, first));
  pass(10s);
  auto longer = set(console, 6000, 3, 7200);
  longer.description = "later";
  const auto renewal = ask(longer);
  store->fail("disk full");
  service->commit_results(now());
  EXPECT_EQ(renewal->error(), MappingErrc::store_unavailable);
  for (const auto& view : service->list({}, now())) {
    EXPECT_EQ(view.deadline, now() + 3590s);
    EXPECT_EQ(view.description, "");
    EXPECT_EQ(plane.at(Transport::tcp, view.external.port.number(), now())->spec.deadline, now() + 3590s);
  }
}

TEST_F(SetTest, WhenTheDiskTakesItsTimeEveryPortLastsLonger) {
  boot();
  const auto answer = ask(suggesting(set(console, 6000, 3), 7000));
  clock.advance(500ms);
  commit();
  ASSERT_TRUE(answer->ok());
  for (const auto& [id, held] : plane.mappings) EXPECT_EQ(held.spec.deadline, now() + 3600s);
  for (const auto& view : service->list({}, now())) EXPECT_EQ(view.deadline, now() + 3600s);
}

TEST_F(SetTest, ComesBackWholeAfterKill9) {  // PSET-4-06, POL-STO-02
  boot();
  auto request = suggesting(set(console, 6000, 300), 7000);
  request.description = "a set";
  policy.ports_per_set = 0;
  service->set_policy(policy, now());
  granted(request);
  const auto before = numbers();
  const auto later = granted(pcp(camera, 80));
  clock.advance(100s);
  restart();
  EXPECT_EQ(listed(), 301u);
  EXPECT_EQ(open_ports(), 301u);
  auto all = before;
  all.push_back(number_of(later));
  EXPECT_EQ(numbers(), all) << "ids are stable";
  EXPECT_EQ(recorder.epoch_resets, 0);
  for (const auto& view : service->list({.device = "192.168.1.10"}, now())) {
    EXPECT_EQ(view.external.port.number() - view.internal.port.number(), 1000);
    EXPECT_EQ(view.description, "a set");
    EXPECT_EQ(view.deadline, now() + 3500s);
  }
  EXPECT_EQ(told(request), "6000>7000+300 for 3600");
  EXPECT_EQ(listed(), 301u);
  EXPECT_GT(number_of(granted(pcp(camera, 81))), number_of(later));
  // and another boot, with a wall clock that is set late
  disk.boot = 2;
  clock.step_wall(-100000h);
  restart();
  clock.step_wall(100000h + 1000s);
  pass(20s);
  for (const auto& view : service->list({.device = "192.168.1.10"}, now()))
    EXPECT_LE(view.deadline, now() + 2600s) << view.set_place;
  run_slices();
  EXPECT_EQ(disk.leases.size(), 3u);
}

TEST_F(SetTest, IsLostWholeWhenOnePortOfItIs) {
  boot();
  granted(suggesting(set(console, 6000, 4), 7000));
  granted(suggesting(natpmp(console, 6001), 0 + 7001));
  kill();
  plane.own_ports.insert({Transport::tcp, 7002});
  boot();
  commit();
  EXPECT_EQ(table(), "natpmp 6001>7001 ") << "what joined a port of it stays";
  EXPECT_EQ(open_ports(), 1u);
  EXPECT_EQ(recorder.epoch_resets, 1);
  EXPECT_EQ(disk.leases.size(), 1u);
}

TEST_F(SetTest, DoesNotComeBackAcrossAnotherLease) {
  boot();
  granted(suggesting(set(console, 6000, 4), 7000));
  kill();
  lease::LeaseRecord other = disk.leases.begin()->second;
  other.number = 1000;
  other.ports = 1;
  other.internal_address = camera;
  other.external_port = 7003;
  disk.leases[1000] = other;
  other.number = 2000;
  other.ports = 2;
  other.internal_port = 6001;
  other.internal_address = console;
  other.external_port = 9000;
  disk.leases[2000] = other;
  boot();
  EXPECT_EQ(table(), "pcp 6000>7000 pcp 6001>7001 pcp 6002>7002 pcp 6003>7003 ");
}

// --- how much of it

TEST_F(SetTest, IsSmallerWhereAllDoesNotFit) {  // PSET-4-07
  policy.external_ports = {2000, 2009};
  boot();
  for (const std::uint16_t port : {2002, 2005}) granted(suggesting(pcp(camera, port), port));
  EXPECT_EQ(told(set(console, 6000, 8)), "6000>2006+4 for 3600");
  EXPECT_EQ(told(set(console, 6100, 8)), "6100>2000+2 for 3600");
  EXPECT_EQ(told(set(console, 6200, 8)), "6200>2003+2 for 3600");
  EXPECT_EQ(told(set(console, 6300, 8)).substr(0, 5), "every");
}

TEST_F(SetTest, HasTheParityOfItsFirstPort) {  // PSET-4-05
  policy.external_ports = {2000, 2009};
  boot();
  EXPECT_EQ(told(with_parity(suggesting(set(console, 6001, 2), 2002))), "6001>2001+2 for 3600");
  EXPECT_EQ(told(with_parity(set(console, 6010, 2))), "6010>2004+2 for 3600");
  EXPECT_EQ(told(with_parity(set(console, 6021, 1))), "6021>2003+1 for 3600");
  EXPECT_EQ(told(with_parity(set(console, 6021, 1))), "6021>2003+1 for 3600");
  EXPECT_EQ(told(with_parity(set(console, 6031, 4))), "6031>2007+3 for 3600");
  EXPECT_EQ(told(with_parity(set(console, 6041, 4))).substr(0, 5), "every");
  // what another protocol opened stays where it is
  ASSERT_EQ(port_of(granted(suggesting(natpmp(console, 6051), 2006))), 2006);
  EXPECT_EQ(told(with_parity(set(console, 6051, 1))), taken + " for 3600");
  EXPECT_EQ(told(set(console, 6051, 1)), "6051>2006+1 for 3600");
}

TEST_F(SetTest, WithPreferFailureIsAllOfItThereOrNothing) {  // PSET-4-09
  boot();
  granted(suggesting(pcp(camera, 1, 500), 7003));
  EXPECT_EQ(told(suggesting(set(console, 6000, 4), 7000, true)), taken + " for 500");
  EXPECT_EQ(open_ports(), 1u) << "nothing of it stays";
  EXPECT_EQ(told(suggesting(set(console, 6000, 3), 7000, true)), "6000>7000+3 for 3600");
  EXPECT_EQ(told(suggesting(set(console, 6000, 3), 7000, true)), "6000>7000+3 for 3600");
  EXPECT_EQ(told(suggesting(set(console, 6000, 3), 7001, true)), taken + " for 3600");
  EXPECT_EQ(told(suggesting(set(console, 6000, 2), 7000, true)), taken + " for 3600") << "another size";
  EXPECT_EQ(told(suggesting(set(console, 6100, 4), 1022, true)), forbidden + " for 1800");
  policy.ports_per_set = 8;
  service->set_policy(policy, now());
  EXPECT_EQ(told(suggesting(set(console, 6100, 9), 9000, true)), forbidden + " for 1800");
  EXPECT_EQ(told(suggesting(set(console, 6100, 8), 9000, true)), "6100>9000+8 for 3600");
}

TEST_F(SetTest, CountsEachOfItsPorts) {  // PSET-4-11
  policy.leases_per_device = 5;
  policy.ports_per_set = 4;
  boot();
  EXPECT_EQ(told(suggesting(set(console, 6000, 9), 7000)), "6000>7000+4 for 3600") << "ports_per_set";
  EXPECT_EQ(told(suggesting(set(console, 6000, 9), 7000)), "6000>7000+4 for 3600");
  EXPECT_EQ(granted(suggesting(set(console, 6100, 4), 7100, true))->error(), MappingErrc::quota_exceeded);
  EXPECT_EQ(told(suggesting(set(console, 6100, 4), 7100)), "6100>7100+1 for 3600");
  EXPECT_EQ(granted(set(console, 6200, 2))->error(), MappingErrc::quota_exceeded);
  EXPECT_EQ(granted(pcp(console, 6200))->error(), MappingErrc::quota_exceeded);
  policy.ports_per_set = 2;
  service->set_policy(policy, now());
  EXPECT_EQ(told(suggesting(set(console, 6000, 9), 7000)), "6000>7000+4 for 3600") << "as large as it is";
  policy.ports_per_set = 4;
  policy.leases_total = 6;
  service->set_policy(policy, now());
  EXPECT_EQ(told(suggesting(set(camera, 6000, 4), 8000)), "6000>8000+1 for 3600");
  end(set(console, 6000, 4));
  commit();
  EXPECT_EQ(told(suggesting(set(console, 6200, 3), 7200)), "6200>7200+3 for 3600");
}

TEST_F(SetTest, StaysWithinThePortsThatTheDeviceMayHave) {
  policy.rules = {{.device = {}, .external = {{7002, 7002}}, .transport = {}, .allow = false, .where = {}}};
  boot();
  const auto answer = granted(suggesting(set(console, 6000, 4), 7000));
  ASSERT_TRUE(answer->ok());
  EXPECT_EQ((**answer->outcome).ports, 4);
  EXPECT_FALSE(is_open(7002));
  EXPECT_EQ(told(suggesting(set(console, 6100, 4), 7000, true)), forbidden + " for 1800");
  EXPECT_EQ(told(suggesting(set(console, 6100, 2), 7000, true)), "6100>7000+2 for 3600");
}

TEST_F(SetTest, EndsBeforeWhatIsBlockedOrConfigured) {
  policy.statics = {{.transport = Transport::tcp, .external = port(9100), .internal = {console, port(6102)}}};
  boot();
  const auto single = granted(suggesting(pcp(console, 6002), 9000));
  revoke({number_of(single)}, lease::LeaseService::BlockFor{});
  commit();
  EXPECT_EQ(told(suggesting(set(console, 6000, 4), 7000)), "6000>7000+2 for 3600");
  EXPECT_EQ(told(suggesting(set(console, 6003, 4), 7100, true)), "6003>7100+4 for 3600");
  EXPECT_EQ(told(suggesting(set(console, 6100, 4), 7200, true)), forbidden + " for 1800");
  EXPECT_EQ(told(suggesting(set(console, 6100, 4), 7200)), "6100>7200+2 for 3600");
  EXPECT_EQ(told(set(console, 6102, 4)), "6102>9100+1 for 3600") << "the static mapping alone";
}

// --- overlaps (PSET-4-08)

TEST_F(SetTest, ARequestThatOverlapsIsAnsweredWithWhatIsThere) {
  boot();
  granted(suggesting(set(console, 6000, 4), 7000));
  pass(100s);
  EXPECT_EQ(told(set(console, 6000, 8)), "6000>7000+4 for 3600") << "larger";
  EXPECT_EQ(told(set(console, 6000, 2)), "6000>7000+2 for 3600") << "smaller";
  EXPECT_EQ(told(set(console, 6002, 2)), "6002>7002+2 for 3600") << "inside";
  EXPECT_EQ(told(set(console, 6002, 9)), "6002>7002+2 for 3600") << "beyond its end";
  EXPECT_EQ(told(pcp(console, 6003)), "6003>7003+1 for 3600") << "one port of it";
  EXPECT_EQ(told(set(console, 5998, 4)), taken + " for 3600") << "before its begin";
  EXPECT_EQ(told(suggesting(set(console, 6002, 2), 7002, true)), taken + " for 3600");
  EXPECT_EQ(table(), "pcp 6000>7000 pcp 6001>7001 pcp 6002>7002 pcp 6003>7003 ");
  for (const auto& view : service->list({}, now())) EXPECT_EQ(view.deadline, now() + 3600s);
  // another application of the device
  for (const auto& request : {set(console, 6000, 4, 3600, 2), set(console, 6002, 2, 3600, 2),
                              set(console, 5998, 3, 3600, 2), pcp(console, 6001, 3600, 2)})
    EXPECT_EQ(told(request), other_nonce + " for 3600") << request.internal.port.number();
  // nor can a set be laid over a single port
  granted(suggesting(pcp(console, 6101), 7101));
  EXPECT_EQ(told(set(console, 6100, 4)), taken + " for 3600");
  EXPECT_EQ(told(set(console, 6101, 4)), "6101>7101+1 for 3600");
  // other devices and transports have ports of their own
  EXPECT_EQ(told(suggesting(set(camera, 6000, 2), 8000)), "6000>8000+2 for 3600");
  auto udp = suggesting(set(console, 6002, 4), 7002);
  udp.transport = Transport::udp;
  EXPECT_EQ(told(udp), "6002>7002+4 for 3600");
}

TEST_F(SetTest, OtherProtocolsShareItsPorts) {
  boot();
  granted(suggesting(set(console, 6000, 4), 7000));
  EXPECT_EQ(port_of(granted(suggesting(natpmp(console, 6002), 9999))), 7002);
  end(set(console, 6000, 4));
  commit();
  EXPECT_EQ(table(), "natpmp 6002>7002 ");
  EXPECT_TRUE(is_open(7002));
  // a set goes where it can take in what is there
  EXPECT_EQ(told(suggesting(set(console, 6000, 4), 8000)), "6000>7000+4 for 3600");
  end(set(console, 6000, 4));
  commit();
  // and ends before it where it cannot
  granted(suggesting(pcp(camera, 1, 500), 7003));
  EXPECT_EQ(told(suggesting(set(console, 6000, 4), 8000)), "6000>8000+2 for 3600");
  EXPECT_EQ(told(suggesting(set(console, 6002, 4), 8100, true)), taken + " for 3600");
  EXPECT_EQ(told(suggesting(set(console, 6002, 4), 8100)), "6002>7002+1 for 3600");
  EXPECT_EQ(open_ports(), 4u);
}

TEST_F(SetTest, OutboundTrafficOfItsPortsGivesWay) {
  boot();
  plane.implicit[{Transport::tcp, console, 6001}] = 40001;
  EXPECT_EQ(told(suggesting(set(console, 6000, 3), 7000)), "6000>7000+3 for 3600");
  plane.implicit[{Transport::tcp, console, 6100}] = 41000;
  EXPECT_EQ(told(suggesting(set(console, 6100, 3), 7100)), "6100>41000+3 for 3600") << "PCP-11.3-10";
}

// --- deletions

TEST_F(SetTest, ADeletionNamesItByAnyPartAndEndsAllThatLiesInTheRange) {
  boot();
  granted(suggesting(set(console, 6000, 4), 7000));
  EXPECT_EQ(end(set(console, 6000, 4, 0, 2))->error(), MappingErrc::foreign_nonce);
  EXPECT_EQ(end(set(console, 5990, 20, 0, 2))->error(), MappingErrc::foreign_nonce);
  EXPECT_EQ(listed(), 4u);
  auto ended = end(pcp(console, 6002));
  commit();
  EXPECT_TRUE(ended->ok());
  EXPECT_EQ(listed(), 0u);
  ended = end(set(console, 6000, 4));
  EXPECT_TRUE(ended->ok()) << "what is not there is ended";

  granted(suggesting(set(console, 6000, 4), 7000));
  granted(suggesting(pcp(console, 6006), 7006));
  granted(suggesting(pcp(console, 6020), 7020));
  granted(suggesting(natpmp(console, 6001), 7001));
  ended = end(set(console, 5998, 10));
  const auto again = end(set(console, 5998, 10));
  EXPECT_TRUE(ended->waits());
  commit();
  EXPECT_TRUE(ended->ok() && again->ok());
  EXPECT_EQ(table(), "natpmp 6001>7001 pcp 6020>7020 ");
}

TEST_F(SetTest, WhatAsksForAPortOfItWaitsForItsDeletion) {
  boot();
  const auto request = suggesting(set(console, 6000, 4), 7000);
  granted(request);
  const auto ended = end(request);
  const auto single = ask(natpmp(console, 6002)), whole = ask(set(console, 6001, 8)),
             across = ask(set(console, 5999, 2));
  EXPECT_TRUE(single->waits() && whole->waits());
  EXPECT_TRUE(across->waits()) << "though nothing is on its first port";
  commit();
  EXPECT_TRUE(ended->ok());
  commit();
  commit();
  ASSERT_TRUE(single->ok());
  ASSERT_TRUE(whole->ok());
  ASSERT_TRUE(across->ok());
  EXPECT_EQ(ended->times + single->times + whole->times, 3);
  std::set<std::uint16_t> externals;
  for (const auto& view : service->list({}, now())) externals.insert(view.external.port.number());
  EXPECT_EQ(externals.size(), open_ports());
  // a deletion that fails lets them run on what is there
  const auto late = end(set(console, 6001, 8));
  const auto behind = ask(set(console, 6001, 8));
  store->fail("disk full");
  service->commit_results(now());
  EXPECT_EQ(late->error(), MappingErrc::store_unavailable);
  EXPECT_EQ(behind->error(), MappingErrc::store_unavailable);
  for (const auto& view : service->list({}, now())) EXPECT_EQ(view.state, LeaseState::active);
}

// --- the administrator

TEST_F(SetTest, RevokingOnePortEndsTheSetAndSaysSo) {
  boot();
  granted(suggesting(set(console, 6000, 4), 7000));
  granted(suggesting(natpmp(console, 6001), 7001));
  const auto all = service->list({}, now());
  const auto result = revoke({all[3].number});
  ASSERT_EQ(all[3].internal.port, port(6002));
  commit();
  ASSERT_TRUE(*result);
  EXPECT_EQ((**result).revoked.size(), 4u);
  EXPECT_TRUE((**result).failed.empty());
  EXPECT_EQ(table(), "natpmp 6001>7001 ");
  int ended = 0;
  for (const auto& event : recorder.events)
    ended += event.kind == LeaseEventKind::ended && event.reason == LeaseEventReason::revoked;
  EXPECT_EQ(ended, 4);
}

TEST_F(SetTest, ABlockShutsEveryPortOfIt) {
  boot();
  granted(suggesting(set(console, 6000, 4), 7000));
  const auto list = service->list({}, now());
  const auto result = revoke({list[1].number, list[3].number}, lease::LeaseService::BlockFor{});
  commit();
  ASSERT_TRUE(*result);
  std::set<std::string> ids((**result).revoked.begin(), (**result).revoked.end());
  EXPECT_EQ(ids.size(), 4u);
  EXPECT_EQ((**result).revoked.size(), 4u);
  EXPECT_EQ(service->blocks(now()).size(), 4u);
  for (std::uint16_t port = 6000; port < 6004; ++port)
    EXPECT_EQ(granted(natpmp(console, port))->error(), MappingErrc::device_blocked) << port;
  EXPECT_EQ(told(suggesting(set(console, 5998, 8), 8000)), "5998>8000+2 for 3600");
  restart();
  EXPECT_EQ(service->blocks(now()).size(), 4u);
}

TEST_F(SetTest, AFailedRevocationTellsEveryPort) {
  boot();
  granted(suggesting(set(console, 6000, 4), 7000));
  const auto result = revoke({numbers()[1]});
  store->fail("disk full");
  service->commit_results(now());
  ASSERT_TRUE(*result);
  EXPECT_EQ((**result).failed.size(), 4u);
  EXPECT_TRUE((**result).revoked.empty());
  EXPECT_EQ(listed(), 4u);
  for (const auto& view : service->list({}, now())) EXPECT_EQ(view.state, LeaseState::active);
}

TEST_F(SetTest, AStaticMappingThatIsAddedOnOneOfItsPortsEndsIt) {
  boot();
  granted(suggesting(set(console, 6000, 4), 7000));
  policy.statics = {{.transport = Transport::tcp, .external = port(7002), .internal = {camera, port(80)}}};
  service->set_policy(policy, now());
  commit();
  EXPECT_EQ(table(), "config 80>7002 ");
  EXPECT_TRUE(disk.leases.empty());
}

TEST_F(SetTest, IsWrittenAnewAsOneRowAfterADamagedStore) {
  boot();
  granted(suggesting(set(console, 6000, 4), 7000));
  const auto failing = ask(pcp(camera, 80));
  store->fail("damaged", true);
  service->commit_results(now());
  ASSERT_FALSE(failing->ok());
  pass(2s);
  commit();
  ASSERT_EQ(disk.leases.size(), 1u);
  EXPECT_EQ(disk.leases.begin()->second.ports, 4);
}

/// Everything that may happen to sets and others' leases on few ports, at random: nothing ever overlaps, and
/// memory, plane and disk agree at the end.
TEST_F(SetTest, NothingEverOverlaps) {  // PSET-4-08
  policy.external_ports = {2000, 2060};
  policy.leases_per_device = 0;
  for (const unsigned seed : {1u, 2u, 3u, 4u, 5u, 6u}) {
    SCOPED_TRACE(seed);
    disk = Disk{};
    restart();
    std::uint64_t state = seed;
    const auto draw = [&](unsigned below) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      return static_cast<unsigned>((state >> 33) % below);
    };
    for (int step = 0; step < 600; ++step) {
      const auto& device = draw(2) ? console : camera;
      auto request =
          set(device, static_cast<std::uint16_t>(6000 + draw(20)), static_cast<std::uint16_t>(1 + draw(8)),
              120 + draw(400), static_cast<std::uint8_t>(1 + draw(2)));
      request.parity = draw(3) == 0;
      if (draw(3) == 0) request = suggesting(request, static_cast<std::uint16_t>(2000 + draw(60)), draw(2));
      switch (draw(9)) {
        case 0:
        case 1:
        case 2:
        case 3:
          (void)ask(request);
          break;
        case 4:
          (void)ask(natpmp(device, static_cast<std::uint16_t>(6000 + draw(20)), 60 + draw(200)));
          break;
        case 5:
          (void)end(request);
          break;
        case 6:
          if (const auto all = numbers(); !all.empty())
            (void)revoke({all[draw(static_cast<unsigned>(all.size()))]});
          break;
        case 7:
          pass(std::chrono::seconds{draw(100)});
          break;
        case 8:
          if (draw(6) == 0)
            store->fail("now and then"), service->commit_results(now()), pass(11s);
          else if (draw(6) == 0)
            commit(), restart();
          break;
      }
      if (draw(2)) commit();
      std::set<std::tuple<Address, std::uint16_t>> internals;
      std::map<std::uint16_t, InternalEndpoint> externals;
      std::map<std::uint64_t, LeaseView> by_number;
      for (const auto& view : service->list({}, now())) {
        by_number.emplace(view.number, view);
        if (view.via == Via::pcp) {
          ASSERT_TRUE(internals.emplace(view.internal.address, view.internal.port.number()).second)
              << table();
        }
        const auto [there, added] = externals.emplace(view.external.port.number(), view.internal);
        ASSERT_TRUE(added || there->second == view.internal) << table();
      }
      for (const auto& [number, view] : by_number)
        for (std::uint16_t place = 0; place < view.set_size; ++place) {
          const auto other = by_number.find(number - view.set_place + place);
          ASSERT_NE(other, by_number.end()) << table();
          ASSERT_EQ(other->second.deadline, view.deadline);
          ASSERT_EQ(other->second.external.port.number() - place,
                    view.external.port.number() - view.set_place);
          ASSERT_EQ(other->second.internal.port.number() - place,
                    view.internal.port.number() - view.set_place);
        }
    }
    for (int i = 0; i < 20; ++i) pass(11s), commit();
    const auto before = table();
    EXPECT_EQ(service->status().mappings, open_ports());
    restart();
    EXPECT_EQ(table(), before);
    pass(1000s);
    commit();
    EXPECT_EQ(service->status().leases, 0u);
    EXPECT_EQ(service->status().mappings, 0u);
    EXPECT_TRUE(disk.leases.empty());
    pass(1s);
    plane.sweep(now());
    EXPECT_EQ(open_ports(), 0u);
  }
}

/// The same service on the engine itself.
class SetOnTheEngineTest : public SetTest {
 protected:
  void start() {
    (void)engine.set_network(network, now());
    store = std::make_unique<MemoryStore>(disk);
    service =
        std::make_unique<lease::LeaseService>(lease::LeaseService::Dependencies{engine, *store, clock, 42});
    service->start(policy, network, now());
  }
  nat::MemoryPlane engine;
};

TEST_F(SetOnTheEngineTest, IsClaimedRenewedAndShutPortByPort) {
  policy.leases_per_device = 0;
  start();
  granted(suggesting(pcp(camera, 7010), 7010));
  EXPECT_EQ(told(suggesting(set(console, 6000, 10), 7000)), "6000>7000+10 for 3600");
  const auto elsewhere = granted(suggesting(set(console, 6100, 256), 7000));
  ASSERT_TRUE(elsewhere->ok());
  EXPECT_EQ((**elsewhere->outcome).ports, 256);
  EXPECT_EQ(engine.status().explicit_mappings, 267u);
  EXPECT_EQ(told(suggesting(set(console, 6000, 10), 7000)), "6000>7000+10 for 3600");
  EXPECT_EQ(told(suggesting(set(camera, 8000, 4), 7008, true)), taken + " for 3600");
  EXPECT_EQ(engine.status().explicit_mappings, 267u);
  end(set(console, 6100, 256));
  commit();
  EXPECT_EQ(engine.status().explicit_mappings, 11u);
  // the whole range of ports, in sets
  std::size_t ports = 11;
  for (std::uint32_t first = 1; first < 65000; first += 251) {
    const auto answer = granted(set(address("192.168.1.77"), static_cast<std::uint16_t>(first), 251));
    if (!answer->ok()) break;
    ports += (**answer->outcome).ports;
  }
  EXPECT_GT(ports, 60000u);
  EXPECT_EQ(engine.status().explicit_mappings, ports);
}

}  // namespace
}  // namespace sallyport::test
