#include "protocols/upnp/ssdp/codec.hpp"

#include <algorithm>
#include <array>

#include "protocols/upnp/http/message.hpp"

namespace sallyport::upnp::ssdp {
namespace {

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wnon-virtual-dtor"  // Boost's, and nobody deletes a category
struct DecodeCategory final : boost::system::error_category {
  const char* name() const noexcept override { return "sallyport.ssdp.decode"; }
  std::string message(int value) const override {
    switch (static_cast<DecodeErrc>(value)) {
      case DecodeErrc::too_long:
        return "the search is longer than a search may be";
      case DecodeErrc::not_a_search:
        return "the message is no search";
      case DecodeErrc::malformed:
        return "the message is no sound HTTP head";
      case DecodeErrc::incomplete:
        return "the search lacks a field that it needs";
      case DecodeErrc::bad_target:
        return "the search target is none";
    }
    return "unknown reason";
  }
};
#pragma GCC diagnostic pop

constexpr std::string_view search_line = "M-SEARCH * HTTP/1.1";

/// Takes the next line, without its end, off `rest`; empty when no line ends there any more.
std::optional<std::string_view> take_line(std::string_view& rest) {
  const auto end = rest.find('\n');
  if (end == std::string_view::npos) return std::nullopt;
  auto line = rest.substr(0, end);
  rest.remove_prefix(end + 1);
  if (line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

std::string_view trim(std::string_view text) {
  const auto first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

/// tchar of RFC 9110, section 5.6.2.
bool is_token(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view{"!#$%&'*+-.^_`|~"}.find(c) != std::string_view::npos;
  });
}

std::optional<unsigned> read_mx(std::string_view text) {
  if (text.empty()) return std::nullopt;
  unsigned value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    value = std::min(value * 10 + static_cast<unsigned>(c - '0'), max_mx_s);
  }
  return value == 0 ? std::nullopt : std::optional{value};
}

/// The fields of a message, written one by one.
class Head {
 public:
  explicit Head(std::string_view start_line) {
    text_.reserve(512);
    text_.append(start_line).append("\r\n");
  }
  Head& field(std::string_view name, std::string_view value) {
    text_.append(name).append(value.empty() ? ":" : ": ").append(value).append("\r\n");
    return *this;
  }
  Head& field(std::string_view name, std::uint32_t value) { return field(name, std::to_string(value)); }
  std::vector<std::byte> take() {
    text_.append("\r\n");
    const auto octets = std::as_bytes(std::span{text_});
    return {octets.begin(), octets.end()};
  }

 private:
  std::string text_;
};

std::string max_age(std::uint32_t seconds) { return "max-age=" + std::to_string(seconds); }

std::string_view host_of(const Address& group) {
  if (group.is_v4()) return "239.255.255.250:1900";
  return group == group_link() ? "[FF02::C]:1900" : "[FF05::C]:1900";
}

constexpr Address v6_group(std::uint8_t scope) {
  Address::Bytes bytes{};
  bytes[0] = std::byte{0xff};
  bytes[1] = std::byte{scope};
  bytes[15] = std::byte{0x0c};
  return Address{bytes};
}

}  // namespace

const boost::system::error_category& decode_category() noexcept {
  static const DecodeCategory category;
  return category;
}

Address group_link() noexcept { return v6_group(2); }
Address group_site() noexcept { return v6_group(5); }

bool is_group(const Address& address) noexcept {
  return address == group_v4 || address == group_link() || address == group_site();
}

bool is_link_local(const Address& address) noexcept {
  const auto& bytes = address.bytes();
  return bytes[0] == std::byte{0xfe} && (bytes[1] & std::byte{0xc0}) == std::byte{0x80};
}

Result<Search> decode_search(std::span<const std::byte> datagram) {
  if (datagram.size() > max_search) return DecodeErrc::too_long;
  std::string_view rest{reinterpret_cast<const char*>(datagram.data()), datagram.size()};
  if (take_line(rest) != search_line) return DecodeErrc::not_a_search;

  std::optional<std::string_view> host, man, mx, st;
  for (;;) {
    const auto line = take_line(rest);
    if (!line) return DecodeErrc::malformed;  // cut off: a whole head ends with an empty line
    if (line->empty()) break;
    if (line->find('\r') != std::string_view::npos || line->find('\0') != std::string_view::npos)
      return DecodeErrc::malformed;
    const auto colon = line->find(':');
    if (colon == std::string_view::npos) return DecodeErrc::malformed;
    const auto name = line->substr(0, colon);
    if (!is_token(name)) return DecodeErrc::malformed;
    for (const auto& [known, value] : {std::pair{"HOST", &host}, {"MAN", &man}, {"MX", &mx}, {"ST", &st}}) {
      if (!http::same_name(name, known)) continue;
      if (*value) return DecodeErrc::malformed;  // which of the two would count is anybody's guess
      *value = trim(line->substr(colon + 1));
    }
  }
  if (!host || !st || man != "\"ssdp:discover\"") return DecodeErrc::incomplete;
  if (st->empty() || st->size() > max_target) return DecodeErrc::bad_target;
  if (!std::ranges::all_of(*st, [](char c) { return c >= 0x20 && c < 0x7f; })) return DecodeErrc::bad_target;
  return Search{.target = std::string{*st}, .mx_s = read_mx(mx.value_or(""))};
}

std::string server_text(std::string_view system, Version version, std::string_view product) {
  std::string text{system};
  text.append(version == Version::uda_1_0 ? " UPnP/1.0 " : " UPnP/1.1 ").append(product);
  return text;
}

std::vector<std::byte> encode_notify(NotifyKind kind, const Announcement& what, const Address& group,
                                     std::uint32_t next_boot_id) {
  Head head{"NOTIFY * HTTP/1.1"};
  head.field("HOST", host_of(group));
  if (kind == NotifyKind::alive) head.field("CACHE-CONTROL", max_age(what.max_age_s));
  if (kind != NotifyKind::byebye) head.field("LOCATION", what.location);
  head.field("NT", what.type);
  switch (kind) {
    case NotifyKind::alive:
      head.field("NTS", "ssdp:alive").field("SERVER", what.server);
      break;
    case NotifyKind::update:
      head.field("NTS", "ssdp:update");
      break;
    case NotifyKind::byebye:
      head.field("NTS", "ssdp:byebye");
      break;
  }
  head.field("USN", what.name);
  if (what.version != Version::uda_1_0) {
    head.field("BOOTID.UPNP.ORG", what.boot_id).field("CONFIGID.UPNP.ORG", what.config_id);
    if (kind == NotifyKind::update) head.field("NEXTBOOTID.UPNP.ORG", next_boot_id);
  }
  return head.take();
}

std::vector<std::byte> encode_answer(const Announcement& what, WallTime date) {
  Head head{"HTTP/1.1 200 OK"};
  head.field("CACHE-CONTROL", max_age(what.max_age_s))
      .field("DATE", http::http_date(date))
      .field("EXT", "")
      .field("LOCATION", what.location)
      .field("SERVER", what.server)
      .field("ST", what.type)
      .field("USN", what.name);
  if (what.version != Version::uda_1_0)
    head.field("BOOTID.UPNP.ORG", what.boot_id).field("CONFIGID.UPNP.ORG", what.config_id);
  return head.take();
}

std::string location_url(const Address& address, std::uint16_t http_port, std::string_view path) {
  const auto host = address.is_v4() ? address.to_string() : '[' + address.to_string() + ']';
  return "http://" + host + ':' + std::to_string(http_port) + std::string{path};
}

}  // namespace sallyport::upnp::ssdp
