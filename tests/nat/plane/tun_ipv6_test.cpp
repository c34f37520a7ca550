#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <thread>

#include "nat/plane/tun/tun_plane.hpp"
#include "tests/support/packet_builder6.hpp"
#include "tun_lab.hpp"

// IPv6 through the tun plane in a real kernel: what passes, what is silent, what fails closed.

namespace sallyport::nat {
namespace {

using namespace sallyport::nat::testing;
using namespace std::chrono_literals;
using namespace sallyport::test::flag;
using sallyport::Port;
using test::describe6;
using test::echo6;
using test::echo_reply6;
using test::Octets;
using test::tcp6;
using test::udp6;

constexpr const char* gateway = "2001:db8:1::1";
constexpr const char* host = "2001:db8:1::10";
constexpr const char* guest_host = "2001:db8:2::10";
constexpr const char* wan_address = "2001:db8:3::2";
constexpr const char* server = "2001:db8:f::7";
constexpr const char* other_server = "2001:db8:f::8";
constexpr const char* vpn_host = "2001:db8:8::2";

Address address_of(const char* text) { return *Address::parse(text); }
Port port(std::uint32_t number) { return *Port::from(number); }

/// Sends and catches IPv6 frames at the far end of an interface of the gateway.
class Raw6 {
 public:
  explicit Raw6(FarEnd& far) : far_{far} {
    std::ifstream in{"/sys/class/net/" + far.interface() + "/address"};
    std::string mac = run("ip -o link show dev " + far.interface());
    mac = mac.substr(mac.find("link/ether ") + 11, 17);
    for (std::size_t i = 0; i < 6; ++i)
      mac_[i] = static_cast<std::uint8_t>(std::stoul(mac.substr(i * 3, 2), nullptr, 16));
    far.inside([&] {
      socket_ = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, htons(ETH_P_IPV6));
      sockaddr_ll local{};
      local.sll_family = AF_PACKET;
      local.sll_protocol = htons(ETH_P_IPV6);
      local.sll_ifindex = static_cast<int>(if_nametoindex("host"));
      EXPECT_EQ(bind(socket_, reinterpret_cast<sockaddr*>(&local), sizeof local), 0);
    });
  }
  ~Raw6() { close(socket_); }
  Raw6(const Raw6&) = delete;

  void send(const Octets& packet) const {
    std::vector<std::uint8_t> frame(mac_.begin(), mac_.end());
    frame.insert(frame.end(), {2, 0, 0, 0, 0, 0x99, 0x86, 0xdd});
    for (const std::byte octet : packet) frame.push_back(std::to_integer<std::uint8_t>(octet));
    ASSERT_EQ(::send(socket_, frame.data(), frame.size(), 0), static_cast<ssize_t>(frame.size()));
  }
  /// The next packet that describe6() tells so, up to five seconds away; others but neighbour discovery go to
  /// `others`.
  std::optional<Octets> await(const std::string& wanted, std::vector<std::string>* others = nullptr) const {
    const auto end = std::chrono::steady_clock::now() + 5s;
    while (std::chrono::steady_clock::now() < end) {
      pollfd wait{socket_, POLLIN, 0};
      poll(&wait, 1, 100);
      while (auto packet = receive()) {
        const std::string told = describe6(*packet);
        if (told == wanted) {
          EXPECT_TRUE(test::checksum_is_right6(*packet)) << told;
          return packet;
        }
        if (others && !is_discovery(*packet)) others->push_back(told);
      }
    }
    return std::nullopt;
  }
  std::vector<std::string> drain() const {
    std::vector<std::string> told;
    while (auto packet = receive())
      if (!is_discovery(*packet)) told.push_back(describe6(*packet));
    return told;
  }
  FarEnd& far() const { return far_; }

