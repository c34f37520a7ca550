#include "src/admin/render.hpp"

#include <algorithm>
#include <charconv>
#include <cstdio>

#include "sallyport/admin/filter.hpp"
#include "src/lease/public_id.hpp"

namespace sallyport::admin {
namespace {

void append(std::string& out, std::uint64_t number) {
  char digits[24];
  out.append(digits, std::to_chars(digits, digits + sizeof digits, number).ptr);
}

void append(std::string& out, const std::optional<std::uint32_t>& number) {
  if (number)
    append(out, std::uint64_t{*number});
  else
    out += "null";
}

void append(std::string& out, const std::optional<std::string>& text) {
  if (text)
    append_text(out, *text);
  else
    out += "null";
}

void append(std::string& out, const std::vector<std::string>& texts) {
  out += '[';
  for (std::size_t i = 0; i < texts.size(); ++i) {
    if (i > 0) out += ',';
    append_text(out, texts[i]);
  }
  out += ']';
}

void append(std::string& out, const std::vector<Address>& addresses) {
  out += '[';
  for (std::size_t i = 0; i < addresses.size(); ++i)
    out += (i > 0 ? ",\"" : "\"") + addresses[i].to_string() + '"';
  out += ']';
}

template <class Side>
void append(std::string& out, const Endpoint<Side>& endpoint) {
  out += "{\"address\":\"";
  out += endpoint.address.to_string();
  out += "\",\"port\":";
  append(out, std::uint64_t{endpoint.port.number()});
  out += '}';
}

void append(std::string& out, const Address& address, const DeviceIdentity& device) {
  out += "{\"address\":\"";
  out += address.to_string();
  out += "\",\"mac\":";
  append(out, device.mac);
  out += ",\"name\":";
  append(out, device.name);
  out += '}';
}

void append(std::string& out, WallTime time) {
  out += '"';
  out += rfc3339(time);
  out += '"';
}

struct Character {
  std::uint32_t code;
  std::size_t octets;  ///< 0: no UTF-8 here
};

Character decode(std::string_view text) {
  const auto octet = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const auto first = octet(0);
  if (first < 0x80) return {first, 1};
  const std::size_t size = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4 || text.size() < size) return {0, 0};
  std::uint32_t code = first & (0xffU >> (size + 1));
  for (std::size_t i = 1; i < size; ++i) {
    if ((octet(i) & 0xc0) != 0x80) return {0, 0};
    code = code << 6 | (octet(i) & 0x3fU);
  }
  constexpr std::uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
  if (code < least[size] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) return {0, 0};
  return {code, size};
}

bool is_plain(std::uint32_t code) {
  if (code < 0x20 || (code >= 0x7f && code <= 0x9f)) return false;
  return code != 0x2028 && code != 0x2029 && !(code >= 0x202a && code <= 0x202e) &&
         !(code >= 0x2066 && code <= 0x2069);
}

/// A label value of the Prometheus format.
std::string label(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\' || c == '"') out += '\\';
    if (c == '\n')
      out += "\\n";
    else
      out += c;
  }
  return out;
}

}  // namespace

std::string rfc3339(WallTime time) {
  const auto day = std::chrono::floor<std::chrono::days>(time);
  const std::chrono::year_month_day date{day};
  const std::chrono::hh_mm_ss clock{time - day};
  char text[40];
  std::snprintf(text, sizeof text, "%04d-%02u-%02uT%02d:%02d:%02dZ", static_cast<int>(date.year()),
                static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                static_cast<int>(clock.hours().count()), static_cast<int>(clock.minutes().count()),
                static_cast<int>(clock.seconds().count()));
  return text;
}

void append_text(std::string& out, std::string_view text) {
  out += '"';
  while (!text.empty()) {
    const auto [code, octets] = decode(text);
    if (octets == 0) {
      out += "\xef\xbf\xbd";
      text.remove_prefix(1);
      continue;
    }
    if (code == '"' || code == '\\') {
      out += '\\';
      out += static_cast<char>(code);
    } else if (is_plain(code)) {
      out += text.substr(0, octets);
    } else {
      char escape[16];
      std::snprintf(escape, sizeof escape, "\\u%04x", code);
      out += escape;
    }
    text.remove_prefix(octets);
  }
  out += '"';
}

std::string remote_text(const RemoteFilter& remote) {
  const bool host = remote.prefix.length == 128;
  const auto address = remote.prefix.address.to_string();
  const auto prefix = remote.prefix.to_string();
  const auto length = host ? std::string{} : prefix.substr(prefix.find('/'));
  if (!remote.port) return address + length;
  const auto port = ":" + std::to_string(remote.port->number());
  if (remote.prefix.address.is_v4()) return address + length + port;
  return "[" + address + "]" + length + port;
}

