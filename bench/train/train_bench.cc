#include "bench/train/train_bench.h"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <memory>
#include <numeric>
#include <random>

#include "absl/strings/str_cat.h"
#include "bench/train/backend.h"
#include "bench/train/bench_base.h"
#include "bench/train/best_rate.h"
#include "bench/train/counting_device.h"
#include "bench/train/model_shapes.h"
#include "common/status.h"
#include "worker/collective/collective_local.h"
#include "worker/model/weights.h"
#include "worker/train/trainer.h"

namespace tundra::bench {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// The kernel's count of the most pages that were resident.
uint64_t ProcessPeakBytes() {
  std::ifstream status("/proc/self/status");
  std::string word;
  while (status >> word) {
    uint64_t kib = 0;
    if (word == "VmHWM:" && status >> kib) return kib << 10;
  }
  return 0;
}

// Fills in what was left 0, and checks that all fits together.
absl::Status Complete(TrainBenchOptions& options, const ModelConfig& config) {
  if (!options.rows.empty()) {
    size_t longest = 0, total = 0;
    for (const std::vector<int32_t>& row : options.rows) {
      longest = std::max(longest, row.size());
      total += row.size();
    }
    options.row_tokens = static_cast<int64_t>(longest);
    options.tokens = static_cast<int64_t>(total);
  }
  if (options.micro_batch_tokens == 0) options.micro_batch_tokens = options.tokens;
  if (options.row_tokens == 0) {
    options.row_tokens = std::min(options.micro_batch_tokens, config.max_positions);
  }
  if (options.steps < 1 || options.warm_up < 1 || options.profiled_steps < 1) {
    return absl::InvalidArgumentError("steps, warm-up and profiled steps must each be at least 1");
  }
  if (options.row_tokens < 2 || options.row_tokens > config.max_positions) {
    return absl::InvalidArgumentError(absl::StrCat("rows of ", options.row_tokens,
                                                   " tokens: the model takes from 2 to ",
                                                   config.max_positions, "; set --row-tokens"));
  }
  if (options.rows.empty() && (options.tokens < 1 || options.tokens % options.row_tokens != 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("--tokens ", options.tokens, " is no whole number of rows of ",
                     options.row_tokens, " tokens; change one of --tokens and --row-tokens"));
  }
  if (options.micro_batch_tokens < options.row_tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("--micro-batch-tokens ", options.micro_batch_tokens, " is less than a row of ",
                     options.row_tokens, " tokens; raise it"));
  }
  return absl::OkStatus();
}

std::vector<std::vector<int32_t>> RandomRows(const TrainBenchOptions& options, int64_t vocab) {
  std::mt19937_64 engine(options.seed);
  std::vector<std::vector<int32_t>> rows(static_cast<size_t>(options.tokens / options.row_tokens));
  for (std::vector<int32_t>& row : rows) {
    row.resize(static_cast<size_t>(options.row_tokens));
    for (int32_t& id : row) id = static_cast<int32_t>(engine() % static_cast<uint64_t>(vocab));
  }
  return rows;
}

// One job on one rank, and what it stands on, lowest first.
class Bench {
 public:
  explicit Bench(TrainBenchOptions options) { result_.options = std::move(options); }

  absl::StatusOr<TrainBenchResult> Run() {
    RETURN_IF_ERROR(OpenBase());
    RETURN_IF_ERROR(OpenTrainer());
    RETURN_IF_ERROR(WarmUp());
    RETURN_IF_ERROR(MeasureSteps());
    RETURN_IF_ERROR(ProfileSteps());
    RETURN_IF_ERROR(RepeatProducts());
    return std::move(result_);
  }

 private:
  TrainBenchOptions& options() { return result_.options; }
  absl::Status OpenBase();
  absl::Status OpenTrainer();
  absl::Status WarmUp();
  absl::Status MeasureSteps();
  absl::Status ProfileSteps();
  absl::Status RepeatProducts();

  TrainBenchResult result_;
  std::unique_ptr<BenchBase> base_;
  std::vector<std::vector<int32_t>> rows_;
  std::vector<std::vector<uint8_t>> trained_;
  Backend backend_;
  std::unique_ptr<CountingDevice> device_;
  std::unique_ptr<ProfiledOps> ops_;
  // The weights' own, since their thread runs beside the step.
  std::unique_ptr<ProfiledOps> weight_ops_;
  std::unique_ptr<Collective> collective_;
  std::unique_ptr<WeightSource> weights_;
  std::unique_ptr<Trainer> trainer_;
};

