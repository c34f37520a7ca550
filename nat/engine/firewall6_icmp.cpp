#include "nat/engine/firewall6.hpp"
#include "nat/engine/rules.h"
#include "nat/packet/build6.hpp"

// ICMPv6 errors: those that pass, by the packet they quote (RFC 4890 4.3), and those we send (RFC 4443).

namespace sallyport::nat {
namespace {

namespace type = packet::icmp6_type;

constexpr std::uint32_t errors_per_second = 100;  // POL-QTA-11

}  // namespace

bool Firewall6::is_of_session(const FlowKey6& key) const {
  const std::uint32_t record = find_flow(key);
  const std::uint32_t endpoint =
      record != Flow6::none ? flows_[record].endpoint : find_endpoint(key.protocol, key.host, key.host_port);
  if (endpoint == Flow6::none) return false;
  const Pinhole* pinhole = pinhole_of(endpoints_[endpoint]);
  const bool open = pinhole && pinhole->enabled;
  if (record == Flow6::none) return open;  // UDP comes in by a pinhole without a flow
  const Flow6& flow = flows_[record];
  return !rules::sp_is_over(flow.deadline_s, now_s_) && !(flow.flags & Flow6::ended) &&
         (open || !(flow.flags & Flow6::of_pinhole));
}

/// Passes when what it quotes is of a session (POL-NET-08, REC-10). It neither refreshes nor ends one
/// (REC-19).
void Firewall6::error(Packet& packet, packet::Ipv6& ip, bool from_inside) {
  if (ip.icmp_type < type::unreachable || ip.icmp_type > type::parameter_problem)
    return drop(packet, DropReason::unknown_icmp);
  if (!packet.partial_checksum && !packet::icmp6_checksum_is_right(ip))
    return drop(packet, DropReason::bad_icmp_checksum);
  packet::Quoted6 quoted;
  // Who sent the packet that failed is who hears of it.
  if (!packet::parse_quoted(ip, quoted) || quoted.source != ip.destination)
    return drop(packet, DropReason::icmp_fits_nothing);
  const bool echo = quoted.protocol == packet::protocol::icmp6;
  // A host's echo is all that went out; a reply, all that came in.
  if (echo && quoted.icmp_type != (from_inside ? type::echo_reply : type::echo))
    return drop(packet, DropReason::icmp_fits_nothing);
  const FlowKey6 key = from_inside ? FlowKey6{quoted.protocol, quoted.destination, quoted.dport,
                                              quoted.source, echo ? std::uint16_t{0} : quoted.sport}
                                   : FlowKey6{quoted.protocol, quoted.source, quoted.sport,
                                              quoted.destination, echo ? std::uint16_t{0} : quoted.dport};
  if (!is_of_session(key)) return drop(packet, DropReason::icmp_fits_nothing);
  const Action where = from_inside ? Action::forward_wan : Action::forward_lan;
  if (cannot_go_on(packet, ip, where)) return;
  forward(packet, ip, where);
}

std::optional<packet::Address6> Firewall6::own_address_for(const Address6& host,
                                                           Action where) const noexcept {
  if (where == Action::forward_lan)
    for (const auto& [net, address] : lan_addresses_)
      if (net.contains(host)) return address;
  if (where == Action::forward_wan && wan_address_) return wan_address_;
  // A WAN may have link-local addresses only: then the LAN's is what the world can answer to (RFC 7084
  // WPD-9).
  if (!lan_addresses_.empty()) return lan_addresses_.front().second;
  return std::nullopt;
}

/// Never about errors, nor to what is no one host's address (RFC 4443 2.4 e). The MTU is told whatever the
/// policy says: without it connections hang.
void Firewall6::send_error(const packet::Ipv6& about, std::uint8_t icmp_type, std::uint8_t code,
                           std::uint32_t rest, Action where) {
  const bool wanted = where == Action::forward_lan ? policy_.icmp_to_lan : policy_.icmp_to_wan;
  if (!wanted && icmp_type != type::too_big) return;
  if (about.fragment_offset && icmp_type != type::too_big) return;
  if (about.protocol == packet::protocol::icmp6 && !about.fragment_offset && about.is_icmp_error()) return;
  const auto is_many = [](const Address6& address) {
    return address.high >> 56 == 0xff || address == Address6{};
  };
  if (is_many(about.source) || is_many(about.destination)) return;
  const auto from = own_address_for(about.source, where);
  if (!from) return;
  if (errors_second_ != now_s_) {
    errors_second_ = now_s_;
    errors_sent_ = 0;
  }
  if (++errors_sent_ > errors_per_second) return;
  sink_->emit(packet::make_icmp6_error(icmp_type, code, rest, *from, about), where);
}

}  // namespace sallyport::nat
