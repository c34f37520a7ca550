#include "protocols/upnp/http/message.hpp"

#include <algorithm>
#include <array>
#include <chrono>

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

std::string http_date(WallTime time) {
  static constexpr std::array<const char*, 7> days{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  static constexpr std::array<const char*, 12> months{"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                      "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  const auto day = std::chrono::floor<std::chrono::days>(time);
  const std::chrono::year_month_day date{day};
  const std::chrono::hh_mm_ss clock{time - day};
  const auto digits = [](auto number) {
    const auto text = std::to_string(number);
    return text.size() < 2 ? "0" + text : text;
  };
  std::string text = days[std::chrono::weekday{day}.c_encoding()];
  text += ", " + digits(static_cast<unsigned>(date.day())) + ' ' +
          months[static_cast<unsigned>(date.month()) - 1] + ' ' + std::to_string(static_cast<int>(date.year()));
  text += ' ' + digits(clock.hours().count()) + ':' + digits(clock.minutes().count()) + ':' +
          digits(clock.seconds().count()) + " GMT";
  return text;
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
