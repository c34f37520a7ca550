#pragma once

#include <cstdint>
#include <string_view>

#include "protocols/upnp/soap/error.hpp"
#include "sallyport/values/result.hpp"
#include "sallyport/values/transport.hpp"

/// From an argument's text to its value (POL-NUM-01..03). Blanks around are XML's white space. Each error is
/// a UpnpErrc; an empty text is always invalid_args.
namespace sallyport::upnp::soap {

std::string_view trimmed(std::string_view text) noexcept;

/// ASCII digits with any number of leading zeros; all else is invalid_args. A number beyond the type is
/// `beyond`: an index wants invalid_args there.
Result<std::uint16_t> parse_ui2(std::string_view text,
                                UpnpErrc beyond = UpnpErrc::value_out_of_range) noexcept;
Result<std::uint32_t> parse_ui4(std::string_view text,
                                UpnpErrc beyond = UpnpErrc::value_out_of_range) noexcept;

/// 0, 1, true, false, yes, no in any case (UDA-3-11); all else is invalid_args.
Result<bool> parse_boolean(std::string_view text) noexcept;

/// TCP or UDP in any case (POL-NUM-02); another word is value_invalid.
Result<Transport> parse_transport(std::string_view text) noexcept;

}  // namespace sallyport::upnp::soap
