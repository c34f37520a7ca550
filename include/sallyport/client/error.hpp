#pragma once

#include <string_view>

#include <boost/system/error_code.hpp>

namespace sallyport::client {

/// Why the world cannot reach a port, or why a call ended without what it was for. message() is a sentence
/// for people.
enum class Errc {
  no_network = 1,       ///< no interface of this host leads anywhere
  no_gateway,           ///< nothing on the network answers to PCP, NAT-PMP or UPnP
  no_answer,            ///< the gateway was there and does not answer any more; asking goes on
  not_authorized,       ///< the gateway's owner does not let this host have this port
  no_resources,         ///< the gateway has no room, or this host has its share
  port_taken,           ///< the external port asked for is another's, and only it would do
  no_external_address,  ///< the gateway itself has no address outside now
  behind_other_nat,     ///< another NAT lies between this host and the gateway that answers
  not_possible,         ///< the gateway cannot do what was asked for
  nonsense,             ///< the gateway answers what its protocol does not allow
  revoked,              ///< the gateway took the mapping back: its administrator's doing
  network_changed,      ///< the interface or address that the mapping was for has gone
  closed,               ///< the handle, or the client, was closed
  busy,                 ///< the same is being waited for already
  bad_request,          ///< the request contradicts itself
};

/// The category of Errc, "sallyport.client".
const boost::system::error_category& client_category() noexcept;
/// "no_gateway": the same for programs and logs. "other" for an error of another category.
std::string_view word(const boost::system::error_code& error) noexcept;
/// Lets an Errc be an error_code.
inline boost::system::error_code make_error_code(Errc error) noexcept {
  return {static_cast<int>(error), client_category()};
}

}  // namespace sallyport::client

template <>
struct boost::system::is_error_code_enum<sallyport::client::Errc> : std::true_type {};
