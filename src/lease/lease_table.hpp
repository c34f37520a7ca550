#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include <boost/unordered/unordered_flat_map.hpp>
#include <boost/unordered/unordered_flat_set.hpp>

#include "nat/plane/data_plane.hpp"
#include "sallyport/values/mapping_service.hpp"
#include "src/lease/entry_order.hpp"

/// Leases, mappings and devices in memory, compactly: a lease with its mapping costs about 200 octets. No
/// policy, no store, no plane; the service drives it.
namespace sallyport::lease {

/// Elements that stay where they are and are named by small numbers.
template <class T>
class Slab {
 public:
  Index take() {
    if (!free_.empty()) {
      const Index index = free_.back();
      free_.pop_back();
      (*this)[index] = T{};
      return index;
    }
    if (size_ % chunk == 0) chunks_.push_back(std::make_unique<T[]>(chunk));
    return size_++;
  }
  void give_back(Index index) {
    (*this)[index] = T{};
    free_.push_back(index);
  }
  T& operator[](Index index) { return chunks_[index / chunk][index % chunk]; }
  const T& operator[](Index index) const { return chunks_[index / chunk][index % chunk]; }
  /// One above the highest index ever taken.
  Index end() const { return size_; }

 private:
  static constexpr Index chunk = 128;
  std::vector<std::unique_ptr<T[]>> chunks_;
  std::vector<Index> free_;
  Index size_ = 0;
};

/// SipHash-1-3 of short keys under a secret, so that no client can choose collisions (POL-NET-13).
class KeyedHash {
 public:
  explicit KeyedHash(std::uint64_t seed) noexcept;
  std::uint64_t operator()(std::uint64_t a, std::uint64_t b, std::uint64_t c) const noexcept;
  std::uint64_t operator()(const Address& address, std::uint64_t more) const noexcept;

 private:
  std::uint64_t k0_, k1_;
};

/// Text that costs one pointer when it is empty.
class SmallText {
 public:
  std::string_view view() const { return text_ ? std::string_view{*text_} : std::string_view{}; }
  void set(std::string_view text) {
    text_ = text.empty() ? nullptr : std::make_unique<const std::string>(text);
  }

 private:
  std::unique_ptr<const std::string> text_;
};

struct Lease {
  std::uint64_t number = 0;  ///< 0: this place is free
  TimePoint deadline = TimePoint::max();
  Nonce nonce{};
  std::uint32_t lifetime_s = 0;
  std::uint32_t created = 0;  ///< wall time, seconds
  std::uint32_t renewals = 0;
  Index mapping = nothing;
  Index heap_slot = nothing;  ///< not in the heap: permanent, ending or being committed past its deadline
  Index next_on_mapping = nothing;
  Index device_before = nothing, device_after = nothing;
  std::uint32_t contact_interface = 0;
  std::uint16_t contact_port = 0;
  std::uint16_t contact_gateway = 0;  ///< index of LeaseTable::addresses
  std::uint16_t contact_client = 0;   ///< 0: the device itself; else 1 + index of LeaseTable::addresses
  std::uint16_t open_ops = 0;         ///< writes of it that are not yet committed
  std::uint16_t pinhole = 0;          ///< what UPnP calls its pinhole (UniqueID); 0: it has no such name
  Via via = Via::pcp;
  bool has_nonce : 1 = false;
  bool permanent : 1 = false;
  bool enabled : 1 = true;
  bool outbound : 1 = false;              ///< made by PCP PEER; `remotes` are its peers
  bool ending : 1 = false;                ///< its deletion waits for the commit
  bool fresh : 1 = true;                  ///< not yet committed, so not yet shown
  bool provisional_deadline : 1 = false;  ///< the wall clock was not plausible when it was restored
  bool dirty : 1 = false;                 ///< the store holds something else
  /// A set of ports is as many leases with numbers in a row, equal but for mapping, number and entry. The
  /// first, its head, alone is scheduled, written and counted in `open_ops`.
  std::uint16_t set_size = 1;
  std::uint16_t set_place = 0;  ///< 0: the head, or no set
  std::uint64_t entry = 0;  ///< its place in LeaseTable::entries; 0: not listed, or another lease stands for it
  SmallText description;
  std::unique_ptr<std::vector<RemoteFilter>> remotes;  ///< empty pointer: everybody
  TimePoint asked;                                     ///< when the latest grant or renewal was asked for
};

struct Mapping {
  Address internal_address;
  nat::MappingId plane{};
  Index first_lease = nothing;
  Index device = nothing;
  Index next_on_endpoint = nothing;  ///< further external ports of the same internal endpoint (UPnP)
  std::uint16_t internal_port = 0;  ///< 0: this place is free
  std::uint16_t external_port = 0;
  std::uint16_t external_address = 0;  ///< index of LeaseTable::addresses; IPv4 only
  Transport transport = Transport::udp;
  bool installed : 1 = false;
  bool filtered : 1 = false;  ///< remote filters are in force in the plane
  bool enabled : 1 = true;    ///< the plane forwards
  bool moved : 1 = false;     ///< its external address is another one, and not all were told
  std::uint16_t endings = 0;  ///< deletions that wait for their commit

