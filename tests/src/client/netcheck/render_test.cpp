#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "src/client/netcheck/report.hpp"

namespace sallyport::client::netcheck {
namespace {

using namespace std::chrono_literals;

ExternalEndpoint at(const char* text, std::uint32_t port) {
  return {*Address::parse(text), *Port::from(port)};
}

NetcheckReport full() {
  Path path{.interface = "eth0",
            .local = *Address::parse("192.168.1.20"),
            .gateway = Address::parse("192.168.1.1")};
  path.answers = {{Protocol::pcp, "version 2"}, {Protocol::upnp, "IGD:2, \"ACME\" \\ Router"}};
  path.gateway_external = Address::parse("203.0.114.7");
  path.mapping.granted.emplace(Granted{Protocol::pcp, at("203.0.114.7", 40000)});
  path.mapping.refused = {{Protocol::upnp, wire::MappingFailure::port_taken, 718}};
  path.seen = at("203.0.114.7", 50001);
  path.probe = {Probe::State::arrived, 20ms, "198.51.100.20:3479", true};
  Observations seen;
  seen.port = Port::from(22000);
  seen.helper = "stun.example.net:3478";
  seen.paths = {path};
  seen.ipv6.addresses = {*Address::parse("2001:db8::20")};
  seen.ipv6.pinhole.refused = {{Protocol::pcp, wire::MappingFailure::not_authorized, 2}};
  return report(seen);
}

TEST(NetcheckJson, HasTheFieldsThatItsReadmeLists) {
  const auto json = nlohmann::json::parse(to_json(full()));
  EXPECT_EQ(json["verdict"], "reachable");
  EXPECT_EQ(json["summary"], "Reachable: a packet from outside arrived by way of 203.0.114.7:40000.");
  EXPECT_EQ(json["advice"], nullptr);
  EXPECT_EQ(json["protocol"], "udp");
  EXPECT_EQ(json["port"], 22000);
  EXPECT_EQ(json["external"], (nlohmann::json{{"address", "203.0.114.7"}, {"port", 40000}}));
  EXPECT_EQ(json["helper"], "stun.example.net:3478");
  ASSERT_EQ(json["stages"].size(), 7u);
  EXPECT_EQ(json["stages"][1],
            (nlohmann::json{
                {"name", "gateway"},
                {"state", "yes"},
                {"evidence", "192.168.1.1 answers PCP (version 2) and UPnP (IGD:2, \"ACME\" \\ Router)"}}));
  EXPECT_EQ(json["paths"],
            nlohmann::json::parse(R"([{"verdict":"reachable","interface":"eth0","local":"192.168.1.20",
      "gateway":"192.168.1.1","protocols":["pcp","upnp"],"gateway_external":"203.0.114.7",
      "mapped":{"address":"203.0.114.7","port":40000},"via":"pcp",
      "refusals":[{"via":"upnp","reason":"port_taken","code":718}],
      "seen":{"address":"203.0.114.7","port":50001},"probe":"yes"}])"));
  EXPECT_EQ(json["ipv6"], nlohmann::json::parse(R"({"addresses":["2001:db8::20"],"pinhole":null,"via":null,
      "refusals":[{"via":"pcp","reason":"not_authorized","code":2}],"probe":"skipped"})"));
}

TEST(NetcheckJson, HasAllFieldsAlsoWhereNothingWasSeen) {
  const auto full_json = nlohmann::json::parse(to_json(full()));
  const auto json = nlohmann::json::parse(to_json(report({})));
  for (const auto& [key, value] : full_json.items()) EXPECT_TRUE(json.contains(key)) << key;
  EXPECT_EQ(json["verdict"], "no_network");
  EXPECT_EQ(json["external"], nullptr);
  EXPECT_EQ(json["helper"], nullptr);
  EXPECT_EQ(json["port"], nullptr);
  EXPECT_EQ(json["paths"], nlohmann::json::array());
}

TEST(NetcheckJson, WritesAnAddressThatIsNotKnownAsNull) {
  Path path{.interface = "eth0",
            .local = *Address::parse("192.168.1.20"),
            .gateway = Address::parse("192.168.1.1")};
  path.answers = {{Protocol::upnp, ""}};
  path.mapping.granted.emplace(Granted{Protocol::upnp, at("0.0.0.0", 40000)});
  Observations seen;
  seen.paths = {path};
  const auto json = nlohmann::json::parse(to_json(report(seen)));
  EXPECT_EQ(json["paths"][0]["mapped"], (nlohmann::json{{"address", nullptr}, {"port", 40000}}));
}

TEST(NetcheckJson, IsOneLineOfValidJsonWhateverTheNetworkIsCalled) {
  auto strange = full();
  strange.paths[0].interface = "a\"b\\c\n\x1b\xff\x7f";
  strange.helper = "\xf0\x28";
  const auto text = to_json(strange);
  EXPECT_EQ(text.find('\n'), std::string::npos);
  EXPECT_TRUE(nlohmann::json::accept(text)) << text;
}

TEST(NetcheckText, SaysTheVerdictThenTheEvidence) {
  EXPECT_EQ(to_text(full()),
            "Reachable: a packet from outside arrived by way of 203.0.114.7:40000.\n"
            "\n"
            "  network     yes      eth0 has 192.168.1.20 and the gateway 192.168.1.1; IPv6\n"
            "                       2001:db8::20\n"
            "  gateway     yes      192.168.1.1 answers PCP (version 2) and UPnP (IGD:2,\n"
            "                       \"ACME\" \\ Router)\n"
            "  mapping     yes      PCP opened 203.0.114.7:40000 for udp port 22000\n"
            "  address     yes      the gateway's 203.0.114.7 is public\n"
            "  second NAT  no       the helper stun.example.net:3478 sees 203.0.114.7, which\n"
            "                       is the gateway's address\n"
            "  probe       yes      a packet from 198.51.100.20:3479, to which this host\n"
            "                       never sent, arrived by way of 203.0.114.7:40000\n"
            "  IPv6        no       this host has 2001:db8::20; PCP: its owner does not allow\n"
            "                       it (code 2)\n");
}

TEST(NetcheckText, MarksWhatWasNotLookedAt) {
  EXPECT_THAT(to_text(report({})), testing::HasSubstr("\n  mapping     -\n"));
}

TEST(NetcheckText, FitsEightyColumnsAlsoWithLongWords) {
  auto long_words = full();
  long_words.summary = std::string(200, 'a') + " " + std::string(79, 'b') + " c d";
  long_words.stages[1].evidence = std::string(60, 'x') + " y";
  long_words.advice = "a";
  for (int n = 0; n < 60; ++n) long_words.advice += "\u00fc";  // an odd place to break a line
  std::string joined;
  const auto text = to_text(long_words);
  for (std::size_t from = 0; from < text.size();) {
    const auto end = text.find('\n', from);
    ASSERT_NE(end, std::string::npos);
    EXPECT_LE(end - from, 80u) << text.substr(from, end - from);
    joined += text.substr(from, end - from);
    from = end + 1;
  }
  EXPECT_THAT(joined, testing::HasSubstr(std::string(200, 'a')));
  EXPECT_EQ(text.find("\xc3\n"), std::string::npos);  // no character is cut in two
}

}  // namespace
}  // namespace sallyport::client::netcheck