 private:
  static bool is_discovery(const Octets& packet) {
    const auto upper = test::upper_of(packet);
    const auto type = std::to_integer<unsigned>(packet.at(upper.at));
    return upper.protocol == 58 && type >= 130;
  }
  std::optional<Octets> receive() const {
    std::array<std::byte, 70000> frame;
    for (;;) {
      sockaddr_ll from{};
      socklen_t length = sizeof from;
      const ssize_t size = recvfrom(socket_, frame.data(), frame.size(), MSG_DONTWAIT,
                                    reinterpret_cast<sockaddr*>(&from), &length);
      if (size <= 0) return std::nullopt;
      if (size < 14 + 48 || from.sll_pkttype == PACKET_OUTGOING) continue;
      return Octets(frame.begin() + 14, frame.begin() + size);
    }
  }

  FarEnd& far_;
  std::array<std::uint8_t, 6> mac_{};
  int socket_ = -1;
};

class TunIpv6Test : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = TunLab::obstacle(); !why.empty()) GTEST_SKIP() << why;
    if (access("/proc/sys/net/ipv6/conf/all/disable_ipv6", F_OK) != 0) GTEST_SKIP() << "needs IPv6";
    lab = std::make_unique<TunLab>();
    const std::array<std::array<std::string, 2>, 4> links{
        {{"lan0", gateway}, {"guest0", "2001:db8:2::1"}, {"wan0", wan_address}, {"vpn0", "2001:db8:8::1"}}};
    for (const auto& [interface, own] : links)
      run("sysctl -qw net.ipv6.conf." + interface + ".disable_ipv6=0 net.ipv6.conf." + interface +
          ".accept_dad=0 && ip -6 address add " + own + "/64 dev " + interface + " nodad");
    run("ip -6 route add default via 2001:db8:3::1");
    for (const char* neighbour :
         {"2001:db8:1::10 dev lan0", "2001:db8:1::20 dev lan0", "2001:db8:2::10 dev guest0",
          "2001:db8:3::1 dev wan0", "2001:db8:3::30 dev wan0", "2001:db8:8::2 dev vpn0"})
      run(std::string{"ip -6 neigh replace lladdr 02:00:00:00:00:99 nud permanent to "} + neighbour);
    if (access("/proc/sys/net/ipv6/conf/all/force_forwarding", F_OK) != 0)
      run("sysctl -qw net.ipv6.conf.all.forwarding=1");  // the administrator's, on such a kernel
    lan = std::make_unique<Raw6>(lab->lan());
    guest = std::make_unique<Raw6>(lab->guest());
    wan = std::make_unique<Raw6>(lab->wan());
    vpn = std::make_unique<Raw6>(lab->vpn());
  }
  void TearDown() override {
    plane.reset();
    if (child > 0) end_child();
    lan.reset(), guest.reset(), wan.reset(), vpn.reset();
    lab.reset();
  }

  TunOptions options() const {
    TunOptions options;
    options.undo_file = lab->undo_file();
    options.engine.secret = {1, 2};
    options.engine.seed = 3;
    options.queues = 1;  // packets of different flows in order, too
    return options;
  }
  NetworkView network() const {
    NetworkView view = lab->network();
    view.lan[0].addresses.push_back(address_of(gateway));
    view.lan[0].prefixes.push_back(*Prefix::parse("2001:db8:1::/64"));
    view.lan[1].addresses.push_back(address_of("2001:db8:2::1"));
    view.lan[1].prefixes.push_back(*Prefix::parse("2001:db8:2::/64"));
    view.wan[0].addresses.push_back(address_of(wan_address));
    view.untranslated.push_back(*Prefix::parse("2001:db8:8::/64"));
    return view;
  }
  void start() {
    std::string why;
    auto started = TunPlane::start(options(), clock, why);
    ASSERT_TRUE(started) << why;
    plane = std::move(*started);
    ASSERT_TRUE(plane->set_policy(policy, clock.now()));
    ASSERT_TRUE(plane->set_network(network(), clock.now())) << problems();
  }
  std::string problems() const {
    std::string all;
    for (const auto& warning : plane->status().warnings) all += warning + '\n';
    return all;
  }
  /// Another process holds the plane, as the daemon would, until end_child().
  void start_in_child() {
    int ready[2];
    ASSERT_EQ(pipe(ready), 0);
    child = fork();
    if (child == 0) {
      std::string why;
      auto started = TunPlane::start(options(), clock, why);
      const bool fine = started && (*started)->set_policy(policy, clock.now()) &&
                        (*started)->set_network(network(), clock.now()) &&
                        (*started)->install(pinhole(Transport::tcp, 80), clock.now());
      static_cast<void>(!write(ready[1], fine ? "y" : "n", 1));
      for (;;) pause();
    }
    char answer = 0;
    ASSERT_EQ(read(ready[0], &answer, 1), 1);
    close(ready[0]);
    close(ready[1]);
    ASSERT_EQ(answer, 'y');
  }
  void end_child() {
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    child = 0;
  }
  static MappingSpec pinhole(Transport transport, unsigned of, const char* at = host) {
    return {.transport = transport, .internal = {address_of(at), port(of)}};
  }

  void round_trip(unsigned of = 5000) {
    const std::string from = "[2001:db8:1::10]:" + std::to_string(of);
    lan->send(udp6(host, of, server, 53));
    ASSERT_TRUE(wan->await("udp " + from + " > [2001:db8:f::7]:53 hops=63")) << problems();
    wan->send(udp6(server, 53, host, of));
    ASSERT_TRUE(lan->await("udp [2001:db8:f::7]:53 > " + from + " hops=63"));
  }
  /// What was sent on an interface before it and is not out by now was dropped: its packets are handled in
  /// order.
  void lan_sentinel() {
    lan->send(udp6(host, 7, vpn_host, ++sentinel_port));
    ASSERT_TRUE(
        vpn->await("udp [2001:db8:1::10]:7 > [2001:db8:8::2]:" + std::to_string(sentinel_port) + " hops=63"));
  }
  /// The same for the WAN: a ping of the router itself. What else the WAN got is told.
  std::vector<std::string> wan_sentinel() {
    std::vector<std::string> others;
    wan->send(echo6(server, wan_address, 9));
    EXPECT_TRUE(wan->await("icmp 129/0 2001:db8:3::2 > 2001:db8:f::7 hops=64", &others))
        << "the router is silent";
    std::this_thread::sleep_for(50ms);  // the packet thread's way is another one
    for (auto& more : wan->drain()) others.push_back(std::move(more));
    return others;
  }
  static std::string ipv6_state() {
    std::string text =
        run("ip -6 rule show") + run("ip -6 route show table all | sed 's/expires [0-9]*sec//'");
    return text +
           run("sysctl -a 2>/dev/null | grep -E '^net.ipv6.conf.*(forwarding|accept_ra|disable_ipv6) '");
  }

  SystemClock clock;
  std::unique_ptr<TunLab> lab;
  std::unique_ptr<Raw6> lan, guest, wan, vpn;
  std::unique_ptr<TunPlane> plane;
  PlanePolicy policy;
  pid_t child = 0;
  unsigned sentinel_port = 20000;
};

