#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

#include <sys/stat.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>

#include "sallyport/admin/filter.hpp"
#include "sallyport/client/client.hpp"
#include "src/cli/command.hpp"
#include "src/cli/gateway_words.hpp"
#include "src/cli/json_text.hpp"
#include "src/cli/table.hpp"

namespace sallyport::cli {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using client::Errc;

constexpr std::string_view unconfirmed_end =
    "the gateway did not confirm the end; the port stays open there until its lifetime is over.";

template <class Endpoint>
std::string endpoint_json(const Endpoint& endpoint) {
  return "{\"address\":" + json_text(endpoint.address.to_string()) +
         ",\"port\":" + std::to_string(endpoint.port.number()) + "}";
}

std::string event_json(const client::Event& event, const client::PortRequest& request) {
  const auto grant = [](const std::optional<client::Grant>& it) -> std::string {
    if (!it) return "null";
    return "{\"via\":" + json_text(to_string(it->protocol)) +
           ",\"gateway\":" + json_text(it->gateway.to_string()) +
           ",\"interface\":" + json_text(it->interface) + ",\"internal\":" + endpoint_json(it->internal) +
           ",\"external\":" + endpoint_json(it->external) +
           ",\"lifetime_s\":" + (it->lifetime.count() == 0 ? "null" : std::to_string(it->lifetime.count())) +
           "}";
  };
  return "{\"event\":" + json_text(to_string(event.kind)) +
         ",\"family\":" + json_text(to_string(event.family)) +
         ",\"protocol\":" + json_text(to_string(request.transport)) +
         ",\"port\":" + std::to_string(request.internal_port.number()) + ",\"grant\":" + grant(event.grant) +
         ",\"former\":" + grant(event.former) +
         ",\"reason\":" + (event.reason ? json_text(client::word(event.reason)) : "null") +
         ",\"retry_in_s\":" + (event.retry_in ? std::to_string(event.retry_in->count()) : "null") +
         ",\"text\":" + json_text(event.text) + "}\n";
}

/// Where this user's commands keep what makes a mapping theirs; empty when there is no such place.
std::string state_file() {
  std::string directory;
  if (const char* state = std::getenv("XDG_STATE_HOME"); state && *state == '/') {
    directory = state;
  } else if (const char* home = std::getenv("HOME"); home && *home == '/') {
    directory = std::string{home} + "/.local/state";
  } else {
    return {};
  }
  directory += "/sallyport";
  for (auto end = directory.find('/', 1);; end = directory.find('/', end + 1)) {
    if (::mkdir(directory.substr(0, end).c_str(), 0700) != 0 && errno != EEXIST) return {};
    if (end == std::string::npos) break;
  }
  return directory + "/client";
}

int code_of(const error_code& error) {
  if (error.category() != client::client_category()) return failed;
  switch (static_cast<Errc>(error.value())) {
    case Errc::no_network:
    case Errc::no_gateway:
    case Errc::no_answer:
    case Errc::no_external_address:
    case Errc::network_changed:
      return unreachable;
    case Errc::not_authorized:
    case Errc::revoked:
      return not_permitted;
    case Errc::port_taken:
      return conflict;
    case Errc::no_resources:
    case Errc::behind_other_nat:
    case Errc::not_possible:
    case Errc::nonsense:
    case Errc::closed:
    case Errc::busy:
    case Errc::bad_request:
      return failed;
  }
  return failed;
}

std::string what_next(const error_code& error) {
  if (error == Errc::no_gateway)
    return "'sallyport netcheck' shows what is in the way; many routers have the switch under \"UPnP\".";
  if (error == Errc::port_taken) return "Choose another with --external PORT, or leave out --exact.";
  if (error == Errc::not_authorized) return "Ask who runs the gateway to allow it.";
  return "'sallyport netcheck' shows more.";
}

/// 0, or the exit code after telling what is wrong.
int to_request(const OpenWords& words, std::string_view command, client::PortRequest& request) {
  request.transport = words.protocol == "udp" ? Transport::udp : Transport::tcp;
  if (words.external) {
    request.external_port = Port::from(*words.external);
    if (!request.external_port) return wrong_use("--external takes a port, 1 to 65535", command);
  }
  request.exact = words.exact;
  if (words.exact && !words.external) request.external_port = request.internal_port;
  if (words.lifetime) {
    const auto lifetime = admin::parse_duration(*words.lifetime);
    if (!lifetime) return wrong_use("--for takes a time such as 90s, 15m, 24h, 7d", command);
    request.lifetime = *lifetime;
  }
  request.description = words.description;
  for (const auto& text : words.remotes) {
    const auto prefix = Prefix::parse(text);
    if (!prefix) return wrong_use("--remote takes ADDRESS or ADDRESS/LENGTH, not '" + text + "'", command);
    request.remotes.push_back({*prefix, std::nullopt});
  }
  request.ipv4 = !words.only_ipv6;
  request.ipv6 = !words.only_ipv4;
  return ok;
}

}  // namespace

int to_client_options(const GatewayWords& words, std::string_view command, client::ClientOptions& options) {
  if (words.via != "auto") {
    options.pcp = words.via == "pcp";
    options.natpmp = words.via == "natpmp";
    options.upnp = words.via == "upnp";
  }
  for (const auto& text : words.gateways) {
    const auto gateway = Address::parse(text);
    if (!gateway) return wrong_use("--gateway takes an address, not '" + text + "'", command);
    options.gateways.push_back(*gateway);
  }
  options.interfaces = words.interfaces;
  return ok;
}

