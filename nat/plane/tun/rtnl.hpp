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

/// What the tun plane asks of rtnetlink (IPv4 only). Calls wait for the kernel's answer, which comes at once.
/// Errors are errno values of the generic category.
namespace sallyport::nat::tun {

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

enum class RuleAction : std::uint8_t { lookup = 1, jump = 2, nop = 3, blackhole = 6 };  // FR_ACT_*

/// A routing policy rule; the defaults match everything.
struct Rule {
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
  friend auto operator<=>(const Rule&, const Rule&) = default;
};

enum class RouteKind : std::uint8_t { unicast = 1, blackhole = 6, throw_ = 9 };  // RTN_*

struct Route {
  std::uint32_t table = 0;
  Net to;
  std::uint32_t metric = 0;
  RouteKind kind = RouteKind::unicast;
  std::uint32_t device = 0;  ///< interface index, of unicast routes
  std::uint32_t source = 0;  ///< preferred source address, host order; 0: none
  friend auto operator<=>(const Route&, const Route&) = default;
  /// Whether the kernel would hold only one of the two.
  bool same_place(const Route& other) const noexcept {
    return table == other.table && to == other.to && metric == other.metric;
  }
};

class Rtnl {
 public:
  static Result<Rtnl> open();
  Rtnl(Rtnl&&) noexcept;
  ~Rtnl();

  /// Our rules, and whether the kernel's own rule 0 (lookup local) stands.
  struct Rules {
    std::vector<Rule> ours;
    bool local_first = false;
  };
  Result<Rules> rules();
  Result<void> add(const Rule& rule);     ///< one that stands already is success
  Result<void> remove(const Rule& rule);  ///< one that is gone is success
  Result<void> add_local_first();
  Result<void> remove_local_first();

  Result<std::vector<Route>> our_routes(std::uint32_t table);
  Result<void> put(const Route& route);     ///< in place of the one at the same place
  Result<void> remove(const Route& route);  ///< one that is gone is success

  /// The interface by which the router itself would reach an address; empty where it could not.
  std::optional<std::uint32_t> leaves_by(std::uint32_t address);
  /// The interface that a prefix is reached by; its first addresses may be the router's own.
  std::optional<std::uint32_t> way_into(const Net& net);

  /// 0 is "leave as it is" for both numbers.
  Result<void> set_link(std::uint32_t index, std::uint32_t mtu, std::uint32_t queue_length, bool up);

 private:
  explicit Rtnl(mnl_socket* socket);
  struct Close {
    void operator()(mnl_socket* socket) const noexcept;
  };
  Result<void> change_rule(const Rule& rule, std::uint16_t type, std::uint16_t flags, std::uint8_t protocol);
  Result<void> change_route(const Route& route, std::uint16_t type, std::uint16_t flags);
  template <class OnMessage>
  Result<void> talk(void* request, OnMessage&& on_message);

  std::unique_ptr<mnl_socket, Close> socket_;
  std::uint32_t sequence_ = 0;
};

}  // namespace sallyport::nat::tun
