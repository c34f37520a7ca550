#include "protocols/upnp/ssdp/search_limit.hpp"

#include <algorithm>
#include <chrono>
#include <iterator>

namespace sallyport::upnp::ssdp {
namespace {

constexpr double sets_at_once = 2;
constexpr double gain = 4;  ///< octets of answers that an octet of a search pays for

/// Seconds since `then`, which becomes `now`; time that stands still or steps back is none.
double pass_time(TimePoint& then, TimePoint now) {
  if (now <= then) return 0;
  const std::chrono::duration<double> passed = now - then;
  then = now;
  return passed.count();
}

}  // namespace

SearchLimit::Bucket& SearchLimit::bucket_of(const Address& source, double octets, TimePoint now) {
  const auto known = by_source_.find(source);
  if (known != by_source_.end()) {
    order_.splice(order_.begin(), order_, known->second);
    return order_.front();
  }
  const Bucket fresh{source, static_cast<double>(options_.burst), octets, now};
  if (order_.size() >= options_.max_sources) {
    // the oldest is written over in place: a flood of invented sources allocates nothing
    order_.splice(order_.begin(), order_, std::prev(order_.end()));
    auto node = by_source_.extract(order_.front().source);
    node.key() = source;
    node.mapped() = order_.begin();
    by_source_.insert(std::move(node));
    order_.front() = fresh;
  } else {
    order_.push_front(fresh);
    by_source_.emplace(source, order_.begin());
  }
  return order_.front();
}

SearchLimit::Verdict SearchLimit::admit(const Address& source, std::size_t search, std::size_t answers,
                                        std::size_t whole_set, TimePoint now) {
  if (options_.per_second == 0) return Verdict::pass;
  const auto set = static_cast<double>(whole_set);
  const auto most = sets_at_once * set;
  auto& bucket = bucket_of(source, most, now);
  const double passed = pass_time(bucket.filled, now);
  bucket.tokens = std::min<double>(bucket.tokens + passed * options_.per_second, options_.burst);
  bucket.octets = std::min(bucket.octets + passed * set, most);

  const double left = bucket.octets + gain * static_cast<double>(search) - static_cast<double>(answers);
  if (bucket.tokens < 1 || left < 0) return Verdict::source_over;
  total_tokens_ = std::min<double>(total_tokens_ + pass_time(total_filled_, now) * options_.total_per_second,
                                   options_.total_per_second);
  if (total_tokens_ < 1) return Verdict::total_over;
  total_tokens_ -= 1;
  bucket.tokens -= 1;
  bucket.octets = std::min(left, most);
  return Verdict::pass;
}

}  // namespace sallyport::upnp::ssdp
