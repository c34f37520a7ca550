#include "src/client/netcheck/address_kind.hpp"

#include <gtest/gtest.h>

namespace sallyport::client {
namespace {

using enum AddressKind;

TEST(AddressKind, KnowsTheFirstAndLastAddressOfEachSpecialPrefixAndTheirNeighbours) {
  struct Row {
    const char* address;
    AddressKind kind;
  };
  constexpr Row rows[] = {
      {"0.0.0.0", unspecified},
      {"0.0.0.1", reserved},
      {"0.255.255.255", reserved},
      {"1.0.0.0", global},
      {"9.255.255.255", global},
      {"10.0.0.0", private_use},
      {"10.255.255.255", private_use},
      {"11.0.0.0", global},
      {"100.63.255.255", global},
      {"100.64.0.0", shared},
      {"100.127.255.255", shared},
      {"100.128.0.0", global},
      {"126.255.255.255", global},
      {"127.0.0.1", loopback},
      {"127.255.255.255", loopback},
      {"128.0.0.0", global},
      {"169.253.255.255", global},
      {"169.254.0.0", link_local},
      {"169.254.255.255", link_local},
      {"169.255.0.0", global},
      {"172.15.255.255", global},
      {"172.16.0.0", private_use},
      {"172.31.255.255", private_use},
      {"172.32.0.0", global},
      {"192.0.0.0", ds_lite},
      {"192.0.0.7", ds_lite},
      {"192.0.0.8", reserved},
      {"192.0.0.255", reserved},
      {"192.0.1.0", global},
      {"192.0.2.1", documentation},
      {"192.0.3.0", global},
      {"192.88.99.1", reserved},
      {"192.167.255.255", global},
      {"192.168.0.0", private_use},
      {"192.168.255.255", private_use},
      {"192.169.0.0", global},
      {"198.17.255.255", global},
      {"198.18.0.0", reserved},
      {"198.19.255.255", reserved},
      {"198.20.0.0", global},
      {"198.51.100.10", documentation},
      {"198.51.101.0", global},
      {"203.0.112.255", global},
      {"203.0.113.7", documentation},
      {"203.0.114.7", global},
      {"223.255.255.255", global},
      {"224.0.0.1", reserved},
      {"240.0.0.1", reserved},
      {"255.255.255.255", reserved},
      {"::", unspecified},
      {"::1", loopback},
      {"::2", reserved},
      {"64:ff9b::1", reserved},
      {"2000::1", global},
      {"2001::1", reserved},
      {"2001:1ff:ffff::", reserved},
      {"2001:200::1", global},
      {"2001:db8::1", documentation},
      {"2001:db9::1", global},
      {"2002:c000:201::1", reserved},
      {"2003::1", global},
      {"3fff::1", documentation},
      {"3fff:1000::", global},
      {"4000::1", reserved},
      {"fbff::1", reserved},
      {"fc00::1", private_use},
      {"fdff::1", private_use},
      {"fe80::1", link_local},
      {"febf::1", link_local},
      {"fec0::1", reserved},
      {"ff02::1", reserved},
  };
  for (const auto& row : rows) EXPECT_EQ(kind_of(*Address::parse(row.address)), row.kind) << row.address;
}

TEST(AddressKind, CountsWhatLabsUseAsPublicAndTunnelsToTheProvidersNatAsItsOwn) {
  EXPECT_TRUE(is_public(global));
  EXPECT_TRUE(is_public(documentation));
  for (const auto kind : {private_use, shared, ds_lite, link_local, loopback, unspecified, reserved})
    EXPECT_FALSE(is_public(kind)) << describe(kind);
  EXPECT_TRUE(is_carrier(shared));
  EXPECT_TRUE(is_carrier(ds_lite));
  EXPECT_FALSE(is_carrier(private_use));
}

}  // namespace
}  // namespace sallyport::client
