#pragma once

#include <deque>
#include <functional>

#include "src/lease/store/store.hpp"

namespace sallyport::test {

/// What a disk holds, apart from the process that writes it.
struct Disk {
  std::map<std::uint64_t, lease::LeaseRecord> leases;
  std::map<std::uint64_t, lease::BlockRecord> blocks;
  std::map<std::string, std::string, std::less<>> meta;
  std::uint32_t boot = 1;
  bool lost = false;
  std::optional<std::string> read_only;
};

/// A store whose commits happen when the test says so.
class MemoryStore final : public lease::Store {
 public:
  explicit MemoryStore(Disk& disk) : disk_{disk} {}

  lease::StoreContent load() override {
    lease::StoreContent content;
    for (const auto& [number, record] : disk_.leases) content.leases.push_back(record);
    for (const auto& [number, record] : disk_.blocks) content.blocks.push_back(record);
    content.meta = meta_ = disk_.meta;
    content.lost = disk_.lost;
    content.read_only = disk_.read_only;
    return content;
  }
  lease::Ticket put(lease::LeaseRecord record) override {
    return queue([this, record] { disk_.leases.insert_or_assign(record.number, record); });
  }
  lease::Ticket erase(std::uint64_t lease) override {
    return queue([this, lease] { disk_.leases.erase(lease); });
  }
  lease::Ticket put_block(lease::BlockRecord record) override {
    return queue([this, record] { disk_.blocks.insert_or_assign(record.lease, record); });
  }
  lease::Ticket erase_block(std::uint64_t lease) override {
    return queue([this, lease] { disk_.blocks.erase(lease); });
  }
  lease::Ticket set_meta(std::string_view key, std::string_view value) override {
    meta_.insert_or_assign(std::string{key}, std::string{value});
    return queue([this, k = std::string{key}, v = std::string{value}] { disk_.meta.insert_or_assign(k, v); });
  }
  std::optional<std::string> get_meta(std::string_view key) const override {
    const auto it = meta_.find(key);
    if (it == meta_.end()) return std::nullopt;
    return it->second;
  }
  lease::StoreProgress take_progress() override {
    lease::StoreProgress progress{committed_, failure_, rebuild_, {}};
    if (failure_) queue_.clear();
    failure_.reset();
    rebuild_ = false;
    return progress;
  }
  std::uint32_t boot() const override { return disk_.boot; }

  /// Commits all that is queued, or the first `count`.
  void commit(std::size_t count = ~std::size_t{0}) {
    for (; count > 0 && !queue_.empty(); --count) {
      queue_.front()();
      queue_.pop_front();
      ++committed_;
    }
    committed_ = queue_.empty() ? last_ : committed_;
  }
  void fail(std::string why, bool rebuild = false) {
    failure_ = std::move(why);
    rebuild_ = rebuild;
    if (rebuild) disk_.leases.clear(), disk_.blocks.clear(), disk_.meta.clear();
  }
  std::size_t queued() const { return queue_.size(); }

 private:
  lease::Ticket queue(std::function<void()> write) {
    queue_.push_back(std::move(write));
    return ++last_;
  }
  Disk& disk_;
  std::map<std::string, std::string, std::less<>> meta_;
  std::deque<std::function<void()>> queue_;
  std::optional<std::string> failure_;
  bool rebuild_ = false;
  lease::Ticket last_ = 0, committed_ = 0;
};

}  // namespace sallyport::test
