#pragma once

#include <boost/system/error_code.hpp>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <variant>
#include <vector>

#include "protocols/natpmp/result_code.hpp"
#include "sallyport/values/address.hpp"
#include "sallyport/values/result.hpp"
#include "sallyport/values/transport.hpp"

/// The bytes of the NAT Port Mapping Protocol, version 0: RFC 6886. Used by server and client alike. Pure
/// functions.
namespace sallyport::natpmp {

inline constexpr std::uint8_t version = 0;
inline constexpr std::uint16_t server_port = 5351;
inline constexpr std::uint16_t client_port = 5350;  ///< where clients listen for announcements
inline constexpr std::size_t max_request = 1100;  ///< longer datagrams are dropped (the limit that PCP sets)
inline constexpr std::size_t address_request_size = 2;
inline constexpr std::size_t address_response_size = 12;
inline constexpr std::size_t map_request_size = 12;
inline constexpr std::size_t map_response_size = 16;
inline constexpr std::byte response_bit{0x80};

enum class Opcode : std::uint8_t { external_address = 0, map_udp = 1, map_tcp = 2 };

enum class DecodeErrc {
  truncated = 1,   ///< ends before its layout does
  other_version,   ///< the first octet is not 0
  other_opcode,    ///< none of Opcode
  not_a_request,   ///< the opcode is 128 or above
  not_a_response,  ///< the opcode is below 128
};
const boost::system::error_category& decode_category() noexcept;
inline boost::system::error_code make_error_code(DecodeErrc error) noexcept {
  return {static_cast<int>(error), decode_category()};
}

struct AddressRequest {
  friend bool operator==(const AddressRequest&, const AddressRequest&) = default;
};
/// Ports are plain numbers: 0 has a meaning in each of the three fields (section 3.3, 3.4).
struct MapRequest {
  Transport transport = Transport::udp;
  std::uint16_t internal_port = 0;
  std::uint16_t suggested_external_port = 0;
  std::uint32_t lifetime_s = 0;
  friend bool operator==(const MapRequest&, const MapRequest&) = default;
};
using Request = std::variant<AddressRequest, MapRequest>;

struct AddressResponse {
  ResultCode result = ResultCode::success;
  std::uint32_t epoch_s = 0;
  Address external;  ///< IPv4; 0.0.0.0 with a result other than success
  friend bool operator==(const AddressResponse&, const AddressResponse&) = default;
};
struct MapResponse {
  Transport transport = Transport::udp;
  ResultCode result = ResultCode::success;
  std::uint32_t epoch_s = 0;
  std::uint16_t internal_port = 0;
  std::uint16_t external_port = 0;
  std::uint32_t lifetime_s = 0;
  friend bool operator==(const MapResponse&, const MapResponse&) = default;
};
/// Any answer that is neither: an unsupported version or opcode.
struct ErrorResponse {
  ResultCode result = ResultCode::success;
  friend bool operator==(const ErrorResponse&, const ErrorResponse&) = default;
};
using Response = std::variant<AddressResponse, MapResponse, ErrorResponse>;

/// Octets after the layout are ignored. Errors in this order: truncated (0 or 1 octets), not_a_request,
/// other_version, other_opcode, truncated.
Result<Request> decode_request(std::span<const std::byte> datagram);
/// Errors: truncated, other_version, not_a_response, other_opcode.
Result<Response> decode_response(std::span<const std::byte> datagram);

std::vector<std::byte> encode(const AddressRequest& request);
std::vector<std::byte> encode(const MapRequest& request);
std::vector<std::byte> encode(const AddressResponse& response);
std::vector<std::byte> encode(const MapResponse& response);
/// 8 octets: version 0, opcode 0, result 1, epoch (section 3.5).
std::vector<std::byte> encode_unsupported_version(std::uint32_t epoch_s);
/// The request with its top opcode bit set and result 5 in octets 2-3; one shorter than 4 octets is made 8
/// long so that result and epoch fit. `request` has at least 2 octets.
std::vector<std::byte> encode_unsupported_opcode(std::span<const std::byte> request, std::uint32_t epoch_s);

}  // namespace sallyport::natpmp

template <>
struct boost::system::is_error_code_enum<sallyport::natpmp::DecodeErrc> : std::true_type {};
