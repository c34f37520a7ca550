#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "protocols/upnp/description/device.hpp"

/// A small tree with one of everything a description can have.
namespace sallyport::test::sample {

namespace description = upnp::description;

inline constexpr std::string_view colours[] = {"Red", "Green"};
inline constexpr description::StateVariable variables[] = {
    {"Colour", description::DataType::string, true, colours, {}, "Red"},
    {"Level", description::DataType::ui2, false, {}, std::pair<std::uint32_t, std::uint32_t>{1, 9}, "3"},
    {"Lit", description::DataType::boolean},
    {"Count", description::DataType::ui4, true}};
inline constexpr description::Argument paint[] = {{"NewColour", description::Direction::in, "Colour"},
                                                  {"NewLevel", description::Direction::in, "Level"},
                                                  {"Count", description::Direction::out, "Count"}};
inline constexpr description::Action actions[] = {{"Paint", paint}, {"Rest"}};
inline constexpr description::ServiceTable lamp{"urn:schemas-upnp-org:service:Lamp", 2,
                                                "urn:upnp-org:serviceId:Lamp1", actions, variables};

inline description::Device device(std::string type, std::string udn) {
  description::Device made;
  made.type = "urn:schemas-upnp-org:device:" + std::move(type);
  made.friendly_name = "Lamp <of> \"Ann & Bob's\"";
  made.manufacturer = "Maker";
  made.model_name = "Model";
  made.udn = std::move(udn);
  return made;
}

inline description::Tree tree() {
  description::Tree made;
  made.description_path = "/desc.xml";
  made.root = device("House", "uuid:00112233-4455-4677-8899-aabbccddeeff");
  made.root.manufacturer_url = "http://192.0.2.1/?a=1&b=2";
  made.root.model_description = "Describes";
  made.root.model_number = "1";
  made.root.model_url = "/model";
  made.root.serial_number = "7";
  made.root.icons.push_back({"/icon.png", 16, 8, "png"});
  made.root.services.push_back({&lamp, "/s0", "/c0", "/e0"});
  made.root.presentation_url = "/";
  made.root.devices.push_back(device("Room", "uuid:00112233-4455-4677-8899-aabbccddeefe"));
  made.root.devices[0].services.push_back({&lamp, "/s1", "/c1", "/e1"});
  return made;
}

}  // namespace sallyport::test::sample
