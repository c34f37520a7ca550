#include <fcntl.h>
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <random>
#include <set>

#include "src/lease/store/record_codec.hpp"
#include "tests/src/lease/fault_vfs.hpp"
#include "tests/src/lease/memory_store.hpp"
#include "tests/src/lease/store_fixture.hpp"

namespace sallyport::test {
namespace {

using lease::Store;
using lease::StoreContent;
using lease::Ticket;

// --- one suite for every backend
// ------------------------------------------------------------------------------

/// A home for a store that outlives it.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::unique_ptr<Store> open() = 0;
  virtual lease::StoreProgress wait(Store& store, Ticket ticket) = 0;
};

class MemoryBackend final : public Backend {
 public:
  std::unique_ptr<Store> open() override { return std::make_unique<MemoryStore>(disk_); }
  lease::StoreProgress wait(Store& store, Ticket) override {
    static_cast<MemoryStore&>(store).commit();
    return store.take_progress();
  }

 private:
  Disk disk_;
};

class SqliteBackend : public Backend {
 public:
  explicit SqliteBackend(bool on_fault_vfs = false) {
    if (!on_fault_vfs) return;
    vfs = std::make_unique<FaultVfs>("fault-" + std::to_string(reinterpret_cast<std::uintptr_t>(this)));
  }
  std::unique_ptr<Store> open() override {
    auto store = lease::open_sqlite_store({.dir = dir.path,
                                           .sync = true,
                                           .notify = [this] { bell.ring(); },
                                           .vfs = vfs ? vfs->name() : "",
                                           .boot_id = "a boot"});
    if (!store) throw std::runtime_error{store.error()};
    return std::move(*store);
  }
  lease::StoreProgress wait(Store& store, Ticket ticket) override { return settle(store, bell, ticket); }
  std::string file() const { return (dir.path / "leases.db").string(); }

