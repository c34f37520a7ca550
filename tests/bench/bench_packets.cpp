// The two hosts beside a gateway, in one process: each thread enters its own network namespace, so sender and
// receiver share counters and one clock. Prints one JSON object. tests/bench/packets builds the lab and
// drives it.
//
//   bench_packets COMMAND --lan-ns PATH --wan-ns PATH --lan A --wan A [options]
//   stream    60-byte UDP datagrams over --flows flows for --seconds; --direction out|in; --rate 0 sends with
//   at most
//             --window datagrams under way, --rate -1 as fast as it can, --rate N sends N a second
//   mappings  --count datagrams, each from an internal endpoint never seen before
//   connects  --count TCP connections, --parallel at once: connect, one octet each way, close
//   rtt       --count round trips of one datagram
//   flows     --count flows: --flows endpoints times as many destinations as needed (addresses of --far A
//   onwards)
//
// --lan is the first of --sources consecutive addresses of the inner host.

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::duration;
constexpr int batch = 32;
constexpr std::uint16_t far_port = 9000;
constexpr std::uint16_t first_inner_port = 40000;
constexpr std::size_t datagram_size = 60;  // IP header, UDP header and 32 octets

struct Options {
  std::string command;
  std::string lan_ns, wan_ns;
  in_addr lan{}, wan{}, far{};
  std::uint32_t sources = 50;
  std::uint32_t flows = 1000;
  std::uint32_t count = 20000;
  std::uint32_t parallel = 64;
  std::uint32_t window = 256;
  double rate = 0;
  double seconds = 2;
  bool inbound = false;
  int daemon = 0;
};
Options o;

[[noreturn]] void die(const char* what) {
  std::fprintf(stderr, "bench_packets: %s: %s\n", what, std::strerror(errno));
  std::exit(1);
}
[[noreturn]] void usage(const char* why) {
  std::fprintf(stderr, "bench_packets: %s; the head of bench_packets.cpp has the options\n", why);
  std::exit(2);
}

void parse(int argc, char** argv) {
  if (argc < 2) usage("no command");
  o.command = argv[1];
  for (int i = 2; i + 1 < argc; i += 2) {
    const std::string_view key = argv[i];
    const char* value = argv[i + 1];
    const auto number = [&] { return static_cast<std::uint32_t>(std::strtoul(value, nullptr, 10)); };
    const auto address = [&](in_addr& to) {
      if (inet_pton(AF_INET, value, &to) != 1) usage("not an IPv4 address");
    };
    if (key == "--lan-ns")
      o.lan_ns = value;
    else if (key == "--wan-ns")
      o.wan_ns = value;
    else if (key == "--lan")
      address(o.lan);
    else if (key == "--wan")
      address(o.wan);
    else if (key == "--far")
      address(o.far);
    else if (key == "--sources")
      o.sources = number();
    else if (key == "--flows")
      o.flows = number();
    else if (key == "--count")
      o.count = number();
    else if (key == "--parallel")
      o.parallel = number();
    else if (key == "--window")
      o.window = number();
    else if (key == "--rate")
      o.rate = std::strtod(value, nullptr);
    else if (key == "--seconds")
      o.seconds = std::strtod(value, nullptr);
    else if (key == "--direction")
      o.inbound = std::string_view{value} == "in";
    else if (key == "--daemon")
      o.daemon = std::atoi(value);
    else
      usage("unknown option");
  }
  if (o.lan_ns.empty() || o.wan_ns.empty() || o.lan.s_addr == 0 || o.wan.s_addr == 0)
    usage("a host is missing");
  if (o.sources == 0 || o.flows == 0 || o.parallel == 0 || o.window == 0) usage("a number is 0");
}

void enter(const std::string& ns) {
  const int fd = ::open(ns.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0 || ::setns(fd, CLONE_NEWNET) != 0) die(ns.c_str());
  ::close(fd);
  ::prctl(PR_SET_TIMERSLACK, 1000UL, 0, 0, 0);
}
std::thread in_ns(const std::string& ns, std::function<void()> work) {
  return std::thread{[&ns, work = std::move(work)] {
    enter(ns);
    work();
  }};
}

