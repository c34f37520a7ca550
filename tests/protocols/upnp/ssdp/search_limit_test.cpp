#include "protocols/upnp/ssdp/search_limit.hpp"

#include <gtest/gtest.h>

namespace sallyport::upnp::ssdp {
namespace {

using namespace std::chrono_literals;
using Verdict = SearchLimit::Verdict;

const auto alice = *Address::parse("192.168.1.10");
const auto bob = *Address::parse("fe80::2");
constexpr std::size_t search = 120, answer = 400, set = 11 * answer;

class SsdpSearchLimit : public testing::Test {
 protected:
  Verdict ask(const Address& source, std::size_t answers = answer) {
    return limit.admit(source, search, answers, set, now);
  }
  int passed(const Address& source, int searches, std::size_t answers = answer) {
    int count = 0;
    for (int i = 0; i < searches; ++i) count += ask(source, answers) == Verdict::pass ? 1 : 0;
    return count;
  }
  SearchLimit limit{{}};
  TimePoint now{1h};
};

// POL-QTA-10
TEST_F(SsdpSearchLimit, OfASource30AtOnceAnd10ASecond) {
  EXPECT_EQ(passed(alice, 100), 30);
  now += 1s;
  EXPECT_EQ(passed(alice, 100), 10);
  now += 100ms;
  EXPECT_EQ(passed(alice, 100), 1);
  now += 1h;
  EXPECT_EQ(passed(alice, 100), 30);
}

// POL-QTA-10, POL-DSC-01: what one source may not have is taken from nobody
TEST_F(SsdpSearchLimit, OfASourceFirstAndThen100InAll) {
  EXPECT_EQ(passed(alice, 10000), 30);
  int others = 0;
  for (std::uint32_t host = 0; host < 20; ++host) others += passed(Address::v4(0xc0a80120 + host), 5);
  EXPECT_EQ(others, 70);
  EXPECT_EQ(ask(bob), Verdict::total_over);
  now += 1s;
  EXPECT_EQ(ask(bob), Verdict::pass);
}

TEST_F(SsdpSearchLimit, ARefusedSearchCostsItsSourceNothing) {
  for (std::uint32_t host = 0; host < 20; ++host) passed(Address::v4(0xc0a80120 + host), 5);
  EXPECT_EQ(passed(alice, 50), 0);
  now += 300ms;
  EXPECT_EQ(passed(alice, 50), 30);
}

// POL-DSC-01, UDA-1.3-16
TEST_F(SsdpSearchLimit, AnswersToABurstStayBelowTenTimesItsOctets) {
  EXPECT_EQ(ask(alice, set), Verdict::pass) << "one set is always given (UDA-1.3-07)";
  EXPECT_EQ(ask(alice, set), Verdict::pass);
  std::size_t sent = 2 * set;
  for (int i = 2; i < 30; ++i)
    if (ask(alice, set) == Verdict::pass) sent += set;
  EXPECT_LT(sent, 10 * 30 * search);
  // and it stays so when it goes on
  std::size_t heard = 0;
  sent = 0;
  for (int i = 0; i < 600; ++i) {
    now += 100ms;
    heard += search;
    if (ask(alice, set) == Verdict::pass) sent += set;
  }
  EXPECT_LT(sent, 10 * heard);
  now += 1min;
  EXPECT_EQ(passed(alice, 2, set), 2);
}

TEST_F(SsdpSearchLimit, TheSourceSilentLongestIsForgottenFirst) {
  SearchLimit small{{.per_second = 10, .burst = 1, .total_per_second = 1000, .max_sources = 3}};
  const auto admit = [&](std::uint32_t host) { return small.admit(Address::v4(host), search, answer, set, now); };
  for (const std::uint32_t host : {1, 2, 3}) EXPECT_EQ(admit(host), Verdict::pass);
  EXPECT_EQ(admit(1), Verdict::source_over);
  EXPECT_EQ(admit(4), Verdict::pass);  // forgets 2
  EXPECT_EQ(small.sources(), 3U);
  EXPECT_EQ(admit(1), Verdict::source_over);
  EXPECT_EQ(admit(3), Verdict::source_over);
  EXPECT_EQ(admit(2), Verdict::pass);
  EXPECT_EQ(small.sources(), 3U);
}

TEST_F(SsdpSearchLimit, KeepsAtMost4096Sources) {
  for (std::uint32_t host = 0; host < 6000; ++host) ask(Address::v4(0x0a000000 + host));
  EXPECT_EQ(limit.sources(), 4096U);
}

TEST_F(SsdpSearchLimit, NeedsNoTimeToGoForward) {
  EXPECT_EQ(passed(alice, 30), 30);
  now -= 30min;
  EXPECT_EQ(passed(alice, 30), 0);
}

}  // namespace
}  // namespace sallyport::upnp::ssdp
