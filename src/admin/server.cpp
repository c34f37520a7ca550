#include "src/admin/server.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <list>
#include <map>
#include <string_view>
#include <unordered_set>

#include <spdlog/spdlog.h>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/basic_stream.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/string_body.hpp>
#include <nlohmann/json.hpp>

#include <fcntl.h>
#include <grp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "sallyport/admin/filter.hpp"
#include "src/admin/openapi.hpp"
#include "src/admin/render.hpp"
#include "src/lease/lease_service.hpp"
#include "src/lease/public_id.hpp"

namespace sallyport::admin {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::awaitable;
using Protocol = asio::local::stream_protocol;
using Stream = beast::basic_stream<Protocol>;
using std::chrono::seconds;
using std::chrono::steady_clock;
using ErrorCode = boost::system::error_code;

constexpr auto as_result = asio::as_tuple(asio::use_awaitable);
constexpr std::size_t head_limit = 16 * 1024;
constexpr std::size_t body_limit = 64 * 1024;
/// Leases that are turned into text between two turns of other work, and octets gathered before they are
/// sent.
constexpr std::size_t slice = 256;
constexpr std::size_t piece = 64 * 1024;
/// Ids in one request that are also tried as prefixes; each such trial looks at every lease.
constexpr std::size_t prefixes_at_once = 64;

struct Reply {
  unsigned status = 200;
  std::string type = "application/json";
  std::string body;
  std::string allow;  ///< for 405
};

std::string_view title(unsigned status) {
  switch (status) {
    case 200:
      return "OK";
    case 400:
      return "Bad Request";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 409:
      return "Conflict";
    case 413:
      return "Content Too Large";
    case 415:
      return "Unsupported Media Type";
    case 431:
      return "Request Header Fields Too Large";
    case 503:
      return "Service Unavailable";
    default:
      return "Internal Server Error";
  }
}

Reply problem(unsigned status, std::string_view detail) {
  Reply reply{.status = status, .type = "application/problem+json", .body = {}, .allow = {}};
  reply.body = "{\"type\":\"about:blank\",\"title\":";
  append_text(reply.body, title(status));
  reply.body += ",\"status\":" + std::to_string(status) + ",\"detail\":";
  append_text(reply.body, detail);
  reply.body += "}\n";
  return reply;
}

Reply not_allowed(std::string allow) {
  auto reply = problem(405, "this path answers to " + allow);
  reply.allow = std::move(allow);
  return reply;
}

std::optional<std::string> percent_decode(std::string_view text, bool form) {
  std::string out;
  const auto digit = [](char c) -> int {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  };
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%') {
      if (i + 2 >= text.size() || digit(text[i + 1]) < 0 || digit(text[i + 2]) < 0) return std::nullopt;
      out += static_cast<char>(digit(text[i + 1]) * 16 + digit(text[i + 2]));
      i += 2;
    } else {
      out += form && text[i] == '+' ? ' ' : text[i];
    }
  }
  return out;
}

using Query = std::vector<std::pair<std::string, std::string>>;

std::optional<Query> parse_query(std::string_view text) {
  Query query;
  while (!text.empty()) {
    const auto end = std::min(text.find('&'), text.size());
    const auto part = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (part.empty()) continue;
    const auto equals = part.find('=');
    auto key = percent_decode(part.substr(0, equals), true);
    auto value = percent_decode(equals == part.npos ? std::string_view{} : part.substr(equals + 1), true);
    if (!key || !value) return std::nullopt;
    query.emplace_back(std::move(*key), std::move(*value));
  }
  return query;
}

/// "24h", "forever".
boost::system::result<lease::LeaseService::BlockFor, std::string> parse_block(std::string_view text) {
  if (text == "forever") return lease::LeaseService::BlockFor{};
  if (const auto time = parse_duration(text)) return lease::LeaseService::BlockFor{*time};
  return "'" + std::string{text} + "' is no time to block for; say 90s, 15m, 24h, 7d or forever";
}

bool is_id(std::string_view text) {
  return !text.empty() && text.size() <= 16 &&
         std::ranges::all_of(text, [](char c) { return (c >= 'a' && c <= 'z') || (c >= '2' && c <= '9'); });
}

template <class Candidates, class IdOf>
std::string ambiguous(std::string_view prefix, const Candidates& candidates, IdOf id_of) {
  std::string text = std::to_string(candidates.size()) + " ids begin with '" + std::string{prefix} + "': ";
  for (std::size_t i = 0; i < candidates.size() && i < 5; ++i)
    text += (i > 0 ? ", " : "") + id_of(candidates[i]);
  return text + (candidates.size() > 5 ? ", ..." : "");
}

struct Failed {
  std::string id, reason, code;
};

void append_failed(std::string& out, const std::vector<Failed>& failed) {
  out += ",\"failed\":[";
  for (std::size_t i = 0; i < failed.size(); ++i) {
    out += i > 0 ? ",{\"id\":" : "{\"id\":";
    append_text(out, failed[i].id);
    out += ",\"reason\":";
    append_text(out, failed[i].reason);
    out += ",\"code\":\"" + failed[i].code + "\"}";
  }
  out += ']';
}

void append_ids(std::string& out, const std::vector<std::string>& ids) {
  out += '[';
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (i > 0) out += ',';
    append_text(out, ids[i]);
  }
  out += ']';
}