  TempDir dir;
  Bell bell;
  std::unique_ptr<FaultVfs> vfs;
};

struct Kind {
  std::string name;
  std::function<std::unique_ptr<Backend>()> make;
};

class EveryStore : public ::testing::TestWithParam<Kind> {
 protected:
  std::unique_ptr<Backend> backend = GetParam().make();
};

TEST_P(EveryStore, IsEmptyAtFirst) {
  const auto content = backend->open()->load();
  EXPECT_TRUE(content.leases.empty() && content.blocks.empty() && content.meta.empty());
  EXPECT_FALSE(content.lost);
  EXPECT_FALSE(content.read_only);
  EXPECT_TRUE(content.warnings.empty());
}

TEST_P(EveryStore, GivesBackWhatWasCommittedInEveryField) {
  auto store = backend->open();
  store->load();
  std::vector<lease::LeaseRecord> wanted;
  Ticket last = 0;
  for (std::uint64_t n = 1; n <= 300; ++n) {
    wanted.push_back(record(n));
    last = store->put(record(n));
  }
  auto permanent = record(301);
  permanent.lifetime_s.reset();
  permanent.boot = 0;
  permanent.deadline = TimePoint::max();
  permanent.deadline_wall = {};
  permanent.enabled = false;
  permanent.internal_address = *Address::parse("2001:db8::5");
  permanent.contact.client = *Address::parse("192.168.1.9");
  permanent.description = std::string(255, 'x');
  wanted.push_back(permanent);
  last = store->put(permanent);
  EXPECT_EQ(backend->wait(*store, last).committed, last);
  store.reset();
  const auto content = backend->open()->load();
  EXPECT_EQ(content.leases, wanted);
}

TEST_P(EveryStore, WritesTakeEffectInTheirOrder) {
  auto store = backend->open();
  store->load();
  store->put(record(1));
  store->put(record(2));
  store->erase(1);
  store->erase(99);
  auto renewed = record(2);
  renewed.renewals = 77;
  store->put(renewed);
  store->set_meta("epoch", "1");
  Ticket last = store->set_meta("epoch", "2");
  EXPECT_EQ(store->get_meta("epoch"), "2");
  EXPECT_EQ(store->get_meta("no such name"), std::nullopt);
  backend->wait(*store, last);
  store.reset();
  store = backend->open();
  const auto content = store->load();
  ASSERT_EQ(content.leases.size(), 1u);
  EXPECT_EQ(content.leases[0], renewed);
  EXPECT_EQ(content.meta.at("epoch"), "2");
  EXPECT_EQ(store->get_meta("epoch"), "2");
}

TEST_P(EveryStore, KeepsBlocks) {
  auto store = backend->open();
  store->load();
  const lease::BlockRecord forever{1, Address::v4(0xc0a80105), Transport::tcp, 80, std::nullopt, "camera"};
  const lease::BlockRecord timed{
      2, Address::v4(0xc0a80105), Transport::udp, 81, WallTime{std::chrono::seconds{1772323200}}, ""};
  const lease::BlockRecord of_a_mac{4,  *Address::parse("2001:db8:1::5"), Transport::tcp, 83, std::nullopt,
                                    "", *Address::parse("ff00::200:0:10")};
  store->put_block(forever);
  store->put_block(timed);
  store->put_block(of_a_mac);
  store->put_block({3, Address::v4(0xc0a80106), Transport::tcp, 82, std::nullopt, ""});
  backend->wait(*store, store->erase_block(3));
  store.reset();
  EXPECT_EQ(backend->open()->load().blocks, (std::vector{forever, timed, of_a_mac}));
}

INSTANTIATE_TEST_SUITE_P(Backends, EveryStore,
                         ::testing::Values(Kind{"memory", [] { return std::make_unique<MemoryBackend>(); }},
                                           Kind{"sqlite", [] { return std::make_unique<SqliteBackend>(); }},
                                           Kind{"sqlite_on_the_fault_vfs",
                                                [] { return std::make_unique<SqliteBackend>(true); }}),
                         [](const auto& kind) { return kind.param.name; });

// --- what only SQLite has
// ----------------------------------------------------------------------------------------

class SqliteStoreTest : public ::testing::Test {
 protected:
  /// A store with leases 1..count, closed cleanly or left as kill -9 leaves it.
  void fill(std::uint64_t count, bool cleanly = true) {
    auto store = home.open();
    store->load();
    Ticket last = 0;
    for (std::uint64_t n = 1; n <= count; ++n) last = store->put(record(n));
    home.wait(*store, last);
    if (cleanly) return;
    std::filesystem::copy(home.file(), home.file() + ".copy");
    std::filesystem::copy(home.file() + "-wal", home.file() + ".copy-wal");
    store.reset();
    std::filesystem::rename(home.file() + ".copy", home.file());
    std::filesystem::rename(home.file() + ".copy-wal", home.file() + "-wal");
  }
  std::string bytes(const std::string& path) {
    std::ifstream in{path, std::ios::binary};
    return {std::istreambuf_iterator<char>{in}, {}};
  }
  void set_bytes(const std::string& path, const std::string& text) {
    std::ofstream{path, std::ios::binary | std::ios::trunc} << text;
  }
  /// Opens, and checks what holds for every damage: it starts, invents nothing, and works afterwards.
  StoreContent open_damaged(std::uint64_t count) {
    auto store = home.open();
    auto content = store->load();
    std::uint64_t before = 0;
    for (const auto& lease : content.leases) {
      EXPECT_GT(lease.number, before);
      before = lease.number;
      EXPECT_LE(lease.number, count);
      EXPECT_EQ(lease, record(lease.number));
    }
    EXPECT_FALSE(content.read_only);
    const auto progress = home.wait(*store, store->put(record(count + 1)));
    EXPECT_FALSE(progress.failure) << *progress.failure;
    store->erase(count + 1);
    store.reset();
    if (content.leases.size() < count) {
      EXPECT_TRUE(content.lost);
    }
    if (content.lost) {
      EXPECT_FALSE(content.warnings.empty());
      // what was salvaged is in the new store
      store = home.open();
      const auto again = store->load();
      EXPECT_FALSE(again.lost);
      EXPECT_EQ(again.leases, content.leases);
    }
    return content;
  }

