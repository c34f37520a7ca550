#include "src/daemon/privileges.hpp"

#include <cap-ng.h>
#include <grp.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>

namespace sallyport::daemon {
namespace {

/// The group's number out of /etc/group. Not getgrnam: that may ask a directory server, and wait for it.
std::optional<gid_t> find_group(const std::string& name) {
  std::optional<gid_t> found;
  FILE* file = std::fopen("/etc/group", "re");
  if (file == nullptr) return found;
  while (const group* entry = ::fgetgrent(file))
    if (name == entry->gr_name) found = entry->gr_gid;
  std::fclose(file);
  return found;
}

void join(gid_t joined) {
  std::vector<gid_t> groups(static_cast<std::size_t>(std::max(0, ::getgroups(0, nullptr))));
  const int count = ::getgroups(static_cast<int>(groups.size()), groups.data());
  if (count < 0) return;
  groups.resize(static_cast<std::size_t>(count));
  if (std::ranges::find(groups, joined) != groups.end()) return;
  groups.push_back(joined);
  // Without the right to: the socket keeps our own group, and the admin server says so.
  [[maybe_unused]] const int result = ::setgroups(groups.size(), groups.data());
}

/// Needs more than the owner's rights: the nearest existing part of the path is not ours to write.
bool is_foreign(std::filesystem::path path) {
  for (struct stat status{};; path = path.parent_path()) {
    if (::stat(path.c_str(), &status) == 0)
      return status.st_uid != ::geteuid() || (status.st_mode & S_IWUSR) == 0;
    if (path.empty() || path == path.parent_path()) return false;
  }
}

}  // namespace

std::vector<std::string> drop_privileges(const std::string& group,
                                         const std::vector<std::filesystem::path>& writable) {
  std::vector<std::string> problems;
  if (const auto found = find_group(group)) join(*found);

  const bool foreign = std::ranges::any_of(writable, is_foreign);
  capng_get_caps_process();
  std::vector<unsigned> kept;
  for (const unsigned capability : {CAP_NET_ADMIN, CAP_NET_RAW})
    if (capng_have_capability(CAPNG_PERMITTED, capability)) kept.push_back(capability);
  if (foreign && capng_have_capability(CAPNG_PERMITTED, CAP_DAC_OVERRIDE)) kept.push_back(CAP_DAC_OVERRIDE);
  const bool may_bound = capng_have_capability(CAPNG_EFFECTIVE, CAP_SETPCAP) != 0;
  capng_clear(CAPNG_SELECT_BOTH);
  for (const unsigned capability : kept)
    capng_update(CAPNG_ADD, static_cast<capng_type_t>(CAPNG_EFFECTIVE | CAPNG_PERMITTED | CAPNG_BOUNDING_SET),
                 capability);
  if (capng_apply(may_bound ? CAPNG_SELECT_BOTH : CAPNG_SELECT_CAPS) != 0)
    problems.push_back(std::string{"capabilities could not be given up: "} + std::strerror(errno));
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
    problems.push_back(std::string{"no_new_privs could not be set: "} + std::strerror(errno));
  return problems;
}

}  // namespace sallyport::daemon
