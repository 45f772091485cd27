#include "coordinator/store/job_state.h"

#include <gtest/gtest.h>

#include <set>
#include <utility>

#include "common/status_test_util.h"
#include "coordinator/store/job_draft.h"

namespace tundra::coordinator {
namespace {

using Arrow = std::pair<v1::JobState, v1::JobState>;

// The diagram of docs/architecture.md, arrow by arrow.
const std::set<Arrow>& Diagram() {
  static const auto* const arrows = new std::set<Arrow>{
      {v1::QUEUED, v1::STARTING},      {v1::STARTING, v1::RUNNING},
      {v1::RUNNING, v1::SUCCEEDED},    {v1::QUEUED, v1::FAILED},
      {v1::STARTING, v1::FAILED},      {v1::RUNNING, v1::FAILED},
      {v1::STARTING, v1::PREEMPTING},  {v1::RUNNING, v1::PREEMPTING},
      {v1::PREEMPTING, v1::QUEUED},    {v1::QUEUED, v1::PAUSED},
      {v1::STARTING, v1::PAUSING},     {v1::RUNNING, v1::PAUSING},
      {v1::PAUSING, v1::PAUSED},       {v1::PAUSED, v1::QUEUED},
      {v1::QUEUED, v1::CANCELLED},     {v1::PAUSED, v1::CANCELLED},
      {v1::STARTING, v1::CANCELLING},  {v1::RUNNING, v1::CANCELLING},
      {v1::PAUSING, v1::CANCELLING},   {v1::PREEMPTING, v1::CANCELLING},
      {v1::CANCELLING, v1::CANCELLED}, {v1::RUNNING, v1::STARTING},
  };
  return *arrows;
}

TEST(JobStateTest, TheWholeTableIsTheDiagram) {
  for (int from = v1::JobState_MIN; from <= v1::JobState_MAX; ++from) {
    for (int to = v1::JobState_MIN; to <= v1::JobState_MAX; ++to) {
      const auto f = static_cast<v1::JobState>(from);
      const auto t = static_cast<v1::JobState>(to);
      EXPECT_EQ(CanMove(f, t), Diagram().contains({f, t}))
          << StateName(f) << " -> " << StateName(t);
    }
  }
}

TEST(JobStateTest, NothingLeavesATerminalStateAndEveryOtherCanEnd) {
  for (const v1::JobState from : AllJobStates()) {
    // States that can be reached from here.
    std::set<v1::JobState> reached = {from};
    for (bool grew = true; grew;) {
      grew = false;
      for (const v1::JobState a : std::set<v1::JobState>(reached)) {
        for (const v1::JobState b : AllJobStates()) {
          if (CanMove(a, b)) grew |= reached.insert(b).second;
        }
      }
    }
    if (IsTerminal(from)) {
      EXPECT_EQ(reached.size(), 1u) << StateName(from);
    } else {
      EXPECT_TRUE(reached.contains(v1::CANCELLED)) << StateName(from);
    }
  }
}

TEST(JobDraftTest, RefusesAMoveThatIsNotInTheTable) {
  JobRecord record;
  record.job.set_state(v1::SUCCEEDED);
  JobDraft draft(record, absl::UnixEpoch());
  EXPECT_THAT(draft.Move(v1::RUNNING, ""), testing::StatusIs(absl::StatusCode::kFailedPrecondition,
                                                             ::testing::HasSubstr("SUCCEEDED")));
  EXPECT_EQ(draft.state(), v1::SUCCEEDED);
  EXPECT_TRUE(draft.events().empty());
}

TEST(JobDraftTest, LeavingItsDevicesClearsThePlacement) {
  JobRecord record;
  record.job.set_state(v1::RUNNING);
  record.job.set_attempt(3);
  record.group.value = "group-1";
  record.epoch = 5;
  JobDraft draft(record, absl::UnixEpoch());
  TUNDRA_EXPECT_OK(draft.Check({3, 5}));
  EXPECT_THAT(draft.Check({2, 5}), testing::StatusIs(absl::StatusCode::kAborted, ::testing::_));
  EXPECT_THAT(draft.Check({3, 4}), testing::StatusIs(absl::StatusCode::kAborted, ::testing::_));
  TUNDRA_ASSERT_OK(draft.Move(v1::SUCCEEDED, "done"));
  EXPECT_TRUE(draft.record().group.empty());
  EXPECT_EQ(draft.events().at(0).epoch(), 5);
  EXPECT_TRUE(draft.job().has_end_time());
  EXPECT_THAT(draft.Check({3, 5}), testing::StatusIs(absl::StatusCode::kAborted, ::testing::_));
}

}  // namespace
}  // namespace tundra::coordinator
