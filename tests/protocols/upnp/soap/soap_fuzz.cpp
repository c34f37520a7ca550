// A control request as it stands on the wire: whatever becomes a call has all its arguments, and every answer
// is XML.
#include <cstdlib>

#include "protocols/upnp/soap/argument.hpp"
#include "protocols/upnp/soap/request.hpp"
#include "protocols/upnp/soap/response.hpp"
#include "protocols/upnp/xml/document.hpp"
#include "tests/protocols/upnp/soap/wan_table.hpp"

using namespace sallyport::upnp;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto& table = soap::test::wan_table;
  const auto decoded = soap::decode_request(
      soap::test::request_of({reinterpret_cast<const char*>(data), size}), table, soap::test::may_be_empty);
  if (const auto* const fault = std::get_if<soap::Fault>(&decoded)) {
    if (!xml::Document::parse(soap::response(*fault).body)) std::abort();
    return 0;
  }
  const auto* const call = std::get_if<soap::Call>(&decoded);
  if (!call) return 0;
  if (!call->action || call->version < 1 || call->version > table.version) std::abort();
  std::size_t wanted = 0;
  for (const auto& each : call->action->arguments)
    if (each.direction == description::Direction::in) ++wanted;
  if (call->arguments.size() != wanted) std::abort();
  soap::SuccessWriter writer{*call};
  for (const auto& text : call->arguments) {
    const auto small = soap::parse_ui2(text);
    const auto large = soap::parse_ui4(text);
    if (small && (!large || *large != *small)) std::abort();
    (void)soap::parse_boolean(text);
    (void)soap::parse_transport(text);
    if (text.size() < 1000) writer.text(text);
  }
  if (!xml::Document::parse(writer.take().body)) std::abort();
  return 0;
}
