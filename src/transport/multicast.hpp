#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "nat/plane/data_plane.hpp"
#include "protocols/wire/datagram_core.hpp"
#include "sallyport/values/result.hpp"
#include "src/transport/arrival_check.hpp"
#include "src/transport/source_limiter.hpp"

namespace boost::asio {
class io_context;
}

namespace sallyport::transport {

/// The gateway's IPv6 addresses on an interface, which NetworkView does not carry: each with the length of the
/// on-link prefix around it. Link-local ones belong here too.
struct Ipv6Addresses {
  std::uint32_t interface = 0;
  std::vector<Prefix> addresses;
  friend bool operator==(const Ipv6Addresses&, const Ipv6Addresses&) = default;
};

/// As check_arrival, for a datagram of the SSDP port: it may also be sent to 239.255.255.250, or by IPv6 to ff02::c
/// and ff05::c. An IPv6 source is a host's on-link address: link-local, or within a prefix of `ipv6`, which are the
/// gateway's addresses there. `own` are the gateway's addresses on all interfaces (POL-WHO-01..03, UDA-1.3-15).
Ignored check_ssdp_arrival(const wire::Arrival& arrival, const nat::PlaneInterface& interface,
                           std::span<const Prefix> ipv6, std::span<const Address> own) noexcept;

/// Carries datagrams between UDP port 1900 of the served LAN interfaces and one core (upnp::ssdp::Server). Each
/// interface has a socket of its own, and one more for IPv6 where it has IPv6 addresses, bound to the device and
/// joined to the groups there. One more socket of each family without a device takes the port on every other
/// interface and lets the kernel drop what comes there, so that nothing, not even an ICMP error, answers (POL-WHO-01,
/// UDA-1.3-14). A core's datagram leaves by the socket of its interface, or not at all (POL-WHO-06).
///
/// The port is shared: control points and other devices on this machine may have it open too. They hear what is
/// multicast as before; what is unicast to port 1900 of this machine comes to us.
///
/// Only searches come through a filter in the kernel; the announcements and answers of others cost nothing. What does
/// not count (check_ssdp_arrival), or is above its source's rate, is dropped undecoded. Control thread only.
class MulticastService {
 public:
  static constexpr std::uint16_t port = 1900;

  struct Options {
    int hops = 2;           ///< TTL and hop limit of multicasts, 1..255
    bool loopback = true;   ///< control points on this machine hear our multicasts
    /// Before decoding; the core has limits of its own (POL-QTA-10).
    SourceLimiter::Options limit{.per_second = 200, .burst = 400};
    std::uint16_t port = MulticastService::port;  ///< another one for tests
  };
  struct Counts {
    std::uint64_t received = 0;  ///< given to the core
    std::uint64_t sent = 0;
    std::uint64_t not_for_us = 0;  ///< wrong interface, source or destination
    std::uint64_t over_rate = 0;
    std::uint64_t send_failed = 0;
  };

  /// `after_input` runs after datagrams were given to the core: its deadlines may be others now.
  MulticastService(boost::asio::io_context& io, wire::DatagramCore& core, const Clock& clock, Options options,
                   std::function<void()> after_input);
  ~MulticastService();

  /// Opens what is missing, joins the groups again where that was undone, closes what is no longer served. `own` are
  /// the gateway's addresses on all interfaces, of both families as far as known; those in `ipv6` count in any case.
  /// Interfaces with index 0 wait until they come; without any interface the port is left alone. False with a
  /// sentence in `why` when something cannot be had; what could be opened is served none the less.
  bool serve(std::span<const nat::PlaneInterface> lan, std::span<const Address> own,
             std::span<const Ipv6Addresses> ipv6, std::string& why);
  /// Sends what the core has to send.
  void drain();
  const Counts& counts() const noexcept;

  class Impl;

 private:
  std::shared_ptr<Impl> impl_;
};

}  // namespace sallyport::transport
