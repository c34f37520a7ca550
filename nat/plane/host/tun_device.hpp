#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "sallyport/values/result.hpp"

namespace sallyport::nat::host {

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
  /// Errors of the generic category: EBUSY when there is a device of this name. Each of the `queues` has its own
  /// file descriptor; the kernel chooses by flow.
  static Result<TunDevice> open(const std::string& name, Layer layer, unsigned queues = 1);
  TunDevice(TunDevice&& other) noexcept = default;
  TunDevice& operator=(TunDevice&&) = delete;
  ~TunDevice();

  int fd(std::size_t queue = 0) const noexcept { return fds_[queue]; }
  std::size_t queues() const noexcept { return fds_.size(); }
  std::uint32_t index() const noexcept { return index_; }

 private:
  TunDevice() = default;
  std::vector<int> fds_;
  std::uint32_t index_ = 0;
};

}  // namespace sallyport::nat::host
