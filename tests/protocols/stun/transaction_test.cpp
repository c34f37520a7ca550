#include "protocols/stun/transaction.hpp"

#include <gtest/gtest.h>

#include "tests/support/vectors.hpp"

namespace sallyport::stun {
namespace {

using namespace std::chrono_literals;

class StunTransaction : public testing::Test {
 protected:
  static std::vector<std::byte> golden(const std::string& file) {
    return test::read_hex_file(SALLYPORT_VECTORS "/" + file + ".hex");
  }
  static BindingRequest request() {
    BindingRequest out;
    for (std::size_t i = 0; i < out.id.size(); ++i) out.id[i] = static_cast<std::byte>(i);
    return out;
  }
  Transaction begin(BootClock::duration patience) { return {request(), start, start + patience}; }
  /// When it was sent, in milliseconds after its start, until it ended.
  std::vector<std::int64_t> run(Transaction& transaction) {
    std::vector<std::int64_t> sent;
    for (auto now = start;; now = *transaction.next_deadline()) {
      transaction.handle_timeout(now);
      while (transaction.poll_transmit()) sent.push_back((now - start) / 1ms);
      if (!transaction.next_deadline()) {
        ended = now;
        return sent;
      }
    }
  }
  TimePoint start{1000s};
  TimePoint ended;
};

TEST_F(StunTransaction, IsSentSevenTimesDoublingAndGivesUpAfterSixteenIntervals) {
  auto transaction = begin(1h);
  EXPECT_EQ(run(transaction), (std::vector<std::int64_t>{0, 500, 1500, 3500, 7500, 15500, 31500}));
  EXPECT_EQ(ended - start, 39500ms);
  EXPECT_EQ(transaction.poll_outcome(), (Outcome{Outcome::Kind::no_answer, {}}));
  EXPECT_EQ(transaction.poll_outcome(), std::nullopt);
}

TEST_F(StunTransaction, EndsWhenTheCallersPatienceDoes) {
  auto transaction = begin(2s);
  EXPECT_EQ(run(transaction), (std::vector<std::int64_t>{0, 500, 1500}));
  EXPECT_EQ(ended - start, 2s);
  EXPECT_EQ(transaction.poll_outcome()->kind, Outcome::Kind::no_answer);
}

TEST_F(StunTransaction, SendsTheSameRequestEachTime) {
  auto transaction = begin(1h);
  const auto first = transaction.poll_transmit();
  EXPECT_EQ(first, encode(request()));
  EXPECT_EQ(transaction.poll_transmit(), std::nullopt);
  transaction.handle_timeout(start + 500ms);
  EXPECT_EQ(transaction.poll_transmit(), first);
}

TEST_F(StunTransaction, EndsWithTheAnswer) {
  auto transaction = begin(5s);
  EXPECT_TRUE(transaction.handle_datagram(golden("rfc5780")));
  EXPECT_TRUE(transaction.finished());
  EXPECT_EQ(transaction.next_deadline(), std::nullopt);
  EXPECT_EQ(transaction.poll_transmit(), std::nullopt);
  const auto outcome = transaction.poll_outcome();
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome->kind, Outcome::Kind::answered);
  EXPECT_EQ(outcome->response, *decode_response(golden("rfc5780")));
  EXPECT_FALSE(transaction.handle_datagram(golden("rfc5780")));  // the second answer to a retransmission
  EXPECT_EQ(transaction.poll_outcome(), std::nullopt);
}

TEST_F(StunTransaction, EndsWithARefusalOrWithWhatCannotBeUnderstood) {
  auto refused = begin(5s);
  EXPECT_TRUE(refused.handle_datagram(golden("error_420")));
  EXPECT_EQ(refused.poll_outcome()->kind, Outcome::Kind::refused);
  auto strange = begin(5s);
  EXPECT_TRUE(strange.handle_datagram(
      test::hex("0101 0010 2112a442 000102030405060708090a0b 7fff 0000 0020 0008 0001 bd52 ea12d545")));
  EXPECT_EQ(strange.poll_outcome()->kind, Outcome::Kind::nonsense);
}

TEST_F(StunTransaction, IsNotEndedByOthersAnswersOrByNonsense) {
  auto transaction = begin(5s);
  EXPECT_FALSE(transaction.handle_datagram(golden("rfc5769_ipv4")));  // of another id
  EXPECT_FALSE(transaction.handle_datagram(test::hex("0101")));
  EXPECT_FALSE(transaction.handle_datagram({}));
  EXPECT_FALSE(transaction.finished());
  EXPECT_TRUE(transaction.handle_datagram(golden("rfc5780")));
}

TEST_F(StunTransaction, EndsAtOnceWhenNobodyIsThere) {
  auto transaction = begin(5s);
  transaction.handle_unreachable();
  EXPECT_EQ(transaction.poll_outcome()->kind, Outcome::Kind::unreachable);
}

TEST_F(StunTransaction, DoesNotSendWhatItMissedAsleepAllAtOnce) {
  auto transaction = begin(1h);
  EXPECT_TRUE(transaction.poll_transmit());
  transaction.handle_timeout(start + 100s);
  EXPECT_TRUE(transaction.poll_transmit());
  transaction.handle_timeout(start + 100s);
  EXPECT_EQ(transaction.poll_transmit(), std::nullopt);
  EXPECT_EQ(transaction.next_deadline(), start + 101s);
}

}  // namespace
}  // namespace sallyport::stun
