#pragma once

#include "sallyport/values/mapping_error.hpp"

/// What the refusals of the lease service are in WANIPConnection's words (policy.md, section 3).
namespace sallyport::upnp::igd {

enum class EntryAction { add, add_any, remove, remove_range };

/// An errorCode of UPnP.
unsigned error_code(MappingErrc reason, EntryAction action) noexcept;

}  // namespace sallyport::upnp::igd
