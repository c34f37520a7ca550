#include "protocols/natpmp/result_code.hpp"

namespace sallyport::natpmp {

std::string_view to_string(ResultCode code) noexcept {
  switch (code) {
    case ResultCode::success:
      return "success";
    case ResultCode::unsupported_version:
      return "unsupported version";
    case ResultCode::not_authorized:
      return "not authorized";
    case ResultCode::network_failure:
      return "network failure";
    case ResultCode::out_of_resources:
      return "out of resources";
    case ResultCode::unsupported_opcode:
      return "unsupported opcode";
  }
  return "unknown result";
}

ResultCode result_code(MappingErrc reason) noexcept {
  switch (reason) {  // no default: the compiler names a forgotten reason
    case MappingErrc::not_authorized:
    case MappingErrc::device_blocked:
    case MappingErrc::unsupported_transport:
    case MappingErrc::foreign_nonce:
    case MappingErrc::not_owned_here:
      return ResultCode::not_authorized;
    case MappingErrc::no_external_address:
      return ResultCode::network_failure;
    case MappingErrc::no_ports_left:
    case MappingErrc::no_memory:
    case MappingErrc::quota_exceeded:
    case MappingErrc::insisted_port_taken:
    case MappingErrc::insisted_port_forbidden:
    case MappingErrc::not_found:
    case MappingErrc::store_unavailable:
    case MappingErrc::too_many_filters:
    case MappingErrc::no_pinholes:
      return ResultCode::out_of_resources;
  }
  return ResultCode::out_of_resources;
}

}  // namespace sallyport::natpmp
