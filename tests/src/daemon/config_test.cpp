#include "src/daemon/config.hpp"

#include <fstream>
#include <sstream>

namespace sallyport::daemon {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

std::vector<std::string> problems(const std::string& text, const Flags& flags = {}) {
  return load_config({{"a.toml", text}}, flags).problems;
}
Config config(const std::string& text, const Flags& flags = {}) {
  auto loaded = load_config({{"a.toml", text}}, flags);
  EXPECT_THAT(loaded.problems, IsEmpty());
  return loaded.config;
}

struct Row {
  const char* text;
  const char* problem;
};

// architecture.md: an unknown key is an error; POL-RUN-03: file, line, column and what was expected
const Row rows[] = {
    // the form of the file
    {"[listen\n", "a.toml:1:8: not TOML: "},
    {"[limits]\nleases_per_devise = 1\n",
     "a.toml:2:1: limits.leases_per_devise: unknown key; did you mean leases_per_device?"},
    {"[limitz]\n", "a.toml:1:2: limitz: unknown key; did you mean limits?"},
    {"colour = 1\n",
     "a.toml:1:1: colour: unknown key, expected one of admin, engine, filtering, lifetimes, limits, listen, "
     "log, "
     "policy, static, store"},
    {"listen = 3\n", "a.toml:1:10: listen: found 3, expected a [listen] table"},
    {"[log]\nlevel = \"info\"\nlevel = \"warn\"\n", "a.toml:3:9: not TOML: "},
    // listen
    {"[listen]\nlan = \"br0\"\n",
     "a.toml:2:7: listen.lan: found \"br0\", expected a list of strings, each the name of a network "
     "interface (1 to 15 "
     "characters)"},
    {"[listen]\nlan = [\"br0\", 7]\n",
     "a.toml:2:15: listen.lan: found 7, expected the name of a network interface (1 to 15 characters)"},
    {"[listen]\nlan = [\"a-name-of-sixteen\"]\n",
     "a.toml:2:8: listen.lan: found \"a-name-of-sixteen\", expected the name of a network interface (1 to 15 "
     "characters)"},
    {"[listen]\nlan = [\"br0\", \"br0\"]\n", "a.toml:2:15: listen.lan: \"br0\" stands twice in this list"},
    {"[listen]\nlan = []\n", "a.toml:2:7: listen.lan: found an empty list, expected at least one interface"},
    {"[listen]\nwan = []\n", "a.toml:2:7: listen.wan: found an empty list, expected at least one interface"},
    {"[listen]\nlan = [\"eth0\"]\nwan = [\"eth0\"]\n",
     "a.toml:3:7: listen.wan: found \"eth0\", which is a LAN interface too; an interface is one or the "
     "other"},
    {"[listen]\nlan_prefixes = \"all\"\n",
     "a.toml:2:16: listen.lan_prefixes: found \"all\", expected \"auto\" or a list of IPv4 prefixes such as "
     "\"192.168.1.0/24\""},
    {"[listen]\nlan_prefixes = [\"192.168.1.0/33\"]\n",
     "a.toml:2:17: listen.lan_prefixes: found \"192.168.1.0/33\", expected an IPv4 prefix such as "
     "\"192.168.1.0/24\""},
    {"[listen]\nlan_prefixes = [\"fd00::/8\"]\n",
     "a.toml:2:17: listen.lan_prefixes: found \"fd00::/8\", expected an IPv4 prefix such as "
     "\"192.168.1.0/24\""},
    {"[listen]\ncontrol = \"none\"\n",
     "a.toml:2:11: listen.control: found \"none\", expected \"all\" or a list of LAN interfaces"},
    {"[listen]\ncontrol = [\"br7\"]\n",
     "a.toml:2:11: listen.control: found \"br7\", expected an interface out of listen.lan"},
    {"[listen]\nprotocols = [\"pcp\", \"igd\"]\n",
     "a.toml:2:21: listen.protocols: found \"igd\", expected \"pcp\", \"natpmp\" or \"upnp\""},
    {"[listen]\nhttp_port = 0\n",
     "a.toml:2:13: listen.http_port: found 0, expected an integer from 1 to 65535"},
    {"[listen]\nhttp_port = 65536\n",
     "a.toml:2:13: listen.http_port: found 65536, expected an integer from 1 to 65535"},
    {"[listen]\nigd_version = 3\n",
     "a.toml:2:15: listen.igd_version: found 3, expected an integer from 1 to 2"},
    {"[listen]\nuda_version = \"1.2\"\n",
     "a.toml:2:15: listen.uda_version: found \"1.2\", expected \"1.1\" or \"1.0\""},
    {"[listen]\nmulticast_ttl = 0\n",
     "a.toml:2:17: listen.multicast_ttl: found 0, expected an integer from 1 to 255"},
    {"[[listen.interface]]\nprotocols = [\"pcp\"]\n",
     "a.toml:1:1: listen.interface.name: missing, expected the name of a network interface (1 to 15 "
     "characters)"},
    {"[[listen.interface]]\nname = \"br7\"\n",
     "a.toml:2:8: listen.interface.name: found \"br7\", expected an interface out of listen.lan"},
    {"[[listen.interface]]\nname = \"br0\"\n[[listen.interface]]\nname = \"br0\"\n",
     "a.toml:3:1: listen.interface.name: \"br0\" is described twice"},
    {"[[listen.interface]]\nname = \"br0\"\nport = 1\n",
     "a.toml:3:1: listen.interface.port: unknown key, expected one of name, protocols"},
    // engine
    {"[engine]\ndata_plane = \"kernel\"\n",
     "a.toml:2:14: engine.data_plane: found \"kernel\", expected \"auto\", \"tun\" or \"ebpf\""},
    {"[engine]\nexternal_addresses = [\"127.0.0.1\"]\n",
     "a.toml:2:23: engine.external_addresses: found \"127.0.0.1\", expected an IPv4 address that a host can "
     "have"},
    {"[engine]\nexternal_addresses = [\"203.0.113.1\", \"203.0.113.1\"]\n",
     "a.toml:2:38: engine.external_addresses: \"203.0.113.1\" stands twice in this list"},
    {"[engine]\npool = \"60999-1024\"\n",
     "a.toml:2:8: engine.pool: found \"60999-1024\", expected a port or a range of ports such as "
     "\"1024-65535\""},
    {"[engine]\npool = \"1-65535\"\n", "a.toml:2:8: engine.pool: found 1, expected ports from 1024 up"},
    {"[engine]\nno_translate = [\"10.8.0.0/\"]\n",
     "a.toml:2:17: engine.no_translate: found \"10.8.0.0/\", expected an IPv4 prefix such as "
     "\"10.8.0.0/16\""},
    {"[engine]\nmss_clamp = 100\n",
     "a.toml:2:13: engine.mss_clamp: found 100, expected \"auto\", \"off\" or an integer from 536 to 65495"},
    {"[engine]\nipv6 = \"off\"\n", "a.toml:2:8: engine.ipv6: found \"off\", expected true or false"},
    {"[engine]\nredirect = 1\n", "a.toml:2:12: engine.redirect: found 1, expected true or false"},
    {"[engine]\ntun_queues = 65\n",
     "a.toml:2:14: engine.tun_queues: found 65, expected an integer from 0 to 64"},
    {"[engine]\ntcp_established = 0\n",
     "a.toml:2:19: engine.tcp_established: found 0, expected an integer from 1 to 31536000"},
    {"[engine]\nudp_idle = 1.5\n",
     "a.toml:2:12: engine.udp_idle: found a number with a fraction, expected an integer from 1 to 31536000"},
    {"[engine]\nicmp_query = \"60\"\n",
     "a.toml:2:14: engine.icmp_query: found \"60\", expected an integer from 1 to 31536000"},
    {"[engine]\ntcp_transitory = -1\n",
     "a.toml:2:18: engine.tcp_transitory: found -1, expected an integer from 1 to 31536000"},
    // admin, log
    {"[admin]\nsocket = \"admin.sock\"\n",
     "a.toml:2:10: admin.socket: found \"admin.sock\", expected an absolute path of at most 107 octets"},
    {"[log]\nlevel = \"loud\"\n",
     "a.toml:2:9: log.level: found \"loud\", expected \"trace\", \"debug\", \"info\", \"warn\" or \"error\""},
    // static
    {"[[static]]\nexternal = 443\ninternal = \"192.168.1.5:8443\"\n",
     "a.toml:1:1: static.protocol: missing, expected \"tcp\" or \"udp\""},
    {"[[static]]\nprotocol = \"icmp\"\nexternal = 443\ninternal = \"192.168.1.5:8443\"\n",
     "a.toml:2:12: static.protocol: found \"icmp\", expected \"tcp\" or \"udp\""},
    {"[[static]]\nprotocol = \"tcp\"\nexternal = 443\ninternal = \"192.168.1.5\"\n",
     "a.toml:4:12: static.internal: found \"192.168.1.5\", expected an address and a port such as "
     "\"192.168.1.5:8443\" or \"[2001:db8::5]:8443\""},
    {"[[static]]\nprotocol = \"tcp\"\nexternal = 443\ninternal = \"224.0.0.1:80\"\n",
     "a.toml:4:12: static.internal: found \"224.0.0.1:80\", expected an address and a port such as "
     "\"192.168.1.5:8443\" or \"[2001:db8::5]:8443\""},
    {"[[static]]\nprotocol = \"tcp\"\nexternal = 70000\ninternal = \"192.168.1.5:80\"\n",
     "a.toml:3:12: static.external: found 70000, expected an integer from 1 to 65535"},
    {"[[static]]\nprotocol = \"udp\"\nexternal = 5351\ninternal = \"192.168.1.5:80\"\n",
     "a.toml:1:1: static.external: found 5351, which is a control port of the gateway"},
    {"[[static]]\nprotocol = \"tcp\"\nexternal = 443\ninternal = \"192.168.1.5:80\"\n"
     "[[static]]\nprotocol = \"tcp\"\nexternal = 443\ninternal = \"192.168.1.6:80\"\n",
     "a.toml:5:1: static.external: found 443, but that tcp port is given to 192.168.1.5:80 at a.toml:1:1"},
    {"[[static]]\nprotocol = \"tcp\"\ninternal = \"[fe80::5]:80\"\n",
     "a.toml:3:12: static.internal: found \"[fe80::5]:80\", expected an address and a port such as "
     "\"192.168.1.5:8443\" or \"[2001:db8::5]:8443\""},
    {"[[static]]\nprotocol = \"tcp\"\ninternal = \"2001:db8::5:80\"\n",
     "a.toml:3:12: static.internal: found \"2001:db8::5:80\", expected an address and a port such as "
     "\"192.168.1.5:8443\" or \"[2001:db8::5]:8443\""},
    {"[[static]]\nprotocol = \"tcp\"\nexternal = 443\ninternal = \"[2001:db8::5]:8443\"\n",
     "a.toml:3:12: static.external: found 443, but IPv6 is not translated: leave it out, or 8443"},
    {"[[static]]\nprotocol = \"tcp\"\ninternal = \"[2001:db8::5]:80\"\n"
     "[[static]]\nprotocol = \"tcp\"\ninternal = \"[2001:db8::5]:80\"\n",
     "a.toml:4:1: static.external: found 80, but that tcp port is given to [2001:db8::5]:80 at a.toml:1:1"},
    {"static = 5\n", "a.toml:1:10: static: found 5, expected [[static]] tables"},
    // policy
    {"[policy]\nlist = \"mine\"\n", "a.toml:2:8: policy.list: found \"mine\", expected \"all\" or \"own\""},
    {"[policy]\nthird_party = [\"nas\"]\n",
     "a.toml:2:16: policy.third_party: found \"nas\", expected an address or prefix such as "
     "\"192.168.1.2\""},
    {"[policy]\nexternal_ports = 1024\n",
     "a.toml:2:18: policy.external_ports: found 1024, expected a port or a range of ports such as "
     "\"1024-65535\""},
    {"[policy]\nupnp_internal_ports = \"0-5\"\n",
     "a.toml:2:23: policy.upnp_internal_ports: found \"0-5\", expected a port or a range of ports such as "
     "\"1024-65535\""},
    {"[policy]\nreserved_ports = [2222]\n",
     "a.toml:2:19: policy.reserved_ports: found 2222, expected a protocol and a port such as \"tcp/2222\""},
    {"[policy]\nreuse_delay = -5\n",
     "a.toml:2:15: policy.reuse_delay: found -5, expected an integer from 0 to 31536000"},
    {"[policy]\nreuse_strict = \"no\"\n",
     "a.toml:2:16: policy.reuse_strict: found \"no\", expected true or false"},
    {"[[policy.rule]]\ndevice = \"10.0.0.5\"\n",
     "a.toml:1:1: policy.rule.action: missing, expected \"allow\" or \"deny\""},
    {"[[policy.rule]]\naction = \"drop\"\n",
     "a.toml:2:10: policy.rule.action: found \"drop\", expected \"allow\" or \"deny\""},
    {"[[policy.rule]]\naction = \"deny\"\nexternal = \"80,,443\"\n",
     "a.toml:3:12: policy.rule.external: found \"80,,443\", expected ports and ranges such as "
     "\"80,443,8000-8100\""},
    {"[[policy.rule]]\naction = \"deny\"\ndevice = \"xbox\"\n",
     "a.toml:3:10: policy.rule.device: found \"xbox\", expected an address or prefix such as "
     "\"10.0.0.5\""},
    // limits
    {"[limits]\nleases_per_device = 4294967296\n",
     "a.toml:2:21: limits.leases_per_device: found 4294967296, expected an integer from 0 to 4294967295"},
    {"[limits]\nrequests_per_second = true\n",
     "a.toml:2:23: limits.requests_per_second: found true, expected an integer from 0 to 1000000000"},
    {"[limits]\ndescription = 2000\n",
     "a.toml:2:15: limits.description: found 2000, expected an integer from 0 to 1016"},
    {"[limits]\nhttp_head = [1]\n",
     "a.toml:2:13: limits.http_head: found a list, expected an integer from 0 to 4294967295"},
    // lifetimes
    {"[lifetimes]\npcp_min = 0\n",
     "a.toml:2:11: lifetimes.pcp_min: found 0, expected an integer from 1 to 4294967295"},
    {"[lifetimes]\npcp_max = 60\n",
     "a.toml:2:11: lifetimes.pcp_min: found 120, expected at most lifetimes.pcp_max, which is 60"},
    {"[lifetimes]\nsubscription = 90000\n",
     "a.toml:2:16: lifetimes.subscription: found 90000, expected at most lifetimes.subscription_max, which "
     "is 86400"},
    {"[lifetimes]\nnatpmp_max = 1979-05-27\n",
     "a.toml:2:14: lifetimes.natpmp_max: found a date or time, expected an integer from 1 to 4294967295"},
    // filtering, store
    {"[filtering]\nimplicit = \"any\"\n",
     "a.toml:2:12: filtering.implicit: found \"any\", expected \"endpoint\", \"address\" or "
     "\"address_and_port\""},
    {"[filtering]\nended_leases = \"kill\"\n",
     "a.toml:2:16: filtering.ended_leases: found \"kill\", expected \"reset\" or \"drain\""},
    {"[filtering]\nfragment_timeout = 3601\n",
     "a.toml:2:20: filtering.fragment_timeout: found 3601, expected an integer from 1 to 3600"},
    {"[store]\ndir = \"state\"\n", "a.toml:2:7: store.dir: found \"state\", expected an absolute path"},
    {"[store]\non_error = \"panic\"\n",
     "a.toml:2:12: store.on_error: found \"panic\", expected \"refuse\" or \"memory\""},
    {"[store]\nsync = \"\\u001b[31m\"\n",
     "a.toml:2:8: store.sync: found \"\\x1b[31m\", expected true or false"},
};

TEST(Config, SaysWhereWhatIsWrongAndWhatWasExpected) {
  for (const auto& row : rows) {
    const auto found = problems(row.text);
    ASSERT_EQ(found.size(), 1u) << row.text << testing::PrintToString(found);
    if (std::string_view{row.problem}.ends_with("TOML: "))
      EXPECT_THAT(found.front(), testing::StartsWith(row.problem)) << row.text;
    else
      EXPECT_EQ(found.front(), row.problem);
  }
}

TEST(Config, ReportsEveryProblemAtOnce) {
  EXPECT_EQ(problems("[limits]\nhttp_body = \"x\"\nwrong = 1\n[log]\nlevel = 5\n").size(), 3u);
}

TEST(Config, MoreAddressesThanThereIsRoomForAreTooMany) {  // N6888-03
  std::string list;
  for (int i = 1; i <= 33; ++i)
    list += (list.empty() ? "\"203.0.113." : ", \"203.0.113.") + std::to_string(i) + '"';
  EXPECT_THAT(problems("[engine]\nexternal_addresses = [" + list + "]\n"),
              ElementsAre("a.toml:2:22: engine.external_addresses: found 33 addresses, expected at most 32"));
}

TEST(Config, NothingWrittenMeansTheDefaults) {
  const auto defaults = config("");
  EXPECT_THAT(defaults.listen.lan, ElementsAre("br0"));
  EXPECT_EQ(defaults.lease_policy().leases_per_device, 1024u);
  EXPECT_EQ(defaults.plane_policy().pool, (PortRange{1024, 60999}));
  EXPECT_FALSE(defaults.lease_policy().grant_without_store);
}

std::string read_example(const char* name) {
  std::ifstream file{std::string{EXAMPLES} + '/' + name};
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

TEST(Config, AStaticMappingOfAnIpv6HostIsAtItsOwnPort) {
  const auto six = config(
      "[engine]\nipv6 = false\n[[static]]\nprotocol = \"tcp\"\ninternal = \"[2001:db8::5]:5000\"\n"
      "[[static]]\nprotocol = \"tcp\"\ninternal = \"[2001:db8::6]:5000\"\nexternal = 5000\n"
      "[policy]\nthird_party = [\"2001:db8::/64\"]\n[[policy.rule]]\ndevice = \"2001:db8::7\"\naction = "
      "\"deny\"\n");
  ASSERT_EQ(six.statics.size(), 2u);
  EXPECT_EQ(to_string(six.statics[0].internal), "[2001:db8::5]:5000")
      << "no port of the gateway's own is meant";
  EXPECT_EQ(six.statics[0].external.number(), 5000);
  EXPECT_TRUE(six.policy.third_party[0].contains(*Address::parse("2001:db8::9")));
  EXPECT_EQ(six.policy.rules[0].device->to_string(), "2001:db8::7/128");
  EXPECT_FALSE(six.lease_policy().ipv6);
  EXPECT_FALSE(six.plane_policy().ipv6);
  EXPECT_TRUE(config("").lease_policy().ipv6);
}

// policy.md, section 15: no limit is 0; what PCP can carry is kept
TEST(Config, NoLimitOfADescriptionIsThatOfPcp) {
  EXPECT_EQ(config("").lease_policy().description_octets, 255u);
  EXPECT_EQ(config("[limits]\ndescription = 0\n").lease_policy().description_octets, 1016u);
}

// What the sample says the defaults are is what they are: written out or left out, each key gives the same.
TEST(Config, TheSampleHoldsEveryKeyWithItsDefault) {
  const auto text = read_example("sallyport.toml");
  const auto sample = config(text);
  const auto defaults = config("");
  EXPECT_EQ(sample.plane_policy(), defaults.plane_policy());
  EXPECT_EQ(sample.network_wishes(), defaults.network_wishes());
  EXPECT_EQ(sample.listen.protocols, defaults.listen.protocols);
  EXPECT_EQ(sample.listen.control, defaults.listen.control);
  EXPECT_EQ(sample.admin.socket, defaults.admin.socket);
  EXPECT_EQ(sample.log.level, defaults.log.level);
  EXPECT_EQ(sample.store.dir, defaults.store.dir);
  EXPECT_EQ(sample.store.on_error_memory, defaults.store.on_error_memory);
  EXPECT_EQ(sample.policy.list_own, defaults.policy.list_own);
  EXPECT_EQ(sample.policy.external_ports, defaults.policy.external_ports);
  EXPECT_EQ(sample.filtering.ended_leases, defaults.filtering.ended_leases);
  EXPECT_EQ(std::memcmp(&sample.limits, &defaults.limits, sizeof sample.limits), 0);
  EXPECT_EQ(sample.lifetimes.upnp_max, defaults.lifetimes.upnp_max);
  // every key that the reader knows stands in it: a file with one unknown key in each table is told all of
  // them
  for (const char* table :
       {"listen", "engine", "admin", "log", "policy", "limits", "lifetimes", "filtering", "store"}) {
    const auto told = problems('[' + std::string{table} + "]\nzzzzzzzzzzzz = 1\n");
    ASSERT_EQ(told.size(), 1u);
    std::istringstream words{told.front().substr(told.front().find("one of ") + 7)};
    for (std::string word; words >> word;) {
      if (word.ends_with(',')) word.pop_back();
      const bool is_table = word == "interface" || word == "rule";
      EXPECT_THAT(text,
                  HasSubstr(is_table ? "#[[" + std::string{table} + '.' + word + "]]" : '\n' + word + " = "));
    }
  }
}

TEST(Config, TheSamplesCommentedTablesAreRightToo) {
  auto text = read_example("sallyport.toml");
  for (const char* line : {"#[[", "#name", "#protocols", "#protocol", "#external", "#internal",
                           "#description", "#device", "#action"})
    for (std::size_t at = 0; (at = text.find('\n' + std::string{line}, at)) != std::string::npos;)
      text.erase(at + 1, 1);
  Flags flags;
  flags.lan = {"br0", "br1"};
  const auto sample = config(text, flags);
  ASSERT_EQ(sample.statics.size(), 2u);
  EXPECT_EQ(to_string(sample.statics[0].internal), "192.168.1.5:8443");
  EXPECT_EQ(to_string(sample.statics[1].internal), "[2001:db8::5]:8443");
  ASSERT_EQ(sample.policy.rules.size(), 1u);
  EXPECT_THAT(sample.policy.rules[0].external,
              ElementsAre(PortRange{80, 80}, PortRange{443, 443}, PortRange{8000, 8100}));
  EXPECT_FALSE(sample.policy.rules[0].allow);
  EXPECT_FALSE(sample.speaks(Protocol::natpmp, "br1"));
  EXPECT_TRUE(sample.speaks(Protocol::pcp, "br1"));
}

TEST(Config, EveryKeyReachesItsRoom) {
  const auto found = config(R"(
[listen]
lan = ["lan0", "lan1"]
wan = ["wan0"]
lan_prefixes = ["10.0.0.0/8"]
http_port = 49152
uda_version = "1.0"
multicast_ttl = 4
anycast = false
[engine]
external_addresses = ["198.51.100.4"]
pool = "2000-3000"
no_translate = ["10.8.0.0/16"]
mss_clamp = "off"
tcp_established = 8000
tcp_transitory = 1
tcp_half_open = 9
random_ports = true
ipv6 = false
udp_idle = 2
icmp_query = 3
[policy]
third_party = ["10.0.0.2"]
external_ports = "5000"
reserved_ports = ["tcp/2222", "udp/53-54"]
reuse_delay = 9
reuse_strict = true
[[policy.rule]]
device = "10.0.0.5"
external = 80
action = "allow"
[limits]
leases_per_device = 11
leases_total = 12
ports_per_set = 32
mappings_per_device = 13
new_mappings_per_second = 31
flows_per_device = 14
flows_total = 15
icmp_ids_per_device = 16
fragments_per_source = 17
fragments_total = 18
description = 19
[lifetimes]
pcp_min = 21
pcp_max = 22
natpmp_max = 23
[filtering]
implicit = "endpoint"
answer_ping = false
icmp_to_lan = false
icmp_to_wan = false
drop_private_wan_sources = true
fragment_timeout = 24
ended_leases = "drain"
[store]
on_error = "memory"
)");
  const auto wishes = found.network_wishes();
  EXPECT_THAT(wishes.lan, ElementsAre("lan0", "lan1"));
  EXPECT_THAT(wishes.wan, ElementsAre("wan0"));
  EXPECT_THAT(wishes.lan_prefixes, ElementsAre(*Prefix::parse("10.0.0.0/8")));
  EXPECT_THAT(wishes.external_addresses, ElementsAre(*Address::parse("198.51.100.4")));
  EXPECT_THAT(wishes.no_translate, ElementsAre(*Prefix::parse("10.8.0.0/16")));

  const auto plane = found.plane_policy();
  EXPECT_EQ(plane.pool, (PortRange{2000, 3000}));
  EXPECT_EQ(plane.mss_clamp, 0u);
  EXPECT_EQ(plane.tcp_established.count(), 8000);
  EXPECT_EQ(plane.tcp_transitory.count(), 1);
  EXPECT_EQ(plane.tcp_half_open.count(), 9);
  EXPECT_TRUE(plane.random_ports);
  EXPECT_FALSE(plane.ipv6);
  EXPECT_EQ(plane.udp_idle.count(), 2);
  EXPECT_EQ(plane.icmp_query.count(), 3);
  EXPECT_EQ(plane.reuse_delay.count(), 9);
  EXPECT_TRUE(plane.reuse_strict);
  EXPECT_EQ(plane.mappings_per_device, 13u);
  EXPECT_EQ(plane.new_mappings_per_second, 31u);
  EXPECT_EQ(plane.flows_per_device, 14u);
  EXPECT_EQ(plane.flows_total, 15u);
  EXPECT_EQ(plane.icmp_ids_per_device, 16u);
  EXPECT_EQ(plane.fragments_per_source, 17u);
  EXPECT_EQ(plane.fragments_total, 18u);
  EXPECT_EQ(plane.implicit, nat::Filtering::endpoint);
  EXPECT_FALSE(plane.answer_ping || plane.icmp_to_lan || plane.icmp_to_wan);
  EXPECT_TRUE(plane.drop_private_wan_sources);
  EXPECT_EQ(plane.fragment_timeout.count(), 24);
  const auto reserved = [&](Transport transport, std::uint32_t port) {
    return std::ranges::count(plane.reserved, std::pair{transport, *Port::from(port)}) == 1;
  };
  // POL-TGT-05: the control ports are nobody's
  EXPECT_TRUE(reserved(Transport::tcp, 2222) && reserved(Transport::udp, 53) && reserved(Transport::udp, 54));
  EXPECT_TRUE(reserved(Transport::udp, 5350) && reserved(Transport::udp, 5351) &&
              reserved(Transport::udp, 1900));
  EXPECT_TRUE(reserved(Transport::tcp, 49152));

  EXPECT_FALSE(found.listen.anycast);
  EXPECT_EQ(found.listen.uda_minor, 0u);
  EXPECT_EQ(found.listen.multicast_ttl, 4u);

  const auto leases = found.lease_policy();
  EXPECT_THAT(leases.third_party, ElementsAre(*Prefix::parse("10.0.0.2")));
  EXPECT_EQ(leases.external_ports, (PortRange{5000, 5000}));
  EXPECT_EQ(leases.leases_per_device, 11u);
  EXPECT_EQ(leases.leases_total, 12u);
  EXPECT_EQ(leases.ports_per_set, 32u);
  EXPECT_EQ(leases.description_octets, 19u);
  EXPECT_EQ(leases.pcp_min, 21u);
  EXPECT_EQ(leases.pcp_max, 22u);
  EXPECT_EQ(leases.natpmp_max, 23u);
  EXPECT_EQ(leases.ended_leases, nat::Ending::drain);
  EXPECT_TRUE(leases.reuse_strict);
  EXPECT_TRUE(leases.grant_without_store);
  ASSERT_EQ(leases.rules.size(), 1u);
  EXPECT_EQ(leases.rules[0].device, *Prefix::parse("10.0.0.5"));
  EXPECT_TRUE(leases.rules[0].allow);
  EXPECT_EQ(leases.rules[0].where, "a.toml:28");
}

TEST(Config, LaterFilesOverrideKeysAndAddTables) {
  const auto loaded =
      load_config({{"a.toml",
                    "[log]\nlevel = \"warn\"\n[limits]\nleases_total = 5\n[[static]]\nprotocol "
                    "= \"tcp\"\nexternal = 443\ninternal = \"10.0.0.5:443\"\n"},
                   {"b.toml",
                    "[log]\nlevel = \"debug\"\n[[static]]\nprotocol = \"udp\"\nexternal = "
                    "443\ninternal = \"10.0.0.5:443\"\n"}});
  EXPECT_THAT(loaded.problems, IsEmpty());
  EXPECT_EQ(loaded.config.log.level, "debug");
  EXPECT_EQ(loaded.config.limits.leases_total, 5u);
  EXPECT_EQ(loaded.config.statics.size(), 2u);
  const auto clash =
      load_config({{"a.toml", "[listen]\nlan = [\"x0\"]\n"}, {"b.toml", "\n[listen]\nwan = [\"x0\"]\n"}});
  EXPECT_THAT(clash.problems, ElementsAre(HasSubstr("b.toml:3:7: listen.wan: ")));
}

TEST(Config, FlagsBeatFiles) {
  Flags flags;
  flags.lan = {"lan0", "lan1"};
  flags.wan = "wan0";
  flags.external_addresses = {"203.0.113.7"};
  flags.data_plane = "tun";
  flags.state_dir = "state";
  flags.admin_socket = "admin.sock";
  flags.log_level = "trace";
  const auto found = config("[listen]\nlan = [\"wan0\"]\nwan = [\"eth5\"]\n[store]\ndir = \"/x\"\n", flags);
  EXPECT_THAT(found.listen.lan, ElementsAre("lan0", "lan1"));
  EXPECT_THAT(found.listen.wan, ElementsAre("wan0"));
  EXPECT_THAT(found.engine.external_addresses, ElementsAre(*Address::parse("203.0.113.7")));
  EXPECT_EQ(found.engine.data_plane, PlaneChoice::tun);
  EXPECT_EQ(found.store.dir, "state");
  EXPECT_EQ(found.admin.socket, "admin.sock");
  EXPECT_EQ(found.log.level, "trace");
}

TEST(Config, BadFlagsAreToldApart) {
  Flags flags;
  flags.external_addresses = {"203.0.113.300"};
  const auto loaded = load_config(std::vector<std::pair<std::string, std::string>>{}, flags);
  EXPECT_TRUE(loaded.bad_flags);
  EXPECT_THAT(loaded.problems,
              ElementsAre("--external-address: found \"203.0.113.300\", expected an IPv4 address that a "
                          "host can have"));
  EXPECT_FALSE(load_config({{"a.toml", "x = 1"}}).bad_flags);
}

TEST(Config, AMissingFileThatWasNamedIsAProblem) {
  Flags flags;
  flags.config = "/nonexistent/sallyport.toml";
  EXPECT_THAT(load_config(flags).problems, ElementsAre("/nonexistent/sallyport.toml: no such file"));
  flags.config = "/";
  EXPECT_THAT(load_config(flags).problems, ElementsAre("/: cannot be read, expected a TOML file"));
  flags.config = "/dev/null";
  EXPECT_THAT(load_config(flags).problems, IsEmpty());
}

// LANs not named in `control` are translated but not served
TEST(Config, AGuestLanSpeaksNothing) {
  const auto found =
      config("[listen]\nlan = [\"lan0\", \"guest0\"]\ncontrol = [\"lan0\"]\nprotocols = [\"natpmp\"]\n");
  EXPECT_TRUE(found.speaks(Protocol::natpmp, "lan0"));
  EXPECT_FALSE(found.speaks(Protocol::pcp, "lan0"));
  EXPECT_FALSE(found.serves("guest0"));
  EXPECT_FALSE(found.serves("eth0"));
  EXPECT_THAT(found.network_wishes().lan, ElementsAre("lan0", "guest0"));
}

}  // namespace
}  // namespace sallyport::daemon
