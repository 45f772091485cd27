#include "coordinator/scheduler/schedule.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "coordinator/scheduler/devices.h"
#include "coordinator/scheduler/queue.h"
#include "coordinator/store/job_state.h"

namespace tundra::coordinator {
namespace {

// What is wrong with a group, if anything.
struct Trouble {
  bool any = false;
  // A member is neither there nor lost yet: wait before deciding.
  bool undecided = false;
  std::string reason;
};

Trouble TroubleOf(const GroupView& group, const DeviceTable& devices) {
  Trouble trouble;
  const auto note = [&](const std::string& reason) {
    if (!trouble.any) trouble.reason = reason;
    trouble.any = true;
  };
  for (const GroupMemberRecord& member : group.record.members) {
    const WorkerView* const worker = devices.Worker(member.worker);
    if (worker == nullptr || worker->lost) {
      note(absl::StrCat("worker ", member.worker.value, " is lost"));
    } else if (!worker->connected) {
      trouble.undecided = true;
    } else if (worker->incarnation != member.incarnation) {
      note(absl::StrCat("worker ", member.worker.value, " restarted"));
    } else if (devices.Device({member.worker, member.device}) == nullptr) {
      note(absl::StrCat("worker ", member.worker.value, " lost device ", member.device));
    }
  }
  if (group.rank_lost) {
    note(group.error.empty() ? "a rank was lost" : absl::StrCat("a rank was lost: ", group.error));
  }
  return trouble;
}

bool AnyDraining(const GroupView& group, const DeviceTable& devices) {
  for (const GroupMemberRecord& member : group.record.members) {
    const WorkerView* const worker = devices.Worker(member.worker);
    if (worker != nullptr && worker->draining) return true;
  }
  return false;
}

// Devices for the next epoch of a group, in rank order: those that are left keep their places,
// since their workers hold the slices of these, and free ones of the same pool take the places of
// those that are gone. Where too few are free the rest moves up. Empty when the job's bounds
// cannot be met.
std::vector<GroupMemberRecord> NextMembers(const GroupView& group, const JobView& job,
                                           DeviceTable& devices) {
  std::map<DeviceKey, GroupMemberRecord> left;
  std::vector<PoolDevice> spare;
  const auto pools = devices.Eligible(group.record.base, group.record.numerics_class);
  const auto pool = pools.find({group.record.numerics_class, group.record.build});
  if (pool == pools.end()) return {};
  for (const PoolDevice& device : pool->second) {
    const bool member = std::any_of(group.record.members.begin(), group.record.members.end(),
                                    [&](const GroupMemberRecord& m) {
                                      return DeviceKey{m.worker, m.device} == device.key;
                                    });
    if (member) {
      left[device.key] = {device.key.first, device.key.second, device.incarnation};
    } else if (devices.IsFree(device.key) && device.idle_group.empty()) {
      spare.push_back(device);
    }
  }
  const size_t wanted = group.record.members.size();
  const std::vector<PoolDevice> picked =
      wanted > left.size() ? PickDevices(spare, wanted - left.size()) : std::vector<PoolDevice>();
  auto next = picked.begin();
  std::vector<GroupMemberRecord> members;
  for (const GroupMemberRecord& member : group.record.members) {
    const auto kept = left.find({member.worker, member.device});
    if (kept != left.end()) {
      members.push_back(kept->second);
    } else if (next != picked.end()) {
      members.push_back({next->key.first, next->key.second, next->incarnation});
      ++next;
    }
  }
  const size_t multiple = static_cast<size_t>(std::max(1, job.shards));
  members.resize(members.size() / multiple * multiple);
  if (members.size() < static_cast<size_t>(job.min_devices)) return {};
  for (const GroupMemberRecord& member : members) devices.Take({member.worker, member.device});
  return members;
}

int64_t SmallestMemory(const std::vector<GroupMemberRecord>& members, const DeviceTable& devices) {
  int64_t smallest = INT64_MAX;
  for (const GroupMemberRecord& member : members) {
    const DeviceView* const device = devices.Device({member.worker, member.device});
    if (device != nullptr) smallest = std::min(smallest, device->memory_bytes);
  }
  return smallest == INT64_MAX ? 0 : smallest;
}

// What becomes of a job that gives up its group for good.
std::vector<v1::JobState> PathOut(v1::JobState state) {
  switch (state) {
    case v1::PAUSING:
      return {v1::PAUSED};
    case v1::CANCELLING:
      return {v1::CANCELLED};
    case v1::PREEMPTING:
      return {v1::QUEUED};
    default:
      return {v1::PREEMPTING, v1::QUEUED};
  }
}

class Scheduler {
 public:
  explicit Scheduler(const Snapshot& snapshot) : snapshot_(snapshot), devices_(snapshot) {}

