#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "sallyport/values/endpoint.hpp"
#include "sallyport/values/mapping_service.hpp"
#include "sallyport/values/remote_filter.hpp"
#include "sallyport/values/result.hpp"
#include "sallyport/values/time.hpp"
#include "sallyport/values/transport.hpp"

/// The seam between the lease service and whatever carries packets: values only. Called by the control thread;
/// every call returns at once.
namespace sallyport::nat {

enum class PlaneErrc {
  no_external_address = 1,
  port_taken,       ///< insisted on, and held by another mapping or used by another device's outbound flow
  port_reserved,    ///< insisted on, and used by the router itself, excluded, or held by a static mapping
  no_ports_left,    ///< nothing free in the allowed range
  no_memory,        ///< a table is full
  not_found,        ///< no such mapping
  system_failure,   ///< the kernel refused; PlaneStatus::warnings says what
};
/// Here and not in a .cpp, so that whoever only calls planes (the lease service) links none.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wnon-virtual-dtor"  // Boost's, and nobody deletes a category
inline const boost::system::error_category& plane_category() noexcept {
  struct Category final : boost::system::error_category {
    const char* name() const noexcept override { return "sallyport.plane"; }
    std::string message(int value) const override {
      switch (static_cast<PlaneErrc>(value)) {
        case PlaneErrc::no_external_address: return "there is no external address now";
        case PlaneErrc::port_taken: return "another mapping or another device's flow holds the port";
        case PlaneErrc::port_reserved: return "the port is the gateway's own, excluded or statically mapped";
        case PlaneErrc::no_ports_left: return "no free port in the allowed range";
        case PlaneErrc::no_memory: return "a table of the translator is full";
        case PlaneErrc::not_found: return "no such mapping";
        case PlaneErrc::system_failure: return "the kernel refused";
      }
      return "unknown reason";
    }
  };
  static const Category category;
  return category;
}
#pragma GCC diagnostic pop
inline boost::system::error_code make_error_code(PlaneErrc error) noexcept {
  return {static_cast<int>(error), plane_category()};
}

/// Names an installed mapping until it is withdrawn; never reused within a run.
enum class MappingId : std::uint64_t {};

struct MappingSpec {
  Transport transport = Transport::udp;
  InternalEndpoint internal;
  std::optional<Port> suggested = {};  ///< taken when it is free and allowed
  bool insist = false;            ///< the suggested port or nothing
  bool restore = false;           ///< put back after a restart: implies insist, reuse delay and companion rule do not count
  bool is_static = false;         ///< from the configuration
  bool second_port = false;       ///< a further external port beside the one this endpoint already has (UPnP)
  bool enabled = true;            ///< false: holds the port, forwards nothing (POL-TGT-09)
  PortRange allowed{};            ///< for ports that the engine chooses, and for a suggestion
  TimePoint deadline = TimePoint::max();  ///< past it the mapping is absent, whether or not it was withdrawn
  std::vector<RemoteFilter> remotes = {};  ///< empty: everybody
  /// Kept for what the endpoint sends (PCP PEER): beside `remotes` those may come in whom outbound traffic would let in.
  bool outbound = false;
  bool at_random = false;         ///< without a suggestion: any port, not first the internal one's number
};

struct Installed {
  MappingId id{};
  ExternalEndpoint external;
};

/// External ports wanted for consecutive ports of one host, in the same order (PCP PORT_SET).
struct RangeSpec {
  Transport transport = Transport::udp;
  InternalEndpoint first;
  std::uint16_t size = 1;              ///< first.port + size - 1 is at most 65535
  bool parity = false;                 ///< the first external port is odd or even as the internal one
  std::optional<Port> suggested = {};  ///< for the first port; taken when all fit there
  bool insist = false;                 ///< there or nowhere
  PortRange allowed{};                 ///< all of them lie in it
};
struct FoundRange {
  Port first;
  std::uint16_t size;  ///< from 1 to what was asked for
};

/// How a withdrawn mapping ends (NMAP-09): reset kills its live flows and keeps the port for the reuse delay;
/// drain lets live sessions go on as implicit ones; vacate frees the port at once, as for a grant taken back
/// before it was acknowledged.
enum class Ending : std::uint8_t { reset, drain, vacate };

/// A network interface as the planes need it.
struct PlaneInterface {
  std::string name;
  std::uint32_t index = 0;  ///< 0: it does not exist now
  std::uint32_t mtu = 1500;
  bool up = false;
  std::vector<Address> addresses;  ///< addresses of the gateway on it, link-local ones of IPv6 too
  std::vector<Prefix> prefixes;    ///< LAN: its subnets and the routed ones behind it; never fe80::/10
  friend bool operator==(const PlaneInterface&, const PlaneInterface&) = default;
};

/// What the planes know of the network around. The daemon follows it by netlink and passes each change on.
struct NetworkView {
  std::vector<PlaneInterface> lan;
  std::vector<PlaneInterface> wan;
  std::vector<Address> external;   ///< external addresses (IPv4) in order of preference; empty: none now
  bool external_pool =
      false;  ///< hosts are spread over all of `external`; false: the first one is everybody's
  std::vector<Prefix> untranslated;  ///< main-table routes that leave by neither LAN nor WAN, and `no_translate`
  /// Those of `external` that hosts have.
  std::span<const Address> pool() const {
    return std::span{external}.first(external_pool ? external.size()
                                                   : std::min<std::size_t>(external.size(), 1));
  }
  friend bool operator==(const NetworkView&, const NetworkView&) = default;
};

enum class Filtering : std::uint8_t { endpoint, address, address_and_port };  // EIF, ADF, APDF

/// Limits, timers and filtering; keys of the configuration's [engine], [limits] and [filtering]. 0 is "no limit".
struct PlanePolicy {
  PortRange pool{1024, 60999};  ///< implicit mappings
  std::vector<std::pair<Transport, Port>> reserved;  ///< `reserved_ports` and the control ports: given to nobody
  std::chrono::seconds tcp_established{7440};
  std::chrono::seconds tcp_transitory{240};
  std::chrono::seconds tcp_half_open{240};  ///< from the first SYN until the other side's (N5382-13)
  std::chrono::seconds udp_idle{300};
  std::chrono::seconds icmp_query{60};
  std::chrono::seconds fragment_timeout{15};
  std::chrono::seconds reuse_delay{120};
  bool reuse_strict = false;
  Filtering implicit = Filtering::address;
  bool random_ports = false;  ///< outbound traffic never keeps its port number (RFC 6056)
  bool icmp_to_lan = true, icmp_to_wan = true;  ///< ICMP errors of the translator itself (N5508-32)
  bool answer_ping = true;
  bool redirect = false;  ///< ebpf: packets pass from interface to interface without the stack where they can
  bool drop_private_wan_sources = false;
  std::uint32_t mappings_per_device = 16384;
  std::uint32_t new_mappings_per_second = 0;  ///< of one device (N6888-04)
  std::uint32_t flows_per_device = 65536;
  std::uint32_t flows_total = 262144;
  std::uint32_t icmp_ids_per_device = 1024;
  std::uint32_t fragments_per_source = 256;
  std::uint32_t fragments_total = 8192;
  std::uint32_t mss_clamp = 1;  ///< 0: off, 1: auto (when the WAN's MTU is below the LAN's), else the value
  bool ipv6 = true;  ///< the firewall stands before IPv6 too; false: the system forwards it as configured
  friend bool operator==(const PlanePolicy&, const PlanePolicy&) = default;
};

/// An implicit mapping, for `list --all`.
struct ImplicitView {
  Transport transport{};
  InternalEndpoint internal;
  ExternalEndpoint external;
  TimePoint deadline;
};

struct PlaneStatus {
  std::string name;      ///< "memory", "tun", "ebpf"
  bool running = false;  ///< packets pass
  std::uint64_t explicit_mappings = 0;
  std::uint64_t implicit_mappings = 0;
  std::uint64_t flows = 0;
  std::uint64_t packets = 0;  ///< translated, both directions
  std::vector<std::pair<std::string, std::uint64_t>> drops;  ///< by reason (NSEC-07)
  std::vector<std::string> warnings;  ///< in words, with what to do
  std::string ipv6;  ///< what becomes of IPv6, in words; empty: nothing to say
};

/// Something the control thread should know of, found by a sweep.
struct PlaneEvent {
  enum class Kind : std::uint8_t { shortage, own_port_conflict } kind{};
  std::string text;
};

class DataPlane {
 public:
  virtual ~DataPlane() = default;

