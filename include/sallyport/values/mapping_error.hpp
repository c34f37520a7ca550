#pragma once

#include <boost/system/error_code.hpp>

namespace sallyport {

/// Why a request about a mapping was refused. Each protocol has one switch from these into its own codes
/// (policy.md, section 3).
enum class MappingErrc {
  not_authorized = 1,       ///< the policy does not let this device (or this target) have this mapping
  device_blocked,           ///< the administrator revoked it with --block
  no_ports_left,            ///< every external port this device may have is taken
  no_memory,                ///< a table of the gateway is full
  quota_exceeded,           ///< the device already holds as many leases as it may
  insisted_port_taken,      ///< the client insisted on an external port (or address) that it cannot have now
  insisted_port_forbidden,  ///< the same, for good: policy, a static mapping, the gateway's own port
  no_external_address,      ///< the gateway has no external address now
  unsupported_transport,    ///< only TCP and UDP on one port are mapped
  foreign_nonce,            ///< PCP: the nonce is not the one that made the mapping
  not_owned_here,           ///< the lease was made by another protocol, or is static: this one cannot end it
  not_found,                ///< no such lease
  store_unavailable,        ///< nothing can be promised because it cannot be written down
  too_many_filters,         ///< more remote filters than one mapping can have
  no_pinholes,              ///< IPv6: the firewall is off, so there is nothing to open
};

const boost::system::error_category& mapping_category() noexcept;
inline boost::system::error_code make_error_code(MappingErrc error) noexcept {
  return {static_cast<int>(error), mapping_category()};
}

}  // namespace sallyport

template <>
struct boost::system::is_error_code_enum<sallyport::MappingErrc> : std::true_type {};
