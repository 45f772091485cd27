// Which devices a group takes, into how many slices its base is cut, and who is which rank.
#include "coordinator/scheduler/devices.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace tundra::coordinator {
namespace {

TEST(ChooseShardsTest, TakesTheFewestThatFit) {
  EXPECT_EQ(ChooseShards(0, 4, 100, 0), 1);
  EXPECT_EQ(ChooseShards(0, 4, 100, 1000), 1);
  EXPECT_EQ(ChooseShards(0, 4, 100, 80), 2);
  EXPECT_EQ(ChooseShards(0, 6, 100, 60), 3);
  EXPECT_EQ(ChooseShards(0, 4, 100, 1), 4);
  EXPECT_EQ(ChooseShards(2, 4, 100, 1000), 2);
}

std::string InOrder(const std::vector<std::string>& workers, int32_t shards) {
  std::vector<GroupMemberRecord> members;
  for (const std::string& worker : workers) {
    const auto device = std::count_if(members.begin(), members.end(), [&](const auto& member) {
      return member.worker.value == worker;
    });
    members.push_back({WorkerId{worker}, static_cast<int32_t>(device), ""});
  }
  std::string text;
  for (const GroupMemberRecord& m : OrderForShards(members, shards)) {
    absl::StrAppend(&text, m.worker.value, m.device, " ");
  }
  return text;
}

TEST(OrderForShardsTest, KeepsReplicasWithinWorkersWhereItCan) {
  EXPECT_EQ(InOrder({}, 2), "");
  EXPECT_EQ(InOrder({"a", "b", "b"}, 1), "a0 b0 b1 ");
  EXPECT_EQ(InOrder({"a", "b", "b", "c"}, 2), "b0 b1 a0 c0 ");
  EXPECT_EQ(InOrder({"a", "a", "a", "b", "b", "b"}, 2), "a0 a1 b0 b1 a2 b2 ");
  EXPECT_EQ(InOrder({"a", "a", "b", "b"}, 4), "a0 a1 b0 b1 ");
}

}  // namespace
}  // namespace tundra::coordinator
