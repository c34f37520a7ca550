#include "src/transport/source_limiter.hpp"

#include <algorithm>

namespace sallyport::transport {

SourceLimiter::SourceLimiter(Options options) : options_{options} {}

void SourceLimiter::set_rate(std::uint32_t per_second, std::uint32_t burst) {
  options_.per_second = per_second;
  options_.burst = burst;
}

SourceLimiter::Verdict SourceLimiter::admit(const Address& source, TimePoint now) {
  if (options_.per_second == 0) return Verdict::pass;
  const auto known = by_source_.find(source);
  if (known != by_source_.end()) {
    if (known->second != order_.begin()) order_.splice(order_.begin(), order_, known->second);
  } else if (order_.size() >= options_.max_sources) {
    // the oldest entry is written over in place: a flood of invented addresses allocates nothing
    order_.splice(order_.begin(), order_, std::prev(order_.end()));
    auto node = by_source_.extract(order_.front().source);
    node.key() = source;
    node.mapped() = order_.begin();
    by_source_.insert(std::move(node));
    order_.front() = Bucket{source, static_cast<double>(options_.burst), now, now, 0};
  } else {
    order_.push_front(Bucket{source, static_cast<double>(options_.burst), now, now, 0});
    by_source_.emplace(source, order_.begin());
  }

  auto& bucket = order_.front();
  if (now > bucket.filled) {
    const std::chrono::duration<double> passed = now - bucket.filled;
    bucket.tokens += passed.count() * options_.per_second;
    bucket.filled = now;
  }
  bucket.tokens = std::min<double>(bucket.tokens, options_.burst);
  if (bucket.tokens >= 1) {
    bucket.tokens -= 1;
    return Verdict::pass;
  }
  if (now - bucket.window > std::chrono::milliseconds{100}) {
    bucket.window = now;
    bucket.refused = 0;
  }
  return ++bucket.refused > options_.flood_threshold ? Verdict::flood : Verdict::over;
}

}  // namespace sallyport::transport
