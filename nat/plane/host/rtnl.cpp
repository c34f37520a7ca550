#include "nat/plane/host/rtnl.hpp"

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <linux/fib_rules.h>
#include <linux/rtnetlink.h>
#include <net/if.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <type_traits>

#include "nat/plane/host/attributes.hpp"

namespace sallyport::nat::host {
namespace {

boost::system::error_code system_error(int number) { return {number, boost::system::generic_category()}; }

struct Request {
  alignas(nlmsghdr) std::array<char, 1024> bytes{};
  nlmsghdr* head = mnl_nlmsg_put_header(bytes.data());

  Request(std::uint16_t type, std::uint16_t flags) {
    head->nlmsg_type = type;
    head->nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags);
  }
  template <class Header>
  Header* extra() {
    return static_cast<Header*>(mnl_nlmsg_put_extra_header(head, sizeof(Header)));
  }
};

template <class Net>
constexpr std::uint8_t family_of = std::is_same_v<Net, Net6> ? AF_INET6 : AF_INET;

void put_net(nlmsghdr* head, std::uint16_t type, const Net& net) {
  mnl_attr_put_u32(head, type, htonl(net.address));
}
void put_net(nlmsghdr* head, std::uint16_t type, const Net6& net) {
  mnl_attr_put(head, type, net.address.bytes().size(), net.address.bytes().data());
}
void take_address(const nlattr* attribute, Net& net) { net.address = ntohl(mnl_attr_get_u32(attribute)); }
void take_address(const nlattr* attribute, Net6& net) {
  Address::Bytes bytes{};
  std::memcpy(bytes.data(), mnl_attr_get_payload(attribute),
              std::min<std::size_t>(bytes.size(), mnl_attr_get_payload_len(attribute)));
  net.address = Address{bytes};
}

template <class Net>
BasicRule<Net> parse_rule(const nlmsghdr* message, std::uint8_t& protocol) {
  const auto* head = static_cast<const fib_rule_hdr*>(mnl_nlmsg_get_payload(message));
  BasicRule<Net> rule;
  rule.action = static_cast<RuleAction>(head->action);
  rule.from.length = head->src_len;
  rule.to.length = head->dst_len;
  if (rule.action == RuleAction::lookup) rule.target = head->table;
  protocol = 0;
  for_each_attribute(message, sizeof(fib_rule_hdr), [&](const nlattr* attribute) {
    switch (mnl_attr_get_type(attribute)) {
      case FRA_PRIORITY:
        rule.priority = mnl_attr_get_u32(attribute);
        break;
      case FRA_IIFNAME:
        rule.iif = mnl_attr_get_str(attribute);
        break;
      case FRA_SRC:
        take_address(attribute, rule.from);
        break;
      case FRA_DST:
        take_address(attribute, rule.to);
        break;
      case FRA_IP_PROTO:
        rule.ip_protocol = mnl_attr_get_u8(attribute);
        break;
      case FRA_DPORT_RANGE: {
        const auto* range = static_cast<const fib_rule_port_range*>(mnl_attr_get_payload(attribute));
        rule.port_first = range->start;
        rule.port_last = range->end;
        break;
      }
      case FRA_TABLE:
        if (rule.action == RuleAction::lookup) rule.target = mnl_attr_get_u32(attribute);
        break;
      case FRA_GOTO:
        rule.target = mnl_attr_get_u32(attribute);
        break;
      case FRA_SUPPRESS_PREFIXLEN:
        rule.no_default_route = mnl_attr_get_u32(attribute) == 0;
        break;
      case FRA_PROTOCOL:
        protocol = mnl_attr_get_u8(attribute);
        break;
      default:
        break;
    }
  });
  return rule;
}

template <class Net>
std::uint8_t parse_route(const nlmsghdr* message, BasicRoute<Net>& route) {
  const auto* head = static_cast<const rtmsg*>(mnl_nlmsg_get_payload(message));
  route.table = head->rtm_table;
  route.to.length = head->rtm_dst_len;
  route.kind = static_cast<RouteKind>(head->rtm_type);
  for_each_attribute(message, sizeof(rtmsg), [&](const nlattr* attribute) {
    switch (mnl_attr_get_type(attribute)) {
      case RTA_TABLE:
        route.table = mnl_attr_get_u32(attribute);
        break;
      case RTA_DST:
        take_address(attribute, route.to);
        break;
      case RTA_OIF:
        // IPv6 shows the loopback interface for what goes nowhere.
        if (route.kind == RouteKind::unicast) route.device = mnl_attr_get_u32(attribute);
        break;
      case RTA_PRIORITY:
        route.metric = mnl_attr_get_u32(attribute);
        break;
      case RTA_PREFSRC:
        if (family_of<Net> == AF_INET) route.source = ntohl(mnl_attr_get_u32(attribute));
        break;
      default:
        break;
    }
  });
  return head->rtm_protocol;
}

}  // namespace

