#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "nat/engine/pages.hpp"
#include "nat/engine/port_allocator.hpp"
#include "nat/engine/siphash.hpp"
#include "sallyport/values/time.hpp"

namespace sallyport::nat {

/// The tables have one part per transport that has mappings.
enum class Part : std::uint8_t { tcp, udp, icmp };
inline constexpr std::size_t parts = 3;

/// A port of one of the external addresses, which has this index (Pairing). Number 0 is none.
struct ExternalPort {
  std::uint8_t address = 0;
  std::uint16_t number = 0;
  explicit constexpr operator bool() const noexcept { return number != 0; }
  friend bool operator==(const ExternalPort&, const ExternalPort&) = default;
};

enum class SlotKind : std::uint8_t {
  free,
  implicit,
  explicit_,
  static_,
  draining,    ///< of a lease that ended: its flows go on, nobody new comes in
  quarantine,  ///< of a lease that ended with a reset: forwards nothing, until the reuse delay is over
};

/// Who owns an external port.
struct Slot {
  std::uint32_t host;  ///< of a free one: who had it last
  std::uint16_t port;  ///< of the host
  SlotKind kind;
  std::uint8_t generation;
  std::uint32_t deadline_s;  ///< of a free one: until when it is chosen for nobody else (N6888-08)
  std::uint32_t aux;  ///< the lease of an explicit or static slot; else the first flow of its chain

  bool is_lease() const noexcept { return kind == SlotKind::explicit_ || kind == SlotKind::static_; }
};
static_assert(sizeof(Slot) == 16);

/// What only explicit and static mappings have.
struct Lease {
  enum Flag : std::uint8_t {
    used = 1,
    gone = 2,
    disabled = 4,
    second_port = 8,
    filtered = 16,
    outbound = 32,
    orphan = 64,  ///< found in shared tables at the start: nobody's until it is installed again
  };
  std::uint64_t serial;  ///< of its MappingId, so that an id is never taken for a later one
  TimePoint deadline;
  std::uint64_t packets_in, packets_out, bytes_in, bytes_out;
  TimePoint last_packet;
  std::uint32_t flows;              ///< the first flow of its chain; of a free record, the next one
  std::uint32_t untracked_until_s;  ///< TCP went on without a flow because the table was full
  std::uint16_t external;
  Part part;
  std::uint8_t flags;
  std::uint8_t address;  ///< index of the external address
};

class SharedTables;

/// Slots by external port, the way from an internal endpoint to its port, and leases. Keeps no rules: those
/// are the engine's. Its memory is its own, or that of `shared`.
class MappingTable {
 public:
  /// `addresses`: for so many external addresses there is room; with shared tables, for as many as those
  /// have.
  explicit MappingTable(const SipHash& hash, std::size_t addresses = 1, SharedTables* shared = nullptr);

  std::size_t addresses() const noexcept { return slots_.size() / (parts << 16); }
  Slot& slot(Part part, ExternalPort external) noexcept { return slots_[index(part, external)]; }
  const Slot& slot(Part part, ExternalPort external) const noexcept { return slots_[index(part, external)]; }
  void prefetch(Part part, ExternalPort external) const noexcept {
    __builtin_prefetch(&slots_[index(part, external)]);
  }

  /// The external port that outbound packets of an endpoint wear, in force or over, where the host has this
  /// address.
  ExternalPort find(std::uint8_t address, Part part, std::uint32_t host, std::uint16_t port) const noexcept;
  /// Gives a slot another owner. False, and nothing changed, when a program in the kernel was faster: `seen`
  /// is what the decision was made on.
  bool replace(Slot& slot, const Slot& seen, const Slot& with) noexcept;

  /// The slot must name the endpoint already.
  bool link(Part part, ExternalPort external);
  /// Succeeds also where the endpoint leads elsewhere or nowhere.
  void unlink(Part part, ExternalPort external) noexcept;

  std::uint32_t add_lease();  ///< `Flow::none` without memory
  void free_lease(std::uint32_t lease) noexcept;
  Lease& lease(std::uint32_t at) noexcept { return leases_[at]; }
  const Lease& lease(std::uint32_t at) const noexcept { return leases_[at]; }
  std::uint32_t lease_high_water() const noexcept { return lease_high_water_; }

  /// Ports of an address that automatic choice may take.
  PortAllocator& ports(std::uint8_t address, Part part) noexcept {
    return (*ports_[address])[static_cast<std::size_t>(part)];
  }

 private:
  using Entry =
      std::uint64_t;  // tag << 32 | 1 << 31 | address << 18 | part << 16 | external port; 0 is empty
  static std::size_t index(Part part, ExternalPort external) noexcept {
    return (external.address * parts + static_cast<std::size_t>(part)) << 16 | external.number;
  }
  std::uint32_t tag(Part part, std::uint32_t host, std::uint16_t port) const noexcept {
    return static_cast<std::uint32_t>(hash_(std::uint64_t{1} << 62 |
                                            std::uint64_t{static_cast<std::uint8_t>(part)} << 48 |
                                            std::uint64_t{port} << 32 | host));
  }
  bool grow();

  SipHash hash_;
  SharedTables* shared_;
  Pages<Slot> slots_;
  Pages<Entry> endpoints_;
  std::uint32_t mask_;
  std::uint32_t entries_ = 0;
  Pages<Lease> leases_;
  std::uint32_t lease_high_water_ = 0;
  std::uint32_t free_lease_;
  std::vector<std::unique_ptr<std::array<PortAllocator, parts>>> ports_;  // by address
};

}  // namespace sallyport::nat
