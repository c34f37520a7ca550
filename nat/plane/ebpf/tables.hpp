#pragma once

#include <array>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "nat/engine/shared_tables.hpp"
#include "nat/plane/ebpf/abi.h"
#include "sallyport/values/result.hpp"
#include "sallyport/values/time.hpp"

namespace sallyport::nat::ebpf {

enum class Hook : std::uint8_t { wan_egress, wan_ingress, lan_ingress, tap_ingress, other_egress };

/// What a kernel lacks that refused the programs with an errno, in words. `release`: uname's.
std::string why_refused(int error, const std::string& release);

struct TableSizes {
  /// Of flows and of addresses they permit, together; the table is half as large again, so that all find a
  /// place.
  std::uint32_t flows = 262144;
  std::uint32_t addresses = 1;  ///< external ones, at most SP_MOST_ADDRESSES
};

/// The programs in the kernel and the tables they share with the engine. Needs CAP_BPF and CAP_NET_ADMIN to
/// load, nothing afterwards. Calls are made by one thread at a time.
class Tables final : public SharedTables {
 public:
  /// Loads the programs. `found` has maps of an earlier run by name (descriptors, which stay the caller's):
  /// those of the same layout, whose `config` says SP_ABI, are used again. On failure (generic category)
  /// `why` says in words what the kernel lacks.
  /// `flow_secret` is for a flow table that begins anew; one that goes on keeps its own.
  static Result<std::unique_ptr<Tables>> load(const TableSizes& sizes,
                                              const std::array<std::uint64_t, 2>& flow_secret,
                                              const std::map<std::string, int>& found, std::string& why);
  ~Tables() override;

  int program(Hook hook) const noexcept;
  /// Whether the tables have been used by an earlier run.
  bool reused() const noexcept { return reused_; }
  /// Why tables that were found are not used again, in words; empty: they are, or there were none.
  const std::string& why_anew() const noexcept { return why_anew_; }
  std::uint32_t most_flows() const noexcept { return most_flows_; }

  /// The programs read it at once; it is written by this process only.
  sp_config& config() noexcept { return *config_; }
  sp_state& state() noexcept { return *state_; }
  const sp_state& state() const noexcept { return *state_; }
  /// A bit for each port that is given to nobody, by transport (SP_TCP, SP_UDP).
  std::span<std::uint64_t, 1024> busy(sp_part part) noexcept {
    return std::span<std::uint64_t, 1024>{busy_ + 1024 * part, 1024};
  }
  /// Sums over all processors.
  std::array<std::uint64_t, SP_COUNTERS> counters() const;

  /// The WAN's interfaces, all of which have our programs; none: what the LAN sends stays inside.
  void set_guarded(std::span<const std::uint32_t> wans) noexcept;
  /// From now on, as long as this interface is there, those that come anew get their programs.
  void set_watched(std::uint32_t tap) noexcept;

  struct Network {
    std::uint32_t address = 0;
    std::uint8_t length = 0;
    std::uint32_t flags = 0;  ///< sp_net_flag
  };
  void set_networks(const std::vector<Network>& networks);
  /// The longest match answers alone; of the same prefix the last one counts.
  void set_networks6(const std::vector<std::pair<Prefix, std::uint32_t>>& networks);
  /// What is or was a LAN's by the tables, of both families.
  std::vector<Prefix> inside_networks() const;

  /// Takes a part of the flow table: deletes what is over, and after each turn puts right what the programs
  /// only estimate: numbers by device, deadlines of implicit mappings.
  void sweep(std::uint32_t now_s);

  struct Session {
    FlowKey key;
    sp_tcp tcp{};
    std::uint16_t external = 0;
  };
  /// TCP sessions of leases that ended since the last call: a walk through the flow table when there were
  /// any.
  std::vector<Session> take_ended(std::uint32_t now_s);

  // SharedTables
  std::span<Slot> slots() noexcept override;
  std::span<Lease> leases(std::size_t count) noexcept override;
  std::uint16_t find(Part part, std::uint32_t host, std::uint16_t port) const noexcept override;
  bool link(Part part, std::uint32_t host, std::uint16_t port, std::uint16_t external) noexcept override;
  void unlink(Part part, std::uint32_t host, std::uint16_t port) noexcept override;
  std::optional<FlowState> flow(const FlowKey& key) const noexcept override;
  void set_filters(std::uint32_t lease, std::span<const RemoteFilter> filters) noexcept override;
  void look_again() noexcept override { ++config_->epoch; }
  void ended(Part part, std::uint32_t host, std::uint16_t port, std::uint16_t external) noexcept override;
  void forget_flows() noexcept override;
  void forget_flows(const std::function<bool(std::uint32_t host, std::uint32_t peer)>& of) noexcept override;

 private:
  Tables() = default;
  template <class T>
  Result<T*> map_memory(int fd, std::size_t count);
  /// Calls `each(entry)` for `count` entries of the flow table from `first` on, mapped for as long as it
  /// takes.
  template <class Each>
  void each_flow(std::uint32_t first, std::uint32_t count, Each&& each) const;
  /// Calls `each(key, flow)` for all that outsiders began.
  template <class Each>
  void each_embryo(Each&& each) const;
  std::uint64_t hash_of(const sp_flow_key& key) const noexcept;
  bool is_in_first_bucket(const sp_flow_entry& entry, std::uint32_t at) const noexcept;
  void sweep_flow(sp_flow_entry& entry, std::uint32_t now_s);
  static void shorten(std::span<sp_flow_entry* const> bucket);
  void forget(const std::function<bool(std::uint32_t host, std::uint32_t peer)>& of);
  void finish_turn(std::uint32_t now_s);
  /// The place of a slot of this host's external address.
  std::size_t index_of(std::uint32_t host, Part part, std::uint16_t external) const noexcept;

  std::array<int, 5> programs_{-1, -1, -1, -1, -1};  // by Hook
  bool reused_ = false;
  std::string why_anew_;
  std::uint32_t most_flows_ = 0, flow_entries_ = 0;
  std::uint32_t addresses_ = 1;
  Slot* slots_ = nullptr;
  Lease* leases_ = nullptr;  // address space for all; `leases_mapped_` octets of it are the table
  std::size_t leases_mapped_ = 0;
  int leases_map_ = -1;
  std::uint64_t* busy_ = nullptr;
  sp_config* config_ = nullptr;
  sp_state* state_ = nullptr;
  std::vector<std::pair<void*, std::size_t>> mapped_;
  std::vector<int> descriptors_;
  int endpoints_ = -1, flows_ = -1, embryos_ = -1, hosts_ = -1, filters_ = -1, networks_ = -1,
      networks6_ = -1, counters_ = -1, wans_ = -1;

  std::unordered_map<std::uint32_t, std::uint32_t> filter_entries_;  // by lease
  std::vector<std::pair<std::uint64_t, std::uint16_t>> ended_;       // part, host and port; external port

  std::uint32_t cursor_ = 0;
  std::array<bool, 2> met_far_{};
  std::uint32_t turn_flows_ = 0;
  std::vector<std::uint32_t> latest_;  // by slot: the latest deadline of a flow seen this turn
  std::unordered_map<std::uint32_t, std::uint32_t> turn_hosts_;
};

}  // namespace sallyport::nat::ebpf
