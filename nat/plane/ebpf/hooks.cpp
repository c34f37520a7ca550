#include "nat/plane/ebpf/hooks.hpp"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <unistd.h>

#include <cerrno>

namespace sallyport::nat::ebpf {
namespace {

// Ours by these two numbers, on every interface.
constexpr std::uint32_t our_handle = 0x5350, our_priority = 0x5350;

boost::system::error_code system_error(int number) { return {number, boost::system::generic_category()}; }

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

}  // namespace

Result<void> attach(std::uint32_t interface, Direction direction, int program) {
  bpf_tc_hook hook = hook_of(interface, direction);
  if (const int error = bpf_tc_hook_create(&hook); error != 0 && error != -EEXIST)
    return system_error(-error);
  bpf_tc_opts options = ours();
  options.prog_fd = program;
  options.flags = BPF_TC_F_REPLACE;
  if (const int error = bpf_tc_attach(&hook, &options); error != 0) return system_error(-error);
  return {};
}

Result<void> detach(std::uint32_t interface, Direction direction) {
  if (attached(interface, direction) == 0) return {};
  const bpf_tc_hook hook = hook_of(interface, direction);
  const bpf_tc_opts options = ours();
  const int error = bpf_tc_detach(&hook, &options);
  if (error != 0 && error != -ENOENT && error != -EINVAL) return system_error(-error);
  return {};
}

std::uint32_t attached(std::uint32_t interface, Direction direction) {
  const bpf_tc_hook hook = hook_of(interface, direction);
  bpf_tc_opts options = ours();
  return bpf_tc_query(&hook, &options) == 0 ? options.prog_id : 0;
}

std::map<std::string, int> maps_of(std::uint32_t number) {
  std::map<std::string, int> maps;
  const int program = bpf_prog_get_fd_by_id(number);
  if (program < 0) return maps;
  std::vector<std::uint32_t> numbers(64);
  bpf_prog_info info{};
  info.nr_map_ids = static_cast<std::uint32_t>(numbers.size());
  info.map_ids = reinterpret_cast<std::uintptr_t>(numbers.data());
  std::uint32_t size = sizeof info;
  if (bpf_obj_get_info_by_fd(program, &info, &size) == 0)
    for (std::uint32_t i = 0; i < info.nr_map_ids && i < numbers.size(); ++i) {
      const int fd = bpf_map_get_fd_by_id(numbers[i]);
      if (fd < 0) continue;
      bpf_map_info map{};
      std::uint32_t map_size = sizeof map;
      if (bpf_obj_get_info_by_fd(fd, &map, &map_size) != 0 || !maps.emplace(map.name, fd).second) close(fd);
    }
  close(program);
  return maps;
}

}  // namespace sallyport::nat::ebpf
