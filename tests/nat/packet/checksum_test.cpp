#include "nat/packet/checksum.hpp"

#include "tests/support/packet_builder.hpp"

namespace sallyport::nat::packet {
namespace {

using test::Octets;

std::uint8_t* raw(Octets& octets) { return reinterpret_cast<std::uint8_t*>(octets.data()); }

TEST(Checksum, AgreesWithTheDefinitionAtEveryLength) {
  std::mt19937 random{1};
  for (std::size_t size = 0; size < 200; ++size) {
    Octets octets(size);
    for (auto& octet : octets) octet = static_cast<std::byte>(random());
    EXPECT_EQ(checksum_of(raw(octets), size), test::full_checksum(octets, 0, size)) << size;
  }
}

TEST(Checksum, TheChangeGivesWhatAFullComputationGives) {  // NPKT-01, RFC 1624
  std::mt19937 random{2};
  constexpr std::uint32_t special[] = {0, 0xffff, 1, 0xfffe, 0x8000, 0x7fff};
  for (int round = 0; round < 200000; ++round) {
    Octets octets(20);
    for (auto& octet : octets)
      octet = static_cast<std::byte>(random() % 4 ? random() : (random() & 1 ? 255 : 0));
    test::put16(octets, 8, 0);
    test::put16(octets, 8, test::full_checksum(octets, 0, 20));
    ChecksumChange change;
    const std::uint32_t address =
        random() & 1 ? random() : special[random() % 6] << 16 | special[random() % 6];
    const auto word = static_cast<std::uint16_t>(random() & 1 ? random() : special[random() % 6]);
    change.address(test::get32(octets, 12), address);
    change.word(test::get16(octets, 2), word);
    change.apply_at(raw(octets) + 8);
    test::put32(octets, 12, address);
    test::put16(octets, 2, word);
    const std::uint16_t updated = test::get16(octets, 8);
    test::put16(octets, 8, 0);
    // Only all-zero octets have the checksum 0xffff: nothing of a packet is that.
    ASSERT_EQ(updated, test::full_checksum(octets, 0, 20));
  }
}

TEST(Checksum, TheExampleOfRfc1624) {  // section 4: HC = DD2F, m = 5555, m' = 3285 gives 0000
  ChecksumChange change;
  change.word(0x5555, 0x3285);
  EXPECT_EQ(change.apply(0xdd2f), 0x0000);
}

TEST(Checksum, AWrongOneStaysWrongByAsMuch) {  // NPKT-03
  ChecksumChange change;
  change.address(0xc0a80101, 0xcb007102);
  const auto right = change.apply(0x1234);
  const auto wrong = change.apply(0x1235);
  EXPECT_EQ(wrong - right, 1);
}

}  // namespace
}  // namespace sallyport::nat::packet
