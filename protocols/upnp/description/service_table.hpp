#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

/// A service as its specification tables it: from one table come the SCPD, the checks of arguments and the events.
namespace sallyport::upnp::description {

enum class DataType : std::uint8_t { string, boolean, ui2, ui4 };

struct StateVariable {
  std::string_view name;
  DataType type = DataType::string;
  bool evented = false;
  std::span<const std::string_view> allowed = {};  ///< allowedValueList; empty: none
  std::optional<std::pair<std::uint32_t, std::uint32_t>> range = {};  ///< allowedValueRange
  std::string_view default_value = {};  ///< empty: none
};

enum class Direction : std::uint8_t { in, out };

struct Argument {
  std::string_view name;
  Direction direction = Direction::in;
  std::string_view related;  ///< name of a state variable of the table
};

/// `in` arguments come before `out` ones.
struct Action {
  std::string_view name;
  std::span<const Argument> arguments = {};
  unsigned since = 1;  ///< the first version of the service that has it; to a request for an older one it is unknown
  constexpr const Argument* find(std::string_view argument) const noexcept {
    for (const auto& each : arguments)
      if (each.name == argument) return &each;
    return nullptr;
  }
};

struct ServiceTable {
  std::string_view type;  ///< without the version: "urn:schemas-upnp-org:service:WANIPConnection"
  unsigned version = 1;   ///< requests for this version and lower ones are served
  std::string_view id;    ///< "urn:upnp-org:serviceId:WANIPConn1"
  std::span<const Action> actions;
  std::span<const StateVariable> variables;
  constexpr const Action* find_action(std::string_view name) const noexcept {
    for (const auto& each : actions)
      if (each.name == name) return &each;
    return nullptr;
  }
  constexpr const StateVariable* find_variable(std::string_view name) const noexcept {
    for (const auto& each : variables)
      if (each.name == name) return &each;
    return nullptr;
  }
};

}  // namespace sallyport::upnp::description
