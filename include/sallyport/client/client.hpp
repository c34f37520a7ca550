#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/system/error_code.hpp>
#include <boost/version.hpp>

#include "sallyport/client/detail/completion.hpp"
#include "sallyport/client/error.hpp"
#include "sallyport/client/netcheck.hpp"
#include "sallyport/client/port.hpp"

#if defined(BOOST_ASIO_DISABLE_THREADS) || defined(BOOST_ASIO_NO_TYPEID) || defined(BOOST_ASIO_HAS_IO_URING)
#error \
    "The Sallyport library shares Asio's objects with this program, which must not be built without threads or RTTI, or on io_uring"
#endif

/// Opens ports of this host at whatever gateway the network has, and keeps them open. One call, any
/// completion token:
///
///     boost::asio::io_context io;
///     sallyport::client::Client client{io.get_executor()};
///     auto [error, port] = co_await client.async_open({.internal_port = *sallyport::Port::from(22000)},
///     as_tuple);
///
/// No thread, no global state, nothing outside the executor given. All classes may be used from several
/// threads at once, and the executor may be run by several; a completion handler runs on its own executor,
/// else on the client's.
namespace sallyport::client {

struct ClientOptions {
  bool pcp = true, natpmp = true, upnp = true;
  std::vector<Address> gateways{};  ///< ask these, and no others; empty: the default routers, and who answers
                                    ///< to a search
  std::vector<std::string> interfaces{};  ///< only these; empty: all that lead to a gateway
  /// A file of this program, in which it keeps what proves that its mappings are its own, and the external
  /// ports it had: then a program that crashed takes its mappings over when it starts again, instead of being
  /// refused its own port until the old lease ends. Made when missing, mode 0600; beside it a lock. Several
  /// runs of one program may share it when they keep different ports. Empty: nothing is kept.
  std::string state_file{};
};

class PortHandle;
class ClientState;

/// What the calls below are made of; not for programs.
namespace detail {
using State = std::shared_ptr<ClientState>;
using WaitDone = Completion<boost::system::error_code, Grant>;
using EventDone = Completion<boost::system::error_code, Event>;
using CloseDone = Completion<boost::system::error_code>;
using OpenDone = Completion<boost::system::error_code, PortHandle>;
using GatewaysDone = Completion<boost::system::error_code, std::vector<Gateway>>;
using NetcheckDone = Completion<boost::system::error_code, NetcheckReport>;

boost::asio::any_io_executor executor_of(const State& state);
/// The library and its user hand Asio's objects to each other, so both must have the same version of Boost;
/// with another one than the library's, this does not link.
template <int boost_version>
std::uint64_t next_call(const State& state);
void cancel_call(const std::weak_ptr<ClientState>& state, std::uint64_t call);
void begin_wait(const State& state, std::uint64_t door, std::uint64_t call, WaitDone done);
void begin_next_event(const State& state, std::uint64_t door, std::uint64_t call, EventDone done);
void begin_close(const State& state, std::uint64_t door, std::uint64_t call, CloseDone done);
void begin_open(const State& state, PortRequest request, std::uint64_t call, OpenDone done);
void begin_list_gateways(const State& state, std::uint64_t call, GatewaysDone done);
void begin_netcheck(const State& state, NetcheckOptions options, std::uint64_t call, NetcheckDone done);

/// Begins a call: whoever waits for it may cancel it from now on.
template <class Done, class Handler, class Begin>
void start(const State& state, Handler handler, Begin begin) {
  const auto call = next_call<BOOST_VERSION>(state);
  on_cancel(handler, [weak = std::weak_ptr{state}, call] { cancel_call(weak, call); });
  begin(call, Done{std::move(handler), executor_of(state)});
}
}  // namespace detail

/// One port that is kept open for as long as this lives. Destroying it gives the mapping back in the
/// background; moving it moves that duty. An empty one does nothing and reports Errc::closed.
class PortHandle {
 public:
  PortHandle() noexcept = default;
  PortHandle(PortHandle&& other) noexcept = default;
  PortHandle& operator=(PortHandle&& other) noexcept;  ///< gives back what it held before
  ~PortHandle();

  explicit operator bool() const noexcept { return state_ != nullptr; }

  /// What is open now: none, one, or one of each family.
  std::vector<Grant> grants() const;

  /// Completes with the first grant, at once when there is one; or with why there is none, when all gateways
  /// have refused (after some 0.3 s) or nothing has answered (within 3 s). The handle goes on asking in
  /// either case. One at a time: Errc::busy. Signature: void(error_code, Grant).
  template <class Token>
  auto async_wait(Token&& token) {
    return boost::asio::async_initiate<Token, void(boost::system::error_code, Grant)>(
        [](auto handler, detail::State state, std::uint64_t door) {
          detail::start<detail::WaitDone>(state, std::move(handler), [&](std::uint64_t call, auto done) {
            detail::begin_wait(state, door, call, std::move(done));
          });
        },
        token, state_, door_);
  }

