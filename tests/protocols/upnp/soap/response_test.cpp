#include "protocols/upnp/soap/response.hpp"

#include <gtest/gtest.h>

#include <string>

#include "protocols/upnp/xml/document.hpp"
#include "tests/protocols/upnp/soap/wan_table.hpp"

namespace sallyport::upnp::soap {
namespace {

using test::wan_table;

Call call(std::string_view action, unsigned version = 1) {
  return {&wan_table, wan_table.find_action(action), version, {}};
}

xml::Element body_of(const xml::Document& document) {
  EXPECT_TRUE(document.root().is(envelope_namespace, "Envelope"));
  EXPECT_EQ(document.root().attribute("s:encodingStyle"), encoding_namespace);
  const auto body = document.root().first();
  EXPECT_TRUE(body.is(envelope_namespace, "Body"));
  EXPECT_FALSE(body.next());
  return body;
}

void expect_fields(const http::Response& response) {
  EXPECT_EQ(response.fields.find("CONTENT-TYPE"), "text/xml; charset=\"utf-8\"");
  EXPECT_EQ(response.fields.find("EXT"), "");
  EXPECT_EQ(response.fields.all().size(), 2u);
}

// UDA-3-02
TEST(SoapResponse, IsOctetByOctetAsClientsExpectIt) {
  const auto response = SuccessWriter{call("GetExternalIPAddress")}.text("203.0.113.7").take();
  EXPECT_EQ(response.status, 200u);
  expect_fields(response);
  EXPECT_EQ(response.body,
            "<?xml version=\"1.0\" encoding=\"utf-8\"?>\r\n"
            "<s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" "
            "s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body>"
            "<u:GetExternalIPAddressResponse xmlns:u=\"urn:schemas-upnp-org:service:WANIPConnection:1\">"
            "<NewExternalIPAddress>203.0.113.7</NewExternalIPAddress>"
            "</u:GetExternalIPAddressResponse></s:Body></s:Envelope>\r\n");
}

// UDA-3-02, UDA-3-12
TEST(SoapResponse, NamesTheVersionThatWasAskedFor) {
  for (const unsigned version : {1u, 2u}) {
    const auto response = SuccessWriter{call("ForceTermination", version)}.take();
    const auto document = xml::Document::parse(response.body);
    ASSERT_TRUE(document.has_value());
    const auto answer = body_of(*document).first();
    EXPECT_TRUE(answer.is("urn:schemas-upnp-org:service:WANIPConnection:" + std::to_string(version),
                          "ForceTerminationResponse"));
    EXPECT_FALSE(answer.first());
  }
}

// UDA-3-03, UDA-3-11, UDA-3-24
TEST(SoapResponse, HasAllOutArgumentsInTheTablesOrderUnqualified) {
  const auto response = SuccessWriter{call("GetSpecificPortMappingEntry")}
                            .number(8080)
                            .text("192.168.1.10")
                            .boolean(true)
                            .text("a & <b> \"c\" 'd' \u00e9")
                            .number(4294967295)
                            .take();
  const auto document = xml::Document::parse(response.body);
  ASSERT_TRUE(document.has_value());
  auto each = body_of(*document).first().first();
  const std::pair<std::string_view, std::string_view> expected[] = {
      {"NewInternalPort", "8080"},
      {"NewInternalClient", "192.168.1.10"},
      {"NewEnabled", "1"},
      {"NewPortMappingDescription", "a & <b> \"c\" 'd' \u00e9"},
      {"NewLeaseDuration", "4294967295"},
  };
  for (const auto& [name, text] : expected) {
    EXPECT_TRUE(each.is("", name)) << each.name();
    EXPECT_EQ(each.text(), text);
    each = each.next();
  }
  EXPECT_FALSE(each);
  EXPECT_NE(response.body.find("a &amp; &lt;b&gt; &quot;c&quot; &apos;d&apos; \u00e9"), std::string::npos);
}

// UDA-3-03
TEST(SoapResponse, HasEmptyArgumentsForThoseNotGivenAndNoneTooMany) {
  const auto few = SuccessWriter{call("GetSpecificPortMappingEntry")}.number(1).boolean(false).take();
  EXPECT_NE(few.body.find("<NewInternalPort>1</NewInternalPort><NewInternalClient>0</NewInternalClient>"
                          "<NewEnabled></NewEnabled><NewPortMappingDescription></NewPortMappingDescription>"
                          "<NewLeaseDuration></NewLeaseDuration></u:"),
            std::string::npos)
      << few.body;
  EXPECT_EQ(SuccessWriter{call("AddPortMapping")}.number(1).text("x").take().body,
            SuccessWriter{call("AddPortMapping")}.take().body);
}

class Pieces : public http::BodySource {
 public:
  explicit Pieces(std::vector<std::string> pieces) : pieces_{std::move(pieces)} {}
  std::string next() override { return at_ < pieces_.size() ? pieces_[at_++] : ""; }

