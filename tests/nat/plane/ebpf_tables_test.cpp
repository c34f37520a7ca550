// The tables of the ebpf plane: what a kernel is told to lack, and which tables of an earlier run are taken
// up.
#include "nat/plane/ebpf/tables.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

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

}  // namespace
}  // namespace sallyport::nat::ebpf
