#include "protocols/upnp/igd/control_point.hpp"

#include <algorithm>
#include <charconv>

#include "protocols/upnp/soap/ampersand.hpp"
#include "protocols/upnp/soap/argument.hpp"
#include "protocols/upnp/xml/document.hpp"
#include "sallyport/values/printable.hpp"

namespace sallyport::upnp::igd {
namespace {

using namespace std::chrono_literals;
using wire::MappingFailure;

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wnon-virtual-dtor"  // Boost's, and nobody deletes a category
struct DescriptionCategory final : boost::system::error_category {
  const char* name() const noexcept override { return "sallyport.igd.description"; }
  std::string message(int value) const override {
    switch (static_cast<DescriptionErrc>(value)) {
      case DescriptionErrc::no_xml:
        return "the gateway's description cannot be read";
      case DescriptionErrc::no_gateway:
        return "the device has no service that maps ports";
    }
    return "unknown reason";
  }
};
#pragma GCC diagnostic pop

constexpr std::string_view service_prefix = "urn:schemas-upnp-org:service:";
constexpr std::string_view gateway_prefix = "urn:schemas-upnp-org:device:InternetGatewayDevice:";

constexpr unsigned silent_tries = 3;  ///< before the state says failed
constexpr auto longest_pause = std::chrono::seconds{300};

xml::Element child(const xml::Element& element, std::string_view name) {
  for (auto each = element.first(); each; each = each.next())
    if (each.name() == name) return each;
  return {};
}

std::string text_of(const xml::Element& element, std::string_view name) {
  return std::string{cut(soap::trimmed(child(element, name).text()), max_text)};
}

/// "WANIPConnection" and 2 of a standard service's type.
struct ServiceType {
  std::string_view name;
  unsigned version = 1;
};
std::optional<ServiceType> read_type(std::string_view type, std::string_view prefix) {
  if (!type.starts_with(prefix)) return std::nullopt;
  type.remove_prefix(prefix.size());
  ServiceType read{type.substr(0, type.find(':'))};
  if (read.name.size() == type.size()) return std::nullopt;
  const auto digits = type.substr(read.name.size() + 1);
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), read.version);
  if (error != std::errc{} || end != digits.data() + digits.size() || read.version == 0) return std::nullopt;
  return read;
}

/// Walks the tree of devices and keeps what it wants of it.
class DescriptionReader {
 public:
  DescriptionReader(const http::Url& location, std::uint32_t interface)
      : location_{location}, base_{location}, interface_{interface} {}

  Result<GatewayDescription> read(const xml::Document& document) {
    const auto root = document.root();
    const auto device = child(root, "device");
    if (root.name() != "root" || !device) return DescriptionErrc::no_xml;
    // some devices leave an address in it that they no longer have
    if (const auto base = http::parse_http_url(child(root, "URLBase").text());
        base && base->host == location_.host)
      base_ = *base;
    found_.friendly_name = text_of(device, "friendlyName");
    found_.manufacturer = text_of(device, "manufacturer");
    found_.model_name = text_of(device, "modelName");
    found_.model_number = text_of(device, "modelNumber");
    found_.udn = text_of(device, "UDN");
    read_device(device);
    if (found_.connections.empty() && !found_.firewall6) return DescriptionErrc::no_gateway;
    return std::move(found_);
  }

 private:
  void read_device(const xml::Element& device) {  // as deep as xml::max_depth at most
    const auto type = text_of(device, "deviceType");
    if (type.starts_with(gateway_prefix) &&
        read_version(std::string_view{type}.substr(gateway_prefix.size())) >= 2)
      found_.igd_version = 2;
    const auto udn = text_of(device, "UDN");
    for (auto list = device.first(); list; list = list.next()) {
      if (list.name() == "serviceList") {
        for (auto each = list.first(); each; each = each.next())
          if (each.name() == "service") read_service(each, udn);
      } else if (list.name() == "deviceList") {
        for (auto each = list.first(); each; each = each.next())
          if (each.name() == "device") read_device(each);
      }
    }
  }

  static unsigned read_version(std::string_view digits) {
    unsigned version = 1;
    std::from_chars(digits.data(), digits.data() + digits.size(), version);
    return version;
  }

