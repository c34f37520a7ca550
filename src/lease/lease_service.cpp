#include "src/lease/lease_service.hpp"

#include <algorithm>
#include <charconv>
#include <deque>
#include <sstream>
#include <unordered_map>
#include <unordered_set>
#include <variant>

#include <boost/unordered/unordered_flat_map.hpp>

#include "src/lease/lease_table.hpp"
#include "src/lease/policy.hpp"
#include "src/lease/public_id.hpp"
#include "src/lease/store/store.hpp"

namespace sallyport::lease {
namespace {

using std::chrono::seconds;

constexpr std::uint32_t permanent_refusal_s = 1800;
constexpr std::uint32_t transient_refusal_s = 30;
constexpr std::size_t most_filters = 32;
/// Leases of one endpoint where PEER makes another; their peers are looked through for a packet without a flow.
constexpr std::size_t most_peers = 256;
/// Requests that wait for the disk; beyond it new ones are refused, so that a hanging disk does not eat the
/// memory.
constexpr std::size_t most_open = 8192;
/// What one turn of long work does before others get theirs (POL-FAIR-04).
constexpr std::size_t slice = 256;
constexpr std::uint64_t numbers_at_once = 256;

constexpr std::string_view meta_boot = "boot", meta_epoch_boot = "epoch.boot_ns",
                           meta_epoch_wall = "epoch.wall_s", meta_ipv6_epoch_boot = "epoch6.boot_ns",
                           meta_ipv6_epoch_wall = "epoch6.wall_s", meta_external = "external",
                           meta_next_number = "next_number", meta_wall = "wall_s";

const std::string meta_kept = "kept.";

std::optional<std::int64_t> to_number(const std::optional<std::string>& text) {
  if (!text) return std::nullopt;
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error != std::errc{} || end != text->data() + text->size()) return std::nullopt;
  return value;
}

/// What is left until then, in whole seconds, rounded up.
std::uint32_t seconds_until(TimePoint deadline, TimePoint now) {
  if (deadline <= now) return 0;
  const auto left = std::chrono::ceil<seconds>(deadline - now).count();
  return static_cast<std::uint32_t>(std::min<std::int64_t>(left, 0xffffffff));
}

struct StaticEntry {
  StaticMapping mapping;
  std::uint64_t number = 0;
  std::optional<nat::Installed> installed;
  WallTime since;  ///< when it came into the configuration, as far as this process knows
  std::uint16_t pinhole = 0;  ///< what UPnP calls it, once it asked

  bool is_pinhole() const { return !mapping.internal.address.is_v4(); }
  /// Whether both are one place that only one mapping can have.
  bool is_at(const StaticMapping& other) const {
    return other.transport == mapping.transport && other.external == mapping.external &&
           other.internal.address.is_v4() == mapping.internal.address.is_v4() &&
           (!is_pinhole() || other.internal == mapping.internal);
  }
};

/// What is stored of a static mapping, by what the configuration names it: its number, and since when it is known.
std::string static_key(const StaticMapping& mapping) {
  const auto& host = mapping.internal.address;
  return "static." + std::string{to_string(mapping.transport)} + "." +
         std::to_string(mapping.external.number()) + (host.is_v4() ? std::string{} : "." + host.to_string());
}
std::string static_text(const StaticEntry& entry) {
  return std::to_string(entry.number) + " " + std::to_string(entry.since.time_since_epoch().count());
}

/// What a renewal changed, so that a failed commit can be undone.
struct Undo {
  TimePoint deadline, asked;
  std::uint32_t lifetime_s = 0, renewals = 0;
  bool has_nonce = false, provisional = false, enabled = true, permanent = false;
  std::uint16_t moved_from = 0;  ///< the internal port before; 0: it is the same
  Contact contact;
  bool extras = false;  ///< what only UPnP changes was changed
  bool texts = false;   ///< description and filters are kept too
  std::string description;
  std::vector<RemoteFilter> remotes;
};

/// Ends many leases, one answer.
struct Batch {
  std::vector<std::uint64_t> todo;  ///< marked as ending, not yet queued; taken from the back
  std::size_t open = 0;             ///< queued, not yet committed
  LeaseEventReason reason = LeaseEventReason::requested;
  bool other_left = false;  ///< release_all met a static mapping
  bool failed = false;
  RevokeResult result;
  MappingService::ReleaseDone release_done;
  LeaseService::RevokeDone revoke_done;
};

/// A write on its way to the disk.
struct Op {
  enum class Kind : std::uint8_t {
    grant,  ///< a new lease
    renew,
    repeat,  ///< a copy of a request whose first one is still on its way
    remove,
    wait,  ///< nothing of its own: answers when all before it is committed
    block,
    unblock,
  };
  Ticket ticket = 0;
  Kind kind{};
  Index lease = nothing;  ///< of a set: its head
  std::uint64_t number = 0;
  std::uint16_t place = 0, ports = 1;  ///< what of a set is spoken of
  std::uint32_t lifetime_s = 0;
  LeaseEventReason reason = LeaseEventReason::requested;
  TimePoint asked;
  MappingService::GrantDone grant_done = {};
  MappingService::ReleaseDone release_done = {};
  std::unique_ptr<Undo> undo = {};
  std::shared_ptr<Batch> batch = {};
  std::vector<BlockRecord> blocks = {};  ///< block: what it replaced; unblock: what it lifted
  std::function<void(std::size_t, TimePoint)> unblock_done = {};
};

/// One port of a set, claimed for it.
struct Claimed {
  Index mapping = nothing;                  ///< another protocol's, that the set joins
  std::optional<nat::Installed> installed;  ///< else: a new one
  bool had_flows = false;                   ///< its outbound flows were there before
};

/// What only UPnP asks of a grant.
struct Extras {
  bool enabled = true;
  bool permanent = false;
};

struct WaitingEntry {
  EntryRequest request;
  EntryService::EntryDone done;
};
struct WaitingEntryRelease {
  EntryKey key;
  Address requester;
  EntryService::EntryReleaseDone done;
};
struct WaitingPinhole {
  PinholeRequest request;
  PinholeService::PinholeDone done;
};
struct WaitingPinholeRenewal {
  std::uint16_t id;
  Address requester;
  std::uint32_t lifetime_s;
  PinholeService::PinholeDone done;
};
struct WaitingPinholeRelease {
  std::uint16_t id;
  Address requester;
  PinholeService::PinholeReleaseDone done;
};
struct WaitingGrant {
  GrantRequest request;
  MappingService::GrantDone done;
};
struct WaitingRelease {
  ReleaseRequest request;
  MappingService::ReleaseDone done;
};
struct WaitingReleaseAll {
  ReleaseAllRequest request;
  MappingService::ReleaseDone done;
};
using Waiting =
    std::variant<WaitingGrant, WaitingRelease, WaitingReleaseAll, WaitingEntry, WaitingEntryRelease,
                 WaitingPinhole, WaitingPinholeRenewal, WaitingPinholeRelease>;

/// A host of IPv6 that has a lease and whose MAC is not known yet: it becomes so once we have answered it.
struct Stranger {
  Address address;
  TimePoint due;
  int left;  ///< how often it is still looked for
};

struct EndpointKey {
  Transport transport;
  Address address;
  std::uint16_t port;
  friend bool operator==(const EndpointKey&, const EndpointKey&) = default;
};
struct EndpointHash {
  KeyedHash hash;
  std::size_t operator()(const EndpointKey& key) const {
    return hash(key.address, std::uint64_t{key.port} << 8 | static_cast<std::uint8_t>(key.transport));
  }
};

}  // namespace

class LeaseService::Impl {
 public:
  explicit Impl(const Dependencies& d)
      : plane_{d.plane},
        store_{d.store},
        clock_{d.clock},
        mac_of_{d.mac_of},
        table_{d.seed},
        waiting_{0, EndpointHash{KeyedHash{d.seed + 1}}},
        blocks_{0, EndpointHash{KeyedHash{d.seed + 2}}},
        random_{d.seed} {}

  void start(const LeasePolicy& policy, const nat::NetworkView& network, TimePoint now);
  void set_policy(const LeasePolicy& policy, TimePoint now);
  void set_network(const nat::NetworkView& network, TimePoint now);
  void commit_results(TimePoint now);
  void handle_timeout(TimePoint now);
  std::optional<TimePoint> next_deadline() const;
  void shut_down();

  void grant(GrantRequest request, TimePoint now, GrantDone done, bool from_queue);
  void release(ReleaseRequest request, TimePoint now, ReleaseDone done, bool from_queue);
  void release_all(ReleaseAllRequest request, TimePoint now, ReleaseDone done, bool from_queue);
  void grant_entry(EntryRequest request, TimePoint now, EntryDone done, bool from_queue);
  void release_entry(const EntryKey& key, const Address& requester, TimePoint now, EntryReleaseDone done,
                     bool from_queue);
  void release_entries(Transport transport, PortRange external, const Address& requester, TimePoint now,
                       EntryReleaseDone done);
  std::size_t entry_count() const { return static_entries_ + table_.entries.size(); }
  std::optional<Entry> entry_at(std::size_t index, TimePoint now) const;
  std::optional<Entry> entry_after(std::uint64_t position, TimePoint now) const;
  std::vector<Entry> entries_on(Transport transport, Port external, TimePoint now) const;
  std::optional<Entry> find_entry(const EntryKey& key, const Address& requester, TimePoint now) const;

  PinholeService::Status pinhole_status() const {
    return {policy_.ipv6, policy_.ipv6 && leaves_pinholes(policy_)};
  }
  void grant_pinhole(PinholeRequest request, TimePoint now, PinholeDone done, bool from_queue);
  void renew_pinhole(std::uint16_t id, const Address& requester, std::uint32_t lifetime_s, TimePoint now,
                     PinholeDone done, bool from_queue);
  void release_pinhole(std::uint16_t id, const Address& requester, TimePoint now, PinholeReleaseDone done,
                       bool from_queue);
  Outcome<Pinhole> find_pinhole(std::uint16_t id, const Address& requester, TimePoint now) const;

  Result<Address> external_address(const Address& device) const {
    if (network_.external.empty()) return MappingErrc::no_external_address;
    return plane_.external_for(device).value_or(network_.external.front());
  }
  /// Where a mapping of this device is: LeaseTable::addresses. Without an external address, where it was
  /// last.
  std::uint16_t address_of(const Address& device) {
    if (const auto address = external_address(device)) return table_.intern(*address);
    return pool_.empty() ? std::uint16_t{0} : table_.intern(pool_.front());
  }
  bool share_address(const Address& one, const Address& other) const {
    const auto address = external_address(one);
    return !address || *address == *external_address(other);
  }
  /// The mapping at this port of the device's external address.
  Index at_external(Transport transport, const Address& device, Port external) const;
  std::uint32_t epoch_s(TimePoint now) const { return age_s(epoch_, now); }
  std::uint32_t ipv6_epoch_s(TimePoint now) const { return age_s(ipv6_epoch_, now); }

  std::vector<LeaseView> list(const LeaseFilter& filter, TimePoint now) const;
  std::vector<LeaseView> list_implicit(const LeaseFilter& filter, TimePoint now) const;
  std::vector<std::uint64_t> list_numbers(const LeaseFilter& filter, TimePoint now) const;
  std::vector<LeaseView> views(std::span<const std::uint64_t> leases, TimePoint now) const;
  std::array<std::uint64_t, 6> count_by_via() const;
  std::vector<LeaseView> find(std::string_view prefix, TimePoint now) const;
  void revoke(std::span<const std::uint64_t> leases, std::optional<BlockFor> block, TimePoint now,
              RevokeDone done);
  std::vector<Block> blocks() const;
  void unblock(std::span<const std::uint64_t> leases, TimePoint now,
               std::function<void(std::size_t, TimePoint)> done);
  ServiceStatus status() const;
  std::optional<std::string> kept(std::string_view name) const {
    // what could not be written yet counts too: who asks twice must not make it up twice
    if (const auto known = kept_.find(meta_kept + std::string{name}); known != kept_.end()) return known->second;
    auto value = store_.get_meta(meta_kept + std::string{name});
    if (value) kept_.insert_or_assign(meta_kept + std::string{name}, *value);
    return value;
  }
  void keep(std::string_view name, std::string value) {
    note(meta_kept + std::string{name}, value);
    kept_.insert_or_assign(meta_kept + std::string{name}, std::move(value));
  }

  std::vector<ServiceListener*> listeners_;

 private:
  static std::uint32_t age_s(TimePoint epoch, TimePoint now) {
    const auto age = std::chrono::floor<seconds>(now - epoch).count();
    return age < 0 ? 0 : static_cast<std::uint32_t>(age);
  }

  // Views and events
  LeaseView view(Index lease, bool with_counters) const;
  LeaseView view(const StaticEntry& entry, bool with_counters) const;
  void tell(LeaseEventKind kind, LeaseEventReason reason, Index lease, TimePoint now);
  void tell(const LeaseEvent& event, TimePoint now) {
    const auto listeners = listeners_;
    for (auto* listener : listeners) listener->on_lease(event, now);
  }
  Contact contact_of(const Lease& lease) const;
  void set_contact(Lease& lease, const Contact& contact);

  // The plane
  Outcome<nat::Installed> claim(const GrantRequest& request, const Extras& extras, std::uint32_t lifetime_s,
                                TimePoint now);
  std::vector<PortRange> permitted_ranges(const Address& device, Transport transport) const;
  std::vector<PortRange> ordinary_ranges(const std::vector<PortRange>& ranges);
  Outcome<std::vector<Claimed>> claim_set(const GrantRequest& request, std::uint16_t size,
                                          std::uint32_t lifetime_s, TimePoint now);
  std::vector<Claimed> claim_at(const GrantRequest& request, std::uint32_t external, std::uint16_t size,
                                const std::vector<PortRange>& ranges, std::uint32_t lifetime_s, TimePoint now,
                                Refusal& why);
  void unclaim(const std::vector<Claimed>& claimed, TimePoint now);
  Result<nat::Installed> install_new(const nat::MappingSpec& spec, TimePoint now);
  Entry entry_of(Index lease, TimePoint now) const;
  Entry entry_of(std::size_t static_index) const;
  const StaticEntry* static_at(Transport transport, const Address& device, Port external) const;
  bool install_elsewhere(Index mapping, TimePoint now);
  std::string pool_text() const {
    std::string text;
    for (const auto& address : pool_) text += (text.empty() ? "" : " ") + address.to_string();
    return text;
  }
  void lose(Index mapping, TimePoint now);
  Pinhole pinhole_of(Index lease, TimePoint now) const;
  Pinhole pinhole_of(const StaticEntry& entry) const;
  const StaticEntry* static_pinhole(std::uint16_t id) const;
  Refusal refusal_of(boost::system::error_code error, const nat::MappingSpec& spec, TimePoint now) const;
  void bring_in_force(Index mapping, TimePoint now);
  void after_lease_left(Index mapping, nat::Ending how, TimePoint now);
  std::vector<RemoteFilter> admitted(std::vector<RemoteFilter> remotes, bool outbound) const;
  std::vector<RemoteFilter> effective_remotes(const Mapping& mapping) const;
  bool is_outbound(const Mapping& mapping) const;
  /// How the mapping of a lease ends by itself or on request. What outbound traffic made goes on with it.
  nat::Ending ending_of(const Lease& lease) const {
    return lease.outbound ? nat::Ending::drain : policy_.ended_leases;
  }
  bool effective_enabled(const Mapping& mapping) const;
  TimePoint effective_deadline(const Mapping& mapping) const;
  nat::MappingSpec restore_spec(const Mapping& mapping) const;
  bool install_again(Index mapping, TimePoint now, bool beside_flows = false);
  bool move(Index mapping, Port internal, TimePoint now);

  // The store
  bool writable() const { return !store_failure_; }
  LeaseRecord record_of(const Lease& lease) const;
  void mark_dirty(std::uint64_t number) { dirty_.insert(number); }
  void write(Index lease);
  void forget(std::uint64_t number);
  void note(std::string_view key, const std::string& value);
  void write_epoch();
  void fail(const std::string& why, bool rebuild, TimePoint now);
  void heal(TimePoint now);
  void write_dirty();
  Granted granted(Index head, std::uint16_t place, std::uint16_t ports, std::uint32_t lifetime_s) const;
  void settle(Op& op, TimePoint now);
  void undo(Op& op, TimePoint now);
  void refuse_undone(Op& op, TimePoint now);

  // Leases
  std::uint64_t next_number();
  bool in_waiting(const EndpointKey& key) const { return waiting_.contains(key); }
  void hold(const EndpointKey& key, Waiting request) {
    waiting_[key].push_back(std::move(request));
    ++held_;
  }
  void run_waiting(TimePoint now);
  void expire(TimePoint now);
  void end_now(Index lease, LeaseEventReason reason, nat::Ending how, TimePoint now);
  /// Calls back with each lease of a head's set, which may end them.
  template <class Call>
  void each_of(Index head, Call&& call) const {
    const auto number = table_.leases[head].number;
    const auto size = table_.leases[head].set_size;
    call(head);
    for (std::uint16_t place = 1; place < size; ++place) call(table_.find_number(number + place));
  }
  void apply(Index head, TimePoint now);
  void push_release(Index lease, TimePoint now, ReleaseDone done);
  void mark_ending(Index lease);
  void unmark_ending(Index lease);
  void remove_committed(const Op& op, TimePoint now);
  void run_release(const std::shared_ptr<Batch>& batch, bool wait, ReleaseDone done, TimePoint now);
  void run_batches(TimePoint now);
  void finish_batch(const std::shared_ptr<Batch>& batch, TimePoint now);
  void answer_with_commit(Index head, std::uint16_t place, std::uint16_t ports, std::uint32_t lifetime_s,
                          GrantDone& done);
  void answer_existing(Index lease, bool whole, TimePoint now, GrantDone& done);
  void grant_new(GrantRequest& request, const Extras& extras, Index mapping, std::uint32_t lifetime_s,
                 TimePoint now, GrantDone& done);
  void grant_set(GrantRequest& request, std::uint32_t lifetime_s, TimePoint now, GrantDone& done);
  Index add_lease(const GrantRequest& request, const Extras& extras, std::uint64_t number, Index mapping,
                  std::uint32_t lifetime_s, TimePoint now);
  void await_grant(Index head, std::uint32_t lifetime_s, TimePoint now, GrantDone& done);
  std::optional<Refusal> overlap_of(const GrantRequest& request, TimePoint now) const;
  std::optional<EndpointKey> waits_behind(Transport transport, const InternalEndpoint& first,
                                          std::uint16_t ports, bool from_queue) const;
  void renew(GrantRequest& request, const Extras& extras, Index lease, std::uint32_t lifetime_s, TimePoint now,
             GrantDone& done);
  /// Null when a write can be begun; else why not.
  std::optional<Refusal> cannot_write() const {
    if (!writable() && !policy_.grant_without_store)
      return Refusal{MappingErrc::store_unavailable, transient_refusal_s};
    if (ops_.size() >= most_open) return Refusal{MappingErrc::no_memory, transient_refusal_s};
    return std::nullopt;
  }
  Result<void> judge_target(const Address& requester, const Address& target, bool third_party) const;
  const StaticEntry* static_for(Transport transport, const InternalEndpoint& internal) const;
  bool is_blocked(const EndpointKey& key) const;
  /// What counts as the device of this address: itself, or for IPv6 all that has its MAC (policy.md).
  Address owner_of(const Address& address) const;
  bool is_one_device(const Address& a, const Address& b) const;
  void look_for_strangers(TimePoint now);
  ExternalEndpoint external_of(const StaticEntry& entry) const;
  void install_statics(TimePoint now);
  void restore(StoreContent content, TimePoint now);
  void put_back(const LeaseRecord& record, std::uint16_t place, TimePoint deadline, bool provisional,
                std::vector<Index>& restored);
  void reset_epoch(TimePoint now);
  void tell_epoch_reset(TimePoint now, bool ipv6_too);
  void address_is_now(TimePoint now, bool at_start);
  void check_wall_clock(TimePoint now);
  template <class Done>
  void refuse(const Done& done, Refusal refusal, TimePoint now) {
    ++refused_;
    done(refusal, now);
  }

