#include "src/transport/netlink.hpp"

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <linux/if_addr.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <net/if.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <span>
#include <unordered_map>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>

namespace sallyport::transport {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

constexpr std::size_t buffer_octets = 32768;
constexpr std::chrono::milliseconds settle{50};  // several notices come together; one reading is enough
constexpr std::size_t max_neighbours = 8192;

struct CloseSocket {
  void operator()(mnl_socket* socket) const noexcept { mnl_socket_close(socket); }
};
using Socket = std::unique_ptr<mnl_socket, CloseSocket>;

error_code last_error() { return {errno, boost::system::system_category()}; }

Result<Socket> open_socket(unsigned groups) {
  Socket socket{mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC)};
  if (!socket || mnl_socket_bind(socket.get(), groups, MNL_SOCKET_AUTOPID) < 0) return last_error();
  return socket;
}

Address v4_of(const nlattr* attribute) { return Address::v4(ntohl(mnl_attr_get_u32(attribute))); }

Address v6_of(const nlattr* attribute) {
  Address::Bytes bytes{};
  std::memcpy(bytes.data(), mnl_attr_get_payload(attribute), bytes.size());
  return Address{bytes};
}

/// libmnl's own macro does not compile as C++.
template <class Take>
void each_attribute(const nlmsghdr* message, std::size_t offset, Take&& take) {
  const auto* end = static_cast<const char*>(mnl_nlmsg_get_payload_tail(message));
  for (const auto* attribute = static_cast<const nlattr*>(mnl_nlmsg_get_payload_offset(message, offset));
       mnl_attr_ok(attribute, static_cast<int>(end - reinterpret_cast<const char*>(attribute)));
       attribute = mnl_attr_next(attribute))
    take(attribute);
}

bool holds(const nlattr* attribute, std::size_t octets) {
  return mnl_attr_get_payload_len(attribute) >= octets;
}

void take_link(const nlmsghdr* message, NetworkState& state) {
  const auto* info = static_cast<const ifinfomsg*>(mnl_nlmsg_get_payload(message));
  NetworkState::Link link;
  link.index = static_cast<std::uint32_t>(info->ifi_index);
  link.up = (info->ifi_flags & IFF_UP) != 0 && (info->ifi_flags & IFF_RUNNING) != 0;
  each_attribute(message, sizeof *info, [&](const nlattr* attribute) {
    const auto type = mnl_attr_get_type(attribute);
    if (type == IFLA_IFNAME) link.name = mnl_attr_get_str(attribute);
    if (type == IFLA_MTU && holds(attribute, 4)) link.mtu = mnl_attr_get_u32(attribute);
  });
  state.links.push_back(std::move(link));
}

void take_address(const nlmsghdr* message, NetworkState& state) {
  const auto* info = static_cast<const ifaddrmsg*>(mnl_nlmsg_get_payload(message));
  if (info->ifa_family != AF_INET) return;
  NetworkState::LinkAddress entry;
  entry.interface = info->ifa_index;
  entry.bits = info->ifa_prefixlen;
  entry.link_scope = info->ifa_scope >= RT_SCOPE_LINK;
  std::uint32_t flags = info->ifa_flags;
  bool has_local = false;
  each_attribute(message, sizeof *info, [&](const nlattr* attribute) {
    if (!holds(attribute, 4)) return;
    const auto type = mnl_attr_get_type(attribute);
    if (type == IFA_LOCAL) {
      entry.address = v4_of(attribute);
      has_local = true;
    } else if (type == IFA_ADDRESS) {
      entry.subnet = v4_of(attribute);
    } else if (type == IFA_FLAGS) {
      flags = mnl_attr_get_u32(attribute);
    }
  });
  if (!has_local) entry.address = entry.subnet;
  if (!entry.address.is_v4() || !entry.subnet.is_v4() || entry.bits > 32) return;
  entry.secondary = (flags & IFA_F_SECONDARY) != 0;
  entry.deprecated = (flags & IFA_F_DEPRECATED) != 0;
  state.addresses.push_back(entry);
}

