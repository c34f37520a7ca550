#include "nat/plane/ebpf/tables.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "nat/engine/drop_reason.hpp"
#include "nat/engine/pairing.hpp"
#include "sallyport.skel.h"

namespace sallyport::nat::ebpf {
namespace {

static_assert(sizeof(sp_slot) == sizeof(Slot) && offsetof(sp_slot, aux) == offsetof(Slot, aux) &&
              offsetof(sp_slot, kind) == offsetof(Slot, kind) &&
              offsetof(sp_slot, deadline_s) == offsetof(Slot, deadline_s));
static_assert(static_cast<int>(SlotKind::quarantine) == SP_QUARANTINE &&
              static_cast<int>(SlotKind::static_) == SP_STATIC);
static_assert(sizeof(sp_lease) == sizeof(Lease) && offsetof(sp_lease, flags) == offsetof(Lease, flags) &&
              offsetof(sp_lease, packets_in) == offsetof(Lease, packets_in) &&
              offsetof(sp_lease, last_packet_ns) == offsetof(Lease, last_packet) &&
              offsetof(sp_lease, untracked_until_s) == offsetof(Lease, untracked_until_s));
static_assert(static_cast<int>(Lease::outbound) == SP_LEASE_OUTBOUND &&
              static_cast<int>(Lease::filtered) == SP_LEASE_FILTERED);
static_assert(static_cast<int>(DropReason::count_) == SP_DROP_count &&
              static_cast<int>(DropReason::spoofed_source) == SP_DROP_spoofed_source &&
              static_cast<int>(DropReason::no_mapping) == SP_DROP_no_mapping &&
              static_cast<int>(DropReason::table_full) == SP_DROP_table_full &&
              static_cast<int>(DropReason::fragment_of_dropped) == SP_DROP_fragment_of_dropped);
static_assert(static_cast<int>(Part::icmp) == SP_ICMP);
static_assert(SP_MOST_ADDRESSES == Pairing::most);

boost::system::error_code system_error(int number) { return {number, boost::system::generic_category()}; }

sp_endpoint endpoint_of(Part part, std::uint32_t host, std::uint16_t port) {
  return {host, port, static_cast<std::uint16_t>(part)};
}
constexpr Part part_of(std::uint8_t protocol) noexcept {
  return protocol == 6 ? Part::tcp : protocol == 17 ? Part::udp : Part::icmp;
}

sp_net_key key_of(const Tables::Network& network) {
  sp_net_key key{.length = network.length, .address = {}};
  for (unsigned i = 0; i < 4; ++i)
    key.address[i] = static_cast<std::uint8_t>(network.address >> (24 - 8 * i));
  return key;
}

/// Whether a map found running has the layout that the programs want.
bool fits(int fd, const bpf_map* wanted) {
  bpf_map_info info{};
  std::uint32_t size = sizeof info;
  return bpf_obj_get_info_by_fd(fd, &info, &size) == 0 && info.type == bpf_map__type(wanted) &&
         info.key_size == bpf_map__key_size(wanted) && info.value_size == bpf_map__value_size(wanted) &&
         (info.type != BPF_MAP_TYPE_ARRAY || info.max_entries == bpf_map__max_entries(wanted));
}

/// What the tables of an earlier run say of their layout; 0: nothing that one of ours would.
std::uint32_t abi_of(const std::map<std::string, int>& found) {
  const auto config = found.find("config");
  bpf_map_info info{};
  std::uint32_t size = sizeof info;
  if (config == found.end() || bpf_obj_get_info_by_fd(config->second, &info, &size) != 0 ||
      info.key_size != 4 || info.value_size < sizeof(std::uint32_t))
    return 0;
  std::vector<std::byte> value(info.value_size);
  const std::uint32_t first = 0;
  std::uint32_t abi = 0;
  if (bpf_map_lookup_elem(config->second, &first, value.data()) != 0) return 0;
  std::memcpy(&abi, value.data(), sizeof abi);
  return abi < 0x10000 ? abi : 0;  // layouts before the third began with a secret
}

}  // namespace

std::string why_refused(int error, const std::string& release) {
  unsigned major = 0, minor = 0;
  if (std::sscanf(release.c_str(), "%u.%u", &major, &minor) == 2 &&
      std::pair{major, minor} < std::pair{5U, 17U})
    return "needs Linux 5.17, this is " + std::to_string(major) + '.' + std::to_string(minor);
  if (error == EPERM || error == EACCES)
    return "the kernel does not let us load programs (" + std::string{std::strerror(error)} +
           "): CAP_BPF and CAP_NET_ADMIN are needed";
  return "the kernel does not take the programs (" + std::string{std::strerror(error)} +
         "): it needs BPF_SYSCALL, BPF_JIT, NET_CLS_BPF and Linux 5.17 or later";
}

Result<std::unique_ptr<Tables>> Tables::load(const TableSizes& sizes,
                                             const std::array<std::uint64_t, 2>& flow_secret,
                                             const std::map<std::string, int>& found, std::string& why) {
  libbpf_set_print(nullptr);
  // Kernels before 5.11 count maps against this limit.
  const rlimit all{RLIM_INFINITY, RLIM_INFINITY};
  setrlimit(RLIMIT_MEMLOCK, &all);
  auto tables = std::unique_ptr<Tables>{new Tables};
  // What libbpf needs for loading is given back afterwards: it is megabytes.
  const std::unique_ptr<sallyport_bpf, decltype(&sallyport_bpf__destroy)> object{sallyport_bpf__open(),
                                                                                 &sallyport_bpf__destroy};
  if (!object) {
    why = std::string{"cannot read the programs for the kernel: "} + std::strerror(errno);
    return {boost::system::in_place_error, system_error(errno)};
  }
  auto& maps = object->maps;
  const std::uint32_t flows = std::clamp<std::uint32_t>(sizes.flows, 1024, 1U << 24);
  const std::uint32_t flow_buckets = (flows + flows / 2 + SP_WAYS - 1) / SP_WAYS;
  bpf_map__set_max_entries(maps.flows, SP_NEAR + flow_buckets * SP_WAYS);
  tables->addresses_ = std::clamp<std::uint32_t>(sizes.addresses, 1, SP_MOST_ADDRESSES);
  const std::uint32_t slots = tables->addresses_ * SP_SLOTS;
  bpf_map__set_max_entries(maps.slots, slots);
  // All or nothing: half of the old tables would contradict the other half.
  bpf_map* map = nullptr;
  bool all_fit = !found.empty();
  const auto is_ours = [](const bpf_map* of) { return std::strchr(bpf_map__name(of), '.') == nullptr; };
  bpf_object__for_each_map(map, object->obj) {
    if (!is_ours(map)) continue;
    const auto old = found.find(bpf_map__name(map));
    // Only a LAN's program knows `wans`, and it is written anew each time.
    if (old == found.end() ? map != maps.wans : !fits(old->second, map)) all_fit = false;
  }
  if (!found.empty()) {
    const std::uint32_t abi = abi_of(found);
    if (abi != SP_ABI) all_fit = false;
    if (!all_fit)
      tables->why_anew_ =
          (abi == SP_ABI ? "the tables of an earlier run are of another size (limits.flows_total, the number "
                           "of external "
                           "addresses) or are not complete"
                         : "the tables of an earlier run have another layout (" +
                               (abi == 0 ? std::string{"an unknown one"} : std::to_string(abi)) +
                               ", ours is " + std::to_string(SP_ABI) + ")") +
          std::string{" and begin anew: leases come back from the store, flows do not"};
  }
  if (all_fit) bpf_object__for_each_map(map, object->obj) {
      const auto old = found.find(bpf_map__name(map));
      if (old == found.end() || bpf_map__reuse_fd(map, old->second) == 0) continue;
      why = std::string{"cannot take up the table "} + bpf_map__name(map) + ": " + std::strerror(errno);
      return {boost::system::in_place_error, system_error(errno)};
    }
  tables->reused_ = all_fit;
  if (const int error = sallyport_bpf__load(object.get()); error != 0) {
    utsname system{};
    uname(&system);
    why = why_refused(-error, system.release);
    return {boost::system::in_place_error, system_error(-error)};
  }
  const auto keep = [&](int fd) {
    const int kept = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (kept >= 0) tables->descriptors_.push_back(kept);
    return kept;
  };
  tables->leases_map_ = keep(bpf_map__fd(maps.leases));
  tables->endpoints_ = keep(bpf_map__fd(maps.endpoints));
  tables->flows_ = keep(bpf_map__fd(maps.flows));
  tables->embryos_ = keep(bpf_map__fd(maps.embryos));
  tables->hosts_ = keep(bpf_map__fd(maps.hosts));
  tables->filters_ = keep(bpf_map__fd(maps.filters));
  tables->networks_ = keep(bpf_map__fd(maps.networks));
  tables->networks6_ = keep(bpf_map__fd(maps.networks6));
  tables->counters_ = keep(bpf_map__fd(maps.counters));
  tables->wans_ = keep(bpf_map__fd(maps.wans));
  tables->programs_ = {
      keep(bpf_program__fd(object->progs.wan_egress)), keep(bpf_program__fd(object->progs.wan_ingress)),
      keep(bpf_program__fd(object->progs.lan_ingress)), keep(bpf_program__fd(object->progs.tap_ingress)),
      keep(bpf_program__fd(object->progs.other_egress))};
  tables->most_flows_ = flows;
  tables->flow_entries_ = SP_NEAR + flow_buckets * SP_WAYS;
  const auto mapped = [&](auto*& to, int fd, std::size_t count) {
    auto memory = tables->map_memory<std::remove_reference_t<decltype(*to)>>(fd, count);
    if (!memory) return false;
    to = *memory;
    return true;
  };
  if (!mapped(tables->slots_, bpf_map__fd(maps.slots), slots) ||
      !mapped(tables->busy_, bpf_map__fd(maps.busy), 2048) ||
      !mapped(tables->config_, bpf_map__fd(maps.config), 1) ||
      !mapped(tables->state_, bpf_map__fd(maps.state), 1)) {
    why = std::string{"cannot map the tables: "} + std::strerror(errno);
    return {boost::system::in_place_error, system_error(errno)};
  }
  tables->config_->abi = SP_ABI;
  tables->latest_.resize(slots);
  sp_config& config = *tables->config_;
  config.flow_buckets = flow_buckets;
  if (!tables->reused_) {
    config.flow_secret[0] = flow_secret[0];
    config.flow_secret[1] = flow_secret[1];
  }
  return tables;
}

Tables::~Tables() {
  for (const auto& [at, size] : mapped_) munmap(at, size);
  for (const int descriptor : descriptors_) close(descriptor);
}

template <class T>
Result<T*> Tables::map_memory(int fd, std::size_t count) {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  const std::size_t size = (count * ((sizeof(T) + 7) / 8 * 8) + page - 1) / page * page;
  void* at = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) return system_error(errno);
  mapped_.emplace_back(at, size);
  return static_cast<T*>(at);
}

