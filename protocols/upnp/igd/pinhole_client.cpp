#include "protocols/upnp/igd/pinhole_client.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "protocols/upnp/soap/argument.hpp"

namespace sallyport::upnp::igd {
namespace {

using wire::MappingFailure;

constexpr std::uint32_t longest_lease_s = 86400;  ///< 6FC-06
constexpr std::uint32_t cautious_lease_s = 3600;
constexpr std::size_t max_id = 16;

/// Not fe80::/10, which ends at the link.
bool can_be_reached(const Address& address) noexcept {
  const bool link_local =
      address.bytes()[0] == std::byte{0xfe} && (address.bytes()[1] & std::byte{0xc0}) == std::byte{0x80};
  return !address.is_v4() && !address.is_unspecified() && !link_local;
}

}  // namespace

PinholeClient::PinholeClient(const Connection& firewall, wire::MappingWish wish, const Address& internal,
                             std::uint64_t seed, TimePoint now)
    : ServiceClient{firewall, std::move(wish), internal, seed},
      lease_s_{std::clamp<std::uint32_t>(wish_.lifetime_s, 1, longest_lease_s)} {
  bool possible = can_be_reached(internal) && wish_.remotes.size() <= 1 &&
                  !(wish_.exact && wish_.external_port && *wish_.external_port != wish_.internal_port);
  if (possible && !wish_.remotes.empty()) {
    const auto& remote = wish_.remotes.front();
    if (remote.prefix.length == 128 && !remote.prefix.address.is_v4())
      remote_host_ = remote.prefix.address.to_string();
    else
      possible = remote.prefix.length == 0;
    remote_port_ = remote.port ? remote.port->number() : std::uint16_t{0};
  }
  if (!possible) {
    refuse(MappingFailure::not_possible, 0, now, false);
    return;
  }
  external_ = internal;
  schedule(Step::check, now);
  handle_timeout(now);
}

std::string_view PinholeClient::action_of(Step step) const {
  switch (step) {
    case Step::check:
      return "GetFirewallStatus";
    case Step::add:
      return "AddPinhole";
    case Step::renew:
      return "UpdatePinhole";
    case Step::remove:
      return "DeletePinhole";
  }
  return {};
}

http::Ask PinholeClient::make_ask(Step step) {
  const auto lease = std::to_string(lease_s_);
  switch (step) {
    case Step::check:
      break;
    case Step::add: {
      const auto remote_port = std::to_string(remote_port_);
      const auto client = internal_.to_string();
      const auto port = std::to_string(wish_.internal_port.number());
      const auto protocol = std::to_string(static_cast<unsigned>(wish_.transport));
      return ask_action(service_, action_of(step),
                        std::array<soap::InArgument, 6>{{{"RemoteHost", remote_host_},
                                                         {"RemotePort", remote_port},
                                                         {"InternalClient", client},
                                                         {"InternalPort", port},
                                                         {"Protocol", protocol},
                                                         {"LeaseTime", lease}}});
    }
    case Step::renew:
      return ask_action(service_, action_of(step),
                        std::array<soap::InArgument, 2>{{{"UniqueID", unique_id_}, {"NewLeaseTime", lease}}});
    case Step::remove:
      return ask_action(service_, action_of(step),
                        std::array<soap::InArgument, 1>{{{"UniqueID", unique_id_}}});
  }
  return ask_action(service_, action_of(step));
}

void PinholeClient::handle_late_grant(const soap::Answer& answer) {
  if (const auto id = answer.find("UniqueID"); id && id->size() <= max_id) unique_id_ = *id;
}

void PinholeClient::handle_answer(Step step, const soap::Answer& answer, TimePoint now) {
  if (step == Step::check) {
    const auto enabled = soap::parse_boolean(answer.find("FirewallEnabled").value_or(""));
    const auto allowed = soap::parse_boolean(answer.find("InboundPinholeAllowed").value_or(""));
    if (enabled && !*enabled) return refuse(MappingFailure::unsupported, 702, now);
    if (allowed && !*allowed) return refuse(MappingFailure::not_authorized, 703, now);
    return schedule(Step::add, now);
  }
  if (step == Step::add) {
    unique_id_.clear();
    handle_late_grant(answer);
    // it could be neither renewed nor given back
    if (unique_id_.empty()) return refuse(MappingFailure::nonsense, 0, now);
  }
  granted({internal_, wish_.internal_port}, lease_s_, now);
}

void PinholeClient::handle_refusal(Step step, const soap::Refusal& refusal, TimePoint now) {
  const auto code = refusal.code;
  // what it says of itself is a hint only: the asking decides
  if (step == Step::check) return schedule(Step::add, now);
  switch (code) {
    case 606:
    case 703:
      return refuse(MappingFailure::not_authorized, code, now);
    case 603:
    case 701:
      return refuse(MappingFailure::no_resources, code, now);
    case 702:
      return refuse(MappingFailure::unsupported, code, now);
    case 704:
      if (step == Step::renew) return lost(MappingFailure::not_authorized, code, true, now);
      break;
    case 705:
    case 706:
    case 707:
    case 708:
      return refuse(MappingFailure::not_possible, code, now, false);
  }
  if (step == Step::renew) return schedule(Step::add, now);  // the same pinhole again (6FC-05)
  if (code == 0) return refuse_status(refusal.status, now);
  if (code == 401 || code == 602) return refuse(MappingFailure::unsupported, code, now);
  if (lease_s_ > cautious_lease_s) {
    lease_s_ = cautious_lease_s;
    return schedule(Step::add, now);
  }
  refuse(code == 501 ? MappingFailure::no_resources : MappingFailure::not_possible, code, now);
}

}  // namespace sallyport::upnp::igd
