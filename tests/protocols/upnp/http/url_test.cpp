#include "protocols/upnp/http/url.hpp"

#include <gtest/gtest.h>

namespace sallyport::upnp::http {
namespace {

const auto box = Address::v4(0xc0a80101);

TEST(HttpUrl, IsTakenApart) {
  EXPECT_EQ(parse_http_url("http://192.168.1.1:5000/root.xml"), (Url{box, 5000, "/root.xml"}));
  EXPECT_EQ(parse_http_url(" HTTP://192.168.1.1\r\n"), (Url{box, 80, "/"}));
  EXPECT_EQ(parse_http_url("http://192.168.1.1:/a?b=c/../d#e"), (Url{box, 80, "/a?b=c/../d"}));
  EXPECT_EQ(parse_http_url("http://192.168.1.1?x"), (Url{box, 80, "/?x"}));
  EXPECT_EQ(parse_http_url("http://[2001:db8::1]:81/x"), (Url{*Address::parse("2001:db8::1"), 81, "/x"}));
  for (const auto* const zone : {"http://[fe80::1%eth0]/", "http://[fe80::1%252]/", "http://[fe80::1]/"})
    EXPECT_EQ(parse_http_url(zone), (Url{*Address::parse("fe80::1"), 80, "/"})) << zone;
}

TEST(HttpUrl, OnlyLiteralAddressesAndNothingThatCouldMeanAnother) {
  for (const auto* const wrong : {"",
                                  "http://",
                                  "http:///x",
                                  "https://192.168.1.1/",
                                  "ftp://192.168.1.1/",
                                  "192.168.1.1/",
                                  "/x",
                                  "http://router/",
                                  "http://router.lan:80/",
                                  "http://user@192.168.1.1/",
                                  "http://192.168.1.1@evil/",
                                  "http://192.168.1.1:0/",
                                  "http://192.168.1.1:65536/",
                                  "http://192.168.1.1:8x/",
                                  "http://192.168.1/",
                                  "http://3232235777/",
                                  "http://0300.168.1.1/",
                                  "http://2001:db8::1/",
                                  "http://[2001:db8::1/",
                                  "http://[192.168.1.1]/",
                                  "http://192.168.1.1/a b",
                                  "http://192.168.1.1/\x01",
                                  "http://192.168.1.1/\xc3\xbc",
                                  "http://[::ffff:192.168.1.1]/"})
    EXPECT_FALSE(parse_http_url(wrong)) << wrong;
  const std::string long_path(max_url, 'a');
  EXPECT_FALSE(parse_http_url("http://192.168.1.1/" + long_path));
}

TEST(HttpUrl, AReferenceIsResolvedAgainstItsDocument) {  // RFC 3986, section 5.4
  const Url base{box, 5000, "/b/c/d;p?q"};
  const std::pair<const char*, const char*> rows[] = {{"g", "/b/c/g"},
                                                      {"./g", "/b/c/g"},
                                                      {"g/", "/b/c/g/"},
                                                      {"/g", "/g"},
                                                      {"?y", "/b/c/d;p?y"},
                                                      {"g?y", "/b/c/g?y"},
                                                      {"#s", "/b/c/d;p?q"},
                                                      {"g#s", "/b/c/g"},
                                                      {"g?y#s", "/b/c/g?y"},
                                                      {";x", "/b/c/;x"},
                                                      {"", "/b/c/d;p?q"},
                                                      {".", "/b/c/"},
                                                      {"./", "/b/c/"},
                                                      {"..", "/b/"},
                                                      {"../", "/b/"},
                                                      {"../g", "/b/g"},
                                                      {"../..", "/"},
                                                      {"../../g", "/g"},
                                                      {"../../../g", "/g"},
                                                      {"/./g", "/g"},
                                                      {"/../g", "/g"},
                                                      {"g.", "/b/c/g."},
                                                      {"..g", "/b/c/..g"},
                                                      {"./g/.", "/b/c/g/"},
                                                      {"g/../h", "/b/c/h"},
                                                      {"g?y/../x", "/b/c/g?y/../x"},
                                                      {" ctl/IP \n", "/b/c/ctl/IP"},
                                                      {"//192.168.1.1:5000/x", "/x"},
                                                      {"a/b:c", "/b/c/a/b:c"},
                                                      {"http://192.168.1.1:5000/z", "/z"}};
  for (const auto& [reference, target] : rows) {
    const auto url = resolve(base, reference);
    ASSERT_TRUE(url) << reference;
    EXPECT_EQ(*url, (Url{box, 5000, target})) << reference;
  }
  EXPECT_EQ(resolve(base, "http://10.0.0.1/z"), (Url{Address::v4(0x0a000001), 80, "/z"}));
  for (const auto* const wrong :
       {"http://router/z", "urn:x", "ftp://192.168.1.1/z", "//router/x", "a b", "javascript:x"})
    EXPECT_FALSE(resolve(base, wrong)) << wrong;
  EXPECT_FALSE(resolve({box, 80, '/' + std::string(max_url - 10, 'a') + "/b"}, std::string(20, 'c')));
}

TEST(HttpUrl, HostNamesThePortWhereItIsNotTheUsualOne) {
  EXPECT_EQ(host_field(box, 80), "192.168.1.1");
  EXPECT_EQ(host_field(box, 5000), "192.168.1.1:5000");
  EXPECT_EQ(host_field(*Address::parse("2001:db8::1"), 5000), "[2001:db8::1]:5000");
}

}  // namespace
}  // namespace sallyport::upnp::http
