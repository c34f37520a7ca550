#include "protocols/upnp/ssdp/search.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>

namespace sallyport::upnp::ssdp {
namespace {

using Kind = Sighting::Kind;

std::string file_of(const std::string& name) {
  std::ifstream file{std::string{SALLYPORT_CORPUS} + "/../sighting_fuzz/" + name, std::ios::binary};
  EXPECT_TRUE(file) << name;
  return {std::istreambuf_iterator<char>{file}, {}};
}
Result<Sighting> decode(const std::string& text) { return decode_sighting(std::as_bytes(std::span{text})); }
Sighting seen(const std::string& name) {
  const auto sighting = decode(file_of(name));
  EXPECT_TRUE(sighting) << name << ": " << sighting.error().message();
  return sighting ? *sighting : Sighting{};
}
std::string text(const std::vector<std::byte>& octets) {
  return {reinterpret_cast<const char*>(octets.data()), octets.size()};
}

TEST(SsdpControlPoint, SearchesAsUdaWantsIt) {  // UDA 1.3.2
  EXPECT_EQ(text(encode_search(gateway_targets[0], 1, group_v4)),
            "M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\n"
            "ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\r\n");
  const auto alone = text(encode_search("upnp:rootdevice", 1, Address::v4(0xc0a80101)));
  EXPECT_NE(alone.find("HOST: 192.168.1.1:1900\r\n"), alone.npos);
  EXPECT_EQ(alone.find("MX"), alone.npos);
  for (const auto& group : {group_v4, group_link(), group_site()})
    for (const auto target : gateway_targets) {
      const auto search = decode_search(encode_search(target, 9, group));
      ASSERT_TRUE(search);
      EXPECT_EQ(search->target, target);
      EXPECT_EQ(search->mx_s, 5u);
    }
}

TEST(SsdpSighting, IsReadFromWhatOurOwnGatewaySays) {
  const Announcement what{.type = gateway_targets[1],
                          .name = "uuid:0001::urn:schemas-upnp-org:device:InternetGatewayDevice:2",
                          .location = "http://192.168.1.1:5000/rootDesc.xml",
                          .server = "Linux/6.1 UPnP/1.1 Sallyport/1.0",
                          .boot_id = 7,
                          .config_id = 9};
  auto read = decode_sighting(encode_answer(what, WallTime{}));
  ASSERT_TRUE(read);
  Sighting expected{.kind = Kind::answer,
                    .type = std::string{what.type},
                    .usn = std::string{what.name},
                    .uuid = "0001",
                    .location = std::string{what.location},
                    .server = std::string{what.server},
                    .boot_id = 7,
                    .next_boot_id = {},
                    .config_id = 9};
  EXPECT_EQ(*read, expected);
  EXPECT_TRUE(is_of_gateway(*read));
  expected.kind = Kind::alive;
  read = decode_sighting(encode_notify(NotifyKind::alive, what, group_v4));
  ASSERT_TRUE(read);
  EXPECT_EQ(*read, expected);
  read = decode_sighting(encode_notify(NotifyKind::update, what, group_link(), 8));
  ASSERT_TRUE(read);
  EXPECT_EQ(read->kind, Kind::update);
  EXPECT_EQ(read->next_boot_id, 8u);
  read = decode_sighting(encode_notify(NotifyKind::byebye, what, group_v4));
  ASSERT_TRUE(read);
  EXPECT_EQ(read->kind, Kind::byebye);
  EXPECT_EQ(read->location, "");
  EXPECT_TRUE(is_of_gateway(*read));
}

TEST(SsdpSighting, IsReadAsDevicesWriteIt) {
  const auto miniupnpd = seen("miniupnpd");
  EXPECT_EQ(miniupnpd.kind, Kind::answer);
  EXPECT_EQ(miniupnpd.type, "urn:schemas-upnp-org:device:InternetGatewayDevice:2");
  EXPECT_EQ(miniupnpd.uuid, "00bb5bc6-0000-0000-0000-000000000001");
  EXPECT_EQ(miniupnpd.location, "http://192.168.1.1:5000/rootDesc.xml");
  EXPECT_EQ(miniupnpd.max_age_s, 120u);
  EXPECT_EQ(miniupnpd.boot_id, 1700000000u);
  EXPECT_EQ(miniupnpd.config_id, 1337u);
  EXPECT_FALSE(miniupnpd.next_boot_id);
  const auto fritzbox = seen("fritzbox");
  EXPECT_EQ(fritzbox.uuid, "76802409-bccb-40e7-8e6a-3810d5000001");
  EXPECT_FALSE(fritzbox.boot_id);
  // LF alone, no blanks, no EXT, no reason, another case, no empty line at the end, a line that is no field
  const auto old = seen("old_router");
  EXPECT_EQ(old.type, "urn:schemas-upnp-org:device:InternetGatewayDevice:1");
  EXPECT_EQ(old.location, "http://10.0.0.138:80/igd.xml");
  EXPECT_EQ(old.max_age_s, 7200u);
  EXPECT_EQ(old.uuid, "upnp_internetgatewaydevice-1_0-0090d0000001");
  EXPECT_EQ(seen("alive").kind, Kind::alive);
  EXPECT_EQ(seen("alive").boot_id, 7u);
  EXPECT_EQ(seen("update").next_boot_id, 8u);
  EXPECT_EQ(seen("byebye").uuid, "0001");
}

TEST(SsdpSighting, WhatIsNone) {
  EXPECT_EQ(decode(file_of("search")).error(), SightingErrc::other);
  EXPECT_EQ(decode("").error(), SightingErrc::other);
  EXPECT_EQ(decode("HTTP/1.1 404 Not Found\r\n\r\n").error(), SightingErrc::other);
  EXPECT_EQ(decode("HTTP/1.1 2000 OK\r\n\r\n").error(), SightingErrc::other);
  EXPECT_EQ(decode("HTTP/1.1 200 OK\r\nLOCATION: http://192.168.1.1/\r\n\r\n").error(),
            SightingErrc::incomplete);
  EXPECT_EQ(decode("HTTP/1.1 200 OK\r\nST: x\r\n\r\n").error(), SightingErrc::incomplete);
  EXPECT_EQ(decode("HTTP/1.1 200 OK\r\nST: \x80\r\nLOCATION: x\r\n\r\n").error(), SightingErrc::incomplete);
  EXPECT_EQ(decode("NOTIFY * HTTP/1.1\r\nNT: x\r\nLOCATION: x\r\n\r\n").error(), SightingErrc::incomplete);
  EXPECT_EQ(decode("NOTIFY * HTTP/1.1\r\nNT: x\r\nNTS: ssdp:other\r\nLOCATION: x\r\n\r\n").error(),
            SightingErrc::incomplete);
  EXPECT_EQ(decode(std::string("HTTP/1.1 200 OK\r\nST: x\0y\r\n\r\n", 28)).error(), SightingErrc::malformed);
  std::string many = "HTTP/1.1 200 OK\r\n";
  for (std::size_t i = 0; i <= max_sighting_fields; ++i) many += "X: y\r\n";
  EXPECT_EQ(decode(many + "\r\n").error(), SightingErrc::malformed);
  EXPECT_EQ(decode("HTTP/1.1 200 OK\r\n" + std::string(max_sighting, 'x')).error(), SightingErrc::too_long);
  EXPECT_EQ(
      decode("HTTP/1.1 200 OK\r\nST: " + std::string(max_sighting_text + 1, 'x') + "\r\nLOCATION: y\r\n\r\n")
          .error(),
      SightingErrc::incomplete);
  const auto whole = file_of("miniupnpd");
  for (std::size_t size = 0; size < whole.size(); ++size) (void)decode(whole.substr(0, size));
}

TEST(SsdpSighting, AnAnswerMustRepeatWhatWasAskedFor) {  // UDA-1.3-19
  Sighting sighting{.kind = Kind::answer, .type = "urn:schemas-upnp-org:device:InternetGatewayDevice:2"};
  EXPECT_TRUE(is_of_gateway(sighting));
  sighting.type.back() = '3';
  EXPECT_FALSE(is_of_gateway(sighting)) << "nobody asked for version 3";
  sighting.kind = Kind::alive;
  EXPECT_TRUE(is_of_gateway(sighting)) << "an announcement answers nothing";
  for (const auto* const other : {"upnp:rootdevice", "urn:schemas-upnp-org:device:MediaServer:1", "uuid:0001",
                                  "urn:schemas-upnp-org:service:WANCommonInterfaceConfig:1"}) {
    sighting.type = other;
    EXPECT_FALSE(is_of_gateway(sighting)) << other;
  }
}

TEST(SsdpSighting, ItsLocationIsTrustedOnlyAtItsSource) {  // UDA-1.3-19
  const auto box = Address::v4(0xc0a80101);
  auto sighting = seen("miniupnpd");
  EXPECT_EQ(trusted_location(sighting, box), (http::Url{box, 5000, "/rootDesc.xml"}));
  EXPECT_FALSE(trusted_location(sighting, Address::v4(0xc0a80102)));
  for (const auto* const wrong :
       {"http://127.0.0.1:80/", "http://198.51.100.1/", "http://router/", "http://0.0.0.0/"}) {
    sighting.location = wrong;
    EXPECT_FALSE(trusted_location(sighting, box)) << wrong;
  }
  sighting = seen("ipv6");
  const auto link_local = *Address::parse("fe80::1");
  EXPECT_EQ(trusted_location(sighting, link_local), (http::Url{link_local, 5000, "/rootDesc.xml"}));
  EXPECT_TRUE(trusted_location(sighting, *Address::parse("fe80::2"))) << "it cannot lead off the link";
  EXPECT_FALSE(trusted_location(sighting, *Address::parse("2001:db8::1")));
  sighting.location = "http://[2001:db8::1]/";
  EXPECT_FALSE(trusted_location(sighting, link_local));
  EXPECT_TRUE(trusted_location(sighting, *Address::parse("2001:db8::1")));
}

}  // namespace
}  // namespace sallyport::upnp::ssdp
