#include "protocols/upnp/xml/document.hpp"

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "tests/support/vectors.hpp"

namespace sallyport::upnp::xml {
namespace {

using namespace std::string_literals;

boost::system::error_code why_not(std::string text) {
  const auto document = Document::parse(std::move(text));
  return document ? boost::system::error_code{} : document.error();
}

std::string text_of(std::string text) {
  const auto document = Document::parse(text);
  if (!document) return "refused: " + document.error().message() + ": " + text;
  return document->root().text();
}

std::string repeat(std::string_view piece, std::size_t times) {
  std::string all;
  for (; times > 0; --times) all += piece;
  return all;
}

// UDA-3-10, UDA-3-23, POL-XML-05
TEST(XmlDocument, ReadsTextAsXmlDemands) {
  const std::pair<std::string, std::string> table[] = {
      {"<a>plain</a>", "plain"},
      {"<a/>", ""},
      {"<a />", ""},
      {"<a></a >", ""},
      {"<a> \t\n</a>", " \t\n"},
      {"<a> b </a>", " b "},
      {"<a>&amp;&lt;&gt;&quot;&apos;</a>", "&<>\"'"},
      {"<a>&#65;&#x42;&#x0000043;&#0068;</a>", "ABCD"},
      {"<a>&#xe9;&#x20AC;&#x1F600;</a>", "\u00e9\u20ac\U0001f600"},
      {"<a>&#9;&#10;&#13;</a>", "\t\n\r"},
      {"<a>&amp;lt;</a>", "&lt;"},
      {"<a>1<!-- < & -->2<?p x > y?>3</a>", "123"},
      {"<a><!----></a>", ""},
      {"<a><?p?></a>", ""},
      {"<a><![CDATA[<b>&amp;]] >]]></a>", "<b>&amp;]] >"},
      {"<a><![CDATA[]]></a>", ""},
      {"<a><![CDATA[1]]> <![CDATA[2]]></a>", "1 2"},
      {"<a><![CDATA[]]]]><![CDATA[>]]></a>", "]]>"},
      {"<a>]] > ]></a>", "]] > ]>"},
      {"<a>1\r\n2\r3\n4</a>", "1\n2\n3\n4"},
      {"<a><![CDATA[1\r\n2\r3]]></a>", "1\n2\n3"},
      {"<a>80<b>90</b>80</a>", "8080"},
      {"<a b='>' c=\"'\" d='\"'>x</a>", "x"},
      {"<a\n b\t=\r 'c'\n>x</a>", "x"},
      {"<a b='1'  c='&lt;&#x3c;'/>", ""},
      {"<\u00e9l\u00e9ment.-1\u00b7 _x='1'>x</\u00e9l\u00e9ment.-1\u00b7>", "x"},
      {"<a>caf\u00e9 \u70b9</a>", "caf\u00e9 \u70b9"},
  };
  for (const auto& [xml, text] : table) EXPECT_EQ(text_of(xml), text) << xml;
}

// UDA-3-22
TEST(XmlDocument, TakesAByteOrderMarkAndBlanksAroundTheDocument) {
  for (const std::string before : {"", "\xef\xbb\xbf", " \r\n\t", "\xef\xbb\xbf\r\n"})
    for (const std::string declaration :
         {"", "<?xml version=\"1.0\"?>", "<?xml version='1.0' encoding='utf-8'?>\r\n",
          "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\" ?>",
          "<?xml\tversion = '1.1' standalone='no'?>", "<?xml version=\"1.0\"?><!-- before --><?and this?>\n"})
      for (const std::string after : {"", "\r\n", "<!-- after --> <?p?>\n"})
        EXPECT_EQ(text_of(before + declaration + "<a>x</a>" + after), "x") << before << declaration << after;
}

// UDA-3-18: each is let through by a lenient parser
TEST(XmlDocument, RefusesWhatIsNotWellFormed) {
  const std::string table[] = {
      "",
      " ",
      "\xef\xbb\xbf",
      "text",
      "<",
      "<a",
      "<a>",
      "</a>",
      "<a/",
      "<a></a",
      "<a></b>",
      "<a><b></a></b>",
      "<a></a></a>",
      "<a/><a/>",
      "<a/>text",
      "text<a/>",
      "<a/>&#32;",
      "<a/><![CDATA[ ]]>",
      "<![CDATA[ ]]><a/>",
      "<a/>\xef\xbb\xbf",
      " \xef\xbb\xbf<a/>",
      "<A></a>",
      "< a/>",
      "<a / >",
      "<a>< /a>",
      "<a></ a>",
      "<a></a b='1'>",
      "<a></a/>",
      // names
      "<1/>",
      "<-a/>",
      "<.a/>",
      "<a$/>",
      "<a,b/>",
      "<a><></a>",
      "<\xd7/>",
      "<a\xe9/>",
      "<\u00b7a/>",
      "<a\u00d7/>",
      "<a \u0300='1'/>",
      "<:a/>",
      "<a:/>",
      "<a:b:c/>",
      "<a:1/>",
      "<a:-/>",
      "<a:\u00b7/>",
      "<a :b='1'/>",
      "<a b:='1'/>",
      "<a:b xmlns:='x'/>",
      // attributes
      "<a b/>",
      "<a b=/>",
      "<a b=1/>",
      "<a b='1/>",
      "<a b='1\"/>",
      "<a b='1'c='2'/>",
      "<a b='1' b='2'/>",
      "<a b='1' c='2' b='3'/>",
      "<a b='<'/>",
      "<a b='&'/>",
      "<a b='&none;'/>",
      "<a ='1'/>",
      "<a 'b'/>",
      "<a b c='1'/>",
      "<a xmlns:u='1' xmlns:u='2'/>",
      // references
      "<a>&</a>",
      "<a>& </a>",
      "<a>&amp</a>",
      "<a>&AMP;</a>",
      "<a>&nbsp;</a>",
      "<a>&;</a>",
      "<a>&#;</a>",
      "<a>&#x;</a>",
      "<a>&#X41;</a>",
      "<a>&#4a;</a>",
      "<a>&#xg;</a>",
      "<a>&#-1;</a>",
      "<a>&# 65;</a>",
      "<a>&#65</a>",
      "<a>&amp ;</a>",
      // comments, processing instructions, sections
      "<a><!-- -- --></a>",
      "<a><!-- ---></a>",
      "<a><!-->",
      "<a><!-- ></a>",
      "<a><! -- --></a>",
      "<a><!></a>",
      "<a><!ELEMENT a ANY></a>",
      "<!ELEMENT a ANY><a/>",
      "<a><!doctype a></a>",
      "<a><? p?></a>",
      "<a><?p></a>",
      "<a><?></a>",
      "<a><?" "?></a>",
      "<a><?p+?></a>",
      "<a><?p:q?></a>",
      "<a><?xml version='1.0'?></a>",
      "<a><?XmL x?></a>",
      "<a/><?xml version='1.0'?>",
      "<a><![CDATA[</a>",
      "<a><![CDATA[]]</a>",
      "<a><![cdata[]]></a>",
      "<a>]]></a>",
      "<a>]]]></a>",
      // the declaration
      "<?xml?><a/>",
      "<?xml ?><a/>",
      "<?xml version='1.0'><a/>",
      "<?xml version=1.0?><a/>",
      "<?xml version='2.0'?><a/>",
      "<?xml version='1.'?><a/>",
      "<?xml version='1.0a'?><a/>",
      "<?xml encoding='utf-8'?><a/>",
      "<?xml encoding='utf-8' version='1.0'?><a/>",
      "<?xml version='1.0'encoding='utf-8'?><a/>",
      "<?xml version='1.0' standalone='maybe'?><a/>",
      "<?xml version='1.0' standalone='no' encoding='utf-8'?><a/>",
      "<?xml version='1.0' version='1.0'?><a/>",
      "<?xml version='1.0' encoding=''?><a/>",
      "<?xml version='1.0' other='1'?><a/>",
      "<?xml version='1.0'?><?xml version='1.0'?><a/>",
      "<!-- first --><?xml version='1.0'?><a/>",
      "<?xml version='1.0'?>",
      "<?xml version='1.0'",
      "<?XML version='1.0'?><a/>",
      "<?xml version='1.0' encoding='-8'?><a/>",
  };
  for (const auto& xml : table) EXPECT_EQ(why_not(xml), XmlErrc::not_well_formed) << xml;
}

// POL-XML-01
TEST(XmlDocument, RefusesADoctypeWhereverItStands) {
  for (const std::string xml :
       {"<!DOCTYPE a><a/>", "<?xml version='1.0'?>\n<!-- x --><!DOCTYPE a SYSTEM 'http://192.0.2.1/'><a/>",
        "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "<!DOCTYPE", "<a><!DOCTYPE a></a>"})
    EXPECT_EQ(why_not(xml), XmlErrc::doctype) << xml;
  EXPECT_NE(why_not("<a/><!DOCTYPE a>"), boost::system::error_code{});
}

// POL-XML-02
TEST(XmlDocument, HasLimitsAndTakesWhatJustFits) {
  const auto nested = [](std::size_t n) { return repeat("<a>", n) + repeat("</a>", n); };
  EXPECT_FALSE(why_not(nested(32)));
  EXPECT_EQ(why_not(nested(33)), XmlErrc::too_deep);
  EXPECT_EQ(why_not(repeat("<a>", 31) + "<b/><b/>" + repeat("</a>", 31)), boost::system::error_code{});
  EXPECT_EQ(why_not(repeat("<a>", 32) + "<b/>" + repeat("</a>", 32)), XmlErrc::too_deep);
  EXPECT_EQ(why_not(repeat("<a>", 20000)), XmlErrc::too_deep);

  const auto attributes = [](std::size_t n) {
    std::string xml = "<a";
    for (std::size_t i = 0; i < n; ++i) xml += " b" + std::to_string(i) + "=''";
    return xml + "/>";
  };
  EXPECT_FALSE(why_not(attributes(64)));
  EXPECT_EQ(why_not(attributes(65)), XmlErrc::too_many_attributes);

  for (const bool attribute : {false, true}) {
    const auto named = [&](std::size_t n) {
      const std::string name(n, 'n');
      return attribute ? "<a " + name + "=''/>" : "<" + name + "/>";
    };
    EXPECT_FALSE(why_not(named(256)));
    EXPECT_EQ(why_not(named(257)), XmlErrc::name_too_long);
    EXPECT_EQ(why_not(named(60000)), XmlErrc::name_too_long);
  }
  EXPECT_FALSE(why_not("<" + repeat("\u00e9", 128) + "/>"));
  EXPECT_EQ(why_not("<" + repeat("\u00e9", 127) + "\U00010000" + "/>"), XmlErrc::name_too_long);
  EXPECT_FALSE(why_not("<?" + std::string(256, 'p') + "?><a/>"));
  EXPECT_EQ(why_not("<?" + std::string(257, 'p') + "?><a/>"), XmlErrc::name_too_long);

  const auto long_one = [](std::size_t n) { return "<a>" + std::string(n - 7, 'x') + "</a>"; };
  EXPECT_EQ(text_of(long_one(65536)).size(), 65536u - 7);
  EXPECT_EQ(why_not(long_one(65537)), XmlErrc::too_long);
}

// POL-XML-06
TEST(XmlDocument, IsUtf8AndNothingElse) {
  for (const std::string name :
       {"ISO-8859-1", "utf-16", "UTF-7", "us-ascii", "utf8", "UTF-8x", "IBM037", "x"})
    EXPECT_EQ(why_not("<?xml version='1.0' encoding='" + name + "'?><a/>"), XmlErrc::other_encoding) << name;
  EXPECT_NE(why_not("\xff\xfe<\0a\0/\0>\0"s), boost::system::error_code{});
  EXPECT_NE(why_not("\xfe\xff\0<\0a\0/\0>"s), boost::system::error_code{});
  EXPECT_NE(why_not("<\0a\0/\0>\0"s), boost::system::error_code{});
}

TEST(XmlDocument, RefusesForbiddenCharactersAndReferencesToThem) {
  const std::string references[] = {"&#0;",
                                    "&#x0;",
                                    "&#1;",
                                    "&#x1f;",
                                    "&#xD800;",
                                    "&#xDFFF;",
                                    "&#xFFFE;",
                                    "&#xffff;",
                                    "&#x110000;",
                                    "&#x100000041;",
                                    "&#4294967361;",
                                    "&#18446744073709551681;",
                                    "&#" + std::string(5000, '9') + ";"};
  for (const auto& bad : references) {
    EXPECT_EQ(why_not("<a>" + bad + "</a>"), XmlErrc::forbidden_character) << bad;
    EXPECT_EQ(why_not("<a b='" + bad + "'/>"), XmlErrc::forbidden_character) << bad;
  }
  for (const std::string& bad : {"\0"s, "\x01"s, "\x1b"s, "\x1f"s, "\uFFFE"s, "\uFFFF"s})
    for (const std::string around : {"<a>|</a>", "<a b='|'/>", "<a><!--|--></a>", "<a><?p |?></a>",
                                     "<a><![CDATA[|]]></a>", "<!--|--><a/>"}) {
      auto xml = around;
      xml.replace(xml.find('|'), 1, bad);
      EXPECT_EQ(why_not(xml), XmlErrc::forbidden_character) << xml;
    }
  EXPECT_NE(why_not("<a/>\0"s), boost::system::error_code{});
  EXPECT_NE(why_not("\0<a/>"s), boost::system::error_code{});
  EXPECT_NE(why_not("<a\0/>"s), boost::system::error_code{});
}

// POL-XML-06: clients send Latin-1
TEST(XmlDocument, ReplacesOctetsThatAreNoUtf8) {
  EXPECT_EQ(text_of("<a>caf\xe9</a>"), "caf\ufffd");
  EXPECT_EQ(text_of("\xef\xbb\xbf <?xml version='1.0'?><a>\xe9\xe8&amp;<![CDATA[\xf0\x9f]]>x</a> "),
            "\ufffd\ufffd&\ufffdx");
  EXPECT_EQ(text_of("<a><!--\xe9-->x<?p \xe9?></a><!--\xff-->"), "x");
  EXPECT_EQ(text_of("<a>\xed\xa0\x80</a>"), "\ufffd\ufffd\ufffd");
  const auto document = Document::parse("<a b='\xe9'><c>\xc3</c></a>");
  ASSERT_TRUE(document.has_value());
  EXPECT_EQ(document->root().attribute("b"), "\ufffd");
  EXPECT_EQ(document->root().first().text(), "\ufffd");
}

// UDA-3-09
TEST(XmlDocument, ResolvesPrefixesWhereverTheyAreBound) {
  const auto document = Document::parse(
      "<s:a xmlns:s='urn:s' xmlns='urn:default'><b/><s:c/><s:d xmlns:s='urn:other'/><e xmlns='urn:e'><f/></e>"
      "<g xmlns=''><h/></g><x:i/><xml:j/><s:k xmlns:s=''/><l xmlns:s='urn:l' s:m='1' xmlnsx='urn:x'/>"
      "<S:n/><o xmlns='&#117;rn:&amp;o'/></s:a>");
  ASSERT_TRUE(document.has_value());
  const auto root = document->root();
  EXPECT_TRUE(root.is("urn:s", "a"));
  EXPECT_FALSE(root.is("urn:t", "a"));
  EXPECT_FALSE(root.is("urn:s", "b"));
  auto each = root.first();
  const auto expect = [&](std::string_view name, std::optional<std::string_view> uri) {
    EXPECT_EQ(each.name(), name);
    EXPECT_EQ(each.name_space(), uri) << name;
    each = each.next();
  };
  expect("b", "urn:default");
  expect("c", "urn:s");
  expect("d", "urn:other");
  EXPECT_EQ(each.first().name_space(), "urn:e");
  expect("e", "urn:e");
  EXPECT_EQ(each.first().name_space(), "");
  expect("g", "");
  expect("i", std::nullopt);
  expect("j", "http://www.w3.org/XML/1998/namespace");
  expect("k", std::nullopt);
  EXPECT_EQ(each.attribute("s:m"), "1");
  EXPECT_EQ(each.attribute("m"), std::nullopt);
  expect("l", "urn:default");
  expect("n", std::nullopt);
  expect("o", "urn:&o");
  EXPECT_FALSE(each);
  EXPECT_EQ(Document::parse("<a/>")->root().name_space(), "");
}

TEST(XmlDocument, WalksElementsAndSkipsTheRest) {
  auto document = Document::parse("<a> <!-- x --><b>1</b> text <?p?><![CDATA[y]]><c/></a>");
  ASSERT_TRUE(document.has_value());
  const auto root = document->root();
  const Document moved = std::move(*document);
  EXPECT_EQ(root.first().name(), "b");
  EXPECT_EQ(root.first().text(), "1");
  EXPECT_EQ(root.first().next().name(), "c");
  EXPECT_FALSE(root.first().next().next());
  EXPECT_FALSE(root.first().first());
  EXPECT_FALSE(root.next());
  EXPECT_EQ(moved.root().text(), "  text y");
}

constexpr std::string_view rich =
    "\xef\xbb\xbf \n<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<!-- a --><?p i?>\n"
    "<s:a xmlns:s='urn:s' s:b=\"&lt;c\u00e9\"><d/>t&amp;\u20ac&#x41;<![CDATA[<]]><?q?><!--c--><e "
    "f='g'>h</e></s:a>";

TEST(XmlDocument, IsRefusedAtEveryShorterLength) {
  EXPECT_EQ(text_of(std::string{rich}), "t&\u20acA<");
  for (std::size_t n = 0; n < rich.size(); ++n) EXPECT_TRUE(why_not(std::string{rich.substr(0, n)})) << n;
}

TEST(XmlDocument, IsTheSameToTheScanAndTheParserHoweverItIsDamaged) {
  std::mt19937 random{20261127};
  std::size_t taken = 0;
  for (int round = 0; round < 100000; ++round) {
    std::vector<std::byte> octets;
    for (const char c : rich) octets.push_back(static_cast<std::byte>(c));
    test::mutate(octets, random);
    const std::string text{reinterpret_cast<const char*>(octets.data()), octets.size()};
    const auto scanned = scan(text);
    const auto parsed = Document::parse(text);
    ASSERT_EQ(scanned.has_value(), parsed.has_value()) << text;
    if (!parsed) continue;
    ++taken;
    ASSERT_TRUE(parsed->root());
    // a name without its prefix is where the scan says the root begins
    const auto root = text.substr(scanned->root + 1, 300);
    const auto name = parsed->root().name();
    ASSERT_TRUE(root.starts_with(name) || root.find(":" + std::string{name}) < 257) << text;
  }
  EXPECT_GT(taken, 1000u);
}

}  // namespace
}  // namespace sallyport::upnp::xml
