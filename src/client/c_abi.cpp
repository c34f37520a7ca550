#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>

#include "sallyport/client/client.hpp"
#include "sallyport/sallyport.h"
#include "sallyport/values/printable.hpp"

namespace asio = boost::asio;
using boost::system::error_code;
using namespace sallyport;
using namespace sallyport::client;

namespace {

constexpr std::size_t most_events = 64, most_words = 64, most_octets = 4096;

thread_local char detail_text[256];

sallyport_error bad(const char* format, ...) {
  std::va_list words;
  va_start(words, format);
  std::vsnprintf(detail_text, sizeof detail_text, format, words);
  va_end(words);
  return SALLYPORT_BAD_ARGUMENT;
}

sallyport_error code_of(const error_code& error) {
  if (!error) return SALLYPORT_OK;
  if (error.category() == client_category()) return static_cast<sallyport_error>(error.value());
  if (error == asio::error::operation_aborted) return SALLYPORT_TIMEOUT;
  return SALLYPORT_OTHER;
}

/// No exception leaves the library by way of C.
template <class Call>
sallyport_error guarded(Call call) noexcept {
  try {
    return call();
  } catch (const std::bad_alloc&) {
    return SALLYPORT_NO_MEMORY;
  } catch (const std::exception&) {
    return SALLYPORT_OTHER;
  }
}

}  // namespace

/// The thread and all it works with. Handlers know it by a plain pointer: while they run, so does the thread,
/// which owns it too; a handler that never runs must not keep it alive.
struct sallyport_client {
  asio::io_context io{1};
  std::optional<asio::executor_work_guard<asio::io_context::executor_type>> work{io.get_executor()};
  std::optional<Client> client;  ///< of the thread alone
  std::thread thread;
  std::thread::id thread_id;
  const ::pid_t pid = ::getpid();
  std::mutex mutex;
  std::condition_variable changed;  ///< whatever anybody waits for
  bool closed = false, ended = false;
  std::shared_ptr<sallyport_client> self;  ///< until it is freed

  bool here() const { return std::this_thread::get_id() == thread_id; }
  /// To be called with the lock.
  sallyport_error state() const { return closed ? SALLYPORT_CLOSED : SALLYPORT_OK; }
};

/// What the thread has of a port.
struct PortState {
  PortHandle handle;  ///< of the thread alone, while that runs
  std::deque<sallyport_event> events;
  bool over = false;
  std::recursive_mutex calling;  ///< held while the callback runs
  sallyport_event_callback callback = nullptr;
  void* user = nullptr;
  sallyport_port* self = nullptr;
};

struct sallyport_port {
  std::shared_ptr<sallyport_client> client;
  std::shared_ptr<PortState> state;
};

