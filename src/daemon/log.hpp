#pragma once

#include <string>
#include <string_view>

/// The log: one event a line on stderr, plain text for people, with `<N>` priorities and no time where
/// journald reads it. spdlog is behind it, in one file, because it is slow to compile.
namespace sallyport::daemon::log {

enum class Level { trace, debug, info, warn, error };

/// Before the first line. `level` is one of trace, debug, info, warn, error.
void start(std::string_view level);
void set_level(std::string_view level);
bool enabled(Level level);
void write(Level level, const std::string& text);

inline void error(const std::string& text) { write(Level::error, text); }
inline void warn(const std::string& text) { write(Level::warn, text); }
inline void info(const std::string& text) { write(Level::info, text); }
inline void debug(const std::string& text) { write(Level::debug, text); }

/// Text from the network or the system as one line shows it: what is not printable, and the backslash, becomes
/// \xNN (policy.md, POL-TXT-04).
std::string escaped(std::string_view text);

}  // namespace sallyport::daemon::log
