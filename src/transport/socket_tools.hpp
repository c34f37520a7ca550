#pragma once

#include <arpa/inet.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <span>
#include <string>
#include <utility>

#include <boost/system/error_code.hpp>

#include "sallyport/values/address.hpp"

/// What the services of this room share where Asio does not reach: descriptors, options, filters, addresses.
namespace sallyport::transport {

/// A socket's file descriptor.
class Descriptor {
 public:
  explicit Descriptor(int number = -1) noexcept : number_{number} {}
  Descriptor(Descriptor&& other) noexcept : number_{std::exchange(other.number_, -1)} {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    if (this != &other) {
      reset();
      number_ = std::exchange(other.number_, -1);
    }
    return *this;
  }
  ~Descriptor() { reset(); }
  int get() const noexcept { return number_; }
  int release() noexcept { return std::exchange(number_, -1); }
  void reset() noexcept {
    if (number_ >= 0) ::close(std::exchange(number_, -1));
  }

 private:
  int number_;
};

template <class Value>
bool set(int socket, int level, int option, const Value& value) {
  return ::setsockopt(socket, level, option, &value, sizeof value) == 0;
}

inline std::string system_text(int number) { return boost::system::system_category().message(number); }

inline bool attach(int socket, std::span<sock_filter> program) {
  sock_fprog filter{static_cast<unsigned short>(program.size()), program.data()};
  return set(socket, SOL_SOCKET, SO_ATTACH_FILTER, filter);
}

inline Address address_of(const in_addr& address) { return Address::v4(ntohl(address.s_addr)); }
inline Address address_of(const in6_addr& address) {
  Address::Bytes bytes;
  std::memcpy(bytes.data(), &address, sizeof address);
  return Address{bytes};
}

inline in6_addr in6_of(const Address& address) {
  in6_addr result{};
  std::memcpy(&result, address.bytes().data(), sizeof result);
  return result;
}

union SocketAddress {
  sockaddr any;
  sockaddr_in v4;
  sockaddr_in6 v6;
};

/// fe80::/10.
inline bool is_link_local(const Address& address) noexcept {
  return address.bytes()[0] == std::byte{0xfe} && (address.bytes()[1] & std::byte{0xc0}) == std::byte{0x80};
}

/// The address as the kernel wants it, and how long that is. `interface` counts where addresses are of one link.
inline std::pair<SocketAddress, socklen_t> to_sockaddr(const Address& address, std::uint16_t port,
                                                       std::uint32_t interface) {
  SocketAddress to{};
  if (address.is_v4()) {
    to.v4.sin_family = AF_INET;
    to.v4.sin_port = htons(port);
    to.v4.sin_addr.s_addr = htonl(address.v4_number());
    return {to, sizeof to.v4};
  }
  to.v6.sin6_family = AF_INET6;
  to.v6.sin6_port = htons(port);
  to.v6.sin6_addr = in6_of(address);
  const bool of_link = is_link_local(address) || address.bytes()[0] == std::byte{0xff};
  to.v6.sin6_scope_id = of_link ? interface : 0;
  return {to, sizeof to.v6};
}
inline std::pair<Address, std::uint16_t> from_sockaddr(const SocketAddress& from) {
  if (from.any.sa_family == AF_INET) return {address_of(from.v4.sin_addr), ntohs(from.v4.sin_port)};
  return {address_of(from.v6.sin6_addr), ntohs(from.v6.sin6_port)};
}

}  // namespace sallyport::transport
