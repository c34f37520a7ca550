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

/// fe80::/10.
inline bool is_link_local(const Address& address) noexcept {
  return address.bytes()[0] == std::byte{0xfe} && (address.bytes()[1] & std::byte{0xc0}) == std::byte{0x80};
}

}  // namespace sallyport::transport
