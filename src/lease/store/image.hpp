#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

/// A database file as octets in memory, for when SQLite itself cannot open it: on a read-only disk, or
/// damaged.
namespace sallyport::lease {

struct Image {
  std::vector<std::byte> octets;  ///< whole pages, the valid part of the WAL already applied
  std::uint32_t page_size = 4096;
  /// The WAL goes on behind the place where it stops being valid, further than an interrupted write could
  /// explain.
  bool wal_damaged = false;
};

/// Reads `path` and `path`-wal through a VFS (empty: the default one). Empty when there is no such file or it
/// cannot be read at all.
std::optional<Image> read_image(const std::string& path, const std::string& vfs);

/// Calls `take` with key and blob of every row of the form (INTEGER PRIMARY KEY, BLOB) on any table leaf
/// page. Needs no intact tree: each page speaks for itself. Judging the blob is the caller's.
void scan_rows(const Image& image,
               const std::function<void(std::uint64_t key, std::span<const std::byte> blob)>& take);

}  // namespace sallyport::lease
