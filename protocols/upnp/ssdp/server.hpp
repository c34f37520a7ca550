#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "protocols/upnp/ssdp/codec.hpp"
#include "protocols/upnp/ssdp/search_limit.hpp"
#include "protocols/wire/datagram_core.hpp"
#include "protocols/wire/jitter.hpp"
#include "protocols/wire/pending_limit.hpp"

namespace sallyport::upnp::ssdp {

/// What is advertised. The texts are printable ASCII and so short that no message exceeds max_message: UDNs up to
/// 68 characters, types up to 128.
struct Tree {
  struct Device {
    std::string udn;   ///< "uuid:...", as the description's UDN says
    std::string type;  ///< without the version: "urn:schemas-upnp-org:device:InternetGatewayDevice"
    unsigned version = 1;
  };
  struct Service {
    std::string type;  ///< without the version: "urn:schemas-upnp-org:service:WANIPConnection"
    unsigned version = 1;
    std::size_t device = 0;  ///< index in `devices`
  };
  std::vector<Device> devices;  ///< the root device first
  std::vector<Service> services;
  std::uint32_t config_id = 0;  ///< 0..max_config_id; another one whenever a description or SCPD is another
};

/// An address of the gateway on a served LAN interface: announcements leave from it and say where the description
/// is there.
struct LanAddress {
  std::uint32_t interface = 0;  ///< its index
  Prefix address;               ///< the address with the length of its subnet's prefix
  friend bool operator==(const LanAddress&, const LanAddress&) = default;
};

/// The SSDP side of a root device (UDA 1.1, section 1): it announces a tree of devices and answers searches for it.
///
/// Holds no socket and reads no clock or random device: feed it with handle_datagram, then drain poll_transmit, then
/// wake it at next_deadline. Equal inputs and an equal seed give equal outputs. Not thread-safe: control thread only.
///
/// Only searches count; nothing is kept of what others announce or answer (POL-DSC-04). Whether a search was
/// multicast is read from Arrival::destination, which is a group then.
class Server final : public wire::DatagramCore {
 public:
  /// Answers that may wait at once, of a source and in all (POL-DSC-02); a search that would exceed either is dropped.
  static constexpr std::size_t max_waiting_of_source = 64;
  static constexpr std::size_t max_waiting = 1024;
  /// Copies of each announcement at the start and after a change; half-time refreshes send one less.
  static constexpr int copies = 3;

  struct Options {
    std::string system = "Linux";       ///< first token of SERVER: "Linux/6.1"
    std::string product = "Sallyport";  ///< last token of SERVER: "Sallyport/1.0"
    Version version = Version::uda_1_1;
    std::uint16_t http_port = 5000;          ///< of LOCATION
    std::string description_path = "/";      ///< of LOCATION: "/root.xml"
    std::uint32_t max_age_s = 1800;          ///< UDA asks for 1800 or more; below 60 it is 60
    SearchLimit::Options limit{};
  };
  struct Counts {
    std::uint64_t searches = 0;    ///< whole M-SEARCHes, whether or not they are answered
    std::uint64_t answered = 0;    ///< of these, the answered ones
    std::uint64_t unsound = 0;     ///< dropped: no search, or not as UDA wants it
    std::uint64_t over_limit = 0;  ///< dropped: its source, or all sources together, ask too much
  };

  /// `boot_id`: 0..max_boot_id, above every one used before; whoever starts the gateway sees to it (seconds since
  /// some day will do). `wall` is asked for DATE only.
  Server(Tree tree, Options options, std::uint32_t boot_id, std::function<WallTime()> wall, std::uint64_t seed);

  /// The addresses on served interfaces, all of them at each call; what equals the last ones changes nothing. The
  /// first addresses at all start the device: byebye, to clear what caches hold from an unclean end, then alive
  /// (UDA 1.2.2). Addresses that come later raise BOOTID: ssdp:update where the device was announced already, then
  /// alive everywhere (UDA 1.2.4). An interface left without any address gets byebye, as far as that still leaves.
  void set_served(std::span<const LanAddress> addresses, TimePoint now);

  /// Another tree or configuration: byebye for the old one, BOOTID rises, alive for the new one.
  void set_tree(Tree tree, TimePoint now);

  /// From now on; what sources have used up is forgotten when it is another one.
  void set_limit(const SearchLimit::Options& limit);

  /// Orderly end: byebye, twice because UDP loses datagrams (UDA 1.2.3); answers that wait are forgotten and nothing
  /// is heard any more. Drain poll_transmit after it.
  void stop();

  std::uint32_t boot_id() const noexcept { return boot_id_; }  ///< BOOTID.UPNP.ORG now
  const Counts& counts() const noexcept { return counts_; }
  std::size_t waiting() const noexcept { return waiting_.size(); }  ///< answers

  void handle_datagram(std::span<const std::byte> datagram, const wire::Arrival& arrival,
                       TimePoint now) override;
  void handle_timeout(TimePoint now) override;
  std::optional<wire::Outgoing> poll_transmit() override;
  std::optional<TimePoint> next_deadline() const override;

 private:
  /// One thing that is announced: upnp:rootdevice, a UDN, or the type of a device or service.
  struct Target {
    std::string udn;
    std::string type;      ///< NT without a version
    unsigned version = 0;  ///< 0: this target has none
    std::size_t octets = 0;  ///< of an answer about it, without its LOCATION
    std::string nt(unsigned with_version) const;
    std::string usn(unsigned with_version) const;
  };
  struct Match {
    const Target* target = nullptr;
    unsigned version = 0;  ///< to be echoed
  };
  struct Answer {
    std::size_t target = 0;
    unsigned version = 0;
    Address to;
    std::uint16_t to_port = 0;
    Address from;
    std::uint32_t interface = 0;
  };

  void load(Tree tree);
  std::vector<Match> matches(std::string_view target) const;
  const LanAddress* answering_address(const wire::Arrival& arrival) const;
  bool serves(std::uint32_t interface, const Address& address) const;
  Announcement announcement(std::string_view nt, std::string_view usn, std::string_view location) const;
  void notify(NotifyKind kind, std::span<const LanAddress> from, std::uint32_t next_boot_id = 0);
  void raise_boot_id(std::span<const LanAddress> announced);
  void announce_soon(TimePoint now);
  void send_answer(const Answer& answer);
  std::chrono::nanoseconds below(std::chrono::nanoseconds limit);

  Options options_;
  std::string server_;
  std::vector<Target> targets_;
  std::uint32_t config_id_ = 0;
  std::uint32_t boot_id_;
  std::function<WallTime()> wall_;
  wire::Jitter jitter_;

  std::vector<LanAddress> served_;
  bool started_ = false;
  bool stopped_ = false;
  bool announced_ = false;  ///< somebody may know the device with this BOOTID
  int copies_left_ = 0;
  std::optional<TimePoint> alive_due_;

  SearchLimit limit_;
  wire::PendingLimit pending_{max_waiting, max_waiting_of_source};
  std::multimap<TimePoint, Answer> waiting_;
  std::deque<wire::Outgoing> out_;
  Counts counts_;
};

}  // namespace sallyport::upnp::ssdp
