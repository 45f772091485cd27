#include "coordinator/scheduler/schedule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "absl/strings/str_cat.h"
#include "coordinator/scheduler/devices.h"
#include "coordinator/store/job_state.h"

namespace tundra::coordinator {
namespace {

const absl::Time kNow = absl::FromUnixSeconds(1'700'000'000);

WorkerView NewWorker(const std::string& id, int devices, std::vector<std::string> bases = {"B"}) {
  WorkerView worker;
  worker.id.value = id;
  worker.build = "build-1";
  worker.incarnation = id + "-run";
  worker.connected = true;
  for (int i = 0; i < devices; ++i) worker.devices.push_back({i, "class-1", 0});
  for (const std::string& base : bases) worker.bases.insert({base});
  return worker;
}

JobView NewJob(const std::string& id, int devices = 0, const std::string& base = "B") {
  JobView job;
  job.id.value = id;
  job.base.value = base;
  if (devices > 0) job.min_devices = job.max_devices = devices;
  return job;
}

GroupView NewGroup(const std::string& id, const WorkerView& worker, std::vector<int> devices,
                   const std::string& job = "", const std::string& base = "B") {
  GroupView group;
  group.record.id.value = id;
  group.record.epoch = 1;
  group.record.base.value = base;
  group.record.numerics_class = "class-1";
  group.record.build = "build-1";
  group.record.job.value = job;
  for (const int device : devices) {
    group.record.members.push_back({worker.id, device, worker.incarnation});
  }
  return group;
}

// A job that runs in a group.
JobView Placed(const std::string& id, const std::string& group, v1::JobState state = v1::RUNNING) {
  JobView job = NewJob(id);
  job.state = state;
  job.group.value = group;
  job.numerics_class = "class-1";
  job.attempt_reported = true;
  return job;
}

Snapshot World(std::vector<WorkerView> workers, std::vector<GroupView> groups,
               std::vector<JobView> jobs) {
  return {.jobs = std::move(jobs),
          .groups = std::move(groups),
          .workers = std::move(workers),
          .bases = {{{"B"}, {"tiny-tales", 100}}, {{"C"}, {"other", 100}}}};
}

template <typename T>
std::vector<T> Only(const std::vector<Decision>& decisions) {
  std::vector<T> out;
  for (const Decision& decision : decisions) {
    if (const T* d = std::get_if<T>(&decision)) out.push_back(*d);
  }
  return out;
}

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

// ---- Random worlds ----

class RandomWorld {
 public:
  explicit RandomWorld(uint64_t seed) : random_(seed) {}

  Snapshot Make() {
    Snapshot world;
    world.bases = {{{"B"}, {"b", 100}}, {{"C"}, {"c", 1000}}};
    const int workers = Int(0, 6);
    for (int i = 0; i < workers; ++i) {
      WorkerView worker = NewWorker(absl::StrCat("w", i), Int(0, 4), {});
      if (Int(0, 3) > 0) worker.bases.insert({"B"});
      if (Int(0, 1) > 0) worker.bases.insert({"C"});
      if (Int(0, 4) == 0) worker.build = "build-2";
      for (DeviceView& device : worker.devices) {
        if (Int(0, 4) == 0) device.numerics_class = "class-2";
        device.memory_bytes = Int(0, 2) * 400;
      }
      worker.connected = Int(0, 5) > 0;
      worker.lost = !worker.connected && Int(0, 1) == 0;
      worker.draining = Int(0, 7) == 0;
      world.workers.push_back(worker);
    }
    MakeGroups(world);
    const int queued = Int(0, 6);
    for (int i = 0; i < queued; ++i) world.jobs.push_back(MakeJob(absl::StrCat("q", i)));
    return world;
  }

 private:
  int Int(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }

  JobView MakeJob(const std::string& id) {
    JobView job = NewJob(id, 0, Int(0, 2) > 0 ? "B" : "C");
    switch (Int(0, 2)) {
      case 0:
        job.min_devices = job.max_devices = Int(1, 5);
        break;
      case 1:
        job.min_devices = Int(1, 3);
        job.max_devices = job.min_devices + Int(0, 4);
        break;
      default:
        break;
    }
    job.shards = Int(0, 3) == 0 ? Int(1, 3) : 0;
    if (Int(0, 5) == 0) job.numerics_class = "class-2";
    const v1::DesiredState desired[] = {v1::RUN, v1::RUN, v1::RUN, v1::RUN, v1::PAUSE, v1::CANCEL};
    job.desired = desired[Int(0, 5)];
    if (Int(0, 5) == 0) job.state = v1::PAUSED;
    job.fruitless_attempts = Int(0, 2);
    return job;
  }

  void MakeGroups(Snapshot& world) {
    int number = 0;
    for (const WorkerView& worker : world.workers) {
      std::vector<int> same;
      for (const DeviceView& device : worker.devices) {
        if (device.numerics_class == "class-1") same.push_back(device.index);
      }
      if (same.empty() || Int(0, 1) == 0) continue;
      same.resize(static_cast<size_t>(Int(1, static_cast<int>(same.size()))));
      const std::string id = absl::StrCat("g", number++);
      GroupView group = NewGroup(id, worker, same);
      group.record.build = worker.build;
      group.record.base.value = Int(0, 1) == 0 ? "B" : "C";
      group.rank_lost = Int(0, 3) == 0;
      if (Int(0, 8) == 0) group.record.members[0].incarnation = "old";
      if (Int(0, 2) > 0) {
        JobView job = MakeJob("r" + id);
        const v1::JobState states[] = {v1::STARTING, v1::RUNNING,    v1::RUNNING,
                                       v1::PAUSING,  v1::PREEMPTING, v1::CANCELLING};
        job.state = states[Int(0, 5)];
        job.base = group.record.base;
        job.group = group.record.id;
        job.shards = 0;
        job.min_devices = std::min(job.min_devices, static_cast<int>(same.size()));
        job.max_devices = std::max(job.max_devices, static_cast<int>(same.size()));
        job.numerics_class = "class-1";
        job.attempt_reported = Int(0, 1) == 0;
        group.record.job = job.id;
        world.jobs.push_back(job);
      }
      world.groups.push_back(group);
    }
  }

  std::mt19937_64 random_;
};

// Checks everything that must hold of the decisions for one world.
class Checker {
 public:
  Checker(const Snapshot& world, const std::vector<Decision>& decisions)
      : world_(world), decisions_(decisions) {}

  void Check() {
    for (const GroupView& g : world_.groups) groups_[g.record.id] = g.record.members;
    for (const JobView& j : world_.jobs) jobs_[j.id] = &j;
    for (const Decision& d : decisions_) std::visit([this](const auto& x) { Apply(x); }, d);
    NoDeviceTwice();
    EachQueuedJobIsAnswered();
    FirstComeFirstServed();
  }

 private:
  void Once(const JobId& job) {
    EXPECT_TRUE(decided_.insert(job).second) << job.value << " decided twice";
  }

  void Apply(const MoveJob& d) {
    Once(d.job);
    v1::JobState state = jobs_.at(d.job)->state;
    for (const v1::JobState next : d.path) {
      EXPECT_TRUE(CanMove(state, next)) << StateName(state) << " " << StateName(next);
      state = next;
    }
  }
  void Apply(const StartJob& d) {
    Once(d.job);
    const JobView& job = *jobs_.at(d.job);
    EXPECT_EQ(job.state, v1::QUEUED);
    EXPECT_EQ(job.desired, v1::RUN);
    std::vector<GroupMemberRecord> members = d.plan.members;
    if (d.warm_group.empty()) {
      CheckPlan(job, d.plan);
      groups_[{absl::StrCat("new-", d.job.value)}] = members;
    } else {
      ASSERT_TRUE(groups_.contains(d.warm_group)) << "a group that was dissolved";
      members = groups_.at(d.warm_group);
      EXPECT_TRUE(warm_.insert(d.warm_group).second) << "one group for two jobs";
    }
    EXPECT_GE(members.size(), static_cast<size_t>(job.min_devices));
    EXPECT_LE(members.size(), static_cast<size_t>(job.max_devices));
    for (const GroupMemberRecord& m : members) {
      started_[d.job].insert({m.worker, m.device});
    }
  }
  void Apply(const ReformGroup& d) {
    Once(d.job);
    const JobView& job = *jobs_.at(d.job);
    EXPECT_TRUE(job.state == v1::STARTING || job.state == v1::RUNNING);
    CheckPlan(job, d.plan);
    groups_[d.group] = d.plan.members;
  }
  void Apply(const FailJob& d) {
    Once(d.job);
    EXPECT_TRUE(CanMove(jobs_.at(d.job)->state, v1::FAILED));
  }
  void Apply(const DissolveGroup& d) {
    EXPECT_EQ(groups_.erase(d.group), 1u) << d.group.value << " dissolved twice";
  }
  void Apply(const WaitJob& d) {
    Once(d.job);
    EXPECT_EQ(d.waiting.position(), ++position_);
    EXPECT_FALSE(d.waiting.reason().empty());
    waiting_.push_back(d.job);
  }

  void CheckPlan(const JobView& job, const GroupPlan& plan) {
    ASSERT_FALSE(plan.members.empty());
    EXPECT_GE(plan.members.size(), static_cast<size_t>(job.min_devices));
    EXPECT_EQ(plan.members.size() % static_cast<size_t>(plan.shards), 0u);
    if (job.shards > 0) {
      EXPECT_EQ(plan.shards, job.shards);
    }
    if (!job.numerics_class.empty()) {
      EXPECT_EQ(plan.numerics_class, job.numerics_class);
    }
    for (const GroupMemberRecord& m : plan.members) {
      const auto worker = std::find_if(world_.workers.begin(), world_.workers.end(),
                                       [&](const WorkerView& w) { return w.id == m.worker; });
      ASSERT_NE(worker, world_.workers.end());
      EXPECT_TRUE(worker->connected && !worker->lost && !worker->draining);
      EXPECT_TRUE(worker->bases.contains(plan.base));
      EXPECT_EQ(worker->build, plan.build);
      EXPECT_EQ(worker->incarnation, m.incarnation);
      const auto device = std::find_if(worker->devices.begin(), worker->devices.end(),
                                       [&](const DeviceView& d) { return d.index == m.device; });
      ASSERT_NE(device, worker->devices.end());
      EXPECT_EQ(device->numerics_class, plan.numerics_class);
    }
  }

  void NoDeviceTwice() {
    std::set<DeviceKey> held;
    for (const auto& [id, members] : groups_) {
      for (const GroupMemberRecord& m : members) {
        EXPECT_TRUE(held.insert({m.worker, m.device}).second)
            << m.worker.value << "/" << m.device << " is given twice";
      }
    }
  }

  void EachQueuedJobIsAnswered() {
    for (const JobView& job : world_.jobs) {
      if (job.state != v1::QUEUED) continue;
      EXPECT_TRUE(decided_.contains(job.id)) << job.id.value;
    }
  }

  // A later job never gets a device that an earlier, waiting job could use.
  void FirstComeFirstServed() {
    const DeviceTable table(world_);
    for (const JobId& id : waiting_) {
      const JobView& job = *jobs_.at(id);
      const int multiple = std::max(1, job.shards);
      const auto least =
          static_cast<size_t>((job.min_devices + multiple - 1) / multiple * multiple);
      bool later = false;
      for (const JobView& other : world_.jobs) {
        if (other.id == id) later = true;
        if (!later || !started_.contains(other.id)) continue;
        for (const auto& [pool, devices] : table.Eligible(job.base, job.numerics_class)) {
          if (devices.size() < least) continue;
          for (const PoolDevice& device : devices) {
            EXPECT_FALSE(started_.at(other.id).contains(device.key))
                << other.id.value << " overtook " << id.value;
          }
        }
      }
    }
  }

  const Snapshot& world_;
  const std::vector<Decision>& decisions_;
  std::map<GroupId, std::vector<GroupMemberRecord>> groups_;
  std::map<JobId, const JobView*> jobs_;
  std::set<JobId> decided_;
  std::set<GroupId> warm_;
  std::map<JobId, std::set<DeviceKey>> started_;
  std::vector<JobId> waiting_;
  int position_ = 0;
};

TEST(SchedulePropertyTest, HoldsForRandomWorlds) {
  for (uint64_t seed = 1; seed <= 20'000; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    const Snapshot world = RandomWorld(seed).Make();
    const std::vector<Decision> decisions = Schedule(world, kNow);
    Checker(world, decisions).Check();
    if (::testing::Test::HasFailure()) return;
  }
}

}  // namespace
}  // namespace tundra::coordinator
