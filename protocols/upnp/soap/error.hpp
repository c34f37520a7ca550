#pragma once

#include <boost/system/error_code.hpp>
#include <string_view>

#include "protocols/upnp/description/service_table.hpp"

namespace sallyport::upnp::soap {

/// The error codes that mean the same in every service (UDA 1.1, section 3.2.2). Those from 700 up belong to
/// the services and are plain numbers.
enum class UpnpErrc {
  invalid_action = 401,
  invalid_args = 402,
  invalid_var = 404,
  action_failed = 501,
  value_invalid = 600,
  value_out_of_range = 601,
  not_implemented = 602,
  out_of_memory = 603,
  human_needed = 604,
  string_too_long = 605,
  not_authorized = 606,
};
const boost::system::error_category& upnp_category() noexcept;
inline boost::system::error_code make_error_code(UpnpErrc error) noexcept {
  return {static_cast<int>(error), upnp_category()};
}

/// The errorDescription of a code of this service: WANIPConnection, WANPPPConnection,
/// WANCommonInterfaceConfig, Layer3Forwarding and WANIPv6FirewallControl give the codes from 700 up different
/// meanings. "Error" when the service has no such code.
std::string_view error_description(const description::ServiceTable& service, unsigned code) noexcept;

}  // namespace sallyport::upnp::soap

template <>
struct boost::system::is_error_code_enum<sallyport::upnp::soap::UpnpErrc> : std::true_type {};
