#include "tests/protocols/pcp/server_fixture.hpp"
#include "tests/support/vectors.hpp"

namespace sallyport::pcp {
namespace {

using test::hex;

class PcpServer : public ServerTest {};

TEST_F(PcpServer, AnswersEveryGoldenVectorOctetByOctet) {
  server.set_options({.third_party_clients = {{alice, 128}}});
  const auto vectors = test::read_vectors(SALLYPORT_VECTORS);
  ASSERT_GT(vectors.size(), 25U);
  for (const auto& vector : vectors) {
    const auto answer = ask(vector.request);
    EXPECT_EQ(answer.value_or(Bytes{}), vector.response) << vector.name;
    EXPECT_FALSE(next_answer()) << vector.name << ": one answer at most (POL-WHO-05)";
  }
}

// PCP-7-03
TEST_F(PcpServer, AnswersFromTheAddressThatWasAskedToWhereTheRequestCameFrom) {
  server.handle_datagram(map_datagram(), {alice, 49999, gateway, 7}, now);
  const auto out = server.poll_transmit();
  ASSERT_TRUE(out);
  EXPECT_EQ(out->to, alice);
  EXPECT_EQ(out->to_port, 49999);
  EXPECT_EQ(out->from, gateway);
  EXPECT_EQ(out->from_port, 5351);
  EXPECT_EQ(out->interface, 7U);
}

TEST_F(PcpServer, AnswersNobodyOnPort0) { EXPECT_FALSE(ask(map_datagram(), {alice, 0, gateway, 3})); }

// PCP-8.2-01, -02, -03, -04; POL-WHO-04
TEST_F(PcpServer, IsSilentToWhatIsNoRequest) {
  const auto datagram = map_datagram();
  for (std::size_t n = 0; n < 24; ++n) EXPECT_FALSE(ask(std::span{datagram}.first(n))) << n;
  for (const int version_octet : {0, 1, 2, 3, 255}) {
    auto response = datagram;
    response[0] = static_cast<std::byte>(version_octet);
    response[1] |= response_bit;
    EXPECT_FALSE(ask(response)) << version_octet;
    EXPECT_FALSE(ask(std::span{response}.first(2))) << version_octet;
  }
  EXPECT_TRUE(service.grants.empty());
}

// PCP-9-01, -02, -03, -05, PCP-8.2-03, PCP-X-02, PCP-X-03, NPM-3.5-07
TEST_F(PcpServer, NamesItsVersionToEveryOther) {
  for (int version_octet = 0; version_octet < 256; ++version_octet) {
    if (version_octet == 2) continue;
    for (const std::size_t length : {2, 3, 12, 23, 24, 25, 60, 1101, 2000}) {
      Bytes datagram(length, std::byte{0x77});
      datagram[0] = static_cast<std::byte>(version_octet);
      const auto answer = ask(datagram);
      ASSERT_TRUE(answer) << version_octet;
      EXPECT_EQ(answer->size(), std::clamp<std::size_t>((length + 3) / 4 * 4, 24, 1100));
      EXPECT_TRUE(std::ranges::equal(std::span{*answer}.first(12), hex("02f70001 00000708 000003e8")))
          << version_octet;
    }
  }
}

// PCP-8.2-06
TEST_F(PcpServer, RefusesMoreThan1100OctetsWithAtMost1100) {
  auto datagram = map_datagram();
  datagram.resize(1100);
  datagram[60] = std::byte{200};  // an option that may be skipped and fills the rest
  datagram[62] = std::byte{1036 >> 8};
  datagram[63] = std::byte{1036 & 0xff};
  EXPECT_EQ(result_of(datagram), (ErrorAnswer{ResultCode::success, 3600}));
  for (const std::size_t length : {1101, 1104, 1500}) {
    datagram.resize(length);
    const auto answer = ask(datagram);
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->size(), 1100U);
    EXPECT_EQ(decode_response_header(*answer)->result, ResultCode::malformed_request);
  }
  EXPECT_EQ(service.grants.size(), 1U);
}

// PCP-8.2-07, PCP-7.2-14 (octets 12-23)
TEST_F(PcpServer, RefusesALengthThatIsNoMultipleOf4AndPadsTheAnswer) {
  auto datagram = map_datagram();
  for (std::size_t more = 1; more < 4; ++more) {
    datagram.push_back(std::byte{0xee});
    const auto answer = ask(datagram);
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->size(), 64U);
    EXPECT_EQ(decode_response_header(*answer)->result, ResultCode::malformed_request);
    EXPECT_TRUE(std::ranges::equal(std::span{*answer}.subspan(12, 48), std::span{datagram}.subspan(12, 48)));
    for (std::size_t i = 60; i < 64; ++i)
      EXPECT_EQ((*answer)[i], i < 60 + more ? std::byte{0xee} : std::byte{0});
  }
}

// PCP-8.2-08
TEST_F(PcpServer, RefusesAPeerThatEndsInItsBody) {
  auto datagram = map_datagram();
  datagram[1] = std::byte{2};
  datagram.resize(80);
  for (std::size_t n = 24; n < 80; n += 4) {
    const auto answer = ask(std::span{datagram}.first(n));
    ASSERT_TRUE(answer);
    EXPECT_EQ(decode_response_header(*answer)->result, ResultCode::malformed_request) << n;
  }
}

