#include "src/cli/table.hpp"

#include <gtest/gtest.h>

namespace sallyport::cli {
namespace {

admin::Lease lease(std::string id, std::string device, std::optional<std::string> name,
                   std::uint16_t external) {
  admin::Lease lease;
  lease.id = std::move(id);
  lease.state = "active";
  lease.kind = "explicit";
  lease.family = "ipv4";
  lease.protocol = "udp";
  lease.internal_address = device;
  lease.internal_port = 3074;
  lease.external_address = "203.0.113.7";
  lease.external_port = external;
  lease.via = "pcp";
  lease.device = {device, {}, std::move(name)};
  lease.description = "Xbox Live";
  lease.lifetime_s = 3600;
  lease.remaining_s = 3512;
  lease.created = "2026-03-01T14:02:07Z";
  return lease;
}

std::string table(const std::vector<admin::Lease>& leases, std::size_t width = 80) {
  const LeaseTable table{leases, width};
  auto text = table.head();
  for (const auto& row : leases) text += table.row(row);
  return text;
}

std::size_t widest(const std::string& text) {
  std::size_t widest = 0, from = 0;
  for (auto end = text.find('\n'); end != text.npos; from = end + 1, end = text.find('\n', from))
    widest = std::max(widest, columns(std::string_view{text}.substr(from, end - from)));
  return widest;
}

TEST(LeaseTable, ReadsWellAt80Columns) {
  auto forever = lease("9xq3", "192.168.1.21", {}, 8443);
  forever.protocol = "tcp";
  forever.internal_port = 443;
  forever.kind = "static";
  forever.via = "config";
  forever.remaining_s.reset();
  forever.description = "the photos and everything else of the family";
  auto ending = lease("ab2c", "192.168.1.22", {}, 40000);
  ending.state = "ending";
  ending.via = "natpmp";
  ending.description.clear();
  auto implicit = lease("", "192.168.1.22", {}, 50000);
  implicit.via.reset();
  implicit.description.clear();
  implicit.remaining_s = 45;
  const auto text = table({lease("k7f2", "192.168.1.20", "xbox", 3074), forever, ending, implicit});
  EXPECT_EQ(text,
            "ID    DEVICE             PROTO    EXT -> INT    VIA        LEFT  DESCRIPTION\n"
            "k7f2  xbox 192.168.1.20  udp     3074 -> 3074   pcp         58m  Xbox Live\n"
            "9xq3  192.168.1.21       tcp     8443 -> 443    config  forever  the photos and…\n"
            "ab2c  192.168.1.22       udp    40000 -> 3074   natpmp   ending\n"
            "-     192.168.1.22       udp    50000 -> 3074   -           45s\n");
}

/// As a device opens one port for two far ends by UPnP, and holds a third entry that is switched off.
std::vector<admin::Lease> of_upnp(const std::string& device, std::optional<std::string> name) {
  std::vector<admin::Lease> rows;
  for (const auto* far : {"198.51.100.10", "198.51.100.200", ""}) {
    auto row = lease("k7f" + std::to_string(2 + rows.size()), device, name, 8556);
    row.protocol = "tcp";
    row.via = "upnp";
    row.description = "camera with quite a long name of its own";
    if (*far != '\0')
      row.remote = {far};
    else
      row.state = "disabled", row.remaining_s.reset(), row.lifetime_s.reset();
    rows.push_back(std::move(row));
  }
  return rows;
}

TEST(LeaseTable, TellsRowsApartThatDifferInWhoMayComeInOnly) {
  EXPECT_EQ(table(of_upnp("192.168.50.12", {})),
            "ID    DEVICE         PROTO    EXT -> INT    VIA         LEFT  DESCRIPTION\n"
            "k7f2  192.168.50.12  tcp     8556 -> 3074   upnp         58m  from 198.51.100.10\n"
            "k7f3  192.168.50.12  tcp     8556 -> 3074   upnp         58m  198.51.100.200\n"
            "k7f4  192.168.50.12  tcp     8556 -> 3074   upnp    disabled  camera with quite…\n");

  const auto named = table(of_upnp("192.168.100.212", "camera-of-the-garden"));
  for (const auto* far : {"198.51.100.10\n", "198.51.100.200\n", "camera with q"})
    EXPECT_NE(named.find(far), named.npos) << named;
  EXPECT_LE(widest(named), 80u);
  EXPECT_NE(table(of_upnp("192.168.50.12", {}), 110).find("from 198.51.100.10: camera with quite a long"),
            std::string::npos);
  auto several = of_upnp("192.168.50.12", {});
  several.front().remote.emplace_back("198.51.100.20");
  EXPECT_NE(table(several, 110).find("from 198.51.100.10 +1: camera"), std::string::npos);
}

TEST(LeaseTable, NeverGetsWiderThanTheTerminal) {
  auto wide = lease("k7f2", "192.168.100.200", "a-device-with-quite-a-long-name-indeed", 65535);
  wide.internal_port = 65535;
  wide.via = "natpmp";
  wide.description = std::string(255, 'd');
  const auto text = table({wide});
  EXPECT_LE(widest(text), 80u) << text;
  EXPECT_NE(text.find("192.168.100.200"), text.npos) << "the address stays whole\n" << text;
  EXPECT_LE(widest(table({wide}, 120)), 120u);
  wide.description = "日本語日本語日本語日本語日本語";
  EXPECT_LE(widest(table({wide})), 80u);
}

TEST(LeaseTable, ShowsTheExternalAddressWhereItDiffers) {
  auto other = lease("ab2c", "192.168.1.21", {}, 80);
  other.external_address = "203.0.113.8";
  const auto text = table({lease("k7f2", "192.168.1.20", {}, 3074), other});
  EXPECT_NE(text.find("203.0.113.7:3074 -> 3074"), text.npos) << text;
  EXPECT_NE(text.find("203.0.113.8:80 -> 3074"), text.npos) << text;
  EXPECT_LE(widest(text), 80u);
}

// POL-TXT-04
// issue 4, known clients: Apple's systems map port 9 to learn the external address
TEST(LeaseTable, ShowsPinholesAt80Columns) {
  auto long_one = lease("aaaa", "2001:db8:1234:5678:9abc:def0:1234:5678", {}, 8443);
  auto named = lease("bbbb", "2001:db8:1234:5678:9abc:def0:1234:9999", "nas", 443);
  for (auto* six : {&long_one, &named}) {
    six->family = "ipv6";
    six->external_address = six->device.address;
    six->internal_port = six->external_port;
  }
  const auto four = lease("cccc", "192.168.1.20", {}, 8080);
  const LeaseTable table{{long_one, named, four}, 80};
  const auto first = table.row(long_one), second = table.row(named);
  EXPECT_NE(first.find("2001:db8:1"), std::string::npos) << first;
  EXPECT_NE(first.find("1234:5678  udp"), std::string::npos) << "what tells hosts apart stays: " << first;
  EXPECT_NE(first.find(" 8443 -> 8443 "), std::string::npos) << "the address is not there twice: " << first;
  EXPECT_NE(second.find("nas 2001"), std::string::npos) << second;
  EXPECT_NE(second.find(":9999  udp"), std::string::npos) << second;
  EXPECT_NE(table.row(four).find("192.168.1.20 "), std::string::npos);
  for (const auto& row : {table.head(), first, second, table.row(four)}) EXPECT_LE(columns(row), 81u) << row;
}

TEST(LeaseTable, LabelsAddressProbes) {
  auto probe = lease("k7f2", "192.168.1.20", {}, 9000);
  probe.internal_port = 9;
  probe.via = "natpmp";
  probe.description.clear();
  EXPECT_NE(table({probe}).find("(address probe)"), std::string::npos);
  probe.description = "mine";
  EXPECT_EQ(table({probe}).find("probe"), std::string::npos);
  probe.description.clear();
  probe.via = "upnp";
  EXPECT_EQ(table({probe}).find("probe"), std::string::npos);
}

TEST(Printable, ShowsWhatIsNotPrintableAsItsOctets) {
  EXPECT_EQ(printable("Xbox é 日本 😀"), "Xbox é 日本 😀");
  EXPECT_EQ(printable("\x1b[31mred\n"), "\\x1b[31mred\\x0a");
  EXPECT_EQ(printable("\x7f\xc2\x9b"), "\\x7f\\xc2\\x9b");
  EXPECT_EQ(printable("a\xff\xc3"), "a\\xff\\xc3");
  EXPECT_EQ(printable("\u061c\u180e\u034f\ufff9\ue000"),
            "\\xd8\\x9c\\xe1\\xa0\\x8e\\xcd\\x8f\\xef\\xbf\\xb9\\xee\\x80\\x80");
  EXPECT_EQ(printable("\xe2\x80\xae"
                      "evil"),
            "\\xe2\\x80\\xaeevil");
  EXPECT_EQ(printable(std::string_view{"\0", 1}), "\\x00");
}

TEST(LeaseTable, EscapesWhatDevicesWrite) {
  auto evil = lease("k7f2", "192.168.1.20", "x\x1b[2J", 1);
  evil.description = "\nk7f3  forged";
  const auto text = table({evil});
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2);
  EXPECT_EQ(text.find('\x1b'), text.npos);
  EXPECT_EQ(lease_text(evil).find('\x1b'), std::string::npos);
}

TEST(Times, AreShort) {
  EXPECT_EQ(short_time(0), "0s");
  EXPECT_EQ(short_time(99), "99s");
  EXPECT_EQ(short_time(100), "1m");
  EXPECT_EQ(short_time(3599), "59m");
  EXPECT_EQ(short_time(6000), "1h");
  EXPECT_EQ(short_time(86400), "24h");
  EXPECT_EQ(short_time(7 * 86400), "7d");
  EXPECT_EQ(long_time(0), "0s");
  EXPECT_EQ(long_time(90061), "1d 1h 1m 1s");
  EXPECT_EQ(long_time(3600), "1h");
  EXPECT_EQ(amount(9999), "9999");
  EXPECT_EQ(amount(12345), "12.3 K");
  EXPECT_EQ(amount(18446744073709551615ull), "18.4 E");
}

TEST(BlockTable, ShowsWhoIsRefusedAndUntilWhen) {
  admin::Block block{"k7f2",     {"192.168.1.20", {}, "xbox"}, "udp", 3074, "2026-03-02T00:00:00Z", 86400,
                     "Xbox Live"};
  admin::Block forever{"ab2c", {"192.168.1.21", {}, {}}, "tcp", 80, {}, {}, ""};
  EXPECT_EQ(block_table({block, forever}, 80),
            "ID    DEVICE             PROTO  INTERNAL     LEFT  DESCRIPTION\n"
            "k7f2  xbox 192.168.1.20  udp        3074      24h  Xbox Live\n"
            "ab2c  192.168.1.21       tcp          80  forever\n");
}

TEST(LeaseText, TellsEverything) {
  auto one = lease("k7f2", "192.168.1.20", "xbox", 3075);
  one.device.mac = "02:00:00:00:00:20";
  one.remote = {"198.51.100.0/24:80"};
  one.renewals = 1;
  one.packets_in = 12345;
  one.bytes_in = 100;
  one.last_packet = "2026-03-01T14:03:00Z";
  EXPECT_EQ(lease_text(one),
            "id           k7f2\n"
            "device       xbox 192.168.1.20 (02:00:00:00:00:20)\n"
            "protocol     udp\n"
            "external     203.0.113.7:3075\n"
            "internal     192.168.1.20:3074\n"
            "remote       198.51.100.0/24:80\n"
            "description  Xbox Live\n"
            "state        active, explicit, via pcp\n"
            "left         58m 32s of 1h\n"
            "created      2026-03-01 14:02:07 UTC, renewed 1 time\n"
            "in           12.3 K packets, 100 B\n"
            "out          0 packets, 0 B\n"
            "last packet  2026-03-01 14:03:00 UTC\n");
}

TEST(LeaseText, NamesTheSetOfAPort) {
  auto one = lease("k7f2", "192.168.1.20", {}, 3075);
  one.set_size = 8;
  one.set_first = "k7e9";
  EXPECT_NE(lease_text(one).find("set          one of 8 ports that end together; the first is k7e9\n"),
            std::string::npos);
}

TEST(LeaseText, SaysWhatADisabledLeaseWithoutEndIs) {
  const auto text = lease_text(of_upnp("192.168.50.12", {}).back());
  EXPECT_NE(text.find("state        disabled (nothing comes in until its device enables it), explicit, via upnp\n"),
            text.npos) << text;
  EXPECT_NE(text.find("left         forever\n"), text.npos) << text;
}

TEST(LeaseText, OfAStaticMappingSaysNothingOfRenewals) {
  auto one = lease("k7f2", "192.168.1.20", {}, 443);
  one.kind = "static";
  EXPECT_NE(lease_text(one).find("created      2026-03-01 14:02:07 UTC\n"), std::string::npos);
}

TEST(LeaseText, BreaksALongListOfFarEnds) {
  auto one = lease("k7f2", "192.168.1.20", {}, 3075);
  for (int i = 0; i < 12; ++i) one.remote.push_back("198.51.100." + std::to_string(100 + i));
  EXPECT_LE(widest(lease_text(one)), 80u);
}

TEST(StatusText, PutsWarningsFirst) {
  admin::Status status;
  status.version = "0.1.0";
  status.uptime_s = 11520;
  status.data_plane = "tun";
  status.data_plane_reason = "asked for";
  status.store_state = "read-only";
  status.store_reason = "the disk is full";
  status.warnings = {"the store cannot be written: free some space"};
  status.interfaces = {{"br0", "lan", true, true, {"192.168.1.1"}}, {"br1", "lan", false, false, {}}};
  status.protocols = {"pcp", "natpmp"};
  status.leases = 2;
  status.blocks = 1;
  EXPECT_EQ(status_text(status, false),
            "sallyportd 0.1.0, up 3h 12m\n"
            "WARNING  the store cannot be written: free some space\n"
            "data plane   tun (asked for)\n"
            "external     none: no port can be opened until the WAN has an address\n"
            "lan          br0 up 192.168.1.1\n"
            "lan          br1 down, not served\n"
            "protocols    pcp, natpmp\n"
            "leases       2, and 1 blocked (list --blocked)\n"
            "mappings     0 (0 implicit)\n"
            "flows        0, 0 packets so far\n"
            "store        read-only: the disk is full\n"
            "epoch        0s\n");
  status.mappings = 3;
  status.static_mappings = 1;
  EXPECT_NE(status_text(status, false).find("mappings     3 (1 static, 0 implicit)\n"), std::string::npos);
  EXPECT_NE(status_text(status, true).find("\x1b[1;31mWARNING\x1b[0m"), std::string::npos);
}

TEST(StatusText, BreaksLongWarningsBetweenWords) {
  admin::Status status;
  status.version = "0.1.0";
  status.warnings = {"IPv6 is not translated or filtered yet; the system forwards it as it is configured",
                     std::string(90, 'x')};
  const auto text = status_text(status, false);
  EXPECT_NE(text.find("WARNING  IPv6 is not translated or filtered yet; the system forwards it as it is\n"
                      "         configured\n"
                      "WARNING  xxx"),
            std::string::npos)
      << text;
}

TEST(EventLine, IsAlignedAndFits) {
  admin::Event event{"granted", "requested", lease("k7f2", "192.168.1.20", "xbox", 3075)};
  EXPECT_EQ(event_line(event, "14:02:07", 80, false),
            "14:02:07  granted          k7f2  xbox 192.168.1.20   udp  3075 -> 3074       58m\n");
  event.event = "changed";
  event.reason = "address_changed";
  EXPECT_LE(columns(event_line(event, "14:02:07", 80, false)), 81u);
  event.lease.state = "disabled";
  EXPECT_NE(event_line(event, "14:02:07", 80, false).find("disabled\n"), std::string::npos);
  EXPECT_LE(columns(event_line(event, "14:02:07", 80, false)), 81u);
  event.lease.state = "active";
  event = {"ended", "revoked", event.lease};
  EXPECT_EQ(event_line(event, "14:02:07", 80, false),
            "14:02:07  ended (revoked)  k7f2  xbox 192.168.1.20   udp  3075 -> 3074\n");
  EXPECT_EQ(event_line(event, "14:02:07", 80, false).find('\x1b'), std::string::npos);
}

}  // namespace
}  // namespace sallyport::cli
