#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/strand.hpp>

#include "sallyport/client/client.hpp"
#include "src/client/core.hpp"
#include "src/client/http_client.hpp"
#include "src/client/memory.hpp"
#include "src/transport/netlink.hpp"

namespace sallyport::client {

namespace netcheck {
class Run;
}

/// What is behind Client and its handles: the core, and the sockets, the clock and the network it needs. Any
/// thread; one lock guards it all, and nobody is called back while it is held.
class ClientState : public std::enable_shared_from_this<ClientState> {
 public:
  ClientState(boost::asio::any_io_executor executor, ClientOptions options);
  ~ClientState();

  const boost::asio::any_io_executor& executor() const noexcept { return executor_; }
  std::uint64_t next_call() noexcept;
  void cancel(std::uint64_t call);

  DoorId open(PortRequest request);
  void begin_wait(DoorId door, std::uint64_t call, detail::WaitDone done);
  void begin_next_event(DoorId door, std::uint64_t call, detail::EventDone done);
  void begin_close(DoorId door, std::uint64_t call, detail::CloseDone done);
  void begin_open(PortRequest request, std::uint64_t call, detail::OpenDone done);
  void begin_list_gateways(std::uint64_t call, detail::GatewaysDone done);
  void begin_netcheck(NetcheckOptions options, std::uint64_t call, detail::NetcheckDone done);
  std::vector<Grant> grants(DoorId door);
  std::vector<Core::Refusal> refusals(DoorId door, Family family);
  /// The door that the program keeps for the port already.
  std::optional<DoorId> door_of(Transport transport, Port port);
  /// The handle has gone; nobody waits for what comes of it.
  void drop(DoorId door, bool leave_lease);
  /// The client has gone: everything is given back, in the background.
  void shut_down();
  /// The execution context ends, and with it all that waits there: nothing of Asio's is touched from now on.
  void end_with_context();
  /// The interfaces as they are now.
  Network network();

 private:
  struct Channel;
  template <class Done>
  struct Call {
    std::uint64_t id = 0;
    Done done;
    explicit operator bool() const noexcept { return static_cast<bool>(done); }
  };
  /// What the program holds of a door.
  struct Held {
    explicit Held(PortRequest wanted) : request{std::move(wanted)} {}
    PortRequest request;
    std::deque<Event> events;
    std::array<std::optional<Grant>, 2> grants;
    std::array<boost::system::error_code, 2> refused;
    Call<detail::WaitDone> wait;
    Call<detail::OpenDone> open;
    Call<detail::EventDone> next_event;
    Call<detail::CloseDone> close;
    std::optional<TimePoint> close_until;
    bool has_handle = true;
  };
  struct Listing {
    Call<detail::GatewaysDone> done;
    TimePoint begun{};
  };

  void start();
  bool has_alarm() const { return alarm_ && alarm_->is_open(); }
  void end_waiting(Held& held);
  void give_everything_back(TimePoint now);
  void open_listeners();
  DoorId open_locked(PortRequest request);
  void close_locked(DoorId door, bool leave_lease);
  void read_network();
  void take_network(const transport::NetworkState& state);
  void pump();
  void send(Core::Datagram& datagram);
  void ask(Core::Ask ask);
  void take_event(DoorId door, Event event);
  void tell_waiters(Held& held, DoorId door);
  void finish_listings(TimePoint now);
  void set_alarm(TimePoint now);
  void wait_for_alarm();
  void on_alarm();
  std::shared_ptr<Channel> channel_for_server(const Core::Datagram& datagram);
  std::shared_ptr<Channel> channel_for_search(const Core::Datagram& datagram);
  void listen(const std::shared_ptr<Channel>& channel);
  void on_readable(Channel& channel);
  void join_groups();

  const boost::asio::any_io_executor executor_;
  std::optional<boost::asio::strand<boost::asio::any_io_executor>> strand_;  ///< none: the context has ended
  const ClientOptions options_;
  std::mutex mutex_;
  std::atomic<std::uint64_t> last_call_ = 0;
  bool started_ = false, shut_down_ = false, pumping_ = false;

  Memory memory_;
  std::unique_ptr<Core> core_;
  std::unique_ptr<transport::NetworkWatcher> watcher_;
  std::shared_ptr<HttpClient> http_;
  std::optional<boost::asio::posix::stream_descriptor> alarm_;
  std::optional<TimePoint> alarm_at_;
  std::optional<TimePoint> linger_until_;

  Network network_;
  std::map<std::uint64_t, std::shared_ptr<Channel>> servers_;
  std::map<std::pair<std::uint32_t, bool>, std::shared_ptr<Channel>>
      searches_;  ///< by interface, and IPv6 or not
  std::vector<std::shared_ptr<Channel>> listeners_;

  std::map<DoorId, Held> doors_;
  std::vector<Listing> listings_;
  std::map<std::uint64_t, std::weak_ptr<netcheck::Run>> netchecks_;  ///< by call
  DoorId last_door_ = 0;
};

}  // namespace sallyport::client
