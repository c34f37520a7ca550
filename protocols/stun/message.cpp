#include "protocols/stun/message.hpp"

#include <algorithm>
#include <string>

#include "protocols/wire/byte_reader.hpp"
#include "protocols/wire/byte_writer.hpp"

namespace sallyport::stun {
namespace {

enum class Type : std::uint16_t { request = 0x0001, success = 0x0101, error = 0x0111 };

/// Below 0x8000 an attribute must be understood (RFC 8489 section 14).
enum Attribute : std::uint16_t {
  mapped_address = 0x0001,
  change_request = 0x0003,
  username = 0x0006,
  message_integrity = 0x0008,
  error_code = 0x0009,
  unknown_attributes = 0x000a,
  realm = 0x0014,
  nonce = 0x0015,
  message_integrity_sha256 = 0x001c,
  xor_mapped_address = 0x0020,
  response_port = 0x0027,
  fingerprint_attribute = 0x8028,
  response_origin = 0x802b,
  other_address = 0x802c,
};
constexpr std::size_t fingerprint_size = 8;
constexpr std::size_t max_unknown = 32;

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wnon-virtual-dtor"  // Boost's, and nobody deletes a category
struct DecodeCategory final : boost::system::error_category {
  const char* name() const noexcept override { return "sallyport.stun.decode"; }
  std::string message(int value) const override {
    switch (static_cast<DecodeErrc>(value)) {
      case DecodeErrc::not_stun:
        return "the message is not STUN";
      case DecodeErrc::truncated:
        return "the message ends too early";
      case DecodeErrc::malformed:
        return "the message has a length or value that STUN does not allow";
      case DecodeErrc::not_a_response:
        return "the message is no response to a Binding request";
      case DecodeErrc::bad_fingerprint:
        return "the message's fingerprint is not that of its octets";
    }
    return "unknown reason";
  }
};
#pragma GCC diagnostic pop

struct SocketAddress {
  Address address;
  Port port;
};

/// Empty: of no known family, of a wrong length, or with port 0, which is no address that somebody sent from.
std::optional<SocketAddress> read_address(std::span<const std::byte> value) {
  wire::ByteReader in{value};
  in.skip(1);
  const auto family = in.u8();
  const auto port = Port::from(in.u16());
  if (!in.ok() || !port) return std::nullopt;
  if (family == 1 && in.rest().size() == 4) return SocketAddress{Address::v4(in.u32()), *port};
  if (family == 2 && in.rest().size() == 16) return SocketAddress{Address{in.bytes<16>()}, *port};
  return std::nullopt;
}

/// XOR-MAPPED-ADDRESS: the port under the cookie's upper half, the address under cookie and id.
std::optional<SocketAddress> read_xored_address(std::span<const std::byte> value,
                                                std::span<const std::byte> cookie_and_id) {
  std::array<std::byte, 20> plain{};
  if (value.size() < 4 || value.size() > plain.size()) return std::nullopt;
  std::ranges::copy(value, plain.begin());
  for (std::size_t i = 2; i < 4; ++i) plain[i] ^= cookie_and_id[i - 2];
  for (std::size_t i = 4; i < value.size(); ++i) plain[i] ^= cookie_and_id[i - 4];
  return read_address(std::span{plain}.first(value.size()));
}

std::optional<unsigned> read_error_code(std::span<const std::byte> value) {
  wire::ByteReader in{value};
  in.skip(2);
  const unsigned hundreds = in.u8() & 7U;
  const unsigned rest = in.u8();
  if (!in.ok() || hundreds < 3 || hundreds > 6 || rest > 99) return std::nullopt;
  return hundreds * 100 + rest;
}

template <class Side>
void set_once(std::optional<Endpoint<Side>>& endpoint, const std::optional<SocketAddress>& read) {
  if (!endpoint && read) endpoint.emplace(Endpoint<Side>{read->address, read->port});
}

constexpr std::array<std::uint32_t, 256> crc_table = [] {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t n = 0; n < 256; ++n) {
    auto value = n;
    for (int bit = 0; bit < 8; ++bit) value = (value & 1) != 0 ? value >> 1 ^ 0xedb88320U : value >> 1;
    table[n] = value;
  }
  return table;
}();

}  // namespace

const boost::system::error_category& decode_category() noexcept {
  static const DecodeCategory category;
  return category;
}

