#include "protocols/stun/message.hpp"

#include <gtest/gtest.h>

#include <random>

#include "protocols/wire/byte_writer.hpp"
#include "tests/support/hex.hpp"
#include "tests/support/vectors.hpp"

namespace sallyport::stun {
namespace {

using test::hex;

std::vector<std::byte> golden(const std::string& file) {
  return test::read_hex_file(SALLYPORT_VECTORS "/" + file + ".hex");
}
TransactionId id_of(std::string_view text) {
  TransactionId id{};
  std::ranges::copy(hex(text), id.begin());
  return id;
}
const auto counted = id_of("000102030405060708090a0b");
const auto rfc5769 = id_of("b7e7a701bc34d686fa87dfae");

template <class E = ExternalEndpoint>
E at(const char* address, std::uint32_t port) {
  return {*Address::parse(address), *Port::from(port)};
}
/// A success (or error) response with these attributes, which are whole.
std::vector<std::byte> response(std::string_view attributes, std::string_view type = "0101") {
  auto bytes = hex(std::string{type} + "0000 2112a442 000102030405060708090a0b" + std::string{attributes});
  wire::put_u16(std::span{bytes}.subspan(2, 2), static_cast<std::uint16_t>(bytes.size() - header_size));
  return bytes;
}
constexpr auto somebody = "0020 0008 0001 bd52 ea12d545";  // XOR-MAPPED-ADDRESS 203.0.113.7:40000

TEST(StunMessage, ReadsTheSampleResponsesOfRfc5769) {
  const auto four = decode_response(golden("rfc5769_ipv4"));
  ASSERT_TRUE(four);
  EXPECT_EQ(*four, (BindingResponse{.id = rfc5769, .mapped = at("192.0.2.1", 32853)}));
  const auto six = decode_response(golden("rfc5769_ipv6"));
  ASSERT_TRUE(six);
  EXPECT_EQ(*six,
            (BindingResponse{.id = rfc5769, .mapped = at("2001:db8:1234:5678:11:2233:4455:6677", 32853)}));
}

TEST(StunMessage, HasTheFingerprintOfTheSampleRequestOfRfc5769) {
  const auto request = golden("rfc5769_request");
  EXPECT_EQ(fingerprint(std::span{request}.first(request.size() - 8)), 0xe57a3bcfU);
  EXPECT_EQ(decode_response(request).error(), DecodeErrc::not_a_response);
}

TEST(StunMessage, WritesTheRequestForAProbe) {
  EXPECT_EQ(
      encode(
          {.id = counted, .response_port = Port::from(40000), .change_address = true, .change_port = true}),
      golden("probe"));
}

TEST(StunMessage, WritesAPlainRequestWithNothingButItsFingerprint) {
  const auto request = encode({.id = counted});
  ASSERT_EQ(request.size(), 28u);
  EXPECT_EQ(std::vector(request.begin(), request.begin() + 24),
            hex("0001 0008 2112a442 000102030405060708090a0b 8028 0004"));
}

TEST(StunMessage, ReadsWhatAServerOfRfc5780Adds) {
  const auto read = decode_response(golden("rfc5780"));
  ASSERT_TRUE(read);
  EXPECT_EQ(*read, (BindingResponse{.id = counted,
                                    .mapped = at("203.0.113.7", 40000),
                                    .origin = at<ServerEndpoint>("198.51.100.10", 3478),
                                    .other = at<ServerEndpoint>("198.51.100.20", 3479)}));
}

TEST(StunMessage, ReadsARefusalAndWhatWasNotUnderstood) {
  const auto read = decode_response(golden("error_420"));
  ASSERT_TRUE(read);
  EXPECT_EQ(*read, (BindingResponse{.id = counted, .error_code = 420, .unknown = {0x0027}}));
}

TEST(StunMessage, TakesTheAddressThatNoNatCanRewriteAndThePlainOneWhereItIsAlone) {
  EXPECT_EQ(decode_response(response("0001 0008 0001 9c40 c0000201" + std::string{somebody}))->mapped,
            at("203.0.113.7", 40000));
  EXPECT_EQ(decode_response(response("0001 0008 0001 9c40 c0000201"))->mapped, at("192.0.2.1", 40000));
}

TEST(StunMessage, CountsTheFirstOfTwoAndNothingBehindMessageIntegrity) {
  const std::string other = "0020 0008 0001 bd52 00000000", signature = "0008 0014" + std::string(40, '0');
  EXPECT_EQ(decode_response(response(somebody + other))->mapped, at("203.0.113.7", 40000));
  EXPECT_EQ(decode_response(response(somebody + signature + "7fff 0000"))->not_understood, false);
  EXPECT_EQ(decode_response(response(signature + somebody)).error(), DecodeErrc::malformed);
}

TEST(StunMessage, IgnoresWhatMayBeIgnoredAndTellsWhatMustBeUnderstood) {
  EXPECT_EQ(decode_response(response(std::string{somebody} + "8fff 0003 01020300"))->not_understood, false);
  EXPECT_EQ(decode_response(response(std::string{somebody} + "7fff 0000"))->not_understood, true);
}

TEST(StunMessage, IsTruncatedAtEveryShorterLength) {
  for (const auto* name : {"rfc5769_ipv4", "rfc5769_ipv6", "rfc5780", "error_420"}) {
    const auto whole = golden(name);
    for (std::size_t n = 0; n < whole.size(); ++n)
      EXPECT_EQ(decode_response(std::span{whole}.first(n)).error(), DecodeErrc::truncated)
          << name << " " << n;
  }
}

TEST(StunMessage, FindsEveryChangedOctetByTheFingerprint) {
  const auto whole = golden("rfc5769_ipv4");
  for (std::size_t n = 0; n < whole.size(); ++n) {
    auto changed = whole;
    changed[n] ^= std::byte{0x01};
    const auto read = decode_response(changed);
    // its own type, made another one, is an attribute that may be ignored: then nothing protects the message
    if (n == whole.size() - 8 || n == whole.size() - 7) continue;
    EXPECT_FALSE(read.has_value()) << n;
  }
}

TEST(StunMessage, RefusesAFingerprintThatIsNotTheEnd) {
  auto bytes = response(std::string{somebody} + "8028 0004 00000000 8022 0000");
  const auto crc = fingerprint(std::span{bytes}.first(32));
  wire::put_u32(std::span{bytes}.subspan(36, 4), crc);
  EXPECT_EQ(decode_response(bytes).error(), DecodeErrc::bad_fingerprint);
}

TEST(StunMessage, RefusesWhatTheStandardDoesNotAllow) {
  struct Row {
    const char* says;
    std::vector<std::byte> bytes;
    DecodeErrc why;
  };
  auto longer = response(somebody);
  longer.resize(longer.size() + 4);
  auto odd = response(somebody);
  odd[3] = std::byte{11};
  auto no_cookie = response(somebody);
  no_cookie[4] = std::byte{};
  const std::vector<Row> rows = {
      {"octets after the message", longer, DecodeErrc::malformed},
      {"a length that is no multiple of four", odd, DecodeErrc::malformed},
      {"no cookie", no_cookie, DecodeErrc::not_stun},
      {"a channel of TURN", response(somebody, "4001"), DecodeErrc::not_stun},
      {"an indication", response(somebody, "0011"), DecodeErrc::not_a_response},
      {"another method", response(somebody, "0103"), DecodeErrc::not_a_response},
      {"success without an address", response(""), DecodeErrc::malformed},
      {"success with an error code", response(std::string{somebody} + "0009 0004 00000400"),
       DecodeErrc::malformed},
      {"an error without a code", response("", "0111"), DecodeErrc::malformed},
      {"an error code of class 2", response("0009 0004 00000200", "0111"), DecodeErrc::malformed},
      {"an error code of class 7", response("0009 0004 00000700", "0111"), DecodeErrc::malformed},
      {"an error code of number 100", response("0009 0004 00000464", "0111"), DecodeErrc::malformed},
      {"an error code that is cut", response("0009 0002 00000000", "0111"), DecodeErrc::malformed},
      {"an attribute longer than the message", response("0020 00ff 0001 bd52 ea12d545"),
       DecodeErrc::malformed},
      {"an address of no family", response("0020 0008 0003 bd52 ea12d545"), DecodeErrc::malformed},
      {"an IPv4 address of 16 octets", response("0020 0014 0001 bd52" + std::string(32, '0')),
       DecodeErrc::malformed},
      {"port 0", response("0020 0008 0001 2112 ea12d545"), DecodeErrc::malformed},
      {"an attribute of 3000 octets", response(somebody + ("8022 0bb8" + std::string(6000, '0'))), DecodeErrc::malformed},
  };
  for (const auto& row : rows) {
    const auto read = decode_response(row.bytes);
    ASSERT_FALSE(read.has_value()) << row.says;
    EXPECT_EQ(read.error(), row.why) << row.says;
  }
}

TEST(StunMessage, KeepsOnlySoManyUnknownAttributes) {
  const auto read = decode_response(response("0009 0004 00000414 000a 0064" + std::string(200, '7'), "0111"));
  ASSERT_TRUE(read);
  EXPECT_EQ(read->unknown.size(), 32u);
}

TEST(StunMessage, StandsRandomChanges) {
  std::mt19937 random{8489};
  for (const auto* name : {"rfc5769_ipv4", "rfc5780", "error_420"}) {
    const auto whole = golden(name);
    for (int n = 0; n < 20000; ++n) {
      auto bytes = whole;
      test::mutate(bytes, random);
      const auto read = decode_response(bytes);
      if (read && read->error_code == 0 && !read->not_understood) {
        EXPECT_TRUE(read->mapped);
      }
    }
  }
}

}  // namespace
}  // namespace sallyport::stun