namespace {

sallyport_error check(const sallyport_client* client) {
  if (client == nullptr) return bad("the client is NULL");
  return client->pid == ::getpid() ? SALLYPORT_OK : SALLYPORT_FORKED;
}
sallyport_error check(const sallyport_port* port) {
  return port == nullptr ? bad("the port is NULL") : check(port->client.get());
}

/// Waits for `ready`, for the end of the thread, or until the caller has no more time.
template <class Ready>
bool wait_for(sallyport_client& client, std::unique_lock<std::mutex>& lock, int timeout_ms, Ready ready) {
  const auto over = [&] { return ready() || client.ended; };
  if (timeout_ms < 0)
    client.changed.wait(lock, over);
  else
    client.changed.wait_for(lock, std::chrono::milliseconds{timeout_ms}, over);
  return ready();
}

/// Begins a call on the thread and waits for what it brings.
template <class... Value, class Begin>
sallyport_error await(sallyport_client& client, int timeout_ms, Begin begin, Value*... value) {
  struct Call {
    bool done = false;
    error_code error;
    std::tuple<Value...> value;
    asio::cancellation_signal cancel;
  };
  if (client.here()) return SALLYPORT_WRONG_THREAD;
  const auto call = std::make_shared<Call>();
  std::unique_lock lock{client.mutex};
  if (const auto state = client.state()) return state;
  asio::post(client.io, [client = &client, call, begin]() mutable {
    begin(asio::bind_cancellation_slot(call->cancel.slot(), [client, call](error_code error, Value... got) {
      const std::lock_guard told{client->mutex};
      call->error = error;
      call->value = {std::move(got)...};
      call->done = true;
      client->changed.notify_all();
    }));
  });
  if (wait_for(client, lock, timeout_ms, [&] { return call->done; })) {
    if (!call->error) std::tie(*value...) = std::move(call->value);
    return code_of(call->error);
  }
  if (client.ended) return SALLYPORT_CLOSED;
  asio::post(client.io, [call] { call->cancel.emit(asio::cancellation_type::terminal); });
  return SALLYPORT_TIMEOUT;
}

/// Does something short on the thread, and waits for it.
template <class Act>
sallyport_error on_thread(sallyport_client& client, Act act) {
  if (client.here()) {
    {
      const std::lock_guard lock{client.mutex};
      if (const auto state = client.state()) return state;
    }
    act();
    return SALLYPORT_OK;
  }
  return await(client, -1, [act](auto done) mutable {
    act();
    done(error_code{});
  });
}

// -- values

/// The version of a struct that the program was built with: fields that it has and we do not must say
/// nothing.
template <class Struct>
sallyport_error take(const Struct* given, Struct& into, const char* name) {
  if (given == nullptr) return SALLYPORT_OK;
  const auto size = given->size;
  if (size < sizeof(Struct) || size > most_octets)
    return bad("%s->size is %zu: begin with its _INIT macro", name, size);
  const auto* octets = reinterpret_cast<const unsigned char*>(given);
  if (std::any_of(octets + sizeof(Struct), octets + size, [](unsigned char octet) { return octet != 0; }))
    return bad("%s uses a field that this version of the library does not know", name);
  std::memcpy(&into, given, sizeof(Struct));
  return SALLYPORT_OK;
}

sallyport_error take_words(const char* const* words, std::size_t count, const char* name) {
  if (count > most_words) return bad("%s: at most %zu, not %zu", name, most_words, count);
  if (count > 0 && words == nullptr) return bad("%s is NULL and its count %zu", name, count);
  for (std::size_t i = 0; i < count; ++i)
    if (words[i] == nullptr || *words[i] == '\0') return bad("%s[%zu] is empty", name, i);
  return SALLYPORT_OK;
}

sallyport_error take_transport(int protocol, Transport& into) {
  if (protocol != SALLYPORT_TCP && protocol != SALLYPORT_UDP)
    return bad("protocol takes SALLYPORT_TCP or SALLYPORT_UDP, not %d", protocol);
  into = protocol == SALLYPORT_UDP ? Transport::udp : Transport::tcp;
  return SALLYPORT_OK;
}

/// Cut where a character ends.
template <std::size_t size>
void copy_text(char (&into)[size], std::string_view text) {
  text = cut(text, size - 1);
  std::memcpy(into, text.data(), text.size());
  into[text.size()] = '\0';
}

sallyport_grant to_c(const Grant& grant) {
  sallyport_grant out{};
  out.via = static_cast<int>(grant.protocol);
  out.family = grant.family == Family::ipv4 ? 4 : 6;
  out.internal_port = grant.internal.port.number();
  out.external_port = grant.external.port.number();
  out.lifetime_s =
      static_cast<std::uint32_t>(std::clamp<std::int64_t>(grant.lifetime.count(), 0, UINT32_MAX));
  copy_text(out.external_address, grant.external.address.to_string());
  copy_text(out.internal_address, grant.internal.address.to_string());
  copy_text(out.gateway, grant.gateway.to_string());
  copy_text(out.interface, grant.interface);
  return out;
}

sallyport_event to_c(const Event& event) {
  sallyport_event out = SALLYPORT_EVENT_INIT;
  out.kind = static_cast<int>(event.kind);
  out.family = event.family == Family::ipv4 ? 4 : 6;
  out.reason = code_of(event.reason);
  if (event.retry_in) out.retry_in_s = event.retry_in->count();
  if (event.grant) out.grant = to_c(*event.grant);
  if (event.former) out.former = to_c(*event.former);
  out.has_grant = event.grant.has_value();
  out.has_former = event.former.has_value();
  copy_text(out.text, event.text);
  return out;
}

static_assert(SALLYPORT_NO_NETWORK == static_cast<int>(Errc::no_network) &&
              SALLYPORT_BAD_REQUEST == static_cast<int>(Errc::bad_request));
static_assert(SALLYPORT_UPNP == static_cast<int>(Protocol::upnp));
static_assert(SALLYPORT_EVENT_CLOSED == static_cast<int>(EventKind::closed));

std::string json_text(std::string_view text) {
  std::string out = "\"";
  for (const char c : printable(text)) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + '"';
}

std::string json(const std::vector<Gateway>& gateways) {
  std::string out = "[";
  for (const auto& gateway : gateways) {
    out += out.size() > 1 ? ",{\"address\":" : "{\"address\":";
    out += json_text(gateway.address.to_string()) + ",\"interface\":" + json_text(gateway.interface) +
           ",\"protocols\":[";
    for (const auto protocol : gateway.protocols)
      out += (out.back() == '[' ? "" : ",") + json_text(to_string(protocol));
    out += "],\"name\":" + (gateway.name.empty() ? "null" : json_text(gateway.name));
    out += ",\"igd_version\":" + (gateway.igd_version ? std::to_string(*gateway.igd_version) : "null");
    out += ",\"external_address\":" +
           (gateway.external_address ? json_text(gateway.external_address->to_string()) : "null");
    out += gateway.firewall6 ? ",\"firewall6\":true" : ",\"firewall6\":false";
    out += ",\"epoch_s\":" + (gateway.epoch_s ? std::to_string(*gateway.epoch_s) : "null") + "}";
  }
  return out + "]";
}

sallyport_error give_text(const std::string& text, char** into) {
  char* copy = static_cast<char*>(std::malloc(text.size() + 1));
  if (copy == nullptr) return SALLYPORT_NO_MEMORY;
  std::memcpy(copy, text.c_str(), text.size() + 1);
  *into = copy;
  return SALLYPORT_OK;
}

// -- events, on the thread

/// One event to the callback. False: there is none, and the event stays whose it is.
bool call_back(PortState& port, const sallyport_event& event) {
  const std::lock_guard calling{port.calling};
  if (port.callback == nullptr) return false;
  port.callback(port.self, &event, port.user);
  return true;
}

void drain(sallyport_client& client, PortState& port) {
  for (;;) {
    sallyport_event event;
    {
      const std::lock_guard lock{client.mutex};
      if (port.events.empty()) return;
      event = port.events.front();
      port.events.pop_front();
    }
    if (call_back(port, event)) continue;
    const std::lock_guard lock{client.mutex};
    port.events.push_front(event);
    client.changed.notify_all();
    return;
  }
}

void await_events(sallyport_client& client, const std::shared_ptr<PortState>& port) {
  port->handle.async_next_event([client = &client, port](const error_code& error, const Event& event) {
    {
      const std::lock_guard lock{client->mutex};
      if (error) {
        port->over = true;
      } else {
        if (port->events.size() >= most_events) port->events.pop_front();
        port->events.push_back(to_c(event));
      }
      client->changed.notify_all();
    }
    drain(*client, *port);
    if (!error) await_events(*client, port);
  });
}

}  // namespace

