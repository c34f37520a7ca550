#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sallyport/values/mapping_service.hpp"

/// What the lease service asks of a store, whatever engine is behind it.
namespace sallyport::lease {

/// One lease as it is written down.
struct LeaseRecord {
  std::uint64_t number = 0;
  Via via = Via::pcp;
  Transport transport = Transport::udp;
  bool enabled = true;
  bool outbound = false;  ///< made by PCP PEER
  Address internal_address;
  std::uint16_t internal_port = 0;
  std::uint16_t external_port = 0;
  /// A set holds so many from both ports on, its leases are numbered from `number` on: one row, so it is
  /// there as a whole or not at all (PSET-4-06).
  std::uint16_t ports = 1;
  std::optional<Nonce> nonce;
  std::optional<std::uint32_t> lifetime_s;  ///< as last granted; empty: permanent
  std::uint32_t boot = 0;                   ///< tag of the boot that `deadline` counts in
  TimePoint deadline;                       ///< on the boot clock of that boot
  WallTime deadline_wall;                   ///< the same moment, for the next boot
  WallTime created;
  std::uint32_t renewals = 0;
  Contact contact;
  std::vector<RemoteFilter> remotes;
  std::string description;
  std::uint16_t pinhole = 0;  ///< what UPnP calls its IPv6 pinhole; 0: it has no such name
  friend bool operator==(const LeaseRecord&, const LeaseRecord&) = default;
};

/// A block as it is written down; `lease` is its key.
struct BlockRecord {
  std::uint64_t lease = 0;
  Address device;
  Transport transport = Transport::udp;
  std::uint16_t internal_port = 0;
  std::optional<WallTime> until;  ///< empty: forever
  std::string description;
  Address owner = {};  ///< what names the device where that is not its address; "::": nothing else does
  friend bool operator==(const BlockRecord&, const BlockRecord&) = default;
};

/// Everything a store holds, read once at the start.
struct StoreContent {
  std::vector<LeaseRecord> leases;  ///< by ascending number
  std::vector<BlockRecord> blocks;
  std::map<std::string, std::string, std::less<>> meta;
  /// Something that was once acknowledged may be missing.
  bool lost = false;
  /// Why nothing can be written now; empty: it can.
  std::optional<std::string> read_only;
  /// In words, for the log and `status`.
  std::vector<std::string> warnings;
};

/// Numbers the writes of one store, ascending.
using Ticket = std::uint64_t;

/// How far a store has come since it was last asked.
struct StoreProgress {
  Ticket committed = 0;  ///< every write up to this one is synced (except those of an earlier failure)
  /// Set when a commit failed: every write after `committed` that was queued before this answer is void.
  /// Writes queued from now on are tried afresh. After a crash a void write may be found all the same (its
  /// sync failed, not its write), unless its key was written again meanwhile.
  std::optional<std::string> failure;
  /// With a failure: the next successful write starts an empty store, so everything must be written again.
  bool rebuild = false;
  std::vector<std::string> warnings;
};

/// A durable home of leases. Called by one thread (the control thread) and never makes it wait, except load()
/// and the destructor. Writes take effect in the order they were queued; all that gathered while the last
/// commit ran are committed together. The notifier given to the implementation runs on a thread of the
/// store's when take_progress() has something new.
class Store {
 public:
  virtual ~Store() = default;

  /// Reads everything. Once, before any write.
  virtual StoreContent load() = 0;

  virtual Ticket put(LeaseRecord record) = 0;
  virtual Ticket erase(std::uint64_t lease) = 0;
  virtual Ticket put_block(BlockRecord record) = 0;
  virtual Ticket erase_block(std::uint64_t lease) = 0;
  /// A small value by name. What names mean is the caller's.
  virtual Ticket set_meta(std::string_view key, std::string_view value) = 0;
  /// As read by load() or set since, committed or not.
  virtual std::optional<std::string> get_meta(std::string_view key) const = 0;

  virtual StoreProgress take_progress() = 0;
  /// Names the boot the machine is in, for LeaseRecord::boot.
  virtual std::uint32_t boot() const = 0;
};

}  // namespace sallyport::lease
