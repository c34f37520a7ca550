#include "src/client/netcheck/report.hpp"

#include <algorithm>
#include <string_view>
#include <utility>

#include "sallyport/values/printable.hpp"
#include "src/client/netcheck/address_kind.hpp"

namespace sallyport::client::netcheck {
namespace {

using wire::MappingFailure;
using State = NetcheckReport::State;
using Stage = NetcheckReport::Stage;

constexpr std::size_t max_name = 60;  ///< octets of a text from elsewhere within a sentence

std::string shown(std::string_view text) {
  if (text.size() <= max_name) return printable(text);
  return printable(cut(text, max_name)) + "...";
}

std::string_view name(Protocol protocol) noexcept {
  switch (protocol) {
    case Protocol::pcp:
      return "PCP";
    case Protocol::natpmp:
      return "NAT-PMP";
    case Protocol::upnp:
      return "UPnP";
  }
  return "";
}

std::string_view word(MappingFailure failure) noexcept {
  switch (failure) {
    case MappingFailure::unsupported:
      return "unsupported";
    case MappingFailure::no_answer:
      return "no_answer";
    case MappingFailure::not_authorized:
      return "not_authorized";
    case MappingFailure::no_resources:
      return "no_resources";
    case MappingFailure::port_taken:
      return "port_taken";
    case MappingFailure::no_external_address:
      return "no_external_address";
    case MappingFailure::address_mismatch:
      return "address_mismatch";
    case MappingFailure::not_possible:
      return "not_possible";
    case MappingFailure::nonsense:
      return "nonsense";
  }
  return "";
}
/// To follow "the gateway refuses: ".
std::string_view because(MappingFailure failure) noexcept {
  switch (failure) {
    case MappingFailure::unsupported:
      return "it does not open ports";
    case MappingFailure::no_answer:
      return "it does not answer the request";
    case MappingFailure::not_authorized:
      return "its owner does not allow it";
    case MappingFailure::no_resources:
      return "it has no room for more, or this host has its share";
    case MappingFailure::port_taken:
      return "the port belongs to somebody else";
    case MappingFailure::no_external_address:
      return "it has no address on the outside now";
    case MappingFailure::address_mismatch:
      return "a NAT stands between this host and it";
    case MappingFailure::not_possible:
      return "it cannot do what was asked";
    case MappingFailure::nonsense:
      return "its answer is not what the protocol allows";
  }
  return "";
}
std::string what_to_do(MappingFailure failure, const std::string& by_hand) {
  switch (failure) {
    case MappingFailure::not_authorized:
      return "Allow this host to open ports in the gateway's settings, or try another port.";
    case MappingFailure::no_resources:
      return "Close ports at the gateway that nobody needs any more, or raise its limit for a device.";
    case MappingFailure::port_taken:
      return "Try another port, or take this one back from who holds it in the gateway's settings.";
    default:
      return "Update the gateway's software, or " + by_hand + " by hand.";
  }
}

std::string joined(const std::vector<std::string>& parts, std::string_view between, std::string_view last) {
  std::string out;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) out += i + 1 == parts.size() ? last : between;
    out += parts[i];
  }
  return out;
}

/// The one that says most: that a protocol is not spoken is nothing against another one's reason.
std::optional<Refused> main_refusal(const std::vector<Refused>& refused) {
  const auto weight = [](const Refused& one) {
    switch (one.failure) {
      case MappingFailure::unsupported:
        return 3;
      case MappingFailure::no_answer:
        return 2;
      case MappingFailure::nonsense:
        return 1;
      default:
        return 0;
    }
  };
  const auto best = std::ranges::min_element(refused, {}, weight);
  if (best == refused.end()) return std::nullopt;
  return *best;
}

std::string refusals_text(const std::vector<Refused>& refused) {
  std::vector<std::string> parts;
  for (const auto& one : refused) {
    auto part = std::string{name(one.via)} + ": " + std::string{because(one.failure)};
    if (one.code != 0) part += " (code " + std::to_string(one.code) + ")";
    parts.push_back(std::move(part));
  }
  return joined(parts, "; ", "; ");
}

std::string seconds_text(std::chrono::milliseconds time) {
  const auto tenths = (time.count() + 50) / 100;
  auto out = std::to_string(tenths / 10);
  if (tenths % 10 != 0) out += "." + std::to_string(tenths % 10);
  return out + " s";
}

