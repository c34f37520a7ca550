#include "src/daemon/log.hpp"

#include <sys/stat.h>

#include <cstdlib>
#include <memory>

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include "sallyport/values/printable.hpp"

namespace sallyport::daemon::log {
namespace {

/// syslog's numbers (RFC 5424, 6.2.1), as sd-daemon(3) wants them in front of a line.
class Priority final : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&, spdlog::memory_buf_t& out) override {
    char digit = '7';
    if (message.level == spdlog::level::info) digit = '6';
    if (message.level == spdlog::level::warn) digit = '4';
    if (message.level >= spdlog::level::err) digit = '3';
    out.push_back('<');
    out.push_back(digit);
    out.push_back('>');
  }
  std::unique_ptr<custom_flag_formatter> clone() const override { return std::make_unique<Priority>(); }
};

/// True when stderr is the very stream that the journal gave us (systemd.exec(5), JOURNAL_STREAM).
bool stderr_is_journal() {
  const char* stream = std::getenv("JOURNAL_STREAM");
  struct stat status {};
  if (stream == nullptr || ::fstat(2, &status) != 0) return false;
  return std::to_string(status.st_dev) + ':' + std::to_string(status.st_ino) == stream;
}

spdlog::level::level_enum to_spdlog(Level level) {
  switch (level) {
    case Level::trace:
      return spdlog::level::trace;
    case Level::debug:
      return spdlog::level::debug;
    case Level::info:
      return spdlog::level::info;
    case Level::warn:
      return spdlog::level::warn;
    case Level::error:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

}  // namespace

void start(std::string_view level) {
  auto logger =
      std::make_shared<spdlog::logger>("sallyportd", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  auto formatter = std::make_unique<spdlog::pattern_formatter>();
  if (stderr_is_journal()) {
    formatter->add_flag<Priority>('*');
    formatter->set_pattern("%*%v");
  } else {
    formatter->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l: %v");
  }
  logger->set_formatter(std::move(formatter));
  logger->flush_on(spdlog::level::trace);
  spdlog::set_default_logger(std::move(logger));
  set_level(level);
}

void set_level(std::string_view level) {
  const std::string word{level};
  spdlog::set_level(spdlog::level::from_str(word == "warn" ? "warning" : word));
}

bool enabled(Level level) { return spdlog::should_log(to_spdlog(level)); }

void write(Level level, const std::string& text) {
  spdlog::log(to_spdlog(level), spdlog::string_view_t{text});
}

std::string escaped(std::string_view text) { return printable(text, true); }

}  // namespace sallyport::daemon::log
