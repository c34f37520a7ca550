#ifndef SALLYPORT_SALLYPORT_H
#define SALLYPORT_SALLYPORT_H

/**
 * @file
 * Opens ports of this host at whatever gateway the network has (PCP, NAT-PMP, UPnP), and keeps them open: the
 * library's interface for C and for all languages that can call C. C++ programs have sallyport/client/client.hpp.
 *
 *     sallyport_client *client = sallyport_client_new(NULL, NULL);
 *     sallyport_request request = SALLYPORT_REQUEST_INIT;
 *     request.internal_port = 22000;
 *     sallyport_port *port;
 *     sallyport_grant grant;
 *     if (sallyport_open(client, &request, &port) == SALLYPORT_OK &&
 *         sallyport_port_wait_open(port, 5000, &grant) == SALLYPORT_OK)
 *       printf("%s:%u\n", grant.external_address, (unsigned)grant.external_port);
 *
 * Threads. A client has one thread of its own, which blocks all signals and does all the work, callbacks too. Every
 * function may be called from any thread; one port may be used by several at once, but not while it is freed.
 * Functions that wait give SALLYPORT_WRONG_THREAD in a callback: the thread would wait for itself.
 *
 * Ownership. What a function takes is copied before it returns. What it gives belongs to the caller and goes back by
 * the function named there. Ports and their client may be freed in any order.
 *
 * Time limits. `timeout_ms` 0 looks and does not wait, a negative one waits without limit.
 *
 * fork(). The child has no such thread. There, every call on a client or port from before the fork gives
 * SALLYPORT_FORKED and sends nothing, and freeing one frees nothing; make a new client. exec() closes all descriptors.
 *
 * Versions. The structs that a program fills begin with their size, set by the *_INIT macros, and may grow; programs
 * built for an older library go on working. sallyport_grant has room in reserve and does not grow.
 */

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** "0.1.0": of the library that runs, which may be newer than this header. Static; any thread. */
const char *sallyport_version(void);

/** Why the world cannot reach a port, or why a call ended without what it was for. New ones may be added. */
typedef enum sallyport_error {
  SALLYPORT_OK = 0,
  SALLYPORT_NO_NETWORK = 1,          /**< no interface of this host leads anywhere */
  SALLYPORT_NO_GATEWAY = 2,          /**< nothing on the network answers to PCP, NAT-PMP or UPnP */
  SALLYPORT_NO_ANSWER = 3,           /**< the gateway was there and does not answer any more; asking goes on */
  SALLYPORT_NOT_AUTHORIZED = 4,      /**< the gateway's owner does not let this host have this port */
  SALLYPORT_NO_RESOURCES = 5,        /**< the gateway has no room, or this host has its share */
  SALLYPORT_PORT_TAKEN = 6,          /**< the external port asked for is another's, and only it would do */
  SALLYPORT_NO_EXTERNAL_ADDRESS = 7, /**< the gateway itself has no address outside now */
  SALLYPORT_BEHIND_OTHER_NAT = 8,    /**< another NAT lies between this host and the gateway that answers */
  SALLYPORT_NOT_POSSIBLE = 9,        /**< the gateway cannot do what was asked for */
  SALLYPORT_NONSENSE = 10,           /**< the gateway answers what its protocol does not allow */
  SALLYPORT_REVOKED = 11,            /**< the gateway took the mapping back: its administrator's doing */
  SALLYPORT_NETWORK_CHANGED = 12,    /**< the interface or address that the mapping was for has gone */
  SALLYPORT_CLOSED = 13,             /**< the port, or its client, was closed */
  SALLYPORT_BUSY = 14,               /**< the same is being waited for already */
  SALLYPORT_BAD_REQUEST = 15,        /**< the request contradicts itself */
  /* of this interface alone */
  SALLYPORT_TIMEOUT = 100,      /**< the caller's time limit came first */
  SALLYPORT_BAD_ARGUMENT = 101, /**< sallyport_detail() says which */
  SALLYPORT_NO_MEMORY = 102,    /**< no memory, or no thread */
  SALLYPORT_WRONG_THREAD = 103, /**< it would wait for the thread that calls it */
  SALLYPORT_FORKED = 104,       /**< the process has forked since; see above */
  SALLYPORT_OTHER = 105         /**< an error of the system */
} sallyport_error;

/** A sentence for people. Static; any thread; any number. */
const char *sallyport_error_text(sallyport_error error);
/** "no_gateway": the same for programs and logs. Static; any thread; any number. */
const char *sallyport_error_word(sallyport_error error);
/** What was wrong with the last call of this thread that gave SALLYPORT_BAD_ARGUMENT ("gateways[0] takes an address,
 *  not 'foo'"); until the thread's next such call. Never NULL. */
