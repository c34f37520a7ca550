#include "src/transport/http_service.hpp"

#include <net/if.h>
#include <netinet/tcp.h>
#include <sys/resource.h>

#include <atomic>
#include <fstream>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>

#include "src/transport/netlink.hpp"
#include "tests/src/transport/namespaces.hpp"
#include "tests/support/manual_clock.hpp"

namespace sallyport::transport {
namespace {

using namespace std::chrono_literals;
using test::Namespace;
using upnp::http::Done;
using upnp::http::Request;
using upnp::http::Response;

constexpr std::uint16_t port = 5000;
/// Long enough for a busy machine; no test waits for it when all is well.
constexpr int patience = 15000;

/// A TCP client of a host.
class Client {
 public:
  Client() = default;
  Client(const Namespace& host, const std::string& to, const std::string& from = "", int receive_buffer = 0,
         int connect_time = patience) {
    host.inside([&] { descriptor_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0); });
    const int one = 1;
    ::setsockopt(descriptor_, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (receive_buffer > 0)
      ::setsockopt(descriptor_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    if (!from.empty()) {
      const auto mine = address(from, 0);
      ::bind(descriptor_, reinterpret_cast<const sockaddr*>(&mine), sizeof mine);
    }
    const auto there = address(to, port);
    if (::connect(descriptor_, reinterpret_cast<const sockaddr*>(&there), sizeof there) != 0 &&
        errno != EINPROGRESS)
      return;
    pollfd wait{descriptor_, POLLOUT, 0};
    if (::poll(&wait, 1, connect_time) != 1) return;
    int error = 0;
    socklen_t size = sizeof error;
    ::getsockopt(descriptor_, SOL_SOCKET, SO_ERROR, &error, &size);
    connected_ = error == 0;
    refused_ = error != 0;
  }
  Client(Client&& other) noexcept
      : descriptor_{std::exchange(other.descriptor_, -1)}, connected_{other.connected_}, got_{other.got_} {}
  Client& operator=(Client&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    std::swap(connected_, other.connected_);
    std::swap(got_, other.got_);
    return *this;
  }
  ~Client() { hang_up(); }
  void hang_up() {
    if (descriptor_ >= 0) ::close(std::exchange(descriptor_, -1));
  }

  bool connected() const { return connected_; }
  bool refused() const { return refused_; }
  int descriptor() const { return descriptor_; }
  /// False when the peer is gone before all is written.
  bool send(std::string_view octets) {
    while (!octets.empty()) {
      const auto sent = ::send(descriptor_, octets.data(), octets.size(), MSG_NOSIGNAL);
      if (sent > 0) {
        octets.remove_prefix(static_cast<std::size_t>(sent));
      } else if (errno == EAGAIN) {
        pollfd wait{descriptor_, POLLOUT, 0};
        if (::poll(&wait, 1, patience) != 1) return false;
      } else {
        return false;
      }
    }
    return true;
  }
  void finish() { ::shutdown(descriptor_, SHUT_WR); }
  /// True when something came; false at the end, a reset, or when nothing comes.
  bool more(int milliseconds = patience) {
    pollfd wait{descriptor_, POLLIN, 0};
    if (::poll(&wait, 1, milliseconds) != 1) return false;
    std::array<char, 65536> buffer;
    const auto size = ::recv(descriptor_, buffer.data(), buffer.size(), 0);
    if (size <= 0) {
      ended_ = true;
      reset_ = size < 0;
      return false;
    }
    got_.append(buffer.data(), static_cast<std::size_t>(size));
    return true;
  }
  /// Head and body of one answer; a body of a HEAD answer must be announced as none.
  std::string answer(bool head_only = false) {
    std::size_t end = 0;
    while ((end = got_.find("\r\n\r\n")) == std::string::npos)
      if (!more()) return std::exchange(got_, {});
    end += 4;
    const auto length = got_.substr(0, end).find("CONTENT-LENGTH: ");
    if (length != std::string::npos && !head_only) end += std::stoul(got_.substr(length + 16));
    while (got_.size() < end)
      if (!more()) break;
    auto text = got_.substr(0, end);
    got_.erase(0, end);
    return text;
  }
  /// All until the peer ends; empty optional when it does not.
  std::optional<std::string> rest() {
    while (more()) {
    }
    return ended_ ? std::optional{std::exchange(got_, {})} : std::nullopt;
  }
  bool ends() {
    while (more()) {
    }
    return ended_;
  }
  bool was_reset() const { return reset_; }
  bool silent(int milliseconds) { return !more(milliseconds) && !ended_; }

 private:
  static sockaddr_in address(const std::string& text, std::uint16_t number) {
    sockaddr_in result{};
    result.sin_family = AF_INET;
    result.sin_port = htons(number);
    ::inet_pton(AF_INET, text.c_str(), &result.sin_addr);
    return result;
  }
  int descriptor_ = -1;
  bool connected_ = false;
  bool refused_ = false;
  bool ended_ = false;
  bool reset_ = false;
  std::string got_;
};

/// So many pieces of equal octets.
class Pieces final : public upnp::http::BodySource {
 public:
  Pieces(int count, std::size_t size, std::atomic<int>* asked = nullptr)
      : left_{count}, size_{size}, asked_{asked} {}
  std::string next() override {
    if (asked_ != nullptr) ++*asked_;
    return left_-- > 0 ? std::string(size_, 'p') : std::string{};
  }

