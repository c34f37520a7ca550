// The PCP server on a service that grants, refuses, or answers later. The first octet of the input chooses;
// the rest is the datagram, sent from the address that its client address field names, so that the later
// checks are reached.
#include <cstdlib>

#include "protocols/pcp/server.hpp"
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
  pcp::Server server{service};
  if (choice & 8) server.set_options({.third_party_clients = {Prefix{Address{}, 0}}});
  wire::Arrival arrival{Address::v4(0xc0a8010a), 40000, Address::v4(0xc0a80101), 3};
  if (datagram.size() >= 24) {
    Address::Bytes client;
    std::copy_n(datagram.begin() + 8, 16, client.begin());
    arrival.source = Address{client};
  }
  server.handle_datagram(datagram, arrival, now);
  service.complete_all(now);
  const auto answer = server.poll_transmit();
  if (server.poll_transmit()) std::abort();
  if (answer && (answer->bytes.size() < 24 || answer->bytes.size() > 1100 || answer->bytes.size() % 4 != 0 ||
                 answer->bytes.size() + 28 > 2 * (datagram.size() + 28)))
    std::abort();
  return 0;
}
