#include "protocols/upnp/description/text.hpp"

#include <gtest/gtest.h>

#include <pugixml.hpp>

namespace sallyport::upnp::description {
namespace {

std::string escaped(std::string_view text) {
  std::string xml;
  append_escaped(xml, text);
  return xml;
}

// UDA-2-01, POL-TXT-03
TEST(DescriptionText, EscapesMarkupAndReplacesWhatXmlForbids) {
  EXPECT_EQ(escaped("a<b>&\"c'"), "a&lt;b&gt;&amp;&quot;c&apos;");
  EXPECT_EQ(escaped("]]>"), "]]&gt;");
  EXPECT_EQ(escaped("Küche \xF0\x9F\x8F\xA0"), "Küche \xF0\x9F\x8F\xA0");
  for (const std::string_view bad :
       {std::string_view{"\0", 1}, std::string_view{"\x01"}, std::string_view{"\x1b"},
        std::string_view{"\xff"}, std::string_view{"\xEF\xBF\xBE"}, std::string_view{"\xEF\xBF\xBF"},
        std::string_view{"\x80"}, std::string_view{"\xc3"}})
    EXPECT_EQ(escaped(bad), "\xEF\xBF\xBD") << testing::PrintToString(bad);
  EXPECT_EQ(escaped("\xC0\xAF"), "\xEF\xBF\xBD\xEF\xBF\xBD") << "an overlong slash";
  EXPECT_EQ(escaped("\xE0\x80\xAF").size(), 9u) << "in three octets";
  EXPECT_EQ(escaped("\xF0\x80\x80\xAF").size(), 12u) << "in four";
  EXPECT_EQ(escaped("\xED\xA0\x80"), "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD") << "a surrogate";
  EXPECT_EQ(escaped("\xF4\x90\x80\x80").size(), 12u) << "above U+10FFFF";
  EXPECT_EQ(escaped("\xF4\x8F\xBF\xBD"), "\xF4\x8F\xBF\xBD");
}

TEST(DescriptionText, StaysWellFormedWhateverThreeOctetsComeTogether) {
  // the octets at which UTF-8 and XML change their minds
  constexpr unsigned char edges[] = {0x00, 0x09, 0x1f, 0x20, '&',  '<',  ']',  '>',  0x7f,
                                     0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbe, 0xbf, 0xc1, 0xc2,
                                     0xdf, 0xe0, 0xed, 0xef, 0xf0, 0xf4, 0xff};
  for (const auto a : edges)
    for (const auto b : edges)
      for (const auto c : edges) {
        const std::string text{static_cast<char>(a), static_cast<char>(b), static_cast<char>(c)};
        const auto xml = "<a>" + escaped(text) + "</a>";
        pugi::xml_document document;
        ASSERT_TRUE(document.load_string(xml.c_str())) << xml;
        ASSERT_EQ(escaped(fit_text(text, 99)).find("&lt;") != std::string::npos,
                  text.find('<') != std::string::npos);
        ASSERT_EQ(fit_text(fit_text(text, 99), 99), fit_text(text, 99)) << "once is enough";
      }
}

// UDA-2-02, POL-TXT-02
TEST(DescriptionText, FitsAFieldByCuttingBetweenCharacters) {
  EXPECT_EQ(fit_text("Sallyport", 63), "Sallyport");
  EXPECT_EQ(fit_text("Sallyport", 5), "Sally");
  EXPECT_EQ(fit_text("  a\tb\r\nc\x7f ", 63), "a b  c");
  EXPECT_EQ(fit_text("aü", 2), "a");
  EXPECT_EQ(fit_text("aü", 3), "aü");
  EXPECT_EQ(fit_text("a\xff", 63), "a\xEF\xBF\xBD");
  EXPECT_EQ(fit_text("a\xE2\x80\xAE"
                     "b",
                     63),
            "a b")
      << "a direction override";
  EXPECT_EQ(fit_text("ab cd", 3), "ab") << "no blank at the cut";
  EXPECT_EQ(fit_text(" \t ", 63), "");
  EXPECT_EQ(fit_text("", 63), "");
  EXPECT_EQ(fit_text("abc", 0), "");
}

}  // namespace
}  // namespace sallyport::upnp::description
