#pragma once

#include <algorithm>
#include <vector>

#include "nat/plane/data_plane.hpp"
#include "nat/plane/host/rtnl.hpp"

namespace sallyport::nat::host {

/// Networks that were a LAN's and are none now: its interface was renamed, made anew, or gave its address to
/// another one. Their hosts may be there still, so nothing of theirs leaves by a WAN (POL-NET-01).
class FormerLans {
 public:
  /// More than any router has; above it the oldest are forgotten.
  static constexpr std::size_t most = 256;

  /// A LAN of an earlier run.
  void remember(const Prefix& prefix) {
    const Prefix network = plain(prefix);
    if (network.length <= (network.address.is_v4() ? 96 : 0) || has(known_, network)) return;
    known_.push_back(network);
    if (known_.size() > most) known_.erase(known_.begin());
  }

  /// What the WAN has now is the WAN's.
  void follow(const NetworkView& view) {
    std::vector<Prefix> now;
    for (const PlaneInterface& lan : view.lan)
      for (const Prefix& prefix : lan.prefixes) {
        now.push_back(plain(prefix));
        remember(prefix);
      }
    std::vector<Address> outside = view.external;
    for (const PlaneInterface& wan : view.wan)
      outside.insert(outside.end(), wan.addresses.begin(), wan.addresses.end());
    std::erase_if(known_, [&](const Prefix& known) {
      return !has(now, known) && std::any_of(outside.begin(), outside.end(),
                                             [&](const Address& address) { return known.contains(address); });
    });
    networks_.clear();
    for (const Prefix& known : known_)
      if (!within(now, known)) networks_.push_back(known);
  }

  const std::vector<Prefix>& networks() const noexcept { return networks_; }

 private:
  static Prefix plain(const Prefix& prefix) { return {Net6::of(prefix).address, prefix.length}; }
  static bool has(const std::vector<Prefix>& all, const Prefix& one) {
    return std::find(all.begin(), all.end(), one) != all.end();
  }
  static bool within(const std::vector<Prefix>& all, const Prefix& one) {
    return std::any_of(all.begin(), all.end(), [&](const Prefix& each) {
      return each.length <= one.length && each.contains(one.address);
    });
  }

  std::vector<Prefix> known_;  // LANs of now too, oldest first
  std::vector<Prefix> networks_;
};

}  // namespace sallyport::nat::host