  /// Completes with the next event, oldest first. Of those nobody waits for the 64 latest are kept.
  /// One at a time: Errc::busy. After the last: Errc::closed. Signature: void(error_code, Event).
  template <class Token>
  auto async_next_event(Token&& token) {
    return boost::asio::async_initiate<Token, void(boost::system::error_code, Event)>(
        [](auto handler, detail::State state, std::uint64_t door) {
          detail::start<detail::EventDone>(state, std::move(handler), [&](std::uint64_t call, auto done) {
            detail::begin_next_event(state, door, call, std::move(done));
          });
        },
        token, state_, door_);
  }

  /// Gives the mapping back; completes when the gateway has confirmed it, or with Errc::no_answer when it has
  /// not after some seconds: the lease then ends by itself. The handle is empty from the call on. Signature:
  /// void(error_code).
  template <class Token>
  auto async_close(Token&& token) {
    return boost::asio::async_initiate<Token, void(boost::system::error_code)>(
        [](auto handler, detail::State state, std::uint64_t door) {
          detail::start<detail::CloseDone>(state, std::move(handler), [&](std::uint64_t call, auto done) {
            detail::begin_close(state, door, call, std::move(done));
          });
        },
        token, std::exchange(state_, nullptr), door_);
  }

  /// Lets go of it without giving it back: the lease stays until its lifetime is over. The handle is empty
  /// then.
  void detach();

 private:
  friend class ClientState;
  friend class Client;
  PortHandle(detail::State state, std::uint64_t door) noexcept : state_{std::move(state)}, door_{door} {}

  detail::State state_;
  std::uint64_t door_ = 0;
};

/// Knows the gateways of this host's networks, and keeps the ports that are asked of it. Any number of ports;
/// one client for a program is enough.
class Client {
 public:
  /// Opens its sockets when the first call is made, and watches the network from then on: the executor has
  /// work until the client is destroyed. What the system refuses (no multicast, no netlink) is done without.
  explicit Client(boost::asio::any_io_executor executor, ClientOptions options = {});
  Client(Client&&) noexcept = default;
  Client& operator=(Client&& other) noexcept;
  /// Gives back what its handles still hold: PCP and NAT-PMP are told from here at once, UPnP while the
  /// executor goes on running, for at most 3 s. Handles that outlive it report Errc::closed.
  ~Client();

  /// Begins to open the port; the handle tells how it goes, and keeps trying until it is destroyed.
  PortHandle open(PortRequest request);

  /// As open() and async_wait() in one: completes with the handle of an open port, or with why there is none
  /// and an empty one. Signature: void(error_code, PortHandle).
  template <class Token>
  auto async_open(PortRequest request, Token&& token) {
    return boost::asio::async_initiate<Token, void(boost::system::error_code, PortHandle)>(
        [](auto handler, detail::State state, PortRequest wanted) {
          detail::start<detail::OpenDone>(state, std::move(handler), [&](std::uint64_t call, auto done) {
            detail::begin_open(state, std::move(wanted), call, std::move(done));
          });
        },
        token, state_, std::move(request));
  }

  /// Who could open ports here: asks around for at most 2 s, and makes no mapping.
  /// Signature: void(error_code, std::vector<Gateway>); none is no error.
  template <class Token>
  auto async_list_gateways(Token&& token) {
    return boost::asio::async_initiate<Token, void(boost::system::error_code, std::vector<Gateway>)>(
        [](auto handler, detail::State state) {
          detail::start<detail::GatewaysDone>(state, std::move(handler), [&](std::uint64_t call, auto done) {
            detail::begin_list_gateways(state, call, std::move(done));
          });
        },
        token, state_);
  }

  /// Finds out whether the world can reach this host, and if not, why: see netcheck.hpp.
  /// Signature: void(error_code, NetcheckReport).
  template <class Token>
  auto async_netcheck(NetcheckOptions options, Token&& token) {
    return boost::asio::async_initiate<Token, void(boost::system::error_code, NetcheckReport)>(
        [](auto handler, detail::State state, NetcheckOptions wanted) {
          detail::start<detail::NetcheckDone>(state, std::move(handler), [&](std::uint64_t call, auto done) {
            detail::begin_netcheck(state, std::move(wanted), call, std::move(done));
          });
        },
        token, state_, std::move(options));
  }

 private:
  detail::State state_;
};

}  // namespace sallyport::client
