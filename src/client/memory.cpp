#include "src/client/memory.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <ctime>
#include <string_view>

namespace sallyport::client {
namespace {

// The file: this line, `secret HEX`, and a line `tcp INTERNAL ADDRESS EXTERNAL` for each port.
constexpr std::string_view first_line = "sallyport client state 1";
constexpr std::size_t most_octets = 512 * 1024;

std::string_view take_line(std::string_view& rest) {
  const auto end = rest.find('\n');
  const auto line = rest.substr(0, end);
  rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  return line;
}

std::string_view take_word(std::string_view& rest) {
  const auto end = rest.find(' ');
  const auto word = rest.substr(0, end);
  rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  return word;
}

std::optional<Port> to_port(std::string_view text) {
  std::uint32_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return Port::from(number);
}

std::optional<std::array<std::byte, 16>> to_secret(std::string_view hex) {
  std::array<std::byte, 16> secret;
  if (hex.size() != 2 * secret.size()) return std::nullopt;
  for (std::size_t i = 0; i < secret.size(); ++i) {
    unsigned octet = 0;
    const auto* from = hex.data() + 2 * i;
    const auto [end, error] = std::from_chars(from, from + 2, octet, 16);
    if (error != std::errc{} || end != from + 2) return std::nullopt;
    secret[i] = static_cast<std::byte>(octet);
  }
  return secret;
}

/// Several runs of one program share the file: each adds to what is there. Who cannot have the lock in a
/// moment goes on without it.
class Lock {
 public:
  explicit Lock(const std::string& path)
      : file_{::open((path + ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600)} {
    constexpr timespec pause{.tv_sec = 0, .tv_nsec = 5'000'000};
    for (int tries = 20; file_ >= 0 && tries > 0 && ::flock(file_, LOCK_EX | LOCK_NB) != 0; --tries)
      ::nanosleep(&pause, nullptr);
  }
  ~Lock() {
    if (file_ >= 0) ::close(file_);
  }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;

 private:
  int file_;
};

}  // namespace

Memory::Memory(std::string path, const std::array<std::byte, 16>& fresh_secret) : path_{std::move(path)} {
  if (path_.empty()) return;
  const Lock lock{path_};
  if (read()) return;
  secret_ = fresh_secret;
  ports_.clear();
  write();
}

bool Memory::read() {
  const int file = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (file < 0) return false;
  std::string text;
  struct stat about {};
  if (::fstat(file, &about) == 0 && S_ISREG(about.st_mode) && about.st_uid == ::geteuid() &&
      about.st_size > 0 && static_cast<std::size_t>(about.st_size) <= most_octets) {
    text.resize(static_cast<std::size_t>(about.st_size));
    const auto size = ::read(file, text.data(), text.size());
    text.resize(size < 0 ? 0 : static_cast<std::size_t>(size));
    if ((about.st_mode & 077) != 0) ::fchmod(file, 0600);  // it has a secret
  }
  ::close(file);

  std::string_view rest = text;
  if (take_line(rest) != first_line) return false;
  auto line = take_line(rest);
  if (take_word(line) != "secret") return false;
  const auto secret = to_secret(line);
  if (!secret) return false;
  secret_ = secret;
  while (!rest.empty() && ports_.size() < most_ports) {
    line = take_line(rest);
    const auto transport = take_word(line);
    const auto internal = to_port(take_word(line));
    const auto address = Address::parse(take_word(line));
    const auto external = to_port(line);
    if ((transport != "tcp" && transport != "udp") || !internal || !address || !external) continue;
    ports_.insert_or_assign({transport == "tcp" ? Transport::tcp : Transport::udp, *internal},
                            ExternalEndpoint{*address, *external});
  }
  return true;
}

void Memory::write() const {
  std::string text{first_line};
  text += "\nsecret ";
  for (const auto octet : *secret_) {
    constexpr std::string_view digits = "0123456789abcdef";
    text += digits[std::to_integer<unsigned>(octet) >> 4];
    text += digits[std::to_integer<unsigned>(octet) & 15];
  }
  text += '\n';
  for (const auto& [key, external] : ports_)
    text += std::string{to_string(key.first)} + ' ' + std::to_string(key.second.number()) + ' ' +
            external.address.to_string() + ' ' + std::to_string(external.port.number()) + '\n';

  // another name first: a crash leaves the old file or the new one
  const auto beside = path_ + ".new";
  const int file = ::open(beside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (file < 0) return;
  const bool whole = ::write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  ::close(file);
  if (!whole || std::rename(beside.c_str(), path_.c_str()) != 0) ::unlink(beside.c_str());
}

std::optional<ExternalEndpoint> Memory::last(Transport transport, Port internal) const {
  const auto found = ports_.find({transport, internal});
  return found == ports_.end() ? std::nullopt : std::optional{found->second};
}

void Memory::remember(Transport transport, Port internal, const ExternalEndpoint& external) {
  if (path_.empty()) return;
  const auto found = ports_.find({transport, internal});
  if (found == ports_.end() ? ports_.size() >= most_ports : found->second == external) return;
  const Lock lock{path_};
  read();
  ports_.insert_or_assign({transport, internal}, external);
  write();
}

}  // namespace sallyport::client
