#include "common/files.h"

#include <sys/resource.h>

#include <csignal>

#include "common/ids.h"
#include "common/status_test_util.h"

namespace tundra {
namespace {

using ::testing::HasSubstr;
using testing::StatusIs;

TEST(Files, WritesAtomicallyAndReadsBack) {
  TempDir dir;
  TUNDRA_ASSERT_OK(WriteFileAtomically(dir / "a", "one"));
  TUNDRA_ASSERT_OK(WriteFileAtomically(dir / "a", std::string("t\0wo", 4)));
  TUNDRA_ASSERT_OK_AND_ASSIGN(std::string bytes, ReadFile(dir / "a"));
  EXPECT_EQ(bytes, std::string("t\0wo", 4));
}

TEST(Files, MissingFileIsNotFoundAndNamesThePath) {
  TempDir dir;
  EXPECT_THAT(ReadFile(dir / "none"), StatusIs(absl::StatusCode::kNotFound, HasSubstr("none")));
}

TEST(Files, OverLimitIsRefused) {
  TempDir dir;
  TUNDRA_ASSERT_OK(WriteFileAtomically(dir / "a", "12345"));
  EXPECT_THAT(ReadFile(dir / "a", 4),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("limit of 4")));
}

TEST(Files, FailedWriteKeepsTheOldBytesAndLeavesNoTemporary) {
  TempDir dir;
  TUNDRA_ASSERT_OK(WriteFileAtomically(dir / "a", "old"));
  std::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit tiny{4096, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &tiny), 0);
  const absl::Status status = WriteFileAtomically(dir / "a", std::string(1 << 20, 'x'));
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("/a")));
  TUNDRA_ASSERT_OK_AND_ASSIGN(std::string bytes, ReadFile(dir / "a"));
  EXPECT_EQ(bytes, "old");
}

TEST(Files, MapsReadOnly) {
  TempDir dir;
  TUNDRA_ASSERT_OK(WriteFileAtomically(dir / "a", "mapped"));
  TUNDRA_ASSERT_OK_AND_ASSIGN(MappedFile mapped, MappedFile::Open(dir / "a"));
  EXPECT_EQ(mapped.bytes(), "mapped");
  EXPECT_DEATH(const_cast<char*>(mapped.bytes().data())[0] = 'x', "");
}

TEST(Ids, AreUniqueAndPrefixed) {
  const std::string a = NewIdValue("job");
  EXPECT_THAT(a, ::testing::MatchesRegex("job-[0-9a-z]+"));
  EXPECT_EQ(a.size(), 24u);
  EXPECT_NE(a, NewIdValue("job"));
}

}  // namespace
}  // namespace tundra
