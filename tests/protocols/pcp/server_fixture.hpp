#pragma once

#include <gtest/gtest.h>

#include "protocols/pcp/server.hpp"
#include "tests/support/fake_mapping_service.hpp"
#include "tests/support/hex.hpp"

namespace sallyport::pcp {

using namespace std::chrono_literals;
using Bytes = std::vector<std::byte>;

inline const auto alice = *Address::parse("192.168.1.10");
inline const auto bob = *Address::parse("192.168.1.20");
inline const auto gateway = *Address::parse("192.168.1.1");
inline const auto external_address = *Address::parse("203.0.113.7");
inline const auto any_v4 = Address::v4(0);
inline const wire::Arrival from_alice{alice, 40000, gateway, 3};
inline constexpr std::uint32_t epoch_s = 1000;

/// A server on a service that answers as told; Alice asks.
class ServerTest : public testing::Test {
 protected:
  ServerTest() { service.epoch_start = now - std::chrono::seconds{epoch_s}; }

  /// The answer to a datagram, if there is one now.
  std::optional<Bytes> ask(std::span<const std::byte> datagram, const wire::Arrival& arrival = from_alice) {
    server.handle_datagram(datagram, arrival, now);
    return next_answer();
  }
  std::optional<Bytes> next_answer() {
    auto out = server.poll_transmit();
    if (!out) return std::nullopt;
    return std::move(out->bytes);
  }
  /// Result and lifetime of the answer.
  std::optional<ErrorAnswer> result_of(std::span<const std::byte> datagram,
                                       const wire::Arrival& arrival = from_alice) {
    const auto answer = ask(datagram, arrival);
    if (!answer) return std::nullopt;
    const auto header = decode_response_header(*answer).value();
    return ErrorAnswer{header.result, header.lifetime_s};
  }

  /// MAP TCP 8080 for an hour, 8080 suggested.
  static MapRequest map_request() {
    MapRequest request{.lifetime_s = 3600, .client = alice, .map = {}, .options = {}};
    request.map.nonce.fill(std::byte{0x11});
    request.map.protocol = 6;
    request.map.internal_port = Port::from(8080);
    request.map.external_port = Port::from(8080);
    request.map.external_address = any_v4;
    return request;
  }
  static Bytes map_datagram() { return encode_map_request(map_request()); }
  /// map_datagram() with octets behind it.
  static Bytes map_with(std::string_view options_hex) {
    auto datagram = map_datagram();
    const auto options = test::hex(options_hex);
    datagram.insert(datagram.end(), options.begin(), options.end());
    return datagram;
  }

  TimePoint now{2h};
  test::FakeMappingService service;
  Server server{service};
};

constexpr ErrorAnswer long_error(ResultCode code) { return {code, 1800}; }
constexpr ErrorAnswer short_error(ResultCode code) { return {code, 30}; }

inline void PrintTo(const ErrorAnswer& answer, std::ostream* out) {
  *out << to_string(answer.code) << " for " << answer.lifetime_s << " s";
}

}  // namespace sallyport::pcp
