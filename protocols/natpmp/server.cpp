#include "protocols/natpmp/server.hpp"

#include <algorithm>
#include <utility>

namespace sallyport::natpmp {
namespace {

constexpr auto all_hosts = Address::v4(0xe0000001);  // 224.0.0.1

}  // namespace

Server::Server(MappingService& service) : service_{service}, self_{std::make_shared<Server*>(this)} {
  service_.add_listener(*this);
}

Server::~Server() { service_.remove_listener(*this); }

void Server::set_served_addresses(std::span<const wire::ServedAddress> addresses, TimePoint now) {
  const auto before = std::exchange(served_, {});
  std::ranges::copy_if(addresses, std::back_inserter(served_),
                       [](const auto& served) { return served.address.is_v4(); });
  const bool news = std::ranges::any_of(
      served_, [&](const auto& address) { return std::ranges::find(before, address) == before.end(); });
  if (news) burst_.restart(now);
  if (served_.empty()) burst_.stop();
}

void Server::handle_datagram(std::span<const std::byte> datagram, const wire::Arrival& arrival,
                             TimePoint now) {
  if (arrival.source_port == 0 || datagram.size() > max_request || !arrival.source.is_v4()) return;
  const auto request = decode_request(datagram);
  if (!request) {
    if (request.error() == DecodeErrc::other_version)
      send(encode_unsupported_version(service_.epoch_s(now)), arrival);
    else if (request.error() == DecodeErrc::other_opcode)
      send(encode_unsupported_opcode(datagram, service_.epoch_s(now)), arrival);
    return;
  }
  if (const auto* map = std::get_if<MapRequest>(&*request)) return handle_map(*map, arrival, now);
  const auto external = service_.external_address(arrival.source);
  AddressResponse response{ResultCode::success, service_.epoch_s(now), {}};
  if (external)
    response.external = *external;
  else
    response.result = ResultCode::network_failure;
  send(encode(response), arrival);
}

void Server::handle_map(const MapRequest& request, const wire::Arrival& arrival, TimePoint now) {
  const auto internal_port = Port::from(request.internal_port);
  const bool delete_all = !internal_port && request.suggested_external_port == 0 && request.lifetime_s == 0;
  // Port 0 names nothing. Only the request that is all zeros deletes everything (section 3.4).
  if (!internal_port && !delete_all)
    return answer_map(request, ResultCode::not_authorized, 0, 0, arrival, now);
  if (!pending_.enter(arrival.source))
    return answer_map(request, ResultCode::out_of_resources, 0, 0, arrival, now);

  const std::weak_ptr<Server*> server{self_};
  const auto released = [server, request, arrival](const Outcome<void>& done, TimePoint then) {
    const auto self = server.lock();
    if (!self) return;
    (*self)->pending_.leave(arrival.source);
    // Deleting what does not exist is told like a deletion that worked.
    const bool gone = done || done.error().reason == MappingErrc::not_found;
    (*self)->answer_map(request, gone ? ResultCode::success : result_code(done.error().reason), 0, 0, arrival,
                        then);
  };
  if (delete_all) {
    service_.release_all({.via = Via::natpmp, .transport = request.transport, .requester = arrival.source},
                         now, released);
    return;
  }
  const InternalEndpoint internal{arrival.source, *internal_port};
  if (request.lifetime_s == 0) {
    service_.release({.via = Via::natpmp,
                      .transport = request.transport,
                      .requester = arrival.source,
                      .internal = internal,
                      .third_party = false,
                      .nonce = std::nullopt},
                     now, released);
    return;
  }
  GrantRequest grant{.via = Via::natpmp,
                     .transport = request.transport,
                     .requester = arrival.source,
                     .internal = internal,
                     .third_party = false,
                     .nonce = std::nullopt,
                     .suggested_port = Port::from(request.suggested_external_port),
                     .suggested_address = std::nullopt,
                     .insist = false,
                     .lifetime_s = request.lifetime_s,
                     .clear_filters = false,
                     .filters = {},
                     .description = std::nullopt,
                     .contact = {.interface = arrival.interface,
                                 .client = arrival.source,
                                 .client_port = arrival.source_port,
                                 .gateway = arrival.destination}};
  service_.grant(
      std::move(grant), now, [server, request, arrival](const Outcome<Granted>& done, TimePoint then) {
        const auto self = server.lock();
        if (!self) return;
        (*self)->pending_.leave(arrival.source);
        if (!done) return (*self)->answer_map(request, result_code(done.error().reason), 0, 0, arrival, then);
        (*self)->answer_map(request, ResultCode::success, done->external.port.number(), done->lifetime_s,
                            arrival, then);
      });
}

void Server::answer_map(const MapRequest& request, ResultCode result, std::uint16_t external_port,
                        std::uint32_t lifetime_s, const wire::Arrival& arrival, TimePoint now) {
  send(encode(MapResponse{.transport = request.transport,
                          .result = result,
                          .epoch_s = service_.epoch_s(now),
                          .internal_port = request.internal_port,
                          .external_port = external_port,
                          .lifetime_s = lifetime_s}),
       arrival);
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
  if (!burst_.take_due(now)) return;
  const auto external =
      service_.external_address({});  // one datagram for all: a device with another one has to ask
  if (!external) {
    burst_.stop();  // nothing to announce; the address begins a burst when it comes
    return;
  }
  for (const auto& served : served_)
    out_.push_back({.bytes = encode(AddressResponse{ResultCode::success, service_.epoch_s(now), *external}),
                    .to = all_hosts,
                    .to_port = client_port,
                    .from = served.address,
                    .from_port = server_port,
                    .interface = served.interface});
}

std::optional<wire::Outgoing> Server::poll_transmit() {
  if (out_.empty()) return std::nullopt;
  auto next = std::move(out_.front());
  out_.pop_front();
  return next;
}

std::optional<TimePoint> Server::next_deadline() const { return burst_.next_deadline(); }

void Server::on_epoch_reset(TimePoint now) {
  if (!served_.empty()) burst_.restart(now);
}

void Server::on_external_address(const std::optional<Address>& address, TimePoint now) {
  if (!address)
    burst_.stop();
  else if (!served_.empty())
    burst_.restart(now);
}

}  // namespace sallyport::natpmp