  std::vector<Decision> Run() {
    std::map<GroupId, const JobView*> jobs;
    for (const JobView& job : snapshot_.jobs) {
      if (!job.group.empty()) jobs[job.group] = &job;
    }
    for (const GroupView& group : snapshot_.groups) {
      const auto job = jobs.find(group.record.id);
      if (job == jobs.end()) {
        IdleGroup(group);
      } else {
        PlacedJob(*job->second, group);
      }
    }
    for (const JobView& job : snapshot_.jobs) UnplacedJob(job);
    PlaceQueue(snapshot_, dissolved_, devices_, decisions_);
    return std::move(decisions_);
  }

 private:
  void Dissolve(const GroupView& group, const std::string& reason) {
    decisions_.push_back(DissolveGroup{group.record.id, reason});
    dissolved_.insert(group.record.id);
    // Its ranks may still run: the devices are given out at the next look.
    for (const GroupMemberRecord& member : group.record.members) {
      devices_.Take({member.worker, member.device});
    }
  }

  void IdleGroup(const GroupView& group) {
    const Trouble trouble = TroubleOf(group, devices_);
    if (trouble.any) {
      Dissolve(group, trouble.reason);
    } else if (AnyDraining(group, devices_)) {
      Dissolve(group, "a worker drains");
    } else if (APromptWaits(group)) {
      Dissolve(group, "its devices answer a prompt to another base");
    }
  }

  bool APromptWaits(const GroupView& group) const {
    return std::any_of(
        snapshot_.workers.begin(), snapshot_.workers.end(), [&](const WorkerView& worker) {
          return worker.prompt_waits &&
                 std::any_of(group.record.members.begin(), group.record.members.end(),
                             [&](const auto& member) { return member.worker == worker.id; });
        });
  }

  void PlacedJob(const JobView& job, const GroupView& group) {
    const Trouble trouble = TroubleOf(group, devices_);
    if (trouble.any) {
      TroubledJob(job, group, trouble);
      return;
    }
    const bool active = job.state == v1::STARTING || job.state == v1::RUNNING;
    if (job.desired == v1::CANCEL && job.state != v1::CANCELLING) {
      Stop(job, group, v1::CANCELLING, "Cancelled by the user");
    } else if (job.desired == v1::PAUSE && active) {
      Stop(job, group, v1::PAUSING, "Paused by the user");
    } else if (active && AnyDraining(group, devices_)) {
      Stop(job, group, v1::PREEMPTING, "A worker drains: saves its state and makes room");
    } else if (job.state == v1::CANCELLING && job.state_age > kCancelGrace) {
      decisions_.push_back(MoveJob{job.id,
                                   {v1::CANCELLED},
                                   "Cancelled: its ranks were killed",
                                   /*warning=*/true});
      Dissolve(group, "its ranks did not stop in time");
    }
  }

  // Asks the ranks to stop; where no worker has begun the attempt yet there is
  // nothing to save, and the group is simply ended.
  void Stop(const JobView& job, const GroupView& group, v1::JobState through,
            const std::string& message) {
    std::vector<v1::JobState> path = {through};
    if (!job.attempt_reported) {
      for (const v1::JobState state : PathOut(through)) path.push_back(state);
    }
    decisions_.push_back(MoveJob{job.id, path, message});
    if (!job.attempt_reported) Dissolve(group, "its job was stopped before it began");
  }

