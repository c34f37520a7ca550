#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace sallyport::upnp::description {

/// `text` as a field of a description may hold it: what is not UTF-8 becomes U+FFFD, control characters
/// become blanks, blanks around it go, and it is cut between characters to at most `max_octets`. The
/// standard's limits count characters; counting octets keeps within them and within the buffers of control
/// points written in C.
std::string fit_text(std::string_view text, std::size_t max_octets);

}  // namespace sallyport::upnp::description
