// toml++ is slow to compile: this file and no other includes it.
#define TOML_EXCEPTIONS 0
#define TOML_ENABLE_FORMATTERS 1
#include <toml++/toml.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>
#include <system_error>

#include "nat/engine/pairing.hpp"
#include "src/daemon/config.hpp"
#include "src/transport/arrival_check.hpp"

namespace sallyport::daemon {
namespace {

constexpr std::uint64_t any_u32 = 0xffffffff;
constexpr std::uint32_t longest_timeout = 31536000;  // a year: sums of seconds stay far from any bound

struct Where {
  std::string file;
  std::uint32_t line = 0;
  std::uint32_t column = 0;
  std::string text() const {
    return line == 0 ? file : file + ':' + std::to_string(line) + ':' + std::to_string(column);
  }
};

/// What the reader gathers over all files.
struct Reading {
  Config config;
  std::vector<std::string> problems;
  bool bad_flags = false;
  std::map<std::string, Where, std::less<>>
      places;                  ///< of each key that was read, for checks that need several
  std::vector<Where> statics;  ///< of each [[static]], as in config.statics

  void problem(const Where& where, std::string_view key, const std::string& text) {
    std::string line = where.text();
    if (!key.empty()) line.append(": ").append(key);
    problems.push_back(line + ": " + text);
  }
  Where place(std::string_view key) const {
    const auto known = places.find(key);
    return known == places.end() ? Where{"the defaults", 0, 0} : known->second;
  }
};

/// A value as the message shows it: on one line, cut, with its kind.
std::string shown(const toml::node& node) {
  std::string text;
  if (const auto* string = node.as_string()) {
    text = '"';
    for (const char c : string->get().substr(0, 60)) {
      const auto octet = static_cast<unsigned char>(c);
      if (octet < 0x20 || octet == 0x7f) {
        constexpr std::string_view digits = "0123456789abcdef";
        text.append("\\x").push_back(digits[octet >> 4]);
        text.push_back(digits[octet & 15]);
      } else {
        text.push_back(c);
      }
    }
    return text + (string->get().size() > 60 ? "...\"" : "\"");
  }
  if (const auto* integer = node.as_integer()) return std::to_string(integer->get());
  if (const auto* boolean = node.as_boolean()) return boolean->get() ? "true" : "false";
  if (node.is_floating_point()) return "a number with a fraction";
  if (node.is_array()) return "a list";
  if (node.is_table()) return "a table";
  return "a date or time";
}

std::string in_quotes(std::string_view text) { return '"' + std::string{text} + '"'; }

std::string one_of(std::span<const std::string_view> words) {
  std::string text;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (i != 0) text += i + 1 == words.size() ? " or " : ", ";
    text += in_quotes(words[i]);
  }
  return text;
}

std::optional<std::uint32_t> number(std::string_view text) {
  if (text.empty() || text.size() > 9) return std::nullopt;
  std::uint32_t value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + static_cast<std::uint32_t>(c - '0');
  }
  return value;
}

std::string_view trimmed(std::string_view text) {
  const auto first = text.find_first_not_of(' ');
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(' ') - first + 1);
}

/// "1024-60999" or "443".
std::optional<PortRange> port_range(std::string_view text) {
  const auto dash = text.find('-');
  const auto first = number(trimmed(text.substr(0, dash)));
  const auto last = dash == std::string_view::npos ? first : number(trimmed(text.substr(dash + 1)));
  if (!first || !last || !Port::from(*first) || !Port::from(*last) || *first > *last) return std::nullopt;
  return PortRange{static_cast<std::uint16_t>(*first), static_cast<std::uint16_t>(*last)};
}

std::optional<Prefix> v4_prefix(std::string_view text) {
  const auto prefix = Prefix::parse(text);
  return prefix && prefix->address.is_v4() && prefix->length >= 96 ? prefix : std::nullopt;
}

std::optional<Prefix> either_prefix(std::string_view text) {
  const auto prefix = Prefix::parse(text);
  return prefix && prefix->address.is_v4() ? v4_prefix(text) : prefix;
}

std::optional<Address> v4_host(std::string_view text) {
  const auto address = Address::parse(text);
  return address && address->is_v4() && transport::is_host_address(*address) ? address : std::nullopt;
}

std::optional<Address> v6_host(std::string_view text) {
  const auto address = Address::parse(text);
  static const Prefix of_a_link = *Prefix::parse("fe80::/10");
  return address && !address->is_v4() && transport::is_host_address(*address) && !of_a_link.contains(*address)
             ? address
             : std::nullopt;
}

