#pragma once

#include <sqlite3.h>

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace sallyport::test {

/// A disk in memory, as a VFS for SQLite. It knows what was synced, so that power_cut() can throw away the
/// rest: each 512-octet sector written since the last sync is kept or lost by chance, new lengths and new
/// names too. And it can be told to be full, read-only or broken.
class FaultVfs {
 public:
  explicit FaultVfs(std::string name);
  ~FaultVfs();
  FaultVfs(const FaultVfs&) = delete;
  FaultVfs& operator=(const FaultVfs&) = delete;

  const std::string& name() const { return name_; }
  /// What is left after the power went, as a new disk. Who still uses this one writes into the void.
  std::unique_ptr<FaultVfs> power_cut(std::uint64_t seed);

  std::atomic<bool> read_only{false};
  std::atomic<bool> full{false};  ///< growing a file: SQLITE_FULL
  std::atomic<bool> sync_fails{false};
  std::atomic<bool> write_fails{false};
  std::atomic<std::uint64_t> syncs{0}, writes{0};

  std::vector<unsigned char> contents(const std::string& path);
  void set_contents(const std::string& path, std::vector<unsigned char> octets);
  bool exists(const std::string& path);

  struct Node {
    std::vector<unsigned char> now;     ///< what the process sees
    std::vector<unsigned char> synced;  ///< what a power cut cannot take
    std::vector<bool> dirty;            ///< by sector, since the last sync
    bool name_synced = false;
  };

 private:
  friend struct FaultVfsCalls;
  std::string name_;
  sqlite3_vfs vfs_{};
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Node>> nodes_;
};

}  // namespace sallyport::test
