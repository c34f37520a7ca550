#include "nat/plane/ebpf/hooks.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <net/if.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>
#include <utility>

namespace sallyport::nat::ebpf {
namespace {

boost::system::error_code system_error(int number) { return {number, boost::system::generic_category()}; }

// --- tcx; missing in the headers of 6.1 ---

struct TcxAttach {
  std::uint32_t interface = 0, program = 0, type = 0, flags = 0, replaced = 0, relative = 0;
  std::uint64_t revision = 0;
};
struct TcxQuery {
  std::uint32_t interface = 0, type = 0, query_flags = 0, attach_flags = 0;
  std::uint64_t programs = 0;
  std::uint32_t count = 0, unused = 0;
  std::uint64_t program_flags = 0, links = 0, link_flags = 0, revision = 0;
};
constexpr std::uint32_t tcx_ingress = 46, tcx_egress = 47;
constexpr std::uint32_t flag_replace = 4, flag_before = 8;
constexpr int call_attach = 8, call_detach = 9, call_query = 16;

std::uint32_t type_of(Direction direction) {
  return direction == Direction::ingress ? tcx_ingress : tcx_egress;
}

template <class Attributes>
int call(int what, Attributes& attributes) {
  return syscall(SYS_bpf, what, &attributes, sizeof attributes) == 0 ? 0 : errno;
}

/// The kernel's numbers of all programs there, whoever's; nothing where there is no tcx.
std::optional<std::vector<std::uint32_t>> tcx_programs(std::uint32_t interface, Direction direction) {
  std::vector<std::uint32_t> numbers(64);
  TcxQuery query{.interface = interface,
                 .type = type_of(direction),
                 .programs = reinterpret_cast<std::uintptr_t>(numbers.data()),
                 .count = static_cast<std::uint32_t>(numbers.size())};
  const int error = call(call_query, query);
  if (error == EINVAL || error == EOPNOTSUPP || error == ENOSYS) return std::nullopt;
  numbers.resize(error == 0 ? std::min<std::size_t>(query.count, numbers.size()) : 0);
  return numbers;
}

std::uint32_t number_of(int program) {
  bpf_prog_info info{};
  std::uint32_t size = sizeof info;
  return bpf_obj_get_info_by_fd(program, &info, &size) == 0 ? info.id : 0;
}

// --- clsact ---

// Ours by these two numbers, on every interface.
constexpr std::uint32_t our_handle = 0x5350, our_priority = 0x5350;

bpf_tc_hook hook_of(std::uint32_t interface, Direction direction) {
  libbpf_set_print(nullptr);  // what fails is told by whoever asked
  bpf_tc_hook hook{};
  hook.sz = sizeof hook;
  hook.ifindex = static_cast<int>(interface);
  hook.attach_point = direction == Direction::ingress ? BPF_TC_INGRESS : BPF_TC_EGRESS;
  return hook;
}
bpf_tc_opts ours() {
  bpf_tc_opts options{};
  options.sz = sizeof options;
  options.handle = our_handle;
  options.priority = our_priority;
  return options;
}

std::uint32_t filter_at(std::uint32_t interface, Direction direction) {
  const bpf_tc_hook hook = hook_of(interface, direction);
  bpf_tc_opts options = ours();
  return bpf_tc_query(&hook, &options) == 0 ? options.prog_id : 0;
}

Result<void> attach_filter(std::uint32_t interface, Direction direction, int program) {
  bpf_tc_hook hook = hook_of(interface, direction);
  if (const int error = bpf_tc_hook_create(&hook); error != 0 && error != -EEXIST)
    return system_error(-error);
  bpf_tc_opts options = ours();
  options.prog_fd = program;
  options.flags = BPF_TC_F_REPLACE;
  if (const int error = bpf_tc_attach(&hook, &options); error != 0) return system_error(-error);
  return {};
}

Result<void> detach_filter(std::uint32_t interface, Direction direction) {
  if (filter_at(interface, direction) == 0) return {};
  const bpf_tc_hook hook = hook_of(interface, direction);
  const bpf_tc_opts options = ours();
  const int error = bpf_tc_detach(&hook, &options);
  if (error != 0 && error != -ENOENT && error != -EINVAL) return system_error(-error);
  return {};
}

// --- programs of an earlier run ---

constexpr std::array<std::string_view, 5> our_names{"wan_egress", "wan_ingress", "lan_ingress", "tap_ingress",
                                                    "other_egress"};

struct Program {
  std::string name;
  std::map<std::string, int> maps;
};

/// Its name, and descriptors of its maps by their names.
Program look_at(int fd) {
  Program program;
  std::vector<std::uint32_t> numbers(64);
  bpf_prog_info info{};
  info.nr_map_ids = static_cast<std::uint32_t>(numbers.size());
  info.map_ids = reinterpret_cast<std::uintptr_t>(numbers.data());
  std::uint32_t size = sizeof info;
  if (bpf_obj_get_info_by_fd(fd, &info, &size) != 0) return program;
  program.name = info.name;
  for (std::uint32_t i = 0; i < info.nr_map_ids && i < numbers.size(); ++i) {
    const int map_fd = bpf_map_get_fd_by_id(numbers[i]);
    if (map_fd < 0) continue;
    bpf_map_info map{};
    std::uint32_t map_size = sizeof map;
    if (bpf_obj_get_info_by_fd(map_fd, &map, &map_size) != 0 ||
        !program.maps.emplace(map.name, map_fd).second)
      close(map_fd);
  }
  return program;
}

}  // namespace

Hooks::Hooks(Hooks&& other) noexcept
    : found_{std::exchange(other.found_, {})}, hidden_{std::move(other.hidden_)} {}
Hooks& Hooks::operator=(Hooks&& other) noexcept {
  std::swap(found_, other.found_);
  std::swap(hidden_, other.hidden_);
  return *this;
}
Hooks::~Hooks() {
  for (const auto& [number, found] : found_) close(found.program);
}

Hooks Hooks::find() {
  Hooks hooks;
  struct if_nameindex* const interfaces = if_nameindex();
  for (auto* at = interfaces; at && at->if_index; ++at)
    for (const Direction direction : {Direction::ingress, Direction::egress}) {
      std::vector<std::uint32_t> numbers =
          tcx_programs(at->if_index, direction).value_or(std::vector<std::uint32_t>{});
      const std::uint32_t filter = filter_at(at->if_index, direction);
      if (filter) numbers.push_back(filter);
      for (const std::uint32_t number : numbers) {
        if (hooks.found_.contains(number)) continue;
        const int fd = bpf_prog_get_fd_by_id(number);
        if (fd < 0) {
          if (errno == EPERM) hooks.hidden_ = at->if_name;
          continue;
        }
        Program program = look_at(fd);
        // The handle tells our filters, and what tcx has must look like one of our programs.
        const bool is_ours = number == filter || (std::find(our_names.begin(), our_names.end(),
                                                            program.name) != our_names.end() &&
                                                  program.maps.contains("config"));
        for (const auto& [name, map] : program.maps) close(map);
        if (is_ours)
          hooks.found_.emplace(number, Found{fd, program.name});
        else
          close(fd);
      }
    }
  if (interfaces) if_freenameindex(interfaces);
  return hooks;
}

std::map<std::string, int> Hooks::maps() const {
  std::map<std::string, int> all;
  // No program uses all tables. Those on the WAN know best, should runs have left different ones.
  for (const std::string_view name : our_names)
    for (auto found = found_.rbegin(); found != found_.rend(); ++found)
      if (found->second.name == name)
        for (const auto& [map, fd] : look_at(found->second.program).maps)
          if (!all.emplace(map, fd).second) close(fd);
  return all;
}

Result<void> Hooks::attach(std::uint32_t interface, Direction direction, int program) {
  const auto there = tcx_programs(interface, direction);
  if (!there) return attach_filter(interface, direction, program);
  const std::uint32_t number = number_of(program);
  if (std::find(there->begin(), there->end(), number) == there->end()) {
    TcxAttach attach{.interface = interface,
                     .program = static_cast<std::uint32_t>(program),
                     .type = type_of(direction),
                     .flags = flag_before};
    const auto old = std::find_if(there->begin(), there->end(),
                                  [&](std::uint32_t other) { return found_.contains(other); });
    if (old != there->end()) {
      attach.flags = flag_replace;
      attach.replaced = static_cast<std::uint32_t>(found_[*old].program);
    }
    if (const int error = call(call_attach, attach)) return system_error(error);
  }
  if (!found_.contains(number)) found_.emplace(number, Found{fcntl(program, F_DUPFD_CLOEXEC, 3), {}});
  // What others of ours there are goes once their successor is there.
  for (const std::uint32_t other : *there)
    if (other != number)
      if (const auto gone = detach_program(interface, direction, other); !gone) return gone;
  return detach_filter(interface, direction);
}

Result<void> Hooks::detach_program(std::uint32_t interface, Direction direction, std::uint32_t number) {
  const auto ours = found_.find(number);
  if (ours == found_.end()) return {};
  TcxAttach gone{.interface = interface,
                 .program = static_cast<std::uint32_t>(ours->second.program),
                 .type = type_of(direction)};
  const int error = call(call_detach, gone);
  return error == 0 || error == ENOENT ? Result<void>{} : system_error(error);
}

Result<void> Hooks::detach(std::uint32_t interface, Direction direction) {
  const auto there = tcx_programs(interface, direction).value_or(std::vector<std::uint32_t>{});
  for (const std::uint32_t number : there)
    if (const auto gone = detach_program(interface, direction, number); !gone) return gone;
  return detach_filter(interface, direction);
}

bool Hooks::attached(std::uint32_t interface, Direction direction, int program) const {
  const std::uint32_t number = number_of(program);
  const auto there = tcx_programs(interface, direction);
  return there ? std::find(there->begin(), there->end(), number) != there->end()
               : filter_at(interface, direction) == number;
}

bool Hooks::removable() {
  const std::uint32_t loopback = if_nametoindex("lo");
  return loopback && !tcx_programs(loopback, Direction::egress);
}

}  // namespace sallyport::nat::ebpf
