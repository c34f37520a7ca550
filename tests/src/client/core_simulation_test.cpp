// The client's core against our own gateway, in worlds that lose, double, delay and reorder what is sent, in
// which gateways restart, links break, hosts sleep and move, and administrators revoke. One seed, one story.
#include <cstdlib>
#include <iostream>
#include <set>

#include "tests/src/client/gateway_world.hpp"

namespace sallyport::test {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr std::uint64_t usual_seeds = 500;
#else
constexpr std::uint64_t usual_seeds = 10'000;
#endif

std::uint64_t number_from(const char* variable, std::uint64_t otherwise) {
  const char* const text = std::getenv(variable);
  return text ? std::strtoull(text, nullptr, 10) : otherwise;
}

const World::Kind kinds[] = {
    {},
    {.natpmp = false, .upnp = false},
    {.pcp = false, .upnp = false},
    {.pcp = false, .natpmp = false, .igd = 1},
    {.pcp = false, .natpmp = false},
    {.upnp = false},
};

class Simulation {
 public:
  explicit Simulation(std::uint64_t seed) : dice_{seed * 2 + 1}, world_{kind(), options(seed), seed} {
    const bool smooth = dice_.percent(25);
    harsh_ = {.loss_up = smooth ? 0 : static_cast<unsigned>(dice_.below(41)),
              .loss_down = smooth ? 0 : static_cast<unsigned>(dice_.below(41)),
              .doubled = smooth ? 0 : static_cast<unsigned>(dice_.below(11)),
              .lost_multicast = dice_.percent(30) ? 100U : 0U,
              .failed_asks = smooth ? 0 : static_cast<unsigned>(dice_.below(31)),
              .least = 0ms,
              .most = 0ms};
    harsh_.least = dice_.between(0ms, 20ms);
    harsh_.most = harsh_.least + dice_.between(0ms, smooth ? 20ms : 280ms);
    mild_ = {.least = harsh_.least, .most = harsh_.most};
    lifetime_ = dice_.percent(5) ? 600s : dice_.percent(50) ? 3600s : 7200s;
  }

  World& world() { return world_; }

  void run() {
    world_.boot();
    for (int i = 0; i < 3; ++i)
      if (dice_.percent(30)) world_.take_port(Transport::tcp, port(first_port + dice_.below(ports)));
    world_.link = dice_.percent(50) ? harsh_ : mild_;
    if (dice_.percent(50)) world_.run(dice_.between(0s, 20min));
    world_.join();
    const auto first = 1 + dice_.below(5);
    for (std::uint64_t i = 0; i < first; ++i) open_one();
    const auto rounds = dice_.percent(20) ? 2U : 1U;
    for (std::uint64_t round = 0; round < rounds; ++round) {
      world_.link = harsh_;
      const auto faults = 1 + dice_.below(5);
      for (std::uint64_t i = 0; i < faults; ++i) {
        world_.run(gap());
        fault();
      }
      world_.run(gap());
      calm();
      // A lease that was forgotten, unheard, shows at its renewal: at 5/8 of its lifetime at most
      // (PCP-11.2.1, NPM-3.3-19). One that is in the way ends with its lifetime. Whoever was refused or heard
      // nothing asks again within 1800 s and an eighth (PCP's longest error lifetime; its retransmission,
      // NAT-PMP's back-off and the rediscovery are shorter).
      world_.run(lifetime_ + 2100s);
      world_.expect_settled();
      churn();
    }
    for (auto& [id, door] : world_.doors)
      if (!door.closing) world_.close(id);
    world_.run(30s);
    world_.expect_settled();
    if (world_.core->doors() != 0) throw Broken{"a door has not come to its end"};
    limit();
  }

 private:
  static constexpr std::uint32_t first_port = 20000, ports = 8;

  World::Kind kind() {
    auto kind = kinds[dice_.below(std::size(kinds))];
    kind.ipv6 = dice_.percent(25);
    kind.tells_unreachable = dice_.percent(70);
    return kind;
  }
  Core::Options options(std::uint64_t seed) {
    Core::Options options;
    options.seed = seed;
    if (dice_.percent(50)) {
      options.secret.emplace();
      options.secret->fill(static_cast<std::byte>(seed));
    }
    return options;
  }
  /// Seconds to hours, the short ones as likely as the long ones.
  nanoseconds gap() {
    static constexpr nanoseconds longest[] = {1s, 10s, 60s, 10min, 1h, 3h};
    return dice_.between(0s, longest[dice_.below(std::size(longest))]);
  }

  void open_one() {
    std::set<std::pair<Transport, Port>> used;
    std::size_t wanted = 0;
    for (const auto& [id, door] : world_.doors)
      if (!door.closing) {
        used.emplace(door.request.transport, door.request.internal_port);
        ++wanted;
      }
    if (wanted >= 5) return;
    const auto transport = dice_.percent(50) ? Transport::tcp : Transport::udp;
    PortRequest request{.transport = transport, .internal_port = port(first_port + 100 + dice_.below(ports))};
    if (!used.emplace(transport, request.internal_port).second) return;
    if (dice_.percent(30)) request.external_port = port(first_port + dice_.below(ports));
    if (dice_.percent(15)) {  // a port that nobody else suggests
      request.external_port = port(request.internal_port.number() + 1000u);
      request.exact = true;
    }
    request.lifetime = lifetime_;
    request.description = "door";
    request.ipv6 = !request.exact && dice_.percent(80);  // a pinhole has no other port
    world_.open(std::move(request));
  }
  void close_one() {
    std::vector<DoorId> open;
    for (const auto& [id, door] : world_.doors)
      if (!door.closing) open.push_back(id);
    if (!open.empty()) world_.close(open[dice_.below(open.size())]);
  }

