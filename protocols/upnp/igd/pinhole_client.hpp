#pragma once

#include <cstdint>
#include <string>

#include "protocols/upnp/igd/service_client.hpp"

namespace sallyport::upnp::igd {

/// Keeps one pinhole at a WANIPv6FirewallControl. External and internal endpoint are the same.
class PinholeClient final : public ServiceClient {
 public:
  /// `internal` is this host's global IPv6 address that is to be reached.
  PinholeClient(const Connection& firewall, wire::MappingWish wish, const Address& internal,
                std::uint64_t seed, TimePoint now);

 private:
  http::Ask make_ask(Step step) override;
  std::string_view action_of(Step step) const override;
  void handle_answer(Step step, const soap::Answer& answer, TimePoint now) override;
  void handle_refusal(Step step, const soap::Refusal& refusal, TimePoint now) override;
  void handle_late_grant(const soap::Answer& answer) override;
  bool is_ours(const soap::Answer&) const override { return false; }
  bool can_check() const noexcept override { return false; }  // without its number it cannot be found
  Step first_step() const noexcept override { return Step::check; }
  Step renewal_step() const noexcept override { return Step::renew; }
  Step refresh_step() const noexcept override { return held_ ? Step::add : Step::check; }

  std::string remote_host_;
  std::uint16_t remote_port_ = 0;
  std::uint32_t lease_s_;
  std::string unique_id_;  ///< as the gateway wrote it
};

}  // namespace sallyport::upnp::igd
