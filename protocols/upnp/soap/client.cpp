#include "protocols/upnp/soap/client.hpp"

#include <algorithm>
#include <charconv>

#include "protocols/upnp/soap/ampersand.hpp"
#include "protocols/upnp/soap/argument.hpp"
#include "protocols/upnp/xml/document.hpp"
#include "protocols/upnp/xml/escape.hpp"
#include "sallyport/values/printable.hpp"

namespace sallyport::upnp::soap {
namespace {

/// An element anywhere below, itself among them, by its local name.
xml::Element find_below(const xml::Element& element, std::string_view name) {
  if (element.name() == name) return element;
  for (auto each = element.first(); each; each = each.next())
    if (const auto found = find_below(each, name)) return found;  // as deep as xml::max_depth at most
  return {};
}

xml::Element find_in(const xml::Element& element, std::string_view name) {
  for (auto each = element.first(); each; each = each.next())
    if (each.name() == name) return each;
  return {};
}

unsigned read_code(std::string_view text) {
  text = trimmed(text);
  unsigned code = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), code);
  return error == std::errc{} && end == text.data() + text.size() && code < 1000 ? code : 0;
}

/// The code of a fault that is no XML, but has one all the same.
unsigned find_code(std::string_view body) {
  constexpr std::string_view tag = "errorCode>";
  const auto begin = body.find(tag);
  if (begin == body.npos) return 0;
  const auto from = body.substr(begin + tag.size(), 32);
  return read_code(from.substr(0, from.find('<')));
}

std::string cut_text(std::string_view text, std::size_t longest) {
  return std::string{cut(trimmed(text), longest)};
}

/// The document alone: some devices count a NUL into their length, or send blanks behind it.
std::string document_of(std::string_view body) {
  constexpr std::string_view around{" \t\r\n\0", 5};
  const auto last = body.find_last_not_of(around);
  return std::string{body.substr(0, last == body.npos ? 0 : last + 1)};
}

}  // namespace

http::Ask action(const http::Url& control, std::uint32_t interface, std::string_view service_type,
                 std::string_view name, std::span<const InArgument> arguments) {
  http::Ask ask{.method = "POST",
                .host = control.host,
                .port = control.port,
                .interface = interface,
                .target = control.target,
                .max_body = max_answer};
  ask.fields.add("CONTENT-TYPE", "text/xml; charset=\"utf-8\"");
  std::string named = "\"";
  named.append(service_type).append("#").append(name).append("\"");
  ask.fields.add("SOAPACTION", std::move(named));
  auto& body = ask.body;
  body.reserve(768);
  body =
      "<?xml version=\"1.0\"?>\r\n"
      "<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" "
      "s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body><u:";
  body.append(name).append(" xmlns:u=\"");
  xml::append_escaped(body, service_type);
  body += "\">";
  for (const auto& [argument, value] : arguments) {
    body.append("<").append(argument).append(">");
    xml::append_escaped(body, value);
    body.append("</").append(argument).append(">");
  }
  body.append("</u:").append(name).append("></s:Body></s:Envelope>\r\n");
  return ask;
}

std::optional<std::string_view> Answer::find(std::string_view name) const noexcept {
  for (const auto& [argument, value] : arguments)
    if (argument == name) return trimmed(value);
  return std::nullopt;
}

std::variant<Answer, Refusal> read_answer(const http::Reply& reply, std::string_view name) {
  const bool success = reply.status >= 200 && reply.status < 300;
  Refusal refusal{.status = reply.status};
  auto body = document_of(reply.body.size() > max_answer ? std::string_view{} : std::string_view{reply.body});
  if (body.empty()) {
    if (success && reply.body.size() <= max_answer) return Answer{};
    return refusal;
  }
  repair_ampersands(body);
  const auto document = xml::Document::parse(body);
  if (!document) {
    refusal.code = find_code(body);
    return refusal;
  }
  const auto root = document->root();
  if (const auto fault = find_below(root, "UPnPError")) {
    refusal.code = read_code(find_in(fault, "errorCode").text());
    if (const auto description = find_in(fault, "errorDescription"))
      refusal.description = cut_text(description.text(), max_error_description);
    return refusal;
  }
  std::string wanted{name};
  wanted += "Response";
  const auto response = find_below(root, wanted);
  if (!success || !response) return refusal;
  Answer answer;
  for (auto each = response.first(); each && answer.arguments.size() < max_out_arguments; each = each.next())
    answer.arguments.emplace_back(std::string{each.name()}, each.text());
  return answer;
}

}  // namespace sallyport::upnp::soap
