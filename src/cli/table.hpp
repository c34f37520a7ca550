#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sallyport/admin/client.hpp"
#include "sallyport/values/printable.hpp"

/// Rows in, text out. Pure.
namespace sallyport::cli {

/// Terminal columns of printable text: wide and combining characters counted as terminals show them, roughly.
std::size_t columns(std::string_view text);
/// Cut to so many columns, with "…" at the end when something was cut; never inside a character.
std::string cut(std::string_view text, std::size_t width);
/// Filled with blanks on the right (or the left), cut when it is too long.
std::string padded(std::string_view text, std::size_t width, bool right = false);

/// "45s", "58m", "23h", "6d": at most four columns below 10,000 days.
std::string short_time(std::uint64_t seconds);
/// "3h 12m 5s", without the parts that are 0.
std::string long_time(std::uint64_t seconds);
/// "312", "41.2 K", "1.3 M".
std::string amount(std::uint64_t number);

/// "xbox 192.168.1.20", or the address alone.
std::string device_text(const admin::Device& device);

/// Columns of the list for these rows, within `width`.
class LeaseTable {
 public:
  LeaseTable(const std::vector<admin::Lease>& sample, std::size_t width);
  std::string head() const;
  std::string row(const admin::Lease& lease) const;

 private:
  bool show_external_address_ = false;
  std::size_t id_ = 4, device_ = 6, external_ = 5, internal_ = 5, via_ = 6, left_ = 4, description_ = 11;
};

std::string block_table(const std::vector<admin::Block>& blocks, std::size_t width);
std::string status_text(const admin::Status& status, bool color);
std::string lease_text(const admin::Lease& lease);
/// One line of `watch`; `time` is "14:02:07".
std::string event_line(const admin::Event& event, std::string_view time, std::size_t width, bool color);

}  // namespace sallyport::cli
