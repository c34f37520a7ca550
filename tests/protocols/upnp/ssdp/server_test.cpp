#include "protocols/upnp/ssdp/server.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "tests/protocols/upnp/ssdp/support.hpp"

namespace sallyport::upnp::ssdp {
namespace {

using namespace std::chrono_literals;
using test::field;
using test::octets;
using test::text;
using test::whole_set;

const auto alice = *Address::parse("192.168.1.10");
const auto bob = *Address::parse("192.168.1.11");
const auto alice_link = *Address::parse("fe80::10");
const auto alice_site = *Address::parse("fd00::10");
const auto gateway = *Address::parse("192.168.1.1");
const auto second_gateway = *Address::parse("192.168.2.1");
const auto gateway_link = *Address::parse("fe80::1");
const auto gateway_site = *Address::parse("fd00::1");
const LanAddress lan{3, *Prefix::parse("192.168.1.1/24")};
const LanAddress alias{3, *Prefix::parse("192.168.2.1/24")};
const LanAddress lan_link{3, *Prefix::parse("fe80::1/64")};
const LanAddress lan_site{3, *Prefix::parse("fd00::1/64")};
const LanAddress guest{4, *Prefix::parse("10.0.0.1/8")};

/// Everything the standard wants announced, NT and USN.
const std::multiset<std::pair<std::string, std::string>> igd_names{
    {"upnp:rootdevice", test::root + "::upnp:rootdevice"},
    {test::root, test::root},
    {test::device + "InternetGatewayDevice:2", test::root + "::" + test::device + "InternetGatewayDevice:2"},
    {test::service + "Layer3Forwarding:1", test::root + "::" + test::service + "Layer3Forwarding:1"},
    {test::wan, test::wan},
    {test::device + "WANDevice:2", test::wan + "::" + test::device + "WANDevice:2"},
    {test::service + "WANCommonInterfaceConfig:1", test::wan + "::" + test::service + "WANCommonInterfaceConfig:1"},
    {test::connection, test::connection},
    {test::device + "WANConnectionDevice:2", test::connection + "::" + test::device + "WANConnectionDevice:2"},
    {test::service + "WANIPConnection:2", test::connection + "::" + test::service + "WANIPConnection:2"},
    {test::service + "WANIPv6FirewallControl:1",
     test::connection + "::" + test::service + "WANIPv6FirewallControl:1"},
};

std::string search_for(const std::string& target, const std::string& mx = "MX: 2\r\n") {
  return "M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\n" + mx + "ST: " + target +
         "\r\n\r\n";
}

struct Sent {
  TimePoint at;
  std::string text;
  wire::Outgoing out;
  std::string kind() const {
    const auto nts = field(text, "NTS");
    return nts == "(none)" ? text.substr(0, text.find("\r\n")) : nts.substr(5);
  }
};

class SsdpServer : public testing::Test {
 protected:
  explicit SsdpServer(Server::Options options = standard()) : options_{std::move(options)} {}
  static Server::Options standard() {
    Server::Options options;
    options.system = "Linux/6.1";
    options.product = "Sallyport/1.0";
    options.description_path = "/root.xml";
    return options;
  }
  Server make(std::uint64_t seed, std::uint32_t boot_id = 100) {
    return Server{test::igd(), options_, boot_id,
                  [] { return WallTime{std::chrono::sys_days{std::chrono::year{2026} / 3 / 1}}; }, seed};
  }
  /// Runs until `until`, each deadline at its time.
  std::vector<Sent> run(std::chrono::nanoseconds time) {
    std::vector<Sent> sent;
    const auto end = now + time;
    drain(sent);
    while (const auto due = server.next_deadline()) {
      if (*due > end) break;
      now = std::max(now, *due);
      server.handle_timeout(now);
      drain(sent);
    }
    now = end;
    return sent;
  }
  void drain(std::vector<Sent>& sent) {
    while (auto out = server.poll_transmit()) {
      auto octets_text = text(out->bytes);
      sent.push_back({now, std::move(octets_text), std::move(*out)});
    }
  }
  /// Served on one address and past its first announcements.
  void settle(std::vector<LanAddress> addresses = {lan}) {
    server.set_served(addresses, now);
    run(5s);
  }
  std::vector<Sent> search(const std::string& datagram, const wire::Arrival& arrival = to_group,
                           std::chrono::nanoseconds time = 6s) {
    server.handle_datagram(octets(datagram), arrival, now);
    return run(time);
  }
  static std::vector<std::string> kinds(const std::vector<Sent>& sent) {
    std::vector<std::string> kinds;
    for (const auto& each : sent)
      if (kinds.empty() || kinds.back() != each.kind()) kinds.push_back(each.kind());
    return kinds;
  }
  static std::multiset<std::pair<std::string, std::string>> names(const std::vector<Sent>& sent,
                                                                  const std::string& type = "NT") {
    std::multiset<std::pair<std::string, std::string>> names;
    for (const auto& each : sent) names.emplace(field(each.text, type), field(each.text, "USN"));
    return names;
  }
  /// The messages of one kind, grouped by when they were sent.
  static std::map<TimePoint, std::vector<Sent>> rounds(const std::vector<Sent>& sent, const std::string& kind) {
    std::map<TimePoint, std::vector<Sent>> rounds;
    for (const auto& each : sent)
      if (each.kind() == kind) rounds[each.at].push_back(each);
    return rounds;
  }

