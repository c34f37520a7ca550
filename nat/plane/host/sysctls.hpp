#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "nat/plane/data_plane.hpp"
#include "sallyport/values/result.hpp"

/// Sysctls below /proc/sys/net of this network namespace, with a memory for what they were.
namespace sallyport::nat::host {

/// The value without its line end; empty where there is no such key (an interface that is away).
std::optional<std::string> read_sysctl(std::string_view key);
bool write_sysctl(std::string_view key, std::string_view value);

/// Interfaces with IPv4 sysctls; without "all" and "default".
std::vector<std::string> sysctl_interfaces();

/// What keeps IPv6 of the LAN from being forwarded, or a WAN from its address, in words with what to do.
std::vector<std::string> ipv6_forwarding_problems(const std::vector<PlaneInterface>& wan);

/// Writes what each key was to the undo file before it changes the key the first time; the file, not the
/// kernel, then tells after a crash what to go back to. Keys are paths below /proc/sys/net, as
/// "ipv4/conf/eth0/forwarding".
class SysctlKeeper {
 public:
  /// Reads the undo file. One of an earlier boot or of another network namespace counts as none.
  explicit SysctlKeeper(std::string undo_file);

  /// Errors are of the generic category: no such key, not permitted, or the undo file cannot be written (and
  /// then nothing was changed).
  Result<void> set(const std::string& key, std::string_view value);
  /// What the key was before us, or is where we never changed it.
  std::optional<std::string> original(const std::string& key) const;
  /// Puts one key back and forgets it.
  void restore(const std::string& key);
  /// Puts the keys back that `first` holds for, in reverse order of their change; the memory of them stays.
  template <class Predicate>
  void put_back(Predicate&& first) const {
    for (auto entry = before_.rbegin(); entry != before_.rend(); ++entry)
      if (first(entry->first)) write_sysctl(entry->first, entry->second);
  }
  /// Removes the undo file.
  void forget();
  const std::vector<std::pair<std::string, std::string>>& changed() const noexcept { return before_; }

 private:
  Result<void> save() const;

  std::string undo_file_;
  std::string header_;
  std::vector<std::pair<std::string, std::string>> before_;  // in order of change
};

}  // namespace sallyport::nat::host
