#include <optional>

#include <gtest/gtest.h>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "sallyport/client/client.hpp"

namespace sallyport::client {
namespace {

namespace asio = boost::asio;
using namespace std::chrono_literals;
constexpr auto as_tuple = asio::as_tuple(asio::use_awaitable);

/// Handles, clients and contexts that end in whatever order. Of an interface that is not there, so nothing is sent.
class ClientLifetime : public ::testing::Test {
 protected:
  void SetUp() override {
    io.emplace();
    client.emplace(io->get_executor(), ClientOptions{.interfaces = {"no-such-interface"}});
  }
  PortHandle open() { return client->open({.internal_port = *Port::from(20000), .ipv6 = false}); }

  struct Ends {
    bool* ended;
    ~Ends() { *ended = true; }
  };
  static asio::awaitable<void> watch(PortHandle port, bool* ended) {
    const Ends guard{ended};
    for (;;) {
      const auto [error, event] = co_await port.async_next_event(as_tuple);
      if (error) co_return;
    }
  }

  std::optional<asio::io_context> io;
  std::optional<Client> client;
};

TEST_F(ClientLifetime, WhoeverWaitsIsToldThatTheClientHasGone) {
  auto port = open();
  boost::system::error_code told;
  port.async_next_event([&](boost::system::error_code error, const Event& event) {
    EXPECT_FALSE(error);
    EXPECT_EQ(event.reason, Errc::no_network);
    port.async_next_event([&](boost::system::error_code end, const Event&) { told = end; });
    client.reset();
  });
  io->run();  // ends
  EXPECT_EQ(told, Errc::closed);
}

TEST_F(ClientLifetime, ACoroutineThatHoldsAHandleEndsWithItsContext) {
  bool ended = false;
  asio::co_spawn(*io, watch(open(), &ended), asio::detached);
  io->run_for(20ms);
  EXPECT_FALSE(ended);
  client.reset();
  io.reset();
  EXPECT_TRUE(ended);
}

TEST_F(ClientLifetime, TheContextMayGoFirst) {
  bool ended = false;
  asio::co_spawn(*io, watch(open(), &ended), asio::detached);
  auto port = client->open({.internal_port = *Port::from(20001)});
  bool called = false;
  port.async_close([&](boost::system::error_code) { called = true; });
  auto other = client->open({.internal_port = *Port::from(20002)});
  io->run_for(1ms);
  io.reset();
  EXPECT_TRUE(ended);
  EXPECT_TRUE(other.grants().empty());
  client.reset();  // and `other` after it
}

TEST_F(ClientLifetime, AClientThatWasNeverAskedNeedsNoContext) {
  io.reset();
  client.reset();
}

}  // namespace
}  // namespace sallyport::client
