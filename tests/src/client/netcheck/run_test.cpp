#include <optional>

#include <gtest/gtest.h>
#include <boost/asio/io_context.hpp>

#include "sallyport/client/client.hpp"

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

}  // namespace
}  // namespace sallyport::client
