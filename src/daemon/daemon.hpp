#pragma once

#include "src/daemon/config.hpp"

namespace sallyport::daemon {

/// Serves until SIGTERM or SIGINT; SIGHUP reads the configuration again, by `flags`. Gives the exit code: 0
/// after a clean stop, 1 when it cannot start (the log says why).
int run(const Config& config, const Flags& flags);

/// Removes what an earlier run left in the kernel (--detach). 0, or 1 with the reason in the log.
int detach();

}  // namespace sallyport::daemon
