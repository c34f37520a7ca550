#include "src/lease/store/lock_file.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cstring>
#include <utility>

namespace sallyport::lease {

boost::system::result<LockFile, std::string> LockFile::take(const std::filesystem::path& dir) {
  std::error_code ignored;
  std::filesystem::create_directories(dir, ignored);
  const auto path = dir / "leases.lock";
  int descriptor = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor < 0) descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) descriptor = ::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return LockFile{-1};  // nothing is there to be shared; load() tells what is wrong
  if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
    char pid[24]{};
    const auto size = ::pread(descriptor, pid, sizeof pid - 1, 0);
    ::close(descriptor);
    std::string holder = size > 0 ? std::string{pid, std::strcspn(pid, "\n")} : std::string{};
    return "another sallyportd" + (holder.empty() ? std::string{} : " (pid " + holder + ")") + " uses " +
           dir.string();
  }
  const auto pid = std::to_string(::getpid()) + "\n";
  if (::ftruncate(descriptor, 0) == 0) [[maybe_unused]]
    const auto written = ::pwrite(descriptor, pid.data(), pid.size(), 0);
  return LockFile{descriptor};
}

LockFile::LockFile(LockFile&& other) noexcept : descriptor_{std::exchange(other.descriptor_, -1)} {}

LockFile::~LockFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

}  // namespace sallyport::lease
