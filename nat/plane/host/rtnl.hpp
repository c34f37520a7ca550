#pragma once

#include <compare>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "sallyport/values/address.hpp"
#include "sallyport/values/result.hpp"

struct mnl_socket;

/// What planes ask of rtnetlink, for IPv4 (Net, Rule, Route) and IPv6 (Net6, Rule6, Route6). Calls
/// wait for the kernel's answer, which comes at once. Errors are errno values of the generic category.
namespace sallyport::nat::host {

/// Marks our rules and routes (FRA_PROTOCOL, rtm_protocol), so that only ours are ever removed.
constexpr std::uint8_t our_protocol = 0x53;

constexpr std::uint32_t table_local = 255;
constexpr std::uint32_t table_main = 254;

/// An IPv4 prefix in host order. Length 0 is everything.
struct Net {
  std::uint32_t address = 0;
  std::uint8_t length = 0;
  static constexpr Net of(const Prefix& prefix) noexcept {
    const std::uint8_t bits = prefix.v4_bits();
    return {bits == 0 ? 0 : prefix.address.v4_number() & ~std::uint32_t{0} << (32 - bits), bits};
  }
  static constexpr Net host(const Address& address) noexcept { return {address.v4_number(), 32}; }
  constexpr bool contains(std::uint32_t other) const noexcept {
    return length == 0 || (address ^ other) >> (32 - length) == 0;
  }
  friend auto operator<=>(const Net&, const Net&) = default;
};

/// An IPv6 prefix, host bits cleared. Length 0 is everything.
struct Net6 {
  Address address;
  std::uint8_t length = 0;
  static Net6 of(const Prefix& prefix) noexcept;
  static constexpr Net6 host(const Address& address) noexcept { return {address, 128}; }
  bool contains(const Address& other) const noexcept { return Prefix{address, length}.contains(other); }
  friend auto operator<=>(const Net6&, const Net6&) = default;
};

enum class RuleAction : std::uint8_t { lookup = 1, jump = 2, nop = 3, blackhole = 6 };  // FR_ACT_*

/// A routing policy rule; the defaults match everything.
template <class Net>
struct BasicRule {
  std::uint32_t priority = 0;
  std::string iif;
  Net from;
  Net to;
  std::uint8_t ip_protocol = 0;
  std::uint16_t port_first = 0;  ///< destination ports; 0: all
  std::uint16_t port_last = 0;
  RuleAction action = RuleAction::lookup;
  std::uint32_t target = 0;       ///< a table, or the priority to jump to
  bool no_default_route = false;  ///< suppress_prefixlength 0
  friend auto operator<=>(const BasicRule&, const BasicRule&) = default;
};
using Rule = BasicRule<Net>;
using Rule6 = BasicRule<Net6>;

enum class RouteKind : std::uint8_t { unicast = 1, blackhole = 6, throw_ = 9 };  // RTN_*

template <class Net>
struct BasicRoute {
  std::uint32_t table = 0;
  Net to;
  std::uint32_t metric = 0;
  RouteKind kind = RouteKind::unicast;
  std::uint32_t device = 0;  ///< interface index, of unicast routes
  std::uint32_t source = 0;  ///< preferred source address, host order; 0: none (IPv4 only)
  friend auto operator<=>(const BasicRoute&, const BasicRoute&) = default;
  /// Whether the kernel would hold only one of the two.
  bool same_place(const BasicRoute& other) const noexcept {
    return table == other.table && to == other.to && metric == other.metric;
  }
};
using Route = BasicRoute<Net>;
using Route6 = BasicRoute<Net6>;

struct Link {
  std::uint32_t index = 0;
  std::uint32_t master = 0;  ///< the bridge, bond or VRF that it is a part of
  std::string name;
  bool is_loopback = false;
};

class Rtnl {
 public:
  static Result<Rtnl> open();
  Rtnl(Rtnl&&) noexcept;
  ~Rtnl();

  /// Our rules, and whether the kernel's own rule 0 (lookup local) stands.
  template <class Net>
  struct Rules {
    std::vector<BasicRule<Net>> ours;
    bool local_first = false;
  };
  template <class Net>
  Result<Rules<Net>> rules();
  template <class Net>
  Result<void> add(const BasicRule<Net>& rule);  ///< one that stands already is success
  template <class Net>
  Result<void> remove(const BasicRule<Net>& rule);  ///< one that is gone is success
  Result<void> add_local_first();
  Result<void> remove_local_first();

  template <class Net>
  Result<std::vector<BasicRoute<Net>>> our_routes(std::uint32_t table);
  template <class Net>
  Result<void> put(const BasicRoute<Net>& route);  ///< in place of the one at the same place
  template <class Net>
  Result<void> remove(const BasicRoute<Net>& route);  ///< one that is gone is success

  Result<std::vector<Link>> links();

  /// The interface by which the router itself would reach an address; empty where it could not.
  std::optional<std::uint32_t> leaves_by(const Address& address);
  /// The interface that a prefix is reached by; its first addresses may be the router's own.
  std::optional<std::uint32_t> way_into(const Prefix& prefix);

  /// 0 is "leave as it is" for both numbers.
  Result<void> set_link(std::uint32_t index, std::uint32_t mtu, std::uint32_t queue_length, bool up);

 private:
  explicit Rtnl(mnl_socket* socket);
  struct Close {
    void operator()(mnl_socket* socket) const noexcept;
  };
  template <class Net>
  Result<void> change_rule(const BasicRule<Net>& rule, std::uint16_t type, std::uint16_t flags,
                           std::uint8_t protocol);
  template <class Net>
  Result<void> change_route(const BasicRoute<Net>& route, std::uint16_t type, std::uint16_t flags);
  template <class OnMessage>
  Result<void> talk(void* request, OnMessage&& on_message);

  std::unique_ptr<mnl_socket, Close> socket_;
  std::uint32_t sequence_ = 0;
};

}  // namespace sallyport::nat::host
