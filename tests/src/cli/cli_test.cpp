#include <atomic>
#include <cstdlib>

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <nlohmann/json.hpp>

#include "tests/src/admin/admin_fixture.hpp"

extern char** environ;

namespace sallyport::test {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::StartsWith;

struct Ran {
  int code = -1;
  std::string out, err;
};

/// The real binary against a real socket; stdin is no terminal.
class Cli : public AdminTest {
 protected:
  Ran run(std::vector<std::string> words, bool with_socket = true) {
    std::vector<std::string> all{SALLYPORT_CLI};
    if (with_socket) all.insert(all.end(), {"--socket", options.socket});
    all.insert(all.end(), words.begin(), words.end());
    std::vector<char*> argv;
    for (auto& word : all) argv.push_back(word.data());
    argv.push_back(nullptr);
    const auto out = (dir / "out").string(), err = (dir / "err").string();
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_addopen(&actions, 2, err.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    pid_t child = 0;
    EXPECT_EQ(posix_spawn(&child, SALLYPORT_CLI, &actions, nullptr, argv.data(), environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    int ended = 0;
    ::waitpid(child, &ended, 0);
    return {WIFEXITED(ended) ? WEXITSTATUS(ended) : -1, slurp(out), slurp(err)};
  }
  static std::string slurp(const std::string& path) {
    std::string text;
    if (FILE* file = std::fopen(path.c_str(), "r")) {
      char room[4096];
      for (std::size_t got = 0; (got = std::fread(room, 1, sizeof room, file)) > 0;) text.append(room, got);
      std::fclose(file);
    }
    return text;
  }
};

TEST_F(Cli, SaysHowToStartADaemonThatDoesNotAnswer) {
  for (const std::vector<std::string>& words : {std::vector<std::string>{"status"},
                                                {"list"},
                                                {"list", "--json"},
                                                {"show", "k7f2"},
                                                {"revoke", "k7f2"},
                                                {"unblock", "k7f2"},
                                                {"watch"}}) {
    const auto ran = run(words);
    EXPECT_EQ(ran.code, 5) << words[0];
    EXPECT_EQ(ran.out, "");
    EXPECT_THAT(ran.err, HasSubstr(options.socket));
    EXPECT_THAT(ran.err, HasSubstr("systemctl start sallyportd"));
  }
}

TEST_F(Cli, ExplainsWrongUse) {
  const std::pair<std::vector<std::string>, const char*> wrong[] = {
      {{}, "subcommand is required"},
      {{"lsit"},
       "'lsit' is no command; there are status, list, show, revoke, unblock and watch; open, close and "
       "netcheck."},
      {{"list", "--every"}, "--every"},
      {{"list", "xbox"}, "'xbox' is no filter"},
      {{"list", "protocol=sctp"}, "there are tcp, udp"},
      {{"list", "--all", "--blocked"}, "do not go together"},
      {{"list", "--blocked", "via=pcp"}, "device, protocol and internal only"},
      {{"show"}, "ID is required"},
      {{"revoke"}, "say what is meant"},
      {{"revoke", "k7f2", "device=xbox"}, "not both"},
      {{"revoke", "K7F2"}, "neither an id"},
      {{"revoke", "k7f2", "--block", "3w"}, "say 90s, 15m, 24h, 7d or forever"},
      {{"revoke", "k7f2", "--block"}, "--block"},
      {{"unblock"}, "say what is meant"},
      {{"unblock", "kind=static"}, "device, protocol and internal only"},
      {{"watch", "k7f2"}, "k7f2"},
      {{"open"}, "PORT is required"},
      {{"open", "0"}, "PORT"},
      {{"open", "65536"}, "PORT"},
      {{"open", "22000", "--protocol", "sctp"}, "--protocol"},
      {{"open", "22000", "--external", "70000"}, "--external"},
      {{"open", "22000", "--for", "soon"}, "--for takes a time such as 90s"},
      {{"open", "22000", "--remote", "198.51.100"},
       "--remote takes ADDRESS or ADDRESS/LENGTH, not '198.51.100'"},
      {{"open", "22000", "--gateway", "router"}, "--gateway takes an address, not 'router'"},
      {{"open", "22000", "--via", "igd"}, "--via"},
      {{"open", "22000", "-4", "-6"}, "--ipv6"},
      {{"close"}, "PORT is required"},
      {{"close", "22000", "--gateway", "192.168.1"}, "--gateway takes an address, not '192.168.1'"},
      {{"close", "22000", "--for", "1h"}, "--for"},
      {{"netcheck", "22000"}, "22000"},
      {{"netcheck", "--port", "0"}, "--port"},
      {{"netcheck", "--protocol", "sctp"}, "--protocol"},
      {{"netcheck", "--stun", ""}, "--stun takes HOST or HOST:PORT, not ''"},
      {{"netcheck", "--stun", "stun.example.net:"}, "not 'stun.example.net:'"},
      {{"netcheck", "--stun", "stun.example.net:0"}, "not 'stun.example.net:0'"},
      {{"netcheck", "--stun", "stun.example.net:65536"}, "not 'stun.example.net:65536'"},
      {{"netcheck", "--stun", "stun.example.net:1:2"}, "not 'stun.example.net:1:2'"},
      {{"netcheck", "--stun", "[2001:db8::1"}, "not '[2001:db8::1'"},
      {{"netcheck", "--stun", "[2001:db8::1]3478"}, "not '[2001:db8::1]3478'"},
      {{"netcheck", "--stun", "[192.0.2.1]:3478"}, "not '[192.0.2.1]:3478'"},
      {{"netcheck", "--stun", "stun://example.net"}, "not 'stun://example.net'"},
      {{"netcheck", "--for", "500ms"}, "--for takes a time from 1s to 60s, not '500ms'"},
      {{"netcheck", "--for", "0s"}, "not '0s'"},
      {{"netcheck", "--for", "2m"}, "not '2m'"},
      {{"netcheck", "--gateway", "router"}, "--gateway takes an address, not 'router'"},
      {{"netcheck", "--via", "igd"}, "--via"},
  };
  for (const auto& [words, message] : wrong) {
    const auto ran = run(words);
    EXPECT_EQ(ran.code, 2) << message;
    EXPECT_EQ(ran.out, "");
    EXPECT_THAT(ran.err, StartsWith("sallyport: "));
    EXPECT_THAT(ran.err, HasSubstr(message));
  }
  EXPECT_EQ(run({"--help"}).code, 0);
  EXPECT_THAT(run({"revoke", "--help"}).out, HasSubstr("--dry-run"));
  EXPECT_THAT(run({"--version"}).out, StartsWith("sallyport "));
}

TEST_F(Cli, NetcheckOfNoNetworkIsAnAnswerInWordsAndInJson) {
  const auto text = run({"netcheck", "--interface", "no-such0"}, false);
  EXPECT_EQ(text.code, 5);
  EXPECT_THAT(text.out, StartsWith("No network: "));
  EXPECT_EQ(text.err, "");
  const auto ran = run({"--json", "netcheck", "--interface", "no-such0", "--stun", "[2001:db8::1]:3479",
                        "--port", "22000", "--protocol", "tcp"},
                       false);
  EXPECT_EQ(ran.code, 5);
  const auto report = json::parse(ran.out);
  EXPECT_EQ(report["verdict"], "no_network");
  EXPECT_EQ(report["helper"], "[2001:db8::1]:3479");
  EXPECT_EQ(report["port"], 22000);
  EXPECT_EQ(report["protocol"], "tcp");
}

TEST_F(Cli, AnEmptyListIsNoFailure) {
  serve();
  const auto ran = run({"list"});
  EXPECT_EQ(ran.code, 0);
  EXPECT_EQ(ran.out, "");
  EXPECT_THAT(ran.err, HasSubstr("no device has asked for a port"));
  EXPECT_EQ(json::parse(run({"list", "--json"}).out), json::parse(R"({"leases":[]})"));
  EXPECT_THAT(run({"list", "--blocked"}).err, HasSubstr("nothing is blocked"));
  EXPECT_THAT(run({"list", "protocol=udp"}).err, HasSubstr("no lease fits"));
}

TEST_F(Cli, ListsAndShows) {
  boot();
  auto wish = suggesting(pcp(console, 3074), 3074);
  wish.description = "Xbox Live";
  const auto id = id_of(granted(wish));
  serve();
  const auto listed = run({"list", "device=xbox"});
  EXPECT_EQ(listed.code, 0);
  EXPECT_THAT(listed.out,
              HasSubstr(id + "  Xbox 192.168.1.10  tcp     3074 -> 3074   pcp      60m  Xbox Live\n"));
  EXPECT_EQ(listed.err, "");
  EXPECT_EQ(json::parse(run({"--json", "list", "external=3074"}).out)["leases"][0]["id"], id);
  EXPECT_THAT(run({"show", id}).out, HasSubstr("external     203.0.113.7:3074\n"));
  EXPECT_EQ(json::parse(run({"show", id.substr(0, 2), "--json"}).out)["id"], id);
  EXPECT_EQ(run({"show", "zzzz"}).code, 3);
  EXPECT_EQ(run({"show", "zzzz"}).err,
            "sallyport: there is no lease 'zzzz'. 'sallyport list' shows what there is.\n");
  EXPECT_EQ(run({"status"}).code, 0);
  EXPECT_EQ(json::parse(run({"status", "--json"}).out)["leases"], 1);
}

TEST_F(Cli, RevokesOneWithoutAsking) {
  boot();
  const auto id = id_of(granted(pcp(console, 3074)));
  serve();
  const auto dry = run({"revoke", id, "--dry-run"});
  EXPECT_EQ(dry.code, 0);
  EXPECT_THAT(dry.out, HasSubstr(id));
  EXPECT_THAT(dry.err, HasSubstr("nothing was changed"));
  const auto ran = run({"revoke", id});
  EXPECT_EQ(ran.code, 0);
  EXPECT_EQ(ran.out, id + " revoked\n");
  EXPECT_EQ(run({"revoke", id}).code, 3);
  EXPECT_EQ(run({"revoke", "device=xbox"}).code, 3);
}

TEST_F(Cli, RevokesSeveralOnlyWhenItIsMeant) {
  boot();
  for (std::uint16_t i = 0; i < 3; ++i) granted(pcp(console, static_cast<std::uint16_t>(3000 + i)));
  const auto kept = id_of(granted(pcp(camera, 554)));
  serve();
  const auto refused = run({"revoke", "device=xbox"});
  EXPECT_EQ(refused.code, 2);
  EXPECT_THAT(refused.err, HasSubstr("this revokes 3 leases; say -y to mean it"));
  EXPECT_EQ(json::parse(run({"list", "--json"}).out)["leases"].size(), 4u);
  const auto answer = json::parse(run({"revoke", "device=xbox", "-y", "--json"}).out);
  EXPECT_EQ(answer["revoked"].size(), 3u);
  EXPECT_EQ(answer["failed"], json::array());
  EXPECT_TRUE(answer["blocked_until"].is_null());
  const auto partly = run({"revoke", "-y", kept, "zzzz"});
  EXPECT_EQ(partly.code, 7);
  EXPECT_EQ(partly.out, kept + " revoked\n");
  EXPECT_THAT(partly.err, HasSubstr("there is no lease 'zzzz'"));
}

TEST_F(Cli, BlocksAndUnblocks) {
  boot();
  const auto id = id_of(granted(pcp(console, 3074)));
  serve();
  const auto blocked = run({"revoke", id, "--block", "24h"});
  EXPECT_EQ(blocked.code, 0);
  EXPECT_EQ(blocked.out,
            id + " revoked\nblocked until 2026-03-02T00:00:00Z; 'sallyport unblock' lifts it earlier\n");
  EXPECT_THAT(run({"list", "--blocked"}).out,
              HasSubstr(id + "  Xbox 192.168.1.10  tcp        3074      24h\n"));
  EXPECT_EQ(json::parse(run({"list", "--blocked", "--json"}).out)["blocks"][0]["id"], id);
  EXPECT_EQ(run({"unblock", "protocol=udp"}).code, 3);
  EXPECT_EQ(run({"unblock", "zzzz"}).code, 3);
  EXPECT_EQ(run({"unblock", id}).out, id + " unblocked\n");
  EXPECT_EQ(run({"list", "--blocked"}).out, "");
}

TEST_F(Cli, AnAmbiguousPrefixIsAConflict) {
  boot();
  std::set<char> begins;
  std::string twice;
  for (std::uint16_t i = 0; i < 100; ++i) granted(pcp(console, static_cast<std::uint16_t>(3000 + i)));
  for (const auto& view : service->list({}, now()))
    if (!begins.insert(view.id[0]).second) twice = view.id.substr(0, 1);
  serve();
  EXPECT_EQ(run({"show", twice}).code, 6);
  EXPECT_EQ(run({"revoke", twice}).code, 6);
  EXPECT_THAT(run({"revoke", twice}).err, HasSubstr("ids begin with '" + twice + "'"));
}

TEST_F(Cli, WatchEndsWithFiveWhenTheDaemonGoes) {
  serve();
  std::atomic<bool> over = false;
  std::thread daemon{[this, &over] {
    // until the watcher stands, events go nowhere
    for (int i = 0; !over && slurp((dir / "out").string()).empty(); ++i)
      control([&] { granted(pcp(console, static_cast<std::uint16_t>(1024 + i % 60000))); });
    control([this] { server.reset(); });
  }};
  const auto ran = run({"watch", "--json"});
  over = true;
  daemon.join();
  EXPECT_EQ(ran.code, 5);
  EXPECT_THAT(ran.err, HasSubstr("Is sallyportd running"));
  const auto event = json::parse(ran.out.substr(0, ran.out.find('\n')));
  EXPECT_EQ(event["event"], "granted");
  EXPECT_EQ(event["reason"], "requested");
  EXPECT_EQ(event["lease"]["device"]["name"], "Xbox");
}

TEST_F(Cli, NoPermissionSaysWhichGroupToJoin) {
  if (::geteuid() != 0) GTEST_SKIP() << "only root can give its rights away to try this";
  serve();
  std::filesystem::permissions(dir, std::filesystem::perms::owner_all | std::filesystem::perms::others_all);
  const auto command = "setpriv --reuid=65534 --regid=65534 --clear-groups " + std::string{SALLYPORT_CLI} +
                       " --socket " + options.socket + " list 2>" + (dir / "err").string();
  const int ended = std::system(command.c_str());
  EXPECT_EQ(WEXITSTATUS(ended), 4) << "is the build directory readable for everybody?";
  EXPECT_THAT(slurp((dir / "err").string()), HasSubstr("usermod -aG sallyport"));
}

}  // namespace
}  // namespace sallyport::test
