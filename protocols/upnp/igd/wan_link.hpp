#pragma once

#include <cstdint>

/// The WAN interface as WANCommonInterfaceConfig tells of it.
namespace sallyport::upnp::igd {

struct WanLink {
  bool exists = false;
  bool up = false;              ///< has a link
  std::uint64_t bits_per_second = 0;  ///< both ways; 0: not known
  std::uint64_t bytes_sent = 0, bytes_received = 0;  ///< sent is towards the internet
  std::uint64_t packets_sent = 0, packets_received = 0;
};

}  // namespace sallyport::upnp::igd
