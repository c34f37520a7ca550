#pragma once

#include <functional>
#include <memory>
#include <span>

#include "protocols/wire/datagram_core.hpp"

/// Datagrams in batches, with the addresses of both ends. For the one thread of the sockets.
namespace sallyport::transport {

class DatagramReader {
 public:
  struct Datagram {
    std::span<const std::byte> bytes;
    wire::Arrival arrival;
    bool cut = false;  ///< it was longer than `longest`
  };

  /// At most `batch` datagrams at once, `longest` octets of each.
  DatagramReader(std::size_t batch, std::size_t longest);
  ~DatagramReader();

  /// Reads one batch without waiting; true when there may be more. Where the datagram arrived is known on
  /// sockets with IP_PKTINFO or IPV6_RECVPKTINFO.
  bool read(int socket, const std::function<void(const Datagram&)>& take);

 private:
  struct Buffers;
  std::unique_ptr<Buffers> in_;
};

class DatagramWriter {
 public:
  explicit DatagramWriter(std::size_t batch);
  ~DatagramWriter();

  /// Sent with others to the same socket, at the latest by flush(). From `from`, by its interface.
  void add(int socket, wire::Outgoing datagram);
  /// One that cannot be sent (no route, no room) is counted; those behind it do not suffer.
  void flush();

  std::uint64_t sent = 0, failed = 0;

 private:
  struct Buffers;
  std::unique_ptr<Buffers> out_;
};

}  // namespace sallyport::transport
