#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include "nat/plane/host/former_lans.hpp"
#include "nat/plane/host/sysctls.hpp"
#include "nat/plane/tun/steering.hpp"

// What needs no kernel: which rules follow from which network.

namespace sallyport::nat::tun {
namespace {

Address v4(const char* text) { return *Address::parse(text); }

SteeringInput gateway() {
  PlaneInterface lan;
  lan.name = "lan0";
  lan.prefixes = {*Prefix::parse("192.168.1.0/24")};
  PlaneInterface wan;
  wan.name = "wan0";
  wan.addresses = {v4("203.0.113.2")};
  SteeringInput input;
  input.device = "sp0";
  input.device_index = 9;
  input.network.lan = {lan};
  input.network.wan = {wan};
  input.network.external = {v4("203.0.113.2")};
  input.router_ports = {61000, 65534};
  return input;
}

template <class Predicate>
std::vector<Rule> rules_that(const Steering& steering, Predicate&& predicate) {
  std::vector<Rule> found;
  std::copy_if(steering.rules.begin(), steering.rules.end(), std::back_inserter(found), predicate);
  return found;
}

TEST(Steering, IsSortedAndWithoutDuplicates) {
  auto input = gateway();
  input.network.lan.push_back(input.network.lan[0]);
  const Steering steering = steer(input);
  EXPECT_TRUE(std::is_sorted(steering.rules.begin(), steering.rules.end()));
  EXPECT_EQ(std::adjacent_find(steering.rules.begin(), steering.rules.end()), steering.rules.end());
  EXPECT_TRUE(std::is_sorted(steering.routes.begin(), steering.routes.end()));
  EXPECT_EQ(std::adjacent_find(steering.routes.begin(), steering.routes.end()), steering.routes.end());
}

TEST(Steering, ALanPacketEndsInABlackholeWhateverComesBefore) {
  const Steering steering = steer(gateway());
  const auto last = std::find_if(steering.rules.rbegin(), steering.rules.rend(),
                                 [](const Rule& rule) { return rule.iif == "lan0"; });
  ASSERT_NE(last, steering.rules.rend());
  EXPECT_EQ(last->action, RuleAction::blackhole);
  EXPECT_EQ(last->from, Net{});
  EXPECT_EQ(last->to, Net{});
}

TEST(Steering, NoRuleToTheWorldByMainHoldsADefaultRouteForTheLan) {
  auto input = gateway();
  input.network.untranslated = {*Prefix::parse("10.8.0.0/24")};
  for (const Rule& rule : steer(input).rules)
    EXPECT_TRUE(rule.iif != "lan0" || rule.action != RuleAction::lookup || rule.target != table_main ||
                rule.no_default_route)
        << rule.priority;
}

/// What becomes of a packet that no LAN or WAN brought: which rules it meets behind the local table.
std::vector<Rule> met_by(const Steering& steering, const char* source) {
  return rules_that(steering, [&](const Rule& rule) {
    return rule.iif.empty() && rule.from != Net{} && rule.from.contains(v4(source).v4_number());
  });
}

TEST(Steering, ALansAddressThatComesByAnotherInterfaceGetsNowhereByADefaultRoute) {  // POL-NET-01
  auto input = gateway();
  input.former_lans = {*Prefix::parse("192.168.7.0/24"), *Prefix::parse("2001:db8:7::/64")};
  const Steering steering = steer(input);
  for (const char* source : {"192.168.1.11", "192.168.7.11"}) {
    const auto met = met_by(steering, source);
    ASSERT_EQ(met.size(), 3u) << source;
    EXPECT_EQ(met[0].target, table_inside);
    EXPECT_TRUE(met[1].no_default_route);
    EXPECT_EQ(met[2].action, RuleAction::blackhole);
  }
  EXPECT_TRUE(met_by(steering, "192.168.8.11").empty());
  for (const Route& route : steering.routes)
    EXPECT_TRUE(route.table != table_inside || route.kind != RouteKind::unicast);
  EXPECT_EQ(inside_networks(steering.rules),
            (std::vector<Net>{Net::of(*Prefix::parse("192.168.1.0/24")), Net::of(input.former_lans[0])}))
      << "what a start learns of an earlier run";
}

TEST(Steering, WhatWasALanIsNotReachedFromTheWan) {  // NSEC-01
  auto input = gateway();
  input.former_lans = {*Prefix::parse("192.168.7.0/24")};
  const auto shut = rules_that(steer(input), [&](const Rule& rule) {
    return rule.iif == "wan0" && rule.action == RuleAction::blackhole &&
           (rule.to == Net::of(input.former_lans[0]) || rule.from == Net::of(input.former_lans[0]));
  });
  EXPECT_EQ(shut.size(), 2u);
}

TEST(FormerLans, AreWhatWasALanAndIsNeitherNowNorTheWans) {
  using Networks = std::vector<Prefix>;
  const Prefix net = *Prefix::parse("192.168.1.0/24"), net6 = *Prefix::parse("2001:db8:1::/64");
  host::FormerLans former;
  NetworkView view = gateway().network;
  view.lan[0].prefixes = {*Prefix::parse("192.168.1.1/24"), net6};
  former.follow(view);
  EXPECT_EQ(former.networks(), Networks{});
  NetworkView without = view;
  without.lan[0].prefixes.clear();
  former.follow(without);
  EXPECT_EQ(former.networks(), (Networks{net, net6}));
  former.follow(view);
  EXPECT_EQ(former.networks(), Networks{});
  NetworkView wider = view;
  wider.lan[0].prefixes = {*Prefix::parse("192.168.0.0/16")};
  former.follow(wider);
  EXPECT_EQ(former.networks(), Networks{net6}) << "a part of a LAN is the LAN's";
  without.wan[0].addresses.push_back(v4("192.168.1.77"));
  former.follow(without);
  EXPECT_EQ(former.networks(), Networks{net6});
  former.remember(*Prefix::parse("0.0.0.0/0"));
  former.follow(without);
  EXPECT_EQ(former.networks(), Networks{net6}) << "everything is no LAN";
}

TEST(Steering, WithoutAnExternalAddressNothingLeadsToTheDevice) {
  auto input = gateway();
  input.network.external.clear();
  for (const Route& route : steer(input).routes) EXPECT_NE(route.kind, RouteKind::unicast);
}

TEST(Steering,
     RulesThatNeedNoAddressDoNotStopArp) {  // a rule with iif and to alone did (dataplane.md, section 3)
  for (const Rule& rule : rules_that(steer(gateway()), [](const Rule& candidate) {
         return candidate.iif == "wan0" && candidate.to.length == 32 &&
                candidate.action == RuleAction::lookup;
       }))
    EXPECT_NE(rule.ip_protocol, 0) << rule.priority;
}

TEST(Steering, NoPortRangeEndsAt65535) {  // the kernel refuses it
  auto input = gateway();
  input.router_ports = {61000, 65535};
  for (const Rule& rule : steer(input).rules) EXPECT_LT(rule.port_last, 65535);
}

TEST(Steering, NeighbouringLeasedPortsShareARule) {
  auto input = gateway();
  input.leased_router_ports[Transport::udp] = {61000, 61001, 61002, 61010};
  const auto leased = rules_that(steer(input), [](const Rule& rule) { return rule.priority == 47; });
  ASSERT_EQ(leased.size(), 2u);
  EXPECT_EQ(leased[0].port_first, 61000);
  EXPECT_EQ(leased[0].port_last, 61002);
  EXPECT_EQ(leased[1].port_first, 61010);
}

TEST(Steering, ManyLeasedPortsCostNoRulesAtAll) {
  auto input = gateway();
  for (std::uint16_t port = 61000; port < 61200; port = static_cast<std::uint16_t>(port + 2))
    input.leased_router_ports[Transport::udp].push_back(port);
  const auto udp_by_port = rules_that(
      steer(input), [](const Rule& rule) { return rule.ip_protocol == 17 && rule.port_first >= 61000; });
  EXPECT_TRUE(udp_by_port.empty());
  const auto tcp_by_port =
      rules_that(steer(input), [](const Rule& rule) { return rule.ip_protocol == 6 && rule.port_first; });
  EXPECT_EQ(tcp_by_port.size(), 2u) << "the other transport keeps its range";
}

class UndoFile : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = std::filesystem::temp_directory_path() / "undo-XXXXXX";
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    directory = name;
  }
  void TearDown() override { std::filesystem::remove_all(directory); }
  std::string file() const { return directory / "undo"; }
  std::filesystem::path directory;
};

