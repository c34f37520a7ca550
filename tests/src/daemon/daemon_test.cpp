// The program itself, between hosts in network namespaces. `tests/lab` has the longer stories.
#include <signal.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "tests/src/transport/namespaces.hpp"
#include "tests/support/hex.hpp"

namespace sallyport {
namespace {

using namespace std::chrono_literals;
using test::HostSocket;
using test::Namespace;
using testing::HasSubstr;
using testing::Not;

/// A program that runs, with what it writes.
class Process {
 public:
  Process(const Namespace* where, const std::vector<std::string>& arguments,
          const std::filesystem::path& output, const std::vector<std::string>& environment = {})
      : out_{output.string() + ".out"}, err_{output.string() + ".err"} {
    const auto start = [&] {
      // what an earlier process of this name said must not be read as this one's; the files stay the same ones
      for (const auto& file : {out_, err_}) std::ofstream{file, std::ios::trunc};
      process_ = ::fork();
      if (process_ != 0) return;
      const int out = ::open(out_.c_str(), O_WRONLY);
      const int err = ::open(err_.c_str(), O_WRONLY);
      ::dup2(out, 1);
      ::dup2(err, 2);
      std::vector<char*> words;
      for (const auto& argument : arguments) words.push_back(const_cast<char*>(argument.c_str()));
      words.push_back(nullptr);
      std::vector<char*> values{const_cast<char*>("PATH=/usr/sbin:/usr/bin:/sbin:/bin")};
      for (const auto& value : environment) values.push_back(const_cast<char*>(value.c_str()));
      values.push_back(nullptr);
      ::execve(words[0], words.data(), values.data());
      ::_exit(127);
    };
    if (where != nullptr)
      where->inside(start);
    else
      start();
  }
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  ~Process() {
    if (process_ > 0) {
      ::kill(process_, SIGKILL);
      ::waitpid(process_, nullptr, 0);
    }
  }

  void signal(int number) const { ::kill(process_, number); }
  pid_t pid() const { return process_; }
  /// Its exit code, within the time; -1 when it still runs, 128 + the signal when one ended it.
  int exit_code(std::chrono::milliseconds time = 20s) {
    for (const auto end = std::chrono::steady_clock::now() + time;; std::this_thread::sleep_for(5ms)) {
      int status = 0;
      if (::waitpid(process_, &status, WNOHANG) == process_) {
        process_ = -1;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
      }
      if (std::chrono::steady_clock::now() > end) return -1;
    }
  }
  std::string out() const { return read(out_); }
  std::string err() const { return read(err_); }
  bool until_err(const std::string& text) const {
    return until([&] { return err().find(text) != std::string::npos; });
  }
  bool until_ready() const {
    return until([&] { return out() == "sallyportd ready\n"; });
  }
  static bool until(const std::function<bool()>& condition) {
    for (const auto end = std::chrono::steady_clock::now() + 20s; std::chrono::steady_clock::now() < end;
         std::this_thread::sleep_for(5ms))
      if (condition()) return true;
    return false;
  }
  static std::string read(const std::filesystem::path& path) {
    std::ifstream file{path, std::ios::binary};
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
  }

 private:
  std::filesystem::path out_, err_;
  pid_t process_ = -1;
};

class Directory {
 public:
  Directory() {
    std::string name = std::filesystem::temp_directory_path() / "sallyportd-test-XXXXXX";
    path_ = ::mkdtemp(name.data());
  }
  ~Directory() { std::filesystem::remove_all(path_); }
  std::filesystem::path operator/(const char* name) const { return path_ / name; }
  void write(const char* name, const std::string& text) const { std::ofstream{path_ / name} << text; }

 private:
  std::filesystem::path path_;
};

// What needs no rights.
class CommandLine : public testing::Test {
 protected:
  int run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), SALLYPORTD);
    Process process{nullptr, arguments, directory / "run"};
    const auto code = process.exit_code();
    out = process.out();
    err = process.err();
    return code;
  }
  Directory directory;
  std::string out, err;
};

