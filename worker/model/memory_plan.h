// How much memory a pass takes, and the plan that fits: keep activations, or compute
// them again in backward; how many micro-batches go through the layers together.
//
// None of it changes a bit of the result. Where the base is sharded all ranks must
// make the same plan, since they gather together: the budget has to be equal.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "worker/model/config.h"
#include "worker/model/lora.h"

namespace tundra {

// kNone keeps every layer's activations; kFull keeps each layer's input alone and
// runs its forward again before its backward.
enum class Recompute { kNone, kFull };

struct PassPlan {
  Recompute recompute = Recompute::kNone;
  // That go through the layers together; >= 1.
  int64_t micro_batches = 1;
  // What the pass takes from the arena.
  uint64_t arena_bytes = 0;
};

struct PassNeeds {
  // T, padded: the largest micro-batch.
  int64_t tokens = 0;
  // The most of them on one rank in a step.
  int64_t micro_batches = 1;
  // Bytes that the arena may have; 0: no bound.
  uint64_t budget_bytes = 0;
  // Whether each unit of the base is gathered or laid out anew in each pass, so that
  // many micro-batches a pass save work. Else one at a time is as fast.
  bool costly_units = false;
};

// Arena bytes of a training pass of m micro-batches of T tokens.
uint64_t TrainPassBytes(const ModelConfig& config, const LoraLayout& lora, int64_t tokens,
                        int64_t micro_batches, Recompute recompute);
// The same of a pass for the loss or logits alone; lora may be null.
uint64_t ForwardPassBytes(const ModelConfig& config, const LoraLayout* lora, int64_t tokens,
                          int64_t micro_batches);

// Errors: kResourceExhausted with the number of bytes needed, when not even one
// micro-batch with recomputation fits.
absl::StatusOr<PassPlan> PlanTrainPass(const ModelConfig& config, const LoraLayout& lora,
                                       const PassNeeds& needs);

}  // namespace tundra