void append_lease(std::string& out, const LeaseView& lease, const DeviceIdentity& device,
                  const Moment& moment) {
  const bool implicit = lease.kind == LeaseKind::implicit;
  out += "{\"id\":";
  if (lease.id.empty())
    out += "null";
  else
    append_text(out, lease.id);
  out += ",\"state\":\"";
  out += to_string(lease.state);
  out += "\",\"kind\":\"";
  out += to_string(lease.kind);
  out += lease.internal.address.is_v4() ? "\",\"family\":\"ipv4\",\"protocol\":\""
                                        : "\",\"family\":\"ipv6\",\"protocol\":\"";
  out += to_string(lease.transport);
  out += "\",\"internal\":";
  append(out, lease.internal);
  out += ",\"external\":";
  append(out, lease.external);
  out += ",\"remote\":[";
  for (std::size_t i = 0; i < lease.remotes.size(); ++i) {
    if (i > 0) out += ',';
    append_text(out, remote_text(lease.remotes[i]));
  }
  out += "],\"via\":";
  if (implicit)
    out += "null";
  else
    append_text(out, to_string(lease.via));
  out += ",\"device\":";
  append(out, lease.internal.address, device);
  out += ",\"description\":";
  append_text(out, lease.description);
  out += ",\"lifetime_s\":";
  append(out, lease.lifetime_s);
  out += ",\"remaining_s\":";
  if (lease.deadline) {
    // rounded up: a lease that is in force never shows 0
    const auto left = std::chrono::ceil<std::chrono::seconds>(*lease.deadline - moment.now).count();
    append(out, static_cast<std::uint64_t>(std::max<decltype(left)>(left, 0)));
  } else {
    out += "null";
  }
  out += ",\"created\":";
  if (implicit)
    out += "null";
  else
    append(out, lease.created);
  out += ",\"renewals\":";
  append(out, std::uint64_t{lease.renewals});
  out += ",\"packets_in\":";
  append(out, lease.counters.packets_in);
  out += ",\"packets_out\":";
  append(out, lease.counters.packets_out);
  out += ",\"bytes_in\":";
  append(out, lease.counters.bytes_in);
  out += ",\"bytes_out\":";
  append(out, lease.counters.bytes_out);
  out += ",\"last_packet\":";
  if (lease.counters.last_packet)
    append(out,
           moment.wall - std::chrono::floor<std::chrono::seconds>(moment.now - *lease.counters.last_packet));
  else
    out += "null";
  if (lease.set_size > 1) {
    out += ",\"set\":{\"first\":";
    append_text(out, lease::public_id(lease.number - lease.set_place));
    out += ",\"size\":";
    append(out, std::uint64_t{lease.set_size});
    out += '}';
  }
  out += '}';
}

void append_event(std::string& out, const LeaseEvent& event, const DeviceIdentity& device,
                  const Moment& moment) {
  out += "{\"event\":\"";
  out += to_string(event.kind);
  out += "\",\"reason\":\"";
  out += to_string(event.reason);
  out += "\",\"lease\":";
  append_lease(out, event.lease, device, moment);
  out += '}';
}

void append_block(std::string& out, const lease::Block& block, const DeviceIdentity& device,
                  const Moment& moment) {
  out += "{\"id\":";
  append_text(out, block.lease_id);
  out += ",\"protocol\":\"";
  out += to_string(block.transport);
  out += "\",\"internal\":";
  append(out, InternalEndpoint{block.device, block.internal_port});
  out += ",\"device\":";
  append(out, block.device, device);
  out += ",\"description\":";
  append_text(out, block.description);
  out += ",\"until\":";
  if (block.until)
    append(out, *block.until);
  else
    out += "null";
  out += ",\"remaining_s\":";
  if (block.until) {
    const auto left = (*block.until - moment.wall).count();
    append(out, static_cast<std::uint64_t>(std::max<decltype(left)>(left, 0)));
  } else {
    out += "null";
  }
  out += '}';
}

