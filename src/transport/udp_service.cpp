#include "src/transport/udp_service.hpp"

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
#include <iterator>
#include <utility>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include "src/transport/arrival_check.hpp"
#include "src/transport/datagrams.hpp"
#include "src/transport/fair_queue.hpp"
#include "src/transport/socket_tools.hpp"

namespace sallyport::transport {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

constexpr std::size_t batch = 64;
// One octet more than any protocol here accepts tells a long datagram from the longest good one.
constexpr std::size_t datagram_octets = 1200;
constexpr int receive_buffer = 4 << 20;
constexpr int send_buffer = 1 << 20;
constexpr std::size_t max_waiting = 16384;
constexpr std::size_t max_waiting_octets = 2 << 20;
constexpr std::size_t max_stopped = 64;
constexpr std::chrono::milliseconds stop_time{100};

}  // namespace

class UdpService::Impl : public std::enable_shared_from_this<Impl> {
 public:
  Impl(asio::io_context& io, wire::DatagramCore& core, const Clock& clock, Options options,
       std::function<void()> after_input)
      : io_{io},
        core_{core},
        clock_{clock},
        options_{options},
        after_input_{std::move(after_input)},
        limiter_{options.limit},
        release_timer_{io} {}

  bool serve(std::span<const nat::PlaneInterface> lan, std::span<const Address> own, std::string& why);
  void drain();
  void close() {
    closed_ = true;
    for (const auto& served : sockets_) served->socket.close();  // a handler that waits may still hold it
    sockets_.clear();
    everywhere_else_.reset();
    everywhere_else_v6_.reset();
    release_timer_.cancel();
  }
  void set_rate(std::uint32_t per_second, std::uint32_t burst) { limiter_.set_rate(per_second, burst); }

  Counts counts;

 private:
  struct Served {
    Served(asio::io_context& io, int descriptor, nat::PlaneInterface what, bool six)
        : socket{io, descriptor}, interface {
      std::move(what)
    }, ipv6{six} {
    }
    asio::posix::stream_descriptor socket;
    nat::PlaneInterface interface;
    bool ipv6;
  };

  /// An empty device: the socket for all others.
  Descriptor open(const std::string& device, bool ipv6, std::string& why);
  bool serve(std::span<const nat::PlaneInterface> lan, bool ipv6, std::string& why);
  void share_port(bool on);
  void wait(const std::shared_ptr<Served>& served);
  void on_readable(const std::shared_ptr<Served>& served);
  void take(std::span<const std::byte> bytes, const wire::Arrival& arrival, Served& served, TimePoint now);
  void turn();
  void stop_in_kernel(const Address& source, TimePoint now);
  void release_later();
  void update_filters();

  asio::io_context& io_;
  wire::DatagramCore& core_;
  const Clock& clock_;
  Options options_;
  std::function<void()> after_input_;
  SourceLimiter limiter_;
  FairQueue waiting_{max_waiting, max_waiting_octets};
  std::vector<std::shared_ptr<Served>> sockets_;
  Descriptor everywhere_else_, everywhere_else_v6_;
  std::vector<Address> own_;
  std::vector<std::pair<Address, TimePoint>> stopped_;  ///< flooding sources, until when
  asio::steady_timer release_timer_;
  bool turn_posted_ = false;
  bool closed_ = false;
  DatagramReader in_{batch, datagram_octets};
  DatagramWriter out_{batch};

};