  SqliteBackend home;
};

TEST_F(SqliteStoreTest, ASecondInstanceIsKeptOut) {
  const auto first = home.open();
  const auto second =
      lease::open_sqlite_store({.dir = home.dir.path, .sync = true, .notify = {}, .vfs = "", .boot_id = "b"});
  ASSERT_FALSE(second);
  EXPECT_NE(second.error().find("pid " + std::to_string(::getpid())), std::string::npos) << second.error();
  EXPECT_NE(second.error().find(home.dir.path.string()), std::string::npos) << second.error();
}

TEST_F(SqliteStoreTest, TheLockGoesWithTheProcess) {
  const pid_t child = ::fork();
  if (child == 0) {
    const auto store = lease::open_sqlite_store(
        {.dir = home.dir.path, .sync = true, .notify = {}, .vfs = "", .boot_id = "b"});
    ::_exit(store ? 0 : 1);  // without any destructor
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  EXPECT_NO_THROW(home.open());
}

TEST_F(SqliteStoreTest, RequestsThatArriveTogetherAreCommittedTogether) {
  SqliteBackend fault{true};
  auto store = fault.open();
  store->load();
  fault.wait(*store, store->put(record(1)));
  const auto before = fault.vfs->syncs.load();
  Ticket last = 0;
  for (std::uint64_t n = 2; n <= 1000; ++n) last = store->put(record(n));
  fault.wait(*store, last);
  EXPECT_LT(fault.vfs->syncs - before, 100u);
  EXPECT_GE(fault.vfs->syncs - before, 1u) << "and synced";
}

TEST_F(SqliteStoreTest, TheJournalDoesNotGrowWithoutBoundAndTenThousandLeasesFitIn8MiB) {  // POL-STO-06
  auto store = home.open();
  store->load();
  Ticket last = 0;
  std::uintmax_t largest = 0;
  for (int round = 0; round < 4; ++round) {
    for (std::uint64_t n = 1; n <= 10000; ++n) {
      last = store->put(record(n));
      if (n % 64 == 0) home.wait(*store, last);
    }
    home.wait(*store, last);
    largest = std::max(
        largest, std::filesystem::file_size(home.file()) + std::filesystem::file_size(home.file() + "-wal"));
  }
  EXPECT_LT(largest, 8u << 20);
}

TEST_F(SqliteStoreTest, MigratesAnOlderFile) {
  sqlite3* database = nullptr;
  ASSERT_EQ(sqlite3_open(home.file().c_str(), &database), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(database,
                         "CREATE TABLE lease (number INTEGER PRIMARY KEY, body BLOB NOT NULL);"
                         "CREATE TABLE meta (key INTEGER PRIMARY KEY, body BLOB NOT NULL);"
                         "PRAGMA user_version=1;",
                         nullptr, nullptr, nullptr),
            SQLITE_OK);
  std::vector<std::byte> row;
  lease::encode(record(5), row);
  sqlite3_stmt* insert = nullptr;
  sqlite3_prepare_v2(database, "INSERT INTO lease VALUES (5, ?)", -1, &insert, nullptr);
  sqlite3_bind_blob(insert, 1, row.data(), static_cast<int>(row.size()), SQLITE_TRANSIENT);
  EXPECT_EQ(sqlite3_step(insert), SQLITE_DONE);
  sqlite3_finalize(insert);
  sqlite3_close(database);
  auto store = home.open();
  const auto content = store->load();
  EXPECT_FALSE(content.lost);
  ASSERT_EQ(content.leases.size(), 1u);
  EXPECT_EQ(content.leases[0], record(5));
  EXPECT_FALSE(
      home.wait(*store, store->put_block({5, Address::v4(1), Transport::tcp, 1, std::nullopt, ""})).failure);
}

TEST_F(SqliteStoreTest, AFileOfALaterVersionIsKeptAsideNotOverwritten) {
  fill(3);
  sqlite3* database = nullptr;
  ASSERT_EQ(sqlite3_open(home.file().c_str(), &database), SQLITE_OK);
  sqlite3_exec(database, "PRAGMA user_version=99", nullptr, nullptr, nullptr);
  sqlite3_close(database);
  const auto content = home.open()->load();
  EXPECT_TRUE(content.lost);
  EXPECT_EQ(content.leases.size(), 3u);
  ASSERT_EQ(content.warnings.size(), 1u);
  EXPECT_NE(content.warnings[0].find("later version"), std::string::npos);
}

TEST_F(SqliteStoreTest, SurvivesKill9) {  // POL-STO-02
  fill(500, false);
  const auto content = home.open()->load();
  EXPECT_EQ(content.leases.size(), 500u);
  EXPECT_FALSE(content.lost);
}

// --- damage
// ---------------------------------------------------------------------------------------------------------

TEST_F(SqliteStoreTest, RubbishBehindTheEndCostsNothing) {  // POL-STO-05
  fill(500);
  const auto whole = bytes(home.file());
  for (const std::size_t size : {1u, 100u, 4096u, 10000u}) {
    std::string rubbish(size, '\0');
    std::mt19937 random{static_cast<unsigned>(size)};
    for (auto& c : rubbish) c = static_cast<char>(random());
    set_bytes(home.file(), whole + rubbish);
    const auto content = home.open()->load();
    EXPECT_EQ(content.leases.size(), 500u) << size;
    EXPECT_FALSE(content.lost) << size;
  }
}

TEST_F(SqliteStoreTest, RubbishBehindTheJournalCostsNothing) {  // POL-STO-05
  fill(500, false);
  set_bytes(home.file() + "-wal", bytes(home.file() + "-wal") + std::string(5000, 'x'));
  const auto content = home.open()->load();
  EXPECT_EQ(content.leases.size(), 500u);
  EXPECT_FALSE(content.lost);
}

TEST_F(SqliteStoreTest, ATruncatedFileCostsTheNewest) {  // POL-STO-05
  constexpr std::uint64_t count = 2000;
  fill(count);
  const auto whole = bytes(home.file());
  std::size_t kept_at_half = 0;
  for (std::size_t size = 0; size < whole.size(); size += whole.size() / 23 + 77) {
    SCOPED_TRACE(size);
    set_bytes(home.file(), whole.substr(0, size));
    const auto content = open_damaged(size == 0 ? 0 : count);
    if (size >= whole.size() / 2 && kept_at_half == 0) kept_at_half = content.leases.size();
  }
  EXPECT_GT(kept_at_half, count / 3);
  set_bytes(home.file(), whole.substr(0, whole.size() - 100));
  EXPECT_GT(open_damaged(count).leases.size(), count - 100) << "a damaged end costs a few";
}

TEST_F(SqliteStoreTest, FlippedPagesCostWhatStoodOnThem) {  // POL-STO-05
  constexpr std::uint64_t count = 2000;
  fill(count);
  const auto whole = bytes(home.file());
  std::mt19937 random{11};
  for (int round = 0; round < 40; ++round) {
    SCOPED_TRACE(round);
    auto damaged = whole;
    const std::size_t page = round % (whole.size() / 4096);
    for (std::size_t i = 0; i < 4096; i += 1 + random() % 64)
      damaged[page * 4096 + i] = static_cast<char>(random());
    set_bytes(home.file(), damaged);
    EXPECT_GT(open_damaged(count).leases.size(), count - 100);
  }
}

TEST_F(SqliteStoreTest, SingleFlippedBitsCostAtMostAPage) {  // POL-STO-05
  constexpr std::uint64_t count = 500;
  fill(count);
  const auto whole = bytes(home.file());
  std::mt19937 random{12};
  for (int round = 0; round < 150; ++round) {
    SCOPED_TRACE(round);
    auto damaged = whole;
    const std::size_t at =
        round < 100 ? round : random() % whole.size();  // every octet of the header, then anywhere
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << random() % 8));
    set_bytes(home.file(), damaged);
    EXPECT_GT(open_damaged(count).leases.size(), count - 50);
  }
}

