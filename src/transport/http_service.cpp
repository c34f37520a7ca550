#include "src/transport/http_service.hpp"

#include <arpa/inet.h>
#include <linux/filter.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <deque>
#include <fstream>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include "protocols/upnp/http/admission.hpp"
#include "src/transport/arrival_check.hpp"
#include "src/transport/socket_tools.hpp"

namespace sallyport::transport {
namespace {

namespace asio = boost::asio;
namespace http = upnp::http;
using boost::system::error_code;

constexpr int backlog = 512;
constexpr std::size_t read_octets = 16 * 1024;
constexpr std::size_t kept_capacity = 4096;
/// Connections that nobody has now and whose buffers are kept for the next ones.
constexpr std::size_t kept_connections = 64;
constexpr int events_at_once = 128;
constexpr int accepts_at_once = 64;
/// Requests and pieces of long answers between two turns of other work, and after how long there are no more: a
/// request may cost a hundred times what another does, and who asks for port 5351 waits behind all of them.
constexpr int slice = 64;
constexpr std::chrono::milliseconds slice_time{2};
constexpr int pieces_at_once = 4;
/// Unsent octets in the kernel beyond which it takes no more: clients that never read cost it little.
constexpr int unsent_octets = 64 * 1024;
constexpr std::chrono::milliseconds sweep_time{250};
constexpr std::chrono::milliseconds pause_time{20};
constexpr std::uint64_t listener_mark = std::uint64_t{1} << 63;

/// Names in capitals, as UPnP writes them; no value can end its line.
void append_field(std::string& out, std::string_view name, std::string_view value) {
  for (const char c : name) out += c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  out += ':';
  if (!value.empty()) out += ' ';
  for (const char c : value) out += c == '\r' || c == '\n' || c == '\0' ? ' ' : c;
  out += "\r\n";
}

void append_chunk(std::string& out, std::string_view piece) {
  static constexpr std::string_view digits = "0123456789abcdef";
  std::array<char, 16> size{};
  std::size_t at = size.size();
  for (std::size_t rest = piece.size(); rest != 0; rest /= 16) size[--at] = digits[rest % 16];
  out.append(size.data() + at, size.size() - at);
  out += "\r\n";
  out += piece;
  out += "\r\n";
}

void shrink(std::string& text) {
  text.clear();
  if (text.capacity() > kept_capacity) std::string{}.swap(text);
}

}  // namespace

class HttpService::Impl : public std::enable_shared_from_this<Impl> {
 public:
  Impl(asio::io_context& io, Handler handler, const Clock& clock, Options options)
      : io_{io},
        handler_{std::move(handler)},
        clock_{clock},
        options_{std::move(options)},
        limiter_{options_.limit},
        polled_{io},
        sweep_timer_{io},
        pause_timer_{io} {}

  bool serve(std::span<const nat::PlaneInterface> lan, std::span<const Address> own, std::string& why);
  void close_all();
  void set_rate(std::uint32_t per_second, std::uint32_t burst) { limiter_.set_rate(per_second, burst); }
  void set_connections(std::size_t per_device, std::size_t total) {
    options_.connections_per_device = per_device;
    options_.connections = total;
  }
  std::size_t open_connections() const noexcept { return used_; }

  Counts counts;

 private:
  struct Listener {
    Descriptor socket;
    nat::PlaneInterface interface;
    Address address;
    std::uint64_t id = 0;
  };
  /// A peer address with connections. In turns_ or paused_ at most once.
  struct Device {
    Address address;
    std::size_t connections = 0;  ///< without the lingering ones
    std::size_t lingering = 0;
    std::deque<std::uint32_t> ready;  ///< slots whose request, or next piece of an answer, waits its turn
    bool in_turns = false;
  };
  enum class State : std::uint8_t {
    free,
    reading,    ///< waits for a whole request
    queued,     ///< has one, waits its turn
    handling,   ///< the handler has it
    sending,
    lingering,  ///< all is said; waits for the peer to hang up
  };
  struct Connection {
    explicit Connection(const HttpReader::Limits& limits) : reader{limits} {}
    Descriptor socket;
    State state = State::free;
    std::uint32_t slot = 0;
    std::uint32_t generation = 0;  ///< another one each time the slot is used
    Device* device = nullptr;
    wire::Arrival arrival;

    // what epoll has told, edge by edge, and has not been used up
    bool readable = true;
    bool writable = true;
    bool peer_done = false;  ///< it has sent its FIN