struct RevokeOutcome {
  std::vector<std::string> revoked;
  std::vector<Failed> failed;
  std::string blocked_until = "null";  ///< as JSON
  bool dry_run = false;
};

std::string to_json(const RevokeOutcome& outcome) {
  std::string out = "{\"revoked\":";
  append_ids(out, outcome.revoked);
  append_failed(out, outcome.failed);
  out += ",\"blocked_until\":" + outcome.blocked_until;
  if (outcome.dry_run) out += ",\"dry_run\":true";
  return out + "}\n";
}

/// Waits for a callback of the lease service, which may run before `start` returns. Empty when it has not
/// come after half a minute.
template <class T, class Start>
awaitable<std::optional<T>> answer_of(asio::io_context& io, Start start) {
  auto value = std::make_shared<std::optional<T>>();
  auto bell = std::make_shared<asio::steady_timer>(io, seconds{30});
  // the callback may outlive this wait, and even the io_context
  start([value, ring = std::weak_ptr{bell}](T result) {
    *value = std::move(result);
    if (const auto waiting = ring.lock()) waiting->cancel();
  });
  if (!*value) co_await bell->async_wait(as_result);
  co_return std::move(*value);
}

struct Session {
  explicit Session(Protocol::socket socket) : stream{std::move(socket)} {}
  Stream stream;
  /// Since when it waits for a request; empty while one is served.
  std::optional<steady_clock::time_point> idle_since = steady_clock::now();
  uid_t uid = 0;
};

/// Somebody who reads GET /api/v1/events.
struct Subscriber {
  explicit Subscriber(asio::io_context& io) : bell{io} {}
  asio::steady_timer bell;
  Filter filter;
  std::string backlog;
  bool over = false;  ///< it fell behind, or went away
};

}  // namespace

class Server::Impl : public ServiceListener, public std::enable_shared_from_this<Impl> {
 public:
  Impl(asio::io_context& io, lease::LeaseService& leases, const Clock& clock, Sources sources,
       ServerOptions options)
      : io_{io},
        leases_{leases},
        clock_{clock},
        sources_{std::move(sources)},
        options_{std::move(options)},
        acceptor_{io},
        room_{io} {}

  bool start(std::string& why);
  void stop();

  void on_lease(const LeaseEvent& event, TimePoint now) override;

 private:
  using Shared = std::shared_ptr<Session>;

  Moment moment() const { return {clock_.now(), clock_.wall()}; }
  DeviceIdentity identity(const Address& address) const {
    return sources_.device ? sources_.device(address) : DeviceIdentity{};
  }
  void changed() const {
    if (sources_.after_change) sources_.after_change();
  }

  awaitable<void> accept();
  awaitable<void> serve(Shared session);
  void close_longest_idle();
  void leave(const Shared& session);

  awaitable<bool> send(Session& session, std::string_view text);
  awaitable<bool> send(Session& session, const Reply& reply, bool keep_alive, bool head_only);
  awaitable<void> refuse(Session& session, ErrorCode error);
  /// Answers one request; false when the connection must end.
  awaitable<bool> answer(Session& session, const http::request<http::string_body>& request);

  awaitable<bool> send_leases(Session& session, const Query& query, bool chunked, bool keep_alive,
                              bool head_only);
  awaitable<bool> send_events(Session& session, const Query& query, bool chunked, bool keep_alive);
  Reply show(std::string_view id) const;
  Reply blocks() const;
  Reply metrics() const;
  awaitable<Reply> revoke_one(const Session& session, std::string id, const Query& query);
  awaitable<Reply> revoke_many(const Session& session, const std::string& body);
  void add_whole_sets(std::vector<LeaseView>& chosen) const;
  awaitable<std::optional<RevokeOutcome>> revoke(const Session& session, std::vector<LeaseView> chosen,
                                                 std::optional<lease::LeaseService::BlockFor> block,
                                                 bool dry_run);
  awaitable<Reply> unblock_one(const Session& session, std::string id);
  awaitable<Reply> unblock_many(const Session& session, const std::string& body);
  awaitable<std::optional<std::size_t>> unblock(const Session& session, std::vector<std::uint64_t> numbers);

  lease::LeaseFilter narrowed(const Filter& filter) const;
  bool fits_name(const Filter& filter, const DeviceIdentity& device) const;
  std::vector<LeaseView> choose(const Filter& filter) const;

  asio::io_context& io_;
  lease::LeaseService& leases_;
  const Clock& clock_;
  Sources sources_;
  ServerOptions options_;
  Protocol::acceptor acceptor_;
  asio::steady_timer room_;  ///< rings when a connection ends while the house is full
  std::list<Shared> sessions_;
  std::list<std::shared_ptr<Subscriber>> subscribers_;
  std::optional<struct stat> file_;
  bool stopped_ = false;
  bool listening_to_leases_ = false;
};

// ------------------------------------------------------------------------------------------------------- the
// socket

