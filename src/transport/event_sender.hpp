#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "protocols/upnp/http/delivery.hpp"
#include "sallyport/values/time.hpp"

namespace boost::asio {
class io_context;
}

namespace sallyport::transport {

/// Carries events to their subscribers: one TCP connection each, closed afterwards. A connection is tied to
/// the LAN interface and the gateway's address its delivery names, so no routing table sends it elsewhere
/// (POL-WHO-06). Of the answer at most `max_answer` octets are read, its status line counts and nothing else
/// does; no redirect is followed (POL-EVT-05). Control thread only.
class EventSender {
 public:
  struct Options {
    std::size_t at_once = 64;  ///< connections; what is beyond it stays in the core
    std::chrono::milliseconds connect_time{5000};
    std::chrono::milliseconds answer_time{30000};  ///< from the connection to the end of the status line
    /// For the rest of the head once the status line is there; a connection closed in the middle of an answer
    /// makes some subscribers fail.
    std::chrono::milliseconds rest_time{1000};
    std::size_t max_answer = 4096;
  };
  struct Counts {
    std::uint64_t answered = 0;  ///< with any status
    std::uint64_t connect_failed = 0;
    std::uint64_t timed_out = 0;
    std::uint64_t broken = 0;
  };

  /// `after_result` runs after results were given to the core and drained again: its deadlines may be others
  /// now. `io`, `core` and `clock` outlive the sender.
  EventSender(boost::asio::io_context& io, upnp::http::DeliveryCore& core, const Clock& clock,
              Options options, std::function<void()> after_result);
  /// Closes what is under way without a result.
  ~EventSender();
  EventSender(const EventSender&) = delete;
  EventSender& operator=(const EventSender&) = delete;

  /// Takes up what the core has to send, as far as there is room. Never calls back from inside.
  void drain();
  std::size_t under_way() const noexcept;
  const Counts& counts() const noexcept;

  class Impl;

 private:
  std::shared_ptr<Impl> impl_;
};

}  // namespace sallyport::transport
