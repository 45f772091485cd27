// How rank 0 conducts a job: prepare, begin, validation loss before the first
// step, steps with metrics and checkpoints, samples, the last checkpoint; and how
// it stops on a wish to pause or cancel.
#include <cmath>

#include "common/files.h"
#include "common/logging.h"
#include "common/status.h"
#include "worker/rank_loop.h"

namespace tundra::worker {
namespace {

constexpr absl::Duration kIdleRound = absl::Milliseconds(500);
constexpr absl::Duration kPollRound = absl::Milliseconds(20);

void SetTime(google::protobuf::Timestamp* timestamp) {
  const int64_t nanos = absl::ToUnixNanos(absl::Now());
  timestamp->set_seconds(nanos / 1'000'000'000);
  timestamp->set_nanos(static_cast<int32_t>(nanos % 1'000'000'000));
}

}  // namespace

absl::Status RankLoop::Lead() {
  while (true) {
    if (inbox_->quit()) return Issue(Action::kQuit);
    if (const auto order = inbox_->TakeGenerate()) {
      RETURN_IF_ERROR(LeadGenerate(*order));
      continue;
    }
    if (job_ != nullptr) {
      RETURN_IF_ERROR(AdvanceJob());
      continue;
    }
    if (auto start = inbox_->TakeStart()) {
      job_ = std::make_unique<RankJob>(*std::move(start), base_, link_);
      job_->Tell(tundra::v1::PREPARING);
      continue;
    }
    RETURN_IF_ERROR(Issue(Action::kIdle));
    inbox_->WaitForNews(kIdleRound);
  }
}

absl::Status RankLoop::AdvanceJob() {
  const auto& assignment = job_->assignment();
  const auto desired = inbox_->Desired(assignment.job_id(), assignment.attempt());
  if (desired == tundra::v1::CANCEL) return EndJob(tundra::v1::STOPPED, absl::OkStatus());
  if (desired == tundra::v1::PAUSE) {
    if (!training_) return EndJob(tundra::v1::STOPPED, absl::OkStatus());
    RETURN_IF_ERROR(job_->SaveCheckpoint());
    absl::Status saved;
    RETURN_IF_ERROR(WaitForCheckpoints(&saved));
    return EndJob(tundra::v1::STOPPED, saved);
  }
  if (training_) return TrainOnce();

  JobName name;
  name.set_job_id(assignment.job_id());
  name.set_attempt(assignment.attempt());
  RETURN_IF_ERROR(Issue(Action::kPoll, name.SerializeAsString()));
  if (outcome_.not_ready == 1) {
    inbox_->WaitForNews(kPollRound);
    return absl::OkStatus();
  }
  if (outcome_.not_ready == 2) {
    const absl::Status failure =
        !job_->status().ok() ? job_->status()
                             : absl::InternalError("another rank could not prepare the job");
    return EndJob(tundra::v1::ATTEMPT_FAILED, failure);
  }
  return StartTraining();
}

absl::Status RankLoop::StartTraining() {
  outcome_.job_error = absl::OkStatus();
  RETURN_IF_ERROR(Issue(Action::kBegin));
  if (!outcome_.begun) return EndJob(tundra::v1::ATTEMPT_FAILED, outcome_.job_error);
  training_ = true;
  ReportState();
  job_->Tell(tundra::v1::TRAINING);
  Trainer& trainer = *job_->trainer();
  if (trainer.step() > 0 || !job_->has_validation()) return absl::OkStatus();
  RETURN_IF_ERROR(Issue(Action::kEvaluate));
  tundra::v1::StepMetrics metrics;
  metrics.set_step(0);
  metrics.set_validation_loss(outcome_.evaluation.loss);
  SetTime(metrics.mutable_time());
  job_->TellMetrics(metrics);
  return absl::OkStatus();
}

bool RankLoop::EvaluationIsDue(int64_t step) const {
  if (!job_->has_validation()) return false;
  const int32_t every = job_->spec().eval().every_steps();
  return job_->trainer()->done() || (every > 0 && step % every == 0);
}

absl::Status RankLoop::TrainOnce() {
  Trainer& trainer = *job_->trainer();
  if (trainer.done()) return FinishTraining();
  const absl::Time start = absl::Now();
  RETURN_IF_ERROR(Issue(Action::kStep));
  if (!outcome_.job_error.ok()) {
    absl::Status saved;
    RETURN_IF_ERROR(WaitForCheckpoints(&saved));
    return EndJob(tundra::v1::ATTEMPT_FAILED, outcome_.job_error);
  }
  const StepMetrics step = outcome_.step;
  tundra::v1::StepMetrics metrics;
  metrics.set_step_seconds(absl::ToDoubleSeconds(absl::Now() - start));
  metrics.set_step(step.step);
  if (std::isfinite(step.loss)) metrics.set_train_loss(step.loss);
  metrics.set_learning_rate(step.learning_rate);
  metrics.set_grad_norm(step.grad_norm);
  metrics.set_tokens(step.tokens);
  metrics.set_target_tokens(step.target_tokens);
  metrics.set_redone(static_cast<int32_t>(step.redone));
  metrics.set_non_finite(step.non_finite);
  metrics.set_allreduce_bytes(step.allreduce_bytes);
  metrics.set_redone_allreduce_bytes(step.redone_allreduce_bytes);
  if (EvaluationIsDue(step.step)) {
    RETURN_IF_ERROR(Issue(Action::kEvaluate));
    metrics.set_validation_loss(outcome_.evaluation.loss);
  }
  SetTime(metrics.mutable_time());
  job_->TellMetrics(metrics);
  const int32_t every = job_->spec().checkpoint().every_steps();
  if (!trainer.done() && every > 0 && step.step % every == 0) {
    RETURN_IF_ERROR(job_->SaveCheckpoint());
  }
  // A disk that takes no checkpoint: the job pauses with the reason, so that what
  // it has is kept and it goes on when there is room.
  const absl::Status saved = job_->CheckpointStatus();
  if (!saved.ok()) return EndJob(tundra::v1::STOPPED, saved);
  return absl::OkStatus();
}

absl::Status RankLoop::FinishTraining() {
  RETURN_IF_ERROR(job_->SaveCheckpoint());
  if (job_->spec().eval().samples_size() > 0) RETURN_IF_ERROR(Issue(Action::kSamples));
  absl::Status saved;
  RETURN_IF_ERROR(WaitForCheckpoints(&saved));
  if (!saved.ok()) return EndJob(tundra::v1::STOPPED, saved);
  job_->Tell(tundra::v1::TRAINING, absl::OkStatus(), outcome_.samples);
  return EndJob(tundra::v1::FINISHED, absl::OkStatus());
}

absl::Status RankLoop::WaitForCheckpoints(absl::Status* saved) {
  // Headers meanwhile, or the other ranks would take this one for hung.
  while (absl::IsDeadlineExceeded(*saved = job_->FlushCheckpoints(absl::Seconds(1)))) {
    RETURN_IF_ERROR(Issue(Action::kIdle));
  }
  return absl::OkStatus();
}

absl::Status RankLoop::EndJob(tundra::v1::AttemptPhase phase, const absl::Status& failure) {
  job_->Tell(phase, failure);
  outcome_ = Outcome{};
  return Issue(Action::kEnd);
}

absl::Status RankLoop::LeadGenerate(const GenerateOrder& order) {
  GroupGenerate task;
  *task.mutable_task() = order.task();
  absl::Status status;
  if (!order.adapter_dir().empty()) {
    const auto model = ReadFile(order.adapter_dir() + "/adapter_model.safetensors");
    const auto config = ReadFile(order.adapter_dir() + "/adapter_config.json");
    status = model.ok() ? config.status() : model.status();
    if (status.ok()) {
      task.set_adapter_model(*model);
      task.set_adapter_config(*config);
    }
  }
  if (status.ok()) return Issue(Action::kGenerate, task.SerializeAsString());
  FromRank message;
  message.mutable_generation()->set_task_id(order.task().task_id());
  message.mutable_generation()->set_error_code(static_cast<int32_t>(status.code()));
  message.mutable_generation()->set_error_message(std::string(status.message()));
  return link_->Send(message);
}

}  // namespace tundra::worker