std::optional<Transport> transport_of(std::string_view text) {
  if (text == "tcp") return Transport::tcp;
  if (text == "udp") return Transport::udp;
  return std::nullopt;
}

/// As the kernel takes it: 1 to 15 octets, no blank, no slash, not "." or "..".
bool is_interface_name(std::string_view name) {
  return !name.empty() && name.size() <= 15 && name != "." && name != ".." &&
         std::ranges::all_of(name, [](char c) {
           return static_cast<unsigned char>(c) > 0x20 && c != '/' && c != ':' && c != 0x7f;
         });
}

/// Small edits between two words, for "did you mean".
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    auto diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const auto above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0U : 1U)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

/// One table of a file. Each getter marks its key as known; finish() reports the others.
class Section {
 public:
  Section(Reading& reading, const std::string& file, const toml::table& table, std::string name)
      : reading_{reading}, file_{file}, table_{table}, name_{std::move(name)} {}

  Where where(const toml::node& node) const {
    return {file_, static_cast<std::uint32_t>(node.source().begin.line),
            static_cast<std::uint32_t>(node.source().begin.column)};
  }
  Where where() const { return where(table_); }
  std::string path(std::string_view key) const {
    return name_.empty() ? std::string{key} : name_ + '.' + std::string{key};
  }

  const toml::node* find(std::string_view key) {
    known_.emplace(key);
    const auto* node = table_.get(key);
    if (node != nullptr) reading_.places[path(key)] = where(*node);
    return node;
  }
  void wrong(std::string_view key, const toml::node& node, const std::string& expected) {
    reading_.problem(where(node), path(key), "found " + shown(node) + ", expected " + expected);
  }

  template <class Integer>
  void integer(std::string_view key, Integer& value, std::uint64_t least, std::uint64_t most) {
    const auto* node = find(key);
    if (node == nullptr) return;
    const auto* found = node->as_integer();
    if (found == nullptr || found->get() < 0 || static_cast<std::uint64_t>(found->get()) < least ||
        static_cast<std::uint64_t>(found->get()) > most)
      return wrong(key, *node, "an integer from " + std::to_string(least) + " to " + std::to_string(most));
    value = static_cast<Integer>(found->get());
  }
  void limit(std::string_view key, std::uint32_t& value) { integer(key, value, 0, any_u32); }
  void seconds(std::string_view key, std::uint32_t& value) { integer(key, value, 1, longest_timeout); }

  void boolean(std::string_view key, bool& value) {
    const auto* node = find(key);
    if (node == nullptr) return;
    if (const auto* found = node->as_boolean())
      value = found->get();
    else
      wrong(key, *node, "true or false");
  }

  /// `parse` gives an optional; the text is told as `expected` when it is empty.
  template <class Value, class Parse>
  void text(std::string_view key, Value& value, const std::string& expected, Parse&& parse) {
    const auto* node = find(key);
    if (node == nullptr) return;
    const auto* found = node->as_string();
    if (found == nullptr) return wrong(key, *node, expected);
    if (auto parsed = parse(found->get()))
      value = std::move(*parsed);
    else
      wrong(key, *node, expected);
  }

  /// A word out of a table of words and what each stands for.
  template <class Value, std::size_t n>
  void word(std::string_view key, Value& value,
            const std::array<std::pair<std::string_view, Value>, n>& words) {
    std::array<std::string_view, n> names;
    std::ranges::transform(words, names.begin(), [](const auto& entry) { return entry.first; });
    text(key, value, one_of(names), [&](const std::string& found) -> std::optional<Value> {
      for (const auto& [name, meaning] : words)
        if (name == found) return meaning;
      return std::nullopt;
    });
  }

  /// A list of strings, each parsed; twice the same is an error. False when the key is not there or wrong.
  template <class Value, class Parse>
  bool list(std::string_view key, std::vector<Value>& values, const std::string& expected_entry,
            Parse&& parse) {
    const auto* node = find(key);
    return node != nullptr && list_in(key, *node, values, expected_entry, parse);
  }
  template <class Value, class Parse>
  bool list_in(std::string_view key, const toml::node& node, std::vector<Value>& values,
               const std::string& expected_entry, Parse&& parse) {
    const auto* array = node.as_array();
    if (array == nullptr) {
      wrong(key, node, "a list of strings, each " + expected_entry);
      return false;
    }
    std::vector<Value> found;
    bool good = true;
    for (const auto& entry : *array) {
      const auto* string = entry.as_string();
      auto parsed = string != nullptr ? parse(string->get()) : decltype(parse(std::string{})){};
      if (!parsed) {
        wrong(key, entry, expected_entry);
        good = false;
      } else if (std::ranges::find(found, *parsed) != found.end()) {
        reading_.problem(where(entry), path(key), shown(entry) + " stands twice in this list");
        good = false;
      } else {
        found.push_back(std::move(*parsed));
      }
    }
    if (good) values = std::move(found);
    return good;
  }

