#include "src/daemon/log.hpp"

namespace sallyport::daemon {
namespace {

// POL-TXT-04: a log event is one line, and no text from the network forges another
TEST(Log, ShowsUnprintableOctetsInHex) {
  EXPECT_EQ(log::escaped("web server"), "web server");
  EXPECT_EQ(log::escaped("a\nb\r\x1b[31m\x7f"), "a\\x0ab\\x0d\\x1b[31m\\x7f");
  EXPECT_EQ(log::escaped(std::string_view{"\0", 1}), "\\x00");
  EXPECT_EQ(log::escaped("caf\xc3\xa9"), "caf\xc3\xa9");
  EXPECT_EQ(log::escaped("caf\xe9"), "caf\\xe9") << "Latin-1";
  EXPECT_EQ(log::escaped("\\x0a"), "\\x5cx0a") << "what looks escaped and is not stays told apart";
}

}  // namespace
}  // namespace sallyport::daemon
