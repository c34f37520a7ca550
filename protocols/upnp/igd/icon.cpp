#include "protocols/upnp/igd/icon.hpp"

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace sallyport::upnp::igd {
namespace {

enum class Paint { none, wall, arrow };

/// The mark in the unit square, y downwards.
Paint paint_at(double x, double y) noexcept {
  const auto between = [](double value, double low, double high) { return value >= low && value < high; };
  // the arrow: a triangle on a shaft, in the middle of the gateway
  const double from_middle = x < 0.5 ? 0.5 - x : x - 0.5;
  if (between(y, 0.46, 0.66) && from_middle < (y - 0.46) * 0.58) return Paint::arrow;
  if (between(y, 0.66, 0.92) && from_middle < 0.042) return Paint::arrow;
  // the gateway: a half circle on a rectangle
  const double dy = 0.58 - y;
  if (dy > 0 ? from_middle * from_middle + dy * dy < 0.19 * 0.19 : from_middle < 0.19) return Paint::none;
  if (!between(x, 0.06, 0.94)) return Paint::none;
  if (between(y, 0.24, 0.96)) return Paint::wall;
  const bool merlon = between(x, 0.06, 0.26) || between(x, 0.40, 0.60) || between(x, 0.74, 0.94);
  return between(y, 0.06, 0.24) && merlon ? Paint::wall : Paint::none;
}

constexpr unsigned samples = 4;                 // per side of a pixel
constexpr unsigned shades = samples * samples;  // palette: 0 clear, 1..16 wall, 17..32 arrow, by coverage

/// Wall and arrow never meet in one pixel at the sizes used; where they do, the larger share names the
/// colour.
unsigned char shade_of(unsigned column, unsigned row, unsigned size) noexcept {
  unsigned wall = 0;
  unsigned arrow = 0;
  for (unsigned i = 0; i < shades; ++i) {
    const double x = (column + (i % samples + 0.5) / samples) / size;
    const double y = (row + (i / samples + 0.5) / samples) / size;
    const auto paint = paint_at(x, y);
    wall += paint == Paint::wall ? 1 : 0;
    arrow += paint == Paint::arrow ? 1 : 0;
  }
  if (wall + arrow == 0) return 0;
  return static_cast<unsigned char>(arrow > wall ? shades + arrow : wall);
}

void append_u32(std::string& to, std::uint32_t number) {
  for (int shift = 24; shift >= 0; shift -= 8) to += static_cast<char>(number >> shift & 0xff);
}

std::uint32_t crc32(std::string_view octets) noexcept {
  std::uint32_t crc = 0xffffffff;
  for (const unsigned char octet : octets) {
    crc ^= octet;
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc;
}

std::uint32_t adler32(std::string_view octets) noexcept {
  std::uint32_t a = 1;
  std::uint32_t b = 0;
  for (const unsigned char octet : octets) {
    a = (a + octet) % 65521;
    b = (b + a) % 65521;
  }
  return b << 16 | a;
}

/// Length, type, data, CRC over type and data (PNG, section 5.3).
void append_chunk(std::string& png, std::string_view type, std::string_view data) {
  append_u32(png, static_cast<std::uint32_t>(data.size()));
  const auto begin = png.size();
  png.append(type).append(data);
  append_u32(png, crc32(std::string_view{png}.substr(begin)));
}

/// A zlib stream of one stored block (RFC 1950, RFC 1951 section 3.2.4): no compressor is worth having for
/// this.
std::string stored(std::string_view data) {
  const auto length = static_cast<unsigned>(data.size());  // at most 255 * 256, so that it fits one block
  std::string zlib{"\x78\x01\x01", 3};
  for (const unsigned part : {length, ~length}) {
    zlib += static_cast<char>(part & 0xff);
    zlib += static_cast<char>(part >> 8 & 0xff);
  }
  zlib += data;
  append_u32(zlib, adler32(data));
  return zlib;
}

}  // namespace

std::string draw_icon(unsigned size) {
  std::string header;
  append_u32(header, size);
  append_u32(header, size);
  header += std::string_view{"\x08\x03\x00\x00\x00",
                             5};  // 8 bits, palette, deflate, no filter method, no interlace

  std::string palette{"\x00\x00\x00", 3};
  std::string alpha{"\x00", 1};
  for (const std::string_view colour : {"\x1f\x5f\x6b", "\xe8\x94\x1a"}) {
    for (unsigned shade = 1; shade <= shades; ++shade) {
      palette += colour;
      alpha += static_cast<char>(shade * 255 / shades);
    }
  }

  std::string rows;
  rows.reserve(std::size_t{size} * (size + 1));
  for (unsigned row = 0; row < size; ++row) {
    rows += '\0';  // no filter
    for (unsigned column = 0; column < size; ++column) rows += static_cast<char>(shade_of(column, row, size));
  }

  std::string png{"\x89PNG\r\n\x1a\n"};
  append_chunk(png, "IHDR", header);
  append_chunk(png, "PLTE", palette);
  append_chunk(png, "tRNS", alpha);
  append_chunk(png, "IDAT", stored(rows));
  append_chunk(png, "IEND", {});
  return png;
}

}  // namespace sallyport::upnp::igd