    HttpReader reader;
    http::Request request;
    bool begun = true;  ///< octets of the request have come, or it is the first one
    std::uint64_t waiting_place = 0;  ///< in the order in which they began to wait for a whole request
    TimePoint begun_at;
    TimePoint deadline = TimePoint::max();
    std::uint64_t serial = 0;  ///< of the request that is handled

    bool without_body = false;
    bool old = false;  ///< HTTP/1.0
    bool close_after = false;
    bool interim = false;  ///< what is sent is "100 Continue"
    bool awaits_turn = false;  ///< to send the next piece
    std::string out;
    std::size_t out_sent = 0;
    http::Response answer;
    std::size_t body_sent = 0;
    std::size_t lingered = 0;
  };
  using Handle = std::pair<std::uint32_t, std::uint32_t>;
  static Handle handle_of(const Connection& c) noexcept { return {c.slot, c.generation}; }
  bool is_live(const Handle& handle) const noexcept {
    return handle.first < slots_.size() && slots_[handle.first] &&
           slots_[handle.first]->generation == handle.second && slots_[handle.first]->state != State::free;
  }

  bool open_poll(std::string& why);
  void keep_silent_elsewhere(bool with_v6);
  void share_port(bool on);
  /// False when it cannot be had; `why` stays empty when that is the network's doing and the next change of it
  /// tries again.
  bool listen(const nat::PlaneInterface& interface, const Address& address, std::string& why);
  void wait();
  void on_events();
  void on_event(Connection& c, std::uint32_t events);

  void accept(Listener& listener);
  void pause_accepting();
  void resume_accepting();
  bool admit(Device& device);
  void take(Descriptor socket, const wire::Arrival& arrival, Device& device);
  bool make_room();
  void drop_hung_up(Device& device);
  Device& device_of(const Address& address);
  void forget_if_idle(Device& device);

  void read(Connection& c);
  void parse(Connection& c);
  void set_read_deadline(Connection& c);
  void queue(Connection& c);
  void schedule_turn();
  void turn();
  void dispatch(Connection& c);
  void answer(const Handle& handle, std::uint64_t serial, http::Response response);
  void begin_answer(Connection& c, http::Response response);
  void write_head(Connection& c);
  void send(Connection& c);
  void finish_answer(Connection& c);
  void linger(Connection& c);
  void drain(Connection& c);
  void close(Connection& c);

  void start_sweeping();
  void sweep();

