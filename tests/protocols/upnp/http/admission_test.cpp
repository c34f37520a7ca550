#include "protocols/upnp/http/admission.hpp"

namespace sallyport::upnp::http {
namespace {

const auto gateway = Address::v4(0xc0a80101);
const auto gateway_v6 = *Address::parse("2001:db8::1");
const auto other_own = Address::v4(0x0a000001);

Request request(std::string method, std::string target, std::vector<Fields::Field> fields = {}) {
  Request result;
  result.method = std::move(method);
  result.target = std::move(target);
  for (auto& [name, value] : fields) result.fields.add(name, value);
  result.peer = Address::v4(0xc0a8010a);
  result.local = gateway;
  return result;
}

Request get_with_host(std::string host) { return request("GET", "/rootDesc.xml", {{"HOST", std::move(host)}}); }

unsigned status_of(const Request& asked, std::span<const Address> own = {}) {
  const auto refusal = refuse(asked, own);
  return refusal ? refusal->status : 200;
}

TEST(Authority, IsAnIpLiteralWithOrWithoutAPort) {
  EXPECT_EQ(parse_authority("192.168.1.1"), (Authority{gateway, std::nullopt}));
  EXPECT_EQ(parse_authority("192.168.1.1:5000"), (Authority{gateway, 5000}));
  EXPECT_EQ(parse_authority("192.168.1.1:65535"), (Authority{gateway, 65535}));
  EXPECT_EQ(parse_authority("[2001:db8::1]"), (Authority{gateway_v6, std::nullopt}));
  EXPECT_EQ(parse_authority("[2001:DB8:0::1]:80"), (Authority{gateway_v6, 80}));
}

// POL-WEB-05
TEST(Authority, IsNothingElse) {
  for (const auto* text :
       {"", " ", "localhost", "localhost:5000", "router.lan", "192.168.1.1.evil.example", "192.168.1.1.",
        "192.168.1", "192.168.257", "3232235777", "0xc0a80101", "0300.0250.1.1", "192.168.01.1", "192.168.1.1 ",
        " 192.168.1.1", "192.168.1.1:", "192.168.1.1:x", "192.168.1.1:80x", "192.168.1.1:-1", "192.168.1.1:65536",
        "192.168.1.1:000080", "192.168.1.1:80:80", "192.168.1.1:80/", "192.168.1.1/", "192.168.1.1,192.168.1.1",
        "user@192.168.1.1", "192.168.1.1@evil.example", "192.168.1.1:80@evil.example", "192.168.1.1#", "[",
        "[]", "[192.168.1.1]", "[::ffff:192.168.1.1]", "[2001:db8::1", "2001:db8::1", "[2001:db8::1]x",
        "[2001:db8::1]:", "[2001:db8::1]80", "[fe80::1%25lan0]", "[fe80::1%lan0]", "[2001:db8::1]:80]", "[v1.a]",
        "[2001:db8:::1]", "[1:2:3:4:5:6:7:8:9]"})
    EXPECT_FALSE(parse_authority(text)) << text;
  EXPECT_FALSE(parse_authority(std::string_view{"192.168.1.1\0", 12}));
  EXPECT_FALSE(parse_authority(std::string(100000, '1')));
}

// each octet of a good one replaced by each other octet: what is still accepted is another literal
TEST(Authority, MutatedIsEitherALiteralOrNothing) {
  for (const std::string good : {"192.168.1.1:5000", "[2001:db8::1]:80"})
    for (std::size_t at = 0; at < good.size(); ++at)
      for (unsigned octet = 0; octet < 256; ++octet) {
        auto bad = good;
        bad[at] = static_cast<char>(octet);
        const auto parsed = parse_authority(bad);
        if (!parsed) continue;
        const auto host = parsed->address.is_v4() ? parsed->address.to_string() : "[";
        EXPECT_TRUE(bad.starts_with(host)) << bad;
        EXPECT_EQ(bad.find_first_not_of("0123456789abcdefABCDEF:.[]"), std::string::npos) << bad;
      }
}

// HTTP-18, POL-WEB-09
TEST(Target, IsSplitWithoutDecodingAnything) {
  EXPECT_EQ(parse_target("/a%2fb/../c?x=1")->path, "/a%2fb/../c?x=1");
  EXPECT_FALSE(parse_target("/a")->authority);
  const auto absolute = parse_target("http://192.168.1.1:5000/ctl/x");
  ASSERT_TRUE(absolute);
  EXPECT_EQ(absolute->authority, "192.168.1.1:5000");
  EXPECT_EQ(absolute->path, "/ctl/x");
  EXPECT_EQ(parse_target("HTTP://192.168.1.1")->path, "/");
  EXPECT_EQ(parse_target("http:///x")->authority, "");
  EXPECT_EQ(parse_target("//evil.example/x")->path, "//evil.example/x") << "not a scheme-relative reference";
  for (const auto* text : {"", "*", "192.168.1.1:80", "https://192.168.1.1/", "ftp://x/", "http:/x", "http://x?y",
                           "rootDesc.xml", "http:"})
    EXPECT_FALSE(parse_target(text)) << text;
}

// HTTP-11, HTTP-12, POL-WEB-05
TEST(Refuse, LetsInOnlyWhoNamesTheDeviceByItsAddress) {
  const std::array own{other_own, gateway_v6};
  EXPECT_EQ(status_of(get_with_host("192.168.1.1")), 200u);
  EXPECT_EQ(status_of(get_with_host("192.168.1.1:1")), 200u);
  EXPECT_EQ(status_of(get_with_host("10.0.0.1:5000"), own), 200u);
  EXPECT_EQ(status_of(get_with_host("[2001:db8::1]:5000"), own), 200u);
  EXPECT_EQ(status_of(get_with_host("10.0.0.1:5000")), 403u);
  EXPECT_EQ(status_of(get_with_host("192.168.1.10"), own), 403u) << "the client's own address";
  for (const auto* host : {"localhost", "localhost:5000", "evil.example", "192.168.1.1.evil.example", "127.0.0.1",
                           "user@192.168.1.1", "192.168.1.1:80@evil.example", "192.168.1.1, evil.example", ""})
    EXPECT_EQ(status_of(get_with_host(host), own), 403u) << host;
  EXPECT_EQ(status_of(request("GET", "/")), 400u) << "HTTP/1.1 needs a Host";
  EXPECT_EQ(status_of(request("GET", "/", {{"Host", "192.168.1.1"}, {"hOST", "192.168.1.1"}})), 400u);
  auto old = request("GET", "/");
  old.minor_version = 0;
  EXPECT_EQ(status_of(old), 200u) << "HTTP/1.0 had none";
  old.fields.add("Host", "evil.example");
  EXPECT_EQ(status_of(old), 403u);
}

// HTTP-18, POL-WEB-05, POL-WEB-09
TEST(Refuse, CountsTheAuthorityOfAnAbsoluteTargetInsteadOfHost) {
  const auto with = [](std::string target, std::string host) {
    return status_of(request("POST", std::move(target), {{"Host", std::move(host)}}));
  };
  EXPECT_EQ(with("http://192.168.1.1:5000/ctl", "192.168.1.1:5000"), 200u);
  EXPECT_EQ(with("http://192.168.1.1:5000/ctl", "evil.example"), 200u);
  EXPECT_EQ(with("http://evil.example/ctl", "192.168.1.1:5000"), 403u);
  EXPECT_EQ(with("http://user@192.168.1.1/ctl", "192.168.1.1"), 403u);
  EXPECT_EQ(with("http:///ctl", "192.168.1.1"), 403u);
  EXPECT_EQ(with("https://192.168.1.1/ctl", "192.168.1.1"), 400u);
  EXPECT_EQ(status_of(request("POST", "http://192.168.1.1/ctl")), 400u) << "HTTP/1.1 needs a Host all the same";
}

// POL-WEB-09
TEST(Refuse, IsNoProxyAndEchoesNothing) {
  EXPECT_EQ(status_of(request("CONNECT", "192.168.1.1:443", {{"Host", "192.168.1.1"}})), 501u);
  EXPECT_EQ(status_of(request("TRACE", "/", {{"Host", "192.168.1.1"}})), 501u);
  EXPECT_EQ(status_of(request("OPTIONS", "*", {{"Host", "192.168.1.1"}})), 501u);
  const auto refusal = refuse(request("GET", "/<script>", {{"Host", "<script>alert(1)</script>"}}), {});
  ASSERT_TRUE(refusal);
  EXPECT_EQ(refusal->body.find("script"), std::string::npos);
}

// POL-WEB-06
TEST(Refuse, LetsNoPageDoAnything) {
  const auto with = [](std::string method, std::string name, std::string value) {
    return status_of(request(std::move(method), "/ctl", {{"Host", "192.168.1.1"}, {name, value}}));
  };
  for (const auto* method : {"POST", "SUBSCRIBE", "UNSUBSCRIBE", "M-POST"}) {
    EXPECT_EQ(with(method, "ORIGIN", "null"), 403u) << method;
    EXPECT_EQ(with(method, "origin", "http://192.168.1.1:5000"), 403u) << method;
    EXPECT_EQ(with(method, "Origin", ""), 403u) << method;
    for (const auto* site : {"cross-site", "same-site", "same-origin", "", "None"})
      EXPECT_EQ(with(method, "Sec-Fetch-Site", site), 403u) << method << site;
    EXPECT_EQ(with(method, "Sec-Fetch-Site", "none"), 200u) << method;
    EXPECT_EQ(status_of(request(method, "/", {{"Host", "192.168.1.1"}, {"Sec-Fetch-Site", "none"},
                                             {"Sec-Fetch-Site", "cross-site"}})), 403u);
  }
  EXPECT_EQ(with("GET", "Origin", "http://evil.example"), 200u) << "it cannot read the answer";
  EXPECT_EQ(with("HEAD", "Sec-Fetch-Site", "cross-site"), 200u);
}

// HTTP-08, HTTP-03
TEST(WantsClose, IsWhatTheClientSaid) {
  const auto with = [](unsigned minor, std::vector<Fields::Field> fields) {
    auto asked = request("GET", "/", std::move(fields));
    asked.minor_version = minor;
    return wants_close(asked);
  };
  EXPECT_FALSE(with(1, {}));
  EXPECT_TRUE(with(1, {{"Connection", "close"}}));
  EXPECT_TRUE(with(1, {{"connection", "TE , CLOSE\t"}}));
  EXPECT_TRUE(with(1, {{"Connection", "keep-alive"}, {"Connection", "close"}}));
  EXPECT_FALSE(with(1, {{"Connection", "closed"}}));
  EXPECT_TRUE(with(0, {}));
  EXPECT_TRUE(with(0, {{"Connection", "Keep-Alive"}})) << "as the row has it";
  EXPECT_TRUE(with(0, {{"Connection", "Keep-Alive, close"}}));
}

class RouterTest : public testing::Test {
 protected:
  RouterTest() {
    router.add("/rootDesc.xml", "GET", answer("description"));
    router.add("/ctl", "POST", answer("done"));
    router.add("/evt", "SUBSCRIBE", answer("subscribed"));
    router.add("/evt", "UNSUBSCRIBE", answer("over"));
  }
  static Router::Handler answer(std::string text) {
    return [text](const Request&, const Done& done) {
      Response response;
      response.body = text;
      done(std::move(response));
    };
  }
  Response ask(std::string method, std::string target, std::vector<Fields::Field> more = {}) {
    auto asked = request(std::move(method), std::move(target), std::move(more));
    if (!asked.fields.find("Host")) asked.fields.add("Host", "192.168.1.1");
    std::optional<Response> got;
    int answers = 0;
    router.handle(Request{asked}, {}, [&](Response response) {
      got = std::move(response);
      ++answers;
    });
    EXPECT_EQ(answers, 1);
    return got ? std::move(*got) : Response{.status = 0};
  }
  Router router;
};

TEST_F(RouterTest, FindsTheHandlerByPathAndMethod) {
  EXPECT_EQ(ask("GET", "/rootDesc.xml").body, "description");
  EXPECT_EQ(ask("HEAD", "/rootDesc.xml").body, "description") << "HTTP-01: the fields of GET";
  EXPECT_EQ(ask("POST", "http://192.168.1.1:80/ctl").body, "done");
  EXPECT_EQ(ask("UNSUBSCRIBE", "/evt").body, "over");
}

// UDA-2-14, POL-WEB-09
TEST_F(RouterTest, ComparesPathsOctetByOctet) {
  for (const auto* path : {"/", "/rootdesc.xml", "/rootDesc.xml/", "/rootDesc.xml?", "/rootDesc.xm", "//rootDesc.xml",
                           "/root%44esc.xml", "/./rootDesc.xml", "/x/../rootDesc.xml", "/../../etc/passwd"})
    EXPECT_EQ(ask("GET", path).status, 404u) << path;
}

// HTTP-02
TEST_F(RouterTest, TellsUnknownMethodsFromOnesOfOtherResources) {
  EXPECT_EQ(ask("BREW", "/rootDesc.xml").status, 501u);
  EXPECT_EQ(ask("BREW", "/nowhere").status, 501u);
  EXPECT_EQ(ask("get", "/rootDesc.xml").status, 501u) << "methods are case-sensitive";
  const auto post = ask("POST", "/rootDesc.xml");
  EXPECT_EQ(post.status, 405u);
  EXPECT_EQ(post.fields.find("ALLOW"), "GET, HEAD");
  EXPECT_EQ(ask("GET", "/evt").fields.find("ALLOW"), "SUBSCRIBE, UNSUBSCRIBE");
}

TEST_F(RouterTest, HandlesNothingThatIsRefused) {
  EXPECT_EQ(ask("GET", "/rootDesc.xml", {{"Host", "localhost"}}).status, 403u);
  EXPECT_EQ(ask("POST", "/ctl", {{"Origin", "null"}}).status, 403u);
  EXPECT_FALSE(ask("POST", "/ctl", {{"Origin", "null"}}).fields.find("Access-Control-Allow-Origin"));
}

// UDA-2-12
TEST_F(RouterTest, SaysTheLanguageToWhoAsksForOne) {
  EXPECT_EQ(ask("GET", "/rootDesc.xml", {{"accept-language", "de, en;q=0.5"}}).fields.find("CONTENT-LANGUAGE"), "en");
  EXPECT_FALSE(ask("GET", "/rootDesc.xml").fields.find("CONTENT-LANGUAGE"));
}

}  // namespace
}  // namespace sallyport::upnp::http
