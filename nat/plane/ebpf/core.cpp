#include "nat/plane/ebpf/core.hpp"

#include <algorithm>

#include "nat/packet/checksum.hpp"
#include "nat/packet/ipv4.hpp"

namespace sallyport::nat::ebpf {
namespace {

using std::chrono::duration_cast;
using std::chrono::seconds;

std::uint32_t to_seconds(TimePoint time) {
  return static_cast<std::uint32_t>(duration_cast<seconds>(time.time_since_epoch()).count());
}
std::uint32_t to_number(seconds time) {
  return static_cast<std::uint32_t>(std::clamp<std::int64_t>(time.count(), 0, 0x7fffffff));
}

EngineOptions with_tables(EngineOptions options, Tables& tables) {
  options.ttl = TtlMode::keep;
  options.shared = &tables;
  return options;
}

Side side_of(sp_side side) noexcept {
  switch (side) {
    case SP_FROM_WAN:
      return Side::wan;
    case SP_FROM_ROUTER:
      return Side::router;
    default:
      return Side::lan;
  }
}

bool is_v4(std::span<const std::byte> packet) noexcept {
  return !packet.empty() && std::to_integer<unsigned>(packet[0]) >> 4 == 4;
}

class Giver final : public PacketSink {
 public:
  explicit Giver(const Core::Give& give) : give_{give} {}
  void emit(std::span<const std::byte> packet, Action where) override {
    // What the engine makes needs no forwarding by the stack, which would take IPv4's for its own; IPv6 has
    // no such rule, and the stack knows every LAN.
    if (where == Action::forward_wan) give_(packet, SP_BACK_WAN, SP_FROM_LAN);
    if (where == Action::forward_lan) give_(packet, is_v4(packet) ? SP_BACK_LAN : SP_BACK_STACK, SP_FROM_LAN);
    if (where == Action::local) give_(packet, SP_BACK_STACK, SP_FROM_WAN);
  }

