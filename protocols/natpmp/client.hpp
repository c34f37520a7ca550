#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "protocols/natpmp/codec.hpp"
#include "protocols/wire/jitter.hpp"
#include "protocols/wire/mapping_client.hpp"

namespace sallyport::natpmp {

/// When a request is sent again: after 250 ms, then twice as long each time, nine times in all (RFC 6886,
/// section 3.1).
class Attempts {
 public:
  static constexpr int most = 9;
  static constexpr std::chrono::milliseconds first_wait{250};

  void restart(TimePoint at) noexcept {
    sent_ = 0;
    due_ = at;
  }
  void stop() noexcept { due_.reset(); }
  bool running() const noexcept { return due_.has_value(); }
  /// The next transmission; after the ninth, the end.
  const std::optional<TimePoint>& due() const noexcept { return due_; }
  /// At due(): true to send now, false when the last wait was in vain; then it has stopped.
  bool take(TimePoint now) noexcept {
    if (sent_ == most) {
      stop();
      return false;
    }
    due_ = now + first_wait * (1 << sent_++);
    return true;
  }
  int sent() const noexcept { return sent_; }

 private:
  int sent_ = 0;
  std::optional<TimePoint> due_;
};

/// Asks a gateway for the external address, which makes no state there: whether NAT-PMP is spoken shows too.
/// Shaped as wire::MappingClient is; it asks from the moment it is made, and after an answer when told to.
class AddressClient {
 public:
  struct Result {
    enum class State : std::uint8_t { pending, address, failure };
    State state = State::pending;
    Address address;  ///< while pending: what it was last
    /// `unsupported` too when the gateway does not answer; `no_external_address` when it has none now.
    wire::MappingFailure failure{};
    unsigned code = 0;
    friend bool operator==(const Result&, const Result&) = default;
  };

  explicit AddressClient(TimePoint now);

  bool handle_datagram(std::span<const std::byte> datagram, TimePoint now);
  void handle_unreachable(TimePoint now);
  void handle_timeout(TimePoint now);
  std::optional<std::vector<std::byte>> poll_transmit();
  std::optional<TimePoint> next_deadline() const { return attempts_.due(); }
  const Result& result() const noexcept { return result_; }
  /// Asks again; does nothing while an answer is awaited.
  void refresh(TimePoint now);

 private:
  void fail(wire::MappingFailure failure, unsigned code = 0);

  Attempts attempts_;
  bool request_due_ = false;
  Result result_;
};

/// Keeps one mapping, RFC 6886 sections 3.3 and 3.4. IPv4 without remote filters only. That a datagram came
/// from the gateway asked, and its epoch (EpochWatch), are the caller's to look at first.
///
/// An error ends a mapping that is held, but one that says "not now" in answer to a plain renewal: that is
/// repeated while the mapping lasts. handle_unreachable() ends none; renewals go on.
class MappingClient final : public wire::DatagramMappingClient {
 public:
  MappingClient(const wire::MappingWish& wish, std::uint64_t seed, TimePoint now);

  /// As AddressClient or an announcement tells it; a mapping's answer has none.
  void set_external_address(const Address& address);

  bool handle_datagram(std::span<const std::byte> datagram, TimePoint now) override;
  void handle_unreachable(TimePoint now) override;
  void handle_timeout(TimePoint now) override;
  void refresh(TimePoint now) override;
  void release(TimePoint now) override;
  bool finished() const noexcept override;
  std::optional<wire::MappingEvent> poll_event() override;
  std::optional<std::vector<std::byte>> poll_transmit() override;
  std::optional<TimePoint> next_deadline() const override;

 private:
  using Duration = TimePoint::duration;
  enum class State : std::uint8_t {
    asking,   ///< nothing is held, nine attempts run
    held,     ///< until `expires_`; renews at `next_ask_`
    waiting,  ///< nothing is held; asks again at `next_ask_`
    stopped,  ///< asks no more
  };
  struct Refused {
    wire::MappingFailure failure;
    unsigned code;
  };

  void handle_grant(Port external, std::uint32_t lifetime_s, TimePoint now);
  void handle_error(ResultCode code, TimePoint now);
  void handle_while_deleting(bool grant, TimePoint now);
  void handle_attempt(TimePoint now);
  void plan_renewal(TimePoint from);
  void expire(TimePoint now);
  void end(const Refused& why, bool told);
  void wait(const Refused& why, Duration length, bool told, TimePoint now);
  void back_off(const Refused& why, Duration least, TimePoint now);
  void tell(wire::MappingEvent::Kind kind, const Refused& why = {}, bool told = false);
  void give_back(TimePoint now);
  void send_deletion(TimePoint now);

  wire::MappingWish wish_;
  wire::Jitter jitter_;
  State state_ = State::asking;
  Attempts attempts_;        ///< running: an answer is awaited
  bool refreshing_ = false;  ///< held: the gateway may have lost it
  bool maybe_granted_ = false;
  Port suggested_port_;
  wire::Granted granted_;
  TimePoint expires_{};
  std::optional<Refused> not_now_;  ///< what a renewal was answered
  Duration back_off_{};             ///< the last one; zero after a grant
  std::optional<TimePoint> next_ask_;
  TimePoint last_sent_{};
  bool request_due_ = false;

  bool released_ = false;
  std::optional<TimePoint> deletion_at_;
  int deletions_ = 0;
  bool deletion_due_ = false;
  int unanswered_ = 0;   ///< of the requests sent lately
  int overtakable_ = 0;  ///< requests on their way when the deletion was sent, which may arrive behind it

  std::deque<wire::MappingEvent> events_;
};

/// What a gateway's epoch says about its state (section 3.6); one for each gateway.
class EpochWatch {
 public:
  /// True when the gateway must have lost its state since the last call. Every response of it is to be shown.
  bool lost_state(std::uint32_t epoch_s, TimePoint now) noexcept;

 private:
  struct Seen {
    std::uint32_t epoch_s;
    TimePoint at;
  };
  std::optional<Seen> last_;
};

/// A multicast to 224.0.0.1:5350 (section 3.2.1); nothing for what else comes there, PCP's announcements too.
std::optional<AddressResponse> announcement(std::span<const std::byte> datagram);
/// The epoch in any response that has one (NPM-3.5-09).
std::optional<std::uint32_t> response_epoch(std::span<const std::byte> datagram);

}  // namespace sallyport::natpmp