TEST_F(SqliteStoreTest, NotADatabaseAtAll) {
  set_bytes(home.file(), std::string(20000, 'x'));
  const auto content = open_damaged(0);
  EXPECT_TRUE(content.leases.empty());
  EXPECT_TRUE(content.lost);
  bool kept = false;
  for (const auto& entry : std::filesystem::directory_iterator{home.dir.path})
    kept |= entry.path().filename().string().starts_with("leases.db.damaged-") && entry.file_size() == 20000;
  EXPECT_TRUE(kept) << "the damaged file is kept aside";
}

TEST_F(SqliteStoreTest, ADamagedJournalIsNoticed) {  // POL-STO-05, POL-STO-07
  fill(2, true);
  {
    auto store = home.open();
    store->load();
    for (std::uint64_t n = 3; n <= 60; ++n) home.wait(*store, store->put(record(n)));
    std::filesystem::copy(home.file(), home.file() + ".copy");
    std::filesystem::copy(home.file() + "-wal", home.file() + ".copy-wal");
  }
  std::filesystem::rename(home.file() + ".copy", home.file());
  std::filesystem::rename(home.file() + ".copy-wal", home.file() + "-wal");
  const auto base = bytes(home.file());
  const auto wal = bytes(home.file() + "-wal");
  for (std::size_t at = 32 + 24 + 2000; at < wal.size() * 3 / 4; at += wal.size() / 9) {
    SCOPED_TRACE(at);
    auto damaged = wal;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    set_bytes(home.file(), base);
    set_bytes(home.file() + "-wal", damaged);
    const auto content = open_damaged(60);
    EXPECT_TRUE(content.lost);
    EXPECT_GE(content.leases.size(), 59u) << "what was committed later is read all the same";
  }
}

