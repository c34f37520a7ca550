#include "src/transport/netlink.hpp"

#include <unistd.h>

#include <algorithm>

#include <boost/asio/io_context.hpp>

#include "tests/src/transport/namespaces.hpp"

namespace sallyport::transport {
namespace {

using namespace std::chrono_literals;

class NetworkWatcherTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const auto why = test::no_namespaces()) GTEST_SKIP() << *why;
    gateway.ip("link add wan0 type veth peer name cable0");
    gateway.ip("link set wan0 up");
    gateway.ip("link set cable0 up");
    gateway.inside([&] { watcher = std::move(*NetworkWatcher::open(io.get_executor())); });
    watcher->watch([this] { ++changes; });
  }
  nat::NetworkView view() const { return build_view(watcher->state(), {{"br0"}, {"wan0"}, {}, {}, {}}); }
  /// Lets the watcher work until `condition` holds; false when it does not within ten seconds.
  bool until(const std::function<bool()>& condition) {
    for (const auto end = std::chrono::steady_clock::now() + 10s; std::chrono::steady_clock::now() < end;) {
      io.restart();
      io.run_for(10ms);
      if (condition()) return true;
    }
    return false;
  }

  test::Namespace gateway;
  boost::asio::io_context io;
  std::unique_ptr<NetworkWatcher> watcher;
  int changes = 0;
};

TEST_F(NetworkWatcherTest, FollowsAddressesLinksAndRoutes) {
  EXPECT_TRUE(view().external.empty());
  EXPECT_TRUE(until([&] { return view().wan[0].up; }));

  gateway.ip("addr add 203.0.113.7/24 dev wan0");
  EXPECT_TRUE(until([&] { return view().external == std::vector{*Address::parse("203.0.113.7")}; }));
  gateway.ip("addr del 203.0.113.7/24 dev wan0");
  gateway.ip("addr add 203.0.113.8/24 dev wan0");
  EXPECT_TRUE(until([&] { return view().external == std::vector{*Address::parse("203.0.113.8")}; }));

  gateway.ip("link add br0 type bridge");
  gateway.ip("addr add 192.168.1.1/24 dev br0");
  gateway.ip("link set br0 up");
  gateway.ip("route add 10.9.0.0/16 dev br0");
  EXPECT_TRUE(until([&] {
    return view().lan[0].prefixes ==
           std::vector{*Prefix::parse("192.168.1.0/24"), *Prefix::parse("10.9.0.0/16")};
  }));
  gateway.ip("link del br0");
  EXPECT_TRUE(until([&] { return view().lan[0].index == 0; }));
  gateway.ip("link set cable0 down");
  EXPECT_TRUE(until([&] { return !view().wan[0].up; }));
}

TEST_F(NetworkWatcherTest, ReadsTheMainTableOnlyAndTakesMultipathRoutesWhole) {
  gateway.ip("addr add 203.0.113.7/24 dev wan0");
  gateway.ip("addr add 198.51.100.1/24 dev cable0");
  gateway.ip("route add 10.1.0.0/16 dev cable0 table 100");
  gateway.ip("route add 10.2.0.0/16 nexthop dev cable0 nexthop dev wan0");
  gateway.ip("route add 10.3.0.0/16 dev cable0");
  EXPECT_TRUE(until([&] {
    return view().untranslated ==
           std::vector{*Prefix::parse("10.3.0.0/16"), *Prefix::parse("198.51.100.0/24")};
  }));
}

