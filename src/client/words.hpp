#pragma once

#include <string>

#include "sallyport/client/port.hpp"

namespace sallyport::client {

/// What an event says, as a sentence: "tcp port 22000 is open at 203.0.113.5:22000 (by pcp at 192.168.1.1)".
std::string event_text(const Event& event, const PortRequest& request);
/// Of `refused`: `by` says who refused and how; `code` is the protocol's own, 0 for none.
std::string refusal_text(const Event& event, const PortRequest& request, const Grant& by, unsigned code);

}  // namespace sallyport::client
