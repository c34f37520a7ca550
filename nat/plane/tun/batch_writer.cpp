#include "nat/plane/tun/batch_writer.hpp"

#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

namespace sallyport::nat::tun {
namespace {

void write_one(int fd, const void* packet, std::size_t size) {
  while (write(fd, packet, size) < 0 && errno == EINTR) {
  }
}

}  // namespace

BatchWriter::BatchWriter(int fd) : fd_{fd} {
  if (!open_ring()) close_ring();
}
BatchWriter::~BatchWriter() { close_ring(); }

bool BatchWriter::open_ring() {
  io_uring_params params{};
  ring_ = static_cast<int>(syscall(__NR_io_uring_setup, most, &params));
  if (ring_ < 0) return false;
  const auto map = [&](Mapping& mapping, std::size_t size, std::uint64_t offset) {
    void* at = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring_,
                    static_cast<off_t>(offset));
    if (at == MAP_FAILED) return false;
    mapping = {at, size};
    return true;
  };
  auto& [submissions, completions, entries] = mappings_;
  if (!map(submissions, params.sq_off.array + params.sq_entries * sizeof(std::uint32_t),
           IORING_OFF_SQ_RING) ||
      !map(completions, params.cq_off.cqes + params.cq_entries * sizeof(io_uring_cqe), IORING_OFF_CQ_RING) ||
      !map(entries, params.sq_entries * sizeof(io_uring_sqe), IORING_OFF_SQES))
    return false;
  const auto word = [](const Mapping& mapping, std::uint32_t offset) {
    return reinterpret_cast<std::uint32_t*>(static_cast<std::byte*>(mapping.at) + offset);
  };
  for (std::uint32_t i = 0; i < params.sq_entries; ++i) word(submissions, params.sq_off.array)[i] = i;
  submission_tail_ = word(submissions, params.sq_off.tail);
  submission_mask_ = *word(submissions, params.sq_off.ring_mask);
  entries_ = static_cast<io_uring_sqe*>(entries.at);
  completions_ = reinterpret_cast<const io_uring_cqe*>(word(completions, params.cq_off.cqes));
  completion_mask_ = *word(completions, params.cq_off.ring_mask);
  completion_head_ = word(completions, params.cq_off.head);
  completion_tail_ = word(completions, params.cq_off.tail);
  return true;
}

void BatchWriter::close_ring() {
  for (Mapping& mapping : mappings_) {
    if (mapping.at) munmap(mapping.at, mapping.size);
    mapping = {};
  }
  if (ring_ >= 0) close(ring_);
  ring_ = -1;
}

void BatchWriter::add(const void* packet, std::size_t size) {
  if (!has_ring()) return write_one(fd_, packet, size);
  if (count_ == most) flush();
  waiting_[count_++] = {packet, size};
}

void BatchWriter::flush() {
  std::uint32_t done = 0;
  if (count_ > 1) {
    done = submit();
    if (done != count_) close_ring();  // not what it was taken for: from now on one by one
  }
  for (; done < count_; ++done) write_one(fd_, waiting_[done].packet, waiting_[done].size);
  count_ = 0;
}

std::uint32_t BatchWriter::submit() {
  std::uint32_t tail = *submission_tail_;
  for (std::uint32_t i = 0; i < count_; ++i, ++tail) {
    io_uring_sqe& entry = entries_[tail & submission_mask_];
    entry = {};
    entry.opcode = IORING_OP_WRITE;
    entry.fd = fd_;
    entry.off = ~std::uint64_t{0};  // no file position
    entry.rw_flags = RWF_NOWAIT;    // a ring waits for what is nonblocking, too
    entry.addr = reinterpret_cast<std::uintptr_t>(waiting_[i].packet);
    entry.len = static_cast<std::uint32_t>(waiting_[i].size);
  }
  std::atomic_ref{*submission_tail_}.store(tail, std::memory_order_release);
  std::uint32_t taken = 0;
  while (taken < count_) {
    // In their order, each done before the next begins, as the device never makes a writer wait.
    const long result = syscall(__NR_io_uring_enter, ring_, count_ - taken, count_ - taken,
                                IORING_ENTER_GETEVENTS, nullptr, 0);
    if (result < 0 && errno == EINTR) continue;
    if (result <= 0) break;
    taken += static_cast<std::uint32_t>(result);
  }
  std::uint32_t head = *completion_head_;
  const std::uint32_t completed = std::atomic_ref{*completion_tail_}.load(std::memory_order_acquire);
  for (; head != completed; ++head)
    if (completions_[head & completion_mask_].res == -EOPNOTSUPP)
      taken = 0;  // the same for all: none is done
  std::atomic_ref{*completion_head_}.store(head, std::memory_order_release);
  return taken;
}

}  // namespace sallyport::nat::tun