  nat::DataPlane& plane_;
  Store& store_;
  const Clock& clock_;
  std::function<std::optional<std::uint64_t>(const Address&)> mac_of_;
  LeaseTable table_;
  LeasePolicy policy_;
  nat::NetworkView network_;
  std::vector<StaticEntry> statics_;  ///< those of IPv4 first: the entries that UPnP lists
  std::size_t static_entries_ = 0;    ///< how many those are

  std::deque<Op> ops_;
  Ticket last_ticket_ = 0;
  std::optional<std::string> store_failure_;
  TimePoint retry_at_ = TimePoint::max();
  seconds retry_after_{1};
  bool healing_ = false;  ///< the writes that will show whether the store is back are on their way
  Ticket heal_ticket_ = 0;
  std::unordered_set<std::uint64_t> dirty_;  ///< leases of which the store may hold something else
  std::unordered_set<std::uint64_t> dirty_blocks_;
  std::map<std::string, std::string, std::less<>> dirty_meta_;
  struct {
    std::unordered_set<std::uint64_t> leases, blocks;
    std::map<std::string, std::string, std::less<>> meta;
  } being_healed_;  ///< what was dirty and is on its way

  boost::unordered_flat_map<EndpointKey, std::deque<Waiting>, EndpointHash> waiting_;
  std::vector<EndpointKey> ready_;  ///< endpoints whose deletion is over, so that what waits for it can run
  std::size_t held_ = 0;
  bool running_waiting_ = false;
  std::deque<Stranger> strangers_;  ///< by due
  std::vector<std::shared_ptr<Batch>> batches_;
  boost::unordered_flat_map<EndpointKey, BlockRecord, EndpointHash> blocks_;

  TimePoint epoch_{};
  TimePoint ipv6_epoch_{};
  std::vector<Address> pool_;                   ///< the last external addresses there were
  std::vector<std::uint16_t> pool_indexes_{0};  ///< the same in LeaseTable::addresses
  bool external_known_ = false;                 ///< clients were told of them
  Index announce_at_ = nothing;      ///< the next lease to be told as moved; nothing: none
  std::optional<std::uint16_t> moved_from_;
  std::uint64_t next_number_ = 1, numbers_until_ = 1;
  std::uint64_t random_;

  std::chrono::nanoseconds wall_offset_{};  ///< wall minus boot clock, as the stored wall times assume
  std::optional<WallTime> not_before_;      ///< the wall clock is not plausible until it shows this
  boost::unordered_flat_map<std::uint64_t, WallTime> provisional_;  ///< leases with a deadline to be set then
  Index rewrite_at_ = nothing;  ///< the next lease whose stored wall time must be written anew
  TimePoint wall_check_at_{};
  TimePoint wall_note_at_{};

  mutable std::map<std::string, std::string> kept_;  ///< what others keep, to be written again after a failure

  std::uint64_t granted_ = 0, renewed_ = 0, released_ = 0, expired_ = 0, revoked_ = 0, refused_ = 0;
  std::vector<std::string> warnings_;
};

// ---------------------------------------------------------------------------------------------- views and
// events

Contact LeaseService::Impl::contact_of(const Lease& lease) const {
  return {lease.contact_interface,
          lease.contact_client == 0 ? table_.mappings[lease.mapping].internal_address
                                    : table_.addresses[lease.contact_client],
          lease.contact_port, table_.addresses[lease.contact_gateway]};
}

void LeaseService::Impl::set_contact(Lease& lease, const Contact& contact) {
  lease.contact_interface = contact.interface;
  lease.contact_port = contact.client_port;
  lease.contact_gateway = table_.intern(contact.gateway);
  lease.contact_client =
      contact.client == table_.mappings[lease.mapping].internal_address ? 0 : table_.intern(contact.client);
}

LeaseView LeaseService::Impl::view(Index index, bool with_counters) const {
  const auto& lease = table_.leases[index];
  const auto& mapping = table_.mappings[lease.mapping];
  LeaseView view{.number = lease.number,
                 .id = public_id(lease.number),
                 .state = lease.ending     ? LeaseState::ending
                          : lease.fresh    ? LeaseState::pending
                          : !lease.enabled ? LeaseState::disabled
                                           : LeaseState::active,
                 .kind = LeaseKind::explicit_,
                 .via = lease.via,
                 .transport = mapping.transport,
                 .internal = mapping.internal(),
                 .external = table_.external_of(mapping),
                 .remotes = lease.remotes ? *lease.remotes : std::vector<RemoteFilter>{},
                 .outbound = lease.outbound,
                 .set_size = lease.set_size,
                 .set_place = lease.set_place,
                 .description = std::string{lease.description.view()},
                 .lifetime_s = {},
                 .deadline = {},
                 .created = WallTime{seconds{lease.created}},
                 .renewals = lease.renewals,
                 .counters = {},
                 .nonce = {},
                 .contact = contact_of(lease)};
  if (!lease.permanent) {
    view.lifetime_s = lease.lifetime_s;
    view.deadline = lease.deadline;
  }
  if (lease.has_nonce) view.nonce = lease.nonce;
  if (with_counters && mapping.installed)
    if (auto counters = plane_.counters(mapping.plane)) view.counters = *counters;
  return view;
}

ExternalEndpoint LeaseService::Impl::external_of(const StaticEntry& entry) const {
  if (entry.is_pinhole()) return {entry.mapping.internal.address, entry.mapping.external};
  if (const auto address = external_address(entry.mapping.internal.address))
    return {*address, entry.mapping.external};
  return {entry.installed ? entry.installed->external.address
          : pool_.empty() ? Address{}
                          : pool_.front(),
          entry.mapping.external};
}

LeaseView LeaseService::Impl::view(const StaticEntry& entry, bool with_counters) const {
  const auto& mapping = entry.mapping;
  LeaseView view{.number = entry.number,
                 .id = public_id(entry.number),
                 .state = entry.installed ? LeaseState::active : LeaseState::pending,
                 .kind = LeaseKind::static_,
                 .via = Via::config,
                 .transport = mapping.transport,
                 .internal = mapping.internal,
                 .external = external_of(entry),
                 .remotes = {},
                 .description = mapping.description,
                 .lifetime_s = {},
                 .deadline = {},
                 .created = entry.since,
                 .renewals = 0,
                 .counters = {},
                 .nonce = {},
                 .contact = {}};
  if (with_counters && entry.installed)
    if (auto counters = plane_.counters(entry.installed->id)) view.counters = *counters;
  return view;
}

void LeaseService::Impl::tell(LeaseEventKind kind, LeaseEventReason reason, Index lease, TimePoint now) {
  if (listeners_.empty()) return;
  tell(LeaseEvent{kind, reason, view(lease, kind == LeaseEventKind::ended)}, now);
}

// ------------------------------------------------------------------------------------------------------ the
// plane

TimePoint LeaseService::Impl::effective_deadline(const Mapping& mapping) const {
  TimePoint deadline = TimePoint::min();
  for (Index i = mapping.first_lease; i != nothing; i = table_.leases[i].next_on_mapping)
    deadline = std::max(deadline, table_.leases[i].permanent ? TimePoint::max() : table_.leases[i].deadline);
  return deadline;
}

/// Who may come in where these are the remotes of a lease; empty: everybody. The peers of outbound traffic are held
/// to the filtering of outbound traffic.
std::vector<RemoteFilter> LeaseService::Impl::admitted(std::vector<RemoteFilter> remotes, bool outbound) const {
  if (!outbound || policy_.outbound_filtering == nat::Filtering::address_and_port) return remotes;
  if (policy_.outbound_filtering == nat::Filtering::endpoint) return {};
  for (auto& remote : remotes) remote.port.reset();
  return remotes;
}

std::vector<RemoteFilter> LeaseService::Impl::effective_remotes(const Mapping& mapping) const {
  std::vector<RemoteFilter> all;
  const bool any_enabled = effective_enabled(mapping);
  for (Index i = mapping.first_lease; i != nothing; i = table_.leases[i].next_on_mapping) {
    const auto& lease = table_.leases[i];
    if (any_enabled && !lease.enabled) continue;
    const auto remotes = lease.remotes ? admitted(*lease.remotes, lease.outbound) : std::vector<RemoteFilter>{};
    if (remotes.empty()) return {};
    for (const auto& remote : remotes)
      if (std::ranges::find(all, remote) == all.end()) all.push_back(remote);
  }
  return all;
}

bool LeaseService::Impl::is_outbound(const Mapping& mapping) const {
  for (Index i = mapping.first_lease; i != nothing; i = table_.leases[i].next_on_mapping)
    if (table_.leases[i].outbound) return true;
  return false;
}

bool LeaseService::Impl::effective_enabled(const Mapping& mapping) const {
  for (Index i = mapping.first_lease; i != nothing; i = table_.leases[i].next_on_mapping)
    if (table_.leases[i].enabled) return true;
  return mapping.first_lease == nothing;
}

nat::MappingSpec LeaseService::Impl::restore_spec(const Mapping& mapping) const {
  nat::MappingSpec spec{.transport = mapping.transport, .internal = mapping.internal()};
  spec.suggested = Port::from(mapping.external_port);
  spec.insist = spec.restore = true;
  spec.allowed = {1, 65535};
  spec.deadline = effective_deadline(mapping);
  spec.remotes = effective_remotes(mapping);
  spec.outbound = is_outbound(mapping);
  spec.enabled = effective_enabled(mapping);
  // a static mapping of the same endpoint, or an older one, holds another external port
  const Index first = table_.find_mapping(mapping.transport, mapping.internal());
  spec.second_port = static_for(mapping.transport, mapping.internal()) != nullptr ||
                     (first != nothing && &table_.mappings[first] != &mapping);
  return spec;
}

/// `beside_flows`: the endpoint's outbound flows keep the external port they use.
bool LeaseService::Impl::install_again(Index index, TimePoint now, bool beside_flows) {
  auto& mapping = table_.mappings[index];
  auto spec = restore_spec(mapping);
  spec.second_port |= beside_flows;
  mapping.enabled = spec.enabled;
  const auto installed = plane_.install(spec, now);
  mapping.installed = installed.has_value();
  if (!installed) return installed.error() == nat::PlaneErrc::no_external_address;  // until there is one
  mapping.plane = installed->id;
  // put back without an external address it is shown on the last one, until there is one again
  if (!mapping.is_pinhole() && !network_.external.empty())
    table_.set_external(index, table_.intern(installed->external.address), mapping.external_port);
  mapping.filtered = !spec.remotes.empty();
  return true;
}

/// Deadline and filters of the plane as the leases of the mapping now say.
void LeaseService::Impl::bring_in_force(Index index, TimePoint now) {
  auto& mapping = table_.mappings[index];
  if (!mapping.installed) {
    if (mapping.is_pinhole() || !network_.external.empty()) install_again(index, now);
    return;
  }
  if (const bool enabled = effective_enabled(mapping); enabled != mapping.enabled) {
    plane_.withdraw(mapping.plane, enabled ? nat::Ending::vacate : nat::Ending::reset, now);
    install_again(index, now, plane_.has_implicit(mapping.transport, mapping.internal(), now));
    return;
  }
  if (!plane_.renew(mapping.plane, effective_deadline(mapping))) {
    install_again(index, now);  // swept meanwhile
    return;
  }
  bool any = mapping.filtered;
  for (Index i = mapping.first_lease; i != nothing && !any; i = table_.leases[i].next_on_mapping)
    any = table_.leases[i].remotes != nullptr;
  if (!any) return;
  const auto remotes = effective_remotes(mapping);
  mapping.filtered = !remotes.empty();
  // a refusal leaves the old, narrower or equal, filters; grant() has limited their number before
  [[maybe_unused]] const auto set = plane_.set_remotes(mapping.plane, remotes, is_outbound(mapping), now);
}

/// Gives the mapping another internal port of the same device. False, and all as before, when that cannot be.
bool LeaseService::Impl::move(Index index, Port internal, TimePoint now) {
  auto& mapping = table_.mappings[index];
  const Port from = *Port::from(mapping.internal_port);
  if (mapping.installed) plane_.withdraw(mapping.plane, nat::Ending::reset, now);
  table_.move_mapping(index, internal);
  if (install_again(index, now, plane_.has_implicit(mapping.transport, mapping.internal(), now))) return true;
  table_.move_mapping(index, from);
  install_again(index, now);
  return false;
}

void LeaseService::Impl::after_lease_left(Index index, nat::Ending how, TimePoint now) {
  auto& mapping = table_.mappings[index];
  if (mapping.first_lease != nothing) return bring_in_force(index, now);
  if (mapping.installed) plane_.withdraw(mapping.plane, how, now);
  table_.remove_mapping(index);
}

Refusal LeaseService::Impl::refusal_of(boost::system::error_code error, const nat::MappingSpec& spec,
                                       TimePoint now) const {
  if (error == nat::PlaneErrc::no_external_address)
    return {MappingErrc::no_external_address, transient_refusal_s};
  if (error == nat::PlaneErrc::port_reserved)
    return {MappingErrc::insisted_port_forbidden, permanent_refusal_s};
  if (error == nat::PlaneErrc::port_taken && spec.suggested) {
    const auto until = plane_.held_until(spec.transport, spec.internal.address, *spec.suggested, now);
    if (until == TimePoint::max()) return {MappingErrc::insisted_port_forbidden, permanent_refusal_s};
    return {MappingErrc::insisted_port_taken,
            until ? std::max(1u, seconds_until(*until, now)) : transient_refusal_s};
  }
  if (error == nat::PlaneErrc::no_ports_left) return {MappingErrc::no_ports_left, transient_refusal_s};
  return {MappingErrc::no_memory, transient_refusal_s};
}

/// A further external port of an endpoint goes beside the one it has, be that a lease's, the configuration's or,
/// when it insists on another one, its outbound flows' (POL-OWN-04).
Result<nat::Installed> LeaseService::Impl::install_new(const nat::MappingSpec& spec, TimePoint now) {
  auto installed = plane_.install(spec, now);
  if (!installed && installed.error() == nat::PlaneErrc::port_taken && spec.insist && !spec.second_port &&
      plane_.has_implicit(spec.transport, spec.internal, now)) {
    auto beside = spec;
    beside.second_port = true;
    installed = plane_.install(beside, now);
  }
  return installed;
}

Outcome<nat::Installed> LeaseService::Impl::claim(const GrantRequest& request, const Extras& extras,
                                                  std::uint32_t lifetime_s, TimePoint now) {
  nat::MappingSpec spec{.transport = request.transport, .internal = request.internal};
  spec.insist = request.insist && request.suggested_port.has_value();
  spec.deadline = extras.permanent ? TimePoint::max() : now + seconds{lifetime_s};
  spec.remotes = admitted(request.filters, request.outbound);
  spec.outbound = request.outbound;
  spec.enabled = extras.enabled;
  spec.second_port = table_.find_mapping(request.transport, request.internal) != nothing ||
                     static_for(request.transport, request.internal) != nullptr;
  if (!request.internal.address.is_v4()) {  // its own port or none: grant() has judged what was suggested
    spec.insist = false;
    const auto installed = plane_.install(spec, now);
    if (installed) return *installed;
    return refusal_of(installed.error(), spec, now);
  }
  // NPM-3.3-04, WIC-ANY-05
  spec.at_random = request.via == Via::natpmp || (request.via == Via::upnp && !request.suggested_port);
  const auto ranges = permitted_ranges(request.internal.address, request.transport);
  if (ranges.empty()) return Refusal{MappingErrc::not_authorized, permanent_refusal_s};
  const auto holds = [&](Port port) {
    return std::ranges::find_if(ranges, [&](const PortRange& range) { return range.contains(port); });
  };
  if (request.suggested_port) {
    const auto range = holds(*request.suggested_port);
    if (range != ranges.end()) {
      spec.suggested = request.suggested_port;
      spec.allowed = *range;
      // the engine may choose another one in the same range; ports below 1024 are never chosen, only asked
      // for
      if (!spec.insist && spec.suggested->number() >= 1024)
        spec.allowed.first = std::max<std::uint16_t>(1024, spec.allowed.first);
      if (!spec.insist && spec.suggested->number() < 1024)
        spec.allowed = {spec.suggested->number(), spec.suggested->number()};
      const auto installed = request.via == Via::upnp ? install_new(spec, now) : plane_.install(spec, now);
      if (installed) return *installed;
      const auto error = installed.error();
      const bool taken = error == nat::PlaneErrc::no_ports_left || error == nat::PlaneErrc::port_taken ||
                         error == nat::PlaneErrc::port_reserved;
      if (spec.insist || !taken) return refusal_of(error, spec, now);
    } else if (spec.insist) {
      return Refusal{MappingErrc::insisted_port_forbidden, permanent_refusal_s};
    }
  }
  spec.suggested.reset();
  spec.insist = false;
  boost::system::error_code error = nat::PlaneErrc::no_ports_left;
  for (const auto& range : ordinary_ranges(ranges)) {
    spec.allowed = range;
    const auto installed = plane_.install(spec, now);
    if (installed) return *installed;
    error = installed.error();
    if (error != nat::PlaneErrc::no_ports_left) break;
  }
  return refusal_of(error, spec, now);
}

std::vector<PortRange> LeaseService::Impl::permitted_ranges(const Address& device,
                                                            Transport transport) const {
  if (policy_.rules.empty()) return {policy_.external_ports};
  return allowed_ranges(policy_, device, transport);
}

/// Where to look for any port: in the ordinary ones, unless the rules leave this device only others. Not
/// empty, the first to be tried first.
std::vector<PortRange> LeaseService::Impl::ordinary_ranges(const std::vector<PortRange>& ranges) {
  std::vector<PortRange> ordinary;
  for (auto range : ranges) {
    range.first = std::max({range.first, policy_.external_ports.first, std::uint16_t{1024}});
    range.last = std::min(range.last, policy_.external_ports.last);
    if (range.first <= range.last) ordinary.push_back(range);
  }
  if (ordinary.empty()) ordinary = ranges;
  // begin at a range drawn by its size, so that all ports are equally likely
  std::uint32_t total = 0;
  for (const auto& range : ordinary) total += range.last - range.first + 1u;
  random_ = random_ * 6364136223846793005u + 1442695040888963407u;
  std::uint32_t draw = static_cast<std::uint32_t>((random_ >> 33) % total);
  std::size_t begin = 0;
  while (draw >= ordinary[begin].last - ordinary[begin].first + 1u)
    draw -= ordinary[begin].last - ordinary[begin].first + 1u, ++begin;
  std::ranges::rotate(ordinary, ordinary.begin() + static_cast<std::ptrdiff_t>(begin));
  return ordinary;
}

