#include <csignal>
#include <cstdio>
#include <optional>

#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>

#include "sallyport/admin/filter.hpp"
#include "src/cli/gateway_words.hpp"

namespace sallyport::cli {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using namespace std::chrono_literals;

constexpr std::chrono::seconds longest = 60s;

/// "stun.example.net", "stun.example.net:3478", "192.0.2.1:3478", "2001:db8::1", "[2001:db8::1]:3478".
std::optional<client::NetcheckOptions::Helper> parse_helper(std::string_view text) {
  std::optional<std::string_view> port;
  auto host = text;
  if (text.starts_with('[')) {
    const auto end = text.find(']');
    if (end == std::string_view::npos) return std::nullopt;
    host = text.substr(1, end - 1);
    const auto rest = text.substr(end + 1);
    if (!rest.empty() && rest.front() != ':') return std::nullopt;
    if (!rest.empty()) port = rest.substr(1);
    const auto address = Address::parse(host);
    if (!address || address->is_v4()) return std::nullopt;
  } else if (const auto colon = text.find(':'); colon != std::string_view::npos) {
    if (text.find(':', colon + 1) == std::string_view::npos) {
      host = text.substr(0, colon);
      port = text.substr(colon + 1);
    } else if (!Address::parse(text)) {
      return std::nullopt;
    }
  }
  if (host.empty() || host.find_first_of(" /@") != std::string_view::npos) return std::nullopt;
  client::NetcheckOptions::Helper helper{.host = std::string{host}};
  if (port) {
    if (port->empty() || port->size() > 5 || port->find_first_not_of("0123456789") != std::string_view::npos)
      return std::nullopt;
    const auto number = Port::from(static_cast<std::uint32_t>(std::stoul(std::string{*port})));
    if (!number) return std::nullopt;
    helper.port = *number;
  }
  return helper;
}

/// 0, or the exit code after telling what is wrong.
int to_options(const NetcheckWords& words, client::NetcheckOptions& options) {
  options.transport = words.protocol == "tcp" ? Transport::tcp : Transport::udp;
  if (words.port) options.port = Port::from(*words.port);
  if (words.helper) {
    options.helper = parse_helper(*words.helper);
    if (!options.helper)
      return wrong_use("--stun takes HOST or HOST:PORT, not '" + *words.helper + "'", "netcheck");
  }
  if (words.patience) {
    const auto patience = admin::parse_duration(*words.patience);
    if (!patience || *patience < 1s || *patience > longest)
      return wrong_use("--for takes a time from 1s to 60s, not '" + *words.patience + "'", "netcheck");
    options.patience = *patience;
  }
  return ok;
}

int code_of(client::Verdict verdict) {
  switch (verdict) {
    case client::Verdict::reachable:
    case client::Verdict::likely_reachable:
      return ok;
    case client::Verdict::unknown:
    case client::Verdict::blocked_ahead:
    case client::Verdict::double_nat:
    case client::Verdict::carrier_nat:
    case client::Verdict::offline:
      return failed;
    case client::Verdict::refused:
      return not_permitted;
    case client::Verdict::no_gateway:
    case client::Verdict::no_network:
      return unreachable;
  }
  return failed;
}

}  // namespace

int netcheck(const Options& options, const NetcheckWords& words) {
  client::NetcheckOptions wanted;
  if (const int wrong = to_options(words, wanted)) return wrong;
  client::ClientOptions gateways;
  if (const int wrong = to_client_options(words.gateway, "netcheck", gateways)) return wrong;

  // Never destroyed: that would wait for the system's resolver, which may take its time with a name.
  static auto& io = *new asio::io_context;
  std::optional<client::Client> client{std::in_place, io.get_executor(), gateways};
  int code = failed;
  asio::cancellation_signal interrupt;
  asio::signal_set signals{io, SIGINT, SIGTERM, SIGHUP};
  signals.async_wait([&](const error_code& error, int) {
    if (!error) interrupt.emit(asio::cancellation_type::terminal);
  });
  asio::steady_timer slow{io, 1s};
  slow.async_wait([&](const error_code& error) {
    if (!error) complain("asking around; this takes some seconds.");
  });
  bool done = false;
  client->async_netcheck(
      wanted, asio::bind_cancellation_slot(interrupt.slot(), [&](const error_code& error,
                                                                 const client::NetcheckReport& report) {
        done = true;
        slow.cancel();
        signals.cancel();
        client.reset();
        if (error) {
          complain(error == asio::error::operation_aborted ? "interrupted before there was an answer."
                                                           : "the check failed: " + error.message() + ".");
          return;
        }
        put(options.json ? to_json(report) + "\n" : to_text(report));
        std::fflush(stdout);
        code = code_of(report.verdict);
      }));
  while (!done && io.run_one() > 0) {
  }
  io.run_for(500ms);  // what is not given back yet
  return code;
}

}  // namespace sallyport::cli
