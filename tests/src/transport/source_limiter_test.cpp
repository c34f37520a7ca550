#include "src/transport/source_limiter.hpp"

#include "tests/support/manual_clock.hpp"

namespace sallyport::transport {
namespace {

using namespace std::chrono_literals;
using Verdict = SourceLimiter::Verdict;

const Address alice = Address::v4(0x0a000002);
const Address bob = Address::v4(0x0a000003);

class SourceLimiterTest : public testing::Test {
 protected:
  /// How many of `count` requests at this moment pass.
  int pass(const Address& source, int count) {
    int passed = 0;
    for (int i = 0; i < count; ++i) passed += limiter.admit(source, clock.now()) == Verdict::pass ? 1 : 0;
    return passed;
  }
  test::ManualClock clock;
  SourceLimiter limiter{{.per_second = 10, .burst = 20, .max_sources = 3, .flood_threshold = 5}};
};

// POL-QTA-03: the burst at once, then the rate
TEST_F(SourceLimiterTest, ASourceHasItsBurstAndThenItsRate) {
  EXPECT_EQ(pass(alice, 100), 20);
  clock.advance(500ms);
  EXPECT_EQ(pass(alice, 100), 5);
  clock.advance(1h);
  EXPECT_EQ(pass(alice, 100), 20);
}

TEST_F(SourceLimiterTest, OneSourceTakesNothingFromAnother) {
  EXPECT_EQ(pass(alice, 1000), 20);
  EXPECT_EQ(pass(bob, 20), 20);
}

TEST_F(SourceLimiterTest, FarAboveItsRateASourceIsAFlood) {
  EXPECT_EQ(pass(alice, 25), 20);
  EXPECT_EQ(limiter.admit(alice, clock.now()), Verdict::flood);  // the sixth refusal within 100 ms
  clock.advance(150ms);
  EXPECT_EQ(limiter.admit(alice, clock.now()), Verdict::pass);
  EXPECT_EQ(limiter.admit(alice, clock.now()), Verdict::over);  // a new tenth of a second counts afresh
}

// POL-FAIR-06: state of invented addresses stays bounded, and the oldest goes first
TEST_F(SourceLimiterTest, TheSourceSilentLongestIsForgotten) {
  pass(alice, 20);
  for (std::uint32_t i = 0; i < 1000; ++i) {
    EXPECT_EQ(pass(Address::v4(0xc0a80000 + i), 1), 1);
    EXPECT_EQ(pass(bob, 1), i < 20 ? 1 : 0) << i;  // bob keeps talking and stays known
  }
  EXPECT_EQ(limiter.sources(), 3u);
  EXPECT_EQ(pass(alice, 1), 1) << "a new bucket";
}

TEST_F(SourceLimiterTest, ZeroIsNoLimit) {
  limiter.set_rate(0, 0);
  EXPECT_EQ(pass(alice, 10000), 10000);
  EXPECT_EQ(limiter.sources(), 0u);
}

TEST_F(SourceLimiterTest, AClockThatStandsStillOrStepsBackGivesNothing) {
  EXPECT_EQ(pass(alice, 20), 20);
  EXPECT_EQ(limiter.admit(alice, clock.now() - 1h), Verdict::over);
  EXPECT_EQ(pass(alice, 1), 0) << "and the hour is not counted on the way forward";
}

}  // namespace
}  // namespace sallyport::transport
