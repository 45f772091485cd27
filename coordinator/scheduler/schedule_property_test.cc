// What must hold of the decisions for any world, over random ones.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "absl/strings/str_cat.h"
#include "coordinator/scheduler/devices.h"
#include "coordinator/scheduler/schedule_test_util.h"
#include "coordinator/store/job_state.h"

namespace tundra::coordinator {
namespace {

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
    for (int t = 0; t < 2; ++t) {
      if (Int(0, 1) == 0) world.device_quotas[{absl::StrCat("t", t)}] = Int(1, 6);
    }
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
    job.tenant.value = absl::StrCat("t", Int(0, 2));
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
    QuotasAreKept();
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
    // Who waits for the quota keeps nobody from anything.
    if (d.waiting.reason().find("that it may") == std::string::npos) waiting_.push_back(d.job);
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

  // Nobody is given devices beyond the quota; who is over it already only keeps what is held.
  void QuotasAreKept() {
    std::map<TenantId, int32_t> held, started;
    for (const GroupView& group : world_.groups) {
      const auto job = jobs_.find(group.record.job);
      if (job == jobs_.end()) continue;
      held[job->second->tenant] += static_cast<int32_t>(group.record.members.size());
    }
    for (const auto& [id, devices] : started_) {
      started[jobs_.at(id)->tenant] += static_cast<int32_t>(devices.size());
    }
    for (const auto& [tenant, devices] : started) {
      const auto quota = world_.device_quotas.find(tenant);
      if (quota == world_.device_quotas.end()) continue;
      EXPECT_LE(held[tenant] + devices, quota->second) << tenant.value;
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
