#include "src/client/http_client.hpp"

#include <net/if.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/basic_parser.hpp>

#include "protocols/upnp/http/url.hpp"
#include "src/transport/tcp_endpoint.hpp"

namespace sallyport::client {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace errc = boost::system::errc;
using asio::ip::tcp;
using boost::system::error_code;
using transport::to_endpoint;
using upnp::http::Ask;
using upnp::http::Reply;

constexpr std::string_view user_agent = "Linux/1.0 UPnP/1.1 Sallyport/0.1";
constexpr unsigned max_interim = 4;  ///< answers like "100 Continue" before the one that counts

Address to_address(const asio::ip::address& address) {
  if (address.is_v4()) return Address::v4(address.to_v4().to_uint());
  Address::Bytes bytes;
  const auto six = address.to_v6().to_bytes();
  std::memcpy(bytes.data(), six.data(), bytes.size());
  return Address{bytes};
}

std::string request_text(const Ask& ask) {
  std::string text;
  text.reserve(512 + ask.body.size());
  text.append(ask.method).append(" ").append(ask.target).append(" HTTP/1.1\r\nHOST: ");
  text.append(upnp::http::host_field(ask.host, ask.port)).append("\r\n");
  for (const auto& [name, value] : ask.fields.all())
    text.append(name).append(": ").append(value).append("\r\n");
  if (!ask.body.empty() || ask.method == "POST")
    text.append("CONTENT-LENGTH: ").append(std::to_string(ask.body.size())).append("\r\n");
  text.append("USER-AGENT: ").append(user_agent).append("\r\n\r\n").append(ask.body);
  return text;
}

/// What is behind the empty line that ends a head; npos: it has not come yet.
std::size_t end_of_head(std::string_view text) noexcept {
  for (auto at = text.find('\n'); at != text.npos; at = text.find('\n', at + 1)) {
    if (text.substr(at + 1).starts_with("\n")) return at + 2;
    if (text.substr(at + 1).starts_with("\r\n")) return at + 3;
  }
  return text.npos;
}

/// The head as the standard wants it: devices end lines without CR, leave the reason out, put blanks before
/// the colon or send lines that are no fields.
std::string tidy_head(std::string_view head) {
  std::string tidy;
  tidy.reserve(head.size() + 64);
  bool first = true;
  while (!head.empty()) {
    const auto end = std::min(head.find('\n'), head.size());
    auto line = head.substr(0, end);
    head.remove_prefix(std::min(end + 1, head.size()));
    while (line.ends_with('\r')) line.remove_suffix(1);
    if (std::exchange(first, false)) {
      tidy.append(line).append(line.size() == 12 ? " \r\n" : "\r\n");
      continue;
    }
    const auto colon = line.find(':');
    if (colon == line.npos) continue;
    auto name = line.substr(0, colon);
    while (name.ends_with(' ') || name.ends_with('\t')) name.remove_suffix(1);
    if (name.empty() || name.find_first_of(" \t\"(),/;<=>?@[\\]{}") != name.npos) continue;
    tidy.append(name).append(line.substr(colon)).append("\r\n");
  }
  return tidy.append("\r\n");
}

/// Beast's parser, writing straight into the reply.
class Parser final : public beast::http::basic_parser<false> {
  using View = beast::string_view;

 public:
  Parser(Reply& reply, std::size_t max_body) : reply_{reply} {
    header_limit(0xffffffff);  // counted before it comes here
    body_limit(max_body);
    eager(true);
  }

 private:
  void on_request_impl(beast::http::verb, View, View, int, error_code& error) override { error = {}; }
  void on_response_impl(int status, View, int, error_code& error) override {
    reply_.status = static_cast<unsigned>(status);
    error = {};
  }
  void on_field_impl(beast::http::field, View name, View value, error_code& error) override {
    reply_.fields.add({name.data(), name.size()}, {value.data(), value.size()});
    error = {};
  }
  void on_header_impl(error_code& error) override { error = {}; }
  void on_body_init_impl(const boost::optional<std::uint64_t>&, error_code& error) override { error = {}; }
  std::size_t on_body_impl(View body, error_code& error) override {
    reply_.body.append(body.data(), body.size());
    error = {};
    return body.size();
  }
  void on_chunk_header_impl(std::uint64_t, View, error_code& error) override { error = {}; }
  std::size_t on_chunk_body_impl(std::uint64_t, View body, error_code& error) override {
    reply_.body.append(body.data(), body.size());
    error = {};
    return body.size();
  }
  void on_finish_impl(error_code& error) override { error = {}; }