Descriptor UdpService::Impl::open(const std::string& device, bool ipv6, std::string& why) {
  Descriptor socket{::socket(ipv6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
  const auto failed = [&](const std::string& what) {
    why = what + ": " + system_text(errno);
    return Descriptor{};
  };
  if (socket.get() < 0) return failed("no UDP socket to be had");
  if (ipv6) set(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, 1);
  if (!device.empty()) {
    if (::setsockopt(socket.get(), SOL_SOCKET, SO_BINDTODEVICE, device.c_str(),
                     static_cast<socklen_t>(device.size() + 1)) != 0)
      return failed("UDP port " + std::to_string(options_.port) + " cannot be tied to interface " + device);
    const int one = 1;
    const int zero = 0;
    if (ipv6) {
      set(socket.get(), IPPROTO_IPV6, IPV6_RECVPKTINFO, one);
      set(socket.get(), IPPROTO_IPV6, IPV6_MULTICAST_HOPS, one);
      set(socket.get(), IPPROTO_IPV6, IPV6_MULTICAST_LOOP, zero);
      // the anycast address is a route of this machine, which is no address to the kernel when it is a source
      set(socket.get(), IPPROTO_IPV6, IPV6_FREEBIND, one);
    } else {
      set(socket.get(), IPPROTO_IP, IP_PKTINFO, one);
      set(socket.get(), IPPROTO_IP, IP_MULTICAST_TTL, one);
      set(socket.get(), IPPROTO_IP, IP_MULTICAST_LOOP, zero);
    }
    if (!set(socket.get(), SOL_SOCKET, SO_RCVBUFFORCE, receive_buffer))
      set(socket.get(), SOL_SOCKET, SO_RCVBUF, receive_buffer);
    if (!set(socket.get(), SOL_SOCKET, SO_SNDBUFFORCE, send_buffer))
      set(socket.get(), SOL_SOCKET, SO_SNDBUF, send_buffer);
  } else {
    sock_filter nothing[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
    if (!attach(socket.get(), nothing)) return failed("a socket filter cannot be set");
    const int least = 1;
    set(socket.get(), SOL_SOCKET, SO_RCVBUF, least);
  }
  // The first socket is bound without sharing: whoever has the port already is found, whatever options it
  // set.
  const int shared = device.empty() ? 0 : 1;
  set(socket.get(), SOL_SOCKET, SO_REUSEADDR, shared);
  const auto [any, size] = to_sockaddr(ipv6 ? Address{} : Address::v4(0), options_.port, 0);
  if (::bind(socket.get(), &any.any, size) != 0) {
    if (errno == EADDRINUSE) {
      why = "UDP port " + std::to_string(options_.port) +
            " is taken by another program (another port-mapping server?); stop it first";
      return Descriptor{};
    }
    return failed("UDP port " + std::to_string(options_.port) + " cannot be bound");
  }
  return socket;
}

/// Our own sockets share the port while one is being bound and at no other time: with SO_REUSEADDR left on,
/// any program could bind the port too and catch requests.
void UdpService::Impl::share_port(bool on) {
  const int value = on ? 1 : 0;
  for (const auto* socket : {&everywhere_else_, &everywhere_else_v6_})
    if (socket->get() >= 0) set(socket->get(), SOL_SOCKET, SO_REUSEADDR, value);
  for (const auto& served : sockets_) set(served->socket.native_handle(), SOL_SOCKET, SO_REUSEADDR, value);
}

bool UdpService::Impl::serve(std::span<const nat::PlaneInterface> lan, std::span<const Address> own,
                             std::string& why) {
  own_.assign(own.begin(), own.end());
  const auto has_ipv6 = [](const nat::PlaneInterface& interface) {
    return std::ranges::any_of(interface.addresses, [](const Address& address) { return !address.is_v4(); });
  };
  std::erase_if(sockets_, [&](const std::shared_ptr<Served>& served) {
    const auto wanted = std::ranges::find_if(lan, [&](const nat::PlaneInterface& interface) {
      return interface.index != 0 && interface.index == served->interface.index &&
             interface.name == served->interface.name && (!served->ipv6 || has_ipv6(interface));
    });
    if (wanted != lan.end()) {
      served->interface = *wanted;
      return false;
    }
    served->socket.close();
    return true;
  });

  std::vector<nat::PlaneInterface> with_ipv6;
  std::ranges::copy_if(lan, std::back_inserter(with_ipv6), has_ipv6);
  bool good = serve(lan, false, why);
  // each family as far as it goes: the other one's clients are answered all the same
  std::string also;
  if (!serve(with_ipv6, true, also)) {
    if (good) why = also;
    good = false;
  }
  update_filters();
  return good;
}

bool UdpService::Impl::serve(std::span<const nat::PlaneInterface> lan, bool ipv6, std::string& why) {
  auto& elsewhere = ipv6 ? everywhere_else_v6_ : everywhere_else_;
  if (lan.empty()) {  // nothing is spoken anywhere: the port is not ours (NPM-3.5-07)
    elsewhere.reset();
    return true;
  }
  bool good = true;
  if (elsewhere.get() < 0) {
    elsewhere = open({}, ipv6, why);
    good = elsewhere.get() >= 0;
  }
  share_port(true);
  for (const auto& interface : lan) {
    if (!good) break;
    if (interface.index == 0) continue;
    if (std::ranges::any_of(sockets_, [&](const auto& served) {
          return served->interface.index == interface.index && served->ipv6 == ipv6;
        }))
      continue;
    auto socket = open(interface.name, ipv6, why);
    if (socket.get() < 0) {
      // gone again in this very moment: the next change of the network tries again
      if (::if_nametoindex(interface.name.c_str()) == 0) continue;
      good = false;
      break;
    }
    auto served = std::make_shared<Served>(io_, socket.release(), interface, ipv6);
    sockets_.push_back(served);
    wait(served);
  }
  share_port(false);
  return good;
}

void UdpService::Impl::wait(const std::shared_ptr<Served>& served) {
  served->socket.async_wait(asio::posix::stream_descriptor::wait_read,
                            [weak = weak_from_this(), served](const error_code& error) {
                              if (const auto self = weak.lock(); self && !error) self->on_readable(served);
                            });
}

void UdpService::Impl::on_readable(const std::shared_ptr<Served>& served) {
  if (!served->socket.is_open()) return;
  // Reading is far cheaper than answering, so a few batches are read at once: whoever sends little is then
  // found behind one who sends much, instead of waiting in the kernel's queue.
  const auto now = clock_.now();
  for (int round = 0; round < 32; ++round)
    if (!in_.read(served->socket.native_handle(), [&](const DatagramReader::Datagram& datagram) {
          take(datagram.bytes, datagram.arrival, *served, now);
        }))
      break;
  turn();
  if (served->socket.is_open()) wait(served);
}

void UdpService::Impl::take(std::span<const std::byte> bytes, const wire::Arrival& arrival, Served& served,
                            TimePoint now) {
  if (check_arrival(arrival, served.interface, own_) != Ignored::no) {
    ++counts.not_for_us;
    return;
  }
  const auto verdict = limiter_.admit(arrival.source, now);
  if (verdict != SourceLimiter::Verdict::pass) {
    ++counts.over_rate;
    if (verdict == SourceLimiter::Verdict::flood) stop_in_kernel(arrival.source, now);
    return;
  }
  if (!waiting_.push(bytes, arrival)) ++counts.queue_full;
}

/// Answers a slice of what waits, then lets the sockets and everything else have their turn.
void UdpService::Impl::turn() {
  if (waiting_.empty()) return;
  const auto now = clock_.now();
  for (std::size_t i = 0; i < batch; ++i) {
    const auto next = waiting_.pop();
    if (!next) break;
    ++counts.received;
    core_.handle_datagram(next->bytes, next->arrival, now);
  }
  drain();
  if (after_input_) after_input_();
  if (waiting_.empty() || turn_posted_) return;
  turn_posted_ = true;
  asio::post(io_, [weak = weak_from_this()] {
    const auto self = weak.lock();
    if (!self || self->closed_) return;
    self->turn_posted_ = false;
    self->turn();
  });
}

/// What is far above its rate is dropped by a filter in the kernel for a moment, before it fills the receive
/// buffer and costs us the time that others need. The moment is short, so its allowance is not lost.
void UdpService::Impl::stop_in_kernel(const Address& source, TimePoint now) {
  if (std::ranges::any_of(stopped_, [&](const auto& entry) { return entry.first == source; })) return;
  if (stopped_.size() >= max_stopped) return;
  stopped_.emplace_back(source, now + stop_time);
  ++counts.floods;
  update_filters();
  if (stopped_.size() > 1) return;
  release_later();
}

void UdpService::Impl::release_later() {
  release_timer_.expires_after(stop_time);
  release_timer_.async_wait([weak = weak_from_this()](const error_code& error) {
    const auto self = weak.lock();
    if (!self || error || self->closed_) return;
    const auto now = self->clock_.now();
    std::erase_if(self->stopped_, [&](const auto& entry) { return entry.second <= now; });
    self->update_filters();
    if (!self->stopped_.empty()) self->release_later();
  });
}

void UdpService::Impl::update_filters() {
  if (stopped_.empty()) {
    const int unused = 0;
    for (const auto& served : sockets_)
      set(served->socket.native_handle(), SOL_SOCKET, SO_DETACH_FILTER, unused);
    return;
  }
  constexpr auto source_v4 = static_cast<std::uint32_t>(SKF_NET_OFF + 12);
  constexpr auto source_v6 = static_cast<std::uint32_t>(SKF_NET_OFF + 8);
  std::vector<sock_filter> programs[2];
  programs[0].push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, source_v4));
  for (const auto& [source, until] : stopped_) {
    if (source.is_v4()) {
      programs[0].push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, source.v4_number(), 0, 1));
      programs[0].push_back(BPF_STMT(BPF_RET | BPF_K, 0));
      continue;
    }
    for (std::uint32_t word = 0; word < 4; ++word) {
      std::uint32_t value = 0;
      for (std::size_t i = 0; i < 4; ++i)
        value = value << 8 | std::to_integer<std::uint32_t>(source.bytes()[4 * word + i]);
      programs[1].push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, source_v6 + 4 * word));
      // past the rest of the words and the return
      programs[1].push_back(
          BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, static_cast<std::uint8_t>(2 * (3 - word) + 1)));
    }
    programs[1].push_back(BPF_STMT(BPF_RET | BPF_K, 0));
  }
  for (auto& program : programs) program.push_back(BPF_STMT(BPF_RET | BPF_K, 0xffffffff));
  for (const auto& served : sockets_) attach(served->socket.native_handle(), programs[served->ipv6 ? 1 : 0]);
}