/// "udp port 22000", or "udp" while no port is known.
std::string port_text(const Observations& seen) {
  auto out = std::string{to_string(seen.transport)};
  if (seen.port) out += " port " + std::to_string(seen.port->number());
  return out;
}

struct Judged {
  Verdict verdict{};
  std::string summary;
  std::string advice;
  Stage gateway{"gateway"}, mapping{"mapping"}, address{"address"}, second_nat{"second_nat"}, probe{"probe"};
  std::optional<ExternalEndpoint> external;
};

/// One way out.
class Judge {
 public:
  Judge(const Observations& all, const Path& path) : all_{all}, path_{path} {
    const auto tell = [](const Address& address) { return !address.is_unspecified(); };
    if (path.mapping.granted && tell(path.mapping.granted->external.address))
      claimed_ = path.mapping.granted->external.address;
    else if (path.gateway_external && tell(*path.gateway_external))
      claimed_ = path.gateway_external;
    if (claimed_) kind_ = kind_of(*claimed_);
    direct_ = !path.mapping.granted && is_public(kind_of(path.local));
    if (path.seen) seen_from_outside_ = is_public(kind_of(path.seen->address));
  }

  Judged judge() {
    gateway_stage();
    mapping_stage();
    address_stage();
    second_nat_stage();
    probe_stage();
    out_.external = external();
    out_.verdict = verdict();
    words();
    return std::move(out_);
  }

 private:
  const std::optional<Granted>& granted() const { return path_.mapping.granted; }
  bool arrived() const { return path_.probe.state == Probe::State::arrived; }
  bool silent() const { return path_.probe.state == Probe::State::silent; }
  std::string gateway_text() const {
    return path_.gateway ? "the gateway " + path_.gateway->to_string() : std::string{"the gateway"};
  }
  std::string helper_text() const { return "the helper " + shown(all_.helper.value_or("")); }

  /// Where the helper's packet went.
  std::optional<ExternalEndpoint> probed() const {
    if (!path_.seen) return std::nullopt;
    if (granted()) return ExternalEndpoint{path_.seen->address, granted()->external.port};
    if (all_.port) return ExternalEndpoint{path_.seen->address, *all_.port};
    return std::nullopt;
  }
  std::optional<ExternalEndpoint> external() const {
    if (arrived() && seen_from_outside_) return probed();
    if (granted() && claimed_) return ExternalEndpoint{*claimed_, granted()->external.port};
    if (!granted() && direct_ && all_.port) return ExternalEndpoint{path_.local, *all_.port};
    return std::nullopt;
  }
  std::string external_text() const {
    if (out_.external) return to_string(*out_.external);
    if (granted()) return "external port " + std::to_string(granted()->external.port.number());
    return path_.local.to_string();
  }

  void gateway_stage() {
    auto& stage = out_.gateway;
    if (!path_.routed) return;
    if (!path_.gateway) {
      stage.evidence = shown(path_.interface) + " is point-to-point: there is no gateway to ask";
      return;
    }
    if (path_.answers.empty()) {
      stage.state = State::no;
      stage.evidence = path_.gateway->to_string() + " answers neither PCP nor NAT-PMP nor UPnP";
      return;
    }
    stage.state = State::yes;
    std::vector<std::string> parts;
    for (const auto& answer : path_.answers) {
      auto part = std::string{name(answer.protocol)};
      if (!answer.with.empty()) part += " (" + shown(answer.with) + ")";
      parts.push_back(std::move(part));
    }
    stage.evidence = path_.gateway->to_string() + " answers " + joined(parts, ", ", " and ");
  }

  void mapping_stage() {
    auto& stage = out_.mapping;
    if (granted()) {
      const auto& external = granted()->external;
      stage.state = State::yes;
      stage.evidence =
          std::string{name(granted()->via)} + " opened " +
          (external.address.is_unspecified() ? "external port " + std::to_string(external.port.number())
                                             : to_string(external)) +
          " for " + port_text(all_);
    } else if (!path_.mapping.refused.empty()) {
      stage.state = State::no;
      stage.evidence = refusals_text(path_.mapping.refused);
    } else if (!path_.answers.empty()) {
      stage.state = State::no;
      stage.evidence = "the gateway answered, but not the request for a port";
    }
  }

