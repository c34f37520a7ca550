// Asks a gateway for leases by PCP (RFC 6887) or NAT-PMP (RFC 6886), from many source addresses, a fixed
// number of requests in flight, checks every answer and prints one JSON object: rate and latency percentiles.
// One socket and one thread: the source address of each request is set by IP_PKTINFO, requests leave by
// sendmmsg and answers come by recvmmsg, so the generator takes little of the two cores it shares with what
// it measures.
//
// Lease i is internal port port_of(i) of source i % sources, UDP for even i and TCP for odd i; its nonce is a
// function of i. So a later run renews or deletes what an earlier one was granted, without a file between
// them.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
constexpr int batch = 64;
constexpr std::uint16_t first_port = 1024;
constexpr std::uint32_t no_slot = ~0U;

struct Options {
  in_addr server{};
  in_addr first_source{};
  std::uint32_t sources = 128;
  bool pcp = true;
  std::string op = "grant";
  std::string suggest = "same";
  std::uint32_t first = 0;
  std::uint32_t count = 1000;
  std::uint32_t in_flight = 64;
  std::uint32_t lifetime = 7200;
  std::chrono::milliseconds timeout{1000};
  std::uint32_t tries = 6;
  double max_seconds = 0;  // 0: no limit
};

[[noreturn]] void usage(const char* why) {
  std::fprintf(stderr,
               "bench_load: %s\n"
               "bench_load --server A --first-source A [--sources N] [--protocol pcp|natpmp]\n"
               "  [--op grant|renew|delete|churn] [--first I] [--count N] [--in-flight K] [--lifetime S]\n"
               "  [--suggest same|none] [--timeout-ms N] [--tries N] [--max-seconds S]\n",
               why);
  std::exit(2);
}

Options parse(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; i += 2) {
    const std::string_view key = argv[i];
    if (i + 1 >= argc) usage("an option lacks its value");
    const char* value = argv[i + 1];
    const auto number = [&] { return static_cast<std::uint32_t>(std::strtoul(value, nullptr, 10)); };
    if (key == "--server") {
      if (inet_pton(AF_INET, value, &o.server) != 1) usage("--server wants an IPv4 address");
    } else if (key == "--first-source") {
      if (inet_pton(AF_INET, value, &o.first_source) != 1) usage("--first-source wants an IPv4 address");
    } else if (key == "--sources") {
      o.sources = number();
    } else if (key == "--protocol") {
      o.pcp = std::string_view{value} == "pcp";
    } else if (key == "--op") {
      o.op = value;
    } else if (key == "--suggest") {
      o.suggest = value;
    } else if (key == "--first") {
      o.first = number();
    } else if (key == "--count") {
      o.count = number();
    } else if (key == "--in-flight") {
      o.in_flight = number();
    } else if (key == "--lifetime") {
      o.lifetime = number();
    } else if (key == "--timeout-ms") {
      o.timeout = std::chrono::milliseconds{number()};
    } else if (key == "--tries") {
      o.tries = number();
    } else if (key == "--max-seconds") {
      o.max_seconds = std::strtod(value, nullptr);
    } else {
      usage("unknown option");
    }
  }
  if (o.server.s_addr == 0 || o.first_source.s_addr == 0) usage("--server and --first-source are needed");
  if (o.sources == 0 || o.in_flight == 0 || o.tries == 0) usage("a number is 0");
  return o;
}

/// Distinct ports from 1024 up, without those a gateway uses itself (UPnP, NAT-PMP, PCP; POL-TGT-05).
std::vector<std::uint16_t> make_ports() {
  std::vector<std::uint16_t> ports;
  for (std::uint32_t p = first_port; p < 65000; ++p)
    if (p != 1900 && p != 5000 && p != 5350 && p != 5351) ports.push_back(static_cast<std::uint16_t>(p));
  return ports;
}

void put16(unsigned char* at, std::uint32_t v) {
  at[0] = static_cast<unsigned char>(v >> 8);
  at[1] = static_cast<unsigned char>(v);
}
void put32(unsigned char* at, std::uint32_t v) {
  put16(at, v >> 16);
  put16(at + 2, v & 0xffff);
}
std::uint16_t get16(const unsigned char* at) { return static_cast<std::uint16_t>(at[0] << 8 | at[1]); }

