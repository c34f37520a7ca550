#include "sallyport/values/address.hpp"

#include <arpa/inet.h>

#include <charconv>
#include <cstring>

#include "sallyport/values/endpoint.hpp"

namespace sallyport {

std::optional<Address> Address::parse(std::string_view text) {
  char buffer[INET6_ADDRSTRLEN + 1]{};
  if (text.empty() || text.size() >= sizeof buffer) return std::nullopt;
  if (text.find('\0') != std::string_view::npos) return std::nullopt;
  std::memcpy(buffer, text.data(), text.size());
  in_addr four{};
  if (inet_pton(AF_INET, buffer, &four) == 1) return v4(ntohl(four.s_addr));
  Bytes six{};
  if (inet_pton(AF_INET6, buffer, six.data()) == 1) return Address{six};
  return std::nullopt;
}

std::string Address::to_string() const {
  char buffer[INET6_ADDRSTRLEN]{};
  if (is_v4()) {
    inet_ntop(AF_INET, bytes_.data() + 12, buffer, sizeof buffer);
  } else {
    inet_ntop(AF_INET6, bytes_.data(), buffer, sizeof buffer);
  }
  return buffer;
}

std::optional<Prefix> Prefix::parse(std::string_view text) {
  const auto slash = text.find('/');
  const auto address = Address::parse(text.substr(0, slash));
  if (!address) return std::nullopt;
  if (slash == std::string_view::npos) return Prefix{*address, 128};
  const auto digits = text.substr(slash + 1);
  unsigned bits = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), bits);
  if (digits.empty() || error != std::errc{} || end != digits.data() + digits.size()) return std::nullopt;
  if (bits > (address->is_v4() ? 32U : 128U)) return std::nullopt;
  return Prefix{*address, static_cast<std::uint8_t>(address->is_v4() ? 96 + bits : bits)};
}

bool Prefix::contains(const Address& other) const noexcept {
  const auto& mine = address.bytes();
  const auto& theirs = other.bytes();
  const std::size_t whole = length / 8;
  if (std::memcmp(mine.data(), theirs.data(), whole) != 0) return false;
  if (whole == 16 || length % 8 == 0) return true;
  const auto mask = static_cast<std::byte>(0xff00U >> (length % 8));
  return (mine[whole] & mask) == (theirs[whole] & mask);
}

std::string Prefix::to_string() const {
  const bool four = address.is_v4() && length >= 96;
  return address.to_string() + "/" + std::to_string(four ? length - 96 : length);
}

std::string to_string(const Address& address, Port port) {
  const auto number = std::to_string(port.number());
  return address.is_v4() ? address.to_string() + ":" + number : "[" + address.to_string() + "]:" + number;
}

}  // namespace sallyport

std::size_t std::hash<sallyport::Address>::operator()(const sallyport::Address& address) const noexcept {
  std::uint64_t high = 0;
  std::uint64_t low = 0;
  std::memcpy(&high, address.bytes().data(), 8);
  std::memcpy(&low, address.bytes().data() + 8, 8);
  std::uint64_t mixed = (high * 0x9e3779b97f4a7c15ULL) ^ low;
  mixed ^= mixed >> 32;
  return mixed * 0xd6e8feb86659fd93ULL;
}