 private:
  std::vector<std::string> pieces_;
  std::size_t at_ = 0;
};

// POL-TXT-03, WIC-LST-01
TEST(SoapResponse, StreamsADocumentAsMiniupnpcReadsIt) {
  const auto list = call("GetListOfPortMappings", 2);
  for (const auto& pieces :
       {std::vector<std::string>{}, std::vector<std::string>{"<a>", "b&amp;c", "</a>"}}) {
    auto streamed = success(list, std::make_unique<Pieces>(pieces));
    EXPECT_EQ(streamed.status, 200u);
    expect_fields(streamed);
    ASSERT_TRUE(streamed.source);
    std::string body;
    for (auto piece = streamed.source->next(); !piece.empty(); piece = streamed.source->next()) body += piece;
    EXPECT_EQ(streamed.source->next(), "");
    std::string whole;
    for (const auto& piece : pieces) whole += piece;
    // miniupnpc decodes no references: what it gets is what stands between the marks
    EXPECT_NE(body.find("<NewPortListing><![CDATA[" + whole + "]]></NewPortListing>"), std::string::npos) << body;
    const auto document = xml::Document::parse(body);
    ASSERT_TRUE(document.has_value());
    EXPECT_EQ(body_of(*document).first().first().text(), whole);
  }
  EXPECT_EQ(success_begin(list) + success_end(list), SuccessWriter{list}.take().body);
}

// UDA-3-04
TEST(SoapResponse, TellsAnErrorWithItsMeaningInTheService) {
  for (const auto& response : {error(wan_table, 718), soap::response(Fault{718, "ConflictInMappingEntry"})}) {
    EXPECT_EQ(response.status, 500u);
    expect_fields(response);
    const auto document = xml::Document::parse(response.body);
    ASSERT_TRUE(document.has_value());
    const auto fault = body_of(*document).first();
    EXPECT_TRUE(fault.is(envelope_namespace, "Fault"));
    const auto code = fault.first();
    EXPECT_TRUE(code.is("", "faultcode"));
    EXPECT_EQ(code.text(), "s:Client");
    EXPECT_TRUE(code.next().is("", "faultstring"));
    EXPECT_EQ(code.next().text(), "UPnPError");
    const auto detail = code.next().next();
    EXPECT_TRUE(detail.is("", "detail"));
    const auto upnp = detail.first();
    EXPECT_TRUE(upnp.is(control_namespace, "UPnPError"));
    EXPECT_TRUE(upnp.first().is(control_namespace, "errorCode"));
    EXPECT_EQ(upnp.first().text(), "718");
    EXPECT_TRUE(upnp.first().next().is(control_namespace, "errorDescription"));
    EXPECT_EQ(upnp.first().next().text(), "ConflictInMappingEntry");
    EXPECT_FALSE(upnp.first().next().next());
  }
  EXPECT_EQ(error(wan_table, UpnpErrc::invalid_args).body, error(wan_table, 402).body);
}

TEST(SoapResponse, TellsPeopleWhatIsNoControlRequest) {
  const auto response = soap::response(HttpError{400, "SOAPACTION is missing"});
  EXPECT_EQ(response.status, 400u);
  EXPECT_NE(response.body.find("SOAPACTION is missing"), std::string::npos);
}

}  // namespace
}  // namespace sallyport::upnp::soap
