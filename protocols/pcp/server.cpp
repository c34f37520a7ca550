#include "protocols/pcp/server.hpp"

#include <algorithm>
#include <bitset>
#include <string>
#include <utility>

#include "sallyport/values/printable.hpp"

namespace sallyport::pcp {
namespace {

constexpr auto all_hosts_v4 = Address::v4(0xe0000001);  // 224.0.0.1
constexpr Address all_nodes_v6{Address::Bytes{
    std::byte{0xff}, std::byte{0x02}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, std::byte{0x01}}};

std::uint8_t number(Opcode opcode) { return static_cast<std::uint8_t>(opcode); }

struct OptionRules {
  Opcode opcode;
  Address client;
  bool third_party_allowed;
  Address internal;          ///< the host the request is about
  const MapBody* map;        ///< null for ANNOUNCE
  std::uint32_t lifetime_s;  ///< as asked
};

/// Octets before the options; nothing for an opcode that is not served.
std::optional<std::size_t> body_size(std::uint8_t opcode) {
  if (opcode == number(Opcode::announce)) return 0;
  if (opcode == number(Opcode::map)) return map_body_size;
  if (opcode == number(Opcode::peer)) return peer_body_size;
  return std::nullopt;
}

/// An address that one host may have.
bool is_host(const Address& address) {
  if (address.is_unspecified()) return false;
  static constexpr auto loopback = [] {
    Address::Bytes bytes{};
    bytes[15] = std::byte{1};
    return Address{bytes};
  }();
  if (!address.is_v4()) return address.bytes()[0] != std::byte{0xff} && address != loopback;
  const auto first = address.v4_number() >> 24;
  return first != 0 && first != 127 && first < 224;
}

/// What the options of a request ask for, once every one of them has been found good.
struct ParsedOptions {
  std::optional<Address> third_party;
  bool prefer_failure = false;
  bool has_filter = false;
  bool clear_filters = false;
  std::vector<RemoteFilter> filters;
  std::optional<std::string> description;
  std::optional<PortSet> port_set;
};

/// FILTER, section 13.3. Nothing goes from one family to the other, so the remote peers are of the host's.
ResultCode read_filter(std::span<const std::byte> data, const Address& internal, ParsedOptions& into) {
  const auto filter = decode_filter(data);
  if (!filter) return ResultCode::malformed_option;
  into.has_filter = true;
  if (filter->prefix_length == 0) {
    into.clear_filters = true;
    into.filters.clear();
    return ResultCode::success;
  }
  if (filter->prefix_length > 128) return ResultCode::malformed_option;
  if (filter->remote_address.is_v4() != internal.is_v4()) return ResultCode::malformed_option;
  if (filter->remote_address.is_v4() && filter->prefix_length < 96) return ResultCode::malformed_option;
  into.filters.push_back({{filter->remote_address, filter->prefix_length}, filter->remote_port});
  return ResultCode::success;
}

/// PORT_SET, RFC 7753 section 4.
ResultCode read_port_set(std::span<const std::byte> data, const MapBody& map, ParsedOptions& into) {
  const auto set = decode_port_set(data);
  if (!set || set->size == 0) return ResultCode::malformed_option;
  if (set->first_internal_port != (map.internal_port ? map.internal_port->number() : 0))
    return ResultCode::malformed_option;
  if (set->first_internal_port + std::uint32_t{set->size} - 1 > 65535) return ResultCode::malformed_option;
  into.port_set = *set;
  return ResultCode::success;
}

ResultCode read_option(const Option& option, const OptionRules& rules, bool repeated, ParsedOptions& into) {
  const auto code = static_cast<OptionCode>(option.code);
  switch (code) {
    case OptionCode::third_party:
      if (!rules.map || !rules.third_party_allowed) return ResultCode::unsupp_option;
      break;
    case OptionCode::description:
      if (!rules.map) return ResultCode::unsupp_option;  // PCP-7.3-15
      break;
    case OptionCode::prefer_failure:
      if (rules.opcode == Opcode::peer) return ResultCode::malformed_request;  // PCP-12.1-08
      [[fallthrough]];
    case OptionCode::filter:
    case OptionCode::port_set:
      if (rules.opcode != Opcode::map) return ResultCode::unsupp_option;  // PCP-7.3-15
      break;
    default:
      return is_mandatory(option.code) ? ResultCode::unsupp_option : ResultCode::success;
  }
  if (repeated && code != OptionCode::filter) return ResultCode::malformed_option;

  switch (code) {
    case OptionCode::third_party: {
      const auto internal = decode_third_party(option.data);
      if (!internal) return ResultCode::malformed_option;
      if (*internal == rules.client) return ResultCode::malformed_request;
      into.third_party = *internal;
      return ResultCode::success;
    }
    case OptionCode::prefer_failure:
      if (!option.data.empty()) return ResultCode::malformed_option;
      // Insisting on nothing makes no sense; a deletion suggests nothing and the option means nothing
      // (section 15.1).
      if (rules.lifetime_s != 0 && !rules.map->external_port && rules.map->external_address.is_unspecified())
        return ResultCode::malformed_option;
      into.prefer_failure = true;
      return ResultCode::success;
    case OptionCode::filter:
      return read_filter(option.data, rules.internal, into);
    case OptionCode::description:
      if (option.data.size() > max_description) return ResultCode::malformed_option;
      if (const auto text = description_text(option.data)) into.description = std::string{*text};
      return ResultCode::success;
    case OptionCode::port_set:
      return read_port_set(option.data, *rules.map, into);
    default:
      return ResultCode::success;
  }
}

/// The options in the order found; the first that is not good decides (section 7.3).
ResultCode read_options(std::span<const std::byte> area, const OptionRules& rules, ParsedOptions& into) {
  std::bitset<256> seen;
  OptionReader in{area};
  while (const auto option = in.next()) {
    const auto result = read_option(*option, rules, seen[option->code], into);
    if (result != ResultCode::success) return result;
    seen.set(option->code);
  }
  return ResultCode::success;
}

/// The host a request is about. Options stand in any order, and FILTER is judged by the family of that host.
Address internal_of(std::span<const std::byte> area, const Address& client, bool third_party_allowed) {
  OptionReader in{area};
  while (const auto option = in.next())
    if (third_party_allowed && option->code == static_cast<std::uint8_t>(OptionCode::third_party))
      if (const auto internal = decode_third_party(option->data)) return *internal;
  return client;
}

bool can_be_walked(std::span<const std::byte> area) {
  OptionReader in{area};
  while (in.next()) continue;
  return in.ok();
}

std::optional<Transport> transport_of(std::uint8_t protocol) {
  if (protocol == static_cast<std::uint8_t>(Transport::tcp)) return Transport::tcp;
  if (protocol == static_cast<std::uint8_t>(Transport::udp)) return Transport::udp;
  return std::nullopt;
}

/// What MAP and PEER ask of the service alike; `internal_port` is there.
GrantRequest grant_of(const wire::Arrival& arrival, std::uint32_t lifetime_s, const MapBody& map, Transport transport,
                      const ParsedOptions& options) {
  return {.via = Via::pcp,
          .transport = transport,
          .requester = arrival.source,
          .internal = {options.third_party.value_or(arrival.source), *map.internal_port},
          .third_party = options.third_party.has_value(),
          .nonce = map.nonce,
          .suggested_port = map.external_port,
          .lifetime_s = lifetime_s,
          .description = options.description,
          .contact = {.interface = arrival.interface,
                      .client = arrival.source,
                      .client_port = arrival.source_port,
                      .gateway = arrival.destination}};
}

}  // namespace

struct Server::Request {
  wire::Arrival arrival;
  RequestHeader header;
  std::vector<std::byte> datagram;  ///< kept for the answer: an error returns it, a success its options

