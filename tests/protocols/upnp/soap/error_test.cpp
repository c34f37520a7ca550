#include "protocols/upnp/soap/error.hpp"

#include <gtest/gtest.h>

namespace sallyport::upnp::soap {
namespace {

description::ServiceTable service(std::string_view type) { return {.type = type}; }

// UDA-3-08
TEST(SoapError, DescribesTheCommonCodesAlikeInEveryService) {
  const std::pair<unsigned, std::string_view> table[] = {
      {401, "Invalid Action"},
      {402, "Invalid Args"},
      {404, "Invalid Var"},
      {501, "Action Failed"},
      {600, "Argument Value Invalid"},
      {601, "Argument Value Out of Range"},
      {602, "Optional Action Not Implemented"},
      {603, "Out of Memory"},
      {604, "Human Intervention Required"},
      {605, "String Argument Too Long"},
      {606, "Action not authorized"},
  };
  for (const auto& [code, text] : table)
    for (const auto* type :
         {"urn:schemas-upnp-org:service:WANIPConnection", "urn:example-org:service:Other"}) {
      EXPECT_EQ(error_description(service(type), code), text);
      EXPECT_EQ(make_error_code(static_cast<UpnpErrc>(code)).message(), text);
    }
}

TEST(SoapError, DescribesTheCodesOfAServiceByThatService) {
  const auto wan = service("urn:schemas-upnp-org:service:WANIPConnection");
  const auto ppp = service("urn:schemas-upnp-org:service:WANPPPConnection");
  const auto common = service("urn:schemas-upnp-org:service:WANCommonInterfaceConfig");
  const auto forwarding = service("urn:schemas-upnp-org:service:Layer3Forwarding");
  const auto firewall = service("urn:schemas-upnp-org:service:WANIPv6FirewallControl");
  EXPECT_EQ(error_description(wan, 704), "ConnectionSetupFailed");
  EXPECT_EQ(error_description(firewall, 704), "NoSuchEntry");
  EXPECT_EQ(error_description(common, 704), "Error");
  for (const auto& each : {wan, ppp, common})
    EXPECT_EQ(error_description(each, 713), "SpecifiedArrayIndexInvalid");
  EXPECT_EQ(error_description(firewall, 713), "Error");
  EXPECT_EQ(error_description(forwarding, 720), "InvalidDeviceUUID");
  EXPECT_EQ(error_description(forwarding, 721), "InvalidServiceID");
  EXPECT_EQ(error_description(forwarding, 723), "InvalidConnServiceSelection");
  for (unsigned code = 703; code <= 733; ++code) {
    const bool unused = code == 712 || code == 717 || (code >= 719 && code <= 723);
    EXPECT_EQ(error_description(wan, code) == "Error", unused) << code;
  }
  for (unsigned code = 700; code <= 710; ++code)
    EXPECT_EQ(error_description(firewall, code) == "Error", code == 700 || code == 710) << code;
  EXPECT_EQ(error_description(wan, 718), "ConflictInMappingEntry");
  EXPECT_EQ(error_description(wan, 733), "InconsistentParameters");
  EXPECT_EQ(error_description(firewall, 709), "NoPacketSent");
}

}  // namespace
}  // namespace sallyport::upnp::soap
