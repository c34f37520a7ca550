#include "nat/engine/pairing.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <vector>

namespace sallyport::nat {
namespace {

constexpr std::uint32_t first_external = 0xcb007107, first_host = 0xc0a80100;

std::vector<std::uint32_t> addresses(std::uint32_t count) {
  std::vector<std::uint32_t> all;
  for (std::uint32_t i = 0; i < count; ++i) all.push_back(first_external + i);
  return all;
}
Pairing pairing_of(const std::vector<std::uint32_t>& all) {
  Pairing pairing;
  pairing.set(all);
  return pairing;
}

TEST(Pairing, GivesAHostTheSameAddressInEveryRunAndOrder) {  // N4787-02, N6888-02
  const auto all = addresses(5);
  const std::vector<std::uint32_t> backwards{all.rbegin(), all.rend()};
  const Pairing one = pairing_of(all), other = pairing_of(backwards);
  for (std::uint32_t host = first_host; host < first_host + 4096; ++host)
    ASSERT_EQ(one.address(one.of(host)), other.address(other.of(host)));
}

TEST(Pairing, GivesTheHostsOfANetworkDifferentBuckets) {
  for (const std::uint32_t step : {1U, 256U, 65536U, 1U << 24}) {
    std::array<bool, Pairing::buckets> met{};
    for (std::uint32_t i = 0; i < Pairing::buckets; ++i) met[rules::sp_bucket(0x0a000000 + i * step)] = true;
    EXPECT_EQ(std::count(met.begin(), met.end(), true), static_cast<std::ptrdiff_t>(met.size())) << step;
  }
}

TEST(Pairing, SpreadsHostsEvenly) {
  for (const std::uint32_t count : {2U, 3U, 5U, 8U}) {
    const Pairing pairing = pairing_of(addresses(count));
    std::map<std::uint8_t, std::uint32_t> hosts;
    for (std::uint32_t i = 0; i < 256; ++i) ++hosts[pairing.of(first_host + i)];
    EXPECT_EQ(hosts.size(), count);
    for (const auto& [index, number] : hosts) {
      EXPECT_GT(number * count, 256 / 2) << count;
      EXPECT_LT(number * count, 256 * 3 / 2) << count;
    }
  }
}

TEST(Pairing, MovesOnlyWhoHasToWhenAnAddressComesOrGoes) {
  const auto all = addresses(4);
  const Pairing with = pairing_of(all);
  for (std::size_t gone = 0; gone < all.size(); ++gone) {
    auto rest = all;
    rest.erase(rest.begin() + static_cast<std::ptrdiff_t>(gone));
    Pairing without = with;
    without.set(rest);
    Pairing again = without;
    again.set(all);
    for (std::uint32_t host = first_host; host < first_host + 256; ++host) {
      const std::uint32_t before = with.address(with.of(host)), after = without.address(without.of(host));
      if (before == all[gone])
        EXPECT_NE(after, before);
      else
        EXPECT_EQ(after, before);
      EXPECT_EQ(again.address(again.of(host)), before);
    }
  }
}

TEST(Pairing, AnAddressKeepsItsIndexWhateverStandsBesideIt) {
  Pairing pairing = pairing_of({10, 20, 30});
  const auto middle = pairing.find(20);
  ASSERT_TRUE(middle);
  pairing.set(std::vector<std::uint32_t>{20, 40});
  EXPECT_EQ(pairing.find(20), middle);
  EXPECT_FALSE(pairing.find(10));
  EXPECT_FALSE(pairing.find(0));
  EXPECT_EQ(pairing.count(), 2U);
  pairing.set(std::vector<std::uint32_t>{20});
  for (std::uint32_t host = first_host; host < first_host + 256; ++host) EXPECT_EQ(pairing.of(host), *middle);
}

TEST(Pairing, TakesAsManyAsThereIsRoomForEachOnce) {
  Pairing pairing;
  pairing.set(std::vector<std::uint32_t>{10, 10, 20, 30}, 2);
  EXPECT_EQ(pairing.count(), 2U);
  EXPECT_TRUE(pairing.find(10));
  EXPECT_TRUE(pairing.find(20));
  EXPECT_FALSE(pairing.find(30));
  EXPECT_LT(*pairing.find(20), 2);
  pairing.set(std::vector<std::uint32_t>{30, 40}, 2);
  EXPECT_LT(*pairing.find(40), 2);
}

TEST(Pairing, TheGatewayItselfSendsFromEachAddressAsSuch) {
  const auto all = addresses(7);
  const Pairing pairing = pairing_of(all);
  for (const std::uint32_t address : all) EXPECT_EQ(pairing.address(pairing.of(address)), address);
}

TEST(Pairing, IsPutBackFromItsIndexes) {
  Pairing pairing = pairing_of({10, 20, 30});
  pairing.set(std::vector<std::uint32_t>{10, 30});
  std::vector<std::uint32_t> by_index;
  for (std::uint8_t index = 0; index < Pairing::most; ++index) by_index.push_back(pairing.address(index));
  EXPECT_EQ(Pairing{by_index}, pairing);
}

}  // namespace
}  // namespace sallyport::nat
