#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>

#include "protocols/upnp/http/message.hpp"
#include "sallyport/values/entry_service.hpp"

namespace sallyport::upnp::igd {

/// The longest lease that WANIPConnection:2 knows, in seconds (WIC-V-05).
inline constexpr std::uint32_t max_lease_s = 604800;

/// The entry's description, or which protocol made it when there is none (WIC-V-06).
std::string_view shown_description(const Entry& entry) noexcept;

/// What GetListOfPortMappings asks for (WANIPConnection:2, section 2.5.21).
struct ListingWish {
  Transport transport = Transport::tcp;
  PortRange external;           ///< the first may be 0
  std::optional<Address> owner; ///< only this device's entries
  std::uint32_t most = 0;       ///< 0: all
};

/// The PortMappingList document in pieces of some 8 KiB; it holds no "]]>". Empty when no
/// entry fits. `entries` outlives the source; remaining times are those at `now`.
std::unique_ptr<http::BodySource> port_listing(const EntryService& entries, const ListingWish& wish, TimePoint now);

}  // namespace sallyport::upnp::igd
