#pragma once

#include <string>
#include <string_view>

/// Text is escaped when it is written into XML and never before, so that no cut can split an escape
/// (POL-TXT-03).
namespace sallyport::upnp::xml {

/// Appends `text` as it may stand in element content or between quotes of either kind: & < > " ' as
/// references, CR as
/// &#13; (a reader would turn it into LF), U+FFFD for each piece that is not UTF-8 and for each character
/// that XML 1.0 forbids. What an XML reader gets back is `text` itself but for these U+FFFD.
void append_escaped(std::string& out, std::string_view text);

std::string escape(std::string_view text);

}  // namespace sallyport::upnp::xml