  void address_stage() {
    auto& stage = out_.address;
    if (claimed_) {
      stage.state = is_public(kind_) ? State::yes : State::no;
      stage.evidence = "the gateway's " + claimed_->to_string() + " is " + std::string{describe(kind_)};
    } else if (direct_ && path_.answers.empty()) {
      stage.state = State::yes;
      stage.evidence =
          "this host's own " + path_.local.to_string() + " is " + std::string{describe(kind_of(path_.local))};
    } else if (!path_.answers.empty()) {
      stage.state = State::unknown;
      stage.evidence = "the gateway does not tell its address on the outside";
    } else if (is_carrier(kind_of(path_.local))) {
      stage.state = State::no;
      stage.evidence =
          "this host's own " + path_.local.to_string() + " is " + std::string{describe(kind_of(path_.local))};
    }
  }

  void second_nat_stage() {
    auto& stage = out_.second_nat;
    const auto mine = claimed_ ? claimed_ : direct_ ? std::optional{path_.local} : std::nullopt;
    const auto whose = claimed_ ? "the gateway's address" : "this host's address";
    if (path_.seen && seen_from_outside_ && mine) {
      stage.state = path_.seen->address == *mine ? State::no : State::yes;
      stage.evidence = helper_text() + " sees " + path_.seen->address.to_string() + ", " +
                       (stage.state == State::no ? "which is " : "not ") + whose +
                       (stage.state == State::no ? "" : " " + mine->to_string());
      return;
    }
    if (!mine && path_.answers.empty() && !path_.seen) return;
    stage.state = State::unknown;
    if (claimed_ && !is_public(kind_))
      stage.evidence = "suspected, since the gateway's address is none of the internet; ";
    if (path_.seen && seen_from_outside_)
      stage.evidence += helper_text() + " sees " + path_.seen->address.to_string() +
                        ", and there is nothing to compare it with";
    else if (path_.seen)
      stage.evidence +=
          helper_text() + " sees " + path_.seen->address.to_string() + ", so it is not outside itself";
    else
      stage.evidence += no_view();
  }

  /// Why nothing outside has said anything.
  std::string no_view() const {
    return all_.helper ? helper_text() + " did not answer" : "no helper outside was given that could tell";
  }

  void probe_stage() {
    auto& stage = out_.probe;
    const auto to = probed() ? to_string(*probed()) : std::string{"it"};
    switch (path_.probe.state) {
      case Probe::State::arrived:
        stage.state = State::yes;
        stage.evidence = "a packet from " + shown(path_.probe.from) +
                         (path_.probe.from_stranger ? ", to which this host never sent," : "") +
                         " arrived by way of " + to;
        if (!seen_from_outside_) stage.evidence += ", but the helper is not outside itself";
        return;
      case Probe::State::silent:
        stage.state = State::no;
        stage.evidence = "a packet that was asked for to " + to + " did not arrive within " +
                         seconds_text(path_.probe.waited);
        return;
      case Probe::State::not_supported:
        stage.state = State::unknown;
        stage.evidence = helper_text() + " does not send one (RESPONSE-PORT of RFC 5780)";
        return;
      case Probe::State::not_asked:
        break;
    }
    if (!granted() && !direct_) return;
    stage.state = State::unknown;
    if (path_.seen && all_.transport == Transport::tcp)
      stage.evidence = "a helper sends UDP only, so TCP cannot be tried from outside";
    else if (path_.seen)
      stage.evidence = helper_text() + " was not asked for one";
    else
      stage.evidence = no_view();
  }

  Verdict verdict() const {
    using enum Verdict;
    if (!path_.routed) return no_network;
    if (arrived() && seen_from_outside_) return reachable;
    const bool other_nat = out_.second_nat.state == State::yes;
    if (granted()) {
      if (claimed_ && is_carrier(kind_)) return carrier_nat;
      if (other_nat) return double_nat;
      if (!claimed_) return silent() ? blocked_ahead : unknown;
      if (kind_ == AddressKind::link_local || kind_ == AddressKind::loopback) return offline;
      if (!is_public(kind_)) return double_nat;
      return silent() ? blocked_ahead : likely_reachable;
    }
    const auto refusal = main_refusal(path_.mapping.refused);
    const bool speaks =
        !path_.answers.empty() && !(refusal && refusal->failure == MappingFailure::unsupported);
    if (!speaks) {
      if (is_carrier(kind_of(path_.local)) || (claimed_ && is_carrier(kind_))) return carrier_nat;
      if (!direct_ || other_nat) return no_gateway;
      return silent() ? blocked_ahead : likely_reachable;
    }
    if (refusal && refusal->failure == MappingFailure::address_mismatch) return double_nat;
    if (refusal && refusal->failure == MappingFailure::no_external_address) {
      if (claimed_ && is_carrier(kind_)) return carrier_nat;
      if (claimed_ && (kind_ == AddressKind::private_use || other_nat)) return double_nat;
      return offline;
    }
    return refused;
  }

