#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <tuple>
#include <utility>

#include "protocols/wire/datagram_core.hpp"
#include "sallyport/values/mapping_service.hpp"

namespace sallyport::pcp {

/// Unsolicited MAP and PEER responses for mappings that changed or went without their client asking (RFC 6887,
/// section 14.2): three copies, gaps 250 ms and 500 ms, none after the client has asked for that mapping
/// again, and no more than 64 a second in all, so that a change of everything does not flood the LAN.
class UpdateQueue {
 public:
  static constexpr std::size_t per_second = 64;
  /// Mappings that may wait at once. More are left out: their clients learn from the announcement.
  static constexpr std::size_t max_waiting = 4096;

  void handle_lease(const LeaseEvent& event, TimePoint now);
  struct Epochs {
    std::uint32_t ipv4_s, ipv6_s;  ///< told to clients of either family
  };
  /// Appends what is due to `out`. Copies for gateway addresses that are no longer served are dropped.
  void take_due(TimePoint now, Epochs epochs, std::span<const wire::ServedAddress> served,
                std::deque<wire::Outgoing>& out);
  std::optional<TimePoint> next_deadline() const;

 private:
  /// The mapping, and for one of PEER the remote peer.
  using Key = std::tuple<Transport, InternalEndpoint, Address, std::uint16_t>;
  struct Update {
    Nonce nonce{};
    ExternalEndpoint external;
    std::optional<TimePoint> deadline;  ///< empty: the mapping is gone
    Contact contact;
    std::uint16_t ports = 1;           ///< of a set
    std::optional<RemoteFilter> peer;  ///< of a mapping that PEER made
    int sent = 0;
    TimePoint due{};
  };

  void forget(const Key& key);
  bool may_send(TimePoint now) const;

  std::map<Key, Update> updates_;
  std::set<std::pair<TimePoint, Key>> by_due_;
  std::array<std::optional<TimePoint>, per_second> last_sent_{};  ///< a ring: when the last 64 went out
  std::size_t oldest_sent_ = 0;
};

}  // namespace sallyport::pcp
