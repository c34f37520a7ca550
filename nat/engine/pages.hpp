#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <new>
#include <span>
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
  /// Memory of somebody else's, who keeps it: never grown, never given back.
  static Pages view(std::span<T> others) noexcept {
    Pages pages;
    pages.data_ = others.data();
    pages.count_ = others.size();
    pages.owned_ = false;
    return pages;
  }
  Pages(Pages&& other) noexcept
      : data_{std::exchange(other.data_, nullptr)},
        count_{std::exchange(other.count_, 0)},
        owned_{std::exchange(other.owned_, true)} {}
  Pages& operator=(Pages&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
    std::swap(owned_, other.owned_);
    return *this;
  }
  ~Pages() {
    if (data_ && owned_) munmap(data_, octets());
  }

  T* data() noexcept { return data_; }
  const T* data() const noexcept { return data_; }
  T& operator[](std::size_t index) noexcept { return data_[index]; }
  const T& operator[](std::size_t index) const noexcept { return data_[index]; }
  std::size_t size() const noexcept { return count_; }

  /// Invalidates references. False, and nothing changed, when the kernel has no memory.
  bool grow(std::size_t count) noexcept {
    if (!owned_) return false;
    const std::size_t wanted = count * sizeof(T);
    void* at = MAP_FAILED;
    if (wanted < large) {
      at = data_ ? mremap(data_, octets(), wanted, MREMAP_MAYMOVE)
                 : map(nullptr, wanted, PROT_READ | PROT_WRITE, 0);
    } else if (void* place = aligned_place(wanted); place != MAP_FAILED) {
      // Random access to a large table costs mostly what finding its pages costs: ask for huge ones.
      at = data_ ? mremap(data_, octets(), wanted, MREMAP_MAYMOVE | MREMAP_FIXED, place)
                 : map(place, wanted, PROT_READ | PROT_WRITE, MAP_FIXED);
      if (at == MAP_FAILED)
        munmap(place, wanted);
      else
        madvise(at, wanted, MADV_HUGEPAGE);
    }
    if (at == MAP_FAILED) return false;
    data_ = static_cast<T*>(at);
    count_ = count;
    return true;
  }
  /// Gives the memory back; everything reads zero again.
  void clear() noexcept {
    if (data_ && owned_) madvise(data_, octets(), MADV_DONTNEED);
  }

 private:
  static constexpr std::size_t huge_page = 2 << 20, large = 16 * huge_page;

  static void* map(void* at, std::size_t size, int protection, int flags) noexcept {
    return mmap(at, size, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);
  }
  /// Address space that starts where a huge page may, as yet without access.
  static void* aligned_place(std::size_t size) noexcept {
    void* at = map(nullptr, size + huge_page, PROT_NONE, 0);
    if (at == MAP_FAILED) return at;
    auto* start = static_cast<char*>(at);
    const std::size_t skip = -reinterpret_cast<std::uintptr_t>(start) % huge_page;
    if (skip) munmap(start, skip);
    munmap(start + skip + size, huge_page - skip);
    return start + skip;
  }

  std::size_t octets() const noexcept { return count_ * sizeof(T); }
  T* data_ = nullptr;
  std::size_t count_ = 0;
  bool owned_ = true;
};

}  // namespace sallyport::nat