void take_ipv6(const nlmsghdr* message, NetworkState& state) {
  const auto* info = static_cast<const ifaddrmsg*>(mnl_nlmsg_get_payload(message));
  if (info->ifa_family != AF_INET6 || info->ifa_prefixlen > 128 || info->ifa_scope == RT_SCOPE_HOST) return;
  NetworkState::Ipv6Address entry{.interface = info->ifa_index, .address = {Address{}, info->ifa_prefixlen}};
  std::uint32_t flags = info->ifa_flags;
  each_attribute(message, sizeof *info, [&](const nlattr* attribute) {
    const auto type = mnl_attr_get_type(attribute);
    if (type == IFA_ADDRESS && holds(attribute, 16)) {
      entry.address.address = v6_of(attribute);
    } else if (type == IFA_FLAGS && holds(attribute, 4)) {
      flags = mnl_attr_get_u32(attribute);
    }
  });
  if (entry.address.address.is_unspecified() || (flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED)) != 0) return;
  state.ipv6.push_back(entry);
}

/// Routes that every IPv6 host has and that tell nothing: of link-local addresses, and of itself.
bool says_nothing(const Prefix& destination) {
  const auto first = std::to_integer<unsigned>(destination.address.bytes()[0]);
  const auto second = std::to_integer<unsigned>(destination.address.bytes()[1]);
  return (first == 0xfe && second >> 6 == 2) || first == 0xff || (destination.length == 128 && first == 0);
}

/// Of one way of a multipath route.
Address gateway_of(const rtnexthop* hop, bool six) {
  const auto* end = reinterpret_cast<const char*>(hop) + hop->rtnh_len;
  for (const auto* attribute = reinterpret_cast<const nlattr*>(RTNH_DATA(hop));
       mnl_attr_ok(attribute, static_cast<int>(end - reinterpret_cast<const char*>(attribute)));
       attribute = mnl_attr_next(attribute))
    if (mnl_attr_get_type(attribute) == RTA_GATEWAY && holds(attribute, six ? 16 : 4))
      return six ? v6_of(attribute) : v4_of(attribute);
  return {};
}

void take_route(const nlmsghdr* message, NetworkState& state) {
  const auto* info = static_cast<const rtmsg*>(mnl_nlmsg_get_payload(message));
  const bool six = info->rtm_family == AF_INET6;
  if ((info->rtm_family != AF_INET && !six) || info->rtm_type != RTN_UNICAST ||
      info->rtm_dst_len > (six ? 128 : 32) ||
      (info->rtm_flags & RTM_F_CLONED) != 0)  // what a path's MTU made of a route
    return;
  NetworkState::Route route;
  Address gateway;
  std::uint32_t table = info->rtm_table;
  route.destination = six ? Prefix{Address{}, info->rtm_dst_len} : Prefix::v4(0, info->rtm_dst_len);
  each_attribute(message, sizeof *info, [&](const nlattr* attribute) {
    const auto type = mnl_attr_get_type(attribute);
    if (type == RTA_MULTIPATH) {
      const auto* hop = static_cast<const rtnexthop*>(mnl_attr_get_payload(attribute));
      int left = mnl_attr_get_payload_len(attribute);
      while (RTNH_OK(hop, left)) {
        route.interfaces.push_back(static_cast<std::uint32_t>(hop->rtnh_ifindex));
        route.gateways.push_back(gateway_of(hop, six));
        left -= static_cast<int>(RTNH_ALIGN(hop->rtnh_len));
        hop = RTNH_NEXT(hop);
      }
      return;
    }
    if (!holds(attribute, 4)) return;
    if (type == RTA_TABLE) table = mnl_attr_get_u32(attribute);
    if (type == RTA_DST && !six) route.destination.address = v4_of(attribute);
    if (type == RTA_DST && six && holds(attribute, 16)) route.destination.address = v6_of(attribute);
    if (type == RTA_OIF) route.interfaces.push_back(mnl_attr_get_u32(attribute));
    if (type == RTA_GATEWAY && holds(attribute, six ? 16 : 4)) gateway = six ? v6_of(attribute) : v4_of(attribute);
    if (type == RTA_PRIORITY) route.metric = mnl_attr_get_u32(attribute);
  });
  if (table != RT_TABLE_MAIN || route.interfaces.empty()) return;
  route.gateways.resize(route.interfaces.size(), gateway);
  if (six && says_nothing(route.destination)) return;
  (six ? state.routes6 : state.routes).push_back(std::move(route));
}

