// The NAT-PMP clients at a gateway that says anything at any time. The first octet of the input chooses what
// is wished.
#include "protocols/natpmp/client.hpp"

#include "tests/support/fuzz_mapping_client.hpp"

using namespace sallyport;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 1) return 0;
  const unsigned choice = data[0];
  const auto input = std::as_bytes(std::span{data, size}).subspan(1);
  const TimePoint now{std::chrono::hours{1}};
  wire::MappingWish wish{.transport = Transport::udp, .internal_port = *Port::from(8080)};
  wish.exact = (choice & 1) != 0;
  natpmp::MappingClient client{wish, choice, now};
  test::drive_mapping_client(client, input, now, [&](const test::FuzzAnswer& answer) {
    client.set_external_address(Address::v4(answer.address));
    return natpmp::encode(natpmp::MapResponse{.transport = wish.transport,
                                              .result = static_cast<natpmp::ResultCode>(answer.result),
                                              .internal_port = 8080,
                                              .external_port = answer.external_port,
                                              .lifetime_s = answer.lifetime_s});
  });
  natpmp::AddressClient address{now};
  const bool taken = address.handle_datagram(input, now);
  if (taken != (address.result().state != natpmp::AddressClient::Result::State::pending)) std::abort();
  natpmp::announcement(input);
  natpmp::response_epoch(input);
  return 0;
}
