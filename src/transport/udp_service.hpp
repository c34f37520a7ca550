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
#include "src/transport/source_limiter.hpp"

namespace boost::asio {
class io_context;
}

namespace sallyport::transport {

/// Carries datagrams between UDP port 5351 of the served LAN interfaces and one core. Each interface has a
/// socket of its own, bound to the device; one more socket without a device takes the port on every other
/// interface and lets the kernel drop what comes there, so that nothing, not even an ICMP error, answers
/// (POL-WHO-01).
///
/// What does not count (check_arrival) or is above its source's rate is dropped undecoded; what is left waits
/// in a queue where sources take turns. Control thread only.
class UdpService {
 public:
  static constexpr std::uint16_t port = 5351;

  struct Options {
    SourceLimiter::Options limit;
    std::uint16_t port = UdpService::port;  ///< another one for tests
  };
  struct Counts {
    std::uint64_t received = 0;  ///< given to the core
    std::uint64_t sent = 0;
    std::uint64_t not_for_us = 0;  ///< wrong interface, source or destination
    std::uint64_t over_rate = 0;
    std::uint64_t queue_full = 0;
    std::uint64_t send_failed = 0;
    std::uint64_t floods = 0;  ///< times a source was stopped in the kernel for a moment
  };

  /// `after_input` runs after datagrams were given to the core: its deadlines may be others now.
  UdpService(boost::asio::io_context& io, wire::DatagramCore& core, const Clock& clock, Options options,
             std::function<void()> after_input);
  ~UdpService();

  /// Opens what is missing, closes what is no longer served. `own` are the gateway's addresses on all
  /// interfaces. Interfaces with index 0 wait until they come; without any interface the port is left alone.
  /// False with a sentence in `why` when the port cannot be had.
  bool serve(std::span<const nat::PlaneInterface> lan, std::span<const Address> own, std::string& why);
  /// Sends what the core has to send.
  void drain();
  void set_rate(std::uint32_t per_second, std::uint32_t burst);
  const Counts& counts() const noexcept;

  class Impl;

 private:
  std::shared_ptr<Impl> impl_;
};

}  // namespace sallyport::transport
