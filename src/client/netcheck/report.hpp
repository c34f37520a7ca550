#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "protocols/wire/mapping_client.hpp"
#include "sallyport/client/netcheck.hpp"
#include "sallyport/client/port.hpp"
#include "sallyport/values/address.hpp"
#include "sallyport/values/endpoint.hpp"

/// From what was seen to what it means. Pure.
namespace sallyport::client::netcheck {

/// A gateway said something by this protocol, be it a refusal.
struct Answered {
  Protocol protocol{};
  std::string with;  ///< "version 2", "IGD:2, ACME Router": may come from the network; empty: nothing to add
};
struct Granted {
  Protocol via{};
  ExternalEndpoint external;  ///< its address is unspecified while the gateway has told none
};
struct Refused {
  Protocol via{};
  wire::MappingFailure failure{};
  unsigned code = 0;  ///< the protocol's own; 0: none
};

/// The packet that the helper was asked to send to the test mapping.
struct Probe {
  enum class State : std::uint8_t {
    not_asked,
    arrived,
    silent,         ///< asked for, and not there after `waited`
    not_supported,  ///< the helper refuses to send one, or sent it to the socket that asked
  } state = State::not_asked;
  std::chrono::milliseconds waited{};
  std::string from;            ///< "198.51.100.20:3479", of arrived
  bool from_stranger = false;  ///< by an address that this host never sent to
};

/// What the test mapping of a path became: at most one is kept, by one protocol; the others may have refused.
struct TestMapping {
  std::optional<Granted> granted;
  std::vector<Refused> refused;  ///< oldest first
};

/// A way out by IPv4.
struct Path {
  std::string interface;
  Address local;
  bool routed = true;              ///< a default route leads there
  std::optional<Address> gateway;  ///< none: point-to-point, so there is nobody to ask
  std::vector<Answered> answers;
  std::optional<Address> gateway_external;  ///< as it told by any protocol
  TestMapping mapping;
  std::optional<ExternalEndpoint> seen;  ///< as the helper saw a socket of this path; none: it did not answer
  Probe probe;                           ///< to the address in `seen` and the port of the mapping
};

struct Ipv6 {
  std::vector<Address> addresses;  ///< of interfaces with a default route; of any kind
  TestMapping pinhole;
  Probe probe;
};

struct Observations {
  Transport transport = Transport::udp;
  std::optional<Port> port;
  std::optional<std::string> helper;  ///< "stun.example.net:3478"; none: not configured
  std::vector<Path> paths;
  Ipv6 ipv6;
};

NetcheckReport report(const Observations& seen);

}  // namespace sallyport::client::netcheck
