#include "protocols/upnp/gena/codec.hpp"

#include "tests/support/vectors.hpp"

namespace sallyport::upnp::gena {
namespace {

const Address alice = *Address::parse("192.168.1.10");
const Address alice_v6 = *Address::parse("2001:db8::a");

std::string url_of_length(std::size_t octets) {
  std::string url = "http://192.168.1.10/";
  url.resize(octets, 'x');
  return url;
}

TEST(GenaCallback, IsTakenApart) {
  struct Row {
    std::string field;
    std::vector<Callback> callbacks;
  };
  const Row rows[] = {
      {"<http://192.168.1.10:49152/>", {{alice, 49152, "/"}}},
      {"<http://192.168.1.10/a/b?c=d&e=%20>", {{alice, 80, "/a/b?c=d&e=%20"}}},
      {"<http://192.168.1.10>", {{alice, 80, "/"}}},
      {"<http://192.168.1.10:8080>", {{alice, 8080, "/"}}},
      {"<HTTP://192.168.1.10:1/x>", {{alice, 1, "/x"}}},
      {"<http://192.168.1.10:65535/x#part>", {{alice, 65535, "/x"}}},
      {"<http://192.168.1.10/a><http://192.168.1.10:81/b>", {{alice, 80, "/a"}, {alice, 81, "/b"}}},
      {"  <http://192.168.1.10/a> \t <http://192.168.1.10:81/b> ", {{alice, 80, "/a"}, {alice, 81, "/b"}}},
      {"<http://192.168.1.10/!\"$%&'()*+,-./:;=?@[\\]^_`{|}~>",
       {{alice, 80, "/!\"$%&'()*+,-./:;=?@[\\]^_`{|}~"}}},
  };
  for (const auto& row : rows) {
    const auto callbacks = decode_callback(row.field, alice);
    ASSERT_TRUE(callbacks) << row.field;
    EXPECT_EQ(*callbacks, row.callbacks) << row.field;
  }
}

TEST(GenaCallback, ReadsABracketedIpv6Literal) {
  const auto callbacks = decode_callback("<http://[2001:DB8:0::a]:5000/x><http://[2001:db8::a]>", alice_v6);
  ASSERT_TRUE(callbacks);
  EXPECT_EQ(*callbacks, (std::vector<Callback>{{alice_v6, 5000, "/x"}, {alice_v6, 80, "/"}}));
}

// UDA-4-05, UDA-4-19, UDA-4-20, POL-EVT-01, POL-WHO-07
TEST(GenaCallback, RefusesEverythingElseWhole) {
  const std::string fields[] = {
      "",
      " ",
      "<>",
      "<",
      ">",
      "http://192.168.1.10/",
      "<http://192.168.1.10/",
      "http://192.168.1.10/>",
      "<<http://192.168.1.10/>>",
      "<http://192.168.1.10/a<b>",
      "<http://192.168.1.10/>x",
      "x<http://192.168.1.10/>",
      "<http://192.168.1.10/>,<http://192.168.1.10/>",
      "<http://192.168.1.10/><>",
      "<https://192.168.1.10/>",
      "<ftp://192.168.1.10/>",
      "<//192.168.1.10/>",
      "<192.168.1.10/>",
      "<http:/192.168.1.10/>",
      "<http:///x>",
      "<http://>",
      "<http://192.168.1.11/>",
      "<http://203.0.113.9/>",
      "<http://192.168.1.10/a><http://203.0.113.9/b>",
      "<http://203.0.113.9/b><http://192.168.1.10/a>",
      "<http://localhost/>",
      "<http://alice.lan/>",
      "<http://192.168.1.10.evil.example/>",
      "<http://192.168.1.10@203.0.113.9/>",
      "<http://user:word@192.168.1.10/>",
      "<http://192.168.1.10:80@203.0.113.9/>",
      "<http://3232235786/>",
      "<http://0xc0.0xa8.0x01.0x0a/>",
      "<http://192.168.010.10/>",
      "<http://192.168.01.10/>",
      "<http://192.168.266/>",
      "<http://192.168.1.10./>",
      "<http://[192.168.1.10]/>",
      "<http://[::ffff:192.168.1.10]/>",
      "<http://::ffff:192.168.1.10/>",
      "<http://[::ffff:c0a8:10a]/>",
      "<http://192.168.1.10:/>",
      "<http://192.168.1.10:0/>",
      "<http://192.168.1.10:65536/>",
      "<http://192.168.1.10:4294967376/>",
      "<http://192.168.1.10:+80/>",
      "<http://192.168.1.10:80 />",
      "<http://192.168.1.10:80:80/>",
      "<http://192.168.1.10:8o/>",
      "<http://192.168.1.10?x>",
      "<http://192.168.1.10#x>",
      "<http://192.168.1.10\\x>",
      "<http://192.168.1.10%2f/>",
      "< http://192.168.1.10/>",
      "<http://192.168.1.10/ >",
      "<http://192.168.1.10/a b>",
      "<http://192.168.1.10/a\tb>",
      "<http://192.168.1.10/a\r\nSID: x>",
      "<http://192.168.1.10/a\nb>",
      "<http://192.168.1.10/\x7f>",
      "<http://192.168.1.10/\xc3\xa4>",
      std::string{"<http://192.168.1.10/a\0b>", 25},
      "<http://192.168.1.10/1><http://192.168.1.10/2><http://192.168.1.10/3><http://192.168.1.10/4>"
      "<http://192.168.1.10/5>",
  };
  for (const auto& field : fields) EXPECT_FALSE(decode_callback(field, alice)) << field;
  for (const auto* field : {"<http://[2001:db8::a]x/>", "<http://[2001:db8::a/>", "<http://2001:db8::a/>",
                            "<http://[2001:db8::b]/>", "<http://[2001:db8::a%eth0]/>", "<http://[]/>"})
    EXPECT_FALSE(decode_callback(field, alice_v6)) << field;
}

TEST(GenaCallback, HasALimitOfUrlsAndOfTheirLength) {
  const auto longest = url_of_length(max_callback_octets);
  const auto four = "<" + longest + "><" + longest + "><" + longest + "><" + longest + ">";
  EXPECT_EQ(decode_callback(four, alice).value().size(), 4u);
  EXPECT_FALSE(decode_callback(four + "<" + longest + ">", alice));
  EXPECT_FALSE(decode_callback("<" + url_of_length(max_callback_octets + 1) + ">", alice));
  EXPECT_FALSE(decode_callback(std::string(1 << 20, '<'), alice));
  EXPECT_FALSE(decode_callback(std::string(1 << 20, ' '), alice));
}

TEST(GenaCallback, IsRefusedWhereverItIsCutOff) {
  const std::string field = "<http://192.168.1.10:49152/a>";
  for (std::size_t n = 0; n < field.size(); ++n)
    EXPECT_FALSE(decode_callback(std::string_view{field}.substr(0, n), alice)) << n;
}

// POL-EVT-01, POL-EVT-06
TEST(GenaCallback, NamesOnlyTheSubscriberWhateverIsChangedInIt) {
  std::mt19937 random{20261127};
  const std::string good = "<http://192.168.1.10:49152/a?b><http://192.168.1.10/c>";
  int taken = 0;
  for (int round = 0; round < 50'000; ++round) {
    const auto* octets = reinterpret_cast<const std::byte*>(good.data());
    std::vector<std::byte> bytes{octets, octets + good.size()};
    sallyport::test::mutate(bytes, random);
    const std::string_view field{reinterpret_cast<const char*>(bytes.data()), bytes.size()};
    const auto callbacks = decode_callback(field, alice);
    if (!callbacks) continue;
    ++taken;
    ASSERT_LE(callbacks->size(), max_callbacks);
    for (const auto& callback : *callbacks) {
      ASSERT_EQ(callback.address, alice) << field;
      ASSERT_NE(callback.port, 0) << field;
      ASSERT_EQ(callback.path.front(), '/') << field;
      for (const char c : callback.path) ASSERT_TRUE(c > ' ' && c < '\x7f') << field;
    }
  }
  EXPECT_GT(taken, 100);
}

// UDA-4-03, UDA-4-04, POL-EVT-03, UPNP-X-10
TEST(GenaTimeout, IsGrantedWithinTheLimits) {
  const TimeLimits limits;
  const std::pair<std::optional<std::string_view>, std::uint32_t> rows[] = {
      {std::nullopt, 1800},
      {"", 1800},
      {"infinite", 1800},
      {"Second-infinite", 1800},
      {"Second-", 1800},
      {"Second-0", 1800},
      {"Second-4", 1800},
      {"Second-5", 5},
      {"second-300", 300},
      {"SECOND-00300", 300},
      {"Second-86400", 86400},
      {"Second-86401", 86400},
      {"Second-4294967296", 86400},
      {"Second-18446744073709551621", 86400},
      {"Second-99999999999999999999999999999999999999999999999999", 86400},
      {"Second--5", 1800},
      {"Second-+300", 1800},
      {"Second- 300", 1800},
      {"Second-300s", 1800},
      {"Second-3.5", 1800},
      {"Minute-5", 1800},
      {"300", 1800},
      {"Second-300, Second-600", 1800},
  };
  for (const auto& [field, seconds] : rows)
    EXPECT_EQ(decode_timeout(field, limits), seconds) << field.value_or("(missing)");
  EXPECT_EQ(decode_timeout(std::nullopt, {1800, 5, 600}), 600u) << "the usual time is within the longest";
  EXPECT_EQ(decode_timeout("Second-" + std::string(1 << 20, '0'), limits), 1800u);
}

// POL-EVT-02, UDA-4-02
TEST(GenaSid, IsAVersion4Uuid) {
  std::array<std::byte, 16> bits{};
  EXPECT_EQ(encode_sid(bits), "uuid:00000000-0000-4000-8000-000000000000");
  bits.fill(std::byte{0xff});
  EXPECT_EQ(encode_sid(bits), "uuid:ffffffff-ffff-4fff-bfff-ffffffffffff");
  for (std::size_t i = 0; i < 16; ++i) bits[i] = static_cast<std::byte>(0x11 * i);
  EXPECT_EQ(encode_sid(bits), "uuid:00112233-4455-4677-8899-aabbccddeeff");
}

// UDA-4-15
TEST(GenaSequence, WrapsTo1) {
  EXPECT_EQ(next_sequence(0), 1u);
  EXPECT_EQ(next_sequence(1), 2u);
  EXPECT_EQ(next_sequence(0xfffffffeU), 0xffffffffU);
  EXPECT_EQ(next_sequence(0xffffffffU), 1u);
}

TEST(GenaPropertyset, EscapesValues) {
  const Property property{"Name", "a<b>&\"'\r\n\t]]>\x01\xc3\xa4"};
  EXPECT_EQ(encode_propertyset({&property, 1}),
            "<?xml version=\"1.0\"?>\n<e:propertyset xmlns:e=\"urn:schemas-upnp-org:event-1-0\">\n"
            "<e:property><Name>a&lt;b&gt;&amp;&quot;&apos;&#13;\n\t]]&gt;\xef\xbf\xbd\xc3\xa4</Name></e:property>\n"
            "</e:propertyset>\n");
}

TEST(GenaNotify, NamesAnIpv6HostInBrackets) {
  const auto bytes = encode_notify({alice_v6, 5000, "/x"}, "uuid:1", 7, "body");
  EXPECT_TRUE(bytes.starts_with("NOTIFY /x HTTP/1.1\r\nHOST: [2001:db8::a]:5000\r\n")) << bytes;
  EXPECT_TRUE(bytes.ends_with("\r\nSEQ: 7\r\nCONNECTION: close\r\n\r\nbody")) << bytes;
}

}  // namespace
}  // namespace sallyport::upnp::gena
