#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "sallyport/values/result.hpp"

/// Our programs as filters of the clsact qdisc: they stay when the daemon goes, and a new program takes an
/// old one's place between two packets. Filters of others are left alone.
namespace sallyport::nat::ebpf {

enum class Direction : std::uint8_t { ingress, egress };

/// Puts a program on an interface, in place of an earlier one of ours. Errors are of the generic category.
Result<void> attach(std::uint32_t interface, Direction direction, int program);
/// Success where there is none of ours.
Result<void> detach(std::uint32_t interface, Direction direction);
/// The kernel's number of our program there; 0: none.
std::uint32_t attached(std::uint32_t interface, Direction direction);

/// Descriptors of the maps that a program uses, by name. The caller closes them.
std::map<std::string, int> maps_of(std::uint32_t program);

}  // namespace sallyport::nat::ebpf
