#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "protocols/upnp/http/exchange.hpp"
#include "protocols/upnp/http/url.hpp"

/// Control as a control point speaks it (UDA 1.1, section 3): actions out, answers in. Pure functions.
namespace sallyport::upnp::soap {

inline constexpr std::size_t max_answer = 32 * 1024;       ///< octets of an answer's body
inline constexpr std::size_t max_out_arguments = 32;       ///< more are left out
inline constexpr std::size_t max_error_description = 256;  ///< octets, cut at a character

using InArgument = std::pair<std::string_view, std::string_view>;

/// The POST that asks for an action. The values are raw text.
http::Ask action(const http::Url& control, std::uint32_t interface, std::string_view service_type,
                 std::string_view name, std::span<const InArgument> arguments);

/// What an action gave: its `out` arguments, decoded, in the order they came.
struct Answer {
  std::vector<std::pair<std::string, std::string>> arguments;
  /// Blanks around it left out; empty when there is none of this name.
  std::optional<std::string_view> find(std::string_view name) const noexcept;
};

/// Why it gave nothing.
struct Refusal {
  unsigned code = 0;        ///< of a UPnPError; 0: the answer has none that can be read
  unsigned status = 0;      ///< of HTTP
  std::string description;  ///< errorDescription, UTF-8; may be empty
};

/// Reads what came back for the action `name`. Prefixes, namespaces and the order of things do not matter,
/// octets that are no XML around the document neither; a fault counts with whatever status. 200 without a
/// body is success without arguments: some devices have nothing more to say.
std::variant<Answer, Refusal> read_answer(const http::Reply& reply, std::string_view name);

}  // namespace sallyport::upnp::soap