TEST_F(CommandLine, BadFlagsExit2) {
  for (const std::vector<std::string>& flags : {std::vector<std::string>{"--nonsense"},
                                                {"extra"},
                                                {"--lan"},
                                                {"--data-plane", "kernel"},
                                                {"--log-level", "loud"},
                                                {"--external-address", "203.0.113.300"},
                                                {"--wan", "a", "--wan", "b"},
                                                {"--wan", "a/b"}}) {
    EXPECT_EQ(run(flags), 2) << flags.front();
    EXPECT_NE(err, "") << flags.front();
    EXPECT_EQ(out, "");
  }
}

TEST_F(CommandLine, ABadConfigurationExits78AndSaysWhere) {
  directory.write("bad.toml", "[limits]\nleases_per_device = \"many\"\n");
  const auto file = (directory / "bad.toml").string();
  const auto sentence =
      file + ":2:21: limits.leases_per_device: found \"many\", expected an integer from 0 to 4294967295\n";
  EXPECT_EQ(run({"--config", file, "--check-config"}), 78);
  EXPECT_EQ(err, sentence);
  EXPECT_EQ(out, "");
  EXPECT_EQ(run({"--config", file}), 78);
  EXPECT_THAT(err, HasSubstr(sentence));
  EXPECT_EQ(run({"--config", file + ".missing", "--check-config"}), 78);
}

TEST_F(CommandLine, CheckConfigSaysThatItIsFine) {
  directory.write("good.toml", "[limits]\nleases_per_device = 5\n");
  EXPECT_EQ(run({"--check-config", "--config", directory / "good.toml"}), 0);
  EXPECT_EQ(out, "configuration is fine\n");
  EXPECT_EQ(err, "");
}

