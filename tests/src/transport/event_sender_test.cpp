#include "src/transport/event_sender.hpp"

#include <net/if.h>

#include <atomic>
#include <deque>
#include <mutex>

#include <boost/asio/io_context.hpp>

#include "protocols/upnp/gena/publisher.hpp"
#include "tests/src/transport/namespaces.hpp"

namespace sallyport::transport {
namespace {

using namespace std::chrono_literals;
using test::Namespace;
using testing::ElementsAre;
using upnp::http::Delivery;
using upnp::http::DeliveryResult;
using Kind = DeliveryResult::Kind;

const Address loopback = Address::v4(0x7f000001);

/// Listens for events and treats each connection as the test says, on a thread of its own.
class Subscriber {
 public:
  using Treat = std::function<void(int connection)>;

  /// Without `treat` connections wait in the backlog for ever.
  explicit Subscriber(Treat treat, const std::string& address = "127.0.0.1", std::uint16_t port = 0) {
    listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int one = 1;
    ::setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    sockaddr_in here{};
    here.sin_family = AF_INET;
    here.sin_port = htons(port);
    ::inet_pton(AF_INET, address.c_str(), &here.sin_addr);
    EXPECT_EQ(::bind(listener_, reinterpret_cast<const sockaddr*>(&here), sizeof here), 0);
    EXPECT_EQ(::listen(listener_, 128), 0);
    socklen_t size = sizeof here;
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&here), &size);
    port_ = ntohs(here.sin_port);
    if (!treat) return;
    thread_ = std::thread{[this, treat = std::move(treat)] {
      while (!stop_) {
        pollfd wait{listener_, POLLIN, 0};
        if (::poll(&wait, 1, 10) <= 0) continue;
        const int connection = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
        if (connection < 0) continue;
        ++connections;
        treat(connection);
        ::close(connection);
      }
    }};
  }
  Subscriber(const Subscriber&) = delete;
  Subscriber& operator=(const Subscriber&) = delete;
  ~Subscriber() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
    ::close(listener_);
  }
  std::uint16_t port() const { return port_; }
  bool has_caller() const {
    pollfd wait{listener_, POLLIN, 0};
    return ::poll(&wait, 1, 0) > 0;
  }

  /// Reads up to the end of the event's body.
  static std::string read_event(int connection) {
    std::string bytes;
    std::array<char, 4096> piece{};
    while (bytes.find("END") == std::string::npos) {
      const auto size = ::recv(connection, piece.data(), piece.size(), 0);
      if (size <= 0) break;
      bytes.append(piece.data(), static_cast<std::size_t>(size));
    }
    return bytes;
  }
  static void say(int connection, std::string_view text) {
    ::send(connection, text.data(), text.size(), MSG_NOSIGNAL);
  }
  /// Until the other side has closed.
  static void wait_for_end(int connection) {
    std::array<char, 4096> piece{};
    while (::recv(connection, piece.data(), piece.size(), 0) > 0) {
    }
  }
  static Treat answer(std::string text) {
    return [text = std::move(text)](int connection) {
      read_event(connection);
      say(connection, text);
      wait_for_end(connection);
    };
  }

  std::atomic<int> connections{0};

 private:
  int listener_ = -1;
  std::uint16_t port_ = 0;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

class FakeCore final : public upnp::http::DeliveryCore {
 public:
  std::optional<Delivery> poll_send(TimePoint) override {
    if (out.empty()) return std::nullopt;
    auto next = std::move(out.front());
    out.pop_front();
    return next;
  }
  void handle_result(std::uint64_t handle, const DeliveryResult& result, TimePoint) override {
    EXPECT_TRUE(results.emplace(handle, result).second) << "one result each";
    order.push_back(handle);
  }
  std::uint64_t add(const Address& address, std::uint16_t port, std::uint32_t interface, const Address& local,
                    std::string bytes = "NOTIFY / HTTP/1.1\r\n\r\nEND") {
    Delivery delivery;
    delivery.handle = ++last;
    delivery.address = address;
    delivery.port = port;
    delivery.interface = interface;
    delivery.local = local;
    delivery.bytes = std::move(bytes);
    out.push_back(std::move(delivery));
    return last;
  }

