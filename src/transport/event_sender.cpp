#include "src/transport/event_sender.hpp"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>

#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>

#include "src/transport/tcp_endpoint.hpp"

namespace sallyport::transport {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using Alarm = asio::steady_timer;
using boost::system::error_code;
using upnp::http::Delivery;
using upnp::http::DeliveryResult;
using Kind = DeliveryResult::Kind;

/// What a status line says: "HTTP/1.x", a blank, three digits, and nothing that makes it longer. Empty: no
/// status line. `line` is without its end.
std::optional<unsigned> read_status(std::string_view line) noexcept {
  constexpr std::string_view version = "HTTP/1.";
  if (line.ends_with('\r')) line.remove_suffix(1);
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  if (line.size() < 12 || !line.starts_with(version) || !digit(line[7]) || line[8] != ' ')
    return std::nullopt;
  if (line.size() > 12 && line[12] != ' ') return std::nullopt;
  unsigned status = 0;
  for (const char c : line.substr(9, 3)) {
    if (!digit(c)) return std::nullopt;
    status = status * 10 + static_cast<unsigned>(c - '0');
  }
  return status >= 100 ? std::optional{status} : std::nullopt;
}

}  // namespace

class EventSender::Impl : public std::enable_shared_from_this<Impl> {
 public:
  Impl(asio::io_context& io, upnp::http::DeliveryCore& core, const Clock& clock, Options options,
       std::function<void()> after_result)
      : io_{io}, core_{core}, clock_{clock}, options_{options}, after_result_{std::move(after_result)} {}

  void drain();
  void close();
  std::size_t under_way() const noexcept { return connections_.size(); }

  Counts counts;

 private:
  struct Connection {
    Connection(asio::io_context& io, Delivery what) : delivery{std::move(what)}, socket{io}, alarm{io} {}
    Delivery delivery;
    tcp::socket socket;
    Alarm alarm;
    std::string answer;
    std::array<char, 1024> piece;
    bool connected = false;
    std::optional<unsigned> status;  ///< as soon as its line is complete
    bool ended = false;
  };
  using Pointer = std::shared_ptr<Connection>;

  void start(const Pointer& connection);
  bool open(Connection& connection);
  void limit(const Pointer& connection, std::chrono::milliseconds time);
  void write(const Pointer& connection);
  void read(const Pointer& connection);
  void on_read(const Pointer& connection, const error_code& error, std::size_t size);
  void end(const Pointer& connection, DeliveryResult result);

  asio::io_context& io_;
  upnp::http::DeliveryCore& core_;
  const Clock& clock_;
  Options options_;
  std::function<void()> after_result_;
  std::unordered_set<Pointer> connections_;
  bool closed_ = false;
};

void EventSender::Impl::drain() {
  while (!closed_ && connections_.size() < options_.at_once) {
    auto delivery = core_.poll_send(clock_.now());
    if (!delivery) return;
    const auto connection = std::make_shared<Connection>(io_, std::move(*delivery));
    connections_.insert(connection);
    start(connection);
  }
}

void EventSender::Impl::close() {
  closed_ = true;
  for (const auto& connection : connections_) {
    connection->ended = true;
    error_code ignored;
    connection->socket.close(ignored);
    connection->alarm.cancel();
  }
  connections_.clear();
}