  asio::io_context& io_;
  Handler handler_;
  const Clock& clock_;
  Options options_;
  SourceLimiter limiter_;
  /// An epoll of our own, which Asio sees as one descriptor: no reactor call and no handler object per operation.
  asio::posix::stream_descriptor polled_;
  asio::steady_timer sweep_timer_;
  asio::steady_timer pause_timer_;
  std::vector<std::unique_ptr<Listener>> listeners_;
  Descriptor elsewhere_;  ///< takes the port everywhere else; a filter drops what comes there
  Descriptor elsewhere_v6_;
  std::uint64_t next_listener_ = 0;
  std::vector<Address> own_;
  std::vector<std::unique_ptr<Connection>> slots_;
  std::vector<std::uint32_t> free_slots_;
  std::size_t used_ = 0;
  std::uint32_t next_generation_ = 0;
  std::uint64_t next_serial_ = 0;
  std::uint64_t next_place_ = 0;
  std::unordered_map<Address, Device> devices_;
  std::deque<Device*> turns_;
  std::vector<Device*> paused_;  ///< above their rate until the timer rings
  bool turn_posted_ = false;
  bool in_events_ = false;  ///< a turn follows anyway
  bool sweeping_ = false;
  bool accepting_ = true;
  bool closed_ = false;
  std::string date_;
  WallTime date_of_{};
  std::array<char, read_octets> buffer_;
};

// ---- listening

bool HttpService::Impl::open_poll(std::string& why) {
  if (polled_.is_open()) return true;
  Descriptor descriptor{::epoll_create1(EPOLL_CLOEXEC)};
  if (descriptor.get() < 0) {
    why = "the HTTP service cannot wait for connections: " + boost::system::system_category().message(errno);
    return false;
  }
  polled_.assign(descriptor.release());
  wait();
  return true;
}

/// A listening socket whose filter drops every segment: on interfaces that are not served not even a reset answers
/// (POL-WHO-01). Where another program has the port on some other address, that address is not ours to silence.
void HttpService::Impl::keep_silent_elsewhere(bool with_v6) {
  const auto open = [&](const Address& any) {
    Descriptor socket{
        ::socket(any.is_v4() ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP)};
    sock_filter nothing[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
    const sock_fprog program{1, nothing};
    if (socket.get() < 0 ||
        ::setsockopt(socket.get(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) != 0)
      return Descriptor{};
    set(socket.get(), SOL_SOCKET, SO_REUSEADDR, 1);
    if (!any.is_v4()) set(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, 1);
    const auto [to, size] = to_sockaddr(any, options_.port, 0);
    if (::bind(socket.get(), &to.any, size) != 0 || ::listen(socket.get(), 1) != 0) return Descriptor{};
    return socket;
  };
  if (elsewhere_.get() < 0) elsewhere_ = open(Address::v4(0));
  if (with_v6 && elsewhere_v6_.get() < 0) elsewhere_v6_ = open(Address{});
}

/// Our own sockets share the port while one of them is being bound and at no other time: whoever else has it is
/// found, and nobody else can listen beside us.
void HttpService::Impl::share_port(bool on) {
  for (const auto* socket : {&elsewhere_, &elsewhere_v6_})
    if (socket->get() >= 0) set(socket->get(), SOL_SOCKET, SO_REUSEPORT, on ? 1 : 0);
}

bool HttpService::Impl::listen(const nat::PlaneInterface& interface, const Address& address, std::string& why) {
  const auto failed = [&](std::string_view what) {
    why = "TCP port " + std::to_string(options_.port) + " of " + address.to_string() + " " + std::string{what} + ": " +
          boost::system::system_category().message(errno);
    return false;
  };
  Descriptor socket{
      ::socket(address.is_v4() ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP)};
  if (socket.get() < 0) return failed("gets no socket");
  if (::setsockopt(socket.get(), SOL_SOCKET, SO_BINDTODEVICE, interface.name.c_str(),
                   static_cast<socklen_t>(interface.name.size() + 1)) != 0) {
    if (::if_nametoindex(interface.name.c_str()) == 0) return false;  // gone in this very moment
    return failed("cannot be tied to interface " + interface.name);
  }
  if (!address.is_v4()) set(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, 1);
  set(socket.get(), SOL_SOCKET, SO_REUSEADDR, 1);  // connections of an earlier run may still be fading
  // these three are passed on to the accepted sockets
  set(socket.get(), IPPROTO_TCP, TCP_NODELAY, 1);
  set(socket.get(), IPPROTO_TCP, TCP_NOTSENT_LOWAT, unsent_octets);
  const auto [to, size] = to_sockaddr(address, options_.port, interface.index);
  // Sharing with the sockets elsewhere, which were bound without it: while they are there the port is all ours.
  const bool share = (address.is_v4() ? elsewhere_ : elsewhere_v6_).get() >= 0;
  if (share) set(socket.get(), SOL_SOCKET, SO_REUSEPORT, 1);
  const bool bound = ::bind(socket.get(), &to.any, size) == 0 && ::listen(socket.get(), backlog) == 0;
  const int error = errno;
  if (share) set(socket.get(), SOL_SOCKET, SO_REUSEPORT, 0);
  errno = error;
  if (!bound) {
    if (errno == EADDRNOTAVAIL || errno == ENODEV) return false;
    if (errno != EADDRINUSE) return failed("cannot be bound");
    why = "TCP port " + std::to_string(options_.port) + " of " + address.to_string() +
          " is taken by another program (another UPnP server?); stop it, or configure another port";
    return false;
  }
  auto listener = std::make_unique<Listener>();
  listener->socket = std::move(socket);
  listener->interface = interface;
  listener->address = address;
  listener->id = ++next_listener_;
  epoll_event event{};
  event.events = accepting_ ? EPOLLIN : 0U;
  event.data.u64 = listener_mark | listener->id;
  if (::epoll_ctl(polled_.native_handle(), EPOLL_CTL_ADD, listener->socket.get(), &event) != 0)
    return failed("cannot be waited for");
  listeners_.push_back(std::move(listener));
  return true;
}

bool HttpService::Impl::serve(std::span<const nat::PlaneInterface> lan, std::span<const Address> own,
                              std::string& why) {
  own_.assign(own.begin(), own.end());
  std::erase_if(listeners_, [&](const std::unique_ptr<Listener>& listener) {
    for (const auto& interface : lan) {
      if (interface.index == 0 || interface.index != listener->interface.index ||
          interface.name != listener->interface.name ||
          std::ranges::find(interface.addresses, listener->address) == interface.addresses.end())
        continue;
      listener->interface = interface;
      return false;
    }
    return true;
  });
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    auto& c = *slots_[i];
    if (c.state == State::free) continue;
    const bool served = std::ranges::any_of(listeners_, [&](const auto& listener) {
      return listener->address == c.arrival.destination &&
             check_arrival(c.arrival, listener->interface, own_) == Ignored::no;
    });
    if (!served) close(c);
  }

  if (lan.empty()) {  // nothing is spoken anywhere: the port is not ours
    elsewhere_.reset();
    elsewhere_v6_.reset();
    return true;
  }
  if (!open_poll(why)) return false;
  keep_silent_elsewhere(std::ranges::any_of(lan, [](const nat::PlaneInterface& interface) {
    return std::ranges::any_of(interface.addresses, [](const Address& address) { return !address.is_v4(); });
  }));
  bool good = true;
  share_port(true);
  for (const auto& interface : lan) {
    if (interface.index == 0) continue;
    for (const auto& address : interface.addresses) {
      if (std::ranges::any_of(listeners_, [&](const auto& listener) {
            return listener->interface.index == interface.index && listener->address == address;
          }))
        continue;
      std::string reason;
      if (listen(interface, address, reason) || reason.empty()) continue;
      good = false;
      why = std::move(reason);
    }
  }
  share_port(false);
  return good;
}

// ---- waiting

void HttpService::Impl::wait() {
  polled_.async_wait(asio::posix::stream_descriptor::wait_read, [weak = weak_from_this()](const error_code& error) {
    const auto self = weak.lock();
    if (!self || error || self->closed_) return;
    self->on_events();
    if (!self->closed_) self->wait();
  });
}

void HttpService::Impl::on_events() {
  std::array<epoll_event, events_at_once> events;
  const int count = ::epoll_wait(polled_.native_handle(), events.data(), events_at_once, 0);
  bool any_listener = false;
  in_events_ = true;
  for (int i = 0; i < count && !closed_; ++i) {
    const auto& event = events[static_cast<std::size_t>(i)];
    if ((event.data.u64 & listener_mark) != 0) {
      any_listener = true;
      continue;
    }
    const Handle handle{static_cast<std::uint32_t>(event.data.u64),
                        static_cast<std::uint32_t>(event.data.u64 >> 32)};
    if (is_live(handle)) on_event(*slots_[handle.first], event.events);
  }
  // After the connections: a client that hung up and comes back at once finds its place free.
  if (any_listener)
    for (int i = 0; i < count && !closed_ && accepting_; ++i) {
      const auto mark = events[static_cast<std::size_t>(i)].data.u64;
      if ((mark & listener_mark) == 0) continue;
      const auto found = std::ranges::find(listeners_, mark & ~listener_mark, [](const auto& each) { return each->id; });
      if (found != listeners_.end()) accept(**found);
    }
  in_events_ = false;
  if (!closed_ && !turn_posted_) turn();
}

void HttpService::Impl::on_event(Connection& c, std::uint32_t events) {
  // Reset, or closed in both directions: there is nobody to answer.
  if ((events & (EPOLLERR | EPOLLHUP)) != 0) return close(c);
  if ((events & EPOLLRDHUP) != 0) c.peer_done = c.readable = true;
  if ((events & EPOLLIN) != 0) c.readable = true;
  if ((events & EPOLLOUT) != 0) c.writable = true;
  switch (c.state) {
    case State::reading: return read(c);
    case State::sending:
      if (c.writable && !c.awaits_turn) send(c);
      return;
    case State::lingering: return drain(c);
    case State::queued:
    case State::handling:
    case State::free: return;
  }
}

// ---- who may connect

void HttpService::Impl::accept(Listener& listener) {
  for (int i = 0; i < accepts_at_once; ++i) {
    SocketAddress from{};
    socklen_t size = sizeof from;
    Descriptor socket{::accept4(listener.socket.get(), &from.any, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)};
    if (socket.get() < 0) {
      if (errno == EAGAIN || errno == EWOULDBLOCK) return;
      if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) return pause_accepting();
      continue;  // this one was given up before it was accepted
    }
    const auto [address, port] = from_sockaddr(from);
    const wire::Arrival arrival{address, port, listener.address, listener.interface.index};
    if (check_arrival(arrival, listener.interface, own_) != Ignored::no) {
      ++counts.not_for_us;
      continue;
    }
    auto& device = device_of(address);
    if (admit(device)) {
      take(std::move(socket), arrival, device);
    } else {
      forget_if_idle(device);
    }
    if (closed_) return;
  }
}

/// The listening sockets stay readable while there is no descriptor for who waits there: they are not looked at
/// until a connection ends or the next sweep comes, or this would spin.
void HttpService::Impl::pause_accepting() {
  ++counts.no_descriptors;
  accepting_ = false;
  for (const auto& listener : listeners_) {
    epoll_event event{};
    event.data.u64 = listener_mark | listener->id;
    ::epoll_ctl(polled_.native_handle(), EPOLL_CTL_MOD, listener->socket.get(), &event);
  }
  start_sweeping();
}

void HttpService::Impl::resume_accepting() {
  if (accepting_ || closed_) return;
  accepting_ = true;
  for (const auto& listener : listeners_) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = listener_mark | listener->id;
    ::epoll_ctl(polled_.native_handle(), EPOLL_CTL_MOD, listener->socket.get(), &event);
  }
}

