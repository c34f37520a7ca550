#pragma once

#include <memory>
#include <string>

#include "nat/plane/data_plane.hpp"
#include "sallyport/values/time.hpp"
#include "src/daemon/config.hpp"

namespace sallyport::nat {
struct EbpfLeft;
}

/// Which plane carries packets.
namespace sallyport::daemon {

struct StartedPlane {
  std::unique_ptr<nat::DataPlane> plane;  ///< null: none can be had
  std::string reason;                     ///< why this one, in words; without a plane: what is wrong
  std::string note;                       ///< for the log: what of an earlier run could not be taken up
  std::shared_ptr<nat::EbpfLeft> left;    ///< without a plane: what an earlier run of ebpf left
};

/// The ebpf plane, unless the configuration names another: loading programs needs rights that nothing else of
/// the daemon does, and these are given up before any thread is there. With `auto` a null plane is no error:
/// its reason is why tun is taken. What another plane left is cleared away once this one is
/// sure to run. `directory` is where planes keep what they changed.
StartedPlane load_plane(const Config& config, const std::string& directory, const Clock& clock);

/// Starts the plane that needs no programs, tun; what another plane left is cleared away. `not_loaded`:
/// load_plane()'s.
StartedPlane start_plane(const Config& config, const std::string& directory, const Clock& clock,
                         const StartedPlane& not_loaded);

/// Takes back what any plane left. False: `why` says what is in the way.
bool detach_planes(const std::string& directory, std::string& why);

}  // namespace sallyport::daemon