// PCP-8.2-08
TEST_F(PcpServer, RefusesAMapThatEndsInItsBody) {
  const auto datagram = map_datagram();
  for (std::size_t n = 24; n < 60; n += 4) {
    const auto answer = ask(std::span{datagram}.first(n));
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->size(), n);
    EXPECT_EQ(decode_response_header(*answer)->result, ResultCode::malformed_request) << n;
  }
}

// PCP-8.2-10, AUTH-1-01, AUTH-3-07
TEST_F(PcpServer, DoesNotKnowOtherOpcodesThanAnnounceMapAndPeer) {
  for (int opcode = 3; opcode < 128; ++opcode) {
    auto datagram = map_with("ff00ffff");  // not read
    datagram[1] = static_cast<std::byte>(opcode);
    const auto answer = ask(datagram);
    ASSERT_TRUE(answer) << opcode;
    EXPECT_EQ((*answer)[1], static_cast<std::byte>(opcode | 0x80));
    EXPECT_EQ(decode_response_header(*answer).value(),
              (ResponseHeader{static_cast<std::uint8_t>(opcode), ResultCode::unsupp_opcode, 1800, epoch_s}));
    EXPECT_TRUE(std::ranges::equal(std::span{*answer}.subspan(24), std::span{datagram}.subspan(24)));
    EXPECT_TRUE(ask(std::span{datagram}.first(24))) << opcode;
  }
}

// PCP-8.2-09, PCP-7.3-11
TEST_F(PcpServer, RefusesAClientAddressThatIsNotTheSource) {
  auto request = map_request();
  for (const auto* other : {"192.168.1.11", "::", "0.0.0.0", "::c0a8:10a", "fe80::1"}) {
    request.client = *Address::parse(other);
    EXPECT_EQ(result_of(encode_map_request(request)), long_error(ResultCode::address_mismatch)) << other;
    EXPECT_EQ(result_of(encode_announce_request(request.client)), long_error(ResultCode::address_mismatch))
        << other;
  }
  EXPECT_TRUE(service.grants.empty());
}

// PCP-8.2-13, PCP-7.4-02
TEST_F(PcpServer, ChecksInTheOrderOfTheMatrix) {
  struct Row {
    const char* says;
    std::size_t length;
    std::uint8_t version, opcode;
    bool foreign_address;
    const char* options;
    std::optional<ErrorAnswer> answer;
  };
  using enum ResultCode;
  const Row rows[] = {
      {"R bit before version", 60, 9, 0x81, true, "", std::nullopt},
      {"version before size", 8, 9, 1, true, "", long_error(unsupp_version)},
      {"size before opcode", 20, 2, 99, true, "", std::nullopt},
      {"length before opcode", 61, 2, 99, true, "", long_error(malformed_request)},
      {"body before address", 40, 2, 1, true, "", long_error(malformed_request)},
      {"opcode before address", 60, 2, 99, true, "", long_error(unsupp_opcode)},
      {"address before option walk", 60, 2, 1, true, "0100ffff", long_error(address_mismatch)},
      {"walk before content", 60, 2, 1, false, "46000000 0100ffff", long_error(malformed_option)},
      {"content in the order found", 60, 2, 1, false, "46000000 02000001 00000000",
       long_error(unsupp_option)},
      {"the other order", 60, 2, 1, false, "02000001 00000000 46000000", long_error(malformed_option)},
  };
  for (const auto& row : rows) {
    auto datagram = map_datagram();
    datagram.resize(row.length);
    datagram[0] = static_cast<std::byte>(row.version);
    datagram[1] = static_cast<std::byte>(row.opcode);
    if (row.foreign_address && row.length > 23) datagram[23] ^= std::byte{1};
    const auto options = hex(row.options);
    datagram.insert(datagram.end(), options.begin(), options.end());
    EXPECT_EQ(result_of(datagram), row.answer) << row.says;
  }
  auto semantics = map_with("46000000");
  semantics[36] = std::byte{132};
  EXPECT_EQ(result_of(semantics), long_error(unsupp_option)) << "options before the protocol";
}

struct OptionRow {
  const char* says;
  const char* options;
  ErrorAnswer answer;
};

constexpr auto host_filter = "03000014 0080 0000 00000000000000000000ffffc6336409";

