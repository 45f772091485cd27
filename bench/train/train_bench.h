// Measures training steps: how long they take, where the time goes, how much memory they
// need, and how near their matrix products come to the speed they could have.
//
// A run has four parts, one after another on one trainer:
//   1. warm-up steps: weights are laid out, exponents of the sums settle
//   2. measured steps: each timed as a whole, nothing else touched
//   3. profiled steps: each operation timed, products counted (profiled_ops.h)
//   4. each product of a step repeated by itself (best_rate.h)
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "bench/train/profiled_ops.h"
#include "worker/model/config.h"
#include "worker/model/memory_plan.h"

namespace tundra::bench {

struct TrainBenchOptions {
  // A shape's name or a base folder.
  std::string model;
  std::string device = "cpu";
  int threads = 1;
  Precision precision = Precision::kF32;
  // Of one step; a multiple of row_tokens.
  int64_t tokens = 512;
  // Of one row of the data set; 0: a row fills the micro-batch, or the model's positions.
  int64_t row_tokens = 0;
  // 0: one micro-batch a step.
  int64_t micro_batch_tokens = 0;
  // Rows of token ids that make one step, instead of random ones of tokens and row_tokens.
  std::vector<std::vector<int32_t>> rows;
  int64_t rank = 8;
  std::vector<std::string> target_modules = {"all-linear"};
  int64_t warm_up = 3;
  int64_t steps = 10;
  int64_t profiled_steps = 2;
  // How long each product is repeated; zero: products are not repeated, and no efficiency
  // is told.
  absl::Duration best_rate_time = absl::Milliseconds(150);
  uint64_t seed = 1;
  // Told what the run is at: "step 3 of 10".
  std::function<void(const std::string&)> progress = [](const std::string&) {};
};

struct ProductResult {
  ProductShape shape;
  double calls_per_step = 0;
  // Of a call: as the step has it (0 inside the loss), and the fastest there was (0 when
  // products were not repeated).
  double step_seconds = 0;
  double best_seconds = 0;
};

struct MemoryResult {
  // Of the base's weights as stored, and laid out beside.
  uint64_t base_bytes = 0;
  uint64_t prepared_bytes = 0;
  // The most that was taken from the device at once: laid-out weights, activations, scratch,
  // sums. Without the base itself, which is mapped, and without a host's own arrays.
  uint64_t device_peak_bytes = 0;
  // The most resident memory of the process.
  uint64_t process_peak_bytes = 0;
};

struct TrainBenchResult {
  TrainBenchOptions options;  // with its zeros filled in
  ModelConfig config;
  bool random_weights = false;
  std::string device_name;
  std::string numerics_class;
  bool native_bf16 = false;
  int64_t base_parameters = 0;
  int64_t adapter_parameters = 0;
  Recompute recompute = Recompute::kNone;
  int64_t target_tokens = 0;  // of a step
  int64_t allreduce_bytes = 0;
  // Nats per target token before the first update, and at the last measured step.
  double first_loss = 0;
  double last_loss = 0;
  // Passes that measured steps ran again.
  int64_t redone = 0;
  // Once, before the first step: laying out weights.
  double prepare_seconds = 0;
  std::vector<double> step_seconds;  // measured steps
  double profiled_step_seconds = 0;  // mean of the profiled steps
  // Of a profiled step; together its duration.
  std::array<double, kPhases> phase_seconds{};
  std::vector<ProductResult> products;
  MemoryResult memory;

  double MedianStepSeconds() const;
  double TokensPerSecond() const;  // at the median
  // Floating-point operations of a step's matrix products.
  double Flops() const;
  // Seconds that they would take, each at the best rate of its shape; 0 when not measured.
  double BestProductsSeconds() const;
  // That ÷ the median step. 0 when not measured.
  double Efficiency() const;
  // FLOP/s of the fastest frozen product.
  double BestFrozenRate() const;
  // Flops ÷ the median step ÷ BestFrozenRate. 0 when not measured.
  double OfBestFrozenRate() const;
};

// Errors: kInvalidArgument for options that don't fit together, kNotFound for the model,
// kResourceExhausted, those of the engine.
absl::StatusOr<TrainBenchResult> RunTrainBench(TrainBenchOptions options);

}  // namespace tundra::bench
