#include "nat/plane/tun/tun_device.hpp"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace sallyport::nat::tun {
namespace {

boost::system::error_code system_error(int number) { return {number, boost::system::generic_category()}; }

// Linux 6.2; missing in the headers of 6.1
constexpr unsigned offload_uso4 = 0x20;
constexpr unsigned offload_uso6 = 0x40;

}  // namespace

Result<TunDevice> TunDevice::open(const std::string& name, Layer layer) {
  ifreq request{};
  if (name.empty() || name.size() >= sizeof request.ifr_name) return system_error(EINVAL);
  const int fd = ::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return system_error(errno);
  TunDevice device{fd, 0};
  request.ifr_flags = static_cast<short>((layer == Layer::packets ? IFF_TUN : IFF_TAP) | IFF_NO_PI | IFF_VNET_HDR);
  name.copy(request.ifr_name, sizeof request.ifr_name - 1);
  if (ioctl(fd, TUNSETIFF, &request) != 0) return system_error(errno);
  device.index_ = if_nametoindex(request.ifr_name);
  if (device.index_ == 0) return system_error(errno);

  constexpr unsigned tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
  if (ioctl(fd, TUNSETOFFLOAD, tcp | offload_uso4 | offload_uso6) != 0 && ioctl(fd, TUNSETOFFLOAD, tcp) != 0)
    return system_error(errno);
  return device;
}

TunDevice::TunDevice(TunDevice&& other) noexcept : fd_{std::exchange(other.fd_, -1)}, index_{other.index_} {}
TunDevice::~TunDevice() {
  if (fd_ >= 0) close(fd_);
}

}  // namespace sallyport::nat::tun
