#pragma once

#include <cstddef>

#include "nat/engine/engine.hpp"
#include "nat/packet/ipv4.hpp"

namespace sallyport::nat {

/// Why a packet went no further. Counted, and listed by PlaneStatus::drops under the names to_string() gives.
enum class DropReason : std::uint8_t {
  none,
  // what cannot be read (POL-NET-05), in the order of packet::Malformed
  truncated,
  bad_version,
  bad_header_length,
  bad_total_length,
  bad_header_checksum,
  ttl_zero,
  bad_option,
  source_route,
  bad_transport_header,
  bad_transport_length,
  port_zero,
  bad_tcp_flags,
  bad_fragment,
  bad_extension,
  // who speaks to whom
  spoofed_source,        ///< from the LAN, with a source that is not of the LAN or is the gateway's
  martian_source,        ///< from the WAN, with a source that cannot be there
  martian_destination,   ///< an address nothing is forwarded to
  internal_destination,  ///< from the WAN straight to an internal address (NSEC-01)
  not_ours,              ///< from the WAN, to an address that is not the gateway's
  no_external_address,
  unknown_protocol,
  unknown_icmp,
  ping_refused,
  hairpin_to_itself,
  ttl_expired,
  too_big,  ///< for the link it would leave by; its sender is told the MTU (IPv6)
  // mappings and flows
  no_mapping,
  filtered,
  disabled,
  no_session,
  out_of_window,
  ended,  ///< of a flow that ended with its lease
  mapping_limit,
  mapping_rate,  ///< more new mappings within a second than a device may make
  flow_limit,
  icmp_id_limit,
  no_ports,
  table_full,
  // ICMP errors
  bad_icmp_checksum,
  icmp_fits_nothing,
  // fragments
  fragment_overlap,
  fragment_limit,
  fragment_of_dropped,
  count_,
};

inline constexpr std::size_t drop_reasons = static_cast<std::size_t>(DropReason::count_);

/// The reason to drop what a parser, of either family, would not read.
DropReason reason_of(packet::Malformed malformed) noexcept;

}  // namespace sallyport::nat
