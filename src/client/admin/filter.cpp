#include "sallyport/admin/filter.hpp"

#include <algorithm>
#include <array>
#include <charconv>

#include "sallyport/values/address.hpp"

namespace sallyport::admin {
namespace {

template <class T>
using Words = std::initializer_list<std::pair<std::string_view, T>>;

const Words<Transport> transports{{"tcp", Transport::tcp}, {"udp", Transport::udp}};
const Words<Via> vias{{"pcp", Via::pcp},
                      {"natpmp", Via::natpmp},
                      {"upnp", Via::upnp},
                      {"admin", Via::admin},
                      {"config", Via::config}};
const Words<LeaseKind> kinds{
    {"explicit", LeaseKind::explicit_}, {"static", LeaseKind::static_}, {"implicit", LeaseKind::implicit}};
const Words<bool> families{{"ipv4", false}, {"ipv6", true}};
const Words<LeaseState> states{{"active", LeaseState::active},
                               {"disabled", LeaseState::disabled},
                               {"pending", LeaseState::pending},
                               {"ending", LeaseState::ending}};

using Narrowed = boost::system::result<void, std::string>;

template <class T>
Narrowed choose(std::optional<T>& place, bool& impossible, const Words<T>& words, std::string_view key,
                std::string_view value) {
  for (const auto& [word, meaning] : words) {
    if (word != value) continue;
    if (place && *place != meaning) impossible = true;
    place = meaning;
    return {};
  }
  std::string all;
  for (const auto& [word, meaning] : words) all += (all.empty() ? "" : ", ") + std::string{word};
  return "'" + std::string{value} + "' is no value of '" + std::string{key} + "'; there are " + all;
}

std::optional<std::uint16_t> parse_port(std::string_view text) {
  std::uint32_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size() || number == 0 || number > 65535)
    return std::nullopt;
  return static_cast<std::uint16_t>(number);
}

Narrowed choose_ports(std::optional<PortRange>& place, bool& impossible, std::string_view key,
                      std::string_view value) {
  const auto dash = value.find('-');
  const auto first = parse_port(value.substr(0, dash));
  const auto last = dash == value.npos ? first : parse_port(value.substr(dash + 1));
  if (!first || !last || *first > *last)
    return "'" + std::string{value} + "' is no port; '" + std::string{key} +
           "' takes one from 1 to 65535, or a range such as 3074-3080";
  PortRange range{*first, *last};
  if (place) {
    range = {std::max(range.first, place->first), std::min(range.last, place->last)};
    if (range.first > range.last) impossible = true;
  }
  place = range;
  return {};
}

bool is_unreserved(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view{"-._~"}.find(c) != std::string_view::npos;
}

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

}  // namespace

Narrowed narrow(Filter& filter, std::string_view key, std::string_view value) {
  Narrowed narrowed;
  if (key == "device") {
    if (value.empty())
      return "'device' needs an address or a name, such as device=192.168.1.20 or device=xbox";
    if (filter.device && !same_name(*filter.device, value)) filter.impossible = true;
    filter.device = std::string{value};
  } else if (key == "protocol") {
    narrowed = choose(filter.transport, filter.impossible, transports, key, value);
  } else if (key == "via") {
    narrowed = choose(filter.via, filter.impossible, vias, key, value);
  } else if (key == "kind") {
    narrowed = choose(filter.kind, filter.impossible, kinds, key, value);
  } else if (key == "state") {
    narrowed = choose(filter.state, filter.impossible, states, key, value);
  } else if (key == "family") {
    narrowed = choose(filter.ipv6, filter.impossible, families, key, value);
  } else if (key == "external") {
    narrowed = choose_ports(filter.external, filter.impossible, key, value);
  } else if (key == "internal") {
    narrowed = choose_ports(filter.internal, filter.impossible, key, value);
  } else {
    return "'" + std::string{key} +
           "' is no filter; there are device, protocol, family, via, kind, external, internal and state";
  }
  if (narrowed) filter.words.emplace_back(key, value);
  return narrowed;
}

Narrowed narrow(Filter& filter, std::string_view word) {
  const auto equals = word.find('=');
  if (equals == word.npos)
    return "'" + std::string{word} + "' is no filter; a filter is a word such as device=xbox or protocol=udp";
  return narrow(filter, word.substr(0, equals), word.substr(equals + 1));
}

std::string percent_encode(std::string_view text) {
  static constexpr std::string_view digits = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    if (is_unreserved(c)) {
      out += c;
    } else {
      const auto octet = static_cast<unsigned char>(c);
      out += '%';
      out += digits[octet >> 4];
      out += digits[octet & 15];
    }
  }
  return out;
}

std::string to_query(const Filter& filter) {
  std::string query;
  for (const auto& [key, value] : filter.words)
    query += (query.empty() ? "" : "&") + key + "=" + percent_encode(value);
  return query;
}

bool same_name(std::string_view one, std::string_view other) {
  return std::ranges::equal(one, other, {}, lower, lower);
}

std::optional<std::chrono::seconds> parse_duration(std::string_view text) {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end + 1 != text.data() + text.size()) return std::nullopt;
  std::uint64_t unit = 0;
  switch (*end) {
    case 's':
      unit = 1;
      break;
    case 'm':
      unit = 60;
      break;
    case 'h':
      unit = 3600;
      break;
    case 'd':
      unit = 86400;
      break;
    default:
      return std::nullopt;
  }
  constexpr std::uint64_t longest = 3653ull * 86400;
  if (number == 0 || number > longest / unit) return std::nullopt;
  return std::chrono::seconds{number * unit};
}

std::string_view to_string(LeaseKind kind) noexcept {
  for (const auto& [word, meaning] : kinds)
    if (meaning == kind) return word;
  return "unknown";
}

std::string_view to_string(LeaseState state) noexcept {
  for (const auto& [word, meaning] : states)
    if (meaning == state) return word;
  return "unknown";
}

}  // namespace sallyport::admin
