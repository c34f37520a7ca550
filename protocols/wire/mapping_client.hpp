#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "sallyport/values/address.hpp"
#include "sallyport/values/endpoint.hpp"
#include "sallyport/values/port.hpp"
#include "sallyport/values/remote_filter.hpp"
#include "sallyport/values/time.hpp"
#include "sallyport/values/transport.hpp"

/// The asking side of the protocols, in one shape, so that who keeps a port open need not know which of them does it.
namespace sallyport::wire {

/// What is to be kept open, for the host that asks.
struct MappingWish {
  Transport transport = Transport::tcp;
  Port internal_port;
  std::optional<Port> external_port;  ///< suggested; none: the internal one
  Address external_address;           ///< suggested: what it last had (PCP-11.2-03); unspecified: none
  bool exact = false;                 ///< only `external_port` will do
  std::uint32_t lifetime_s = 7200;    ///< asked for, 1..2^32-1
  std::vector<RemoteFilter> remotes;  ///< empty: everybody may come in
  std::string description;            ///< UTF-8, may be empty
  friend bool operator==(const MappingWish&, const MappingWish&) = default;
};

/// What the gateway gave.
struct Granted {
  ExternalEndpoint external;           ///< its address is unspecified while the gateway has told none
  std::uint32_t lifetime_s = 0;        ///< from `at` on; 0: the gateway gives permanent ones only (UPnP error 725)
  TimePoint at{};
  friend bool operator==(const Granted&, const Granted&) = default;
};

/// Why there is no mapping: one list for all protocols; `MappingEvent::code` has the protocol's own.
enum class MappingFailure : std::uint8_t {
  unsupported,       ///< the gateway does not speak this protocol, or not this part of it: ask by another one
  no_answer,         ///< it does not answer now; asking goes on, ever more seldom
  not_authorized,    ///< this host, this port or everything is forbidden by the gateway's owner
  no_resources,      ///< the gateway has no room, or this host has its share
  port_taken,        ///< the wished port is another's, and only it would do
  no_external_address,  ///< the gateway is itself without the outside now
  address_mismatch,  ///< a NAT lies between this host and the gateway (PCP-8.3-08)
  not_possible,      ///< the gateway cannot do what was asked: filters, this transport, these arguments
  nonsense,          ///< it answers what the protocol does not allow
};

struct MappingEvent {
  enum class Kind : std::uint8_t {
    granted,  ///< first grant, or the first one after it was refused or ended
    renewed,  ///< the same external endpoint for another lifetime
    changed,  ///< still granted, but with another external endpoint
    ended,    ///< it was granted and is not any more; `failure` has the gateway's word where it gave one
    refused,  ///< it is not granted; asked again by itself at `retry_at`
  };
  Kind kind{};
  Granted granted;                    ///< of granted, renewed and changed
  MappingFailure failure{};           ///< of ended and refused
  unsigned code = 0;                  ///< PCP or NAT-PMP result code, UPnP error code, HTTP status; 0: none
  std::optional<TimePoint> retry_at;  ///< of refused: none when it is not asked again
  bool told = false;                  ///< of ended: the gateway said so itself, by an update or on being asked
                                      ///< while it had lost nothing: somebody took it back
  friend bool operator==(const MappingEvent&, const MappingEvent&) = default;
};

/// Keeps one mapping at one gateway by one protocol. Holds no socket and reads no clock or random device: feed it,
/// drain what it has to send, then its events, then wake it at next_deadline(). It asks from the moment it is made.
/// Equal inputs and an equal seed give equal outputs. One thread at a time.
class MappingClient {
 public:
  virtual ~MappingClient() = default;
  virtual void handle_timeout(TimePoint now) = 0;
  /// The gateway has lost its state, or the network hints so: asks at once for what is held, by the same name (nonce,
  /// ports). Does nothing while an answer is awaited or after release().
  virtual void refresh(TimePoint now) = 0;
  /// Gives the mapping back, or stops asking; finished() follows, at the latest after the last of 3 transmissions
  /// (PCP-15.1-12). No events come after it.
  virtual void release(TimePoint now) = 0;
  virtual bool finished() const noexcept = 0;
  virtual std::optional<MappingEvent> poll_event() = 0;
  virtual std::optional<TimePoint> next_deadline() const = 0;
};

/// One whose messages are single datagrams to the gateway's port 5351.
class DatagramMappingClient : public MappingClient {
 public:
  /// False: the datagram is not about this mapping (of another one, or malformed); nothing has changed.
  virtual bool handle_datagram(std::span<const std::byte> datagram, TimePoint now) = 0;
  /// The kernel says that nobody listens there (ICMP port unreachable): refused with `unsupported` at once.
  virtual void handle_unreachable(TimePoint now) = 0;
  virtual std::optional<std::vector<std::byte>> poll_transmit() = 0;
};

}  // namespace sallyport::wire
