// A control point on libupnp (the Portable SDK): finds the gateway on one interface, subscribes to its
// WANIPConnection, prints each event, and does what it reads on stdin. Its view of UPnP is not ours.
//
//   libupnp_control_point INTERFACE
//
// stdin, a command a line        stdout, a line each
//                                found LOCATION
//                                service TYPE
//                                subscribed SID SECONDS
//                                event NUMBER NAME=VALUE     one for each variable of an event
//                                alive NT / byebye NT        advertisements of the gateway
//   add tcp|udp PORT ADDRESS     added PORT | error CODE TEXT
//   delete tcp|udp PORT          deleted PORT | error CODE TEXT
//   ask ACTION                   answer NAME=VALUE ... | error CODE TEXT
//   renew                        subscribed SID SECONDS | error CODE TEXT
//   quit (or the end of stdin)   unsubscribed
// Exit codes: 0; 1 no gateway was found or it refused the subscription; 2 usage.

#include <upnp.h>
#include <upnptools.h>

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

constexpr std::string_view gateway_type = "urn:schemas-upnp-org:device:InternetGatewayDevice:";
constexpr std::string_view service_prefix = "urn:schemas-upnp-org:service:WANIPConnection:";

struct FreeDocument {
  void operator()(IXML_Document* document) const { ixmlDocument_free(document); }
};
using Document = std::unique_ptr<IXML_Document, FreeDocument>;

struct Service {
  std::string type;
  std::string control;
  std::string events;
};

std::mutex lock;
std::condition_variable changed;
std::vector<std::string> locations;

void print(const std::string& line) {
  const std::scoped_lock held{lock};
  std::fputs((line + "\n").c_str(), stdout);
  std::fflush(stdout);
}

std::string text_of(IXML_Node* node) {
  std::string out;
  for (IXML_Node* child = ixmlNode_getFirstChild(node); child; child = ixmlNode_getNextSibling(child))
    if (ixmlNode_getNodeType(child) == eTEXT_NODE || ixmlNode_getNodeType(child) == eCDATA_SECTION_NODE)
      out += ixmlNode_getNodeValue(child) ? ixmlNode_getNodeValue(child) : "";
  return out;
}

std::string_view local_name(IXML_Node* node) {
  const std::string_view name = ixmlNode_getNodeName(node) ? ixmlNode_getNodeName(node) : "";
  const auto colon = name.rfind(':');
  return colon == std::string_view::npos ? name : name.substr(colon + 1);
}

template <class Visit>
void walk(IXML_Node* node, const Visit& visit) {
  for (; node; node = ixmlNode_getNextSibling(node)) {
    if (ixmlNode_getNodeType(node) == eELEMENT_NODE) visit(node);
    walk(ixmlNode_getFirstChild(node), visit);
  }
}

int on_event(Upnp_EventType kind, const void* what, void*) {
  switch (kind) {
    case UPNP_DISCOVERY_SEARCH_RESULT:
    case UPNP_DISCOVERY_ADVERTISEMENT_ALIVE:
    case UPNP_DISCOVERY_ADVERTISEMENT_BYEBYE: {
      const auto* found = static_cast<const UpnpDiscovery*>(what);
      const std::string type = UpnpDiscovery_get_DeviceType_cstr(found);
      if (type.rfind(gateway_type, 0) != 0) break;
      if (kind != UPNP_DISCOVERY_SEARCH_RESULT)
        print((kind == UPNP_DISCOVERY_ADVERTISEMENT_ALIVE ? "alive " : "byebye ") + type);
      if (kind == UPNP_DISCOVERY_ADVERTISEMENT_BYEBYE) break;
      const std::scoped_lock held{lock};
      locations.emplace_back(UpnpDiscovery_get_Location_cstr(found));
      changed.notify_all();
      break;
    }
    case UPNP_EVENT_RECEIVED: {
      const auto* event = static_cast<const UpnpEvent*>(what);
      const std::string number = std::to_string(UpnpEvent_get_EventKey(event));
      walk(ixmlNode_getFirstChild(reinterpret_cast<IXML_Node*>(UpnpEvent_get_ChangedVariables(event))),
           [&](IXML_Node* node) {
             if (local_name(node) == "propertyset" || local_name(node) == "property") return;
             print("event " + number + " " + std::string{local_name(node)} + "=" + text_of(node));
           });
      break;
    }
    case UPNP_EVENT_AUTORENEWAL_FAILED:
      print("renewal failed");
      break;
    case UPNP_EVENT_SUBSCRIPTION_EXPIRED:
      print("subscription expired");
      break;
    default:
      break;
  }
  return 0;
}

std::string resolved(const std::string& base, const std::string& relative) {
  char* whole = nullptr;
  if (UpnpResolveURL2(base.c_str(), relative.c_str(), &whole) != UPNP_E_SUCCESS || !whole) return {};
  std::string out = whole;
  std::free(whole);
  return out;
}

