#pragma once

#include <array>
#include <functional>
#include <memory>
#include <set>
#include <span>
#include <vector>

#include "nat/engine/drop_reason.hpp"
#include "nat/engine/engine.hpp"
#include "nat/engine/fragments.hpp"
#include "nat/plane/ebpf/tables.hpp"
#include "nat/plane/host/former_lans.hpp"

namespace sallyport::nat::ebpf {

/// The engine above the tables, and the slow path: what the programs leave to C++. No sockets, no interfaces,
/// no clock: the plane has those, and tests do without. One call at a time.
class Core {
 public:
  Core(std::unique_ptr<Tables> tables, const EngineOptions& options, const OwnPorts& own_ports,
       TimePoint now);

  Tables& tables() noexcept { return *tables_; }
  const Tables& tables() const noexcept { return *tables_; }
  Engine& engine() noexcept { return engine_; }
  const Engine& engine() const noexcept { return engine_; }

  /// As DataPlane's; where a program claims the chosen port at the same moment another one is chosen.
  Result<Installed> install(const MappingSpec& spec, TimePoint now);
  /// Gives engine and programs what they must know of interfaces and addresses. `by_wan`: what of
  /// `untranslated` is reached through the WAN; `wan_header`: octets of the WAN's link layer header.
  /// `others`: indexes of interfaces that are neither LAN nor WAN, to which the rest of `untranslated` goes.
  void set_network(const NetworkView& network, const std::vector<Prefix>& by_wan,
                   const std::set<std::uint32_t>& others, std::uint32_t wan_header, TimePoint now);
  void set_policy(const PlanePolicy& policy, TimePoint now);
  std::vector<PlaneEvent> sweep(TimePoint now);
  void fill_status(PlaneStatus& status) const;

  /// Where a finished packet goes: the IP packet, sp_back, and for a retry the sp_side it came from.
  using Give = std::function<void(std::span<const std::byte> packet, sp_back how, sp_side side)>;
  /// Takes a packet from the programs. `packet` is rewritten in place; `gso`: it is a segmentation super
  /// packet. True: the packet itself goes `how`, with its checksum as far as it was; whatever else it caused
  /// is given.
  struct Fate {
    bool goes = false;
    sp_back how{};
    std::uint32_t size = 0;
  };
  Fate take(const sp_tag& tag, std::span<std::byte> packet, bool partial_checksum, bool gso, TimePoint now,
            const Give& give);
  /// RSTs of sessions that ended.
  void take_made(TimePoint now, const Give& give);

  DropReason last_drop() const noexcept { return last_drop_; }
  /// The last packet waits for its first fragment.
  bool last_held() const noexcept { return last_held_; }

 private:
  sp_back back_for(std::span<const std::byte> packet, Action where) const;
  Fate take_fragment(sp_side side, std::span<std::byte> packet, TimePoint now, const Give& give);
  void drop(DropReason reason) noexcept;
  void set_networks6(const NetworkView& network, const std::vector<Prefix>& by_wan);
  void write_config();

  std::unique_ptr<Tables> tables_;
  Engine engine_;
  Fragments fragments_;
  PlanePolicy policy_;
  NetworkView network_;
  host::FormerLans former_lans_;
  std::vector<std::uint32_t> gateway_;
  std::array<std::uint64_t, drop_reasons> drops_{};
  DropReason last_drop_{};
  std::uint32_t now_s_ = 0;
  bool last_held_ = false;
};

}  // namespace sallyport::nat::ebpf
