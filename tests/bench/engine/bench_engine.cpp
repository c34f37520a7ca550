// What a packet costs in memory: batches of 32 through the engine, flows in random order, beside dependent
// random loads over as many octets as the engine's tables take, in the same run. Then what a stranger's first
// packet to a lease costs where there are more and more leases. Usage: bench_engine [MOST_FLOWS].

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "tests/bench/engine/engine_load.hpp"

namespace {

using namespace sallyport;
using namespace sallyport::bench;

/// Flow `number`: up to 40,000 endpoints of 100 hosts, each with as many peers as it takes.
struct Ends {
  std::uint32_t host, peer;
  std::uint16_t host_port, peer_port;
};
Ends ends_of(std::uint64_t number, std::uint64_t flows) {
  const std::uint64_t endpoints = std::min<std::uint64_t>(flows, 40000);
  const std::uint64_t endpoint = number % endpoints, peer = number / endpoints;
  return {static_cast<std::uint32_t>(0x0a000100 + endpoint / 400),
          static_cast<std::uint32_t>(0x08000001 + peer * 7 + endpoint % 97 * 65536),
          static_cast<std::uint16_t>(2000 + endpoint), static_cast<std::uint16_t>(53)};
}

constexpr std::uint32_t first_lease_port = 1024;

class Gateway {
 public:
  Gateway() : engine_{{.ttl = TtlMode::decrement, .secret = {1, 2}, .seed = 3}, ports_} {
    PlanePolicy policy;
    policy.flows_total = policy.flows_per_device = policy.mappings_per_device = 0;
    policy.udp_idle = std::chrono::hours{24};
    engine_.set_policy(policy, now_);
    engine_.set_network(network(), now_);
  }

  /// Lease `number` of 60,000 at most: its external port is first_lease_port + number.
  bool lease(std::uint32_t number, Transport transport) {
    const MappingSpec spec{
        .transport = transport,
        .internal = {Address::v4(0x0a000100 + number / 400), *Port::from(2000 + number % 400)},
        .suggested = Port::from(first_lease_port + number),
        .insist = true};
    return static_cast<bool>(engine_.install(spec, now_));
  }
  void pass(std::span<Packet> packets) { engine_.translate(packets, now_, sink_); }
  PlaneStatus status() const {
    PlaneStatus status;
    engine_.fill_status(status);
    return status;
  }