bool HttpService::Impl::admit(Device& device) {
  const auto limit = options_.connections_per_device;
  if (limit != 0 && device.connections >= limit) drop_hung_up(device);
  if (limit != 0 && device.connections >= limit) {
    ++counts.over_limit;
    return false;
  }
  if (used_ < std::max<std::size_t>(options_.connections, 1)) return true;
  // it may be this device's own connection that goes, and the device must stay
  ++device.connections;
  const bool room = make_room();
  --device.connections;
  if (!room) ++counts.over_limit;
  return room;
}

/// Its connections that it has closed since the last look: they are no reason to refuse it.
void HttpService::Impl::drop_hung_up(Device& device) {
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    auto& c = *slots_[i];
    if (c.state != State::reading || c.device != &device) continue;
    char octet = 0;
    if (::recv(c.socket.get(), &octet, 1, MSG_PEEK | MSG_DONTWAIT) != 0) continue;
    ++device.lingering;  // keeps the device while its last connection goes
    close(c);
    --device.lingering;
  }
}

/// At the total limit: what only lingers goes, else the connection that waits longest for a whole request
/// (POL-WEB-04). False when all are being answered.
bool HttpService::Impl::make_room() {
  Connection* victim = nullptr;
  for (const auto& each : slots_) {
    if (each->state != State::reading && each->state != State::lingering) continue;
    if (victim == nullptr) {
      victim = each.get();
      continue;
    }
    const bool lingers = each->state == State::lingering;
    const bool other_lingers = victim->state == State::lingering;
    if (lingers != other_lingers ? lingers : each->waiting_place < victim->waiting_place) victim = each.get();
  }
  if (victim == nullptr) return false;
  ++counts.gave_way;
  close(*victim);
  return true;
}

