#pragma once

#include <boost/system/error_code.hpp>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "protocols/upnp/http/asker.hpp"
#include "protocols/upnp/http/url.hpp"
#include "protocols/upnp/soap/client.hpp"
#include "protocols/wire/jitter.hpp"
#include "protocols/wire/mapping_client.hpp"
#include "sallyport/values/address.hpp"
#include "sallyport/values/result.hpp"
#include "sallyport/values/time.hpp"

/// The Internet Gateway Device as a control point sees it.
namespace sallyport::upnp::igd {

/// A service of a gateway and where it is asked.
struct Connection {
  std::string service_type;  ///< with the version
  unsigned version = 1;
  bool ppp = false;  ///< WANPPPConnection
  Address host;
  std::uint16_t port = 80;
  std::uint32_t interface = 0;  ///< index of the interface it was found by
  std::string target;           ///< control URL in origin form
  std::string service_id;       ///< as Layer3Forwarding names it
  std::string udn;              ///< of its device
  friend bool operator==(const Connection&, const Connection&) = default;
};

/// The POST that asks one of its actions.
http::Ask ask_action(const Connection& service, std::string_view name,
                     std::span<const soap::InArgument> arguments = {});

/// What a description says, as far as it matters here. Texts are UTF-8, cut to max_text octets.
struct GatewayDescription {
  std::string friendly_name, manufacturer, model_name, model_number, udn;
  unsigned igd_version = 1;
  std::vector<Connection> connections;   ///< WANIPConnection and WANPPPConnection, in document order
  std::optional<Connection> firewall6;   ///< WANIPv6FirewallControl
  std::optional<Connection> forwarding;  ///< Layer3Forwarding
};

inline constexpr std::size_t max_description = 64 * 1024;  ///< octets
inline constexpr std::size_t max_connections = 16;         ///< further ones are left out
inline constexpr std::size_t max_text = 256;

enum class DescriptionErrc {
  no_xml = 1,  ///< not well-formed, too long, a DOCTYPE, or not a description at all
  no_gateway,  ///< a description without any service that maps ports
};
const boost::system::error_category& description_category() noexcept;
inline boost::system::error_code make_error_code(DescriptionErrc error) noexcept {
  return {static_cast<int>(error), description_category()};
}

/// Reads the document that was got from `location`. What is not known in it is ignored (UDA-2-15); a service
/// whose control URL leads to another host is left out (UDA-1.3-19).
Result<GatewayDescription> read_description(std::string body, const http::Url& location,
                                            std::uint32_t interface);

/// Learns a gateway from the URL of its description: which connection leads outside, and by which address.
///
/// Holds no socket and reads no clock or random device. Never more than one ask is in flight. What fails is
/// tried again, ever more seldom, also once the state says failed.
class ControlPoint final : public http::Asker {
 public:
  enum class State : std::uint8_t {
    learning,
    ready,   ///< description() is there; connection() too unless the gateway has pinholes only
    failed,  ///< see failure() and words(); it may still become ready
  };

  ControlPoint(http::Url location, std::uint32_t interface, std::uint64_t seed, TimePoint now);

  std::optional<http::NumberedAsk> poll_ask() override;
  void handle_reply(std::uint64_t id, const Result<http::Reply>& reply, TimePoint now) override;
  void handle_timeout(TimePoint now);
  std::optional<TimePoint> next_deadline() const { return due_; }

  State state() const noexcept { return state_; }
  wire::MappingFailure failure() const noexcept { return failure_; }  ///< of failed
  const std::string& words() const noexcept { return words_; }        ///< of failed: why, for people
  const http::Url& location() const noexcept { return location_; }
  const GatewayDescription& description() const noexcept { return description_; }
  /// The service to map ports at: the one that is connected (L3F-04). Null: none, or not yet known.
  const Connection* connection() const noexcept;
  /// As the gateway says, unchecked; empty while it has none or none is known.
  std::optional<Address> external_address() const noexcept { return external_address_; }
  /// True once GetExternalIPAddress was answered, whatever it said.
  bool address_asked() const noexcept { return address_asked_; }
  /// This host's address on the connection to the gateway; unspecified before the first answer.
  const Address& local_address() const noexcept { return local_; }

  /// Asks for the external address again. Nothing happens while something is asked, or before the state is
  /// ready.
  void refresh_address(TimePoint now);

 private:
  enum class Step : std::uint8_t { describe, default_connection, status, address };

  void schedule(Step step, TimePoint at);
  void handle_description(const http::Reply& reply, TimePoint now);
  void handle_answer(const http::Reply& reply, TimePoint now);
  void choose(std::size_t index, TimePoint now);
  void ask_next_status(TimePoint now);
  void fail(wire::MappingFailure failure, std::string words, TimePoint now, bool soon);

  http::Url location_;
  std::uint32_t interface_;
  wire::Jitter jitter_;
  State state_ = State::learning;
  Step step_ = Step::describe;
  bool asking_ = false;  ///< poll_ask() has something to give
  std::optional<std::uint64_t> in_flight_;
  std::uint64_t last_id_ = 0;
  std::optional<TimePoint> due_;
  unsigned failures_ = 0;
  wire::MappingFailure failure_{};
  std::string words_;
  GatewayDescription description_;
  std::vector<std::size_t> candidates_;  ///< indexes of connections, the default one first
  std::size_t candidate_ = 0;
  std::optional<std::size_t> chosen_;
  std::optional<Address> external_address_;
  bool address_asked_ = false;
  Address local_;
};

}  // namespace sallyport::upnp::igd

template <>
struct boost::system::is_error_code_enum<sallyport::upnp::igd::DescriptionErrc> : std::true_type {};
