#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "nat/engine/engine.hpp"
#include "nat/plane/data_plane.hpp"

namespace sallyport::nat {

struct TunOptions {
  std::string device = "sp0";  ///< the TUN interface: 1 to 15 characters
  /// Holds what the sysctls were before us, until detach(). Its directory must exist and be writable; it is
  /// ignored after a reboot and in another network namespace.
  std::string undo_file = "/run/sallyport/tun-undo";
  unsigned queues = 0;  ///< of the device, each with a packet thread; 0: one for each processor, at most 8
  EngineOptions engine;  ///< `ttl` plays no part: the plane compensates for forwarding twice
  /// Of detach(), for a plane that takes over: called while forwarding is as it was before us and the rules
  /// still stand. False: `why` says what is wrong, and the rules stay.
  std::function<bool(std::string& why)> shut;
};

/// Carries packets through a TUN device by policy routing, in the network namespace of the thread that starts
/// it. Needs CAP_NET_ADMIN and /dev/net/tun, for as long as it lives. `nat/plane/tun/README.md` has its
/// routing rules.
///
/// Fails closed: whatever ends it (stop, crash, kill -9), its rules stay and what came from the LAN is
/// dropped until the next start or detach(). A free external port stays silent all the while.
///
/// All calls are made by one control thread; packets have threads of their own.
class TunPlane final : public DataPlane {
 public:
  /// Makes the device and starts the packet threads; nothing is routed to it before set_network().
  /// On failure (system_failure) `why` says in words what is wrong and what to do: no rights, no TUN support,
  /// or another instance in this namespace.
  static Result<std::unique_ptr<TunPlane>> start(const TunOptions& options, const Clock& clock,
                                                 std::string& why);

  /// The interfaces forward no more until the first set_network(), for the time between two planes.
  static bool shut(const TunOptions& options, const std::vector<std::string>& interfaces, std::string& why);

  /// Puts everything back as it was before the first start: local table, rules, tables, sysctls. Succeeds
  /// where there is nothing to undo; fails (system_failure, `why`) while an instance runs, told by its
  /// device: an empty name when the caller holds that itself.
  static Result<void> detach(const TunOptions& options, std::string& why);

  /// Stops the packet threads and leaves the rules.
  ~TunPlane() override;

  Result<Installed> install(const MappingSpec& spec, TimePoint now) override;
  std::optional<FoundRange> find_range(const RangeSpec& spec, TimePoint now) override;
  Result<void> renew(MappingId id, TimePoint deadline) override;
  Result<void> set_remotes(MappingId id, std::span<const RemoteFilter> remotes, bool outbound, TimePoint now) override;
  void withdraw(MappingId id, Ending how, TimePoint now) override;
  void end_flows(const Address& device, TimePoint now) override;
  Result<Counters> counters(MappingId id) const override;
  std::optional<TimePoint> held_until(Transport transport, const Address& device, Port external,
                                      TimePoint now) const override;
  std::optional<Address> external_for(const Address& device) const override;
  /// Idempotent, and cheap when nothing changed. Interfaces are named in rules, so one that is away (index 0)
  /// is covered before its first packet. Sysctls of an interface that came back are set again by the call
  /// that tells its new index.
  Result<void> set_network(const NetworkView& network, TimePoint now) override;
  Result<void> set_policy(const PlanePolicy& policy, TimePoint now) override;
  std::vector<PlaneEvent> sweep(TimePoint now) override;
  std::vector<ImplicitView> implicit_mappings(TimePoint now) const override;
  bool has_implicit(Transport transport, const InternalEndpoint& internal, TimePoint now) const override;
  PlaneStatus status() const override;

 private:
  class Impl;
  explicit TunPlane(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace sallyport::nat