  /// Every table of an array of tables.
  template <class Read>
  void tables(std::string_view key, Read&& read) {
    const auto* node = find(key);
    if (node == nullptr) return;
    const auto* array = node->as_array();
    if (array == nullptr) return wrong(key, *node, "[[" + path(key) + "]] tables");
    for (const auto& entry : *array) {
      const auto* table = entry.as_table();
      if (table == nullptr) {
        wrong(key, entry, "a [[" + path(key) + "]] table");
        continue;
      }
      Section section{reading_, file_, *table, path(key)};
      read(section);
      section.finish();
    }
  }
  template <class Read>
  void table(std::string_view key, Read&& read) {
    const auto* node = find(key);
    if (node == nullptr) return;
    const auto* found = node->as_table();
    if (found == nullptr) return wrong(key, *node, "a [" + path(key) + "] table");
    Section section{reading_, file_, *found, path(key)};
    read(section);
    section.finish();
  }

  void missing(std::string_view key, const std::string& expected) {
    reading_.problem(where(), path(key), "missing, expected " + expected);
  }
  Reading& reading() { return reading_; }

  void finish() {
    for (const auto& [key, node] : table_) {
      if (known_.contains(key.str())) continue;
      const Where place{file_, static_cast<std::uint32_t>(key.source().begin.line),
                        static_cast<std::uint32_t>(key.source().begin.column)};
      std::string text = "unknown key";
      const std::string* nearest = nullptr;
      const auto likeness = [&](const std::string& known) {
        return known.starts_with(key.str()) ? std::size_t{1} : distance(key.str(), known);
      };
      for (const auto& known : known_)
        if (likeness(known) <= 2 && (nearest == nullptr || likeness(known) < likeness(*nearest)))
          nearest = &known;
      if (nearest != nullptr) {
        text += "; did you mean " + *nearest + '?';
      } else {
        text += ", expected one of";
        for (auto it = known_.begin(); it != known_.end(); ++it)
          text += (it == known_.begin() ? " " : ", ") + *it;
      }
      reading_.problem(place, path(key.str()), text);
    }
  }

 private:
  Reading& reading_;
  const std::string& file_;
  const toml::table& table_;
  std::string name_;
  std::set<std::string, std::less<>> known_;
};

constexpr std::string_view interface_words = "the name of a network interface (1 to 15 characters)";
constexpr std::string_view range_words = "a port or a range of ports such as \"1024-65535\"";

std::optional<std::string> interface_name(const std::string& text) {
  return is_interface_name(text) ? std::optional{text} : std::nullopt;
}

std::optional<Protocol> protocol_of(const std::string& text) {
  if (text == "pcp") return Protocol::pcp;
  if (text == "natpmp") return Protocol::natpmp;
  if (text == "upnp") return Protocol::upnp;
  return std::nullopt;
}
constexpr std::string_view protocol_words = "\"pcp\", \"natpmp\" or \"upnp\"";

std::optional<std::string> absolute_path(const std::string& text) {
  return text.starts_with('/') && text.find('\0') == std::string::npos ? std::optional{text} : std::nullopt;
}