TEST_F(TunIpv6Test, OutboundPassesAsItIsAndIsAnswered) {
  start();
  round_trip();
  EXPECT_EQ(plane->status().ipv6, "IPv6 is filtered");
  EXPECT_EQ(problems(), "");
  guest->send(udp6(guest_host, 1, server, 53));
  EXPECT_TRUE(wan->await("udp [2001:db8:2::10]:1 > [2001:db8:f::7]:53 hops=63"));
}

TEST_F(TunIpv6Test, TcpAndPingsPassEitherWay) {
  start();
  lan->send(tcp6(host, 5000, server, 80, syn).seq(99).mss(1440));
  ASSERT_TRUE(wan->await("tcp [2001:db8:1::10]:5000 > [2001:db8:f::7]:80 S hops=63"));
  wan->send(tcp6(server, 80, host, 5000, syn).seq(499).ack(100));
  ASSERT_TRUE(lan->await("tcp [2001:db8:f::7]:80 > [2001:db8:1::10]:5000 SA hops=63"));
  lan->send(echo6(host, server, 77));
  ASSERT_TRUE(wan->await("icmp 128/0 2001:db8:1::10 > 2001:db8:f::7 hops=63"));
  wan->send(echo_reply6(server, host, 77));
  ASSERT_TRUE(lan->await("icmp 129/0 2001:db8:f::7 > 2001:db8:1::10 hops=63"));
}

