#include "src/lease/lease_table.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

namespace sallyport::lease {
namespace {

constexpr std::uint64_t splitmix(std::uint64_t& state) {
  std::uint64_t z = state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

struct SipState {
  std::uint64_t v0, v1, v2, v3;
  void round() {
    v0 += v1, v1 = std::rotl(v1, 13), v1 ^= v0, v0 = std::rotl(v0, 32);
    v2 += v3, v3 = std::rotl(v3, 16), v3 ^= v2;
    v0 += v3, v3 = std::rotl(v3, 21), v3 ^= v0;
    v2 += v1, v1 = std::rotl(v1, 17), v1 ^= v2, v2 = std::rotl(v2, 32);
  }
  void word(std::uint64_t m) { v3 ^= m, round(), v0 ^= m; }
};

}  // namespace

KeyedHash::KeyedHash(std::uint64_t seed) noexcept : k0_{splitmix(seed)}, k1_{splitmix(seed)} {}

std::uint64_t KeyedHash::operator()(std::uint64_t a, std::uint64_t b, std::uint64_t c) const noexcept {
  SipState s{k0_ ^ 0x736f6d6570736575u, k1_ ^ 0x646f72616e646f6du, k0_ ^ 0x6c7967656e657261u,
             k1_ ^ 0x7465646279746573u};
  s.word(a), s.word(b), s.word(c), s.word(std::uint64_t{24} << 56);
  s.v2 ^= 0xff;
  s.round(), s.round(), s.round();
  return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

std::uint64_t KeyedHash::operator()(const Address& address, std::uint64_t more) const noexcept {
  std::uint64_t words[2];
  std::memcpy(words, address.bytes().data(), sizeof words);
  return (*this)(words[0], words[1], more);
}

std::size_t LeaseTable::ByEndpoint::operator()(Index mapping) const {
  const auto& m = table->mappings[mapping];
  return table->hash_(m.internal_address,
                      std::uint64_t{m.internal_port} << 8 | static_cast<std::uint8_t>(m.transport));
}
std::size_t LeaseTable::ByEndpoint::operator()(const MappingKey& key) const {
  return table->hash_(key.internal.address, std::uint64_t{key.internal.port.number()} << 8 |
                                                static_cast<std::uint8_t>(key.transport));
}
bool LeaseTable::ByEndpoint::operator()(const MappingKey& key, Index mapping) const {
  const auto& m = table->mappings[mapping];
  return m.internal_port == key.internal.port.number() && m.transport == key.transport &&
         m.internal_address == key.internal.address;
}
std::size_t LeaseTable::ByExternal::operator()(Index mapping) const {
  const auto& m = table->mappings[mapping];
  return table->hash_(m.external_port, static_cast<std::uint8_t>(m.transport), m.external_address);
}
std::size_t LeaseTable::ByExternal::operator()(const ExternalKey& key) const {
  return table->hash_(key.external.number(), static_cast<std::uint8_t>(key.transport), key.address);
}
std::size_t LeaseTable::ByNumber::operator()(Index lease) const {
  return (*this)(table->leases[lease].number);
}
std::size_t LeaseTable::ByNumber::operator()(std::uint64_t number) const {
  return table->hash_(number, 0, 0);
}
std::size_t LeaseTable::ByAddress::operator()(Index device) const {
  return (*this)(table->devices[device].address);
}
std::size_t LeaseTable::ByAddress::operator()(const Address& address) const {
  return table->hash_(address, 0);
}

LeaseTable::LeaseTable(std::uint64_t seed)
    : addresses{Address{}},
      hash_{seed},
      by_endpoint_{0, ByEndpoint{this}, ByEndpoint{this}},
      by_external_{0, ByExternal{this}, ByExternal{this}},
      by_number_{0, ByNumber{this}, ByNumber{this}},
      by_address_{0, ByAddress{this}, ByAddress{this}} {}

Index LeaseTable::find_mapping(Transport transport, const InternalEndpoint& internal) const {
  const auto it = by_endpoint_.find(MappingKey{transport, internal});
  return it == by_endpoint_.end() ? nothing : *it;
}

Index LeaseTable::find_external(Transport transport, std::uint16_t address, Port external) const {
  const auto it = by_external_.find(ExternalKey{transport, address, external});
  return it == by_external_.end() ? nothing : *it;
}

Index LeaseTable::find_on(Index mapping, Via via) const {
  for (; mapping != nothing; mapping = mappings[mapping].next_on_endpoint)
    for (Index i = mappings[mapping].first_lease; i != nothing; i = leases[i].next_on_mapping)
      if (leases[i].via == via && !leases[i].outbound) return i;
  return nothing;
}

Index LeaseTable::find_peer(Index mapping, const RemoteFilter& peer) const {
  for (; mapping != nothing; mapping = mappings[mapping].next_on_endpoint)
    for (Index i = mappings[mapping].first_lease; i != nothing; i = leases[i].next_on_mapping)
      if (leases[i].outbound && leases[i].remotes && leases[i].remotes->front() == peer) return i;
  return nothing;
}

Index LeaseTable::find_upnp(Index mapping, const std::optional<Address>& remote) const {
  if (mapping == nothing) return nothing;
  for (Index i = mappings[mapping].first_lease; i != nothing; i = leases[i].next_on_mapping)
    if (leases[i].via == Via::upnp && remote_host_of(leases[i]) == remote) return i;
  return nothing;
}

Index LeaseTable::find_remote(Index mapping, const std::optional<RemoteFilter>& remote) const {
  if (mapping == nothing) return nothing;
  for (Index i = mappings[mapping].first_lease; i != nothing; i = leases[i].next_on_mapping) {
    const auto& lease = leases[i];
    if (lease.via != Via::upnp) continue;
    if (remote ? lease.remotes && lease.remotes->front() == *remote : !lease.remotes) return i;
  }
  return nothing;
}

Index LeaseTable::find_pinhole(std::uint16_t pinhole) const {
  const auto it = by_pinhole_.find(pinhole);
  return it == by_pinhole_.end() ? nothing : it->second;
}

std::uint16_t LeaseTable::name_pinhole(Index lease, std::uint16_t wanted) {
  if (!may_name_pinhole()) return 0;
  if (wanted == 0 || by_pinhole_.contains(wanted)) {
    do {
      last_pinhole_ =
          last_pinhole_ == 65535 ? std::uint16_t{1} : static_cast<std::uint16_t>(last_pinhole_ + 1);
    } while (by_pinhole_.contains(last_pinhole_));
    wanted = last_pinhole_;
  } else {
    last_pinhole_ = std::max(last_pinhole_, wanted);
  }
  if (lease != nothing) leases[lease].pinhole = wanted;
  by_pinhole_.emplace(wanted, lease);
  return wanted;
}

bool LeaseTable::is_ending(Index mapping) const {
  for (; mapping != nothing; mapping = mappings[mapping].next_on_endpoint)
    if (mappings[mapping].endings > 0) return true;
  return false;
}

Index LeaseTable::find_number(std::uint64_t number) const {
  const auto it = by_number_.find(number);
  return it == by_number_.end() ? nothing : *it;
}

Index LeaseTable::find_device(const Address& address) const {
  const auto it = by_address_.find(address);
  return it == by_address_.end() ? nothing : *it;
}

Index LeaseTable::add_mapping(Transport transport, const InternalEndpoint& internal, Port external,
                              std::uint16_t address) {
  const Index index = mappings.take();
  auto& mapping = mappings[index];
  mapping.internal_address = internal.address;
  mapping.internal_port = internal.port.number();
  mapping.external_port = external.number();
  mapping.external_address = address;
  mapping.transport = transport;
  link(index);
  if (mapping.is_pinhole())
    ++pinholes_;
  else
    by_external_.insert(index);
  return index;
}

void LeaseTable::remove_mapping(Index mapping) {
  unlink(mapping);
  if (mappings[mapping].is_pinhole())
    --pinholes_;
  else
    by_external_.erase(mapping);
  mappings.give_back(mapping);
}

void LeaseTable::set_external(Index index, std::uint16_t address, std::uint16_t port) {
  auto& mapping = mappings[index];
  if (mapping.external_address == address && mapping.external_port == port) return;
  if (!mapping.is_pinhole()) by_external_.erase(index);
  mapping.external_address = address;
  mapping.external_port = port;
  if (!mapping.is_pinhole()) by_external_.insert(index);
}

void LeaseTable::move_mapping(Index mapping, Port internal) {
  unlink(mapping);
  mappings[mapping].internal_port = internal.number();
  link(mapping);
}

void LeaseTable::link(Index mapping) {
  const auto& added = mappings[mapping];
  const Index first = find_mapping(added.transport, added.internal());
  if (first == nothing) {
    by_endpoint_.insert(mapping);
    return;
  }
  Index last = first;
  while (mappings[last].next_on_endpoint != nothing) last = mappings[last].next_on_endpoint;
  mappings[last].next_on_endpoint = mapping;
}

void LeaseTable::unlink(Index mapping) {
  auto& gone = mappings[mapping];
  const Index first = find_mapping(gone.transport, gone.internal());
  if (first == mapping) {
    by_endpoint_.erase(mapping);
    if (gone.next_on_endpoint != nothing) by_endpoint_.insert(gone.next_on_endpoint);
  } else {
    Index before = first;
    while (mappings[before].next_on_endpoint != mapping) before = mappings[before].next_on_endpoint;
    mappings[before].next_on_endpoint = gone.next_on_endpoint;
  }
  gone.next_on_endpoint = nothing;
}

std::optional<Address> remote_host_of(const Lease& lease) {
  if (!lease.remotes || lease.remotes->size() != 1) return std::nullopt;
  const auto& only = lease.remotes->front();
  if (only.port || only.prefix.length != 128) return std::nullopt;
  return only.prefix.address;
}

Index LeaseTable::find_entry(Index mapping, const std::optional<Address>& remote) const {
  if (mapping == nothing) return nothing;
  for (Index i = mappings[mapping].first_lease; i != nothing; i = leases[i].next_on_mapping)
    if (leases[i].entry != 0 && remote_host_of(leases[i]) == remote) return i;
  return nothing;
}

void LeaseTable::enlist(Index index) {
  auto& lease = leases[index];
  if (lease.entry != 0 || lease.outbound) return;  // it opens nothing
  if (mappings[lease.mapping].is_pinhole()) return;  // WANIPConnection knows no IPv6
  const Index present = find_entry(lease.mapping, remote_host_of(lease));
  if (present == nothing) {
    lease.entry = entries.append(index);
  } else if (lease.via == Via::upnp) {
    lease.entry = std::exchange(leases[present].entry, 0);
    entries.replace(lease.entry, index);
  }
}

void LeaseTable::delist(Index index) {
  auto& lease = leases[index];
  if (lease.entry == 0) return;
  const auto position = std::exchange(lease.entry, 0);
  const auto remote = remote_host_of(lease);
  for (Index i = mappings[lease.mapping].first_lease; i != nothing; i = leases[i].next_on_mapping)
    if (i != index && !leases[i].fresh && leases[i].entry == 0 && remote_host_of(leases[i]) == remote) {
      leases[i].entry = position;
      entries.replace(position, i);
      return;
    }
  entries.remove(position);
}

Address device_key(std::uint64_t mac) noexcept {
  Address::Bytes bytes{};
  bytes[0] = std::byte{0xff};  // multicast, of no scope that there is
  for (std::size_t i = 0; i < 6; ++i) bytes[15 - i] = static_cast<std::byte>(mac >> (8 * i));
  return Address{bytes};
}

Index LeaseTable::add_lease(std::uint64_t number, Index mapping, const Address& owner_key) {
  const Index index = leases.take();
  auto& lease = leases[index];
  lease.number = number;
  lease.mapping = mapping;
  auto& on = mappings[mapping];
  Index device = on.first_lease != nothing ? on.device : find_device(owner_key);
  lease.next_on_mapping = on.first_lease;
  on.first_lease = index;
  if (device == nothing) {
    device = devices.take();
    devices[device].address = owner_key;
    by_address_.insert(device);
  }
  on.device = device;
  auto& owner = devices[device];
  ++owner.leases;
  lease.device_after = owner.first_lease;
  if (owner.first_lease != nothing) leases[owner.first_lease].device_before = index;
  owner.first_lease = index;
  by_number_.insert(index);
  return index;
}

void LeaseTable::merge_devices(Index from, const Address& owner_key) {
  const Index into = find_device(owner_key);
  if (into == nothing) {
    by_address_.erase(from);
    devices[from].address = owner_key;
    by_address_.insert(from);
    return;
  }
  if (into == from) return;
  auto& gone = devices[from];
  auto& owner = devices[into];
  Index last = nothing;
  for (Index i = gone.first_lease; i != nothing; i = leases[i].device_after) {
    mappings[leases[i].mapping].device = into;
    last = i;
  }
  if (last != nothing) {
    leases[last].device_after = owner.first_lease;
    if (owner.first_lease != nothing) leases[owner.first_lease].device_before = last;
    owner.first_lease = gone.first_lease;
  }
  owner.leases += gone.leases;
  by_address_.erase(from);
  devices.give_back(from);
}

void LeaseTable::remove_lease(Index index) {
  unschedule(index);
  delist(index);
  by_number_.erase(index);
  auto& lease = leases[index];
  if (lease.pinhole != 0) by_pinhole_.erase(lease.pinhole);
  auto& mapping = mappings[lease.mapping];
  Index* link = &mapping.first_lease;
  while (*link != index) link = &leases[*link].next_on_mapping;
  *link = lease.next_on_mapping;
  auto& device = devices[mapping.device];
  if (lease.device_before != nothing)
    leases[lease.device_before].device_after = lease.device_after;
  else
    device.first_lease = lease.device_after;
  if (lease.device_after != nothing) leases[lease.device_after].device_before = lease.device_before;
  if (--device.leases == 0) {
    by_address_.erase(mapping.device);
    devices.give_back(mapping.device);
    mapping.device = nothing;
  }
  leases.give_back(index);
}

std::uint16_t LeaseTable::find_address(const Address& address) const {
  // newest first: the gateway's addresses are few, and the one asked for is nearly always among the last
  for (std::size_t i = addresses.size(); i-- > 1;)
    if (addresses[i] == address) return static_cast<std::uint16_t>(i);
  return 0;
}

std::uint16_t LeaseTable::intern(const Address& address) {
  if (const auto known = find_address(address); known != 0) return known;
  if (addresses.size() >= 4096) return 0;
  addresses.push_back(address);
  return static_cast<std::uint16_t>(addresses.size() - 1);
}

std::optional<TimePoint> LeaseTable::next_deadline() const {
  if (heap_.empty()) return std::nullopt;
  return heap_.front().deadline;
}

void LeaseTable::schedule(Index index) {
  auto& lease = leases[index];
  if (lease.permanent) return unschedule(index);
  if (lease.heap_slot == nothing) {
    heap_.push_back({lease.deadline, index});
    lease.heap_slot = static_cast<Index>(heap_.size() - 1);
    return sift_up(lease.heap_slot);
  }
  const auto slot = lease.heap_slot;
  const auto before = heap_[slot].deadline;
  heap_[slot].deadline = lease.deadline;
  if (lease.deadline < before)
    sift_up(slot);
  else
    sift_down(slot);
}

void LeaseTable::unschedule(Index index) {
  auto& lease = leases[index];
  const auto slot = lease.heap_slot;
  if (slot == nothing) return;
  lease.heap_slot = nothing;
  const Entry last = heap_.back();
  heap_.pop_back();
  if (slot == heap_.size()) return;
  place(slot, last);
  sift_up(slot);
  sift_down(leases[last.lease].heap_slot);
}

void LeaseTable::place(std::size_t slot, const Entry& entry) {
  heap_[slot] = entry;
  leases[entry.lease].heap_slot = static_cast<Index>(slot);
}

void LeaseTable::sift_up(std::size_t slot) {
  const Entry entry = heap_[slot];
  while (slot > 0) {
    const std::size_t parent = (slot - 1) / 2;
    if (heap_[parent].deadline <= entry.deadline) break;
    place(slot, heap_[parent]);
    slot = parent;
  }
  place(slot, entry);
}

void LeaseTable::sift_down(std::size_t slot) {
  const Entry entry = heap_[slot];
  for (;;) {
    std::size_t child = 2 * slot + 1;
    if (child >= heap_.size()) break;
    if (child + 1 < heap_.size() && heap_[child + 1].deadline < heap_[child].deadline) ++child;
    if (entry.deadline <= heap_[child].deadline) break;
    place(slot, heap_[child]);
    slot = child;
  }
  place(slot, entry);
}

}  // namespace sallyport::lease
