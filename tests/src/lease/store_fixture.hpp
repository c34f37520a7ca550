#pragma once

#include <unistd.h>

#include <condition_variable>
#include <filesystem>
#include <mutex>

#include "src/lease/store/sqlite_store.hpp"

namespace sallyport::test {

/// A directory of its own that goes with the test.
class TempDir {
 public:
  TempDir() {
    // in memory where that is possible: hundreds of stores are made, and none of these tests is about the
    // disk
    const std::filesystem::path home =
        ::access("/dev/shm", W_OK) == 0 ? "/dev/shm" : std::filesystem::temp_directory_path();
    std::string name = (home / "sallyport-XXXXXX").string();
    path = ::mkdtemp(name.data());
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  std::filesystem::path path;
};

/// Waits for a store's thread by its notifier; no sleeping.
class Bell {
 public:
  void ring() {
    const std::lock_guard guard{mutex_};
    ++rung_;
    changed_.notify_all();
  }
  void wait_beyond(std::size_t seen) {
    std::unique_lock guard{mutex_};
    changed_.wait_for(guard, std::chrono::seconds{20}, [&] { return rung_ > seen; });
  }
  std::size_t rung() {
    const std::lock_guard guard{mutex_};
    return rung_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t rung_ = 0;
};

inline lease::LeaseRecord record(std::uint64_t number) {
  lease::LeaseRecord record;
  record.number = number;
  record.via = number % 2 ? Via::pcp : Via::natpmp;
  record.transport = number % 3 ? Transport::tcp : Transport::udp;
  record.internal_address = Address::v4(0xc0a80100 + static_cast<std::uint32_t>(number % 250));
  record.internal_port = static_cast<std::uint16_t>(1 + number % 60000);
  record.external_port = static_cast<std::uint16_t>(1024 + number % 60000);
  if (number % 2) record.nonce.emplace().fill(static_cast<std::byte>(number));
  record.lifetime_s = 3600;
  record.boot = 7;
  record.deadline = TimePoint{std::chrono::seconds{5000 + number}};
  record.deadline_wall = WallTime{std::chrono::seconds{1772323200 + number}};
  record.created = WallTime{std::chrono::seconds{1772320000}};
  record.renewals = static_cast<std::uint32_t>(number % 5);
  record.outbound = number % 7 == 3;
  if (number % 7 == 5) record.ports = static_cast<std::uint16_t>(2 + number % 400);
  record.contact = {2, record.internal_address, 40000, Address::v4(0xc0a80101)};
  if (number % 7 == 0)
    record.remotes = {{Prefix::v4(0xc6336400, 24), Port::from(53)},
                      {Prefix::v4(0xcb007101, 32), std::nullopt}};
  if (number % 5 == 0) record.description = "number " + std::to_string(number);
  if (number % 11 == 4) {  // a pinhole
    record.internal_address = *Address::parse("2001:db8:1::" + std::to_string(number % 250));
    record.external_port = record.internal_port;
    record.contact = {2, record.internal_address, 40000, *Address::parse("fe80::1")};
    if (!record.remotes.empty()) record.remotes[0] = {*Prefix::parse("2001:db8:ffff::/48"), Port::from(53)};
    if (number % 2 == 0) record.pinhole = static_cast<std::uint16_t>(1 + number % 65535);
  }
  return record;
}

/// Queues nothing, waits until what is queued is committed or failed, and gives the last progress.
inline lease::StoreProgress settle(lease::Store& store, Bell& bell, lease::Ticket ticket) {
  for (;;) {
    const auto seen = bell.rung();
    auto progress = store.take_progress();
    if (progress.failure || progress.committed >= ticket) return progress;
    bell.wait_beyond(seen);
    if (bell.rung() == seen) return progress;  // 20 s without news: let the test say so
  }
}

}  // namespace sallyport::test
