#include "src/daemon/port_5351.hpp"

#include <algorithm>

namespace sallyport::daemon {

void Port5351::set_spoken(std::vector<Spoken> spoken, TimePoint now) {
  spoken_ = std::move(spoken);
  std::vector<wire::ServedAddress> pcp;
  std::vector<wire::ServedAddress> natpmp;
  for (const auto& entry : spoken_) {
    for (const auto& address : entry.addresses) {
      if (entry.pcp) pcp.push_back({entry.interface, address});
      if (entry.natpmp && address.is_v4()) natpmp.push_back({entry.interface, address});
    }
  }
  pcp_.set_served_addresses(pcp, now);
  natpmp_.set_served_addresses(natpmp, now);
}

void Port5351::handle_datagram(std::span<const std::byte> datagram, const wire::Arrival& arrival,
                               TimePoint now) {
  const auto spoken = std::ranges::find(spoken_, arrival.interface, &Spoken::interface);
  if (spoken == spoken_.end() || datagram.empty()) return;
  const bool version_0 = datagram.front() == std::byte{0};
  const bool natpmp = spoken->natpmp && arrival.destination.is_v4();  // which knows no IPv6
  if (natpmp && (version_0 || !spoken->pcp))
    natpmp_.handle_datagram(datagram, arrival, now);
  else if (spoken->pcp)
    pcp_.handle_datagram(datagram, arrival, now);
}

void Port5351::handle_timeout(TimePoint now) {
  pcp_.handle_timeout(now);
  natpmp_.handle_timeout(now);
}

std::optional<wire::Outgoing> Port5351::poll_transmit() {
  if (auto next = natpmp_.poll_transmit()) return next;
  return pcp_.poll_transmit();
}

std::optional<TimePoint> Port5351::next_deadline() const {
  const auto a = pcp_.next_deadline();
  const auto b = natpmp_.next_deadline();
  if (!a || !b) return a ? a : b;
  return std::min(*a, *b);
}

}  // namespace sallyport::daemon
