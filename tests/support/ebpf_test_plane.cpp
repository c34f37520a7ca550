#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <set>

#include "nat/packet/build.hpp"
#include "nat/packet/checksum.hpp"
#include "nat/packet/ipv4.hpp"
#include "nat/plane/ebpf/core.hpp"
#include "tests/support/test_plane.hpp"

namespace sallyport::test {
namespace {

using namespace nat;
using namespace nat::ebpf;

constexpr std::size_t header = 14;

/// A namespace with the home's two interfaces, so that addresses, routes and sockets are nobody else's.
std::string enter_namespace() {
  static const std::string problem = []() -> std::string {
    if (geteuid() != 0) return "needs root";
    if (unshare(CLONE_NEWNET) != 0) return "cannot make a network namespace";
    const int result = std::system(
        "ip link set lo up && ip link add lan0 index 2 type veth peer name lan1 index 12 &&"
        " ip link add wan0 index 3 type veth peer name wan1 index 13 &&"
        " ip addr add 192.168.1.1/24 dev lan0 && ip addr add 203.0.113.2/24 dev wan0 &&"
        " for device in lan0 lan1 wan0 wan1; do ip link set $device up; done &&"
        " echo 1 > /proc/sys/net/ipv4/conf/lan0/forwarding");
    return result == 0 ? "" : "cannot make interfaces";
  }();
  return problem;
}

std::uint32_t address_at(std::span<const std::byte> packet, std::size_t at) {
  return packet.size() < at + 4 ? 0
                                : packet::load32(reinterpret_cast<const std::uint8_t*>(packet.data()) + at);
}

/// The programs for the kernel, run on one packet at a time without interfaces (BPF_PROG_TEST_RUN), with the
/// stack around them played: what forwards, what is the gateway's own. As MemoryPlane, so the same tests run
/// on both. In a network namespace of the process's own; needs root.
class EbpfTestPlane final : public TestPlane {
 public:
  using Octets = std::vector<std::byte>;

  explicit EbpfTestPlane(const EngineOptions& options = {});
  ~EbpfTestPlane() override;

  std::string unusable() const override { return unusable_; }

  std::vector<Emitted> pass(Octets octets, Side from, TimePoint now) override;
  Action last_action() const override { return last_action_; }
  DropReason last_reason() const override { return last_reason_; }
  void listen(Transport transport, std::uint16_t port) override;
  void close(Transport transport, std::uint16_t port) override;
  std::vector<Emitted> take_made() override;
  Engine* engine() override { return nullptr; }

  Result<Installed> install(const MappingSpec& spec, TimePoint now) override;
  std::optional<FoundRange> find_range(const RangeSpec& spec, TimePoint now) override {
    return core_->engine().find_range(spec, now);
  }
  Result<void> renew(MappingId id, TimePoint deadline) override;
  Result<void> set_remotes(MappingId id, std::span<const RemoteFilter> remotes, bool outbound,
                           TimePoint now) override;
  void withdraw(MappingId id, Ending how, TimePoint now) override;
  void end_flows(const Address& device, TimePoint now) override;
  Result<Counters> counters(MappingId id) const override;
  std::optional<TimePoint> held_until(Transport transport, const Address& device, Port external,
                                      TimePoint now) const override;
  std::optional<Address> external_for(const Address& device) const override;
  Result<void> set_network(const NetworkView& network, TimePoint now) override;
  Result<void> set_policy(const PlanePolicy& policy, TimePoint now) override;
  std::vector<PlaneEvent> sweep(TimePoint now) override;
  std::vector<ImplicitView> implicit_mappings(TimePoint now) const override;
  bool has_implicit(Transport transport, const InternalEndpoint& internal, TimePoint now) const override;
  PlaneStatus status() const override;

 private:
  struct Ports final : OwnPorts {
    std::set<std::pair<Transport, std::uint16_t>> ports;
    bool in_use(Transport transport, std::uint16_t port) const override {
      return ports.contains({transport, port});
    }
  };
  struct Ran {
    int verdict = 0;
    Octets frame;
  };

  Ran run(Hook hook, std::span<const std::byte> packet, std::uint32_t mark);
  void through(sp_side side, Octets packet, std::uint32_t mark, std::vector<Emitted>& out);
  void stack(Octets packet, std::vector<Emitted>& out);
  void give(std::span<const std::byte> packet, sp_back how, sp_side side, std::vector<Emitted>& out);
  void dropped(DropReason reason);
  bool is_lan(std::uint32_t address) const;
  bool is_gateway(std::uint32_t address) const;

