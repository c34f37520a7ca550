#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "nat/plane/data_plane.hpp"

/// A gateway in a network namespace of its own, with a host at the far end of each of its interfaces. The
/// hosts have no stack: the test sends and catches their packets as raw frames, unless give_stack() made one.
namespace sallyport::nat::testing {

using Bytes = std::vector<std::uint8_t>;

std::uint32_t ip(const char* dotted);
std::string dotted(std::uint32_t address);

/// One packet, in the fields a translator looks at. Checksums are made on sending and verified on catching.
struct Wire {
  std::uint32_t src = 0, dst = 0;
  std::uint8_t protocol = 17;
  std::uint8_t ttl = 64;
  std::uint16_t sport = 0, dport = 0;  // of ICMP echo: sport is the identifier
  std::uint8_t tcp_flags = 0;
  std::uint32_t seq = 0, ack = 0;
  std::uint8_t icmp_type = 0, icmp_code = 0;
  std::uint16_t id = 1;
  bool df = false, more_fragments = false;
  std::uint16_t fragment_offset = 0;  // in octets; when not 0 the payload is raw
  Bytes payload;
  bool sums_right = true;         // of caught packets
  std::vector<std::byte> octets;  // of caught packets: all of the IP packet

  Bytes bytes() const;
  static std::optional<Wire> parse(const std::uint8_t* data, std::size_t size);
  std::string says() const;
};
Wire udp(const char* src, std::uint16_t sport, const char* dst, std::uint16_t dport,
         const std::string& text = "hello");
Wire tcp(const char* src, std::uint16_t sport, const char* dst, std::uint16_t dport, std::uint8_t flags = 2);
Wire echo(const char* src, const char* dst, std::uint16_t id, bool reply = false);
/// An ICMP error that quotes `packet`, whole.
Wire icmp_error(const char* src, const char* dst, std::uint8_t type, std::uint8_t code, const Wire& packet);

/// The far end of one interface of the gateway.
class FarEnd {
 public:
  FarEnd(std::string interface, int netns, std::array<std::uint8_t, 6> gateway_mac, std::uint32_t index);
  ~FarEnd();
  FarEnd(const FarEnd&) = delete;

  void send(const Wire& packet) const;
  void send(const Bytes& ip_packet) const;
  /// The next IPv4 packet that `wanted` holds for, up to five seconds away; all others go to `others`.
  std::optional<Wire> await(const std::function<bool(const Wire&)>& wanted,
                            std::vector<Wire>* others = nullptr) const;
  /// What came in and was not awaited yet, without waiting.
  std::vector<Wire> drain() const;
  /// Runs with the far end's stack.
  void inside(const std::function<void()>& work) const;
  /// Gives the far end an address and a default route: "192.168.1.20/24".
  void give_stack(const std::string& cidr, const std::string& gateway) const;
  const std::string& interface() const { return interface_; }
  std::uint32_t index() const { return index_; }

 private:
  std::string interface_;
  int netns_;
  int socket_;
  std::array<std::uint8_t, 6> gateway_mac_;
  std::uint32_t index_;
};

/// lan0 192.168.1.1/24, guest0 192.168.2.1/24, wan0 203.0.113.2/24 (default route by .1), vpn0 10.8.0.1/24.
/// The thread that makes it lives in the gateway until it is destroyed.
class TunLab {
 public:
  /// Why it cannot run here; empty: it can.
  static std::string obstacle();
  TunLab();
  ~TunLab();

  FarEnd& lan() { return *ports_[0]; }
  FarEnd& guest() { return *ports_[1]; }
  FarEnd& wan() { return *ports_[2]; }
  FarEnd& vpn() { return *ports_[3]; }

  /// What the daemon would tell of these interfaces.
  NetworkView network() const;
  std::string undo_file() const { return directory_ + "/tun-undo"; }
  /// Tells the gateway the hosts' link addresses, which it forgets with the last address of an interface.
  static void neighbours();
  /// Rules, routes and IPv4 sysctls of the gateway, as text.
  static std::string state();

 private:
  int home_;
  std::string directory_;
  std::vector<std::unique_ptr<FarEnd>> ports_;
};

/// Runs a command in the calling thread's namespaces and returns its output; throws when it fails.
std::string run(const std::string& command);

}  // namespace sallyport::nat::testing