 private:
  TimePoint now_{std::chrono::hours{1}};
  NoPorts ports_;
  NoSink sink_;
  Engine engine_;
};

struct Timing {
  double ns;
  std::uint64_t passed;
};

/// ns per packet over `rounds` batches. What making the packets costs is measured alone and taken off.
Timing run(Gateway* gateway, std::uint64_t flows, std::uint64_t rounds, bool inbound) {
  std::vector<std::uint8_t> buffer(batch * octets);
  std::vector<Packet> packets(batch);
  Random random{88172645463325252};
  std::uint64_t passed = 0;
  const double start = seconds_now();
  for (std::uint64_t round = 0; round < rounds; ++round) {
    for (std::size_t i = 0; i < batch; ++i) {
      const Ends ends = ends_of(random() % flows, flows);
      auto* at = buffer.data() + i * octets;
      if (inbound)
        write_packet(at, ends.peer, ends.peer_port, external, ends.host_port);
      else
        write_packet(at, ends.host, ends.host_port, ends.peer, ends.peer_port);
      packets[i] = {
          .data = reinterpret_cast<std::byte*>(at), .size = octets, .from = inbound ? Side::wan : Side::lan};
    }
    if (gateway) gateway->pass(packets);
    for (const Packet& packet : packets)
      passed += packet.action == (inbound ? Action::forward_lan : Action::forward_wan);
    asm volatile("" ::"r"(buffer.data()) : "memory");
  }
  return {(seconds_now() - start) * 1e9 / static_cast<double>(rounds * batch), passed};
}

/// ns of one load whose address the load before it told, over a table of that many octets.
double dependent_load(std::size_t size) {
  const std::size_t count = std::max<std::size_t>(size / 64, 2);
  struct alignas(64) Line {
    std::uint64_t next;
  };
  std::vector<Line> lines(count);
  std::vector<std::uint64_t> order(count);
  for (std::size_t i = 0; i < count; ++i) order[i] = i;
  Random random{362436069};
  for (std::size_t i = count - 1; i > 0; --i)
    std::swap(order[i], order[random() % i]);  // one cycle (Sattolo)
  for (std::size_t i = 0; i < count; ++i) lines[order[i]].next = order[(i + 1) % count];
  const std::size_t loads = 4'000'000;
  std::uint64_t at = 0;
  for (std::size_t i = 0; i < std::min(count, loads); ++i) at = lines[at].next;
  const double start = seconds_now();
  for (std::size_t i = 0; i < loads; ++i) at = lines[at].next;
  const double time = (seconds_now() - start) * 1e9 / static_cast<double>(loads);
  asm volatile("" ::"r"(at));
  return time;
}

/// ns of a packet to a random one of so many leases, each from a peer that never sent before: a datagram, or
/// a SYN, which makes a flow.
Timing first_packets(Gateway* gateway, std::uint32_t leases, Transport transport) {
  const std::uint64_t rounds = 6000;
  std::vector<std::uint8_t> buffer(batch * octets);
  std::vector<Packet> packets(batch);
  Random random{88172645463325252};
  std::uint32_t peer = 0x08000001;
  std::uint64_t passed = 0;
  const double start = seconds_now();
  for (std::uint64_t round = 0; round < rounds; ++round) {
    for (std::size_t i = 0; i < batch; ++i) {
      auto* at = buffer.data() + i * octets;
      const auto port = static_cast<std::uint16_t>(first_lease_port + random() % leases);
      write_packet(at, peer++, 40000, external, port);
      if (transport == Transport::tcp) {
        at[9] = 6;
        packet::store16(at + 10, 0);
        packet::store16(at + 10, packet::checksum_of(at, 20));
        packet::store32(at + 24, 1);
        packet::store16(at + 32, 0x5002);  // SYN
      }
      packets[i] = {.data = reinterpret_cast<std::byte*>(at), .size = octets, .from = Side::wan};
    }
    if (gateway) gateway->pass(packets);
    for (const Packet& packet : packets) passed += packet.action == Action::forward_lan;
    asm volatile("" ::"r"(buffer.data()) : "memory");
  }
  return {(seconds_now() - start) * 1e9 / static_cast<double>(rounds * batch), passed};
}

/// False when a packet or a lease was refused.
bool print_first_packets(Transport transport) {
  const double making = first_packets(nullptr, 1, transport).ns;
  double base = 0;
  for (const std::uint32_t leases : {1U, 1000U, 60000U}) {
    double best = 1e9;
    std::size_t size = 0;
    for (int repeat = 0; repeat < 3; ++repeat) {
      const std::size_t before = resident();
      Gateway gateway;
      for (std::uint32_t number = 0; number < leases; ++number)
        if (!gateway.lease(number, transport)) return false;
      size = std::max(size, resident() - before);
      const Timing timing = first_packets(&gateway, leases, transport);
      if (timing.passed != 6000 * batch) return false;
      best = std::min(best, timing.ns - making);
    }
    const double load = dependent_load(size);
    if (leases == 1) base = best;
    std::printf("%10u %9s %9.1f %12.1f %9.1f %9.2f\n", leases, transport == Transport::tcp ? "TCP" : "UDP",
                best, static_cast<double>(size) / 1048576, load, (best - base) / load);
    std::fflush(stdout);
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  const std::uint64_t most = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 10'000'000;
  std::printf("machine: %s\n", machine().c_str());
  std::printf("%10s %9s %9s %12s %9s %9s %11s\n", "flows", "out ns", "in ns", "octets/flow", "load ns",
              "out fig.", "in fig.");
  double base_out = 0, base_in = 0;
  for (const std::uint64_t flows : {1000ULL, 10000ULL, 100000ULL, 1000000ULL, 10000000ULL}) {
    if (flows > most) break;
    const std::size_t before = resident();
    Gateway gateway;
    {
      std::vector<std::uint8_t> buffer(batch * octets);
      std::vector<Packet> packets(batch);
      for (std::uint64_t flow = 0; flow < flows;) {
        std::size_t count = 0;
        for (; count < batch && flow < flows; ++count, ++flow) {
          const Ends ends = ends_of(flow, flows);
          auto* at = buffer.data() + count * octets;
          write_packet(at, ends.host, ends.host_port, ends.peer, ends.peer_port);
          packets[count] = {.data = reinterpret_cast<std::byte*>(at), .size = octets, .from = Side::lan};
        }
        gateway.pass(std::span{packets}.first(count));
      }
    }
    const std::size_t size = resident() - before;
    if (gateway.status().flows != flows) {
      std::fprintf(stderr, "only %llu of %llu flows were made\n",
                   static_cast<unsigned long long>(gateway.status().flows),
                   static_cast<unsigned long long>(flows));
      return 1;
    }
    const std::uint64_t rounds = 100000;
    double best_out = 1e9, best_in = 1e9;
    for (int repeat = 0; repeat < 3; ++repeat) {
      const double making = run(nullptr, flows, rounds, false).ns;
      const Timing out = run(&gateway, flows, rounds, false), in = run(&gateway, flows, rounds, true);
      if (out.passed != rounds * batch || in.passed != rounds * batch) {
        std::fprintf(stderr, "packets were dropped\n");
        return 1;
      }
      best_out = std::min(best_out, out.ns - making);
      best_in = std::min(best_in, in.ns - making);
    }
    const double load = dependent_load(size);
    if (flows == 1000) {
      base_out = best_out;
      base_in = best_in;
    }
    std::printf("%10llu %9.1f %9.1f %12.1f %9.1f %9.2f %11.2f\n", static_cast<unsigned long long>(flows),
                best_out, best_in, static_cast<double>(size) / static_cast<double>(flows), load,
                (best_out - base_out) / load, (best_in - base_in) / load);
    std::fflush(stdout);
  }
  std::printf(
      "fig. = (cost - cost at 1000 flows) / one dependent random load over a table of that size; aim: at "
      "most 1.5\n");
  std::printf("\nfirst packets to a lease\n%10s %9s %9s %12s %9s %9s\n", "leases", "", "ns", "tables MiB",
              "load ns", "fig.");
  if (!print_first_packets(Transport::udp) || !print_first_packets(Transport::tcp)) {
    std::fprintf(stderr, "a lease or a packet to it was refused\n");
    return 1;
  }
  return 0;
}
