#pragma once

#include <boost/system/error_code.hpp>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sallyport/values/address.hpp"
#include "sallyport/values/result.hpp"
#include "sallyport/values/time.hpp"

/// The messages of the Simple Service Discovery Protocol as a device hears and sends them: UPnP Device
/// Architecture 1.1 (UDA), section 1 and annex A (IPv6). Pure functions.
namespace sallyport::upnp::ssdp {

inline constexpr std::uint16_t port = 1900;
inline constexpr auto group_v4 = Address::v4(0xeffffffa);  ///< 239.255.255.250
inline constexpr std::size_t max_search = 2048;            ///< octets; longer searches are dropped (POL-DSC-03)
inline constexpr std::size_t max_target = 256;             ///< octets of ST
inline constexpr std::size_t max_message = 1024;           ///< octets of anything sent
inline constexpr unsigned max_mx_s = 5;                    ///< a larger MX means this (UDA 1.3.3)
inline constexpr std::uint32_t max_boot_id = 0x7fffffff;   ///< BOOTID.UPNP.ORG has 31 bits
inline constexpr std::uint32_t max_config_id = 16777215;   ///< what a device may choose itself (UDA 1.2.2)

/// ff02::c, of the link, and ff05::c, of the site.
Address group_link() noexcept;
Address group_site() noexcept;
/// True for the three groups of SSDP.
bool is_group(const Address& address) noexcept;
/// True for fe80::/10.
bool is_link_local(const Address& address) noexcept;

enum class DecodeErrc {
  too_long = 1,  ///< above max_search
  not_a_search,  ///< another start line: a NOTIFY, an answer, or no HTTP at all
  malformed,     ///< no HTTP head: no empty line at its end, a bad field, NUL or a stray CR, a field twice that counts
  incomplete,    ///< HOST, MAN or ST is missing, or MAN says something else
  bad_target,    ///< ST is empty, above max_target, or has control characters or octets beyond ASCII
};
const boost::system::error_category& decode_category() noexcept;
inline boost::system::error_code make_error_code(DecodeErrc error) noexcept {
  return {static_cast<int>(error), decode_category()};
}

/// An M-SEARCH that is complete but for MX, which only a multicast one needs.
struct Search {
  std::string target;              ///< ST without the blanks around it; 1..max_target printable ASCII characters
  std::optional<unsigned> mx_s{};  ///< 1..max_mx_s; empty: missing, below 1, or not a number
  friend bool operator==(const Search&, const Search&) = default;
};

/// Reads a datagram (UDA 1.3.2). Field names match in any case, fields that are not known do not count, lines may
/// end without CR, and what follows the head is not looked at. Linear in the datagram's length.
Result<Search> decode_search(std::span<const std::byte> datagram);

/// Which UDA a device says it follows. 1.0 knows no BOOTID, CONFIGID and ssdp:update (UPNP-X-11).
enum class Version : std::uint8_t { uda_1_0, uda_1_1 };

/// `Linux/6.1 UPnP/1.1 Sallyport/1.0` from the tokens around (UDA 1.2.2). They are printable ASCII.
std::string server_text(std::string_view system, Version version, std::string_view product);

enum class NotifyKind : std::uint8_t { alive, update, byebye };

/// What the messages about one target say. The texts are printable ASCII.
struct Announcement {
  std::string_view type;      ///< NT or ST
  std::string_view name;      ///< USN
  std::string_view location;  ///< absolute URL of the description; byebye has none
  std::string_view server;    ///< server_text()
  std::uint32_t max_age_s = 1800;
  std::uint32_t boot_id = 0;
  std::uint32_t config_id = 0;
  Version version = Version::uda_1_1;
};

/// A NOTIFY to `group` (UDA 1.2.2, 1.2.3, 1.2.4). `next_boot_id` is that of an update.
std::vector<std::byte> encode_notify(NotifyKind kind, const Announcement& what, const Address& group,
                                     std::uint32_t next_boot_id = 0);
/// An answer to a search (UDA 1.3.3).
std::vector<std::byte> encode_answer(const Announcement& what, WallTime date);

/// `http://192.168.1.1:5000/root.xml`; IPv6 in brackets and without a zone (UDA annex A). `path` starts with '/'.
std::string location_url(const Address& address, std::uint16_t http_port, std::string_view path);

}  // namespace sallyport::upnp::ssdp

template <>
struct boost::system::is_error_code_enum<sallyport::upnp::ssdp::DecodeErrc> : std::true_type {};
