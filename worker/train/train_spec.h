// What a training job asks for, as the engine takes it: plain values, checked once.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "worker/model/batch.h"
#include "worker/model/config.h"
#include "worker/model/lora.h"
#include "worker/ops/ops.h"
#include "worker/train/optimizer.h"
#include "worker/train/schedule.h"

namespace tundra {

// Names are those of the job file.
struct TrainSpec {
  LoraSpec lora;
  // Exactly one of the two is > 0.
  int64_t epochs = 0;
  int64_t max_steps = 0;
  // Rows of the data set per optimizer step, over all ranks.
  int64_t batch_size = 16;
  // Tokens of a micro-batch, at most; >= max_seq_length.
  int64_t micro_batch_tokens = 1024;
  // The longest row, in tokens.
  int64_t max_seq_length = 512;
  bool packing = true;
  double learning_rate = 2e-4;
  ScheduleKind lr_scheduler = ScheduleKind::kCosine;
  // Of all steps, in [0, 1]; warmup_steps >= 0 overrides it.
  double warmup_ratio = 0.03;
  int64_t warmup_steps = -1;
  // weight_decay and the betas. (AdamW)
  AdamWOptions adamw;
  // <= 0: no clipping.
  double max_grad_norm = 1.0;
  Precision precision = Precision::kF32;
  uint64_t seed = 0;
  // Steps in a row with a gradient that is not finite before the job fails.
  int64_t non_finite_limit = 5;
};

// Errors: kInvalidArgument naming every field that is out of range, what it is and
// what is allowed.
absl::Status CheckTrainSpec(const TrainSpec& spec, const ModelConfig& config);

// SHA-256, hex, of every field and every row: two jobs with equal hashes on one base
// give equal bytes.
std::string SpecHash(const TrainSpec& spec, std::span<const RowView> train);

}  // namespace tundra
