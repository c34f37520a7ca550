#include "src/lease/store/sqlite_store.hpp"

#include <SQLiteCpp/SQLiteCpp.h>
#include <sqlite3.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <ctime>
#include <fstream>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "src/lease/store/image.hpp"
#include "src/lease/store/lock_file.hpp"
#include "src/lease/store/record_codec.hpp"

namespace sallyport::lease {
namespace {

/// Steps of the schema: step i brings a file from user_version i to i + 1. Steps are only ever added.
constexpr const char* schema[] = {
    "CREATE TABLE lease (number INTEGER PRIMARY KEY, body BLOB NOT NULL);"
    "CREATE TABLE meta (key INTEGER PRIMARY KEY, body BLOB NOT NULL);",
    "CREATE TABLE block (lease INTEGER PRIMARY KEY, body BLOB NOT NULL);",
};
constexpr int schema_version = static_cast<int>(std::size(schema));

std::uint32_t tag_of(const std::string& boot_id) {
  std::uint32_t hash = 2166136261u;
  for (const char c : boot_id) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
  return hash;
}

/// Everything that is not the disk's or the permissions' fault is the content's.
bool is_damage(int code) {
  switch (code & 0xff) {
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
    case SQLITE_IOERR:
    case SQLITE_FULL:
    case SQLITE_PERM:
    case SQLITE_AUTH:
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_NOMEM:
    case SQLITE_NOLFS:
    case SQLITE_PROTOCOL:
      return false;
    default:
      return true;
  }
}

struct Damaged {
  std::string what;
};

/// An open file with its statements. Throws SQLite::Exception, or Damaged for a file that opens but is not
/// sound.
class File {
 public:
  File(const std::string& path, const std::string& vfs, bool sync)
      : database_{path, SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE | SQLite::OPEN_NOMUTEX, 0, vfs} {
    // before the first access, so that the index of the WAL is in private memory and nobody else gets in
    database_.exec("PRAGMA locking_mode=EXCLUSIVE");
    database_.exec("PRAGMA page_size=4096");
    if (std::string mode = database_.execAndGet("PRAGMA journal_mode=WAL").getString(); mode != "wal")
      throw SQLite::Exception{"the journal mode is " + mode + ", not wal", SQLITE_READONLY};
    database_.exec(sync ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL");
    database_.exec("PRAGMA secure_delete=ON");  // a salvaged page must not bring deleted rows back
    database_.exec("PRAGMA cache_size=-1024");
    database_.exec("PRAGMA wal_autocheckpoint=512");
    database_.exec("PRAGMA journal_size_limit=2097152");
    database_.exec("PRAGMA temp_store=MEMORY");
    if (const std::string verdict = database_.execAndGet("PRAGMA quick_check(1)").getString();
        verdict != "ok")
      throw Damaged{verdict};
    const int version = database_.execAndGet("PRAGMA user_version").getInt();
    if (version > schema_version)
      throw Damaged{"it was written by a later version (schema " + std::to_string(version) + ")"};
    if (version < schema_version) {
      database_.exec("BEGIN IMMEDIATE");
      for (int step = version; step < schema_version; ++step) database_.exec(schema[step]);
      database_.exec("PRAGMA user_version=" + std::to_string(schema_version));
      database_.exec("COMMIT");
    } else {
      // an empty write transaction tells now, not at the first grant, whether the file can be written
      database_.exec("BEGIN IMMEDIATE");
      database_.exec("PRAGMA user_version=" + std::to_string(schema_version));
      database_.exec("COMMIT");
    }
    for (std::size_t i = 0; i < 3; ++i) {
      const std::string table = tables[i];
      put_[i].emplace(database_, "INSERT OR REPLACE INTO " + table + " VALUES (?, ?)");
      erase_[i].emplace(database_, "DELETE FROM " + table + " WHERE rowid = ?");
    }
  }

  void put(int table, std::uint64_t key, std::span<const std::byte> row) {
    auto& statement = *put_[table];
    statement.tryReset();  // of a call that failed, too
    statement.bind(1, static_cast<std::int64_t>(key));
    statement.bindNoCopy(2, row.data(), static_cast<int>(row.size()));
    statement.exec();
    statement.tryReset();
  }
  void erase(int table, std::uint64_t key) {
    auto& statement = *erase_[table];
    statement.tryReset();
    statement.bind(1, static_cast<std::int64_t>(key));
    statement.exec();
    statement.tryReset();
  }
  void begin() {
    begin_.tryReset();
    begin_.exec();
    begin_.tryReset();
  }
  void commit() {
    commit_.tryReset();
    commit_.exec();
    commit_.tryReset();
  }
  void roll_back() noexcept {
    for (std::size_t i = 0; i < 3; ++i) put_[i]->tryReset(), erase_[i]->tryReset();
    begin_.tryReset();
    commit_.tryReset();
    if (sqlite3_get_autocommit(database_.getHandle()) == 0) database_.tryExec("ROLLBACK");
  }

  template <class Take>
  void each(int table, Take take) {
    SQLite::Statement all{database_,
                          std::string{"SELECT rowid, body FROM "} + tables[table] + " ORDER BY rowid"};
    while (all.executeStep()) {
      const auto blob = all.getColumn(1);
      take(static_cast<std::uint64_t>(all.getColumn(0).getInt64()),
           std::span{static_cast<const std::byte*>(blob.getBlob()),
                     static_cast<std::size_t>(blob.getBytes())});
    }
  }

  static constexpr const char* tables[] = {"lease", "block", "meta"};

 private:
  SQLite::Database database_;
  std::optional<SQLite::Statement> put_[3], erase_[3];
  SQLite::Statement begin_{database_, "BEGIN IMMEDIATE"}, commit_{database_, "COMMIT"};
};

constexpr int lease_table = 0, block_table = 1, meta_table = 2;

class SqliteStore final : public Store {
 public:
  SqliteStore(SqliteOptions options, LockFile lock)
      : options_{std::move(options)},
        lock_{std::move(lock)},
        path_{(options_.dir / "leases.db").string()},
        boot_{tag_of(options_.boot_id)} {}

