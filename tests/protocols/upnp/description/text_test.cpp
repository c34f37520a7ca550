#include "protocols/upnp/description/text.hpp"

#include "protocols/upnp/xml/escape.hpp"

#include <gtest/gtest.h>

#include <pugixml.hpp>

namespace sallyport::upnp::description {
namespace {

TEST(DescriptionText, StaysWellFormedWhateverThreeOctetsComeTogether) {
  // the octets at which UTF-8 and XML change their minds
  constexpr unsigned char edges[] = {0x00, 0x09, 0x1f, 0x20, '&',  '<',  ']',  '>',  0x7f,
                                     0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbe, 0xbf, 0xc1, 0xc2,
                                     0xdf, 0xe0, 0xed, 0xef, 0xf0, 0xf4, 0xff};
  for (const auto a : edges)
    for (const auto b : edges)
      for (const auto c : edges) {
        const std::string text{static_cast<char>(a), static_cast<char>(b), static_cast<char>(c)};
        const auto element = "<a>" + xml::escape(text) + "</a>";
        pugi::xml_document document;
        ASSERT_TRUE(document.load_string(element.c_str())) << element;
        ASSERT_EQ(xml::escape(fit_text(text, 99)).find("&lt;") != std::string::npos,
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
