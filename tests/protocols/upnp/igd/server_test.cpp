#include "tests/protocols/upnp/igd/igd_fixture.hpp"

#include <cctype>

namespace sallyport::test {
namespace {

// --- AddPortMapping ---

TEST_F(IgdTest, AMappingIsOpenWhenItIsAnswered) {  // WIC-ADD-01, UDA-3-02
  boot_igd();
  auto reply = send(soap_request(std::string{wan_ip_type} + "2", "WANIPConn1", "AddPortMapping", mapping(), console));
  EXPECT_FALSE(reply->given) << "not before it is written down";
  commit();
  ASSERT_TRUE(reply->given);
  EXPECT_EQ(reply->status, 200u);
  EXPECT_NE(reply->body.find("<u:AddPortMappingResponse xmlns:u=\"urn:schemas-upnp-org:service:WANIPConnection:2\">"),
            std::string::npos);
  EXPECT_TRUE(is_open(5000));
  const auto leases = service->list({}, now());
  ASSERT_EQ(leases.size(), 1u);
  EXPECT_EQ(leases[0].via, Via::upnp);
  EXPECT_EQ(leases[0].description, "a game");
  const auto found = ask_wan("GetSpecificPortMappingEntry", entry_key());  // WIC-SPEC-01, WIC-SPEC-04
  EXPECT_EQ(found["NewInternalPort"], "6000");
  EXPECT_EQ(found["NewInternalClient"], "192.168.1.10");
  EXPECT_EQ(found["NewEnabled"], "1");
  EXPECT_EQ(found["NewPortMappingDescription"], "a game");
  EXPECT_EQ(found["NewLeaseDuration"], "3600");
  pass(3600s);  // WIC-ADD-14
  EXPECT_EQ(ask_wan("GetSpecificPortMappingEntry", entry_key()).code(), 714u);
  EXPECT_FALSE(is_open(5000));
}

struct Wrong {
  const char* says;
  const char* argument;
  const char* value;  ///< null: left out
  unsigned code;
  unsigned any_code;  ///< of AddAnyPortMapping
};

class WrongArgument : public IgdTest, public ::testing::WithParamInterface<Wrong> {};

TEST_P(WrongArgument, GetsItsErrorAndChangesNothing) {  // WIC-ADD-04..10, -18, -21, -23, WIC-ANY-06, POL-NUM-01..03
  boot_igd();
  const auto& row = GetParam();
  auto arguments = row.value ? with(mapping(), row.argument, row.value) : without(mapping(), row.argument);
  EXPECT_EQ(ask_wan("AddPortMapping", arguments).code(), row.code) << row.says;
  EXPECT_EQ(service->entry_count(), 0u) << row.says;
  EXPECT_EQ(ask_wan("AddAnyPortMapping", arguments).code(), row.any_code) << row.says;
  EXPECT_EQ(service->entry_count(), row.any_code == 0 ? 1u : 0u) << row.says;
}

INSTANTIATE_TEST_SUITE_P(
    Rows, WrongArgument,
    ::testing::Values(
        Wrong{"no remote host", "NewRemoteHost", nullptr, 402, 402},
        Wrong{"no external port", "NewExternalPort", nullptr, 402, 402},
        Wrong{"no protocol", "NewProtocol", nullptr, 402, 402},
        Wrong{"no internal port", "NewInternalPort", nullptr, 402, 402},
        Wrong{"no client", "NewInternalClient", nullptr, 402, 402},
        Wrong{"no enabled", "NewEnabled", nullptr, 402, 402},
        Wrong{"no description", "NewPortMappingDescription", nullptr, 402, 402},
        Wrong{"no lease", "NewLeaseDuration", nullptr, 402, 402},
        Wrong{"an empty port", "NewExternalPort", "", 402, 402},
        Wrong{"an empty client", "NewInternalClient", "", 402, 402},
        Wrong{"an empty enabled", "NewEnabled", "", 402, 402},
        Wrong{"a remote host by name", "NewRemoteHost", "example.com", 402, 402},
        Wrong{"a remote prefix", "NewRemoteHost", "198.51.100.0/24", 402, 402},
        Wrong{"port 73616", "NewExternalPort", "73616", 601, 601},
        Wrong{"port 2^32 + 5000", "NewExternalPort", "4294972296", 601, 601},
        Wrong{"port -1", "NewExternalPort", "-1", 402, 402},
        Wrong{"port +5000", "NewExternalPort", "+5000", 402, 402},
        Wrong{"a hex port", "NewExternalPort", "0x1388", 402, 402},
        Wrong{"two ports", "NewExternalPort", "5000 5001", 402, 402},
        Wrong{"a fraction", "NewExternalPort", "5000.0", 402, 402},
        Wrong{"all ports", "NewExternalPort", "0", 716, 0},
        Wrong{"port 80", "NewExternalPort", "80", 606, 0},
        Wrong{"port 1023", "NewExternalPort", "1023", 606, 0},
        Wrong{"ICMP", "NewProtocol", "ICMP", 600, 600},
        Wrong{"both", "NewProtocol", "TCP,UDP", 600, 600},
        Wrong{"protocol 6", "NewProtocol", "6", 600, 600},
        Wrong{"internal port 0", "NewInternalPort", "0", 732, 732},
        Wrong{"internal port 65536", "NewInternalPort", "65536", 601, 601},
        Wrong{"internal port 80", "NewInternalPort", "80", 606, 606},
        Wrong{"another device", "NewInternalClient", "192.168.1.20", 606, 606},
        Wrong{"the gateway", "NewInternalClient", "192.168.1.1", 606, 606},
        Wrong{"loopback", "NewInternalClient", "127.0.0.1", 606, 606},
        Wrong{"outside", "NewInternalClient", "198.51.100.7", 606, 606},
        Wrong{"a name", "NewInternalClient", "console", 402, 402},
        Wrong{"octal", "NewInternalClient", "192.168.01.10", 402, 402},
        Wrong{"short", "NewInternalClient", "192.168.266", 402, 402},
        Wrong{"mapped", "NewInternalClient", "::ffff:192.168.1.10", 402, 402},
        Wrong{"with a port", "NewInternalClient", "192.168.1.10:80", 402, 402},
        Wrong{"a star", "NewInternalClient", "*", 402, 402},
        Wrong{"enabled 2", "NewEnabled", "2", 402, 402},
        Wrong{"lease -1", "NewLeaseDuration", "-1", 402, 402},
        Wrong{"lease 2^32", "NewLeaseDuration", "4294967296", 601, 601},
        Wrong{"a lease in hours", "NewLeaseDuration", "1h", 402, 402}),
    [](const auto& row) {
      std::string name;
      for (const char* c = row.param.says; *c; ++c)
        name += std::isalnum(static_cast<unsigned char>(*c)) ? *c : '_';
      return name + "_" + std::to_string(row.index);
    });

TEST_F(IgdTest, AKeyThatNamesNothingLawful) {  // WIC-SPEC-03, WIC-DEL-04, POL-NUM-01, POL-NUM-02, UPNP-X-17
  boot_igd();
  ASSERT_EQ(ask_wan("AddPortMapping", mapping()).code(), 0u);
  struct Row {
    const char* argument;
    const char* value;
    unsigned code;
  };
  const Row rows[] = {{"NewProtocol", "SCTP", 600},       {"NewProtocol", "", 402},      {"NewExternalPort", "70536", 601},
                      {"NewExternalPort", "http", 402},   {"NewExternalPort", "", 402},  {"NewExternalPort", "5000x", 402},
                      {"NewRemoteHost", "a.example", 402}, {"NewExternalPort", "0", 714}};
  for (const auto* action : {"GetSpecificPortMappingEntry", "DeletePortMapping"}) {
    for (const auto& row : rows)
      EXPECT_EQ(ask_wan(action, with(entry_key(), row.argument, row.value)).code(), row.code) << action << row.value;
    for (const auto* missing : {"NewRemoteHost", "NewExternalPort", "NewProtocol"})
      EXPECT_EQ(ask_wan(action, without(entry_key(), missing)).code(), 402u) << action << missing;
  }
  EXPECT_TRUE(is_open(5000)) << "70536 is not 5000";
}

TEST_F(IgdTest, TheCallerIsWhoConnected) {  // ACL-04, WIC-ADD-04, POL-TGT-01
  boot_igd();
  for (const auto* field : {"X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"}) {
    auto request = soap_request(std::string{wan_ip_type} + "2", "WANIPConn1", "AddPortMapping", mapping(camera), console);
    request.fields.add(field, camera.to_string());
    EXPECT_EQ(send(std::move(request))->code(), 606u) << field;
  }
  EXPECT_EQ(ask_wan("AddPortMapping", mapping(console), address("fe80::10")).code(), 606u)
      << "by IPv6 nobody is an IPv4 host";
  EXPECT_EQ(service->entry_count(), 0u);
}

TEST_F(IgdTest, WhatIsSloppyButClear) {  // UPNP-X-04, UPNP-X-05, UDA-3-16, UDA-3-17, WIC-SPEC-05, POL-NUM-01
  boot_igd();
  EXPECT_EQ(ask_wan("AddPortMapping", with(mapping(), "NewProtocol", " tcp ")).code(), 0u);
  EXPECT_EQ(ask_wan("AddPortMapping", with(mapping(), "NewExternalPort", " 005000\n")).code(), 0u);
  EXPECT_EQ(ask_wan("AddPortMapping", with(mapping(), "NewEnabled", "Yes")).code(), 0u);
  EXPECT_EQ(ask_wan("AddPortMapping", with(mapping(), "NewRemoteHost", "*")).code(), 0u);
  EXPECT_EQ(ask_wan("AddPortMapping", with(mapping(), "NewRemoteHost", "0.0.0.0")).code(), 0u);
  EXPECT_EQ(service->entry_count(), 1u) << "all of them name the same entry";
  auto turned = mapping();
  std::ranges::reverse(turned);
  turned.emplace_back("NewUnheardOf", "1");
  EXPECT_EQ(ask_wan("AddPortMapping", turned).code(), 0u);
  EXPECT_EQ(service->entry_count(), 1u);
}

TEST_F(IgdTest, LeaseZero) {  // WIC-ADD-11, WIC-ADD-12, WIC-ADD-13, UPNP-X-01, UPNP-X-08, POL-NUM-05
  boot_igd();
  EXPECT_EQ(ask_wan("AddPortMapping", mapping(console, "5000", "6000", "0"), console, 1).code(), 0u);
  EXPECT_EQ(ask_wan("GetSpecificPortMappingEntry", entry_key())["NewLeaseDuration"], "0");
  EXPECT_EQ(ask_wan("AddPortMapping", mapping(console, "5000", "6000", "0"), console, 2).code(), 0u);
  EXPECT_EQ(ask_wan("GetSpecificPortMappingEntry", entry_key())["NewLeaseDuration"], "604800");
  EXPECT_EQ(ask_wan("AddPortMapping", mapping(console, "5000", "6000", "4294967295"), console, 1).code(), 0u);
  EXPECT_EQ(ask_wan("GetSpecificPortMappingEntry", entry_key())["NewLeaseDuration"], "604800");
  options.v1_permanent = false;
  server->set_options(options);
  EXPECT_EQ(ask_wan("AddPortMapping", mapping(console, "5000", "6000", "0"), console, 1).code(), 0u);
  EXPECT_EQ(ask_wan("GetSpecificPortMappingEntry", entry_key())["NewLeaseDuration"], "604800");
}

TEST_F(IgdTest, InternalPortZeroInVersion1) {  // WIC-ADD-06
  boot_igd();
  EXPECT_EQ(ask_wan("AddPortMapping", with(mapping(), "NewInternalPort", "0"), console, 1).code(), 402u);
}

TEST_F(IgdTest, TheOwnerOfAPortIsOne) {  // WIC-ADD-02, WIC-ADD-03, WIC-DEL-01..03, UPNP-X-14
  boot_igd();
  ASSERT_EQ(ask_wan("AddPortMapping", mapping()).code(), 0u);
  EXPECT_EQ(ask_wan("AddPortMapping", mapping(camera), camera).code(), 718u);
  EXPECT_EQ(ask_wan("DeletePortMapping", entry_key(), camera).code(), 606u);
  EXPECT_EQ(ask_wan("DeletePortMapping", entry_key(), camera, 1).code(), 606u);
  EXPECT_TRUE(is_open(5000));
  EXPECT_EQ(ask_wan("AddPortMapping", mapping(console, "5000", "6001")).code(), 0u) << "the owner overwrites";
  EXPECT_EQ(ask_wan("GetSpecificPortMappingEntry", entry_key())["NewInternalPort"], "6001");
  EXPECT_EQ(ask_wan("DeletePortMapping", entry_key("5000", "UDP")).code(), 714u);
  EXPECT_EQ(ask_wan("DeletePortMapping", entry_key("5000", "TCP", "198.51.100.7")).code(), 714u);
  EXPECT_EQ(ask_wan("DeletePortMapping", entry_key("5000", "SCTP")).code(), 600u);  // WIC-DEL-04
  EXPECT_EQ(ask_wan("DeletePortMapping", without(entry_key(), "NewProtocol")).code(), 402u);
  EXPECT_EQ(ask_wan("DeletePortMapping", entry_key("0")).code(), 714u);
  EXPECT_EQ(ask_wan("DeletePortMapping", entry_key()).code(), 0u);
  EXPECT_FALSE(is_open(5000));
  EXPECT_EQ(ask_wan("DeletePortMapping", entry_key()).code(), 714u);
}

TEST_F(IgdTest, AddAnyFindsAPort) {  // WIC-ANY-01..05, UPNP-X-12
  boot_igd();
  EXPECT_EQ(ask_wan("AddAnyPortMapping", mapping())["NewReservedPort"], "5000");
  EXPECT_EQ(ask_wan("AddAnyPortMapping", mapping())["NewReservedPort"], "5000");
  const auto other = ask_wan("AddAnyPortMapping", mapping(camera), camera);
  EXPECT_EQ(other.code(), 0u);
  EXPECT_NE(other["NewReservedPort"], "5000");
  EXPECT_EQ(ask_wan("AddAnyPortMapping", mapping(console, "0", "6100")).code(), 0u);
  policy.leases_per_device = 2;
  service->set_policy(policy, now());
  EXPECT_EQ(ask_wan("AddAnyPortMapping", mapping(console, "0", "6200")).code(), 728u);  // WIC-ANY-04, WIC-ADD-22
  EXPECT_EQ(ask_wan("AddPortMapping", mapping(console, "6200", "6200")).code(), 501u);
  EXPECT_EQ(ask_wan("AddAnyPortMapping", mapping(), console, 1).code(), 401u) << "version 1 has no such action";
  for (const auto* action : {"AddAnyPortMapping", "DeletePortMappingRange", "GetListOfPortMappings"})
    EXPECT_EQ(ask_wan(action, {}, console, 1).code(), 401u) << "whatever its arguments";
}

TEST_F(IgdTest, NoPortIsLeft) {  // WIC-ANY-04, WIC-ADD-21
  policy.external_ports = {5000, 5001};
  boot_igd();
  for (const auto* external_port : {"5000", "5001"})
    ASSERT_EQ(ask_wan("AddPortMapping", mapping(camera, external_port), camera).code(), 0u);
  for (const auto* wanted : {"0", "5000", "6000"})
    EXPECT_EQ(ask_wan("AddAnyPortMapping", mapping(console, wanted)).code(), 728u) << wanted;
  EXPECT_EQ(service->entry_count(), 2u);
}

TEST_F(IgdTest, RemoteHostIsPartOfTheName) {  // WIC-ADD-15, WIC-ADD-16, WIC-DEL-06, POL-TGT-07
  boot_igd();
  ASSERT_EQ(ask_wan("AddPortMapping", with(mapping(), "NewRemoteHost", "198.51.100.7")).code(), 0u);
  EXPECT_EQ(plane.at(Transport::tcp, 5000, now())->spec.remotes.size(), 1u);
  EXPECT_EQ(ask_wan("GetSpecificPortMappingEntry", entry_key()).code(), 714u);
  EXPECT_EQ(ask_wan("GetSpecificPortMappingEntry", entry_key("5000", "TCP", "198.51.100.7")).code(), 0u);
  EXPECT_EQ(ask_wan("DeletePortMapping", entry_key()).code(), 714u);
  EXPECT_EQ(ask_wan("GetGenericPortMappingEntry", {{"NewPortMappingIndex", "0"}})["NewRemoteHost"], "198.51.100.7");
}

TEST_F(IgdTest, DisabledAndEnabled) {  // WIC-ADD-17, POL-TGT-09
  boot_igd();
  ASSERT_EQ(ask_wan("AddPortMapping", with(mapping(), "NewEnabled", "0")).code(), 0u);
  EXPECT_FALSE(plane.at(Transport::tcp, 5000, now())->spec.enabled);
  EXPECT_EQ(ask_wan("GetSpecificPortMappingEntry", entry_key())["NewEnabled"], "0");
  ASSERT_EQ(ask_wan("AddPortMapping", mapping()).code(), 0u);
  EXPECT_TRUE(plane.at(Transport::tcp, 5000, now())->spec.enabled);
}

TEST_F(IgdTest, AStaticMappingStandsAboveAll) {  // WIC-ADD-20, POL-OWN-05, policy.md, section 3
  policy.statics.push_back({Transport::tcp, port(2222), {camera, port(22)}, "ssh", "test:1"});
  boot_igd();
  const auto shown = ask_wan("GetGenericPortMappingEntry", {{"NewPortMappingIndex", "0"}});
  EXPECT_EQ(shown["NewExternalPort"], "2222");
  EXPECT_EQ(shown["NewPortMappingDescription"], "ssh");
  EXPECT_EQ(shown["NewLeaseDuration"], "0");
  EXPECT_EQ(ask_wan("AddPortMapping", mapping(console, "2222")).code(), 718u);
  EXPECT_EQ(ask_wan("AddPortMapping", mapping(camera, "2222"), camera).code(), 718u) << "not even for its own target";
  EXPECT_NE(ask_wan("AddAnyPortMapping", mapping(console, "2222"))["NewReservedPort"], "2222");
  EXPECT_EQ(ask_wan("DeletePortMapping", entry_key("2222"), camera).code(), 606u);
  EXPECT_TRUE(is_open(2222));
}

TEST_F(IgdTest, NoLeaseIsToldBeyondAWeek) {  // WIC-V-05
  policy.upnp_max = 2'000'000;
  boot_igd();
  ASSERT_EQ(ask_wan("AddPortMapping", mapping(console, "5000", "6000", "2000000"), console, 1).code(), 0u);
  EXPECT_EQ(service->entry_at(0, now())->remaining_s, 2'000'000u);
  EXPECT_EQ(ask_wan("GetSpecificPortMappingEntry", entry_key())["NewLeaseDuration"], "604800");
  EXPECT_EQ(ask_wan("GetGenericPortMappingEntry", {{"NewPortMappingIndex", "0"}})["NewLeaseDuration"], "604800");
}

TEST_F(IgdTest, DescriptionsComeBackAsTheyWere) {  // UDA-3-24, WIC-ADD-19, POL-TXT-01..03, POL-XML-05
  boot_igd();
  ASSERT_EQ(ask_wan("AddPortMapping", with(mapping(), "NewPortMappingDescription", "&lt;b&gt; &amp; &quot;K\xc3\xb6ln&quot;")).code(), 0u);
  EXPECT_EQ(service->list({}, now())[0].description, "<b> & \"K\xc3\xb6ln\"");
  const auto shown = ask_wan("GetSpecificPortMappingEntry", entry_key());
  EXPECT_NE(shown["NewPortMappingDescription"].find("&lt;b&gt; &amp; "), std::string::npos);
  ASSERT_EQ(ask_wan("AddPortMapping", with(mapping(), "NewPortMappingDescription", std::string(600, 'x'))).code(), 0u);
  EXPECT_EQ(service->list({}, now())[0].description.size(), 255u);
}

TEST_F(IgdTest, RefusalsOfTheService) {  // policy.md, section 3
  boot_igd();
  ASSERT_EQ(ask_wan("AddPortMapping", mapping()).code(), 0u);
  plane.own_ports.insert({Transport::tcp, 4000});
  EXPECT_EQ(ask_wan("AddPortMapping", mapping(console, "4000", "6000")).code(), 718u);  // WIC-ADD-20
  auto reply = send(soap_request(std::string{wan_ip_type} + "2", "WANIPConn1", "AddPortMapping",
                                 mapping(console, "5001", "6001"), console));
  store->fail("disk full");
  service->commit_results(now());
  EXPECT_EQ(reply->code(), 501u);
  EXPECT_EQ(ask_wan("DeletePortMapping", entry_key()).code(), 501u);
  EXPECT_EQ(ask_wan("AddAnyPortMapping", mapping(console, "5001", "6001")).code(), 501u) << "store: 501";
  EXPECT_TRUE(is_open(5000));
}

TEST_F(IgdTest, WithoutAnExternalAddress) {  // WIC-02, WIC-03, WIC-07
  network.external.clear();
  boot_igd();
  EXPECT_EQ(ask_wan("GetExternalIPAddress")["NewExternalIPAddress"], "");
  const auto status = ask_wan("GetStatusInfo");
  EXPECT_EQ(status["NewConnectionStatus"], "Disconnected");
  EXPECT_EQ(status["NewUptime"], "0");
  EXPECT_EQ(ask_wan("AddPortMapping", mapping()).code(), 501u);
  EXPECT_EQ(ask_wan("RequestConnection").code(), 704u);
  network.external = {external};
  plane.set_network(network, now());
  service->set_network(network, now());
  pass(90s);
  EXPECT_EQ(ask_wan("GetExternalIPAddress")["NewExternalIPAddress"], "203.0.113.7");
  const auto connected = ask_wan("GetStatusInfo", {}, console, 1);
  EXPECT_EQ(connected["NewConnectionStatus"], "Connected");
  EXPECT_EQ(connected["NewLastConnectionError"], "ERROR_NONE");
  EXPECT_EQ(connected["NewUptime"], "90");
  EXPECT_NE(connected.body.find("WANIPConnection:1\""), std::string::npos);  // UDA-3-12
  EXPECT_EQ(ask_wan("RequestConnection").code(), 0u);
}

TEST_F(IgdTest, AnAddressBehindAnotherNatIsToldAsItIs) {  // IGD-11
  network.external = {address("100.64.0.7")};
  boot_igd();
  EXPECT_EQ(ask_wan("GetExternalIPAddress")["NewExternalIPAddress"], "100.64.0.7");
  EXPECT_EQ(ask_wan("GetStatusInfo")["NewConnectionStatus"], "Connected");
  EXPECT_EQ(ask_wan("AddPortMapping", mapping()).code(), 0u);
  EXPECT_TRUE(is_open(5000));
}

TEST_F(IgdTest, EachDeviceIsToldItsOwnAddress) {  // WIC-02, N4787-02
  network.external = {external, address("203.0.113.8")};
  network.external_pool = true;
  plane.paired[camera] = network.external[1];
  boot_igd();
  EXPECT_EQ(ask_wan("GetExternalIPAddress")["NewExternalIPAddress"], "203.0.113.7");
  EXPECT_EQ(ask_wan("GetExternalIPAddress", {}, camera)["NewExternalIPAddress"], "203.0.113.8");
  ASSERT_EQ(ask_wan("AddPortMapping", mapping()).code(), 0u);
  EXPECT_EQ(ask_wan("GetSpecificPortMappingEntry", entry_key()).code(), 0u);
  EXPECT_EQ(ask_wan("GetSpecificPortMappingEntry", entry_key(), camera).code(), 714u);
  EXPECT_EQ(ask_wan("DeletePortMapping", entry_key(), camera).code(), 714u);
  EXPECT_EQ(ask_wan("GetGenericPortMappingEntry", {{"NewPortMappingIndex", "0"}}, camera).code(), 0u);
}

TEST_F(IgdTest, WithoutALinkThereIsNoConnection) {  // WIC-03, WIC-V-04
  boot_igd();
  pass(10s);
  EXPECT_EQ(ask_wan("GetStatusInfo")["NewUptime"], "10");
  link.up = false;
  server->link_changed(now());
  EXPECT_EQ(ask_wan("GetStatusInfo")["NewConnectionStatus"], "Disconnected");
  EXPECT_EQ(ask_wan("GetStatusInfo")["NewUptime"], "0");
  link.up = true;
  server->link_changed(now());
  pass(5s);
  EXPECT_EQ(ask_wan("GetStatusInfo")["NewConnectionStatus"], "Connected");
  EXPECT_EQ(ask_wan("GetStatusInfo")["NewUptime"], "5");
}

TEST_F(IgdTest, AddAnyAskedManyTimesIsOneLease) {  // POL-OWN-07, WIC-ANY-03
  boot_igd();
  ASSERT_EQ(ask_wan("AddPortMapping", mapping(console, "5000", "6000")).code(), 0u);
  for (const auto* wanted : {"5000", "80"}) {  // another's; forbidden
    const auto first = ask_wan("AddAnyPortMapping", mapping(camera, wanted, "6000"), camera)["NewReservedPort"];
    for (int i = 0; i < 3; ++i)
      EXPECT_EQ(ask_wan("AddAnyPortMapping", mapping(camera, wanted, "6000"), camera)["NewReservedPort"], first);
  }
  EXPECT_EQ(service->entry_count(), 2u);
}

// --- lists ---

TEST_F(IgdTest, WalkingByIndexMeetsEachOnce) {  // WIC-GEN-01..03, WIC-DEL-05
  boot_igd();
  for (int i = 0; i < 4; ++i)
    ASSERT_EQ(ask_wan("AddPortMapping", mapping(console, std::to_string(5000 + i), std::to_string(6000 + i))).code(), 0u);
  const auto at = [&](int index) { return ask_wan("GetGenericPortMappingEntry", {{"NewPortMappingIndex", std::to_string(index)}}); };
  for (int i = 0; i < 4; ++i) EXPECT_EQ(at(i)["NewExternalPort"], std::to_string(5000 + i));
  EXPECT_EQ(at(4).code(), 713u);
  EXPECT_EQ(at(65535).code(), 713u);
  EXPECT_EQ(ask_wan("GetGenericPortMappingEntry", {{"NewPortMappingIndex", "65536"}}).code(), 402u);
  EXPECT_EQ(ask_wan("GetGenericPortMappingEntry", {{"NewPortMappingIndex", "-1"}}).code(), 402u);
  EXPECT_EQ(ask_wan("GetGenericPortMappingEntry").code(), 402u);
  ASSERT_EQ(ask_wan("DeletePortMapping", entry_key("5001")).code(), 0u);
  EXPECT_EQ(at(1)["NewExternalPort"], "5002");
  EXPECT_EQ(at(3).code(), 713u);
  const auto first = at(0);
  EXPECT_EQ(first["NewRemoteHost"], "");
  EXPECT_EQ(first["NewProtocol"], "TCP");
  EXPECT_EQ(first["NewInternalPort"], "6000");
  EXPECT_EQ(first["NewInternalClient"], "192.168.1.10");
}

TEST_F(IgdTest, AWalkIsConsistentWhileOthersAddAndDelete) {  // WIC-GEN-01, POL-TXT-06
  boot_igd();
  for (int i = 0; i < 6; ++i)
    ASSERT_EQ(ask_wan("AddPortMapping", mapping(console, std::to_string(5000 + i), std::to_string(6000 + i))).code(), 0u);
  std::string walked;
  for (int i = 0;; ++i) {
    const auto entry = ask_wan("GetGenericPortMappingEntry", {{"NewPortMappingIndex", std::to_string(i)}}, camera);
    if (entry.code() != 0) break;
    walked += entry["NewExternalPort"] + " ";
    if (i == 1) {  // one that was met goes, one that was not, and one comes
      ask_wan("DeletePortMapping", entry_key("5000"));
      ask_wan("DeletePortMapping", entry_key("5003"));
      ask_wan("AddPortMapping", mapping(console, "5009", "6009"));
    }
  }
  EXPECT_EQ(walked, "5000 5001 5002 5004 5005 5009 ");
}

TEST_F(IgdTest, AListShowsEveryProtocolsLeases) {  // WIC-V-06, WIC-GEN-04, POL-OWN-08, POL-TXT-05
  boot_igd();
  ASSERT_EQ(port_of(granted(suggesting(pcp(camera, 8080), 5000))), 5000);
  auto by_natpmp = natpmp(camera, 8081);
  by_natpmp.transport = Transport::udp;
  granted(suggesting(by_natpmp, 5001));
  const auto first = ask_wan("GetGenericPortMappingEntry", {{"NewPortMappingIndex", "0"}});
  EXPECT_EQ(first["NewPortMappingDescription"], "PCP");
  EXPECT_EQ(first["NewLeaseDuration"], "3600");
  EXPECT_EQ(ask_wan("GetGenericPortMappingEntry", {{"NewPortMappingIndex", "1"}})["NewPortMappingDescription"], "NAT-PMP");
  EXPECT_EQ(ask_wan("DeletePortMapping", entry_key(), camera).code(), 606u);  // POL-OWN-05
  options.list_own = true;
  server->set_options(options);
  EXPECT_EQ(ask_wan("GetGenericPortMappingEntry", {{"NewPortMappingIndex", "0"}}).code(), 713u);
  EXPECT_EQ(ask_wan("GetSpecificPortMappingEntry", entry_key()).code(), 714u);
  EXPECT_EQ(ask_wan("GetGenericPortMappingEntry", {{"NewPortMappingIndex", "1"}}, camera)["NewExternalPort"], "5001");
  EXPECT_EQ(ask_wan("GetGenericPortMappingEntry", {{"NewPortMappingIndex", "2"}}, camera).code(), 713u);
}

class ListTest : public IgdTest {
 protected:
  Arguments wish(std::string first, std::string last, std::string manage = "0", std::string count = "0",
                 std::string protocol = "TCP") {
    return {{"NewStartPort", std::move(first)}, {"NewEndPort", std::move(last)}, {"NewProtocol", std::move(protocol)},
            {"NewManage", std::move(manage)}, {"NewNumberOfPorts", std::move(count)}};
  }
  static std::size_t count(const std::string& text, std::string_view part) {
    std::size_t n = 0;
    for (auto at = text.find(part); at != text.npos; at = text.find(part, at + 1)) ++n;
    return n;
  }
  static std::size_t entries(const Reply& reply) { return count(reply.body, "<p:PortMappingEntry>"); }
};

TEST_F(ListTest, ARangeAsOneDocument) {  // WIC-LST-01..04
  boot_igd();
  for (int i = 0; i < 5; ++i)
    ask_wan("AddPortMapping", mapping(console, std::to_string(5000 + i), std::to_string(6000 + i)));
  ask_wan("AddPortMapping", mapping(camera, "5002"), camera);
  ask_wan("AddPortMapping", mapping(camera, "5005"), camera);
  const auto own = ask_wan("GetListOfPortMappings", wish("0", "65535"));
  EXPECT_EQ(own.code(), 0u);
  EXPECT_EQ(entries(own), 5u);
  EXPECT_NE(own.body.find("xmlns:p=\"urn:schemas-upnp-org:gw:WANIPConnection\""), std::string::npos);
  EXPECT_NE(own.body.find("<p:NewDescription>a game</p:NewDescription><p:NewLeaseTime>3600"), std::string::npos);
  EXPECT_EQ(entries(ask_wan("GetListOfPortMappings", wish("0", "65535", "1"))), 6u);
  EXPECT_EQ(entries(ask_wan("GetListOfPortMappings", wish("5001", "5003"))), 3u);
  EXPECT_EQ(entries(ask_wan("GetListOfPortMappings", wish("0", "65535", "0", "2"))), 2u);
  EXPECT_EQ(ask_wan("GetListOfPortMappings", wish("5003", "5001")).code(), 733u);
  EXPECT_EQ(ask_wan("GetListOfPortMappings", wish("6000", "7000")).code(), 730u);
  EXPECT_EQ(ask_wan("GetListOfPortMappings", wish("0", "65535", "0", "0", "UDP")).code(), 730u);
  EXPECT_EQ(ask_wan("GetListOfPortMappings", wish("5005", "5005")).code(), 730u) << "another's";
}

TEST_F(ListTest, ThousandsComeInSmallPieces) {  // POL-FAIR-05
  policy.leases_per_device = 0;
  boot_igd();
  for (int i = 0; i < 5000; ++i) {
    EntryRequest request{.requester = console, .key = {Transport::tcp, port(5000u + static_cast<unsigned>(i)), {}},
                         .internal = {console, port(5000u + static_cast<unsigned>(i))},
                         .description = std::string(50, '&'), .lifetime_s = 60};
    request.contact = {2, console, 0, gateway};
    service->grant_entry(std::move(request), now(), [](const Outcome<Entry>& outcome, TimePoint) { EXPECT_TRUE(outcome); });
  }
  commit();
  std::size_t largest = 0, total = 0;
  server->handle(soap_request(std::string{wan_ip_type} + "2", "WANIPConn1", "GetListOfPortMappings", wish("0", "65535"), console),
                 now(), [&](http::Response response) {
                   ASSERT_TRUE(response.source);
                   for (std::string piece; !(piece = response.source->next()).empty();) {
                     largest = std::max(largest, piece.size());
                     total += count(piece, "<p:PortMappingEntry>");
                   }
                 });
  EXPECT_EQ(total, 5000u);
  EXPECT_LE(largest, 16384u + 4096u);
}

TEST_F(IgdTest, RangesEndOnlyTheCallersOwn) {  // WIC-RNG-01..05, POL-OWN-06
  boot_igd();
  const auto range = [](std::string first, std::string last, std::string manage) {
    return Arguments{{"NewStartPort", std::move(first)}, {"NewEndPort", std::move(last)}, {"NewProtocol", "TCP"},
                     {"NewManage", std::move(manage)}};
  };
  for (int i = 0; i < 4; ++i) {
    const auto& who = i % 2 ? camera : console;
    ask_wan("AddPortMapping", mapping(who, std::to_string(5000 + i)), who);
  }
  EXPECT_EQ(ask_wan("DeletePortMappingRange", range("5003", "5000", "0")).code(), 733u);
  EXPECT_EQ(ask_wan("DeletePortMappingRange", range("6000", "7000", "1")).code(), 730u);
  EXPECT_EQ(ask_wan("DeletePortMappingRange", range("5001", "5001", "1")).code(), 606u);
  EXPECT_EQ(ask_wan("DeletePortMappingRange", range("0", "65535", "1")).code(), 0u);
  EXPECT_EQ(service->entry_count(), 2u);
  EXPECT_FALSE(is_open(5000));
  EXPECT_TRUE(is_open(5001));
}

// --- the other services ---

TEST_F(IgdTest, WhatNoActionMayChange) {  // WIC-04..06, WIC-08, WIC-09, POL-OWN-09
  boot_igd();
  EXPECT_EQ(ask_wan("SetConnectionType", {{"NewConnectionType", "IP_Routed"}}).code(), 731u);
  EXPECT_EQ(ask_wan("GetConnectionTypeInfo")["NewConnectionType"], "IP_Routed");
  EXPECT_EQ(ask_wan("ForceTermination").code(), 606u);
  EXPECT_EQ(ask_wan("RequestTermination").code(), 606u);
  const auto nat = ask_wan("GetNATRSIPStatus");
  EXPECT_EQ(nat["NewRSIPAvailable"], "0");
  EXPECT_EQ(nat["NewNATEnabled"], "1");
  EXPECT_EQ(ask_wan("GetIdleDisconnectTime").code(), 401u);
  EXPECT_EQ(ask_wan("SetPortMapping").code(), 401u);
}

TEST_F(IgdTest, TheWanInterface) {  // WCIC-01, WCIC-03, WCIC-05, WCIC-06
  boot_igd();
  const std::string type = "urn:schemas-upnp-org:service:WANCommonInterfaceConfig:1";
  const auto common = [&](std::string_view action) { return *send(soap_request(type, "WANCommonIFC1", action, {}, console)); };
  const auto properties = common("GetCommonLinkProperties");
  EXPECT_EQ(properties["NewWANAccessType"], "Ethernet");
  EXPECT_EQ(properties["NewLayer1UpstreamMaxBitRate"], "100000000");
  EXPECT_EQ(properties["NewPhysicalLinkStatus"], "Up");
  EXPECT_EQ(common("GetTotalBytesSent")["NewTotalBytesSent"], "11");
  EXPECT_EQ(common("GetTotalBytesReceived")["NewTotalBytesReceived"], "22");
  EXPECT_EQ(common("GetTotalPacketsSent")["NewTotalPacketsSent"], "33");
  EXPECT_EQ(common("GetTotalPacketsReceived")["NewTotalPacketsReceived"], "44") << "wraps at 2^32";
  link.bits_per_second = 10'000'000'000;
  link.up = false;
  EXPECT_EQ(common("GetCommonLinkProperties")["NewLayer1DownstreamMaxBitRate"], "4294967295");
  EXPECT_EQ(common("GetCommonLinkProperties")["NewPhysicalLinkStatus"], "Down");
}

TEST_F(IgdTest, TheDefaultConnection) {  // L3F-01, L3F-02
  boot_igd();
  const std::string type = "urn:schemas-upnp-org:service:Layer3Forwarding:1";
  const auto l3f = [&](std::string_view action, const Arguments& arguments = {}) {
    return *send(soap_request(type, "L3Forwarding1", action, arguments, console));
  };
  const auto present = l3f("GetDefaultConnectionService")["NewDefaultConnectionService"];
  EXPECT_TRUE(present.ends_with(":WANConnectionDevice:2,urn:upnp-org:serviceId:WANIPConn1")) << present;
  EXPECT_EQ(l3f("SetDefaultConnectionService", {{"NewDefaultConnectionService", present}}).code(), 0u);
  EXPECT_EQ(l3f("SetDefaultConnectionService", {{"NewDefaultConnectionService", "uuid:x,y"}}).code(), 720u);
  const auto other = present.substr(0, present.find(',')) + ",urn:upnp-org:serviceId:WANIPConn2";
  EXPECT_EQ(l3f("SetDefaultConnectionService", {{"NewDefaultConnectionService", other}}).code(), 721u);
}

/// A device with 2001:db8:1::10 and 192.168.1.30, and a LAN that has 2001:db8:1::/64.
class PinholeActionsTest : public IgdTest {
 protected:
  PinholeActionsTest() {
    network.lan[0].addresses.push_back(address("2001:db8:1::1"));
    network.lan[0].prefixes.push_back(*Prefix::parse("2001:db8:1::/64"));
    macs = {{nas, 1}, {nas_v4, 1}, {phone, 2}, {console, 3}};
  }
  Reply firewall(std::string_view action, const Arguments& arguments = {},
                 const Address& from = address("2001:db8:1::10")) {
    const std::string type = "urn:schemas-upnp-org:service:WANIPv6FirewallControl:1";
    auto request = soap_request(type, "WANIPv6Firewall1", action, arguments, from);
    if (!from.is_v4()) request.local = address("2001:db8:1::1");
    auto reply = send(request);
    if (!reply->given) commit();
    EXPECT_TRUE(reply->given) << action;
    server->settle(now());
    return *reply;
  }
  std::string opened(const Arguments& arguments, const Address& from = address("2001:db8:1::10")) {
    return firewall("AddPinhole", arguments, from)["UniqueID"];
  }
  std::optional<FakePlane::Held> held(std::uint16_t number, Transport transport = Transport::udp) {
    return plane.pinhole(transport, {nas, port(number)}, now());
  }
  const Address nas = address("2001:db8:1::10"), nas_v4 = address("192.168.1.30"),
                phone = address("2001:db8:1::20");
  const Arguments hole{{"RemoteHost", ""},       {"RemotePort", "0"}, {"InternalClient", "2001:db8:1::10"},
                       {"InternalPort", "6000"}, {"Protocol", "17"},  {"LeaseTime", "60"}};
  const Arguments one{{"UniqueID", "1"}};
};

TEST_F(PinholeActionsTest, AddOpensWhatItNames) {  // 6FC-01, 6FC-03, 6FC-13
  boot_igd();
  const auto status = firewall("GetFirewallStatus");
  EXPECT_EQ(status["FirewallEnabled"], "1");
  EXPECT_EQ(status["InboundPinholeAllowed"], "1");
  EXPECT_NE(opened(hole), "(none)");
  ASSERT_TRUE(held(6000));
  EXPECT_TRUE(held(6000)->spec.remotes.empty());
  EXPECT_FALSE(held(6000, Transport::tcp));
  const auto remote_of = [&](const std::string& number, const std::string& host,
                             const std::string& remote_port) {
    auto filtered =
        with(with(with(hole, "InternalPort", number), "RemoteHost", host), "RemotePort", remote_port);
    EXPECT_NE(opened(with(filtered, "Protocol", "6")), "(none)") << host;
    const auto pinhole = held(static_cast<std::uint16_t>(std::stoul(number)), Transport::tcp);
    return pinhole ? pinhole->spec.remotes : std::vector<RemoteFilter>{};
  };
  EXPECT_EQ(remote_of("6001", "2001:db8:ffff::5", "443"),
            (std::vector<RemoteFilter>{{{address("2001:db8:ffff::5"), 128}, port(443)}}));
  EXPECT_EQ(remote_of("6002", " 2001:db8:ffff::5 ", "0"),
            (std::vector<RemoteFilter>{{{address("2001:db8:ffff::5"), 128}, {}}}));
  EXPECT_EQ(remote_of("6003", "*", "443"), (std::vector<RemoteFilter>{{{Address{}, 0}, port(443)}}));
  EXPECT_TRUE(remote_of("6004", "::", "0").empty());
  pass(59s);
  EXPECT_TRUE(held(6000));
  pass(1s);
  EXPECT_FALSE(held(6000));
}

TEST_F(PinholeActionsTest, AgainIsTheSameNumberWithTheNewLease) {  // 6FC-05, 6FC-08
  boot_igd();
  const auto id = opened(hole);
  EXPECT_EQ(opened(with(hole, "LeaseTime", "600")), id);
  pass(300s);
  EXPECT_TRUE(held(6000));
  EXPECT_EQ(firewall("UpdatePinhole", {{"UniqueID", id}, {"NewLeaseTime", "86400"}}).code(), 0u);
  pass(86000s);
  EXPECT_TRUE(held(6000));
  EXPECT_EQ(opened(hole), id);
}

TEST_F(PinholeActionsTest, DeleteCloses) {  // 6FC-09
  boot_igd();
  const auto id = opened(hole);
  EXPECT_EQ(firewall("DeletePinhole", {{"UniqueID", id}}).code(), 0u);
  EXPECT_FALSE(held(6000));
  EXPECT_EQ(firewall("DeletePinhole", {{"UniqueID", id}}).code(), 704u);
}

TEST_F(PinholeActionsTest, OnlyADeviceItselfOpensChangesAndSeesItsPinholes) {  // 6FC-04, 6FC-08, 6FC-09
  boot_igd();
  EXPECT_EQ(firewall("AddPinhole", hole, phone).code(), 606u);
  EXPECT_EQ(firewall("AddPinhole", hole, console).code(), 606u) << "over IPv4 by another device";
  EXPECT_EQ(firewall("AddPinhole", hole, camera).code(), 606u) << "over IPv4 by one of unknown MAC";
  const auto id = opened(hole, nas_v4);
  ASSERT_NE(id, "(none)") << "over IPv4 by the device itself";
  for (const auto& other : {phone, console}) {
    EXPECT_EQ(firewall("UpdatePinhole", {{"UniqueID", id}, {"NewLeaseTime", "9"}}, other).code(), 606u);
    EXPECT_EQ(firewall("DeletePinhole", {{"UniqueID", id}}, other).code(), 606u);
    EXPECT_EQ(firewall("GetPinholePackets", {{"UniqueID", id}}, other).code(), 606u);
    EXPECT_EQ(firewall("CheckPinholeWorking", {{"UniqueID", id}}, other).code(), 606u);
  }
  EXPECT_EQ(firewall("DeletePinhole", {{"UniqueID", id}}).code(), 0u);
  EXPECT_EQ(firewall("AddPinhole", with(hole, "InternalPort", "443")).code(), 606u) << "ACL-01";
  EXPECT_EQ(
      firewall("AddPinhole", with(hole, "InternalClient", "2001:db8:1::1"), address("2001:db8:1::1")).code(),
      606u);
}

TEST_F(PinholeActionsTest, CountsThePacketsThatCameIn) {  // 6FC-10, 6FC-11
  boot_igd();
  const auto id = opened(hole);
  EXPECT_EQ(firewall("GetPinholePackets", {{"UniqueID", id}})["PinholePackets"], "1")
      << "as the plane of these tests counts";
  EXPECT_EQ(firewall("CheckPinholeWorking", {{"UniqueID", id}})["IsWorking"], "1");
  plane.counted = {};
  EXPECT_EQ(firewall("GetPinholePackets", {{"UniqueID", id}})["PinholePackets"], "0");
  EXPECT_EQ(firewall("CheckPinholeWorking", {{"UniqueID", id}}).code(), 709u);
  network.lan[0].prefixes.pop_back();
  service->set_network(network, now());
  EXPECT_EQ(firewall("CheckPinholeWorking", {{"UniqueID", id}})["IsWorking"], "0") << "its prefix is gone";
  EXPECT_EQ(firewall("GetPinholePackets", {{"UniqueID", "4711"}}).code(), 704u);
  EXPECT_EQ(firewall("CheckPinholeWorking", {{"UniqueID", "0"}}).code(), 704u);
  EXPECT_EQ(firewall("UpdatePinhole", {{"UniqueID", "4711"}, {"NewLeaseTime", "60"}}).code(), 704u);
}

TEST_F(PinholeActionsTest, ArgumentsOutsideTheirTypesAndRanges) {  // 6FC-06, 6FC-07, 6FC-14, 6FC-02
  boot_igd();
  for (const auto* lease : {"0", "86401", "4294967296"})
    EXPECT_EQ(firewall("AddPinhole", with(hole, "LeaseTime", lease)).code(), 601u) << lease;
  EXPECT_EQ(firewall("UpdatePinhole", {{"UniqueID", "1"}, {"NewLeaseTime", "0"}}).code(), 601u);
  const auto timeout = without(hole, "LeaseTime");
  for (const auto* action : {"AddPinhole", "GetOutboundPinholeTimeout"}) {
    const auto& base = action[0] == 'A' ? hole : timeout;
    for (const auto* client :
         {"nonsense", "192.168.1.10", "::ffff:192.168.1.10", "[2001:db8:1::10]", "2001:db8:1::10/64", ""})
      EXPECT_EQ(firewall(action, with(base, "InternalClient", client)).code(), 402u) << action << client;
    EXPECT_EQ(firewall(action, with(base, "RemoteHost", "example.com")).code(), 402u);
    EXPECT_EQ(firewall(action, with(base, "RemoteHost", "198.51.100.9")).code(), 402u);
    EXPECT_EQ(firewall(action, with(base, "InternalPort", "x")).code(), 402u);
    EXPECT_EQ(firewall(action, with(base, "RemotePort", "65536")).code(), 601u);
    EXPECT_EQ(firewall(action, without(base, "Protocol")).code(), 402u);
    EXPECT_EQ(firewall(action, with(base, "Protocol", "65535")).code(), 707u);
    EXPECT_EQ(firewall(action, with(base, "Protocol", "1")).code(), 705u);
    EXPECT_EQ(firewall(action, with(base, "InternalPort", "0")).code(), 706u);
  }
  EXPECT_EQ(firewall("GetOutboundPinholeTimeout", timeout)["OutboundPinholeTimeout"], "300");
  EXPECT_EQ(firewall("GetOutboundPinholeTimeout", with(timeout, "Protocol", "6"))["OutboundPinholeTimeout"],
            "7440");
  EXPECT_EQ(plane.installs, 0u);
}

TEST_F(PinholeActionsTest, NoRoom) {  // 6FC-15
  policy.leases_per_device = 1;
  boot_igd();
  EXPECT_NE(opened(hole), "(none)");
  EXPECT_EQ(firewall("AddPinhole", with(hole, "InternalPort", "6001")).code(), 701u);
}

TEST_F(PinholeActionsTest, WithoutAFirewallAndWhereThePolicyAllowsNone) {  // 6FC-12, 6FC-01
  boot_igd();
  const auto all_are = [&](unsigned code) {
    EXPECT_EQ(firewall("AddPinhole", hole).code(), code);
    EXPECT_EQ(firewall("UpdatePinhole", {{"UniqueID", "1"}, {"NewLeaseTime", "60"}}).code(), code);
    for (const auto* action : {"DeletePinhole", "GetPinholePackets", "CheckPinholeWorking"})
      EXPECT_EQ(firewall(action, one).code(), code) << action;
  };
  policy.ipv6 = false;
  service->set_policy(policy, now());
  EXPECT_EQ(firewall("GetFirewallStatus")["FirewallEnabled"], "0");
  EXPECT_EQ(firewall("GetFirewallStatus")["InboundPinholeAllowed"], "0");
  all_are(702);
  policy.ipv6 = true;
  policy.rules = {{.device = {}, .external = {}, .transport = {}, .allow = false, .where = {}}};
  service->set_policy(policy, now());
  EXPECT_EQ(firewall("GetFirewallStatus")["FirewallEnabled"], "1");
  EXPECT_EQ(firewall("GetFirewallStatus")["InboundPinholeAllowed"], "0");
  all_are(703);
}

TEST_F(PinholeActionsTest, AreNotInTheListsOfWanIpConnection) {
  boot_igd();
  EXPECT_NE(opened(hole), "(none)");
  EXPECT_EQ(ask_wan("GetGenericPortMappingEntry", {{"NewPortMappingIndex", "0"}}).code(), 713u);
}

// --- HTTP ---

TEST_F(IgdTest, DescriptionsAndPaths) {  // UDA-2-01, UDA-2-11, UDA-2-14, HTTP-02, POL-WEB-05, -06, -08
  boot_igd();
  const auto root = send(plain("GET", "/rootDesc.xml"));
  EXPECT_EQ(root->status, 200u);
  EXPECT_TRUE(root->fields.find("CONTENT-TYPE")->starts_with("text/xml"));
  for (const auto& document : upnp::description::render_all(server->tree()))
    EXPECT_EQ(send(plain("GET", document.path))->body, document.body) << document.path;
  EXPECT_EQ(send(plain("GET", "/nothing"))->status, 404u);
  EXPECT_EQ(send(plain("POST", "/ctl/WANIPConn1"))->status, 404u);
  EXPECT_EQ(send(plain("DELETE", "/rootDesc.xml"))->status, 501u);
  EXPECT_EQ(send(plain("POST", "/rootDesc.xml"))->status, 405u);
  auto rebound = plain("GET", "/rootDesc.xml");
  rebound.fields = {};
  rebound.fields.add("Host", "evil.example:5000");
  EXPECT_EQ(send(rebound)->status, 403u);
  auto page = soap_request(std::string{wan_ip_type} + "2", "WANIPConn1", "AddPortMapping", mapping(), console);
  page.fields.add("Origin", "http://evil.example");
  EXPECT_EQ(send(page)->status, 403u);
  EXPECT_EQ(service->entry_count(), 0u);
  const auto welcome = send(plain("GET", "/"));  // UDA-2-07
  EXPECT_EQ(welcome->status, 200u);
  EXPECT_NE(welcome->body.find("203.0.113.7"), std::string::npos);
  EXPECT_EQ(welcome->fields.find("Content-Security-Policy"), "default-src 'none'; style-src 'unsafe-inline'");
  for (const auto* loaded : {"<script", "src=", "href=", "url("})
    EXPECT_EQ(welcome->body.find(loaded), std::string::npos) << loaded;
}

TEST_F(IgdTest, WhatControlPointsNoLongerSend) {  // UDA-3-20, UDA-3-21, HTTP-02
  boot_igd();
  auto request = soap_request(std::string{wan_ip_type} + "1", "WANIPConn1", "GetExternalIPAddress", {}, console);
  request.method = "M-POST";
  request.fields.add("MAN", "\"http://schemas.xmlsoap.org/soap/envelope/\"; ns=01");
  request.fields.add("01-SOAPACTION", "\"urn:schemas-upnp-org:service:WANIPConnection:1#GetExternalIPAddress\"");
  EXPECT_EQ(send(std::move(request))->status, 501u);
  const auto query = send(soap_request("urn:schemas-upnp-org:control-1-0", "WANIPConn1", "QueryStateVariable",
                                       {{"varName", "ConnectionStatus"}}, console));
  EXPECT_EQ(query->code(), 401u);
}

TEST_F(IgdTest, WindowsAndTheXboxSeeVersion1) {  // UPNP-X-03
  boot_igd();
  for (const auto* agent : {"Microsoft-Windows/10.0 UPnP/1.0 Microsoft-Windows-UPnP/1.0", "Xbox UPnP/1.0 x"}) {
    auto ask = [&](http::Request request) {
      request.fields.add("User-Agent", agent);
      return *send(std::move(request));
    };
    const auto root = ask(plain("GET", "/rootDesc.xml"));
    EXPECT_NE(root.body.find("InternetGatewayDevice:1<"), std::string::npos);
    EXPECT_EQ(root.body.find(":2<"), std::string::npos);
    const auto service_description = ask(plain("GET", "/scpd/WANIPConn1.xml"));
    EXPECT_EQ(service_description.body.find("AddAnyPortMapping"), std::string::npos);
    EXPECT_NE(service_description.body.find("<name>AddPortMapping<"), std::string::npos);
    const std::string type = "urn:schemas-upnp-org:service:Layer3Forwarding:1";
    const auto present = ask(soap_request(type, "L3Forwarding1", "GetDefaultConnectionService", {}, console))["NewDefaultConnectionService"];
    EXPECT_NE(present.find(":WANConnectionDevice:1,"), std::string::npos) << present;
  }
  const auto udn = [](const std::string& body) { return body.substr(body.find("<UDN>"), 46); };
  auto windows = plain("GET", "/rootDesc.xml");
  windows.fields.add("User-Agent", "Microsoft-Windows/10.0");
  EXPECT_EQ(udn(send(windows)->body), udn(send(plain("GET", "/rootDesc.xml"))->body)) << "it is the same device";
  EXPECT_NE(send(plain("GET", "/rootDesc.xml"))->body.find("InternetGatewayDevice:2<"), std::string::npos);
}

TEST_F(IgdTest, AnAddressProbeIsLabelled) {
  boot_igd();
  auto probe = natpmp(console, 9);
  granted(probe);
  EXPECT_EQ(ask_wan("GetGenericPortMappingEntry", {{"NewPortMappingIndex", "0"}})["NewPortMappingDescription"],
            "NAT-PMP (address probe)");
}

TEST_F(IgdTest, ATreeOfVersion1) {  // IGD-08, UPNP-X-03
  options.tree.igd_version = 1;
  boot_igd();
  EXPECT_NE(send(plain("GET", "/rootDesc.xml"))->body.find("InternetGatewayDevice:1<"), std::string::npos);
  EXPECT_EQ(ask_wan("GetExternalIPAddress", {}, console, 2).code(), 401u);
  EXPECT_EQ(ask_wan("GetExternalIPAddress", {}, console, 1).code(), 0u);
}

// --- events ---

class EventTest : public IgdTest {
 protected:
  void subscribe(const std::string& name = "WANIPConn1") {
    auto request = plain("SUBSCRIBE", "/evt/" + std::string{secret} + "/" + name);
    request.fields.add("CALLBACK", "<http://192.168.1.10:49152/event>");
    request.fields.add("NT", "upnp:event");
    request.fields.add("TIMEOUT", "Second-1800");
    ASSERT_EQ(send(request)->status, 200u);
  }
  /// What is sent to the subscriber until nothing is due for now.
  std::string heard() {
    std::string all;
    for (int i = 0; i < 3; ++i) {
      pass(300ms);
      server->settle(now());
      server->events().handle_timeout(now());
      while (const auto delivery = server->events().poll_send(now())) {
        all += delivery->bytes;
        server->events().handle_result(delivery->handle, {http::DeliveryResult::Kind::answered, 200}, now());
      }
    }
    return all;
  }
  static std::string value(const std::string& body, const std::string& variable) {
    const auto at = body.rfind("<" + variable + ">");
    if (at == body.npos) return "(none)";
    const auto from = at + variable.size() + 2;
    return body.substr(from, body.find('<', from) - from);
  }
};

TEST_F(EventTest, TheTableAndTheAddressAreTold) {  // UDA-4-13, UDA-4-16, WIC-V-02..04
  boot_igd();
  subscribe();
  const auto initial = heard();
  EXPECT_EQ(value(initial, "ExternalIPAddress"), "203.0.113.7");
  EXPECT_EQ(value(initial, "ConnectionStatus"), "Connected");
  EXPECT_EQ(value(initial, "PossibleConnectionTypes"), "IP_Routed");
  EXPECT_EQ(value(initial, "PortMappingNumberOfEntries"), "0");
  EXPECT_EQ(value(initial, "SystemUpdateID"), "0");
  ask_wan("AddPortMapping", mapping(console, "5000", "6000", "60"));
  const auto added = heard();
  EXPECT_EQ(value(added, "PortMappingNumberOfEntries"), "1");
  EXPECT_EQ(value(added, "SystemUpdateID"), "1");
  EXPECT_EQ(value(added, "ExternalIPAddress"), "(none)") << "only what changed";
  ask_wan("AddPortMapping", mapping(console, "5000", "6000", "60"));
  EXPECT_EQ(heard(), "") << "a renewal is no change";
  granted(pcp(camera, 8080));
  EXPECT_EQ(value(heard(), "PortMappingNumberOfEntries"), "2") << "by whatever protocol";
  pass(60s);
  const auto expired = heard();
  EXPECT_EQ(value(expired, "PortMappingNumberOfEntries"), "1");
  EXPECT_EQ(value(expired, "SystemUpdateID"), "3");
  revoke({service->list({}, now())[0].number});
  commit();
  EXPECT_EQ(value(heard(), "PortMappingNumberOfEntries"), "0") << "revoke sends the event";
  network.external = {address("203.0.113.8")};
  plane.set_network(network, now());
  service->set_network(network, now());
  EXPECT_EQ(value(heard(), "ExternalIPAddress"), "203.0.113.8");
  network.external.clear();
  service->set_network(network, now());
  const auto gone = heard();
  EXPECT_EQ(value(gone, "ExternalIPAddress"), "");
  EXPECT_EQ(value(gone, "ConnectionStatus"), "Disconnected");
}

TEST_F(EventTest, ASubscriberIsToldItsOwnAddress) {  // WIC-V-02, N4787-02
  network.external = {external, address("203.0.113.8")};
  network.external_pool = true;
  plane.paired[console] = network.external[1];
  boot_igd();
  subscribe();
  EXPECT_EQ(value(heard(), "ExternalIPAddress"), "203.0.113.8");
  network.external = {external, address("203.0.113.9")};
  plane.paired[console] = network.external[1];
  plane.set_network(network, now());
  service->set_network(network, now());
  EXPECT_EQ(value(heard(), "ExternalIPAddress"), "203.0.113.9") << "though the preferred one is as it was";
}

TEST_F(EventTest, AnEntryThatIsWrittenAnewIsAChangeOfTheTable) {  // WIC-V-03
  boot_igd();
  subscribe();
  ask_wan("AddPortMapping", mapping());
  EXPECT_EQ(value(heard(), "SystemUpdateID"), "1");
  const std::pair<const char*, const char*> changes[] = {
      {"NewPortMappingDescription", "another game"}, {"NewInternalPort", "6001"}, {"NewEnabled", "0"}};
  std::string expected = "1";
  for (const auto& [argument, text] : changes) {
    ++expected[0];
    ask_wan("AddPortMapping", with(mapping(), argument, text));
    const auto told = heard();
    EXPECT_EQ(value(told, "SystemUpdateID"), expected) << argument;
    EXPECT_EQ(value(told, "PortMappingNumberOfEntries"), "(none)") << argument << ": there is still one";
  }
}

TEST_F(EventTest, ManyChangesAreFewEvents) {  // WIC-V-02
  boot_igd();
  subscribe();
  heard();
  for (int i = 0; i < 100; ++i) {
    granted(pcp(camera, static_cast<std::uint16_t>(8000 + i)));
    server->settle(now());
  }
  const auto told = heard();
  EXPECT_EQ(value(told, "PortMappingNumberOfEntries"), "100");
  std::size_t events = 0;
  for (auto at = told.find("NOTIFY "); at != told.npos; at = told.find("NOTIFY ", at + 1)) ++events;
  EXPECT_LE(events, 3u);
}

TEST_F(EventTest, TheLinkAndTheOtherServices) {  // WCIC-02, L3F-03, 6FC-01
  boot_igd();
  subscribe("WANCommonIFC1");
  EXPECT_EQ(value(heard(), "PhysicalLinkStatus"), "Up");
  link.up = false;
  server->link_changed(now());
  EXPECT_EQ(value(heard(), "PhysicalLinkStatus"), "Down");
  subscribe("L3Forwarding1");
  EXPECT_NE(value(heard(), "DefaultConnectionService"), "(none)");
  subscribe("WANIPv6Firewall1");
  const auto firewall = heard();
  EXPECT_EQ(value(firewall, "FirewallEnabled"), "1");
  EXPECT_EQ(value(firewall, "InboundPinholeAllowed"), "1");
  policy.ipv6 = false;
  service->set_policy(policy, now());
  server->settle(now());
  const auto news = heard();
  EXPECT_EQ(value(news, "FirewallEnabled"), "0");
  EXPECT_EQ(value(news, "InboundPinholeAllowed"), "0");
}

}  // namespace
}  // namespace sallyport::test
