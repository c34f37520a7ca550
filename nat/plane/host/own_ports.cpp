#include "nat/plane/host/own_ports.hpp"

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "nat/plane/host/attributes.hpp"

namespace sallyport::nat::host {
namespace {

constexpr auto freshness = std::chrono::milliseconds{250};
/// Packets of a connection that is not yet known here are asked about one by one (expects()).
constexpr auto connections_freshness = std::chrono::seconds{30};

constexpr unsigned time_wait = 6, listening = 10;  // TCP_TIME_WAIT, TCP_LISTEN
constexpr std::uint32_t all_states = ~0u, listeners = 1u << listening;
/// Connections that are over wait a minute each, and a busy HTTP port has them by the ten thousand.
constexpr std::uint32_t connections = ~(1u << listening | 1u << time_wait);

boost::system::error_code system_error(int number) { return {number, boost::system::generic_category()}; }

/// The IPv4 address a socket is bound to, 0 for any; empty where it takes no IPv4.
std::optional<std::uint32_t> bound_v4(const inet_diag_msg& socket, bool v6_only) {
  if (socket.idiag_family == AF_INET) return ntohl(socket.id.idiag_src[0]);
  const auto* words = socket.id.idiag_src;
  if (words[0] == 0 && words[1] == 0 && words[2] == htonl(0xffff)) return ntohl(words[3]);
  if (words[0] == 0 && words[1] == 0 && words[2] == 0 && words[3] == 0 && !v6_only) return 0;
  return std::nullopt;
}

using Socket = std::unique_ptr<mnl_socket, int (*)(mnl_socket*)>;

Socket open_diagnostics() {
  Socket socket{mnl_socket_open2(NETLINK_SOCK_DIAG, SOCK_CLOEXEC), mnl_socket_close};
  if (socket && mnl_socket_bind(socket.get(), 0, MNL_SOCKET_AUTOPID) < 0) socket.reset();
  return socket;
}

/// Whether a socket that wants to be alone cannot be bound there. No lookup of a socket tells that: those
/// that are connected answer to their peer alone, those of an interface to its packets alone.
bool is_taken(Transport transport, std::uint32_t address, std::uint16_t port, std::uint32_t interface) {
  const bool tcp = transport == Transport::tcp;
  const int probe = socket(AF_INET, (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC, 0);
  if (probe < 0) return false;
  const int yes = 1, index = static_cast<int>(interface);
  (void)setsockopt(probe, IPPROTO_IP, IP_FREEBIND, &yes, sizeof yes);  // no interface may have the address
  if (interface) (void)setsockopt(probe, SOL_SOCKET, SO_BINDTOIFINDEX, &index, sizeof index);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  to.sin_addr.s_addr = htonl(address);
  const bool taken =
      bind(probe, reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0 && errno == EADDRINUSE;
  close(probe);
  return taken;
}

/// So many questions a second, and so many at once.
struct Allowance {
  double per_second, burst;
  double left = burst;
  TimePoint counted = BootClock::now();

  bool take() {
    const TimePoint now = BootClock::now();
    left = std::min(burst, left + std::chrono::duration<double>(now - counted).count() * per_second);
    counted = now;
    if (left < 1) return false;
    left -= 1;
    return true;
  }
};

}  // namespace

struct KernelOwnPorts::Live {
  Socket socket = open_diagnostics();
  std::uint32_t sequence = 0;
  Allowance for_packets{20000, 1000};
  Allowance for_ports{1000, 1000};  // of its own: many new flows must not make the router deaf
};

KernelOwnPorts::KernelOwnPorts() : live_{std::make_unique<Live>()} {}
KernelOwnPorts::~KernelOwnPorts() = default;

bool KernelOwnPorts::expects(const Unclaimed& packet) const {
  if (in_use(packet.transport, packet.destination_port)) return true;
  return live_->for_packets.take() && asks(packet);
}

bool KernelOwnPorts::just_bound(Transport transport, std::uint32_t address, std::uint16_t port) const {
  if (!live_->for_ports.take()) return false;
  bool tried = false;
  for (const auto& wan : probed_wans_)
    if (const std::uint32_t index = wan.load(std::memory_order_relaxed)) {
      tried = true;
      if (is_taken(transport, address, port, index)) return true;
    }
  return !tried && is_taken(transport, address, port, 0);
}

bool KernelOwnPorts::asks(const Unclaimed& packet) const {
  if (!live_->socket) return false;
  alignas(nlmsghdr) std::array<char, 256> request{};
  nlmsghdr* head = mnl_nlmsg_put_header(request.data());
  head->nlmsg_type = SOCK_DIAG_BY_FAMILY;
  head->nlmsg_flags = NLM_F_REQUEST;  // one socket: the kernel's own lookup for an incoming packet
  head->nlmsg_seq = ++live_->sequence;
  auto* query = static_cast<inet_diag_req_v2*>(mnl_nlmsg_put_extra_header(head, sizeof(inet_diag_req_v2)));
  query->sdiag_family = AF_INET;
  query->sdiag_protocol = static_cast<std::uint8_t>(packet.transport);
  query->idiag_states = ~0u;
  query->id.idiag_cookie[0] = query->id.idiag_cookie[1] = static_cast<std::uint32_t>(INET_DIAG_NOCOOKIE);
  // The kernel takes "source" as the local end for TCP, and as the packet's source for UDP.
  const bool swapped = packet.transport == Transport::udp;
  query->id.idiag_src[0] = htonl(swapped ? packet.source : packet.destination);
  query->id.idiag_sport = htons(swapped ? packet.source_port : packet.destination_port);
  query->id.idiag_dst[0] = htonl(swapped ? packet.destination : packet.source);
  query->id.idiag_dport = htons(swapped ? packet.destination_port : packet.source_port);
  if (mnl_socket_sendto(live_->socket.get(), head, head->nlmsg_len) < 0) return false;
  alignas(nlmsghdr) std::array<char, 8192> answer;
  for (;;) {  // the answer, or ENOENT; it stands there already
    const ssize_t size = mnl_socket_recvfrom(live_->socket.get(), answer.data(), answer.size());
    if (size < static_cast<ssize_t>(sizeof(nlmsghdr))) {
      if (size < 0 && errno == EINTR) continue;
      return false;
    }
    const auto* message = reinterpret_cast<const nlmsghdr*>(answer.data());
    if (message->nlmsg_seq == live_->sequence) return message->nlmsg_type == SOCK_DIAG_BY_FAMILY;
  }
}

void KernelOwnPorts::watch(std::vector<Address> external, std::vector<std::uint32_t> lan,
                           std::vector<std::uint32_t> wan) {
  external_ = std::move(external);
  lan_ = std::move(lan);
  wan_ = std::move(wan);
  for (std::size_t i = 0; i < probed_wans_.size(); ++i)
    probed_wans_[i].store(i < wan_.size() ? wan_[i] : 0, std::memory_order_relaxed);
  refreshed_.reset();
  connections_refreshed_.reset();
}

Result<void> KernelOwnPorts::dump(Transport transport, std::uint8_t family, std::uint32_t states,
                                  Words& words, std::set<std::uint16_t>& bound) const {
  const Socket socket = open_diagnostics();
  if (!socket) return system_error(errno);
  mnl_socket* raw = socket.get();

  alignas(nlmsghdr) std::array<char, 256> request{};
  nlmsghdr* head = mnl_nlmsg_put_header(request.data());
  head->nlmsg_type = SOCK_DIAG_BY_FAMILY;
  head->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  auto* query = static_cast<inet_diag_req_v2*>(mnl_nlmsg_put_extra_header(head, sizeof(inet_diag_req_v2)));
  query->sdiag_family = family;
  query->sdiag_protocol = static_cast<std::uint8_t>(transport);
  query->idiag_states = states;
  if (mnl_socket_sendto(raw, head, head->nlmsg_len) < 0) return system_error(errno);

  alignas(nlmsghdr) std::array<char, 32768> answer;
  for (;;) {
    const ssize_t size = mnl_socket_recvfrom(raw, answer.data(), answer.size());
    if (size < 0) {
      if (errno == EINTR) continue;
      return system_error(errno);
    }
    int left = static_cast<int>(size);
    for (const auto* message = reinterpret_cast<const nlmsghdr*>(answer.data()); mnl_nlmsg_ok(message, left);
         message = mnl_nlmsg_next(message, &left)) {
      if (message->nlmsg_type == NLMSG_DONE) return {};
      if (message->nlmsg_type == NLMSG_ERROR) {
        int error = 0;
        std::memcpy(&error, mnl_nlmsg_get_payload(message), sizeof error);
        return system_error(error ? -error : EPROTO);
      }
      const auto& found = *static_cast<const inet_diag_msg*>(mnl_nlmsg_get_payload(message));
      bool v6_only = false;
      for_each_attribute(message, sizeof(inet_diag_msg), [&](const nlattr* attribute) {
        if (mnl_attr_get_type(attribute) == INET_DIAG_SKV6ONLY) v6_only = mnl_attr_get_u8(attribute) != 0;
      });
      const auto address = bound_v4(found, v6_only);
      if (!address) continue;
      if (*address != 0 &&
          std::find(external_.begin(), external_.end(), Address::v4(*address)) == external_.end())
        continue;
      if (std::find(lan_.begin(), lan_.end(), found.id.idiag_if) != lan_.end()) continue;
      const std::uint16_t port = ntohs(found.id.idiag_sport);
      words[port / 64] |= std::uint64_t{1} << port % 64;
      if (std::find(wan_.begin(), wan_.end(), found.id.idiag_if) != wan_.end()) bound.insert(port);
    }
  }
}

Result<void> KernelOwnPorts::refresh(TimePoint now) {
  if (refreshed_ && now >= *refreshed_ && now - *refreshed_ < freshness) return {};
  const auto dump_both = [&](Transport transport, std::uint32_t states, Words& words,
                             std::set<std::uint16_t>& bound) -> Result<void> {
    for (const std::uint8_t family : {AF_INET, AF_INET6}) {
      const auto result = dump(transport, family, states, words, bound);
      if (!result && !(family == AF_INET6 && result.error().value() == ENOENT))
        return result;  // no IPv6 here
    }
    return {};
  };
  if (!connections_refreshed_ || now < *connections_refreshed_ ||
      now - *connections_refreshed_ >= connections_freshness) {
    Words words{};
    std::set<std::uint16_t> bound;
    if (const auto result = dump_both(Transport::tcp, connections, words, bound); !result) return result;
    connections_ = words;
    connections_to_wan_ = std::move(bound);
    connections_refreshed_ = now;
  }
  for (const Transport transport : {Transport::tcp, Transport::udp}) {
    const bool tcp = transport == Transport::tcp;
    Words words = tcp ? connections_ : Words{};
    std::set<std::uint16_t> bound = tcp ? connections_to_wan_ : std::set<std::uint16_t>{};
    if (const auto result = dump_both(transport, tcp ? listeners : all_states, words, bound); !result)
      return result;
    bound_[transport].assign(bound.begin(), bound.end());
    auto& bits = bits_[transport == Transport::udp];
    for (std::size_t i = 0; i < words.size(); ++i) bits[i].store(words[i], std::memory_order_relaxed);
  }
  refreshed_ = now;
  return {};
}

}  // namespace sallyport::nat::host
