#include "coordinator/scheduler/schedule.h"

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "coordinator/scheduler/devices.h"
#include "coordinator/scheduler/schedule_test_util.h"
#include "coordinator/store/job_state.h"

namespace tundra::coordinator {
namespace {

TEST(ScheduleTest, StartsTheOldestJobOnTheDevicesItAsksFor) {
  const auto decisions =
      Schedule(World({NewWorker("w1", 2)}, {}, {NewJob("j1", 2), NewJob("j2", 1)}), kNow);
  const auto starts = Only<StartJob>(decisions);
  ASSERT_EQ(starts.size(), 1u);
  EXPECT_EQ(starts[0].job.value, "j1");
  EXPECT_EQ(starts[0].plan.members.size(), 2u);
  EXPECT_EQ(starts[0].plan.shards, 1);
  EXPECT_EQ(starts[0].plan.members[1].incarnation, "w1-run");
  const auto waits = Only<WaitJob>(decisions);
  ASSERT_EQ(waits.size(), 1u);
  EXPECT_EQ(waits[0].waiting.position(), 1);
  EXPECT_EQ(waits[0].waiting.reason(), "needs 1 device, 0 are free");
}

TEST(ScheduleTest, AJobThatWaitsKeepsItsDevicesFromLaterJobs) {
  const WorkerView w1 = NewWorker("w1", 2);
  const auto decisions = Schedule(World({w1}, {NewGroup("g1", w1, {0}, "j0")},
                                        {Placed("j0", "g1"), NewJob("j1", 2), NewJob("j2", 1)}),
                                  kNow);
  EXPECT_TRUE(Only<StartJob>(decisions).empty());
  const auto waits = Only<WaitJob>(decisions);
  ASSERT_EQ(waits.size(), 2u);
  EXPECT_EQ(waits[0].waiting.reason(), "needs 2 devices, 1 is free");
  EXPECT_EQ(waits[1].waiting.reason(), "needs 1 device, for which an earlier job waits");
  EXPECT_EQ(waits[1].waiting.position(), 2);
}

TEST(ScheduleTest, AJobThatNobodyCanServeBlocksNobody) {
  const auto decisions = Schedule(
      World({NewWorker("w1", 2)}, {}, {NewJob("j1", 4), NewJob("j2", 1, "C"), NewJob("j3", 2)}),
      kNow);
  const auto starts = Only<StartJob>(decisions);
  ASSERT_EQ(starts.size(), 1u);
  EXPECT_EQ(starts[0].job.value, "j3");
  const auto waits = Only<WaitJob>(decisions);
  ASSERT_EQ(waits.size(), 2u);
  EXPECT_EQ(waits[0].waiting.reason(),
            "needs 4 devices of one kind, and the workers that hold base tiny-tales have 2");
  EXPECT_EQ(waits[1].waiting.reason(), "no connected worker holds base other");
}

TEST(ScheduleTest, ATenantAtItsQuotaWaitsAndBlocksNobody) {
  const WorkerView w1 = NewWorker("w1", 4);
  JobView running = Placed("j0", "g1"), second = NewJob("j1", 2), third = NewJob("j2", 2),
          any = NewJob("j3");
  running.tenant.value = second.tenant.value = any.tenant.value = "red";
  third.tenant.value = "blue";
  Snapshot world = World({w1}, {NewGroup("g1", w1, {0}, "j0")}, {running, second, third});
  world.device_quotas[{"red"}] = 2;
  auto decisions = Schedule(world, kNow);
  ASSERT_EQ(Only<StartJob>(decisions).size(), 1u);
  EXPECT_EQ(Only<StartJob>(decisions)[0].job.value, "j2");
  ASSERT_EQ(Only<WaitJob>(decisions).size(), 1u);
  EXPECT_EQ(Only<WaitJob>(decisions)[0].waiting.reason(),
            "needs 2 devices, and tenant red holds 1 of the 2 that it may");
  // One that takes what it gets is made small enough.
  world.jobs = {running, any};
  decisions = Schedule(world, kNow);
  ASSERT_EQ(Only<StartJob>(decisions).size(), 1u);
  EXPECT_EQ(Only<StartJob>(decisions)[0].plan.members.size(), 1u);
}

TEST(ScheduleTest, PrefersAnIdleGroupThatHoldsTheBase) {
  const WorkerView w1 = NewWorker("w1", 2), w2 = NewWorker("w2", 4);
  const auto decisions =
      Schedule(World({w1, w2}, {NewGroup("g1", w1, {0, 1})}, {NewJob("j1")}), kNow);
  const auto starts = Only<StartJob>(decisions);
  ASSERT_EQ(starts.size(), 1u);
  EXPECT_EQ(starts[0].warm_group.value, "g1");
  EXPECT_TRUE(Only<DissolveGroup>(decisions).empty());
}

TEST(ScheduleTest, DissolvesAnIdleGroupForAPromptToAnotherBase) {
  WorkerView w1 = NewWorker("w1", 2, {"B", "C"}), w2 = NewWorker("w2", 2, {"B", "C"});
  const auto mine = NewGroup("g1", w1, {0, 1}, "", "C"),
             other = NewGroup("g2", w2, {0, 1}, "", "C");
  EXPECT_TRUE(Schedule(World({w1, w2}, {mine, other}, {}), kNow).empty());
  w1.prompt_waits = true;
  const auto dissolved = Only<DissolveGroup>(Schedule(World({w1, w2}, {mine, other}, {}), kNow));
  ASSERT_EQ(dissolved.size(), 1u);
  EXPECT_EQ(dissolved[0].group.value, "g1");
}

TEST(ScheduleTest, DissolvesIdleGroupsOnlyWhenTheirDevicesAreNeeded) {
  const WorkerView w1 = NewWorker("w1", 2, {"B", "C"});
  const auto idle = NewGroup("g1", w1, {0, 1}, "", "C");
  const auto needed = Schedule(World({w1}, {idle}, {NewJob("j1", 1)}), kNow);
  EXPECT_EQ(Only<DissolveGroup>(needed).size(), 1u);
  EXPECT_EQ(Only<StartJob>(needed).size(), 1u);
  const WorkerView w2 = NewWorker("w2", 1);
  const auto spared = Schedule(World({w1, w2}, {idle}, {NewJob("j1", 1)}), kNow);
  EXPECT_TRUE(Only<DissolveGroup>(spared).empty());
  ASSERT_EQ(Only<StartJob>(spared).size(), 1u);
  EXPECT_EQ(Only<StartJob>(spared)[0].plan.members[0].worker.value, "w2");
}

TEST(ScheduleTest, NeverMixesNumericsClassesOrBuilds) {
  WorkerView w1 = NewWorker("w1", 1), w2 = NewWorker("w2", 1), w3 = NewWorker("w3", 1);
  w2.devices[0].numerics_class = "class-2";
  w3.build = "build-2";
  EXPECT_TRUE(Only<StartJob>(Schedule(World({w1, w2, w3}, {}, {NewJob("j1", 2)}), kNow)).empty());
  JobView pinned = NewJob("j1", 1);
  pinned.numerics_class = "class-2";
  const auto starts = Only<StartJob>(Schedule(World({w1, w2, w3}, {}, {pinned}), kNow));
  ASSERT_EQ(starts.size(), 1u);
  EXPECT_EQ(starts[0].plan.members[0].worker.value, "w2");
  pinned.numerics_class = "class-9";
  const auto waits = Only<WaitJob>(Schedule(World({w1, w2, w3}, {}, {pinned}), kNow));
  ASSERT_EQ(waits.size(), 1u);
  EXPECT_NE(waits[0].waiting.reason().find("class-9"), std::string::npos);
}

TEST(ScheduleTest, TakesShardsFromTheSpec) {
  JobView job = NewJob("j1");
  job.min_devices = 1;
  job.max_devices = 8;
  job.shards = 2;
  const auto starts = Only<StartJob>(Schedule(World({NewWorker("w1", 5)}, {}, {job}), kNow));
  ASSERT_EQ(starts.size(), 1u);
  EXPECT_EQ(starts[0].plan.members.size(), 4u);
  EXPECT_EQ(starts[0].plan.shards, 2);
  // Over two workers: as many replicas as can be lie within one.
  job.min_devices = 6;
  const auto wide =
      Only<StartJob>(Schedule(World({NewWorker("w1", 3), NewWorker("w2", 3)}, {}, {job}), kNow));
  ASSERT_EQ(wide.size(), 1u);
  std::string members;
  for (const auto& m : wide[0].plan.members) {
    absl::StrAppend(&members, m.worker.value, ":", m.device, " ");
  }
  EXPECT_EQ(members, "w1:0 w1:1 w2:0 w2:1 w1:2 w2:2 ");
}

TEST(ScheduleTest, SharesFreeDevicesAmongJobsThatTakeWhateverServes) {
  const auto starts =
      Only<StartJob>(Schedule(World({NewWorker("w1", 4)}, {}, {NewJob("j1"), NewJob("j2")}), kNow));
  ASSERT_EQ(starts.size(), 2u);
  EXPECT_EQ(starts[0].plan.members.size(), 2u);
  EXPECT_EQ(starts[1].plan.members.size(), 2u);
}

TEST(ScheduleTest, ALostRankMeansTheNextEpochOnTheSameDevices) {
  const WorkerView w1 = NewWorker("w1", 3);
  GroupView group = NewGroup("g1", w1, {0, 2}, "j1");
  group.rank_lost = true;
  group.error = "rank 1: killed by signal 9";
  JobView job = Placed("j1", "g1");
  job.step = 5;
  const auto reforms = Only<ReformGroup>(Schedule(World({w1}, {group}, {job}), kNow));
  ASSERT_EQ(reforms.size(), 1u);
  EXPECT_EQ(reforms[0].plan.members, group.record.members);
  EXPECT_NE(reforms[0].reason.find("signal 9"), std::string::npos);
}

TEST(ScheduleTest, ALostWorkerIsReplacedWhereThereIsAnother) {
  WorkerView w1 = NewWorker("w1", 1), w2 = NewWorker("w2", 1), w3 = NewWorker("w3", 1);
  GroupView group = NewGroup("g1", w1, {0}, "j1");
  group.record.members.push_back({w2.id, 0, w2.incarnation});
  JobView job = Placed("j1", "g1");
  job.min_devices = job.max_devices = 2;
  w2.connected = false;
  EXPECT_TRUE(Schedule(World({w1, w2, w3}, {group}, {job}), kNow).empty())
      << "within its lease a worker is waited for";
  w2.lost = true;
  const auto reforms = Only<ReformGroup>(Schedule(World({w1, w2, w3}, {group}, {job}), kNow));
  ASSERT_EQ(reforms.size(), 1u);
  EXPECT_EQ(reforms[0].plan.members[0].worker.value, "w1");
  EXPECT_EQ(reforms[0].plan.members[1].worker.value, "w3");
  // Who is left keeps its place, and so its slice of the base.
  std::swap(group.record.members[0], group.record.members[1]);
  const auto kept = Only<ReformGroup>(Schedule(World({w1, w2, w3}, {group}, {job}), kNow));
  EXPECT_EQ(kept[0].plan.members[0].worker.value, "w3");
  EXPECT_EQ(kept[0].plan.members[1].worker.value, "w1");
  std::swap(group.record.members[0], group.record.members[1]);
  // Without one, a job that needs two goes back to the queue; one that may do
  // with one goes on.
  const auto back = Schedule(World({w1, w2}, {group}, {job}), kNow);
  ASSERT_EQ(Only<MoveJob>(back).size(), 1u);
  EXPECT_EQ(Only<MoveJob>(back)[0].path, (std::vector<v1::JobState>{v1::PREEMPTING, v1::QUEUED}));
  EXPECT_TRUE(Only<MoveJob>(back)[0].lost_attempt);
  job.min_devices = 1;
  EXPECT_EQ(
      Only<ReformGroup>(Schedule(World({w1, w2}, {group}, {job}), kNow))[0].plan.members.size(),
      1u);
}

TEST(ScheduleTest, ARestartedWorkerHasNoRanksOfTheEpoch) {
  WorkerView w1 = NewWorker("w1", 1);
  const GroupView group = NewGroup("g1", w1, {0}, "j1");
  w1.incarnation = "another run";
  const auto reforms =
      Only<ReformGroup>(Schedule(World({w1}, {group}, {Placed("j1", "g1")}), kNow));
  ASSERT_EQ(reforms.size(), 1u);
  EXPECT_EQ(reforms[0].plan.members[0].incarnation, "another run");
}

TEST(ScheduleTest, ThreeAttemptsWithoutAStepFailTheJob) {
  const WorkerView w1 = NewWorker("w1", 1);
  GroupView group = NewGroup("g1", w1, {0}, "j1");
  group.rank_lost = true;
  JobView job = Placed("j1", "g1", v1::STARTING);
  job.fruitless_attempts = 1;
  EXPECT_EQ(Only<ReformGroup>(Schedule(World({w1}, {group}, {job}), kNow)).size(), 1u);
  job.fruitless_attempts = 2;
  const auto fails = Only<FailJob>(Schedule(World({w1}, {group}, {job}), kNow));
  ASSERT_EQ(fails.size(), 1u);
  EXPECT_EQ(fails[0].code, v1::NO_PROGRESS);
  job.step = 1;  // one step made, and the count begins anew
  EXPECT_EQ(Only<ReformGroup>(Schedule(World({w1}, {group}, {job}), kNow)).size(), 1u);
}

TEST(ScheduleTest, AJobThatIsToStopIsNotFormedAnew) {
  const WorkerView w1 = NewWorker("w1", 1);
  GroupView group = NewGroup("g1", w1, {0}, "j1");
  group.rank_lost = true;
  JobView job = Placed("j1", "g1");
  job.fruitless_attempts = 2;
  job.desired = v1::CANCEL;
  const auto cancelled = Schedule(World({w1}, {group}, {job}), kNow);
  EXPECT_EQ(Only<MoveJob>(cancelled).at(0).path,
            (std::vector<v1::JobState>{v1::CANCELLING, v1::CANCELLED}));
  EXPECT_EQ(Only<DissolveGroup>(cancelled).size(), 1u);
  job.desired = v1::PAUSE;
  EXPECT_EQ(Only<MoveJob>(Schedule(World({w1}, {group}, {job}), kNow)).at(0).path,
            (std::vector<v1::JobState>{v1::PAUSING, v1::PAUSED}));
}

TEST(ScheduleTest, AFaultOfTheJobsOwnFailsItAtOnce) {
  const WorkerView w1 = NewWorker("w1", 1);
  GroupView group = NewGroup("g1", w1, {0}, "j1");
  group.rank_lost = true;
  group.failure_code = v1::OUT_OF_MEMORY;
  group.error = "needs 9 GiB";
  const auto fails =
      Only<FailJob>(Schedule(World({w1}, {group}, {Placed("j1", "g1", v1::STARTING)}), kNow));
  ASSERT_EQ(fails.size(), 1u);
  EXPECT_EQ(fails[0].code, v1::OUT_OF_MEMORY);
}

TEST(ScheduleTest, WishesOfUsersMoveJobs) {
  const WorkerView w1 = NewWorker("w1", 1);
  const GroupView group = NewGroup("g1", w1, {0}, "j1");
  const auto path = [&](v1::JobState state, v1::DesiredState desired, bool reported = true) {
    JobView job = IsPlaced(state) ? Placed("j1", "g1", state) : NewJob("j1");
    job.state = state;
    job.desired = desired;
    job.attempt_reported = reported;
    std::string text;
    for (const MoveJob& move : Only<MoveJob>(Schedule(
             World({w1}, IsPlaced(state) ? std::vector{group} : std::vector<GroupView>{}, {job}),
             kNow))) {
      for (const v1::JobState s : move.path) absl::StrAppend(&text, StateName(s), " ");
    }
    return text;
  };
  EXPECT_EQ(path(v1::QUEUED, v1::PAUSE), "PAUSED ");
  EXPECT_EQ(path(v1::QUEUED, v1::CANCEL), "CANCELLED ");
  EXPECT_EQ(path(v1::PAUSED, v1::CANCEL), "CANCELLED ");
  EXPECT_EQ(path(v1::PAUSED, v1::RUN), "QUEUED ");
  EXPECT_EQ(path(v1::PAUSED, v1::PAUSE), "");
  EXPECT_EQ(path(v1::RUNNING, v1::PAUSE), "PAUSING ");
  EXPECT_EQ(path(v1::RUNNING, v1::CANCEL), "CANCELLING ");
  EXPECT_EQ(path(v1::STARTING, v1::CANCEL, false), "CANCELLING CANCELLED ");
  EXPECT_EQ(path(v1::STARTING, v1::PAUSE, false), "PAUSING PAUSED ");
  EXPECT_EQ(path(v1::PAUSING, v1::CANCEL), "CANCELLING ");
  EXPECT_EQ(path(v1::PREEMPTING, v1::CANCEL), "CANCELLING ");
  EXPECT_EQ(path(v1::PAUSING, v1::RUN), "");
  EXPECT_EQ(path(v1::CANCELLING, v1::CANCEL), "");
}

TEST(ScheduleTest, ADrainingWorkerIsLeft) {
  WorkerView w1 = NewWorker("w1", 2);
  w1.draining = true;
  const auto decisions =
      Schedule(World({w1}, {NewGroup("g1", w1, {0}, "j1"), NewGroup("g2", w1, {1})},
                     {Placed("j1", "g1"), NewJob("j2", 1)}),
               kNow);
  ASSERT_EQ(Only<MoveJob>(decisions).size(), 1u);
  EXPECT_EQ(Only<MoveJob>(decisions)[0].path, std::vector<v1::JobState>{v1::PREEMPTING});
  ASSERT_EQ(Only<DissolveGroup>(decisions).size(), 1u);
  EXPECT_EQ(Only<DissolveGroup>(decisions)[0].group.value, "g2");
  EXPECT_TRUE(Only<StartJob>(decisions).empty());
}

TEST(ScheduleTest, RanksThatIgnoreACancellationAreKilled) {
  const WorkerView w1 = NewWorker("w1", 1);
  JobView job = Placed("j1", "g1", v1::CANCELLING);
  job.desired = v1::CANCEL;
  job.state_age = kCancelGrace + absl::Seconds(1);
  const auto decisions = Schedule(World({w1}, {NewGroup("g1", w1, {0}, "j1")}, {job}), kNow);
  EXPECT_EQ(Only<MoveJob>(decisions).at(0).path, std::vector<v1::JobState>{v1::CANCELLED});
  EXPECT_EQ(Only<DissolveGroup>(decisions).size(), 1u);
}

TEST(ScheduleTest, EstimatesTheWaitFromWhatRuns) {
  const WorkerView w1 = NewWorker("w1", 2);
  JobView a = Placed("j1", "g1"), b = Placed("j2", "g2");
  a.time_left = absl::Seconds(100);
  b.time_left = absl::Seconds(300);
  const auto waits = Only<WaitJob>(
      Schedule(World({w1}, {NewGroup("g1", w1, {0}, "j1"), NewGroup("g2", w1, {1}, "j2")},
                     {a, b, NewJob("j3", 2)}),
               kNow));
  ASSERT_EQ(waits.size(), 1u);
  EXPECT_EQ(waits[0].waiting.estimate().seconds(), 300);
}

}  // namespace
}  // namespace tundra::coordinator
