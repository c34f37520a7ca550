#include "tests/support/test_plane.hpp"

namespace sallyport::test {
namespace {

using namespace nat;

class MemoryTestPlane final : public TestPlane {
 public:
  explicit MemoryTestPlane(const EngineOptions& options) : plane_{options} {}

  std::vector<Emitted> pass(std::vector<std::byte> octets, Side from, TimePoint now) override {
    return plane_.pass(std::move(octets), from, now);
  }
  Action last_action() const override { return plane_.last_action(); }
  DropReason last_reason() const override { return plane_.last_reason(); }
  void listen(Transport transport, std::uint16_t port) override { plane_.listen(transport, port); }
  void close(Transport transport, std::uint16_t port) override { plane_.close(transport, port); }
  std::vector<Emitted> take_made() override { return plane_.take_made(); }
  Engine* engine() override { return &plane_.engine(); }

  Result<Installed> install(const MappingSpec& spec, TimePoint now) override {
    return plane_.install(spec, now);
  }
  std::optional<FoundRange> find_range(const RangeSpec& spec, TimePoint now) override {
    return plane_.find_range(spec, now);
  }
  Result<void> renew(MappingId id, TimePoint deadline) override { return plane_.renew(id, deadline); }
  Result<void> set_remotes(MappingId id, std::span<const RemoteFilter> remotes, bool outbound,
                           TimePoint now) override {
    return plane_.set_remotes(id, remotes, outbound, now);
  }
  void withdraw(MappingId id, Ending how, TimePoint now) override { plane_.withdraw(id, how, now); }
  void end_flows(const Address& device, TimePoint now) override { plane_.end_flows(device, now); }
  Result<Counters> counters(MappingId id) const override { return plane_.counters(id); }
  std::optional<TimePoint> held_until(Transport transport, const Address& device, Port external,
                                      TimePoint now) const override {
    return plane_.held_until(transport, device, external, now);
  }
  std::optional<Address> external_for(const Address& device) const override {
    return plane_.external_for(device);
  }
  Result<void> set_network(const NetworkView& network, TimePoint now) override {
    return plane_.set_network(network, now);
  }
  Result<void> set_policy(const PlanePolicy& policy, TimePoint now) override {
    return plane_.set_policy(policy, now);
  }
  std::vector<PlaneEvent> sweep(TimePoint now) override { return plane_.sweep(now); }
  std::vector<ImplicitView> implicit_mappings(TimePoint now) const override {
    return plane_.implicit_mappings(now);
  }
  bool has_implicit(Transport transport, const InternalEndpoint& internal, TimePoint now) const override {
    return plane_.has_implicit(transport, internal, now);
  }
  PlaneStatus status() const override { return plane_.status(); }

 private:
  MemoryPlane plane_;
};

}  // namespace

std::unique_ptr<TestPlane> make_test_plane(const EngineOptions& options) {
  return std::make_unique<MemoryTestPlane>(options);
}

}  // namespace sallyport::test