/// Claims external ports in a row for the request's internal ones, until one cannot be had; then `why` says
/// so.
std::vector<Claimed> LeaseService::Impl::claim_at(const GrantRequest& request, std::uint32_t external,
                                                  std::uint16_t size, const std::vector<PortRange>& ranges,
                                                  std::uint32_t lifetime_s, TimePoint now, Refusal& why) {
  std::vector<Claimed> claimed;
  claimed.reserve(size);
  nat::MappingSpec spec{.transport = request.transport, .internal = request.internal};
  spec.insist = true;
  spec.deadline = now + seconds{lifetime_s};
  spec.remotes = request.filters;
  for (std::uint32_t internal = request.internal.port.number(); claimed.size() < size;
       ++internal, ++external) {
    spec.suggested = Port::from(external);
    const auto range = std::ranges::find_if(
        ranges, [&](const PortRange& each) { return spec.suggested && each.contains(*spec.suggested); });
    if (range == ranges.end()) {
      why = {MappingErrc::insisted_port_forbidden, permanent_refusal_s};
      break;
    }
    spec.internal.port = *Port::from(internal);
    if (const Index first = table_.find_mapping(request.transport, spec.internal); first != nothing) {
      // an endpoint keeps the external port that another protocol opened (POL-OWN-04)
      Index joined = first;
      while (joined != nothing && table_.mappings[joined].external_port != external)
        joined = table_.mappings[joined].next_on_endpoint;
      if (joined == nothing) {
        const auto left = seconds_until(effective_deadline(table_.mappings[first]), now);
        why = {MappingErrc::insisted_port_taken, std::max(1u, left)};
        break;
      }
      claimed.push_back({.mapping = joined});
      continue;
    }
    spec.allowed = *range;
    const bool had_flows = plane_.has_implicit(spec.transport, spec.internal, now);
    const auto installed = install_new(spec, now);
    if (!installed) {
      why = refusal_of(installed.error(), spec, now);
      break;
    }
    claimed.push_back({.installed = *installed, .had_flows = had_flows});
  }
  return claimed;
}

void LeaseService::Impl::unclaim(const std::vector<Claimed>& claimed, TimePoint now) {
  for (const auto& port : claimed)
    if (port.installed)
      plane_.withdraw(port.installed->id, port.had_flows ? nat::Ending::drain : nat::Ending::vacate, now);
}

/// Claims a set: all of it where that can be had, else, unless the request insists, what can be had from its
/// first port on.
Outcome<std::vector<Claimed>> LeaseService::Impl::claim_set(const GrantRequest& request, std::uint16_t size,
                                                            std::uint32_t lifetime_s, TimePoint now) {
  const auto ranges = permitted_ranges(request.internal.address, request.transport);
  if (ranges.empty()) return Refusal{MappingErrc::not_authorized, permanent_refusal_s};
  const std::uint32_t internal = request.internal.port.number();
  Refusal why{MappingErrc::no_ports_left, transient_refusal_s};
  const auto at = [&](std::uint32_t external, bool all) -> std::optional<std::vector<Claimed>> {
    auto claimed = claim_at(request, external, size, ranges, lifetime_s, now, why);
    if (!claimed.empty() && (claimed.size() == size || !all)) return claimed;
    unclaim(claimed, now);
    return std::nullopt;
  };
  const bool wants_port = request.insist && request.suggested_port;

  // What other protocols opened inside the set fixes its place, or is where it ends.
  for (std::uint16_t i = 0; i < size; ++i) {
    const Index present =
        table_.find_mapping(request.transport, {request.internal.address, *Port::from(internal + i)});
    if (present == nothing) continue;
    const std::uint32_t external = table_.mappings[present].external_port;
    const bool fits = external > i && (!request.parity || (external - i) % 2 == internal % 2) &&
                      (!wants_port || external - i == request.suggested_port->number());
    if (fits)
      if (auto claimed = at(external - i, request.insist || i > 0)) return *claimed;
    if (request.insist || i == 0) {
      if (!fits) why = {MappingErrc::insisted_port_taken, transient_refusal_s};
      return why;
    }
    size = i;
  }
  if (wants_port) {
    if (auto claimed = at(request.suggested_port->number(), true)) return *claimed;
    return why;
  }

  why = {request.insist ? MappingErrc::insisted_port_taken : MappingErrc::no_ports_left, transient_refusal_s};
  nat::RangeSpec spec{.transport = request.transport, .first = request.internal, .parity = request.parity};
  // packets that arrive meanwhile may take a port that was free a moment ago
  constexpr int most_tries = 4;
  for (int tries = 1; tries <= most_tries; ++tries) {
    std::optional<nat::FoundRange> best;
    const auto look = [&](const PortRange& allowed) {
      spec.allowed = allowed;
      spec.size = size;
      const auto found = plane_.find_range(spec, now);
      if (found && (!best || found->size > best->size)) best = found;
      return best && best->size == size;
    };
    bool all = false;
    if (spec.suggested = request.suggested_port; spec.suggested)
      for (const auto& range : ranges)
        if (range.contains(*spec.suggested)) {
          // ports below 1024 are never chosen, only asked for
          const auto first = spec.suggested->number();
          const auto last = std::min<std::uint32_t>(range.last, first + size - 1u);
          all = look(first >= 1024 ? PortRange{std::max<std::uint16_t>(range.first, 1024), range.last}
                                   : PortRange{first, static_cast<std::uint16_t>(last)});
        }
    spec.suggested.reset();
    if (!all)
      for (const auto& range : ordinary_ranges(ranges))
        if (look(range)) break;
    if (!best || (request.insist && best->size < size)) return why;
    size = best->size;
    if (auto claimed = at(best->first.number(), request.insist || tries < most_tries)) return *claimed;
  }
  return why;
}

// ------------------------------------------------------------------------------------------------------ the
// store

LeaseRecord LeaseService::Impl::record_of(const Lease& lease) const {
  const auto& mapping = table_.mappings[lease.mapping];
  LeaseRecord record;
  record.number = lease.number;
  record.via = lease.via;
  record.transport = mapping.transport;
  record.enabled = lease.enabled;
  record.outbound = lease.outbound;
  record.internal_address = mapping.internal_address;
  record.internal_port = mapping.internal_port;
  record.external_port = mapping.external_port;
  record.ports = lease.set_size;
  if (lease.has_nonce) record.nonce = lease.nonce;
  if (!lease.permanent) {
    record.lifetime_s = lease.lifetime_s;
    record.boot = store_.boot();
    record.deadline = lease.deadline;
    const auto provisional =
        lease.provisional_deadline ? provisional_.find(lease.number) : provisional_.end();
    record.deadline_wall =
        provisional != provisional_.end()
            ? provisional->second
            : std::chrono::ceil<seconds>(WallTime{} + (lease.deadline.time_since_epoch() + wall_offset_));
  } else {
    record.deadline = TimePoint::max();
  }
  record.created = WallTime{seconds{lease.created}};
  record.renewals = lease.renewals;
  record.contact = contact_of(lease);
  if (lease.remotes) record.remotes = *lease.remotes;
  record.description = lease.description.view();
  record.pinhole = lease.pinhole;
  return record;
}

void LeaseService::Impl::write(Index index) {
  auto& lease = table_.leases[index];
  if (!writable()) return mark_dirty(lease.number);
  last_ticket_ = store_.put(record_of(lease));
}

void LeaseService::Impl::forget(std::uint64_t number) {
  if (!writable()) return mark_dirty(number);
  last_ticket_ = store_.erase(number);
}

void LeaseService::Impl::note(std::string_view key, const std::string& value) {
  if (!writable()) {
    dirty_meta_.insert_or_assign(std::string{key}, value);
    return;
  }
  last_ticket_ = store_.set_meta(key, value);
}

void LeaseService::Impl::write_epoch() {
  note(meta_boot, std::to_string(store_.boot()));
  note(meta_epoch_boot, std::to_string(epoch_.time_since_epoch().count()));
  note(meta_ipv6_epoch_boot, std::to_string(ipv6_epoch_.time_since_epoch().count()));
  const auto wall = [&](TimePoint epoch) {
    return std::to_string(std::chrono::floor<seconds>(epoch.time_since_epoch() + wall_offset_).count());
  };
  note(meta_epoch_wall, wall(epoch_));
  note(meta_ipv6_epoch_wall, wall(ipv6_epoch_));
}

std::uint64_t LeaseService::Impl::next_number() {
  if (next_number_ >= numbers_until_) {
    // taken from the store in advance, so that a number given up with its lease is not given again after a
    // restart
    numbers_until_ = next_number_ + numbers_at_once;
    note(meta_next_number, std::to_string(numbers_until_));
  }
  return next_number_++;
}

void LeaseService::Impl::commit_results(TimePoint now) {
  auto progress = store_.take_progress();
  for (auto& warning : progress.warnings) warnings_.push_back(std::move(warning));
  while (!ops_.empty() && ops_.front().ticket <= progress.committed) {
    Op op = std::move(ops_.front());
    ops_.pop_front();
    settle(op, now);
  }
  if (progress.failure) {
    fail(*progress.failure, progress.rebuild, now);
  } else if (healing_ && progress.committed >= heal_ticket_) {
    healing_ = false;
    store_failure_.reset();
    retry_at_ = TimePoint::max();
    retry_after_ = seconds{1};
    being_healed_ = {};
    write_dirty();  // what changed while the healing was on its way; it stays dirty until the next one
  }
  run_waiting(now);
}

void LeaseService::Impl::fail(const std::string& why, bool rebuild, TimePoint now) {
  store_failure_ = why;
  healing_ = false;
  dirty_.merge(being_healed_.leases);
  dirty_blocks_.merge(being_healed_.blocks);
  dirty_meta_.merge(being_healed_.meta);
  being_healed_ = {};
  retry_at_ = now + retry_after_;
  retry_after_ = std::min(retry_after_ + seconds{1}, seconds{10});
  if (rebuild) {
    for (Index i = 0; i < table_.leases.end(); ++i)
      if (table_.leases[i].number != 0 && table_.leases[i].set_place == 0)
        mark_dirty(table_.leases[i].number);
    for (const auto& [key, block] : blocks_) dirty_blocks_.insert(block.lease);
    for (const auto key : {meta_boot, meta_epoch_boot, meta_epoch_wall, meta_ipv6_epoch_boot,
                           meta_ipv6_epoch_wall, meta_external, meta_next_number, meta_wall})
      if (const auto value = store_.get_meta(key)) dirty_meta_.insert_or_assign(std::string{key}, *value);
  }
  std::deque<Op> undone;
  undone.swap(ops_);
  for (auto op = undone.rbegin(); op != undone.rend(); ++op) undo(*op, now);
  // meta values have no op of their own; what was not committed is written again
  note(meta_next_number, std::to_string(numbers_until_));
  write_epoch();
  if (!pool_.empty()) note(meta_external, pool_text());
  for (const auto& entry : statics_) note(static_key(entry.mapping), static_text(entry));
  for (const auto& [key, value] : kept_) note(key, value);
  auto batches = std::move(batches_);
  batches_.clear();
  for (const auto& batch : batches) {
    batch->failed = true;
    for (const auto number : batch->todo) {
      const Index lease = table_.find_number(number);
      if (lease != nothing) unmark_ending(lease);
      const std::uint16_t ports = lease != nothing ? table_.leases[lease].set_size : 1;
      for (std::uint16_t place = 0; place < ports; ++place)
        batch->result.failed.emplace_back(public_id(number + place), "the store cannot be written: " + why);
    }
    batch->todo.clear();
    if (batch->open == 0) finish_batch(batch, now);
  }
  for (auto& op : undone) refuse_undone(op, now);
}

/// Queues what the store may not hold as it is now.
void LeaseService::Impl::write_dirty() {
  for (const auto number : dirty_) {
    const Index lease = table_.find_number(number);
    last_ticket_ = lease == nothing ? store_.erase(number) : store_.put(record_of(table_.leases[lease]));
  }
  for (const auto number : dirty_blocks_) {
    const auto block =
        std::ranges::find_if(blocks_, [&](const auto& entry) { return entry.second.lease == number; });
    last_ticket_ = block == blocks_.end() ? store_.erase_block(number) : store_.put_block(block->second);
  }
  for (const auto& [key, value] : dirty_meta_) last_ticket_ = store_.set_meta(key, value);
}

void LeaseService::Impl::heal(TimePoint now) {
  if (healing_) return;
  healing_ = true;
  retry_at_ = TimePoint::max();
  write_dirty();
  being_healed_.leases.swap(dirty_);
  being_healed_.blocks.swap(dirty_blocks_);
  being_healed_.meta.swap(dirty_meta_);
  heal_ticket_ = store_.set_meta(meta_wall, std::to_string(clock_.wall().time_since_epoch().count()));
  last_ticket_ = heal_ticket_;
  wall_note_at_ = now + std::chrono::minutes{10};
}

Granted LeaseService::Impl::granted(Index head, std::uint16_t place, std::uint16_t ports,
                                    std::uint32_t lifetime_s) const {
  const auto& lease = table_.leases[table_.member(head, place)];
  const auto& mapping = table_.mappings[lease.mapping];
  return {lease.number,
          table_.external_of(mapping),
          lifetime_s,
          std::string{lease.description.view()},
          ports};
}

void LeaseService::Impl::settle(Op& op, TimePoint now) {
  if (op.number != 0 && op.lease != nothing && table_.leases[op.lease].number != op.number)
    op.lease = nothing;
  switch (op.kind) {
    case Op::Kind::grant:
    case Op::Kind::renew:
    case Op::Kind::repeat: {
      if (op.lease == nothing) {  // a static mapping took its port meanwhile
        if (op.grant_done) refuse(op.grant_done, {MappingErrc::no_ports_left, transient_refusal_s}, now);
        return;
      }
      auto& lease = table_.leases[op.lease];
      --lease.open_ops;
      if (!lease.permanent && !lease.ending && lease.asked == op.asked) {
        // The client counts from the answer: when the disk took its time, so does the lease.
        if (now - op.asked > std::chrono::milliseconds{100}) {
          lease.deadline = std::max(lease.deadline, now + seconds{lease.lifetime_s});
          apply(op.lease, now);
        }
        table_.schedule(op.lease);
      } else if (!lease.ending && lease.open_ops == 0) {
        table_.schedule(op.lease);
      }
      const bool was_fresh = lease.fresh;
      const bool other_key = op.undo && op.undo->texts && (lease.remotes ? *lease.remotes : std::vector<RemoteFilter>{}) != op.undo->remotes;
      if (op.kind == Op::Kind::grant) granted_ += lease.set_size;
      if (op.kind == Op::Kind::renew) renewed_ += lease.set_size;
      each_of(op.lease, [&](Index each) {
        table_.leases[each].fresh = false;
        if (other_key) table_.delist(each);
        if (was_fresh || other_key) table_.enlist(each);
        if (op.kind != Op::Kind::repeat)
          tell(op.kind == Op::Kind::grant || was_fresh          ? LeaseEventKind::granted
               : op.undo && (op.undo->texts || op.undo->extras) ? LeaseEventKind::changed
                                                                : LeaseEventKind::renewed,
               LeaseEventReason::requested, each, now);
      });
      op.grant_done(granted(op.lease, op.place, op.ports, op.lifetime_s), now);
      return;
    }
    case Op::Kind::remove:
      remove_committed(op, now);
      return;
    case Op::Kind::wait:
      if (op.release_done) op.release_done({}, now);
      if (op.batch) {
        --op.batch->open;
        if (op.batch->todo.empty() && op.batch->open == 0) finish_batch(op.batch, now);
      }
      return;
    case Op::Kind::block:
      return;
    case Op::Kind::unblock:
      if (op.unblock_done) op.unblock_done(op.blocks.size(), now);
      return;
  }
}

void LeaseService::Impl::remove_committed(const Op& op, TimePoint now) {
  if (op.lease != nothing)
    each_of(op.lease, [&](Index lease) {
      const auto mapping = table_.leases[lease].mapping;
      const auto& on = table_.mappings[mapping];
      const EndpointKey key{on.transport, on.internal_address, on.internal_port};
      const bool revoked = op.reason == LeaseEventReason::revoked;
      --table_.mappings[mapping].endings;
      if (table_.mappings[mapping].endings == 0) ready_.push_back(key);
      ++(revoked ? revoked_ : released_);
      std::optional<LeaseEvent> event;
      if (!listeners_.empty()) {
        event.emplace(LeaseEvent{LeaseEventKind::ended, op.reason, view(lease, true)});
      }
      const auto how = revoked ? nat::Ending::reset : ending_of(table_.leases[lease]);
      table_.remove_lease(lease);
      after_lease_left(mapping, how, now);
      if (event) tell(*event, now);
    });
  provisional_.erase(op.number);
  if (op.release_done) op.release_done({}, now);
  if (op.batch) {
    for (std::uint16_t place = 0; place < op.ports; ++place)
      op.batch->result.revoked.push_back(public_id(op.number + place));
    --op.batch->open;
    if (op.batch->todo.empty() && op.batch->open == 0) finish_batch(op.batch, now);
  }
}

/// Takes back what was done in memory for a write that failed. Called newest first, so that each finds what
/// it left.
void LeaseService::Impl::undo(Op& op, TimePoint now) {
  if (op.number != 0 && op.lease != nothing && table_.leases[op.lease].number != op.number)
    op.lease = nothing;
  if (op.number != 0) mark_dirty(op.number);  // a failed commit may still have reached the disk
  switch (op.kind) {
    case Op::Kind::grant: {
      if (op.lease == nothing) return;
      each_of(op.lease, [&](Index lease) {
        const auto mapping = table_.leases[lease].mapping;
        table_.remove_lease(lease);
        after_lease_left(mapping, nat::Ending::vacate, now);
      });
      return;
    }
    case Op::Kind::renew: {
      if (op.lease == nothing) return;
      auto& lease = table_.leases[op.lease];
      --lease.open_ops;
      lease.deadline = op.undo->deadline;
      lease.asked = op.undo->asked;
      lease.lifetime_s = op.undo->lifetime_s;
      lease.renewals = op.undo->renewals;
      lease.provisional_deadline = op.undo->provisional;
      lease.enabled = op.undo->enabled;
      lease.permanent = op.undo->permanent;
      if (op.undo->moved_from != 0) move(lease.mapping, *Port::from(op.undo->moved_from), now);
      set_contact(lease, op.undo->contact);
      if (op.undo->texts) {
        lease.description.set(op.undo->description);
        lease.remotes = op.undo->remotes.empty()
                            ? nullptr
                            : std::make_unique<std::vector<RemoteFilter>>(std::move(op.undo->remotes));
      }
      if (!lease.ending) table_.schedule(op.lease);
      apply(op.lease, now);
      return;
    }
    case Op::Kind::repeat:
      if (op.lease != nothing) --table_.leases[op.lease].open_ops;
      return;
    case Op::Kind::remove:
      if (op.lease != nothing) unmark_ending(op.lease);
      return;
    case Op::Kind::wait:
      return;
    case Op::Kind::block: {
      const auto made =
          std::ranges::find_if(blocks_, [&](const auto& entry) { return entry.second.lease == op.number; });
      if (made != blocks_.end()) blocks_.erase(made);
      dirty_blocks_.insert(op.number);
      [[fallthrough]];
    }
    case Op::Kind::unblock:
      for (const auto& block : op.blocks) {
        blocks_.insert_or_assign(EndpointKey{block.transport, block.device, block.internal_port}, block);
        dirty_blocks_.insert(block.lease);
      }
      return;
  }
}

void LeaseService::Impl::refuse_undone(Op& op, TimePoint now) {
  const Refusal refusal{MappingErrc::store_unavailable, transient_refusal_s};
  if (op.grant_done) refuse(op.grant_done, refusal, now);
  if (op.release_done) op.release_done(refusal, now);
  if (op.unblock_done) op.unblock_done(0, now);
  if (op.batch) {
    op.batch->failed = true;
    if (op.kind == Op::Kind::remove)
      for (std::uint16_t place = 0; place < op.ports; ++place)
        op.batch->result.failed.emplace_back(public_id(op.number + place),
                                             "the store cannot be written: " + *store_failure_);
    if (--op.batch->open == 0 && op.batch->todo.empty()) finish_batch(op.batch, now);
  }
}

