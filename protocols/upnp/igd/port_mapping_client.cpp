#include "protocols/upnp/igd/port_mapping_client.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "protocols/upnp/soap/argument.hpp"

namespace sallyport::upnp::igd {
namespace {

using namespace std::chrono_literals;
using wire::MappingFailure;

constexpr std::uint32_t shortest_lease_s = 20;  ///< whatever the gateway says, it is not asked without pause
constexpr unsigned max_tries = 8;
constexpr std::string_view plain_description = "Sallyport";
constexpr std::size_t plain_size = 32;

/// The RemoteHost that stands for the filters; empty for everybody, none where it cannot say them.
std::optional<std::string> remote_host(const std::vector<RemoteFilter>& remotes) {
  if (remotes.empty()) return "";
  if (remotes.size() > 1 || remotes.front().port) return std::nullopt;
  const auto& prefix = remotes.front().prefix;
  if (prefix.length <= 96 && (prefix.length == 0 || prefix.address.is_v4())) return "";
  if (prefix.length != 128 || !prefix.address.is_v4()) return std::nullopt;
  return prefix.address.to_string();
}

bool is_plain(std::string_view text) {
  return text.size() <= plain_size && std::ranges::all_of(text, [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == ' ' ||
                  c == '-';
         });
}

}  // namespace

PortMappingClient::PortMappingClient(const Connection& connection, wire::MappingWish wish,
                                     const Address& internal, std::uint64_t seed, TimePoint now)
    : ServiceClient{connection, std::move(wish), internal, seed}, port_{wished_port()} {
  const auto remote = remote_host(wish_.remotes);
  if (!remote || !internal.is_v4() || internal.is_unspecified()) {
    refuse(MappingFailure::not_possible, 0, now, false);
    return;
  }
  remote_host_ = *remote;
  schedule(Step::add, now);
  handle_timeout(now);
}

std::uint32_t PortMappingClient::lease_s() const noexcept {
  if (permanent_only_ || form_ == Form::permanent) return 0;
  return std::clamp<std::uint32_t>(wish_.lifetime_s, 1, longest_given_s_);
}

std::string_view PortMappingClient::action_of(Step step) const {
  switch (step) {
    case Step::check:
      return "GetSpecificPortMappingEntry";
    case Step::remove:
      return "DeletePortMapping";
    case Step::add:
      if (asked_any_) return "AddAnyPortMapping";
      break;
    case Step::renew:
      break;
  }
  return "AddPortMapping";
}

http::Ask PortMappingClient::make_ask(Step step) {
  const auto external = std::to_string(port_.number());
  const std::string_view protocol = wish_.transport == Transport::tcp ? "TCP" : "UDP";
  if (step == Step::check || step == Step::remove)
    return ask_action(
        service_, action_of(step),
        std::array<soap::InArgument, 3>{
            {{"NewRemoteHost", remote_host_}, {"NewExternalPort", external}, {"NewProtocol", protocol}}});
  asked_any_ =
      step == Step::add && service_.version >= 2 && !service_.ppp && !wish_.exact && !no_any_ && !same_port_;
  const auto internal_port = std::to_string(wish_.internal_port.number());
  const auto client = internal_.to_string();
  const auto lease = std::to_string(lease_s());
  const std::string_view description = form_ != Form::full || wish_.description.empty()
                                           ? plain_description
                                           : std::string_view{wish_.description};
  return ask_action(service_, action_of(step),
                    std::array<soap::InArgument, 8>{{{"NewRemoteHost", remote_host_},
                                                     {"NewExternalPort", external},
                                                     {"NewProtocol", protocol},
                                                     {"NewInternalPort", internal_port},
                                                     {"NewInternalClient", client},
                                                     {"NewEnabled", "1"},
                                                     {"NewPortMappingDescription", description},
                                                     {"NewLeaseDuration", lease}}});
}

void PortMappingClient::handle_late_grant(const soap::Answer& answer) {
  if (!asked_any_) return;
  if (const auto reserved = answer.find("NewReservedPort"))
    if (const auto number = soap::parse_ui2(*reserved))
      if (const auto port = Port::from(*number)) port_ = *port;
}

void PortMappingClient::handle_answer(Step step, const soap::Answer& answer, TimePoint now) {
  if (step == Step::check) return handle_check(answer, now);
  if (step == Step::add) handle_late_grant(answer);
  tries_ = 0;
  granted({external_, port_}, lease_s(), now);
  if (step != Step::add || lease_s() == 0 || no_check_) return;
  // what it said yes to may be shorter, and whether looking works here is good to know before it matters
  verifying_ = true;
  schedule(Step::check, now);
}

bool PortMappingClient::is_ours(const soap::Answer& answer) const {
  if (const auto client = Address::parse(answer.find("NewInternalClient").value_or(""));
      client && *client != internal_)
    return false;
  const auto port = soap::parse_ui2(answer.find("NewInternalPort").value_or(""));
  return !port || *port == wish_.internal_port.number();
}

void PortMappingClient::handle_check(const soap::Answer& answer, TimePoint now) {
  const bool verifying = std::exchange(verifying_, false);
  if (!is_ours(answer)) {
    lost(MappingFailure::port_taken, 0, true, now);
    return;
  }
  if (const auto enabled = soap::parse_boolean(answer.find("NewEnabled").value_or(""));
      enabled && !*enabled) {
    lost(MappingFailure::not_authorized, 0, true, now);
    return;
  }
  if (held_->lifetime_s == 0) {
    // it did not say that the lease was what it choked on: perhaps it was something that has passed
    if (form_ != Form::permanent || permanent_only_ || std::exchange(leased_again_, true))
      return schedule_renewal(now);
    form_ = Form::full;
    return schedule(Step::renew, now);
  }
  if (!verifying) return schedule(Step::renew, now);
  // 0 says nothing: many have it there whatever they were asked for
  const auto left = soap::parse_ui4(answer.find("NewLeaseDuration").value_or(""));
  if (left && *left > 0 && held_->at + std::chrono::seconds{*left} + 30s < lease_end()) {
    longest_given_s_ = std::max(*left, shortest_lease_s);  // it will not be more next time
    shorten(longest_given_s_, now);
  }
  schedule_renewal(now);
}

void PortMappingClient::handle_refusal(Step step, const soap::Refusal& refusal, TimePoint now) {
  if (step == Step::check) return handle_check_refusal(refusal, now);
  handle_add_refusal(step, refusal, now);
}

void PortMappingClient::handle_check_refusal(const soap::Refusal& refusal, TimePoint now) {
  if (std::exchange(verifying_, false)) {
    // it was acknowledged a moment ago: what is broken is the looking
    no_check_ = true;
    return schedule_renewal(now);
  }
  if (refusal.code == 714) return lost(MappingFailure::not_authorized, 714, true, now);
  no_check_ = true;
  schedule(Step::renew, now);
}

void PortMappingClient::give_up(MappingFailure failure, unsigned code, TimePoint now, bool again) {
  if (!held_) {
    port_ = wished_port();
    form_ = Form::full;
    tries_ = 0;
  }
  refuse(failure, code, now, again);
}

void PortMappingClient::try_other_port(unsigned code, TimePoint now) {
  if (wish_.exact || same_port_ || ++tries_ >= max_tries)
    return give_up(MappingFailure::port_taken, code, now);
  port_ = *Port::from(static_cast<std::uint32_t>(1024 + jitter_.next() % (65536 - 1024)));
  schedule(Step::add, now);
}

void PortMappingClient::try_lesser_form(Step step, unsigned code, TimePoint now) {
  if (form_ == Form::full && !is_plain(wish_.description)) {
    form_ = Form::plain_description;
  } else if (lease_s() != 0) {
    form_ = Form::permanent;
  } else {
    // a quota is told as 501 (WIC-ADD-22)
    return give_up(code == 501 ? MappingFailure::no_resources : MappingFailure::not_possible, code, now);
  }
  schedule(step, now);
}

void PortMappingClient::handle_add_refusal(Step step, const soap::Refusal& refusal, TimePoint now) {
  const auto code = refusal.code;
  if (step == Step::add && asked_any_ && (code < 606 || code == 716)) {
    no_any_ = true;
    return schedule(step, now);
  }
  switch (code) {
    case 0:
      return refuse_status(refusal.status, now);
    case 401:
    case 602:
      return give_up(MappingFailure::unsupported, code, now);
    case 603:
    case 728:
      return give_up(MappingFailure::no_resources, code, now);
    case 604:
      return give_up(MappingFailure::not_authorized, code, now);
    case 606:
      // many forbid the low ports alone
      if (!held_ && !wish_.exact && port_.number() < 1024) return try_other_port(code, now);
      return give_up(MappingFailure::not_authorized, code, now);
    case 718:
    case 729:
      if (held_) return lost(MappingFailure::port_taken, code, true, now);
      return try_other_port(code, now);
    case 724:
      same_port_ = true;
      if (port_ == wish_.internal_port || wish_.exact)
        return give_up(MappingFailure::not_possible, code, now, false);
      port_ = wish_.internal_port;
      return schedule(step, now);
    case 725:
      if (lease_s() == 0) return give_up(MappingFailure::not_possible, code, now);
      permanent_only_ = true;
      return schedule(step, now);
    case 715:
    case 716:
    case 726:
    case 727:
    case 732:
      // a remote host that was wished for is never left out: the door would be wider than its owner knows
      return give_up(MappingFailure::not_possible, code, now, false);
  }
  if (code >= 703 && code <= 711) return give_up(MappingFailure::no_external_address, code, now);
  try_lesser_form(step, code, now);
}

}  // namespace sallyport::upnp::igd
