#include "coordinator/http/job_watch.h"

#include <algorithm>

#include "coordinator/store/job_state.h"

namespace tundra::coordinator {

void JobWatch::OnDecision(const Decision& decision) {
  absl::MutexLock lock(&mu_);
  if (const auto* const reform = std::get_if<ReformGroup>(&decision)) {
    BeginRecovery(reform->job);
  } else if (const auto* const move = std::get_if<MoveJob>(&decision)) {
    // Back in the queue by a loss, it recovers once it has devices again; what its owner stops
    // does not.
    if (move->lost_attempt) {
      BeginRecovery(move->job);
    } else if (move->path.back() != v1::QUEUED) {
      recovering_.erase(move->job);
    }
  } else if (const auto* const failed = std::get_if<FailJob>(&decision)) {
    recovering_.erase(failed->job);
    metrics_->OnFailure(v1::FailureCode_Name(failed->code));
  }
}

void JobWatch::BeginRecovery(const JobId& job) {
  Recovery& recovery = recovering_.try_emplace(job, Recovery{clock_->Monotonic()}).first->second;
  const auto progress = progress_.find(job);
  if (progress != progress_.end()) recovery.lost_attempt = progress->second.attempt;
}

void JobWatch::CountHeld() {
  const absl::Duration now = clock_->Monotonic();
  const double seconds = absl::ToDoubleSeconds(now - counted_);
  for (const HeldDevices& held : held_) {
    metrics_->OnDeviceSeconds(held.tenant, held.devices * seconds);
  }
  counted_ = now;
}

void JobWatch::OnPlan(const std::vector<HeldDevices>& held) {
  absl::MutexLock lock(&mu_);
  CountHeld();
  held_ = held;
  std::set<JobId> placed;
  for (const HeldDevices& job : held) placed.insert(job.job);
  std::erase_if(progress_, [&](const auto& entry) { return !placed.contains(entry.first); });
}

void JobWatch::CountDeviceSeconds() {
  absl::MutexLock lock(&mu_);
  CountHeld();
}

void JobWatch::OnReport(const JobReportResult& report) {
  if (report.fenced) metrics_->OnFencedWrite();
  // Refused, or a repetition of what has ended.
  if (report.state == v1::JOB_STATE_UNSPECIFIED) return;
  if (report.new_steps > 0) {
    metrics_->OnSteps(report.tenant, report.new_steps, report.new_tokens,
                      report.new_device_seconds);
  }
  if (report.failed != v1::FAILURE_CODE_UNSPECIFIED) {
    metrics_->OnFailure(v1::FailureCode_Name(report.failed));
  }
  const JobId job{report.ack.job_id()};
  absl::MutexLock lock(&mu_);
  Progress& progress = progress_[job];
  if (progress.attempt != report.ack.attempt()) {
    progress = {report.ack.attempt(), report.attempt_step, clock_->Monotonic(), report.resume_step};
  } else if (progress.step != report.attempt_step) {
    progress.step = report.attempt_step;
    progress.since = clock_->Monotonic();
  }
  CountReplayed(report, progress);
  EndRecovery(job, report);
  if (!IsPlaced(report.state)) progress_.erase(job);
}

void JobWatch::CountReplayed(const JobReportResult& report, Progress& progress) {
  const int64_t to = std::min(report.attempt_step, report.seen_step);
  if (to <= progress.replayed_to) return;
  metrics_->OnReplayedSteps(to - progress.replayed_to);
  progress.replayed_to = to;
}

void JobWatch::EndRecovery(const JobId& job, const JobReportResult& report) {
  const auto it = recovering_.find(job);
  if (it == recovering_.end() || report.ack.attempt() <= it->second.lost_attempt) return;
  const bool goes_on = report.attempt_step > report.resume_step || report.state == v1::SUCCEEDED;
  if (goes_on) metrics_->OnRecovery(clock_->Monotonic() - it->second.since);
  const bool stopped = report.state != v1::QUEUED && !IsPlaced(report.state);
  if (goes_on || stopped) recovering_.erase(it);
}

bool JobWatch::IsStalled(const JobRecord& job) {
  if (job.job.state() != v1::RUNNING) return false;
  absl::MutexLock lock(&mu_);
  const auto [it, fresh] = progress_.try_emplace(
      job.id, Progress{job.job.attempt(), job.job.step(), clock_->Monotonic()});
  if (fresh) return false;
  const absl::Duration patience =
      std::max(kStalledAfter, kStalledSteps * absl::Seconds(job.step_seconds));
  return clock_->Monotonic() - it->second.since > patience;
}

}  // namespace tundra::coordinator