  std::span<const std::byte> payload() const { return std::span{datagram}.subspan(header_size); }
  std::span<const std::byte> options() const { return payload().subspan(body_size(header.opcode).value()); }
};

Server::Server(MappingService& service, ServerOptions options)
    : service_{service}, options_{std::move(options)}, self_{std::make_shared<Server*>(this)} {
  service_.add_listener(*this);
}

Server::~Server() { service_.remove_listener(*this); }

void Server::set_options(ServerOptions options) { options_ = std::move(options); }

void Server::set_served_addresses(std::span<const wire::ServedAddress> addresses, TimePoint now) {
  const auto follow = [&](wire::AnnounceBurst& burst, bool ipv4) {
    const auto is_new = [&](const wire::ServedAddress& served) {
      return served.address.is_v4() == ipv4 && std::ranges::find(served_, served) == served_.end();
    };
    if (std::ranges::any_of(addresses, is_new)) burst.restart(now);
    if (std::ranges::none_of(addresses, [&](const auto& served) { return served.address.is_v4() == ipv4; }))
      burst.stop();
  };
  follow(burst_, true);
  follow(ipv6_burst_, false);
  served_.assign(addresses.begin(), addresses.end());
}

void Server::handle_datagram(std::span<const std::byte> datagram, const wire::Arrival& arrival,
                             TimePoint now) {
  // The order of the checks is PCP-8.2-13's. Nobody can be answered on port 0.
  if (arrival.source_port == 0) return;
  const auto header = decode_request_header(datagram);
  if (!header) {
    if (header.error() == DecodeErrc::other_version)
      refuse(datagram, arrival, ResultCode::unsupp_version, now);
    else if (header.error() == DecodeErrc::too_long || header.error() == DecodeErrc::misaligned)
      refuse(datagram, arrival, ResultCode::malformed_request, now);
    return;
  }
  const auto payload = datagram.subspan(header_size);
  const auto body = body_size(header->opcode);
  if (!body) return refuse(datagram, arrival, ResultCode::unsupp_opcode, now);
  if (payload.size() < *body) return refuse(datagram, arrival, ResultCode::malformed_request, now);
  if (header->client != arrival.source) return refuse(datagram, arrival, ResultCode::address_mismatch, now);
  if (!can_be_walked(payload.subspan(*body)))
    return refuse(datagram, arrival, ResultCode::malformed_option, now);

  Request request{arrival, *header, {datagram.begin(), datagram.end()}};
  if (header->opcode == number(Opcode::map))
    handle_map(std::move(request), now);
  else if (header->opcode == number(Opcode::peer))
    handle_peer(std::move(request), now);
  else
    handle_announce(request, now);
}

void Server::handle_announce(const Request& request, TimePoint now) {
  ParsedOptions options;
  const auto result = read_options(request.options(),
                                   {Opcode::announce, request.arrival.source, false, request.arrival.source,
                                    nullptr, request.header.lifetime_s},
                                   options);
  if (result != ResultCode::success) return refuse(request.datagram, request.arrival, result, now);
  send(encode_announce_response(epoch_s(request.arrival.source, now)), request.arrival);
}

void Server::handle_map(Request request, TimePoint now) {
  const auto map = decode_map_body(request.payload()).value();
  const auto& arrival = request.arrival;
  const auto lifetime_s = request.header.lifetime_s;
  const auto fail = [&](ResultCode code) { refuse(request.datagram, request.arrival, code, now); };

  ParsedOptions options;
  const bool third_party = may_use_third_party(arrival.source);
  const auto result =
      read_options(request.options(),
                   {Opcode::map, arrival.source, third_party,
                    internal_of(request.options(), arrival.source, third_party), &map, lifetime_s},
                   options);
  if (result != ResultCode::success) return fail(result);

  if (map.protocol == 0 && map.internal_port) return fail(ResultCode::malformed_request);
  const auto transport = transport_of(map.protocol);
  // All ports and all traffic are never granted (POL-TGT-06), so deleting them deletes nothing
  // (section 15.1).
  const bool wildcard = !map.internal_port && (map.protocol == 0 || transport);
  if (wildcard && lifetime_s == 0) return answer_map(request, map, 1, 0, std::nullopt, now);
  if (wildcard || !transport || !map.internal_port) return fail(ResultCode::unsupp_protocol);
  const std::uint16_t ports = options.port_set ? options.port_set->size : std::uint16_t{1};
  // Insisting on ports that do not exist (PSET-4-12); without PREFER_FAILURE it is a suggestion as any other.
  if (lifetime_s != 0 && options.prefer_failure && map.external_port &&
      map.external_port->number() + std::uint32_t{ports} - 1 > 65535)
    return fail(ResultCode::malformed_option);

  if (!pending_.enter(arrival.source)) return fail(ResultCode::no_resources);
  const InternalEndpoint internal{options.third_party.value_or(arrival.source), *map.internal_port};
  const std::weak_ptr<Server*> server{self_};

  if (lifetime_s == 0) {
    ReleaseRequest release{.via = Via::pcp,
                           .transport = *transport,
                           .requester = arrival.source,
                           .internal = internal,
                           .third_party = options.third_party.has_value(),
                           .nonce = map.nonce,
                           .ports = ports};
    // the ports of an IPv6 host are no set, so one was meant
    const std::uint16_t ended = internal.address.is_v4() ? ports : std::uint16_t{1};
    service_.release(std::move(release), now,
                     [server, map, ended, request = std::move(request)](const Outcome<void>& done,
                                                                        TimePoint then) {
                       const auto self = server.lock();
                       if (!self) return;
                       (*self)->pending_.leave(request.arrival.source);
                       if (done || done.error().reason == MappingErrc::not_found)
                         (*self)->answer_map(request, map, ended, 0, std::nullopt, then);
                       else
                         (*self)->refuse(request.datagram, request.arrival,
                                         error_answer(done.error(), false, false), then);
                     });
    return;
  }

  // A family that cannot be given is no preference; only who insists on it must hear that (PCP-5-04,
  // PCP-5-05). "::" is any address to a client that means IPv4, "0.0.0.0" is none that IPv6 has.
  auto grant = grant_of(arrival, lifetime_s, map, *transport, options);
  const bool same_family = map.external_address.is_v4() == internal.address.is_v4();
  const bool any =
      map.external_address == Address{} || (same_family && map.external_address.is_unspecified());
  if (!any && (same_family || options.prefer_failure)) grant.suggested_address = map.external_address;
  grant.insist = options.prefer_failure;
  grant.ports = ports;
  grant.parity = options.port_set && options.port_set->parity;
  grant.clear_filters = options.clear_filters;
  grant.filters = std::move(options.filters);
  ask(std::move(request), map, std::move(grant), options.has_filter, now);
}

/// Section 12.3: the mapping that packets to this peer use, kept for as long.
void Server::handle_peer(Request request, TimePoint now) {
  const auto peer = decode_peer_body(request.payload()).value();
  const auto& map = peer.map;
  const auto& arrival = request.arrival;
  const auto fail = [&](ResultCode code) { refuse(request.datagram, request.arrival, code, now); };

  ParsedOptions options;
  const bool third_party = may_use_third_party(arrival.source);
  const auto internal = internal_of(request.options(), arrival.source, third_party);
  const auto result = read_options(
      request.options(),
      {Opcode::peer, arrival.source, third_party, internal, &map, request.header.lifetime_s}, options);
  if (result != ResultCode::success) return fail(result);
  if (map.protocol == 0 || !map.internal_port || !peer.remote_port || !is_host(peer.remote_address) ||
      peer.remote_address.is_v4() != internal.is_v4())
    return fail(ResultCode::malformed_request);
  const auto transport = transport_of(map.protocol);
  if (!transport) return fail(ResultCode::unsupp_protocol);

  if (!pending_.enter(arrival.source)) return fail(ResultCode::no_resources);
  auto grant = grant_of(arrival, request.header.lifetime_s, map, *transport, options);
  if (!map.external_address.is_unspecified()) grant.suggested_address = map.external_address;
  grant.insist = grant.suggested_port || grant.suggested_address;  // PCP-12.1-07
  grant.filters = {{{peer.remote_address, 128}, peer.remote_port}};
  grant.outbound = true;
  ask(std::move(request), map, std::move(grant), false, now);
}

/// Asks the service and answers once it has; `filtered` when the request had a FILTER.
void Server::ask(Request request, const MapBody& map, GrantRequest grant, bool filtered, TimePoint now) {
  const bool insists = grant.insist;
  service_.grant(std::move(grant), now,
                 [server = std::weak_ptr{self_}, map, insists, filtered, request = std::move(request)](
                     const Outcome<Granted>& done, TimePoint then) {
                   const auto self = server.lock();
                   if (!self) return;
                   (*self)->pending_.leave(request.arrival.source);
                   if (!done)
                     return (*self)->refuse(request.datagram, request.arrival,
                                            error_answer(done.error(), insists, filtered), then);
                   auto assigned = map;
                   assigned.external_port = done->external.port;
                   assigned.external_address = done->external.address;
                   (*self)->answer_map(request, assigned, done->ports, done->lifetime_s, done->description,
                                       then);
                 });
}

/// Success, of MAP or PEER. The options that were processed come back in their order; PORT_SET only when
/// there is more than one port to speak of (PSET-4-07); `description` is the text as stored, empty in a
/// deletion, which stores none.
void Server::answer_map(const Request& request, const MapBody& map, std::uint16_t ports,
                        std::uint32_t lifetime_s, const std::optional<std::string>& description,
                        TimePoint now) {
  std::vector<std::byte> out;
  out.reserve(request.datagram.size());
  append_response_header(
      out, {request.header.opcode, ResultCode::success, lifetime_s, epoch_s(request.arrival.source, now)});
  if (request.header.opcode == number(Opcode::peer)) {
    auto peer = decode_peer_body(request.payload()).value();
    peer.map = map;
    append_peer_body(out, peer);
  } else {
    append_map_body(out, map);
  }
  OptionReader in{request.options()};
  while (const auto option = in.next()) {
    switch (static_cast<OptionCode>(option->code)) {
      case OptionCode::third_party:
        append_third_party(out, decode_third_party(option->data).value());
        break;
      case OptionCode::prefer_failure:
        append_prefer_failure(out);
        break;
      case OptionCode::filter:
        append_filter(out, decode_filter(option->data).value());
        break;
      case OptionCode::description:
        if (description && description_text(option->data))
          // an answer grows no longer than its request (PCP-7.3-12)
          append_description(out, cut(*description, option->data.size()));
        break;
      case OptionCode::port_set:
        if (ports > 1)
          append_port_set(out,
                          {ports, map.internal_port->number(), decode_port_set(option->data).value().parity});
        break;
      default:
        break;  // skipped, so left out
    }
  }
  send(std::move(out), request.arrival);
}

void Server::refuse(std::span<const std::byte> datagram, const wire::Arrival& arrival, ErrorAnswer error,
                    TimePoint now) {
  // The two errors that say "the request could not be parsed" (section 7.2).
  const bool parsed = error.code != ResultCode::unsupp_version && error.code != ResultCode::malformed_request;
  send(encode_error(datagram, error.code, error.lifetime_s, epoch_s(arrival.source, now), parsed), arrival);
}

void Server::refuse(std::span<const std::byte> datagram, const wire::Arrival& arrival, ResultCode code,
                    TimePoint now) {
  refuse(datagram, arrival, {code, error_lifetime_s(code)}, now);
}

void Server::send(std::vector<std::byte> bytes, const wire::Arrival& arrival) {
  out_.push_back({.bytes = std::move(bytes),
                  .to = arrival.source,
                  .to_port = arrival.source_port,
                  .from = arrival.destination,
                  .from_port = server_port,
                  .interface = arrival.interface});
}

void Server::handle_timeout(TimePoint now) {
  const bool ipv4 = burst_.take_due(now), ipv6 = ipv6_burst_.take_due(now);
  if (ipv4 || ipv6) {
    for (const auto& served : served_)
      if (served.address.is_v4() ? ipv4 : ipv6)
        out_.push_back({.bytes = encode_announce_response(epoch_s(served.address, now)),
                        .to = served.address.is_v4() ? all_hosts_v4 : all_nodes_v6,
                        .to_port = client_port,
                        .from = served.address,
                        .from_port = server_port,
                        .interface = served.interface});
  }
  updates_.take_due(now, {service_.epoch_s(now), service_.ipv6_epoch_s(now)}, served_, out_);
}

std::optional<wire::Outgoing> Server::poll_transmit() {
  if (out_.empty()) return std::nullopt;
  auto next = std::move(out_.front());
  out_.pop_front();
  return next;
}

std::optional<TimePoint> Server::next_deadline() const {
  std::optional<TimePoint> next;
  for (const auto& due : {burst_.next_deadline(), ipv6_burst_.next_deadline(), updates_.next_deadline()})
    if (due && (!next || *due < *next)) next = due;
  return next;
}

void Server::on_lease(const LeaseEvent& event, TimePoint now) { updates_.handle_lease(event, now); }

void Server::on_epoch_reset(TimePoint now) {
  if (serves(true)) burst_.restart(now);
}

void Server::on_ipv6_epoch_reset(TimePoint now) {
  if (serves(false)) ipv6_burst_.restart(now);
}

bool Server::serves(bool ipv4) const {
  return std::ranges::any_of(served_, [&](const auto& served) { return served.address.is_v4() == ipv4; });
}

std::uint32_t Server::epoch_s(const Address& one_side, TimePoint now) const {
  return one_side.is_v4() ? service_.epoch_s(now) : service_.ipv6_epoch_s(now);
}

bool Server::may_use_third_party(const Address& client) const noexcept {
  return std::ranges::any_of(options_.third_party_clients,
                             [&](const Prefix& allowed) { return allowed.contains(client); });
}

}  // namespace sallyport::pcp
