#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "sallyport/values/mapping_service.hpp"

/// The one table as UPnP sees it: entries named by remote host, external port and protocol, walked by index.
/// src/lease implements it beside MappingService; threads and callbacks as there.
namespace sallyport {

/// What names an entry (WANIPConnection: RemoteHost, ExternalPort, PortMappingProtocol), on the external
/// address of whoever says it.
struct EntryKey {
  Transport transport = Transport::tcp;
  Port external;
  std::optional<Address> remote;  ///< empty: any remote host
  friend bool operator==(const EntryKey&, const EntryKey&) = default;
};

/// An entry as it stands at one moment, by whatever protocol it came.
struct Entry {
  std::uint64_t position = 0;  ///< orders entries; never changes while the entry stands, never given again
  EntryKey key;
  InternalEndpoint internal;
  bool enabled = true;
  std::string description;
  std::uint32_t remaining_s = 0;  ///< 0: permanent; else 1 or more, rounded up
  Via via = Via::upnp;
};

/// AddPortMapping (`any` false) or AddAnyPortMapping (`any` true) of WANIPConnection.
struct EntryRequest {
  Address requester;
  EntryKey key;                  ///< with `any` the external port is a suggestion
  bool any = false;
  bool port_given = true;        ///< with `any`: false when the client left the external port open (0)
  InternalEndpoint internal;
  bool enabled = true;
  std::string description;       ///< raw octets of the client
  std::uint32_t lifetime_s = 0;  ///< 0: permanent, where policy allows; else cut to the longest lifetime
  Contact contact;
};

class EntryService {
 public:
  virtual ~EntryService() = default;
  using EntryDone = std::function<void(const Outcome<Entry>&, TimePoint now)>;
  using EntryReleaseDone = std::function<void(const Outcome<void>&, TimePoint now)>;

  /// Makes an entry, or overwrites the one of the same key and internal client. `done` runs exactly once, with
  /// success only after it is in force and synced. Refusals: not_authorized, device_blocked,
  /// insisted_port_forbidden (policy, or 1..1023), insisted_port_taken (the port is held by another device,
  /// protocol, static mapping or the gateway), quota_exceeded, no_ports_left, no_memory, no_external_address,
  /// store_unavailable. A refusal changes nothing.
  virtual void grant_entry(EntryRequest request, TimePoint now, EntryDone done) = 0;

  /// Ends the entry. not_found; not_authorized: it is another device's; not_owned_here: another protocol or
  /// the configuration made it.
  virtual void release_entry(const EntryKey& key, const Address& requester, TimePoint now,
                             EntryReleaseDone done) = 0;

  /// Ends every entry of the requester made by UPnP with an external port in the range. not_found: no entry at
  /// all there; not_authorized: there are some, but none this requester may end.
  virtual void release_entries(Transport transport, PortRange external, const Address& requester, TimePoint now,
                               EntryReleaseDone done) = 0;

  /// Entries there are, each once, whatever protocol made them; static ones among them.
  virtual std::size_t entry_count() const = 0;
  /// The index-th entry, 0 being the oldest; empty when there are not so many. Logarithmic.
  virtual std::optional<Entry> entry_at(std::size_t index, TimePoint now) const = 0;
  /// The first entry behind this position; empty at the end. Position 0 is before all.
  virtual std::optional<Entry> entry_after(std::uint64_t position, TimePoint now) const = 0;
  /// Every entry at one external port: several when they differ in remote host or external address. Costs a
  /// look-up an address.
  virtual std::vector<Entry> entries_on(Transport transport, Port external, TimePoint now) const = 0;
  virtual std::optional<Entry> find_entry(const EntryKey& key, const Address& requester,
                                          TimePoint now) const = 0;
};

}  // namespace sallyport