const char *sallyport_detail(void);

/** Frees the strings that this library gives away. NULL is allowed. */
void sallyport_free(void *string);

/* ---- client */

/** Knows the gateways of this host's networks, and keeps the ports. One for a program is enough. */
typedef struct sallyport_client sallyport_client;

typedef struct sallyport_options {
  size_t size;
  int pcp, natpmp, upnp;        /**< 0: do not ask by it */
  const char *const *gateways;  /**< addresses: ask these and no others; NULL: the default routers and who is found */
  size_t gateway_count;         /**< at most 64 */
  const char *const *interfaces; /**< names: only these; NULL: all that lead to a gateway */
  size_t interface_count;        /**< at most 64 */
  const char *state_file; /**< of this program, several runs of it too; lets it take its mappings over after a crash; NULL: none */
} sallyport_options;
#define SALLYPORT_OPTIONS_INIT {sizeof(sallyport_options), 1, 1, 1, NULL, 0, NULL, 0, NULL}

/** A client with a thread of its own. `options` NULL: as SALLYPORT_OPTIONS_INIT. `error` may be NULL.
 *  @return to be given to sallyport_client_free(); NULL: see `error` */
sallyport_client *sallyport_client_new(const sallyport_options *options, sallyport_error *error);

/** Gives back what its ports still hold, which takes at most some 3 s, and ends the thread. Who waits in another
 *  thread is told SALLYPORT_CLOSED, and so is every later call on its ports. In a callback it does not wait: the rest
 *  is done once the callback has returned. NULL is allowed. */
void sallyport_client_free(sallyport_client *client);

/** Who could open ports here: asks around for at most 2 s and makes no mapping. An array, `[]` when there is nobody:
 *      [{"address":"192.168.1.1","interface":"eth0","protocols":["pcp","upnp"],"name":null,"igd_version":2,
 *        "external_address":"203.0.113.4","firewall6":true,"epoch_s":5000}]
 *  @param json NUL-terminated UTF-8, to be given to sallyport_free(); untouched unless SALLYPORT_OK */
sallyport_error sallyport_list_gateways_json(sallyport_client *client, int timeout_ms, char **json);

/** The transport protocols that can be mapped, by their IANA numbers. */
enum { SALLYPORT_TCP = 6, SALLYPORT_UDP = 17 };

typedef struct sallyport_netcheck_options {
  size_t size;
  int protocol;            /**< SALLYPORT_TCP or SALLYPORT_UDP; a helper probes UDP only */
  uint16_t port;           /**< to be tried; 0: a free one */
  const char *helper;      /**< a STUN server of RFC 5780, by name or address; NULL: none */
  uint16_t helper_port;    /**< of that server */
  uint32_t patience_ms;    /**< for everything together */
} sallyport_netcheck_options;
#define SALLYPORT_NETCHECK_OPTIONS_INIT {sizeof(sallyport_netcheck_options), SALLYPORT_UDP, 0, NULL, 3478, 5000}

/** Whether the world can reach this host, and if not, why: one object; its fields are in src/client/netcheck/README.md.
 *  `options` NULL: as SALLYPORT_NETCHECK_OPTIONS_INIT.
 *  @param json as above */
sallyport_error sallyport_netcheck_json(sallyport_client *client, const sallyport_netcheck_options *options,
                                        int timeout_ms, char **json);

/* ---- ports */

/** One port that is kept open until it is closed, detached or freed. */
typedef struct sallyport_port sallyport_port;

typedef struct sallyport_request {
  size_t size;
  int protocol;            /**< SALLYPORT_TCP or SALLYPORT_UDP */
  uint16_t internal_port;  /**< where this host listens: to be set */
  uint16_t external_port;  /**< suggested; 0: the same number, or any other */
  int exact;               /**< not 0: only that external port, or none */
  uint32_t lifetime_s;     /**< asked for, 1 and up; renewed in time for as long as the port lives */
  const char *description; /**< UTF-8, shown to the gateway's owner; NULL: none */
  const char *const *remotes; /**< who may come in: addresses or prefixes ("198.51.100.0/24"); NULL: everybody */
  size_t remote_count;        /**< at most 64 */
  int ipv4;                   /**< not 0: a mapping on the gateway's external address */
  int ipv6;                   /**< not 0: a pinhole in its IPv6 firewall, where this host has a global address */
} sallyport_request;
#define SALLYPORT_REQUEST_INIT {sizeof(sallyport_request), SALLYPORT_TCP, 0, 0, 0, 7200, NULL, NULL, 0, 1, 1}

typedef enum sallyport_via { SALLYPORT_PCP, SALLYPORT_NATPMP, SALLYPORT_UPNP } sallyport_via;

