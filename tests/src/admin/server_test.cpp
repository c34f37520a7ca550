#include <fstream>

#include <sys/stat.h>
#include <nlohmann/json.hpp>

#include "sallyport/admin/client.hpp"
#include "tests/src/admin/admin_fixture.hpp"

namespace sallyport::test {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class AdminApi : public AdminTest {
 protected:
  json get_json(std::string_view target) {
    const auto response = get(target);
    EXPECT_THAT(response, StartsWith("HTTP/1.1 200 OK\r\n"));
    return json::parse(body_of(response));
  }
};

TEST_F(AdminApi, ListsLeasesByDeviceAndPortWithoutTheNonce) {
  boot();
  auto camera_request = pcp(camera, 554, 3600, 0xab);
  camera_request.description = "door";
  granted(suggesting(camera_request, 554 + 8000));
  granted(suggesting(natpmp(console, 3075), 3075));
  granted(suggesting(pcp(console, 3074), 3074));
  serve();
  const auto response = get("/api/v1/leases");
  const auto leases = json::parse(body_of(response))["leases"];
  ASSERT_EQ(leases.size(), 3u);
  EXPECT_EQ(leases[0]["external"]["port"], 3074);
  EXPECT_EQ(leases[0]["device"]["name"], "Xbox");
  EXPECT_EQ(leases[1]["external"]["port"], 3075);
  EXPECT_EQ(leases[1]["via"], "natpmp");
  EXPECT_EQ(leases[2]["device"]["address"], "192.168.1.20");
  EXPECT_EQ(leases[2]["description"], "door");
  EXPECT_EQ(leases[2]["packets_in"], 1);
  EXPECT_THAT(response, Not(HasSubstr("nonce")));  // POL-TXT-05
  EXPECT_THAT(response, Not(HasSubstr("abab")));
}

TEST_F(AdminApi, FiltersByEveryWord) {
  boot();
  granted(suggesting(pcp(console, 3074), 3074));
  granted(suggesting(natpmp(camera, 554), 8554));
  serve();
  const auto count = [&](std::string_view query) {
    return get_json("/api/v1/leases?" + std::string{query})["leases"].size();
  };
  EXPECT_EQ(count(""), 2u);
  EXPECT_EQ(count("device=192.168.1.10"), 1u);
  EXPECT_EQ(count("device=xbox"), 1u);
  EXPECT_EQ(count("device=%58box"), 1u);
  EXPECT_EQ(count("device=nobody"), 0u);
  EXPECT_EQ(count("via=natpmp&protocol=tcp"), 1u);
  EXPECT_EQ(count("via=natpmp&external=3074"), 0u);
  EXPECT_EQ(count("external=3000-9000"), 2u);
  EXPECT_EQ(count("internal=554"), 1u);
  EXPECT_EQ(count("protocol=udp"), 0u);
  EXPECT_EQ(count("protocol=tcp&protocol=udp"), 0u);
  EXPECT_EQ(count("kind=explicit&state=active&all=1"), 2u);
  EXPECT_EQ(count("kind=implicit"), 0u);
  const auto wrong = get("/api/v1/leases?protocol=sctp");
  EXPECT_THAT(wrong, StartsWith("HTTP/1.1 400 "));
  EXPECT_THAT(wrong, HasSubstr("Content-Type: application/problem+json\r\n"));
  EXPECT_EQ(json::parse(body_of(wrong))["detail"], "'sctp' is no value of 'protocol'; there are tcp, udp");
  EXPECT_THAT(get("/api/v1/leases?device=%4"), StartsWith("HTTP/1.1 400 "));
}

TEST_F(AdminApi, ShowsOneLeaseByItsIdOrAUniquePrefix) {
  boot();
  const auto id = id_of(granted(pcp(console, 3074)));
  serve();
  EXPECT_EQ(get_json("/api/v1/leases/" + id)["id"], id);
  EXPECT_EQ(get_json("/api/v1/leases/" + id.substr(0, 2))["id"], id);
  EXPECT_THAT(get("/api/v1/leases/zzzz"), StartsWith("HTTP/1.1 404 "));
  EXPECT_THAT(get("/api/v1/leases/..%2f"), StartsWith("HTTP/1.1 404 "));
}

TEST_F(AdminApi, ShowRefusesAPrefixThatFitsSeveral) {
  boot();
  for (std::uint16_t i = 0; i < 100; ++i) granted(pcp(console, static_cast<std::uint16_t>(3000 + i)));
  std::set<char> begins;
  std::optional<char> twice;
  for (const auto& view : service->list({}, now()))
    if (!begins.insert(view.id[0]).second) twice = view.id[0];
  serve();
  ASSERT_TRUE(twice);
  EXPECT_THAT(get("/api/v1/leases/" + std::string{*twice}), StartsWith("HTTP/1.1 409 "));
}

TEST_F(AdminApi, DeleteRevokesAndShutsTheDoor) {
  boot();
  const auto lease = granted(suggesting(pcp(console, 3074), 3074));
  const auto id = id_of(lease);
  serve();
  const auto response = request("DELETE", "/api/v1/leases/" + id);
  EXPECT_THAT(response, StartsWith("HTTP/1.1 200 "));
  const auto body = json::parse(body_of(response));
  EXPECT_EQ(body["revoked"], json::array({id}));
  EXPECT_EQ(body["failed"], json::array());
  EXPECT_TRUE(body["blocked_until"].is_null());
  EXPECT_FALSE(control([&] { return is_open(3074); }));
  EXPECT_THAT(request("DELETE", "/api/v1/leases/" + id), StartsWith("HTTP/1.1 404 "));
}

TEST_F(AdminApi, ABlockIsShownHeldAndLifted) {
  boot();
  const auto id = id_of(granted(pcp(console, 3074)));
  serve();
  const auto answer = json::parse(body_of(request("DELETE", "/api/v1/leases/" + id + "?block=24h")));
  EXPECT_EQ(answer["blocked_until"], "2026-03-02T00:00:00Z");
  const auto blocks = get_json("/api/v1/blocks")["blocks"];
  ASSERT_EQ(blocks.size(), 1u);
  EXPECT_EQ(blocks[0]["id"], id);
  EXPECT_EQ(blocks[0]["device"]["name"], "Xbox");
  EXPECT_EQ(blocks[0]["internal"]["port"], 3074);
  EXPECT_EQ(blocks[0]["until"], "2026-03-02T00:00:00Z");
  EXPECT_EQ(blocks[0]["remaining_s"], 86400);
  EXPECT_EQ(control([&] { return granted(natpmp(console, 3074))->error(); }), MappingErrc::device_blocked);
  EXPECT_THAT(request("DELETE", "/api/v1/blocks/zzzz"), StartsWith("HTTP/1.1 404 "));
  EXPECT_EQ(json::parse(body_of(request("DELETE", "/api/v1/blocks/" + id)))["unblocked"], json::array({id}));
  EXPECT_TRUE(control([&] { return granted(natpmp(console, 3074))->ok(); }));
  EXPECT_THAT(request("DELETE", "/api/v1/leases/" + id + "?block=3w"), StartsWith("HTTP/1.1 400 "));
}

TEST_F(AdminApi, RevokingAPortOfASetRevokesTheSet) {
  boot();
  auto request_of_set = pcp(console, 6000);
  request_of_set.ports = 3;
  granted(request_of_set);
  const auto other = id_of(granted(pcp(console, 80)));
  serve();
  const auto rows = get_json("/api/v1/leases")["leases"];
  ASSERT_EQ(rows.size(), 4u);
  std::set<std::string> ids;
  for (const auto& row : rows)
    if (row.contains("set")) {
      ids.insert(row["id"]);
      EXPECT_EQ(row["set"]["size"], 3);
    }
  const auto revoke = [&](const json& body) {
    return json::parse(body_of(request("POST", "/api/v1/revoke", body.dump())))["revoked"]
        .get<std::vector<std::string>>();
  };
  const auto trial = revoke({{"filter", {"internal=6001"}}, {"dry_run", true}});
  EXPECT_EQ((std::set<std::string>{trial.begin(), trial.end()}), ids);
  EXPECT_EQ(trial.size(), 3u);
  EXPECT_EQ(get_json("/api/v1/leases")["leases"].size(), 4u);
  const auto done = revoke({{"ids", {*ids.rbegin()}}});
  EXPECT_EQ((std::set<std::string>{done.begin(), done.end()}), ids);
  EXPECT_EQ(done.size(), 3u);
  EXPECT_EQ(get_json("/api/v1/leases")["leases"][0]["id"], other);
}

TEST_F(AdminApi, RevokesManyAndSaysWhichFailed) {
  policy.statics = {{.transport = Transport::tcp,
                     .external = port(8443),
                     .internal = {camera, port(443)},
                     .description = "nas",
                     .where = "sallyport.toml:12"}};
  boot();
  const auto a = id_of(granted(pcp(console, 3074)));
  const auto b = id_of(granted(pcp(console, 3075)));
  serve();
  const auto revoke = [&](const json& body) {
    return json::parse(body_of(request("POST", "/api/v1/revoke", body.dump())));
  };
  const auto trial = revoke({{"filter", {"device=xbox"}}, {"dry_run", true}});
  EXPECT_EQ(trial["revoked"].size(), 2u);
  EXPECT_EQ(get_json("/api/v1/leases")["leases"].size(), 3u);

  const auto partly = revoke({{"ids", {a, "zzzz"}}});
  EXPECT_EQ(partly["revoked"], json::array({a}));
  EXPECT_EQ(partly["failed"][0]["id"], "zzzz");
  EXPECT_EQ(partly["failed"][0]["code"], "not_found");

  const auto rest = revoke({{"filter", {"state=active"}}, {"block", "forever"}});
  EXPECT_EQ(rest["revoked"], json::array({b}));
  EXPECT_EQ(rest["blocked_until"], "forever");
  ASSERT_EQ(rest["failed"].size(), 1u);
  EXPECT_THAT(rest["failed"][0]["reason"].get<std::string>(), HasSubstr("configuration"));
  EXPECT_EQ(get_json("/api/v1/leases")["leases"].size(), 1u);
  const auto static_id = get_json("/api/v1/leases")["leases"][0]["id"].get<std::string>();
  EXPECT_THAT(request("DELETE", "/api/v1/leases/" + static_id), StartsWith("HTTP/1.1 409 "));
}

TEST_F(AdminApi, RefusesBodiesThatDoNotSayWhatIsMeant) {
  serve();
  for (const auto* body :
       {"", "x", "[]", "{}", R"({"ids":[]})", R"({"filter":[]})", R"({"ids":["a"],"filter":["device=x"]})",
        R"({"ids":"a"})", R"({"ids":[1]})", R"({"filter":["all"]})", R"({"ids":["a"],"block":"3w"})",
        R"({"ids":["a"],"block":24})", R"({"ids":["a"],"dry_run":1})", R"({"ids":["a"],"now":true})",
        "{\"ids\":[\"\xff\"]}"})
    EXPECT_THAT(request("POST", "/api/v1/revoke", body), StartsWith("HTTP/1.1 400 ")) << body;
  EXPECT_THAT(request("POST", "/api/v1/revoke", std::string(60000, '[')), StartsWith("HTTP/1.1 400 "));
  EXPECT_THAT(request("POST", "/api/v1/unblock", R"({"filter":["via=pcp"]})"), StartsWith("HTTP/1.1 400 "));
}

TEST_F(AdminApi, AnswersOnlyToThePathsAndMethodsOfTheOpenApiFile) {
  serve();
  const auto api = get_json("/api/v1/openapi.json");
  EXPECT_EQ(api["openapi"], "3.1.0");
  for (const auto& [path, item] : api["paths"].items()) {
    if (path == "/api/v1/events") continue;
    auto target = path;
    if (const auto at = target.find("{id}"); at != target.npos) target.replace(at, 4, "zzzz");
    for (const auto* method : {"get", "post", "delete", "put"}) {
      std::string upper = method;
      for (char& c : upper) c = static_cast<char>(c - 'a' + 'A');
      const auto response = request(upper, target);
      if (item.contains(method)) {
        EXPECT_THAT(response, Not(StartsWith("HTTP/1.1 405 "))) << upper << ' ' << target;
      } else {
        EXPECT_THAT(response, StartsWith("HTTP/1.1 405 ")) << upper << ' ' << target;
        EXPECT_THAT(response, HasSubstr("Allow: ")) << target;
      }
    }
  }
  EXPECT_THAT(get("/"), StartsWith("HTTP/1.1 404 "));
}

TEST_F(AdminApi, CountsForPrometheus) {
  status.plane.name = "tun";
  status.plane.flows = 12;
  status.plane.packets = 34;
  status.plane.drops = {{"bad \"checksum\"", 5}};
  status.requests = {{"pcp", "success", 6}};
  boot();
  granted(pcp(console, 3074));
  serve();
  const auto text = body_of(get("/metrics"));
  for (const auto* line :
       {"sallyport_leases{protocol=\"pcp\"} 1\n", "sallyport_leases{protocol=\"natpmp\"} 0\n",
        "sallyport_flows 12\n", "sallyport_packets_total 34\n",
        "sallyport_dropped_packets_total{reason=\"bad \\\"checksum\\\"\"} 5\n",
        "sallyport_requests_total{protocol=\"pcp\",result=\"success\"} 6\n",
        "sallyport_lease_decisions_total{decision=\"granted\"} 1\n"})
    EXPECT_THAT(text, HasSubstr(line));
}

// -----------------------------------------------------------------------------------------------------------
// events

TEST_F(AdminApi, TellsEventsAsTheyHappen) {
  serve();
  Raw reader{options.socket};
  reader.send("GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n");
  ASSERT_THAT(reader.read_until(": events"),
              StartsWith("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"));
  Raw other{options.socket};
  other.send("GET /api/v1/events?via=natpmp HTTP/1.1\r\nHost: x\r\n\r\n");
  other.read_until(": events");
  control([&] {
    granted(pcp(console, 3074));
    granted(natpmp(camera, 554));
  });
  const auto text = reader.read_until("\"natpmp\"");
  EXPECT_THAT(text, HasSubstr("data: {\"event\":\"granted\",\"reason\":\"requested\",\"lease\":{\"id\":"));
  EXPECT_THAT(text, HasSubstr("\"via\":\"pcp\""));
  EXPECT_THAT(text, Not(HasSubstr("nonce")));
  EXPECT_THAT(other.read_until("\"natpmp\""), Not(HasSubstr("\"via\":\"pcp\"")));
}

TEST_F(AdminApi, SendsAHeartbeatWhenNothingHappens) {
  options.heartbeat = std::chrono::milliseconds{1};
  serve();
  Raw reader{options.socket};
  reader.send("GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_THAT(reader.read_until(": still here"), HasSubstr(": still here\n\n"));
}

TEST_F(AdminApi, DropsAReaderOfEventsThatFallsBehind) {
  options.event_backlog = 4096;
  serve();
  Raw slow{options.socket};
  slow.send("GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n");
  slow.read_until(": events");
  // more than the socket's buffers and the backlog hold, while the reader does not read
  for (int i = 0; i < 40; ++i)
    control([&] {
      for (int j = 0; j < 50; ++j) granted(pcp(console, static_cast<std::uint16_t>(3000 + j)));
    });
  const auto text = slow.read_all();
  EXPECT_TRUE(slow.ended);
  EXPECT_LT(std::ranges::count(text, '\n'), 2 * 40 * 50);
  EXPECT_THAT(get("/api/v1/status"), StartsWith("HTTP/1.1 200 "));
}

TEST_F(AdminApi, LimitsReadersOfEvents) {
  options.subscribers = 1;
  serve();
  Raw first{options.socket};
  first.send("GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n");
  first.read_until(": events");
  EXPECT_THAT(get("/api/v1/events"), StartsWith("HTTP/1.1 503 "));
}

// ------------------------------------------------------------------------------------------------------ HTTP
// itself

TEST_F(AdminApi, StreamsALongListWhole) {
  policy.leases_per_device = 0;
  boot();
  for (std::uint32_t i = 0; i < 20000; ++i) {
    ask(pcp(console, static_cast<std::uint16_t>(10000 + i)));
    if (i % 1000 == 0) commit();
  }
  commit();
  serve();
  std::set<std::string> ids;
  std::uint32_t last = 0;
  bool sorted = true;
  const auto done = admin::Client{options.socket}.leases({}, false, [&](const admin::Lease& lease) {
    sorted = sorted && lease.external_port > last;
    last = lease.external_port;
    ids.insert(lease.id);
  });
  ASSERT_TRUE(done) << done.error().message;
  EXPECT_EQ(ids.size(), 20000u);
  EXPECT_TRUE(sorted);
  EXPECT_EQ(get_json("/api/v1/leases")["leases"].size(), 20000u);  // HTTP/1.0: no chunks
}

TEST_F(AdminApi, AnswersPipelinedRequestsInOrder) {
  serve();
  Raw raw{options.socket};
  raw.send(
      "GET /api/v1/leases HTTP/1.1\r\nHost: x\r\n\r\nHEAD /api/v1/status HTTP/1.1\r\nHost: x\r\n\r\n"
      "POST /api/v1/revoke HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}GET /nothing HTTP/1.1\r\nHost: "
      "x\r\n"
      "Connection: close\r\n\r\n");
  const auto text = raw.read_all();
  std::vector<std::string> answers;
  for (auto at = text.find("HTTP/1.1 "); at != text.npos; at = text.find("HTTP/1.1 ", at + 1))
    answers.push_back(text.substr(at + 9, 3));
  EXPECT_EQ(answers, (std::vector<std::string>{"200", "200", "400", "404"}));
}

TEST_F(AdminApi, SaysWhatIsWrongWithRequestsItCannotRead) {
  serve();
  EXPECT_THAT(ask_raw("hello\r\n\r\n"), StartsWith("HTTP/1.1 400 "));
  EXPECT_THAT(ask_raw("GET / HTTP/3.0\r\n\r\n"), StartsWith("HTTP/1.1 400 "));
  EXPECT_THAT(ask_raw("GET / HTTP/1.1\r\nX: " + std::string(20000, 'x') + "\r\n\r\n"),
              StartsWith("HTTP/1.1 431 "));
  EXPECT_THAT(ask_raw("POST /api/v1/revoke HTTP/1.1\r\nContent-Length: 70000\r\n\r\n"),
              StartsWith("HTTP/1.1 413 "));
  EXPECT_THAT(ask_raw("POST /api/v1/revoke HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n11171\r\n" +
                      std::string(70001, 'x')),
              StartsWith("HTTP/1.1 413 "));
  EXPECT_THAT(ask_raw("POST /api/v1/revoke HTTP/1.1\r\nContent-Length: -1\r\n\r\n"),
              StartsWith("HTTP/1.1 400 "));
}

TEST_F(AdminApi, SurvivesEveryTruncationAndManyMutations) {
  serve();
  const std::string whole =
      "POST /api/v1/revoke?x=%20 HTTP/1.1\r\nHost: x\r\nContent-Length: 16\r\n\r\n{\"ids\":[\"k7f2\"]}";
  for (std::size_t n = 0; n < whole.size(); ++n) {
    Raw raw{options.socket};
    raw.send(std::string_view{whole}.substr(0, n));
    raw.end();
    raw.read_all();
  }
  std::mt19937 random{1};
  for (int i = 0; i < 2000; ++i) {
    auto bad = whole;
    for (int j = 0; j < 3; ++j) bad[random() % bad.size()] = static_cast<char>(random());
    Raw raw{options.socket};
    raw.send(bad);
    raw.end();
    raw.read_all();
  }
  EXPECT_THAT(get("/api/v1/status"), StartsWith("HTTP/1.1 200 "));
}

TEST_F(AdminApi, SilentConnectionsKeepNobodyOut) {
  options.connections = 4;
  serve();
  std::vector<std::unique_ptr<Raw>> silent;
  for (int i = 0; i < 12; ++i) {
    silent.push_back(std::make_unique<Raw>(options.socket));
    silent.back()->send(i % 2 ? "GET /api" : "");
  }
  EXPECT_THAT(get("/api/v1/status"), StartsWith("HTTP/1.1 200 "));
}

TEST_F(AdminApi, ASlowHeadIsCutOffAndOthersAreServedMeanwhile) {
  options.head_timeout = std::chrono::milliseconds{50};
  serve();
  Raw slow{options.socket};
  slow.send("GET /api/v1/status HTT");
  EXPECT_THAT(get("/api/v1/status"), StartsWith("HTTP/1.1 200 "));
  EXPECT_EQ(slow.read_all(), "");
  EXPECT_TRUE(slow.ended);
}

TEST_F(AdminApi, AReaderThatDoesNotTakeItsListHoldsUpNobody) {
  policy.leases_per_device = 0;
  boot();
  for (std::uint32_t i = 0; i < 5000; ++i) {
    ask(pcp(console, static_cast<std::uint16_t>(10000 + i)));
    if (i % 1000 == 0) commit();
  }
  commit();
  serve();
  Raw slow{options.socket};
  slow.send("GET /api/v1/leases HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  EXPECT_THAT(get("/api/v1/status"), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(slow.read_all(), ::testing::EndsWith("]}\n\r\n0\r\n\r\n"));
}

TEST_F(AdminApi, EndsWhileRequestsAreUnderWay) {
  boot();
  const auto id = id_of(granted(pcp(console, 3074)));
  commits = false;  // the answer of this revoke never comes
  serve();
  Raw waiting{options.socket};
  waiting.send("DELETE /api/v1/leases/" + id + " HTTP/1.1\r\nHost: x\r\n\r\n");
  Raw reader{options.socket};
  reader.send("GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n");
  reader.read_until(": events");
  control([&] { server.reset(); });
  EXPECT_EQ(waiting.read_all(), "");
  EXPECT_TRUE(waiting.ended);
  reader.read_all();
  EXPECT_TRUE(reader.ended);
  EXPECT_FALSE(std::filesystem::exists(options.socket));
}

// ------------------------------------------------------------------------------------------------------- the
// socket

TEST_F(AdminApi, TheSocketIsForItsOwnerAndGroupOnly) {
  serve();
  struct stat file {};
  ASSERT_EQ(::stat(options.socket.c_str(), &file), 0);
  EXPECT_EQ(file.st_mode & 0777u, 0660u);
  stop();
  EXPECT_FALSE(std::filesystem::exists(options.socket));
}

TEST_F(AdminApi, ReplacesASocketNobodyAnswersAndNoOther) {
  {  // a daemon that was killed
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    options.socket.copy(address.sun_path, sizeof address.sun_path - 1);
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ASSERT_EQ(::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    ::close(fd);
  }
  serve();
  ASSERT_TRUE(Raw{options.socket}.connected);
  admin::Server second{io, *service, clock, {}, options};
  std::string why;
  EXPECT_FALSE(second.start(why));
  EXPECT_EQ(why, "the admin socket " + options.socket + " is in use: another sallyportd answers there");
  EXPECT_THAT(get("/api/v1/status"), StartsWith("HTTP/1.1 200 "));
}

TEST_F(AdminApi, DoesNotTouchAFileThatIsNoSocket) {
  std::ofstream{options.socket} << "precious";
  boot();
  make_server();
  std::string why;
  EXPECT_FALSE(server->start(why));
  EXPECT_THAT(why, HasSubstr("a file that is no socket is in its place"));
  server.reset();
  EXPECT_TRUE(std::filesystem::exists(options.socket));
}

TEST_F(AdminApi, SaysSoWhenTheStoreCannotBeWritten) {
  boot();
  const auto id = id_of(granted(pcp(console, 3074)));
  store->fail("disk full");
  service->commit_results(now());
  serve();
  const auto response = request("DELETE", "/api/v1/leases/" + id);
  EXPECT_THAT(response, StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(response, HasSubstr("disk full"));
  EXPECT_EQ(get_json("/api/v1/status")["store"]["state"], "read-only");
}

}  // namespace
}  // namespace sallyport::test
