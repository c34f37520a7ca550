#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nat/plane/data_plane.hpp"
#include "sallyport/values/address.hpp"
#include "sallyport/values/port.hpp"
#include "sallyport/values/transport.hpp"
#include "src/lease/lease_service.hpp"
#include "src/transport/network_state.hpp"

namespace sallyport::daemon {

enum class Protocol : std::uint8_t { pcp, natpmp, upnp };
/// Octets; what a DESCRIPTION option of PCP may carry (RFC 7220).
inline constexpr std::uint32_t longest_description = 1016;

enum class PlaneChoice : std::uint8_t { automatic, tun, ebpf };

/// Every key of sallyport.toml, with its default; examples/sallyport.toml says what each does.
struct Config {
  struct ListenInterface {
    std::string name;
    std::vector<Protocol> protocols;
  };
  struct Listen {
    std::vector<std::string> lan{"br0"};
    std::vector<std::string> wan{"eth0"};
    std::vector<Prefix> lan_prefixes;                 ///< empty: "auto"
    std::optional<std::vector<std::string>> control;  ///< empty: "all"
    std::vector<Protocol> protocols{Protocol::pcp, Protocol::natpmp, Protocol::upnp};
    std::uint16_t http_port = 5000;
    bool anycast = true;              ///< PCP is answered at 192.0.0.9 too (RFC 7723)
    std::uint32_t igd_version = 2;
    std::uint32_t uda_minor = 1;      ///< of the UPnP version told: 1.0 or 1.1 (UPNP-X-11)
    std::uint32_t multicast_ttl = 2;  ///< of SSDP (UDA-1.2-13)
    std::vector<ListenInterface> interfaces;
  } listen;
  struct Engine {
    PlaneChoice data_plane = PlaneChoice::automatic;
    std::vector<Address> external_addresses;
    PortRange pool{1024, 60999};
    std::vector<Prefix> no_translate;
    bool ipv6 = true;             ///< the firewall stands before IPv6 too
    std::uint32_t mss_clamp = 1;  ///< as nat::PlanePolicy has it: 0 off, 1 auto
    bool random_ports = false;
    bool redirect = false;
    std::uint32_t tun_queues = 0;  ///< as nat::TunOptions has it
    std::uint32_t tcp_established = 7440;
    std::uint32_t tcp_transitory = 240, tcp_half_open = 240;
    std::uint32_t udp_idle = 300;
    std::uint32_t icmp_query = 60;
  } engine;
  struct Admin {
    std::string socket = "/run/sallyport/admin.sock";
  } admin;
  struct Log {
    std::string level = "info";
    bool mappings = false;  ///< a line for each mapping of outbound traffic
  } log;
  std::vector<lease::StaticMapping> statics;
  struct Policy {
    bool list_own = false;  ///< "own" instead of "all"
    std::vector<Prefix> third_party;
    PortRange external_ports{1024, 65535};
    PortRange upnp_internal_ports{1024, 65535};
    std::vector<std::pair<Transport, Port>> reserved_ports;
    std::uint32_t reuse_delay = 120;
    bool reuse_strict = false;
    std::vector<lease::PolicyRule> rules;
  } policy;
  struct Limits {
    std::uint32_t leases_per_device = 1024;
    std::uint32_t leases_total = 65536;
    std::uint32_t ports_per_set = 256;
    std::uint32_t requests_per_second = 2000;
    std::uint32_t mappings_per_device = 16384;
    std::uint32_t new_mappings_per_second = 0;
    std::uint32_t flows_per_device = 65536;
    std::uint32_t flows_total = 262144;
    std::uint32_t icmp_ids_per_device = 1024;
    std::uint32_t fragments_per_source = 256;
    std::uint32_t fragments_total = 8192;
    std::uint32_t connections_per_device = 8;
    std::uint32_t connections_total = 512;
    std::uint32_t subscriptions_per_device = 8;
    std::uint32_t subscriptions_total = 256;
    std::uint32_t searches_per_second = 10;
    std::uint32_t searches_total = 100;
    std::uint32_t http_head = 16384;
    std::uint32_t http_body = 65536;
    std::uint32_t http_head_timeout = 10;
    std::uint32_t http_request_timeout = 30;
    std::uint32_t http_idle_timeout = 30;
    std::uint32_t description = 255;
  } limits;
  struct Lifetimes {
    std::uint32_t pcp_min = 120;
    std::uint32_t pcp_max = 86400;
    std::uint32_t natpmp_max = 86400;
    std::uint32_t upnp_max = 604800;
    bool upnp_v1_permanent = true;
    std::uint32_t subscription = 1800;
    std::uint32_t subscription_max = 86400;
  } lifetimes;
  struct Filtering {
    nat::Filtering implicit = nat::Filtering::address;
    bool answer_ping = true;
    bool icmp_to_lan = true, icmp_to_wan = true;
    bool drop_private_wan_sources = false;
    std::uint32_t fragment_timeout = 15;
    nat::Ending ended_leases = nat::Ending::reset;
  } filtering;
  struct Store {
    std::string dir = "/var/lib/sallyport";
    bool sync = true;
    bool on_error_memory = false;  ///< "memory" instead of "refuse"
  } store;

  /// True when `protocol` is spoken on the LAN interface `name`: it is on, the interface is not a guest's,
  /// and no
  /// [[listen.interface]] of it says otherwise.
  bool speaks(Protocol protocol, std::string_view name) const;
  /// True when anything is spoken there.
  bool serves(std::string_view name) const;

  lease::LeasePolicy lease_policy() const;
  nat::PlanePolicy plane_policy() const;
  transport::NetworkWishes network_wishes() const;
};

/// What the command line says; it beats the files.
struct Flags {
  std::optional<std::filesystem::path> config;  ///< only this file is read
  std::vector<std::string> lan;
  std::optional<std::string> wan;
  std::vector<std::string> external_addresses;
  std::optional<std::string> data_plane;
  std::optional<std::string> state_dir;
  std::optional<std::string> admin_socket;
  std::optional<std::string> log_level;
};

/// The configuration, or every problem found, one sentence each: "FILE:LINE:COLUMN: KEY: what was found, what
/// was expected". `config` means nothing while `problems` has an entry.
struct Loaded {
  Config config;
  std::vector<std::string> problems;
  bool bad_flags = false;  ///< some of them are about the command line
};

/// Reads `flags.config`, or /etc/sallyport/sallyport.toml (which may be missing) and then conf.d/*.toml
/// beside it in the order of their names: later files override keys, and add to [[static]], [[policy.rule]],
/// [[listen.interface]].
Loaded load_config(const Flags& flags);
/// The same from texts, for tests: name and content of each file.
Loaded load_config(const std::vector<std::pair<std::string, std::string>>& files, const Flags& flags = {});

/// Where the files are looked for without --config.
constexpr std::string_view default_config = "/etc/sallyport/sallyport.toml";

}  // namespace sallyport::daemon
