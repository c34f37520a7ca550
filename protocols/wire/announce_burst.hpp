#pragma once

#include <chrono>
#include <optional>

#include "sallyport/values/time.hpp"

namespace sallyport::wire {

/// When the copies of an announcement are due: ten, the first at once, the first gap 250 ms, each later one
/// twice as long (RFC 6887, section 14.1.1; RFC 6886, section 3.2.1). A new event starts over, so two bursts
/// never overlap.
class AnnounceBurst {
 public:
  static constexpr int copies = 10;
  static constexpr std::chrono::milliseconds first_gap{250};

  void restart(TimePoint now) noexcept {
    left_ = copies;
    gap_ = first_gap;
    due_ = now;
  }
  void stop() noexcept { left_ = 0; }

  /// True when a copy is to be sent now; counts it as sent. Late by more than a gap, it still sends one copy
  /// only.
  bool take_due(TimePoint now) noexcept {
    if (left_ == 0 || now < due_) return false;
    --left_;
    due_ = now + gap_;
    gap_ *= 2;
    return true;
  }
  std::optional<TimePoint> next_deadline() const noexcept {
    return left_ == 0 ? std::nullopt : std::optional{due_};
  }

 private:
  int left_ = 0;
  std::chrono::milliseconds gap_ = first_gap;
  TimePoint due_{};
};

}  // namespace sallyport::wire