bool Server::Impl::start(std::string& why) {
  const auto& path = options_.socket;
  const auto say = [&](std::string_view what) {
    why = "the admin socket " + path + " " + std::string{what};
    return false;
  };
  sockaddr_un address{};
  if (path.empty() || path.size() >= sizeof address.sun_path)
    return say("cannot be made: the path of a unix socket has 1 to 107 octets");
  if (const auto slash = path.rfind('/'); slash != std::string::npos && slash > 0) {
    const auto directory = path.substr(0, slash);
    if (::mkdir(directory.c_str(), 0755) != 0 && errno != EEXIST)
      return say(std::string{"cannot be made: its directory: "} + std::strerror(errno));
  }
  struct stat found {};
  if (::lstat(path.c_str(), &found) == 0) {
    if (!S_ISSOCK(found.st_mode)) return say("cannot be made: a file that is no socket is in its place");
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    const int probe = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const int connected = ::connect(probe, reinterpret_cast<const sockaddr*>(&address), sizeof address);
    const int error = errno;
    ::close(probe);
    // only a refusal proves that nobody is there; a full backlog (EAGAIN) is somebody
    if (connected == 0 || error == EAGAIN) return say("is in use: another sallyportd answers there");
    if (error != ECONNREFUSED) return say(std::string{"cannot be taken over: "} + std::strerror(error));
    ::unlink(path.c_str());
  }
  ErrorCode error;
  acceptor_.open(Protocol{}, error);
  const auto mask = ::umask(0117);  // from its first moment the socket is for its owner and group only
  if (!error) acceptor_.bind(Protocol::endpoint{path}, error);
  ::umask(mask);
  if (!error) acceptor_.listen(static_cast<int>(options_.connections), error);
  if (error) return say("cannot be made: " + error.message());
  if (const auto* group = ::getgrnam(options_.group.c_str()))
    if (::chown(path.c_str(), static_cast<uid_t>(-1), group->gr_gid) != 0)
      spdlog::warn("admin: the socket {} cannot be given to group {}: {}; only root can use it", path,
                   options_.group, std::strerror(errno));
  if (::lstat(path.c_str(), &found) == 0) file_ = found;
  asio::co_spawn(
      io_, [self = shared_from_this()] { return self->accept(); }, asio::detached);
  return true;
}

void Server::Impl::stop() {
  if (stopped_) return;
  stopped_ = true;
  ErrorCode ignored;
  acceptor_.close(ignored);
  room_.cancel();
  if (listening_to_leases_) leases_.remove_listener(*this);
  listening_to_leases_ = false;
  for (const auto& subscriber : subscribers_) {
    subscriber->over = true;
    subscriber->bell.cancel();
  }
  for (const auto& session : sessions_) session->stream.close();
  struct stat now {};
  if (file_ && ::lstat(options_.socket.c_str(), &now) == 0 && now.st_ino == file_->st_ino &&
      now.st_dev == file_->st_dev)
    ::unlink(options_.socket.c_str());
}