void Rtnl::Close::operator()(mnl_socket* socket) const noexcept { mnl_socket_close(socket); }
Rtnl::Rtnl(mnl_socket* socket) : socket_{socket} {}
Rtnl::Rtnl(Rtnl&&) noexcept = default;
Rtnl::~Rtnl() = default;

Result<Rtnl> Rtnl::open() {
  mnl_socket* socket = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
  if (!socket) return system_error(errno);
  Rtnl rtnl{socket};
  if (mnl_socket_bind(socket, 0, MNL_SOCKET_AUTOPID) < 0) return system_error(errno);
  // Route dumps are filtered by table in the kernel: a router may hold a full table in `main`.
  int on = 1;
  mnl_socket_setsockopt(socket, NETLINK_GET_STRICT_CHK, &on, sizeof on);
  return rtnl;
}

template <class OnMessage>
Result<void> Rtnl::talk(void* request, OnMessage&& on_message) {
  auto* head = static_cast<nlmsghdr*>(request);
  head->nlmsg_seq = ++sequence_;
  if (mnl_socket_sendto(socket_.get(), head, head->nlmsg_len) < 0) return system_error(errno);
  alignas(nlmsghdr) std::array<char, 32768> answer;
  bool interrupted = false;
  for (;;) {
    const ssize_t size = mnl_socket_recvfrom(socket_.get(), answer.data(), answer.size());
    if (size < 0) {
      if (errno == EINTR) continue;
      return system_error(errno);
    }
    int left = static_cast<int>(size);
    for (const auto* message = reinterpret_cast<const nlmsghdr*>(answer.data()); mnl_nlmsg_ok(message, left);
         message = mnl_nlmsg_next(message, &left)) {
      if (message->nlmsg_seq != sequence_) continue;  // left over from an exchange that failed half way
      interrupted |= (message->nlmsg_flags & NLM_F_DUMP_INTR) != 0;
      if (message->nlmsg_type != NLMSG_ERROR && message->nlmsg_type != NLMSG_DONE) {
        on_message(message);
        continue;
      }
      int error = 0;  // both carry a negative errno, or 0
      if (mnl_nlmsg_get_payload_len(message) >= sizeof error)
        std::memcpy(&error, mnl_nlmsg_get_payload(message), sizeof error);
      if (error < 0) return system_error(-error);
      if (interrupted) return system_error(EAGAIN);  // the table changed under the dump: it may lack entries
      return {};
    }
  }
}

namespace {
constexpr auto ignore = [](const nlmsghdr*) {};
constexpr int dump_attempts = 8;

template <class Net>
BasicRule<Net> local_first_rule() {
  BasicRule<Net> rule;
  rule.target = table_local;
  return rule;
}
}  // namespace

Net6 Net6::of(const Prefix& prefix) noexcept {
  Address::Bytes bytes = prefix.address.bytes();
  for (std::size_t bit = prefix.length; bit < 128; ++bit) bytes[bit / 8] &= ~(std::byte{0x80} >> (bit % 8));
  return {Address{bytes}, prefix.length};
}

template <class Net>
Result<Rtnl::Rules<Net>> Rtnl::rules() {
  for (int attempt = 1;; ++attempt) {
    Request request{RTM_GETRULE, NLM_F_DUMP};
    request.extra<fib_rule_hdr>()->family = family_of<Net>;
    Rules<Net> found;
    const auto result = talk(request.head, [&](const nlmsghdr* message) {
      if (message->nlmsg_type != RTM_NEWRULE) return;
      std::uint8_t protocol = 0;
      BasicRule<Net> rule = parse_rule<Net>(message, protocol);
      if (protocol == our_protocol)
        found.ours.push_back(std::move(rule));
      else if (rule == local_first_rule<Net>())
        found.local_first = true;
    });
    if (result) return found;
    if (result.error().value() != EAGAIN || attempt == dump_attempts) return result.error();
  }
}