void UdpService::Impl::drain() {
  while (auto next = core_.poll_transmit()) {
    const auto served = std::ranges::find_if(sockets_, [&](const auto& candidate) {
      return candidate->interface.index == next->interface && candidate->ipv6 != next->to.is_v4();
    });
    if (served == sockets_.end())
      ++counts.send_failed;  // the interface went away meanwhile
    else
      out_.add((*served)->socket.native_handle(), std::move(*next));
  }
  out_.flush();
  counts.sent += std::exchange(out_.sent, 0);
  counts.send_failed += std::exchange(out_.failed, 0);
}

UdpService::UdpService(asio::io_context& io, wire::DatagramCore& core, const Clock& clock, Options options,
                       std::function<void()> after_input)
    : impl_{std::make_shared<Impl>(io, core, clock, options, std::move(after_input))} {}
UdpService::~UdpService() { impl_->close(); }
bool UdpService::serve(std::span<const nat::PlaneInterface> lan, std::span<const Address> own,
                       std::string& why) {
  return impl_->serve(lan, own, why);
}
void UdpService::drain() { impl_->drain(); }
void UdpService::set_rate(std::uint32_t per_second, std::uint32_t burst) {
  impl_->set_rate(per_second, burst);
}
const UdpService::Counts& UdpService::counts() const noexcept { return impl_->counts; }

}  // namespace sallyport::transport
