#pragma once

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "protocols/upnp/igd/pinhole_client.hpp"
#include "protocols/upnp/igd/port_mapping_client.hpp"
#include "protocols/upnp/xml/document.hpp"
#include "protocols/upnp/xml/escape.hpp"
#include "tests/support/manual_clock.hpp"

namespace sallyport::test {

namespace http = upnp::http;
namespace igd = upnp::igd;
using namespace std::chrono_literals;
using Kind = wire::MappingEvent::Kind;
using Failure = wire::MappingFailure;

/// An ask as a gateway reads it.
struct Asked {
  std::uint64_t id = 0;
  std::string method, target, action;
  std::map<std::string, std::string> arguments;
  std::string operator[](const std::string& name) const {
    const auto found = arguments.find(name);
    return found == arguments.end() ? "(none)" : found->second;
  }
};

inline Asked read_asked(const http::NumberedAsk& numbered) {
  Asked asked{numbered.id, numbered.ask.method, numbered.ask.target, {}, {}};
  if (numbered.ask.method != "POST") return asked;
  const auto field = std::string{numbered.ask.fields.find("SOAPACTION").value_or("")};
  asked.action = field.substr(field.find('#') + 1);
  if (!asked.action.empty()) asked.action.pop_back();
  const auto document = upnp::xml::Document::parse(numbered.ask.body);
  EXPECT_TRUE(document) << numbered.ask.body;
  if (!document) return asked;
  const auto action = document->root().first().first();
  EXPECT_EQ(action.name(), asked.action);
  for (auto each = action.first(); each; each = each.next())
    asked.arguments[std::string{each.name()}] = each.text();
  return asked;
}

using OutArguments = std::vector<std::pair<std::string, std::string>>;

inline http::Reply answer_of(const std::string& action, const OutArguments& out = {}) {
  http::Reply reply{.status = 200};
  reply.body = "<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body><u:" + action +
               "Response xmlns:u=\"urn:schemas-upnp-org:service:X:1\">";
  for (const auto& [name, value] : out)
    reply.body += "<" + name + ">" + upnp::xml::escape(value) + "</" + name + ">";
  reply.body += "</u:" + action + "Response></s:Body></s:Envelope>";
  return reply;
}

inline http::Reply error_of(unsigned code) {
  http::Reply reply{.status = 500};
  reply.body =
      "<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><s:Body><s:Fault><detail><UPnPError "
      "xmlns=\"urn:schemas-upnp-org:control-1-0\"><errorCode>" +
      std::to_string(code) + "</errorCode></UPnPError></detail></s:Fault></s:Body></s:Envelope>";
  return reply;
}

inline const boost::system::error_code silence =
    boost::system::errc::make_error_code(boost::system::errc::timed_out);

/// A mapping client, and the gateway that the test plays.
template <class Client>
class ClientTest : public ::testing::Test {
 protected:
  TimePoint now() const { return clock.now(); }
  void pass(std::chrono::nanoseconds time) {
    clock.advance(time);
    client->handle_timeout(now());
  }
  /// To the next deadline.
  void wait() {
    const auto deadline = client->next_deadline();
    ASSERT_TRUE(deadline) << "nothing to wait for";
    if (*deadline > now()) clock.advance(*deadline - now());
    client->handle_timeout(now());
  }
  /// What is asked now; with an empty action when nothing is.
  Asked asked() {
    const auto numbered = client->poll_ask();
    if (!numbered) return {};
    EXPECT_FALSE(client->poll_ask()) << "two at once";
    EXPECT_FALSE(client->next_deadline()) << "an answer is awaited";
    return read_asked(*numbered);
  }
  void give(const Asked& to, const Result<http::Reply>& reply) { client->handle_reply(to.id, reply, now()); }
  /// Expects this action now and answers it.
  Asked expect(const std::string& action, const Result<http::Reply>& reply) {
    auto what = asked();
    EXPECT_EQ(what.action, action);
    give(what, reply);
    return what;
  }
  Asked expect_success(const std::string& action, const OutArguments& out = {}) {
    return expect(action, answer_of(action, out));
  }
  Asked expect_error(const std::string& action, unsigned code) { return expect(action, error_of(code)); }
  void expect_quiet() { EXPECT_EQ(asked().action, ""); }

  std::optional<wire::MappingEvent> event() { return client->poll_event(); }
  void expect_event(Kind kind) {
    const auto got = event();
    ASSERT_TRUE(got) << "no event";
    EXPECT_EQ(got->kind, kind);
    last = got;
  }
  void expect_refused(Failure failure, unsigned code, bool again = true) {
    const auto got = event();
    ASSERT_TRUE(got) << "no event";
    EXPECT_EQ(got->kind, Kind::refused);
    EXPECT_EQ(got->failure, failure);
    EXPECT_EQ(got->code, code);
    EXPECT_EQ(got->retry_at.has_value(), again);
    if (again && got->retry_at) {
      EXPECT_GT(*got->retry_at, now());
    }
  }
  void expect_no_event() { EXPECT_FALSE(event()); }

  ManualClock clock;
  std::optional<wire::MappingEvent> last;
  std::unique_ptr<Client> client;
};

}  // namespace sallyport::test