  std::string unusable_;
  Ports own_ports_;
  std::unique_ptr<Core> core_;
  NetworkView network_;
  TimePoint now_{};
  Action last_action_ = Action::drop;
  DropReason last_reason_{};
  std::map<std::pair<Transport, std::uint16_t>, int> sockets_;
  std::map<std::string, std::uint64_t> of_the_stack_;  // drops
};

EbpfTestPlane::EbpfTestPlane(const EngineOptions& options) {
  unusable_ = enter_namespace();
  if (!unusable_.empty()) return;
  std::string why;
  auto tables =
      Tables::load({.flows = 1U << 17, .addresses = static_cast<std::uint32_t>(options.addresses)},
                   options.secret, {}, why);
  if (!tables) {
    unusable_ = why;
    return;
  }
  core_ = std::make_unique<Core>(std::move(*tables), options, own_ports_, TimePoint{});
}

EbpfTestPlane::~EbpfTestPlane() {
  for (const auto& [port, socket] : sockets_) ::close(socket);
}

void EbpfTestPlane::listen(Transport transport, std::uint16_t port) {
  own_ports_.ports.emplace(transport, port);
  if (!core_) return;
  const bool tcp = transport == Transport::tcp;
  const int fd = socket(AF_INET, (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0 && tcp) ::listen(fd, 1);
  sockets_[{transport, port}] = fd;
}

void EbpfTestPlane::close(Transport transport, std::uint16_t port) {
  own_ports_.ports.erase({transport, port});
  if (const auto found = sockets_.find({transport, port}); found != sockets_.end()) {
    ::close(found->second);
    sockets_.erase(found);
  }
}

bool EbpfTestPlane::is_lan(std::uint32_t address) const {
  for (const PlaneInterface& lan : network_.lan)
    for (const Prefix& prefix : lan.prefixes)
      if (prefix.contains(Address::v4(address))) return true;
  return false;
}
bool EbpfTestPlane::is_gateway(std::uint32_t address) const {
  const Address wanted = Address::v4(address);
  for (const auto* side : {&network_.lan, &network_.wan})
    for (const PlaneInterface& interface : *side)
      if (std::find(interface.addresses.begin(), interface.addresses.end(), wanted) !=
          interface.addresses.end())
        return true;
  return std::find(network_.external.begin(), network_.external.end(), wanted) != network_.external.end();
}

void EbpfTestPlane::dropped(DropReason reason) {
  last_action_ = Action::drop;
  last_reason_ = reason;
}

EbpfTestPlane::Ran EbpfTestPlane::run(Hook hook, std::span<const std::byte> octets, std::uint32_t mark) {
  Octets frame(header);
  frame[12] = std::byte{8};
  frame.insert(frame.end(), octets.begin(), octets.end());
  Octets out(frame.size() + 64);
  __sk_buff context{};
  context.mark = mark;
  context.ifindex = hook == Hook::lan_ingress ? network_.lan.front().index : network_.wan.front().index;
  bpf_test_run_opts options{};
  options.sz = sizeof options;
  options.data_in = frame.data();
  options.data_size_in = static_cast<std::uint32_t>(frame.size());
  options.data_out = out.data();
  options.data_size_out = static_cast<std::uint32_t>(out.size());
  options.ctx_in = &context;
  options.ctx_size_in = sizeof context;
  options.repeat = 1;
  if (const int error = bpf_prog_test_run_opts(core_->tables().program(hook), &options); error != 0)
    return {TC_ACT_SHOT, {}};
  out.resize(options.data_size_out);
  return {static_cast<int>(options.retval), std::move(out)};
}

/// What a packet does once it passed the hook at which it came in: forwarded, or the gateway's own.
void EbpfTestPlane::stack(Octets octets, std::vector<Emitted>& out) {
  const std::uint32_t to = address_at(octets, 16);
  const auto protocol = std::to_integer<unsigned>(octets[9]);
  if (to >> 28 >= 14) return dropped(DropReason::martian_destination);  // forwards no groups
  if (is_gateway(to) && protocol != 1 && protocol != 6 && protocol != 17)
    return dropped(DropReason::unknown_protocol);
  if (!is_lan(to) || is_gateway(to)) {
    out.push_back({std::move(octets), Action::local});
    return;
  }
  packet::Ipv4 ip;
  const auto verdict = packet::parse(octets, false, ip);
  if (ip.size && ip.ttl <= 1 && verdict == packet::Malformed::no) {
    const auto error = packet::make_icmp_error(packet::icmp_type::time_exceeded, 0, 0,
                                               network_.external.front().v4_number(), ip);
    dropped(DropReason::ttl_expired);
    through(SP_FROM_ROUTER, {error.begin(), error.end()}, 0, out);
    return;
  }
  auto* data = reinterpret_cast<std::uint8_t*>(octets.data());
  packet::ChecksumChange change;
  change.word(packet::load16(data + 8), static_cast<std::uint16_t>(packet::load16(data + 8) - 256));
  --data[8];
  change.apply_at(data + 10);
  out.push_back({std::move(octets), Action::forward_lan});
}

void EbpfTestPlane::give(std::span<const std::byte> octets, sp_back how, sp_side side,
                         std::vector<Emitted>& out) {
  Octets packet{octets.begin(), octets.end()};
  switch (how) {
    case SP_BACK_RETRY:
      through(side, std::move(packet), SP_MARK_RETRY, out);
      return;
    case SP_BACK_WAN:
      out.push_back({std::move(packet), Action::forward_wan});
      return;
    case SP_BACK_LAN:
      out.push_back({std::move(packet), Action::forward_lan});
      return;
    case SP_BACK_STACK:
      stack(std::move(packet), out);
      return;
  }
}

/// One hook, and what becomes of the packet behind it.
void EbpfTestPlane::through(sp_side side, Octets octets, std::uint32_t mark, std::vector<Emitted>& out) {
  const Hook hook = side == SP_FROM_WAN  ? Hook::wan_ingress
                    : side == SP_HAIRPIN ? Hook::lan_ingress
                                         : Hook::wan_egress;
  sp_config& config = core_->tables().config();
  config.test_iif = side == SP_FROM_LAN ? network_.lan.front().index : 0;
  const auto before = core_->tables().counters();
  Ran ran = run(hook, octets, mark);
  const auto after = core_->tables().counters();
  for (std::size_t i = 1; i < drop_reasons; ++i)
    if (after[i] != before[i]) dropped(static_cast<DropReason>(i));
  const std::span<std::byte> packet =
      ran.frame.size() > header ? std::span{ran.frame}.subspan(header) : std::span<std::byte>{};
  switch (ran.verdict) {
    case TC_ACT_UNSPEC:
      if (side == SP_FROM_WAN || side == SP_HAIRPIN)
        stack({packet.begin(), packet.end()}, out);
      else
        out.push_back({{packet.begin(), packet.end()}, Action::forward_wan});
      return;
    case TC_ACT_REDIRECT: {
      sp_tag tag{};
      std::memcpy(&tag, ran.frame.data() + 6, sizeof tag);
      if (tag.tag0 != SP_TAG_0 || tag.tag1 != SP_TAG_1) {
        out.push_back({{packet.begin(), packet.end()}, Action::forward_lan});
        return;
      }
      std::vector<Emitted> caused;
      const auto to = [&](std::span<const std::byte> made, sp_back how, sp_side from) {
        give(made, how, from, caused);
      };
      const auto fate = core_->take(tag, packet, false, false, now_, to);
      if (fate.goes || core_->last_drop() != DropReason::none)
        last_reason_ = fate.goes ? DropReason::none : core_->last_drop();
      last_action_ = core_->last_held() ? Action::held : Action::drop;
      if (fate.goes) give(packet.first(fate.size), fate.how, static_cast<sp_side>(tag.side), out);
      out.insert(out.end(), caused.begin(), caused.end());
      return;
    }
    default:
      return;
  }
}

std::vector<EbpfTestPlane::Emitted> EbpfTestPlane::pass(Octets octets, Side from, TimePoint now) {
  std::vector<Emitted> out;
  if (!core_) return out;
  now_ = now;
  core_->tables().config().now_ns = static_cast<std::uint64_t>(now.time_since_epoch().count());
  last_action_ = Action::drop;
  last_reason_ = DropReason::none;
  if (from == Side::wan) {
    if (octets.size() < 20)
      dropped(DropReason::truncated);
    else
      through(SP_FROM_WAN, std::move(octets), 0, out);
  } else if (from == Side::router) {
    through(SP_FROM_ROUTER, std::move(octets), 0, out);
  } else {
    const auto pool = network_.pool();
    const bool to_external =
        octets.size() >= 20 &&
        std::find(pool.begin(), pool.end(), Address::v4(address_at(octets, 16))) != pool.end();
    packet::Ipv4 ip;
    const auto verdict = packet::parse(octets, false, ip);
    constexpr DropReason reasons[] = {DropReason::none,
                                      DropReason::truncated,
                                      DropReason::bad_version,
                                      DropReason::bad_header_length,
                                      DropReason::bad_total_length,
                                      DropReason::bad_header_checksum,
                                      DropReason::ttl_zero,
                                      DropReason::bad_option,
                                      DropReason::source_route};
    if (static_cast<std::size_t>(verdict) < std::size(reasons) && verdict != packet::Malformed::no) {
      dropped(reasons[static_cast<std::size_t>(verdict)]);  // the stack takes none of these
      ++of_the_stack_[std::string{to_string(last_reason_)}];
    } else if (to_external) {
      through(SP_HAIRPIN, std::move(octets), 0, out);
    } else if (is_gateway(ip.destination)) {
      out.push_back({std::move(octets), Action::local});
    } else if (is_lan(ip.destination)) {
      stack(std::move(octets), out);
    } else if (ip.ttl <= 1) {
      const auto error = packet::make_icmp_error(packet::icmp_type::time_exceeded, 0, 0,
                                                 network_.lan.front().addresses.front().v4_number(), ip);
      out.push_back({{error.begin(), error.end()}, Action::forward_lan});
      dropped(DropReason::ttl_expired);
    } else {
      auto* data = reinterpret_cast<std::uint8_t*>(octets.data());
      packet::ChecksumChange change;
      change.word(packet::load16(data + 8), static_cast<std::uint16_t>(packet::load16(data + 8) - 256));
      --data[8];
      change.apply_at(data + 10);
      octets.resize(ip.size);
      through(SP_FROM_LAN, std::move(octets), 0, out);
    }
  }
  if (!out.empty() && last_reason_ == DropReason::none) last_action_ = out.front().where;
  return out;
}

std::vector<EbpfTestPlane::Emitted> EbpfTestPlane::take_made() {
  std::vector<Emitted> out;
  if (core_)
    core_->take_made(now_, [&](std::span<const std::byte> made, sp_back how, sp_side side) {
      give(made, how, side, out);
    });
  return out;
}

Result<Installed> EbpfTestPlane::install(const MappingSpec& spec, TimePoint now) {
  if (!core_) return PlaneErrc::system_failure;
  now_ = now;
  return core_->install(spec, now);
}
Result<void> EbpfTestPlane::renew(MappingId id, TimePoint deadline) {
  return core_->engine().renew(id, deadline);
}
Result<void> EbpfTestPlane::set_remotes(MappingId id, std::span<const RemoteFilter> remotes, bool outbound,
                                        TimePoint now) {
  return core_->engine().set_remotes(id, remotes, outbound, now);
}
void EbpfTestPlane::withdraw(MappingId id, Ending how, TimePoint now) {
  now_ = now;
  core_->engine().withdraw(id, how, now);
}
void EbpfTestPlane::end_flows(const Address& device, TimePoint now) {
  now_ = now;
  core_->engine().end_flows(device, now);
}
Result<Counters> EbpfTestPlane::counters(MappingId id) const { return core_->engine().counters(id); }
std::optional<TimePoint> EbpfTestPlane::held_until(Transport transport, const Address& device, Port external,
                                                   TimePoint now) const {
  return core_->engine().held_until(transport, device, external, now);
}
std::optional<Address> EbpfTestPlane::external_for(const Address& device) const {
  return core_ ? core_->engine().external_for(device) : std::nullopt;
}
Result<void> EbpfTestPlane::set_network(const NetworkView& network, TimePoint now) {
  network_ = network;
  if (core_) core_->set_network(network, network.untranslated, {}, header, now);
  return {};
}
Result<void> EbpfTestPlane::set_policy(const PlanePolicy& policy, TimePoint now) {
  if (core_) core_->set_policy(policy, now);
  return {};
}
std::vector<PlaneEvent> EbpfTestPlane::sweep(TimePoint now) {
  now_ = now;
  return core_ ? core_->sweep(now) : std::vector<PlaneEvent>{};
}
std::vector<ImplicitView> EbpfTestPlane::implicit_mappings(TimePoint now) const {
  return core_->engine().implicit_mappings(now);
}
bool EbpfTestPlane::has_implicit(Transport transport, const InternalEndpoint& internal, TimePoint now) const {
  return core_->engine().has_implicit(transport, internal, now);
}
PlaneStatus EbpfTestPlane::status() const {
  PlaneStatus status;
  if (core_) core_->fill_status(status);
  for (const auto& [reason, count] : of_the_stack_) status.drops.emplace_back(reason, count);
  return status;
}

}  // namespace

std::unique_ptr<TestPlane> make_test_plane(const EngineOptions& options) {
  return std::make_unique<EbpfTestPlane>(options);
}

}  // namespace sallyport::test
