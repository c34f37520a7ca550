#include "protocols/upnp/soap/request.hpp"

#include <algorithm>
#include <charconv>
#include <optional>
#include <utility>

#include "protocols/upnp/soap/ampersand.hpp"
#include "protocols/upnp/soap/argument.hpp"
#include "protocols/upnp/xml/document.hpp"

namespace sallyport::upnp::soap {
namespace {

using description::Direction;

struct SoapAction {
  std::string_view type;  // with the version
  std::string_view action;
};

/// `"type#action"`, with both quotes or none.
std::optional<SoapAction> parse_soap_action(std::string_view field) noexcept {
  if (field.starts_with('"')) {
    if (field.size() < 2 || !field.ends_with('"')) return std::nullopt;
    field = field.substr(1, field.size() - 2);
  }
  for (const char c : field)
    if (c <= 0x20 || c >= 0x7f || c == '"')
      return std::nullopt;  // char may be signed: not ASCII is then below
  const auto hash = field.find('#');
  if (hash == 0 || hash == std::string_view::npos || hash + 1 == field.size()) return std::nullopt;
  if (field.find('#', hash + 1) != std::string_view::npos) return std::nullopt;
  return SoapAction{field.substr(0, hash), field.substr(hash + 1)};
}

/// The version of a service type that the table serves.
std::optional<unsigned> served_version(std::string_view type,
                                       const description::ServiceTable& service) noexcept {
  if (!type.starts_with(service.type)) return std::nullopt;
  type.remove_prefix(service.type.size());
  if (type.size() < 2 || type[0] != ':' || type[1] < '1' || type[1] > '9') return std::nullopt;
  unsigned version = 0;
  const auto [end, error] = std::from_chars(type.data() + 1, type.data() + type.size(), version);
  if (error != std::errc{} || end != type.data() + type.size() || version > service.version)
    return std::nullopt;
  return version;
}

/// The only Body of a SOAP 1.1 envelope.
xml::Element find_body(const xml::Document& document) noexcept {
  const auto envelope = document.root();
  if (!envelope.is(envelope_namespace, "Envelope")) return {};
  xml::Element body;
  for (auto each = envelope.first(); each; each = each.next()) {
    if (each.name() != "Body") continue;
    if (body || !each.is(envelope_namespace, "Body")) return {};
    body = each;
  }
  return body;
}

}  // namespace

std::string_view Call::argument(std::string_view name) const noexcept {
  std::size_t index = 0;
  for (const auto& each : action->arguments) {
    if (each.direction != Direction::in) continue;
    if (index == arguments.size()) break;
    if (each.name == name) return arguments[index];
    ++index;
  }
  return {};
}

Decoded decode_request(http::Request&& request, const description::ServiceTable& service,
                       std::span<const std::string_view> may_be_empty) {
  const auto fault = [&](UpnpErrc error) {
    const auto code = static_cast<unsigned>(error);
    return Fault{code, error_description(service, code)};
  };

  const auto field = request.fields.find("SOAPACTION");
  if (!field) return HttpError{400, "SOAPACTION is missing"};
  if (request.fields.count("SOAPACTION") > 1) return HttpError{400, "SOAPACTION stands twice"};
  const auto named = parse_soap_action(*field);
  if (!named) return HttpError{400, "SOAPACTION is not \"serviceType#action\""};
  const auto version = served_version(named->type, service);
  if (!version) return fault(UpnpErrc::invalid_action);
  const auto* const action = service.find_action(named->action);
  if (!action || *version < action->since) return fault(UpnpErrc::invalid_action);

  repair_ampersands(request.body);
  const auto document = xml::Document::parse(std::move(request.body));
  if (!document) {
    if (document.error() == xml::XmlErrc::too_long) return HttpError{413, "the body is too long"};
    if (document.error() == xml::XmlErrc::doctype) return HttpError{400, "a DOCTYPE is refused"};
    // a fault and not a bare 400: miniupnpc takes every answer without a fault for success
    return fault(UpnpErrc::invalid_args);
  }
  const auto body = find_body(*document);
  if (!body) return HttpError{400, "the body is not a SOAP 1.1 envelope with one Body"};
  const auto element = body.first();
  if (!element || element.next()) return fault(UpnpErrc::invalid_args);
  if (!element.is(named->type, action->name)) return fault(UpnpErrc::invalid_action);

  // One walk over what came (thousands of elements at worst), comparing each with the few arguments wanted.
  std::vector<const description::Argument*> wanted;
  wanted.reserve(action->arguments.size());
  for (const auto& each : action->arguments)
    if (each.direction == Direction::in) wanted.push_back(&each);
  std::vector<xml::Element> given(wanted.size());
  for (auto each = element.first(); each; each = each.next()) {
    const auto at = std::ranges::find(wanted, each.name(), &description::Argument::name) - wanted.begin();
    if (static_cast<std::size_t>(at) == wanted.size()) continue;
    auto& place = given[static_cast<std::size_t>(at)];
    if (place || each.first()) return fault(UpnpErrc::invalid_args);
    place = each;
  }

  Call call{&service, action, *version, {}};
  call.arguments.reserve(wanted.size());
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    if (!given[i]) return fault(UpnpErrc::invalid_args);
    auto& text = call.arguments.emplace_back(given[i].text());
    if (trimmed(text).empty() && std::ranges::find(may_be_empty, wanted[i]->name) == may_be_empty.end())
      return fault(UpnpErrc::invalid_args);
  }
  return call;
}

}  // namespace sallyport::upnp::soap
