#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "protocols/pcp/codec.hpp"
#include "protocols/pcp/update_queue.hpp"
#include "protocols/wire/announce_burst.hpp"
#include "protocols/wire/datagram_core.hpp"
#include "protocols/wire/pending_limit.hpp"
#include "sallyport/values/mapping_service.hpp"

namespace sallyport::pcp {

struct ServerOptions {
  /// Clients that may use THIRD_PARTY. Empty: nobody may, the option is off (RFC 6887, section 13.1).
  std::vector<Prefix> third_party_clients;
};

/// The PCP server: MAP, PEER and ANNOUNCE of RFC 6887 with THIRD_PARTY, PREFER_FAILURE, FILTER,
/// DESCRIPTION (RFC 7220) and PORT_SET (RFC 7753), over IPv4 and IPv6. The host that a request is about
/// decides whether it is of the NAT or of the IPv6 firewall; of that each port is opened by itself.
///
/// Holds no socket and reads no clock. Feed it with handle_datagram and drain poll_transmit; answers that
/// wait for the mapping service become ready when it calls back, now or later. As a listener of the service
/// (it registers itself) it announces epoch resets and tells clients of mappings that changed: after every
/// call that may have driven the service, drain poll_transmit and look at next_deadline again. Not
/// thread-safe: control thread only.
///
/// The first octet of a datagram is the caller's to look at when NAT-PMP shares the port: what is given to
/// this server with another version than 2 is answered UNSUPP_VERSION, version 0 too (RFC 6887, section 9 and
/// appendix A).
class Server final : public wire::DatagramCore, public ServiceListener {
 public:
  /// Requests that may wait for the service at once, in all and per client; beyond it NO_RESOURCES is
  /// answered.
  static constexpr std::size_t max_pending = 4096;
  static constexpr std::size_t max_pending_per_client = 1024;

  /// `service` outlives the server; a callback that comes after the server's end does nothing.
  explicit Server(MappingService& service, ServerOptions options = {});
  ~Server() override;
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  /// Takes effect for later requests.
  void set_options(ServerOptions options);
  /// The LAN addresses that announcements leave from. An address that was not there before (the start too)
  /// begins a burst of announcements.
  void set_served_addresses(std::span<const wire::ServedAddress> addresses, TimePoint now);

  void handle_datagram(std::span<const std::byte> datagram, const wire::Arrival& arrival,
                       TimePoint now) override;
  void handle_timeout(TimePoint now) override;
  std::optional<wire::Outgoing> poll_transmit() override;
  std::optional<TimePoint> next_deadline() const override;

  void on_lease(const LeaseEvent& event, TimePoint now) override;
  void on_epoch_reset(TimePoint now) override;
  void on_ipv6_epoch_reset(TimePoint now) override;

 private:
  struct Request;  ///< a datagram that passed the checks of the header

  void handle_announce(const Request& request, TimePoint now);
  void handle_map(Request request, TimePoint now);
  void handle_peer(Request request, TimePoint now);
  void ask(Request request, const MapBody& map, GrantRequest grant, bool filtered, TimePoint now);
  void answer_map(const Request& request, const MapBody& map, std::uint16_t ports, std::uint32_t lifetime_s,
                  const std::optional<std::string>& description, TimePoint now);
  void refuse(std::span<const std::byte> datagram, const wire::Arrival& arrival, ErrorAnswer error,
              TimePoint now);
  void refuse(std::span<const std::byte> datagram, const wire::Arrival& arrival, ResultCode code,
              TimePoint now);
  void send(std::vector<std::byte> bytes, const wire::Arrival& arrival);
  bool serves(bool ipv4) const;
  /// A client of the server's IPv6 addresses is told the epoch of IPv6 (section 8.5).
  std::uint32_t epoch_s(const Address& one_side, TimePoint now) const;
  bool may_use_third_party(const Address& client) const noexcept;

  MappingService& service_;
  ServerOptions options_;
  std::vector<wire::ServedAddress> served_;
  wire::AnnounceBurst burst_, ipv6_burst_;
  wire::PendingLimit pending_{max_pending, max_pending_per_client};
  UpdateQueue updates_;
  std::deque<wire::Outgoing> out_;
  std::shared_ptr<Server*> self_;  ///< callbacks hold it weakly
};

}  // namespace sallyport::pcp
