#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "protocols/upnp/http/message.hpp"
#include "protocols/upnp/soap/request.hpp"

/// Control responses (UDA 1.1, sections 3.1.2 and 3.2.2): CONTENT-TYPE, EXT and the body are set here, SERVER
/// and DATE by the transport.
namespace sallyport::upnp::soap {

/// Success. The `out` arguments are given in the order of the table, which names them; those not given go out
/// empty, so all are there (UDA-3-03); one too many is dropped.
class SuccessWriter {
 public:
  explicit SuccessWriter(const Call& call);

  SuccessWriter& text(std::string_view value);  ///< escaped here
  SuccessWriter& number(std::uint32_t value);
  SuccessWriter& boolean(bool value) { return number(value ? 1 : 0); }  ///< 0 or 1 (UDA-3-11)

  /// Ends it; the writer is used up.
  http::Response take();

 private:
  bool open_next();
  void close();

  const description::Action* action_;
  std::size_t next_ = 0;  ///< index of the table's argument to look at next
  std::string_view name_;
  std::string body_;
};

/// What goes out before and behind the text of the one `out` argument of the call's action, for a body
/// written in pieces. The text between them is escaped by who writes it (xml::append_escaped).
std::string success_begin(const Call& call);
std::string success_end(const Call& call);

/// Success with one `out` argument that is itself an XML document, of any length. `document` yields it in pieces;
/// it holds no "]]>", which a writer that escapes every ">" in its texts never makes.
http::Response success(const Call& call, std::unique_ptr<http::BodySource> document);

/// 500 with the error and what it means to the call's service (UDA-3-04).
http::Response error(const description::ServiceTable& service, unsigned code);
http::Response error(const description::ServiceTable& service, UpnpErrc code);

http::Response response(const Fault& fault);
http::Response response(const HttpError& error);

}  // namespace sallyport::upnp::soap
