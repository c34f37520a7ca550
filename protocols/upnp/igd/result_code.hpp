#pragma once

#include "sallyport/values/mapping_error.hpp"

/// What the refusals of the lease service are in UPnP's words (policy.md, section 3).
namespace sallyport::upnp::igd {

enum class EntryAction { add, add_any, remove, remove_range };

/// An errorCode of UPnP.
unsigned error_code(MappingErrc reason, EntryAction action) noexcept;

/// An errorCode of WANIPv6FirewallControl.
unsigned pinhole_error_code(MappingErrc reason) noexcept;

}  // namespace sallyport::upnp::igd
