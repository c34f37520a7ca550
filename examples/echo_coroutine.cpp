// An echo server that the world can reach: echo_coroutine [PORT]. Prints where, and every change of that.
#include <cstdio>
#include <cstdlib>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

#include "sallyport/client/client.hpp"

namespace asio = boost::asio;
using asio::ip::tcp;
constexpr auto as_tuple = asio::as_tuple(asio::use_awaitable);

asio::awaitable<void> echo(tcp::socket socket) {
  char data[4096];
  for (;;) {
    const auto [error, size] = co_await socket.async_read_some(asio::buffer(data), as_tuple);
    if (error) co_return;
    co_await asio::async_write(socket, asio::buffer(data, size), as_tuple);
  }
}

asio::awaitable<void> serve(tcp::acceptor acceptor) {
  for (;;) {
    auto [error, socket] = co_await acceptor.async_accept(as_tuple);
    if (error) co_return;
    co_spawn(acceptor.get_executor(), echo(std::move(socket)), asio::detached);
  }
}

/// Says how it goes, until the handle is closed.
asio::awaitable<void> watch(sallyport::client::PortHandle& port) {
  for (;;) {
    const auto [error, event] = co_await port.async_next_event(as_tuple);
    if (error) co_return;
    std::printf("%s\n", event.text.c_str());
    std::fflush(stdout);
  }
}

int main(int count, char** words) {
  const auto number = sallyport::Port::from(count > 1 ? std::strtoul(words[1], nullptr, 10) : 7000);
  if (!number) return std::fprintf(stderr, "usage: echo_coroutine [PORT]\n"), 2;
  asio::io_context io;
  sallyport::client::Client client{io.get_executor()};
  auto port = client.open({.internal_port = *number, .description = "echo"});
  co_spawn(io, serve(tcp::acceptor{io, {tcp::v4(), number->number()}}), asio::detached);
  co_spawn(io, watch(port), asio::detached);

  asio::signal_set signals{io, SIGINT, SIGTERM};
  signals.async_wait([&](const auto&, int) { port.async_close([&](const auto&) { io.stop(); }); });
  io.run();
}