void read_listen(Section& in, Config::Listen& listen) {
  in.list("lan", listen.lan, std::string{interface_words}, interface_name);
  in.list("wan", listen.wan, std::string{interface_words}, interface_name);
  if (const auto* node = in.find("lan_prefixes")) {
    if (const auto* word = node->as_string(); word != nullptr && word->get() == "auto")
      listen.lan_prefixes.clear();
    else if (!node->is_array())
      in.wrong("lan_prefixes", *node, "\"auto\" or a list of IPv4 prefixes such as \"192.168.1.0/24\"");
    else
      in.list_in("lan_prefixes", *node, listen.lan_prefixes, "an IPv4 prefix such as \"192.168.1.0/24\"",
                 v4_prefix);
  }
  if (const auto* node = in.find("control")) {
    std::vector<std::string> names;
    if (const auto* word = node->as_string(); word != nullptr && word->get() == "all")
      listen.control.reset();
    else if (!node->is_array())
      in.wrong("control", *node, "\"all\" or a list of LAN interfaces");
    else if (in.list_in("control", *node, names, std::string{interface_words}, interface_name))
      listen.control = std::move(names);
  }
  in.list("protocols", listen.protocols, std::string{protocol_words}, protocol_of);
  in.integer("http_port", listen.http_port, 1, 65535);
  in.boolean("anycast", listen.anycast);
  in.integer("igd_version", listen.igd_version, 1, 2);
  in.word<std::uint32_t, 2>("uda_version", listen.uda_minor, {{{"1.1", 1}, {"1.0", 0}}});
  in.integer("multicast_ttl", listen.multicast_ttl, 1, 255);
  in.tables("interface", [&](Section& table) {
    Config::ListenInterface entry;
    entry.protocols = {Protocol::pcp, Protocol::natpmp, Protocol::upnp};
    table.text("name", entry.name, std::string{interface_words}, interface_name);
    table.list("protocols", entry.protocols, std::string{protocol_words}, protocol_of);
    if (table.find("name") == nullptr) return table.missing("name", std::string{interface_words});
    if (entry.name.empty()) return;
    if (std::ranges::find(listen.interfaces, entry.name, &Config::ListenInterface::name) !=
        listen.interfaces.end())
      return in.reading().problem(table.where(), "listen.interface.name",
                                  in_quotes(entry.name) + " is described twice");
    in.reading().places["listen.interface." + entry.name] = table.where(*table.find("name"));
    listen.interfaces.push_back(std::move(entry));
  });
}

void read_engine(Section& in, Config::Engine& engine) {
  in.word<PlaneChoice, 3>(
      "data_plane", engine.data_plane,
      {{{"auto", PlaneChoice::automatic}, {"tun", PlaneChoice::tun}, {"ebpf", PlaneChoice::ebpf}}});
  in.list("external_addresses", engine.external_addresses, "an IPv4 address that a host can have", v4_host);
  in.text("pool", engine.pool, std::string{range_words}, port_range);
  in.list("no_translate", engine.no_translate, "an IPv4 prefix such as \"10.8.0.0/16\"", v4_prefix);
  if (const auto* node = in.find("mss_clamp")) {
    const auto* word = node->as_string();
    const auto* octets = node->as_integer();
    if (word != nullptr && word->get() == "auto")
      engine.mss_clamp = 1;
    else if (word != nullptr && word->get() == "off")
      engine.mss_clamp = 0;
    else if (octets != nullptr && octets->get() >= 536 && octets->get() <= 65495)
      engine.mss_clamp = static_cast<std::uint32_t>(octets->get());
    else
      in.wrong("mss_clamp", *node, "\"auto\", \"off\" or an integer from 536 to 65495");
  }
  in.boolean("ipv6", engine.ipv6);
  in.boolean("random_ports", engine.random_ports);
  in.boolean("redirect", engine.redirect);
  in.integer("tun_queues", engine.tun_queues, 0, 64);
  in.seconds("tcp_established", engine.tcp_established);
  in.seconds("tcp_transitory", engine.tcp_transitory);
  in.seconds("tcp_half_open", engine.tcp_half_open);
  in.seconds("udp_idle", engine.udp_idle);
  in.seconds("icmp_query", engine.icmp_query);
}

