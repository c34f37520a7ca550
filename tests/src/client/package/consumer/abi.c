/* The interface for C in a network namespace without any network: what it answers, and that nothing wedges. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sallyport/sallyport.h"

#define CHECK(holds)                                            \
  do {                                                          \
    if (!(holds)) {                                             \
      printf("line %d: not so: %s (%s)\n", __LINE__, #holds, sallyport_detail()); \
      exit(1);                                                  \
    }                                                           \
  } while (0)

/* As a program has it that was built for a newer library. */
struct newer_request {
  sallyport_request request;
  long future;
};

static int calls, last_kind = -1;
static sallyport_error in_callback;

static void on_event(sallyport_port *port, const sallyport_event *event, void *user) {
  ++calls;
  last_kind = event->kind;
  in_callback = sallyport_port_close(port, 1000);
  write(*(int *)user, "!", 1);
}

static sallyport_request request_for(uint16_t port) {
  sallyport_request request = SALLYPORT_REQUEST_INIT;
  request.internal_port = port;
  return request;
}

static void bad_arguments(sallyport_client *client) {
  sallyport_request request = SALLYPORT_REQUEST_INIT;
  sallyport_options options = SALLYPORT_OPTIONS_INIT;
  sallyport_port *port = NULL;
  sallyport_error error;
  struct newer_request newer;
  const char *const words[] = {"192.0.2.1", "foo"};

  CHECK(sallyport_open(client, &request, &port) == SALLYPORT_BAD_ARGUMENT);
  CHECK(strcmp(sallyport_detail(), "internal_port takes a port, 1 to 65535") == 0);
  CHECK(sallyport_open(client, NULL, &port) == SALLYPORT_BAD_ARGUMENT);
  CHECK(sallyport_open(NULL, &request, &port) == SALLYPORT_BAD_ARGUMENT);
  request = request_for(1);
  request.protocol = 1;
  CHECK(sallyport_open(client, &request, &port) == SALLYPORT_BAD_ARGUMENT);
  request = request_for(1);
  request.size = 3;
  CHECK(sallyport_open(client, &request, &port) == SALLYPORT_BAD_ARGUMENT);
  request = request_for(1);
  request.remotes = words;
  request.remote_count = 2;
  CHECK(sallyport_open(client, &request, &port) == SALLYPORT_BAD_ARGUMENT);
  CHECK(strcmp(sallyport_detail(), "remotes[1] takes ADDRESS or ADDRESS/LENGTH, not 'foo'") == 0);

  memset(&newer, 0, sizeof newer);
  newer.request = request_for(2);
  newer.request.size = sizeof newer;
  newer.future = 1;
  CHECK(sallyport_open(client, &newer.request, &port) == SALLYPORT_BAD_ARGUMENT);
  CHECK(port == NULL);
  newer.future = 0;
  CHECK(sallyport_open(client, &newer.request, &port) == SALLYPORT_OK);
  sallyport_port_free(port);

  options.gateways = words;
  options.gateway_count = 2;
  CHECK(sallyport_client_new(&options, &error) == NULL && error == SALLYPORT_BAD_ARGUMENT);
  CHECK(strcmp(sallyport_detail(), "gateways[1] takes an address, not 'foo'") == 0);
}

