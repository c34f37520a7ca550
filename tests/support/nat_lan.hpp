#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <optional>
#include <string>

#include "nat/engine/drop_reason.hpp"
#include "nat/plane/memory/memory_plane.hpp"
#include "tests/support/packet_builder.hpp"
#ifdef SALLYPORT_TEST_EBPF
#include "tests/support/ebpf_test_plane.hpp"
#endif

/// A home behind a translator: LAN 192.168.1.0/24 with the gateway at .1, external address 203.0.113.2. What
/// the gateway emits is described in one line a packet, and its checksums are checked against full
/// computation.
namespace sallyport::test {

using namespace std::chrono_literals;

inline constexpr const char* gateway_address = "192.168.1.1";
inline constexpr const char* external_address = "203.0.113.2";
inline constexpr const char* alice = "192.168.1.10";
inline constexpr const char* bob = "192.168.1.11";
inline constexpr const char* server = "198.51.100.7";
inline constexpr const char* other_server = "198.51.100.8";

/// The plane that the tests of a program run on: the same tests for each.
#ifdef SALLYPORT_TEST_EBPF
using TestPlane = EbpfTestPlane;
#else
using TestPlane = nat::MemoryPlane;
#endif

inline Port port(std::uint32_t number) { return *Port::from(number); }

inline nat::NetworkView home_network() {
  nat::NetworkView network;
  nat::PlaneInterface lan{
      .name = "lan0", .index = 2, .mtu = 1500, .up = true, .addresses = {}, .prefixes = {}};
  lan.addresses = {Address::v4(ip(gateway_address))};
  lan.prefixes = {Prefix::v4(ip("192.168.1.0"), 24)};
  nat::PlaneInterface wan{
      .name = "wan0", .index = 3, .mtu = 1500, .up = true, .addresses = {}, .prefixes = {}};
  wan.addresses = {Address::v4(ip(external_address))};
  wan.prefixes = {Prefix::v4(ip("203.0.113.0"), 24)};
  network.lan = {lan};
  network.wan = {wan};
  network.external = {Address::v4(ip(external_address))};
  return network;
}

class NatLan : public ::testing::Test {
 protected:
  NatLan() : NatLan(nat::EngineOptions{.secret = {0x0123456789abcdef, 0xfedcba9876543210}, .seed = 7}) {}
  explicit NatLan(const nat::EngineOptions& options) : plane{options} {
    EXPECT_TRUE(plane.set_policy(policy, now));
    EXPECT_TRUE(plane.set_network(network, now));
  }

#ifdef SALLYPORT_TEST_EBPF
  void SetUp() override {
    if (!plane.unusable().empty()) GTEST_SKIP() << plane.unusable();
  }
#endif

  using Out = std::vector<nat::MemoryPlane::Emitted>;

  Out pass(const Octets& octets, nat::Side from) {
    Out out = plane.pass(octets, from, now);
    for (const auto& emitted : out)
      if (emitted.where != nat::Action::local && !get_fragment(emitted.octets)) {
        EXPECT_TRUE(ip_checksum_is_right(emitted.octets)) << describe(emitted.octets);
        if (check_transport) {
          EXPECT_TRUE(checksums_are_right(emitted.octets)) << describe(emitted.octets);
        }
      }
    return out;
  }
  /// What came of a packet, one line a packet with where it went; "dropped: REASON" when nothing did.
  std::string tell(const Out& out) const {
    if (out.empty())
      return plane.last_action() == nat::Action::held
                 ? "held"
                 : "dropped: " + std::string{to_string(plane.last_reason())};
    std::string text;
    for (const auto& emitted : out) {
      if (!text.empty()) text += '\n';
      switch (emitted.where) {
        case nat::Action::forward_wan:
          text += "wan: ";
          break;
        case nat::Action::forward_lan:
          text += "lan: ";
          break;
        case nat::Action::local:
          text += "local: ";
          break;
        default:
          text += "?: ";
          break;
      }
      text += describe(emitted.octets);
    }
    return text;
  }
  std::string from_lan(const Octets& octets) { return tell(pass(octets, nat::Side::lan)); }
  std::string from_wan(const Octets& octets) { return tell(pass(octets, nat::Side::wan)); }
  std::string from_router(const Octets& octets) { return tell(pass(octets, nat::Side::router)); }

  /// Sends from inside and gives the packet that left, which must be one.
  Octets leaves(const Octets& octets) {
    const Out out = pass(octets, nat::Side::lan);
    EXPECT_EQ(out.size(), 1U) << tell(out);
    if (out.size() != 1) return Octets(40);
    EXPECT_EQ(out[0].where, nat::Action::forward_wan);
    return out[0].octets;
  }
  Octets arrives(const Octets& octets) {
    const Out out = pass(octets, nat::Side::wan);
    EXPECT_EQ(out.size(), 1U) << tell(out);
    if (out.size() != 1) return Octets(40);
    EXPECT_EQ(out[0].where, nat::Action::forward_lan);
    return out[0].octets;
  }
  static std::uint16_t source_port(const Octets& octets) { return get16(octets, header_length(octets)); }

  Result<nat::Installed> install(const nat::MappingSpec& spec) { return plane.install(spec, now); }
  static nat::MappingSpec wish(Transport transport, const char* host, unsigned internal,
                               std::optional<unsigned> external = std::nullopt) {
    nat::MappingSpec spec{.transport = transport, .internal = {Address::v4(ip(host)), port(internal)}};
    if (external) {
      spec.suggested = port(*external);
      spec.insist = true;
    }
    return spec;
  }
  nat::Installed open(Transport transport, const char* host, unsigned internal, unsigned external) {
    const auto installed = install(wish(transport, host, internal, external));
    EXPECT_TRUE(installed) << installed.error().message();
    return installed ? *installed : nat::Installed{{}, {{}, port(1)}};
  }

  void set_policy() { EXPECT_TRUE(plane.set_policy(policy, now)); }
  void set_network() { EXPECT_TRUE(plane.set_network(network, now)); }
  void wait(std::chrono::nanoseconds time) { now += time; }
  /// As wait(), with the sweep every second that a daemon makes.
  void live(std::chrono::seconds time) {
    for (auto left = time; left > 0s; left -= 1s) {
      now += 1s;
      plane.sweep(now);
    }
  }

  TimePoint now{1h};
  nat::PlanePolicy policy;
  nat::NetworkView network = home_network();
  TestPlane plane;
  bool check_transport = true;

 private:
  static bool get_fragment(const Octets& octets) { return get16(octets, 6) & 0x3fff; }
};

}  // namespace sallyport::test
