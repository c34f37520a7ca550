#pragma once

#include <cstdint>
#include <string>

#include "protocols/upnp/igd/service_client.hpp"

namespace sallyport::upnp::igd {

/// Keeps one mapping at a WANIPConnection, version 1 or 2, or a WANPPPConnection, whatever their habits.
class PortMappingClient final : public ServiceClient {
 public:
  /// `internal` is this host's IPv4 address, as the gateway sees it.
  PortMappingClient(const Connection& connection, wire::MappingWish wish, const Address& internal,
                    std::uint64_t seed, TimePoint now);

  /// What GetExternalIPAddress says; the unspecified address for none. A mapping that is held tells of it as
  /// changed.
  void set_external_address(const Address& address) { set_external(address); }

 private:
  /// Ever less is asked for where the gateway chokes on something and does not say on what.
  enum class Form : std::uint8_t { full, plain_description, permanent };

  http::Ask make_ask(Step step) override;
  std::string_view action_of(Step step) const override;
  void handle_answer(Step step, const soap::Answer& answer, TimePoint now) override;
  void handle_refusal(Step step, const soap::Refusal& refusal, TimePoint now) override;
  void handle_late_grant(const soap::Answer& answer) override;
  bool is_ours(const soap::Answer& answer) const override;
  bool can_check() const noexcept override { return true; }
  Step first_step() const noexcept override { return Step::add; }
  Step renewal_step() const noexcept override { return no_check_ ? Step::renew : Step::check; }
  Step refresh_step() const noexcept override { return held_ ? Step::renew : Step::add; }

  void handle_check(const soap::Answer& answer, TimePoint now);
  void handle_check_refusal(const soap::Refusal& refusal, TimePoint now);
  void handle_add_refusal(Step step, const soap::Refusal& refusal, TimePoint now);
  void try_other_port(unsigned code, TimePoint now);
  void try_lesser_form(Step step, unsigned code, TimePoint now);
  void give_up(wire::MappingFailure failure, unsigned code, TimePoint now, bool again = true);
  Port wished_port() const noexcept { return wish_.external_port.value_or(wish_.internal_port); }
  std::uint32_t lease_s() const noexcept;

  std::string remote_host_;
  Port port_;               ///< the external one that is asked for, or held
  bool asked_any_ = false;  ///< the last `add` was an AddAnyPortMapping
  Form form_ = Form::full;
  bool permanent_only_ = false;             ///< 725 was said
  bool leased_again_ = false;               ///< Form::permanent was looked into once
  bool same_port_ = false;                  ///< 724 was said
  bool no_any_ = false;                     ///< AddAnyPortMapping does not work here
  bool no_check_ = false;                   ///< GetSpecificPortMappingEntry does not work here
  bool verifying_ = false;                  ///< the check is about the lease that was just granted
  unsigned tries_ = 0;                      ///< ports that were taken
  std::uint32_t longest_given_s_ = 604800;  ///< the longest lease there is (WIC-ADD-13), or that it gives
};

}  // namespace sallyport::upnp::igd
