#pragma once

#include <string>

namespace sallyport::upnp::soap {

/// Some programs write texts into XML as they are given to them: "R&B" reaches us without an escape. What
/// stands for itself beyond doubt is escaped; where marked sections or comments are about, nothing is
/// touched.
void repair_ampersands(std::string& body);

}  // namespace sallyport::upnp::soap