extern "C" {

const char* sallyport_version(void) { return SALLYPORT_VERSION; }

const char* sallyport_error_word(sallyport_error error) {
  switch (static_cast<int>(error)) {
    case SALLYPORT_OK:
      return "ok";
    case SALLYPORT_TIMEOUT:
      return "timeout";
    case SALLYPORT_BAD_ARGUMENT:
      return "bad_argument";
    case SALLYPORT_NO_MEMORY:
      return "no_memory";
    case SALLYPORT_WRONG_THREAD:
      return "wrong_thread";
    case SALLYPORT_FORKED:
      return "forked";
    default:
      return word(error_code{static_cast<int>(error), client_category()}).data();
  }
}

const char* sallyport_error_text(sallyport_error error) {
  switch (static_cast<int>(error)) {
    case SALLYPORT_OK:
      return "all is well";
    case SALLYPORT_TIMEOUT:
      return "the time limit came first";
    case SALLYPORT_BAD_ARGUMENT:
      return "an argument is wrong";
    case SALLYPORT_NO_MEMORY:
      return "there is no memory or no thread left";
    case SALLYPORT_WRONG_THREAD:
      return "a callback may not call what waits";
    case SALLYPORT_FORKED:
      return "the process has forked since: make a new client";
    case SALLYPORT_OTHER:
      return "the system refused";
    default: {
      static const auto texts = [] {
        std::array<std::string, static_cast<int>(Errc::bad_request) + 2> all;
        for (std::size_t i = 0; i < all.size(); ++i) all[i] = client_category().message(static_cast<int>(i));
        return all;
      }();
      return texts[std::min<std::size_t>(static_cast<unsigned>(error), texts.size() - 1)].c_str();
    }
  }
}

const char* sallyport_detail(void) { return detail_text; }

void sallyport_free(void* string) { std::free(string); }

sallyport_client* sallyport_client_new(const sallyport_options* options, sallyport_error* error) {
  sallyport_client* made = nullptr;
  const auto result = guarded([&]() -> sallyport_error {
    sallyport_options given = SALLYPORT_OPTIONS_INIT;
    if (const auto wrong = take(options, given, "options")) return wrong;
    if (const auto wrong = take_words(given.gateways, given.gateway_count, "gateways")) return wrong;
    if (const auto wrong = take_words(given.interfaces, given.interface_count, "interfaces")) return wrong;
    ClientOptions wanted{.pcp = given.pcp != 0, .natpmp = given.natpmp != 0, .upnp = given.upnp != 0};
    if (!wanted.pcp && !wanted.natpmp && !wanted.upnp) return bad("pcp, natpmp and upnp are all 0");
    for (std::size_t i = 0; i < given.gateway_count; ++i) {
      const auto address = Address::parse(given.gateways[i]);
      if (!address) return bad("gateways[%zu] takes an address, not '%.100s'", i, given.gateways[i]);
      wanted.gateways.push_back(*address);
    }
    if (given.interface_count > 0)
      wanted.interfaces.assign(given.interfaces, given.interfaces + given.interface_count);
    if (given.state_file != nullptr) wanted.state_file = given.state_file;

    const auto client = std::make_shared<sallyport_client>();
    client->client.emplace(client->io.get_executor(), std::move(wanted));
    // signals are the program's, not those of a thread that it has not made
    ::sigset_t all, before;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_BLOCK, &all, &before);
    try {
      const std::lock_guard lock{client->mutex};
      client->thread = std::thread{[client] {
        { const std::lock_guard begun{client->mutex}; }
        client->io.run();
        const std::lock_guard over{client->mutex};
        client->ended = true;
        client->changed.notify_all();
      }};
      client->thread_id = client->thread.get_id();
    } catch (const std::system_error&) {
      ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
      return SALLYPORT_NO_MEMORY;
    }
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    client->self = client;
    made = client.get();
    return SALLYPORT_OK;
  });
  if (error != nullptr) *error = result;
  return made;
}

