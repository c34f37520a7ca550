#include "src/client/netcheck/report.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

namespace sallyport::client::netcheck {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;
using wire::MappingFailure;
using State = NetcheckReport::State;
using namespace std::chrono_literals;

Address address(const char* text) { return *Address::parse(text); }
ExternalEndpoint at(const char* text, std::uint32_t port) { return {address(text), *Port::from(port)}; }

/// What is seen, told in the order in which it happens.
class Network {
 public:
  Network() {
    seen_.port = Port::from(22000);
    seen_.paths.push_back(
        {.interface = "eth0", .local = address("192.168.1.20"), .gateway = address("192.168.1.1")});
  }
  Network& own_address(const char* text) { return path().local = address(text), *this; }
  Network& no_default_route() { return path().gateway.reset(), path().routed = false, *this; }
  Network& point_to_point() { return path().gateway.reset(), path().interface = "ppp0", *this; }
  Network& no_ipv4() { return seen_.paths.clear(), *this; }
  Network& tcp() { return seen_.transport = Transport::tcp, *this; }
  Network& answers(Protocol by, const char* with = "") { return path().answers.push_back({by, with}), *this; }
  Network& tells(const char* text) { return path().gateway_external = address(text), *this; }
  Network& grants(const char* text, std::uint32_t port = 40000, Protocol by = Protocol::pcp) {
    path().mapping.granted.emplace(Granted{by, at(text, port)});
    return path().answers.empty() ? answers(by) : *this;
  }
  Network& refuses(MappingFailure why, unsigned code = 0, Protocol by = Protocol::pcp) {
    path().mapping.refused.push_back({by, why, code});
    return path().answers.empty() ? answers(by) : *this;
  }
  Network& helper() { return seen_.helper = "stun.example.net:3478", *this; }
  Network& helper_sees(const char* text) { return path().seen.emplace(at(text, 50001)), helper(); }
  Network& probe_arrives(bool stranger = true) {
    path().probe = {Probe::State::arrived, 40ms, "198.51.100.20:3479", stranger};
    return *this;
  }
  Network& probe_is_silent() { return path().probe = {Probe::State::silent, 3000ms, {}, false}, *this; }
  Network& helper_cannot_probe() { return path().probe.state = Probe::State::not_supported, *this; }
  Network& another_path(const char* interface, const char* local, const char* gateway) {
    seen_.paths.push_back({.interface = interface, .local = address(local), .gateway = address(gateway)});
    return *this;
  }
  Network& ipv6(const char* text) { return seen_.ipv6.addresses.push_back(address(text)), *this; }
  Network& pinhole(const char* text) {
    seen_.ipv6.pinhole.granted.emplace(Granted{Protocol::pcp, at(text, 22000)});
    return *this;
  }
  Network& refuses_pinhole(MappingFailure why, unsigned code = 0) {
    return seen_.ipv6.pinhole.refused.push_back({Protocol::pcp, why, code}), *this;
  }
  Network& ipv6_probe(Probe probe) { return seen_.ipv6.probe = std::move(probe), *this; }

  NetcheckReport report() const { return netcheck::report(seen_); }

