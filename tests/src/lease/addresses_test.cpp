#include "nat/engine/pairing.hpp"
#include "nat/plane/memory/memory_plane.hpp"
#include "tests/src/lease/service_fixture.hpp"

// Leases where devices have different external addresses, on the real engine: RFC 6888 REQ-2, RFC 6887 11.3.

namespace sallyport::test {
namespace {

class LeaseAddressesTest : public ServiceTest {
 protected:
  LeaseAddressesTest() {
    network.external_pool = true;
    use({"203.0.113.7", "203.0.113.8", "203.0.113.9"});
    std::vector<std::uint32_t> numbers;
    for (const auto& address : network.external) numbers.push_back(address.v4_number());
    nat::Pairing pairing;
    pairing.set(numbers);
    for (std::uint32_t i = 10; i < 250; ++i) {
      const auto host = Address::v4(console.v4_number() / 256 * 256 + i);
      const auto address = Address::v4(pairing.address(pairing.of(host.v4_number())));
      for (std::size_t n = 0; n < 3; ++n)
        if (network.external[n] == address) hosts[n].push_back(host);
    }
  }
  nat::DataPlane& used_plane() override { return *real; }
  void use(std::vector<std::string> addresses) {
    network.external.clear();
    for (const auto& text : addresses) network.external.push_back(address(text));
  }
  void reload() {
    real->set_network(network, now());
    service->set_network(network, now());
    commit();
  }
  void restart() {
    kill();
    real = std::make_unique<nat::MemoryPlane>(nat::EngineOptions{.addresses = 3});
    boot();
  }
  ExternalEndpoint external_of(const std::shared_ptr<Answer<Granted>>& answer) const {
    return answer->ok() ? (**answer->outcome).external : ExternalEndpoint{Address{}, port(1)};
  }
  std::shared_ptr<Answer<Entry>> add(const Address& device, std::uint16_t external_port) {
    auto answer = std::make_shared<Answer<Entry>>();
    service->grant_entry({.requester = device,
                          .key = {Transport::tcp, port(external_port), {}},
                          .internal = {device, port(5000)},
                          .lifetime_s = 3600,
                          .contact = {2, device, 0, gateway}},
                         now(),
                         [answer](const Outcome<Entry>& outcome, TimePoint) { answer->outcome = outcome; });
    commit();
    return answer;
  }
  std::optional<MappingErrc> remove(const Address& device, std::uint16_t external_port) {
    Answer<void> answer;
    service->release_entry({Transport::tcp, port(external_port), {}}, device, now(),
                           [&](const Outcome<void>& outcome, TimePoint) { answer.outcome = outcome; });
    commit();
    return answer.error();
  }

