#include "client/output.h"

#include <gtest/gtest.h>

namespace tundra::client {
namespace {

TEST(Output, TablesAlignByCharactersNotBytes) {
  Table table({"NAME", "STATE"});
  table.Add({"é", "RUNNING"});
  table.Add({"abcdef", ""});
  EXPECT_EQ(table.Render(), "NAME    STATE\né       RUNNING\nabcdef\n");
}

TEST(Output, FiguresReadWell) {
  EXPECT_EQ(HumanBytes(999), "999 B");
  EXPECT_EQ(HumanBytes(3'200'000), "3.2 MB");
  EXPECT_EQ(HumanCount(1234567), "1.2M");
  EXPECT_EQ(HumanDuration(absl::Seconds(62)), "01:02");
  EXPECT_EQ(HumanDuration(absl::Seconds(3723)), "1:02:03");
}

TEST(Output, ExitCodesTellUnreachableFromBadInput) {
  EXPECT_EQ(ExitCodeOf(absl::OkStatus()), kOk);
  EXPECT_EQ(ExitCodeOf(absl::UnavailableError("")), kUnreachable);
  EXPECT_EQ(ExitCodeOf(absl::InvalidArgumentError("")), kBadInput);
}

}  // namespace
}  // namespace tundra::client
