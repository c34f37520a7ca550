#pragma once

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "sallyport/values/address.hpp"
#include "sallyport/values/time.hpp"

namespace sallyport::transport {

using NameTable = std::unordered_map<Address, std::string>;

/// Lines "EXPIRY MAC ADDRESS NAME CLIENT-ID" of dnsmasq. A name that a host name cannot be is left out:
/// devices choose theirs freely.
void read_dnsmasq_leases(std::string_view text, NameTable& names);
/// Lines "ADDRESS NAME [ALIAS...]"; names that are there already stay.
void read_hosts(std::string_view text, NameTable& names);

/// What devices are called, from files of this machine, never from DNS (POL-WHO-07). Looks at a file again at
/// most every five seconds and reads it only when it changed. Control thread only.
class DeviceNames {
 public:
  struct Source {
    std::filesystem::path path;
    bool hosts = false;  ///< the form of /etc/hosts instead of dnsmasq's
  };
  /// dnsmasq's usual places, then /etc/hosts.
  static std::vector<Source> usual_sources();

  explicit DeviceNames(std::vector<Source> sources = usual_sources());
  std::optional<std::string> name_of(const Address& address, TimePoint now);

 private:
  struct Seen {
    std::filesystem::file_time_type changed{};
    std::uintmax_t size = 0;
    friend bool operator==(const Seen&, const Seen&) = default;
  };
  void look(TimePoint now);

  std::vector<Source> sources_;
  std::vector<Seen> seen_;
  std::optional<TimePoint> looked_;
  NameTable names_;
};

}  // namespace sallyport::transport
