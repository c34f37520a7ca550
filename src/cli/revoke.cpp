#include <cstdio>
#include <iostream>
#include <unordered_set>

#include <unistd.h>

#include "src/cli/command.hpp"
#include "src/cli/json_text.hpp"
#include "src/cli/table.hpp"

namespace sallyport::cli {
namespace {

void show_leases(const Options& options, const std::vector<admin::Lease>& leases) {
  const LeaseTable table{leases, options.width};
  put(table.head());
  for (const auto& lease : leases) put(table.row(lease));
}

/// The leases an answer names, for people to look at. One that is gone meanwhile is left out.
std::vector<admin::Lease> look_up(admin::Client& client, const admin::Filter& filter,
                                  const std::vector<std::string>& ids) {
  std::vector<admin::Lease> leases;
  if (!filter.empty()) {
    (void)client.leases(filter, false, [&](const admin::Lease& lease) {
      if (lease.kind != "static") leases.push_back(lease);
    });
    if (leases.size() >= ids.size()) return leases;
  }
  // the other ports of a set go with the one that fits
  std::unordered_set<std::string> known;
  for (const auto& lease : leases) known.insert(lease.id);
  for (const auto& id : ids)
    if (!known.contains(id))
      if (auto lease = client.lease(id)) leases.push_back(std::move(*lease));
  return leases;
}

int tell(const Options& options, const admin::RevokeAnswer& answer, const RevokeWords& words) {
  if (options.json) {
    std::string out =
        "{\"revoked\":" + json_list(answer.revoked) + ",\"failed\":" + json_list(answer.failed) +
        ",\"blocked_until\":" + (answer.blocked_until ? json_text(*answer.blocked_until) : "null");
    put(out + (words.dry_run ? ",\"dry_run\":true}\n" : "}\n"));
  } else if (!words.dry_run) {
    for (const auto& id : answer.revoked) put(printable(id) + " revoked\n");
    if (answer.blocked_until && !answer.revoked.empty())
      put(*answer.blocked_until == "forever" ? "blocked for good; 'sallyport unblock' lifts it\n"
                                             : "blocked until " + printable(*answer.blocked_until) +
                                                   "; 'sallyport unblock' lifts it earlier\n");
  }
  if (answer.revoked.empty() && answer.failed.empty()) {
    complain("no lease fits these filters. 'sallyport list' shows what there is.");
    return not_found;
  }
  return judge(answer.revoked, answer.failed);
}

}  // namespace

int revoke(const Options& options, const RevokeWords& words) {
  admin::RevokeRequest request;
  if (const int wrong = to_selection(words.what, "revoke", request.ids, request.filter)) return wrong;
  if (words.block) {
    if (words.block->empty())
      return wrong_use("--block needs a time: 90s, 15m, 24h, 7d or forever", "revoke");
    if (*words.block != "forever" && !admin::parse_duration(*words.block))
      return wrong_use("'" + *words.block + "' is no time to block for; say 90s, 15m, 24h, 7d or forever",
                       "revoke");
    request.block = *words.block;
  }
  admin::Client client{options.socket};
  const bool may_ask = ::isatty(STDIN_FILENO) == 1;
  if (!words.yes || words.dry_run) {
    auto trial = request;
    trial.dry_run = true;
    const auto would = client.revoke(trial);
    if (!would) return fail(options, would.error());
    if (words.dry_run) {
      if (!options.json && !would->revoked.empty()) {
        show_leases(options, look_up(client, request.filter, would->revoked));
        complain(std::to_string(would->revoked.size()) + " would be revoked; nothing was changed.");
      }
      return tell(options, *would, words);
    }
    if (would->revoked.size() > 1) {
      if (!may_ask)
        return wrong_use("this revokes " + std::to_string(would->revoked.size()) +
                             " leases; say -y to mean it, or --dry-run to see them",
                         "revoke");
      show_leases(options, look_up(client, request.filter, would->revoked));
      const auto question = "Revoke these " + std::to_string(would->revoked.size()) + " leases" +
                            (request.block ? " and block them" : "") + "? [y/N] ";
      std::fflush(stdout);
      std::fputs(question.c_str(), stderr);
      std::string reply;
      std::getline(std::cin, reply);
      if (reply != "y" && reply != "Y" && reply != "yes") {
        complain("nothing was changed.");
        return failed;
      }
      // what was shown is what goes: a lease that came meanwhile stays
      request.ids = would->revoked;
      const auto answer = client.revoke(request);
      if (!answer) return fail(options, answer.error());
      auto all = *answer;
      all.failed.insert(all.failed.end(), would->failed.begin(), would->failed.end());
      return tell(options, all, words);
    }
  }
  const auto answer = client.revoke(request);
  if (!answer) return fail(options, answer.error());
  return tell(options, *answer, words);
}

}  // namespace sallyport::cli
