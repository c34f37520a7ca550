// A small file server that makes itself reachable: file_server DIRECTORY [PORT]. Prints its address on the
// internet. One request a connection, plain files of the directory itself only.
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/write.hpp>

#include "sallyport/client/client.hpp"

namespace asio = boost::asio;
namespace fs = std::filesystem;
using asio::ip::tcp;
using boost::system::error_code;

/// The whole answer to "GET /name HTTP/1.1".
std::string answer(const fs::path& directory, const std::string& request) {
  const auto end = request.find(' ', 5);
  if (!request.starts_with("GET /") || end == std::string::npos) return "HTTP/1.1 400 Bad Request\r\n\r\n";
  const auto name = request.substr(5, end - 5);
  std::string body;
  if (name.empty()) {
    for (const auto& entry : fs::directory_iterator{directory})
      body += entry.path().filename().string() + "\n";
  } else {
    const auto path = directory / name;
    if (name.find('/') != std::string::npos || !fs::is_regular_file(fs::symlink_status(path)))
      return "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
    std::ifstream file{path, std::ios::binary};
    body.assign(std::istreambuf_iterator<char>{file}, {});
  }
  return "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) +
         "\r\nConnection: close\r\n\r\n" + body;
}

void serve(tcp::acceptor& acceptor, const fs::path& directory) {
  acceptor.async_accept([&](const error_code& error, tcp::socket accepted) {
    if (error) return;
    const auto socket = std::make_shared<tcp::socket>(std::move(accepted));
    const auto text = std::make_shared<std::string>();
    asio::async_read_until(*socket, asio::dynamic_buffer(*text, 8192), "\r\n\r\n",
                           [&directory, socket, text](const error_code& unread, std::size_t) {
                             if (unread) return;
                             *text = answer(directory, *text);
                             asio::async_write(*socket, asio::buffer(*text),
                                               [socket, text](const error_code&, std::size_t) {});
                           });
    serve(acceptor, directory);
  });
}

int main(int count, char** words) {
  const auto number = sallyport::Port::from(count > 2 ? std::strtoul(words[2], nullptr, 10) : 8000);
  if (count < 2 || !number || !fs::is_directory(words[1]))
    return std::fprintf(stderr, "usage: file_server DIRECTORY [PORT]\n"), 2;
  const fs::path directory = words[1];
  asio::io_context io;
  tcp::acceptor acceptor{io, {tcp::v4(), number->number()}};
  serve(acceptor, directory);

  sallyport::client::Client client{io.get_executor()};
  auto port = client.open({.internal_port = *number, .description = "file server"});
  port.async_wait([](const error_code& error, const sallyport::client::Grant& grant) {
    if (error)
      std::printf("not reachable yet: %s\n", error.message().c_str());
    else
      std::printf("http://%s/\n", to_string(grant.external).c_str());
    std::fflush(stdout);
  });
  asio::signal_set signals{io, SIGINT, SIGTERM};
  signals.async_wait(
      [&](const error_code&, int) { port.async_close([&](const error_code&) { io.stop(); }); });
  io.run();
}
