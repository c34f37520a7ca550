#include "src/transport/udp_service.hpp"

#include <net/if.h>

#include <atomic>
#include <deque>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>

#include "src/transport/anycast.hpp"
#include "src/transport/netlink.hpp"
#include "tests/src/transport/namespaces.hpp"

namespace sallyport::transport {
namespace {

using namespace std::chrono_literals;
using test::HostSocket;
using test::Namespace;

const std::string anycast = "2001:1::1";

/// Answers each datagram with itself.
class EchoCore final : public wire::DatagramCore {
 public:
  void handle_datagram(std::span<const std::byte> datagram, const wire::Arrival& arrival,
                       TimePoint) override {
    ++handled;
    out.push_back({{datagram.begin(), datagram.end()},
                   arrival.source,
                   arrival.source_port,
                   arrival.destination,
                   UdpService::port,
                   arrival.interface});
  }
  void handle_timeout(TimePoint) override {}
  std::optional<wire::Outgoing> poll_transmit() override {
    if (out.empty()) return std::nullopt;
    auto next = std::move(out.front());
    out.pop_front();
    return next;
  }
  std::optional<TimePoint> next_deadline() const override { return std::nullopt; }

  std::atomic<int> handled{0};
  std::deque<wire::Outgoing> out;
};

/// A gateway that serves lan0 (192.168.1.1) and not lan1 (192.168.2.1) nor wan0 (203.0.113.1), and a host on
/// each.
class UdpServiceTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const auto lacking = test::no_namespaces()) GTEST_SKIP() << *lacking;
    ASSERT_TRUE(gateway.connect("lan0", alice, "eth0"));
    ASSERT_TRUE(gateway.connect("lan1", guest, "eth0"));
    ASSERT_TRUE(gateway.connect("wan0", stranger, "eth0"));
    gateway.ip("addr add 192.168.1.1/24 brd + dev lan0");
    gateway.ip("addr add 192.168.1.129/24 dev lan0");
    gateway.ip("addr add 192.168.2.1/24 brd + dev lan1");
    gateway.ip("addr add 203.0.113.1/24 brd + dev wan0");
    alice.ip("addr add 192.168.1.2/24 brd + dev eth0");
    alice.ip("addr add 192.168.1.3/24 brd + dev eth0");
    guest.ip("addr add 192.168.2.2/24 brd + dev eth0");
    stranger.ip("addr add 203.0.113.2/24 brd + dev eth0");
    for (const auto* host : {&alice, &guest, &stranger}) {
      const bool wan = host == &stranger;
      const std::string gate = wan ? "203.0.113.1" : host == &alice ? "192.168.1.1" : "192.168.2.1";
      host->ip("route add default via " + gate);
    }
    open();
  }
  void TearDown() override { close(); }

  void open(UdpService::Options options = {}) {
    gateway.inside([&] {
      io.restart();
      watcher = std::move(*NetworkWatcher::open(io.get_executor()));
      service = std::make_unique<UdpService>(io, core, clock, options, nullptr);
      serve({"lan0"});
    });
    loop = std::thread{[this] { io.run(); }};
  }
  void close() {
    if (!loop.joinable()) return;
    asio_post([this] { service.reset(); });
    work.reset();
    io.stop();
    loop.join();
    watcher.reset();
  }
  /// On a thread of the gateway's namespace.
  bool serve(std::vector<std::string> lan) {
    watcher->refresh();
    auto view = build_view(watcher->state(), {lan, {"wan0"}, {}, {}, {}});
    auto own = own_addresses(watcher->state());
    for (const auto& six : watcher->state().ipv6) {
      own.push_back(six.address.address);
      for (auto& interface : view.lan)
        if (interface.index == six.interface) {
          interface.addresses.push_back(six.address.address);
          if (!six.address.address.to_string().starts_with("fe80")) interface.prefixes.push_back(six.address);
        }
    }
    for (auto& interface : view.lan)
      if (!interface.addresses.empty()) interface.addresses.push_back(*Address::parse(anycast));
    return service->serve(view.lan, own, why);
  }
  /// Runs on the control thread and waits.
  void asio_post(const std::function<void()>& what) {
    std::atomic<bool> done{false};
    boost::asio::post(io, [&] {
      what();
      done = true;
      done.notify_all();
    });
    done.wait(false);
  }
  void expect_answer(const Namespace& host, const std::string& address, const std::string& from = "0.0.0.0") {
    HostSocket socket{host, from};
    ASSERT_TRUE(socket.good());
    ASSERT_TRUE(socket.send("hello", address, UdpService::port));
    const auto answer = socket.receive(5000);
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->bytes, "hello");
    EXPECT_EQ(answer->from, address) << "an answer leaves from where it was asked (PCP-7-03, NPM-3.1-08)";
    EXPECT_EQ(answer->from_port, UdpService::port);
  }
  void expect_silence(const Namespace& host, const std::string& address, const std::string& says,
                      const std::string& from = "0.0.0.0") {
    HostSocket socket{host, from};
    ASSERT_TRUE(socket.good()) << says;
    socket.send("hello", address, UdpService::port);
    const auto answer = socket.receive(300);
    EXPECT_FALSE(answer) << says << ": " << answer->bytes;
  }

  Namespace gateway, alice, guest, stranger;
  boost::asio::io_context io;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work{io.get_executor()};
  EchoCore core;
  SystemClock clock;
  std::unique_ptr<NetworkWatcher> watcher;
  std::unique_ptr<UdpService> service;
  std::string why;
  std::thread loop;
};