  /// Claims an external port atomically and puts the mapping in force. Renewing or changing filters is not done
  /// here but by renew() and set_remotes(). An implicit mapping of the very same endpoint is turned into this one
  /// and keeps its port (unless `insist` names another: port_taken). Without an external address only restored
  /// and static mappings are taken: their external address reads 0.0.0.0 and they forward once there is one.
  ///
  /// For an IPv6 endpoint it opens a pinhole: nothing is translated, the external endpoint is the internal one, and a
  /// second one is port_taken. Insisting on another port is port_reserved; a mere suggestion, `allowed`, `at_random`,
  /// `second_port` play no part, and no external address is needed. Whether the address is a LAN host's is the
  /// caller's to know: only to those anything is forwarded.
  virtual Result<Installed> install(const MappingSpec& spec, TimePoint now) = 0;
  /// Where such a range is free now, or the longest part of it from its first port on. Claims nothing: each
  /// port is then install()ed, insisting on its number. The range goes first where outbound packets of its
  /// first port already leave from, then where it is suggested, then to the internal ports' own numbers.
  virtual std::optional<FoundRange> find_range(const RangeSpec& spec, TimePoint now) = 0;
  virtual Result<void> renew(MappingId id, TimePoint deadline) = 0;
  virtual Result<void> set_remotes(MappingId id, std::span<const RemoteFilter> remotes, bool outbound, TimePoint now) = 0;
  virtual void withdraw(MappingId id, Ending how, TimePoint now) = 0;
  /// Ends every flow and implicit mapping of a device (revoke --block).
  virtual void end_flows(const Address& device, TimePoint now) = 0;
  virtual Result<Counters> counters(MappingId id) const = 0;
  /// For a refusal: when the mapping that holds this IPv4 port of the device's address ends; empty where
  /// nobody holds it, max() for good.
  virtual std::optional<TimePoint> held_until(Transport transport, const Address& device, Port external,
                                              TimePoint now) const = 0;
  /// The external address of this device's mappings (N4787-02); empty: there is none now. One of IPv6 is told
  /// the first.
  virtual std::optional<Address> external_for(const Address& device) const = 0;

  /// A device that has another external address now loses its flows and implicit mappings. Its explicit ones
  /// move there with their ports; one whose port another holds there is gone (renew: not_found) until it is
  /// installed anew.
  virtual Result<void> set_network(const NetworkView& network, TimePoint now) = 0;
  virtual Result<void> set_policy(const PlanePolicy& policy, TimePoint now) = 0;
  /// Frees memory of what is over; called about once a second.
  virtual std::vector<PlaneEvent> sweep(TimePoint now) = 0;
  virtual std::vector<ImplicitView> implicit_mappings(TimePoint now) const = 0;  ///< IPv4
  /// Whether outbound packets alone keep a mapping of this endpoint (IPv6: a flow) now. What drains after a lease does not count.
  virtual bool has_implicit(Transport transport, const InternalEndpoint& internal, TimePoint now) const = 0;
  virtual PlaneStatus status() const = 0;
};

}  // namespace sallyport::nat

template <>
struct boost::system::is_error_code_enum<sallyport::nat::PlaneErrc> : std::true_type {};