 private:
  int left_;
  std::size_t size_;
  std::atomic<int>* asked_;
};

std::string get(const std::string& path, const std::string& more = "") {
  return "GET " + path + " HTTP/1.1\r\nHOST: 192.168.1.1:5000\r\n" + more + "\r\n";
}

/// A gateway that serves lan0 (192.168.1.1/16) and not lan1 nor wan0. Alice has each address of
/// 192.168.8.0/21.
class HttpServiceTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const auto why_not = test::no_namespaces()) GTEST_SKIP() << *why_not;
    ASSERT_TRUE(gateway.connect("lan0", alice, "eth0"));
    ASSERT_TRUE(gateway.connect("lan1", guest, "eth0"));
    ASSERT_TRUE(gateway.connect("wan0", stranger, "eth0"));
    gateway.ip("addr add 192.168.1.1/16 brd + dev lan0");
    gateway.ip("addr add 10.0.0.1/24 brd + dev lan1");
    gateway.ip("addr add 203.0.113.1/24 brd + dev wan0");
    alice.ip("addr add 192.168.1.2/16 brd + dev eth0");
    alice.ip("addr add 192.168.1.3/16 brd + dev eth0");
    alice.ip("addr add 172.16.0.2/24 dev eth0");
    alice.ip("route add local 192.168.8.0/21 dev eth0");
    gateway.ip("route add 172.16.0.0/24 via 192.168.1.2");
    gateway.ip("route add 192.168.8.0/21 via 192.168.1.2");  // one neighbour, not a thousand
    guest.ip("addr add 10.0.0.2/24 brd + dev eth0");
    stranger.ip("addr add 203.0.113.2/24 brd + dev eth0");
    guest.ip("route add default via 10.0.0.1");
    stranger.ip("route add default via 203.0.113.1");
    open();
  }
  void TearDown() override { close(); }

  virtual HttpService::Options options() {
    HttpService::Options result;
    result.port = port;
    result.server = "Linux/6 UPnP/1.1 Sallyport/0.1";
    result.limit.per_second = 0;
    return result;
  }
  void open() {
    gateway.inside([&] {
      io.restart();
      watcher = std::move(*NetworkWatcher::open(io.get_executor()));
      service = std::make_unique<HttpService>(
          io, [this](const Request& request, Done done) { handle(request, std::move(done)); }, clock, options());
      ASSERT_TRUE(serve({"lan0"})) << why;
    });
    loop = std::thread{[this] { io.run(); }};
  }
  void close() {
    if (!loop.joinable()) return;
    control([this] {
      service.reset();
      late.clear();
    });
    work.reset();
    io.stop();
    loop.join();
    watcher.reset();
  }
  bool serve(std::vector<std::string> lan) {
    watcher->refresh();
    const auto view = build_view(watcher->state(), {lan, {"wan0"}, {Prefix::v4(0xc0a80000, 16)}, {}, {}});
    return service->serve(view.lan, own_addresses(watcher->state()), why);
  }
  /// Runs on the control thread, in the gateway's namespace where `there`, and waits.
  void control(const std::function<void()>& what) {
    std::atomic<bool> done{false};
    boost::asio::post(io, [&] {
      what();
      done = true;
      done.notify_all();
    });
    done.wait(false);
  }
  void pass(std::chrono::nanoseconds time) {
    control([&] { clock.advance(time); });
  }
  HttpService::Counts counts() {
    HttpService::Counts result;
    control([&] { result = service->counts(); });
    return result;
  }
  std::size_t connections() {
    std::size_t result = 0;
    control([&] { result = service->open_connections(); });
    return result;
  }
  template <class Condition>
  bool comes_true(Condition condition) {
    for (int i = 0; i < patience / 10; ++i) {
      if (condition()) return true;
      std::this_thread::sleep_for(10ms);
    }
    return false;
  }
  std::string ask(const Namespace& host, const std::string& from = "") {
    Client client{host, "192.168.1.1", from};
    client.send(get("/echo", "Connection: close\r\n"));
    return client.rest().value_or("no end");
  }

