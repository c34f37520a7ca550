#pragma once

#include <boost/system/error_code.hpp>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "protocols/pcp/result_code.hpp"
#include "sallyport/values/address.hpp"
#include "sallyport/values/mapping_service.hpp"
#include "sallyport/values/port.hpp"
#include "sallyport/values/result.hpp"

/// The bytes of the Port Control Protocol, version 2: RFC 6887, with DESCRIPTION (RFC 7220) and PORT_SET (RFC
/// 7753). Used by server and client alike. Everything here is a pure function.
namespace sallyport::pcp {

inline constexpr std::uint8_t version = 2;
inline constexpr std::uint16_t server_port = 5351;
inline constexpr std::uint16_t client_port = 5350;  ///< where clients listen for announcements
inline constexpr std::size_t max_message = 1100;    ///< octets of UDP payload (section 7)
inline constexpr std::size_t header_size = 24;
inline constexpr std::size_t map_body_size = 36;
inline constexpr std::size_t peer_body_size = 56;
/// Where a client finds the server of its network without knowing its address (RFC 7723): 192.0.0.9,
/// 2001:1::1.
inline constexpr auto anycast_v4 = Address::v4(0xc0000009);
inline constexpr Address anycast_v6{Address::Bytes{std::byte{0x20},
                                                   std::byte{0x01},
                                                   {},
                                                   std::byte{0x01},
                                                   {},
                                                   {},
                                                   {},
                                                   {},
                                                   {},
                                                   {},
                                                   {},
                                                   {},
                                                   {},
                                                   {},
                                                   {},
                                                   std::byte{0x01}}};
constexpr bool is_anycast(const Address& address) noexcept {
  return address == anycast_v4 || address == anycast_v6;
}
inline constexpr std::size_t option_header_size = 4;
inline constexpr std::size_t max_description = 1016;  ///< octets (RFC 7220, section 3)
inline constexpr std::byte response_bit{0x80};        ///< R, in the octet of the opcode

enum class Opcode : std::uint8_t { announce = 0, map = 1, peer = 2, authentication = 3 };

enum class OptionCode : std::uint8_t {
  third_party = 1,
  prefer_failure = 2,
  filter = 3,
  // RFC 7652
  nonce = 4,
  authentication_tag = 5,
  pa_authentication_tag = 6,
  eap_payload = 7,
  prf = 8,
  mac_algorithm = 9,
  session_lifetime = 10,
  received_pak = 11,
  id_indicator = 12,
  third_party_id = 13,  ///< RFC 7843
  // from 128 on: optional to process
  description = 128,
  prefix64 = 129,  ///< RFC 7225
  port_set = 130,
};
/// Options below 128 must be understood or refused; others may be skipped (section 7.3).
constexpr bool is_mandatory(std::uint8_t option_code) noexcept { return option_code < 128; }

enum class DecodeErrc {
  truncated = 1,   ///< ends before its layout does
  too_long,        ///< more than 1100 octets
  misaligned,      ///< the length is not a multiple of 4
  other_version,   ///< the first octet is not 2
  not_a_request,   ///< R is set
  not_a_response,  ///< R is not set
  other_opcode,    ///< not the opcode asked for
  bad_option,      ///< an option repeats unlawfully, or has a bad length or contents
};
const boost::system::error_category& decode_category() noexcept;
inline boost::system::error_code make_error_code(DecodeErrc error) noexcept {
  return {static_cast<int>(error), decode_category()};
}

struct RequestHeader {
  std::uint8_t opcode = 0;  ///< 0..127; those of Opcode are known
  std::uint32_t lifetime_s = 0;
  Address client;
  friend bool operator==(const RequestHeader&, const RequestHeader&) = default;
};

struct ResponseHeader {
  std::uint8_t opcode = 0;
  ResultCode result = ResultCode::success;  ///< may hold a value that has no name
  std::uint32_t lifetime_s = 0;
  std::uint32_t epoch_s = 0;
  friend bool operator==(const ResponseHeader&, const ResponseHeader&) = default;
};

/// The body of MAP, request and response alike (sections 11.1, 11.2). Empty ports are 0 on the wire.
struct MapBody {
  Nonce nonce{};
  std::uint8_t protocol = 0;  ///< IANA protocol number, 0: all
  std::optional<Port> internal_port;
  std::optional<Port> external_port;  ///< suggested, or assigned
  Address external_address;           ///< suggested, or assigned; all zeros: no preference
  friend bool operator==(const MapBody&, const MapBody&) = default;
};

/// The body of PEER (section 12.1).
struct PeerBody {
  MapBody map;
  std::optional<Port> remote_port;
  Address remote_address;
  friend bool operator==(const PeerBody&, const PeerBody&) = default;
};

/// FILTER (section 13.3), as it is written.
struct Filter {
  std::uint8_t prefix_length = 0;  ///< bits of the 128-bit form; 0: remove the filters in force
  std::optional<Port> remote_port;
  Address remote_address;
  friend bool operator==(const Filter&, const Filter&) = default;
};

/// PORT_SET (RFC 7753, section 4.1).
struct PortSet {
  std::uint16_t size = 1;
  std::uint16_t first_internal_port = 0;
  bool parity = false;
  friend bool operator==(const PortSet&, const PortSet&) = default;
};

/// An option as it lies in the datagram.
struct Option {
  std::uint8_t code = 0;
  std::span<const std::byte> data;
};

/// Walks the option area of a message, whose length is a multiple of 4 (section 7.3). Padding is not looked
/// at.
class OptionReader {
 public:
  explicit OptionReader(std::span<const std::byte> area) noexcept : rest_{area} {}
  /// Empty at the end, and when an option runs past it; then ok() is false.
  std::optional<Option> next() noexcept;
  bool ok() const noexcept { return ok_; }

