#include "protocols/upnp/description/render.hpp"

#include <gtest/gtest.h>

#include <pugixml.hpp>

#include "tests/protocols/upnp/description/sample.hpp"

namespace sallyport::upnp::description {
namespace {

namespace sample = test::sample;

// UDA-2-08, UDA-2-09, UDA-2-10: every octet of a service description
TEST(RenderScpd, WritesTheDocumentOfItsTable) {
  EXPECT_EQ(render_scpd(sample::lamp, 77),
            "<?xml version=\"1.0\"?>\n"
            "<scpd xmlns=\"urn:schemas-upnp-org:service-1-0\" configId=\"77\">"
            "<specVersion><major>1</major><minor>1</minor></specVersion>"
            "<actionList>"
            "<action><name>Paint</name><argumentList>"
            "<argument><name>NewColour</name><direction>in</direction>"
            "<relatedStateVariable>Colour</relatedStateVariable></argument>"
            "<argument><name>NewLevel</name><direction>in</direction>"
            "<relatedStateVariable>Level</relatedStateVariable></argument>"
            "<argument><name>Count</name><direction>out</direction>"
            "<relatedStateVariable>Count</relatedStateVariable></argument>"
            "</argumentList></action>"
            "<action><name>Rest</name></action>"
            "</actionList>"
            "<serviceStateTable>"
            "<stateVariable sendEvents=\"yes\"><name>Colour</name><dataType>string</dataType>"
            "<defaultValue>Red</defaultValue>"
            "<allowedValueList><allowedValue>Red</allowedValue><allowedValue>Green</allowedValue></"
            "allowedValueList>"
            "</stateVariable>"
            "<stateVariable sendEvents=\"no\"><name>Level</name><dataType>ui2</dataType>"
            "<defaultValue>3</defaultValue>"
            "<allowedValueRange><minimum>1</minimum><maximum>9</maximum><step>1</step></allowedValueRange>"
            "</stateVariable>"
            "<stateVariable sendEvents=\"no\"><name>Lit</name><dataType>boolean</dataType></stateVariable>"
            "<stateVariable sendEvents=\"yes\"><name>Count</name><dataType>ui4</dataType></stateVariable>"
            "</serviceStateTable></scpd>\n");
}

// UDA-2-01..06: every octet of a device description
TEST(RenderDevice, WritesTheDocumentOfItsTree) {
  const std::string name = "<friendlyName>Lamp &lt;of&gt; &quot;Ann &amp; Bob&apos;s&quot;</friendlyName>";
  EXPECT_EQ(
      render_device(sample::tree(), 16777215),
      "<?xml version=\"1.0\"?>\n"
      "<root xmlns=\"urn:schemas-upnp-org:device-1-0\" configId=\"16777215\">"
      "<specVersion><major>1</major><minor>1</minor></specVersion>"
      "<device><deviceType>urn:schemas-upnp-org:device:House:1</deviceType>" +
          name +
          "<manufacturer>Maker</manufacturer><manufacturerURL>http://192.0.2.1/?a=1&amp;b=2</manufacturerURL>"
          "<modelDescription>Describes</modelDescription><modelName>Model</modelName><modelNumber>1</"
          "modelNumber>"
          "<modelURL>/model</modelURL><serialNumber>7</serialNumber>"
          "<UDN>uuid:00112233-4455-4677-8899-aabbccddeeff</UDN>"
          "<iconList><icon><mimetype>image/png</mimetype><width>16</width><height>16</height><depth>8</depth>"
          "<url>/icon.png</url></icon></iconList>"
          "<serviceList><service><serviceType>urn:schemas-upnp-org:service:Lamp:2</serviceType>"
          "<serviceId>urn:upnp-org:serviceId:Lamp1</serviceId><SCPDURL>/s0</SCPDURL><controlURL>/c0</"
          "controlURL>"
          "<eventSubURL>/e0</eventSubURL></service></serviceList>"
          "<deviceList><device><deviceType>urn:schemas-upnp-org:device:Room:1</deviceType>" +
          name +
          "<manufacturer>Maker</manufacturer><modelName>Model</modelName>"
          "<UDN>uuid:00112233-4455-4677-8899-aabbccddeefe</UDN>"
          "<serviceList><service><serviceType>urn:schemas-upnp-org:service:Lamp:2</serviceType>"
          "<serviceId>urn:upnp-org:serviceId:Lamp1</serviceId><SCPDURL>/s1</SCPDURL><controlURL>/c1</"
          "controlURL>"
          "<eventSubURL>/e1</eventSubURL></service></serviceList></device></deviceList>"
          "<presentationURL>/</presentationURL></device></root>\n");
}

// UPNP-X-11
TEST(RenderDevice, OfUda10HasVersion10AndNoConfigId) {
  auto tree = sample::tree();
  tree.uda_minor = 0;
  for (const auto& document : render_all(tree)) {
    if (document.content_type == "image/png") continue;
    EXPECT_NE(document.body.find("<major>1</major><minor>0</minor>"), std::string::npos);
    EXPECT_EQ(document.body.find("configId"), std::string::npos);
  }
}

// UDA-2-04, UDA-2-06, UDA-2-11
TEST(RenderAll, GivesEachDocumentOnceWithItsTypeAndTheSameConfigId) {
  const auto tree = sample::tree();
  const auto documents = render_all(tree);
  ASSERT_EQ(documents.size(), 4u);
  EXPECT_EQ(documents[0].path, "/desc.xml");
  EXPECT_EQ(documents[1].path, "/s0");
  EXPECT_EQ(documents[2].path, "/s1");
  EXPECT_EQ(documents[3].path, "/icon.png");
  EXPECT_EQ(documents[3].content_type, "image/png");
  EXPECT_EQ(documents[3].body, "png");
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(documents[i].content_type, "text/xml; charset=\"utf-8\"");
    pugi::xml_document document;
    ASSERT_TRUE(document.load_string(documents[i].body.c_str()));
    EXPECT_EQ(document.document_element().attribute("configId").as_uint(), config_id(tree));
  }
}

// UDA-1.2-12, UDA-2-06
TEST(ConfigId, ChangesWithEveryDescriptionAndWithNothingElse) {
  const auto id = config_id(sample::tree());
  EXPECT_LE(id, 16777215u);
  EXPECT_EQ(config_id(sample::tree()), id);
  // A number of this very tree: another one here means that a restart with a new version of the program, and
  // nothing else, changes every gateway's CONFIGID.
  EXPECT_EQ(id, 6601599u);

  const auto changed = [&](auto change) {
    auto tree = sample::tree();
    change(tree);
    return config_id(tree) != id;
  };
  EXPECT_TRUE(changed([](Tree& tree) { tree.root.friendly_name = "Other"; }));
  EXPECT_TRUE(changed([](Tree& tree) { tree.root.version = 2; }));
  EXPECT_TRUE(changed([](Tree& tree) { tree.root.presentation_url.clear(); }));
  EXPECT_TRUE(changed([](Tree& tree) { tree.root.devices[0].services[0].control_path = "/c9"; }));
  EXPECT_TRUE(changed([](Tree& tree) { tree.root.devices[0].services.clear(); }));
  EXPECT_TRUE(changed([](Tree& tree) { tree.uda_minor = 0; }));

  auto table = sample::lamp;
  const auto with_table = [&] {
    return changed([&](Tree& tree) { tree.root.devices[0].services[0].table = &table; });
  };
  EXPECT_FALSE(with_table()) << "an equal table";
  table.actions = table.actions.first(1);
  EXPECT_TRUE(with_table()) << "only a service description changes";
  table = sample::lamp;
  table.variables = table.variables.first(3);
  EXPECT_TRUE(with_table());
}

TEST(AllDevices, GoesThroughTheTreeInTheOrderOfTheDocument) {
  const auto tree = sample::tree();
  const auto devices = all_devices(tree);
  ASSERT_EQ(devices.size(), 2u);
  EXPECT_EQ(devices[0], &tree.root);
  EXPECT_EQ(devices[1], &tree.root.devices[0]);
}

}  // namespace
}  // namespace sallyport::upnp::description