  void fault() {
    ++faults_;
    switch (dice_.below(12)) {
      case 0:
      case 1:
      case 2: {  // a restart
        if (!world_.is_running()) return;
        world_.stop(dice_.percent(50), dice_.percent(60));
        world_.run(dice_.percent(50) ? dice_.between(0s, 5s) : dice_.between(0s, 10min));
        world_.boot();
        return;
      }
      case 3:  // nobody hears anybody
        world_.say("the link breaks");
        world_.connected = false;
        world_.run(gap());
        world_.connected = true;
        world_.say("the link is back");
        return;
      case 4:
        world_.set_external(dice_.percent(30) ? -1 : static_cast<int>(dice_.below(4)));
        return;
      case 5:
        world_.sleep(dice_.between(1min, dice_.percent(50) ? 1h : 12h));
        return;
      case 6:
        world_.move_host();
        return;
      case 7:
        if (dice_.percent(50)) {
          world_.leave();
          world_.run(gap());
          world_.join();
        }
        return;
      case 8: {
        const auto leases = world_.leases();
        if (leases.empty()) return;
        const auto& lease = leases[dice_.below(leases.size())];
        if (lease.internal.address == World::neighbour) return;
        world_.revoke(lease, dice_.percent(30) ? std::optional{3600s} : std::nullopt);
        return;
      }
      case 9: {
        const auto& now = world_.kind;
        // one is left at least
        const auto spoken = (now.pcp ? 1 : 0) + (now.natpmp ? 1 : 0) + (now.upnp ? 1 : 0);
        const auto which = dice_.below(3);
        bool all[] = {now.pcp, now.natpmp, now.upnp};
        if (all[which] && spoken < 2) return;
        all[which] = !all[which];
        world_.set_spoken(all[0], all[1], all[2]);
        return;
      }
      case 10:
        churn_step();
        return;
      default:  // several at once
        for (auto left = dice_.below(6); left > 0; --left) {
          churn_step();
          world_.run(dice_.between(0ms, 500ms));
        }
    }
  }
  void churn_step() { dice_.percent(50) ? open_one() : close_one(); }

  void calm() {
    world_.link = mild_;
    if (!world_.is_running()) world_.boot();
    if (!world_.has_external()) world_.set_external(1);
    world_.unblock();
    while (world_.is_asleep()) world_.run(1h);
    world_.say("calm");
  }
  /// Without faults all is done within seconds: nothing is left over, nothing is missing.
  void churn() {
    for (auto left = dice_.below(5); left > 0; --left) {
      churn_step();
      world_.run(dice_.percent(50) ? dice_.between(0ms, 300ms) : dice_.between(0s, 3s));
    }
    world_.run(30s);
    world_.expect_settled();
  }
  void limit() const {
    const auto hours =
        std::chrono::duration<double, std::ratio<3600>>(world_.now().time_since_epoch()).count();
    const auto calls = static_cast<double>(world_.stimuli + 4 * faults_ + 4);
    // an hour of searching in vain, of retransmissions and of renewals; and what follows an event at once
    const auto most = 6 * (hours * 200 + calls * 60);
    if (static_cast<double>(world_.sent + world_.asked) > most)
      throw Broken{std::to_string(world_.sent) + " datagrams and " + std::to_string(world_.asked) +
                   " asks in " + std::to_string(hours) + " hours"};
    if (static_cast<double>(world_.wakes) > 4 * most) throw Broken{std::to_string(world_.wakes) + " wakes"};
  }

  Dice dice_;
  World world_;
  World::Link harsh_, mild_;
  std::chrono::seconds lifetime_{};
  unsigned faults_ = 0;
};

/// True when it went well; else its story is told.
bool goes_well(std::uint64_t seed) {
  try {
    Simulation simulation{seed};
    simulation.run();
    return true;
  } catch (const Broken&) {
  }
  Simulation again{seed};
  again.world().telling = true;
  again.world().story_lines = number_from("SALLYPORT_SIMULATION_LINES", 50);
  std::string what = "it did not happen again: equal seeds are no equal runs";
  try {
    again.run();
  } catch (const Broken& broken) {
    what = broken.what();
  }
  std::string story;
  for (const auto& line : again.world().story) story += line + '\n';
  ADD_FAILURE() << "seed " << seed << ": " << what << "\n" << story;
  return false;
}

TEST(CoreSimulation, PortsAreOpenWheneverTheGatewayCanBeReachedAndNoLeaseIsLeftOver) {
  const auto first = number_from("SALLYPORT_SIMULATION_FIRST", 1);
  const auto count = number_from("SALLYPORT_SIMULATION_SEEDS", usual_seeds);
  unsigned failed = 0;
  for (auto seed = first; seed < first + count && failed < number_from("SALLYPORT_SIMULATION_FAILURES", 3);
       ++seed)
    failed += !goes_well(seed);
}

TEST(CoreSimulation, EqualSeedsAreEqualRuns) {
  for (std::uint64_t seed = 1; seed <= usual_seeds / 200; ++seed) {
    Simulation one{seed}, other{seed};
    one.run();
    other.run();
    EXPECT_EQ(one.world().hash, other.world().hash) << seed;
    EXPECT_EQ(one.world().sent, other.world().sent) << seed;
  }
}

}  // namespace
}  // namespace sallyport::test
