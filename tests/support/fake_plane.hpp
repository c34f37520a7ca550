#pragma once

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "nat/plane/data_plane.hpp"

namespace sallyport::test {

/// A plane without packets: it keeps the rules of the seam and remembers what was asked of it. Pinholes are
/// in `mappings` like all, but not in `by_port`.
class FakePlane final : public nat::DataPlane {
 public:
  struct Held {
    nat::MappingSpec spec;
    ExternalEndpoint external;
  };
  using Key = std::pair<Transport, std::uint16_t>;

  std::map<std::uint64_t, Held> mappings;
  std::map<Key, std::uint64_t> by_port;
  std::set<Key> own_ports;      ///< the gateway's own: port_reserved
  std::set<Key> used_by_flows;  ///< another device's outbound flow: port_taken
  std::vector<std::pair<std::uint64_t, nat::Ending>> withdrawn;
  std::vector<Address> flows_ended;
  std::map<std::tuple<Transport, Address, std::uint16_t>, std::uint16_t>
      implicit;  ///< external ports by endpoint
  nat::NetworkView network;
  std::map<Address, Address> paired;  ///< devices that have another than the first external address
  std::size_t installs = 0, finds = 0;
  Counters counted{1, 2, 100, 200, std::nullopt};  ///< of every mapping

  /// The pinhole of an IPv6 endpoint that is in force.
  std::optional<Held> pinhole(Transport transport, const InternalEndpoint& internal, TimePoint now) const {
    for (const auto& [id, held] : mappings)
      if (!held.spec.internal.address.is_v4() && held.spec.transport == transport &&
          held.spec.internal == internal && held.spec.deadline > now)
        return held;
    return std::nullopt;
  }
  std::optional<Held> at(Transport transport, std::uint16_t port, TimePoint now) const {
    const auto it = by_port.find({transport, port});
    if (it == by_port.end() || mappings.at(it->second).spec.deadline <= now) return std::nullopt;
    return mappings.at(it->second);
  }