// ----------------------------------------------------------------------------------------------------
// judging

Result<void> LeaseService::Impl::judge_target(const Address& requester, const Address& target,
                                              bool third_party) const {
  if (third_party ? !may_name_others(policy_, requester) : requester != target)
    return MappingErrc::not_authorized;
  if (!is_lawful_target(network_, target)) return MappingErrc::not_authorized;
  return {};
}

const StaticEntry* LeaseService::Impl::static_for(Transport transport,
                                                  const InternalEndpoint& internal) const {
  for (const auto& entry : statics_)
    if (entry.mapping.transport == transport && entry.mapping.internal == internal) return &entry;
  return nullptr;
}

bool LeaseService::Impl::is_blocked(const EndpointKey& key) const {
  if (blocks_.empty()) return false;
  const auto holds = [&](const BlockRecord& block) { return !block.until || clock_.wall() < *block.until; };
  if (const auto block = blocks_.find(key); block != blocks_.end() && holds(block->second)) return true;
  if (key.address.is_v4()) return false;
  // the next address that the device gives itself is no way around it
  const auto owner = owner_of(key.address);
  return owner != key.address && std::ranges::any_of(blocks_, [&](const auto& entry) {
           const auto& block = entry.second;
           return block.transport == key.transport && block.internal_port == key.port &&
                  !block.device.is_v4() && (block.owner == owner || owner_of(block.device) == owner) &&
                  holds(block);
         });
}

Address LeaseService::Impl::owner_of(const Address& address) const {
  if (address.is_v4() || !mac_of_) return address;
  const auto mac = mac_of_(address);
  return mac ? device_key(*mac) : address;
}

bool LeaseService::Impl::is_one_device(const Address& a, const Address& b) const {
  if (a == b) return true;
  if (!mac_of_) return false;
  const auto mac = mac_of_(a);
  return mac && mac == mac_of_(b);
}

// ----------------------------------------------------------------------------------------------------
// requests

void LeaseService::Impl::grant(GrantRequest request, TimePoint now, GrantDone done, bool from_queue) {
  expire(now);
  const EndpointKey key{request.transport, request.internal.address, request.internal.port.number()};
  if (const auto judged = judge_target(request.requester, request.internal.address, request.third_party);
      !judged)
    return refuse(done, {MappingErrc::not_authorized, permanent_refusal_s}, now);
  const bool pinhole = !request.internal.address.is_v4();
  if (pinhole && !policy_.ipv6) return refuse(done, {MappingErrc::no_pinholes, permanent_refusal_s}, now);
  const std::uint16_t asked = request.ports;
  if (policy_.ports_per_set != 0)
    request.ports = static_cast<std::uint16_t>(std::min<std::uint32_t>(asked, policy_.ports_per_set));
  if (pinhole) {  // no set of those, and the port is as odd outside as inside
    request.ports = 1;
    request.parity = false;
  }
  Index mapping = table_.find_mapping(request.transport, request.internal);
  if (const auto behind = waits_behind(request.transport, request.internal, request.ports, from_queue)) {
    if (held_ >= most_open) return refuse(done, {MappingErrc::no_memory, transient_refusal_s}, now);
    request.ports = asked;
    return hold(*behind, WaitingGrant{std::move(request), std::move(done)});
  }
  if (is_blocked(key)) return refuse(done, {MappingErrc::device_blocked, permanent_refusal_s}, now);

  std::uint32_t lifetime_s = request.lifetime_s;
  if (request.via == Via::natpmp)
    lifetime_s = std::min(lifetime_s, policy_.natpmp_max);
  else
    lifetime_s = std::clamp(lifetime_s, policy_.pcp_min, std::max(policy_.pcp_min, policy_.pcp_max));
  if (request.outbound)
    lifetime_s = std::max(lifetime_s, request.transport == Transport::udp ? policy_.udp_idle_s
                                                                          : policy_.tcp_established_s);

  const Index lease = request.outbound ? table_.find_peer(mapping, request.filters.front())
                                       : table_.find_on(mapping, request.via);
  if (lease != nothing) {
    const auto& held = table_.leases[lease];
    mapping = held.mapping;
    if (held.has_nonce && held.nonce != request.nonce)
      return refuse(done, {MappingErrc::foreign_nonce, std::max(1u, seconds_until(held.deadline, now))}, now);
    // a set that is not this very one is not the whole of what is insisted on
    if (request.insist && asked > 1 && (held.set_place != 0 || held.set_size != asked))
      return refuse(done, {MappingErrc::insisted_port_taken, std::max(1u, seconds_until(held.deadline, now))},
                    now);
  } else if (request.ports > 1) {
    if (const auto overlap = overlap_of(request, now)) return refuse(done, *overlap, now);
  }
  if (!pinhole && network_.external.empty())
    return refuse(done, {MappingErrc::no_external_address, transient_refusal_s}, now);
  if (request.outbound) {
    // there is nothing to suggest where there is a mapping (PCP-12.3-01)
    if (mapping != nothing || static_for(request.transport, request.internal) != nullptr ||
        plane_.has_implicit(request.transport, request.internal, now)) {
      request.insist = false;
      request.suggested_port.reset();
      request.suggested_address.reset();
    }
    if (request.lifetime_s == 0 && mapping != nothing)
      return answer_existing(lease != nothing ? lease : table_.mappings[mapping].first_lease, lease == nothing, now, done);
    if (lease != nothing) lifetime_s = std::max(lifetime_s, seconds_until(table_.leases[lease].deadline, now));
  }
  bool other_address = false;
  if (!pinhole)  // each device has but one (PCP-11.3-13)
    other_address = request.insist && request.suggested_address &&
                    !request.suggested_address->is_unspecified() &&
                    *request.suggested_address != *external_address(request.internal.address);
  if (pinhole) {  // outside it is what it is inside (PCP-11.3-22)
    const auto& wanted = request.suggested_address;
    other_address =
        request.insist && ((wanted && *wanted != request.internal.address && *wanted != Address{}) ||
                           (request.suggested_port && *request.suggested_port != request.internal.port));
  }
  if (other_address) return refuse(done, {MappingErrc::insisted_port_forbidden, permanent_refusal_s}, now);

  if (mapping == nothing || lease == nothing) {
    if (const auto* entry = static_for(request.transport, request.internal); entry && mapping == nothing) {
      // in force for good, whatever is asked: an answer, but no lease (PCP-11.3-09, NPM-3.3-12)
      const bool parity = entry->mapping.external.number() % 2 == request.internal.port.number() % 2;
      if ((request.insist && asked > 1) || (request.parity && !parity) ||
          (request.insist && request.suggested_port && *request.suggested_port != entry->mapping.external))
        return refuse(done, {MappingErrc::insisted_port_forbidden, permanent_refusal_s}, now);
      return done(Granted{entry->number, external_of(*entry), lifetime_s,
                          clean_description(entry->mapping.description, policy_.description_octets)},
                  now);
    }
  }
  if (mapping != nothing && !request.outbound) {
    const auto& on = table_.mappings[mapping];
    const Port external = *Port::from(on.external_port);
    if (pinhole || !policy_.rules.empty() || !policy_.external_ports.contains(external))
      if (!may_have(policy_, request.internal.address, request.transport, external))
        return refuse(done, {MappingErrc::not_authorized, permanent_refusal_s}, now);
    const bool other_port = request.insist && request.suggested_port && *request.suggested_port != external;
    const bool elsewhere = !pinhole && request.insist && request.suggested_address &&
                           !request.suggested_address->is_unspecified() &&
                           *request.suggested_address != table_.addresses[on.external_address];
    const bool other_parity = request.parity && on.external_port % 2 != on.internal_port % 2;
    if (other_port || elsewhere || other_parity)
      return refuse(
          done, {MappingErrc::insisted_port_taken, std::max(1u, seconds_until(effective_deadline(on), now))},
          now);
  }
  if (const auto refusal = cannot_write()) return refuse(done, *refusal, now);
  if (pinhole && mapping == nothing &&
      !may_have(policy_, request.internal.address, request.transport, request.internal.port))
    return refuse(done, {MappingErrc::not_authorized, permanent_refusal_s}, now);
  if (lease != nothing) {
    request.ports = asked;  // a set stays as large as it is, whatever new ones may be
    return renew(request, {}, lease, lifetime_s, now, done);
  }
  if (request.insist && request.ports < asked)
    return refuse(done, {MappingErrc::insisted_port_forbidden, permanent_refusal_s}, now);
  if (request.ports > 1 || (request.parity && mapping == nothing))
    return grant_set(request, lifetime_s, now, done);
  grant_new(request, {}, mapping, lifetime_s, now, done);
}

/// The endpoint of a range behind whose deletion, or behind what waits for one there, a request has to wait.
std::optional<EndpointKey> LeaseService::Impl::waits_behind(Transport transport,
                                                            const InternalEndpoint& first,
                                                            std::uint16_t ports, bool from_queue) const {
  for (std::uint16_t i = 0; i < ports; ++i) {
    const InternalEndpoint internal{first.address, *Port::from(first.port.number() + std::uint32_t{i})};
    const EndpointKey key{transport, internal.address, internal.port.number()};
    if (table_.is_ending(table_.find_mapping(transport, internal)) || (!from_queue && in_waiting(key)))
      return key;
  }
  return std::nullopt;
}

/// Why the request cannot be a new set: a lease of its protocol stands behind its first port (PSET-4-08).
std::optional<Refusal> LeaseService::Impl::overlap_of(const GrantRequest& request, TimePoint now) const {
  for (std::uint16_t i = 1; i < request.ports; ++i) {
    const InternalEndpoint internal{request.internal.address,
                                    *Port::from(request.internal.port.number() + std::uint32_t{i})};
    const Index lease = table_.find_on(table_.find_mapping(request.transport, internal), request.via);
    if (lease == nothing) continue;
    const auto& held = table_.leases[lease];
    const bool foreign = held.has_nonce && held.nonce != request.nonce;
    return Refusal{foreign ? MappingErrc::foreign_nonce : MappingErrc::insisted_port_taken,
                   std::max(1u, seconds_until(held.deadline, now))};
  }
  return std::nullopt;
}

/// Answers when what is on its way to the disk for this lease is there.
void LeaseService::Impl::answer_with_commit(Index head, std::uint16_t place, std::uint16_t ports,
                                            std::uint32_t lifetime_s, GrantDone& done) {
  auto& lease = table_.leases[head];
  ++lease.open_ops;
  ops_.push_back({.ticket = last_ticket_,
                  .kind = Op::Kind::repeat,
                  .lease = head,
                  .number = lease.number,
                  .place = place,
                  .ports = ports,
                  .lifetime_s = lifetime_s,
                  .asked = lease.asked,
                  .grant_done = std::move(done)});
}

/// What is there stays as it is; the answer tells how long that lease, or its mapping as a whole, will be there.
void LeaseService::Impl::answer_existing(Index index, bool whole, TimePoint now, GrantDone& done) {
  const Index head = table_.head_of(index);
  const auto place = table_.leases[index].set_place;
  const auto& lease = table_.leases[head];
  const auto& on = table_.mappings[table_.leases[index].mapping];
  const auto deadline = whole ? effective_deadline(on) : lease.deadline;
  const auto lifetime_s = deadline == TimePoint::max() ? policy_.pcp_max : std::max(1u, seconds_until(deadline, now));
  // not answered before what it speaks of is on the disk
  if (lease.open_ops > 0 && writable()) return answer_with_commit(head, place, 1, lifetime_s, done);
  done(granted(head, place, 1, lifetime_s), now);
}

void LeaseService::Impl::grant_new(GrantRequest& request, const Extras& extras, Index mapping,
                                   std::uint32_t lifetime_s, TimePoint now, GrantDone& done) {
  const Address owner = owner_of(request.internal.address);
  if (owner != request.internal.address) {  // its MAC may be known only since its last lease
    if (const Index before = table_.find_device(request.internal.address); before != nothing)
      table_.merge_devices(before, owner);
  } else if (!owner.is_v4() && mac_of_ && strangers_.size() < most_open) {
    strangers_.push_back({owner, now + seconds{1}, 5});
  }
  const Index device = table_.find_device(owner);
  if (policy_.leases_per_device != 0 && device != nothing &&
      table_.devices[device].leases >= policy_.leases_per_device)
    return refuse(done, {MappingErrc::quota_exceeded, transient_refusal_s}, now);
  if (policy_.leases_total != 0 && table_.size() >= policy_.leases_total)
    return refuse(done, {MappingErrc::no_ports_left, transient_refusal_s}, now);
  if (request.filters.size() > most_filters)
    return refuse(done, {MappingErrc::too_many_filters, permanent_refusal_s}, now);

  const bool joins = mapping != nothing;
  if (joins && request.outbound) {
    std::size_t peers = 0;
    for (Index i = table_.mappings[mapping].first_lease; i != nothing; i = table_.leases[i].next_on_mapping) ++peers;
    if (peers >= most_peers) return refuse(done, {MappingErrc::no_memory, transient_refusal_s}, now);
  }
  const bool named = request.via == Via::upnp && !request.internal.address.is_v4();
  if (named && !table_.may_name_pinhole())
    return refuse(done, {MappingErrc::no_ports_left, transient_refusal_s}, now);
  if (!joins) {
    auto installed = claim(request, extras, lifetime_s, now);
    if (!installed) return refuse(done, installed.error(), now);
    if (!may_have(policy_, request.internal.address, request.transport, installed->external.port)) {
      // the port of its implicit mapping, which this device may use but not open
      plane_.withdraw(installed->id, nat::Ending::drain, now);
      return refuse(done, {MappingErrc::not_authorized, permanent_refusal_s}, now);
    }
    mapping = table_.add_mapping(
        request.transport, request.internal, installed->external.port,
        request.internal.address.is_v4() ? table_.intern(installed->external.address) : std::uint16_t{0});
    auto& made = table_.mappings[mapping];
    made.plane = installed->id;
    made.installed = true;
    made.filtered = !admitted(request.filters, request.outbound).empty();
    made.enabled = extras.enabled;
  }
  const Index index = add_lease(request, extras, next_number(), mapping, lifetime_s, now);
  if (joins) bring_in_force(mapping, now);
  await_grant(index, lifetime_s, now, done);
}

Index LeaseService::Impl::add_lease(const GrantRequest& request, const Extras& extras, std::uint64_t number,
                                    Index mapping, std::uint32_t lifetime_s, TimePoint now) {
  const Index index = table_.add_lease(number, mapping, owner_of(request.internal.address));
  auto& lease = table_.leases[index];
  lease.via = request.via;
  if (request.via == Via::upnp && !request.internal.address.is_v4()) table_.name_pinhole(index);
  lease.enabled = extras.enabled;
  lease.permanent = extras.permanent;
  lease.outbound = request.outbound;
  lease.deadline = extras.permanent ? TimePoint::max() : now + seconds{lifetime_s};
  lease.asked = now;
  lease.lifetime_s = lifetime_s;
  lease.created = static_cast<std::uint32_t>(clock_.wall().time_since_epoch().count());
  if (request.nonce) lease.has_nonce = true, lease.nonce = *request.nonce;
  set_contact(lease, request.contact);
  if (request.description)
    lease.description.set(clean_description(*request.description, policy_.description_octets));
  if (!request.filters.empty()) lease.remotes = std::make_unique<std::vector<RemoteFilter>>(request.filters);
  return index;
}

/// A set of ports, each of which is a mapping and a lease; or a single one whose external port has to be odd
/// or even.
void LeaseService::Impl::grant_set(GrantRequest& request, std::uint32_t lifetime_s, TimePoint now,
                                   GrantDone& done) {
  if (request.filters.size() > most_filters)
    return refuse(done, {MappingErrc::too_many_filters, permanent_refusal_s}, now);
  std::uint32_t size = request.ports;
  // False: the set would be smaller than it has to be.
  const auto cut = [&](std::uint64_t most) {
    size = static_cast<std::uint32_t>(std::min<std::uint64_t>(size, most));
    return size > 0 && (size == request.ports || !request.insist);
  };
  const Index device = table_.find_device(owner_of(request.internal.address));
  const std::uint64_t held = device == nothing ? 0 : table_.devices[device].leases;
  const auto left = [](std::uint64_t most, std::uint64_t have) { return most > have ? most - have : 0; };
  if (policy_.leases_per_device != 0 && !cut(left(policy_.leases_per_device, held)))
    return refuse(done, {MappingErrc::quota_exceeded, transient_refusal_s}, now);
  if (policy_.leases_total != 0 && !cut(left(policy_.leases_total, table_.size())))
    return refuse(done, {MappingErrc::no_ports_left, transient_refusal_s}, now);
  for (std::uint32_t i = 1; i < size; ++i) {
    const InternalEndpoint internal{request.internal.address,
                                    *Port::from(request.internal.port.number() + i)};
    const bool barred = static_for(request.transport, internal) != nullptr ||
                        is_blocked({request.transport, internal.address, internal.port.number()});
    if (barred && !cut(i))
      return refuse(done, {MappingErrc::insisted_port_forbidden, permanent_refusal_s}, now);
  }
  const auto claimed = claim_set(request, static_cast<std::uint16_t>(size), lifetime_s, now);
  if (!claimed) return refuse(done, claimed.error(), now);

  const auto count = static_cast<std::uint16_t>(claimed->size());
  const std::uint64_t number = next_number();
  for (std::uint16_t place = 1; place < count; ++place) next_number();
  Index head = nothing;
  for (std::uint16_t place = 0; place < count; ++place) {
    const auto& port = (*claimed)[place];
    Index mapping = port.mapping;
    if (port.installed) {
      const InternalEndpoint internal{request.internal.address,
                                      *Port::from(request.internal.port.number() + std::uint32_t{place})};
      mapping = table_.add_mapping(request.transport, internal, port.installed->external.port,
                                   table_.intern(port.installed->external.address));
      auto& made = table_.mappings[mapping];
      made.plane = port.installed->id;
      made.installed = true;
      made.filtered = !request.filters.empty();
    }
    const Index index = add_lease(request, {}, number + place, mapping, lifetime_s, now);
    table_.leases[index].set_size = count;
    table_.leases[index].set_place = place;
    if (place == 0) head = index;
    if (!port.installed) bring_in_force(mapping, now);
  }
  await_grant(head, lifetime_s, now, done);
}

/// A new lease, or the head of a new set, goes to the disk, and the answer follows.
void LeaseService::Impl::await_grant(Index index, std::uint32_t lifetime_s, TimePoint now, GrantDone& done) {
  auto& lease = table_.leases[index];
  table_.schedule(index);
  ++lease.open_ops;
  write(index);
  ops_.push_back({.ticket = last_ticket_,
                  .kind = Op::Kind::grant,
                  .lease = index,
                  .number = lease.number,
                  .ports = lease.set_size,
                  .lifetime_s = lifetime_s,
                  .asked = now,
                  .grant_done = std::move(done)});
  if (!writable()) {  // granted without a store, by configuration
    Op op = std::move(ops_.back());
    ops_.pop_back();
    settle(op, now);
  }
}

