#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include "nat/engine/flow_table.hpp"
#include "nat/engine/mapping_table.hpp"
#include "sallyport/values/remote_filter.hpp"

namespace sallyport::nat {

/// Tables that programs in the kernel work on at the same time: they make implicit mappings and all flows,
/// the engine everything that has a lease. A slot changes owner by compare-and-swap on its first eight
/// octets, so each sees what the other holds. All calls are the engine's, by its owner's one thread at a
/// time.
class SharedTables {
 public:
  virtual ~SharedTables() = default;

  virtual std::span<Slot> slots() noexcept = 0;  ///< parts << 16 for each address that there is room for
  /// Makes at least `count` of them reachable, at the same addresses as before: those there are now. Fewer
  /// than `count`: there can be no more.
  virtual std::span<Lease> leases(std::size_t count) noexcept = 0;

  /// The external port of an internal endpoint; 0: none. What is found may be over, or another's by now.
  virtual std::uint16_t find(Part part, std::uint32_t host, std::uint16_t port) const noexcept = 0;
  virtual bool link(Part part, std::uint32_t host, std::uint16_t port, std::uint16_t external) noexcept = 0;
  virtual void unlink(Part part, std::uint32_t host, std::uint16_t port) noexcept = 0;

  struct FlowState {
    std::uint32_t deadline_s = 0;
    std::uint16_t external = 0;
    std::uint8_t generation = 0;  ///< of its slot when it began
  };
  virtual std::optional<FlowState> flow(const FlowKey& key) const noexcept = 0;

  virtual void set_filters(std::uint32_t lease, std::span<const RemoteFilter> filters) noexcept = 0;
  /// From now on each flow looks at its slot before its next packet.
  virtual void look_again() noexcept = 0;
  /// A lease ended with a reset: the ends of its TCP sessions are to be told (Engine::reset).
  virtual void ended(Part part, std::uint32_t host, std::uint16_t port, std::uint16_t external) noexcept = 0;
  /// The external address is another one: all flows are over.
  virtual void forget_flows() noexcept = 0;
  /// It is another one for these hosts: their flows are.
  virtual void forget_flows(
      const std::function<bool(std::uint32_t host, std::uint32_t peer)>& of) noexcept = 0;
};

}  // namespace sallyport::nat
