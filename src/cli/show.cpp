#include <CLI/CLI.hpp>

#include "src/cli/command.hpp"
#include "src/cli/table.hpp"

namespace sallyport::cli {

void add_show(CLI::App& app, const Options& options, Run& run) {
  auto* command = app.add_subcommand("show", "Show everything about one lease");
  auto id = std::make_shared<std::string>();
  command->add_option("ID", *id, "An id of the list, or as much of it as is unique")->required();
  command->callback([&options, &run, id] {
    run = [&options, id] {
      admin::Client client{options.socket};
      if (options.json) {
        const auto done = client.fetch("/api/v1/leases/" + admin::percent_encode(*id), put);
        return done ? static_cast<int>(ok) : fail(options, done.error());
      }
      const auto lease = client.lease(*id);
      if (!lease) return fail(options, lease.error());
      put(lease_text(*lease));
      return static_cast<int>(ok);
    };
  });
}

}  // namespace sallyport::cli
