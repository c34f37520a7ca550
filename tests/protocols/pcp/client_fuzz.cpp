// The PCP client at a gateway that says anything at any time. The first octet of the input chooses what is
// wished.
#include "protocols/pcp/client.hpp"

#include "tests/support/fuzz_mapping_client.hpp"

using namespace sallyport;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 1) return 0;
  const unsigned choice = data[0];
  const auto input = std::as_bytes(std::span{data, size}).subspan(1);
  const TimePoint now{std::chrono::hours{1}};
  wire::MappingWish wish{.transport = Transport::tcp, .internal_port = *Port::from(8080)};
  wish.exact = (choice & 1) != 0;
  const auto client_address = choice & 2 ? Address{Address::Bytes{std::byte{0x20}}} : Address::v4(0xc0a8010a);
  if (choice & 4) wish.remotes = {{{client_address, 128}, {}}};
  if (choice & 8) wish.description = "web";
  pcp::MappingClient client{wish, client_address, {}, choice, now};
  test::drive_mapping_client(client, input, now, [&](const test::FuzzAnswer& answer) {
    pcp::MapResponse response{{1, static_cast<pcp::ResultCode>(answer.result), answer.lifetime_s, 0},
                              {{}, 6, wish.internal_port, Port::from(answer.external_port), client_address},
                              {}};
    if (answer.address & 1) response.map.external_address = Address::v4(answer.address);
    if (answer.address & 2) response.options.filters.resize(1);
    return pcp::encode_map_response(response);
  });
  pcp::announced_epoch(input);
  pcp::response_epoch(input);
  return 0;
}