  ~SqliteStore() override {
    {
      const std::lock_guard guard{mutex_};
      stopping_ = true;
    }
    wake_.notify_one();
    if (thread_.joinable()) thread_.join();
  }

  StoreContent load() override {
    StoreContent content;
    const auto image = read_image(path_, options_.vfs);
    try {
      if (image && image->wal_damaged) throw Damaged{"its journal is damaged"};
      // SQLite takes a file of an unknown format for one that it must not write
      if (image && image->octets.size() >= 20 && std::to_integer<int>(image->octets[18]) > 2)
        throw Damaged{"its header is damaged"};
      file_ = std::make_unique<File>(path_, options_.vfs, options_.sync);
      if (!image) sync_directory(options_.dir);
      bool sound = true;
      file_->each(lease_table, [&](auto key, auto row) { sound &= keep(content, key, row, lease_format); });
      file_->each(block_table, [&](auto key, auto row) { sound &= keep(content, key, row, block_format); });
      file_->each(meta_table, [&](auto key, auto row) { sound &= keep(content, key, row, meta_format); });
      if (!sound) throw Damaged{"a row does not match its checksum"};
    } catch (const SQLite::Exception& error) {
      file_.reset();
      content = {};
      if (is_damage(error.getErrorCode()))
        salvage(content, image, error.what());
      else
        serve_image(content, image, error);
    } catch (const Damaged& damage) {
      file_.reset();
      content = {};
      salvage(content, image, damage.what);
    }
    meta_ = content.meta;
    thread_ = std::thread{[this] { run(); }};
    return content;
  }

  Ticket put(LeaseRecord record) override {
    return queue({Op::Kind::put_lease, record.number, std::move(record), {}, {}, {}});
  }
  Ticket erase(std::uint64_t lease) override { return queue({Op::Kind::erase_lease, lease, {}, {}, {}, {}}); }
  Ticket put_block(BlockRecord record) override {
    return queue({Op::Kind::put_block, record.lease, {}, std::move(record), {}, {}});
  }
  Ticket erase_block(std::uint64_t lease) override {
    return queue({Op::Kind::erase_block, lease, {}, {}, {}, {}});
  }
  Ticket set_meta(std::string_view key, std::string_view value) override {
    meta_.insert_or_assign(std::string{key}, std::string{value});
    return queue({Op::Kind::set_meta, 0, {}, {}, std::string{key}, std::string{value}});
  }
  std::optional<std::string> get_meta(std::string_view key) const override {
    const auto it = meta_.find(key);
    if (it == meta_.end()) return std::nullopt;
    return it->second;
  }

