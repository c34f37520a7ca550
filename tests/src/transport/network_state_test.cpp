#include "src/transport/network_state.hpp"

namespace sallyport::transport {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

Address ip(const char* text) { return *Address::parse(text); }
Prefix net(const char* text) { return *Prefix::parse(text); }

/// A router: br0 (2) and br1 (3) inside, eth0 (4) outside, wg0 (5) and eth9 (6) something else.
class NetworkView : public testing::Test {
 protected:
  NetworkView() {
    state.links = {{1, "lo", 65536, true},  {2, "br0", 1500, true}, {3, "br1", 1500, true},
                   {4, "eth0", 1492, true}, {5, "wg0", 1420, true}, {6, "eth9", 1500, true}};
    add_address(2, "192.168.1.1", 24);
    add_address(3, "192.168.2.1", 24);
    add_address(4, "203.0.113.7", 24);
    add_route("0.0.0.0/0", 4);
    add_route("203.0.113.0/24", 4);
    add_route("192.168.1.0/24", 2);
    add_route("192.168.2.0/24", 3);
    wishes.lan = {"br0", "br1"};
    wishes.wan = {"eth0"};
  }
  NetworkState::LinkAddress& add_address(std::uint32_t interface, const char* address, std::uint8_t bits) {
    NetworkState::LinkAddress entry;
    entry.interface = interface;
    entry.address = entry.subnet = ip(address);
    entry.bits = bits;
    return state.addresses.emplace_back(entry);
  }
  void add_route(const char* destination, std::uint32_t interface, std::uint32_t metric = 0) {
    state.routes.push_back({net(destination), {interface}, metric});
  }
  nat::NetworkView view() const { return build_view(state, wishes); }