  Reply& reply_;
};

error_code error_of(errc::errc_t value) { return errc::make_error_code(value); }

}  // namespace

class HttpClient::Impl : public std::enable_shared_from_this<Impl> {
 public:
  Impl(asio::any_io_executor executor, Options options) : executor_{std::move(executor)}, options_{options} {}

  void ask(Ask ask, Handler handler);
  void stop();

 private:
  using Key = std::tuple<Address, std::uint16_t, std::uint32_t>;
  struct Job {
    Ask ask;
    Handler handler;
    bool fresh = false;  ///< a kept connection was closed under it: no other kept one will do
  };
  struct Connection {
    Connection(const asio::any_io_executor& executor, Key to)
        : key{std::move(to)}, socket{executor}, alarm{executor} {}
    const Key key;
    tcp::socket socket;
    asio::steady_timer alarm;
    asio::steady_timer::time_point deadline;  ///< of the exchange
    std::optional<Job> job;
    std::string request;
    std::array<char, 4096> piece;
    std::string input;  ///< not yet looked at
    std::optional<Parser> parser;
    Reply reply;
    bool used = false;      ///< it carried an exchange before
    bool answered = false;  ///< an octet of the answer came
    unsigned interim = 0;
    bool closed = false;
  };
  using Pointer = std::shared_ptr<Connection>;
  struct Host {
    std::deque<Job> waiting;
    std::vector<Pointer> busy, idle;
  };

  void pump(const Key& key);
  void connect(const Pointer& connection);
  error_code open(Connection& connection);
  void limit(const Pointer& connection, asio::steady_timer::time_point at);
  void exchange(const Pointer& connection);
  void read(const Pointer& connection);
  void on_read(const Pointer& connection, const error_code& error, std::size_t size);
  /// True when the answer is complete. Sets an error for what can be none.
  bool parse(Connection& connection, error_code& error);
  void start_reply(Connection& connection);
  void complete(const Pointer& connection);
  void fail(const Pointer& connection, const error_code& error);
  void close(const Pointer& connection);
  void keep(const Pointer& connection);
  static bool is_alive(Connection& connection) noexcept;
  void abort(Handler handler);

  const asio::any_io_executor executor_;
  const Options options_;
  std::map<Key, Host> hosts_;
  bool stopped_ = false;
};

void HttpClient::Impl::abort(Handler handler) {
  asio::post(executor_,
             [handler = std::move(handler)] { handler(error_code{asio::error::operation_aborted}); });
}

void HttpClient::Impl::ask(Ask ask, Handler handler) {
  if (stopped_) return abort(std::move(handler));
  const Key key{ask.host, ask.port, ask.interface};
  hosts_[key].waiting.push_back({std::move(ask), std::move(handler)});
  asio::post(executor_, [self = shared_from_this(), key] { self->pump(key); });
}

void HttpClient::Impl::stop() {
  stopped_ = true;
  for (auto& [key, host] : std::exchange(hosts_, {})) {
    for (auto* const connections : {&host.busy, &host.idle})
      for (const auto& connection : *connections) {
        connection->closed = true;
        error_code ignored;
        connection->socket.close(ignored);
        connection->alarm.cancel();
        if (connection->job) abort(std::move(connection->job->handler));
        connection->job.reset();
      }
    for (auto& job : host.waiting) abort(std::move(job.handler));
  }
}

void HttpClient::Impl::pump(const Key& key) {
  const auto found = hosts_.find(key);
  if (found == hosts_.end()) return;
  auto& host = found->second;
  while (!host.waiting.empty() && host.busy.size() < options_.at_once) {
    auto job = std::move(host.waiting.front());
    host.waiting.pop_front();
    if (job.fresh)  // the others were kept as long: most likely closed too
      while (!host.idle.empty()) close(host.idle.back());
    Pointer connection;
    while (!connection && !host.idle.empty()) {
      auto kept = host.idle.back();
      if (is_alive(*kept)) {
        host.idle.pop_back();
        connection = std::move(kept);
      } else {
        close(kept);
      }
    }
    const bool kept = connection != nullptr;
    if (!kept) connection = std::make_shared<Connection>(executor_, key);
    host.busy.push_back(connection);
    connection->job = std::move(job);
    connection->request = request_text(connection->job->ask);
    connection->deadline = asio::steady_timer::clock_type::now() + options_.exchange_time;
    connection->answered = false;
    connection->interim = 0;
    connection->input.clear();
    start_reply(*connection);
    if (kept)
      exchange(connection);
    else
      connect(connection);
  }
  if (host.waiting.empty() && host.busy.empty() && host.idle.empty()) hosts_.erase(found);
}

