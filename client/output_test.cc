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

TEST(Output, ControlCharactersOfOthersAreShownNotObeyed) {
  EXPECT_EQ(Printable("a\x1b[2Jb\tc\nd\r\x7f"), "a\\x1b[2Jb\tc\nd\\x0d\\x7f");
  EXPECT_EQ(Printable(std::string_view("a\0b", 3)), "a\\x00b");
  EXPECT_EQ(Printable("\xc2\x9b"
                      "31m é ÿ"),
            "\\x9b31m é ÿ");
}

TEST(Output, NamesOfOthersMakeNoLinesAndNoEscapesInATable) {
  Table table({"NAME", "STATE"});
  table.Add({"a\x1b[2J\nRUNNING\t", "x\xc2\x9b"});
  EXPECT_EQ(table.Render(), "NAME                     STATE\na\\x1b[2J\\x0aRUNNING\\x09  x\\x9b\n");
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
