#include "nat/plane/tun/steering.hpp"

#include <linux/in.h>

#include <algorithm>
#include <array>
#include <set>
#include <string_view>
#include <type_traits>

namespace sallyport::nat::tun {
namespace {

// Before the local table (moved from 0 to 100), because external addresses are local ones.
constexpr std::uint32_t skip_sp0 = 10;
constexpr std::uint32_t skip_router = 11;
constexpr std::uint32_t skip_wan_rules = 12;
constexpr std::uint32_t wan_spoof = 40;
constexpr std::uint32_t wan_untranslated = 46;
constexpr std::uint32_t wan_to_lan = 48;
constexpr std::uint32_t wan_leased = 47;
constexpr std::uint32_t wan_bound = 45;
constexpr std::uint32_t wan_router_ports = 48;
constexpr std::uint32_t wan_router_alone = 49;
constexpr std::uint32_t wan_inbound = 50;
constexpr std::uint32_t wan_icmp = 52;
constexpr std::uint32_t wan_rest = 54;
constexpr std::uint32_t lan_hairpin = 60;
constexpr std::uint32_t lan_icmp = 62;
constexpr std::uint32_t lan_valid = 66;
constexpr std::uint32_t lan_spoof = 67;
constexpr std::uint32_t local = 100;
// After it.
constexpr std::uint32_t to_inside = 103;
constexpr std::uint32_t to_inside_nowhere = 104;
constexpr std::uint32_t not_ours = 105;
constexpr std::uint32_t done_sp0 = 106;
constexpr std::uint32_t router_no_translate = 107;
constexpr std::uint32_t router_from_wan = 108;
constexpr std::uint32_t router_from_inside = 109;
constexpr std::uint32_t router_icmp = 110;
constexpr std::uint32_t lan_no_translate = 111;
constexpr std::uint32_t lan_outbound = 112;
constexpr std::uint32_t lan_thrown = 113;
constexpr std::uint32_t lan_nowhere = 114;
constexpr std::uint32_t inside_outbound = 115;
constexpr std::uint32_t inside_thrown = 116;
constexpr std::uint32_t inside_nowhere = 117;
constexpr std::uint32_t end = 190;

/// Above this many port ranges the router's own range goes through the engine as a whole: rules are walked
/// one by one.
constexpr std::size_t most_port_rules = 32;
constexpr std::uint16_t dhcp_client_port = 68;

constexpr std::array<std::uint8_t, 2> transports{IPPROTO_TCP, IPPROTO_UDP};

std::vector<PortRange> ranges(const std::vector<std::uint16_t>& ports) {
  std::vector<PortRange> out;
  for (const std::uint16_t port : ports) {
    if (!out.empty() && out.back().last + 1 == port)
      out.back().last = port;
    else
      out.push_back({port, port});
  }
  return out;
}

std::vector<PortRange> ranges_of(const std::map<Transport, std::vector<std::uint16_t>>& ports,
                                 std::uint8_t transport) {
  const auto found = ports.find(static_cast<Transport>(transport));
  return found == ports.end() ? std::vector<PortRange>{} : ranges(found->second);
}

std::vector<Net> nets(const std::vector<Prefix>& prefixes) {
  std::set<Net> unique;
  for (const Prefix& prefix : prefixes)
    if (prefix.address.is_v4() && prefix.length >= 96) unique.insert(Net::of(prefix));
  return {unique.begin(), unique.end()};
}

struct Builder {
  std::vector<Rule> rules;