void sallyport_client_free(sallyport_client* client) {
  if (client == nullptr || check(client) == SALLYPORT_FORKED) return;
  const auto self = std::move(client->self);
  if (!self) return;
  {
    const std::lock_guard lock{client->mutex};
    client->closed = true;
    asio::post(client->io, [client] {
      client->client.reset();
      client->work.reset();
    });
  }
  if (client->here())
    client->thread.detach();
  else
    client->thread.join();
}

sallyport_error sallyport_list_gateways_json(sallyport_client* client, int timeout_ms, char** json_out) {
  return guarded([&] {
    if (const auto wrong = check(client)) return wrong;
    if (json_out == nullptr) return bad("json is NULL");
    std::vector<Gateway> gateways;
    const auto error = await(
        *client, timeout_ms,
        [client](auto done) {
          if (client->client) client->client->async_list_gateways(std::move(done));
        },
        &gateways);
    return error ? error : give_text(json(gateways), json_out);
  });
}

sallyport_error sallyport_netcheck_json(sallyport_client* client, const sallyport_netcheck_options* options,
                                        int timeout_ms, char** json_out) {
  return guarded([&]() -> sallyport_error {
    if (const auto wrong = check(client)) return wrong;
    if (json_out == nullptr) return bad("json is NULL");
    sallyport_netcheck_options given = SALLYPORT_NETCHECK_OPTIONS_INIT;
    if (const auto wrong = take(options, given, "options")) return wrong;
    NetcheckOptions wanted;
    if (const auto wrong = take_transport(given.protocol, wanted.transport)) return wrong;
    wanted.port = Port::from(given.port);
    if (given.helper != nullptr) {
      const auto helper_port = Port::from(given.helper_port);
      if (!helper_port) return bad("helper_port takes a port, 1 to 65535");
      wanted.helper = {given.helper, *helper_port};
    }
    if (given.patience_ms == 0) return bad("patience_ms takes a time, not 0");
    wanted.patience = std::chrono::milliseconds{given.patience_ms};
    NetcheckReport report;
    const auto error = await(
        *client, timeout_ms,
        [client, wanted](auto done) {
          if (client->client) client->client->async_netcheck(wanted, std::move(done));
        },
        &report);
    return error ? error : give_text(to_json(report), json_out);
  });
}

