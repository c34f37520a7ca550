#include <CLI/CLI.hpp>

#include "src/cli/command.hpp"
#include "src/cli/table.hpp"

namespace sallyport::cli {

void add_status(CLI::App& app, const Options& options, Run& run) {
  auto* command = app.add_subcommand("status", "Show the state of the gateway; warnings come first");
  command->callback([&options, &run] {
    run = [&options] {
      admin::Client client{options.socket};
      if (options.json) {
        const auto done = client.fetch("/api/v1/status", put);
        return done ? static_cast<int>(ok) : fail(options, done.error());
      }
      const auto status = client.status();
      if (!status) return fail(options, status.error());
      put(status_text(*status, options.color));
      return static_cast<int>(ok);
    };
  });
}

}  // namespace sallyport::cli
