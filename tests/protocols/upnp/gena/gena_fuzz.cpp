// SUBSCRIBE and UNSUBSCRIBE as a device may write them. The first octet chooses what else happens; the rest
// is the request line and the fields.
#include <algorithm>
#include <cstdlib>

#include "protocols/upnp/gena/publisher.hpp"
#include "tests/protocols/upnp/gena/message_text.hpp"

using namespace sallyport;
using namespace sallyport::upnp;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 1) return 0;
  const unsigned choice = data[0];
  TimePoint now{std::chrono::hours{1}};
  unsigned counter = 0;
  gena::Publisher publisher{[&] {
    std::array<std::byte, 16> bits{};
    bits[15] = static_cast<std::byte>(++counter);
    return bits;
  }};
  const auto service = publisher.add_service({{"ExternalIPAddress", "203.0.113.7"}});

  auto request = gena::test::read_request({reinterpret_cast<const char*>(data) + 1, size - 1});
  request.peer = choice & 1 ? *Address::parse("2001:db8::a") : *Address::parse("192.168.1.10");
  request.local = Address::v4(0xc0a80101);
  request.interface = 3;
  if (choice & 2) {  // there is a subscription that it may name: uuid:00000000-0000-4000-8000-000000000001
    auto first = request;
    first.method = "SUBSCRIBE";
    first.fields = {};
    first.fields.add("NT", "upnp:event");
    first.fields.add("CALLBACK",
                     choice & 1 ? "<http://[2001:db8::a]:5000/x>" : "<http://192.168.1.10:5000/x>");
    if (publisher.handle(first, service, now).status != 200) std::abort();
  }
  const auto response = publisher.handle(request, service, now);
  if (response.status != 200 && response.status / 100 != 4) std::abort();
  if (response.sent) response.sent();
  publisher.handle_timeout(now);
  now += gena::Publisher::initial_pause;
  publisher.handle_timeout(now);
  for (unsigned sends = 0; const auto delivery = publisher.poll_send(now); ++sends) {
    if (sends == gena::max_callbacks || delivery->address != request.peer || delivery->port == 0)
      std::abort();
    const auto end = delivery->bytes.find("\r\n\r\n");
    if (end == std::string::npos) std::abort();
    const auto head = delivery->bytes.substr(0, end);
    if (std::ranges::count(head, '\n') != 8 || std::ranges::count(head, '\r') != 8)
      std::abort();  // POL-EVT-06
    if (std::ranges::any_of(head, [](char c) { return static_cast<unsigned char>(c) > 0x7e || c == 0; }))
      std::abort();
    publisher.handle_result(delivery->handle, {http::DeliveryResult::Kind::connect_failed, 0}, now);
  }
  const auto deadline = publisher.next_deadline();
  if (deadline && *deadline > now + std::chrono::hours{24}) std::abort();
  publisher.handle_timeout(now + std::chrono::hours{24});
  if (publisher.size() != 0) std::abort();
  return 0;
}