void LeaseService::Impl::renew(GrantRequest& request, const Extras& extras, Index asked_for,
                               std::uint32_t lifetime_s, TimePoint now, GrantDone& done) {
  // whatever part of a set is asked for, all of it is renewed (RFC 7753, section 4.4)
  const Index index = table_.head_of(asked_for);
  auto& lease = table_.leases[index];
  const std::uint16_t place = table_.leases[asked_for].set_place;
  const auto ports = std::min<std::uint16_t>(request.ports, lease.set_size - place);
  const Port present = *Port::from(table_.mappings[table_.leases[asked_for].mapping].internal_port);
  const bool moves = request.internal.port != present;
  const bool same_extras = !moves && lease.enabled == extras.enabled && lease.permanent == extras.permanent;
  std::vector<RemoteFilter> remotes;
  if (lease.remotes && !request.clear_filters) remotes = *lease.remotes;
  // no filter yet means "everybody", and the union with that would be everybody still; but the client that
  // adds its first filter wants it to hold (PCP-13.3-02), so it does
  for (const auto& filter : request.filters)
    if (std::ranges::find(remotes, filter) == remotes.end()) remotes.push_back(filter);
  if (remotes.size() > most_filters)
    return refuse(done, {MappingErrc::too_many_filters, permanent_refusal_s}, now);
  std::optional<std::string> description;
  if (request.description) description = clean_description(*request.description, policy_.description_octets);
  const bool same_filters = lease.remotes ? remotes == *lease.remotes : remotes.empty();
  const bool same_text = !description || *description == lease.description.view();

  if (lease.open_ops > 0 && same_filters && same_text && same_extras && lifetime_s == lease.lifetime_s &&
      contact_of(lease) == request.contact && now - lease.asked < seconds{1} && writable()) {
    // a copy of a request that is on its way to the disk: the same answer at the same time (PCP-X-10)
    return answer_with_commit(index, place, ports, lifetime_s, done);
  }
  if (moves && !move(lease.mapping, request.internal.port, now))
    return refuse(done, {MappingErrc::insisted_port_taken, transient_refusal_s}, now);
  auto undo = std::make_unique<Undo>();
  if (moves) undo->moved_from = present.number();
  undo->extras = !same_extras;
  undo->enabled = lease.enabled;
  undo->permanent = lease.permanent;
  undo->deadline = lease.deadline;
  undo->asked = lease.asked;
  undo->lifetime_s = lease.lifetime_s;
  undo->renewals = lease.renewals;
  undo->provisional = lease.provisional_deadline;
  undo->contact = contact_of(lease);
  if (!same_filters || !same_text) {
    undo->texts = true;
    undo->description = lease.description.view();
    if (lease.remotes) undo->remotes = *lease.remotes;
    if (description) lease.description.set(*description);
    lease.remotes =
        remotes.empty() ? nullptr : std::make_unique<std::vector<RemoteFilter>>(std::move(remotes));
  }
  lease.enabled = extras.enabled;
  lease.permanent = extras.permanent;
  lease.deadline = extras.permanent ? TimePoint::max() : now + seconds{lifetime_s};
  lease.asked = now;
  lease.lifetime_s = lifetime_s;
  lease.provisional_deadline = false;
  ++lease.renewals;
  set_contact(lease, request.contact);
  table_.schedule(index);
  apply(index, now);
  ++lease.open_ops;
  write(index);
  ops_.push_back({.ticket = last_ticket_,
                  .kind = Op::Kind::renew,
                  .lease = index,
                  .number = lease.number,
                  .place = place,
                  .ports = ports,
                  .lifetime_s = lifetime_s,
                  .asked = now,
                  .grant_done = std::move(done),
                  .undo = std::move(undo)});
  if (!writable()) {
    Op op = std::move(ops_.back());
    ops_.pop_back();
    settle(op, now);
  }
}

void LeaseService::Impl::release(ReleaseRequest request, TimePoint now, ReleaseDone done, bool from_queue) {
  expire(now);
  const EndpointKey key{request.transport, request.internal.address, request.internal.port.number()};
  const bool own = request.third_party ? may_name_others(policy_, request.requester)
                                       : request.requester == request.internal.address;
  if (!own) return done(Refusal{MappingErrc::not_authorized, permanent_refusal_s}, now);
  const Index mapping = table_.find_mapping(request.transport, request.internal);
  std::optional<EndpointKey> behind;
  if (table_.is_ending(mapping) || (!from_queue && in_waiting(key))) behind = key;
  const Index first = table_.find_on(mapping, request.via);
  if (!request.internal.address.is_v4()) request.ports = 1;  // as grant() gives them
  std::vector<Index> others;  // heads of what else lies in the range
  if (request.ports > 1) {
    const PortRange range{request.internal.port.number(),
                          static_cast<std::uint16_t>(request.internal.port.number() + request.ports - 1u)};
    const Index device = table_.find_device(request.internal.address);
    for (Index i = device == nothing ? nothing : table_.devices[device].first_lease; i != nothing;
         i = table_.leases[i].device_after) {
      const auto& lease = table_.leases[i];
      const auto& on = table_.mappings[lease.mapping];
      if (on.transport != request.transport || !range.contains(on.internal().port)) continue;
      if (!behind && on.endings > 0)
        behind = EndpointKey{on.transport, on.internal_address, on.internal_port};
      if (lease.via != request.via || lease.outbound) continue;
      const Index head = table_.head_of(i);
      if ((first == nothing || head != table_.head_of(first)) &&
          std::ranges::find(others, head) == others.end())
        others.push_back(head);
    }
  }
  if (behind) {
    if (held_ >= most_open) return done(Refusal{MappingErrc::no_memory, transient_refusal_s}, now);
    return hold(*behind, WaitingRelease{std::move(request), std::move(done)});
  }
  const Index index = first != nothing ? table_.head_of(first) : others.empty() ? nothing : others.front();
  if (index == nothing) {
    if (mapping != nothing || static_for(request.transport, request.internal))
      return done(Refusal{MappingErrc::not_owned_here, permanent_refusal_s}, now);
    // RFC 6887, section 15.1; NAT-PMP knows no implicit mappings (RFC 6886, section 3.4)
    if (request.via == Via::pcp && plane_.has_implicit(request.transport, request.internal, now))
      return done(Refusal{MappingErrc::not_owned_here, permanent_refusal_s}, now);
    return done({}, now);  // what does not exist is already ended
  }
  const auto& lease = table_.leases[index];
  if (lease.has_nonce && lease.nonce != request.nonce)
    return done(Refusal{MappingErrc::foreign_nonce, std::max(1u, seconds_until(lease.deadline, now))}, now);
  for (const Index other : others)
    if (const auto& held = table_.leases[other]; held.has_nonce && held.nonce != request.nonce)
      return done(Refusal{MappingErrc::foreign_nonce, std::max(1u, seconds_until(held.deadline, now))}, now);
  if (!writable()) return done(Refusal{MappingErrc::store_unavailable, transient_refusal_s}, now);
  if (ops_.size() >= most_open) return done(Refusal{MappingErrc::no_memory, transient_refusal_s}, now);
  if (others.size() > (first == nothing ? 1u : 0u)) {
    auto batch = std::make_shared<Batch>();
    if (first != nothing) batch->todo.push_back(lease.number);
    for (const Index other : others) batch->todo.push_back(table_.leases[other].number);
    return run_release(batch, false, std::move(done), now);
  }
  push_release(index, now, std::move(done));
}

void LeaseService::Impl::release_all(ReleaseAllRequest request, TimePoint now, ReleaseDone done,
                                     bool from_queue) {
  expire(now);
  if (!from_queue && held_ > 0) {
    // behind whatever of this device waits for a deletion of its own
    for (auto& [key, queue] : waiting_)
      if (key.address == request.requester && key.transport == request.transport) {
        queue.push_back(WaitingReleaseAll{std::move(request), std::move(done)});
        ++held_;
        return;
      }
  }
  auto batch = std::make_shared<Batch>();
  for (const auto& entry : statics_)
    batch->other_left |=
        entry.mapping.transport == request.transport && entry.mapping.internal.address == request.requester;
  bool ending_already = false;
  const Index device = table_.find_device(request.requester);
  for (Index i = device == nothing ? nothing : table_.devices[device].first_lease; i != nothing;
       i = table_.leases[i].device_after) {
    const auto& lease = table_.leases[i];
    if (lease.via != request.via || table_.mappings[lease.mapping].transport != request.transport) continue;
    if (lease.ending)
      ending_already = true;
    else
      batch->todo.push_back(lease.number);
  }
  if (!batch->todo.empty() && !writable())
    return done(Refusal{MappingErrc::store_unavailable, transient_refusal_s}, now);
  run_release(batch, ending_already, std::move(done), now);
}

/// Ends what `batch` lists; with `wait` the answer also waits for deletions that are under way.
void LeaseService::Impl::run_release(const std::shared_ptr<Batch>& batch, bool wait, ReleaseDone done,
                                     TimePoint now) {
  // all are marked now, so that a request behind this one finds them ending, however many slices it takes
  for (const auto number : batch->todo) mark_ending(table_.find_number(number));
  batch->release_done = std::move(done);
  if (wait) {
    ++batch->open;
    ops_.push_back({.ticket = last_ticket_, .kind = Op::Kind::wait, .asked = now, .batch = batch});
  }
  if (batch->todo.empty() && batch->open == 0) return finish_batch(batch, now);
  batches_.push_back(batch);
  run_batches(now);
}

// ----------------------------------------------------------------------------------------------------
// entries, as UPnP names them

Index LeaseService::Impl::at_external(Transport transport, const Address& device, Port external) const {
  if (const auto address = external_address(device))
    return table_.find_external(transport, table_.find_address(*address), external);
  Index found = nothing;  // no device has one now: by where they had it last
  for (std::size_t i = 0; i < table_.addresses.size(); ++i) {
    const Index at = table_.find_external(transport, static_cast<std::uint16_t>(i), external);
    if (at == nothing) continue;
    if (table_.mappings[at].internal_address == device) return at;
    found = at;
  }
  return found;
}

const StaticEntry* LeaseService::Impl::static_at(Transport transport, const Address& device,
                                                 Port external) const {
  for (const auto& entry : statics_)
    if (!entry.is_pinhole() && entry.mapping.transport == transport && entry.mapping.external == external &&
        share_address(entry.mapping.internal.address, device))
      return &entry;
  return nullptr;
}

Entry LeaseService::Impl::entry_of(Index index, TimePoint now) const {
  const auto& lease = table_.leases[index];
  const auto& mapping = table_.mappings[lease.mapping];
  return {.position = lease.entry,
          .key = {mapping.transport, *Port::from(mapping.external_port), remote_host_of(lease)},
          .internal = mapping.internal(),
          .enabled = lease.enabled,
          .description = std::string{lease.description.view()},
          .remaining_s = lease.permanent ? 0 : std::max(1u, seconds_until(lease.deadline, now)),
          .via = lease.via};
}

/// Static entries come first; their positions are their places, counted from 1.
Entry LeaseService::Impl::entry_of(std::size_t static_index) const {
  const auto& mapping = statics_[static_index].mapping;
  return {.position = static_index + 1,
          .key = {mapping.transport, mapping.external, std::nullopt},
          .internal = mapping.internal,
          .enabled = true,
          .description = clean_description(mapping.description, policy_.description_octets),
          .remaining_s = 0,
          .via = Via::config};
}

std::optional<Entry> LeaseService::Impl::entry_at(std::size_t index, TimePoint now) const {
  if (index < static_entries_) return entry_of(index);
  const Index lease = table_.entries.at(index - static_entries_);
  if (lease == nothing) return std::nullopt;
  return entry_of(lease, now);
}

std::optional<Entry> LeaseService::Impl::entry_after(std::uint64_t position, TimePoint now) const {
  if (position < static_entries_) return entry_of(static_cast<std::size_t>(position));
  const Index lease = table_.entries.after(position);
  if (lease == nothing) return std::nullopt;
  return entry_of(lease, now);
}

std::vector<Entry> LeaseService::Impl::entries_on(Transport transport, Port external, TimePoint now) const {
  std::vector<Entry> found;
  for (const auto& entry : statics_)
    if (!entry.is_pinhole() && entry.mapping.transport == transport && entry.mapping.external == external)
      found.push_back(entry_of(static_cast<std::size_t>(&entry - statics_.data())));
  for (const std::uint16_t address : pool_indexes_) {
    const Index mapping = table_.find_external(transport, address, external);
    for (Index i = mapping == nothing ? nothing : table_.mappings[mapping].first_lease; i != nothing;
         i = table_.leases[i].next_on_mapping)
      if (table_.leases[i].entry != 0) found.push_back(entry_of(i, now));
  }
  return found;
}

std::optional<Entry> LeaseService::Impl::find_entry(const EntryKey& key, const Address& requester,
                                                    TimePoint now) const {
  if (!key.remote)
    if (const auto* entry = static_at(key.transport, requester, key.external))
      return entry_of(static_cast<std::size_t>(entry - statics_.data()));
  const Index lease = table_.find_entry(at_external(key.transport, requester, key.external), key.remote);
  if (lease == nothing) return std::nullopt;
  return entry_of(lease, now);
}

void LeaseService::Impl::grant_entry(EntryRequest request, TimePoint now, EntryDone done, bool from_queue) {
  expire(now);
  const Transport transport = request.key.transport;
  const Address& device = request.internal.address;
  const EndpointKey key{transport, device, request.internal.port.number()};
  const auto no = [&](MappingErrc reason, std::uint32_t retry_s = permanent_refusal_s) {
    refuse(done, Refusal{reason, retry_s}, now);
  };
  if (!judge_target(request.requester, device, false)) return no(MappingErrc::not_authorized);
  if (!policy_.upnp_internal_ports.contains(request.internal.port)) return no(MappingErrc::not_authorized);
  const bool port_wanted = !request.any || request.port_given;
  const bool port_allowed =
      port_wanted && may_have(policy_, device, transport, request.key.external);
  if (!request.any && !port_allowed) return no(MappingErrc::not_authorized);

  // Where it goes: the mapping at the external port, if it is this device's, or the endpoint's own.
  Index mapping = port_allowed ? at_external(transport, device, request.key.external) : nothing;
  const bool foreign = mapping != nothing && table_.mappings[mapping].internal_address != device;
  const Index own = table_.find_mapping(transport, request.internal);
  Index ending = table_.is_ending(own) ? own : nothing;
  if (ending == nothing && mapping != nothing && !foreign && table_.mappings[mapping].endings > 0)
    ending = mapping;
  if (ending != nothing || (!from_queue && in_waiting(key))) {
    if (held_ >= most_open) return no(MappingErrc::no_memory, transient_refusal_s);
    EndpointKey behind = key;
    if (ending != nothing) behind.port = table_.mappings[ending].internal_port;
    return hold(behind, WaitingEntry{std::move(request), std::move(done)});
  }
  if (is_blocked(key)) return no(MappingErrc::device_blocked);
  if (network_.external.empty()) return no(MappingErrc::no_external_address, transient_refusal_s);

  const auto& remote = request.key.remote;
  if (!request.any) {
    if (foreign) {
      const auto left = seconds_until(effective_deadline(table_.mappings[mapping]), now);
      return no(MappingErrc::insisted_port_taken, std::max(1u, left));
    }
    if (static_at(transport, device, request.key.external)) return no(MappingErrc::insisted_port_forbidden);
  } else {
    if (mapping != nothing && (foreign || table_.mappings[mapping].internal() != request.internal))
      mapping = nothing;
    if (mapping == nothing && own != nothing) {
      // an endpoint that another protocol opened keeps its port (POL-OWN-04); one of ours may have several
      const bool ours = table_.find_on(own, Via::upnp) != nothing;
      if (!ours || !request.port_given) mapping = own;
      // Asked again for a port it did not get the first time, it gets what it got then (POL-OWN-07).
      if (ours && request.port_given &&
          (!port_allowed || foreign || plane_.held_until(transport, device, request.key.external, now)))
        for (Index on = own; on != nothing && mapping == nothing; on = table_.mappings[on].next_on_endpoint)
          if (table_.find_upnp(on, request.key.remote) != nothing) mapping = on;
    }
  }
  Index lease = table_.find_upnp(mapping, remote);
  if (mapping != nothing && table_.mappings[mapping].internal() != request.internal) {
    // the same port for another internal port: only when nothing else stands on it
    const Index first = table_.mappings[mapping].first_lease;
    if (lease == nothing || first != lease || table_.leases[first].next_on_mapping != nothing)
      return no(MappingErrc::insisted_port_taken, transient_refusal_s);
  }
  if (const auto refusal = cannot_write()) return refuse(done, *refusal, now);

  GrantRequest grant{.via = Via::upnp, .transport = transport, .requester = request.requester,
                     .internal = request.internal};
  if (port_allowed) grant.suggested_port = request.key.external;
  grant.insist = !request.any;
  if (remote) grant.filters.push_back({Prefix{*remote, 128}, std::nullopt});
  grant.description = std::move(request.description);
  grant.contact = request.contact;
  const Extras extras{request.enabled, request.lifetime_s == 0 && policy_.upnp_permanent};
  const std::uint32_t lifetime_s =
      request.lifetime_s == 0 ? policy_.upnp_max : std::min(request.lifetime_s, policy_.upnp_max);
  GrantDone granted = [this, done = std::move(done)](const Outcome<Granted>& outcome, TimePoint then) {
    if (!outcome) return done(outcome.error(), then);
    done(entry_of(table_.find_number(outcome->lease), then), then);
  };
  if (lease != nothing) return renew(grant, extras, lease, lifetime_s, now, granted);
  grant_new(grant, extras, mapping, lifetime_s, now, granted);
}

void LeaseService::Impl::release_entry(const EntryKey& key, const Address& requester, TimePoint now,
                                       EntryReleaseDone done, bool from_queue) {
  expire(now);
  const auto no = [&](MappingErrc reason, std::uint32_t retry_s = permanent_refusal_s) {
    done(Refusal{reason, retry_s}, now);
  };
  if (!key.remote && static_at(key.transport, requester, key.external))
    return no(MappingErrc::not_owned_here);
  const Index mapping = at_external(key.transport, requester, key.external);
  if (mapping == nothing) return no(MappingErrc::not_found);
  const auto& on = table_.mappings[mapping];
  const EndpointKey endpoint{on.transport, on.internal_address, on.internal_port};
  const Index listed = table_.find_entry(mapping, key.remote);
  const Index lease = table_.find_upnp(mapping, key.remote);
  if (listed == nothing && lease == nothing) return no(MappingErrc::not_found);
  if (on.internal_address != requester) return no(MappingErrc::not_authorized);
  if (lease == nothing) return no(MappingErrc::not_owned_here);
  if (table_.is_ending(mapping) || (!from_queue && in_waiting(endpoint))) {
    if (held_ >= most_open) return no(MappingErrc::no_memory, transient_refusal_s);
    return hold(endpoint, WaitingEntryRelease{key, requester, std::move(done)});
  }
  if (!writable()) return no(MappingErrc::store_unavailable, transient_refusal_s);
  if (ops_.size() >= most_open) return no(MappingErrc::no_memory, transient_refusal_s);
  push_release(lease, now, std::move(done));
}

void LeaseService::Impl::release_entries(Transport transport, PortRange external, const Address& requester,
                                         TimePoint now, EntryReleaseDone done) {
  expire(now);
  auto batch = std::make_shared<Batch>();
  const Index device = table_.find_device(requester);
  bool ending_already = false;
  for (Index i = device == nothing ? nothing : table_.devices[device].first_lease; i != nothing;
       i = table_.leases[i].device_after) {
    const auto& lease = table_.leases[i];
    const auto& on = table_.mappings[lease.mapping];
    if (lease.via != Via::upnp || on.transport != transport || !external.contains(*Port::from(on.external_port)))
      continue;
    if (lease.ending)
      ending_already = true;
    else
      batch->todo.push_back(lease.number);
  }
  if (batch->todo.empty() && !ending_already) {
    const auto here = external_address(requester);
    bool any = std::ranges::any_of(statics_, [&](const StaticEntry& entry) {
      return !entry.is_pinhole() && entry.mapping.transport == transport &&
             external.contains(entry.mapping.external) &&
             share_address(entry.mapping.internal.address, requester);
    });
    for (std::uint32_t port = std::max<std::uint16_t>(external.first, 1); !any && port <= external.last; ++port) {
      const Index mapping =
          here ? table_.find_external(transport, table_.find_address(*here), *Port::from(port))
               : at_external(transport, requester, *Port::from(port));
      for (Index i = mapping == nothing ? nothing : table_.mappings[mapping].first_lease; i != nothing && !any;
           i = table_.leases[i].next_on_mapping)
        any = table_.leases[i].entry != 0;
    }
    return done(Refusal{any ? MappingErrc::not_authorized : MappingErrc::not_found, permanent_refusal_s}, now);
  }
  if (!batch->todo.empty() && !writable())
    return done(Refusal{MappingErrc::store_unavailable, transient_refusal_s}, now);
  run_release(batch, ending_already, std::move(done), now);
}

