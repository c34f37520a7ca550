// Asks a gateway for port mappings by UPnP (WANIPConnection over SOAP), from many source addresses, a fixed
// number of requests in flight, checks every answer and prints one JSON object: rate and latency percentiles.
// The leases are those of bench_load: lease i is port port_of(i) of source i % sources, UDP for even i and
// TCP for odd i, inside and outside the same; so what one of the two made the other can end.
//
// One thread and one epoll. A latency is what a device waits: from the decision to ask, through the
// connection when one has to be made, to the last octet of the answer. With --connections keep a source asks
// again on the connection it has, as long as the gateway leaves it open; how many were opened is printed.
//
// Beside the load it can hold connections that say nothing (--idle) and such that send one octet of a request
// a second (--slow), from addresses of their own. What the gateway closes is offered again a second later.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
using std::string;
using std::string_view;

struct Options {
  in_addr server{};
  std::uint16_t port = 5000;
  string control = "/";
  string service = "urn:schemas-upnp-org:service:WANIPConnection:1";
  in_addr first_source{};
  std::uint32_t sources = 128;
  string op = "add";
  bool keep = false;
  std::uint32_t first = 0;
  std::uint32_t count = 1000;
  std::uint32_t in_flight = 64;
  std::uint32_t lease = 7200;
  std::chrono::milliseconds timeout{5000};
  std::uint32_t tries = 6;
  double max_seconds = 0;  // 0: no limit
  std::uint32_t idle = 0;
  std::uint32_t slow = 0;
  in_addr idle_source{};
  std::uint32_t idle_sources = 125;
  in_addr slow_source{};
  std::uint32_t slow_sources = 25;
};

[[noreturn]] void usage(const char* why) {
  std::fprintf(
      stderr,
      "bench_upnp: %s\n"
      "bench_upnp --server A [--port N] --control PATH --service TYPE --first-source A [--sources N]\n"
      "  [--op add|delete|list|range|status] [--connections close|keep] [--first I] [--count N]\n"
      "  [--in-flight K] [--lease S] [--timeout-ms N] [--tries N] [--max-seconds S]\n"
      "  [--idle N --idle-source A --idle-sources N] [--slow N --slow-source A --slow-sources N]\n",
      why);
  std::exit(2);
}

Options parse(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; i += 2) {
    const string_view key = argv[i];
    if (i + 1 >= argc) usage("an option lacks its value");
    const char* value = argv[i + 1];
    const auto number = [&] { return static_cast<std::uint32_t>(std::strtoul(value, nullptr, 10)); };
    const auto address = [&] {
      in_addr out{};
      if (inet_pton(AF_INET, value, &out) != 1) usage("not an IPv4 address");
      return out;
    };
    if (key == "--server")
      o.server = address();
    else if (key == "--port")
      o.port = static_cast<std::uint16_t>(number());
    else if (key == "--control")
      o.control = value;
    else if (key == "--service")
      o.service = value;
    else if (key == "--first-source")
      o.first_source = address();
    else if (key == "--sources")
      o.sources = number();
    else if (key == "--op")
      o.op = value;
    else if (key == "--connections")
      o.keep = string_view{value} == "keep";
    else if (key == "--first")
      o.first = number();
    else if (key == "--count")
      o.count = number();
    else if (key == "--in-flight")
      o.in_flight = number();
    else if (key == "--lease")
      o.lease = number();
    else if (key == "--timeout-ms")
      o.timeout = std::chrono::milliseconds{number()};
    else if (key == "--tries")
      o.tries = number();
    else if (key == "--max-seconds")
      o.max_seconds = std::strtod(value, nullptr);
    else if (key == "--idle")
      o.idle = number();
    else if (key == "--slow")
      o.slow = number();
    else if (key == "--idle-source")
      o.idle_source = address();
    else if (key == "--idle-sources")
      o.idle_sources = number();
    else if (key == "--slow-source")
      o.slow_source = address();
    else if (key == "--slow-sources")
      o.slow_sources = number();
    else
      usage("unknown option");
  }
  if (o.server.s_addr == 0 || o.first_source.s_addr == 0) usage("--server and --first-source are needed");
  if (o.sources == 0 || o.in_flight == 0 || o.tries == 0 || o.idle_sources == 0 || o.slow_sources == 0)
    usage("a number is 0");
  if (o.op == "list") o.in_flight = 1;  // entry n + 1 is asked for when entry n is there
  return o;
}