TEST_F(UndoFile, OfAnotherBootCountsAsNone) {
  std::ofstream{file()} << "sallyport-tun-undo 1 boot 00000000-0000-0000-0000-000000000000 netns 1\n"
                        << "ipv4/ip_early_demux=7\n";
  EXPECT_TRUE(SysctlKeeper{file()}.changed().empty());
}

// Inodes of namespaces are used again; whoever had this one before had other values.
TEST_F(UndoFile, OfAnotherNamespaceOfThisBootCountsAsNone) {
  std::string boot;
  std::getline(std::ifstream{"/proc/sys/kernel/random/boot_id"}, boot);
  std::ofstream{file()} << "sallyport-tun-undo 1 boot " << boot << " netns 0\n"
                        << "ipv4/ip_early_demux=7\n";
  SysctlKeeper keeper{file()};
  EXPECT_TRUE(keeper.changed().empty());
  EXPECT_NE(keeper.original("ipv4/ip_early_demux"), "7");
  keeper.forget();
  EXPECT_FALSE(std::filesystem::exists(file()));
}

SteeringInput6 gateway6() {
  SteeringInput6 input;
  input.device = "sp0";
  input.device_index = 9;
  input.network = gateway().network;
  input.network.lan[0].addresses = {*Address::parse("2001:db8:1::1"), *Address::parse("fe80::1")};
  input.network.lan[0].prefixes.push_back(*Prefix::parse("2001:db8:1::/64"));
  input.network.untranslated = {*Prefix::parse("2001:db8:8::/64"), *Prefix::parse("10.8.0.0/24")};
  return input;
}

