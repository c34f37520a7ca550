#pragma once

#include <string>

namespace sallyport::upnp::igd {

/// The gateway's mark, a gate in a battlemented wall with an arrow through it, as a PNG of size x size pixels
/// (8 bits of palette, transparent ground). `size` is 1..255. Drawn, not stored: some milliseconds, so keep
/// it.
std::string draw_icon(unsigned size);

}  // namespace sallyport::upnp::igd
