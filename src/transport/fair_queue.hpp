#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "protocols/wire/datagram_core.hpp"

namespace sallyport::transport {

/// Datagrams that wait their turn: sources take turns, so one that sent thousands delays another's single
/// request by one datagram, not by thousands (POL-FAIR-01). Bounded in datagrams and octets. Pure, not
/// thread-safe.
class FairQueue {
 public:
  struct Waiting {
    std::vector<std::byte> bytes;
    wire::Arrival arrival;
  };

  /// Above so many waiting sources a full queue takes in no further one.
  static constexpr std::size_t max_sources = 4096;

  FairQueue(std::size_t max_datagrams, std::size_t max_octets) noexcept
      : max_datagrams_{max_datagrams}, max_octets_{max_octets} {}

  /// False when it is dropped: the queue is full and this source already has its share of it.
  bool push(std::span<const std::byte> bytes, const wire::Arrival& arrival);
  /// The oldest datagram of the source whose turn it is.
  std::optional<Waiting> pop();
  bool empty() const noexcept { return size_ == 0; }
  std::size_t size() const noexcept { return size_; }
  std::size_t octets() const noexcept { return octets_; }

 private:
  std::size_t max_datagrams_;
  std::size_t max_octets_;
  std::size_t size_ = 0;
  std::size_t octets_ = 0;
  std::unordered_map<Address, std::deque<Waiting>> by_source_;
  std::deque<Address> turns_;  ///< each source that has something waiting, once
};

}  // namespace sallyport::transport