/// Distinct ports from 1024 up, without those a gateway uses itself: the same as bench_load's.
std::vector<std::uint16_t> make_ports() {
  std::vector<std::uint16_t> ports;
  for (std::uint32_t p = 1024; p < 65000; ++p)
    if (p != 1900 && p != 5000 && p != 5350 && p != 5351) ports.push_back(static_cast<std::uint16_t>(p));
  return ports;
}

string text_of(in_addr address) {
  std::array<char, INET_ADDRSTRLEN> out{};
  inet_ntop(AF_INET, &address, out.data(), out.size());
  return out.data();
}

in_addr after(in_addr first, std::uint32_t n) { return in_addr{htonl(ntohl(first.s_addr) + n)}; }

/// The text between <name> and </name>, whatever the prefix; empty when there is no such element.
string element(string_view body, string_view name) {
  for (std::size_t at = 0; (at = body.find(name, at)) != string_view::npos; at += name.size()) {
    const std::size_t begin = at + name.size() + 1;
    if (begin > body.size() || body[begin - 1] != '>') continue;
    return string{body.substr(begin, body.find('<', begin) - begin)};
  }
  return {};
}

/// Collects one HTTP answer from whatever pieces it comes in.
class Answer {
 public:
  /// False when it cannot be an answer.
  bool take(string_view piece) {
    raw_ += piece;
    if (body_at_ == 0) {
      const auto end = raw_.find("\r\n\r\n");
      if (end == string::npos) return raw_.size() < 65536;
      if (!read_head(string_view{raw_}.substr(0, end + 2))) return false;
      body_at_ = next_ = end + 4;
    }
    if (chunked_) return take_chunks();
    if (length_) complete_ = raw_.size() >= body_at_ + *length_;
    if (complete_) body_ = raw_.substr(body_at_, *length_);
    return true;
  }
  /// The other side has closed.
  void end() {
    if (body_at_ == 0 || chunked_ || length_) return;
    body_ = raw_.substr(body_at_);
    complete_ = true;
  }
  bool begun() const { return !raw_.empty(); }
  bool complete() const { return complete_; }
  bool closes() const { return closes_; }
  int status() const { return status_; }
  const string& body() const { return body_; }

 private:
  bool read_head(string_view head) {
    if (head.size() < 12 || head.substr(0, 7) != "HTTP/1.") return false;
    status_ = std::atoi(string{head.substr(9, 3)}.c_str());
    closes_ = head[7] == '0';
    for (auto at = head.find("\r\n"); at != string_view::npos && at + 2 < head.size();) {
      const auto next = head.find("\r\n", at + 2);
      string line{head.substr(at + 2, next - at - 2)};
      std::transform(line.begin(), line.end(), line.begin(), [](unsigned char c) { return std::tolower(c); });
      if (line.rfind("content-length:", 0) == 0) length_ = std::strtoul(line.c_str() + 15, nullptr, 10);
      if (line.rfind("transfer-encoding:", 0) == 0) chunked_ = line.find("chunked") != string::npos;
      if (line.rfind("connection:", 0) == 0 && line.find("close") != string::npos) closes_ = true;
      at = next;
    }
    return true;
  }
  bool take_chunks() {
    for (;;) {
      const auto line_end = raw_.find("\r\n", next_);
      if (line_end == string::npos) return true;
      const std::size_t size = std::strtoul(raw_.c_str() + next_, nullptr, 16);
      if (raw_.size() < line_end + 2 + size + 2) return true;
      body_.append(raw_, line_end + 2, size);
      next_ = line_end + 2 + size + 2;
      if (size == 0) return complete_ = true;
    }
  }

  string raw_, body_;
  std::size_t body_at_ = 0, next_ = 0;
  std::optional<std::size_t> length_;
  bool chunked_ = false, complete_ = false, closes_ = false;
  int status_ = 0;
};