/// CPU time of a process in seconds, exact: the sum over its threads.
double process_seconds(int pid) {
  if (pid == 0) return 0;
  double sum = 0;
  std::error_code error;
  for (const auto& task :
       std::filesystem::directory_iterator{"/proc/" + std::to_string(pid) + "/task", error}) {
    FILE* file = std::fopen((task.path() / "schedstat").c_str(), "r");
    unsigned long long ns = 0;
    if (file != nullptr && std::fscanf(file, "%llu", &ns) == 1) sum += static_cast<double>(ns) * 1e-9;
    if (file != nullptr) std::fclose(file);
  }
  return sum;
}

/// CPU time in seconds of all that moves the packets: this process (both hosts, and what the kernel forwards
/// in their system calls), the daemon, and the kernel's threads for what it puts off. Others on the machine
/// do not count.
double moving_seconds() {
  static const std::vector<int> kernel_threads = [] {
    std::vector<int> found;
    for (const auto& entry : std::filesystem::directory_iterator{"/proc"}) {
      const int pid = std::atoi(entry.path().filename().c_str());
      char name[32]{};
      FILE* file = pid > 0 ? std::fopen((entry.path() / "comm").c_str(), "r") : nullptr;
      if (file == nullptr) continue;
      if (std::fgets(name, sizeof name, file) != nullptr && std::strncmp(name, "ksoftirqd/", 10) == 0)
        found.push_back(pid);
      std::fclose(file);
    }
    return found;
  }();
  timespec own{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &own);
  double sum =
      static_cast<double>(own.tv_sec) + static_cast<double>(own.tv_nsec) * 1e-9 + process_seconds(o.daemon);
  for (const int pid : kernel_threads) sum += process_seconds(pid);
  return sum;
}

// -- datagrams
using Frame = std::array<unsigned char, datagram_size>;

void put16(unsigned char* at, std::uint32_t v) {
  at[0] = static_cast<unsigned char>(v >> 8);
  at[1] = static_cast<unsigned char>(v);
}
void put32(unsigned char* at, std::uint32_t v) {
  put16(at, v >> 16);
  put16(at + 2, v & 0xffff);
}
std::uint32_t get32(const unsigned char* at) {
  return std::uint32_t{at[0]} << 24 | std::uint32_t{at[1]} << 16 | std::uint32_t{at[2]} << 8 | at[3];
}

Frame make_frame(in_addr from, std::uint16_t from_port, in_addr to, std::uint16_t to_port,
                 std::uint32_t tag) {
  Frame f{};
  f[0] = 0x45;
  put16(&f[2], datagram_size);
  put16(&f[4], 1);
  f[6] = 0x40;  // do not fragment
  f[8] = 64;
  f[9] = IPPROTO_UDP;
  std::memcpy(&f[12], &from, 4);
  std::memcpy(&f[16], &to, 4);
  put16(&f[20], from_port);
  put16(&f[22], to_port);
  put16(&f[24], datagram_size - 20);
  put32(&f[28], tag);
  std::uint32_t sum = IPPROTO_UDP + datagram_size - 20;
  for (std::size_t k = 12; k < datagram_size; k += 2) sum += static_cast<std::uint32_t>(f[k] << 8 | f[k + 1]);
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  put16(&f[26], (sum ^ 0xffff) == 0 ? 0xffff : sum ^ 0xffff);
  return f;
}

in_addr inner_address(std::uint32_t flow) { return in_addr{htonl(ntohl(o.lan.s_addr) + flow % o.sources)}; }
std::uint16_t inner_port(std::uint32_t flow) {
  return static_cast<std::uint16_t>(first_inner_port + flow / o.sources);
}

int udp_socket(in_addr at, std::uint16_t port) {
  const int fd = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  const int room = 4 << 20;
  ::setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
  sockaddr_in name{};
  name.sin_family = AF_INET;
  name.sin_port = htons(port);
  name.sin_addr = at;
  if (fd < 0 || ::bind(fd, reinterpret_cast<sockaddr*>(&name), sizeof name) != 0) die("bind");
  return fd;
}

std::atomic<std::uint64_t> received{0};
std::atomic<std::int64_t> last_received_ns{0};
std::atomic<bool> stop{false};
std::atomic<int> ready{0};

