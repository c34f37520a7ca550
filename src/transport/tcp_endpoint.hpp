#pragma once

#include <cstdint>
#include <cstring>

#include <boost/asio/ip/tcp.hpp>

#include "sallyport/values/address.hpp"

namespace sallyport::transport {

/// Link-local addresses mean something on one interface only.
inline boost::asio::ip::tcp::endpoint to_endpoint(const Address& address, std::uint16_t port,
                                                  std::uint32_t interface) {
  namespace ip = boost::asio::ip;
  if (address.is_v4()) return {ip::address_v4{address.v4_number()}, port};
  ip::address_v6::bytes_type bytes;
  std::memcpy(bytes.data(), address.bytes().data(), bytes.size());
  ip::address_v6 six{bytes};
  if (six.is_link_local()) six.scope_id(interface);
  return {six, port};
}

}  // namespace sallyport::transport
