#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "protocols/natpmp/server.hpp"
#include "protocols/pcp/server.hpp"
#include "protocols/wire/datagram_core.hpp"

namespace sallyport::daemon {

/// PCP and NAT-PMP on their one port: the first octet tells them apart (RFC 6887, appendix A). Version 0 is
/// NAT-PMP's where that is on; all else is PCP's where that is on, so each negotiates the other's version
/// away.
class Port5351 final : public wire::DatagramCore {
 public:
  /// What is spoken on a LAN interface.
  struct Spoken {
    std::uint32_t interface = 0;
    bool pcp = false;
    bool natpmp = false;
    std::vector<Address> addresses;  ///< of the gateway there, for announcements
  };

  explicit Port5351(MappingService& service) : pcp_{service}, natpmp_{service} {}

  void set_pcp_options(pcp::ServerOptions options) { pcp_.set_options(std::move(options)); }
  void set_spoken(std::vector<Spoken> spoken, TimePoint now);

  void handle_datagram(std::span<const std::byte> datagram, const wire::Arrival& arrival,
                       TimePoint now) override;
  void handle_timeout(TimePoint now) override;
  std::optional<wire::Outgoing> poll_transmit() override;
  std::optional<TimePoint> next_deadline() const override;

 private:
  pcp::Server pcp_;
  natpmp::Server natpmp_;
  std::vector<Spoken> spoken_;
};

}  // namespace sallyport::daemon