  static constexpr std::uint32_t index = 3;
  static const wire::Arrival to_group, to_gateway;
  Server::Options options_;
  TimePoint now{2h};
  Server server = make(1);
};
const wire::Arrival SsdpServer::to_group{alice, 40000, group_v4, index};
const wire::Arrival SsdpServer::to_gateway{alice, 40000, gateway, index};

// UDA-1.2-01, -03, -07, -14, -15, UPNP-X-16
TEST_F(SsdpServer, StartsWithByebyeAndThenThreeSetsOfAlive) {
  const auto start = now;
  server.set_served(std::array{lan}, now);
  const auto sent = run(5s);
  EXPECT_EQ(kinds(sent), (std::vector<std::string>{"byebye", "alive"}));
  const auto byebyes = rounds(sent, "byebye");
  ASSERT_EQ(byebyes.size(), 1U);
  EXPECT_EQ(names(byebyes.begin()->second), igd_names);
  const auto alives = rounds(sent, "alive");
  ASSERT_EQ(alives.size(), 3U);
  auto last = start;
  for (const auto& [at, round] : alives) {
    EXPECT_EQ(names(round), igd_names);
    EXPECT_EQ(round.size(), whole_set);
    if (last == start)
      EXPECT_LE(at - last, 100ms);
    else
      EXPECT_TRUE(at - last >= 200ms && at - last <= 600ms);
    last = at;
  }
}

// UDA-1.2-02, -04, -06, -12, -13
TEST_F(SsdpServer, AnnouncementsLeaveFromTheAddressTheySpeakOfToTheGroup) {
  server.set_served(std::array{lan, guest, lan_link, lan_site}, now);
  std::map<std::string, int> from;
  for (const auto& each : run(100ms)) {
    if (each.kind() != "alive") continue;
    const auto& address = each.out.from;
    ++from[address.to_string()];
    EXPECT_EQ(field(each.text, "LOCATION"), location_url(address, 5000, "/root.xml"));
    EXPECT_EQ(field(each.text, "SERVER"), "Linux/6.1 UPnP/1.1 Sallyport/1.0");
    EXPECT_EQ(field(each.text, "BOOTID.UPNP.ORG"), "100");
    EXPECT_EQ(field(each.text, "CONFIGID.UPNP.ORG"), "4711");
    EXPECT_EQ(field(each.text, "SEARCHPORT.UPNP.ORG"), "(none)") << "unicast searches go to port 1900";
    EXPECT_EQ(each.out.interface, address == guest.address.address ? 4U : 3U);
    EXPECT_EQ(each.out.from_port, 1900);
    EXPECT_EQ(each.out.to_port, 1900);
    const auto* group = address.is_v4() ? "239.255.255.250" : address == gateway_link ? "ff02::c" : "ff05::c";
    EXPECT_EQ(each.out.to.to_string(), group);
    const auto* host = address.is_v4() ? "239.255.255.250:1900" : address == gateway_link ? "[FF02::C]:1900" : "[FF05::C]:1900";
    EXPECT_EQ(field(each.text, "HOST"), host);
  }
  const std::map<std::string, int> all{{"192.168.1.1", whole_set}, {"10.0.0.1", whole_set}, {"fe80::1", whole_set}, {"fd00::1", whole_set}};
  EXPECT_EQ(from, all);
}

// UDA-1.2-05, -08, -11
TEST_F(SsdpServer, AnnouncesAgainAtRandomTimesInTheFirstHalfOfMaxAge) {
  settle();
  std::set<std::chrono::nanoseconds> gaps;
  auto last = now;
  for (const auto& [at, round] : rounds(run(20h), "alive")) {
    EXPECT_EQ(names(round), igd_names);
    EXPECT_EQ(field(round[0].text, "BOOTID.UPNP.ORG"), "100");
    EXPECT_EQ(field(round[0].text, "CACHE-CONTROL"), "max-age=1800");
    EXPECT_LE(at - last, 900s);
    gaps.insert(at - last);
    last = at;
  }
  EXPECT_LE(now - last, 900s);
  EXPECT_GT(gaps.size(), 100U) << "the times are random";
  EXPECT_GT(*gaps.rbegin(), 450s);
}

// a machine that slept, or a loop that was late, catches up with one set
TEST_F(SsdpServer, ALateRefreshIsSentOnce) {
  settle();
  now += 24h;
  server.handle_timeout(now);
  std::vector<Sent> sent;
  drain(sent);
  EXPECT_EQ(sent.size(), whole_set);
}

TEST_F(SsdpServer, SaysNothingWithoutAnAddress) {
  EXPECT_FALSE(server.next_deadline());
  server.set_served({}, now);
  EXPECT_TRUE(search(search_for("ssdp:all")).empty());
  server.set_served(std::array{LanAddress{0, lan.address}}, now);  // an interface that does not exist
  EXPECT_TRUE(run(1h).empty());
  server.stop();
  EXPECT_TRUE(run(1h).empty());
}

// UDA-1.2-09
TEST_F(SsdpServer, AnOrderlyEndSaysByebyeForEveryAliveAndThenNothing) {
  settle({lan, lan_link});
  server.handle_datagram(octets(search_for("ssdp:all")), to_group, now);
  server.stop();
  const auto sent = run(10h);
  EXPECT_EQ(kinds(sent), std::vector<std::string>{"byebye"});
  EXPECT_EQ(sent.size(), 2 * 2 * whole_set);
  std::multiset<std::pair<std::string, std::string>> expected;
  for (int i = 0; i < 4; ++i) expected.insert(igd_names.begin(), igd_names.end());
  EXPECT_EQ(names(sent), expected);
  EXPECT_EQ(field(sent[0].text, "BOOTID.UPNP.ORG"), "100");
  EXPECT_TRUE(search(search_for("ssdp:all")).empty());
  server.set_served(std::array{lan, guest}, now);
  EXPECT_TRUE(run(10h).empty());
}

// UDA-1.2-10, -11
TEST_F(SsdpServer, ANewAddressRaisesTheBootIdWithUpdatesFirst) {
  settle();
  server.set_served(std::array{lan, guest}, now);
  EXPECT_EQ(server.boot_id(), 101U);
  const auto sent = run(5s);
  EXPECT_EQ(kinds(sent), (std::vector<std::string>{"update", "alive"}));
  const auto updates = rounds(sent, "update");
  ASSERT_EQ(updates.size(), 1U);
  EXPECT_EQ(names(updates.begin()->second), igd_names);
  for (const auto& update : updates.begin()->second) {
    EXPECT_EQ(update.out.from, gateway) << "only where the old number is known";
    EXPECT_EQ(field(update.text, "BOOTID.UPNP.ORG"), "100");
    EXPECT_EQ(field(update.text, "NEXTBOOTID.UPNP.ORG"), "101");
  }
  const auto alives = rounds(sent, "alive");
  ASSERT_EQ(alives.size(), 3U);
  for (const auto& [at, round] : alives) {
    EXPECT_EQ(round.size(), 2 * whole_set);
    for (const auto& alive : round) EXPECT_EQ(field(alive.text, "BOOTID.UPNP.ORG"), "101");
  }
}

TEST_F(SsdpServer, AnotherAddressInPlaceOfTheOldOneIsAnnouncedWithAHigherBootId) {
  settle();
  server.set_served(std::array{alias}, now);
  const auto sent = run(5s);
  EXPECT_EQ(kinds(sent), std::vector<std::string>{"alive"});
  for (const auto& each : sent) {
    EXPECT_EQ(each.out.from, second_gateway);
    EXPECT_EQ(field(each.text, "BOOTID.UPNP.ORG"), "101");
  }
}

TEST_F(SsdpServer, AnInterfaceThatIsServedNoMoreHearsByebye) {
  settle({lan, alias, guest});
  server.set_served(std::array{lan}, now);
  const auto sent = run(5s);
  EXPECT_EQ(kinds(sent), std::vector<std::string>{"byebye"});
  for (const auto& each : sent) EXPECT_EQ(each.out.interface, 4U) << "an alias that goes takes no device with it";
  EXPECT_EQ(server.boot_id(), 100U);
  server.set_served(std::array{lan, guest}, now);
  EXPECT_EQ(kinds(run(5s)), (std::vector<std::string>{"update", "alive"}));
}

TEST_F(SsdpServer, EqualAddressesAgainChangeNothing) {
  settle({lan, guest});
  const auto due = server.next_deadline();
  server.set_served(std::array{guest, lan, lan}, now);
  EXPECT_TRUE(run(1s).empty());
  EXPECT_EQ(server.next_deadline(), due);
  EXPECT_EQ(server.boot_id(), 100U);
}

// interfaces come one after the other when a gateway boots: nobody knows the first number yet
TEST_F(SsdpServer, AddressesThatComeBeforeTheFirstAliveShareItsBootId) {
  server.set_served(std::array{lan}, now);
  server.set_served(std::array{lan, guest}, now);
  EXPECT_EQ(server.boot_id(), 100U);
  EXPECT_EQ(kinds(run(5s)), (std::vector<std::string>{"byebye", "alive"}));
}

TEST_F(SsdpServer, ComesBackAfterItHadNoAddressForAWhile) {
  settle();
  server.set_served({}, now);
  EXPECT_EQ(kinds(run(10h)), std::vector<std::string>{"byebye"});
  EXPECT_FALSE(server.next_deadline());
  server.set_served(std::array{lan}, now);
  const auto sent = run(5s);
  EXPECT_EQ(kinds(sent), std::vector<std::string>{"alive"});
  EXPECT_EQ(field(sent.at(0).text, "BOOTID.UPNP.ORG"), "101");
}

// UDA-1.2-11: behind the last 31-bit number the device leaves and comes back
TEST_F(SsdpServer, BootIdHas31Bits) {
  server = make(1, 0xffffffff);
  settle();
  EXPECT_EQ(server.boot_id(), 0x7fffffffU);
  server.set_served(std::array{lan, guest}, now);
  const auto sent = run(5s);
  EXPECT_EQ(kinds(sent), (std::vector<std::string>{"byebye", "alive"}));
  EXPECT_EQ(field(sent.back().text, "BOOTID.UPNP.ORG"), "0");
}

// UDA-1.2-12, IGD-08
TEST_F(SsdpServer, AnotherTreeReplacesTheOldOne) {
  settle();
  server.handle_datagram(octets(search_for("ssdp:all")), to_group, now);
  auto tree = test::igd();
  for (auto& device : tree.devices) device.version = 1;
  for (auto& service : tree.services) service.version = 1;
  tree.config_id = 4712;
  server.set_tree(tree, now);
  const auto sent = run(6s);
  EXPECT_EQ(kinds(sent), (std::vector<std::string>{"byebye", "alive"})) << "no answer about what is gone";
  EXPECT_EQ(names(rounds(sent, "byebye").begin()->second), igd_names);
  EXPECT_EQ(field(sent.front().text, "CONFIGID.UPNP.ORG"), "4711");
  EXPECT_EQ(field(sent.back().text, "CONFIGID.UPNP.ORG"), "4712");
  EXPECT_EQ(field(sent.back().text, "BOOTID.UPNP.ORG"), "101");
  const auto igd = test::device + "InternetGatewayDevice:";
  EXPECT_EQ(search(search_for(igd + "1")).size(), 1U);
  EXPECT_EQ(search(search_for(igd + "2")).size(), 0U);
}

// UPNP-X-11
class SsdpServer10 : public SsdpServer {
 protected:
  static Server::Options old() {
    auto options = standard();
    options.version = Version::uda_1_0;
    return options;
  }
  SsdpServer10() : SsdpServer(old()) {}
};
TEST_F(SsdpServer10, SendsNothingThatUpnp10DoesNotKnow) {
  server.set_served(std::array{lan}, now);
  auto sent = run(5s);
  server.set_served(std::array{lan, guest}, now);
  for (auto& each : run(5s)) sent.push_back(each);
  for (auto& each : search(search_for("ssdp:all"))) sent.push_back(each);
  EXPECT_EQ(kinds(sent), (std::vector<std::string>{"byebye", "alive", "HTTP/1.1 200 OK"}));
  for (const auto& each : sent) {
    EXPECT_EQ(each.text.find(".UPNP.ORG"), std::string::npos) << each.text;
    if (each.kind() != "byebye") {
      EXPECT_EQ(field(each.text, "SERVER"), "Linux/6.1 UPnP/1.0 Sallyport/1.0");
    }
  }
}

// UDA-1.3-03, -06, UPNP-X-15
TEST_F(SsdpServer, AnswersGoToTheSourceOfTheSearchFromTheGatewaysAddress) {
  settle();
  const auto sent = search(search_for("upnp:rootdevice"), {alice, 49999, group_v4, index});
  ASSERT_EQ(sent.size(), 1U);
  const auto& [at, answer, out] = sent[0];
  EXPECT_EQ(out.to, alice);
  EXPECT_EQ(out.to_port, 49999);
  EXPECT_EQ(out.from, gateway);
  EXPECT_EQ(out.from_port, 1900);
  EXPECT_EQ(out.interface, index);
  EXPECT_EQ(answer,
            "HTTP/1.1 200 OK\r\n"
            "CACHE-CONTROL: max-age=1800\r\n"
            "DATE: Sun, 01 Mar 2026 00:00:00 GMT\r\n"
            "EXT:\r\n"
            "LOCATION: http://192.168.1.1:5000/root.xml\r\n"
            "SERVER: Linux/6.1 UPnP/1.1 Sallyport/1.0\r\n"
            "ST: upnp:rootdevice\r\n"
            "USN: " + test::root + "::upnp:rootdevice\r\n"
            "BOOTID.UPNP.ORG: 100\r\n"
            "CONFIGID.UPNP.ORG: 4711\r\n"
            "\r\n");
}

// UDA-1.3-07, UPNP-X-16
TEST_F(SsdpServer, EverythingIs3And2ForEachDeviceAnd1ForEachServiceType) {
  settle();
  const auto sent = search(search_for("ssdp:all"));
  EXPECT_EQ(sent.size(), whole_set);
  EXPECT_EQ(names(sent, "ST"), igd_names);
}

TEST_F(SsdpServer, AServiceTypeThatADeviceHasTwiceIsToldOnceInItsHighestVersion) {
  auto tree = test::igd();
  tree.services.push_back({test::service + "WANIPConnection", 1, 2});
  tree.services.push_back({test::service + "Layer3Forwarding", 3, 0});
  server.set_tree(tree, now);
  settle();
  EXPECT_EQ(search(search_for("ssdp:all")).size(), whole_set);
  EXPECT_EQ(search(search_for(test::service + "WANIPConnection:2")).size(), 1U);
  EXPECT_EQ(search(search_for(test::service + "Layer3Forwarding:3")).size(), 1U);
}

// UDA-1.3-08..12, -17, UPNP-X-03
TEST_F(SsdpServer, AnswersWhatItHasInTheVersionThatWasAskedFor) {
  settle();
  struct Row {
    std::string asked, st, usn;
  };
  const auto igd = test::device + "InternetGatewayDevice:";
  const auto wic = test::service + "WANIPConnection:";
  const Row rows[] = {
      {"upnp:rootdevice", "upnp:rootdevice", test::root + "::upnp:rootdevice"},
      {test::root, test::root, test::root},
      {test::wan, test::wan, test::wan},
      {"uuid:4D696E69-444C-164E-9D41-000000000003", test::connection, test::connection},
      {igd + "1", igd + "1", test::root + "::" + igd + "1"},
      {igd + "2", igd + "2", test::root + "::" + igd + "2"},
      {wic + "1", wic + "1", test::connection + "::" + wic + "1"},
      {wic + "2", wic + "2", test::connection + "::" + wic + "2"},
      {test::device + "WANConnectionDevice:1", test::device + "WANConnectionDevice:1",
       test::connection + "::" + test::device + "WANConnectionDevice:1"},
  };
  for (const auto& row : rows) {
    const auto sent = search(search_for("  " + row.asked + "\t"));
    ASSERT_EQ(sent.size(), 1U) << row.asked;
    EXPECT_EQ(field(sent[0].text, "ST"), row.st);
    EXPECT_EQ(field(sent[0].text, "USN"), row.usn);
  }
  const std::string none[] = {
      igd + "3", igd + "0", igd + "01", igd + "", igd + "1 ", igd + "x", igd + "11111111111111111111", igd + "-1",
      igd + "1:1", test::device + "InternetGatewayDevice", test::device + "internetgatewaydevice:1",
      test::device + "MediaServer:1", test::service + "WANPPPConnection:1", wic + "3",
      test::service + "WANIPv6FirewallControl:2", "uuid:4d696e69-444c-164e-9d41-000000000004", "uuid:", "UUID" + test::root.substr(4),
      test::root + "::upnp:rootdevice", "upnp:RootDevice", "SSDP:ALL", "ssdp:alll", ":", "::", ":1", "upnp:rootdevice:1"};
  for (const auto& target : none) {
    const auto asked = target.ends_with(' ') ? target + "x" : target;
    EXPECT_TRUE(search(search_for(asked)).empty()) << target;
  }
  EXPECT_TRUE(search(search_for("urn:schemas-upnp-org:device:WANDevice:2:")).empty());
}

// POL-DSC-03: what comes back is the server's own text
TEST_F(SsdpServer, AnswersNeverCopyWhatWasSent) {
  settle();
  const auto sent = search(search_for("uuid:4D696E69-444C-164E-9D41-000000000001"));
  ASSERT_EQ(sent.size(), 1U);
  EXPECT_EQ(sent[0].text.find("4D696E69"), std::string::npos);
}

// UDA-1.3-02, -20, -01, POL-DSC-02, -03
TEST_F(SsdpServer, DropsMulticastSearchesThatAreNotAsUdaWantsThem) {
  settle();
  for (const auto* mx : {"", "MX: 0\r\n", "MX: -1\r\n", "MX: soon\r\n", "MX:\r\n"})
    EXPECT_TRUE(search(search_for("ssdp:all", mx)).empty()) << mx;
  auto no_man = search_for("ssdp:all");
  no_man.replace(no_man.find("MAN: \"ssdp:discover\"\r\n"), 22, "");
  EXPECT_TRUE(search(no_man).empty());
  EXPECT_TRUE(search(no_man, to_gateway).empty());
  EXPECT_TRUE(search(search_for(std::string(257, 'u'))).empty());
  EXPECT_TRUE(search(search_for("ssdp:all", "MX: 2\r\nX: " + std::string(2048, 'x') + "\r\n")).empty());
  EXPECT_TRUE(search(search_for("ssdp:all"), {alice, 0, group_v4, index}).empty()) << "port 0 cannot be answered";
  EXPECT_EQ(server.counts().answered, 0U);
  EXPECT_EQ(search(search_for("ssdp:all")).size(), whole_set);
}

// UDA-1.3-05
TEST_F(SsdpServer, AUnicastSearchNeedsNoMxAndIsAnsweredAtOnce) {
  settle({lan, alias});
  for (const auto* mx : {"", "MX: 5\r\n", "MX: soon\r\n"}) {
    const auto start = now;
    const auto sent = search(search_for("upnp:rootdevice", mx), {alice, 40000, second_gateway, index});
    ASSERT_EQ(sent.size(), 1U) << mx;
    EXPECT_LE(sent[0].at - start, 1s);
    EXPECT_EQ(sent[0].out.from, second_gateway) << "from where it was asked";
    EXPECT_EQ(field(sent[0].text, "LOCATION"), "http://192.168.2.1:5000/root.xml");
  }
}

// UDA-1.3-03, -04
TEST_F(SsdpServer, AnswersAreSpreadAtRandomOverMx) {
  settle();
  for (const auto& [mx, limit] : {std::pair{"MX: 1\r\n", 1s}, {"MX: 4\r\n", 4s}, {"MX: 5\r\n", 5s}, {"MX: 120\r\n", 5s}}) {
    const auto start = now;
    std::set<TimePoint> times;
    for (const auto& each : search(search_for("ssdp:all", mx), to_group, 200s))
      if (each.kind() != "alive") times.insert(each.at);
    EXPECT_EQ(times.size(), whole_set) << "each answer has a delay of its own";
    EXPECT_LT(*times.rbegin() - start, limit) << mx;
    EXPECT_GT(*times.rbegin() - start, limit / 4) << mx;
  }
}

TEST_F(SsdpServer, TheSeedDecidesTheTimes) {
  const auto times = [&](std::uint64_t seed) {
    server = make(seed);
    now = TimePoint{2h};
    std::vector<TimePoint> sent_at;
    server.set_served(std::array{lan}, now);
    server.handle_datagram(octets(search_for("ssdp:all")), to_group, now);
    for (const auto& each : run(3h)) sent_at.push_back(each.at);
    return sent_at;
  };
  EXPECT_EQ(times(7), times(7));
  EXPECT_NE(times(7), times(8));
}

TEST_F(SsdpServer, AfterAMulticastTheAddressOfTheSearchersSubnetAnswers) {
  settle({lan, alias, guest, lan_site, lan_link});
  struct Row {
    const char* source;
    Address group;
    std::uint32_t interface;
    const char* from;
  };
  const Row rows[] = {
      {"192.168.1.10", group_v4, 3, "192.168.1.1"}, {"192.168.2.10", group_v4, 3, "192.168.2.1"},
      {"192.168.77.1", group_v4, 3, "192.168.1.1"},  // routed behind the LAN
      {"10.9.9.9", group_v4, 4, "10.0.0.1"},        {"fe80::10", group_link(), 3, "fe80::1"},
      {"fd00::10", group_link(), 3, "fd00::1"},     {"fd00::10", group_site(), 3, "fd00::1"},
      {"2001:db8::1", group_site(), 3, "fd00::1"},  {"fe80::10", group_site(), 3, "fe80::1"},
  };
  for (const auto& row : rows) {
    const auto sent = search(search_for("upnp:rootdevice"), {*Address::parse(row.source), 40000, row.group, row.interface});
    ASSERT_EQ(sent.size(), 1U) << row.source;
    EXPECT_EQ(sent[0].out.from.to_string(), row.from) << row.source;
    EXPECT_EQ(sent[0].out.interface, row.interface);
    EXPECT_EQ(field(sent[0].text, "LOCATION"), location_url(*Address::parse(row.from), 5000, "/root.xml"));
  }
}

// UDA-1.3-14, POL-WHO-01, -03: the transport sees to it, and nothing here answers from elsewhere
TEST_F(SsdpServer, IsSilentOnInterfacesAndAddressesThatItDoesNotServe) {
  settle({lan});
  EXPECT_TRUE(search(search_for("ssdp:all"), {alice, 40000, group_v4, 9}).empty());
  EXPECT_TRUE(search(search_for("ssdp:all"), {alice, 40000, second_gateway, index}).empty());
  EXPECT_TRUE(search(search_for("ssdp:all"), {alice, 40000, *Address::parse("239.255.255.251"), index}).empty());
  EXPECT_TRUE(search(search_for("ssdp:all"), {alice_link, 40000, group_link(), index}).empty());
  EXPECT_TRUE(search(search_for("ssdp:all"), {alice_site, 40000, gateway_site, index}).empty());
}

TEST_F(SsdpServer, AnswersThatWaitForAnAddressThatWentAreNotSent) {
  settle({lan, guest});
  server.handle_datagram(octets(search_for("ssdp:all", "MX: 5\r\n")), to_group, now);
  server.set_served(std::array{guest}, now);
  for (const auto& each : run(6s)) EXPECT_NE(each.kind(), "HTTP/1.1 200 OK");
  EXPECT_EQ(server.waiting(), 0U);
}

// POL-DSC-04, POL-WHO-04
TEST_F(SsdpServer, AnnouncementsAndAnswersOfOthersLeaveNothing) {
  settle();
  const auto due = server.next_deadline();
  const std::string others[] = {
      "NOTIFY * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nNT: upnp:rootdevice\r\nNTS: ssdp:alive\r\nMAN: "
      "\"ssdp:discover\"\r\nMX: 1\r\nST: ssdp:all\r\nUSN: uuid:x::upnp:rootdevice\r\n\r\n",
      "HTTP/1.1 200 OK\r\nST: ssdp:all\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nHOST: x\r\n\r\n"};
  for (const auto& other : others) {
    EXPECT_TRUE(search(other, to_group, 0s).empty());
    EXPECT_TRUE(search(other, to_gateway, 0s).empty());
  }
  EXPECT_EQ(server.next_deadline(), due);
  EXPECT_EQ(server.counts().searches, 0U);
  EXPECT_EQ(server.counts().unsound, 4U);
}

// POL-QTA-10, POL-DSC-01
TEST_F(SsdpServer, OfOneSource30SearchesAtOnceAreAnsweredAndOthersNotTheLess) {
  settle();
  for (int i = 0; i < 1000; ++i) server.handle_datagram(octets(search_for("upnp:rootdevice")), to_group, now);
  EXPECT_EQ(server.waiting(), 30U);
  server.handle_datagram(octets(search_for("upnp:rootdevice")), {bob, 40000, group_v4, index}, now);
  EXPECT_EQ(server.waiting(), 31U);
  EXPECT_EQ(run(3s).size(), 31U);
  EXPECT_EQ(server.counts().over_limit, 970U);
  EXPECT_EQ(search(search_for("upnp:rootdevice")).size(), 1U);
}

TEST_F(SsdpServer, AnotherLimitHoldsFromThenOn) {
  settle();
  const auto ask = [&](int searches) {
    for (int i = 0; i < searches; ++i) server.handle_datagram(octets(search_for("upnp:rootdevice")), to_group, now);
    return server.waiting();
  };
  const SearchLimit::Options strict{.per_second = 1, .burst = 3, .total_per_second = 100};
  server.set_limit(strict);
  EXPECT_EQ(ask(10), 3U);
  server.set_limit(strict);  // the same one again pardons nothing
  EXPECT_EQ(ask(10), 3U);
  server.set_limit({.per_second = 0});
  EXPECT_EQ(ask(20), 23U);
}

TEST_F(SsdpServer, SearchesForWhatOthersHaveCostNothing) {
  settle();
  for (int i = 0; i < 1000; ++i)
    server.handle_datagram(octets(search_for(test::device + "MediaServer:1")), to_group, now);
  EXPECT_EQ(search(search_for("ssdp:all")).size(), whole_set);
  EXPECT_EQ(server.counts().over_limit, 0U);
}

// POL-DSC-01, UDA-1.3-16, POL-WHO-05
TEST_F(SsdpServer, AnswersToABurstStayBelowTenTimesItsOctets) {
  settle();
  for (const auto* mx : {"MX: 1\r\n", "MX: 5\r\n", ""}) {
    std::size_t heard = 0, said = 0;
    for (int i = 0; i < 30; ++i) {
      const auto datagram = search_for("ssdp:all", mx);
      heard += datagram.size();
      for (const auto& each : search(datagram, *mx == '\0' ? to_gateway : to_group, 0s)) said += each.text.size();
    }
    for (const auto& each : run(6s)) said += each.text.size();
    EXPECT_GE(said, whole_set * 300U);
    EXPECT_LT(said, 10 * heard) << mx;
    run(60s);
  }
}

class SsdpServerWithoutRates : public SsdpServer {
 protected:
  static Server::Options unlimited() {
    auto options = standard();
    options.limit.per_second = 0;
    return options;
  }
  SsdpServerWithoutRates() : SsdpServer(unlimited()) {}
};

// POL-DSC-02
TEST_F(SsdpServerWithoutRates, AtMost64AnswersOfASourceAnd1024InAllWait) {
  settle();
  for (int i = 0; i < 100; ++i) server.handle_datagram(octets(search_for("upnp:rootdevice")), to_group, now);
  EXPECT_EQ(server.waiting(), 64U);
  for (std::uint32_t host = 20; host < 120; ++host)
    for (int i = 0; i < 10; ++i)
      server.handle_datagram(octets(search_for("ssdp:all")), {Address::v4(0xc0a80100 + host), 40000, group_v4, index}, now);
  EXPECT_LE(server.waiting(), 1024U);
  EXPECT_GT(server.waiting(), 1024U - whole_set) << "whole sets only";
  run(3s);
  EXPECT_EQ(server.waiting(), 0U);
  EXPECT_EQ(search(search_for("ssdp:all")).size(), whole_set);
}

// POL-DSC-03
TEST_F(SsdpServerWithoutRates, AMessageHasAtMost1024Octets) {
  Tree tree;
  const auto uuid = [](char c) { return "uuid:" + std::string(63, c); };
  const auto type = [](char c) { return "urn:" + std::string(124, c); };
  tree.devices = {{uuid('a'), type('A'), 9999}, {uuid('b'), type('B'), 9999}};
  tree.services = {{type('C'), 9999, 0}, {type('D'), 9999, 1}};
  options_.system = std::string(60, 's');
  options_.product = std::string(60, 'p');
  options_.description_path = "/" + std::string(60, 'd');
  server = make(1, 0x7ffffff0);
  server.set_tree(tree, now);
  const LanAddress longest{3, *Prefix::parse("2001:db8:1111:2222:3333:4444:5555:6666/64")};
  server.set_served(std::array{longest}, now);
  auto sent = run(5s);
  server.set_served(std::array{longest, lan}, now);
  for (auto& each : run(5s)) sent.push_back(each);
  const auto answers = search(search_for("ssdp:all"), {*Address::parse("2001:db8:1111:2222::1"), 9, group_site(), 3});
  EXPECT_EQ(answers.size(), 3U + 2 + 2);
  for (const auto& each : answers) sent.push_back(each);
  for (const auto& each : sent) EXPECT_LE(each.text.size(), 1024U);
}

}  // namespace
}  // namespace sallyport::upnp::ssdp