  InternalEndpoint internal() const { return {internal_address, *Port::from(internal_port)}; }
  /// A hole in the IPv6 firewall: outside it is what it is inside, and other addresses have the same port.
  bool is_pinhole() const { return !internal_address.is_v4(); }
};

struct Device {
  Address address;  ///< IPv6: device_key() of its MAC, once that is known
  std::uint32_t leases = 0;
  Index first_lease = nothing;
};

/// Names what has this MAC (48 bits), where an address would name a device of IPv4. No host has such an
/// address.
Address device_key(std::uint64_t mac) noexcept;

/// The one remote host a lease is limited to, as UPnP would say it; empty: any, or more than RemoteHost can say.
std::optional<Address> remote_host_of(const Lease& lease);

class LeaseTable {
 public:
  explicit LeaseTable(std::uint64_t seed);

  Slab<Lease> leases;
  Slab<Mapping> mappings;
  Slab<Device> devices;
  /// Addresses that many leases share (gateways, external addresses), by index. Few and never dropped.
  std::vector<Address> addresses;

  std::size_t size() const { return by_number_.size(); }
  std::size_t mapping_count() const { return by_external_.size() + pinholes_; }

  /// The first mapping of this endpoint; others follow by Mapping::next_on_endpoint, oldest first.
  Index find_mapping(Transport transport, const InternalEndpoint& internal) const;
  /// IPv4 only; `address` is an index of `addresses`.
  Index find_external(Transport transport, std::uint16_t address, Port external) const;
  /// The lease that `via` made on this mapping or one that follows it on the endpoint.
  Index find_on(Index mapping, Via via) const;
  /// What PEER keeps for the endpoint and this remote peer.
  Index find_peer(Index mapping, const RemoteFilter& peer) const;
  /// The lease of UPnP on this very mapping for this remote host.
  Index find_upnp(Index mapping, const std::optional<Address>& remote) const;
  /// The lease of UPnP on this pinhole for this remote.
  Index find_remote(Index mapping, const std::optional<RemoteFilter>& remote) const;
  /// The lease that UPnP calls by this number.
  Index find_pinhole(std::uint16_t pinhole) const;
  /// A deletion on this mapping or one that follows it on the endpoint waits for its commit.
  bool is_ending(Index mapping) const;
  Index find_number(std::uint64_t number) const;
  /// The first lease of the set that this one is of; itself where it is of none.
  Index head_of(Index lease) const {
    return leases[lease].set_place == 0 ? lease : find_number(leases[lease].number - leases[lease].set_place);
  }
  /// A lease of the set of this head.
  Index member(Index head, std::uint16_t place) const {
    return place == 0 ? head : find_number(leases[head].number + place);
  }
  Index find_device(const Address& address) const;

  Index add_mapping(Transport transport, const InternalEndpoint& internal, Port external,
                    std::uint16_t address);
  void remove_mapping(Index mapping);
  /// Another external address (index of `addresses`) and port.
  void set_external(Index mapping, std::uint16_t address, std::uint16_t port);
  /// The same external port for another internal port of the same device.
  void move_mapping(Index mapping, Port internal);
  /// The caller fills the rest; the number and the mapping are given. Not yet in the heap. `owner` names the
  /// device that it counts for; a mapping that has leases keeps the device it has.
  Index add_lease(std::uint64_t number, Index mapping, const Address& owner);
  /// All leases of one device are another's from now on: both were one all the time.
  void merge_devices(Index from, const Address& owner);
  /// Names a pinhole: by `wanted`, or when that is 0 or taken by another number, not soon one that was given
  /// up. `nothing` stands for what is no lease. 0 when all are taken.
  std::uint16_t name_pinhole(Index lease, std::uint16_t wanted = 0);
  void unname_pinhole(std::uint16_t pinhole) { by_pinhole_.erase(pinhole); }
  bool may_name_pinhole() const { return by_pinhole_.size() < 65535; }
  ExternalEndpoint external_of(const Mapping& mapping) const {
    return {mapping.is_pinhole() ? mapping.internal_address : addresses[mapping.external_address],
            *Port::from(mapping.external_port)};
  }
  /// Takes it off its mapping (which stays, perhaps empty), its device and the heap.
  void remove_lease(Index lease);