 private:
  std::span<const std::byte> rest_;
  bool ok_ = true;
};

/// Errors: other_version, not_a_request, truncated, too_long, misaligned; in this order.
Result<RequestHeader> decode_request_header(std::span<const std::byte> datagram);
/// Errors: other_version, not_a_response, truncated, too_long, misaligned; in this order.
Result<ResponseHeader> decode_response_header(std::span<const std::byte> datagram);
/// From the octets after the header; what follows the body is left alone. Error: truncated.
Result<MapBody> decode_map_body(std::span<const std::byte> payload);
Result<PeerBody> decode_peer_body(std::span<const std::byte> payload);
/// Options from their data. Error: bad_option, for a wrong length only.
Result<Address> decode_third_party(std::span<const std::byte> data);
Result<Filter> decode_filter(std::span<const std::byte> data);
Result<PortSet> decode_port_set(std::span<const std::byte> data);

/// The text of a DESCRIPTION, or empty when it is not valid UTF-8.
std::optional<std::string_view> description_text(std::span<const std::byte> data) noexcept;

void append_request_header(std::vector<std::byte>& out, const RequestHeader& header);
void append_response_header(std::vector<std::byte>& out, const ResponseHeader& header);
void append_map_body(std::vector<std::byte>& out, const MapBody& body);
void append_peer_body(std::vector<std::byte>& out, const PeerBody& body);
/// Adds the padding too.
void append_option(std::vector<std::byte>& out, OptionCode code, std::span<const std::byte> data);
void append_third_party(std::vector<std::byte>& out, const Address& internal);
void append_prefer_failure(std::vector<std::byte>& out);
void append_filter(std::vector<std::byte>& out, const Filter& filter);
void append_description(std::vector<std::byte>& out, std::string_view text);
void append_port_set(std::vector<std::byte>& out, const PortSet& set);

/// The options of a MAP message that this project knows.
struct MapOptions {
  std::optional<Address> third_party;
  bool prefer_failure = false;
  std::vector<Filter> filters;
  std::optional<std::string> description;
  std::optional<PortSet> port_set;
  friend bool operator==(const MapOptions&, const MapOptions&) = default;
};

struct MapRequest {
  std::uint32_t lifetime_s = 0;  ///< 0 deletes
  Address client;                ///< the source address the IP header will carry
  MapBody map;
  MapOptions options;
  friend bool operator==(const MapRequest&, const MapRequest&) = default;
};
struct MapResponse {
  ResponseHeader header;
  MapBody map;
  MapOptions options;
  friend bool operator==(const MapResponse&, const MapResponse&) = default;
};

/// The datagram; more than max_message octets when the options are too many.
std::vector<std::byte> encode_map_request(const MapRequest& request);
std::vector<std::byte> encode_map_response(const MapResponse& response);
/// ANNOUNCE has no body (section 14.1).
std::vector<std::byte> encode_announce_request(const Address& client);
std::vector<std::byte> encode_announce_response(std::uint32_t epoch_s);
/// Errors: those of the header, other_opcode, truncated, bad_option.
Result<MapResponse> decode_map_response(std::span<const std::byte> datagram);

/// An error answer (section 8.2): the request, cut at 1100 and padded to 4 octets, with the server's header
/// fields. `parsed` is false when the request could not be read: octets 12-23 then stay as they came
/// (section 7.2). `request` has at least 2 octets.
std::vector<std::byte> encode_error(std::span<const std::byte> request, ResultCode result,
                                    std::uint32_t lifetime_s, std::uint32_t epoch_s, bool parsed);

}  // namespace sallyport::pcp

template <>
struct boost::system::is_error_code_enum<sallyport::pcp::DecodeErrc> : std::true_type {};
