// Every decoder of the PCP codec; what is read as a MAP response is written and read again.
#include <cstdlib>

#include "protocols/pcp/codec.hpp"

using namespace sallyport::pcp;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span datagram{reinterpret_cast<const std::byte*>(data), size};
  (void)decode_request_header(datagram);
  (void)decode_response_header(datagram);
  (void)decode_map_body(datagram);
  (void)decode_peer_body(datagram);
  (void)decode_third_party(datagram);
  (void)decode_filter(datagram);
  (void)decode_port_set(datagram);
  (void)description_text(datagram);
  if (size >= 2) (void)encode_error(datagram, ResultCode::malformed_request, 1800, 1, false);
  OptionReader in{datagram};
  while (const auto option = in.next())
    if (option->data.data() + option->data.size() > datagram.data() + size) std::abort();
  if (const auto response = decode_map_response(datagram);
      response && response->header.result == ResultCode::success) {
    const auto again = decode_map_response(encode_map_response(*response));
    if (!again || *again != *response) std::abort();
  }
  return 0;
}
