#include "protocols/pcp/update_queue.hpp"

#include <algorithm>
#include <chrono>

#include "protocols/pcp/codec.hpp"

namespace sallyport::pcp {
namespace {

constexpr int copies = 3;
constexpr std::chrono::milliseconds first_gap{250};

/// What the client asked for itself or could foresee needs no telling.
bool is_news(const LeaseEvent& event) {
  if (event.kind != LeaseEventKind::changed && event.kind != LeaseEventKind::ended) return false;
  switch (event.reason) {
    case LeaseEventReason::requested:
    case LeaseEventReason::expired:
    case LeaseEventReason::configured:
      return false;
    case LeaseEventReason::revoked:
    case LeaseEventReason::address_changed:
    case LeaseEventReason::replaced:
    case LeaseEventReason::lost:
    case LeaseEventReason::policy:
      return true;
  }
  return false;
}

}  // namespace

void UpdateQueue::handle_lease(const LeaseEvent& event, TimePoint now) {
  const auto& lease = event.lease;
  if (lease.via != Via::pcp || lease.set_place != 0) return;  // a set is one mapping to its client
  Key key{lease.transport, lease.internal, {}, 0};
  if (lease.outbound && !lease.remotes.empty()) {
    std::get<Address>(key) = lease.remotes.front().prefix.address;
    std::get<std::uint16_t>(key) = lease.remotes.front().port ? lease.remotes.front().port->number() : 0;
  }
  forget(key);
  if (!is_news(event) || !lease.nonce || lease.contact.client_port == 0) return;
  if (updates_.size() >= max_waiting) return;
  const bool gone = event.kind == LeaseEventKind::ended;
  updates_.emplace(
      key, Update{.nonce = *lease.nonce,
                  .external = lease.external,
                  .deadline = gone ? std::nullopt : lease.deadline,
                  .contact = lease.contact,
                  .ports = lease.set_size,
                  .peer = lease.outbound && !lease.remotes.empty() ? std::optional{lease.remotes.front()}
                                                                   : std::nullopt,
                  .sent = 0,
                  .due = now});
  by_due_.emplace(now, key);
}

void UpdateQueue::take_due(TimePoint now, Epochs epochs, std::span<const wire::ServedAddress> served,
                           std::deque<wire::Outgoing>& out) {
  while (!by_due_.empty() && by_due_.begin()->first <= now && may_send(now)) {
    const auto key = by_due_.begin()->second;
    auto& update = updates_.at(key);
    const auto& contact = update.contact;
    const auto left = update.deadline ? *update.deadline - now : TimePoint::duration::zero();
    const bool still_served = std::ranges::any_of(served, [&](const wire::ServedAddress& each) {
      return each.interface == contact.interface &&
             (each.address == contact.gateway ||
              (is_anycast(contact.gateway) && each.address.is_v4() == contact.gateway.is_v4()));
    });
    if (!still_served || (update.deadline && left <= std::chrono::seconds{0})) {
      forget(key);
      continue;
    }
    const auto& internal = std::get<InternalEndpoint>(key);
    const MapBody map{update.nonce, static_cast<std::uint8_t>(std::get<Transport>(key)), internal.port,
                      update.external.port, update.external.address};
    std::vector<std::byte> bytes;
    append_response_header(
        bytes, {static_cast<std::uint8_t>(update.peer ? Opcode::peer : Opcode::map), ResultCode::success,
                static_cast<std::uint32_t>(std::chrono::duration_cast<std::chrono::seconds>(left).count()),
                contact.client.is_v4() ? epochs.ipv4_s : epochs.ipv6_s});
    if (update.peer)
      append_peer_body(bytes, {map, update.peer->port, update.peer->prefix.address});
    else
      append_map_body(bytes, map);
    // The client matches such answers on the option too (RFC 6887, section 13.1).
    if (internal.address != contact.client) append_third_party(bytes, internal.address);
    if (update.ports > 1)
      append_port_set(bytes, {update.ports, internal.port.number(),
                              internal.port.number() % 2 == update.external.port.number() % 2});
    out.push_back({.bytes = std::move(bytes),
                   .to = contact.client,
                   .to_port = contact.client_port,
                   .from = contact.gateway,
                   .from_port = server_port,
                   .interface = contact.interface});
    last_sent_[oldest_sent_] = now;
    oldest_sent_ = (oldest_sent_ + 1) % per_second;
    by_due_.erase(by_due_.begin());
    if (++update.sent == copies) {
      updates_.erase(key);
      continue;
    }
    update.due = now + first_gap * (1 << (update.sent - 1));
    by_due_.emplace(update.due, key);
  }
}

std::optional<TimePoint> UpdateQueue::next_deadline() const {
  if (by_due_.empty()) return std::nullopt;
  const auto due = by_due_.begin()->first;
  const auto& oldest = last_sent_[oldest_sent_];
  return oldest ? std::max(due, *oldest + std::chrono::seconds{1}) : due;
}

void UpdateQueue::forget(const Key& key) {
  const auto at = updates_.find(key);
  if (at == updates_.end()) return;
  by_due_.erase({at->second.due, key});
  updates_.erase(at);
}

bool UpdateQueue::may_send(TimePoint now) const {
  const auto& oldest = last_sent_[oldest_sent_];
  return !oldest || now - *oldest >= std::chrono::seconds{1};
}

}  // namespace sallyport::pcp
