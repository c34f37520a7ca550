// The programs of the ebpf plane, one packet at a time (BPF_PROG_TEST_RUN), in what the engine's tests cannot
// show: two processors at once, a daemon that is dead, floods, interfaces that are nobody's. Needs root.
#include <bpf/bpf.h>
#include <gtest/gtest.h>
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "nat/plane/ebpf/core.hpp"
#include "tests/support/nat_lan.hpp"
#include "tests/support/packet_builder.hpp"

namespace sallyport::nat::ebpf {
namespace {

using namespace std::chrono_literals;
using namespace sallyport::test;

struct NoPorts final : OwnPorts {
  bool in_use(Transport, std::uint16_t) const override { return false; }
};

class Programs : public testing::Test {
 protected:
  static constexpr std::size_t link_header = 14;
  static constexpr std::uint32_t lan = 2, wan = 3, other = 9;

  void SetUp() override {
    // Sockets of nobody else's; threads of this one are in it too.
    static const bool alone = geteuid() == 0 && unshare(CLONE_NEWNET) == 0;
    if (!alone) GTEST_SKIP() << "needs root";
    std::string why;
    auto tables = Tables::load({.flows = 1U << 17}, {1, 2}, {}, why);
    if (!tables) GTEST_SKIP() << why;
    core = std::make_unique<Core>(std::move(*tables), EngineOptions{.secret = {3, 4}, .seed = 7}, own_ports,
                                  now);
    set_policy();
    network = home_network();
    core->set_network(network, {}, {other}, link_header, now);
    set_time(now);
    config().test_iif = lan;
  }

  sp_config& config() { return core->tables().config(); }
  void set_policy() { core->set_policy(policy, now); }
  void set_time(TimePoint time) {
    now = time;
    config().now_ns = static_cast<std::uint64_t>(now.time_since_epoch().count());
  }

  struct Ran {
    int verdict = -2;
    sp_tag tag{};  // of what goes to the slow path
  };
  Ran run(Hook hook, const Octets& packet, int times = 1, std::uint32_t packet_type = 0) const {
    Octets frame(link_header);
    frame[12] = std::byte{8};
    frame.insert(frame.end(), packet.begin(), packet.end());
    Octets out(frame.size() + 64);
    // To be for this host by its link layer a frame needs the loopback's address, which is zeros.
    if (packet_type) frame[0] = std::byte{2};
    bpf_test_run_opts options{};
    options.sz = sizeof options;
    options.data_in = frame.data();
    options.data_size_in = static_cast<std::uint32_t>(frame.size());
    options.data_out = out.data();
    options.data_size_out = static_cast<std::uint32_t>(out.size());
    options.repeat = times;
    Ran ran;
    if (bpf_prog_test_run_opts(core->tables().program(hook), &options) != 0) return ran;
    ran.verdict = static_cast<int>(options.retval);
    std::memcpy(&ran.tag, out.data() + 6, sizeof ran.tag);
    return ran;
  }
  std::uint64_t drops(sp_drop reason) const { return core->tables().counters()[reason]; }

  /// Whether the LAN host gets out by that source port; what refuses it is told to the slow path.
  std::string goes_out(const char* host, unsigned port) {
    const Ran ran = run(Hook::wan_egress, udp(host, port, server, 53));
    if (ran.verdict == TC_ACT_UNSPEC) return "goes out";
    if (ran.verdict == TC_ACT_REDIRECT && ran.tag.what == SP_SLOW_REFUSE)
      return std::string{to_string(static_cast<DropReason>(ran.tag.reason))};
    return "verdict " + std::to_string(ran.verdict);
  }

