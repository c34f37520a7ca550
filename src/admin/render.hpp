#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

#include "src/admin/server.hpp"
#include "src/lease/lease_service.hpp"

/// Values to JSON and to Prometheus text. Pure. Written by hand because a list may have 65,000 rows; every
/// number is written as the integer it is, and no nonce is ever looked at (POL-TXT-05).
namespace sallyport::admin {

/// The two clocks at one moment.
struct Moment {
  TimePoint now;
  WallTime wall;
};

/// "2026-03-01T14:02:07Z".
std::string rfc3339(WallTime time);

/// Appends a JSON string. What is not UTF-8 becomes U+FFFD; controls and marks that turn or break lines
/// become \uXXXX.
void append_text(std::string& out, std::string_view text);

/// Appends one row of the list, without a newline.
void append_lease(std::string& out, const LeaseView& lease, const DeviceIdentity& device,
                  const Moment& moment);
void append_event(std::string& out, const LeaseEvent& event, const DeviceIdentity& device,
                  const Moment& moment);
void append_block(std::string& out, const lease::Block& block, const DeviceIdentity& device,
                  const Moment& moment);

/// "192.0.2.1", "192.0.2.0/24", "192.0.2.0/24:80", "[2001:db8::]/32:80".
std::string remote_text(const RemoteFilter& remote);

std::string status_json(const DaemonStatus& daemon, const lease::ServiceStatus& service,
                        std::uint32_t epoch_s);

/// The Prometheus text format, version 0.0.4.
std::string metrics_text(const DaemonStatus& daemon, const lease::ServiceStatus& service,
                         std::uint32_t epoch_s, const std::array<std::uint64_t, 6>& leases_by_via);

}  // namespace sallyport::admin
