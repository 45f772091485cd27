// Text from the model, token by token: greedy, or sampled with temperature and
// top-p. The whole forward runs again for every token; there is no cache yet.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/model/llama.h"

namespace tundra {

struct GenerateOptions {
  int64_t max_tokens = 128;  // >= 1
  // 0: greedy. Else in (0, 100].
  double temperature = 0;
  // The smallest set of most likely tokens that together reach this, in (0, 1].
  double top_p = 1;
  // Of the random numbers; equal seeds give equal text.
  uint64_t seed = 0;
  // Ids that end the text; not part of it.
  std::vector<int64_t> eos_ids;
};

enum class StopReason { kEos, kMaxTokens, kMaxPositions, kCancelled };

// Told each token as it comes; false stops.
using TokenSink = std::function<bool(int32_t token)>;

// prompt: at least one token. `max_positions` is the model's (ModelOptions).
// With a network weight source every rank of it must make the same call.
// Errors: kInvalidArgument for a prompt or option out of range, kDataLoss when logits
// are not finite; those of the model.
absl::StatusOr<StopReason> Generate(Llama& model, const AdapterView& adapter,
                                    std::span<const int32_t> prompt,
                                    const GenerateOptions& options, const TokenSink& sink);

// The token chosen from logits_V; `uniform` in [0, 1) is used unless greedy. Ties go
// to the lower id.
int32_t ChooseToken(std::span<const float> logits_V, double temperature, double top_p,
                    double uniform);

}  // namespace tundra