TEST_F(NetworkWatcherTest, FollowsIpv6AddressesAndRoutes) {
  if (access("/proc/sys/net/ipv6/conf/all/disable_ipv6", F_OK) != 0) GTEST_SKIP() << "needs IPv6";
  gateway.ip("link add br0 type bridge");
  gateway.ip("link set br0 up");
  gateway.ip("addr add 2001:db8:1::1/64 dev br0 nodad");
  gateway.ip("-6 route add 2001:db8:1:100::/56 dev br0");
  gateway.ip("addr add 2001:db8:2::2/64 dev wan0 nodad");
  gateway.ip("-6 route add default via 2001:db8:2::1");
  gateway.ip("-6 route add fd00:5::/64 dev cable0");
  gateway.ip("-6 route add fd00:6::/64 dev cable0 table 100");
  EXPECT_TRUE(until([&] {
    const auto now = view();
    return now.lan[0].prefixes ==
               std::vector{*Prefix::parse("2001:db8:1::/64"), *Prefix::parse("2001:db8:1:100::/56")} &&
           now.untranslated == std::vector{*Prefix::parse("fd00:5::/64")};
  }));
  const auto wan = view().wan[0].addresses;
  EXPECT_NE(std::find(wan.begin(), wan.end(), *Address::parse("2001:db8:2::2")), wan.end());
  gateway.ip("addr del 2001:db8:1::1/64 dev br0");
  gateway.ip("addr add 2001:db8:3::1/64 dev br0 nodad");
  EXPECT_TRUE(until([&] {
    const auto prefixes = view().lan[0].prefixes;
    return std::find(prefixes.begin(), prefixes.end(), *Prefix::parse("2001:db8:3::/64")) != prefixes.end() &&
           std::find(prefixes.begin(), prefixes.end(), *Prefix::parse("2001:db8:1::/64")) == prefixes.end();
  }));
  gateway.ip("-6 neigh add 2001:db8:3::9 lladdr 02:00:00:00:00:09 dev br0 nud permanent");
  EXPECT_EQ(watcher->mac_of(*Address::parse("2001:db8:3::9")), "02:00:00:00:00:09");
}

TEST_F(NetworkWatcherTest, AStormOfNoticesIsReadOnceOrSo) {
  std::string batch;
  for (int i = 0; i < 2000; ++i)
    batch += "route add 10." + std::to_string(i / 250) + '.' + std::to_string(i % 250) + ".0/24 dev cable0\n";
  gateway.inside([&] {
    FILE* input = ::popen("ip -batch -", "w");
    std::fputs(batch.c_str(), input);
    ::pclose(input);
  });
  EXPECT_TRUE(until([&] { return watcher->state().routes.size() == 2000; }));
  EXPECT_LT(changes, 50);
}

TEST_F(NetworkWatcherTest, KnowsTheMacOfANeighbour) {
  gateway.ip("addr add 203.0.113.7/24 dev wan0");
  gateway.ip("neigh add 203.0.113.9 lladdr 02:00:00:00:00:09 dev wan0 nud permanent");
  EXPECT_EQ(watcher->mac_of(*Address::parse("203.0.113.9")), "02:00:00:00:00:09");
  EXPECT_EQ(watcher->mac_of(*Address::parse("203.0.113.10")), std::nullopt);
}

TEST_F(NetworkWatcherTest, KnowsTheMacOfANeighbourOfIpv6AndOfOneThatHasJustCome) {
  ASSERT_TRUE(gateway.ip("-6 addr add 2001:db8:9::1/64 dev wan0 nodad"));
  gateway.ip("addr add 203.0.113.7/24 dev wan0");
  ASSERT_TRUE(until([&] { return !watcher->state().ipv6.empty() && !watcher->state().addresses.empty(); }));
  gateway.ip("-6 neigh add 2001:db8:9::9 lladdr 02:00:00:00:00:09 dev wan0 nud permanent");
  EXPECT_EQ(watcher->mac_of(*Address::parse("2001:db8:9::9")), "02:00:00:00:00:09");
  for (const auto* late : {"2001:db8:9::a", "203.0.113.10"}) {  // within the second
    EXPECT_EQ(watcher->mac_now(*Address::parse(late)), std::nullopt);
    gateway.ip(std::string{"neigh add "} + late + " lladdr 02:00:00:00:00:0a dev wan0 nud permanent");
    EXPECT_EQ(watcher->mac_now(*Address::parse(late)), "02:00:00:00:00:0a");
  }
  EXPECT_EQ(watcher->ipv4_of("02:00:00:00:00:0a"), Address::parse("203.0.113.10"));
  EXPECT_EQ(watcher->ipv4_of("02:00:00:00:00:09"), std::nullopt);
}

}  // namespace
}  // namespace sallyport::transport
