#pragma once

#include <cstddef>
#include <cstdint>

#include "nat/packet/bytes.hpp"

namespace sallyport::nat::packet {

inline std::uint16_t fold(std::uint64_t sum) noexcept {
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>((sum & 0xffff) + (sum >> 16));
}

/// The ones' complement sum of octets as 16-bit words, an odd last one padded with zero (RFC 1071); not
/// folded.
inline std::uint64_t sum_of(const std::uint8_t* data, std::size_t size) noexcept {
  std::uint64_t sum = 0;
  for (; size >= 4; data += 4, size -= 4) sum += load32(data);
  if (size >= 2) {
    sum += load16(data);
    data += 2;
    size -= 2;
  }
  if (size) sum += static_cast<std::uint64_t>(*data) << 8;
  return sum;
}

inline std::uint16_t checksum_of(const std::uint8_t* data, std::size_t size) noexcept {
  return static_cast<std::uint16_t>(~fold(sum_of(data, size)));
}

/// The sum over the pseudo-header of TCP, UDP (RFC 9293 3.1, RFC 768); not folded.
inline std::uint64_t pseudo_header_sum(std::uint32_t source, std::uint32_t destination, std::uint8_t protocol,
                                       std::uint32_t length) noexcept {
  return std::uint64_t{source} + destination + protocol + length;
}

/// What changed under a checksum: HC' = ~(~HC + ~m + m') (RFC 1624, equation 3), so a wrong checksum stays
/// wrong (NPKT-03) and 0x0000 and 0xffff come out as a full computation gives them.
class ChecksumChange {
 public:
  void word(std::uint16_t before, std::uint16_t after) noexcept {
    sum_ += static_cast<std::uint16_t>(~before);
    sum_ += after;
  }
  void address(std::uint32_t before, std::uint32_t after) noexcept {
    sum_ += static_cast<std::uint32_t>(~before);
    sum_ += after;
  }
  void add(const ChecksumChange& other) noexcept { sum_ += other.sum_; }

  std::uint16_t apply(std::uint16_t checksum) const noexcept {
    return static_cast<std::uint16_t>(~fold(sum_ + static_cast<std::uint16_t>(~checksum)));
  }
  /// For a field that holds the pseudo-header's sum, not inverted, still to be completed by a network card.
  std::uint16_t apply_to_partial(std::uint16_t partial) const noexcept { return fold(sum_ + partial); }

  void apply_at(std::uint8_t* field) const noexcept { store16(field, apply(load16(field))); }

 private:
  std::uint64_t sum_ = 0;
};

}  // namespace sallyport::nat::packet
