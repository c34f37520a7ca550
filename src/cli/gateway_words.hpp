#pragma once

#include <string_view>

#include "sallyport/client/client.hpp"
#include "src/cli/command.hpp"

namespace sallyport::cli {

/// Which gateways a command asks, and how; 0, or the exit code after telling what is wrong.
int to_client_options(const GatewayWords& words, std::string_view command, client::ClientOptions& options);

}  // namespace sallyport::cli
