#pragma once

#include <string>

#include "sallyport/values/address.hpp"

namespace sallyport::transport {

/// Makes an address one of this machine's (a local route, in the network namespace of the caller) or takes it
/// back, so that who asks an anycast address is answered here and nothing for it is forwarded (RFC 7723,
/// section 3). Either way it may be so already. False with a sentence in `why` when the kernel refuses.
bool claim_anycast(const Address& address, bool claimed, std::string& why);

}  // namespace sallyport::transport