// PCP-7.3-04, -05, -06, -07, -08; 13.1 to 13.3; RFC 7220, 7225, 7652, 7753, 7843
TEST_F(PcpServer, JudgesEveryOption) {
  using enum ResultCode;
  const ErrorAnswer good{success, 3600};
  const auto bad = long_error(malformed_option);
  const auto unknown = long_error(unsupp_option);
  const OptionRow rows[] = {
      {"no option", "", good},
      {"length past the end", "80000005 01020304", bad},
      {"length 65535", "8000ffff 00000000", bad},
      {"option 0", "00000000", unknown},
      {"THIRD_PARTY is off", "01000010 00000000000000000000ffffc0a80114", unknown},
      {"THIRD_PARTY is off, wrong length", "01000004 c0a80114", unknown},
      {"PREFER_FAILURE", "02000000", good},
      {"PREFER_FAILURE, reserved octet set", "02ff0000", good},
      {"PREFER_FAILURE with data", "02000004 00000000", bad},
      {"PREFER_FAILURE twice", "02000000 02000000", bad},
      {"FILTER", host_filter, good},
      {"FILTER twice the same",
       "03000014 0080 0000 00000000000000000000ffffc6336409"
       "03000014 0080 0000 00000000000000000000ffffc6336409",
       good},
      {"FILTER one octet short", "03000013 0080 0000 00000000000000000000ffffc6336409", bad},
      {"FILTER empty", "03000000", bad},
      {"FILTER too long", "03000018 0080 0000 00000000000000000000ffffc6336409 00000000", bad},
      {"FILTER prefix 129", "03000014 0081 0000 00000000000000000000ffffc6336409", bad},
      {"FILTER prefix 255", "03000014 00ff 0000 00000000000000000000ffffc6336409", bad},
      {"FILTER prefix 95 of IPv4", "03000014 005f 0000 00000000000000000000ffffc6336409", bad},
      {"FILTER prefix 1 of IPv4", "03000014 0001 0000 00000000000000000000ffffc6336409", bad},
      {"FILTER prefix 96: all IPv4", "03000014 0060 0000 00000000000000000000ffff00000000", good},
      {"FILTER of an IPv6 host", "03000014 0080 0000 20010db8000000000000000000000001", bad},
      {"FILTER of an IPv6 prefix", "03000014 0020 0000 20010db8000000000000000000000000", bad},
      {"FILTER prefix 0 clears", "03000014 0000 0000 00000000000000000000000000000000", good},
      {"FILTER prefix 0, the rest is ignored", "03000014 ff00 ffff 20010db8000000000000000000000001", good},
      {"RFC 7652 options", "05000000", unknown},
      {"THIRD_PARTY_ID", "0d000004 00000001", unknown},
      {"option 127", "7f000000", unknown},
      {"DESCRIPTION", "80000006 63616d657261 0000", good},
      {"DESCRIPTION, empty", "80000000", good},
      {"DESCRIPTION, not UTF-8", "80000001 e9000000", good},
      {"DESCRIPTION twice", "80000001 61000000 80000001 61000000", bad},
      {"DESCRIPTION twice, neither UTF-8", "80000001 e9000000 80000001 e9000000", bad},
      {"PREFIX64", "81000000", good},
      {"PREFIX64 twice is skipped twice", "81000000 81000000", good},
      {"PORT_SET", "82000005 0004 1f90 01 000000", good},
      {"PORT_SET size 0", "82000005 0000 1f90 01 000000", bad},
      {"PORT_SET of another port", "82000005 0004 1f91 01 000000", bad},
      {"PORT_SET past 65535", "82000005 e071 1f90 01 000000", bad},
      {"PORT_SET up to 65535", "82000005 e070 1f90 01 000000", good},
      {"PORT_SET too short", "82000004 0004 1f90", bad},
      {"PORT_SET twice", "82000005 0004 1f90 01 000000 82000005 0004 1f90 01 000000", bad},
      {"a set and nothing else", "82000005 0002 1f90 00 000000 02000000", good},
      {"a set of one and nothing else", "82000005 0001 1f90 00 000000 02000000", good},
      {"a set and nothing else, up to 65535", "82000005 e070 1f90 01 000000 02000000", good},
      {"unknown from 128 on", "ff000003 01020300 83000000", good},
      {"non-zero padding", "80000001 61ffffff", good},
  };
  for (const auto& row : rows) {
    service.grants.clear();
    const auto datagram = map_with(row.options);
    const auto answer = ask(datagram);
    ASSERT_TRUE(answer) << row.says;
    const auto header = decode_response_header(*answer).value();
    EXPECT_EQ((ErrorAnswer{header.result, header.lifetime_s}), row.answer) << row.says;
    EXPECT_EQ(service.grants.size(), row.answer == good ? 1U : 0U) << row.says;  // PCP-7.3-11
    if (header.result != success) {  // PCP-7.3-10, PCP-8.2-11, PCP-11.1-08
      EXPECT_TRUE(std::ranges::equal(std::span{*answer}.subspan(24), std::span{datagram}.subspan(24)))
          << row.says;
    }
  }
}

// PSET-4-01, -04, -05, -07, -09
TEST_F(PcpServer, AsksForSetsAndTellsHowManyPortsThereAre) {
  const auto set = [](std::uint16_t size, bool parity) {
    auto request = map_request();
    request.options.port_set = PortSet{size, 8080, parity};
    return request;
  };
  const auto answer_to = [&](const MapRequest& request) {
    return decode_map_response(ask(encode_map_request(request)).value()).value();
  };
  auto answer = answer_to(set(100, true));
  EXPECT_EQ(service.grants.back().ports, 100);
  EXPECT_TRUE(service.grants.back().parity);
  EXPECT_FALSE(service.grants.back().insist);
  EXPECT_EQ(answer.options.port_set, (PortSet{100, 8080, true}));
  answer = answer_to(set(2, false));
  EXPECT_FALSE(service.grants.back().parity);
  EXPECT_EQ(answer.options.port_set, (PortSet{2, 8080, false}));
  answer = answer_to(set(1, true));
  EXPECT_TRUE(service.grants.back().parity);
  EXPECT_FALSE(answer.options.port_set);
  auto insisting = set(4, false);
  insisting.options.prefer_failure = true;
  answer_to(insisting);
  EXPECT_TRUE(service.grants.back().insist);

  // fewer than asked for; a single one without the option
  std::uint16_t ports = 3;
  service.on_grant = [&](const GrantRequest& request) {
    auto granted = test::FakeMappingService::default_grant(request);
    granted->ports = ports;
    return granted;
  };
  EXPECT_EQ(answer_to(set(100, true)).options.port_set, (PortSet{3, 8080, true}));
  ports = 1;
  EXPECT_FALSE(answer_to(set(100, true)).options.port_set);
  ports = 8;
  EXPECT_FALSE(answer_to(map_request()).options.port_set) << "who did not ask is not told";

  // PREFER_FAILURE and the refusals that have to do with sets
  service.refuse_grants(MappingErrc::insisted_port_taken, 77);
  answer = answer_to(insisting);
  EXPECT_EQ(answer.header.result, ResultCode::cannot_provide_external);
  EXPECT_EQ(answer.header.lifetime_s, 77U);
  EXPECT_EQ(answer_to(set(4, false)).header.result, ResultCode::no_resources);
}