bool describe(const std::string& location, Service& service) {
  IXML_Document* raw = nullptr;
  if (UpnpDownloadXmlDoc(location.c_str(), &raw) != UPNP_E_SUCCESS) return false;
  const Document document{raw};
  std::string base = location;
  walk(ixmlNode_getFirstChild(&document->n), [&](IXML_Node* node) {
    if (local_name(node) == "URLBase" && !text_of(node).empty()) base = text_of(node);
    if (local_name(node) != "service" || !service.type.empty()) return;
    Service one;
    for (IXML_Node* child = ixmlNode_getFirstChild(node); child; child = ixmlNode_getNextSibling(child)) {
      if (local_name(child) == "serviceType") one.type = text_of(child);
      if (local_name(child) == "controlURL") one.control = resolved(base, text_of(child));
      if (local_name(child) == "eventSubURL") one.events = resolved(base, text_of(child));
    }
    if (one.type.rfind(service_prefix, 0) == 0) service = one;
  });
  return !service.type.empty();
}

/// Prints how it ended; `done` is what a success is called.
void act(UpnpClient_Handle client, const Service& service, const std::string& action,
         const std::vector<std::pair<std::string, std::string>>& arguments, const std::string& done) {
  IXML_Document* raw = nullptr;
  if (arguments.empty()) raw = UpnpMakeAction(action.c_str(), service.type.c_str(), 0, nullptr);
  for (const auto& [name, value] : arguments)
    UpnpAddToAction(&raw, action.c_str(), service.type.c_str(), name.c_str(), value.c_str());
  const Document request{raw};
  IXML_Document* answered = nullptr;
  const int code = UpnpSendAction(client, service.control.c_str(), service.type.c_str(), nullptr,
                                  request.get(), &answered);
  const Document answer{answered};
  if (code != UPNP_E_SUCCESS) {  // above 0: of the gateway; below: of the library
    print("error " + std::to_string(code) + " " + UpnpGetErrorMessage(code));
    return;
  }
  std::string line = done;
  if (done == "answer")
    walk(ixmlNode_getFirstChild(&answer->n), [&](IXML_Node* node) {
      if (local_name(node).rfind("New", 0) == 0)
        line += " " + std::string{local_name(node)} + "=" + text_of(node);
    });
  print(line);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: libupnp_control_point INTERFACE\n", stderr);
    return 2;
  }
  if (const int code = UpnpInit2(argv[1], 0); code != UPNP_E_SUCCESS) {
    std::fprintf(stderr, "libupnp does not start on %s: %s\n", argv[1], UpnpGetErrorMessage(code));
    return 1;
  }
  UpnpClient_Handle client = -1;
  UpnpRegisterClient(&on_event, nullptr, &client);
  const auto finish = [&](int code) {
    UpnpUnRegisterClient(client);
    UpnpFinish();
    return code;
  };

  std::string location;
  Service service;
  for (int attempt = 0; attempt < 3 && service.type.empty(); ++attempt) {
    UpnpSearchAsync(client, 1, "urn:schemas-upnp-org:device:InternetGatewayDevice:1", nullptr);
    std::unique_lock held{lock};
    if (!changed.wait_for(held, std::chrono::seconds{4}, [] { return !locations.empty(); })) continue;
    location = std::exchange(locations, {}).back();
    held.unlock();
    describe(location, service);
  }
  if (service.type.empty()) {
    std::fputs("no gateway was found\n", stderr);
    return finish(1);
  }
  print("found " + location);
  print("service " + service.type);

  int seconds = 1800;
  Upnp_SID sid{};
  if (const int code = UpnpSubscribe(client, service.events.c_str(), &seconds, sid); code != UPNP_E_SUCCESS) {
    std::fprintf(stderr, "the subscription failed: %s\n", UpnpGetErrorMessage(code));
    return finish(1);
  }
  print(std::string{"subscribed "} + sid + " " + std::to_string(seconds));

  for (std::string line; std::getline(std::cin, line) && line != "quit";) {
    std::istringstream in{line};
    std::string verb, protocol, port, address;
    in >> verb;
    if (verb == "ask") {
      in >> verb;
      act(client, service, verb, {}, "answer");
      continue;
    }
    if (verb == "renew") {
      if (const int code = UpnpRenewSubscription(client, &seconds, sid); code != UPNP_E_SUCCESS)
        print("error " + std::to_string(code) + " " + UpnpGetErrorMessage(code));
      else
        print(std::string{"subscribed "} + sid + " " + std::to_string(seconds));
      continue;
    }
    in >> protocol >> port >> address;
    const std::string wire_name = protocol == "udp" ? "UDP" : "TCP";
    if (verb == "add")
      act(client, service, "AddPortMapping",
          {{"NewRemoteHost", ""},
           {"NewExternalPort", port},
           {"NewProtocol", wire_name},
           {"NewInternalPort", port},
           {"NewInternalClient", address},
           {"NewEnabled", "1"},
           {"NewPortMappingDescription", "libupnp"},
           {"NewLeaseDuration", "3600"}},
          "added " + port);
    else if (verb == "delete")
      act(client, service, "DeletePortMapping",
          {{"NewRemoteHost", ""}, {"NewExternalPort", port}, {"NewProtocol", wire_name}}, "deleted " + port);
    else
      print("error 0 unknown command");
  }
  print(UpnpUnSubscribe(client, sid) == UPNP_E_SUCCESS ? "unsubscribed" : "error 0 not unsubscribed");
  return finish(0);
}
