#include <gtest/gtest.h>

#include "protocols/wire/announce_burst.hpp"
#include "protocols/wire/byte_reader.hpp"
#include "protocols/wire/byte_writer.hpp"
#include "protocols/wire/pending_limit.hpp"
#include "tests/support/hex.hpp"

namespace sallyport::wire {
namespace {

using namespace std::chrono_literals;
using test::hex;

TEST(ByteReader, ReadsBigEndianFieldsInTurn) {
  const auto bytes = hex("01 0203 04050607 0809 0a");
  ByteReader in{bytes};
  EXPECT_EQ(in.u8(), 0x01);
  EXPECT_EQ(in.u16(), 0x0203);
  EXPECT_EQ(in.u32(), 0x04050607U);
  EXPECT_EQ(in.bytes<2>(), (std::array{std::byte{8}, std::byte{9}}));
  EXPECT_EQ(in.rest().size(), 1U);
  in.skip(1);
  EXPECT_TRUE(in.ok());
}

TEST(ByteReader, YieldsZerosAfterAShortReadAndStaysNotOk) {
  const auto bytes = hex("ffff ff");
  ByteReader in{bytes};
  EXPECT_EQ(in.u32(), 0U);
  EXPECT_FALSE(in.ok());
  EXPECT_EQ(in.u8(), 0);  // also what would still have been there
  EXPECT_TRUE(in.take(1).empty());
  EXPECT_EQ(in.bytes<3>(), (std::array<std::byte, 3>{}));
  EXPECT_FALSE(in.ok());
}

TEST(ByteWriter, WritesBigEndianFieldsInTurn) {
  ByteWriter out;
  out.u8(1).u16(0x0203).u32(0x04050607).bytes(hex("0809")).zeros(2);
  EXPECT_EQ(out.size(), 11U);
  EXPECT_EQ(std::move(out).take(), hex("01 0203 04050607 0809 0000"));
  auto bytes = hex("ff ffffffff ff");
  put_u32(std::span{bytes}.subspan(1, 4), 0x01020304);
  EXPECT_EQ(bytes, hex("ff 01020304 ff"));
}

TEST(AnnounceBurst, IsTenCopiesWithGapsThatDouble) {
  AnnounceBurst burst;
  const TimePoint start{1h};
  EXPECT_FALSE(burst.next_deadline());
  burst.restart(start);
  std::vector<std::chrono::milliseconds> sent;
  while (const auto due = burst.next_deadline()) {
    EXPECT_FALSE(burst.take_due(*due - 1ns));
    EXPECT_TRUE(burst.take_due(*due));
    sent.push_back(std::chrono::duration_cast<std::chrono::milliseconds>(*due - start));
  }
  EXPECT_EQ(sent, (std::vector<std::chrono::milliseconds>{0ms, 250ms, 750ms, 1750ms, 3750ms, 7750ms, 15750ms,
                                                          31750ms, 63750ms, 127750ms}));
}

TEST(PendingLimit, HoldsInAllAndPerClientAndCountsRefusalsAsNothing) {
  const auto alice = Address::v4(1), bob = Address::v4(2), carol = Address::v4(3);
  PendingLimit limit{3, 2};
  EXPECT_TRUE(limit.enter(alice));
  EXPECT_TRUE(limit.enter(alice));
  EXPECT_FALSE(limit.enter(alice));
  EXPECT_TRUE(limit.enter(bob));
  EXPECT_FALSE(limit.enter(carol));
  EXPECT_EQ(limit.pending(), 3U);
  limit.leave(alice);
  EXPECT_TRUE(limit.enter(carol));
  limit.leave(Address::v4(9));  // never came in
  EXPECT_EQ(limit.pending(), 3U);
}

}  // namespace
}  // namespace sallyport::wire
