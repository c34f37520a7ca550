#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "protocols/upnp/igd/server.hpp"
#include "protocols/upnp/ssdp/server.hpp"
#include "src/daemon/config.hpp"
#include "src/lease/lease_service.hpp"
#include "src/transport/event_sender.hpp"
#include "src/transport/http_service.hpp"
#include "src/transport/multicast.hpp"
#include "src/transport/network_state.hpp"

namespace sallyport::daemon {

/// The Internet Gateway Device with its sockets: SSDP, HTTP, events. What makes it the same device after a restart
/// (UUID, secret of the paths, BOOTID) is kept by the lease service.
class Upnp {
 public:
  /// `after_work` runs after anything came in: answers may wait, deadlines may be others.
  Upnp(boost::asio::io_context& io, lease::LeaseService& service, const Clock& clock, const Config& config,
       std::function<void()> after_work);
  ~Upnp();
  Upnp(const Upnp&) = delete;
  Upnp& operator=(const Upnp&) = delete;

  /// Follows the network: `lan` are the interfaces UPnP is spoken on. False with a sentence in `why` when a port
  /// cannot be had somewhere.
  bool serve(std::span<const nat::PlaneInterface> lan, const nat::NetworkView& view,
             const transport::NetworkState& state, TimePoint now, std::string& why);
  void configure(const Config& config);

  /// Sends what is to be sent.
  void drain(TimePoint now);
  void handle_timeout(TimePoint now);
  std::optional<TimePoint> next_deadline() const;
  /// What about the system harms this service; as of the last configure().
  const std::optional<std::string>& warning() const noexcept { return warning_; }

 private:
  transport::HttpService::Options http_options(const Config& config) const;
  upnp::igd::WanLink wan_link() const;
  void keep_boot_id();

  lease::LeaseService& service_;
  const Clock& clock_;
  std::function<void()> after_work_;
  nat::PlaneInterface wan_;
  std::unique_ptr<upnp::igd::Server> igd_;
  std::unique_ptr<upnp::ssdp::Server> ssdp_;
  std::unique_ptr<transport::MulticastService> multicast_;
  std::unique_ptr<transport::HttpService> http_;
  std::unique_ptr<transport::EventSender> events_;
  std::uint32_t kept_boot_id_ = 0;
  std::optional<std::string> warning_;
};

}  // namespace sallyport::daemon
