#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "protocols/upnp/http/message.hpp"
#include "sallyport/values/address.hpp"

/// HTTP as a control point uses it: requests as values. Whoever has the sockets carries them.
namespace sallyport::upnp::http {

/// What is asked of a gateway. HOST, CONTENT-LENGTH, CONNECTION and USER-AGENT are the carrier's.
struct Ask {
  std::string method;  ///< GET or POST
  Address host;
  std::uint16_t port = 80;
  std::uint32_t interface = 0;  ///< index of the interface it leaves by
  std::string target;           ///< origin form: "/ctl/IPConn"
  Fields fields;
  std::string body;
  std::size_t max_body = 0;  ///< octets of the answer's body; a longer answer fails
};

/// What came back, whatever its status.
struct Reply {
  unsigned status = 0;
  Fields fields;
  std::string body;
  Address local;  ///< this host's address that the connection had: what the gateway saw as its client
};

}  // namespace sallyport::upnp::http
