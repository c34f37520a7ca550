#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/support/hex.hpp"

namespace sallyport::test {

/// A golden vector: NAME.request.hex and what the server answers, NAME.response.hex (empty file: nothing).
struct Vector {
  std::string name;
  std::vector<std::byte> request;
  std::vector<std::byte> response;
};

inline std::vector<std::byte> read_hex_file(const std::filesystem::path& path) {
  std::ifstream file{path};
  if (!file) throw std::runtime_error{"cannot read " + path.string()};
  return hex(std::string{std::istreambuf_iterator<char>{file}, {}});
}

/// Every vector of a folder, by name.
inline std::vector<Vector> read_vectors(const std::filesystem::path& folder) {
  const std::string ending = ".request.hex";
  std::vector<Vector> vectors;
  for (const auto& entry : std::filesystem::directory_iterator{folder}) {
    const auto name = entry.path().filename().string();
    if (!name.ends_with(ending)) continue;
    const auto stem = name.substr(0, name.size() - ending.size());
    vectors.push_back({stem, read_hex_file(entry.path()), read_hex_file(folder / (stem + ".response.hex"))});
  }
  std::ranges::sort(vectors, {}, &Vector::name);
  return vectors;
}

/// One to four random changes: octets changed, bits flipped, octets inserted, cut out, appended or cut off.
/// Draws from a std::uniform_random_bit_generator of 32 bits.
template <class Random>
void mutate(std::vector<std::byte>& bytes, Random& random) {
  const auto below = [&](std::size_t n) { return n == 0 ? 0 : random() % n; };
  for (auto changes = 1 + below(4); changes > 0; --changes) {
    const auto at = below(bytes.size());
    switch (below(8)) {
      case 0:
      case 1:
        if (!bytes.empty()) bytes[at] = static_cast<std::byte>(random());
        break;
      case 2:
        if (!bytes.empty()) bytes[at] ^= static_cast<std::byte>(1U << below(8));
        break;
      case 3:
        if (!bytes.empty()) bytes[at] = below(2) ? std::byte{0} : std::byte{0xff};
        break;
      case 4:
        bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(at), 1 + below(8),
                     static_cast<std::byte>(random()));
        break;
      case 5:
        bytes.erase(bytes.begin() + static_cast<std::ptrdiff_t>(at),
                    bytes.begin() + static_cast<std::ptrdiff_t>(std::min(bytes.size(), at + 1 + below(8))));
        break;
      case 6:
        bytes.resize(below(bytes.size() + 1));
        break;
      case 7:
        bytes.resize(bytes.size() + 4 * below(8));
        break;
    }
  }
}

}  // namespace sallyport::test
