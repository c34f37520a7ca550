#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sallyport/client/error.hpp"
#include "sallyport/values/address.hpp"
#include "sallyport/values/endpoint.hpp"
#include "sallyport/values/port.hpp"
#include "sallyport/values/remote_filter.hpp"
#include "sallyport/values/time.hpp"
#include "sallyport/values/transport.hpp"

/// What a program asks for, and what it is told. Plain values: copy them, keep them, use them in any thread.
namespace sallyport::client {

/// How a gateway is asked. In the order of preference.
enum class Protocol : std::uint8_t {
  pcp,     ///< RFC 6887
  natpmp,  ///< RFC 6886
  upnp,    ///< UPnP IGD:1, IGD:2
};
/// "pcp", "natpmp", "upnp".
constexpr std::string_view to_string(Protocol protocol) noexcept {
  switch (protocol) {
    case Protocol::pcp:
      return "pcp";
    case Protocol::natpmp:
      return "natpmp";
    case Protocol::upnp:
      return "upnp";
  }
  return "unknown";
}

enum class Family : std::uint8_t {
  ipv4,  ///< a mapping on the gateway's external address
  ipv6,  ///< a pinhole in its firewall: the address stays this host's own
};
/// "ipv4", "ipv6".
std::string_view to_string(Family family) noexcept;

/// A port of this host that is to be reachable from outside.
struct PortRequest {
  Transport transport = Transport::tcp;
  Port internal_port;                   ///< where this host listens
  std::optional<Port> external_port{};  ///< suggested; none: the same number, or any other
  bool exact = false;                   ///< only that external port, or none
  std::chrono::seconds lifetime{7200};  ///< asked for, 1 s and up; what is granted is renewed in time, for as
                                        ///< long as the handle lives
  std::string description{};            ///< shown to the gateway's owner; UTF-8, at most 255 octets are sent
  std::vector<RemoteFilter> remotes{};  ///< who may come in; empty: everybody. A gateway that cannot keep
                                        ///< others out is not asked to let them in
  bool ipv4 = true;                     ///< a mapping on the gateway's external address
  bool ipv6 = true;  ///< a pinhole in its IPv6 firewall, where this host has a global address
};

/// A door that is open. The default one means nothing.
struct Grant {
  Protocol protocol = Protocol::pcp;
  Family family = Family::ipv4;
  Address gateway;                                ///< who granted it
  std::string interface;                          ///< of this host, that leads there
  InternalEndpoint internal{{}, *Port::from(9)};  ///< of this host
  ExternalEndpoint external{
      {}, *Port::from(9)};  ///< where the world finds it. The address is 0.0.0.0 while the gateway tells none
  std::chrono::seconds lifetime{0};  ///< as granted last; 0: permanent, until it is closed
  TimePoint deadline{};              ///< when it ends if it is not renewed; meaningless for permanent ones
  friend bool operator==(const Grant&, const Grant&) = default;
};

enum class EventKind : std::uint8_t {
  granted,  ///< the door is open
  renewed,  ///< and stays so, at the same external endpoint
  changed,  ///< the door is open, but elsewhere: tell the world
  revoked,  ///< the gateway took it back though it had lost nothing: its administrator, most likely
  lost,  ///< it is not open any more: the gateway has lost it or is gone, or this host moved; asking goes on
  refused,  ///< it cannot be had now, and why; asked again by itself at the time told
  closed,   ///< given back at this program's wish: the last event of a handle
};
/// "granted", "renewed" and so on.
std::string_view to_string(EventKind kind) noexcept;

struct Event {
  EventKind kind = EventKind::granted;
  Family family = Family::ipv4;
  std::optional<Grant>
      grant;  ///< of granted, renewed and changed: as it is now; else as it was, where there was one
  std::optional<Grant> former;       ///< of changed: as it was
  boost::system::error_code reason;  ///< of revoked, lost, refused: an Errc
  std::optional<std::chrono::seconds>
      retry_in;      ///< of refused: from the event on; none: when the network changes
  std::string text;  ///< a sentence for people: who said what
};

/// A gateway, as far as it told about itself.
struct Gateway {
  Address address;                          ///< where it is asked
  std::string interface;                    ///< of this host, that leads there
  std::vector<Protocol> protocols;          ///< those it answers to
  std::string name;                         ///< of UPnP: "FRITZ!Box 7590", untrusted text; empty: not known
  std::optional<unsigned> igd_version;      ///< of UPnP: 1 or 2
  std::optional<Address> external_address;  ///< as it tells it
  bool firewall6 = false;                   ///< of UPnP: offers IPv6 pinholes
  std::optional<std::uint32_t> epoch_s;     ///< of PCP or NAT-PMP: seconds since it last lost its mappings
};

}  // namespace sallyport::client
