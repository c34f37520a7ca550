#include "src/transport/network_state.hpp"

#include <algorithm>

#include "src/transport/arrival_check.hpp"

namespace sallyport::transport {
namespace {

bool covers(const Prefix& outer, const Prefix& inner) noexcept {
  return outer.length <= inner.length && outer.contains(inner.address);
}

/// fe80::/10: the same on every link, so it names no network (RFC 4291 2.5.6).
bool is_link_local(const Address& address) noexcept {
  static constexpr Prefix link_local{Address{Address::Bytes{std::byte{0xfe}, std::byte{0x80}}}, 10};
  return link_local.contains(address);
}

bool overlap(const Prefix& a, const Prefix& b) noexcept { return covers(a, b) || covers(b, a); }

void add_once(std::vector<Prefix>& prefixes, const Prefix& prefix) {
  if (std::ranges::find(prefixes, prefix) == prefixes.end()) prefixes.push_back(prefix);
}

nat::PlaneInterface describe(const NetworkState& state, const std::string& name) {
  nat::PlaneInterface interface;
  interface.name = name;
  const auto link = std::ranges::find(state.links, name, &NetworkState::Link::name);
  if (link == state.links.end()) return interface;
  interface.index = link->index;
  interface.mtu = link->mtu;
  interface.up = link->up;
  for (const auto& address : state.addresses)
    if (address.interface == link->index) interface.addresses.push_back(address.address);
  for (const auto& address : state.ipv6)
    if (address.interface == link->index) interface.addresses.push_back(address.address.address);
  return interface;
}

bool is_default(const Prefix& prefix) noexcept { return prefix.length == (prefix.address.is_v4() ? 96 : 0); }

bool leaves_by(const NetworkState::Route& route, const std::vector<nat::PlaneInterface>& interfaces) {
  return std::ranges::any_of(interfaces, [&](const nat::PlaneInterface& interface) {
    return interface.index != 0 &&
           std::ranges::find(route.interfaces, interface.index) != route.interfaces.end();
  });
}

std::vector<Prefix> prefixes_behind(const NetworkState& state, const nat::PlaneInterface& interface) {
  std::vector<Prefix> prefixes;
  if (interface.index == 0) return prefixes;
  for (const auto& address : state.addresses)
    if (address.interface == interface.index)
      add_once(prefixes, canonical({address.subnet, static_cast<std::uint8_t>(96 + address.bits)}));
  const auto add_routes = [&](const std::vector<NetworkState::Route>& routes) {
    for (const auto& route : routes)
      if (!is_default(route.destination) &&
          std::ranges::find(route.interfaces, interface.index) != route.interfaces.end())
        add_once(prefixes, canonical(route.destination));
  };
  add_routes(state.routes);
  // Of an IPv6 address that came alone (/128) nobody but the gateway itself is behind.
  for (const auto& address : state.ipv6)
    if (address.interface == interface.index && address.address.length < 128 &&
        !is_link_local(address.address.address))
      add_once(prefixes, canonical(address.address));
  add_routes(state.routes6);
  return prefixes;
}

std::vector<Address> external_addresses(const NetworkState& state,
                                        const std::vector<nat::PlaneInterface>& wan) {
  std::vector<Address> addresses;
  for (const auto& interface : wan) {
    if (interface.index == 0) continue;
    for (const auto& address : state.addresses)
      if (address.interface == interface.index && !address.secondary && !address.deprecated &&
          !address.link_scope && is_host_address(address.address))
        addresses.push_back(address.address);
  }
  return addresses;
}

/// A route that is not ours to translate, without what the WAN routes take out of it.
void add_untranslated(std::vector<Prefix>& result, const NetworkState::Route& route,
                      const std::vector<const NetworkState::Route*>& wan_routes) {
  std::vector<Prefix> pieces{canonical(route.destination)};
  for (const auto* wan_route : wan_routes) {
    const bool wins =
        wan_route->destination.length > route.destination.length ||
        (wan_route->destination.length == route.destination.length && wan_route->metric <= route.metric);
    if (!wins || !covers(route.destination, wan_route->destination)) continue;
    std::vector<Prefix> left;
    for (const auto& piece : pieces) {
      const auto parts = subtract(piece, canonical(wan_route->destination));
      left.insert(left.end(), parts.begin(), parts.end());
    }
    pieces = std::move(left);
  }
  for (const auto& piece : pieces) add_once(result, piece);
}

/// Adds to `view.untranslated` the routes of one family that are not ours.
void leave_out(const std::vector<NetworkState::Route>& routes, nat::NetworkView& view) {
  std::vector<const NetworkState::Route*> wan_routes;
  for (const auto& route : routes)
    if (leaves_by(route, view.wan)) wan_routes.push_back(&route);
  // While the WAN has no default route, an interface that has one stands where it should: what leaves there
  // is for the world, and so is not let out as it is (POL-NET-01).
  std::vector<nat::PlaneInterface> in_its_place;
  if (std::ranges::none_of(wan_routes, [](const auto* route) { return is_default(route->destination); }))
    for (const auto& route : routes)
      if (is_default(route.destination))
        for (const std::uint32_t index : route.interfaces) in_its_place.emplace_back().index = index;
  for (const auto& route : routes)
    if (!is_default(route.destination) && !leaves_by(route, view.wan) && !leaves_by(route, view.lan) &&
        !leaves_by(route, in_its_place))
      add_untranslated(view.untranslated, route, wan_routes);
}

}  // namespace

Prefix canonical(const Prefix& prefix) noexcept {
  Address::Bytes bytes = prefix.address.bytes();
  for (std::size_t bit = prefix.length; bit < 128; ++bit) bytes[bit / 8] &= ~(std::byte{0x80} >> (bit % 8));
  return {Address{bytes}, prefix.length};
}

std::vector<Prefix> subtract(const Prefix& whole, const Prefix& hole) {
  if (covers(hole, whole)) return {};
  if (!covers(whole, hole)) return {whole};
  std::vector<Prefix> parts;
  // Each step halves the prefix: the half without the hole stays, the other is halved again.
  for (unsigned bits = whole.length + 1U; bits <= hole.length; ++bits) {
    Address::Bytes bytes = hole.address.bytes();
    bytes[(bits - 1) / 8] ^= std::byte{0x80} >> ((bits - 1) % 8);
    parts.push_back(canonical({Address{bytes}, static_cast<std::uint8_t>(bits)}));
  }
  return parts;
}

std::vector<Prefix> conflicting_networks(const NetworkState& state, const nat::NetworkView& view) {
  std::vector<Prefix> found;
  const auto judge = [&](const Prefix& network) {
    for (const auto& lan : view.lan)
      if (std::ranges::any_of(lan.prefixes, [&](const Prefix& own) { return overlap(own, network); }))
        return add_once(found, network);
  };
  for (const auto& address : state.addresses)
    if (std::ranges::any_of(view.wan, [&](const auto& wan) { return wan.index == address.interface; }))
      judge(canonical({address.subnet, static_cast<std::uint8_t>(96 + address.bits)}));
  for (const auto& route : state.routes)
    if (!is_default(route.destination) && leaves_by(route, view.wan)) judge(canonical(route.destination));
  return found;
}

std::vector<Address> own_addresses(const NetworkState& state) {
  std::vector<Address> addresses;
  addresses.reserve(state.addresses.size());
  for (const auto& address : state.addresses) addresses.push_back(address.address);
  return addresses;
}

nat::NetworkView build_view(const NetworkState& state, const NetworkWishes& wishes) {
  nat::NetworkView view;
  for (const auto& name : wishes.lan) {
    auto interface = describe(state, name);
    interface.prefixes = prefixes_behind(state, interface);
    view.lan.push_back(std::move(interface));
  }
  const auto of_family = [](bool v4) {
    return [v4](const Prefix& prefix) { return prefix.address.is_v4() == v4; };
  };
  for (const bool v4 : {true, false}) {
    if (std::ranges::none_of(wishes.lan_prefixes, of_family(v4))) continue;
    // A listed prefix stands behind the interfaces that reach into it; where none does (an address is still
    // to come), behind all.
    std::vector<std::vector<Prefix>> listed(view.lan.size());
    for (const auto& prefix : wishes.lan_prefixes) {
      if (prefix.address.is_v4() != v4) continue;
      bool placed = false;
      for (std::size_t i = 0; i < view.lan.size(); ++i) {
        if (std::ranges::none_of(view.lan[i].prefixes,
                                 [&](const Prefix& own) { return overlap(own, prefix); }))
          continue;
        add_once(listed[i], canonical(prefix));
        placed = true;
      }
      for (std::size_t i = 0; !placed && i < view.lan.size(); ++i) add_once(listed[i], canonical(prefix));
    }
    for (std::size_t i = 0; i < view.lan.size(); ++i) {
      std::erase_if(view.lan[i].prefixes, of_family(v4));
      view.lan[i].prefixes.insert(v4 ? view.lan[i].prefixes.begin() : view.lan[i].prefixes.end(),
                                  listed[i].begin(), listed[i].end());
    }
  }
  for (const auto& name : wishes.wan) view.wan.push_back(describe(state, name));

  view.external =
      wishes.external_addresses.empty() ? external_addresses(state, view.wan) : wishes.external_addresses;
  view.external_pool = !wishes.external_addresses.empty();

  for (const auto* routes : {&state.routes, &state.routes6}) leave_out(*routes, view);
  for (const auto& prefix : wishes.no_translate) add_once(view.untranslated, canonical(prefix));
  return view;
}

}  // namespace sallyport::transport
