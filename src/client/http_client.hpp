#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>

#include "protocols/upnp/http/exchange.hpp"
#include "sallyport/values/result.hpp"

namespace sallyport::client {

/// Carries what the control point asks over kept-alive connections. All of it runs on the executor it was
/// given: one thread at a time, so a strand where there are several.
class HttpClient {
 public:
  struct Options {
    std::chrono::milliseconds connect_time{2000};
    std::chrono::milliseconds exchange_time{10000};  ///< of one ask, from its turn on
    std::chrono::milliseconds idle_time{15000};      ///< how long a connection without work is kept
    std::size_t at_once = 4;              ///< connections to one host and port; what is beyond it waits
    std::size_t head_octets = 16 * 1024;  ///< of an answer
  };
  using Handler = std::function<void(Result<upnp::http::Reply>)>;

  explicit HttpClient(boost::asio::any_io_executor executor);
  HttpClient(boost::asio::any_io_executor executor, Options options);
  /// Stops.
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  /// The handler is called exactly once, never inside of ask() or stop(). Errors: what the system says,
  /// timed_out, message_size (head or body are longer than they may be), protocol_error (it is no HTTP),
  /// operation_aborted. Redirects are not followed.
  void ask(upnp::http::Ask ask, Handler handler);
  /// Closes every connection; what is under way or waits ends with operation_aborted, and so does what is
  /// asked later.
  void stop();

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace sallyport::client
