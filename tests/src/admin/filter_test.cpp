#include "sallyport/admin/filter.hpp"

#include <gtest/gtest.h>

namespace sallyport::admin {
namespace {

using namespace std::chrono_literals;

TEST(Filter, TakesEveryWordOfTheContract) {
  Filter filter;
  for (const auto* word : {"device=xbox", "protocol=udp", "via=natpmp", "kind=static", "external=3074-3080",
                           "internal=3074", "state=ending", "family=ipv6"})
    ASSERT_TRUE(narrow(filter, word)) << word;
  EXPECT_EQ(filter.device, "xbox");
  EXPECT_EQ(filter.transport, Transport::udp);
  EXPECT_EQ(filter.via, Via::natpmp);
  EXPECT_EQ(filter.kind, LeaseKind::static_);
  EXPECT_EQ(filter.external, (PortRange{3074, 3080}));
  EXPECT_EQ(filter.internal, (PortRange{3074, 3074}));
  EXPECT_EQ(filter.state, LeaseState::ending);
  EXPECT_EQ(filter.ipv6, true);
  EXPECT_FALSE(filter.impossible);
  EXPECT_EQ(to_query(filter),
            "device=xbox&protocol=udp&via=natpmp&kind=static&external=3074-3080&internal=3074&state=ending&"
            "family=ipv6");
}

TEST(Filter, SaysWhatThereIsWhenAWordIsWrong) {
  const std::pair<const char*, const char*> wrong[] = {
      {"xbox", "'xbox' is no filter; a filter is a word such as device=xbox or protocol=udp"},
      {"", "'' is no filter; a filter is a word such as device=xbox or protocol=udp"},
      {"port=1",
       "'port' is no filter; there are device, protocol, family, via, kind, external, internal and state"},
      {"Protocol=udp",
       "'Protocol' is no filter; there are device, protocol, family, via, kind, external, internal and "
       "state"},
      {"=udp",
       "'' is no filter; there are device, protocol, family, via, kind, external, internal and state"},
      {"device=", "'device' needs an address or a name, such as device=192.168.1.20 or device=xbox"},
      {"protocol=sctp", "'sctp' is no value of 'protocol'; there are tcp, udp"},
      {"via=PCP", "'PCP' is no value of 'via'; there are pcp, natpmp, upnp, admin, config"},
      {"kind=all", "'all' is no value of 'kind'; there are explicit, static, implicit"},
      {"state=", "'' is no value of 'state'; there are active, disabled, pending, ending"},
      {"external=0", "'0' is no port; 'external' takes one from 1 to 65535, or a range such as 3074-3080"},
      {"external=65536",
       "'65536' is no port; 'external' takes one from 1 to 65535, or a range such as 3074-3080"},
      {"external=9-8",
       "'9-8' is no port; 'external' takes one from 1 to 65535, or a range such as 3074-3080"},
      {"external=-8", "'-8' is no port; 'external' takes one from 1 to 65535, or a range such as 3074-3080"},
      {"external=8-", "'8-' is no port; 'external' takes one from 1 to 65535, or a range such as 3074-3080"},
      {"internal=80x",
       "'80x' is no port; 'internal' takes one from 1 to 65535, or a range such as 3074-3080"},
      {"internal=99999999999",
       "'99999999999' is no port; 'internal' takes one from 1 to 65535, or a range such as "
       "3074-3080"},
  };
  for (const auto& [word, message] : wrong) {
    Filter filter;
    const auto narrowed = narrow(filter, word);
    ASSERT_FALSE(narrowed) << word;
    EXPECT_EQ(narrowed.error(), message);
    EXPECT_TRUE(filter.empty()) << word;
  }
}

TEST(Filter, NarrowsFurtherWhenAKeyComesTwice) {
  Filter filter;
  ASSERT_TRUE(narrow(filter, "external=1000-2000"));
  ASSERT_TRUE(narrow(filter, "external=1500-3000"));
  EXPECT_EQ(filter.external, (PortRange{1500, 2000}));
  EXPECT_FALSE(filter.impossible);
  ASSERT_TRUE(narrow(filter, "external=80"));
  EXPECT_TRUE(filter.impossible);

  Filter both;
  ASSERT_TRUE(narrow(both, "protocol=tcp"));
  ASSERT_TRUE(narrow(both, "protocol=tcp"));
  EXPECT_FALSE(both.impossible);
  ASSERT_TRUE(narrow(both, "protocol=udp"));
  EXPECT_TRUE(both.impossible);
}

TEST(Filter, EncodesWhatAnAddressCannotHold) {
  Filter filter;
  ASSERT_TRUE(narrow(filter, "device=my tv&x=é"));
  EXPECT_EQ(to_query(filter), "device=my%20tv%26x%3D%C3%A9");
}

TEST(Duration, IsAWholeNumberAndAUnit) {
  EXPECT_EQ(parse_duration("90s"), 90s);
  EXPECT_EQ(parse_duration("15m"), 15min);
  EXPECT_EQ(parse_duration("24h"), 24h);
  EXPECT_EQ(parse_duration("7d"), 168h);
  for (const auto* wrong :
       {"", "s", "24", "24 h", "1w", "-1h", "1.5h", "0s", "24hh", "4000d", "99999999999999999999s"})
    EXPECT_FALSE(parse_duration(wrong)) << wrong;
}

}  // namespace
}  // namespace sallyport::admin