std::uint32_t next_sequence() {
  static std::atomic<std::uint32_t> last = 0;  // each watcher has its own thread
  return ++last;
}

/// Asks for everything of one kind and hands each message to `take`. EINTR stands for a table that changed
/// meanwhile.
template <class Take>
error_code dump(mnl_socket* socket, std::uint16_t type, unsigned char family, Take&& take) {
  alignas(nlmsghdr) std::array<char, 512> request{};
  auto* header = mnl_nlmsg_put_header(request.data());
  header->nlmsg_type = type;
  header->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  const auto sequence = next_sequence();
  header->nlmsg_seq = sequence;
  if (type == RTM_GETROUTE) {
    auto* info = static_cast<rtmsg*>(mnl_nlmsg_put_extra_header(header, sizeof(rtmsg)));
    info->rtm_family = family;
    info->rtm_table = RT_TABLE_MAIN;
  } else if (type == RTM_GETADDR) {
    static_cast<ifaddrmsg*>(mnl_nlmsg_put_extra_header(header, sizeof(ifaddrmsg)))->ifa_family = family;
  } else if (type == RTM_GETNEIGH) {
    static_cast<ndmsg*>(mnl_nlmsg_put_extra_header(header, sizeof(ndmsg)))->ndm_family = family;
  } else {
    static_cast<ifinfomsg*>(mnl_nlmsg_put_extra_header(header, sizeof(ifinfomsg)))->ifi_family = family;
    mnl_attr_put_u32(header, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
  }
  if (mnl_socket_sendto(socket, header, header->nlmsg_len) < 0) return last_error();

  std::vector<char> buffer(buffer_octets);
  for (;;) {
    const auto size = mnl_socket_recvfrom(socket, buffer.data(), buffer.size());
    if (size < 0) return last_error();
    int left = static_cast<int>(size);
    for (const auto* message = reinterpret_cast<const nlmsghdr*>(buffer.data()); mnl_nlmsg_ok(message, left);
         message = mnl_nlmsg_next(message, &left)) {
      if (message->nlmsg_seq != sequence) continue;  // of a dump given up before
      if ((message->nlmsg_flags & NLM_F_DUMP_INTR) != 0) return {EINTR, boost::system::system_category()};
      if (message->nlmsg_type == NLMSG_DONE) return {};
      if (message->nlmsg_type == NLMSG_ERROR) {
        const auto* error = static_cast<const nlmsgerr*>(mnl_nlmsg_get_payload(message));
        return {-error->error, boost::system::system_category()};
      }
      take(message);
    }
  }
}

Result<NetworkState> read_state(mnl_socket* socket) {
  for (int attempt = 0;; ++attempt) {
    NetworkState state;
    auto error =
        dump(socket, RTM_GETLINK, AF_UNSPEC, [&](const nlmsghdr* message) { take_link(message, state); });
    if (!error)
      error =
          dump(socket, RTM_GETADDR, AF_INET, [&](const nlmsghdr* message) { take_address(message, state); });
    // a kernel without IPv6 says so, and that is all there is to know
    if (!error)
      if (const auto six = dump(socket, RTM_GETADDR, AF_INET6,
                                [&](const nlmsghdr* message) { take_ipv6(message, state); });
          six == boost::system::errc::interrupted)
        error = six;
    if (!error)
      error =
          dump(socket, RTM_GETROUTE, AF_INET, [&](const nlmsghdr* message) { take_route(message, state); });
    if (!error)
      if (const auto six = dump(socket, RTM_GETROUTE, AF_INET6,
                                [&](const nlmsghdr* message) {
                                  const auto* info =
                                      static_cast<const rtmsg*>(mnl_nlmsg_get_payload(message));
                                  if (info->rtm_family == AF_INET6) take_route(message, state);
                                });
          six == boost::system::errc::interrupted)
        error = six;
    if (!error) return state;
    // a table that keeps changing is read again at its next notice
    if (error != boost::system::errc::interrupted || attempt == 5) return error;
  }
}

}  // namespace

