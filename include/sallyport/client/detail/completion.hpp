#pragma once

#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/associated_executor.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>

namespace sallyport::client::detail {

/// Somebody who waits for a result, whatever completion token he came with. Called at most once; he is told
/// on his own executor, never from within the call.
template <class... Results>
class Completion {
 public:
  Completion() noexcept = default;

  /// `executor` counts where the handler names none of its own.
  template <class Handler>
  Completion(Handler handler, const boost::asio::any_io_executor& executor)
      : waiting_{std::make_unique<Waiting<Handler>>(std::move(handler), executor)} {}

  explicit operator bool() const noexcept { return waiting_ != nullptr; }
  void operator()(Results... results) {
    if (const auto waiting = std::exchange(waiting_, nullptr)) waiting->tell(std::move(results)...);
  }

 private:
  struct Anyone {
    virtual ~Anyone() = default;
    virtual void tell(Results... results) = 0;
  };
  template <class Handler>
  struct Waiting final : Anyone {
    using Executor = boost::asio::associated_executor_t<Handler, boost::asio::any_io_executor>;

    Waiting(Handler&& given, const boost::asio::any_io_executor& executor)
        : handler{std::move(given)}, work{boost::asio::get_associated_executor(handler, executor)} {}
    void tell(Results... results) override {
      auto slot = boost::asio::get_associated_cancellation_slot(handler);
      boost::asio::post(work.get_executor(),
                        [told = std::move(handler), slot, all = std::tuple{std::move(results)...}]() mutable {
                          if (slot.is_connected()) slot.clear();
                          std::apply(std::move(told), std::move(all));
                        });
    }
    Handler handler;
    boost::asio::executor_work_guard<Executor> work;
  };

  std::unique_ptr<Anyone> waiting_;
};

/// Lets whoever waits change his mind (any type of cancellation): `cancel` is called then, in his thread.
template <class Handler, class Cancel>
void on_cancel(const Handler& handler, Cancel cancel) {
  auto slot = boost::asio::get_associated_cancellation_slot(handler);
  if (slot.is_connected())
    slot.assign([cancel = std::move(cancel)](boost::asio::cancellation_type) mutable { cancel(); });
}

}  // namespace sallyport::client::detail