int Tables::program(Hook hook) const noexcept { return programs_[static_cast<std::size_t>(hook)]; }

std::array<std::uint64_t, SP_COUNTERS> Tables::counters() const {
  std::array<std::uint64_t, SP_COUNTERS> sums{};
  const int processors = libbpf_num_possible_cpus();
  if (processors <= 0) return sums;
  std::vector<std::uint64_t> values(static_cast<std::size_t>(processors));
  for (std::uint32_t at = 0; at < SP_COUNTERS; ++at) {
    if (bpf_map_lookup_elem(counters_, &at, values.data()) != 0) continue;
    for (const std::uint64_t value : values) sums[at] += value;
  }
  return sums;
}

void Tables::set_guarded(std::span<const std::uint32_t> wans) noexcept {
  config_->wan_count = 0;
  std::uint32_t count = 0;
  for (const std::uint32_t wan : wans) {
    if (count == SP_MOST_WANS || bpf_map_update_elem(wans_, &count, &wan, BPF_ANY) != 0) return;
    ++count;
  }
  config_->wan_count = count;
}

void Tables::set_watched(std::uint32_t tap) noexcept {
  const std::uint32_t at = SP_WATCH;
  bpf_map_update_elem(wans_, &at, &tap, BPF_ANY);
}

void Tables::set_networks(const std::vector<Network>& networks) {
  // What is new first: an address is never without its network meanwhile.
  for (const Network& network : networks) {
    const sp_net_key key = key_of(network);
    bpf_map_update_elem(networks_, &key, &network.flags, BPF_ANY);
  }
  const auto wanted = [&](const sp_net_key& key) {
    return std::any_of(networks.begin(), networks.end(), [&](const Network& network) {
      const sp_net_key other = key_of(network);
      return std::memcmp(&key, &other, sizeof key) == 0;
    });
  };
  std::vector<sp_net_key> gone;
  sp_net_key at{}, next{};
  for (int more = bpf_map_get_next_key(networks_, nullptr, &next); more == 0;
       more = bpf_map_get_next_key(networks_, &at, &next)) {
    if (!wanted(next)) gone.push_back(next);
    at = next;
  }
  for (const auto& key : gone) bpf_map_delete_elem(networks_, &key);
}

