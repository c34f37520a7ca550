#include <algorithm>
#include <utility>

#include "nat/engine/firewall6.hpp"
#include "nat/engine/rules.h"
#include "nat/packet/build6.hpp"

// Endpoints, flows and pinholes: what counts for whom, what ends when, what gives way in a full table.

namespace sallyport::nat {
namespace {

using packet::Address6;
using std::chrono::seconds;

/// The control thread withdraws what expired; only when it has not done so for this long does the engine
/// itself.
constexpr seconds grace{2};
constexpr std::uint32_t most_group_steps = 64;
/// Endpoints of one host whose pinholes ended and whose flows wait for the reuse delay; above it they go at
/// once.
constexpr std::uint32_t most_resting = 4096;
constexpr std::uint32_t sweep_parts = 16;
constexpr unsigned pinhole_bits = 24;

Address6 words_of(const Address& address) noexcept {
  return packet::load_address(reinterpret_cast<const std::uint8_t*>(address.bytes().data()));
}

std::optional<Net6> net_of(const Prefix& prefix) {
  if (prefix.address.is_v4() || prefix.length > 128) return std::nullopt;
  const auto ones = [](unsigned bits) { return bits == 0 ? 0 : ~std::uint64_t{0} << (64 - bits); };
  const Address6 mask{ones(std::min<unsigned>(prefix.length, 64)),
                      ones(prefix.length > 64 ? prefix.length - 64U : 0U)};
  const Address6 address = words_of(prefix.address);
  return Net6{{address.high & mask.high, address.low & mask.low}, mask};
}

constexpr bool is_unique_local(const Address6& address) noexcept { return address.high >> 57 == 0x7e; }
constexpr bool is_link_local(const Address6& address) noexcept { return address.high >> 54 == 0x3fa; }

std::uint32_t to_seconds(TimePoint time) {
  const auto count = std::chrono::duration_cast<seconds>(time.time_since_epoch()).count();
  return count <= 0 ? 0 : static_cast<std::uint32_t>(std::min<std::int64_t>(count, 0xffffffff));
}

std::uint8_t protocol_of(Transport transport) noexcept {
  return transport == Transport::tcp ? packet::protocol::tcp : packet::protocol::udp;
}

}  // namespace

// --- look-ups ---

std::uint64_t Firewall6::hash_of(const FlowKey6& key) const noexcept {
  return hash_(key.host.high, key.host.low, key.peer.high, key.peer.low,
               std::uint64_t{key.protocol} << 32 | std::uint32_t{key.host_port} << 16 | key.peer_port);
}
std::uint64_t Firewall6::group_hash(const FlowKey6& key) const noexcept {
  return hash_(key.host.high, key.host.low, key.peer.high, key.peer.low,
               std::uint64_t{1} << 63 | std::uint64_t{key.protocol} << 16 | key.host_port);
}
std::uint64_t Firewall6::endpoint_hash(std::uint8_t protocol, const Address6& host,
                                       std::uint16_t port) const noexcept {
  return hash_(host.high, host.low, std::uint64_t{protocol} << 16 | port);
}

std::uint32_t Firewall6::find_flow(const FlowKey6& key) const {
  return flow_index_.find(hash_of(key), [&](std::uint32_t record) { return flows_[record].is(key); });
}
std::uint32_t Firewall6::find_group(const FlowKey6& key) const {
  return group_index_.find(group_hash(key), [&](std::uint32_t record) {
    const Flow6& flow = flows_[record];
    return flow.host == key.host && flow.peer == key.peer && flow.host_port == key.host_port &&
           flow.protocol == key.protocol;
  });
}
std::uint32_t Firewall6::find_endpoint(std::uint8_t protocol, const Address6& host,
                                       std::uint16_t port) const {
  return endpoint_index_.find(endpoint_hash(protocol, host, port), [&](std::uint32_t record) {
    const Endpoint6& endpoint = endpoints_[record];
    return endpoint.host == host && endpoint.port == port && endpoint.protocol == protocol;
  });
}

// --- endpoints ---

std::uint32_t Firewall6::make_endpoint(std::uint8_t protocol, const Address6& host, std::uint16_t port) {
  if (!endpoint_index_.reserve()) return Flow6::none;
  const std::uint32_t record = endpoints_.take();
  if (record == Flow6::none) return Flow6::none;
  Endpoint6& endpoint = endpoints_[record];
  endpoint.host = host;
  endpoint.port = port;
  endpoint.protocol = protocol;
  endpoint.flows = endpoint.pinhole = endpoint.previous = Flow6::none;
  std::uint32_t& first = hosts_[host].first;
  endpoint.next = first;
  if (first != Flow6::none) endpoints_[first].previous = record;
  first = record;
  endpoint_index_.add(endpoint_hash(protocol, host, port), record);
  return record;
}

std::uint32_t Firewall6::claim_endpoint(std::uint8_t protocol, const Address6& address, std::uint16_t port,
                                        DropReason& why) {
  std::uint32_t record = find_endpoint(protocol, address, port);
  if (record != Flow6::none) {
    const Pinhole* pinhole = pinhole_of(endpoints_[record]);
    if (endpoints_[record].counted || (pinhole && pinhole->enabled)) return record;
  }
  const auto known = hosts_.find(address);
  const Host host = known == hosts_.end() ? Host{} : known->second;
  const bool echo = protocol == packet::protocol::icmp6;
  if (echo && policy_.icmp_ids_per_device && host.echo_ids >= policy_.icmp_ids_per_device) {
    why = DropReason::icmp_id_limit;
    return Flow6::none;
  }
  if (!echo && policy_.mappings_per_device && host.endpoints >= policy_.mappings_per_device) {
    why = DropReason::mapping_limit;
    return Flow6::none;
  }
  if (policy_.new_mappings_per_second && host.made_s == now_s_ &&
      host.made >= policy_.new_mappings_per_second) {
    why = DropReason::mapping_rate;
    return Flow6::none;
  }
  if (record == Flow6::none) record = make_endpoint(protocol, address, port);
  if (record == Flow6::none) {
    why = DropReason::table_full;
    return Flow6::none;
  }
  endpoints_[record].counted = true;
  Host& counted = hosts_[address];
  ++(echo ? counted.echo_ids : counted.endpoints);
  if (std::exchange(counted.made_s, now_s_) != now_s_) counted.made = 0;
  ++counted.made;
  return record;
}

void Firewall6::release_endpoint(std::uint32_t record) {
  Endpoint6& endpoint = endpoints_[record];
  if (endpoint.flows != Flow6::none || record == kept_endpoint_) return;
  Host& host = hosts_[endpoint.host];
  if (std::exchange(endpoint.counted, false))
    --(endpoint.protocol == packet::protocol::icmp6 ? host.echo_ids : host.endpoints);
  if (std::exchange(endpoint.resting, false)) --host.resting;
  endpoint.deadline_s = 0;
  if (endpoint.pinhole != Flow6::none) return;
  (endpoint.previous != Flow6::none ? endpoints_[endpoint.previous].next : host.first) = endpoint.next;
  if (endpoint.next != Flow6::none) endpoints_[endpoint.next].previous = endpoint.previous;
  endpoint_index_.remove(endpoint_hash(endpoint.protocol, endpoint.host, endpoint.port), record);
  const Address6 address = endpoint.host;
  endpoints_.give_back(record);
  if (endpoints_.high_water() == 0) endpoint_index_.clear();
  release_host(address);
}

void Firewall6::release_host(const Address6& address) {
  const auto host = hosts_.find(address);
  if (host != hosts_.end() && host->second.first == Flow6::none) hosts_.erase(host);
}

// --- flows ---

bool Firewall6::counts(const Flow6& flow) noexcept {
  return (flow.flags & Flow6::answered) &&
         (!(flow.flags & Flow6::inbound) || (flow.flags & Flow6::confirmed) ||
          flow.protocol != packet::protocol::tcp);
}

std::uint32_t Firewall6::new_flow(const FlowKey6& key, std::uint32_t endpoint, bool inbound,
                                  DropReason& why) {
  if (!inbound && policy_.flows_per_device) {
    const auto host = hosts_.find(key.host);
    if (host != hosts_.end() && host->second.flows >= policy_.flows_per_device) {
      why = DropReason::flow_limit;
      return Flow6::none;
    }
  }
  why = DropReason::table_full;
  if (table_is_full()) {
    kept_endpoint_ = endpoint;  // what gives way may be its last flow
    const bool room = make_room();
    kept_endpoint_ = Flow6::none;
    if (!room) {
      shortage_ = true;
      return Flow6::none;
    }
  }
  std::uint32_t record = Flow6::none;
  if (flow_index_.reserve() && group_index_.reserve()) record = flows_.take();
  if (record == Flow6::none) {
    shortage_ = true;
    return Flow6::none;
  }
  Flow6& flow = flows_[record];
  flow.host = key.host;
  flow.peer = key.peer;
  flow.host_port = key.host_port;
  flow.peer_port = key.peer_port;
  flow.protocol = key.protocol;
  flow.endpoint = endpoint;
  flow.previous = flow.group_next = flow.group_previous = flow.queue_next = flow.queue_previous = Flow6::none;
  Endpoint6& own = endpoints_[endpoint];
  flow.next = own.flows;
  if (own.flows != Flow6::none) flows_[own.flows].previous = record;
  own.flows = record;

  flow_index_.add(hash_of(key), record);
  if (const std::uint32_t head = find_group(key); head == Flow6::none) {
    group_index_.add(group_hash(key), record);
  } else {
    flow.group_previous = head;
    flow.group_next = flows_[head].group_next;
    if (flow.group_next != Flow6::none) flows_[flow.group_next].group_previous = record;
    flows_[head].group_next = record;
  }
  if (const Pinhole* pinhole = pinhole_of(own); pinhole && pinhole->enabled) flow.flags |= Flow6::of_pinhole;
  if (inbound) {
    flow.flags |= Flow6::inbound;
    enqueue(record, Flow6::queued_new);
  } else {
    flow.flags |= Flow6::answered;
    ++hosts_[key.host].flows;
  }
  return record;
}

void Firewall6::drop_flow(std::uint32_t record) {
  dequeue(record);
  Flow6& flow = flows_[record];
  if (counts(flow)) --hosts_[flow.host].flows;
  (flow.previous != Flow6::none ? flows_[flow.previous].next : endpoints_[flow.endpoint].flows) = flow.next;
  if (flow.next != Flow6::none) flows_[flow.next].previous = flow.previous;
  const FlowKey6 key{flow.protocol, flow.host, flow.host_port, flow.peer, flow.peer_port};
  if (flow.group_previous != Flow6::none) {
    flows_[flow.group_previous].group_next = flow.group_next;
    if (flow.group_next != Flow6::none) flows_[flow.group_next].group_previous = flow.group_previous;
  } else if (flow.group_next == Flow6::none) {
    group_index_.remove(group_hash(key), record);
  } else {
    group_index_.replace(group_hash(key), record, flow.group_next);
    flows_[flow.group_next].group_previous = Flow6::none;
  }
  flow_index_.remove(hash_of(key), record);
  flows_.give_back(record);
  if (flows_.count() == 0 && flows_.high_water() == 0) {
    flow_index_.clear();
    group_index_.clear();
  }
}

void Firewall6::remove_flow(std::uint32_t record) {
  const std::uint32_t endpoint = flows_[record].endpoint;
  drop_flow(record);
  release_endpoint(endpoint);
}

void Firewall6::enqueue(std::uint32_t record, Flow6::Flag flag) {
  Queue& queue = flag == Flow6::queued_new ? unanswered_ : half_open_;
  Flow6& flow = flows_[record];
  flow.flags |= flag;
  flow.queue_next = Flow6::none;
  flow.queue_previous = queue.last;
  (queue.last != Flow6::none ? flows_[queue.last].queue_next : queue.first) = record;
  queue.last = record;
}

void Firewall6::dequeue(std::uint32_t record) {
  Flow6& flow = flows_[record];
  if (!(flow.flags & (Flow6::queued_new | Flow6::queued_half_open))) return;
  Queue& queue = flow.flags & Flow6::queued_new ? unanswered_ : half_open_;
  (flow.queue_previous != Flow6::none ? flows_[flow.queue_previous].queue_next : queue.first) =
      flow.queue_next;
  (flow.queue_next != Flow6::none ? flows_[flow.queue_next].queue_previous : queue.last) =
      flow.queue_previous;
  flow.flags &= static_cast<std::uint8_t>(~(Flow6::queued_new | Flow6::queued_half_open));
}

void Firewall6::mark_answered(std::uint32_t record) {
  dequeue(record);
  Flow6& flow = flows_[record];
  flow.flags |= Flow6::answered;
  if (counts(flow))
    ++hosts_[flow.host].flows;
  else
    enqueue(record, Flow6::queued_half_open);
}

void Firewall6::mark_confirmed(std::uint32_t record) {
  dequeue(record);
  ++hosts_[flows_[record].host].flows;
}

/// Only what nobody inside ever answered gives way, then handshakes that the peer never finished
/// (POL-NET-14).
bool Firewall6::make_room() {
  if (swept_full_s_ != now_s_) {
    swept_full_s_ = now_s_;
    sweep_flows(8192);
    if (!table_is_full()) return true;
  }
  for (const Queue* queue : {&unanswered_, &half_open_})
    if (queue->first != Flow6::none) {
      remove_flow(queue->first);
      return true;
    }
  return false;
}

/// Whether the endpoint sent to that address and may hear from it.
bool Firewall6::sent_before(const FlowKey6& key) const {
  std::uint32_t record = find_group(key);
  for (std::uint32_t step = 0; record != Flow6::none && step < most_group_steps; ++step) {
    const Flow6& flow = flows_[record];
    if ((flow.flags & Flow6::answered) && !(flow.flags & (Flow6::ended | Flow6::draining)) &&
        !rules::sp_is_over(flow.deadline_s, now_s_))
      return true;
    record = flow.group_next;
  }
  return false;
}

bool Firewall6::outbound_allows(const FlowKey6& key, const Endpoint6& endpoint) const {
  switch (policy_.implicit) {
    case Filtering::endpoint:
      return !rules::sp_is_over(endpoint.deadline_s, now_s_);
    case Filtering::address:
      return sent_before(key);
    case Filtering::address_and_port:
      return false;
  }
  return false;
}

void Firewall6::touch_endpoint(Flow6& flow) {
  if (flow.deadline_s <= flow.told_s || (flow.flags & (Flow6::inbound | Flow6::draining))) return;
  flow.told_s = flow.deadline_s;
  Endpoint6& endpoint = endpoints_[flow.endpoint];
  endpoint.deadline_s = std::max(endpoint.deadline_s, flow.deadline_s);
}

void Firewall6::sweep_flows(std::uint32_t records) {
  for (std::uint32_t i = 0; i < records && flows_.count() != 0; ++i) {
    if (flow_cursor_ >= flows_.high_water()) flow_cursor_ = 0;
    const std::uint32_t record = flow_cursor_++;
    const Flow6& flow = flows_[record];
    if (flow.protocol != 0 && rules::sp_is_over(flow.deadline_s, now_s_)) remove_flow(record);
  }
}

// --- pinholes ---

Firewall6::Pinhole* Firewall6::find_pinhole(MappingId id) noexcept {
  const std::uint64_t number = static_cast<std::uint64_t>(id) & ~id_bit;
  const std::uint64_t at = number & ((1U << pinhole_bits) - 1);
  if (at >= pinholes_.size() || pinholes_[at].serial != number >> pinhole_bits) return nullptr;
  return pinholes_[at].serial == 0 ? nullptr : &pinholes_[at];
}

const Firewall6::Pinhole* Firewall6::pinhole_of(const Endpoint6& endpoint) const noexcept {
  if (endpoint.pinhole == Flow6::none) return nullptr;
  const Pinhole& pinhole = pinholes_[endpoint.pinhole];
  return pinhole.deadline > now_ ? &pinhole : nullptr;
}
Firewall6::Pinhole* Firewall6::pinhole_of(const Endpoint6& endpoint) noexcept {
  return const_cast<Pinhole*>(std::as_const(*this).pinhole_of(endpoint));
}

Result<Installed> Firewall6::install(const MappingSpec& spec) {
  const bool insist = spec.insist || spec.restore || spec.is_static;
  if (insist && spec.suggested && *spec.suggested != spec.internal.port) return PlaneErrc::port_reserved;
  const std::uint8_t protocol = protocol_of(spec.transport);
  const Address6 host = words_of(spec.internal.address);
  const std::uint16_t port = spec.internal.port.number();
  std::uint32_t record = find_endpoint(protocol, host, port);
  if (record != Flow6::none && endpoints_[record].pinhole != Flow6::none) {
    Pinhole& old = pinholes_[endpoints_[record].pinhole];
    // Between deadline and withdrawal the old one still stands, as for IPv4.
    if (old.deadline > now_ || now_ - old.deadline < grace) return PlaneErrc::port_taken;
    end_pinhole(old, Ending::reset, old.deadline);
    record = find_endpoint(protocol, host, port);
  }
  if (free_pinholes_.empty() && pinholes_.size() >= 1U << pinhole_bits) return PlaneErrc::no_memory;
  if (record == Flow6::none) record = make_endpoint(protocol, host, port);
  if (record == Flow6::none) return PlaneErrc::no_memory;

  std::uint32_t at = 0;
  if (free_pinholes_.empty()) {
    at = static_cast<std::uint32_t>(pinholes_.size());
    pinholes_.emplace_back();
  } else {
    at = free_pinholes_.back();
    free_pinholes_.pop_back();
  }
  Pinhole& pinhole = pinholes_[at];
  pinhole = {};
  pinhole.serial = next_serial_++;
  pinhole.deadline = spec.deadline;
  pinhole.remotes = spec.remotes;
  pinhole.outbound = spec.outbound;
  pinhole.enabled = spec.enabled;
  pinhole.endpoint = record;
  endpoints_[record].pinhole = at;
  ++pinhole_count_;
  if (spec.enabled) {
    // What runs already becomes its own, what ended with the one before may begin anew.
    kept_endpoint_ = record;
    for (std::uint32_t flow = endpoints_[record].flows; flow != Flow6::none;) {
      const std::uint32_t next = flows_[flow].next;
      if (flows_[flow].flags & Flow6::ended)
        drop_flow(flow);
      else
        flows_[flow].flags =
            static_cast<std::uint8_t>((flows_[flow].flags | Flow6::of_pinhole) & ~Flow6::draining);
      flow = next;
    }
    kept_endpoint_ = Flow6::none;
    if (std::exchange(endpoints_[record].resting, false)) --hosts_[host].resting;
  }
  return Installed{MappingId{id_bit | pinhole.serial << pinhole_bits | at},
                   {spec.internal.address, spec.internal.port}};
}

Result<void> Firewall6::renew(MappingId id, TimePoint deadline) {
  Pinhole* pinhole = find_pinhole(id);
  if (!pinhole || pinhole->gone) return PlaneErrc::not_found;
  pinhole->deadline = deadline;
  return {};
}

Result<void> Firewall6::set_remotes(MappingId id, std::span<const RemoteFilter> remotes, bool outbound) {
  Pinhole* pinhole = find_pinhole(id);
  if (!pinhole || pinhole->gone) return PlaneErrc::not_found;
  pinhole->remotes.assign(remotes.begin(), remotes.end());
  pinhole->outbound = outbound;
  return {};
}

void Firewall6::withdraw(MappingId id, Ending how) {
  Pinhole* pinhole = find_pinhole(id);
  if (!pinhole) return;
  end_pinhole(*pinhole, how, now_);
  free_pinhole(*pinhole);
}

void Firewall6::free_pinhole(Pinhole& pinhole) {
  free_pinholes_.push_back(static_cast<std::uint32_t>(&pinhole - pinholes_.data()));
  pinhole = {};
  if (free_pinholes_.size() == pinholes_.size() && pinholes_.size() > 1024) {
    pinholes_ = {};
    free_pinholes_ = {};
  }
}

void Firewall6::end_pinhole(Pinhole& pinhole, Ending how, TimePoint since) {
  if (pinhole.gone) return;
  pinhole.gone = true;
  pinhole.remotes = {};
  --pinhole_count_;
  const std::uint32_t record = std::exchange(pinhole.endpoint, Flow6::none);
  Endpoint6& endpoint = endpoints_[record];
  endpoint.pinhole = Flow6::none;
  if (!pinhole.enabled) return release_endpoint(record);  // no flow was its own
  const auto delay = static_cast<std::uint32_t>(std::max<std::int64_t>(policy_.reuse_delay.count(), 0));
  Host& host = hosts_[endpoint.host];
  if (how == Ending::reset) {
    for (std::uint32_t flow = endpoint.flows; flow != Flow6::none; flow = flows_[flow].next)
      reset_both_ends(flows_[flow]);
    // One host that makes and ends pinholes all the time must not fill the table (POL-FAIR-01).
    if (delay == 0 || host.resting >= most_resting) how = Ending::vacate;
  }
  endpoint.deadline_s = 0;
  for (std::uint32_t flow = endpoint.flows; flow != Flow6::none;) {
    const std::uint32_t next = flows_[flow].next;
    switch (how) {
      case Ending::vacate:
        drop_flow(flow);
        break;
      case Ending::reset:
        dequeue(flow);
        flows_[flow].flags =
            static_cast<std::uint8_t>((flows_[flow].flags | Flow6::ended) & ~Flow6::of_pinhole);
        flows_[flow].deadline_s = rules::sp_deadline(to_seconds(since), delay);
        break;
      case Ending::drain:
        flows_[flow].flags =
            static_cast<std::uint8_t>((flows_[flow].flags | Flow6::draining) & ~Flow6::of_pinhole);
        break;
    }
    flow = next;
  }
  if (how == Ending::reset && endpoint.flows != Flow6::none && !std::exchange(endpoint.resting, true))
    ++host.resting;
  release_endpoint(record);
}

void Firewall6::end_flows(const Address& device) {
  const auto host = hosts_.find(words_of(device));
  if (host == hosts_.end()) return;
  for (std::uint32_t endpoint = host->second.first; endpoint != Flow6::none;) {
    const std::uint32_t next = endpoints_[endpoint].next;
    for (std::uint32_t flow = endpoints_[endpoint].flows; flow != Flow6::none;) {
      const std::uint32_t next_flow = flows_[flow].next;
      reset_both_ends(flows_[flow]);
      drop_flow(flow);
      flow = next_flow;
    }
    release_endpoint(endpoint);
    endpoint = next;
  }
}

Result<Counters> Firewall6::counters(MappingId id) const {
  const Pinhole* pinhole = const_cast<Firewall6*>(this)->find_pinhole(id);
  if (!pinhole) return PlaneErrc::not_found;
  Counters counters{.packets_in = pinhole->packets_in,
                    .packets_out = pinhole->packets_out,
                    .bytes_in = pinhole->bytes_in,
                    .bytes_out = pinhole->bytes_out,
                    .last_packet = std::nullopt};
  if (pinhole->packets_in || pinhole->packets_out) counters.last_packet = pinhole->last_packet;
  return counters;
}

bool Firewall6::has_implicit(Transport transport, const InternalEndpoint& internal, TimePoint now) const {
  const std::uint32_t record =
      find_endpoint(protocol_of(transport), words_of(internal.address), internal.port.number());
  return record != Flow6::none && TimePoint{seconds{endpoints_[record].deadline_s}} > now;
}

// --- network, policy, sweeping ---

void Firewall6::set_network(const NetworkView& network) {
  std::vector<Net6> lan, untranslated;
  std::vector<Address6> gateway;
  lan_addresses_.clear();
  wan_address_.reset();
  wan_is_local_ = false;
  lan_mtu_ = wan_mtu_ = 0;
  for (const PlaneInterface& interface : network.lan) {
    if (interface.mtu) lan_mtu_ = std::max(lan_mtu_, interface.mtu);
    for (const Prefix& prefix : interface.prefixes)
      if (const auto net = net_of(prefix)) lan.push_back(*net);
    for (const Address& address : interface.addresses) {
      if (address.is_v4()) continue;
      gateway.push_back(words_of(address));
      for (const Prefix& prefix : interface.prefixes)
        if (const auto net = net_of(prefix); net && net->contains(gateway.back()))
          lan_addresses_.emplace_back(*net, gateway.back());
    }
  }
  for (const PlaneInterface& interface : network.wan) {
    if (interface.mtu) wan_mtu_ = wan_mtu_ ? std::min(wan_mtu_, interface.mtu) : interface.mtu;
    for (const Address& address : interface.addresses) {
      if (address.is_v4()) continue;
      gateway.push_back(words_of(address));
      if (is_unique_local(gateway.back())) wan_is_local_ = true;
      if (!wan_address_ && !is_link_local(gateway.back())) wan_address_ = gateway.back();
    }
  }
  constexpr std::uint32_t least_mtu = 1280;  // RFC 8200 5
  lan_mtu_ = lan_mtu_ ? std::max(lan_mtu_, least_mtu) : 1500;
  wan_mtu_ = wan_mtu_ ? std::max(wan_mtu_, least_mtu) : 1500;
  for (const Prefix& prefix : network.untranslated)
    if (const auto net = net_of(prefix)) untranslated.push_back(*net);

  // A flow stands for the checks its first packet passed; other networks, other checks.
  const bool changed = lan != lan_ || untranslated != untranslated_ || gateway != gateway_;
  lan_ = std::move(lan);
  untranslated_ = std::move(untranslated);
  gateway_ = std::move(gateway);
  if (changed)
    for (std::uint32_t record = 0; record < flows_.high_water() && flows_.count() != 0; ++record) {
      const Flow6& flow = flows_[record];
      if (flow.protocol == 0) continue;
      if (!is_lan_host(flow.host) || is_martian_source(flow.peer) || in_any(untranslated_, flow.peer))
        remove_flow(record);
    }
  set_policy(policy_);
}

void Firewall6::set_policy(const PlanePolicy& policy) {
  policy_ = policy;
  fragments_.set_limits(
      {policy_.fragments_per_source, policy_.fragments_total,
       static_cast<std::uint32_t>(std::max<std::int64_t>(policy_.fragment_timeout.count(), 2))});
  constexpr std::uint32_t headers = 60, over_ipv4 = 20, least_mss = 1220;
  if (policy_.mss_clamp == 0)
    mss_ = 0;
  else if (policy_.mss_clamp == 1)
    mss_ = wan_mtu_ < lan_mtu_ ? static_cast<std::uint16_t>(wan_mtu_ - headers) : std::uint16_t{0};
  else  // the value is for IPv4's shorter header, on the same link
    mss_ = static_cast<std::uint16_t>(
        std::clamp<std::uint32_t>(policy_.mss_clamp - over_ipv4, least_mss, 65535 - headers));
}

bool Firewall6::sweep() {
  fragments_.sweep(now_s_);
  sweep_flows(flows_.high_water() / sweep_parts + 64);
  for (std::size_t left = pinholes_.size() / sweep_parts + 64; left != 0 && !pinholes_.empty(); --left) {
    if (pinhole_cursor_ >= pinholes_.size()) pinhole_cursor_ = 0;
    Pinhole& pinhole = pinholes_[pinhole_cursor_++];
    if (pinhole.serial != 0 && !pinhole.gone && pinhole.deadline <= now_ && now_ - pinhole.deadline >= grace)
      end_pinhole(pinhole, Ending::reset, pinhole.deadline);
    if (left > pinholes_.size()) left = pinholes_.size();
  }
  return std::exchange(shortage_, false);
}

}  // namespace sallyport::nat
