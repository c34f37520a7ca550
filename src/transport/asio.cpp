// Asio's own code. One thing is another than in Asio's header: its counter of work within a handler is
// thread-local, and a program that has Asio in headers runs its io_context with a counter of its own, not
// with ours. A descriptor of ours that wakes with nobody waiting would then look for ours and find none; the
// counter that all threads share does as well.
#define BOOST_ASIO_SOURCE
#include <boost/asio/detail/config.hpp>

#if defined(BOOST_ASIO_HAS_EPOLL)
#include <boost/asio/detail/epoll_reactor.hpp>
#include <boost/asio/detail/scheduler.hpp>

#include <boost/asio/detail/impl/scheduler.ipp>
#define compensating_work_started work_started
#include <boost/asio/detail/impl/epoll_reactor.ipp>
#undef compensating_work_started
#endif

#include <boost/asio/impl/src.hpp>
