#include "src/transport/multicast.hpp"

#include <arpa/inet.h>
#include <linux/filter.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>

#include "src/transport/datagrams.hpp"
#include "src/transport/socket_tools.hpp"

namespace sallyport::transport {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

constexpr std::size_t batch = 32;
constexpr int batches_a_turn = 16;
constexpr std::size_t longest_search = 2048;  // octets (POL-DSC-03)
constexpr int receive_buffer = 4 << 20;
constexpr int send_buffer = 1 << 20;

constexpr auto group_v4 = Address::v4(0xeffffffa);
constexpr std::array<std::uint8_t, 2> v6_scopes{2, 5};

constexpr Address group_v6(std::uint8_t scope) {
  Address::Bytes bytes{};
  bytes[0] = std::byte{0xff};
  bytes[1] = std::byte{scope};
  bytes[15] = std::byte{0x0c};
  return Address{bytes};
}

/// True for an address that one IPv6 host on a link can have: no ::, ::1 and other addresses below 2^32, no IPv4,
/// no group.
bool is_v6_host(const Address& address) {
  const auto& bytes = address.bytes();
  if (address.is_v4() || bytes[0] == std::byte{0xff}) return false;
  return std::any_of(bytes.begin(), bytes.begin() + 12, [](std::byte b) { return b != std::byte{0}; });
}

/// Lets datagrams pass that begin like a search and are no longer than one may be. The program sees them from their
/// UDP header on.
bool attach_search_filter(int socket) {
  constexpr std::uint32_t header = 8;
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0),
      BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, header + longest_search, 3, 0),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, header),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x4d2d5345, 0, 1),  // "M-SE"
      BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
      BPF_STMT(BPF_RET | BPF_K, 0),
  };
  return attach(socket, program);
}

}  // namespace

Ignored check_ssdp_arrival(const wire::Arrival& arrival, const nat::PlaneInterface& interface,
                           std::span<const Prefix> ipv6, std::span<const Address> own) noexcept {
  if (arrival.destination.is_v4() != arrival.source.is_v4()) return Ignored::wrong_source;
  if (arrival.source.is_v4()) {
    if (arrival.destination != group_v4) return check_arrival(arrival, interface, own);
    if (interface.addresses.empty()) return Ignored::wrong_destination;  // nothing to answer from
    auto to_us = arrival;
    to_us.destination = interface.addresses.front();
    return check_arrival(to_us, interface, own);
  }
  if (interface.index == 0 || arrival.interface != interface.index) return Ignored::wrong_interface;
  const bool to_group = std::ranges::any_of(
      v6_scopes, [&](std::uint8_t scope) { return arrival.destination == group_v6(scope); });
  const auto is = [](const Address& address) {
    return [&address](const Prefix& prefix) { return prefix.address == address; };
  };
  if (to_group ? ipv6.empty() : std::ranges::none_of(ipv6, is(arrival.destination)))
    return Ignored::wrong_destination;
  if (arrival.source_port == 0 || !is_v6_host(arrival.source)) return Ignored::wrong_source;
  if (std::ranges::any_of(ipv6, is(arrival.source)) || std::ranges::find(own, arrival.source) != own.end())
    return Ignored::wrong_source;
  const bool behind = is_link_local(arrival.source) || std::ranges::any_of(ipv6, [&](const Prefix& prefix) {
                        return prefix.contains(arrival.source);
                      });
  return behind ? Ignored::no : Ignored::wrong_source;
}

class MulticastService::Impl : public std::enable_shared_from_this<Impl> {
 public:
  Impl(asio::io_context& io, wire::DatagramCore& core, const Clock& clock, Options options,
       std::function<void()> after_input)
      : io_{io},
        core_{core},
        clock_{clock},
        options_{options},
        after_input_{std::move(after_input)},
        limiter_{options.limit} {}

