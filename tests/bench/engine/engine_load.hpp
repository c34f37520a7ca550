// What the programs that load the engine in memory share.
#pragma once

#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <string>

#include "nat/engine/engine.hpp"
#include "nat/packet/checksum.hpp"

namespace sallyport::bench {

using namespace sallyport::nat;

inline constexpr std::uint32_t external = 0xcb007102;
inline constexpr std::size_t batch = 32;
inline constexpr std::size_t octets = 60;

struct NoPorts final : OwnPorts {
  bool in_use(Transport, std::uint16_t) const override { return false; }
};
struct NoSink final : PacketSink {
  void emit(std::span<const std::byte>, Action) override {}
};

/// A pseudo-random sequence that costs next to nothing and can be run again.
struct Random {
  std::uint64_t state;
  std::uint64_t operator()() {
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
  }
};

inline std::size_t resident() {
  std::ifstream file{"/proc/self/statm"};
  std::size_t all = 0, pages = 0;
  file >> all >> pages;
  return pages * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
}

inline double seconds_now() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);  // not what others take of the core
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

inline void write_packet(std::uint8_t* at, std::uint32_t source, std::uint16_t sport, std::uint32_t destination,
                  std::uint16_t dport) {
  using namespace packet;
  std::memset(at, 0, octets);
  at[0] = 0x45;
  store16(at + 2, octets);
  at[6] = 0x40;
  at[8] = 64;
  at[9] = 17;
  store32(at + 12, source);
  store32(at + 16, destination);
  store16(at + 10, checksum_of(at, 20));
  store16(at + 20, sport);
  store16(at + 22, dport);
  store16(at + 24, octets - 20);
  store16(at + 26, 0x1234);
}

inline std::string machine() {
  std::ifstream file{"/proc/cpuinfo"};
  std::string line, model = "unknown CPU";
  while (std::getline(file, line))
    if (line.rfind("model name", 0) == 0) {
      model = line.substr(line.find(':') + 2);
      break;
    }
  utsname name{};
  uname(&name);
  return model + ", " + std::to_string(sysconf(_SC_NPROCESSORS_ONLN)) + " cores, Linux " + name.release;
}

/// 10.0.0.0/16 behind 10.0.0.1 and 203.0.113.2.
inline NetworkView network() {
  NetworkView view;
  PlaneInterface lan{.name = "lan", .index = 2, .mtu = 1500, .up = true, .addresses = {}, .prefixes = {}};
  lan.addresses = {Address::v4(0x0a000001)};
  lan.prefixes = {Prefix::v4(0x0a000000, 16)};
  view.lan = {lan};
  view.external = {Address::v4(external)};
  return view;
}

}  // namespace sallyport::bench
