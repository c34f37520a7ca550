#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <string_view>
#include <variant>

#include "protocols/upnp/http/message.hpp"

namespace sallyport::transport {

/// Makes requests of the octets of one HTTP/1.x connection. No socket and no clock: octets go in by feed(), what
/// they mean comes out of next(). The same octets give the same events however they were cut (HTTP-15), in
/// linear time.
///
/// It finds the lines and keeps the limits itself; Beast then judges the syntax of the head and of the framing.
/// Where RFC 9112 leaves a choice, what could be read in two ways is refused. Not thread-safe.
class HttpReader {
 public:
  struct Limits {
    std::size_t head_octets = 16 * 1024;  ///< request line, fields, chunk extensions and trailers: else 431
    std::size_t fields = 128;             ///< with trailers: else 431
    std::size_t target_octets = 8 * 1024; ///< else 414
    std::size_t body_octets = 64 * 1024;  ///< else 413, by the length that was announced where there is one
  };
  /// The client waits for "100 Continue" before it sends the body (RFC 9110, section 10.1.1).
  struct Continue {};
  /// Answer this status and close: what follows on the connection is no request. Nothing comes after it.
  struct Failure {
    unsigned status = 400;
  };
  using Event = std::variant<upnp::http::Request, Continue, Failure>;

  explicit HttpReader(const Limits& limits);
  ~HttpReader();
  HttpReader(HttpReader&&) noexcept;
  HttpReader& operator=(HttpReader&&) noexcept;

  /// Takes octets in; after a Failure they are thrown away. What is fed before next() is empty stays in memory,
  /// so the caller stops feeding while it answers.
  void feed(std::string_view octets);
  /// The next event; empty when more octets are needed. After a Request nothing of the next one is looked at
  /// until this is called again (pipelining). Peer and addresses of a Request are the caller's to fill in.
  std::optional<Event> next();

  /// Octets of the next request have come, if only an empty line.
  bool started() const noexcept;
  /// The head of the next request is complete and its body is not.
  bool in_body() const noexcept;
  /// Octets that were fed and not looked at.
  std::size_t waiting() const noexcept;
  /// Ready for another connection. Large buffers are given back.
  void reset();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sallyport::transport
