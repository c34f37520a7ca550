#include "protocols/upnp/soap/request.hpp"

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "protocols/upnp/soap/argument.hpp"
#include "tests/protocols/upnp/soap/wan_table.hpp"
#include "tests/support/vectors.hpp"

namespace sallyport::upnp::soap {
namespace {

using namespace std::string_literals;
using test::wan_table;

const std::string wan = "urn:schemas-upnp-org:service:WANIPConnection:";
const std::string good_arguments =
    "<NewRemoteHost></NewRemoteHost><NewExternalPort>3074</NewExternalPort><NewProtocol>UDP</NewProtocol>";

std::string envelope(const std::string& content) {
  return "<s:Envelope xmlns:s='http://schemas.xmlsoap.org/soap/envelope/'>" + content + "</s:Envelope>";
}
std::string body(const std::string& content) { return envelope("<s:Body>" + content + "</s:Body>"); }
std::string action(const std::string& name, const std::string& arguments,
                   const std::string& type = wan + "1") {
  return "<u:" + name + " xmlns:u='" + type + "'>" + arguments + "</u:" + name + ">";
}

struct Asked {
  std::string soap_action = '"' + wan + "1#DeletePortMapping\"";
  std::string body = soap::body(action("DeletePortMapping", good_arguments));
};

Decoded decode(const Asked& asked) {
  http::Request request;
  request.method = "POST";
  request.fields.add("SoapAction", asked.soap_action);
  request.body = asked.body;
  return decode_request(std::move(request), wan_table, test::may_be_empty);
}
Decoded decode_arguments(const std::string& arguments) {
  return decode({.body = body(action("DeletePortMapping", arguments))});
}

/// "call", the UPnP error ("fault 402") or the status ("http 400").
std::string outcome(const Decoded& decoded) {
  if (const auto* const fault = std::get_if<Fault>(&decoded)) return "fault " + std::to_string(fault->code);
  if (const auto* const error = std::get_if<HttpError>(&decoded))
    return "http " + std::to_string(error->status);
  return "call";
}

TEST(SoapRequest, BecomesACallThatOutlivesIt) {
  const auto decoded = decode({});
  ASSERT_EQ(outcome(decoded), "call");
  const auto& call = std::get<Call>(decoded);
  EXPECT_EQ(call.service, &wan_table);
  EXPECT_EQ(call.action, wan_table.find_action("DeletePortMapping"));
  EXPECT_EQ(call.version, 1u);
  EXPECT_EQ(call.arguments, (std::vector<std::string>{"", "3074", "UDP"}));
  EXPECT_EQ(call.argument("NewExternalPort"), "3074");
  EXPECT_EQ(call.argument("NewRemoteHost"), "");
  EXPECT_EQ(call.argument("NewInternalPort"), "");
}

// UDA-3-01, UPNP-X-04
TEST(SoapRequest, TakesSoapActionWithQuotesAndWithout) {
  EXPECT_EQ(outcome(decode({.soap_action = wan + "1#DeletePortMapping"})), "call");
}

// UDA-3-14, POL-WEB-07, POL-WEB-11
TEST(SoapRequest, IsRefusedWithoutOneSoundSoapAction) {
  http::Request request;
  request.body = Asked{}.body;
  EXPECT_EQ(outcome(decode_request(http::Request{request}, wan_table)), "http 400");
  request.fields.add("SOAPACTION", Asked{}.soap_action);
  EXPECT_EQ(outcome(decode_request(http::Request{request}, wan_table, test::may_be_empty)), "call");
  request.fields.add("SOAPACTION", Asked{}.soap_action);
  EXPECT_EQ(outcome(decode_request(http::Request{request}, wan_table, test::may_be_empty)), "http 400");

  const auto name = wan + "1#DeletePortMapping";
  for (const std::string& broken : {""s,
                                    "\""s,
                                    "\"\""s,
                                    "#"s,
                                    "\"#\""s,
                                    "\"" + name,
                                    name + "\"",
                                    "\"\"" + name + "\"\"",
                                    "'" + name + "' x",
                                    "\"" + name + "\";x",
                                    "\" " + name + "\"",
                                    "\"" + name + " \"",
                                    wan + "1",
                                    "\"" + wan + "1\"",
                                    wan + "1#",
                                    "#DeletePortMapping"s,
                                    name + "#x",
                                    "\"" + wan + "1 # DeletePortMapping\"",
                                    "\"" + wan + "1\"#DeletePortMapping",
                                    name + "\0"s,
                                    name + "\t",
                                    name + "\xe9",
                                    name + "\x7f"})
    EXPECT_EQ(outcome(decode({.soap_action = broken})), "http 400") << broken;
}

// UDA-3-05, UDA-3-15, UDA-3-21, WIC-09
TEST(SoapRequest, NamesAnActionOfThisUrlOrGets401) {
  for (const std::string& other :
       {wan + "1#Reboot", wan + "1#deleteportmapping", wan + "1#DeletePortMappin",
        wan + "1#DeletePortMappings", "urn:schemas-upnp-org:service:WANPPPConnection:1#DeletePortMapping"s,
        "urn:schemas-upnp-org:service:WANIPConnection#DeletePortMapping"s, wan + "#DeletePortMapping",
        "urn:schemas-upnp-org:control-1-0#QueryStateVariable"s, "x#DeletePortMapping"s,
        "urn:Schemas-upnp-org:service:WANIPConnection:1#DeletePortMapping"s, wan + "0#DeletePortMapping",
        wan + "3#DeletePortMapping", wan + "01#DeletePortMapping", wan + "-1#DeletePortMapping",
        wan + "+1#DeletePortMapping", wan + "1x#DeletePortMapping", wan + "1:1#DeletePortMapping",
        wan + "4294967297#DeletePortMapping", wan + "99999999999999999999#DeletePortMapping"}) {
    const auto type = other.substr(0, other.find('#'));
    const auto name = other.substr(other.find('#') + 1);
    EXPECT_EQ(outcome(decode({.soap_action = other, .body = body(action(name, good_arguments, type))})),
              "fault 401")
        << other;
  }
}

// UDA-3-12
TEST(SoapRequest, MayBeForEachVersionUpToTheTables) {
  for (const unsigned version : {1u, 2u}) {
    const auto type = wan + std::to_string(version);
    const auto decoded = decode({.soap_action = type + "#DeletePortMapping",
                                 .body = body(action("DeletePortMapping", good_arguments, type))});
    ASSERT_EQ(outcome(decoded), "call");
    EXPECT_EQ(std::get<Call>(decoded).version, version);
  }
}

// UDA-3-13, POL-XML-04
TEST(SoapRequest, NamesTheSameInSoapActionAndBodyOrGets401) {
  EXPECT_EQ(outcome(decode({.body = body(action("AddPortMapping", good_arguments))})), "fault 401");
  EXPECT_EQ(outcome(decode({.body = body(action("ForceTermination", ""))})), "fault 401");
  EXPECT_EQ(outcome(decode({.body = body(action("DeletePortMapping", good_arguments, wan + "2"))})),
            "fault 401");
  EXPECT_EQ(outcome(decode({.body = body(action("deletePortMapping", good_arguments))})), "fault 401");
  for (const std::string& type :
       {"urn:schemas-upnp-org:service:WANPPPConnection:1"s, wan, wan + "1 ", wan + "01", ""s})
    EXPECT_EQ(outcome(decode({.body = body(action("DeletePortMapping", good_arguments, type))})), "fault 401")
        << type;
}

// UDA-3-09
TEST(SoapRequest, IsReadByNamespacesAndNotByPrefixes) {
  const std::string soap = "http://schemas.xmlsoap.org/soap/envelope/";
  const auto none = "<Envelope xmlns='" + soap + "'><Body><DeletePortMapping xmlns='" + wan + "1'>" +
                    good_arguments + "</DeletePortMapping></Body></Envelope>";
  const auto swapped = "<u:Envelope xmlns:u='" + soap + "' xmlns:s='" + wan +
                       "1'><u:Body><s:DeletePortMapping>" + good_arguments +
                       "</s:DeletePortMapping></u:Body></u:Envelope>";
  const auto rebound = "<s:Envelope xmlns:s='" + soap + "'><s:Body><s:DeletePortMapping xmlns:s='" + wan +
                       "1'>" + good_arguments + "</s:DeletePortMapping></s:Body></s:Envelope>";
  const auto bound_by_reference =
      "<s:Envelope xmlns:s='http:&#47;/schemas.xmlsoap.org/soap/envelope/'><s:Body>" +
      action("DeletePortMapping", good_arguments) + "</s:Body></s:Envelope>";
  for (const auto& text : {none, swapped, rebound, bound_by_reference})
    EXPECT_EQ(outcome(decode({.body = text})), "call") << text;

  const auto unbound_action = body("<u:DeletePortMapping>" + good_arguments + "</u:DeletePortMapping>");
  const auto no_namespace = body("<DeletePortMapping>" + good_arguments + "</DeletePortMapping>");
  const auto of_soap = body("<s:DeletePortMapping>" + good_arguments + "</s:DeletePortMapping>");
  for (const auto& text : {unbound_action, no_namespace, of_soap})
    EXPECT_EQ(outcome(decode({.body = text})), "fault 401") << text;

  const auto call = action("DeletePortMapping", good_arguments);
  const auto unbound_envelope = "<s:Envelope><s:Body>" + call + "</s:Body></s:Envelope>";
  const auto soap_1_2 = "<s:Envelope xmlns:s='http://www.w3.org/2003/05/soap-envelope'><s:Body>" + call +
                        "</s:Body></s:Envelope>";
  const auto foreign_body = envelope("<s:Body xmlns:s='urn:other'>" + call + "</s:Body>");
  const auto bare_body = envelope("<Body>" + call + "</Body>");
  for (const auto& text : {unbound_envelope, soap_1_2, foreign_body, bare_body})
    EXPECT_EQ(outcome(decode({.body = text})), "http 400") << text;
}

// POL-XML-03
TEST(SoapRequest, HasOneBodyWithOneActionDirectlyBelowTheRoot) {
  const auto call = action("DeletePortMapping", good_arguments);
  EXPECT_EQ(
      outcome(decode({.body = envelope("<s:Header><x/></s:Header> <s:Body> " + call + "\n</s:Body><y/>")})),
      "call");
  for (const auto& wrong :
       {envelope(""), envelope(call), envelope("<s:Header>" + body(call) + "</s:Header>"),
        envelope("<s:Body>" + call + "</s:Body><s:Body/>"),
        envelope("<s:Body>" + call + "</s:Body><x:Body xmlns:x='urn:x'>" + call + "</x:Body>"),
        "<a>" + body(call) + "</a>", call})
    EXPECT_EQ(outcome(decode({.body = wrong})), "http 400") << wrong;
  for (const auto& wrong :
       {body(""), body("text"), body(call + call), body(call + "<x/>"), body("<x/>" + call)})
    EXPECT_EQ(outcome(decode({.body = wrong})), "fault 402") << wrong;
  EXPECT_EQ(outcome(decode({.body = body("<x>" + call + "</x>")})), "fault 401");
}

// UDA-3-16, UDA-3-06
TEST(SoapRequest, TakesArgumentsInAnyOrderWithAnyPrefixAndIgnoresUnknownOnes) {
  const std::string many[] = {
      "<NewProtocol>UDP</NewProtocol><NewExternalPort>3074</NewExternalPort><NewRemoteHost/>",
      "\n <u:NewProtocol>UDP</u:NewProtocol> <x:NewExternalPort "
      "xmlns:x='urn:x'>3074</x:NewExternalPort><NewRemoteHost />",
      good_arguments +
          "<NewInternalPort>1</NewInternalPort><x><NewProtocol>TCP</NewProtocol></x><x/>stray text",
      "<NewRemoteHost a='1' xsi:nil='1'></NewRemoteHost><NewExternalPort dt='ui2'>3074</NewExternalPort>"
      "<NewProtocol><!-- TCP -->U<![CDATA[D]]>&#80;<?x?></NewProtocol>",
      good_arguments + "<newprotocol>TCP</newprotocol>",
  };
  for (const auto& arguments : many) {
    const auto decoded = decode_arguments(arguments);
    ASSERT_EQ(outcome(decoded), "call") << arguments;
    EXPECT_EQ(std::get<Call>(decoded).arguments, (std::vector<std::string>{"", "3074", "UDP"})) << arguments;
  }
}

// UDA-3-06, WIC-ADD-10, POL-NUM-03
TEST(SoapRequest, LacksNoArgumentAndHasNoneEmptyButWhereThatMeansSomething) {
  for (const std::string gone : {"NewRemoteHost", "NewExternalPort", "NewProtocol"}) {
    auto arguments = good_arguments;
    arguments.replace(arguments.find("<" + gone), gone.size() + 1, "<Other");
    arguments.replace(arguments.find("</" + gone), gone.size() + 2, "</Other");
    EXPECT_EQ(outcome(decode_arguments(arguments)), "fault 402") << gone;
  }
  EXPECT_EQ(outcome(decode_arguments("")), "fault 402");
  for (const std::string empty :
       {"<NewProtocol/>", "<NewProtocol></NewProtocol>", "<NewProtocol> \r\n\t</NewProtocol>",
        "<NewProtocol><!-- UDP --></NewProtocol>", "<NewProtocol><![CDATA[]]></NewProtocol>",
        "<NewProtocol>&#32;</NewProtocol>"}) {
    auto arguments = good_arguments;
    arguments.replace(arguments.find("<NewProtocol>"),
                      std::string_view{"<NewProtocol>UDP</NewProtocol>"}.size(), empty);
    EXPECT_EQ(outcome(decode_arguments(arguments)), "fault 402") << empty;
  }
  EXPECT_EQ(outcome(decode_arguments(good_arguments)), "call");
  http::Request request;
  request.fields.add("SOAPACTION", Asked{}.soap_action);
  request.body = Asked{}.body;
  EXPECT_EQ(outcome(decode_request(std::move(request), wan_table)), "fault 402");  // RemoteHost is empty
}

// POL-XML-03: no second reader can see another value
TEST(SoapRequest, HasEachArgumentOnceAndAsText) {
  for (const std::string more : {"<NewProtocol>UDP</NewProtocol>", "<u:NewProtocol>TCP</u:NewProtocol>",
                                 "<x:NewProtocol xmlns:x='urn:x'>TCP</x:NewProtocol>", "<NewProtocol/>"}) {
    EXPECT_EQ(outcome(decode_arguments(good_arguments + more)), "fault 402") << more;
    EXPECT_EQ(outcome(decode_arguments(more + good_arguments)), "fault 402") << more;
  }
  for (const std::string inside : {"<b>TCP</b>", "<b/>", "TCP<b/>", "<NewProtocol>TCP</NewProtocol>"})
    EXPECT_EQ(
        outcome(decode_arguments("<NewRemoteHost/><NewExternalPort>3074</NewExternalPort><NewProtocol>UDP" +
                                 inside + "</NewProtocol>")),
        "fault 402")
        << inside;
}

// UDA-3-23
TEST(SoapRequest, NeedsNoArgumentsWhereThereAreNone) {
  for (const auto& element : {"<u:GetExternalIPAddress xmlns:u='" + wan + "1'/>",
                              "<u:GetExternalIPAddress xmlns:u='" + wan + "1'></u:GetExternalIPAddress>",
                              "<u:GetExternalIPAddress xmlns:u='" + wan + "1'>\n</u:GetExternalIPAddress>"}) {
    const auto decoded = decode({.soap_action = wan + "1#GetExternalIPAddress", .body = body(element)});
    ASSERT_EQ(outcome(decoded), "call") << element;
    EXPECT_TRUE(std::get<Call>(decoded).arguments.empty());
  }
}

// UDA-3-18, POL-XML-01, POL-XML-02, POL-XML-06
TEST(SoapRequest, IsWellFormedXmlWithinTheLimitsOrGets402) {
  const auto good = Asked{}.body;
  for (const std::string& bad :
       {""s, "x"s, good.substr(1), good + "x", good + "\0"s,
        "<?xml version='1.0' encoding='ISO-8859-1'?>" + good,
        body(action("DeletePortMapping", good_arguments + "<a>&#1;</a>")),
        body(action("DeletePortMapping", good_arguments + "<a>&x;</a>")),
        body(action("DeletePortMapping", good_arguments + "<" + std::string(257, 'a') + "/>"))})
    EXPECT_EQ(outcome(decode({.body = bad})), "fault 402") << bad;
  EXPECT_EQ(outcome(decode({.body = "<!DOCTYPE a>" + good})), "http 400");
  EXPECT_EQ(outcome(decode({.body = good + std::string(65536 - good.size(), ' ')})), "call");
  EXPECT_EQ(outcome(decode({.body = good + std::string(65537 - good.size(), ' ')})), "http 413");
}

// Descriptions go out as they were given to it: upnpc -e "R&B". What cannot be read is told by a fault, since it takes
// every other answer for success.
TEST(SoapRequest, MiniupnpcWritesAmpersandsBare) {
  const auto read = [](const std::string& written) -> std::string {
    auto decoded = decode({.body = body(action("DeletePortMapping", "<NewRemoteHost>" + written +
                                                                        "</NewRemoteHost><NewExternalPort>1</NewExternalPort>"
                                                                        "<NewProtocol>TCP</NewProtocol>"))});
    const auto* call = std::get_if<Call>(&decoded);
    return call ? call->arguments[0] : outcome(decoded);
  };
  EXPECT_EQ(read("R&B"), "R&B");
  EXPECT_EQ(read("a & b &c&"), "a & b &c&");
  EXPECT_EQ(read("&amp;&lt;&#65;&#x42; & &gt"), "&<AB & &gt");
  EXPECT_EQ(read("a?x=1&y=2;z"), "a?x=1&y=2;z");
  EXPECT_EQ(read("&copy; 2026"), "fault 402") << "a reference to nothing we know";
  EXPECT_EQ(read("<![CDATA[R&B]]>"), "R&B");
  EXPECT_EQ(read("a < b"), "fault 402");
}

// UDA-3-22
TEST(SoapRequest, MayBeginWithAByteOrderMarkAndBlanks) {
  for (const std::string before :
       {"\xef\xbb\xbf", " \r\n", "\xef\xbb\xbf\n<?xml version='1.0' encoding='UTF-8'?>\n",
        "\r\n\r\n<?xml version=\"1.0\"?>"})
    EXPECT_EQ(outcome(decode({.body = before + Asked{}.body})), "call") << before;
}

// UDA-3-24, POL-XML-05, POL-XML-06
TEST(SoapRequest, YieldsTheTextBehindReferencesSectionsAndCommentsWithBlanks) {
  auto arguments = good_arguments;
  arguments.replace(arguments.find("></NewRemoteHost>"), 1,
                    "> &lt;b&gt;&amp;amp;<!-- no -->&quot;<![CDATA[&'<]]>\u00e9\xe9\r\n ");
  const auto decoded = decode_arguments(arguments);
  ASSERT_EQ(outcome(decoded), "call");
  EXPECT_EQ(std::get<Call>(decoded).arguments[0], " <b>&amp;\"&'<\u00e9\ufffd\n ");
}

TEST(SoapRequest, GivesACallWithAllItsArgumentsOrNoneHoweverItIsDamaged) {
  std::mt19937 random{20261127};
  std::size_t calls = 0;
  for (int round = 0; round < 50000; ++round) {
    std::vector<std::byte> octets;
    for (const char c : Asked{}.body) octets.push_back(static_cast<std::byte>(c));
    sallyport::test::mutate(octets, random);
    const auto decoded = decode({.body = {reinterpret_cast<const char*>(octets.data()), octets.size()}});
    const auto* const call = std::get_if<Call>(&decoded);
    if (!call) continue;
    ++calls;
    ASSERT_EQ(call->action->name, "DeletePortMapping");
    ASSERT_EQ(call->arguments.size(), 3u);
    ASSERT_FALSE(trimmed(call->arguments[1]).empty());
  }
  EXPECT_GT(calls, 100u);
}

}  // namespace
}  // namespace sallyport::upnp::soap
