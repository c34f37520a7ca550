#pragma once

#include <array>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "protocols/upnp/description/render.hpp"
#include "protocols/upnp/gena/publisher.hpp"
#include "protocols/upnp/http/admission.hpp"
#include "protocols/upnp/http/message.hpp"
#include "protocols/upnp/igd/device_tree.hpp"
#include "protocols/upnp/igd/wan_link.hpp"
#include "protocols/upnp/soap/request.hpp"
#include "sallyport/values/entry_service.hpp"
#include "sallyport/values/mapping_service.hpp"
#include "sallyport/values/pinhole_service.hpp"

namespace sallyport::upnp::igd {

struct ServerOptions {
  TreeOptions tree;
  bool list_own = false;          ///< lists show a device its own entries only (POL-OWN-08)
  bool v1_permanent = true;       ///< lease 0 of a version 1 request is permanent (UPNP-X-01)
  std::uint32_t udp_idle_s = 300, tcp_established_s = 7440;  ///< for GetOutboundPinholeTimeout
};

/// The Internet Gateway Device: everything that is asked of it by HTTP, on MappingService, EntryService and
/// PinholeService.
///
/// Holds no socket and reads no clock. Requests go to handle(); answers that wait for the lease service come
/// when it calls back. As a listener of the service (it registers itself) it keeps the evented variables
/// true: after every call that may have driven the service call settle(), then drain events(). Control thread
/// only.
class Server final : public ServiceListener {
 public:
  struct Dependencies {
    MappingService& mappings;
    EntryService& entries;
    PinholeService& pinholes;
    std::function<WanLink()> wan;  ///< the WAN interface now; called when a request asks about it
    gena::Publisher::Random random;
  };

  /// Error: that of make_tree(). The services outlive the server.
  static Result<std::unique_ptr<Server>> make(Dependencies dependencies, const ServerOptions& options, TimePoint now);
  ~Server() override;
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  /// `done` runs exactly once, now or later, unless the server ends before.
  void handle(http::Request request, TimePoint now, http::Done done);

  /// The gateway's LAN addresses: a request may name any of them as its Host.
  void set_own_addresses(std::vector<Address> own) { own_ = std::move(own); }
  void set_options(const ServerOptions& options) noexcept;  ///< all but the tree

  /// The WAN interface may have come, gone, or found or lost its link.
  void link_changed(TimePoint now);
  /// Brings the evented variables up to date.
  void settle(TimePoint now);
  gena::Publisher& events() noexcept { return events_; }

  const description::Tree& tree() const noexcept { return tree_; }
  std::uint32_t config_id() const noexcept { return config_id_; }

  void on_lease(const LeaseEvent& event, TimePoint now) override;
  void on_external_address(const std::optional<Address>& address, TimePoint now) override;

 private:
  /// Where a request came from, and how to answer it.
  struct Context {
    Contact contact;
    bool wants_version_1 = false;  ///< see wants_version_1()
    TimePoint now;
    http::Done done;
  };
  using Run = void (Server::*)(const soap::Call& call, Context& context);
  struct Route {
    std::string_view action;
    Run run;
  };
  /// How far a device has come in walking the list by index, so that the walk meets each entry once though
  /// others add and delete meanwhile.
  struct Walk {
    std::uint32_t next_index = 0;
    std::uint64_t position = 0;
    TimePoint at;
  };

  Server(Dependencies dependencies, const ServerOptions& options, description::Tree tree,
         description::Tree old_tree, TimePoint now);
  void add_routes();
  void control(http::Request request, const description::ServiceTable& table, TimePoint now, http::Done done);
  static bool wants_version_1(const http::Request& request) noexcept;
  static const Route* find_route(std::string_view action) noexcept;

  // WANIPConnection
  void set_connection_type(const soap::Call&, Context&);
  void get_connection_type_info(const soap::Call&, Context&);
  void request_connection(const soap::Call&, Context&);
  void terminate(const soap::Call&, Context&);
  void get_status_info(const soap::Call&, Context&);
  void get_nat_rsip_status(const soap::Call&, Context&);
  void get_generic_entry(const soap::Call&, Context&);
  void get_specific_entry(const soap::Call&, Context&);
  void add_entry(const soap::Call&, Context&);
  void delete_entry(const soap::Call&, Context&);
  void delete_range(const soap::Call&, Context&);
  void get_list(const soap::Call&, Context&);
  void get_external_address(const soap::Call&, Context&);
  // WANCommonInterfaceConfig
  void get_link_properties(const soap::Call&, Context&);
  void get_traffic(const soap::Call&, Context&);
  // Layer3Forwarding
  void get_default_connection(const soap::Call&, Context&);
  void set_default_connection(const soap::Call&, Context&);
  // WANIPv6FirewallControl
  void get_firewall_status(const soap::Call&, Context&);
  void get_outbound_timeout(const soap::Call&, Context&);
  void add_pinhole(const soap::Call&, Context&);
  void update_pinhole(const soap::Call&, Context&);
  void delete_pinhole(const soap::Call&, Context&);
  void look_at_pinhole(const soap::Call&, Context&);
  unsigned no_pinholes_code() const;

  std::optional<Entry> entry_by_index(const Address& requester, std::uint32_t index, TimePoint now);
  void update_connection(TimePoint now);
  std::string_view connection_status() const;
  std::string_view link_status() const;
  http::Response welcome(const Address& visitor) const;
  /// Another text whenever some device's external address is another one.
  std::string external_state() const;

  MappingService& mappings_;
  EntryService& entries_;
  PinholeService& pinholes_;
  const std::function<WanLink()> wan_;
  ServerOptions options_;
  const description::Tree tree_;
  const std::uint32_t config_id_;
  /// What clients that give up at anything of version 2 are shown: the same device as version 1.
  const description::Tree old_tree_;
  const std::vector<description::Document> documents_, old_documents_;
  const std::string default_connection_, old_default_connection_;
  std::vector<Address> own_;
  http::Router router_;
  TimePoint now_{};  ///< of the request that the router is handling
  gena::Publisher events_;
  std::size_t wan_ip_events_ = 0, wan_common_events_ = 0;
  std::optional<std::size_t> firewall_events_;  ///< empty: the tree has no firewall service
  PinholeService::Status firewall_;             ///< as last told

  bool table_changed_ = false, address_changed_ = false, link_changed_ = false;
  std::uint32_t update_id_ = 0;
  bool link_up_ = true;
  std::optional<TimePoint> connected_since_;  ///< with an external address and a link
  std::optional<Address> external_;           ///< the preferred one
  std::uint32_t external_changes_ = 0;        ///< of devices' addresses while that was the same
  std::map<Address, Walk> walks_;
};

}  // namespace sallyport::upnp::igd
