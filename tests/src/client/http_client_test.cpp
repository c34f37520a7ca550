#include "src/client/http_client.hpp"

#include <gtest/gtest.h>
#include <net/if.h>

#include <algorithm>
#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>

namespace sallyport::client {
namespace {

namespace asio = boost::asio;
namespace errc = boost::system::errc;
using asio::ip::tcp;
using boost::system::error_code;
using upnp::http::Ask;
using upnp::http::Reply;
using namespace std::chrono_literals;

/// Long enough for a busy machine; no test waits for it when all is well.
constexpr auto patience = 20s;

/// What a gateway does with one request.
struct Answer {
  std::string octets;
  bool close = false;   ///< afterwards
  bool silent = false;  ///< nothing, and the connection stays
};

/// A gateway that does as it is told.
class Gateway {
 public:
  explicit Gateway(asio::io_context& io, const char* address = "127.0.0.1")
      : acceptor_{io, {asio::ip::make_address(address), 0}} {
    accept();
  }
  std::uint16_t port() const { return acceptor_.local_endpoint().port(); }

  std::vector<std::string> requests;
  std::vector<int> connection_of;  ///< which connection each request came by
  int connections = 0;
  std::function<Answer(std::size_t)> on_request = [](std::size_t) {
    return Answer{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"};
  };
  /// Ends every connection, as a device that tidies up.
  void hang_up() {
    for (auto& session : std::exchange(sessions_, {})) {
      error_code ignored;
      session->socket.close(ignored);
    }
  }
  /// Sends what nobody asked for.
  void blurt(std::string_view octets) {
    error_code ignored;
    for (const auto& session : sessions_) asio::write(session->socket, asio::buffer(octets), ignored);
  }
  /// No connection is taken up any more.
  void leave() {
    error_code ignored;
    acceptor_.close(ignored);
    hang_up();
  }

 private:
  struct Session {
    explicit Session(tcp::socket s) : socket{std::move(s)} {}
    tcp::socket socket;
    std::array<char, 4096> piece;
    std::string input;
    int number = 0;
  };

  void accept() {
    acceptor_.async_accept([this](const error_code& error, tcp::socket socket) {
      if (error) return;
      auto session = std::make_shared<Session>(std::move(socket));
      session->number = ++connections;
      sessions_.push_back(session);
      read(session);
      accept();
    });
  }
  void read(const std::shared_ptr<Session>& session) {
    session->socket.async_read_some(asio::buffer(session->piece),
                                    [this, session](const error_code& error, std::size_t size) {
                                      if (error) return;
                                      session->input.append(session->piece.data(), size);
                                      handle(session);
                                    });
  }
  void handle(const std::shared_ptr<Session>& session) {
    auto end = session->input.find("\r\n\r\n");
    if (end == std::string::npos) return read(session);
    end += 4;
    if (const auto at = session->input.find("CONTENT-LENGTH: "); at < end)
      end += std::stoul(session->input.substr(at + 16));
    if (session->input.size() < end) return read(session);
    requests.push_back(session->input.substr(0, end));
    connection_of.push_back(session->number);
    session->input.erase(0, end);
    auto answer = std::make_shared<Answer>(on_request(requests.size()));
    if (answer->silent) return read(session);
    asio::async_write(session->socket, asio::buffer(answer->octets),
                      [this, session, answer](const error_code& error, std::size_t) {
                        if (error) return;
                        if (!answer->close) return read(session);
                        error_code ignored;
                        session->socket.shutdown(tcp::socket::shutdown_both, ignored);
                        session->socket.close(ignored);
                      });
  }

  tcp::acceptor acceptor_;
  std::vector<std::shared_ptr<Session>> sessions_;
};

class HttpClientTest : public ::testing::Test {
 protected:
  struct Got {
    int times = 0;
    std::optional<Result<Reply>> result;
    bool ok() const { return result && *result; }
    error_code error() const { return result && !*result ? result->error() : error_code{}; }
  };

