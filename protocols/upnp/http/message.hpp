#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "sallyport/values/address.hpp"
#include "sallyport/values/time.hpp"

/// HTTP messages as values: what a request means to UPnP. src/transport parses and writes them.
namespace sallyport::upnp::http {

/// Compares field names: ASCII letters of either case are the same (RFC 9110, section 5.1).
bool same_name(std::string_view a, std::string_view b) noexcept;

/// Header fields in the order they came; names keep their spelling, values have no blanks around them.
class Fields {
 public:
  using Field = std::pair<std::string, std::string>;

  void add(std::string name, std::string value) { all_.emplace_back(std::move(name), std::move(value)); }
  /// The value of the first field of this name; empty when there is none (which an empty value is not).
  std::optional<std::string_view> find(std::string_view name) const noexcept;
  std::size_t count(std::string_view name) const noexcept;
  const std::vector<Field>& all() const noexcept { return all_; }

 private:
  std::vector<Field> all_;
};

/// A whole request: its head was within the limits and its framing was sound, and the body is complete and
/// free of transfer codings.
struct Request {
  std::string method;
  std::string target;         ///< as sent: origin form, absolute form, or anything else
  unsigned minor_version = 1; ///< of HTTP/1.x
  Fields fields;
  std::string body;
  Address peer;               ///< the TCP peer (ACL-04: no field of the request says otherwise)
  std::uint16_t peer_port = 0;
  Address local;              ///< the gateway's address that was connected to
  std::uint32_t interface = 0;  ///< index of the LAN interface it came by
};

/// Yields a long body piece by piece, so that a list of any length costs one piece of memory (POL-FAIR-05).
class BodySource {
 public:
  virtual ~BodySource() = default;
  /// The next piece, at most some 16 KiB; empty at the end. Called on the control thread, between other work.
  virtual std::string next() = 0;
};

struct Response {
  unsigned status = 200;
  Fields fields;     ///< without CONTENT-LENGTH, TRANSFER-ENCODING, CONNECTION, DATE and SERVER: the transport's
  std::string body;
  std::shared_ptr<BodySource> source;  ///< when set, the body is what it yields (chunked, or to the end of an
                                       ///< HTTP/1.0 connection)
  bool close = false;
  std::function<void()> sent;          ///< when set, called once the whole answer was handed to the kernel, or
                                       ///< could not be
};

/// Answers once, now or later, on the control thread.
using Done = std::function<void(Response)>;

/// The reason phrase of a status code this gateway sends.
std::string_view reason_phrase(unsigned status) noexcept;

/// "Sun, 01 Mar 2026 12:00:00 GMT" (RFC 9110, section 5.6.7). Years 1970..9999.
std::string http_date(WallTime time);

/// A short text/plain answer for people: "404 Not Found: ...".
Response error_response(unsigned status, std::string_view text = {});

}  // namespace sallyport::upnp::http
