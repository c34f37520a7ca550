#include "src/daemon/config.hpp"

#include <algorithm>

namespace sallyport::daemon {

bool Config::speaks(Protocol protocol, std::string_view name) const {
  const auto has = [&](const std::vector<Protocol>& list) {
    return std::ranges::find(list, protocol) != list.end();
  };
  if (!has(listen.protocols)) return false;
  if (std::ranges::find(listen.lan, name) == listen.lan.end()) return false;
  if (listen.control && std::ranges::find(*listen.control, name) == listen.control->end()) return false;
  const auto own = std::ranges::find(listen.interfaces, name, &ListenInterface::name);
  return own == listen.interfaces.end() || has(own->protocols);
}

bool Config::serves(std::string_view name) const {
  return speaks(Protocol::pcp, name) || speaks(Protocol::natpmp, name) || speaks(Protocol::upnp, name);
}

lease::LeasePolicy Config::lease_policy() const {
  lease::LeasePolicy result;
  result.rules = policy.rules;
  result.third_party = policy.third_party;
  result.external_ports = policy.external_ports;
  result.leases_per_device = limits.leases_per_device;
  result.leases_total = limits.leases_total;
  result.ports_per_set = limits.ports_per_set;
  result.pcp_min = lifetimes.pcp_min;
  result.pcp_max = lifetimes.pcp_max;
  result.natpmp_max = lifetimes.natpmp_max;
  result.upnp_max = lifetimes.upnp_max;
  result.upnp_permanent = lifetimes.upnp_v1_permanent;
  result.upnp_internal_ports = policy.upnp_internal_ports;
  // none of ours: then it is the longest that PCP carries (RFC 7220)
  result.description_octets = limits.description == 0 ? longest_description : limits.description;
  result.ended_leases = filtering.ended_leases;
  result.reuse_strict = policy.reuse_strict;
  result.outbound_filtering = filtering.implicit;
  result.udp_idle_s = engine.udp_idle;
  result.tcp_established_s = engine.tcp_established;
  result.grant_without_store = store.on_error_memory;
  result.ipv6 = engine.ipv6;
  result.statics = statics;
  return result;
}

nat::PlanePolicy Config::plane_policy() const {
  nat::PlanePolicy result;
  result.pool = engine.pool;
  result.reserved = policy.reserved_ports;
  // The control ports, whether or not a protocol is on: no lease may look like one of them (POL-TGT-05).
  for (const std::uint32_t port : {1900U, 5350U, 5351U})
    result.reserved.emplace_back(Transport::udp, *Port::from(port));
  result.reserved.emplace_back(Transport::tcp, *Port::from(listen.http_port));
  result.tcp_established = std::chrono::seconds{engine.tcp_established};
  result.tcp_transitory = std::chrono::seconds{engine.tcp_transitory};
  result.tcp_half_open = std::chrono::seconds{engine.tcp_half_open};
  result.udp_idle = std::chrono::seconds{engine.udp_idle};
  result.icmp_query = std::chrono::seconds{engine.icmp_query};
  result.fragment_timeout = std::chrono::seconds{filtering.fragment_timeout};
  result.reuse_delay = std::chrono::seconds{policy.reuse_delay};
  result.reuse_strict = policy.reuse_strict;
  result.implicit = filtering.implicit;
  result.random_ports = engine.random_ports;
  result.redirect = engine.redirect;
  result.ipv6 = engine.ipv6;
  result.icmp_to_lan = filtering.icmp_to_lan;
  result.icmp_to_wan = filtering.icmp_to_wan;
  result.answer_ping = filtering.answer_ping;
  result.drop_private_wan_sources = filtering.drop_private_wan_sources;
  result.mappings_per_device = limits.mappings_per_device;
  result.new_mappings_per_second = limits.new_mappings_per_second;
  result.flows_per_device = limits.flows_per_device;
  result.flows_total = limits.flows_total;
  result.icmp_ids_per_device = limits.icmp_ids_per_device;
  result.fragments_per_source = limits.fragments_per_source;
  result.fragments_total = limits.fragments_total;
  result.mss_clamp = engine.mss_clamp;
  return result;
}

transport::NetworkWishes Config::network_wishes() const {
  return {listen.lan, listen.wan, listen.lan_prefixes, engine.external_addresses, engine.no_translate};
}

}  // namespace sallyport::daemon
