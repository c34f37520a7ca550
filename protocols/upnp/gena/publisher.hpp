#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "protocols/upnp/gena/codec.hpp"
#include "protocols/upnp/http/delivery.hpp"
#include "protocols/upnp/http/message.hpp"
#include "sallyport/values/time.hpp"

namespace sallyport::upnp::gena {

/// An evented variable as its owner declares it.
struct Variable {
  std::string name;   ///< an XML name
  std::string value;  ///< at the start; raw text
  /// The least time between two events about it (UDA 1.1, section 4.3.3); 0: each change is told at once. In
  /// the meantime changes are kept, and the last one is told when the time is over.
  std::chrono::milliseconds min_interval{0};
  /// What it is to one subscriber, where that is not the same for all; `value` then only tells that it
  /// changed.
  std::function<std::string(const Address& subscriber)> own = {};
};

/// The subscriptions of all services of the device and the events they are owed (UDA 1.1, section 4).
///
/// Holds no socket, clock or random device. After handle() and set() drain poll_send; after any call, also
/// one of Response::sent, look at next_deadline again. Not thread-safe: control thread only.
///
/// Each subscription has one message in flight at most and 16 events waiting; when a 17th comes the two
/// oldest become one, in which the newest value of each variable stands. The event key is given when a
/// message first leaves, so merging leaves no gap in it; a message that was given up does.
class Publisher final : public http::DeliveryCore {
 public:
  struct Limits {
    std::size_t per_device = 8;  ///< subscriptions of one address (POL-QTA-09)
    std::size_t total = 256;
    TimeLimits time;
  };
  /// 128 bits from the system's random source.
  using Random = std::function<std::array<std::byte, 16>()>;
  /// Whose a subscription is and by which way it came, newest request counting.
  struct Subscriber {
    Address address;
    std::uint32_t interface = 0;
    Address local;  ///< the gateway's address that was asked
  };
  using Change = std::pair<std::string_view, std::string>;  ///< a variable's name, its new value

  static constexpr std::size_t max_waiting = 16;
  /// UDA 1.1, section 4.3.2. A subscriber that has not taken a message by then does not get it.
  static constexpr std::chrono::seconds answer_time{30};
  /// From the end of the answer to SUBSCRIBE to the initial event (UPNP-X-09): some subscribers know their
  /// SID only a moment after they read it, and drop what comes before.
  static constexpr std::chrono::milliseconds initial_pause{50};
  /// Between attempts at a subscriber that cannot be reached, doubling from the first to the longest.
  static constexpr std::chrono::seconds first_pause{1};
  static constexpr std::chrono::seconds longest_pause{300};

  explicit Publisher(Random random) : Publisher{std::move(random), Limits{}} {}
  Publisher(Random random, Limits limits);
  Publisher(const Publisher&) = delete;
  Publisher& operator=(const Publisher&) = delete;

  /// Declares a service; its index is what handle() and set() take. One without variables accepts
  /// subscriptions and has nothing to tell them (UDA-4-24).
  std::size_t add_service(std::vector<Variable> variables);

  /// For new requests and renewals from now on; what was granted stays.
  void set_limits(const Limits& limits) noexcept { limits_ = limits; }
  /// Runs inside Response::sent, where no time is at hand: next_deadline is in the past then. It must not
  /// destroy the publisher.
  void set_wake(std::function<void()> wake) { wake_ = std::move(wake); }

  /// SUBSCRIBE and UNSUBSCRIBE at the event URL of a service. 400, 404, 405, 412, 500, 503 when refused.
  http::Response handle(const http::Request& request, std::size_t service, TimePoint now);

  /// New values of variables of one service: one event with all that may be told now. What did not change is
  /// not told; names that are not declared are ignored.
  void set(std::size_t service, std::span<const Change> changes, TimePoint now);
  void set(std::size_t service, std::string_view variable, std::string text, TimePoint now);

