#include "src/daemon/mapping_log.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/manual_clock.hpp"

namespace sallyport::daemon {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class MappingLogTest : public testing::Test {
 protected:
  static nat::ImplicitView mapping(std::uint32_t host, unsigned port, unsigned external,
                                   Transport transport = Transport::udp) {
    return {.transport = transport,
            .internal = {Address::v4(0x0a000000 + host), *Port::from(port)},
            .external = {Address::v4(0xcb007107), *Port::from(external)},
            .deadline = {}};
  }
  std::vector<std::string> take(std::vector<nat::ImplicitView> mappings) {
    lines.clear();
    log.take(std::move(mappings), clock.now());
    clock.advance(std::chrono::seconds{1});
    return lines;
  }
  test::ManualClock clock;
  std::vector<std::string> lines;
  MappingLog log{[this](const std::string& line) { lines.push_back(line); }};
};

// N6888-12, -13, NLOG-01, -02
TEST_F(MappingLogTest, ALineWhenAMappingBeginsAndOneWhenItEnds) {
  EXPECT_THAT(take({mapping(5, 4000, 4000), mapping(6, 4000, 31000, Transport::tcp)}),
              ElementsAre("mapping begins: udp 10.0.0.5:4000 <-> 203.0.113.7:4000",
                          "mapping begins: tcp 10.0.0.6:4000 <-> 203.0.113.7:31000"));
  EXPECT_THAT(take({mapping(6, 4000, 31000, Transport::tcp)}),
              ElementsAre("mapping ends: udp 10.0.0.5:4000 <-> 203.0.113.7:4000"));
  EXPECT_THAT(take({}), ElementsAre("mapping ends: tcp 10.0.0.6:4000 <-> 203.0.113.7:31000"));
}

// N6888-15
TEST_F(MappingLogTest, WhatStaysIsNotToldAgain) {
  take({mapping(5, 4000, 4000), mapping(6, 4000, 31000)});
  EXPECT_THAT(take({mapping(6, 4000, 31000), mapping(5, 4000, 4000)}), IsEmpty());
}

TEST_F(MappingLogTest, APortThatChangesHandsEndsBeforeItBegins) {
  take({mapping(5, 4000, 4000)});
  EXPECT_THAT(take({mapping(6, 4000, 4000)}),
              ElementsAre("mapping ends: udp 10.0.0.5:4000 <-> 203.0.113.7:4000",
                          "mapping begins: udp 10.0.0.6:4000 <-> 203.0.113.7:4000"));
  EXPECT_THAT(take({mapping(5, 4000, 4000)}),
              ElementsAre("mapping ends: udp 10.0.0.6:4000 <-> 203.0.113.7:4000",
                          "mapping begins: udp 10.0.0.5:4000 <-> 203.0.113.7:4000"));
}

// NLOG-04
TEST_F(MappingLogTest, AFloodIsCounted) {
  std::vector<nat::ImplicitView> many;
  for (unsigned i = 0; i < 12000; ++i) many.push_back(mapping(5, 1024 + i, 1024 + i));
  EXPECT_EQ(take(many).size(), 10000U) << "its burst";
  EXPECT_THAT(take(many), ElementsAre("2000 more records of mappings were not written (5,000 a second are)"));
}

TEST_F(MappingLogTest, WhatIsForgottenBeginsAnew) {
  take({mapping(5, 4000, 4000)});
  log.forget();
  EXPECT_THAT(take({mapping(5, 4000, 4000)}),
              ElementsAre("mapping begins: udp 10.0.0.5:4000 <-> 203.0.113.7:4000"));
}

}  // namespace
}  // namespace sallyport::daemon
