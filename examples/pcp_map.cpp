// Opens, renews or closes one port at a PCP gateway (RFC 6887): plain sockets and the codec of protocols/pcp.
// It keeps nothing: to renew or close a port, run it again with the nonce that it printed.
#include <arpa/inet.h>
#include <getopt.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <random>
#include <string>

#include "protocols/pcp/codec.hpp"

using namespace sallyport;

namespace {

constexpr const char* usage =
    "usage: pcp_map GATEWAY PORT [--protocol tcp|udp] [--external PORT] [--lifetime SECONDS] [--filter "
    "ADDR/LEN]...\n"
    "               [--prefer-failure] [--description TEXT] [--delete] [--nonce HEX] [--tries N]\n";

int fail(int code, const std::string& why) {
  std::fprintf(stderr, "pcp_map: %s\n", why.c_str());
  return code;
}

std::optional<std::uint32_t> number(std::string_view text, std::uint32_t most, int base = 10) {
  std::uint32_t out = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out, base);
  return error == std::errc{} && end == text.data() + text.size() && out <= most ? std::optional{out}
                                                                                 : std::nullopt;
}

std::optional<Port> port(std::string_view text) { return Port::from(number(text, 65535).value_or(0)); }

constexpr std::pair<pcp::ResultCode, const char*> next_steps[] = {
    {pcp::ResultCode::unsupp_version, "the gateway speaks another version; try NAT-PMP (natpmpc)"},
    {pcp::ResultCode::not_authorized, "give the nonce of the lease (--nonce), or ask the administrator"},
    {pcp::ResultCode::network_failure, "the gateway has no internet address now; try again later"},
    {pcp::ResultCode::no_resources, "the gateway is short of ports or of storage; try again later"},
    {pcp::ResultCode::user_ex_quota, "close ports that are not needed any more"},
    {pcp::ResultCode::cannot_provide_external, "leave out --prefer-failure, or name another --external"},
    {pcp::ResultCode::address_mismatch, "there is another NAT between here and the gateway; ask that one"},
    {pcp::ResultCode::excessive_remote_peers, "name fewer filters"}};

const char* next_step(pcp::ResultCode code) {
  for (const auto& [of, step] : next_steps)
    if (of == code) return step;
  return "this gateway does not do that";
}

}  // namespace

