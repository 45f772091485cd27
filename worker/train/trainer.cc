#include "worker/train/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/sha256.h"
#include "common/status.h"

namespace tundra {
namespace {

// A second pass with exponents from the first's maxima is always accepted.
constexpr int kMaxPasses = 3;

std::vector<int64_t> TensorSizes(const LoraLayout& layout) {
  std::vector<int64_t> sizes;
  for (const LoraTensor& tensor : layout.tensors()) sizes.push_back(tensor.size);
  return sizes;
}

std::vector<int32_t> Lengths(std::span<const RowView> rows) {
  std::vector<int32_t> lengths;
  for (const RowView& row : rows) lengths.push_back(static_cast<int32_t>(row.ids.size()));
  return lengths;
}

absl::Status CheckRows(std::span<const RowView> rows, const char* set, const TrainSpec& spec,
                       int64_t vocab) {
  for (const RowView& row : rows) {
    // Now, not at the step that meets the row.
    for (const int32_t id : row.ids) {
      if (id >= 0 && id < vocab) continue;
      return absl::InvalidArgumentError(absl::StrCat(set, " row ", row.index, ": token id ", id,
                                                     " is not in the base's vocabulary of ", vocab,
                                                     "; tokenizer and base don't belong together"));
    }
    if (static_cast<int64_t>(row.ids.size()) > spec.max_seq_length) {
      return absl::InvalidArgumentError(absl::StrCat(
          set, " row ", row.index, ": ", row.ids.size(), " tokens are over max_seq_length = ",
          spec.max_seq_length, "; raise it, shorten the row or ask for truncation"));
    }
    if (std::none_of(row.trained.begin() + (row.trained.empty() ? 0 : 1), row.trained.end(),
                     [](uint8_t t) { return t != 0; })) {
      return absl::InvalidArgumentError(
          absl::StrCat(set, " row ", row.index, ": no target token; drop the row"));
    }
  }
  return absl::OkStatus();
}

class Stopwatch {
 public:
  explicit Stopwatch(double* seconds)
      : seconds_(seconds), start_(std::chrono::steady_clock::now()) {}
  ~Stopwatch() {
    *seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  double* seconds_;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Trainer>> Trainer::Create(const TrainerOptions& options,
                                                         const TrainSpec& spec,
                                                         std::vector<RowView> train,
                                                         std::vector<RowView> validation) {
  RETURN_IF_ERROR(CheckTrainSpec(spec, options.config));
  if (train.empty()) return absl::InvalidArgumentError("the training data has no rows");
  RETURN_IF_ERROR(CheckRows(train, "training", spec, options.config.vocab));
  RETURN_IF_ERROR(CheckRows(validation, "validation", spec, options.config.vocab));
  ASSIGN_OR_RETURN(LoraLayout layout, LoraLayout::Make(options.config, spec.lora));
  std::unique_ptr<Trainer> trainer(
      new Trainer(options, spec, std::move(layout), std::move(train), std::move(validation)));
  RETURN_IF_ERROR(trainer->Init());
  return trainer;
}

Trainer::Trainer(const TrainerOptions& options, const TrainSpec& spec, LoraLayout layout,
                 std::vector<RowView> train, std::vector<RowView> validation)
    : options_(options),
      spec_(spec),
      layout_(std::move(layout)),
      train_(std::move(train)),
      validation_(std::move(validation)) {}

absl::Status Trainer::Init() {
  ASSIGN_OR_RETURN(
      plan_, DataPlan::Create(Lengths(train_), {.batch_size = spec_.batch_size,
                                                .micro_batch_tokens = spec_.micro_batch_tokens,
                                                .packing = spec_.packing,
                                                .epochs = spec_.epochs,
                                                .max_steps = spec_.max_steps,
                                                .seed = spec_.seed}));
  if (!validation_.empty()) {
    ASSIGN_OR_RETURN(validation_plan_,
                     ValidationPlan(Lengths(validation_), spec_.micro_batch_tokens, spec_.packing));
  }
  ASSIGN_OR_RETURN(
      model_, Llama::Create(options_.config, options_.ops, options_.weights,
                            {.precision = spec_.precision, .max_positions = spec_.max_seq_length}));
  const int64_t padded =
      (spec_.micro_batch_tokens + kTokenMultiple - 1) / kTokenMultiple * kTokenMultiple;
  const int64_t ranks = options_.collective->size();
  ASSIGN_OR_RETURN(pass_plan_,
                   PlanTrainPass(options_.config, layout_,
                                 {.tokens = padded,
                                  .micro_batches = (spec_.batch_size + ranks - 1) / ranks,
                                  .budget_bytes = options_.activation_budget_bytes,
                                  .costly_units = options_.weights->plan().shards() > 1}));
  if (options_.force_recompute) pass_plan_.recompute = *options_.force_recompute;
  warmup_steps_ = spec_.warmup_steps >= 0 ? spec_.warmup_steps
                                          : WarmupSteps(spec_.warmup_ratio, plan_->total_steps());
  const size_t count = static_cast<size_t>(layout_.parameters());
  state_.identity = {SpecHash(spec_, train_), options_.base_hash,
                     options_.ops->device()->numerics_class()};
  state_.weights.resize(count);
  state_.moment1.assign(count, 0.0F);
  state_.moment2.assign(count, 0.0F);
  state_.exponents.assign(layout_.tensors().size(), kUnsetExponent);
  InitAdapter(layout_, spec_.seed, state_.weights);
  return InitDevice();
}

// What the sums and the update work on.
absl::Status Trainer::InitDevice() {
  Device* device = options_.ops->device();
  const std::vector<int64_t> sizes = TensorSizes(layout_);
  ASSIGN_OR_RETURN(sum_, ExactGradientSum::Create(options_.ops, sizes));
  ASSIGN_OR_RETURN(mean_grad_, device->Allocate(state_.weights.size() * sizeof(float)));
  ASSIGN_OR_RETURN(Arena scratch,
                   Arena::Create(device, MeanScratchBytes(layout_.parameters(),
                                                          static_cast<int>(sizes.size()))));
  mean_scratch_ = std::make_unique<Arena>(std::move(scratch));
  ASSIGN_OR_RETURN(weights_, Mirror<float>::Create(device, &state_.weights));
  ASSIGN_OR_RETURN(moment1_, Mirror<float>::Create(device, &state_.moment1));
  ASSIGN_OR_RETURN(moment2_, Mirror<float>::Create(device, &state_.moment2));
  return PushState();
}

absl::Status Trainer::PushState() {
  RETURN_IF_ERROR(weights_.Push(model_->ctx()));
  RETURN_IF_ERROR(moment1_.Push(model_->ctx()));
  return moment2_.Push(model_->ctx());
}

absl::Status Trainer::Restore(JobState state) {
  if (state.identity != state_.identity || state.weights.size() != state_.weights.size() ||
      state.moment1.size() != state_.moment1.size() ||
      state.moment2.size() != state_.moment2.size() ||
      state.exponents.size() != state_.exponents.size()) {
    return absl::FailedPreconditionError("the state to restore is of another job");
  }
  state_ = std::move(state);
  behind_ = false;
  return PushState();
}

// A checkpoint is seldom, a step is not: the state stays on the device in between.
absl::StatusOr<const JobState*> Trainer::State() {
  if (behind_) {
    RETURN_IF_ERROR(weights_.Pull(model_->ctx()));
    RETURN_IF_ERROR(moment1_.Pull(model_->ctx()));
    RETURN_IF_ERROR(moment2_.Pull(model_->ctx()));
    behind_ = false;
  }
  return &state_;
}

absl::StatusOr<std::string> Trainer::StateHash() {
  ASSIGN_OR_RETURN(const JobState* state, State());
  return Sha256Hex(EncodeCheckpoint(layout_, *state));
}

absl::StatusOr<AdapterFiles> Trainer::Adapter() {
  ASSIGN_OR_RETURN(const JobState* state, State());
  return MakeAdapterFiles(layout_, state->weights,
                          {.base_name = options_.base_name,
                           .base_hash = options_.base_hash,
                           .numerics_class = state_.identity.numerics_class});
}

AdapterView Trainer::DeviceAdapter() { return AdapterView{&layout_, weights_.view()}; }

double Trainer::LearningRate(int64_t step) const {
  return spec_.learning_rate *
         ScheduleFactor(spec_.lr_scheduler, step, warmup_steps_, plan_->total_steps());
}

absl::StatusOr<std::vector<Batch>> Trainer::OwnBatches(std::span<const MicroBatch> micro_batches,
                                                       std::span<const RowView> rows) const {
  const MicroBatchRange range = RankShare(static_cast<int64_t>(micro_batches.size()),
                                          options_.collective->rank(), options_.collective->size());
  std::vector<Batch> batches;
  for (int64_t i = range.begin; i < range.end; ++i) {
    std::vector<RowView> views;
    for (const int64_t row : micro_batches[static_cast<size_t>(i)].rows) {
      views.push_back(rows[static_cast<size_t>(row)]);
      views.back().index = row;
    }
    ASSIGN_OR_RETURN(batches.emplace_back(), MakeBatch(views, options_.config.vocab));
  }
  return batches;
}

absl::StatusOr<StepMetrics> Trainer::RunStep() {
  if (done()) {
    return absl::FailedPreconditionError(absl::StrCat("all ", total_steps(), " steps are done"));
  }
  return RunStep(plan_->Step(state_.step));
}

absl::StatusOr<StepMetrics> Trainer::RunStep(const StepPlan& plan) {
  StepMetrics metrics;
  metrics.step = state_.step + 1;
  metrics.epoch = plan.epoch;
  metrics.learning_rate = LearningRate(state_.step);
  ASSIGN_OR_RETURN(const std::vector<Batch> own, OwnBatches(plan.micro_batches, train_));
  const AdapterView adapter = DeviceAdapter();
  const double waited = options_.weights->stats().wait_seconds;
  std::vector<int32_t> exponents = state_.exponents;
  SumDecision decision = SumDecision::kRedo;
  for (int pass = 0; pass < kMaxPasses && decision == SumDecision::kRedo; ++pass) {
    RETURN_IF_ERROR(
        sum_->Begin(model_->ctx(), static_cast<int64_t>(plan.micro_batches.size()), exponents));
    {
      Stopwatch watch(&metrics.compute_seconds);
      RETURN_IF_ERROR(Accumulate(plan, own, adapter));
    }
    ASSIGN_OR_RETURN(decision, Decide(metrics));
    exponents = sum_->exponents();
  }
  metrics.weights_wait_seconds = options_.weights->stats().wait_seconds - waited;
  TUNDRA_CHECK(decision != SumDecision::kRedo) << "exponents don't settle";
  if (decision == SumDecision::kAccept) {
    Stopwatch watch(&metrics.update_seconds);
    ASSIGN_OR_RETURN(metrics.grad_norm,
                     MeanGradients(static_cast<double>(sum_->scalars().target_tokens)));
  }
  // From here on only a broken device can fail: the state changes as a whole.
  state_.redone += metrics.redone;
  ++state_.step;
  if (decision == SumDecision::kNonFinite) {
    metrics.non_finite = true;
    metrics.rows = plan.rows;
    metrics.loss = std::nan("");
    metrics.grad_norm = std::nan("");
    RETURN_IF_ERROR(Skip());
    return metrics;
  }
  state_.exponents = std::move(exponents);
  {
    // Ends before the figures are handed over.
    Stopwatch watch(&metrics.update_seconds);
    RETURN_IF_ERROR(Update(metrics));
  }
  return metrics;
}

absl::Status Trainer::Accumulate(const StepPlan& plan, std::span<const Batch> own,
                                 const AdapterView& adapter) {
  const int64_t ranks = options_.collective->size();
  const int64_t most = (static_cast<int64_t>(plan.micro_batches.size()) + ranks - 1) / ranks;
  const int64_t per_pass = pass_plan_.micro_batches;
  const DropoutKey dropout{.seed = spec_.seed,
                           .step = static_cast<uint64_t>(plan.step),
                           .epoch = static_cast<uint32_t>(plan.epoch),
                           .layer = 0,
                           .module = 0,
                           .probability = static_cast<float>(spec_.lora.dropout)};
  const auto sink = [&](int, int first, int count, ConstView grad) {
    return sum_->AddGradients(model_->ctx(), first, count, grad);
  };
  // As many passes on every rank, since they gather the base together.
  for (int64_t begin = 0; begin < most; begin += per_pass) {
    const size_t from = std::min(static_cast<size_t>(begin), own.size());
    const size_t to = std::min(static_cast<size_t>(begin + per_pass), own.size());
    const std::span<const Batch> pass = own.subspan(from, to - from);
    if (pass.empty() && options_.weights->plan().shards() == 1) break;
    options_.progress();
    std::vector<double> losses(pass.size());
    RETURN_IF_ERROR(model_->Train(pass, adapter, dropout, pass_plan_.recompute, sink, losses));
    for (size_t m = 0; m < pass.size(); ++m) {
      sum_->AddScalars({.loss_sum = losses[m],
                        .target_tokens = pass[m].target_tokens,
                        .tokens = pass[m].tokens(),
                        .rows = pass[m].num_rows()});
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<SumDecision> Trainer::Decide(StepMetrics& metrics) {
  Stopwatch watch(&metrics.reduce_seconds);
  const CallOptions call{.timeout = options_.collective_timeout, .on_host = true};
  ASSIGN_OR_RETURN(const std::span<float> maxima, sum_->Maxima(model_->ctx()));
  const int64_t maxima_bytes = static_cast<int64_t>(maxima.size_bytes());
  RETURN_IF_ERROR(options_.collective->AllReduceMax(maxima, call));
  const SumDecision decision = sum_->Decide();
  if (decision == SumDecision::kRedo) {
    ++metrics.redone;
    metrics.redone_allreduce_bytes += maxima_bytes;
    return decision;
  }
  metrics.allreduce_bytes += maxima_bytes;
  if (decision == SumDecision::kNonFinite) return decision;
  ASSIGN_OR_RETURN(const int64_t bytes, ReduceIntegers(*sum_));
  metrics.allreduce_bytes += bytes;
  return decision;
}

// Where they lie: on the device if the collective takes them there. Returns their bytes.
absl::StatusOr<int64_t> Trainer::ReduceIntegers(ExactGradientSum& sum) {
  const Ctx ctx = model_->ctx();
  CallOptions call{.timeout = options_.collective_timeout};
  std::span<int64_t> integers;
  if (options_.collective->size() == 1) {
    sum.ReducedAlone();
    return 0;
  }
  const bool on_device = options_.collective->memory_space() == MemorySpace::kDevice;
  if (on_device) {
    ASSIGN_OR_RETURN(integers, sum.IntegersOnDevice(ctx));
    call.stream = ctx.stream->native();
  } else {
    ASSIGN_OR_RETURN(integers, sum.Integers(ctx));
  }
  RETURN_IF_ERROR(options_.collective->AllReduceSum(integers, call));
  RETURN_IF_ERROR(on_device ? sum.ReducedOnDevice(ctx) : sum.Reduced(ctx));
  return static_cast<int64_t>(integers.size_bytes());
}

absl::StatusOr<double> Trainer::MeanGradients(double divisor) {
  ASSIGN_OR_RETURN(const std::span<const double> squares,
                   sum_->MeanGradients({model_->ctx().stream, mean_scratch_.get()}, divisor,
                                       mean_grad_.Matrix(DType::kF32, 1, layout_.parameters())));
  double total = 0;
  for (const double square : squares) total += square;
  return std::sqrt(total);
}

// The update is elementwise and alike for all tensors: one call for the whole adapter.
absl::Status Trainer::Update(StepMetrics& metrics) {
  const StepScalars scalars = sum_->scalars();
  metrics.tokens = scalars.tokens;
  metrics.target_tokens = scalars.target_tokens;
  metrics.rows = scalars.rows;
  metrics.loss = scalars.loss_sum / static_cast<double>(scalars.target_tokens);
  ++state_.updates;
  state_.non_finite_in_row = 0;
  state_.tokens += scalars.tokens;
  state_.target_tokens += scalars.target_tokens;
  Ops& ops = *options_.ops;
  const Ctx ctx = model_->ctx();
  const View grad = mean_grad_.Matrix(DType::kF32, 1, layout_.parameters());
  const double clip = ClipCoefficient(metrics.grad_norm, spec_.max_grad_norm);
  if (clip != 1.0) RETURN_IF_ERROR(ops.Scale(ctx, static_cast<float>(clip), grad));
  behind_ = true;
  RETURN_IF_ERROR(ops.AdamW(ctx,
                            {.learning_rate = metrics.learning_rate,
                             .beta1 = spec_.adamw.beta1,
                             .beta2 = spec_.adamw.beta2,
                             .epsilon = spec_.adamw.epsilon,
                             .weight_decay = spec_.adamw.weight_decay,
                             .step = state_.updates},
                            grad, weights_.view(), moment1_.view(), moment2_.view()));
  return ops.device()->Synchronize(ctx);
}

absl::Status Trainer::Skip() {
  ++state_.non_finite;
  ++state_.non_finite_in_row;
  if (state_.non_finite_in_row < spec_.non_finite_limit) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(
      "diverged: the gradient was not finite in ", state_.non_finite_in_row,
      " steps in a row, up to step ", state_.step,
      "; lower learning_rate or check the data set; the last good checkpoint is kept"));
}

absl::StatusOr<EvalMetrics> Trainer::Evaluate() {
  if (validation_.empty()) {
    return absl::FailedPreconditionError("the job has no validation data");
  }
  ASSIGN_OR_RETURN(const std::vector<Batch> own, OwnBatches(validation_plan_, validation_));
  const AdapterView adapter = DeviceAdapter();
  if (loss_sum_ == nullptr) {
    ASSIGN_OR_RETURN(loss_sum_, ExactGradientSum::Create(options_.ops, {}));
  }
  ExactGradientSum* const sum = loss_sum_.get();
  const int64_t count = static_cast<int64_t>(validation_plan_.size());
  RETURN_IF_ERROR(sum->Begin(model_->ctx(), count, {}));
  const int64_t ranks = options_.collective->size();
  const int64_t most = (count + ranks - 1) / ranks;
  for (int64_t begin = 0; begin < most; begin += pass_plan_.micro_batches) {
    const size_t from = std::min(static_cast<size_t>(begin), own.size());
    const size_t to = std::min(static_cast<size_t>(begin + pass_plan_.micro_batches), own.size());
    const std::span<const Batch> pass = std::span(own).subspan(from, to - from);
    if (pass.empty() && options_.weights->plan().shards() == 1) break;
    options_.progress();
    std::vector<double> losses(pass.size());
    RETURN_IF_ERROR(model_->Losses(pass, adapter, losses));
    for (size_t m = 0; m < pass.size(); ++m) {
      sum->AddScalars({.loss_sum = losses[m],
                       .target_tokens = pass[m].target_tokens,
                       .tokens = pass[m].tokens(),
                       .rows = pass[m].num_rows()});
    }
  }
  const CallOptions call{.timeout = options_.collective_timeout, .on_host = true};
  ASSIGN_OR_RETURN(const std::span<float> maxima, sum->Maxima(model_->ctx()));
  RETURN_IF_ERROR(options_.collective->AllReduceMax(maxima, call));
  if (sum->Decide() == SumDecision::kNonFinite) {
    return EvalMetrics{.loss = std::nan(""), .target_tokens = 0, .rows = 0};
  }
  RETURN_IF_ERROR(ReduceIntegers(*sum).status());
  const StepScalars scalars = sum->scalars();
  return EvalMetrics{.loss = scalars.loss_sum / static_cast<double>(scalars.target_tokens),
                     .target_tokens = scalars.target_tokens,
                     .rows = scalars.rows};
}

}  // namespace tundra
