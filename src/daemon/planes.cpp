#include "src/daemon/planes.hpp"

#include <sys/random.h>
#include <sys/stat.h>

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

nat::TunOptions tun_options(const std::string& directory) {
  nat::TunOptions options;
  options.undo_file = undo_file(directory, "tun");
  options.engine = engine_options();
  return options;
}

std::unique_ptr<nat::DataPlane> start_tun(const Config& config, const std::string& directory,
                                          const Clock& clock, std::string& why) {
  auto options = tun_options(directory);
  options.queues = config.engine.tun_queues;
  auto plane = nat::TunPlane::start(options, clock, why);
  return plane ? std::unique_ptr<nat::DataPlane>{std::move(*plane)} : nullptr;
}

#ifdef SALLYPORT_EBPF
nat::EbpfOptions ebpf_options(const Config& config, const std::string& directory) {
  nat::EbpfOptions options;
  options.undo_file = undo_file(directory, "ebpf");
  options.interfaces = config.listen.lan;
  options.interfaces.insert(options.interfaces.end(), config.listen.wan.begin(), config.listen.wan.end());
  // Room for the addresses that flows permit, beside the flows.
  const std::uint32_t flows = config.plane_policy().flows_total;
  options.flows = flows == 0 ? 1U << 20 : flows <= (1U << 22) ? flows * 2 : flows;
  options.engine = engine_options();
  return options;
}
#endif

}  // namespace

StartedPlane start_plane(const Config& config, const std::string& directory, const Clock& clock) {
  const auto choice = config.engine.data_plane;
  std::string why;
#ifdef SALLYPORT_EBPF
  if (choice == PlaneChoice::ebpf) {
    // What the other plane left would take packets away before the programs see them.
    if (!nat::TunPlane::detach(tun_options(directory), why)) return {nullptr, why};
    auto plane = nat::EbpfPlane::start(ebpf_options(config, directory), clock, why);
    if (!plane) return {nullptr, why};
    return {std::move(*plane), "ebpf was asked for"};
  }
  if (!nat::EbpfPlane::detach(ebpf_options(config, directory), why)) return {nullptr, why};
#else
  if (choice == PlaneChoice::ebpf)
    return {nullptr,
            "this sallyportd was built without the ebpf plane (clang, bpftool and libbpf were missing); use "
            "--data-plane tun"};
#endif
  auto plane = start_tun(config, directory, clock, why);
  if (!plane) return {nullptr, why};
  return {std::move(plane),
          choice == PlaneChoice::tun ? "tun was asked for" : "auto: tun runs on any kernel"};
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
