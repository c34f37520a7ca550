#pragma once

#include <optional>

#include "sallyport/values/address.hpp"
#include "sallyport/values/port.hpp"

namespace sallyport {

/// One remote peer, or a prefix of them, that inbound packets of a mapping may come from
/// (PCP FILTER, RFC 6887 section 13.3; UPnP RemoteHost). An empty port stands for all ports.
struct RemoteFilter {
  Prefix prefix;
  std::optional<Port> port;
  bool allows(const Address& remote, std::uint16_t remote_port) const noexcept {
    return prefix.contains(remote) && (!port || port->number() == remote_port);
  }
  friend bool operator==(const RemoteFilter&, const RemoteFilter&) = default;
};

}  // namespace sallyport
