#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "nat/engine/engine.hpp"
#include "sallyport/values/result.hpp"

namespace sallyport::nat::host {

/// The router's own sockets on an external or the wildcard address, by socket diagnostics.
class KernelOwnPorts final : public OwnPorts {
 public:
  KernelOwnPorts();
  ~KernelOwnPorts() override;

  /// Sockets as the last refresh found them: those that listen, all of UDP's, and TCP connections of some
  /// time ago. Any thread may ask.
  bool in_use(Transport transport, std::uint16_t port) const override {
    return bits_[transport == Transport::udp][port / 64].load(std::memory_order_relaxed) >> port % 64 & 1;
  }
  /// Asks the kernel there and then where in_use() knows of none, at most 20,000 times a second: a scan of
  /// all ports costs no more than a few per cent of a core. One caller at a time.
  bool expects(const Unclaimed& packet) const override;
  /// Tries to bind a socket there for a moment, so it knows every one of the router's: listening, connected,
  /// of an interface of the WAN. At most 1,000 times a second, and 1,000 at once; beyond that: no. The same
  /// caller as of expects().
  bool just_bound(Transport transport, std::uint32_t address, std::uint16_t port) const override;
  /// From now until the next refresh in_use() knows that port: a service began to listen there just now.
  void note(Transport transport, std::uint16_t port) noexcept {
    bits_[transport == Transport::udp][port / 64].fetch_or(std::uint64_t{1} << port % 64,
                                                           std::memory_order_relaxed);
  }

  /// Sockets bound to one of `lan` interfaces (by index) do not count: nobody outside reaches them.
  void watch(std::vector<Address> external, std::vector<std::uint32_t> lan, std::vector<std::uint32_t> wan);
  /// Ports of sockets that are bound to one of the `wan` interfaces, ascending.
  const std::map<Transport, std::vector<std::uint16_t>>& bound_to_wan() const noexcept { return bound_; }
  /// Asks the kernel for the sockets that take in what is new, unless it was asked less than 250 ms ago; for
  /// TCP connections, which it takes milliseconds to walk through, every 30 s or after forget_connections().
  /// On failure the old answers stay.
  Result<void> refresh(TimePoint now);
  void forget_connections() noexcept { connections_refreshed_.reset(); }
  std::optional<TimePoint> refreshed() const noexcept { return refreshed_; }

 private:
  using Words = std::array<std::uint64_t, 65536 / 64>;
  /// Whether the kernel has a socket for that packet now.
  bool asks(const Unclaimed& packet) const;
  Result<void> dump(Transport transport, std::uint8_t family, std::uint32_t states, Words& words,
                    std::set<std::uint16_t>& bound) const;

  std::array<std::array<std::atomic<std::uint64_t>, 65536 / 64>, 2> bits_{};
  std::vector<Address> external_;
  std::vector<std::uint32_t> lan_;
  std::vector<std::uint32_t> wan_;
  std::array<std::atomic<std::uint32_t>, 8> probed_wans_{};  ///< the first of them, for just_bound(); 0: none
  std::map<Transport, std::vector<std::uint16_t>> bound_;
  std::optional<TimePoint> refreshed_, connections_refreshed_;
  Words connections_{};  ///< TCP ports of connections, listening or not
  std::set<std::uint16_t> connections_to_wan_;

  struct Live;
  std::unique_ptr<Live> live_;  // of expects()
};

}  // namespace sallyport::nat::host