// ----------------------------------------------------------------------------------------------------
// pinholes, as UPnP names them

Pinhole LeaseService::Impl::pinhole_of(Index index, TimePoint now) const {
  const auto& lease = table_.leases[index];
  const auto& mapping = table_.mappings[lease.mapping];
  Pinhole pinhole{.id = lease.pinhole,
                  .transport = mapping.transport,
                  .internal = mapping.internal(),
                  .remote = {},
                  .remaining_s = std::max(1u, seconds_until(lease.deadline, now)),
                  .counters = {},
                  .forwards = mapping.installed && is_lawful_target(network_, mapping.internal_address)};
  if (lease.remotes) pinhole.remote = lease.remotes->front();
  if (mapping.installed)
    if (auto counters = plane_.counters(mapping.plane)) pinhole.counters = *counters;
  return pinhole;
}

Pinhole LeaseService::Impl::pinhole_of(const StaticEntry& entry) const {
  Pinhole pinhole{.id = entry.pinhole,
                  .transport = entry.mapping.transport,
                  .internal = entry.mapping.internal,
                  .remote = {},
                  .remaining_s = 0,
                  .counters = {},
                  .forwards = entry.installed && is_lawful_target(network_, entry.mapping.internal.address)};
  if (entry.installed)
    if (auto counters = plane_.counters(entry.installed->id)) pinhole.counters = *counters;
  return pinhole;
}

const StaticEntry* LeaseService::Impl::static_pinhole(std::uint16_t id) const {
  const auto entry = std::ranges::find(statics_, id, &StaticEntry::pinhole);
  return id == 0 || entry == statics_.end() ? nullptr : &*entry;
}

void LeaseService::Impl::grant_pinhole(PinholeRequest request, TimePoint now, PinholeDone done,
                                       bool from_queue) {
  expire(now);
  const auto& host = request.internal.address;
  const EndpointKey key{request.transport, host, request.internal.port.number()};
  const auto no = [&](MappingErrc reason, std::uint32_t retry_s = permanent_refusal_s) {
    refuse(done, Refusal{reason, retry_s}, now);
  };
  if (!policy_.ipv6) return no(MappingErrc::no_pinholes);
  // over IPv4 a device may name an address of its own that the request could not come from
  const bool own =
      request.requester.is_v4() ? is_one_device(request.requester, host) : request.requester == host;
  if (host.is_v4() || !own || !is_lawful_target(network_, host)) return no(MappingErrc::not_authorized);
  if (!policy_.upnp_internal_ports.contains(request.internal.port) ||
      !may_have(policy_, host, request.transport, request.internal.port))
    return no(MappingErrc::not_authorized);
  const Index mapping = table_.find_mapping(request.transport, request.internal);
  if (table_.is_ending(mapping) || (!from_queue && in_waiting(key))) {
    if (held_ >= most_open) return no(MappingErrc::no_memory, transient_refusal_s);
    return hold(key, WaitingPinhole{std::move(request), std::move(done)});
  }
  if (is_blocked(key)) return no(MappingErrc::device_blocked);
  if (static_for(request.transport, request.internal) != nullptr) {  // in force for good
    auto& entry = *std::ranges::find_if(statics_, [&](const StaticEntry& each) {
      return each.mapping.transport == request.transport && each.mapping.internal == request.internal;
    });
    if (entry.pinhole == 0)
      entry.pinhole = table_.name_pinhole(nothing, static_cast<std::uint16_t>(entry.number % 65535 + 1));
    if (entry.pinhole == 0) return no(MappingErrc::no_ports_left, transient_refusal_s);
    return done(pinhole_of(entry), now);
  }
  if (const auto refusal = cannot_write()) return refuse(done, *refusal, now);
  const Index lease = table_.find_remote(mapping, request.remote);
  GrantRequest grant{.via = Via::upnp,
                     .transport = request.transport,
                     .requester = request.requester,
                     .internal = request.internal};
  if (request.remote) grant.filters.push_back(*request.remote);
  grant.contact = request.contact;
  const auto lifetime_s = std::min(request.lifetime_s, policy_.upnp_max);
  GrantDone granted = [this, done = std::move(done)](const Outcome<Granted>& outcome, TimePoint then) {
    if (!outcome) return done(outcome.error(), then);
    done(pinhole_of(table_.find_number(outcome->lease), then), then);
  };
  if (lease != nothing) return renew(grant, {}, lease, lifetime_s, now, granted);
  grant_new(grant, {}, mapping, lifetime_s, now, granted);
}

void LeaseService::Impl::renew_pinhole(std::uint16_t id, const Address& requester, std::uint32_t lifetime_s,
                                       TimePoint now, PinholeDone done, bool from_queue) {
  expire(now);
  const auto no = [&](MappingErrc reason, std::uint32_t retry_s = permanent_refusal_s) {
    refuse(done, Refusal{reason, retry_s}, now);
  };
  if (!policy_.ipv6) return no(MappingErrc::no_pinholes);
  if (static_pinhole(id) != nullptr) return no(MappingErrc::not_owned_here);
  const Index lease = table_.find_pinhole(id);
  if (lease == nothing) return no(MappingErrc::not_found);
  const auto& on = table_.mappings[table_.leases[lease].mapping];
  const EndpointKey key{on.transport, on.internal_address, on.internal_port};
  if (!is_one_device(requester, on.internal_address)) return no(MappingErrc::not_authorized);
  if (table_.is_ending(table_.leases[lease].mapping) || (!from_queue && in_waiting(key))) {
    if (held_ >= most_open) return no(MappingErrc::no_memory, transient_refusal_s);
    return hold(key, WaitingPinholeRenewal{id, requester, lifetime_s, std::move(done)});
  }
  if (is_blocked(key)) return no(MappingErrc::device_blocked);
  if (!is_lawful_target(network_, on.internal_address) ||
      !may_have(policy_, on.internal_address, on.transport, *Port::from(on.internal_port)))
    return no(MappingErrc::not_authorized);
  if (const auto refusal = cannot_write()) return refuse(done, *refusal, now);
  GrantRequest grant{
      .via = Via::upnp, .transport = on.transport, .requester = requester, .internal = on.internal()};
  grant.contact = contact_of(table_.leases[lease]);
  GrantDone renewed = [this, done = std::move(done)](const Outcome<Granted>& outcome, TimePoint then) {
    if (!outcome) return done(outcome.error(), then);
    done(pinhole_of(table_.find_number(outcome->lease), then), then);
  };
  renew(grant, {}, lease, std::min(lifetime_s, policy_.upnp_max), now, renewed);
}

void LeaseService::Impl::release_pinhole(std::uint16_t id, const Address& requester, TimePoint now,
                                         PinholeReleaseDone done, bool from_queue) {
  expire(now);
  const auto no = [&](MappingErrc reason, std::uint32_t retry_s = permanent_refusal_s) {
    done(Refusal{reason, retry_s}, now);
  };
  if (static_pinhole(id) != nullptr) return no(MappingErrc::not_owned_here);
  const Index lease = table_.find_pinhole(id);
  if (lease == nothing) return no(MappingErrc::not_found);
  const auto& on = table_.mappings[table_.leases[lease].mapping];
  const EndpointKey key{on.transport, on.internal_address, on.internal_port};
  if (!is_one_device(requester, on.internal_address)) return no(MappingErrc::not_authorized);
  if (table_.is_ending(table_.leases[lease].mapping) || (!from_queue && in_waiting(key))) {
    if (held_ >= most_open) return no(MappingErrc::no_memory, transient_refusal_s);
    return hold(key, WaitingPinholeRelease{id, requester, std::move(done)});
  }
  if (!writable()) return no(MappingErrc::store_unavailable, transient_refusal_s);
  if (ops_.size() >= most_open) return no(MappingErrc::no_memory, transient_refusal_s);
  push_release(lease, now, std::move(done));
}

Outcome<Pinhole> LeaseService::Impl::find_pinhole(std::uint16_t id, const Address& requester,
                                                  TimePoint now) const {
  const auto* entry = static_pinhole(id);
  const Index lease = entry != nullptr ? nothing : table_.find_pinhole(id);
  if (entry == nullptr &&
      (lease == nothing || table_.leases[lease].fresh || table_.leases[lease].deadline <= now))
    return Refusal{MappingErrc::not_found, permanent_refusal_s};
  auto pinhole = entry != nullptr ? pinhole_of(*entry) : pinhole_of(lease, now);
  if (!is_one_device(requester, pinhole.internal.address))
    return Refusal{MappingErrc::not_authorized, permanent_refusal_s};
  return pinhole;
}

/// The other leases of a set become as their head is, and what is in force as the leases are.
void LeaseService::Impl::apply(Index head, TimePoint now) {
  each_of(head, [&](Index index) {
    auto& lease = table_.leases[index];
    if (index != head) {
      const auto& first = table_.leases[head];
      lease.deadline = first.deadline;
      lease.asked = first.asked;
      lease.lifetime_s = first.lifetime_s;
      lease.renewals = first.renewals;
      lease.provisional_deadline = first.provisional_deadline;
      set_contact(lease, contact_of(first));
      lease.description.set(first.description.view());
      lease.remotes = first.remotes ? std::make_unique<std::vector<RemoteFilter>>(*first.remotes) : nullptr;
    }
    bring_in_force(lease.mapping, now);
  });
}

/// Has a lease, or the set it is the head of, removed with the next commit.
void LeaseService::Impl::push_release(Index lease, TimePoint now, ReleaseDone done) {
  mark_ending(lease);
  forget(table_.leases[lease].number);
  ops_.push_back({.ticket = last_ticket_,
                  .kind = Op::Kind::remove,
                  .lease = lease,
                  .number = table_.leases[lease].number,
                  .ports = table_.leases[lease].set_size,
                  .asked = now,
                  .release_done = std::move(done)});
}

/// Both take the head of a set.
void LeaseService::Impl::mark_ending(Index head) {
  table_.unschedule(head);
  each_of(head, [&](Index index) {
    auto& lease = table_.leases[index];
    lease.ending = true;
    ++table_.mappings[lease.mapping].endings;
  });
}

void LeaseService::Impl::unmark_ending(Index head) {
  if (!table_.leases[head].ending) return;
  each_of(head, [&](Index index) {
    auto& lease = table_.leases[index];
    lease.ending = false;
    auto& mapping = table_.mappings[lease.mapping];
    if (--mapping.endings == 0)
      ready_.push_back({mapping.transport, mapping.internal_address, mapping.internal_port});
  });
  table_.schedule(head);
}

void LeaseService::Impl::run_batches(TimePoint now) {
  std::size_t budget = slice;
  while (!batches_.empty() && budget > 0 && ops_.size() < most_open) {
    const auto batch = batches_.front();
    while (!batch->todo.empty() && budget > 0) {
      const auto number = batch->todo.back();
      batch->todo.pop_back();
      --budget;
      const Index lease = table_.find_number(number);
      if (lease == nothing) {  // a static mapping took its port meanwhile
        batch->result.revoked.push_back(public_id(number));
        continue;
      }
      forget(number);
      ++batch->open;
      ops_.push_back({.ticket = last_ticket_,
                      .kind = Op::Kind::remove,
                      .lease = lease,
                      .number = number,
                      .ports = table_.leases[lease].set_size,
                      .reason = batch->reason,
                      .asked = now,
                      .batch = batch});
    }
    if (!batch->todo.empty()) break;
    batches_.erase(batches_.begin());
    if (batch->open == 0) finish_batch(batch, now);
  }
}

void LeaseService::Impl::finish_batch(const std::shared_ptr<Batch>& batch, TimePoint now) {
  if (batch->release_done) {
    auto done = std::move(batch->release_done);
    batch->release_done = nullptr;
    if (batch->failed)
      done(Refusal{MappingErrc::store_unavailable, transient_refusal_s}, now);
    else if (batch->other_left)
      done(Refusal{MappingErrc::not_owned_here, permanent_refusal_s}, now);
    else
      done({}, now);
  }
  if (batch->revoke_done) {
    auto done = std::move(batch->revoke_done);
    batch->revoke_done = nullptr;
    done(batch->result, now);
  }
}

/// Runs what waited for a deletion that is now over, in order, until one of them starts the next deletion.
void LeaseService::Impl::run_waiting(TimePoint now) {
  if (running_waiting_) return;
  running_waiting_ = true;
  while (!ready_.empty()) {
    const EndpointKey key = ready_.back();
    ready_.pop_back();
    for (;;) {
      const auto found = waiting_.find(key);
      if (found == waiting_.end()) break;
      const Index mapping = table_.find_mapping(key.transport, {key.address, *Port::from(key.port)});
      if (table_.is_ending(mapping)) break;
      Waiting next = std::move(found->second.front());
      found->second.pop_front();
      --held_;
      // the queue stays, perhaps empty, until its last one has run: what comes meanwhile lines up behind it
      if (auto* waiting_grant = std::get_if<WaitingGrant>(&next))
        grant(std::move(waiting_grant->request), now, std::move(waiting_grant->done), true);
      else if (auto* waiting_release = std::get_if<WaitingRelease>(&next))
        release(std::move(waiting_release->request), now, std::move(waiting_release->done), true);
      else if (auto* all = std::get_if<WaitingReleaseAll>(&next))
        release_all(std::move(all->request), now, std::move(all->done), true);
      else if (auto* entry = std::get_if<WaitingEntry>(&next))
        grant_entry(std::move(entry->request), now, std::move(entry->done), true);
      else if (auto* end = std::get_if<WaitingEntryRelease>(&next))
        release_entry(end->key, end->requester, now, std::move(end->done), true);
      else if (auto* pinhole = std::get_if<WaitingPinhole>(&next))
        grant_pinhole(std::move(pinhole->request), now, std::move(pinhole->done), true);
      else if (auto* renewal = std::get_if<WaitingPinholeRenewal>(&next))
        renew_pinhole(renewal->id, renewal->requester, renewal->lifetime_s, now, std::move(renewal->done),
                      true);
      else if (auto* closing = std::get_if<WaitingPinholeRelease>(&next))
        release_pinhole(closing->id, closing->requester, now, std::move(closing->done), true);
      if (const auto rest = waiting_.find(key); rest != waiting_.end() && rest->second.empty())
        waiting_.erase(rest);
    }
  }
  running_waiting_ = false;
}

// ----------------------------------------------------------------------------------------------------
// endings

void LeaseService::Impl::expire(TimePoint now) {
  for (Index due = table_.next_due(); due != nothing && table_.leases[due].deadline <= now;
       due = table_.next_due()) {
    if (table_.leases[due].open_ops > 0) {
      table_.unschedule(due);  // its commit will settle what becomes of it
      continue;
    }
    expired_ += table_.leases[due].set_size;
    end_now(due, LeaseEventReason::expired, ending_of(table_.leases[due]), now);
  }
}

/// Ends a lease whose end nobody waits for, with the set that it is of: the store follows.
void LeaseService::Impl::end_now(Index any, LeaseEventReason reason, nat::Ending how, TimePoint now) {
  const Index head = table_.head_of(any);
  const auto number = table_.leases[head].number;
  std::vector<LeaseEvent> events;
  if (!listeners_.empty())
    each_of(head, [&](Index index) {
      events.push_back(LeaseEvent{LeaseEventKind::ended, reason, view(index, true)});
    });
  unmark_ending(head);
  each_of(head, [&](Index index) {
    const auto mapping = table_.leases[index].mapping;
    table_.remove_lease(index);
    after_lease_left(mapping, how, now);
  });
  provisional_.erase(number);
  forget(number);
  for (const auto& event : events) tell(event, now);
}

/// Gives leases to the device that they turn out to be of. What is blocked there was opened before that was
/// known.
void LeaseService::Impl::look_for_strangers(TimePoint now) {
  for (std::size_t budget = slice; budget > 0 && !strangers_.empty() && strangers_.front().due <= now;
       --budget) {
    const auto stranger = strangers_.front();
    strangers_.pop_front();
    const Index device = table_.find_device(stranger.address);
    if (device == nothing) continue;
    const auto owner = owner_of(stranger.address);
    if (owner == stranger.address) {
      if (stranger.left > 1) strangers_.push_back({owner, now + seconds{1}, stranger.left - 1});
      continue;
    }
    std::vector<Index> blocked;
    for (Index i = table_.devices[device].first_lease; i != nothing; i = table_.leases[i].device_after) {
      const auto& on = table_.mappings[table_.leases[i].mapping];
      if (table_.leases[i].open_ops == 0 && is_blocked({on.transport, on.internal_address, on.internal_port}))
        blocked.push_back(i);
    }
    table_.merge_devices(device, owner);
    for (const Index lease : blocked) end_now(lease, LeaseEventReason::revoked, nat::Ending::reset, now);
  }
}

void LeaseService::Impl::handle_timeout(TimePoint now) {
  expire(now);
  look_for_strangers(now);
  run_batches(now);
  if (store_failure_ && !healing_ && now >= retry_at_) heal(now);
  if (now >= wall_check_at_) check_wall_clock(now);
  if (announce_at_ != nothing) {
    std::size_t budget = slice;
    while (announce_at_ < table_.leases.end() && budget > 0) {
      const Index lease = announce_at_++;
      if (table_.leases[lease].number == 0 || table_.leases[lease].fresh ||
          !table_.mappings[table_.leases[lease].mapping].moved)
        continue;
      --budget;
      tell(LeaseEventKind::changed, LeaseEventReason::address_changed, lease, now);
    }
    if (announce_at_ >= table_.leases.end()) {
      announce_at_ = nothing;
      for (Index i = 0; i < table_.mappings.end(); ++i) table_.mappings[i].moved = false;
    }
  }
  if (rewrite_at_ != nothing && ops_.size() < most_open) {
    std::size_t budget = slice;
    while (rewrite_at_ < table_.leases.end() && budget > 0) {
      const Index lease = rewrite_at_++;
      if (table_.leases[lease].number == 0 || table_.leases[lease].ending) continue;
      if (table_.leases[lease].set_place != 0) continue;  // its head stands for it
      --budget;
      write(lease);
    }
    if (rewrite_at_ >= table_.leases.end()) rewrite_at_ = nothing;
  }
  run_waiting(now);
}

std::optional<TimePoint> LeaseService::Impl::next_deadline() const {
  if (!batches_.empty() || announce_at_ != nothing || rewrite_at_ != nothing) return TimePoint{};  // at once
  auto next = wall_check_at_;
  if (const auto due = table_.next_deadline()) next = std::min(next, *due);
  if (!strangers_.empty()) next = std::min(next, strangers_.front().due);
  return std::min(next, retry_at_);
}

// ------------------------------------------------------------------------------------------- start, policy,
// network