HttpService::Impl::Device& HttpService::Impl::device_of(const Address& address) {
  auto& device = devices_[address];
  device.address = address;
  return device;
}

void HttpService::Impl::forget_if_idle(Device& device) {
  if (device.connections == 0 && device.lingering == 0 && !device.in_turns) devices_.erase(Address{device.address});
}

void HttpService::Impl::take(Descriptor socket, const wire::Arrival& arrival, Device& device) {
  if (free_slots_.empty()) {
    free_slots_.push_back(static_cast<std::uint32_t>(slots_.size()));
    slots_.push_back(std::make_unique<Connection>(options_.reader));
    slots_.back()->slot = free_slots_.back();
  }
  const auto slot = free_slots_.back();
  auto& c = *slots_[slot];
  epoll_event event{};
  event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
  event.data.u64 = std::uint64_t{next_generation_ & 0x7fffffffU} << 32 | slot;
  if (::epoll_ctl(polled_.native_handle(), EPOLL_CTL_ADD, socket.get(), &event) != 0) {
    forget_if_idle(device);
    return pause_accepting();
  }
  free_slots_.pop_back();
  ++used_;
  ++device.connections;
  ++counts.connections;
  const auto now = clock_.now();
  c.generation = next_generation_++ & 0x7fffffffU;
  c.socket = std::move(socket);
  c.state = State::reading;
  c.device = &device;
  c.arrival = arrival;
  c.readable = c.writable = true;
  c.peer_done = c.interim = c.awaits_turn = c.close_after = false;
  c.begun = true;
  c.waiting_place = ++next_place_;
  c.begun_at = now;
  c.lingered = 0;
  c.deadline = now + options_.head_time;
  start_sweeping();
  read(c);
}

// ---- requests

void HttpService::Impl::read(Connection& c) {
  const auto handle = handle_of(c);
  while (c.state == State::reading && c.readable) {
    const auto size = ::recv(c.socket.get(), buffer_.data(), buffer_.size(), MSG_DONTWAIT);
    if (size < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN && errno != EWOULDBLOCK) return close(c);
      c.readable = false;
      return;
    }
    if (size == 0) return close(c);
    // Less than there was room for: it was all. The next edge tells of more, but a FIN's edge came already.
    if (static_cast<std::size_t>(size) < buffer_.size() && !c.peer_done) c.readable = false;
    c.reader.feed({buffer_.data(), static_cast<std::size_t>(size)});
    parse(c);
    if (!is_live(handle)) return;
  }
}

