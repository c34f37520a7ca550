#include "protocols/pcp/client.hpp"

#include <algorithm>
#include <utility>

#include "protocols/wire/byte_reader.hpp"
#include "sallyport/values/printable.hpp"

namespace sallyport::pcp {
namespace {

using namespace std::chrono_literals;
using wire::MappingEvent;
using wire::MappingFailure;
using Kind = MappingEvent::Kind;
using Duration = TimePoint::duration;

// Section 8.1.1
constexpr Duration initial_timeout = 3s;
constexpr Duration longest_timeout = 1024s;
constexpr Duration silence = 5s;         ///< the second transmission is out and not answered either
constexpr Duration renewal_gap = 4s;     ///< section 11.2.1
constexpr Duration confirm_within = 5s;  ///< PCP-14.2-05
constexpr std::uint32_t longest_lifetime_s = 86400;  ///< PCP-15-04
/// A gateway that took a mapping back by an update has not said for how long.
constexpr Duration wait_after_withdrawal = 30s;
constexpr Duration first_unreachable_wait = 60s;
constexpr int max_deletions = 3;      ///< PCP-15.1-12
constexpr Duration longest_way = 1s;  ///< what was sent before that has arrived, or never will
constexpr std::size_t filter_size = option_header_size + 20;
constexpr std::size_t max_filters =
    (max_message - header_size - map_body_size - option_header_size) / filter_size;

Address any_of_family(const Address& like) { return like.is_v4() ? Address::v4(0) : Address{}; }

MappingFailure failure_of(ResultCode code) {
  switch (code) {
    case ResultCode::unsupp_version:
    case ResultCode::unsupp_opcode:
      return MappingFailure::unsupported;
    case ResultCode::not_authorized:
    case ResultCode::authentication_required:
    case ResultCode::authentication_failed:
    case ResultCode::authorization_failed:
      return MappingFailure::not_authorized;
    case ResultCode::network_failure:
      return MappingFailure::no_external_address;
    case ResultCode::no_resources:
    case ResultCode::user_ex_quota:
      return MappingFailure::no_resources;
    case ResultCode::cannot_provide_external:
      return MappingFailure::port_taken;
    case ResultCode::address_mismatch:
      return MappingFailure::address_mismatch;
    case ResultCode::malformed_request:
    case ResultCode::malformed_option:
    case ResultCode::unsupp_option:
    case ResultCode::unsupp_protocol:
    case ResultCode::excessive_remote_peers:
      return MappingFailure::not_possible;
    default:
      return MappingFailure::nonsense;
  }
}

/// Errors that say nothing about a mapping that is there.
bool is_not_now(ResultCode code) {
  return code == ResultCode::network_failure || code == ResultCode::no_resources ||
         code == ResultCode::user_ex_quota;
}

/// An answer that knows no version 2, of whatever version it is itself: another PCP's, or the 8 octets of
/// NAT-PMP (appendix A). Those of another version have no body that can be relied upon.
bool refuses_version(std::span<const std::byte> datagram) {
  if (datagram.size() < 4 || datagram[0] == std::byte{version} || datagram[3] != std::byte{1}) return false;
  const bool response = (datagram[1] & response_bit) != std::byte{0};
  if (datagram[0] != std::byte{0}) return response;
  return datagram.size() == 8 && datagram[2] == std::byte{0} && (response || datagram[1] == std::byte{0});
}

/// Nothing when a filter is of another family or too many are wished.
std::optional<std::vector<Filter>> filters_of(const wire::MappingWish& wish, const Address& client) {
  std::vector<Filter> filters;
  for (const auto& remote : wish.remotes) {
    const auto& prefix = remote.prefix;
    if (prefix.address.is_v4() != client.is_v4() || prefix.length > 128) return std::nullopt;
    if (prefix.address.is_v4() && prefix.length < 96) return std::nullopt;
    if (prefix.length == 0) {  // which would remove filters; all of IPv6 is two halves
      filters.push_back({1, remote.port, {}});
      filters.push_back({1, remote.port, Address{Address::Bytes{std::byte{0x80}}}});
    } else {
      filters.push_back({prefix.length, remote.port, prefix.address});
    }
  }
  if (filters.size() > max_filters) return std::nullopt;
  return filters;
}

/// What of a text fits into a request beside its other options, cut between characters.
std::string description_of(const std::string& text, std::size_t filters) {
  if (!description_text(std::as_bytes(std::span{text}))) return {};
  const auto used =
      header_size + map_body_size + option_header_size + filters * filter_size;  // PREFER_FAILURE's too
  auto room = std::min(max_description, max_message - used);
  room = room < option_header_size ? 0 : std::min(room, (max_message - used - option_header_size) / 4 * 4);
  return std::string{cut(text, room)};
}

}  // namespace

MappingClient::MappingClient(const wire::MappingWish& wish, Address client, Nonce nonce, std::uint64_t seed,
                             TimePoint now)
    : wish_{wish},
      client_{client},
      nonce_{nonce},
      jitter_{seed},
      granted_{.external = {any_of_family(client), wish.internal_port}},
      unreachable_wait_{first_unreachable_wait} {
  wish_.lifetime_s = std::max(wish_.lifetime_s, 1U);
  suggested_port_ = wish_.external_port.value_or(wish_.internal_port);
  suggested_address_ = any_of_family(client_);
  // Who insists does so on the port alone.
  if (!wish_.exact && !wish_.external_address.is_unspecified() &&
      wish_.external_address.is_v4() == client_.is_v4())
    suggested_address_ = wish_.external_address;
  auto filters = filters_of(wish_, client_);
  if (!filters) {
    stop({MappingFailure::not_possible});
    return;
  }
  filters_ = std::move(*filters);
  wish_.description = description_of(wish_.description, filters_.size());
  describe_ = !wish_.description.empty();
  ask(now);
  send(now);
}

bool MappingClient::handle_datagram(std::span<const std::byte> datagram, TimePoint now) {
  if (finished()) return false;
  if (refuses_version(datagram)) {
    if (deletion_at_) {
      deletion_at_.reset();
      deletion_due_ = false;
      return true;
    }
    if (!awaiting_) return false;
    std::optional<std::uint32_t> lifetime_s;
    if (datagram[0] != std::byte{0} && datagram.size() >= header_size)
      lifetime_s = wire::ByteReader{datagram.subspan(4)}.u32();
    handle_error(ResultCode::unsupp_version, lifetime_s, now);
    return true;
  }
  const auto header = decode_response_header(datagram);
  if (!header || header->opcode != static_cast<std::uint8_t>(Opcode::map)) return false;
  const auto map = decode_map_body(datagram.subspan(header_size));
  if (!map || map->nonce != nonce_ || map->protocol != static_cast<std::uint8_t>(wish_.transport) ||
      map->internal_port != wish_.internal_port)
    return false;
  const bool success = header->result == ResultCode::success;
  if (deletion_at_) {
    handle_while_deleting(success && header->lifetime_s != 0, now);
    return true;
  }
  if (success) return handle_success(*header, *map, datagram.subspan(header_size + map_body_size), now);
  handle_error(header->result, header->lifetime_s, now);
  return true;
}

bool MappingClient::handle_success(const ResponseHeader& header, const MapBody& map,
                                   std::span<const std::byte> options, TimePoint now) {
  if (header.lifetime_s == 0) {
    if (state_ == State::held) {
      end({MappingFailure::not_authorized}, true);
      wait({}, wait_after_withdrawal, false, now);
    }
    return true;
  }
  if (!map.external_port) return false;
  if (state_ == State::waiting || state_ == State::stopped) return true;  // PCP-18-04
  const ExternalEndpoint external{map.external_address, *map.external_port};

  // Whatever the gateway gave is not what was asked for, so it must not stay open.
  const bool wrong_port = wish_.exact && external.port != wish_.external_port.value_or(wish_.internal_port);
  const bool filtered = filters_.empty() || has_filters(options);
  if (wrong_port || (!filtered && state_ == State::asking)) {
    const Refused why{wrong_port ? MappingFailure::port_taken : MappingFailure::not_possible};
    if (state_ == State::held) end(why, false);
    wait(why, std::chrono::seconds{long_error_lifetime_s}, true, now);
    give_back(now);
    return true;
  }
  if (state_ == State::held && (!awaiting_ || !filtered)) {  // an update, which names no filters
    if (external == granted_.external) {
      hold(external, header.lifetime_s, now);
    } else if (!confirming_) {  // until confirmed, further ones are no news
      hold(external, header.lifetime_s, now);
      tell(Kind::changed);
      if (!awaiting_) {
        confirming_ = true;
        next_send_ = std::max(now + jitter_.between(0s, confirm_within), last_sent_ + renewal_gap);
      }
    }
    return true;
  }
  handle_grant(external, header.lifetime_s, now);
  return true;
}

/// The answer that was waited for.
void MappingClient::handle_grant(const ExternalEndpoint& external, std::uint32_t lifetime_s, TimePoint now) {
  const auto kind = state_ != State::held           ? Kind::granted
                    : external == granted_.external ? Kind::renewed
                                                    : Kind::changed;
  awaiting_ = refreshing_ = confirming_ = maybe_granted_ = request_due_ = false;
  silence_at_.reset();
  unreachable_wait_ = first_unreachable_wait;
  state_ = State::held;
  hold(external, lifetime_s, now);
  tell(kind);
}

void MappingClient::handle_error(ResultCode code, std::optional<std::uint32_t> lifetime_s, TimePoint now) {
  // Without a request that waits, one is of a request that was answered before, or takes a mapping back.
  if (!awaiting_ && (state_ != State::held || code != ResultCode::not_authorized)) return;
  if (awaiting_ && without(code, now)) return;

  const Refused why{failure_of(code), static_cast<unsigned>(code)};
  const Duration length = std::clamp<Duration>(
      std::chrono::seconds{lifetime_s.value_or(0) == 0 ? error_lifetime_s(code) : *lifetime_s}, renewal_gap,
      std::chrono::seconds{long_error_lifetime_s});
  const bool held = state_ == State::held;
  if (held && !refreshing_ && is_not_now(code)) {
    awaiting_ = false;
    not_now_ = why;
    not_before_ = now + length;
    if (next_send_ && *next_send_ < not_before_) next_send_ = not_before_;
    if (next_send_ && *next_send_ >= expires_) next_send_.reset();
    return;
  }
  const bool told = held && !refreshing_;
  if (held) end(why, told);
  if (code == ResultCode::address_mismatch) return stop(why);
  wait(why, length, !(told && code == ResultCode::not_authorized), now);
}

/// A deletion that overtook a request has deleted nothing.
void MappingClient::handle_while_deleting(bool grant, TimePoint now) {
  if (grant && overtakable_) {
    overtakable_ = false;
    send_deletion(now);  // answers may come in another order than what they answer
  } else if (grant) {
    return;
  } else if (overtakable_) {
    deletion_at_ = std::max(now, last_sent_ + longest_way);
  } else {
    deletion_at_.reset();
    deletion_due_ = false;
  }
}

/// Asks at once for less, where that may be what the gateway could not do; false when there is nothing to
/// leave out.
bool MappingClient::without(ResultCode code, TimePoint now) {
  const bool unread = code == ResultCode::malformed_request || code == ResultCode::malformed_option ||
                      code == ResultCode::unsupp_option;
  if (unread && describe_)
    describe_ = false;
  else if (code == ResultCode::cannot_provide_external && wish_.exact && !suggested_address_.is_unspecified())
    suggested_address_ = any_of_family(client_);  // only the port was insisted on
  else
    return false;
  if (state_ == State::held && !refreshing_) {
    transmit(now);
  } else {
    ask(now);
    send(now);
  }
  return true;
}

bool MappingClient::has_filters(std::span<const std::byte> options) const {
  std::size_t count = 0;
  OptionReader in{options};
  while (const auto option = in.next())
    if (option->code == static_cast<std::uint8_t>(OptionCode::filter)) ++count;
  return count >= filters_.size();
}

void MappingClient::handle_unreachable(TimePoint now) {
  if (deletion_at_) {
    deletion_at_.reset();
    deletion_due_ = false;
  }
  if (state_ != State::asking || !awaiting_) return;
  wait({MappingFailure::unsupported}, unreachable_wait_, true, now);
  unreachable_wait_ = std::min<Duration>(2 * unreachable_wait_, std::chrono::seconds{long_error_lifetime_s});
}

void MappingClient::handle_timeout(TimePoint now) {
  if (deletion_at_ && now >= *deletion_at_) send_deletion(now);
  if (state_ == State::held && now >= expires_) expire(now);
  if (next_send_ && now >= *next_send_) send(now);
  if (silence_at_ && now >= *silence_at_) {
    silence_at_.reset();
    tell(Kind::refused, {MappingFailure::no_answer});
  }
}

void MappingClient::refresh(TimePoint now) {
  if (state_ == State::stopped) return;
  const bool awaited = awaiting_ && now < last_sent_ + initial_timeout;
  if (state_ != State::held && !awaiting_) {  // a gateway that lost its state has lost its reasons too
    if (deletion_at_) return;
    ask(std::max(now, last_sent_ + renewal_gap));
    if (next_send_ <= now) send(now);
    return;
  }
  if (state_ == State::held && std::exchange(refreshing_, true) && awaited) return;
  confirming_ = false;
  timeout_ = {};
  if (awaited)  // what was sent may have met the old state or the new
    next_send_ = last_sent_ + next_timeout(timeout_);
  else
    send(now);
}

void MappingClient::release(TimePoint now) {
  if (released_) return;
  const bool holds = state_ == State::held || maybe_granted_;
  overtakable_ = awaiting_;
  released_ = true;
  state_ = State::stopped;
  awaiting_ = request_due_ = maybe_granted_ = false;
  next_send_.reset();
  silence_at_.reset();
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
  if (std::exchange(deletion_due_, false)) return request(true);
  if (!std::exchange(request_due_, false)) return std::nullopt;
  if (state_ != State::held) maybe_granted_ = true;
  return request(false);
}

std::optional<TimePoint> MappingClient::next_deadline() const {
  auto next = next_send_;
  const auto also = [&](const std::optional<TimePoint>& at) {
    if (at && (!next || *at < *next)) next = at;
  };
  also(silence_at_);
  also(deletion_at_);
  if (state_ == State::held) also(expires_);
  return next;
}

/// Begins to ask, at that moment.
void MappingClient::ask(TimePoint at) {
  if (state_ != State::held) {
    state_ = State::asking;
    silence_at_ = at + silence;
  }
  timeout_ = {};
  next_send_ = at;
}

/// What is due at `next_send_`.
void MappingClient::send(TimePoint now) {
  if (state_ == State::waiting) ask(now);
  transmit(now);
  if (state_ == State::held && !refreshing_) {
    if (!std::exchange(confirming_, false)) ++renewals_;
    plan_renewal(now);
  } else {
    next_send_ = now + next_timeout(timeout_);
  }
}

void MappingClient::transmit(TimePoint now) {
  request_due_ = awaiting_ = true;
  last_sent_ = now;
}

/// Section 11.2.1: in [1/2, 5/8] of the lifetime, in [3/4, 13/16], in [7/8, 29/32] and so on; not before the
/// gateway may be asked again.
void MappingClient::plan_renewal(TimePoint now) {
  next_send_.reset();
  const auto lifetime = expires_ - granted_.at;
  for (; renewals_ < 32; ++renewals_) {
    const auto left = lifetime / (std::int64_t{2} << renewals_);
    const auto due = expires_ - left + jitter_.between(0s, left / 4);
    if (due < now) continue;  // slept through
    const auto at = std::max({due, last_sent_ + renewal_gap, not_now_ ? not_before_ : due});
    if (at < expires_) next_send_ = at;
    return;
  }
}

void MappingClient::hold(const ExternalEndpoint& external, std::uint32_t lifetime_s, TimePoint now) {
  granted_ = {external, lifetime_s, now};
  expires_ = now + std::chrono::seconds{std::min(lifetime_s, longest_lifetime_s)};
  suggested_port_ = external.port;
  suggested_address_ = external.address.is_unspecified() ? any_of_family(client_) : external.address;
  renewals_ = 0;
  not_now_.reset();
  if (!refreshing_ && !confirming_) plan_renewal(now);
}

/// The lifetime ran out (PCP-11.2-08).
void MappingClient::expire(TimePoint now) {
  const auto why = not_now_.value_or(Refused{MappingFailure::no_answer});
  const bool early = not_now_ && now < not_before_;
  const auto length = not_before_ - now;
  end(why, false);
  if (early)
    wait(why, length, true, now);
  else
    ask(std::max(now, last_sent_ + renewal_gap));
}

void MappingClient::end(const Refused& why, bool told) {
  tell(Kind::ended, why, told);
  state_ = State::waiting;
  awaiting_ = refreshing_ = confirming_ = request_due_ = false;
  not_now_.reset();
  next_send_.reset();
}

void MappingClient::wait(const Refused& why, Duration length, bool told, TimePoint now) {
  state_ = State::waiting;
  awaiting_ = request_due_ = maybe_granted_ = false;
  silence_at_.reset();
  next_send_ = now + length;
  if (told) tell(Kind::refused, why);
}

void MappingClient::stop(const Refused& why) {
  state_ = State::stopped;
  awaiting_ = request_due_ = maybe_granted_ = false;
  next_send_.reset();
  silence_at_.reset();
  tell(Kind::refused, why);
}

void MappingClient::tell(Kind kind, const Refused& why, bool told) {
  events_.push_back({.kind = kind,
                     .granted = granted_,
                     .failure = why.failure,
                     .code = why.code,
                     .retry_at = kind == Kind::refused ? next_send_ : std::nullopt,
                     .told = told});
}

void MappingClient::give_back(TimePoint now) {
  deletions_ = 0;
  deletion_timeout_ = {};
  send_deletion(now);
}

void MappingClient::send_deletion(TimePoint now) {
  deletion_due_ = true;
  if (now >= last_sent_ + longest_way) overtakable_ = false;
  if (++deletions_ < max_deletions)
    deletion_at_ = now + next_timeout(deletion_timeout_);
  else
    deletion_at_.reset();
}

/// RT of section 8.1.1, from the one before it; zero before the first.
MappingClient::Duration MappingClient::next_timeout(Duration& timeout) {
  const auto base =
      timeout == Duration{} ? initial_timeout : std::min<Duration>(2 * timeout, longest_timeout);
  timeout = base + jitter_.between(-base / 10, base / 10);
  return timeout;
}

std::vector<std::byte> MappingClient::request(bool deletion) const {
  MapRequest request{
      .lifetime_s = deletion ? 0 : wish_.lifetime_s, .client = client_, .map = {}, .options = {}};
  request.map = {nonce_, static_cast<std::uint8_t>(wish_.transport), wish_.internal_port, std::nullopt,
                 any_of_family(client_)};
  if (deletion) return encode_map_request(request);
  request.map.external_port = suggested_port_;
  request.map.external_address = suggested_address_;
  request.options.prefer_failure = wish_.exact;
  request.options.filters = filters_;
  if (describe_) request.options.description = wish_.description;
  return encode_map_request(request);
}

bool EpochWatch::lost_state(std::uint32_t epoch_s, TimePoint now) noexcept {
  const auto before = std::exchange(last_, Seen{epoch_s, now});
  if (!before) return false;
  const Duration server = std::chrono::seconds{std::int64_t{epoch_s} - std::int64_t{before->epoch_s}};
  if (server < -1s) return true;
  const Duration client = now - before->at;
  return client + 2s < server - server / 16 || server + 2s < client - client / 16;
}

std::optional<std::uint32_t> announced_epoch(std::span<const std::byte> datagram) {
  const auto header = decode_response_header(datagram);
  if (!header || header->opcode != static_cast<std::uint8_t>(Opcode::announce) ||
      header->result != ResultCode::success)
    return std::nullopt;
  return header->epoch_s;
}

std::optional<std::uint32_t> response_epoch(std::span<const std::byte> datagram) {
  const auto header = decode_response_header(datagram);
  if (!header) return std::nullopt;
  return header->epoch_s;
}

}  // namespace sallyport::pcp