  virtual void handle(const Request& request, Done done) {
    if (request.target == "/late") return late.push_back(std::move(done));
    if (request.target == "/slow") {
      clock.advance(10ms);
      if (slow++ == 0) boost::asio::post(io, [this] { slow_before_others = slow; });
    }
    Response response;
    if (request.target == "/list") {
      response.source = std::make_shared<Pieces>(3, 1000);
    } else if (request.target == "/long") {
      response.source = std::make_shared<Pieces>(2000, 16000, &pieces);
    } else if (request.target == "/big") {
      response.body = std::string(8 << 20, 'b');
    } else {
      response.fields.add("Content-Type", "text/plain");
      response.fields.add("EXT", "");
      response.body = request.method + " " + request.target + " " + request.body;
    }
    response.sent = [this] { ++sent; };
    last = request;
    order.push_back(request.peer);
    done(std::move(response));
  }

  Namespace gateway, alice, guest, stranger;
  boost::asio::io_context io;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work{io.get_executor()};
  test::ManualClock clock;
  std::unique_ptr<NetworkWatcher> watcher;
  std::unique_ptr<HttpService> service;
  std::vector<Done> late;
  std::vector<Address> order;
  Request last;
  std::atomic<int> sent{0};
  std::atomic<int> pieces{0};
  int slow = 0;
  int slow_before_others = 0;
  std::string why;
  std::thread loop;
};

TEST_F(HttpServiceTest, AnswersAsUpnpWritesIt) {
  Client client{alice, "192.168.1.1", "192.168.1.2"};
  ASSERT_TRUE(client.send(get("/x")));
  EXPECT_EQ(client.answer(),
            "HTTP/1.1 200 OK\r\nCONTENT-TYPE: text/plain\r\nEXT:\r\nSERVER: Linux/6 UPnP/1.1 Sallyport/0.1\r\n"
            "DATE: Sun, 01 Mar 2026 00:00:00 GMT\r\nCONTENT-LENGTH: 7\r\n\r\nGET /x ");
  control([&] {
    EXPECT_EQ(last.peer, Address::v4(0xc0a80102));
    EXPECT_EQ(last.local, Address::v4(0xc0a80101));
    EXPECT_NE(last.peer_port, 0);
    EXPECT_NE(last.interface, 0u);
  });
  EXPECT_EQ(sent, 1);
}

// HTTP-08, HTTP-03
TEST_F(HttpServiceTest, KeepsAndEndsConnectionsAsTheClientSays) {
  Client stays{alice, "192.168.1.1"};
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(stays.send(get("/x")));
    EXPECT_EQ(stays.answer().find("CONNECTION:"), std::string::npos);
  }
  ASSERT_TRUE(stays.send(get("/x", "connection: Close\r\n")));
  const auto last_answer = stays.rest();
  ASSERT_TRUE(last_answer);
  EXPECT_NE(last_answer->find("\r\nCONNECTION: close\r\n"), std::string::npos);
  EXPECT_FALSE(stays.was_reset());

  Client old{alice, "192.168.1.1"};
  old.send("GET /x HTTP/1.0\r\n\r\n");
  EXPECT_NE(old.rest().value_or("").find("\r\nCONNECTION: close\r\n"), std::string::npos);
  Client wishes{alice, "192.168.1.1"};
  wishes.send("GET /x HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
  EXPECT_NE(wishes.rest().value_or("").find("\r\nCONNECTION: close\r\n"), std::string::npos);
  Client half{alice, "192.168.1.1"};
  half.send(get("/x"));
  half.finish();
  EXPECT_NE(half.rest().value_or("").find("GET /x"), std::string::npos) << "who closed one half is still answered";
}