  std::deque<Delivery> out;
  std::map<std::uint64_t, DeliveryResult> results;
  std::vector<std::uint64_t> order;
  std::uint64_t last = 0;
};

class EventSenderTest : public testing::Test {
 protected:
  void make(EventSender::Options options = {}) {
    sender = std::make_unique<EventSender>(io, core, clock, options, [this] { ++after_results; });
  }
  std::uint64_t add(std::uint16_t port, std::string bytes = "NOTIFY / HTTP/1.1\r\n\r\nEND") {
    return core.add(loopback, port, ::if_nametoindex("lo"), loopback, std::move(bytes));
  }
  /// Runs the loop until there are so many results.
  bool run_until(std::size_t results) {
    const auto end = std::chrono::steady_clock::now() + 20s;
    while (core.results.size() < results && std::chrono::steady_clock::now() < end) {
      io.restart();
      io.run_one_for(100ms);
    }
    return core.results.size() == results;
  }
  /// One delivery to a subscriber that does this.
  DeliveryResult result_of(Subscriber::Treat treat, EventSender::Options options = {}) {
    Subscriber subscriber{std::move(treat)};
    make(options);
    const auto handle = add(subscriber.port());
    sender->drain();
    EXPECT_TRUE(run_until(core.results.size() + 1));
    EXPECT_EQ(sender->under_way(), 0u);
    return core.results[handle];
  }
  static DeliveryResult answered(unsigned status) { return {Kind::answered, status}; }
  static constexpr DeliveryResult broken{Kind::broken, 0};
  static constexpr DeliveryResult timed_out{Kind::timed_out, 0};
  static constexpr DeliveryResult connect_failed{Kind::connect_failed, 0};

  SystemClock clock;
  boost::asio::io_context io;
  FakeCore core;
  std::unique_ptr<EventSender> sender;
  int after_results = 0;
};

