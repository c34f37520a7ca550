#pragma once

#include <filesystem>
#include <string>

#include <boost/system/result.hpp>

namespace sallyport::lease {

/// Keeps a second instance out of a state directory for as long as it lives (and no longer: the kernel drops
/// the lock with the process).
class LockFile {
 public:
  /// The error is a sentence for the operator. A directory in which no file can be made is locked itself.
  static boost::system::result<LockFile, std::string> take(const std::filesystem::path& dir);
  LockFile(LockFile&& other) noexcept;
  LockFile& operator=(LockFile&&) = delete;
  ~LockFile();

 private:
  explicit LockFile(int descriptor) noexcept : descriptor_{descriptor} {}
  int descriptor_;
};

}  // namespace sallyport::lease
