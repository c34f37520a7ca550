#include "src/lease/policy.hpp"

#include <algorithm>

namespace sallyport::lease {
namespace {

bool is_never_a_host(const Address& address) {
  if (!address.is_v4()) {
    const auto first = std::to_integer<unsigned>(address.bytes()[0]);
    const auto second = std::to_integer<unsigned>(address.bytes()[1]);
    if (first == 0xff) return true;                             // multicast
    if (first == 0xfe && (second & 0xc0) == 0x80) return true;  // link-local
    return std::all_of(address.bytes().begin(), address.bytes().end() - 1,
                       [](std::byte b) { return b == std::byte{0}; });  // :: and ::1
  }
  const std::uint32_t number = address.v4_number();
  const std::uint32_t top = number >> 24;
  return top == 0 || top == 127 || number >> 16 == 0xa9fe || top >= 224;
}

/// The address that stands for every router of its subnet (RFC 4291, section 2.6.1).
bool is_all_routers(const Prefix& prefix, const Address& address) {
  for (std::size_t bit = prefix.length; bit < 128; ++bit)
    if ((address.bytes()[bit / 8] & (std::byte{0x80} >> bit % 8)) != std::byte{0}) return false;
  return true;
}

bool matches(const PolicyRule& rule, const Address& device, Transport transport) {
  return (!rule.device || rule.device->contains(device)) && (!rule.transport || *rule.transport == transport);
}

}  // namespace

bool is_lawful_target(const nat::NetworkView& network, const Address& target, bool known_lans_only) {
  if (is_never_a_host(target)) return false;
  const auto is_on = [&](const nat::PlaneInterface& interface) {
    return std::ranges::find(interface.addresses, target) != interface.addresses.end();
  };
  if (std::ranges::any_of(network.lan, is_on) || std::ranges::any_of(network.wan, is_on)) return false;
  if (std::ranges::find(network.external, target) != network.external.end()) return false;
  bool inside = !known_lans_only;
  for (const auto& lan : network.lan)
    for (const auto& prefix : lan.prefixes) {
      if (!prefix.contains(target)) continue;
      inside = true;
      if (!target.is_v4()) {
        if (prefix.length < 127 && is_all_routers(prefix, target)) return false;
        continue;
      }
      if (prefix.length > 126 || prefix.length < 96) continue;  // /31 and /32 have neither
      const std::uint32_t host_bits = 0xffffffffu >> prefix.v4_bits();
      const std::uint32_t host = target.v4_number() & host_bits;
      if (host == 0 || host == host_bits) return false;
    }
  return inside;
}

bool may_have(const LeasePolicy& policy, const Address& device, Transport transport, Port external) {
  // ports of the gateway's one address are to be shared out, those of a host of IPv6 are its own
  const bool usual = !device.is_v4() || policy.external_ports.contains(external);
  for (const auto& rule : policy.rules) {
    if (!matches(rule, device, transport)) continue;
    if (rule.external.empty()) return rule.allow && usual;
    if (std::ranges::any_of(rule.external, [&](const PortRange& range) { return range.contains(external); }))
      return rule.allow;
  }
  return usual;
}

bool leaves_pinholes(const LeasePolicy& policy) {
  for (const auto& rule : policy.rules) {
    if (rule.allow) return true;
    const bool everybody = !rule.device || (rule.device->length == 0 && !rule.device->address.is_v4());
    if (everybody && rule.external.empty() && !rule.transport) return false;
  }
  return true;
}

std::vector<PortRange> allowed_ranges(const LeasePolicy& policy, const Address& device, Transport transport) {
  std::vector<PortRange> undecided{{1, 65535}}, allowed;
  const auto take = [&](PortRange wanted, std::optional<PortRange> within, bool allow) {
    std::vector<PortRange> rest;
    for (const auto& range : undecided) {
      const PortRange both{std::max(range.first, wanted.first), std::min(range.last, wanted.last)};
      if (both.first > both.last) {
        rest.push_back(range);
        continue;
      }
      if (range.first < both.first) rest.push_back({range.first, static_cast<std::uint16_t>(both.first - 1)});
      if (both.last < range.last) rest.push_back({static_cast<std::uint16_t>(both.last + 1), range.last});
      PortRange given = both;
      if (within) given = {std::max(both.first, within->first), std::min(both.last, within->last)};
      if (allow && given.first <= given.last) allowed.push_back(given);
    }
    undecided = std::move(rest);
  };
  for (const auto& rule : policy.rules) {
    if (!matches(rule, device, transport)) continue;
    if (rule.external.empty()) take({1, 65535}, policy.external_ports, rule.allow);
    for (const auto& range : rule.external) take(range, std::nullopt, rule.allow);
  }
  take({1, 65535}, policy.external_ports, true);
  std::ranges::sort(allowed, {}, &PortRange::first);
  std::vector<PortRange> joined;
  for (const auto& range : allowed) {
    if (range.first == 0) continue;
    if (!joined.empty() && joined.back().last + 1 == range.first)
      joined.back().last = range.last;
    else
      joined.push_back(range);
  }
  return joined;
}

bool may_name_others(const LeasePolicy& policy, const Address& requester) {
  return std::ranges::any_of(policy.third_party,
                             [&](const Prefix& prefix) { return prefix.contains(requester); });
}

std::string clean_description(std::string_view raw, std::size_t octets) {
  std::string out;
  out.reserve(std::min(raw.size(), octets));
  for (std::size_t i = 0; i < raw.size();) {
    const auto at = [&](std::size_t k) {
      return i + k < raw.size() ? static_cast<unsigned char>(raw[i + k]) : 0u;
    };
    const unsigned lead = at(0);
    std::size_t size = lead < 0x80                   ? 1
                       : lead >= 0xc2 && lead < 0xe0 ? 2
                       : lead >= 0xe0 && lead < 0xf0 ? 3
                       : lead >= 0xf0 && lead < 0xf5 ? 4
                                                     : 0;
    std::uint32_t point = size == 1 ? lead : size == 2 ? lead & 0x1f : size == 3 ? lead & 0x0f : lead & 0x07;
    for (std::size_t k = 1; k < size; ++k) {
      if ((at(k) & 0xc0) != 0x80) {
        size = 0;
        break;
      }
      point = point << 6 | (at(k) & 0x3f);
    }
    const bool broken = size == 0 || (size == 3 && (point < 0x800 || (point >= 0xd800 && point < 0xe000))) ||
                        (size == 4 && (point < 0x10000 || point > 0x10ffff));
    const bool control =
        !broken && (point < 0x20 || (point >= 0x7f && point < 0xa0) || point == 0x2028 || point == 0x2029 ||
                    (point >= 0x202a && point <= 0x202e) || (point >= 0x2066 && point <= 0x2069));
    const std::string_view add = broken ? "\xef\xbf\xbd" : control ? " " : raw.substr(i, size);
    if (out.size() + add.size() > octets) break;
    out += add;
    i += broken ? 1 : size;
  }
  return out;
}

}  // namespace sallyport::lease
