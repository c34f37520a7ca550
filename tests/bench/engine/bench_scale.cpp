// A carrier's days in minutes: so many leases and flows, all of them changing all the time, over simulated time. Twice, so
// that what the second time needs more than the first would have leaked. Prints what a packet, a lease and a second's
// sweep cost, and memory. Usage: bench_scale [FLOWS [LEASES [DAYS]]]; ends with 1 when something is left over.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <vector>

#include "tests/bench/engine/engine_load.hpp"

namespace {

using namespace sallyport;
using namespace sallyport::bench;
using namespace std::chrono_literals;

constexpr auto step = 10s;
constexpr auto idle = 900s;          // a flow says something as often
constexpr auto flow_life = 3600s;    // then another takes its place
constexpr auto lease_life = 7200s;   // every other one is renewed at half of it, the others end
constexpr std::uint64_t endpoints = 20000;

class Days {
 public:
  Days(std::uint64_t flows, std::uint64_t leases) : flows_{flows}, leases_{leases} {
    PlanePolicy policy;
    policy.flows_total = policy.flows_per_device = policy.mappings_per_device = 0;
    policy.udp_idle = idle + step;
    policy.reuse_delay = 0s;
    engine_.set_policy(policy, now_);
    engine_.set_network(network(), now_);
  }

  /// False when a packet or a lease was refused.
  bool live(std::chrono::seconds time) {
    for (const TimePoint end = now_ + time; now_ < end;) {
      change_leases();
      send_a_share();
      for (int second = 0; second < step.count(); ++second) {
        now_ += 1s;
        const double start = seconds_now();
        engine_.sweep(now_);
        const double took = seconds_now() - start;
        sweep_s += took;
        longest_sweep_s = std::max(longest_sweep_s, took);
        ++sweeps;
      }
    }
    return refused == 0;
  }
  /// Nobody says anything; every lease ends.
  void fall_silent() {
    for (const auto& held : held_) engine_.withdraw(held.id, Ending::reset, now_);
    held_.clear();
    for (int second = 0; second < 1200; ++second) engine_.sweep(now_ += 1s);
  }
  PlaneStatus status() const {
    PlaneStatus status;
    engine_.fill_status(status);
    return status;
  }

  std::uint64_t packets = 0, refused = 0, changes = 0, sweeps = 0;
  double packet_s = 0, change_s = 0, sweep_s = 0, longest_sweep_s = 0;

 private:
  struct Held {
    MappingId id{};
    TimePoint deadline;
  };

  void change_leases() {
    const double start = seconds_now();
    while (!held_.empty() && held_.front().deadline - now_ <= lease_life / 2) {
      auto held = held_.front();
      held_.pop_front();
      if (changes++ % 2 == 0) {
        held.deadline = now_ + lease_life;
        if (!engine_.renew(held.id, held.deadline)) ++refused;
        held_.push_back(held);
      } else {
        engine_.withdraw(held.id, Ending::reset, now_);
      }
    }
    // as many as a step's share, so that they do not all end at once
    const std::uint64_t share = leases_ / static_cast<std::uint64_t>(lease_life / 2 / step) + 1;
    for (std::uint64_t i = 0; i < share && held_.size() < leases_; ++i, ++changes, ++next_lease_) {
      // devices that have no flows, 50 ports of each
      MappingSpec spec{.transport = next_lease_ % 2 ? Transport::tcp : Transport::udp,
                       .internal = {Address::v4(static_cast<std::uint32_t>(0x0a008000 + next_lease_ / 50 % 4096)),
                                    *Port::from(static_cast<std::uint32_t>(2000 + next_lease_ % 50 +
                                                                           next_lease_ / 204800 % 100 * 50))}};
      spec.deadline = now_ + lease_life;
      const auto made = engine_.install(spec, now_);
      if (made)
        held_.push_back({made->id, spec.deadline});
      else
        ++refused;
    }
    engine_.take_made(sink_);
    change_s += seconds_now() - start;
  }