void Tables::set_networks6(const std::vector<std::pair<Prefix, std::uint32_t>>& networks) {
  std::vector<sp_net6_key> wanted;
  for (const auto& [network, value] : networks) {
    sp_net6_key key{.length = network.length, .address = {}};
    std::memcpy(key.address, network.address.bytes().data(), sizeof key.address);
    bpf_map_update_elem(networks6_, &key, &value, BPF_ANY);
    wanted.push_back(key);
  }
  std::vector<sp_net6_key> gone;
  sp_net6_key at{}, next{};
  for (int more = bpf_map_get_next_key(networks6_, nullptr, &next); more == 0;
       more = bpf_map_get_next_key(networks6_, &at, &next)) {
    if (std::none_of(wanted.begin(), wanted.end(),
                     [&](const auto& key) { return std::memcmp(&key, &next, sizeof key) == 0; }))
      gone.push_back(next);
    at = next;
  }
  for (const auto& key : gone) bpf_map_delete_elem(networks6_, &key);
}

std::vector<Prefix> Tables::inside_networks() const {
  std::vector<Prefix> inside;
  const auto look = [&](int map, const auto& key, const auto& prefix_of) {
    auto at = key, next = key;
    for (int more = bpf_map_get_next_key(map, nullptr, &next); more == 0;
         more = bpf_map_get_next_key(map, &at, &next)) {
      std::uint32_t flags = 0;
      if (bpf_map_lookup_elem(map, &next, &flags) == 0 && (flags & SP_NET_INSIDE) &&
          !(flags & (SP_NET_END | SP_NET_GATEWAY)))
        inside.push_back(prefix_of(next));
      at = next;
    }
  };
  look(networks_, sp_net_key{}, [](const sp_net_key& key) {
    std::uint32_t number = 0;
    for (const std::uint8_t octet : key.address) number = number << 8 | octet;
    return Prefix::v4(number, static_cast<std::uint8_t>(key.length));
  });
  look(networks6_, sp_net6_key{}, [](const sp_net6_key& key) {
    Address::Bytes bytes;
    std::memcpy(bytes.data(), key.address, bytes.size());
    return Prefix{Address{bytes}, static_cast<std::uint8_t>(key.length)};
  });
  return inside;
}

