#include "protocols/upnp/igd/result_code.hpp"

namespace sallyport::upnp::igd {

unsigned error_code(MappingErrc reason, EntryAction action) noexcept {
  constexpr unsigned action_failed = 501, not_authorized = 606, no_such_entry = 714, conflict = 718,
                     no_ports = 728, nothing_in_range = 730;
  switch (reason) {  // no default: the compiler names a forgotten reason
    case MappingErrc::not_authorized:
    case MappingErrc::device_blocked:
    case MappingErrc::not_owned_here:
    case MappingErrc::foreign_nonce: return not_authorized;
    case MappingErrc::insisted_port_taken:
    case MappingErrc::insisted_port_forbidden: return conflict;
    case MappingErrc::no_ports_left:
    case MappingErrc::no_memory:
    case MappingErrc::quota_exceeded: return action == EntryAction::add_any ? no_ports : action_failed;
    case MappingErrc::not_found:
      return action == EntryAction::remove_range ? nothing_in_range : no_such_entry;
    case MappingErrc::no_external_address:
    case MappingErrc::unsupported_transport:
    case MappingErrc::store_unavailable:
    case MappingErrc::too_many_filters:
    case MappingErrc::no_pinholes:
      return action_failed;
  }
  return action_failed;
}

unsigned pinhole_error_code(MappingErrc reason) noexcept {
  constexpr unsigned action_failed = 501, not_authorized = 606, no_space = 701, firewall_disabled = 702,
                     no_such_entry = 704;
  switch (reason) {  // no default: the compiler names a forgotten reason
    case MappingErrc::not_authorized:
    case MappingErrc::device_blocked:
    case MappingErrc::not_owned_here:
    case MappingErrc::foreign_nonce:
    case MappingErrc::insisted_port_taken:
    case MappingErrc::insisted_port_forbidden:
      return not_authorized;
    case MappingErrc::no_ports_left:
    case MappingErrc::no_memory:
    case MappingErrc::too_many_filters:
    case MappingErrc::quota_exceeded:
      return no_space;
    case MappingErrc::no_pinholes:
      return firewall_disabled;
    case MappingErrc::not_found:
      return no_such_entry;
    case MappingErrc::no_external_address:
    case MappingErrc::unsupported_transport:
    case MappingErrc::store_unavailable:
      return action_failed;
  }
  return action_failed;
}

}  // namespace sallyport::upnp::igd