std::uint32_t fingerprint(std::span<const std::byte> before) noexcept {
  std::uint32_t crc = 0xffffffff;
  for (const auto octet : before)
    crc = crc >> 8 ^ crc_table[(crc ^ std::to_integer<std::uint32_t>(octet)) & 0xff];
  return ~crc ^ 0x5354554e;  // so that no protocol which ends in a CRC of its own is taken for STUN
}

std::vector<std::byte> encode(const BindingRequest& request) {
  wire::ByteWriter out{header_size + 24};
  out.u16(static_cast<std::uint16_t>(Type::request)).u16(0).u32(magic_cookie).bytes(request.id);
  if (request.change_address || request.change_port)
    out.u16(change_request).u16(4).u32((request.change_address ? 4U : 0U) | (request.change_port ? 2U : 0U));
  // its length is 2, then padding: STUNTMAN reads no other one, coturn any from 2 on
  if (request.response_port) out.u16(response_port).u16(2).u16(request.response_port->number()).u16(0);
  auto bytes = std::move(out).take();
  wire::put_u16(std::span{bytes}.subspan(2, 2),
                static_cast<std::uint16_t>(bytes.size() - header_size + fingerprint_size));
  const auto crc = fingerprint(bytes);
  wire::ByteWriter tail{fingerprint_size};
  tail.u16(fingerprint_attribute).u16(4).u32(crc);
  const auto end = std::move(tail).take();
  bytes.insert(bytes.end(), end.begin(), end.end());
  return bytes;
}

Result<BindingResponse> decode_response(std::span<const std::byte> datagram) {
  if (datagram.size() > max_response) return DecodeErrc::malformed;
  wire::ByteReader in{datagram};
  const auto type = in.u16();
  const auto length = in.u16();
  if (!in.ok()) return DecodeErrc::truncated;
  if (type >= 0x4000) return DecodeErrc::not_stun;
  const auto cookie = in.u32();
  BindingResponse response;
  response.id = in.bytes<12>();
  if (!in.ok()) return DecodeErrc::truncated;
  if (cookie != magic_cookie) return DecodeErrc::not_stun;
  const bool success = type == static_cast<std::uint16_t>(Type::success);
  if (!success && type != static_cast<std::uint16_t>(Type::error)) return DecodeErrc::not_a_response;
  if (length > in.rest().size()) return DecodeErrc::truncated;
  if (length % 4 != 0 || length != in.rest().size()) return DecodeErrc::malformed;

  const auto cookie_and_id = datagram.subspan(4, 16);
  std::optional<ExternalEndpoint> plain;
  bool signed_already = false;
  while (!in.rest().empty()) {
    const auto at = datagram.size() - in.rest().size();
    const auto attribute = in.u16();
    const auto size = in.u16();
    const auto value = in.take(size);
    in.skip((4 - size % 4) % 4);
    if (!in.ok()) return DecodeErrc::malformed;
    if (attribute == fingerprint_attribute) {
      wire::ByteReader crc{value};
      if (size != 4 || !in.rest().empty() || crc.u32() != fingerprint(datagram.first(at)))
        return DecodeErrc::bad_fingerprint;
      break;
    }
    if (signed_already) continue;
    switch (attribute) {
      case xor_mapped_address:
        set_once(response.mapped, read_xored_address(value, cookie_and_id));
        break;
      case mapped_address:
        set_once(plain, read_address(value));
        break;
      case response_origin:
        set_once(response.origin, read_address(value));
        break;
      case other_address:
        set_once(response.other, read_address(value));
        break;
      case error_code:
        if (response.error_code == 0) {
          const auto code = read_error_code(value);
          if (!code) return DecodeErrc::malformed;
          response.error_code = *code;
        }
        break;
      case unknown_attributes:
        if (response.unknown.empty()) {
          wire::ByteReader types{value.first(value.size() & ~std::size_t{1})};
          while (!types.rest().empty() && response.unknown.size() < max_unknown)
            response.unknown.push_back(types.u16());
        }
        break;
      case message_integrity:
      case message_integrity_sha256:
        signed_already = true;
        break;
      case username:  // of answers to requests with credentials, which ours are not
      case realm:
      case nonce:
        break;
      default:
        if (attribute < 0x8000) response.not_understood = true;
    }
  }
  if (success != (response.error_code == 0)) return DecodeErrc::malformed;
  if (!response.mapped) response.mapped = plain;
  if (success && !response.mapped && !response.not_understood) return DecodeErrc::malformed;
  return response;
}

}  // namespace sallyport::stun
