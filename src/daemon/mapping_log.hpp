#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "nat/plane/data_plane.hpp"
#include "src/transport/source_limiter.hpp"

namespace sallyport::daemon {

/// One log line for each mapping of outbound traffic that began or ended (RFC 6888 section 4: transport,
/// subscriber's address and port, external address and port; the log has the time), never where it leads to
/// (REQ-12). Told within a second, by comparing what there is with what there was: no plane needs to know of
/// it. At most 5,000 lines a second; what was left out is counted and told.
class MappingLog {
 public:
  explicit MappingLog(std::function<void(const std::string& line)> write) : write_{std::move(write)} {}

  /// All implicit mappings in force now, in any order.
  void take(std::vector<nat::ImplicitView> mappings, TimePoint now);
  /// Says nothing of what was taken before.
  void forget() noexcept { before_ = {}; }

 private:
  void write(const char* what, const nat::ImplicitView& mapping, TimePoint now);

  std::function<void(const std::string&)> write_;
  std::vector<nat::ImplicitView> before_;  // in order
  transport::SourceLimiter limit_{{5000, 10000, 1, 1000}};
  std::uint64_t left_out_ = 0;
};

}  // namespace sallyport::daemon
