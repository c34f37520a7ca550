#include "protocols/pcp/result_code.hpp"

#include <gtest/gtest.h>

namespace sallyport::pcp {
namespace {

struct Row {
  MappingErrc reason;
  ErrorAnswer answer;      ///< without more knowledge
  ErrorAnswer with_retry;  ///< when the service says 77 s
};

// The table of refusals of policy.md, section 3; PCP-7.4-01
TEST(PcpResultCode, OfEveryRefusalIsTheTables) {
  using enum ResultCode;
  const Row rows[] = {
      {MappingErrc::not_authorized, {not_authorized, 1800}, {not_authorized, 1800}},
      {MappingErrc::device_blocked, {not_authorized, 1800}, {not_authorized, 77}},
      {MappingErrc::not_owned_here, {not_authorized, 1800}, {not_authorized, 1800}},
      {MappingErrc::foreign_nonce, {not_authorized, 1800}, {not_authorized, 77}},
      {MappingErrc::quota_exceeded, {user_ex_quota, 30}, {user_ex_quota, 30}},
      {MappingErrc::no_ports_left, {no_resources, 30}, {no_resources, 30}},
      {MappingErrc::no_memory, {no_resources, 30}, {no_resources, 30}},
      {MappingErrc::store_unavailable, {no_resources, 30}, {no_resources, 30}},
      {MappingErrc::not_found, {no_resources, 30}, {no_resources, 30}},
      {MappingErrc::no_external_address, {network_failure, 30}, {network_failure, 30}},
      {MappingErrc::unsupported_transport, {unsupp_protocol, 1800}, {unsupp_protocol, 1800}},
      {MappingErrc::insisted_port_taken, {cannot_provide_external, 30}, {cannot_provide_external, 77}},
      {MappingErrc::insisted_port_forbidden,
       {cannot_provide_external, 1800},
       {cannot_provide_external, 1800}},
      {MappingErrc::too_many_filters, {excessive_remote_peers, 1800}, {excessive_remote_peers, 1800}},
  };
  for (const auto& row : rows) {
    EXPECT_EQ(error_answer({row.reason, std::nullopt}, true, true), row.answer)
        << static_cast<int>(row.reason);
    EXPECT_EQ(error_answer({row.reason, 77}, true, true), row.with_retry) << static_cast<int>(row.reason);
  }
}

// PCP-7.4-03
TEST(PcpResultCode, SaysCannotProvideExternalOnlyToWhoInsisted) {
  for (const auto reason : {MappingErrc::insisted_port_taken, MappingErrc::insisted_port_forbidden})
    EXPECT_EQ(error_answer({reason, 77}, false, true), (ErrorAnswer{ResultCode::no_resources, 30}));
}

// PCP-7.4-04
TEST(PcpResultCode, SaysExcessiveRemotePeersOnlyToARequestWithFilter) {
  EXPECT_EQ(error_answer({MappingErrc::too_many_filters, 77}, true, false),
            (ErrorAnswer{ResultCode::no_resources, 30}));
}

TEST(PcpResultCode, HasTheNumbersOfTheRegistry) {
  EXPECT_EQ(to_string(static_cast<ResultCode>(0)), "SUCCESS");
  EXPECT_EQ(to_string(static_cast<ResultCode>(6)), "MALFORMED_OPTION");
  EXPECT_EQ(to_string(static_cast<ResultCode>(13)), "EXCESSIVE_REMOTE_PEERS");
  EXPECT_EQ(to_string(static_cast<ResultCode>(26)), "UNSUPP_THIRD_PARTY_ID_LENGTH");
  std::set<std::string_view> names;
  for (int code = 0; code <= 26; ++code) names.insert(to_string(static_cast<ResultCode>(code)));
  EXPECT_EQ(names.size(), 27U);
  EXPECT_FALSE(names.contains("unknown result"));
  EXPECT_EQ(to_string(static_cast<ResultCode>(200)), "unknown result");
}

}  // namespace
}  // namespace sallyport::pcp
