// One job on one rank: data plan, micro-batches, exact sums, update.
//
// A step (all ranks of the group call RunStep together):
//   1. the plan of the step; this rank's share of its micro-batches
//   2. forward and backward; each micro-batch's gradients become integers at once
//   3. maxima over the ranks decide: skip (not finite), redo (new exponents), accept
//   4. integers over the ranks; mean per target token; clipping; AdamW, alike everywhere
// The bytes of the state after it depend on (base, data, spec, numerics class) alone.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/collective/collective.h"
#include "worker/model/llama.h"
#include "worker/train/adapter.h"
#include "worker/train/checkpoint.h"
#include "worker/train/data_plan.h"
#include "worker/train/exact_sum.h"
#include "worker/train/train_spec.h"

namespace tundra {

struct StepMetrics {
  // Steps done with this one: from 1.
  int64_t step = 0;
  // Of the data, from 0.
  int64_t epoch = 0;
  // Nats per target token, before the update.
  double loss = 0;
  // The rate this step used.
  double learning_rate = 0;
  // Before clipping; per target token.
  double grad_norm = 0;
  int64_t tokens = 0;
  int64_t target_tokens = 0;
  int64_t rows = 0;
  // Passes done again because exponents were set anew.
  int64_t redone = 0;
  // The step was skipped: a gradient or the loss was not finite.
  bool non_finite = false;
  // Payload of the reductions: of the accepted pass, and of those done again.
  int64_t allreduce_bytes = 0;
  int64_t redone_allreduce_bytes = 0;
  // By phase.
  double compute_seconds = 0;
  double reduce_seconds = 0;
  double update_seconds = 0;
  // Part of compute: waiting for weights.
  double weights_wait_seconds = 0;
};

struct EvalMetrics {
  // Nats per target token.
  double loss = 0;
  int64_t target_tokens = 0;
  int64_t rows = 0;
};

struct TrainerOptions {
  ModelConfig config;
  // Content hash of the base, hex.
  std::string base_hash;
  // What the user calls it, for the adapter's config.
  std::string base_name;
  // All outlive the trainer. The collective joins the ranks of the group.
  Ops* ops = nullptr;
  WeightSource* weights = nullptr;
  Collective* collective = nullptr;
  // For activations; 0: no bound. Equal on all ranks where the base is sharded.
  uint64_t activation_budget_bytes = 0;
  absl::Duration collective_timeout = absl::Seconds(60);
  // Called between passes of a step or an evaluation: a sign of life.
  std::function<void()> progress = [] {};
  // For tests of recomputation.
  std::optional<Recompute> force_recompute = std::nullopt;
};

// Used by one thread.
class Trainer {
 public:
  // Rows are borrowed. Every row of both sets needs a target.
  // Errors: kInvalidArgument for a spec or row that won't do, kResourceExhausted when
  // activations don't fit.
  static absl::StatusOr<std::unique_ptr<Trainer>> Create(const TrainerOptions& options,
                                                         const TrainSpec& spec,
                                                         std::vector<RowView> train,
                                                         std::vector<RowView> validation);

  int64_t total_steps() const { return plan_->total_steps(); }
  bool done() const { return state_.step >= total_steps(); }

  // The next step. Errors: kDataLoss "diverged" after spec.non_finite_limit skipped
  // steps in a row; kFailedPrecondition when done; those of the collective and of
  // memory. After an error other than "diverged" the state is that before the step, unless the
  // device itself failed in the update: the rank is of no use then.
  absl::StatusOr<StepMetrics> RunStep();
  // A step over given micro-batches instead of the plan's, for comparisons.
  absl::StatusOr<StepMetrics> RunStep(const StepPlan& plan);

  // Validation loss; all ranks together. kFailedPrecondition without validation rows.
  absl::StatusOr<EvalMetrics> Evaluate();

  const LoraLayout& layout() const { return layout_; }
  // Steps done, and what the state belongs to.
  int64_t step() const { return state_.step; }
  const JobIdentity& identity() const { return state_.identity; }
  // The whole state: what the updates left on the device is brought over, which takes time.
  absl::StatusOr<const JobState*> State();
  // Errors: kFailedPrecondition for a state of another job.
  absl::Status Restore(JobState state);
  // SHA-256 over the state's checkpoint bytes, hex: equal on all ranks.
  absl::StatusOr<std::string> StateHash();

  absl::StatusOr<AdapterFiles> Adapter();
  Llama* model() { return model_.get(); }
  // The adapter as the model takes it, with the state's weights.
  AdapterView DeviceAdapter();
  const PassPlan& pass_plan() const { return pass_plan_; }

 private:
  Trainer(const TrainerOptions& options, const TrainSpec& spec, LoraLayout layout,
          std::vector<RowView> train, std::vector<RowView> validation);
  absl::Status Init();
  absl::Status InitDevice();
  absl::Status PushState();
  absl::StatusOr<std::vector<Batch>> OwnBatches(std::span<const MicroBatch> micro_batches,
                                                std::span<const RowView> rows) const;
  absl::Status Accumulate(const StepPlan& plan, std::span<const Batch> own,
                          const AdapterView& adapter);
  absl::StatusOr<SumDecision> Decide(StepMetrics& metrics);
  // Fills mean_grad_ and returns its norm; the state stays as it is. Both are finite: each
  // micro-batch has a target, so no mean is larger than the largest gradient.
  absl::StatusOr<int64_t> ReduceIntegers(ExactGradientSum& sum);
  absl::StatusOr<double> MeanGradients(double divisor);
  absl::Status Update(StepMetrics& metrics);
  absl::Status Skip();
  double LearningRate(int64_t step) const;

  const TrainerOptions options_;
  const TrainSpec spec_;
  const LoraLayout layout_;
  const std::vector<RowView> train_;
  const std::vector<RowView> validation_;
  std::unique_ptr<DataPlan> plan_;
  std::vector<MicroBatch> validation_plan_;
  std::unique_ptr<Llama> model_;
  PassPlan pass_plan_;
  int64_t warmup_steps_ = 0;
  std::unique_ptr<ExactGradientSum> sum_;
  std::unique_ptr<ExactGradientSum> loss_sum_;  // of evaluations; no tensors
  Buffer mean_grad_;                            // all tensors', f32
  std::unique_ptr<Arena> mean_scratch_;         // of MeanGradients
  JobState state_;
  // Of the state's, which are behind after an update until State.
  Mirror<float> weights_, moment1_, moment2_;
  bool behind_ = false;
};

}  // namespace tundra
