#include "protocols/upnp/ssdp/server.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

namespace sallyport::upnp::ssdp {
namespace {

using namespace std::chrono_literals;

constexpr std::string_view root_device = "upnp:rootdevice";
constexpr std::string_view everything = "ssdp:all";
constexpr auto longest_start_wait = 100ms;  // UDA 1.2.2
constexpr auto least_copy_gap = 200ms;
constexpr auto copy_gap_spread = 400ms;
/// An answer needs time on its way: it leaves this long before the searcher stops listening.
constexpr auto way = 100ms;

bool same_uuid(std::string_view a, std::string_view b) {
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; };
  return a.starts_with("uuid:") && b.starts_with("uuid:") && std::ranges::equal(a, b, {}, lower, lower);
}

/// The version at the end of a type that was asked for: 1 or more, without leading zeros; 0 when it is none.
unsigned read_version(std::string_view text) {
  if (text.empty() || text.size() > 4 || text.front() == '0') return 0;
  unsigned version = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return 0;
    version = version * 10 + static_cast<unsigned>(c - '0');
  }
  return version;
}

}  // namespace

std::string Server::Target::nt(unsigned with_version) const {
  return version == 0 ? type : type + ':' + std::to_string(with_version);
}

std::string Server::Target::usn(unsigned with_version) const {
  return type == udn ? udn : udn + "::" + nt(with_version);
}

Server::Server(Tree tree, Options options, std::uint32_t boot_id, std::function<WallTime()> wall,
               std::uint64_t seed)
    : options_{std::move(options)},
      server_{server_text(options_.system, options_.version, options_.product)},
      boot_id_{std::min(boot_id, max_boot_id)},
      wall_{std::move(wall)},
      jitter_{seed},
      limit_{options_.limit} {
  options_.max_age_s = std::max(options_.max_age_s, 60U);
  load(std::move(tree));
}

void Server::load(Tree tree) {
  targets_.clear();
  config_id_ = std::min(tree.config_id, max_config_id);
  for (std::size_t i = 0; i < tree.devices.size(); ++i) {
    const auto& device = tree.devices[i];
    if (i == 0) targets_.push_back({device.udn, std::string{root_device}});
    targets_.push_back({device.udn, device.udn});
    targets_.push_back({device.udn, device.type, device.version});
    const auto first_service = targets_.size();
    for (const auto& service : tree.services) {
      if (service.device != i) continue;
      // a type is advertised once for a device, in its highest version (UDA 1.2.2)
      const auto known = std::find_if(targets_.begin() + static_cast<std::ptrdiff_t>(first_service), targets_.end(),
                                      [&](const Target& target) { return target.type == service.type; });
      if (known == targets_.end())
        targets_.push_back({device.udn, service.type, service.version});
      else
        known->version = std::max(known->version, service.version);
    }
  }
  for (auto& target : targets_) {
    const auto nt = target.nt(target.version);
    const auto usn = target.usn(target.version);
    auto what = announcement(nt, usn, "");
    what.boot_id = max_boot_id;
    target.octets = encode_answer(what, {}).size();
  }
}

Announcement Server::announcement(std::string_view nt, std::string_view usn, std::string_view location) const {
  return {.type = nt,
          .name = usn,
          .location = location,
          .server = server_,
          .max_age_s = options_.max_age_s,
          .boot_id = boot_id_,
          .config_id = config_id_,
          .version = options_.version};
}

/// The next random duration from 0 to the limit.
std::chrono::nanoseconds Server::below(std::chrono::nanoseconds limit) {
  return std::chrono::nanoseconds{jitter_.next() % (static_cast<std::uint64_t>(limit.count()) + 1)};
}

bool Server::serves(std::uint32_t interface, const Address& address) const {
  return std::ranges::any_of(served_, [&](const LanAddress& served) {
    return served.interface == interface && served.address.address == address;
  });
}

