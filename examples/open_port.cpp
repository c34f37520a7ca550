// Runs a program with a port open for it, for as long as it runs:
//     open-port --protocol udp 27015 -- ./game-server -port 27015
// The program finds SALLYPORT_EXTERNAL_ADDRESS and SALLYPORT_EXTERNAL_PORT in its environment, or
// SALLYPORT_ERROR. Signals go to it, and its exit code is ours.
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <utility>

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>

#include "sallyport/client/client.hpp"

namespace asio = boost::asio;
using boost::system::error_code;

int main(int count, char** words) {
  sallyport::client::PortRequest request{.internal_port = *sallyport::Port::from(1),
                                         .description = "open-port"};
  int at = 1;
  bool right = true;
  if (at + 1 < count && std::strcmp(words[at], "--protocol") == 0) {
    const std::string protocol = words[at + 1];
    right = protocol == "tcp" || protocol == "udp";
    if (protocol == "udp") request.transport = sallyport::Transport::udp;
    at += 2;
  }
  const auto number = sallyport::Port::from(at < count ? std::strtoul(words[at], nullptr, 10) : 0);
  if (!right || !number || at + 2 >= count || std::strcmp(words[at + 1], "--") != 0)
    return std::fprintf(stderr, "usage: open-port [--protocol tcp|udp] PORT -- COMMAND [ARGUMENT...]\n"), 2;
  request.internal_port = *number;
  char** command = words + at + 2;

  asio::io_context io;
  asio::signal_set signals{io, SIGINT, SIGTERM, SIGHUP}, ends{io, SIGCHLD};
  sallyport::client::Client client{io.get_executor()};
  auto port = client.open(request);
  pid_t child = 0;
  int code = 0;

  const auto close = [&] { port.async_close([&](const error_code&) { io.stop(); }); };
  const auto start = [&](const error_code& error, const sallyport::client::Grant& grant) {
    if (code != 0) return;  // ended by a signal meanwhile
    if (error) {
      std::fprintf(stderr, "open-port: %s\n", error.message().c_str());
      setenv("SALLYPORT_ERROR", std::string{sallyport::client::word(error)}.c_str(), 1);
    } else {
      setenv("SALLYPORT_EXTERNAL_ADDRESS", grant.external.address.to_string().c_str(), 1);
      setenv("SALLYPORT_EXTERNAL_PORT", std::to_string(grant.external.port.number()).c_str(), 1);
    }
    child = fork();
    if (child == 0) {
      execvp(command[0], command);
      std::fprintf(stderr, "open-port: %s: %s\n", command[0], std::strerror(errno));
      _exit(127);
    }
  };
  port.async_wait(start);
  std::function<void(const error_code&, int)> pass = [&](const error_code& error, int signal) {
    if (error) return;
    if (child > 0) {
      kill(child, signal);
    } else if (std::exchange(code, 128 + signal) == 0) {
      close();
    }
    signals.async_wait(pass);
  };
  signals.async_wait(pass);
  std::function<void(const error_code&, int)> end = [&](const error_code&, int) {
    int status = 0;
    if (child <= 0 || waitpid(child, &status, WNOHANG) != child) return ends.async_wait(end);
    child = -1;
    code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    signals.cancel();
    close();
  };
  ends.async_wait(end);
  io.run();
  return code;
}
