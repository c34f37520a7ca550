#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sallyport/values/address.hpp"
#include "sallyport/values/endpoint.hpp"
#include "sallyport/values/port.hpp"
#include "sallyport/values/transport.hpp"

/// Can the internet reach this host, and if not, what is in the way? Each stage of the answer is an
/// observation, with what was seen; what could not be observed is said to be unknown.
namespace sallyport::client {

struct NetcheckOptions {
  /// A server of RFC 5780 somewhere on the internet: it tells what address it saw, and sends the packet that
  /// shows whether the port is reachable.
  struct Helper {
    std::string host;  ///< a name or an address
    Port port = *Port::from(3478);
  };
  Transport transport = Transport::udp;  ///< a helper probes UDP only
  std::optional<Port> port{};            ///< to be tried; none: a free one
  std::optional<Helper> helper{};
  std::chrono::milliseconds patience{5000};  ///< for everything together
};

/// Best first: of several ways out the best one counts.
enum class Verdict : std::uint8_t {
  reachable,         ///< a packet from outside arrived
  likely_reachable,  ///< open on a public address; nothing outside has confirmed it
  unknown,           ///< open at the gateway, which does not tell its address
  blocked_ahead,     ///< open on the address that the outside sees, and yet its packet does not arrive
  double_nat,        ///< open at the gateway, behind which is another NAT
  carrier_nat,       ///< the same, and the other NAT is the provider's
  refused,           ///< the gateway answers, and does not open the port
  offline,           ///< the gateway answers, and is itself without the internet
  no_gateway,        ///< nothing on the network opens ports
  no_network,        ///< this host has no way out
};
/// "double_nat": as in the JSON.
std::string_view to_string(Verdict verdict) noexcept;

struct NetcheckReport {
  enum class State : std::uint8_t {
    yes,
    no,
    unknown,  ///< could not be observed
    skipped,  ///< has no meaning after what the stages before it saw
  };
  struct Stage {
    std::string name;  ///< as listed at `stages`
    State state = State::skipped;
    std::string evidence;  ///< a sentence with what was seen
  };
  struct Refusal {
    std::string via;     ///< "pcp", "natpmp" or "upnp"
    std::string reason;  ///< "not_authorized", "no_resources", ...: see src/client/netcheck/README.md
    unsigned code = 0;   ///< the protocol's own; 0: none
  };
  /// A way out: an interface and a gateway on it.
  struct Path {
    Verdict verdict = Verdict::no_gateway;    ///< had this been the only one
    std::string interface;                    ///< of this host
    Address local;                            ///< this host's address there
    std::optional<Address> gateway;           ///< none: a link without one
    std::vector<std::string> protocols;       ///< which the gateway answered: "pcp", "natpmp", "upnp"
    std::optional<Address> gateway_external;  ///< what it says its address on the outside is
    std::optional<ExternalEndpoint> mapped;   ///< what it opened
    std::string via;                          ///< by which protocol; empty when it opened nothing
    std::vector<Refusal> refusals;            ///< by whom it was refused
    std::optional<ExternalEndpoint> seen;     ///< this host as the helper saw it
    State probe = State::skipped;             ///< whether the helper's packet came in by `mapped`
  };
  struct Ipv6 {
    std::vector<Address> addresses;           ///< of this host, that the internet routes
    std::optional<ExternalEndpoint> pinhole;  ///< what is open
    std::string via;
    std::vector<Refusal> refusals;
    State probe = State::skipped;
  };

  Verdict verdict = Verdict::no_network;
  std::string summary;  ///< one sentence
  std::string advice;   ///< what to do next, one or two sentences; empty: nothing
  /// In this order, each a question: network (has this host a way out?), gateway (does one answer that opens
  /// ports?), mapping (did it open the port?), address (is its address public?), second_nat (does another NAT
  /// stand behind it?), probe (did a packet from outside arrive?), ipv6 (is the port open by IPv6?).
  std::vector<Stage> stages;

  Transport transport = Transport::udp;
  std::optional<Port> port;                  ///< that was tried
  std::optional<ExternalEndpoint> external;  ///< where peers reach it, as far as is known
  std::optional<std::string> helper;         ///< that was configured
  std::vector<Path> paths;                   ///< by IPv4; the first one is that of the verdict
  Ipv6 ipv6;
};
std::string_view to_string(NetcheckReport::State state) noexcept;

/// One object on one line, without a line end; src/client/netcheck/README.md has its fields.
std::string to_json(const NetcheckReport& report);
/// For a person at a terminal: lines of 80 columns at most, the last one ended.
std::string to_text(const NetcheckReport& report);

}  // namespace sallyport::client
