#pragma once

#include <cstdint>
#include <string_view>

#include "sallyport/values/mapping_error.hpp"

namespace sallyport::natpmp {

/// RFC 6886, section 3.5.
enum class ResultCode : std::uint16_t {
  success = 0,
  unsupported_version = 1,
  not_authorized = 2,
  network_failure = 3,
  out_of_resources = 4,
  unsupported_opcode = 5,
};

std::string_view to_string(ResultCode code) noexcept;

/// What a refusal of the mapping service becomes in an answer.
ResultCode result_code(MappingErrc reason) noexcept;

}  // namespace sallyport::natpmp
