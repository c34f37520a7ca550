#include "src/lease/store/image.hpp"

#include <sqlite3.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>

namespace sallyport::lease {
namespace {

std::uint32_t big32(std::span<const std::byte> bytes, std::size_t at) {
  std::uint32_t value = 0;
  for (std::size_t i = 0; i < 4; ++i) value = value << 8 | std::to_integer<std::uint32_t>(bytes[at + i]);
  return value;
}
std::uint32_t big16(std::span<const std::byte> bytes, std::size_t at) {
  return std::to_integer<std::uint32_t>(bytes[at]) << 8 | std::to_integer<std::uint32_t>(bytes[at + 1]);
}

std::optional<std::vector<std::byte>> read_file(const std::string& path, const std::string& vfs_name,
                                                int kind) {
  sqlite3_vfs* vfs = sqlite3_vfs_find(vfs_name.empty() ? nullptr : vfs_name.c_str());
  if (vfs == nullptr) return std::nullopt;
  // VFS methods want the name as SQLite makes it: absolute, followed by the zeros that end its list of
  // parameters
  std::vector<char> full(static_cast<std::size_t>(vfs->mxPathname) + 8, '\0');
  if (vfs->xFullPathname(vfs, path.c_str(), vfs->mxPathname, full.data()) != SQLITE_OK) return std::nullopt;
  full.resize(std::strlen(full.data()) + 8, '\0');
  const auto storage = std::make_unique<std::max_align_t[]>(
      static_cast<std::size_t>(vfs->szOsFile) / sizeof(std::max_align_t) + 1);
  auto* file = reinterpret_cast<sqlite3_file*>(storage.get());
  std::memset(file, 0, static_cast<std::size_t>(vfs->szOsFile));
  int out_flags = 0;
  if (vfs->xOpen(vfs, full.data(), file, SQLITE_OPEN_READONLY | kind, &out_flags) != SQLITE_OK)
    return std::nullopt;
  std::optional<std::vector<std::byte>> bytes;
  sqlite3_int64 size = 0;
  if (file->pMethods->xFileSize(file, &size) == SQLITE_OK && size >= 0 && size < (sqlite3_int64{1} << 30)) {
    bytes.emplace(static_cast<std::size_t>(size));
    constexpr std::size_t step = 4096;  // one unreadable block must not cost the others
    for (std::size_t at = 0; at < bytes->size(); at += step)
      file->pMethods->xRead(file, bytes->data() + at, static_cast<int>(std::min(step, bytes->size() - at)),
                            static_cast<sqlite3_int64>(at));
  }
  file->pMethods->xClose(file);
  return bytes;
}

/// The checksum of a WAL (https://sqlite.org/fileformat2.html, section 4.2).
struct WalSum {
  std::uint32_t s0 = 0, s1 = 0;
  bool big_endian = false;
  void add(std::span<const std::byte> bytes) {
    for (std::size_t i = 0; i + 8 <= bytes.size(); i += 8) {
      std::uint32_t a = big32(bytes, i), b = big32(bytes, i + 4);
      if (!big_endian) a = __builtin_bswap32(a), b = __builtin_bswap32(b);
      s0 += a + s1;
      s1 += b + s0;
    }
  }
};

constexpr std::size_t frame_header_size = 24;

/// Of the same page, with the same end-of-commit mark, in the same generation of the WAL.
bool is_copy_of_header(std::span<const std::byte> frame, std::span<const std::byte> next) {
  return std::ranges::equal(frame.first(16), next.first(16));
}

bool is_page_size(std::uint32_t size) { return size >= 512 && size <= 65536 && (size & (size - 1)) == 0; }

void apply_wal(Image& image, std::span<const std::byte> wal) {
  if (wal.size() < 32) return;
  const std::uint32_t magic = big32(wal, 0);
  const std::uint32_t page_size = big32(wal, 8);
  if ((magic & ~1u) != 0x377f0682 || !is_page_size(page_size)) {
    image.wal_damaged = std::ranges::any_of(wal, [](std::byte b) { return b != std::byte{0}; });
    return;
  }
  WalSum sum;
  sum.big_endian = (magic & 1) != 0;
  sum.add(wal.first(24));
  if (sum.s0 != big32(wal, 24) || sum.s1 != big32(wal, 28)) {
    image.wal_damaged = wal.size() > 32;
    return;
  }
  if (image.octets.empty()) image.page_size = page_size;
  const auto salts = wal.subspan(16, 8);
  const std::size_t frame_size = frame_header_size + page_size;
  std::size_t committed_end = 32, at = 32;
  std::vector<std::size_t> waiting;
  for (; at + frame_size <= wal.size(); at += frame_size) {
    const auto frame = wal.subspan(at, frame_size);
    if (!std::ranges::equal(frame.subspan(8, 8), salts)) break;
    sum.add(frame.first(8));
    sum.add(frame.subspan(24));
    if (sum.s0 != big32(frame, 16) || sum.s1 != big32(frame, 20)) break;
    waiting.push_back(at);
    if (const std::uint32_t pages = big32(frame, 4); pages != 0) {  // the last frame of a commit
      const std::size_t wanted = std::size_t{pages} * page_size;
      if (wanted > (std::size_t{1} << 30)) break;
      image.octets.resize(wanted);
      for (const auto where : waiting) {
        const std::uint32_t page = big32(wal, where);
        if (page >= 1 && page <= pages)
          std::ranges::copy(
              wal.subspan(where + 24, page_size),
              image.octets.begin() + static_cast<std::ptrdiff_t>((page - 1) * std::size_t{page_size}));
      }
      waiting.clear();
      committed_end = at + frame_size;
    }
  }
  // Behind the valid part may lie tails of transactions that never were synced, one over another. Each ends
  // with its end-of-commit mark, and nothing follows it in its chain. A frame that does follow one by its sum
  // was written after that commit was synced: then the WAL was valid further than now, and was damaged later.
  //
  // On disks that do not promise to leave the rest of a sector alone SQLite fills a commit up to the end of a
  // sector with a copy of its last frame, and syncs in the midst of it. So a copy behind the valid part may be
  // torn though its commit is whole, with the next transaction behind it; and a copy that is whole, perhaps by
  // the octets of an older one, proves nothing.
  std::size_t intact_end = committed_end;
  if (intact_end > 32 && intact_end + frame_size <= wal.size() &&
      is_copy_of_header(wal.subspan(intact_end - frame_size), wal.subspan(intact_end)))
    intact_end += frame_size;
  // The sum runs through the whole WAL, but each frame states it, so a frame can be judged by the sum its
  // predecessor states. Rows have their own checksums, so a page is worth having without its transaction.
  std::vector<std::size_t> good;
  for (at = committed_end; at + frame_size <= wal.size(); at += frame_size) {
    const auto frame = wal.subspan(at, frame_size);
    if (!std::ranges::equal(frame.subspan(8, 8), salts)) continue;
    const std::size_t before = at == 32 ? 24 : at - frame_size + 16;
    sum.s0 = big32(wal, before);
    sum.s1 = big32(wal, before + 4);
    sum.add(frame.first(8));
    sum.add(frame.subspan(24));
    if (sum.s0 != big32(frame, 16) || sum.s1 != big32(frame, 20)) continue;
    if (at > intact_end) {
      const auto before_it = wal.subspan(at - frame_size, frame_size);
      const bool follows_a_commit = big32(before_it, 4) != 0;
      const bool is_copy = is_copy_of_header(before_it, frame) &&
                           std::ranges::equal(before_it.subspan(frame_header_size), frame.subspan(frame_header_size));
      if (follows_a_commit && !is_copy) image.wal_damaged = true;
    }
    good.push_back(at);
  }
  if (!image.wal_damaged) return;
  for (const auto where : good) {
    const std::size_t page = big32(wal, where);
    if (page == 0 || page > (1u << 18)) continue;
    if (image.octets.size() < page * page_size) image.octets.resize(page * page_size);
    std::ranges::copy(
        wal.subspan(where + 24, page_size),
        image.octets.begin() + static_cast<std::ptrdiff_t>((page - 1) * std::size_t{page_size}));
  }
}

/// An SQLite varint; moves `at` behind it.
std::optional<std::uint64_t> varint(std::span<const std::byte> page, std::size_t& at) {
  std::uint64_t value = 0;
  for (int i = 0; i < 9; ++i, ++at) {
    if (at >= page.size()) return std::nullopt;
    const auto octet = std::to_integer<std::uint64_t>(page[at]);
    if (i == 8) {
      ++at;
      return value << 8 | octet;
    }
    value = value << 7 | (octet & 0x7f);
    if (!(octet & 0x80)) {
      ++at;
      return value;
    }
  }
  return std::nullopt;
}

}  // namespace

std::optional<Image> read_image(const std::string& path, const std::string& vfs) {
  auto octets = read_file(path, vfs, SQLITE_OPEN_MAIN_DB);
  const auto wal = read_file(path + "-wal", vfs, SQLITE_OPEN_WAL);
  if (!octets && !wal) return std::nullopt;
  Image image;
  if (octets) image.octets = std::move(*octets);
  if (image.octets.size() >= 100) {
    const std::uint32_t declared = big16(image.octets, 16);
    const std::uint32_t size = declared == 1 ? 65536 : declared;
    if (is_page_size(size) && std::memcmp(image.octets.data(), "SQLite format 3", 16) == 0)
      image.page_size = size;
  }
  if (wal) apply_wal(image, *wal);
  return image;
}

void scan_rows(const Image& image,
               const std::function<void(std::uint64_t, std::span<const std::byte>)>& take) {
  const std::span<const std::byte> all{image.octets};
  const std::size_t page_size = image.page_size;
  for (std::size_t start = 0; start + 8 <= all.size(); start += page_size) {
    const auto page = all.subspan(start, std::min(page_size, all.size() - start));
    const std::size_t header = start == 0 ? 100 : 0;
    if (page.size() < header + 8 || page[header] != std::byte{0x0d}) continue;
    const std::size_t cells = big16(page, header + 3);
    for (std::size_t i = 0; i < cells && header + 10 + 2 * i <= page.size(); ++i) {
      std::size_t at = big16(page, header + 8 + 2 * i);
      const auto size = varint(page, at);
      const auto key = size ? varint(page, at) : std::nullopt;
      if (!key || *size > page_size - 35) continue;
      const std::size_t payload = at;
      const auto header_size = varint(page, at);
      const auto first = header_size ? varint(page, at) : std::nullopt;
      const auto second = first ? varint(page, at) : std::nullopt;
      if (!second || *first != 0 || *second < 12 || *second % 2 != 0) continue;
      const std::size_t blob = payload + *header_size, blob_size = (*second - 12) / 2;
      if (at != blob || blob_size > page.size() || blob > page.size() - blob_size) continue;
      take(*key, page.subspan(blob, blob_size));
    }
  }
}

}  // namespace sallyport::lease