int main(int argc, char** argv) {
  pcp::MapRequest wanted{.lifetime_s = 7200, .client = {}, .map = {}, .options = {}};
  wanted.map.protocol = static_cast<std::uint8_t>(Transport::tcp);
  wanted.map.external_address = Address::v4(0);  // any IPv4 address
  std::uint32_t tries = 3;
  bool have_nonce = false, deletion = false, good = true;
  constexpr option options[] = {
      {"protocol", 1, nullptr, 'p'},       {"external", 1, nullptr, 'e'}, {"lifetime", 1, nullptr, 'l'},
      {"filter", 1, nullptr, 'f'},         {"nonce", 1, nullptr, 'n'},    {"tries", 1, nullptr, 't'},
      {"prefer-failure", 0, nullptr, 'F'}, {"delete", 0, nullptr, 'd'},   {"description", 1, nullptr, 'D'},
      {"help", 0, nullptr, 'h'},           {nullptr, 0, nullptr, 0}};
  for (int c; (c = ::getopt_long(argc, argv, "h", options, nullptr)) != -1;) {
    const std::string_view text = ::optarg ? ::optarg : "";
    if (c == 'h') return std::fputs(usage, stdout), 0;
    if (c == 'F') wanted.options.prefer_failure = true;
    if (c == 'D') wanted.options.description = std::string{text};
    if (c == 'd') deletion = true;
    if (c == 'l') good = (wanted.lifetime_s = number(text, UINT32_MAX).value_or(0)) != 0;
    if (c == 't') good = (tries = number(text, 9).value_or(0)) != 0;
    if (c == 'e') good = (wanted.map.external_port = port(text)).has_value();
    if (c == 'p') {
      good = text == "tcp" || text == "udp";
      wanted.map.protocol = static_cast<std::uint8_t>(text == "udp" ? Transport::udp : Transport::tcp);
    } else if (c == 'f') {
      const auto prefix = Prefix::parse(text);
      if ((good = prefix.has_value()))
        wanted.options.filters.push_back({prefix->length, std::nullopt, prefix->address});
    } else if (c == 'n') {
      good = have_nonce = text.size() == 24;
      for (std::size_t k = 0; good && k < 12; ++k) {
        const auto octet = number(text.substr(2 * k, 2), 255, 16);
        good = octet.has_value();
        wanted.map.nonce[k] = static_cast<std::byte>(octet.value_or(0));
      }
    } else if (c == '?') {
      return std::fputs(usage, stderr), 2;
    }
    if (!good) return fail(2, "cannot make sense of '" + std::string{text} + "'\n" + usage);
  }
  if (argc - ::optind != 2) return std::fputs(usage, stderr), 2;
  const auto gateway = Address::parse(argv[::optind]);
  if (!gateway || !gateway->is_v4()) return fail(2, "the gateway is named by its IPv4 address");
  wanted.map.internal_port = port(argv[::optind + 1]);
  if (!wanted.map.internal_port) return fail(2, "a port is a number from 1 to 65535");
  if (deletion && !have_nonce) return fail(2, "--delete needs the --nonce that opened the port");
  if (deletion) wanted.lifetime_s = 0;
  if (!have_nonce && ::getrandom(wanted.map.nonce.data(), wanted.map.nonce.size(), 0) != 12)
    return fail(1, "the system gives no random numbers");

  const int socket = ::socket(AF_INET, SOCK_DGRAM, 0);
  sockaddr_in to{}, from{};
  to.sin_family = AF_INET;
  to.sin_port = htons(pcp::server_port);
  to.sin_addr.s_addr = htonl(gateway->v4_number());
  socklen_t size =
      sizeof from;  // connected, so only the gateway's answers come in, and our own address is known
  if (::connect(socket, reinterpret_cast<sockaddr*>(&to), sizeof to) != 0 ||
      ::getsockname(socket, reinterpret_cast<sockaddr*>(&from), &size) != 0)
    return fail(1, "no way to " + gateway->to_string() + ": " + std::strerror(errno));
  wanted.client = Address::v4(ntohl(from.sin_addr.s_addr));

  const auto request = pcp::encode_map_request(wanted);
  std::mt19937 random{std::random_device{}()};
  double wait_s = 3;  // section 8.1.1: 3 s, then doubled, each time up to a tenth more or less
  for (; tries > 0; --tries, wait_s *= 2) {
    if (::send(socket, request.data(), request.size(), 0) < 0 && errno != ECONNREFUSED)
      return fail(1, std::string{"cannot send: "} + std::strerror(errno));
    const double wait_ms = 1000 * wait_s * std::uniform_real_distribution{0.9, 1.1}(random);
    const auto until = BootClock::now() + std::chrono::milliseconds{static_cast<int>(wait_ms)};
    while (BootClock::now() < until) {
      pollfd readable{socket, POLLIN, 0};
      const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - BootClock::now());
      if (::poll(&readable, 1, static_cast<int>(left.count())) <= 0) break;
      std::array<std::byte, pcp::max_message + 1> buffer;
      const auto got = ::recv(socket, buffer.data(), buffer.size(), 0);
      if (got < 0) return fail(1, "nothing listens there: is " + gateway->to_string() + " a PCP gateway?");
      const std::span datagram{buffer.data(), static_cast<std::size_t>(got)};
      if (got >= 4 && datagram[0] == std::byte{0}) return fail(1, "refused: the gateway speaks NAT-PMP only");
      const auto answer = pcp::decode_map_response(datagram);
      if (!answer || answer->map.nonce != wanted.map.nonce || answer->map.protocol != wanted.map.protocol ||
          answer->map.internal_port != wanted.map.internal_port)
        continue;  // not ours
      const auto lifetime = std::to_string(answer->header.lifetime_s);
      if (answer->header.result != pcp::ResultCode::success)
        return fail(1, "refused: " + std::string{to_string(answer->header.result)} + ", holds for " +
                           lifetime + " s: " + next_step(answer->header.result));
      const auto inside = to_string(wanted.client, *wanted.map.internal_port);
      const char* protocol = wanted.map.protocol == 17 ? "udp" : "tcp";
      if (deletion) return std::printf("closed: %s %s\n", protocol, inside.c_str()), 0;
      if (!answer->map.external_port) return fail(1, "the gateway's answer names no port");
      std::printf("open: %s %s -> %s for %s s, nonce ", protocol,
                  to_string(answer->map.external_address, *answer->map.external_port).c_str(), inside.c_str(),
                  lifetime.c_str());
      for (const auto octet : wanted.map.nonce) std::printf("%02x", std::to_integer<unsigned>(octet));
      std::puts("");
      return 0;
    }
  }
  return fail(1, "no answer from " + gateway->to_string() + ": is it a PCP gateway, and is this its LAN?");
}
