#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace sallyport::wire {

/// Appends big-endian fields to a datagram.
class ByteWriter {
 public:
  ByteWriter() = default;
  explicit ByteWriter(std::size_t expected_size) { bytes_.reserve(expected_size); }

  ByteWriter& u8(std::uint8_t value) {
    bytes_.push_back(std::byte{value});
    return *this;
  }
  ByteWriter& u16(std::uint16_t value) {
    return u8(static_cast<std::uint8_t>(value >> 8)).u8(static_cast<std::uint8_t>(value));
  }
  ByteWriter& u32(std::uint32_t value) {
    return u16(static_cast<std::uint16_t>(value >> 16)).u16(static_cast<std::uint16_t>(value));
  }
  ByteWriter& bytes(std::span<const std::byte> value) {
    bytes_.insert(bytes_.end(), value.begin(), value.end());
    return *this;
  }
  ByteWriter& zeros(std::size_t count) {
    bytes_.resize(bytes_.size() + count);
    return *this;
  }

  std::size_t size() const noexcept { return bytes_.size(); }
  std::vector<std::byte> take() && { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
};

/// Overwrites a big-endian field of a datagram that already has that many octets.
inline void put_u16(std::span<std::byte> at, std::uint16_t value) noexcept {
  at[0] = static_cast<std::byte>(value >> 8);
  at[1] = static_cast<std::byte>(value & 0xff);
}
inline void put_u32(std::span<std::byte> at, std::uint32_t value) noexcept {
  put_u16(at.first(2), static_cast<std::uint16_t>(value >> 16));
  put_u16(at.subspan(2, 2), static_cast<std::uint16_t>(value));
}

}  // namespace sallyport::wire
