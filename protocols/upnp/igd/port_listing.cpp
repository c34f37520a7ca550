#include "protocols/upnp/igd/port_listing.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include "protocols/upnp/xml/escape.hpp"

namespace sallyport::upnp::igd {
namespace {

constexpr std::string_view head =
    "<?xml version=\"1.0\"?>\n"
    "<p:PortMappingList xmlns:p=\"urn:schemas-upnp-org:gw:WANIPConnection\""
    " xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\""
    " xsi:schemaLocation=\"urn:schemas-upnp-org:gw:WANIPConnection"
    " http://www.upnp.org/schemas/gw/WANIPConnection-v2.xsd\">\n";
constexpr std::string_view tail = "</p:PortMappingList>\n";
constexpr std::size_t piece = 8192;
/// Ports looked at for one piece, so that a range of others' entries does not hold up the rest (POL-FAIR-04).
constexpr std::size_t most_looked_at = 8192;

void append(std::string& out, const Entry& entry) {
  const auto element = [&](std::string_view name, std::string_view text) {
    out.append("<p:").append(name).append(">");
    xml::append_escaped(out, text);
    out.append("</p:").append(name).append(">");
  };
  out += "<p:PortMappingEntry>";
  element("NewRemoteHost", entry.key.remote ? entry.key.remote->to_string() : std::string{});
  element("NewExternalPort", std::to_string(entry.key.external.number()));
  element("NewProtocol", entry.key.transport == Transport::tcp ? "TCP" : "UDP");
  element("NewInternalPort", std::to_string(entry.internal.port.number()));
  element("NewInternalClient", entry.internal.address.to_string());
  element("NewEnabled", entry.enabled ? "1" : "0");
  element("NewDescription", shown_description(entry));
  element("NewLeaseTime", std::to_string(std::min(entry.remaining_s, max_lease_s)));
  out += "</p:PortMappingEntry>\n";
}

/// By external port: what comes and goes meanwhile moves nothing else, and a narrow range costs what it is wide.
class Listing final : public http::BodySource {
 public:
  Listing(const EntryService& entries, const ListingWish& wish, TimePoint now)
      : entries_{entries}, wish_{wish}, now_{now}, port_{std::max<std::uint32_t>(wish.external.first, 1)} {
    find(65536);
  }
  bool any() const { return !found_.empty(); }

  std::string next() override {
    std::string out;
    if (done_) return out;
    if (!begun_) out = head;
    begun_ = true;
    std::size_t budget = most_looked_at;
    while (out.size() < piece) {
      if (found_.empty()) budget = find(budget);
      if (found_.empty()) {
        if (port_ <= wish_.external.last) return out.empty() ? std::string{"\n"} : out;
        out += tail;
        done_ = true;
        return out;
      }
      append(out, found_.back());
      found_.pop_back();
      if (wish_.most != 0 && ++given_ == wish_.most) {
        found_.clear();
        port_ = 65536;
      }
    }
    return out;
  }

 private:
  /// Looks at up to `budget` ports for the next that has something; gives what is left of the budget.
  std::size_t find(std::size_t budget) {
    for (; found_.empty() && budget > 0 && port_ <= wish_.external.last; --budget, ++port_) {
      found_ = entries_.entries_on(wish_.transport, *Port::from(port_), now_);
      if (wish_.owner)
        std::erase_if(found_, [&](const Entry& entry) { return entry.internal.address != *wish_.owner; });
    }
    return budget;
  }

  const EntryService& entries_;
  const ListingWish wish_;
  const TimePoint now_;
  std::vector<Entry> found_;  ///< at the last port, taken from the back
  std::uint32_t port_;        ///< the next to look at
  std::uint32_t given_ = 0;
  bool begun_ = false, done_ = false;
};

}  // namespace

std::string_view shown_description(const Entry& entry) noexcept {
  if (!entry.description.empty()) return entry.description;
  // macOS and iOS map the discard port, where nobody listens, to learn their external address
  const bool probe = entry.internal.port.number() == 9;
  switch (entry.via) {
    case Via::pcp: return probe ? "PCP (address probe)" : "PCP";
    case Via::natpmp: return probe ? "NAT-PMP (address probe)" : "NAT-PMP";
    case Via::upnp:
    case Via::admin:
    case Via::config: break;
  }
  return {};
}

std::unique_ptr<http::BodySource> port_listing(const EntryService& entries, const ListingWish& wish,
                                               TimePoint now) {
  auto listing = std::make_unique<Listing>(entries, wish, now);
  if (!listing->any()) return nullptr;
  return listing;
}

}  // namespace sallyport::upnp::igd
