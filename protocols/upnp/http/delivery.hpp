#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "sallyport/values/address.hpp"
#include "sallyport/values/time.hpp"

/// What the gateway itself sends to a subscriber, and the shape of a core that has such things to send.
/// src/transport carries them.
namespace sallyport::upnp::http {

/// One request on its way to one callback URL.
struct Delivery {
  std::uint64_t handle = 0;  ///< of the subscription; never given again
  Address address;           ///< where to: the subscriber's own address
  std::uint16_t port = 80;
  std::string path;             ///< the target inside `bytes`, for logs
  std::uint32_t interface = 0;  ///< index of the LAN interface it must leave by
  Address local;                ///< the gateway's address it must leave from
  std::string bytes;            ///< the whole request
};

/// How a delivery ended.
struct DeliveryResult {
  enum class Kind : std::uint8_t {
    answered,        ///< a status line came
    connect_failed,  ///< refused, unreachable, or no connection in time
    timed_out,       ///< connected, and no status line in time
    broken,          ///< closed before a status line, or what came was none
  };
  Kind kind = Kind::connect_failed;
  unsigned status = 0;  ///< 100..999 with `answered`
  friend bool operator==(const DeliveryResult&, const DeliveryResult&) = default;
};

/// Poll it, carry what it gives, report each delivery's result exactly once. Between the poll and the report
/// a subscription gives nothing else. Control thread only.
class DeliveryCore {
 public:
  virtual ~DeliveryCore() = default;
  virtual std::optional<Delivery> poll_send(TimePoint now) = 0;
  virtual void handle_result(std::uint64_t handle, const DeliveryResult& result, TimePoint now) = 0;
};

}  // namespace sallyport::upnp::http
