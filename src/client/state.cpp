#include "src/client/state.hpp"

#include <netinet/in.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <boost/asio/dispatch.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/execution_context.hpp>

#include "protocols/pcp/codec.hpp"
#include "protocols/upnp/ssdp/codec.hpp"
#include "src/client/netcheck/run.hpp"
#include "src/transport/socket_tools.hpp"

namespace sallyport::client {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using namespace std::chrono_literals;
using transport::Descriptor;
using transport::SocketAddress;

constexpr std::size_t most_events = 64;
constexpr auto close_patience = 3s;
constexpr auto linger = 3s;
constexpr int read_at_once = 64;
constexpr int search_hops = 2;  // UDA 1.3.2

template <class Value>
Value random_value() {
  Value value{};
  std::size_t filled = 0;
  while (filled < sizeof value) {
    const auto got = ::getrandom(reinterpret_cast<char*>(&value) + filled, sizeof value - filled, 0);
    if (got > 0) filled += static_cast<std::size_t>(got);
  }
  return value;
}

Descriptor open_socket(bool six) {
  return Descriptor{::socket(six ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
}

bool bind_to(const Descriptor& socket, const Address& address, std::uint16_t port, std::uint32_t interface) {
  const auto [name, length] = transport::to_sockaddr(address, port, interface);
  return ::bind(socket.get(), &name.any, length) == 0;
}

bool is_unique_local(const Address& address) {
  return (address.bytes()[0] & std::byte{0xfe}) == std::byte{0xfc};
}

Address all_nodes() {
  auto bytes = upnp::ssdp::group_link().bytes();
  bytes[15] = std::byte{1};
  return Address{bytes};
}

Network to_network(const transport::NetworkState& state, const ClientOptions& options) {
  struct Ranked {
    Network::Interface interface;
    std::uint32_t metric = ~std::uint32_t{0};
  };
  std::vector<Ranked> all;
  for (const auto& link : state.links) {
    if (!link.up || link.name == "lo") continue;
    Ranked here;
    here.interface.index = link.index;
    here.interface.name = link.name;
    for (const bool secondary : {false, true})
      for (const auto& each : state.addresses)
        if (each.interface == link.index && !each.link_scope && !each.deprecated &&
            each.secondary == secondary)
          here.interface.ipv4.push_back({each.address, static_cast<std::uint8_t>(96 + each.bits)});
    for (const auto& each : state.ipv6)
      if (each.interface == link.index && !transport::is_link_local(each.address.address) &&
          !is_unique_local(each.address.address))
        here.interface.ipv6.push_back(each.address);
    const auto take_routers = [&](const std::vector<transport::NetworkState::Route>& routes,
                                  std::uint8_t length, std::vector<Address>& routers, bool& direct) {
      for (const auto& route : routes) {
        if (route.destination.length != length) continue;
        for (std::size_t i = 0; i < route.interfaces.size(); ++i) {
          if (route.interfaces[i] != link.index) continue;
          if (i >= route.gateways.size() || route.gateways[i].is_unspecified()) {
            direct = true;
            continue;
          }
          if (std::find(routers.begin(), routers.end(), route.gateways[i]) == routers.end())
            routers.push_back(route.gateways[i]);
          here.metric = std::min(here.metric, route.metric);
        }
      }
    };
    take_routers(state.routes, 96, here.interface.routers4, here.interface.direct4);
    take_routers(state.routes6, 0, here.interface.routers6, here.interface.direct6);
    if (!here.interface.ipv4.empty() || !here.interface.ipv6.empty()) all.push_back(std::move(here));
  }
  const auto leads_out = [](const Ranked& each) {
    return !each.interface.routers4.empty() || !each.interface.routers6.empty();
  };
  const bool any_way = std::any_of(all.begin(), all.end(), leads_out);
  std::stable_sort(all.begin(), all.end(),
                   [](const Ranked& a, const Ranked& b) { return a.metric < b.metric; });
  Network network;
  for (auto& each : all) {
    const bool named = std::find(options.interfaces.begin(), options.interfaces.end(), each.interface.name) !=
                       options.interfaces.end();
    if (!options.interfaces.empty() ? named : !options.gateways.empty() || !any_way || leads_out(each))
      network.interfaces.push_back(std::move(each.interface));
  }
  return network;
}

}  // namespace

namespace {

/// Hears of the end of an execution context before the sockets on it are gone.
class ContextEnd final : public asio::execution_context::service {
 public:
  using key_type = ContextEnd;
  static asio::execution_context::id id;

  explicit ContextEnd(asio::execution_context& context) : service{context} {}
  void add(std::weak_ptr<ClientState> state) {
    const std::lock_guard lock{mutex_};
    std::erase_if(states_, [](const auto& each) { return each.expired(); });
    states_.push_back(std::move(state));
  }

 private:
  void shutdown() noexcept override {
    std::vector<std::weak_ptr<ClientState>> states;
    {
      const std::lock_guard lock{mutex_};
      states.swap(states_);
    }
    for (const auto& each : states)
      if (const auto state = each.lock()) state->end_with_context();
  }

  std::mutex mutex_;
  std::vector<std::weak_ptr<ClientState>> states_;
};
asio::execution_context::id ContextEnd::id;

}  // namespace

/// A socket and what its datagrams are about.
struct ClientState::Channel {
  enum class Kind : std::uint8_t { server, search, notices, announcements };

  Channel(const asio::any_io_executor& executor, Kind of, Descriptor socket)
      : kind{of}, descriptor{executor, socket.release()} {}

  Kind kind;
  asio::posix::stream_descriptor descriptor;
  std::uint64_t server = 0;
  std::uint32_t interface = 0;
  Address local;
  bool six = false;
};

ClientState::ClientState(asio::any_io_executor executor, ClientOptions options)
    : executor_{std::move(executor)},
      options_{std::move(options)},
      memory_{options_.state_file, random_value<std::array<std::byte, 16>>()} {
  core_ = std::make_unique<Core>(Core::Options{.pcp = options_.pcp,
                                               .natpmp = options_.natpmp,
                                               .upnp = options_.upnp,
                                               .gateways = options_.gateways,
                                               .secret = memory_.secret(),
                                               .seed = random_value<std::uint64_t>()});
}

ClientState::~ClientState() = default;

std::uint64_t ClientState::next_call() noexcept { return ++last_call_; }

// --- the network ---

void ClientState::start() {
  if (shut_down_ || std::exchange(started_, true)) return;
  asio::use_service<ContextEnd>(executor_.context()).add(weak_from_this());
  strand_.emplace(executor_);
  alarm_.emplace(executor_);
  http_ = std::make_shared<HttpClient>(*strand_);
  if (const int timer = ::timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK); timer >= 0) {
    alarm_->assign(timer);
    wait_for_alarm();
  }
  if (auto watcher = transport::NetworkWatcher::open(*strand_)) {
    watcher_ = std::move(*watcher);
    watcher_->watch([weak = weak_from_this()] {
      const auto self = weak.lock();
      if (!self) return;
      const std::lock_guard lock{self->mutex_};
      self->read_network();
    });
    network_ = to_network(watcher_->state(), options_);
  }
  open_listeners();
  core_->set_network(network_, BootClock::now());
}

void ClientState::read_network() {
  if (shut_down_ || !watcher_) return;
  network_ = to_network(watcher_->state(), options_);
  searches_.clear();
  join_groups();
  core_->set_network(network_, BootClock::now());
  pump();
}

Network ClientState::network() {
  const std::lock_guard lock{mutex_};
  start();
  return network_;
}

void ClientState::open_listeners() {
  const auto add = [&](Channel::Kind kind, const Address& group, std::uint16_t port) {
    const bool six = !group.is_v4();
    auto socket = open_socket(six);
    const int on = 1;
    if (socket.get() < 0) return;
    transport::set(socket.get(), SOL_SOCKET, SO_REUSEADDR, on);
    transport::set(socket.get(), SOL_SOCKET, SO_REUSEPORT, on);
    transport::set(socket.get(), six ? IPPROTO_IPV6 : IPPROTO_IP, six ? IPV6_RECVPKTINFO : IP_PKTINFO, on);
    if (six) transport::set(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, on);
    // the group and not the wildcard address: what is sent to this host alone is somebody else's
    // (PCP-14.1-06)
    if (!bind_to(socket, group, port, 0) && (!six || !bind_to(socket, Address{}, port, 0))) return;
    auto channel = std::make_shared<Channel>(executor_, kind, std::move(socket));
    channel->six = six;
    channel->local = group;
    listeners_.push_back(channel);
    listen(channel);
  };
  if (options_.pcp || options_.natpmp)
    add(Channel::Kind::announcements, Address::v4(0xe0000001), pcp::client_port);
  if (options_.pcp) add(Channel::Kind::announcements, all_nodes(), pcp::client_port);
  if (options_.upnp) {
    add(Channel::Kind::notices, upnp::ssdp::group_v4, upnp::ssdp::port);
    add(Channel::Kind::notices, upnp::ssdp::group_link(), upnp::ssdp::port);
  }
  join_groups();
}

void ClientState::join_groups() {
  for (const auto& channel : listeners_)
    for (const auto& each : network_.interfaces) {
      const int socket = channel->descriptor.native_handle();
      if (channel->six) {  // joined already is no error that matters
        ipv6_mreq wish{};
        wish.ipv6mr_multiaddr = transport::in6_of(channel->local);
        wish.ipv6mr_interface = each.index;
        transport::set(socket, IPPROTO_IPV6, IPV6_ADD_MEMBERSHIP, wish);
      } else {
        ip_mreqn wish{};
        wish.imr_multiaddr.s_addr = htonl(channel->local.v4_number());
        wish.imr_ifindex = static_cast<int>(each.index);
        transport::set(socket, IPPROTO_IP, IP_ADD_MEMBERSHIP, wish);
      }
    }
}

// --- sockets ---

void ClientState::listen(const std::shared_ptr<Channel>& channel) {
  channel->descriptor.async_wait(
      asio::posix::stream_descriptor::wait_read,
      [weak = weak_from_this(), weak_channel = std::weak_ptr{channel}](const error_code& error) {
        const auto self = weak.lock();
        const auto here = weak_channel.lock();
        if (!self || !here || error) return;
        const std::lock_guard lock{self->mutex_};
        self->on_readable(*here);
        if (here.use_count() > 1) self->listen(here);  // else it was closed meanwhile
      });
}

void ClientState::on_readable(Channel& channel) {
  std::array<std::byte, 4096> buffer;
  const int socket = channel.descriptor.native_handle();
  for (int i = 0; i < read_at_once; ++i) {
    SocketAddress from{};
    iovec into{buffer.data(), buffer.size()};
    alignas(cmsghdr) std::array<char, 128> control;
    msghdr message{};
    message.msg_name = &from;
    message.msg_namelen = sizeof from;
    message.msg_iov = &into;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const auto size = ::recvmsg(socket, &message, MSG_DONTWAIT);
    const auto now = BootClock::now();
    if (size < 0) {
      if (errno == EINTR) continue;
      if (errno == ECONNREFUSED && channel.kind == Channel::Kind::server) {
        core_->handle_server_unreachable(channel.server, now);
        continue;
      }
      if (errno != EAGAIN && errno != EWOULDBLOCK) continue;  // an error of the path, told once
      break;
    }
    if ((message.msg_flags & MSG_TRUNC) != 0) continue;
    const auto datagram = std::span{buffer}.first(static_cast<std::size_t>(size));
    const auto address = from.any.sa_family == AF_UNSPEC ? Address{} : transport::from_sockaddr(from).first;
    auto interface = channel.interface;
    for (auto* part = CMSG_FIRSTHDR(&message); part != nullptr; part = CMSG_NXTHDR(&message, part)) {
      if (part->cmsg_level == IPPROTO_IP && part->cmsg_type == IP_PKTINFO) {
        in_pktinfo info;
        std::memcpy(&info, CMSG_DATA(part), sizeof info);
        interface = static_cast<std::uint32_t>(info.ipi_ifindex);
      } else if (part->cmsg_level == IPPROTO_IPV6 && part->cmsg_type == IPV6_PKTINFO) {
        in6_pktinfo info;
        std::memcpy(&info, CMSG_DATA(part), sizeof info);
        interface = info.ipi6_ifindex;
      }
    }
    switch (channel.kind) {
      case Channel::Kind::server:
        core_->handle_server_datagram(channel.server, datagram, now);
        break;
      case Channel::Kind::search:
      case Channel::Kind::notices:
        core_->handle_sighting(datagram, address, interface, now);
        break;
      case Channel::Kind::announcements:
        core_->handle_announcement(datagram, address, interface, now);
        break;
    }
  }
  pump();
}

std::shared_ptr<ClientState::Channel> ClientState::channel_for_server(const Core::Datagram& datagram) {
  if (const auto found = servers_.find(datagram.server); found != servers_.end()) return found->second;
  auto socket = open_socket(!datagram.to.is_v4());
  if (socket.get() < 0) return nullptr;
  const auto [name, length] = transport::to_sockaddr(datagram.to, datagram.to_port, datagram.interface);
  // Connected: only the gateway's own answers come in, and that nobody listens there is told.
  if ((!datagram.local.is_unspecified() && !bind_to(socket, datagram.local, 0, datagram.interface)) ||
      ::connect(socket.get(), &name.any, length) != 0)
    return nullptr;
  auto channel = std::make_shared<Channel>(executor_, Channel::Kind::server, std::move(socket));
  channel->server = datagram.server;
  channel->interface = datagram.interface;
  servers_.emplace(datagram.server, channel);
  listen(channel);
  return channel;
}

std::shared_ptr<ClientState::Channel> ClientState::channel_for_search(const Core::Datagram& datagram) {
  const bool six = !datagram.to.is_v4();
  const std::pair key{datagram.interface, six};
  if (const auto found = searches_.find(key); found != searches_.end()) return found->second;
  auto socket = open_socket(six);
  if (socket.get() < 0) return nullptr;
  const int hops = search_hops;
  if (six) {
    const int interface = static_cast<int>(datagram.interface);
    transport::set(socket.get(), IPPROTO_IPV6, IPV6_MULTICAST_IF, interface);
    transport::set(socket.get(), IPPROTO_IPV6, IPV6_MULTICAST_HOPS, hops);
  } else {
    ip_mreqn interface {};
    interface.imr_ifindex = static_cast<int>(datagram.interface);
    transport::set(socket.get(), IPPROTO_IP, IP_MULTICAST_IF, interface);
    transport::set(socket.get(), IPPROTO_IP, IP_MULTICAST_TTL, hops);
    if (!bind_to(socket, datagram.local, 0, datagram.interface)) return nullptr;
  }
  auto channel = std::make_shared<Channel>(executor_, Channel::Kind::search, std::move(socket));
  channel->interface = datagram.interface;
  channel->six = six;
  searches_.emplace(key, channel);
  listen(channel);
  return channel;
}

void ClientState::send(Core::Datagram& datagram) {
  if (datagram.server != 0) {
    if (const auto channel = channel_for_server(datagram)) {
      if (::send(channel->descriptor.native_handle(), datagram.bytes.data(), datagram.bytes.size(),
                 MSG_NOSIGNAL | MSG_DONTWAIT) < 0 &&
          errno == ECONNREFUSED) {  // of the datagram before: this one has not gone out
        core_->handle_server_unreachable(datagram.server, BootClock::now());
      }
    }
    return;
  }
  if (const auto channel = channel_for_search(datagram)) {
    const auto [name, length] = transport::to_sockaddr(datagram.to, datagram.to_port, datagram.interface);
    ::sendto(channel->descriptor.native_handle(), datagram.bytes.data(), datagram.bytes.size(),
             MSG_NOSIGNAL | MSG_DONTWAIT, &name.any, length);
  }
}

void ClientState::ask(Core::Ask asked) {
  if (!strand_) return;
  asio::dispatch(*strand_, [http = http_, weak = weak_from_this(), asked = std::move(asked)]() mutable {
    http->ask(std::move(asked.what), [weak, id = asked.id](Result<upnp::http::Reply> reply) {
      const auto self = weak.lock();
      if (!self) return;
      const std::lock_guard lock{self->mutex_};
      self->core_->handle_reply(id, reply, BootClock::now());
      self->pump();
    });
  });
}

/// Carries on whatever the core has to say, until it is quiet.
void ClientState::pump() {
  if (std::exchange(pumping_, true)) return;
  for (bool more = true; more;) {
    more = false;
    while (auto datagram = core_->poll_transmit()) {
      send(*datagram);
      more = true;
    }
    while (auto asked = core_->poll_ask()) {
      ask(std::move(*asked));
      more = true;
    }
    while (auto event = core_->poll_event()) {
      take_event(event->first, std::move(event->second));
      more = true;
    }
  }
  std::erase_if(servers_, [&](const auto& each) { return !core_->is_served(each.first); });
  const auto now = BootClock::now();
  finish_listings(now);
  if (linger_until_ && (core_->doors() == 0 || now >= *linger_until_)) {
    linger_until_.reset();
    servers_.clear();
    searches_.clear();
    listeners_.clear();
    watcher_.reset();
    if (strand_)
      asio::dispatch(*strand_, [http = http_] {
        if (http) http->stop();
      });
    error_code ignored;
    if (alarm_) alarm_->close(ignored);
    for (auto& [id, held] : doors_) {
      end_waiting(held);
      if (held.close) std::exchange(held.close, {}).done(make_error_code(Errc::no_answer));
    }
  }
  pumping_ = false;
  set_alarm(now);
}

void ClientState::set_alarm(TimePoint now) {
  if (!has_alarm()) return;
  auto due = core_->next_deadline();
  const auto at = [&](std::optional<TimePoint> other) {
    if (other && (!due || *other < *due)) due = other;
  };
  at(linger_until_);
  if (!listings_.empty()) at(now + 50ms);
  for (const auto& [id, held] : doors_) at(held.close_until);
  if (due == alarm_at_) return;
  alarm_at_ = due;
  itimerspec when{};
  if (due) {
    const auto since = std::max<std::chrono::nanoseconds>(due->time_since_epoch(), 1ns);
    when.it_value.tv_sec = static_cast<time_t>(since / 1s);
    when.it_value.tv_nsec = static_cast<long>((since % 1s).count());
  }
  ::timerfd_settime(alarm_->native_handle(), TFD_TIMER_ABSTIME, &when, nullptr);
}

void ClientState::wait_for_alarm() {
  // While it lingers, this wait is what keeps the state alive.
  std::shared_ptr<ClientState> stays = shut_down_ ? shared_from_this() : nullptr;
  alarm_->async_wait(asio::posix::stream_descriptor::wait_read,
                     [weak = weak_from_this(), stays](const error_code& error) {
                       const auto self = weak.lock();
                       if (!self || error) return;
                       const std::lock_guard lock{self->mutex_};
                       self->on_alarm();
                     });
}

void ClientState::on_alarm() {
  if (!has_alarm()) return;
  std::uint64_t times = 0;
  [[maybe_unused]] const auto size = ::read(alarm_->native_handle(), &times, sizeof times);
  alarm_at_.reset();
  const auto now = BootClock::now();
  core_->handle_timeout(now);
  for (auto next = doors_.begin(); next != doors_.end();) {
    auto& [id, held] = *next++;
    if (!held.close_until || now < *held.close_until) continue;
    if (core_->waits_to_close(id)) {
      held.close_until = now + close_patience;
      continue;
    }
    held.close_until.reset();
    if (held.close) std::exchange(held.close, {}).done(make_error_code(Errc::no_answer));
    if (!held.has_handle) doors_.erase(id);
  }
  pump();
  if (has_alarm()) wait_for_alarm();
}

// --- doors ---

DoorId ClientState::open_locked(PortRequest request) {
  start();
  const auto id = ++last_door_;
  auto& held = doors_.emplace(id, request).first->second;
  const bool twice = std::any_of(doors_.begin(), doors_.end(), [&](const auto& each) {
    return each.first != id && each.second.has_handle && each.second.request.transport == request.transport &&
           each.second.request.internal_port == request.internal_port;
  });
  const bool contradiction =
      (!request.ipv4 && !request.ipv6) || (request.exact && !request.external_port) || request.lifetime < 1s;
  if (shut_down_ || twice || contradiction) {
    Event event;
    event.kind = EventKind::refused;
    event.family = request.ipv4 ? Family::ipv4 : Family::ipv6;
    event.reason = make_error_code(shut_down_ ? Errc::closed : twice ? Errc::busy : Errc::bad_request);
    event.text =
        twice ? "another handle of this program keeps this port open already"
              : "the request names no family, no external port though it wants exactly that, or no lifetime";
    take_event(id, std::move(event));
    Event last;
    last.kind = EventKind::closed;
    last.text = "nothing was opened";
    take_event(id, std::move(last));
    return id;
  }
  core_->open(id, request, memory_.last(held.request.transport, held.request.internal_port),
              BootClock::now());
  pump();
  return id;
}

DoorId ClientState::open(PortRequest request) {
  const std::lock_guard lock{mutex_};
  return open_locked(std::move(request));
}

void ClientState::take_event(DoorId door, Event event) {
  const auto found = doors_.find(door);
  if (found == doors_.end()) return;
  auto& held = found->second;
  const auto family = static_cast<std::size_t>(event.family);
  switch (event.kind) {
    case EventKind::granted:
    case EventKind::renewed:
    case EventKind::changed:
      held.grants[family] = event.grant;
      held.refused[family].clear();
      if (event.kind != EventKind::renewed && event.family == Family::ipv4 && event.grant)
        memory_.remember(held.request.transport, held.request.internal_port, event.grant->external);
      break;
    case EventKind::refused:
      held.refused[family] = event.reason;
      break;
    case EventKind::revoked:
    case EventKind::lost:
      held.grants[family].reset();
      break;
    case EventKind::closed:
      held.grants = {};
      if (held.refused[0] == error_code{} && held.refused[1] == error_code{})
        held.refused.fill(make_error_code(Errc::closed));
      break;
  }
  const bool last = event.kind == EventKind::closed;
  if (held.next_event) {
    std::exchange(held.next_event, {}).done({}, std::move(event));
  } else if (held.has_handle) {
    if (held.events.size() >= most_events) held.events.pop_front();
    held.events.push_back(std::move(event));
  }
  tell_waiters(held, door);
  if (!last) return;
  if (held.wait) std::exchange(held.wait, {}).done(make_error_code(Errc::closed), Grant{});
  if (held.close) std::exchange(held.close, {}).done({});
  held.close_until.reset();
  if (!held.has_handle) doors_.erase(found);
}

/// Completes whoever waits for the port to be open, or for the news that it is not to be.
void ClientState::tell_waiters(Held& held, DoorId door) {
  if (!held.wait && !held.open) return;
  for (const auto& grant : held.grants) {
    if (!grant) continue;
    if (held.wait) std::exchange(held.wait, {}).done({}, *grant);
    if (held.open) std::exchange(held.open, {}).done({}, PortHandle{shared_from_this(), door});
    return;
  }
  // IPv4's word counts when it is wanted and this host has it: its refusal comes in a moment, where IPv6 may
  // be silent
  const bool by_ipv4 = held.request.ipv4 && (!held.request.ipv6 || core_->has_network(Family::ipv4));
  auto reason = held.refused[by_ipv4 ? 0 : 1];
  if (!reason) return;
  if (held.wait) std::exchange(held.wait, {}).done(reason, Grant{});
  if (held.open) {
    auto done = std::exchange(held.open, {}).done;
    held.has_handle = false;
    core_->close(door, false, BootClock::now());
    done(reason, PortHandle{});
  }
}

void ClientState::begin_wait(DoorId door, std::uint64_t call, detail::WaitDone done) {
  const std::lock_guard lock{mutex_};
  const auto found = doors_.find(door);
  if (found == doors_.end()) return done(make_error_code(Errc::closed), Grant{});
  if (found->second.wait) return done(make_error_code(Errc::busy), Grant{});
  found->second.wait = {call, std::move(done)};
  tell_waiters(found->second, door);
}

void ClientState::begin_next_event(DoorId door, std::uint64_t call, detail::EventDone done) {
  const std::lock_guard lock{mutex_};
  const auto found = doors_.find(door);
  if (found == doors_.end()) return done(make_error_code(Errc::closed), Event{});
  auto& held = found->second;
  if (held.next_event) return done(make_error_code(Errc::busy), Event{});
  if (!held.events.empty()) {
    auto event = std::move(held.events.front());
    held.events.pop_front();
    return done({}, std::move(event));
  }
  if (!core_->has_door(door)) return done(make_error_code(Errc::closed), Event{});
  held.next_event = {call, std::move(done)};
}

void ClientState::begin_close(DoorId door, std::uint64_t call, detail::CloseDone done) {
  const std::lock_guard lock{mutex_};
  const auto found = doors_.find(door);
  if (found == doors_.end()) return done(make_error_code(Errc::closed));
  auto& held = found->second;
  if (!core_->has_door(door)) {
    doors_.erase(found);
    return done({});
  }
  held.close = {call, std::move(done)};
  held.close_until = BootClock::now() + close_patience;
  held.has_handle = false;
  if (held.wait) std::exchange(held.wait, {}).done(make_error_code(Errc::closed), Grant{});
  core_->close(door, false, BootClock::now());
  pump();
}

void ClientState::begin_open(PortRequest request, std::uint64_t call, detail::OpenDone done) {
  const std::lock_guard lock{mutex_};
  const auto door = open_locked(std::move(request));
  auto& held = doors_.at(door);
  held.open = {call, std::move(done)};
  tell_waiters(held, door);
  if (!held.has_handle && !core_->has_door(door)) doors_.erase(door);
  pump();
}

void ClientState::begin_list_gateways(std::uint64_t call, detail::GatewaysDone done) {
  const std::lock_guard lock{mutex_};
  if (shut_down_) return done(make_error_code(Errc::closed), {});
  start();
  const auto now = BootClock::now();
  listings_.push_back({{call, std::move(done)}, now});
  core_->discover(now);
  pump();
}

void ClientState::finish_listings(TimePoint now) {
  if (listings_.empty() || !core_->discovered(now)) return;
  for (auto& each : std::exchange(listings_, {})) each.done.done({}, core_->gateways());
}

void ClientState::begin_netcheck(NetcheckOptions options, std::uint64_t call, detail::NetcheckDone done) {
  const std::lock_guard lock{mutex_};
  if (shut_down_) return done(make_error_code(Errc::closed), {});
  std::erase_if(netchecks_, [](const auto& each) { return each.second.expired(); });
  const auto run =
      std::make_shared<netcheck::Run>(shared_from_this(), options_, std::move(options), std::move(done));
  netchecks_[call] = run;
  run->start();
}

std::vector<Core::Refusal> ClientState::refusals(DoorId door, Family family) {
  const std::lock_guard lock{mutex_};
  return core_->refusals(door, family);
}

std::optional<DoorId> ClientState::door_of(Transport transport, Port port) {
  const std::lock_guard lock{mutex_};
  for (const auto& [id, held] : doors_)
    if (held.has_handle && held.request.transport == transport && held.request.internal_port == port &&
        core_->has_door(id))
      return id;
  return std::nullopt;
}

std::vector<Grant> ClientState::grants(DoorId door) {
  const std::lock_guard lock{mutex_};
  std::vector<Grant> all;
  if (const auto found = doors_.find(door); found != doors_.end())
    for (const auto& grant : found->second.grants)
      if (grant) all.push_back(*grant);
  return all;
}

void ClientState::drop(DoorId door, bool leave_lease) {
  const std::lock_guard lock{mutex_};
  const auto found = doors_.find(door);
  if (found == doors_.end()) return;
  auto& held = found->second;
  held.has_handle = false;
  held.events.clear();
  if (held.wait) std::exchange(held.wait, {}).done(make_error_code(Errc::closed), Grant{});
  if (held.next_event) std::exchange(held.next_event, {}).done(make_error_code(Errc::closed), Event{});
  if (!core_->has_door(door)) {
    doors_.erase(found);
    return;
  }
  core_->close(door, leave_lease, BootClock::now());
  pump();
}

/// Nobody who waits for a door keeps its executor from ending.
void ClientState::end_waiting(Held& held) {
  const error_code closed = make_error_code(Errc::closed);
  if (held.wait) std::exchange(held.wait, {}).done(closed, Grant{});
  if (held.next_event) std::exchange(held.next_event, {}).done(closed, Event{});
  if (held.open) std::exchange(held.open, {}).done(closed, PortHandle{});
}

void ClientState::give_everything_back(TimePoint now) {
  core_->hurry(now);
  for (const auto& [id, held] : doors_) core_->close(id, false, now);
}

void ClientState::shut_down() {
  const std::lock_guard lock{mutex_};
  if (std::exchange(shut_down_, true)) return;
  for (auto& each : std::exchange(listings_, {})) each.done.done(make_error_code(Errc::closed), {});
  for (const auto& [_, netcheck] : std::exchange(netchecks_, {}))
    if (const auto run = netcheck.lock()) run->stop(make_error_code(Errc::closed));
  for (auto& [id, held] : doors_) end_waiting(held);
  if (!started_) return;
  const auto now = BootClock::now();
  give_everything_back(now);
  linger_until_ = now + linger;
  if (has_alarm()) {
    error_code ignored;
    alarm_->cancel(ignored);  // the wait begins anew, and holds on to this
    wait_for_alarm();
  }
  alarm_at_.reset();
  pump();
}

void ClientState::end_with_context() {
  // What is destroyed here may own handles of this very client: not under the lock.
  std::map<DoorId, Held> doors;
  std::vector<Listing> listings;
  std::shared_ptr<HttpClient> http;
  std::unique_ptr<transport::NetworkWatcher> watcher;
  const std::lock_guard lock{mutex_};
  shut_down_ = true;
  linger_until_.reset();
  if (started_) {
    const auto now = BootClock::now();
    give_everything_back(now);
    while (const auto datagram = core_->poll_transmit())
      if (const auto server = servers_.find(datagram->server); server != servers_.end())
        ::send(server->second->descriptor.native_handle(), datagram->bytes.data(), datagram->bytes.size(),
               MSG_NOSIGNAL | MSG_DONTWAIT);
  }
  doors.swap(doors_);
  listings.swap(listings_);
  netchecks_.clear();
  servers_.clear();
  searches_.clear();
  listeners_.clear();
  http.swap(http_);
  watcher.swap(watcher_);
  alarm_.reset();
  strand_.reset();
}

void ClientState::cancel(std::uint64_t call) {
  const std::lock_guard lock{mutex_};
  const error_code aborted = asio::error::operation_aborted;
  for (auto& [id, held] : doors_) {
    if (held.wait && held.wait.id == call) return std::exchange(held.wait, {}).done(aborted, Grant{});
    if (held.next_event && held.next_event.id == call)
      return std::exchange(held.next_event, {}).done(aborted, Event{});
    if (held.close && held.close.id == call) return std::exchange(held.close, {}).done(aborted);
    if (held.open && held.open.id == call) {
      auto done = std::exchange(held.open, {}).done;
      held.has_handle = false;
      core_->close(id, false, BootClock::now());
      done(aborted, PortHandle{});
      return pump();
    }
  }
  if (const auto found = netchecks_.find(call); found != netchecks_.end()) {
    if (const auto run = found->second.lock()) run->stop(aborted);
    netchecks_.erase(found);
    return;
  }
  for (auto& each : listings_)
    if (each.done.id == call) {
      auto done = std::move(each.done.done);
      std::erase_if(listings_, [&](const Listing& one) { return one.done.id == call; });
      return done(aborted, {});
    }
}

}  // namespace sallyport::client