 private:
  Path& path() { return seen_.paths.back(); }
  Observations seen_;
};

State state(const NetcheckReport& report, std::string_view name) {
  for (const auto& stage : report.stages)
    if (stage.name == name) return stage.state;
  ADD_FAILURE() << "no stage " << name;
  return State::skipped;
}
std::string evidence(const NetcheckReport& report, std::string_view name) {
  for (const auto& stage : report.stages)
    if (stage.name == name) return stage.evidence;
  return "";
}
/// The states of network, gateway, mapping, address, second_nat, probe, ipv6: y, n, u (unknown) or -
/// (skipped).
std::string states(const NetcheckReport& report) {
  std::string out;
  for (const auto& stage : report.stages) out += "ynu-"[static_cast<std::size_t>(stage.state)];
  return out;
}

TEST(NetcheckReport, HasAllStagesInOneOrderWhateverWasSeen) {
  for (const auto& report :
       {Network{}.report(), Network{}.no_ipv4().report(), Network{}.grants("203.0.114.7").report()}) {
    std::vector<std::string> names;
    for (const auto& stage : report.stages) names.push_back(stage.name);
    EXPECT_THAT(names, testing::ElementsAre("network", "gateway", "mapping", "address", "second_nat", "probe",
                                            "ipv6"));
  }
}

TEST(NetcheckReport, IsReachableWhenAPacketFromOutsideArrived) {
  const auto report = Network{}.grants("203.0.114.7").helper_sees("203.0.114.7").probe_arrives().report();
  EXPECT_EQ(report.verdict, Verdict::reachable);
  EXPECT_EQ(states(report), "yyyynyn");
  EXPECT_EQ(report.summary, "Reachable: a packet from outside arrived by way of 203.0.114.7:40000.");
  EXPECT_EQ(report.advice, "");
  EXPECT_EQ(report.external, at("203.0.114.7", 40000));
  EXPECT_EQ(evidence(report, "network"), "eth0 has 192.168.1.20 and the gateway 192.168.1.1");
  EXPECT_EQ(evidence(report, "mapping"), "PCP opened 203.0.114.7:40000 for udp port 22000");
  EXPECT_EQ(evidence(report, "address"), "the gateway's 203.0.114.7 is public");
  EXPECT_EQ(evidence(report, "second_nat"),
            "the helper stun.example.net:3478 sees 203.0.114.7, which is the gateway's address");
  EXPECT_EQ(
      evidence(report, "probe"),
      "a packet from 198.51.100.20:3479, to which this host never sent, arrived by way of 203.0.114.7:40000");
}

TEST(NetcheckReport, SaysOfAPacketWhetherAStrangerSentIt) {
  const auto report =
      Network{}.grants("203.0.114.7").helper_sees("203.0.114.7").probe_arrives(false).report();
  EXPECT_EQ(report.verdict, Verdict::reachable);
  EXPECT_THAT(evidence(report, "probe"), Not(HasSubstr("never sent")));
}

TEST(NetcheckReport, IsOnlyLikelyReachableWithoutAHelperAndSaysWhatItCannotKnow) {
  const auto report = Network{}.grants("203.0.114.7").report();
  EXPECT_EQ(report.verdict, Verdict::likely_reachable);
  EXPECT_EQ(states(report), "yyyyuun");
  EXPECT_EQ(evidence(report, "second_nat"), "no helper outside was given that could tell");
  EXPECT_EQ(evidence(report, "probe"), "no helper outside was given that could tell");
  EXPECT_THAT(report.summary,
              AllOf(StartsWith("Most likely reachable: 203.0.114.7:40000"), HasSubstr("has tried it")));
  EXPECT_THAT(report.advice, HasSubstr("RFC 5780"));
  EXPECT_EQ(report.external, at("203.0.114.7", 40000));
}

TEST(NetcheckReport, IsLikelyReachableWhenTheHelperDoesNotAnswer) {
  const auto report = Network{}.grants("203.0.114.7").helper().report();
  EXPECT_EQ(report.verdict, Verdict::likely_reachable);
  EXPECT_EQ(states(report), "yyyyuun");
  EXPECT_EQ(evidence(report, "probe"), "the helper stun.example.net:3478 did not answer");
  EXPECT_THAT(report.advice, StartsWith("The helper did not answer"));
}

TEST(NetcheckReport, IsLikelyReachableWhenTheHelperSeesTheSameAddressAndCannotProbe) {
  const auto report =
      Network{}.grants("203.0.114.7").helper_sees("203.0.114.7").helper_cannot_probe().report();
  EXPECT_EQ(report.verdict, Verdict::likely_reachable);
  EXPECT_EQ(states(report), "yyyynun");
  EXPECT_THAT(report.summary, HasSubstr("which is what the outside sees"));
  EXPECT_THAT(evidence(report, "probe"), HasSubstr("RESPONSE-PORT"));
}

TEST(NetcheckReport, SaysThatTcpCannotBeTriedFromOutside) {
  const auto report = Network{}.tcp().grants("203.0.114.7").helper_sees("203.0.114.7").report();
  EXPECT_EQ(report.verdict, Verdict::likely_reachable);
  EXPECT_EQ(states(report), "yyyynun");
  EXPECT_THAT(evidence(report, "probe"), HasSubstr("UDP only"));
  EXPECT_EQ(evidence(report, "mapping"), "PCP opened 203.0.114.7:40000 for tcp port 22000");
}

TEST(NetcheckReport, FindsAFirewallAheadWhenThePacketDoesNotArrive) {
  const auto report = Network{}.grants("203.0.114.7").helper_sees("203.0.114.7").probe_is_silent().report();
  EXPECT_EQ(report.verdict, Verdict::blocked_ahead);
  EXPECT_EQ(states(report), "yyyynnn");
  EXPECT_EQ(report.summary,
            "Not reachable: 203.0.114.7:40000 is open at the gateway, but a packet from outside did not "
            "arrive within 3 s.");
  EXPECT_THAT(report.advice, AllOf(HasSubstr("this host's own firewall"), HasSubstr("udp port 22000"),
                                   HasSubstr("provider")));
}

TEST(NetcheckReport, ConfirmsASecondNatByWhatTheHelperSees) {
  const auto report = Network{}.grants("10.0.0.2").helper_sees("203.0.114.7").probe_is_silent().report();
  EXPECT_EQ(report.verdict, Verdict::double_nat);
  EXPECT_EQ(states(report), "yyynynn");
  EXPECT_EQ(report.summary,
            "Not reachable: the gateway's address is 10.0.0.2, the internet sees 203.0.114.7: another NAT "
            "stands in between.");
  EXPECT_EQ(report.advice, "Make the outer router a bridge, or forward udp port 40000 in it to 10.0.0.2.");
}

TEST(NetcheckReport, SuspectsASecondNatFromAPrivateAddressAlone) {
  for (const auto& report :
       {Network{}.grants("10.0.0.2").report(), Network{}.grants("10.0.0.2").helper().report(),
        Network{}.grants("198.18.0.2").report()}) {
    EXPECT_EQ(report.verdict, Verdict::double_nat);
    EXPECT_EQ(states(report), "yyynuun");
    EXPECT_THAT(evidence(report, "second_nat"), StartsWith("suspected"));
    EXPECT_THAT(report.summary, StartsWith("Most likely not reachable: "));
  }
}

TEST(NetcheckReport, ConfirmsASecondNatThatHidesBehindAPublicAddressAndThinksOfAVpn) {
  const auto report = Network{}.grants("203.0.114.7").helper_sees("198.51.100.99").probe_is_silent().report();
  EXPECT_EQ(report.verdict, Verdict::double_nat);
  EXPECT_EQ(states(report), "yyyyynn");
  EXPECT_THAT(report.advice, HasSubstr("VPN"));
}

TEST(NetcheckReport, IsReachableThroughASecondNatThatForwards) {
  const auto report = Network{}.grants("10.0.0.2").helper_sees("203.0.114.7").probe_arrives().report();
  EXPECT_EQ(report.verdict, Verdict::reachable);
  EXPECT_EQ(states(report), "yyynyyn");
  EXPECT_EQ(report.external, at("203.0.114.7", 40000));
}

TEST(NetcheckReport, IsNotReachableFromTheInternetOnlyBecauseAHelperInsideSaysSo) {
  const auto report = Network{}.grants("10.0.0.2").helper_sees("10.0.0.2").probe_arrives().report();
  EXPECT_EQ(report.verdict, Verdict::double_nat);
  EXPECT_EQ(states(report), "yyynuyn");
  EXPECT_THAT(evidence(report, "probe"), HasSubstr("not outside itself"));
  EXPECT_THAT(evidence(report, "second_nat"), HasSubstr("not outside itself"));
}

TEST(NetcheckReport, KnowsTheProvidersNatByItsAddresses) {
  const auto without = Network{}.grants("100.64.0.7").report();
  EXPECT_EQ(without.verdict, Verdict::carrier_nat);
  EXPECT_EQ(states(without), "yyynuun");
  EXPECT_THAT(without.summary, AllOf(StartsWith("Most likely not reachable: "), HasSubstr("100.64.0.7")));
  EXPECT_THAT(without.advice, HasSubstr("provider"));
  const auto with = Network{}.grants("100.64.0.7").helper_sees("203.0.114.7").probe_is_silent().report();
  EXPECT_EQ(with.verdict, Verdict::carrier_nat);
  EXPECT_EQ(states(with), "yyynynn");
  EXPECT_THAT(with.summary, StartsWith("Not reachable: "));
  EXPECT_EQ(Network{}.grants("192.0.0.2").report().verdict, Verdict::carrier_nat);
  EXPECT_EQ(Network{}.own_address("100.64.0.7").report().verdict, Verdict::carrier_nat);
}

TEST(NetcheckReport, TellsWhyTheGatewayRefuses) {
  const auto report = Network{}
                          .refuses(MappingFailure::unsupported, 1)
                          .answers(Protocol::upnp)
                          .refuses(MappingFailure::not_authorized, 606, Protocol::upnp)
                          .tells("203.0.114.7")
                          .report();
  EXPECT_EQ(report.verdict, Verdict::refused);
  EXPECT_EQ(states(report), "yynyu-n");
  EXPECT_EQ(evidence(report, "mapping"),
            "PCP: it does not open ports (code 1); UPnP: its owner does not allow it (code 606)");
  EXPECT_EQ(report.summary,
            "Not opened: the gateway 192.168.1.1 refuses, because its owner does not allow it.");
  EXPECT_THAT(report.advice, AllOf(HasSubstr("settings"), Not(HasSubstr("alone"))));
  ASSERT_EQ(report.paths[0].refusals.size(), 2u);
  EXPECT_EQ(report.paths[0].refusals[1].reason, "not_authorized");
  EXPECT_EQ(report.external, std::nullopt);
}

TEST(NetcheckReport, HasAdviceForEveryReason) {
  std::set<std::string> summaries;
  for (const auto why :
       {MappingFailure::no_answer, MappingFailure::not_authorized, MappingFailure::no_resources,
        MappingFailure::port_taken, MappingFailure::not_possible, MappingFailure::nonsense}) {
    const auto report = Network{}.refuses(why).report();
    EXPECT_EQ(report.verdict, Verdict::refused);
    EXPECT_NE(report.advice, "");
    summaries.insert(report.summary);
  }
  EXPECT_EQ(summaries.size(), 6u);
}

TEST(NetcheckReport, SaysThatAPermissionAloneWouldNotDoBehindAnotherNat) {
  const auto report = Network{}.refuses(MappingFailure::not_authorized, 2).tells("100.64.0.7").report();
  EXPECT_EQ(report.verdict, Verdict::refused);
  EXPECT_THAT(report.advice, AllOf(HasSubstr("settings"), HasSubstr("alone"), HasSubstr("100.64.0.7")));
}

TEST(NetcheckReport, CountsAnAnswerWithoutAMappingAsARefusal) {
  const auto report = Network{}.answers(Protocol::natpmp).tells("203.0.114.7").report();
  EXPECT_EQ(report.verdict, Verdict::refused);
  EXPECT_EQ(states(report), "yynyu-n");
  EXPECT_THAT(report.summary, HasSubstr("does not answer the request"));
}

TEST(NetcheckReport, FindsAGatewayThatIsItselfOffline) {
  const auto report = Network{}.refuses(MappingFailure::no_external_address, 7).report();
  EXPECT_EQ(report.verdict, Verdict::offline);
  EXPECT_EQ(states(report), "yynuu-n");
  EXPECT_EQ(Network{}.grants("169.254.3.4").report().verdict, Verdict::offline);
}

TEST(NetcheckReport, TakesAGatewayThatMapsNothingOnAPrivateAddressForASecondNat) {
  EXPECT_EQ(Network{}.refuses(MappingFailure::no_external_address, 501).tells("10.0.0.2").report().verdict,
            Verdict::double_nat);
  EXPECT_EQ(Network{}.refuses(MappingFailure::no_external_address, 501).tells("100.64.0.7").report().verdict,
            Verdict::carrier_nat);
}

TEST(NetcheckReport, FindsANatBetweenThisHostAndTheGateway) {
  const auto report = Network{}.refuses(MappingFailure::address_mismatch, 12).tells("203.0.114.7").report();
  EXPECT_EQ(report.verdict, Verdict::double_nat);
  EXPECT_EQ(report.summary, "Not opened: a NAT stands between this host and the gateway 192.168.1.1.");
}

TEST(NetcheckReport, FindsNoGatewayThatOpensPorts) {
  const auto nobody = Network{}.report();
  EXPECT_EQ(nobody.verdict, Verdict::no_gateway);
  EXPECT_EQ(states(nobody), "yn----n");
  EXPECT_EQ(evidence(nobody, "gateway"), "192.168.1.1 answers neither PCP nor NAT-PMP nor UPnP");
  EXPECT_EQ(nobody.summary, "Most likely not reachable: the gateway 192.168.1.1 opens no ports when asked.");
  EXPECT_THAT(nobody.advice,
              AllOf(HasSubstr("Switch on"), HasSubstr("forward udp port 22000 to 192.168.1.20")));
  const auto other = Network{}.refuses(MappingFailure::unsupported, 1).report();
  EXPECT_EQ(other.verdict, Verdict::no_gateway);
  EXPECT_EQ(state(other, "gateway"), State::yes);
}

TEST(NetcheckReport, TellsWhatTheHelperSeesWhereNoGatewayAnswers) {
  const auto report = Network{}.helper_sees("203.0.114.7").report();
  EXPECT_EQ(report.verdict, Verdict::no_gateway);
  EXPECT_EQ(states(report), "yn--u-n");
  EXPECT_THAT(evidence(report, "second_nat"), HasSubstr("203.0.114.7"));
}

TEST(NetcheckReport, IsReachableWhereSomebodyForwardsThePortByHand) {
  const auto report = Network{}.helper_sees("203.0.114.7").probe_arrives().report();
  EXPECT_EQ(report.verdict, Verdict::reachable);
  EXPECT_EQ(report.external, at("203.0.114.7", 22000));
}

TEST(NetcheckReport, NeedsNoGatewayOnAPublicAddress) {
  const auto alone = Network{}.own_address("203.0.114.20").report();
  EXPECT_EQ(alone.verdict, Verdict::likely_reachable);
  EXPECT_EQ(states(alone), "yn-yuun");
  EXPECT_THAT(alone.summary, HasSubstr("itself has the public address 203.0.114.20"));
  EXPECT_EQ(alone.external, at("203.0.114.20", 22000));
  const auto shut =
      Network{}.own_address("203.0.114.20").helper_sees("203.0.114.20").probe_is_silent().report();
  EXPECT_EQ(shut.verdict, Verdict::blocked_ahead);
  EXPECT_EQ(states(shut), "yn-ynnn");
  const auto open =
      Network{}.own_address("203.0.114.20").helper_sees("203.0.114.20").probe_arrives().report();
  EXPECT_EQ(open.verdict, Verdict::reachable);
  EXPECT_EQ(Network{}.own_address("203.0.114.20").helper_sees("198.51.100.9").report().verdict,
            Verdict::no_gateway);
}

TEST(NetcheckReport, DoesNotGuessTheAddressThatAGatewayKeepsToItself) {
  const auto nobody = Network{}.grants("0.0.0.0").report();
  EXPECT_EQ(nobody.verdict, Verdict::unknown);
  EXPECT_EQ(states(nobody), "yyyuuun");
  EXPECT_EQ(evidence(nobody, "mapping"), "PCP opened external port 40000 for udp port 22000");
  EXPECT_EQ(nobody.external, std::nullopt);
  EXPECT_EQ(Network{}.grants("0.0.0.0").helper_sees("203.0.114.7").probe_is_silent().report().verdict,
            Verdict::blocked_ahead);
  const auto open = Network{}.grants("0.0.0.0").helper_sees("203.0.114.7").probe_arrives().report();
  EXPECT_EQ(open.verdict, Verdict::reachable);
  EXPECT_EQ(open.external, at("203.0.114.7", 40000));
  EXPECT_EQ(Network{}.grants("0.0.0.0").tells("203.0.114.7").report().verdict, Verdict::likely_reachable);
}

TEST(NetcheckReport, FindsNoNetwork) {
  const auto nothing = Network{}.no_ipv4().report();
  EXPECT_EQ(nothing.verdict, Verdict::no_network);
  EXPECT_EQ(states(nothing), "n-----n");
  const auto no_route = Network{}.no_default_route().report();
  EXPECT_EQ(no_route.verdict, Verdict::no_network);
  EXPECT_EQ(evidence(no_route, "network"), "eth0 has 192.168.1.20 and no default route");
  EXPECT_THAT(no_route.summary, HasSubstr("no default route"));
  EXPECT_EQ(Network{}.no_ipv4().ipv6("fe80::1").ipv6("fd00::1").report().verdict, Verdict::no_network);
}

TEST(NetcheckReport, AsksNobodyOnAPointToPointLink) {
  const auto open = Network{}.point_to_point().own_address("203.0.114.20").report();
  EXPECT_EQ(open.verdict, Verdict::likely_reachable);
  EXPECT_EQ(states(open), "y--yuun");
  EXPECT_EQ(evidence(open, "network"), "ppp0 has 203.0.114.20, point-to-point");
  EXPECT_EQ(evidence(open, "gateway"), "ppp0 is point-to-point: there is no gateway to ask");
  EXPECT_EQ(Network{}.point_to_point().own_address("100.64.0.7").report().verdict, Verdict::carrier_nat);
  const auto behind = Network{}.point_to_point().own_address("10.8.0.2").report();
  EXPECT_EQ(behind.verdict, Verdict::no_gateway);
  EXPECT_THAT(behind.summary, HasSubstr("no gateway here"));
}

TEST(NetcheckReport, CountsTheBestOfTwoWaysOut) {
  const auto worse_first = Network{}
                               .grants("10.0.0.2")
                               .another_path("wlan0", "192.168.2.20", "192.168.2.1")
                               .grants("203.0.114.7", 41000, Protocol::upnp)
                               .report();
  EXPECT_EQ(worse_first.verdict, Verdict::likely_reachable);
  EXPECT_EQ(worse_first.external, at("203.0.114.7", 41000));
  ASSERT_EQ(worse_first.paths.size(), 2u);
  EXPECT_EQ(worse_first.paths[0].interface, "wlan0");
  EXPECT_EQ(worse_first.paths[0].via, "upnp");
  EXPECT_EQ(worse_first.paths[1].verdict, Verdict::double_nat);
  EXPECT_EQ(evidence(worse_first, "network"),
            "eth0 has 192.168.1.20 and the gateway 192.168.1.1; wlan0 has 192.168.2.20 and the gateway "
            "192.168.2.1");
  const auto better_first = Network{}
                                .grants("203.0.114.7")
                                .another_path("wlan0", "192.168.2.20", "192.168.2.1")
                                .refuses(MappingFailure::not_authorized, 2)
                                .report();
  EXPECT_EQ(better_first.verdict, Verdict::likely_reachable);
  EXPECT_EQ(better_first.paths[0].interface, "eth0");
  EXPECT_EQ(better_first.paths[1].verdict, Verdict::refused);
}

TEST(NetcheckReport, CallsAPinholeOpenAndNamesItWhereIpv4Fails) {
  const auto report = Network{}.grants("100.64.0.7").ipv6("2a00:1::20").pinhole("2a00:1::20").report();
  EXPECT_EQ(report.verdict, Verdict::carrier_nat);
  EXPECT_EQ(state(report, "ipv6"), State::yes);
  EXPECT_EQ(evidence(report, "ipv6"), "PCP opened [2a00:1::20]:22000; nothing from outside has tried it");
  EXPECT_THAT(report.advice, HasSubstr("Peers that have IPv6 come in at [2a00:1::20]:22000 already."));
  EXPECT_THAT(Network{}.grants("203.0.114.7").ipv6("2a00:1::20").pinhole("2a00:1::20").report().advice,
              Not(HasSubstr("IPv6")));
}

TEST(NetcheckReport, TellsOfIpv6WhatItSawAndNoMore) {
  const auto silent = Network{}.ipv6("2a00:1::20").report();
  EXPECT_EQ(state(silent, "ipv6"), State::unknown);
  EXPECT_THAT(evidence(silent, "ipv6"), HasSubstr("2a00:1::20"));
  const auto refused =
      Network{}.ipv6("2a00:1::20").refuses_pinhole(MappingFailure::not_authorized, 2).report();
  EXPECT_EQ(state(refused, "ipv6"), State::no);
  EXPECT_THAT(evidence(refused, "ipv6"), HasSubstr("does not allow it (code 2)"));
  const auto shut = Network{}
                        .ipv6("2a00:1::20")
                        .pinhole("2a00:1::20")
                        .ipv6_probe({Probe::State::silent, 2500ms, {}})
                        .report();
  EXPECT_EQ(state(shut, "ipv6"), State::no);
  EXPECT_THAT(evidence(shut, "ipv6"), HasSubstr("within 2.5 s"));
  EXPECT_EQ(state(Network{}.ipv6("fd00::20").report(), "ipv6"), State::no);
  EXPECT_EQ(state(Network{}.ipv6("2a00:1::20").refuses_pinhole(MappingFailure::unsupported).report(), "ipv6"),
            State::unknown);
}

TEST(NetcheckReport, JudgesByIpv6WhereThereIsNothingElse) {
  const auto only = [] { return Network{}.no_ipv4().ipv6("2a00:1::20"); };
  EXPECT_EQ(only().report().verdict, Verdict::no_gateway);
  EXPECT_EQ(only().pinhole("2a00:1::20").report().verdict, Verdict::likely_reachable);
  EXPECT_EQ(only().pinhole("2a00:1::20").report().external, at("2a00:1::20", 22000));
  EXPECT_EQ(only()
                .pinhole("2a00:1::20")
                .ipv6_probe({Probe::State::arrived, 5ms, "[2001:db8::1]:3478"})
                .report()
                .verdict,
            Verdict::reachable);
  EXPECT_EQ(only().pinhole("2a00:1::20").ipv6_probe({Probe::State::silent, 3000ms, {}}).report().verdict,
            Verdict::blocked_ahead);
  const auto refused = only().refuses_pinhole(MappingFailure::no_resources, 8).report();
  EXPECT_EQ(refused.verdict, Verdict::refused);
  EXPECT_EQ(states(refused), "y-----n");
}

TEST(NetcheckReport, ShowsNothingThatAGatewayCouldUseToPaintTheTerminal) {
  const auto report =
      Network{}.answers(Protocol::upnp, ("ACME\x1b[2J" + std::string(500, 'x')).c_str()).report();
  EXPECT_EQ(evidence(report, "gateway").find('\x1b'), std::string::npos);
  EXPECT_LT(evidence(report, "gateway").size(), 150u);
  std::string umlauts = "a";
  for (int n = 0; n < 60; ++n) umlauts += "\u00fc";
  EXPECT_THAT(evidence(Network{}.answers(Protocol::upnp, umlauts.c_str()).report(), "gateway"),
              AllOf(HasSubstr("\u00fc..."), Not(HasSubstr("\\x"))));
}

TEST(NetcheckReport, CountsDocumentationAddressesAsPublicAndSaysSo) {
  const auto report = Network{}.grants("203.0.113.7").report();
  EXPECT_EQ(report.verdict, Verdict::likely_reachable);
  EXPECT_THAT(evidence(report, "address"), HasSubstr("counted as public here"));
}

}  // namespace
}  // namespace sallyport::client::netcheck