  TimePoint now{100s};
  PlanePolicy policy;
  NetworkView network;
  NoPorts own_ports;
  std::unique_ptr<Core> core;
};

// --- two processors at once

/// The calling thread stays on that one of the processors that the process may use; false: it has fewer.
bool stay_on(int which) {
  static const cpu_set_t all = [] {
    cpu_set_t set{};
    sched_getaffinity(0, sizeof set, &set);
    return set;
  }();
  for (int number = 0; number < CPU_SETSIZE; ++number) {
    if (!CPU_ISSET(number, &all) || which-- != 0) continue;
    cpu_set_t one{};
    CPU_SET(number, &one);
    return sched_setaffinity(0, sizeof one, &one) == 0;
  }
  return false;
}

TEST_F(Programs, WhoClaimsAPortTooLateLeavesTheWinnersDeadline) {
  cpu_set_t before_us{};
  sched_getaffinity(0, sizeof before_us, &before_us);
  if (!stay_on(1) || !stay_on(0)) GTEST_SKIP() << "needs two processors";
  policy.mappings_per_device = policy.new_mappings_per_second = policy.flows_per_device = 0;
  set_policy();
  constexpr unsigned first = 1024, last = 13023;
  const std::uint32_t winners = static_cast<std::uint32_t>(now.time_since_epoch() / 1s) + 3600;
  using Steady = std::chrono::steady_clock;
  auto takes = Steady::duration::max();
  for (int i = 0; i < 100; ++i) {
    const auto before = Steady::now();
    run(Hook::wan_egress, udp(alice, 1000, server, 53));
    takes = std::min<Steady::duration>(takes, Steady::now() - before);
  }

  std::atomic<unsigned> ready{0}, other_ready{0};
  const auto meet = [](std::atomic<unsigned>& mine, const std::atomic<unsigned>& other_ones, unsigned port) {
    mine.store(port);
    for (unsigned spins = 1; other_ones.load() < port; ++spins)
      if (spins % 10000 == 0) std::this_thread::yield();
  };
  std::thread second{[&] {
    stay_on(1);
    for (unsigned port = first; port <= last; ++port) {
      const Octets packet = udp(alice, port, server, 53);
      meet(other_ready, ready, port);
      run(Hook::wan_egress, packet);
    }
  }};
  const auto slots = core->tables().slots();
  // Another processor takes the same port for bob, at some moment of that.
  unsigned won = 0, lost = 0, cut = 0;
  for (unsigned port = first; port <= last; ++port) {
    sp_slot bobs{};
    bobs.host = ip(bob);
    bobs.port = static_cast<sp_u16>(port);
    bobs.kind = SP_IMPLICIT;
    std::uint64_t fresh = 0, seen = 0;
    std::memcpy(&fresh, &bobs, sizeof fresh);
    auto* const at = reinterpret_cast<char*>(&slots[std::size_t{SP_UDP} << 16 | port]);
    const std::atomic_ref<std::uint64_t> owner{*reinterpret_cast<std::uint64_t*>(at)};
    const std::atomic_ref<std::uint32_t> deadline{*reinterpret_cast<std::uint32_t*>(at + sizeof fresh)};
    meet(ready, other_ready, port);
    const auto until = Steady::now() + takes * (port * 7919 % 1000) / 1000;
    while (Steady::now() < until) {
    }
    std::uint32_t none = 0;
    if (deadline.compare_exchange_strong(none, winners) && owner.compare_exchange_strong(seen, fresh))
      ++won;
    else
      ++lost;
  }
  second.join();
  sched_setaffinity(0, sizeof before_us, &before_us);
  for (unsigned port = first; port <= last; ++port)
    if (const Slot& slot = slots[std::size_t{SP_UDP} << 16 | port]; slot.host == ip(bob))
      cut += slot.deadline_s != winners;
  EXPECT_GT(won, 0U);
  EXPECT_GT(lost, 0U);
  EXPECT_EQ(cut, 0U);
}

// --- a daemon that is dead

// --- the router's own flows

// A connected socket answers to its peer alone, so no look-up finds it for somebody else: what the router
// sends tells.
TEST_F(Programs, GiveThePortThatTheRouterSendsFromToNobody) {  // POL-NET-04
  const auto from_router = [&](const Octets& packet) {
    config().test_iif = 0;
    EXPECT_EQ(run(Hook::wan_egress, packet).verdict, TC_ACT_UNSPEC);
    config().test_iif = lan;
  };
  from_router(udp(external_address, 5000, server, 53));
  from_router(tcp(external_address, 5001, server, 80, flag::syn));
  from_router(udp("203.0.113.9", 5002, server, 53));      // no address that is translated to
  from_router(udp(external_address, 61000, server, 53));  // not of the pool
  const auto busy = [&](sp_part part, unsigned port) {
    return core->tables().busy(part)[port / 64] >> port % 64 & 1;
  };
  EXPECT_TRUE(busy(SP_UDP, 5000) && busy(SP_TCP, 5001));
  EXPECT_FALSE(busy(SP_TCP, 5000) || busy(SP_UDP, 5001) || busy(SP_UDP, 5002) || busy(SP_UDP, 61000));
  EXPECT_EQ(goes_out(alice, 5000), "goes out");
  EXPECT_EQ(goes_out(alice, 5001), "goes out");
  const auto wears = [&](unsigned port) {
    for (const auto& each : core->engine().implicit_mappings(now))
      if (each.internal.port.number() == port) return unsigned{each.external.port.number()};
    return 0U;
  };
  EXPECT_NE(wears(5000), 0U);
  EXPECT_NE(wears(5000), 5000U);
  EXPECT_EQ(wears(5001), 5001U) << "UDP; the router's is TCP";
}

TEST_F(Programs, DoNotCutDevicesOffByNumbersThatNobodyPutsRight) {
  policy.mappings_per_device = 3;
  policy.flows_per_device = 5;
  set_policy();
  core->sweep(now);
  for (unsigned port = 2000; port < 2003; ++port) ASSERT_EQ(goes_out(alice, port), "goes out");
  EXPECT_EQ(goes_out(alice, 2003), "mapping_limit");
  // All that it has is over, and still it counts: nobody sweeps.
  set_time(now + policy.udp_idle + 1s);
  core->tables().config().counted_until_s = static_cast<std::uint32_t>(now.time_since_epoch() / 1s) + 1;
  EXPECT_EQ(goes_out(alice, 2004), "mapping_limit");
  set_time(now + 1s);
  for (unsigned port = 2005; port < 2020; ++port) EXPECT_EQ(goes_out(alice, port), "goes out") << port;
  // Who sweeps again counts them all: that is too many, for new ones.
  for (int turn = 0; turn < 64; ++turn) core->sweep(now);
  EXPECT_EQ(goes_out(alice, 2020), "mapping_limit");
  EXPECT_EQ(goes_out(bob, 2020), "goes out");
}

TEST_F(Programs, HoldToLimitsForHalfAMinuteAfterTheLastSweep) {
  policy.mappings_per_device = 1;
  set_policy();
  core->sweep(now);
  EXPECT_EQ(goes_out(alice, 2000), "goes out");
  set_time(now + 29s);
  EXPECT_EQ(goes_out(alice, 2001), "mapping_limit");
  set_time(now + 1s);
  EXPECT_EQ(goes_out(alice, 2001), "goes out");
}

// --- floods

TEST_F(Programs, LeaveTheTapToOthersWhileOutsidersFloodItWithErrorsAndFragments) {
  constexpr int most = 40000;
  Octets fragment = udp(server, 53, external_address, 5000).payload(std::string(64, 'x'));
  put16(fragment, 6, 0x2000);
  set_ip_checksum(fragment);
  const Octets error = icmp_error(server, external_address, 3, 3, udp(external_address, 5000, server, 53));
  const auto slow = [&](Hook hook, const Octets& packet, int times = 1) {
    const Ran ran = run(hook, packet, times);
    return ran.verdict == TC_ACT_REDIRECT && ran.tag.tag1 == SP_TAG_1;
  };
  EXPECT_TRUE(slow(Hook::wan_ingress, error, most - 1));
  EXPECT_TRUE(slow(Hook::wan_ingress, fragment));
  EXPECT_FALSE(slow(Hook::wan_ingress, error));
  EXPECT_FALSE(slow(Hook::wan_ingress, fragment));
  EXPECT_EQ(drops(SP_DROP_icmp_fits_nothing), 1U);
  EXPECT_EQ(drops(SP_DROP_fragment_limit), 1U);
  // What the LAN sends is not counted with them.
  Octets own = udp(alice, 5000, server, 53).payload(std::string(64, 'x'));
  put16(own, 6, 0x2000);
  set_ip_checksum(own);
  EXPECT_TRUE(slow(Hook::wan_egress, own));
  set_time(now + 1s);
  EXPECT_TRUE(slow(Hook::wan_ingress, error));
  EXPECT_TRUE(slow(Hook::wan_ingress, fragment));
}

// --- interfaces that are neither LAN nor WAN

TEST_F(Programs, LetNothingOfTheLanOutByAnotherInterfaceButToNetworksThatAreElsewhere) {
  network.untranslated = {Prefix::v4(ip("10.9.0.0"), 16)};
  core->set_network(network, {}, {other}, link_header, now);
  struct Row {
    const char *source, *destination;
    std::uint32_t came_by, packet_type;
    bool leaves;
    const char* says;
  };
  constexpr std::uint32_t bridged = 3;
  for (const Row& row : std::initializer_list<Row>{
           {alice, server, lan, 0, false, "to the world: POL-NET-01"},
           {alice, "10.9.1.1", lan, 0, true, "to a VPN"},
           {alice, "192.168.1.99", lan, 0, true, "to the LAN"},
           {alice, gateway_address, lan, 0, true, "to the router"},
           {alice, "239.1.2.3", lan, 0, false, "to a group"},
           {"172.16.5.5", server, lan, 0, false, "from a LAN's interface, whatever it says to be"},
           {alice, server, 77, 0, false, "from a LAN that was made anew"},
           {external_address, server, lan, 0, true, "translated, on the way to the WAN's lower device"},
           {"172.16.5.5", server, 77, 0, true, "of other networks"},
           {alice, server, lan, bridged, true, "bridged: it leaves no LAN"},
           {"203.0.116.7", server, 0, 0, true, "the router's own"},
       }) {
    // 0 is "as the kernel says": of what was given to test_run it says 0, the router's own.
    config().test_iif = row.came_by;
    const auto before = drops(SP_DROP_no_external_address);
    const Ran ran = run(Hook::other_egress, udp(row.source, 5000, row.destination, 53), 1, row.packet_type);
    EXPECT_EQ(ran.verdict, row.leaves ? TC_ACT_UNSPEC : TC_ACT_SHOT) << row.says;
    EXPECT_EQ(drops(SP_DROP_no_external_address) - before, row.leaves ? 0U : 1U) << row.says;
  }
}

// --- internal addresses that come by no LAN

TEST_F(Programs, LetNothingOfALanOutByTheWanThatComesByAnotherInterface) {
  network.untranslated = {Prefix::v4(ip("10.9.0.0"), 16)};
  const NetworkView before = network;
  const auto check = [&](const char* lans) {
    struct Row {
      const char *source, *destination;
      std::uint32_t came_by;
      std::uint32_t reason;  // 0: it leaves
      const char* says;
    };
    constexpr std::uint32_t router = 0;
    for (const Row& row : std::initializer_list<Row>{
             {alice, server, 77, SP_DROP_spoofed_source, "from another interface: POL-NET-01"},
             {server, alice, wan, SP_DROP_martian_destination,
              "translated already, and the LAN's route is gone"},
             {"172.16.5.5", server, 77, 0, "of other networks"},
             {gateway_address, server, router, SP_DROP_spoofed_source,
              "the router's own from its LAN's address"},
             {gateway_address, "10.9.1.1", router, 0, "to where nothing is translated"},
             {external_address, alice, router, SP_DROP_martian_destination, "the router's own to the LAN"},
             {external_address, server, router, 0, "the router's own"},
         }) {
      config().test_iif = row.came_by;
      const auto counted = row.reason ? drops(static_cast<sp_drop>(row.reason)) : 0;
      EXPECT_EQ(run(Hook::wan_egress, udp(row.source, 5000, row.destination, 53)).verdict,
                row.reason ? TC_ACT_SHOT : TC_ACT_UNSPEC)
          << row.says << ' ' << lans;
      if (row.reason) {
        EXPECT_EQ(drops(static_cast<sp_drop>(row.reason)) - counted, 1U) << row.says << ' ' << lans;
      }
    }
  };
  core->set_network(network, network.untranslated, {other}, link_header, now);
  check("while it is a LAN");
  network.lan[0].index = 0;
  network.lan[0].addresses.clear();
  network.lan[0].prefixes.clear();
  core->set_network(network, network.untranslated, {other}, link_header, now);
  check("when it was one");

  // What the WAN has now is the WAN's.
  network.wan[0].addresses.push_back(*Address::parse(alice));
  core->set_network(network, network.untranslated, {other}, link_header, now);
  config().test_iif = 77;
  EXPECT_EQ(run(Hook::wan_egress, udp("192.168.1.200", 5000, server, 53)).verdict, TC_ACT_UNSPEC);

  core->set_network(before, before.untranslated, {other}, link_header, now);
  config().test_iif = lan;
  EXPECT_NE(run(Hook::wan_egress, udp(alice, 5000, server, 53)).verdict, TC_ACT_SHOT) << "a LAN again";
}

}  // namespace
}  // namespace sallyport::nat::ebpf
