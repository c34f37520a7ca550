#pragma once

#include <chrono>
#include <optional>
#include <string_view>

namespace sallyport::daemon {

/// Tells systemd what we do, where it started us (sd_notify(3)): "READY=1", "STOPPING=1", "STATUS=...". Does
/// nothing where $NOTIFY_SOCKET is not set; failures are of no consequence.
void notify_service_manager(std::string_view state);

/// The same for a reload, which needs the time of its begin (Type=notify-reload).
void notify_reloading();

/// How often the service manager wants to hear "WATCHDOG=1"; empty: not at all.
std::optional<std::chrono::microseconds> watchdog_interval();

}  // namespace sallyport::daemon
