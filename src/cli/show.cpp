#include "src/cli/command.hpp"
#include "src/cli/table.hpp"

namespace sallyport::cli {

int show(const Options& options, const std::string& id) {
  admin::Client client{options.socket};
  if (options.json) {
    const auto done = client.fetch("/api/v1/leases/" + admin::percent_encode(id), put);
    return done ? static_cast<int>(ok) : fail(options, done.error());
  }
  const auto lease = client.lease(id);
  if (!lease) return fail(options, lease.error());
  put(lease_text(*lease));
  return ok;
}

}  // namespace sallyport::cli
