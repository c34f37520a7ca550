#include "tests/protocols/pcp/server_fixture.hpp"
#include "tests/support/vectors.hpp"

namespace sallyport::pcp {
namespace {

/// What PCP-8.2-13 lets a server say to a datagram, judged anew here and not with the codec: an empty text,
/// or what is wrong with the answer.
std::string judge(std::span<const std::byte> in, const std::optional<wire::Outgoing>& out) {
  const auto u8 = [](std::span<const std::byte> bytes, std::size_t at) {
    return std::to_integer<int>(bytes[at]);
  };
  const bool silence = in.size() < 2 || u8(in, 1) >= 128 || (u8(in, 0) == 2 && in.size() < 24);
  if (!out) return silence ? "" : "silence where an answer is due";
  if (silence) return "an answer where silence is due";
  const std::span<const std::byte> answer{out->bytes};
  if (out->to != alice || out->to_port != 40000 || out->from != gateway) return "to or from the wrong place";
  if (answer.size() < 24 || answer.size() > 1100 || answer.size() % 4 != 0)
    return "a length that no message has";
  if (answer.size() + 28 > 2 * (in.size() + 28)) return "more than twice the request";
  if (u8(answer, 0) != 2 || u8(answer, 1) != (u8(in, 1) | 0x80) || u8(answer, 2) != 0)
    return "a wrong header";
  const int code = u8(answer, 3);
  const int opcode = u8(in, 1);
  const std::size_t body = opcode == 1 ? 36 : opcode == 2 ? 56 : 0;

  int due = -1;  // the error that must be told; -1: the options and the rest decide
  if (u8(in, 0) != 2)
    due = 1;
  else if (in.size() > 1100 || in.size() % 4 != 0 || in.size() < 24 + body)
    due = 3;
  else if (opcode > 2)
    due = 4;
  else if (std::any_of(in.begin() + 8, in.begin() + 18, [](auto octet) { return octet != std::byte{0}; }) ||
           !std::ranges::equal(in.subspan(18, 6), std::span{alice.bytes()}.subspan(10)))
    due = 12;
  else
    for (std::size_t at = 24 + body; at < in.size();) {
      at += 4 +
            (static_cast<std::size_t>(u8(in, at + 2)) * 256 + static_cast<std::size_t>(u8(in, at + 3)) + 3) /
                4 * 4;
      if (at > in.size()) due = 6;
    }
  if (due >= 0 && code != due) return "result " + std::to_string(code) + " instead of " + std::to_string(due);
  const std::set<int> may = opcode == 0 ? std::set{0, 5} : std::set{0, 2, 3, 5, 6, 7, 8, 9, 10, 11, 13};
  if (due < 0 && !may.contains(code))
    return "a result that this request cannot have: " + std::to_string(code);

  if (code != 0) {  // the request comes back
    for (std::size_t i = 24; i < answer.size(); ++i)
      if (answer[i] != (i < in.size() ? in[i] : std::byte{0}))
        return "an error that does not return the request";
    if (answer.size() != std::max<std::size_t>(24, std::min<std::size_t>(1100, (in.size() + 3) / 4 * 4)))
      return "an error of another length than the request";
    return "";
  }
  if (opcode == 0) return answer.size() == 24 ? "" : "an ANNOUNCE with a body";
  if (!std::ranges::equal(answer.subspan(24, 13), in.subspan(24, 13)) ||
      !std::ranges::equal(answer.subspan(40, 2), in.subspan(40, 2)))
    return "a success for another mapping";
  if (opcode == 2 && (!std::ranges::equal(answer.subspan(60, 2), in.subspan(60, 2)) ||
                      !std::ranges::equal(answer.subspan(64, 16), in.subspan(64, 16))))
    return "a success for another peer";
  if (answer.size() > in.size()) return "options that were not asked for";
  return "";
}

/// Everything that a mapping service may say, drawn from a seed.
Outcome<Granted> random_outcome(const GrantRequest& request, std::mt19937& random) {
  if (random() % 2) return test::FakeMappingService::default_grant(request);
  return Refusal{static_cast<MappingErrc>(1 + random() % 14),
                 random() % 2 ? std::optional{static_cast<std::uint32_t>(random())} : std::nullopt};
}

class PcpRobustness : public ServerTest {
 protected:
  PcpRobustness() {
    service.recording = false;
    server.set_options({.third_party_clients = {{alice, 128}}});
  }
  std::string pass(std::span<const std::byte> datagram) {
    server.handle_datagram(datagram, from_alice, now);
    const auto out = server.poll_transmit();
    if (server.poll_transmit()) return "two answers";
    return judge(datagram, out);
  }
};

TEST_F(PcpRobustness, EveryTruncationOfEveryVectorIsAnsweredRightly) {
  for (const auto& vector : test::read_vectors(SALLYPORT_VECTORS))
    for (std::size_t n = 0; n <= vector.request.size(); ++n)
      EXPECT_EQ(pass(std::span{vector.request}.first(n)), "") << vector.name << " cut to " << n;
}

// PCP-18-07
TEST_F(PcpRobustness, AHundredThousandMutationsOfEveryVectorAreAnsweredRightly) {
  constexpr std::uint32_t seed = 6887;
  std::mt19937 random{seed};
  service.on_grant = [&](const GrantRequest& request) { return random_outcome(request, random); };
  std::map<int, int> results;
  std::vector<std::byte> datagram;
  for (const auto& vector : test::read_vectors(SALLYPORT_VECTORS)) {
    for (int i = 0; i < 100'000; ++i) {
      datagram = vector.request;
      test::mutate(datagram, random);
      server.handle_datagram(datagram, from_alice, now);
      const auto out = server.poll_transmit();
      const auto wrong = judge(datagram, out);
      ASSERT_EQ(wrong, "") << vector.name << ", mutation " << i << ", seed " << seed;
      ASSERT_FALSE(server.poll_transmit());
      ++results[out ? std::to_integer<int>(out->bytes[3]) : -1];
    }
  }
  for (const int result : {-1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13})
    EXPECT_GT(results[result], 100) << "result " << result << " was hardly ever reached";
}

TEST_F(PcpRobustness, RandomOctetsAreAnsweredRightly) {
  std::mt19937 random{1};
  for (int i = 0; i < 200'000; ++i) {
    std::vector<std::byte> datagram(random() % 1200);
    for (auto& octet : datagram) octet = static_cast<std::byte>(random());
    if (random() % 2 && datagram.size() > 24) {
      const auto good = map_datagram();
      std::copy(good.begin(), good.begin() + 24, datagram.begin());
    }
    ASSERT_EQ(pass(datagram), "") << i;
  }
}

}  // namespace
}  // namespace sallyport::pcp
