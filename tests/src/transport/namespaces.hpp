#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "sallyport/values/address.hpp"

/// Hosts for a test: network namespaces without names, gone with the process whatever happens to it.
namespace sallyport::test {

class Namespace {
 public:
  Namespace() {
    std::thread{[this] {
      if (::unshare(CLONE_NEWNET) == 0)
        descriptor_ = ::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    }}.join();
    if (descriptor_ >= 0) ip("link set lo up");
  }
  Namespace(const Namespace&) = delete;
  Namespace& operator=(const Namespace&) = delete;
  ~Namespace() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  bool exists() const { return descriptor_ >= 0; }

  /// Runs `what` on a thread in this namespace and waits for it.
  void inside(const std::function<void()>& what) const {
    std::thread{[&] {
      if (::setns(descriptor_, CLONE_NEWNET) == 0) what();
    }}.join();
  }
  /// `ip ARGUMENTS` in here; false when it failed.
  bool ip(const std::string& arguments) const {
    bool good = false;
    inside([&] { good = std::system(("ip " + arguments).c_str()) == 0; });
    return good;
  }
  /// A cable: `mine` here, `theirs` in `other`, both up.
  bool connect(const std::string& mine, const Namespace& other, const std::string& theirs) const {
    return ip("link add " + mine + " type veth peer name " + theirs + " netns /proc/" +
              std::to_string(::getpid()) + "/fd/" + std::to_string(other.descriptor_)) &&
           ip("link set " + mine + " up") && other.ip("link set " + theirs + " up");
  }

 private:
  int descriptor_ = -1;
};

/// Why namespaces cannot be made here; empty: they can.
inline std::optional<std::string> no_namespaces() {
  if (::geteuid() != 0) return "needs root for network namespaces";
  if (!Namespace{}.exists()) return "the kernel makes no network namespace";
  return std::nullopt;
}

/// A UDP socket of a host, of the family that `bind_to` is of. Addresses of one link mean its interface eth0.
class HostSocket {
 public:
  struct Received {
    std::string bytes;
    std::string from;
    std::uint16_t from_port = 0;
  };

  HostSocket(const Namespace& host, const std::string& bind_to = "0.0.0.0", std::uint16_t port = 0) {
    six_ = bind_to.find(':') != std::string::npos;
    host.inside([&] {
      descriptor_ = ::socket(six_ ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
      link_ = ::if_nametoindex("eth0");
    });
    const int one = 1;
    ::setsockopt(descriptor_, SOL_SOCKET, SO_BROADCAST, &one, sizeof one);
    ::setsockopt(descriptor_, IPPROTO_IP, IP_FREEBIND, &one, sizeof one);
    ::setsockopt(descriptor_, IPPROTO_IP, IP_RECVERR, &one, sizeof one);  // ICMP errors are told
    if (six_) {
      ::setsockopt(descriptor_, IPPROTO_IPV6, IPV6_FREEBIND, &one, sizeof one);
      ::setsockopt(descriptor_, IPPROTO_IPV6, IPV6_RECVERR, &one, sizeof one);
    }
    const auto address = to(bind_to, port);
    good_ = ::bind(descriptor_, &address.any, size_of(address)) == 0;
  }
  HostSocket(const HostSocket&) = delete;
  HostSocket& operator=(const HostSocket&) = delete;
  ~HostSocket() { ::close(descriptor_); }

  bool good() const { return good_; }
  int descriptor() const { return descriptor_; }
  bool send(const std::string& bytes, const std::string& address, std::uint16_t port) {
    const auto there = to(address, port);
    return ::sendto(descriptor_, bytes.data(), bytes.size(), 0, &there.any, size_of(there)) ==
           static_cast<ssize_t>(bytes.size());
  }
  /// What has come, or comes within the time. An ICMP error counts as "ICMP".
  std::optional<Received> receive(int milliseconds) {
    pollfd wait{descriptor_, POLLIN, 0};
    if (::poll(&wait, 1, milliseconds) <= 0) return std::nullopt;
    if ((wait.revents & POLLERR) != 0) return Received{"ICMP", "", 0};
    std::string bytes(2048, '\0');
    Any from{};
    socklen_t size = sizeof from;
    const auto count = ::recvfrom(descriptor_, bytes.data(), bytes.size(), 0, &from.any, &size);
    if (count < 0) return Received{"ICMP", "", 0};
    bytes.resize(static_cast<std::size_t>(count));
    char text[INET6_ADDRSTRLEN] = {};
    if (six_)
      ::inet_ntop(AF_INET6, &from.v6.sin6_addr, text, sizeof text);
    else
      ::inet_ntop(AF_INET, &from.v4.sin_addr, text, sizeof text);
    return Received{bytes, text, ntohs(six_ ? from.v6.sin6_port : from.v4.sin_port)};
  }
  bool join(const std::string& group) {
    if (six_) {
      ipv6_mreq request{};
      ::inet_pton(AF_INET6, group.c_str(), &request.ipv6mr_multiaddr);
      request.ipv6mr_interface = link_;
      return ::setsockopt(descriptor_, IPPROTO_IPV6, IPV6_ADD_MEMBERSHIP, &request, sizeof request) == 0;
    }
    ip_mreqn request{};
    request.imr_multiaddr.s_addr = ::inet_addr(group.c_str());
    return ::setsockopt(descriptor_, IPPROTO_IP, IP_ADD_MEMBERSHIP, &request, sizeof request) == 0;
  }

 private:
  union Any {
    sockaddr any;
    sockaddr_in v4;
    sockaddr_in6 v6;
  };
  static socklen_t size_of(const Any& address) {
    return address.any.sa_family == AF_INET6 ? sizeof address.v6 : sizeof address.v4;
  }
  Any to(const std::string& address, std::uint16_t port) const {
    Any result{};
    if (six_) {
      result.v6.sin6_family = AF_INET6;
      result.v6.sin6_port = htons(port);
      ::inet_pton(AF_INET6, address.c_str(), &result.v6.sin6_addr);
      if (address.starts_with("fe80") || address.starts_with("ff")) result.v6.sin6_scope_id = link_;
      return result;
    }
    result.v4.sin_family = AF_INET;
    result.v4.sin_port = htons(port);
    ::inet_pton(AF_INET, address.c_str(), &result.v4.sin_addr);
    return result;
  }
  bool six_ = false;
  unsigned link_ = 0;
  int descriptor_ = -1;
  bool good_ = false;
};

}  // namespace sallyport::test
