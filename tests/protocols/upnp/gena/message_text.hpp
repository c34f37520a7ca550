#pragma once

#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>

#include "protocols/upnp/http/message.hpp"

/// Requests of vectors and corpora: a line "METHOD target", then "Name: value" lines; '#' begins a comment
/// line.
namespace sallyport::upnp::gena::test {

inline std::string read_text_file(const std::filesystem::path& path) {
  std::ifstream file{path, std::ios::binary};
  if (!file) throw std::runtime_error{"cannot read " + path.string()};
  return {std::istreambuf_iterator<char>{file}, {}};
}

inline http::Request read_request(std::string_view text) {
  http::Request request;
  bool first = true;
  while (!text.empty()) {
    const auto end = std::min(text.find('\n'), text.size());
    auto line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.starts_with('#')) continue;
    if (std::exchange(first, false)) {
      const auto blank = std::min(line.find(' '), line.size());
      request.method = line.substr(0, blank);
      line.remove_prefix(std::min(blank + 1, line.size()));
      request.target = line.substr(0, line.find(' '));
      continue;
    }
    if (line.empty()) break;
    const auto colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    auto value = line.substr(colon + 1);
    while (!value.empty() && (value.front() == ' ' || value.front() == '\t')) value.remove_prefix(1);
    while (!value.empty() && (value.back() == ' ' || value.back() == '\t')) value.remove_suffix(1);
    request.fields.add(std::string{line.substr(0, colon)}, std::string{value});
  }
  return request;
}

}  // namespace sallyport::upnp::gena::test
