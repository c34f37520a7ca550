#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "nat/plane/ebpf/core.hpp"
#include "nat/plane/memory/memory_plane.hpp"

/// The programs for the kernel, run on one packet at a time without interfaces (BPF_PROG_TEST_RUN), with the
/// stack around them played: what forwards, what is the gateway's own. As MemoryPlane, so the same tests run
/// on both. In a network namespace of the process's own; needs root.
namespace sallyport::test {

class EbpfTestPlane {
 public:
  using Emitted = nat::MemoryPlane::Emitted;
  using Octets = std::vector<std::byte>;

  explicit EbpfTestPlane(const nat::EngineOptions& options = {});
  ~EbpfTestPlane();

  /// Why nothing can be run here; empty when all is well.
  const std::string& unusable() const noexcept { return unusable_; }

  std::vector<Emitted> pass(Octets octets, nat::Side from, TimePoint now);
  nat::Action last_action() const noexcept { return last_action_; }
  nat::DropReason last_reason() const noexcept { return last_reason_; }
  void listen(Transport transport, std::uint16_t port);
  void close(Transport transport, std::uint16_t port);
  std::vector<Emitted> take_made();
  nat::ebpf::Core& core() noexcept { return *core_; }

  Result<nat::Installed> install(const nat::MappingSpec& spec, TimePoint now);
  std::optional<nat::FoundRange> find_range(const nat::RangeSpec& spec, TimePoint now) {
    return core_->engine().find_range(spec, now);
  }
  Result<void> renew(nat::MappingId id, TimePoint deadline);
  Result<void> set_remotes(nat::MappingId id, std::span<const RemoteFilter> remotes, bool outbound,
                           TimePoint now);
  void withdraw(nat::MappingId id, nat::Ending how, TimePoint now);
  void end_flows(const Address& device, TimePoint now);
  Result<Counters> counters(nat::MappingId id) const;
  std::optional<TimePoint> held_until(Transport transport, Port external, TimePoint now) const;
  Result<void> set_network(const nat::NetworkView& network, TimePoint now);
  Result<void> set_policy(const nat::PlanePolicy& policy, TimePoint now);
  std::vector<nat::PlaneEvent> sweep(TimePoint now);
  std::vector<nat::ImplicitView> implicit_mappings(TimePoint now) const;
  bool has_implicit(Transport transport, const InternalEndpoint& internal, TimePoint now) const;
  nat::PlaneStatus status() const;

 private:
  struct Ports final : nat::OwnPorts {
    std::set<std::pair<Transport, std::uint16_t>> ports;
    bool in_use(Transport transport, std::uint16_t port) const override {
      return ports.contains({transport, port});
    }
  };
  struct Ran {
    int verdict = 0;
    Octets frame;
  };

  Ran run(nat::ebpf::Hook hook, std::span<const std::byte> packet, std::uint32_t mark);
  void through(nat::ebpf::sp_side side, Octets packet, std::uint32_t mark, std::vector<Emitted>& out);
  void stack(Octets packet, std::vector<Emitted>& out);
  void give(std::span<const std::byte> packet, nat::ebpf::sp_back how, nat::ebpf::sp_side side,
            std::vector<Emitted>& out);
  void dropped(nat::DropReason reason);
  bool is_lan(std::uint32_t address) const;
  bool is_gateway(std::uint32_t address) const;

  std::string unusable_;
  Ports own_ports_;
  std::unique_ptr<nat::ebpf::Core> core_;
  nat::NetworkView network_;
  TimePoint now_{};
  nat::Action last_action_ = nat::Action::drop;
  nat::DropReason last_reason_{};
  std::map<std::pair<Transport, std::uint16_t>, int> sockets_;
  std::map<std::string, std::uint64_t> of_the_stack_;  // drops
};

}  // namespace sallyport::test