std::int64_t now_ns() { return Clock::now().time_since_epoch().count(); }

/// Counts what arrives at any of the sockets; `each` sees every datagram.
void receive_until_stopped(
    const std::vector<int>& sockets,
    const std::function<void(const unsigned char*, std::size_t, const sockaddr_in&)>& each) {
  const int epoll = ::epoll_create1(EPOLL_CLOEXEC);
  for (const int fd : sockets) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    if (::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) die("epoll_ctl");
  }
  std::array<std::array<unsigned char, 64>, batch> bytes{};
  std::array<sockaddr_in, batch> from{};
  std::array<iovec, batch> parts{};
  std::array<mmsghdr, batch> messages{};
  for (int k = 0; k < batch; ++k) {
    parts[k] = {bytes[k].data(), bytes[k].size()};
    messages[k].msg_hdr.msg_iov = &parts[k];
    messages[k].msg_hdr.msg_iovlen = 1;
    if (each) messages[k].msg_hdr.msg_name = &from[k];
  }
  ++ready;
  std::array<epoll_event, 32> events{};
  while (!stop.load(std::memory_order_relaxed)) {
    const int n = ::epoll_wait(epoll, events.data(), static_cast<int>(events.size()), 5);
    for (int e = 0; e < n; ++e) {
      for (int round = 0; round < 8; ++round) {
        if (each)
          for (auto& m : messages) m.msg_hdr.msg_namelen = sizeof(sockaddr_in);
        const int got = ::recvmmsg(events[e].data.fd, messages.data(), batch, MSG_DONTWAIT, nullptr);
        if (got <= 0) break;
        if (each)
          for (int k = 0; k < got; ++k) each(bytes[k].data(), messages[k].msg_len, from[k]);
        received.fetch_add(static_cast<std::uint64_t>(got), std::memory_order_relaxed);
        last_received_ns.store(now_ns(), std::memory_order_relaxed);
        if (got < batch) break;
      }
    }
  }
  ::close(epoll);
}

/// Sends ready-made IP datagrams; the kernel routes them like any other of this host.
class RawSender {
 public:
  RawSender() : socket_{::socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW)} {
    if (socket_ < 0) die("raw socket");
    const int room = 8 << 20;
    ::setsockopt(socket_, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room);
    for (int k = 0; k < batch; ++k) {
      to_[k].sin_family = AF_INET;
      messages_[k].msg_hdr.msg_name = &to_[k];
      messages_[k].msg_hdr.msg_namelen = sizeof to_[k];
      messages_[k].msg_hdr.msg_iov = &parts_[k];
      messages_[k].msg_hdr.msg_iovlen = 1;
    }
  }
  ~RawSender() { ::close(socket_); }
  RawSender(const RawSender&) = delete;
  RawSender& operator=(const RawSender&) = delete;

  void send(Frame* const* frames, int n) {
    for (int k = 0; k < n; ++k) {
      std::memcpy(&to_[k].sin_addr, &(*frames[k])[16], 4);
      parts_[k] = {frames[k]->data(), datagram_size};
    }
    int sent = 0;
    while (sent < n) {
      const int done = ::sendmmsg(socket_, messages_.data() + sent, static_cast<unsigned>(n - sent), 0);
      if (done > 0)
        sent += done;
      else if (errno == ENOBUFS || errno == EPERM)
        ++sent;  // dropped on the way out: counts as sent
      else if (errno != EINTR)
        die("sendmmsg");
    }
  }

 private:
  int socket_;
  std::array<sockaddr_in, batch> to_{};
  std::array<iovec, batch> parts_{};
  std::array<mmsghdr, batch> messages_{};
};

void nap(std::int64_t ns) {
  const timespec t{0, static_cast<long>(ns)};
  ::nanosleep(&t, nullptr);
}

struct Sent {
  std::uint64_t datagrams = 0;
  std::uint64_t stalls = 0;  // windows given up as lost
};