// HTTP-01
TEST_F(HttpServiceTest, AnswersHeadWithoutBody) {
  Client client{alice, "192.168.1.1"};
  client.send("HEAD /x HTTP/1.1\r\nHOST: a\r\n\r\nHEAD /list HTTP/1.1\r\nHOST: a\r\nConnection: close\r\n\r\n");
  EXPECT_NE(client.answer(true).find("CONTENT-LENGTH: 8\r\n"), std::string::npos);
  const auto second = client.rest().value_or("");
  EXPECT_TRUE(second.starts_with("HTTP/1.1 200 OK\r\n"));
  EXPECT_NE(second.find("TRANSFER-ENCODING: chunked\r\n"), std::string::npos);
  EXPECT_TRUE(second.ends_with("\r\n\r\n"));
}

// HTTP-15, POL-WEB-03
TEST_F(HttpServiceTest, TakesAnySegmentationAndPipelines) {
  const auto one = "POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" + get("/2");
  Client client{alice, "192.168.1.1"};
  for (const char octet : one) ASSERT_TRUE(client.send({&octet, 1}));
  EXPECT_TRUE(client.answer().ends_with("POST /p abc"));
  EXPECT_TRUE(client.answer().ends_with("GET /2 "));
  std::string many;
  for (int i = 0; i < 1000; ++i) many += get("/" + std::to_string(i));
  std::thread writer{[&] { client.send(many); }};
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE(client.answer().ends_with("GET /" + std::to_string(i) + " ")) << i;
  writer.join();
}

TEST_F(HttpServiceTest, ReadsNoRequestWhileAnAnswerIsOwed) {
  Client client{alice, "192.168.1.1"};
  client.send(get("/late") + get("/second"));
  ASSERT_TRUE(comes_true([&] { return counts().requests == 1; }));
  EXPECT_TRUE(client.silent(100));
  EXPECT_EQ(counts().requests, 1u);
  control([&] {
    late.at(0)({.status = 404});
    late.at(0)({.status = 500});  // a second call changes nothing
  });
  EXPECT_TRUE(client.answer().starts_with("HTTP/1.1 404 Not Found\r\n"));
  EXPECT_TRUE(client.answer().ends_with("GET /second "));
}

