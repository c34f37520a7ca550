#pragma once

#include <vector>

#include "nat/plane/data_plane.hpp"
#include "sallyport/values/mapping_error.hpp"
#include "src/lease/lease_service.hpp"

/// What the configuration and the network let a device have; nothing here changes anything.
namespace sallyport::lease {

/// Targets that no rule can allow (POL-TGT-02): not unicast, the gateway itself, network and broadcast
/// addresses, and, with `known_lans_only`, whatever lies in no LAN prefix.
bool is_lawful_target(const nat::NetworkView& network, const Address& target, bool known_lans_only = true);

/// May this device have this external port? The first rule that matches decides; without one,
/// `external_ports`. A rule that allows without naming ports allows those of `external_ports`, so that it
/// does not open ports below 1024 by the way. A device of IPv6 has every port, unless a rule says otherwise.
bool may_have(const LeasePolicy& policy, const Address& device, Transport transport, Port external);

/// False when the rules leave nobody any IPv6 pinhole.
bool leaves_pinholes(const LeasePolicy& policy);

/// All ports of which may_have() is true for a device of IPv4, ascending, neighbours joined.
std::vector<PortRange> allowed_ranges(const LeasePolicy& policy, const Address& device, Transport transport);

bool may_name_others(const LeasePolicy& policy, const Address& requester);

/// The description as it is kept: at most `octets` long, cut between characters, control characters as
/// blanks, broken UTF-8 as U+FFFD (POL-TXT-01, POL-TXT-02).
std::string clean_description(std::string_view raw, std::size_t octets);

}  // namespace sallyport::lease
