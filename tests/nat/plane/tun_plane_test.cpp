#include "nat/plane/tun/tun_plane.hpp"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <sstream>
#include <thread>

#include "tun_lab.hpp"

// The tun plane in a real kernel: a gateway of four interfaces, hosts that speak raw frames.

namespace sallyport::nat {
namespace {

using namespace sallyport::nat::testing;
using namespace std::chrono_literals;

constexpr const char* host = "192.168.1.10";
constexpr const char* other_host = "192.168.1.11";
constexpr const char* external = "203.0.113.2";
constexpr const char* server = "198.51.100.7";
constexpr const char* other_server = "198.51.100.8";

using sallyport::Port;
Port port(std::uint32_t number) { return *Port::from(number); }

auto to(const char* dst, std::uint16_t dport) {
  return [address = ip(dst), dport](const Wire& wire) { return wire.dst == address && wire.dport == dport; };
}
auto any_to(const char* dst) {
  return [address = ip(dst)](const Wire& wire) { return wire.dst == address; };
}

MappingSpec mapping(Transport transport, const char* internal, std::uint16_t internal_port,
                    std::uint16_t wanted) {
  return {.transport = transport,
          .internal = {Address::v4(ip(internal)), port(internal_port)},
          .suggested = port(wanted),
          .insist = true,
          .remotes = {}};
}

class TunPlaneTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const std::string why = TunLab::obstacle(); !why.empty()) GTEST_SKIP() << why;
    lab = std::make_unique<TunLab>();
  }
  void TearDown() override {
    plane.reset();
    if (child > 0) end_child();
    lab.reset();
  }

  TunOptions options() const {
    TunOptions options;
    options.undo_file = lab->undo_file();
    options.engine.secret = {1, 2};
    options.engine.seed = 3;
    options.queues = queues;
    return options;
  }
  unsigned queues = 1;  // packets of different flows in order, too
  void start() { start(lab->network()); }
  void start(const NetworkView& network) {
    std::string why;
    auto started = TunPlane::start(options(), clock, why);
    ASSERT_TRUE(started) << why;
    plane = std::move(*started);
    ASSERT_TRUE(plane->set_policy(policy, clock.now()));
    ASSERT_TRUE(plane->set_network(network, clock.now())) << problems();
  }
  void detach() {
    plane.reset();
    std::string why;
    ASSERT_TRUE(TunPlane::detach(options(), why)) << why;
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
                        (*started)->set_network(lab->network(), clock.now()) &&
                        (*started)->install(mapping(Transport::tcp, host, 80, 8080), clock.now()) &&
                        (*started)->install(mapping(Transport::tcp, host, 81, 61500), clock.now());
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

  /// Sends a packet that gets through to `far` whatever the plane does with others. The gateway handles
  /// packets of one interface in order, so what was sent before it and is not out by now was dropped.
  void lan_sentinel() {
    const auto probe = udp(host, 7, "10.8.0.2", ++sentinel_port);
    lab->lan().send(probe);
    ASSERT_TRUE(lab->vpn().await(to("10.8.0.2", sentinel_port))) << "the sentinel of the LAN did not pass";
  }

  /// One UDP packet out and its answer back; returns the external port.
  std::uint16_t round_trip(FarEnd& lan, const char* from, std::uint16_t from_port, const char* peer = server,
                           const char* expected_external = external) {
    lan.send(udp(from, from_port, peer, 53));
    const auto out = lab->wan().await(to(peer, 53));
    EXPECT_TRUE(out) << from << " did not get out";
    if (!out) return 0;
    EXPECT_EQ(dotted(out->src), expected_external);
    EXPECT_EQ(out->ttl, 63);
    EXPECT_TRUE(out->sums_right) << out->says();
    lab->wan().send(udp(peer, 53, expected_external, out->sport, "answer"));
    const auto back = lan.await(to(from, from_port));
    EXPECT_TRUE(back) << from << " got no answer";
    if (!back) return 0;
    EXPECT_EQ(dotted(back->src), peer);
    EXPECT_EQ(back->ttl, 63);
    EXPECT_TRUE(back->sums_right) << back->says();
    return out->sport;
  }

  SystemClock clock;
  std::unique_ptr<TunLab> lab;
  std::unique_ptr<TunPlane> plane;
  PlanePolicy policy;
  pid_t child = 0;
  std::uint16_t sentinel_port = 20000;
};

TEST_F(TunPlaneTest, OutboundLeavesWithTheExternalAddressAndItsAnswerComesBack) {  // N4787-01, POL-NET-01
  start();
  EXPECT_EQ(round_trip(lab->lan(), host, 5000), 5000);
  EXPECT_EQ(round_trip(lab->lan(), host, 5000, other_server), 5000);
  EXPECT_TRUE(plane->status().running);
}

TEST_F(TunPlaneTest, EveryLanIsTranslated) {
  start();
  round_trip(lab->guest(), "192.168.2.10", 5001);
}

TEST_F(TunPlaneTest, AHostOnTheWansOwnSubnetIsReachedTranslated) {
  start();
  round_trip(lab->lan(), host, 5002, "203.0.113.9");
}

