#include "protocols/upnp/igd/server.hpp"

#include <algorithm>
#include <utility>

#include "protocols/upnp/igd/tables.hpp"
#include "protocols/upnp/soap/argument.hpp"
#include "protocols/upnp/soap/response.hpp"
#include "protocols/upnp/xml/escape.hpp"

namespace sallyport::upnp::igd {
namespace {

using namespace std::chrono_literals;

/// Arguments that clients leave empty and may (POL-NUM-03).
constexpr std::string_view may_be_empty[] = {"NewRemoteHost", "NewPortMappingDescription", "RemoteHost"};
/// Counts of entries and update ids change with each lease: told at most this often (UDA 1.1, section 4.3.3).
constexpr std::chrono::milliseconds table_interval{200};

/// From the end of the title to the beginning of the heading: light and dark, for a phone too. No script, nothing loaded.
constexpr std::string_view welcome_style = R"(</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<style>
:root{--ink:#1b2430;--soft:#566273;--page:#f2f4f7;--card:#fff;--line:#dde2e8}
@media(prefers-color-scheme:dark){:root{--ink:#e5e9ef;--soft:#9ca8b7;--page:#11151b;--card:#1a2029;--line:#2e3743}}
body{margin:0;padding:clamp(1rem,8vw,5rem) 1rem;background:var(--page);color:var(--ink);font:1rem/1.55 system-ui,sans-serif}
main{max-width:34rem;margin:auto;padding:clamp(1.25rem,5vw,2.25rem);background:var(--card);border:1px solid var(--line);
border-radius:.75rem}
h1{margin:0 0 .25rem;font-size:1.6rem}
p{margin:0}
dl{display:grid;grid-template-columns:auto 1fr;gap:.4rem 1.75rem;margin:1.5rem 0;padding:1.25rem 0;
border:solid var(--line);border-width:1px 0}
dt,.soft{color:var(--soft)}
dd{margin:0;font-weight:600;overflow-wrap:anywhere}
code{font-size:.95em;color:var(--ink)}
</style></head>
<body><main><h1>)";

std::string to_event_text(const Result<Address>& address) {
  return address ? address->to_string() : std::string{};
}

}  // namespace

Result<std::unique_ptr<Server>> Server::make(Dependencies dependencies, const ServerOptions& options,
                                             TimePoint now) {
  auto tree = make_tree(options.tree);
  if (!tree) return tree.error();
  auto old = options.tree;
  old.igd_version = 1;
  old.uda_minor = 0;
  auto old_tree = make_tree(old);
  if (!old_tree) return old_tree.error();
  return std::unique_ptr<Server>{
      new Server{std::move(dependencies), options, std::move(*tree), std::move(*old_tree), now}};
}

Server::Server(Dependencies dependencies, const ServerOptions& options, description::Tree tree,
               description::Tree old_tree, TimePoint now)
    : mappings_{dependencies.mappings},
      entries_{dependencies.entries},
      pinholes_{dependencies.pinholes},
      wan_{std::move(dependencies.wan)},
      options_{options},
      tree_{std::move(tree)},
      config_id_{description::config_id(tree_)},
      old_tree_{std::move(old_tree)},
      documents_{description::render_all(tree_)},
      old_documents_{description::render_all(old_tree_)},
      default_connection_{default_connection_service(tree_)},
      old_default_connection_{default_connection_service(old_tree_)},
      events_{std::move(dependencies.random)} {
  mappings_.add_listener(*this);
  link_up_ = wan_().up;
  firewall_ = pinholes_.pinhole_status();
  update_connection(now);
  add_routes();
}

Server::~Server() { mappings_.remove_listener(*this); }

void Server::set_options(const ServerOptions& options) noexcept {
  options_.list_own = options.list_own;
  options_.v1_permanent = options.v1_permanent;
  options_.udp_idle_s = options.udp_idle_s;
  options_.tcp_established_s = options.tcp_established_s;
}

void Server::add_routes() {
  for (const auto& document : documents_) {
    const auto old = std::ranges::find(old_documents_, document.path, &description::Document::path);
    const auto* for_old = old == old_documents_.end() ? &document : &*old;
    router_.add(document.path, "GET", [&document, for_old](const http::Request& request, const http::Done& done) {
      const auto& shown = wants_version_1(request) ? *for_old : document;
      http::Response response;
      response.fields.add("CONTENT-TYPE", std::string{shown.content_type});
      http::add_content_language(request, response);
      response.body = shown.body;
      done(std::move(response));
    });
  }
  router_.add("/", "GET",
              [this](const http::Request& request, const http::Done& done) { done(welcome(request.peer)); });
  for (const auto* device : description::all_devices(tree_))
    for (const auto& service : device->services) {
      const auto* table = service.table;
      router_.add(service.control_path, "POST", [this, table](http::Request&& request, http::Done done) {
        control(std::move(request), *table, now_, std::move(done));
      });
      std::vector<gena::Variable> variables;
      const auto declare = [&](std::string name, std::string value,
                               std::chrono::milliseconds interval = 0ms) {
        if (table->find_variable(name) != nullptr)
          variables.push_back({std::move(name), std::move(value), interval, {}});
      };
      if (table->type == wan_ip_connection_2.type) {
        declare("PossibleConnectionTypes", "IP_Routed");
        declare("ConnectionStatus", std::string{connection_status()});
        if (const auto external = mappings_.external_address({})) external_ = *external;
        declare("ExternalIPAddress", external_state());
        if (!variables.empty() && variables.back().name == "ExternalIPAddress")
          variables.back().own = [this](const Address& subscriber) {
            return to_event_text(mappings_.external_address(subscriber));
          };
        declare("PortMappingNumberOfEntries", std::to_string(std::min<std::size_t>(entries_.entry_count(), 65535)),
                table_interval);
        declare("SystemUpdateID", "0", table_interval);
      } else if (table->type == wan_common_interface_config_1.type) {
        declare("PhysicalLinkStatus", std::string{link_status()});
      } else if (table->type == layer3_forwarding_1.type) {
        declare("DefaultConnectionService", default_connection_);
      } else if (table->type == wan_ipv6_firewall_control_1.type) {
        declare("FirewallEnabled", firewall_.firewall ? "1" : "0");
        declare("InboundPinholeAllowed", firewall_.allowed ? "1" : "0");
      }
      const auto index = events_.add_service(std::move(variables));
      if (table->type == wan_ip_connection_2.type) wan_ip_events_ = index;
      if (table->type == wan_common_interface_config_1.type) wan_common_events_ = index;
      if (table->type == wan_ipv6_firewall_control_1.type) firewall_events_ = index;
      for (const auto* method : {"SUBSCRIBE", "UNSUBSCRIBE"})
        router_.add(service.event_path, method, [this, index](const http::Request& request, const http::Done& done) {
          done(events_.handle(request, index, now_));
        });
    }
}

void Server::handle(http::Request request, TimePoint now, http::Done done) {
  now_ = now;
  router_.handle(std::move(request), own_, std::move(done));
}

// --- events ---

void Server::on_lease(const LeaseEvent& event, TimePoint) {
  if (event.kind == LeaseEventKind::renewed) return;  // WIC-V-03: the table is as it was
  if (!event.lease.internal.address.is_v4()) return;  // nor has it pinholes
  ++update_id_;
  table_changed_ = true;
}

void Server::on_external_address(const std::optional<Address>& address, TimePoint now) {
  // that of some devices, when the preferred one is as it was
  if (address == std::exchange(external_, address)) ++external_changes_;
  update_connection(now);
}

std::string Server::external_state() const {
  return to_event_text(mappings_.external_address({})) + " " + std::to_string(external_changes_);
}

void Server::link_changed(TimePoint now) {
  link_up_ = wan_().up;
  link_changed_ = true;
  update_connection(now);
}

void Server::update_connection(TimePoint now) {
  if (!link_up_ || !mappings_.external_address({}))
    connected_since_.reset();
  else if (!connected_since_)
    connected_since_ = now;
  address_changed_ = true;
}

void Server::settle(TimePoint now) {
  std::vector<gena::Publisher::Change> changes;
  if (std::exchange(address_changed_, false)) {
    changes.emplace_back("ConnectionStatus", connection_status());
    changes.emplace_back("ExternalIPAddress", external_state());
  }
  if (std::exchange(table_changed_, false)) {
    changes.emplace_back("PortMappingNumberOfEntries",
                         std::to_string(std::min<std::size_t>(entries_.entry_count(), 65535)));
    changes.emplace_back("SystemUpdateID", std::to_string(update_id_));
  }
  if (!changes.empty()) events_.set(wan_ip_events_, changes, now);
  if (const auto status = pinholes_.pinhole_status(); firewall_events_ && status != firewall_) {
    firewall_ = status;
    const gena::Publisher::Change news[] = {{"FirewallEnabled", status.firewall ? "1" : "0"},
                                            {"InboundPinholeAllowed", status.allowed ? "1" : "0"}};
    events_.set(*firewall_events_, news, now);
  }
  if (std::exchange(link_changed_, false))
    events_.set(wan_common_events_, "PhysicalLinkStatus", std::string{link_status()}, now);
}

std::string_view Server::connection_status() const { return connected_since_ ? "Connected" : "Disconnected"; }

std::string_view Server::link_status() const {
  const auto link = wan_();
  return !link.exists ? "Unavailable" : link.up ? "Up" : "Down";
}

// --- control ---

/// Windows and the Xbox map nothing where they meet a device, service or action of version 2.
bool Server::wants_version_1(const http::Request& request) noexcept {
  const auto agent = request.fields.find("User-Agent");
  if (!agent) return false;
  const auto has = [&](std::string_view word) {
    return std::ranges::search(*agent, word, {}, [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 32) : c; })
               .begin() != agent->end();
  };
  return has("microsoft") || has("xbox");
}

const Server::Route* Server::find_route(std::string_view action) noexcept {
  static constexpr Route routes[] = {
      {"AddPortMapping", &Server::add_entry},
      {"DeletePortMapping", &Server::delete_entry},
      {"GetGenericPortMappingEntry", &Server::get_generic_entry},
      {"GetSpecificPortMappingEntry", &Server::get_specific_entry},
      {"GetExternalIPAddress", &Server::get_external_address},
      {"GetStatusInfo", &Server::get_status_info},
      {"AddAnyPortMapping", &Server::add_entry},
      {"DeletePortMappingRange", &Server::delete_range},
      {"GetListOfPortMappings", &Server::get_list},
      {"GetConnectionTypeInfo", &Server::get_connection_type_info},
      {"SetConnectionType", &Server::set_connection_type},
      {"RequestConnection", &Server::request_connection},
      {"RequestTermination", &Server::terminate},
      {"ForceTermination", &Server::terminate},
      {"GetNATRSIPStatus", &Server::get_nat_rsip_status},
      {"GetCommonLinkProperties", &Server::get_link_properties},
      {"GetTotalBytesSent", &Server::get_traffic},
      {"GetTotalBytesReceived", &Server::get_traffic},
      {"GetTotalPacketsSent", &Server::get_traffic},
      {"GetTotalPacketsReceived", &Server::get_traffic},
      {"GetDefaultConnectionService", &Server::get_default_connection},
      {"SetDefaultConnectionService", &Server::set_default_connection},
      {"GetFirewallStatus", &Server::get_firewall_status},
      {"GetOutboundPinholeTimeout", &Server::get_outbound_timeout},
      {"AddPinhole", &Server::add_pinhole},
      {"UpdatePinhole", &Server::update_pinhole},
      {"DeletePinhole", &Server::delete_pinhole},
      {"GetPinholePackets", &Server::look_at_pinhole},
      {"CheckPinholeWorking", &Server::look_at_pinhole},
  };
  const auto found = std::ranges::find(routes, action, &Route::action);
  return found == std::end(routes) ? nullptr : found;
}

void Server::control(http::Request request, const description::ServiceTable& table, TimePoint now,
                     http::Done done) {
  Context context{{request.interface, request.peer, 0, request.local}, wants_version_1(request), now,
                  std::move(done)};
  const auto decoded = soap::decode_request(std::move(request), table, may_be_empty);
  if (const auto* fault = std::get_if<soap::Fault>(&decoded)) return context.done(soap::response(*fault));
  if (const auto* error = std::get_if<soap::HttpError>(&decoded)) return context.done(soap::response(*error));
  const auto& call = std::get<soap::Call>(decoded);
  const auto* route = find_route(call.action->name);
  if (route == nullptr) return context.done(soap::error(table, soap::UpnpErrc::invalid_action));
  (this->*route->run)(call, context);
}

// --- WANCommonInterfaceConfig ---

void Server::get_link_properties(const soap::Call& call, Context& context) {
  const auto link = wan_();
  // an interface that does not say how fast it is still has to give a number (WCIC-01, WCIC-06)
  const std::uint64_t rate = link.bits_per_second != 0 ? link.bits_per_second : 1'000'000'000;
  const auto shown = static_cast<std::uint32_t>(std::min<std::uint64_t>(rate, 0xffffffff));
  context.done(soap::SuccessWriter{call}.text("Ethernet").number(shown).number(shown).text(link_status()).take());
}

void Server::get_traffic(const soap::Call& call, Context& context) {
  const auto link = wan_();
  const auto& name = call.action->name;
  const std::uint64_t count = name == "GetTotalBytesSent"       ? link.bytes_sent
                              : name == "GetTotalBytesReceived" ? link.bytes_received
                              : name == "GetTotalPacketsSent"   ? link.packets_sent
                                                                : link.packets_received;
  context.done(soap::SuccessWriter{call}.number(static_cast<std::uint32_t>(count)).take());  // wraps (WCIC-03)
}

// --- Layer3Forwarding ---

void Server::get_default_connection(const soap::Call& call, Context& context) {
  context.done(soap::SuccessWriter{call}
                   .text(context.wants_version_1 ? old_default_connection_ : default_connection_)
                   .take());
}

void Server::set_default_connection(const soap::Call& call, Context& context) {
  const std::string_view wanted = call.argument("NewDefaultConnectionService");
  if (wanted == default_connection_ || wanted == old_default_connection_) return context.done(soap::SuccessWriter{call}.take());
  const auto half = [](std::string_view text, bool second) {
    const auto comma = text.find(',');
    if (comma == text.npos) return second ? std::string_view{} : text;
    return second ? text.substr(comma + 1) : text.substr(0, comma);
  };
  unsigned code = 723;  // InvalidConnServiceSelection
  if (half(wanted, false) != half(default_connection_, false)) code = 720;  // InvalidDeviceUUID
  else if (half(wanted, true) != half(default_connection_, true)) code = 721;  // InvalidServiceID
  context.done(soap::error(*call.service, code));
}

// --- for people ---

http::Response Server::welcome(const Address& visitor) const {
  const auto external = mappings_.external_address(visitor);
  std::string page = "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n<title>";
  xml::append_escaped(page, tree_.root.friendly_name);
  page += welcome_style;
  xml::append_escaped(page, tree_.root.friendly_name);
  page +=
      "</h1>\n<p>This gateway opens ports for the devices of this network that ask for them.</p>\n"
      "<dl><dt>Internet</dt><dd>";
  page += external ? "connected" : "not connected: no port can be opened now";
  page += "</dd>\n<dt>External address</dt><dd>" + (external ? external->to_string() : std::string{"none"});
  page += "</dd>\n<dt>Open ports</dt><dd>" + std::to_string(entries_.entry_count());
  page +=
      "</dd></dl>\n<p class=\"soft\">On the gateway, <code>sallyport list</code> shows who opened what, and "
      "<code>sallyport revoke</code> closes it.</p>\n</main></body></html>\n";
  http::Response response;
  response.fields.add("CONTENT-TYPE", "text/html; charset=\"utf-8\"");
  response.fields.add("CONTENT-SECURITY-POLICY", "default-src 'none'; style-src 'unsafe-inline'");
  response.body = std::move(page);
  return response;
}

}  // namespace sallyport::upnp::igd
