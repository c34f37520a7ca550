#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "nat/engine/engine.hpp"
#include "nat/plane/data_plane.hpp"

namespace sallyport::nat {

/// What an earlier run left at interfaces.
struct EbpfLeft;

struct EbpfOptions {
  std::string device = "sp0";  ///< the TAP interface of the slow path: 1 to 15 characters
  /// Holds what the sysctls were before us, until detach(). Its directory must exist and be writable.
  std::string undo_file = "/run/sallyport/ebpf-undo";
  /// LAN and WAN interfaces: they do not forward until the programs stand, unless an earlier run's do.
  std::vector<std::string> interfaces;
  /// What shuts the LAN in, for the time between two planes. False: `why` says what is wrong.
  using Shut = std::function<bool(std::string& why)>;
  /// Called once when it is sure that the plane runs here, before anything of the system is changed: takes
  /// away what another plane left, after `shut`. False: `why` says what is in the way.
  std::function<bool(const Shut& shut, std::string& why)> take_over;
  /// Of detach(), for a plane that takes over: called, where something is to be undone, while the programs
  /// still stand and forwarding is as it was before us. When it fails they stay.
  Shut shut;
  std::uint32_t flows = 262144;    ///< the flow table's size, when none is taken up
  EngineOptions engine;            ///< `ttl` and `shared` play no part
  std::shared_ptr<EbpfLeft> left;  ///< for detach(): what look() saw; null: it looks itself
};

/// Packets translated in the kernel by programs at the LAN's and the WAN's interfaces (tcx or clsact), with
/// the engine for what is rare, by way of a TAP device. In the network namespace of the thread that starts
/// it. Starting needs CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN (to find what an earlier run left) and
/// Linux 5.17; afterwards CAP_NET_ADMIN.
///
/// When the daemon ends, however it does, the programs go on: packets of flows and mappings pass, new flows
/// are made, deadlines hold. The next start takes their tables up. Fails closed: the LAN is not forwarded for
/// before the programs stand, and what cannot be translated is dropped.
///
/// All calls are made by one control thread; the slow path has a thread of its own.
class EbpfPlane final : public DataPlane {
 public:
  /// Loads the programs; they are put in place, and the slow path's thread is started, by the first
  /// set_network(). On failure (system_failure) `why` says in words what is wrong and what to do; on success
  /// why the tables of an earlier run begin anew, if they do.
  static Result<std::unique_ptr<EbpfPlane>> start(const EbpfOptions& options, const Clock& clock,
                                                  std::string& why);

  /// Looks for programs of an earlier run, which later, with fewer rights, could not be told from others'.
  static std::shared_ptr<EbpfLeft> look();

  /// Takes every program of ours off every interface, and puts sysctls back. Succeeds where there is nothing
  /// to undo; fails (system_failure, `why`) while an instance runs.
  static Result<void> detach(const EbpfOptions& options, std::string& why);

  /// Stops the slow path and leaves the programs.
  ~EbpfPlane() override;

  Result<Installed> install(const MappingSpec& spec, TimePoint now) override;
  std::optional<FoundRange> find_range(const RangeSpec& spec, TimePoint now) override;
  Result<void> renew(MappingId id, TimePoint deadline) override;
  Result<void> set_remotes(MappingId id, std::span<const RemoteFilter> remotes, bool outbound,
                           TimePoint now) override;
  void withdraw(MappingId id, Ending how, TimePoint now) override;
  void end_flows(const Address& device, TimePoint now) override;
  Result<Counters> counters(MappingId id) const override;
  std::optional<TimePoint> held_until(Transport transport, const Address& device, Port external,
                                      TimePoint now) const override;
  std::optional<Address> external_for(const Address& device) const override;
  Result<void> set_network(const NetworkView& network, TimePoint now) override;
  Result<void> set_policy(const PlanePolicy& policy, TimePoint now) override;
  std::vector<PlaneEvent> sweep(TimePoint now) override;
  std::vector<ImplicitView> implicit_mappings(TimePoint now) const override;
  bool has_implicit(Transport transport, const InternalEndpoint& internal, TimePoint now) const override;
  PlaneStatus status() const override;

 private:
  class Impl;
  explicit EbpfPlane(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace sallyport::nat
