#pragma once

#include <array>
#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "sallyport/values/endpoint.hpp"
#include "sallyport/values/port.hpp"
#include "sallyport/values/transport.hpp"

namespace sallyport::client {

/// What a program keeps from one run to the next in ClientOptions::state_file: a secret, of which the nonces
/// of its mappings are made, and the external endpoints its ports had. A file that cannot be read or written,
/// or is not ours, is done without.
class Memory {
 public:
  /// Reads the file, or makes it with `fresh_secret`. An empty path remembers nothing beyond the process.
  Memory(std::string path, const std::array<std::byte, 16>& fresh_secret);

  /// Empty without a file.
  const std::optional<std::array<std::byte, 16>>& secret() const noexcept { return secret_; }
  std::optional<ExternalEndpoint> last(Transport transport, Port internal) const;
  /// Writes the file when this is news.
  void remember(Transport transport, Port internal, const ExternalEndpoint& external);

 private:
  static constexpr std::size_t most_ports = 4096;

  bool read();
  void write() const;

  std::string path_;
  std::optional<std::array<std::byte, 16>> secret_;
  std::map<std::pair<Transport, Port>, ExternalEndpoint> ports_;
};

}  // namespace sallyport::client