  StoreProgress take_progress() override {
    const std::lock_guard guard{mutex_};
    StoreProgress progress;
    progress.committed = committed_;
    progress.warnings = std::move(warnings_);
    warnings_.clear();
    notified_ = false;
    if (failure_) {
      progress.failure = std::move(failure_);
      progress.rebuild = rebuild_;
      failure_.reset();
      rebuild_ = false;
      queue_.clear();  // queued while the failure was not yet known: void
    }
    return progress;
  }

  std::uint32_t boot() const override { return boot_; }

 private:
  struct Op {
    enum class Kind : std::uint8_t { put_lease, erase_lease, put_block, erase_block, set_meta } kind;
    std::uint64_t key;
    LeaseRecord lease;
    BlockRecord block;
    std::string name, value;
  };

  Ticket queue(Op op) {
    const std::lock_guard guard{mutex_};
    queue_.push_back(std::move(op));
    if (queue_.size() == 1) wake_.notify_one();
    return ++last_ticket_;
  }

  void run() {
    std::vector<Op> batch;
    std::unique_lock guard{mutex_};
    for (;;) {
      wake_.wait(guard, [&] { return stopping_ || (!queue_.empty() && !failure_); });
      if (queue_.empty() || failure_) break;  // stopping, and nothing is left that can be written
      batch.swap(queue_);
      const Ticket last = last_ticket_;
      guard.unlock();
      std::optional<std::string> failure;
      bool rebuild = false;
      std::string warning;
      try {
        if (!file_) open_again();
        file_->begin();
        for (const auto& op : batch) apply(op);
        file_->commit();
        failures_in_a_row_ = 0;
      } catch (const SQLite::Exception& error) {
        failure = describe(error);
        // The connection stays where it can: it writes over what a failed sync may have left in the WAL,
        // while a new one would take that for committed.
        if (file_) file_->roll_back();
        const bool damage = is_damage(error.getErrorCode());
        if (damage || ++failures_in_a_row_ % 4 == 0) file_.reset();
        if (damage) rebuild = set_aside(warning, error.what());
      } catch (const Damaged& damage) {
        failure = damage.what;
        file_.reset();
        rebuild = set_aside(warning, damage.what);
      }
      batch.clear();
      if (batch.capacity() > 1024) batch.shrink_to_fit();
      guard.lock();
      if (failure) {
        failure_ = std::move(failure);
        rebuild_ = rebuild;
      } else {
        committed_ = last;
      }
      if (!warning.empty()) warnings_.push_back(std::move(warning));
      if (!notified_ && options_.notify) {
        notified_ = true;
        guard.unlock();
        options_.notify();
        guard.lock();
      }
    }
    guard.unlock();
    file_.reset();  // applies the WAL and removes it
  }

  /// The directory may have become writable, or possible at all, only since the start.
  void open_again() {
    if (const auto problem = lock_.settle(options_.dir)) throw SQLite::Exception{*problem, SQLITE_BUSY};
    file_ = std::make_unique<File>(path_, options_.vfs, options_.sync);
    sync_directory(options_.dir);
  }

  void apply(const Op& op) {
    switch (op.kind) {
      case Op::Kind::put_lease:
        encode(op.lease, row_);
        return file_->put(lease_table, op.key, row_);
      case Op::Kind::erase_lease:
        return file_->erase(lease_table, op.key);
      case Op::Kind::put_block:
        encode(op.block, row_);
        return file_->put(block_table, op.key, row_);
      case Op::Kind::erase_block:
        return file_->erase(block_table, op.key);
      case Op::Kind::set_meta:
        encode_meta(op.name, op.value, row_);
        return file_->put(meta_table, meta_key(op.name), row_);
    }
  }

  static std::string describe(const SQLite::Exception& error) {
    std::string text = sqlite3_errstr(error.getErrorCode());
    if (const std::string what = error.what(); what != text) text += " (" + what + ")";
    return text;
  }

  /// False when the row does not check out.
  static bool keep(StoreContent& content, std::uint64_t key, std::span<const std::byte> row,
                   std::byte format) {
    if (row.empty() || row.front() != format) return false;
    if (format == lease_format) {
      auto record = decode_lease(key, row);
      if (record) content.leases.push_back(std::move(*record));
      return record.has_value();
    }
    if (format == block_format) {
      auto record = decode_block(key, row);
      if (record) content.blocks.push_back(std::move(*record));
      return record.has_value();
    }
    auto entry = decode_meta(key, row);
    if (entry) content.meta.insert_or_assign(std::move(entry->first), std::move(entry->second));
    return entry.has_value();
  }

