#include "protocols/natpmp/server.hpp"

#include <gtest/gtest.h>

#include "tests/support/fake_mapping_service.hpp"
#include "tests/support/hex.hpp"
#include "tests/support/vectors.hpp"

namespace sallyport::natpmp {
namespace {

using namespace std::chrono_literals;
using test::hex;
using Bytes = std::vector<std::byte>;

const auto alice = *Address::parse("192.168.1.10");
const auto gateway = *Address::parse("192.168.1.1");
const auto other_gateway = *Address::parse("10.0.0.1");
const wire::Arrival from_alice{alice, 40000, gateway, 3};

class NatpmpServer : public testing::Test {
 protected:
  NatpmpServer() { service.epoch_start = now - 1000s; }

  std::optional<Bytes> ask(std::span<const std::byte> datagram, const wire::Arrival& arrival = from_alice) {
    server.handle_datagram(datagram, arrival, now);
    return next_answer();
  }
  std::optional<Bytes> ask(const MapRequest& request) { return ask(encode(request)); }
  std::optional<Bytes> next_answer() {
    auto out = server.poll_transmit();
    if (!out) return std::nullopt;
    return std::move(out->bytes);
  }
  static Bytes map_answer(Transport transport, ResultCode result, std::uint16_t internal,
                          std::uint16_t external, std::uint32_t lifetime_s) {
    return encode(MapResponse{transport, result, 1000, internal, external, lifetime_s});
  }

