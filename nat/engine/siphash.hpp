#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace sallyport::nat {

/// SipHash-1-3 (Aumasson and Bernstein) over whole 64-bit words: nobody without the secret can choose
/// collisions (POL-NET-13) or foresee ports (N6056-02).
class SipHash {
 public:
  explicit constexpr SipHash(const std::array<std::uint64_t, 2>& secret) noexcept
      : key0_{secret[0]}, key1_{secret[1]} {}

  constexpr std::uint64_t operator()(std::uint64_t word) const noexcept {
    State state{key0_, key1_};
    state.take(word);
    return state.finish(8);
  }
  template <class... Words>
  constexpr std::uint64_t operator()(std::uint64_t first, std::uint64_t second, Words... more) const noexcept {
    State state{key0_, key1_};
    state.take(first);
    state.take(second);
    (state.take(static_cast<std::uint64_t>(more)), ...);
    return state.finish(8 * (2 + sizeof...(more)));
  }

 private:
  struct State {
    std::uint64_t v0, v1, v2, v3;
    constexpr State(std::uint64_t key0, std::uint64_t key1) noexcept
        : v0{key0 ^ 0x736f6d6570736575},
          v1{key1 ^ 0x646f72616e646f6d},
          v2{key0 ^ 0x6c7967656e657261},
          v3{key1 ^ 0x7465646279746573} {}
    constexpr void round() noexcept {
      v0 += v1;
      v1 = std::rotl(v1, 13) ^ v0;
      v0 = std::rotl(v0, 32);
      v2 += v3;
      v3 = std::rotl(v3, 16) ^ v2;
      v0 += v3;
      v3 = std::rotl(v3, 21) ^ v0;
      v2 += v1;
      v1 = std::rotl(v1, 17) ^ v2;
      v2 = std::rotl(v2, 32);
    }
    constexpr void take(std::uint64_t word) noexcept {
      v3 ^= word;
      round();
      v0 ^= word;
    }
    constexpr std::uint64_t finish(std::uint64_t octets) noexcept {
      take(octets << 56);
      v2 ^= 0xff;
      round();
      round();
      round();
      return v0 ^ v1 ^ v2 ^ v3;
    }
  };
  std::uint64_t key0_, key1_;
};

}  // namespace sallyport::nat
