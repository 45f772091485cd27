// The supervisor's part in jobs: inputs are fetched, ranks are told to start,
// what rank 0 reports goes into the outbox, checkpoints are uploaded.
#include <algorithm>
#include <filesystem>

#include "common/clock.h"
#include "common/files.h"
#include "common/logging.h"
#include "common/status.h"
#include "worker/supervisor.h"

namespace tundra::worker {

using tundra::v1::JobAssignment;

namespace {

tundra::v1::FailureCode FailureCodeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kUnimplemented:
      return tundra::v1::BAD_INPUT;
    default:
      // kResourceExhausted too: this is about inputs, so it is the disk that is full.
      return tundra::v1::INTERNAL;
  }
}

}  // namespace

// Called after every change: starts, steers or leaves the group's job.
void Supervisor::HandleJob(LocalGroup& group) {
  if (solo_last_use_.contains(group.id())) return;
  if (!group.assignment().has_job()) {
    LeaveJob(group);
    return;
  }
  const JobAssignment& wanted = group.assignment().job();
  LocalJob& job = jobs_[group.id()];
  if (job.assignment.job_id() != wanted.job_id() || job.assignment.attempt() != wanted.attempt()) {
    LeaveJob(group);
    LocalJob& fresh = jobs_[group.id()];
    fresh.assignment = wanted;
    if (draining_) {
      StopBeforeStart(group, wanted);
      return;
    }
    if (group.leads()) OutboxOf(wanted, group.epoch());
    fresh.fetching = true;
    FetchInputs(group.id(), wanted);
    return;
  }
  if (!job.started || wanted.desired() == job.sent_desired) return;
  // While draining the job saves and stops anyway; a wish to cancel comes first.
  if (draining_ && wanted.desired() != tundra::v1::CANCEL) return;
  Steer(group, job, wanted.desired());
}

// Tells the ranks what is wanted of a job that they were told to start.
void Supervisor::Steer(LocalGroup& group, LocalJob& job, tundra::v1::DesiredState desired) {
  ToRank message;
  message.mutable_steer()->set_job_id(job.assignment.job_id());
  message.mutable_steer()->set_attempt(job.assignment.attempt());
  message.mutable_steer()->set_desired(desired);
  group.SendToAll(message);
  job.sent_desired = desired;
  if (desired == tundra::v1::PAUSE) {
    job.pause_asked = std::min(job.pause_asked, Clock::System()->Monotonic());
  }
}

// The coordinator wants the group's job there no more: ranks that are still at it
// stop.
void Supervisor::LeaveJob(LocalGroup& group) {
  const auto it = jobs_.find(group.id());
  if (it == jobs_.end()) return;
  if (it->second.started) Steer(group, it->second, tundra::v1::CANCEL);
  jobs_.erase(it);
}

// Draining: a job that has not begun has nothing to save.
void Supervisor::StopBeforeStart(LocalGroup& group, const JobAssignment& job) {
  if (!group.leads()) return;
  tundra::v1::JobReport update;
  update.set_phase(tundra::v1::STOPPED);
  OutboxOf(job, group.epoch()).Update(update);
}

void Supervisor::FetchInputs(const std::string& group_id, const JobAssignment& job) {
  std::string resume_path;
  if (job.has_resume()) {
    const auto it = checkpoints_.find(job.resume().sha256());
    if (it != checkpoints_.end()) resume_path = it->second.dir + "/state.safetensors";
  }
  const int64_t epoch = groups_.at(group_id)->epoch();
  pool_->Add([this, group_id, epoch, job, resume_path] {
    StartJob start;
    *start.mutable_job() = job;
    start.set_resume_path(resume_path);
    start.set_checkpoint_dir(
        absl::StrCat(options_.data_dir, "/checkpoints/", job.job_id(), "/", job.attempt()));
    const auto fetch = [&]() -> absl::Status {
      ASSIGN_OR_RETURN(*start.mutable_train_path(), transfers_->Fetch(job.train()));
      if (job.has_validation()) {
        ASSIGN_OR_RETURN(*start.mutable_validation_path(), transfers_->Fetch(job.validation()));
      }
      if (job.has_resume() && (resume_path.empty() || !FileExists(resume_path))) {
        tundra::v1::BlobRef state;
        state.set_sha256(job.resume().sha256());
        state.set_size_bytes(job.resume().size_bytes());
        state.set_display_name(absl::StrCat("checkpoint of step ", job.resume().step()));
        ASSIGN_OR_RETURN(*start.mutable_resume_path(), transfers_->Fetch(state));
      }
      return absl::OkStatus();
    };
    const absl::Status status = fetch();
    Post([this, group_id, epoch, job, start, status] {
      const auto group = groups_.find(group_id);
      const auto local = jobs_.find(group_id);
      if (group == groups_.end() || local == jobs_.end()) return;
      // A fetch for ranks that are gone by now: the new ones have their own.
      if (group->second->epoch() != epoch || !local->second.fetching) return;
      if (local->second.assignment.job_id() != job.job_id() ||
          local->second.assignment.attempt() != job.attempt()) {
        return;
      }
      local->second.fetching = false;
      PruneBlobs();
      if (draining_) return;
      if (status.ok()) {
        StartJobOn(*group->second, local->second, start);
      } else if (!absl::IsCancelled(status)) {
        FailJob(*group->second, job, status);
      }
    });
  });
}

void Supervisor::StartJobOn(LocalGroup& group, LocalJob& job, const StartJob& start) {
  ToRank message;
  *message.mutable_start() = start;
  group.SendToAll(message);
  job.started = true;
  job.sent_desired = tundra::v1::RUN;
  job_dirs_.insert(start.job().job_id());
  HandleJob(group);  // It may be wanted to stop by now.
}

