#include <algorithm>
#include <charconv>

#include "protocols/upnp/igd/port_listing.hpp"
#include "protocols/upnp/igd/result_code.hpp"
#include "protocols/upnp/igd/server.hpp"
#include "protocols/upnp/soap/argument.hpp"
#include "protocols/upnp/soap/response.hpp"

// The actions of WANIPConnection, versions 1 and 2.

namespace sallyport::upnp::igd {
namespace {

using soap::UpnpErrc;

/// A walk through the list that rests this long begins anew by plain index.
constexpr std::chrono::seconds walk_patience{30};
constexpr std::size_t most_walks = 4096;

/// Four decimal numbers, no other spelling of an address (POL-TGT-01).
std::optional<Address> parse_dotted(std::string_view text) {
  std::uint32_t number = 0;
  for (int part = 0; part < 4; ++part) {
    if (part > 0) {
      if (text.empty() || text.front() != '.') return std::nullopt;
      text.remove_prefix(1);
    }
    unsigned value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    const auto digits = static_cast<std::size_t>(end - text.data());
    if (error != std::errc{} || value > 255 || digits > 3 || (digits > 1 && text.front() == '0')) return std::nullopt;
    number = number << 8 | value;
    text.remove_prefix(digits);
  }
  if (!text.empty()) return std::nullopt;
  return Address::v4(number);
}

/// RemoteHost: nothing, `*` and 0.0.0.0 stand for any (UPNP-X-05, POL-TGT-07).
Result<std::optional<Address>> parse_remote(std::string_view text) {
  text = soap::trimmed(text);
  if (text.empty() || text == "*" || text == "0.0.0.0") return std::optional<Address>{};
  const auto address = parse_dotted(text);
  if (!address) return UpnpErrc::invalid_args;
  return std::optional{*address};
}

/// Reads the arguments of one call and keeps the first error.
class Reader {
 public:
  explicit Reader(const soap::Call& call) : call_{call} {}
  std::uint16_t ui2(std::string_view name, UpnpErrc beyond = UpnpErrc::value_out_of_range) {
    return take(soap::parse_ui2(call_.argument(name), beyond));
  }
  std::uint32_t ui4(std::string_view name) { return take(soap::parse_ui4(call_.argument(name))); }
  bool boolean(std::string_view name) { return take(soap::parse_boolean(call_.argument(name))); }
  Transport transport(std::string_view name) { return take(soap::parse_transport(call_.argument(name))); }
  std::optional<Address> remote(std::string_view name) { return take(parse_remote(call_.argument(name))); }
  void fail(UpnpErrc error) {
    if (code_ == 0) code_ = static_cast<unsigned>(error);
  }
  /// 0 when all was well.
  unsigned code() const { return code_; }

