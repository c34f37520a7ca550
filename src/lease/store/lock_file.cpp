#include "src/lease/store/lock_file.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cstring>
#include <utility>

namespace sallyport::lease {

namespace {

/// A new directory is synced into its parent, or a power cut takes it with all that was promised in it.
void make(const std::filesystem::path& dir) {
  std::error_code error;
  if (dir.empty() || std::filesystem::exists(dir, error)) return;
  make(dir.parent_path());
  if (std::filesystem::create_directory(dir, error)) sync_directory(dir / "..");
}

int open_file(const std::filesystem::path& dir) {
  make(dir);
  const auto path = dir / "leases.lock";
  const int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  return descriptor >= 0 ? descriptor : ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
}

/// What to tell when another holds the lock.
std::optional<std::string> lock(int descriptor, const std::filesystem::path& dir) {
  if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
    char pid[24]{};
    const auto size = ::pread(descriptor, pid, sizeof pid - 1, 0);
    std::string holder = size > 0 ? std::string{pid, std::strcspn(pid, "\n")} : std::string{};
    return "another sallyportd" + (holder.empty() ? std::string{} : " (pid " + holder + ")") + " uses " +
           dir.string();
  }
  const auto pid = std::to_string(::getpid()) + "\n";
  if (::ftruncate(descriptor, 0) == 0) [[maybe_unused]]
    const auto written = ::pwrite(descriptor, pid.data(), pid.size(), 0);
  return std::nullopt;
}

}  // namespace

void sync_directory(const std::filesystem::path& dir) {
  const int descriptor = ::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return;
  ::fsync(descriptor);
  ::close(descriptor);
}

boost::system::result<LockFile, std::string> LockFile::take(const std::filesystem::path& dir) {
  LockFile taken{open_file(dir), true};
  if (taken.descriptor_ < 0) taken = LockFile{::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC), false};
  if (taken.descriptor_ >= 0)
    if (auto problem = lock(taken.descriptor_, dir)) return std::move(*problem);
  return taken;
}

std::optional<std::string> LockFile::settle(const std::filesystem::path& dir) {
  if (is_file_) return std::nullopt;
  LockFile file{open_file(dir), true};
  if (file.descriptor_ < 0) return std::nullopt;
  if (auto problem = lock(file.descriptor_, dir)) return problem;
  *this = std::move(file);  // only now the directory's lock goes
  return std::nullopt;
}

LockFile::LockFile(LockFile&& other) noexcept
    : descriptor_{std::exchange(other.descriptor_, -1)}, is_file_{other.is_file_} {}

LockFile& LockFile::operator=(LockFile&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  std::swap(is_file_, other.is_file_);
  return *this;
}

LockFile::~LockFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

}  // namespace sallyport::lease