  void read_service(const xml::Element& service, const std::string& udn) {
    auto type = text_of(service, "serviceType");
    const auto read = read_type(type, service_prefix);
    if (!read) return;
    const bool ip = read->name == "WANIPConnection", ppp = read->name == "WANPPPConnection";
    const bool firewall = read->name == "WANIPv6FirewallControl",
               forwarding = read->name == "Layer3Forwarding";
    if (!ip && !ppp && !firewall && !forwarding) return;
    const auto control = child(service, "controlURL");
    const auto reference = control.text();
    if (soap::trimmed(reference).empty()) return;
    const auto url = http::resolve(base_, reference);
    if (!url || url->host != location_.host) return;
    Connection connection{.service_type = {},
                          .version = read->version,
                          .ppp = ppp,
                          .host = url->host,
                          .port = url->port,
                          .interface = interface_,
                          .target = url->target,
                          .service_id = text_of(service, "serviceId"),
                          .udn = udn};
    connection.service_type = std::move(type);
    if (ip || ppp) {
      if (found_.connections.size() < max_connections) found_.connections.push_back(std::move(connection));
    } else if (firewall) {
      if (!found_.firewall6) found_.firewall6 = std::move(connection);
    } else if (!found_.forwarding) {
      found_.forwarding = std::move(connection);
    }
  }

  const http::Url& location_;
  http::Url base_;
  const std::uint32_t interface_;
  GatewayDescription found_;
};

/// Whether the value of DefaultConnectionService speaks of it (L3F-01):
/// "uuid:X:WANConnectionDevice:1,SERVICE-ID".
bool names(std::string_view value, const Connection& connection) {
  const auto comma = value.find(',');
  if (comma == value.npos || connection.service_id.empty()) return false;
  return value.starts_with(connection.udn) && soap::trimmed(value.substr(comma + 1)) == connection.service_id;
}

}  // namespace

const boost::system::error_category& description_category() noexcept {
  static const DescriptionCategory category;
  return category;
}

http::Ask ask_action(const Connection& service, std::string_view name,
                     std::span<const soap::InArgument> arguments) {
  return soap::action({service.host, service.port, service.target}, service.interface, service.service_type,
                      name, arguments);
}

Result<GatewayDescription> read_description(std::string body, const http::Url& location,
                                            std::uint32_t interface) {
  if (body.size() > max_description) return DescriptionErrc::no_xml;
  const auto last = body.find_last_not_of(std::string_view{" \t\r\n\0", 5});
  body.resize(last == body.npos ? 0 : last + 1);
  soap::repair_ampersands(body);
  const auto document = xml::Document::parse(std::move(body));
  if (!document) return DescriptionErrc::no_xml;
  return DescriptionReader{location, interface}.read(*document);
}

ControlPoint::ControlPoint(http::Url location, std::uint32_t interface, std::uint64_t seed, TimePoint now)
    : location_{std::move(location)}, interface_{interface}, jitter_{seed} {
  schedule(Step::describe, now);
  handle_timeout(now);
}

const Connection* ControlPoint::connection() const noexcept {
  return state_ == State::ready && chosen_ ? &description_.connections[*chosen_] : nullptr;
}

void ControlPoint::schedule(Step step, TimePoint at) {
  step_ = step;
  due_ = at;
}

void ControlPoint::handle_timeout(TimePoint now) {
  if (!due_ || *due_ > now) return;
  due_.reset();
  asking_ = true;
}

std::optional<http::NumberedAsk> ControlPoint::poll_ask() {
  if (!asking_) return std::nullopt;
  asking_ = false;
  in_flight_ = ++last_id_;
  http::NumberedAsk asked{.id = last_id_};
  switch (step_) {
    case Step::describe:
      asked.ask = {.method = "GET",
                   .host = location_.host,
                   .port = location_.port,
                   .interface = interface_,
                   .target = location_.target,
                   .max_body = max_description};
      break;
    case Step::default_connection:
      asked.ask = ask_action(*description_.forwarding, "GetDefaultConnectionService");
      break;
    case Step::status:
      asked.ask = ask_action(description_.connections[candidates_[candidate_]], "GetStatusInfo");
      break;
    case Step::address:
      asked.ask = ask_action(description_.connections[*chosen_], "GetExternalIPAddress");
      break;
  }
  return asked;
}