// PSET-4-12
TEST_F(PcpServer, InsistingOnPortsBeyondTheLastIsMalformedAndSuggestingThemIsNot) {
  auto request = map_request();
  request.map.external_port = Port::from(65534);
  request.options.port_set = PortSet{3, 8080, false};
  EXPECT_EQ(result_of(encode_map_request(request))->code, ResultCode::success);
  request.options.prefer_failure = true;
  EXPECT_EQ(result_of(encode_map_request(request)), long_error(ResultCode::malformed_option));
  request.options.port_set->size = 2;
  EXPECT_EQ(result_of(encode_map_request(request))->code, ResultCode::success);
}

// PSET-4-06
TEST_F(PcpServer, DeletesSets) {
  auto request = map_request();
  request.lifetime_s = 0;
  request.options.port_set = PortSet{20, 8080, true};
  const auto answer = decode_map_response(ask(encode_map_request(request)).value()).value();
  ASSERT_EQ(service.releases.size(), 1U);
  EXPECT_EQ(service.releases[0].ports, 20);
  EXPECT_EQ(answer.header.lifetime_s, 0U);
  EXPECT_EQ(answer.options.port_set, (PortSet{20, 8080, true}));
  request.options.port_set.reset();
  ask(encode_map_request(request));
  EXPECT_EQ(service.releases[1].ports, 1);
}

// PCP-7.3-15, PCP-14.1-10
TEST_F(PcpServer, JudgesTheOptionsOfAnnounce) {
  const auto announce_with = [](const char* options) {
    auto datagram = encode_announce_request(alice);
    const auto more = hex(options);
    datagram.insert(datagram.end(), more.begin(), more.end());
    return datagram;
  };
  server.set_options({.third_party_clients = {{alice, 128}}});
  for (const auto* options : {"02000000", host_filter, "01000010 00000000000000000000ffffc0a80114",
                              "80000001 61000000", "82000005 0001 1f90 00 000000", "46000000"})
    EXPECT_EQ(result_of(announce_with(options)), long_error(ResultCode::unsupp_option)) << options;
  EXPECT_EQ(result_of(announce_with("80000005 00000000")), long_error(ResultCode::malformed_option));
  const auto answer = ask(announce_with("81000000 ff000001 00000000"));
  EXPECT_EQ(answer, hex("02800000 00000000 000003e8 000000000000000000000000"));  // PCP-7.3-09
}

// PCP-14.1-02, -03, PCP-14.1-11
TEST_F(PcpServer, AnswersAnnounceWithEpochAndLifetime0WhateverWasAsked) {
  auto datagram = encode_announce_request(alice);
  datagram[7] = std::byte{99};
  EXPECT_EQ(ask(datagram), hex("02800000 00000000 000003e8 000000000000000000000000"));
  now += 5s;
  EXPECT_EQ(ask(datagram), hex("02800000 00000000 000003ed 000000000000000000000000"));
}

// PCP-7-07
TEST_F(PcpServer, IgnoresReservedOctetsAndSendsZeros) {
  auto datagram = map_with("03ee0014 ee80 01bb 00000000000000000000ffffc6336409 80ee0001 61eeeeee");
  datagram[2] = datagram[3] = std::byte{0xee};
  datagram[37] = datagram[38] = datagram[39] = std::byte{0xee};
  const auto answer = ask(datagram);
  ASSERT_TRUE(answer);
  EXPECT_EQ((*answer)[2], std::byte{0});
  EXPECT_TRUE(std::ranges::equal(std::span{*answer}.subspan(12, 12), hex("000000000000000000000000")));
  EXPECT_TRUE(std::ranges::equal(std::span{*answer}.subspan(36, 4), hex("06000000")));
  EXPECT_TRUE(
      std::ranges::equal(std::span{*answer}.subspan(60),
                         hex("03000014 0080 01bb 00000000000000000000ffffc6336409 80000001 61000000")));
}

