#include "nat/plane/host/tun_device.hpp"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>

namespace sallyport::nat::host {
namespace {

boost::system::error_code system_error(int number) { return {number, boost::system::generic_category()}; }

// Linux 6.2; missing in the headers of 6.1
constexpr unsigned offload_uso4 = 0x20;
constexpr unsigned offload_uso6 = 0x40;

}  // namespace

Result<TunDevice> TunDevice::open(const std::string& name, Layer layer, unsigned queues) {
  ifreq request{};
  if (name.empty() || name.size() >= sizeof request.ifr_name) return system_error(EINVAL);
  TunDevice device;
  for (unsigned queue = 0; queue < queues; ++queue) {
    const int fd = ::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return system_error(errno);
    device.fds_.push_back(fd);
    int flags = (layer == Layer::packets ? IFF_TUN : IFF_TAP) | IFF_NO_PI | IFF_VNET_HDR;
    if (queues > 1) flags |= IFF_MULTI_QUEUE;
    if (queue == 0) flags |= IFF_TUN_EXCL;  // or it would be one more queue of another process' device
    request.ifr_flags = static_cast<short>(flags);
    name.copy(request.ifr_name, sizeof request.ifr_name - 1);
    if (ioctl(fd, TUNSETIFF, &request) != 0) return system_error(errno);
  }
  device.index_ = if_nametoindex(request.ifr_name);
  if (device.index_ == 0) return system_error(errno);

  constexpr unsigned tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
  if (ioctl(device.fd(), TUNSETOFFLOAD, tcp | offload_uso4 | offload_uso6) != 0 &&
      ioctl(device.fd(), TUNSETOFFLOAD, tcp) != 0)
    return system_error(errno);
  return device;
}

TunDevice::~TunDevice() {
  for (const int fd : fds_) close(fd);
}

}  // namespace sallyport::nat::host
