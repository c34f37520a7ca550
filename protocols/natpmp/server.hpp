#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "protocols/natpmp/codec.hpp"
#include "protocols/wire/announce_burst.hpp"
#include "protocols/wire/datagram_core.hpp"
#include "protocols/wire/pending_limit.hpp"
#include "sallyport/values/mapping_service.hpp"

namespace sallyport::natpmp {

/// The NAT-PMP server of RFC 6886.
///
/// Holds no socket and reads no clock. Feed it with handle_datagram and drain poll_transmit; answers that
/// wait for the mapping service become ready when it calls back, now or later. As a listener of the service
/// (it registers itself) it announces the external address and epoch resets: after every call that may have
/// driven the service, drain poll_transmit and look at next_deadline again. Not thread-safe: control thread
/// only.
///
/// The first octet of a datagram is the caller's to look at when PCP shares the port: what is given to this
/// server with another version than 0 gets "unsupported version" (RFC 6886, section 3.5).
class Server final : public wire::DatagramCore, public ServiceListener {
 public:
  /// Requests that may wait for the service at once, in all and per client; beyond it "out of resources" is
  /// answered.
  static constexpr std::size_t max_pending = 4096;
  static constexpr std::size_t max_pending_per_client = 1024;

  /// `service` outlives the server; a callback that comes after the server's end does nothing.
  explicit Server(MappingService& service);
  ~Server() override;
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  /// The LAN addresses that announcements leave from. An address that was not there before (the start too)
  /// begins a burst of announcements, as soon as there is an external address to announce.
  void set_served_addresses(std::span<const wire::ServedAddress> addresses, TimePoint now);

  void handle_datagram(std::span<const std::byte> datagram, const wire::Arrival& arrival,
                       TimePoint now) override;
  void handle_timeout(TimePoint now) override;
  std::optional<wire::Outgoing> poll_transmit() override;
  std::optional<TimePoint> next_deadline() const override;

  void on_epoch_reset(TimePoint now) override;
  void on_external_address(const std::optional<Address>& address, TimePoint now) override;

 private:
  void handle_map(const MapRequest& request, const wire::Arrival& arrival, TimePoint now);
  void answer_map(const MapRequest& request, ResultCode result, std::uint16_t external_port,
                  std::uint32_t lifetime_s, const wire::Arrival& arrival, TimePoint now);
  void send(std::vector<std::byte> bytes, const wire::Arrival& arrival);

  MappingService& service_;
  std::vector<wire::ServedAddress> served_;
  wire::AnnounceBurst burst_;
  wire::PendingLimit pending_{max_pending, max_pending_per_client};
  std::deque<wire::Outgoing> out_;
  std::shared_ptr<Server*> self_;  ///< callbacks hold it weakly
};

}  // namespace sallyport::natpmp
