// An answer or announcement as it comes in a datagram: what is read keeps the limits, and its location leads
// only to whom it came from.
#include <cstdlib>

#include "protocols/upnp/ssdp/search.hpp"

using namespace sallyport;
using namespace sallyport::upnp;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto sighting = ssdp::decode_sighting(std::as_bytes(std::span{data, size}));
  if (!sighting) return 0;
  if (sighting->type.empty() || sighting->type.size() > ssdp::max_sighting_text) std::abort();
  if (sighting->usn.size() > ssdp::max_sighting_text || sighting->uuid.size() > sighting->usn.size())
    std::abort();
  if (sighting->location.empty() != (sighting->kind == ssdp::Sighting::Kind::byebye)) std::abort();
  (void)ssdp::is_of_gateway(*sighting);
  const auto source = Address::v4(0xc0a80101);
  const auto url = ssdp::trusted_location(*sighting, source);
  if (url && (url->host != source || url->port == 0 || !url->target.starts_with('/'))) std::abort();
  return 0;
}
