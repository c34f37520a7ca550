#include "src/transport/fair_queue.hpp"

namespace sallyport::transport {
namespace {

const Address flooder = Address::v4(0x0a000002);
const Address quiet = Address::v4(0x0a000003);

std::vector<std::byte> datagram(int number, std::size_t size = 4) {
  std::vector<std::byte> bytes(size);
  bytes[0] = static_cast<std::byte>(number);
  return bytes;
}

bool push(FairQueue& queue, const Address& source, int number, std::size_t size = 4) {
  wire::Arrival arrival;
  arrival.source = source;
  return queue.push(datagram(number, size), arrival);
}

// POL-FAIR-01: take turns by device
TEST(FairQueue, LetsSourcesTakeTurns) {
  FairQueue queue{1000, 100000};
  for (int i = 0; i < 100; ++i) push(queue, flooder, i);
  push(queue, quiet, 200);
  EXPECT_EQ(queue.pop()->arrival.source, flooder);
  EXPECT_EQ(queue.pop()->arrival.source, quiet) << "behind one datagram, not behind a hundred";
}

TEST(FairQueue, KeepsTheOrderOfASource) {
  FairQueue queue{1000, 100000};
  for (int i = 0; i < 5; ++i) {
    push(queue, flooder, i);
    push(queue, quiet, 100 + i);
  }
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(queue.pop()->bytes, datagram(i));
    EXPECT_EQ(queue.pop()->bytes, datagram(100 + i));
  }
  EXPECT_FALSE(queue.pop());
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(queue.octets(), 0u);
}

TEST(FairQueue, AFullQueueStillTakesOneOfASourceThatHasNothingWaiting) {
  FairQueue queue{10, 100000};
  for (int i = 0; i < 10; ++i) EXPECT_TRUE(push(queue, flooder, i));
  EXPECT_FALSE(push(queue, flooder, 10));
  EXPECT_TRUE(push(queue, quiet, 1));
  EXPECT_FALSE(push(queue, quiet, 2));
  EXPECT_EQ(queue.size(), 11u);
}

TEST(FairQueue, InventedSourcesDoNotMakeItGrowWithoutEnd) {  // POL-FAIR-05, POL-FAIR-06
  FairQueue queue{10, 100000};
  for (std::uint32_t i = 0; i < 20000; ++i) push(queue, Address::v4(0x0a000000 + i), 1);
  EXPECT_EQ(queue.size(), FairQueue::max_sources);
}

TEST(FairQueue, IsBoundedInOctetsToo) {
  FairQueue queue{1000, 3000};
  EXPECT_TRUE(push(queue, flooder, 0, 1100));
  EXPECT_TRUE(push(queue, flooder, 1, 1100));
  EXPECT_FALSE(push(queue, flooder, 2, 1100));
  queue.pop();
  EXPECT_TRUE(push(queue, flooder, 3, 1100));
}

}  // namespace
}  // namespace sallyport::transport