sallyport_error sallyport_open(sallyport_client* client, const sallyport_request* request,
                               sallyport_port** port) {
  return guarded([&]() -> sallyport_error {
    if (const auto wrong = check(client)) return wrong;
    if (request == nullptr || port == nullptr)
      return bad("%s is NULL", request == nullptr ? "request" : "port");
    sallyport_request given = SALLYPORT_REQUEST_INIT;
    if (const auto wrong = take(request, given, "request")) return wrong;
    if (const auto wrong = take_words(given.remotes, given.remote_count, "remotes")) return wrong;
    const auto internal = Port::from(given.internal_port);
    if (!internal) return bad("internal_port takes a port, 1 to 65535");
    PortRequest wanted{.internal_port = *internal, .external_port = Port::from(given.external_port)};
    if (const auto wrong = take_transport(given.protocol, wanted.transport)) return wrong;
    if (given.lifetime_s == 0) return bad("lifetime_s takes seconds, 1 and up");
    if (!given.ipv4 && !given.ipv6) return bad("ipv4 and ipv6 are both 0");
    wanted.exact = given.exact != 0;
    if (wanted.exact && !wanted.external_port) wanted.external_port = internal;
    wanted.lifetime = std::chrono::seconds{given.lifetime_s};
    if (given.description != nullptr) wanted.description = given.description;
    for (std::size_t i = 0; i < given.remote_count; ++i) {
      const auto prefix = Prefix::parse(given.remotes[i]);
      if (!prefix)
        return bad("remotes[%zu] takes ADDRESS or ADDRESS/LENGTH, not '%.100s'", i, given.remotes[i]);
      wanted.remotes.push_back({*prefix, std::nullopt});
    }
    wanted.ipv4 = given.ipv4 != 0;
    wanted.ipv6 = given.ipv6 != 0;

    auto made = std::make_unique<sallyport_port>();
    made->client = client->self;
    made->state = std::make_shared<PortState>();
    made->state->self = made.get();
    const auto error =
        on_thread(*client, [client, state = made->state, wanted = std::move(wanted)]() mutable {
          if (!client->client) return;
          state->handle = client->client->open(std::move(wanted));
          await_events(*client, state);
        });
    if (error == SALLYPORT_OK) *port = made.release();
    return error;
  });
}

