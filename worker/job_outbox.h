// What a worker has to tell the coordinator about the attempts it leads, kept
// until it is acknowledged, so that nothing is lost while the coordinator is
// away: state, metrics, checkpoints, samples, outcome.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tundra/v1/worker.pb.h"
#include "worker/rank_control.pb.h"

namespace tundra::worker {

// One attempt of one job. Not thread-safe.
class JobOutbox {
 public:
  // Most metrics kept for a coordinator that is away; beyond it every second
  // one of the older half is dropped, validation losses last, never the newest.
  static constexpr size_t kMaxMetrics = 200'000;
  static constexpr int kMetricsPerReport = 1000;

  JobOutbox(std::string job_id, int64_t attempt, int64_t epoch);

  void Update(const tundra::v1::JobReport& update);
  void AddMetrics(tundra::v1::StepMetrics metrics);
  // The checkpoint is on this node's disk; it is reported once SetUploaded().
  void AddCheckpoint(CheckpointSaved saved);
  void SetUploaded(int64_t step);
  // The coordinator cannot take it (for example its disk is full). The attempt
  // goes on with its older checkpoints, unless this was the last one: then it
  // stops with the reason (the job pauses and can be resumed), whatever its ranks
  // say later. False when nobody waits for this checkpoint any more.
  bool SetUploadFailed(int64_t step, const std::string& reason);
  // Gives up checkpoints that were not uploaded and that `keep` newer ones
  // replace: the coordinator would drop them too. Returns their steps.
  std::vector<int64_t> DropReplaced(int keep);
  // The checkpoint that has this blob, if the attempt still keeps one.
  std::optional<tundra::v1::CheckpointReport> CheckpointWith(const std::string& sha256) const;
  // Removes what the coordinator has stored.
  void Acknowledge(const tundra::v1::JobAck& ack);

  // Reported and acknowledged whole, or not wanted any more.
  bool done() const { return done_; }
  // All checkpoints have been uploaded and acknowledged.
  bool checkpoints_delivered() const { return checkpoints_.empty(); }
  tundra::v1::AttemptPhase phase() const { return state_.phase(); }

  // The whole report. FINISHED and STOPPED are held back as TRAINING until every
  // checkpoint is uploaded, so that the outcome never overtakes the state.
  tundra::v1::JobReport Report() const;

 private:
  void ThinMetrics();

  struct Saved {
    tundra::v1::CheckpointReport report;
    bool uploaded = false;
  };
  tundra::v1::JobReport state_;
  std::deque<tundra::v1::StepMetrics> metrics_;
  std::map<int64_t, Saved> checkpoints_;  // by step
  bool samples_acknowledged_ = false;
  bool undelivered_ = false;
  bool done_ = false;
};

}  // namespace tundra::worker
