#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "sallyport/values/address.hpp"
#include "sallyport/values/time.hpp"

namespace sallyport::wire {

/// How a datagram came in. The transport has already checked that it came by a served LAN interface, from a
/// source that belongs there, to the gateway's own unicast address on it (POL-WHO-01..03).
struct Arrival {
  Address source;
  std::uint16_t source_port = 0;
  Address destination;          ///< the gateway's address that was addressed
  std::uint32_t interface = 0;  ///< index of the LAN interface
};

/// A datagram to send. `from` is the gateway's address and source port; `to` may be a multicast group.
struct Outgoing {
  std::vector<std::byte> bytes;
  Address to;
  std::uint16_t to_port = 0;
  Address from;
  std::uint16_t from_port = 0;
  std::uint32_t interface = 0;
};

/// One address of a LAN interface on which announcements are due.
struct ServedAddress {
  std::uint32_t interface = 0;
  Address address;
  friend bool operator==(const ServedAddress&, const ServedAddress&) = default;
};

/// The shape that every datagram protocol has: feed it, drain it, wake it. No socket, no clock.
class DatagramCore {
 public:
  virtual ~DatagramCore() = default;
  virtual void handle_datagram(std::span<const std::byte> datagram, const Arrival& arrival,
                               TimePoint now) = 0;
  virtual void handle_timeout(TimePoint now) = 0;
  /// What is to be sent next, oldest first. Answers may become ready later than the request (after the
  /// store's commit): whoever drives the service drains the cores after it.
  virtual std::optional<Outgoing> poll_transmit() = 0;
  virtual std::optional<TimePoint> next_deadline() const = 0;
};

}  // namespace sallyport::wire
