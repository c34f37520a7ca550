#include "protocols/stun/transaction.hpp"

#include <algorithm>
#include <utility>

namespace sallyport::stun {
namespace {

using namespace std::chrono_literals;
constexpr auto first_interval = 500ms;           // RTO
constexpr unsigned transmissions = 7;            // Rc
constexpr auto last_wait = 16 * first_interval;  // Rm * RTO

}  // namespace

Transaction::Transaction(const BindingRequest& request, TimePoint now, TimePoint give_up)
    : request_{request}, give_up_{give_up}, next_{now + first_interval}, interval_{first_interval} {}

bool Transaction::handle_datagram(std::span<const std::byte> datagram) {
  if (finished_) return false;
  const auto response = decode_response(datagram);
  if (!response || response->id != request_.id) return false;
  const auto kind = response->error_code != 0  ? Outcome::Kind::refused
                    : response->not_understood ? Outcome::Kind::nonsense
                                               : Outcome::Kind::answered;
  finish({kind, *response});
  return true;
}

void Transaction::handle_unreachable() {
  if (!finished_) finish({Outcome::Kind::unreachable, {}});
}

void Transaction::handle_timeout(TimePoint now) {
  if (finished_) return;
  if (now >= give_up_ || (now >= next_ && sent_ == transmissions))
    return finish({Outcome::Kind::no_answer, {}});
  if (now < next_) return;
  to_send_ = true;
  ++sent_;
  interval_ *= 2;
  // from now, not from when it was due: who was asleep does not send what it missed all at once
  next_ = now + (sent_ == transmissions ? BootClock::duration{last_wait} : interval_);
}

std::optional<std::vector<std::byte>> Transaction::poll_transmit() {
  if (!std::exchange(to_send_, false)) return std::nullopt;
  return encode(request_);
}

std::optional<Outcome> Transaction::poll_outcome() { return std::exchange(outcome_, std::nullopt); }

std::optional<TimePoint> Transaction::next_deadline() const noexcept {
  if (finished_) return std::nullopt;
  return std::min(next_, give_up_);
}

void Transaction::finish(Outcome outcome) {
  finished_ = true;
  to_send_ = false;
  outcome_ = std::move(outcome);
}

}  // namespace sallyport::stun