void LeaseService::Impl::start(const LeasePolicy& policy, const nat::NetworkView& network, TimePoint now) {
  policy_ = policy;
  network_ = network;
  wall_offset_ = clock_.wall().time_since_epoch() - now.time_since_epoch();
  auto content = store_.load();
  for (auto& warning : content.warnings) warnings_.push_back(warning);
  if (content.read_only) {
    store_failure_ = *content.read_only;
    retry_at_ = now + retry_after_;
  }
  restore(std::move(content), now);
  wall_check_at_ = now + seconds{10};
  wall_note_at_ = now + std::chrono::minutes{10};
}

void LeaseService::Impl::restore(StoreContent content, TimePoint now) {
  const auto meta = [&](std::string_view key) -> std::optional<std::string> {
    const auto it = content.meta.find(key);
    if (it == content.meta.end()) return std::nullopt;
    return it->second;
  };
  const auto next_stored = to_number(meta(meta_next_number));
  next_number_ = next_stored ? static_cast<std::uint64_t>(*next_stored) : 1;
  // without the counter, numbers that were given and are gone cannot be known: leave room for them
  const bool counter_lost = !next_stored && (content.lost || !content.leases.empty());
  for (const auto& record : content.leases)
    next_number_ = std::max(next_number_, record.number + record.ports);
  for (const auto& block : content.blocks) next_number_ = std::max(next_number_, block.lease + 1);
  if (counter_lost) next_number_ += 100000;
  numbers_until_ = next_number_;

  // The wall clock counts after a boot once it shows no less than the newest time that was ever written.
  const auto wall = clock_.wall();
  WallTime newest{};
  if (const auto noted = to_number(meta(meta_wall))) newest = WallTime{seconds{*noted}};
  for (const auto& record : content.leases)
    if (record.lifetime_s)
      newest = std::max(newest, record.deadline_wall - seconds{*record.lifetime_s} - seconds{2});
  const bool plausible = wall >= newest;
  if (!plausible) not_before_ = newest;

  // The epoch goes on unless something was lost; see below for the address.
  const auto boot = to_number(meta(meta_boot));
  const auto epoch_boot = to_number(meta(meta_epoch_boot));
  const auto epoch_wall = to_number(meta(meta_epoch_wall));
  const bool same_boot = boot && *boot == static_cast<std::int64_t>(store_.boot());
  bool fresh = content.lost || !epoch_boot || !epoch_wall;
  const auto origin = [&](std::int64_t boot_ns, std::int64_t wall_s) {
    const auto then = same_boot ? TimePoint{std::chrono::nanoseconds{boot_ns}}
                                : now - (std::max(wall, newest) - WallTime{seconds{wall_s}});
    return std::min(then, now);
  };
  epoch_ = fresh ? now : origin(*epoch_boot, *epoch_wall);
  ipv6_epoch_ = epoch_;
  if (const auto of_boot = to_number(meta(meta_ipv6_epoch_boot)),
      of_wall = to_number(meta(meta_ipv6_epoch_wall));
      !fresh && of_boot && of_wall)
    ipv6_epoch_ = origin(*of_boot, *of_wall);

  for (auto& block : content.blocks)
    if (!block.until || !plausible || wall < *block.until) {
      const EndpointKey key{block.transport, block.device, block.internal_port};
      blocks_.insert_or_assign(key, std::move(block));
    } else {
      if (writable())
        last_ticket_ = store_.erase_block(block.lease);
      else
        dirty_blocks_.insert(block.lease);
    }

  install_statics(now);

  if (const auto text = meta(meta_external)) {
    std::istringstream words{*text};
    for (std::string word; words >> word;)
      if (const auto address = Address::parse(word)) pool_.push_back(*address);
  }
  const bool pooled = network_.pool().size() > 1 || pool_.size() > 1;
  const bool damaged = content.lost;
  std::vector<Index> restored;
  bool rewrite = false;
  for (auto& record : content.leases) {
    TimePoint deadline = TimePoint::max();
    bool provisional = false;
    if (record.lifetime_s) {
      if (record.boot == store_.boot()) {
        deadline = record.deadline;
      } else {
        rewrite = true;
        provisional = !plausible;
        auto left = record.deadline_wall - std::max(wall, newest);
        left = std::min<seconds>(left, seconds{*record.lifetime_s});
        deadline = now + left;
      }
      if (deadline <= now) {
        forget(record.number);
        continue;
      }
    }
    const auto internal_port = Port::from(record.internal_port),
               external_port = Port::from(record.external_port);
    const InternalEndpoint internal{record.internal_address, *internal_port};
    if (const auto* entry = static_for(record.transport, internal);
        entry && entry->mapping.external == *external_port) {
      forget(record.number);  // configured meanwhile just as it was: nobody loses anything
      continue;
    }
    const bool lawful = is_lawful_target(network_, record.internal_address, damaged && !network_.lan.empty());
    const bool pinhole = !internal.address.is_v4();
    const auto remote = record.remotes.size() == 1 ? std::optional{record.remotes.front().prefix.address}
                                                   : std::nullopt;
    const auto only = record.remotes.empty() ? std::nullopt : std::optional{record.remotes.front()};
    bool clash = false, allowed = true;
    for (std::uint16_t place = 0; place < record.ports && !clash && allowed; ++place) {
      const Port port = *Port::from(record.external_port + std::uint32_t{place});
      const InternalEndpoint behind{internal.address,
                                    *Port::from(record.internal_port + std::uint32_t{place})};
      const Index on_endpoint = table_.find_mapping(record.transport, behind);
      Index mapping = pinhole ? on_endpoint : at_external(record.transport, internal.address, port);
      // Of two that had it on different addresses before: install_elsewhere().
      if (pooled && mapping != nothing && table_.mappings[mapping].internal() != behind) mapping = nothing;
      clash =
          table_.find_number(record.number + place) != nothing ||
          (mapping != nothing && table_.mappings[mapping].internal() != behind) ||
          (pinhole && (behind.port != port || static_for(record.transport, behind) != nullptr)) ||
          (record.via == Via::upnp
               ? (pinhole ? table_.find_remote(mapping, only) : table_.find_upnp(mapping, remote)) != nothing
           : record.outbound ? !only || table_.find_peer(on_endpoint, *only) != nothing
                             : table_.find_on(on_endpoint, record.via) != nothing);
      allowed = !damaged || may_have(policy_, record.internal_address, record.transport, port);
    }
    if (!lawful || clash || !allowed) {
      forget(record.number);
      warnings_.push_back(
          "the lease " + public_id(record.number) + " of " + record.internal_address.to_string() +
          " was not put back: " + (clash ? "it contradicts another one" : "policy forbids it"));
      fresh = true;
      continue;
    }
    for (std::uint16_t place = 0; place < record.ports; ++place)
      put_back(record, place, deadline, provisional, restored);
  }
  content.leases.clear();
  content.leases.shrink_to_fit();

  // all leases of a mapping are known now, so each is put in force once, with the right deadline
  for (const Index mapping : restored) {
    if (table_.mappings[mapping].internal_port == 0) continue;  // its set was lost with another port of it
    if (install_again(mapping, now) || (pooled && install_elsewhere(mapping, now))) continue;
    fresh = true;
    while (table_.mappings[mapping].first_lease != nothing) {
      const Index lease = table_.mappings[mapping].first_lease;
      const bool last = table_.leases[lease].next_on_mapping == nothing;
      warnings_.push_back("the lease " + public_id(table_.leases[lease].number) + " of " +
                          table_.mappings[mapping].internal_address.to_string() + " lost its " +
                          (table_.mappings[mapping].is_pinhole() ? "open port " : "external port ") +
                          std::to_string(table_.mappings[mapping].external_port));
      end_now(lease, LeaseEventReason::lost, nat::Ending::reset, now);
      if (last) break;
    }
  }
  if (rewrite) rewrite_at_ = 0;

  if (fresh) {
    epoch_ = ipv6_epoch_ = now;
    tell_epoch_reset(now, true);
  }
  address_is_now(now, true);
  if (fresh || !same_boot) write_epoch();
}

/// A stored lease, or one of a stored set. Puts mappings that are not in force yet into `restored`.
void LeaseService::Impl::put_back(const LeaseRecord& record, std::uint16_t place, TimePoint deadline,
                                  bool provisional, std::vector<Index>& restored) {
  const InternalEndpoint internal{record.internal_address,
                                  *Port::from(record.internal_port + std::uint32_t{place})};
  const Port external = *Port::from(record.external_port + std::uint32_t{place});
  const bool pinhole = !internal.address.is_v4();
  Index mapping = pinhole ? table_.find_mapping(record.transport, internal)
                          : at_external(record.transport, internal.address, external);
  if (mapping == nothing || table_.mappings[mapping].internal() != internal)
    mapping = table_.add_mapping(record.transport, internal, external,
                                 pinhole ? std::uint16_t{0} : address_of(internal.address));
  const Index index = table_.add_lease(record.number + place, mapping, owner_of(internal.address));
  auto& lease = table_.leases[index];
  lease.via = record.via;
  if (pinhole && record.via == Via::upnp) table_.name_pinhole(index, record.pinhole);
  lease.set_size = record.ports;
  lease.set_place = place;
  lease.deadline = deadline;
  lease.permanent = !record.lifetime_s;
  lease.lifetime_s = record.lifetime_s.value_or(0);
  lease.created = static_cast<std::uint32_t>(record.created.time_since_epoch().count());
  lease.renewals = record.renewals;
  lease.enabled = record.enabled;
  lease.outbound = record.outbound;
  lease.fresh = false;
  if (record.nonce) lease.has_nonce = true, lease.nonce = *record.nonce;
  set_contact(lease, record.contact);
  lease.description.set(record.description);
  if (!record.remotes.empty()) lease.remotes = std::make_unique<std::vector<RemoteFilter>>(record.remotes);
  lease.provisional_deadline = provisional;
  if (place == 0) {
    if (provisional) provisional_.emplace(record.number, record.deadline_wall);
    table_.schedule(index);
  }
  table_.enlist(index);
  if (table_.mappings[mapping].first_lease == index && lease.next_on_mapping == nothing)
    restored.push_back(mapping);
}

void LeaseService::Impl::reset_epoch(TimePoint now) {
  epoch_ = now;
  write_epoch();
  tell_epoch_reset(now, false);
}

void LeaseService::Impl::tell_epoch_reset(TimePoint now, bool ipv6_too) {
  const auto listeners = listeners_;
  for (auto* listener : listeners) {
    listener->on_epoch_reset(now);
    if (ipv6_too) listener->on_ipv6_epoch_reset(now);
  }
}

/// Gives a mapping another port of its device's external address, where another one has its port. False:
/// there is none, or it is part of a set, which has its ports in a row.
bool LeaseService::Impl::install_elsewhere(Index index, TimePoint now) {
  auto& mapping = table_.mappings[index];
  for (Index i = mapping.first_lease; i != nothing; i = table_.leases[i].next_on_mapping)
    if (table_.leases[i].set_size > 1) return false;
  auto spec = restore_spec(mapping);
  spec.insist = spec.restore = false;
  spec.suggested.reset();
  const auto ranges = permitted_ranges(mapping.internal_address, mapping.transport);
  if (ranges.empty()) return false;
  for (const auto& range : ordinary_ranges(ranges)) {
    spec.allowed = range;
    const auto installed = plane_.install(spec, now);
    if (!installed) continue;
    mapping.installed = true;
    mapping.enabled = spec.enabled;
    mapping.plane = installed->id;
    mapping.filtered = !spec.remotes.empty();
    table_.set_external(index, table_.intern(installed->external.address), installed->external.port.number());
    for (Index i = mapping.first_lease; i != nothing; i = table_.leases[i].next_on_mapping) write(i);
    return true;
  }
  return false;
}

/// Ends all that is leased on a mapping that cannot be put in force.
void LeaseService::Impl::lose(Index mapping, TimePoint now) {
  while (table_.mappings[mapping].first_lease != nothing) {
    const Index lease = table_.mappings[mapping].first_lease;
    const bool last = table_.leases[lease].next_on_mapping == nothing;
    end_now(lease, LeaseEventReason::lost, nat::Ending::reset, now);
    if (last) break;
  }
}

void LeaseService::Impl::address_is_now(TimePoint now, bool at_start) {
  const auto in_use = network_.pool();
  const auto front = [](const auto& pool) {
    return pool.empty() ? std::nullopt : std::optional{pool.front()};
  };
  const auto before = external_known_ ? front(pool_) : std::nullopt;
  // whoever has another address now, it is a set of others that made it so
  const bool others = !std::ranges::is_permutation(pool_, in_use);
  const bool moved = others && !pool_.empty() && !in_use.empty();
  if (!in_use.empty()) {
    if (others) {
      pool_.assign(in_use.begin(), in_use.end());
      note(meta_external, pool_text());
    } else {
      pool_.assign(in_use.begin(), in_use.end());
    }
    pool_indexes_.clear();
    for (const auto& address : pool_) pool_indexes_.push_back(table_.intern(address));
    // mappings whose device has another address are there now; the plane has moved those whose port was free
    std::vector<Index> lost;
    for (Index i = 0; i < table_.mappings.end(); ++i) {
      auto& mapping = table_.mappings[i];
      if (mapping.internal_port == 0 || mapping.is_pinhole()) continue;
      const auto here = address_of(mapping.internal_address);
      if (!mapping.installed) install_again(i, now);
      mapping.moved |= moved && (at_start || mapping.external_address != here);
      if (mapping.external_address == here) continue;
      table_.set_external(i, here, mapping.external_port);
      if (!mapping.installed || plane_.renew(mapping.plane, effective_deadline(mapping))) continue;
      plane_.withdraw(mapping.plane, nat::Ending::vacate, now);
      mapping.installed = false;
      if (!install_again(i, now) && !install_elsewhere(i, now)) lost.push_back(i);
    }
    for (const Index mapping : lost)
      if (table_.mappings[mapping].internal_port != 0) lose(mapping, now);
    if (moved) {
      reset_epoch(now);
      announce_at_ = 0;
    }
  } else if (!pool_.empty() && at_start) {
    const auto last = table_.intern(pool_.front());
    pool_indexes_ = {last};
    for (Index i = 0; i < table_.mappings.end(); ++i)
      if (const auto& mapping = table_.mappings[i]; mapping.internal_port != 0)
        table_.set_external(i, last, mapping.external_port);
  }
  external_known_ = !in_use.empty();
  if (before != front(in_use) || moved || at_start) {
    const auto address = front(in_use);
    const auto listeners = listeners_;
    for (auto* listener : listeners) listener->on_external_address(address, now);
  }
}

void LeaseService::Impl::set_network(const nat::NetworkView& network, TimePoint now) {
  network_ = network;
  install_statics(now);
  for (Index i = 0; i < table_.mappings.end(); ++i)
    if (const auto& mapping = table_.mappings[i];
        mapping.internal_port != 0 && mapping.is_pinhole() && !mapping.installed)
      install_again(i, now);
  address_is_now(now, false);
}

void LeaseService::Impl::install_statics(TimePoint now) {
  for (auto& entry : statics_)  // gone from the configuration, or other now
    if (std::ranges::none_of(policy_.statics, [&](const StaticMapping& wanted) {
          return entry.is_at(wanted) && wanted.internal == entry.mapping.internal;
        })) {
      if (entry.pinhole != 0) table_.unname_pinhole(entry.pinhole);
      if (entry.installed) plane_.withdraw(entry.installed->id, nat::Ending::reset, now);
      tell(LeaseEvent{LeaseEventKind::ended, LeaseEventReason::configured, view(entry, false)}, now);
      entry.number = 0;
    }
  std::erase_if(statics_, [](const StaticEntry& entry) { return entry.number == 0; });
  for (const auto& wanted : policy_.statics) {
    auto entry = std::ranges::find_if(statics_, [&](const StaticEntry& have) { return have.is_at(wanted); });
    const bool added = entry == statics_.end();
    if (added) {
      const auto stored = store_.get_meta(static_key(wanted));
      const auto space = stored ? stored->find(' ') : std::string::npos;
      const auto number = stored ? to_number(stored->substr(0, space)) : std::nullopt;
      const auto since = space != std::string::npos ? to_number(stored->substr(space + 1)) : std::nullopt;
      statics_.push_back({wanted, number ? static_cast<std::uint64_t>(*number) : next_number(), std::nullopt,
                          since ? WallTime{seconds{*since}} : clock_.wall()});
      if (!number || !since) note(static_key(wanted), static_text(statics_.back()));
      entry = statics_.end() - 1;
    }
    entry->mapping = wanted;
    if (entry->installed) continue;
    // a lease that holds the port has to go
    if (const Index held = !added ? nothing
                           : entry->is_pinhole()
                               ? table_.find_mapping(wanted.transport, wanted.internal)
                               : at_external(wanted.transport, wanted.internal.address, wanted.external);
        held != nothing)
      for (Index lease = table_.mappings[held].first_lease; lease != nothing;) {
        const Index next = table_.leases[lease].next_on_mapping;
        end_now(lease, LeaseEventReason::replaced, nat::Ending::reset, now);
        lease = next;
      }
    nat::MappingSpec spec{.transport = wanted.transport, .internal = wanted.internal};
    spec.suggested = wanted.external;
    spec.insist = true;
    spec.restore = true;
    spec.is_static = true;
    spec.allowed = {1, 65535};
    const bool leased = table_.find_mapping(wanted.transport, wanted.internal) != nothing;
    spec.second_port = leased || std::ranges::any_of(statics_, [&](const StaticEntry& other) {
                         return &other != &*entry && other.installed &&
                                other.mapping.transport == wanted.transport &&
                                other.mapping.internal == wanted.internal;
                       });
    if (const auto installed = plane_.install(spec, now)) {
      entry->installed = *installed;
      tell(LeaseEvent{LeaseEventKind::granted, LeaseEventReason::configured, view(*entry, false)}, now);
    }
  }
  const auto rest =
      std::ranges::stable_partition(statics_, [](const StaticEntry& entry) { return !entry.is_pinhole(); });
  static_entries_ = statics_.size() - rest.size();
}

void LeaseService::Impl::set_policy(const LeasePolicy& policy, TimePoint now) {
  policy_ = policy;
  install_statics(now);
  run_waiting(now);
}

void LeaseService::Impl::check_wall_clock(TimePoint now) {
  wall_check_at_ = now + seconds{10};
  const auto wall = clock_.wall();
  const auto offset = wall.time_since_epoch() - now.time_since_epoch();
  if (not_before_ && wall >= *not_before_) {
    // The clock is right at last: what was restored with its full remaining time gets its true deadline.
    not_before_.reset();
    wall_offset_ = offset;
    const auto waiting = std::move(provisional_);
    provisional_.clear();
    for (const auto& [number, deadline] : waiting) {
      const Index index = table_.find_number(number);
      if (index == nothing || !table_.leases[index].provisional_deadline) continue;
      auto& lease = table_.leases[index];
      lease.provisional_deadline = false;
      lease.deadline = std::min(lease.deadline, now + (deadline - wall));
      if (lease.ending) continue;
      table_.schedule(index);
      if (lease.deadline > now) apply(index, now);
    }
    rewrite_at_ = 0;
    write_epoch();
    expire(now);
  } else if (offset - wall_offset_ > seconds{5} || wall_offset_ - offset > seconds{5}) {
    // Stepped: deadlines stay, but what is stored for the next boot must follow.
    wall_offset_ = offset;
    if (!not_before_) {
      rewrite_at_ = 0;
      write_epoch();
    }
  }
  if (now >= wall_note_at_) {
    wall_note_at_ = now + std::chrono::minutes{10};
    if (!not_before_) note(meta_wall, std::to_string(wall.time_since_epoch().count()));
  }
  if (!not_before_)
    for (auto it = blocks_.begin(); it != blocks_.end();) {
      if (!it->second.until || wall < *it->second.until) {
        ++it;
        continue;
      }
      if (writable())
        last_ticket_ = store_.erase_block(it->second.lease);
      else
        dirty_blocks_.insert(it->second.lease);
      blocks_.erase(it++);
    }
}

