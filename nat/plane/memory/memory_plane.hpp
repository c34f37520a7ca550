#pragma once

#include <set>
#include <utility>
#include <vector>

#include "nat/engine/engine.hpp"
#include "nat/plane/data_plane.hpp"

namespace sallyport::nat {

/// A plane without a kernel: packets are given and taken as octets. For tests, which see in it what every
/// other plane must do. Not thread-safe.
class MemoryPlane final : public DataPlane {
 public:
  struct Emitted {
    std::vector<std::byte> octets;
    Action where = Action::drop;
    friend bool operator==(const Emitted&, const Emitted&) = default;
  };

  explicit MemoryPlane(const EngineOptions& options = {});

  /// Takes one packet and gives what goes out: itself, translated, unless it was dropped or held; and behind
  /// it whatever else it caused: ICMP errors, RSTs, fragments that had waited.
  std::vector<Emitted> pass(std::vector<std::byte> octets, Side from, TimePoint now);
  /// What became of the packet passed last.
  Action last_action() const noexcept { return last_action_; }
  DropReason last_reason() const noexcept { return last_reason_; }

  /// As if the router itself had a socket there, from now on or no longer.
  void listen(Transport transport, std::uint16_t port) { own_ports_.ports.emplace(transport, port); }
  void close(Transport transport, std::uint16_t port) { own_ports_.ports.erase({transport, port}); }

  Engine& engine() noexcept { return engine_; }

  Result<Installed> install(const MappingSpec& spec, TimePoint now) override {
    return engine_.install(spec, now);
  }
  std::optional<FoundRange> find_range(const RangeSpec& spec, TimePoint now) override {
    return engine_.find_range(spec, now);
  }
  Result<void> renew(MappingId id, TimePoint deadline) override { return engine_.renew(id, deadline); }
  Result<void> set_remotes(MappingId id, std::span<const RemoteFilter> remotes, bool outbound, TimePoint now) override {
    return engine_.set_remotes(id, remotes, outbound, now);
  }
  /// What the engine made without a packet since the last call: RSTs of sessions that ended.
  std::vector<Emitted> take_made();

  void withdraw(MappingId id, Ending how, TimePoint now) override { engine_.withdraw(id, how, now); }
  void end_flows(const Address& device, TimePoint now) override { engine_.end_flows(device, now); }
  Result<Counters> counters(MappingId id) const override { return engine_.counters(id); }
  std::optional<TimePoint> held_until(Transport transport, const Address& device, Port external,
                                      TimePoint now) const override {
    return engine_.held_until(transport, device, external, now);
  }
  std::optional<Address> external_for(const Address& device) const override {
    return engine_.external_for(device);
  }
  Result<void> set_network(const NetworkView& network, TimePoint now) override {
    engine_.set_network(network, now);
    return {};
  }
  Result<void> set_policy(const PlanePolicy& policy, TimePoint now) override {
    engine_.set_policy(policy, now);
    return {};
  }
  std::vector<PlaneEvent> sweep(TimePoint now) override { return engine_.sweep(now); }
  std::vector<ImplicitView> implicit_mappings(TimePoint now) const override {
    return engine_.implicit_mappings(now);
  }
  bool has_implicit(Transport transport, const InternalEndpoint& internal, TimePoint now) const override {
    return engine_.has_implicit(transport, internal, now);
  }
  PlaneStatus status() const override;

 private:
  struct Ports final : OwnPorts {
    std::set<std::pair<Transport, std::uint16_t>> ports;
    bool in_use(Transport transport, std::uint16_t port) const override {
      return ports.contains({transport, port});
    }
  };
  Ports own_ports_;
  Engine engine_;
  Action last_action_ = Action::drop;
  DropReason last_reason_{};
};

}  // namespace sallyport::nat
