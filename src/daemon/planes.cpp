#include "src/daemon/planes.hpp"

#include <sys/random.h>
#include <sys/stat.h>

#include <algorithm>

#include "nat/plane/tun/tun_plane.hpp"
#ifdef SALLYPORT_EBPF
#include "nat/plane/ebpf/ebpf_plane.hpp"
#endif

namespace sallyport::daemon {
namespace {

template <class T>
void fill_random(T& value) {
  // Waits for the kernel's pool at boot; then never fails for so few octets.
  while (::getrandom(&value, sizeof value, 0) != static_cast<ssize_t>(sizeof value)) {
  }
}

/// Where a plane keeps what it changed: one file per network namespace, found again by --detach whatever the
/// other flags are.
std::string undo_file(const std::string& directory, std::string_view plane) {
  struct stat status {};
  const bool known = ::stat("/proc/self/ns/net", &status) == 0;
  return directory + '/' + std::string{plane} + "-undo" +
         (known ? '-' + std::to_string(status.st_ino) : std::string{});
}

nat::EngineOptions engine_options() {
  nat::EngineOptions options;
  fill_random(options.secret);
  fill_random(options.seed);
  return options;
}

nat::EngineOptions engine_options(const Config& config) {
  auto options = engine_options();
  options.addresses = std::max<std::size_t>(config.engine.external_addresses.size(), 1);
  return options;
}

nat::TunOptions tun_options(const std::string& directory) {
  nat::TunOptions options;
  options.undo_file = undo_file(directory, "tun");
  options.engine = engine_options();
  return options;
}

#ifdef SALLYPORT_EBPF
std::vector<std::string> interfaces_of(const Config& config) {
  auto names = config.listen.lan;
  names.insert(names.end(), config.listen.wan.begin(), config.listen.wan.end());
  return names;
}

nat::EbpfOptions ebpf_options(const Config& config, const std::string& directory) {
  nat::EbpfOptions options;
  options.undo_file = undo_file(directory, "ebpf");
  options.interfaces = interfaces_of(config);
  // Room for the addresses that flows permit, beside the flows.
  const std::uint32_t flows = config.plane_policy().flows_total;
  options.flows = flows == 0 ? 1U << 20 : flows <= (1U << 22) ? flows * 2 : flows;
  options.engine = engine_options(config);
  return options;
}
#endif

}  // namespace

StartedPlane load_plane(const Config& config, const std::string& directory, const Clock& clock) {
  const auto choice = config.engine.data_plane;
  StartedPlane started;
#ifdef SALLYPORT_EBPF
  if (choice == PlaneChoice::tun) {
    started.left = nat::EbpfPlane::look();
    return started;
  }
  auto options = ebpf_options(config, directory);
  options.take_over = [&](const nat::EbpfOptions::Shut& shut, std::string& why) {
    // What tun left would take packets away before the programs see them.
    auto left = tun_options(directory);
    left.shut = shut;
    left.device.clear();  // the interface of this name is the new plane's
    return static_cast<bool>(nat::TunPlane::detach(left, why));
  };
  std::string why;
  auto plane = nat::EbpfPlane::start(options, clock, why);
  if (plane) {
    started.plane = std::move(*plane);
    started.reason = choice == PlaneChoice::ebpf ? "ebpf was asked for" : "auto";
    started.note = why;
  } else {
    started.reason = why;
    started.left = nat::EbpfPlane::look();
  }
#else
  static_cast<void>(directory);
  static_cast<void>(clock);
  if (choice == PlaneChoice::ebpf)
    started.reason =
        "this sallyportd was built without the ebpf plane (clang, bpftool and libbpf were missing); use "
        "--data-plane tun";
  else
    started.reason = "this sallyportd was built without it";
#endif
  return started;
}

StartedPlane start_plane(const Config& config, const std::string& directory, const Clock& clock,
                         const StartedPlane& not_loaded) {
  StartedPlane started;
  std::string why;
#ifdef SALLYPORT_EBPF
  auto options = ebpf_options(config, directory);
  options.left = not_loaded.left;
  options.shut = [&](std::string& problem) {
    return nat::TunPlane::shut(tun_options(directory), interfaces_of(config), problem);
  };
  if (!nat::EbpfPlane::detach(options, why)) {
    started.reason = why;
    return started;
  }
#endif
  auto tun = tun_options(directory);
  tun.engine = engine_options(config);
  tun.queues = config.engine.tun_queues;
  auto plane = nat::TunPlane::start(tun, clock, why);
  if (plane) started.plane = std::move(*plane);
  started.reason = !started.plane                                 ? why
                   : config.engine.data_plane == PlaneChoice::tun ? "tun was asked for"
                                                                  : "ebpf: " + not_loaded.reason;
  return started;
}

bool detach_planes(const std::string& directory, std::string& why) {
#ifdef SALLYPORT_EBPF
  nat::EbpfOptions options;
  options.undo_file = undo_file(directory, "ebpf");
  if (!nat::EbpfPlane::detach(options, why)) return false;
#endif
  return static_cast<bool>(nat::TunPlane::detach(tun_options(directory), why));
}

}  // namespace sallyport::daemon
