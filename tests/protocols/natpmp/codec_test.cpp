#include "protocols/natpmp/codec.hpp"

#include <gtest/gtest.h>

#include "tests/support/hex.hpp"
#include "tests/support/vectors.hpp"

namespace sallyport::natpmp {
namespace {

using test::hex;

std::vector<std::byte> golden(const std::string& file) {
  return test::read_hex_file(SALLYPORT_VECTORS "/" + file);
}

// NPM-3-01
TEST(NatpmpCodec, WritesAndReadsTheGoldenRequests) {
  EXPECT_EQ(encode(AddressRequest{}), golden("address.request.hex"));
  EXPECT_EQ(encode(MapRequest{Transport::udp, 3074, 3074, 7200}), golden("map_udp.request.hex"));
  EXPECT_EQ(decode_request(golden("address.request.hex")).value(), Request{AddressRequest{}});
  EXPECT_EQ(decode_request(golden("map_tcp.request.hex")).value(),
            (Request{MapRequest{Transport::tcp, 8080, 0, 3600}}));
}

TEST(NatpmpCodec, ReadsTheGoldenResponses) {
  EXPECT_EQ(decode_response(golden("address.response.hex")).value(),
            (Response{AddressResponse{ResultCode::success, 1000, *Address::parse("203.0.113.7")}}));
  EXPECT_EQ(decode_response(golden("map_tcp.response.hex")).value(),
            (Response{MapResponse{Transport::tcp, ResultCode::success, 1000, 8080, 40000, 3600}}));
  EXPECT_EQ(decode_response(golden("version_2.response.hex")).value(),
            Response{ErrorResponse{ResultCode::unsupported_version}});
  EXPECT_EQ(decode_response(golden("opcode_3.response.hex")).value(),
            Response{ErrorResponse{ResultCode::unsupported_opcode}});
}

TEST(NatpmpCodec, FindsEveryShorterMessageTruncated) {
  for (const auto* name : {"map_udp.request.hex", "map_tcp.request.hex", "address.request.hex"}) {
    const auto request = golden(name);
    for (std::size_t n = 0; n < request.size(); ++n)
      EXPECT_EQ(decode_request(std::span{request}.first(n)).error(), DecodeErrc::truncated) << name << n;
  }
  for (const auto* name : {"map_tcp.response.hex", "address.response.hex"}) {
    const auto response = golden(name);
    for (std::size_t n = 0; n < response.size(); ++n)
      EXPECT_EQ(decode_response(std::span{response}.first(n)).error(), DecodeErrc::truncated) << name << n;
  }
}

// NPM-3-02
TEST(NatpmpCodec, TellsRequestsResponsesVersionsAndOpcodesApart) {
  EXPECT_EQ(decode_request(hex("0080")).error(), DecodeErrc::not_a_request);
  EXPECT_EQ(decode_request(hex("0980")).error(), DecodeErrc::not_a_request);
  EXPECT_EQ(decode_request(hex("0100")).error(), DecodeErrc::other_version);
  EXPECT_EQ(decode_request(hex("0003")).error(), DecodeErrc::other_opcode);
  EXPECT_EQ(decode_response(hex("00000000")).error(), DecodeErrc::not_a_response);
  EXPECT_EQ(decode_response(hex("02800000")).error(), DecodeErrc::other_version);
  EXPECT_EQ(decode_response(hex("00830000")).error(), DecodeErrc::other_opcode);
}

// NPM-3.2-02
TEST(NatpmpCodec, WritesNoAddressIntoAFailure) {
  EXPECT_EQ(encode(AddressResponse{ResultCode::network_failure, 1, *Address::parse("203.0.113.7")}),
            hex("00 80 0003 00000001 00000000"));
}

}  // namespace
}  // namespace sallyport::natpmp