  bool serve(std::span<const nat::PlaneInterface> lan, std::span<const Address> own,
             std::span<const Ipv6Addresses> ipv6, std::string& why);
  void drain();
  void close() {
    for (const auto& served : sockets_) served->socket.close();  // a handler that waits may still hold it
    sockets_.clear();
    for (auto& socket : everywhere_else_) socket = Descriptor{};
  }

  Counts counts;

 private:
  struct Served {
    Served(asio::io_context& io, int descriptor, int family_, nat::PlaneInterface what, std::vector<Prefix> six)
        : socket{io, descriptor}, family{family_}, interface{std::move(what)}, ipv6{std::move(six)} {}
    asio::posix::stream_descriptor socket;
    int family;
    nat::PlaneInterface interface;
    std::vector<Prefix> ipv6;
  };

  /// An empty device: the socket for all others.
  Descriptor open(int family, const std::string& device, std::string& why) const;
  bool join(Served& served, std::string& why) const;
  bool serve_family(int family, std::span<const nat::PlaneInterface> lan, std::span<const Ipv6Addresses> ipv6,
                    std::string& why);
  void wait(const std::shared_ptr<Served>& served);
  void on_readable(const std::shared_ptr<Served>& served);
  void take(std::span<const std::byte> bytes, const wire::Arrival& arrival, const Served& served, TimePoint now);

  asio::io_context& io_;
  wire::DatagramCore& core_;
  const Clock& clock_;
  Options options_;
  std::function<void()> after_input_;
  SourceLimiter limiter_;
  std::vector<std::shared_ptr<Served>> sockets_;
  std::array<Descriptor, 2> everywhere_else_;  ///< IPv4, IPv6
  std::vector<Address> own_;
  DatagramReader in_{batch, longest_search};
  DatagramWriter out_{batch};
};

