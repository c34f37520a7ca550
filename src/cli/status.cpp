#include "src/cli/command.hpp"
#include "src/cli/table.hpp"

namespace sallyport::cli {

int status(const Options& options) {
  admin::Client client{options.socket};
  if (options.json) {
    const auto done = client.fetch("/api/v1/status", put);
    return done ? static_cast<int>(ok) : fail(options, done.error());
  }
  const auto found = client.status();
  if (!found) return fail(options, found.error());
  put(status_text(*found, options.color));
  return ok;
}

}  // namespace sallyport::cli