TEST(Steering6, IsSortedAndHoldsNothingOfIpv4) {
  const Steering6 steering = steer(gateway6());
  EXPECT_TRUE(std::is_sorted(steering.rules.begin(), steering.rules.end()));
  EXPECT_EQ(std::adjacent_find(steering.rules.begin(), steering.rules.end()), steering.rules.end());
  EXPECT_TRUE(std::is_sorted(steering.routes.begin(), steering.routes.end()));
  for (const Rule6& rule : steering.rules) {
    EXPECT_FALSE(rule.from.address.is_v4());
    EXPECT_FALSE(rule.to.address.is_v4());
  }
}

TEST(Steering6, WhateverEntersByLanOrWanEndsInABlackhole) {
  const Steering6 steering = steer(gateway6());
  for (const char* interface : {"lan0", "wan0"}) {
    const auto last = std::find_if(steering.rules.rbegin(), steering.rules.rend(),
                                   [&](const Rule6& rule) { return rule.iif == interface; });
    ASSERT_NE(last, steering.rules.rend());
    EXPECT_EQ(last->action, RuleAction::blackhole) << interface;
    EXPECT_EQ(last->from, Net6{});
    EXPECT_EQ(last->to, Net6{});
  }
}

TEST(Steering6, WhatWasALanIsReachedFromNoWanAndReachesNone) {
  auto input = gateway6();
  const Net6 former = Net6::of(*Prefix::parse("2001:db8:7::/64"));
  input.former_lans = {*Prefix::parse("2001:db8:7::/64")};
  const Steering6 steering = steer(input);
  EXPECT_EQ(inside_networks(steering.rules), std::vector<Net6>{former});
  EXPECT_TRUE(std::any_of(steering.rules.begin(), steering.rules.end(), [&](const Rule6& rule) {
    return rule.iif == "wan0" && rule.to == former && rule.action == RuleAction::blackhole;
  }));
}

TEST(Steering6, WithoutTheDeviceOnlyBlackholesStand) {
  auto input = gateway6();
  input.device_index = 0;
  for (const Route6& route : steer(input).routes) EXPECT_NE(route.kind, RouteKind::unicast);
}

TEST(Net6, ClearsHostBits) {
  EXPECT_EQ(Net6::of(*Prefix::parse("2001:db8:1:2fff::9/51")).address, *Address::parse("2001:db8:1:2000::"));
  EXPECT_EQ(Net6::of({*Address::parse("2001:db8::9"), 128}).address, *Address::parse("2001:db8::9"));
  EXPECT_EQ(Net6::of({*Address::parse("2001:db8::9"), 0}), Net6{});
}

}  // namespace
}  // namespace sallyport::nat::tun
