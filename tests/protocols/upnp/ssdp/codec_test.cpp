#include "protocols/upnp/ssdp/codec.hpp"

#include <gtest/gtest.h>

#include "tests/protocols/upnp/ssdp/support.hpp"
#include "tests/support/vectors.hpp"

namespace sallyport::upnp::ssdp {
namespace {

using test::octets;
using test::text;

const std::string igd_1 = "urn:schemas-upnp-org:device:InternetGatewayDevice:1";
const std::string good =
    "M-SEARCH * HTTP/1.1\r\n"
    "HOST: 239.255.255.250:1900\r\n"
    "MAN: \"ssdp:discover\"\r\n"
    "MX: 3\r\n"
    "ST: " +
    igd_1 + "\r\n\r\n";

std::string with(const std::string& from, const std::string& to) {
  auto changed = good;
  changed.replace(changed.find(from), from.size(), to);
  return changed;
}

std::string read_file(const std::string& name) {
  std::ifstream file{std::string{SALLYPORT_CORPUS} + "/" + name, std::ios::binary};
  if (!file) throw std::runtime_error{"cannot read " + name};
  return {std::istreambuf_iterator<char>{file}, {}};
}

// UDA-1.3-01
TEST(SsdpSearch, IsReadFromTheDatagramsThatClientsSend) {
  struct Row {
    const char* client;
    std::string target;
    std::optional<unsigned> mx_s;
  };
  const auto igd_2 = test::device + "InternetGatewayDevice:2";
  const Row rows[] = {
      {"xbox", igd_1, 3},
      {"windows_natupnp", igd_1, 3},
      {"windows_wan_ip", test::service + "WANIPConnection:1", 3},
      {"windows_explorer", "upnp:rootdevice", 3},
      {"playstation", igd_1, 3},
      {"macos_browser", "urn:dial-multiscreen-org:service:dial:1", 1},
      {"miniupnpc_igd2", igd_2, 2},
      {"miniupnpc_igd1", igd_1, 2},
      {"miniupnpc_ipv6", igd_1, 2},
      {"libupnp", igd_1, 5},
      {"libupnp_ipv6", "upnp:rootdevice", 5},
      {"gssdp", igd_2, 3},
      {"gssdp_all", "ssdp:all", 3},
      {"libtorrent_root", "upnp:rootdevice", 3},
      {"libtorrent_igd", igd_1, 3},
      {"utorrent", igd_1, 3},
      {"plex", test::device + "MediaServer:1", 5},
      {"plex_igd", igd_1, 3},
      {"transmission", igd_1, 3},
      {"vlc", test::device + "MediaServer:1", 5},
      {"home_assistant", "ssdp:all", 4},
      {"go_igd", igd_1, 2},
      {"tailscale", "ssdp:all", 2},
      {"syncthing", igd_2, 5},  // it says 10 (UDA-1.3-04)
      {"controller_2_0", "upnp:rootdevice", 1},
      {"line_feeds_only", igd_1, 1},
      {"unicast", "ssdp:all", std::nullopt},
  };
  for (const auto& row : rows) {
    const auto search = decode_search(octets(read_file(row.client)));
    ASSERT_TRUE(search) << row.client << ": " << search.error().message();
    EXPECT_EQ(*search, (Search{row.target, row.mx_s})) << row.client;
  }
}

// UDA-1.3-01, POL-WHO-04, POL-DSC-04
TEST(SsdpSearch, IsNothingElse) {
  for (const auto* other : {"notify", "answer"})
    EXPECT_EQ(decode_search(octets(read_file(other))).error(), DecodeErrc::not_a_search) << other;
  for (const auto* line : {"m-search * HTTP/1.1", "M-SEARCH * HTTP/1.0", "M-SEARCH / HTTP/1.1", "M-SEARCH  * HTTP/1.1",
                           "M-SEARCH * HTTP/1.1 ", " M-SEARCH * HTTP/1.1", "GET * HTTP/1.1", "\r\nM-SEARCH * HTTP/1.1"})
    EXPECT_EQ(decode_search(octets(with("M-SEARCH * HTTP/1.1", line))).error(), DecodeErrc::not_a_search) << line;
  EXPECT_EQ(decode_search({}).error(), DecodeErrc::not_a_search);
}

// UDA-1.3-13
TEST(SsdpSearch, FieldNamesMatchInAnyCaseInAnyOrderAndOthersDoNotCount) {
  const auto search = decode_search(
      octets("M-SEARCH * HTTP/1.1\r\nst:ssdp:all\r\nUser-Agent: a:b/\xc3\xbc\r\nmX:1\r\nX-EMPTY:\r\n"
             "mAn:\t\"ssdp:discover\" \r\nhOST:x\r\nMXX: 9\r\nS: t\r\n\r\n"));
  ASSERT_TRUE(search);
  EXPECT_EQ(*search, (Search{"ssdp:all", 1}));
}

// UDA-1.3-17
TEST(SsdpSearch, TargetIsTrimmed) {
  EXPECT_EQ(decode_search(octets(with("ST: ", "ST:\t  ")))->target, igd_1);
  EXPECT_EQ(decode_search(octets(with(igd_1, igd_1 + " \t ")))->target, igd_1);
}

// UDA-1.3-01, -20
TEST(SsdpSearch, LacksNothingThatItNeeds) {
  for (const auto* without : {"HOST: 239.255.255.250:1900\r\n", "MAN: \"ssdp:discover\"\r\n"})
    EXPECT_EQ(decode_search(octets(with(without, ""))).error(), DecodeErrc::incomplete) << without;
  EXPECT_EQ(decode_search(octets(with("ST: " + igd_1 + "\r\n", ""))).error(), DecodeErrc::incomplete);
  for (const auto* man : {"ssdp:discover", "\"ssdp:all\"", "\"ssdp:discover", "\"SSDP:DISCOVER\"", "\"ssdp:discover\";x", ""})
    EXPECT_EQ(decode_search(octets(with("\"ssdp:discover\"", man))).error(), DecodeErrc::incomplete) << man;
}

// UDA-1.3-02, -04, -20, POL-DSC-02
TEST(SsdpSearch, MxIsANumberFrom1AndAbove5Is5) {
  const std::pair<const char*, std::optional<unsigned>> rows[] = {
      {"1", 1},    {"5", 5},       {"6", 5},       {"120", 5},    {"4294967297", 5}, {"99999999999999999999999", 5},
      {"03", 3},   {"0", {}},      {"00", {}},     {"", {}},      {"-1", {}},        {"+1", {}},
      {"1.5", {}}, {"three", {}},  {"3 s", {}},    {"0x3", {}},   {"3,3", {}},
  };
  for (const auto& [mx, means] : rows) {
    const auto search = decode_search(octets(with("MX: 3", std::string{"MX: "} + mx)));
    ASSERT_TRUE(search) << mx;
    EXPECT_EQ(search->mx_s, means) << mx;
  }
  EXPECT_EQ(decode_search(octets(with("MX: 3\r\n", "")))->mx_s, std::nullopt);
}

// POL-DSC-03
TEST(SsdpSearch, IsNoLongerThan2048OctetsAndItsTargetThan256) {
  const std::string pad = "X-PAD: ";
  auto longest = with("\r\n\r\n", "\r\n" + pad + "\r\n\r\n");
  longest.insert(longest.find(pad) + pad.size(), max_search - longest.size(), 'x');
  ASSERT_EQ(longest.size(), 2048U);
  EXPECT_TRUE(decode_search(octets(longest)));
  EXPECT_EQ(decode_search(octets(longest + "x")).error(), DecodeErrc::too_long);
  EXPECT_EQ(decode_search(octets(with(igd_1, std::string(256, 'u'))))->target.size(), 256U);
  EXPECT_EQ(decode_search(octets(with(igd_1, std::string(257, 'u')))).error(), DecodeErrc::bad_target);
}

// POL-DSC-03
TEST(SsdpSearch, TargetHasNoControlCharacters) {
  for (unsigned c = 0; c < 256; ++c) {
    if (c == '\n') continue;  // begins another field
    auto datagram = good;
    datagram[datagram.find(igd_1) + 3] = static_cast<char>(c);
    const bool printable = c >= 0x20 && c < 0x7f;
    EXPECT_EQ(bool(decode_search(octets(datagram))), printable) << c;
  }
  EXPECT_EQ(decode_search(octets(with(igd_1, ""))).error(), DecodeErrc::bad_target);
  EXPECT_EQ(decode_search(octets(with(igd_1, " \t "))).error(), DecodeErrc::bad_target);
}

TEST(SsdpSearch, HasASoundHead) {
  const std::string bad[] = {
      with("MX: 3", "MX : 3"),                      // a blank before the colon
      with("MX: 3", " MX: 3"),                      // a folded line
      with("MX: 3", "MX: 3\r\n folded"),            //
      with("MX: 3", "MX"),                          // no colon
      with("MX: 3", ": 3"),                         // no name
      with("MX: 3", "MX: 3\rX: y"),                 // a CR inside
      with("MX: 3", std::string("MX: 3\0X", 7)),    // NUL
      with("MX: 3", "MX: 3\r\nMX: 4"),              // a field twice that counts
      with("MX: 3", "MX: 3\r\nst: ssdp:all"),       //
      with("MX: 3", "MX: 3\r\nMan: \"ssdp:discover\""),
      with("MX: 3", "MX: 3\r\nHost: x"),
      with("MX: 3", "MX: 3\r\nX(y): z"),
  };
  for (const auto& datagram : bad) EXPECT_EQ(decode_search(octets(datagram)).error(), DecodeErrc::malformed) << datagram;
  EXPECT_TRUE(decode_search(octets(with("MX: 3", "MX: 3\r\nX: y\r\nX: z")))) << "others may come twice";
  EXPECT_TRUE(decode_search(octets(good + "what follows"))) << "is not looked at";
}

TEST(SsdpSearch, IsRefusedAtEveryShorterLength) {
  for (std::size_t n = 0; n < good.size(); ++n) {
    const auto search = decode_search(octets(std::string_view{good}.substr(0, n)));
    ASSERT_FALSE(search) << n;
    EXPECT_EQ(search.error(), n < 20 + 1 ? DecodeErrc::not_a_search : DecodeErrc::malformed) << n;
  }
}

TEST(SsdpSearch, SurvivesMutationsWithinItsPromises) {
  std::mt19937 random{20261127};
  const auto seed = octets(good);
  for (int i = 0; i < 50000; ++i) {
    std::vector<std::byte> datagram{seed.begin(), seed.end()};
    sallyport::test::mutate(datagram, random);
    const auto search = decode_search(datagram);
    if (!search) continue;
    ASSERT_FALSE(search->target.empty());
    ASSERT_LE(search->target.size(), max_target);
    ASSERT_TRUE(!search->mx_s || (*search->mx_s >= 1 && *search->mx_s <= max_mx_s));
    for (const char c : search->target) ASSERT_TRUE(c >= 0x20 && c < 0x7f);
  }
}

const Announcement root_announcement{.type = "upnp:rootdevice",
                                     .name = "uuid:u::upnp:rootdevice",
                                     .location = "http://192.168.1.1:5000/root.xml",
                                     .server = "Linux/6.1 UPnP/1.1 Sallyport/1.0",
                                     .max_age_s = 1800,
                                     .boot_id = 7,
                                     .config_id = 4711};

// UDA-1.2-02, -04, -05, -06
TEST(SsdpNotify, AliveIsWrittenAsUdaWantsIt) {
  EXPECT_EQ(text(encode_notify(NotifyKind::alive, root_announcement, group_v4)),
            "NOTIFY * HTTP/1.1\r\n"
            "HOST: 239.255.255.250:1900\r\n"
            "CACHE-CONTROL: max-age=1800\r\n"
            "LOCATION: http://192.168.1.1:5000/root.xml\r\n"
            "NT: upnp:rootdevice\r\n"
            "NTS: ssdp:alive\r\n"
            "SERVER: Linux/6.1 UPnP/1.1 Sallyport/1.0\r\n"
            "USN: uuid:u::upnp:rootdevice\r\n"
            "BOOTID.UPNP.ORG: 7\r\n"
            "CONFIGID.UPNP.ORG: 4711\r\n"
            "\r\n");
}

// UDA-1.2-10
TEST(SsdpNotify, UpdateNamesTheNextBootId) {
  EXPECT_EQ(text(encode_notify(NotifyKind::update, root_announcement, group_link(), 8)),
            "NOTIFY * HTTP/1.1\r\n"
            "HOST: [FF02::C]:1900\r\n"
            "LOCATION: http://192.168.1.1:5000/root.xml\r\n"
            "NT: upnp:rootdevice\r\n"
            "NTS: ssdp:update\r\n"
            "USN: uuid:u::upnp:rootdevice\r\n"
            "BOOTID.UPNP.ORG: 7\r\n"
            "CONFIGID.UPNP.ORG: 4711\r\n"
            "NEXTBOOTID.UPNP.ORG: 8\r\n"
            "\r\n");
}

// UDA-1.2-09
TEST(SsdpNotify, ByebyeSaysOnlyWhatGoes) {
  EXPECT_EQ(text(encode_notify(NotifyKind::byebye, root_announcement, group_site())),
            "NOTIFY * HTTP/1.1\r\n"
            "HOST: [FF05::C]:1900\r\n"
            "NT: upnp:rootdevice\r\n"
            "NTS: ssdp:byebye\r\n"
            "USN: uuid:u::upnp:rootdevice\r\n"
            "BOOTID.UPNP.ORG: 7\r\n"
            "CONFIGID.UPNP.ORG: 4711\r\n"
            "\r\n");
}

// UDA-1.3-06, UPNP-X-15
TEST(SsdpAnswer, IsWrittenAsUdaWantsIt) {
  const WallTime date{std::chrono::sys_days{std::chrono::year{2026} / 3 / 1} + std::chrono::hours{9}};
  EXPECT_EQ(text(encode_answer(root_announcement, date)),
            "HTTP/1.1 200 OK\r\n"
            "CACHE-CONTROL: max-age=1800\r\n"
            "DATE: Sun, 01 Mar 2026 09:00:00 GMT\r\n"
            "EXT:\r\n"
            "LOCATION: http://192.168.1.1:5000/root.xml\r\n"
            "SERVER: Linux/6.1 UPnP/1.1 Sallyport/1.0\r\n"
            "ST: upnp:rootdevice\r\n"
            "USN: uuid:u::upnp:rootdevice\r\n"
            "BOOTID.UPNP.ORG: 7\r\n"
            "CONFIGID.UPNP.ORG: 4711\r\n"
            "\r\n");
}

// UPNP-X-11
TEST(SsdpVersion, AsUpnp10NothingOf11IsSaid) {
  auto what = root_announcement;
  what.version = Version::uda_1_0;
  const auto server = server_text("Linux/6.1", what.version, "Sallyport/1.0");
  EXPECT_EQ(server, "Linux/6.1 UPnP/1.0 Sallyport/1.0");
  EXPECT_EQ(server_text("Linux/6.1", Version::uda_1_1, "Sallyport/1.0"), "Linux/6.1 UPnP/1.1 Sallyport/1.0");
  for (const auto& message : {text(encode_answer(what, WallTime{})), text(encode_notify(NotifyKind::alive, what, group_v4))})
    EXPECT_EQ(message.find(".UPNP.ORG"), std::string::npos) << message;
}

// UDA-1.2-04
TEST(SsdpLocation, HasIpv6InBrackets) {
  EXPECT_EQ(location_url(*Address::parse("192.168.1.1"), 5000, "/r.xml"), "http://192.168.1.1:5000/r.xml");
  EXPECT_EQ(location_url(*Address::parse("fe80::1"), 80, "/"), "http://[fe80::1]:80/");
}

TEST(SsdpGroups, AreThree) {
  for (const auto* group : {"239.255.255.250", "ff02::c", "ff05::c"}) EXPECT_TRUE(is_group(*Address::parse(group))) << group;
  for (const auto* other : {"239.255.255.251", "ff02::1", "ff08::c", "192.168.1.1", "::"})
    EXPECT_FALSE(is_group(*Address::parse(other))) << other;
  EXPECT_TRUE(is_link_local(*Address::parse("fe80::1")));
  EXPECT_TRUE(is_link_local(*Address::parse("febf::1")));
  EXPECT_FALSE(is_link_local(*Address::parse("fec0::1")));
  EXPECT_FALSE(is_link_local(*Address::parse("169.254.0.1")));
}

}  // namespace
}  // namespace sallyport::upnp::ssdp
