#pragma once

#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "sallyport/admin/client.hpp"

/// The little JSON that the CLI writes itself. Texts come out of the daemon's JSON and are UTF-8.
namespace sallyport::cli {

inline std::string json_text(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto octet = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (octet < 0x20 || octet == 0x7f) {
      char escape[16];
      std::snprintf(escape, sizeof escape, "\\u%04x", octet);
      out += escape;
    } else {
      out += c;
    }
  }
  return out + '"';
}

inline std::string json_list(const std::vector<std::string>& texts) {
  std::string out = "[";
  for (const auto& text : texts) out += (out.size() > 1 ? "," : "") + json_text(text);
  return out + "]";
}

inline std::string json_list(const std::vector<admin::RevokeAnswer::Failed>& failures) {
  std::string out = "[";
  for (const auto& failure : failures)
    out += (out.size() > 1 ? ",{\"id\":" : "{\"id\":") + json_text(failure.id) +
           ",\"reason\":" + json_text(failure.reason) + ",\"code\":" + json_text(failure.code) + "}";
  return out + "]";
}

}  // namespace sallyport::cli
