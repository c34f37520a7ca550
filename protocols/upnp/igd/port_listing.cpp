#include "protocols/upnp/igd/port_listing.hpp"

#include <algorithm>
#include <string>

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
/// Entries looked at for one piece, so that a list of others' entries does not hold up the rest (POL-FAIR-04).
constexpr std::size_t most_looked_at = 2000;

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

class Listing final : public http::BodySource {
 public:
  Listing(const EntryService& entries, const ListingWish& wish, TimePoint now)
      : entries_{entries}, wish_{wish}, now_{now} {
    found_ = find(~std::size_t{0});
  }
  bool any() const { return found_.has_value(); }

  std::string next() override {
    std::string out;
    if (done_) return out;
    if (!begun_) out = head;
    begun_ = true;
    std::size_t budget = most_looked_at;
    while (out.size() < piece) {
      if (!found_) found_ = find(budget);
      if (!found_) {
        if (!at_end_) return out.empty() ? std::string{"\n"} : out;
        out += tail;
        done_ = true;
        return out;
      }
      append(out, *found_);
      found_.reset();
      if (wish_.most != 0 && ++given_ == wish_.most) at_end_ = true;
    }
    return out;
  }

 private:
  std::optional<Entry> find(std::size_t budget) {
    for (; !at_end_ && budget > 0; --budget) {
      auto entry = entries_.entry_after(position_, now_);
      if (!entry) {
        at_end_ = true;
        break;
      }
      position_ = entry->position;
      if (entry->key.transport == wish_.transport && wish_.external.contains(entry->key.external) &&
          (!wish_.owner || entry->internal.address == *wish_.owner))
        return entry;
    }
    return std::nullopt;
  }

  const EntryService& entries_;
  const ListingWish wish_;
  const TimePoint now_;
  std::optional<Entry> found_;
  std::uint64_t position_ = 0;
  std::uint32_t given_ = 0;
  bool begun_ = false, at_end_ = false, done_ = false;
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