int main(void) {
  sallyport_client *client = sallyport_client_new(NULL, NULL);
  sallyport_request request = request_for(22000);
  sallyport_event event = SALLYPORT_EVENT_INIT;
  sallyport_port *port, *other;
  sallyport_grant grant;
  sallyport_error error;
  size_t count = 9;
  char *json = NULL, octet;
  int pipes[2], status;
  pid_t child;

  CHECK(client != NULL);
  CHECK(strlen(sallyport_version()) > 0);
  CHECK(strcmp(sallyport_error_word(SALLYPORT_NO_NETWORK), "no_network") == 0);
  CHECK(strlen(sallyport_error_text((sallyport_error)77)) > 0);
  bad_arguments(client);

  /* what becomes of a port without a network */
  CHECK(sallyport_open(client, &request, &port) == SALLYPORT_OK);
  error = sallyport_port_wait_open(port, 10000, &grant);
  CHECK(error == SALLYPORT_NO_NETWORK);
  printf("no gateway here: %s\n", sallyport_error_text(error));
  CHECK(sallyport_port_wait_open(port, 0, &grant) == SALLYPORT_TIMEOUT);
  CHECK(sallyport_port_grants(port, &grant, 1, &count) == SALLYPORT_OK && count == 0);
  CHECK(sallyport_port_next_event(port, 10000, &event) == SALLYPORT_OK);
  CHECK(event.kind == SALLYPORT_EVENT_REFUSED && event.reason == SALLYPORT_NO_NETWORK && !event.has_grant);
  CHECK(strlen(event.text) > 0);
  while ((error = sallyport_port_next_event(port, 100, &event)) == SALLYPORT_OK) {
  }
  CHECK(error == SALLYPORT_TIMEOUT);
  event.size = 8;
  CHECK(sallyport_port_next_event(port, 0, &event) == SALLYPORT_BAD_ARGUMENT);
  event.size = sizeof event;

  /* a child of fork() is told, and harms nothing */
  child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    if (sallyport_port_wait_open(port, -1, &grant) != SALLYPORT_FORKED) _exit(1);
    if (sallyport_open(client, &request, &other) != SALLYPORT_FORKED) _exit(2);
    sallyport_port_free(port);
    sallyport_client_free(client);
    client = sallyport_client_new(NULL, NULL);
    if (sallyport_open(client, &request, &port) != SALLYPORT_OK) _exit(3);
    if (sallyport_port_wait_open(port, 10000, &grant) != SALLYPORT_NO_NETWORK) _exit(4);
    sallyport_client_free(client);
    sallyport_port_free(port);
    _exit(0);
  }
  CHECK(waitpid(child, &status, 0) == child && status == 0);

  /* callbacks: what waited to be fetched comes first; nothing waits for itself */
  CHECK(pipe(pipes) == 0);
  request.internal_port = 22001;
  CHECK(sallyport_open(client, &request, &other) == SALLYPORT_OK);
  CHECK(sallyport_port_wait_open(other, 10000, NULL) == SALLYPORT_NO_NETWORK);
  CHECK(sallyport_port_on_event(other, on_event, &pipes[1]) == SALLYPORT_OK);
  CHECK(read(pipes[0], &octet, 1) == 1);
  CHECK(sallyport_port_on_event(other, NULL, NULL) == SALLYPORT_OK);
  CHECK(calls >= 1 && last_kind == SALLYPORT_EVENT_REFUSED);
  CHECK(in_callback == SALLYPORT_WRONG_THREAD);
  sallyport_port_free(other);

  CHECK(sallyport_list_gateways_json(client, 0, &json) == SALLYPORT_TIMEOUT && json == NULL);
  CHECK(sallyport_list_gateways_json(client, 10000, &json) == SALLYPORT_OK);
  CHECK(strcmp(json, "[]") == 0);
  sallyport_free(json);

  CHECK(sallyport_netcheck_json(client, NULL, 20000, &json) == SALLYPORT_OK);
  CHECK(strstr(json, "\"verdict\":\"no_network\"") != NULL);
  sallyport_free(json);

  CHECK(sallyport_port_close(port, 5000) == SALLYPORT_OK);
  CHECK(sallyport_port_close(port, 5000) == SALLYPORT_CLOSED);
  CHECK(sallyport_port_wait_open(port, 1000, NULL) == SALLYPORT_CLOSED);
  while ((error = sallyport_port_next_event(port, 5000, &event)) == SALLYPORT_OK) {
  }
  CHECK(error == SALLYPORT_CLOSED);

  /* the client may go first */
  CHECK(sallyport_open(client, &request, &other) == SALLYPORT_OK);
  sallyport_client_free(client);
  CHECK(sallyport_port_wait_open(other, -1, NULL) == SALLYPORT_CLOSED);
  CHECK(sallyport_port_on_event(other, on_event, &pipes[1]) == SALLYPORT_OK);
  sallyport_port_free(other);
  sallyport_port_free(port);
  sallyport_port_free(NULL);
  sallyport_client_free(NULL);
  printf("ok\n");
  return 0;
}