/** A door that is open. Addresses are NUL-terminated text. */
typedef struct sallyport_grant {
  int via;                    /**< a sallyport_via */
  int family;                 /**< 4 or 6 */
  uint16_t internal_port;
  uint16_t external_port;
  uint32_t lifetime_s;        /**< as granted last; 0: permanent, until it is closed */
  char external_address[46];  /**< where the world finds it; "0.0.0.0" while the gateway tells none */
  char internal_address[46];  /**< of this host */
  char gateway[46];           /**< who granted it */
  char interface[16];         /**< of this host, that leads there */
  uint8_t reserved[86];       /**< 0 */
} sallyport_grant;

typedef enum sallyport_event_kind {
  SALLYPORT_EVENT_GRANTED, /**< the door is open */
  SALLYPORT_EVENT_RENEWED, /**< and stays so, at the same external endpoint */
  SALLYPORT_EVENT_CHANGED, /**< the door is open, but elsewhere: tell the world */
  SALLYPORT_EVENT_REVOKED, /**< the gateway took it back though it had lost nothing */
  SALLYPORT_EVENT_LOST,    /**< it is not open any more; asking goes on */
  SALLYPORT_EVENT_REFUSED, /**< it cannot be had now; asked again by itself */
  SALLYPORT_EVENT_CLOSED   /**< given back: the last one */
} sallyport_event_kind;

typedef struct sallyport_event {
  size_t size;
  int kind;               /**< a sallyport_event_kind; new ones may be added */
  int family;             /**< 4 or 6 */
  int reason;             /**< of revoked, lost, refused: a sallyport_error; else SALLYPORT_OK */
  int has_grant;          /**< `grant`: as it is now, or as it was when it is not open any more */
  int has_former;         /**< `former`: of changed, as it was */
  int64_t retry_in_s;     /**< of refused; -1: none, or when the network changes */
  sallyport_grant grant, former;
  char text[512];         /**< a sentence for people: who said what */
} sallyport_event;
#define SALLYPORT_EVENT_INIT {sizeof(sallyport_event), 0, 0, 0, 0, 0, -1, {0}, {0}, {0}}

/** Begins to open a port and keeps trying; the functions below tell how it goes. Does not wait.
 *  @param port to be given to sallyport_port_free(); untouched unless SALLYPORT_OK */
sallyport_error sallyport_open(sallyport_client *client, const sallyport_request *request, sallyport_port **port);

/** Waits for the first grant; at once when there is one. Ends with why there is none when all gateways have refused
 *  (after some 0.3 s) or nothing has answered (after 3 s): the port goes on asking nevertheless.
 *  One at a time for a port, else SALLYPORT_BUSY. `grant` may be NULL; it is written on SALLYPORT_OK only. */
sallyport_error sallyport_port_wait_open(sallyport_port *port, int timeout_ms, sallyport_grant *grant);

/** What is open now: writes at most `capacity` grants, and to `count` how many there are (at most one a family). */
sallyport_error sallyport_port_grants(sallyport_port *port, sallyport_grant *grants, size_t capacity, size_t *count);

/** The next event, oldest first. Of those nobody fetches the 64 latest are kept. SALLYPORT_CLOSED after the last.
 *  While there is a callback, the events go there. @param event its `size` set, by SALLYPORT_EVENT_INIT */
sallyport_error sallyport_port_next_event(sallyport_port *port, int timeout_ms, sallyport_event *event);

/** Called on the client's thread, one event at a time, in order; `event` is its own until it returns. It should be quick:
 *  every renewal of this client waits for it. It must not throw or jump out. */
typedef void (*sallyport_event_callback)(sallyport_port *port, const sallyport_event *event, void *user);

/** From now on events go to the callback, first those that wait to be fetched. NULL: to be fetched again. In another
 *  thread than the callback's it returns when no former callback runs any more. */
sallyport_error sallyport_port_on_event(sallyport_port *port, sallyport_event_callback callback, void *user);

/** Gives the mapping back. SALLYPORT_OK: the gateway has confirmed it. SALLYPORT_NO_ANSWER, SALLYPORT_TIMEOUT: it has
 *  not (yet); it is told all the same, or the lease ends by itself. The port is closed in every case and still has to
 *  be freed. */
sallyport_error sallyport_port_close(sallyport_port *port, int timeout_ms);

/** Lets go without giving back: the lease stays until its lifetime is over. Still has to be freed. */
sallyport_error sallyport_port_detach(sallyport_port *port);

/** Gives the mapping back in the background, if it is still open, and frees the port. No callback runs any more when
 *  it returns, unless a callback called it. NULL is allowed. */
void sallyport_port_free(sallyport_port *port);

#ifdef __cplusplus
}
#endif

#endif
