#include "src/transport/anycast.hpp"

#include <libmnl/libmnl.h>
#include <linux/rtnetlink.h>
#include <net/if.h>

#include <array>
#include <cerrno>
#include <memory>

#include "src/transport/socket_tools.hpp"

namespace sallyport::transport {
namespace {

constexpr unsigned char our_routes = 0x53;  // "protocol" of the routes: who made them

struct CloseSocket {
  void operator()(mnl_socket* socket) const noexcept { mnl_socket_close(socket); }
};

/// 0, or the errno that the kernel answers.
int ask(const nlmsghdr* request) {
  const std::unique_ptr<mnl_socket, CloseSocket> socket{mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC)};
  if (!socket || mnl_socket_bind(socket.get(), 0, MNL_SOCKET_AUTOPID) < 0 ||
      mnl_socket_sendto(socket.get(), request, request->nlmsg_len) < 0)
    return errno;
  std::array<char, 4096> answer;
  const auto size = mnl_socket_recvfrom(socket.get(), answer.data(), answer.size());
  if (size < 0) return errno;
  return mnl_cb_run(answer.data(), static_cast<std::size_t>(size), request->nlmsg_seq,
                    mnl_socket_get_portid(socket.get()), nullptr, nullptr) < 0
             ? errno
             : 0;
}

}  // namespace

bool claim_anycast(const Address& address, bool claimed, std::string& why) {
  alignas(nlmsghdr) std::array<char, 256> buffer{};
  auto* request = mnl_nlmsg_put_header(buffer.data());
  request->nlmsg_type = claimed ? RTM_NEWROUTE : RTM_DELROUTE;
  request->nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | NLM_F_ACK | (claimed ? NLM_F_CREATE | NLM_F_EXCL : 0));
  request->nlmsg_seq = 1;
  auto* route = static_cast<rtmsg*>(mnl_nlmsg_put_extra_header(request, sizeof(rtmsg)));
  route->rtm_family = address.is_v4() ? AF_INET : AF_INET6;
  route->rtm_dst_len = address.is_v4() ? 32 : 128;
  route->rtm_table = RT_TABLE_LOCAL;
  route->rtm_protocol = our_routes;  // what somebody else made is not taken back
  route->rtm_scope = RT_SCOPE_HOST;
  route->rtm_type = RTN_LOCAL;
  if (address.is_v4())
    mnl_attr_put_u32(request, RTA_DST, htonl(address.v4_number()));
  else
    mnl_attr_put(request, RTA_DST, address.bytes().size(), address.bytes().data());
  mnl_attr_put_u32(request, RTA_OIF, ::if_nametoindex("lo"));
  const int error = ask(request);
  // where the administrator has given this machine the address, it has it already and keeps it
  if (error == 0 || error == (claimed ? EEXIST : ESRCH)) return true;
  // a kernel without IPv6 never had it
  if (!claimed && !address.is_v4() && (error == EAFNOSUPPORT || error == EOPNOTSUPP)) return true;
  why = address.to_string() + (claimed ? " cannot be made an address of this machine: " : " stays an address of this machine: ") +
        system_text(error);
  return false;
}

}  // namespace sallyport::transport
