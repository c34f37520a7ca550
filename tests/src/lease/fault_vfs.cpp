#include "tests/src/lease/fault_vfs.hpp"

#include <algorithm>
#include <cstring>
#include <ctime>
#include <random>

namespace sallyport::test {

constexpr std::size_t sector = 512;

struct FaultFile {
  sqlite3_file base;
  FaultVfs* vfs;
  std::shared_ptr<FaultVfs::Node>* node;
};

struct FaultVfsCalls {
  static FaultVfs& of(sqlite3_vfs* vfs) { return *static_cast<FaultVfs*>(vfs->pAppData); }
  static FaultFile& of(sqlite3_file* file) { return *reinterpret_cast<FaultFile*>(file); }

  static int open(sqlite3_vfs* vfs, const char* name, sqlite3_file* out, int flags, int* out_flags) {
    auto& self = of(vfs);
    const std::lock_guard guard{self.mutex_};
    auto& file = of(out);
    file.base.pMethods = nullptr;
    const std::string path = name ? name : "(temporary)";
    auto it = self.nodes_.find(path);
    if (it == self.nodes_.end()) {
      if (!(flags & SQLITE_OPEN_CREATE) || self.read_only) return SQLITE_CANTOPEN;
      it = self.nodes_.emplace(path, std::make_shared<FaultVfs::Node>()).first;
    }
    if (self.read_only && (flags & SQLITE_OPEN_READWRITE)) {
      // as the unix VFS does: opened for reading instead
      flags = (flags & ~SQLITE_OPEN_READWRITE) | SQLITE_OPEN_READONLY;
    }
    static const sqlite3_io_methods methods = {
        1,       close,       read,     write,   truncate, sync,    size,    lock,    unlock, locked,
        control, sector_size, features, nullptr, nullptr,  nullptr, nullptr, nullptr, nullptr};
    file.base.pMethods = &methods;
    file.vfs = &self;
    file.node = new std::shared_ptr<FaultVfs::Node>{it->second};
    if (out_flags) *out_flags = flags;
    return SQLITE_OK;
  }
  static int remove(sqlite3_vfs* vfs, const char* name, int) {
    auto& self = of(vfs);
    const std::lock_guard guard{self.mutex_};
    if (self.read_only) return SQLITE_IOERR_DELETE;
    return self.nodes_.erase(name) ? SQLITE_OK : SQLITE_IOERR_DELETE_NOENT;
  }
  static int access(sqlite3_vfs* vfs, const char* name, int flags, int* out) {
    auto& self = of(vfs);
    const std::lock_guard guard{self.mutex_};
    *out = self.nodes_.contains(name) && !(flags == SQLITE_ACCESS_READWRITE && self.read_only);
    return SQLITE_OK;
  }
  static int full_path(sqlite3_vfs*, const char* name, int size, char* out) {
    sqlite3_snprintf(size, out, "%s", name);
    return SQLITE_OK;
  }
  static int randomness(sqlite3_vfs*, int size, char* out) {
    static std::atomic<unsigned> seed{1};
    std::mt19937 random{seed++};
    for (int i = 0; i < size; ++i) out[i] = static_cast<char>(random());
    return size;
  }
  static int sleep(sqlite3_vfs*, int) { return 0; }
  static int current_time(sqlite3_vfs*, double* out) {
    *out = 2440587.5 + static_cast<double>(std::time(nullptr)) / 86400;
    return SQLITE_OK;
  }
  static int last_error(sqlite3_vfs*, int, char*) { return 0; }

