#pragma once

#include <cstdint>
#include <optional>

#include "protocols/upnp/http/exchange.hpp"
#include "sallyport/values/result.hpp"
#include "sallyport/values/time.hpp"

namespace sallyport::upnp::http {

/// An Ask and the number its answer comes back with.
struct NumberedAsk {
  std::uint64_t id = 0;
  Ask ask;
};

/// A core that asks by HTTP, one thing at a time: poll it after everything that is fed to it, carry what it
/// gives, and hand in each answer, or why there is none, exactly once.
class Asker {
 public:
  virtual ~Asker() = default;
  virtual std::optional<NumberedAsk> poll_ask() = 0;
  /// Another id than the one in flight changes nothing.
  virtual void handle_reply(std::uint64_t id, const Result<Reply>& reply, TimePoint now) = 0;
};

}  // namespace sallyport::upnp::http
