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

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

// C, because what a lease time is in the structures above depends on a macro that only C compilers define.

static bool same(const char* a, const char* b) { return strcmp(a, b) == 0; }

static int usage(void) {
  fputs(
      "usage: libminiupnpc_map INTERFACE find|add|any|list|range|delete [tcp|udp EXTERNAL [INTERNAL "
      "SECONDS]]\n",
      stderr);
  return 2;
}

static int refused(int code) {
  printf("error %d\n", code);
  return 3;
}

static const char* wire_name(const char* protocol) { return same(protocol, "udp") ? "UDP" : "TCP"; }

static void entry(const char* protocol, const char* external, const char* client, const char* internal,
                  const char* seconds, const char* description) {
  printf("entry %s %s %s:%s %s %s\n", same(protocol, "UDP") ? "udp" : "tcp", external, client, internal,
         seconds, description);
}

static int list(const char* control, const char* type) {
  for (unsigned at = 0;; ++at) {
    char number[12], external[6] = "", client[16] = "", internal[6] = "", protocol[4] = "",
                     description[80] = "";
    char enabled[4] = "", remote[64] = "", seconds[16] = "";
    snprintf(number, sizeof number, "%u", at);
    const int code = UPNP_GetGenericPortMappingEntry(control, type, number, external, client, internal,
                                                     protocol, description, enabled, remote, seconds);
    if (code == 713) return 0;
    if (code != UPNPCOMMAND_SUCCESS) return refused(code);
    entry(protocol, external, client, internal, seconds, description);
  }
}

static int range(const char* control, const char* type) {
  static const char* const protocols[] = {"TCP", "UDP"};
  for (int k = 0; k < 2; ++k) {
    struct PortMappingParserData rows;
    memset(&rows, 0, sizeof rows);
    const int code = UPNP_GetListOfPortMappings(control, type, "0", "65535", protocols[k], "0", &rows);
    if (code != UPNPCOMMAND_SUCCESS && code != 730) return refused(code);
    for (const struct PortMapping* row = rows.l_head; row; row = row->l_next) {
      char external[6], internal[6], seconds[24];
      snprintf(external, sizeof external, "%hu", row->externalPort);
      snprintf(internal, sizeof internal, "%hu", row->internalPort);
      snprintf(seconds, sizeof seconds, "%llu", (unsigned long long)row->leaseTime);
      entry(row->protocol, external, row->internalClient, internal, seconds, row->description);
    }
    FreePortListing(&rows);
  }
  return 0;
}

static int act(int argc, char** argv, const char* control, const char* type, const char* own) {
  const char* what = argv[2];
  if (same(what, "find")) return 0;
  if (same(what, "list")) return list(control, type);
  if (same(what, "range")) return range(control, type);
  if (same(what, "delete") && argc == 5) {
    const int code = UPNP_DeletePortMapping(control, type, argv[4], wire_name(argv[3]), NULL);
    if (code != UPNPCOMMAND_SUCCESS) return refused(code);
    printf("deleted %s\n", argv[4]);
    return 0;
  }
  if (argc != 7) return usage();
  if (same(what, "add")) {
    const int code = UPNP_AddPortMapping(control, type, argv[4], argv[5], own, "libminiupnpc program",
                                         wire_name(argv[3]), NULL, argv[6]);
    if (code != UPNPCOMMAND_SUCCESS) return refused(code);
    printf("mapped %s\n", argv[4]);
    return 0;
  }
  if (same(what, "any")) {
    char reserved[6] = "";
    const int code = UPNP_AddAnyPortMapping(control, type, argv[4], argv[5], own, "libminiupnpc program",
                                            wire_name(argv[3]), NULL, argv[6], reserved);
    if (code != UPNPCOMMAND_SUCCESS) return refused(code);
    printf("mapped %s\n", reserved);
    return 0;
  }
  return usage();
}

int main(int argc, char** argv) {
  if (argc < 3) return usage();
  int error = 0;
  struct UPNPDev* devices = upnpDiscover(2000, argv[1], NULL, UPNP_LOCAL_PORT_ANY, 0, 2, &error);
  if (!devices) {
    fprintf(stderr, "nothing answers on %s (%d)\n", argv[1], error);
    return 1;
  }
  struct UPNPUrls urls;
  struct IGDdatas data;
  memset(&urls, 0, sizeof urls);
  char own[64] = "", external[40] = "-";
  const int kind = UPNP_GetValidIGD(devices, &urls, &data, own, sizeof own);
  freeUPNPDevlist(devices);
  if (kind != 1) {
    fprintf(stderr, "no connected gateway among the devices (%d)\n", kind);
    return 1;
  }
  UPNP_GetExternalIPAddress(urls.controlURL, data.first.servicetype, external);
  printf("gateway %s own %s external %s\n", urls.rootdescURL, own, external);
  const int code = act(argc, argv, urls.controlURL, data.first.servicetype, own);
  FreeUPNPUrls(&urls);
  return code;
}
