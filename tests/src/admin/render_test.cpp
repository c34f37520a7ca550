#include "src/admin/render.hpp"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "src/lease/public_id.hpp"

namespace sallyport::admin {
namespace {

using nlohmann::json;
using namespace std::chrono_literals;

std::string text(std::string_view raw) {
  std::string out;
  append_text(out, raw);
  return out;
}

LeaseView lease() {
  return {.number = 7,
          .id = "k7f2",
          .state = LeaseState::active,
          .kind = LeaseKind::explicit_,
          .via = Via::pcp,
          .transport = Transport::udp,
          .internal = {*Address::parse("192.168.1.20"), *Port::from(3074)},
          .external = {*Address::parse("203.0.113.7"), *Port::from(3075)},
          .remotes = {{*Prefix::parse("198.51.100.0/24"), Port::from(80)}},
          .description = "Xbox \"Live\"",
          .lifetime_s = 3600,
          .deadline = TimePoint{5000s + 1ms},
          .created = WallTime{1772323200s},
          .renewals = 2,
          .counters = {1, ~std::uint64_t{0}, 3, 4, TimePoint{1000s}},
          .nonce = Nonce{std::byte{0xde}, std::byte{0xad}},
          .contact = {}};
}
const Moment at{TimePoint{1488s}, WallTime{1772323688s}};

TEST(LeaseJson, IsTheRowOfTheContract) {
  std::string out;
  append_lease(out, lease(), {"02:00:00:00:00:20", "xbox"}, at);
  EXPECT_EQ(
      out,
      R"({"id":"k7f2","state":"active","kind":"explicit","family":"ipv4","protocol":"udp",)"
      R"("internal":{"address":"192.168.1.20","port":3074},"external":{"address":"203.0.113.7","port":3075},)"
      R"("remote":["198.51.100.0/24:80"],"via":"pcp",)"
      R"("device":{"address":"192.168.1.20","mac":"02:00:00:00:00:20","name":"xbox"},)"
      R"("description":"Xbox \"Live\"","lifetime_s":3600,"remaining_s":3513,"created":"2026-03-01T00:00:00Z",)"
      R"("renewals":2,"packets_in":1,"packets_out":18446744073709551615,"bytes_in":3,"bytes_out":4,)"
      R"("last_packet":"2026-03-01T00:00:00Z"})");
}

TEST(LeaseJson, NamesTheSetOfAPort) {
  auto view = lease();
  view.number = 42;
  view.set_size = 8;
  view.set_place = 3;
  std::string out;
  append_lease(out, view, {}, at);
  EXPECT_EQ(json::parse(out)["set"], (json{{"first", lease::public_id(39)}, {"size", 8}}));
}

TEST(LeaseJson, HasNullsWhereNothingIsKnownOrNothingEnds) {
  auto view = lease();
  view.lifetime_s.reset();
  view.deadline.reset();
  view.counters = {};
  std::string out;
  append_lease(out, view, {}, at);
  auto row = json::parse(out);
  for (const auto* key : {"lifetime_s", "remaining_s", "last_packet"}) EXPECT_TRUE(row[key].is_null()) << key;
  EXPECT_TRUE(row["device"]["mac"].is_null());
  EXPECT_TRUE(row["device"]["name"].is_null());

  view.kind = LeaseKind::implicit;
  view.id.clear();
  out.clear();
  append_lease(out, view, {}, at);
  row = json::parse(out);
  for (const auto* key : {"id", "via", "created"}) EXPECT_TRUE(row[key].is_null()) << key;
}

TEST(LeaseJson, HoldsWhatOnlyUpnpCanAsk) {
  auto view = lease();
  view.via = Via::upnp;
  view.state = LeaseState::disabled;
  view.remotes = {{*Prefix::parse("198.51.100.9"), {}}};
  view.lifetime_s.reset();
  view.deadline.reset();
  std::string out;
  append_lease(out, view, {}, at);
  const auto row = json::parse(out);
  EXPECT_EQ(row["via"], "upnp");
  EXPECT_EQ(row["state"], "disabled");
  EXPECT_EQ(row["remote"], json::array({"198.51.100.9"}));
  EXPECT_TRUE(row["lifetime_s"].is_null() && row["remaining_s"].is_null());
  EXPECT_EQ(row["created"], "2026-03-01T00:00:00Z");
}

TEST(JsonText, IsValidWhateverADeviceWrote) {
  EXPECT_EQ(text("a\"b\\c"), R"("a\"b\\c")");
  EXPECT_EQ(text("\x1b[2J\n\x7f"), R"("\u001b[2J\u000a\u007f")");
  EXPECT_EQ(text("é€😀"), "\"é€😀\"");
  EXPECT_EQ(text("\xc2\x9b\xe2\x80\xae\xe2\x80\xa8"), R"("\u009b\u202e\u2028")");
  EXPECT_EQ(text("\xff\xc3\xed\xa0\x80z"),
            "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdz\"");
  for (int a = 0; a < 256; ++a)
    for (int b = 0; b < 256; ++b) {
      const std::string raw{static_cast<char>(a), static_cast<char>(b)};
      ASSERT_TRUE(json::accept(text(raw))) << a << ' ' << b;
    }
}

TEST(RemoteText, NamesHostsPrefixesAndPorts) {
  EXPECT_EQ(remote_text({*Prefix::parse("192.0.2.1"), {}}), "192.0.2.1");
  EXPECT_EQ(remote_text({*Prefix::parse("192.0.2.1"), Port::from(80)}), "192.0.2.1:80");
  EXPECT_EQ(remote_text({*Prefix::parse("192.0.2.0/24"), {}}), "192.0.2.0/24");
  EXPECT_EQ(remote_text({*Prefix::parse("2001:db8::1"), Port::from(80)}), "[2001:db8::1]:80");
  EXPECT_EQ(remote_text({*Prefix::parse("2001:db8::/32"), Port::from(80)}), "[2001:db8::]/32:80");
}

TEST(StatusJson, HasEveryMemberOfTheContract) {
  DaemonStatus daemon;
  daemon.version = "0.1.0";
  daemon.plane.name = "tun";
  daemon.plane.implicit_mappings = 3;
  daemon.plane.warnings = {"same", "plane"};
  daemon.warnings = {"same"};
  daemon.interfaces = {{"br0", "lan", true, {*Address::parse("192.168.1.1")}, true}};
  lease::ServiceStatus service;
  service.leases = 2;
  service.mappings = 1;
  service.statics = 1;
  service.store_state = "read-only: the disk is full";
  const auto status = json::parse(status_json(daemon, service, 77));
  for (const auto* key :
       {"version", "uptime_s", "data_plane", "data_plane_reason", "interfaces", "external_addresses",
        "epoch_s", "leases", "mappings", "flows", "store", "protocols", "warnings"})
    EXPECT_TRUE(status.contains(key)) << key;
  EXPECT_EQ(status["epoch_s"], 77);
  EXPECT_EQ(status["mappings"], 4);
  EXPECT_EQ(status["static_mappings"], 1);
  EXPECT_EQ(status["store"]["state"], "read-only");
  EXPECT_EQ(status["store"]["reason"], "the disk is full");
  EXPECT_EQ(status["warnings"], (json{"same", "plane"}));
  EXPECT_EQ(
      status["interfaces"][0],
      json::parse(R"({"name":"br0","role":"lan","up":true,"addresses":["192.168.1.1"],"served":true})"));
}

}  // namespace
}  // namespace sallyport::admin
