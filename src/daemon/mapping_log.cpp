#include "src/daemon/mapping_log.hpp"

#include <algorithm>
#include <tuple>

namespace sallyport::daemon {
namespace {

struct ByEndpoints {
  static auto key(const nat::ImplicitView& mapping) {
    return std::tuple{mapping.external.address.bytes(), mapping.external.port.number(), mapping.transport,
                      mapping.internal.address.bytes(), mapping.internal.port.number()};
  }
  bool operator()(const nat::ImplicitView& a, const nat::ImplicitView& b) const { return key(a) < key(b); }
};

}  // namespace

void MappingLog::take(std::vector<nat::ImplicitView> mappings, TimePoint now) {
  const ByEndpoints less;
  std::sort(mappings.begin(), mappings.end(), less);
  auto was = before_.begin();
  auto is = mappings.begin();
  // Ends first where a port changed hands: whoever reads line by line never sees it held twice.
  while (was != before_.end() || is != mappings.end()) {
    if (is == mappings.end() || (was != before_.end() && less(*was, *is))) {
      write("ends", *was++, now);
    } else if (was == before_.end() || less(*is, *was)) {
      // one that ended at this port stands behind it where the host's address is higher
      for (auto next = was; next != before_.end() && next->transport == is->transport &&
                            next->external == is->external && less(*is, *next);
           ++next) {
        write("ends", *next, now);
        was = next + 1;
      }
      write("begins", *is++, now);
    } else {
      ++was;
      ++is;
    }
  }
  before_ = std::move(mappings);
  if (left_out_ != 0 && limit_.admit({}, now) == transport::SourceLimiter::Verdict::pass)
    write_(std::to_string(std::exchange(left_out_, 0)) +
           " more records of mappings were not written (5,000 a second are)");
}

void MappingLog::write(const char* what, const nat::ImplicitView& mapping, TimePoint now) {
  if (limit_.admit({}, now) != transport::SourceLimiter::Verdict::pass) {
    ++left_out_;
    return;
  }
  write_(std::string{"mapping "} + what + ": " + std::string{to_string(mapping.transport)} + ' ' +
         to_string(mapping.internal) + " <-> " + to_string(mapping.external));
}

}  // namespace sallyport::daemon