/// Sends `frames` round and round until `until` or until `limit` were sent, with at most o.window under way.
Sent send_windowed(std::vector<Frame>& frames, Clock::time_point until, std::uint64_t limit) {
  RawSender out;
  std::array<Frame*, batch> some{};
  Sent sent;
  std::uint64_t given_up = 0;
  const std::uint64_t base = received.load();
  std::size_t next = 0;
  auto last_progress = Clock::now();
  std::uint64_t seen = 0;
  while (sent.datagrams < limit) {
    const auto now = Clock::now();
    if (now >= until) break;
    const std::uint64_t arrived = received.load(std::memory_order_relaxed) - base;
    if (arrived != seen) {
      seen = arrived;
      last_progress = now;
    }
    const std::uint64_t gone = std::min(sent.datagrams, arrived + given_up);
    const std::uint64_t room = o.window - std::min<std::uint64_t>(o.window, sent.datagrams - gone);
    if (room < batch) {
      if (now - last_progress > std::chrono::milliseconds{20}) {
        given_up = sent.datagrams - arrived;
        ++sent.stalls;
        last_progress = now;
      } else {
        nap(10000);
      }
      continue;
    }
    const int n = static_cast<int>(std::min<std::uint64_t>(batch, limit - sent.datagrams));
    for (int k = 0; k < n; ++k) {
      some[k] = &frames[next];
      if (++next == frames.size()) next = 0;
    }
    out.send(some.data(), n);
    sent.datagrams += static_cast<std::uint64_t>(n);
  }
  return sent;
}

/// Sends o.rate datagrams a second, or as many as it can for a negative rate.
Sent send_paced(std::vector<Frame>& frames, Clock::time_point from, Clock::time_point until) {
  RawSender out;
  std::array<Frame*, batch> some{};
  Sent sent;
  std::size_t next = 0;
  for (;;) {
    const auto now = Clock::now();
    if (now >= until) break;
    if (o.rate > 0) {
      const double due = duration<double>(now - from).count() * o.rate;
      if (static_cast<double>(sent.datagrams) + batch > due) {
        nap(100000);
        continue;
      }
    }
    for (int k = 0; k < batch; ++k) {
      some[k] = &frames[next];
      if (++next == frames.size()) next = 0;
    }
    out.send(some.data(), batch);
    sent.datagrams += batch;
  }
  return sent;
}

struct Receiver {  // of the inner or the outer host, until stopped
  std::thread thread;
  Receiver(const std::string& ns, std::vector<std::uint16_t> ports,
           std::function<void(const unsigned char*, std::size_t, const sockaddr_in&)> each = {}) {
    const int before = ready.load();
    thread = in_ns(ns, [ports = std::move(ports), each = std::move(each)] {
      std::vector<int> sockets;
      for (const std::uint16_t port : ports) sockets.push_back(udp_socket(in_addr{INADDR_ANY}, port));
      receive_until_stopped(sockets, each);
      for (const int fd : sockets) ::close(fd);
    });
    while (ready.load() == before) nap(1000000);
  }
  void finish() {
    stop = true;
    thread.join();
    stop = false;
  }
};

std::vector<std::uint16_t> inner_ports() {
  std::vector<std::uint16_t> ports;
  for (std::uint32_t flow = 0; flow < o.flows; flow += o.sources) ports.push_back(inner_port(flow));
  return ports;
}

std::vector<Frame> outbound_frames() {
  std::vector<Frame> frames;
  for (std::uint32_t flow = 0; flow < o.flows; ++flow)
    frames.push_back(make_frame(inner_address(flow), inner_port(flow), o.wan, far_port, flow));
  return frames;
}

/// Sends each flow's first datagram out and notes the external endpoint the outer host saw it come from.
std::vector<sockaddr_in> open_mappings(std::vector<Frame>& outbound) {
  std::vector<sockaddr_in> seen(o.flows);
  Receiver outer{
      o.wan_ns, {far_port}, [&](const unsigned char* at, std::size_t size, const sockaddr_in& from) {
        if (size >= 4 && get32(at) < o.flows) seen[get32(at)] = from;
      }};
  for (int attempt = 0; attempt < 5; ++attempt) {
    std::vector<Frame> missing;
    for (std::uint32_t flow = 0; flow < o.flows; ++flow)
      if (seen[flow].sin_port == 0) missing.push_back(outbound[flow]);
    if (missing.empty()) break;
    std::thread inner = in_ns(o.lan_ns, [&] {
      send_windowed(missing, Clock::now() + std::chrono::seconds{5}, missing.size());
      nap(50000000);
    });
    inner.join();
  }
  outer.finish();
  for (const auto& endpoint : seen)
    if (endpoint.sin_port == 0) {
      std::fprintf(stderr, "bench_packets: some flows never reached the outer host\n");
      std::exit(1);
    }
  return seen;
}

