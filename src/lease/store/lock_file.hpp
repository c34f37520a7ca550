#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include <boost/system/result.hpp>

namespace sallyport::lease {

/// Makes new names in it last over a power cut, as far as the directory can be opened.
void sync_directory(const std::filesystem::path& dir);

/// Keeps a second instance out of a state directory for as long as it lives (and no longer: the kernel drops
/// the lock with the process).
class LockFile {
 public:
  /// The error is a sentence for the operator. A directory in which no file can be made is locked itself.
  static boost::system::result<LockFile, std::string> take(const std::filesystem::path& dir);
  /// To be called when the directory may have become writable: makes it and the file where take() could not,
  /// so that an instance that starts from now on meets the lock; as long as it still cannot, nothing changes.
  /// Gives a sentence for the operator when another instance came first.
  std::optional<std::string> settle(const std::filesystem::path& dir);
  LockFile(LockFile&& other) noexcept;
  LockFile& operator=(LockFile&& other) noexcept;
  ~LockFile();

 private:
  LockFile(int descriptor, bool is_file) noexcept : descriptor_{descriptor}, is_file_{is_file} {}
  int descriptor_;  ///< of the file, of the directory, or -1: nothing is there to be shared
  bool is_file_;
};

}  // namespace sallyport::lease