void read_static(Section& in) {
  auto& reading = in.reading();
  const auto problems = reading.problems.size();
  std::optional<Transport> transport;
  std::uint16_t external = 0;
  std::optional<InternalEndpoint> internal;
  std::string description;
  constexpr std::string_view endpoint_words =
      "an address and a port such as \"192.168.1.5:8443\" or \"[2001:db8::5]:8443\"";
  in.text("protocol", transport, "\"tcp\" or \"udp\"",
          [](const std::string& text) -> std::optional<std::optional<Transport>> {
            if (const auto found = transport_of(text)) return found;
            return std::nullopt;
          });
  in.integer("external", external, 1, 65535);
  in.text("internal", internal, std::string{endpoint_words},
          [](const std::string& text) -> std::optional<std::optional<InternalEndpoint>> {
            const auto colon = text.rfind(':');
            if (colon == std::string::npos) return std::nullopt;
            const auto host = std::string_view{text}.substr(0, colon);
            const bool brackets = host.starts_with('[') && host.ends_with(']');
            const auto address = brackets ? v6_host(host.substr(1, host.size() - 2)) : v4_host(host);
            const auto port = number(std::string_view{text}.substr(colon + 1));
            if (!address || !port || !Port::from(*port)) return std::nullopt;
            return InternalEndpoint{*address, *Port::from(*port)};
          });
  in.text("description", description, "a string",
          [](const std::string& text) { return std::optional{text}; });
  if (in.find("protocol") == nullptr) in.missing("protocol", "\"tcp\" or \"udp\"");
  // a host of IPv6 is reached at its own port
  const bool pinhole = internal && !internal->address.is_v4();
  const bool unread = !internal && in.find("internal") != nullptr;
  if (in.find("external") == nullptr && !pinhole && !unread)
    in.missing("external", "an integer from 1 to 65535");
  if (in.find("internal") == nullptr) in.missing("internal", std::string{endpoint_words});
  if (reading.problems.size() != problems) return;
  if (pinhole && external != 0 && external != internal->port.number())
    return in.reading().problem(in.where(*in.find("external")), "static.external",
                                "found " + std::to_string(external) +
                                    ", but IPv6 is not translated: leave it out, or " +
                                    std::to_string(internal->port.number()));
  const auto port = pinhole ? internal->port : *Port::from(external);
  for (std::size_t i = 0; i < reading.config.statics.size(); ++i) {
    const auto& other = reading.config.statics[i];
    if (other.transport != *transport || other.internal.address.is_v4() == pinhole) continue;
    if (pinhole ? other.internal == *internal : other.external == port)
      return reading.problem(in.where(), "static.external",
                             "found " + std::to_string(port.number()) + ", but that " +
                                 std::string{to_string(*transport)} + " port is given to " +
                                 to_string(other.internal) + " at " + reading.statics[i].text());
  }
  const auto where = in.where();
  reading.config.statics.push_back(
      {*transport, port, *internal, description,
       std::filesystem::path{where.file}.filename().string() + ':' + std::to_string(where.line)});
  reading.statics.push_back(where);
}

/// "80,443,8000-8100", or an integer.
void read_ports(Section& in, std::string_view key, std::vector<PortRange>& ports) {
  const auto* node = in.find(key);
  if (node == nullptr) return;
  const std::string expected = "ports and ranges such as \"80,443,8000-8100\"";
  if (const auto* integer = node->as_integer()) {
    if (integer->get() < 1 || integer->get() > 65535) return in.wrong(key, *node, expected);
    const auto port = static_cast<std::uint16_t>(integer->get());
    ports = {PortRange{port, port}};
    return;
  }
  const auto* text = node->as_string();
  if (text == nullptr) return in.wrong(key, *node, expected);
  std::vector<PortRange> found;
  for (std::string_view rest = text->get();;) {
    const auto comma = rest.find(',');
    const auto range = port_range(trimmed(rest.substr(0, comma)));
    if (!range) return in.wrong(key, *node, expected);
    found.push_back(*range);
    if (comma == std::string_view::npos) break;
    rest.remove_prefix(comma + 1);
  }
  ports = std::move(found);
}

void read_rule(Section& in) {
  auto& reading = in.reading();
  const auto problems = reading.problems.size();
  lease::PolicyRule rule;
  in.text("device", rule.device, "an address or prefix such as \"10.0.0.5\"",
          [](const std::string& text) -> std::optional<std::optional<Prefix>> {
            if (const auto found = either_prefix(text)) return found;
            return std::nullopt;
          });
  read_ports(in, "external", rule.external);
  in.text("protocol", rule.transport, "\"tcp\" or \"udp\"",
          [](const std::string& text) -> std::optional<std::optional<Transport>> {
            if (const auto found = transport_of(text)) return found;
            return std::nullopt;
          });
  in.word<bool, 2>("action", rule.allow, {{{"allow", true}, {"deny", false}}});
  if (in.find("action") == nullptr) in.missing("action", "\"allow\" or \"deny\"");
  if (reading.problems.size() != problems) return;
  const auto where = in.where();
  rule.where = std::filesystem::path{where.file}.filename().string() + ':' + std::to_string(where.line);
  reading.config.policy.rules.push_back(std::move(rule));
}

