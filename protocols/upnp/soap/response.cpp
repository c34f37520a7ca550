#include "protocols/upnp/soap/response.hpp"

#include <array>
#include <charconv>
#include <utility>

#include "protocols/upnp/xml/escape.hpp"

namespace sallyport::upnp::soap {
namespace {

using description::Direction;

constexpr std::string_view envelope_begin =
    "<?xml version=\"1.0\" encoding=\"utf-8\"?>\r\n"
    "<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" "
    "s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body>";
constexpr std::string_view envelope_end = "</s:Body></s:Envelope>\r\n";

constexpr std::size_t usual_size = 768;  // most responses fit, so their body is allocated once

void append_number(std::string& out, std::uint32_t number) {
  std::array<char, 10> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), number).ptr;
  out.append(digits.data(), end);
}

void append_tag(std::string& out, std::string_view opening, std::string_view name) {
  out += opening;
  out += name;
  out += '>';
}

void append_action_begin(std::string& out, const Call& call) {
  out += envelope_begin;
  out += "<u:";
  out += call.action->name;
  out += "Response xmlns:u=\"";
  out += call.service->type;
  out += ':';
  append_number(out, call.version);
  out += "\">";
}

void append_action_end(std::string& out, const description::Action& action) {
  out += "</u:";
  out += action.name;
  out += "Response>";
  out += envelope_end;
}

std::string_view only_out_argument(const Call& call) noexcept {
  for (const auto& each : call.action->arguments)
    if (each.direction == Direction::out) return each.name;
  return {};
}

http::Response response(unsigned status, std::string body) {
  http::Response response;
  response.status = status;
  response.fields.add("CONTENT-TYPE", "text/xml; charset=\"utf-8\"");
  response.fields.add("EXT", "");
  response.body = std::move(body);
  return response;
}

/// In a CDATA section: miniupnpc reads the document inside as it stands and decodes no references.
class DocumentText final : public http::BodySource {
 public:
  DocumentText(const Call& call, std::unique_ptr<http::BodySource> text)
      : begin_{success_begin(call) + "<![CDATA["}, end_{"]]>" + success_end(call)}, text_{std::move(text)} {}

  std::string next() override {
    if (!begin_.empty()) return std::exchange(begin_, {});
    if (text_) {
      auto piece = text_->next();
      if (!piece.empty()) return piece;
      text_.reset();
    }
    return std::exchange(end_, {});
  }

 private:
  std::string begin_;
  std::string end_;
  std::unique_ptr<http::BodySource> text_;
};

}  // namespace

SuccessWriter::SuccessWriter(const Call& call) : action_{call.action} {
  body_.reserve(usual_size);
  append_action_begin(body_, call);
}

bool SuccessWriter::open_next() {
  const auto& arguments = action_->arguments;
  while (next_ < arguments.size() && arguments[next_].direction != Direction::out) ++next_;
  if (next_ == arguments.size()) return false;
  name_ = arguments[next_++].name;
  append_tag(body_, "<", name_);
  return true;
}

void SuccessWriter::close() { append_tag(body_, "</", name_); }

SuccessWriter& SuccessWriter::text(std::string_view value) {
  if (open_next()) {
    xml::append_escaped(body_, value);
    close();
  }
  return *this;
}

SuccessWriter& SuccessWriter::number(std::uint32_t value) {
  if (open_next()) {
    append_number(body_, value);
    close();
  }
  return *this;
}

http::Response SuccessWriter::take() {
  while (open_next()) close();
  append_action_end(body_, *action_);
  return response(200, std::move(body_));
}

std::string success_begin(const Call& call) {
  std::string out;
  out.reserve(usual_size);
  append_action_begin(out, call);
  append_tag(out, "<", only_out_argument(call));
  return out;
}

std::string success_end(const Call& call) {
  std::string out;
  append_tag(out, "</", only_out_argument(call));
  append_action_end(out, *call.action);
  return out;
}

http::Response success(const Call& call, std::unique_ptr<http::BodySource> document) {
  auto streamed = response(200, {});
  streamed.source = std::make_shared<DocumentText>(call, std::move(document));
  return streamed;
}

http::Response error(const description::ServiceTable& service, unsigned code) {
  return response(Fault{code, error_description(service, code)});
}

http::Response error(const description::ServiceTable& service, UpnpErrc code) {
  return error(service, static_cast<unsigned>(code));
}

http::Response response(const Fault& fault) {
  std::string body;
  body.reserve(usual_size);
  body += envelope_begin;
  body +=
      "<s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail><UPnPError "
      "xmlns=\"";
  body += control_namespace;
  body += "\"><errorCode>";
  append_number(body, fault.code);
  body += "</errorCode><errorDescription>";
  xml::append_escaped(body, fault.description);
  body += "</errorDescription></UPnPError></detail></s:Fault>";
  body += envelope_end;
  return response(500, std::move(body));
}

http::Response response(const HttpError& error) { return http::error_response(error.status, error.why); }

}  // namespace sallyport::upnp::soap
