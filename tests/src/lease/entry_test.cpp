#include <random>

#include "src/lease/entry_order.hpp"
#include "tests/src/lease/service_fixture.hpp"

namespace sallyport::test {
namespace {

using lease::EntryOrder;
using lease::nothing;

TEST(EntryOrderTest, WhatLiesBehindAGoneElementMovesUp) {  // WIC-DEL-05
  EntryOrder order;
  std::vector<std::uint64_t> places;
  for (lease::Index i = 0; i < 5; ++i) places.push_back(order.append(100 + i));
  order.remove(places[1]);
  ASSERT_EQ(order.size(), 4u);
  EXPECT_EQ(order.at(0), 100u);
  EXPECT_EQ(order.at(1), 102u);
  EXPECT_EQ(order.at(3), 104u);
  EXPECT_EQ(order.at(4), nothing);
  EXPECT_EQ(order.after(0), 100u);
  EXPECT_EQ(order.after(places[0]), 102u);
  EXPECT_EQ(order.after(places[1]), 102u) << "also behind one that is gone";
  EXPECT_EQ(order.after(places[4]), nothing);
  order.replace(places[2], 7);
  EXPECT_EQ(order.at(1), 7u);
}

TEST(EntryOrderTest, IsAVectorByOtherMeans) {
  std::mt19937 random{20261127};
  EntryOrder order;
  std::vector<std::pair<std::uint64_t, lease::Index>> model;
  for (lease::Index step = 0; step < 20000; ++step) {
    // grows to some hundreds, then shrinks, and again
    const bool grow = step / 1000 % 2 == 0 ? random() % 4 != 0 : random() % 4 == 0;
    if (grow || model.empty()) {
      model.emplace_back(order.append(step), step);
    } else {
      const auto at = model.begin() + static_cast<std::ptrdiff_t>(random() % model.size());
      order.remove(at->first);
      order.remove(at->first);  // once more changes nothing
      model.erase(at);
    }
    ASSERT_EQ(order.size(), model.size());
    if (model.empty()) continue;
    const auto index = random() % model.size();
    ASSERT_EQ(order.at(index), model[index].second);
    ASSERT_EQ(order.after(model[index].first), index + 1 < model.size() ? model[index + 1].second : nothing);
  }
}

class EntryTest : public ServiceTest {
 protected:
  static constexpr std::uint32_t week = 604800;