TEST_F(UdpServiceTest, AnswersADeviceFromTheAddressItAsked) {
  expect_answer(alice, "192.168.1.1");
  expect_answer(alice, "192.168.1.129");
}

// POL-WHO-01..03: silence is no packet at all, no ICMP error either
TEST_F(UdpServiceTest, IsSilentForEverybodyElse) {
  expect_silence(stranger, "203.0.113.1", "from the WAN to the external address");
  expect_silence(stranger, "192.168.1.1", "from the WAN to the LAN address");
  expect_silence(guest, "192.168.2.1", "a LAN that is not served");
  expect_silence(guest, "192.168.1.1", "a LAN that is not served, to the served one's address");
  expect_silence(alice, "203.0.113.1", "from the LAN to the external address");
  expect_silence(alice, "192.168.2.1", "from the LAN to another LAN's address");
  expect_silence(alice, "192.168.1.255", "to the subnet's broadcast address");
  expect_silence(alice, "255.255.255.255", "to the limited broadcast address");
  expect_silence(alice, "224.0.0.1", "to a group");
  expect_silence(gateway, "192.168.1.1", "from the gateway itself");
  expect_silence(gateway, "127.0.0.1", "from the gateway to loopback");
  EXPECT_EQ(core.handled, 0);
  expect_answer(alice, "192.168.1.1");
  EXPECT_EQ(core.handled, 1);
}

/// The same over IPv6: lan0 has 2001:db8:1::1 and fe80::1, the WAN 2001:db8:9::1.
class UdpServiceIpv6Test : public UdpServiceTest {
 protected:
  void SetUp() override {
    UdpServiceTest::SetUp();
    if (IsSkipped()) return;
    for (const auto& [host, address] :
         std::vector<std::pair<const Namespace*, std::string>>{{&gateway, "2001:db8:1::1/64 dev lan0"},
                                                               {&gateway, "fe80::1/64 dev lan0"},
                                                               {&gateway, "2001:db8:2::1/64 dev lan1"},
                                                               {&gateway, "2001:db8:9::1/64 dev wan0"},
                                                               {&alice, "2001:db8:1::2/64 dev eth0"},
                                                               {&alice, "2001:db8:1::3/64 dev eth0"},
                                                               {&alice, "fe80::2/64 dev eth0"},
                                                               {&guest, "2001:db8:2::2/64 dev eth0"},
                                                               {&stranger, "2001:db8:9::2/64 dev eth0"}})
      if (!host->ip("-6 addr add " + address + " nodad")) GTEST_SKIP() << "the kernel has no IPv6";
    for (const auto* host : {&alice, &guest, &stranger})
      host->ip("-6 route add default via " + std::string{host == &stranger ? "2001:db8:9::1"
                                                         : host == &alice  ? "2001:db8:1::1"
                                                                           : "2001:db8:2::1"});
    asio_post([&] { gateway.inside([&] { EXPECT_TRUE(serve({"lan0"})) << why; }); });
  }
};

TEST_F(UdpServiceIpv6Test, AnswersADeviceFromTheAddressItAsked) {  // PCP-7-02, PCP-7-03
  expect_answer(alice, "2001:db8:1::1", "2001:db8:1::2");
  expect_answer(alice, "fe80::1", "fe80::2");
  expect_answer(alice, "192.168.1.1");
}

