#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <unordered_map>

#include "sallyport/values/address.hpp"
#include "sallyport/values/time.hpp"

namespace sallyport::upnp::ssdp {

/// Which searches are answered, so that nobody can use the gateway to shout at others (POL-QTA-10, POL-DSC-01,
/// UDA-1.3-16): of each source so many a second, and so many octets of answers; then, in all, so many a second. For
/// at most `max_sources` sources; the one that was silent longest is forgotten first. Pure: time is an argument.
/// Not thread-safe.
///
/// Octets: a source may get two whole sets of answers at once and one more each second, for a search for
/// everything must be answered in full; beyond that each search pays for four times its own size.
class SearchLimit {
 public:
  struct Options {
    std::uint32_t per_second = 10;  ///< of a source; 0: no limit of any kind
    std::uint32_t burst = 30;
    std::uint32_t total_per_second = 100;
    std::size_t max_sources = 4096;
    friend bool operator==(const Options&, const Options&) = default;
  };
  enum class Verdict : std::uint8_t { pass, source_over, total_over };

  explicit SearchLimit(Options options) : options_{options}, total_tokens_{double(options.total_per_second)} {}
  SearchLimit(SearchLimit&&) = default;  // a copy would point into the original
  SearchLimit& operator=(SearchLimit&&) = default;

  /// `search`, `answers` and `whole_set` are octets: of the search, of what would answer it, and of the answers
  /// to a search for everything. What does not pass costs its source nothing.
  Verdict admit(const Address& source, std::size_t search, std::size_t answers, std::size_t whole_set,
                TimePoint now);
  std::size_t sources() const noexcept { return order_.size(); }

 private:
  struct Bucket {
    Address source;
    double tokens = 0;
    double octets = 0;
    TimePoint filled;
  };
  using Order = std::list<Bucket>;  // most recently heard first

  Bucket& bucket_of(const Address& source, double octets, TimePoint now);

  Options options_;
  Order order_;
  std::unordered_map<Address, Order::iterator> by_source_;
  double total_tokens_;
  TimePoint total_filled_{};
};

}  // namespace sallyport::upnp::ssdp