void HttpService::Impl::parse(Connection& c) {
  const auto handle = handle_of(c);
  while (c.state == State::reading) {
    auto event = c.reader.next();
    if (!event) return set_read_deadline(c);
    if (auto* request = std::get_if<http::Request>(&*event)) {
      c.request = std::move(*request);
      return queue(c);
    }
    if (const auto* failure = std::get_if<HttpReader::Failure>(&*event)) {
      ++counts.malformed;
      c.close_after = true;
      c.without_body = c.old = false;
      return begin_answer(c, http::error_response(failure->status));
    }
    set_read_deadline(c);
    c.out = "HTTP/1.1 100 Continue\r\n\r\n";
    c.out_sent = 0;
    c.interim = true;
    c.state = State::sending;
    send(c);
    if (!is_live(handle)) return;
  }
}

/// Only the first octet of a request sets its times; those that trickle in behind it do not move them.
void HttpService::Impl::set_read_deadline(Connection& c) {
  if (!c.begun) {
    if (!c.reader.started()) return;
    c.begun = true;
    c.begun_at = clock_.now();
  }
  c.deadline = c.begun_at + (c.reader.in_body() ? options_.request_time : options_.head_time);
}

void HttpService::Impl::queue(Connection& c) {
  c.state = State::queued;
  c.deadline = TimePoint::max();
  c.device->ready.push_back(c.slot);
  if (c.device->in_turns) return;
  c.device->in_turns = true;
  turns_.push_back(c.device);
  schedule_turn();
}

void HttpService::Impl::schedule_turn() {
  if (turn_posted_ || in_events_) return;
  turn_posted_ = true;
  asio::post(io_, [weak = weak_from_this()] {
    const auto self = weak.lock();
    if (!self || self->closed_) return;
    self->turn_posted_ = false;
    self->turn();
  });
}

/// One request, or some pieces of a long answer, of one device after the other.
void HttpService::Impl::turn() {
  const auto until = clock_.now() + slice_time;
  for (int i = 0; i < slice && !turns_.empty() && (i == 0 || clock_.now() < until); ++i) {
    auto& device = *turns_.front();
    turns_.pop_front();
    if (!device.ready.empty()) {
      auto& c = *slots_[device.ready.front()];
      if (c.state == State::queued && limiter_.admit(device.address, clock_.now()) != SourceLimiter::Verdict::pass) {
        ++counts.over_rate;
        paused_.push_back(&device);
        if (paused_.size() > 1) continue;
        pause_timer_.expires_after(pause_time);
        pause_timer_.async_wait([weak = weak_from_this()](const error_code& error) {
          const auto self = weak.lock();
          if (!self || error || self->closed_) return;
          self->turns_.insert(self->turns_.end(), self->paused_.begin(), self->paused_.end());
          self->paused_.clear();
          self->schedule_turn();
        });
        continue;
      }
      device.ready.pop_front();
      if (c.state == State::queued) {
        dispatch(c);
      } else {
        c.awaits_turn = false;
        send(c);
      }
      if (closed_) return;
    }
    if (!device.ready.empty()) {
      turns_.push_back(&device);
      continue;
    }
    device.in_turns = false;
    forget_if_idle(device);
  }
  if (!turns_.empty()) schedule_turn();
}

void HttpService::Impl::dispatch(Connection& c) {
  auto request = std::move(c.request);
  c.request = {};
  request.peer = c.arrival.source;
  request.peer_port = c.arrival.source_port;
  request.local = c.arrival.destination;
  request.interface = c.arrival.interface;
  c.state = State::handling;
  c.serial = ++next_serial_;
  c.deadline = clock_.now() + options_.handler_time;
  c.without_body = http::is_head(request);
  c.old = request.minor_version == 0;
  c.close_after = http::wants_close(request);
  ++counts.requests;
  handler_(std::move(request), [weak = weak_from_this(), handle = handle_of(c), serial = c.serial](http::Response response) {
    if (const auto self = weak.lock(); self && !self->closed_) {
      self->answer(handle, serial, std::move(response));
    } else if (response.sent) {
      response.sent();
    }
  });
}

// ---- answers