void LeaseService::Impl::shut_down() {
  if (!writable() || last_ticket_ == 0) return;
  note(meta_next_number, std::to_string(next_number_));
  if (!not_before_) note(meta_wall, std::to_string(clock_.wall().time_since_epoch().count()));
}

// ----------------------------------------------------------------------------------------------------------
// admin

namespace {

bool fits(const LeaseFilter& filter, const LeaseView& view) {
  if (filter.device) {
    const auto address = Address::parse(*filter.device);
    if (!address || *address != view.internal.address) return false;
  }
  return (!filter.transport || *filter.transport == view.transport) &&
         (!filter.ipv6 || *filter.ipv6 != view.internal.address.is_v4()) &&
         (!filter.kind || *filter.kind == view.kind) &&
         (!filter.via || (view.kind != LeaseKind::implicit && *filter.via == view.via)) &&
         (!filter.state || *filter.state == view.state) &&
         (!filter.external || filter.external->contains(view.external.port)) &&
         (!filter.internal || filter.internal->contains(view.internal.port));
}

void sort(std::vector<LeaseView>& views) {
  std::ranges::sort(views, [](const LeaseView& a, const LeaseView& b) {
    return std::tie(a.internal.address, a.external.port, a.transport, a.number) <
           std::tie(b.internal.address, b.external.port, b.transport, b.number);
  });
}

}  // namespace

std::vector<LeaseView> LeaseService::Impl::list(const LeaseFilter& filter, TimePoint now) const {
  std::vector<LeaseView> views;
  for (const auto& entry : statics_)
    if (auto shown = view(entry, true); fits(filter, shown)) views.push_back(std::move(shown));
  for (Index i = 0; i < table_.leases.end(); ++i) {
    const auto& lease = table_.leases[i];
    if (lease.number == 0 || lease.fresh || (!lease.permanent && lease.deadline <= now)) continue;
    if (auto shown = view(i, false); fits(filter, shown)) {
      const auto& mapping = table_.mappings[lease.mapping];
      if (mapping.installed)
        if (auto counters = plane_.counters(mapping.plane)) shown.counters = *counters;
      views.push_back(std::move(shown));
    }
  }
  sort(views);
  return views;
}

std::vector<LeaseView> LeaseService::Impl::list_implicit(const LeaseFilter& filter, TimePoint now) const {
  std::vector<LeaseView> views;
  for (const auto& implicit : plane_.implicit_mappings(now)) {
    LeaseView shown{.number = 0,
                    .id = {},
                    .state = LeaseState::active,
                    .kind = LeaseKind::implicit,
                    .via = Via::config,
                    .transport = implicit.transport,
                    .internal = implicit.internal,
                    .external = implicit.external,
                    .remotes = {},
                    .description = {},
                    .lifetime_s = {},
                    .deadline = implicit.deadline,
                    .created = {},
                    .renewals = 0,
                    .counters = {},
                    .nonce = {},
                    .contact = {}};
    if (fits(filter, shown)) views.push_back(std::move(shown));
  }
  sort(views);
  return views;
}

std::vector<std::uint64_t> LeaseService::Impl::list_numbers(const LeaseFilter& filter, TimePoint now) const {
  struct Key {
    Address device;
    Port external;
    Transport transport;
    std::uint64_t number;
    auto operator<=>(const Key&) const = default;
  };
  std::vector<Key> keys;
  for (const auto& entry : statics_)
    if (const auto shown = view(entry, false); fits(filter, shown))
      keys.push_back({shown.internal.address, shown.external.port, shown.transport, shown.number});
  const bool all = !filter.device && !filter.transport && !filter.ipv6 && !filter.via && !filter.kind &&
                   !filter.state && !filter.external && !filter.internal;
  if (all) keys.reserve(keys.size() + table_.size());
  for (Index i = 0; i < table_.leases.end(); ++i) {
    const auto& lease = table_.leases[i];
    if (lease.number == 0 || lease.fresh || (!lease.permanent && lease.deadline <= now)) continue;
    if (!all && !fits(filter, view(i, false))) continue;
    const auto& mapping = table_.mappings[lease.mapping];
    keys.push_back(
        {mapping.internal_address, *Port::from(mapping.external_port), mapping.transport, lease.number});
  }
  std::ranges::sort(keys);
  std::vector<std::uint64_t> numbers;
  numbers.reserve(keys.size());
  for (const auto& key : keys) numbers.push_back(key.number);
  return numbers;
}

std::vector<LeaseView> LeaseService::Impl::views(std::span<const std::uint64_t> leases, TimePoint now) const {
  std::vector<LeaseView> views;
  views.reserve(leases.size());
  for (const auto number : leases) {
    if (const Index index = table_.find_number(number); index != nothing) {
      const auto& lease = table_.leases[index];
      if (!lease.fresh && (lease.permanent || lease.deadline > now)) views.push_back(view(index, true));
    } else if (const auto entry = std::ranges::find(statics_, number, &StaticEntry::number);
               entry != statics_.end()) {
      views.push_back(view(*entry, true));
    }
  }
  return views;
}

std::array<std::uint64_t, 6> LeaseService::Impl::count_by_via() const {
  std::array<std::uint64_t, 6> counts{};
  counts[static_cast<std::size_t>(Via::config)] = statics_.size();
  for (Index i = 0; i < table_.leases.end(); ++i)
    if (const auto& lease = table_.leases[i]; lease.number != 0 && !lease.fresh)
      ++counts[static_cast<std::size_t>(lease.via)];
  return counts;
}

std::vector<LeaseView> LeaseService::Impl::find(std::string_view prefix, TimePoint now) const {
  std::vector<LeaseView> views;
  if (prefix.empty()) return views;
  const auto shown = [&](Index i) {
    const auto& lease = table_.leases[i];
    return lease.number != 0 && !lease.fresh && (lease.permanent || lease.deadline > now);
  };
  // a whole id names one lease, also when it is the beginning of a longer id
  if (const auto number = number_of(prefix)) {
    if (const Index lease = table_.find_number(*number); lease != nothing && shown(lease))
      return {view(lease, true)};
    for (const auto& entry : statics_)
      if (entry.number == *number) return {view(entry, true)};
  }
  for (const auto& entry : statics_)
    if (public_id(entry.number).starts_with(prefix)) views.push_back(view(entry, true));
  for (Index i = 0; i < table_.leases.end(); ++i)
    if (shown(i) && public_id(table_.leases[i].number).starts_with(prefix)) views.push_back(view(i, true));
  sort(views);
  return views;
}

void LeaseService::Impl::revoke(std::span<const std::uint64_t> leases, std::optional<BlockFor> block,
                                TimePoint now, RevokeDone done) {
  expire(now);
  auto batch = std::make_shared<Batch>();
  batch->reason = LeaseEventReason::revoked;
  batch->revoke_done = std::move(done);
  bool waits = false;
  std::vector<std::uint64_t> numbers{leases.begin(), leases.end()};
  std::unordered_set<std::uint64_t> seen;
  std::unordered_set<Address> quiet;
  std::unordered_set<std::uint64_t> covered;  // by the block of another address of the device
  std::unordered_set<std::uint64_t> sets, marked;  ///< met, and marked by this call
  for (std::size_t i = 0; i < numbers.size(); ++i) {
    const auto number = numbers[i];
    if (!seen.insert(number).second) continue;
    const Index index = table_.find_number(number);
    if (index == nothing || table_.leases[index].fresh) {
      const auto entry = std::ranges::find(statics_, number, &StaticEntry::number);
      batch->result.failed.emplace_back(public_id(number),
                                        entry == statics_.end()
                                            ? "no such lease"
                                            : "it comes from the configuration: " + entry->mapping.where);
      continue;
    }
    if (!writable()) {
      batch->result.failed.emplace_back(public_id(number), "the store cannot be written: " + *store_failure_);
      continue;
    }
    auto& lease = table_.leases[index];
    auto& mapping = table_.mappings[lease.mapping];
    const Index head = table_.head_of(index);
    const auto set = table_.leases[head].number;
    // a set ends as a whole, whichever of its ports is meant
    if (lease.set_size > 1 && sets.insert(set).second)
      for (std::uint16_t place = 0; place < lease.set_size; ++place) numbers.push_back(set + place);
    if (block) {
      const EndpointKey key{mapping.transport, mapping.internal_address, mapping.internal_port};
      BlockRecord record{number,
                         mapping.internal_address,
                         mapping.transport,
                         mapping.internal_port,
                         std::nullopt,
                         std::string{lease.description.view()},
                         {}};
      if (const auto owner = owner_of(mapping.internal_address); owner != mapping.internal_address)
        record.owner = owner;
      if (block->time) record.until = clock_.wall() + *block->time;
      Op op{.ticket = 0, .kind = Op::Kind::block, .lease = nothing, .number = number, .asked = now};
      const auto old = blocks_.find(key);
      const bool same_call =
          old != blocks_.end() && seen.contains(old->second.lease) && old->second.lease != number;
      if (!same_call && !covered.contains(number)) {
        if (old != blocks_.end()) {
          op.blocks.push_back(old->second);
          if (old->second.lease != number) last_ticket_ = store_.erase_block(old->second.lease);
        }
        blocks_.insert_or_assign(key, record);
        last_ticket_ = store_.put_block(std::move(record));
        op.ticket = last_ticket_;
        ops_.push_back(std::move(op));
        // each time looks at every port, and once ends all there is of the device
        if (quiet.insert(mapping.internal_address).second) plane_.end_flows(mapping.internal_address, now);
      }
      // the door is shut only when every protocol's lease on it is gone, by whichever external port
      for (Index on = table_.find_mapping(mapping.transport, mapping.internal()); on != nothing;
           on = table_.mappings[on].next_on_endpoint)
        for (Index other = table_.mappings[on].first_lease; other != nothing;
             other = table_.leases[other].next_on_mapping)
          if (!seen.contains(table_.leases[other].number)) numbers.push_back(table_.leases[other].number);
      if (mapping.is_pinhole())  // and by whichever address of the device
        for (Index other = table_.devices[mapping.device].first_lease; other != nothing;
             other = table_.leases[other].device_after) {
          const auto& on = table_.mappings[table_.leases[other].mapping];
          if (quiet.insert(on.internal_address).second) plane_.end_flows(on.internal_address, now);
          if (on.is_pinhole() && on.transport == mapping.transport &&
              on.internal_port == mapping.internal_port && !seen.contains(table_.leases[other].number)) {
            numbers.push_back(table_.leases[other].number);
            if (on.internal_address != mapping.internal_address) covered.insert(table_.leases[other].number);
          }
        }
    }
    if (marked.contains(set)) continue;
    if (lease.ending) {
      batch->result.revoked.push_back(public_id(number));
      waits = true;
      continue;
    }
    mark_ending(head);
    batch->todo.push_back(set);
    marked.insert(set);
  }
  if (waits) {
    ++batch->open;
    ops_.push_back({.ticket = last_ticket_, .kind = Op::Kind::wait, .asked = now, .batch = batch});
  }
  if (batch->todo.empty() && batch->open == 0) return finish_batch(batch, now);
  std::ranges::reverse(batch->todo);
  batches_.push_back(batch);
  run_batches(now);
}

std::vector<Block> LeaseService::Impl::blocks() const {
  std::vector<Block> all;
  const auto wall = clock_.wall();
  for (const auto& [key, record] : blocks_) {
    if (record.until && wall >= *record.until) continue;
    all.push_back({record.device, record.transport, *Port::from(record.internal_port), record.until,
                   record.lease, public_id(record.lease), record.description});
  }
  std::ranges::sort(all, [](const Block& a, const Block& b) {
    return std::tie(a.device, a.internal_port, a.transport) <
           std::tie(b.device, b.internal_port, b.transport);
  });
  return all;
}

void LeaseService::Impl::unblock(std::span<const std::uint64_t> leases, TimePoint now,
                                 std::function<void(std::size_t, TimePoint)> done) {
  if (!writable()) return done(0, now);
  Op op{.ticket = 0, .kind = Op::Kind::unblock, .lease = nothing, .number = 0, .asked = now};
  for (const auto number : leases) {
    const auto block =
        std::ranges::find_if(blocks_, [&](const auto& entry) { return entry.second.lease == number; });
    if (block == blocks_.end()) continue;
    op.blocks.push_back(block->second);
    blocks_.erase(block);
    last_ticket_ = store_.erase_block(number);
  }
  if (op.blocks.empty()) return done(0, now);
  op.ticket = last_ticket_;
  op.unblock_done = std::move(done);
  ops_.push_back(std::move(op));
}

ServiceStatus LeaseService::Impl::status() const {
  ServiceStatus status;
  status.leases = table_.size();
  status.mappings = table_.mapping_count() + statics_.size();
  status.statics = statics_.size();
  status.blocks = blocks_.size();
  status.granted = granted_;
  status.renewed = renewed_;
  status.released = released_;
  status.expired = expired_;
  status.revoked = revoked_;
  status.refused = refused_;
  status.store_state = store_failure_ ? "read-only: " + *store_failure_ : "ok";
  status.warnings = warnings_;
  if (store_failure_)
    status.warnings.push_back("the store cannot be written (" + *store_failure_ + "): " +
                              (policy_.grant_without_store
                                   ? "leases granted now are lost by a restart"
                                   : "new leases, renewals and deletions are refused"));
  for (const auto& entry : statics_)
    if (!entry.installed && (entry.is_pinhole() || !network_.external.empty()))
      status.warnings.push_back(
          "the static mapping of " + std::string{to_string(entry.mapping.transport)} + " port " +
          std::to_string(entry.mapping.external.number()) + " (" + entry.mapping.where +
          ") is not in force: the port is used by the gateway itself or by another mapping");
  return status;
}

// ------------------------------------------------------------------------------------------------------- the
// seam

LeaseService::LeaseService(Dependencies dependencies) : impl_{std::make_unique<Impl>(dependencies)} {}
LeaseService::~LeaseService() { impl_->shut_down(); }

void LeaseService::start(const LeasePolicy& policy, const nat::NetworkView& network, TimePoint now) {
  impl_->start(policy, network, now);
}
void LeaseService::set_policy(const LeasePolicy& policy, TimePoint now) { impl_->set_policy(policy, now); }
void LeaseService::set_network(const nat::NetworkView& network, TimePoint now) {
  impl_->set_network(network, now);
}
void LeaseService::commit_results(TimePoint now) { impl_->commit_results(now); }
void LeaseService::handle_timeout(TimePoint now) { impl_->handle_timeout(now); }
std::optional<TimePoint> LeaseService::next_deadline() const { return impl_->next_deadline(); }

void LeaseService::grant(GrantRequest request, TimePoint now, GrantDone done) {
  impl_->grant(std::move(request), now, std::move(done), false);
}
void LeaseService::release(ReleaseRequest request, TimePoint now, ReleaseDone done) {
  impl_->release(std::move(request), now, std::move(done), false);
}
void LeaseService::release_all(ReleaseAllRequest request, TimePoint now, ReleaseDone done) {
  impl_->release_all(std::move(request), now, std::move(done), false);
}
void LeaseService::grant_entry(EntryRequest request, TimePoint now, EntryDone done) {
  impl_->grant_entry(std::move(request), now, std::move(done), false);
}
void LeaseService::release_entry(const EntryKey& key, const Address& requester, TimePoint now,
                                 EntryReleaseDone done) {
  impl_->release_entry(key, requester, now, std::move(done), false);
}
void LeaseService::release_entries(Transport transport, PortRange external, const Address& requester,
                                   TimePoint now, EntryReleaseDone done) {
  impl_->release_entries(transport, external, requester, now, std::move(done));
}
std::size_t LeaseService::entry_count() const { return impl_->entry_count(); }
std::optional<Entry> LeaseService::entry_at(std::size_t index, TimePoint now) const {
  return impl_->entry_at(index, now);
}
std::optional<Entry> LeaseService::entry_after(std::uint64_t position, TimePoint now) const {
  return impl_->entry_after(position, now);
}
std::vector<Entry> LeaseService::entries_on(Transport transport, Port external, TimePoint now) const {
  return impl_->entries_on(transport, external, now);
}
std::optional<Entry> LeaseService::find_entry(const EntryKey& key, const Address& requester,
                                              TimePoint now) const {
  return impl_->find_entry(key, requester, now);
}
Result<Address> LeaseService::external_address(const Address& device) const {
  return impl_->external_address(device);
}
std::uint32_t LeaseService::epoch_s(TimePoint now) const { return impl_->epoch_s(now); }
std::uint32_t LeaseService::ipv6_epoch_s(TimePoint now) const { return impl_->ipv6_epoch_s(now); }
PinholeService::Status LeaseService::pinhole_status() const { return impl_->pinhole_status(); }
void LeaseService::grant_pinhole(PinholeRequest request, TimePoint now, PinholeDone done) {
  impl_->grant_pinhole(std::move(request), now, std::move(done), false);
}
void LeaseService::renew_pinhole(std::uint16_t id, const Address& requester, std::uint32_t lifetime_s,
                                 TimePoint now, PinholeDone done) {
  impl_->renew_pinhole(id, requester, lifetime_s, now, std::move(done), false);
}
void LeaseService::release_pinhole(std::uint16_t id, const Address& requester, TimePoint now,
                                   PinholeReleaseDone done) {
  impl_->release_pinhole(id, requester, now, std::move(done), false);
}
Outcome<Pinhole> LeaseService::find_pinhole(std::uint16_t id, const Address& requester, TimePoint now) const {
  return impl_->find_pinhole(id, requester, now);
}
void LeaseService::add_listener(ServiceListener& listener) { impl_->listeners_.push_back(&listener); }
void LeaseService::remove_listener(ServiceListener& listener) { std::erase(impl_->listeners_, &listener); }

std::vector<LeaseView> LeaseService::list(const LeaseFilter& filter, TimePoint now) const {
  return impl_->list(filter, now);
}
std::vector<LeaseView> LeaseService::list_implicit(const LeaseFilter& filter, TimePoint now) const {
  return impl_->list_implicit(filter, now);
}
std::vector<std::uint64_t> LeaseService::list_numbers(const LeaseFilter& filter, TimePoint now) const {
  return impl_->list_numbers(filter, now);
}
std::vector<LeaseView> LeaseService::views(std::span<const std::uint64_t> leases, TimePoint now) const {
  return impl_->views(leases, now);
}
std::array<std::uint64_t, 6> LeaseService::count_by_via() const { return impl_->count_by_via(); }
std::vector<LeaseView> LeaseService::find(std::string_view id_prefix, TimePoint now) const {
  return impl_->find(id_prefix, now);
}
void LeaseService::revoke(std::span<const std::uint64_t> leases, std::optional<BlockFor> block, TimePoint now,
                          RevokeDone done) {
  impl_->revoke(leases, block, now, std::move(done));
}
std::vector<Block> LeaseService::blocks(TimePoint) const { return impl_->blocks(); }
void LeaseService::unblock(std::span<const std::uint64_t> leases, TimePoint now,
                           std::function<void(std::size_t, TimePoint)> done) {
  impl_->unblock(leases, now, std::move(done));
}
ServiceStatus LeaseService::status() const { return impl_->status(); }
std::optional<std::string> LeaseService::kept(std::string_view name) const { return impl_->kept(name); }
void LeaseService::keep(std::string_view name, std::string value) { impl_->keep(name, std::move(value)); }

}  // namespace sallyport::lease