  void send_a_share() {
    const std::uint64_t share = flows_ / static_cast<std::uint64_t>(idle / step);
    std::vector<std::uint8_t> buffer(batch * octets);
    std::vector<Packet> out(batch);
    for (std::uint64_t sent = 0; sent < share;) {
      std::size_t count = 0;
      for (; count < batch && sent < share; ++count, ++sent) {
        const std::uint64_t flow = next_flow_++ % flows_;
        // the peer of a flow is another one after its life
        constexpr auto life_s = static_cast<std::uint64_t>(std::chrono::seconds{flow_life}.count());
        const auto now_s = static_cast<std::uint64_t>(now_.time_since_epoch() / 1s);
        const std::uint64_t generation = (now_s + flow * 2654435761U % life_s) / life_s;
        const std::uint64_t endpoint = flow % endpoints;
        auto* at = buffer.data() + count * octets;
        write_packet(at, static_cast<std::uint32_t>(0x0a000100 + endpoint / 400), static_cast<std::uint16_t>(2000 + endpoint),
                     static_cast<std::uint32_t>(0x08000001 + flow / endpoints * 65536 + generation % 65000), 53);
        out[count] = {.data = reinterpret_cast<std::byte*>(at), .size = octets, .from = Side::lan};
      }
      const double start = seconds_now();
      engine_.translate(std::span{out}.first(count), now_, sink_);
      packet_s += seconds_now() - start;
      for (std::size_t i = 0; i < count; ++i) refused += out[i].action != Action::forward_wan;
      packets += count;
    }
  }

  std::uint64_t flows_, leases_, next_flow_ = 0, next_lease_ = 0;
  TimePoint now_{1h};
  NoPorts ports_;
  NoSink sink_;
  Engine engine_{{.ttl = TtlMode::decrement, .secret = {1, 2}, .seed = 3}, ports_};
  std::deque<Held> held_;
};

}  // namespace

int main(int argc, char** argv) {
  const auto word = [&](int i, std::uint64_t otherwise) {
    return argc > i ? std::strtoull(argv[i], nullptr, 10) : otherwise;
  };
  const std::uint64_t flows = word(1, 1'000'000), leases = word(2, 60'000), days = word(3, 1);
  if (flows < 100'000 || leases > 60'000 || days == 0) {
    std::fprintf(stderr, "usage: bench_scale [FLOWS (from 100000) [LEASES (to 60000) [DAYS (from 1)]]]\n");
    return 2;
  }
  std::printf("machine: %s\n%8s %12s %9s %12s %10s %12s %14s %10s\n", machine().c_str(), "day", "flows", "leases", "packets M",
              "ns/packet", "us/change", "longest sweep", "RSS MiB");
  const std::size_t before = resident();
  Days life{flows, leases};
  std::size_t peak[2] = {};
  for (int turn = 0; turn < 2; ++turn) {
    for (std::uint64_t day = 0; day < days; ++day) {
      life.packets = life.sweeps = 0;
      life.packet_s = life.change_s = life.longest_sweep_s = 0;
      const auto changes = life.changes;
      if (!life.live(24h)) {
        std::fprintf(stderr, "%llu packets or leases were refused\n", static_cast<unsigned long long>(life.refused));
        return 1;
      }
      const auto status = life.status();
      peak[turn] = std::max(peak[turn], resident() - before);
      std::printf("%8llu %12llu %9llu %12.1f %10.1f %12.2f %11.2f ms %10.1f\n",
                  static_cast<unsigned long long>(turn * days + day + 1), static_cast<unsigned long long>(status.flows),
                  static_cast<unsigned long long>(status.explicit_mappings), static_cast<double>(life.packets) / 1e6,
                  life.packet_s * 1e9 / static_cast<double>(life.packets),
                  life.change_s * 1e6 / static_cast<double>(std::max<std::uint64_t>(life.changes - changes, 1)),
                  life.longest_sweep_s * 1e3, static_cast<double>(peak[turn]) / 1048576);
      std::fflush(stdout);
    }
    life.fall_silent();
    const auto left = life.status();
    std::printf("%8s %12llu %9llu\n", "silence", static_cast<unsigned long long>(left.flows),
                static_cast<unsigned long long>(left.explicit_mappings + left.implicit_mappings));
    if (left.flows != 0 || left.explicit_mappings != 0 || left.implicit_mappings != 0) {
      std::fprintf(stderr, "something is left though nobody speaks and nothing is leased\n");
      return 1;
    }
  }
  const double growth = static_cast<double>(peak[1]) / static_cast<double>(peak[0]);
  std::printf("the second time took %.3f of the memory of the first\n", growth);
  return growth <= 1.02 ? 0 : 1;
}
