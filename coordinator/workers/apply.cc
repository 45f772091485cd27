#include "coordinator/workers/apply.h"

#include "absl/strings/str_cat.h"
#include "common/status.h"
#include "coordinator/store/job_state.h"

namespace tundra::coordinator {
namespace {

// The message of the moves after the first of a path.
std::string Arrival(v1::JobState state) {
  switch (state) {
    case v1::QUEUED:
      return "In the queue again";
    case v1::PAUSED:
      return "Paused";
    case v1::CANCELLED:
      return "Cancelled";
    default:
      return StateName(state);
  }
}

void CountLostAttempt(JobRecord& record) {
  record.fruitless_attempts =
      record.job.step() > record.attempt_start_step ? 0 : record.fruitless_attempts + 1;
}

// Opens the next attempt of the job in a group.
absl::Status BeginAttempt(Txn& txn, JobDraft& draft, GroupRecord& group) {
  JobRecord& record = draft.record();
  record.job.set_attempt(record.job.attempt() + 1);
  record.attempt_start_step = record.job.step();
  if (record.job.numerics_class().empty()) record.job.set_numerics_class(group.numerics_class);
  record.group = group.id;
  record.epoch = group.epoch;
  group.job = record.id;
  group.attempt = record.job.attempt();
  ASSIGN_OR_RETURN(group.resume_step, LatestCheckpointStep(txn, record));
  return txn.PutGroup(group);
}

std::string Places(const GroupRecord& group) {
  const size_t n = group.members.size();
  std::string text = absl::StrCat(n, n == 1 ? " device" : " devices");
  if (group.shards > 1) absl::StrAppend(&text, " (", group.shards, " shards)");
  return text;
}

std::string ResumeText(const GroupRecord& group) {
  return group.resume_step < 0 ? "" : absl::StrCat(", from step ", group.resume_step);
}

void Fill(GroupRecord& group, const GroupPlan& plan) {
  group.base = plan.base;
  group.precision = plan.precision;
  group.numerics_class = plan.numerics_class;
  group.build = plan.build;
  group.shards = plan.shards;
  group.members = plan.members;
}

struct Applier {
  Txn& txn;
  absl::Time now;

  absl::StatusOr<JobId> operator()(const MoveJob& d) const {
    ASSIGN_OR_RETURN(JobRecord record, txn.GetJob(d.job));
    JobDraft draft(std::move(record), now);
    const GroupId group = draft.record().group;
    if (d.lost_attempt) CountLostAttempt(draft.record());
    bool first = true;
    for (const v1::JobState state : d.path) {
      RETURN_IF_ERROR(draft.Move(state, first ? d.message : Arrival(state), d.warning && first));
      first = false;
    }
    if (draft.state() == v1::PAUSED) draft.job().set_paused_by(v1::USER);
    if (!group.empty() && !IsPlaced(draft.state())) RETURN_IF_ERROR(FreeGroup(txn, group, d.job));
    RETURN_IF_ERROR(txn.SaveJob(draft));
    return d.job;
  }

  absl::StatusOr<JobId> operator()(const StartJob& d) const {
    ASSIGN_OR_RETURN(JobRecord record, txn.GetJob(d.job));
    JobDraft draft(std::move(record), now);
    GroupRecord group;
    if (d.warm_group.empty()) {
      group.id.value = NewIdValue("group");
      group.epoch = 1;
      Fill(group, d.plan);
    } else {
      ASSIGN_OR_RETURN(group, FindGroup(txn, d.warm_group));
      if (!group.job.empty()) {
        return absl::AbortedError(absl::StrCat("group ", group.id.value, " has a job already"));
      }
    }
    RETURN_IF_ERROR(CheckDevices(group));
    RETURN_IF_ERROR(BeginAttempt(txn, draft, group));
    RETURN_IF_ERROR(draft.Move(
        v1::STARTING, absl::StrCat("Starts on ", Places(group),
                                   d.warm_group.empty() ? "" : " that hold the base already",
                                   ResumeText(group))));
    RETURN_IF_ERROR(txn.SaveJob(draft));
    return d.job;
  }