TEST_F(TunIpv6Test, UnaskedPacketsMeetSilence) {  // N6092-REC-11, REC-33
  start();
  wan->send(udp6(server, 53, host, 5000));
  wan->send(tcp6(server, 40000, host, 80, syn));
  wan->send(echo6(server, host, 5));
  wan->send(udp6(server, 53, "2001:db8:1::99", 5000));
  for (const auto& told : wan_sentinel()) ADD_FAILURE() << "answered: " << told;
  EXPECT_TRUE(lan->drain().empty());
}

TEST_F(TunIpv6Test, APinholeOpensAndCloses) {
  start();
  const auto hole = plane->install(pinhole(Transport::udp, 3074), clock.now());
  ASSERT_TRUE(hole);
  EXPECT_EQ(hole->external.port.number(), 3074);
  wan->send(udp6(server, 1, host, 3074));
  ASSERT_TRUE(lan->await("udp [2001:db8:f::7]:1 > [2001:db8:1::10]:3074 hops=63"));
  EXPECT_EQ(plane->counters(hole->id)->packets_in, 1U);
  plane->withdraw(hole->id, Ending::reset, clock.now());
  wan->send(udp6(server, 1, host, 3074));
  for (const auto& told : wan_sentinel()) ADD_FAILURE() << "answered: " << told;
  EXPECT_TRUE(lan->drain().empty());
}

TEST_F(TunIpv6Test, ARevokeEndsALiveStream) {  // NMAP-09
  start();
  const auto hole = plane->install(pinhole(Transport::tcp, 80), clock.now());
  ASSERT_TRUE(hole);
  wan->send(tcp6(server, 40000, host, 80, syn).seq(499));
  ASSERT_TRUE(lan->await("tcp [2001:db8:f::7]:40000 > [2001:db8:1::10]:80 S hops=63"));
  lan->send(tcp6(host, 80, server, 40000, syn).seq(99).ack(500));
  ASSERT_TRUE(wan->await("tcp [2001:db8:1::10]:80 > [2001:db8:f::7]:40000 SA hops=63"));
  wan->send(tcp6(server, 40000, host, 80, 0).seq(500).ack(100));
  ASSERT_TRUE(lan->await("tcp [2001:db8:f::7]:40000 > [2001:db8:1::10]:80 A hops=63"));
  plane->withdraw(hole->id, Ending::reset, clock.now());
  EXPECT_TRUE(lan->await("tcp [2001:db8:f::7]:40000 > [2001:db8:1::10]:80 AR hops=63"));
  EXPECT_TRUE(wan->await("tcp [2001:db8:1::10]:80 > [2001:db8:f::7]:40000 AR hops=63"));
  wan->send(tcp6(server, 40000, host, 80, psh).seq(500).ack(100));
  EXPECT_TRUE(wan->await("tcp [2001:db8:1::10]:80 > [2001:db8:f::7]:40000 R hops=63"));
  EXPECT_TRUE(lan->drain().empty());
}

TEST_F(TunIpv6Test, SpoofedSourcesGoNowhere) {  // N6092-REC-5, REC-6
  start();
  ASSERT_TRUE(plane->install(pinhole(Transport::udp, 3074), clock.now()));
  for (const char* source : {"2001:db8:77::1", gateway, wan_address, guest_host, vpn_host, server})
    lan->send(udp6(source, 1, other_server, 53));
  lan->send(udp6("2001:db8:77::1", 1, vpn_host, 53));
  lan->send(udp6("2001:db8:77::1", 1, guest_host, 53));
  lan_sentinel();
  for (const char* source : {"2001:db8:1::11", gateway, wan_address, guest_host, vpn_host, "fd00::1", "::1"})
    wan->send(udp6(source, 1, host, 3074));
  for (const auto& told : wan_sentinel()) ADD_FAILURE() << "leaked: " << told;
  EXPECT_TRUE(lan->drain().empty());
  EXPECT_TRUE(guest->drain().empty());
}

