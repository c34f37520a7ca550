#include "protocols/upnp/igd/icon.hpp"

#include <gtest/gtest.h>

#include <set>

namespace sallyport::upnp::igd {
namespace {

std::uint32_t u32(std::string_view text, std::size_t at) {
  std::uint32_t number = 0;
  for (std::size_t i = 0; i < 4; ++i) number = number << 8 | static_cast<unsigned char>(text[at + i]);
  return number;
}

/// CRC of PNG, appendix D, by polynomial division over the bits as they are sent: not the way the code does
/// it.
std::uint32_t crc(std::string_view octets) {
  std::vector<bool> bits;
  for (const unsigned char octet : octets)
    for (int i = 0; i < 8; ++i) bits.push_back(octet >> i & 1);
  for (std::size_t i = 0; i < 32; ++i) bits[i] = !bits[i];
  bits.resize(bits.size() + 32);
  std::uint32_t rest = 0;
  for (const bool bit : bits) {
    const bool top = rest >> 31;
    rest = rest << 1 | (bit ? 1 : 0);
    if (top) rest ^= 0x04c11db7;
  }
  std::uint32_t mirrored = 0;
  for (int i = 0; i < 32; ++i) mirrored |= (rest >> i & 1) << (31 - i);
  return ~mirrored;
}

struct Chunk {
  std::string type;
  std::string data;
};

std::vector<Chunk> chunks_of(std::string_view png) {
  std::vector<Chunk> chunks;
  EXPECT_EQ(png.substr(0, 8), std::string_view("\x89PNG\r\n\x1a\n", 8));
  std::size_t at = 8;
  while (at + 12 <= png.size()) {
    const std::size_t length = u32(png, at);
    if (length > png.size() - at - 12) break;
    chunks.push_back({std::string{png.substr(at + 4, 4)}, std::string{png.substr(at + 8, length)}});
    EXPECT_EQ(u32(png, at + 8 + length), crc(png.substr(at + 4, 4 + length))) << chunks.back().type;
    at += 12 + length;
  }
  EXPECT_EQ(at, png.size());
  return chunks;
}

TEST(Icon, IsASoundPngOfTheSizeAskedFor) {
  for (const unsigned size : {1u, 16u, 48u, 120u, 255u}) {
    const auto png = draw_icon(size);
    const auto chunks = chunks_of(png);
    ASSERT_EQ(chunks.size(), 5u);
    ASSERT_EQ(chunks[0].type, "IHDR");
    EXPECT_EQ(u32(chunks[0].data, 0), size);
    EXPECT_EQ(u32(chunks[0].data, 4), size);
    EXPECT_EQ(chunks[0].data.substr(8), std::string("\x08\x03\0\0\0", 5));
    ASSERT_EQ(chunks[1].type, "PLTE");
    ASSERT_EQ(chunks[2].type, "tRNS");
    EXPECT_EQ(chunks[1].data.size(), 3 * chunks[2].data.size());
    EXPECT_EQ(chunks[2].data[0], '\0') << "the ground is clear";
    ASSERT_EQ(chunks[3].type, "IDAT");
    EXPECT_EQ(chunks[4].type, "IEND");
    // one stored deflate block: 2 + 1 + 4 octets before, the sum behind
    const std::string_view zlib = chunks[3].data;
    const auto rows = zlib.substr(7, zlib.size() - 11);
    ASSERT_EQ(rows.size(), std::size_t{size} * (size + 1));
    EXPECT_EQ((static_cast<unsigned char>(zlib[0]) * 256 + static_cast<unsigned char>(zlib[1])) % 31, 0);
    EXPECT_EQ(zlib[2], '\x01');
    const auto length = static_cast<unsigned char>(zlib[3]) + 256u * static_cast<unsigned char>(zlib[4]);
    EXPECT_EQ(length, rows.size());
    EXPECT_EQ(static_cast<unsigned char>(zlib[5]) + 256u * static_cast<unsigned char>(zlib[6]),
              65535 - length);
    std::uint64_t a = 1;
    std::uint64_t b = 0;
    for (const unsigned char octet : rows)
      b += a += octet;  // small enough not to need the modulus on the way
    EXPECT_EQ(u32(zlib, zlib.size() - 4), (b % 65521) << 16 | (a % 65521));
    std::set<char> used;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (i % (size + 1) == 0) {
        EXPECT_EQ(rows[i], '\0') << "no filter";
      }
      ASSERT_LT(static_cast<unsigned char>(rows[i]), chunks[2].data.size()) << "an index beyond the palette";
      used.insert(rows[i]);
    }
    EXPECT_TRUE(size == 1 || used.size() > 4) << "something is drawn";
  }
}

TEST(Icon, IsTheSameEachTime) { EXPECT_EQ(draw_icon(48), draw_icon(48)); }

}  // namespace
}  // namespace sallyport::upnp::igd
