#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <functional>

#include <sys/ioctl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>

#include "src/cli/command.hpp"

namespace sallyport::cli {
namespace {

/// What the command line asks for: its words are parsed, then `run` is called.
class Commands {
 public:
  Commands(CLI::App& app, const Options& options) {
    auto* command = app.add_subcommand("status", "Show the state of the gateway; warnings come first");
    command->callback([&] { run = [&options] { return status(options); }; });

    command = app.add_subcommand("list", "Show who opened what, and until when");
    command->add_option("FILTER", list_.filters,
                        "device=ADDR|NAME protocol=tcp|udp family=ipv4|ipv6 via=pcp|natpmp|upnp|admin|config "
                        "kind=explicit|static|implicit external=PORT[-PORT] internal=PORT "
                        "state=active|disabled|pending|ending; all must hold");
    command->add_flag("--all", list_.all, "Implicit mappings too, made by outbound traffic");
    command->add_flag("--blocked", list_.blocked, "What revoke --block refuses now");
    command->callback([&] { run = [&] { return list(options, list_); }; });

    command = app.add_subcommand("show", "Show everything about one lease");
    command->add_option("ID", id_, "An id of the list, or as much of it as is unique")->required();
    command->callback([&] { run = [&] { return show(options, id_); }; });

    command = app.add_subcommand("revoke", "Close doors for good: mapping, flows, and the client is told");
    command->add_option("ID|FILTER", revoke_.what, "Ids, or filters as in list");
    const auto* block = command
                            ->add_option("--block", block_,
                                         "Refuse the device, protocol and internal port from now on: 90s, "
                                         "15m, 24h, 7d, forever")
                            ->type_name("TIME");
    command->add_flag("--dry-run", revoke_.dry_run, "Show what would go; change nothing");
    command->add_flag("-y,--yes", revoke_.yes, "Do not ask, also for more than one");
    command->callback([&, block] {
      if (block->count() > 0) revoke_.block = block_;
      run = [&] { return revoke(options, revoke_); };
    });

    command = app.add_subcommand("unblock", "Lift what revoke --block set");
    command->add_option("ID|FILTER", unblock_, "Ids of 'list --blocked', or device=, protocol=, internal=");
    command->callback([&] { run = [&] { return unblock(options, unblock_); }; });

    command = app.add_subcommand("watch", "Show leases as they come, change and go, one line each");
    command->callback([&] { run = [&options] { return watch(options); }; });

    command =
        app.add_subcommand("open", "Open a port of this host at its gateway, and keep it open until Ctrl-C");
    add_port_words(*command);
    command
        ->add_option("--for", open_.lifetime,
                     "Ask for leases of this time and renew them: 90s, 15m, 24h (default 2h)")
        ->type_name("TIME");
    command->add_option("--description", open_.description, "What the gateway's owner reads");
    command->add_option("--remote", open_.remotes, "Let in only this address or network; may be repeated")
        ->type_name("ADDR[/LEN]")
        ->allow_extra_args(false);
    command->add_flag("--exact", open_.exact, "Take that external port or none");
    command->add_flag("--detach-lease", open_.detach_lease, "End once it is open; the lease ends by itself");
    command->callback([&] { run = [&] { return open(options, open_); }; });

    command = app.add_subcommand("close", "Close a port that 'open' left open");
    add_port_words(*command);
    command->callback([&] { run = [&] { return close(options, open_); }; });

    command = app.add_subcommand("netcheck",
                                 "Show whether the internet can reach this host, or what is in the way");
    command
        ->add_option(
            "--stun", netcheck_.helper,
            "A STUN server on the internet (RFC 5780) that tries it from outside (default port: 3478)")
        ->type_name("HOST[:PORT]");
    command->add_option("--port", netcheck_.port, "The port to try (default: a free one)")
        ->check(CLI::Range(1, 65535));
    command
        ->add_option("--protocol", netcheck_.protocol, "udp (default) or tcp; from outside UDP only is tried")
        ->check(CLI::IsMember({"tcp", "udp"}));
    command->add_option("--for", netcheck_.patience, "Take no longer than this time (default 5s)")
        ->type_name("TIME");
    add_gateway_words(*command, netcheck_.gateway);
    command->callback([&] { run = [&] { return netcheck(options, netcheck_); }; });
  }
  Commands(const Commands&) = delete;
  Commands& operator=(const Commands&) = delete;

  std::function<int()> run;

 private:
  void add_port_words(CLI::App& command) {
    command.add_option("PORT", open_.port, "The port this host listens on")
        ->required()
        ->check(CLI::Range(1, 65535));
    command.add_option("--protocol", open_.protocol, "tcp (default) or udp")
        ->check(CLI::IsMember({"tcp", "udp"}));
    command.add_option("--external", open_.external, "The external port to suggest (default: the same)")
        ->check(CLI::Range(1, 65535))
        ->type_name("PORT");
    command.add_flag("-4,--ipv4", open_.only_ipv4, "A mapping by IPv4 only");
    command.add_flag("-6,--ipv6", open_.only_ipv6, "A pinhole by IPv6 only")->excludes("--ipv4");
    add_gateway_words(command, open_.gateway);
  }
  static void add_gateway_words(CLI::App& command, GatewayWords& words) {
    command.add_option("--via", words.via, "auto (default: all at once), pcp, natpmp or upnp")
        ->check(CLI::IsMember({"auto", "pcp", "natpmp", "upnp"}));
    command.add_option("--gateway", words.gateways, "Ask this gateway and no other; may be repeated")
        ->type_name("ADDR")
        ->allow_extra_args(false);  // or it would take PORT too
    command
        .add_option("--interface", words.interfaces, "Ask on this interface and no other; may be repeated")
        ->type_name("NAME")
        ->allow_extra_args(false);
  }

  OpenWords open_;
  NetcheckWords netcheck_;
  ListWords list_;
  RevokeWords revoke_;
  std::string id_, block_;
  std::vector<std::string> unblock_;
};

}  // namespace
}  // namespace sallyport::cli

int main(int argc, char** argv) {
  using namespace sallyport::cli;
  Options options;
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
      "Exit codes: 0 done, 1 failed, 2 wrong use, 3 not found, 4 not permitted, 5 daemon or gateway "
      "unreachable, 6 "
      "conflict, "
      "7 partly done.");
  const Commands commands{app, options};

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
                 "' is no command; there are status, list, show, revoke, unblock and watch; open, close "
                 "and netcheck.");
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

  const int code = commands.run();
  if (std::fflush(stdout) != 0) {
    complain("the output cannot be written.");
    return failed;
  }
  return code;
}
