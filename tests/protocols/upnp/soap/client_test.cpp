// Requests with the habits of real clients (vectors/CLIENT.http): written from what these are known to send,
// not captured.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "protocols/upnp/soap/request.hpp"
#include "tests/protocols/upnp/soap/wan_table.hpp"

namespace sallyport::upnp::soap {
namespace {

struct Expected {
  std::string_view action;
  unsigned version;
  std::vector<std::string> arguments;
};

// In the order of the table, whatever order they came in
const std::map<std::string, Expected> clients = {
    {"miniupnpc",
     {"AddPortMapping", 1, {"", "8080", "TCP", "8080", "192.168.1.10", "1", "libminiupnpc", "0"}}},
    {"transmission",
     {"AddPortMapping",
      2,
      {"", "51413", "TCP", "51413", "192.168.1.10", "1", "Transmission at 51413", "3600"}}},
    {"libupnp", {"AddPortMapping", 1, {"", "4000", "TCP", "4000", "192.168.1.10", "1", "eMule", "0"}}},
    {"libtorrent",
     {"AddPortMapping",
      1,
      {"", "6881", "UDP", "6881", "192.168.1.10", "1", "libtorrent at 192.168.1.10:6881", "3600"}}},
    {"windows",
     {"AddPortMapping", 1, {"", "3389", "TCP", "3389", "192.168.1.10", "1", "Remote & Desktop", "0"}}},
    {"xbox",
     {"AddPortMapping",
      1,
      {"", "3074", "UDP", "3074", "192.168.1.10", "1", "Xbox (192.168.1.10:3074) 3074 UDP", "0"}}},
    {"playstation",
     {"AddPortMapping",
      1,
      {"", "9308", "UDP", "9308", "192.168.1.10", "1", "192.168.1.10:9308 to 9308 (UDP)", "0"}}},
    {"macos", {"AddPortMapping", 1, {"", "4500", "UDP", "4500", "192.168.1.10", "1", "iC4500", "0"}}},
    {"gupnp", {"AddAnyPortMapping", 2, {"", "0", "TCP", "22000", "192.168.1.10", "1", "B\u00fcro", "7200"}}},
    {"goupnp", {"DeletePortMapping", 1, {"", "30303", "TCP"}}},
    {"old_torrent_client",
     {"AddPortMapping",
      1,
      {"", "16881", " tcp ", " 016881 ", "192.168.1.10", "True", "a <b> & \"c\"", "\n0\n"}}},
    {"television",
     {"AddPortMapping", 1, {"", "5001", "TCP", "5001", "192.168.1.10", "1", "T\ufffdl\ufffd", "0"}}},
    {"upnpc_status", {"GetExternalIPAddress", 1, {}}},
    {"python_requests", {"GetExternalIPAddress", 2, {}}},
};

std::string vector_of(const std::string& client) {
  std::ifstream file{std::filesystem::path{SALLYPORT_VECTORS} / (client + ".http"), std::ios::binary};
  return {std::istreambuf_iterator<char>{file}, {}};
}

// UDA-3-01, UDA-3-09, UDA-3-10, UDA-3-16, UDA-3-22, UDA-3-23, UPNP-X-04, POL-XML-06, POL-WEB-07
TEST(SoapClients, AreUnderstoodWhateverTheirHabits) {
  for (const auto& [client, expected] : clients) {
    const auto decoded =
        decode_request(test::request_of(vector_of(client)), test::wan_table, test::may_be_empty);
    const auto* const call = std::get_if<Call>(&decoded);
    ASSERT_TRUE(call) << client;
    EXPECT_EQ(call->action->name, expected.action) << client;
    EXPECT_EQ(call->version, expected.version) << client;
    EXPECT_EQ(call->arguments, expected.arguments) << client;
    EXPECT_EQ(call->service, &test::wan_table);
  }
}

TEST(SoapClients, EachHaveAVectorAndEachVectorAClient) {
  std::size_t vectors = 0;
  for (const auto& entry : std::filesystem::directory_iterator{SALLYPORT_VECTORS}) {
    EXPECT_TRUE(clients.contains(entry.path().stem().string())) << entry.path();
    ++vectors;
  }
  EXPECT_EQ(vectors, clients.size());
}

// UDA-3-18: a body that was cut executes nothing
TEST(SoapClients, AreRefusedAtEveryShorterLength) {
  for (const auto& [client, expected] : clients) {
    const auto whole = test::request_of(vector_of(client));
    const auto end = whole.body.rfind('>') + 1;
    for (std::size_t n = 0; n < end; ++n) {
      auto cut = whole;
      cut.body.resize(n);
      const auto decoded = decode_request(std::move(cut), test::wan_table, test::may_be_empty);
      const auto* const refused = std::get_if<Fault>(&decoded);
      ASSERT_TRUE(refused) << client << n;
      EXPECT_EQ(refused->code, 402u) << client << n;
    }
  }
}

}  // namespace
}  // namespace sallyport::upnp::soap
