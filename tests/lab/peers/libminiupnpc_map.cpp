// A client on libminiupnpc, the library of most programs that open ports by UPnP: finds the gateway, and
// adds, lists or deletes mappings the way such a program does. Its view of UPnP is not ours.
//
//   libminiupnpc_map INTERFACE find
//   libminiupnpc_map INTERFACE add tcp|udp EXTERNAL INTERNAL SECONDS
//   libminiupnpc_map INTERFACE any tcp|udp EXTERNAL INTERNAL SECONDS
//   libminiupnpc_map INTERFACE list | range
//   libminiupnpc_map INTERFACE delete tcp|udp EXTERNAL
//
// stdout: `gateway ROOT-URL own ADDRESS external ADDRESS` first; then `mapped EXTERNAL`, `deleted EXTERNAL`,
// or a line `entry tcp|udp EXTERNAL ADDRESS:INTERNAL SECONDS DESCRIPTION` for each mapping (`list` goes by
// index, `range` asks for all at once). What the gateway refused is `error CODE` with exit code 3. Other exit
// codes: 1 no gateway; 2 usage.

#include <miniupnpc/miniupnpc.h>
#include <miniupnpc/portlistingparse.h>
#include <miniupnpc/upnpcommands.h>

#include <cstdio>
#include <cstring>
#include <string_view>

namespace {

using std::string_view;

int usage() {
  std::fputs(
      "usage: libminiupnpc_map INTERFACE find|add|any|list|range|delete [tcp|udp EXTERNAL [INTERNAL "
      "SECONDS]]\n",
      stderr);
  return 2;
}

int refused(int code) {
  std::printf("error %d\n", code);
  return 3;
}

const char* wire_name(const char* protocol) { return string_view{protocol} == "udp" ? "UDP" : "TCP"; }

void entry(const char* protocol, const char* external, const char* client, const char* internal,
           const char* seconds, const char* description) {
  std::printf("entry %s %s %s:%s %s %s\n", string_view{protocol} == "UDP" ? "udp" : "tcp", external, client,
              internal, seconds, description);
}

int list(const char* control, const char* type) {
  for (unsigned at = 0;; ++at) {
    char number[12], external[6] = "", client[16] = "", internal[6] = "", protocol[4] = "",
                     description[80] = "";
    char enabled[4] = "", remote[64] = "", seconds[16] = "";
    std::snprintf(number, sizeof number, "%u", at);
    const int code = UPNP_GetGenericPortMappingEntry(control, type, number, external, client, internal,
                                                     protocol, description, enabled, remote, seconds);
    if (code == 713) return 0;
    if (code != UPNPCOMMAND_SUCCESS) return refused(code);
    entry(protocol, external, client, internal, seconds, description);
  }
}

int range(const char* control, const char* type) {
  for (const char* protocol : {"TCP", "UDP"}) {
    PortMappingParserData rows{};
    const int code = UPNP_GetListOfPortMappings(control, type, "0", "65535", protocol, "0", &rows);
    if (code != UPNPCOMMAND_SUCCESS && code != 730) return refused(code);
    for (const PortMapping* row = rows.l_head; row; row = row->l_next) {
      char external[6], internal[6], seconds[24];
      std::snprintf(external, sizeof external, "%hu", row->externalPort);
      std::snprintf(internal, sizeof internal, "%hu", row->internalPort);
      std::snprintf(seconds, sizeof seconds, "%llu", static_cast<unsigned long long>(row->leaseTime));
      entry(row->protocol, external, row->internalClient, internal, seconds, row->description);
    }
    FreePortListing(&rows);
  }
  return 0;
}

int act(int argc, char** argv, const char* control, const char* type, const char* own) {
  const string_view what = argv[2];
  if (what == "find") return 0;
  if (what == "list") return list(control, type);
  if (what == "range") return range(control, type);
  if (what == "delete" && argc == 5) {
    const int code = UPNP_DeletePortMapping(control, type, argv[4], wire_name(argv[3]), nullptr);
    if (code != UPNPCOMMAND_SUCCESS) return refused(code);
    std::printf("deleted %s\n", argv[4]);
    return 0;
  }
  if (argc != 7) return usage();
  if (what == "add") {
    const int code = UPNP_AddPortMapping(control, type, argv[4], argv[5], own, "libminiupnpc program",
                                         wire_name(argv[3]), nullptr, argv[6]);
    if (code != UPNPCOMMAND_SUCCESS) return refused(code);
    std::printf("mapped %s\n", argv[4]);
    return 0;
  }
  if (what == "any") {
    char reserved[6] = "";
    const int code = UPNP_AddAnyPortMapping(control, type, argv[4], argv[5], own, "libminiupnpc program",
                                            wire_name(argv[3]), nullptr, argv[6], reserved);
    if (code != UPNPCOMMAND_SUCCESS) return refused(code);
    std::printf("mapped %s\n", reserved);
    return 0;
  }
  return usage();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return usage();
  int error = 0;
  UPNPDev* devices = upnpDiscover(2000, argv[1], nullptr, UPNP_LOCAL_PORT_ANY, 0, 2, &error);
  if (!devices) {
    std::fprintf(stderr, "nothing answers on %s (%d)\n", argv[1], error);
    return 1;
  }
  UPNPUrls urls{};
  IGDdatas data{};
  char own[64] = "", external[40] = "-";
  const int kind = UPNP_GetValidIGD(devices, &urls, &data, own, sizeof own);
  freeUPNPDevlist(devices);
  if (kind != 1) {
    std::fprintf(stderr, "no connected gateway among the devices (%d)\n", kind);
    return 1;
  }
  UPNP_GetExternalIPAddress(urls.controlURL, data.first.servicetype, external);
  std::printf("gateway %s own %s external %s\n", urls.rootdescURL, own, external);
  const int code = act(argc, argv, urls.controlURL, data.first.servicetype, own);
  FreeUPNPUrls(&urls);
  return code;
}