class NetworkWatcher::Impl : public std::enable_shared_from_this<Impl> {
 public:
  Impl(const asio::any_io_executor& io, Socket notices, Socket queries, NetworkState state)
      : notices_{std::move(notices)},
        queries_{std::move(queries)},
        state_{std::move(state)},
        descriptor_{io, mnl_socket_get_fd(notices_.get())},
        timer_{io} {
    descriptor_.non_blocking(true);
  }
  ~Impl() { descriptor_.release(); }

  void start() {
    descriptor_.async_wait(asio::posix::stream_descriptor::wait_read,
                           [weak = weak_from_this()](const error_code& error) {
                             if (const auto self = weak.lock(); self && !error) self->on_notice();
                           });
  }

  void refresh() {
    auto state = read_state(queries_.get());
    if (!state) {
      mark_dirty(std::chrono::milliseconds{200});
      return;
    }
    if (*state == state_) return;
    state_ = std::move(*state);
    if (changed_) changed_();
  }

  std::optional<std::string> mac_of(const Address& address, bool now_at_once) {
    const auto now = std::chrono::steady_clock::now();
    if (!neighbours_read_ || now - *neighbours_read_ >= std::chrono::seconds{1}) {
      neighbours_read_ = now;
      read_neighbours();
    }
    if (now_at_once && !macs_.contains(address))
      for (const auto interface : interfaces_of(address)) ask_neighbour(address, interface);
    const auto known = macs_.find(address);
    return known == macs_.end() ? std::nullopt : std::optional{known->second};
  }

  std::optional<Address> ipv4_of(const std::string& mac) const {
    const auto known = ipv4_by_mac_.find(mac);
    return known == ipv4_by_mac_.end() ? std::nullopt : std::optional{known->second};
  }

  const NetworkState& state() const noexcept { return state_; }
  void watch(std::function<void()> changed) { changed_ = std::move(changed); }

 private:
  void on_notice() {
    std::array<char, 16384> sink;
    for (;;) {
      const auto size = mnl_socket_recvfrom(notices_.get(), sink.data(), sink.size());
      if (size > 0) continue;
      // ENOBUFS: notices were lost. ENOSPC (of libmnl): one was longer than the buffer. Both only mean
      // "changed".
      if (size < 0 && (errno == EINTR || errno == ENOBUFS || errno == ENOSPC)) continue;
      break;
    }
    mark_dirty(settle);
    start();
  }

  void mark_dirty(std::chrono::milliseconds delay) {
    if (dirty_) return;
    dirty_ = true;
    timer_.expires_after(delay);
    timer_.async_wait([weak = weak_from_this()](const error_code& error) {
      const auto self = weak.lock();
      if (!self || error) return;
      self->dirty_ = false;
      self->refresh();
    });
  }

  void read_neighbours() {
    if (macs_.size() > max_neighbours) {
      macs_.clear();
      ipv4_by_mac_.clear();
    }
    for (const unsigned char family : {AF_INET, AF_INET6}) read_neighbours(family);
  }

  void read_neighbours(unsigned char family) {
    dump(queries_.get(), RTM_GETNEIGH, family, [&](const nlmsghdr* message) {
      const auto* info = static_cast<const ndmsg*>(mnl_nlmsg_get_payload(message));
      if (info->ndm_family == family) take_neighbour(message);
    });
  }

  void take_neighbour(const nlmsghdr* message) {
    const auto* info = static_cast<const ndmsg*>(mnl_nlmsg_get_payload(message));
    std::optional<Address> address;
    std::string mac;
    each_attribute(message, sizeof *info, [&](const nlattr* attribute) {
      const auto type = mnl_attr_get_type(attribute);
      if (type == NDA_DST && info->ndm_family == AF_INET && holds(attribute, 4)) address = v4_of(attribute);
      if (type == NDA_DST && info->ndm_family == AF_INET6 && holds(attribute, 16)) address = v6_of(attribute);
      if (type == NDA_LLADDR && mnl_attr_get_payload_len(attribute) == 6) {
        const auto* octets = static_cast<const unsigned char*>(mnl_attr_get_payload(attribute));
        std::array<char, 18> text{};
        std::snprintf(text.data(), text.size(), "%02x:%02x:%02x:%02x:%02x:%02x", octets[0], octets[1],
                      octets[2], octets[3], octets[4], octets[5]);
        mac = text.data();
      }
    });
    if (!address || mac.empty()) return;
    if (address->is_v4()) ipv4_by_mac_[mac] = *address;
    macs_[*address] = std::move(mac);
  }