 private:
  template <class T>
  T take(const Result<T>& parsed) {
    if (parsed) return *parsed;
    if (code_ == 0) code_ = static_cast<unsigned>(parsed.error().value());
    return T{};
  }
  const soap::Call& call_;
  unsigned code_ = 0;
};

std::string remote_text(const EntryKey& key) { return key.remote ? key.remote->to_string() : std::string{}; }
std::string_view protocol_text(Transport transport) { return transport == Transport::tcp ? "TCP" : "UDP"; }
std::uint32_t lease_text(const Entry& entry) { return std::min(entry.remaining_s, max_lease_s); }

}  // namespace

void Server::set_connection_type(const soap::Call& call, Context& context) {
  context.done(soap::error(*call.service, 731));  // ReadOnly (WIC-06, POL-OWN-09)
}

void Server::get_connection_type_info(const soap::Call& call, Context& context) {
  context.done(soap::SuccessWriter{call}.text("IP_Routed").text("IP_Routed").take());
}

void Server::request_connection(const soap::Call& call, Context& context) {
  if (connected_since_) return context.done(soap::SuccessWriter{call}.take());
  context.done(soap::error(*call.service, 704));  // ConnectionSetupFailed: it is not ours to set up
}

void Server::terminate(const soap::Call& call, Context& context) {
  context.done(soap::error(*call.service, UpnpErrc::not_authorized));  // WIC-08
}

void Server::get_status_info(const soap::Call& call, Context& context) {
  const auto up = connected_since_ ? std::chrono::floor<std::chrono::seconds>(context.now - *connected_since_).count() : 0;
  context.done(soap::SuccessWriter{call}
                   .text(connection_status())
                   .text("ERROR_NONE")
                   .number(static_cast<std::uint32_t>(std::max<std::int64_t>(up, 0)))
                   .take());
}

void Server::get_nat_rsip_status(const soap::Call& call, Context& context) {
  context.done(soap::SuccessWriter{call}.boolean(false).boolean(true).take());
}

void Server::get_external_address(const soap::Call& call, Context& context) {
  const auto external = mappings_.external_address(context.contact.client);
  context.done(soap::SuccessWriter{call}.text(external ? external->to_string() : std::string{}).take());
}

// --- the table ---

std::optional<Entry> Server::entry_by_index(const Address& requester, std::uint32_t index, TimePoint now) {
  auto known = walks_.find(requester);
  const bool goes_on = known != walks_.end() && index != 0 && known->second.next_index == index &&
                       now - known->second.at < walk_patience;
  const auto fits = [&](const std::optional<Entry>& entry) {
    return !entry || !options_.list_own || entry->internal.address == requester;
  };
  std::optional<Entry> entry;
  if (goes_on) {
    entry = entries_.entry_after(known->second.position, now);
  } else if (!options_.list_own) {
    entry = entries_.entry_at(index, now);
  } else {
    std::uint32_t left = index;
    for (entry = entries_.entry_after(0, now); entry && (!fits(entry) || left > 0);
         entry = entries_.entry_after(entry->position, now))
      if (fits(entry)) --left;
  }
  while (!fits(entry)) entry = entries_.entry_after(entry->position, now);
  if (!entry) return std::nullopt;
  if (known == walks_.end()) {
    if (walks_.size() >= most_walks) walks_.erase(std::ranges::min_element(walks_, {}, [](const auto& walk) { return walk.second.at; }));
    known = walks_.emplace(requester, Walk{}).first;
  }
  known->second = {index + 1, entry->position, now};
  return entry;
}

void Server::get_generic_entry(const soap::Call& call, Context& context) {
  Reader in{call};
  const auto index = in.ui2("NewPortMappingIndex", UpnpErrc::invalid_args);  // POL-NUM-01
  if (in.code() != 0) return context.done(soap::error(*call.service, in.code()));
  const auto entry = entry_by_index(context.contact.client, index, context.now);
  if (!entry) return context.done(soap::error(*call.service, 713));
  context.done(soap::SuccessWriter{call}
                   .text(remote_text(entry->key))
                   .number(entry->key.external.number())
                   .text(protocol_text(entry->key.transport))
                   .number(entry->internal.port.number())
                   .text(entry->internal.address.to_string())
                   .boolean(entry->enabled)
                   .text(shown_description(*entry))
                   .number(lease_text(*entry))
                   .take());
}

void Server::get_specific_entry(const soap::Call& call, Context& context) {
  Reader in{call};
  EntryKey key{.external = *Port::from(1)};
  key.remote = in.remote("NewRemoteHost");
  const auto port = Port::from(in.ui2("NewExternalPort"));
  key.transport = in.transport("NewProtocol");
  if (in.code() != 0) return context.done(soap::error(*call.service, in.code()));
  std::optional<Entry> entry;
  if (port) {
    key.external = *port;
    entry = entries_.find_entry(key, context.contact.client, context.now);
  }
  if (!entry || (options_.list_own && entry->internal.address != context.contact.client))
    return context.done(soap::error(*call.service, 714));
  context.done(soap::SuccessWriter{call}
                   .number(entry->internal.port.number())
                   .text(entry->internal.address.to_string())
                   .boolean(entry->enabled)
                   .text(shown_description(*entry))
                   .number(lease_text(*entry))
                   .take());
}

void Server::add_entry(const soap::Call& call, Context& context) {
  Reader in{call};
  EntryRequest request{.key = {.external = *Port::from(1)}, .internal = {Address{}, *Port::from(1)}};
  request.any = call.action->name == "AddAnyPortMapping";
  request.key.remote = in.remote("NewRemoteHost");
  const auto external = Port::from(in.ui2("NewExternalPort"));
  request.key.transport = in.transport("NewProtocol");
  const auto internal = Port::from(in.ui2("NewInternalPort"));
  const auto client = parse_dotted(soap::trimmed(call.argument("NewInternalClient")));
  if (!client) in.fail(UpnpErrc::invalid_args);
  request.enabled = in.boolean("NewEnabled");
  const auto lease_s = in.ui4("NewLeaseDuration");
  unsigned code = in.code();
  if (code == 0 && !internal) code = call.version >= 2 ? 732 : 402;               // WIC-ADD-06
  if (code == 0 && !external && !request.any) code = 716;                         // WIC-ADD-07
  if (code == 0 && *client != context.contact.client) code = 606;                 // WIC-ADD-04, POL-TGT-01
  if (code != 0) return context.done(soap::error(*call.service, code));
  request.requester = context.contact.client;
  request.port_given = external.has_value();
  if (external) request.key.external = *external;
  request.internal = {*client, *internal};
  request.description = call.argument("NewPortMappingDescription");
  // lease 0: permanent to version 1, the longest to version 2 (UPNP-X-01)
  const bool permanent = lease_s == 0 && call.version == 1 && options_.v1_permanent;
  request.lifetime_s = permanent ? 0 : lease_s == 0 ? max_lease_s : lease_s;
  request.contact = context.contact;
  walks_.erase(request.requester);  // who changes the list knows that its indices are others now
  const auto action = request.any ? EntryAction::add_any : EntryAction::add;
  entries_.grant_entry(
      std::move(request), context.now,
      [call = soap::Call{call.service, call.action, call.version, {}}, action,
       done = std::move(context.done)](const Outcome<Entry>& outcome, TimePoint) {
        if (!outcome) return done(soap::error(*call.service, error_code(outcome.error().reason, action)));
        soap::SuccessWriter answer{call};
        if (action == EntryAction::add_any) answer.number(outcome->key.external.number());
        done(answer.take());
      });
}

void Server::delete_entry(const soap::Call& call, Context& context) {
  Reader in{call};
  EntryKey key{.external = *Port::from(1)};
  key.remote = in.remote("NewRemoteHost");
  const auto port = Port::from(in.ui2("NewExternalPort"));
  key.transport = in.transport("NewProtocol");
  unsigned code = in.code();
  if (code == 0 && !port) code = 714;
  if (code != 0) return context.done(soap::error(*call.service, code));
  key.external = *port;
  walks_.erase(context.contact.client);
  entries_.release_entry(key, context.contact.client, context.now,
                         [call = soap::Call{call.service, call.action, call.version, {}},
                          done = std::move(context.done)](const Outcome<void>& outcome, TimePoint) {
                           if (outcome) return done(soap::SuccessWriter{call}.take());
                           done(soap::error(*call.service, error_code(outcome.error().reason, EntryAction::remove)));
                         });
}

void Server::delete_range(const soap::Call& call, Context& context) {
  Reader in{call};
  const PortRange range{in.ui2("NewStartPort"), in.ui2("NewEndPort")};
  const auto transport = in.transport("NewProtocol");
  in.boolean("NewManage");  // the caller's own in either case (WIC-RNG-05, POL-OWN-06)
  unsigned code = in.code();
  if (code == 0 && range.first > range.last) code = 733;
  if (code != 0) return context.done(soap::error(*call.service, code));
  walks_.erase(context.contact.client);
  entries_.release_entries(
      transport, range, context.contact.client, context.now,
      [call = soap::Call{call.service, call.action, call.version, {}},
       done = std::move(context.done)](const Outcome<void>& outcome, TimePoint) {
        if (outcome) return done(soap::SuccessWriter{call}.take());
        done(soap::error(*call.service, error_code(outcome.error().reason, EntryAction::remove_range)));
      });
}

void Server::get_list(const soap::Call& call, Context& context) {
  Reader in{call};
  ListingWish wish;
  wish.external = {in.ui2("NewStartPort"), in.ui2("NewEndPort")};
  wish.transport = in.transport("NewProtocol");
  const bool all = in.boolean("NewManage") && !options_.list_own;  // WIC-LST-04
  wish.most = in.ui2("NewNumberOfPorts");
  unsigned code = in.code();
  if (code == 0 && wish.external.first > wish.external.last) code = 733;
  if (code != 0) return context.done(soap::error(*call.service, code));
  if (!all) wish.owner = context.contact.client;
  auto listing = port_listing(entries_, wish, context.now);
  if (!listing) return context.done(soap::error(*call.service, 730));
  context.done(soap::success(call, std::move(listing)));
}

}  // namespace sallyport::upnp::igd
