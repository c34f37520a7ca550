#pragma once

#include <chrono>
#include <cstdint>

namespace sallyport {

/// The boot-time clock (CLOCK_BOOTTIME): it never steps and counts sleep too. Deadlines are on it.
struct BootClock {
  using duration = std::chrono::nanoseconds;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<BootClock>;
  static constexpr bool is_steady = true;
  static time_point now() noexcept;
};

using TimePoint = BootClock::time_point;
/// Wall time in seconds since 1970, UTC. For display and for the next boot only; never for deadlines.
using WallTime = std::chrono::sys_seconds;

/// Given to the loops that need the time; tests give a ManualClock.
class Clock {
 public:
  virtual ~Clock() = default;
  virtual TimePoint now() const = 0;
  virtual WallTime wall() const = 0;
};

/// The clocks of this machine.
class SystemClock final : public Clock {
 public:
  TimePoint now() const override { return BootClock::now(); }
  WallTime wall() const override;
};

}  // namespace sallyport