absl::Status Bench::OpenBase() {
  options().progress(absl::StrCat("opening ", options().model));
  ASSIGN_OR_RETURN(base_, BenchBase::Open(options().model, options().seed, options().threads));
  result_.config = base_->config();
  result_.random_weights = base_->random_weights();
  result_.base_parameters = BaseParameters(result_.config);
  RETURN_IF_ERROR(Complete(options(), result_.config));
  rows_ = options().rows.empty() ? RandomRows(options(), result_.config.vocab) : options().rows;
  for (const std::vector<int32_t>& row : rows_) trained_.emplace_back(row.size(), 1);
  return absl::OkStatus();
}

absl::Status Bench::OpenTrainer() {
  ASSIGN_OR_RETURN(backend_, OpenBackend(options().device, options().threads));
  result_.device_name = backend_.device->name();
  result_.numerics_class = backend_.device->numerics_class();
  result_.native_bf16 = backend_.device->native_bf16();
  device_ = std::make_unique<CountingDevice>(backend_.device.get());
  ops_ = std::make_unique<ProfiledOps>(backend_.ops.get(), device_.get());
  weight_ops_ = std::make_unique<ProfiledOps>(backend_.ops.get(), device_.get());

  LocalGroup group(1);
  ASSIGN_OR_RETURN(const auto bootstrap, group.Bootstrap(0));
  ASSIGN_OR_RETURN(collective_,
                   bootstrap->Connect({bootstrap->local_address()}, absl::Seconds(10)));
  WeightSourceOptions source;
  source.precision = options().precision;
  source.shard_fds = {base_->shard_fd()};
  ASSIGN_OR_RETURN(weights_, WeightSource::Create(base_->plan(), weight_ops_.get(), source));

  TrainerOptions trainer;
  trainer.config = result_.config;
  trainer.base_name = base_->name();
  trainer.ops = ops_.get();
  trainer.weights = weights_.get();
  trainer.collective = collective_.get();
  TrainSpec spec;
  spec.lora.rank = options().rank;
  spec.lora.alpha = 2 * static_cast<double>(options().rank);
  spec.lora.target_modules = options().target_modules;
  spec.max_steps = options().warm_up + options().steps + options().profiled_steps;
  spec.batch_size = static_cast<int64_t>(rows_.size());
  spec.micro_batch_tokens = options().micro_batch_tokens;
  spec.max_seq_length = options().row_tokens;
  spec.lr_scheduler = ScheduleKind::kConstant;
  spec.precision = options().precision;
  spec.seed = options().seed;
  std::vector<RowView> views;
  for (size_t i = 0; i < rows_.size(); ++i) {
    views.push_back({rows_[i], trained_[i], static_cast<int64_t>(i)});
  }
  ASSIGN_OR_RETURN(trainer_, Trainer::Create(trainer, spec, std::move(views), {}));
  result_.adapter_parameters = trainer_->layout().parameters();
  result_.recompute = trainer_->pass_plan().recompute;
  return absl::OkStatus();
}

absl::Status Bench::WarmUp() {
  for (int64_t i = 0; i < options().warm_up; ++i) {
    options().progress(absl::StrCat("warm-up step ", i + 1, " of ", options().warm_up));
    ASSIGN_OR_RETURN(const StepMetrics step, trainer_->RunStep());
    if (i == 0) result_.first_loss = step.loss;
  }
  result_.prepare_seconds = weights_->stats().prepare_seconds;
  return absl::OkStatus();
}

absl::Status Bench::MeasureSteps() {
  for (int64_t i = 0; i < options().steps; ++i) {
    options().progress(absl::StrCat("step ", i + 1, " of ", options().steps));
    const Clock::time_point start = Clock::now();
    ASSIGN_OR_RETURN(const StepMetrics step, trainer_->RunStep());
    result_.step_seconds.push_back(SecondsSince(start));
    result_.redone += step.redone;
    result_.last_loss = step.loss;
    result_.target_tokens = step.target_tokens;
    result_.allreduce_bytes = step.allreduce_bytes;
  }
  const WeightStats weights = weights_->stats();
  result_.memory = {.base_bytes = weights.resident_shard_bytes,
                    .prepared_bytes = weights.prepared_bytes,
                    .device_peak_bytes = device_->peak_bytes(),
                    .process_peak_bytes = ProcessPeakBytes()};
  return absl::OkStatus();
}