  static int close(sqlite3_file* out) {
    delete of(out).node;
    of(out).node = nullptr;
    return SQLITE_OK;
  }
  static int read(sqlite3_file* in, void* out, int amount, sqlite3_int64 at) {
    auto& file = of(in);
    const std::lock_guard guard{file.vfs->mutex_};
    const auto& now = (*file.node)->now;
    const auto begin = std::min(static_cast<std::size_t>(at), now.size());
    const auto count = std::min(static_cast<std::size_t>(amount), now.size() - begin);
    if (count > 0) std::memcpy(out, now.data() + begin, count);
    if (count == static_cast<std::size_t>(amount)) return SQLITE_OK;
    std::memset(static_cast<char*>(out) + count, 0, static_cast<std::size_t>(amount) - count);
    return SQLITE_IOERR_SHORT_READ;
  }
  static int write(sqlite3_file* out, const void* in, int amount, sqlite3_int64 at) {
    auto& file = of(out);
    const std::lock_guard guard{file.vfs->mutex_};
    auto& node = **file.node;
    ++file.vfs->writes;
    if (file.vfs->read_only) return SQLITE_READONLY;
    if (file.vfs->write_fails) return SQLITE_IOERR_WRITE;
    const auto end = static_cast<std::size_t>(at) + static_cast<std::size_t>(amount);
    if (end > node.now.size()) {
      if (file.vfs->full) return SQLITE_FULL;
      node.now.resize(end);
    }
    std::memcpy(node.now.data() + at, in, static_cast<std::size_t>(amount));
    node.dirty.resize((node.now.size() + sector - 1) / sector, false);
    for (std::size_t s = static_cast<std::size_t>(at) / sector; s * sector < end; ++s) node.dirty[s] = true;
    return SQLITE_OK;
  }
  static int truncate(sqlite3_file* out, sqlite3_int64 length) {
    auto& file = of(out);
    const std::lock_guard guard{file.vfs->mutex_};
    auto& node = **file.node;
    node.now.resize(static_cast<std::size_t>(length));
    node.dirty.resize((node.now.size() + sector - 1) / sector, true);
    return SQLITE_OK;
  }
  static int sync(sqlite3_file* out, int) {
    auto& file = of(out);
    const std::lock_guard guard{file.vfs->mutex_};
    auto& node = **file.node;
    if (file.vfs->sync_fails) return SQLITE_IOERR_FSYNC;
    ++file.vfs->syncs;
    node.synced = node.now;
    node.dirty.assign((node.now.size() + sector - 1) / sector, false);
    node.name_synced = true;
    return SQLITE_OK;
  }
  static int size(sqlite3_file* in, sqlite3_int64* out) {
    auto& file = of(in);
    const std::lock_guard guard{file.vfs->mutex_};
    *out = static_cast<sqlite3_int64>((*file.node)->now.size());
    return SQLITE_OK;
  }
  static int lock(sqlite3_file*, int) { return SQLITE_OK; }
  static int unlock(sqlite3_file*, int) { return SQLITE_OK; }
  static int locked(sqlite3_file*, int* out) {
    *out = 0;
    return SQLITE_OK;
  }
  static int control(sqlite3_file*, int, void*) { return SQLITE_NOTFOUND; }
  static int sector_size(sqlite3_file*) { return static_cast<int>(sector); }
  static int features(sqlite3_file*) { return 0; }
};

FaultVfs::FaultVfs(std::string name) : name_{std::move(name)} {
  vfs_.iVersion = 1;
  vfs_.szOsFile = sizeof(FaultFile);
  vfs_.mxPathname = 512;
  vfs_.zName = name_.c_str();
  vfs_.pAppData = this;
  vfs_.xOpen = FaultVfsCalls::open;
  vfs_.xDelete = FaultVfsCalls::remove;
  vfs_.xAccess = FaultVfsCalls::access;
  vfs_.xFullPathname = FaultVfsCalls::full_path;
  vfs_.xRandomness = FaultVfsCalls::randomness;
  vfs_.xSleep = FaultVfsCalls::sleep;
  vfs_.xCurrentTime = FaultVfsCalls::current_time;
  vfs_.xGetLastError = FaultVfsCalls::last_error;
  sqlite3_vfs_register(&vfs_, 0);
}

FaultVfs::~FaultVfs() { sqlite3_vfs_unregister(&vfs_); }

std::unique_ptr<FaultVfs> FaultVfs::power_cut(std::uint64_t seed) {
  auto left = std::make_unique<FaultVfs>(name_ + "'");
  const std::lock_guard guard{mutex_};
  std::mt19937_64 random{seed};
  for (const auto& [path, node] : nodes_) {
    if (!node->name_synced && random() % 2) continue;
    auto after = std::make_shared<Node>();
    // the length is one of those the file had since it was synced, the sectors are old or new, each for
    // itself
    const auto longer = std::max(node->synced.size(), node->now.size());
    auto length = random() % 2 ? node->now.size() : node->synced.size();
    after->now.resize(longer);
    for (std::size_t at = 0; at < longer; at += sector) {
      const auto end = std::min(at + sector, longer);
      const bool dirty = at / sector < node->dirty.size() && node->dirty[at / sector];
      const auto& from = dirty && random() % 2 ? node->now : node->synced;
      for (std::size_t i = at; i < end; ++i) after->now[i] = i < from.size() ? from[i] : 0;
    }
    after->now.resize(length);
    after->synced = after->now;
    after->dirty.assign((length + sector - 1) / sector, false);
    after->name_synced = true;
    left->nodes_.emplace(path, std::move(after));
  }
  return left;
}

std::vector<unsigned char> FaultVfs::contents(const std::string& path) {
  const std::lock_guard guard{mutex_};
  const auto it = nodes_.find(path);
  return it == nodes_.end() ? std::vector<unsigned char>{} : it->second->now;
}

void FaultVfs::set_contents(const std::string& path, std::vector<unsigned char> octets) {
  const std::lock_guard guard{mutex_};
  auto node = std::make_shared<Node>();
  node->now = node->synced = std::move(octets);
  node->dirty.assign((node->now.size() + sector - 1) / sector, false);
  node->name_synced = true;
  nodes_.insert_or_assign(path, std::move(node));
}

bool FaultVfs::exists(const std::string& path) {
  const std::lock_guard guard{mutex_};
  return nodes_.contains(path);
}

}  // namespace sallyport::test
