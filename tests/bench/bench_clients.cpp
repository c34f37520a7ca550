// A program that opens ports through the client library, with a watch in its hand.
//
//   bench_clients open [--protocols pcp,natpmp,upnp] [--count N] [--first PORT] [--rounds N]
//     opens N ports at once, waits for all, gives them back; the rounds after the first are of the same
//     client
//   bench_clients hold [--protocols ...] [--count N] [--first PORT] [--seconds S]
//     keeps N open, and tells what that takes of memory and how often it wakes
//
// stdout: one JSON object. Milliseconds are from the call; `at` is CLOCK_MONOTONIC, in seconds, when the last
// port of the first round was open or refused. Exit codes: 0; 1 when something did not happen within 30 s; 2
// usage.

#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>

#include "sallyport/client/client.hpp"

namespace {

using namespace std::chrono_literals;
using namespace sallyport;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;

struct Words {
  std::string mode;
  client::ClientOptions options;
  unsigned count = 1, first = 20000, rounds = 1, seconds = 20;
};

double ms_since(Clock::time_point begun) {
  return std::chrono::duration<double, std::milli>(Clock::now() - begun).count();
}

/// A number of /proc/self/status.
long status_of(const char* field) {
  std::FILE* file = std::fopen("/proc/self/status", "r");
  if (!file) return -1;
  char line[256];
  long found = -1;
  while (std::fgets(line, sizeof line, file))
    if (std::strncmp(line, field, std::strlen(field)) == 0) found = std::atol(line + std::strlen(field));
  std::fclose(file);
  return found;
}

bool parse(int argc, char** argv, Words& words) {
  if (argc < 2) return false;
  words.mode = argv[1];
  if (words.mode != "open" && words.mode != "hold") return false;
  for (int i = 2; i + 1 < argc; i += 2) {
    const std::string_view name = argv[i], value = argv[i + 1];
    if (name == "--protocols") {
      words.options.pcp = value.find("pcp") == 0;  // "natpmp" ends in the same letters
      words.options.natpmp = value.find("natpmp") != value.npos;
      words.options.upnp = value.find("upnp") != value.npos;
      continue;
    }
    unsigned number = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
    if (error != std::errc{} || end != value.data() + value.size()) return false;
    if (name == "--count")
      words.count = number;
    else if (name == "--first")
      words.first = number;
    else if (name == "--rounds")
      words.rounds = number;
    else if (name == "--seconds")
      words.seconds = number;
    else
      return false;
  }
  return argc % 2 == 0 && words.count > 0 && words.first > 0 && words.first + words.count <= 65536;
}

class Program {
 public:
  explicit Program(Words words) : words_{std::move(words)} {}

  int run() {
    if (words_.mode == "hold") return hold();
    std::string rounds;
    double at = 0;
    for (unsigned round = 0; round < words_.rounds; ++round) {
      if (!open(words_.count)) return late();
      if (round == 0) at = at_;
      rounds += (round > 0 ? "," : "") + opened_json();
      if (!close()) return late();
    }
    std::printf("{\"at\":%.6f,\"rounds\":[%s]}\n", at, rounds.c_str());
    return 0;
  }

 private:
  static int late() {
    std::puts("{\"error\":\"nothing came within 30 s\"}");
    return 1;
  }

  /// Runs until `left_` is 0; false when that takes too long.
  bool finish() {
    const auto until = Clock::now() + 30s;
    io_.restart();
    while (left_ > 0 && Clock::now() < until) io_.run_one_until(until);
    return left_ == 0;
  }

  bool open(unsigned count) {
    first_ms_ = last_ms_ = 0;
    via_.clear();
    left_ = count;
    const auto begun = Clock::now();
    for (unsigned i = 0; i < count; ++i) {
      client::PortRequest request{.transport = i % 2 == 0 ? Transport::tcp : Transport::udp,
                                  .internal_port = *Port::from(words_.first + i),
                                  .description = "bench"};
      client_.async_open(std::move(request),
                         [this, begun, count](error_code error, client::PortHandle handle) {
                           last_ms_ = ms_since(begun);
                           if (left_ == count) first_ms_ = last_ms_;
                           --left_;
                           if (error) {
                             refusal_ = error;
                           } else {
                             const auto grants = handle.grants();
                             if (!grants.empty()) via_ = to_string(grants.front().protocol);
                             handles_.push_back(std::move(handle));
                           }
                         });
    }
    called_ms_ = ms_since(begun);
    const bool done = finish();
    at_ = std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
    return done;
  }

  bool close() {
    const auto begun = Clock::now();
    left_ = static_cast<unsigned>(handles_.size());
    for (auto& each : handles_)
      each.async_close([this](error_code error) {
        --left_;
        if (error) ++not_closed_;
      });
    handles_.clear();
    const bool done = finish();
    closed_ms_ = ms_since(begun);
    return done;
  }

  std::string opened_json() const {
    char text[256];
    std::snprintf(text, sizeof text,
                  "{\"first_ms\":%.3f,\"all_ms\":%.3f,\"called_ms\":%.3f,\"open\":%zu,\"via\":\"%s\","
                  "\"refusal\":\"%s\"}",
                  first_ms_, last_ms_, called_ms_, handles_.size(), via_.c_str(),
                  refusal_ ? std::string{client::word(refusal_)}.c_str() : "");
    return text;
  }

  void idle(std::chrono::milliseconds how_long) {
    bool over = false;
    boost::asio::steady_timer timer{io_, how_long};
    timer.async_wait([&](error_code) { over = true; });
    io_.restart();
    while (!over) io_.run_one();
  }

  int hold() {
    const auto none_kib = status_of("VmRSS:");
    if (!open(words_.count)) return late();
    const auto opened = opened_json();
    idle(3s);  // searches and what else comes with the beginning
    const auto kib = status_of("VmRSS:");
    const auto switches = status_of("voluntary_ctxt_switches:");
    idle(std::chrono::seconds{words_.seconds});
    const auto wakes = status_of("voluntary_ctxt_switches:") - switches - 1;  // without that of idle() itself
    std::printf("{\"none_kib\":%ld,\"kib\":%ld,\"wakes\":%ld,\"seconds\":%u,\"opened\":%s", none_kib, kib,
                wakes, words_.seconds, opened.c_str());
    if (!close()) return late();
    std::printf(",\"closed_ms\":%.3f,\"not_closed\":%u}\n", closed_ms_, not_closed_);
    return 0;
  }

  Words words_;
  boost::asio::io_context io_{1};
  client::Client client_{io_.get_executor(), words_.options};
  std::vector<client::PortHandle> handles_;
  unsigned left_ = 0, not_closed_ = 0;
  double first_ms_ = 0, last_ms_ = 0, called_ms_ = 0, closed_ms_ = 0, at_ = 0;
  std::string via_;
  error_code refusal_;
};

}  // namespace

int main(int argc, char** argv) {
  Words words;
  if (!parse(argc, argv, words)) {
    std::fputs(
        "usage: bench_clients open|hold [--protocols pcp,natpmp,upnp] [--count N] [--first PORT] [--rounds "
        "N] "
        "[--seconds S]\n",
        stderr);
    return 2;
  }
  return Program{std::move(words)}.run();
}
