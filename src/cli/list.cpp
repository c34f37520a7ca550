#include "src/cli/command.hpp"
#include "src/cli/table.hpp"

namespace sallyport::cli {
namespace {

bool fits(const admin::Filter& filter, const admin::Block& block) {
  if (filter.impossible) return false;
  if (filter.transport && to_string(*filter.transport) != block.protocol) return false;
  if (filter.internal &&
      (block.internal_port < filter.internal->first || block.internal_port > filter.internal->last))
    return false;
  return !filter.device || *filter.device == block.device.address ||
         (block.device.name && admin::same_name(*block.device.name, *filter.device));
}

int list_blocked(const Options& options, const ListWords& words) {
  admin::Filter filter;
  if (const int wrong = to_filter(words.filters, "list", filter)) return wrong;
  if (filter.via || filter.kind || filter.state || filter.external)
    return wrong_use("blocks are chosen by device, protocol and internal only", "list");
  admin::Client client{options.socket};
  if (options.json && filter.empty()) {
    const auto done = client.fetch("/api/v1/blocks", put);
    return done ? static_cast<int>(ok) : fail(options, done.error());
  }
  if (options.json) return wrong_use("--blocked --json takes no filters", "list");
  auto blocks = client.blocks();
  if (!blocks) return fail(options, blocks.error());
  std::erase_if(*blocks, [&](const admin::Block& block) { return !fits(filter, block); });
  if (blocks->empty()) {
    complain(filter.empty() ? "nothing is blocked. 'sallyport revoke ID --block 24h' blocks."
                            : "no block fits these filters. 'sallyport list --blocked' shows all.");
    return ok;
  }
  put(block_table(*blocks, options.width));
  return ok;
}

int list_leases(const Options& options, const ListWords& words) {
  admin::Filter filter;
  if (const int wrong = to_filter(words.filters, "list", filter)) return wrong;
  admin::Client client{options.socket};
  if (options.json) {
    std::string target = "/api/v1/leases";
    const auto query = admin::to_query(filter);
    if (!query.empty() || words.all) target += "?" + query;
    if (words.all) target += query.empty() ? "all=1" : "&all=1";
    const auto done = client.fetch(target, put);
    return done ? static_cast<int>(ok) : fail(options, done.error());
  }
  // The first rows decide how wide the columns are; later ones follow as they come.
  constexpr std::size_t sample_size = 2000;
  std::vector<admin::Lease> sample;
  std::optional<LeaseTable> table;
  const auto begin = [&] {
    table.emplace(sample, options.width);
    put(table->head());
    for (const auto& lease : sample) put(table->row(lease));
    sample.clear();
  };
  const auto done = client.leases(filter, words.all, [&](const admin::Lease& lease) {
    if (table) return put(table->row(lease));
    sample.push_back(lease);
    if (sample.size() == sample_size) begin();
  });
  if (!done) return fail(options, done.error());
  if (!sample.empty()) begin();
  if (!table)
    complain(filter.empty()
                 ? "no leases: no device has asked for a port. 'sallyport watch' shows when one does."
                 : "no lease fits these filters. 'sallyport list' without filters shows all.");
  return ok;
}

}  // namespace

int list(const Options& options, const ListWords& words) {
  if (words.all && words.blocked) return wrong_use("--all and --blocked do not go together", "list");
  return words.blocked ? list_blocked(options, words) : list_leases(options, words);
}

}  // namespace sallyport::cli