  void words() {
    const auto by_hand = "forward " + port_text(all_) + " to " + path_.local.to_string() + " at the gateway";
    // only a packet that was sent and did not come says no for sure
    const std::string no = silent() ? "Not reachable: " : "Most likely not reachable: ";
    auto& summary = out_.summary;
    auto& advice = out_.advice;
    switch (out_.verdict) {
      case Verdict::reachable:
        summary = "Reachable: a packet from outside arrived by way of " + external_text() + ".";
        return;
      case Verdict::likely_reachable:
        summary = "Most likely reachable: " +
                  (granted() ? external_text() + " is open on a public address"
                             : "this host itself has the public address " + path_.local.to_string()) +
                  (out_.second_nat.state == State::no ? ", which is what the outside sees" : "") +
                  ", but nothing from outside has tried it.";
        advice = !all_.helper  ? "To be sure, name a STUN server of RFC 5780 that tries it from outside."
                 : !path_.seen ? "The helper did not answer: see whether its name is right and UDP to it "
                                 "passes, or name another one."
                               : "To be sure, let somebody outside try it, or name another helper.";
        return;
      case Verdict::unknown:
        summary =
            "The port is open at the gateway, which does not tell its address: whether the internet reaches "
            "it is "
            "not known.";
        advice = "Name a STUN server of RFC 5780, or read in the gateway's settings what address it has.";
        return;
      case Verdict::blocked_ahead:
        summary = "Not reachable: " + external_text() +
                  (granted() ? " is open at the gateway" : " is this host's own") +
                  ", but a packet from outside did not arrive within " + seconds_text(path_.probe.waited) +
                  ".";
        advice =
            "See first whether this host's own firewall lets " + port_text(all_) +
            " in. If it does, something ahead of the gateway filters what comes unasked: ask the provider.";
        return;
      case Verdict::double_nat:
        double_nat_words(no);
        return;
      case Verdict::carrier_nat: {
        const auto& shared = claimed_ ? *claimed_ : path_.local;
        summary = no + "the address " + shared.to_string() +
                  " belongs to the provider's own NAT, which nobody here can open.";
        advice = "Ask the provider for a public IPv4 address, or let peers come by IPv6 or a relay.";
        return;
      }
      case Verdict::refused: {
        const auto refusal = main_refusal(path_.mapping.refused);
        const auto failure = refusal ? refusal->failure : MappingFailure::no_answer;
        summary = "Not opened: " + gateway_text() +
                  (failure == MappingFailure::no_answer ? " does not answer the request for a port."
                   : failure == MappingFailure::nonsense
                       ? " answers what the protocol does not allow."
                       : " refuses, because " + std::string{because(failure)} + ".");
        advice = what_to_do(failure, by_hand);
        if (claimed_ && !is_public(kind_))
          advice += " That alone will not do: the gateway's " + claimed_->to_string() + " is " +
                    std::string{describe(kind_)} + ".";
        return;
      }
      case Verdict::offline:
        summary = "Not reachable: " + gateway_text() + " is itself without an address on the internet" +
                  (claimed_ ? " (it has " + claimed_->to_string() + ")" : "") + ".";
        advice = "See to the gateway's connection to the provider, then try again.";
        return;
      case Verdict::no_gateway:
        summary = no + (path_.gateway ? gateway_text() + " opens no ports when asked."
                                      : "there is no gateway here that could be asked to open a port.");
        advice = "Switch on PCP, NAT-PMP or UPnP in the router's settings, or " + by_hand + " by hand.";
        return;
      case Verdict::no_network:
        return;
    }
  }

