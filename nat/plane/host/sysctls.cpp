#include "nat/plane/host/sysctls.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <sstream>

namespace sallyport::nat::host {
namespace {

boost::system::error_code system_error(int number) { return {number, boost::system::generic_category()}; }

std::string path_of(std::string_view key) { return "/proc/sys/net/" + std::string{key}; }

std::string slurp(const std::string& path) {
  std::ifstream in{path};
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

/// A number that no other network namespace has before the next boot.
std::uint64_t network_namespace() {
  constexpr int so_netns_cookie = 71;  // Linux 5.14
  std::uint64_t cookie = 0;
  socklen_t length = sizeof cookie;
  const int any = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  const bool told = any >= 0 && getsockopt(any, SOL_SOCKET, so_netns_cookie, &cookie, &length) == 0;
  if (any >= 0) close(any);
  if (told) return cookie;
  struct stat netns {};  // inodes are used again, but this is as near as older kernels come
  stat("/proc/thread-self/ns/net", &netns);
  return netns.st_ino;
}

std::string this_place() {
  std::string boot = slurp("/proc/sys/kernel/random/boot_id");
  while (!boot.empty() && boot.back() == '\n') boot.pop_back();
  return "sallyport-tun-undo 1 boot " + boot + " netns " + std::to_string(network_namespace());
}

}  // namespace

std::optional<std::string> read_sysctl(std::string_view key) {
  const int fd = open(path_of(key).c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return std::nullopt;
  std::string value;
  std::array<char, 4096> part;
  for (;;) {
    const ssize_t size = read(fd, part.data(), part.size());
    if (size <= 0) break;
    value.append(part.data(), static_cast<std::size_t>(size));
  }
  close(fd);
  while (!value.empty() && value.back() == '\n') value.pop_back();
  return value;
}

bool write_sysctl(std::string_view key, std::string_view value) {
  const int fd = open(path_of(key).c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const std::string line = std::string{value} + '\n';  // an empty list is written as an empty line
  // The kernel takes a long list of ports a page at a time; what follows adds to it.
  std::string_view left = line;
  int error = 0;
  while (!left.empty() && error == 0) {
    const ssize_t size = write(fd, left.data(), left.size());
    if (size > 0)
      left.remove_prefix(static_cast<std::size_t>(size));
    else
      error = size < 0 ? errno : EIO;
  }
  close(fd);
  errno = error;
  return error == 0;
}

std::vector<std::string> sysctl_interfaces() {
  std::vector<std::string> names;
  DIR* directory = opendir("/proc/sys/net/ipv4/conf");
  if (!directory) return names;
  while (const dirent* entry = readdir(directory)) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != ".." && name != "all" && name != "default") names.emplace_back(name);
  }
  closedir(directory);
  return names;
}

std::vector<std::string> ipv6_forwarding_problems(const std::vector<PlaneInterface>& wan) {
  std::vector<std::string> problems;
  const bool all = read_sysctl("ipv6/conf/all/forwarding") == "1";
  if (!all && !read_sysctl("ipv6/conf/all/force_forwarding"))
    problems.emplace_back(
        "the system does not forward IPv6: set net.ipv6.conf.all.forwarding=1, and accept_ra=2 on a WAN "
        "that takes router advertisements (or [engine] ipv6 = false)");
  for (const PlaneInterface& interface : wan) {
    const std::string conf = "ipv6/conf/" + interface.name + '/';
    if (interface.index && all && read_sysctl(conf + "forwarding") == "1" &&
        read_sysctl(conf + "accept_ra") == "1")
      problems.push_back("net.ipv6.conf." + interface.name +
                         ".accept_ra is 1: as a router the system ignores advertisements there; set 2 if the "
                         "WAN gets its IPv6 by them");
  }
  return problems;
}

SysctlKeeper::SysctlKeeper(std::string undo_file) : undo_file_{std::move(undo_file)}, header_{this_place()} {
  std::ifstream in{undo_file_};
  std::string line;
  if (!std::getline(in, line) || line != header_) return;
  while (std::getline(in, line)) {
    const auto equals = line.find('=');
    if (equals != std::string::npos && line.find("..") == std::string::npos)
      before_.emplace_back(line.substr(0, equals), line.substr(equals + 1));
  }
}

Result<void> SysctlKeeper::save() const {
  const std::string fresh = undo_file_ + ".new";
  const int fd = open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return system_error(errno);
  std::string text = header_ + '\n';
  for (const auto& [key, value] : before_) text += key + '=' + value + '\n';
  const bool written = write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  const int error = written ? 0 : errno;
  close(fd);
  if (!written) return system_error(error ? error : ENOSPC);
  if (rename(fresh.c_str(), undo_file_.c_str()) != 0) return system_error(errno);
  return {};
}

Result<void> SysctlKeeper::set(const std::string& key, std::string_view value) {
  const auto now = read_sysctl(key);
  if (!now) return system_error(ENOENT);
  if (*now == value) return {};
  const bool known =
      std::any_of(before_.begin(), before_.end(), [&](const auto& entry) { return entry.first == key; });
  if (!known) {
    before_.emplace_back(key, *now);
    if (const auto saved = save(); !saved) {
      before_.pop_back();
      return saved;
    }
  }
  if (!write_sysctl(key, value)) return system_error(errno);
  return {};
}

std::optional<std::string> SysctlKeeper::original(const std::string& key) const {
  for (const auto& entry : before_)
    if (entry.first == key) return entry.second;
  return read_sysctl(key);
}

void SysctlKeeper::restore(const std::string& key) {
  const auto entry = std::find_if(before_.begin(), before_.end(),
                                  [&](const auto& candidate) { return candidate.first == key; });
  if (entry == before_.end()) return;
  write_sysctl(entry->first, entry->second);
  before_.erase(entry);
  // When this fails the file still names the key: detach puts the same value back once more.
  static_cast<void>(save());
}

void SysctlKeeper::forget() {
  before_.clear();
  unlink(undo_file_.c_str());
}

}  // namespace sallyport::nat::host