  /// Every row that checks out, wherever in the file it is.
  static void collect(StoreContent& content, const Image& image) {
    scan_rows(image, [&](std::uint64_t key, std::span<const std::byte> row) {
      if (!row.empty()) keep(content, key, row, row.front());
    });
    // a torn page split may leave a row twice: the one written later counts
    std::ranges::sort(content.leases, [](const LeaseRecord& a, const LeaseRecord& b) {
      return a.number != b.number ? a.number < b.number : a.renewals > b.renewals;
    });
    const auto twice = std::ranges::unique(content.leases, {}, &LeaseRecord::number);
    content.leases.erase(twice.begin(), twice.end());
    std::ranges::sort(content.blocks, {}, &BlockRecord::lease);
    const auto again = std::ranges::unique(content.blocks, {}, &BlockRecord::lease);
    content.blocks.erase(again.begin(), again.end());
  }

  /// The file cannot be opened for writing: what it holds is served from a copy.
  void serve_image(StoreContent& content, const std::optional<Image>& image, const SQLite::Exception& error) {
    content.read_only = describe(error);
    if (image) collect(content, *image);
  }

  void salvage(StoreContent& content, const std::optional<Image>& image, const std::string& why) {
    if (image) collect(content, *image);
    content.lost = true;
    std::string warning;
    set_aside(warning, why);
    content.warnings.push_back(warning + "; " + std::to_string(content.leases.size()) +
                               " leases could be read");
    try {
      file_ = std::make_unique<File>(path_, options_.vfs, options_.sync);
      sync_directory(options_.dir);
      file_->begin();
      for (const auto& record : content.leases)
        encode(record, row_), file_->put(lease_table, record.number, row_);
      for (const auto& record : content.blocks)
        encode(record, row_), file_->put(block_table, record.lease, row_);
      for (const auto& [name, value] : content.meta)
        encode_meta(name, value, row_), file_->put(meta_table, meta_key(name), row_);
      file_->commit();
    } catch (const SQLite::Exception& error) {
      file_.reset();
      content.read_only = describe(error);
      rebuild_ = true;
    } catch (const Damaged& damage) {
      file_.reset();
      content.read_only = damage.what;
      rebuild_ = true;
    }
  }

  /// Renames the damaged file and its WAL. False when that is not possible.
  bool set_aside(std::string& warning, const std::string& why) {
    char stamp[32];
    const std::time_t now = std::time(nullptr);
    std::tm parts{};
    gmtime_r(&now, &parts);
    std::strftime(stamp, sizeof stamp, "%Y%m%dT%H%M%SZ", &parts);
    std::string aside = path_ + ".damaged-" + stamp;
    std::error_code error;
    for (int i = 2; std::filesystem::exists(aside, error); ++i)
      aside = path_ + ".damaged-" + stamp + "-" + std::to_string(i);
    std::filesystem::rename(path_ + "-wal", aside + "-wal", error);
    error.clear();
    std::filesystem::rename(path_, aside, error);
    if (error) {
      warning =
          "the store " + path_ + " is damaged (" + why + ") and cannot be set aside: " + error.message();
      return false;
    }
    sync_directory(options_.dir);
    warning = "the store " + path_ + " was damaged (" + why + ") and is kept as " + aside;
    return true;
  }

  SqliteOptions options_;
  LockFile lock_;
  const std::string path_;
  const std::uint32_t boot_;
  std::map<std::string, std::string, std::less<>> meta_;  ///< control thread

  std::unique_ptr<File> file_;  ///< load(), then the store thread
  unsigned failures_in_a_row_ = 0;
  std::vector<std::byte> row_;
  std::thread thread_;

  std::mutex mutex_;  ///< guards all below
  std::condition_variable wake_;
  std::vector<Op> queue_;
  std::vector<std::string> warnings_;
  std::optional<std::string> failure_;
  Ticket last_ticket_ = 0, committed_ = 0;
  bool rebuild_ = false, notified_ = false, stopping_ = false;
};

}  // namespace

boost::system::result<std::unique_ptr<Store>, std::string> open_sqlite_store(SqliteOptions options) {
  auto lock = LockFile::take(options.dir);
  if (!lock) return lock.error();
  if (options.boot_id.empty()) {
    std::ifstream in{"/proc/sys/kernel/random/boot_id"};
    std::getline(in, options.boot_id);
  }
  return std::unique_ptr<Store>{std::make_unique<SqliteStore>(std::move(options), std::move(*lock))};
}

}  // namespace sallyport::lease
