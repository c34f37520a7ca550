#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <boost/asio/any_io_executor.hpp>

#include "sallyport/values/result.hpp"
#include "src/transport/network_state.hpp"

namespace sallyport::transport {

/// Follows links, addresses and main-table routes of the network namespace of the thread that makes it.
/// The kernel's notices only say that something changed; what it is is then read whole, so no lost notice can
/// mislead. One thread at a time, that of `io`.
class NetworkWatcher {
 public:
  /// The error is the system's.
  static Result<std::unique_ptr<NetworkWatcher>> open(const boost::asio::any_io_executor& io);
  ~NetworkWatcher();

  /// As last read; open() has read it once.
  const NetworkState& state() const noexcept;
  /// `changed` is called after each change, at most about ten times a second.
  void watch(std::function<void()> changed);
  /// Reads everything now and calls `changed` when it differs.
  void refresh();

  /// The MAC of a neighbour, "02:00:00:00:00:01", of either family, from the kernel's table, which is read
  /// whole at most once a second; one that has left the table is remembered.
  std::optional<std::string> mac_of(const Address& address);
  /// The same for who decides by it: one that has come since the table was read is asked for.
  std::optional<std::string> mac_now(const Address& address);
  /// An IPv4 address of the neighbour with this MAC, of those that mac_of() has seen.
  std::optional<Address> ipv4_of(const std::string& mac) const;

  class Impl;

 private:
  explicit NetworkWatcher(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace sallyport::transport
