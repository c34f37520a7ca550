#pragma once

#include "sallyport/values/time.hpp"

namespace sallyport::test {

/// A clock that stands still until a test moves it.
class ManualClock final : public Clock {
 public:
  TimePoint now() const override { return now_; }
  WallTime wall() const override { return wall_; }
  void advance(std::chrono::nanoseconds by) {
    now_ += by;
    wall_ += std::chrono::duration_cast<std::chrono::seconds>(by);
  }
  void step_wall(std::chrono::seconds by) { wall_ += by; }
  void set_boot(TimePoint now) { now_ = now; }

 private:
  TimePoint now_{std::chrono::hours{1}};
  WallTime wall_{std::chrono::sys_days{std::chrono::year{2026} / 3 / 1}};
};

}  // namespace sallyport::test