TEST_F(TunIpv6Test, APrefixThatIsNotKnownYetIsNoHole) {
  start();
  run("ip -6 address add 2001:db8:5::1/64 dev lan0 nodad");
  run("ip -6 neigh replace lladdr 02:00:00:00:00:99 nud permanent to 2001:db8:5::10 dev lan0");
  wan->send(tcp6(server, 1, "2001:db8:5::10", 22, syn));
  lan->send(udp6("2001:db8:5::10", 1, server, 53));
  lan_sentinel();
  for (const auto& told : wan_sentinel()) ADD_FAILURE() << "leaked: " << told;
  EXPECT_TRUE(lan->drain().empty());
}

TEST_F(TunIpv6Test, WhatIsNotBetweenLanAndWanStaysOutside) {
  start();
  lan_sentinel();
  vpn->send(tcp6(vpn_host, 1, host, 22, syn));
  EXPECT_TRUE(lan->await("tcp [2001:db8:8::2]:1 > [2001:db8:1::10]:22 S hops=63"));
  guest->send(udp6(guest_host, 1, host, 2));
  EXPECT_TRUE(lan->await("udp [2001:db8:2::10]:1 > [2001:db8:1::10]:2 hops=63"));
  lan->send(echo6(host, gateway, 6));
  EXPECT_TRUE(lan->await("icmp 129/0 2001:db8:1::1 > 2001:db8:1::10 hops=64"));
  lan->send(echo6(host, wan_address, 6));
  EXPECT_TRUE(lan->await("icmp 129/0 2001:db8:3::2 > 2001:db8:1::10 hops=64"));
  wan->send(udp6(server, 1, vpn_host, 2));
  EXPECT_TRUE(vpn->await("udp [2001:db8:f::7]:1 > [2001:db8:8::2]:2 hops=63"))
      << "the VPN is not ours to guard";
  EXPECT_EQ(plane->status().flows, 0U);
}

TEST_F(TunIpv6Test, ALanInsideTheNetworkOfAVpnIsGuardedAllTheSame) {
  std::string why;
  auto started = TunPlane::start(options(), clock, why);
  ASSERT_TRUE(started) << why;
  plane = std::move(*started);
  run("ip -6 route add 2001:db8::/34 dev vpn0");
  auto view = network();
  view.untranslated = {*Prefix::parse("2001:db8::/34")};
  ASSERT_TRUE(plane->set_network(view, clock.now()));
  wan->send(udp6("2001:dba::1", 1, host, 2));
  wan->send(udp6("2001:db8:77::1", 1, host, 2));
  wan->send(echo6("2001:dba::1", wan_address, 9));
  EXPECT_TRUE(wan->await("icmp 129/0 2001:db8:3::2 > 2001:dba::1 hops=64"));
  std::this_thread::sleep_for(50ms);
  EXPECT_TRUE(lan->drain().empty());
  lan->send(udp6(host, 1, "2001:dba::1", 2));
  EXPECT_TRUE(wan->await("udp [2001:db8:1::10]:1 > [2001:dba::1]:2 hops=63"));
}

