#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sallyport/values/endpoint.hpp"
#include "sallyport/values/mapping_error.hpp"
#include "sallyport/values/remote_filter.hpp"
#include "sallyport/values/result.hpp"
#include "sallyport/values/time.hpp"
#include "sallyport/values/transport.hpp"

/// The interface that every protocol server calls and src/lease implements. All calls and all callbacks happen
/// on the control thread; nothing here waits. A callback may run before the call that took it returns.
namespace sallyport {

/// By which door a lease came.
enum class Via : std::uint8_t { pcp = 1, natpmp = 2, upnp = 3, admin = 4, config = 5 };
constexpr std::string_view to_string(Via via) noexcept {
  switch (via) {
    case Via::pcp: return "pcp";
    case Via::natpmp: return "natpmp";
    case Via::upnp: return "upnp";
    case Via::admin: return "admin";
    case Via::config: return "config";
  }
  return "unknown";
}

/// The 96 bits that prove the renewer of a PCP mapping is its creator (RFC 6887, section 11.1).
using Nonce = std::array<std::byte, 12>;

/// Where the last request for a lease came from: unsolicited updates go there (RFC 6887, section 14.2).
struct Contact {
  std::uint32_t interface = 0;  ///< index of the LAN interface
  Address client;
  std::uint16_t client_port = 0;
  Address gateway;  ///< the gateway address the request was sent to
  friend bool operator==(const Contact&, const Contact&) = default;
};

struct GrantRequest {
  Via via = Via::pcp;
  Transport transport = Transport::udp;
  Address requester;          ///< the device that asks: the source address of the request
  /// Where inbound packets are to go; another device's only with third_party. An IPv6 endpoint gets a
  /// pinhole: the external endpoint is the same, and no external IPv4 address is needed.
  InternalEndpoint internal;
  bool third_party = false;   ///< the requester named another device (PCP THIRD_PARTY)
  std::optional<Nonce> nonce;
  std::optional<Port> suggested_port;
  std::optional<Address> suggested_address;  ///< empty: any
  bool insist = false;             ///< exactly the suggestion or nothing (PCP PREFER_FAILURE)
  /// A set: so many from `internal` on, to as many external ports in a row, all or (without `insist`) some
  /// from the first on. Each port is a lease to lists and quotas; the set is granted, renewed and ended as a
  /// whole (RFC 7753). internal.port + ports - 1 is at most 65535. There are no sets of pinholes: `internal`
  /// alone is opened.
  std::uint16_t ports = 1;
  bool parity = false;             ///< the first external port is odd or even as the internal one
  std::uint32_t lifetime_s = 0;    ///< as asked, more than 0; the service cuts it to the window of `via`
  bool clear_filters = false;      ///< filters in force are removed before `filters` are added
  std::vector<RemoteFilter> filters;
  /// PCP PEER: keeps the mapping that packets to the one remote peer in `filters` make, and opens it no further
  /// (RFC 6887, section 12). A lease of its own, beside others of the endpoint, for each peer; it has the external port
  /// that is there. `insist` counts for a new mapping only; `lifetime_s` may be 0 and never shortens.
  bool outbound = false;
  std::optional<std::string> description;  ///< raw octets of the client; empty leaves the old one as it is
  Contact contact;
};

struct Granted {
  std::uint64_t lease = 0;
  ExternalEndpoint external;
  std::uint32_t lifetime_s = 0;  ///< granted; the client may rely on it from now on
  std::string description;       ///< as stored
  std::uint16_t ports = 1;  ///< in force from the requested internal port and `external` on, at most as asked
};

/// A refusal, with how long it will hold where that is known (PCP-7-11, PCP-11.3-06, PCP-13.2-03).
struct Refusal {
  MappingErrc reason{};
  std::optional<std::uint32_t> retry_after_s;
};

template <class T>
using Outcome = boost::system::result<T, Refusal>;

struct ReleaseRequest {
  Via via = Via::pcp;
  Transport transport = Transport::udp;
  Address requester;
  InternalEndpoint internal;
  bool third_party = false;
  std::optional<Nonce> nonce;
  std::uint16_t ports =
      1;  ///< a range, of IPv4: what is leased of it ends, a set as a whole whichever part of it is named
};

/// A delete-all of NAT-PMP: every lease that `requester` made by `via` for one transport (RFC 6886, section 3.4).
struct ReleaseAllRequest {
  Via via = Via::natpmp;
  Transport transport = Transport::udp;
  Address requester;
};

enum class LeaseState : std::uint8_t { active, disabled, pending, ending };
enum class LeaseKind : std::uint8_t { explicit_, static_, implicit };

struct Counters {
  std::uint64_t packets_in = 0;  ///< towards the LAN
  std::uint64_t packets_out = 0;
  std::uint64_t bytes_in = 0;  ///< octets of IP packets
  std::uint64_t bytes_out = 0;
  std::optional<TimePoint> last_packet;
};

/// A lease as events and lists show it: a copy, taken at one moment.
struct LeaseView {
  std::uint64_t number = 0;  ///< never reused, also not after a restart
  std::string id;            ///< four or more of [a-z2-9], a function of the number
  LeaseState state = LeaseState::active;
  LeaseKind kind = LeaseKind::explicit_;
  Via via = Via::pcp;
  Transport transport = Transport::udp;
  InternalEndpoint internal;
  ExternalEndpoint external;
  std::vector<RemoteFilter> remotes;
  bool outbound = false;  ///< made by PCP PEER: `remotes` are the peers that it is kept for
  std::uint16_t set_size = 1;   ///< ports of the set that this lease is one of; 1: of none
  std::uint16_t set_place = 0;  ///< its place in the set, both ports counting from the set's first
  std::string description;
  std::optional<std::uint32_t> lifetime_s;  ///< as last granted; empty: permanent
  std::optional<TimePoint> deadline;        ///< empty: permanent
  WallTime created;
  std::uint32_t renewals = 0;
  Counters counters;
  std::optional<Nonce> nonce;  ///< for protocol cores only: never shown (POL-TXT-05)
  Contact contact;
};

enum class LeaseEventKind : std::uint8_t { granted, renewed, changed, ended };
enum class LeaseEventReason : std::uint8_t {
  requested,        ///< the client asked
  expired,          ///< its lifetime was over
  revoked,          ///< by the administrator
  address_changed,  ///< the external address or port is another now
  replaced,         ///< a static mapping took its port
  configured,       ///< from the configuration
  lost,             ///< could not be put back in force
  policy,           ///< a new policy forbids it
};
std::string_view to_string(LeaseEventKind kind) noexcept;
std::string_view to_string(LeaseEventReason reason) noexcept;

struct LeaseEvent {
  LeaseEventKind kind{};
  LeaseEventReason reason{};
  LeaseView lease;
};

/// Told on the control thread, after what it tells is committed and in force. Must not call back into the service
/// from inside; must not throw.
class ServiceListener {
 public:
  virtual ~ServiceListener() = default;
  virtual void on_lease(const LeaseEvent&, TimePoint) {}
  /// The epoch went back to 0 (leases lost, or another external address): announce (RFC 6887 14.1, RFC 6886 3.2.1).
  virtual void on_epoch_reset(TimePoint) {}
  /// The same for the epoch of IPv6: leases were lost.
  virtual void on_ipv6_epoch_reset(TimePoint) {}
  /// The external address came, went or changed, for some device at least. Empty: there is none now; else the
  /// preferred one: a device may have another.
  virtual void on_external_address(const std::optional<Address>&, TimePoint) {}
};

class MappingService {
 public:
  using GrantDone = std::function<void(const Outcome<Granted>&, TimePoint now)>;
  using ReleaseDone = std::function<void(const Outcome<void>&, TimePoint now)>;

