#include "src/transport/fair_queue.hpp"

#include <algorithm>

namespace sallyport::transport {

bool FairQueue::push(std::span<const std::byte> bytes, const wire::Arrival& arrival) {
  auto known = by_source_.find(arrival.source);
  if (size_ >= max_datagrams_ || octets_ + bytes.size() > max_octets_) {
    // Full: a source with nothing waiting still gets in, so the bound is exceeded by at most one datagram of
    // each; but not sources without end (POL-FAIR-06).
    if (known != by_source_.end() || by_source_.size() >= max_sources) return false;
  }
  if (known == by_source_.end()) {
    known = by_source_.try_emplace(arrival.source).first;
    turns_.push_back(arrival.source);
  }
  known->second.push_back(Waiting{{bytes.begin(), bytes.end()}, arrival});
  ++size_;
  octets_ += bytes.size();
  return true;
}

std::optional<FairQueue::Waiting> FairQueue::pop() {
  if (turns_.empty()) return std::nullopt;
  const auto source = turns_.front();
  turns_.pop_front();
  const auto known = by_source_.find(source);
  auto waiting = std::move(known->second.front());
  known->second.pop_front();
  if (known->second.empty())
    by_source_.erase(known);
  else
    turns_.push_back(source);
  --size_;
  octets_ -= waiting.bytes.size();
  return waiting;
}

}  // namespace sallyport::transport