  std::array<std::vector<Address>, 3> hosts;  ///< by external address
  std::unique_ptr<nat::MemoryPlane> real =
      std::make_unique<nat::MemoryPlane>(nat::EngineOptions{.addresses = 3});
};

TEST_F(LeaseAddressesTest, EveryDeviceIsToldItsOwn) {  // N4787-02, NPM-3.2-01
  boot();
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(*service->external_address(hosts[i][0]), network.external[i]);
    const auto answer = granted(suggesting(pcp(hosts[i][0], 80), 8080));
    EXPECT_EQ(external_of(answer), (ExternalEndpoint{network.external[i], port(8080)}));
  }
  for (const auto& view : service->list({}, now()))
    EXPECT_EQ(view.external.address, *service->external_address(view.internal.address));
  EXPECT_EQ(*service->external_address({}), network.external[0]);
}

TEST_F(LeaseAddressesTest, APortIsTakenOnOneAddressOnly) {
  boot();
  EXPECT_TRUE(granted(suggesting(pcp(hosts[0][0], 80), 8080, true))->ok());
  EXPECT_TRUE(granted(suggesting(pcp(hosts[1][0], 80), 8080, true))->ok());
  EXPECT_EQ(granted(suggesting(pcp(hosts[0][1], 80), 8080, true))->error(), MappingErrc::insisted_port_taken);
}

TEST_F(LeaseAddressesTest, AnotherAddressOfThePoolIsNotToBeHad) {  // PCP-11.3-13
  boot();
  auto request = suggesting(pcp(hosts[0][0], 80), 8080, true);
  request.suggested_address = network.external[1];
  EXPECT_EQ(granted(request)->error(), MappingErrc::insisted_port_forbidden);
  request.insist = false;
  EXPECT_EQ(external_of(granted(request)), (ExternalEndpoint{network.external[0], port(8080)}));
  request = suggesting(pcp(hosts[0][0], 80), 8080, true);
  request.suggested_address = network.external[0];
  EXPECT_TRUE(granted(request)->ok());
}

TEST_F(LeaseAddressesTest, EntriesAreNamedOnTheCallersAddress) {  // WIC-SPEC-01, WIC-DEL-01
  boot();
  const Address &one = hosts[0][0], &other = hosts[1][0];
  ASSERT_TRUE(add(one, 8080)->ok());
  ASSERT_TRUE(add(other, 8080)->ok());
  EXPECT_EQ(add(hosts[0][1], 8080)->error(), MappingErrc::insisted_port_taken);
  const EntryKey key{Transport::tcp, port(8080), {}};
  EXPECT_EQ(service->find_entry(key, one, now())->internal.address, one);
  EXPECT_EQ(service->find_entry(key, other, now())->internal.address, other);
  EXPECT_FALSE(service->find_entry(key, hosts[2][0], now()));
  EXPECT_EQ(service->entry_count(), 2u);
  EXPECT_EQ(service->entries_on(Transport::tcp, port(8080), now()).size(), 2u);
  EXPECT_EQ(remove(hosts[2][0], 8080), MappingErrc::not_found);
  EXPECT_EQ(remove(hosts[1][1], 8080), MappingErrc::not_authorized);
  EXPECT_EQ(remove(other, 8080), std::nullopt);
  EXPECT_TRUE(service->find_entry(key, one, now()));
  EXPECT_FALSE(service->find_entry(key, other, now()));
}

TEST_F(LeaseAddressesTest, AStaticMappingIsOnItsHostsAddress) {
  policy.statics = {{Transport::tcp, port(8080), {hosts[0][0], port(80)}, "", "test"}};
  boot();
  EXPECT_EQ(service->list({}, now()).at(0).external, (ExternalEndpoint{network.external[0], port(8080)}));
  EXPECT_EQ(granted(suggesting(pcp(hosts[0][1], 80), 8080, true))->error(),
            MappingErrc::insisted_port_forbidden);
  EXPECT_TRUE(granted(suggesting(pcp(hosts[1][0], 80), 8080, true))->ok());
  EXPECT_TRUE(add(hosts[2][0], 8080)->ok());
}

TEST_F(LeaseAddressesTest, OnlyDevicesOfAnAddressThatGoesMove) {  // NMAP-11, POL-RUN-02
  boot();
  ASSERT_TRUE(granted(suggesting(pcp(hosts[0][0], 80), 8080))->ok());
  ASSERT_TRUE(granted(suggesting(pcp(hosts[1][0], 80), 8080))->ok());
  ASSERT_TRUE(granted(suggesting(pcp(hosts[2][0], 80), 8081))->ok());
  const int resets = recorder.epoch_resets;
  const auto told = recorder.addresses.size();
  recorder.events.clear();
  use({"203.0.113.7", "203.0.113.8"});
  reload();
  run_slices();
  EXPECT_EQ(recorder.epoch_resets, resets + 1);
  EXPECT_EQ(recorder.addresses.size(), told + 1);
  EXPECT_EQ(recorder.story(), "changed/address_changed ");
  ASSERT_EQ(recorder.events.size(), 1u);
  EXPECT_EQ(recorder.events[0].lease.internal.address, hosts[2][0]);
  EXPECT_EQ(recorder.events[0].lease.external,
            (ExternalEndpoint{*service->external_address(hosts[2][0]), port(8081)}));
  EXPECT_EQ(listed(), 3u);
}

TEST_F(LeaseAddressesTest, WhoseOldPortIsTakenThereGetsAnother) {  // NMAP-11
  boot();
  ASSERT_TRUE(granted(suggesting(pcp(hosts[0][0], 80), 8080))->ok());
  ASSERT_TRUE(granted(suggesting(pcp(hosts[1][0], 80), 8080))->ok());
  ASSERT_TRUE(granted(suggesting(pcp(hosts[2][0], 80), 8080))->ok());
  use({"203.0.113.7", "203.0.113.8"});
  reload();
  run_slices();
  const auto views = service->list({}, now());
  ASSERT_EQ(views.size(), 3u);
  for (const auto& view : views) {
    EXPECT_EQ(view.external.address, *service->external_address(view.internal.address));
    EXPECT_EQ(view.external.port.number() == 8080, view.internal.address != hosts[2][0]);
  }
  EXPECT_TRUE(recorder.events.back().reason == LeaseEventReason::address_changed);

  // and it is what a restart finds
  const auto before = service->list({}, now());
  restart();
  const auto after = service->list({}, now());
  ASSERT_EQ(after.size(), before.size());
  for (std::size_t i = 0; i < after.size(); ++i) EXPECT_EQ(after[i].external, before[i].external);
  EXPECT_EQ(recorder.epoch_resets, 0);
}

TEST_F(LeaseAddressesTest, ARestartLeavesEveryLeaseWhereItWas) {  // POL-STO-02
  boot();
  for (std::size_t i = 0; i < 3; ++i) ASSERT_TRUE(granted(suggesting(pcp(hosts[i][0], 80), 8080))->ok());
  restart();
  EXPECT_EQ(listed(), 3u);
  for (const auto& view : service->list({}, now()))
    EXPECT_EQ(view.external,
              (ExternalEndpoint{*service->external_address(view.internal.address), port(8080)}));
  EXPECT_EQ(recorder.epoch_resets, 0);
  EXPECT_TRUE(service->status().warnings.empty());
}

TEST_F(LeaseAddressesTest, AnAddressThatWentWhileTheDaemonWasDownMovesItsDevices) {
  boot();
  for (std::size_t i = 0; i < 3; ++i) ASSERT_TRUE(granted(suggesting(pcp(hosts[i][0], 80), 8080))->ok());
  use({"203.0.113.7", "203.0.113.8"});
  restart();
  EXPECT_EQ(listed(), 3u);
  for (const auto& view : service->list({}, now()))
    EXPECT_EQ(view.external.address, *service->external_address(view.internal.address));
  EXPECT_EQ(recorder.epoch_resets, 1);
}

TEST_F(LeaseAddressesTest, AnAddressThatComesTakesItsDevicesBack) {
  use({"203.0.113.7", "203.0.113.8"});
  boot();
  ASSERT_TRUE(granted(suggesting(pcp(hosts[2][0], 80), 8080))->ok());
  use({"203.0.113.7", "203.0.113.8", "203.0.113.9"});
  reload();
  EXPECT_EQ(service->list({}, now()).at(0).external, (ExternalEndpoint{network.external[2], port(8080)}));
  EXPECT_EQ(drop(pcp(hosts[2][0], 80))->waits(), true);
  commit();
  EXPECT_EQ(listed(), 0u);
}

}  // namespace
}  // namespace sallyport::test
