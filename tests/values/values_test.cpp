#include <type_traits>

#include "sallyport/values/endpoint.hpp"
#include "sallyport/values/mapping_error.hpp"
#include "sallyport/values/remote_filter.hpp"
#include "sallyport/values/time.hpp"

namespace sallyport {
namespace {

TEST(PortValue, IsOneTo65535) {
  EXPECT_FALSE(Port::from(0));
  EXPECT_FALSE(Port::from(65536));
  EXPECT_EQ(Port::from(1)->number(), 1);
  EXPECT_EQ(Port::from(65535)->number(), 65535);
}

TEST(AddressText, ReadsFourDecimalNumbersAndIpv6AndNothingElse) {
  EXPECT_EQ(Address::parse("192.0.2.1"), Address::v4(0xc0000201));
  EXPECT_TRUE(Address::parse("2001:db8::1"));
  for (const auto* wrong : {"", "192.0.2", "192.0.2.256", "192.0.2.1 ", " 192.0.2.1", "0xc0.0.2.1", "localhost",
                            "192.0.2.1/24", "fe80::1%eth0", "1.2.3.4.5"})
    EXPECT_FALSE(Address::parse(wrong)) << wrong;
  EXPECT_FALSE(Address::parse(std::string_view{"192.0.2.1\0", 10}));
}

TEST(AddressText, IsReadBackAsItWasWritten) {
  for (const auto* text : {"192.0.2.1", "0.0.0.0", "255.255.255.255", "2001:db8::1", "::", "fe80::1"})
    EXPECT_EQ(Address::parse(text)->to_string(), text);
}

TEST(AddressBits, HoldIpv4AsMapped) {
  const auto address = Address::v4(0xcb007107);
  EXPECT_TRUE(address.is_v4());
  EXPECT_EQ(address.v4_number(), 0xcb007107U);
  EXPECT_FALSE(Address{}.is_v4());
  EXPECT_TRUE(Address{}.is_unspecified());
  EXPECT_TRUE(Address::v4(0).is_unspecified());
  EXPECT_FALSE(Address::v4(1).is_unspecified());
}

TEST(PrefixText, CountsBitsOfItsFamily) {
  EXPECT_EQ(Prefix::parse("192.0.2.0/24")->length, 120);
  EXPECT_EQ(Prefix::parse("192.0.2.1")->length, 128);
  EXPECT_EQ(Prefix::parse("2001:db8::/32")->length, 32);
  EXPECT_EQ(Prefix::parse("192.0.2.0/24")->to_string(), "192.0.2.0/24");
  for (const auto* wrong : {"192.0.2.0/33", "192.0.2.0/", "/24", "192.0.2.0/2x", "2001:db8::/129", "192.0.2.0/-1"})
    EXPECT_FALSE(Prefix::parse(wrong)) << wrong;
}

TEST(PrefixMatch, LooksAtItsOwnBitsOnly) {
  const auto prefix = *Prefix::parse("192.0.2.128/25");
  EXPECT_TRUE(prefix.contains(*Address::parse("192.0.2.129")));
  EXPECT_FALSE(prefix.contains(*Address::parse("192.0.2.127")));
  EXPECT_FALSE(prefix.contains(*Address::parse("2001:db8::1")));
  EXPECT_TRUE(Prefix::parse("0.0.0.0/0")->contains(*Address::parse("198.51.100.9")));
  EXPECT_TRUE((Prefix{Address{}, 0}.contains(*Address::parse("198.51.100.9"))));
}

TEST(RemoteFilterMatch, NeedsThePrefixAndThePortWhereItNamesOne) {
  const RemoteFilter any_port{*Prefix::parse("198.51.100.0/24"), std::nullopt};
  const RemoteFilter one_port{*Prefix::parse("198.51.100.7"), Port::from(53)};
  EXPECT_TRUE(any_port.allows(*Address::parse("198.51.100.9"), 1));
  EXPECT_FALSE(any_port.allows(*Address::parse("198.51.101.9"), 1));
  EXPECT_TRUE(one_port.allows(*Address::parse("198.51.100.7"), 53));
  EXPECT_FALSE(one_port.allows(*Address::parse("198.51.100.7"), 54));
}

TEST(EndpointSides, DoNotMix) {
  static_assert(!std::is_convertible_v<InternalEndpoint, ExternalEndpoint>);
  EXPECT_EQ(to_string(*Address::parse("192.0.2.1"), *Port::from(80)), "192.0.2.1:80");
  EXPECT_EQ(to_string(*Address::parse("2001:db8::1"), *Port::from(80)), "[2001:db8::1]:80");
}

TEST(MappingReasons, EachHaveASentence) {
  for (int value = 1; value <= static_cast<int>(MappingErrc::too_many_filters); ++value)
    EXPECT_NE(mapping_category().message(value), "unknown reason") << value;
  EXPECT_EQ(mapping_category().message(999), "unknown reason");
}

TEST(BootTime, GoesForward) {
  const auto before = BootClock::now();
  EXPECT_LE(before, BootClock::now());
}

}  // namespace
}  // namespace sallyport
