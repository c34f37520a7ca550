#include "src/transport/arrival_check.hpp"

namespace sallyport::transport {
namespace {

struct Row {
  const char* says;
  const char* source;
  const char* destination;
  std::uint32_t interface;
  Ignored expected;
};

// The gateway: br0 (3) has 192.168.1.1/24, and 10.9.0.0/16 is routed behind it; br1 (4) has 192.168.2.1/24;
// the WAN has 203.0.113.7.
nat::PlaneInterface br0() {
  nat::PlaneInterface interface;
  interface.name = "br0";
  interface.index = 3;
  interface.up = true;
  interface.addresses = {*Address::parse("192.168.1.1")};
  interface.prefixes = {*Prefix::parse("192.168.1.0/24"), *Prefix::parse("10.9.0.0/16")};
  return interface;
}

// POL-WHO-01, -02, -03; PCP-7-05, PCP-7-06, PCP-18-02; NPM-3.3-14
const Row rows[] = {
    {"a device of the LAN counts", "192.168.1.20", "192.168.1.1", 3, Ignored::no},
    {"a device behind a router of the LAN counts", "10.9.4.4", "192.168.1.1", 3, Ignored::no},
    {"by another interface", "192.168.1.20", "192.168.1.1", 4, Ignored::wrong_interface},
    {"by the WAN, to the LAN address", "198.51.100.9", "192.168.1.1", 2, Ignored::wrong_interface},
    {"to the external address", "192.168.1.20", "203.0.113.7", 3, Ignored::wrong_destination},
    {"to the gateway's address of another LAN", "192.168.1.20", "192.168.2.1", 3, Ignored::wrong_destination},
    {"to the subnet's broadcast address", "192.168.1.20", "192.168.1.255", 3, Ignored::wrong_destination},
    {"to the limited broadcast", "192.168.1.20", "255.255.255.255", 3, Ignored::wrong_destination},
    {"to a group", "192.168.1.20", "224.0.0.1", 3, Ignored::wrong_destination},
    {"to loopback", "192.168.1.20", "127.0.0.1", 3, Ignored::wrong_destination},
    {"from outside the LAN prefixes", "198.51.100.9", "192.168.1.1", 3, Ignored::wrong_source},
    {"from another LAN's prefix", "192.168.2.20", "192.168.1.1", 3, Ignored::wrong_source},
    {"from the gateway itself", "192.168.1.1", "192.168.1.1", 3, Ignored::wrong_source},
    {"from the external address", "203.0.113.7", "192.168.1.1", 3, Ignored::wrong_source},
    {"unspecified", "0.0.0.0", "192.168.1.1", 3, Ignored::wrong_source},
    {"from loopback", "127.0.0.1", "192.168.1.1", 3, Ignored::wrong_source},
    {"from a group", "224.0.0.1", "192.168.1.1", 3, Ignored::wrong_source},
    {"from the broadcast address", "255.255.255.255", "192.168.1.1", 3, Ignored::wrong_source},
    {"from the subnet's broadcast address", "192.168.1.255", "192.168.1.1", 3, Ignored::wrong_source},
    {"from the subnet's own address", "192.168.1.0", "192.168.1.1", 3, Ignored::wrong_source},
    {"from the routed network's broadcast address", "10.9.255.255", "192.168.1.1", 3, Ignored::wrong_source},
    {"link-local", "169.254.3.3", "192.168.1.1", 3, Ignored::wrong_source},
    {"reserved", "240.0.0.9", "192.168.1.1", 3, Ignored::wrong_source},
};

TEST(ArrivalCheck, GivesTheTablesAnswerToEachRow) {
  const std::vector<Address> own{*Address::parse("192.168.1.1"), *Address::parse("192.168.2.1"),
                                 *Address::parse("203.0.113.7"), *Address::parse("127.0.0.1")};
  for (const auto& row : rows) {
    const wire::Arrival arrival{*Address::parse(row.source), 40000, *Address::parse(row.destination),
                                row.interface};
    EXPECT_EQ(check_arrival(arrival, br0(), own), row.expected) << row.says;
  }
}

// br0 has 2001:db8:1::1/64 and fe80::1 too.
const Row ipv6_rows[] = {
    {"a host of the LAN counts", "2001:db8:1::20", "2001:db8:1::1", 3, Ignored::no},
    {"at the gateway's address on the link", "2001:db8:1::20", "fe80::1", 3, Ignored::no},
    {"from its own address on the link", "fe80::20", "fe80::1", 3, Ignored::no},
    {"from that to another address", "fe80::20", "2001:db8:1::1", 3, Ignored::wrong_source},
    {"by another interface", "2001:db8:1::20", "2001:db8:1::1", 4, Ignored::wrong_interface},
    {"to an address that is not the gateway's there", "2001:db8:1::20", "2001:db8:2::1", 3,
     Ignored::wrong_destination},
    {"to a group", "2001:db8:1::20", "ff02::1", 3, Ignored::wrong_destination},
    {"from outside the LAN prefixes", "2001:db8:2::20", "2001:db8:1::1", 3, Ignored::wrong_source},
    {"from the gateway itself", "2001:db8:1::1", "fe80::1", 3, Ignored::wrong_source},
    {"from the gateway's WAN address", "2001:db8:9::1", "2001:db8:1::1", 3, Ignored::wrong_source},
    {"unspecified", "::", "2001:db8:1::1", 3, Ignored::wrong_source},
    {"from loopback", "::1", "2001:db8:1::1", 3, Ignored::wrong_source},
    {"from a group", "ff02::1", "2001:db8:1::1", 3, Ignored::wrong_source},
    {"of the other family", "192.168.1.20", "2001:db8:1::1", 3, Ignored::wrong_source},
};

TEST(ArrivalCheck, GivesTheTablesAnswerToEachRowOfIpv6) {  // POL-WHO-01, -02, -03
  auto interface = br0();
  interface.addresses.push_back(*Address::parse("2001:db8:1::1"));
  interface.addresses.push_back(*Address::parse("fe80::1"));
  interface.prefixes.push_back(*Prefix::parse("2001:db8:1::/64"));
  const std::vector<Address> own{*Address::parse("2001:db8:1::1"), *Address::parse("2001:db8:9::1")};
  for (const auto& row : ipv6_rows) {
    const wire::Arrival arrival{*Address::parse(row.source), 40000, *Address::parse(row.destination),
                                row.interface};
    EXPECT_EQ(check_arrival(arrival, interface, own), row.expected) << row.says;
  }
}

TEST(ArrivalCheck, SourcePortZeroCannotBeAnswered) {
  const wire::Arrival arrival{*Address::parse("192.168.1.20"), 0, *Address::parse("192.168.1.1"), 3};
  EXPECT_EQ(check_arrival(arrival, br0(), {}), Ignored::wrong_source);
}

TEST(ArrivalCheck, BothHostsOfAPointToPointNetworkCount) {
  auto interface = br0();
  interface.prefixes = {*Prefix::parse("192.168.1.0/31")};
  interface.addresses = {*Address::parse("192.168.1.0")};
  const wire::Arrival arrival{*Address::parse("192.168.1.1"), 40000, *Address::parse("192.168.1.0"), 3};
  EXPECT_EQ(check_arrival(arrival, interface, interface.addresses), Ignored::no);
}

}  // namespace
}  // namespace sallyport::transport
