#include "src/lease/policy.hpp"

#include <gtest/gtest.h>

#include <random>
#include <set>

#include "src/lease/lease_table.hpp"
#include "src/lease/public_id.hpp"

namespace sallyport::lease {
namespace {

Address address(std::string_view text) { return *Address::parse(text); }
Port port(std::uint32_t number) { return *Port::from(number); }

TEST(Policy, RangesAndSinglePortsAgreeForAnyRules) {
  std::mt19937 random{3};
  for (int round = 0; round < 300; ++round) {
    LeasePolicy policy;
    policy.external_ports = {static_cast<std::uint16_t>(1 + random() % 3000),
                             static_cast<std::uint16_t>(3000 + random() % 62000)};
    for (auto rules = random() % 5; rules > 0; --rules) {
      PolicyRule rule;
      if (random() % 2) rule.device = Prefix::parse(random() % 2 ? "192.168.1.0/24" : "10.0.0.0/8");
      if (random() % 3 == 0) rule.transport = random() % 2 ? Transport::tcp : Transport::udp;
      for (auto ranges = random() % 3; ranges > 0; --ranges) {
        const auto first = static_cast<std::uint16_t>(1 + random() % 65535);
        rule.external.push_back({first, static_cast<std::uint16_t>(first + random() % (65536u - first))});
      }
      rule.allow = random() % 2;
      policy.rules.push_back(rule);
    }
    const auto ranges = allowed_ranges(policy, address("192.168.1.5"), Transport::tcp);
    const auto in_ranges = [&](Port p) {
      return std::ranges::any_of(ranges, [&](const PortRange& r) { return r.contains(p); });
    };
    for (std::size_t i = 1; i < ranges.size(); ++i) EXPECT_GT(ranges[i].first, ranges[i - 1].last + 1);
    for (std::uint32_t p = 1; p <= 65535; p += 1 + random() % 37)
      ASSERT_EQ(in_ranges(port(p)), may_have(policy, address("192.168.1.5"), Transport::tcp, port(p))) << p;
    for (const auto& range : ranges)
      for (const std::uint32_t p : {range.first + 0u, range.last + 0u, range.first - 1u, range.last + 1u})
        if (const auto at = Port::from(p)) {
          ASSERT_EQ(in_ranges(*at), may_have(policy, address("192.168.1.5"), Transport::tcp, *at));
        }
  }
}

TEST(Policy, NetworkAndBroadcastAddressesOfEachPrefixAreNoTargets) {  // POL-TGT-02
  nat::NetworkView network;
  network.lan = {{.name = "lan0",
                  .index = 1,
                  .mtu = 1500,
                  .up = true,
                  .addresses = {address("10.1.0.1")},
                  .prefixes = {*Prefix::parse("10.0.0.0/8"), *Prefix::parse("10.1.0.0/24"),
                               *Prefix::parse("10.2.0.0/31")}}};
  for (const auto* host : {"10.1.0.2", "10.1.0.254", "10.1.1.0", "10.2.0.0", "10.2.0.1"})
    EXPECT_TRUE(is_lawful_target(network, address(host))) << host;
  for (const auto* none : {"10.0.0.0", "10.255.255.255", "10.1.0.0", "10.1.0.255", "10.1.0.1", "11.0.0.1"})
    EXPECT_FALSE(is_lawful_target(network, address(none))) << none;
}

TEST(Policy, DescriptionsNeverBreakACharacterAndNeverExceedTheirLimit) {  // POL-TXT-01, POL-TXT-02
  std::mt19937 random{4};
  for (int round = 0; round < 5000; ++round) {
    std::string raw(random() % 300, ' ');
    for (auto& c : raw) c = static_cast<char>(random() % 4 ? random() : 0xc0 + random() % 64);
    const auto limit = random() % 256;
    const auto clean = clean_description(raw, limit);
    EXPECT_LE(clean.size(), limit);
    EXPECT_EQ(clean_description(clean, limit), clean) << "clean text stays as it is";
    for (const char c : clean) EXPECT_FALSE(static_cast<unsigned char>(c) < 0x20 || c == 0x7f);
  }
  EXPECT_EQ(clean_description("Z\xc3\xbcrich \xf0\x9f\x93\xb7", 255), "Z\xc3\xbcrich \xf0\x9f\x93\xb7");
  EXPECT_EQ(clean_description("a\xe2\x80\xa8"
                              "b\xc2\x85"
                              "c",
                              255),
            "a b c");
  EXPECT_EQ(clean_description("\xed\xa0\x80", 255), "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd") << "a surrogate";
}

TEST(PublicId, IsAnotherForEachNumberAndLeadsBack) {
  std::set<std::string> seen;
  for (std::uint64_t number = 0; number < 100000; ++number) {
    const auto id = public_id(number);
    ASSERT_EQ(id.size(), 4u);
    ASSERT_EQ(id.find_first_not_of("abcdefghijklmnopqrstuvwxyz23456789"), std::string::npos);
    ASSERT_TRUE(seen.insert(id).second) << number;
    ASSERT_EQ(number_of(id), number);
  }
  constexpr std::uint64_t four = 34ull * 34 * 34 * 34, five = four * 34;
  for (const std::uint64_t number : {four - 1, four, four + 1, four + five - 1, four + five,
                                     std::uint64_t{1} << 32, std::uint64_t{1} << 40}) {
    EXPECT_EQ(number_of(public_id(number)), number);
    EXPECT_EQ(public_id(number).size(), number < four          ? 4u
                                        : number < four + five ? 5u
                                                               : public_id(number).size());
  }
  for (const auto* none : {"", "abc", "ABCD", "ab1c", "ab0c", "aaaaaaaaaaaaa", "k7 f"})
    EXPECT_FALSE(number_of(none)) << none;
}

TEST(LeaseTable, TheHeapGivesLeasesByDeadlineWhateverIsMovedOrTaken) {
  LeaseTable table{1};
  std::mt19937 random{5};
  std::multimap<TimePoint, Index> model;
  std::vector<Index> all;
  const Index mapping = table.add_mapping(Transport::tcp, {address("192.168.1.2"), port(1)}, port(1), 0);
  const auto forget = [&](Index lease) {
    for (auto it = model.begin(); it != model.end(); ++it)
      if (it->second == lease) return void(model.erase(it));
  };
  std::uint64_t number = 0;
  for (int step = 0; step < 4000; ++step) {
    const auto deadline = TimePoint{std::chrono::seconds{random() % 1000}};
    switch (random() % 4) {
      case 0:
      case 1: {
        const Index lease = table.add_lease(++number, mapping, table.mappings[mapping].internal_address);
        table.leases[lease].deadline = deadline;
        table.schedule(lease);
        model.emplace(deadline, lease);
        all.push_back(lease);
        break;
      }
      case 2:
        if (all.empty()) break;
        forget(all[step % all.size()]);
        table.leases[all[step % all.size()]].deadline = deadline;
        table.schedule(all[step % all.size()]);
        model.emplace(deadline, all[step % all.size()]);
        break;
      case 3:
        if (all.empty()) break;
        forget(all[step % all.size()]);
        table.remove_lease(all[step % all.size()]);
        all.erase(all.begin() + step % static_cast<std::ptrdiff_t>(all.size()));
        break;
    }
    ASSERT_EQ(table.next_deadline(), model.empty() ? std::nullopt : std::optional{model.begin()->first});
    ASSERT_EQ(table.size(), all.size());
  }
}

TEST(LeaseTable, ALeaseCostsLittle) { EXPECT_LE(sizeof(Lease) + sizeof(Mapping), 200u); }

}  // namespace
}  // namespace sallyport::lease
