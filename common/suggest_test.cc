#include "common/suggest.h"

#include <gtest/gtest.h>

namespace tundra {
namespace {

const std::vector<std::string> kNames = {"heartbeat_seconds", "http", "lease_seconds", "listen",
                                         "log_json", "log_level"};

TEST(Suggest, FindsTheMisspeltName) {
  EXPECT_EQ(Suggest("lisetn", kNames), "did you mean listen?");
  EXPECT_EQ(Suggest("htp", kNames), "did you mean http?");
}

TEST(Suggest, FindsTheOnlyNameThatBeginsSo) {
  EXPECT_EQ(Suggest("lease", kNames), "did you mean lease_seconds?");
  EXPECT_EQ(Suggest("listen_on", kNames), "did you mean listen?");
}

TEST(Suggest, ListsAllWhereNothingIsNear) {
  EXPECT_EQ(Suggest("log", {"log_json", "log_level"}), "it knows: log_json, log_level");
  EXPECT_EQ(Suggest("colour", {"a", "b"}), "it knows: a, b");
  EXPECT_EQ(Suggest("", {"alpha"}), "it knows: alpha");
}

TEST(EditDistance, CountsASwapAsOne) {
  EXPECT_EQ(EditDistance("alpha", "aplha"), 1u);
  EXPECT_EQ(EditDistance("", "abc"), 3u);
  EXPECT_EQ(EditDistance("kitten", "sitting"), 3u);
}

}  // namespace
}  // namespace tundra
