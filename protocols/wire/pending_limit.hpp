#pragma once

#include <cstddef>
#include <unordered_map>

#include "sallyport/values/address.hpp"

namespace sallyport::wire {

/// Counts the requests that wait for the mapping service, in all and per client, so that a store that stands
/// still or one busy client cannot make a core's memory grow (PCP-18-07, POL-FAIR-01).
class PendingLimit {
 public:
  PendingLimit(std::size_t total, std::size_t per_client) noexcept : total_{total}, per_client_{per_client} {}

  /// False, and nothing counted, when either limit is reached.
  bool enter(const Address& client) {
    if (pending_ >= total_) return false;
    auto& own = clients_[client];
    if (own >= per_client_) return false;  // own > 0 here: limits are at least 1
    ++own;
    ++pending_;
    return true;
  }
  void leave(const Address& client) noexcept {
    const auto at = clients_.find(client);
    if (at == clients_.end()) return;
    if (--at->second == 0) clients_.erase(at);
    --pending_;
  }
  std::size_t pending() const noexcept { return pending_; }

 private:
  std::size_t total_;
  std::size_t per_client_;
  std::size_t pending_ = 0;
  std::unordered_map<Address, std::size_t> clients_;
};

}  // namespace sallyport::wire
