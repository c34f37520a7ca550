#pragma once

#include <string_view>

namespace sallyport::admin {

/// api/openapi.json, built in.
extern const std::string_view openapi;

}  // namespace sallyport::admin