/// The gateway between alice (192.168.1.2) and a stranger (203.0.113.2) on the internet.
class DaemonTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const auto why = test::no_namespaces()) GTEST_SKIP() << *why;
    if (!std::filesystem::exists("/dev/net/tun")) GTEST_SKIP() << "there is no /dev/net/tun";
    ASSERT_TRUE(gateway.connect("lan0", alice, "eth0"));
    ASSERT_TRUE(gateway.connect("wan0", stranger, "eth0"));
    gateway.ip("addr add 192.168.1.1/24 dev lan0");
    gateway.ip("addr add 203.0.113.1/24 dev wan0");
    alice.ip("addr add 192.168.1.2/24 dev eth0");
    alice.ip("route add default via 192.168.1.1");
    stranger.ip("addr add 203.0.113.2/24 dev eth0");
    gateway.inside([] { std::ofstream{"/proc/sys/net/ipv4/ip_forward"} << "1"; });
    configure("");
  }
  void TearDown() override {
    if (!IsSkipped()) Process{&gateway, {SALLYPORTD, "--detach"}, directory / "detach"}.exit_code();
  }

  void configure(const std::string& text) const {
    directory.write("sallyport.toml", "[listen]\nlan = [\"lan0\"]\nwan = [\"wan0\"]\n" + text);
  }
  std::unique_ptr<Process> start(const std::vector<std::string>& more = {},
                                 const std::vector<std::string>& environment = {},
                                 const char* name = "daemon", const char* state = "state") const {
    std::vector<std::string> arguments{
        SALLYPORTD,        "--config",       directory / "sallyport.toml", "--state-dir",
        directory / state, "--admin-socket", directory / "admin.sock"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return std::make_unique<Process>(&gateway, arguments, directory / name, environment);
  }
  /// The answer to a NAT-PMP request of alice's, in octets; empty when there was none. Asked again like
  /// clients do.
  std::string ask(const std::string& request) const {
    HostSocket socket{alice};
    for (int attempt = 0; attempt < 20; ++attempt) {
      socket.send(request, "192.168.1.1", 5351);
      const auto answer = socket.receive(500);
      if (answer && answer->from_port == 5351) return answer->bytes;
    }
    return {};
  }
  static std::string text(std::string_view hex) {
    const auto bytes = test::hex(hex);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  /// Asks for UDP port 40000 by NAT-PMP, for an hour; the external port, 0 when refused.
  unsigned map_udp(const std::string& port_hex = "9c40") const {
    const auto answer = ask(text("0001 0000 " + port_hex + port_hex + " 00000e10"));
    if (answer.size() != 16 || answer[3] != 0) return 0;
    return static_cast<unsigned char>(answer[10]) * 256U + static_cast<unsigned char>(answer[11]);
  }
  std::string external_address() const {
    const auto answer = ask(text("0000"));
    if (answer.size() != 12 || answer[3] != 0) return "";
    std::string result;
    for (int i = 8; i < 12; ++i)
      result += (i == 8 ? "" : ".") +
                std::to_string(static_cast<unsigned char>(answer[static_cast<std::size_t>(i)]));
    return result;
  }
  /// True when a packet to the external port arrives at alice's port 40000.
  bool passes(const std::string& external = "203.0.113.1") const {
    HostSocket inside{alice, "192.168.1.2", 40000};
    HostSocket outside{stranger};
    outside.send("knock", external, 40000);
    const auto heard = inside.receive(1000);
    return heard && heard->bytes == "knock" && heard->from == "203.0.113.2";
  }

  Namespace gateway, alice, stranger;
  Directory directory;
};

TEST_F(DaemonTest, GrantsAPortCarriesPacketsAndKeepsTheLeaseOverARestart) {
  // Which fails closed with the process; the other plane's programs go on. Tests that name no plane run on what `auto` takes.
  const std::vector<std::string> tun{"--data-plane", "tun"};
  auto daemon = start(tun);
  ASSERT_TRUE(daemon->until_ready()) << daemon->err();
  EXPECT_EQ(external_address(), "203.0.113.1");
  EXPECT_FALSE(passes());
  EXPECT_EQ(map_udp(), 40000u);
  EXPECT_TRUE(passes());

  daemon->signal(SIGTERM);
  EXPECT_EQ(daemon->exit_code(5s), 0) << daemon->err();
  EXPECT_FALSE(passes()) << "fails closed";
  daemon = start(tun);
  ASSERT_TRUE(daemon->until_ready()) << daemon->err();
  EXPECT_TRUE(passes()) << daemon->err();
}

// "no earlier line of either stream holds the word"
TEST_F(DaemonTest, SaysReadyOnceAndNotBefore) {
  auto daemon = start({"--log-level", "trace"});
  ASSERT_TRUE(daemon->until_ready()) << daemon->err();
  EXPECT_THAT(daemon->err(), Not(HasSubstr("ready")));
  daemon->signal(SIGTERM);
  EXPECT_EQ(daemon->exit_code(5s), 0);
  EXPECT_EQ(daemon->out(), "sallyportd ready\n");
}

TEST_F(DaemonTest, BecomesReadyWithoutAnythingAroundItAndTakesItUpWhenItComes) {
  gateway.ip("link del lan0");
  gateway.ip("link del wan0");
  auto daemon = start();
  ASSERT_TRUE(daemon->until_ready()) << daemon->err();
  EXPECT_THAT(daemon->err(), HasSubstr("LAN interface lan0 does not exist"));
  EXPECT_THAT(daemon->err(), HasSubstr("there is no external address"));
  ASSERT_TRUE(gateway.connect("lan0", alice, "eth0"));
  gateway.ip("addr add 192.168.1.1/24 dev lan0");
  alice.ip("addr add 192.168.1.2/24 dev eth0");
  alice.ip("route add default via 192.168.1.1");
  EXPECT_EQ(map_udp(), 0u) << "no external address yet";
  ASSERT_TRUE(gateway.connect("wan0", stranger, "eth0"));
  gateway.ip("addr add 203.0.113.1/24 dev wan0");
  stranger.ip("addr add 203.0.113.2/24 dev eth0");
  EXPECT_TRUE(Process::until([&] { return external_address() == "203.0.113.1"; }));
  EXPECT_EQ(map_udp(), 40000u);
  EXPECT_TRUE(passes());
}

// POL-RUN-01
TEST_F(DaemonTest, FollowsTheWansAddress) {
  auto daemon = start();
  ASSERT_TRUE(daemon->until_ready()) << daemon->err();
  EXPECT_EQ(map_udp(), 40000u);
  gateway.ip("addr del 203.0.113.1/24 dev wan0");
  gateway.ip("addr add 203.0.113.9/24 dev wan0");
  const auto changed = std::chrono::steady_clock::now();
  EXPECT_TRUE(Process::until([&] { return external_address() == "203.0.113.9"; }));
  EXPECT_LT(std::chrono::steady_clock::now() - changed, 5s);
  EXPECT_TRUE(Process::until([&] { return passes("203.0.113.9"); }));
  EXPECT_FALSE(passes("203.0.113.1"));
}

TEST_F(DaemonTest, APinnedAddressStaysWhateverTheWanDoes) {
  auto daemon = start({"--external-address", "203.0.113.1"});
  ASSERT_TRUE(daemon->until_ready()) << daemon->err();
  gateway.ip("addr add 203.0.113.9/24 dev wan0");
  gateway.ip("addr del 203.0.113.9/24 dev wan0");
  EXPECT_EQ(external_address(), "203.0.113.1");
}

// POL-RUN-03, POL-RUN-04
TEST_F(DaemonTest, AReloadAppliesAGoodConfigurationAndRefusesABadOne) {
  auto daemon = start();
  ASSERT_TRUE(daemon->until_ready()) << daemon->err();
  EXPECT_EQ(map_udp(), 40000u);

  configure("[limits]\nleases_per_device = 1\nleases_total = \"x\"\n");
  daemon->signal(SIGHUP);
  ASSERT_TRUE(daemon->until_err("sallyport.toml:6:16: limits.leases_total: found \"x\""));
  ASSERT_TRUE(daemon->until_err("the old one is kept"));
  EXPECT_EQ(map_udp("9c41"), 40001u) << "nothing of the bad one is in force";

  configure("[limits]\nleases_per_device = 2\n");
  daemon->signal(SIGHUP);
  ASSERT_TRUE(daemon->until_err("the configuration was reloaded"));
  EXPECT_EQ(map_udp("9c42"), 0u) << "a third lease is above the new quota";
  EXPECT_EQ(map_udp(), 40000u) << "renewals go on";
  EXPECT_TRUE(passes());

  configure("[[static]]\nprotocol = \"udp\"\nexternal = 40000\ninternal = \"192.168.1.2:40000\"\n");
  for (int i = 0; i < 20; ++i) daemon->signal(SIGHUP);
  EXPECT_TRUE(passes());
  configure("[listen.x]\n");
  daemon->signal(SIGTERM);
  EXPECT_EQ(daemon->exit_code(5s), 0);
}

TEST_F(DaemonTest, ASecondInstanceExits1WithASentence) {
  auto daemon = start();
  ASSERT_TRUE(daemon->until_ready()) << daemon->err();
  auto same_state = start({}, {}, "second");
  EXPECT_EQ(same_state->exit_code(), 1);
  EXPECT_THAT(same_state->err(), HasSubstr("another sallyportd"));
  auto same_network = start({}, {}, "third", "state2");
  EXPECT_EQ(same_network->exit_code(), 1);
  EXPECT_THAT(same_network->err(), HasSubstr("another sallyportd"));
  EXPECT_EQ(same_state->out() + same_network->out(), "");
  EXPECT_EQ(map_udp(), 40000u) << "the first serves on";
  EXPECT_TRUE(passes());
}

TEST_F(DaemonTest, AnotherServerOnThePortIsNamedAsTheCause) {
  HostSocket other{gateway, "0.0.0.0", 5351};
  ASSERT_TRUE(other.good());
  auto daemon = start();
  EXPECT_EQ(daemon->exit_code(), 1);
  EXPECT_THAT(daemon->err(), HasSubstr("UDP port 5351 is taken by another program"));
}

// architecture.md, "Trust": after start only what is needed
TEST_F(DaemonTest, KeepsOnlyTheRightsItNeeds) {
  auto daemon = start();
  ASSERT_TRUE(daemon->until_ready()) << daemon->err();
  int threads = 0;
  for (const auto& task :
       std::filesystem::directory_iterator{"/proc/" + std::to_string(daemon->pid()) + "/task"}) {
    const auto status = Process::read(task.path() / "status");
    for (const char* set : {"CapPrm", "CapEff", "CapBnd"})  // CAP_NET_ADMIN and CAP_NET_RAW
      EXPECT_THAT(status, HasSubstr(std::string{set} + ":\t0000000000003000\n")) << task.path();
    EXPECT_THAT(status, HasSubstr("NoNewPrivs:\t1\n"));
    ++threads;
  }
  EXPECT_GE(threads, 2);
}

// A LAN that is translated but not served; the "several --lan interfaces"
TEST_F(DaemonTest, AGuestLanIsNotAnswered) {
  Namespace guest;
  ASSERT_TRUE(gateway.connect("guest0", guest, "eth0"));
  gateway.ip("addr add 192.168.2.1/24 dev guest0");
  guest.ip("addr add 192.168.2.2/24 dev eth0");
  directory.write("sallyport.toml",
                  "[listen]\nlan = [\"lan0\", \"guest0\"]\nwan = [\"wan0\"]\ncontrol = [\"lan0\"]\n");
  auto daemon = start();
  ASSERT_TRUE(daemon->until_ready()) << daemon->err();
  EXPECT_EQ(external_address(), "203.0.113.1");
  HostSocket socket{guest};
  socket.send(text("0000"), "192.168.2.1", 5351);
  EXPECT_FALSE(socket.receive(300)) << "no answer, and no ICMP error";
}

TEST_F(DaemonTest, TellsSystemd) {
  const int listener = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const auto path = (directory / "notify").string();
  std::copy(path.begin(), path.end(), address.sun_path);
  ASSERT_EQ(::bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  const auto next = [&] {
    std::string text(200, '\0');
    pollfd wait{listener, POLLIN, 0};
    if (::poll(&wait, 1, 20000) != 1) return std::string{"nothing"};
    text.resize(
        static_cast<std::size_t>(std::max<ssize_t>(0, ::recv(listener, text.data(), text.size(), 0))));
    return text;
  };
  auto daemon = start({}, {"NOTIFY_SOCKET=" + path});
  EXPECT_EQ(next(), "READY=1");
  daemon->signal(SIGHUP);
  EXPECT_THAT(next(), testing::StartsWith("RELOADING=1\nMONOTONIC_USEC="));
  EXPECT_EQ(next(), "READY=1");
  daemon->signal(SIGTERM);
  EXPECT_EQ(next(), "STOPPING=1");
  EXPECT_EQ(daemon->exit_code(5s), 0);
  ::close(listener);
}

TEST_F(DaemonTest, LinesForTheJournalHaveAPriorityAndNoTime) {
  // the log's own file stands in for the journal's stream: same device and inode
  directory.write("daemon.err", "");
  struct stat status {};
  ASSERT_EQ(::stat((directory / "daemon.err").c_str(), &status), 0);
  auto daemon =
      start({}, {"JOURNAL_STREAM=" + std::to_string(status.st_dev) + ':' + std::to_string(status.st_ino)});
  ASSERT_TRUE(daemon->until_ready()) << daemon->err();
  std::istringstream lines{daemon->err()};
  for (std::string line; std::getline(lines, line);)
    EXPECT_THAT(line, testing::MatchesRegex("<[3-7]>[^0-9].*"));
  EXPECT_THAT(daemon->err(), HasSubstr("<6>the external address is 203.0.113.1"));
}

}  // namespace
}  // namespace sallyport
