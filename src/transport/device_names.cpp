#include "src/transport/device_names.hpp"

#include <algorithm>
#include <fstream>
#include <sstream>
#include <system_error>

namespace sallyport::transport {
namespace {

constexpr std::uintmax_t max_file = 1 << 20;

bool is_host_name(std::string_view name) {
  if (name.empty() || name.size() > 253 || name.front() == '-' || name.front() == '.') return false;
  return std::ranges::all_of(name, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
  });
}

template <class Take>
void each_line(std::string_view text, Take&& take) {
  while (!text.empty()) {
    const auto end = text.find('\n');
    auto line = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view{} : text.substr(end + 1);
    if (const auto comment = line.find('#'); comment != std::string_view::npos)
      line = line.substr(0, comment);
    std::vector<std::string_view> words;
    for (std::size_t at = 0;;) {
      at = line.find_first_not_of(" \t\r", at);
      if (at == std::string_view::npos) break;
      const auto stop = std::min(line.find_first_of(" \t\r", at), line.size());
      words.push_back(line.substr(at, stop - at));
      at = stop;
    }
    take(words);
  }
}

}  // namespace

void read_dnsmasq_leases(std::string_view text, NameTable& names) {
  each_line(text, [&](const std::vector<std::string_view>& words) {
    if (words.size() < 4 || !is_host_name(words[3])) return;
    if (const auto address = Address::parse(words[2])) names.try_emplace(*address, words[3]);
  });
}

void read_hosts(std::string_view text, NameTable& names) {
  each_line(text, [&](const std::vector<std::string_view>& words) {
    if (words.size() < 2 || !is_host_name(words[1])) return;
    if (const auto address = Address::parse(words[0])) names.try_emplace(*address, words[1]);
  });
}

std::vector<DeviceNames::Source> DeviceNames::usual_sources() {
  return {{"/var/lib/misc/dnsmasq.leases", false}, {"/tmp/dhcp.leases", false}, {"/etc/hosts", true}};
}

DeviceNames::DeviceNames(std::vector<Source> sources)
    : sources_{std::move(sources)}, seen_(sources_.size()) {}

std::optional<std::string> DeviceNames::name_of(const Address& address, TimePoint now) {
  if (!looked_ || now - *looked_ >= std::chrono::seconds{5}) {
    look(now);
    looked_ = now;
  }
  const auto known = names_.find(address);
  return known == names_.end() ? std::nullopt : std::optional{known->second};
}

void DeviceNames::look(TimePoint) {
  std::vector<Seen> seen(sources_.size());
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    std::error_code error;
    if (!std::filesystem::is_regular_file(sources_[i].path, error)) continue;
    seen[i].changed = std::filesystem::last_write_time(sources_[i].path, error);
    seen[i].size = std::filesystem::file_size(sources_[i].path, error);
    if (error || seen[i].size > max_file) seen[i] = Seen{};
  }
  if (looked_ && seen == seen_) return;
  seen_ = std::move(seen);
  names_.clear();
  for (std::size_t i = 0; i < sources_.size(); ++i) {
    if (seen_[i] == Seen{}) continue;
    std::ifstream file{sources_[i].path, std::ios::binary};
    std::ostringstream text;
    text << file.rdbuf();
    if (sources_[i].hosts)
      read_hosts(text.view(), names_);
    else
      read_dnsmasq_leases(text.view(), names_);
  }
}

}  // namespace sallyport::transport