  void SetUp() override { renew(HttpClient::Options{}); }
  void renew(HttpClient::Options options) {
    client = std::make_unique<HttpClient>(io.get_executor(), options);
  }
  Ask get(std::string target = "/root.xml") {
    return {.method = "GET",
            .host = Address::v4(0x7f000001),
            .port = gateway.port(),
            .target = std::move(target),
            .max_body = 1000};
  }
  Ask post(std::string body) {
    auto ask = get("/ctl");
    ask.method = "POST";
    ask.fields.add("SOAPACTION", "\"a#b\"");
    ask.body = std::move(body);
    return ask;
  }
  std::shared_ptr<Got> ask(Ask what) {
    auto got = std::make_shared<Got>();
    client->ask(std::move(what), [got, this](Result<Reply> result) {
      EXPECT_FALSE(inside) << "called inside of ask() or stop()";
      ++got->times;
      got->result = std::move(result);
    });
    return got;
  }
  template <class Condition>
  bool run_until(Condition condition) {
    const auto end = std::chrono::steady_clock::now() + patience;
    io.restart();
    while (!condition() && std::chrono::steady_clock::now() < end) io.run_one_for(100ms);
    return condition();
  }
  std::shared_ptr<Got> ask_and_wait(Ask what) {
    auto got = ask(std::move(what));
    EXPECT_TRUE(run_until([&] { return got->times > 0; }));
    return got;
  }
  void answer_always(std::string octets, bool close = false) {
    gateway.on_request = [answer = Answer{std::move(octets), close}](std::size_t) { return answer; };
  }