// PCP-11.1-04, PCP-5-03, PCP-11.3-01
TEST_F(PcpServer, AsksTheServiceForWhatTheRequestSays) {
  auto request = map_request();
  request.map.external_address = external_address;
  request.options.description = "camera";
  ask(encode_map_request(request));
  ASSERT_EQ(service.grants.size(), 1U);
  const auto& grant = service.grants[0];
  EXPECT_EQ(grant.via, Via::pcp);
  EXPECT_EQ(grant.transport, Transport::tcp);
  EXPECT_EQ(grant.requester, alice);
  EXPECT_EQ(grant.internal, (InternalEndpoint{alice, *Port::from(8080)}));
  EXPECT_FALSE(grant.third_party);
  EXPECT_EQ(grant.nonce, request.map.nonce);
  EXPECT_EQ(grant.suggested_port, Port::from(8080));
  EXPECT_EQ(grant.suggested_address, external_address);
  EXPECT_FALSE(grant.insist);
  EXPECT_EQ(grant.lifetime_s, 3600U);
  EXPECT_FALSE(grant.clear_filters);
  EXPECT_TRUE(grant.filters.empty());
  EXPECT_EQ(grant.description, "camera");
  EXPECT_EQ(grant.contact, (Contact{3, alice, 40000, gateway}));
}

// PCP-5-02, -03, -04, -05, PCP-11.1-03, PCP-X-06
TEST_F(PcpServer, TakesEveryAllZerosAddressAndAnotherFamilyAsNoPreference) {
  auto request = map_request();
  request.map.nonce = {};
  for (const auto* any : {"::", "0.0.0.0", "2001:db8::1"}) {
    request.map.external_address = *Address::parse(any);
    EXPECT_EQ(result_of(encode_map_request(request)), (ErrorAnswer{ResultCode::success, 3600})) << any;
    EXPECT_EQ(service.grants.back().suggested_address, std::nullopt) << any;
  }
  request.options.prefer_failure = true;
  service.refuse_grants(MappingErrc::insisted_port_forbidden);
  EXPECT_EQ(result_of(encode_map_request(request)), long_error(ResultCode::cannot_provide_external));
  EXPECT_EQ(service.grants.back().suggested_address, *Address::parse("2001:db8::1"));
}

// PCP-11.1-07, PCP-11.3-11, PCP-11.3-15, PCP-15-03, PCP-8.2-12
TEST_F(PcpServer, TellsWhatTheServiceGranted) {
  service.on_grant = [](const GrantRequest&) -> Outcome<Granted> {
    return Granted{5, {external_address, *Port::from(2048)}, 120, ""};
  };
  const auto datagram = map_datagram();
  const auto answer = ask(datagram);
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->size(), 60U);  // PCP-X-08
  const auto response = decode_map_response(*answer).value();
  EXPECT_EQ(response.header, (ResponseHeader{1, ResultCode::success, 120, epoch_s}));
  EXPECT_EQ(response.map.external_port, Port::from(2048));
  EXPECT_EQ(response.map.external_address, external_address);
  EXPECT_TRUE(std::ranges::equal(std::span{*answer}.subspan(24, 18), std::span{datagram}.subspan(24, 18)));
}

// PCP-11.3-06, -16, -17, -18, PCP-13.2-02, -03, -04, -07, PCP-13.3-08, PCP-7.4-01
TEST_F(PcpServer, TellsWhyTheServiceRefused) {
  struct Row {
    MappingErrc reason;
    std::optional<std::uint32_t> retry_after_s;
    ErrorAnswer answer;
  };
  using enum ResultCode;
  const Row rows[] = {
      {MappingErrc::foreign_nonce, 1234, {not_authorized, 1234}},
      {MappingErrc::not_authorized, {}, {not_authorized, 1800}},
      {MappingErrc::quota_exceeded, {}, {user_ex_quota, 30}},
      {MappingErrc::no_external_address, {}, {network_failure, 30}},
      {MappingErrc::no_ports_left, {}, {no_resources, 30}},
      {MappingErrc::store_unavailable, {}, {no_resources, 30}},
      {MappingErrc::insisted_port_taken, 600, {cannot_provide_external, 600}},
      {MappingErrc::insisted_port_forbidden, {}, {cannot_provide_external, 1800}},
      {MappingErrc::too_many_filters, {}, {excessive_remote_peers, 1800}},
  };
  const auto datagram = map_with("02000000 03000014 0080 0000 00000000000000000000ffffc6336409");
  for (const auto& row : rows) {
    service.refuse_grants(row.reason, row.retry_after_s);
    const auto answer = ask(datagram);
    ASSERT_TRUE(answer);
    const auto header = decode_response_header(*answer).value();
    EXPECT_EQ((ErrorAnswer{header.result, header.lifetime_s}), row.answer);
    EXPECT_EQ(header.epoch_s, epoch_s);  // PCP-7-12
    EXPECT_TRUE(std::ranges::equal(std::span{*answer}.subspan(24), std::span{datagram}.subspan(24)));
    EXPECT_TRUE(std::ranges::equal(std::span{*answer}.subspan(12, 12), hex("000000000000000000000000")));
  }
}

