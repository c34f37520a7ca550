#pragma once

#include <cstdint>
#include <string_view>

#include "sallyport/values/mapping_service.hpp"

namespace sallyport::pcp {

/// RFC 6887, section 7.4; RFC 7652; RFC 7843.
enum class ResultCode : std::uint8_t {
  success = 0,
  unsupp_version = 1,
  not_authorized = 2,
  malformed_request = 3,
  unsupp_opcode = 4,
  unsupp_option = 5,
  malformed_option = 6,
  network_failure = 7,
  no_resources = 8,
  unsupp_protocol = 9,
  user_ex_quota = 10,
  cannot_provide_external = 11,
  address_mismatch = 12,
  excessive_remote_peers = 13,
  initiation = 14,
  authentication_required = 15,
  authentication_failed = 16,
  authentication_succeeded = 17,
  authorization_failed = 18,
  session_terminated = 19,
  unknown_session_id = 20,
  downgrade_attack_detected = 21,
  authentication_request = 22,
  authentication_reply = 23,
  third_party_id_unknown = 24,
  third_party_missing_option = 25,
  unsupp_third_party_id_length = 26,
};

/// "NOT_AUTHORIZED" and so on; "unknown result" for a code without a name.
std::string_view to_string(ResultCode code) noexcept;

inline constexpr std::uint32_t short_error_lifetime_s = 30;
inline constexpr std::uint32_t long_error_lifetime_s = 1800;

/// For how many seconds the same request meets this error when nothing better is known (PCP-7.4-01).
std::uint32_t error_lifetime_s(ResultCode code) noexcept;

/// What a refusal of the mapping service becomes in an answer.
struct ErrorAnswer {
  ResultCode code{};
  std::uint32_t lifetime_s = 0;
  friend bool operator==(const ErrorAnswer&, const ErrorAnswer&) = default;
};
/// `insisted`: the request had PREFER_FAILURE, `filtered`: FILTER; the codes that speak of these go to no
/// other request (PCP-7.4-03, PCP-7.4-04).
ErrorAnswer error_answer(const Refusal& refusal, bool insisted, bool filtered) noexcept;

}  // namespace sallyport::pcp
