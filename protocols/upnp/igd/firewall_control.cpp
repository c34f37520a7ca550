#include <algorithm>

#include "protocols/upnp/igd/result_code.hpp"
#include "protocols/upnp/igd/server.hpp"
#include "protocols/upnp/soap/argument.hpp"
#include "protocols/upnp/soap/response.hpp"

// The actions of WANIPv6FirewallControl, version 1.

namespace sallyport::upnp::igd {
namespace {

using soap::UpnpErrc;

constexpr std::uint32_t longest_lease_s = 86400;
constexpr unsigned firewall_disabled = 702, not_allowed = 703, protocol_not_supported = 705,
                   no_internal_wildcard = 706, no_protocol_wildcard = 707, no_packet_sent = 709;

std::optional<Address> parse_ipv6(std::string_view text) {
  const auto address = Address::parse(soap::trimmed(text));
  return address && !address->is_v4() ? address : std::nullopt;
}

/// What AddPinhole and GetOutboundPinholeTimeout name alike.
struct Tuple {
  std::optional<RemoteFilter> remote;
  Address client;
  std::uint16_t internal_port = 0;
  std::uint16_t protocol = 0;
};

/// Error: the code of the first argument that is no good; of the protocol and the port only its form is
/// judged.
Result<Tuple> parse_tuple(const soap::Call& call) {
  Tuple tuple;
  const auto remote_port = soap::parse_ui2(call.argument("RemotePort"));
  const auto internal_port = soap::parse_ui2(call.argument("InternalPort"));
  const auto protocol = soap::parse_ui2(call.argument("Protocol"));
  for (const auto* number : {&remote_port, &internal_port, &protocol})
    if (!*number) return number->error();
  tuple.internal_port = *internal_port;
  tuple.protocol = *protocol;
  const auto client = parse_ipv6(call.argument("InternalClient"));
  if (!client) return UpnpErrc::invalid_args;
  tuple.client = *client;
  // nothing, "*" and "::" stand for any host, as WANIPConnection has it (POL-TGT-07)
  const auto remote_text = soap::trimmed(call.argument("RemoteHost"));
  Prefix from{Address{}, 0};
  if (!remote_text.empty() && remote_text != "*") {
    const auto remote = parse_ipv6(remote_text);
    if (!remote) return UpnpErrc::invalid_args;
    if (*remote != Address{}) from = {*remote, 128};
  }
  if (from.length != 0 || *remote_port != 0) tuple.remote = RemoteFilter{from, Port::from(*remote_port)};
  return tuple;
}

unsigned code_of(const boost::system::error_code& error) { return static_cast<unsigned>(error.value()); }

/// 0 where the tuple is one that can be served.
unsigned wildcard_code(const Tuple& tuple) {
  if (tuple.protocol == 65535) return no_protocol_wildcard;
  if (tuple.protocol != 6 && tuple.protocol != 17) return protocol_not_supported;
  if (tuple.internal_port == 0) return no_internal_wildcard;
  return 0;
}

}  // namespace

void Server::get_firewall_status(const soap::Call& call, Context& context) {
  const auto status = pinholes_.pinhole_status();
  context.done(soap::SuccessWriter{call}.boolean(status.firewall).boolean(status.allowed).take());
}

void Server::get_outbound_timeout(const soap::Call& call, Context& context) {
  const auto tuple = parse_tuple(call);
  const auto code = tuple ? wildcard_code(*tuple) : code_of(tuple.error());
  if (code != 0) return context.done(soap::error(*call.service, code));
  context.done(soap::SuccessWriter{call}
                   .number(tuple->protocol == 6 ? options_.tcp_established_s : options_.udp_idle_s)
                   .take());
}

/// 6FC-12: what holds for every action on pinholes; 0: they are there to be opened.
unsigned Server::no_pinholes_code() const {
  const auto status = pinholes_.pinhole_status();
  return !status.firewall ? firewall_disabled : !status.allowed ? not_allowed : 0;
}

void Server::add_pinhole(const soap::Call& call, Context& context) {
  const auto tuple = parse_tuple(call);
  const auto lease = soap::parse_ui4(call.argument("LeaseTime"));
  unsigned code = tuple ? lease ? 0 : code_of(lease.error()) : code_of(tuple.error());
  if (code == 0 && (*lease < 1 || *lease > longest_lease_s))
    code = static_cast<unsigned>(UpnpErrc::value_out_of_range);  // 6FC-06
  if (code == 0) code = no_pinholes_code();
  if (code == 0) code = wildcard_code(*tuple);
  if (code != 0) return context.done(soap::error(*call.service, code));
  PinholeRequest request{.requester = context.contact.client,
                         .transport = tuple->protocol == 6 ? Transport::tcp : Transport::udp,
                         .internal = {tuple->client, *Port::from(tuple->internal_port)},
                         .remote = tuple->remote,
                         .lifetime_s = *lease,
                         .contact = context.contact};
  pinholes_.grant_pinhole(std::move(request), context.now,
                          [call = soap::Call{call.service, call.action, call.version, {}},
                           done = std::move(context.done)](const Outcome<Pinhole>& outcome, TimePoint) {
                            if (outcome) return done(soap::SuccessWriter{call}.number(outcome->id).take());
                            done(soap::error(*call.service, pinhole_error_code(outcome.error().reason)));
                          });
}

void Server::update_pinhole(const soap::Call& call, Context& context) {
  const auto id = soap::parse_ui2(call.argument("UniqueID"));
  const auto lease = soap::parse_ui4(call.argument("NewLeaseTime"));
  unsigned code = id ? lease ? 0 : code_of(lease.error()) : code_of(id.error());
  if (code == 0 && (*lease < 1 || *lease > longest_lease_s))
    code = static_cast<unsigned>(UpnpErrc::value_out_of_range);
  if (code == 0) code = no_pinholes_code();
  if (code != 0) return context.done(soap::error(*call.service, code));
  pinholes_.renew_pinhole(*id, context.contact.client, *lease, context.now,
                          [call = soap::Call{call.service, call.action, call.version, {}},
                           done = std::move(context.done)](const Outcome<Pinhole>& outcome, TimePoint) {
                            if (outcome) return done(soap::SuccessWriter{call}.take());
                            done(soap::error(*call.service, pinhole_error_code(outcome.error().reason)));
                          });
}

void Server::delete_pinhole(const soap::Call& call, Context& context) {
  const auto id = soap::parse_ui2(call.argument("UniqueID"));
  const unsigned code = id ? no_pinholes_code() : code_of(id.error());
  if (code != 0) return context.done(soap::error(*call.service, code));
  pinholes_.release_pinhole(*id, context.contact.client, context.now,
                            [call = soap::Call{call.service, call.action, call.version, {}},
                             done = std::move(context.done)](const Outcome<void>& outcome, TimePoint) {
                              if (outcome) return done(soap::SuccessWriter{call}.take());
                              done(soap::error(*call.service, pinhole_error_code(outcome.error().reason)));
                            });
}

/// GetPinholePackets and CheckPinholeWorking.
void Server::look_at_pinhole(const soap::Call& call, Context& context) {
  const auto id = soap::parse_ui2(call.argument("UniqueID"));
  const unsigned code = id ? no_pinholes_code() : code_of(id.error());
  if (code != 0) return context.done(soap::error(*call.service, code));
  const auto pinhole = pinholes_.find_pinhole(*id, context.contact.client, context.now);
  if (!pinhole) return context.done(soap::error(*call.service, pinhole_error_code(pinhole.error().reason)));
  if (call.action->name == "GetPinholePackets")
    return context.done(
        soap::SuccessWriter{call}.number(static_cast<std::uint32_t>(pinhole->counters.packets_in)).take());
  if (pinhole->forwards && pinhole->counters.packets_in == 0)
    return context.done(soap::error(*call.service, no_packet_sent));
  context.done(soap::SuccessWriter{call}.boolean(pinhole->forwards).take());
}

}  // namespace sallyport::upnp::igd
