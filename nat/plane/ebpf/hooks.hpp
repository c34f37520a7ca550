#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "sallyport/values/result.hpp"

/// Our programs at interfaces: as programs of tcx (Linux 6.6), which nobody takes away by chance, elsewhere
/// as filters of the clsact qdisc. Both stay when the daemon goes, and a new program takes an old one's place
/// between two packets. Programs of others are left alone.
namespace sallyport::nat::ebpf {

enum class Direction : std::uint8_t { ingress, egress };

class Hooks {
 public:
  Hooks() = default;
  Hooks(Hooks&& other) noexcept;
  Hooks& operator=(Hooks&& other) noexcept;
  ~Hooks();

  /// Finds what an earlier run left on any interface. With tcx that needs CAP_SYS_ADMIN, once: what is found
  /// is remembered.
  static Hooks find();
  bool any() const noexcept { return !found_.empty(); }
  /// Descriptors of the maps that the found programs use, by name. The caller closes them.
  std::map<std::string, int> maps() const;

  /// Puts a program on an interface, in place of an earlier one of ours. Errors are of the generic category.
  Result<void> attach(std::uint32_t interface, Direction direction, int program);
  /// Success where there is none of ours.
  Result<void> detach(std::uint32_t interface, Direction direction);
  /// Whether this program is there.
  bool attached(std::uint32_t interface, Direction direction, int program) const;
  /// Where a program stands that may not be looked at, by the interface's name; empty: nowhere.
  const std::string& hidden() const noexcept { return hidden_; }
  /// Whether the kernel has no tcx: then others may remove our filters with the qdisc, and are found out by
  /// news.
  static bool removable();

 private:
  Result<void> detach_program(std::uint32_t interface, Direction direction, std::uint32_t number);
  struct Found {
    int program = -1;
    std::string name;
  };
  std::map<std::uint32_t, Found> found_;  // by the kernel's number
  std::string hidden_;
};

}  // namespace sallyport::nat::ebpf