// PCP-11.3-02, -03, -04, -05, PCP-15.1-02, -03, -04, PCP-X-01, POL-TGT-06
TEST_F(PcpServer, MapsOnePortOfTcpOrUdpAndNothingElse) {
  struct Row {
    int protocol, internal_port;
    std::uint32_t lifetime_s;
    ErrorAnswer answer;
  };
  using enum ResultCode;
  const Row rows[] = {
      {6, 80, 3600, {success, 3600}},
      {17, 65535, 3600, {success, 3600}},
      {6, 0, 3600, {unsupp_protocol, 1800}},
      {17, 0, 3600, {unsupp_protocol, 1800}},
      {0, 0, 3600, {unsupp_protocol, 1800}},
      {0, 80, 3600, {malformed_request, 1800}},
      {0, 80, 0, {malformed_request, 1800}},
      {1, 80, 3600, {unsupp_protocol, 1800}},
      {132, 80, 3600, {unsupp_protocol, 1800}},
      {132, 0, 3600, {unsupp_protocol, 1800}},
      {255, 80, 3600, {unsupp_protocol, 1800}},
      {132, 80, 0, {unsupp_protocol, 1800}},
      {6, 0, 0, {success, 0}},
      {17, 0, 0, {success, 0}},
      {0, 0, 0, {success, 0}},
  };
  for (const auto& row : rows) {
    auto request = map_request();
    request.lifetime_s = row.lifetime_s;
    request.map.protocol = static_cast<std::uint8_t>(row.protocol);
    request.map.internal_port = Port::from(static_cast<std::uint32_t>(row.internal_port));
    service.grants.clear();
    EXPECT_EQ(result_of(encode_map_request(request)), row.answer)
        << row.protocol << " " << row.internal_port << " " << row.lifetime_s;
    EXPECT_EQ(service.grants.size(), row.answer.code == success && row.lifetime_s != 0 ? 1U : 0U);
    EXPECT_TRUE(service.releases.empty());
  }
}

// PCP-15.1-01, -05, -08
TEST_F(PcpServer, DeletesWithTheNonceAndCopiesTheSuggestion) {
  auto request = map_request();
  request.lifetime_s = 0;
  request.map.external_address = external_address;
  const auto answer = ask(encode_map_request(request));
  ASSERT_TRUE(answer);
  EXPECT_EQ(decode_map_response(*answer).value(),
            (MapResponse{{1, ResultCode::success, 0, epoch_s}, request.map, {}}));
  ASSERT_EQ(service.releases.size(), 1U);
  const auto& release = service.releases[0];
  EXPECT_EQ(release.via, Via::pcp);
  EXPECT_EQ(release.transport, Transport::tcp);
  EXPECT_EQ(release.requester, alice);
  EXPECT_EQ(release.internal, (InternalEndpoint{alice, *Port::from(8080)}));
  EXPECT_EQ(release.nonce, request.map.nonce);
  EXPECT_TRUE(service.grants.empty());
}

// PCP-15.1-07, -09, -10
TEST_F(PcpServer, TellsWhatBecameOfADeletion) {
  auto request = map_request();
  request.lifetime_s = 0;
  const auto datagram = encode_map_request(request);
  service.refuse_release = Refusal{MappingErrc::not_found, {}};
  EXPECT_EQ(result_of(datagram), (ErrorAnswer{ResultCode::success, 0}));
  service.refuse_release = Refusal{MappingErrc::foreign_nonce, 999};
  EXPECT_EQ(result_of(datagram), (ErrorAnswer{ResultCode::not_authorized, 999}));
  service.refuse_release = Refusal{MappingErrc::not_owned_here, {}};
  EXPECT_EQ(result_of(datagram), long_error(ResultCode::not_authorized));
  service.refuse_release = Refusal{MappingErrc::store_unavailable, {}};
  EXPECT_EQ(result_of(datagram), short_error(ResultCode::no_resources));
}

// PCP-13.2-09, PCP-15.1-05
TEST_F(PcpServer, EchoesPreferFailureAndFilterInADeletion) {
  auto request = map_request();
  request.lifetime_s = 0;
  request.map.external_port = std::nullopt;
  request.options.prefer_failure = true;
  request.options.filters = {{128, std::nullopt, *Address::parse("198.51.100.9")}};
  const auto answer = ask(encode_map_request(request));
  ASSERT_TRUE(answer);
  const auto response = decode_map_response(*answer).value();
  EXPECT_EQ(response.header.result, ResultCode::success);
  EXPECT_EQ(response.options, request.options);
}

// PCP-13.2-01, -02, -06
TEST_F(PcpServer, InsistsOnlyOnSomething) {
  auto request = map_request();
  request.options.prefer_failure = true;
  EXPECT_EQ(result_of(encode_map_request(request)), (ErrorAnswer{ResultCode::success, 3600}));
  EXPECT_TRUE(service.grants.back().insist);
  request.map.external_port = std::nullopt;
  for (const auto* any : {"::", "0.0.0.0"}) {
    request.map.external_address = *Address::parse(any);
    EXPECT_EQ(result_of(encode_map_request(request)), long_error(ResultCode::malformed_option)) << any;
  }
  request.map.external_address = external_address;
  EXPECT_EQ(result_of(encode_map_request(request)), (ErrorAnswer{ResultCode::success, 3600}));
  EXPECT_EQ(service.grants.back().suggested_port, std::nullopt);
  EXPECT_EQ(service.grants.back().suggested_address, external_address);
}

