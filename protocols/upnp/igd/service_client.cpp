#include "protocols/upnp/igd/service_client.hpp"

#include <algorithm>
#include <utility>

namespace sallyport::upnp::igd {
namespace {

using namespace std::chrono_literals;
using wire::MappingEvent;
using wire::MappingFailure;
using Kind = MappingEvent::Kind;

constexpr unsigned silences_before_told = 2;
constexpr unsigned max_removals = 3;
constexpr auto end_blur = 10s;  ///< on its way, and in the rounding of clocks

}  // namespace

ServiceClient::ServiceClient(Connection service, wire::MappingWish wish, const Address& internal,
                             std::uint64_t seed)
    : service_{std::move(service)}, wish_{std::move(wish)}, internal_{internal}, jitter_{seed} {}

std::chrono::nanoseconds ServiceClient::spread(std::chrono::nanoseconds around) {
  return around - around / 8 + around / 4 * (jitter_.next() % 1024) / 1024;
}

std::chrono::nanoseconds ServiceClient::back_off(std::chrono::seconds first, std::chrono::seconds longest) {
  const auto pause = first * (1U << std::min(failures_, 12U));
  ++failures_;
  return spread(std::min(pause, longest));
}

void ServiceClient::schedule(Step step, TimePoint at) {
  step_ = step;
  due_ = at;
}

TimePoint ServiceClient::lease_end() const noexcept {
  return held_->lifetime_s == 0 ? TimePoint::max() : held_->at + std::chrono::seconds{held_->lifetime_s};
}

void ServiceClient::handle_timeout(TimePoint now) {
  if (finished_) return;
  if (held_ && !releasing_ && !in_flight_ && now >= lease_end()) {
    tell_end(last_failure_, last_code_, false);
    failures_ = 0;
    schedule(first_step(), now);
  }
  if (!due_ || *due_ > now || in_flight_) return;
  due_.reset();
  asking_ = true;
}

std::optional<TimePoint> ServiceClient::next_deadline() const {
  if (finished_ || in_flight_) return std::nullopt;
  if (!held_ || releasing_ || held_->lifetime_s == 0) return due_;
  return due_ ? std::min(*due_, lease_end()) : lease_end();
}

std::optional<http::NumberedAsk> ServiceClient::poll_ask() {
  if (!asking_ || finished_) return std::nullopt;
  asking_ = false;
  in_flight_ = ++last_id_;
  if (step_ == Step::remove) ++removals_;
  return http::NumberedAsk{last_id_, make_ask(step_)};
}

void ServiceClient::handle_reply(std::uint64_t id, const Result<http::Reply>& reply, TimePoint now) {
  if (id != in_flight_) return;
  in_flight_.reset();
  const auto step = step_;
  if (step == Step::add) doubtful_ = !reply;
  if (releasing_) {
    continue_release(step, reply, now);
  } else if (!reply) {
    keep_silence(now);
  } else {
    const auto read = soap::read_answer(*reply, action_of(step));
    if (const auto* const answer = std::get_if<soap::Answer>(&read))
      handle_answer(step, *answer, now);
    else
      handle_refusal(step, std::get<soap::Refusal>(read), now);
  }
  if (std::exchange(refresh_next_, false)) return refresh(now);
  handle_timeout(now);
}

/// No answer came. A lease that is held goes on, so nothing is told of it before its end.
void ServiceClient::keep_silence(TimePoint now) {
  last_failure_ = MappingFailure::no_answer;
  last_code_ = 0;
  schedule(step_, now + back_off(1s, 300s));
  if (held_ || silence_told_ || failures_ < silences_before_told) return;
  silence_told_ = true;
  tell_refusal(MappingFailure::no_answer, 0);
}

void ServiceClient::granted(const ExternalEndpoint& external, std::uint32_t lifetime_s, TimePoint now) {
  const auto kind = !held_ ? Kind::granted : held_->external == external ? Kind::renewed : Kind::changed;
  held_ = {external, lifetime_s, now};
  failures_ = 0;
  silence_told_ = false;
  last_failure_ = MappingFailure::no_answer;
  last_code_ = 0;
  tell({.kind = kind, .granted = *held_});
  schedule_renewal(now);
}

void ServiceClient::schedule_renewal(TimePoint now) {
  // a permanent one is looked at now and then: nobody else would notice that it is gone
  if (held_->lifetime_s == 0)
    return schedule(renewal_step(), now + 10min + 10min * (jitter_.next() % 1024) / 1024);
  schedule(renewal_step(), std::max(now, held_->at + spread(std::chrono::seconds{held_->lifetime_s} / 2)));
}

void ServiceClient::shorten(std::uint32_t lifetime_s, TimePoint now) {
  held_->lifetime_s = lifetime_s;
  held_->at = now;
  tell({.kind = Kind::renewed, .granted = *held_});
}

void ServiceClient::refuse(MappingFailure failure, unsigned code, TimePoint now, bool again) {
  last_failure_ = failure;
  last_code_ = code;
  silence_told_ = false;
  const auto pause = back_off(60s, 1800s);
  if (held_) {
    // it may yet be renewed before it ends
    const auto left = lease_end() == TimePoint::max() ? std::chrono::nanoseconds{1800s} : lease_end() - now;
    schedule(renewal_step(), now + std::max<std::chrono::nanoseconds>(1s, std::min(pause, left / 2)));
    return;
  }
  due_.reset();
  if (again) schedule(first_step(), now + pause);
  tell_refusal(failure, code);
}

void ServiceClient::refuse_status(unsigned status, TimePoint now) {
  switch (status) {
    case 401:
    case 403:
      return refuse(MappingFailure::not_authorized, status, now);
    case 404:
    case 405:
    case 410:
    case 501:
      return refuse(MappingFailure::unsupported, status, now);
    case 503:
      return refuse(MappingFailure::no_resources, status, now);
  }
  refuse(MappingFailure::nonsense, status, now);
}

void ServiceClient::lost(MappingFailure failure, unsigned code, bool told, TimePoint now) {
  // what ends now by itself, and at the gateway a moment earlier than here, was taken by nobody
  tell_end(failure, code, told && (held_->lifetime_s == 0 || now + end_blur < lease_end()));
  failures_ = 0;
  schedule(first_step(), now + spread(2s));
}

void ServiceClient::set_external(const Address& address) {
  if (address == external_) return;
  external_ = address;
  if (!held_ || releasing_) return;
  held_->external.address = address;
  tell({.kind = Kind::changed, .granted = *held_});
}

void ServiceClient::refresh(TimePoint now) {
  if (releasing_ || finished_) return;
  if (in_flight_ || asking_) {
    refresh_next_ = true;  // what was asked may have met the old state or the new
    return;
  }
  if (!held_ && !due_) return;  // refused for good
  failures_ = 0;
  schedule(refresh_step(), now);
  handle_timeout(now);
}

void ServiceClient::release(TimePoint now) {
  if (releasing_ || finished_) return;
  releasing_ = true;
  events_.clear();
  asking_ = false;
  due_.reset();
  if (in_flight_) return;
  if (held_ || (doubtful_ && can_check()))
    schedule(held_ ? Step::remove : Step::check, now);
  else
    finished_ = true;
  handle_timeout(now);
}

void ServiceClient::continue_release(Step step, const Result<http::Reply>& reply, TimePoint now) {
  const auto read = reply ? soap::read_answer(*reply, action_of(step)) : soap::Refusal{};
  const auto* const answer = std::get_if<soap::Answer>(&read);
  switch (step) {
    case Step::remove: {
      // a refusal with a code is a word: it is not there, or it is not ours to take away
      if (answer || std::get<soap::Refusal>(read).code != 0 || removals_ >= max_removals)
        finished_ = true;
      else
        schedule(Step::remove, now + 1s);
      return;
    }
    case Step::add:
      if (answer) {
        handle_late_grant(*answer);
        schedule(Step::remove, now);
      } else if (held_) {
        schedule(Step::remove, now);
      } else if (doubtful_ && can_check()) {
        schedule(Step::check, now);
      } else {
        finished_ = true;
      }
      return;
    case Step::check:
    case Step::renew:
      if (held_ || (answer && step == Step::check && doubtful_ && is_ours(*answer)))
        schedule(Step::remove, now);
      else
        finished_ = true;
      return;
  }
}

std::optional<MappingEvent> ServiceClient::poll_event() {
  if (events_.empty()) return std::nullopt;
  auto event = std::move(events_.front());
  events_.pop_front();
  return event;
}

void ServiceClient::tell(MappingEvent event) {
  if (!releasing_) events_.push_back(std::move(event));
}

void ServiceClient::tell_end(MappingFailure failure, unsigned code, bool told) {
  tell({.kind = Kind::ended,
        .granted = *held_,
        .failure = failure,
        .code = code,
        .retry_at = {},
        .told = told});
  held_.reset();
}

void ServiceClient::tell_refusal(MappingFailure failure, unsigned code) {
  const wire::Granted none{.external = {Address{}, wish_.internal_port}};
  tell({.kind = Kind::refused, .granted = none, .failure = failure, .code = code, .retry_at = due_});
}

}  // namespace sallyport::upnp::igd
