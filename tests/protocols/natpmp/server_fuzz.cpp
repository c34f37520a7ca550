// The NAT-PMP server and the client's decoder. The first octet of the input chooses what the service says.
#include <cstdlib>

#include "protocols/natpmp/server.hpp"
#include "tests/support/fake_mapping_service.hpp"

using namespace sallyport;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 1) return 0;
  const unsigned choice = data[0];
  const std::span datagram{reinterpret_cast<const std::byte*>(data) + 1, size - 1};
  const TimePoint now{std::chrono::hours{1}};
  test::FakeMappingService service;
  service.deferred = (choice & 1) != 0;
  if (choice & 2) service.refuse_grants(static_cast<MappingErrc>(1 + (choice >> 4) % 14), 77);
  if (choice & 4) service.refuse_release = Refusal{static_cast<MappingErrc>(1 + (choice >> 4) % 14), {}};
  if (choice & 8) service.external = std::nullopt;
  natpmp::Server server{service};
  server.handle_datagram(datagram, {Address::v4(0xc0a8010a), 40000, Address::v4(0xc0a80101), 3}, now);
  service.complete_all(now);
  const auto answer = server.poll_transmit();
  if (server.poll_transmit()) std::abort();
  if (answer && answer->bytes.size() + 28 > 2 * (datagram.size() + 28)) std::abort();
  if (answer && !natpmp::decode_response(answer->bytes)) std::abort();
  (void)natpmp::decode_response(datagram);
  return 0;
}
