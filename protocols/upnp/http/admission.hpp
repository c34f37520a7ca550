#pragma once

#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "protocols/upnp/http/message.hpp"
#include "sallyport/values/address.hpp"

/// Which requests are let in, and by which path and method they find their handler. Pure: no sockets, no clock.
namespace sallyport::upnp::http {

/// The host and port of a Host field or of an absolute target, when the host is an IP literal.
struct Authority {
  Address address;
  std::optional<std::uint16_t> port;
  friend bool operator==(const Authority&, const Authority&) = default;
};

/// "192.168.1.1", "192.168.1.1:5000", "[2001:db8::1]:5000". Dotted decimal without leading zeros; IPv6 only in
/// brackets, without a zone and not as another spelling of IPv4; a port of one to five digits. Empty for all else:
/// names, a user part, an empty port, anything behind the port.
std::optional<Authority> parse_authority(std::string_view text) noexcept;

/// The two halves of a request target that names a resource here.
struct Target {
  std::optional<std::string_view> authority;  ///< of the absolute form, unchecked
  std::string_view path;  ///< with its query if there is one; exactly the octets that came, nothing decoded
};

/// Origin form ("/path") or absolute form ("http://host/path", the scheme in either case; no path is "/"). Empty
/// for the rest: "*", "host:port", other schemes. The views point into `target` or to static text.
std::optional<Target> parse_target(std::string_view target) noexcept;

/// Why a request is not let in at all, as the answer to give; empty when it is.
///
/// 501 for CONNECT, TRACE and OPTIONS; 400 for targets of other forms, for HTTP/1.1 without a Host and for two of them;
/// 403 when Host, or instead of it the authority of an absolute target, is not an IP literal of this device (any
/// port counts; HTTP/1.0 may go without), so that no page whose name was rebound to us reads anything
/// (POL-WEB-05); 403 when a browser sends anything but GET and HEAD for a page: it then says Origin, or a
/// Sec-Fetch-Site other than "none" (POL-WEB-06). Nothing of the request is repeated in the answer.
///
/// `own` are further addresses of the device beside Request::local.
std::optional<Response> refuse(const Request& request, std::span<const Address> own);

/// Whether the connection is to end after the answer, as far as the client says (RFC 9112, section 9.3): an
/// HTTP/1.1 one stays unless CONNECTION has "close", an HTTP/1.0 one always ends (HTTP-03).
bool wants_close(const Request& request) noexcept;

/// True for a request whose answer has the fields of GET's and no body (RFC 9110, section 9.3.2). Handlers treat
/// it as GET; the transport leaves the body out.
bool is_head(const Request& request) noexcept;

/// A client that says which languages it reads is told which it gets (UDA 1.1, section 2.9): always English.
void add_content_language(const Request& request, Response& response);

/// Finds the handler of a request by its exact path and method. Filled at start, then only read.
class Router {
 public:
  /// `Done` is to be called once, then or later.
  using Handler = std::function<void(Request&&, Done)>;

  /// GET answers HEAD too. A later handler of the same path and method takes the earlier one's place.
  void add(std::string path, std::string method, Handler handler);

  /// In this order: what refuse() says; 501 for a method no resource has; 404; 405 with ALLOW; the handler.
  void handle(Request&& request, std::span<const Address> own, Done done) const;

 private:
  struct Resource {
    std::vector<std::pair<std::string, Handler>> methods;
  };
  bool knows(std::string_view method) const noexcept;

  std::map<std::string, Resource, std::less<>> resources_;
};

}  // namespace sallyport::upnp::http
