#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "protocols/stun/message.hpp"
#include "sallyport/values/time.hpp"

namespace sallyport::stun {

/// How a transaction ended.
struct Outcome {
  enum class Kind : std::uint8_t {
    answered,  ///< `response` says what the server saw
    refused,   ///< `response.error_code` says why
    nonsense,  ///< the answer needs to be understood and is not (RFC 8489 section 6.3.3)
    no_answer,
    unreachable,  ///< the network says that nobody is there
  } kind{};
  BindingResponse response;
  friend bool operator==(const Outcome&, const Outcome&) = default;
};

/// One Binding over UDP: sent at once and again after 500 ms, doubling, seven times at most (RFC 8489
/// section 6.2.1). Holds no socket and reads no clock or random device: whoever makes it gives 96 random bits
/// as the request's id. One thread at a time.
class Transaction {
 public:
  /// Ends with no_answer at `give_up`, or 39.5 s after `now` when that is earlier.
  Transaction(const BindingRequest& request, TimePoint now, TimePoint give_up);

  /// False: the datagram is not of this transaction, or malformed; nothing has changed. Which socket it came
  /// by, and from whom, is for the caller to judge: with RESPONSE-PORT and CHANGE-REQUEST it is meant to be
  /// another one.
  bool handle_datagram(std::span<const std::byte> datagram);
  void handle_unreachable();
  void handle_timeout(TimePoint now);
  std::optional<std::vector<std::byte>> poll_transmit();
  /// Once, when it is over.
  std::optional<Outcome> poll_outcome();
  bool finished() const noexcept { return finished_; }
  std::optional<TimePoint> next_deadline() const noexcept;

 private:
  void finish(Outcome outcome);

  BindingRequest request_;
  TimePoint give_up_;
  TimePoint next_;  ///< of the next transmission, or the end after the last one
  BootClock::duration interval_;
  unsigned sent_ = 1;
  bool to_send_ = true;
  bool finished_ = false;
  std::optional<Outcome> outcome_;
};

}  // namespace sallyport::stun