  std::optional<http::Delivery> poll_send(TimePoint now) override;
  /// Results of subscriptions that ended meanwhile are ignored.
  void handle_result(std::uint64_t handle, const http::DeliveryResult& result, TimePoint now) override;
  void handle_timeout(TimePoint now);
  std::optional<TimePoint> next_deadline() const;

  /// Ends every subscription for which `gone` is true: its device, interface or the gateway's address left.
  void forget_if(const std::function<bool(const Subscriber&)>& gone);
  std::size_t size() const noexcept { return subscriptions_.size(); }

 private:
  using Text = std::shared_ptr<const std::string>;
  /// Shared by all subscriptions it waits for. Entries are in the order of the variables.
  struct Event {
    std::vector<std::pair<std::size_t, Text>> values;
    mutable std::string body;  ///< written when first needed
  };
  using EventPointer = std::shared_ptr<const Event>;
  struct State {
    std::string name;
    Text value;
    std::chrono::milliseconds min_interval;
    std::function<std::string(const Address&)> own;
    std::optional<TimePoint> last_event;
    std::uint64_t changed = 0;  ///< serial number of the last change
    bool pending = false;       ///< changed and not told yet
  };
  struct Service {
    std::vector<State> variables;
    std::vector<std::uint64_t> subscriptions;
  };
  struct Subscription {
    std::uint64_t handle = 0;
    std::string sid;
    std::size_t service = 0;
    Subscriber subscriber;
    std::vector<Callback> callbacks;
    TimePoint expires;
    std::optional<TimePoint> held_until;  ///< nothing leaves before
    TimePoint timer;                      ///< its key in timers_
    bool answer_sent = false;
    bool initial_due = true;
    bool ready = false;      ///< stands in ready_
    bool in_flight = false;  ///< a delivery's result is awaited
    std::uint64_t told = 0;  ///< changes up to this serial number were in its initial event
    std::uint32_t next_sequence = 0;
    EventPointer message;        ///< being delivered, perhaps by another URL next
    std::uint32_t sequence = 0;  ///< of message
    std::size_t callback = 0;    ///< message's next
    TimePoint message_began;
    unsigned failures = 0;  ///< messages in a row that found nobody
    std::deque<EventPointer> waiting;
  };

  http::Response subscribe(const http::Request& request, std::size_t service, TimePoint now);
  http::Response renew(const http::Request& request, std::size_t service, TimePoint now);
  http::Response unsubscribe(const http::Request& request, std::size_t service, TimePoint now);
  http::Response granted(const Subscription& subscription, std::uint32_t seconds) const;
  Subscription* find(const http::Request& request, std::size_t service, TimePoint now);
  Subscription* find(std::uint64_t handle);
  void erase(std::uint64_t handle);
  void set_timer(Subscription& subscription);
  void make_ready(Subscription& subscription);
  void tell(Service& service, TimePoint now);
  static void add(Subscription& subscription, const EventPointer& event);
  std::string body_of(const Event& event, const Subscription& subscription) const;
  static EventPointer merge(const Event& older, const Event& newer);

  Random random_;
  Limits limits_;
  std::function<void()> wake_;
  std::vector<Service> services_;
  std::map<std::uint64_t, Subscription> subscriptions_;
  std::map<std::string, std::uint64_t, std::less<>> by_sid_;
  std::unordered_map<Address, std::size_t> per_device_;
  std::set<std::pair<TimePoint, std::uint64_t>> timers_;
  std::deque<std::uint64_t> ready_;      ///< first come, first sent: no subscriber overtakes another
  std::vector<std::uint64_t> answered_;  ///< their SUBSCRIBE was answered since the last handle_timeout
  std::uint64_t last_handle_ = 0;
  std::uint64_t serial_ = 0;
  std::shared_ptr<Publisher*> self_;  ///< Response::sent holds it weakly
};

}  // namespace sallyport::upnp::gena
