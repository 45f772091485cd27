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
  // A failed delivery ends the attempt: a rank that finishes later does not know.
  if (!undelivered_) state_.set_phase(update.phase());
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
  if (metrics_.size() > kMaxMetrics) ThinMetrics();
}

void JobOutbox::ThinMetrics() {
  const size_t half = metrics_.size() / 2;
  const auto thin = [&](bool with_validation) {
    std::deque<tundra::v1::StepMetrics> kept;
    for (size_t i = 0; i < metrics_.size(); ++i) {
      const bool dropped =
          i < half && i % 2 == 0 && (with_validation || !metrics_[i].has_validation_loss());
      if (!dropped) kept.push_back(std::move(metrics_[i]));
    }
    metrics_ = std::move(kept);
  };
  // Validation losses are rare and dear. Where every step has one, they go too:
  // the bound holds, and each pass frees enough to be rare itself.
  thin(/*with_validation=*/false);
  if (metrics_.size() > kMaxMetrics - kMaxMetrics / 8) thin(/*with_validation=*/true);
}

std::vector<int64_t> JobOutbox::DropReplaced(int keep) {
  std::vector<int64_t> dropped;
  int newer = 0;
  for (auto it = checkpoints_.rbegin(); it != checkpoints_.rend(); ++it) {
    if (newer++ >= keep && !it->second.uploaded && !it->second.report.final()) {
      dropped.push_back(it->first);
    }
  }
  for (const int64_t step : dropped) checkpoints_.erase(step);
  return dropped;
}

void JobOutbox::AddCheckpoint(CheckpointSaved saved) {
  checkpoints_[saved.report().step()] = {saved.report(), false};
}

void JobOutbox::SetUploaded(int64_t step) {
  if (const auto it = checkpoints_.find(step); it != checkpoints_.end()) it->second.uploaded = true;
}

bool JobOutbox::SetUploadFailed(int64_t step, const std::string& reason) {
  const auto it = checkpoints_.find(step);
  if (it == checkpoints_.end()) return false;
  const bool final = it->second.report.final();
  checkpoints_.erase(it);
  if (!final) return true;
  undelivered_ = true;
  state_.set_phase(tundra::v1::STOPPED);
  state_.mutable_failure()->set_code(tundra::v1::INTERNAL);
  state_.mutable_failure()->set_message("the trained adapter could not be delivered: " + reason);
  return true;
}

std::optional<tundra::v1::CheckpointReport> JobOutbox::CheckpointWith(
    const std::string& sha256) const {
  for (const auto& [step, saved] : checkpoints_) {
    const auto& files = saved.report.adapter_files();
    const bool has = saved.report.sha256() == sha256 ||
                     std::any_of(files.begin(), files.end(),
                                 [&](const auto& file) { return file.sha256() == sha256; });
    if (has) return saved.report;
  }
  return std::nullopt;
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