Descriptor MulticastService::Impl::open(int family, const std::string& device, std::string& why) const {
  const auto port = "UDP port " + std::to_string(options_.port);
  const auto failed = [&](const std::string& what) {
    why = what + ": " + system_text(errno);
    return Descriptor{};
  };
  Descriptor socket{::socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
  const int number = socket.get();
  if (number < 0) return failed("no UDP socket to be had");
  const int on = 1;
  const int off = 0;
  const bool six = family == AF_INET6;
  if (six && !set(number, IPPROTO_IPV6, IPV6_V6ONLY, on)) return failed("no socket for IPv6 alone to be had");
  // A program that has the port already must have asked for sharing in one of these two ways.
  set(number, SOL_SOCKET, SO_REUSEADDR, on);
  // Only groups that this very socket joined, whatever others on this machine join.
#ifdef IPV6_MULTICAST_ALL
  if (six) set(number, IPPROTO_IPV6, IPV6_MULTICAST_ALL, off);
#endif
  if (!six) set(number, IPPROTO_IP, IP_MULTICAST_ALL, off);
  if (device.empty()) {
    // Without SO_REUSEPORT: it would make the kernel share out unicasts between this socket, which drops all, and
    // a program that has the port on all interfaces.
    sock_filter nothing[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
    if (!attach(number, nothing)) return failed("a socket filter cannot be set");
    set(number, SOL_SOCKET, SO_RCVBUF, on);
  } else {
    set(number, SOL_SOCKET, SO_REUSEPORT, on);
    if (::setsockopt(number, SOL_SOCKET, SO_BINDTODEVICE, device.c_str(),
                     static_cast<socklen_t>(device.size() + 1)) != 0)
      return failed(port + " cannot be tied to interface " + device);
    if (!attach_search_filter(number)) return failed("a socket filter cannot be set");
    const int loop = options_.loopback ? 1 : 0;
    if (six) {
      set(number, IPPROTO_IPV6, IPV6_RECVPKTINFO, on);
      set(number, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, options_.hops);
      set(number, IPPROTO_IPV6, IPV6_MULTICAST_LOOP, loop);
    } else {
      set(number, IPPROTO_IP, IP_PKTINFO, on);
      set(number, IPPROTO_IP, IP_MULTICAST_TTL, options_.hops);
      set(number, IPPROTO_IP, IP_MULTICAST_LOOP, loop);
    }
    if (!set(number, SOL_SOCKET, SO_RCVBUFFORCE, receive_buffer))
      set(number, SOL_SOCKET, SO_RCVBUF, receive_buffer);
    if (!set(number, SOL_SOCKET, SO_SNDBUFFORCE, send_buffer)) set(number, SOL_SOCKET, SO_SNDBUF, send_buffer);
  }
  const auto [any, size] = to_sockaddr(six ? Address{} : Address::v4(0), options_.port, 0);
  if (::bind(number, &any.any, size) != 0) {
    if (errno == EADDRINUSE) {
      why = port + " is taken by another program that does not share it; stop it first";
      return Descriptor{};
    }
    return failed(port + " cannot be bound");
  }
  return socket;
}

bool MulticastService::Impl::join(Served& served, std::string& why) const {
  const int socket = served.socket.native_handle();
  bool good = true;
  if (served.family == AF_INET) {
    ip_mreqn request{};
    request.imr_multiaddr.s_addr = htonl(group_v4.v4_number());
    request.imr_ifindex = static_cast<int>(served.interface.index);
    good = set(socket, IPPROTO_IP, IP_ADD_MEMBERSHIP, request) || errno == EADDRINUSE;
  } else {
    for (const auto scope : v6_scopes) {
      ipv6_mreq request{};
      request.ipv6mr_multiaddr = in6_of(group_v6(scope));
      request.ipv6mr_interface = served.interface.index;
      good = good && (set(socket, IPPROTO_IPV6, IPV6_JOIN_GROUP, request) || errno == EADDRINUSE);
    }
  }
  if (!good) why = "the SSDP group cannot be joined on " + served.interface.name + ": " + system_text(errno);
  return good;
}

bool MulticastService::Impl::serve(std::span<const nat::PlaneInterface> lan, std::span<const Address> own,
                                   std::span<const Ipv6Addresses> ipv6, std::string& why) {
  own_.assign(own.begin(), own.end());
  for (const auto& interface : ipv6)
    for (const auto& prefix : interface.addresses) own_.push_back(prefix.address);
  // IPv4 first: a machine that has trouble with IPv6 serves it none the less.
  const bool four = serve_family(AF_INET, lan, ipv6, why);
  const bool six = serve_family(AF_INET6, lan, ipv6, why);
  return four && six;
}

bool MulticastService::Impl::serve_family(int family, std::span<const nat::PlaneInterface> lan,
                                          std::span<const Ipv6Addresses> ipv6, std::string& why) {
  const auto addresses_of = [&](const nat::PlaneInterface& interface) {
    for (const auto& each : ipv6)
      if (each.interface == interface.index) return each.addresses;
    return std::vector<Prefix>{};
  };
  const bool six = family == AF_INET6;
  const auto wanted = [&](const nat::PlaneInterface& interface) {
    return interface.index != 0 && (!six || !addresses_of(interface).empty());
  };
  std::erase_if(sockets_, [&](const std::shared_ptr<Served>& served) {
    if (served->family != family) return false;
    const auto still = std::ranges::find_if(lan, [&](const nat::PlaneInterface& interface) {
      return wanted(interface) && interface.index == served->interface.index &&
             interface.name == served->interface.name;
    });
    if (still != lan.end()) {
      served->interface = *still;
      served->ipv6 = addresses_of(*still);
      return false;
    }
    served->socket.close();
    return true;
  });

  auto& everywhere_else = everywhere_else_[six ? 1 : 0];
  if (six ? std::ranges::none_of(lan, wanted) : lan.empty()) {  // nothing is spoken: the port is not ours
    everywhere_else = Descriptor{};
    return true;
  }
  if (everywhere_else.get() < 0) everywhere_else = open(family, {}, why);
  if (everywhere_else.get() < 0) return false;

  bool good = true;
  for (const auto& interface : lan) {
    if (!wanted(interface)) continue;
    const auto there = std::ranges::find_if(sockets_, [&](const auto& served) {
      return served->family == family && served->interface.index == interface.index;
    });
    std::shared_ptr<Served> served = there == sockets_.end() ? nullptr : *there;
    std::string reason;
    if (!served) {
      auto socket = open(family, interface.name, reason);
      if (socket.get() >= 0) {
        served = std::make_shared<Served>(io_, socket.get(), family, interface, addresses_of(interface));
        socket.release();
        sockets_.push_back(served);
        wait(served);
      }
    }
    if (served && join(*served, reason)) continue;
    // gone again in this very moment: the next change of the network tries again
    if (::if_nametoindex(interface.name.c_str()) != interface.index) continue;
    why = reason;
    good = false;
  }
  return good;
}

void MulticastService::Impl::wait(const std::shared_ptr<Served>& served) {
  served->socket.async_wait(asio::posix::stream_descriptor::wait_read,
                            [weak = weak_from_this(), served](const error_code& error) {
                              if (const auto self = weak.lock(); self && !error) self->on_readable(served);
                            });
}

void MulticastService::Impl::on_readable(const std::shared_ptr<Served>& served) {
  if (!served->socket.is_open()) return;
  // What is above its rate costs next to nothing, so much is read at once: whoever sends little is then found behind
  // one who sends much, instead of being lost when the kernel's queue is full.
  const auto now = clock_.now();
  for (int round = 0; round < batches_a_turn; ++round)
    if (!in_.read(served->socket.native_handle(), [&](const DatagramReader::Datagram& datagram) {
          if (!datagram.cut) take(datagram.bytes, datagram.arrival, *served, now);
        }))
      break;
  drain();
  if (after_input_) after_input_();
  if (served->socket.is_open()) wait(served);
}

void MulticastService::Impl::take(std::span<const std::byte> bytes, const wire::Arrival& arrival,
                                  const Served& served, TimePoint now) {
  if (check_ssdp_arrival(arrival, served.interface, served.ipv6, own_) != Ignored::no) {
    ++counts.not_for_us;
    return;
  }
  if (limiter_.admit(arrival.source, now) != SourceLimiter::Verdict::pass) {
    ++counts.over_rate;
    return;
  }
  ++counts.received;
  core_.handle_datagram(bytes, arrival, now);
}

void MulticastService::Impl::drain() {
  while (auto next = core_.poll_transmit()) {
    const auto served = std::ranges::find_if(sockets_, [&](const auto& candidate) {
      return candidate->family == (next->to.is_v4() ? AF_INET : AF_INET6) &&
             candidate->interface.index == next->interface;
    });
    if (served == sockets_.end())
      ++counts.send_failed;  // the interface went away meanwhile
    else
      out_.add((*served)->socket.native_handle(), std::move(*next));
  }
  out_.flush();
  counts.sent += std::exchange(out_.sent, 0);
  // One that cannot be sent (no route, no room) is said again or asked for again.
  counts.send_failed += std::exchange(out_.failed, 0);
}

MulticastService::MulticastService(asio::io_context& io, wire::DatagramCore& core, const Clock& clock,
                                   Options options, std::function<void()> after_input)
    : impl_{std::make_shared<Impl>(io, core, clock, options, std::move(after_input))} {}
MulticastService::~MulticastService() { impl_->close(); }
bool MulticastService::serve(std::span<const nat::PlaneInterface> lan, std::span<const Address> own,
                             std::span<const Ipv6Addresses> ipv6, std::string& why) {
  return impl_->serve(lan, own, ipv6, why);
}
void MulticastService::drain() { impl_->drain(); }
const MulticastService::Counts& MulticastService::counts() const noexcept { return impl_->counts; }

}  // namespace sallyport::transport