// PCP-13.3-02 to -06, -13, -14
TEST_F(PcpServer, HandsFiltersOverInOrderAndClearsWhatStoodBefore) {
  const Filter host{128, Port::from(443), *Address::parse("198.51.100.9")};
  const Filter net{120, std::nullopt, *Address::parse("198.51.100.77")};
  const Filter clear{0, std::nullopt, Address{}};
  auto request = map_request();
  request.options.filters = {host, net};
  ask(encode_map_request(request));
  EXPECT_FALSE(service.grants.back().clear_filters);
  EXPECT_EQ(service.grants.back().filters,
            (std::vector<RemoteFilter>{{{host.remote_address, 128}, Port::from(443)},
                                       {{net.remote_address, 120}, {}}}));
  request.options.filters = {host, clear, net};
  const auto answer = ask(encode_map_request(request));
  EXPECT_TRUE(service.grants.back().clear_filters);
  EXPECT_EQ(service.grants.back().filters, (std::vector<RemoteFilter>{{{net.remote_address, 120}, {}}}));
  EXPECT_EQ(decode_map_response(*answer)->options.filters, request.options.filters);
}

// PCP-13.3-10, PCP-7.3-12: as many filters as fit
TEST_F(PcpServer, EchoesAsManyFiltersAsFitInto1100Octets) {
  auto request = map_request();
  request.options.filters.assign(43, {128, std::nullopt, *Address::parse("198.51.100.9")});
  const auto datagram = encode_map_request(request);
  ASSERT_EQ(datagram.size(), 1092U);
  const auto answer = ask(datagram);
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->size(), 1092U);
  EXPECT_EQ(service.grants.back().filters.size(), 43U);
}

class PcpThirdParty : public ServerTest {
 protected:
  PcpThirdParty() { server.set_options({.third_party_clients = {*Prefix::parse("192.168.1.10/32")}}); }
};

// PCP-13.1-01, -06, PCP-15.1-11
TEST_F(PcpThirdParty, MapsAndDeletesForTheNamedHost) {
  auto request = map_request();
  request.options.third_party = bob;
  const auto answer = ask(encode_map_request(request));
  ASSERT_TRUE(answer);
  EXPECT_EQ(decode_map_response(*answer)->options.third_party, bob);
  EXPECT_TRUE(service.grants.back().third_party);
  EXPECT_EQ(service.grants.back().requester, alice);
  EXPECT_EQ(service.grants.back().internal.address, bob);
  EXPECT_EQ(service.grants.back().contact.client, alice);
  request.lifetime_s = 0;
  EXPECT_EQ(result_of(encode_map_request(request)), (ErrorAnswer{ResultCode::success, 0}));
  EXPECT_TRUE(service.releases.back().third_party);
  EXPECT_EQ(service.releases.back().internal.address, bob);
}

// PCP-13.1-02, -03
TEST_F(PcpThirdParty, IsForListedClientsOnly) {
  auto request = map_request();
  request.client = bob;
  request.options.third_party = alice;
  const auto datagram = encode_map_request(request);
  EXPECT_EQ(result_of(datagram, {bob, 40000, gateway, 3}), long_error(ResultCode::unsupp_option));
  server.set_options({.third_party_clients = {*Prefix::parse("192.168.1.0/24")}});
  EXPECT_EQ(result_of(datagram, {bob, 40000, gateway, 3}), (ErrorAnswer{ResultCode::success, 3600}));
  server.set_options({});
  EXPECT_EQ(result_of(datagram, {bob, 40000, gateway, 3}), long_error(ResultCode::unsupp_option));
}

// PCP-13.1-04, -07, PCP-7.3-05
TEST_F(PcpThirdParty, RefusesItsOwnAddressWrongLengthsAndRepetition) {
  EXPECT_EQ(result_of(map_with("01000010 00000000000000000000ffffc0a8010a")),
            long_error(ResultCode::malformed_request));
  EXPECT_EQ(result_of(map_with("0100000f 00000000000000000000ffffc0a80114")),
            long_error(ResultCode::malformed_option));
  EXPECT_EQ(result_of(map_with("01000000")), long_error(ResultCode::malformed_option));
  EXPECT_EQ(result_of(map_with(
                "01000010 00000000000000000000ffffc0a80114 01000010 00000000000000000000ffffc0a80114")),
            long_error(ResultCode::malformed_option));
  EXPECT_TRUE(service.grants.empty());
}

// PCP-13.1-08: what the service says of the target
TEST_F(PcpThirdParty, TellsThatTheTargetIsNotServed) {
  service.refuse_grants(MappingErrc::not_authorized);
  EXPECT_EQ(result_of(map_with("01000010 00000000000000000000ffffc6336409")),
            long_error(ResultCode::not_authorized));
}

// DESC-3-02 to -06
TEST_F(PcpServer, ReturnsTheDescriptionAsStored) {
  auto request = map_request();
  request.options.description = std::string(600, 'x');
  service.on_grant = [](const GrantRequest& grant) -> Outcome<Granted> {
    return Granted{1, {external_address, *Port::from(8080)}, 3600, grant.description->substr(0, 255)};
  };
  const auto answer = ask(encode_map_request(request));
  EXPECT_EQ(decode_map_response(*answer)->options.description, std::string(255, 'x'));
  EXPECT_EQ(answer->size(), 60U + 4 + 256);

  service.on_grant =
      [](const GrantRequest&) -> Outcome<Granted> {  // a renewal without the option keeps the text
    return Granted{1, {external_address, *Port::from(8080)}, 3600, "kept"};
  };
  EXPECT_EQ(ask(map_datagram())->size(), 60U);
  EXPECT_EQ(service.grants.back().description, std::nullopt);
  EXPECT_EQ(ask(map_with("80000001 e9000000"))->size(), 60U);
  EXPECT_EQ(service.grants.back().description, std::nullopt);
  EXPECT_EQ(ask(map_with("80000000"))->size(), 64U);
  EXPECT_EQ(service.grants.back().description, "");
}