struct Request {
  std::uint32_t index = 0;
  std::uint32_t tries = 0;
  Clock::time_point began;
  Clock::time_point not_before;
};

enum class Kind { load, idle, slow };

struct Connection {
  Kind kind = Kind::load;
  int fd = -1;
  std::uint32_t source = 0;
  bool connected = false, busy = false, used_before = false, gone = false;
  Request request;
  string out;
  std::size_t sent = 0;
  Answer answer;
  Clock::time_point since;  // of this try; of a bystander, when it does its next thing
};

class Load {
 public:
  explicit Load(const Options& options) : o_{options}, ports_{make_ports()}, resting_(options.sources) {
    if (o_.first + o_.count > ports_.size()) usage("--first + --count is more than there are ports");
    const rlimit many{16384, 16384};
    ::setrlimit(RLIMIT_NOFILE, &many);
    poll_ = ::epoll_create1(EPOLL_CLOEXEC);
    server_.sin_family = AF_INET;
    server_.sin_port = htons(o_.port);
    server_.sin_addr = o_.server;
    latencies_.reserve(o_.count);
  }

  int run() {
    offer_bystanders();
    idle_at_start_ = bystanders(Kind::idle);
    slow_at_start_ = bystanders(Kind::slow);

    began_ = last_answer_ = Clock::now();
    next_ = o_.first;
    for (;;) {
      const auto now = Clock::now();
      if (o_.max_seconds > 0 && std::chrono::duration<double>(now - began_).count() > o_.max_seconds)
        stopped_ = true;
      start_what_can(now);
      if (busy_ == 0 && again_.empty() && (stopped_ || next_ >= o_.first + o_.count)) break;
      turn(5);
    }
    return report();
  }

 private:
  // -- what is asked

  in_addr source_of(std::uint32_t source) const { return after(o_.first_source, source); }
  std::uint32_t source_for(std::uint32_t index) const {
    return o_.op == "list" || o_.op == "range" ? 0 : index % o_.sources;
  }

  string encode(const Request& request) const {
    const std::uint32_t i = request.index;
    const string port = std::to_string(ports_[i]);
    const string protocol = i % 2 == 1 ? "TCP" : "UDP";
    string action;
    string args;
    const auto arg = [&](const char* name, const string& value) {
      args.append("<").append(name).append(">").append(value).append("</").append(name).append(">");
    };
    if (o_.op == "add" || o_.op == "delete") {
      action = o_.op == "add" ? "AddPortMapping" : "DeletePortMapping";
      arg("NewRemoteHost", "");
      arg("NewExternalPort", port);
      arg("NewProtocol", protocol);
      if (o_.op == "add") {
        arg("NewInternalPort", port);
        arg("NewInternalClient", text_of(source_of(source_for(i))));
        arg("NewEnabled", "1");
        arg("NewPortMappingDescription", "bench_upnp");
        arg("NewLeaseDuration", std::to_string(o_.lease));
      }
    } else if (o_.op == "list") {
      action = "GetGenericPortMappingEntry";
      arg("NewPortMappingIndex", std::to_string(i));
    } else if (o_.op == "range") {
      action = "GetListOfPortMappings";
      arg("NewStartPort", "0");
      arg("NewEndPort", "65535");
      arg("NewProtocol", protocol);
      arg("NewManage", "1");
      arg("NewNumberOfPorts", "0");
    } else if (o_.op == "status") {
      action = "GetExternalIPAddress";
    } else {
      usage("unknown --op");
    }
    const string body =
        "<?xml version=\"1.0\"?>\r\n<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" "
        "s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body><u:" +
        action + " xmlns:u=\"" + o_.service + "\">" + args + "</u:" + action + "></s:Body></s:Envelope>\r\n";
    return "POST " + o_.control + " HTTP/1.1\r\nHost: " + text_of(o_.server) + ":" + std::to_string(o_.port) +
           "\r\nContent-Type: text/xml; charset=\"utf-8\"\r\nSOAPAction: \"" + o_.service + "#" + action +
           "\"\r\nConnection: " + (o_.keep ? "keep-alive" : "close") +
           "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
  }

