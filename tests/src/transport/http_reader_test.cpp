#include "src/transport/http_reader.hpp"

#include <chrono>

namespace sallyport::transport {
namespace {

using upnp::http::Request;

/// Events in words: equal words for equal events.
std::string say(const HttpReader::Event& event) {
  if (std::holds_alternative<HttpReader::Continue>(event)) return "continue;";
  if (const auto* failure = std::get_if<HttpReader::Failure>(&event)) return std::to_string(failure->status) + ";";
  const auto& request = std::get<Request>(event);
  std::string text = request.method + " " + request.target + " 1." + std::to_string(request.minor_version);
  for (const auto& [name, value] : request.fields.all()) text += "|" + name + "=" + value;
  return text + "|" + request.body + ";";
}

std::string read(std::string_view octets, std::size_t piece, HttpReader::Limits limits = {}) {
  HttpReader reader{limits};
  std::string said;
  for (std::size_t at = 0; at < octets.size() || at == 0; at += piece) {
    reader.feed(octets.substr(at, piece));
    while (const auto event = reader.next()) said += say(*event);
    if (octets.empty()) break;
  }
  return said;
}

/// HTTP-15: however it is cut, the meaning is the same.
std::string read(std::string_view octets) {
  const auto whole = read(octets, octets.size() + 1);
  for (const std::size_t piece : {1U, 2U, 3U, 7U, 64U, 1000U, 4096U}) {
    if (octets.size() > 100000 && piece < 7) continue;
    EXPECT_EQ(read(octets, piece), whole) << "in pieces of " << piece;
  }
  return whole;
}

const std::string host = "Host: 192.168.1.1\r\n";
std::string post(const std::string& fields, const std::string& body) {
  return "POST /c HTTP/1.1\r\n" + host + fields + "\r\n" + body;
}

TEST(HttpReader, ReadsARequest) {
  EXPECT_EQ(read("GET /rootDesc.xml HTTP/1.1\r\nHOST: 192.168.1.1:5000\r\nUser-Agent:\t x y \t\r\n\r\n"),
            "GET /rootDesc.xml 1.1|HOST=192.168.1.1:5000|User-Agent=x y|;");
  EXPECT_EQ(read(post("Content-Length: 5\r\n", "hello")),
            "POST /c 1.1|Host=192.168.1.1|Content-Length=5|hello;");
  EXPECT_EQ(read("GET http://192.168.1.1/x HTTP/1.1\r\n" + host + "\r\n"),
            "GET http://192.168.1.1/x 1.1|Host=192.168.1.1|;")
      << "HTTP-18";
  EXPECT_EQ(read("GET / HTTP/1.0\r\n\r\n"), "GET / 1.0|;") << "HTTP-03";
  EXPECT_EQ(read("GET / HTTP/1.7\r\n" + host + "\r\n"), "GET / 1.1|Host=192.168.1.1|;");
  EXPECT_EQ(read("GET / HTTP/1.1\r\nHost:\r\nX-Name: caf\xc3\xa9\r\n\r\n"), "GET / 1.1|Host=|X-Name=caf\xc3\xa9|;");
}

// HTTP-09
TEST(HttpReader, SkipsEmptyLinesAndAcceptsBareLineFeeds) {
  EXPECT_EQ(read("\r\n\n\r\nGET / HTTP/1.0\r\n\r\n"), "GET / 1.0|;");
  EXPECT_EQ(read("POST / HTTP/1.1\nHost: a\nContent-Length: 2\n\nhi"), "POST / 1.1|Host=a|Content-Length=2|hi;");
  EXPECT_EQ(read("\rGET / HTTP/1.0\r\n\r\n"), "400;");
}

// WEB-03: what follows stays until it is asked for
TEST(HttpReader, GivesPipelinedRequestsOneByOne) {
  const auto two = post("Content-Length: 3\r\n", "one") + "GET /2 HTTP/1.0\r\n\r\n";
  EXPECT_EQ(read(two + "\r\n" + two), read(two) + read(two));
  HttpReader reader{{}};
  reader.feed(two);
  EXPECT_EQ(say(*reader.next()), "POST /c 1.1|Host=192.168.1.1|Content-Length=3|one;");
  EXPECT_EQ(reader.waiting(), std::string_view{"GET /2 HTTP/1.0\r\n\r\n"}.size());
  EXPECT_TRUE(reader.started());
  EXPECT_EQ(say(*reader.next()), "GET /2 1.0|;");
  EXPECT_FALSE(reader.next());
  EXPECT_FALSE(reader.started());
}

// HTTP-04, POL-WEB-10
TEST(HttpReader, DecodesChunks) {
  const auto chunked = [](const std::string& body) { return post("transfer-encoding: Chunked\r\n", body); };
  const std::string head = "POST /c 1.1|Host=192.168.1.1|transfer-encoding=Chunked|";
  EXPECT_EQ(read(chunked("5\r\nhello\r\n0\r\n\r\n")), head + "hello;");
  EXPECT_EQ(read(chunked("0\r\n\r\n")), head + ";");
  EXPECT_EQ(read(chunked("0000000a;a=b;c=\"d;e\" ; f\r\n0123456789\r\nB\r\nabcdefghijk\r\n00000000\r\n\r\n")),
            head + "0123456789abcdefghijk;");
  EXPECT_EQ(read(chunked("1\r\nx\r\n0\r\nX-Trailer: y\r\nHost: z\r\nContent-Length: 7\r\n\r\nGET / HTTP/1.0\r\n\r\n")),
            head + "x;GET / 1.0|;")
      << "trailers are read over";
  for (const auto* bad :
       {"g\r\n", "\r\n", ";x\r\n", "-1\r\n", "+1\r\n", "0x1\r\n", " 1\r\nx\r\n", "000000001\r\nx\r\n",
        "FFFFFFFFFFFFFFFF\r\n", "10000000000000000\r\n", "1\nx\r\n", "1\rx", "1\r\nxy\r\n", "1\r\nx\n0\r\n\r\n",
        "1\r\nx0\r\n\r\n", "1;\x01=2\r\nx\r\n", "1;a\rb\r\nx\r\n", "1 x\r\nx\r\n", "1;;\r\nx\r\n", "0\r\nfoo\r\n\r\n",
        "0\r\n x: y\r\n\r\n", "0\r\nx : y\r\n\r\n"})
    EXPECT_EQ(read(chunked(bad)), "400;") << bad;
}

// HTTP-07, POL-WEB-10
TEST(HttpReader, WantsOneContentLengthOfDigits) {
  for (const auto* value : {"-1", "+5", "5x", "x", "", "5, 5", "5,6", "0x5", "5 5", "5.0", "\"5\""})
    EXPECT_EQ(read(post(std::string{"Content-Length: "} + value + "\r\n", "hello")), "400;") << value;
  EXPECT_EQ(read(post("Content-Length: 5\r\ncontent-length: 5\r\n", "hello")), "400;");
  EXPECT_EQ(read(post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello!")), "400;");
  EXPECT_EQ(read(post("Content-Length: 00005\r\n", "hello")),
            "POST /c 1.1|Host=192.168.1.1|Content-Length=00005|hello;");
}

// HTTP-17, POL-WEB-10: nothing behind it is read as a request
TEST(HttpReader, RefusesTwoFramings) {
  const std::string smuggled = "0\r\n\r\nGET /smuggled HTTP/1.0\r\n\r\n";
  EXPECT_EQ(read(post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", smuggled)), "400;");
  EXPECT_EQ(read(post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", smuggled)), "400;");
  EXPECT_EQ(read(post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", smuggled)), "400;");
  for (const auto* coding : {"gzip", "gzip, chunked", "chunked, gzip", "identity", "", "chunked;q=1", "chunked,"})
    EXPECT_EQ(read(post(std::string{"Transfer-Encoding: "} + coding + "\r\n", smuggled)), "501;") << coding;
  EXPECT_EQ(read("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" + smuggled), "400;");
  EXPECT_EQ(read(post("Transfer-Encoding : chunked\r\n", smuggled)), "400;");
  EXPECT_EQ(read(post("X: y\r\n Transfer-Encoding: chunked\r\n", smuggled)), "400;") << "folded";
}

// HTTP-06
TEST(HttpReader, NeverWaitsForABodyNobodyAnnounced) {
  EXPECT_EQ(read(post("", "")), "411;");
  EXPECT_EQ(read(post("", "<?xml version=\"1.0\"?>")), "411;");
  EXPECT_EQ(read("POST / HTTP/1.0\r\n\r\n"), "411;");
  EXPECT_EQ(read("SUBSCRIBE /e HTTP/1.1\r\n" + host + "\r\n"), "SUBSCRIBE /e 1.1|Host=192.168.1.1|;");
  EXPECT_EQ(read(post("Content-Length: 0\r\n", "")), "POST /c 1.1|Host=192.168.1.1|Content-Length=0|;");
}

// HTTP-05, POL-WEB-01
TEST(HttpReader, SaysContinueBeforeABodyThatItWillRead) {
  const std::string expect = "Expect: 100-Continue\r\n";
  EXPECT_EQ(read(post("Content-Length: 2\r\n" + expect, "")), "continue;");
  EXPECT_EQ(read(post("Content-Length: 2\r\n" + expect, "hi")),
            "continue;POST /c 1.1|Host=192.168.1.1|Content-Length=2|Expect=100-Continue|hi;");
  EXPECT_TRUE(read(post("Transfer-Encoding: chunked\r\n" + expect, "")) == "continue;");
  EXPECT_EQ(read(post("Content-Length: 65537\r\n" + expect, "")), "413;");
  EXPECT_EQ(read(post(expect, "")), "411;");
  EXPECT_EQ(read(post("Content-Length: 0\r\n" + expect, "")),
            "POST /c 1.1|Host=192.168.1.1|Content-Length=0|Expect=100-Continue|;");
  EXPECT_EQ(read(post("Content-Length: 2\r\nExpect: miracles\r\n", "hi")), "417;");
  EXPECT_EQ(read("POST / HTTP/1.0\r\nContent-Length: 2\r\n" + expect + "\r\n"), "") << "HTTP/1.0 knows none";
}

// HTTP-11
TEST(HttpReader, WantsOneHost) {
  EXPECT_EQ(read("GET / HTTP/1.1\r\n\r\n"), "400;");
  EXPECT_EQ(read("GET / HTTP/1.1\r\n" + host + "HOST: b\r\n\r\n"), "400;");
  EXPECT_EQ(read("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"), "400;");
}

// POL-WEB-11: an answer as soon as it can be told, not after a time
TEST(HttpReader, KnowsWhatIsNotHttp) {
  using namespace std::string_view_literals;
  for (const auto noise : {"\x16\x03\x01\x02\x00\x01"sv, "\0\0\0\0"sv, "\x80\x2e"sv, "<?xml"sv, " GET"sv, "GET\t/"sv,
                           "GET  "sv, "GET /\r"sv, "GET /\n"sv, "GET / HTTP/1.1 x"sv, "GET / HTTP/1.1\rx"sv,
                           "GET / http/1.1\r\n"sv, "GET / RTSP/1.0\r\n"sv, "GET / HTTP/11\r\n"sv, "GET / \r\n"sv,
                           "GET /\0 HTTP/1.1\r\n"sv, "GET /a b HTTP/1.1\r\n"sv, "G\0T"sv, "GET / HTTP/1.x\r\n"sv})
    EXPECT_EQ(read(noise), "400;") << noise;
  EXPECT_EQ(read("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "505;");
  EXPECT_EQ(read("GET / HTTP/0.9\r\n\r\n"), "505;");
  EXPECT_EQ(read(std::string(33, 'A')), "501;");
}

TEST(HttpReader, RefusesBrokenFields) {
  using namespace std::string_literals;
  for (const auto& field :
       {"X\r\n"s, ": y\r\n"s, "X : y\r\n"s, " X: y\r\n"s, "\tX: y\r\n"s, "X: a\r\n b\r\n"s, "X: a\0b\r\n"s,
        "X: a\rb\r\n"s, "X: \x7f\r\n"s, "X\0: y\r\n"s, "X: \x1b[0m\r\n"s, "(X): y\r\n"s, "X\xc3\xa9: y\r\n"s,
        "X: y\r\r\n"s})
    EXPECT_EQ(read("GET / HTTP/1.1\r\n" + field + host + "\r\n"), "400;") << field;
}

// POL-WEB-01, HTTP-13: each limit is met and missed by one octet
TEST(HttpReader, KeepsItsLimits) {
  const auto target = [](std::size_t size) {
    return "GET /" + std::string(size - 1, 'a') + " HTTP/1.0\r\n\r\n";
  };
  EXPECT_TRUE(read(target(8192)).starts_with("GET /a"));
  EXPECT_EQ(read(target(8193)), "414;");
  EXPECT_EQ(read("GET /" + std::string(8192, 'a')), "414;") << "without waiting for its end";

  const auto head = [](std::size_t size) {
    const std::string line = "GET / HTTP/1.0\r\nX: ";
    return line + std::string(size - line.size() - 4, 'a') + "\r\n\r\n";
  };
  EXPECT_TRUE(read(head(16384)).starts_with("GET / 1.0|X=a"));
  EXPECT_EQ(read(head(16385)), "431;");
  EXPECT_EQ(read(head(20000).substr(0, 16385)), "431;");
  EXPECT_EQ(read(std::string(16385, '\n')), "431;") << "empty lines count";

  const auto fields = [](int count) {
    std::string text = "GET / HTTP/1.0\r\n";
    for (int i = 0; i < count; ++i) text += "X: y\r\n";
    return text + "\r\n";
  };
  EXPECT_TRUE(read(fields(128)).starts_with("GET / 1.0|X=y"));
  EXPECT_EQ(read(fields(129)), "431;");

  const auto body = [](std::size_t size) {
    return post("Content-Length: " + std::to_string(size) + "\r\n", std::string(size, 'b'));
  };
  EXPECT_TRUE(read(body(65536)).ends_with(std::string(65536, 'b') + ";"));
  EXPECT_EQ(read(body(65537)), "413;");
  for (const auto* length : {"4294967296", "18446744073709551616", "99999999999999999999999999999999999"})
    EXPECT_EQ(read(post(std::string{"Content-Length: "} + length + "\r\n", "")), "413;") << length;

  const auto chunked = [](const std::string& chunks) { return post("Transfer-Encoding: chunked\r\n", chunks); };
  const auto end = std::string{"\r\n0\r\n\r\n"};
  EXPECT_TRUE(read(chunked("10000\r\n" + std::string(65536, 'c') + end)).ends_with(std::string(65536, 'c') + ";"));
  EXPECT_EQ(read(chunked("10001\r\n")), "413;");
  EXPECT_EQ(read(chunked("ffffffff\r\n")), "413;");
  EXPECT_EQ(read(chunked("ffff\r\n" + std::string(65535, 'c') + "\r\n2\r\n")), "413;");
  EXPECT_EQ(read(chunked("1;" + std::string(16384, 'e') + "\r\n")), "431;");
  EXPECT_EQ(read(chunked("0\r\nX: " + std::string(16384, 't'))), "431;");
  std::string trailers = "0\r\n";
  for (int i = 0; i < 127; ++i) trailers += "X: y\r\n";  // with Host and Transfer-Encoding one too many
  EXPECT_EQ(read(chunked(trailers + "\r\n")), "431;");
}

TEST(HttpReader, SaysNothingMoreAfterAFailure) {
  HttpReader reader{{}};
  reader.feed("nonsense\r\n\r\nGET / HTTP/1.0\r\n\r\n");
  EXPECT_EQ(say(*reader.next()), "400;");
  EXPECT_FALSE(reader.next());
  reader.feed("GET / HTTP/1.0\r\n\r\n");
  EXPECT_FALSE(reader.next());
  EXPECT_EQ(reader.waiting(), 0u);
  reader.reset();
  reader.feed("GET / HTTP/1.0\r\n\r\n");
  EXPECT_EQ(say(*reader.next()), "GET / 1.0|;");
}

TEST(HttpReader, KnowsHowFarItIs) {
  HttpReader reader{{}};
  EXPECT_FALSE(reader.started());
  reader.feed("\r\n");
  EXPECT_FALSE(reader.next());
  EXPECT_TRUE(reader.started());
  EXPECT_FALSE(reader.in_body());
  reader.feed("POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\n");
  EXPECT_FALSE(reader.next());
  EXPECT_TRUE(reader.in_body());
  reader.feed("hi");
  EXPECT_TRUE(reader.next());
  EXPECT_FALSE(reader.in_body());
  EXPECT_FALSE(reader.started());
}

const std::string rich = "\r\nPOST /ctl/x HTTP/1.1\r\nHOST: 192.168.1.1:5000\r\nSOAPACTION: \"a#b\"\r\n"
                         "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n4;x=y\r\nwxyz\r\nA\r\n0123456789\r\n"
                         "0\r\nT: u\r\n\r\n";

TEST(HttpReader, GivesNothingForARequestCutShort) {
  for (std::size_t size = 0; size < rich.size(); ++size)
    EXPECT_EQ(read(rich.substr(0, size)), "") << size;
  EXPECT_TRUE(read(rich).ends_with("|wxyz0123456789;"));
}

TEST(HttpReader, SurvivesEveryMutationAndNeverDependsOnSegmentation) {
  for (std::size_t at = 0; at < rich.size(); ++at)
    for (unsigned octet = 0; octet < 256; ++octet) {
      auto bad = rich;
      bad[at] = static_cast<char>(octet);
      const auto whole = read(bad, bad.size());
      ASSERT_EQ(read(bad, 1), whole) << at << " " << octet;
    }
}

// A body in 65536 chunks, and 64 KiB of pipelined requests one octet at a time: were any step quadratic, this
// would take minutes.
TEST(HttpReader, TakesLinearTime) {
  std::string chunks = post("Transfer-Encoding: chunked\r\n", "");
  for (int i = 0; i < 65536; ++i) chunks += "1\r\nx\r\n";
  chunks += "0\r\n\r\n";
  EXPECT_TRUE(read(chunks, 1).ends_with(std::string(65536, 'x') + ";"));
  EXPECT_TRUE(read(chunks, chunks.size()).ends_with(std::string(65536, 'x') + ";"));
  std::string many;
  for (int i = 0; i < 20000; ++i) many += "GET / HTTP/1.0\r\n\r\n";
  EXPECT_EQ(read(many, many.size()), read(many, 1));
}

}  // namespace
}  // namespace sallyport::transport
