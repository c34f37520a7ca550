#include "src/transport/multicast.hpp"

#include <net/if.h>

#include <atomic>
#include <deque>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>

#include "src/transport/netlink.hpp"
#include "tests/src/transport/namespaces.hpp"

namespace sallyport::transport {
namespace {

using namespace std::chrono_literals;
using test::HostSocket;
using test::Namespace;

const std::string search = "M-SEARCH * HTTP/1.1\r\n\r\n";

// --- what counts, as a table ---

nat::PlaneInterface lan0() {
  nat::PlaneInterface lan;
  lan.name = "lan0";
  lan.index = 3;
  lan.addresses = {*Address::parse("192.168.1.1")};
  lan.prefixes = {*Prefix::parse("192.168.1.0/24")};
  return lan;
}

// POL-WHO-01..03, UDA-1.3-14, -15
TEST(SsdpArrival, CountsFromAHostOfTheLanToTheGatewayOrTheGroup) {
  const std::vector<Prefix> ipv6{*Prefix::parse("fe80::1/64"), *Prefix::parse("2001:db8:1::1/64")};
  const std::vector<Address> own{*Address::parse("192.168.1.1"), *Address::parse("203.0.113.1"),
                                 *Address::parse("2001:db8:f::1")};
  struct Row {
    const char* source;
    const char* destination;
    Ignored expected;
    std::uint32_t interface = 3;
    std::uint16_t source_port = 40000;
  };
  using enum Ignored;
  const Row rows[] = {
      {"192.168.1.2", "239.255.255.250", no},
      {"192.168.1.2", "192.168.1.1", no},
      {"192.168.1.2", "239.255.255.250", wrong_interface, 4},
      {"192.168.1.2", "239.255.255.250", wrong_source, 3, 0},
      {"192.168.1.2", "239.255.255.251", wrong_destination},
      {"192.168.1.2", "224.0.0.1", wrong_destination},
      {"192.168.1.2", "192.168.1.255", wrong_destination},
      {"192.168.1.2", "255.255.255.255", wrong_destination},
      {"192.168.1.2", "203.0.113.1", wrong_destination},
      {"192.168.2.2", "239.255.255.250", wrong_source},
      {"192.168.1.1", "239.255.255.250", wrong_source},
      {"192.168.1.255", "239.255.255.250", wrong_source},
      {"0.0.0.0", "239.255.255.250", wrong_source},
      {"127.0.0.1", "239.255.255.250", wrong_source},
      {"169.254.1.1", "239.255.255.250", wrong_source},
      {"224.0.0.1", "239.255.255.250", wrong_source},
      {"fe80::2", "ff02::c", no},
      {"fe80::2", "ff05::c", no},
      {"fe80::2", "fe80::1", no},
      {"2001:db8:1::2", "ff02::c", no},
      {"2001:db8:1::2", "2001:db8:1::1", no},
      {"fe80::2", "ff02::c", wrong_interface, 4},
      {"fe80::2", "ff02::c", wrong_source, 3, 0},
      {"fe80::2", "ff02::1", wrong_destination},
      {"fe80::2", "ff08::c", wrong_destination},
      {"fe80::2", "fe80::3", wrong_destination},
      {"fe80::2", "2001:db8:f::1", wrong_destination},
      {"2001:db8:2::2", "ff02::c", wrong_source},
      {"2001:db8:f::1", "ff02::c", wrong_source},
      {"fe80::1", "ff02::c", wrong_source},
      {"2001:db8:1::1", "ff05::c", wrong_source},
      {"::", "ff02::c", wrong_source},
      {"::1", "ff02::c", wrong_source},
      {"ff02::c", "ff02::c", wrong_source},
      {"192.168.1.2", "ff02::c", wrong_source},
      {"fe80::2", "239.255.255.250", wrong_source},
  };
  for (const auto& row : rows) {
    const wire::Arrival arrival{*Address::parse(row.source), row.source_port, *Address::parse(row.destination), row.interface};
    EXPECT_EQ(check_ssdp_arrival(arrival, lan0(), ipv6, own), row.expected) << row.source << " to " << row.destination;
  }
  auto bare = lan0();
  bare.addresses.clear();
  EXPECT_EQ(check_ssdp_arrival({*Address::parse("192.168.1.2"), 1, *Address::parse("239.255.255.250"), 3}, bare, ipv6, own),
            Ignored::wrong_destination);
  EXPECT_EQ(check_ssdp_arrival({*Address::parse("fe80::2"), 1, *Address::parse("ff02::c"), 3}, lan0(), {}, own),
            Ignored::wrong_destination);
}

// --- real sockets between network namespaces; skips where it may not make them ---

/// Answers each datagram with itself: from where it was asked, after a multicast from the address for that family.
class EchoCore final : public wire::DatagramCore {
 public:
  void handle_datagram(std::span<const std::byte> datagram, const wire::Arrival& arrival, TimePoint) override {
    ++handled;
    auto from = arrival.destination;
    if (from == *Address::parse("239.255.255.250")) from = *Address::parse("192.168.1.1");
    if (from.bytes()[0] == std::byte{0xff})
      from = *Address::parse(arrival.source.bytes()[0] == std::byte{0xfe} ? "fe80::1" : "fd00:1::1");
    out.push_back({{datagram.begin(), datagram.end()}, arrival.source, arrival.source_port, from, 1900, arrival.interface});
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

/// An IPv6 UDP socket of a host.
class HostSocket6 {
 public:
  HostSocket6(const Namespace& host, const std::string& device, const std::string& bind_to = "::", std::uint16_t port = 0) {
    host.inside([&] {
      descriptor_ = ::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
      index_ = ::if_nametoindex(device.c_str());
    });
    const int one = 1;
    const int index = static_cast<int>(index_);
    ::setsockopt(descriptor_, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    ::setsockopt(descriptor_, IPPROTO_IPV6, IPV6_RECVERR, &one, sizeof one);
    ::setsockopt(descriptor_, IPPROTO_IPV6, IPV6_FREEBIND, &one, sizeof one);
    ::setsockopt(descriptor_, IPPROTO_IPV6, IPV6_MULTICAST_IF, &index, sizeof index);
    const int hops = 4;
    ::setsockopt(descriptor_, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, &hops, sizeof hops);
    const auto address = to(bind_to, port);
    good_ = ::bind(descriptor_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
  }
  HostSocket6(const HostSocket6&) = delete;
  HostSocket6& operator=(const HostSocket6&) = delete;
  ~HostSocket6() { ::close(descriptor_); }
  bool good() const { return good_; }
  bool join(const std::string& group) {
    ipv6_mreq request{};
    ::inet_pton(AF_INET6, group.c_str(), &request.ipv6mr_multiaddr);
    request.ipv6mr_interface = index_;
    return ::setsockopt(descriptor_, IPPROTO_IPV6, IPV6_JOIN_GROUP, &request, sizeof request) == 0;
  }
  bool send(const std::string& bytes, const std::string& address) {
    const auto there = to(address, 1900);
    return ::sendto(descriptor_, bytes.data(), bytes.size(), 0, reinterpret_cast<const sockaddr*>(&there), sizeof there) ==
           static_cast<ssize_t>(bytes.size());
  }
  std::optional<HostSocket::Received> receive(int milliseconds) {
    pollfd wait{descriptor_, POLLIN, 0};
    if (::poll(&wait, 1, milliseconds) <= 0) return std::nullopt;
    std::string bytes(2048, '\0');
    sockaddr_in6 from{};
    socklen_t size = sizeof from;
    const auto count = ::recvfrom(descriptor_, bytes.data(), bytes.size(), 0, reinterpret_cast<sockaddr*>(&from), &size);
    if (count < 0) return HostSocket::Received{"ICMP", "", 0};
    bytes.resize(static_cast<std::size_t>(count));
    char text[INET6_ADDRSTRLEN] = {};
    ::inet_ntop(AF_INET6, &from.sin6_addr, text, sizeof text);
    return HostSocket::Received{bytes, text, ntohs(from.sin6_port)};
  }

 private:
  sockaddr_in6 to(const std::string& address, std::uint16_t port) const {
    sockaddr_in6 result{};
    result.sin6_family = AF_INET6;
    result.sin6_port = htons(port);
    ::inet_pton(AF_INET6, address.c_str(), &result.sin6_addr);
    if (address.starts_with("fe80") || address.starts_with("ff")) result.sin6_scope_id = index_;
    return result;
  }
  int descriptor_ = -1;
  unsigned index_ = 0;
  bool good_ = false;
};

/// A gateway that serves lan0 (192.168.1.1, fe80::1, fd00:1::1) and not lan1 (192.168.2.1) nor wan0 (203.0.113.1,
/// 2001:db8::1), and a host on each.
class MulticastTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const auto why_not = test::no_namespaces()) GTEST_SKIP() << *why_not;
    for (const auto* each : {&gateway, &alice, &guest, &stranger}) {
      each->inside([] {  // addresses are there at once, and only those that are set here
        for (const auto* key : {"accept_dad", "addr_gen_mode"})
          (void)!std::system((std::string{"sysctl -qw net.ipv6.conf.default."} + key + (key[1] == 'c' ? "=0" : "=1")).c_str());
      });
    }
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
    alice.ip("route add default via 192.168.1.1");
    guest.ip("route add default via 192.168.2.1");
    stranger.ip("route add default via 203.0.113.1");
    for (const auto* address : {"fe80::1/64 dev lan0", "fd00:1::1/64 dev lan0", "fe80::1/64 dev wan0", "2001:db8::1/64 dev wan0"})
      gateway.ip(std::string{"addr add "} + address + " nodad");
    for (const auto* address : {"fe80::2/64", "fd00:1::2/64", "fd00:2::2/64"})
      alice.ip(std::string{"addr add "} + address + " dev eth0 nodad");
    for (const auto* address : {"fe80::2/64", "2001:db8::2/64"})
      stranger.ip(std::string{"addr add "} + address + " dev eth0 nodad");
    stranger.ip("route add fd00:1::/64 via 2001:db8::1");
    ASSERT_TRUE(reaches(alice, "192.168.1.1") && reaches(guest, "192.168.2.1") && reaches(stranger, "203.0.113.1"));
    open();
  }
  void TearDown() override { close(); }

  void open(MulticastService::Options options = {}) {
    gateway.inside([&] {
      io.restart();
      watcher = std::move(*NetworkWatcher::open(io.get_executor()));
      service = std::make_unique<MulticastService>(io, core, clock, options, nullptr);
      EXPECT_TRUE(serve({"lan0"})) << why;
    });
    loop = std::thread{[this] { io.run(); }};
  }
  void close() {
    if (!loop.joinable()) return;
    control([this] { service.reset(); });
    work.reset();
    io.stop();
    loop.join();
    watcher.reset();
  }
  /// Waits until a new cable carries packets both ways: what is sent before is lost, and a silence would say nothing.
  static bool reaches(const Namespace& host, const std::string& address) {
    HostSocket socket{host};
    for (int attempt = 0; attempt < 100; ++attempt) {
      socket.send("?", address, 9);  // nobody is there: an ICMP error says that it arrived
      if (socket.receive(100)) return true;
    }
    return false;
  }
  /// On a thread of the gateway's namespace.
  bool serve(std::vector<std::string> lan, bool six = true) {
    watcher->refresh();
    const auto view = build_view(watcher->state(), {lan, {"wan0"}, {}, {}, {}});
    std::vector<Ipv6Addresses> ipv6;
    if (six)
      for (const auto& interface : view.lan)
        if (interface.name == "lan0")
          ipv6.push_back({interface.index, {*Prefix::parse("fe80::1/64"), *Prefix::parse("fd00:1::1/64")}});
    return service->serve(view.lan, own_addresses(watcher->state()), ipv6, why);
  }
  bool serve_now(std::vector<std::string> lan, bool six = true) {
    bool good = false;
    control([&] { gateway.inside([&] { good = serve(lan, six); }); });
    return good;
  }
  /// Runs on the control thread and waits.
  void control(const std::function<void()>& what) {
    std::atomic<bool> done{false};
    boost::asio::post(io, [&] {
      what();
      done = true;
      done.notify_all();
    });
    done.wait(false);
  }
  std::uint32_t index_of(const char* name) {
    std::uint32_t index = 0;
    gateway.inside([&] { index = ::if_nametoindex(name); });
    return index;
  }
  void say(const std::string& bytes, const char* to, const char* from, std::uint32_t interface) {
    control([&] {
      const auto* octets = reinterpret_cast<const std::byte*>(bytes.data());
      core.out.push_back({{octets, octets + bytes.size()}, *Address::parse(to), 1900, *Address::parse(from), 1900, interface});
      service->drain();
    });
  }
  void expect_answer(const Namespace& host, const std::string& address, const std::string& answer_from) {
    HostSocket socket{host};
    ASSERT_TRUE(socket.send(search, address, 1900));
    const auto answer = socket.receive(5000);
    ASSERT_TRUE(answer) << address;
    EXPECT_EQ(answer->bytes, search);
    EXPECT_EQ(answer->from, answer_from);
    EXPECT_EQ(answer->from_port, 1900);
  }
  void expect_silence(const Namespace& host, const std::string& address, const std::string& says,
                      const std::string& from = "0.0.0.0") {
    HostSocket socket{host, from};
    ASSERT_TRUE(socket.good()) << says;
    socket.send(search, address, 1900);
    const auto answer = socket.receive(200);
    EXPECT_FALSE(answer) << says << ": " << answer->bytes;
  }
  MulticastService::Counts counts() {
    MulticastService::Counts result;
    control([&] { result = service->counts(); });
    return result;
  }

  Namespace gateway, alice, guest, stranger;
  boost::asio::io_context io;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work{io.get_executor()};
  EchoCore core;
  SystemClock clock;
  std::unique_ptr<NetworkWatcher> watcher;
  std::unique_ptr<MulticastService> service;
  std::string why;
  std::thread loop;
};

constexpr const char* group = "239.255.255.250";

// UDA-1.3-01, -03, -05
TEST_F(MulticastTest, HearsMulticastAndUnicastSearches) {
  expect_answer(alice, group, "192.168.1.1");
  expect_answer(alice, "192.168.1.1", "192.168.1.1");
  expect_answer(alice, "192.168.1.129", "192.168.1.129");
}

// POL-WHO-01..03, UDA-1.3-14, IGD-07: silence is no packet at all, no ICMP error either
TEST_F(MulticastTest, IsSilentForEverybodyElse) {
  expect_silence(stranger, group, "multicast on the WAN");
  expect_silence(stranger, "203.0.113.1", "from the WAN to the external address");
  expect_silence(stranger, "192.168.1.1", "from the WAN to the LAN address");
  expect_silence(guest, group, "multicast on a LAN that is not served");
  expect_silence(guest, "192.168.2.1", "a LAN that is not served");
  expect_silence(guest, "192.168.1.1", "a LAN that is not served, to the served one's address");
  expect_silence(alice, "203.0.113.1", "from the LAN to the external address");
  expect_silence(alice, "192.168.2.1", "from the LAN to another LAN's address");
  expect_silence(alice, "192.168.1.255", "to the subnet's broadcast address");
  expect_silence(alice, "255.255.255.255", "to the limited broadcast address");
  expect_silence(alice, "224.0.0.1", "to another group");
  expect_silence(gateway, "192.168.1.1", "from the gateway itself");
  expect_silence(gateway, "127.0.0.1", "from the gateway to loopback");
  EXPECT_EQ(core.handled, 0);
  expect_answer(alice, group, "192.168.1.1");
  EXPECT_EQ(core.handled, 1);
}

// UDA-1.3-15, POL-WHO-02
TEST_F(MulticastTest, IsSilentForSourcesThatDoNotBelongThere) {
  for (const char* source : {"198.51.100.9", "192.168.2.2", "203.0.113.1", "192.168.1.1"}) {
    alice.ip("addr add " + std::string{source} + "/32 dev eth0");
    expect_silence(alice, group, source, source);
    expect_silence(alice, "192.168.1.129", source, source);
  }
  EXPECT_EQ(core.handled, 0);
}

// POL-DSC-03, -04
TEST_F(MulticastTest, OnlySearchesOfLawfulLengthComeThrough) {
  HostSocket socket{alice};
  socket.send("NOTIFY * HTTP/1.1\r\n\r\n", group, 1900);
  socket.send("HTTP/1.1 200 OK\r\n\r\n", "192.168.1.1", 1900);
  socket.send("", "192.168.1.1", 1900);
  socket.send("M-S", "192.168.1.1", 1900);
  socket.send(search + std::string(2049 - search.size(), 'x'), group, 1900);
  socket.send(search + std::string(2048 - search.size(), 'x'), group, 1900);
  const auto answer = socket.receive(5000);
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->bytes.size(), 2048U);
  EXPECT_EQ(core.handled, 1);
}

// UDA-1.2-13, POL-WHO-06
TEST_F(MulticastTest, WhatItSaysIsHeardOnThatInterfaceAndOnThisMachineOnly) {
  HostSocket there{alice, "0.0.0.0", 1900}, elsewhere{guest, "0.0.0.0", 1900}, outside{stranger, "0.0.0.0", 1900};
  HostSocket6 there6{alice, "eth0", "::", 1900}, outside6{stranger, "eth0", "::", 1900};
  for (auto* socket : {&there, &elsewhere, &outside}) ASSERT_TRUE(socket->good());
  alice.inside([&] { ASSERT_TRUE(there.join(group)); });
  guest.inside([&] { ASSERT_TRUE(elsewhere.join(group)); });
  stranger.inside([&] { ASSERT_TRUE(outside.join(group)); });
  ASSERT_TRUE(there6.good() && outside6.good());
  ASSERT_TRUE(there6.join("ff02::c") && there6.join("ff05::c") && outside6.join("ff02::c") && outside6.join("ff05::c"));
  const int one = 1;
  ::setsockopt(there.descriptor(), IPPROTO_IP, IP_RECVTTL, &one, sizeof one);

  say("here", group, "192.168.1.129", index_of("lan0"));
  char bytes[16], controls[64];
  iovec vector{bytes, sizeof bytes};
  msghdr header{};
  header.msg_iov = &vector;
  header.msg_iovlen = 1;
  header.msg_control = controls;
  header.msg_controllen = sizeof controls;
  sockaddr_in from{};
  header.msg_name = &from;
  header.msg_namelen = sizeof from;
  pollfd waiting{there.descriptor(), POLLIN, 0};
  ASSERT_EQ(::poll(&waiting, 1, 5000), 1) << "sent " << counts().sent << ", failed " << counts().send_failed;
  ASSERT_EQ(::recvmsg(there.descriptor(), &header, MSG_DONTWAIT), 4);
  int ttl = 0;
  std::memcpy(&ttl, CMSG_DATA(CMSG_FIRSTHDR(&header)), sizeof ttl);
  EXPECT_EQ(ttl, 2);
  EXPECT_EQ(from.sin_addr.s_addr, ::inet_addr("192.168.1.129"));
  EXPECT_EQ(ntohs(from.sin_port), 1900);

  say("six", "ff02::c", "fe80::1", index_of("lan0"));
  say("six", "ff05::c", "fd00:1::1", index_of("lan0"));
  for (const auto* source : {"fe80::1", "fd00:1::1"}) {
    const auto heard = there6.receive(5000);
    ASSERT_TRUE(heard) << source;
    EXPECT_EQ(heard->bytes, "six");
    EXPECT_EQ(heard->from, source);
    EXPECT_EQ(heard->from_port, 1900);
  }
  // a core that errs cannot make it speak on another interface
  for (const auto* name : {"wan0", "lan1"}) {
    say("out", group, "203.0.113.1", index_of(name));
    say("out", "203.0.113.2", "192.168.1.1", index_of(name));
    say("out", "ff02::c", "fe80::1", index_of(name));
  }
  EXPECT_EQ(counts().send_failed, 6U);
  EXPECT_FALSE(elsewhere.receive(200));
  EXPECT_FALSE(outside.receive(50));
  EXPECT_FALSE(outside6.receive(50));
}

TEST_F(MulticastTest, SharesThePortWithOthersOnThisMachine) {
  const auto neighbour = [&] {
    int socket = -1;
    gateway.inside([&] {
      socket = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
      const int one = 1;
      ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
      sockaddr_in any{};
      any.sin_family = AF_INET;
      any.sin_port = htons(1900);
      EXPECT_EQ(::bind(socket, reinterpret_cast<const sockaddr*>(&any), sizeof any), 0);
      ip_mreqn request{};
      request.imr_multiaddr.s_addr = ::inet_addr(group);
      request.imr_ifindex = static_cast<int>(::if_nametoindex("lan0"));
      EXPECT_EQ(::setsockopt(socket, IPPROTO_IP, IP_ADD_MEMBERSHIP, &request, sizeof request), 0);
    });
    return socket;
  };
  const auto hears = [](int socket) {
    char bytes[256];
    pollfd wait{socket, POLLIN, 0};
    return ::poll(&wait, 1, 5000) == 1 ? std::string(bytes, static_cast<std::size_t>(std::max<ssize_t>(0, ::recv(socket, bytes, sizeof bytes, 0))))
                                       : "nothing";
  };
  const int later = neighbour();
  expect_answer(alice, group, "192.168.1.1");
  EXPECT_EQ(hears(later), search);
  say("NOTIFY", group, "192.168.1.1", index_of("lan0"));
  EXPECT_EQ(hears(later), "NOTIFY") << "control points here hear the gateway too";
  // and the other way round: it was there first
  ASSERT_TRUE(serve_now({}));
  ASSERT_TRUE(serve_now({"lan0"})) << why;
  expect_answer(alice, group, "192.168.1.1");
  expect_answer(alice, "192.168.1.1", "192.168.1.1");
  EXPECT_EQ(hears(later), search);
  ::close(later);
}

TEST_F(MulticastTest, SaysThatThePortIsTakenByOneWhoDoesNotShare) {
  ASSERT_TRUE(serve_now({}));
  {
    HostSocket other{gateway, "0.0.0.0", 1900};
    ASSERT_TRUE(other.good()) << "with nothing to serve the port is left alone";
    EXPECT_FALSE(serve_now({"lan0"}));
    EXPECT_NE(why.find("UDP port 1900 is taken by another program"), std::string::npos) << why;
  }
  EXPECT_TRUE(serve_now({"lan0"})) << why;
  expect_answer(alice, group, "192.168.1.1");
}

TEST_F(MulticastTest, ServesInterfacesAsTheyComeAndGo) {
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(serve_now({"lan0", "late0"})) << why;  // nothing happens
  ASSERT_TRUE(gateway.ip("link del lan1"));
  ASSERT_TRUE(gateway.connect("late0", guest, "eth1"));
  gateway.ip("addr add 192.168.2.1/24 dev late0");
  guest.ip("addr add 192.168.2.2/24 dev eth1");
  guest.ip("route add default dev eth1");
  ASSERT_TRUE(reaches(guest, "192.168.2.1"));
  EXPECT_TRUE(serve_now({"lan0", "late0"})) << why;
  expect_answer(guest, "192.168.2.1", "192.168.2.1");
  ASSERT_TRUE(gateway.ip("link del late0"));
  EXPECT_TRUE(serve_now({"lan0", "late0"})) << why;
  expect_answer(alice, group, "192.168.1.1");
  // one that lost its addresses and gets them back is still in the group
  gateway.ip("addr flush dev lan0");
  EXPECT_TRUE(serve_now({"lan0"})) << why;
  gateway.ip("addr add 192.168.1.1/24 brd + dev lan0");
  EXPECT_TRUE(serve_now({"lan0"})) << why;
  expect_answer(alice, group, "192.168.1.1");
  EXPECT_TRUE(serve_now({})) << why;
  expect_silence(alice, group, "no longer served");
}

TEST_F(MulticastTest, HearsIpv6SearchesOfTheLink) {
  struct Row {
    const char* source;
    const char* to;
    const char* answer;
  };
  for (const auto& row : {Row{"fe80::2", "ff02::c", "fe80::1"}, Row{"fe80::2", "ff05::c", "fe80::1"},
                          Row{"fd00:1::2", "ff02::c", "fd00:1::1"}, Row{"fd00:1::2", "ff05::c", "fd00:1::1"},
                          Row{"fd00:1::2", "fd00:1::1", "fd00:1::1"}, Row{"fe80::2", "fe80::1", "fe80::1"}}) {
    HostSocket6 socket{alice, "eth0", row.source};
    ASSERT_TRUE(socket.good()) << row.source;
    ASSERT_TRUE(socket.send(search, row.to)) << row.to << ": " << std::strerror(errno);
    const auto answer = socket.receive(5000);
    ASSERT_TRUE(answer) << row.source << " to " << row.to;
    EXPECT_EQ(answer->bytes, search);
    EXPECT_EQ(answer->from, row.answer);
    EXPECT_EQ(answer->from_port, 1900);
  }
}

// UDA-1.3-14, POL-WHO-01..03
TEST_F(MulticastTest, IsSilentForOtherIpv6Hosts) {
  const auto silence = [&](const Namespace& host, const char* source, const char* to, const char* says) {
    HostSocket6 socket{host, "eth0", source};
    ASSERT_TRUE(socket.good()) << says;
    socket.send(search, to);
    const auto answer = socket.receive(200);
    EXPECT_FALSE(answer) << says << ": " << answer->bytes;
  };
  silence(stranger, "fe80::2", "ff02::c", "multicast on the WAN");
  silence(stranger, "2001:db8::2", "ff05::c", "multicast on the WAN");
  silence(stranger, "2001:db8::2", "2001:db8::1", "from the WAN to the WAN address");
  silence(stranger, "fe80::2", "fe80::1", "from the WAN to the link-local address there");
  silence(stranger, "2001:db8::2", "fd00:1::1", "from the WAN to the LAN address");
  silence(alice, "fd00:2::2", "ff02::c", "from a prefix that is not on this link");
  silence(alice, "fd00:1::2", "2001:db8::1", "from the LAN to the WAN address");
  silence(alice, "fe80::2", "ff02::1", "to another group");
  EXPECT_EQ(core.handled, 0);
  ASSERT_TRUE(serve_now({"lan0"}, false)) << why;
  {
    HostSocket6 other{gateway, "lan0", "::", 1900};
    EXPECT_TRUE(other.good()) << "without IPv6 addresses that port is left alone";
  }
  silence(alice, "fe80::2", "ff02::c", "IPv6 is not served any more");
  EXPECT_EQ(core.handled, 0);
  expect_answer(alice, group, "192.168.1.1");
}

// POL-DSC-01
TEST_F(MulticastTest, AFloodOfOneSourceLeavesTheOtherAnswered) {
  std::atomic<bool> over{false};
  std::thread flood{[&] {
    HostSocket socket{alice, "192.168.1.3"};
    while (!over) socket.send(search, "192.168.1.1", 1900);
  }};
  for (std::uint64_t refused = 0; refused == 0;) refused = counts().over_rate;
  HostSocket socket{alice, "192.168.1.2"};
  int answered = 0;
  for (int i = 0; i < 20; ++i) {
    const auto mine = search + std::to_string(i);
    socket.send(mine, group, 1900);
    const auto answer = socket.receive(2000);
    answered += answer && answer->bytes == mine ? 1 : 0;
  }
  over = true;
  flood.join();
  EXPECT_GE(answered, 10) << "one of two searches is answered, whatever the machine";
}

}  // namespace
}  // namespace sallyport::transport