  Rule& rule(std::uint32_t priority, std::string_view iif, RuleAction action, std::uint32_t target = 0) {
    Rule& rule = rules.emplace_back();
    rule.priority = priority;
    rule.iif = iif;
    rule.action = action;
    rule.target = target;
    return rule;
  }
};

}  // namespace

Steering steer(const SteeringInput& input) {
  using enum RuleAction;
  const NetworkView& network = input.network;
  Builder out;

  std::set<Net> lan_set;
  for (const auto& lan : network.lan)
    for (const Net& net : nets(lan.prefixes)) lan_set.insert(net);
  const std::vector<Net> lan_nets{lan_set.begin(), lan_set.end()};
  for (const Net& net : nets(input.former_lans)) lan_set.insert(net);
  const std::vector<Net> inside{lan_set.begin(), lan_set.end()};
  std::set<Net> external;
  for (const Address& address : network.external)
    if (address.is_v4()) external.insert(Net::host(address));
  std::set<Net> router_on_wan = external;
  for (const auto& wan : network.wan)
    for (const Address& address : wan.addresses)
      if (address.is_v4()) router_on_wan.insert(Net::host(address));

  // What comes out of the TUN and what the router sends itself meet none of the rules up to the local table;
  // the jumps only spare them the walk.
  out.rule(skip_sp0, input.device, jump, local);
  out.rule(skip_router, "lo", jump, local);

  for (const auto& wan : network.wan) {
    // POL-NET-03; in the TUN nobody could tell any more by which interface a packet came.
    for (const Net& net : inside) out.rule(wan_spoof, wan.name, blackhole).from = net;
    for (const Net& net : router_on_wan) out.rule(wan_spoof, wan.name, blackhole).from = net;
    // The kernel drops 0/8, 127/8 and 224/4 itself.
    for (const Net& net : {Net{0xa9fe0000, 16}, Net{0xf0000000, 4}})
      out.rule(wan_spoof, wan.name, blackhole).from = net;
    for (const Net& from : input.untranslated_by_wan)
      for (const Net& to : lan_nets) {
        Rule& rule = out.rule(wan_untranslated, wan.name, lookup, table_main);
        rule.from = from;
        rule.to = to;
      }
    for (const Net& net : inside) out.rule(wan_to_lan, wan.name, blackhole).to = net;  // NSEC-01
    // the gateway's own on the LAN only, where it is PCP's anycast address (RFC 7723)
    out.rule(wan_to_lan, wan.name, blackhole).to = Net::host(Address::v4(0xc0000009));
    for (const Net& to : external) {
      for (const std::uint8_t transport : transports) {
        auto& inbound = out.rule(wan_inbound, wan.name, lookup, table_inbound);
        inbound.to = to;
        inbound.ip_protocol = transport;

        const auto by_port = [&](std::uint32_t priority, const PortRange& range, std::uint32_t table) {
          auto& rule = out.rule(priority, wan.name, lookup, table);
          rule.to = to;
          rule.ip_protocol = transport;
          rule.port_first = range.first;
          rule.port_last = std::min<std::uint16_t>(range.last, 65534);  // 65535 in a range is refused
        };
        auto bound = ranges_of(input.bound_to_wan, transport);
        bound.resize(std::min(bound.size(), most_port_rules));
        for (const PortRange& range : bound) by_port(wan_bound, range, table_local);
        if (input.router_ports.first == 0) continue;
        // Above the limit the engine alone knows the leased ports; without it all of the range is silent
        // then.
        const auto taken = ranges_of(input.leased_router_ports, transport);
        if (taken.size() > most_port_rules) continue;
        for (const PortRange& range : taken) by_port(wan_leased, range, table_inbound);
        by_port(wan_router_ports, input.router_ports, table_icmp);
        by_port(wan_router_alone, input.router_ports, table_local);
      }
      // A DHCP client binds its socket to the WAN interface: it would not hear an answer that came out of the
      // TUN.
      auto& dhcp = out.rule(wan_bound, wan.name, lookup, table_local);
      dhcp.to = to;
      dhcp.ip_protocol = IPPROTO_UDP;
      dhcp.port_first = dhcp.port_last = dhcp_client_port;
      auto& icmp = out.rule(wan_icmp, wan.name, lookup, table_icmp);
      icmp.to = to;
      icmp.ip_protocol = IPPROTO_ICMP;
    }
    out.rule(wan_rest, wan.name, jump, local);
  }

  for (const auto& lan : network.lan) {
    if (!external.empty()) out.rule(skip_wan_rules, lan.name, jump, lan_hairpin);
    for (const Net& from : nets(lan.prefixes)) {
      for (const Net& to : external) {
        for (const std::uint8_t protocol : {IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMP}) {
          const bool is_icmp = protocol == IPPROTO_ICMP;
          auto& rule = out.rule(is_icmp ? lan_icmp : lan_hairpin, lan.name, lookup,
                                is_icmp ? table_icmp : table_inbound);
          rule.from = from;
          rule.to = to;
          rule.ip_protocol = protocol;
        }
      }
      out.rule(lan_valid, lan.name, jump, local).from = from;
    }
    out.rule(lan_spoof, lan.name, blackhole);  // POL-NET-02
  }

  out.rule(local, {}, lookup, table_local);

  // The LAN's route is gone, and the default one must not take its place for what was translated already.
  for (const Net& net : inside) {
    auto& rule = out.rule(to_inside, {}, lookup, table_main);
    rule.to = net;
    rule.no_default_route = true;
    out.rule(to_inside_nowhere, {}, blackhole).to = net;
  }

  // An external address that is no address of ours: what the engine gives back would be routed out again.
  for (const Net& net : external) out.rule(not_ours, input.device, blackhole).to = net;
  out.rule(done_sp0, input.device, jump, end);
  auto& own_icmp = out.rule(router_icmp, "lo", lookup, table_router_icmp);
  own_icmp.ip_protocol = IPPROTO_ICMP;

  const std::vector<Net> untranslated = nets(network.untranslated);
  const bool default_untranslated = !untranslated.empty() && untranslated.front().length == 0;
  for (const auto& lan : network.lan) {
    for (const Net& net : input.untranslated_by_wan)
      out.rule(lan_no_translate, lan.name, lookup, table_main).to = net;
    out.rule(lan_outbound, lan.name, lookup, table_outbound);
    // For what 7100 throws back. Should the route that it was thrown for be gone by now, the default route to
    // the WAN must not take its place.
    out.rule(lan_thrown, lan.name, lookup, table_main).no_default_route = !default_untranslated;
    out.rule(lan_nowhere, lan.name, blackhole);
  }
  // An internal address by another way than its LAN (POL-NET-01): of the router itself, or of a LAN whose
  // interface was renamed or made anew. It may go wherever no WAN leads.
  for (const Net& net : input.untranslated_by_wan)
    out.rule(router_no_translate, "lo", lookup, table_main).to = net;
  for (const Net& net : inside) {
    for (const Net& own : router_on_wan)
      if (net.contains(own.address)) {
        out.rule(router_from_wan, "lo", jump, router_icmp).from = own;
        out.rule(lan_nowhere, "lo", jump, end).from = own;
      }
    out.rule(router_from_inside, "lo", jump, inside_outbound).from = net;
    out.rule(inside_outbound, {}, lookup, table_inside).from = net;
    auto& thrown_back = out.rule(inside_thrown, {}, lookup, table_main);
    thrown_back.from = net;
    thrown_back.no_default_route = !default_untranslated;
    out.rule(inside_nowhere, {}, blackhole).from = net;
  }
  out.rule(end, {}, nop);

  Steering steering;
  for (const std::uint32_t table : {table_outbound, table_inbound, table_inside})
    steering.routes.push_back(
        {.table = table, .to = {}, .metric = blackhole_metric, .kind = RouteKind::blackhole});
  std::set<Net> thrown{untranslated.begin(), untranslated.end()};
  thrown.insert(lan_nets.begin(), lan_nets.end());
  for (const std::uint32_t table : {table_outbound, table_router_icmp, table_inside})
    for (const Net& net : thrown)
      steering.routes.push_back({.table = table, .to = net, .kind = RouteKind::throw_});
  if (input.device_index != 0 && !external.empty()) {
    const auto to_device = [&](std::uint32_t table) -> Route& {
      return steering.routes.emplace_back(Route{.table = table, .to = {}, .device = input.device_index});
    };
    if (!default_untranslated) to_device(table_outbound);
    to_device(table_inbound);
    to_device(table_icmp);
    if (!default_untranslated) {
      const std::uint32_t preferred = network.external.front().v4_number();
      Route& route = to_device(table_router_icmp);
      if (std::any_of(network.wan.begin(), network.wan.end(), [&](const PlaneInterface& wan) {
            return std::find(wan.addresses.begin(), wan.addresses.end(), network.external.front()) !=
                   wan.addresses.end();
          }))
        route.source = preferred;
    }
  }

  std::sort(out.rules.begin(), out.rules.end());
  out.rules.erase(std::unique(out.rules.begin(), out.rules.end()), out.rules.end());
  steering.rules = std::move(out.rules);
  std::sort(steering.routes.begin(), steering.routes.end());
  return steering;
}

namespace {

std::vector<Net6> nets6(const std::vector<Prefix>& prefixes) {
  std::set<Net6> unique;
  for (const Prefix& prefix : prefixes)
    if (!prefix.address.is_v4()) unique.insert(Net6::of(prefix));
  return {unique.begin(), unique.end()};
}

// Behind the kernel's rule 0, before `main` at 32766.
constexpr std::uint32_t out_of_sp0 = 200;
constexpr std::uint32_t out_of_sp0_nowhere = 201;
constexpr std::uint32_t out_of_sp0_rest = 202;
constexpr std::uint32_t from_router = 203;
constexpr std::uint32_t wan_spoof6 = 210;
constexpr std::uint32_t wan_untranslated6 = 212;
constexpr std::uint32_t wan_spoof_elsewhere6 = 213;
constexpr std::uint32_t wan_inbound6 = 214;
constexpr std::uint32_t wan_elsewhere6 = 215;
constexpr std::uint32_t wan_rest6 = 216;
constexpr std::uint32_t wan_nowhere6 = 217;
constexpr std::uint32_t lan_valid6 = 220;
constexpr std::uint32_t lan_spoof6 = 221;
constexpr std::uint32_t lan_no_translate6 = 222;
constexpr std::uint32_t lan_outbound6 = 223;
constexpr std::uint32_t lan_thrown6 = 224;
constexpr std::uint32_t lan_nowhere6 = 225;
constexpr std::uint32_t former_outbound6 = 226;
constexpr std::uint32_t former_thrown6 = 227;
constexpr std::uint32_t former_nowhere6 = 228;
constexpr std::uint32_t end6 = 290;
constexpr std::uint32_t usual_metric = 1024;  // what IPv6 makes of 0

}  // namespace

Steering6 steer(const SteeringInput6& input) {
  using enum RuleAction;
  const NetworkView& network = input.network;
  std::vector<Rule6> rules;
  const auto add = [&](std::uint32_t priority, const std::string& iif, RuleAction action,
                       std::uint32_t target = 0) -> Rule6& {
    Rule6& rule = rules.emplace_back();
    rule.priority = priority;
    rule.iif = iif;
    rule.action = action;
    rule.target = target;
    return rule;
  };
  std::set<Net6> lan_nets;
  for (const auto& lan : network.lan)
    for (const Net6& net : nets6(lan.prefixes)) lan_nets.insert(net);
  std::set<Net6> own;
  for (const auto* side : {&network.lan, &network.wan})
    for (const auto& interface : *side)
      for (const Address& address : interface.addresses)
        if (!address.is_v4()) own.insert(Net6::host(address));
  const std::vector<Net6> untranslated = nets6(network.untranslated);

  // What was let in goes to the LAN or nowhere: should its route be gone, the default one must not send it
  // back.
  for (const Net6& net : lan_nets) {
    auto& rule = add(out_of_sp0, input.device, lookup, table_main);
    rule.to = net;
    rule.no_default_route = true;
    add(out_of_sp0_nowhere, input.device, blackhole).to = net;
  }
  add(out_of_sp0_rest, input.device, jump, end6);
  add(from_router, "lo", jump, end6);

  for (const auto& wan : network.wan) {
    for (const Net6& net : lan_nets) add(wan_spoof6, wan.name, blackhole).from = net;
    for (const Net6& net : own) add(wan_spoof6, wan.name, blackhole).from = net;
    for (const Net6& from : input.untranslated_by_wan)
      for (const Net6& to : lan_nets) {
        auto& rule = add(wan_untranslated6, wan.name, lookup, table_main);
        rule.from = from;
        rule.to = to;
      }
    for (const Net6& to : untranslated) {
      if (std::find(input.untranslated_by_wan.begin(), input.untranslated_by_wan.end(), to) !=
          input.untranslated_by_wan.end())
        continue;
      // The engine lets in what comes from there; by the WAN it does not.
      add(wan_spoof_elsewhere6, wan.name, blackhole).from = to;
      auto& rule = add(wan_elsewhere6, wan.name, lookup, table_main);
      rule.to = to;
      rule.no_default_route = true;
    }
    for (const Net6& net : lan_nets) add(wan_inbound6, wan.name, lookup, table_inbound).to = net;
    // Everything, not what goes to the LAN as we know it: a prefix that came this very moment is judged too.
    add(wan_rest6, wan.name, lookup, table_inbound);
    add(wan_nowhere6, wan.name, blackhole);
  }
  const bool default_untranslated = !untranslated.empty() && untranslated.front().length == 0;
  for (const auto& lan : network.lan) {
    for (const Net6& from : nets6(lan.prefixes))
      add(lan_valid6, lan.name, jump, lan_no_translate6).from = from;
    add(lan_spoof6, lan.name, blackhole);
    for (const Net6& to : input.untranslated_by_wan)
      add(lan_no_translate6, lan.name, lookup, table_main).to = to;
    add(lan_outbound6, lan.name, lookup, table_outbound);
    add(lan_thrown6, lan.name, lookup, table_main).no_default_route = !default_untranslated;
    add(lan_nowhere6, lan.name, blackhole);
  }
  for (const Net6& net : nets6(input.former_lans)) {
    for (const auto& wan : network.wan) {
      add(wan_spoof6, wan.name, blackhole).from = net;
      add(wan_spoof6, wan.name, blackhole).to = net;
    }
    add(former_outbound6, {}, lookup, table_inside).from = net;
    Rule6& thrown_back = add(former_thrown6, {}, lookup, table_main);
    thrown_back.from = net;
    thrown_back.no_default_route = !default_untranslated;
    add(former_nowhere6, {}, blackhole).from = net;
  }
  add(lan_no_translate6, {}, nop);  // a jump needs somewhere to land
  add(end6, {}, nop);

  Steering6 steering;
  for (const std::uint32_t table : {table_outbound, table_inbound, table_inside})
    steering.routes.push_back(
        {.table = table, .to = {}, .metric = blackhole_metric, .kind = RouteKind::blackhole});
  std::set<Net6> thrown{untranslated.begin(), untranslated.end()};
  thrown.insert(lan_nets.begin(), lan_nets.end());
  for (const std::uint32_t table : {table_outbound, table_inside})
    for (const Net6& net : thrown)
      steering.routes.push_back(
          {.table = table, .to = net, .metric = usual_metric, .kind = RouteKind::throw_});
  if (input.device_index != 0) {
    for (const std::uint32_t table : {table_outbound, table_inbound})
      if (table == table_inbound || !default_untranslated)
        steering.routes.push_back(
            {.table = table, .to = {}, .metric = usual_metric, .device = input.device_index});
  }
  std::sort(rules.begin(), rules.end());
  rules.erase(std::unique(rules.begin(), rules.end()), rules.end());
  steering.rules = std::move(rules);
  std::sort(steering.routes.begin(), steering.routes.end());
  return steering;
}

namespace {

constexpr std::array tables{table_outbound, table_inbound, table_icmp, table_router_icmp, table_inside};

template <class T>
std::vector<T> without(const std::vector<T>& all, const std::vector<T>& minus) {  // both sorted
  std::vector<T> left;
  std::set_difference(all.begin(), all.end(), minus.begin(), minus.end(), std::back_inserter(left));
  return left;
}

template <class Net>
constexpr bool is_v4 = std::is_same_v<Net, tun::Net>;

template <class Net>
Result<std::vector<BasicRoute<Net>>> standing_routes(Rtnl& rtnl) {
  std::vector<BasicRoute<Net>> all;
  for (const std::uint32_t table : tables) {
    auto routes = rtnl.our_routes<Net>(table);
    if (!routes) return routes.error();
    all.insert(all.end(), routes->begin(), routes->end());
  }
  std::sort(all.begin(), all.end());
  return all;
}

}  // namespace

template <class Net>
Result<void> apply(Rtnl& rtnl, const BasicSteering<Net>& wanted) {
  const auto routes = standing_routes<Net>(rtnl);
  if (!routes) return routes.error();
  auto missing = without(wanted.routes, *routes);
  // Blackholes first, then ways into the engine, and only then what passes it by.
  const auto rank = [](const auto& route) {
    return route.kind == RouteKind::blackhole ? 0 : route.kind == RouteKind::unicast ? 1 : 2;
  };
  std::stable_sort(missing.begin(), missing.end(),
                   [&](const auto& a, const auto& b) { return rank(a) < rank(b); });
  for (const auto& route : missing)
    if (const auto result = rtnl.put(route); !result) return result;
  for (const auto& route : without(*routes, wanted.routes)) {
    const bool replaced = std::any_of(wanted.routes.begin(), wanted.routes.end(),
                                      [&](const auto& other) { return other.same_place(route); });
    if (replaced) continue;
    if (const auto result = rtnl.remove(route); !result) return result;
  }

  auto rules = rtnl.template rules<Net>();
  if (!rules) return rules.error();
  std::sort(rules->ours.begin(), rules->ours.end());
  if (const auto result = apply_rules(rtnl, rules->ours, wanted.rules); !result) return result;
  if constexpr (is_v4<Net>) return rtnl.remove_local_first();
  return {};
}

template <class Net>
Result<void> apply_rules(Rtnl& rtnl, const std::vector<BasicRule<Net>>& standing,
                         const std::vector<BasicRule<Net>>& wanted) {
  auto fresh = without(wanted, standing);
  std::stable_partition(fresh.begin(), fresh.end(),
                        [](const auto& rule) { return rule.action == RuleAction::blackhole; });
  for (const auto& rule : fresh)
    if (const auto result = rtnl.add(rule); !result) return result;
  auto stale = without(standing, wanted);
  std::stable_partition(stale.begin(), stale.end(),
                        [](const auto& rule) { return rule.action != RuleAction::blackhole; });
  for (const auto& rule : stale)
    if (const auto result = rtnl.remove(rule); !result) return result;
  return {};
}

template <class Net>
std::vector<Net> inside_networks(const std::vector<BasicRule<Net>>& rules) {
  constexpr std::uint32_t priority = is_v4<Net> ? inside_nowhere : former_nowhere6;
  std::vector<Net> inside;
  for (const auto& rule : rules)
    if (rule.action == RuleAction::blackhole && rule.priority == priority) inside.push_back(rule.from);
  return inside;
}

template <class Net>
Result<bool> stands(Rtnl& rtnl, const BasicSteering<Net>& wanted) {
  auto rules = rtnl.template rules<Net>();
  if (!rules) return {boost::system::in_place_error, rules.error()};
  std::sort(rules->ours.begin(), rules->ours.end());
  if ((is_v4<Net> && rules->local_first) || rules->ours != wanted.rules) return false;
  const auto routes = standing_routes<Net>(rtnl);
  if (!routes) return {boost::system::in_place_error, routes.error()};
  return *routes == wanted.routes;
}

template <class Net>
Result<void> remove_all(Rtnl& rtnl) {
  auto rules = rtnl.template rules<Net>();
  if (!rules) return rules.error();
  if (is_v4<Net> && !rules->ours.empty())
    if (const auto result = rtnl.add_local_first(); !result) return result;
  for (const auto& rule : rules->ours)
    if (const auto result = rtnl.remove(rule); !result) return result;
  const auto routes = standing_routes<Net>(rtnl);
  if (!routes) return routes.error();
  for (const auto& route : *routes)
    if (const auto result = rtnl.remove(route); !result) return result;
  return {};
}

template Result<void> apply(Rtnl&, const Steering&);
template Result<void> apply(Rtnl&, const Steering6&);
template Result<void> apply_rules(Rtnl&, const std::vector<Rule>&, const std::vector<Rule>&);
template std::vector<Net> inside_networks(const std::vector<Rule>&);
template std::vector<Net6> inside_networks(const std::vector<Rule6>&);
template Result<bool> stands(Rtnl&, const Steering&);
template Result<bool> stands(Rtnl&, const Steering6&);
template Result<void> remove_all<Net>(Rtnl&);
template Result<void> remove_all<Net6>(Rtnl&);

}  // namespace sallyport::nat::tun
