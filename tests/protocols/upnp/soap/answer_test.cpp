#include "protocols/upnp/soap/client.hpp"

#include <gtest/gtest.h>

#include <array>
#include <fstream>
#include <iterator>

#include "protocols/upnp/soap/request.hpp"
#include "protocols/upnp/soap/response.hpp"
#include "tests/protocols/upnp/soap/wan_table.hpp"

namespace sallyport::upnp::soap {
namespace {

const http::Url control{Address::v4(0xc0a80101), 5000, "/ctl/IPConn"};
constexpr std::string_view wan_ip = "urn:schemas-upnp-org:service:WANIPConnection:1";

http::Reply reply(unsigned status, std::string body) { return {.status = status, .body = std::move(body)}; }
std::string file_of(const std::string& name) {
  std::ifstream file{std::string{SALLYPORT_VECTORS} + "/../corpus/answer_fuzz/" + name, std::ios::binary};
  EXPECT_TRUE(file) << name;
  return {std::istreambuf_iterator<char>{file}, {}};
}
Answer answer(const http::Reply& from, std::string_view name = "GetExternalIPAddress") {
  const auto read = read_answer(from, name);
  EXPECT_TRUE(std::holds_alternative<Answer>(read)) << from.body;
  return std::holds_alternative<Answer>(read) ? std::get<Answer>(read) : Answer{};
}
Refusal refusal(const http::Reply& from, std::string_view name = "GetExternalIPAddress") {
  const auto read = read_answer(from, name);
  EXPECT_TRUE(std::holds_alternative<Refusal>(read)) << from.body;
  return std::holds_alternative<Refusal>(read) ? std::get<Refusal>(read) : Refusal{};
}

TEST(SoapAction, IsWrittenAsUdaWantsIt) {  // UDA-3-25
  const std::array<InArgument, 2> arguments{{{"NewRemoteHost", ""}, {"NewText", "a <b> & \"c\""}}};
  const auto ask = action(control, 3, wan_ip, "AddSomething", arguments);
  EXPECT_EQ(ask.method, "POST");
  EXPECT_EQ(ask.host, control.host);
  EXPECT_EQ(ask.port, 5000);
  EXPECT_EQ(ask.interface, 3u);
  EXPECT_EQ(ask.target, "/ctl/IPConn");
  EXPECT_EQ(ask.fields.find("Content-Type"), "text/xml; charset=\"utf-8\"");
  EXPECT_EQ(ask.fields.find("SOAPAction"), "\"urn:schemas-upnp-org:service:WANIPConnection:1#AddSomething\"");
  EXPECT_GT(ask.max_body, 0u);
  EXPECT_EQ(ask.body,
            "<?xml version=\"1.0\"?>\r\n<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" "
            "s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body>"
            "<u:AddSomething xmlns:u=\"urn:schemas-upnp-org:service:WANIPConnection:1\">"
            "<NewRemoteHost></NewRemoteHost><NewText>a &lt;b&gt; &amp; &quot;c&quot;</NewText>"
            "</u:AddSomething></s:Body></s:Envelope>\r\n");
}

TEST(SoapAction, IsUnderstoodByOurOwnGateway) {
  const std::array<InArgument, 3> arguments{
      {{"NewRemoteHost", ""}, {"NewExternalPort", "5000"}, {"NewProtocol", "TCP"}}};
  auto ask = action(control, 0, wan_ip, "DeletePortMapping", arguments);
  http::Request request{.method = ask.method, .target = ask.target, .fields = ask.fields, .body = ask.body};
  const auto decoded = decode_request(std::move(request), test::wan_table, test::may_be_empty);
  ASSERT_TRUE(std::holds_alternative<Call>(decoded));
  EXPECT_EQ(std::get<Call>(decoded).argument("NewExternalPort"), "5000");
}

TEST(SoapAnswer, IsRead) {
  const auto read = answer(reply(200, file_of("success")));
  ASSERT_EQ(read.arguments.size(), 1u);
  EXPECT_EQ(read.find("NewExternalIPAddress"), "203.0.113.7");
  EXPECT_FALSE(read.find("Other"));
}

TEST(SoapAnswer, OfOurOwnGatewayIsRead) {
  const auto refused = refusal({.status = 500, .body = error(test::wan_table, 718).body});
  EXPECT_EQ(refused.code, 718u);
  EXPECT_EQ(refused.description, "ConflictInMappingEntry");
}

TEST(SoapAnswer, TheSinsOfDevicesAreForgiven) {
  const auto odd = answer(reply(200, file_of("no_namespaces")));
  EXPECT_EQ(odd.find("NewExternalIPAddress"), "203.0.113.7");
  EXPECT_EQ(odd.find("x"), "R&B");
  EXPECT_TRUE(answer(reply(200, ""), "AddPortMapping").arguments.empty());
  EXPECT_TRUE(answer(reply(200, "\r\n"), "AddPortMapping").arguments.empty());
  auto padded = file_of("success");
  padded.push_back('\0');
  EXPECT_EQ(answer(reply(200, padded)).find("NewExternalIPAddress"), "203.0.113.7");
  EXPECT_EQ(answer(reply(200, "\xef\xbb\xbf" + file_of("success"))).find("NewExternalIPAddress"),
            "203.0.113.7");
}

TEST(SoapAnswer, AFaultCountsWithWhateverStatus) {
  for (const unsigned status : {500u, 200u, 400u}) {
    const auto refused = refusal(reply(status, file_of("fault")));
    EXPECT_EQ(refused.code, 718u);
    EXPECT_EQ(refused.status, status);
    EXPECT_EQ(refused.description, "ConflictInMappingEntry");
  }
  EXPECT_EQ(refusal(reply(500, file_of("broken_fault"))).code, 725u);
}

TEST(SoapAnswer, WhatIsNoneIsNoSuccess) {
  const http::Reply rows[] = {reply(404, ""),
                              reply(500, ""),
                              reply(200, "<html>log in</html>"),
                              reply(200, "not xml"),
                              reply(500, file_of("success")),
                              reply(200, "<s:Envelope><s:Body><s:Fault/></s:Body></s:Envelope>"),
                              reply(200, std::string(max_answer + 1, ' ')),
                              reply(500, "<UPnPError><errorCode>seven</errorCode></UPnPError>"),
                              reply(500, "<UPnPError><errorCode>4294967296718</errorCode></UPnPError>"),
                              reply(500, "<errorCode>"),
                              reply(200, "<!DOCTYPE x><a/>")};
  for (const auto& row : rows) {
    const auto refused = refusal(row);
    EXPECT_EQ(refused.code, 0u) << row.body;
    EXPECT_EQ(refused.status, row.status);
  }
  EXPECT_EQ(refusal(reply(200, file_of("success")), "AddPortMapping").code, 0u) << "of another action";
}

TEST(SoapAnswer, KeepsItsLimits) {
  std::string body = "<E><B><XResponse>";
  for (int i = 0; i < 100; ++i) body += "<a>" + std::to_string(i) + "</a>";
  EXPECT_EQ(answer(reply(200, body + "</XResponse></B></E>"), "X").arguments.size(), max_out_arguments);
  std::string text;
  for (int i = 0; i < 200; ++i) text += "ü";
  const auto refused = refusal(reply(500, "<UPnPError><errorCode>501</errorCode><errorDescription>x" + text +
                                              "</errorDescription></UPnPError>"));
  EXPECT_EQ(refused.description.size(), max_error_description - 1) << "no half a letter";
}

}  // namespace
}  // namespace sallyport::upnp::soap
