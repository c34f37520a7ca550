#include "src/lease/store/record_codec.hpp"

#include <algorithm>
#include <array>
#include <cstring>

namespace sallyport::lease {
namespace {

constexpr std::array<std::uint32_t, 256> crc_table = [] {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t c = i;
    for (int k = 0; k < 8; ++k) c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
    table[i] = c;
  }
  return table;
}();

std::uint32_t crc(std::uint64_t key, std::span<const std::byte> bytes) {
  std::uint32_t c = 0xffffffffu;
  for (int i = 0; i < 8; ++i) c = crc_table[(c ^ (key >> (8 * i))) & 0xff] ^ (c >> 8);
  for (const std::byte b : bytes) c = crc_table[(c ^ std::to_integer<std::uint32_t>(b)) & 0xff] ^ (c >> 8);
  return ~c;
}

class Writer {
 public:
  explicit Writer(std::vector<std::byte>& out) : out_{out} { out_.clear(); }
  void number(std::uint64_t value, std::size_t octets) {
    for (std::size_t i = octets; i-- > 0;) out_.push_back(static_cast<std::byte>(value >> (8 * i)));
  }
  /// IPv4 addresses take 5 octets, others 17.
  void address(const Address& address) {
    const auto& bytes = address.bytes();
    const std::size_t skip = address.is_v4() ? 12 : 0;
    number(16 - skip, 1);
    out_.insert(out_.end(), bytes.begin() + static_cast<std::ptrdiff_t>(skip), bytes.end());
  }
  void raw(std::span<const std::byte> bytes) { out_.insert(out_.end(), bytes.begin(), bytes.end()); }
  void text(std::string_view text) {
    number(text.size(), 4);
    raw(std::as_bytes(std::span{text}));
  }
  void finish(std::uint64_t key) { number(crc(key, out_), 4); }