error_code HttpClient::Impl::open(Connection& connection) {
  const auto& ask = connection.job->ask;
  error_code error;
  connection.socket.open(ask.host.is_v4() ? tcp::v4() : tcp::v6(), error);
  if (error) return error;
  std::array<char, IF_NAMESIZE> name{};
  if (ask.interface != 0 && ::if_indextoname(ask.interface, name.data()) != nullptr)
    // not everybody may; then the routes decide
    ::setsockopt(connection.socket.native_handle(), SOL_SOCKET, SO_BINDTODEVICE, name.data(),
                 static_cast<socklen_t>(std::strlen(name.data()) + 1));
  connection.socket.set_option(tcp::no_delay{true}, error);
  return {};
}

void HttpClient::Impl::connect(const Pointer& connection) {
  if (const auto error = open(*connection)) {
    asio::post(executor_, [self = shared_from_this(), connection, error] {
      if (!connection->closed) self->fail(connection, error);
    });
    return;
  }
  const auto& ask = connection->job->ask;
  limit(connection,
        std::min(connection->deadline, asio::steady_timer::clock_type::now() + options_.connect_time));
  connection->socket.async_connect(to_endpoint(ask.host, ask.port, ask.interface),
                                   [self = shared_from_this(), connection](const error_code& error) {
                                     if (connection->closed) return;
                                     if (error) return self->fail(connection, error);
                                     self->exchange(connection);
                                   });
}

/// Whatever the gateway does or does not do, the exchange ends then.
void HttpClient::Impl::limit(const Pointer& connection, asio::steady_timer::time_point at) {
  connection->alarm.expires_at(at);
  connection->alarm.async_wait([weak = weak_from_this(), connection](const error_code& error) {
    const auto self = weak.lock();
    // it may have been set again after it went off and before this ran
    if (!self || error || connection->closed ||
        connection->alarm.expiry() > asio::steady_timer::clock_type::now())
      return;
    if (!connection->job) {  // kept long enough
      self->close(connection);
      return self->pump(connection->key);
    }
    self->fail(connection, error_of(errc::timed_out));
  });
}

void HttpClient::Impl::exchange(const Pointer& connection) {
  limit(connection, connection->deadline);
  asio::async_write(connection->socket, asio::buffer(connection->request),
                    [self = shared_from_this(), connection](const error_code&, std::size_t) {
                      // Who answers before all is written and closes makes the write fail; the answer is
                      // still there to be read, so reading decides.
                      if (!connection->closed) self->read(connection);
                    });
}

void HttpClient::Impl::read(const Pointer& connection) {
  connection->socket.async_read_some(
      asio::buffer(connection->piece),
      [self = shared_from_this(), connection](const error_code& error, std::size_t size) {
        if (!connection->closed) self->on_read(connection, error, size);
      });
}

void HttpClient::Impl::on_read(const Pointer& connection, const error_code& error, std::size_t size) {
  if (size > 0) connection->answered = true;
  connection->input.append(connection->piece.data(), size);
  error_code wrong;
  bool done = parse(*connection, wrong);
  if (!wrong && !done && error == asio::error::eof && connection->parser->is_header_done() &&
      connection->parser->need_eof()) {
    connection->parser->put_eof(wrong);
    done = !wrong;
  }
  if (wrong) return fail(connection, wrong);
  if (done) return complete(connection);
  if (!error) return read(connection);
  if (connection->used && !connection->answered && !connection->job->fresh) {
    // it was closed while it was kept: nobody has read what was asked (RFC 9112, section 9.3.1)
    auto job = std::move(*connection->job);
    connection->job.reset();
    job.fresh = true;
    const auto key = connection->key;
    hosts_[key].waiting.push_front(std::move(job));
    close(connection);
    return pump(key);
  }
  fail(connection, error == asio::error::eof ? error_of(errc::connection_aborted) : error);
}

void HttpClient::Impl::start_reply(Connection& connection) {
  connection.reply = {};
  connection.parser.emplace(connection.reply, connection.job->ask.max_body);
}

