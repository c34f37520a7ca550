#pragma once

#include <chrono>
#include <cstdint>

namespace sallyport::wire {

/// Spreads moments, from a seed (SplitMix64). Not for secrets.
class Jitter {
 public:
  explicit constexpr Jitter(std::uint64_t seed) noexcept : state_{seed} {}

  constexpr std::uint64_t next() noexcept {
    state_ += 0x9e3779b97f4a7c15;
    auto mixed = state_;
    mixed = (mixed ^ mixed >> 30) * 0xbf58476d1ce4e5b9;
    mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111eb;
    return mixed ^ mixed >> 31;
  }
  /// Uniform in [from, to].
  constexpr std::chrono::nanoseconds between(std::chrono::nanoseconds from,
                                             std::chrono::nanoseconds to) noexcept {
    if (to <= from) return from;
    const auto width = static_cast<std::uint64_t>((to - from).count()) + 1;
    return from + std::chrono::nanoseconds{static_cast<std::int64_t>(next() % width)};
  }

 private:
  std::uint64_t state_;
};

}  // namespace sallyport::wire