template <class Net>
Result<void> Rtnl::change_rule(const BasicRule<Net>& rule, std::uint16_t type, std::uint16_t flags,
                               std::uint8_t protocol) {
  Request request{type, static_cast<std::uint16_t>(NLM_F_ACK | flags)};
  auto* head = request.extra<fib_rule_hdr>();
  head->family = family_of<Net>;
  head->action = static_cast<std::uint8_t>(rule.action);
  head->src_len = rule.from.length;
  head->dst_len = rule.to.length;
  mnl_attr_put_u32(request.head, FRA_PRIORITY, rule.priority);
  mnl_attr_put_u8(request.head, FRA_PROTOCOL, protocol);
  if (!rule.iif.empty()) mnl_attr_put_strz(request.head, FRA_IIFNAME, rule.iif.c_str());
  if (rule.from.length) put_net(request.head, FRA_SRC, rule.from);
  if (rule.to.length) put_net(request.head, FRA_DST, rule.to);
  if (rule.ip_protocol) mnl_attr_put_u8(request.head, FRA_IP_PROTO, rule.ip_protocol);
  if (rule.port_first) {
    const fib_rule_port_range range{rule.port_first, rule.port_last};
    mnl_attr_put(request.head, FRA_DPORT_RANGE, sizeof range, &range);
  }
  if (rule.action == RuleAction::lookup) mnl_attr_put_u32(request.head, FRA_TABLE, rule.target);
  if (rule.action == RuleAction::jump) mnl_attr_put_u32(request.head, FRA_GOTO, rule.target);
  if (rule.no_default_route) mnl_attr_put_u32(request.head, FRA_SUPPRESS_PREFIXLEN, 0);
  return talk(request.head, ignore);
}

template <class Net>
Result<void> Rtnl::add(const BasicRule<Net>& rule) {
  const auto result = change_rule(rule, RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, our_protocol);
  if (!result && result.error().value() == EEXIST) return {};
  return result;
}
template <class Net>
Result<void> Rtnl::remove(const BasicRule<Net>& rule) {
  const auto result = change_rule(rule, RTM_DELRULE, 0, our_protocol);
  if (!result && result.error().value() == ENOENT) return {};
  return result;
}
Result<void> Rtnl::add_local_first() {
  const auto result =
      change_rule(local_first_rule<Net>(), RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, RTPROT_KERNEL);
  if (!result && result.error().value() == EEXIST) return {};
  return result;
}
Result<void> Rtnl::remove_local_first() {
  const auto standing = rules<Net>();
  if (!standing) return standing.error();
  if (!standing->local_first) return {};
  // protocol 0 matches the rule whoever put it back last: the kernel, or an administrator
  const auto result = change_rule(local_first_rule<Net>(), RTM_DELRULE, 0, RTPROT_UNSPEC);
  if (!result && result.error().value() == ENOENT) return {};
  return result;
}

template <class Net>
Result<std::vector<BasicRoute<Net>>> Rtnl::our_routes(std::uint32_t table) {
  for (int attempt = 1;; ++attempt) {
    Request request{RTM_GETROUTE, NLM_F_DUMP};
    request.extra<rtmsg>()->rtm_family = family_of<Net>;
    mnl_attr_put_u32(request.head, RTA_TABLE, table);
    std::vector<BasicRoute<Net>> found;
    const auto result = talk(request.head, [&](const nlmsghdr* message) {
      if (message->nlmsg_type != RTM_NEWROUTE) return;
      BasicRoute<Net> route;
      if (parse_route(message, route) == our_protocol && route.table == table) found.push_back(route);
    });
    if (result || result.error().value() == ENOENT) return found;  // ENOENT: no such table yet
    if (result.error().value() != EAGAIN || attempt == dump_attempts) return result.error();
  }
}

template <class Net>
Result<void> Rtnl::change_route(const BasicRoute<Net>& route, std::uint16_t type, std::uint16_t flags) {
  Request request{type, static_cast<std::uint16_t>(NLM_F_ACK | flags)};
  auto* head = request.extra<rtmsg>();
  head->rtm_family = family_of<Net>;
  head->rtm_dst_len = route.to.length;
  head->rtm_protocol = our_protocol;
  head->rtm_type = static_cast<std::uint8_t>(route.kind);
  head->rtm_scope = route.kind == RouteKind::unicast ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
  mnl_attr_put_u32(request.head, RTA_TABLE, route.table);
  if (route.to.length) put_net(request.head, RTA_DST, route.to);
  if (route.metric) mnl_attr_put_u32(request.head, RTA_PRIORITY, route.metric);
  if (route.device) mnl_attr_put_u32(request.head, RTA_OIF, route.device);
  if (route.source) mnl_attr_put_u32(request.head, RTA_PREFSRC, htonl(route.source));
  return talk(request.head, ignore);
}
template <class Net>
Result<void> Rtnl::put(const BasicRoute<Net>& route) {
  return change_route(route, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE);
}
template <class Net>
Result<void> Rtnl::remove(const BasicRoute<Net>& route) {
  const auto result = change_route(route, RTM_DELROUTE, 0);
  if (!result && result.error().value() == ESRCH) return {};
  return result;
}

