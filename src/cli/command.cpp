#include "src/cli/command.hpp"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include "src/cli/table.hpp"

namespace sallyport::cli {

void complain(std::string_view text) {
  std::fflush(stdout);
  const auto line = "sallyport: " + printable(text) + "\n";
  std::fwrite(line.data(), 1, line.size(), stderr);
}

int fail(const Options& options, const admin::Failure& failure) {
  using Kind = admin::Failure::Kind;
  switch (failure.kind) {
    case Kind::unreachable:
      complain(failure.message +
               ". Is sallyportd running? Start it with 'systemctl start sallyportd', or name its " +
               "socket with --socket PATH (now " + options.socket + ").");
      return unreachable;
    case Kind::not_permitted:
      complain(failure.message +
               ". Use sudo, or join its group: 'sudo usermod -aG sallyport $USER' and log in again.");
      return not_permitted;
    case Kind::not_found:
      complain(failure.message + ". 'sallyport list' shows what there is.");
      return not_found;
    case Kind::conflict:
      complain(failure.message + ".");
      return conflict;
    case Kind::bad_request:
    case Kind::failed:
      complain(failure.message + ".");
      return failed;
  }
  return failed;
}

int wrong_use(std::string_view text, std::string_view command) {
  complain(std::string{text} + ". See 'sallyport " + std::string{command} + " --help'.");
  return usage;
}

std::string time_of_day() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  ::localtime_r(&now, &local);
  char text[16];
  std::strftime(text, sizeof text, "%H:%M:%S", &local);
  return text;
}

void put(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size()) return;
  if (errno == EPIPE) std::_Exit(ok);
  complain(std::string{"the output cannot be written: "} + std::strerror(errno) + ".");
  std::_Exit(failed);
}

int to_filter(const std::vector<std::string>& words, std::string_view command, admin::Filter& filter) {
  for (const auto& word : words)
    if (const auto narrowed = admin::narrow(filter, word); !narrowed)
      return wrong_use(narrowed.error(), command);
  return ok;
}

int to_selection(const std::vector<std::string>& words, std::string_view command,
                 std::vector<std::string>& ids, admin::Filter& filter) {
  std::vector<std::string> filters;
  for (const auto& word : words) (word.find('=') == word.npos ? ids : filters).push_back(word);
  if (words.empty())
    return wrong_use("say what is meant: ids (k7f2), or filters such as device=xbox", command);
  if (!ids.empty() && !filters.empty()) return wrong_use("give ids or filters, not both", command);
  for (const auto& id : ids)
    for (const char c : id)
      if (!((c >= 'a' && c <= 'z') || (c >= '2' && c <= '9')))
        return wrong_use(
            "'" + id + "' is neither an id (letters a-z, digits 2-9) nor a filter such as device=xbox",
            command);
  return to_filter(filters, command, filter);
}

int judge(const std::vector<std::string>& done, const std::vector<admin::RevokeAnswer::Failed>& failures) {
  for (const auto& failure : failures)
    complain((failure.code == "failed" ? failure.id + ": " : std::string{}) + failure.reason + ".");
  if (failures.empty()) return ok;
  if (!done.empty()) return partly_done;
  bool all_missing = true, all_ambiguous = true;
  for (const auto& failure : failures) {
    all_missing = all_missing && failure.code == "not_found";
    all_ambiguous = all_ambiguous && failure.code == "ambiguous";
  }
  return all_missing ? not_found : all_ambiguous ? conflict : failed;
}

}  // namespace sallyport::cli
