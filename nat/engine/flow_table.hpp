#pragma once

#include <cstdint>

#include "nat/engine/pages.hpp"
#include "nat/engine/rules.h"
#include "nat/engine/siphash.hpp"

namespace sallyport::nat {

/// The two ends of a flow; ICMP queries have peer port 0.
struct FlowKey {
  std::uint8_t protocol = 0;
  std::uint16_t host_port = 0;
  std::uint32_t host = 0;
  std::uint32_t peer = 0;
  std::uint16_t peer_port = 0;

  std::uint64_t first() const noexcept {
    return std::uint64_t{protocol} << 48 | std::uint64_t{host_port} << 32 | host;
  }
  std::uint64_t second() const noexcept { return std::uint64_t{peer_port} << 32 | peer; }
};

/// The state of one 5-tuple: one cache line.
struct alignas(64) Flow {
  static constexpr std::uint32_t none = 0xffffffff;
  enum Flag : std::uint8_t {
    inbound = 1,       ///< the first packet came from outside
    answered = 2,      ///< the host has sent something on it; it counts for its limit
    confirmed = 4,     ///< TCP from outside: the peer took the host's answer, so its address is its own
    ended = 8,         ///< its lease ended with a reset: packets of either side are dropped
    of_explicit = 16,  ///< its mapping counts packets
    queued_new = 32,   ///< waits in the queue of the unanswered
    queued_half_open = 64,
    for_router = 128,  ///< the "host" is the gateway itself
  };

  std::uint32_t host, peer;
  std::uint16_t host_port, peer_port;
  std::uint16_t external_port;
  std::uint8_t protocol;  ///< 0: a free record, `slot_next` leads to the next one
  std::uint8_t flags;
  std::uint32_t deadline_s;
  std::uint32_t slot_deadline_s;  ///< the deadline it told its slot last
  std::uint32_t slot_next, slot_previous;
  std::uint32_t group_next, group_previous;
  std::uint32_t queue_next, queue_previous;
  rules::sp_tcp tcp;

  bool is(const FlowKey& key) const noexcept {
    return host == key.host && peer == key.peer && host_port == key.host_port && peer_port == key.peer_port &&
           protocol == key.protocol;
  }
  FlowKey key() const noexcept { return {protocol, host_port, host, peer, peer_port}; }
};
static_assert(sizeof(Flow) == 64);

/// Flows in one dense array, and an index of 8-byte entries (32 bits of the keyed hash, 32 of the record)
/// with linear probing. Flows of one endpoint with one peer address form a group with an entry of its own, so
/// address-dependent filtering is one look-up. Chains of slots and queues are the owner's.
class FlowTable {
 public:
  explicit FlowTable(const SipHash& hash);

  std::uint64_t hash_of(const FlowKey& key) const noexcept { return hash_(key.first(), key.second()); }

  Flow& operator[](std::uint32_t record) noexcept { return flows_[record]; }
  const Flow& operator[](std::uint32_t record) const noexcept { return flows_[record]; }
  std::uint32_t count() const noexcept { return count_; }
  std::uint32_t high_water() const noexcept { return high_water_; }

  std::uint32_t find(std::uint64_t hash, const FlowKey& key) const noexcept;
  /// Some flow of the endpoint with that peer address: the first of its group.
  std::uint32_t find_group(const FlowKey& key) const noexcept;
  /// Adds what is not there yet. Invalidates references. `none` without memory.
  std::uint32_t insert(std::uint64_t hash, const FlowKey& key);
  void erase(std::uint32_t record) noexcept;
  void clear() noexcept;

  // Looking ahead for a batch: none of these judges.
  void prefetch_index(std::uint64_t hash) const noexcept {
    __builtin_prefetch(&index_[static_cast<std::uint32_t>(hash) & mask_]);
  }
  /// The first record whose 32 bits of hash fit, or none.
  std::uint32_t candidate(std::uint64_t hash) const noexcept;
  void prefetch_record(std::uint32_t record) const noexcept {
    if (record != Flow::none) __builtin_prefetch(&flows_[record], 1);
  }

 private:
  // tag << 32 | group bit | record + 1; 0 is empty
  using Entry = std::uint64_t;
  static constexpr std::uint32_t group_bit = 0x80000000;

  static constexpr std::uint32_t tag_of(std::uint64_t hash) noexcept {
    return static_cast<std::uint32_t>(hash);
  }
  static constexpr std::uint32_t tag_of_entry(Entry entry) noexcept {
    return static_cast<std::uint32_t>(entry >> 32);
  }
  static constexpr std::uint32_t value_of(Entry entry) noexcept { return static_cast<std::uint32_t>(entry); }
  std::uint64_t group_hash(const FlowKey& key) const noexcept {
    return hash_(key.first() | std::uint64_t{1} << 63, key.peer);
  }
  std::uint32_t find_group(std::uint64_t hash, const FlowKey& key, std::uint32_t* at) const noexcept;

  bool add_entry(std::uint64_t hash, std::uint32_t value);
  std::uint32_t position_of(std::uint64_t hash, std::uint32_t value) const noexcept;
  void remove_entry(std::uint32_t position) noexcept;
  bool grow_index();

  SipHash hash_;
  Pages<Entry> index_;
  std::uint32_t mask_;
  std::uint32_t entries_ = 0;
  Pages<Flow> flows_;
  std::uint32_t high_water_ = 0;
  std::uint32_t free_ = Flow::none;
  std::uint32_t count_ = 0;
};

}  // namespace sallyport::nat
