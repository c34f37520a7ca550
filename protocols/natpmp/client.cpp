#include "protocols/natpmp/client.hpp"

#include <algorithm>
#include <utility>

#include "protocols/wire/byte_reader.hpp"

namespace sallyport::natpmp {
namespace {

using namespace std::chrono_literals;
using wire::MappingEvent;
using wire::MappingFailure;
using Kind = MappingEvent::Kind;
using Duration = TimePoint::duration;

constexpr std::uint32_t longest_lifetime_s = 86400;  ///< relied upon, as with PCP
constexpr Duration request_gap = 4s;  ///< between two requests that are no repetition, as with PCP
// The errors of NAT-PMP do not say for how long they hold.
constexpr Duration wait_not_now = 32s;
constexpr Duration wait_silence = 64s;
constexpr Duration longest_wait = 15min;
constexpr int max_deletions = 3;      ///< NPM-3.1-06
constexpr Duration longest_way = 1s;  ///< what was sent before that has arrived, or never will

MappingFailure failure_of(ResultCode code) {
  switch (code) {
    case ResultCode::unsupported_version:
    case ResultCode::unsupported_opcode:
      return MappingFailure::unsupported;
    case ResultCode::not_authorized:
      return MappingFailure::not_authorized;
    case ResultCode::network_failure:
      return MappingFailure::no_external_address;
    case ResultCode::out_of_resources:
      return MappingFailure::no_resources;
    case ResultCode::success:
      break;
  }
  return MappingFailure::nonsense;
}

bool is_not_now(ResultCode code) {
  return code == ResultCode::network_failure || code == ResultCode::out_of_resources;
}

Opcode opcode_of(Transport transport) {
  return transport == Transport::tcp ? Opcode::map_tcp : Opcode::map_udp;
}

/// The answers to `opcode` that say that version or opcode is unsupported, in their own layouts
/// (section 3.5), and a PCP server's word that version 0 is none of its own, which has PCP's header. The
/// version error of 8 octets is none: it answers other versions than ours, so a PCP request from the same
/// port.
std::optional<ResultCode> refusal_of(std::span<const std::byte> datagram, Opcode opcode) {
  if (datagram.size() < 4 || datagram[1] != (static_cast<std::byte>(opcode) | response_bit))
    return std::nullopt;
  if (datagram[0] != std::byte{version}) {
    if (datagram[3] != std::byte{1}) return std::nullopt;
    return ResultCode::unsupported_version;
  }
  const auto result = static_cast<ResultCode>(wire::ByteReader{datagram.subspan(2)}.u16());
  if (result == ResultCode::unsupported_opcode) return result;
  if (result != ResultCode::unsupported_version || datagram.size() < address_response_size)
    return std::nullopt;
  return result;
}

/// True when a refusal that returns the request, or has the layout of its answer, is of another port.
bool is_of_other_port(std::span<const std::byte> datagram, Port port) {
  if (datagram[0] != std::byte{version} || datagram.size() < map_request_size) return false;
  const auto at = [&](std::size_t offset) { return wire::ByteReader{datagram.subspan(offset)}.u16(); };
  return at(4) != port.number() && at(8) != port.number();
}

}  // namespace

AddressClient::AddressClient(TimePoint now) { refresh(now); }

bool AddressClient::handle_datagram(std::span<const std::byte> datagram, TimePoint) {
  if (!attempts_.running()) return false;
  if (const auto refused = refusal_of(datagram, Opcode::external_address)) {
    fail(failure_of(*refused), static_cast<unsigned>(*refused));
    return true;
  }
  const auto response = decode_response(datagram);
  if (!response) return false;
  const auto* answer = std::get_if<AddressResponse>(&*response);
  if (!answer) return false;
  if (answer->result != ResultCode::success) {
    fail(failure_of(answer->result), static_cast<unsigned>(answer->result));
  } else if (answer->external.is_unspecified()) {
    fail(MappingFailure::no_external_address);
  } else {
    attempts_.stop();
    request_due_ = false;
    result_ = {.state = Result::State::address, .address = answer->external};
  }
  return true;
}

void AddressClient::handle_unreachable(TimePoint) {
  if (attempts_.running()) fail(MappingFailure::unsupported);
}

void AddressClient::handle_timeout(TimePoint now) {
  if (!attempts_.running() || now < *attempts_.due()) return;
  if (attempts_.take(now))
    request_due_ = true;
  else
    fail(MappingFailure::unsupported);
}

std::optional<std::vector<std::byte>> AddressClient::poll_transmit() {
  if (!std::exchange(request_due_, false)) return std::nullopt;
  return encode(AddressRequest{});
}

void AddressClient::refresh(TimePoint now) {
  if (attempts_.running()) return;
  result_ = {.state = Result::State::pending, .address = result_.address};
  attempts_.restart(now);
  handle_timeout(now);
}

void AddressClient::fail(MappingFailure failure, unsigned code) {
  attempts_.stop();
  request_due_ = false;
  result_ = {.state = Result::State::failure, .failure = failure, .code = code};
}

MappingClient::MappingClient(const wire::MappingWish& wish, std::uint64_t seed, TimePoint now)
    : wish_{wish},
      jitter_{seed},
      suggested_port_{wish.external_port.value_or(wish.internal_port)},
      granted_{.external = {Address::v4(0), suggested_port_}} {
  wish_.lifetime_s = std::max(wish_.lifetime_s, 1U);
  const bool ipv6 = !wish_.external_address.is_v4() && !wish_.external_address.is_unspecified();
  if (!wish_.remotes.empty() || ipv6) {
    state_ = State::stopped;
    tell(Kind::refused, {MappingFailure::not_possible});
    return;
  }
  attempts_.restart(now);
  handle_attempt(now);
}

void MappingClient::set_external_address(const Address& address) {
  if (std::exchange(granted_.external.address, address) == address) return;
  if (state_ == State::held) tell(Kind::changed);
}

bool MappingClient::handle_datagram(std::span<const std::byte> datagram, TimePoint now) {
  if (finished()) return false;
  MapResponse answer{.transport = wish_.transport};
  if (const auto refused = refusal_of(datagram, opcode_of(wish_.transport))) {
    if (is_of_other_port(datagram, wish_.internal_port) || (!deletion_at_ && !attempts_.running()))
      return false;
    answer.result = *refused;
  } else {
    const auto response = decode_response(datagram);
    if (!response) return false;
    const auto* map = std::get_if<MapResponse>(&*response);
    if (!map || map->transport != wish_.transport || map->internal_port != wish_.internal_port.number())
      return false;
    answer = *map;
  }
  const bool success = answer.result == ResultCode::success;
  if (deletion_at_) {
    handle_while_deleting(success && answer.lifetime_s != 0, now);
    return true;
  }
  // The answer to a deletion that somebody sent before: this one asks for the same port of the same host.
  if (success && answer.lifetime_s == 0 && state_ != State::held) return false;
  if (unanswered_ > 0) --unanswered_;
  if (!attempts_.running()) return true;
  if (!success) {
    handle_error(answer.result, now);
  } else if (answer.lifetime_s != 0) {
    const auto external = Port::from(answer.external_port);
    if (!external) return false;
    handle_grant(*external, answer.lifetime_s, now);
  } else {
    end({MappingFailure::not_authorized}, true);
    wait({}, wait_not_now, false, now);
  }
  return true;
}

void MappingClient::handle_grant(Port external, std::uint32_t lifetime_s, TimePoint now) {
  const bool held = state_ == State::held;
  if (wish_.exact && external != wish_.external_port.value_or(wish_.internal_port)) {
    const Refused why{MappingFailure::port_taken};
    if (held) end(why, false);
    wait(why, longest_wait, true, now);
    give_back(now);
    return;
  }
  const auto kind = !held                                ? Kind::granted
                    : external == granted_.external.port ? Kind::renewed
                                                         : Kind::changed;
  state_ = State::held;
  attempts_.stop();
  refreshing_ = maybe_granted_ = request_due_ = false;
  not_now_.reset();
  back_off_ = {};
  suggested_port_ = external;
  granted_ = {{granted_.external.address, external}, lifetime_s, now};
  expires_ = now + std::chrono::seconds{std::min(lifetime_s, longest_lifetime_s)};
  plan_renewal(now);
  tell(kind);
}

/// A deletion that overtook a request has deleted nothing.
void MappingClient::handle_while_deleting(bool grant, TimePoint now) {
  if (grant && overtakable_ > 0) {
    --overtakable_;
    send_deletion(now);  // answers may come in another order than what they answer
  } else if (grant) {
    return;
  } else if (overtakable_ > 0) {
    deletion_at_ = std::max(now, last_sent_ + longest_way);
  } else {
    deletion_at_.reset();
    deletion_due_ = false;
  }
}

void MappingClient::handle_error(ResultCode code, TimePoint now) {
  const Refused why{failure_of(code), static_cast<unsigned>(code)};
  const bool held = state_ == State::held;
  if (held && !refreshing_ && is_not_now(code)) {
    attempts_.stop();
    request_due_ = false;
    not_now_ = why;
    plan_renewal(now);
    return;
  }
  const bool told = held && !refreshing_;
  if (held) end(why, told);
  if (is_not_now(code))
    back_off(why, wait_not_now, now);
  else
    wait(why, longest_wait, !(told && code == ResultCode::not_authorized), now);
}

void MappingClient::handle_unreachable(TimePoint now) {
  if (deletion_at_) {
    deletion_at_.reset();
    deletion_due_ = false;
  }
  if (state_ == State::asking && attempts_.sent() > 0)
    back_off({MappingFailure::unsupported}, wait_silence, now);
}

void MappingClient::handle_timeout(TimePoint now) {
  if (deletion_at_ && now >= *deletion_at_) send_deletion(now);
  if (state_ == State::held && now >= expires_) expire(now);
  if (next_ask_ && now >= *next_ask_) {
    next_ask_.reset();
    if (state_ == State::waiting) state_ = State::asking;
    attempts_.restart(now);
  }
  if (attempts_.running() && now >= *attempts_.due()) handle_attempt(now);
}

void MappingClient::handle_attempt(TimePoint now) {
  if (attempts_.take(now)) {
    request_due_ = true;
    unanswered_ = now < last_sent_ + longest_way ? unanswered_ + 1 : 1;
    last_sent_ = now;
  } else if (state_ == State::held) {
    refreshing_ = false;
    plan_renewal(now);
  } else {
    back_off({MappingFailure::no_answer}, wait_silence, now);
  }
}

void MappingClient::refresh(TimePoint now) {
  if (state_ == State::stopped || deletion_at_) return;
  if (state_ == State::held) refreshing_ = true;
  if (attempts_.running() && now < last_sent_ + request_gap) return;
  next_ask_ = state_ == State::waiting ? std::max(now, last_sent_ + request_gap) : now;
  handle_timeout(now);
}

void MappingClient::release(TimePoint now) {
  if (released_) return;
  const bool holds = state_ == State::held || maybe_granted_;
  overtakable_ = now < last_sent_ + longest_way ? unanswered_ : 0;
  released_ = true;
  state_ = State::stopped;
  attempts_.stop();
  request_due_ = maybe_granted_ = false;
  next_ask_.reset();
  events_.clear();
  if (holds && !deletion_at_) give_back(now);
}

bool MappingClient::finished() const noexcept { return released_ && !deletion_at_ && !deletion_due_; }

std::optional<MappingEvent> MappingClient::poll_event() {
  if (events_.empty()) return std::nullopt;
  auto next = std::move(events_.front());
  events_.pop_front();
  return next;
}

std::optional<std::vector<std::byte>> MappingClient::poll_transmit() {
  MapRequest request{.transport = wish_.transport, .internal_port = wish_.internal_port.number()};
  if (std::exchange(deletion_due_, false)) return encode(request);  // all else is 0 (NPM-3.4-04)
  if (!std::exchange(request_due_, false)) return std::nullopt;
  if (state_ != State::held) maybe_granted_ = true;
  request.suggested_external_port = suggested_port_.number();
  request.lifetime_s = wish_.lifetime_s;
  return encode(request);
}

std::optional<TimePoint> MappingClient::next_deadline() const {
  auto next = next_ask_;
  const auto also = [&](const std::optional<TimePoint>& at) {
    if (at && (!next || *at < *next)) next = at;
  };
  also(attempts_.due());
  also(deletion_at_);
  if (state_ == State::held) also(expires_);
  return next;
}

/// At half of what is left (NPM-3.3-19), spread over the eighth that follows.
void MappingClient::plan_renewal(TimePoint from) {
  const auto left = expires_ - from;
  auto at = from + left / 2 + jitter_.between(0s, left / 8);
  at = std::max(at, last_sent_ + (not_now_ ? wait_not_now : request_gap));
  next_ask_ = at < expires_ ? std::optional{at} : std::nullopt;
}

void MappingClient::expire(TimePoint now) {
  const auto why = not_now_;
  const auto attempts = attempts_;
  end(why.value_or(Refused{MappingFailure::no_answer}), false);
  if (why) return back_off(*why, wait_not_now, now);
  state_ = State::asking;
  if (attempts.running())
    attempts_ = attempts;  // of a renewal, which asks for the same
  else
    attempts_.restart(std::max(now, last_sent_ + request_gap));
}

void MappingClient::end(const Refused& why, bool told) {
  tell(Kind::ended, why, told);
  state_ = State::waiting;
  attempts_.stop();
  refreshing_ = request_due_ = false;
  not_now_.reset();
  next_ask_.reset();
}

void MappingClient::wait(const Refused& why, Duration length, bool told, TimePoint now) {
  state_ = State::waiting;
  attempts_.stop();
  request_due_ = maybe_granted_ = false;
  next_ask_ = now + length;
  if (told) tell(Kind::refused, why);
}

void MappingClient::back_off(const Refused& why, Duration least, TimePoint now) {
  back_off_ = std::clamp<Duration>(2 * back_off_, least, longest_wait);
  const bool silent = why.failure == MappingFailure::no_answer;
  const bool maybe = silent && maybe_granted_;  // its answers may have been lost
  wait(why, back_off_, true, now);
  maybe_granted_ = maybe;
}

void MappingClient::tell(Kind kind, const Refused& why, bool told) {
  events_.push_back({.kind = kind,
                     .granted = granted_,
                     .failure = why.failure,
                     .code = why.code,
                     .retry_at = kind == Kind::refused ? next_ask_ : std::nullopt,
                     .told = told});
}

void MappingClient::give_back(TimePoint now) {
  deletions_ = 0;
  send_deletion(now);
}

void MappingClient::send_deletion(TimePoint now) {
  deletion_due_ = true;
  if (now >= last_sent_ + longest_way) overtakable_ = 0;
  if (++deletions_ < max_deletions)
    deletion_at_ = now + Attempts::first_wait * (1 << (deletions_ - 1));
  else
    deletion_at_.reset();
}

bool EpochWatch::lost_state(std::uint32_t epoch_s, TimePoint now) noexcept {
  const auto before = std::exchange(last_, Seen{epoch_s, now});
  if (!before) return false;
  const auto elapsed = now - before->at;
  const Duration counted = std::chrono::seconds{std::int64_t{epoch_s} - std::int64_t{before->epoch_s}};
  return counted + 2s < elapsed - elapsed / 8;
}

std::optional<AddressResponse> announcement(std::span<const std::byte> datagram) {
  const auto response = decode_response(datagram);
  if (!response) return std::nullopt;
  const auto* answer = std::get_if<AddressResponse>(&*response);
  if (!answer) return std::nullopt;
  return *answer;
}

std::optional<std::uint32_t> response_epoch(std::span<const std::byte> datagram) {
  const auto response = decode_response(datagram);
  if (!response) return std::nullopt;
  if (const auto* answer = std::get_if<AddressResponse>(&*response)) return answer->epoch_s;
  if (const auto* answer = std::get_if<MapResponse>(&*response)) return answer->epoch_s;
  if (std::get<ErrorResponse>(*response).result != ResultCode::unsupported_version || datagram.size() < 8)
    return std::nullopt;
  return wire::ByteReader{datagram.subspan(4)}.u32();
}

}  // namespace sallyport::natpmp