TEST_F(TunIpv6Test, NeighboursAndTheRoutersOwnConnectionsAreLeftAlone) {
  start();
  // a host looks for the gateway, and is told
  Octets solicit = test::icmp6(host, gateway, 135, 0).hops(255).payload(test::ip6(gateway));
  lan->send(solicit);
  EXPECT_TRUE(lan->await("icmp 136/0 2001:db8:1::1 > 2001:db8:1::10 hops=255"));
  run("ethtool -K wan0 tx off");  // so that the sums of its own packets are there to be checked
  const int own = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_in6 there{};
  there.sin6_family = AF_INET6;
  there.sin6_port = htons(53);
  inet_pton(AF_INET6, server, &there.sin6_addr);
  ASSERT_EQ(connect(own, reinterpret_cast<sockaddr*>(&there), sizeof there), 0);
  ASSERT_EQ(::send(own, "hello", 5, 0), 5);
  sockaddr_in6 here{};
  socklen_t length = sizeof here;
  getsockname(own, reinterpret_cast<sockaddr*>(&here), &length);
  const unsigned own_port = ntohs(here.sin6_port);
  ASSERT_TRUE(
      wan->await("udp [2001:db8:3::2]:" + std::to_string(own_port) + " > [2001:db8:f::7]:53 hops=64"));
  wan->send(udp6(server, 53, wan_address, own_port));
  pollfd wait{own, POLLIN, 0};
  EXPECT_EQ(poll(&wait, 1, 5000), 1);
  close(own);
}

TEST_F(TunIpv6Test, ATooLargePacketIsToldTheWansMtu) {
  run("ip link set wan0 mtu 1400");
  std::string why;
  auto started = TunPlane::start(options(), clock, why);
  ASSERT_TRUE(started) << why;
  plane = std::move(*started);
  auto view = network();
  view.wan[0].mtu = 1400;
  ASSERT_TRUE(plane->set_network(view, clock.now()));
  lan->send(udp6(host, 5000, server, 53).payload(std::string(1400, 'x')));
  const auto error = lan->await("icmp 2/0 2001:db8:1::1 > 2001:db8:1::10 hops=64");
  ASSERT_TRUE(error);
  EXPECT_EQ(test::get32(*error, 44), 1400U);
  round_trip();
}

TEST_F(TunIpv6Test, ErrorsOfTheWorldReachWhoSent) {  // N6092-REC-18
  start();
  const Octets sent = udp6(host, 5000, server, 53);
  lan->send(sent);
  ASSERT_TRUE(wan->await("udp [2001:db8:1::10]:5000 > [2001:db8:f::7]:53 hops=63"));
  wan->send(test::icmp6_error("2001:db8:3::1", host, 2, 0, sent, 1300));
  EXPECT_TRUE(lan->await("icmp 2/0 2001:db8:3::1 > 2001:db8:1::10 hops=63"));
  lan->send(udp6(host, 5000, server, 53).hops(1));
  EXPECT_TRUE(lan->await("icmp 3/0 2001:db8:1::1 > 2001:db8:1::10 hops=64"));
}

TEST_F(TunIpv6Test, FragmentsPassInAnyOrder) {
  start();
  const Octets whole = udp6(host, 5000, server, 53).payload(std::string(200, 'x'));
  for (const bool in_order : {true, false}) {
    const auto parts = test::fragments_of6(whole, {104}, in_order ? 1 : 2);
    lan->send(parts[in_order ? 0 : 1]);
    lan->send(parts[in_order ? 1 : 0]);
    EXPECT_TRUE(wan->await("udp [2001:db8:1::10]:5000 > [2001:db8:f::7]:53 hops=63"));
    EXPECT_TRUE(wan->await("fragment 104 2001:db8:1::10 > 2001:db8:f::7 hops=63"));
  }
  const auto unasked = test::fragments_of6(udp6(server, 1, host, 2).payload(std::string(200, 'x')), {104}, 3);
  wan->send(unasked[1]);
  wan->send(unasked[0]);
  for (const auto& told : wan_sentinel()) ADD_FAILURE() << "answered: " << told;
  EXPECT_TRUE(lan->drain().empty());
}

TEST_F(TunIpv6Test, NothingPassesAfterKillMinusNine) {
  start_in_child();
  round_trip();
  end_child();
  lan->send(udp6(host, 5000, server, 53));
  lan->send(tcp6(host, 5000, server, 80, syn));
  lan->send(echo6(host, server, 3));
  lan_sentinel();  // and a VPN goes on
  wan->send(tcp6(server, 40000, host, 80, syn));
  wan->send(udp6(server, 53, host, 5000));
  for (const auto& told : wan_sentinel()) ADD_FAILURE() << "leaked or answered: " << told;
  EXPECT_TRUE(lan->drain().empty());
  lan->send(echo6(host, gateway, 6));
  EXPECT_TRUE(lan->await("icmp 129/0 2001:db8:1::1 > 2001:db8:1::10 hops=64"));
  start();
  round_trip();
}

