#include "nat/plane/tun/own_ports.hpp"

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "nat/plane/tun/attributes.hpp"

namespace sallyport::nat::tun {
namespace {

constexpr auto freshness = std::chrono::milliseconds{250};

boost::system::error_code system_error(int number) { return {number, boost::system::generic_category()}; }

/// The IPv4 address a socket is bound to, 0 for any; empty where it takes no IPv4.
std::optional<std::uint32_t> bound_v4(const inet_diag_msg& socket, bool v6_only) {
  if (socket.idiag_family == AF_INET) return ntohl(socket.id.idiag_src[0]);
  const auto* words = socket.id.idiag_src;
  if (words[0] == 0 && words[1] == 0 && words[2] == htonl(0xffff)) return ntohl(words[3]);
  if (words[0] == 0 && words[1] == 0 && words[2] == 0 && words[3] == 0 && !v6_only) return 0;
  return std::nullopt;
}

}  // namespace

void KernelOwnPorts::watch(std::vector<Address> external, std::vector<std::uint32_t> lan) {
  external_ = std::move(external);
  lan_ = std::move(lan);
  refreshed_.reset();
}

Result<void> KernelOwnPorts::dump(Transport transport, std::uint8_t family, Words& words) const {
  mnl_socket* raw = mnl_socket_open2(NETLINK_SOCK_DIAG, SOCK_CLOEXEC);
  if (!raw) return system_error(errno);
  const std::unique_ptr<mnl_socket, int (*)(mnl_socket*)> socket{raw, mnl_socket_close};
  if (mnl_socket_bind(raw, 0, MNL_SOCKET_AUTOPID) < 0) return system_error(errno);

  alignas(nlmsghdr) std::array<char, 256> request{};
  nlmsghdr* head = mnl_nlmsg_put_header(request.data());
  head->nlmsg_type = SOCK_DIAG_BY_FAMILY;
  head->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  auto* query = static_cast<inet_diag_req_v2*>(mnl_nlmsg_put_extra_header(head, sizeof(inet_diag_req_v2)));
  query->sdiag_family = family;
  query->sdiag_protocol = static_cast<std::uint8_t>(transport);
  query->idiag_states = ~0u;
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
    }
  }
}

Result<void> KernelOwnPorts::refresh(TimePoint now) {
  if (refreshed_ && now >= *refreshed_ && now - *refreshed_ < freshness) return {};
  for (const Transport transport : {Transport::tcp, Transport::udp}) {
    Words words{};
    for (const std::uint8_t family : {AF_INET, AF_INET6}) {
      const auto result = dump(transport, family, words);
      if (!result && !(family == AF_INET6 && result.error().value() == ENOENT))
        return result;  // no IPv6 here
    }
    auto& bits = bits_[transport == Transport::udp];
    for (std::size_t i = 0; i < words.size(); ++i) bits[i].store(words[i], std::memory_order_relaxed);
  }
  refreshed_ = now;
  return {};
}

}  // namespace sallyport::nat::tun
