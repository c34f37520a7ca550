#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "src/lease/store/store.hpp"

/// Rows of the store as octets. Each ends with a CRC-32 of its key and all before it, so that a row that
/// decodes is a row that was written (POL-STO-05). The first octet is the row's format; formats are never
/// reused.
namespace sallyport::lease {

constexpr std::byte lease_format{0x4c};
constexpr std::byte block_format{0x42};
constexpr std::byte meta_format{0x4d};

void encode(const LeaseRecord& record, std::vector<std::byte>& out);
void encode(const BlockRecord& record, std::vector<std::byte>& out);
/// A meta row holds its own name; the key is a hash of it.
void encode_meta(std::string_view name, std::string_view value, std::vector<std::byte>& out);
std::uint64_t meta_key(std::string_view name);

/// Empty when the row does not check out.
std::optional<LeaseRecord> decode_lease(std::uint64_t key, std::span<const std::byte> row);
std::optional<BlockRecord> decode_block(std::uint64_t key, std::span<const std::byte> row);
std::optional<std::pair<std::string, std::string>> decode_meta(std::uint64_t key,
                                                               std::span<const std::byte> row);

}  // namespace sallyport::lease