void put_nonce(unsigned char* at, std::uint32_t i) {
  std::uint64_t x = i + 0x9e3779b97f4a7c15ULL;
  for (int word = 0; word < 3; ++word) {
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9ULL;
    x ^= x >> 27;
    put32(at + word * 4, static_cast<std::uint32_t>(x >> 16));
  }
}

class Load {
 public:
  explicit Load(const Options& options) : o_{options}, ports_{make_ports()} {
    if (o_.first + o_.count > ports_.size()) usage("--first + --count is more than there are ports");
    index_of_port_.assign(65536, no_slot);
    for (std::uint32_t k = 0; k < ports_.size(); ++k) index_of_port_[ports_[k]] = k;
    slot_of_.assign(ports_.size(), no_slot);
    slots_.resize(o_.in_flight);
    for (std::uint32_t k = o_.in_flight; k-- > 0;) free_.push_back(k);
    socket_ = ::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (socket_ < 0) fail("socket");
    const int one = 1;
    const int room = 8 << 20;
    ::setsockopt(socket_, IPPROTO_IP, IP_PKTINFO, &one, sizeof one);
    ::setsockopt(socket_, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    const timeval wait{0, 5000};
    ::setsockopt(socket_, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    server_.sin_family = AF_INET;
    server_.sin_port = htons(5351);
    server_.sin_addr = o_.server;
    latencies_.reserve(o_.count * 2);
  }

  int run() {
    began_ = Clock::now();
    next_ = o_.first;
    const std::uint32_t end = o_.first + o_.count;
    for (;;) {
      const auto now = Clock::now();
      if (o_.max_seconds > 0 && std::chrono::duration<double>(now - began_).count() > o_.max_seconds)
        stopped_ = true;
      while (!free_.empty() && (!again_.empty() || (next_ < end && !stopped_))) start_one(now);
      flush();
      if (busy() == 0) break;
      receive();
      check_timeouts();
    }
    return report();
  }

 private:
  struct Slot {
    bool used = false;
    bool releasing = false;
    std::uint32_t index = 0;
    std::uint32_t tries = 0;
    Clock::time_point first_sent;
    Clock::time_point last_sent;
  };

  [[noreturn]] static void fail(const char* what) {
    std::fprintf(stderr, "bench_load: %s: %s\n", what, std::strerror(errno));
    std::exit(1);
  }
  std::size_t busy() const { return slots_.size() - free_.size(); }

  void start_one(Clock::time_point now) {
    const std::uint32_t k = free_.back();
    free_.pop_back();
    Slot& slot = slots_[k];
    slot = Slot{};
    slot.used = true;
    if (!again_.empty()) {  // churn: given up just now, asked for again
      slot.index = again_.front();
      again_.pop_front();
    } else {
      slot.index = next_++;
      slot.releasing = o_.op == "delete" || o_.op == "churn";
    }
    slot_of_[slot.index] = k;
    slot.first_sent = now;
    queue(k, now);
  }

  std::size_t encode(const Slot& slot, unsigned char* at) const {
    const std::uint32_t i = slot.index;
    const bool tcp = i % 2 == 1;
    const std::uint16_t port = ports_[i];
    const std::uint32_t suggested = slot.releasing || o_.suggest == "none" ? 0 : port;
    const std::uint32_t lifetime = slot.releasing ? 0 : o_.lifetime;
    std::memset(at, 0, 60);
    if (!o_.pcp) {
      at[1] = tcp ? 2 : 1;
      put16(at + 4, port);
      put16(at + 6, suggested);
      put32(at + 8, lifetime);
      return 12;
    }
    at[0] = 2;
    at[1] = 1;
    put32(at + 4, lifetime);
    at[18] = at[19] = 0xff;
    const in_addr source = source_of(i);
    std::memcpy(at + 20, &source, 4);
    put_nonce(at + 24, i);
    at[36] = tcp ? 6 : 17;
    put16(at + 40, port);
    put16(at + 42, suggested);
    at[54] = at[55] = 0xff;
    return 60;
  }

  in_addr source_of(std::uint32_t i) const {
    return in_addr{htonl(ntohl(o_.first_source.s_addr) + i % o_.sources)};
  }

  void queue(std::uint32_t k, Clock::time_point now) {
    if (queued_ == batch) flush();
    Slot& slot = slots_[k];
    slot.last_sent = now;
    ++slot.tries;
    auto& out = out_[queued_];
    iovec& part = parts_[queued_];
    part = {out.bytes.data(), encode(slot, out.bytes.data())};
    msghdr& header = messages_[queued_].msg_hdr;
    header = {};
    header.msg_name = &server_;
    header.msg_namelen = sizeof server_;
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = out.control.data();
    header.msg_controllen = out.control.size();
    cmsghdr* control = CMSG_FIRSTHDR(&header);
    control->cmsg_level = IPPROTO_IP;
    control->cmsg_type = IP_PKTINFO;
    control->cmsg_len = CMSG_LEN(sizeof(in_pktinfo));
    in_pktinfo info{};
    info.ipi_spec_dst = source_of(slot.index);
    std::memcpy(CMSG_DATA(control), &info, sizeof info);
    ++queued_;
  }

  void flush() {
    int sent = 0;
    while (sent < queued_) {
      const int n = ::sendmmsg(socket_, messages_.data() + sent, static_cast<unsigned>(queued_ - sent), 0);
      if (n > 0) {
        sent += n;
      } else if (errno != EINTR && errno != ECONNREFUSED && errno != ENOBUFS) {
        fail("sendmmsg");
      }
    }
    queued_ = 0;
  }

  void receive() {
    struct In {
      std::array<unsigned char, 1100> bytes;
      alignas(cmsghdr) std::array<unsigned char, CMSG_SPACE(sizeof(in_pktinfo))> control;
    };
    static std::array<In, batch> in;
    std::array<iovec, batch> parts{};
    std::array<mmsghdr, batch> messages{};
    for (int k = 0; k < batch; ++k) {
      parts[k] = {in[k].bytes.data(), in[k].bytes.size()};
      messages[k].msg_hdr.msg_iov = &parts[k];
      messages[k].msg_hdr.msg_iovlen = 1;
      messages[k].msg_hdr.msg_control = in[k].control.data();
      messages[k].msg_hdr.msg_controllen = in[k].control.size();
    }
    const int n = ::recvmmsg(socket_, messages.data(), batch, MSG_WAITFORONE, nullptr);
    if (n < 0) {
      if (errno == EAGAIN || errno == EINTR || errno == ECONNREFUSED) return;
      fail("recvmmsg");
    }
    const auto now = Clock::now();
    for (int k = 0; k < n; ++k) {
      in_addr to{};
      const cmsghdr* control = CMSG_FIRSTHDR(&messages[k].msg_hdr);
      if (control != nullptr && control->cmsg_type == IP_PKTINFO) {
        in_pktinfo info{};
        std::memcpy(&info, CMSG_DATA(control), sizeof info);
        to = info.ipi_addr;
      }
      handle(in[k].bytes.data(), messages[k].msg_len, to, now);
    }
  }

  void handle(const unsigned char* at, std::size_t size, in_addr to, Clock::time_point now) {
    std::uint32_t code = 0;
    std::uint16_t internal = 0;
    std::uint16_t external = 0;
    bool tcp = false;
    if (o_.pcp) {
      if (size < 60 || at[0] != 2 || at[1] != 0x81) return ++strange_, void();
      code = at[3];
      internal = get16(at + 40);
      external = get16(at + 42);
      tcp = at[36] == 6;
    } else {
      if (size < 8 || at[0] != 0 || (at[1] != 129 && at[1] != 130)) return ++strange_, void();
      code = get16(at + 2);
      if (size < 16) return ++strange_, void();
      tcp = at[1] == 130;
      internal = get16(at + 8);
      external = get16(at + 10);
    }
    const std::uint32_t i = index_of_port_[internal];
    if (i == no_slot) return ++strange_, void();
    if (slot_of_[i] == no_slot) return ++late_, void();  // a second answer to a retransmitted request
    Slot& slot = slots_[slot_of_[i]];
    if (o_.pcp) {
      std::array<unsigned char, 12> nonce{};
      put_nonce(nonce.data(), i);
      if (std::memcmp(nonce.data(), at + 24, 12) != 0) return ++strange_, void();
    }
    if (tcp != (i % 2 == 1) || (to.s_addr != source_of(i).s_addr)) return ++strange_, void();
    // An answer with lifetime 0 is one to a deletion; the other kind is late.
    const std::uint32_t lifetime =
        static_cast<std::uint32_t>(get16(at + (o_.pcp ? 4 : 12))) << 16 | get16(at + (o_.pcp ? 6 : 14));
    if (code == 0 && (lifetime == 0) != slot.releasing) return ++late_, void();
    latencies_.push_back(
        static_cast<float>(std::chrono::duration<double, std::micro>(now - slot.first_sent).count()));
    if (code != 0) {
      ++refused_[code];
    } else {
      ++ok_;
      if (!slot.releasing && o_.suggest == "same" && external != ports_[i]) ++other_port_;
      if (slot.releasing && o_.op == "churn") again_.push_back(i);
    }
    last_answer_ = now;
    release(slot);
  }

  void release(Slot& slot) {
    const std::uint32_t k = slot_of_[slot.index];
    slot_of_[slot.index] = no_slot;
    slot.used = false;
    free_.push_back(k);
  }

  void check_timeouts() {
    const auto now = Clock::now();
    if (now - last_check_ < std::chrono::milliseconds{5}) return;
    last_check_ = now;
    for (std::uint32_t k = 0; k < slots_.size(); ++k) {
      Slot& slot = slots_[k];
      if (!slot.used || now - slot.last_sent < o_.timeout) continue;
      if (slot.tries >= o_.tries) {
        ++lost_;
        release(slot);
      } else {
        ++retransmitted_;
        queue(k, now);
      }
    }
  }

  int report() {
    const double seconds = ok_ ? std::chrono::duration<double>(last_answer_ - began_).count() : 0;
    std::sort(latencies_.begin(), latencies_.end());
    const auto at = [&](double q) -> double {
      if (latencies_.empty()) return 0;
      return latencies_[std::min(latencies_.size() - 1,
                                 static_cast<std::size_t>(q * static_cast<double>(latencies_.size())))];
    };
    std::string refused;
    for (const auto& [code, n] : refused_)
      refused += (refused.empty() ? "\"" : ",\"") + std::to_string(code) + "\":" + std::to_string(n);
    std::printf(
        "{\"op\":\"%s\",\"protocol\":\"%s\",\"first\":%u,\"next\":%u,\"in_flight\":%u,\"ok\":%llu,"
        "\"refused\":{%s},\"lost\":%llu,"
        "\"retransmitted\":%llu,\"late\":%llu,\"strange\":%llu,\"other_port\":%llu,\"seconds\":%.6f,\"rate\":"
        "%.1f,"
        "\"p50_us\":%.1f,\"p90_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f}\n",
        o_.op.c_str(), o_.pcp ? "pcp" : "natpmp", o_.first, next_, o_.in_flight, ok_, refused.c_str(), lost_,
        retransmitted_, late_, strange_, other_port_, seconds,
        seconds > 0 ? static_cast<double>(ok_) / seconds : 0, at(0.5), at(0.9), at(0.99),
        latencies_.empty() ? 0.0 : static_cast<double>(latencies_.back()));
    return lost_ == 0 && refused_.empty() && strange_ == 0 ? 0 : 1;
  }

  struct Out {
    std::array<unsigned char, 60> bytes;
    alignas(cmsghdr) std::array<unsigned char, CMSG_SPACE(sizeof(in_pktinfo))> control;
  };

  Options o_;
  std::vector<std::uint16_t> ports_;
  std::vector<std::uint32_t> index_of_port_;
  std::vector<std::uint32_t> slot_of_;
  std::vector<Slot> slots_;
  std::vector<std::uint32_t> free_;
  std::deque<std::uint32_t> again_;
  std::array<Out, batch> out_{};
  std::array<iovec, batch> parts_{};
  std::array<mmsghdr, batch> messages_{};
  int queued_ = 0;
  int socket_ = -1;
  sockaddr_in server_{};
  std::uint32_t next_ = 0;
  bool stopped_ = false;
  Clock::time_point began_;
  Clock::time_point last_answer_;
  Clock::time_point last_check_;
  std::vector<float> latencies_;
  std::map<std::uint32_t, std::uint64_t> refused_;
  unsigned long long ok_ = 0, lost_ = 0, retransmitted_ = 0, late_ = 0, strange_ = 0, other_port_ = 0;
};

}  // namespace

int main(int argc, char** argv) { return Load{parse(argc, argv)}.run(); }