std::string status_json(const DaemonStatus& daemon, const lease::ServiceStatus& service,
                        std::uint32_t epoch_s) {
  std::string out = "{\"version\":";
  append_text(out, daemon.version);
  out += ",\"uptime_s\":";
  append(out, daemon.uptime_s);
  out += ",\"data_plane\":";
  append_text(out, daemon.plane.name);
  out += ",\"data_plane_reason\":";
  append_text(out, daemon.data_plane_reason);
  out += ",\"data_plane_running\":";
  out += daemon.plane.running ? "true" : "false";
  out += ",\"interfaces\":[";
  for (std::size_t i = 0; i < daemon.interfaces.size(); ++i) {
    const auto& interface = daemon.interfaces[i];
    out += i > 0 ? ",{\"name\":" : "{\"name\":";
    append_text(out, interface.name);
    out += ",\"role\":";
    append_text(out, interface.role);
    out += interface.up ? ",\"up\":true,\"addresses\":" : ",\"up\":false,\"addresses\":";
    append(out, interface.addresses);
    out += interface.served ? ",\"served\":true}" : ",\"served\":false}";
  }
  out += "],\"external_addresses\":";
  append(out, daemon.external_addresses);
  out += ",\"epoch_s\":";
  append(out, std::uint64_t{epoch_s});
  out += ",\"leases\":";
  append(out, service.leases);
  out += ",\"mappings\":";
  append(out, service.mappings + daemon.plane.implicit_mappings);
  out += ",\"static_mappings\":";
  append(out, service.statics);
  out += ",\"implicit_mappings\":";
  append(out, daemon.plane.implicit_mappings);
  out += ",\"flows\":";
  append(out, daemon.plane.flows);
  out += ",\"packets\":";
  append(out, daemon.plane.packets);
  out += ",\"blocks\":";
  append(out, service.blocks);
  const auto colon = service.store_state.find(": ");
  out += ",\"store\":{\"state\":";
  append_text(out, service.store_state.substr(0, colon));
  out += ",\"reason\":";
  if (colon == std::string::npos)
    out += "null";
  else
    append_text(out, service.store_state.substr(colon + 2));
  out += "},\"protocols\":";
  append(out, daemon.protocols);
  std::vector<std::string> warnings;
  for (const auto* source : {&daemon.warnings, &daemon.plane.warnings, &service.warnings})
    for (const auto& warning : *source)
      if (std::ranges::find(warnings, warning) == warnings.end()) warnings.push_back(warning);
  out += ",\"warnings\":";
  append(out, warnings);
  out += "}\n";
  return out;
}

std::string metrics_text(const DaemonStatus& daemon, const lease::ServiceStatus& service,
                         std::uint32_t epoch_s, const std::array<std::uint64_t, 6>& leases_by_via) {
  std::string out;
  const auto about = [&](std::string_view name, std::string_view type, std::string_view help) {
    out += "# HELP sallyport_" + std::string{name} + " " + std::string{help} + "\n# TYPE sallyport_" +
           std::string{name} + " " + std::string{type} + "\n";
  };
  const auto value = [&](std::string_view name, std::string_view labels, std::uint64_t number) {
    out += "sallyport_" + std::string{name};
    if (!labels.empty()) out += "{" + std::string{labels} + "}";
    out += ' ';
    append(out, number);
    out += '\n';
  };
  const auto one = [&](std::string_view name, std::string_view type, std::string_view help,
                       std::uint64_t number) {
    about(name, type, help);
    value(name, {}, number);
  };
  about("info", "gauge", "Version and data plane; always 1.");
  value("info", "version=\"" + label(daemon.version) + "\",data_plane=\"" + label(daemon.plane.name) + "\"",
        1);
  one("uptime_seconds", "gauge", "Time since the daemon started.", daemon.uptime_s);
  one("epoch_seconds", "gauge", "Time since the mapping table was last lost, as clients are told.", epoch_s);
  one("data_plane_up", "gauge", "1 while packets pass.", daemon.plane.running ? 1 : 0);
  one("store_up", "gauge", "1 while leases can be written down.", service.store_state == "ok" ? 1 : 0);
  one("external_addresses", "gauge", "External addresses now.", daemon.external_addresses.size());
  about("leases", "gauge", "Leases by the door they came by; config: static mappings.");
  for (const auto via : {Via::pcp, Via::natpmp, Via::upnp, Via::admin, Via::config})
    value("leases", "protocol=\"" + std::string{to_string(via)} + "\"",
          leases_by_via[static_cast<std::size_t>(via)]);
  about("mappings", "gauge", "Mappings in force, by how they were made.");
  value("mappings", "kind=\"explicit\"", daemon.plane.explicit_mappings);
  value("mappings", "kind=\"implicit\"", daemon.plane.implicit_mappings);
  one("blocks", "gauge", "Blocks set by revoke --block.", service.blocks);
  about("lease_decisions_total", "counter", "What became of leases and requests for them since the start.");
  value("lease_decisions_total", "decision=\"granted\"", service.granted);
  value("lease_decisions_total", "decision=\"renewed\"", service.renewed);
  value("lease_decisions_total", "decision=\"released\"", service.released);
  value("lease_decisions_total", "decision=\"expired\"", service.expired);
  value("lease_decisions_total", "decision=\"revoked\"", service.revoked);
  value("lease_decisions_total", "decision=\"refused\"", service.refused);
  about("requests_total", "counter", "Requests answered, by protocol and result.");
  for (const auto& entry : daemon.requests)
    value("requests_total",
          "protocol=\"" + label(entry.protocol) + "\",result=\"" + label(entry.result) + "\"", entry.count);
  one("flows", "gauge", "Flows in the data plane.", daemon.plane.flows);
  one("packets_total", "counter", "Packets translated, both directions.", daemon.plane.packets);
  about("dropped_packets_total", "counter", "Packets dropped, by reason.");
  for (const auto& [reason, count] : daemon.plane.drops)
    value("dropped_packets_total", "reason=\"" + label(reason) + "\"", count);
  return out;
}

}  // namespace sallyport::admin
