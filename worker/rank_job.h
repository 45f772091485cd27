// One attempt of one job on one rank: its rows are tokenized on a thread of its
// own; then all ranks build their trainers together; rank 0 also saves
// checkpoints and reports.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/text/dataset.h"
#include "worker/link.h"
#include "worker/rank_base.h"
#include "worker/rank_control.pb.h"
#include "worker/train/checkpoint_writer.h"
#include "worker/train/trainer.h"

namespace tundra::worker {

// The engine's form of a spec whose defaults were filled in.
// Errors: kInvalidArgument for a value the engine does not know.
absl::StatusOr<TrainSpec> ToTrainSpec(const tundra::v1::JobSpec& spec);

// Used by the rank's main thread.
class RankJob {
 public:
  // Starts to read and tokenize. `base` and `link` outlive the job.
  RankJob(StartJob start, RankBase* base, Link* link);
  ~RankJob();

  const tundra::v1::JobAssignment& assignment() const { return start_.job(); }
  const tundra::v1::JobSpec& spec() const { return start_.job().spec(); }
  bool Is(const std::string& job_id, int64_t attempt) const {
    return start_.job().job_id() == job_id && start_.job().attempt() == attempt;
  }

  // Whether reading has ended, well or not.
  bool prepared() const { return prepared_; }
  // The reason why it cannot run; OK so far.
  const absl::Status& status() const { return status_; }

  // After prepared(): the trainer, with its state restored. All ranks together,
  // with one budget for activations (bytes of this rank's memory).
  absl::Status BuildTrainer(uint64_t activation_budget_bytes, std::function<void()> progress);
  Trainer* trainer() const { return trainer_.get(); }
  bool has_validation() const { return !start_.validation_path().empty(); }

  // Rank 0 only: saves the state beside the training, and tells the supervisor.
  absl::Status SaveCheckpoint();
  // Waits until what was submitted is on disk. The first failure since the start;
  // kDeadlineExceeded while some of it still waits.
  absl::Status FlushCheckpoints(absl::Duration timeout);
  // The first failure so far, without waiting.
  absl::Status CheckpointStatus() const;

  // Rank 0 only: what the supervisor is to know.
  void Tell(tundra::v1::AttemptPhase phase, const absl::Status& failure = absl::OkStatus(),
            const std::vector<tundra::v1::Sample>& samples = {});
  void TellMetrics(const tundra::v1::StepMetrics& metrics);

 private:
  void Prepare();
  absl::Status ReadRows(const std::string& path, const tundra::v1::BlobRef& blob,
                        std::vector<TokenizedRow>* rows) const;
  absl::Status Restore();
  // On the writer's thread.
  absl::Status WriteCheckpoint(int64_t step, const std::string& bytes);
  // For the worker's metrics: a stage as in worker/worker_metrics.h.
  void TellStage(const char* stage, absl::Time start, bool failed);

  // What goes to disk beside a state that waits for the writer.
  struct Waiting {
    AdapterFiles adapter;
    absl::Time since;
  };

  const StartJob start_;
  RankBase* const base_;
  Link* const link_;
  std::vector<TokenizedRow> train_rows_;
  std::vector<TokenizedRow> validation_rows_;
  absl::Status status_;
  std::atomic<bool> prepared_{false};
  std::atomic<bool> unwanted_{false};  // what Prepare still reads
  std::unique_ptr<Trainer> trainer_;
  mutable absl::Mutex mu_;
  std::map<int64_t, Waiting> waiting_ ABSL_GUARDED_BY(mu_);  // by step
  absl::Status write_status_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<CheckpointWriter> writer_;
  std::thread preparing_;
};

}  // namespace tundra::worker
