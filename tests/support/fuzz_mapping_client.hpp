#pragma once

#include <cstdlib>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "protocols/wire/byte_reader.hpp"
#include "protocols/wire/mapping_client.hpp"

namespace sallyport::test {

/// What a made-up gateway answers, drawn from the input.
struct FuzzAnswer {
  std::uint8_t result = 0;
  std::uint32_t lifetime_s = 0;
  std::uint16_t external_port = 0;
  std::uint8_t address = 0;
};

/// Drives a mapping client by the octets of the input: time passes, any datagram or an answer to its mapping,
/// perhaps with an octet changed, comes in, it is refreshed or released. Aborts when it sends or says more
/// than a step can cause, has a deadline that is over, or does not come to an end.
inline void drive_mapping_client(wire::DatagramMappingClient& client, std::span<const std::byte> input,
                                 TimePoint now,
                                 const std::function<std::vector<std::byte>(const FuzzAnswer&)>& encode) {
  wire::ByteReader in{input};
  const auto drain = [&] {
    int datagrams = 0, events = 0;
    while (const auto bytes = client.poll_transmit())
      if (++datagrams > 2 || bytes->empty() || bytes->size() > 1100) std::abort();
    while (client.poll_event())
      if (++events > 4) std::abort();
  };
  const auto wake = [&] {
    client.handle_timeout(now);
    if (const auto due = client.next_deadline(); due && *due <= now) std::abort();
  };
  drain();
  for (auto step = in.u8(); in.ok(); step = in.u8()) {
    switch (step % 8) {
      case 0:
        now += std::chrono::nanoseconds{std::int64_t{1} << in.u8() % 48};
        wake();
        break;
      case 1:
        client.handle_datagram(in.take(in.u8()), now);
        break;
      case 2:
      case 3: {
        FuzzAnswer answer;
        answer.result = in.u8();
        answer.lifetime_s = in.u32();
        answer.external_port = in.u16();
        answer.address = in.u8();
        auto bytes = encode(answer);
        if (step % 8 == 3) bytes[in.u8() % bytes.size()] ^= static_cast<std::byte>(in.u8());
        client.handle_datagram(bytes, now);
        break;
      }
      case 4:
        client.refresh(now);
        break;
      case 5:
        client.handle_unreachable(now);
        break;
      case 6:
        if (const auto due = client.next_deadline()) now = std::max(now, *due);
        wake();
        break;
      case 7:
        if (step == 0xff) client.release(now);
        break;
    }
    drain();
  }
  client.release(now);
  for (int i = 0; i < 3 && !client.finished(); ++i) {
    drain();
    now += std::chrono::hours{1};
    wake();
  }
  drain();
  if (!client.finished() || client.next_deadline()) std::abort();
}

}  // namespace sallyport::test
