#include "coordinator/workers/controller.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/logging.h"
#include "common/status.h"
#include "coordinator/scheduler/schedule.h"
#include "coordinator/store/job_state.h"
#include "coordinator/workers/apply.h"

namespace tundra::coordinator {
namespace {

constexpr absl::Duration kSpacing = absl::Milliseconds(10);

// One line for the log.
struct Describe {
  std::string operator()(const MoveJob& d) const {
    return absl::StrCat(d.job.value, " -> ", StateName(d.path.back()), ": ", d.message);
  }
  std::string operator()(const StartJob& d) const {
    if (!d.warm_group.empty()) {
      return absl::StrCat(d.job.value, " starts in group ", d.warm_group.value);
    }
    return absl::StrCat(d.job.value, " starts on ", d.plan.members.size(), " devices in ",
                        d.plan.shards, " shards");
  }
  std::string operator()(const ReformGroup& d) const {
    return absl::StrCat(d.job.value, " goes on in the next epoch of ", d.group.value, ", ",
                        d.plan.members.size(), " devices: ", d.reason);
  }
  std::string operator()(const FailJob& d) const {
    return absl::StrCat(d.job.value, " failed: ", d.message);
  }
  std::string operator()(const DissolveGroup& d) const {
    return absl::StrCat(d.group.value, " is dissolved: ", d.reason);
  }
  std::string operator()(const WaitJob& d) const { return d.job.value; }
};

v1::DesiredState WantedOf(v1::JobState state) {
  switch (state) {
    case v1::CANCELLING:
      return v1::CANCEL;
    case v1::PAUSING:
    case v1::PREEMPTING:
      return v1::PAUSE;
    default:
      return v1::RUN;
  }
}

absl::Status FillBlob(ReadTxn& txn, const std::string& name, v1::BlobRef& ref) {
  const absl::string_view id = absl::StripPrefix(name, "datasets/");
  ASSIGN_OR_RETURN(const DatasetRecord dataset, txn.GetDataset({std::string(id)}));
  ref.set_sha256(dataset.dataset.sha256());
  ref.set_size_bytes(dataset.dataset.size_bytes());
  ref.set_display_name(dataset.dataset.display_name());
  return absl::OkStatus();
}

absl::StatusOr<v1::JobAssignment> AssignmentOf(ReadTxn& txn, const GroupRecord& group,
                                               const JobRecord& record) {
  const v1::Job& job = record.job;
  v1::JobAssignment out;
  out.set_job_id(record.id.value);
  out.set_attempt(job.attempt());
  out.set_display_name(job.display_name());
  *out.mutable_spec() = job.spec();
  RETURN_IF_ERROR(FillBlob(txn, job.spec().dataset().train(), *out.mutable_train()));
  if (!job.spec().dataset().validation().empty()) {
    RETURN_IF_ERROR(FillBlob(txn, job.spec().dataset().validation(), *out.mutable_validation()));
  }
  // The attempt keeps its start although newer checkpoints come.
  if (group.resume_step >= 0) {
    const absl::StatusOr<CheckpointRecord> start = txn.GetCheckpoint(record, group.resume_step);
    if (start.ok()) {
      const v1::Checkpoint& c = start->checkpoint;
      v1::CheckpointReport* const resume = out.mutable_resume();
      resume->set_step(c.step());
      resume->set_sha256(c.sha256());
      resume->set_size_bytes(c.size_bytes());
      *resume->mutable_adapter_files() = c.adapter().files();
      resume->set_final(start->final);
    } else if (!absl::IsNotFound(start.status())) {
      return start.status();
    }
  }
  out.set_desired(WantedOf(job.state()));
  out.set_numerics_class(job.numerics_class());
  return out;
}

}  // namespace

void FillFromSpec(const v1::JobSpec& spec, JobView& view) {
  view.precision = spec.training().precision();
  view.shards = spec.resources().shards();
  switch (spec.resources().devices_case()) {
    case v1::ResourcesSpec::kDeviceCount:
      view.min_devices = view.max_devices = spec.resources().device_count();
      break;
    case v1::ResourcesSpec::kDeviceRange:
      view.min_devices = spec.resources().device_range().min();
      view.max_devices = spec.resources().device_range().max();
      break;
    case v1::ResourcesSpec::DEVICES_NOT_SET:
      break;
  }
}

Controller::Controller(Store* store, Fleet* fleet, Hub* hub, Clock* clock,
                       ControllerOptions options)
    : store_(store), fleet_(fleet), hub_(hub), clock_(clock), options_(std::move(options)) {}

Controller::~Controller() { Stop(); }

absl::Status Controller::Start() {
  RETURN_IF_ERROR(Tick().status());
  thread_ = std::thread([this] { Loop(); });
  return absl::OkStatus();
}

void Controller::Stop() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

void Controller::Kick() {
  absl::MutexLock lock(&mu_);
  kicked_ = true;
}

std::optional<v1::Waiting> Controller::WaitingOf(const JobId& job) {
  absl::MutexLock lock(&mu_);
  const auto it = waiting_.find(job);
  if (it == waiting_.end()) return std::nullopt;
  return it->second;
}

void Controller::Loop() {
  for (;;) {
    {
      absl::MutexLock lock(&mu_);
      mu_.AwaitWithTimeout(absl::Condition(this, &Controller::IsKicked), options_.interval);
      if (stopping_) return;
      kicked_ = false;
    }
    const absl::StatusOr<bool> again = Tick();
    if (!again.ok()) {
      LogError("scheduling: {}", std::string(again.status().message()));
    } else if (*again) {
      Kick();
    }
    // Gathers the kicks of a burst, and bounds the load whatever happens.
    absl::MutexLock lock(&mu_);
    mu_.AwaitWithTimeout(absl::Condition(&stopping_), kSpacing);
  }
}

JobView Controller::View(const JobRecord& record, const std::map<GroupId, GroupRecord>& groups) {
  JobView view;
  view.id = record.id;
  view.tenant = record.tenant;
  view.state = record.job.state();
  view.desired = record.job.desired_state();
  view.base.value = record.job.base_hash();
  FillFromSpec(record.job.spec(), view);
  view.numerics_class = record.job.numerics_class();
  view.group = record.group;
  view.step = record.job.step();
  view.attempt_start_step = record.attempt_start_step;
  view.fruitless_attempts = record.fruitless_attempts;
  const auto group = groups.find(record.group);
  if (group != groups.end() && !group->second.members.empty()) {
    view.attempt_reported =
        fleet_->AttemptReported(group->second.members[0].worker, record.id, record.job.attempt());
  }
  if (record.job.has_time_left()) {
    view.time_left = absl::Seconds(record.job.time_left().seconds());
  }
  auto& [state, since] = since_[record.id];
  if (state != view.state) {
    state = view.state;
    since = clock_->Monotonic();
  }
  view.state_age = clock_->Monotonic() - since;
  return view;
}

absl::StatusOr<Snapshot> Controller::Look() {
  Snapshot snapshot;
  snapshot.workers = fleet_->Workers();
  RETURN_IF_ERROR(store_->Read([&](ReadTxn& txn) -> absl::Status {
    ASSIGN_OR_RETURN(const std::vector<TenantRecord> tenants, txn.ListTenants());
    for (const TenantRecord& tenant : tenants) {
      if (tenant.quota.has_devices()) {
        snapshot.device_quotas[tenant.id] = tenant.quota.devices();
      }
    }
    ASSIGN_OR_RETURN(const std::vector<GroupRecord> groups, txn.ListGroups());
    std::map<GroupId, GroupRecord> by_id;
    for (const GroupRecord& group : groups) {
      by_id[group.id] = group;
      snapshot.groups.push_back(fleet_->View(group));
    }
    ASSIGN_OR_RETURN(const std::vector<JobRecord> jobs, txn.ListActiveJobs());
    for (const JobRecord& job : jobs) snapshot.jobs.push_back(View(job, by_id));
    ASSIGN_OR_RETURN(const std::vector<BaseRecord> bases, txn.ListBases());
    for (const BaseRecord& base : bases) {
      snapshot.bases[base.hash] = {base.info.base().display_name(), base.info.base().size_bytes()};
    }
    return absl::OkStatus();
  }));
  std::set<JobId> active;
  for (const JobView& job : snapshot.jobs) active.insert(job.id);
  std::erase_if(since_, [&](const auto& entry) { return !active.contains(entry.first); });
  return snapshot;
}

absl::StatusOr<bool> Controller::Tick() {
  // Before the first look the fleet must know of the groups that are in the
  // store: their workers have a lease to come back, and are not lost.
  if (!published_) RETURN_IF_ERROR(Publish());
  ASSIGN_OR_RETURN(const Snapshot snapshot, Look());
  const absl::Time now = clock_->Now();
  bool again = false;
  std::map<JobId, v1::Waiting> waiting;
  for (const Decision& decision : Schedule(snapshot, now)) {
    if (const auto* const wait = std::get_if<WaitJob>(&decision)) {
      waiting[wait->job] = wait->waiting;
      continue;
    }
    JobId changed;
    const absl::Status status = store_->Write([&](Txn& txn) -> absl::Status {
      ASSIGN_OR_RETURN(changed, ApplyDecision(txn, decision, now));
      return absl::OkStatus();
    });
    again = true;
    if (absl::IsAborted(status) || absl::IsFailedPrecondition(status) || absl::IsNotFound(status)) {
      // Later decisions that need this one are refused by their own checks.
      LogDebug("scheduling: looks again: {}", std::string(status.message()));
      continue;
    }
    RETURN_IF_ERROR(status);
    LogInfo("{}", std::visit(Describe{}, decision));
    options_.on_decision(decision);
    if (!changed.empty()) hub_->Notify(changed);
  }
  {
    absl::MutexLock lock(&mu_);
    waiting_ = std::move(waiting);
  }
  RETURN_IF_ERROR(Publish());
  return again;
}

absl::Status Controller::Publish() {
  std::vector<PlannedGroup> plan;
  std::vector<HeldDevices> held;
  RETURN_IF_ERROR(store_->Read([&](ReadTxn& txn) -> absl::Status {
    ASSIGN_OR_RETURN(const std::vector<GroupRecord> groups, txn.ListGroups());
    for (const GroupRecord& group : groups) {
      PlannedGroup& planned = plan.emplace_back();
      planned.record = group;
      if (group.job.empty()) continue;
      ASSIGN_OR_RETURN(const JobRecord job, txn.GetJob(group.job));
      ASSIGN_OR_RETURN(planned.job, AssignmentOf(txn, group, job));
      held.push_back({job.id, job.tenant.value, static_cast<int>(group.members.size())});
    }
    return absl::OkStatus();
  }));
  options_.on_plan(held);
  fleet_->SetPlan(std::move(plan));
  published_ = true;
  return absl::OkStatus();
}

}  // namespace tundra::coordinator
