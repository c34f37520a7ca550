#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace sallyport::lease {

using Index = std::uint32_t;
constexpr Index nothing = ~Index{0};

/// A list in the order its elements came, from which any may go: what lies behind moves up. The element at an
/// index, and the index-wise next one of an element that may be gone, are found in logarithmic time.
class EntryOrder {
 public:
  /// Positions are given once and in ascending order; below this none is given.
  static constexpr std::uint64_t first_position = std::uint64_t{1} << 32;

  /// Appends; gives the position that names the element from now on.
  std::uint64_t append(Index value);
  void replace(std::uint64_t position, Index value);
  void remove(std::uint64_t position);

  std::size_t size() const noexcept { return size_; }
  /// The index-th element; `nothing` when there are not so many.
  Index at(std::size_t index) const noexcept;
  /// The first element behind this position; `nothing` at the end.
  Index after(std::uint64_t position) const noexcept;

 private:
  struct Place {
    std::uint64_t position;
    Index value;  ///< nothing: gone
  };
  std::size_t slot_of(std::uint64_t position) const noexcept;
  std::size_t first_behind(std::uint64_t position) const noexcept;
  std::size_t count_before(std::size_t slot) const noexcept;
  std::size_t nth(std::size_t index) const noexcept;
  void rebuild();

  std::vector<Place> places_;            ///< ascending by position
  std::vector<std::uint32_t> sums_;      ///< a Fenwick tree over what is not gone; sums_[i] covers slot i too
  std::size_t size_ = 0;
  std::uint64_t next_ = first_position;
};

}  // namespace sallyport::lease
