#include "nat/plane/tun/batch_writer.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <string>
#include <vector>

namespace sallyport::nat::tun {
namespace {

class BatchWriterTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends.data()), 0);
  }
  void TearDown() override {
    for (const int end : ends) close(end);
  }
  std::vector<std::string> arrived() const {
    std::vector<std::string> packets;
    std::array<char, 2000> packet;
    for (ssize_t size; (size = read(ends[1], packet.data(), packet.size())) >= 0;)
      packets.emplace_back(packet.data(), static_cast<std::size_t>(size));
    return packets;
  }
  void writes_in_order(BatchWriter& writer) const {
    for (const std::size_t count :
         {1U, 2U, 32U, 64U, 65U, 100U}) {  // below, at and above what one call takes
      std::vector<std::string> packets;
      for (std::size_t i = 0; i < count; ++i) packets.push_back(std::to_string(i) + std::string(i, 'x'));
      for (const std::string& packet : packets) writer.add(packet.data(), packet.size());
      writer.flush();
      EXPECT_EQ(arrived(), packets) << count;
    }
  }

  std::array<int, 2> ends{-1, -1};
};

TEST_F(BatchWriterTest, PacketsArriveWholeAndInOrder) {
  BatchWriter writer{ends[0]};
  if (!writer.has_ring()) GTEST_SKIP() << "no io_uring here";
  writes_in_order(writer);
  EXPECT_TRUE(writer.has_ring());
}

TEST_F(BatchWriterTest, WithoutIoUringTheyAreWrittenOneByOne) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit full{3, before.rlim_max};  // no descriptor left for a ring
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &full), 0);
  BatchWriter writer{ends[0]};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  ASSERT_FALSE(writer.has_ring());
  writes_in_order(writer);
}

TEST_F(BatchWriterTest, WhatIsNotTakenIsLostAndNobodyWaits) {
  BatchWriter writer{ends[0]};
  const std::string packet(1500, 'x');
  for (int batch = 0; batch < 100; ++batch) {  // more than the socket holds
    for (int i = 0; i < 32; ++i) writer.add(packet.data(), packet.size());
    writer.flush();
  }
  EXPECT_LT(arrived().size(), 3200U);
  writes_in_order(writer);
}

}  // namespace
}  // namespace sallyport::nat::tun
