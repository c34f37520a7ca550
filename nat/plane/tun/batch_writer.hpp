#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

struct io_uring_cqe;
struct io_uring_sqe;

namespace sallyport::nat::tun {

/// Writes packets to a TUN queue, many with one system call where there is io_uring. Each write() carries a
/// packet through the stack to its receiver, who would take the processor at the end of the call; at the end
/// of a batch he finds all of it. Not for several threads.
class BatchWriter {
 public:
  /// `fd` is nonblocking. Without io_uring (an old kernel, kernel.io_uring_disabled, a seccomp filter)
  /// packets are written one by one.
  explicit BatchWriter(int fd);
  ~BatchWriter();
  BatchWriter(const BatchWriter&) = delete;
  BatchWriter& operator=(const BatchWriter&) = delete;

  /// The packet stays where it is until flush() has returned. What the stack will not have (its memory, its
  /// link down) is lost as on any wire.
  void add(const void* packet, std::size_t size);
  void flush();
  bool has_ring() const noexcept { return ring_ >= 0; }

 private:
  struct Write {
    const void* packet;
    std::size_t size;
  };
  struct Mapping {
    void* at = nullptr;
    std::size_t size = 0;
  };
  static constexpr std::uint32_t most = 64;

  bool open_ring();
  void close_ring();
  /// How many of the waiting writes the kernel has done.
  std::uint32_t submit();

  int fd_;
  std::array<Write, most> waiting_{};
  std::uint32_t count_ = 0;

  int ring_ = -1;
  std::array<Mapping, 3> mappings_{};
  std::uint32_t* submission_tail_ = nullptr;
  std::uint32_t submission_mask_ = 0;
  io_uring_sqe* entries_ = nullptr;
  const io_uring_cqe* completions_ = nullptr;
  std::uint32_t completion_mask_ = 0;
  std::uint32_t* completion_head_ = nullptr;
  std::uint32_t* completion_tail_ = nullptr;
};

}  // namespace sallyport::nat::tun
