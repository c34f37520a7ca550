#pragma once

#include <array>
#include <boost/system/error_code.hpp>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "sallyport/values/address.hpp"
#include "sallyport/values/endpoint.hpp"
#include "sallyport/values/port.hpp"
#include "sallyport/values/result.hpp"

/// The bytes of a STUN Binding, as a client sees them: RFC 8489, with the attributes of RFC 5780 by which a
/// server is asked to answer to another port or from another address. Pure functions.
namespace sallyport::stun {

inline constexpr std::uint16_t server_port = 3478;
inline constexpr std::uint32_t magic_cookie = 0x2112a442;
inline constexpr std::size_t header_size = 20;
inline constexpr std::size_t max_response =
    1280;  ///< longer ones are refused: no Binding response has use for it

/// 96 random bits: who cannot see the request cannot answer it (RFC 8489 section 5).
using TransactionId = std::array<std::byte, 12>;
/// An address of the server itself.
using ServerEndpoint = Endpoint<struct StunServerSide>;

struct BindingRequest {
  TransactionId id{};
  std::optional<Port>
      response_port;            ///< RESPONSE-PORT: answer to this port of the address the request came from
  bool change_address = false;  ///< CHANGE-REQUEST: answer from the server's other address
  bool change_port = false;     ///< and from its other port
  friend bool operator==(const BindingRequest&, const BindingRequest&) = default;
};

struct BindingResponse {
  TransactionId id{};
  unsigned error_code = 0;                 ///< 300..699; 0: success
  std::optional<ExternalEndpoint> mapped;  ///< where the request came from, as the server saw it
  std::optional<ServerEndpoint> origin;    ///< RESPONSE-ORIGIN: where the server sent this from
  std::optional<ServerEndpoint> other;     ///< OTHER-ADDRESS: what change_address and change_port would use
  std::vector<std::uint16_t> unknown;      ///< UNKNOWN-ATTRIBUTES of error 420: what the server cannot do
  bool not_understood = false;             ///< has an attribute that we would have to understand, and do not
  friend bool operator==(const BindingResponse&, const BindingResponse&) = default;
};

enum class DecodeErrc {
  not_stun = 1,     ///< no magic cookie, or the first two bits are not zero
  truncated,        ///< ends before its layout does
  malformed,        ///< lengths or values that the standard does not allow
  not_a_response,   ///< a request, an indication, or of another method than Binding
  bad_fingerprint,  ///< its FINGERPRINT is not that of its octets, or not its end
};
const boost::system::error_category& decode_category() noexcept;
inline boost::system::error_code make_error_code(DecodeErrc error) noexcept {
  return {static_cast<int>(error), decode_category()};
}

/// With a FINGERPRINT.
std::vector<std::byte> encode(const BindingRequest& request);

/// `datagram` is one message and nothing else. Of an attribute that comes twice the first counts; what
/// follows a MESSAGE-INTEGRITY, which is not checked, is ignored but for FINGERPRINT (RFC 8489 sections
/// 14, 14.5).
Result<BindingResponse> decode_response(std::span<const std::byte> datagram);

/// What FINGERPRINT holds of a message that ends before it; the length field already counts the attribute.
std::uint32_t fingerprint(std::span<const std::byte> before) noexcept;

}  // namespace sallyport::stun

template <>
struct boost::system::is_error_code_enum<sallyport::stun::DecodeErrc> : std::true_type {};
