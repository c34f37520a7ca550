#include "protocols/upnp/http/message.hpp"

#include <algorithm>

namespace sallyport::upnp::http {

bool same_name(std::string_view a, std::string_view b) noexcept {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  return std::ranges::equal(a, b, {}, lower, lower);
}

std::optional<std::string_view> Fields::find(std::string_view name) const noexcept {
  for (const auto& [field, value] : all_)
    if (same_name(field, name)) return value;
  return std::nullopt;
}

std::size_t Fields::count(std::string_view name) const noexcept {
  return static_cast<std::size_t>(
      std::ranges::count_if(all_, [&](const Field& field) { return same_name(field.first, name); }));
}

std::string_view reason_phrase(unsigned status) noexcept {
  switch (status) {
    case 100: return "Continue";
    case 200: return "OK";
    case 400: return "Bad Request";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 411: return "Length Required";
    case 412: return "Precondition Failed";
    case 413: return "Content Too Large";
    case 414: return "URI Too Long";
    case 417: return "Expectation Failed";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 503: return "Service Unavailable";
    case 505: return "HTTP Version Not Supported";
  }
  return "Error";
}

Response error_response(unsigned status, std::string_view text) {
  Response response;
  response.status = status;
  response.fields.add("CONTENT-TYPE", "text/plain; charset=\"utf-8\"");
  response.body = std::to_string(status) + " " + std::string{reason_phrase(status)};
  if (!text.empty()) response.body += ": " + std::string{text};
  response.body += '\n';
  return response;
}

}  // namespace sallyport::upnp::http