  virtual ~MappingService() = default;

  /// Grants a lease, or renews the one this device holds for the same transport and internal endpoint by the same
  /// protocol. `done` runs exactly once: with success only after the lease is in force in the data plane and
  /// synced in the store. A refusal changes nothing.
  virtual void grant(GrantRequest request, TimePoint now, GrantDone done) = 0;

  /// Ends a lease. Ending what does not exist succeeds. Leases of other protocols and static ones, and for PCP
  /// implicit mappings (RFC 6887, section 15.1): not_owned_here; PCP with another nonce: foreign_nonce with the
  /// remaining lifetime.
  virtual void release(ReleaseRequest request, TimePoint now, ReleaseDone done) = 0;

  /// Ends all of the requester's leases of one protocol and transport. A static mapping that it meets is left and
  /// turns the answer into not_owned_here; leases of other protocols are not meant (NPM-3.4-12).
  virtual void release_all(ReleaseAllRequest request, TimePoint now, ReleaseDone done) = 0;

  /// The external address this device is told, or no_external_address: all its mappings have the same one
  /// (N4787-02). Of no device (unspecified): the preferred one.
  virtual Result<Address> external_address(const Address& device) const = 0;

  /// Seconds since the mapping table was last lost; one counter for all protocols (PCP-8.5-05).
  virtual std::uint32_t epoch_s(TimePoint now) const = 0;
  /// The same for IPv6 pinholes, which another external address does not touch: what PCP tells over IPv6.
  virtual std::uint32_t ipv6_epoch_s(TimePoint now) const { return epoch_s(now); }

  virtual void add_listener(ServiceListener& listener) = 0;
  virtual void remove_listener(ServiceListener& listener) = 0;
};

}  // namespace sallyport
