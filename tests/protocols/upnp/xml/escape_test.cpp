#include "protocols/upnp/xml/escape.hpp"

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "protocols/upnp/xml/document.hpp"
#include "protocols/upnp/xml/utf8.hpp"

namespace sallyport::upnp::xml {
namespace {

using namespace std::string_literals;

// UDA-3-24, POL-TXT-03
TEST(XmlEscape, WritesWhatWouldBeMarkupAsReferences) {
  EXPECT_EQ(escape("a&b<c>d\"e'f"), "a&amp;b&lt;c&gt;d&quot;e&apos;f");
  EXPECT_EQ(escape("&amp;"), "&amp;amp;");
  EXPECT_EQ(escape("one\ttwo\nthree\r"), "one\ttwo\nthree&#13;");
  EXPECT_EQ(escape(""), "");
  std::string out = "<a>";
  append_escaped(out, "1 < 2");
  EXPECT_EQ(out, "<a>1 &lt; 2");
}

TEST(XmlEscape, LeavesGoodUtf8Alone) {
  for (const std::string text : {"Übertragung", "é", "\u07ff\u0800\ud7ff\ue000\ufffd", "\U00010000\U0010ffff",
                                 "点対点", "\x7f\u0080\u0085\u009f", "\ufdd0"})
    EXPECT_EQ(escape(text), text);
}

// POL-XML-06
TEST(XmlEscape, ReplacesWhatXmlForbidsAndWhatIsNoUtf8) {
  const std::string r{replacement_character};
  EXPECT_EQ(escape("\0a\x01"
                   "b\x1f"s),
            r + "a" + r + "b" + r);
  EXPECT_EQ(escape("\uFFFE\uFFFF"), r + r);
  EXPECT_EQ(escape("caf\xe9"), "caf" + r);               // Latin-1
  EXPECT_EQ(escape("\xe9<"), r + "&lt;");                // does not swallow what follows
  EXPECT_EQ(escape("\xc0\xaf"), r + r);                  // overlong
  EXPECT_EQ(escape("\xe0\x80\xbc"), r + r + r);          // overlong <
  EXPECT_EQ(escape("\xf0\x82\x82\xac"), r + r + r + r);  // overlong
  EXPECT_EQ(escape("\xed\xa0\x80"), r + r + r);          // a surrogate
  EXPECT_EQ(escape("\xf4\x90\x80\x80"), r + r + r + r);  // beyond Unicode
  EXPECT_EQ(escape("\xf5\xff\xfe"), r + r + r);
  EXPECT_EQ(escape("\xf0\x9f\x98"), r);  // cut short: one piece, one sign
  EXPECT_EQ(escape("\xf0\x9f\x98 "), r + " ");
}

TEST(XmlEscape, ComesBackFromAReaderUnchanged) {
  std::mt19937 random{20261127};
  for (int round = 0; round < 2000; ++round) {
    std::string octets(random() % 40, '\0');
    for (auto& octet : octets)
      octet = static_cast<char>(random() % 3 == 0 ? random() : "<>&'\"\r\n\t ]x;#"[random() % 14]);
    const auto escaped = escape(octets);
    const auto document = Document::parse("<a b=\"" + escaped + "\">" + escaped + "</a>");
    ASSERT_TRUE(document.has_value()) << escaped;
    const auto text = document->root().text();
    if (octets.find_first_not_of("<>&'\"\r\n\t ]x;#") == std::string::npos) {
      EXPECT_EQ(text, octets);
    }
    EXPECT_EQ(escape(text), escaped);
  }
}

}  // namespace
}  // namespace sallyport::upnp::xml