TEST_F(UdpServiceIpv6Test, AnswersAtTheAnycastAddressWhereThatIsClaimed) {  // ANY-3-02
  bool claimed = false;
  gateway.inside([&] { claimed = claim_anycast(*Address::parse(anycast), true, why); });
  ASSERT_TRUE(claimed) << why;
  expect_answer(alice, anycast, "2001:db8:1::2");
  gateway.inside([&] { claimed = claim_anycast(*Address::parse(anycast), false, why); });
  EXPECT_TRUE(claimed) << why;
  gateway.inside(
      [&] { EXPECT_TRUE(claim_anycast(*Address::parse(anycast), false, why)) << "once more: " << why; });
}

TEST_F(UdpServiceIpv6Test, IsSilentForEverybodyElse) {  // POL-WHO-01..03
  expect_silence(stranger, "2001:db8:9::1", "from the WAN to its address there", "2001:db8:9::2");
  expect_silence(stranger, "2001:db8:1::1", "from the WAN to the LAN address", "2001:db8:9::2");
  expect_silence(guest, "2001:db8:2::1", "a LAN that is not served", "2001:db8:2::2");
  expect_silence(guest, "2001:db8:1::1", "a LAN that is not served, to the served one's address",
                 "2001:db8:2::2");
  expect_silence(alice, "2001:db8:9::1", "from the LAN to the WAN address", "2001:db8:1::2");
  expect_silence(alice, "ff02::1", "to a group", "2001:db8:1::2");
  expect_silence(alice, "2001:db8:1::1", "from outside the LAN prefixes", "2001:db8:7::7");
  expect_silence(alice, "2001:db8:1::1", "from an address of the link to another", "fe80::2");
  EXPECT_EQ(core.handled, 0);
}

TEST_F(UdpServiceIpv6Test, AnnouncementsReachTheGroup) {  // PCP-14.1-04
  HostSocket listener{alice, "::", 5350};
  ASSERT_TRUE(listener.good());
  asio_post([&] {
    std::uint32_t index = 0;
    gateway.inside([&] { index = ::if_nametoindex("lan0"); });
    for (const auto* from : {"2001:db8:1::1", "fe80::1"})
      core.out.push_back({{std::byte{'!'}},
                          *Address::parse("ff02::1"),
                          5350,
                          *Address::parse(from),
                          UdpService::port,
                          index});
    service->drain();
  });
  for (const auto* from : {"2001:db8:1::1", "fe80::1"}) {
    const auto heard = listener.receive(2000);
    ASSERT_TRUE(heard);
    EXPECT_EQ(heard->from, from);
    EXPECT_EQ(heard->from_port, UdpService::port);
  }
}

TEST_F(UdpServiceIpv6Test, AFloodOfOneSourceLeavesTheOtherAnswered) {  // POL-FAIR-01
  std::atomic<bool> over{false};
  std::thread flood{[&] {
    HostSocket socket{alice, "2001:db8:1::3"};
    while (!over) socket.send("flood", "2001:db8:1::1", UdpService::port);
  }};
  for (std::uint64_t refused = 0; refused == 0;) asio_post([&] { refused = service->counts().over_rate; });
  HostSocket socket{alice, "2001:db8:1::2"};
  int answered = 0;
  for (int i = 0; i < 20; ++i) {
    socket.send(std::to_string(i), "2001:db8:1::1", UdpService::port);
    const auto answer = socket.receive(5000);
    answered += answer && answer->bytes == std::to_string(i) ? 1 : 0;
  }
  // that it is a flood shows when it has gone on for a while
  std::uint64_t floods = 0;
  for (const auto end = std::chrono::steady_clock::now() + std::chrono::seconds{20};
       floods == 0 && std::chrono::steady_clock::now() < end;)
    asio_post([&] { floods = service->counts().floods; });
  over = true;
  flood.join();
  EXPECT_GE(answered, 19);
  EXPECT_GT(floods, 0u) << "stopped in the kernel";
}

TEST_F(UdpServiceTest, IsSilentForSourcesThatDoNotBelongThere) {
  // replies would go elsewhere: the core must never see these
  for (const char* source : {"198.51.100.9", "192.168.2.2", "203.0.113.1", "192.168.1.1"}) {
    alice.ip("addr add " + std::string{source} + "/32 dev eth0");
    expect_silence(alice, "192.168.1.129", source, source);
  }
  EXPECT_EQ(core.handled, 0);
}