void read_policy(Section& in, Config::Policy& policy) {
  in.word<bool, 2>("list", policy.list_own, {{{"all", false}, {"own", true}}});
  in.list("third_party", policy.third_party, "an address or prefix such as \"192.168.1.2\"", either_prefix);
  in.text("external_ports", policy.external_ports, std::string{range_words}, port_range);
  in.text("upnp_internal_ports", policy.upnp_internal_ports, std::string{range_words}, port_range);
  if (const auto* node = in.find("reserved_ports")) {
    using Reserved = std::vector<std::pair<Transport, Port>>;
    std::vector<Reserved> entries;
    const auto parse = [](const std::string& text) -> std::optional<Reserved> {
      const auto slash = text.find('/');
      if (slash == std::string::npos) return std::nullopt;
      const auto transport = transport_of(std::string_view{text}.substr(0, slash));
      const auto range = port_range(std::string_view{text}.substr(slash + 1));
      if (!transport || !range) return std::nullopt;
      Reserved ports;
      for (std::uint32_t port = range->first; port <= range->last; ++port)
        ports.emplace_back(*transport, *Port::from(port));
      return ports;
    };
    if (in.list_in("reserved_ports", *node, entries, "a protocol and a port such as \"tcp/2222\"", parse)) {
      policy.reserved_ports.clear();
      for (const auto& entry : entries)
        policy.reserved_ports.insert(policy.reserved_ports.end(), entry.begin(), entry.end());
    }
  }
  in.integer("reuse_delay", policy.reuse_delay, 0, longest_timeout);
  in.boolean("reuse_strict", policy.reuse_strict);
  in.tables("rule", read_rule);
}

void read_limits(Section& in, Config::Limits& limits) {
  in.limit("leases_per_device", limits.leases_per_device);
  in.limit("leases_total", limits.leases_total);
  in.limit("ports_per_set", limits.ports_per_set);
  constexpr std::uint64_t highest_rate = 1'000'000'000;  // bursts are up to three times as many
  in.integer("requests_per_second", limits.requests_per_second, 0, highest_rate);
  in.limit("mappings_per_device", limits.mappings_per_device);
  in.limit("new_mappings_per_second", limits.new_mappings_per_second);
  in.limit("flows_per_device", limits.flows_per_device);
  in.limit("flows_total", limits.flows_total);
  in.limit("icmp_ids_per_device", limits.icmp_ids_per_device);
  in.limit("fragments_per_source", limits.fragments_per_source);
  in.limit("fragments_total", limits.fragments_total);
  in.limit("connections_per_device", limits.connections_per_device);
  in.limit("connections_total", limits.connections_total);
  in.limit("subscriptions_per_device", limits.subscriptions_per_device);
  in.limit("subscriptions_total", limits.subscriptions_total);
  in.integer("searches_per_second", limits.searches_per_second, 0, highest_rate);
  in.limit("searches_total", limits.searches_total);
  in.limit("http_head", limits.http_head);
  in.limit("http_body", limits.http_body);
  in.integer("http_head_timeout", limits.http_head_timeout, 0, longest_timeout);
  in.integer("http_request_timeout", limits.http_request_timeout, 0, longest_timeout);
  in.integer("http_idle_timeout", limits.http_idle_timeout, 0, longest_timeout);
  in.integer("description", limits.description, 0, longest_description);
}

void read_file(const std::string& file, const toml::table& root, Reading& reading) {
  auto& config = reading.config;
  Section in{reading, file, root, ""};
  in.table("listen", [&](Section& table) { read_listen(table, config.listen); });
  in.table("engine", [&](Section& table) { read_engine(table, config.engine); });
  in.table("admin", [&](Section& table) {
    table.text("socket", config.admin.socket, "an absolute path of at most 107 octets",
               [](const std::string& text) -> std::optional<std::string> {
                 return text.size() <= 107 ? absolute_path(text) : std::nullopt;
               });
  });
  in.table("log", [&](Section& table) {
    constexpr std::array<std::string_view, 5> levels{"trace", "debug", "info", "warn", "error"};
    table.text("level", config.log.level, one_of(levels), [&](const std::string& text) {
      return std::ranges::find(levels, text) != levels.end() ? std::optional{text} : std::nullopt;
    });
    table.boolean("mappings", config.log.mappings);
  });
  in.tables("static", read_static);
  in.table("policy", [&](Section& table) { read_policy(table, config.policy); });
  in.table("limits", [&](Section& table) { read_limits(table, config.limits); });
  in.table("lifetimes", [&](Section& table) {
    auto& lifetimes = config.lifetimes;
    table.integer("pcp_min", lifetimes.pcp_min, 1, any_u32);
    table.integer("pcp_max", lifetimes.pcp_max, 1, any_u32);
    table.integer("natpmp_max", lifetimes.natpmp_max, 1, any_u32);
    table.integer("upnp_max", lifetimes.upnp_max, 1, any_u32);
    table.boolean("upnp_v1_permanent", lifetimes.upnp_v1_permanent);
    table.integer("subscription", lifetimes.subscription, 1, any_u32);
    table.integer("subscription_max", lifetimes.subscription_max, 1, any_u32);
  });
  in.table("filtering", [&](Section& table) {
    auto& filtering = config.filtering;
    table.word<nat::Filtering, 3>("implicit", filtering.implicit,
                                  {{{"endpoint", nat::Filtering::endpoint},
                                    {"address", nat::Filtering::address},
                                    {"address_and_port", nat::Filtering::address_and_port}}});
    table.boolean("answer_ping", filtering.answer_ping);
    table.boolean("icmp_to_lan", filtering.icmp_to_lan);
    table.boolean("icmp_to_wan", filtering.icmp_to_wan);
    table.boolean("drop_private_wan_sources", filtering.drop_private_wan_sources);
    table.integer("fragment_timeout", filtering.fragment_timeout, 1, 3600);
    table.word<nat::Ending, 2>("ended_leases", filtering.ended_leases,
                               {{{"reset", nat::Ending::reset}, {"drain", nat::Ending::drain}}});
  });
  in.table("store", [&](Section& table) {
    table.text("dir", config.store.dir, "an absolute path", absolute_path);
    table.boolean("sync", config.store.sync);
    table.word<bool, 2>("on_error", config.store.on_error_memory, {{{"refuse", false}, {"memory", true}}});
  });
  in.finish();
}

