#include "protocols/pcp/codec.hpp"

#include <algorithm>

#include "protocols/wire/byte_reader.hpp"
#include "protocols/wire/byte_writer.hpp"

namespace sallyport::pcp {
namespace {

using Bytes = std::vector<std::byte>;

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wnon-virtual-dtor"  // Boost's, and nobody deletes a category
struct DecodeCategory final : boost::system::error_category {
  const char* name() const noexcept override { return "sallyport.pcp.decode"; }
  std::string message(int value) const override {
    switch (static_cast<DecodeErrc>(value)) {
      case DecodeErrc::truncated:
        return "the message ends too early";
      case DecodeErrc::too_long:
        return "the message has more than 1100 octets";
      case DecodeErrc::misaligned:
        return "the length of the message is not a multiple of 4";
      case DecodeErrc::other_version:
        return "the message is of another protocol version";
      case DecodeErrc::not_a_request:
        return "the message is a response";
      case DecodeErrc::not_a_response:
        return "the message is a request";
      case DecodeErrc::other_opcode:
        return "the message has another opcode";
      case DecodeErrc::bad_option:
        return "an option is malformed";
    }
    return "unknown reason";
  }
};
#pragma GCC diagnostic pop

void append(Bytes& out, std::span<const std::byte> bytes) {
  out.insert(out.end(), bytes.begin(), bytes.end());
}
void append_u8(Bytes& out, std::uint8_t value) { out.push_back(std::byte{value}); }
void append_u16(Bytes& out, std::uint16_t value) {
  append_u8(out, static_cast<std::uint8_t>(value >> 8));
  append_u8(out, static_cast<std::uint8_t>(value));
}
void append_u32(Bytes& out, std::uint32_t value) {
  append_u16(out, static_cast<std::uint16_t>(value >> 16));
  append_u16(out, static_cast<std::uint16_t>(value));
}
void append_zeros(Bytes& out, std::size_t count) { out.resize(out.size() + count); }
void append_port(Bytes& out, std::optional<Port> port) { append_u16(out, port ? port->number() : 0); }

/// What the header of both kinds must meet, in the order in which a server looks at it (section 8.2).
std::optional<DecodeErrc> check_datagram(std::span<const std::byte> datagram, bool response) {
  if (datagram.size() < 2) return DecodeErrc::truncated;
  if (((datagram[1] & response_bit) != std::byte{0}) != response)
    return response ? DecodeErrc::not_a_response : DecodeErrc::not_a_request;
  if (datagram[0] != std::byte{version}) return DecodeErrc::other_version;
  if (datagram.size() < header_size) return DecodeErrc::truncated;
  if (datagram.size() > max_message) return DecodeErrc::too_long;
  if (datagram.size() % 4 != 0) return DecodeErrc::misaligned;
  return std::nullopt;
}

MapBody read_map_body(wire::ByteReader& in) {
  MapBody map;
  map.nonce = in.bytes<12>();
  map.protocol = in.u8();
  in.skip(3);  // reserved
  map.internal_port = Port::from(in.u16());
  map.external_port = Port::from(in.u16());
  map.external_address = Address{in.bytes<16>()};
  return map;
}

Result<MapOptions> read_map_options(std::span<const std::byte> area) {
  MapOptions options;
  OptionReader in{area};
  while (const auto option = in.next()) {
    switch (static_cast<OptionCode>(option->code)) {
      case OptionCode::third_party: {
        const auto internal = decode_third_party(option->data);
        if (!internal || options.third_party) return DecodeErrc::bad_option;
        options.third_party = *internal;
        break;
      }
      case OptionCode::prefer_failure:
        if (!option->data.empty() || options.prefer_failure) return DecodeErrc::bad_option;
        options.prefer_failure = true;
        break;
      case OptionCode::filter: {
        const auto filter = decode_filter(option->data);
        if (!filter) return DecodeErrc::bad_option;
        options.filters.push_back(*filter);
        break;
      }
      case OptionCode::description: {
        const auto text = description_text(option->data);
        if (!text || options.description) return DecodeErrc::bad_option;
        options.description = std::string{*text};
        break;
      }
      case OptionCode::port_set: {
        const auto set = decode_port_set(option->data);
        if (!set || options.port_set) return DecodeErrc::bad_option;
        options.port_set = *set;
        break;
      }
      default:
        break;  // a client may ignore options in responses (section 7.3)
    }
  }
  if (!in.ok()) return DecodeErrc::bad_option;
  return options;
}

void append_map_options(Bytes& out, const MapOptions& options) {
  if (options.third_party) append_third_party(out, *options.third_party);
  if (options.prefer_failure) append_prefer_failure(out);
  for (const auto& filter : options.filters) append_filter(out, filter);
  if (options.description) append_description(out, *options.description);
  if (options.port_set) append_port_set(out, *options.port_set);
}

}  // namespace

const boost::system::error_category& decode_category() noexcept {
  static const DecodeCategory category;
  return category;
}

std::optional<Option> OptionReader::next() noexcept {
  if (rest_.empty() || !ok_) return std::nullopt;
  wire::ByteReader in{rest_};
  Option option;
  option.code = in.u8();
  in.skip(1);  // reserved
  const std::size_t length = in.u16();
  option.data = in.take(length);
  in.skip((4 - length % 4) % 4);
  ok_ = in.ok();
  rest_ = in.rest();
  return ok_ ? std::optional{option} : std::nullopt;
}

Result<RequestHeader> decode_request_header(std::span<const std::byte> datagram) {
  if (const auto wrong = check_datagram(datagram, false)) return *wrong;
  wire::ByteReader in{datagram.subspan(1)};
  RequestHeader header;
  header.opcode = in.u8();
  in.skip(2);  // reserved
  header.lifetime_s = in.u32();
  header.client = Address{in.bytes<16>()};
  return header;
}

Result<ResponseHeader> decode_response_header(std::span<const std::byte> datagram) {
  if (const auto wrong = check_datagram(datagram, true)) return *wrong;
  wire::ByteReader in{datagram.subspan(1)};
  ResponseHeader header;
  header.opcode = in.u8() & 0x7f;
  in.skip(1);  // reserved
  header.result = static_cast<ResultCode>(in.u8());
  header.lifetime_s = in.u32();
  header.epoch_s = in.u32();
  return header;
}

Result<MapBody> decode_map_body(std::span<const std::byte> payload) {
  wire::ByteReader in{payload};
  const auto map = read_map_body(in);
  if (!in.ok()) return DecodeErrc::truncated;
  return map;
}

Result<PeerBody> decode_peer_body(std::span<const std::byte> payload) {
  wire::ByteReader in{payload};
  PeerBody peer;
  peer.map = read_map_body(in);
  peer.remote_port = Port::from(in.u16());
  in.skip(2);  // reserved
  peer.remote_address = Address{in.bytes<16>()};
  if (!in.ok()) return DecodeErrc::truncated;
  return peer;
}

Result<Address> decode_third_party(std::span<const std::byte> data) {
  if (data.size() != 16) return DecodeErrc::bad_option;
  return Address{wire::ByteReader{data}.bytes<16>()};
}

Result<Filter> decode_filter(std::span<const std::byte> data) {
  if (data.size() != 20) return DecodeErrc::bad_option;
  wire::ByteReader in{data};
  in.skip(1);  // reserved
  Filter filter;
  filter.prefix_length = in.u8();
  filter.remote_port = Port::from(in.u16());
  filter.remote_address = Address{in.bytes<16>()};
  return filter;
}

Result<PortSet> decode_port_set(std::span<const std::byte> data) {
  if (data.size() != 5) return DecodeErrc::bad_option;
  wire::ByteReader in{data};
  PortSet set;
  set.size = in.u16();
  set.first_internal_port = in.u16();
  set.parity = (in.u8() & 1) != 0;
  return set;
}

std::optional<std::string_view> description_text(std::span<const std::byte> data) noexcept {
  const auto at = [&](std::size_t i) { return std::to_integer<std::uint32_t>(data[i]); };
  for (std::size_t i = 0; i < data.size();) {
    const auto first = at(i);
    const std::size_t more = first < 0x80 ? 0 : first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
    if (first >= 0x80 && (first < 0xc2 || first > 0xf4)) return std::nullopt;
    if (data.size() - i <= more) return std::nullopt;
    auto character = more == 0 ? first : first & (0x3fU >> more);
    for (std::size_t k = 1; k <= more; ++k) {
      if ((at(i + k) & 0xc0) != 0x80) return std::nullopt;
      character = character << 6 | (at(i + k) & 0x3f);
    }
    // overlong forms, halves of surrogate pairs, beyond Unicode
    if ((more == 2 && character < 0x800) || (more == 3 && character < 0x10000) || character > 0x10ffff ||
        (character >= 0xd800 && character <= 0xdfff))
      return std::nullopt;
    i += more + 1;
  }
  return std::string_view{reinterpret_cast<const char*>(data.data()), data.size()};
}

void append_request_header(Bytes& out, const RequestHeader& header) {
  append_u8(out, version);
  append_u8(out, header.opcode & 0x7f);
  append_zeros(out, 2);
  append_u32(out, header.lifetime_s);
  append(out, header.client.bytes());
}

void append_response_header(Bytes& out, const ResponseHeader& header) {
  append_u8(out, version);
  append_u8(out, header.opcode | 0x80);
  append_zeros(out, 1);
  append_u8(out, static_cast<std::uint8_t>(header.result));
  append_u32(out, header.lifetime_s);
  append_u32(out, header.epoch_s);
  append_zeros(out, 12);
}

void append_map_body(Bytes& out, const MapBody& body) {
  append(out, body.nonce);
  append_u8(out, body.protocol);
  append_zeros(out, 3);
  append_port(out, body.internal_port);
  append_port(out, body.external_port);
  append(out, body.external_address.bytes());
}

void append_peer_body(Bytes& out, const PeerBody& body) {
  append_map_body(out, body.map);
  append_port(out, body.remote_port);
  append_zeros(out, 2);
  append(out, body.remote_address.bytes());
}

void append_option(Bytes& out, OptionCode code, std::span<const std::byte> data) {
  append_u8(out, static_cast<std::uint8_t>(code));
  append_u8(out, 0);
  append_u16(out, static_cast<std::uint16_t>(data.size()));
  append(out, data);
  append_zeros(out, (4 - data.size() % 4) % 4);
}

void append_third_party(Bytes& out, const Address& internal) {
  append_option(out, OptionCode::third_party, internal.bytes());
}

void append_prefer_failure(Bytes& out) { append_option(out, OptionCode::prefer_failure, {}); }

void append_filter(Bytes& out, const Filter& filter) {
  append_u8(out, static_cast<std::uint8_t>(OptionCode::filter));
  append_u8(out, 0);
  append_u16(out, 20);
  append_u8(out, 0);
  append_u8(out, filter.prefix_length);
  append_port(out, filter.remote_port);
  append(out, filter.remote_address.bytes());
}

void append_description(Bytes& out, std::string_view text) {
  append_option(out, OptionCode::description, std::as_bytes(std::span{text}));
}

void append_port_set(Bytes& out, const PortSet& set) {
  Bytes data;
  append_u16(data, set.size);
  append_u16(data, set.first_internal_port);
  append_u8(data, set.parity ? 1 : 0);
  append_option(out, OptionCode::port_set, data);
}

Bytes encode_map_request(const MapRequest& request) {
  Bytes out;
  out.reserve(header_size + map_body_size);
  append_request_header(out, {static_cast<std::uint8_t>(Opcode::map), request.lifetime_s, request.client});
  append_map_body(out, request.map);
  append_map_options(out, request.options);
  return out;
}

Bytes encode_map_response(const MapResponse& response) {
  Bytes out;
  out.reserve(header_size + map_body_size);
  append_response_header(out, response.header);
  append_map_body(out, response.map);
  append_map_options(out, response.options);
  return out;
}

Bytes encode_announce_request(const Address& client) {
  Bytes out;
  append_request_header(out, {static_cast<std::uint8_t>(Opcode::announce), 0, client});
  return out;
}

Bytes encode_announce_response(std::uint32_t epoch_s) {
  Bytes out;
  append_response_header(out, {static_cast<std::uint8_t>(Opcode::announce), ResultCode::success, 0, epoch_s});
  return out;
}

Result<MapResponse> decode_map_response(std::span<const std::byte> datagram) {
  const auto header = decode_response_header(datagram);
  if (!header) return header.error();
  if (header->opcode != static_cast<std::uint8_t>(Opcode::map)) return DecodeErrc::other_opcode;
  const auto map = decode_map_body(datagram.subspan(header_size));
  if (!map) return map.error();
  MapResponse response{*header, *map, {}};
  if (header->result != ResultCode::success)
    return response;  // its options are the request's, well-formed or not
  auto options = read_map_options(datagram.subspan(header_size + map_body_size));
  if (!options) return options.error();
  response.options = std::move(*options);
  return response;
}

Bytes encode_error(std::span<const std::byte> request, ResultCode result, std::uint32_t lifetime_s,
                   std::uint32_t epoch_s, bool parsed) {
  const auto kept = request.first(std::min(request.size(), max_message));
  Bytes out(std::max(header_size, (kept.size() + 3) / 4 * 4));
  std::copy(kept.begin(), kept.end(), out.begin());
  const std::span bytes{out};
  out[0] = std::byte{version};
  out[1] |= response_bit;
  out[2] = std::byte{0};
  out[3] = static_cast<std::byte>(result);
  wire::put_u32(bytes.subspan(4, 4), lifetime_s);
  wire::put_u32(bytes.subspan(8, 4), epoch_s);
  // The reserved octets of a response lie where the last 12 octets of the client address do in a request.
  if (parsed) std::fill(out.begin() + 12, out.begin() + header_size, std::byte{0});
  return out;
}

}  // namespace sallyport::pcp
