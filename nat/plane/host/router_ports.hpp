#pragma once

#include <cstdint>
#include <optional>
#include <utility>

#include "nat/plane/data_plane.hpp"
#include "nat/plane/host/own_ports.hpp"

/// Ports of the router itself beside those of mappings: the same for every plane that runs on this kernel.
namespace sallyport::nat::host {

inline constexpr std::uint16_t last_router_port = 65534;
inline constexpr std::uint16_t fewest_router_ports = 512;

/// The router's own ports: what the pool leaves above it, or below; {0, 0} where that is too little.
inline PortRange router_ports_beside(const PortRange& pool) {
  if (pool.last <= last_router_port - fewest_router_ports)
    return {static_cast<std::uint16_t>(pool.last + 1), last_router_port};
  if (pool.first >= 1024 + fewest_router_ports) return {1024, static_cast<std::uint16_t>(pool.first - 1)};
  return {0, 0};
}

/// A MappingSpec or RangeSpec that spares the router's own range: that is chosen from only when all else is
/// taken.
template <class Spec>
Spec without_router_ports(const Spec& spec, const PortRange& router_ports) {
  Spec wish = spec;
  if (router_ports.last == last_router_port && spec.allowed.first < router_ports.first &&
      spec.allowed.last >= router_ports.first &&
      (!spec.suggested || spec.suggested->number() < router_ports.first))
    wish.allowed.last = static_cast<std::uint16_t>(router_ports.first - 1);
  return wish;
}

/// DataPlane::find_range() that spares the router's own range; `find` is the engine's.
template <class Find>
std::optional<FoundRange> find_range_beside(const RangeSpec& spec, const PortRange& router_ports,
                                            Find&& find) {
  const auto wish = without_router_ports(spec, router_ports);
  auto found = find(wish);
  if (wish.allowed == spec.allowed || (found && found->size == spec.size)) return found;
  const auto wider = find(spec);
  return wider && (!found || wider->size > found->size) ? wider : found;
}

/// As the engine's `install`, but no port that a socket of the router took since the last look at all sockets
/// (POL-TGT-05): such a one is given back by `vacate`.
template <class Install, class Vacate>
Result<Installed> claim_unbound(const MappingSpec& spec, KernelOwnPorts& own_ports, Install&& install,
                                Vacate&& vacate) {
  constexpr int most_tries = 8;
  constexpr std::uint32_t anybody = 0xc0000201;  // 192.0.2.1: a caller from outside, whoever it is
  for (int tries = 1;; ++tries) {
    auto installed = install();
    if (!installed || spec.restore || spec.is_static || tries == most_tries) return installed;
    const auto port = installed->external.port.number();
    const std::uint32_t address = installed->external.address.v4_number();
    if (!own_ports.expects({spec.transport, anybody, address, 9, port}) &&
        !own_ports.just_bound(spec.transport, address, port))
      return installed;
    vacate(installed->id);
    own_ports.note(spec.transport, port);
  }
}

}  // namespace sallyport::nat::host