  void double_nat_words(const std::string& no) {
    if (!granted() && !(claimed_ && !is_public(kind_)) && out_.second_nat.state != State::yes) {
      out_.summary = "Not opened: a NAT stands between this host and " + gateway_text() + ".";
      out_.advice =
          "Connect this host to the gateway's own network, or let the NAT in between pass what comes to " +
          port_text(all_) + ".";
      return;
    }
    const auto own = claimed_ ? claimed_->to_string() : path_.local.to_string();
    if (out_.second_nat.state == State::yes)
      out_.summary = no + "the gateway's address is " + own + ", the internet sees " +
                     path_.seen->address.to_string() + ": another NAT stands in between.";
    else
      out_.summary =
          no + "the gateway's own address " + own + " is none of the internet, so another NAT stands ahead.";
    auto port = port_text(all_);
    if (granted())
      port = std::string{to_string(all_.transport)} + " port " +
             std::to_string(granted()->external.port.number());
    out_.advice = "Make the outer router a bridge, or forward " + port + " in it to " + own + ".";
    if (claimed_ && is_public(kind_))
      out_.advice += " Where a VPN is on, it may be the VPN that the internet sees.";
  }

  const Observations& all_;
  const Path& path_;
  std::optional<Address> claimed_;
  AddressKind kind_ = AddressKind::unspecified;
  bool direct_ = false;  ///< no mapping, and perhaps none is needed
  bool seen_from_outside_ = false;
  Judged out_;
};

std::vector<NetcheckReport::Refusal> refusals(const TestMapping& mapping) {
  std::vector<NetcheckReport::Refusal> out;
  for (const auto& one : mapping.refused)
    out.push_back({std::string{to_string(one.via)}, std::string{word(one.failure)}, one.code});
  return out;
}

State state_of(const Probe& probe) {
  switch (probe.state) {
    case Probe::State::arrived:
      return State::yes;
    case Probe::State::silent:
      return State::no;
    case Probe::State::not_supported:
      return State::unknown;
    case Probe::State::not_asked:
      break;
  }
  return State::skipped;
}

NetcheckReport::Path raw(const Path& path, Verdict verdict) {
  NetcheckReport::Path out;
  out.verdict = verdict;
  out.interface = path.interface;
  out.local = path.local;
  out.gateway = path.gateway;
  for (const auto& answer : path.answers) out.protocols.emplace_back(to_string(answer.protocol));
  out.gateway_external = path.gateway_external;
  if (path.mapping.granted) {
    out.mapped = path.mapping.granted->external;
    out.via = to_string(path.mapping.granted->via);
  }
  out.refusals = refusals(path.mapping);
  out.seen = path.seen;
  out.probe = state_of(path.probe);
  return out;
}

/// Of the host's addresses, those that somebody outside can send to.
std::vector<Address> routed(const std::vector<Address>& addresses) {
  std::vector<Address> out;
  for (const auto& address : addresses)
    if (is_public(kind_of(address))) out.push_back(address);
  return out;
}

Stage ipv6_stage(const Observations& seen, const std::vector<Address>& addresses) {
  Stage stage{"ipv6", State::no, {}};
  if (addresses.empty()) {
    stage.evidence = "this host has no IPv6 address that the internet routes";
    return stage;
  }
  const auto& [_, pinhole, probe] = seen.ipv6;
  const auto own = addresses.front().to_string();
  const auto open = pinhole.granted ? std::string{name(pinhole.granted->via)} + " opened " +
                                          to_string(pinhole.granted->external)
                                    : "this host has " + own;
  if (probe.state == Probe::State::arrived) {
    stage.state = State::yes;
    stage.evidence = open + ", and a packet from " + shown(probe.from) + " arrived there";
  } else if (probe.state == Probe::State::silent) {
    stage.evidence =
        open + ", but a packet that was asked for did not arrive within " + seconds_text(probe.waited);
  } else if (pinhole.granted) {
    stage.state = State::yes;
    stage.evidence = open + "; nothing from outside has tried it";
  } else if (const auto refusal = main_refusal(pinhole.refused);
             refusal && refusal->failure != MappingFailure::unsupported) {
    stage.evidence = open + "; " + refusals_text(pinhole.refused);
  } else {
    stage.state = State::unknown;
    stage.evidence = open + ", no gateway opened the port, and whether a firewall shuts it is not known";
  }
  return stage;
}