  NetworkState state;
  NetworkWishes wishes;
};

TEST_F(NetworkView, LanPrefixesAreTheSubnetsAndTheRoutesBehind) {
  add_route("10.9.0.0/16", 2);
  const auto lan = view().lan;
  ASSERT_EQ(lan.size(), 2u);
  EXPECT_EQ(lan[0].index, 2u);
  EXPECT_THAT(lan[0].addresses, ElementsAre(ip("192.168.1.1")));
  EXPECT_THAT(lan[0].prefixes, ElementsAre(net("192.168.1.0/24"), net("10.9.0.0/16")));
  EXPECT_THAT(lan[1].prefixes, ElementsAre(net("192.168.2.0/24")));
}

TEST_F(NetworkView, ADefaultRouteIntoTheLanIsNoLanPrefix) {
  add_route("0.0.0.0/0", 2, 900);
  EXPECT_THAT(view().lan[0].prefixes, ElementsAre(net("192.168.1.0/24")));
}

TEST_F(NetworkView, TheSubnetOfAPointToPointLinkIsItsFarEnd) {
  auto& address = add_address(3, "10.0.0.1", 32);
  address.subnet = ip("10.0.0.2");
  EXPECT_THAT(view().lan[1].prefixes, ElementsAre(net("192.168.2.0/24"), net("10.0.0.2/32")));
}

TEST_F(NetworkView, ListedLanPrefixesReplaceWhatWasFound) {
  wishes.lan_prefixes = {net("192.168.1.128/25"), net("10.20.0.0/16")};
  const auto lan = view().lan;
  // the first stands where it overlaps; the second is behind neither yet, so behind both
  EXPECT_THAT(lan[0].prefixes, ElementsAre(net("192.168.1.128/25"), net("10.20.0.0/16")));
  EXPECT_THAT(lan[1].prefixes, ElementsAre(net("10.20.0.0/16")));
}

TEST_F(NetworkView, AnInterfaceThatIsAwayHasIndexZero) {
  std::erase_if(state.links, [](const auto& link) { return link.index == 4; });
  std::erase_if(state.addresses, [](const auto& address) { return address.interface == 4; });
  const auto now = view();
  ASSERT_EQ(now.wan.size(), 1u);
  EXPECT_EQ(now.wan[0].name, "eth0");
  EXPECT_EQ(now.wan[0].index, 0u);
  EXPECT_THAT(now.external, IsEmpty());
}

TEST_F(NetworkView, TheExternalAddressIsTheWansFirstGoodOne) {
  add_address(4, "203.0.113.8", 24).secondary = true;
  add_address(4, "203.0.113.9", 25).deprecated = true;
  add_address(4, "169.254.7.7", 16);
  add_address(4, "203.0.113.10", 26).link_scope = true;
  add_address(4, "198.51.100.4", 24);
  EXPECT_THAT(view().external, ElementsAre(ip("203.0.113.7"), ip("198.51.100.4")));
  EXPECT_THAT(view().pool(), ElementsAre(ip("203.0.113.7"))) << "the others are the router's";
  EXPECT_EQ(view().wan[0].addresses.size(), 6u);
  EXPECT_EQ(view().wan[0].mtu, 1492u);
}

// architecture.md: --external-address pins
TEST_F(NetworkView, PinnedExternalAddressesNeedNotBeOnTheWan) {
  wishes.external_addresses = {ip("198.51.100.200")};
  EXPECT_THAT(view().external, ElementsAre(ip("198.51.100.200")));
  wishes.external_addresses.push_back(ip("198.51.100.201"));
  EXPECT_THAT(view().pool(), ElementsAre(ip("198.51.100.200"), ip("198.51.100.201")))
      << "all of them are in use";
}

TEST_F(NetworkView, RoutesOutOfOtherInterfacesStayUntranslated) {
  add_route("10.8.0.0/16", 5);
  add_route("198.51.100.0/24", 6);
  wishes.no_translate = {net("172.16.5.9/16")};
  EXPECT_THAT(view().untranslated,
              ElementsAre(net("10.8.0.0/16"), net("198.51.100.0/24"), net("172.16.0.0/16")));
}

// POL-NET-01: nothing that leaves by the WAN is untranslated, whatever a wider route says
TEST_F(NetworkView, WhatAMoreSpecificRouteSendsOutOnTheWanIsNotUntranslated) {
  state.routes.clear();
  add_route("203.0.113.0/24", 4);
  add_route("200.0.0.0/6", 5);
  const auto pieces = view().untranslated;
  const auto covered = [&](const char* address) {
    return std::ranges::any_of(pieces, [&](const Prefix& piece) { return piece.contains(ip(address)); });
  };
  for (const char* inside : {"200.0.0.0", "203.0.112.255", "203.0.114.0", "203.255.255.255", "202.7.7.7"})
    EXPECT_TRUE(covered(inside)) << inside;
  for (const char* outside : {"203.0.113.0", "203.0.113.99", "203.0.113.255", "204.0.0.0", "199.255.255.255"})
    EXPECT_FALSE(covered(outside)) << outside;
  EXPECT_EQ(pieces.size(), 18u);  // one per bit between /6 and /24
}

TEST_F(NetworkView, TheLowerMetricDecidesBetweenEqualRoutes) {
  add_route("198.51.100.0/24", 5, 50);
  add_route("198.51.100.0/24", 4, 100);
  EXPECT_THAT(view().untranslated, ElementsAre(net("198.51.100.0/24")));
  state.routes.back().metric = 10;
  EXPECT_THAT(view().untranslated, IsEmpty());
}

TEST_F(NetworkView, ADefaultRouteOutOfAThirdInterfaceIsNotUntranslated) {
  add_route("0.0.0.0/0", 6, 5);
  EXPECT_THAT(view().untranslated, IsEmpty());
}

// POL-NET-01: a misspelt or missing WAN does not make its interface a way out for internal addresses
TEST_F(NetworkView, WhatHasTheDefaultRouteInsteadOfTheWanIsNoUntranslatedWayOut) {
  add_route("10.8.0.0/16", 5);
  add_route("198.51.100.0/24", 4);
  wishes.wan = {"ppp7"};
  EXPECT_THAT(view().untranslated, ElementsAre(net("10.8.0.0/16")));
  wishes.wan = {"eth0"};
  state.routes.erase(state.routes.begin());  // eth0 loses its default route, eth9 stands by
  add_route("0.0.0.0/0", 6, 700);
  add_route("192.168.8.0/24", 6);
  EXPECT_THAT(view().untranslated, ElementsAre(net("10.8.0.0/16")));
}

TEST_F(NetworkView, BesideTheWansDefaultRouteAVpnMayHaveOneToo) {
  add_route("0.0.0.0/0", 5, 50);
  add_route("10.8.0.0/16", 5);
  EXPECT_THAT(view().untranslated, ElementsAre(net("10.8.0.0/16")));
}

TEST_F(NetworkView, AMultipathRouteThatUsesTheWanIsTheWans) {
  state.routes.push_back({net("10.8.0.0/16"), {5, 4}, 0});
  EXPECT_THAT(view().untranslated, IsEmpty());
}

TEST_F(NetworkView, ANetworkOnBothSidesIsFound) {  // N4787-12
  EXPECT_THAT(conflicting_networks(state, view()), IsEmpty());
  add_address(4, "192.168.1.77", 24);
  add_route("192.168.2.128/25", 4);
  EXPECT_THAT(conflicting_networks(state, view()),
              ElementsAre(net("192.168.1.0/24"), net("192.168.2.128/25")));
}

TEST(PrefixArithmetic, SubtractsAHole) {
  EXPECT_THAT(subtract(net("10.0.0.0/8"), net("11.0.0.0/8")), ElementsAre(net("10.0.0.0/8")));
  EXPECT_THAT(subtract(net("10.0.0.0/8"), net("0.0.0.0/0")), IsEmpty());
  EXPECT_THAT(subtract(net("10.0.0.0/8"), net("10.0.0.0/8")), IsEmpty());
  EXPECT_THAT(subtract(net("10.0.0.0/30"), net("10.0.0.2/32")),
              UnorderedElementsAre(net("10.0.0.0/31"), net("10.0.0.3/32")));
}

TEST(PrefixArithmetic, ClearsHostBits) {
  EXPECT_EQ(canonical(net("10.1.2.3/8")), net("10.0.0.0/8"));
  EXPECT_EQ(canonical(net("10.1.2.3/0")), net("0.0.0.0/0"));
  EXPECT_EQ(canonical(net("10.1.2.3/32")), net("10.1.2.3/32"));
}

/// The same router with IPv6: a delegated prefix on br0, router advertisements on eth0.
class NetworkView6 : public NetworkView {
 protected:
  NetworkView6() {
    state.ipv6 = {{2, net("2001:db8:1::1/64")}, {2, net("fe80::1/64")},         {3, net("fd00:2::1/64")},
                  {4, net("2001:db8:2::2/64")}, {4, net("2001:db8:2::77/128")}, {4, net("fe80::4/64")},
                  {5, net("fd00:5::1/64")}};
    add_route6("::/0", 4, 1024);
    add_route6("2001:db8:1::/64", 2);
    add_route6("fd00:2::/64", 3);
    add_route6("2001:db8:2::/64", 4);
    add_route6("fd00:5::/64", 5);
  }
  void add_route6(const char* destination, std::uint32_t interface, std::uint32_t metric = 256) {
    state.routes6.push_back({net(destination), {interface}, metric});
  }
};

TEST_F(NetworkView6, BothFamiliesAreThere) {
  const auto now = view();
  EXPECT_THAT(now.lan[0].addresses, ElementsAre(ip("192.168.1.1"), ip("2001:db8:1::1"), ip("fe80::1")));
  EXPECT_THAT(now.lan[0].prefixes, ElementsAre(net("192.168.1.0/24"), net("2001:db8:1::/64")));
  EXPECT_THAT(now.lan[1].prefixes, ElementsAre(net("192.168.2.0/24"), net("fd00:2::/64")));
  EXPECT_THAT(now.wan[0].addresses, testing::Contains(ip("2001:db8:2::2")));
  EXPECT_THAT(now.external, ElementsAre(ip("203.0.113.7"))) << "IPv4 alone is translated";
  EXPECT_THAT(now.untranslated, ElementsAre(net("fd00:5::/64")));
}

TEST_F(NetworkView6, RoutedPrefixesBehindTheLanAreItsOwn) {
  add_route6("2001:db8:1:100::/56", 2);
  add_route6("::/0", 2, 2000);
  EXPECT_THAT(view().lan[0].prefixes,
              ElementsAre(net("192.168.1.0/24"), net("2001:db8:1::/64"), net("2001:db8:1:100::/56")));
}

TEST_F(NetworkView6, AnAddressWithoutASubnetNamesNoNetwork) {
  state.ipv6.push_back({2, net("2001:db8:9::9/128")});
  EXPECT_THAT(view().lan[0].prefixes, ElementsAre(net("192.168.1.0/24"), net("2001:db8:1::/64")));
}

TEST_F(NetworkView6, ListedIpv4PrefixesLeaveIpv6AsItIs) {
  wishes.lan_prefixes = {net("192.168.1.128/25")};
  EXPECT_THAT(view().lan[0].prefixes, ElementsAre(net("192.168.1.128/25"), net("2001:db8:1::/64")));
}

TEST_F(NetworkView6, AVpnPrefixLosesWhatTheWanRoutes) {
  add_route6("fd00:8::/32", 5);
  add_route6("fd00:8:8000::/33", 4);
  EXPECT_THAT(view().untranslated, UnorderedElementsAre(net("fd00:5::/64"), net("fd00:8::/33")));
}

TEST_F(NetworkView6, ADefaultRouteByAVpnIsNoHole) {  // POL-NET-01
  std::erase_if(state.routes6, [](const auto& route) { return route.destination.length == 0; });
  add_route6("::/0", 5);
  EXPECT_THAT(view().untranslated, IsEmpty());
}

TEST_F(NetworkView6, ALongPrefixOfNinetySixBitsIsNoDefaultRoute) {
  add_route6("2001:db8:7::/96", 5);
  EXPECT_THAT(view().untranslated, UnorderedElementsAre(net("fd00:5::/64"), net("2001:db8:7::/96")));
}

TEST(Prefixes6, SubtractAndCanonical) {
  EXPECT_EQ(canonical(net("2001:db8:1:2fff::9/51")), net("2001:db8:1:2000::/51"));
  EXPECT_THAT(subtract(net("fd00::/62"), net("fd00:0:0:2::/64")),
              UnorderedElementsAre(net("fd00::/63"), net("fd00:0:0:3::/64")));
}

}  // namespace
}  // namespace sallyport::transport