absl::Status Bench::ProfileSteps() {
  const auto reducing = [this] {
    const CollectiveStats stats = collective_->stats();
    return stats.reduce_seconds + stats.other_seconds;
  };
  const double reduced_before = reducing();
  double waited = 0, total = 0;
  ops_->set_profiling(true);
  device_->set_graphs(false);
  for (int64_t i = 0; i < options().profiled_steps; ++i) {
    options().progress(absl::StrCat("profiled step ", i + 1, " of ", options().profiled_steps));
    const Clock::time_point start = Clock::now();
    ASSIGN_OR_RETURN(const StepMetrics step, trainer_->RunStep());
    total += SecondsSince(start);
    waited += step.weights_wait_seconds;
  }
  ops_->set_profiling(false);
  device_->set_graphs(true);
  const double steps = static_cast<double>(options().profiled_steps);
  std::array<double, kPhases>& phases = result_.phase_seconds;
  phases = ops_->profile().seconds;
  phases[static_cast<size_t>(Phase::kWeights)] = waited;
  phases[static_cast<size_t>(Phase::kAllReduce)] = reducing() - reduced_before;
  for (double& seconds : phases) seconds /= steps;
  result_.profiled_step_seconds = total / steps;
  phases[static_cast<size_t>(Phase::kOther)] =
      result_.profiled_step_seconds - std::accumulate(phases.begin(), phases.end(), 0.0);
  for (const auto& [shape, use] : ops_->profile().products) {
    result_.products.push_back({.shape = shape,
                                .calls_per_step = static_cast<double>(use.calls) / steps,
                                .step_seconds = use.seconds / static_cast<double>(use.calls),
                                .best_seconds = 0});
  }
  return absl::OkStatus();
}

absl::Status Bench::RepeatProducts() {
  if (options().best_rate_time <= absl::ZeroDuration()) return absl::OkStatus();
  const BestRateOptions repeat = {
      .each = options().best_rate_time, .progress = [this](size_t done, size_t all) {
        options().progress(absl::StrCat("product ", done + 1, " of ", all));
      }};
  ASSIGN_OR_RETURN(const auto best, MeasureBestSeconds(ops_.get(), ops_->profile(), repeat));
  for (ProductResult& product : result_.products) {
    product.best_seconds = best.at(product.shape);
  }
  return absl::OkStatus();
}

}  // namespace

double TrainBenchResult::MedianStepSeconds() const {
  std::vector<double> sorted = step_seconds;
  std::sort(sorted.begin(), sorted.end());
  const size_t n = sorted.size();
  return n == 0 ? 0 : (sorted[n / 2] + sorted[(n - 1) / 2]) / 2;
}

double TrainBenchResult::TokensPerSecond() const {
  return static_cast<double>(options.tokens) / MedianStepSeconds();
}

double TrainBenchResult::Flops() const {
  double total = 0;
  for (const ProductResult& product : products) {
    total += product.calls_per_step * product.shape.flops();
  }
  return total;
}

double TrainBenchResult::BestProductsSeconds() const {
  double total = 0;
  for (const ProductResult& product : products) {
    total += product.calls_per_step * product.best_seconds;
  }
  return total;
}

double TrainBenchResult::Efficiency() const { return BestProductsSeconds() / MedianStepSeconds(); }

double TrainBenchResult::BestFrozenRate() const {
  double best = 0;
  for (const ProductResult& product : products) {
    const bool frozen = product.shape.kind <= ProductKind::kOutputBackward;
    if (!frozen || product.best_seconds <= 0) continue;
    best = std::max(best, product.shape.flops() / product.best_seconds);
  }
  return best;
}

double TrainBenchResult::OfBestFrozenRate() const {
  const double rate = BestFrozenRate();
  return rate > 0 ? Flops() / MedianStepSeconds() / rate : 0;
}

absl::StatusOr<TrainBenchResult> RunTrainBench(TrainBenchOptions options) {
  return Bench(std::move(options)).Run();
}

}  // namespace tundra::bench
