#include <algorithm>
#include <cstdio>

#include "sallyport/client/netcheck.hpp"
#include "sallyport/values/printable.hpp"

namespace sallyport::client {
namespace {

using State = NetcheckReport::State;

// -- JSON

std::string json(std::string_view text) {
  std::string out = "\"";
  for (const char c : printable(text)) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + '"';
}
std::string json(const std::string& text) { return json(std::string_view{text}); }
std::string json(const Address& address) { return json(address.to_string()); }
std::string json(Port port) { return std::to_string(port.number()); }
std::string json(const ExternalEndpoint& endpoint) {
  return R"({"address":)" + (endpoint.address.is_unspecified() ? "null" : json(endpoint.address)) +
         R"(,"port":)" + json(endpoint.port) + "}";
}
std::string json(const NetcheckReport::Stage& stage) {
  return R"({"name":)" + json(stage.name) + R"(,"state":)" + json(to_string(stage.state)) +
         R"(,"evidence":)" + json(stage.evidence) + "}";
}
std::string json(const NetcheckReport::Refusal& refusal) {
  return R"({"via":)" + json(refusal.via) + R"(,"reason":)" + json(refusal.reason) + R"(,"code":)" +
         (refusal.code == 0 ? "null" : std::to_string(refusal.code)) + "}";
}
std::string json(const NetcheckReport::Path& path);
template <class T>
std::string json(const std::optional<T>& value) {
  return value ? json(*value) : "null";
}
template <class T>
std::string json(const std::vector<T>& values) {
  std::string out = "[";
  for (const auto& value : values) out += (out.size() > 1 ? "," : "") + json(value);
  return out + "]";
}
std::string or_null(const std::string& text) { return text.empty() ? "null" : json(text); }

std::string json(const NetcheckReport::Path& path) {
  return R"({"verdict":)" + json(to_string(path.verdict)) + R"(,"interface":)" + json(path.interface) +
         R"(,"local":)" + json(path.local) + R"(,"gateway":)" + json(path.gateway) + R"(,"protocols":)" +
         json(path.protocols) + R"(,"gateway_external":)" + json(path.gateway_external) + R"(,"mapped":)" +
         json(path.mapped) + R"(,"via":)" + or_null(path.via) + R"(,"refusals":)" + json(path.refusals) +
         R"(,"seen":)" + json(path.seen) + R"(,"probe":)" + json(to_string(path.probe)) + "}";
}

// -- text

constexpr std::size_t columns = 80;
constexpr std::size_t name_width = 12;
constexpr std::size_t state_width = 9;

/// Appends `text` in lines that begin at column `indent`, where the first one already stands. Counts octets,
/// of which no character needs fewer than columns.
void wrap(std::string& out, std::string_view text, std::size_t indent) {
  std::size_t column = indent;
  const auto next_line = [&] {
    out += '\n';
    out.append(indent, ' ');
    column = indent;
  };
  while (!text.empty()) {
    const auto end = std::min(text.find(' '), text.size());
    auto word = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (column > indent && column + 1 + word.size() > columns) next_line();
    if (column > indent) {
      out += ' ';
      ++column;
    }
    while (column + word.size() > columns) {
      const auto fits = cut(word, columns - column);
      out += fits;
      word.remove_prefix(fits.size());
      next_line();
    }
    out += word;
    column += word.size();
  }
  out += '\n';
}

std::string padded(std::string_view text, std::size_t width) {
  std::string out{text};
  out.append(width - std::min(width, text.size()), ' ');
  return out;
}

std::string_view label(std::string_view name) {
  if (name == "second_nat") return "second NAT";
  if (name == "ipv6") return "IPv6";
  return name;
}

}  // namespace

std::string_view to_string(Verdict verdict) noexcept {
  switch (verdict) {
    case Verdict::reachable:
      return "reachable";
    case Verdict::likely_reachable:
      return "likely_reachable";
    case Verdict::unknown:
      return "unknown";
    case Verdict::blocked_ahead:
      return "blocked_ahead";
    case Verdict::double_nat:
      return "double_nat";
    case Verdict::carrier_nat:
      return "carrier_nat";
    case Verdict::refused:
      return "refused";
    case Verdict::offline:
      return "offline";
    case Verdict::no_gateway:
      return "no_gateway";
    case Verdict::no_network:
      return "no_network";
  }
  return "unknown";
}

std::string_view to_string(State state) noexcept {
  switch (state) {
    case State::yes:
      return "yes";
    case State::no:
      return "no";
    case State::unknown:
      return "unknown";
    case State::skipped:
      return "skipped";
  }
  return "unknown";
}

std::string to_json(const NetcheckReport& report) {
  const auto& six = report.ipv6;
  return R"({"verdict":)" + json(to_string(report.verdict)) + R"(,"summary":)" + json(report.summary) +
         R"(,"advice":)" + or_null(report.advice) + R"(,"protocol":)" + json(to_string(report.transport)) +
         R"(,"port":)" + json(report.port) + R"(,"external":)" + json(report.external) + R"(,"helper":)" +
         json(report.helper) + R"(,"stages":)" + json(report.stages) + R"(,"paths":)" + json(report.paths) +
         R"(,"ipv6":{"addresses":)" + json(six.addresses) + R"(,"pinhole":)" + json(six.pinhole) +
         R"(,"via":)" + or_null(six.via) + R"(,"refusals":)" + json(six.refusals) + R"(,"probe":)" +
         json(to_string(six.probe)) + "}}";
}

std::string to_text(const NetcheckReport& report) {
  std::string out;
  wrap(out, printable(report.summary), 0);
  if (!report.advice.empty()) wrap(out, printable(report.advice), 0);
  out += '\n';
  for (const auto& stage : report.stages) {
    if (stage.state == State::skipped && stage.evidence.empty()) {
      out += "  " + padded(label(stage.name), name_width) + "-\n";
      continue;
    }
    out += "  " + padded(label(stage.name), name_width) + padded(to_string(stage.state), state_width);
    wrap(out, printable(stage.evidence), 2 + name_width + state_width);
  }
  return out;
}

}  // namespace sallyport::client