  asio::io_context io;
  Gateway gateway{io};
  std::unique_ptr<HttpClient> client;
  bool inside = false;
};

TEST_F(HttpClientTest, SendsWhatIsAskedAndGivesTheAnswer) {  // UDA-3-25
  answer_always("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nServer: x\r\n\r\nhello");
  const auto got = ask_and_wait(post("<a/>"));
  ASSERT_TRUE(got->ok()) << got->error().message();
  const auto& reply = **got->result;
  EXPECT_EQ(reply.status, 200u);
  EXPECT_EQ(reply.body, "hello");
  EXPECT_EQ(reply.fields.find("server"), "x");
  EXPECT_EQ(reply.local, Address::v4(0x7f000001));
  ASSERT_EQ(gateway.requests.size(), 1u);
  const auto& request = gateway.requests[0];
  EXPECT_TRUE(
      request.starts_with("POST /ctl HTTP/1.1\r\nHOST: 127.0.0.1:" + std::to_string(gateway.port()) + "\r\n"))
      << request;
  EXPECT_NE(request.find("\r\nCONTENT-LENGTH: 4\r\n"), request.npos);
  EXPECT_NE(request.find("\r\nSOAPACTION: \"a#b\"\r\n"), request.npos);
  EXPECT_NE(request.find("\r\nUSER-AGENT: "), request.npos);
  EXPECT_TRUE(request.ends_with("\r\n\r\n<a/>"));
}

TEST_F(HttpClientTest, AConnectionIsUsedAgain) {
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(ask_and_wait(i % 2 ? post("x") : get())->ok());
  EXPECT_EQ(gateway.connections, 1);
  // one whose answer says close is not
  answer_always("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", true);
  ASSERT_TRUE(ask_and_wait(get())->ok());
  ASSERT_TRUE(ask_and_wait(get())->ok());
  EXPECT_EQ(gateway.connections, 2);
}

TEST_F(HttpClientTest, AConnectionThatWasClosedMeanwhileIsReplaced) {
  ASSERT_TRUE(ask_and_wait(get())->ok());
  gateway.hang_up();
  ASSERT_TRUE(ask_and_wait(post("x"))->ok());
  EXPECT_EQ(gateway.connections, 2);
  // closed when the request is under way already: it was read by nobody
  gateway.on_request = [&](std::size_t count) {
    return count == 3 ? Answer{"", true} : Answer{"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"};
  };
  const auto got = ask_and_wait(post("y"));
  EXPECT_TRUE(got->ok()) << got->error().message();
  EXPECT_EQ(gateway.requests.size(), 4u);
  EXPECT_EQ(gateway.connections, 3);
}

TEST_F(HttpClientTest, WhatComesUnaskedIsNoAnswerToTheNextAsk) {
  ASSERT_TRUE(ask_and_wait(get())->ok());
  gateway.blurt("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong");
  const auto got = ask_and_wait(get());
  ASSERT_TRUE(got->ok());
  EXPECT_EQ((*got->result)->body, "ok");
  EXPECT_EQ(gateway.connections, 2);
}

TEST_F(HttpClientTest, AFreshConnectionThatIsClosedIsAFailureAndNotTriedAgain) {
  answer_always("", true);
  const auto got = ask_and_wait(post("x"));
  EXPECT_TRUE(got->error());
  EXPECT_EQ(got->times, 1);
  EXPECT_EQ(gateway.requests.size(), 1u);
}

TEST_F(HttpClientTest, TheAnswersOfDevicesAreRead) {
  const std::pair<const char*, const char*> rows[] = {
      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", "abcde"},
      {"HTTP/1.0 200 OK\r\n\r\nto the end", "to the end"},
      {"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the end", "to the end"},
      {"HTTP/1.1 200 OK\nContent-Length:4\n\nbare", "bare"},
      {"HTTP/1.1 200\r\nContent-Length : 4\r\nno field\r\nX Y: z\r\n\r\nodds", "odds"},
      {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes", "yes"},
      {"\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nlate", "lat"},
      {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""},
      {"HTTP/1.1 204 No Content\r\n\r\n", ""},
  };
  for (const auto& [octets, body] : rows) {
    answer_always(octets, true);
    const auto got = ask_and_wait(get());
    ASSERT_TRUE(got->ok()) << octets << got->error().message();
    EXPECT_EQ((*got->result)->body, body) << octets;
    EXPECT_LT((*got->result)->status, 300u);
  }
}

TEST_F(HttpClientTest, AStatusIsNoFailureAndNoRedirectIsFollowed) {
  for (const unsigned status : {404u, 500u, 302u}) {
    answer_always("HTTP/1.1 " + std::to_string(status) +
                  " X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 1\r\n\r\nx");
    const auto got = ask_and_wait(get());
    ASSERT_TRUE(got->ok());
    EXPECT_EQ((*got->result)->status, status);
    EXPECT_EQ((*got->result)->body, "x");
  }
  EXPECT_EQ(gateway.requests.size(), 3u);
}

TEST_F(HttpClientTest, WhatIsTooLongOrNoHttpIsAFailure) {
  const std::string big(1001, 'x');
  const std::pair<std::string, errc::errc_t> rows[] = {
      {"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n", errc::message_size},
      {"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n", errc::protocol_error},
      {"HTTP/1.0 200 OK\r\n\r\n" + big, errc::message_size},
      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n" + big + "\r\n0\r\n\r\n",
       errc::message_size},
      {"HTTP/1.1 200 OK\r\nX: " + std::string(17000, 'x'), errc::message_size},
      {"HTTP/1.1 200 OK\r\nX: " + std::string(17000, 'x') + "\r\n\r\n", errc::message_size},
      {"SSH-2.0-dropbear\r\n", errc::protocol_error},
      {"HTTP/1.1 abc\r\n\r\n", errc::protocol_error},
      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", errc::protocol_error},
  };
  for (const auto& [octets, error] : rows) {
    answer_always(octets);
    const auto got = ask_and_wait(get());
    EXPECT_EQ(got->error(), errc::make_error_code(error)) << octets.substr(0, 80) << got->error().message();
  }
  answer_always("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", true);
  EXPECT_EQ(ask_and_wait(get())->error(), errc::make_error_code(errc::connection_aborted));
  std::string interim;
  for (int i = 0; i < 10; ++i) interim += "HTTP/1.1 100 Continue\r\n\r\n";
  answer_always(interim);
  EXPECT_EQ(ask_and_wait(get())->error(), errc::make_error_code(errc::protocol_error));
}

TEST_F(HttpClientTest, WhoDoesNotAnswerIsNotWaitedForForEver) {
  renew({.exchange_time = 100ms});
  gateway.on_request = [](std::size_t) { return Answer{.octets = {}, .close = false, .silent = true}; };
  EXPECT_EQ(ask_and_wait(get())->error(), errc::make_error_code(errc::timed_out));
  // nor is who sends an octet now and then
  answer_always("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
  EXPECT_EQ(ask_and_wait(get())->error(), errc::make_error_code(errc::timed_out));
}

TEST_F(HttpClientTest, ARefusedConnectionIsTold) {
  auto there = get();
  gateway.leave();
  EXPECT_EQ(ask_and_wait(there)->error(), asio::error::connection_refused);
}

TEST_F(HttpClientTest, MoreThanItsConnectionsWait) {
  renew({.at_once = 2});
  std::vector<std::shared_ptr<Got>> all;
  for (int i = 0; i < 20; ++i) all.push_back(ask(get("/" + std::to_string(i))));
  ASSERT_TRUE(
      run_until([&] { return std::ranges::all_of(all, [](const auto& got) { return got->times == 1; }); }));
  for (const auto& got : all) EXPECT_TRUE(got->ok());
  EXPECT_EQ(gateway.requests.size(), 20u);
  EXPECT_LE(gateway.connections, 2);
}

TEST_F(HttpClientTest, AKeptConnectionIsGivenUpInTime) {
  renew({.idle_time = 1ms});
  ASSERT_TRUE(ask_and_wait(get())->ok());
  io.run_for(100ms);
  ASSERT_TRUE(ask_and_wait(get())->ok());
  EXPECT_EQ(gateway.connections, 2);
}

TEST_F(HttpClientTest, StopEndsEverythingOnce) {
  renew({.at_once = 1});
  gateway.on_request = [](std::size_t) { return Answer{.octets = {}, .close = false, .silent = true}; };
  const auto under_way = ask(get()), waiting = ask(get());
  ASSERT_TRUE(run_until([&] { return gateway.requests.size() == 1; }));
  inside = true;
  client->stop();
  const auto late = ask(get());
  inside = false;
  for (const auto& got : {under_way, waiting, late}) EXPECT_EQ(got->times, 0);
  ASSERT_TRUE(run_until([&] { return under_way->times + waiting->times + late->times == 3; }));
  io.run_for(50ms);
  for (const auto& got : {under_way, waiting, late}) {
    EXPECT_EQ(got->times, 1);
    EXPECT_EQ(got->error(), asio::error::operation_aborted);
  }
}

TEST_F(HttpClientTest, MayEndInsideOfAHandler) {
  int times = 0;
  client->ask(get(), [&](const Result<Reply>&) {
    ++times;
    client.reset();
  });
  const auto other = ask(get());
  ASSERT_TRUE(run_until([&] { return times == 1 && other->times == 1; }));
}

TEST_F(HttpClientTest, NothingIsCalledInsideOfAsk) {
  inside = true;
  auto wrong = get();
  wrong.host = *Address::parse("ff02::1");  // nobody is connected to there
  const auto got = ask(wrong), other = ask(get());
  EXPECT_EQ(got->times, 0);
  inside = false;
  ASSERT_TRUE(run_until([&] { return got->times == 1 && other->times == 1; }));
  EXPECT_TRUE(got->error());
  EXPECT_TRUE(other->ok());
}

TEST_F(HttpClientTest, TheInterfaceIsNamedWhereItMayBe) {
  auto what = get();
  what.interface = ::if_nametoindex("lo");
  EXPECT_TRUE(ask_and_wait(what)->ok());
  what.interface = 0x7ffffff;  // gone: the routes decide
  EXPECT_TRUE(ask_and_wait(what)->ok());
}

}  // namespace
}  // namespace sallyport::client