TEST_F(EventSenderTest, CarriesTheBytesAndTellsTheStatus) {
  std::string got;
  std::mutex mutex;
  Subscriber subscriber{[&](int connection) {
    const std::lock_guard lock{mutex};
    got = Subscriber::read_event(connection);
    Subscriber::say(connection, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    Subscriber::wait_for_end(connection);
  }};
  make();
  const auto bytes = "NOTIFY /x HTTP/1.1\r\n\r\n" + std::string(100'000, 'x') + "END";
  const auto handle = add(subscriber.port(), bytes);
  sender->drain();
  EXPECT_TRUE(core.results.empty()) << "never from inside drain";
  ASSERT_TRUE(run_until(1));
  EXPECT_EQ(core.results[handle], answered(200));
  EXPECT_EQ(after_results, 1);
  EXPECT_EQ(sender->counts().answered, 1u);
  const std::lock_guard lock{mutex};
  EXPECT_EQ(got, bytes);
}

// POL-EVT-05
TEST_F(EventSenderTest, OnlyTheStatusLineCounts) {
  const std::pair<std::string, DeliveryResult> rows[] = {
      {"HTTP/1.1 200 OK\r\n\r\n", answered(200)},
      {"HTTP/1.0 200\r\n\r\n", answered(200)},
      {"HTTP/1.1 200 OK\n\n", answered(200)},
      {"HTTP/1.1 412 Precondition Failed\r\nConnection: close\r\n\r\n", answered(412)},
      {"HTTP/1.1 302 Found\r\nLocation: http://203.0.113.9/\r\n\r\n", answered(302)},
      {"HTTP/1.1 200 OK\r\nnot a field at all\r\n\r\n", answered(200)},
      {"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551617\r\n\r\nxxx", answered(200)},
      {"HTTP/1.1 2000 OK\r\n\r\n", broken},
      {"HTTP/1.1 20 OK\r\n\r\n", broken},
      {"HTTP/1.1 099 OK\r\n\r\n", broken},
      {"HTTP/1.1  200 OK\r\n\r\n", broken},
      {"HTTP/1.1 2x0 OK\r\n\r\n", broken},
      {"HTTP/2.0 200 OK\r\n\r\n", broken},
      {"http/1.1 200 OK\r\n\r\n", broken},
      {"200 OK\r\n\r\n", broken},
      {"\r\n\r\n", broken},
      {"\n", broken},
      {"SSH-2.0-OpenSSH_9.2\r\n", broken},
      {std::string{"\x00\xff\x00\n", 4}, broken},
      {"GET / HTTP/1.1\r\n\r\n", broken},
  };
  for (const auto& [answer, result] : rows)
    EXPECT_EQ(result_of(Subscriber::answer(answer)), result) << answer;
}

TEST_F(EventSenderTest, TheStatusLineMayComeInPieces) {
  EXPECT_EQ(result_of([](int connection) {
              Subscriber::read_event(connection);
              for (const char c : std::string{"HTTP/1.1 204 No Content\r\nA: b\r\n\r\n"}) {
                Subscriber::say(connection, {&c, 1});
                std::this_thread::sleep_for(1ms);
              }
              Subscriber::wait_for_end(connection);
            }),
            answered(204));
}

TEST_F(EventSenderTest, ASubscriberThatClosesIsNoAnswer) {
  EXPECT_EQ(result_of([](int) {}), broken) << "at once";
  EXPECT_EQ(result_of([](int connection) { Subscriber::read_event(connection); }), broken);
  EXPECT_EQ(result_of([](int connection) {
              Subscriber::read_event(connection);
              Subscriber::say(connection, "HTTP/1.1 200 OK");
            }),
            broken)
      << "in the middle of the line";
  EXPECT_EQ(result_of([](int connection) {
              Subscriber::read_event(connection);
              const linger reset{1, 0};
              ::setsockopt(connection, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
            }),
            broken)
      << "with a reset";
}

TEST_F(EventSenderTest, AnAnswerCountsThoughItsSenderClosesInTheMiddleOfItsHead) {
  EXPECT_EQ(result_of([](int connection) {
              Subscriber::read_event(connection);
              Subscriber::say(connection, "HTTP/1.1 200 OK\r\nContent-");
            }),
            answered(200));
}

// POL-EVT-05
TEST_F(EventSenderTest, ReadsNoMoreThan4KiB) {
  const auto flood = [](std::string begin, std::atomic<std::size_t>& taken) {
    return [begin = std::move(begin), &taken](int connection) {
      Subscriber::read_event(connection);
      Subscriber::say(connection, begin);
      const std::string piece(4096, 'x');
      // ends when the gateway has closed
      for (ssize_t size = 0; size >= 0 && taken < (64U << 20); taken += static_cast<std::size_t>(size))
        size = ::send(connection, piece.data(), piece.size(), MSG_NOSIGNAL);
    };
  };
  std::atomic<std::size_t> taken{0};
  EXPECT_EQ(result_of(flood("HTTP/1.1 200 ", taken)), broken) << "a status line without end";
  EXPECT_LT(taken, 64U << 20);
  taken = 0;
  EXPECT_EQ(result_of(flood("HTTP/1.1 200 OK\r\nA: ", taken)), answered(200));
  EXPECT_LT(taken, 64U << 20);
}

// POL-EVT-04, UDA-4-17
TEST_F(EventSenderTest, ASubscriberThatDoesNotAnswerIsGivenUp) {
  EventSender::Options options;
  options.answer_time = 150ms;
  EXPECT_EQ(result_of(nullptr, options), timed_out) << "it never even accepts";
  EXPECT_EQ(result_of(
                [](int connection) {
                  Subscriber::read_event(connection);
                  Subscriber::wait_for_end(connection);
                },
                options),
            timed_out);
  EXPECT_EQ(result_of(
                [](int connection) {
                  for (int i = 0; i < 2000 && ::send(connection, "H", 1, MSG_NOSIGNAL) == 1; ++i)
                    std::this_thread::sleep_for(5ms);
                },
                options),
            timed_out)
      << "trickling does not extend the time";
  EXPECT_EQ(sender->counts().timed_out, 1u);
}

TEST_F(EventSenderTest, TheTimeForConnectingDoesNotCountWhenTheAnswerIsAwaited) {
  EventSender::Options options;
  options.connect_time = 100ms;
  EXPECT_EQ(result_of(
                [](int connection) {
                  Subscriber::read_event(connection);
                  std::this_thread::sleep_for(400ms);
                  Subscriber::say(connection, "HTTP/1.1 200 OK\r\n\r\n");
                  Subscriber::wait_for_end(connection);
                },
                options),
            answered(200));
}

TEST_F(EventSenderTest, ASubscriberThatNeverReadsIsGivenUp) {
  Subscriber subscriber{nullptr};
  EventSender::Options options;
  options.answer_time = 200ms;
  make(options);
  const auto handle = add(subscriber.port(), std::string(16U << 20, 'x'));
  sender->drain();
  ASSERT_TRUE(run_until(1));
  EXPECT_EQ(core.results[handle], timed_out);
}

TEST_F(EventSenderTest, AStatusLineWithoutTheRestOfTheHeadIsEnoughAfterAMoment) {
  EventSender::Options options;
  options.rest_time = 100ms;
  EXPECT_EQ(result_of(Subscriber::answer("HTTP/1.1 200 OK\r\n"), options), answered(200));
}

TEST_F(EventSenderTest, ARefusedConnectionIsToldAtOnce) {
  std::uint16_t port = 0;
  {
    const Subscriber gone{nullptr};
    port = gone.port();
  }
  make();
  const auto handle = add(port);
  sender->drain();
  ASSERT_TRUE(run_until(1));
  EXPECT_EQ(core.results[handle], connect_failed);
  EXPECT_EQ(sender->counts().connect_failed, 1u);
}

// POL-WHO-06
TEST_F(EventSenderTest, WithoutItsInterfaceOrItsAddressNothingIsDialled) {
  Subscriber subscriber{nullptr};
  make();
  const auto lo = ::if_nametoindex("lo");
  core.add(loopback, subscriber.port(), 0, loopback);
  core.add(loopback, subscriber.port(), 2'000'000'000, loopback);
  core.add(loopback, subscriber.port(), lo, Address::v4(0xc6336401));
  core.add(loopback, subscriber.port(), lo, *Address::parse("2001:db8::1"));
  sender->drain();
  ASSERT_TRUE(run_until(4));
  for (const auto& [handle, result] : core.results) EXPECT_EQ(result, connect_failed) << handle;
  EXPECT_FALSE(subscriber.has_caller());
}

TEST_F(EventSenderTest, HasABoundOfConnectionsAndTheNextIsTakenUpWhenOneEnds) {
  Subscriber stalled{nullptr};
  Subscriber good{Subscriber::answer("HTTP/1.1 200 OK\r\n\r\n")};
  EventSender::Options options;
  options.at_once = 4;
  options.answer_time = 300ms;
  make(options);
  for (int i = 0; i < 3; ++i) add(stalled.port());
  for (int i = 0; i < 20; ++i) add(good.port());
  sender->drain();
  EXPECT_EQ(sender->under_way(), 4u);
  EXPECT_EQ(core.out.size(), 19u) << "the rest stays in the core";
  ASSERT_TRUE(run_until(23));
  EXPECT_EQ(good.connections, 20);
  EXPECT_EQ(sender->counts().answered, 20u);
  EXPECT_EQ(sender->counts().timed_out, 3u);
  EXPECT_EQ(after_results, 23);
}

TEST_F(EventSenderTest, AStalledSubscriberDoesNotDelayOthers) {
  Subscriber stalled{nullptr};
  Subscriber good{Subscriber::answer("HTTP/1.1 200 OK\r\n\r\n")};
  make();
  for (int i = 0; i < 63; ++i) add(stalled.port());
  for (int i = 0; i < 10; ++i) add(good.port());
  sender->drain();
  ASSERT_TRUE(run_until(10)) << "long before the 30 s of the others";
  EXPECT_EQ(sender->under_way(), 63u);
}

TEST_F(EventSenderTest, EndsQuietlyWithWorkUnderWay) {
  Subscriber stalled{nullptr};
  make();
  for (int i = 0; i < 100; ++i) add(stalled.port());
  core.add(loopback, stalled.port(), 0, loopback);
  sender->drain();
  io.run_for(50ms);
  sender.reset();
  io.restart();
  io.run_for(50ms);
  EXPECT_TRUE(core.results.empty());
  EXPECT_EQ(after_results, 0);
}

TEST_F(EventSenderTest, ReachesASubscriberByIpv6) {
  const int listener = ::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in6 here{};
  here.sin6_family = AF_INET6;
  here.sin6_addr = in6addr_loopback;
  if (::bind(listener, reinterpret_cast<const sockaddr*>(&here), sizeof here) != 0) {
    ::close(listener);
    GTEST_SKIP() << "there is no IPv6 here";
  }
  ::listen(listener, 1);
  socklen_t size = sizeof here;
  ::getsockname(listener, reinterpret_cast<sockaddr*>(&here), &size);
  std::thread server{[&] {
    const int connection = ::accept(listener, nullptr, nullptr);
    Subscriber::answer("HTTP/1.1 200 OK\r\n\r\n")(connection);
    ::close(connection);
  }};
  const auto six = *Address::parse("::1");
  make();
  const auto handle = core.add(six, ntohs(here.sin6_port), ::if_nametoindex("lo"), six);
  sender->drain();
  EXPECT_TRUE(run_until(1));
  EXPECT_EQ(core.results[handle], answered(200));
  ::shutdown(listener, SHUT_RDWR);
  server.join();
  ::close(listener);
}

/// A gateway with lan0 (192.168.1.1) and wan0 (203.0.113.1, the default route), and a host on each.
class EventSenderLanTest : public EventSenderTest {
 protected:
  void SetUp() override {
    if (const auto why = test::no_namespaces()) GTEST_SKIP() << *why;
    ASSERT_TRUE(gateway.connect("lan0", alice, "eth0"));
    ASSERT_TRUE(gateway.connect("wan0", stranger, "eth0"));
    gateway.ip("addr add 192.168.1.1/24 brd + dev lan0");
    gateway.ip("addr add 192.168.1.129/24 brd + dev lan0");
    gateway.ip("addr add 203.0.113.1/24 brd + dev wan0");
    gateway.ip("route add default via 203.0.113.2");
    alice.ip("addr add 192.168.1.2/24 brd + dev eth0");
    stranger.ip("addr add 203.0.113.2/24 brd + dev eth0");
    stranger.ip("addr add 192.168.1.77/32 dev lo");
    gateway.inside([this] { lan0 = ::if_nametoindex("lan0"); });
  }
  const Address local = *Address::parse("192.168.1.1");
  Namespace gateway, alice, stranger;
  std::uint32_t lan0 = 0;
};

TEST_F(EventSenderLanTest, LeavesFromTheAddressItWasAskedAt) {
  std::string from;
  std::unique_ptr<Subscriber> subscriber;
  const auto treat = [&](int connection) {
    sockaddr_in peer{};
    socklen_t size = sizeof peer;
    ::getpeername(connection, reinterpret_cast<sockaddr*>(&peer), &size);
    from = Address::v4(ntohl(peer.sin_addr.s_addr)).to_string();
    Subscriber::answer("HTTP/1.1 200 OK\r\n\r\n")(connection);
  };
  alice.inside([&] { subscriber = std::make_unique<Subscriber>(treat, "192.168.1.2"); });
  gateway.inside([&] {
    make();
    core.add(*Address::parse("192.168.1.2"), subscriber->port(), lan0, *Address::parse("192.168.1.129"));
    sender->drain();
    EXPECT_TRUE(run_until(1));
  });
  subscriber.reset();
  EXPECT_EQ(core.results[1], answered(200));
  EXPECT_EQ(from, "192.168.1.129");
}

// POL-WHO-06, IGD-07
TEST_F(EventSenderLanTest, NothingGoesOutOnTheWanWhateverTheRoutesSay) {
  std::unique_ptr<Subscriber> victim;
  stranger.inside([&] { victim = std::make_unique<Subscriber>(nullptr, "0.0.0.0"); });
  EventSender::Options options;
  options.connect_time = 300ms;
  gateway.ip("route add 192.168.1.77/32 dev wan0");
  const auto sent_on_wan = [&] {
    std::string packets;
    gateway.inside([&] {
      std::unique_ptr<FILE, int (*)(FILE*)> text{::popen("ip -4 neigh show dev wan0", "r"), ::pclose};
      std::array<char, 512> line{};
      while (std::fgets(line.data(), line.size(), text.get())) packets += line.data();
    });
    return packets;
  };
  gateway.inside([&] {
    make(options);
    core.add(*Address::parse("203.0.113.2"), victim->port(), lan0, local);
    core.add(*Address::parse("192.168.1.77"), victim->port(), lan0, local);
    sender->drain();
    EXPECT_TRUE(run_until(2));
  });
  for (const auto& [handle, result] : core.results) EXPECT_EQ(result, connect_failed) << handle;
  EXPECT_FALSE(victim->has_caller());
  EXPECT_EQ(sent_on_wan(), "") << "not even a neighbour was looked for";
}

// POL-EVT-04
TEST_F(EventSenderLanTest, AHostThatIsNotThereFailsInTheTimeOfConnecting) {
  alice.ip("addr add 192.168.1.3/24 dev eth0");
  alice.ip("route add blackhole 192.168.1.1/32");  // hears, never answers
  EventSender::Options options;
  options.connect_time = 300ms;
  gateway.inside([&] {
    make(options);
    core.add(*Address::parse("192.168.1.3"), 80, lan0, local);
    sender->drain();
    EXPECT_TRUE(run_until(1));
  });
  EXPECT_EQ(core.results[1], connect_failed);
}

// UDA-4-13, UDA-4-18, UDA-4-22: the core and the sender together.
TEST_F(EventSenderLanTest, CarriesTheEventsOfThePublisher) {
  std::unique_ptr<Subscriber> stalled, good;
  std::mutex mutex;
  std::vector<std::string> events;
  const auto treat = [&](int connection) {
    std::string bytes;
    std::array<char, 4096> piece{};
    while (bytes.find("</e:propertyset>") == std::string::npos) {
      const auto size = ::recv(connection, piece.data(), piece.size(), 0);
      if (size <= 0) break;
      bytes.append(piece.data(), static_cast<std::size_t>(size));
    }
    {
      const std::lock_guard lock{mutex};
      const auto sequence = bytes.find("SEQ: ") + 5;
      events.push_back(bytes.substr(sequence, bytes.find('\r', sequence) - sequence));
    }
    Subscriber::say(connection, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
    Subscriber::wait_for_end(connection);
  };
  alice.inside([&] {
    stalled = std::make_unique<Subscriber>(nullptr, "192.168.1.2");
    good = std::make_unique<Subscriber>(treat, "192.168.1.2");
  });
  unsigned char counter = 0;
  upnp::gena::Publisher publisher{[&] {
    std::array<std::byte, 16> bits{};
    bits[15] = std::byte{++counter};
    return bits;
  }};
  const auto service = publisher.add_service({{"ExternalIPAddress", "203.0.113.1"}});
  const auto subscribe = [&](const std::string& callbacks) {
    upnp::http::Request request;
    request.method = "SUBSCRIBE";
    request.peer = *Address::parse("192.168.1.2");
    request.local = local;
    request.interface = lan0;
    request.fields.add("NT", "upnp:event");
    request.fields.add("CALLBACK", callbacks);
    const auto response = publisher.handle(request, service, clock.now());
    ASSERT_EQ(response.status, 200u);
    response.sent();
  };
  const auto url = [](std::uint16_t port) { return "<http://192.168.1.2:" + std::to_string(port) + "/>"; };
  for (int i = 0; i < 3; ++i) subscribe(url(stalled->port()));
  subscribe(url(1) + url(good->port()));  // nobody listens at the first
  gateway.inside([&] {
    EventSender carrier{io, publisher, clock, {}, nullptr};
    const auto end = std::chrono::steady_clock::now() + 20s;
    const auto seen = [&] {
      const std::lock_guard lock{mutex};
      return events.size();
    };
    for (std::size_t told = 0; seen() < 5 && std::chrono::steady_clock::now() < end;) {
      if (seen() > told) {
        told = seen();
        publisher.set(service, "ExternalIPAddress", "203.0.113." + std::to_string(1 + told), clock.now());
      }
      publisher.handle_timeout(clock.now());
      carrier.drain();
      io.restart();
      io.run_for(5ms);
    }
    EXPECT_EQ(carrier.counts().timed_out, 0u);
  });
  good.reset();
  EXPECT_THAT(events, ElementsAre("0", "1", "2", "3", "4"));
}

}  // namespace
}  // namespace sallyport::transport