TEST_F(TunPlaneTest, AnExplicitMappingLetsEverybodyIn) {  // NMAP-01
  start();
  const auto installed = plane->install(mapping(Transport::tcp, host, 80, 8080), clock.now());
  ASSERT_TRUE(installed) << installed.error().message();
  EXPECT_EQ(installed->external.port.number(), 8080);
  lab->wan().send(tcp(server, 40000, external, 8080));
  const auto in = lab->lan().await(to(host, 80));
  ASSERT_TRUE(in);
  EXPECT_EQ(dotted(in->src), server);
  EXPECT_EQ(in->sport, 40000);
  EXPECT_EQ(in->ttl, 63);
  EXPECT_TRUE(in->sums_right);

  auto answer = tcp(host, 80, server, 40000, 0x12);
  answer.ack = 1001;
  lab->lan().send(answer);
  const auto out = lab->wan().await(to(server, 40000));
  ASSERT_TRUE(out);
  EXPECT_EQ(dotted(out->src), external);
  EXPECT_EQ(out->sport, 8080);

  plane->withdraw(installed->id, Ending::vacate, clock.now());
  lab->wan().drain();
  lab->wan().send(tcp(other_server, 40001, external, 8080));
  lab->wan().send(echo(server, external, 9));
  std::vector<Wire> others;
  ASSERT_TRUE(lab->wan().await(any_to(server), &others));
  for (const Wire& wire : others) ADD_FAILURE() << "a closed door answered: " << wire.says();
  EXPECT_TRUE(lab->lan().drain().empty());
}

TEST_F(TunPlaneTest, HairpinWearsTheExternalAddress) {  // N4787-15, N4787-16, NMAP-13
  start();
  ASSERT_TRUE(plane->install(mapping(Transport::udp, host, 3074, 3074), clock.now()));
  lab->lan().send(udp(other_host, 4000, external, 3074));
  const auto in = lab->lan().await(to(host, 3074));
  ASSERT_TRUE(in);
  EXPECT_EQ(dotted(in->src), external);
  EXPECT_TRUE(in->sums_right);
  lab->lan().send(udp(host, 3074, external, in->sport));
  const auto back = lab->lan().await(to(other_host, 4000));
  ASSERT_TRUE(back);
  EXPECT_EQ(dotted(back->src), external);
  EXPECT_EQ(back->sport, 3074);
  // from another LAN too
  lab->guest().send(udp("192.168.2.10", 4001, external, 3074));
  EXPECT_TRUE(lab->lan().await(to(host, 3074)));
}

TEST_F(TunPlaneTest, PingsPassEitherWay) {  // N5508-01, N5508-09
  start();
  lab->lan().send(echo(host, server, 77));
  const auto out = lab->wan().await(any_to(server));
  ASSERT_TRUE(out);
  EXPECT_EQ(dotted(out->src), external);
  EXPECT_TRUE(out->sums_right);
  lab->wan().send(echo(server, external, out->sport, true));
  const auto back = lab->lan().await(any_to(host));
  ASSERT_TRUE(back);
  EXPECT_EQ(back->sport, 77);

  lab->wan().send(echo(server, external, 5));
  const auto answered = lab->wan().await(any_to(server));
  ASSERT_TRUE(answered) << "the gateway does not answer pings of its external address";
  EXPECT_EQ(answered->icmp_type, 0);
  lab->lan().send(echo(host, "192.168.1.1", 6));
  EXPECT_TRUE(lab->lan().await(any_to(host))) << "nor those of its LAN address";
  lab->lan().send(echo(host, external, 7));
  EXPECT_TRUE(lab->lan().await(any_to(host))) << "nor those of a host to the external address";
}

TEST_F(TunPlaneTest, AnErrorFromOutsideFindsTheHostThatSent) {  // N5508-25..27
  start();
  lab->lan().send(udp(host, 5000, server, 53));
  const auto out = lab->wan().await(to(server, 53));
  ASSERT_TRUE(out);
  lab->wan().send(icmp_error("203.0.113.1", external, 3, 1, *out));
  const auto error = lab->lan().await(any_to(host));
  ASSERT_TRUE(error);
  EXPECT_EQ(dotted(error->src), "203.0.113.1");
  EXPECT_TRUE(error->sums_right);
  const auto quoted = Wire::parse(error->payload.data(), error->payload.size());
  ASSERT_TRUE(quoted);
  EXPECT_EQ(dotted(quoted->src), host);
  EXPECT_EQ(quoted->sport, 5000);
}

// The stack answers for a host that is not there, and quotes the packet as it was on its way to the inside.
TEST_F(TunPlaneTest, OurOwnErrorsTellTheWanNothingOfTheInside) {  // dataplane.md 3: rule 53
  start();
  run("ip route add unreachable 192.168.1.99");
  ASSERT_TRUE(plane->install(mapping(Transport::udp, "192.168.1.99", 3074, 3074), clock.now()));
  lab->wan().send(udp(server, 40000, external, 3074));
  lab->wan().send(echo(other_server, external, 9));
  std::vector<Wire> others;
  ASSERT_TRUE(lab->wan().await(any_to(other_server), &others));
  for (const Wire& wire : others) {
    const auto quoted = Wire::parse(wire.payload.data(), wire.payload.size());
    EXPECT_FALSE(quoted && dotted(quoted->dst) == "192.168.1.99") << wire.says();
  }
}

