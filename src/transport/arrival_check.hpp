#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "nat/plane/data_plane.hpp"
#include "protocols/wire/datagram_core.hpp"

namespace sallyport::transport {

/// Why a datagram gets no answer at all (policy.md, POL-WHO-01..03).
enum class Ignored : std::uint8_t {
  no,                 ///< it counts
  wrong_interface,    ///< it did not come by the interface of this socket
  wrong_destination,  ///< not a unicast address of the gateway on that interface
  wrong_source,       ///< not an address of a host behind that interface
};

/// `own` are the gateway's addresses on all interfaces: what claims to come from them is forged.
Ignored check_arrival(const wire::Arrival& arrival, const nat::PlaneInterface& interface,
                      std::span<const Address> own) noexcept;

/// True for an address that one host can have: not 0/8, 127/8, 169.254/16, multicast, 240/4 or broadcast; of
/// IPv6 not ::/96 (:: and ::1 are in it) and not multicast.
bool is_host_address(const Address& address) noexcept;

}  // namespace sallyport::transport
