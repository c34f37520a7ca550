#include "src/cli/command.hpp"
#include "src/cli/json_text.hpp"
#include "src/cli/table.hpp"

namespace sallyport::cli {

int unblock(const Options& options, const std::vector<std::string>& what) {
  std::vector<std::string> ids;
  admin::Filter filter;
  if (const int wrong = to_selection(what, "unblock", ids, filter)) return wrong;
  if (filter.via || filter.kind || filter.state || filter.external)
    return wrong_use("blocks are chosen by device, protocol and internal only", "unblock");
  admin::Client client{options.socket};
  const auto answer = client.unblock(ids, filter);
  if (!answer) return fail(options, answer.error());
  if (options.json)
    put("{\"unblocked\":" + json_list(answer->unblocked) + ",\"failed\":" + json_list(answer->failed) +
        "}\n");
  else
    for (const auto& id : answer->unblocked) put(printable(id) + " unblocked\n");
  if (answer->unblocked.empty() && answer->failed.empty()) {
    complain("no block fits these filters. 'sallyport list --blocked' shows what there is.");
    return not_found;
  }
  return judge(answer->unblocked, answer->failed);
}

}  // namespace sallyport::cli