  absl::StatusOr<JobId> operator()(const ReformGroup& d) const {
    ASSIGN_OR_RETURN(JobRecord record, txn.GetJob(d.job));
    JobDraft draft(std::move(record), now);
    ASSIGN_OR_RETURN(GroupRecord group, FindGroup(txn, d.group));
    if (group.job != d.job || draft.record().group != d.group) {
      return absl::AbortedError(absl::StrCat("group ", d.group.value, " has another job now"));
    }
    Fill(group, d.plan);
    RETURN_IF_ERROR(CheckDevices(group));
    ++group.epoch;
    CountLostAttempt(draft.record());
    RETURN_IF_ERROR(BeginAttempt(txn, draft, group));
    const std::string message =
        absl::StrCat("Forms its group anew on ", Places(group), ResumeText(group), ": ", d.reason);
    if (draft.state() == v1::STARTING) {
      draft.AddEvent(message, /*warning=*/true);
    } else {
      RETURN_IF_ERROR(draft.Move(v1::STARTING, message, /*warning=*/true));
    }
    RETURN_IF_ERROR(txn.SaveJob(draft));
    return d.job;
  }

  absl::StatusOr<JobId> operator()(const FailJob& d) const {
    ASSIGN_OR_RETURN(JobRecord record, txn.GetJob(d.job));
    JobDraft draft(std::move(record), now);
    const GroupId group = draft.record().group;
    draft.job().mutable_failure()->set_code(d.code);
    draft.job().mutable_failure()->set_message(d.message);
    RETURN_IF_ERROR(draft.Move(v1::FAILED, absl::StrCat("Failed: ", d.message), /*warning=*/true));
    RETURN_IF_ERROR(FreeGroup(txn, group, d.job));
    RETURN_IF_ERROR(txn.SaveJob(draft));
    return d.job;
  }

  absl::StatusOr<JobId> operator()(const DissolveGroup& d) const {
    ASSIGN_OR_RETURN(const GroupRecord group, FindGroup(txn, d.group));
    if (!group.job.empty()) {
      return absl::AbortedError(absl::StrCat("group ", d.group.value, " has a job again"));
    }
    RETURN_IF_ERROR(txn.DeleteGroup(d.group));
    return JobId{};
  }

  absl::StatusOr<JobId> operator()(const WaitJob&) const { return JobId{}; }

  // No device is given twice, whatever was decided.
  absl::Status CheckDevices(const GroupRecord& group) const {
    ASSIGN_OR_RETURN(const std::vector<GroupRecord> groups, txn.ListGroups());
    for (const GroupRecord& other : groups) {
      if (other.id == group.id) continue;
      for (const GroupMemberRecord& theirs : other.members) {
        for (const GroupMemberRecord& ours : group.members) {
          if (theirs.worker == ours.worker && theirs.device == ours.device) {
            return absl::AbortedError(absl::StrCat("device ", ours.device, " of worker ",
                                                   ours.worker.value, " is in group ",
                                                   other.id.value));
          }
        }
      }
    }
    return absl::OkStatus();
  }
};

}  // namespace

absl::StatusOr<GroupRecord> FindGroup(ReadTxn& txn, const GroupId& id) {
  ASSIGN_OR_RETURN(const std::vector<GroupRecord> groups, txn.ListGroups());
  for (const GroupRecord& group : groups) {
    if (group.id == id) return group;
  }
  return absl::NotFoundError(absl::StrCat("there is no group ", id.value));
}

absl::Status FreeGroup(Txn& txn, const GroupId& id, const JobId& job) {
  absl::StatusOr<GroupRecord> group = FindGroup(txn, id);
  if (absl::IsNotFound(group.status())) return absl::OkStatus();
  RETURN_IF_ERROR(group.status());
  if (group->job != job) return absl::OkStatus();
  group->job.value.clear();
  group->attempt = 0;
  group->resume_step = -1;
  return txn.PutGroup(*group);
}

absl::StatusOr<int64_t> LatestCheckpointStep(ReadTxn& txn, const JobRecord& job) {
  ASSIGN_OR_RETURN(const std::vector<CheckpointRecord> latest,
                   txn.ListCheckpoints(job, INT64_MAX, 1));
  return latest.empty() ? -1 : latest[0].checkpoint.step();
}

absl::StatusOr<JobId> ApplyDecision(Txn& txn, const Decision& decision, absl::Time now) {
  return std::visit(Applier{txn, now}, decision);
}

}  // namespace tundra::coordinator
