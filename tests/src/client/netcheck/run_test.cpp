#include <atomic>
#include <optional>
#include <string>
#include <thread>

#include <gtest/gtest.h>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/io_context.hpp>

#include "sallyport/client/client.hpp"
#include "tests/src/transport/namespaces.hpp"

namespace sallyport::client {
namespace {

/// Of an interface that is not there, so nothing is sent; what networks do is tried in tests/lab.
class NetcheckRun : public ::testing::Test {
 protected:
  struct Said {
    boost::system::error_code error;
    NetcheckReport report;
  };
  void ask(NetcheckOptions options = {}) {
    client->async_netcheck(std::move(options), [&](boost::system::error_code error, NetcheckReport report) {
      said = Said{error, std::move(report)};
      client.reset();
    });
  }

  boost::asio::io_context io;
  std::optional<Client> client{std::in_place, io.get_executor(),
                               ClientOptions{.interfaces = {"no-such-interface"}}};
  std::optional<Said> said;
};

TEST_F(NetcheckRun, HasAReportWithoutAnyNetworkAndLeavesNoWorkBehind) {
  ask({.helper = NetcheckOptions::Helper{.host = "192.0.2.1"}});
  EXPECT_FALSE(said);  // never from within the call
  io.run();            // ends
  ASSERT_TRUE(said);
  EXPECT_FALSE(said->error);
  EXPECT_EQ(said->report.verdict, Verdict::no_network);
  EXPECT_TRUE(said->report.paths.empty());
  EXPECT_EQ(said->report.stages.size(), 7u);
  EXPECT_TRUE(said->report.port);  // a free one
  EXPECT_EQ(said->report.helper, "192.0.2.1:3478");
}

TEST_F(NetcheckRun, OfAClientThatHasGoneIsClosed) {
  ask();
  client.reset();
  io.run();
  ASSERT_TRUE(said);
  EXPECT_EQ(said->error, Errc::closed);
}

/// A host and its router, which says nothing unless a test lets it.
class NetcheckOnALan : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const auto why_not = test::no_namespaces()) GTEST_SKIP() << *why_not;
    host.emplace();
    router.emplace();
    ASSERT_TRUE(host->connect("eth0", *router, "lan0"));
    ASSERT_TRUE(host->ip("addr add 192.168.7.2/24 dev eth0"));
    ASSERT_TRUE(host->ip("route add default via 192.168.7.1"));
    ASSERT_TRUE(router->ip("addr add 192.168.7.1/24 dev lan0"));
  }

  std::optional<test::Namespace> host, router;
};

TEST_F(NetcheckOnALan, EndsWithItsPatienceAndLeavesNoWorkBehind) {
  test::HostSocket silent{*router, "192.168.7.1", 5351};
  host->inside([] {
    boost::asio::io_context io;
    std::optional<Client> client{std::in_place, io.get_executor()};
    std::optional<NetcheckReport> report;
    client->async_netcheck({.patience = std::chrono::seconds{1}},
                           [&](boost::system::error_code error, NetcheckReport told) {
                             EXPECT_FALSE(error);
                             report = std::move(told);
                             client.reset();
                           });
    io.run();  // ends, though nobody confirms that anything is given back
    ASSERT_TRUE(report);
    EXPECT_EQ(report->verdict, Verdict::no_gateway);
    ASSERT_EQ(report->paths.size(), 1u);
    EXPECT_EQ(report->paths[0].gateway, Address::parse("192.168.7.1"));
    EXPECT_EQ(report->paths[0].local, Address::parse("192.168.7.2"));
    EXPECT_EQ(report->paths[0].interface, "eth0");
  });
}

TEST_F(NetcheckOnALan, CanBeCancelled) {
  test::HostSocket silent{*router, "192.168.7.1", 5351};
  host->inside([&] {
    boost::asio::io_context io;
    std::optional<Client> client{std::in_place, io.get_executor()};
    boost::asio::cancellation_signal change_of_mind;
    std::optional<boost::system::error_code> said;
    client->async_netcheck({.patience = std::chrono::hours{1}},
                           boost::asio::bind_cancellation_slot(
                               change_of_mind.slot(), [&](boost::system::error_code error, NetcheckReport) {
                                 said = error;
                                 client.reset();
                               }));
    while (!silent.receive(0)) io.run_one();  // it has asked
    change_of_mind.emit(boost::asio::cancellation_type::terminal);
    io.run();
    EXPECT_EQ(said, boost::asio::error::operation_aborted);
  });
}

TEST_F(NetcheckOnALan, JudgesAPortThatTheProgramHoldsByWhatItHolds) {
  test::HostSocket natpmp{*router, "192.168.7.1", 5351};
  std::atomic<bool> ending = false;
  std::atomic<int> maps = 0, releases = 0;
  std::thread serving{[&] {
    while (!ending) {
      const auto asked = natpmp.receive(20);
      if (!asked || asked->bytes.size() < 2 || asked->bytes[0] != 0) continue;
      std::string head(8, '\0');
      head[1] = static_cast<char>(asked->bytes[1] + 128);
      head[7] = 1;
      if (asked->bytes.size() == 2)
        natpmp.send(head + std::string{char(203), char(0), char(113), char(5)}, asked->from,
                    asked->from_port);
      if (asked->bytes.size() != 12) continue;
      const bool release = asked->bytes.substr(8) == std::string(4, '\0');
      ++(release ? releases : maps);
      // the external port is the internal one and one more
      const std::string external{asked->bytes[4], static_cast<char>(asked->bytes[5] + 1)};
      natpmp.send(head + asked->bytes.substr(4, 2) + (release ? std::string(2, '\0') : external) +
                      asked->bytes.substr(8),
                  asked->from, asked->from_port);
    }
  }};
  host->inside([&] {
    boost::asio::io_context io;
    Client client{io.get_executor(), {.pcp = false, .upnp = false}};
    const auto number = *Port::from(22000);
    auto port = client.open({.transport = Transport::udp, .internal_port = number});
    std::optional<NetcheckReport> report;
    port.async_wait([&](boost::system::error_code error, const Grant&) {
      ASSERT_FALSE(error) << error.message();
      client.async_netcheck({.port = number}, [&](boost::system::error_code, NetcheckReport told) {
        report = std::move(told);
        io.stop();
      });
    });
    io.run_for(std::chrono::seconds{30});
    ASSERT_TRUE(report);
    EXPECT_EQ(report->verdict, Verdict::likely_reachable);
    EXPECT_EQ(report->paths.at(0).via, "natpmp");
    EXPECT_EQ(report->external, (ExternalEndpoint{*Address::parse("203.0.113.5"), *Port::from(22001)}));
    EXPECT_EQ(maps, 1);
    EXPECT_EQ(releases, 0);
    EXPECT_EQ(port.grants().size(), 1u);
  });
  ending = true;
  serving.join();
}

}  // namespace
}  // namespace sallyport::client
