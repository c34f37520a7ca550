#pragma once

#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "protocols/upnp/description/service_table.hpp"
#include "protocols/upnp/http/message.hpp"
#include "protocols/upnp/soap/error.hpp"

/// Control requests (UDA 1.1, section 3.1.1). Pure functions.
namespace sallyport::upnp::soap {

inline constexpr std::string_view envelope_namespace = "http://schemas.xmlsoap.org/soap/envelope/";
inline constexpr std::string_view encoding_namespace = "http://schemas.xmlsoap.org/soap/encoding/";
inline constexpr std::string_view control_namespace = "urn:schemas-upnp-org:control-1-0";

/// An action with all its arguments. Owns its texts: it may outlive the request; the table must outlive it.
struct Call {
  const description::ServiceTable* service = nullptr;
  const description::Action* action = nullptr;
  unsigned version = 1;  ///< of the service type, as the request named it: 1 to that of the table
  std::vector<std::string>
      arguments;  ///< of the `in` arguments, in the table's order: decoded text, blanks kept

  /// The text of an `in` argument of the table; empty when it has none of this name.
  std::string_view argument(std::string_view name) const noexcept;
};

/// Goes out as 500 with a UPnPError.
struct Fault {
  unsigned code = 0;
  std::string_view description;
};

/// Goes out as this status and a line of text: what came is no control request.
struct HttpError {
  unsigned status = 400;
  std::string_view why;
};

using Decoded = std::variant<Call, Fault, HttpError>;

/// Reads a POST to the control URL of `service`, moving its body away. Content type, prefixes, the order of
/// arguments and unknown arguments do not matter. Nothing may be executed but a Call.
///
/// In this order: HttpError 400 for a SOAPACTION that is missing, repeated or broken; Fault 401 for one that
/// names another service type, a version above the table's or an unknown action; HttpError 413 or 400 for a
/// body that is too long, has a DOCTYPE or is no SOAP 1.1 envelope with one Body; Fault 402 for one that is no XML; Fault 402 for a Body with no or
/// several elements; Fault 401 when its element is not the action and service type (version too) of
/// SOAPACTION; Fault 402 for an argument that is missing, stands twice, has child elements, or is blank and
/// not one of `may_be_empty`.
Decoded decode_request(http::Request&& request, const description::ServiceTable& service,
                       std::span<const std::string_view> may_be_empty = {});

}  // namespace sallyport::upnp::soap