void HttpService::Impl::answer(const Handle& handle, std::uint64_t serial, http::Response response) {
  if (is_live(handle)) {
    auto& c = *slots_[handle.first];
    if (c.state == State::handling && c.serial == serial) return begin_answer(c, std::move(response));
  }
  if (response.sent) response.sent();
}

void HttpService::Impl::begin_answer(Connection& c, http::Response response) {
  c.state = State::sending;
  c.answer = std::move(response);
  c.body_sent = c.out_sent = 0;
  c.deadline = clock_.now() + options_.answer_time;
  if (c.answer.close) c.close_after = true;
  if (c.answer.source && c.old) c.close_after = true;  // its end is that of the connection
  write_head(c);
  if (c.without_body) {
    c.answer.body.clear();
    c.answer.source = nullptr;
  }
  send(c);
}

void HttpService::Impl::write_head(Connection& c) {
  const auto wall = clock_.wall();
  if (date_.empty() || wall != date_of_) {
    date_ = http::http_date(wall);
    date_of_ = wall;
  }
  auto& out = c.out;
  out = "HTTP/1.1 ";
  out += std::to_string(c.answer.status);
  out += ' ';
  out += http::reason_phrase(c.answer.status);
  out += "\r\n";
  for (const auto& [name, value] : c.answer.fields.all()) append_field(out, name, value);
  if (!options_.server.empty()) append_field(out, "SERVER", options_.server);
  append_field(out, "DATE", date_);
  if (!c.answer.source) {
    append_field(out, "CONTENT-LENGTH", std::to_string(c.answer.body.size()));
  } else if (!c.old) {
    append_field(out, "TRANSFER-ENCODING", "chunked");
  }
  if (c.close_after) {
    append_field(out, "CONNECTION", "close");
  }
  out += "\r\n";
}

void HttpService::Impl::send(Connection& c) {
  for (int pieces = 0;;) {
    std::array<iovec, 2> parts;
    std::size_t count = 0;
    std::size_t octets = 0;
    const auto add = [&](std::string& text, std::size_t from) {
      if (from >= text.size()) return;
      parts[count++] = {text.data() + from, text.size() - from};
      octets += text.size() - from;
    };
    add(c.out, c.out_sent);
    if (!c.interim && !c.answer.source) add(c.answer.body, c.body_sent);
    if (!c.interim && c.answer.source && (octets == 0 || c.out_sent == 0) && octets < read_octets) {
      if (pieces++ == pieces_at_once) {  // others first
        c.awaits_turn = true;
        c.device->ready.push_back(c.slot);
        if (!std::exchange(c.device->in_turns, true)) {
          turns_.push_back(c.device);
          schedule_turn();
        }
        return;
      }
      if (octets == 0) {
        c.out.clear();
        c.out_sent = 0;
      }
      const auto piece = c.answer.source->next();
      if (piece.empty()) {
        c.answer.source = nullptr;
        c.answer.body.clear();
        if (!c.old) c.out += "0\r\n\r\n";
      } else if (c.old) {
        c.out += piece;
      } else {
        append_chunk(c.out, piece);
      }
      continue;
    }
    if (octets == 0) break;
    if (!c.writable) return;

    msghdr message{};
    message.msg_iov = parts.data();
    message.msg_iovlen = count;
    const auto sent = ::sendmsg(c.socket.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN && errno != EWOULDBLOCK) return close(c);
      c.writable = false;
      return;
    }
    const auto of_out = std::min(static_cast<std::size_t>(sent), c.out.size() - c.out_sent);
    c.out_sent += of_out;
    c.body_sent += static_cast<std::size_t>(sent) - of_out;
  }
  finish_answer(c);
}

void HttpService::Impl::finish_answer(Connection& c) {
  shrink(c.out);
  c.out_sent = 0;
  c.state = State::reading;
  const auto handle = handle_of(c);
  if (std::exchange(c.interim, false)) {
    parse(c);
    if (is_live(handle)) read(c);
    return;
  }
  const auto sent = std::move(c.answer.sent);
  c.answer = {};
  ++counts.answers;
  c.waiting_place = ++next_place_;
  c.deadline = clock_.now() + options_.idle_time;
  c.begun = false;
  if (c.close_after) linger(c);
  if (sent) sent();
  if (closed_ || !is_live(handle) || c.state != State::reading) return;
  parse(c);
  if (is_live(handle)) read(c);
}

// ---- the end of a connection

