#pragma once

#include <array>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "nat/plane/data_plane.hpp"
#include "sallyport/values/entry_service.hpp"
#include "sallyport/values/mapping_service.hpp"
#include "sallyport/values/pinhole_service.hpp"

/// The single truth about leases. Protocols, admin and daemon see this header; everything else of the room is its own.
namespace sallyport::lease {

class Store;

/// A mapping from the configuration's [[static]].
struct StaticMapping {
  Transport transport = Transport::tcp;
  Port external;  ///< of an IPv6 endpoint: the internal port
  InternalEndpoint internal;
  std::string description;
  std::string where;  ///< "sallyport.toml:12", for messages
};

/// One [[policy.rule]]; the first that matches decides.
struct PolicyRule {
  std::optional<Prefix> device;         ///< empty: every device
  std::vector<PortRange> external;      ///< empty: every port
  std::optional<Transport> transport;   ///< empty: both
  bool allow = true;
  std::string where;
};

/// Everything of the configuration that decides about leases.
struct LeasePolicy {
  std::vector<PolicyRule> rules;
  std::vector<Prefix> third_party;  ///< clients that may use THIRD_PARTY; empty: nobody
  PortRange external_ports{1024, 65535};
  std::uint32_t leases_per_device = 1024;  ///< 0: no limit
  std::uint32_t leases_total = 65536;
  std::uint32_t ports_per_set = 256;  ///< PCP PORT_SET; 0: no limit
  std::uint32_t pcp_min = 120, pcp_max = 86400, natpmp_max = 86400, upnp_max = 604800;
  bool upnp_permanent = true;  ///< UPnP may ask for permanent entries; else they get upnp_max
  PortRange upnp_internal_ports{1024, 65535};
  std::uint32_t description_octets = 255;
  nat::Ending ended_leases = nat::Ending::reset;
  bool reuse_strict = false;
  /// What holds for outbound traffic, and so for a mapping that PCP PEER keeps (PCP-12.3-04, PCP-12.3-06).
  nat::Filtering outbound_filtering = nat::Filtering::address;
  std::uint32_t udp_idle_s = 300, tcp_established_s = 7440;
  bool grant_without_store = false;  ///< [store] on_error = "memory"
  bool ipv6 = true;                  ///< false: there is no firewall before IPv6, and so no pinhole
  std::vector<StaticMapping> statics;
};

/// Words of `sallyport list`; all must hold.
struct LeaseFilter {
  std::optional<std::string> device;  ///< an address, or a name known for one
  std::optional<Transport> transport;
  std::optional<Via> via;
  std::optional<LeaseKind> kind;
  std::optional<LeaseState> state;
  std::optional<bool> ipv6;  ///< true: pinholes only; false: no pinholes
  std::optional<PortRange> external;
  std::optional<PortRange> internal;
};

/// "This device, transport and internal port are refused by every protocol until then."
struct Block {
  Address device;
  Transport transport = Transport::udp;
  Port internal_port;
  std::optional<WallTime> until;  ///< empty: forever
  std::uint64_t lease = 0;        ///< the number of the lease whose revocation made it
  std::string lease_id;
  std::string description;
};

struct ServiceStatus {
  std::uint64_t leases = 0;
  std::uint64_t mappings = 0;  ///< static ones too
  std::uint64_t statics = 0;
  std::uint64_t blocks = 0;
  std::uint64_t granted = 0, renewed = 0, released = 0, expired = 0, revoked = 0, refused = 0;  ///< since the start
  std::string store_state;  ///< "ok", "read-only: REASON", "off"
  std::vector<std::string> warnings;
};

struct RevokeResult {
  std::vector<std::string> revoked;                             ///< ids
  std::vector<std::pair<std::string, std::string>> failed;      ///< id, reason in words
};

/// Called on the control thread only. Answers leave after the store's commit: the owner of the service posts
/// `commit_results` to the control thread whenever the store calls its notifier.
class LeaseService final : public MappingService, public EntryService, public PinholeService {
 public:
  struct Dependencies {
    nat::DataPlane& plane;
    Store& store;
    const Clock& clock;  ///< for wall time only
    std::uint64_t seed;  ///< of the keyed hashes
    /// The MAC (48 bits) that has this address now, if it is known: what a device of IPv6 is.
    std::function<std::optional<std::uint64_t>(const Address&)> mac_of = {};
  };
  explicit LeaseService(Dependencies dependencies);
  ~LeaseService() override;