int stream() {
  std::vector<Frame> frames = outbound_frames();
  const std::vector<sockaddr_in> external = open_mappings(frames);
  if (o.inbound) {
    for (std::uint32_t flow = 0; flow < o.flows; ++flow)
      frames[flow] =
          make_frame(o.wan, far_port, external[flow].sin_addr, ntohs(external[flow].sin_port), flow);
  }
  Receiver receiver{o.inbound ? o.lan_ns : o.wan_ns,
                    o.inbound ? inner_ports() : std::vector<std::uint16_t>{far_port}};
  Sent sent;
  double moving = 0, daemon = 0, wall = 0;
  std::uint64_t got = 0;
  std::thread sender = in_ns(o.inbound ? o.wan_ns : o.lan_ns, [&] {
    const auto from = Clock::now();
    const auto until = from + std::chrono::duration_cast<Clock::duration>(duration<double>(o.seconds));
    const double moving_before = moving_seconds(), daemon_before = process_seconds(o.daemon);
    const std::uint64_t before = received.load();
    sent = o.rate == 0 ? send_windowed(frames, until, ~0ULL) : send_paced(frames, from, until);
    const auto end = Clock::now();
    got = received.load() - before;
    moving = moving_seconds() - moving_before;
    daemon = process_seconds(o.daemon) - daemon_before;
    wall = duration<double>(end - from).count();
  });
  sender.join();
  receiver.finish();
  const double packets = got ? static_cast<double>(got) : 1;
  std::printf(
      "{\"command\":\"stream\",\"direction\":\"%s\",\"sent\":%llu,\"received\":%llu,\"stalls\":%llu,"
      "\"seconds\":%.4f,"
      "\"rate\":%.0f,\"cpu_us_per_packet\":%.4f,\"daemon_us_per_packet\":%.4f}\n",
      o.inbound ? "in" : "out", static_cast<unsigned long long>(sent.datagrams),
      static_cast<unsigned long long>(got), static_cast<unsigned long long>(sent.stalls), wall,
      static_cast<double>(got) / wall, moving * 1e6 / packets, daemon * 1e6 / packets);
  return 0;
}

int mappings() {
  // Ports as hosts choose them: at random, so some hosts want the same one. A fixed seed: every plane gets
  // the same.
  std::mt19937 random{7};
  std::vector<Frame> frames;
  std::vector<bool> used(std::size_t{o.sources} << 16);
  while (frames.size() < o.count) {
    const auto flow = static_cast<std::uint32_t>(frames.size());
    const auto port = static_cast<std::uint16_t>(32768 + random() % 28232);
    const std::size_t key = std::size_t{flow % o.sources} << 16 | port;
    if (used[key]) continue;
    used[key] = true;
    frames.push_back(make_frame(inner_address(flow), port, o.wan, far_port, flow));
  }
  Receiver receiver{o.wan_ns, {far_port}};
  Sent sent;
  std::int64_t from = 0;
  std::thread sender = in_ns(o.lan_ns, [&] {
    from = now_ns();
    sent = send_windowed(frames, Clock::now() + std::chrono::seconds{30}, frames.size());
    nap(100000000);
  });
  sender.join();
  receiver.finish();
  const double wall = static_cast<double>(last_received_ns.load() - from) * 1e-9;
  std::printf(
      "{\"command\":\"mappings\",\"sent\":%llu,\"received\":%llu,\"stalls\":%llu,\"seconds\":%.4f,\"rate\":%."
      "0f}\n",
      static_cast<unsigned long long>(sent.datagrams), static_cast<unsigned long long>(received.load()),
      static_cast<unsigned long long>(sent.stalls), wall, static_cast<double>(received.load()) / wall);
  return 0;
}

