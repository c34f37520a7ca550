#include "tun_lab.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>

namespace sallyport::nat::testing {
namespace {

constexpr auto patience = std::chrono::seconds{5};

std::uint16_t read16(const std::uint8_t* at) { return static_cast<std::uint16_t>(at[0] << 8 | at[1]); }
std::uint32_t read32(const std::uint8_t* at) { return std::uint32_t{read16(at)} << 16 | read16(at + 2); }
void put16(std::uint8_t* at, std::uint32_t value) {
  at[0] = static_cast<std::uint8_t>(value >> 8);
  at[1] = static_cast<std::uint8_t>(value);
}
void put32(std::uint8_t* at, std::uint32_t value) {
  put16(at, value >> 16);
  put16(at + 2, value);
}

std::uint32_t sum_of(const std::uint8_t* at, std::size_t size, std::uint32_t sum = 0) {
  for (std::size_t i = 0; i + 1 < size; i += 2) sum += read16(at + i);
  if (size % 2) sum += std::uint32_t{at[size - 1]} << 8;
  return sum;
}
std::uint16_t folded(std::uint32_t sum) {
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(~sum);
}
std::uint32_t pseudo(const std::uint8_t* packet, std::size_t transport) {
  return sum_of(packet + 12, 8, packet[9] + static_cast<std::uint32_t>(transport));
}

[[noreturn]] void fail(const std::string& what) {
  throw std::runtime_error{what + ": " + std::strerror(errno)};
}

int own_netns() {
  const int fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail("open own namespace");
  return fd;
}

}  // namespace

std::uint32_t ip(const char* text) {
  in_addr address{};
  if (inet_pton(AF_INET, text, &address) != 1) throw std::runtime_error{text};
  return ntohl(address.s_addr);
}
std::string dotted(std::uint32_t address) { return Address::v4(address).to_string(); }

Bytes Wire::bytes() const {
  Bytes transport;
  if (fragment_offset != 0) {
    transport = payload;
  } else if (protocol == 17) {
    transport.resize(8);
    put16(&transport[0], sport);
    put16(&transport[2], dport);
    transport.insert(transport.end(), payload.begin(), payload.end());
    put16(&transport[4], static_cast<std::uint32_t>(transport.size()));
  } else if (protocol == 6) {
    transport.resize(20);
    put16(&transport[0], sport);
    put16(&transport[2], dport);
    put32(&transport[4], seq);
    put32(&transport[8], ack);
    transport[12] = 0x50;
    transport[13] = tcp_flags;
    put16(&transport[14], 65535);
    transport.insert(transport.end(), payload.begin(), payload.end());
  } else if (protocol == 1) {
    transport.resize(8);
    transport[0] = icmp_type;
    transport[1] = icmp_code;
    put16(&transport[4], sport);
    transport.insert(transport.end(), payload.begin(), payload.end());
  } else {
    transport = payload;
  }
  Bytes packet(20);
  packet[0] = 0x45;
  put16(&packet[2], static_cast<std::uint32_t>(20 + transport.size()));
  put16(&packet[4], id);
  put16(&packet[6], (df ? 0x4000u : 0) | (more_fragments ? 0x2000u : 0) | fragment_offset / 8u);
  packet[8] = ttl;
  packet[9] = protocol;
  put32(&packet[12], src);
  put32(&packet[16], dst);
  put16(&packet[10], folded(sum_of(packet.data(), 20)));
  if (fragment_offset == 0) {
    const std::size_t size = transport.size();
    if (protocol == 17) {
      const std::uint16_t sum = folded(sum_of(transport.data(), size, pseudo(packet.data(), size)));
      put16(&transport[6], sum ? sum : 0xffff);
    }
    if (protocol == 6)
      put16(&transport[16], folded(sum_of(transport.data(), size, pseudo(packet.data(), size))));
    if (protocol == 1) put16(&transport[2], folded(sum_of(transport.data(), size)));
  }
  packet.insert(packet.end(), transport.begin(), transport.end());
  return packet;
}

std::optional<Wire> Wire::parse(const std::uint8_t* data, std::size_t size) {
  if (size < 20 || data[0] >> 4 != 4) return std::nullopt;
  const std::size_t header = static_cast<std::size_t>(data[0] & 15) * 4;
  const std::size_t total = read16(data + 2);
  if (header < 20 || total < header || total > size) return std::nullopt;
  Wire wire;
  wire.id = read16(data + 4);
  wire.df = data[6] & 0x40;
  wire.more_fragments = data[6] & 0x20;
  wire.fragment_offset = static_cast<std::uint16_t>((read16(data + 6) & 0x1fff) * 8);
  wire.ttl = data[8];
  wire.protocol = data[9];
  wire.src = read32(data + 12);
  wire.dst = read32(data + 16);
  wire.sums_right = folded(sum_of(data, header)) == 0;
  const std::uint8_t* transport = data + header;
  const std::size_t length = total - header;
  std::size_t skip = 0;
  if (wire.fragment_offset == 0) {
    const bool whole = !wire.more_fragments;
    if (wire.protocol == 17 && length >= 8) {
      skip = 8;
      wire.sport = read16(transport);
      wire.dport = read16(transport + 2);
      if (whole && read16(transport + 6) != 0)
        wire.sums_right &= folded(sum_of(transport, length, pseudo(data, length))) == 0;
    } else if (wire.protocol == 6 && length >= 20) {
      skip = static_cast<std::size_t>(transport[12] >> 4) * 4;
      wire.sport = read16(transport);
      wire.dport = read16(transport + 2);
      wire.seq = read32(transport + 4);
      wire.ack = read32(transport + 8);
      wire.tcp_flags = transport[13];
      if (whole) wire.sums_right &= folded(sum_of(transport, length, pseudo(data, length))) == 0;
    } else if (wire.protocol == 1 && length >= 8) {
      skip = 8;
      wire.icmp_type = transport[0];
      wire.icmp_code = transport[1];
      wire.sport = read16(transport + 4);
      if (whole) wire.sums_right &= folded(sum_of(transport, length)) == 0;
    }
  }
  if (skip > length) return std::nullopt;
  wire.payload.assign(transport + skip, transport + length);
  const auto* octets = reinterpret_cast<const std::byte*>(data);
  wire.octets.assign(octets, octets + total);
  return wire;
}

std::string Wire::says() const {
  std::ostringstream out;
  out << dotted(src) << ':' << sport << " > " << dotted(dst) << ':' << dport << " protocol " << int{protocol}
      << " ttl " << int{ttl};
  if (protocol == 6) out << " flags " << int{tcp_flags};
  if (protocol == 1) out << " type " << int{icmp_type} << '/' << int{icmp_code};
  if (fragment_offset || more_fragments) out << " fragment at " << fragment_offset;
  out << (sums_right ? "" : " BAD SUM");
  return out.str();
}

Wire udp(const char* src, std::uint16_t sport, const char* dst, std::uint16_t dport,
         const std::string& text) {
  Wire wire;
  wire.src = ip(src);
  wire.dst = ip(dst);
  wire.sport = sport;
  wire.dport = dport;
  wire.payload.assign(text.begin(), text.end());
  return wire;
}
Wire tcp(const char* src, std::uint16_t sport, const char* dst, std::uint16_t dport, std::uint8_t flags) {
  Wire wire = udp(src, sport, dst, dport, "");
  wire.protocol = 6;
  wire.tcp_flags = flags;
  wire.seq = 1000;
  return wire;
}
Wire echo(const char* src, const char* dst, std::uint16_t id, bool reply) {
  Wire wire = udp(src, id, dst, 0);
  wire.protocol = 1;
  wire.icmp_type = reply ? 0 : 8;
  return wire;
}
Wire icmp_error(const char* src, const char* dst, std::uint8_t type, std::uint8_t code, const Wire& packet) {
  Wire wire = udp(src, 0, dst, 0);
  wire.protocol = 1;
  wire.icmp_type = type;
  wire.icmp_code = code;
  wire.payload = packet.bytes();
  return wire;
}

FarEnd::FarEnd(std::string interface, int netns, std::array<std::uint8_t, 6> gateway_mac, std::uint32_t index)
    : interface_{std::move(interface)}, netns_{netns}, gateway_mac_{gateway_mac}, index_{index} {
  inside([&] {
    socket_ = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, htons(ETH_P_IP));
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(ETH_P_IP);
    address.sll_ifindex = static_cast<int>(if_nametoindex("host"));
    const int room = 16 << 20;
    setsockopt(socket_, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    if (socket_ < 0 || bind(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
      fail("packet socket");
  });
}
FarEnd::~FarEnd() {
  close(socket_);
  close(netns_);
}

void FarEnd::inside(const std::function<void()>& work) const {
  const int before = own_netns();
  if (setns(netns_, CLONE_NEWNET) != 0) fail("setns");
  try {
    work();
  } catch (...) {
    setns(before, CLONE_NEWNET);
    close(before);
    throw;
  }
  if (setns(before, CLONE_NEWNET) != 0) fail("setns back");
  close(before);
}

void FarEnd::send(const Wire& packet) const { send(packet.bytes()); }
void FarEnd::send(const Bytes& ip_packet) const {
  Bytes frame(14);
  std::copy(gateway_mac_.begin(), gateway_mac_.end(), frame.begin());
  frame[6] = 2;
  frame[11] = 0x99;
  put16(&frame[12], ETH_P_IP);
  frame.insert(frame.end(), ip_packet.begin(), ip_packet.end());
  if (::send(socket_, frame.data(), frame.size(), 0) != static_cast<ssize_t>(frame.size()))
    fail("send frame");
}

namespace {
/// One packet that came in from the gateway; empty where none is there, or one that is not IPv4.
std::optional<Wire> receive(int socket, bool& any) {
  std::array<std::uint8_t, 70000> frame;
  sockaddr_ll from{};
  socklen_t length = sizeof from;
  const ssize_t size =
      recvfrom(socket, frame.data(), frame.size(), MSG_DONTWAIT, reinterpret_cast<sockaddr*>(&from), &length);
  any = size > 0;
  if (size < 14 || from.sll_pkttype == PACKET_OUTGOING) return std::nullopt;
  return Wire::parse(frame.data() + 14, static_cast<std::size_t>(size) - 14);
}
}  // namespace

std::optional<Wire> FarEnd::await(const std::function<bool(const Wire&)>& wanted,
                                  std::vector<Wire>* others) const {
  const auto end = std::chrono::steady_clock::now() + patience;
  for (;;) {
    bool any = false;
    if (auto wire = receive(socket_, any)) {
      if (wanted(*wire)) return wire;
      if (others) others->push_back(*wire);
    }
    if (any) continue;
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
    if (left.count() <= 0) return std::nullopt;
    pollfd wait{socket_, POLLIN, 0};
    poll(&wait, 1, static_cast<int>(left.count()));
  }
}

std::vector<Wire> FarEnd::drain() const {
  std::vector<Wire> all;
  bool any = true;
  while (any)
    if (auto wire = receive(socket_, any)) all.push_back(*wire);
  return all;
}

void FarEnd::give_stack(const std::string& cidr, const std::string& gateway) const {
  inside([&] {
    run("ip link set lo up");
    run("ip address add " + cidr + " dev host");
    run("ip route add default via " + gateway);
  });
}

std::string run(const std::string& command) {
  FILE* pipe = popen((command + " 2>&1").c_str(), "re");
  if (!pipe) fail(command);
  std::string output;
  std::array<char, 4096> part;
  while (const std::size_t size = fread(part.data(), 1, part.size(), pipe)) output.append(part.data(), size);
  if (pclose(pipe) != 0) throw std::runtime_error{command + ": " + output};
  return output;
}

std::string TunLab::obstacle() {
  if (geteuid() != 0) return "needs root for network namespaces";
  const int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
  if (fd < 0) return std::string{"needs /dev/net/tun: "} + std::strerror(errno);
  close(fd);
  const int home = own_netns();
  if (unshare(CLONE_NEWNET) != 0) {
    close(home);
    return std::string{"needs network namespaces: "} + std::strerror(errno);
  }
  setns(home, CLONE_NEWNET);
  close(home);
  return {};
}

TunLab::TunLab() : home_{own_netns()} {
  std::string name = std::filesystem::temp_directory_path() / "tun-lab-XXXXXX";
  if (!mkdtemp(name.data())) fail(name);
  directory_ = name;
  std::array<int, 4> far{};
  for (int& netns : far) {
    if (unshare(CLONE_NEWNET) != 0) fail("unshare");
    netns = own_netns();
  }
  if (unshare(CLONE_NEWNET) != 0) fail("unshare");
  run("ip link set lo up");
  const std::array<std::array<std::string, 2>, 4> links{{{"lan0", "192.168.1.1/24"},
                                                         {"guest0", "192.168.2.1/24"},
                                                         {"wan0", "203.0.113.2/24"},
                                                         {"vpn0", "10.8.0.1/24"}}};
  for (std::size_t i = 0; i < links.size(); ++i) {
    const std::string& interface = links[i][0];
    run("ip link add " + interface + " type veth peer name host netns /proc/" + std::to_string(getpid()) +
        "/fd/" + std::to_string(far[i]));
    {
      const int gateway = own_netns();
      setns(far[i], CLONE_NEWNET);
      std::ofstream{"/proc/sys/net/ipv6/conf/all/disable_ipv6"} << 1;
      run("ip link set host up");
      setns(gateway, CLONE_NEWNET);
      close(gateway);
    }
    std::ofstream{"/proc/sys/net/ipv6/conf/" + interface + "/disable_ipv6"} << 1;
    run("ip link set " + interface + " up && ip address add " + links[i][1] + " dev " + interface);
    ifreq request{};
    interface.copy(request.ifr_name, sizeof request.ifr_name - 1);
    const int any = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (ioctl(any, SIOCGIFHWADDR, &request) != 0) fail("mac");
    close(any);
    std::array<std::uint8_t, 6> mac;
    std::memcpy(mac.data(), request.ifr_hwaddr.sa_data, mac.size());
    ports_.push_back(std::make_unique<FarEnd>(interface, far[i], mac, if_nametoindex(interface.c_str())));
  }
  run("ip route add default via 203.0.113.1");
  neighbours();
}

void TunLab::neighbours() {
  for (const char* host :
       {"192.168.1.10 dev lan0", "192.168.1.11 dev lan0", "192.168.1.12 dev lan0", "192.168.2.10 dev guest0",
        "203.0.113.1 dev wan0", "203.0.113.9 dev wan0", "10.8.0.2 dev vpn0"})
    run(std::string{"ip neigh replace lladdr 02:00:00:00:00:99 nud permanent to "} + host);
}

TunLab::~TunLab() {
  ports_.clear();
  setns(home_, CLONE_NEWNET);
  close(home_);
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

NetworkView TunLab::network() const {
  const auto interface = [&](std::size_t i, const char* address, std::optional<Prefix> prefix) {
    PlaneInterface view;
    view.name = ports_[i]->interface();
    view.index = ports_[i]->index();
    view.up = true;
    view.addresses = {Address::v4(ip(address))};
    if (prefix) view.prefixes = {*prefix};
    return view;
  };
  NetworkView view;
  view.lan = {interface(0, "192.168.1.1", Prefix::v4(ip("192.168.1.0"), 24)),
              interface(1, "192.168.2.1", Prefix::v4(ip("192.168.2.0"), 24))};
  view.wan = {interface(2, "203.0.113.2", std::nullopt)};
  view.external = {Address::v4(ip("203.0.113.2"))};
  view.untranslated = {Prefix::v4(ip("10.8.0.0"), 24)};
  return view;
}

std::string TunLab::state() {
  std::string text = run("ip -4 -d rule show") + run("ip -4 -d route show table all");
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::recursive_directory_iterator{"/proc/sys/net/ipv4"}) {
    const std::string path = entry.path();
    if (entry.is_regular_file() && path.find("fastopen_key") == std::string::npos &&
        path.find("/flush") == std::string::npos)
      files.push_back(path);
  }
  std::sort(files.begin(), files.end());
  for (const std::string& path : files) {
    std::ifstream in{path};
    std::string value;
    std::getline(in, value);
    text += path + " = " + value + '\n';
  }
  return text;
}

}  // namespace sallyport::nat::testing
