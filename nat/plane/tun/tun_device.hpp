#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "sallyport/values/result.hpp"

namespace sallyport::nat::tun {

/// The header the kernel puts before each packet (virtio 5.1.6, legacy form, host byte order).
/// linux/virtio_net.h has a member named `class`.
struct VirtioHeader {
  static constexpr std::uint8_t needs_checksum = 1;
  static constexpr std::uint8_t gso_none = 0;
  std::uint8_t flags = 0;
  std::uint8_t gso_type = 0;
  std::uint16_t header_length = 0;
  std::uint16_t gso_size = 0;
  std::uint16_t checksum_start = 0;
  std::uint16_t checksum_offset = 0;
};
static_assert(sizeof(VirtioHeader) == 10);

/// A TUN (or TAP) interface without packet information, with virtio headers, nonblocking. It goes away with this
/// object.
class TunDevice {
 public:
  enum class Layer : std::uint8_t { packets, ethernet };
  /// Errors of the generic category: EBUSY when another process holds a device of this name.
  static Result<TunDevice> open(const std::string& name, Layer layer = Layer::packets);
  TunDevice(TunDevice&& other) noexcept;
  TunDevice& operator=(TunDevice&&) = delete;
  ~TunDevice();

  int fd() const noexcept { return fd_; }
  std::uint32_t index() const noexcept { return index_; }

 private:
  TunDevice(int fd, std::uint32_t index) : fd_{fd}, index_{index} {}
  int fd_;
  std::uint32_t index_;
};

}  // namespace sallyport::nat::tun
