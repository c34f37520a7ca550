// A description as a gateway, or who pretends to be one, may send it: every service is asked at the host it
// came from.
#include <cstdlib>

#include "protocols/upnp/igd/control_point.hpp"

using namespace sallyport;
using namespace sallyport::upnp;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const http::Url location{Address::v4(0xc0a80101), 5000, "/a/rootDesc.xml"};
  const auto read = igd::read_description({reinterpret_cast<const char*>(data), size}, location, 2);
  if (!read) return 0;
  if (read->connections.size() > igd::max_connections || read->friendly_name.size() > igd::max_text)
    std::abort();
  const auto judge = [&](const igd::Connection& service) {
    if (service.host != location.host || service.port == 0 || !service.target.starts_with('/') ||
        service.target.size() > http::max_url || service.version == 0)
      std::abort();
  };
  for (const auto& connection : read->connections) judge(connection);
  if (read->firewall6) judge(*read->firewall6);
  if (read->forwarding) judge(*read->forwarding);
  return 0;
}