TEST_F(UdpServiceTest, NobodyElseCanTakeThePortMeanwhile) {
  gateway.inside([&] {
    const int socket = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    const int one = 1;
    ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(UdpService::port);
    ::inet_pton(AF_INET, "192.168.1.1", &address.sin_addr);
    EXPECT_NE(::bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(errno, EADDRINUSE);
    ::close(socket);
  });
}

TEST_F(UdpServiceTest, WithNothingToServeThePortIsLeftAlone) {  // NPM-3.5-07, NPM-3.8-02
  asio_post([&] { gateway.inside([&] { EXPECT_TRUE(serve({})) << why; }); });
  {
    HostSocket other{gateway, "0.0.0.0", UdpService::port};
    EXPECT_TRUE(other.good());
  }
  asio_post([&] { gateway.inside([&] { EXPECT_TRUE(serve({"lan0"})) << why; }); });
  expect_answer(alice, "192.168.1.1");
}

TEST_F(UdpServiceTest, SaysWhoHasThePortWhenItIsTaken) {
  close();
  HostSocket other{gateway, "192.168.1.1", UdpService::port};
  ASSERT_TRUE(other.good());
  gateway.inside([&] {
    io.restart();
    watcher = std::move(*NetworkWatcher::open(io.get_executor()));
    service = std::make_unique<UdpService>(io, core, clock, UdpService::Options{}, nullptr);
    EXPECT_FALSE(serve({"lan0"}));
    service.reset();
    watcher.reset();
  });
  EXPECT_NE(why.find("UDP port 5351 is taken by another program"), std::string::npos) << why;
}

TEST_F(UdpServiceTest, ServesAnInterfaceThatComesLater) {
  asio_post([&] { gateway.inside([&] { EXPECT_TRUE(serve({"lan0", "late0"})) << why; }); });
  ASSERT_TRUE(gateway.ip("link del lan1"));
  ASSERT_TRUE(gateway.connect("late0", guest, "eth1"));
  gateway.ip("addr add 192.168.2.1/24 dev late0");
  guest.ip("addr add 192.168.2.2/24 dev eth1");
  asio_post([&] { gateway.inside([&] { EXPECT_TRUE(serve({"lan0", "late0"})) << why; }); });
  expect_answer(guest, "192.168.2.1");
  ASSERT_TRUE(gateway.ip("link del late0"));
  asio_post([&] { gateway.inside([&] { EXPECT_TRUE(serve({"lan0", "late0"})) << why; }); });
  expect_answer(alice, "192.168.1.1");
}

// NPM-3.2.1-01, PCP-14.1-04
TEST_F(UdpServiceTest, AnnouncementsReachTheGroupOnTheirInterfaceOnly) {
  HostSocket listener{alice, "224.0.0.1", 5350};
  HostSocket elsewhere{guest, "224.0.0.1", 5350};
  ASSERT_TRUE(listener.good() && elsewhere.good());
  asio_post([&] {
    std::uint32_t index = 0;
    gateway.inside([&] { index = ::if_nametoindex("lan0"); });
    core.out.push_back({{std::byte{'!'}},
                        *Address::parse("224.0.0.1"),
                        5350,
                        *Address::parse("192.168.1.129"),
                        UdpService::port,
                        index});
    service->drain();
  });
  const auto heard = listener.receive(5000);
  ASSERT_TRUE(heard);
  EXPECT_EQ(heard->bytes, "!");
  EXPECT_EQ(heard->from, "192.168.1.129");
  EXPECT_EQ(heard->from_port, UdpService::port);
  EXPECT_FALSE(elsewhere.receive(100));
}

// POL-QTA-03, POL-FAIR-01
TEST_F(UdpServiceTest, AFloodOfOneSourceLeavesTheOtherAnswered) {
  std::atomic<bool> over{false};
  std::thread flood{[&] {
    HostSocket socket{alice, "192.168.1.3"};
    while (!over) socket.send("flood", "192.168.1.1", UdpService::port);
  }};
  // while its burst lasts a flood is no flood yet
  for (std::uint64_t refused = 0; refused == 0;) asio_post([&] { refused = service->counts().over_rate; });
  HostSocket socket{alice, "192.168.1.2"};
  int answered = 0;
  for (int i = 0; i < 50; ++i) {
    socket.send(std::to_string(i), "192.168.1.1", UdpService::port);
    const auto answer = socket.receive(5000);
    answered += answer && answer->bytes == std::to_string(i) ? 1 : 0;
  }
  over = true;
  flood.join();
  EXPECT_EQ(answered, 50);
}

}  // namespace
}  // namespace sallyport::transport
