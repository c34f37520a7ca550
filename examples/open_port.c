/* Opens a port by the C interface and keeps it open until a signal comes: open_port_c [tcp|udp] PORT. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sallyport/sallyport.h"

static volatile sig_atomic_t ending;
static void end(int number) { ending = number; }

int main(int count, char **words) {
  sallyport_request request = SALLYPORT_REQUEST_INIT;
  sallyport_event event = SALLYPORT_EVENT_INIT;
  sallyport_grant grant;
  sallyport_client *client;
  sallyport_port *port;
  sallyport_error error;

  if (count < 2 || count > 3) {
    fprintf(stderr, "usage: open_port_c [tcp|udp] PORT\n");
    return 2;
  }
  if (strcmp(words[1], "udp") == 0) request.protocol = SALLYPORT_UDP;
  request.internal_port = (uint16_t)strtoul(words[count - 1], NULL, 10);
  request.description = "an example in C";
  signal(SIGINT, end);
  signal(SIGTERM, end);

  client = sallyport_client_new(NULL, &error);
  if (client == NULL || (error = sallyport_open(client, &request, &port)) != SALLYPORT_OK) {
    fprintf(stderr, "%s: %s\n", sallyport_error_text(error), sallyport_detail());
    sallyport_client_free(client);
    return 2;
  }
  error = sallyport_port_wait_open(port, 10000, &grant);
  if (error == SALLYPORT_OK) {
    printf("open at %s port %u\n", grant.external_address, (unsigned)grant.external_port);
  } else {
    printf("not open: %s\n", sallyport_error_text(error));
  }
  fflush(stdout);
  while (error == SALLYPORT_OK && !ending) {
    const sallyport_error got = sallyport_port_next_event(port, 200, &event);
    if (got == SALLYPORT_OK) printf("%s\n", event.text);
    if (got == SALLYPORT_CLOSED) break;
    fflush(stdout);
  }
  if (error == SALLYPORT_OK && sallyport_port_close(port, 5000) == SALLYPORT_OK) printf("closed\n");
  sallyport_port_free(port);
  sallyport_client_free(client);
  return error == SALLYPORT_OK ? 0 : 1;
}