void Server::set_served(std::span<const LanAddress> addresses, TimePoint now) {
  std::vector<LanAddress> wanted;
  for (const auto& address : addresses) {
    if (address.interface == 0 || address.address.address.is_unspecified()) continue;
    const bool twice = std::ranges::any_of(wanted, [&](const LanAddress& other) {
      return other.interface == address.interface && other.address.address == address.address.address;
    });
    if (!twice) wanted.push_back(address);
  }
  const auto before = std::exchange(served_, std::move(wanted));
  if (stopped_) return;

  std::vector<LanAddress> kept, left;
  for (const auto& old : before) {
    if (serves(old.interface, old.address.address))
      kept.push_back(old);
    else if (std::ranges::none_of(served_, [&](const auto& now_served) {
               return now_served.interface == old.interface;
             }))
      left.push_back(old);
  }
  // An address that went while its interface has others says no byebye: the device is still there.
  if (announced_) notify(NotifyKind::byebye, left);
  if (served_.empty()) {
    alive_due_.reset();
    copies_left_ = 0;
    return;
  }
  if (kept.size() == served_.size()) return;  // nothing came
  if (!started_) {
    started_ = true;
    notify(NotifyKind::byebye, served_);
  } else if (announced_) {
    raise_boot_id(kept);
  }
  announce_soon(now);
}

void Server::set_tree(Tree tree, TimePoint now) {
  if (started_ && !stopped_) notify(NotifyKind::byebye, served_);
  for (const auto& [due, answer] : waiting_) pending_.leave(answer.to);
  waiting_.clear();
  if (announced_) raise_boot_id({});
  load(std::move(tree));
  if (!stopped_ && !served_.empty()) announce_soon(now);
}

void Server::raise_boot_id(std::span<const LanAddress> announced) {
  if (boot_id_ >= max_boot_id) {  // no number is higher: the device leaves and comes back
    notify(NotifyKind::byebye, announced);
    boot_id_ = 0;
  } else {
    if (options_.version != Version::uda_1_0) notify(NotifyKind::update, announced, boot_id_ + 1);
    ++boot_id_;
  }
  announced_ = false;
}

void Server::announce_soon(TimePoint now) {
  copies_left_ = copies;
  alive_due_ = now + below(longest_start_wait);
}

void Server::set_limit(const SearchLimit::Options& limit) {
  if (options_.limit == limit) return;
  options_.limit = limit;
  limit_ = SearchLimit{limit};
}

void Server::stop() {
  if (stopped_) return;
  stopped_ = true;
  alive_due_.reset();
  waiting_.clear();
  pending_ = wire::PendingLimit{max_waiting, max_waiting_of_source};
  if (!started_) return;
  out_.clear();  // an alive behind which a byebye comes tells nobody anything
  for (int copy = 0; copy < 2; ++copy) notify(NotifyKind::byebye, served_);
}

void Server::notify(NotifyKind kind, std::span<const LanAddress> from, std::uint32_t next_boot_id) {
  for (const auto& lan : from) {
    const auto& address = lan.address.address;
    const auto group = address.is_v4() ? group_v4 : is_link_local(address) ? group_link() : group_site();
    const auto location = location_url(address, options_.http_port, options_.description_path);
    for (const auto& target : targets_) {
      const auto nt = target.nt(target.version);
      const auto usn = target.usn(target.version);
      out_.push_back({.bytes = encode_notify(kind, announcement(nt, usn, location), group, next_boot_id),
                      .to = group,
                      .to_port = port,
                      .from = address,
                      .from_port = port,
                      .interface = lan.interface});
    }
  }
}

std::vector<Server::Match> Server::matches(std::string_view wanted) const {
  std::vector<Match> found;
  const auto colon = wanted.rfind(':');
  const auto type = wanted.substr(0, colon);
  const unsigned version = colon == std::string_view::npos ? 0 : read_version(wanted.substr(colon + 1));
  for (const auto& target : targets_) {
    if (wanted == everything || (target.version == 0 && (wanted == target.type || same_uuid(wanted, target.type))))
      found.push_back({&target, target.version});
    else if (target.version != 0 && version != 0 && version <= target.version && type == target.type)
      found.push_back({&target, version});
  }
  return found;
}

/// The address that an answer leaves from: the one that was asked; after a multicast the one in the searcher's
/// subnet, else the first of the same family (and for IPv6 the same scope, where there is one).
const LanAddress* Server::answering_address(const wire::Arrival& arrival) const {
  const LanAddress* best = nullptr;
  int best_fit = 0;
  for (const auto& served : served_) {
    const auto& address = served.address.address;
    if (served.interface != arrival.interface || address.is_v4() != arrival.source.is_v4()) continue;
    if (address == arrival.destination) return &served;
    const bool same_scope = is_link_local(address) == is_link_local(arrival.source);
    const int fit = 1 + (same_scope ? 1 : 0) + (same_scope && served.address.contains(arrival.source) ? 1 : 0);
    if (fit > best_fit) {
      best = &served;
      best_fit = fit;
    }
  }
  return is_group(arrival.destination) ? best : nullptr;
}