  void judge(Connection& c) {
    const auto now = Clock::now();
    const string& body = c.answer.body();
    const string fault = c.answer.status() == 500 ? element(body, "errorCode") : string{};
    if (o_.op == "list" && fault == "713") {  // one past the last: how a list ends
      stopped_ = true;
      return;
    }
    last_answer_ = now;
    latencies_.push_back(
        static_cast<float>(std::chrono::duration<double, std::micro>(now - c.request.began).count()));
    octets_ += body.size();
    if (!fault.empty()) {
      ++refused_[fault];
    } else if (c.answer.status() != 200) {
      ++refused_["HTTP " + std::to_string(c.answer.status())];
    } else if (body.find("Response") == string::npos) {
      ++strange_;
    } else {
      ++ok_;
      if (o_.op == "list") {
        const string port = element(body, "NewExternalPort");
        const string protocol = element(body, "NewProtocol");
        if (port.empty() || protocol.empty())
          ++strange_;
        else
          entries_.insert(protocol + port);
      } else if (o_.op == "range") {  // each row names it twice, at its beginning and its end
        for (std::size_t at = 0; (at = body.find("NewExternalPort", at)) != string::npos; at += 15)
          ++row_marks_;
      }
    }
  }

  // -- connections

  /// 200 a second, so that they are accepted and do not only wait in the kernel's queue for a gateway to do
  /// it.
  void offer_bystanders() {
    for (std::uint32_t k = 0; k < o_.idle + o_.slow; ++k) {
      if (k < o_.idle)
        open(Kind::idle, k % o_.idle_sources);
      else
        open(Kind::slow, (k - o_.idle) % o_.slow_sources);
      if (k % 4 == 3) settle(std::chrono::milliseconds{20});
    }
    if (o_.idle + o_.slow > 0) settle(std::chrono::seconds{1});
  }

  void settle(Clock::duration wait) {
    for (const auto until = Clock::now() + wait; Clock::now() < until;) turn(5);
  }

  void start_what_can(Clock::time_point now) {
    for (std::size_t k = again_.size(); k-- > 0;) {
      if (again_[k].not_before > now || busy_ >= o_.in_flight) continue;
      const Request request = again_[k];
      again_.erase(again_.begin() + static_cast<std::ptrdiff_t>(k));
      ask(request);
    }
    while (busy_ + again_.size() < o_.in_flight && !stopped_ && next_ < o_.first + o_.count) {
      Request request;
      request.index = next_++;
      request.began = now;
      ask(request);
    }
  }

  void ask(Request request) {
    const std::uint32_t source = source_for(request.index);
    Connection* c = nullptr;
    auto& resting = resting_[source];
    while (!resting.empty() && !c) {
      c = resting.back();
      resting.pop_back();
      if (c->gone) c = nullptr;
    }
    if (!c) c = open(Kind::load, source);
    ++busy_;
    ++request.tries;
    c->busy = true;
    c->request = request;
    c->answer = {};
    c->out = encode(request);
    c->sent = 0;
    c->since = Clock::now();
    if (c->connected) send_some(*c);
  }

