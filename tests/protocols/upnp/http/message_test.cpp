#include "protocols/upnp/http/message.hpp"

#include <gtest/gtest.h>

#include <chrono>

namespace sallyport::upnp::http {
namespace {

TEST(HttpMessage, ADateIsThatOfRfc9110) {
  using namespace std::chrono;
  EXPECT_EQ(http_date(WallTime{}), "Thu, 01 Jan 1970 00:00:00 GMT");
  EXPECT_EQ(http_date(WallTime{seconds{784111777}}), "Sun, 06 Nov 1994 08:49:37 GMT");
  EXPECT_EQ(http_date(sys_days{year{2028} / 2 / 29} + 23h + 59min + 59s), "Tue, 29 Feb 2028 23:59:59 GMT");
}

}  // namespace
}  // namespace sallyport::upnp::http
