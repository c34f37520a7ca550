#include "protocols/upnp/soap/argument.hpp"

#include <gtest/gtest.h>

#include <string>

namespace sallyport::upnp::soap {
namespace {

using namespace std::string_literals;

// POL-NUM-01, UDA-3-17, WIC-ADD-09
TEST(SoapArgument, ReadsNumbersOfDigitsWithBlanksAroundAndLeadingZeros) {
  const std::pair<std::string, std::uint16_t> table[] = {
      {"0", 0},        {"1", 1},        {"8080", 8080}, {"65535", 65535},
      {" 80\r\n", 80}, {"\t0080 ", 80}, {"000", 0},     {std::string(5000, '0') + "65535", 65535},
  };
  for (const auto& [text, number] : table) {
    EXPECT_EQ(parse_ui2(text).value(), number) << text;
    EXPECT_EQ(parse_ui4(text).value(), number) << text;
  }
  EXPECT_EQ(parse_ui4("4294967295").value(), 4294967295u);
}

// POL-NUM-01, WIC-GEN-03, UPNP-X-17
TEST(SoapArgument, NeverTakesANumberBeyondTheTypeModuloIt) {
  for (const std::string text :
       {"65536", "73616", "131072", "4294967296", "4294967297", "18446744073709551616",
        "18446744073709551617", "36893488147419103233", " 0065536 "}) {
    EXPECT_EQ(parse_ui2(text).error(), UpnpErrc::value_out_of_range) << text;
    EXPECT_EQ(parse_ui2(text, UpnpErrc::invalid_args).error(), UpnpErrc::invalid_args) << text;
  }
  for (const std::string text : {"4294967296", "4294967297", "18446744073709551617", "99999999999"})
    EXPECT_EQ(parse_ui4(text).error(), UpnpErrc::value_out_of_range) << text;
  EXPECT_EQ(parse_ui2(std::string(60000, '9')).error(), UpnpErrc::value_out_of_range);
}

// POL-NUM-01, POL-NUM-03
TEST(SoapArgument, TakesNothingElseForANumber) {
  for (const std::string& text : {""s,
                                 " "s,
                                 "+80"s,
                                 "-1"s,
                                 "-0"s,
                                 "0x50"s,
                                 "80h"s,
                                 "8e1"s,
                                 "80.0"s,
                                 "80."s,
                                 "8 0"s,
                                 "80 81"s,
                                 "80,81"s,
                                 "80s"s,
                                 "1_0"s,
                                 "\u0661"s,
                                 "\uff18"s,
                                 "\u00a0"
                                 "80"s,
                                 "80\0"s,
                                 "99999999x"s,
                                 "\v80"s,
                                 "\f80"s,
                                 "eighty"s})
    for (const auto beyond : {UpnpErrc::value_out_of_range, UpnpErrc::invalid_args}) {
      EXPECT_EQ(parse_ui2(text, beyond).error(), UpnpErrc::invalid_args) << text;
      EXPECT_EQ(parse_ui4(text, beyond).error(), UpnpErrc::invalid_args) << text;
    }
}

// UDA-3-11, POL-NUM-02
TEST(SoapArgument, ReadsSixWordsAsBooleans) {
  for (const std::string text : {"1", "true", "True", "TRUE", "yes", "YES", " 1 ", "\r\ntrue\t"})
    EXPECT_EQ(parse_boolean(text).value(), true) << text;
  for (const std::string text : {"0", "false", "False", "no", "No", " 0\n"})
    EXPECT_EQ(parse_boolean(text).value(), false) << text;
  for (const std::string& text :
       {""s, " "s, "2"s, "-1"s, "00"s, "01"s, "on"s, "off"s, "t"s, "y"s, "truex"s, "true\0"s, "1 0"s})
    EXPECT_EQ(parse_boolean(text).error(), UpnpErrc::invalid_args) << text;
}

// POL-NUM-02, WIC-SPEC-05, UPNP-X-04
TEST(SoapArgument, ReadsTcpAndUdpInAnyCaseAndNoOtherProtocol) {
  for (const std::string text : {"TCP", "tcp", "Tcp", " TCP\r\n"})
    EXPECT_EQ(parse_transport(text).value(), Transport::tcp) << text;
  for (const std::string text : {"UDP", "udp", "uDp", "\tudp "})
    EXPECT_EQ(parse_transport(text).value(), Transport::udp) << text;
  for (const std::string& text :
       {"ICMP"s, "TCPUDP"s, "TCP/UDP"s, "TCP,UDP"s, "6"s, "17"s, "T CP"s, "tcp\0"s, "both"s})
    EXPECT_EQ(parse_transport(text).error(), UpnpErrc::value_invalid) << text;
  for (const std::string text : {"", " \t"})
    EXPECT_EQ(parse_transport(text).error(), UpnpErrc::invalid_args) << text;
}

TEST(SoapArgument, TrimsXmlsBlanksOnly) {
  EXPECT_EQ(trimmed(" \t\r\na b\n"), "a b");
  EXPECT_EQ(trimmed(" \n"), "");
  EXPECT_EQ(trimmed("\u00a0"), "\u00a0");
}

}  // namespace
}  // namespace sallyport::upnp::soap
