#pragma once

#include <cstdint>
#include <functional>
#include <optional>

#include "sallyport/values/mapping_service.hpp"

/// IPv6 pinholes as WANIPv6FirewallControl names them: by a number of 16 bits. They are leases like any
/// other; src/lease implements this beside MappingService; threads and callbacks as there.
namespace sallyport {

/// A pinhole of UPnP as it stands at one moment.
struct Pinhole {
  std::uint16_t id = 0;  ///< 1..65535; the same while it stands, also after a restart
  Transport transport = Transport::tcp;
  InternalEndpoint internal;
  std::optional<RemoteFilter> remote;  ///< empty: everybody
  std::uint32_t remaining_s = 0;       ///< 0: permanent; else 1 or more, rounded up
  Counters counters;
  bool forwards = false;  ///< false: its host is in no prefix of the LAN now
};

/// AddPinhole of WANIPv6FirewallControl:1.
struct PinholeRequest {
  Address requester;  ///< the source of the request; an IPv4 address when it came over IPv4
  Transport transport = Transport::tcp;
  InternalEndpoint internal;
  std::optional<RemoteFilter> remote;
  std::uint32_t lifetime_s = 0;  ///< more than 0
  Contact contact;
};

class PinholeService {
 public:
  virtual ~PinholeService() = default;
  using PinholeDone = std::function<void(const Outcome<Pinhole>&, TimePoint now)>;
  using PinholeReleaseDone = std::function<void(const Outcome<void>&, TimePoint now)>;

  struct Status {
    bool firewall = true;  ///< the firewall stands before IPv6
    bool allowed = true;   ///< it may be opened: the policy leaves somebody something
    friend bool operator==(const Status&, const Status&) = default;
  };
  virtual Status pinhole_status() const = 0;

  /// Opens a pinhole, or renews the requester's own with the same endpoint, transport and remote. `done` runs
  /// exactly once, with success only after it is in force and synced. Refusals: not_authorized (the target is
  /// not the requester's device or no host of the LAN, or the policy says no), device_blocked, no_pinholes,
  /// quota_exceeded, no_ports_left, no_memory, store_unavailable. A refusal changes nothing.
  virtual void grant_pinhole(PinholeRequest request, TimePoint now, PinholeDone done) = 0;
  /// not_found; not_authorized: it is another device's; not_owned_here: the configuration made it.
  virtual void renew_pinhole(std::uint16_t id, const Address& requester, std::uint32_t lifetime_s,
                             TimePoint now, PinholeDone done) = 0;
  virtual void release_pinhole(std::uint16_t id, const Address& requester, TimePoint now,
                               PinholeReleaseDone done) = 0;
  /// With counters as of now. not_found; not_authorized: it is another device's.
  virtual Outcome<Pinhole> find_pinhole(std::uint16_t id, const Address& requester, TimePoint now) const = 0;
};

}  // namespace sallyport
