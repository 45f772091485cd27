#include "worker/model/generate.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "common/philox.h"
#include "common/status.h"

namespace tundra {
namespace {

absl::Status CheckOptions(std::span<const int32_t> prompt, const GenerateOptions& options) {
  if (prompt.empty()) return absl::InvalidArgumentError("the prompt has no token");
  if (options.max_tokens < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("max_tokens = ", options.max_tokens, ": use 1 or more"));
  }
  if (!(options.temperature >= 0) || !(options.temperature <= 100)) {
    return absl::InvalidArgumentError(
        absl::StrCat("temperature = ", options.temperature, ": use a number from 0 to 100"));
  }
  if (!(options.top_p > 0) || !(options.top_p <= 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat("top_p = ", options.top_p, ": use a number above 0, up to 1"));
  }
  return absl::OkStatus();
}

}  // namespace

int32_t ChooseToken(std::span<const float> logits, double temperature, double top_p,
                    double uniform) {
  const auto best = std::max_element(logits.begin(), logits.end());
  if (!(temperature > 0)) return static_cast<int32_t>(best - logits.begin());
  std::vector<int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::stable_sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) {
    return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
  });
  const double top = static_cast<double>(*best);
  std::vector<double> weights;
  for (const int32_t id : ids) {
    weights.push_back(std::exp((static_cast<double>(logits[static_cast<size_t>(id)]) - top) / temperature));
  }
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  // The nucleus: the first tokens whose share reaches top_p.
  size_t kept = 0;
  double nucleus = 0;
  while (kept < ids.size() && (kept == 0 || nucleus < top_p * total)) nucleus += weights[kept++];
  double left = uniform * nucleus;
  for (size_t i = 0; i < kept; ++i) {
    left -= weights[i];
    if (left < 0) return ids[i];
  }
  return ids[kept - 1];
}

absl::StatusOr<StopReason> Generate(Llama& model, const AdapterView& adapter,
                                    std::span<const int32_t> prompt,
                                    const GenerateOptions& options, const TokenSink& sink) {
  RETURN_IF_ERROR(CheckOptions(prompt, options));
  std::vector<int32_t> ids(prompt.begin(), prompt.end());
  if (static_cast<int64_t>(ids.size()) > model.max_positions()) {
    return absl::InvalidArgumentError(absl::StrCat("the prompt has ", ids.size(),
                                                   " tokens, over the limit of ",
                                                   model.max_positions()));
  }
  for (int64_t n = 0; n < options.max_tokens; ++n) {
    const std::vector<uint8_t> untrained(ids.size(), 0);
    const RowView row{ids, untrained, 0};
    ASSIGN_OR_RETURN(const Batch batch, MakeBatch({&row, 1}, model.config().vocab));
    const int32_t last = static_cast<int32_t>(ids.size()) - 1;
    ASSIGN_OR_RETURN(const std::vector<float> logits, model.Logits(batch, adapter, {&last, 1}));
    if (!std::all_of(logits.begin(), logits.end(), [](float x) { return std::isfinite(x); })) {
      return absl::DataLossError("the model's output is not finite; the adapter has diverged");
    }
    const PhiloxBlock random = Philox4x32({static_cast<uint32_t>(n), static_cast<uint32_t>(n >> 32),
                                           0, static_cast<uint32_t>(PhiloxUse::kSample)},
                                          PhiloxKeyOf(options.seed));
    const int32_t token = ChooseToken(logits, options.temperature, options.top_p,
                                      static_cast<double>(PhiloxUniform(random[0])));
    if (std::find(options.eos_ids.begin(), options.eos_ids.end(), token) != options.eos_ids.end()) {
      return StopReason::kEos;
    }
    if (!sink(token)) return StopReason::kCancelled;
    ids.push_back(token);
    if (static_cast<int64_t>(ids.size()) > model.max_positions()) return StopReason::kMaxPositions;
  }
  return StopReason::kMaxTokens;
}

}  // namespace tundra
