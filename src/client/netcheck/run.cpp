#include "src/client/netcheck/run.hpp"

#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include <boost/asio/dispatch.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>

#include "protocols/stun/transaction.hpp"
#include "src/client/state.hpp"
#include "src/transport/socket_tools.hpp"

namespace sallyport::client::netcheck {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using namespace std::chrono_literals;
using std::chrono::nanoseconds;
using transport::Descriptor;
using transport::SocketAddress;

constexpr nanoseconds probe_time = 2s;        // three transmissions
constexpr nanoseconds listing_slack = 300ms;  // who was found last is asked for the port by then
constexpr nanoseconds most_reserve = 600ms;   // for giving back
constexpr nanoseconds least_patience = 500ms;
constexpr std::size_t most_ways = 8;
constexpr int read_at_once = 64;
constexpr std::chrono::seconds test_lifetime{120};

void fill(std::span<std::byte> bytes) {
  for (std::size_t filled = 0; filled < bytes.size();) {
    const auto got = ::getrandom(bytes.data() + filled, bytes.size() - filled, 0);
    if (got > 0) filled += static_cast<std::size_t>(got);
  }
}
stun::TransactionId random_id() {
  stun::TransactionId id;
  fill(id);
  return id;
}

/// Of the address and port (0: any free one); -1 when it cannot be had.
int open_bound(int type, const Address& address, std::uint16_t port) {
  const bool six = !address.is_v4();
  Descriptor socket{::socket(six ? AF_INET6 : AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
  if (socket.get() < 0) return -1;
  const int on = 1;
  if (six) transport::set(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, on);
  const auto [name, length] = transport::to_sockaddr(address, port, 0);
  if (::bind(socket.get(), &name.any, length) != 0) return -1;
  return socket.release();
}

std::optional<Port> port_of(int socket) {
  SocketAddress name{};
  socklen_t length = sizeof name;
  if (::getsockname(socket, &name.any, &length) != 0) return std::nullopt;
  return Port::from(transport::from_sockaddr(name).second);
}

bool leads_out4(const Network::Interface& each) { return !each.routers4.empty() || each.direct4; }
bool leads_out6(const Network::Interface& each) { return !each.routers6.empty() || each.direct6; }

void add_answer(std::vector<Answered>& answers, Protocol protocol, std::string with) {
  const auto at = std::find_if(answers.begin(), answers.end(),
                               [&](const Answered& one) { return one.protocol >= protocol; });
  if (at != answers.end() && at->protocol == protocol) {
    if (!with.empty()) at->with = std::move(with);
    return;
  }
  answers.insert(at, {protocol, std::move(with)});
}

}  // namespace

struct Run::Socket {
  Socket(const asio::any_io_executor& executor, Way* of, int number)
      : way{of}, descriptor{executor, number} {}
  Way* way;  ///< none: listens on the test port, for all
  asio::posix::stream_descriptor descriptor;
};

/// A way out by one family, and how far it has been looked at.
struct Run::Way {
  bool six = false;
  Path path;
  TimePoint begun{};

  std::shared_ptr<ClientState> client;  ///< none: nobody is asked
  DoorId door = 0;
  std::vector<std::uint64_t> calls;  ///< begun there
  bool answered = false;             ///< a grant, or why there is none
  bool opened = false;               ///< the mapping is what it will be
  bool closed = false;

  std::shared_ptr<Socket> view_socket, probe_socket;
  std::optional<stun::Transaction> view, probe;
  TimePoint probe_begun{};
  bool viewed = false, probed = false;
  bool helper_changes = false;  ///< the helper has another address to answer from
};

Run::Run(const std::shared_ptr<ClientState>& client, ClientOptions gateways, NetcheckOptions options,
         detail::NetcheckDone done)
    : client_{client},
      gateways_{std::move(gateways)},
      options_{std::move(options)},
      done_{std::move(done)},
      strand_{client->executor()},
      alarm_{strand_},
      resolver_{strand_},
      begun_{BootClock::now()},
      open_until_{begun_ + std::max<nanoseconds>(options_.patience, least_patience) * 6 / 10},
      probe_until_{
          begun_ + std::max<nanoseconds>(options_.patience, least_patience) -
          std::min<nanoseconds>(most_reserve, std::max<nanoseconds>(options_.patience, least_patience) / 6)},
      deadline_{begun_ + std::max<nanoseconds>(options_.patience, least_patience)} {}

Run::~Run() = default;

void Run::start() {
  asio::post(strand_, [self = shared_from_this()] { self->begin(); });
}

void Run::stop(error_code reason) {
  asio::post(strand_, [self = shared_from_this(), reason] { self->finish(reason); });
}

// --- the beginning ---

void Run::begin() {
  if (finished_) return;
  const auto client = client_.lock();
  if (!client) return finish(make_error_code(Errc::closed));
  network_ = client->network();
  if (options_.port) own_door_ = client->door_of(options_.transport, *options_.port);
  take_port();
  add_ways(network_);
  if (ways_.empty()) {
    listed_at_ = begun_;
  } else {
    listing_ = client->next_call();
    client->begin_list_gateways(
        listing_, {[self = shared_from_this()](const error_code&, const std::vector<Gateway>& gateways) {
                     if (self->finished_ || self->closing_) return;
                     self->take_listing(gateways);
                     self->look();
                   },
                   strand_});
    resolve();
  }
  look();
}

/// A port that is free, or the one that was named; somebody else may have that, and then the helper's packet
/// cannot be waited for.
void Run::take_port() {
  port_ = options_.port;
  const int type = options_.transport == Transport::udp ? SOCK_DGRAM : SOCK_STREAM;
  for (const auto& any : {Address::v4(0), Address{}}) {
    const int socket = open_bound(type, any, port_ ? port_->number() : 0);
    if (socket < 0) continue;
    if (!port_) port_ = port_of(socket);
    auto& listens = any.is_v4() ? listens4_ : listens6_;
    listens = open_socket(nullptr, socket);  // of TCP it keeps the port, and nothing comes in by it
    if (options_.transport == Transport::udp) listen(listens);
  }
}

void Run::add_ways(const Network& network) {
  const auto& all = network.interfaces;
  if (!gateways_.gateways.empty()) {
    for (const auto& gateway : gateways_.gateways) {
      if (!gateway.is_v4()) continue;
      const Network::Interface* best = nullptr;
      for (const auto& each : all) {
        if (each.ipv4.empty()) continue;
        const bool near = std::any_of(each.ipv4.begin(), each.ipv4.end(),
                                      [&](const Prefix& one) { return one.contains(gateway); });
        if (!best || near) best = &each;
        if (near) break;
      }
      if (best) add_way(*best, gateway, leads_out4(*best));
    }
  } else {
    const bool any = std::any_of(all.begin(), all.end(), leads_out4);
    for (const auto& each : all) {
      if (each.ipv4.empty()) continue;
      for (const auto& router : each.routers4) add_way(each, router, true);
      if (each.routers4.empty() && (each.direct4 || !any)) add_way(each, std::nullopt, each.direct4);
    }
  }
  for (const auto& each : all) {
    if (each.ipv6.empty() || !leads_out6(each)) continue;
    if (ipv6_.empty()) add_ipv6_way(each);
    for (const auto& one : each.ipv6) ipv6_.push_back(one.address);
  }
}

void Run::add_way(const Network::Interface& interface, std::optional<Address> gateway, bool routed) {
  if (ways_.size() >= most_ways) return;
  auto& way = *ways_.emplace_back(std::make_unique<Way>());
  way.begun = BootClock::now();
  way.path.interface = interface.name;
  way.path.local = gateway ? nearest(interface.ipv4, *gateway) : interface.ipv4.front().address;
  way.path.routed = routed;
  way.path.gateway = gateway;
  if (!gateway) return;
  auto only = gateways_;
  only.gateways = {*gateway};
  only.interfaces = {interface.name};
  open_test_port(way, false, std::move(only));
}

void Run::add_ipv6_way(const Network::Interface& interface) {
  auto& way = *ways_.emplace_back(std::make_unique<Way>());
  way.six = true;
  way.begun = BootClock::now();
  way.path.interface = interface.name;
  way.path.local = interface.ipv6.front().address;
  auto only = gateways_;
  only.interfaces = {interface.name};
  open_test_port(way, true, std::move(only));
}

void Run::open_test_port(Way& way, bool six, ClientOptions gateways) {
  if (own_door_ || !port_) return;
  gateways.state_file.clear();
  way.client = std::make_shared<ClientState>(strand_.get_inner_executor(), std::move(gateways));
  way.door = way.client->open({.transport = options_.transport,
                               .internal_port = *port_,
                               .lifetime = test_lifetime,
                               .description = "netcheck",
                               .ipv4 = !six,
                               .ipv6 = six});
  way.client->begin_wait(way.door, way.calls.emplace_back(way.client->next_call()),
                         {[self = shared_from_this(), &way](const error_code&, const Grant&) {
                            way.answered = true;
                            self->look();
                          },
                          strand_});
}

void Run::resolve() {
  if (!options_.helper) {
    resolved_ = true;
    return;
  }
  const auto take = [this](const Address& address) {
    auto& helper = address.is_v4() ? helper4_ : helper6_;
    if (!helper) helper = ExternalEndpoint{address, options_.helper->port};
  };
  if (const auto address = Address::parse(options_.helper->host)) {
    take(*address);
    resolved_ = true;
    return;
  }
  resolver_.async_resolve(
      options_.helper->host, std::to_string(options_.helper->port.number()),
      asio::ip::resolver_base::numeric_service,
      [self = shared_from_this(), take](const error_code& error, const auto& found) {
        if (self->finished_) return;
        if (!error)
          for (const auto& each : found)
            if (const auto address = Address::parse(each.endpoint().address().to_string())) take(*address);
        self->resolved_ = true;
        self->look();
      });
}

/// Who has answered, and gateways that are no router of this host.
void Run::take_listing(const std::vector<Gateway>& gateways) {
  listed_at_ = BootClock::now();
  for (const auto& gateway : gateways) {
    if (!gateway.address.is_v4()) continue;
    const auto is_of = [&](const auto& way) {
      return way->path.gateway == gateway.address && way->path.interface == gateway.interface;
    };
    auto found = std::find_if(ways_.begin(), ways_.end(), is_of);
    if (found == ways_.end()) {
      const auto here = std::find_if(network_.interfaces.begin(), network_.interfaces.end(),
                                     [&](const auto& each) { return each.name == gateway.interface; });
      if (!gateways_.gateways.empty() || here == network_.interfaces.end() || here->ipv4.empty()) continue;
      add_way(*here, gateway.address, leads_out4(*here));
      found = std::find_if(ways_.begin(), ways_.end(), is_of);
      if (found == ways_.end()) continue;
    }
    auto& path = (*found)->path;
    path.gateway_external = gateway.external_address;
    for (const auto protocol : gateway.protocols) {
      std::string with;
      if (protocol == Protocol::upnp) {
        if (gateway.igd_version) with = "IGD:" + std::to_string(*gateway.igd_version);
        if (!gateway.name.empty()) with += (with.empty() ? "" : ", ") + gateway.name;
      }
      add_answer(path.answers, protocol, std::move(with));
    }
  }
}

// --- what happens ---

/// Brings everything up to date: called when anything has come in or is due.
void Run::look() {
  if (finished_) return;
  const auto now = BootClock::now();
  if (!closing_) {
    bool busy = !listed_at_;
    for (const auto& way : ways_) {
      advance(*way, now);
      busy = busy || !way->opened || !way->viewed || !way->probed;
    }
    if (!busy || now >= probe_until_) give_back();
  }
  const bool given_back =
      closing_ && std::all_of(ways_.begin(), ways_.end(), [](const auto& way) { return way->closed; });
  if (given_back || now >= deadline_) return finish({});
  set_alarm(now);
}

void Run::advance(Way& way, TimePoint now) {
  if (!way.opened) {
    take_mapping(way);
    const auto settled = listed_at_ ? std::max(*listed_at_, way.begun) + listing_slack : open_until_;
    way.opened = way.path.mapping.granted || (!way.client && listed_at_) || now >= open_until_ ||
                 (way.answered && now >= settled);
  }
  if (!way.viewed) ask_view(way, now);
  if (way.view) {
    way.view->handle_timeout(now);
    while (const auto bytes = way.view->poll_transmit())
      ::send(way.view_socket->descriptor.native_handle(), bytes->data(), bytes->size(),
             MSG_NOSIGNAL | MSG_DONTWAIT);
    if (const auto outcome = way.view->poll_outcome()) {
      way.viewed = true;
      if (outcome->kind == stun::Outcome::Kind::answered) {
        way.path.seen = outcome->response.mapped;
        way.helper_changes = outcome->response.other.has_value();
      }
      way.view.reset();
    }
  }
  if (!way.probed && way.viewed && way.opened) ask_probe(way, now);
  if (way.probe) {
    way.probe->handle_timeout(now);
    const auto& helper = *helper_of(way);
    const auto [name, length] = transport::to_sockaddr(helper.address, helper.port.number(), 0);
    while (const auto bytes = way.probe->poll_transmit())
      ::sendto(way.probe_socket->descriptor.native_handle(), bytes->data(), bytes->size(),
               MSG_NOSIGNAL | MSG_DONTWAIT, &name.any, length);
    if (way.probe->poll_outcome()) {  // what came in was seen by on_readable()
      way.probed = true;
      if (way.path.probe.state == Probe::State::not_asked) {
        way.path.probe.state = Probe::State::silent;
        way.path.probe.waited = std::chrono::duration_cast<std::chrono::milliseconds>(now - way.probe_begun);
      }
      way.probe.reset();
    }
  }
}

void Run::take_mapping(Way& way) {
  const auto holder = way.client ? way.client : client_.lock();
  if (!holder || (!way.client && !own_door_)) return;
  const auto door = way.client ? way.door : *own_door_;
  const auto family = way.six ? Family::ipv6 : Family::ipv4;
  auto& path = way.path;
  for (const auto& grant : holder->grants(door)) {
    if (grant.family != family || (!way.six && grant.gateway != path.gateway)) continue;
    path.mapping.granted = Granted{grant.protocol, grant.external};
    add_answer(path.answers, grant.protocol, {});
  }
  path.mapping.refused.clear();
  for (const auto& refusal : holder->refusals(door, family)) {
    const auto via = refusal.protocol;
    path.mapping.refused.push_back({via, refusal.failure, refusal.code});
    if (refusal.failure != wire::MappingFailure::no_answer &&
        refusal.failure != wire::MappingFailure::unsupported)
      add_answer(path.answers, via, {});
  }
}

const std::optional<ExternalEndpoint>& Run::helper_of(const Way& way) const {
  return way.six ? helper6_ : helper4_;
}

/// What the outside sees of this way. Connected: that nobody is there is told.
void Run::ask_view(Way& way, TimePoint now) {
  if (way.view) return;
  if (!resolved_ && now < open_until_) return;
  const auto& helper = helper_of(way);
  if (!helper) {
    way.viewed = true;
    return;
  }
  way.view_socket = open_socket(&way, open_bound(SOCK_DGRAM, way.path.local, 0));
  const auto [name, length] = transport::to_sockaddr(helper->address, helper->port.number(), 0);
  if (!way.view_socket || ::connect(way.view_socket->descriptor.native_handle(), &name.any, length) != 0) {
    way.viewed = true;
    return;
  }
  listen(way.view_socket);
  way.view.emplace(stun::BindingRequest{.id = random_id()}, now, std::max(open_until_, now + 1ms));
}

/// The packet from outside. It is asked for by a socket that is not the one it is to come to, and not
/// connected: a helper that ignores part of the question may answer it from anywhere.
void Run::ask_probe(Way& way, TimePoint now) {
  if (way.probe) return;
  const bool possible = options_.transport == Transport::udp && (way.six ? listens6_ : listens4_) &&
                        way.path.seen && now < probe_until_;
  if (possible) way.probe_socket = open_socket(&way, open_bound(SOCK_DGRAM, way.path.local, 0));
  if (!possible || !way.probe_socket) {
    way.probed = true;
    return;
  }
  listen(way.probe_socket);
  const auto& granted = way.path.mapping.granted;
  way.probe.emplace(stun::BindingRequest{.id = random_id(),
                                         .response_port = granted ? granted->external.port : *port_,
                                         .change_address = way.helper_changes,
                                         .change_port = way.helper_changes},
                    now, std::min(probe_until_, now + probe_time));
  way.probe_begun = now;
}

void Run::give_back() {
  closing_ = true;
  for (const auto& each : ways_) {
    auto& way = *each;
    if (!way.client) {
      way.closed = true;
      continue;
    }
    take_mapping(way);                // its address may have been told since
    if (!way.path.mapping.granted) {  // what comes of a request without an answer needs no waiting for
      way.client->shut_down();
      way.closed = true;
      continue;
    }
    way.client->begin_close(way.door, way.calls.emplace_back(way.client->next_call()),
                            {[self = shared_from_this(), &way](const error_code&) {
                               way.closed = true;
                               self->look();
                             },
                             strand_});
  }
}

void Run::set_alarm(TimePoint now) {
  auto due = deadline_;
  const auto at = [&](std::optional<TimePoint> other) {
    if (other && *other > now) due = std::min(due, *other);
  };
  if (!closing_) {
    at(open_until_);
    at(probe_until_);
    for (const auto& way : ways_) {
      if (!way->opened && listed_at_) at(std::max(*listed_at_, way->begun) + listing_slack);
      if (way->view) at(way->view->next_deadline());
      if (way->probe) at(way->probe->next_deadline());
    }
  }
  alarm_.expires_after(std::max<nanoseconds>(due - now, 1ms));
  alarm_.async_wait([self = shared_from_this()](const error_code& error) {
    if (!error) self->look();
  });
}

void Run::finish(error_code error) {
  if (std::exchange(finished_, true)) return;
  alarm_.cancel();
  resolver_.cancel();
  for (const auto& socket : sockets_) {
    error_code ignored;
    socket->descriptor.close(ignored);
  }
  for (const auto& way : ways_)
    if (const auto client = std::exchange(way->client, nullptr)) {
      for (const auto call : way->calls) client->cancel(call);  // they hold on to us, and we to them
      client->shut_down();  // gives back in the background what is still held
    }
  if (const auto client = client_.lock(); client && listing_ != 0 && !listed_at_) client->cancel(listing_);
  done_(error, error ? NetcheckReport{} : report(observations()));
}

Observations Run::observations() const {
  Observations all;
  all.transport = options_.transport;
  all.port = port_;
  if (options_.helper) {
    const auto& [host, port] = *options_.helper;
    const bool six = host.find(':') != std::string::npos;
    all.helper = (six ? "[" + host + "]" : host) + ":" + std::to_string(port.number());
  }
  all.ipv6.addresses = ipv6_;
  for (const auto& way : ways_) {
    if (way->six) {
      all.ipv6.pinhole = way->path.mapping;
      all.ipv6.probe = way->path.probe;
    } else {
      all.paths.push_back(way->path);
    }
  }
  return all;
}

// --- sockets ---

std::shared_ptr<Run::Socket> Run::open_socket(Way* way, int descriptor) {
  if (descriptor < 0) return nullptr;
  auto socket = std::make_shared<Socket>(strand_, way, descriptor);
  sockets_.push_back(socket);
  return socket;
}

void Run::listen(const std::shared_ptr<Socket>& socket) {
  socket->descriptor.async_wait(asio::posix::stream_descriptor::wait_read,
                                [self = shared_from_this(), socket](const error_code& error) {
                                  if (error || self->finished_) return;
                                  self->on_readable(*socket);
                                  self->look();
                                  if (!self->finished_) self->listen(socket);
                                });
}

void Run::on_readable(Socket& socket) {
  std::array<std::byte, stun::max_response + 1> buffer;
  for (int i = 0; i < read_at_once; ++i) {
    SocketAddress from{};
    socklen_t length = sizeof from;
    const auto size = ::recvfrom(socket.descriptor.native_handle(), buffer.data(), buffer.size(),
                                 MSG_DONTWAIT, &from.any, &length);
    if (size < 0) {
      if (errno == EAGAIN || errno == EWOULDBLOCK) return;
      if (errno == ECONNREFUSED && socket.way && socket.way->view && socket.way->view_socket.get() == &socket)
        socket.way->view->handle_unreachable();
      continue;
    }
    const auto datagram = std::span{buffer}.first(static_cast<std::size_t>(size));
    if (socket.way && socket.way->view_socket.get() == &socket) {
      if (socket.way->view) socket.way->view->handle_datagram(datagram);
    } else if (socket.way) {
      if (socket.way->probe && socket.way->probe->handle_datagram(datagram))
        socket.way->path.probe.state = Probe::State::not_supported;
    } else {
      const auto [address, port] = transport::from_sockaddr(from);
      for (const auto& way : ways_)
        if (way->probe && way->probe->handle_datagram(datagram)) {
          auto& probe = way->path.probe;
          probe.state = Probe::State::arrived;
          if (const auto number = Port::from(port)) probe.from = to_string(address, *number);
          probe.from_stranger = address != helper_of(*way)->address;
        }
    }
  }
}

}  // namespace sallyport::client::netcheck
