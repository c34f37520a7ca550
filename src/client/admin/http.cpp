#include "src/client/admin/http.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <optional>

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

namespace sallyport::admin::http {
namespace {

Failure unreachable(std::string message) { return {Failure::Kind::unreachable, std::move(message)}; }

class Connection {
 public:
  explicit Connection(int fd) : fd_{fd} {}
  ~Connection() {
    if (fd_ >= 0) ::close(fd_);
  }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  bool send(std::string_view text) const {
    while (!text.empty()) {
      const auto sent = ::send(fd_, text.data(), text.size(), MSG_NOSIGNAL);
      if (sent < 0 && errno == EINTR) continue;
      if (sent <= 0) return false;
      text.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
  }
  /// False at the end and on an error; errno is 0 at the end.
  bool fill() {
    if (at_ > 0) {
      buffer_.erase(0, at_);
      at_ = 0;
    }
    std::array<char, 64 * 1024> room;
    for (;;) {
      const auto got = ::recv(fd_, room.data(), room.size(), 0);
      if (got < 0 && errno == EINTR) continue;
      if (got == 0) errno = 0;
      if (got <= 0) return false;
      buffer_.append(room.data(), static_cast<std::size_t>(got));
      return true;
    }
  }
  std::string_view unread() const { return std::string_view{buffer_}.substr(at_); }
  void eat(std::size_t octets) { at_ += octets; }
  /// A line without its CRLF; empty optional when the peer went away or the line is too long.
  std::optional<std::string> line() {
    for (;;) {
      const auto end = unread().find('\n');
      if (end != std::string_view::npos) {
        std::string text{unread().substr(0, end)};
        eat(end + 1);
        if (text.ends_with('\r')) text.pop_back();
        return text;
      }
      if (unread().size() > 64 * 1024) return std::nullopt;
      if (!fill()) return std::nullopt;
    }
  }

 private:
  int fd_;
  std::string buffer_;
  std::size_t at_ = 0;
};

Failure gone() {
  if (errno == EAGAIN || errno == EWOULDBLOCK) return unreachable("the daemon does not answer");
  return unreachable("the daemon closed the connection");
}

/// Hands on `octets` of body; empty optional while all went well.
std::optional<Failure> pass(Connection& connection, std::uint64_t octets,
                            const std::function<bool(std::string_view)>& piece, bool& wanted) {
  while (octets > 0) {
    if (connection.unread().empty() && !connection.fill()) return gone();
    const auto part = connection.unread().substr(
        0, static_cast<std::size_t>(std::min<std::uint64_t>(octets, connection.unread().size())));
    wanted = piece(part);
    octets -= part.size();
    connection.eat(part.size());
    if (!wanted) return std::nullopt;
  }
  return std::nullopt;
}

std::string lower(std::string_view text) {
  std::string out{text};
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

}  // namespace

Answer<void> exchange(const std::string& socket, const Request& request,
                      const std::function<void(const Head&)>& head,
                      const std::function<bool(std::string_view)>& piece) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket.size() >= sizeof address.sun_path)
    return unreachable("the path " + socket + " is too long for a unix socket");
  std::memcpy(address.sun_path, socket.data(), socket.size());
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0)
    return Failure{Failure::Kind::failed, std::string{"no socket can be made: "} + std::strerror(errno)};
  Connection connection{fd};
  const timeval patience{request.patience.count(), 0};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  int connected = 0;
  do {
    connected = ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  } while (connected != 0 && errno == EINTR);
  if (connected != 0) {
    if (errno == EACCES || errno == EPERM)
      return Failure{Failure::Kind::not_permitted, "you may not use the socket " + socket};
    if (errno == EAGAIN) return unreachable("the daemon at " + socket + " does not answer");
    if (errno == ENOENT || errno == ECONNREFUSED) return unreachable("no daemon answers at " + socket);
    return unreachable("no daemon answers at " + socket + ": " + std::strerror(errno));
  }

  std::string text =
      request.method + " " + request.target + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
  if (!request.body.empty())
    text +=
        "Content-Type: application/json\r\nContent-Length: " + std::to_string(request.body.size()) + "\r\n";
  text += "\r\n" + request.body;
  // a daemon that refuses early closes while we still write: what it answered is read all the same
  connection.send(text);

  const auto first = connection.line();
  if (!first) return gone();
  Head answer;
  if (!first->starts_with("HTTP/1.") || first->size() < 12 ||
      std::from_chars(first->data() + 9, first->data() + 12, answer.status).ec != std::errc{})
    return unreachable("what answers at " + socket + " is not sallyportd");
  bool chunked = false;
  std::optional<std::uint64_t> length;
  for (;;) {
    const auto field = connection.line();
    if (!field) return gone();
    if (field->empty()) break;
    const auto colon = field->find(':');
    if (colon == field->npos) continue;
    const auto name = lower(std::string_view{*field}.substr(0, colon));
    auto value = std::string_view{*field}.substr(colon + 1);
    while (value.starts_with(' ')) value.remove_prefix(1);
    if (name == "transfer-encoding") chunked = lower(value) == "chunked";
    if (name == "content-length") {
      std::uint64_t octets = 0;
      if (std::from_chars(value.data(), value.data() + value.size(), octets).ec == std::errc{})
        length = octets;
    }
  }
  head(answer);

  bool wanted = true;
  if (!chunked) {
    if (length) {
      if (auto failure = pass(connection, *length, piece, wanted)) return *failure;
      return {};
    }
    for (;;) {
      if (!connection.unread().empty()) {
        const auto size = connection.unread().size();
        if (!piece(connection.unread())) return {};
        connection.eat(size);
      }
      if (!connection.fill()) {
        if (errno == 0) return {};
        return gone();
      }
    }
  }
  for (;;) {
    const auto size_line = connection.line();
    if (!size_line) return gone();
    std::uint64_t size = 0;
    if (std::from_chars(size_line->data(), size_line->data() + size_line->size(), size, 16).ec != std::errc{})
      return unreachable("what answers at " + socket + " is not sallyportd");
    if (size == 0) return {};
    if (auto failure = pass(connection, size, piece, wanted)) return *failure;
    if (!wanted) return {};
    if (!connection.line()) return gone();
  }
}

}  // namespace sallyport::admin::http
