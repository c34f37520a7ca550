#include "protocols/upnp/http/admission.hpp"

#include <algorithm>
#include <utility>

namespace sallyport::upnp::http {
namespace {

/// A port of one to five digits up to 65535.
std::optional<std::uint16_t> parse_port(std::string_view digits) noexcept {
  if (digits.empty() || digits.size() > 5) return std::nullopt;
  std::uint32_t number = 0;
  for (const char c : digits) {
    if (c < '0' || c > '9') return std::nullopt;
    number = number * 10 + static_cast<std::uint32_t>(c - '0');
  }
  if (number > 65535) return std::nullopt;
  return static_cast<std::uint16_t>(number);
}

std::string_view trimmed(std::string_view text) noexcept {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

/// Whether a comma-separated list has this word, in either case, in any of the fields of that name.
bool list_has(const Fields& fields, std::string_view name, std::string_view word) noexcept {
  for (const auto& [field, value] : fields.all()) {
    if (!same_name(field, name)) continue;
    std::string_view rest = value;
    while (!rest.empty()) {
      const auto comma = std::min(rest.find(','), rest.size());
      if (same_name(trimmed(rest.substr(0, comma)), word)) return true;
      rest.remove_prefix(std::min(comma + 1, rest.size()));
    }
  }
  return false;
}

bool is_ours(std::string_view authority, const Request& request, std::span<const Address> own) noexcept {
  const auto parsed = parse_authority(authority);
  if (!parsed) return false;
  return parsed->address == request.local || std::ranges::find(own, parsed->address) != own.end();
}

void say_english(Response& response) {
  if (!response.fields.find("Content-Language")) response.fields.add("CONTENT-LANGUAGE", "en");
}

/// What only a page makes a browser say.
bool comes_from_a_page(const Fields& fields) noexcept {
  return std::ranges::any_of(fields.all(), [](const Fields::Field& field) {
    return same_name(field.first, "Origin") ||
           (same_name(field.first, "Sec-Fetch-Site") && field.second != "none");
  });
}

}  // namespace

std::optional<Authority> parse_authority(std::string_view text) noexcept {
  if (text.empty()) return std::nullopt;
  Authority result;
  std::string_view host;
  std::string_view rest;
  if (text.front() == '[') {
    const auto end = text.find(']');
    if (end == std::string_view::npos) return std::nullopt;
    host = text.substr(1, end - 1);
    rest = text.substr(end + 1);
  } else {
    const auto end = std::min(text.find(':'), text.size());
    host = text.substr(0, end);
    rest = text.substr(end);
  }
  const auto address = Address::parse(host);
  if (!address || address->is_v4() == (text.front() == '[')) return std::nullopt;
  result.address = *address;
  if (rest.empty()) return result;
  if (rest.front() != ':') return std::nullopt;
  result.port = parse_port(rest.substr(1));
  if (!result.port) return std::nullopt;
  return result;
}

std::optional<Target> parse_target(std::string_view target) noexcept {
  constexpr std::string_view scheme = "http://";
  if (target.starts_with('/')) return Target{std::nullopt, target};
  if (target.size() < scheme.size() || !same_name(target.substr(0, scheme.size()), scheme)) return std::nullopt;
  target.remove_prefix(scheme.size());
  const auto end = std::min(target.find_first_of("/?#"), target.size());
  const auto path = target.substr(end);
  if (!path.empty() && path.front() != '/') return std::nullopt;  // a query of no path names nothing here
  return Target{target.substr(0, end), path.empty() ? std::string_view{"/"} : path};
}

std::optional<Response> refuse(const Request& request, std::span<const Address> own) {
  // told apart before the target is looked at: theirs may have any form
  if (request.method == "CONNECT" || request.method == "TRACE" || request.method == "OPTIONS")
    return error_response(501);
  const auto target = parse_target(request.target);
  if (!target) return error_response(400, "no target of this form");

  const auto hosts = request.fields.count("Host");
  if (hosts > 1 || (hosts == 0 && request.minor_version >= 1))
    return error_response(400, "one Host field is needed");
  if (target->authority) {
    if (!is_ours(*target->authority, request, own))
      return error_response(403, "the target names another host than this device's IP address");
  } else if (hosts == 1 && !is_ours(*request.fields.find("Host"), request, own)) {
    return error_response(403, "Host is not an IP address of this device");
  }

  if (request.method != "GET" && request.method != "HEAD" && comes_from_a_page(request.fields))
    return error_response(403, "not for web pages");
  return std::nullopt;
}

bool wants_close(const Request& request) noexcept {
  return request.minor_version == 0 || list_has(request.fields, "Connection", "close");
}

bool is_head(const Request& request) noexcept { return request.method == "HEAD"; }

void add_content_language(const Request& request, Response& response) {
  if (request.fields.find("Accept-Language")) say_english(response);
}

void Router::add(std::string path, std::string method, Handler handler) {
  auto& methods = resources_[std::move(path)].methods;
  for (auto& [name, known] : methods) {
    if (name != method) continue;
    known = std::move(handler);
    return;
  }
  methods.emplace_back(std::move(method), std::move(handler));
}

bool Router::knows(std::string_view method) const noexcept {
  if (method == "HEAD") method = "GET";
  for (const auto& [path, resource] : resources_)
    for (const auto& [name, handler] : resource.methods)
      if (name == method) return true;
  return false;
}

void Router::handle(Request&& request, std::span<const Address> own, Done done) const {
  if (request.fields.find("Accept-Language"))
    done = [inner = std::move(done)](Response response) {
      say_english(response);
      inner(std::move(response));
    };
  if (auto refusal = refuse(request, own)) return done(std::move(*refusal));

  const auto target = parse_target(request.target);
  const auto found = resources_.find(target->path);
  if (found != resources_.end()) {
    const std::string_view wanted = is_head(request) ? std::string_view{"GET"} : std::string_view{request.method};
    for (const auto& [name, handler] : found->second.methods)
      if (name == wanted) return handler(std::move(request), std::move(done));
  }
  if (!knows(request.method)) return done(error_response(501));
  if (found == resources_.end()) return done(error_response(404));

  auto response = error_response(405);
  std::string allow;
  for (const auto& [name, handler] : found->second.methods) {
    if (!allow.empty()) allow += ", ";
    allow += name == "GET" ? "GET, HEAD" : name;
  }
  response.fields.add("ALLOW", std::move(allow));
  done(std::move(response));
}

}  // namespace sallyport::upnp::http