TEST_F(TunPlaneTest, FragmentsPassInAnyOrder) {  // N4787-24, NPKT-06
  start();
  Wire whole = udp(host, 5000, server, 53, std::string(64, 'x'));
  const Bytes bytes = whole.bytes();
  auto first = bytes, second = bytes;
  first.resize(20 + 32);
  second.erase(second.begin() + 20, second.begin() + 52);
  const auto finish = [](Bytes& packet, std::uint16_t offset_and_flags) {
    packet[2] = static_cast<std::uint8_t>(packet.size() >> 8);
    packet[3] = static_cast<std::uint8_t>(packet.size());
    packet[6] = static_cast<std::uint8_t>(offset_and_flags >> 8);
    packet[7] = static_cast<std::uint8_t>(offset_and_flags);
    packet[10] = packet[11] = 0;
    std::uint32_t sum = 0;
    for (std::size_t i = 0; i < 20; i += 2) sum += static_cast<std::uint32_t>(packet[i] << 8 | packet[i + 1]);
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    packet[10] = static_cast<std::uint8_t>(~sum >> 8);
    packet[11] = static_cast<std::uint8_t>(~sum);
  };
  finish(first, 0x2000);
  finish(second, 4);
  for (const bool in_order : {true, false}) {
    lab->lan().send(in_order ? first : second);
    lab->lan().send(in_order ? second : first);
    int pieces = 0;
    for (int i = 0; i < 2; ++i) {
      const auto piece = lab->wan().await(any_to(server));
      ASSERT_TRUE(piece) << "in order: " << in_order;
      EXPECT_EQ(dotted(piece->src), external);
      pieces += piece->fragment_offset ? 2 : 1;
    }
    EXPECT_EQ(pieces, 3);
    // another datagram now, with an identification of its own
    for (Bytes* packet : {&first, &second}) {
      (*packet)[5] ^= 0x55;
      finish(*packet, packet == &first ? 0x2000 : 4);
    }
  }
}

TEST_F(TunPlaneTest, SpoofedSourcesGoNowhere) {  // NSEC-01..03, POL-NET-02, POL-NET-03
  start();
  ASSERT_TRUE(plane->install(mapping(Transport::udp, host, 3074, 3074), clock.now()));
  const std::vector<Wire> from_lan{
      udp("8.8.8.8", 1, server, 53),         udp(external, 1, server, 53),
      udp("192.168.1.1", 1, server, 53),     udp("192.168.2.10", 1, server, 53),
      udp("8.8.8.8", 1, external, 3074),     udp(external, 3074, external, 3074),
      udp("192.168.2.10", 1, external, 53),  udp("8.8.8.8", 1, "10.8.0.2", 53),
      udp("203.0.113.9", 1, "10.8.0.2", 53), echo("8.8.8.8", external, 1),
      echo("8.8.8.8", "192.168.1.1", 1),     udp("8.8.8.8", 1, "192.168.2.10", 53),
      udp("10.8.0.9", 1, server, 53)};
  for (const Wire& wire : from_lan) lab->lan().send(wire);
  lan_sentinel();
  const std::vector<Wire> from_wan{udp(server, 1, host, 3074),
                                   tcp(server, 1, host, 80),
                                   echo(server, host, 1),
                                   udp(host, 1, external, 3074),
                                   udp(external, 9, external, 3074),
                                   udp("192.168.1.1", 1, external, 3074),
                                   udp(host, 1, other_server, 3074),
                                   udp(server, 1, "192.168.1.1", 53),
                                   udp("192.168.2.10", 1, host, 3074),
                                   echo(host, external, 1),
                                   udp("127.0.0.1", 1, external, 3074)};
  for (const Wire& wire : from_wan) lab->wan().send(wire);
  lab->wan().send(echo(server, external, 99));
  std::vector<Wire> others;
  ASSERT_TRUE(lab->wan().await([](const Wire& wire) { return wire.sport == 99; }, &others));
  for (FarEnd* far : {&lab->lan(), &lab->guest(), &lab->vpn()})
    for (const Wire& wire : far->drain()) ADD_FAILURE() << far->interface() << " got " << wire.says();
  for (const Wire& wire : others) ADD_FAILURE() << "wan0 got " << wire.says();
}

