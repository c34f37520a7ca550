#include "protocols/upnp/gena/publisher.hpp"

#include <algorithm>

namespace sallyport::upnp::gena {
namespace {

/// Whether one host can be meant by it at all.
bool names_a_host(const Address& address) noexcept {
  if (address.is_unspecified()) return false;
  if (address.is_v4()) {
    const auto first = address.v4_number() >> 24;
    return first != 0 && first != 127 && first < 224;
  }
  Address::Bytes loopback{};
  loopback[15] = std::byte{1};
  return address.bytes() != loopback && address.bytes()[0] != std::byte{0xff};
}

std::chrono::seconds pause_after(unsigned failures) noexcept {
  auto pause = Publisher::first_pause;
  for (unsigned i = 1; i < failures && pause < Publisher::longest_pause; ++i) pause *= 2;
  return std::min(pause, Publisher::longest_pause);
}

http::Response refusal(unsigned status, std::string_view text) { return http::error_response(status, text); }

}  // namespace

Publisher::Publisher(Random random, Limits limits)
    : random_{std::move(random)}, limits_{limits}, self_{std::make_shared<Publisher*>(this)} {}

std::size_t Publisher::add_service(std::vector<Variable> variables) {
  Service service;
  for (auto& variable : variables)
    service.variables.push_back({std::move(variable.name),
                                 std::make_shared<const std::string>(std::move(variable.value)),
                                 variable.min_interval, std::move(variable.own), std::nullopt});
  services_.push_back(std::move(service));
  return services_.size() - 1;
}

http::Response Publisher::handle(const http::Request& request, std::size_t service, TimePoint now) {
  if (service >= services_.size()) return refusal(404, "no such service");
  const bool subscribes = request.method == "SUBSCRIBE";
  if (!subscribes && request.method != "UNSUBSCRIBE") {
    auto response = refusal(405, "an event URL takes SUBSCRIBE and UNSUBSCRIBE");
    response.fields.add("ALLOW", "SUBSCRIBE, UNSUBSCRIBE");
    return response;
  }
  const auto& fields = request.fields;
  if (fields.count("SID") != 0) {
    if (fields.count("NT") != 0 || fields.count("CALLBACK") != 0)
      return refusal(400, "SID stands beside NT or CALLBACK");
    return subscribes ? renew(request, service, now) : unsubscribe(request, service, now);
  }
  if (!subscribes) {
    if (fields.count("NT") != 0 || fields.count("CALLBACK") != 0)
      return refusal(400, "NT and CALLBACK have no place here");
    return refusal(412, "SID is missing");
  }
  return subscribe(request, service, now);
}

http::Response Publisher::subscribe(const http::Request& request, std::size_t service, TimePoint now) {
  const auto& fields = request.fields;
  if (fields.count("NT") != 1 || fields.find("NT") != "upnp:event")
    return refusal(412, "NT is not upnp:event");
  if (!names_a_host(request.peer) || request.peer == request.local)
    return refusal(412, "no events for this address");
  if (fields.count("CALLBACK") != 1) return refusal(412, "one CALLBACK field is needed");
  auto callbacks = decode_callback(*fields.find("CALLBACK"), request.peer);
  if (!callbacks) return refusal(412, "CALLBACK must name the subscriber's own address, by http");

  handle_timeout(now);  // what has expired takes nobody's place
  const auto device = per_device_.find(request.peer);
  if (subscriptions_.size() >= limits_.total ||
      (device != per_device_.end() && device->second >= limits_.per_device) || limits_.per_device == 0)
    return refusal(503, "too many subscriptions");

  auto sid = encode_sid(random_());
  for (int tries = 0; by_sid_.contains(sid); ++tries) {
    if (tries == 3) return refusal(500, "no random numbers");
    sid = encode_sid(random_());
  }

  const auto handle = ++last_handle_;
  auto& subscription = subscriptions_[handle];
  subscription.handle = handle;
  subscription.sid = sid;
  subscription.service = service;
  subscription.subscriber = {request.peer, request.interface, request.local};
  subscription.callbacks = std::move(*callbacks);
  const auto seconds = decode_timeout(fields.find("TIMEOUT"), limits_.time);
  subscription.expires = now + std::chrono::seconds{seconds};
  subscription.initial_due = !services_[service].variables.empty();
  subscription.timer = subscription.expires;
  timers_.emplace(subscription.timer, handle);
  by_sid_.emplace(sid, handle);
  ++per_device_[request.peer];
  services_[service].subscriptions.push_back(handle);

  auto response = granted(subscription, seconds);
  response.sent = [weak = std::weak_ptr{self_}, handle] {
    const auto self = weak.lock();
    if (!self) return;
    auto& publisher = **self;
    if (const auto* answered = publisher.find(handle); answered == nullptr || answered->answer_sent) return;
    publisher.answered_.push_back(handle);
    if (publisher.wake_) publisher.wake_();
  };
  return response;
}

http::Response Publisher::renew(const http::Request& request, std::size_t service, TimePoint now) {
  auto* subscription = find(request, service, now);
  if (subscription == nullptr) return refusal(412, "no such subscription");
  const auto seconds = decode_timeout(request.fields.find("TIMEOUT"), limits_.time);
  subscription->expires = now + std::chrono::seconds{seconds};
  subscription->subscriber = {request.peer, request.interface, request.local};
  if (subscription->failures > 0) {  // it lives again, and is tried again
    subscription->failures = 0;
    subscription->held_until.reset();
  }
  set_timer(*subscription);
  make_ready(*subscription);
  return granted(*subscription, seconds);
}

http::Response Publisher::unsubscribe(const http::Request& request, std::size_t service, TimePoint now) {
  const auto* subscription = find(request, service, now);
  if (subscription == nullptr) return refusal(412, "no such subscription");
  erase(subscription->handle);
  return {};
}

http::Response Publisher::granted(const Subscription& subscription, std::uint32_t seconds) const {
  http::Response response;
  response.fields.add("SID", subscription.sid);
  response.fields.add("TIMEOUT", "Second-" + std::to_string(seconds));
  return response;
}

/// The subscription a request names, when it is the requester's, of this service, and has time left.
Publisher::Subscription* Publisher::find(const http::Request& request, std::size_t service, TimePoint now) {
  if (request.fields.count("SID") != 1) return nullptr;
  const auto named = by_sid_.find(*request.fields.find("SID"));
  if (named == by_sid_.end()) return nullptr;
  auto* subscription = find(named->second);
  if (subscription->service != service || subscription->subscriber.address != request.peer ||
      subscription->expires <= now)
    return nullptr;
  return subscription;
}

Publisher::Subscription* Publisher::find(std::uint64_t handle) {
  const auto found = subscriptions_.find(handle);
  return found == subscriptions_.end() ? nullptr : &found->second;
}

void Publisher::erase(std::uint64_t handle) {
  const auto found = subscriptions_.find(handle);
  auto& subscription = found->second;
  timers_.erase({subscription.timer, handle});
  by_sid_.erase(subscription.sid);
  const auto device = per_device_.find(subscription.subscriber.address);
  if (--device->second == 0) per_device_.erase(device);
  std::erase(services_[subscription.service].subscriptions, handle);
  if (subscription.ready) std::erase(ready_, handle);
  std::erase(answered_, handle);
  subscriptions_.erase(found);
}

void Publisher::set_timer(Subscription& subscription) {
  timers_.erase({subscription.timer, subscription.handle});
  subscription.timer = subscription.expires;
  if (subscription.held_until) subscription.timer = std::min(subscription.timer, *subscription.held_until);
  timers_.emplace(subscription.timer, subscription.handle);
}

void Publisher::make_ready(Subscription& subscription) {
  if (subscription.ready || subscription.in_flight || !subscription.answer_sent || subscription.held_until)
    return;
  if (!subscription.message && !subscription.initial_due && subscription.waiting.empty()) return;
  subscription.ready = true;
  ready_.push_back(subscription.handle);
}

void Publisher::set(std::size_t service, std::string_view variable, std::string text, TimePoint now) {
  const Change change{variable, std::move(text)};
  set(service, {&change, 1}, now);
}

void Publisher::set(std::size_t service, std::span<const Change> changes, TimePoint now) {
  if (service >= services_.size()) return;
  for (const auto& [name, text] : changes) {
    for (auto& variable : services_[service].variables) {
      if (variable.name != name || *variable.value == text) continue;
      variable.value = std::make_shared<const std::string>(text);
      variable.changed = ++serial_;
      variable.pending = true;
    }
  }
  tell(services_[service], now);
}

/// Makes one event of all pending changes whose time has come.
void Publisher::tell(Service& service, TimePoint now) {
  Event event;
  std::uint64_t newest = 0;
  for (std::size_t i = 0; i < service.variables.size(); ++i) {
    auto& variable = service.variables[i];
    if (!variable.pending) continue;
    if (variable.last_event && now - *variable.last_event < variable.min_interval) continue;
    variable.pending = false;
    variable.last_event = now;
    newest = std::max(newest, variable.changed);
    event.values.emplace_back(i, variable.value);
  }
  if (event.values.empty() || service.subscriptions.empty()) return;
  const auto shared = std::make_shared<const Event>(std::move(event));
  for (const auto handle : service.subscriptions) {
    auto& subscription = *find(handle);
    // The initial event will say it all, or has.
    if (subscription.initial_due || newest <= subscription.told || subscription.expires <= now) continue;
    add(subscription, shared);
    make_ready(subscription);
  }
}

Publisher::EventPointer Publisher::merge(const Event& older, const Event& newer) {
  auto merged = std::make_shared<Event>();
  auto old = older.values.begin();
  for (const auto& value : newer.values) {
    for (; old != older.values.end() && old->first < value.first; ++old) merged->values.push_back(*old);
    if (old != older.values.end() && old->first == value.first) ++old;
    merged->values.push_back(value);
  }
  merged->values.insert(merged->values.end(), old, older.values.end());
  return merged;
}

void Publisher::add(Subscription& subscription, const EventPointer& event) {
  auto& waiting = subscription.waiting;
  if (subscription.held_until && !waiting.empty()) {  // nobody is there: the last values will do
    waiting.back() = merge(*waiting.back(), *event);
    return;
  }
  waiting.push_back(event);
  if (waiting.size() <= max_waiting) return;
  waiting[1] = merge(*waiting[0], *waiting[1]);
  waiting.pop_front();
}

std::string Publisher::body_of(const Event& event, const Subscription& subscription) const {
  if (!event.body.empty()) return event.body;
  const auto& variables = services_[subscription.service].variables;
  std::vector<Property> properties;
  std::deque<std::string> own;  // what the properties look at
  bool of_all = true;
  for (const auto& [index, value] : event.values) {
    const auto& variable = variables[index];
    of_all &= !variable.own;
    if (variable.own) own.push_back(variable.own(subscription.subscriber.address));
    properties.emplace_back(variable.name, variable.own ? own.back() : *value);
  }
  auto body = encode_propertyset(properties);
  if (of_all) event.body = body;
  return body;
}

std::optional<http::Delivery> Publisher::poll_send(TimePoint now) {
  while (!ready_.empty()) {
    auto& subscription = *find(ready_.front());
    ready_.pop_front();
    subscription.ready = false;
    if (subscription.expires <= now) continue;
    if (!subscription.message) {
      if (subscription.initial_due) {
        const auto& variables = services_[subscription.service].variables;
        auto event = std::make_shared<Event>();
        for (std::size_t i = 0; i < variables.size(); ++i) event->values.emplace_back(i, variables[i].value);
        subscription.message = std::move(event);
        subscription.initial_due = false;
        subscription.told = serial_;
      } else {
        subscription.message = std::move(subscription.waiting.front());
        subscription.waiting.pop_front();
      }
      subscription.sequence = subscription.next_sequence;
      subscription.next_sequence = next_sequence(subscription.sequence);
      subscription.callback = 0;
      subscription.message_began = now;
    }
    const auto& callback = subscription.callbacks[subscription.callback];
    subscription.in_flight = true;
    return http::Delivery{subscription.handle,
                          callback.address,
                          callback.port,
                          callback.path,
                          subscription.subscriber.interface,
                          subscription.subscriber.local,
                          encode_notify(callback, subscription.sid, subscription.sequence,
                                        body_of(*subscription.message, subscription))};
  }
  return std::nullopt;
}

void Publisher::handle_result(std::uint64_t handle, const http::DeliveryResult& result, TimePoint now) {
  auto* const subscription = find(handle);
  if (subscription == nullptr || !subscription->in_flight) return;
  using Kind = http::DeliveryResult::Kind;
  subscription->in_flight = false;
  if (subscription->expires <= now) return erase(handle);
  const bool taken = result.kind == Kind::answered && result.status / 100 == 2;
  if (!taken && ++subscription->callback < subscription->callbacks.size() &&
      now - subscription->message_began < answer_time)
    return make_ready(*subscription);  // the next URL

  subscription->message.reset();
  if (result.kind == Kind::connect_failed || result.kind == Kind::timed_out) {
    // Nobody is there. Dialling again at once for each event would cost us most for those who get least.
    subscription->failures = std::min(subscription->failures + 1, 32U);
    subscription->held_until = now + pause_after(subscription->failures);
    auto& waiting = subscription->waiting;
    while (waiting.size() > 1) {
      waiting[1] = merge(*waiting[0], *waiting[1]);
      waiting.pop_front();
    }
    set_timer(*subscription);
  } else {
    subscription->failures = 0;
    make_ready(*subscription);
  }
}

void Publisher::handle_timeout(TimePoint now) {
  for (const auto handle : std::exchange(answered_, {})) {
    auto& subscription = *find(handle);
    if (subscription.answer_sent) continue;
    subscription.answer_sent = true;
    subscription.held_until = now + initial_pause;
    set_timer(subscription);
  }
  while (!timers_.empty() && timers_.begin()->first <= now) {
    const auto handle = timers_.begin()->second;
    auto& subscription = *find(handle);
    if (subscription.expires <= now) {
      erase(handle);
      continue;
    }
    subscription.held_until.reset();
    set_timer(subscription);
    make_ready(subscription);
  }
  for (auto& service : services_) tell(service, now);
}

std::optional<TimePoint> Publisher::next_deadline() const {
  if (!answered_.empty()) return TimePoint{};
  std::optional<TimePoint> next;
  const auto consider = [&](TimePoint when) { next = next ? std::min(*next, when) : when; };
  if (!timers_.empty()) consider(timers_.begin()->first);
  for (const auto& service : services_)
    for (const auto& variable : service.variables)
      if (variable.pending && variable.last_event) consider(*variable.last_event + variable.min_interval);
  return next;
}

void Publisher::forget_if(const std::function<bool(const Subscriber&)>& gone) {
  for (auto next = subscriptions_.begin(); next != subscriptions_.end();) {
    const auto handle = next->first;
    const bool leaves = gone(next->second.subscriber);
    ++next;
    if (leaves) erase(handle);
  }
}

}  // namespace sallyport::upnp::gena
