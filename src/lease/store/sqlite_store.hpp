#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <string>

#include <boost/system/result.hpp>

#include "src/lease/store/store.hpp"

namespace sallyport::lease {

struct SqliteOptions {
  std::filesystem::path dir;  ///< holds leases.db, its WAL and leases.lock; made when it is missing
  bool sync = true;           ///< false: a power cut may cost the last second, a crash nothing
  /// Runs on the store's thread when Store::take_progress() has news: post to the control thread, nothing
  /// else.
  std::function<void()> notify;
  std::string vfs;      ///< name of an SQLite VFS; empty: the default one
  std::string boot_id;  ///< empty: /proc/sys/kernel/random/boot_id
};

/// Takes the lock on `dir` and gives a store on SQLite, or says in a sentence who holds the lock. Everything
/// else that may be wrong with the directory or the file (not there, read-only, damaged) is told by load(),
/// and the store serves what it can.
boost::system::result<std::unique_ptr<Store>, std::string> open_sqlite_store(SqliteOptions options);

}  // namespace sallyport::lease