  /// Entries as UPnP lists them: each (remote host, external port, transport) once. A lease of UPnP stands for
  /// those of other protocols with the same key.
  EntryOrder entries;
  void enlist(Index lease);
  void delist(Index lease);
  /// The lease that stands for this entry.
  Index find_entry(Index mapping, const std::optional<Address>& remote) const;

  /// Index of an address in `addresses`, added when it is new. 0 when there are too many.
  std::uint16_t intern(const Address& address);
  std::uint16_t find_address(const Address& address) const;  ///< 0: it is not among them

  // Deadlines: a heap that knows where each lease is, so it never holds more than the leases.
  void schedule(Index lease);  ///< by its deadline; moves it when it is already in; permanent ones stay out
  void unschedule(Index lease);
  Index next_due() const { return heap_.empty() ? nothing : heap_.front().lease; }
  std::optional<TimePoint> next_deadline() const;

 private:
  struct Entry {
    TimePoint deadline;
    Index lease;
  };
  struct MappingKey {
    Transport transport;
    const InternalEndpoint& internal;
  };
  struct ByEndpoint {
    using is_transparent = void;
    const LeaseTable* table;
    std::size_t operator()(Index mapping) const;
    std::size_t operator()(const MappingKey& key) const;
    bool operator()(Index a, Index b) const { return a == b; }
    bool operator()(const MappingKey& key, Index mapping) const;
    bool operator()(Index mapping, const MappingKey& key) const { return (*this)(key, mapping); }
  };
  struct ExternalKey {
    Transport transport;
    std::uint16_t address;
    Port external;
  };
  struct ByExternal {
    using is_transparent = void;
    const LeaseTable* table;
    std::size_t operator()(Index mapping) const;
    std::size_t operator()(const ExternalKey& key) const;
    bool operator()(Index a, Index b) const { return a == b; }
    bool operator()(const ExternalKey& key, Index mapping) const {
      const auto& m = table->mappings[mapping];
      return m.external_port == key.external.number() && m.transport == key.transport &&
             m.external_address == key.address;
    }
    bool operator()(Index mapping, const ExternalKey& key) const { return (*this)(key, mapping); }
  };
  struct ByNumber {
    using is_transparent = void;
    const LeaseTable* table;
    std::size_t operator()(Index lease) const;
    std::size_t operator()(std::uint64_t number) const;
    bool operator()(Index a, Index b) const { return a == b; }
    bool operator()(std::uint64_t number, Index lease) const { return table->leases[lease].number == number; }
    bool operator()(Index lease, std::uint64_t number) const { return (*this)(number, lease); }
  };
  struct ByAddress {
    using is_transparent = void;
    const LeaseTable* table;
    std::size_t operator()(Index device) const;
    std::size_t operator()(const Address& address) const;
    bool operator()(Index a, Index b) const { return a == b; }
    bool operator()(const Address& address, Index device) const {
      return table->devices[device].address == address;
    }
    bool operator()(Index device, const Address& address) const { return (*this)(address, device); }
  };

  void link(Index mapping);
  void unlink(Index mapping);
  void place(std::size_t slot, const Entry& entry);
  void sift_up(std::size_t slot);
  void sift_down(std::size_t slot);

  KeyedHash hash_;
  boost::unordered_flat_set<Index, ByEndpoint, ByEndpoint> by_endpoint_;  ///< first mappings only
  boost::unordered_flat_set<Index, ByExternal, ByExternal> by_external_;
  boost::unordered_flat_set<Index, ByNumber, ByNumber> by_number_;
  boost::unordered_flat_set<Index, ByAddress, ByAddress> by_address_;
  std::vector<Entry> heap_;
  std::size_t pinholes_ = 0;  ///< mappings that are not in by_external_
  boost::unordered_flat_map<std::uint16_t, Index> by_pinhole_;
  std::uint16_t last_pinhole_ = 0;
};

}  // namespace sallyport::lease
