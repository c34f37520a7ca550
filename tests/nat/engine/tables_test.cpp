#include "nat/engine/flow_table.hpp"
#include "nat/engine/mapping_table.hpp"
#include "nat/engine/port_allocator.hpp"
#include "nat/engine/rules.h"
#include "nat/engine/siphash.hpp"
#include "nat/packet/ipv4.hpp"
#include "tests/support/packet_builder.hpp"

namespace sallyport::nat {
namespace {

// What CPython 3.11 gives for bytes(range(8)), bytes(range(16)), b"\xff" * 8 and * 16 with PYTHONHASHSEED=0.
TEST(SipHash, MatchesTheReferenceVectors) {  // N6056-03, POL-NET-13
  const SipHash hash{{0, 0}};
  EXPECT_EQ(hash(0x0706050403020100), 0xead411e67ebe2eea);
  EXPECT_EQ(hash(0x0706050403020100, 0x0f0e0d0c0b0a0908), 0x8972188433a5c5b7);
  EXPECT_EQ(hash(~0ULL), 0x2f205be2fec8e38d);
  EXPECT_EQ(hash(~0ULL, ~0ULL), 0x35029a3b6274a39b);
  EXPECT_NE((SipHash{{1, 0}}(1)), (SipHash{{0, 1}}(1)));
}

TEST(FlowTable, AgreesWithAPlainMapThroughGrowthAndErasure) {
  FlowTable table{SipHash{{1, 2}}};
  std::map<std::tuple<std::uint32_t, std::uint16_t, std::uint32_t, std::uint16_t>, std::uint32_t> plain;
  std::mt19937 random{5};
  for (int round = 0; round < 200000; ++round) {
    const FlowKey key{
        17, static_cast<std::uint16_t>(1 + random() % 20), static_cast<std::uint32_t>(1 + random() % 20),
        static_cast<std::uint32_t>(1 + random() % 50), static_cast<std::uint16_t>(1 + random() % 20)};
    const auto name = std::tuple{key.host, key.host_port, key.peer, key.peer_port};
    const auto hash = table.hash_of(key);
    const auto known = plain.find(name);
    const auto found = table.find(hash, key);
    ASSERT_EQ(found, known == plain.end() ? Flow::none : known->second);
    if (known != plain.end() && random() % 100 < (round < 120000 ? 30 : 80)) {
      table.erase(found);
      plain.erase(known);
    } else if (known == plain.end() && random() % 100 < (round < 120000 ? 95 : 10)) {
      plain[name] = table.insert(hash, key);
    }
    ASSERT_EQ(table.count(), plain.size());
    // A group has an entry just as long as it has a flow.
    const auto group = table.find_group(key);
    if (round % 500 == 0) {
      const bool any = std::any_of(plain.begin(), plain.end(), [&](const auto& entry) {
        return std::get<0>(entry.first) == key.host && std::get<1>(entry.first) == key.host_port &&
               std::get<2>(entry.first) == key.peer;
      });
      ASSERT_EQ(group != Flow::none, any);
    }
    if (group != Flow::none) {
      ASSERT_EQ(table[group].host, key.host);
      ASSERT_EQ(table[group].peer, key.peer);
    }
  }
}

TEST(PortAllocator, FindsEachFreePortOfARange) {
  PortAllocator ports;
  std::mt19937 random{6};
  ports.set_all();
  const auto draw = [&] { return static_cast<std::uint32_t>(random()); };
  const auto all = [](std::uint16_t) { return true; };
  std::set<std::uint16_t> taken;
  while (const auto port = ports.choose({1024, 60999}, draw, all)) {
    ASSERT_TRUE(taken.insert(*port).second);
    ports.set(*port, false);
  }
  EXPECT_EQ(taken.size(), 60999U - 1024 + 1);
  EXPECT_EQ(*taken.begin(), 1024);
  EXPECT_EQ(*taken.rbegin(), 60999);
  ports.set(33333, true);
  EXPECT_EQ(ports.choose({1024, 60999}, draw, all), 33333);
  EXPECT_EQ(ports.choose({1024, 33332}, draw, all), std::nullopt);
  EXPECT_EQ(ports.choose({33334, 60999}, draw, all), std::nullopt);
}

TEST(PortAllocator, NextIsTheNext) {
  PortAllocator ports;
  std::set<unsigned> free;
  std::mt19937 random{7};
  for (int i = 0; i < 300; ++i) free.insert(random() % 65536);
  for (const unsigned port : free) ports.set(static_cast<std::uint16_t>(port), true);
  for (unsigned from = 0; from < 65536; from += 7) {
    const auto expected = free.lower_bound(from);
    const auto found = ports.next(from);
    if (expected == free.end())
      ASSERT_FALSE(found) << from;
    else
      ASSERT_EQ(found, *expected) << from;
  }
}

TEST(PortAllocator, DrawsWithoutPattern) {  // N6056-02
  PortAllocator ports;
  ports.set_all();
  const SipHash hash{{8, 9}};
  std::uint64_t draws = 0;
  const auto draw = [&] { return static_cast<std::uint32_t>(hash(++draws) >> 32); };
  std::array<int, 16> sixteenths{};
  for (int i = 0; i < 16000; ++i)
    ++sixteenths[(*ports.choose({1024, 60999}, draw, [](std::uint16_t) { return true; }) - 1024) * 16 /
                 59976];
  for (const int count : sixteenths) EXPECT_NEAR(count, 1000, 150);
}

/// What RunFinder has to find, by counting from behind.
std::uint16_t longest_run(const std::vector<bool>& free, unsigned most, std::optional<bool> odd) {
  unsigned best = 0, size = 0;
  for (unsigned first = 65535; first > 0; --first) {
    size = free[first] ? size + 1 : 0;
    if (!odd || (first % 2 != 0) == *odd) best = std::max(best, std::min(size, most));
  }
  return static_cast<std::uint16_t>(best);
}

TEST(RunFinder, FindsWhatIsThereOrTheLongestPart) {
  std::mt19937 random{11};
  // how many of 1,000 ports are taken: from nearly none to nearly all
  for (const unsigned taken : {0U, 1U, 5U, 30U, 100U, 300U, 700U, 990U, 1000U}) {
    PortAllocator ports;
    ports.set_all();
    const PortRange range{1024, 60999};
    std::vector<bool> free(65536);
    for (unsigned port = range.first; port <= range.last; ++port) free[port] = random() % 1000 >= taken;
    for (unsigned port = 1; port < 65536; ++port)
      if (port >= range.first && port <= range.last) ports.set(static_cast<std::uint16_t>(port), free[port]);
    const RunFinder finder{ports.free_in(range)};
    for (const std::uint16_t size : {1, 2, 3, 4, 7, 8, 31, 63, 64, 65, 100, 127, 128, 200, 256, 1000, 65535})
      for (const auto odd : {std::optional<bool>{}, std::optional{false}, std::optional{true}}) {
        SCOPED_TRACE(testing::Message()
                     << taken << " of 1000 taken, size " << size << ", odd " << (odd ? int{*odd} : -1));
        const auto run = finder.find(size, odd, static_cast<std::uint32_t>(random()));
        const auto expected = longest_run(free, size, odd);
        ASSERT_EQ(run ? run->size : 0, expected);
        if (!run) continue;
        if (odd) {
          ASSERT_EQ(run->first % 2 != 0, *odd);
        }
        for (unsigned i = 0; i < run->size; ++i) ASSERT_TRUE(free[run->first + i]);
      }
  }
}

TEST(RunFinder, TakesAnyPlaceThatFitsAndNoneTwice) {
  PortAllocator ports;
  ports.set_all();
  std::mt19937 random{12};
  RunFinder finder{ports.free_in({1024, 60999})};
  std::array<int, 4> quarters{};
  for (int i = 0; i < 400; ++i) {
    const auto run = finder.find(16, true, static_cast<std::uint32_t>(random()));
    ASSERT_TRUE(run && run->size == 16);
    ++quarters[static_cast<std::size_t>(run->first - 1024) * 4 / 59976];
    for (unsigned port = run->first; port < run->first + 16U; ++port) {
      ASSERT_TRUE(ports.is_free(static_cast<std::uint16_t>(port)));
      ports.set(static_cast<std::uint16_t>(port), false);
      finder.exclude(static_cast<std::uint16_t>(port));
    }
  }
  for (const int count : quarters) EXPECT_NEAR(count, 100, 40);
}

// --- rules.h: usable at compile time, as BPF's compiler will use it ---

using namespace rules;
static_assert(sp_tcp_step(SP_TCP_CLOSED, true, SP_SYN, true) == SP_TCP_INTERNAL_INIT);
static_assert(sp_deadline(100, 0xffffffff) == 0xffffffff);
static_assert(!sp_is_over(sp_deadline(100, 120), 220));

TEST(Rules, TcpStatesOfRfc6146) {  // N5382-20
  struct Row {
    std::uint8_t before;
    bool inside;
    std::uint8_t flags;
    bool in_window;
    std::uint8_t after;
  };
  constexpr Row rows[] = {
      {SP_TCP_CLOSED, true, SP_SYN, true, SP_TCP_INTERNAL_INIT},
      {SP_TCP_CLOSED, false, SP_SYN, true, SP_TCP_EXTERNAL_INIT},
      {SP_TCP_CLOSED, true, SP_ACK, true, SP_TCP_CLOSED},
      {SP_TCP_CLOSED, true, SP_SYN | SP_ACK, true, SP_TCP_CLOSED},
      {SP_TCP_INTERNAL_INIT, false, SP_SYN | SP_ACK, true, SP_TCP_ESTABLISHED},
      {SP_TCP_INTERNAL_INIT, false, SP_SYN | SP_ACK, false, SP_TCP_INTERNAL_INIT},
      {SP_TCP_INTERNAL_INIT, false, SP_SYN, true, SP_TCP_ESTABLISHED},
      {SP_TCP_INTERNAL_INIT, true, SP_SYN, true, SP_TCP_INTERNAL_INIT},
      {SP_TCP_INTERNAL_INIT, false, SP_ACK, true, SP_TCP_INTERNAL_INIT},
      {SP_TCP_EXTERNAL_INIT, true, SP_SYN | SP_ACK, true, SP_TCP_ESTABLISHED},
      {SP_TCP_ESTABLISHED, true, SP_FIN | SP_ACK, true, SP_TCP_INTERNAL_FIN},
      {SP_TCP_ESTABLISHED, false, SP_FIN | SP_ACK, true, SP_TCP_EXTERNAL_FIN},
      {SP_TCP_ESTABLISHED, false, SP_FIN | SP_ACK, false, SP_TCP_ESTABLISHED},
      {SP_TCP_ESTABLISHED, false, SP_RST, true, SP_TCP_TRANS},
      {SP_TCP_ESTABLISHED, false, SP_RST, false, SP_TCP_ESTABLISHED},
      {SP_TCP_ESTABLISHED, false, SP_SYN, true, SP_TCP_ESTABLISHED},
      {SP_TCP_INTERNAL_FIN, false, SP_FIN | SP_ACK, true, SP_TCP_BOTH_FIN},
      {SP_TCP_EXTERNAL_FIN, true, SP_FIN | SP_ACK, true, SP_TCP_BOTH_FIN},
      {SP_TCP_INTERNAL_FIN, true, SP_SYN, true, SP_TCP_INTERNAL_INIT},
      {SP_TCP_INTERNAL_FIN, false, SP_SYN, true, SP_TCP_INTERNAL_FIN},
      {SP_TCP_BOTH_FIN, true, SP_ACK, true, SP_TCP_BOTH_FIN},
      {SP_TCP_BOTH_FIN, false, SP_SYN, true, SP_TCP_EXTERNAL_INIT},
      {SP_TCP_TRANS, true, SP_ACK, true, SP_TCP_ESTABLISHED},
      {SP_TCP_TRANS, false, SP_ACK, false, SP_TCP_TRANS},
      {SP_TCP_TRANS, false, SP_RST, true, SP_TCP_TRANS},
      {SP_TCP_TRANS, true, SP_SYN, true, SP_TCP_INTERNAL_INIT},
  };
  for (const Row& row : rows)
    EXPECT_EQ(sp_tcp_step(row.before, row.inside, row.flags, row.in_window), row.after)
        << int{row.before} << ' ' << row.inside << ' ' << int{row.flags};
}

}  // namespace
}  // namespace sallyport::nat
