#include "tests/protocols/upnp/description/schema.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "protocols/upnp/description/render.hpp"
#include "tests/protocols/upnp/description/sample.hpp"

namespace sallyport::upnp::description {
namespace {

namespace sample = test::sample;
namespace schema = test::schema;

/// A piece of a sound document, and what it is broken into.
struct Mutation {
  std::string_view from;
  std::string_view to;
  std::string_view says;
};

std::string mutate(std::string document, const Mutation& mutation) {
  const auto at = document.find(mutation.from);
  EXPECT_NE(at, std::string::npos) << mutation.says;
  return at == std::string::npos ? document : document.replace(at, mutation.from.size(), mutation.to);
}

constexpr std::string_view long_64 =
    "<friendlyName>0123456789012345678901234567890123456789012345678901234567890123";

constexpr Mutation broken_devices[] = {
    {"</root>", "", "not well-formed"},
    {"</root>", "</root><root/>", "two roots"},
    {"device-1-0", "device-1-1", "another namespace"},
    {" configId=\"7\"", "", "no configId (UDA-2-06)"},
    {"configId=\"7\"", "configId=\"16777216\"", "a configId of more than 24 bits"},
    {"<minor>1</minor>", "<minor>0</minor>", "a configId in UDA 1.0"},
    {"<major>1</major>", "<major>2</major>", "another major version"},
    {"<specVersion><major>1</major><minor>1</minor></specVersion>", "", "no specVersion"},
    {"<device>", "<URLBase>http://192.0.2.1/</URLBase><device>", "URLBase (UDA-2-05)"},
    {"<modelName>Model</modelName>", "", "no modelName (UDA-2-02)"},
    {"<modelName>Model</modelName>", "<modelName></modelName>", "an empty modelName"},
    {"<modelName>Model<", "<modelName>01234567890123456789012345678901<", "32 characters of modelName"},
    {"<friendlyName>Lamp", long_64, "64 and more characters of friendlyName"},
    {"<manufacturer>Maker</manufacturer>", "<manufacturer>Maker</manufacturer><manufacturer>M</manufacturer>",
     "two manufacturers"},
    {"device:House:1", "device:House", "a deviceType without version"},
    {"device:House:1", "device:House:0", "version 0"},
    {"urn:schemas-upnp-org:device:House", "urn:schemas-upnp-org:service:House", "a service as deviceType"},
    {"<UDN>uuid:", "<UDN>", "a UDN without uuid:"},
    {"aabbccddeeff</UDN>", "aabbccddeef</UDN>", "a UDN too short"},
    {"-4677-", "-0677-", "a UUID of version 0"},
    {"-8899-", "-1899-", "a UUID of another variant"},
    {"aabbccddeeff</UDN>", "aabbccddeefe</UDN>", "a UDN twice (UDA-2-03)"},
    {"<width>16</width>", "<width>wide</width>", "a width that is no number"},
    {"<width>16</width><height>16</height>", "<height>16</height><width>16</width>", "width behind height"},
    {"<mimetype>image/png</mimetype>", "<mimetype>png</mimetype>", "no mime type"},
    {"<url>/icon.png</url>", "", "an icon without url"},
    {"service:Lamp:2", "service:Lamp:two", "a serviceType whose version is no number"},
    {"<serviceId>urn:upnp-org:serviceId:Lamp1</serviceId>", "", "no serviceId (UDA-2-04)"},
    {"<SCPDURL>/s0</SCPDURL><controlURL>/c0</controlURL>",
     "<controlURL>/c0</controlURL><SCPDURL>/s0</SCPDURL>", "controlURL before SCPDURL"},
    {"<controlURL>/c0<", "<controlURL>/c1<", "a control URL of two services (UDA-2-04)"},
    {"<controlURL>/c0<", "<controlURL>c 0<", "a URL with a blank"},
    {"<eventSubURL>/e0</eventSubURL>", "", "no eventSubURL"},
    {"<serviceList>", "<serviceList><other/>", "a stranger in serviceList"},
    {"<presentationURL>/</presentationURL>", "<presentationURL><a/></presentationURL>",
     "an element for a text"},
    {"<deviceList>", "<deviceList>text", "text between devices"},
};

TEST(DeviceSchema, AcceptsASoundDocument) {
  EXPECT_THAT(schema::device_problems(render_device(sample::tree(), 7)), testing::IsEmpty());
  auto old = sample::tree();
  old.uda_minor = 0;
  EXPECT_THAT(schema::device_problems(render_device(old, 7)), testing::IsEmpty());
}

TEST(DeviceSchema, RefusesEveryBrokenDocument) {
  for (const auto& mutation : broken_devices)
    EXPECT_FALSE(schema::device_problems(mutate(render_device(sample::tree(), 7), mutation)).empty())
        << mutation.says;
}

constexpr Mutation broken_scpds[] = {
    {"</scpd>", "</spcd>", "not well-formed"},
    {"service-1-0", "device-1-0", "another namespace"},
    {" configId=\"7\"", "", "no configId (UDA-2-06)"},
    {"<minor>1</minor>", "", "no minor version"},
    {"<name>Paint</name>", "", "an action without name"},
    {"<name>Paint</name>", "<name>Pa-int</name>", "a hyphen in a name"},
    {"<name>Rest</name>", "<name>Paint</name>", "an action twice"},
    {"<name>Rest</name>", "<name>Rest</name><argumentList></argumentList>", "an empty argumentList"},
    {"<direction>in</direction>", "<direction>inout</direction>", "another direction"},
    {"<direction>in</direction>", "<direction>out</direction>", "in behind out (UDA-2-09)"},
    {"<relatedStateVariable>Colour</relatedStateVariable>", "", "no related variable"},
    {"<relatedStateVariable>Colour<", "<relatedStateVariable>Color<", "a related variable that is not there"},
    {"<name>NewColour</name><direction>in</direction>", "<direction>in</direction><name>NewColour</name>",
     "direction before name"},
    {"<name>NewLevel</name>", "<name>NewColour</name>", "an argument twice"},
    {"sendEvents=\"yes\"", "sendEvents=\"true\"", "sendEvents neither yes nor no (UDA-2-10)"},
    {" sendEvents=\"yes\"", "", "no sendEvents"},
    {"<dataType>ui2</dataType>", "<dataType>u16</dataType>", "an unknown data type"},
    {"<dataType>ui2</dataType>", "", "no data type"},
    {"<dataType>ui2</dataType>", "<dataType>string</dataType>", "a range of strings"},
    {"<dataType>string</dataType>", "<dataType>ui4</dataType>", "a list of numbers"},
    {"<defaultValue>Red<", "<defaultValue>Blue<", "a default that is not in the list"},
    {"<defaultValue>3<", "<defaultValue>10<", "a default out of range"},
    {"<allowedValue>Green<", "<allowedValue>Red<", "an allowed value twice"},
    {"<allowedValue>Green<", "<allowedValue>01234567890123456789012345678901<",
     "32 characters of allowedValue"},
    {"<minimum>1</minimum>", "", "no minimum"},
    {"<minimum>1</minimum>", "<minimum>10</minimum>", "a minimum above the maximum"},
    {"<maximum>9</maximum>", "<maximum>65536</maximum>", "a maximum the type cannot hold"},
    {"<minimum>1</minimum><maximum>9</maximum>", "<maximum>9</maximum><minimum>1</minimum>",
     "maximum before minimum"},
    {"<name>Count</name><dataType>", "<name>Lit</name><dataType>", "a variable twice"},
    {"<name>Lit</name><dataType>boolean</dataType>", "<dataType>boolean</dataType><name>Lit</name>",
     "dataType before name"},
    {"<serviceStateTable>", "<serviceStateTable><action/>", "a stranger in the state table"},
    {"<actionList>", "<actionList/><actionList>", "two action lists"},
};

TEST(ScpdSchema, AcceptsASoundDocument) {
  EXPECT_THAT(schema::scpd_problems(render_scpd(sample::lamp, 7)), testing::IsEmpty());
  EXPECT_THAT(schema::scpd_problems(render_scpd(sample::lamp, 7, 0)), testing::IsEmpty());
}

TEST(ScpdSchema, RefusesEveryBrokenDocument) {
  for (const auto& mutation : broken_scpds)
    EXPECT_FALSE(schema::scpd_problems(mutate(render_scpd(sample::lamp, 7), mutation)).empty())
        << mutation.says;
}

}  // namespace
}  // namespace sallyport::upnp::description
