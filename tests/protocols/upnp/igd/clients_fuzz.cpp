// A gateway that answers whatever it likes, to all that asks it: nothing is asked without end while no time
// passes, nothing waits for ever, and giving back ends.
#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <optional>
#include <string>

#include "protocols/upnp/igd/pinhole_client.hpp"
#include "protocols/upnp/igd/port_mapping_client.hpp"

using namespace sallyport;
using namespace sallyport::upnp;
using namespace std::chrono_literals;

namespace {

class Script {
 public:
  Script(const std::uint8_t* data, std::size_t size) : data_{data}, size_{size} {}
  bool empty() const { return at_ == size_; }
  std::uint8_t next() { return empty() ? std::uint8_t{0} : data_[at_++]; }

  Result<http::Reply> reply(const http::Ask& ask) {
    static constexpr unsigned codes[] = {401, 402, 501, 600, 602, 603, 606, 701, 702, 703,
                                         704, 705, 713, 714, 715, 716, 718, 724, 725, 726,
                                         727, 728, 729, 732, 0,   999, 708, 604, 605, 707};
    const auto kind = next();
    if (kind < 40) return boost::system::errc::make_error_code(boost::system::errc::timed_out);
    if (kind < 110) {
      const auto code = codes[next() % std::size(codes)];
      return http::Reply{
          .status = 500,
          .body = "<UPnPError><errorCode>" + std::to_string(code) + "</errorCode></UPnPError>"};
    }
    if (kind < 130) return http::Reply{.status = 200u + next() * 2u, .body = std::string(next() % 8, '<')};
    const auto named = std::string{ask.fields.find("SOAPACTION").value_or("#x\"")};
    const auto begin = named.find('#') + 1;
    const auto action = named.substr(begin, named.size() - begin - 1);
    http::Reply reply{.status = 200, .body = "<E><" + action + "Response>"};
    for (const auto* const name : {"NewReservedPort", "NewInternalPort", "NewInternalClient", "NewEnabled",
                                   "NewLeaseDuration", "UniqueID", "FirewallEnabled", "InboundPinholeAllowed",
                                   "NewExternalIPAddress", "NewConnectionStatus"}) {
      static constexpr const char* values[] = {"",      "0",   "1",  "6000",  "192.168.1.10",  "192.168.1.20",
                                               "65536", "yes", "-1", "86400", "1000000000000", "Connected",
                                               "no",    "30"};
      const auto choice = next();
      if (choice % 16 >= std::size(values)) continue;
      reply.body += std::string{"<"} + name + ">" + values[choice % 16] + "</" + name + ">";
    }
    reply.body += "</" + action + "Response></E>";
    return reply;
  }

 private:
  const std::uint8_t* data_;
  std::size_t size_, at_ = 0;
};

void drive(igd::ServiceClient& client, Script& script, TimePoint now) {
  const auto carry = [&] {
    for (int asks = 0;; ++asks) {
      const auto asked = client.poll_ask();
      if (!asked) break;
      if (asks > 40 || client.poll_ask()) std::abort();
      client.handle_reply(asked->id, script.reply(asked->ask), now);
    }
    while (const auto event = client.poll_event())
      if (event->kind == wire::MappingEvent::Kind::refused && event->retry_at && *event->retry_at <= now)
        std::abort();
  };
  carry();
  while (!script.empty()) {
    if (script.next() % 8 == 0) client.refresh(now);
    const auto deadline = client.next_deadline();
    if (deadline && *deadline > now) now = *deadline;
    client.handle_timeout(now);
    carry();
    if (!client.next_deadline()) break;  // refused for good
  }
  client.release(now);
  for (int i = 0; !client.finished(); ++i) {
    if (i > 10) std::abort();
    carry();
    if (client.finished()) break;
    const auto deadline = client.next_deadline();
    if (!deadline) std::abort();
    now = std::max(now, *deadline);
    client.handle_timeout(now);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Script script{data, size};
  const auto how = script.next();
  igd::Connection connection{.service_type = "urn:schemas-upnp-org:service:X:1",
                             .version = how & 1u ? 2u : 1u,
                             .host = Address::v4(0xc0a80101),
                             .target = "/ctl"};
  wire::MappingWish wish{.internal_port = *Port::from(how & 2 ? 6000 : 80)};
  wish.exact = (how & 4) != 0;
  wish.lifetime_s = how & 8 ? 60 : 7200;
  if (how & 16) wish.description = "\xc3\xbc";
  const TimePoint now{1h};
  if (how & 32) {
    igd::PinholeClient client{connection, wish, *Address::parse("2001:db8::10"), how, now};
    drive(client, script, now);
  } else {
    igd::PortMappingClient client{connection, wish, Address::v4(0xc0a8010a), how, now};
    drive(client, script, now);
  }
  return 0;
}