  /// Puts back what the store holds: static mappings first, then every unexpired lease, before the first answer.
  /// `external` is the external address now, if any.
  void start(const LeasePolicy& policy, const nat::NetworkView& network, TimePoint now);
  /// A new configuration: statics added or removed, everything else applied to later requests (POL-RUN-04).
  void set_policy(const LeasePolicy& policy, TimePoint now);
  /// Follows addresses; a changed external address moves mappings and resets the epoch.
  void set_network(const nat::NetworkView& network, TimePoint now);

  /// Runs what the store has committed (or failed to): answers, events, withdrawals.
  void commit_results(TimePoint now);
  /// Expires leases whose deadline has passed, retries a failed store, runs sliced work.
  void handle_timeout(TimePoint now);
  std::optional<TimePoint> next_deadline() const;

  // MappingService
  void grant(GrantRequest request, TimePoint now, GrantDone done) override;
  void release(ReleaseRequest request, TimePoint now, ReleaseDone done) override;
  void release_all(ReleaseAllRequest request, TimePoint now, ReleaseDone done) override;
  Result<Address> external_address(const Address& device) const override;
  std::uint32_t epoch_s(TimePoint now) const override;
  std::uint32_t ipv6_epoch_s(TimePoint now) const override;
  void add_listener(ServiceListener& listener) override;
  void remove_listener(ServiceListener& listener) override;

  // EntryService
  void grant_entry(EntryRequest request, TimePoint now, EntryDone done) override;
  void release_entry(const EntryKey& key, const Address& requester, TimePoint now, EntryReleaseDone done) override;
  void release_entries(Transport transport, PortRange external, const Address& requester, TimePoint now,
                       EntryReleaseDone done) override;
  std::size_t entry_count() const override;
  std::optional<Entry> entry_at(std::size_t index, TimePoint now) const override;
  std::optional<Entry> entry_after(std::uint64_t position, TimePoint now) const override;
  std::vector<Entry> entries_on(Transport transport, Port external, TimePoint now) const override;
  std::optional<Entry> find_entry(const EntryKey& key, const Address& requester,
                                  TimePoint now) const override;

  // PinholeService
  Status pinhole_status() const override;
  void grant_pinhole(PinholeRequest request, TimePoint now, PinholeDone done) override;
  void renew_pinhole(std::uint16_t id, const Address& requester, std::uint32_t lifetime_s, TimePoint now,
                     PinholeDone done) override;
  void release_pinhole(std::uint16_t id, const Address& requester, TimePoint now,
                       PinholeReleaseDone done) override;
  Outcome<Pinhole> find_pinhole(std::uint16_t id, const Address& requester, TimePoint now) const override;

  // For the admin
  /// Leases that match, ordered by device then external port, with counters as of now.
  std::vector<LeaseView> list(const LeaseFilter& filter, TimePoint now) const;
  std::vector<LeaseView> list_implicit(const LeaseFilter& filter, TimePoint now) const;
  /// The numbers of the leases that list() would give now, in its order: for long lists that are shown in slices.
  std::vector<std::uint64_t> list_numbers(const LeaseFilter& filter, TimePoint now) const;
  /// Those of these leases that still stand, in the order given, with counters as of now.
  std::vector<LeaseView> views(std::span<const std::uint64_t> leases, TimePoint now) const;
  /// How many leases came by each door, static mappings among them; the index is the number of the Via.
  std::array<std::uint64_t, 6> count_by_via() const;
  /// By id or unique prefix: not_found, or several candidates (ambiguous).
  std::vector<LeaseView> find(std::string_view id_prefix, TimePoint now) const;
  using RevokeDone = std::function<void(const RevokeResult&, TimePoint now)>;
  /// Ends leases for good; with `block`, refuses their device, transport and internal port until then.
  struct BlockFor {
    std::optional<std::chrono::seconds> time;  ///< empty: forever
  };
  void revoke(std::span<const std::uint64_t> leases, std::optional<BlockFor> block, TimePoint now, RevokeDone done);
  std::vector<Block> blocks(TimePoint now) const;
  /// Lifts blocks by the numbers of the leases that made them.
  void unblock(std::span<const std::uint64_t> leases, TimePoint now, std::function<void(std::size_t lifted, TimePoint)> done);
  ServiceStatus status() const;

  /// A small value kept over restarts by its name, for whoever else has something to remember. Written like a
  /// lease, but nobody waits for it.
  std::optional<std::string> kept(std::string_view name) const;
  void keep(std::string_view name, std::string value);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sallyport::lease
