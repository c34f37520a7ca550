#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace sallyport::daemon {

/// Gives up every capability but CAP_NET_ADMIN and CAP_NET_RAW (addresses, routes, the TUN device, sockets
/// tied to an interface), and the way back to others. To be called before the first thread is made:
/// capabilities are a thread's own. Joins `group` first where it exists, so that the admin socket can be
/// given to it without CAP_CHOWN.
///
/// CAP_DAC_OVERRIDE stays when one of `writable` belongs to another user: files there could not be written
/// otherwise. The result has a sentence for each thing that did not work; none is fatal.
std::vector<std::string> drop_privileges(const std::string& group,
                                         const std::vector<std::filesystem::path>& writable);

}  // namespace sallyport::daemon
