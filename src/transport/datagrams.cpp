#include "src/transport/datagrams.hpp"

#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <tuple>
#include <utility>
#include <vector>

#include "src/transport/socket_tools.hpp"

namespace sallyport::transport {
namespace {

struct alignas(cmsghdr) Control {
  std::array<char, CMSG_SPACE(sizeof(in6_pktinfo))> octets;
};

void destination_from(const cmsghdr& control, wire::Arrival& arrival) {
  if (control.cmsg_level == IPPROTO_IP && control.cmsg_type == IP_PKTINFO) {
    in_pktinfo info{};
    std::memcpy(&info, CMSG_DATA(&control), sizeof info);
    arrival.destination = address_of(info.ipi_addr);
    arrival.interface = static_cast<std::uint32_t>(info.ipi_ifindex);
  } else if (control.cmsg_level == IPPROTO_IPV6 && control.cmsg_type == IPV6_PKTINFO) {
    in6_pktinfo info{};
    std::memcpy(&info, CMSG_DATA(&control), sizeof info);
    arrival.destination = address_of(info.ipi6_addr);
    arrival.interface = info.ipi6_ifindex;
  }
}

template <class Info>
void put_control(msghdr& header, int level, int type, const Info& info) {
  header.msg_controllen = CMSG_SPACE(sizeof info);
  auto* control = CMSG_FIRSTHDR(&header);
  control->cmsg_level = level;
  control->cmsg_type = type;
  control->cmsg_len = CMSG_LEN(sizeof info);
  std::memcpy(CMSG_DATA(control), &info, sizeof info);
}

void put_source(msghdr& header, const wire::Outgoing& datagram) {
  if (datagram.from.is_v4()) {
    in_pktinfo info{};
    info.ipi_ifindex = static_cast<int>(datagram.interface);
    info.ipi_spec_dst.s_addr = htonl(datagram.from.v4_number());
    put_control(header, IPPROTO_IP, IP_PKTINFO, info);
  } else {
    in6_pktinfo info{};
    info.ipi6_addr = in6_of(datagram.from);
    info.ipi6_ifindex = datagram.interface;
    put_control(header, IPPROTO_IPV6, IPV6_PKTINFO, info);
  }
}

/// What recvmmsg and sendmmsg work on.
struct Headers {
  explicit Headers(std::size_t batch) : controls(batch), addresses(batch), vectors(batch), messages(batch) {}

  /// The header of datagram `i`, whose octets are these.
  msghdr& set(std::size_t i, std::byte* octets, std::size_t size) {
    vectors[i] = {octets, size};
    auto& header = messages[i].msg_hdr;
    header = {};
    header.msg_name = &addresses[i];
    header.msg_namelen = sizeof addresses[i];
    header.msg_iov = &vectors[i];
    header.msg_iovlen = 1;
    header.msg_control = controls[i].octets.data();
    header.msg_controllen = controls[i].octets.size();
    return header;
  }

  std::vector<Control> controls;
  std::vector<SocketAddress> addresses;
  std::vector<iovec> vectors;
  std::vector<mmsghdr> messages;
};

}  // namespace

struct DatagramReader::Buffers {
  Buffers(std::size_t batch, std::size_t longest_)
      : longest{longest_}, octets(batch * longest_), headers{batch} {}
  std::size_t longest;
  std::vector<std::byte> octets;
  Headers headers;
};

DatagramReader::DatagramReader(std::size_t batch, std::size_t longest)
    : in_{std::make_unique<Buffers>(batch, longest)} {}
DatagramReader::~DatagramReader() = default;

bool DatagramReader::read(int socket, const std::function<void(const Datagram&)>& take) {
  auto& messages = in_->headers.messages;
  const auto octets_of = [&](std::size_t i) { return in_->octets.data() + i * in_->longest; };
  for (std::size_t i = 0; i < messages.size(); ++i) in_->headers.set(i, octets_of(i), in_->longest);
  const int count =
      ::recvmmsg(socket, messages.data(), static_cast<unsigned>(messages.size()), MSG_DONTWAIT, nullptr);
  // An error here is EAGAIN, or what an ICMP error left on the socket: both are over with this call.
  if (count < 0) return errno != EAGAIN && errno != EWOULDBLOCK && errno != EBADF;
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
    auto& header = messages[i].msg_hdr;
    const auto& from = in_->headers.addresses[i];
    const bool four = from.any.sa_family == AF_INET && header.msg_namelen >= sizeof from.v4;
    const bool six = from.any.sa_family == AF_INET6 && header.msg_namelen >= sizeof from.v6;
    if (!four && !six) continue;
    Datagram datagram{{octets_of(i), messages[i].msg_len}, {}, (header.msg_flags & MSG_TRUNC) != 0};
    std::tie(datagram.arrival.source, datagram.arrival.source_port) = from_sockaddr(from);
    for (auto* control = CMSG_FIRSTHDR(&header); control != nullptr; control = CMSG_NXTHDR(&header, control))
      destination_from(*control, datagram.arrival);
    take(datagram);
  }
  return static_cast<std::size_t>(count) == messages.size();
}

struct DatagramWriter::Buffers {
  explicit Buffers(std::size_t batch) : datagrams(batch), headers{batch} {}
  std::vector<wire::Outgoing> datagrams;
  Headers headers;
  std::size_t count = 0;
  int socket = -1;
};

DatagramWriter::DatagramWriter(std::size_t batch) : out_{std::make_unique<Buffers>(batch)} {}
DatagramWriter::~DatagramWriter() = default;

void DatagramWriter::add(int socket, wire::Outgoing datagram) {
  if (datagram.from.is_v4() != datagram.to.is_v4()) {
    ++failed;
    return;
  }
  if (socket != out_->socket || out_->count == out_->datagrams.size()) flush();
  out_->socket = socket;
  const auto i = out_->count++;
  auto& kept = out_->datagrams[i] = std::move(datagram);
  auto& header = out_->headers.set(i, kept.bytes.data(), kept.bytes.size());
  std::tie(out_->headers.addresses[i], header.msg_namelen) =
      to_sockaddr(kept.to, kept.to_port, kept.interface);
  put_source(header, kept);
}

void DatagramWriter::flush() {
  const auto count = std::exchange(out_->count, 0);
  for (std::size_t done = 0; done < count;) {
    const int result = ::sendmmsg(out_->socket, out_->headers.messages.data() + done,
                                  static_cast<unsigned>(count - done), MSG_DONTWAIT);
    if (result > 0) {
      done += static_cast<std::size_t>(result);
      sent += static_cast<std::uint64_t>(result);
    } else if (errno != EINTR) {
      ++failed;
      ++done;
    }
  }
  for (std::size_t i = 0; i < count; ++i) out_->datagrams[i] = {};
}

}  // namespace sallyport::transport
