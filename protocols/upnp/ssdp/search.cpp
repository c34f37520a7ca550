#include "protocols/upnp/ssdp/search.hpp"

#include <algorithm>
#include <charconv>

#include "protocols/upnp/http/message.hpp"

namespace sallyport::upnp::ssdp {
namespace {

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wnon-virtual-dtor"  // Boost's, and nobody deletes a category
struct SightingCategory final : boost::system::error_category {
  const char* name() const noexcept override { return "sallyport.ssdp.sighting"; }
  std::string message(int value) const override {
    switch (static_cast<SightingErrc>(value)) {
      case SightingErrc::too_long:
        return "the message is longer than an answer or an announcement may be";
      case SightingErrc::other:
        return "the message is neither an answer nor an announcement";
      case SightingErrc::malformed:
        return "the message is no HTTP head that can be read";
      case SightingErrc::incomplete:
        return "the message lacks a field that it needs";
    }
    return "unknown reason";
  }
};
#pragma GCC diagnostic pop

using http::same_name;

std::string_view trim(std::string_view text) {
  const auto first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

/// Takes the next line, without its end, off `rest`; the last one may lack its end.
std::string_view take_line(std::string_view& rest) {
  const auto end = std::min(rest.find('\n'), rest.size());
  auto line = rest.substr(0, end);
  rest.remove_prefix(std::min(end + 1, rest.size()));
  while (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

std::optional<std::uint32_t> read_number(std::string_view text) {
  std::uint32_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return number;
}

/// "max-age=1800" among other words, with blanks wherever, in either case.
std::optional<std::uint32_t> read_max_age(std::string_view text) {
  while (!text.empty()) {
    const auto comma = std::min(text.find(','), text.size());
    const auto word = trim(text.substr(0, comma));
    text.remove_prefix(std::min(comma + 1, text.size()));
    const auto equals = word.find('=');
    if (equals == word.npos || !same_name(trim(word.substr(0, equals)), "max-age")) continue;
    return read_number(trim(word.substr(equals + 1)));
  }
  return std::nullopt;
}

bool is_text(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return c >= 0x20 && c < 0x7f; });
}

std::string lower(std::string_view text) {
  std::string result{text};
  for (auto& c : result)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return result;
}

std::string uuid_of(std::string_view usn) {
  constexpr std::string_view begin = "uuid:";
  if (usn.size() < begin.size() || !same_name(usn.substr(0, begin.size()), begin)) return {};
  usn.remove_prefix(begin.size());
  return lower(trim(usn.substr(0, usn.find("::"))));
}

/// "HTTP/1.1 200 OK", with whatever words.
bool is_answer_line(std::string_view line) {
  constexpr std::string_view version = "HTTP/1.";
  if (line.size() < 12 || !same_name(line.substr(0, version.size()), version)) return false;
  const auto blank = line.find(' ');
  if (blank == line.npos) return false;
  const auto rest = trim(line.substr(blank));
  return rest == "200" || rest.starts_with("200 ");
}

bool is_notify_line(std::string_view line) {
  constexpr std::string_view method = "NOTIFY ";
  return line.size() > method.size() && same_name(line.substr(0, method.size()), method);
}

bool is_link_local_v6(const Address& address) noexcept { return !address.is_v4() && is_link_local(address); }

/// The type without ":1"; the type itself when it has none.
std::string_view without_version(std::string_view type) {
  const auto colon = type.rfind(':');
  if (colon == type.npos || !read_number(type.substr(colon + 1))) return type;
  return type.substr(0, colon);
}

}  // namespace

const boost::system::error_category& sighting_category() noexcept {
  static const SightingCategory category;
  return category;
}

std::vector<std::byte> encode_search(std::string_view target, unsigned mx_s, const Address& to) {
  std::string text = "M-SEARCH * HTTP/1.1\r\nHOST: ";
  const auto host = to.is_v4() ? to.to_string() : '[' + to.to_string() + ']';
  text.append(host).append(":").append(std::to_string(port));
  text.append("\r\nMAN: \"ssdp:discover\"\r\n");
  if (is_group(to)) text.append("MX: ").append(std::to_string(std::clamp(mx_s, 1U, max_mx_s))).append("\r\n");
  text.append("ST: ").append(target).append("\r\n\r\n");
  const auto octets = std::as_bytes(std::span{text});
  return {octets.begin(), octets.end()};
}

Result<Sighting> decode_sighting(std::span<const std::byte> datagram) {
  if (datagram.size() > max_sighting) return SightingErrc::too_long;
  std::string_view rest{reinterpret_cast<const char*>(datagram.data()), datagram.size()};
  const auto first = take_line(rest);
  Sighting sighting;
  const bool notify = is_notify_line(first);
  if (!notify && !is_answer_line(first)) return SightingErrc::other;

  // of a field that stands twice the first one counts
  std::optional<std::string_view> type, nts, usn, location, server, max_age, boot_id, next_boot_id, config_id;
  for (std::size_t count = 0; !rest.empty(); ++count) {
    const auto line = take_line(rest);
    if (line.empty()) break;
    if (count == max_sighting_fields || line.find('\0') != line.npos) return SightingErrc::malformed;
    const auto colon = line.find(':');
    if (colon == line.npos) continue;
    const auto name = trim(line.substr(0, colon));
    for (const auto& [known, value] : {std::pair{notify ? "NT" : "ST", &type},
                                       {"NTS", &nts},
                                       {"USN", &usn},
                                       {"LOCATION", &location},
                                       {"SERVER", &server},
                                       {"CACHE-CONTROL", &max_age},
                                       {"BOOTID.UPNP.ORG", &boot_id},
                                       {"NEXTBOOTID.UPNP.ORG", &next_boot_id},
                                       {"CONFIGID.UPNP.ORG", &config_id}})
      if (!*value && same_name(name, known)) *value = trim(line.substr(colon + 1));
  }

  if (notify) {
    if (!nts) return SightingErrc::incomplete;
    if (same_name(*nts, "ssdp:alive"))
      sighting.kind = Sighting::Kind::alive;
    else if (same_name(*nts, "ssdp:update"))
      sighting.kind = Sighting::Kind::update;
    else if (same_name(*nts, "ssdp:byebye"))
      sighting.kind = Sighting::Kind::byebye;
    else
      return SightingErrc::incomplete;
  }
  const bool byebye = sighting.kind == Sighting::Kind::byebye;
  if (!type || type->empty() || type->size() > max_sighting_text || !is_text(*type))
    return SightingErrc::incomplete;
  sighting.type = *type;
  if (!byebye) {
    if (!location || location->empty() || location->size() > http::max_url || !is_text(*location))
      return SightingErrc::incomplete;
    sighting.location = *location;
  }
  if (usn && usn->size() <= max_sighting_text && is_text(*usn)) {
    sighting.usn = *usn;
    sighting.uuid = uuid_of(*usn);
  }
  if (server && server->size() <= max_sighting_text && is_text(*server)) sighting.server = *server;
  if (max_age) sighting.max_age_s = read_max_age(*max_age).value_or(sighting.max_age_s);
  if (boot_id) sighting.boot_id = read_number(*boot_id);
  if (next_boot_id) sighting.next_boot_id = read_number(*next_boot_id);
  if (config_id) sighting.config_id = read_number(*config_id);
  return sighting;
}

bool is_of_gateway(const Sighting& sighting) noexcept {
  if (sighting.kind == Sighting::Kind::answer)
    return std::ranges::find(gateway_targets, sighting.type) != std::end(gateway_targets);
  return std::ranges::any_of(gateway_targets,
                             [type = without_version(sighting.type)](std::string_view target) {
                               return without_version(target) == type;
                             });
}

std::optional<http::Url> trusted_location(const Sighting& sighting, const Address& source) {
  const auto url = http::parse_http_url(sighting.location);
  if (!url || url->host.is_unspecified()) return std::nullopt;
  if (url->host == source || (is_link_local_v6(url->host) && is_link_local_v6(source))) return url;
  return std::nullopt;
}

}  // namespace sallyport::upnp::ssdp
