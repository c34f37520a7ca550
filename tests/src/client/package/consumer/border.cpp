// Asio on both sides of the shared library: in headers here, compiled there. In a network namespace without
// any network.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <string>
#include <thread>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/bind_cancellation_slot.hpp>
#include <boost/asio/bind_executor.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/use_future.hpp>
#include <boost/system/system_error.hpp>

#include "sallyport/client/client.hpp"

namespace asio = boost::asio;
using namespace sallyport::client;
using namespace std::chrono_literals;
using boost::system::error_code;
constexpr auto as_tuple = asio::as_tuple(asio::use_awaitable);

static void check(bool holds, const char* what) {
  if (holds) return;
  std::printf("not so: %s\n", what);
  std::exit(1);
}

static asio::awaitable<void> coroutine(Client& client, bool& done) {
  const auto request = PortRequest{.internal_port = *sallyport::Port::from(22000)};
  auto [error, port] = co_await client.async_open(request, as_tuple);
  check(error == Errc::no_network, "a coroutine learns that there is no network");
  check(!port, "and holds nothing");
  std::printf("no gateway here: %s\n", error.message().c_str());
  asio::steady_timer timer{co_await asio::this_coro::executor, 10ms};
  const auto [untimed] = co_await timer.async_wait(as_tuple);
  check(!untimed, "its timers go on");
  const auto [unlisted, gateways] = co_await client.async_list_gateways(as_tuple);
  check(!unlisted && gateways.empty(), "nobody is listed");
  done = true;
}

int main() {
  check(sallyport::Address::parse("192.0.2.1")->to_string() == "192.0.2.1", "values come from the library");
  check(std::string{client_category().name()} == "sallyport.client", "and the category");
  {
    asio::io_context io;
    Client client{io.get_executor()};
    bool done = false, called = false, cancelled = false;
    int ticks = 0;
    asio::steady_timer ticker{io};
    std::function<void(const error_code&)> tick = [&](const error_code& error) {
      if (error || done) return;
      ++ticks;
      ticker.expires_after(1ms);
      ticker.async_wait(tick);
    };
    tick({});
    asio::co_spawn(io, coroutine(client, done),
                   [](std::exception_ptr error) { check(!error, "no exception"); });

    auto port = client.open({.internal_port = *sallyport::Port::from(22001)});
    const auto strand = asio::make_strand(io);
    port.async_wait(asio::bind_executor(strand, [&](const error_code& error, const Grant&) {
      check(strand.running_in_this_thread(), "a callback runs where it is bound to");
      check(error == Errc::no_network, "and is told");
      called = true;
    }));
    asio::cancellation_signal change_of_mind;
    auto silent = client.open({.internal_port = *sallyport::Port::from(22002)});
    std::function<void(const error_code&, Event)> next = [&](const error_code& error, const Event&) {
      if (error == asio::error::operation_aborted) {
        cancelled = true;
        return;
      }
      check(!error, "events come");
      silent.async_next_event(asio::bind_cancellation_slot(change_of_mind.slot(), next));
    };
    silent.async_next_event(asio::bind_cancellation_slot(change_of_mind.slot(), next));
    asio::steady_timer later{io, 200ms};
    later.async_wait([&](const error_code&) { change_of_mind.emit(asio::cancellation_type::all); });

    while (!(done && called && cancelled)) check(io.run_one_for(10s) == 1, "it all comes to an end");
    check(ticks > 1, "timers tick meanwhile");
  }
  {
    asio::io_context io;
    auto work = asio::make_work_guard(io);
    std::thread one{[&] { io.run(); }}, two{[&] { io.run(); }};
    Client client{io.get_executor()};
    for (std::uint32_t number = 1; number <= 50; ++number) {
      auto opened = client.async_open({.internal_port = *sallyport::Port::from(number)}, asio::use_future);
      try {
        opened.get();
        check(false, "there is nothing to open");
      } catch (const boost::system::system_error& error) {
        check(error.code() == Errc::no_network, "two threads run it");
      }
    }
    client = Client{io.get_executor()};
    work.reset();
    one.join();
    two.join();
  }
  std::printf("ok\n");
}