void Server::handle_datagram(std::span<const std::byte> datagram, const wire::Arrival& arrival, TimePoint now) {
  if (stopped_ || arrival.source_port == 0) return;
  const auto search = decode_search(datagram);
  const bool multicast = is_group(arrival.destination);
  if (!search || (multicast && !search->mx_s)) {
    ++counts_.unsound;
    return;
  }
  ++counts_.searches;
  const auto* from = answering_address(arrival);
  if (from == nullptr) return;
  const auto found = matches(search->target);
  if (found.empty()) return;

  const auto location = location_url(from->address.address, options_.http_port, options_.description_path).size();
  std::size_t octets = 0;
  std::size_t whole_set = 0;
  for (const auto& match : found) octets += match.target->octets + location;
  for (const auto& target : targets_) whole_set += target.octets + location;
  std::size_t entered = 0;
  while (entered < found.size() && pending_.enter(arrival.source)) ++entered;
  if (entered < found.size() ||
      limit_.admit(arrival.source, datagram.size(), octets, whole_set, now) != SearchLimit::Verdict::pass) {
    for (; entered > 0; --entered) pending_.leave(arrival.source);
    ++counts_.over_limit;
    return;
  }
  ++counts_.answered;
  const auto longest_wait = multicast ? std::chrono::seconds{*search->mx_s} - way : 0ms;
  for (const auto& match : found) {
    // Of two random moments the earlier: as spread as UDA wants it, and most searchers wait less for a gateway.
    const auto wait = std::min(below(longest_wait), below(longest_wait));
    waiting_.emplace(now + wait, Answer{.target = static_cast<std::size_t>(match.target - targets_.data()),
                                        .version = match.version,
                                        .to = arrival.source,
                                        .to_port = arrival.source_port,
                                        .from = from->address.address,
                                        .interface = arrival.interface});
  }
  handle_timeout(now);
}

void Server::send_answer(const Answer& answer) {
  if (!serves(answer.interface, answer.from)) return;  // the address went meanwhile
  const auto& target = targets_[answer.target];
  const auto st = target.nt(answer.version);
  const auto usn = target.usn(answer.version);
  const auto location = location_url(answer.from, options_.http_port, options_.description_path);
  auto bytes = encode_answer(announcement(st, usn, location), wall_());
  if (bytes.size() > max_message) return;  // Tree says how to avoid it
  announced_ = true;
  out_.push_back({.bytes = std::move(bytes),
                  .to = answer.to,
                  .to_port = answer.to_port,
                  .from = answer.from,
                  .from_port = port,
                  .interface = answer.interface});
}

void Server::handle_timeout(TimePoint now) {
  while (!waiting_.empty() && waiting_.begin()->first <= now) {
    const auto answer = waiting_.begin()->second;
    waiting_.erase(waiting_.begin());
    pending_.leave(answer.to);
    send_answer(answer);
  }
  if (!alive_due_ || *alive_due_ > now) return;
  notify(NotifyKind::alive, served_);
  announced_ = true;
  if (copies_left_ == 0) copies_left_ = copies - 1;  // this was the first copy of a refresh
  if (--copies_left_ > 0) {
    alive_due_ = now + least_copy_gap + below(copy_gap_spread);
    return;
  }
  // a random time in the first half of max-age (UDA 1.2.2), but not so early that it is only noise
  const std::chrono::nanoseconds quarter = std::chrono::seconds{options_.max_age_s} / 4;
  alive_due_ = now + quarter + below(quarter);
}

std::optional<wire::Outgoing> Server::poll_transmit() {
  if (out_.empty()) return std::nullopt;
  auto next = std::move(out_.front());
  out_.pop_front();
  return next;
}

std::optional<TimePoint> Server::next_deadline() const {
  if (waiting_.empty()) return alive_due_;
  const auto answer = waiting_.begin()->first;
  return alive_due_ ? std::min(*alive_due_, answer) : answer;
}

}  // namespace sallyport::upnp::ssdp
