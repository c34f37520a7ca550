#pragma once

#include <compare>
#include <cstdint>
#include <optional>

namespace sallyport {

/// A port that names something: 1..65535. On the wire 0 means "any"; the codec turns it into an
/// empty optional, so no code above has to remember what 0 meant here.
class Port {
 public:
  static constexpr std::optional<Port> from(std::uint32_t number) noexcept {
    if (number == 0 || number > 65535) return std::nullopt;
    return Port{static_cast<std::uint16_t>(number)};
  }
  constexpr std::uint16_t number() const noexcept { return number_; }
  friend constexpr auto operator<=>(const Port&, const Port&) = default;

 private:
  explicit constexpr Port(std::uint16_t number) noexcept : number_{number} {}
  std::uint16_t number_;
};

/// Ports first..last, both included.
struct PortRange {
  std::uint16_t first = 1024;
  std::uint16_t last = 65535;
  constexpr bool contains(Port port) const noexcept { return port.number() >= first && port.number() <= last; }
  friend constexpr bool operator==(const PortRange&, const PortRange&) = default;
};

}  // namespace sallyport
