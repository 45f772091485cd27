// Attention through a library that has a kernel for the case, behind a thin wrapper:
// ragged_library_cudnn.cc (cuDNN), ragged_library_none.cc in a build without its headers, and
// in tests plain loops (tests/emulation/ragged_library.cc).
//
// "Ragged": the rows of a micro-batch lie end to end and have lengths of their own. A plan is
// made for most rows and tokens, and told at each call, in device memory, where rows really lie.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "worker/cuda/runtime.h"
#include "worker/ops/ops.h"

namespace tundra::cuda {

// What a plan is made for.
struct RaggedShape {
  int heads = 0;
  int kv_heads = 0;
  int dim = 0;  // of a head
  float scale = 0;
  int64_t rows = 0;        // at most
  int64_t max_length = 0;  // of a row at most, in tokens
  int64_t tokens = 0;      // at most, in all

  auto operator<=>(const RaggedShape&) const = default;
};

// Device memory of one call. q, k, v, out and their gradients are [tokens][heads or
// kv_heads][dim] and contiguous, with the shape's `tokens`.
struct RaggedBuffers {
  const int32_t* lengths = nullptr;     // [rows], in tokens; 0 for rows that aren't there
  const int64_t* q_offsets = nullptr;   // [rows + 1], elements of q before each row
  const int64_t* kv_offsets = nullptr;  // the same of k
  const int64_t* stats_offsets = nullptr;
  const BF16* q = nullptr;
  const BF16* k = nullptr;
  const BF16* v = nullptr;
  BF16* out = nullptr;     // read by the backward
  float* stats = nullptr;  // [tokens][heads] log Σ exp, natural; read by the backward
  // Of the backward alone.
  const BF16* dout = nullptr;
  BF16* dq = nullptr;
  BF16* dk = nullptr;
  BF16* dv = nullptr;
  void* workspace = nullptr;  // the plan's workspace_bytes
};

// Causal attention inside each row, forward or backward, for one shape. Thread-safe.
class RaggedPlan {
 public:
  RaggedPlan(const RaggedShape& shape, size_t workspace_bytes)
      : shape_(shape), workspace_bytes_(workspace_bytes) {}
  virtual ~RaggedPlan() = default;

  const RaggedShape& shape() const { return shape_; }
  size_t workspace_bytes() const { return workspace_bytes_; }
  // Puts the work on the stream. What lies in no row is left as it is. The same operands give
  // the same bits every time. Errors: kInternal when the library fails.
  virtual absl::Status Run(cudaStream_t stream, const RaggedBuffers& buffers) = 0;

 private:
  RaggedShape shape_;
  size_t workspace_bytes_;
};

// Of one device: the one that was current when it was opened. Thread-safe.
class RaggedLibrary {
 public:
  virtual ~RaggedLibrary() = default;
  // Whether there may be plans for the backward at all.
  virtual bool has_backward() const = 0;
  // May take seconds. Library, device and shape alone decide how it goes. Errors: kUnimplemented
  // when the library has no kernel for it, kInternal when it fails otherwise.
  virtual absl::StatusOr<std::unique_ptr<RaggedPlan>> MakePlan(Direction direction,
                                                               const RaggedShape& shape) = 0;
};

// For the numerics class: "cudnn-91900-…". kNotFound, with the reason, when there is no such
// library here; nothing else is asked for then.
absl::StatusOr<std::string> RaggedLibraryVersion();

absl::StatusOr<std::unique_ptr<RaggedLibrary>> OpenRaggedLibrary();

}  // namespace tundra::cuda
