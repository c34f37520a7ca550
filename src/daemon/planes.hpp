#pragma once

#include <memory>
#include <string>

#include "nat/plane/data_plane.hpp"
#include "sallyport/values/time.hpp"
#include "src/daemon/config.hpp"

/// Which plane carries packets.
namespace sallyport::daemon {

struct StartedPlane {
  std::unique_ptr<nat::DataPlane> plane;  ///< null: none can be had
  std::string reason;                     ///< why this one, in words; without a plane: what is wrong
};

/// Starts the plane that the configuration names, or the best that runs here; what another plane left is cleared away.
/// `directory` is where planes keep what they changed.
StartedPlane start_plane(const Config& config, const std::string& directory, const Clock& clock);

/// Takes back what any plane left. False: `why` says what is in the way.
bool detach_planes(const std::string& directory, std::string& why);

}  // namespace sallyport::daemon