sallyport_error sallyport_port_wait_open(sallyport_port* port, int timeout_ms, sallyport_grant* grant) {
  return guarded([&]() -> sallyport_error {
    if (const auto wrong = check(port)) return wrong;
    if (timeout_ms == 0) {
      sallyport_grant open;
      std::size_t count = 0;
      if (const auto error = sallyport_port_grants(port, &open, 1, &count)) return error;
      if (count == 0) return SALLYPORT_TIMEOUT;
      if (grant != nullptr) *grant = open;
      return SALLYPORT_OK;
    }
    Grant first;
    const auto error = await(
        *port->client, timeout_ms,
        [state = port->state](auto done) { state->handle.async_wait(std::move(done)); }, &first);
    if (error == SALLYPORT_OK && grant != nullptr) *grant = to_c(first);
    return error;
  });
}

sallyport_error sallyport_port_grants(sallyport_port* port, sallyport_grant* grants, std::size_t capacity,
                                      std::size_t* count) {
  return guarded([&]() -> sallyport_error {
    if (const auto wrong = check(port)) return wrong;
    if (count == nullptr || (capacity > 0 && grants == nullptr)) return bad("grants or count is NULL");
    std::vector<Grant> all;
    bool open = false;
    if (const auto error = on_thread(*port->client, [state = port->state, &all, &open] {
          open = static_cast<bool>(state->handle);
          all = state->handle.grants();
        }))
      return error;
    if (!open) return SALLYPORT_CLOSED;
    *count = all.size();
    std::transform(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(std::min(all.size(), capacity)),
                   grants, [](const Grant& each) { return to_c(each); });
    return SALLYPORT_OK;
  });
}

sallyport_error sallyport_port_next_event(sallyport_port* port, int timeout_ms, sallyport_event* event) {
  return guarded([&]() -> sallyport_error {
    if (const auto wrong = check(port)) return wrong;
    if (event == nullptr) return bad("event is NULL");
    if (event->size < sizeof *event || event->size > most_octets)
      return bad("event->size is %zu: begin with SALLYPORT_EVENT_INIT", event->size);
    auto& client = *port->client;
    if (client.here() && timeout_ms != 0) return SALLYPORT_WRONG_THREAD;
    const auto& state = *port->state;
    std::unique_lock lock{client.mutex};
    wait_for(client, lock, timeout_ms, [&] { return !state.events.empty() || state.over; });
    if (state.events.empty()) return state.over || client.ended ? SALLYPORT_CLOSED : SALLYPORT_TIMEOUT;
    const auto size = event->size;
    *event = state.events.front();
    event->size = size;
    port->state->events.pop_front();
    return SALLYPORT_OK;
  });
}

sallyport_error sallyport_port_on_event(sallyport_port* port, sallyport_event_callback callback, void* user) {
  return guarded([&]() -> sallyport_error {
    if (const auto wrong = check(port)) return wrong;
    auto& client = *port->client;
    {
      const std::lock_guard calling{port->state->calling};
      port->state->callback = callback;
      port->state->user = user;
    }
    const std::lock_guard lock{client.mutex};
    if (callback != nullptr && !client.ended)
      asio::post(client.io, [client = &client, state = port->state] { drain(*client, *state); });
    return SALLYPORT_OK;
  });
}

sallyport_error sallyport_port_close(sallyport_port* port, int timeout_ms) {
  return guarded([&]() -> sallyport_error {
    if (const auto wrong = check(port)) return wrong;
    return await(*port->client, timeout_ms,
                 [state = port->state](auto done) { state->handle.async_close(std::move(done)); });
  });
}

sallyport_error sallyport_port_detach(sallyport_port* port) {
  return guarded([&]() -> sallyport_error {
    if (const auto wrong = check(port)) return wrong;
    return on_thread(*port->client, [state = port->state] { state->handle.detach(); });
  });
}

void sallyport_port_free(sallyport_port* port) {
  if (port == nullptr || check(port) == SALLYPORT_FORKED) return;
  {
    const std::lock_guard calling{port->state->calling};
    port->state->callback = nullptr;
  }
  const std::unique_ptr<sallyport_port> gone{port};
  std::unique_lock lock{port->client->mutex};
  if (port->client->ended) {
    lock.unlock();
    port->state->handle = {};
  } else {
    asio::post(port->client->io, [state = port->state] { state->handle = {}; });
  }
}

}  // extern "C"