void apply_flags(const Flags& flags, Reading& reading) {
  auto& config = reading.config;
  const auto problem = [&](const char* flag, const std::string& found, std::string_view expected) {
    reading.bad_flags = true;
    reading.problem({flag, 0, 0}, "", "found " + in_quotes(found) + ", expected " + std::string{expected});
  };
  if (!flags.lan.empty()) {
    config.listen.lan.clear();
    reading.places["listen.lan"] = {"--lan", 0, 0};
    for (const auto& name : flags.lan) {
      if (!is_interface_name(name)) problem("--lan", name, interface_words);
      if (std::ranges::find(config.listen.lan, name) == config.listen.lan.end())
        config.listen.lan.push_back(name);
    }
  }
  if (flags.wan) {
    if (!is_interface_name(*flags.wan)) problem("--wan", *flags.wan, interface_words);
    config.listen.wan = {*flags.wan};
    reading.places["listen.wan"] = {"--wan", 0, 0};
  }
  if (!flags.external_addresses.empty()) {
    config.engine.external_addresses.clear();
    reading.places["engine.external_addresses"] = {"--external-address", 0, 0};
    for (const auto& text : flags.external_addresses) {
      if (const auto address = v4_host(text))
        config.engine.external_addresses.push_back(*address);
      else
        problem("--external-address", text, "an IPv4 address that a host can have");
    }
  }
  if (flags.data_plane) {
    if (*flags.data_plane == "auto")
      config.engine.data_plane = PlaneChoice::automatic;
    else if (*flags.data_plane == "tun")
      config.engine.data_plane = PlaneChoice::tun;
    else if (*flags.data_plane == "ebpf")
      config.engine.data_plane = PlaneChoice::ebpf;
  }
  if (flags.state_dir) config.store.dir = *flags.state_dir;
  if (flags.admin_socket) {
    if (flags.admin_socket->empty() || flags.admin_socket->size() > 107)
      problem("--admin-socket", *flags.admin_socket, "a path of at most 107 octets");
    config.admin.socket = *flags.admin_socket;
  }
  if (flags.log_level) config.log.level = *flags.log_level;
}