  Connection* open(Kind kind, std::uint32_t source) {
    all_.push_back(std::make_unique<Connection>());
    Connection* c = all_.back().get();
    c->kind = kind;
    c->source = source;
    c->since = Clock::now();
    c->fd = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) fail("socket");
    const int one = 1;
    ::setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    ::setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    sockaddr_in own{};
    own.sin_family = AF_INET;
    own.sin_addr = kind == Kind::load   ? source_of(source)
                   : kind == Kind::idle ? after(o_.idle_source, source)
                                        : after(o_.slow_source, source);
    if (::bind(c->fd, reinterpret_cast<const sockaddr*>(&own), sizeof own) != 0) fail("bind");
    epoll_event event{};
    event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
    event.data.ptr = c;
    ::epoll_ctl(poll_, EPOLL_CTL_ADD, c->fd, &event);
    if (kind == Kind::load) ++opened_;
    if (::connect(c->fd, reinterpret_cast<const sockaddr*>(&server_), sizeof server_) != 0 &&
        errno != EINPROGRESS)
      fail("connect");
    return c;
  }

  void close(Connection& c) {
    if (c.gone) return;
    ::close(c.fd);
    c.gone = true;
    any_gone_ = true;
  }

  /// The gateway closed, refused or reset it while we wanted something of it.
  void closed_early(Connection& c) {
    const bool was_busy = c.busy && c.kind == Kind::load;
    close(c);
    c.busy = false;
    if (c.kind != Kind::load) {
      ++bystanders_closed_;
      reoffer_.push_back({c.kind, c.source, Clock::now() + std::chrono::seconds{1}});
      return;
    }
    if (!was_busy) return;
    --busy_;
    Request request = c.request;
    if (c.used_before && !c.answer.begun()) {
      --request.tries;  // it closed a connection at rest just as we asked again: that is not a lost request
    } else if (request.tries >= o_.tries) {
      ++lost_;
      return;
    } else {
      ++retried_;
    }
    request.not_before = Clock::now() + std::chrono::milliseconds{c.used_before ? 0 : 20};
    again_.push_back(request);
  }

  void send_some(Connection& c) {
    while (c.sent < c.out.size()) {
      const auto n = ::send(c.fd, c.out.data() + c.sent, c.out.size() - c.sent, MSG_NOSIGNAL);
      if (n > 0) {
        c.sent += static_cast<std::size_t>(n);
      } else if (errno == EAGAIN || errno == EINTR) {
        return;
      } else {
        return closed_early(c);
      }
    }
  }

  void receive(Connection& c) {
    static std::array<char, 1 << 17> buffer;
    for (;;) {
      const auto n = ::recv(c.fd, buffer.data(), buffer.size(), 0);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0 && errno == EAGAIN) return;
      if (n <= 0) {
        if (n == 0 && c.busy) c.answer.end();
        if (c.busy && c.answer.complete()) return finish(c, true);
        return closed_early(c);
      }
      if (c.kind != Kind::load) continue;  // a refusal before it is closed
      if (!c.busy) {
        ++strange_;
        return close(c);
      }
      if (!c.answer.take({buffer.data(), static_cast<std::size_t>(n)})) {
        ++strange_;
        return closed_early(c);
      }
      if (c.answer.complete()) return finish(c, false);
    }
  }

  void finish(Connection& c, bool ended) {
    judge(c);
    c.busy = false;
    --busy_;
    c.used_before = true;
    if (ended || !o_.keep || c.answer.closes()) return close(c);
    resting_[c.source].push_back(&c);
  }

  void turn(int wait_ms) {
    std::array<epoll_event, 256> events;
    const int n = ::epoll_wait(poll_, events.data(), static_cast<int>(events.size()), wait_ms);
    for (int k = 0; k < n; ++k) {
      auto& c = *static_cast<Connection*>(events[k].data.ptr);
      if (c.gone) continue;
      if (!c.connected && (events[k].events & (EPOLLERR | EPOLLHUP)) != 0) {
        closed_early(c);
        continue;
      }
      if ((events[k].events & EPOLLOUT) != 0) {
        c.connected = true;
        if (c.busy) send_some(c);
      }
      if (!c.gone && (events[k].events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) receive(c);
    }
    const auto now = Clock::now();
    if (now - last_check_ >= std::chrono::milliseconds{20}) check(now);
  }

  void check(Clock::time_point now) {
    static constexpr string_view trickle = "POST / HTTP/1.1\r\nX-Slow: ";
    last_check_ = now;
    for (std::size_t k = 0; k < all_.size(); ++k) {
      Connection& c = *all_[k];
      if (c.gone) continue;
      if (c.kind == Kind::load && c.busy && now - c.since > o_.timeout) {
        c.used_before = false;
        closed_early(c);
      } else if (c.kind == Kind::slow && c.connected && now - c.since >= std::chrono::seconds{1}) {
        c.since = now;
        const char octet = c.sent < trickle.size() ? trickle[c.sent] : 'x';
        if (::send(c.fd, &octet, 1, MSG_NOSIGNAL) == 1) ++c.sent;
      }
    }
    for (std::size_t k = reoffer_.size(); k-- > 0;) {
      if (reoffer_[k].when > now) continue;
      const auto again = reoffer_[k];
      reoffer_.erase(reoffer_.begin() + static_cast<std::ptrdiff_t>(k));
      open(again.kind, again.source);
    }
    if (!any_gone_) return;
    // only here, between two rounds of events: none of the pointers epoll gave us is still to be looked at
    for (auto& resting : resting_)
      resting.erase(
          std::remove_if(resting.begin(), resting.end(), [](const Connection* c) { return c->gone; }),
          resting.end());
    all_.erase(std::remove_if(all_.begin(), all_.end(), [](const auto& c) { return c->gone; }), all_.end());
    any_gone_ = false;
  }

  std::uint32_t bystanders(Kind kind) const {
    return static_cast<std::uint32_t>(std::count_if(all_.begin(), all_.end(), [&](const auto& c) {
      return c->kind == kind && c->connected && !c->gone;
    }));
  }

  [[noreturn]] static void fail(const char* what) {
    std::fprintf(stderr, "bench_upnp: %s: %s\n", what, std::strerror(errno));
    std::exit(1);
  }

  int report() {
    const double seconds = std::chrono::duration<double>(last_answer_ - began_).count();
    std::sort(latencies_.begin(), latencies_.end());
    const auto at = [&](double q) -> double {
      if (latencies_.empty()) return 0;
      return latencies_[std::min(latencies_.size() - 1,
                                 static_cast<std::size_t>(q * static_cast<double>(latencies_.size())))];
    };
    string refused;
    for (const auto& [code, n] : refused_)
      refused += (refused.empty() ? "\"" : ",\"") + code + "\":" + std::to_string(n);
    std::printf(
        "{\"op\":\"%s\",\"protocol\":\"upnp\",\"first\":%u,\"next\":%u,\"in_flight\":%u,\"ok\":%llu,"
        "\"refused\":{%s},"
        "\"lost\":%llu,\"retransmitted\":%llu,\"late\":0,\"strange\":%llu,\"other_port\":0,\"opened\":%llu,"
        "\"entries\":%zu,\"rows\":%llu,\"octets\":%llu,\"idle\":%u,\"slow\":%u,\"bystanders_closed\":%llu,"
        "\"seconds\":%.6f,\"rate\":%.1f,\"p50_us\":%.1f,\"p90_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f}\n",
        o_.op.c_str(), o_.first, next_, o_.in_flight, ok_, refused.c_str(), lost_, retried_, strange_,
        opened_, entries_.size(), row_marks_ / 2, octets_, idle_at_start_, slow_at_start_, bystanders_closed_,
        seconds, seconds > 0 ? static_cast<double>(ok_) / seconds : 0, at(0.5), at(0.9), at(0.99),
        latencies_.empty() ? 0.0 : static_cast<double>(latencies_.back()));
    return lost_ == 0 && refused_.empty() && strange_ == 0 ? 0 : 1;
  }

  struct Reoffer {
    Kind kind;
    std::uint32_t source;
    Clock::time_point when;
  };

  Options o_;
  std::vector<std::uint16_t> ports_;
  std::vector<std::vector<Connection*>> resting_;  // by source: open and not asked anything now
  std::vector<std::unique_ptr<Connection>> all_;
  std::vector<Request> again_;
  std::vector<Reoffer> reoffer_;
  sockaddr_in server_{};
  int poll_ = -1;
  std::uint32_t next_ = 0, busy_ = 0;
  bool stopped_ = false, any_gone_ = false;
  Clock::time_point began_, last_answer_, last_check_;
  std::vector<float> latencies_;
  std::map<string, std::uint64_t> refused_;
  std::unordered_set<string> entries_;
  std::uint32_t idle_at_start_ = 0, slow_at_start_ = 0;
  unsigned long long ok_ = 0, lost_ = 0, retried_ = 0, strange_ = 0, opened_ = 0, row_marks_ = 0, octets_ = 0,
                     bystanders_closed_ = 0;
};

}  // namespace

int main(int argc, char** argv) { return Load{parse(argc, argv)}.run(); }
