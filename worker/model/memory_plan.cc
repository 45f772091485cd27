#include "worker/model/memory_plan.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "worker/model/layer.h"

namespace tundra {
namespace {

uint64_t Matrix(int64_t rows, int64_t columns) {
  const uint64_t bytes = static_cast<uint64_t>(rows * columns) * sizeof(float);
  return (bytes + Arena::kAlignment - 1) / Arena::kAlignment * Arena::kAlignment;
}

// Ids, targets, positions, rows; offsets of at most T rows; and the loss.
uint64_t BatchBytes(int64_t tokens) { return 4 * Matrix(1, tokens) + Matrix(1, tokens + 1) + 64; }

// The widest layer decides; layers differ only in what is adapted.
uint64_t LargestActs(const ModelConfig& config, const LoraLayout* lora, int64_t tokens) {
  uint64_t largest = 0;
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    largest = std::max(largest, LayerActsBytes(config, lora, layer, tokens));
  }
  return largest;
}

}  // namespace

uint64_t TrainPassBytes(const ModelConfig& config, const LoraLayout& lora, int64_t tokens,
                        int64_t micro_batches, Recompute recompute) {
  const int64_t trained = config.layers - lora.lowest_layer();
  const uint64_t state = Matrix(tokens, config.hidden);
  // The input of each trained layer, the last output, the gradient.
  uint64_t each = BatchBytes(tokens) + state * static_cast<uint64_t>(trained + 2);
  const uint64_t acts = LargestActs(config, &lora, tokens);
  uint64_t once = acts;
  if (recompute == Recompute::kNone) {
    each += acts * static_cast<uint64_t>(trained);
    once = lora.lowest_layer() > 0 ? acts : 0;
  }
  // The head's temporaries are smaller than a layer's: two states.
  return each * static_cast<uint64_t>(micro_batches) + once +
         std::max(LayerTemporaryBytes(config, &lora, tokens), 2 * state + Matrix(1, tokens)) +
         Matrix(1, lora.parameters());
}

uint64_t ForwardPassBytes(const ModelConfig& config, const LoraLayout* lora, int64_t tokens,
                          int64_t micro_batches) {
  const uint64_t state = Matrix(tokens, config.hidden);
  return (BatchBytes(tokens) + state) * static_cast<uint64_t>(micro_batches) +
         LargestActs(config, lora, tokens) +
         std::max(LayerTemporaryBytes(config, lora, tokens), 2 * state + 2 * Matrix(1, tokens));
}

absl::StatusOr<PassPlan> PlanTrainPass(const ModelConfig& config, const LoraLayout& lora,
                                       const PassNeeds& needs) {
  const auto bytes = [&](int64_t m, Recompute recompute) {
    return TrainPassBytes(config, lora, needs.tokens, m, recompute);
  };
  const auto fits = [&](int64_t m, Recompute recompute) {
    return needs.budget_bytes == 0 || bytes(m, recompute) <= needs.budget_bytes;
  };
  const int64_t wanted = needs.costly_units ? std::max<int64_t>(needs.micro_batches, 1) : 1;
  // Computing a layer again costs a third more; making a unit ready again is cheap
  // beside a micro-batch's work. So activations are given up last.
  for (const Recompute recompute : {Recompute::kNone, Recompute::kFull}) {
    if (!fits(1, recompute)) continue;
    // The most that fit: bytes rise with m.
    int64_t m = 1;
    for (int64_t over = wanted + 1; over - m > 1;) {
      const int64_t middle = m + (over - m) / 2;
      (fits(middle, recompute) ? m : over) = middle;
    }
    return PassPlan{recompute, m, bytes(m, recompute)};
  }
  return absl::ResourceExhaustedError(
      absl::StrCat("training needs ", bytes(1, Recompute::kFull), " bytes for activations, but ",
                   needs.budget_bytes, " are there; lower micro_batch_tokens (", needs.tokens,
                   " tokens after padding) or give the rank more memory"));
}

}  // namespace tundra