// --- a disk that cannot be written
// ------------------------------------------------------------------------------------

class FaultyDiskTest : public ::testing::Test {
 protected:
  SqliteBackend home{true};
  FaultVfs& disk = *home.vfs;
};

TEST_F(FaultyDiskTest, AFullDiskFailsTheCommitAndLeavesWhatWasThere) {  // POL-STO-04
  auto store = home.open();
  store->load();
  home.wait(*store, store->put(record(1)));
  disk.full = true;
  Ticket last = 0;
  for (std::uint64_t n = 2; n < 3000; ++n) last = store->put(record(n));
  auto progress = home.wait(*store, last);
  ASSERT_TRUE(progress.failure);
  EXPECT_NE(progress.failure->find("full"), std::string::npos) << *progress.failure;
  EXPECT_FALSE(progress.rebuild);
  disk.full = false;
  progress = home.wait(*store, store->put(record(9000)));
  EXPECT_FALSE(progress.failure);
  store.reset();
  const auto content = home.open()->load();
  ASSERT_GE(content.leases.size(), 2u);
  EXPECT_EQ(content.leases.front(), record(1));
  EXPECT_EQ(content.leases.back(), record(9000));
}

TEST_F(FaultyDiskTest, AFailedSyncIsAFailedCommit) {
  auto store = home.open();
  store->load();
  home.wait(*store, store->put(record(1)));
  disk.sync_fails = true;
  const auto ticket = store->put(record(2));
  auto progress = home.wait(*store, ticket);
  ASSERT_TRUE(progress.failure);
  EXPECT_LT(progress.committed, ticket);
  // queued before the failure was taken: void; after: tried afresh
  disk.sync_fails = false;
  progress = home.wait(*store, store->put(record(3)));
  EXPECT_FALSE(progress.failure);
  store.reset();
  const auto content = home.open()->load();
  EXPECT_EQ(content.leases.size(), 2u);
  EXPECT_EQ(content.leases.back(), record(3));
}

TEST_F(FaultyDiskTest, AReadOnlyDiskIsServedAtTheStartAndHealsByItself) {  // POL-STO-04
  {
    auto store = home.open();
    store->load();
    Ticket last = store->set_meta("epoch", "5");
    for (std::uint64_t n = 1; n <= 300; ++n) last = store->put(record(n));
    home.wait(*store, last);
  }
  disk.read_only = true;
  auto store = home.open();
  const auto content = store->load();
  EXPECT_TRUE(content.read_only);
  EXPECT_FALSE(content.lost);
  EXPECT_EQ(content.leases.size(), 300u);
  EXPECT_EQ(content.meta.at("epoch"), "5");
  EXPECT_TRUE(home.wait(*store, store->put(record(301))).failure);
  disk.read_only = false;
  EXPECT_FALSE(home.wait(*store, store->put(record(302))).failure);
  store.reset();
  EXPECT_EQ(home.open()->load().leases.size(), 301u);
}

TEST_F(FaultyDiskTest, AReadOnlyDiskWithAJournalLeftByKill9) {
  std::unique_ptr<FaultVfs> left;
  {
    auto store = home.open();
    store->load();
    Ticket last = 0;
    for (std::uint64_t n = 1; n <= 100; ++n) last = store->put(record(n));
    home.wait(*store, last);
    left = disk.power_cut(1);  // all of it was synced
  }
  ASSERT_FALSE(left->contents(home.file() + "-wal").empty());
  left->read_only = true;
  home.vfs.swap(left);
  const auto content = home.open()->load();
  EXPECT_TRUE(content.read_only);
  EXPECT_EQ(content.leases.size(), 100u);
}

