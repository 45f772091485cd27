// Which attention goes to a library (ragged_library.h) and which to the own kernels
// (attention.h), and the library's plans, made once and kept.
//
// It is decided by what every rank has in common, never by timing: the numerics class names
// the library's version, and the rest are the job's own shapes. Shapes are rounded up first, so
// that a job with rows of any lengths needs few plans; bits may depend on the rounded shape,
// which is the micro-batch's alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "worker/cuda/ragged_library.h"
#include "worker/ops/ops.h"

namespace tundra::cuda {

// The environment variable that chooses: "own" for the own kernels alone, "cudnn" to insist on
// the library; unset or empty, the library is used where it is found.
inline constexpr char kAttentionVariable[] = "TUNDRA_CUDA_ATTENTION";

// The part of the numerics class that names the library; "" when it is not used. Errors:
// kInvalidArgument for another value of the variable, kFailedPrecondition when the library is
// insisted on and isn't there.
absl::StatusOr<std::string> ChooseAttention();

// The shape of a plan for this work: rows and the longest row rounded up to powers of two,
// tokens to an eighth of one.
RaggedShape RaggedShapeOf(const AttentionParams& params, const PackedRows& rows, int64_t tokens);

// The most workspace that a plan is given; a plan that wants more is not used. Linear in tokens.
// Forward: some sums in f32. Backward: dq in f32, dk and dv of every query head, and, since the
// deterministic algorithm keeps the gradient of every score in two bytes, room for rows of 4,096.
inline size_t RaggedWorkspaceLimit(Direction direction, const RaggedShape& shape) {
  constexpr size_t kFixed = size_t{1} << 20;
  constexpr int64_t kScores = 4096;
  const int64_t each =
      direction == Direction::kForward ? 4 * shape.dim : 16 * shape.dim + 2 * kScores;
  return kFixed + static_cast<size_t>(shape.tokens * shape.heads * each);
}

// Bytes that either direction needs for the shape's tokens, in any number of rows up to that of
// the tokens, without the plan's workspace, which comes on top. Defined beside the
// layout, in attention_ragged.cu.
size_t RaggedScratchBytes(const RaggedShape& shape);

// Thread-safe.
class RaggedAttention {
 public:
  explicit RaggedAttention(std::unique_ptr<RaggedLibrary> library) : library_(std::move(library)) {}

  // Whether the library may be asked at all: bf16, and heads of a multiple of 8.
  static bool Serves(const AttentionParams& params);

  // Bytes of device memory that either direction needs for at most `tokens`; 0 if !Serves.
  size_t ScratchBytes(int64_t tokens, const AttentionParams& params) const;

  // The plan for this work, which lives as long as this; null when the own kernels are to do it.
  // The first call for a shape makes its plan. Errors: as RaggedLibrary::MakePlan, but for
  // kUnimplemented.
  absl::StatusOr<RaggedPlan*> PlanFor(Direction direction, const AttentionParams& params,
                                      const PackedRows& rows, int64_t tokens);

 private:
  std::unique_ptr<RaggedLibrary> library_;
  absl::Mutex mutex_;
  // Null for shapes that the own kernels do.
  std::map<std::pair<Direction, RaggedShape>, std::unique_ptr<RaggedPlan>> plans_
      ABSL_GUARDED_BY(mutex_);
};

}  // namespace tundra::cuda
