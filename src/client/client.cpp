#include "sallyport/client/client.hpp"

#include <boost/asio/system_executor.hpp>

#include "src/client/state.hpp"

namespace sallyport::client {
namespace detail {

boost::asio::any_io_executor executor_of(const State& state) {
  return state ? state->executor() : boost::asio::any_io_executor{boost::asio::system_executor{}};
}

template <int boost_version>
std::uint64_t next_call(const State& state) {
  return state ? state->next_call() : 0;
}
template std::uint64_t next_call<BOOST_VERSION>(const State& state);

void cancel_call(const std::weak_ptr<ClientState>& state, std::uint64_t call) {
  if (const auto here = state.lock()) here->cancel(call);
}

void begin_wait(const State& state, std::uint64_t door, std::uint64_t call, WaitDone done) {
  if (!state) return done(make_error_code(Errc::closed), Grant{});
  state->begin_wait(door, call, std::move(done));
}

void begin_next_event(const State& state, std::uint64_t door, std::uint64_t call, EventDone done) {
  if (!state) return done(make_error_code(Errc::closed), Event{});
  state->begin_next_event(door, call, std::move(done));
}

void begin_close(const State& state, std::uint64_t door, std::uint64_t call, CloseDone done) {
  if (!state) return done(make_error_code(Errc::closed));
  state->begin_close(door, call, std::move(done));
}

void begin_open(const State& state, PortRequest request, std::uint64_t call, OpenDone done) {
  if (!state) return done(make_error_code(Errc::closed), PortHandle{});
  state->begin_open(std::move(request), call, std::move(done));
}

void begin_list_gateways(const State& state, std::uint64_t call, GatewaysDone done) {
  if (!state) return done(make_error_code(Errc::closed), {});
  state->begin_list_gateways(call, std::move(done));
}

void begin_netcheck(const State& state, NetcheckOptions options, std::uint64_t call, NetcheckDone done) {
  if (!state) return done(make_error_code(Errc::closed), {});
  state->begin_netcheck(std::move(options), call, std::move(done));
}

}  // namespace detail

PortHandle& PortHandle::operator=(PortHandle&& other) noexcept {
  if (this != &other) {
    if (const auto state = std::exchange(state_, nullptr)) state->drop(door_, false);
    state_ = std::move(other.state_);
    door_ = other.door_;
  }
  return *this;
}

PortHandle::~PortHandle() {
  if (const auto state = std::exchange(state_, nullptr)) state->drop(door_, false);
}

std::vector<Grant> PortHandle::grants() const {
  return state_ ? state_->grants(door_) : std::vector<Grant>{};
}

void PortHandle::detach() {
  if (const auto state = std::exchange(state_, nullptr)) state->drop(door_, true);
}

Client::Client(boost::asio::any_io_executor executor, ClientOptions options)
    : state_{std::make_shared<ClientState>(std::move(executor), std::move(options))} {}

Client& Client::operator=(Client&& other) noexcept {
  if (this != &other) {
    if (state_) state_->shut_down();
    state_ = std::move(other.state_);
  }
  return *this;
}

Client::~Client() {
  if (state_) state_->shut_down();
}

PortHandle Client::open(PortRequest request) {
  if (!state_) return {};
  return {state_, state_->open(std::move(request))};
}

}  // namespace sallyport::client