/// Closing with octets unread would make the kernel send a reset, which can overtake the answer: our direction is
/// closed, and for a while what still comes is thrown away.
void HttpService::Impl::linger(Connection& c) {
  c.state = State::lingering;
  c.deadline = clock_.now() + options_.linger_time;
  c.reader.reset();
  ::shutdown(c.socket.get(), SHUT_WR);
  auto& device = *c.device;
  --device.connections;
  ++device.lingering;
  const auto most = std::max<std::size_t>(options_.connections_per_device, 8);
  if (device.lingering > most) {  // they do not count as the device's connections, so their number has its own limit
    Connection* oldest = nullptr;
    for (const auto& each : slots_)
      if (each->state == State::lingering && each->device == &device && each.get() != &c &&
          (oldest == nullptr || each->deadline < oldest->deadline))
        oldest = each.get();
    if (oldest != nullptr) close(*oldest);
  }
  drain(c);
}

void HttpService::Impl::drain(Connection& c) {
  while (c.readable) {
    const auto size = ::recv(c.socket.get(), buffer_.data(), buffer_.size(), MSG_DONTWAIT);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      c.readable = false;
      return;
    }
    if (size <= 0) return close(c);
    c.lingered += static_cast<std::size_t>(size);
    if (c.lingered > options_.linger_octets) return close(c);
  }
}

void HttpService::Impl::close(Connection& c) {
  auto& device = *c.device;
  --(c.state == State::lingering ? device.lingering : device.connections);
  if (c.state == State::queued || c.awaits_turn) std::erase(device.ready, c.slot);
  c.state = State::free;
  c.device = nullptr;
  c.socket.reset();
  c.awaits_turn = c.interim = false;
  c.request = {};
  shrink(c.out);
  c.reader.reset();
  auto answer = std::move(c.answer);
  c.answer = {};
  const auto slot = c.slot;
  if (free_slots_.size() >= kept_connections) {  // from here on there is no c
    slots_[slot] = std::make_unique<Connection>(options_.reader);
    slots_[slot]->slot = slot;
  }
  free_slots_.push_back(slot);
  --used_;
  forget_if_idle(device);
  resume_accepting();
  if (answer.sent) answer.sent();
}

void HttpService::Impl::close_all() {
  closed_ = true;
  listeners_.clear();
  elsewhere_.reset();
  elsewhere_v6_.reset();
  for (std::size_t i = 0; i < slots_.size(); ++i)
    if (slots_[i]->state != State::free) close(*slots_[i]);
  error_code ignored;
  polled_.close(ignored);
  sweep_timer_.cancel();
  pause_timer_.cancel();
}

// ---- time

void HttpService::Impl::start_sweeping() {
  if (sweeping_) return;
  sweeping_ = true;
  sweep_timer_.expires_after(sweep_time);
  sweep_timer_.async_wait([weak = weak_from_this()](const error_code& error) {
    const auto self = weak.lock();
    if (!self || error || self->closed_) return;
    self->sweeping_ = false;
    self->sweep();
  });
}

void HttpService::Impl::sweep() {
  const auto now = clock_.now();
  resume_accepting();
  for (std::size_t i = 0; i < slots_.size() && !closed_; ++i) {
    auto& c = *slots_[i];
    if (c.state == State::free || now < c.deadline) continue;
    if (c.state == State::handling) {
      c.close_after = true;
      begin_answer(c, http::error_response(503));
      continue;
    }
    if (c.state != State::lingering) ++counts.timed_out;
    close(c);
  }
  if (!closed_ && used_ > 0) start_sweeping();
}

HttpService::HttpService(asio::io_context& io, Handler handler, const Clock& clock, Options options)
    : impl_{std::make_shared<Impl>(io, std::move(handler), clock, std::move(options))} {}
HttpService::~HttpService() { impl_->close_all(); }
bool HttpService::serve(std::span<const nat::PlaneInterface> lan, std::span<const Address> own, std::string& why) {
  return impl_->serve(lan, own, why);
}
void HttpService::set_rate(std::uint32_t per_second, std::uint32_t burst) { impl_->set_rate(per_second, burst); }
void HttpService::set_connections(std::size_t per_device, std::size_t total) {
  impl_->set_connections(per_device, total);
}
std::size_t HttpService::open_connections() const noexcept { return impl_->open_connections(); }
const HttpService::Counts& HttpService::counts() const noexcept { return impl_->counts; }

std::optional<std::string> syn_cookie_warning(const std::filesystem::path& setting) {
  std::ifstream file{setting};
  int value = 1;
  if (!(file >> value) || value != 0) return std::nullopt;
  return "TCP SYN cookies are off: a flood of half-open connections can keep devices from the HTTP port; set "
         "net.ipv4.tcp_syncookies = 1";
}

}  // namespace sallyport::transport