TEST_F(FaultyDiskTest, ATornCopyOfALastFrameIsNoDamage) {  // POL-STO-05
  // SQLite fills a commit up to the end of a sector with a copy of its last frame, whose rest is synced only
  // with the next commit. Here the power goes when of that commit just the first frame has reached the disk.
  constexpr std::ptrdiff_t frame_size = 24 + 4096;
  const auto wal_file = home.file() + "-wal";
  std::vector<unsigned char> database, before, after;
  {
    auto store = home.open();
    store->load();
    Ticket last = 0;
    for (std::uint64_t n = 1; n <= 100; ++n) last = store->put(record(n));
    home.wait(*store, last);
    // the length of the WAL must not end at a sector for a copy to be there
    for (std::uint64_t n = 101; disk.contents(wal_file).size() % 512 == 0; ++n)
      home.wait(*store, store->put(record(n)));
    before = disk.contents(wal_file);
    for (std::uint64_t n = 200; n <= 300; ++n) last = store->put(record(n));
    home.wait(*store, last);
    after = disk.contents(wal_file);
    database = disk.contents(home.file());
  }
  const auto end = static_cast<std::ptrdiff_t>(before.size());
  ASSERT_EQ((end - 32) % frame_size, 0);
  ASSERT_TRUE(std::equal(before.end() - frame_size, before.end() - frame_size + 16, before.end() - 2 * frame_size))
      << "the last frame is a copy of the one before";
  ASSERT_GE(static_cast<std::ptrdiff_t>(after.size()), end + 2 * frame_size);
  std::fill(after.begin() + end - 1000, after.begin() + end, std::uint8_t{0});
  after.resize(static_cast<std::size_t>(end + frame_size));
  disk.set_contents(home.file(), database);
  disk.set_contents(wal_file, after);
  const auto content = home.open()->load();
  EXPECT_FALSE(content.lost) << (content.warnings.empty() ? "" : content.warnings[0]);
  EXPECT_GE(content.leases.size(), 100u);
  EXPECT_LT(content.leases.back().number, 200u);
}

TEST(SqliteStoreOnDisk, ADirectoryThatCannotBeMade) {
  auto store = lease::open_sqlite_store(
      {.dir = "/proc/no/such/dir", .sync = true, .notify = {}, .vfs = "", .boot_id = "b"});
  ASSERT_TRUE(store);
  const auto content = (*store)->load();
  EXPECT_TRUE(content.read_only);
  EXPECT_TRUE(content.leases.empty());
}

/// A directory in which nothing can be made for now, whoever asks.
struct UnusableDir {
  enum class Why { missing, read_only } why;
  TempDir home;
  std::filesystem::path dir = home.path / "var" / "state";
  Bell bell;

  explicit UnusableDir(Why reason) : why{reason} {
    if (why == Why::missing) {
      std::ofstream{home.path / "var"} << "not a directory";
    } else {
      std::filesystem::create_directories(dir);
      for (const char* name : {"leases.lock", "leases.db"})
        std::filesystem::create_symlink("/proc/no/such/file", dir / name);
    }
  }
  void repair() {
    if (why == Why::missing) {
      std::filesystem::remove(home.path / "var");
    } else {
      for (const char* name : {"leases.lock", "leases.db"}) std::filesystem::remove(dir / name);
    }
  }
  auto open() {
    return lease::open_sqlite_store(
        {.dir = dir, .sync = true, .notify = [this] { bell.ring(); }, .vfs = "", .boot_id = "b"});
  }
};

class SqliteStoreInUnusableDir : public ::testing::TestWithParam<UnusableDir::Why> {};

TEST_P(SqliteStoreInUnusableDir, HealsOnceTheDirectoryCanBeWritten) {  // POL-STO-04
  UnusableDir place{GetParam()};
  auto store = place.open();
  ASSERT_TRUE(store);
  EXPECT_TRUE((*store)->load().read_only);
  EXPECT_TRUE(settle(**store, place.bell, (*store)->put(record(1))).failure);
  place.repair();
  const auto progress = settle(**store, place.bell, (*store)->put(record(2)));
  EXPECT_FALSE(progress.failure) << *progress.failure;
  const auto second = place.open();
  ASSERT_FALSE(second) << "the lock was not made up for";
  EXPECT_NE(second.error().find("pid " + std::to_string(::getpid())), std::string::npos) << second.error();
  store->reset();
  auto again = place.open();
  ASSERT_TRUE(again);
  const auto content = (*again)->load();
  ASSERT_EQ(content.leases.size(), 1u);
  EXPECT_EQ(content.leases[0], record(2));
}