// POL-FAIR-05, HTTP-03
TEST_F(HttpServiceTest, StreamsLongBodies) {
  Client client{alice, "192.168.1.1"};
  client.send(get("/list") + get("/after", "Connection: close\r\n"));
  const auto text = client.rest().value_or("");
  const auto piece = "3e8\r\n" + std::string(1000, 'p') + "\r\n";
  EXPECT_NE(text.find("TRANSFER-ENCODING: chunked\r\n\r\n" + piece + piece + piece + "0\r\n\r\nHTTP/1.1 200"),
            std::string::npos);
  EXPECT_TRUE(text.ends_with("GET /after "));
  Client old{alice, "192.168.1.1"};
  old.send("GET /list HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  const auto plain = old.rest().value_or("");
  EXPECT_EQ(plain.find("TRANSFER-ENCODING"), std::string::npos);
  EXPECT_NE(plain.find("CONNECTION: close\r\n\r\n" + std::string(3000, 'p')), std::string::npos);
  Client whole{alice, "192.168.1.1"};
  whole.send(get("/long", "Connection: close\r\n"));
  EXPECT_GT(whole.rest().value_or("").size(), 2000u * 16000u);
  EXPECT_EQ(sent, 4);
}

// POL-WEB-02, POL-FAIR-05: who does not read holds one piece, others are answered, and after 30 s it is over
TEST_F(HttpServiceTest, IsNotHeldUpByClientsThatNeverRead) {
  Client deaf{alice, "192.168.1.1", "192.168.1.2", 4096};
  Client big{alice, "192.168.1.1", "192.168.1.2", 4096};
  deaf.send(get("/long"));
  big.send(get("/big"));
  ASSERT_TRUE(comes_true([&] { return counts().requests == 2; }));
  EXPECT_TRUE(ask(alice, "192.168.1.3").ends_with("GET /echo "));
  std::this_thread::sleep_for(200ms);
  EXPECT_LT(pieces, 200) << "asked for what nobody reads";
  EXPECT_EQ(sent, 1);
  pass(29s);
  std::this_thread::sleep_for(600ms);
  EXPECT_EQ(counts().timed_out, 0u);
  pass(2s);
  EXPECT_TRUE(comes_true([&] { return counts().timed_out == 2; }));
  EXPECT_EQ(sent, 3) << "told that it could not be";
  EXPECT_TRUE(comes_true([&] { return connections() == 0; }));
}

// HTTP-05
TEST_F(HttpServiceTest, SaysContinue) {
  Client client{alice, "192.168.1.1"};
  client.send("POST /p HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
  EXPECT_EQ(client.answer(), "HTTP/1.1 100 Continue\r\n\r\n");
  client.send("abc");
  EXPECT_TRUE(client.answer().ends_with("POST /p abc"));
  Client big{alice, "192.168.1.1"};
  big.send("POST /p HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 70000\r\n\r\n");
  EXPECT_TRUE(big.rest().value_or("").starts_with("HTTP/1.1 413 "));
}

// POL-WEB-01, POL-WEB-11, HTTP-17: an error is seen by the client, and what follows it is no request
TEST_F(HttpServiceTest, AnswersErrorsAndCloses) {
  for (const std::string bad :
       {"\x16\x03\x01\x02", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"}) {
    Client client{alice, "192.168.1.1"};
    client.send(bad + get("/smuggled"));
    const auto text = client.rest().value_or("");
    EXPECT_TRUE(text.starts_with("HTTP/1.1 4") || text.starts_with("HTTP/1.1 5")) << text;
    EXPECT_NE(text.find("CONNECTION: close\r\n"), std::string::npos);
    EXPECT_EQ(text.find("smuggled"), std::string::npos);
    EXPECT_FALSE(client.was_reset());
  }
  EXPECT_EQ(counts().requests, 0u);
  Client flood{alice, "192.168.1.1"};
  flood.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n" + std::string(30000, 'x'));
  EXPECT_TRUE(flood.answer().starts_with("HTTP/1.1 413 ")) << "before the body has come";
  const std::string more(1 << 20, 'x');
  bool taken = true;
  for (int i = 0; i < 100 && taken; ++i) taken = flood.send(more);
  EXPECT_FALSE(taken) << "at most 64 KiB are read on";
}

// HTTP-14, POL-WHO-01..03
TEST_F(HttpServiceTest, ServesTheLanAlone) {
  EXPECT_TRUE(ask(alice).ends_with("GET /echo "));
  const auto expect_silence = [](const Namespace& host, const std::string& to, const std::string& says) {
    const Client client{host, to, "", 0, 300};
    EXPECT_FALSE(client.connected()) << says;
    EXPECT_FALSE(client.refused()) << says << ": silence is no reset either";
  };
  expect_silence(stranger, "203.0.113.1", "the WAN address");
  expect_silence(stranger, "192.168.1.1", "from the WAN to the LAN address");
  expect_silence(guest, "10.0.0.1", "a LAN that is not served");
  expect_silence(guest, "192.168.1.1", "from another LAN");
  expect_silence(gateway, "127.0.0.1", "from the gateway itself");
  Client own{gateway, "192.168.1.1", "", 0, 300};
  EXPECT_EQ(own.connected() ? own.rest() : "", "") << "from the gateway itself";
  Client outside{alice, "192.168.1.1", "172.16.0.2"};
  outside.send(get("/x"));
  EXPECT_EQ(outside.rest(), "") << "a source outside the LAN prefixes";
  EXPECT_GE(counts().not_for_us, 1u);
  EXPECT_EQ(counts().requests, 1u);
}

TEST_F(HttpServiceTest, FollowsTheNetwork) {
  Client before{alice, "192.168.1.1"};
  before.send(get("/x"));
  EXPECT_FALSE(before.answer().empty());
  const auto serve_there = [&](std::vector<std::string> lan) {
    control([&] { gateway.inside([&] { EXPECT_TRUE(serve(lan)) << why; }); });
  };
  serve_there({"lan0"});
  serve_there({"lan0", "lan2"});
  before.send(get("/y"));
  EXPECT_TRUE(before.answer().ends_with("GET /y ")) << "what is served stays";
  gateway.ip("addr add 192.168.1.129/16 dev lan0");
  serve_there({"lan0"});
  EXPECT_TRUE((Client{alice, "192.168.1.129"}.connected()));
  gateway.ip("addr del 192.168.1.129/16 dev lan0");
  serve_there({"lan0"});
  serve_there({});
  EXPECT_TRUE(before.ends()) << "what is no longer served is closed";
  EXPECT_TRUE((Client{alice, "192.168.1.1"}.refused())) << "the port is nobody's";
  serve_there({"lan0"});
  EXPECT_TRUE(ask(alice).ends_with("GET /echo "));
}

TEST_F(HttpServiceTest, SaysWhoseThePortIs) {
  gateway.inside([&] {
    boost::asio::io_context other_io;
    HttpService second{other_io, [](const Request&, const Done&) {}, clock, options()};
    const auto view = build_view(watcher->state(), {{"lan0"}, {"wan0"}, {}, {}, {}});
    std::string reason;
    EXPECT_FALSE(second.serve(view.lan, {}, reason));
    EXPECT_NE(reason.find("TCP port 5000 of 192.168.1.1 is taken"), std::string::npos) << reason;
  });
}

// POL-WEB-04, POL-QTA-08
TEST_F(HttpServiceTest, LimitsTheConnectionsOfADevice) {
  std::vector<Client> eight;
  for (int i = 0; i < 8; ++i) eight.emplace_back(alice, "192.168.1.1", "192.168.1.2");
  ASSERT_TRUE(comes_true([&] { return connections() == 8; }));
  Client ninth{alice, "192.168.1.1", "192.168.1.2"};
  EXPECT_TRUE(ninth.ends());
  EXPECT_EQ(counts().over_limit, 1u);
  EXPECT_TRUE(ask(alice, "192.168.1.3").ends_with("GET /echo ")) << "others are unaffected";
  for (auto& client : eight) {
    client.send(get("/x"));
    EXPECT_FALSE(client.answer().empty());
  }
  // one hangs up and comes back at once, again and again
  for (int i = 0; i < 200; ++i) {
    eight[static_cast<std::size_t>(i) % 8].hang_up();
    Client again{alice, "192.168.1.1", "192.168.1.2"};
    ASSERT_TRUE(again.send(get("/x"))) << i;
    ASSERT_TRUE(again.answer().ends_with("GET /x ")) << i;
    eight[static_cast<std::size_t>(i) % 8] = std::move(again);
  }
}

// POL-WEB-04, HTTP-13, HTTP-16: 1000 idle connections from 1000 addresses, and everybody else is answered
TEST_F(HttpServiceTest, LetsTheLongestWaitingGiveWay) {
  std::vector<Client> idle;
  const auto address = [](int i) { return "192.168." + std::to_string(8 + i / 250) + "." + std::to_string(1 + i % 250); };
  for (int i = 0; i < 1000; ++i) {
    idle.emplace_back(alice, "192.168.1.1", address(i));
    ASSERT_TRUE(idle.back().connected()) << i;
    if (i % 100 == 99) {
      EXPECT_TRUE(ask(alice, "192.168.1.3").ends_with("GET /echo ")) << i;
    }
  }
  ASSERT_TRUE(comes_true([&] { return counts().connections >= 1010; }));
  EXPECT_LE(connections(), 512u);
  EXPECT_GE(counts().gave_way, 488u);
  EXPECT_TRUE(idle.front().ends());
  idle.back().send(get("/x"));
  EXPECT_TRUE(idle.back().answer().ends_with("GET /x "));
  idle.clear();
  EXPECT_TRUE(comes_true([&] { return connections() == 0; })) << "POL-FAIR-05";
}

// POL-WEB-02
TEST_F(HttpServiceTest, EndsWhatTakesTooLong) {
  const auto slow_down = [&](std::chrono::nanoseconds time) {
    pass(time);
    std::this_thread::sleep_for(600ms);  // two sweeps
  };
  Client silent{alice, "192.168.1.1"};
  Client trickling{alice, "192.168.1.1"};
  Client body{alice, "192.168.1.1"};
  Client kept{alice, "192.168.1.1"};
  trickling.send("GET / HT");
  body.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nx");
  kept.send(get("/x"));
  ASSERT_FALSE(kept.answer().empty());
  slow_down(9s);
  EXPECT_TRUE(trickling.send("T"));
  EXPECT_TRUE(body.send("x"));
  ASSERT_EQ(connections(), 4u);
  slow_down(2s);
  EXPECT_TRUE(silent.ends());
  EXPECT_TRUE(trickling.ends()) << "an octet more does not win time";
  ASSERT_EQ(connections(), 2u);
  slow_down(18s);
  EXPECT_TRUE(body.send("x"));
  ASSERT_EQ(connections(), 2u);
  slow_down(2s);
  EXPECT_TRUE(body.ends());
  EXPECT_TRUE(kept.ends());
  EXPECT_EQ(counts().timed_out, 4u);
}

TEST_F(HttpServiceTest, GivesAKeptConnectionTheSameTimes) {
  Client kept{alice, "192.168.1.1"};
  kept.send(get("/x"));
  ASSERT_FALSE(kept.answer().empty());
  pass(25s);
  kept.send("G");
  std::this_thread::sleep_for(600ms);
  pass(9s);
  std::this_thread::sleep_for(600ms);
  kept.send("ET /y HTTP/1.0\r\n\r\n");
  EXPECT_TRUE(kept.answer().ends_with("GET /y "));
}

// UDA-2-13, UDA-3-19
TEST_F(HttpServiceTest, DoesNotWaitForAHandlerForEver) {
  Client client{alice, "192.168.1.1"};
  client.send(get("/late"));
  ASSERT_TRUE(comes_true([&] { return counts().requests == 1; }));
  pass(31s);
  EXPECT_TRUE(client.rest().value_or("").starts_with("HTTP/1.1 503 "));
  bool told = false;
  control([&] { late.at(0)({.sent = [&] { told = true; }}); });
  EXPECT_TRUE(told);
}

TEST_F(HttpServiceTest, OutlivesClientsThatGoAway) {
  for (int i = 0; i < 50; ++i) {
    Client client{alice, "192.168.1.1"};
    client.send(i % 2 != 0 ? get("/late") : get("/long") + get("/late"));
    if (i % 3 == 0) {
      const linger hard{1, 0};
      ::setsockopt(client.descriptor(), SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    }
    client.hang_up();
  }
  EXPECT_TRUE(ask(alice, "192.168.1.3").ends_with("GET /echo "));
  control([&] {
    for (auto& done : late) done({});
  });
  EXPECT_TRUE(ask(alice, "192.168.1.3").ends_with("GET /echo "));
}

/// The process runs out of descriptors while clients come.
TEST_F(HttpServiceTest, WaitsForDescriptorsWithoutSpinning) {  // POL-WEB-04, POL-FAIR-07
  std::vector<Client> clients;
  for (int i = 0; i < 4; ++i) clients.emplace_back(alice, "192.168.1.1", "192.168.1.2");
  ASSERT_TRUE(comes_true([&] { return connections() == 4; }));
  int waiting = -1;
  alice.inside([&] { waiting = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); });
  rlimit before{};
  ::getrlimit(RLIMIT_NOFILE, &before);
  rlimit none = before;
  none.rlim_cur = 3;
  ::setrlimit(RLIMIT_NOFILE, &none);
  sockaddr_in there{};
  there.sin_family = AF_INET;
  there.sin_port = htons(port);
  ::inet_pton(AF_INET, "192.168.1.1", &there.sin_addr);
  ASSERT_EQ(::connect(waiting, reinterpret_cast<const sockaddr*>(&there), sizeof there), 0);
  ASSERT_TRUE(comes_true([&] { return counts().no_descriptors > 0; }));
  const auto first = counts().no_descriptors;
  std::this_thread::sleep_for(1s);
  EXPECT_LE(counts().no_descriptors - first, 8u) << "once a sweep";
  clients[0].send(get("/x"));
  EXPECT_TRUE(clients[0].answer().ends_with("GET /x ")) << "who is there already is served";
  ::setrlimit(RLIMIT_NOFILE, &before);
  const auto text = get("/late-comer");
  ASSERT_EQ(::send(waiting, text.data(), text.size(), 0), static_cast<ssize_t>(text.size()));
  pollfd wait{waiting, POLLIN, 0};
  EXPECT_EQ(::poll(&wait, 1, patience), 1);
  ::close(waiting);
}

// POL-FAIR-01: one device with eight busy connections waits behind another's single one by at most a turn
TEST_F(HttpServiceTest, LetsDevicesTakeTurns) {
  std::vector<Client> busy;
  for (int i = 0; i < 8; ++i) busy.emplace_back(alice, "192.168.1.1", "192.168.1.2");
  Client single{alice, "192.168.1.1", "192.168.1.3"};
  ASSERT_TRUE(comes_true([&] { return connections() == 9; }));
  std::atomic<bool> stopped{false};
  std::atomic<bool> stop{false};
  boost::asio::post(io, [&] {
    stopped = true;
    stop.wait(false);
  });
  ASSERT_TRUE(comes_true([&] { return stopped.load(); }));
  for (auto& client : busy) client.send(get("/x") + get("/y"));
  single.send(get("/x"));
  std::this_thread::sleep_for(100ms);
  stop = true;
  stop.notify_all();
  for (auto& client : busy) {
    EXPECT_FALSE(client.answer().empty());
    EXPECT_FALSE(client.answer().empty());
  }
  EXPECT_FALSE(single.answer().empty());
  control([&] {
    const auto at = std::ranges::find(order, Address::v4(0xc0a80103)) - order.begin();
    EXPECT_LE(at, 1) << "second at the latest, although eight came before it";
    EXPECT_EQ(order.size(), 17u);
  });
}

// POL-FAIR-01: port 5351 is served by the same thread, and waits for no row of requests that each take long
TEST_F(HttpServiceTest, LeavesTheThreadToOthersBetweenLongRequests) {
  Client busy{alice, "192.168.1.1"};
  std::string requests;
  for (int i = 0; i < 20; ++i) requests += get("/slow");
  busy.send(requests);
  for (int i = 0; i < 20; ++i) EXPECT_FALSE(busy.answer().empty());
  control([&] {
    EXPECT_EQ(slow, 20);
    EXPECT_LE(slow_before_others, 2);
  });
}

class HttpServiceRateTest : public HttpServiceTest {
 protected:
  HttpService::Options options() override {
    auto result = HttpServiceTest::options();
    result.limit.per_second = 10;
    result.limit.burst = 5;
    return result;
  }
};

// POL-QTA-03
TEST_F(HttpServiceRateTest, LetsADeviceAboveItsRateWait) {
  Client client{alice, "192.168.1.1", "192.168.1.2"};
  for (int i = 0; i < 5; ++i) {
    client.send(get("/x"));
    ASSERT_FALSE(client.answer().empty());
  }
  client.send(get("/sixth"));
  EXPECT_TRUE(client.silent(200));
  EXPECT_EQ(counts().requests, 5u);
  EXPECT_TRUE(ask(alice, "192.168.1.3").ends_with("GET /echo ")) << "another device has its own";
  pass(150ms);
  EXPECT_TRUE(client.answer().ends_with("GET /sixth ")) << "late, and not refused";
}

// POL-FAIR-02
TEST(SynCookies, AreWarnedOfWhenTheyAreOff) {
  const auto path = testing::TempDir() + "sallyport_syncookies";
  for (const auto* text : {"0\n", "1\n", "2\n", ""}) {
    std::ofstream{path} << text;
    EXPECT_EQ(syn_cookie_warning(path).has_value(), std::string_view{text} == "0\n") << text;
  }
  EXPECT_FALSE(syn_cookie_warning(path + ".none"));
}

}  // namespace
}  // namespace sallyport::transport