void Supervisor::FailJob(LocalGroup& group, const JobAssignment& job, const absl::Status& status) {
  LogError("job {} attempt {}: {}", job.job_id(), job.attempt(), status.ToString());
  const tundra::v1::FailureCode code = FailureCodeOf(status);
  tundra::v1::JobReport update;
  // What is not the job's fault pauses it: it can be resumed when that is mended.
  update.set_phase(code == tundra::v1::BAD_INPUT ? tundra::v1::ATTEMPT_FAILED
                                                 : tundra::v1::STOPPED);
  update.mutable_failure()->set_code(code);
  update.mutable_failure()->set_message(std::string(status.message()));
  OutboxOf(job, group.epoch()).Update(update);
}

void Supervisor::HandleJobMessage(LocalGroup& group, FromRank message) {
  const AttemptKey key{message.job_id(), message.attempt()};
  const auto it = outboxes_.find(key);
  if (it == outboxes_.end()) return;
  JobOutbox& outbox = it->second;
  switch (message.message_case()) {
    case FromRank::kJob:
      outbox.Update(message.job().report());
      CountPreemption(group, message);
      break;
    case FromRank::kMetrics:
      metrics_.OnLedStep(message.metrics());
      outbox.AddMetrics(message.metrics());
      break;
    case FromRank::kCheckpoint:
      KeepCheckpoint(key, message.checkpoint(),
                     group.assignment().job().spec().checkpoint().keep());
      break;
    default:
      LogWarning("group {}: a message of no use from a rank", group.id());
  }
}

void Supervisor::CountPreemption(const LocalGroup& group, const FromRank& message) {
  const auto& report = message.job().report();
  const auto job = jobs_.find(group.id());
  if (report.phase() != tundra::v1::STOPPED || report.has_failure() || job == jobs_.end() ||
      job->second.assignment.job_id() != message.job_id() ||
      job->second.assignment.attempt() != message.attempt() ||
      job->second.sent_desired != tundra::v1::PAUSE) {
    return;
  }
  metrics_.OnPreemption(Clock::System()->Monotonic() - job->second.pause_asked);
}

// Notes a checkpoint for delivery and for the next attempt. While the coordinator
// is away, older ones make way as they would there.
void Supervisor::KeepCheckpoint(const AttemptKey& key, const CheckpointSaved& saved, int keep) {
  JobOutbox& outbox = outboxes_.at(key);
  checkpoints_[saved.report().sha256()] = {key.first, saved.report().step(), saved.dir()};
  outbox.AddCheckpoint(saved);
  const std::vector<int64_t> replaced = outbox.DropReplaced(std::max(1, keep));
  DropCheckpoints(key.first, [&](int64_t step) {
    return std::find(replaced.begin(), replaced.end(), step) != replaced.end();
  });
  UploadCheckpoint(key, saved);
}

void Supervisor::UploadCheckpoint(const AttemptKey& key, const CheckpointSaved& saved) {
  pool_->Add([this, key, saved] {
    const auto& report = saved.report();
    const auto put = [&]() -> absl::Status {
      for (const auto& file : report.adapter_files()) {
        RETURN_IF_ERROR(transfers_->Put(absl::StrCat(saved.dir(), "/", file.filename()),
                                        file.sha256(), file.size_bytes()));
      }
      return transfers_->Put(saved.dir() + "/state.safetensors", report.sha256(),
                             report.size_bytes());
    };
    const absl::Time start = absl::Now();
    const absl::Status status = put();
    // Cancelled when the worker ends: no failure.
    if (!absl::IsCancelled(status)) {
      metrics_.OnCheckpoint("upload", absl::Now() - start, !status.ok());
    }
    Post([this, key, step = report.step(), sha256 = report.sha256(), status] {
      sending_wanted_.erase(sha256);
      const auto it = outboxes_.find(key);
      if (it == outboxes_.end()) return;
      if (status.ok()) {
        it->second.SetUploaded(step);
        return;
      }
      if (absl::IsCancelled(status)) return;
      if (it->second.SetUploadFailed(step, std::string(status.message()))) {
        LogError("checkpoint of step {} of job {}: {}", step, key.first, status.ToString());
      }
    });
  });
}

// What the coordinator asks for, until it asks no more: a text file of a base, or a blob of
// a checkpoint that it had and lost.
void Supervisor::SendWanted(absl::Duration now) {
  constexpr absl::Duration kBetweenTries = absl::Seconds(10);
  for (auto& [sha256, next_try] : wanted_blobs_) {
    if (now < next_try) continue;
    next_try = now + kBetweenTries;
    UploadText(sha256);
    for (const auto& [key, outbox] : outboxes_) {
      const auto report = outbox.CheckpointWith(sha256);
      if (!report.has_value()) continue;
      const auto local = checkpoints_.find(report->sha256());
      if (local == checkpoints_.end() || !sending_wanted_.insert(report->sha256()).second) continue;
      CheckpointSaved saved;
      *saved.mutable_report() = *report;
      saved.set_dir(local->second.dir);
      UploadCheckpoint(key, saved);
    }
  }
}

void Supervisor::UploadText(const std::string& sha256) {
  const std::string path = catalog_.TextFile(sha256);
  if (path.empty() || !sending_wanted_.insert(sha256).second) return;
  pool_->Add([this, path, sha256] {
    std::error_code error;
    const auto size = static_cast<int64_t>(std::filesystem::file_size(path, error));
    const absl::Status status = transfers_->Put(path, sha256, size);
    if (!status.ok()) LogError("sending {}: {}", path, status.ToString());
    Post([this, sha256] { sending_wanted_.erase(sha256); });
  });
}

}  // namespace tundra::worker
