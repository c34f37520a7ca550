#include "sallyport/values/mapping_error.hpp"

namespace sallyport {
namespace {

#pragma GCC diagnostic ignored "-Wnon-virtual-dtor"  // Boost's categories are never deleted by their base
struct MappingCategory final : boost::system::error_category {
  const char* name() const noexcept override { return "sallyport.mapping"; }
  std::string message(int value) const override {
    switch (static_cast<MappingErrc>(value)) {  // no default: the compiler names a forgotten reason
      case MappingErrc::not_authorized: return "the policy does not let this device map this port";
      case MappingErrc::device_blocked: return "the administrator has blocked this port of this device";
      case MappingErrc::no_ports_left: return "every external port this device may have is taken";
      case MappingErrc::no_memory: return "a table of the gateway is full";
      case MappingErrc::quota_exceeded: return "the device already holds as many leases as it may";
      case MappingErrc::insisted_port_taken: return "the client insisted on a port that it cannot have now";
      case MappingErrc::insisted_port_forbidden: return "the client insisted on a port that nobody may have";
      case MappingErrc::no_external_address: return "the gateway has no external address now";
      case MappingErrc::unsupported_transport: return "only single TCP and UDP ports are mapped";
      case MappingErrc::foreign_nonce: return "the mapping was made with another nonce";
      case MappingErrc::not_owned_here: return "the mapping was not made by this protocol";
      case MappingErrc::not_found: return "there is no such lease";
      case MappingErrc::store_unavailable: return "the lease store cannot be written";
      case MappingErrc::too_many_filters: return "more remote filters than one mapping can have";
      case MappingErrc::no_pinholes:
        return "IPv6 passes without a firewall, so there is nothing to open";
    }
    return "unknown reason";
  }
};

}  // namespace

const boost::system::error_category& mapping_category() noexcept {
  static const MappingCategory category;
  return category;
}

}  // namespace sallyport
