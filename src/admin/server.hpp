#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "nat/plane/data_plane.hpp"
#include "sallyport/values/address.hpp"
#include "sallyport/values/time.hpp"

namespace boost::asio {
class io_context;
}
namespace sallyport::lease {
class LeaseService;
}

/// The admin API: HTTP/1.1 and JSON on a unix socket, described by api/openapi.json.
namespace sallyport::admin {

struct InterfaceStatus {
  std::string name;
  std::string role;  ///< "lan" or "wan"
  bool up = false;
  std::vector<Address> addresses;
  bool served = false;  ///< a protocol is spoken there
};

/// What only the daemon knows. Leases, mappings, epoch and store are asked of the lease service.
struct DaemonStatus {
  std::string version;
  std::uint64_t uptime_s = 0;
  nat::PlaneStatus plane;
  std::string data_plane_reason;  ///< why this plane was chosen, in words
  std::vector<InterfaceStatus> interfaces;
  std::vector<Address> external_addresses;
  std::vector<std::string> protocols;  ///< those spoken: "pcp", "natpmp"
  std::vector<std::string>
      warnings;  ///< one sentence each, with the next step; the plane's and the store's are added
  struct Requests {
    std::string protocol;  ///< "pcp"
    std::string result;    ///< "success", or the protocol's word for the refusal
    std::uint64_t count = 0;
  };
  std::vector<Requests> requests;  ///< for /metrics; may stay empty
};

/// Who an address is, as far as this machine knows.
struct DeviceIdentity {
  std::optional<std::string> mac;
  std::optional<std::string> name;
};

struct Sources {
  std::function<DaemonStatus()> status;
  std::function<DeviceIdentity(const Address&)> device;
  /// Runs after the API gave the lease service work (revoke, unblock): its next deadline may be another now.
  /// May be empty.
  std::function<void()> after_change;
};

struct ServerOptions {
  std::string socket = "/run/sallyport/admin.sock";
  std::string group = "sallyport";          ///< owns the socket where it exists; the mode is 0660
  std::size_t connections = 64;             ///< further ones wait in the backlog
  std::size_t subscribers = 16;             ///< of GET /api/v1/events, part of `connections`
  std::size_t event_backlog = 1024 * 1024;  ///< octets one subscriber may be behind before it is dropped
  std::chrono::milliseconds head_timeout{10'000};
  std::chrono::milliseconds request_timeout{30'000};  ///< body read, and each piece of an answer taken
  std::chrono::milliseconds idle_timeout{60'000};     ///< between requests on one connection
  std::chrono::milliseconds heartbeat{15'000};        ///< a comment line on an event stream without events
};

/// Serves the API on the thread that runs `io`. Everything given must outlive it.
class Server {
 public:
  Server(boost::asio::io_context& io, lease::LeaseService& leases, const Clock& clock, Sources sources,
         ServerOptions options = {});
  /// Closes every connection and removes the socket.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  /// Makes the socket (and its directory) and listens. A socket file that nobody answers is replaced; one
  /// that somebody answers, and a file that is not a socket, are not touched. False with a sentence in `why`.
  bool start(std::string& why);

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace sallyport::admin