// --- SharedTables ---

std::span<Slot> Tables::slots() noexcept { return {slots_, std::size_t{addresses_} * SP_SLOTS}; }
std::size_t Tables::index_of(std::uint32_t host, Part part, std::uint16_t external) const noexcept {
  std::size_t address = config_->only;
  if (config_->externals_count > 1) {
    // The gateway itself sends from each as such.
    const auto* const own = std::find(std::begin(config_->externals), std::end(config_->externals), host);
    address = own != std::end(config_->externals) ? static_cast<std::size_t>(own - config_->externals)
                                                  : config_->pairs[sp_bucket(host)];
  }
  return (address % addresses_ * SP_PARTS + static_cast<std::size_t>(part)) << 16 | external;
}
std::span<Lease> Tables::leases(std::size_t count) noexcept {
  // Whatever is mapped counts as resident memory of ours, used or not: only as much as there are leases.
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  const std::size_t all = (SP_LEASES * sizeof(Lease) + page - 1) / page * page;
  if (!leases_) {
    void* place = mmap(nullptr, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (place == MAP_FAILED) return {};
    mapped_.emplace_back(place, all);
    leases_ = static_cast<Lease*>(place);
  }
  const std::size_t wanted = std::min((count * sizeof(Lease) + page - 1) / page * page, all);
  if (wanted > leases_mapped_) {
    auto* const at = reinterpret_cast<std::byte*>(leases_) + leases_mapped_;
    if (mmap(at, wanted - leases_mapped_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, leases_map_,
             static_cast<off_t>(leases_mapped_)) != MAP_FAILED)
      leases_mapped_ = wanted;
  }
  return {leases_, leases_mapped_ / sizeof(Lease)};
}

std::uint16_t Tables::find(Part part, std::uint32_t host, std::uint16_t port) const noexcept {
  const sp_endpoint key = endpoint_of(part, host, port);
  std::uint32_t external = 0;
  return bpf_map_lookup_elem(endpoints_, &key, &external) == 0 ? static_cast<std::uint16_t>(external)
                                                               : std::uint16_t{0};
}
bool Tables::link(Part part, std::uint32_t host, std::uint16_t port, std::uint16_t external) noexcept {
  const sp_endpoint key = endpoint_of(part, host, port);
  const std::uint32_t value = external;
  return bpf_map_update_elem(endpoints_, &key, &value, BPF_ANY) == 0;
}
void Tables::unlink(Part part, std::uint32_t host, std::uint16_t port) noexcept {
  const sp_endpoint key = endpoint_of(part, host, port);
  bpf_map_delete_elem(endpoints_, &key);
}

std::uint64_t Tables::hash_of(const sp_flow_key& key) const noexcept {
  return SipHash{{config_->flow_secret[0], config_->flow_secret[1]}}(
      std::uint64_t{key.host} << 32 | key.peer, std::uint64_t{key.host_port} << 32 |
                                                    std::uint64_t{key.peer_port} << 16 |
                                                    std::uint64_t{key.protocol} << 8 | key.permission);
}
bool Tables::is_in_first_bucket(const sp_flow_entry& entry, std::uint32_t at) const noexcept {
  const std::uint32_t place = sp_flow_place(hash_of(entry.key), SP_NEAR_WAYS, config_->flow_buckets);
  return (at - SP_NEAR) / SP_WAYS == (place - SP_NEAR) / SP_WAYS;
}

std::optional<SharedTables::FlowState> Tables::flow(const FlowKey& key) const noexcept {
  const sp_flow_key wanted{.host = key.host,
                           .peer = key.peer,
                           .host_port = key.host_port,
                           .peer_port = key.peer_port,
                           .protocol = key.protocol,
                           .permission = 0,
                           .zero = 0};
  // As place_of() of the programs.
  const std::uint64_t hash = hash_of(wanted);
  for (std::uint32_t turn = 0; turn < SP_PLACES; ++turn) {
    const std::uint32_t at = sp_flow_place(hash, turn, config_->flow_buckets);
    sp_flow_entry entry{};
    if (bpf_map_lookup_elem(flows_, &at, &entry) != 0) break;
    if (entry.tag == sp_flow_tag(hash) && std::memcmp(&entry.key, &wanted, sizeof wanted) == 0)
      return FlowState{entry.flow.deadline_s, entry.flow.external, entry.flow.generation};
    if (entry.tag == SP_TAG_NEVER) turn = sp_flow_last_turn(turn);
  }
  sp_flow found{};
  if (bpf_map_lookup_elem(embryos_, &wanted, &found) != 0) return std::nullopt;
  return FlowState{found.deadline_s, found.external, found.generation};
}

void Tables::set_filters(std::uint32_t lease, std::span<const RemoteFilter> filters) noexcept {
  const std::uint32_t had = filter_entries_.contains(lease) ? filter_entries_[lease] : 0;
  std::uint32_t entries = 0;
  std::vector<RemoteFilter> ours;
  for (const RemoteFilter& filter : filters)
    if (filter.prefix.address.is_v4() && filter.prefix.length >= 96) ours.push_back(filter);
  constexpr std::size_t most = std::size_t{SP_FILTERS_AN_ENTRY} * SP_FILTER_ENTRIES;
  if (ours.size() > most) ours.resize(most);
  for (std::size_t from = 0; from < ours.size(); from += SP_FILTERS_AN_ENTRY, ++entries) {
    sp_filters some{};
    some.count = static_cast<std::uint32_t>(ours.size() - from);
    for (std::size_t i = 0; i < SP_FILTERS_AN_ENTRY && from + i < ours.size(); ++i) {
      const RemoteFilter& filter = ours[from + i];
      const unsigned bits = filter.prefix.v4_bits();
      some.mask[i] = bits == 0 ? 0 : ~std::uint32_t{0} << (32 - bits);
      some.address[i] = filter.prefix.address.v4_number() & some.mask[i];
      some.port[i] = filter.port ? filter.port->number() : std::uint16_t{0};
    }
    const sp_filter_key key{lease, entries};
    bpf_map_update_elem(filters_, &key, &some, BPF_ANY);
  }
  for (std::uint32_t entry = entries; entry < had; ++entry) {
    const sp_filter_key key{lease, entry};
    bpf_map_delete_elem(filters_, &key);
  }
  if (entries)
    filter_entries_[lease] = entries;
  else
    filter_entries_.erase(lease);
}

void Tables::ended(Part part, std::uint32_t host, std::uint16_t port, std::uint16_t external) noexcept {
  if (part == Part::tcp) ended_.emplace_back(std::uint64_t{port} << 32 | host, external);
}

void Tables::forget(const std::function<bool(std::uint32_t host, std::uint32_t peer)>& of) {
  each_flow(0, flow_entries_, [&](sp_flow_entry& entry) {
    // Not to be overwritten while it is written.
    std::uint32_t seen = __atomic_load_n(&entry.tag, __ATOMIC_ACQUIRE);
    if (seen >= SP_TAG_FIRST && of(entry.key.host, entry.key.peer))
      __atomic_compare_exchange_n(&entry.tag, &seen, SP_TAG_GONE, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
  });
  std::vector<sp_flow_key> all;
  each_embryo([&](const sp_flow_key& key, const sp_flow&) {
    if (of(key.host, key.peer)) all.push_back(key);
  });
  for (const sp_flow_key& key : all) bpf_map_delete_elem(embryos_, &key);
}

void Tables::forget_flows(const std::function<bool(std::uint32_t host, std::uint32_t peer)>& of) noexcept {
  forget(of);  // how many are left the next turn of the sweep counts
  look_again();
}

void Tables::forget_flows() noexcept {
  forget([](std::uint32_t, std::uint32_t) { return true; });
  state_->flows = 0;
  cursor_ = 0;
  turn_flows_ = 0;
  turn_hosts_.clear();
  std::fill(latest_.begin(), latest_.end(), 0);
  look_again();
}

// --- sweeping ---

template <class Each>
void Tables::each_flow(std::uint32_t first, std::uint32_t count, Each&& each) const {
  // What is mapped counts as resident memory of ours: a part at a time.
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  const auto in_page = static_cast<std::uint32_t>(page / sizeof(sp_flow_entry));
  constexpr std::uint32_t pages_at_once = 256;
  const std::uint32_t end = std::min(first + count, flow_entries_);
  while (first < end) {
    const std::uint32_t from = first / in_page * in_page;
    const std::uint32_t to = std::min(from + pages_at_once * in_page, flow_entries_);
    const std::size_t size = (std::size_t{to - from} * sizeof(sp_flow_entry) + page - 1) / page * page;
    void* const at = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, flows_,
                          static_cast<off_t>(std::size_t{from} * sizeof(sp_flow_entry)));
    if (at == MAP_FAILED) return;
    auto* const entries = static_cast<sp_flow_entry*>(at);
    for (; first < std::min(to, end); ++first) each(entries[first - from]);
    munmap(at, size);
  }
}

template <class Each>
void Tables::each_embryo(Each&& each) const {
  constexpr std::uint32_t at_once = 4096;
  std::vector<sp_flow_key> keys(at_once);
  std::vector<sp_flow> values(at_once);
  std::uint32_t cursor = 0;
  bool started = false;
  for (;;) {
    std::uint32_t count = at_once, next = 0;
    const int result = bpf_map_lookup_batch(embryos_, started ? &cursor : nullptr, &next, keys.data(),
                                            values.data(), &count, nullptr);
    if (result != 0 && errno != ENOENT) return;
    for (std::uint32_t i = 0; i < count; ++i) each(keys[i], values[i]);
    if (result != 0) return;
    cursor = next;
    started = true;
  }
}

void Tables::sweep(std::uint32_t now_s) {
  constexpr std::uint32_t parts_of_turn = 16;
  const std::uint32_t some =
      std::max<std::uint32_t>((flow_entries_ / parts_of_turn + SP_WAYS) / SP_WAYS, 128) * SP_WAYS;
  const std::uint32_t count = std::min(some, flow_entries_ - cursor_);
  std::array<sp_flow_entry*, SP_WAYS> bucket{};
  std::uint32_t at = cursor_, filled = 0;
  each_flow(cursor_, count, [&](sp_flow_entry& entry) {
    sweep_flow(entry, now_s);
    if (at >= SP_NEAR && entry.tag >= SP_TAG_BUSY) met_far_[is_in_first_bucket(entry, at) ? 0 : 1] = true;
    bucket[filled++] = &entry;
    const std::uint32_t ways = at++ < SP_NEAR ? SP_NEAR_WAYS : SP_WAYS;
    if (filled < ways) return;
    filled = 0;
    shorten(std::span{bucket}.first(ways));
  });
  cursor_ += count;
  if (cursor_ < flow_entries_) return;
  cursor_ = 0;
  for (std::size_t i = 0; i < met_far_.size(); ++i) {
    // The programs say SP_FAR_USED before they put something there: two turns see all that was there when
    // this began.
    std::uint32_t used = __atomic_load_n(&config_->far_used[i], __ATOMIC_SEQ_CST);
    if (used != 0 && !met_far_[i])
      __atomic_compare_exchange_n(&config_->far_used[i], &used, used == SP_FAR_EMPTY_TURNS ? 0 : used + 1,
                                  false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
    else if (used > SP_FAR_USED)
      __atomic_store_n(&config_->far_used[i], static_cast<std::uint32_t>(SP_FAR_USED), __ATOMIC_SEQ_CST);
    met_far_[i] = false;
  }
  finish_turn(now_s);
}

/// Searches end at an entry that never was: one that is gone may count as such when they would end right
/// behind it, or when nothing is left in its bucket.
void Tables::shorten(std::span<sp_flow_entry* const> bucket) {
  const auto tag = [](const sp_flow_entry* entry) { return __atomic_load_n(&entry->tag, __ATOMIC_SEQ_CST); };
  if (std::none_of(bucket.begin(), bucket.end(), [&](const auto* one) { return tag(one) == SP_TAG_GONE; }))
    return;
  const bool empty =
      std::all_of(bucket.begin(), bucket.end(), [&](const auto* one) { return tag(one) <= SP_TAG_GONE; });
  for (std::size_t round = 2 * bucket.size(); round-- > 0;) {
    const std::size_t at = round % bucket.size();
    std::uint32_t gone = SP_TAG_GONE;
    if (empty || tag(bucket[(at + 1) % bucket.size()]) == SP_TAG_NEVER)
      __atomic_compare_exchange_n(&bucket[at]->tag, &gone, SP_TAG_NEVER, false, __ATOMIC_SEQ_CST,
                                  __ATOMIC_RELAXED);
  }
}

void Tables::sweep_flow(sp_flow_entry& entry, std::uint32_t now_s) {
  std::uint32_t tag = __atomic_load_n(&entry.tag, __ATOMIC_ACQUIRE);
  if (tag < SP_TAG_FIRST) return;
  const sp_flow_key& key = entry.key;
  const sp_flow& flow = entry.flow;
  bool over = now_s >= flow.deadline_s && now_s - flow.deadline_s >= SP_FLOW_GRACE;
  if (!over && !key.permission) {
    const std::size_t at = index_of(key.host, part_of(key.protocol), flow.external);
    const Slot& slot = slots_[at];
    if (slot.host != key.host || slot.port != key.host_port || slot.kind == SlotKind::free) {
      over = true;  // nobody refreshes it any more: what it was is over
    } else {
      ++turn_flows_;
      ++turn_hosts_[key.host];
      if (slot.generation == flow.generation) latest_[at] = std::max(latest_[at], flow.deadline_s);
    }
  }
  if (over)
    __atomic_compare_exchange_n(&entry.tag, &tag, SP_TAG_GONE, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
}

void Tables::finish_turn(std::uint32_t now_s) {
  state_->flows = turn_flows_;
  std::unordered_map<std::uint32_t, std::pair<std::uint32_t, std::uint32_t>>
      mappings;  // ports, ICMP identifiers
  for (std::size_t at = 0; at < latest_.size(); ++at) {
    Slot& slot = slots_[at];
    if (slot.kind != SlotKind::implicit && slot.kind != SlotKind::draining) continue;
    if (sp_is_over(slot.deadline_s, now_s)) continue;
    ++((at >> 16) % SP_PARTS == SP_ICMP ? mappings[slot.host].second : mappings[slot.host].first);
    // An implicit mapping ends with its last flow; one that began during this turn may not have been met.
    constexpr std::uint32_t met_next_turn_s = 60;
    const std::uint32_t latest = std::max(latest_[at], now_s + met_next_turn_s);
    if (slot.kind == SlotKind::implicit && slot.deadline_s > latest) slot.deadline_s = latest;
    if (latest_[at] > slot.deadline_s) slot.deadline_s = latest_[at];
  }
  std::vector<std::uint32_t> known;
  std::uint32_t at = 0, next = 0;
  for (int more = bpf_map_get_next_key(hosts_, nullptr, &next); more == 0;
       more = bpf_map_get_next_key(hosts_, &at, &next)) {
    known.push_back(next);
    at = next;
    if (known.size() > 65536) break;
  }
  for (const std::uint32_t host : known) {
    sp_host counted{};
    if (bpf_map_lookup_elem(hosts_, &host, &counted) != 0) continue;
    const auto flows = turn_hosts_.find(host);
    const auto ports = mappings.find(host);
    counted.flows = flows == turn_hosts_.end() ? 0 : flows->second;
    counted.mappings = ports == mappings.end() ? 0 : ports->second.first;
    counted.icmp_ids = ports == mappings.end() ? 0 : ports->second.second;
    if (counted.flows == 0 && counted.mappings == 0 && counted.icmp_ids == 0 && counted.made_s + 1 < now_s)
      bpf_map_delete_elem(hosts_, &host);
    else
      bpf_map_update_elem(hosts_, &host, &counted, BPF_EXIST);
  }
  turn_flows_ = 0;
  turn_hosts_.clear();
  std::fill(latest_.begin(), latest_.end(), 0);
}

std::vector<Tables::Session> Tables::take_ended(std::uint32_t now_s) {
  std::vector<Session> sessions;
  if (ended_.empty()) return sessions;
  std::unordered_map<std::uint64_t, std::uint16_t> wanted{ended_.begin(), ended_.end()};
  ended_.clear();
  const auto look = [&](const sp_flow_key& key, const sp_flow& flow) {
    if (key.permission || key.protocol != 6 || sp_is_over(flow.deadline_s, now_s)) return;
    const auto found = wanted.find(std::uint64_t{key.host_port} << 32 | key.host);
    if (found == wanted.end() || found->second != flow.external) return;
    if (slots_[index_of(key.host, Part::tcp, flow.external)].generation == flow.generation) return;
    sessions.push_back(
        {{key.protocol, key.host_port, key.host, key.peer, key.peer_port}, flow.tcp, flow.external});
  };
  each_flow(0, flow_entries_, [&](const sp_flow_entry& entry) {
    if (entry.tag >= SP_TAG_FIRST) look(entry.key, entry.flow);
  });
  each_embryo(look);
  return sessions;
}

}  // namespace sallyport::nat::ebpf
