#include "src/client/words.hpp"

#include "src/client/netcheck/address_kind.hpp"

namespace sallyport::client {
namespace {

struct ClientCategory final : boost::system::error_category {
  const char* name() const noexcept override { return "sallyport.client"; }
  std::string message(int value) const override {
    switch (static_cast<Errc>(value)) {  // no default: the compiler names a forgotten reason
      case Errc::no_network:
        return "this host has no network by which a gateway could be asked";
      case Errc::no_gateway:
        return "no gateway on this network opens ports by PCP, NAT-PMP or UPnP; it may be switched off there";
      case Errc::no_answer:
        return "the gateway does not answer any more";
      case Errc::not_authorized:
        return "the gateway's owner does not let this host open this port";
      case Errc::no_resources:
        return "the gateway has no room for another port, or this host has its share";
      case Errc::port_taken:
        return "the external port asked for is taken";
      case Errc::no_external_address:
        return "the gateway is itself without an address on the internet";
      case Errc::behind_other_nat:
        return "another NAT lies between this host and the gateway that answers";
      case Errc::not_possible:
        return "the gateway cannot do what was asked for";
      case Errc::nonsense:
        return "the gateway answers what no gateway should";
      case Errc::revoked:
        return "the gateway's administrator took the port back";
      case Errc::network_changed:
        return "this host's network has changed";
      case Errc::closed:
        return "the port was closed";
      case Errc::busy:
        return "the same is being waited for already";
      case Errc::bad_request:
        return "the request contradicts itself";
    }
    return "unknown reason";
  }
};

std::string port_text(const PortRequest& request) {
  return std::string{to_string(request.transport)} + " port " +
         std::to_string(request.internal_port.number());
}

std::string by_text(const Grant& grant) {
  return "by " + std::string{to_string(grant.protocol)} + " at " + grant.gateway.to_string();
}

std::string retry_text(const Event& event) {
  if (!event.retry_in) return "; asked again when the network changes";
  return "; asked again in " + std::to_string(event.retry_in->count()) + " s";
}

std::string place_text(const Grant& grant) {
  if (grant.external.address.is_unspecified())
    return "external port " + std::to_string(grant.external.port.number()) +
           " (the gateway tells no address)";
  return to_string(grant.external);
}

/// What the world makes of the address, when that is nothing.
std::string warning_text(const Grant& grant) {
  const auto& address = grant.external.address;
  if (address.is_unspecified() || is_public(kind_of(address))) return {};
  return "; the internet does not know " + address.to_string() +
         ", so it will not come in by it: another NAT stands behind this gateway";
}

}  // namespace

const boost::system::error_category& client_category() noexcept {
  static const ClientCategory category;
  return category;
}

std::string_view word(const boost::system::error_code& error) noexcept {
  if (error.category() != client_category()) return "other";
  switch (static_cast<Errc>(error.value())) {
    case Errc::no_network:
      return "no_network";
    case Errc::no_gateway:
      return "no_gateway";
    case Errc::no_answer:
      return "no_answer";
    case Errc::not_authorized:
      return "not_authorized";
    case Errc::no_resources:
      return "no_resources";
    case Errc::port_taken:
      return "port_taken";
    case Errc::no_external_address:
      return "no_external_address";
    case Errc::behind_other_nat:
      return "behind_other_nat";
    case Errc::not_possible:
      return "not_possible";
    case Errc::nonsense:
      return "nonsense";
    case Errc::revoked:
      return "revoked";
    case Errc::network_changed:
      return "network_changed";
    case Errc::closed:
      return "closed";
    case Errc::busy:
      return "busy";
    case Errc::bad_request:
      return "bad_request";
  }
  return "other";
}

std::string_view to_string(Family family) noexcept { return family == Family::ipv4 ? "ipv4" : "ipv6"; }

std::string_view to_string(EventKind kind) noexcept {
  switch (kind) {
    case EventKind::granted:
      return "granted";
    case EventKind::renewed:
      return "renewed";
    case EventKind::changed:
      return "changed";
    case EventKind::revoked:
      return "revoked";
    case EventKind::lost:
      return "lost";
    case EventKind::refused:
      return "refused";
    case EventKind::closed:
      return "closed";
  }
  return "unknown";
}

std::string event_text(const Event& event, const PortRequest& request) {
  const auto port = port_text(request);
  const auto& grant = event.grant;
  switch (event.kind) {
    case EventKind::granted:
    case EventKind::renewed: {
      if (!grant) break;
      const auto how_long = grant->lifetime.count() == 0
                                ? std::string{"until it is closed"}
                                : "for " + std::to_string(grant->lifetime.count()) + " s";
      return port + (event.kind == EventKind::granted ? " is open at " : " stays open at ") +
             place_text(*grant) + " (" + by_text(*grant) + ", " + how_long + ", kept open)" +
             (event.kind == EventKind::granted ? warning_text(*grant) : std::string{});
    }
    case EventKind::changed:
      if (!grant) break;
      return port + " is open elsewhere now: at " + place_text(*grant) +
             (event.former ? ", before at " + place_text(*event.former) : std::string{}) + " (" +
             by_text(*grant) + ")" + warning_text(*grant);
    case EventKind::revoked:
      return port +
             " was taken back by the gateway though it had lost nothing: its administrator's doing, most "
             "likely" +
             (grant ? " (" + by_text(*grant) + ")" : std::string{});
    case EventKind::lost:
      return port + " is not open any more: " + event.reason.message() + "; asking again";
    case EventKind::refused:
      return port + " cannot be opened by " + std::string{to_string(event.family)} + ": " +
             event.reason.message() + retry_text(event);
    case EventKind::closed:
      return port + " is closed";
  }
  return port;
}

std::string refusal_text(const Event& event, const PortRequest& request, const Grant& by, unsigned code) {
  return port_text(request) + " cannot be opened: " + event.reason.message() + " (" + by_text(by) +
         (code == 0 ? std::string{} : ", its code " + std::to_string(code)) + ")" + retry_text(event);
}

}  // namespace sallyport::client