// PCP-7.3-12: a static mapping, say, has its own text
TEST_F(PcpServer, CutsAStoredDescriptionThatIsLongerThanTheOneSent) {
  service.on_grant = [](const GrantRequest&) -> Outcome<Granted> {
    return Granted{1, {external_address, *Port::from(8080)}, 3600, "caf\xc3\xa9 camera"};
  };
  const auto text_for = [&](std::string sent) {
    auto request = map_request();
    request.options.description = std::move(sent);
    return decode_map_response(*ask(encode_map_request(request)))->options.description;
  };
  EXPECT_EQ(text_for("xxxx"), "caf");
  EXPECT_EQ(text_for("xxxxx"), "caf\xc3\xa9");
  EXPECT_EQ(text_for(""), "");
}

TEST_F(PcpServer, RefusesADescriptionOfMoreThan1016Octets) {
  auto request = map_request();
  request.options.description = std::string(1016, 'x');
  EXPECT_EQ(result_of(encode_map_request(request)), (ErrorAnswer{ResultCode::success, 3600}));
  request.options.description = std::string(1017, 'x');
  EXPECT_EQ(result_of(encode_map_request(request)), long_error(ResultCode::malformed_option));
}

// PCP-11.3-19, PCP-8.2-14: the answer waits for the service, and requests reach it in their order
TEST_F(PcpServer, AnswersWhenTheServiceDoesInWhateverOrder) {
  service.deferred = true;
  auto request = map_request();
  for (const auto port : {1, 2, 3}) {
    request.map.internal_port = Port::from(static_cast<std::uint32_t>(port));
    EXPECT_FALSE(ask(encode_map_request(request)));
    EXPECT_EQ(service.grants.back().internal.port, request.map.internal_port);
  }
  const auto port_of = [](const Bytes& answer) {
    return decode_map_response(answer)->map.internal_port->number();
  };
  service.complete(1, now + 10s);
  const auto second = next_answer();
  ASSERT_TRUE(second);
  EXPECT_EQ(port_of(*second), 2);
  EXPECT_EQ(decode_response_header(*second)->epoch_s, epoch_s + 10);  // of the time of the answer
  service.complete(1, now + 11s);
  EXPECT_EQ(port_of(*next_answer()), 3);
  service.complete(0, now + 12s);
  EXPECT_EQ(port_of(*next_answer()), 1);
  EXPECT_FALSE(next_answer());
}

TEST_F(PcpServer, MayEndBeforeTheServiceAnswers) {
  service.deferred = true;
  auto request = map_request();
  {
    Server short_lived{service};
    short_lived.handle_datagram(encode_map_request(request), from_alice, now);
    request.lifetime_s = 0;
    short_lived.handle_datagram(encode_map_request(request), from_alice, now);
    EXPECT_EQ(service.listeners.size(), 2U);
  }
  EXPECT_EQ(service.listeners.size(), 1U);
  EXPECT_EQ(service.waiting(), 2U);
  service.complete_all(now);
}

// PCP-8.2-05, PCP-18-07
TEST_F(PcpServer, LetsABoundedNumberOfRequestsWait) {
  service.deferred = true;
  auto request = map_request();
  for (std::size_t i = 0; i < Server::max_pending_per_client; ++i)
    ASSERT_FALSE(ask(encode_map_request(request)));
  EXPECT_EQ(result_of(encode_map_request(request)), short_error(ResultCode::no_resources));
  EXPECT_EQ(service.waiting(), Server::max_pending_per_client);

  std::uint32_t device = 0xc0a80200;  // others are still served, until all places are taken
  while (service.waiting() < Server::max_pending) {
    request.client = Address::v4(++device);
    ASSERT_FALSE(ask(encode_map_request(request), {request.client, 40000, gateway, 3}));
  }
  request.client = Address::v4(++device);
  EXPECT_EQ(result_of(encode_map_request(request), {request.client, 40000, gateway, 3}),
            short_error(ResultCode::no_resources));
  service.complete_all(now);
  for (std::size_t i = 0; i < Server::max_pending; ++i) ASSERT_TRUE(next_answer()) << i;
  EXPECT_FALSE(next_answer());
  EXPECT_FALSE(ask(encode_map_request(request), {request.client, 40000, gateway, 3}));
  EXPECT_EQ(service.waiting(), 1U);
}

TEST_F(PcpServer, GivesThePlacesOfAnsweredDeletionsBack) {
  auto request = map_request();
  request.lifetime_s = 0;
  for (std::size_t i = 0; i <= Server::max_pending_per_client; ++i)
    EXPECT_EQ(result_of(encode_map_request(request)), (ErrorAnswer{ResultCode::success, 0})) << i;
}

// PCP-11.3-08, PCP-X-10
TEST_F(PcpServer, AnswersARetransmissionLikeTheFirst) {
  const auto first = ask(map_datagram());
  EXPECT_EQ(ask(map_datagram()), first);
  EXPECT_EQ(service.grants.size(), 2U);  // the service sees that it holds that one already
}

}  // namespace
}  // namespace sallyport::pcp
