#include <cstdio>

#include "src/cli/command.hpp"
#include "src/cli/table.hpp"

namespace sallyport::cli {

int watch(const Options& options) {
  admin::Client client{options.socket};
  const auto done = client.watch(
      [&] {
        if (!options.json) complain("watching leases; end with Ctrl-C.");
      },
      [&](const admin::Event& event, std::string_view json) {
        put(options.json ? std::string{json} + "\n"
                         : event_line(event, time_of_day(), options.width, options.color));
        std::fflush(stdout);
        return true;
      });
  return done ? static_cast<int>(ok) : fail(options, done.error());
}

}  // namespace sallyport::cli
