#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <new>
#include <utility>

namespace sallyport::nat {

/// Zeroed memory straight from the kernel: pages nobody touched cost nothing, and growing moves page tables
/// instead of octets. For types without constructors.
template <class T>
class Pages {
 public:
  Pages() = default;
  explicit Pages(std::size_t count) : count_{count} {
    if (count == 0) return;
    void* at =
        mmap(nullptr, octets(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) throw std::bad_alloc{};
    data_ = static_cast<T*>(at);
  }
  Pages(Pages&& other) noexcept
      : data_{std::exchange(other.data_, nullptr)}, count_{std::exchange(other.count_, 0)} {}
  Pages& operator=(Pages&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
    return *this;
  }
  ~Pages() {
    if (data_) munmap(data_, octets());
  }

  T* data() noexcept { return data_; }
  const T* data() const noexcept { return data_; }
  T& operator[](std::size_t index) noexcept { return data_[index]; }
  const T& operator[](std::size_t index) const noexcept { return data_[index]; }
  std::size_t size() const noexcept { return count_; }

  /// Invalidates references. False, and nothing changed, when the kernel has no memory.
  bool grow(std::size_t count) noexcept {
    void* at = data_ ? mremap(data_, octets(), count * sizeof(T), MREMAP_MAYMOVE)
                     : mmap(nullptr, count * sizeof(T), PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) return false;
    data_ = static_cast<T*>(at);
    count_ = count;
    return true;
  }
  /// Gives the memory back; everything reads zero again.
  void clear() noexcept {
    if (data_) madvise(data_, octets(), MADV_DONTNEED);
  }

 private:
  std::size_t octets() const noexcept { return count_ * sizeof(T); }
  T* data_ = nullptr;
  std::size_t count_ = 0;
};

}  // namespace sallyport::nat