 private:
  std::vector<std::byte>& out_;
};

class Reader {
 public:
  explicit Reader(std::span<const std::byte> in) : in_{in} {}
  std::uint64_t number(std::size_t octets) {
    std::uint64_t value = 0;
    for (const std::byte b : take(octets)) value = value << 8 | std::to_integer<std::uint64_t>(b);
    return value;
  }
  Address address() {
    const std::size_t size = number(1);
    if (size != 4 && size != 16) ok_ = false;
    const auto bytes = take(size);
    if (!ok_) return {};
    if (size == 4) {
      std::uint32_t v4 = 0;
      for (const std::byte b : bytes) v4 = v4 << 8 | std::to_integer<std::uint32_t>(b);
      return Address::v4(v4);
    }
    Address::Bytes all{};
    std::memcpy(all.data(), bytes.data(), 16);
    return Address{all};
  }
  std::string text() {
    const auto bytes = take(number(4));
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  std::span<const std::byte> take(std::size_t octets) {
    if (octets > in_.size()) {
      ok_ = false;
      return {};
    }
    const auto bytes = in_.first(octets);
    in_ = in_.subspan(octets);
    return bytes;
  }
  bool done() const { return ok_ && in_.empty(); }
  bool ok() const { return ok_; }

 private:
  std::span<const std::byte> in_;
  bool ok_ = true;
};

/// What stands between the format octet and the sum, when both are right.
std::optional<std::span<const std::byte>> checked(std::uint64_t key, std::span<const std::byte> row,
                                                  std::byte format) {
  if (row.size() < 5 || row.front() != format) return std::nullopt;
  const auto body = row.first(row.size() - 4);
  Reader sum{row.last(4)};
  if (sum.number(4) != crc(key, body)) return std::nullopt;
  return body.subspan(1);
}

constexpr std::uint8_t has_nonce = 1, permanent = 2, disabled = 4, other_client = 8, outbound = 16,
                       port_set = 32, has_pinhole = 64;
/// In the octet of a block.
constexpr std::uint8_t forever = 1, has_owner = 2;

std::optional<Transport> transport_from(std::uint64_t number) {
  if (number == 6) return Transport::tcp;
  if (number == 17) return Transport::udp;
  return std::nullopt;
}

}  // namespace

void encode(const LeaseRecord& record, std::vector<std::byte>& out) {
  Writer to{out};
  to.number(std::to_integer<std::uint8_t>(lease_format), 1);
  to.number(static_cast<std::uint8_t>(record.via), 1);
  to.number(static_cast<std::uint8_t>(record.transport), 1);
  const bool other = record.contact.client != record.internal_address;
  to.number((record.nonce ? has_nonce : 0) | (record.lifetime_s ? 0 : permanent) |
                (record.enabled ? 0 : disabled) | (other ? other_client : 0) |
                (record.outbound ? outbound : 0) | (record.ports > 1 ? port_set : 0) |
                (record.pinhole != 0 ? has_pinhole : 0),
            1);
  to.address(record.internal_address);
  to.number(record.internal_port, 2);
  to.number(record.external_port, 2);
  if (record.ports > 1) to.number(record.ports, 2);
  if (record.nonce) to.raw(*record.nonce);
  if (record.lifetime_s) {
    to.number(*record.lifetime_s, 4);
    to.number(record.boot, 4);
    to.number(static_cast<std::uint64_t>(record.deadline.time_since_epoch().count()), 8);
    to.number(static_cast<std::uint64_t>(record.deadline_wall.time_since_epoch().count()), 8);
  }
  to.number(static_cast<std::uint64_t>(record.created.time_since_epoch().count()), 8);
  to.number(record.renewals, 4);
  to.number(record.contact.interface, 4);
  if (other) to.address(record.contact.client);
  to.number(record.contact.client_port, 2);
  to.address(record.contact.gateway);
  to.number(record.remotes.size(), 2);
  for (const auto& remote : record.remotes) {
    to.address(remote.prefix.address);
    to.number(remote.prefix.length, 1);
    to.number(remote.port ? remote.port->number() : 0, 2);
  }
  to.text(record.description);
  if (record.pinhole != 0) to.number(record.pinhole, 2);
  to.finish(record.number);
}

std::optional<LeaseRecord> decode_lease(std::uint64_t key, std::span<const std::byte> row) {
  const auto body = checked(key, row, lease_format);
  if (!body) return std::nullopt;
  Reader in{*body};
  LeaseRecord record;
  record.number = key;
  const auto via = in.number(1);
  const auto transport = transport_from(in.number(1));
  const auto flags = in.number(1);
  if (via < 1 || via > 5 || !transport) return std::nullopt;
  record.via = static_cast<Via>(via);
  record.transport = *transport;
  record.enabled = !(flags & disabled);
  record.outbound = flags & outbound;
  record.internal_address = in.address();
  record.internal_port = static_cast<std::uint16_t>(in.number(2));
  record.external_port = static_cast<std::uint16_t>(in.number(2));
  if (flags & port_set) record.ports = static_cast<std::uint16_t>(in.number(2));
  if (flags & has_nonce) {
    record.nonce.emplace();
    const auto nonce = in.take(record.nonce->size());
    if (in.ok()) std::memcpy(record.nonce->data(), nonce.data(), nonce.size());
  }
  if (!(flags & permanent)) {
    record.lifetime_s = static_cast<std::uint32_t>(in.number(4));
    record.boot = static_cast<std::uint32_t>(in.number(4));
    record.deadline = TimePoint{BootClock::duration{static_cast<std::int64_t>(in.number(8))}};
    record.deadline_wall = WallTime{std::chrono::seconds{static_cast<std::int64_t>(in.number(8))}};
  } else {
    record.deadline = TimePoint::max();
  }
  record.created = WallTime{std::chrono::seconds{static_cast<std::int64_t>(in.number(8))}};
  record.renewals = static_cast<std::uint32_t>(in.number(4));
  record.contact.interface = static_cast<std::uint32_t>(in.number(4));
  record.contact.client = flags & other_client ? in.address() : record.internal_address;
  record.contact.client_port = static_cast<std::uint16_t>(in.number(2));
  record.contact.gateway = in.address();
  const auto remotes = in.number(2);
  for (std::uint64_t i = 0; i < remotes && in.ok(); ++i) {
    RemoteFilter remote;
    remote.prefix.address = in.address();
    remote.prefix.length = static_cast<std::uint8_t>(in.number(1));
    remote.port = Port::from(static_cast<std::uint32_t>(in.number(2)));
    record.remotes.push_back(remote);
  }
  record.description = in.text();
  if (flags & has_pinhole) record.pinhole = static_cast<std::uint16_t>(in.number(2));
  if (!in.done() || record.internal_port == 0 || record.external_port == 0 || record.ports == 0)
    return std::nullopt;
  if (std::max(record.internal_port, record.external_port) + std::uint32_t{record.ports} - 1 > 65535)
    return std::nullopt;
  return record;
}

void encode(const BlockRecord& record, std::vector<std::byte>& out) {
  Writer to{out};
  to.number(std::to_integer<std::uint8_t>(block_format), 1);
  to.address(record.device);
  to.number(static_cast<std::uint8_t>(record.transport), 1);
  to.number(record.internal_port, 2);
  const bool owned = record.owner != Address{};
  to.number((record.until ? 0 : forever) | (owned ? has_owner : 0), 1);
  to.number(record.until ? static_cast<std::uint64_t>(record.until->time_since_epoch().count()) : 0, 8);
  to.text(record.description);
  if (owned) to.address(record.owner);
  to.finish(record.lease);
}

std::optional<BlockRecord> decode_block(std::uint64_t key, std::span<const std::byte> row) {
  const auto body = checked(key, row, block_format);
  if (!body) return std::nullopt;
  Reader in{*body};
  BlockRecord record;
  record.lease = key;
  record.device = in.address();
  const auto transport = transport_from(in.number(1));
  if (!transport) return std::nullopt;
  record.transport = *transport;
  record.internal_port = static_cast<std::uint16_t>(in.number(2));
  const auto flags = in.number(1);
  const auto until = in.number(8);
  if (!(flags & forever)) record.until = WallTime{std::chrono::seconds{static_cast<std::int64_t>(until)}};
  record.description = in.text();
  if (flags & has_owner) record.owner = in.address();
  if (!in.done() || record.internal_port == 0) return std::nullopt;
  return record;
}

std::uint64_t meta_key(std::string_view name) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash >> 1;  // rowids are signed
}

void encode_meta(std::string_view name, std::string_view value, std::vector<std::byte>& out) {
  Writer to{out};
  to.number(std::to_integer<std::uint8_t>(meta_format), 1);
  to.text(name);
  to.text(value);
  to.finish(meta_key(name));
}

std::optional<std::pair<std::string, std::string>> decode_meta(std::uint64_t key,
                                                               std::span<const std::byte> row) {
  const auto body = checked(key, row, meta_format);
  if (!body) return std::nullopt;
  Reader in{*body};
  auto name = in.text();
  auto value = in.text();
  if (!in.done() || meta_key(name) != key) return std::nullopt;
  return std::pair{std::move(name), std::move(value)};
}

}  // namespace sallyport::lease
