#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "protocols/pcp/codec.hpp"
#include "protocols/wire/jitter.hpp"
#include "protocols/wire/mapping_client.hpp"

namespace sallyport::pcp {

/// Keeps one mapping (or, for an IPv6 client, one pinhole) by MAP, RFC 6887 sections 8.1, 8.3, 11.2, 14.2, 15
/// and 16.3. That a datagram came from the server asked, and its epoch (EpochWatch), are the caller's to look
/// at first.
///
/// An error ends a mapping that is held, but one that says "not now" in answer to a plain renewal: that is
/// repeated while the mapping lasts. handle_unreachable() ends none; renewals go on.
class MappingClient final : public wire::DatagramMappingClient {
 public:
  /// `client`: the source address of the datagrams, whose family decides between mapping and pinhole.
  /// `nonce`: 96 bits that nobody can guess, kept as long as the mapping (PCP-11.1-02).
  MappingClient(const wire::MappingWish& wish, Address client, Nonce nonce, std::uint64_t seed,
                TimePoint now);

  const Nonce& nonce() const noexcept { return nonce_; }

  /// Unsolicited answers too (PCP-14.2-04).
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
    asking,   ///< nothing is held; retransmits until it is answered
    held,     ///< renews until `expires_`
    waiting,  ///< nothing is held; asks again at `next_send_`
    stopped,  ///< asks no more
  };
  struct Refused {
    wire::MappingFailure failure;
    unsigned code;
  };

  bool handle_success(const ResponseHeader& header, const MapBody& map, std::span<const std::byte> options,
                      TimePoint now);
  void handle_error(ResultCode code, std::optional<std::uint32_t> lifetime_s, TimePoint now);
  void handle_grant(const ExternalEndpoint& external, std::uint32_t lifetime_s, TimePoint now);
  void handle_while_deleting(bool grant, TimePoint now);
  bool without(ResultCode code, TimePoint now);
  bool has_filters(std::span<const std::byte> options) const;

  void ask(TimePoint at);
  void send(TimePoint now);
  void transmit(TimePoint now);
  void plan_renewal(TimePoint now);
  void hold(const ExternalEndpoint& external, std::uint32_t lifetime_s, TimePoint now);
  void expire(TimePoint now);
  void end(const Refused& why, bool told);
  void wait(const Refused& why, Duration length, bool told, TimePoint now);
  void stop(const Refused& why);
  void tell(wire::MappingEvent::Kind kind, const Refused& why = {}, bool told = false);
  void give_back(TimePoint now);
  void send_deletion(TimePoint now);
  Duration next_timeout(Duration& timeout);
  std::vector<std::byte> request(bool deletion) const;

  wire::MappingWish wish_;
  std::vector<Filter> filters_;
  Address client_;
  Nonce nonce_;
  wire::Jitter jitter_;

  State state_ = State::asking;
  bool awaiting_ = false;    ///< an answer to the last transmission
  bool refreshing_ = false;  ///< held: the gateway may have lost it, so the request is retransmitted
  bool confirming_ = false;  ///< held: `next_send_` is to confirm what an update said
  bool describe_ = false;
  bool maybe_granted_ = false;  ///< nothing is held, but what was sent may have been granted
  std::optional<Port> suggested_port_;
  Address suggested_address_;
  wire::Granted granted_;
  TimePoint expires_{};
  unsigned renewals_ = 0;           ///< moments of the renewal schedule that have gone
  std::optional<Refused> not_now_;  ///< what a renewal was answered
  TimePoint not_before_{};          ///< the end of that error's lifetime
  Duration timeout_{};              ///< RT, the last one
  Duration unreachable_wait_{};
  TimePoint last_sent_{};
  std::optional<TimePoint> next_send_;
  std::optional<TimePoint> silence_at_;  ///< asking: when to say that there is no answer
  bool request_due_ = false;

  bool released_ = false;
  std::optional<TimePoint> deletion_at_;  ///< the next one; empty: nothing is to be deleted
  Duration deletion_timeout_{};
  int deletions_ = 0;
  bool deletion_due_ = false;
  bool overtakable_ = false;  ///< a request was on its way when the deletion was sent and may arrive behind it

  std::deque<wire::MappingEvent> events_;
};

/// What a server's epoch says about its state (section 8.5); one for each server address (PCP-8.5-12).
class EpochWatch {
 public:
  /// True when the server must have lost its state since the last call. Every response of the server is to be
  /// shown.
  bool lost_state(std::uint32_t epoch_s, TimePoint now) noexcept;

 private:
  struct Seen {
    std::uint32_t epoch_s;
    TimePoint at;
  };
  std::optional<Seen> last_;
};

/// The epoch in an ANNOUNCE response, asked for or multicast (section 14.1); nothing for other datagrams.
std::optional<std::uint32_t> announced_epoch(std::span<const std::byte> datagram);
/// The epoch in any response of version 2, errors too.
std::optional<std::uint32_t> response_epoch(std::span<const std::byte> datagram);

}  // namespace sallyport::pcp
