#include "protocols/pcp/codec.hpp"

#include <gtest/gtest.h>

#include "tests/support/hex.hpp"
#include "tests/support/vectors.hpp"

namespace sallyport::pcp {
namespace {

using test::hex;

std::vector<std::byte> vector_request(const std::string& name) {
  return test::read_hex_file(std::string{SALLYPORT_VECTORS "/"} + name + ".request.hex");
}
std::vector<std::byte> vector_response(const std::string& name) {
  return test::read_hex_file(std::string{SALLYPORT_VECTORS "/"} + name + ".response.hex");
}
Address address(const char* text) { return *Address::parse(text); }

MapBody golden_map() {
  MapBody map;
  for (std::size_t i = 0; i < 12; ++i) map.nonce[i] = static_cast<std::byte>(i);
  map.protocol = 6;
  map.internal_port = Port::from(8080);
  map.external_port = Port::from(8080);
  map.external_address = Address::v4(0);
  return map;
}

// PCP-5-01, PCP-5-02, PCP-11.1-01
TEST(PcpCodec, WritesTheGoldenMapRequest) {
  const MapRequest request{3600, address("192.168.1.10"), golden_map(), {}};
  EXPECT_EQ(encode_map_request(request), vector_request("map_tcp_8080"));
}

TEST(PcpCodec, ReadsTheGoldenMapRequest) {
  const auto datagram = vector_request("map_tcp_8080");
  const auto header = decode_request_header(datagram);
  ASSERT_TRUE(header);
  EXPECT_EQ(*header, (RequestHeader{1, 3600, address("192.168.1.10")}));
  EXPECT_EQ(decode_map_body(std::span{datagram}.subspan(header_size)).value(), golden_map());
}

TEST(PcpCodec, ReadsTheGoldenMapResponseWithItsOptions) {
  const auto response = decode_map_response(vector_response("map_every_option"));
  ASSERT_TRUE(response);
  EXPECT_EQ(response->header, (ResponseHeader{1, ResultCode::success, 3600, 1000}));
  EXPECT_EQ(response->map.external_address, address("203.0.113.7"));
  EXPECT_EQ(response->options.description, "camera");
  EXPECT_TRUE(response->options.prefer_failure);
  EXPECT_EQ(response->options.third_party, address("192.168.1.20"));
  EXPECT_EQ(response->options.filters,
            (std::vector<Filter>{{128, Port::from(443), address("198.51.100.9")}}));
}

TEST(PcpCodec, WritesWhatItReads) {
  MapResponse response{{1, ResultCode::success, 600, 7}, golden_map(), {}};
  response.options = {
      .third_party = address("192.168.1.20"),
      .prefer_failure = true,
      .filters = {{0, std::nullopt, Address{}}, {120, Port::from(53), address("198.51.100.0")}},
      .description = "a caf\xc3\xa9",
      .port_set = PortSet{4, 8080, true}};
  EXPECT_EQ(decode_map_response(encode_map_response(response)).value(), response);
}

// PCP-12.1-01
TEST(PcpCodec, KnowsTheBytesOfPeer) {
  const auto datagram = vector_request("peer");
  const auto peer = decode_peer_body(std::span{datagram}.subspan(header_size));
  ASSERT_TRUE(peer);
  EXPECT_EQ(peer->map.internal_port, Port::from(40001));
  EXPECT_EQ(peer->remote_port, Port::from(443));
  EXPECT_EQ(peer->remote_address, address("198.51.100.9"));
  std::vector<std::byte> out(datagram.begin(), datagram.begin() + header_size);
  append_peer_body(out, *peer);
  EXPECT_EQ(out, datagram);
  for (std::size_t n = header_size; n < datagram.size(); ++n)
    EXPECT_EQ(decode_peer_body(std::span{datagram}.first(n).subspan(header_size)).error(),
              DecodeErrc::truncated)
        << n;
}

TEST(PcpCodec, FindsEveryShorterMapTruncatedOrMisaligned) {
  const auto datagram = vector_response("map_tcp_8080");
  for (std::size_t n = 0; n < datagram.size(); ++n) {
    const auto error = decode_map_response(std::span{datagram}.first(n)).error();
    EXPECT_EQ(error, n < header_size || n % 4 == 0 ? DecodeErrc::truncated : DecodeErrc::misaligned) << n;
  }
}

// PCP-8.3-02
TEST(PcpCodec, TellsRequestsResponsesAndVersionsApart) {
  auto request = vector_request("announce");
  auto response = vector_response("announce");
  EXPECT_EQ(decode_request_header(response).error(), DecodeErrc::not_a_request);
  EXPECT_EQ(decode_response_header(request).error(), DecodeErrc::not_a_response);
  EXPECT_EQ(decode_map_response(response).error(), DecodeErrc::other_opcode);
  request[0] = response[0] = std::byte{3};
  EXPECT_EQ(decode_request_header(request).error(), DecodeErrc::other_version);
  EXPECT_EQ(decode_response_header(response).error(), DecodeErrc::other_version);
  request[0] = std::byte{2};
  request.resize(1104);
  EXPECT_EQ(decode_request_header(request).error(), DecodeErrc::too_long);
}

// PCP-7.3-01, PCP-7.3-02, PCP-7.3-17
TEST(PcpOptionWalk, StepsOverDataAndPaddingOfEveryLength) {
  for (std::size_t length = 0; length <= 9; ++length) {
    std::vector<std::byte> area;
    append_option(area, static_cast<OptionCode>(200), std::vector<std::byte>(length, std::byte{0xee}));
    EXPECT_EQ(area.size(), 4 + (length + 3) / 4 * 4);
    EXPECT_EQ(area[3], static_cast<std::byte>(length));
    for (std::size_t i = 4 + length; i < area.size(); ++i)
      area[i] = std::byte{0xff};  // padding is not looked at
    append_option(area, OptionCode::prefer_failure, {});
    OptionReader in{area};
    const auto first = in.next();
    ASSERT_TRUE(first) << length;
    EXPECT_EQ(first->code, 200);
    EXPECT_EQ(first->data.size(), length);
    const auto second = in.next();
    ASSERT_TRUE(second) << length;
    EXPECT_EQ(second->code, 2);
    EXPECT_FALSE(in.next());
    EXPECT_TRUE(in.ok());
  }
}

// PCP-7.3-04
TEST(PcpOptionWalk, EndsWhereAnOptionRunsPastTheArea) {
  for (const auto* area : {"80 00 0001", "80 00 0005 01020304", "02 00 0000 80 00 ffff 00000000"}) {
    const auto bytes = hex(area);
    OptionReader in{bytes};
    while (in.next()) continue;
    EXPECT_FALSE(in.ok()) << area;
    EXPECT_FALSE(in.next()) << area;
  }
}

// DESC-3-01, DESC-3-06
TEST(PcpDescription, IsTextOnlyWhenItIsUtf8) {
  for (const auto* good :
       {"", "63616d657261", "c3a9", "e282ac", "f09f9a80", "00", "f48fbfbf", "ed9fbf", "ee8080"})
    EXPECT_TRUE(description_text(hex(good))) << good;
  for (const auto* bad : {"e9", "c3", "c328", "c080", "c1bf", "e08080", "eda080", "edbfbf", "f0808080",
                          "f4908080", "f5808080", "ff", "80", "e282", "f09f9a", "61e9"})
    EXPECT_FALSE(description_text(hex(bad))) << bad;
}

// PSET-4-01
TEST(PcpPortSet, HasSizeFirstPortAndParity) {
  EXPECT_EQ(decode_port_set(hex("0004 1770 01")).value(), (PortSet{4, 6000, true}));
  EXPECT_EQ(decode_port_set(hex("ffff ffff fe")).value(), (PortSet{65535, 65535, false}));
  EXPECT_EQ(decode_port_set(hex("0004 1770")).error(), DecodeErrc::bad_option);
  EXPECT_EQ(decode_port_set(hex("0004 1770 01 00")).error(), DecodeErrc::bad_option);
}

// PCP-7.2-13, PCP-7.2-14: octets 12-23
TEST(PcpErrorResponse, CutsAt1100AndPadsTo4) {
  for (const std::size_t length : {2, 3, 23, 24, 25, 60, 1099, 1100, 1101, 1103, 4000}) {
    std::vector<std::byte> request(length, std::byte{0x55});
    const auto parsed = encode_error(request, ResultCode::no_resources, 30, 7, true);
    const auto unparsed = encode_error(request, ResultCode::malformed_request, 1800, 7, false);
    const auto size = std::max<std::size_t>(24, std::min<std::size_t>(1100, (length + 3) / 4 * 4));
    ASSERT_EQ(parsed.size(), size);
    ASSERT_EQ(unparsed.size(), size);
    EXPECT_TRUE(std::ranges::equal(std::span{parsed}.first(24),
                                   hex("02d50008 0000001e 00000007 000000000000000000000000")));
    for (std::size_t i = 12; i < size; ++i) {
      EXPECT_EQ(unparsed[i], i < length ? std::byte{0x55} : std::byte{0}) << length << " " << i;
      if (i >= 24) {
        EXPECT_EQ(parsed[i], unparsed[i]);
      }
    }
  }
}

TEST(PcpErrorResponse, IsReadByAClientThoughItsOptionsAreMalformed) {
  const auto response = decode_map_response(vector_response("map_filter_prefix_129"));
  ASSERT_TRUE(response);
  EXPECT_EQ(response->header.result, ResultCode::malformed_option);
  EXPECT_EQ(response->map.external_port, Port::from(5000));
}

}  // namespace
}  // namespace sallyport::pcp