awaitable<void> Server::Impl::accept() {
  const auto self = shared_from_this();
  while (!stopped_) {
    if (sessions_.size() >= options_.connections) close_longest_idle();
    while (!stopped_ && sessions_.size() >= options_.connections) {
      room_.expires_after(seconds{1});
      co_await room_.async_wait(as_result);
      if (!stopped_) close_longest_idle();
    }
    if (stopped_) co_return;
    auto [error, socket] = co_await acceptor_.async_accept(as_result);
    if (stopped_) co_return;
    if (error) {
      // out of descriptors: later
      room_.expires_after(std::chrono::milliseconds{200});
      co_await room_.async_wait(as_result);
      continue;
    }
    auto session = std::make_shared<Session>(std::move(socket));
    ucred peer{};
    socklen_t size = sizeof peer;
    if (::getsockopt(session->stream.socket().native_handle(), SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0)
      session->uid = peer.uid;
    sessions_.push_back(session);
    asio::co_spawn(
        io_, [self, session] { return self->serve(session); }, asio::detached);
  }
}

/// Makes room: who has connected and says nothing must not keep others out.
void Server::Impl::close_longest_idle() {
  Session* longest = nullptr;
  for (const auto& session : sessions_)
    if (session->idle_since && (!longest || *session->idle_since < *longest->idle_since))
      longest = session.get();
  if (!longest) return;
  longest->idle_since.reset();
  longest->stream.close();
}

void Server::Impl::leave(const Shared& session) {
  session->stream.close();
  std::erase(sessions_, session);
  room_.cancel();
}

awaitable<void> Server::Impl::serve(Shared session) {
  const auto self = shared_from_this();
  auto& stream = session->stream;
  beast::flat_buffer buffer{head_limit + body_limit + 4096};
  for (bool keep_alive = true; keep_alive && !stopped_;) {
    session->idle_since = steady_clock::now();
    if (buffer.size() == 0) {
      stream.expires_after(options_.idle_timeout);
      const auto [error, size] = co_await stream.async_read_some(buffer.prepare(4096), as_result);
      if (error) break;
      buffer.commit(size);
    }
    http::request_parser<http::string_body> parser;
    parser.header_limit(head_limit);
    parser.body_limit(body_limit);
    stream.expires_after(options_.head_timeout);
    auto [error, size] = co_await http::async_read_header(stream, buffer, parser, as_result);
    if (!error && !stopped_ && !parser.is_done()) {
      if (beast::iequals(parser.get()[http::field::expect], "100-continue") &&
          !co_await send(*session, "HTTP/1.1 100 Continue\r\n\r\n"))
        break;
      stream.expires_after(options_.request_timeout);
      std::tie(error, size) = co_await http::async_read(stream, buffer, parser, as_result);
    }
    if (stopped_) break;
    session->idle_since.reset();
    if (error) {
      co_await refuse(*session, error);
      break;
    }
    const auto request = parser.release();
    keep_alive = co_await answer(*session, request);
  }
  leave(session);
}

/// What cannot be read is answered where an answer may still arrive, and the connection ends.
awaitable<void> Server::Impl::refuse(Session& session, ErrorCode error) {
  if (error == http::error::end_of_stream || error == asio::error::operation_aborted ||
      error == asio::error::connection_reset || error == http::error::partial_message)
    co_return;
  Reply reply;
  if (error == http::error::header_limit || error == http::error::buffer_overflow)
    reply = problem(431, "the head of a request has at most 16384 octets");
  else if (error == http::error::body_limit)
    reply = problem(413, "the body of a request has at most 65536 octets");
  else if (error == beast::error::timeout)
    co_return;
  else
    reply = problem(400, "this is no HTTP/1.1 request: " + error.message());
  if (!co_await send(session, reply, false, false) || stopped_) co_return;
  // a peer that still writes would lose the answer if the rest were left unread
  ErrorCode ignored;
  session.stream.socket().shutdown(Protocol::socket::shutdown_send, ignored);
  std::array<char, 4096> waste;
  session.stream.expires_after(seconds{1});
  for (std::size_t left = 4 * body_limit; left > 0 && !stopped_;) {
    const auto [failure, got] = co_await session.stream.async_read_some(asio::buffer(waste), as_result);
    if (failure) co_return;
    left -= std::min(left, got);
  }
}

awaitable<bool> Server::Impl::send(Session& session, std::string_view text) {
  session.stream.expires_after(options_.request_timeout);
  const auto [error, size] = co_await asio::async_write(session.stream, asio::buffer(text), as_result);
  co_return !error && !stopped_;
}

awaitable<bool> Server::Impl::send(Session& session, const Reply& reply, bool keep_alive, bool head_only) {
  std::string text = "HTTP/1.1 " + std::to_string(reply.status) + " " + std::string{title(reply.status)} +
                     "\r\nContent-Type: " + reply.type +
                     "\r\nContent-Length: " + std::to_string(reply.body.size()) +
                     "\r\nCache-Control: no-store\r\n";
  if (!reply.allow.empty()) text += "Allow: " + reply.allow + "\r\n";
  text += keep_alive ? "Connection: keep-alive\r\n\r\n" : "Connection: close\r\n\r\n";
  if (!head_only) text += reply.body;
  co_return co_await send(session, text) && keep_alive;
}

// ------------------------------------------------------------------------------------------------------ the
// requests

awaitable<bool> Server::Impl::answer(Session& session, const http::request<http::string_body>& request) {
  const bool keep_alive = request.keep_alive();
  const bool chunked = request.version() >= 11;
  const bool head_only = request.method() == http::verb::head;
  const bool get = head_only || request.method() == http::verb::get;
  const std::string_view target{request.target().data(), request.target().size()};
  const auto mark = target.find('?');
  const auto path = percent_decode(target.substr(0, mark), false);
  const auto query = parse_query(mark == target.npos ? std::string_view{} : target.substr(mark + 1));
  Reply reply;
  constexpr std::string_view leases_path = "/api/v1/leases/", blocks_path = "/api/v1/blocks/";
  if (!path || !query) {
    reply = problem(400, "the address holds a broken %XX");
  } else if (*path == "/api/v1/leases") {
    if (get) co_return co_await send_leases(session, *query, chunked, keep_alive, head_only);
    reply = not_allowed("GET, HEAD");
  } else if (*path == "/api/v1/events") {
    if (request.method() == http::verb::get)
      co_return co_await send_events(session, *query, chunked, keep_alive);
    reply = not_allowed("GET");
  } else if (*path == "/api/v1/status") {
    if (get)
      reply.body = status_json(sources_.status(), leases_.status(), leases_.epoch_s(clock_.now()));
    else
      reply = not_allowed("GET, HEAD");
  } else if (*path == "/metrics") {
    reply = get ? metrics() : not_allowed("GET, HEAD");
  } else if (*path == "/api/v1/openapi.json") {
    if (get)
      reply.body = openapi;
    else
      reply = not_allowed("GET, HEAD");
  } else if (path->starts_with(leases_path)) {
    auto id = path->substr(leases_path.size());
    if (get)
      reply = show(id);
    else if (request.method() == http::verb::delete_)
      reply = co_await revoke_one(session, std::move(id), *query);
    else
      reply = not_allowed("GET, HEAD, DELETE");
  } else if (*path == "/api/v1/blocks") {
    reply = get ? blocks() : not_allowed("GET, HEAD");
  } else if (path->starts_with(blocks_path)) {
    if (request.method() == http::verb::delete_)
      reply = co_await unblock_one(session, path->substr(blocks_path.size()));
    else
      reply = not_allowed("DELETE");
  } else if (*path == "/api/v1/revoke") {
    if (request.method() == http::verb::post)
      reply = co_await revoke_many(session, request.body());
    else
      reply = not_allowed("POST");
  } else if (*path == "/api/v1/unblock") {
    if (request.method() == http::verb::post)
      reply = co_await unblock_many(session, request.body());
    else
      reply = not_allowed("POST");
  } else {
    reply = problem(404, "nothing is at this path; /api/v1/openapi.json lists what there is");
  }
  if (stopped_) co_return false;
  co_return co_await send(session, reply, keep_alive, head_only);
}

lease::LeaseFilter Server::Impl::narrowed(const Filter& filter) const {
  lease::LeaseFilter out{.device = {},
                         .transport = filter.transport,
                         .via = filter.via,
                         .kind = filter.kind,
                         .state = filter.state,
                         .ipv6 = filter.ipv6,
                         .external = filter.external,
                         .internal = filter.internal};
  if (filter.device && Address::parse(*filter.device)) out.device = filter.device;
  return out;
}

/// Names are known here only; addresses have been filtered by the service.
bool Server::Impl::fits_name(const Filter& filter, const DeviceIdentity& device) const {
  if (!filter.device || Address::parse(*filter.device)) return true;
  return device.name && same_name(*device.name, *filter.device);
}

/// For filters that are about to be acted upon.
std::vector<LeaseView> Server::Impl::choose(const Filter& filter) const {
  if (filter.impossible) return {};
  const auto now = clock_.now();
  auto chosen = leases_.views(leases_.list_numbers(narrowed(filter), now), now);
  std::erase_if(chosen,
                [&](const LeaseView& view) { return !fits_name(filter, identity(view.internal.address)); });
  return chosen;
}

Reply Server::Impl::show(std::string_view id) const {
  const auto found = is_id(id) ? leases_.find(id, clock_.now()) : std::vector<LeaseView>{};
  if (found.empty()) return problem(404, "there is no lease '" + std::string{id} + "'");
  if (found.size() > 1)
    return problem(409, ambiguous(id, found, [](const LeaseView& view) { return view.id; }));
  Reply reply;
  append_lease(reply.body, found.front(), identity(found.front().internal.address), moment());
  reply.body += '\n';
  return reply;
}

Reply Server::Impl::blocks() const {
  Reply reply;
  reply.body = "{\"blocks\":[";
  bool first = true;
  for (const auto& block : leases_.blocks(clock_.now())) {
    reply.body += first ? "\n" : ",\n";
    first = false;
    append_block(reply.body, block, identity(block.device), moment());
  }
  reply.body += "]}\n";
  return reply;
}

Reply Server::Impl::metrics() const {
  return {.status = 200,
          .type = "text/plain; version=0.0.4; charset=utf-8",
          .body = metrics_text(sources_.status(), leases_.status(), leases_.epoch_s(clock_.now()),
                               leases_.count_by_via()),
          .allow = {}};
}

awaitable<bool> Server::Impl::send_leases(Session& session, const Query& query, bool chunked, bool keep_alive,
                                          bool head_only) {
  Filter filter;
  bool all = false;
  for (const auto& [key, value] : query) {
    if (key == "all") {
      if (value != "1" && value != "0" && value != "true" && value != "false")
        co_return co_await send(session, problem(400, "'all' is 1 or 0"), keep_alive, head_only);
      all = value == "1" || value == "true";
    } else if (key == "blocked") {
      co_return co_await send(session, problem(400, "blocks are at /api/v1/blocks"), keep_alive, head_only);
    } else if (const auto word = narrow(filter, key, value); !word) {
      co_return co_await send(session, problem(400, word.error()), keep_alive, head_only);
    }
  }
  const auto wanted = narrowed(filter);
  const auto at = moment();
  const bool none = filter.impossible;
  const bool with_implicit = !none && (all || filter.kind == LeaseKind::implicit);
  const auto numbers = none ? std::vector<std::uint64_t>{} : leases_.list_numbers(wanted, at.now);
  const auto implicit = with_implicit ? leases_.list_implicit(wanted, at.now) : std::vector<LeaseView>{};

  keep_alive = keep_alive && chunked;  // HTTP/1.0 learns the end by the connection's end
  std::string text = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n";
  if (chunked) text += "Transfer-Encoding: chunked\r\n";
  text += keep_alive ? "Connection: keep-alive\r\n\r\n" : "Connection: close\r\n\r\n";
  if (head_only) co_return co_await send(session, text) && keep_alive;

  std::string body = "{\"leases\":[";
  bool first = true;
  std::optional<Address> known;
  DeviceIdentity device;
  const auto row = [&](const LeaseView& view) {
    if (known != view.internal.address) {
      known = view.internal.address;
      device = identity(*known);
    }
    if (!fits_name(filter, device)) return;
    body += first ? "\n" : ",\n";
    first = false;
    append_lease(body, view, device, at);
  };
  const auto before = [](const LeaseView& a, const LeaseView& b) {
    return std::tie(a.internal.address, a.external.port, a.transport) <
           std::tie(b.internal.address, b.external.port, b.transport);
  };
  const auto frame = [&] {  // moves `body` to `text`
    if (chunked && !body.empty()) {
      char size[20];
      std::snprintf(size, sizeof size, "%zx\r\n", body.size());
      text += size;
      text += body;
      text += "\r\n";
    } else {
      text += body;
    }
    body.clear();
  };
  std::size_t next_implicit = 0;
  for (std::size_t from = 0; from < numbers.size(); from += slice) {
    const auto part = std::span{numbers}.subspan(from, std::min(slice, numbers.size() - from));
    const auto views = leases_.views(part, at.now);
    for (const auto& view : views) {
      for (; next_implicit < implicit.size() && before(implicit[next_implicit], view); ++next_implicit) {
        row(implicit[next_implicit]);
        if (body.size() < piece) continue;
        frame();
        if (!co_await send(session, text)) co_return false;
        text.clear();
      }
      row(view);
    }
    frame();
    if (!co_await send(session, text)) co_return false;
    text.clear();
  }
  for (; next_implicit < implicit.size(); ++next_implicit) {
    row(implicit[next_implicit]);
    if (body.size() < piece) continue;
    frame();
    if (!co_await send(session, text)) co_return false;
    text.clear();
  }
  body += "]}\n";
  frame();
  if (chunked) text += "0\r\n\r\n";
  co_return co_await send(session, text) && keep_alive;
}

// -------------------------------------------------------------------------------------------------- revoke,
// unblock

/// A set of ports ends as a whole: the rest of each comes behind.
void Server::Impl::add_whole_sets(std::vector<LeaseView>& chosen) const {
  std::unordered_set<std::uint64_t> known;
  for (const auto& view : chosen)
    if (view.set_size > 1) known.insert(view.number);
  if (known.empty()) return;
  std::vector<std::uint64_t> missing;
  for (const auto& view : chosen)
    for (std::uint16_t place = 0; place < view.set_size && view.set_size > 1; ++place)
      if (const auto number = view.number - view.set_place + place; known.insert(number).second)
        missing.push_back(number);
  for (auto& view : leases_.views(missing, clock_.now())) chosen.push_back(std::move(view));
}

awaitable<std::optional<RevokeOutcome>> Server::Impl::revoke(
    const Session& session, std::vector<LeaseView> chosen, std::optional<lease::LeaseService::BlockFor> block,
    bool dry_run) {
  RevokeOutcome outcome;
  outcome.dry_run = dry_run;
  add_whole_sets(chosen);
  std::vector<std::uint64_t> numbers;
  for (const auto& view : chosen) {
    if (view.kind == LeaseKind::static_) {
      outcome.failed.push_back(
          {view.id, "it comes from the configuration: remove it there and reload", "failed"});
    } else {
      numbers.push_back(view.number);
    }
  }
  if (numbers.empty()) co_return outcome;
  if (dry_run) {
    for (const auto& view : chosen)
      if (view.kind != LeaseKind::static_) outcome.revoked.push_back(view.id);
    co_return outcome;
  }
  auto done = co_await answer_of<lease::RevokeResult>(io_, [&](auto ring) {
    leases_.revoke(numbers, block, clock_.now(),
                   [ring](const lease::RevokeResult& result, TimePoint) mutable { ring(result); });
    changed();
  });
  if (!done || stopped_) co_return std::nullopt;
  outcome.revoked = std::move(done->revoked);
  for (auto& [id, reason] : done->failed)
    outcome.failed.push_back({id, reason, reason == "no such lease" ? "not_found" : "failed"});
  if (block && !outcome.revoked.empty())
    outcome.blocked_until =
        block->time ? "\"" + rfc3339(clock_.wall() + *block->time) + "\"" : std::string{"\"forever\""};
  std::string ids;
  for (std::size_t i = 0; i < outcome.revoked.size() && i < 20; ++i) ids += " " + outcome.revoked[i];
  // When: an administrator revoked leases. The user id is that of whoever opened the admin socket.
  spdlog::info("admin: uid {} revoked {} lease(s){}:{}{}", session.uid, outcome.revoked.size(),
               block ? " with a block" : "", ids, outcome.revoked.size() > 20 ? " ..." : "");
  co_return outcome;
}

awaitable<Reply> Server::Impl::revoke_one(const Session& session, std::string id, const Query& query) {
  std::optional<lease::LeaseService::BlockFor> block;
  for (const auto& [key, value] : query) {
    if (key != "block") co_return problem(400, "'" + key + "' is no parameter here; there is block");
    const auto parsed = parse_block(value);
    if (!parsed) co_return problem(400, parsed.error());
    block = *parsed;
  }
  auto found = is_id(id) ? leases_.find(id, clock_.now()) : std::vector<LeaseView>{};
  if (found.empty()) co_return problem(404, "there is no lease '" + id + "'");
  if (found.size() > 1)
    co_return problem(409, ambiguous(id, found, [](const LeaseView& view) { return view.id; }));
  const bool is_static = found.front().kind == LeaseKind::static_;
  const auto outcome = co_await revoke(session, std::move(found), block, false);
  if (!outcome) co_return problem(503, "the lease service has not answered in time; look again with GET");
  if (outcome->revoked.empty() && !outcome->failed.empty())
    co_return problem(is_static                                     ? 409
                      : outcome->failed.front().code == "not_found" ? 404
                                                                    : 503,
                      outcome->failed.front().reason);
  Reply reply;
  reply.body = to_json(*outcome);
  co_return reply;
}

namespace {

/// The body of a revoke or unblock: ids or filter words.
struct Selection {
  std::vector<std::string> ids;
  Filter filter;
  std::optional<std::string> block;
  bool dry_run = false;
};

boost::system::result<Selection, std::string> parse_selection(const std::string& body, bool for_revoke) {
  using nlohmann::json;
  const auto object = json::parse(body, nullptr, false);
  if (!object.is_object()) return std::string{"the body is no JSON object"};
  Selection selection;
  bool has_ids = false, has_filter = false;
  for (const auto& [key, value] : object.items()) {
    if (key == "ids" || key == "filter") {
      if (!value.is_array() || !std::ranges::all_of(value, [](const json& e) { return e.is_string(); }))
        return "'" + key + "' is a list of strings";
      for (const auto& entry : value) {
        const auto& text = entry.get_ref<const std::string&>();
        if (key == "ids") {
          selection.ids.push_back(text);
        } else if (const auto word = narrow(selection.filter, text); !word) {
          return word.error();
        }
      }
      (key == "ids" ? has_ids : has_filter) = !value.empty();
    } else if (key == "block" && for_revoke) {
      if (value.is_null()) continue;
      if (!value.is_string()) return std::string{"'block' is a string such as 24h or forever"};
      selection.block = value.get<std::string>();
    } else if (key == "dry_run" && for_revoke) {
      if (!value.is_boolean()) return std::string{"'dry_run' is true or false"};
      selection.dry_run = value.get<bool>();
    } else {
      return "'" + key + "' is no member here; there are ids, filter" +
             (for_revoke ? ", block and dry_run" : "");
    }
  }
  if (has_ids == has_filter)
    return std::string{"say what is meant: either 'ids' or 'filter', with at least one entry"};
  return selection;
}

}  // namespace

awaitable<Reply> Server::Impl::revoke_many(const Session& session, const std::string& body) {
  const auto selection = parse_selection(body, true);
  if (!selection) co_return problem(400, selection.error());
  std::optional<lease::LeaseService::BlockFor> block;
  if (selection->block) {
    const auto parsed = parse_block(*selection->block);
    if (!parsed) co_return problem(400, parsed.error());
    block = *parsed;
  }
  std::vector<Failed> failed;
  std::vector<LeaseView> chosen;
  if (selection->ids.empty()) {
    chosen = choose(selection->filter);
  } else {
    const auto now = clock_.now();
    for (const auto& id : selection->ids) {
      std::vector<LeaseView> found;
      if (const auto number = lease::number_of(id)) found = leases_.views(std::span{&*number, 1}, now);
      if (found.empty() && is_id(id) && selection->ids.size() <= prefixes_at_once)
        found = leases_.find(id, now);
      if (found.empty()) {
        failed.push_back({id, "there is no lease '" + id + "'", "not_found"});
      } else if (found.size() > 1) {
        failed.push_back(
            {id, ambiguous(id, found, [](const LeaseView& view) { return view.id; }), "ambiguous"});
      } else if (std::ranges::find(chosen, found.front().number, &LeaseView::number) == chosen.end()) {
        chosen.push_back(std::move(found.front()));
      }
    }
  }
  auto outcome = co_await revoke(session, std::move(chosen), block, selection->dry_run);
  if (!outcome) co_return problem(503, "the lease service has not answered in time; look again with GET");
  outcome->failed.insert(outcome->failed.end(), failed.begin(), failed.end());
  Reply reply;
  reply.body = to_json(*outcome);
  co_return reply;
}

awaitable<std::optional<std::size_t>> Server::Impl::unblock(const Session& session,
                                                            std::vector<std::uint64_t> numbers) {
  auto lifted = co_await answer_of<std::size_t>(io_, [&](auto ring) {
    leases_.unblock(numbers, clock_.now(), [ring](std::size_t count, TimePoint) mutable { ring(count); });
    changed();
  });
  // When: an administrator lifted blocks.
  if (lifted) spdlog::info("admin: uid {} lifted {} block(s)", session.uid, *lifted);
  co_return lifted;
}

namespace {

constexpr std::string_view no_unblock = "the block could not be lifted: the store cannot be written now";

std::vector<lease::Block> blocks_named(const std::vector<lease::Block>& blocks, std::string_view id) {
  std::vector<lease::Block> found;
  for (const auto& block : blocks) {
    if (block.lease_id == id) return {block};
    if (is_id(id) && block.lease_id.starts_with(id)) found.push_back(block);
  }
  return found;
}

}  // namespace

awaitable<Reply> Server::Impl::unblock_one(const Session& session, std::string id) {
  const auto found = blocks_named(leases_.blocks(clock_.now()), id);
  if (found.empty()) co_return problem(404, "there is no block '" + id + "'");
  if (found.size() > 1)
    co_return problem(409, ambiguous(id, found, [](const lease::Block& block) { return block.lease_id; }));
  std::vector<std::uint64_t> numbers(1, found.front().lease);
  const auto lifted = co_await unblock(session, std::move(numbers));
  if (!lifted || *lifted == 0) co_return problem(503, no_unblock);
  Reply reply;
  reply.body = "{\"unblocked\":[\"" + found.front().lease_id + "\"],\"failed\":[]}\n";
  co_return reply;
}

awaitable<Reply> Server::Impl::unblock_many(const Session& session, const std::string& body) {
  const auto selection = parse_selection(body, false);
  if (!selection) co_return problem(400, selection.error());
  const auto& filter = selection->filter;
  if (filter.via || filter.kind || filter.state || filter.external)
    co_return problem(400, "blocks are chosen by device, protocol and internal only");
  const auto blocks = leases_.blocks(clock_.now());
  std::vector<lease::Block> chosen;
  std::vector<Failed> failed;
  for (const auto& id : selection->ids) {
    const auto found = blocks_named(blocks, id);
    if (found.empty()) {
      failed.push_back({id, "there is no block '" + id + "'", "not_found"});
    } else if (found.size() > 1) {
      failed.push_back(
          {id, ambiguous(id, found, [](const lease::Block& block) { return block.lease_id; }), "ambiguous"});
    } else if (std::ranges::find(chosen, found.front().lease, &lease::Block::lease) == chosen.end()) {
      chosen.push_back(found.front());
    }
  }
  if (selection->ids.empty() && !filter.impossible) {
    for (const auto& block : blocks) {
      if ((filter.transport && *filter.transport != block.transport) ||
          (filter.ipv6 && *filter.ipv6 == block.device.is_v4()) ||
          (filter.internal && !filter.internal->contains(block.internal_port)))
        continue;
      if (filter.device) {
        const auto address = Address::parse(*filter.device);
        if (address ? *address != block.device : !fits_name(filter, identity(block.device))) continue;
      }
      chosen.push_back(block);
    }
  }
  std::vector<std::uint64_t> numbers;
  std::vector<std::string> ids;
  for (const auto& block : chosen) {
    numbers.push_back(block.lease);
    ids.push_back(block.lease_id);
  }
  if (!numbers.empty()) {
    const auto lifted = co_await unblock(session, numbers);
    if (!lifted || *lifted == 0) {
      for (const auto& id : ids) failed.push_back({id, std::string{no_unblock}, "failed"});
      ids.clear();
    }
  }
  Reply reply;
  reply.body = "{\"unblocked\":";
  append_ids(reply.body, ids);
  append_failed(reply.body, failed);
  reply.body += "}\n";
  co_return reply;
}

// -----------------------------------------------------------------------------------------------------------
// events

void Server::Impl::on_lease(const LeaseEvent& event, TimePoint now) {
  if (subscribers_.empty()) return;
  const auto device = identity(event.lease.internal.address);
  std::string text = "data: ";
  append_event(text, event, device, {now, clock_.wall()});
  text += "\n\n";
  const auto& lease = event.lease;
  for (const auto& subscriber : subscribers_) {
    const auto& filter = subscriber->filter;
    const auto address = filter.device ? Address::parse(*filter.device) : std::nullopt;
    if (subscriber->over || filter.impossible || (filter.transport && *filter.transport != lease.transport) ||
        (filter.via && *filter.via != lease.via) || (filter.kind && *filter.kind != lease.kind) ||
        (filter.state && *filter.state != lease.state) ||
        (filter.ipv6 && *filter.ipv6 == lease.internal.address.is_v4()) ||
        (filter.external && !filter.external->contains(lease.external.port)) ||
        (filter.internal && !filter.internal->contains(lease.internal.port)) ||
        (address ? *address != lease.internal.address : !fits_name(filter, device)))
      continue;
    if (subscriber->backlog.size() + text.size() > options_.event_backlog) {
      // When: a reader of the event stream is too slow. It is cut off; it can connect again and list.
      spdlog::warn("admin: a reader of events fell {} octets behind and was dropped",
                   subscriber->backlog.size());
      subscriber->over = true;
      std::string{}.swap(subscriber->backlog);
    } else {
      subscriber->backlog += text;
    }
    subscriber->bell.cancel();
  }
}

awaitable<bool> Server::Impl::send_events(Session& session, const Query& query, bool chunked,
                                          bool keep_alive) {
  const auto subscriber = std::make_shared<Subscriber>(io_);
  for (const auto& [key, value] : query)
    if (const auto word = narrow(subscriber->filter, key, value); !word)
      co_return co_await send(session, problem(400, word.error()), keep_alive, false);
  if (subscribers_.size() >= options_.subscribers)
    co_return co_await send(session,
                            problem(503, "there are " + std::to_string(subscribers_.size()) +
                                             " readers of events already; end one of them first"),
                            keep_alive, false);
  const auto self = shared_from_this();
  subscribers_.push_back(subscriber);
  if (!listening_to_leases_) {
    leases_.add_listener(*this);
    listening_to_leases_ = true;
  }
  std::string text =
      "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\nConnection: "
      "close\r\n";
  if (chunked) text += "Transfer-Encoding: chunked\r\n";
  text += "\r\n";
  const auto add = [&](std::string_view body) {
    char size[20];
    std::snprintf(size, sizeof size, "%zx\r\n", body.size());
    if (chunked) text += size;
    text += body;
    if (chunked) text += "\r\n";
  };
  add(": events of leases follow\n\n");
  // Tells when the reader goes away while nothing is written. It holds the socket's own copy of nothing:
  // closing the session ends it.
  session.stream.socket().async_wait(Protocol::socket::wait_read, [subscriber](ErrorCode) {
    subscriber->over = true;
    subscriber->bell.cancel();
  });
  while (!stopped_ && co_await send(session, text)) {
    text.clear();
    if (subscriber->over) break;
    if (subscriber->backlog.empty()) {
      subscriber->bell.expires_after(options_.heartbeat);
      co_await subscriber->bell.async_wait(as_result);
    }
    if (stopped_ || subscriber->over) break;
    if (subscriber->backlog.empty()) {
      add(": still here\n\n");
    } else {
      std::string events;
      events.swap(subscriber->backlog);
      add(events);
    }
  }
  std::erase(subscribers_, subscriber);
  if (subscribers_.empty() && listening_to_leases_) {
    leases_.remove_listener(*this);
    listening_to_leases_ = false;
  }
  co_return false;
}

// -------------------------------------------------------------------------------------------------------------
// face

Server::Server(asio::io_context& io, lease::LeaseService& leases, const Clock& clock, Sources sources,
               ServerOptions options)
    : impl_{std::make_shared<Impl>(io, leases, clock, std::move(sources), std::move(options))} {}

Server::~Server() { impl_->stop(); }

bool Server::start(std::string& why) { return impl_->start(why); }

}  // namespace sallyport::admin
