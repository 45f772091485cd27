// What should happen next, as a pure function of what is: no clock, no store, no
// network, so that tests and simulations can ask it anything.
//
// Rules. Jobs are served in the order of their creation (a preempted job keeps
// its place). A job gets one whole group for itself: all ranks or none, of one
// numerics class and one build, from workers that hold its base. A job that
// waits for devices keeps them from later jobs; a job that no connected worker
// could ever serve does not, nor does one that waits for its tenant's quota. An idle group with the
// job's base is taken first; idle groups of other bases are dissolved when their devices are
// needed, by a job or by a prompt. A group that lost a rank or a worker is formed anew with the
// devices it still has, replaced where they are gone, and its job goes on as the next attempt.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "coordinator/store/records.h"

namespace tundra::coordinator {

// ---- What is. ----

struct DeviceView {
  int32_t index = 0;
  std::string numerics_class;
  // 0 when unknown.
  int64_t memory_bytes = 0;
};

struct WorkerView {
  WorkerId id;
  std::string build;
  std::string incarnation;
  // Has a session that is alive.
  bool connected = false;
  // Has been away for longer than its lease.
  bool lost = false;
  // Wants no new work.
  bool draining = false;
  // Has a prompt to answer, and all its devices are in groups that can't.
  bool prompt_waits = false;
  std::vector<DeviceView> devices;
  std::set<BaseHash> bases;
};

struct GroupView {
  GroupRecord record;
  // A rank of the present epoch is out of the group.
  bool rank_lost = false;
  std::string error;
  // Set when the job itself is at fault.
  v1::FailureCode failure_code = v1::FAILURE_CODE_UNSPECIFIED;
};

struct JobView {
  JobId id;
  TenantId tenant{};
  v1::JobState state = v1::QUEUED;
  v1::DesiredState desired = v1::RUN;
  BaseHash base;
  v1::Precision precision = v1::F32;
  // Bounds on the size of its group.
  int32_t min_devices = 1;
  int32_t max_devices = INT32_MAX;
  // 0 for auto.
  int32_t shards = 0;
  // Empty until its first start.
  std::string numerics_class;
  GroupId group;
  int64_t step = 0;
  int64_t attempt_start_step = 0;
  int32_t fruitless_attempts = 0;
  // A worker has reported on the present attempt, or might have unseen.
  bool attempt_reported = false;
  // How long it has been in its state, by the monotonic clock.
  absl::Duration state_age;
  std::optional<absl::Duration> time_left;
};

struct BaseView {
  std::string display_name;
  int64_t size_bytes = 0;
};

struct Snapshot {
  // Jobs that have not ended, oldest first.
  std::vector<JobView> jobs;
  std::vector<GroupView> groups;
  std::vector<WorkerView> workers;
  std::map<BaseHash, BaseView> bases;
  // Most devices that the jobs of a tenant may hold; tenants without a bound are not in it.
  std::map<TenantId, int32_t> device_quotas{};
};

// ---- What to do. ----

struct GroupPlan {
  BaseHash base;
  v1::Precision precision = v1::F32;
  std::string numerics_class;
  std::string build;
  int32_t shards = 1;
  std::vector<GroupMemberRecord> members;
};

// Moves a job through states. The group becomes idle when it leaves it.
struct MoveJob {
  JobId job;
  std::vector<v1::JobState> path;
  std::string message;
  bool warning = false;
  // The attempt ended by a loss: counts towards NO_PROGRESS.
  bool lost_attempt = false;
};

// Gives a queued job devices.
struct StartJob {
  JobId job;
  // An idle group to take as it is; empty to form `plan`.
  GroupId warm_group;
  GroupPlan plan;
};

// Next epoch of a group, next attempt of its job.
struct ReformGroup {
  GroupId group;
  JobId job;
  GroupPlan plan;
  std::string reason;
};

struct FailJob {
  JobId job;
  v1::FailureCode code = v1::INTERNAL;
  std::string message;
};

// Ends an idle group, or one whose job a decision before took out of it.
struct DissolveGroup {
  GroupId group;
  std::string reason;
};

struct WaitJob {
  JobId job;
  v1::Waiting waiting;
};

using Decision = std::variant<MoveJob, StartJob, ReformGroup, FailJob, DissolveGroup, WaitJob>;

// Attempts in a row without a new step after which a job fails.
inline constexpr int kMaxFruitlessAttempts = 3;
// How long ranks may take to stop for a cancellation before they are killed.
inline constexpr absl::Duration kCancelGrace = absl::Seconds(60);

// Decisions in the order in which to apply them.
std::vector<Decision> Schedule(const Snapshot& snapshot, absl::Time now);

}  // namespace tundra::coordinator
