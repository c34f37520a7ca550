#include "protocols/upnp/soap/error.hpp"

#include <span>
#include <string>

namespace sallyport::upnp::soap {
namespace {

struct Meaning {
  unsigned code;
  std::string_view description;
};

constexpr Meaning common[] = {
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

constexpr Meaning wan_connection[] = {
    {703, "InactiveConnectionStateRequired"},
    {704, "ConnectionSetupFailed"},
    {705, "ConnectionSetupInProgress"},
    {706, "ConnectionNotConfigured"},
    {707, "DisconnectInProgress"},
    {708, "InvalidLayer2Address"},
    {709, "InternetAccessDisabled"},
    {710, "InvalidConnectionType"},
    {711, "ConnectionAlreadyTerminated"},
    {713, "SpecifiedArrayIndexInvalid"},
    {714, "NoSuchEntryInArray"},
    {715, "WildCardNotPermittedInSrcIP"},
    {716, "WildCardNotPermittedInExtPort"},
    {718, "ConflictInMappingEntry"},
    {724, "SamePortValuesRequired"},
    {725, "OnlyPermanentLeasesSupported"},
    {726, "RemoteHostOnlySupportsWildcard"},
    {727, "ExternalPortOnlySupportsWildcard"},
    {728, "NoPortMapsAvailable"},
    {729, "ConflictWithOtherMechanisms"},
    {730, "PortMappingNotFound"},
    {731, "ReadOnly"},
    {732, "WildCardNotPermittedInIntPort"},
    {733, "InconsistentParameters"},
};

constexpr Meaning common_interface[] = {{713, "SpecifiedArrayIndexInvalid"}};

constexpr Meaning layer3_forwarding[] = {
    {720, "InvalidDeviceUUID"},
    {721, "InvalidServiceID"},
    {723, "InvalidConnServiceSelection"},
};

constexpr Meaning ipv6_firewall[] = {
    {701, "PinholeSpaceExhausted"},
    {702, "FirewallDisabled"},
    {703, "InboundPinholeNotAllowed"},
    {704, "NoSuchEntry"},
    {705, "ProtocolNotSupported"},
    {706, "InternalPortWildcardingNotAllowed"},
    {707, "ProtocolWildcardingNotAllowed"},
    {708, "WildCardNotPermittedInSrcIP"},
    {709, "NoPacketSent"},
};

struct ServiceMeanings {
  std::string_view name;
  std::span<const Meaning> meanings;
};
constexpr ServiceMeanings services[] = {
    {"WANIPConnection", wan_connection},
    {"WANPPPConnection", wan_connection},
    {"WANCommonInterfaceConfig", common_interface},
    {"Layer3Forwarding", layer3_forwarding},
    {"WANIPv6FirewallControl", ipv6_firewall},
};

constexpr std::string_view no_meaning = "Error";

std::string_view find(std::span<const Meaning> meanings, unsigned code) noexcept {
  for (const auto& each : meanings)
    if (each.code == code) return each.description;
  return no_meaning;
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wnon-virtual-dtor"  // Boost's, and nobody deletes a category
struct UpnpCategory final : boost::system::error_category {
  const char* name() const noexcept override { return "sallyport.upnp"; }
  std::string message(int value) const override {
    return std::string{find(common, static_cast<unsigned>(value))};
  }
};
#pragma GCC diagnostic pop

}  // namespace

const boost::system::error_category& upnp_category() noexcept {
  static const UpnpCategory category;
  return category;
}

std::string_view error_description(const description::ServiceTable& service, unsigned code) noexcept {
  if (code < 700) return find(common, code);
  const auto name = service.type.substr(service.type.rfind(':') + 1);  // npos + 1 is 0
  for (const auto& each : services)
    if (each.name == name) return find(each.meanings, code);
  return no_meaning;
}

}  // namespace sallyport::upnp::soap
