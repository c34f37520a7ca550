#pragma once

#include <gtest/gtest.h>

#include "src/lease/lease_service.hpp"
#include "tests/src/lease/memory_store.hpp"
#include "tests/support/fake_plane.hpp"
#include "tests/support/manual_clock.hpp"

namespace sallyport::test {

using namespace std::chrono_literals;

inline Address address(std::string_view text) { return *Address::parse(text); }
inline Port port(std::uint32_t number) { return *Port::from(number); }
inline Nonce nonce(std::uint8_t n) {
  Nonce nonce{};
  nonce.fill(std::byte{n});
  return nonce;
}

inline const Address console = address("192.168.1.10");
inline const Address camera = address("192.168.1.20");
inline const Address gateway = address("192.168.1.1");
inline const Address external = address("203.0.113.7");

class Recorder final : public ServiceListener {
 public:
  void on_lease(const LeaseEvent& event, TimePoint) override { events.push_back(event); }
  void on_epoch_reset(TimePoint) override { ++epoch_resets; }
  void on_ipv6_epoch_reset(TimePoint) override { ++ipv6_epoch_resets; }
  void on_external_address(const std::optional<Address>& now_is, TimePoint) override {
    addresses.push_back(now_is);
  }
  std::string story() const {
    std::string text;
    for (const auto& event : events)
      text += std::string{to_string(event.kind)} + "/" + std::string{to_string(event.reason)} + " ";
    return text;
  }
  std::vector<LeaseEvent> events;
  int epoch_resets = 0, ipv6_epoch_resets = 0;
  std::vector<std::optional<Address>> addresses;
};

/// One answer, perhaps not yet given.
template <class T>
struct Answer {
  std::optional<Outcome<T>> outcome;
  int times = 0;
  bool waits() const { return !outcome.has_value(); }
  bool ok() const { return outcome && outcome->has_value(); }
  std::optional<MappingErrc> error() const {
    if (!outcome || outcome->has_value()) return std::nullopt;
    return outcome->error().reason;
  }
  std::uint32_t retry() const { return outcome->error().retry_after_s.value_or(0); }
};

/// A gateway at 203.0.113.7 with the LAN 192.168.1.0/24, on a store that commits when told to.
class ServiceTest : public ::testing::Test {
 protected:
  ServiceTest() {
    network.lan = {{.name = "lan0",
                    .index = 2,
                    .up = true,
                    .addresses = {gateway},
                    .prefixes = {*Prefix::parse("192.168.1.0/24")}}};
    network.wan = {{.name = "wan0", .index = 3, .up = true, .addresses = {external}, .prefixes = {}}};
    network.external = {external};
  }

  virtual nat::DataPlane& used_plane() { return plane; }
  void boot() {
    used_plane().set_network(network, now());
    store = std::make_unique<MemoryStore>(disk);
    service = std::make_unique<lease::LeaseService>(lease::LeaseService::Dependencies{
        used_plane(), *store, clock, 42, [this](const Address& address) -> std::optional<std::uint64_t> {
          const auto known = macs.find(address);
          return known == macs.end() ? std::nullopt : std::optional{known->second};
        }});
    service->add_listener(recorder);
    service->start(policy, network, now());
  }
  /// As kill -9 does: what was not committed is gone, and so is the plane.
  void kill() {
    store_queue_lost = store ? store->queued() : 0;
    // the destructor may queue, but nothing is committed any more
    service.reset();
    store.reset();
    plane = FakePlane{};
    recorder = Recorder{};
  }
  void restart() {
    kill();
    boot();
  }

  TimePoint now() const { return clock.now(); }
  void pass(std::chrono::nanoseconds time) {
    clock.advance(time);
    service->handle_timeout(now());
  }
  void commit() {
    store->commit();
    service->commit_results(now());
  }
  void run_slices() {
    for (int i = 0; i < 10000 && service->next_deadline() && *service->next_deadline() <= now(); ++i) {
      service->handle_timeout(now());
      commit();
    }
  }

  GrantRequest pcp(const Address& device, std::uint16_t internal, std::uint32_t lifetime = 3600,
                   std::uint8_t n = 1) {
    GrantRequest request{.internal = {device, port(internal)}};
    request.via = Via::pcp;
    request.transport = Transport::tcp;
    request.requester = device;
    request.nonce = nonce(n);
    request.lifetime_s = lifetime;
    request.contact = {2, device, 40000, gateway};
    return request;
  }
  GrantRequest natpmp(const Address& device, std::uint16_t internal, std::uint32_t lifetime = 3600) {
    auto request = pcp(device, internal, lifetime);
    request.via = Via::natpmp;
    request.nonce.reset();
    return request;
  }
  GrantRequest suggesting(GrantRequest request, std::uint16_t external_port, bool insist = false) {
    request.suggested_port = port(external_port);
    request.insist = insist;
    return request;
  }
  std::shared_ptr<Answer<Granted>> ask(GrantRequest request) {
    auto answer = std::make_shared<Answer<Granted>>();
    service->grant(std::move(request), now(), [answer](const Outcome<Granted>& outcome, TimePoint) {
      answer->outcome = outcome;
      ++answer->times;
    });
    return answer;
  }
  std::shared_ptr<Answer<Granted>> granted(GrantRequest request) {
    auto answer = ask(std::move(request));
    commit();
    return answer;
  }
  std::shared_ptr<Answer<void>> drop(const GrantRequest& of) {
    auto answer = std::make_shared<Answer<void>>();
    ReleaseRequest request{.internal = of.internal};
    request.via = of.via;
    request.transport = of.transport;
    request.requester = of.requester;
    request.third_party = of.third_party;
    request.nonce = of.nonce;
    service->release(request, now(), [answer](const Outcome<void>& outcome, TimePoint) {
      answer->outcome = outcome;
      ++answer->times;
    });
    return answer;
  }
  std::shared_ptr<Answer<void>> drop_all(const Address& device, Transport transport = Transport::tcp) {
    auto answer = std::make_shared<Answer<void>>();
    service->release_all({Via::natpmp, transport, device}, now(),
                         [answer](const Outcome<void>& outcome, TimePoint) {
                           answer->outcome = outcome;
                           ++answer->times;
                         });
    return answer;
  }
  std::shared_ptr<std::optional<lease::RevokeResult>> revoke(
      std::vector<std::uint64_t> numbers, std::optional<lease::LeaseService::BlockFor> block = {}) {
    auto result = std::make_shared<std::optional<lease::RevokeResult>>();
    service->revoke(numbers, block, now(),
                    [result](const lease::RevokeResult& r, TimePoint) { *result = r; });
    return result;
  }
  std::uint16_t port_of(const std::shared_ptr<Answer<Granted>>& answer) {
    return answer->ok() ? (**answer->outcome).external.port.number() : std::uint16_t{0};
  }
  std::uint64_t number_of(const std::shared_ptr<Answer<Granted>>& answer) {
    return (**answer->outcome).lease;
  }
  /// What the plane does with a packet to this port now.
  bool is_open(std::uint16_t external_port, Transport transport = Transport::tcp) {
    return plane.at(transport, external_port, now()).has_value();
  }
  std::size_t listed() { return service->list({}, now()).size(); }

  ManualClock clock;
  Disk disk;
  FakePlane plane;
  nat::NetworkView network;
  lease::LeasePolicy policy;
  std::map<Address, std::uint64_t> macs;  ///< the neighbour table
  Recorder recorder;
  std::size_t store_queue_lost = 0;
  std::unique_ptr<MemoryStore> store;
  std::unique_ptr<lease::LeaseService> service;
};

}  // namespace sallyport::test
