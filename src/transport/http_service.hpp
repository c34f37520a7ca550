#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "nat/plane/data_plane.hpp"
#include "protocols/upnp/http/message.hpp"
#include "sallyport/values/time.hpp"
#include "src/transport/http_reader.hpp"
#include "src/transport/source_limiter.hpp"

namespace boost::asio {
class io_context;
}

namespace sallyport::transport {

/// Serves HTTP/1.x on one TCP port of the LAN addresses and hands each whole request to one handler.
///
/// Each address has a listening socket that is bound to its device, so nobody on another interface reaches it
/// (HTTP-14, POL-WHO-01); one more takes the port everywhere else and drops what comes, so that nothing answers
/// there. Who connects from no LAN prefix is hung up on. On a connection the next request is read
/// when the answer to the last one is out; devices take turns by request, however many connections each has
/// (POL-FAIR-01). All times are looked at four times a second. Control thread only.
class HttpService {
 public:
  /// `Done` may be called at once or later, once; after the
  /// connection or the service is gone it does nothing but call Response::sent.
  using Handler = std::function<void(upnp::http::Request&&, upnp::http::Done)>;

  struct Options {
    std::uint16_t port = 5000;
    std::string server;  ///< the SERVER field: "OS/version UPnP/1.1 product/version"
    HttpReader::Limits reader;
    SourceLimiter::Options limit;  ///< requests of a device; above its rate they wait (POL-QTA-03)
    std::size_t connections_per_device = 8;  ///< POL-QTA-08; 0: no limit
    std::size_t connections = 512;           ///< POL-QTA-08; at least 1
    std::chrono::nanoseconds head_time = std::chrono::seconds{10};     ///< from the connection or the first octet
    std::chrono::nanoseconds request_time = std::chrono::seconds{30};  ///< the same, with the body
    std::chrono::nanoseconds handler_time = std::chrono::seconds{30};  ///< then 503 (UDA-2-13, UDA-3-19)
    std::chrono::nanoseconds answer_time = std::chrono::seconds{30};   ///< for the client to take the answer
    std::chrono::nanoseconds idle_time = std::chrono::seconds{30};     ///< between an answer and the next request
    std::chrono::nanoseconds linger_time = std::chrono::seconds{2};    ///< for the client to hang up after a close
    std::size_t linger_octets = 64 * 1024;  ///< read and thrown away meanwhile (POL-WEB-01)
  };
  struct Counts {
    std::uint64_t connections = 0;  ///< accepted and kept
    std::uint64_t requests = 0;     ///< given to the handler
    std::uint64_t answers = 0;      ///< wholly handed to the kernel, errors too
    std::uint64_t malformed = 0;    ///< requests refused by the reader
    std::uint64_t not_for_us = 0;   ///< connections from outside the LAN prefixes
    std::uint64_t over_limit = 0;   ///< a device's connections beyond its limit
    std::uint64_t gave_way = 0;     ///< connections closed for a new one at the total limit
    std::uint64_t timed_out = 0;
    std::uint64_t over_rate = 0;    ///< times a device was paused
    std::uint64_t no_descriptors = 0;  ///< times accepting stopped for want of descriptors or memory
  };

  HttpService(boost::asio::io_context& io, Handler handler, const Clock& clock, Options options);
  ~HttpService();

  /// Opens what is missing and closes what is no longer served, connections of it too. Addresses of either family
  /// count; `own` are the gateway's on all interfaces. Interfaces with index 0 and addresses that the kernel does
  /// not have wait for the next call. False with a sentence in `why` when the port cannot be had somewhere; the
  /// other addresses are served all the same.
  bool serve(std::span<const nat::PlaneInterface> lan, std::span<const Address> own, std::string& why);
  void set_rate(std::uint32_t per_second, std::uint32_t burst);
  /// Connections that are open are kept.
  void set_connections(std::size_t per_device, std::size_t total);
  /// Connections open now, with those that are being closed.
  std::size_t open_connections() const noexcept;
  const Counts& counts() const noexcept;

  class Impl;

 private:
  std::shared_ptr<Impl> impl_;
};

/// What to tell the operator when SYN cookies are off (POL-FAIR-02); empty when they are on or cannot be read.
std::optional<std::string> syn_cookie_warning(
    const std::filesystem::path& setting = "/proc/sys/net/ipv4/tcp_syncookies");

}  // namespace sallyport::transport
