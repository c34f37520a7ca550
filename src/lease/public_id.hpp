#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace sallyport::lease {

/// The name of a lease for people: four or more of [a-z2-9], another for each number. Neighbouring numbers
/// look unlike each other, so that a typing error rarely names another lease.
std::string public_id(std::uint64_t number);
/// The number that has this id; empty when no number has it.
std::optional<std::uint64_t> number_of(std::string_view id);

}  // namespace sallyport::lease