  void TroubledJob(const JobView& job, const GroupView& group, const Trouble& trouble) {
    if (job.state != v1::STARTING && job.state != v1::RUNNING) {
      decisions_.push_back(MoveJob{job.id, PathOut(job.state),
                                   absl::StrCat("Stopped at its last checkpoint: ", trouble.reason),
                                   /*warning=*/true});
      Dissolve(group, trouble.reason);
      return;
    }
    if (job.desired == v1::CANCEL || job.desired == v1::PAUSE) {
      // No use in forming a group only to stop it.
      const v1::JobState through = job.desired == v1::CANCEL ? v1::CANCELLING : v1::PAUSING;
      std::vector<v1::JobState> path = PathOut(through);
      path.insert(path.begin(), through);
      decisions_.push_back(
          MoveJob{job.id, path, absl::StrCat("Stopped at its last checkpoint: ", trouble.reason)});
      Dissolve(group, trouble.reason);
      return;
    }
    if (group.failure_code != v1::FAILURE_CODE_UNSPECIFIED) {
      decisions_.push_back(FailJob{job.id, group.failure_code, group.error});
      Dissolve(group, trouble.reason);
      return;
    }
    const int fruitless = job.step > job.attempt_start_step ? 0 : job.fruitless_attempts + 1;
    if (fruitless >= kMaxFruitlessAttempts) {
      decisions_.push_back(FailJob{
          job.id, v1::NO_PROGRESS,
          absl::StrCat(fruitless, " attempts in a row ended without a new step; the last: ",
                       trouble.reason, ". Look at the workers' logs, then submit it again")});
      Dissolve(group, trouble.reason);
      return;
    }
    if (trouble.undecided) return;
    Reform(job, group, trouble);
  }

  void Reform(const JobView& job, const GroupView& group, const Trouble& trouble) {
    GroupPlan plan;
    plan.members = NextMembers(group, job, devices_);
    if (plan.members.empty()) {
      decisions_.push_back(MoveJob{
          job.id, PathOut(job.state),
          absl::StrCat("Back in the queue: ", trouble.reason, ", and too few devices are left"),
          /*warning=*/true, /*lost_attempt=*/true});
      Dissolve(group, trouble.reason);
      return;
    }
    plan.base = group.record.base;
    plan.precision = group.record.precision;
    plan.numerics_class = group.record.numerics_class;
    plan.build = group.record.build;
    const auto base = snapshot_.bases.find(plan.base);
    plan.shards = ChooseShards(job.shards, static_cast<int32_t>(plan.members.size()),
                               base == snapshot_.bases.end() ? 0 : base->second.size_bytes,
                               SmallestMemory(plan.members, devices_));
    // Another number of members or slices is another layout; else everyone keeps the own slice.
    if (plan.members.size() != group.record.members.size() || plan.shards != group.record.shards) {
      std::sort(plan.members.begin(), plan.members.end(), [](const auto& a, const auto& b) {
        return DeviceKey{a.worker, a.device} < DeviceKey{b.worker, b.device};
      });
      plan.members = OrderForShards(plan.members, plan.shards);
    }
    decisions_.push_back(ReformGroup{group.record.id, job.id, std::move(plan), trouble.reason});
  }

  void UnplacedJob(const JobView& job) {
    if (job.state == v1::QUEUED && job.desired == v1::PAUSE) {
      decisions_.push_back(MoveJob{job.id, {v1::PAUSED}, "Paused by the user"});
    } else if ((job.state == v1::QUEUED || job.state == v1::PAUSED) && job.desired == v1::CANCEL) {
      decisions_.push_back(MoveJob{job.id, {v1::CANCELLED}, "Cancelled by the user"});
    } else if (job.state == v1::PAUSED && job.desired == v1::RUN) {
      decisions_.push_back(MoveJob{job.id, {v1::QUEUED}, "Resumed by the user"});
    }
  }

  const Snapshot& snapshot_;
  DeviceTable devices_;
  std::set<GroupId> dissolved_;
  std::vector<Decision> decisions_;
};

}  // namespace

std::vector<Decision> Schedule(const Snapshot& snapshot, absl::Time /*now*/) {
  return Scheduler(snapshot).Run();
}

}  // namespace tundra::coordinator