int open(const Options& options, const OpenWords& words) {
  client::PortRequest request{.internal_port = *Port::from(words.port)};
  if (const int wrong = to_request(words, "open", request)) return wrong;
  client::ClientOptions gateways;
  if (const int wrong = to_client_options(words.gateway, "open", gateways)) return wrong;
  gateways.state_file = state_file();

  asio::io_context io;
  int code = ok;
  bool granted = false, ending = false;
  client::Client client{io.get_executor(), gateways};
  auto port = client.open(request);

  const auto show = [&](const client::Event& event) {
    if (options.json)
      put(event_json(event, request));
    else
      put(time_of_day() + "  " + printable(event.text) + "\n");
    std::fflush(stdout);
  };
  asio::signal_set signals{io, SIGINT, SIGTERM, SIGHUP};
  const auto end = [&](bool give_back) {
    if (std::exchange(ending, true)) return;
    error_code ignored;
    signals.cancel(ignored);
    if (!give_back) {
      port.detach();
      io.stop();
      return;
    }
    port.async_close([&](const error_code& error) {
      if (error == Errc::no_answer && granted) {
        complain(unconfirmed_end);
        if (code == ok) code = unreachable;
        return io.stop();
      }
      client::Event event;
      event.kind = client::EventKind::closed;
      event.text =
          std::string{to_string(request.transport)} + " port " + std::to_string(words.port) + " is closed";
      show(event);
      io.stop();
    });
  };
  signals.async_wait([&](const error_code& error, int) {
    if (!error) end(true);
  });
  std::function<void()> next = [&] {
    port.async_next_event([&](const error_code& error, const client::Event& event) {
      if (error || ending) return;
      show(event);
      granted = granted || event.kind == client::EventKind::granted;
      next();
    });
  };
  next();  // first: what is known at once is shown before it ends the wait
  port.async_wait([&](const error_code& error, const client::Grant&) {
    if (ending) return;
    if (!error) {
      if (words.detach_lease) asio::post(io, [&] { end(false); });
      return;
    }
    code = code_of(error);
    complain("the port cannot be opened: " + error.message() + ". " + what_next(error));
    end(true);
  });
  if (!options.json && !words.detach_lease)
    complain("opening " + std::string{to_string(request.transport)} + " port " + std::to_string(words.port) +
             "; it stays open until Ctrl-C.");
  io.run();
  return code;
}

int close(const Options& options, const OpenWords& words) {
  // Who made a mapping may renew it, and ends it by the same name: it is taken over for a moment. Each
  // protocol has mappings of its own, so each is asked.
  client::PortRequest request{.internal_port = *Port::from(words.port)};
  if (const int wrong = to_request(words, "close", request)) return wrong;
  request.lifetime = std::chrono::seconds{120};

  struct Asked {
    explicit Asked(asio::io_context& io, client::ClientOptions options)
        : client{io.get_executor(), std::move(options)} {}
    client::Client client;
    client::PortHandle held;
  };
  asio::io_context io;
  asio::steady_timer patience{io};
  std::vector<std::unique_ptr<Asked>> all;
  std::size_t left = 0, closed = 0;
  bool unconfirmed = false;
  error_code why;
  const auto settle = [&] {
    if (--left == 0) io.stop();
    if (closed == 0) return;
    patience.expires_after(
        std::chrono::milliseconds{1500});  // for those who take longer, if they are there at all
    patience.async_wait([&](const error_code& error) {
      if (!error) io.stop();
    });
  };
  for (const char* const via : {"pcp", "natpmp", "upnp"}) {
    if (words.gateway.via != "auto" && words.gateway.via != via) continue;
    auto only = words.gateway;
    only.via = via;
    client::ClientOptions gateways;
    if (const int wrong = to_client_options(only, "close", gateways)) return wrong;
    gateways.state_file = state_file();
    auto& asked = *all.emplace_back(std::make_unique<Asked>(io, std::move(gateways)));
    ++left;
    asked.client.async_open(request, [&](const error_code& error, client::PortHandle port) {
      if (error) {
        if (!why || code_of(error) == not_permitted) why = error;
        return settle();
      }
      asked.held = std::move(port);
      asked.held.async_close([&](const error_code& lost) {
        if (lost)
          unconfirmed = true;
        else
          ++closed;
        settle();
      });
    });
  }
  io.run();
  const auto port = std::string{to_string(request.transport)} + " port " + std::to_string(words.port);
  if (why && code_of(why) == not_permitted) {
    complain(port + " was opened by another program and stays open until its lifetime is over: " +
             why.message() + ".");
    return not_permitted;
  }
  if (unconfirmed) {
    complain(unconfirmed_end);
    return unreachable;
  }
  if (closed == 0) {
    complain("the port cannot be closed: " + why.message() + ". It ends by itself with its lifetime.");
    return code_of(why);
  }
  client::Event event;
  event.kind = client::EventKind::closed;
  event.text = port + " is closed";
  put(options.json ? event_json(event, request) : event.text + "\n");
  return ok;
}

}  // namespace sallyport::cli