bool HttpClient::Impl::parse(Connection& connection, error_code& error) {
  auto& input = connection.input;
  while (!connection.parser->is_header_done()) {
    // empty lines before an answer: some have one too many behind the last body
    input.erase(0, std::min(input.find_first_not_of("\r\n"), input.size()));
    const auto end = end_of_head(input);
    if (std::min(end, input.size()) > options_.head_octets) {
      error = error_of(errc::message_size);
      return false;
    }
    if (end == input.npos) {
      // noise would else be waited on until the time is over
      constexpr std::string_view begin = "HTTP/1.";
      const auto size = std::min(begin.size(), input.size());
      if (input.compare(0, size, begin, 0, size) != 0) error = error_of(errc::protocol_error);
      return false;
    }
    const auto head = tidy_head(std::string_view{input}.substr(0, end));
    input.erase(0, end);
    error_code wrong;
    connection.parser->put(asio::buffer(head), wrong);
    if (wrong && wrong != beast::http::error::need_more) {
      error = error_of(wrong == beast::http::error::body_limit ? errc::message_size : errc::protocol_error);
      return false;
    }
    if (!connection.parser->is_header_done()) {
      error = error_of(errc::protocol_error);
      return false;
    }
    if (connection.reply.status >= 200) break;
    if (++connection.interim > max_interim) {
      error = error_of(errc::protocol_error);
      return false;
    }
    start_reply(connection);
  }
  while (!connection.parser->is_done() && !input.empty()) {
    error_code wrong;
    const auto taken = connection.parser->put(asio::buffer(input), wrong);
    input.erase(0, taken);
    if (wrong == beast::http::error::need_more) break;
    if (wrong) {
      error = error_of(wrong == beast::http::error::body_limit ? errc::message_size : errc::protocol_error);
      return false;
    }
    if (taken == 0) break;
  }
  // a chunk's header without an end would else be gathered for ever
  if (!connection.parser->is_done() && input.size() > options_.head_octets)
    error = error_of(errc::message_size);
  return !error && connection.parser->is_done();
}

void HttpClient::Impl::complete(const Pointer& connection) {
  error_code ignored;
  const auto local = connection->socket.local_endpoint(ignored);
  if (!ignored) connection->reply.local = to_address(local.address());
  auto job = std::move(*connection->job);
  connection->job.reset();
  auto reply = std::move(connection->reply);
  if (connection->parser->keep_alive() && connection->input.empty())
    keep(connection);
  else
    close(connection);
  const auto key = connection->key;
  pump(key);
  job.handler(std::move(reply));
}

void HttpClient::Impl::fail(const Pointer& connection, const error_code& error) {
  auto job = std::move(*connection->job);
  connection->job.reset();
  close(connection);
  pump(connection->key);
  job.handler(error);
}

void HttpClient::Impl::close(const Pointer& taken) {
  const auto connection = taken;  // it may lie in the very list it is taken out of
  connection->closed = true;
  error_code ignored;
  connection->socket.close(ignored);
  connection->alarm.cancel();
  const auto found = hosts_.find(connection->key);
  if (found == hosts_.end()) return;
  std::erase(found->second.busy, connection);
  std::erase(found->second.idle, connection);
}

void HttpClient::Impl::keep(const Pointer& connection) {
  connection->used = true;
  auto& host = hosts_[connection->key];
  std::erase(host.busy, connection);
  host.idle.push_back(connection);
  limit(connection, asio::steady_timer::clock_type::now() + options_.idle_time);
}

/// Nothing to read means open and in order: octets nobody asked for, or the end, mean it is not.
bool HttpClient::Impl::is_alive(Connection& connection) noexcept {
  char octet;
  return ::recv(connection.socket.native_handle(), &octet, 1, MSG_PEEK | MSG_DONTWAIT) < 0 &&
         (errno == EAGAIN || errno == EWOULDBLOCK);
}

HttpClient::HttpClient(asio::any_io_executor executor) : HttpClient{std::move(executor), Options{}} {}
HttpClient::HttpClient(asio::any_io_executor executor, Options options)
    : impl_{std::make_shared<Impl>(std::move(executor), options)} {}
HttpClient::~HttpClient() { impl_->stop(); }
void HttpClient::ask(Ask ask, Handler handler) { impl_->ask(std::move(ask), std::move(handler)); }
void HttpClient::stop() { impl_->stop(); }

}  // namespace sallyport::client