  Result<nat::Installed> install(const nat::MappingSpec& spec, TimePoint now) override {
    ++installs;
    if (!spec.internal.address.is_v4()) {
      if (spec.insist && spec.suggested && *spec.suggested != spec.internal.port)
        return nat::PlaneErrc::port_reserved;
      if (pinhole(spec.transport, spec.internal, now)) return nat::PlaneErrc::port_taken;
      const ExternalEndpoint same{spec.internal.address, spec.internal.port};
      mappings.insert_or_assign(++last_id_, Held{spec, same});
      return nat::Installed{nat::MappingId{last_id_}, same};
    }
    if (network.external.empty() && !spec.restore) return nat::PlaneErrc::no_external_address;
    const auto free = [&](std::uint16_t port) -> std::optional<nat::PlaneErrc> {
      if (own_ports.contains({spec.transport, port})) return nat::PlaneErrc::port_reserved;
      if (used_by_flows.contains({spec.transport, port})) return nat::PlaneErrc::port_taken;
      if (const auto held = at(spec.transport, port, now))
        return held->spec.is_static ? nat::PlaneErrc::port_reserved : nat::PlaneErrc::port_taken;
      return std::nullopt;
    };
    std::uint16_t port = spec.suggested ? spec.suggested->number() : 0;
    const auto used = implicit.find({spec.transport, spec.internal.address, spec.internal.port.number()});
    const bool keeps = used != implicit.end() && !spec.insist && !spec.restore;
    if (keeps) port = used->second;
    if (port != 0) {
      if (!keeps && !spec.restore && !spec.allowed.contains(*Port::from(port)))
        return nat::PlaneErrc::port_reserved;
      if (const auto why = free(port)) {
        if (spec.insist || spec.restore) return *why;
        port = 0;
      }
    }
    const std::uint32_t size = spec.allowed.last - spec.allowed.first + 1u;
    for (std::uint32_t i = 0; port == 0 && i < size; ++i) {
      const auto p = static_cast<std::uint16_t>(spec.allowed.first + ++last_port_ % size);
      if (!free(p)) port = p;
    }
    if (port == 0) return nat::PlaneErrc::no_ports_left;
    if (const auto old = by_port.find({spec.transport, port}); old != by_port.end())
      mappings.erase(old->second);
    const std::uint64_t id = ++last_id_;
    const Address external = external_for(spec.internal.address).value_or(Address{});
    mappings.insert_or_assign(id, Held{spec, {external, *Port::from(port)}});
    by_port[{spec.transport, port}] = id;
    return nat::Installed{nat::MappingId{id}, {external, *Port::from(port)}};
  }
  std::optional<nat::FoundRange> find_range(const nat::RangeSpec& spec, TimePoint now) override {
    ++finds;
    nat::FoundRange best{*Port::from(1), 0};
    const auto try_at = [&](std::uint32_t first) {
      if (spec.parity && first % 2 != spec.first.port.number() % 2u) return;
      std::uint16_t size = 0;
      for (std::uint32_t port = first;
           size < spec.size && port >= spec.allowed.first && port <= spec.allowed.last; ++port, ++size) {
        const auto external = static_cast<std::uint16_t>(port);
        const auto internal = static_cast<std::uint16_t>(spec.first.port.number() + size);
        const auto used = implicit.find({spec.transport, spec.first.address, internal});
        if (used != implicit.end() && used->second == external) continue;
        if (at(spec.transport, external, now) || own_ports.contains({spec.transport, external}) ||
            used_by_flows.contains({spec.transport, external}))
          break;
      }
      if (size > best.size) best = {*Port::from(first), size};
    };
    if (const auto used = implicit.find({spec.transport, spec.first.address, spec.first.port.number()});
        used != implicit.end() && !spec.insist)
      try_at(used->second);
    if (best.size < spec.size) try_at(spec.suggested ? spec.suggested->number() : spec.first.port.number());
    if (!(spec.insist && spec.suggested))
      for (std::uint32_t port = std::max<std::uint32_t>(spec.allowed.first, 1);
           port <= spec.allowed.last && best.size < spec.size; ++port)
        try_at(port);
    if (best.size == 0) return std::nullopt;
    return best;
  }
  Result<void> renew(nat::MappingId id, TimePoint deadline) override {
    const auto it = mappings.find(static_cast<std::uint64_t>(id));
    if (it == mappings.end()) return nat::PlaneErrc::not_found;
    it->second.spec.deadline = deadline;
    return {};
  }
  Result<void> set_remotes(nat::MappingId id, std::span<const RemoteFilter> remotes, bool outbound, TimePoint) override {
    const auto it = mappings.find(static_cast<std::uint64_t>(id));
    if (it == mappings.end()) return nat::PlaneErrc::not_found;
    it->second.spec.remotes.assign(remotes.begin(), remotes.end());
    it->second.spec.outbound = outbound;
    return {};
  }
  void withdraw(nat::MappingId id, nat::Ending how, TimePoint) override {
    const auto it = mappings.find(static_cast<std::uint64_t>(id));
    if (it == mappings.end()) return;
    withdrawn.emplace_back(static_cast<std::uint64_t>(id), how);
    if (it->second.spec.internal.address.is_v4())
      by_port.erase({it->second.spec.transport, it->second.external.port.number()});
    mappings.erase(it);
  }
  void end_flows(const Address& device, TimePoint) override { flows_ended.push_back(device); }
  Result<Counters> counters(nat::MappingId id) const override {
    if (!mappings.contains(static_cast<std::uint64_t>(id))) return nat::PlaneErrc::not_found;
    return counted;
  }
  std::optional<Address> external_for(const Address& device) const override {
    if (const auto own = paired.find(device); own != paired.end()) return own->second;
    return network.external.empty() ? std::nullopt : std::optional{network.external.front()};
  }
  std::optional<TimePoint> held_until(Transport transport, const Address&, Port external,
                                      TimePoint now) const override {
    const auto held = at(transport, external.number(), now);
    if (!held) return std::nullopt;
    return held->spec.is_static ? TimePoint::max() : held->spec.deadline;
  }
  Result<void> set_network(const nat::NetworkView& view, TimePoint) override {
    network = view;
    for (auto& [id, held] : mappings)
      if (!view.external.empty() && held.spec.internal.address.is_v4())
        held.external.address = view.external.front();
    return {};
  }
  Result<void> set_policy(const nat::PlanePolicy&, TimePoint) override { return {}; }
  std::vector<nat::PlaneEvent> sweep(TimePoint now) override {
    for (auto it = mappings.begin(); it != mappings.end();) {
      if (it->second.spec.deadline > now) {
        ++it;
        continue;
      }
      if (it->second.spec.internal.address.is_v4())
        by_port.erase({it->second.spec.transport, it->second.external.port.number()});
      it = mappings.erase(it);
    }
    return {};
  }
  std::vector<nat::ImplicitView> implicit_mappings(TimePoint) const override { return {}; }
  bool has_implicit(Transport transport, const InternalEndpoint& internal, TimePoint) const override {
    return implicit.contains({transport, internal.address, internal.port.number()});
  }
  nat::PlaneStatus status() const override { return {}; }

 private:
  std::uint64_t last_id_ = 0;
  std::uint32_t last_port_ = 0;
};

}  // namespace sallyport::test