template Result<Rtnl::Rules<Net>> Rtnl::rules();
template Result<Rtnl::Rules<Net6>> Rtnl::rules();
template Result<void> Rtnl::add(const Rule&);
template Result<void> Rtnl::add(const Rule6&);
template Result<void> Rtnl::remove(const Rule&);
template Result<void> Rtnl::remove(const Rule6&);
template Result<std::vector<Route>> Rtnl::our_routes(std::uint32_t);
template Result<std::vector<Route6>> Rtnl::our_routes(std::uint32_t);
template Result<void> Rtnl::put(const Route&);
template Result<void> Rtnl::put(const Route6&);
template Result<void> Rtnl::remove(const Route&);
template Result<void> Rtnl::remove(const Route6&);

Result<std::vector<Link>> Rtnl::links() {
  for (int attempt = 1;; ++attempt) {
    Request request{RTM_GETLINK, NLM_F_DUMP};
    request.extra<ifinfomsg>()->ifi_family = AF_UNSPEC;
    mnl_attr_put_u32(request.head, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    std::vector<Link> found;
    const auto result = talk(request.head, [&](const nlmsghdr* message) {
      if (message->nlmsg_type != RTM_NEWLINK) return;
      const auto* head = static_cast<const ifinfomsg*>(mnl_nlmsg_get_payload(message));
      Link& link = found.emplace_back();
      link.index = static_cast<std::uint32_t>(head->ifi_index);
      link.is_loopback = (head->ifi_flags & IFF_LOOPBACK) != 0;
      for_each_attribute(message, sizeof(ifinfomsg), [&](const nlattr* attribute) {
        if (mnl_attr_get_type(attribute) == IFLA_IFNAME) link.name = mnl_attr_get_str(attribute);
        if (mnl_attr_get_type(attribute) == IFLA_MASTER) link.master = mnl_attr_get_u32(attribute);
      });
    });
    if (result) return found;
    if (result.error().value() != EAGAIN || attempt == dump_attempts) return result.error();
  }
}

std::optional<std::uint32_t> Rtnl::way_into(const Prefix& prefix) {
  Address::Bytes bytes = prefix.address.is_v4() ? Address::v4(Net::of(prefix).address).bytes() : Net6::of(prefix).address.bytes();
  for (int offset = 1; offset <= 4; ++offset) {
    if (prefix.length < 128) bytes[15] = static_cast<std::byte>(std::to_integer<int>(bytes[15]) + 1);
    if (!prefix.contains(Address{bytes})) break;
    if (const auto device = leaves_by(Address{bytes})) return device;
  }
  return std::nullopt;
}

std::optional<std::uint32_t> Rtnl::leaves_by(const Address& address) {
  Request request{RTM_GETROUTE, NLM_F_ACK};
  auto* head = request.extra<rtmsg>();
  head->rtm_family = address.is_v4() ? AF_INET : AF_INET6;
  head->rtm_dst_len = address.is_v4() ? 32 : 128;
  if (address.is_v4())
    put_net(request.head, RTA_DST, Net::host(address));
  else
    put_net(request.head, RTA_DST, Net6::host(address));
  std::optional<std::uint32_t> device;
  const auto result = talk(request.head, [&](const nlmsghdr* message) {
    if (message->nlmsg_type != RTM_NEWROUTE) return;
    Route route;
    parse_route(message, route);
    if (route.kind == RouteKind::unicast && route.device) device = route.device;
  });
  if (!result) return std::nullopt;
  return device;
}

Result<void> Rtnl::set_link(std::uint32_t index, std::uint32_t mtu, std::uint32_t queue_length, bool up) {
  Request request{RTM_NEWLINK, NLM_F_ACK};
  auto* head = request.extra<ifinfomsg>();
  head->ifi_family = AF_UNSPEC;
  head->ifi_index = static_cast<int>(index);
  if (up) head->ifi_flags = head->ifi_change = IFF_UP;
  if (mtu) mnl_attr_put_u32(request.head, IFLA_MTU, mtu);
  if (queue_length) mnl_attr_put_u32(request.head, IFLA_TXQLEN, queue_length);
  return talk(request.head, ignore);
}

}  // namespace sallyport::nat::host
