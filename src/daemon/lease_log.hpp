#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "sallyport/values/mapping_service.hpp"
#include "src/transport/source_limiter.hpp"

namespace sallyport::daemon {

/// One log line per lease (or set of ports) granted, changed or ended, but at most 10 a second about one
/// device and 100 in all (POL-QTA-11); what was left out is counted and told once a second. Renewals go to
/// debug.
class LeaseLog final : public ServiceListener {
 public:
  /// `write` takes the line; `detail` is true for lines of little interest.
  explicit LeaseLog(std::function<void(const std::string& line, bool detail)> write)
      : write_{std::move(write)} {}

  void on_lease(const LeaseEvent& event, TimePoint now) override;
  void on_epoch_reset(TimePoint now) override;
  void on_external_address(const std::optional<Address>& address, TimePoint now) override;
  /// Tells what was left out since the last call. Once a second.
  void handle_timeout(TimePoint now);

 private:
  std::function<void(const std::string&, bool)> write_;
  transport::SourceLimiter per_device_{{10, 20, 4096, 1000}};
  transport::SourceLimiter total_{{100, 200, 1, 1000}};
  std::uint64_t left_out_ = 0;
};

}  // namespace sallyport::daemon