TEST_F(TunIpv6Test, NothingPassesAfterAStop) {
  start();
  round_trip();
  plane.reset();
  lan->send(udp6(host, 5000, server, 53));
  lan_sentinel();
  wan->send(udp6(server, 53, host, 5000));
  for (const auto& told : wan_sentinel()) ADD_FAILURE() << "leaked: " << told;
  EXPECT_TRUE(lan->drain().empty());
}

TEST_F(TunIpv6Test, DetachPutsEverythingBack) {
  run("ip -6 rule add pref 77 to 2001:db8:77::/48 lookup 250");
  const std::string before = ipv6_state();
  start();
  EXPECT_NE(ipv6_state(), before);
  plane.reset();
  std::string why;
  ASSERT_TRUE(TunPlane::detach(options(), why)) << why;
  EXPECT_EQ(ipv6_state(), before);
  start_in_child();
  end_child();
  ASSERT_TRUE(TunPlane::detach(options(), why)) << why;
  EXPECT_EQ(ipv6_state(), before) << "after kill -9";
}

TEST_F(TunIpv6Test, FlushedRulesComeBackWithTheNextSweep) {
  start();
  const std::string rules = run("ip -6 rule show; ip -6 route show table 7100");
  run("ip -6 rule flush; ip -6 rule add pref 32766 lookup main");  // it spares rule 0
  run("ip -6 route flush table 7100");
  plane->sweep(clock.now());
  EXPECT_EQ(run("ip -6 rule show | grep -v 32766; ip -6 route show table 7100"),
            run("echo '" + rules + "' | grep -v -e 32766 -e '^$'"));
  round_trip();
  EXPECT_NE(problems().find("removed our routing rules"), std::string::npos);
}

TEST_F(TunIpv6Test, StartingAgainChangesNothing) {
  start();
  const std::string first = ipv6_state();
  ASSERT_TRUE(plane->set_network(network(), clock.now()));
  EXPECT_EQ(ipv6_state(), first);
  plane->sweep(clock.now());
  EXPECT_EQ(problems(), "") << "what stands is not taken for flushed";
}

TEST_F(TunIpv6Test, SwitchedOffItIsTheSystems) {  // [engine] ipv6
  const std::string before = ipv6_state();
  start();
  policy.ipv6 = false;
  ASSERT_TRUE(plane->set_policy(policy, clock.now()));
  EXPECT_EQ(run("ip -6 rule show | grep -c sp0 || true"), "0\n");
  EXPECT_EQ(plane->status().ipv6, "IPv6 is left to the system (engine.ipv6)");
  run("sysctl -qw net.ipv6.conf.all.forwarding=1");
  wan->send(tcp6(server, 1, host, 22, syn));
  EXPECT_TRUE(lan->await("tcp [2001:db8:f::7]:1 > [2001:db8:1::10]:22 S hops=63"));
  policy.ipv6 = true;
  ASSERT_TRUE(plane->set_policy(policy, clock.now()));
  wan->send(tcp6(server, 1, host, 22, syn));
  wan_sentinel();
  EXPECT_TRUE(lan->drain().empty());
  round_trip();
}

TEST_F(TunIpv6Test, AWanThatIgnoresAdvertisementsIsTold) {
  run("sysctl -qw net.ipv6.conf.all.forwarding=1 net.ipv6.conf.wan0.accept_ra=1");
  start();
  EXPECT_NE(problems().find("accept_ra"), std::string::npos) << problems();
  run("sysctl -qw net.ipv6.conf.wan0.accept_ra=2");
  EXPECT_EQ(problems(), "");
}