TEST_P(SqliteStoreInUnusableDir, AnInstanceThatComesFirstKeepsTheFile) {
  UnusableDir place{GetParam()};
  auto store = place.open();
  ASSERT_TRUE(store);
  EXPECT_TRUE((*store)->load().read_only);
  place.repair();
  const auto first = place.open();
  ASSERT_TRUE(first);
  EXPECT_FALSE((*first)->load().read_only);
  const auto progress = settle(**store, place.bell, (*store)->put(record(1)));
  ASSERT_TRUE(progress.failure);
  EXPECT_NE(progress.failure->find("another sallyportd"), std::string::npos) << *progress.failure;
}

INSTANTIATE_TEST_SUITE_P(Store, SqliteStoreInUnusableDir,
                         ::testing::Values(UnusableDir::Why::missing, UnusableDir::Why::read_only),
                         [](const auto& param) {
                           return param.param == UnusableDir::Why::missing ? "Missing" : "ReadOnly";
                         });

// --- rows
// -----------------------------------------------------------------------------------------------------------

TEST(RecordCodec, EveryFlippedBitIsSeenAndEveryCutToo) {
  // a set, a pinhole that UPnP names, and one row with the marks of both
  for (const std::uint64_t number : {1u, 2u, 35u, 5u, 4u, 26u}) {
    std::vector<std::byte> row;
    lease::encode(record(number), row);
    ASSERT_EQ(lease::decode_lease(number, row), record(number));
    EXPECT_FALSE(lease::decode_lease(number + 1, row)) << "a row under another number";
    for (std::size_t i = 0; i < row.size(); ++i) {
      EXPECT_FALSE(lease::decode_lease(number, std::span{row}.first(i)));
      for (int bit = 0; bit < 8; ++bit) {
        row[i] ^= std::byte{1} << bit;
        EXPECT_FALSE(lease::decode_lease(number, row));
        row[i] ^= std::byte{1} << bit;
      }
    }
  }
}

/// As written before there were pinholes: whoever takes a bit for something new must not take one of these.
TEST(RecordCodec, ReadsAndWritesRowsAsBefore) {
  const auto octets = [](std::string_view hex) {
    std::vector<std::byte> row;
    for (std::size_t i = 0; i < hex.size(); i += 2)
      row.push_back(static_cast<std::byte>(std::stoi(std::string{hex.substr(i, 2)}, nullptr, 16)));
    return row;
  };
  const std::pair<std::uint64_t, std::string_view> rows[] = {
      {1,
       "4c01060104c0a801010002040101010101010101010101010100000e10000000070000048c62d41a000000000069a381810000"
       "000069a3750000000001000000029c4004c0a801010000000000006d70e653"},
      {5,
       "4c01062104c0a8010500060405000705050505050505050505050500000e10000000070000048d513f42000000000069a38185"
       "0000000069a3750000000000000000029c4004c0a801010000000000086e756d62657220359de23c6c"},
      {77,
       "4c01060104c0a8014d004e044d4d4d4d4d4d4d4d4d4d4d4d4d00000e10000000070000049e14c812000000000069a381cd0000"
       "000069a3750000000002000000029c4004c0a80101000204c633640078003504cb0071018000000000000068057379"},
  };
  for (const auto& [number, hex] : rows) {
    EXPECT_EQ(lease::decode_lease(number, octets(hex)), record(number)) << number;
    std::vector<std::byte> row;
    lease::encode(record(number), row);
    std::string written;
    for (const std::byte octet : row) {
      constexpr std::string_view digits = "0123456789abcdef";
      written += digits[std::to_integer<unsigned>(octet) >> 4];
      written += digits[std::to_integer<unsigned>(octet) & 15];
    }
    EXPECT_EQ(written, hex) << number;
  }
}

}  // namespace
}  // namespace sallyport::test
