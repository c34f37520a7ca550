// The tables of the ebpf plane: what a kernel is told to lack, and which tables of an earlier run are taken
// up.
#include "nat/plane/ebpf/tables.hpp"

#include <bpf/bpf.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <unistd.h>

#include <array>
#include <cerrno>
#include <map>
#include <memory>
#include <string>

namespace sallyport::nat::ebpf {
namespace {

using testing::HasSubstr;

TEST(WhyRefused, NamesTheKernelThatIsTooOldWhateverTheErrorIs) {
  for (const int error : {EINVAL, EPERM, E2BIG})
    EXPECT_EQ(why_refused(error, "5.10.0-32-amd64"), "needs Linux 5.17, this is 5.10");
  EXPECT_EQ(why_refused(EINVAL, "4.19.0"), "needs Linux 5.17, this is 4.19");
}

TEST(WhyRefused, NamesTheRightsAndTheOptionsOfANewerOne) {
  EXPECT_THAT(why_refused(EPERM, "6.1.0-26-amd64"), HasSubstr("CAP_BPF and CAP_NET_ADMIN are needed"));
  EXPECT_THAT(why_refused(EACCES, "5.17.1"), HasSubstr("CAP_BPF"));
  EXPECT_THAT(why_refused(EINVAL, "6.18.44"), HasSubstr("BPF_SYSCALL, BPF_JIT"));
  EXPECT_THAT(why_refused(EINVAL, "unheard of"), HasSubstr("BPF_SYSCALL, BPF_JIT"));
}

// Everything else of the plane is skipped where programs cannot be loaded: where another one can, ours can.
TEST(Programs, AreTakenByAKernelThatTakesAny) {
  const std::array<bpf_insn, 2> nothing{
      {{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = 0},
       {.code = BPF_JMP | BPF_EXIT, .dst_reg = 0, .src_reg = 0, .off = 0, .imm = 0}}};
  const int other =
      bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "nothing", "GPL", nothing.data(), nothing.size(), nullptr);
  if (other < 0) GTEST_SKIP() << "cannot load programs here";
  close(other);
  std::string why;
  const auto tables = Tables::load({.flows = 2048}, {1, 2}, {}, why);
  if (!tables && why.find("needs Linux") == 0) GTEST_SKIP() << why;
  EXPECT_TRUE(tables) << why;
}

/// Maps of a program by name, as the plane finds them at an interface.
std::map<std::string, int> maps_of(int program) {
  std::map<std::string, int> maps;
  std::array<std::uint32_t, 64> numbers{};
  bpf_prog_info info{};
  info.nr_map_ids = numbers.size();
  info.map_ids = reinterpret_cast<std::uintptr_t>(numbers.data());
  std::uint32_t size = sizeof info;
  if (bpf_obj_get_info_by_fd(program, &info, &size) != 0) return maps;
  for (std::uint32_t i = 0; i < info.nr_map_ids; ++i) {
    bpf_map_info map{};
    size = sizeof map;
    const int fd = bpf_map_get_fd_by_id(numbers.at(i));
    if (bpf_obj_get_info_by_fd(fd, &map, &size) == 0) maps.emplace(map.name, fd);
  }
  return maps;
}

class TablesOfAnEarlierRun : public testing::Test {
 protected:
  void SetUp() override {
    earlier = load({});
    if (!earlier) GTEST_SKIP() << "cannot load programs here: " << why;
    found = maps_of(earlier->program(Hook::lan_ingress));
  }
  void TearDown() override {
    for (const auto& [name, fd] : found) close(fd);
  }
  std::unique_ptr<Tables> load(const std::map<std::string, int>& from) {
    auto tables = Tables::load({.flows = 2048}, {1, 2}, from, why);
    return tables ? std::move(*tables) : nullptr;
  }

  std::string why;
  std::unique_ptr<Tables> earlier;
  std::map<std::string, int> found;
};

TEST_F(TablesOfAnEarlierRun, AreTakenUpIfTheySayTheSameLayout) {
  EXPECT_EQ(earlier->config().abi, static_cast<std::uint32_t>(SP_ABI));
  earlier->config().pool_first = 4711;
  const auto tables = load(found);
  ASSERT_TRUE(tables) << why;
  EXPECT_TRUE(tables->reused());
  EXPECT_EQ(tables->why_anew(), "");
  EXPECT_EQ(tables->config().pool_first, 4711u);
}

TEST_F(TablesOfAnEarlierRun, OfAnotherLayoutBeginAnewAndStayAsTheyAreForWhoUsesThem) {
  earlier->config().abi = SP_ABI - 1;
  earlier->config().pool_first = 4711;
  const auto tables = load(found);
  ASSERT_TRUE(tables) << why;
  EXPECT_FALSE(tables->reused());
  EXPECT_THAT(tables->why_anew(), HasSubstr("have another layout (" + std::to_string(SP_ABI - 1) +
                                            ", ours is " + std::to_string(SP_ABI) + ")"));
  EXPECT_EQ(tables->config().abi, static_cast<std::uint32_t>(SP_ABI));
  EXPECT_EQ(tables->config().pool_first, 0u);
  EXPECT_EQ(earlier->config().pool_first, 4711u);
}

TEST_F(TablesOfAnEarlierRun, ThatBeganWithASecretAreOfAnUnknownLayout) {
  earlier->config().abi = 0xdeadbeef;
  const auto tables = load(found);
  ASSERT_TRUE(tables) << why;
  EXPECT_FALSE(tables->reused());
  EXPECT_THAT(tables->why_anew(), HasSubstr("(an unknown one, ours is "));
}

TEST_F(TablesOfAnEarlierRun, AreAllTakenUpOrNone) {
  close(found.at("flows"));
  found.erase("flows");
  const auto tables = load(found);
  ASSERT_TRUE(tables) << why;
  EXPECT_FALSE(tables->reused());
  EXPECT_THAT(tables->why_anew(), HasSubstr("are not complete"));
}

TEST_F(TablesOfAnEarlierRun, AreWholeWithoutTheListOfGuardedInterfaces) {
  // Only a LAN's program knows it, and the LAN's interface may have gone with that.
  close(found.at("wans"));
  found.erase("wans");
  const auto tables = load(found);
  ASSERT_TRUE(tables) << why;
  EXPECT_TRUE(tables->reused());
}

}  // namespace
}  // namespace sallyport::nat::ebpf