/// A socket that can leave only by the delivery's interface, from the gateway's address there.
bool EventSender::Impl::open(Connection& connection) {
  const auto& delivery = connection.delivery;
  // Without a name to tie it to, the socket would go where the routes lead: that may be out on the WAN.
  std::array<char, IF_NAMESIZE> name{};
  if (delivery.interface == 0 || ::if_indextoname(delivery.interface, name.data()) == nullptr) return false;
  const auto local = to_endpoint(delivery.local, 0, delivery.interface);
  error_code error;
  connection.socket.open(local.protocol(), error);
  if (error) return false;
  const int socket = connection.socket.native_handle();
  if (::setsockopt(socket, SOL_SOCKET, SO_BINDTODEVICE, name.data(),
                   static_cast<socklen_t>(std::strlen(name.data()) + 1)) != 0)
    return false;
  // The name may have gone to another interface between the two calls.
  if (::if_nametoindex(name.data()) != delivery.interface) return false;
  // The port is chosen when connecting, so that each subscriber leaves all of them to the others.
  const int one = 1;
  ::setsockopt(socket, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
  connection.socket.bind(local, error);
  return !error;
}

void EventSender::Impl::start(const Pointer& connection) {
  if (!open(*connection)) {
    asio::post(io_, [weak = weak_from_this(), connection] {
      if (const auto self = weak.lock()) self->end(connection, {Kind::connect_failed, 0});
    });
    return;
  }
  limit(connection, options_.connect_time);
  const auto& delivery = connection->delivery;
  connection->socket.async_connect(to_endpoint(delivery.address, delivery.port, delivery.interface),
                                   [weak = weak_from_this(), connection](const error_code& error) {
                                     const auto self = weak.lock();
                                     if (!self || connection->ended) return;
                                     if (error) return self->end(connection, {Kind::connect_failed, 0});
                                     self->write(connection);
                                   });
}

/// Whatever the subscriber does or does not do, the connection ends when this time is over.
void EventSender::Impl::limit(const Pointer& connection, std::chrono::milliseconds time) {
  connection->alarm.expires_after(time);
  connection->alarm.async_wait([weak = weak_from_this(), connection](const error_code& error) {
    const auto self = weak.lock();
    // it may have been set again after it went off and before this ran
    if (!self || error || connection->ended || connection->alarm.expiry() > Alarm::clock_type::now()) return;
    if (connection->status) return self->end(connection, {Kind::answered, *connection->status});
    self->end(connection, {connection->connected ? Kind::timed_out : Kind::connect_failed, 0});
  });
}

void EventSender::Impl::write(const Pointer& connection) {
  connection->connected = true;
  limit(connection, options_.answer_time);
  asio::async_write(connection->socket, asio::buffer(connection->delivery.bytes),
                    [weak = weak_from_this(), connection](const error_code&, std::size_t) {
                      // Who answered and closed before the end of the event makes the write fail; what was
                      // answered is still there to be read, so reading decides.
                      const auto self = weak.lock();
                      if (self && !connection->ended) self->read(connection);
                    });
}

void EventSender::Impl::read(const Pointer& connection) {
  const auto room = std::min(connection->piece.size(), options_.max_answer - connection->answer.size());
  connection->socket.async_read_some(
      asio::buffer(connection->piece.data(), room),
      [weak = weak_from_this(), connection](const error_code& error, std::size_t size) {
        const auto self = weak.lock();
        if (self && !connection->ended) self->on_read(connection, error, size);
      });
}

void EventSender::Impl::on_read(const Pointer& connection, const error_code& error, std::size_t size) {
  auto& answer = connection->answer;
  // the blank line may begin in what was there before
  const auto seen = answer.size() < 3 ? 0 : answer.size() - 3;
  answer.append(connection->piece.data(), size);
  if (!connection->status) {
    const auto line = answer.find('\n');
    if (line != std::string::npos) {
      connection->status = read_status(std::string_view{answer}.substr(0, line));
      if (!connection->status) return end(connection, {Kind::broken, 0});
      limit(connection, options_.rest_time);
    }
  }
  const bool whole =
      answer.find("\r\n\r\n", seen) != std::string::npos || answer.find("\n\n", seen) != std::string::npos;
  if (!error && !(connection->status && whole) && answer.size() < options_.max_answer)
    return read(connection);
  if (connection->status) return end(connection, {Kind::answered, *connection->status});
  end(connection, {Kind::broken, 0});
}

void EventSender::Impl::end(const Pointer& connection, DeliveryResult result) {
  if (closed_ || std::exchange(connection->ended, true)) return;
  error_code ignored;
  connection->socket.close(ignored);
  connection->alarm.cancel();
  connections_.erase(connection);
  switch (result.kind) {
    case Kind::answered: ++counts.answered; break;
    case Kind::connect_failed: ++counts.connect_failed; break;
    case Kind::timed_out: ++counts.timed_out; break;
    case Kind::broken: ++counts.broken; break;
  }
  core_.handle_result(connection->delivery.handle, result, clock_.now());
  drain();
  if (after_result_) after_result_();
}

EventSender::EventSender(asio::io_context& io, upnp::http::DeliveryCore& core, const Clock& clock,
                         Options options, std::function<void()> after_result)
    : impl_{std::make_shared<Impl>(io, core, clock, options, std::move(after_result))} {}
EventSender::~EventSender() { impl_->close(); }
void EventSender::drain() { impl_->drain(); }
std::size_t EventSender::under_way() const noexcept { return impl_->under_way(); }
const EventSender::Counts& EventSender::counts() const noexcept { return impl_->counts; }

}  // namespace sallyport::transport
