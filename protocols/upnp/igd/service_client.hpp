#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string_view>

#include "protocols/upnp/http/asker.hpp"
#include "protocols/upnp/igd/control_point.hpp"
#include "protocols/upnp/soap/client.hpp"
#include "protocols/wire/jitter.hpp"
#include "protocols/wire/mapping_client.hpp"

namespace sallyport::upnp::igd {

/// What keeping a mapping at a service of UPnP has in common, whichever service it is: one ask at a time,
/// back-off, renewal, the end of a lease that cannot be renewed, and giving it back.
class ServiceClient : public wire::MappingClient, public http::Asker {
 public:
  void handle_timeout(TimePoint now) final;
  void refresh(TimePoint now) final;
  void release(TimePoint now) final;
  bool finished() const noexcept final { return finished_; }
  std::optional<wire::MappingEvent> poll_event() final;
  std::optional<TimePoint> next_deadline() const final;
  std::optional<http::NumberedAsk> poll_ask() final;
  void handle_reply(std::uint64_t id, const Result<http::Reply>& reply, TimePoint now) final;

 protected:
  enum class Step : std::uint8_t {
    check,   ///< looks how things are at the gateway
    add,     ///< asks for the mapping
    renew,   ///< asks for more time
    remove,  ///< gives it back
  };

  ServiceClient(Connection service, wire::MappingWish wish, const Address& internal, std::uint64_t seed);

  // What the services differ in.
  virtual http::Ask make_ask(Step step) = 0;
  virtual std::string_view action_of(
      Step step) const = 0;  ///< the action of the last make_ask() of this step
  /// Of check, add and renew, while it is kept. Ends with granted(), refuse(), lost() or schedule().
  virtual void handle_answer(Step step, const soap::Answer& answer, TimePoint now) = 0;
  virtual void handle_refusal(Step step, const soap::Refusal& refusal, TimePoint now) = 0;
  /// The answer to an `add` that came after release(): what must be removed is remembered.
  virtual void handle_late_grant(const soap::Answer& answer) = 0;
  /// Of a check that was made because it is not known whether an `add` was heard: true when it stands there.
  virtual bool is_ours(const soap::Answer& answer) const = 0;
  virtual bool can_check() const noexcept = 0;  ///< is_ours() can tell
  virtual Step first_step() const noexcept = 0;
  virtual Step renewal_step() const noexcept = 0;
  virtual Step refresh_step() const noexcept = 0;

  void schedule(Step step, TimePoint at);
  /// 0: permanent.
  void granted(const ExternalEndpoint& external, std::uint32_t lifetime_s, TimePoint now);
  /// At half the lease.
  void schedule_renewal(TimePoint now);
  /// The gateway gave less than was believed.
  void shorten(std::uint32_t lifetime_s, TimePoint now);
  /// Not now, or never (`again` false). What is held stays held to the end of its lease.
  void refuse(wire::MappingFailure failure, unsigned code, TimePoint now, bool again = true);
  /// It was held and is not any more; it is asked for anew after a moment.
  void lost(wire::MappingFailure failure, unsigned code, bool told, TimePoint now);
  void set_external(const Address& address);
  /// An answer without a UPnPError.
  void refuse_status(unsigned status, TimePoint now);
  void keep_silence(TimePoint now);
  TimePoint lease_end() const noexcept;

  /// The duration within an eighth of itself around it.
  std::chrono::nanoseconds spread(std::chrono::nanoseconds around);

  const Connection service_;
  const wire::MappingWish wish_;
  const Address internal_;
  Address external_;  ///< unspecified: not known
  std::optional<wire::Granted> held_;
  wire::Jitter jitter_;

 private:
  void tell(wire::MappingEvent event);
  void tell_end(wire::MappingFailure failure, unsigned code, bool told);
  void tell_refusal(wire::MappingFailure failure, unsigned code);
  void continue_release(Step step, const Result<http::Reply>& reply, TimePoint now);
  std::chrono::nanoseconds back_off(std::chrono::seconds first, std::chrono::seconds longest);

  Step step_{};
  bool asking_ = false;        ///< poll_ask() has something to give
  bool refresh_next_ = false;  ///< once the answer is there: an old number may name another's pinhole by now
  std::optional<std::uint64_t> in_flight_;
  std::uint64_t last_id_ = 0;
  std::optional<TimePoint> due_;
  unsigned failures_ = 0;
  bool silence_told_ = false;
  wire::MappingFailure last_failure_ = wire::MappingFailure::no_answer;  ///< why it could not be renewed
  unsigned last_code_ = 0;
  bool doubtful_ = false;  ///< an `add` may have been heard though its answer was not
  bool releasing_ = false, finished_ = false;
  unsigned removals_ = 0;
  std::deque<wire::MappingEvent> events_;
};

}  // namespace sallyport::upnp::igd
