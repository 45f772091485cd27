// The supervisor's part in jobs: inputs are fetched, ranks are told to start,
// what rank 0 reports goes into the outbox, checkpoints are uploaded.
#include <algorithm>
#include <filesystem>

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
    case absl::StatusCode::kResourceExhausted:
      return tundra::v1::OUT_OF_MEMORY;
    default:
      return tundra::v1::INTERNAL;
  }
}

}  // namespace

// Called after every change: starts, steers or leaves the group's job.
void Supervisor::HandleJob(LocalGroup& group) {
  if (solo_last_use_.contains(group.id())) return;
  if (!group.assignment().has_job()) {
    jobs_.erase(group.id());
    return;
  }
  const JobAssignment& wanted = group.assignment().job();
  LocalJob& job = jobs_[group.id()];
  if (job.assignment.job_id() != wanted.job_id() || job.assignment.attempt() != wanted.attempt()) {
    job = LocalJob{};
    job.assignment = wanted;
    if (group.leads()) OutboxOf(wanted, group.epoch());
    job.fetching = true;
    FetchInputs(group.id(), wanted);
    return;
  }
  if (!job.started || draining_ || wanted.desired() == job.sent_desired) return;
  job.sent_desired = wanted.desired();
  ToRank message;
  message.mutable_steer()->set_job_id(wanted.job_id());
  message.mutable_steer()->set_attempt(wanted.attempt());
  message.mutable_steer()->set_desired(wanted.desired());
  group.SendToAll(message);
}

void Supervisor::FetchInputs(const std::string& group_id, const JobAssignment& job) {
  std::string resume_path;
  if (job.has_resume()) {
    const auto it = checkpoint_dirs_.find(job.resume().sha256());
    if (it != checkpoint_dirs_.end()) resume_path = it->second + "/state.safetensors";
  }
  pool_->Add([this, group_id, job, resume_path] {
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
      if (job.has_resume() && resume_path.empty()) {
        tundra::v1::BlobRef state;
        state.set_sha256(job.resume().sha256());
        state.set_size_bytes(job.resume().size_bytes());
        state.set_display_name(absl::StrCat("checkpoint of step ", job.resume().step()));
        ASSIGN_OR_RETURN(*start.mutable_resume_path(), transfers_->Fetch(state));
      }
      return absl::OkStatus();
    };
    const absl::Status status = fetch();
    Post([this, group_id, job, start, status] {
      const auto group = groups_.find(group_id);
      const auto local = jobs_.find(group_id);
      if (group == groups_.end() || local == jobs_.end()) return;
      if (local->second.assignment.job_id() != job.job_id() ||
          local->second.assignment.attempt() != job.attempt()) {
        return;
      }
      local->second.fetching = false;
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
  HandleJob(group);  // It may be wanted to stop by now.
  if (draining_) SteerAll(tundra::v1::PAUSE);
}

void Supervisor::FailJob(LocalGroup& group, const JobAssignment& job, const absl::Status& status) {
  LogError("job {} attempt {}: {}", job.job_id(), job.attempt(), status.ToString());
  tundra::v1::JobReport update;
  update.set_phase(tundra::v1::ATTEMPT_FAILED);
  update.mutable_failure()->set_code(FailureCodeOf(status));
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
      break;
    case FromRank::kMetrics: {
      const auto& metrics = message.metrics();
      {
        absl::MutexLock lock(&mu_);
        status_.steps_total += metrics.step() > 0;
        status_.tokens_total += metrics.tokens();
        status_.allreduce_bytes_total += metrics.allreduce_bytes();
        status_.redone_allreduce_bytes_total += metrics.redone_allreduce_bytes();
        status_.nonfinite_steps_total += metrics.non_finite();
      }
      outbox.AddMetrics(metrics);
      break;
    }
    case FromRank::kCheckpoint:
      checkpoint_dirs_[message.checkpoint().report().sha256()] = message.checkpoint().dir();
      outbox.AddCheckpoint(message.checkpoint());
      UploadCheckpoint(key, message.checkpoint());
      break;
    default:
      LogWarning("group {}: a message of no use from a rank", group.id());
  }
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
    const absl::Status status = put();
    Post([this, key, step = report.step(), status] {
      const auto it = outboxes_.find(key);
      if (it == outboxes_.end()) return;
      if (status.ok()) {
        it->second.SetUploaded(step);
        return;
      }
      if (absl::IsCancelled(status)) return;
      LogError("checkpoint of step {} of job {}: {}", step, key.first, status.ToString());
      it->second.SetUploadFailed(step, std::string(status.message()));
    });
  });
}

void Supervisor::UploadText(const std::string& sha256) {
  const std::string path = catalog_.TextFile(sha256);
  if (path.empty() || !uploading_text_.insert(sha256).second) return;
  pool_->Add([this, path, sha256] {
    std::error_code error;
    const auto size = static_cast<int64_t>(std::filesystem::file_size(path, error));
    const absl::Status status = transfers_->Put(path, sha256, size);
    if (!status.ok()) LogError("sending {}: {}", path, status.ToString());
    Post([this, sha256] { uploading_text_.erase(sha256); });
  });
}

}  // namespace tundra::worker