/// What no key alone can get wrong.
void check_together(Reading& reading) {
  const auto& config = reading.config;
  const auto& listen = config.listen;
  if (listen.lan.empty())
    reading.problem(reading.place("listen.lan"), "listen.lan",
                    "found an empty list, expected at least one interface");
  if (listen.wan.empty())
    reading.problem(reading.place("listen.wan"), "listen.wan",
                    "found an empty list, expected at least one interface");
  for (const auto& name : listen.wan)
    if (std::ranges::find(listen.lan, name) != listen.lan.end())
      reading.problem(
          reading.place("listen.wan"), "listen.wan",
          "found " + in_quotes(name) + ", which is a LAN interface too; an interface is one or the other");
  if (listen.control)
    for (const auto& name : *listen.control)
      if (std::ranges::find(listen.lan, name) == listen.lan.end())
        reading.problem(reading.place("listen.control"), "listen.control",
                        "found " + in_quotes(name) + ", expected an interface out of listen.lan");
  for (const auto& entry : listen.interfaces)
    if (std::ranges::find(listen.lan, entry.name) == listen.lan.end())
      reading.problem(reading.place("listen.interface." + entry.name), "listen.interface.name",
                      "found " + in_quotes(entry.name) + ", expected an interface out of listen.lan");
  const auto& lifetimes = config.lifetimes;
  if (lifetimes.pcp_min > lifetimes.pcp_max)
    reading.problem(reading.place(reading.places.contains("lifetimes.pcp_min") ? "lifetimes.pcp_min"
                                                                               : "lifetimes.pcp_max"),
                    "lifetimes.pcp_min",
                    "found " + std::to_string(lifetimes.pcp_min) +
                        ", expected at most lifetimes.pcp_max, which is " +
                        std::to_string(lifetimes.pcp_max));
  if (lifetimes.subscription > lifetimes.subscription_max)
    reading.problem(
        reading.place(reading.places.contains("lifetimes.subscription") ? "lifetimes.subscription"
                                                                        : "lifetimes.subscription_max"),
        "lifetimes.subscription",
        "found " + std::to_string(lifetimes.subscription) +
            ", expected at most lifetimes.subscription_max, which is " +
            std::to_string(lifetimes.subscription_max));
  if (config.engine.pool.first < 1024)
    reading.problem(reading.place("engine.pool"), "engine.pool",
                    "found " + std::to_string(config.engine.pool.first) + ", expected ports from 1024 up");
  if (const auto count = config.engine.external_addresses.size(); count > nat::Pairing::most)
    reading.problem(reading.place("engine.external_addresses"), "engine.external_addresses",
                    "found " + std::to_string(count) + " addresses, expected at most " +
                        std::to_string(nat::Pairing::most));
  for (std::size_t i = 0; i < config.statics.size(); ++i) {
    const auto& mapping = config.statics[i];
    if (!mapping.internal.address.is_v4()) continue;  // it has the ports of no other host
    const bool control_port = mapping.transport == Transport::udp
                                  ? mapping.external.number() == 1900 || mapping.external.number() == 5350 ||
                                        mapping.external.number() == 5351
                                  : mapping.external.number() == listen.http_port;
    if (control_port)
      reading.problem(
          reading.statics[i], "static.external",
          "found " + std::to_string(mapping.external.number()) + ", which is a control port of the gateway");
  }
}

void read_text(const std::string& file, std::string_view text, Reading& reading) {
  const auto parsed = toml::parse(text, file);
  if (!parsed) {
    const auto& error = parsed.error();
    std::string description{error.description()};
    std::ranges::replace_if(
        description, [](char c) { return static_cast<unsigned char>(c) < 0x20; }, ' ');
    reading.problem({file, static_cast<std::uint32_t>(error.source().begin.line),
                     static_cast<std::uint32_t>(error.source().begin.column)},
                    "", "not TOML: " + description);
    return;
  }
  read_file(file, parsed.table(), reading);
}

Loaded finish(Reading reading, const Flags& flags) {
  apply_flags(flags, reading);
  if (reading.problems.empty()) check_together(reading);
  return {std::move(reading.config), std::move(reading.problems), reading.bad_flags};
}

/// False when the file is not there.
bool read_path(const std::filesystem::path& path, Reading& reading) {
  std::error_code error;
  if (!std::filesystem::exists(path, error) && !error) return false;
  std::ifstream file{path, std::ios::binary};
  if (!file || std::filesystem::is_directory(path, error)) {
    reading.problem({path.string(), 0, 0}, "", "cannot be read, expected a TOML file");
    return true;
  }
  std::ostringstream text;
  text << file.rdbuf();
  read_text(path.string(), text.view(), reading);
  return true;
}

}  // namespace

Loaded load_config(const Flags& flags) {
  Reading reading;
  if (flags.config) {
    if (!read_path(*flags.config, reading))
      reading.problem({flags.config->string(), 0, 0}, "", "no such file");
    return finish(std::move(reading), flags);
  }
  const std::filesystem::path main{default_config};
  read_path(main, reading);
  std::vector<std::filesystem::path> parts;
  std::error_code error;
  for (std::filesystem::directory_iterator entry{main.parent_path() / "conf.d", error}, end;
       !error && entry != end; entry.increment(error))
    if (entry->path().extension() == ".toml") parts.push_back(entry->path());
  std::ranges::sort(parts);
  for (const auto& part : parts) read_path(part, reading);
  return finish(std::move(reading), flags);
}

Loaded load_config(const std::vector<std::pair<std::string, std::string>>& files, const Flags& flags) {
  Reading reading;
  for (const auto& [name, text] : files) read_text(name, text, reading);
  return finish(std::move(reading), flags);
}

}  // namespace sallyport::daemon
