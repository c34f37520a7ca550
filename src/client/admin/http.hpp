#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <string_view>

#include "sallyport/admin/client.hpp"

/// As much HTTP/1.1 as talking to our own daemon over a unix socket takes: one request, one connection.
namespace sallyport::admin::http {

struct Request {
  std::string method = "GET";
  std::string target;
  std::string body;  ///< JSON; empty: none
  /// How long the daemon may stay silent.
  std::chrono::seconds patience{30};
};

struct Head {
  int status = 0;
};

/// Sends it and reads the answer: `head` once, then `piece` for each piece of the body; reading stops when
/// `piece` returns false. An error when the daemon cannot be reached, or goes away before the body's end.
Answer<void> exchange(const std::string& socket, const Request& request,
                      const std::function<void(const Head&)>& head,
                      const std::function<bool(std::string_view)>& piece);

}  // namespace sallyport::admin::http