/// Where IPv6 is the only way out, it is what counts.
void judge_ipv6(const Observations& seen, const Stage& stage, NetcheckReport& out) {
  const auto& [_, pinhole, probe] = seen.ipv6;
  if (pinhole.granted) out.external = pinhole.granted->external;
  const auto where = out.external ? to_string(*out.external) : out.ipv6.addresses.front().to_string();
  const auto port = port_text(seen);
  switch (stage.state) {
    case State::yes:
      out.verdict = probe.state == Probe::State::arrived ? Verdict::reachable : Verdict::likely_reachable;
      out.summary = probe.state == Probe::State::arrived
                        ? "Reachable by IPv6 alone: a packet from outside arrived at " + where + "."
                        : "Most likely reachable, by IPv6 alone: " + where +
                              " is open, but nothing from outside has tried it.";
      out.advice = "Peers that have IPv4 only do not reach this host.";
      return;
    case State::no:
      if (probe.state == Probe::State::silent) {
        out.verdict = Verdict::blocked_ahead;
        out.summary = "Not reachable: a packet from outside to " + where + " did not arrive within " +
                      seconds_text(probe.waited) + ".";
        out.advice = "See whether this host's own firewall and the router's let " + port + " in by IPv6.";
        return;
      }
      out.verdict = Verdict::refused;
      out.summary = "Not opened: the gateway refuses to let " + port + " in by IPv6.";
      out.advice = what_to_do(main_refusal(pinhole.refused)->failure, "let " + port + " in at the router");
      return;
    case State::unknown:
    case State::skipped:
      out.verdict = Verdict::no_gateway;
      out.summary = "Most likely not reachable: there is IPv6 alone, and no gateway that lets " + port +
                    " in when asked.";
      out.advice = "Switch on PCP or UPnP in the router's settings, or let " + port + " in there by hand.";
      return;
  }
}

Stage network_stage(const Observations& seen, const std::vector<Address>& ipv6) {
  Stage stage{"network", State::no, {}};
  std::vector<std::string> parts;
  for (const auto& path : seen.paths) {
    if (path.routed) stage.state = State::yes;
    parts.push_back(shown(path.interface) + " has " + path.local.to_string() +
                    (!path.routed   ? " and no default route"
                     : path.gateway ? " and the gateway " + path.gateway->to_string()
                                    : ", point-to-point"));
  }
  if (!ipv6.empty()) {
    stage.state = State::yes;
    parts.push_back("IPv6 " + ipv6.front().to_string());
  }
  stage.evidence =
      parts.empty() ? "no interface has an address that leads anywhere" : joined(parts, "; ", "; ");
  return stage;
}

}  // namespace

NetcheckReport report(const Observations& seen) {
  NetcheckReport out;
  out.transport = seen.transport;
  out.port = seen.port;
  out.helper = seen.helper;
  out.ipv6.addresses = routed(seen.ipv6.addresses);
  if (seen.ipv6.pinhole.granted) {
    out.ipv6.pinhole = seen.ipv6.pinhole.granted->external;
    out.ipv6.via = to_string(seen.ipv6.pinhole.granted->via);
  }
  out.ipv6.refusals = refusals(seen.ipv6.pinhole);
  out.ipv6.probe = state_of(seen.ipv6.probe);

  std::optional<Judged> best;
  for (const auto& path : seen.paths) {
    auto judged = Judge{seen, path}.judge();
    const bool better = !best || judged.verdict < best->verdict;
    out.paths.insert(better ? out.paths.begin() : out.paths.end(), raw(path, judged.verdict));
    if (better) best = std::move(judged);
  }

  const bool ipv4 = best && best->verdict != Verdict::no_network;
  const auto ipv6 = ipv6_stage(seen, out.ipv6.addresses);
  out.stages.push_back(network_stage(seen, out.ipv6.addresses));
  if (!best) best.emplace();
  if (ipv4) {
    out.verdict = best->verdict;
    out.summary = best->summary;
    out.advice = best->advice;
    out.external = best->external;
    if (out.verdict > Verdict::likely_reachable && ipv6.state == State::yes && out.ipv6.pinhole)
      out.advice += " Peers that have IPv6 come in at " + to_string(*out.ipv6.pinhole) + " already.";
  } else if (!out.ipv6.addresses.empty()) {
    judge_ipv6(seen, ipv6, out);
  } else {
    out.verdict = Verdict::no_network;
    out.summary = seen.paths.empty()
                      ? "No network: no interface of this host has an address that leads anywhere."
                      : "No network: this host has an address, but no default route to the internet.";
    out.advice = "Connect this host to a network, then try again.";
  }
  for (auto* stage : {&best->gateway, &best->mapping, &best->address, &best->second_nat, &best->probe})
    out.stages.push_back(std::move(*stage));
  out.stages.push_back(ipv6);
  return out;
}

}  // namespace sallyport::client::netcheck
