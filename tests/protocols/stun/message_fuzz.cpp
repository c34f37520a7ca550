// The decoder, and a transaction that hears the same: what it takes is what was decoded.
#include <cstdlib>

#include "protocols/stun/transaction.hpp"

using namespace sallyport;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span datagram{reinterpret_cast<const std::byte*>(data), size};
  const auto response = stun::decode_response(datagram);
  const TimePoint now{};
  stun::Transaction transaction{
      {.id = response ? response->id : stun::TransactionId{}}, now, now + std::chrono::seconds{5}};
  if (transaction.handle_datagram(datagram) != response.has_value()) std::abort();
  if (!response) return 0;
  const auto outcome = transaction.poll_outcome();
  if (!outcome || outcome->response != *response) std::abort();
  if (outcome->kind == stun::Outcome::Kind::answered && !response->mapped) std::abort();
  return 0;
}
