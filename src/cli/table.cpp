#include "src/cli/table.hpp"

#include <algorithm>
#include <cstdio>

namespace sallyport::cli {
namespace {

std::size_t width_of(std::uint32_t code) {
  if (code >= 0x300 && code <= 0x36f) return 0;
  if ((code >= 0x1100 && code <= 0x115f) || (code >= 0x2e80 && code <= 0xa4cf) ||
      (code >= 0xac00 && code <= 0xd7a3) || (code >= 0xf900 && code <= 0xfaff) ||
      (code >= 0xfe30 && code <= 0xfe6f) || (code >= 0xff00 && code <= 0xff60) ||
      (code >= 0xffe0 && code <= 0xffe6) || (code >= 0x1f300 && code <= 0x1faff) ||
      (code >= 0x20000 && code <= 0x3fffd))
    return 2;
  return 1;
}

std::string without_trailing_blanks(std::string line) {
  line.erase(line.find_last_not_of(' ') + 1);
  return line + '\n';
}

bool is_pinhole(const admin::Lease& lease) { return lease.family == "ipv6"; }

/// "3074", or with the address where rows differ in it. A pinhole's is the device's own.
std::string external_text(const admin::Lease& lease, bool with_address) {
  const auto port = std::to_string(lease.external_port);
  return with_address && !is_pinhole(lease) ? lease.external_address + ":" + port : port;
}

std::string left_text(const admin::Lease& lease) {
  if (lease.state != "active") return printable(lease.state);
  return lease.remaining_s ? short_time(*lease.remaining_s) : "forever";
}

std::string join(const std::vector<std::string>& texts) {
  std::string out;
  for (const auto& text : texts) out += (out.empty() ? "" : ", ") + printable(text);
  return out;
}

/// The far ends that may come in, short: "198.51.100.10", "198.51.100.10 +2".
std::string far_text(const admin::Lease& lease) {
  if (lease.remote.empty()) return {};
  return printable(lease.remote.front()) +
         (lease.remote.size() > 1 ? " +" + std::to_string(lease.remote.size() - 1) : std::string{});
}

/// Apple's systems map port 9 (discard) only to learn the external address.
bool is_probe(const admin::Lease& lease) {
  return lease.internal_port == 9 && (lease.via == "natpmp" || lease.via == "pcp");
}

/// What the device says of itself; for a lease that is open to some only, first to whom. Rows that differ in
/// nothing else (UPnP's RemoteHost) are told apart by it, so it is what stays when the column is narrow.
std::string description_text(const admin::Lease& lease, std::size_t width) {
  const auto description = lease.description.empty() && is_probe(lease) ? "(address probe)" : printable(lease.description);
  const auto far = far_text(lease);
  if (far.empty()) return cut(description, width);
  const auto from = "from " + far;
  if (columns(from) > width) return cut(far, width);
  if (description.empty() || columns(from) + 4 > width) return from;
  return cut(from + ": " + description, width);
}

constexpr std::string_view red_bold = "\x1b[1;31m", bold = "\x1b[1m", green = "\x1b[32m", dim = "\x1b[2m",
                           plain = "\x1b[0m";

std::string painted(std::string_view text, std::string_view paint, bool color) {
  if (!color) return std::string{text};
  return std::string{paint} + std::string{text} + std::string{plain};
}

/// "2026-03-01T14:02:07Z" as "2026-03-01 14:02:07 UTC".
std::string time_text(std::string_view rfc3339) {
  std::string text = printable(rfc3339);
  if (text.size() == 20 && text[10] == 'T' && text[19] == 'Z') {
    text[10] = ' ';
    text.replace(19, 1, " UTC");
  }
  return text;
}

}  // namespace

std::size_t columns(std::string_view text) {
  std::size_t sum = 0;
  while (!text.empty()) {
    const auto [code, octets] = first_character(text);
    sum += octets == 0 ? 1 : width_of(code);
    text.remove_prefix(std::max<std::size_t>(octets, 1));
  }
  return sum;
}

std::string cut(std::string_view text, std::size_t width) {
  if (columns(text) <= width) return std::string{text};
  if (width == 0) return {};
  std::size_t used = 0, end = 0;
  while (end < text.size()) {
    const auto [code, octets] = first_character(text.substr(end));
    const auto wide = octets == 0 ? 1 : width_of(code);
    if (used + wide > width - 1) break;
    used += wide;
    end += std::max<std::size_t>(octets, 1);
  }
  return std::string{text.substr(0, end)} + "…";
}

std::string padded(std::string_view text, std::size_t width, bool right) {
  auto out = cut(text, width);
  const std::string blanks(width - std::min(width, columns(out)), ' ');
  return right ? blanks + out : out + blanks;
}

std::string short_time(std::uint64_t seconds) {
  if (seconds < 100) return std::to_string(seconds) + "s";
  if (seconds < 100 * 60) return std::to_string(seconds / 60) + "m";
  if (seconds < 72 * 3600) return std::to_string(seconds / 3600) + "h";
  return std::to_string(seconds / 86400) + "d";
}

std::string long_time(std::uint64_t seconds) {
  std::string out;
  const auto part = [&](std::uint64_t number, char unit) {
    if (number > 0) out += (out.empty() ? "" : " ") + std::to_string(number) + unit;
  };
  part(seconds / 86400, 'd');
  part(seconds / 3600 % 24, 'h');
  part(seconds / 60 % 60, 'm');
  part(seconds % 60, 's');
  return out.empty() ? "0s" : out;
}

std::string amount(std::uint64_t number) {
  if (number < 10000) return std::to_string(number);
  static constexpr char units[] = {'K', 'M', 'G', 'T', 'P', 'E'};
  auto value = static_cast<double>(number);
  std::size_t unit = 0;
  for (value /= 1000; value >= 999.95 && unit + 1 < sizeof units; value /= 1000) ++unit;
  char text[32];
  std::snprintf(text, sizeof text, "%.1f %c", value, units[unit]);
  return text;
}

std::string device_text(const admin::Device& device) {
  if (!device.name || device.name->empty()) return printable(device.address);
  return printable(*device.name) + " " + printable(device.address);
}

namespace {

/// The device in so many columns. Of an IPv6 address the middle gives way: it begins like those of all its
/// neighbours.
std::string fitted(const admin::Device& device, std::size_t width) {
  const auto whole = device_text(device);
  const auto address = printable(device.address);
  if (columns(whole) <= width) return whole;
  const bool named = device.name && !device.name->empty();
  const bool six = address.find(':') != std::string::npos;
  if (named && address.size() + 3 <= width)  // the name gives way, the address stays whole
    return cut(printable(*device.name), width - address.size() - 1) + " " + address;
  if (!six || width < 8) return cut(whole, width);
  const auto name = named ? cut(printable(*device.name), width / 2) + " " : std::string{};
  const auto room = width - std::min(width, columns(name));
  if (room < 4) return cut(whole, width);
  const auto tail = (room - 1) / 2;
  return name + address.substr(0, room - 1 - tail) + "…" + address.substr(address.size() - tail);
}

}  // namespace

LeaseTable::LeaseTable(const std::vector<admin::Lease>& sample, std::size_t width) {
  std::size_t widest_device = 0;
  const auto first = std::ranges::find_if_not(sample, is_pinhole);
  for (const auto& lease : sample) {
    if (!is_pinhole(lease) && lease.external_address != first->external_address)
      show_external_address_ = true;
    id_ = std::max(id_, lease.id.size());
    widest_device = std::max(widest_device, columns(device_text(lease.device)));
    left_ = std::max(left_, left_text(lease).size());
  }
  for (const auto& lease : sample)
    external_ = std::max(external_, external_text(lease, show_external_address_).size());
  // ID  DEVICE  PROTO  EXT -> INT  VIA  LEFT  DESCRIPTION
  const std::size_t fixed = id_ + 2 + 2 + 5 + 2 + external_ + 4 + internal_ + 2 + via_ + 2 + left_ + 2;
  const std::size_t rest = width > fixed ? width - fixed : 0;
  // the device is cut last: who it is matters more than what it says of itself
  std::size_t least = 12;
  for (const auto& lease : sample) least = std::max(least, std::min<std::size_t>(columns(far_text(lease)), 15));
  device_ = std::clamp<std::size_t>(widest_device, 6, std::max<std::size_t>(rest > least ? rest - least : 6, 6));
  description_ = rest > device_ ? rest - device_ : 1;
}

std::string LeaseTable::head() const {
  return without_trailing_blanks(padded("ID", id_) + "  " + padded("DEVICE", device_) + "  PROTO  " +
                                 padded("EXT", external_, true) + " -> " + padded("INT", internal_) + "  " +
                                 padded("VIA", via_) + "  " + padded("LEFT", left_, true) + "  " +
                                 cut("DESCRIPTION", description_));
}

std::string LeaseTable::row(const admin::Lease& lease) const {
  const auto left = left_text(lease);
  const auto device = fitted(lease.device, device_);
  return without_trailing_blanks(padded(lease.id.empty() ? "-" : printable(lease.id), id_) + "  " +
                                 padded(device, device_) + "  " + padded(printable(lease.protocol), 5) +
                                 "  " +
                                 padded(external_text(lease, show_external_address_), external_, true) +
                                 " -> " + padded(std::to_string(lease.internal_port), internal_) + "  " +
                                 padded(lease.via ? printable(*lease.via) : "-", via_) + "  " +
                                 padded(left, std::max(left_, left.size()), true) + "  " +
                                 description_text(lease, description_));
}

std::string block_table(const std::vector<admin::Block>& blocks, std::size_t width) {
  std::size_t id = 4, device = 6;
  for (const auto& block : blocks) {
    id = std::max(id, block.id.size());
    device = std::max(device, columns(device_text(block.device)));
  }
  const std::size_t fixed = id + 2 + 2 + 5 + 2 + 8 + 2 + 7 + 2;
  const std::size_t rest = width > fixed ? width - fixed : 0;
  device = std::min(device, std::max<std::size_t>(rest > 12 ? rest - 12 : 6, 6));
  const std::size_t description = rest > device ? rest - device : 1;
  const auto line = [&](std::string_view a, std::string_view b, std::string_view c, std::string_view d,
                        std::string_view e, std::string_view f) {
    return without_trailing_blanks(padded(a, id) + "  " + padded(b, device) + "  " + padded(c, 5) + "  " +
                                   padded(d, 8, true) + "  " + padded(e, 7, true) + "  " +
                                   cut(f, description));
  };
  std::string out = line("ID", "DEVICE", "PROTO", "INTERNAL", "LEFT", "DESCRIPTION");
  for (const auto& block : blocks)
    out += line(printable(block.id), fitted(block.device, device), printable(block.protocol),
                std::to_string(block.internal_port),
                block.remaining_s ? short_time(*block.remaining_s) : "forever", printable(block.description));
  return out;
}

namespace {

/// Broken between words so that no line is wider than a terminal; later lines begin below the first.
std::string wrapped(std::string_view text, std::size_t indent) {
  std::string out;
  for (std::size_t at = indent; !text.empty();) {
    const auto end = std::min(text.find(' '), text.size());
    const bool first = out.empty();
    if (!first && at + 1 + end > 80) {
      out += "\n" + std::string(indent, ' ');
      at = indent;
    } else if (!first) {
      out += ' ';
      ++at;
    }
    out += text.substr(0, end);
    at += end;
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

}  // namespace

std::string status_text(const admin::Status& status, bool color) {
  std::string out = painted("sallyportd " + printable(status.version), bold, color) + ", up " +
                    long_time(status.uptime_s) + "\n";
  for (const auto& warning : status.warnings)
    out += painted("WARNING", red_bold, color) + "  " + wrapped(printable(warning), 9) + "\n";
  const auto line = [&](std::string_view what, std::string_view text) {
    out += without_trailing_blanks(padded(what, 13) + std::string{text});
  };
  line("data plane",
       printable(status.data_plane) +
           (status.data_plane_reason.empty() ? "" : " (" + printable(status.data_plane_reason) + ")"));
  line("external", status.external_addresses.empty()
                       ? "none: no port can be opened until the WAN has an address"
                       : join(status.external_addresses));
  for (const auto& interface : status.interfaces) {
    std::string text = printable(interface.name) + (interface.up ? " up" : " down");
    if (!interface.addresses.empty()) text += " " + join(interface.addresses);
    if (interface.role == "lan" && !interface.served) text += ", not served";
    line(printable(interface.role), text);
  }
  line("protocols", status.protocols.empty() ? "none" : join(status.protocols));
  line("leases",
       std::to_string(status.leases) +
           (status.blocks > 0 ? ", and " + std::to_string(status.blocks) + " blocked (list --blocked)" : ""));
  line("mappings",
       std::to_string(status.mappings) + " (" +
           (status.static_mappings > 0 ? std::to_string(status.static_mappings) + " static, " : std::string{}) +
           std::to_string(status.implicit_mappings) + " implicit)");
  line("flows", std::to_string(status.flows) + ", " + amount(status.packets) + " packets so far");
  line("store",
       printable(status.store_state) + (status.store_reason ? ": " + printable(*status.store_reason) : ""));
  line("epoch", long_time(status.epoch_s));
  return out;
}

std::string lease_text(const admin::Lease& lease) {
  std::string out;
  const auto line = [&](std::string_view what, std::string_view text) {
    out += without_trailing_blanks(padded(what, 13) + std::string{text});
  };
  const auto endpoint = [&](const std::string& address, std::uint16_t port) {
    return (lease.family == "ipv6" ? "[" + printable(address) + "]" : printable(address)) + ":" +
           std::to_string(port);
  };
  line("id", lease.id.empty() ? "-" : printable(lease.id));
  line("device",
       device_text(lease.device) + (lease.device.mac ? " (" + printable(*lease.device.mac) + ")" : ""));
  line("protocol", printable(lease.protocol));
  line("external", endpoint(lease.external_address, lease.external_port));
  line("internal", endpoint(lease.internal_address, lease.internal_port));
  line("remote", lease.remote.empty() ? "everybody" : wrapped(join(lease.remote), 13));
  line("description", printable(lease.description));
  const auto* meaning = lease.state == "disabled"  ? " (nothing comes in until its device enables it)"
                        : lease.state == "pending" ? " (not in force yet)"
                        : lease.state == "ending"  ? " (no longer in force)"
                                                   : "";
  line("state", printable(lease.state) + meaning + ", " + printable(lease.kind) +
                    (lease.via ? ", via " + printable(*lease.via) : ""));
  if (lease.set_size > 1)
    line("set", "one of " + std::to_string(lease.set_size) + " ports that end together; the first is " +
                    printable(lease.set_first));
  if (lease.remaining_s)
    line("left",
         long_time(*lease.remaining_s) + (lease.lifetime_s ? " of " + long_time(*lease.lifetime_s) : ""));
  else
    line("left", "forever");
  if (lease.created)
    line("created", time_text(*lease.created) +
                        (lease.kind == "static" ? std::string{}
                                                : ", renewed " + std::to_string(lease.renewals) +
                                                      (lease.renewals == 1 ? " time" : " times")));
  line("in", amount(lease.packets_in) + " packets, " + amount(lease.bytes_in) +
                 (lease.bytes_in < 10000 ? " B" : "B"));
  line("out", amount(lease.packets_out) + " packets, " + amount(lease.bytes_out) +
                  (lease.bytes_out < 10000 ? " B" : "B"));
  line("last packet", lease.last_packet ? time_text(*lease.last_packet) : "none yet");
  return out;
}

std::string event_line(const admin::Event& event, std::string_view time, std::size_t width, bool color) {
  const auto& lease = event.lease;
  std::string what = printable(event.event);
  if (event.reason != "requested") what += " (" + printable(event.reason) + ")";
  const auto left = event.event == "ended" ? std::string{} : left_text(lease);
  const std::size_t more = left.size() > 7 ? left.size() - 7 : 0;  // "disabled": the device gives way
  auto line = padded(lease.id.empty() ? "-" : printable(lease.id), 4) + "  " +
              padded(device_text(lease.device), 18 - more) + "  " + padded(printable(lease.protocol), 3) + " " +
              padded(std::to_string(lease.external_port), 5, true) + " -> " +
              padded(std::to_string(lease.internal_port), 5) + "  " +
              padded(left, 7 + more, true);
  const auto paint = event.event == "granted" ? green : event.event == "ended" ? red_bold : dim;
  line = padded(time, 8) + "  " + painted(padded(what, 15), paint, color) + "  " + line;
  if (width > 90) line += "  " + description_text(lease, width - 82);
  return without_trailing_blanks(std::move(line));
}

}  // namespace sallyport::cli
