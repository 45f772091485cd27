// Causal attention over packed rows on a CUDA device, forward and backward, in blocks on tensor
// cores: the kernels behind Ops::Attention and Ops::AttentionBackward, where formulas and
// shapes stand. A library's kernels run instead where there is one for the case:
// ragged_attention.h and attention_ragged.cu.
//
//   attention_pack.cu            operands copied head by head in the type of the products
//   attention_forward.cu         out and lse; a block has a tile of queries
//   attention_query_gradient.cu  dq; a block has a tile of queries
//   attention_key_gradient.cu    dk and dv; a block has a tile of keys
//   attention_tile.h             tiles in shared memory and their products
//   attention_rows.h             which tokens a block has, and who sees whom
//   attention_shapes.h           sizes of tiles
//
// Precision::kBF16 rounds the factors of each product to bf16 and sums in f32. kF32 splits
// each factor into three bf16, which together are the float: tensor cores multiply these too.
// Sums have one order, which depends on places within a row alone; blocks share none.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "worker/cuda/kernels.h"
#include "worker/cuda/ragged_attention.h"
#include "worker/ops/ops.h"

namespace tundra::cuda {

// Bytes of device memory that either call needs as `scratch`, at a 64-byte boundary.
size_t AttentionScratchBytes(const RaggedAttention* library, int64_t tokens,
                             const AttentionParams& params);

// Puts the work on the queue. `library` may be null: then the own kernels do everything.
// Shapes have been checked (worker/ops/attention_checks.h).
// Offsets that are not as PackedRows says are reported as Fault::kOffsets; results are
// unspecified then, but no other memory is touched.
// Errors: kInternal when a launch is refused or the library fails.
absl::Status AttentionForward(const Queue& queue, RaggedAttention* library, void* scratch,
                              const PackedRows& rows, const AttentionParams& params, ConstView q_TH,
                              ConstView k_TG, ConstView v_TG, View out_TH, View lse_TH);
absl::Status AttentionBackward(const Queue& queue, RaggedAttention* library, void* scratch,
                               const PackedRows& rows, const AttentionParams& params,
                               ConstView dout_TH, ConstView q_TH, ConstView k_TG, ConstView v_TG,
                               ConstView out_TH, ConstView lse_TH, View dq_TH, View dk_TG,
                               View dv_TG);

}  // namespace tundra::cuda
