#include <cstdio>
#include <ctime>

#include "src/cli/command.hpp"
#include "src/cli/table.hpp"

namespace sallyport::cli {
namespace {

std::string time_of_day() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  ::localtime_r(&now, &local);
  char text[16];
  std::strftime(text, sizeof text, "%H:%M:%S", &local);
  return text;
}

}  // namespace

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