TEST_F(TunPlaneTest, AFreePortIsSilentAndAServiceOfTheRouterIsReached) {  // POL-NET-04, POL-TGT-05
  const int service = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(5555);
  ASSERT_EQ(bind(service, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  start();

  for (const std::uint16_t free : {9999, 62000}) {
    lab->wan().send(tcp(server, 40000, external, free));
    lab->wan().send(udp(server, 40000, external, free));
  }
  lab->wan().send(udp(server, 40000, external, 5555, "who is there"));
  pollfd wait{service, POLLIN, 0};
  ASSERT_EQ(poll(&wait, 1, 5000), 1) << "the router's own service was not reached";
  char text[64];
  sockaddr_in from{};
  socklen_t length = sizeof from;
  ASSERT_EQ(recvfrom(service, text, sizeof text, 0, reinterpret_cast<sockaddr*>(&from), &length), 12);
  ASSERT_EQ(sendto(service, "me", 2, 0, reinterpret_cast<sockaddr*>(&from), length), 2);
  std::vector<Wire> others;
  const auto answer = lab->wan().await(to(server, 40000), &others);
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->sport, 5555);
  EXPECT_EQ(dotted(answer->src), external);
  for (const Wire& wire : others) ADD_FAILURE() << "a free port answered: " << wire.says();
  EXPECT_EQ(plane->install(mapping(Transport::udp, host, 1, 5555), clock.now()).error(),
            PlaneErrc::port_reserved);
  close(service);
}

TEST_F(TunPlaneTest, TheRoutersOwnConnectionsGetOutAndBack) {
  start();
  const int client = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(53);
  address.sin_addr.s_addr = htonl(ip(server));
  ASSERT_EQ(connect(client, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(send(client, "query", 5, 0), 5);
  const auto out = lab->wan().await(to(server, 53));
  ASSERT_TRUE(out);
  EXPECT_EQ(dotted(out->src), external);
  EXPECT_GE(out->sport, 61000);
  lab->wan().send(udp(server, 53, external, out->sport, "answer"));
  pollfd wait{client, POLLIN, 0};
  EXPECT_EQ(poll(&wait, 1, 5000), 1);
  close(client);
}

// A resolver on the router binds a fresh port of the pool for each question.
TEST_F(TunPlaneTest, ASocketOfThisVeryMomentIsKnown) {  // POL-NET-04
  start();
  for (const int type : {SOCK_DGRAM, SOCK_STREAM}) {
    const int fresh = socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(33333);
    ASSERT_EQ(bind(fresh, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    address.sin_port = htons(53);
    address.sin_addr.s_addr = htonl(ip(server));
    if (type == SOCK_STREAM) {
      connect(fresh, reinterpret_cast<sockaddr*>(&address), sizeof address);
    } else {
      ASSERT_EQ(sendto(fresh, "query", 5, 0, reinterpret_cast<sockaddr*>(&address), sizeof address), 5);
    }
    const auto out = lab->wan().await(to(server, 53));
    ASSERT_TRUE(out);
    if (type == SOCK_STREAM) {
      auto answer = tcp(server, 53, external, 33333, 0x12);
      answer.ack = out->seq + 1;
      lab->wan().send(answer);
    } else {
      lab->wan().send(udp(server, 53, external, 33333, "answer"));
    }
    pollfd wait{fresh, static_cast<short>(type == SOCK_STREAM ? POLLOUT : POLLIN), 0};
    EXPECT_EQ(poll(&wait, 1, 5000), 1) << "type " << type;
    close(fresh);
  }
}

TEST_F(TunPlaneTest, NoFlowTakesThePortOfAServiceOfThisVeryMoment) {  // POL-NET-12, POL-TGT-05
  start();
  for (const int type : {SOCK_DGRAM, SOCK_STREAM}) {
    const int service = socket(AF_INET, type | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(5556);
    ASSERT_EQ(bind(service, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    if (type == SOCK_STREAM) {
      ASSERT_EQ(listen(service, 1), 0);
    }
    lab->lan().send(type == SOCK_STREAM ? tcp(host, 5556, server, 53) : udp(host, 5556, server, 53));
    const auto out = lab->wan().await(to(server, 53));
    ASSERT_TRUE(out);
    EXPECT_NE(out->sport, 5556) << "type " << type;
    close(service);
  }
}

// Port shadow: connected sockets answer to their peer alone, bound ones to their interface alone.
TEST_F(TunPlaneTest, NoFlowTakesThePortOfASocketThatIsConnectedOrOfTheWan) {  // POL-NET-04, POL-NET-12
  start();
  std::uint16_t port = 5560;
  for (const int type : {SOCK_DGRAM, SOCK_STREAM})
    for (const bool of_wan : {false, true}) {
      const int own = socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
      if (of_wan) {
        ASSERT_EQ(setsockopt(own, SOL_SOCKET, SO_BINDTODEVICE, "wan0", 4), 0);
      }
      sockaddr_in address{};
      address.sin_family = AF_INET;
      address.sin_port = htons(++port);
      ASSERT_EQ(bind(own, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
      address.sin_port = htons(53);
      address.sin_addr.s_addr = htonl(ip(server));
      (void)connect(own, reinterpret_cast<sockaddr*>(&address), sizeof address);
      for (const char* peer : {server, other_server}) {
        lab->lan().send(type == SOCK_STREAM ? tcp(host, port, peer, 54) : udp(host, port, peer, 54));
        const auto out = lab->wan().await(to(peer, 54));
        ASSERT_TRUE(out);
        EXPECT_NE(out->sport, port) << "type " << type << (of_wan ? " of the WAN, to " : ", to ") << peer;
      }
      const auto leased = plane->install(
          mapping(type == SOCK_STREAM ? Transport::tcp : Transport::udp, host, 80, port), clock.now());
      EXPECT_TRUE(!leased || leased->external.port.number() != port);
      close(own);
    }
}

// What is bound on the LAN alone is no reason: nobody outside reaches it.
TEST_F(TunPlaneTest, AFlowMayHaveThePortOfASocketOfTheLan) {  // POL-NET-12
  start();
  const int own = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  ASSERT_EQ(setsockopt(own, SOL_SOCKET, SO_BINDTODEVICE, "lan0", 4), 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(5570);
  ASSERT_EQ(bind(own, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  lab->lan().send(udp(host, 5570, server, 53));
  const auto out = lab->wan().await(to(server, 53));
  ASSERT_TRUE(out);
  EXPECT_EQ(out->sport, 5570);
  close(own);
}

TEST_F(TunPlaneTest, WhatTheRouterDoesNotKnowMeetsSilence) {  // POL-NET-04
  start();
  Wire gre = udp(server, 0, external, 0, "12345678");
  gre.protocol = 47;
  lab->wan().send(gre);
  lab->wan().send(udp(server, 40000, external, 68));
  Wire last_hop = tcp(server, 40000, external, 9999);
  last_hop.ttl = 1;
  lab->wan().send(last_hop);
  lab->wan().send(echo(other_server, external, 9));
  std::vector<Wire> others;
  ASSERT_TRUE(lab->wan().await(any_to(other_server), &others));
  for (const Wire& wire : others) ADD_FAILURE() << "wan0 got " << wire.says();
}

// It would not take what comes out of the TUN (SO_BINDTODEVICE).
TEST_F(TunPlaneTest, ASocketBoundToTheWanInterfaceIsReachedFromTheNextSweepOn) {
  start();
  const int bound = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  ASSERT_EQ(setsockopt(bound, SOL_SOCKET, SO_BINDTODEVICE, "wan0", 4), 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(62000);
  ASSERT_EQ(bind(bound, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  plane->sweep(clock.now() + 1s);
  lab->wan().send(udp(server, 53, external, 62000));
  pollfd wait{bound, POLLIN, 0};
  EXPECT_EQ(poll(&wait, 1, 5000), 1);
  close(bound);
  const std::string rules = run("ip -4 rule show");
  plane->sweep(clock.now() + 2s);
  EXPECT_NE(run("ip -4 rule show"), rules) << "the rule outlives its socket";
}

TEST_F(TunPlaneTest, AVpnStaysUntranslated) {
  start();
  lab->lan().send(udp(host, 5000, "10.8.0.2", 53));
  const auto out = lab->vpn().await(to("10.8.0.2", 53));
  ASSERT_TRUE(out);
  EXPECT_EQ(dotted(out->src), host);
  lab->vpn().send(udp("10.8.0.2", 53, host, 5000));
  EXPECT_TRUE(lab->lan().await(to(host, 5000)));

  // When the VPN goes, what was meant for it must not leave by the WAN instead: not even with the daemon
  // dead.
  run("ip link set vpn0 down");
  lab->lan().send(udp(host, 5000, "10.8.0.2", 53));
  lab->lan().send(udp(host, 5000, "192.168.2.10", 5000));
  ASSERT_TRUE(lab->guest().await(to("192.168.2.10", 5000)));
  EXPECT_TRUE(lab->wan().drain().empty());
}

TEST_F(TunPlaneTest, LansReachEachOtherUntranslated) {
  start();
  lab->lan().send(udp(host, 5000, "192.168.2.10", 53));
  const auto out = lab->guest().await(to("192.168.2.10", 53));
  ASSERT_TRUE(out);
  EXPECT_EQ(dotted(out->src), host);
}

TEST_F(TunPlaneTest, NoTranslateDestinationsPassAndAnswer) {  // N6888-06
  auto network = lab->network();
  network.untranslated.push_back(Prefix::v4(ip("198.51.100.128"), 25));
  start(network);
  lab->lan().send(udp(host, 5000, "198.51.100.200", 53));
  const auto out = lab->wan().await(to("198.51.100.200", 53));
  ASSERT_TRUE(out);
  EXPECT_EQ(dotted(out->src), host);
  lab->wan().send(udp("198.51.100.200", 53, host, 5000));
  EXPECT_TRUE(lab->lan().await(to(host, 5000)));
  round_trip(lab->lan(), host, 5000);
}

TEST_F(TunPlaneTest, ADhcpBroadcastReachesTheRouter) {
  start();
  const int service = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(67);
  ASSERT_EQ(bind(service, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  lab->lan().send(udp("0.0.0.0", 68, "255.255.255.255", 67));
  pollfd wait{service, POLLIN, 0};
  EXPECT_EQ(poll(&wait, 1, 5000), 1);
  close(service);
}

TEST_F(TunPlaneTest, ATooLargePacketIsToldTheWansMtu) {  // N4787-22, N4787-23
  run("ip link set wan0 mtu 1400");
  auto network = lab->network();
  network.wan[0].mtu = 1400;
  start(network);
  auto large = udp(host, 5000, server, 53, std::string(1440, 'x'));
  large.df = true;
  lab->lan().send(large);
  const auto error = lab->lan().await(any_to(host));
  ASSERT_TRUE(error);
  EXPECT_EQ(error->icmp_type, 3);
  EXPECT_EQ(error->icmp_code, 4);
  large.df = false;
  lab->lan().send(large);
  for (int i = 0; i < 2; ++i) {
    const auto piece = lab->wan().await(any_to(server));
    ASSERT_TRUE(piece);
    EXPECT_EQ(dotted(piece->src), external);
  }
}

TEST_F(TunPlaneTest, TheLastHopIsToldByTheLanAddress) {  // N4787-32
  start();
  auto dying = udp(host, 5000, server, 53);
  dying.ttl = 1;
  lab->lan().send(dying);
  const auto error = lab->lan().await(any_to(host));
  ASSERT_TRUE(error);
  EXPECT_EQ(dotted(error->src), "192.168.1.1");
  EXPECT_EQ(error->icmp_type, 11);
}

TEST_F(TunPlaneTest, WithoutAWanAddressTheLanIsDroppedUntilItComes) {
  run("ip address del 203.0.113.2/24 dev wan0");
  auto network = lab->network();
  network.external.clear();
  network.wan[0].addresses.clear();
  start(network);
  lab->lan().send(udp(host, 5000, server, 53));
  lab->lan().send(udp(host, 5000, "203.0.113.9", 53));
  lan_sentinel();
  EXPECT_TRUE(lab->wan().drain().empty());

  run("ip address add 203.0.113.2/24 dev wan0 && ip route add default via 203.0.113.1");
  lab->neighbours();
  ASSERT_TRUE(plane->set_network(lab->network(), clock.now()));
  round_trip(lab->lan(), host, 5000);
}

// The default route leaves by wan0 all the same, and forwarding is on for the LAN.
TEST_F(TunPlaneTest, WithoutItsWanInterfaceTheLanHasNoOtherWayOut) {  // POL-NET-01
  auto network = lab->network();
  network.wan.clear();
  network.wan.emplace_back().name = "ppp7";
  network.external.clear();
  start(network);
  lab->lan().send(udp(host, 5000, server, 53));
  lab->lan().send(echo(host, server, 7));
  lab->lan().send(udp(host, 5000, "203.0.113.1", 53));
  lan_sentinel();
  for (const Wire& wire : lab->wan().drain()) ADD_FAILURE() << "wan0 got " << wire.says();
}

TEST_F(TunPlaneTest, AnAddressChangeMovesEverything) {
  start();
  round_trip(lab->lan(), host, 5000);
  run("ip address del 203.0.113.2/24 dev wan0 && ip address add 203.0.113.3/24 dev wan0");
  run("ip route add default via 203.0.113.1");
  lab->neighbours();
  auto network = lab->network();
  network.external = network.wan[0].addresses = {Address::v4(ip("203.0.113.3"))};
  ASSERT_TRUE(plane->set_network(network, clock.now())) << problems();
  round_trip(lab->lan(), host, 5001, server, "203.0.113.3");
  lab->wan().send(echo(server, "203.0.113.3", 4));
  EXPECT_TRUE(lab->wan().await(any_to(server)));
}

TEST_F(TunPlaneTest, AnInterfaceThatComesBackForwardsAgain) {
  start();
  run("sysctl -qw net.ipv4.conf.lan0.forwarding=0");  // as a new interface of the old name has it
  ASSERT_TRUE(plane->set_network(lab->network(), clock.now()));
  round_trip(lab->lan(), host, 5000);
}

TEST_F(TunPlaneTest, NothingLeavesAfterKillMinusNine) {
  start_in_child();
  round_trip(lab->lan(), host, 5000);
  end_child();

  lab->lan().send(udp(host, 5000, server, 53));
  lab->lan().send(tcp(host, 5000, server, 53));
  lab->lan().send(echo(host, server, 3));
  lab->lan().send(udp(host, 5000, "203.0.113.9", 53));
  lan_sentinel();
  for (const Wire& wire : lab->wan().drain()) ADD_FAILURE() << "leaked: " << wire.says();

  // A RST or a "port unreachable" would end sessions that the next start could carry on.
  lab->wan().send(tcp(server, 40000, external, 8080));
  lab->wan().send(tcp(server, 40000, external, 61500));
  lab->wan().send(tcp(server, 40000, external, 5000, 0x10));
  lab->wan().send(udp(server, 53, external, 5000));
  lab->wan().send(echo(server, external, 8));
  std::vector<Wire> others;
  const auto pong = [](const Wire& wire) {
    return wire.protocol == 1 && wire.icmp_type == 0 && wire.sport == 8;
  };
  EXPECT_TRUE(lab->wan().await(pong, &others)) << "the router itself should still answer pings";
  for (const Wire& wire : others) ADD_FAILURE() << "answered: " << wire.says();

  const int own = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(62000);
  ASSERT_EQ(bind(own, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  lab->wan().send(udp(server, 53, external, 62000));
  pollfd wait{own, POLLIN, 0};
  EXPECT_EQ(poll(&wait, 1, 5000), 1) << "the router's own connections end with the daemon";
  close(own);

  start();
  round_trip(lab->lan(), host, 5000);
}

TEST_F(TunPlaneTest, NothingLeavesAfterAStop) {
  start();
  round_trip(lab->lan(), host, 5000);
  plane.reset();
  lab->lan().send(udp(host, 5000, server, 53));
  lan_sentinel();
  for (const Wire& wire : lab->wan().drain()) ADD_FAILURE() << "leaked: " << wire.says();
}

TEST_F(TunPlaneTest, DetachPutsEverythingBack) {
  run("sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.ip_local_reserved_ports=8080");
  run("ip rule add pref 77 to 192.0.2.0/24 lookup 250");
  const std::string before = TunLab::state();
  start();
  ASSERT_TRUE(plane->install(mapping(Transport::tcp, host, 80, 61234), clock.now())) << problems();
  EXPECT_NE(TunLab::state(), before);
  detach();
  EXPECT_EQ(TunLab::state(), before);

  start_in_child();
  end_child();
  detach();
  EXPECT_EQ(TunLab::state(), before) << "after kill -9";
}

TEST_F(TunPlaneTest, DetachWhileItRunsIsRefused) {
  start();
  const std::string before = TunLab::state();
  std::string why;
  EXPECT_FALSE(TunPlane::detach(options(), why));
  EXPECT_NE(why.find("stop"), std::string::npos) << why;
  EXPECT_EQ(TunLab::state(), before);
}

TEST_F(TunPlaneTest, ASecondInstanceIsRefusedAndHarmless) {
  queues = 2;
  start();
  const std::string before = TunLab::state();
  std::string why;
  const auto second = TunPlane::start(options(), clock, why);
  ASSERT_FALSE(second);
  EXPECT_NE(why.find("another sallyportd"), std::string::npos) << why;
  EXPECT_EQ(TunLab::state(), before);
  round_trip(lab->lan(), host, 5000);
}

TEST_F(TunPlaneTest, WhatCouldNotBeUndoneIsNotDone) {
  const std::string before = TunLab::state();
  auto wrong = options();
  wrong.undo_file = lab->undo_file() + "/missing/undo";
  std::string why;
  EXPECT_FALSE(TunPlane::start(wrong, clock, why));
  EXPECT_NE(why.find(wrong.undo_file), std::string::npos) << why;
  EXPECT_EQ(TunLab::state(), before);
}

TEST_F(TunPlaneTest, StartingAgainAndAgainChangesNothing) {
  start();
  const std::string first = run("ip -4 rule show; ip -4 route show table all");
  ASSERT_TRUE(plane->set_network(lab->network(), clock.now()));
  EXPECT_EQ(run("ip -4 rule show; ip -4 route show table all"), first);
  plane.reset();
  start();
  EXPECT_EQ(run("ip -4 rule show; ip -4 route show table all"), first);
}

TEST_F(TunPlaneTest, StrictReversePathFilteringDoesNotBreakIt) {
  run("sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.wan0.rp_filter=1 "
      "net.ipv4.conf.lan0.rp_filter=1");
  start();
  round_trip(lab->lan(), host, 5000);
  lab->lan().send(echo(host, server, 77));
  const auto out = lab->wan().await(any_to(server));
  ASSERT_TRUE(out);
  lab->wan().send(echo(server, external, out->sport, true));
  EXPECT_TRUE(lab->lan().await(any_to(host)));
  EXPECT_NE(problems().find("rp_filter of wan0"), std::string::npos);
}

TEST_F(TunPlaneTest, APortOfTheRoutersRangeCanBeLeased) {
  start();
  for (const std::uint16_t wanted : {61000, 61001, 65000, 65535}) {
    const auto installed = plane->install(mapping(Transport::udp, host, wanted, wanted), clock.now());
    ASSERT_TRUE(installed) << wanted << ' ' << installed.error().message() << problems();
    lab->wan().send(udp(server, 40000, external, wanted));
    EXPECT_TRUE(lab->lan().await(to(host, wanted))) << wanted;
    if (wanted == 61001) {
      EXPECT_EQ(run("cat /proc/sys/net/ipv4/ip_local_reserved_ports"), "61000-61001\n");
      plane->withdraw(installed->id, Ending::vacate, clock.now());
      EXPECT_EQ(run("cat /proc/sys/net/ipv4/ip_local_reserved_ports"), "61000\n");
    }
  }
  // Far more than there is room for in rules; every second port, so that no range covers them.
  for (std::uint16_t wanted = 62000; wanted < 62200; wanted = static_cast<std::uint16_t>(wanted + 2))
    ASSERT_TRUE(plane->install(mapping(Transport::udp, host, wanted, wanted), clock.now())) << wanted;
  lab->wan().send(udp(server, 40000, external, 62198));
  EXPECT_TRUE(lab->lan().await(to(host, 62198)));
  const std::string rules = run("ip -4 rule show");
  EXPECT_LT(std::count(rules.begin(), rules.end(), '\n'), 100);
}

// POL-FAIR-03, NMAP-12: the kernel takes a list of ports a page at a time.
TEST_F(TunPlaneTest, ManyPortsOfTheRoutersRangeCanBeLeased) {
  start();
  constexpr int many = 800;  // more than a page of them
  for (int i = 0; i < many; ++i) {
    const auto wanted = static_cast<std::uint16_t>(61000 + 2 * i);
    const auto installed = plane->install(mapping(Transport::udp, host, wanted, wanted), clock.now());
    ASSERT_TRUE(installed) << wanted << ' ' << installed.error().message() << problems();
  }
  const std::string listed = run("cat /proc/sys/net/ipv4/ip_local_reserved_ports");
  EXPECT_EQ(std::count(listed.begin(), listed.end(), ','), many - 1);
}

TEST_F(TunPlaneTest, TheEngineChoosesNoPortOfTheRoutersRange) {
  start();
  auto spec = mapping(Transport::udp, host, 4444, 1024);
  spec.suggested.reset();
  spec.insist = false;
  for (std::uint32_t i = 0; i < 64; ++i) {
    spec.internal.port = port(61000 + i);  // which it would keep
    const auto installed = plane->install(spec, clock.now());
    ASSERT_TRUE(installed);
    EXPECT_LT(installed->external.port.number(), 61000);
  }
}

TEST_F(TunPlaneTest, FlushedRulesComeBackWithTheNextSweep) {
  start();
  const std::string rules = run("ip -4 rule show; ip -4 route show table 7100");
  run("ip rule flush && ip rule add pref 0 lookup local && ip rule add pref 32766 lookup main");
  run("ip route flush table 7100");
  plane->sweep(clock.now());
  run("ip rule del pref 32766 && ip rule add pref 32766 lookup main && ip rule add pref 32767 lookup "
      "default");
  EXPECT_EQ(run("ip -4 rule show; ip -4 route show table 7100"), rules);
  round_trip(lab->lan(), host, 5000);
  EXPECT_NE(problems().find("removed our routing rules"), std::string::npos);
}

TEST_F(TunPlaneTest, ManyPacketsAtOnceAllPass) {
  start();
  constexpr int count = 300;
  for (int i = 0; i < count; ++i)
    lab->lan().send(udp(host, static_cast<std::uint16_t>(10000 + i), server, 53));
  for (int i = 0; i < count; ++i) ASSERT_TRUE(lab->wan().await(to(server, 53))) << i;
}

TEST_F(TunPlaneTest, PacketsOfAFlowKeepTheirOrderHoweverManyQueuesThereAre) {
  for (const unsigned number : {1U, 4U}) {
    SCOPED_TRACE(number);
    queues = number;
    start();
    constexpr std::uint16_t flows = 32, packets = 20;
    std::array<std::uint16_t, flows> outside{};
    for (std::uint16_t flow = 0; flow < flows; ++flow)
      outside[flow] = round_trip(lab->lan(), host, static_cast<std::uint16_t>(10000 + flow));
    const auto in_order = [&](FarEnd& from, FarEnd& to, auto&& packet_of, auto&& flow_of) {
      for (std::uint16_t i = 0; i < packets; ++i)
        for (std::uint16_t flow = 0; flow < flows; ++flow) from.send(packet_of(flow, std::to_string(i)));
      std::map<std::uint16_t, int> next;
      for (int i = 0; i < flows * packets; ++i) {
        const auto packet = to.await([&](const Wire& caught) { return flow_of(caught) != 0; });
        ASSERT_TRUE(packet) << i;
        const std::string text{packet->payload.begin(), packet->payload.end()};
        ASSERT_EQ(text, std::to_string(next[flow_of(*packet)]++));
      }
    };
    in_order(
        lab->lan(), lab->wan(),
        [&](std::uint16_t flow, const std::string& text) {
          return udp(host, static_cast<std::uint16_t>(10000 + flow), server, 53, text);
        },
        [&](const Wire& caught) { return caught.dport == 53 ? caught.sport : 0; });
    in_order(
        lab->wan(), lab->lan(),
        [&](std::uint16_t flow, const std::string& text) {
          return udp(server, 53, external, outside[flow], text);
        },
        [&](const Wire& caught) { return caught.sport == 53 ? caught.dport : 0; });
    plane.reset();
  }
}

/// "Name: a b c" lines of /proc/net/snmp come in pairs of names and values.
std::uint64_t snmp(const std::string& group, const std::string& name) {
  std::ifstream in{"/proc/thread-self/net/snmp"};
  std::string names, values;
  while (std::getline(in, names) && std::getline(in, values)) {
    std::istringstream keys{names}, numbers{values};
    std::string key, number;
    while (keys >> key && numbers >> number)
      if (names.starts_with(group + ':') && key == name) return std::stoull(number);
  }
  throw std::runtime_error{name};
}

// The gateway merges segments (GRO) and hands the engine super packets with partial checksums; the far ends
// and the way out of the gateway make and verify real ones (dataplane.md, pitfall 5).
TEST_F(TunPlaneTest, StreamsOfSuperPacketsArriveWholeEitherWay) {  // NPKT-09
  queues = 4;
  start();
  lab->lan().give_stack("192.168.1.20/24", "192.168.1.1");
  lab->wan().give_stack("203.0.113.30/24", external);
  for (FarEnd* far : {&lab->lan(), &lab->wan()}) far->inside([] { run("ethtool -K host tx off gro off"); });
  for (const char* interface : {"lan0", "wan0"})
    run(std::string{"ethtool -K "} + interface + " tx off && ethtool -K " + interface + " gro on");
  const auto installed = plane->install(mapping(Transport::tcp, "192.168.1.20", 80, 8080), clock.now());
  ASSERT_TRUE(installed);

  constexpr std::size_t total = 8 << 20;
  std::string sent(total, 0);
  for (std::size_t i = 0; i < total; ++i) sent[i] = static_cast<char>(i * 2654435761u >> 13);
  const auto stream = [&](FarEnd& from, FarEnd& to, std::uint16_t listen_port, const char* dial,
                          std::uint16_t dial_port) {
    int listener = -1, client = -1;
    to.inside([&] {
      listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
      sockaddr_in any{};
      any.sin_family = AF_INET;
      any.sin_port = htons(listen_port);
      ASSERT_EQ(bind(listener, reinterpret_cast<sockaddr*>(&any), sizeof any), 0);
      ASSERT_EQ(listen(listener, 1), 0);
    });
    from.inside([&] { client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0); });
    const timeval limit{10, 0};
    setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    std::thread sender{[&] {
      sockaddr_in there{};
      there.sin_family = AF_INET;
      there.sin_port = htons(dial_port);
      there.sin_addr.s_addr = htonl(ip(dial));
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
      const int server_end = accept(listener, nullptr, nullptr);
      std::array<char, 65536> part;
      wait.fd = server_end;
      const auto end = std::chrono::steady_clock::now() + 30s;  // broken sums make a stream crawl
      while (poll(&wait, 1, 10000) == 1 && std::chrono::steady_clock::now() < end) {
        const ssize_t size = read(server_end, part.data(), part.size());
        if (size <= 0) break;
        got.append(part.data(), static_cast<std::size_t>(size));
      }
      close(server_end);
    }
    shutdown(client, SHUT_RDWR);
    sender.join();
    close(client);
    close(listener);
    EXPECT_EQ(got.size(), total);
    EXPECT_TRUE(got == sent);
    to.inside([] { EXPECT_EQ(snmp("Tcp", "InCsumErrors"), 0u); });
    from.inside([] { EXPECT_EQ(snmp("Tcp", "InCsumErrors"), 0u); });
  };
  stream(lab->lan(), lab->wan(), 5001, "203.0.113.30", 5001);
  stream(lab->wan(), lab->lan(), 80, external, 8080);
}

}  // namespace
}  // namespace sallyport::nat
