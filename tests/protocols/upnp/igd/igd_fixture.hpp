#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "protocols/upnp/igd/server.hpp"
#include "tests/src/lease/service_fixture.hpp"

namespace sallyport::test {

namespace http = upnp::http;
namespace igd = upnp::igd;

inline constexpr std::string_view wan_ip_type = "urn:schemas-upnp-org:service:WANIPConnection:";
inline constexpr std::string_view secret = "0123456789abcdefghijkl";

/// What came back: the status, and what is needed to judge a SOAP answer.
struct Reply {
  bool given = false;
  unsigned status = 0;
  std::string body;
  http::Fields fields;
  /// The text of an element, wherever it is; "(none)" when there is none.
  std::string operator[](std::string_view name) const {
    const std::string open = "<" + std::string{name} + ">", close = "</" + std::string{name} + ">";
    const auto begin = body.find(open);
    if (begin == body.npos) return "(none)";
    const auto from = begin + open.size();
    return body.substr(from, body.find(close, from) - from);
  }
  /// 0 for success, else the errorCode of the fault, else the HTTP status.
  unsigned code() const {
    if (status == 200) return 0;
    const auto text = (*this)["errorCode"];
    return text == "(none)" ? status : static_cast<unsigned>(std::stoul(text));
  }
};

/// An Internet Gateway Device on a real lease service, asked by values.
class IgdTest : public ServiceTest {
 protected:
  using Arguments = std::vector<std::pair<std::string, std::string>>;

  void boot_igd() {
    boot();
    make_server();
  }
  void make_server() {
    options.tree.path_secret = std::string{secret};
    options.tree.uuid.fill(std::byte{7});
    auto made = igd::Server::make(
        {*service, *service, *service, [this] { return link; }, [this] { return next_random(); }}, options,
        now());
    ASSERT_TRUE(made) << made.error();
    server = std::move(*made);
    server->set_own_addresses({gateway});
  }
  void TearDown() override { server.reset(); }

  std::array<std::byte, 16> next_random() {
    std::array<std::byte, 16> octets{};
    octets[15] = std::byte{++random_count};
    return octets;
  }

  std::shared_ptr<Reply> send(http::Request request) {
    auto reply = std::make_shared<Reply>();
    server->handle(std::move(request), now(), [reply](http::Response response) {
      EXPECT_FALSE(reply->given) << "answered twice";
      reply->given = true;
      reply->status = response.status;
      reply->fields = response.fields;
      reply->body = std::move(response.body);
      for (std::string piece; response.source && !(piece = response.source->next()).empty();) reply->body += piece;
      if (response.sent) response.sent();
    });
    return reply;
  }
  http::Request plain(std::string method, std::string target, const Address& from = console) {
    http::Request request;
    request.method = std::move(method);
    request.target = std::move(target);
    request.fields.add("Host", "192.168.1.1:5000");
    request.peer = from;
    request.peer_port = 40000;
    request.local = gateway;
    request.interface = 2;
    return request;
  }
  http::Request soap_request(std::string_view service_type, std::string_view name, std::string_view action,
                             const Arguments& arguments, const Address& from) {
    auto request = plain("POST", "/ctl/" + std::string{secret} + "/" + std::string{name}, from);
    request.fields.add("SOAPAction", "\"" + std::string{service_type} + "#" + std::string{action} + "\"");
    request.body =
        "<?xml version=\"1.0\"?><s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" "
        "s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body><u:" +
        std::string{action} + " xmlns:u=\"" + std::string{service_type} + "\">";
    for (const auto& [argument, value] : arguments) request.body += "<" + argument + ">" + value + "</" + argument + ">";
    request.body += "</u:" + std::string{action} + "></s:Body></s:Envelope>";
    return request;
  }
  /// An action of WANIPConnection, with its answer: the store commits.
  Reply ask_wan(std::string_view action, const Arguments& arguments = {}, const Address& from = console,
                unsigned version = 2) {
    auto reply = send(soap_request(std::string{wan_ip_type} + std::to_string(version), "WANIPConn1", action, arguments, from));
    if (!reply->given) commit();
    if (!reply->given) run_slices();
    if (!reply->given) commit();
    EXPECT_TRUE(reply->given) << action;
    server->settle(now());
    return *reply;
  }
  Arguments mapping(const Address& client = console, std::string external_port = "5000", std::string internal = "6000",
                    std::string lease = "3600") {
    return {{"NewRemoteHost", ""},
            {"NewExternalPort", std::move(external_port)},
            {"NewProtocol", "TCP"},
            {"NewInternalPort", std::move(internal)},
            {"NewInternalClient", client.to_string()},
            {"NewEnabled", "1"},
            {"NewPortMappingDescription", "a game"},
            {"NewLeaseDuration", std::move(lease)}};
  }
  static Arguments with(Arguments arguments, std::string_view name, std::string value) {
    for (auto& [argument, text] : arguments)
      if (argument == name) text = value;
    return arguments;
  }
  static Arguments without(Arguments arguments, std::string_view name) {
    std::erase_if(arguments, [&](const auto& argument) { return argument.first == name; });
    return arguments;
  }
  static Arguments entry_key(std::string external_port = "5000", std::string protocol = "TCP", std::string remote = "") {
    return {{"NewRemoteHost", std::move(remote)},
            {"NewExternalPort", std::move(external_port)},
            {"NewProtocol", std::move(protocol)}};
  }

  igd::ServerOptions options;
  igd::WanLink link{.exists = true, .up = true, .bits_per_second = 100'000'000, .bytes_sent = 11, .bytes_received = 22,
                    .packets_sent = 33, .packets_received = (std::uint64_t{1} << 32) + 44};
  std::unique_ptr<igd::Server> server;
  std::uint8_t random_count = 0;
};

}  // namespace sallyport::test
