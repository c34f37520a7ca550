#include "src/transport/device_names.hpp"

#include <fstream>

#include "tests/support/manual_clock.hpp"

namespace sallyport::transport {
namespace {

using testing::Pair;
using testing::UnorderedElementsAre;

Address ip(const char* text) { return *Address::parse(text); }

TEST(DeviceNames, ReadsDnsmasqLeases) {
  NameTable names;
  read_dnsmasq_leases(
      "1764000000 02:00:00:00:00:05 192.168.1.5 xbox 01:02:00:00:00:00:05\n"
      "1764000000 02:00:00:00:00:06 192.168.1.6 * *\n"
      "duid 00:01\n"
      "1764000000 02:00:00:00:00:07 192.168.1.7 nas",
      names);
  EXPECT_THAT(names, UnorderedElementsAre(Pair(ip("192.168.1.5"), "xbox"), Pair(ip("192.168.1.7"), "nas")));
}

// POL-TXT-04 and its like: a device chooses its own name
TEST(DeviceNames, LeavesOutWhatNoHostNameCanBe) {
  NameTable names;
  read_dnsmasq_leases(
      "1 m 192.168.1.5 \x1b[31mred *\n1 m 192.168.1.6 a<b *\n1 m 192.168.1.7 -rf *\n1 m 192.168.1.8 \xff *\n",
      names);
  EXPECT_TRUE(names.empty());
}

TEST(DeviceNames, ReadsHosts) {
  NameTable names;
  read_hosts("127.0.0.1\tlocalhost\n# 192.168.1.4 no\n192.168.1.5 camera cam # the porch\n192.168.1.6\n",
             names);
  EXPECT_THAT(names,
              UnorderedElementsAre(Pair(ip("127.0.0.1"), "localhost"), Pair(ip("192.168.1.5"), "camera")));
}

TEST(DeviceNames, ReadsAFileAgainWhenItChanged) {
  const auto path = std::filesystem::path{testing::TempDir()} / "device_names_leases";
  std::filesystem::remove(path);
  test::ManualClock clock;
  DeviceNames names{{{path, false}}};
  EXPECT_EQ(names.name_of(ip("192.168.1.5"), clock.now()), std::nullopt);
  std::ofstream{path} << "1 m 192.168.1.5 xbox *\n";
  EXPECT_EQ(names.name_of(ip("192.168.1.5"), clock.now()), std::nullopt) << "not looked at again so soon";
  clock.advance(std::chrono::seconds{5});
  EXPECT_EQ(names.name_of(ip("192.168.1.5"), clock.now()), "xbox");
  std::filesystem::remove(path);
  clock.advance(std::chrono::seconds{5});
  EXPECT_EQ(names.name_of(ip("192.168.1.5"), clock.now()), std::nullopt);
}

}  // namespace
}  // namespace sallyport::transport