TEST_F(TunIpv6Test, WhereIpv6IsSwitchedOffIpv4GoesOn) {
  run("sysctl -qw net.ipv6.conf.all.disable_ipv6=1");
  std::string why;
  auto started = TunPlane::start(options(), clock, why);
  ASSERT_TRUE(started) << why;
  plane = std::move(*started);
  ASSERT_TRUE(plane->set_network(lab->network(), clock.now())) << problems();
  lab->lan().send(udp("192.168.1.10", 5000, "198.51.100.7", 53));
  EXPECT_TRUE(lab->wan().await([](const Wire& wire) { return wire.dport == 53; }));
  EXPECT_EQ(problems(), "");
}

// As tun_plane_test has it for IPv4: super packets with partial checksums on the way, real ones at both ends.
TEST_F(TunIpv6Test, StreamsOfSuperPacketsArriveWholeEitherWay) {  // NPKT-09
  start();
  const auto give_stack = [](FarEnd& far, const std::string& own, const std::string& via) {
    far.inside([&] {
      run("sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.host.disable_ipv6=0 "
          "net.ipv6.conf.host.accept_dad=0");
      run("ip link set lo up && ip link set host address 02:00:00:00:00:99 && ip -6 address add " + own +
          "/64 dev host nodad && ip -6 route add default via " + via);
      run("ethtool -K host tx off gro off");
    });
  };
  give_stack(lab->lan(), "2001:db8:1::20", gateway);
  give_stack(lab->wan(), "2001:db8:3::30", wan_address);
  for (const char* interface : {"lan0", "wan0"})
    run(std::string{"ethtool -K "} + interface + " tx off && ethtool -K " + interface + " gro on");
  ASSERT_TRUE(plane->install(pinhole(Transport::tcp, 80, "2001:db8:1::20"), clock.now()));

  constexpr std::size_t total = 8 << 20;
  std::string sent(total, 0);
  for (std::size_t i = 0; i < total; ++i) sent[i] = static_cast<char>(i * 2654435761u >> 13);
  const auto stream = [&](FarEnd& from, FarEnd& to, const char* dial, std::uint16_t of) {
    int listener = -1, client = -1;
    sockaddr_in6 there{};
    there.sin6_family = AF_INET6;
    there.sin6_port = htons(of);
    to.inside([&] {
      listener = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
      ASSERT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&there), sizeof there), 0);
      ASSERT_EQ(listen(listener, 1), 0);
    });
    from.inside([&] { client = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0); });
    inet_pton(AF_INET6, dial, &there.sin6_addr);
    const timeval limit{10, 0};
    setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    std::thread sender{[&] {
      if (connect(client, reinterpret_cast<sockaddr*>(&there), sizeof there) != 0) return;
      for (std::size_t at = 0; at < total;) {
        const ssize_t size = ::send(client, sent.data() + at, total - at, MSG_NOSIGNAL);
        if (size <= 0) return;
        at += static_cast<std::size_t>(size);
      }
      shutdown(client, SHUT_WR);
    }};
    std::string got;
    pollfd wait{listener, POLLIN, 0};
    if (poll(&wait, 1, 10000) == 1) {
      wait.fd = accept(listener, nullptr, nullptr);
      std::array<char, 65536> part;
      const auto end = std::chrono::steady_clock::now() + 30s;  // broken sums make a stream crawl
      while (poll(&wait, 1, 10000) == 1 && std::chrono::steady_clock::now() < end) {
        const ssize_t size = read(wait.fd, part.data(), part.size());
        if (size <= 0) break;
        got.append(part.data(), static_cast<std::size_t>(size));
      }
      close(wait.fd);
    }
    shutdown(client, SHUT_RDWR);
    sender.join();
    close(client);
    close(listener);
    EXPECT_EQ(got.size(), total);
    EXPECT_TRUE(got == sent);
  };
  stream(lab->lan(), lab->wan(), "2001:db8:3::30", 5001);
  stream(lab->wan(), lab->lan(), "2001:db8:1::20", 80);
  EXPECT_LT(plane->status().packets, 2 * total / 1428) << "nothing was merged: super packets were not tried";
}

}  // namespace
}  // namespace sallyport::nat
