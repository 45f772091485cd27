#include "worker/job_outbox.h"

#include <algorithm>

namespace tundra::worker {

using tundra::v1::JobReport;

JobOutbox::JobOutbox(std::string job_id, int64_t attempt, int64_t epoch) {
  state_.set_job_id(std::move(job_id));
  state_.set_attempt(attempt);
  state_.set_epoch(epoch);
  state_.set_phase(tundra::v1::PREPARING);
}

void JobOutbox::Update(const JobReport& update) {
  state_.set_phase(update.phase());
  state_.set_step(std::max(state_.step(), update.step()));
  if (update.total_steps() > 0) state_.set_total_steps(update.total_steps());
  if (update.has_failure()) *state_.mutable_failure() = update.failure();
  if (update.samples_size() > 0) {
    *state_.mutable_samples() = update.samples();
    samples_acknowledged_ = false;
  }
}

void JobOutbox::AddMetrics(tundra::v1::StepMetrics metrics) {
  state_.set_step(std::max(state_.step(), metrics.step()));
  metrics_.push_back(std::move(metrics));
  if (metrics_.size() <= kMaxMetrics) return;
  std::deque<tundra::v1::StepMetrics> thinned;
  for (size_t i = 0; i < metrics_.size(); ++i) {
    // Validation losses are rare and dear: they stay.
    if (i % 2 == 1 || metrics_[i].has_validation_loss() || i + 1 == metrics_.size()) {
      thinned.push_back(std::move(metrics_[i]));
    }
  }
  metrics_ = std::move(thinned);
}

void JobOutbox::AddCheckpoint(CheckpointSaved saved) {
  checkpoints_[saved.report().step()] = {saved.report(), false};
}

void JobOutbox::SetUploaded(int64_t step) {
  if (const auto it = checkpoints_.find(step); it != checkpoints_.end()) it->second.uploaded = true;
}

void JobOutbox::SetUploadFailed(int64_t step, const std::string& reason) {
  const auto it = checkpoints_.find(step);
  if (it == checkpoints_.end()) return;
  const bool final = it->second.report.final();
  checkpoints_.erase(it);
  if (!final) return;
  state_.set_phase(tundra::v1::ATTEMPT_FAILED);
  state_.mutable_failure()->set_code(tundra::v1::INTERNAL);
  state_.mutable_failure()->set_message("the trained adapter could not be delivered: " + reason);
}

void JobOutbox::Acknowledge(const tundra::v1::JobAck& ack) {
  while (ack.has_metrics_step() && !metrics_.empty() &&
         metrics_.front().step() <= ack.metrics_step()) {
    metrics_.pop_front();
  }
  checkpoints_.erase(checkpoints_.begin(), checkpoints_.upper_bound(ack.checkpoint_step()));
  samples_acknowledged_ |= ack.samples();
  done_ |= ack.done();
}

JobReport JobOutbox::Report() const {
  JobReport report = state_;
  if (samples_acknowledged_) report.clear_samples();
  for (const auto& metrics : metrics_) {
    if (report.metrics_size() == kMetricsPerReport) break;
    *report.add_metrics() = metrics;
  }
  bool all_uploaded = true;
  for (const auto& [step, saved] : checkpoints_) {
    // In order: the coordinator acknowledges up to a step.
    all_uploaded &= saved.uploaded;
    if (all_uploaded) *report.add_checkpoints() = saved.report;
  }
  const bool ended =
      report.phase() == tundra::v1::FINISHED || report.phase() == tundra::v1::STOPPED;
  if (ended && (!all_uploaded || report.metrics_size() < static_cast<int>(metrics_.size()))) {
    report.set_phase(tundra::v1::TRAINING);
  }
  return report;
}

}  // namespace tundra::worker
