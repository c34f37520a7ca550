#pragma once

#include <cerrno>
#include <filesystem>
#include <future>
#include <thread>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "src/admin/server.hpp"
#include "tests/src/lease/service_fixture.hpp"

namespace sallyport::test {

/// A lease service whose admin API is open on a socket in a directory of its own. The service lives on a
/// thread of its own: once serve() ran, touch it inside control() only.
class AdminTest : public ServiceTest {
 protected:
  AdminTest() {
    auto pattern = (std::filesystem::temp_directory_path() / "sallyport-admin-XXXXXX").string();
    dir = ::mkdtemp(pattern.data());
    options.socket = dir / "admin.sock";
  }
  ~AdminTest() override {
    stop();
    std::filesystem::remove_all(dir);
  }

  void serve() {
    if (!service) boot();
    make_server();
    std::string why;
    ASSERT_TRUE(server->start(why)) << why;
    thread = std::thread{[this] { io.run(); }};
  }
  void make_server() {
    admin::Sources sources;
    sources.status = [this] { return status; };
    sources.device = [](const Address& device) -> admin::DeviceIdentity {
      if (device == console) return {"02:00:00:00:00:10", "Xbox"};
      return {};
    };
    // stands for the store's thread and the daemon's timer
    sources.after_change = [this] {
      boost::asio::post(io, [this] {
        if (!commits) return;
        commit();
        run_slices();
      });
    };
    server = std::make_unique<admin::Server>(io, *service, clock, std::move(sources), options);
  }
  void stop() {
    if (!thread.joinable()) return;
    control([this] { server.reset(); });
    io.stop();
    thread.join();
  }
  template <class F>
  std::invoke_result_t<F> control(F work_to_do) {
    std::packaged_task<decltype(work_to_do())()> task{std::move(work_to_do)};
    auto done = task.get_future();
    boost::asio::post(io, [&task] { task(); });
    return done.get();
  }

  /// A connection that has its own idea of HTTP. Reads give up after ten seconds.
  class Raw {
   public:
    explicit Raw(const std::string& path) : fd_{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)} {
      sockaddr_un to{};
      to.sun_family = AF_UNIX;
      path.copy(to.sun_path, sizeof to.sun_path - 1);
      const timeval patience{10, 0};
      ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
      ::setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
      connected = ::connect(fd_, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0;
    }
    ~Raw() { ::close(fd_); }
    Raw(const Raw&) = delete;
    Raw& operator=(const Raw&) = delete;
    bool send(std::string_view text) const {
      while (!text.empty()) {
        const auto sent = ::send(fd_, text.data(), text.size(), MSG_NOSIGNAL);
        if (sent <= 0) return false;
        text.remove_prefix(static_cast<std::size_t>(sent));
      }
      return true;
    }
    void end() const { ::shutdown(fd_, SHUT_WR); }
    /// Until `mark` has come (or the end); what has come.
    std::string read_until(std::string_view mark) {
      while (mark.empty() || got_.find(mark) == got_.npos) {
        char room[4096];
        const auto size = ::recv(fd_, room, sizeof room, 0);
        ended = size == 0 || (size < 0 && errno == ECONNRESET);
        if (size <= 0) break;
        got_.append(room, static_cast<std::size_t>(size));
      }
      return got_;
    }
    std::string read_all() { return read_until({}); }
    bool connected = false;
    bool ended = false;  ///< by the server, not by our patience

   private:
    int fd_;
    std::string got_;
  };

  std::string ask_raw(std::string_view text) {
    Raw raw{options.socket};
    raw.send(text);
    return raw.read_all();
  }
  std::string get(std::string_view target) {
    return ask_raw("GET " + std::string{target} + " HTTP/1.0\r\n\r\n");
  }
  static std::string body_of(const std::string& response) {
    const auto end = response.find("\r\n\r\n");
    return end == response.npos ? std::string{} : response.substr(end + 4);
  }
  std::string request(std::string_view method, std::string_view target, std::string_view body = {}) {
    return ask_raw(std::string{method} + " " + std::string{target} +
                   " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" +
                   "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + std::string{body});
  }
  std::string id_of(const std::shared_ptr<Answer<Granted>>& answer) {
    return service->views(std::array{number_of(answer)}, now()).at(0).id;
  }

  std::filesystem::path dir;
  admin::ServerOptions options;
  admin::DaemonStatus status;
  bool commits = true;
  boost::asio::io_context io;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work{io.get_executor()};
  std::unique_ptr<admin::Server> server;
  std::thread thread;
};

}  // namespace sallyport::test