void ControlPoint::handle_reply(std::uint64_t id, const Result<http::Reply>& reply, TimePoint now) {
  if (id != in_flight_) return;
  in_flight_.reset();
  if (!reply)
    return fail(MappingFailure::no_answer, "the gateway does not answer: " + reply.error().message(), now,
                true);
  if (!reply->local.is_unspecified()) local_ = reply->local;
  if (step_ == Step::describe) return handle_description(*reply, now);
  handle_answer(*reply, now);
}

void ControlPoint::handle_description(const http::Reply& reply, TimePoint now) {
  if (reply.status != 200) {
    const auto failure = reply.status == 401 || reply.status == 403   ? MappingFailure::not_authorized
                         : reply.status == 404 || reply.status == 410 ? MappingFailure::unsupported
                                                                      : MappingFailure::nonsense;
    return fail(failure,
                "the gateway answers " + std::to_string(reply.status) + " where its description should be",
                now, false);
  }
  auto description = read_description(reply.body, location_, interface_);
  if (!description)
    return fail(description.error() == DescriptionErrc::no_gateway ? MappingFailure::unsupported
                                                                   : MappingFailure::nonsense,
                description.error().message(), now, false);
  failures_ = 0;
  description_ = std::move(*description);
  candidates_.clear();
  candidate_ = 0;
  chosen_.reset();
  for (std::size_t i = 0; i < description_.connections.size(); ++i) candidates_.push_back(i);
  if (candidates_.empty()) {
    state_ = State::ready;
  } else if (candidates_.size() == 1) {
    choose(0, now);
  } else {
    schedule(description_.forwarding ? Step::default_connection : Step::status, now);
    handle_timeout(now);
  }
}

void ControlPoint::handle_answer(const http::Reply& reply, TimePoint now) {
  static constexpr std::string_view actions[] = {"", "GetDefaultConnectionService", "GetStatusInfo",
                                                 "GetExternalIPAddress"};
  const auto read = soap::read_answer(reply, actions[static_cast<std::size_t>(step_)]);
  const auto* const answer = std::get_if<soap::Answer>(&read);
  const auto value = [&](std::string_view name) {
    return answer ? answer->find(name).value_or("") : std::string_view{};
  };
  failures_ = 0;
  switch (step_) {
    case Step::describe:
      break;
    case Step::default_connection: {
      const auto named = value("NewDefaultConnectionService");
      const auto found = std::ranges::find_if(
          candidates_, [&](std::size_t i) { return names(named, description_.connections[i]); });
      if (found != candidates_.end()) std::rotate(candidates_.begin(), found, found + 1);
      schedule(Step::status, now);
      handle_timeout(now);
      break;
    }
    case Step::status:
      if (value("NewConnectionStatus") == "Connected") return choose(candidates_[candidate_], now);
      ask_next_status(now);
      break;
    case Step::address: {
      // no answer to this is no reason to map nothing: an old gateway may map and not know its address
      const auto address = Address::parse(value("NewExternalIPAddress"));
      external_address_ = address && address->is_v4() && !address->is_unspecified() ? address : std::nullopt;
      address_asked_ = true;
      state_ = State::ready;
      break;
    }
  }
}

void ControlPoint::ask_next_status(TimePoint now) {
  // none is connected: the default one, for it may become so
  if (++candidate_ == candidates_.size()) return choose(candidates_.front(), now);
  schedule(Step::status, now);
  handle_timeout(now);
}

void ControlPoint::choose(std::size_t index, TimePoint now) {
  chosen_ = index;
  schedule(Step::address, now);
  handle_timeout(now);
}

void ControlPoint::fail(MappingFailure failure, std::string words, TimePoint now, bool soon) {
  ++failures_;
  const auto first = soon ? 1s : 30s;
  const auto pause =
      std::min<std::chrono::nanoseconds>(first * (1U << std::min(failures_ - 1, 9U)), longest_pause);
  schedule(step_, now + pause + pause * (jitter_.next() % 256) / 1024);
  // what was learned stays true while the gateway is silent for a while
  if (state_ == State::ready || (soon && failures_ < silent_tries)) return;
  state_ = State::failed;
  failure_ = failure;
  words_ = std::move(words);
}

void ControlPoint::refresh_address(TimePoint now) {
  if (state_ != State::ready || !chosen_ || in_flight_ || asking_) return;
  failures_ = 0;
  schedule(Step::address, now);
  handle_timeout(now);
}

}  // namespace sallyport::upnp::igd