  EntryRequest entry(const Address& device, std::uint16_t external_port, std::uint16_t internal,
                     std::uint32_t lifetime = 3600) {
    return {.requester = device,
            .key = {Transport::tcp, port(external_port), std::nullopt},
            .internal = {device, port(internal)},
            .description = "a game",
            .lifetime_s = lifetime,
            .contact = {2, device, 0, gateway}};
  }
  EntryRequest from(EntryRequest request, std::string_view remote) {
    request.key.remote = address(remote);
    return request;
  }
  EntryRequest any(EntryRequest request, bool port_given = true) {
    request.any = true;
    request.port_given = port_given;
    return request;
  }
  using Got = std::shared_ptr<Answer<Entry>>;
  Got add_only(EntryRequest request) {
    auto answer = std::make_shared<Answer<Entry>>();
    service->grant_entry(std::move(request), now(), [answer](const Outcome<Entry>& outcome, TimePoint) {
      answer->outcome = outcome;
      ++answer->times;
    });
    return answer;
  }
  Got add(EntryRequest request) {
    auto answer = add_only(std::move(request));
    commit();
    return answer;
  }
  std::shared_ptr<Answer<void>> end_only(const EntryKey& key, const Address& who) {
    auto answer = std::make_shared<Answer<void>>();
    service->release_entry(key, who, now(), [answer](const Outcome<void>& outcome, TimePoint) {
      answer->outcome = outcome;
      ++answer->times;
    });
    return answer;
  }
  std::shared_ptr<Answer<void>> end(const EntryKey& key, const Address& who) {
    auto answer = end_only(key, who);
    commit();
    return answer;
  }
  std::shared_ptr<Answer<void>> end_range(PortRange range, const Address& who,
                                          Transport transport = Transport::tcp) {
    auto answer = std::make_shared<Answer<void>>();
    service->release_entries(transport, range, who, now(), [answer](const Outcome<void>& outcome, TimePoint) {
      answer->outcome = outcome;
      ++answer->times;
    });
    run_slices();
    commit();
    return answer;
  }
  EntryKey key(std::uint16_t external_port) { return {Transport::tcp, port(external_port), std::nullopt}; }
  std::uint16_t external_of(const Got& answer) {
    return answer->ok() ? (**answer->outcome).key.external.number() : std::uint16_t{0};
  }
  std::string walk() {
    std::string text;
    for (std::size_t i = 0; auto found = service->entry_at(i, now()); ++i)
      text += std::to_string(found->key.external.number()) + " ";
    return text;
  }
};

TEST_F(EntryTest, AnEntryIsInForceAndListedWhenItIsAnswered) {  // WIC-ADD-01, POL-STO-01
  boot();
  auto answer = add_only(entry(console, 5000, 6000));
  EXPECT_TRUE(answer->waits());
  EXPECT_EQ(service->entry_count(), 0u) << "nothing is shown before it is written down";
  commit();
  ASSERT_TRUE(answer->ok());
  EXPECT_TRUE(is_open(5000));
  const auto found = service->find_entry(key(5000), console, now());
  ASSERT_TRUE(found);
  EXPECT_EQ(found->internal, (InternalEndpoint{console, port(6000)}));
  EXPECT_EQ(found->description, "a game");
  EXPECT_EQ(found->remaining_s, 3600u);
  EXPECT_TRUE(found->enabled);
  EXPECT_EQ(service->list({}, now())[0].via, Via::upnp);
  pass(3000s);
  EXPECT_EQ(service->find_entry(key(5000), console, now())->remaining_s, 600u);  // WIC-SPEC-04
  pass(600s);
  EXPECT_FALSE(service->find_entry(key(5000), console, now()));  // WIC-ADD-14
  EXPECT_FALSE(is_open(5000));
  EXPECT_EQ(service->entry_count(), 0u);
}

TEST_F(EntryTest, TheSameClientOverwritesItsEntry) {  // WIC-ADD-02, UPNP-X-07
  boot();
  ASSERT_TRUE(add(entry(console, 5000, 6000))->ok());
  const auto number = service->list({}, now())[0].number;
  auto other = entry(console, 5000, 6001, 60);
  other.description = "another game";
  ASSERT_TRUE(add(other)->ok());
  ASSERT_EQ(service->entry_count(), 1u);
  const auto found = *service->find_entry(key(5000), console, now());
  EXPECT_EQ(found.internal.port.number(), 6001);
  EXPECT_EQ(found.description, "another game");
  EXPECT_EQ(found.remaining_s, 60u);
  EXPECT_EQ(plane.at(Transport::tcp, 5000, now())->spec.internal.port.number(), 6001);
  EXPECT_EQ(service->list({}, now())[0].number, number) << "it is the same lease";
  restart();
  EXPECT_EQ(service->find_entry(key(5000), console, now())->internal.port.number(), 6001);
  EXPECT_EQ(plane.at(Transport::tcp, 5000, now())->spec.internal.port.number(), 6001);
}

TEST_F(EntryTest, AnOverwriteThatCannotBeWrittenLeavesTheOldEntry) {  // WIC-ADD-21, POL-STO-04
  boot();
  ASSERT_TRUE(add(entry(console, 5000, 6000))->ok());
  auto other = entry(console, 5000, 6001, 60);
  other.enabled = false;
  auto answer = add_only(other);
  store->fail("disk full");
  service->commit_results(now());
  EXPECT_EQ(answer->error(), MappingErrc::store_unavailable);
  const auto found = *service->find_entry(key(5000), console, now());
  EXPECT_EQ(found.internal.port.number(), 6000);
  EXPECT_TRUE(found.enabled);
  EXPECT_EQ(found.remaining_s, 3600u);
  const auto held = plane.at(Transport::tcp, 5000, now());
  ASSERT_TRUE(held);
  EXPECT_EQ(held->spec.internal.port.number(), 6000);
  EXPECT_TRUE(held->spec.enabled);
}

TEST_F(EntryTest, AnotherClientGets718AndAnyGetsAnotherPort) {  // WIC-ADD-03, WIC-ANY-01, WIC-ANY-02, POL-OWN-02
  boot();
  ASSERT_TRUE(add(entry(console, 5000, 6000))->ok());
  EXPECT_EQ(add(entry(camera, 5000, 6000))->error(), MappingErrc::insisted_port_taken);
  EXPECT_EQ(add(from(entry(camera, 5000, 6000), "198.51.100.7"))->error(), MappingErrc::insisted_port_taken);
  EXPECT_EQ(service->find_entry(key(5000), console, now())->internal.address, console);
  const auto answer = add(any(entry(camera, 5000, 6000)));
  ASSERT_TRUE(answer->ok());
  EXPECT_NE(external_of(answer), 5000);
  EXPECT_TRUE(is_open(external_of(answer)));
  EXPECT_EQ(external_of(add(any(entry(camera, 5001, 6001)))), 5001);
}

TEST_F(EntryTest, AnyRefreshesWhatTheClientHolds) {  // WIC-ANY-03, WIC-ANY-05
  boot();
  ASSERT_EQ(external_of(add(any(entry(console, 5000, 6000)))), 5000);
  ASSERT_EQ(external_of(add(any(entry(console, 5000, 6000, 60)))), 5000);
  EXPECT_EQ(service->entry_count(), 1u);
  EXPECT_EQ(service->entry_at(0, now())->remaining_s, 60u);
  EXPECT_EQ(external_of(add(any(entry(console, 1, 6000), false))), 5000);
  EXPECT_EQ(service->entry_count(), 1u);
  const auto fresh = add(any(entry(console, 1, 6100), false));
  ASSERT_TRUE(fresh->ok());
  EXPECT_GE(external_of(fresh), 1024);
}

TEST_F(EntryTest, OneEndpointMayHaveSeveralExternalPorts) {  // POL-OWN-04
  boot();
  ASSERT_TRUE(add(entry(console, 5000, 6000))->ok());
  ASSERT_TRUE(add(entry(console, 5001, 6000))->ok());
  EXPECT_FALSE(plane.at(Transport::tcp, 5000, now())->spec.second_port);
  EXPECT_TRUE(plane.at(Transport::tcp, 5001, now())->spec.second_port);
  EXPECT_EQ(walk(), "5000 5001 ");
  restart();
  EXPECT_EQ(walk(), "5000 5001 ");
  EXPECT_FALSE(plane.at(Transport::tcp, 5000, now())->spec.second_port);
  EXPECT_TRUE(plane.at(Transport::tcp, 5001, now())->spec.second_port);
  ASSERT_TRUE(end(key(5000), console)->ok());
  EXPECT_FALSE(is_open(5000));
  EXPECT_TRUE(is_open(5001));
  const auto joined = granted(pcp(console, 6000));
  EXPECT_EQ(port_of(joined), 5001) << "PCP gets the port in force";
  ASSERT_TRUE(end(key(5001), console)->ok());
  EXPECT_TRUE(is_open(5001)) << "the lease of PCP keeps it open";
}

TEST_F(EntryTest, AnotherPortThanTheOneOutboundUsesStandsBesideIt) {  // POL-OWN-04
  boot();
  plane.implicit[{Transport::tcp, console, 6000}] = 7000;
  plane.used_by_flows.insert({Transport::tcp, 7000});
  ASSERT_TRUE(add(entry(console, 5000, 6000))->ok());
  EXPECT_TRUE(is_open(5000));
}

TEST_F(EntryTest, ALeaseOfPcpIsSeenAndCannotBeStolenOrDeleted) {  // WIC-V-06, POL-OWN-01, POL-OWN-05, WIC-ADD-20
  boot();
  const auto lease = granted(suggesting(pcp(camera, 8080), 5000));
  ASSERT_EQ(port_of(lease), 5000);
  ASSERT_EQ(service->entry_count(), 1u);
  EXPECT_EQ(service->entry_at(0, now())->via, Via::pcp);
  EXPECT_EQ(end(key(5000), camera)->error(), MappingErrc::not_owned_here);
  EXPECT_EQ(end(key(5000), console)->error(), MappingErrc::not_authorized);
  EXPECT_EQ(add(entry(console, 5000, 6000))->error(), MappingErrc::insisted_port_taken);
  EXPECT_EQ(end_range({1, 65535}, camera)->error(), MappingErrc::not_authorized);
  EXPECT_TRUE(is_open(5000));
  // the owner may ask by both, and then has one entry
  ASSERT_TRUE(add(entry(camera, 5000, 8080))->ok());
  EXPECT_EQ(service->entry_count(), 1u);
  EXPECT_EQ(service->entry_at(0, now())->description, "a game");
  EXPECT_EQ(listed(), 2u);
  ASSERT_TRUE(end(key(5000), camera)->ok());
  EXPECT_EQ(service->entry_count(), 1u);
  EXPECT_EQ(service->entry_at(0, now())->via, Via::pcp) << "the lease of PCP is there still";
}

TEST_F(EntryTest, AddAnyForAnEndpointOfPcpGetsThePortInForce) {  // POL-OWN-04
  boot();
  ASSERT_EQ(port_of(granted(suggesting(pcp(camera, 8080), 5000))), 5000);
  EXPECT_EQ(external_of(add(any(entry(camera, 6000, 8080)))), 5000);
  ASSERT_TRUE(add(entry(camera, 6000, 8080))->ok()) << "AddPortMapping makes a second mapping";
  EXPECT_EQ(walk(), "5000 6000 ");
}

TEST_F(EntryTest, EntriesThatDifferOnlyInRemoteHostCoexistForOneDevice) {  // WIC-ADD-16, POL-OWN-02, WIC-DEL-06
  boot();
  ASSERT_TRUE(add(from(entry(console, 5000, 6000), "198.51.100.7"))->ok());
  ASSERT_TRUE(add(from(entry(console, 5000, 6000), "198.51.100.8"))->ok());
  EXPECT_EQ(service->entry_count(), 2u);
  EXPECT_EQ(plane.at(Transport::tcp, 5000, now())->spec.remotes.size(), 2u);
  EXPECT_EQ(end(key(5000), console)->error(), MappingErrc::not_found) << "there is none for any remote host";
  auto first = key(5000);
  first.remote = address("198.51.100.7");
  ASSERT_TRUE(end(first, console)->ok());
  EXPECT_FALSE(service->find_entry(first, console, now()));
  EXPECT_EQ(plane.at(Transport::tcp, 5000, now())->spec.remotes.size(), 1u);
  // another internal port at the same external one would have to choose by the sender
  EXPECT_EQ(add(entry(console, 5000, 6001))->error(), MappingErrc::insisted_port_taken);
  ASSERT_TRUE(add(entry(console, 5000, 6000))->ok());
  EXPECT_TRUE(plane.at(Transport::tcp, 5000, now())->spec.remotes.empty()) << "one of them lets everybody in";
  restart();
  EXPECT_EQ(service->entry_count(), 2u);
}

TEST_F(EntryTest, ADisabledEntryHoldsItsPortAndForwardsNothing) {  // WIC-ADD-17, POL-TGT-09
  boot();
  auto off = entry(console, 5000, 6000);
  off.enabled = false;
  ASSERT_TRUE(add(off)->ok());
  EXPECT_FALSE(plane.at(Transport::tcp, 5000, now())->spec.enabled);
  EXPECT_EQ(add(entry(camera, 5000, 6000))->error(), MappingErrc::insisted_port_taken);
  EXPECT_EQ(service->list({}, now())[0].state, LeaseState::disabled);
  restart();
  EXPECT_FALSE(plane.at(Transport::tcp, 5000, now())->spec.enabled);
  EXPECT_FALSE(service->entry_at(0, now())->enabled);
  ASSERT_TRUE(add(entry(console, 5000, 6000))->ok());
  EXPECT_TRUE(plane.at(Transport::tcp, 5000, now())->spec.enabled);
  ASSERT_TRUE(add(off)->ok());
  EXPECT_FALSE(plane.at(Transport::tcp, 5000, now())->spec.enabled);
}

TEST_F(EntryTest, PermanentUntilDeleted) {  // WIC-ADD-11
  boot();
  ASSERT_TRUE(add(entry(console, 5000, 6000, 0))->ok());
  EXPECT_EQ(service->entry_at(0, now())->remaining_s, 0u);
  EXPECT_FALSE(service->list({}, now())[0].lifetime_s);
  pass(std::chrono::hours{24 * 400});
  restart();
  ASSERT_EQ(service->entry_count(), 1u);
  EXPECT_TRUE(is_open(5000));
  ASSERT_TRUE(add(entry(console, 5000, 6000, 60))->ok()) << "a lease may follow";
  pass(60s);
  EXPECT_EQ(service->entry_count(), 0u);
  policy.upnp_permanent = false;
  service->set_policy(policy, now());
  ASSERT_TRUE(add(entry(console, 5000, 6000, 0))->ok());
  EXPECT_EQ(service->entry_at(0, now())->remaining_s, week);
  ASSERT_TRUE(add(entry(console, 5001, 6000, 0xffffffff))->ok());  // POL-NUM-04, WIC-ADD-13
  EXPECT_EQ(service->entry_at(1, now())->remaining_s, week);
}

TEST_F(EntryTest, WhatPolicyForbids) {  // WIC-ADD-04, WIC-ADD-05, POL-TGT-01..04
  policy.statics.push_back({Transport::tcp, port(2222), {camera, port(22)}, "ssh", "test:1"});
  boot();
  auto other = entry(console, 5000, 6000);
  other.internal.address = camera;
  EXPECT_EQ(add(other)->error(), MappingErrc::not_authorized);
  EXPECT_EQ(add(entry(console, 80, 6000))->error(), MappingErrc::not_authorized);
  EXPECT_EQ(add(entry(console, 5000, 80))->error(), MappingErrc::not_authorized);
  EXPECT_EQ(add(entry(gateway, 5000, 6000))->error(), MappingErrc::not_authorized);
  EXPECT_EQ(add(entry(console, 2222, 6000))->error(), MappingErrc::insisted_port_forbidden);
  plane.own_ports.insert({Transport::tcp, 4000});
  EXPECT_EQ(add(entry(console, 4000, 6000))->error(), MappingErrc::insisted_port_forbidden);
  const auto low = add(any(entry(console, 80, 6000)));
  ASSERT_TRUE(low->ok());
  EXPECT_GE(external_of(low), 1024);
  EXPECT_EQ(end(key(2222), camera)->error(), MappingErrc::not_owned_here);
  network.external.clear();
  service->set_network(network, now());
  EXPECT_EQ(add(entry(console, 5000, 6001))->error(), MappingErrc::no_external_address);
}

TEST_F(EntryTest, QuotaOfTheDevice) {  // WIC-ADD-22, POL-QTA-01
  policy.leases_per_device = 2;
  boot();
  ASSERT_TRUE(add(entry(console, 5000, 6000))->ok());
  ASSERT_TRUE(add(entry(console, 5001, 6001))->ok());
  EXPECT_EQ(add(entry(console, 5002, 6002))->error(), MappingErrc::quota_exceeded);
  EXPECT_FALSE(is_open(5002));
  EXPECT_TRUE(add(entry(console, 5001, 6001))->ok()) << "a renewal goes on";
  EXPECT_TRUE(add(entry(camera, 5002, 6002))->ok());
}

TEST_F(EntryTest, TheListIsInOrderOfAgeStaticOnesFirst) {  // WIC-GEN-01, WIC-DEL-05
  policy.statics.push_back({Transport::tcp, port(2222), {camera, port(22)}, "ssh", "test:1"});
  boot();
  for (std::uint16_t i = 0; i < 5; ++i)
    ASSERT_TRUE(add(entry(console, static_cast<std::uint16_t>(5004 - i), static_cast<std::uint16_t>(6000 + i)))->ok());
  EXPECT_EQ(walk(), "2222 5004 5003 5002 5001 5000 ");
  EXPECT_EQ(service->entry_count(), 6u);
  ASSERT_TRUE(end(key(5002), console)->ok());
  EXPECT_EQ(walk(), "2222 5004 5003 5001 5000 ");
  std::string by_position;
  for (auto found = service->entry_after(0, now()); found; found = service->entry_after(found->position, now()))
    by_position += std::to_string(found->key.external.number()) + " ";
  EXPECT_EQ(by_position, walk());
}

TEST_F(EntryTest, ARangeEndsOnlyTheCallersOwn) {  // WIC-RNG-01, WIC-RNG-03, WIC-RNG-04, POL-OWN-06
  boot();
  for (std::uint16_t i = 0; i < 4; ++i)
    ASSERT_TRUE(add(entry(i % 2 ? camera : console, static_cast<std::uint16_t>(5000 + i), 6000))->ok());
  ASSERT_TRUE(add(entry(console, 5010, 6000))->ok());
  EXPECT_EQ(end_range({5000, 5003}, console, Transport::udp)->error(), MappingErrc::not_found);
  EXPECT_EQ(end_range({0, 4999}, console)->error(), MappingErrc::not_found);
  EXPECT_EQ(end_range({5001, 5001}, console)->error(), MappingErrc::not_authorized);
  ASSERT_TRUE(end_range({5000, 5003}, console)->ok());
  EXPECT_EQ(walk(), "5001 5003 5010 ");
}

TEST_F(EntryTest, ThousandsEndInSlices) {  // POL-FAIR-04
  policy.leases_per_device = 0;
  boot();
  for (std::uint16_t i = 0; i < 3000; ++i) {
    auto request = entry(console, static_cast<std::uint16_t>(5000 + i), static_cast<std::uint16_t>(5000 + i));
    add_only(std::move(request));
  }
  commit();
  ASSERT_EQ(service->entry_count(), 3000u);
  ASSERT_TRUE(end_range({1, 65535}, console)->ok());
  EXPECT_EQ(service->entry_count(), 0u);
  EXPECT_EQ(plane.mappings.size(), 0u);
}

TEST_F(EntryTest, WhatComesBehindADeletionWaitsForIt) {  // POL-OWN-07
  boot();
  ASSERT_TRUE(add(entry(console, 5000, 6000))->ok());
  auto ended = end_only(key(5000), console);
  auto again = end_only(key(5000), console);
  auto anew = add_only(entry(console, 5000, 6001));
  EXPECT_TRUE(ended->waits() && again->waits() && anew->waits());
  commit();
  commit();
  EXPECT_TRUE(ended->ok());
  EXPECT_EQ(again->error(), MappingErrc::not_found);
  ASSERT_TRUE(anew->ok());
  EXPECT_EQ(plane.at(Transport::tcp, 5000, now())->spec.internal.port.number(), 6001);
}

TEST_F(EntryTest, RevokedAndBlockedByEveryExternalPort) {
  boot();
  ASSERT_TRUE(add(entry(console, 5000, 6000))->ok());
  ASSERT_TRUE(add(entry(console, 5001, 6000))->ok());
  const auto leases = service->list({}, now());
  revoke({leases[0].number}, lease::LeaseService::BlockFor{1h});
  run_slices();
  commit();
  EXPECT_EQ(service->entry_count(), 0u) << "both external ports lead to the blocked endpoint";
  EXPECT_EQ(add(entry(console, 5000, 6000))->error(), MappingErrc::device_blocked);
  EXPECT_EQ(ask(pcp(console, 6000))->error(), MappingErrc::device_blocked);
}

TEST_F(EntryTest, EventsTellAnOverwriteFromARenewal) {  // WIC-V-03
  boot();
  add(entry(console, 5000, 6000));
  add(entry(console, 5000, 6000));
  auto other = entry(console, 5000, 6000);
  other.description = "other";
  add(other);
  add(entry(console, 5000, 6001));
  end(key(5000), console);
  EXPECT_EQ(recorder.story(),
            "granted/requested renewed/requested changed/requested changed/requested ended/requested ");
}

TEST_F(EntryTest, AStaticMappingEndsTheEntryOnItsPort) {  // POL-RUN-04
  boot();
  ASSERT_TRUE(add(entry(console, 5000, 6000))->ok());
  ASSERT_TRUE(add(entry(console, 5001, 6000))->ok());
  policy.statics.push_back({Transport::tcp, port(5001), {camera, port(22)}, "ssh", "test:1"});
  service->set_policy(policy, now());
  EXPECT_EQ(walk(), "5001 5000 ");
  EXPECT_EQ(plane.at(Transport::tcp, 5001, now())->spec.internal.address, camera);
}

}  // namespace
}  // namespace sallyport::test
