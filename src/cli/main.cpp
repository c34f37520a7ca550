#include <clocale>
#include <cstdio>
#include <cstdlib>

#include <sys/ioctl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>

#include "src/cli/command.hpp"

int main(int argc, char** argv) {
  using namespace sallyport::cli;
  Options options;
  Run run;
  CLI::App app{"Who opened which port of this gateway, until when, and how to take it back."};
  app.name("sallyport");
  app.option_defaults()->always_capture_default(false);
  app.add_option("--socket", options.socket, "The daemon's admin socket (default: " + options.socket + ")")
      ->type_name("PATH");
  app.add_flag("--json", options.json, "JSON for programs instead of tables for people");
  app.add_flag("--no-color", options.no_color, "No colours (as NO_COLOR in the environment)");
  app.set_version_flag("--version", std::string{"sallyport "} + SALLYPORT_VERSION);
  app.require_subcommand(1);
  app.fallthrough();
  app.footer(
      "Exit codes: 0 done, 1 failed, 2 wrong use, 3 not found, 4 not permitted, 5 daemon unreachable, 6 "
      "conflict, "
      "7 partly done.");
  add_status(app, options, run);
  add_list(app, options, run);
  add_show(app, options, run);
  add_revoke(app, options, run);
  add_unblock(app, options, run);
  add_watch(app, options, run);

  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp& help) {
    return app.exit(help) == 0 ? ok : failed;
  } catch (const CLI::CallForAllHelp& help) {
    return app.exit(help) == 0 ? ok : failed;
  } catch (const CLI::CallForVersion& version) {
    return app.exit(version) == 0 ? ok : failed;
  } catch (const CLI::ParseError& error) {
    if (app.get_subcommands().empty())
      for (int i = 1; i < argc; ++i) {
        const std::string_view word{argv[i]};
        if (word == "--socket") ++i;
        if (word.empty() || word.front() == '-') continue;
        complain("'" + std::string{word} +
                 "' is no command; there are status, list, show, revoke, unblock and watch.");
        return usage;
      }
    complain(std::string{error.what()} +
             ". 'sallyport --help' shows the commands, 'sallyport COMMAND --help' one.");
    return usage;
  }

  const bool terminal = ::isatty(STDOUT_FILENO) == 1;
  const char* no_color = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  options.color = terminal && !options.no_color && !(no_color && *no_color) &&
                  !(term && std::string_view{term} == "dumb");
  winsize size{};
  if (terminal && ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 80)
    options.width = size.ws_col;

  const int code = run();
  if (std::fflush(stdout) != 0) {
    complain("the output cannot be written.");
    return failed;
  }
  return code;
}
