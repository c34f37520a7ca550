#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/ip/udp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>

#include "sallyport/client/client.hpp"
#include "sallyport/values/time.hpp"
#include "src/client/netcheck/report.hpp"
#include "src/client/network.hpp"

namespace sallyport::client::netcheck {

/// One netcheck: looks at the network, opens the test port by every way out, asks the helper, gives the test
/// mappings back and reports. What it has begun keeps it alive; everything happens on its own strand. Each
/// gateway is asked by a client of its own, so what the program itself holds open is not disturbed.
class Run : public std::enable_shared_from_this<Run> {
 public:
  Run(const std::shared_ptr<ClientState>& client, ClientOptions gateways, NetcheckOptions options,
      detail::NetcheckDone done);
  ~Run();

  void start();
  /// Ends it without a report. Any thread.
  void stop(boost::system::error_code reason);

 private:
  struct Way;
  struct Socket;

  void begin();
  void take_port();
  void add_ways(const Network& network);
  void add_way(const Network::Interface& interface, std::optional<Address> gateway, bool routed);
  void add_ipv6_way(const Network::Interface& interface);
  void open_test_port(Way& way, bool six, ClientOptions gateways);
  void resolve();
  void take_listing(const std::vector<Gateway>& gateways);

  void look();
  void advance(Way& way, TimePoint now);
  void take_mapping(Way& way);
  void ask_view(Way& way, TimePoint now);
  void ask_probe(Way& way, TimePoint now);
  void give_back();
  void set_alarm(TimePoint now);
  void finish(boost::system::error_code error);
  Observations observations() const;

  std::shared_ptr<Socket> open_socket(Way* way, int descriptor);
  void listen(const std::shared_ptr<Socket>& socket);
  void on_readable(Socket& socket);
  const std::optional<ExternalEndpoint>& helper_of(const Way& way) const;

  const std::weak_ptr<ClientState> client_;
  const ClientOptions gateways_;
  const NetcheckOptions options_;
  detail::NetcheckDone done_;
  const boost::asio::strand<boost::asio::any_io_executor> strand_;
  boost::asio::steady_timer alarm_;
  boost::asio::ip::udp::resolver resolver_;
  const TimePoint begun_, open_until_, probe_until_, deadline_;

  Network network_;
  std::optional<Port> port_;
  std::optional<std::uint64_t> own_door_;  ///< the program keeps this port open already: nothing is opened
  std::shared_ptr<Socket> listens4_, listens6_;
  std::optional<ExternalEndpoint> helper4_, helper6_;
  bool resolved_ = false, closing_ = false, finished_ = false;
  std::uint64_t listing_ = 0;  ///< the call
  std::optional<TimePoint> listed_at_;
  std::vector<Address> ipv6_;
  std::vector<std::unique_ptr<Way>> ways_;
  std::vector<std::shared_ptr<Socket>> sockets_;
};

}  // namespace sallyport::client::netcheck