  TimePoint now{2h};
  test::FakeMappingService service;
  Server server{service};
};

constexpr MapRequest map_udp{Transport::udp, 3074, 3074, 7200};
constexpr MapRequest map_tcp{Transport::tcp, 8080, 0, 3600};

// NPM-3-01, NPM-3-03, NPM-3.2-01, NPM-3.3-01, NPM-3.5-01, -03, -08, -09
TEST_F(NatpmpServer, AnswersEveryGoldenVectorOctetByOctet) {
  const auto vectors = test::read_vectors(SALLYPORT_VECTORS);
  ASSERT_GT(vectors.size(), 12U);
  for (const auto& vector : vectors) {
    EXPECT_EQ(ask(vector.request).value_or(Bytes{}), vector.response) << vector.name;
    EXPECT_FALSE(next_answer()) << vector.name << ": one answer at most (POL-WHO-05)";
  }
}

// NPM-3.2-01, N4787-02
TEST_F(NatpmpServer, TellsADeviceItsOwnExternalAddress) {
  const auto own = *Address::parse("203.0.113.8");
  service.own_external[alice] = own;
  EXPECT_EQ(ask(hex("0000")), encode(AddressResponse{ResultCode::success, 1000, own}));
  service.own_external.clear();
  EXPECT_EQ(ask(hex("0000")), encode(AddressResponse{ResultCode::success, 1000, *service.external}));
}

// NPM-3.1-08
TEST_F(NatpmpServer, AnswersFromTheAddressThatWasAskedToWhereTheRequestCameFrom) {
  server.handle_datagram(hex("0000"), {alice, 49999, gateway, 7}, now);
  const auto out = server.poll_transmit();
  ASSERT_TRUE(out);
  EXPECT_EQ(out->to, alice);
  EXPECT_EQ(out->to_port, 49999);
  EXPECT_EQ(out->from, gateway);
  EXPECT_EQ(out->from_port, 5351);
  EXPECT_EQ(out->interface, 7U);
}

// NPM-3.1-09, NPM-3.1-10, POL-WHO-05
TEST_F(NatpmpServer, DropsWhatIsShorterThanItsLayoutOrLongerThan1100Octets) {
  EXPECT_FALSE(ask(Bytes{}));
  EXPECT_FALSE(ask(hex("00")));
  const auto map = encode(map_udp);
  for (std::size_t n = 2; n < 12; ++n) EXPECT_FALSE(ask(std::span{map}.first(n))) << n;
  auto longer = map;
  longer.resize(1100, std::byte{0xee});
  EXPECT_EQ(ask(longer), map_answer(Transport::udp, ResultCode::success, 3074, 3074, 7200));
  longer.resize(1101);
  EXPECT_FALSE(ask(longer));
  EXPECT_EQ(service.grants.size(), 1U);
}

// NPM-3-02, NPM-3.5-02, POL-WHO-04
TEST_F(NatpmpServer, DropsWhatIsAnAnswerWhateverItsVersion) {
  for (int opcode = 128; opcode < 256; ++opcode)
    for (const int version_octet : {0, 1, 2, 255}) {
      Bytes datagram(12);
      datagram[0] = static_cast<std::byte>(version_octet);
      datagram[1] = static_cast<std::byte>(opcode);
      EXPECT_FALSE(ask(datagram)) << version_octet << " " << opcode;
    }
}

// NPM-3-04, NPM-3.5-01, NPM-3.5-07
TEST_F(NatpmpServer, NamesVersion0ToEveryOther) {
  for (int version_octet = 1; version_octet < 256; ++version_octet)
    for (const std::size_t length : {2, 24, 60}) {
      Bytes datagram(length, std::byte{0x11});
      datagram[0] = static_cast<std::byte>(version_octet);
      EXPECT_EQ(ask(datagram), hex("00 00 0001 000003e8")) << version_octet;
    }
}

// NPM-3.5-03, -08, -09
TEST_F(NatpmpServer, ReturnsARequestOfAnUnknownOpcode) {
  for (int opcode = 3; opcode < 128; ++opcode)
    for (std::size_t length = 2; length < 20; ++length) {
      Bytes datagram(length, std::byte{0x77});
      datagram[0] = std::byte{0};
      datagram[1] = static_cast<std::byte>(opcode);
      auto due = datagram;
      if (length < 4) due = hex("00000000 000003e8");
      due[1] = static_cast<std::byte>(opcode | 0x80);
      due[2] = std::byte{0};
      due[3] = std::byte{5};
      EXPECT_EQ(ask(datagram), due) << opcode << " " << length;
    }
}

// NPM-3.2-02, NPM-3.2-06, NPM-3.5-04
TEST_F(NatpmpServer, HasNoAddressToTellWithoutOne) {
  service.external = std::nullopt;
  EXPECT_EQ(ask(hex("0000")), hex("00 80 0003 000003e8 00000000"));
}

// NPM-3.2-04, NPM-3.3-15, NPM-3.6-01, NPM-3.6-05
TEST_F(NatpmpServer, TellsTheEpochOfTheTimeOfTheAnswer) {
  service.deferred = true;
  EXPECT_FALSE(ask(map_udp));
  service.complete_all(now + 7s);
  EXPECT_EQ(next_answer(), hex("00 81 0000 000003ef 0c02 0c02 00001c20"));
  service.reset_epoch(now);
  EXPECT_EQ(ask(hex("0000")), hex("00 80 0000 00000000 cb007107"));
}

// NPM-3.3-02, -04, -07, -11, -16, NPM-5-02
TEST_F(NatpmpServer, AsksTheServiceForWhatTheRequestSays) {
  ask(map_tcp);
  ASSERT_EQ(service.grants.size(), 1U);
  const auto& grant = service.grants[0];
  EXPECT_EQ(grant.via, Via::natpmp);
  EXPECT_EQ(grant.transport, Transport::tcp);
  EXPECT_EQ(grant.requester, alice);
  EXPECT_EQ(grant.internal, (InternalEndpoint{alice, *Port::from(8080)}));
  EXPECT_FALSE(grant.third_party);
  EXPECT_FALSE(grant.nonce);
  EXPECT_FALSE(grant.suggested_port);
  EXPECT_FALSE(grant.suggested_address);
  EXPECT_FALSE(grant.insist);
  EXPECT_EQ(grant.lifetime_s, 3600U);
  EXPECT_TRUE(grant.filters.empty());
  EXPECT_FALSE(grant.description);
  EXPECT_EQ(grant.contact, (Contact{3, alice, 40000, gateway}));
  ask(map_udp);
  EXPECT_EQ(service.grants[1].transport, Transport::udp);
  EXPECT_EQ(service.grants[1].suggested_port, Port::from(3074));
}

// NPM-3.3-03, -06, -13, -16
TEST_F(NatpmpServer, TellsWhatTheServiceGranted) {
  service.on_grant = [](const GrantRequest&) -> Outcome<Granted> {
    return Granted{5, {Address::v4(0xcb007107), *Port::from(2048)}, 60, ""};
  };
  EXPECT_EQ(ask(map_udp), map_answer(Transport::udp, ResultCode::success, 3074, 2048, 60));
  EXPECT_EQ(ask(map_udp), map_answer(Transport::udp, ResultCode::success, 3074, 2048, 60));
}

// NPM-3.5-04, NPM-3.5-05, NPM-5-03, NPM-3.3-06; the table of refusals of policy.md, section 3
TEST_F(NatpmpServer, TellsWhyTheServiceRefused) {
  const std::pair<MappingErrc, ResultCode> rows[] = {
      {MappingErrc::not_authorized, ResultCode::not_authorized},
      {MappingErrc::device_blocked, ResultCode::not_authorized},
      {MappingErrc::no_ports_left, ResultCode::out_of_resources},
      {MappingErrc::no_memory, ResultCode::out_of_resources},
      {MappingErrc::quota_exceeded, ResultCode::out_of_resources},
      {MappingErrc::no_external_address, ResultCode::network_failure},
      {MappingErrc::store_unavailable, ResultCode::out_of_resources},
      {MappingErrc::not_owned_here, ResultCode::not_authorized},
      {MappingErrc::foreign_nonce, ResultCode::not_authorized},
  };
  for (const auto& [reason, result] : rows) {
    service.refuse_grants(reason, 600);
    EXPECT_EQ(ask(map_tcp), map_answer(Transport::tcp, result, 8080, 0, 0)) << to_string(result);
  }
}

// NPM-3.3-23
TEST_F(NatpmpServer, MapsNoPort0) {
  EXPECT_EQ(ask({Transport::udp, 0, 5000, 3600}),
            map_answer(Transport::udp, ResultCode::not_authorized, 0, 0, 0));
  EXPECT_EQ(ask({Transport::udp, 0, 0, 1}), map_answer(Transport::udp, ResultCode::not_authorized, 0, 0, 0));
  EXPECT_TRUE(service.grants.empty());
}

// NPM-3.4-03, -05, -06, NPM-X-03
TEST_F(NatpmpServer, DeletesOneMappingWhateverPortIsSuggested) {
  for (const auto suggested : {0, 8080, 1}) {
    EXPECT_EQ(ask({Transport::tcp, 8080, static_cast<std::uint16_t>(suggested), 0}),
              map_answer(Transport::tcp, ResultCode::success, 8080, 0, 0));
    const auto& release = service.releases.back();
    EXPECT_EQ(release.via, Via::natpmp);
    EXPECT_EQ(release.transport, Transport::tcp);
    EXPECT_EQ(release.requester, alice);
    EXPECT_EQ(release.internal, (InternalEndpoint{alice, *Port::from(8080)}));
    EXPECT_FALSE(release.nonce);
  }
  service.refuse_release = Refusal{MappingErrc::not_found, {}};
  EXPECT_EQ(ask({Transport::tcp, 8080, 0, 0}), map_answer(Transport::tcp, ResultCode::success, 8080, 0, 0));
  EXPECT_TRUE(service.grants.empty());
  EXPECT_TRUE(service.release_alls.empty());
}

// NPM-3.4-07, -08, -15
TEST_F(NatpmpServer, TellsThatADeletionFailed) {
  service.refuse_release = Refusal{MappingErrc::not_owned_here, {}};
  EXPECT_EQ(ask({Transport::udp, 3074, 0, 0}),
            map_answer(Transport::udp, ResultCode::not_authorized, 3074, 0, 0));
  service.refuse_release = Refusal{MappingErrc::store_unavailable, {}};
  EXPECT_EQ(ask({Transport::udp, 3074, 0, 0}),
            map_answer(Transport::udp, ResultCode::out_of_resources, 3074, 0, 0));
}

// NPM-3.4-10, -11, -12, -13, NPM-X-02
TEST_F(NatpmpServer, DeletesAllOfOneTransportWhenEverythingIsZero) {
  for (const auto transport : {Transport::udp, Transport::tcp}) {
    EXPECT_EQ(ask({transport, 0, 0, 0}), map_answer(transport, ResultCode::success, 0, 0, 0));
    EXPECT_EQ(service.release_alls.back().transport, transport);
    EXPECT_EQ(service.release_alls.back().requester, alice);
    EXPECT_EQ(service.release_alls.back().via, Via::natpmp);
  }
  EXPECT_EQ(service.release_alls.size(), 2U);
  service.refuse_release = Refusal{MappingErrc::not_owned_here, {}};
  EXPECT_EQ(ask({Transport::udp, 0, 0, 0}), map_answer(Transport::udp, ResultCode::not_authorized, 0, 0, 0));
}

// NPM-3.4-10: only the request that is all zeros deletes everything
TEST_F(NatpmpServer, DeletesNothingForInternalPort0WithASuggestion) {
  EXPECT_EQ(ask({Transport::udp, 0, 5000, 0}),
            map_answer(Transport::udp, ResultCode::not_authorized, 0, 0, 0));
  EXPECT_TRUE(service.release_alls.empty());
  EXPECT_TRUE(service.releases.empty());
}

TEST_F(NatpmpServer, AnswersWhenTheServiceDoesInWhateverOrder) {
  service.deferred = true;
  EXPECT_FALSE(ask(map_udp));
  EXPECT_FALSE(ask(map_tcp));
  EXPECT_FALSE(ask({Transport::udp, 1, 0, 0}));
  service.complete(2, now);
  EXPECT_EQ(next_answer(), map_answer(Transport::udp, ResultCode::success, 1, 0, 0));
  service.complete(1, now);
  EXPECT_EQ(next_answer(), map_answer(Transport::tcp, ResultCode::success, 8080, 40000, 3600));
  service.complete(0, now);
  EXPECT_EQ(next_answer(), map_answer(Transport::udp, ResultCode::success, 3074, 3074, 7200));
}

TEST_F(NatpmpServer, MayEndBeforeTheServiceAnswers) {
  service.deferred = true;
  {
    Server short_lived{service};
    short_lived.handle_datagram(encode(map_udp), from_alice, now);
    short_lived.handle_datagram(encode(MapRequest{Transport::udp, 0, 0, 0}), from_alice, now);
  }
  EXPECT_EQ(service.waiting(), 2U);
  EXPECT_EQ(service.listeners.size(), 1U);
  service.complete_all(now);
}

TEST_F(NatpmpServer, LetsABoundedNumberOfRequestsWait) {
  service.deferred = true;
  for (std::size_t i = 0; i < Server::max_pending_per_client; ++i) ASSERT_FALSE(ask(map_udp));
  EXPECT_EQ(ask(map_udp), map_answer(Transport::udp, ResultCode::out_of_resources, 3074, 0, 0));
  EXPECT_TRUE(ask(hex("0000")));
  EXPECT_EQ(service.waiting(), Server::max_pending_per_client);
  service.complete_all(now);
  for (std::size_t i = 0; i < Server::max_pending_per_client; ++i) ASSERT_TRUE(next_answer());
  EXPECT_FALSE(ask(map_udp));
}

class NatpmpAnnouncement : public NatpmpServer {
 protected:
  struct Sent {
    std::chrono::milliseconds at;
    wire::Outgoing out;
  };
  std::vector<Sent> run_for(std::chrono::milliseconds time) {
    const auto start = now;
    const auto end = now + time;
    std::vector<Sent> sent;
    for (;;) {
      const auto due = server.next_deadline();
      if (!due || *due > end) break;
      now = std::max(now, *due);
      server.handle_timeout(now);
      while (auto out = server.poll_transmit())
        sent.push_back({std::chrono::duration_cast<std::chrono::milliseconds>(now - start), std::move(*out)});
    }
    now = end;
    return sent;
  }
  void serve(std::initializer_list<wire::ServedAddress> served) {
    server.set_served_addresses(std::span{served.begin(), served.size()}, now);
  }
};

// NPM-3.2.1-01, -02, -03, -07, NPM-3.7-02
TEST_F(NatpmpAnnouncement, GoesOutTenTimesFromEachServedAddressAfterTheStart) {
  EXPECT_FALSE(server.next_deadline());
  serve({{3, gateway}, {4, other_gateway}, {4, *Address::parse("fe80::1")}});
  const auto sent = run_for(10min);
  ASSERT_EQ(sent.size(), 20U);
  const std::chrono::milliseconds times[] = {0ms,    250ms,   750ms,   1750ms,  3750ms,
                                             7750ms, 15750ms, 31750ms, 63750ms, 127750ms};
  for (std::size_t i = 0; i < sent.size(); ++i) {
    const auto& [at, out] = sent[i];
    EXPECT_EQ(at, times[i / 2]);
    EXPECT_EQ(out.to, *Address::parse("224.0.0.1"));
    EXPECT_EQ(out.to_port, 5350);
    EXPECT_EQ(out.from_port, 5351);
    EXPECT_EQ(out.from, i % 2 ? other_gateway : gateway);
    EXPECT_EQ(out.interface, i % 2 ? 4U : 3U);
    const auto epoch = 1000 + std::chrono::duration_cast<std::chrono::seconds>(at).count();
    EXPECT_EQ(out.bytes, encode(AddressResponse{ResultCode::success, static_cast<std::uint32_t>(epoch),
                                                *Address::parse("203.0.113.7")}));
  }
}

// NPM-3.2.1-01, NPM-3.2.1-08
TEST_F(NatpmpAnnouncement, StartsOverWithTheNewAddressAndEpoch) {
  serve({{3, gateway}});
  EXPECT_EQ(run_for(1s).size(), 3U);
  service.reset_epoch(now);
  service.set_external(*Address::parse("203.0.113.8"), now);
  const auto sent = run_for(10min);
  ASSERT_EQ(sent.size(), 10U);
  EXPECT_EQ(sent[0].at, 0ms);
  EXPECT_EQ(sent[0].out.bytes, hex("00 80 0000 00000000 cb007108"));
}

// NPM-3.2.1-01: on getting an external address
TEST_F(NatpmpAnnouncement, WaitsForAnExternalAddress) {
  service.external = std::nullopt;
  serve({{3, gateway}});
  EXPECT_TRUE(run_for(10min).empty());
  EXPECT_FALSE(server.next_deadline());
  service.set_external(*Address::parse("203.0.113.8"), now);
  EXPECT_EQ(run_for(1s).size(), 3U);
  service.set_external(std::nullopt, now);
  EXPECT_TRUE(run_for(10min).empty());
}

TEST_F(NatpmpAnnouncement, NeedsAServedAddress) {
  service.reset_epoch(now);
  service.set_external(*Address::parse("203.0.113.8"), now);
  EXPECT_FALSE(server.next_deadline());
  serve({{3, gateway}});
  EXPECT_TRUE(server.next_deadline());
  serve({});
  EXPECT_FALSE(server.next_deadline());
}

/// What RFC 6886 and section 2 to 6 of the matrix let a server say; an empty text, or what is wrong.
std::string judge(std::span<const std::byte> in, const std::optional<Bytes>& answer) {
  const auto u8 = [](std::span<const std::byte> bytes, std::size_t at) {
    return std::to_integer<int>(bytes[at]);
  };
  const bool ours = in.size() >= 2 && u8(in, 0) == 0;
  const bool silence = in.size() < 2 || in.size() > 1100 || u8(in, 1) >= 128 ||
                       (ours && (u8(in, 1) == 1 || u8(in, 1) == 2) && in.size() < 12);
  if (!answer) return silence ? "" : "silence where an answer is due";
  if (silence) return "an answer where silence is due";
  if (answer->size() + 28 > 2 * (in.size() + 28)) return "more than twice the request";
  const int opcode = u8(in, 1);
  const int result = u8(*answer, 2) * 256 + u8(*answer, 3);
  if (!ours) return *answer == hex("00 00 0001 000003e8") ? "" : "not the version error";
  if (u8(*answer, 0) != 0 || u8(*answer, 1) != opcode + 128) return "a wrong header";
  if (opcode > 2)
    return result == 5 && answer->size() == (in.size() < 4 ? 8 : in.size()) ? "" : "not the opcode error";
  if (opcode == 0) return answer->size() == 12 && result == 0 ? "" : "not the address";
  if (answer->size() != 16) return "a wrong length";
  if (!std::ranges::equal(std::span{*answer}.subspan(8, 2), in.subspan(4, 2))) return "another internal port";
  const bool nothing =
      std::all_of(answer->begin() + 10, answer->end(), [](auto octet) { return octet == std::byte{0}; });
  const bool deletion =
      std::all_of(in.begin() + 8, in.begin() + 12, [](auto octet) { return octet == std::byte{0}; });
  if (result > 4 || result == 1) return "a result that no mapping has";
  if ((result != 0 || deletion) && !nothing) return "a port or lifetime though nothing was granted";
  return "";
}

TEST_F(NatpmpServer, AnswersEveryTruncationOfEveryVectorRightly) {
  for (const auto& vector : test::read_vectors(SALLYPORT_VECTORS))
    for (std::size_t n = 0; n <= vector.request.size(); ++n) {
      const auto cut = std::span{vector.request}.first(n);
      EXPECT_EQ(judge(cut, ask(cut)), "") << vector.name << " cut to " << n;
    }
}

TEST_F(NatpmpServer, AnswersAHundredThousandMutationsOfEveryVectorRightly) {
  constexpr std::uint32_t seed = 6886;
  std::mt19937 random{seed};
  service.recording = false;
  service.on_grant = [&](const GrantRequest& request) -> Outcome<Granted> {
    if (random() % 2) return test::FakeMappingService::default_grant(request);
    return Refusal{static_cast<MappingErrc>(1 + random() % 14), static_cast<std::uint32_t>(random())};
  };
  std::map<int, int> results;
  Bytes datagram;
  for (const auto& vector : test::read_vectors(SALLYPORT_VECTORS))
    for (int i = 0; i < 100'000; ++i) {
      datagram = vector.request;
      test::mutate(datagram, random);
      const auto answer = ask(datagram);
      const auto wrong = judge(datagram, answer);
      ASSERT_EQ(wrong, "") << vector.name << ", mutation " << i << ", seed " << seed;
      ASSERT_FALSE(next_answer());
      ++results[answer ? std::to_integer<int>((*answer)[3]) : -1];
    }
  for (const int result : {-1, 0, 1, 2, 3, 4, 5}) EXPECT_GT(results[result], 100) << "result " << result;
}

}  // namespace
}  // namespace sallyport::natpmp
