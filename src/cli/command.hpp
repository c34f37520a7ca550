#pragma once

#include <optional>
#include <string>
#include <vector>

#include "sallyport/admin/client.hpp"

/// What the commands of `sallyport` share.
namespace sallyport::cli {

/// The contract's exit codes.
enum ExitCode : int {
  ok = 0,
  failed = 1,
  usage = 2,
  not_found = 3,
  not_permitted = 4,
  unreachable = 5,
  conflict = 6,
  partly_done = 7,
};

struct Options {
  std::string socket = "/run/sallyport/admin.sock";
  bool json = false;
  bool no_color = false;

  // found out by main
  bool color = false;      ///< stdout is a terminal that shows colours
  std::size_t width = 80;  ///< of the terminal; 80 where there is none
};

struct ListWords {
  std::vector<std::string> filters;
  bool all = false, blocked = false;
};
struct RevokeWords {
  std::vector<std::string> what;
  std::optional<std::string> block;
  bool dry_run = false, yes = false;
};

/// How gateways are asked, of the commands that ask any gateway and not the daemon.
struct GatewayWords {
  std::string via = "auto";  ///< auto, pcp, natpmp, upnp
  std::vector<std::string> gateways, interfaces;
};
struct OpenWords {
  unsigned port = 0;  ///< 1..65535
  std::string protocol = "tcp";
  std::optional<unsigned> external;
  std::optional<std::string> lifetime;
  std::string description = "sallyport";
  std::vector<std::string> remotes;
  bool exact = false, only_ipv4 = false, only_ipv6 = false, detach_lease = false;
  GatewayWords gateway;
};
struct NetcheckWords {
  std::optional<std::string> helper;  ///< HOST[:PORT]
  std::optional<unsigned> port;       ///< 1..65535
  std::string protocol = "udp";
  std::optional<std::string> patience;
  GatewayWords gateway;
};

/// The commands, each in its own file; the exit code. What their words look like is main.cpp's.
int status(const Options& options);
int list(const Options& options, const ListWords& words);
int show(const Options& options, const std::string& id);
int revoke(const Options& options, const RevokeWords& words);
int unblock(const Options& options, const std::vector<std::string>& what);
int watch(const Options& options);
int open(const Options& options, const OpenWords& words);
int close(const Options& options, const OpenWords& words);
int netcheck(const Options& options, const NetcheckWords& words);

/// "sallyport: TEXT" on stderr; the text is made printable.
void complain(std::string_view text);
/// Says what went wrong and what to do about it; the exit code for it.
int fail(const Options& options, const admin::Failure& failure);
int wrong_use(std::string_view text, std::string_view command);

/// "12:34:56", local time.
std::string time_of_day();

/// Writes to stdout. A reader that has gone ends the program quietly.
void put(std::string_view text);

/// Words of the command line to a filter; a usage error is told and 2 returned.
int to_filter(const std::vector<std::string>& words, std::string_view command, admin::Filter& filter);

/// Ids or filter words, but not both; 0, or the exit code after telling.
int to_selection(const std::vector<std::string>& words, std::string_view command,
                 std::vector<std::string>& ids, admin::Filter& filter);

/// The exit code of a revoke or unblock of several: told on stderr what failed.
int judge(const std::vector<std::string>& done, const std::vector<admin::RevokeAnswer::Failed>& failed);

}  // namespace sallyport::cli
