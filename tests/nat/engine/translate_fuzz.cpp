#include <cstdint>
#include <cstdlib>
#include <vector>

#include "tests/support/fuzz_lan.hpp"

// Octets as a run of packets: side and size before each. Nothing internal may leave by the WAN, and every
// packet that leaves has a right header checksum.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  sallyport::test::FuzzLan lan;
  while (size >= 4) {
    const auto side = static_cast<sallyport::nat::Side>(data[0] % 3);
    lan.advance(data[1]);
    std::size_t octets = std::size_t{data[2]} << 8 | data[3];
    data += 4;
    size -= 4;
    if (octets > size) octets = size;
    lan.pass(side, data, octets);
    data += octets;
    size -= octets;
  }
  return 0;
}
