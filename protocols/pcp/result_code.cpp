#include "protocols/pcp/result_code.hpp"

namespace sallyport::pcp {

std::string_view to_string(ResultCode code) noexcept {
  switch (code) {
    case ResultCode::success:
      return "SUCCESS";
    case ResultCode::unsupp_version:
      return "UNSUPP_VERSION";
    case ResultCode::not_authorized:
      return "NOT_AUTHORIZED";
    case ResultCode::malformed_request:
      return "MALFORMED_REQUEST";
    case ResultCode::unsupp_opcode:
      return "UNSUPP_OPCODE";
    case ResultCode::unsupp_option:
      return "UNSUPP_OPTION";
    case ResultCode::malformed_option:
      return "MALFORMED_OPTION";
    case ResultCode::network_failure:
      return "NETWORK_FAILURE";
    case ResultCode::no_resources:
      return "NO_RESOURCES";
    case ResultCode::unsupp_protocol:
      return "UNSUPP_PROTOCOL";
    case ResultCode::user_ex_quota:
      return "USER_EX_QUOTA";
    case ResultCode::cannot_provide_external:
      return "CANNOT_PROVIDE_EXTERNAL";
    case ResultCode::address_mismatch:
      return "ADDRESS_MISMATCH";
    case ResultCode::excessive_remote_peers:
      return "EXCESSIVE_REMOTE_PEERS";
    case ResultCode::initiation:
      return "INITIATION";
    case ResultCode::authentication_required:
      return "AUTHENTICATION_REQUIRED";
    case ResultCode::authentication_failed:
      return "AUTHENTICATION_FAILED";
    case ResultCode::authentication_succeeded:
      return "AUTHENTICATION_SUCCEEDED";
    case ResultCode::authorization_failed:
      return "AUTHORIZATION_FAILED";
    case ResultCode::session_terminated:
      return "SESSION_TERMINATED";
    case ResultCode::unknown_session_id:
      return "UNKNOWN_SESSION_ID";
    case ResultCode::downgrade_attack_detected:
      return "DOWNGRADE_ATTACK_DETECTED";
    case ResultCode::authentication_request:
      return "AUTHENTICATION_REQUEST";
    case ResultCode::authentication_reply:
      return "AUTHENTICATION_REPLY";
    case ResultCode::third_party_id_unknown:
      return "THIRD_PARTY_ID_UNKNOWN";
    case ResultCode::third_party_missing_option:
      return "THIRD_PARTY_MISSING_OPTION";
    case ResultCode::unsupp_third_party_id_length:
      return "UNSUPP_THIRD_PARTY_ID_LENGTH";
  }
  return "unknown result";
}

std::uint32_t error_lifetime_s(ResultCode code) noexcept {
  switch (code) {
    case ResultCode::network_failure:
    case ResultCode::no_resources:
    case ResultCode::user_ex_quota:
    case ResultCode::cannot_provide_external:
      return short_error_lifetime_s;
    default:
      return long_error_lifetime_s;
  }
}

ErrorAnswer error_answer(const Refusal& refusal, bool insisted, bool filtered) noexcept {
  const auto of_class = [](ResultCode code) { return ErrorAnswer{code, error_lifetime_s(code)}; };
  const auto remaining = [&](ResultCode code) {
    return ErrorAnswer{code, refusal.retry_after_s.value_or(error_lifetime_s(code))};
  };
  switch (refusal.reason) {  // no default: the compiler names a forgotten reason
    case MappingErrc::not_authorized:
    case MappingErrc::not_owned_here:
      return of_class(ResultCode::not_authorized);
    case MappingErrc::device_blocked:
    case MappingErrc::foreign_nonce:
      return remaining(ResultCode::not_authorized);
    case MappingErrc::quota_exceeded:
      return of_class(ResultCode::user_ex_quota);
    case MappingErrc::no_external_address:
      return of_class(ResultCode::network_failure);
    case MappingErrc::no_pinholes:
      return of_class(ResultCode::unsupp_opcode);  // switched off for this family (section 7.4)
    case MappingErrc::unsupported_transport:
      return of_class(ResultCode::unsupp_protocol);
    case MappingErrc::insisted_port_taken:
      return insisted ? remaining(ResultCode::cannot_provide_external) : of_class(ResultCode::no_resources);
    case MappingErrc::insisted_port_forbidden:
      return insisted ? ErrorAnswer{ResultCode::cannot_provide_external, long_error_lifetime_s}
                      : of_class(ResultCode::no_resources);
    case MappingErrc::too_many_filters:
      return of_class(filtered ? ResultCode::excessive_remote_peers : ResultCode::no_resources);
    case MappingErrc::no_ports_left:
    case MappingErrc::no_memory:
    case MappingErrc::not_found:
    case MappingErrc::store_unavailable:
      return of_class(ResultCode::no_resources);
  }
  return of_class(ResultCode::no_resources);
}

}  // namespace sallyport::pcp