int hold_flows() {
  if (o.far.s_addr == 0) usage("flows needs --far");
  std::vector<Frame> frames;
  for (std::uint32_t k = 0; k < o.count; ++k) {
    const std::uint32_t endpoint = k % o.flows;
    frames.push_back(make_frame(inner_address(endpoint), inner_port(endpoint),
                                in_addr{htonl(ntohl(o.far.s_addr) + k / o.flows)}, far_port, k));
  }
  Receiver receiver{o.wan_ns, {far_port}};
  std::int64_t from = 0;
  std::thread sender = in_ns(o.lan_ns, [&] {
    from = now_ns();
    send_windowed(frames, Clock::now() + std::chrono::seconds{60}, frames.size());
    nap(100000000);
  });
  sender.join();
  receiver.finish();
  const double wall = static_cast<double>(last_received_ns.load() - from) * 1e-9;
  std::printf("{\"command\":\"flows\",\"sent\":%u,\"received\":%llu,\"rate\":%.0f}\n", o.count,
              static_cast<unsigned long long>(received.load()), static_cast<double>(received.load()) / wall);
  return 0;
}

int round_trips() {
  std::atomic<bool> up{false}, over{false};
  std::thread outer = in_ns(o.wan_ns, [&] {
    const int fd = udp_socket(in_addr{INADDR_ANY}, far_port);
    const timeval wait{0, 50000};
    ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    up = true;
    std::array<unsigned char, 64> bytes{};
    sockaddr_in from{};
    while (!over) {
      socklen_t size = sizeof from;
      const ssize_t n =
          ::recvfrom(fd, bytes.data(), bytes.size(), 0, reinterpret_cast<sockaddr*>(&from), &size);
      if (n > 0)
        ::sendto(fd, bytes.data(), static_cast<std::size_t>(n), 0, reinterpret_cast<sockaddr*>(&from), size);
    }
    ::close(fd);
  });
  while (!up) nap(1000000);
  std::vector<double> us;
  std::uint32_t lost = 0;
  std::thread inner = in_ns(o.lan_ns, [&] {
    const int fd = udp_socket(o.lan, first_inner_port);
    const timeval wait{0, 200000};
    ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(far_port);
    to.sin_addr = o.wan;
    if (::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to) != 0) die("connect");
    std::array<unsigned char, 32> bytes{};
    for (std::uint32_t k = 0; k < o.count + 200; ++k) {
      put32(bytes.data(), k);
      const auto began = Clock::now();
      if (::send(fd, bytes.data(), bytes.size(), 0) < 0) continue;
      std::array<unsigned char, 32> answer{};
      ssize_t n = 0;
      while ((n = ::recv(fd, answer.data(), answer.size(), 0)) > 0 && get32(answer.data()) != k) {
      }
      if (n <= 0) {
        if (++lost > 20) break;
      } else if (k >= 200) {  // the first ones warm up
        us.push_back(duration<double, std::micro>(Clock::now() - began).count());
      }
    }
    ::close(fd);
  });
  inner.join();
  over = true;
  outer.join();
  std::sort(us.begin(), us.end());
  const auto at = [&](double q) {
    return us.empty()
               ? 0.0
               : us[std::min(us.size() - 1, static_cast<std::size_t>(q * static_cast<double>(us.size())))];
  };
  std::printf("{\"command\":\"rtt\",\"count\":%zu,\"lost\":%u,\"p50_us\":%.1f,\"p99_us\":%.1f}\n", us.size(),
              lost, at(0.5), at(0.99));
  return us.empty() ? 1 : 0;
}

