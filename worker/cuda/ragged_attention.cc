#include "worker/cuda/ragged_attention.h"

#include <algorithm>
#include <bit>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "common/status.h"

namespace tundra::cuda {
namespace {

constexpr int64_t kLeastTokens = 128;

int64_t PowerOfTwo(int64_t n) {
  return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(n, 1))));
}

// Up to a multiple of an eighth of the power of two beneath.
int64_t RoundedTokens(int64_t tokens) {
  const auto power = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(tokens)));
  const int64_t unit = std::max(kLeastTokens, power / 8);
  return (tokens + unit - 1) / unit * unit;
}

}  // namespace

absl::StatusOr<std::string> ChooseAttention() {
  const char* variable = std::getenv(kAttentionVariable);
  const std::string choice = variable == nullptr ? "" : variable;
  if (choice == "own") return "";
  if (!choice.empty() && choice != "cudnn") {
    return absl::InvalidArgumentError(absl::StrCat(kAttentionVariable, " is \"", choice,
                                                   "\"; set it to own or to cudnn, or unset it"));
  }
  absl::StatusOr<std::string> version = RaggedLibraryVersion();
  if (version.ok()) return version;
  if (choice.empty()) return "";
  return absl::FailedPreconditionError(
      absl::StrCat(kAttentionVariable, " is cudnn, but ", version.status().message()));
}

RaggedShape RaggedShapeOf(const AttentionParams& params, const PackedRows& rows, int64_t tokens) {
  return {.heads = params.num_heads,
          .kv_heads = params.num_kv_heads,
          .dim = params.head_dim,
          .scale = params.scale,
          .rows = PowerOfTwo(rows.num_rows),
          .max_length = PowerOfTwo(std::max<int64_t>(rows.max_length, kLeastTokens)),
          .tokens = RoundedTokens(std::max<int64_t>(tokens, 1))};
}

bool RaggedAttention::Serves(const AttentionParams& params) {
  return params.precision == Precision::kBF16 && params.head_dim % 8 == 0;
}

size_t RaggedAttention::ScratchBytes(int64_t tokens, const AttentionParams& params) const {
  if (!Serves(params)) return 0;
  const RaggedShape shape = RaggedShapeOf(params, PackedRows(), tokens);
  return RaggedScratchBytes(shape) +
         RaggedWorkspaceLimit(library_->has_backward() ? Direction::kBackward : Direction::kForward,
                              shape);
}

absl::StatusOr<RaggedPlan*> RaggedAttention::PlanFor(Direction direction,
                                                     const AttentionParams& params,
                                                     const PackedRows& rows, int64_t tokens) {
  if (!Serves(params)) return nullptr;
  if (direction == Direction::kBackward && !library_->has_backward()) return nullptr;
  const RaggedShape shape = RaggedShapeOf(params, rows, tokens);
  // More than the scratch memory is made for: nearly all rows are empty.
  if (shape.rows > shape.tokens) return nullptr;
  const absl::MutexLock lock(&mutex_);
  const auto found = plans_.find({direction, shape});
  if (found != plans_.end()) return found->second.get();
  absl::StatusOr<std::unique_ptr<RaggedPlan>> plan = library_->MakePlan(direction, shape);
  if (absl::IsUnimplemented(plan.status())) plan = std::unique_ptr<RaggedPlan>();
  RETURN_IF_ERROR(plan.status());
  if (*plan != nullptr && (*plan)->workspace_bytes() > RaggedWorkspaceLimit(direction, shape)) {
    *plan = nullptr;
  }
  return (plans_[{direction, shape}] = *std::move(plan)).get();
}

}  // namespace tundra::cuda
