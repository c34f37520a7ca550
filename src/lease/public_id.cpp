#include "src/lease/public_id.hpp"

namespace sallyport::lease {
namespace {

constexpr std::string_view alphabet = "abcdefghijklmnopqrstuvwxyz23456789";
constexpr std::uint64_t base = alphabet.size();
constexpr std::size_t shortest = 4, longest = 12;
__extension__ using Wide = __int128;  // GCC and clang have it on every 64-bit target

constexpr std::uint64_t power(std::size_t exponent) {
  std::uint64_t value = 1;
  while (exponent-- > 0) value *= base;
  return value;
}

/// A factor without a common divisor with 34, near the golden section of the range.
constexpr std::uint64_t factor(std::uint64_t range) {
  std::uint64_t value = static_cast<std::uint64_t>(static_cast<Wide>(range) * 618034 / 1000000) | 1;
  while (value % 17 == 0) value += 2;
  return value;
}

constexpr std::uint64_t inverse(std::uint64_t value, std::uint64_t range) {
  Wide r0 = range, r1 = value, t0 = 0, t1 = 1;
  while (r1 != 0) {
    const Wide q = r0 / r1;
    const Wide r = r0 - q * r1, t = t0 - q * t1;
    r0 = r1, r1 = r, t0 = t1, t1 = t;
  }
  return static_cast<std::uint64_t>(t0 < 0 ? t0 + static_cast<Wide>(range) : t0);
}

}  // namespace

std::string public_id(std::uint64_t number) {
  std::size_t length = shortest;
  while (length < longest && number >= power(length)) number -= power(length++);
  const std::uint64_t range = power(length);
  std::uint64_t mixed = static_cast<std::uint64_t>(static_cast<Wide>(number) * factor(range) % range);
  std::string id(length, 'a');
  for (std::size_t i = length; i-- > 0; mixed /= base) id[i] = alphabet[mixed % base];
  return id;
}

std::optional<std::uint64_t> number_of(std::string_view id) {
  if (id.size() < shortest || id.size() > longest) return std::nullopt;
  std::uint64_t mixed = 0;
  for (const char c : id) {
    const auto digit = alphabet.find(c);
    if (digit == alphabet.npos) return std::nullopt;
    mixed = mixed * base + digit;
  }
  const std::uint64_t range = power(id.size());
  std::uint64_t number =
      static_cast<std::uint64_t>(static_cast<Wide>(mixed) * inverse(factor(range), range) % range);
  for (std::size_t length = shortest; length < id.size(); ++length) number += power(length);
  return number;
}

}  // namespace sallyport::lease