int connects() {
  std::atomic<bool> up{false}, over{false};
  std::thread outer = in_ns(o.wan_ns, [&] {
    const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    const int one = 1;
    ::setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    sockaddr_in name{};
    name.sin_family = AF_INET;
    name.sin_port = htons(far_port);
    if (::bind(listener, reinterpret_cast<sockaddr*>(&name), sizeof name) != 0 ||
        ::listen(listener, 4096) != 0)
      die("listen");
    const int epoll = ::epoll_create1(EPOLL_CLOEXEC);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = listener;
    ::epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    up = true;
    std::array<epoll_event, 64> events{};
    while (!over) {
      const int n = ::epoll_wait(epoll, events.data(), static_cast<int>(events.size()), 20);
      for (int k = 0; k < n; ++k) {
        const int fd = events[k].data.fd;
        if (fd == listener) {
          for (int next = 0;
               (next = ::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
            event.data.fd = next;
            ::epoll_ctl(epoll, EPOLL_CTL_ADD, next, &event);
          }
          continue;
        }
        char octet = 0;
        const ssize_t got = ::recv(fd, &octet, 1, 0);
        if (got == 1)
          ::send(fd, &octet, 1, MSG_NOSIGNAL);
        else if (got == 0 || errno != EAGAIN)
          ::close(fd);
      }
    }
    ::close(epoll);
    ::close(listener);
  });
  while (!up) nap(1000000);
  std::uint32_t done = 0, failed = 0, slow = 0;
  double wall = 0, most_of_wall = 0;  // most: 99 of 100; one lost SYN costs a second, which is no rate
  std::thread inner = in_ns(o.lan_ns, [&] {
    const int epoll = ::epoll_create1(EPOLL_CLOEXEC);
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(far_port);
    to.sin_addr = o.wan;
    std::uint32_t started = 0, open = 0;
    std::vector<Clock::time_point> since(65536);  // by descriptor
    const auto begin = [&] {
      const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
      const int one = 1;
      ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
      ::setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
      ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
      sockaddr_in name{};
      name.sin_family = AF_INET;
      name.sin_addr = inner_address(started);
      ++started;
      epoll_event event{};
      event.events = EPOLLIN | EPOLLOUT;
      event.data.fd = fd;
      if (fd < 0 || ::bind(fd, reinterpret_cast<sockaddr*>(&name), sizeof name) != 0 ||
          (::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to) != 0 && errno != EINPROGRESS) ||
          ::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
        ++failed;
        if (fd >= 0) ::close(fd);
        return;
      }
      ++open;
      since[static_cast<std::size_t>(fd) % since.size()] = Clock::now();
    };
    const auto began = Clock::now();
    std::array<epoll_event, 64> events{};
    while (true) {
      while (open < o.parallel && started < o.count) begin();
      if (open == 0) break;
      const int n = ::epoll_wait(epoll, events.data(), static_cast<int>(events.size()), 3000);
      if (n == 0 || Clock::now() - began > std::chrono::seconds{60}) {
        failed += open;
        break;
      }
      for (int k = 0; k < n; ++k) {
        const int fd = events[k].data.fd;
        if (events[k].events & (EPOLLERR | EPOLLHUP)) {
          ++failed;
        } else if (events[k].events & EPOLLIN) {
          char octet = 0;
          if (::recv(fd, &octet, 1, 0) != 1) {
            ++failed;
          } else if (++done == o.count - o.count / 100) {
            most_of_wall = duration<double>(Clock::now() - began).count();
          }
        } else {
          epoll_event event{};
          event.events = EPOLLIN;
          event.data.fd = fd;
          ::epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event);
          if (::send(fd, "x", 1, MSG_NOSIGNAL) == 1) continue;
          ++failed;
        }
        if (Clock::now() - since[static_cast<std::size_t>(fd) % since.size()] >
            std::chrono::milliseconds{900})
          ++slow;
        ::close(fd);
        --open;
      }
    }
    wall = duration<double>(Clock::now() - began).count();
    ::close(epoll);
  });
  inner.join();
  over = true;
  outer.join();
  if (most_of_wall == 0) most_of_wall = wall;
  std::printf(
      "{\"command\":\"connects\",\"done\":%u,\"failed\":%u,\"slow\":%u,\"seconds\":%.4f,\"rate\":%.0f}\n",
      done, failed, slow, wall, std::min<double>(done, o.count - o.count / 100) / most_of_wall);
  return done == 0 ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  parse(argc, argv);
  if (o.command == "stream") return stream();
  if (o.command == "mappings") return mappings();
  if (o.command == "connects") return connects();
  if (o.command == "rtt") return round_trips();
  if (o.command == "flows") return hold_flows();
  usage("unknown command");
}
