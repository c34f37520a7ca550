#include "protocols/upnp/igd/device_tree.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <miniupnpc/miniupnpc.h>

#include <random>
#include <set>

#include <pugixml.hpp>

#include "protocols/upnp/description/render.hpp"
#include "protocols/upnp/igd/tables.hpp"
#include "tests/protocols/upnp/description/schema.hpp"

namespace sallyport::upnp::igd {
namespace {

using description::render_device;
using description::Tree;

constexpr std::string_view secret = "AbCdEfGhIjKlMnOpQrS-_9";

TreeOptions some_options() {
  TreeOptions options;
  for (std::size_t i = 0; i < 16; ++i) options.uuid[i] = static_cast<std::byte>(0xf0 + i);
  options.path_secret = secret;
  options.model_number = "0.1.0";
  return options;
}

Tree tree_of(const TreeOptions& options) { return make_tree(options).value(); }

/// "Type:version[Service:version ...]" from the root down, one line a device.
std::vector<std::string> outline(const Tree& tree) {
  std::vector<std::string> lines;
  for (const auto* device : description::all_devices(tree)) {
    std::string line =
        device->type.substr(device->type.rfind(':') + 1) + ":" + std::to_string(device->version);
    for (const auto& service : device->services)
      line += " " + std::string{service.table->type.substr(service.table->type.rfind(':') + 1)} + ":" +
              std::to_string(service.table->version);
    lines.push_back(line);
  }
  return lines;
}

// IGD-01..04, IGD-08, IGD-10
TEST(DeviceTree, OfVersion2) {
  const auto tree = tree_of(some_options());
  EXPECT_THAT(outline(tree),
              testing::ElementsAre("InternetGatewayDevice:2 Layer3Forwarding:1",
                                   "WANDevice:2 WANCommonInterfaceConfig:1",
                                   "WANConnectionDevice:2 WANIPConnection:2 WANIPv6FirewallControl:1"));
  ASSERT_EQ(tree.root.devices.size(), 1u);
  ASSERT_EQ(tree.root.devices[0].devices.size(), 1u) << "each below the one before";
}

// IGD-01, IGD-02, IGD-08, UPNP-X-03
TEST(DeviceTree, OfVersion1IsVersion1AllThrough) {
  auto options = some_options();
  options.igd_version = 1;
  EXPECT_THAT(outline(tree_of(options)), testing::ElementsAre("InternetGatewayDevice:1 Layer3Forwarding:1",
                                                              "WANDevice:1 WANCommonInterfaceConfig:1",
                                                              "WANConnectionDevice:1 WANIPConnection:1"));
  for (const auto& document : description::render_all(tree_of(options)))
    EXPECT_EQ(document.body.find(":2</"), std::string::npos) << document.path;
}

// IGD-03
TEST(DeviceTree, WithoutIpv6HasNoFirewallControl) {
  auto options = some_options();
  options.ipv6_firewall = false;
  EXPECT_EQ(outline(tree_of(options)).back(), "WANConnectionDevice:2 WANIPConnection:2");
}

// UDA-2-01..06, IGD-06
TEST(DeviceTree, IsDescribedAsTheStandardsSchemaAsks) {
  for (const unsigned version : {1u, 2u})
    for (const unsigned minor : {0u, 1u}) {
      auto options = some_options();
      options.igd_version = version;
      options.uda_minor = minor;
      const auto documents = description::render_all(tree_of(options));
      EXPECT_THAT(test::schema::device_problems(documents[0].body), testing::IsEmpty());
      std::set<std::string> paths;
      for (const auto& document : documents) {
        EXPECT_TRUE(paths.insert(document.path).second) << document.path;
        if (document.path.starts_with("/scpd/")) {
          EXPECT_THAT(test::schema::scpd_problems(document.body), testing::IsEmpty()) << document.path;
        }
      }
      EXPECT_EQ(paths.size(), version == 2 ? 7u : 6u);
      // every URL that a GET may ask for is there
      pugi::xml_document root;
      ASSERT_TRUE(root.load_string(documents[0].body.c_str()));
      for (const auto& found : root.select_nodes("//SCPDURL|//icon/url"))
        EXPECT_TRUE(paths.contains(found.node().child_value())) << found.node().child_value();
    }
}

// UDA-2-02
TEST(DeviceTree, KeepsWithinTheLimitsWhateverTextsItIsGiven) {
  const std::string texts[] = {"",
                               " ",
                               std::string(300, 'x'),
                               std::string(62, 'x') + "\xC3\xBC\xC3\xBC",
                               "a<b>&\"'\xff\x1b[31m",
                               "\xF0\x9F\x8F\xB0 gate"};
  for (const auto& text : texts) {
    auto options = some_options();
    options.friendly_name = options.manufacturer = options.model_description = options.model_name =
        options.model_number = options.serial_number = text;
    EXPECT_THAT(test::schema::device_problems(render_device(tree_of(options), 1)), testing::IsEmpty())
        << text;
  }
  auto options = some_options();
  options.friendly_name = "";
  options.serial_number = "";
  const auto tree = tree_of(options);
  EXPECT_EQ(tree.root.friendly_name, "Sallyport");
  EXPECT_EQ(tree.root.serial_number, "fafbfcfdfeff");
}

// UDA-2-03
TEST(DeviceTree, HasLawfulUuidsThatAreTheSameOverRestartsAndApart) {
  const auto options = some_options();
  const auto tree = tree_of(options);
  const auto devices = description::all_devices(tree);
  EXPECT_EQ(devices[0]->udn, "uuid:f0f1f2f3-f4f5-46f7-b8f9-fafbfcfdfeff");
  EXPECT_EQ(devices[1]->udn, "uuid:f0f1f2f3-f4f5-46f7-b8f9-fafbfcfdfefe");
  EXPECT_EQ(devices[2]->udn, "uuid:f0f1f2f3-f4f5-46f7-b8f9-fafbfcfdfefd");
  std::mt19937 random{7};
  std::set<std::string> all;
  for (int round = 0; round < 200; ++round) {
    auto other = options;
    for (auto& octet : other.uuid) octet = static_cast<std::byte>(random());
    const auto made = tree_of(other);
    EXPECT_EQ(render_device(made, 0), render_device(tree_of(other), 0)) << "equal options, equal tree";
    for (const auto* device : description::all_devices(made)) {
      EXPECT_TRUE(test::schema::is_udn(device->udn)) << device->udn;
      EXPECT_TRUE(all.insert(device->udn).second) << device->udn;
    }
  }
  EXPECT_EQ(all.size(), 600u);
}

// UDA-2-04, UDA-2-05, POL-WEB-08
TEST(DeviceTree, HidesControlAndEventingBehindTheSecretAndNothingElse) {
  const auto tree = tree_of(some_options());
  EXPECT_EQ(tree.description_path, "/rootDesc.xml");
  for (const auto* device : description::all_devices(tree))
    for (const auto& service : device->services) {
      const std::string name{service.table->id.substr(service.table->id.rfind(':') + 1)};
      EXPECT_EQ(service.scpd_path, "/scpd/" + name + ".xml");
      EXPECT_EQ(service.control_path, "/ctl/" + std::string{secret} + "/" + name);
      EXPECT_EQ(service.event_path, "/evt/" + std::string{secret} + "/" + name);
    }
  const auto xml = render_device(tree, 1);
  EXPECT_EQ(xml.find("URLBase"), std::string::npos);
  EXPECT_EQ(xml.find(" xmlns:"), std::string::npos) << "no prefixes";
}

// UDA-2-07
TEST(DeviceTree, HasAPresentationUrlAtTheRootAlone) {
  pugi::xml_document document;
  ASSERT_TRUE(document.load_string(render_device(tree_of(some_options()), 1).c_str()));
  EXPECT_STREQ(document.child("root").child("device").child_value("presentationURL"), "/");
  EXPECT_EQ(document.select_nodes("//presentationURL").size(), 1u);
  auto options = some_options();
  options.presentation_url.clear();
  EXPECT_EQ(render_device(tree_of(options), 1).find("presentationURL"), std::string::npos);
}

TEST(DeviceTree, RefusesOptionsThatWouldMakeAnUnsafeOne) {
  const auto refused = [](auto change) {
    auto options = some_options();
    change(options);
    const auto made = make_tree(options);
    return !made && made.error() == boost::system::errc::invalid_argument;
  };
  EXPECT_TRUE(refused([](auto& options) { options.path_secret.clear(); }));
  EXPECT_TRUE(refused([](auto& options) { options.path_secret.pop_back(); })) << "less than 128 bits";
  EXPECT_TRUE(refused([](auto& options) { options.path_secret.assign(65, 'a'); }));
  EXPECT_FALSE(refused([](auto& options) { options.path_secret.assign(64, 'a'); }));
  for (const char c : std::string_view{"/.%+= <&\xc3"})
    EXPECT_TRUE(refused([c](auto& options) { options.path_secret[3] = c; })) << c;
  EXPECT_TRUE(refused([](auto& options) { options.uuid = {}; }));
  EXPECT_TRUE(refused([](auto& options) { options.igd_version = 0; }));
  EXPECT_TRUE(refused([](auto& options) { options.igd_version = 3; }));
  EXPECT_TRUE(refused([](auto& options) { options.uda_minor = 2; }));
}

// L3F-01
TEST(DeviceTree, NamesTheDefaultConnectionService) {
  EXPECT_EQ(
      default_connection_service(tree_of(some_options())),
      "uuid:f0f1f2f3-f4f5-46f7-b8f9-fafbfcfdfefd:WANConnectionDevice:2,urn:upnp-org:serviceId:WANIPConn1");
  auto options = some_options();
  options.igd_version = 1;
  EXPECT_EQ(
      default_connection_service(tree_of(options)),
      "uuid:f0f1f2f3-f4f5-46f7-b8f9-fafbfcfdfefd:WANConnectionDevice:1,urn:upnp-org:serviceId:WANIPConn1");
}

// UDA-1.2-12: what the gateway's own switches do to it
TEST(DeviceTree, HasAnotherConfigIdForEachConfiguration) {
  std::set<std::uint32_t> ids;
  auto options = some_options();
  const auto id = [&] { return config_id(tree_of(options)); };
  EXPECT_TRUE(ids.insert(id()).second);
  EXPECT_FALSE(ids.insert(id()).second) << "a restart";
  options.igd_version = 1;
  EXPECT_TRUE(ids.insert(id()).second);
  options = some_options();
  options.ipv6_firewall = false;
  EXPECT_TRUE(ids.insert(id()).second);
  options = some_options();
  options.friendly_name = "Attic";
  EXPECT_TRUE(ids.insert(id()).second);
  options = some_options();
  options.path_secret.back() = 'x';
  EXPECT_TRUE(ids.insert(id()).second);
}

/// The parser that consoles' and torrent clients' copies of miniupnpc have: it knows no entities, no
/// prefixes, and 128 octets for a URL.
class AsMiniupnpcReadsIt : public testing::TestWithParam<unsigned> {};

TEST_P(AsMiniupnpcReadsIt, FindsEveryUrl) {
  auto options = some_options();
  options.igd_version = GetParam();
  options.path_secret.assign(64, 'z');  // the longest
  options.friendly_name = "<controlURL>/wrong</controlURL>";
  const auto tree = tree_of(options);
  const auto xml = render_device(tree, config_id(tree));

  IGDdatas data{};
  parserootdesc(xml.data(), static_cast<int>(xml.size()), &data);
  const auto& common = tree.root.devices[0].services[0];
  const auto& connection = tree.root.devices[0].devices[0].services[0];
  const auto type = "urn:schemas-upnp-org:service:WANIPConnection:" + std::to_string(GetParam());
  EXPECT_STREQ(data.urlbase, "");
  EXPECT_EQ(data.first.servicetype, type);
  EXPECT_EQ(data.first.controlurl, connection.control_path);
  EXPECT_EQ(data.first.eventsuburl, connection.event_path);
  EXPECT_EQ(data.first.scpdurl, connection.scpd_path);
  EXPECT_EQ(data.CIF.controlurl, common.control_path);
  EXPECT_STREQ(data.second.controlurl, "") << "no PPP connection";

  UPNPUrls urls{};
  GetUPNPUrls(&urls, &data, "http://192.168.1.1:5000/rootDesc.xml", 0);
  const std::string base = "http://192.168.1.1:5000";
  EXPECT_EQ(urls.controlURL, base + connection.control_path);
  EXPECT_EQ(urls.ipcondescURL, base + connection.scpd_path);
  EXPECT_EQ(urls.controlURL_CIF, base + common.control_path);
  EXPECT_EQ(urls.rootdescURL, base + tree.description_path);
  if (GetParam() == 2) {
    EXPECT_EQ(urls.controlURL_6FC, base + tree.root.devices[0].devices[0].services[1].control_path);
  }
  FreeUPNPUrls(&urls);
}

INSTANTIATE_TEST_SUITE_P(Igd, AsMiniupnpcReadsIt, testing::Values(1u, 2u));

}  // namespace
}  // namespace sallyport::upnp::igd