 private:
  const Core::Give& give_;
};

}  // namespace

Core::Core(std::unique_ptr<Tables> tables, const EngineOptions& options, const OwnPorts& own_ports,
           TimePoint now)
    : tables_{std::move(tables)},
      engine_{with_tables(options, *tables_), own_ports},
      fragments_{SipHash{options.secret}} {
  sp_config& config = tables_->config();
  config.secret[0] = options.secret[0];
  config.secret[1] = options.secret[1];
  config.id_secret = SipHash{options.secret}(0x69702d6964);
  ++config.epoch;
  if (tables_->reused()) {
    engine_.adopt(config.externals, config.has_external != 0, now);
    for (const Prefix& prefix : tables_->inside_networks()) former_lans_.remember(prefix);
  } else {
    tables_->state().draws = options.seed;
  }
}

Result<Installed> Core::install(const MappingSpec& spec, TimePoint now) {
  constexpr int most_tries = 8;
  for (int tries = 1;; ++tries) {
    auto installed = engine_.install(spec, now);
    const bool chosen = !spec.insist && !spec.restore && !spec.is_static;
    if (installed || installed.error() != PlaneErrc::port_taken || !chosen || tries == most_tries)
      return installed;
  }
}

void Core::set_network(const NetworkView& network, const std::vector<Prefix>& by_wan,
                       const std::set<std::uint32_t>& others, std::uint32_t wan_header, TimePoint now) {
  network_ = network;
  former_lans_.follow(network);
  std::vector<Tables::Network> networks;
  const auto add = [&](std::uint32_t address, unsigned bits, std::uint32_t flags) {
    const std::uint32_t mask = bits == 0 ? 0 : ~std::uint32_t{0} << (32 - bits);
    networks.push_back({address & mask, static_cast<std::uint8_t>(bits), flags});
  };
  gateway_.clear();
  for (const PlaneInterface& lan : network.lan) {
    for (const Prefix& prefix : lan.prefixes) {
      if (!prefix.address.is_v4() || prefix.length < 96) continue;
      const unsigned bits = prefix.v4_bits();
      add(prefix.address.v4_number(), bits, SP_NET_LAN);
      // /31 and /32 have neither end (RFC 3021).
      if (bits < 31) {
        add(prefix.address.v4_number() & ~std::uint32_t{0} << (32 - bits), 32, SP_NET_END);
        add(prefix.address.v4_number() |
                (bits == 0 ? ~std::uint32_t{0} : ~(~std::uint32_t{0} << (32 - bits))),
            32, SP_NET_END);
      }
    }
  }
  for (const Prefix& prefix : former_lans_.networks())
    if (prefix.address.is_v4()) add(prefix.address.v4_number(), prefix.v4_bits(), SP_NET_WAS_LAN);
  for (const auto* side : {&network.lan, &network.wan})
    for (const PlaneInterface& interface : *side)
      for (const Address& address : interface.addresses)
        if (address.is_v4()) gateway_.push_back(address.v4_number());
  const auto on_interfaces = gateway_;
  for (const Address& address : network.external)
    if (address.is_v4()) gateway_.push_back(address.v4_number());
  for (const std::uint32_t address : gateway_) add(address, 32, SP_NET_GATEWAY);
  for (const Prefix& prefix : by_wan)
    if (prefix.address.is_v4() && prefix.length >= 96)
      add(prefix.address.v4_number(), prefix.v4_bits(), SP_NET_UNTRANSLATED);
  for (const Prefix& prefix : network.untranslated)
    if (prefix.address.is_v4() && prefix.length > 96 &&
        std::find(by_wan.begin(), by_wan.end(), prefix) == by_wan.end())
      add(prefix.address.v4_number(), prefix.v4_bits(), SP_NET_ELSEWHERE);

  // The longest match answers for all that contain it.
  std::vector<Tables::Network> flat;
  for (const auto& network_of : networks) {
    auto whole = network_of;
    for (const auto& other : networks) {
      const std::uint32_t mask = other.length == 0 ? 0 : ~std::uint32_t{0} << (32 - other.length);
      if (other.length <= whole.length && (whole.address & mask) == other.address) whole.flags |= other.flags;
    }
    const auto same = std::find_if(flat.begin(), flat.end(), [&](const Tables::Network& there) {
      return there.address == whole.address && there.length == whole.length;
    });
    if (same == flat.end())
      flat.push_back(whole);
    else
      same->flags |= whole.flags;
  }
  tables_->set_networks(flat);
  set_networks6(network, by_wan);

  sp_config& config = tables_->config();
  config.lan_count = 0;
  for (const PlaneInterface& lan : network.lan)
    if (lan.index && config.lan_count < SP_MOST_LANS) config.lan[config.lan_count++] = lan.index;
  config.other_count = 0;
  for (const std::uint32_t other : others)
    if (config.other_count < SP_MOST_OTHERS) config.other[config.other_count++] = other;
  config.wan = 0;
  for (const PlaneInterface& wan : network.wan)
    if (wan.index && !config.wan) config.wan = wan.index;
  config.wan_header = wan_header;
  const bool has_external = std::any_of(network.pool().begin(), network.pool().end(),
                                        [](const Address& address) { return address.is_v4(); });
  const bool new_pairs =
      engine_.pairing_for(network) != engine_.pairing() || has_external != (config.has_external != 0);
  // Meanwhile the programs make nothing new: what they know and what there is would not agree.
  if (new_pairs) config.has_external = 0;
  engine_.set_network(network, now);
  if (new_pairs) {
    const Pairing& pairing = engine_.pairing();
    config.externals_count = static_cast<std::uint32_t>(pairing.count());
    config.only = pairing.only();
    config.external = pairing.address(pairing.only());
    for (std::uint8_t index = 0; index < SP_MOST_ADDRESSES; ++index)
      config.externals[index] = pairing.address(index);
    std::copy(pairing.pairs().begin(), pairing.pairs().end(), config.pairs);
    tables_->look_again();
  }
  config.elsewhere = 0;
  for (std::uint8_t index = 0; index < SP_MOST_ADDRESSES; ++index)
    if (const std::uint32_t address = config.externals[index];
        address != 0 && std::find(on_interfaces.begin(), on_interfaces.end(), address) == on_interfaces.end())
      config.elsewhere |= 1U << index;
  config.has_external = has_external;
  write_config();
}

void Core::set_networks6(const NetworkView& network, const std::vector<Prefix>& by_wan) {
  std::vector<std::pair<Prefix, std::uint32_t>> networks;
  for (const Prefix& prefix : network.untranslated) {
    if (prefix.address.is_v4() || prefix.length == 0) continue;
    const bool through_wan = std::find(by_wan.begin(), by_wan.end(), prefix) != by_wan.end();
    networks.emplace_back(prefix, through_wan ? SP_NET_UNTRANSLATED : SP_NET_ELSEWHERE);
  }
  for (const Prefix& prefix : former_lans_.networks()) {
    if (prefix.address.is_v4()) continue;
    const auto same = std::find_if(networks.begin(), networks.end(),
                                   [&](const auto& network_of) { return network_of.first == prefix; });
    if (same == networks.end())
      networks.emplace_back(prefix, SP_NET_WAS_LAN);
    else
      same->second |= SP_NET_WAS_LAN;
  }
  for (const PlaneInterface& lan : network.lan)
    for (const Prefix& prefix : lan.prefixes)
      if (!prefix.address.is_v4()) networks.emplace_back(prefix, SP_NET_LAN);
  for (const auto* side : {&network.lan, &network.wan})
    for (const PlaneInterface& interface : *side)
      for (const Address& address : interface.addresses)
        if (!address.is_v4()) networks.emplace_back(Prefix{address, 128}, SP_NET_GATEWAY);
  tables_->set_networks6(networks);
}

void Core::set_policy(const PlanePolicy& policy, TimePoint now) {
  policy_ = policy;
  engine_.set_policy(policy, now);
  fragments_.set_limits({policy.fragments_per_source, policy.fragments_total,
                         std::max(to_number(policy.fragment_timeout), 2U)});
  write_config();
}

void Core::write_config() {
  sp_config& config = tables_->config();
  config.pool_first = policy_.pool.first;
  config.pool_last = policy_.pool.last;
  config.filtering = policy_.implicit == Filtering::endpoint  ? SP_FILTER_ENDPOINT
                     : policy_.implicit == Filtering::address ? SP_FILTER_ADDRESS
                                                              : SP_FILTER_ADDRESS_AND_PORT;
  config.random_ports = policy_.random_ports;
  config.answer_ping = policy_.answer_ping;
  config.redirect = policy_.redirect;
  config.ipv6 = policy_.ipv6;
  config.reuse_delay = to_number(policy_.reuse_delay);
  config.drop_private = policy_.drop_private_wan_sources;
  config.tcp_established = to_number(policy_.tcp_established);
  config.tcp_transitory = to_number(policy_.tcp_transitory);
  config.tcp_half_open = to_number(policy_.tcp_half_open);
  config.udp_idle = to_number(policy_.udp_idle);
  config.icmp_query = to_number(policy_.icmp_query);
  config.fragment_timeout = to_number(policy_.fragment_timeout);
  config.mappings_per_device = policy_.mappings_per_device;
  config.new_mappings_per_second = policy_.new_mappings_per_second;
  config.flows_per_device = policy_.flows_per_device;
  config.flows_total = policy_.flows_total;
  config.icmp_ids_per_device = policy_.icmp_ids_per_device;
  std::uint32_t lan_mtu = 0, wan_mtu = 0;
  for (const PlaneInterface& lan : network_.lan) lan_mtu = std::max(lan_mtu, lan.mtu);
  for (const PlaneInterface& wan : network_.wan)
    if (wan.mtu) wan_mtu = wan_mtu ? std::min(wan_mtu, wan.mtu) : wan.mtu;
  constexpr std::uint32_t headers = 40;
  if (policy_.mss_clamp == 1)
    config.mss = lan_mtu && wan_mtu && wan_mtu < lan_mtu && wan_mtu > headers ? wan_mtu - headers : 0;
  else
    config.mss = std::min<std::uint32_t>(policy_.mss_clamp, 65535);
  const auto reserve = [&](sp_part part, Transport transport) {
    auto bits = tables_->busy(part);
    std::array<std::uint64_t, 1024> wanted{};
    for (const auto& [of, port] : policy_.reserved)
      if (of == transport) wanted[port.number() / 64] |= std::uint64_t{1} << port.number() % 64;
    std::copy(wanted.begin(), wanted.end(), bits.begin());
  };
  reserve(SP_TCP, Transport::tcp);
  reserve(SP_UDP, Transport::udp);
}

std::vector<PlaneEvent> Core::sweep(TimePoint now) {
  now_s_ = to_seconds(now);
  constexpr std::uint32_t missed_sweeps = 30;
  tables_->config().counted_until_s = now_s_ + missed_sweeps;
  tables_->sweep(now_s_);
  fragments_.sweep(to_seconds(now));
  return engine_.sweep(now);
}

void Core::fill_status(PlaneStatus& status) const {
  engine_.fill_status(status);
  const auto counted = tables_->counters();
  status.flows += tables_->state().flows;
  status.packets += counted[SP_COUNT_PACKETS];
  status.implicit_mappings = 0;
  const auto slots = const_cast<Tables&>(*tables_).slots();
  for (const Slot& slot : slots)
    if ((slot.kind == SlotKind::implicit || slot.kind == SlotKind::draining) && slot.deadline_s > now_s_)
      ++status.implicit_mappings;
  for (std::size_t i = 1; i < drop_reasons; ++i) {
    const std::uint64_t number = counted[i] + drops_[i];
    if (number == 0) continue;
    const std::string name{to_string(static_cast<DropReason>(i))};
    const auto there = std::find_if(status.drops.begin(), status.drops.end(),
                                    [&](const auto& drop) { return drop.first == name; });
    if (there == status.drops.end())
      status.drops.emplace_back(name, number);
    else
      there->second += number;
  }
}

// --- the slow path ---

void Core::drop(DropReason reason) noexcept {
  last_drop_ = reason;
  ++drops_[static_cast<std::size_t>(reason)];
}

namespace {

/// What goes to the LAN past the stack was not forwarded by it.
bool take_ttl(std::span<std::byte> octets) {
  auto* ip = reinterpret_cast<std::uint8_t*>(octets.data());
  if (ip[8] <= 1) return false;
  packet::ChecksumChange change;
  change.word(packet::load16(ip + 8), static_cast<std::uint16_t>(packet::load16(ip + 8) - 256));
  --ip[8];
  change.apply_at(ip + 10);
  return true;
}

}  // namespace

/// The stack takes a packet that comes in by the WAN for its own if its source is the gateway's.
sp_back Core::back_for(std::span<const std::byte> packet, Action where) const {
  if (where == Action::forward_wan) return SP_BACK_WAN;
  if (where == Action::local || packet.size() < 20) return SP_BACK_STACK;
  if (!is_v4(packet)) return SP_BACK_STACK;
  const std::uint32_t source = packet::load32(reinterpret_cast<const std::uint8_t*>(packet.data()) + 12);
  return std::find(gateway_.begin(), gateway_.end(), source) != gateway_.end() ? SP_BACK_LAN : SP_BACK_STACK;
}

Core::Fate Core::take(const sp_tag& tag, std::span<std::byte> octets, bool partial_checksum, bool gso,
                      TimePoint now, const Give& give) {
  now_s_ = to_seconds(now);
  last_drop_ = static_cast<DropReason>(tag.reason);
  last_held_ = false;
  const auto side = static_cast<sp_side>(tag.side);
  Giver giver{give};
  switch (tag.what) {
    case SP_SLOW_IPV6:
    case SP_SLOW_PING:
    case SP_SLOW_ICMP_ERROR: {
      Packet packet{.data = octets.data(),
                    .size = static_cast<std::uint32_t>(octets.size()),
                    .from = side_of(side),
                    .partial_checksum = partial_checksum,
                    .gso = gso};
      engine_.translate(std::span{&packet, 1}, now, giver);
      last_drop_ = packet.reason;
      if (packet.action == Action::drop || packet.action == Action::held) return {};
      if (packet.action == Action::local && side != SP_FROM_WAN) return {};
      const sp_back how = back_for(octets.first(packet.size), packet.action);
      if (tag.what != SP_SLOW_IPV6 && how == SP_BACK_LAN && !take_ttl(octets)) {
        drop(DropReason::ttl_expired);
        return {};
      }
      return {true, how, packet.size};
    }
    case SP_SLOW_FRAGMENT:
      return take_fragment(side, octets, now, give);
    case SP_SLOW_ENDED:
      engine_.answer_ended(octets, side_of(side), now, giver);
      return {};
    case SP_SLOW_REFUSE:
      engine_.refuse(octets, tag.code, now, giver);
      return {};
    case SP_SLOW_POOL:
      if (engine_.make_mapping(octets, now, giver))
        return {true, SP_BACK_RETRY, static_cast<std::uint32_t>(octets.size())};
      return {};
    default:
      return {};
  }
}

/// Puts fragments in order: the first one goes through the programs before those that follow it.
Core::Fate Core::take_fragment(sp_side side, std::span<std::byte> octets, TimePoint now, const Give& give) {
  packet::Ipv4 ip;
  if (packet::parse(octets, false, ip) != packet::Malformed::no) {
    drop(DropReason::bad_fragment);
    return {};
  }
  if (ip.fragment_offset == 0 && ip.protocol == packet::protocol::icmp && ip.is_icmp_error()) {
    drop(DropReason::icmp_fits_nothing);  // its checksum cannot be judged
    return {};
  }
  FragmentFate fate;
  switch (fragments_.take(ip, side_of(side), to_seconds(now), fate)) {
    case Fragments::Next::hold:
      last_held_ = true;
      return {};
    case Fragments::Next::overlap:
      drop(DropReason::fragment_overlap);
      return {};
    case Fragments::Next::limit:
      drop(DropReason::fragment_limit);
      return {};
    case Fragments::Next::dropped:
      drop(DropReason::fragment_of_dropped);
      return {};
    case Fragments::Next::follow:
      return {true, SP_BACK_RETRY, ip.size};
    case Fragments::Next::translate_first:
      break;
  }
  // What becomes of it is the programs' to say, and those behind it ask them.
  fate.action = Action::forward_wan;
  give(octets.first(ip.size), SP_BACK_RETRY, side);
  for (auto& held : fragments_.settle(ip, ip.source, ip.destination, side_of(side), fate))
    give(held, SP_BACK_RETRY, side);
  return {};
}

void Core::take_made(TimePoint now, const Give& give) {
  for (const auto& session : tables_->take_ended(to_seconds(now)))
    engine_.reset(session.key, session.tcp, session.external, now);
  Giver giver{give};
  engine_.take_made(giver);
}

}  // namespace sallyport::nat::ebpf
