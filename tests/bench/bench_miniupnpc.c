// The same through libminiupnpc, as its users do it: discovery, then one mapping after the other.
//
//   bench_miniupnpc INTERFACE COUNT FIRST-PORT DISCOVERY-MS
//
// stdout: one JSON object, milliseconds from the call of upnpDiscover(); `at` as bench_clients has it. What
// was mapped is deleted again. Exit codes: 0; 1 no gateway; 2 usage; 3 refused.

#include <miniupnpc/miniupnpc.h>
#include <miniupnpc/upnpcommands.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void) {
  struct timespec at;
  clock_gettime(CLOCK_MONOTONIC, &at);
  return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

int main(int argc, char** argv) {
  if (argc != 5) {
    fputs("usage: bench_miniupnpc INTERFACE COUNT FIRST-PORT DISCOVERY-MS\n", stderr);
    return 2;
  }
  const int count = atoi(argv[2]), first_port = atoi(argv[3]);
  const double begun = now();
  int error = 0;
  struct UPNPDev* devices = upnpDiscover(atoi(argv[4]), argv[1], NULL, UPNP_LOCAL_PORT_ANY, 0, 2, &error);
  struct UPNPUrls urls;
  struct IGDdatas data;
  memset(&urls, 0, sizeof urls);
  char own[64] = "";
  const int kind = devices ? UPNP_GetValidIGD(devices, &urls, &data, own, sizeof own) : 0;
  freeUPNPDevlist(devices);
  if (kind != 1) {
    printf("{\"error\":\"no gateway\",\"all_ms\":%.3f}\n", 1e3 * (now() - begun));
    return 1;
  }
  const double found = now();
  double first = 0;
  for (int i = 0; i < count; ++i) {
    char port[8];
    snprintf(port, sizeof port, "%d", first_port + i);
    const int code = UPNP_AddPortMapping(urls.controlURL, data.first.servicetype, port, port, own, "bench",
                                         i % 2 == 0 ? "TCP" : "UDP", NULL, "7200");
    if (code != UPNPCOMMAND_SUCCESS) {
      printf("{\"error\":\"%d\",\"all_ms\":%.3f}\n", code, 1e3 * (now() - begun));
      return 3;
    }
    if (i == 0) first = now();
  }
  const double all = now();
  printf("{\"at\":%.6f,\"found_ms\":%.3f,\"first_ms\":%.3f,\"all_ms\":%.3f}\n", all, 1e3 * (found - begun),
         1e3 * (first - begun), 1e3 * (all - begun));
  for (int i = 0; i < count; ++i) {
    char port[8];
    snprintf(port, sizeof port, "%d", first_port + i);
    UPNP_DeletePortMapping(urls.controlURL, data.first.servicetype, port, i % 2 == 0 ? "TCP" : "UDP", NULL);
  }
  FreeUPNPUrls(&urls);
  return 0;
}
