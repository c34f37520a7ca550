#include "protocols/natpmp/codec.hpp"

#include <algorithm>
#include <string>

#include "protocols/wire/byte_reader.hpp"
#include "protocols/wire/byte_writer.hpp"

namespace sallyport::natpmp {
namespace {

using Bytes = std::vector<std::byte>;

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wnon-virtual-dtor"  // Boost's, and nobody deletes a category
struct DecodeCategory final : boost::system::error_category {
  const char* name() const noexcept override { return "sallyport.natpmp.decode"; }
  std::string message(int value) const override {
    switch (static_cast<DecodeErrc>(value)) {
      case DecodeErrc::truncated:
        return "the message ends too early";
      case DecodeErrc::other_version:
        return "the message is of another protocol version";
      case DecodeErrc::other_opcode:
        return "the opcode is unknown";
      case DecodeErrc::not_a_request:
        return "the message is a response";
      case DecodeErrc::not_a_response:
        return "the message is a request";
    }
    return "unknown reason";
  }
};
#pragma GCC diagnostic pop

std::uint8_t map_opcode(Transport transport) {
  return static_cast<std::uint8_t>(transport == Transport::tcp ? Opcode::map_tcp : Opcode::map_udp);
}

std::optional<Transport> mapped_transport(std::uint8_t opcode) {
  if (opcode == map_opcode(Transport::udp)) return Transport::udp;
  if (opcode == map_opcode(Transport::tcp)) return Transport::tcp;
  return std::nullopt;
}

}  // namespace

const boost::system::error_category& decode_category() noexcept {
  static const DecodeCategory category;
  return category;
}

Result<Request> decode_request(std::span<const std::byte> datagram) {
  wire::ByteReader in{datagram};
  const auto version_octet = in.u8();
  const auto opcode = in.u8();
  if (!in.ok()) return DecodeErrc::truncated;
  if (opcode >= 0x80) return DecodeErrc::not_a_request;
  if (version_octet != version) return DecodeErrc::other_version;
  if (opcode == static_cast<std::uint8_t>(Opcode::external_address)) return Request{AddressRequest{}};
  const auto transport = mapped_transport(opcode);
  if (!transport) return DecodeErrc::other_opcode;
  MapRequest map;
  map.transport = *transport;
  in.skip(2);  // reserved
  map.internal_port = in.u16();
  map.suggested_external_port = in.u16();
  map.lifetime_s = in.u32();
  if (!in.ok()) return DecodeErrc::truncated;
  return Request{map};
}

Result<Response> decode_response(std::span<const std::byte> datagram) {
  wire::ByteReader in{datagram};
  const auto version_octet = in.u8();
  const auto opcode = in.u8();
  const auto result = static_cast<ResultCode>(in.u16());
  if (!in.ok()) return DecodeErrc::truncated;
  if (version_octet != version) return DecodeErrc::other_version;
  // The version error has opcode 0, without the top bit (section 3.5).
  if (result == ResultCode::unsupported_version || result == ResultCode::unsupported_opcode)
    return Response{ErrorResponse{result}};
  if (opcode < 0x80) return DecodeErrc::not_a_response;
  const auto epoch_s = in.u32();
  if (opcode == 0x80) {
    AddressResponse response{result, epoch_s, Address::v4(in.u32())};
    if (!in.ok()) return DecodeErrc::truncated;
    return Response{response};
  }
  const auto transport = mapped_transport(opcode & 0x7f);
  if (!transport) return DecodeErrc::other_opcode;
  MapResponse response{.transport = *transport, .result = result, .epoch_s = epoch_s};
  response.internal_port = in.u16();
  response.external_port = in.u16();
  response.lifetime_s = in.u32();
  if (!in.ok()) return DecodeErrc::truncated;
  return Response{response};
}

Bytes encode(const AddressRequest&) {
  wire::ByteWriter out{address_request_size};
  out.u8(version).u8(static_cast<std::uint8_t>(Opcode::external_address));
  return std::move(out).take();
}

Bytes encode(const MapRequest& request) {
  wire::ByteWriter out{map_request_size};
  out.u8(version).u8(map_opcode(request.transport)).u16(0);
  out.u16(request.internal_port).u16(request.suggested_external_port).u32(request.lifetime_s);
  return std::move(out).take();
}

Bytes encode(const AddressResponse& response) {
  wire::ByteWriter out{address_response_size};
  out.u8(version).u8(0x80).u16(static_cast<std::uint16_t>(response.result)).u32(response.epoch_s);
  out.u32(response.result == ResultCode::success ? response.external.v4_number() : 0);
  return std::move(out).take();
}

Bytes encode(const MapResponse& response) {
  wire::ByteWriter out{map_response_size};
  out.u8(version).u8(map_opcode(response.transport) | 0x80).u16(static_cast<std::uint16_t>(response.result));
  out.u32(response.epoch_s).u16(response.internal_port).u16(response.external_port).u32(response.lifetime_s);
  return std::move(out).take();
}

Bytes encode_unsupported_version(std::uint32_t epoch_s) {
  wire::ByteWriter out{8};
  out.u8(version).u8(0).u16(static_cast<std::uint16_t>(ResultCode::unsupported_version)).u32(epoch_s);
  return std::move(out).take();
}

Bytes encode_unsupported_opcode(std::span<const std::byte> request, std::uint32_t epoch_s) {
  Bytes out(request.begin(), request.end());
  if (out.size() < 4) {
    out.resize(8);
    wire::put_u32(std::span{out}.subspan(4, 4), epoch_s);
  }
  out[1] |= response_bit;
  wire::put_u16(std::span{out}.subspan(2, 2), static_cast<std::uint16_t>(ResultCode::unsupported_opcode));
  return out;
}

}  // namespace sallyport::natpmp
