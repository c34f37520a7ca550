#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <unordered_map>
#include <vector>

#include "sallyport/values/address.hpp"
#include "sallyport/values/time.hpp"

namespace sallyport::transport {

/// A token bucket per source address (policy.md, POL-QTA-03), for at most `max_sources` of them; the one that
/// was silent longest is forgotten first (POL-FAIR-06). Pure: time is an argument. Not thread-safe.
class SourceLimiter {
 public:
  struct Options {
    std::uint32_t per_second = 2000;  ///< 0: no limit
    std::uint32_t burst = 4000;
    std::size_t max_sources = 4096;
    /// Refusals of one source within a tenth of a second from which on it is called a flood.
    std::uint32_t flood_threshold = 1000;
  };
  enum class Verdict : std::uint8_t {
    pass,
    over,   ///< above its rate
    flood,  ///< far above its rate: worth stopping before it costs a system call
  };

  explicit SourceLimiter(Options options);

  Verdict admit(const Address& source, TimePoint now);
  /// Buckets that are there keep their tokens, up to the new burst.
  void set_rate(std::uint32_t per_second, std::uint32_t burst);
  std::size_t sources() const noexcept { return order_.size(); }

 private:
  struct Bucket {
    Address source;
    double tokens = 0;
    TimePoint filled;
    TimePoint window;  ///< start of the tenth of a second that `refused` counts
    std::uint32_t refused = 0;
  };
  using Order = std::list<Bucket>;  // most recently heard first

  Options options_;
  Order order_;
  std::unordered_map<Address, Order::iterator> by_source_;
};

}  // namespace sallyport::transport