  /// Those on whose link an address is.
  std::vector<std::uint32_t> interfaces_of(const Address& address) const {
    std::vector<std::uint32_t> found;
    const auto add = [&](const Prefix& prefix, std::uint32_t interface) {
      if (prefix.contains(address) && std::ranges::find(found, interface) == found.end())
        found.push_back(interface);
    };
    for (const auto& each : state_.addresses)
      add({each.subnet, static_cast<std::uint8_t>(96 + each.bits)}, each.interface);
    for (const auto& each : state_.ipv6) add(each.address, each.interface);
    return found;
  }

  /// One entry of the neighbour table; the kernel answers with it or with an error.
  void ask_neighbour(const Address& address, std::uint32_t interface) {
    alignas(nlmsghdr) std::array<char, 256> request{};
    auto* header = mnl_nlmsg_put_header(request.data());
    header->nlmsg_type = RTM_GETNEIGH;
    header->nlmsg_flags = NLM_F_REQUEST;
    header->nlmsg_seq = next_sequence();
    auto* info = static_cast<ndmsg*>(mnl_nlmsg_put_extra_header(header, sizeof(ndmsg)));
    info->ndm_family = address.is_v4() ? AF_INET : AF_INET6;
    info->ndm_ifindex = static_cast<int>(interface);
    const auto bytes = std::span{address.bytes()}.subspan(address.is_v4() ? 12 : 0);
    mnl_attr_put(header, NDA_DST, bytes.size(), bytes.data());
    if (mnl_socket_sendto(queries_.get(), header, header->nlmsg_len) < 0) return;
    std::array<char, 4096> buffer;
    for (;;) {
      const auto size = mnl_socket_recvfrom(queries_.get(), buffer.data(), buffer.size());
      if (size < 0) return;
      int left = static_cast<int>(size);
      for (const auto* message = reinterpret_cast<const nlmsghdr*>(buffer.data());
           mnl_nlmsg_ok(message, left); message = mnl_nlmsg_next(message, &left)) {
        if (message->nlmsg_seq != header->nlmsg_seq) continue;  // of a dump given up before
        if (message->nlmsg_type == RTM_NEWNEIGH) take_neighbour(message);
        return;
      }
    }
  }

  Socket notices_;
  Socket queries_;
  NetworkState state_;
  asio::posix::stream_descriptor descriptor_;
  asio::steady_timer timer_;
  bool dirty_ = false;
  std::function<void()> changed_;
  std::unordered_map<Address, std::string> macs_;
  std::unordered_map<std::string, Address> ipv4_by_mac_;
  std::optional<std::chrono::steady_clock::time_point> neighbours_read_;
};

NetworkWatcher::NetworkWatcher(std::shared_ptr<Impl> impl) : impl_{std::move(impl)} {}
NetworkWatcher::~NetworkWatcher() = default;

Result<std::unique_ptr<NetworkWatcher>> NetworkWatcher::open(const asio::any_io_executor& io) {
  // Notices first: what changes between them and the reading is noticed.
  auto notices = open_socket(RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_IFADDR |
                             RTMGRP_IPV6_ROUTE);
  if (!notices) return notices.error();
  auto queries = open_socket(0);
  if (!queries) return queries.error();
  auto state = read_state(queries->get());
  if (!state) return state.error();
  auto impl = std::make_shared<Impl>(io, std::move(*notices), std::move(*queries), std::move(*state));
  impl->start();
  return std::unique_ptr<NetworkWatcher>{new NetworkWatcher{std::move(impl)}};
}

const NetworkState& NetworkWatcher::state() const noexcept { return impl_->state(); }
void NetworkWatcher::watch(std::function<void()> changed) { impl_->watch(std::move(changed)); }
void NetworkWatcher::refresh() { impl_->refresh(); }
std::optional<std::string> NetworkWatcher::mac_of(const Address& address) {
  return impl_->mac_of(address, false);
}
std::optional<std::string> NetworkWatcher::mac_now(const Address& address) {
  return impl_->mac_of(address, true);
}
std::optional<Address> NetworkWatcher::ipv4_of(const std::string& mac) const { return impl_->ipv4_of(mac); }

}  // namespace sallyport::transport
